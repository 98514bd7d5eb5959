//! Files the daemon wants in the root filesystem before init runs.
//!
//! Written by the container's first process once it has turned its back on the host: whatever links the
//! tree holds, they lead nowhere else. One that cannot be written is skipped.

use std::io::{self, Write};
use std::os::fd::AsFd;

use cabin_runtime::spec::RenderedFile;
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

/// Writes each file; the guest's tree decides whether it can be.
pub fn write_all(files: &[RenderedFile]) {
    for file in files {
        // A missing directory or a link that leads nowhere is the image's choice, and no reason not to boot.
        let _ = write(file);
    }
}

fn write(file: &RenderedFile) -> io::Result<()> {
    // Nothing is waited for: what lies there may be a pipe nobody writes to.
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let (fd, new) = match rustix::fs::openat(CWD, &file.path, flags, Mode::empty()) {
        Ok(_) if file.create_only => return Ok(()),
        Ok(fd) => (fd, false),
        Err(Errno::NOENT) => {
            let fresh = flags | OFlags::CREATE | OFlags::EXCL;
            (rustix::fs::openat(CWD, &file.path, fresh, Mode::from_raw_mode(0o600))?, true)
        }
        Err(e) => return Err(e.into()),
    };
    if !rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode).is_file() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    rustix::fs::ftruncate(&fd, 0)?;
    let (uid, gid) = (file.uid.map(Uid::from_raw), file.gid.map(Gid::from_raw));
    rustix::fs::fchown(fd.as_fd(), uid, gid)?;
    if let Some(mode) = file.mode.or(new.then_some(0o644)) {
        rustix::fs::fchmod(fd.as_fd(), Mode::from_raw_mode(mode))?;
    }
    std::fs::File::from(fd).write_all(&file.content)
}
