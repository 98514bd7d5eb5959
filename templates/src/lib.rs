//! Files rendered into a rootfs when an instance is created, copied, renamed or started: the engine, what a
//! template can see, and the templates that come with Cabin. Writing the result beneath a rootfs is for others.

#![forbid(unsafe_code)]

pub mod catalogue;
pub mod context;
pub mod engine;
mod error;
mod rewrite;

pub use catalogue::{SHIPPED, Shipped, Trigger, due, shipped};
pub use context::{Context, InstanceFacts};
pub use engine::{MOST_OUTPUT, MOST_SOURCE, render, render_with};
pub use error::Error;
