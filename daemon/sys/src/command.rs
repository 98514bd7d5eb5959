//! The programs of the host that Cabin calls, and the only way to call one.
//!
//! A program is looked up once, in a fixed list of directories, and called by its absolute path with an
//! empty environment (`PATH`, `LC_ALL=C` apart). Arguments are a list; no shell is involved. The caller
//! never forks: std uses posix_spawn(3) or vfork for what is set here.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program of the host, named as its package names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// DHCP, DNS and router advertisements of a bridge.
    Dnsmasq,
    /// The packet filter's front end.
    Nft,
    /// Reads squashfs images.
    Unsquashfs,
    /// Writes squashfs images.
    Mksquashfs,
    /// Builds Debian trees.
    Mmdebstrap,
    /// A static busybox, for the busybox image.
    Busybox,
    /// Inspects btrfs.
    Btrfs,
    /// Formats btrfs.
    MkfsBtrfs,
}

/// Every program, with the Debian package that brings it and what it is needed for.
pub const TABLE: &[(Program, &str, &str, &str)] = &[
    (Program::Dnsmasq, "dnsmasq", "dnsmasq-base", "addresses and names on managed bridges"),
    (Program::Nft, "nft", "nftables", "NAT, forwarding and anti-spoofing on managed bridges"),
    (Program::Unsquashfs, "unsquashfs", "squashfs-tools", "images whose rootfs is a squashfs"),
    (Program::Mksquashfs, "mksquashfs", "squashfs-tools", "building split images"),
    (Program::Mmdebstrap, "mmdebstrap", "mmdebstrap", "building Debian images"),
    (Program::Busybox, "busybox", "busybox-static", "building the busybox image"),
    (Program::Btrfs, "btrfs", "btrfs-progs", "btrfs pools"),
    (Program::MkfsBtrfs, "mkfs.btrfs", "btrfs-progs", "btrfs pools with a disk of their own"),
];

/// Where programs are looked for, in this order.
pub const SEARCH: &[&str] = &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A program that is not on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("program `{name}` is missing (package `{package}` brings it)")]
pub struct Missing {
    /// The program's file name.
    pub name: &'static str,
    /// The Debian package.
    pub package: &'static str,
}

/// The programs found on this host.
#[derive(Debug, Clone)]
pub struct Programs {
    found: BTreeMap<Program, PathBuf>,
}

impl Programs {
    /// Looks for every program of [`TABLE`].
    #[must_use]
    pub fn find() -> Programs {
        let found = TABLE.iter().filter_map(|(program, name, ..)| Some((*program, look_up(name)?))).collect();
        Programs { found }
    }

    /// Those that are not there, with what each is needed for.
    #[must_use]
    pub fn missing(&self) -> Vec<(Missing, &'static str)> {
        TABLE
            .iter()
            .filter(|(program, ..)| !self.found.contains_key(program))
            .map(|(_, name, package, need)| (Missing { name, package }, *need))
            .collect()
    }

    /// A command that will run `program` with a cleared environment.
    ///
    /// # Errors
    /// When the program was not found.
    pub fn command(&self, program: Program) -> Result<Command, Missing> {
        match self.found.get(&program) {
            Some(path) => Ok(by_path(path)),
            None => Err(describe(program)),
        }
    }
}

/// A command that will run one of Cabin's own helper binaries, given by absolute path.
#[must_use]
pub fn own_helper(path: &Path) -> Command {
    by_path(path)
}

fn by_path(path: &Path) -> Command {
    #[allow(clippy::disallowed_methods)]
    let mut command = Command::new(path);
    command.env_clear().env("PATH", SEARCH.join(":")).env("LC_ALL", "C");
    command
}

fn describe(program: Program) -> Missing {
    TABLE
        .iter()
        .find(|(entry, ..)| *entry == program)
        .map_or(Missing { name: "?", package: "?" }, |(_, name, package, _)| Missing { name, package })
}

fn look_up(name: &str) -> Option<PathBuf> {
    SEARCH
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok())
}

/// Runs a command to its end and gives its stdout.
///
/// # Errors
/// When it cannot be started, or ends with anything but 0; the text then holds the end of its stderr.
pub fn output(command: &mut Command) -> io::Result<Vec<u8>> {
    let done = command.stdin(std::process::Stdio::null()).output()?;
    if done.status.success() {
        return Ok(done.stdout);
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let tail: String = said.trim().chars().rev().take(2000).collect::<Vec<_>>().into_iter().rev().collect();
    let program = Path::new(command.get_program()).file_name().unwrap_or(OsStr::new("?"));
    Err(io::Error::other(format!("{} ended with {}: {tail}", program.to_string_lossy(), done.status)))
}

/// As [`output`], of a program that gains no rights, and nothing it starts does (`no_new_privs`): by none of its own
/// setuid bits or file capabilities. It may still give rights up.
///
/// # Errors
/// As [`output`], and when no thread can be made.
pub fn output_without_new_rights(command: &mut Command) -> io::Result<Vec<u8>> {
    // A program is born with what the thread has that starts it. The thread goes, and its lack of rights with it.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("start".to_owned()).spawn_scoped(scope, || {
            crate::process::set_no_new_privs()?;
            output(command)
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that starts it panicked")))
    })
}
