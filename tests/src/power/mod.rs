//! Power cuts: a daemon works on disks whose content is copied at any moment as a cut would leave it; later a new
//! daemon starts on each copy and must find everything that was acknowledged.

mod bench;
mod disks;
mod journal;
mod look;
mod work;

pub use bench::{Bench, Setup, Verdict};
pub use disks::{Disks, Kind, Which};
pub use journal::{Journal, State};
pub use work::{ROUND, minutes};
