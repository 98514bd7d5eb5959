//! Where the daemon is, and what the `remote:` before a name means.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::bail;

/// Sockets in the order they are tried when nothing names one.
const PLACES: [&str; 2] = ["/run/cabin/unix.socket", "/var/lib/cabin/unix.socket"];

/// The socket to talk to: what was named, else the first place that has one.
pub fn socket(named: Option<&Path>) -> PathBuf {
    find(named, |key| env::var_os(key).filter(|value| !value.is_empty()), Path::exists)
}

fn find(
    named: Option<&Path>,
    variable: impl Fn(&str) -> Option<OsString>,
    exists: impl Fn(&Path) -> bool,
) -> PathBuf {
    if let Some(named) = named {
        return named.to_owned();
    }
    for (file, directory) in [("CABIN_SOCKET", "CABIN_DIR"), ("INCUS_SOCKET", "INCUS_DIR")] {
        if let Some(file) = variable(file) {
            return file.into();
        }
        if let Some(directory) = variable(directory) {
            return Path::new(&directory).join("unix.socket");
        }
    }
    let found = PLACES.into_iter().map(Path::new).find(|place| exists(place));
    found.unwrap_or(Path::new(PLACES[0])).to_owned()
}

/// A name without the remote before it. Only the local daemon is known.
pub fn local(name: &str) -> anyhow::Result<&str> {
    match name.split_once(':') {
        None => Ok(name),
        Some(("local" | "unix", rest)) => Ok(rest),
        Some((remote, _)) => bail!("remote `{remote}` of `{name}`: other hosts are not supported yet"),
    }
}

/// An image's name without the remote before it: what is called `images:` is built or fetched by the daemon.
pub fn image(name: &str) -> anyhow::Result<&str> {
    match name.split_once(':') {
        Some(("images", rest)) => Ok(rest),
        _ => local(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(set: &[(&str, &str)], there: &[&str], expected: &str) {
        let variable =
            |key: &str| set.iter().find(|(name, _)| *name == key).map(|(_, value)| OsString::from(value));
        let found = find(None, variable, |path| there.iter().any(|there| Path::new(there) == path));
        assert_eq!(found, Path::new(expected), "{set:?} {there:?}");
    }

    #[test]
    fn the_socket_is_found_in_order() {
        check(&[], &[], "/run/cabin/unix.socket");
        check(&[], &["/var/lib/cabin/unix.socket"], "/var/lib/cabin/unix.socket");
        check(&[("CABIN_DIR", "/d"), ("INCUS_SOCKET", "/i")], &[], "/d/unix.socket");
        check(&[("CABIN_DIR", "/d"), ("CABIN_SOCKET", "/s")], &[], "/s");
        check(&[("INCUS_DIR", "/i")], &["/run/cabin/unix.socket"], "/i/unix.socket");
        assert_eq!(find(Some(Path::new("/n")), |_| Some("/x".into()), |_| true), Path::new("/n"));
    }

    #[test]
    fn only_the_local_remote_is_known() {
        assert_eq!(local("local:web").unwrap(), "web");
        assert_eq!(image("images:debian/12").unwrap(), "debian/12");
        assert_eq!(image("debian/12").unwrap(), "debian/12");
        let error = image("ubuntu:24.04").unwrap_err().to_string();
        assert!(error.contains("`ubuntu`"), "{error}");
    }
}
