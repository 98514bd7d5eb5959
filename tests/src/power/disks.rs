//! The disks: loop devices on image files that lie on an XFS, so that copying one is a matter of a reflink. What
//! only the page cache of the disk's own filesystem has is not in the copy, as after a power cut.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::cli::{Outcome, host};
use crate::daemon::{PLACE, PREFIX};
use crate::subject::pids;
use crate::wait::until_true;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A filesystem under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
            Kind::Btrfs => "btrfs",
        }
    }

    fn make(self, image: &Path) {
        let image = image.display().to_string();
        let words: &[&str] = match self {
            Kind::Ext4 => &["mkfs.ext4", "-q", "-F", &image],
            Kind::Xfs => &["mkfs.xfs", "-q", "-f", &image],
            Kind::Btrfs => &["mkfs.btrfs", "-q", "-f", &image],
        };
        host(words).ok();
    }

    fn options(self) -> &'static str {
        match self {
            // Its copies have the same name, and are mounted one after another.
            Kind::Xfs => "loop,nouuid",
            Kind::Ext4 | Kind::Btrfs => "loop",
        }
    }
}

/// Which of the two disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one with the daemon's directory.
    State,
    /// The one with a pool that was given a directory elsewhere.
    Pool,
}

/// Two disks in the memory of the host: one for the daemon's directory, one for a pool. Dropping them takes all
/// away, copies too.
pub struct Disks {
    base: PathBuf,
    kinds: [(Which, Kind); 2],
}

impl Which {
    fn name(self) -> &'static str {
        match self {
            Which::State => "state",
            Which::Pool => "pool",
        }
    }
}

impl Disks {
    /// Makes and mounts them.
    ///
    /// # Panics
    /// When the host has no loop devices, or lacks mkfs.xfs (package xfsprogs), mkfs.ext4 or mkfs.btrfs.
    #[must_use]
    pub fn new(state: Kind, pool: Kind) -> Disks {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let base = Path::new(PLACE).join(format!("{PREFIX}{}-power{number}", std::process::id()));
        let disks = Disks { base, kinds: [(Which::State, state), (Which::Pool, pool)] };
        for place in ["", "ram", "host", "state", "pool"] {
            std::fs::create_dir(disks.base.join(place)).expect("a directory for the disks");
        }
        mount("tmpfs", "size=3g", Path::new("tmpfs"), &disks.base.join("ram"));
        let outer = disks.base.join("ram/host.img");
        sparse(&outer, 8 << 30);
        host(&["mkfs.xfs", "-q", "-m", "reflink=1", &outer.display().to_string()]).ok();
        mount("xfs", "loop", &outer, &disks.base.join("host"));
        for (which, kind) in disks.kinds {
            let image = disks.image(which, None);
            sparse(&image, 1 << 30);
            kind.make(&image);
        }
        disks.mount(None);
        disks
    }

    /// Where a disk is mounted.
    #[must_use]
    pub fn place(&self, which: Which) -> PathBuf {
        self.base.join(which.name())
    }

    fn image(&self, which: Which, copy: Option<usize>) -> PathBuf {
        let name = which.name();
        let file = copy.map_or_else(|| format!("{name}.img"), |copy| format!("{name}-{copy}.img"));
        self.base.join("host").join(file)
    }

    /// Copies both disks as they are now, without what has not reached them.
    ///
    /// # Panics
    /// When the host has no more memory for it.
    pub fn copy(&self, number: usize) {
        for (which, _) in self.kinds {
            let from = File::open(self.image(which, None)).expect("the disk's image");
            let to = File::create(self.image(which, Some(number))).expect("a file for the copy");
            rustix::fs::ioctl_ficlone(&to, &from).expect("a reflink on XFS");
        }
    }

    /// Removes a copy.
    pub fn forget(&self, number: usize) {
        for (which, _) in self.kinds {
            let _ = std::fs::remove_file(self.image(which, Some(number)));
        }
    }

    /// Mounts the disks themselves, or that copy of them.
    ///
    /// # Panics
    /// When one cannot be mounted, as it must be after any power cut.
    pub fn mount(&self, copy: Option<usize>) {
        for (which, kind) in self.kinds {
            mount(kind.name(), kind.options(), &self.image(which, copy), &self.place(which));
        }
    }

    /// Unmounts both, which flushes them.
    ///
    /// # Panics
    /// When somebody still uses one after 10 seconds.
    pub fn unmount(&self) {
        for (which, kind) in self.kinds {
            let place = self.place(which).display().to_string();
            let device = host(&["findmnt", "-n", "-o", "SOURCE", &place]).ok();
            until_true(&format!("{place} to be unmounted"), 10, || host(&["umount", &place]).code == 0);
            // Another process may have it in its view for a moment.
            let own = self.base.display().to_string();
            let backing = device.replace("/dev/", "/sys/block/") + "/loop/backing_file";
            let deadline = Instant::now() + Duration::from_secs(10);
            while std::fs::read_to_string(&backing).is_ok_and(|file| file.starts_with(&own)) {
                assert!(
                    Instant::now() < deadline,
                    "{device} is still in use: {}",
                    holders(&place).join(", ")
                );
                std::thread::park_timeout(Duration::from_millis(10));
            }
            // Devices by the same name of the filesystem come and go; it must not remember this one.
            if kind == Kind::Btrfs {
                let _ = host(&["btrfs", "device", "scan", "--forget", &device]);
            }
        }
    }

    /// Ends a filesystem at once: nothing more reaches its disk, and whoever writes is told of an error.
    /// `log` says whether what is in its log is written first.
    ///
    /// # Panics
    /// When it is neither ext4 nor XFS, or xfs_io is missing (package xfsprogs).
    pub fn shut_down(&self, which: Which, log: bool) {
        let place = self.place(which).display().to_string();
        let how = if log { "shutdown -f" } else { "shutdown" };
        host(&["xfs_io", "-x", "-c", how, &place]).ok();
    }
}

/// The processes that have something mounted there in their view.
fn holders(place: &str) -> Vec<String> {
    let seen = pids().filter(|pid| {
        let table = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        table.lines().any(|line| line.split(' ').nth(4) == Some(place))
    });
    let line =
        |pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
    seen.map(|pid| format!("{pid} ({})", line(pid))).collect()
}

fn sparse(path: &Path, bytes: u64) {
    File::create(path).and_then(|file| file.set_len(bytes)).expect("an image file");
}

fn mount(kind: &str, options: &str, from: &Path, to: &Path) {
    let (from, to) = (from.display().to_string(), to.display().to_string());
    host(&["mount", "-t", kind, "-o", options, &from, &to]).ok();
}

impl Drop for Disks {
    fn drop(&mut self) {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = self.base.display().to_string();
        let points = table.lines().rev().filter_map(|line| line.split(' ').nth(4));
        for point in points.filter(|point| point.starts_with(&own)) {
            let gone: Outcome = host(&["umount", point]);
            if gone.code != 0 {
                let _ = host(&["umount", "--lazy", point]);
            }
        }
        let _ = host(&["rm", "-rf", "--one-file-system", &own]);
    }
}
