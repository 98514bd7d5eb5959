//! Bridges and nics against the kernel, each test in namespaces of its own. Root, iproute2, nftables (only
//! to look), dnsmasq-base, busybox-static and python3 are needed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod addresses;
mod carrying;
mod frames;
mod life;
mod pairs;
mod spoofing;
mod switches;
mod world;
