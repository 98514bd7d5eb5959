//! The start of a container, as its supervisor goes through it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use cabin_runtime::cgroup::Entry;
use cabin_runtime::rootfs;
use cabin_runtime::spec::{IdMap, InitSpec};
use cabin_runtime::wire::{self, Failure, GuestCgroups, Order, Progress, Standing};
use cabin_sys::namespace::{self, IdRun, Namespaces};
use cabin_sys::process::{self, Child};
use cabin_sys::socket;
use rustix::fs::{Mode, OFlags};

use crate::link::{self, FromPayload, ToPayload};
use crate::step::{Step, odd};
use crate::watch::{self, Watched};
use crate::{confine, owner, payload};

/// `SIGKILL`.
const KILL: i32 = 9;

/// Starts what the daemon orders, watches over it to its end, and gives the exit status.
pub fn run(daemon: OwnedFd) -> i32 {
    let (spec, run_dir, guest, entry) = match link::next(&daemon, "read the order") {
        Ok((Order::Start { spec, run_dir, guest, unified }, fds)) => {
            (spec, run_dir, guest, Entry::received(unified, fds))
        }
        _ => return 1,
    };
    match bring_up(&daemon, &spec, &run_dir, (guest, entry)) {
        Ok(watched) => watch::run(watched, daemon),
        Err(failure) => {
            // Nobody may be there to hear it; the end of the process is told by the socket's end anyway.
            let _ = wire::send(&daemon, &Progress::Failed(failure), &[]);
            1
        }
    }
}

fn bring_up(
    daemon: &OwnedFd,
    spec: &InitSpec,
    run_dir: &Path,
    (guest, entry): (GuestCgroups, Entry),
) -> Result<Watched, Failure> {
    let home = open_namespace("/proc/self/ns/mnt")?;
    // The root filesystem is mounted in a namespace that only this start uses, so that it is in no table
    // that lives longer than the container: neither the host's nor the supervisor's.
    namespace::unshare(Namespaces::NEWNS).step("make a mount namespace")?;
    cabin_sys::mount::make_all_private().step("make the mounts private")?;

    let (ours, theirs) = socket::pair().step("make a socket pair")?;
    let mut kinds = Namespaces::NEWPID | Namespaces::NEWNET | Namespaces::NEWIPC | Namespaces::NEWUTS;
    if let IdMap::Isolated(_) = spec.ids {
        kinds |= Namespaces::NEWUSER;
    }
    confine::make_room(&spec.rlimits)?;
    let place = entry.unified.as_ref().map(AsFd::as_fd);
    let make = || process::clone(kinds, place, || payload::run(&theirs, spec, guest, &entry));
    let child = owner::as_root_of(spec.ids, make).step("make the first process")?;
    drop((theirs, entry));
    let brought = accompany(daemon, &ours, &child, &home, spec, run_dir);
    if brought.is_err() {
        // Its end takes every namespace with it, and everything mounted in them.
        let _ = process::signal(&child.pidfd, KILL);
        let _ = process::wait(&child.pidfd);
    }
    let (standing, [console, netlink, devpts]) = brought?;
    Ok(Watched {
        name: spec.name.clone(),
        run_dir: run_dir.to_owned(),
        standing,
        pidfd: child.pidfd,
        console,
        netlink,
        devpts,
    })
}

/// Everything between the first process and its becoming init.
fn accompany(
    daemon: &OwnedFd,
    payload: &OwnedFd,
    child: &Child,
    home: &OwnedFd,
    spec: &InitSpec,
    run_dir: &Path,
) -> Result<(Standing, [OwnedFd; 3]), Failure> {
    prepare_process(child, spec)?;
    wire::send(payload, &ToPayload::Mapped, &[]).step("tell the first process its ids")?;
    born(daemon, child)?;

    let userns = match spec.ids {
        IdMap::Isolated(_) => Some(open_namespace(&format!("/proc/{}/ns/user", child.pid))?),
        IdMap::Privileged => None,
    };
    let root = rootfs::mount(&spec.root, spec.ids, run_dir, userns.as_ref().map(AsFd::as_fd))?;
    wire::send(payload, &ToPayload::Rooted, &[root.as_fd()]).step("hand over the root filesystem")?;
    match from_payload(payload, "copy the mounts")? {
        (FromPayload::Copied, _) => {}
        _ => return Err(odd("copy the mounts", "an answer out of order")),
    }
    drop(root);
    namespace::enter(home, Namespaces::NEWNS).step("go back to the host's mounts")?;

    let (FromPayload::Ready, fds) = from_payload(payload, "wait for the first process")? else {
        return Err(odd("wait for the first process", "an answer out of order"));
    };
    let fds = <[OwnedFd; 3]>::try_from(fds)
        .map_err(|_| odd("wait for the first process", "descriptors are missing"))?;
    release(daemon, payload)?;
    let standing = Standing { init_pid: child.pid, ids: spec.ids, rlimits: spec.rlimits.clone() };
    Ok((standing, fds))
}

/// What must be set from outside: ids and limits beyond what the new user namespace may set itself.
fn prepare_process(child: &Child, spec: &InitSpec) -> Result<(), Failure> {
    if let IdMap::Isolated(range) = spec.ids {
        let run = [IdRun { inside: 0, outside: range.base, count: range.size }];
        namespace::write_id_maps(child.pid, &run, &run).step("write the id maps")?;
    }
    // Only who has its user may set the limits of another process, where root has not every right itself.
    owner::as_root_of(spec.ids, || Ok(confine::set_rlimits(child.pid, &spec.rlimits)))
        .step("set limits")??;
    process::set_oom_score_adj(child.pid, spec.oom_score_adj).step("set the out-of-memory adjustment")
}

fn born(daemon: &OwnedFd, child: &Child) -> Result<(), Failure> {
    let netns = open_namespace(&format!("/proc/{}/ns/net", child.pid))?;
    let own = process::pidfd(std::process::id()).step("open its own handle")?;
    let fds: [BorrowedFd<'_>; 3] = [child.pidfd.as_fd(), netns.as_fd(), own.as_fd()];
    wire::send(daemon, &Progress::Born { init_pid: child.pid }, &fds).step("report the namespaces")
}

/// The container becomes what the daemon waits for, and then runs.
fn release(daemon: &OwnedFd, payload: &OwnedFd) -> Result<(), Failure> {
    wire::send(daemon, &Progress::Ready, &[]).step("report readiness")?;
    match link::next(daemon, "wait for the release")? {
        (Order::Release, _) => {}
        _ => return Err(odd("wait for the release", "an order out of order")),
    }
    wire::send(payload, &ToPayload::Release, &[]).step("release init")?;
    // The first process holds its end close-on-exec: the end of the socket is the beginning of init.
    match wire::receive::<FromPayload>(payload).step("wait for init")? {
        None => Ok(()),
        Some((FromPayload::Failed(failure), _)) => Err(failure),
        Some(_) => Err(odd("wait for init", "an answer out of order")),
    }
}

fn from_payload(payload: &OwnedFd, waiting_for: &str) -> Result<(FromPayload, Vec<OwnedFd>), Failure> {
    match link::next(payload, waiting_for)? {
        (FromPayload::Failed(failure), _) => Err(failure),
        other => Ok(other),
    }
}

fn open_namespace(path: &str) -> Result<OwnedFd, Failure> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step(format!("open `{path}`"))
}
