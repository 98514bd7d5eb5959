//! The disks: loop devices on image files that lie on an XFS, so that copying one is a matter of a reflink. What
//! only the page cache of the disk's own filesystem has is not in the copy, as after a power cut.
//!
//! They are mounted in the view of a process of their own, where no other test's daemon sees them and so none
//! keeps them in use. All goes with that process, which goes with the test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::audit::pids;
use crate::cli::{Outcome, host};
use crate::daemon::{PLACE, PREFIX};
use crate::machine;
use crate::wait::until_true;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The host's registry of ids, which is on the disk with the daemon's directory.
const REGISTRY: &str = "/var/lib/cabin-ids";

/// Mounts of other tests that this view has too would be in use for as long as it is there.
const FORGET_OTHERS: &str =
    "for it in $(findmnt -rno TARGET | grep -E '^(/var/tmp/|/run/netns)' | sort -r); do
    umount -l $it 2>/dev/null; done; echo ready; read _";

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

    fn make(self) -> &'static [&'static str] {
        match self {
            Kind::Ext4 => &["mkfs.ext4", "-q", "-F"],
            Kind::Xfs => &["mkfs.xfs", "-q", "-f"],
            Kind::Btrfs => &["mkfs.btrfs", "-q", "-f"],
        }
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

impl Which {
    fn name(self) -> &'static str {
        match self {
            Which::State => "state",
            Which::Pool => "pool",
        }
    }
}

