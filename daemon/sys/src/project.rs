//! Projects: an id of a directory that all made in it inherits, and quotas by it (ioctls of `linux/fs.h`,
//! quotactl_fd(2), Linux 5.14).
//!
//! Which directory has which id, and when a quota is worth keeping, others decide.

use std::ffi::{c_int, c_long, c_ulong};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::Errno;

const GET_ATTRIBUTES: c_ulong = 0x801c_581f;
const SET_ATTRIBUTES: c_ulong = 0x401c_5820;
const INHERIT: u32 = 0x200;

const BY_PROJECT: u32 = 2;
const GET_QUOTA: u32 = 0x80_0007;
const SET_QUOTA: u32 = 0x80_0008;
const GET_NEXT_QUOTA: u32 = 0x80_0009;
const GET_STATE: u32 = 0x5805;

const LIMITS_OF_ROOM: u32 = 1;
const PROJECTS_COUNTED: u16 = 1 << 4;
const PROJECTS_HELD: u16 = 1 << 5;
/// Bytes of a block in limits.
const BLOCK: u64 = 1024;

/// `fsxattr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent: u32,
    extents: u32,
    project: u32,
    copy_extent: u32,
    padding: [u8; 8],
}

/// `if_nextdqblk`, which begins as `if_dqblk` does and is as long.
#[repr(C)]
#[derive(Default)]
struct Record {
    most_blocks: u64,
    soft_blocks: u64,
    bytes: u64,
    most_files: u64,
    soft_files: u64,
    files: u64,
    grace: [u64; 2],
    valid: u32,
    id: u32,
}

/// `fs_quota_stat` as words; the flags are the second two bytes.
#[repr(C)]
#[derive(Default)]
struct State([u64; 10]);

/// The kernel's own sizes of these structures, or the build ends here.
const _: () = assert!(size_of::<Attributes>() == 28 && size_of::<Record>() == 72 && size_of::<State>() == 80);

/// What a filesystem does about projects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keeping {
    /// Nothing.
    Nothing,
    /// It counts what those of one id hold.
    Counted,
    /// It counts, and holds limits.
    Held,
}

/// What those of one id hold, and may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Bytes on disk.
    pub bytes: u64,
    /// Files and directories.
    pub files: u64,
    /// The most bytes, if they are limited.
    pub most: Option<u64>,
}

