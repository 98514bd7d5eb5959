//! Disks in a container that is there: mounts made outside, in no table of the host, put in place inside.
//!
//! What is mounted is opened as the host's root in the host's mounts; where it goes is looked up as the
//! container's root in the container's mounts. Nothing in between is reached by a path.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use cabin_runtime::spec::{DiskSource, DiskSpec, IdMap};
use cabin_runtime::wire::{self, DiskOrder, DiskReply, Failure};
use cabin_sys::dir::HostDir;
use cabin_sys::mount::{self, Attributes, Depth};
use cabin_sys::namespace::{self, Namespaces};
use cabin_sys::process;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use crate::link;
use crate::step::{Step, odd};

/// A directory every host has, and that is covered in this process's own mount namespace only.
const WORKSHOP: &str = "/sys";

/// How often a lookup is tried again that a rename elsewhere disturbed.
const TRIES: usize = 1000;

/// Filesystems of the kernel that nothing is mounted on: /proc, /sys, cgroups, terminals.
const KERNEL: &[i64] = &[0x9fa0, 0x6265_6572, 0x6367_7270, 0x0027_e0eb, 0x1cd1];

/// Does what the daemon orders, and says how it went.
pub fn run(daemon: &OwnedFd) -> ExitCode {
    let reply = match change(daemon) {
        Ok(()) => DiskReply::Done,
        Err(failure) => DiskReply::Failed(failure),
    };
    match wire::send(daemon, &reply, &[]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn change(daemon: &OwnedFd) -> Result<(), Failure> {
    let (order, fds) = link::next::<DiskOrder>(daemon, "read the order")?;
    let init = fds.into_iter().next().ok_or_else(|| odd("read the order", "no container is given"))?;
    let container = Container::open(&init, &order)?;
    let mut trees = Vec::new();
    for disk in &order.attach {
        trees.push(tree(disk, container.users.as_ref().map(AsFd::as_fd))?);
    }
    let trees = container.enter(trees)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).step("open the root directory")?;
    for path in &order.detach {
        detach(&root, path)?;
    }
    for (number, (disk, tree)) in order.attach.iter().zip(trees).enumerate() {
        let attached =
            tree.map_or_else(|| memory(disk), Ok).and_then(|tree| attach(&root, &disk.path, &tree));
        if let Err(failure) = attached {
            for done in order.attach.iter().take(number) {
                let _ = detach(&root, &done.path);
            }
            return Err(failure);
        }
    }
    Ok(())
}

/// The namespaces of the container.
struct Container {
    mounts: OwnedFd,
    users: Option<OwnedFd>,
}

impl Container {
    fn open(init: &OwnedFd, order: &DiskOrder) -> Result<Container, Failure> {
        let open = |kind: &str| {
            let path = format!("/proc/{}/ns/{kind}", order.init_pid);
            rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .step(format!("open `{path}`"))
        };
        let container = Container {
            mounts: open("mnt")?,
            users: if order.ids == IdMap::Privileged { None } else { Some(open("user")?) },
        };
        // The number was still init's when the files were opened.
        process::signal(init, 0).step("find the container")?;
        Ok(container)
    }

    /// Takes the mounts into the container and becomes its root; no right on the host is left.
    ///
    /// On the way the mounts go through a mount namespace of the container's user namespace: what is copied
    /// into one keeps its bars (read-only, no devices) against whoever is root there.
    fn enter(&self, trees: Vec<Option<OwnedFd>>) -> Result<Vec<Option<OwnedFd>>, Failure> {
        let Some(users) = &self.users else {
            namespace::enter(&self.mounts, Namespaces::NEWNS).step("enter the mount namespace")?;
            return Ok(trees);
        };
        let what = "make a mount namespace";
        let depths: Vec<Option<FileType>> = trees.iter().map(|tree| tree.as_ref().map(kind)).collect();
        let any = depths.iter().any(Option::is_some);
        if any {
            namespace::unshare(Namespaces::NEWNS).step(what)?;
            mount::make_all_private().step("make the mounts private")?;
            stage(&trees)?;
        }
        namespace::enter(users, Namespaces::NEWUSER).step("enter the user namespace")?;
        let mut barred = Vec::new();
        if any {
            namespace::unshare(Namespaces::NEWNS).step(what)?;
        }
        for (number, tree) in depths.iter().enumerate() {
            barred.push(match tree {
                Some(_) => {
                    let tree = mount::clone_tree(CWD, number.to_string(), Depth::All);
                    Some(tree.step("take the mount along")?)
                }
                None => None,
            });
        }
        drop(trees);
        namespace::enter(&self.mounts, Namespaces::NEWNS).step("enter the mount namespace")?;
        process::set_ids(0, 0, &[]).step("become the container's root")?;
        Ok(barred)
    }
}

/// Puts the trees side by side on a small filesystem, which becomes the current directory.
fn stage(trees: &[Option<OwnedFd>]) -> Result<(), Failure> {
    let what = "make the staging directory";
    let options = [("size", "64k"), ("mode", "0755")];
    let stage = mount::filesystem("tmpfs", &options, mount::INERT).step(what)?;
    mount::attach(&stage, CWD, WORKSHOP).step(what)?;
    for (number, tree) in trees.iter().enumerate() {
        let Some(tree) = tree else { continue };
        make(&stage, &number.to_string(), kind(tree)).step(what)?;
        mount::attach(tree, &stage, number.to_string()).step(what)?;
    }
    rustix::process::fchdir(&stage).step(what)
}

fn kind(tree: &OwnedFd) -> FileType {
    rustix::fs::fstat(tree).map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
}

/// What a disk shows, as a detached mount; nothing for one that can only be made inside.
fn tree(disk: &DiskSpec, users: Option<BorrowedFd<'_>>) -> Result<Option<OwnedFd>, Failure> {
    let (tree, shifted, depth, what) = match &disk.source {
        DiskSource::Memory { .. } => return Ok(None),
        DiskSource::Volume { root, beneath, shifted } => {
            let what = match beneath {
                Some(beneath) => format!("open `{beneath}` in the volume"),
                None => "open the volume".to_owned(),
            };
            let dir = HostDir::open(root).step(&what)?;
            let dir = match beneath {
                // Who writes in the volume may have put links there: they lead nowhere else.
                Some(beneath) => dir.open_dir_by_links(beneath).step(&what)?,
                None => dir,
            };
            let tree = mount::clone_tree(&dir, "", Depth::One).step(&what)?;
            (tree, *shifted, Depth::One, "the volume".to_owned())
        }
        DiskSource::Host { path, shifted, recursive } => {
            let what = format!("open `{}`", path.display());
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let found = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
                .step(&what)?;
            if !matches!(kind(&found), FileType::Directory | FileType::RegularFile) {
                return Err(odd(&what, "it is neither a directory nor a file"));
            }
            let depth = if *recursive { Depth::All } else { Depth::One };
            let tree = mount::clone_tree(&found, "", depth).step(&what)?;
            (tree, *shifted, depth, format!("`{}`", path.display()))
        }
    };
    if let (true, Some(users)) = (shifted, users) {
        mount::show_through(&tree, users, depth).map_err(|error| match error.raw_os_error() {
            Some(code) if code == Errno::INVAL.raw_os_error() => odd(
                &format!("show the ids of {what} shifted"),
                "its filesystem cannot; `shift=false` leaves them as they are",
            ),
            _ => Failure::new(format!("show the ids of {what} shifted"), &error),
        })?;
    }
    let mut bars = Attributes::MOUNT_ATTR_NODEV;
    if disk.readonly {
        bars |= Attributes::MOUNT_ATTR_RDONLY;
    }
    mount::set_attributes(&tree, bars, depth).step(format!("bar devices from {what}"))?;
    Ok(Some(tree))
}

/// A filesystem in memory; it is the container's, so its ids are too.
fn memory(disk: &DiskSpec) -> Result<OwnedFd, Failure> {
    let what = "make a filesystem in memory";
    let DiskSource::Memory { size, uid, gid, mode } = &disk.source else {
        return Err(odd(what, "a mount is missing"));
    };
    let mut options = vec![("mode", format!("{mode:o}")), ("uid", uid.to_string()), ("gid", gid.to_string())];
    if let Some(size) = size {
        options.push(("size", size.to_string()));
    }
    let options: Vec<(&str, &str)> = options.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let mut bars = Attributes::MOUNT_ATTR_NODEV | Attributes::MOUNT_ATTR_NOSUID;
    if disk.readonly {
        bars |= Attributes::MOUNT_ATTR_RDONLY;
    }
    mount::filesystem("tmpfs", &options, bars).step(what)
}

/// Puts a tree in place, unless it is there already.
fn attach(root: &OwnedFd, path: &str, tree: &OwnedFd) -> Result<(), Failure> {
    let what = || format!("mount at `{path}`");
    let (parent, name) = parent(root, path, true).step(what())?;
    let kind = kind(tree);
    make(&parent, name, kind).step(what())?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::openat(&parent, name, flags, Mode::empty()).step(what())?;
    let (mine, theirs) = (rustix::fs::fstat(tree).step(what())?, rustix::fs::fstat(&target).step(what())?);
    if (mine.st_dev, mine.st_ino) == (theirs.st_dev, theirs.st_ino) {
        return Ok(());
    }
    if (FileType::from_raw_mode(theirs.st_mode) == FileType::Directory) != (kind == FileType::Directory) {
        return Err(odd(&what(), "one is a directory and the other is not"));
    }
    let filesystem = rustix::fs::fstatfs(&target).step(what())?.f_type;
    if KERNEL.contains(&filesystem) {
        return Err(odd(&what(), "that is a filesystem of the kernel's"));
    }
    mount::attach(tree, &target, "").step(what())
}

/// Takes the mount at `path` away; none is success.
fn detach(root: &OwnedFd, path: &str) -> Result<(), Failure> {
    let what = || format!("take away the mount at `{path}`");
    let (parent, name) = match parent(root, path, false) {
        // The guest took away what it was mounted on: then the mount went with it.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        other => other.step(what())?,
    };
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let about = match rustix::fs::statx(&parent, name, flags, StatxFlags::TYPE) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.step(what())?,
    };
    if !about.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(());
    }
    rustix::process::fchdir(&parent).step(what())?;
    match mount::detach(name) {
        // The guest was faster.
        Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(()),
        other => other.step(what()),
    }
}

