//! Image files: what they are, what they say about themselves, how they become a tree and are made from one.
//!
//! Owns formats, fingerprints, metadata, the confined unpacking child and packing. Where images are kept,
//! and what an alias is, belongs to others.

#![forbid(unsafe_code)]

mod backup;
mod child;
mod confine;
mod decompress;
mod error;
mod extract;
mod fingerprint;
mod format;
mod message;
mod metadata;
mod pack;
mod squash;
mod stream;
mod tarball;
mod tree;
mod unpacker;

pub use backup::{BackupWriter, Place, RestoreTo, ShiftRun, StreamSource};
pub use child::main as child_main;
pub use error::{Error, Kind, Reported, Result};
pub use fingerprint::{Fingerprint, HashingWriter, digest, fingerprint};
pub use format::{Compression, Format, Shape, detect};
pub use message::{IdRange, Limits, UnpackReport};
pub use metadata::{MAX_METADATA, MAX_TEMPLATES, MAX_TEMPLATES_SIZE, Metadata, Template, is_template_name};
pub use pack::{TreeSource, pack_metadata, pack_rootfs, pack_squashfs, pack_unified};
pub use unpacker::{ImageFiles, Unpacker};
