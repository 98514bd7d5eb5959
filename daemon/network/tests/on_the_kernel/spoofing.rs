//! What a guest may send, and what must not reach its neighbour.
