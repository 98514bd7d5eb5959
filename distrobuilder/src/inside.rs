//! Programs that may not outlive the build: scripts inside the tree, and the host's mmdebstrap. A helper process of its own takes new mount, pid, ipc and uts namespaces, makes the
//! tree its root and gives up what reaches the host's kernel; then it becomes the script. When it ends,
//! the kernel ends whatever the script left running.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use cabin_sys::caps::{self, Caps};
use cabin_sys::dir::HostDir;
use cabin_sys::mount::{self, Depth};
use cabin_sys::namespace::Namespaces;
use cabin_sys::process::{self, Ended};
use cabin_sys::{command, namespace};

use crate::error::{Error, Result, io};

/// Where the script lies while it runs.
const SCRIPT: &str = ".distrobuilder-script";

/// The subcommand of the helper.
pub const SUBCOMMAND: &str = "inside";

/// The subcommand of the helper for programs of the host.
pub const LEASH: &str = "leash";

/// The devices a script finds in /dev.
const DEVICES: &[&str] = &["full", "null", "random", "tty", "urandom", "zero"];

/// Parts of /proc that are the host kernel's settings.
const SEALED: &[&str] = &["proc/sys", "proc/sysrq-trigger", "proc/irq", "proc/bus", "proc/fs"];

const GIVEN_UP: Caps = Caps::SYS_ADMIN
    .union(Caps::SYS_MODULE)
    .union(Caps::SYS_RAWIO)
    .union(Caps::SYS_BOOT)
    .union(Caps::SYS_TIME)
    .union(Caps::SYS_PTRACE)
    .union(Caps::SYSLOG)
    .union(Caps::NET_ADMIN)
    .union(Caps::NET_RAW)
    .union(Caps::MKNOD)
    .union(Caps::DAC_READ_SEARCH)
    .union(Caps::MAC_ADMIN)
    .union(Caps::MAC_OVERRIDE)
    .union(Caps::BPF)
    .union(Caps::PERFMON);

