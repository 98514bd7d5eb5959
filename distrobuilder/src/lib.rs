//! From a definition to an image: a source makes a tree, packages, files and actions change it, a packer
//! turns it into the files that `image import` takes.
//!
//! Definitions have the shape of distrobuilder's; what is not implemented is refused. Nothing is printed here.

#![forbid(unsafe_code)]

pub mod build;
mod cache;
pub mod definition;
mod error;
mod generator;
pub mod inside;
mod manager;
mod reading;
pub mod shipped;
mod source;

pub use build::{Built, Layout, Options, Progress, build};
pub use definition::Definition;
pub use error::{Error, Result};
pub use shipped::shipped;