fn checked(done: c_long) -> Result<(), Errno> {
    match done {
        0.. => Ok(()),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

fn attributes(dir: BorrowedFd<'_>) -> io::Result<Attributes> {
    let mut found = Attributes::default();
    let pointer = std::ptr::from_mut(&mut found);
    // SAFETY: the request fills the structure, whose size it encodes (held by the assertion above), and which is
    // exclusively borrowed during the call.
    let done = unsafe { libc::ioctl(dir.as_raw_fd(), GET_ATTRIBUTES as _, pointer) };
    checked(done.into())?;
    Ok(found)
}

/// The id that all made in a directory inherits, if there is one.
///
/// # Errors
/// As ioctl(2).
pub fn id_of(dir: impl AsFd) -> io::Result<Option<u32>> {
    match attributes(dir.as_fd()) {
        Ok(found) => Ok((found.flags & INHERIT != 0 && found.project != 0).then_some(found.project)),
        // A filesystem without projects.
        Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::NOTTY | Errno::OPNOTSUPP)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Gives a directory this id, and has all that is made in it from now on inherit it. What is of another id cannot be
/// renamed or linked into it any more (`EXDEV`).
///
/// # Errors
/// As ioctl(2); `EOPNOTSUPP` where the filesystem has no projects, `EINVAL` in another user namespace than the first.
pub fn set_id(dir: impl AsFd, id: u32) -> io::Result<()> {
    let dir = dir.as_fd();
    let mut wanted = attributes(dir)?;
    wanted.flags |= INHERIT;
    wanted.project = id;
    let pointer = std::ptr::from_ref(&wanted);
    // SAFETY: the request reads the structure, whose size it encodes (held by the assertion above).
    let done = unsafe { libc::ioctl(dir.as_raw_fd(), SET_ATTRIBUTES as _, pointer) };
    Ok(checked(done.into())?)
}

/// Calls quotactl_fd for projects.
fn call<T>(on: BorrowedFd<'_>, command: u32, id: u32, argument: &mut T) -> Result<(), Errno> {
    let (fd, command): (c_int, u32) = (on.as_raw_fd(), (command << 8) | BY_PROJECT);
    // SAFETY: each command of this file reads or fills the one structure it is called with, whose size is the
    // kernel's (held by the assertion above), and which is exclusively borrowed during the call.
    checked(unsafe { libc::syscall(libc::SYS_quotactl_fd, fd, command, id, std::ptr::from_mut(argument)) })
}

/// What the filesystem that the file lies on does about projects.
///
/// # Errors
/// As quotactl_fd(2).
pub fn keeping(on: impl AsFd) -> io::Result<Keeping> {
    let mut state = State::default();
    match call(on.as_fd(), GET_STATE, 0, &mut state) {
        // The kernel has no quotas, the filesystem none of any kind, or somebody hides them.
        Err(Errno::NOSYS | Errno::SRCH | Errno::INVAL | Errno::PERM | Errno::NOTBLK) => {
            return Ok(Keeping::Nothing);
        }
        other => other?,
    }
    let [_, _, low, high, ..] = state.0[0].to_ne_bytes();
    let flags = u16::from_ne_bytes([low, high]);
    Ok(match (flags & PROJECTS_COUNTED != 0, flags & PROJECTS_HELD != 0) {
        (true, true) => Keeping::Held,
        (true, false) => Keeping::Counted,
        (false, _) => Keeping::Nothing,
    })
}

/// What those of an id hold on the filesystem that the file lies on.
///
/// # Errors
/// As quotactl_fd(2) with `Q_GETQUOTA`.
pub fn quota(on: impl AsFd, id: u32) -> io::Result<Quota> {
    let mut record = Record::default();
    match call(on.as_fd(), GET_QUOTA, id, &mut record) {
        // Nobody has that id.
        Err(Errno::NOENT) => return Ok(Quota::default()),
        other => other?,
    }
    let most = (record.most_blocks != 0).then(|| record.most_blocks.saturating_mul(BLOCK));
    Ok(Quota { bytes: record.bytes, files: record.files, most })
}

/// Sets the most bytes that those of an id may hold, at least a block and rounded up to blocks of 1 KiB, or lifts
/// that. What they hold already stays.
///
/// # Errors
/// As quotactl_fd(2) with `Q_SETQUOTA`.
pub fn limit(on: impl AsFd, id: u32, most: Option<u64>) -> io::Result<()> {
    let most_blocks = most.map_or(0, |bytes| bytes.div_ceil(BLOCK).max(1));
    let mut record = Record { most_blocks, valid: LIMITS_OF_ROOM, ..Record::default() };
    Ok(call(on.as_fd(), SET_QUOTA, id, &mut record)?)
}

/// The ids of which the filesystem remembers that they hold something, or may.
///
/// # Errors
/// As quotactl_fd(2) with `Q_GETNEXTQUOTA`.
pub fn ids(on: impl AsFd) -> io::Result<Vec<u32>> {
    let (mut found, mut next) = (Vec::new(), 0);
    loop {
        let mut record = Record::default();
        match call(on.as_fd(), GET_NEXT_QUOTA, next, &mut record) {
            Err(Errno::NOENT) => return Ok(found),
            other => other?,
        }
        // One that a removal is still at has nothing, and goes.
        if record.files != 0 || record.bytes != 0 || record.most_blocks != 0 {
            found.push(record.id);
        }
        match record.id.checked_add(1) {
            Some(id) => next = id,
            None => return Ok(found),
        }
    }
}
