//! Whether the host has started anew: then nothing in the run directory is true any more.

use std::path::Path;

use cabin_sys::dir::HostDir;

use crate::{Error, Host};

/// The file in the run directory that says in which boot of the host the rest was written.
const FILE: &str = "boot-id";

/// What supervisors write: sockets, exit records, console output.
const RECORDS: &[&str] = &[".sock", ".exit", ".console"];

/// Removes what supervisors of an earlier boot left. A run directory that outlives the host would otherwise
/// name processes that are somebody else's by now.
///
/// # Errors
/// When the directory cannot be read or written.
pub(super) fn forget_stale(host: &Host) -> Result<(), Error> {
    let act = |what: &str| Error::io(format!("{what} the run directory"));
    let dir = HostDir::open(&host.settings().containers_dir()).map_err(act("open"))?;
    let now = HostDir::open(Path::new("/proc/sys/kernel/random"))
        .and_then(|random| random.read("boot_id", 64))
        .map_err(Error::io("read the boot id"))?;
    match dir.read(FILE, 64) {
        Ok(then) if then == now => return Ok(()),
        Ok(_) => {
            for entry in dir.list().map_err(act("list"))? {
                if RECORDS.iter().any(|ending| entry.name.ends_with(ending)) {
                    dir.remove_file(&entry.name).map_err(act("clear"))?;
                }
            }
        }
        // A run directory that was just made; or one that was emptied, and then there is nothing stale.
        Err(_) => {}
    }
    dir.replace(FILE, &now, 0o600).map_err(act("mark"))
}
