//! Where the daemon keeps its things, and how they are called so that several daemons share a host.

use std::path::{Path, PathBuf};

use crate::Error;

/// Where state lies when nothing else is said.
pub const DEFAULT_DIR: &str = "/var/lib/cabin";

/// Where runtime files lie when nothing else is said.
pub const DEFAULT_RUN_DIR: &str = "/run/cabin";

/// The daemon's own settings: given at its start, never by a request.
#[derive(Debug, Clone)]
pub struct Settings {
    /// State: database, pools, images, logs.
    pub dir: PathBuf,
    /// Runtime files: supervisors' sockets, exit records.
    pub run_dir: PathBuf,
    /// Where `cabin-init` and the other programs of ours lie.
    pub bin_dir: PathBuf,
    /// The program that builds images from definitions.
    pub builder: PathBuf,
    /// Whether a fresh daemon makes no pool, network or profile devices.
    pub bare: bool,
    /// What everything made in the kernel is named by: `cabin`, or `cabin-1a2b3c4d` with a directory.
    pub prefix: String,
}

impl Settings {
    /// Settings for the default directories, or for a daemon that lives wholly under `dir`.
    ///
    /// # Errors
    /// When `dir` is not absolute, or too long for a unix socket to lie in it.
    pub fn new(dir: Option<PathBuf>, bare: bool) -> Result<Settings, Error> {
        let (bin_dir, builder) = own_programs()?;
        let Some(dir) = dir.filter(|dir| dir != Path::new(DEFAULT_DIR)) else {
            let (dir, run_dir) = (DEFAULT_DIR.into(), DEFAULT_RUN_DIR.into());
            return Ok(Settings { dir, run_dir, bin_dir, builder, bare, prefix: "cabin".into() });
        };
        if !dir.is_absolute() {
            return Err(Error::invalid(format!("the directory `{}` is not an absolute path", dir.display())));
        }
        // sun_path holds 108 bytes; the longest socket is run/NAME.sock with a name of 63.
        if dir.as_os_str().len() > 32 {
            tracing::warn!(dir = %dir.display(), "long names of instances may not fit into socket paths here");
        }
        let prefix = format!("cabin-{:08x}", fnv(dir.as_os_str().as_encoded_bytes()));
        Ok(Settings { run_dir: dir.join("run"), dir, bin_dir, builder, bare, prefix })
    }

    /// The socket the API is served on.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        if self.run_dir.starts_with(&self.dir) { &self.dir } else { &self.run_dir }.join("unix.socket")
    }

    /// Where the supervisors' sockets and exit records lie; closed to everybody else.
    #[must_use]
    pub fn containers_dir(&self) -> PathBuf {
        if self.run_dir.starts_with(&self.dir) {
            self.run_dir.clone()
        } else {
            self.run_dir.join("containers")
        }
    }

    /// A short mark of this daemon for interface names: empty for the default one.
    #[must_use]
    pub fn mark(&self) -> &str {
        self.prefix.strip_prefix("cabin-").unwrap_or_default()
    }
}

/// FNV-1a, 32 bits: short, stable marks from paths. Not for anything that must not collide.
fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// The helpers lie beside the daemon's binary, or in `../libexec/cabin` when it is installed; the builder,
/// which people call too, beside the daemon.
fn own_programs() -> Result<(PathBuf, PathBuf), Error> {
    let me = std::env::current_exe().map_err(Error::io("find the daemon's own binary"))?;
    let beside = me.parent().unwrap_or(Path::new("/")).to_owned();
    for dir in [beside.clone(), beside.join("../lib/cabin"), beside.join("../libexec/cabin")] {
        if dir.join("cabin-init").exists() {
            return Ok((dir, beside.join("distrobuilder")));
        }
    }
    let builder = beside.join("distrobuilder");
    Ok((beside, builder))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_its_own_gives_a_prefix_of_its_own() {
        let plain = Settings::new(None, false).unwrap();
        assert_eq!((plain.prefix.as_str(), plain.mark()), ("cabin", ""));
        assert_eq!(plain.socket(), Path::new("/run/cabin/unix.socket"));
        let one = Settings::new(Some("/tmp/a".into()), true).unwrap();
        let two = Settings::new(Some("/tmp/b".into()), true).unwrap();
        assert_ne!(one.prefix, two.prefix);
        assert_eq!(one.socket(), Path::new("/tmp/a/unix.socket"));
        assert_eq!(one.mark().len(), 8);
        assert!(Settings::new(Some("relative".into()), true).is_err());
    }
}
