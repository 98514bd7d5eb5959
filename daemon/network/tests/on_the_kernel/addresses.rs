//! Addresses, names, NAT and state.
