//! Files of a volume, attached or not: a confined server of SFTP in its root.

use cabin_runtime::files::FilesTarget;
use cabin_runtime::spec::{IdMap, IdRange, RootSpec};
use cabin_storage::VolumeName;

use super::{files_name, load};
use crate::instance::Files;
use crate::resolve::{root, unmapped};
use crate::{Error, Host, storage};

/// Starts a file server in a volume. Ids are as instances see them.
///
/// # Errors
/// When there is no such volume, it is not decided yet which tree it keeps, or the host refuses.
pub fn files(host: &Host, project: &str, pool: &str, volume: &str) -> Result<Files, Error> {
    let open = host.busy().share(&files_name(pool, volume), "reading and writing files")?;
    // Whoever exchanges trees in this daemon waits for us; this is what another one left undone.
    super::refuse_undecided(host, (pool, volume), None)?;
    let row = load(host, project, pool, volume)?.row;
    let root: RootSpec = root(storage::pool(host, pool)?.layers(&VolumeName::custom(volume)?)?);
    let own = host.ids().unpacker()?;
    let ids = match unmapped(&row) {
        true => IdMap::Privileged,
        false => IdMap::Isolated(IdRange { base: own.base, size: own.size }),
    };
    let helper = host.settings().bin_dir.join("cabin-files");
    let session = cabin_runtime::files::open(&helper, FilesTarget::Stopped { root, ids })?;
    Ok(Files::holding(session, open))
}
