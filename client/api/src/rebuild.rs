//! A new root filesystem for an instance that is there.

use serde::{Deserialize, Serialize};

use crate::instance::InstanceSource;
use crate::lenient::null_is_zero;

/// What a root filesystem is made from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceRebuildPost {
    /// An image, or nothing.
    #[serde(deserialize_with = "null_is_zero")]
    pub source: InstanceSource,
}