/// Runs `script` inside `tree`, with the help of `helper` (the distrobuilder binary). `what` is what the
/// script is called when it fails.
///
/// # Errors
/// When the helper cannot be started, or the script ends with anything but 0.
pub fn run(helper: &Path, tree: &HostDir, what: &str, script: &str) -> Result<()> {
    let script =
        if script.starts_with("#!") { script.to_owned() } else { format!("#!/bin/sh\nset -e\n{script}") };
    tree.replace(SCRIPT, script.as_bytes(), 0o700).map_err(io("write", tree.path().join(SCRIPT)))?;
    let ran = command::own_helper(helper)
        .arg(SUBCOMMAND)
        .arg(tree.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .map_err(io("start", helper));
    tree.remove_file(SCRIPT).map_err(io("remove", tree.path().join(SCRIPT)))?;
    let ran = ran?;
    if ran.status.success() {
        return Ok(());
    }
    let said: Vec<u8> = ran.stdout.into_iter().chain(ran.stderr).collect();
    let said = String::from_utf8_lossy(&said).into_owned();
    let lines: Vec<&str> = said.lines().collect();
    let tail = lines[lines.len().saturating_sub(25)..].join("\n");
    Err(Error::Script { what: what.to_owned(), said: format!("{}\n{tail}", ran.status) })
}

/// What the helper does: runs the script that lies in `tree` and gives its exit status.
///
/// # Errors
/// When the namespaces or mounts cannot be made.
pub fn main(tree: &Path) -> Result<i32> {
    let spaces = Namespaces::NEWNS | Namespaces::NEWPID | Namespaces::NEWIPC | Namespaces::NEWUTS;
    hold(spaces, tree, || match enter(tree) {
        Ok(()) => become_script(),
        Err(error) => error,
    })
}

/// A command for `command`'s program and arguments that ends, with all it started, when the caller does.
#[must_use]
pub fn leashed(helper: &Path, command: &Command) -> Command {
    let mut leashed = command::own_helper(helper);
    leashed.arg(LEASH).arg("--").arg(command.get_program()).args(command.get_args());
    leashed
}

/// What the helper does for [`leashed`]: runs a program in a pid namespace of its own and gives its exit status.
///
/// # Errors
/// When the namespaces cannot be made.
pub fn leash(words: &[OsString]) -> Result<i32> {
    let program = words.first().map(Path::new).unwrap_or(Path::new(""));
    hold(Namespaces::NEWNS | Namespaces::NEWPID, program, || {
        match mount::make_all_private().and_then(|()| own_proc()).and_then(|()| process::reset_signals()) {
            Ok(()) => become_program(words),
            Err(error) => error,
        }
    })
}

/// Runs `child`, which returns only the reason why it could not become a program, and gives the program's status.
fn hold(spaces: Namespaces, what: &Path, child: impl FnOnce() -> std::io::Error) -> Result<i32> {
    let die = || process::set_parent_death_signal(Some(rustix::process::Signal::KILL.as_raw()));
    // Neither the helper nor what it runs may outlive who asked; the kernel ends the rest of the namespace.
    die().map_err(io("bind to the parent of", what))?;
    let child = process::clone(spaces, None, || {
        let error = match die() {
            Ok(()) => child(),
            Err(error) => error,
        };
        // The helper's stderr is read by whoever started it: the one way out for this text.
        let _ = rustix::io::write(rustix::stdio::stderr(), format!("{error}\n").as_bytes());
        126
    })
    .map_err(io("make namespaces for", what))?;
    match process::wait(&child.pidfd).map_err(io("wait for", what))? {
        Ended::Exited(status) => Ok(status),
        Ended::Killed(signal) => Ok(128 + signal),
    }
}

/// The processes of the new namespace in /proc, as programs expect it.
fn own_proc() -> std::io::Result<()> {
    let proc = HostDir::open(Path::new("/proc"))?;
    mount::attach(mount::filesystem("proc", &[], mount::INERT)?, &proc, "")
}

fn enter(tree: &Path) -> std::io::Result<()> {
    mount::make_all_private()?;
    mount::bind(tree, tree, Depth::One)?;
    let root = HostDir::open(tree)?;
    let attach = |what, name: &str| mount::attach(what, root.open_dir(name)?, "");
    attach(mount::filesystem("proc", &[], mount::INERT)?, "proc")?;
    for name in SEALED {
        // Root without a capability may still write these: they are files of root's.
        if root.exists(name)? {
            let seal = mount::clone_tree(&root, name, Depth::One)?;
            mount::set_attributes(&seal, mount::Attributes::MOUNT_ATTR_RDONLY, Depth::One)?;
            mount::attach(seal, &root, name)?;
        }
    }
    attach(mount::filesystem("sysfs", &[], mount::INERT | mount::Attributes::MOUNT_ATTR_RDONLY)?, "sys")?;
    let dev_attributes = mount::Attributes::MOUNT_ATTR_NOSUID;
    attach(mount::filesystem("tmpfs", &[("mode", "755"), ("size", "1m")], dev_attributes)?, "dev")?;
    let (dev, host) = (root.open_dir("dev")?, HostDir::open(Path::new("/dev"))?);
    for name in DEVICES {
        let node = mount::clone_tree(&host, name, Depth::One)?;
        let place: File = dev.create_file(name, 0o666)?;
        mount::attach(node, place, "")?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        dev.symlink(Path::new(target), name)?;
    }
    drop(dev.create_dir("shm", 0o1777)?);
    namespace::set_hostname("distrobuilder")?;
    mount::pivot_into(&root)?;
    caps::drop_for_good(GIVEN_UP)?;
    process::reset_signals()
}

fn become_script() -> std::io::Error {
    let path = format!("/{SCRIPT}");
    let search = format!("PATH={}", command::SEARCH.join(":"));
    let environment = ["LC_ALL=C.UTF-8", "HOME=/root", "TERM=dumb", "SYSTEMD_OFFLINE=1", &search];
    become_it(&[OsString::from(path)], &environment)
}

fn become_program(words: &[OsString]) -> std::io::Error {
    let search = format!("PATH={}", command::SEARCH.join(":"));
    become_it(words, &["LC_ALL=C.UTF-8", "HOME=/root", &search])
}

fn become_it(words: &[OsString], environment: &[&str]) -> std::io::Error {
    let argv: std::result::Result<Vec<CString>, _> =
        words.iter().map(|word| CString::new(word.as_bytes())).collect();
    let env: std::result::Result<Vec<CString>, _> =
        environment.iter().map(|word| CString::new(*word)).collect();
    match (argv, env) {
        (Ok(argv), Ok(env)) if !argv.is_empty() => process::exec(&argv[0], &argv, &env),
        (Ok(_), Ok(_)) => std::io::Error::from(std::io::ErrorKind::InvalidInput),
        (Err(error), _) | (_, Err(error)) => std::io::Error::other(error),
    }
}
