//! What the tests of this crate share: a storage of their own, a small image, a look at what is on disk.

#![allow(dead_code, clippy::disallowed_methods, clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cabin_storage::{DriverKind, Error, Layers, Pool, PoolSpec, Storage, VolumeName};
use cabin_sys::dir::HostDir;
use cabin_undo::{Undo, atomically};

pub const IMAGE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
pub const DRIVERS: [DriverKind; 3] = [DriverKind::Overlay, DriverKind::Dir, DriverKind::Btrfs];

/// A driver and the filesystem its pool lies on.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub driver: DriverKind,
    /// One of its own; none is whatever the tests lie on.
    pub ground: Option<&'static str>,
}

/// Every driver, on what the tests lie on and where it can share blocks.
pub const SETUPS: [Setup; 7] = [
    Setup { driver: DriverKind::Overlay, ground: None },
    Setup { driver: DriverKind::Overlay, ground: Some("xfs") },
    Setup { driver: DriverKind::Overlay, ground: Some("btrfs") },
    Setup { driver: DriverKind::Dir, ground: None },
    Setup { driver: DriverKind::Dir, ground: Some("xfs") },
    Setup { driver: DriverKind::Dir, ground: Some("btrfs") },
    Setup { driver: DriverKind::Btrfs, ground: Some("btrfs") },
];

impl From<DriverKind> for Setup {
    fn from(driver: DriverKind) -> Setup {
        Setup { driver, ground: (driver == DriverKind::Btrfs).then_some("btrfs") }
    }
}

/// A daemon's directory of a test's own with one pool, gone with it.
pub struct World {
    _disk: Option<Disk>,
    pub dir: tempfile::TempDir,
    pub storage: Storage,
    pub spec: PoolSpec,
    pub pool: Arc<Pool>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let magic = rustix::fs::statfs(self.dir.path()).map_or(0, |seen| seen.f_type);
        write!(f, "{:?} on filesystem {magic:#x}", self.pool.driver())
    }
}

pub fn world(setup: impl Into<Setup>) -> World {
    let Setup { driver, ground } = setup.into();
    build(driver, |at| Some(ground.map(|kind| Disk::new(kind, at)))).unwrap()
}

/// The drivers whose limits are project quotas, on each filesystem that may keep them.
pub const COUNTED: [(DriverKind, &str); 4] = [
    (DriverKind::Overlay, "ext4"),
    (DriverKind::Overlay, "xfs"),
    (DriverKind::Dir, "ext4"),
    (DriverKind::Dir, "xfs"),
];

/// A world with an image on a filesystem of this kind that holds limits by project quotas; none where the kernel mounts
/// none so.
pub fn counted(driver: DriverKind, kind: &str) -> Option<World> {
    let options: &[&str] = if kind == "ext4" { &["-O", "project,quota"] } else { &[] };
    let world = build(driver, |at| Disk::with(kind, options, "loop,prjquota", at).ok().map(Some))?;
    done(|undo| world.pool.create_image(IMAGE, fill, undo));
    Some(world)
}

