//! Subvolumes, snapshots and quota groups of btrfs (ioctls of `linux/btrfs.h`).
//!
//! What a subvolume is for, and when quotas are worth their price, others decide.

pub mod links;
pub mod nested;
pub mod stream;

use std::collections::HashSet;
use std::ffi::{OsStr, c_ulong};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs as rfs;

/// The magic number statfs(2) gives for btrfs.
pub const MAGIC: i64 = 0x9123_683e;

/// The inode number every subvolume's root has.
const ROOT_INODE: u64 = 256;

const NAME_MAX: usize = 255;
const READ_ONLY: u64 = 1 << 1;
const BY_ID: u64 = 1 << 4;

const TREE_ROOTS: u64 = 1;
const TREE_QUOTA: u64 = 8;
const KEY_EXTENT_DATA: u32 = 108;
const KEY_ROOT_ITEM: u32 = 132;
const KEY_QGROUP_INFO: u32 = 242;
const KEY_QGROUP_LIMIT: u32 = 244;
const LIMIT_REFERENCED: u64 = 1;

const fn request(direction: c_ulong, number: c_ulong, size: usize) -> c_ulong {
    (direction << 30) | ((size as c_ulong) << 16) | (0x94 << 8) | number
}
const WRITE: c_ulong = 1;
const READ: c_ulong = 2;

const RESIZE: c_ulong = request(WRITE, 3, size_of::<Named>());
const TREE_SEARCH_V2: c_ulong = request(READ | WRITE, 17, size_of::<SearchHead>());
const SNAP_CREATE_V2: c_ulong = request(WRITE, 23, size_of::<NamedV2>());
const SUBVOL_CREATE_V2: c_ulong = request(WRITE, 24, size_of::<NamedV2>());
const SUBVOL_GETFLAGS: c_ulong = request(READ, 25, size_of::<u64>());
const SUBVOL_SETFLAGS: c_ulong = request(WRITE, 26, size_of::<u64>());
const SET_RECEIVED_SUBVOL: c_ulong = request(READ | WRITE, 37, size_of::<Received>());
const QUOTA_CTL: c_ulong = request(READ | WRITE, 40, size_of::<QuotaControl>());
const QGROUP_CREATE: c_ulong = request(WRITE, 42, size_of::<QgroupCreate>());
const QGROUP_LIMIT: c_ulong = request(READ, 43, size_of::<QgroupLimit>());
const QUOTA_RESCAN_WAIT: c_ulong = request(0, 46, 0);
const GET_SUBVOL_INFO: c_ulong = request(READ, 60, size_of::<SubvolInfo>());
const GET_SUBVOL_ROOTREF: c_ulong = request(READ | WRITE, 61, size_of::<Children>());
const SNAP_DESTROY_V2: c_ulong = request(WRITE, 63, size_of::<NamedV2>());

#[repr(C)]
struct Named {
    fd: i64,
    name: [u8; 4088],
}

#[repr(C)]
struct NamedV2 {
    fd: i64,
    transaction: u64,
    flags: u64,
    unused: [u64; 4],
    /// A name, or in the first eight bytes an id.
    name: [u8; 4040],
}

/// `btrfs_ioctl_received_subvol_args`: of the rest nothing matters here.
#[repr(C)]
struct Received {
    uuid: [u8; 16],
    sent_in: u64,
    received_in: u64,
    rest: [u64; 21],
}

#[repr(C)]
struct QuotaControl {
    command: u64,
    status: u64,
}

#[repr(C)]
struct QgroupCreate {
    create: u64,
    group: u64,
}

#[repr(C)]
struct QgroupLimit {
    group: u64,
    flags: u64,
    max_referenced: u64,
    max_exclusive: u64,
    reserved: [u64; 2],
}

/// `btrfs_ioctl_get_subvol_info_args` as words: 504 bytes, the name at the second.
#[repr(C)]
struct SubvolInfo([u64; 63]);

