//! The run directory: when somebody empties or removes it, running containers are given their places in it again.
//!
//! A supervisor that nobody can reach any more would be taken for dead by the next daemon.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::fence::again_after_panics;
use crate::live::Live;
use crate::warning::Trouble;
use crate::{Error, Host};

/// How long is waited for the rest of what is removed together.
const TOGETHER: Duration = Duration::from_millis(200);

/// How often is looked in any case.
const EVERY: Duration = Duration::from_secs(60);

/// Looks for as long as the daemon is there, on a thread of its own.
pub(crate) fn watch(host: &Arc<Host>) {
    let host = Arc::downgrade(host);
    let spawned = std::thread::Builder::new()
        .name("run-dir".into())
        .stack_size(512 * 1024)
        .spawn(move || again_after_panics("looking after the run directory", || keep_looking(&host)));
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread to look after the run directory");
    }
}

fn keep_looking(host: &Weak<Host>) {
    let mut changes = None;
    loop {
        {
            let Some(host) = host.upgrade() else { return };
            if host.is_closing() {
                return;
            }
            if let Err(error) = host.runtime().renew_run_dir() {
                tracing::error!(error = %Error::from(error).report(), "the run directory cannot be made again");
            }
            if changes.is_none() {
                changes = listen(&host).ok();
            }
            let lost = host.live().list().into_iter().filter(|live| is_lost(&host, live));
            for live in lost.collect::<Vec<_>>() {
                give_back(&host, &live);
            }
        }
        if !wait(changes.as_ref(), EVERY) {
            continue;
        }
        // One that was removed and made anew is another directory.
        changes = None;
        std::thread::sleep(TOGETHER);
    }
}

/// What the kernel tells of names that go.
fn listen(host: &Host) -> rustix::io::Result<OwnedFd> {
    let changes = inotify::init(CreateFlags::CLOEXEC)?;
    let gone = WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
    inotify::add_watch(&changes, host.settings().containers_dir(), gone | WatchFlags::ONLYDIR)?;
    Ok(changes)
}

/// Whether something of interest happened within that time. What it was does not matter.
fn wait(changes: Option<&OwnedFd>, within: Duration) -> bool {
    let Some(changes) = changes else {
        std::thread::sleep(within);
        return true;
    };
    let Ok(time) = Timespec::try_from(within) else { return false };
    !matches!(poll(&mut [PollFd::new(changes, PollFlags::IN)], Some(&time)), Ok(0) | Err(_))
}

fn is_lost(host: &Host, live: &Live) -> bool {
    live.exit().is_none() && matches!(host.runtime().has_socket(&live.name), Ok(false))
}

fn give_back(host: &Host, live: &Arc<Live>) {
    // A container that ends removes its own socket, and whoever cleans up after it has the turn.
    let Ok(_turn) = host.busy().take(&live.name, "mend its control socket") else { return };
    let present = host.live().get(&live.name).is_some_and(|present| Arc::ptr_eq(&present, live));
    if !present || !is_lost(host, live) {
        return;
    }
    let entity = format!("/1.0/instances/{}", live.name);
    match host.live().give_socket(live) {
        Ok(()) => {
            tracing::warn!(instance = live.name, "its control socket was removed, and is there again");
            host.warnings().raise(Trouble::RunDir, &entity, "the control socket was removed by somebody");
            host.warnings().resolve(Trouble::RunDir, &entity);
        }
        Err(_) if live.exit().is_some() => {}
        Err(error) => {
            tracing::error!(instance = live.name, error = %error.report(), "it cannot be reached any more");
            host.warnings().raise(Trouble::RunDir, &entity, &error.report());
        }
    }
}
