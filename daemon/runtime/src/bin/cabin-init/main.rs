//! Starts a container and watches over it, or runs a command in one.
#![forbid(unsafe_code)]
fn main() {}