#[repr(C)]
struct Children {
    from: u64,
    /// Pairs of subvolume and the directory it lies in.
    found: [[u64; 2]; 255],
    count: u8,
    padding: [u8; 7],
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct SearchHead {
    tree: u64,
    objects: [u64; 2],
    offsets: [u64; 2],
    transactions: [u64; 2],
    kinds: [u32; 2],
    items: u32,
    unused: u32,
    reserved: [u64; 4],
    size: u64,
}

/// Bytes of results one search takes.
const RESULTS: usize = 64 * 1024;
/// Bytes before each item in the results.
const ITEM_HEAD: usize = 32;

#[repr(C, align(8))]
struct Search {
    head: SearchHead,
    results: [u8; RESULTS],
}

/// The kernel's own sizes of these structures, or the build ends here.
const _: () = {
    assert!(size_of::<Named>() == 4096 && size_of::<NamedV2>() == 4096);
    assert!(size_of::<SubvolInfo>() == 504 && size_of::<Children>() == 4096);
    assert!(size_of::<Received>() == 200);
    assert!(size_of::<SearchHead>() == 112 && size_of::<QgroupLimit>() == 48);
};

/// What is known of a subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subvolume {
    /// Its id, which is its level-0 quota group as well.
    pub id: u64,
    /// The transaction in which it was made.
    pub made_in: u64,
    /// The transaction in which it changed last.
    pub changed_in: u64,
    /// Whether nothing can be written in it.
    pub read_only: bool,
    /// What it is, and in which transaction something in it changed last: as long as both are the same, so is all that is
    /// in it.
    pub state: State,
    /// The state of another one, maybe of another filesystem, that it was made to be like; none when it was not, or was
    /// written in since.
    pub received: Option<State>,
}

/// What a subvolume held at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The subvolume, of whatever filesystem.
    pub uuid: [u8; 16],
    /// A transaction of its filesystem.
    pub transaction: u64,
}

/// Whether something can be written in a new snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It can.
    Writable,
    /// It cannot.
    ReadOnly,
}

/// What a quota group counts, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Everything that can be reached from the subvolume.
    pub referenced: u64,
    /// What nothing else reaches.
    pub exclusive: u64,
}

/// Calls `ioctl` with a pointer to `argument`, which has the layout and size that `request` stands for.
fn call<T>(fd: BorrowedFd<'_>, request: c_ulong, argument: &mut T) -> io::Result<()> {
    Ok(rustix::io::retry_on_intr(|| call_once(fd, request, argument))?)
}

/// As [`call`], of what must not be begun anew where a signal cut it short.
fn call_once<T>(fd: BorrowedFd<'_>, request: c_ulong, argument: &mut T) -> rustix::io::Result<()> {
    // SAFETY: every `request` of this file encodes the size of the one structure it is called with (held by
    // the assertions above), and the structure lives, exclusively borrowed, until the call returns. The
    // kernel keeps no pointer to it.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, std::ptr::from_mut(argument)) };
    match done {
        0.. => Ok(()),
        _ => {
            Err(rustix::io::Errno::from_io_error(&io::Error::last_os_error())
                .unwrap_or(rustix::io::Errno::IO))
        }
    }
}