/// Two disks in the memory of the host: one for the daemon's directory, one for a pool. Dropping them takes all
/// away, copies too.
pub struct Disks {
    base: PathBuf,
    kinds: [(Which, Kind); 2],
    view: Child,
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
        for place in ["", "ram", "host", "state", "pool"] {
            std::fs::create_dir(base.join(place)).expect("a directory for the disks");
        }
        std::fs::create_dir_all(REGISTRY).expect("a place for the registry of ids");
        let mut view = Command::new("unshare")
            .args(["--mount", "sh", "-c", FORGET_OTHERS])
            // For whoever sweeps what an interrupted run left.
            .arg(&base)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (package util-linux)");
        let mut ready = [0];
        let said = view.stdout.as_mut().map(|out| std::io::Read::read(out, &mut ready));
        assert!(said.is_some_and(|said| said.is_ok_and(|bytes| bytes == 1)), "no view of its own");
        let disks = Disks { base, kinds: [(Which::State, state), (Which::Pool, pool)], view };
        disks.mount_one("tmpfs", "size=3g", Path::new("tmpfs"), "ram").expect("a tmpfs");
        let outer = disks.base.join("ram/host.img");
        disks.make(&["mkfs.xfs", "-q", "-m", "reflink=1"], &outer, 8 << 30);
        disks.mount_one("xfs", "loop", &outer, "host").expect("an XFS on a loop device");
        for (which, kind) in disks.kinds {
            disks.make(kind.make(), &disks.image(which, None), 1 << 30);
        }
        disks.mount(None).expect("new disks");
        disks
    }

    /// The process among whose mounts they are.
    #[must_use]
    pub fn view(&self) -> u32 {
        self.view.id()
    }

    /// Where a disk is mounted there.
    #[must_use]
    pub fn place(&self, which: Which) -> PathBuf {
        self.base.join(which.name())
    }

    fn image(&self, which: Which, copy: Option<usize>) -> PathBuf {
        let name = which.name();
        let file = copy.map_or_else(|| format!("{name}.img"), |copy| format!("{name}-{copy}.img"));
        self.base.join("host").join(file)
    }

    /// A path there as we reach it.
    fn reach(&self, path: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.view(), path.display()))
    }

    /// Runs a program there.
    fn inside(&self, words: &[&str]) -> Outcome {
        let view = format!("--mount=/proc/{}/ns/mnt", self.view());
        host(&[&["nsenter", &view], words].concat())
    }

    fn make(&self, words: &[&str], image: &Path, bytes: u64) {
        let made = File::create(self.reach(image)).and_then(|file| file.set_len(bytes));
        made.expect("an image file");
        self.inside(&[words, &[&image.display().to_string()]].concat()).ok();
    }

    fn mount_one(&self, kind: &str, options: &str, from: &Path, name: &str) -> Result<(), String> {
        let (from, to) = (from.display().to_string(), self.base.join(name).display().to_string());
        let mount = || self.inside(&["mount", "-t", kind, "-o", options, &from, &to]);
        // Where devices come and go, btrfs may be told to forget this one by whoever had its number before.
        let done = mount();
        let again = done.code != 0 && kind == "btrfs";
        let done = if again { mount() } else { done };
        if done.code == 0 { Ok(()) } else { Err(format!("{}: {}{}", done.line, done.out, done.err)) }
    }

    /// Copies both disks as they are now, without what has not reached them.
    ///
    /// # Panics
    /// When the host has no more memory for it.
    pub fn copy(&self, number: usize) {
        for (which, _) in self.kinds {
            let from = File::open(self.reach(&self.image(which, None))).expect("the disk's image");
            let to = File::create(self.reach(&self.image(which, Some(number)))).expect("a file for the copy");
            rustix::fs::ioctl_ficlone(&to, &from).expect("a reflink on XFS");
        }
    }

    /// Removes a copy.
    pub fn forget(&self, number: usize) {
        for (which, _) in self.kinds {
            let _ = std::fs::remove_file(self.reach(&self.image(which, Some(number))));
        }
    }

    /// Mounts the disks themselves, or that copy of them.
    ///
    /// # Errors
    /// When one cannot be mounted, as it must be after any power cut. Then none is.
    ///
    /// # Panics
    /// When the registry of ids cannot be put in its place.
    pub fn mount(&self, copy: Option<usize>) -> Result<(), String> {
        for (which, kind) in self.kinds {
            let done = self.mount_one(kind.name(), kind.options(), &self.image(which, copy), which.name());
            done.inspect_err(|_| self.unmount())?;
        }
        let ids = self.place(Which::State).join("ids").display().to_string();
        self.inside(&["mkdir", "-p", &ids]).ok();
        self.inside(&["mount", "--bind", &ids, REGISTRY]).ok();
        Ok(())
    }

    /// Unmounts both, which flushes them.
    ///
    /// # Panics
    /// When somebody still uses one after 10 seconds.
    pub fn unmount(&self) {
        let _ = self.inside(&["umount", REGISTRY]);
        for (which, _) in self.kinds {
            let place = self.place(which).display().to_string();
            // What the daemon has mounted below goes first.
            let found = self.inside(&["findmnt", "-rn", "-R", "-o", "TARGET,FSTYPE,SOURCE", &place]).out;
            for line in found.lines().rev() {
                let words: Vec<&str> = line.split(' ').collect();
                if let [at, kind, device] = words[..] {
                    self.unmount_one(at, kind, device);
                }
            }
        }
    }

    fn unmount_one(&self, at: &str, kind: &str, device: &str) {
        // Held, so that nobody else gets a device of that number before the kernel forgets what was on it.
        let held = File::open(device).ok();
        let before = number_of(device);
        until_true(&format!("{at} to be unmounted"), 10, || self.inside(&["umount", at]).code == 0);
        if kind == "btrfs" {
            // Others by the same name come, and of those it would take none that is older.
            let _ = host(&["btrfs", "device", "scan", "--forget", device]);
        }
        drop(held);
        // The device goes with the last view that has its filesystem, and with it what the kernel keeps of that.
        let deadline = Instant::now() + machine::time(Duration::from_secs(10));
        while before.is_some() && number_of(device) == before {
            assert!(Instant::now() < deadline, "{device} is still in use: {}", holders(at).join(", "));
            std::thread::park_timeout(Duration::from_millis(10));
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
        self.inside(&["xfs_io", "-x", "-c", how, &place]).ok();
    }
}

/// Which use of a loop device this is; `None` when it is not used.
fn number_of(device: &str) -> Option<String> {
    let place = device.replace("/dev/", "/sys/block/");
    std::fs::read_to_string(format!("{place}/loop/backing_file")).ok()?;
    std::fs::read_to_string(format!("{place}/diskseq")).ok()
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

impl Drop for Disks {
    fn drop(&mut self) {
        let _ = self.view.kill();
        let _ = self.view.wait();
        let _ = host(&["rm", "-rf", "--one-file-system", &self.base.display().to_string()]);
    }
}
