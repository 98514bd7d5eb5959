//! What the properties of a disk device mean together: the root, a volume, a path of the host's, or memory.

use crate::Device;

/// What a disk shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk<'a> {
    /// The root filesystem.
    Root {
        /// The pool it lies in.
        pool: &'a str,
    },
    /// A custom volume.
    Volume {
        /// Its pool.
        pool: &'a str,
        /// Its name.
        volume: &'a str,
        /// A directory in it; all of it without.
        beneath: Option<&'a str>,
    },
    /// A directory or file of the host's.
    Host {
        /// The path.
        path: &'a str,
    },
    /// A filesystem in memory.
    Memory,
}

/// Where no disk is mounted: the kernel's own filesystems, fresh at every start.
const KERNEL: &[&str] = &["proc", "sys", "dev"];

/// Properties that only some disks take.
const ONLY: &[(&str, Form, &str)] = &[
    ("initial.gid", Form::Memory, "`initial.gid` is for disks in memory"),
    ("initial.mode", Form::Memory, "`initial.mode` is for disks in memory"),
    ("initial.uid", Form::Memory, "`initial.uid` is for disks in memory"),
    ("recursive", Form::Host, "`recursive` is for paths of the host"),
    ("required", Form::Host, "`required` is for paths of the host"),
    (
        "shift",
        Form::Host,
        "`shift` is for paths of the host: volumes and memory always show ids as they are inside",
    ),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Host,
    Memory,
}

/// Reads a disk device.
///
/// # Errors
/// The rule that its properties break.
pub fn read(device: &Device) -> Result<Disk<'_>, &'static str> {
    let set = |property: &str| device.get(property).map(String::as_str).filter(|value| !value.is_empty());
    let path = set("path").ok_or("a disk needs a `path`")?;
    if is_root(path) {
        return root(set("pool"), set("source"), device);
    }
    let first = path.split('/').find(|part| !matches!(*part, "" | ".")).unwrap_or_default();
    if KERNEL.contains(&first) {
        return Err("no disk can be mounted in /proc, /sys or /dev");
    }
    let source = set("source").ok_or("a disk other than the root needs a `source`")?;
    let disk = match set("pool") {
        Some(pool) => volume(pool, source)?,
        None if source == "tmpfs:" => Disk::Memory,
        None if source.starts_with('/') && !source.split('/').any(|part| part == "..") => {
            Disk::Host { path: source }
        }
        None => {
            return Err("`source` is a path of the host, `tmpfs:`, or with a `pool` the name of a volume");
        }
    };
    for (property, form, rule) in ONLY {
        let fits = match disk {
            Disk::Host { .. } => *form == Form::Host,
            Disk::Memory => *form == Form::Memory,
            _ => false,
        };
        if set(property).is_some() && !fits {
            return Err(rule);
        }
    }
    if set("size").is_some() && disk != Disk::Memory {
        return Err("`size` of a volume is in the volume's own config, and a path of the host has none");
    }
    Ok(disk)
}

fn root<'a>(pool: Option<&'a str>, source: Option<&str>, device: &Device) -> Result<Disk<'a>, &'static str> {
    let pool = pool.ok_or("the root disk needs a `pool`")?;
    if source.is_some() {
        return Err("the root disk has no `source`: it is the instance's own volume");
    }
    let foreign =
        ["readonly", "recursive", "required", "shift", "initial.uid", "initial.gid", "initial.mode"];
    if foreign.iter().any(|property| device.get(*property).is_some_and(|value| !value.is_empty())) {
        return Err("the root disk takes only `path`, `pool` and `size`");
    }
    Ok(Disk::Root { pool })
}

fn volume<'a>(pool: &'a str, source: &'a str) -> Result<Disk<'a>, &'static str> {
    let (volume, beneath) = match source.split_once('/') {
        None => (source, None),
        Some((volume, beneath)) => {
            (volume, Some(beneath.trim_end_matches('/')).filter(|part| !part.is_empty()))
        }
    };
    let climbs = |path: &str| path.split('/').any(|part| matches!(part, "" | "." | ".."));
    if crate::value::name::object(volume).is_err() || beneath.is_some_and(climbs) {
        return Err("`source` is the name of a volume in the pool, or VOLUME/DIRECTORY without `..`");
    }
    Ok(Disk::Volume { pool, volume, beneath })
}

/// Whether a path inside is the root, however it is written.
#[must_use]
pub fn is_root(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|part| matches!(part, "" | "."))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_the_root_a_volume_a_path_or_memory() {
        let check = |properties: &[(&str, &str)], expected: Result<Disk<'_>, &str>| {
            let device: Device =
                properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            match (read(&device), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{properties:?}"),
                (Err(rule), Err(words)) => assert!(rule.contains(words), "{properties:?}: {rule}"),
                (found, expected) => panic!("{properties:?}: {found:?}, not {expected:?}"),
            }
        };
        check(&[("path", "/"), ("pool", "p")], Ok(Disk::Root { pool: "p" }));
        check(&[("path", "//.")], Err("`pool`"));
        check(&[("path", "/"), ("pool", "p"), ("source", "v")], Err("no `source`"));
        let whole = Disk::Volume { pool: "p", volume: "v", beneath: None };
        check(&[("path", "/a"), ("pool", "p"), ("source", "v")], Ok(whole));
        let part = Disk::Volume { pool: "p", volume: "v", beneath: Some("x/y") };
        check(&[("path", "/a"), ("pool", "p"), ("source", "v/x/y/")], Ok(part));
        check(&[("path", "/a"), ("source", "/srv"), ("shift", "true")], Ok(Disk::Host { path: "/srv" }));
        check(&[("path", "/a"), ("source", "tmpfs:"), ("size", "1MiB")], Ok(Disk::Memory));
        check(&[("source", "/srv")], Err("needs a `path`"));
        check(&[("path", "/a")], Err("needs a `source`"));
        for source in ["v/../w", "v//w", "v/./w", "../v", "/v"] {
            check(&[("path", "/a"), ("pool", "p"), ("source", source)], Err("without `..`"));
        }
        for source in ["srv", "/srv/../etc", "ceph:a/b", "tmpfs"] {
            check(&[("path", "/a"), ("source", source)], Err("a path of the host"));
        }
        for path in ["/proc", "//proc/self/attr", "/sys/", "/./dev/shm"] {
            check(&[("path", path), ("source", "/srv")], Err("/proc, /sys or /dev"));
        }
        check(&[("path", "/a"), ("pool", "p"), ("source", "v"), ("shift", "true")], Err("`shift`"));
        check(&[("path", "/a"), ("source", "/srv"), ("size", "1GiB")], Err("`size`"));
    }
}
