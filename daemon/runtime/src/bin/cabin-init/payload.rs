//! The container's first process, from its birth to becoming init.
//!
//! It has a user namespace's rights only (unless the container is privileged) and sees the host's files
//! until it turns its back on them. Everything it opens by path, it opens before.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use cabin_runtime::cgroup::Entry;
use cabin_runtime::spec::InitSpec;
use cabin_runtime::wire::{self, Failure, GuestCgroups};
use cabin_sys::mount::{self, Depth};
use cabin_sys::namespace::{self, Namespaces};
use cabin_sys::process;

use crate::link::{self, FromPayload, ToPayload};
use crate::step::{Step, odd};
use crate::{confine, devices, filesystems, network, rendered};

/// `SIGKILL`.
const KILL: i32 = 9;

/// Builds the container around itself and becomes its init. Returns only when that failed.
pub fn run(supervisor: &OwnedFd, spec: &InitSpec, guest: GuestCgroups, entry: &Entry) -> i32 {
    let placed = entry.walk_in().step("enter the cgroups");
    let Err(failure) = placed.and_then(|()| build(supervisor, spec, guest));
    let _ = wire::send(supervisor, &FromPayload::Failed(failure), &[]);
    1
}

fn build(
    supervisor: &OwnedFd,
    spec: &InitSpec,
    guest: GuestCgroups,
) -> Result<std::convert::Infallible, Failure> {
    process::close_all_but(&[supervisor.as_fd()]).step("close descriptors")?;
    expect(supervisor, "wait for the id maps", |m| matches!(m, ToPayload::Mapped))?;
    process::set_ids(0, 0, &[]).step("become the container's root")?;
    // A change of ids takes it back, so it is asked for after the last one.
    process::set_parent_death_signal(Some(KILL)).step("tie itself to the supervisor")?;
    rustix::process::setsid().step("start a session")?;
    let netlink = network::open_with_loopback_up()?;

    let (_, fds) = expect(supervisor, "wait for the root filesystem", |m| matches!(m, ToPayload::Rooted))?;
    let root = take_root(fds)?;
    wire::send(supervisor, &FromPayload::Copied, &[]).step("report the mount namespace")?;
    let host = devices::Host::open()?;
    filesystems::mount_proc_and_sys(&root, &host, spec)?;
    let devpts = devices::mount(&root, &host)?;
    let console = devices::console(&root, &devpts)?;

    namespace::unshare(Namespaces::NEWCGROUP).step("make a cgroup namespace")?;
    filesystems::mount_cgroups(&root, guest)?;

    mount::pivot_into(&root).step("change the root directory")?;
    namespace::set_hostname(&spec.name).step("set the host name")?;
    rendered::write_all(&spec.files);
    let fds = [console.master.as_fd(), netlink.as_fd(), devpts.as_fd()];
    wire::send(supervisor, &FromPayload::Ready, &fds).step("report readiness")?;
    for standard in 0..3 {
        process::place(&console.peer, standard).step("open the console")?;
    }
    drop((host, root, devpts, netlink, console));
    expect(supervisor, "wait for the release", |m| matches!(m, ToPayload::Release))?;
    become_init(spec)
}

/// Copies the mounts into a namespace of its own user namespace, and gives the root filesystem in it.
///
/// The directory crosses into the copy as the current directory: every other descriptor would still mean
/// the mount it was opened on, and a path would lead through directories closed to the container's root.
fn take_root(fds: Vec<OwnedFd>) -> Result<OwnedFd, Failure> {
    let what = "take the root filesystem";
    let root = fds.into_iter().next().ok_or_else(|| odd(what, "no descriptor came"))?;
    rustix::process::fchdir(&root).step(what)?;
    drop(root);
    namespace::unshare(Namespaces::NEWNS).step("make a mount namespace")?;
    mount::make_all_private().step("make the mounts private")?;
    // What was copied is locked in place, and a locked mount cannot become the root. Its copy can; the
    // attributes that bar devices stay locked on it.
    let tree = mount::clone_tree(rustix::fs::CWD, ".", Depth::One).step(what)?;
    mount::attach(&tree, rustix::fs::CWD, ".").step(what)?;
    Ok(tree)
}

fn become_init(spec: &InitSpec) -> Result<std::convert::Infallible, Failure> {
    let argv = strings(&spec.argv)?;
    let env: Vec<String> = spec.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let env = strings(&env)?;
    let program = argv.first().ok_or_else(|| odd("run init", "no program is named"))?.clone();
    confine::shed(spec.ids)?;
    process::reset_signals().step("reset the signals")?;
    confine::filter_calls()?;
    let step = format!("run `{}`", spec.argv.first().map_or("", String::as_str));
    Err(Failure::new(step, &process::exec(&program, &argv, &env)))
}

/// The strings as the kernel takes them.
pub fn strings(list: &[String]) -> Result<Vec<CString>, Failure> {
    list.iter()
        .map(|text| CString::new(text.as_bytes()).map_err(|_| odd("read the arguments", "a NUL in a string")))
        .collect()
}

fn expect(
    supervisor: &OwnedFd,
    waiting_for: &str,
    wanted: impl Fn(&ToPayload) -> bool,
) -> Result<(ToPayload, Vec<OwnedFd>), Failure> {
    match link::next(supervisor, waiting_for)? {
        (message, fds) if wanted(&message) => Ok((message, fds)),
        _ => Err(odd(waiting_for, "a message out of order")),
    }
}
