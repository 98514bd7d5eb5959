//! Where strings end: expanded config and devices become the typed specs of the floor below.
//!
//! Nothing on the host is touched here; what comes out is whole or an error.

mod bridge;
mod disk;
mod init;
mod nic;

use cabin_network::IfName;
use cabin_profiles::value::number;
use cabin_runtime::spec::{CgroupLimits, DiskSpec, IdMap, IdRange, InitSpec, RootSpec};
use cabin_storage::Layers;
use cabin_store::rows::{self, Config};

use crate::instance::Expanded;
use crate::{Error, Host};

pub(crate) use bridge::{bridge, resolve_auto};
pub(crate) use disk::{Mounted, check_disks, check_paths, disks, disks_before, unmapped, volume_of};
pub(crate) use init::limits;
pub(crate) use nic::{
    FixedMove, Nic, Place, all_nics, bridge_of, check_nics, fixed_nics, has_fixed, move_all_fixed,
    move_fixed, nics, release_fixed, reserve_fixed,
};

/// Everything a start needs.
pub(crate) struct Start {
    pub init: InitSpec,
    pub limits: CgroupLimits,
    pub nics: Vec<Nic>,
    pub disks: Vec<DiskSpec>,
}

impl Start {
    /// Resolves an instance.
    ///
    /// # Errors
    /// When a value makes no sense on this host, or what it names is not there.
    pub fn resolve(
        host: &Host,
        project: &str,
        name: &str,
        row: &rows::Instance,
        expanded: &Expanded,
    ) -> Result<Start, Error> {
        Ok(Start {
            init: init::init(host, project, name, row, expanded)?,
            limits: limits(host, &expanded.config)?,
            nics: nics(host, name, row, expanded)?,
            disks: disks(host, name, &expanded.devices)?.into_iter().map(|disk| disk.spec).collect(),
        })
    }
}

/// A bool of a config; not set is false.
pub(crate) fn is_true(config: &Config, key: &str) -> bool {
    config.get(key).is_some_and(|value| number::boolean(value).unwrap_or(false))
}

/// A whole number of a config.
pub(crate) fn integer(config: &Config, key: &str) -> Option<i64> {
    config.get(key)?.parse().ok()
}

/// An interface's name.
///
/// # Errors
/// When it cannot be one.
pub(crate) fn interface(name: &str) -> Result<IfName, Error> {
    Ok(name.parse::<IfName>()?)
}

/// Where a root filesystem comes from, in the runtime's words.
pub(crate) fn root(layers: Layers) -> RootSpec {
    match layers {
        Layers::Overlay { lowers, state } => RootSpec::Overlay { lowers, state },
        Layers::Dir { path } => RootSpec::Dir { path },
    }
}

/// Whose ids an instance runs with.
pub(crate) fn ids(row: &rows::Instance, expanded: &Expanded) -> IdMap {
    if is_true(&expanded.config, "security.privileged") {
        return IdMap::Privileged;
    }
    IdMap::Isolated(IdRange { base: row.ids.base, size: row.ids.size })
}