/// Waits until the filesystem of a world remembers nothing of volumes: xfs counts what was removed off behind our back.
pub fn forgotten(world: &World, told: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !ids(world).is_empty() {
        assert!(std::time::Instant::now() < deadline, "{world:?}, {told}: {:?}", ids(world));
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
}

/// The ids of volumes of which the filesystem of a world remembers something.
pub fn ids(world: &World) -> Vec<u32> {
    let mut ids = cabin_sys::project::ids(HostDir::open(world.dir.path()).unwrap()).unwrap();
    ids.retain(|id| *id >= 1 << 30);
    ids
}

/// A world whose directory lies on what `ground` mounts there.
pub fn build(driver: DriverKind, ground: impl FnOnce(&Path) -> Option<Option<Disk>>) -> Option<World> {
    assert!(rustix::process::geteuid().is_root(), "these tests need root: run them with sudo");
    let name = format!("cabin-storage-{}-", std::process::id());
    let dir = tempfile::Builder::new().prefix(&name).tempdir_in("/var/tmp").unwrap();
    let disk = ground(dir.path())?;
    let storage = Storage::new(dir.path()).unwrap();
    let spec = PoolSpec { name: "fast".into(), driver, source: storage.default_source("fast"), disk: None };
    let pool = done(|undo| storage.create_pool(&spec, undo));
    Some(World { _disk: disk, dir, storage, spec, pool })
}

/// A filesystem in a file that has no name any more, mounted for one test.
pub struct Disk(PathBuf);

impl Disk {
    pub fn new(kind: &str, at: &Path) -> Disk {
        Disk::with(kind, &[], "loop", at).unwrap()
    }

    /// One made and mounted with options; what mount said when it does not.
    pub fn with(kind: &str, options: &[&str], mounted: &str, at: &Path) -> Result<Disk, String> {
        let file = at.with_extension("img");
        std::fs::File::create(&file).unwrap().set_len(600 << 20).unwrap();
        let name = file.to_str().unwrap();
        run(&format!("mkfs.{kind}"), &[&["-q"], options, &[name]].concat()).unwrap();
        let done = run("mount", &["-o", mounted, name, at.to_str().unwrap()]);
        std::fs::remove_file(&file).unwrap();
        done.map(|()| Disk(at.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Open directories of the test may still be in it.
        let _ = cabin_sys::mount::detach(&self.0);
    }
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let done = std::process::Command::new(program).args(args).output();
    let done = done.unwrap_or_else(|e| {
        panic!("{program} is needed (packages btrfs-progs, e2fsprogs, xfsprogs, mount): {e}")
    });
    let said = format!("{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    if done.status.success() { Ok(()) } else { Err(said) }
}

/// A change that must succeed.
pub fn done<T>(work: impl FnOnce(&mut Undo) -> Result<T, Error>) -> T {
    atomically(work).unwrap()
}

/// A change that must fail and be taken back wholly.
pub fn refused<T: std::fmt::Debug>(work: impl FnOnce(&mut Undo) -> Result<T, Error>) -> Error {
    let failed = atomically(work).unwrap_err();
    assert!(failed.left_behind.is_empty(), "{:?}", failed.left_behind);
    failed.cause
}

/// Fills an image with a few files; its root is group 7's, sticky, with an attribute.
pub fn fill(tree: &HostDir) -> Result<(), Error> {
    let root = tree.path();
    std::fs::create_dir_all(root.join("usr/bin")).unwrap();
    std::fs::write(root.join("usr/bin/init"), vec![1; 100_000]).unwrap();
    std::fs::set_permissions(root.join("usr/bin/init"), std::fs::Permissions::from_mode(0o4755)).unwrap();
    std::fs::hard_link(root.join("usr/bin/init"), root.join("usr/bin/again")).unwrap();
    symlink("usr/bin", root.join("bin")).unwrap();
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/old"), b"old").unwrap();
    std::fs::create_dir_all(root.join("var/lib")).unwrap();
    std::fs::write(root.join("var/lib/data"), b"data").unwrap();
    std::fs::write(root.join("mine"), b"1000's").unwrap();
    chown(root.join("mine"), Some(1000), Some(1000)).unwrap();
    rustix::fs::setxattr(root, "user.note", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
    chown(root, Some(0), Some(7)).unwrap();
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o1775)).unwrap();
    Ok(())
}

pub fn with_image(setup: impl Into<Setup>) -> World {
    let world = world(setup);
    done(|undo| world.pool.create_image(IMAGE, fill, undo));
    world
}

/// Every path beneath a directory.
pub fn paths(root: &Path) -> BTreeSet<PathBuf> {
    let mut seen = BTreeSet::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        if path.symlink_metadata().unwrap().is_dir() {
            for entry in std::fs::read_dir(&path).unwrap() {
                open.push(entry.unwrap().path());
            }
        }
        seen.insert(path.strip_prefix(root).unwrap().to_owned());
    }
    seen
}

/// A volume as a container would see it, until this is dropped.
pub struct Mounted {
    pub root: PathBuf,
    mounted: bool,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted {
            let _ = cabin_sys::mount::detach(&self.root);
        }
    }
}

/// Mounts a volume as the runtime does.
pub fn mount(world: &World, volume: &VolumeName) -> Mounted {
    mount_of(&world.pool, world, volume)
}

/// As [`mount`], of another pool of this world.
pub fn mount_of(pool: &Pool, world: &World, volume: &VolumeName) -> Mounted {
    match pool.layers(volume).unwrap() {
        Layers::Dir { path } => Mounted { root: path, mounted: false },
        Layers::Overlay { lowers, state } => {
            let root = world.dir.path().join(format!("mnt-{}-{}", pool.name(), volume.name()));
            std::fs::create_dir_all(&root).unwrap();
            let stage = world.dir.path().join(format!("stage-{}-{}", pool.name(), volume.name()));
            let _ = std::fs::remove_dir_all(&stage);
            std::fs::create_dir(&stage).unwrap();
            // Short names, as the kernel takes no long list.
            let mut list = Vec::new();
            for (number, lower) in lowers.iter().enumerate() {
                let name = stage.join(number.to_string());
                symlink(lower, &name).unwrap();
                list.push(name.display().to_string());
            }
            let options = format!(
                "lowerdir={},upperdir={},workdir={},metacopy=off,redirect_dir=nofollow,index=off",
                list.join(":"),
                state.join("u").display(),
                state.join("w").display()
            );
            let options = CString::new(options).unwrap();
            let flags = rustix::mount::MountFlags::empty();
            cabin_sys::mount::mount(Path::new("overlay"), &root, "overlay", flags, &options).unwrap();
            Mounted { root, mounted: true }
        }
    }
}
