//! Small disks that a test makes for a daemon: filled to the last block or the last inode, made read-only.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cli::host;
use crate::daemon::PLACE;
use crate::wait::until_true;

const OPTIONS: &str = "loop,errors=remount-ro";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A filesystem on a loop device. Dropping it takes it away.
pub struct Disk {
    place: PathBuf,
    mounted: bool,
}

impl Disk {
    /// Makes one of that many MiB. `inodes` limits how many files there can be.
    ///
    /// # Panics
    /// When it cannot be made: mkfs.ext4 (package e2fsprogs), loop devices.
    #[must_use]
    pub fn new(megabytes: u64, inodes: Option<u32>) -> Disk {
        let (disk, path) = Disk::raw(megabytes);
        let count = inodes.map(|count| count.to_string());
        let mut words = vec!["mkfs.ext4", "-q", "-F", "-m", "0"];
        words.extend(count.iter().flat_map(|count| ["-N", count.as_str()]));
        words.push(&path);
        host(&words).ok();
        host(&["mount", "-o", OPTIONS, &path, &disk.place.display().to_string()]).ok();
        disk
    }

    /// A btrfs of that many MiB.
    ///
    /// # Panics
    /// When it cannot be made: mkfs.btrfs (package btrfs-progs), loop devices.
    #[must_use]
    pub fn btrfs(megabytes: u64) -> Disk {
        Disk::formatted("btrfs", megabytes)
    }

    /// An xfs of that many MiB, at least 300.
    ///
    /// # Panics
    /// When it cannot be made: mkfs.xfs (package xfsprogs), loop devices.
    #[must_use]
    pub fn xfs(megabytes: u64) -> Disk {
        Disk::formatted("xfs", megabytes)
    }

    /// One in memory, with these options of tmpfs (`size=8m`, `nr_inodes=200`).
    ///
    /// # Panics
    /// When it cannot be mounted.
    #[must_use]
    pub fn memory(options: &str) -> Disk {
        let disk = Disk { place: unused(), mounted: true };
        std::fs::create_dir(&disk.place).expect("a mount point");
        host(&["mount", "-t", "tmpfs", "-o", options, "none", &disk.place.display().to_string()]).ok();
        disk
    }

    fn formatted(kind: &str, megabytes: u64) -> Disk {
        let (disk, path) = Disk::raw(megabytes);
        host(&[&format!("mkfs.{kind}"), "-q", &path]).ok();
        host(&["mount", "-o", "loop", &path, &disk.place.display().to_string()]).ok();
        disk
    }

    /// One of that many MiB, `ext4` or `xfs`, that holds limits by project quotas; none where the kernel mounts none so.
    ///
    /// # Panics
    /// When it cannot be made: mkfs.ext4 (package e2fsprogs), mkfs.xfs (package xfsprogs), loop devices.
    #[must_use]
    pub fn counted(kind: &str, megabytes: u64) -> Option<Disk> {
        let (mut disk, path) = Disk::raw(megabytes);
        let place = disk.place.display().to_string();
        let options: &[&str] = if kind == "ext4" { &["-O", "project,quota"] } else { &[] };
        host(&[&[&*format!("mkfs.{kind}"), "-q"], options, &[&*path]].concat()).ok();
        disk.mounted = host(&["mount", "-o", "loop,prjquota", &path, &place]).code == 0;
        disk.mounted.then_some(disk)
    }

    /// A file that is to become one, and its path.
    fn raw(megabytes: u64) -> (Disk, String) {
        let disk = Disk { place: unused(), mounted: true };
        let image = disk.image();
        let file = File::create(&image).expect("an image file");
        file.set_len(megabytes << 20).expect("its size");
        std::fs::create_dir(&disk.place).expect("a mount point");
        (disk, image.display().to_string())
    }

    /// Where it is mounted.
    #[must_use]
    pub fn place(&self) -> &Path {
        &self.place
    }

    fn image(&self) -> PathBuf {
        self.place.with_extension("img")
    }

    fn filler(&self) -> PathBuf {
        self.place.join("filler")
    }