fn named(name: &OsStr) -> io::Result<Box<NamedV2>> {
    let name = name.as_bytes();
    if matches!(name, b"" | b"." | b"..")
        || name.len() > NAME_MAX
        || name.iter().any(|b| matches!(b, b'/' | 0))
    {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut args = Box::new(NamedV2 { fd: 0, transaction: 0, flags: 0, unused: [0; 4], name: [0; 4040] });
    args.name[..name.len()].copy_from_slice(name);
    Ok(args)
}

/// Whether the file lies on btrfs.
///
/// # Errors
/// As fstatfs(2).
pub fn is_btrfs(fd: impl AsFd) -> io::Result<bool> {
    Ok(rfs::fstatfs(fd)?.f_type == MAGIC)
}

/// Whether the open directory is the root of a subvolume.
///
/// # Errors
/// As fstat(2) and fstatfs(2).
pub fn is_subvolume(dir: impl AsFd) -> io::Result<bool> {
    Ok(rfs::fstat(&dir)?.st_ino == ROOT_INODE && is_btrfs(dir)?)
}

/// Makes an empty subvolume. Its root has mode 0777 less the umask, and the caller's ids.
///
/// # Errors
/// As the ioctl; `AlreadyExists`, and `ENOTTY` where there is no btrfs.
pub fn create_subvolume(dir: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<()> {
    call(dir.as_fd(), SUBVOL_CREATE_V2, &mut *named(name.as_ref())?)
}

/// Makes `name` in `dir` a snapshot of the subvolume whose root is `of`. When this returns, the snapshot is on disk
/// with all that was written before. Subvolumes inside show as empty directories in it.
///
/// # Errors
/// As the ioctl; `AlreadyExists`, `EXDEV` for another filesystem, `EINVAL` when `of` is no subvolume's root.
pub fn snapshot(of: impl AsFd, dir: impl AsFd, name: impl AsRef<OsStr>, access: Access) -> io::Result<()> {
    let mut args = named(name.as_ref())?;
    args.fd = i64::from(of.as_fd().as_raw_fd());
    if access == Access::ReadOnly {
        args.flags = READ_ONLY;
    }
    call(dir.as_fd(), SNAP_CREATE_V2, &mut *args)
}

/// Removes a subvolume by name, whatever it holds, read-only or not. Its room is given back in the background.
///
/// # Errors
/// As the ioctl; `ENOTEMPTY` when there are subvolumes inside.
pub fn destroy_subvolume(dir: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<()> {
    call(dir.as_fd(), SNAP_DESTROY_V2, &mut *named(name.as_ref())?)
}

/// Removes the subvolume with this id on the filesystem that `on` lies on, however deep it lies.
///
/// # Errors
/// As the ioctl; `ENOTEMPTY` when there are subvolumes inside, `ENAMETOOLONG` when its path is.
pub fn destroy_subvolume_by_id(on: impl AsFd, id: u64) -> io::Result<()> {
    let mut args = Box::new(NamedV2 { fd: 0, transaction: 0, flags: BY_ID, unused: [0; 4], name: [0; 4040] });
    args.name[..8].copy_from_slice(&id.to_ne_bytes());
    call(on.as_fd(), SNAP_DESTROY_V2, &mut *args)
}

/// The ids of the subvolumes that lie directly in the subvolume `of` is in.
///
/// # Errors
/// As the ioctl.
pub fn subvolumes_in(of: impl AsFd) -> io::Result<Vec<u64>> {
    let mut ids = Vec::new();
    let mut args = Box::new(Children { from: 0, found: [[0; 2]; 255], count: 0, padding: [0; 7] });
    loop {
        let more = match call(of.as_fd(), GET_SUBVOL_ROOTREF, &mut *args) {
            Ok(()) => false,
            // The list was full; the kernel has moved `from` on.
            Err(e) if e.raw_os_error() == Some(libc::EOVERFLOW) => true,
            Err(e) => return Err(e),
        };
        ids.extend(args.found.iter().take(usize::from(args.count)).map(|[id, _]| *id));
        if !more {
            return Ok(ids);
        }
    }
}

/// What is known of the subvolume that `of` is in.
///
/// # Errors
/// As the ioctl.
pub fn info(of: impl AsFd) -> io::Result<Subvolume> {
    let mut args = Box::new(SubvolInfo([0; 63]));
    call(of.as_fd(), GET_SUBVOL_INFO, &mut *args)?;
    let word = |offset: usize| args.0[offset / 8];
    let uuid = |offset| {
        let mut uuid = [0; 16];
        uuid[..8].copy_from_slice(&word(offset).to_ne_bytes());
        uuid[8..].copy_from_slice(&word(offset + 8).to_ne_bytes());
        uuid
    };
    Ok(Subvolume {
        id: word(0),
        made_in: word(0x160),
        changed_in: word(0x118),
        read_only: word(0x120) & 1 != 0,
        state: State { uuid: uuid(0x128), transaction: word(0x158) },
        received: Some(State { uuid: uuid(0x148), transaction: word(0x168) })
            // Nothing changed in it after the transaction in which it was noted.
            .filter(|it| it.uuid != [0; 16] && word(0x158) <= word(0x170)),
    })
}

/// Lets what is written in the subvolume with this root, or forbids it.
///
/// # Errors
/// As the ioctl; `EINVAL` when `root` is no subvolume's.
pub fn set_access(root: impl AsFd, access: Access) -> io::Result<()> {
    let mut flags = 0u64;
    call(root.as_fd(), SUBVOL_GETFLAGS, &mut flags)?;
    let wanted = if access == Access::ReadOnly { flags | READ_ONLY } else { flags & !READ_ONLY };
    if wanted == flags { Ok(()) } else { call(root.as_fd(), SUBVOL_SETFLAGS, &mut { wanted }) }
}

/// Notes of the subvolume with this root, in which something can be written now, that it was made to be like another one
/// in that state. All that was written in it must be on disk.
///
/// # Errors
/// As the ioctl; `EROFS` when it is read-only.
pub fn set_received(root: impl AsFd, state: State) -> io::Result<()> {
    let mut args = Received { uuid: state.uuid, sent_in: state.transaction, received_in: 0, rest: [0; 21] };
    call(root.as_fd(), SET_RECEIVED_SUBVOL, &mut args)
}

/// Lets the one-device filesystem that `on` lies on fill its device.
///
/// # Errors
/// As the ioctl.
pub fn grow(on: impl AsFd) -> io::Result<()> {
    let mut args = Box::new(Named { fd: 0, name: [0; 4088] });
    args.name[..3].copy_from_slice(b"max");
    call(on.as_fd(), RESIZE, &mut *args)
}

/// Bytes of data written since transaction `since` that the subvolume `of` is in, or one that lies in it however deep,
/// still reaches. What was not changed since is not even read.
///
/// # Errors
/// As the ioctl: `EPERM` without `CAP_SYS_ADMIN`.
pub fn written_since(of: impl AsFd, since: u64) -> io::Result<u64> {
    let (mut total, mut counted) = (0, HashSet::new());
    // 0 is the one `of` is in.
    for tree in [vec![0], nested::within(&of)?].concat() {
        match written_in(of.as_fd(), tree, since, &mut counted) {
            // Somebody removed it meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound && tree != 0 => {}
            other => total += other?,
        }
    }
    Ok(total)
}

/// What one subvolume reaches; what is `counted` by now is left out.
fn written_in(on: BorrowedFd<'_>, tree: u64, since: u64, counted: &mut HashSet<u64>) -> io::Result<u64> {
    let mut total = 0;
    let head = SearchHead {
        tree,
        objects: [ROOT_INODE, u64::MAX],
        offsets: [0, u64::MAX],
        transactions: [since.saturating_add(1), u64::MAX],
        kinds: [KEY_EXTENT_DATA, KEY_EXTENT_DATA],
        ..SearchHead::default()
    };
    search(on, head, |found, item| {
        if found.kind != KEY_EXTENT_DATA || item.len() < 21 || word(item, 0) <= since {
            return;
        }
        const INLINE: u8 = 0;
        if item[20] == INLINE {
            total += u64::try_from(item.len() - 21).unwrap_or(0);
        } else if item.len() >= 37 {
            let (at, length) = (word(item, 21), word(item, 29));
            // At 0 there is a hole.
            if at != 0 && counted.insert(at) {
                total += length;
            }
        }
    })?;
    Ok(total)
}

fn word(item: &[u8], at: usize) -> u64 {
    let bytes = item.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}

/// The key of an item that was found.
struct Found {
    object: u64,
    kind: u32,
    offset: u64,
}

/// Gives every item between two keys of a tree, with its key.
fn search(fd: BorrowedFd<'_>, mut head: SearchHead, mut each: impl FnMut(&Found, &[u8])) -> io::Result<()> {
    let mut search = Box::new(Search { head, results: [0; RESULTS] });
    loop {
        head.items = u32::MAX;
        head.size = RESULTS as u64;
        search.head = head;
        rustix::io::retry_on_intr(|| {
            // SAFETY: the request encodes the size of the head; the kernel writes at most `head.size` bytes right
            // behind it, which is the length of `results`, and all of it lives and is exclusively borrowed here.
            match unsafe {
                libc::ioctl(fd.as_raw_fd(), TREE_SEARCH_V2 as _, std::ptr::from_mut(&mut *search))
            } {
                0.. => Ok(()),
                _ => Err(rustix::io::Errno::from_io_error(&io::Error::last_os_error())
                    .unwrap_or(rustix::io::Errno::IO)),
            }
        })?;
        if search.head.items == 0 {
            return Ok(());
        }
        let mut at = 0;
        let mut last = (0, 0, 0);
        for _ in 0..search.head.items {
            let Some(found) = search.results.get(at..at + ITEM_HEAD) else { break };
            let half = |at: usize| {
                found.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
            };
            let (object, offset, kind) = (word(found, 8), word(found, 16), half(24));
            let length = usize::try_from(half(28)).unwrap_or(0);
            let Some(item) = search.results.get(at + ITEM_HEAD..at + ITEM_HEAD + length) else { break };
            each(&Found { object, kind, offset }, item);
            last = (object, kind, offset);
            at += ITEM_HEAD + length;
        }
        let (object, kind, offset) = last;
        // The key that comes next.
        if offset < u64::MAX {
            (head.objects[0], head.kinds[0], head.offsets[0]) = (object, kind, offset + 1);
        } else if kind < 255 {
            (head.objects[0], head.kinds[0], head.offsets[0]) = (object, kind + 1, 0);
        } else if object < u64::MAX {
            (head.objects[0], head.kinds[0], head.offsets[0]) = (object + 1, 0, 0);
        } else {
            return Ok(());
        }
    }
}

/// Whether quotas are kept on the filesystem that `on` lies on.
///
/// # Errors
/// As the ioctl.
pub fn has_quotas(on: impl AsFd) -> io::Result<bool> {
    let status = SearchHead { tree: TREE_QUOTA, objects: [0, 0], kinds: [240, 240], ..SearchHead::default() };
    match search(
        on.as_fd(),
        SearchHead { offsets: [0, u64::MAX], transactions: [0, u64::MAX], ..status },
        |_, _| {},
    ) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Starts to keep quotas on the filesystem that `on` lies on, and waits until all that is there has been counted.
/// That takes a while in proportion to what it holds. When they are kept already, that is success.
///
/// # Errors
/// As the ioctls.
pub fn start_quotas(on: impl AsFd) -> io::Result<()> {
    call(on.as_fd(), QUOTA_CTL, &mut QuotaControl { command: 1, status: 0 })?;
    call(on.as_fd(), QUOTA_RESCAN_WAIT, &mut 0u64)
}

/// Sets how many bytes the subvolume `of` is in may reach, or lifts that limit.
///
/// # Errors
/// As the ioctl; `ENOTCONN` or `EINVAL` where no quotas are kept.
pub fn limit(of: impl AsFd, bytes: Option<u64>) -> io::Result<()> {
    let max_referenced = bytes.unwrap_or(u64::MAX);
    let mut args =
        QgroupLimit { group: 0, flags: LIMIT_REFERENCED, max_referenced, max_exclusive: 0, reserved: [0; 2] };
    call(of.as_fd(), QGROUP_LIMIT, &mut args)
}

/// What the quota group of a subvolume counts and the most it may reach; `None` where no quotas are kept.
///
/// # Errors
/// As the ioctl.
pub fn quota(on: impl AsFd, id: u64) -> io::Result<Option<(Quota, Option<u64>)>> {
    let head = SearchHead {
        tree: TREE_QUOTA,
        offsets: [id, id],
        transactions: [0, u64::MAX],
        kinds: [KEY_QGROUP_INFO, KEY_QGROUP_LIMIT],
        ..SearchHead::default()
    };
    let (mut found, mut most) = (None, None);
    let searched = search(on.as_fd(), head, |key, item| match key.kind {
        KEY_QGROUP_INFO if key.offset == id => {
            found = Some(Quota { referenced: word(item, 8), exclusive: word(item, 24) });
        }
        KEY_QGROUP_LIMIT if key.offset == id && word(item, 0) & LIMIT_REFERENCED != 0 => {
            most = Some(word(item, 8));
        }
        _ => {}
    });
    match searched {
        Ok(()) => Ok(found.map(|quota| (quota, most))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The ids of all subvolumes of the filesystem that `on` lies on, with those whose removal is not finished.
///
/// # Errors
/// As the ioctl.
pub fn subvolumes(on: impl AsFd) -> io::Result<HashSet<u64>> {
    let head = SearchHead {
        tree: TREE_ROOTS,
        // The numbers above are the kernel's own trees.
        objects: [ROOT_INODE, u64::MAX - 255],
        offsets: [0, u64::MAX],
        transactions: [0, u64::MAX],
        kinds: [KEY_ROOT_ITEM, KEY_ROOT_ITEM],
        ..SearchHead::default()
    };
    let mut ids = HashSet::new();
    search(on.as_fd(), head, |found, _| {
        if found.kind == KEY_ROOT_ITEM {
            ids.insert(found.object);
        }
    })?;
    Ok(ids)
}

/// The ids of the quota groups that belong to one subvolume each, whether that is still there or not. None where no
/// quotas are kept.
///
/// # Errors
/// As the ioctl.
pub fn quota_groups(on: impl AsFd) -> io::Result<Vec<u64>> {
    let head = SearchHead {
        tree: TREE_QUOTA,
        // Above the lowest 48 bits there is the level.
        offsets: [0, (1 << 48) - 1],
        transactions: [0, u64::MAX],
        kinds: [KEY_QGROUP_INFO, KEY_QGROUP_INFO],
        ..SearchHead::default()
    };
    let mut ids = Vec::new();
    match search(on.as_fd(), head, |found, _| {
        if found.kind == KEY_QGROUP_INFO && found.offset >= ROOT_INODE {
            ids.push(found.offset);
        }
    }) {
        Ok(()) => Ok(ids),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(ids),
        Err(e) => Err(e),
    }
}

/// Removes the quota group of a subvolume that is gone.
///
/// # Errors
/// As the ioctl; `EBUSY` while the subvolume is still there, `ENOENT` when there is no such group.
pub fn remove_quota_group(on: impl AsFd, id: u64) -> io::Result<()> {
    call(on.as_fd(), QGROUP_CREATE, &mut QgroupCreate { create: 0, group: id })
}
