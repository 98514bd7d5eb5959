//! Projects. Only `default` exists for now; the field is everywhere from the first day.

use serde::{Deserialize, Serialize};

use crate::lenient::ConfigMap;

/// A project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Config.
    pub config: ConfigMap,
    /// For people.
    pub description: String,
    /// The name.
    pub name: String,
    /// Addresses of what lies in it.
    pub used_by: Vec<String>,
}