    /// Takes every block that is left.
    ///
    /// # Panics
    /// When it does not end with a full disk.
    pub fn fill(&self) {
        let file = File::options().create(true).append(true).open(self.filler()).expect("a filler");
        let mut end = file.metadata().expect("its size").len();
        // What the journal still holds back is free only once it is written.
        for _ in 0..3 {
            host(&["sync", "-f", &self.place.display().to_string()]).ok();
            for size in [16 << 20, 1 << 20, 64 << 10, 4096] {
                loop {
                    match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), end, size) {
                        Ok(()) => end += size,
                        Err(rustix::io::Errno::NOSPC) => break,
                        Err(why) => panic!("cannot fill the disk: {why}"),
                    }
                }
            }
        }
    }

    /// Whether nothing but root's last block is left.
    ///
    /// # Panics
    /// When it cannot be measured.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let found = rustix::fs::statvfs(&self.place).expect("its numbers");
        found.f_bavail < 64 || found.f_ffree == 0
    }

    /// Makes files until there is not one inode left.
    ///
    /// # Panics
    /// When it does not end with a full disk.
    pub fn fill_inodes(&self) {
        let dir = self.place.join("files");
        std::fs::create_dir_all(&dir).expect("a directory for the files");
        let full = (0..).map(|number| File::create(dir.join(format!("{number}")))).find_map(Result::err);
        assert_eq!(full.map(|why| why.kind()), Some(std::io::ErrorKind::StorageFull));
    }

    /// Takes away what filled it.
    ///
    /// # Panics
    /// When that cannot be removed.
    pub fn free(&self) {
        for path in [self.filler(), self.place.join("files")] {
            host(&["rm", "-rf", &path.display().to_string()]).ok();
        }
    }

    /// Has the kernel find an error on it: it makes the disk read-only, as its mount options say.
    ///
    /// # Panics
    /// When the kernel has no such switch.
    pub fn break_down(&self) {
        let device = host(&["findmnt", "-no", "SOURCE", &self.place.display().to_string()]).ok();
        let name = device.trim().trim_start_matches("/dev/");
        std::fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "a test").expect("the switch");
    }

    /// Checks it and mounts it again. Nothing may use it any more.
    ///
    /// # Panics
    /// When it cannot be mended.
    pub fn mend(&self) {
        self.away(|| {
            // 1: errors were corrected.
            let checked = host(&["e2fsck", "-f", "-p", &self.image().display().to_string()]);
            assert!(checked.code <= 1, "{}{}", checked.out, checked.err);
        });
    }

    /// Does that while it is not mounted. Nothing may use it any more.
    ///
    /// # Panics
    /// When it cannot be taken away or mounted again.
    pub fn away<T>(&self, act: impl FnOnce() -> T) -> T {
        let (image, place) = (self.image().display().to_string(), self.place.display().to_string());
        // The kernel lets go of the mounts of one that was killed a moment after its end.
        until_true("the disk to be free", 20, || host(&["umount", &place]).code == 0);
        let done = act();
        host(&["mount", "-o", OPTIONS, &image, &place]).ok();
        done
    }

    /// Makes a directory on a btrfs that [`seal`] can make read-only.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn sealable(&self, name: &str) -> PathBuf {
        let path = self.place.join(name);
        host(&["btrfs", "subvolume", "create", &path.display().to_string()]).ok();
        path
    }

    /// Mounts it anew with that option (`ro`, `rw`). Nobody may have a file open for writing.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn remount(&self, how: &str) {
        host(&["mount", "-o", &format!("remount,{how}"), &self.place.display().to_string()]).ok();
    }
}

/// Makes everything below a directory of [`Disk::sealable`] read-only at once, whoever has what open, or writable again.
///
/// # Panics
/// When the kernel refuses.
pub fn seal(path: &Path, is_sealed: bool) {
    let value = is_sealed.to_string();
    host(&["btrfs", "property", "set", "-f", "-ts", &path.display().to_string(), "ro", &value]).ok();
}

/// A place that no disk has had.
fn unused() -> PathBuf {
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    Path::new(PLACE).join(format!("cabin-disk-{}-{number}", std::process::id()))
}

impl Drop for Disk {
    fn drop(&mut self) {
        let place = self.place.display().to_string();
        let gone = self.mounted.then(|| host(&["umount", &place])).filter(|gone| gone.code != 0);
        if gone.is_some() {
            let _ = host(&["umount", "--lazy", &place]);
        }
        let _ = std::fs::remove_file(self.image());
        let _ = std::fs::remove_dir(&self.place);
        let said = gone.map(|gone| gone.err);
        assert!(said.is_none() || std::thread::panicking(), "something still uses {place}: {said:?}");
    }
}