/// The directory that holds `path` inside, and the last name. The guest may change all of it meanwhile:
/// whatever links it lays, they are followed within its own root.
fn parent<'a>(root: &OwnedFd, path: &'a str, missing: bool) -> Result<(OwnedFd, &'a str), Errno> {
    let mut names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    let last = names.pop().ok_or(Errno::INVAL)?;
    let mut at = inside(root, ".", ResolveFlags::empty())?;
    let mut so_far = String::new();
    for name in names {
        so_far.push('/');
        so_far.push_str(name);
        at = match inside(root, &so_far, ResolveFlags::empty()) {
            Err(Errno::NOENT) if missing => {
                make(&at, name, FileType::Directory)?;
                inside(&at, name, ResolveFlags::NO_SYMLINKS)?
            }
            other => other?,
        };
    }
    Ok((at, last))
}

fn inside(dir: &OwnedFd, path: &str, more: ResolveFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut left = TRIES;
    loop {
        match rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if left > 0 => left -= 1,
            other => return other,
        }
    }
}

/// Makes something to mount on; what is there already stays.
fn make(dir: &OwnedFd, name: &str, kind: FileType) -> Result<(), Errno> {
    let made = if kind == FileType::Directory {
        rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755))
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644)).map(drop)
    };
    match made {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}
