//! Where an image's first tree comes from: one file for each downloader.

pub mod busybox;
pub mod debootstrap;
