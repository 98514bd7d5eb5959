//! The daemon's side of mounts in a container that is there: starts `cabin-init disk`, which makes them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Stdio};

use cabin_sys::command::own_helper;
use cabin_sys::socket;

use crate::error::{Error, Result};
use crate::runtime::{PATIENCE, Runtime};
use crate::spec::DiskSpec;
use crate::wire::{self, DiskOrder, DiskReply, Standing};

/// A child that does not outlive its owner: a guest's filesystem may keep it waiting for ever.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // Both fail only for a child that is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Changes the mounts of the container whose init is `init`.
pub(crate) fn change(
    runtime: &Runtime,
    name: &str,
    init: BorrowedFd<'_>,
    standing: &Standing,
    detach: &[String],
    attach: &[DiskSpec],
) -> Result<()> {
    if detach.is_empty() && attach.is_empty() {
        return Ok(());
    }
    let failed = |step: &str, source| Error::Disk { name: name.to_owned(), step: step.to_owned(), source };
    let talk = |source| failed("talk to the helper", source);
    let (ours, theirs) = socket::pair().map_err(talk)?;
    let mut command = own_helper(&runtime.inner.program);
    command.arg(wire::DISK_MODE);
    command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    let child = command.spawn();
    let child = child.map_err(|source| Error::Launch { path: runtime.inner.program.clone(), source })?;
    let _reaped = Reaped(child);
    // The command still holds the helper's end; while it is open, the helper's end of life goes unseen.
    drop(command);
    let order = DiskOrder {
        init_pid: standing.init_pid,
        ids: standing.ids,
        detach: detach.to_vec(),
        attach: attach.to_vec(),
    };
    match wire::send(&ours, &order, &[init.as_fd()]) {
        // It has already ended, and said why if it could.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
        other => other.map_err(talk)?,
    }
    match answer(&ours).map_err(talk)? {
        DiskReply::Done => Ok(()),
        DiskReply::Failed(failure) => Err(failed(&failure.step, failure.source())),
    }
}

fn answer(socket: &OwnedFd) -> io::Result<DiskReply> {
    match wire::receive_within(socket, PATIENCE)? {
        Some((reply, _)) => Ok(reply),
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
    }
}
