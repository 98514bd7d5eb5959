//! The real Incus 7 and LXD 5 of Debian, each with a root, mounts, processes, network and cgroups of its own, and
//! nothing installed on this host. The root is built once and kept in the cache; what a manager writes lies in a
//! directory that goes with it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::cli::{Outcome, host, run};
use crate::images::{self, CACHE, lock};
use crate::wait::{until, until_true};

/// What both need beside themselves.
const PROGRAMS: &str = "dnsmasq-base,iptables,nftables,btrfs-progs,squashfs-tools,iproute2,procps,zstd,xz-utils,bzip2,\
                        rsync,attr,acl,ca-certificates";

/// What runs as the first process of a manager's namespaces: `sh -c BEGIN begin DIR ROOT NAME STATE COMMAND`.
///
/// It enters a cgroup that is the root of all it can see, so that nobody can be taken for one of the host's, and makes
/// its root of the cached one, which stays as it is.
const BEGIN: &str = r#"
set -e
mkdir -p "$1/upper" "$1/work" "$1/root" "$1/cgroup" "$1/exchange" "$1/state"
mount -t cgroup2 none "$1/cgroup"
mkdir -p "$1/cgroup/$3/manager"
echo 0 >"$1/cgroup/$3/cgroup.procs"
exec unshare --cgroup sh -c '
set -e
echo 0 >"$1/cgroup/$3/manager/cgroup.procs"
umount "$1/cgroup"
mount -t overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
cd "$1/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 none sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mkdir -p exchange ".$4"
mount --bind "$1/exchange" exchange
mount --bind "$1/state" ".$4"
pivot_root . mnt
umount -l /mnt
ip link set lo up
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
$5 &
wait $!
' "$0" "$@"
"#;

/// The project whose instances lie in the pool of driver `dir`, with the images of the default one.
pub const ON_DIR: &str = "on-dir";

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Incus 7.0 of Debian sid.
    Incus,
    /// LXD 5.0 of Debian 12.
    Lxd,
}

impl Kind {
    /// Both.
    pub const ALL: [Kind; 2] = [Kind::Incus, Kind::Lxd];

    /// Its name, for people and paths.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Incus => "incus",
            Kind::Lxd => "lxd",
        }
    }

    /// The release of Debian that has it, and its packages.
    fn packages(self) -> (&'static str, &'static str) {
        match self {
            Kind::Incus => ("sid", "incus,incus-client"),
            Kind::Lxd => ("bookworm", "lxd,lxd-client"),
        }
    }

    /// Where it keeps its state, in its own root.
    fn state(self) -> &'static str {
        match self {
            Kind::Incus => "/var/lib/incus",
            Kind::Lxd => "/var/lib/lxd",
        }
    }

    fn daemon(self) -> &'static str {
        match self {
            Kind::Incus => "/usr/libexec/incus/incusd --group incus-admin --logfile /exchange/log",
            Kind::Lxd => "/usr/bin/lxd --group lxd --logfile /exchange/log",
        }
    }

    fn client(self) -> &'static str {
        match self {
            Kind::Incus => "/usr/bin/incus",
            Kind::Lxd => "/usr/bin/lxc",
        }
    }

    fn preseed(self) -> &'static str {
        match self {
            Kind::Incus => "incus admin init --preseed",
            Kind::Lxd => "lxd init --preseed",
        }
    }

    /// The root with it, built when it is not in the cache.
    ///
    /// # Panics
    /// When Debian's packages cannot be had.
    #[must_use]
    pub fn root(self) -> PathBuf {
        let (suite, packages) = self.packages();
        let place = Path::new(CACHE).join("peers").join(format!("{}-{suite}", self.name()));
        let (root, mark) = (place.join("root"), place.join("made-of"));
        let wanted = format!("{packages},{PROGRAMS}");
        let _lock = lock(&place.with_extension("lock"));
        if std::fs::read_to_string(&mark).is_ok_and(|made| made == wanted) {
            return root;
        }
        eprintln!("building a root with {} of Debian {suite} once, in {}", self.name(), place.display());
        host(&["rm", "-rf", "--one-file-system", &place.display().to_string()]).ok();
        std::fs::create_dir_all(&place).expect("a folder in the cache");
        let made = host(&[
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            "--aptopt=Acquire::Check-Valid-Until \"false\"",
            "--aptopt=Acquire::Retries \"3\"",
            "--aptopt=APT::Sandbox::User \"root\"",
            &format!("--include={wanted}"),
            // Its hooks for containers need controllers that a hybrid host does not have in cgroup2.
            "--customize-hook=rm -rf \"$1\"/usr/share/lxcfs \"$1\"/usr/share/lxc/config/common.conf.d/*lxcfs*",
            "--customize-hook=chroot \"$1\" groupadd --force incus-admin",
            suite,
            &root.display().to_string(),
        ]);
        assert!(
            made.code == 0,
            "a root with {} of Debian {suite} cannot be built (package mmdebstrap; deb.debian.org must be reached): {}",
            self.name(),
            made.err
        );
        std::fs::write(&mark, wanted).expect("a mark in the cache");
        root
    }
}

/// A manager that runs.
pub struct RealPeer {
    /// Which one.
    pub kind: Kind,
    dir: PathBuf,
    /// The process outside, which ends when the first one inside has.
    outer: u32,
    /// The same, when it was started here.
    child: Mutex<Option<Child>>,
}

impl RealPeer {
    /// Starts one with the pools `dir` and `btr`, a bridge, and a profile that uses `btr`. What it writes goes to `dir`,
    /// which it makes.
    ///
    /// # Panics
    /// When it cannot be built or started.
    #[must_use]
    pub fn start(kind: Kind, dir: &Path) -> RealPeer {
        let root = kind.root();
        std::fs::create_dir(dir).expect("a directory of its own");
        let said = File::create(dir.join("said")).expect("a log file");
        let child = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", BEGIN, "begin"])
            .args([dir.as_os_str(), root.as_os_str(), RealPeer::cgroup(dir).as_ref()])
            .args([kind.state(), kind.daemon()])
            .stdin(Stdio::null())
            .stdout(said.try_clone().expect("a second handle of the log"))
            .stderr(said)
            .spawn()
            .expect("unshare (package util-linux)");
        let manager = RealPeer { kind, dir: dir.to_owned(), outer: child.id(), child: Mutex::new(None) };
        std::fs::write(dir.join("pid"), child.id().to_string()).expect("a file with its pid");
        *manager.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        until_true(&format!("{} to answer", kind.name()), 60, || {
            manager.is_there() && manager.client(&["list"]).code == 0
        });
        let preseed = "storage_pools:\n- {name: dir, driver: dir}\n- {name: btr, driver: btrfs, config: {size: 20GiB}}\n\
                       networks:\n- {name: peerbr0, type: bridge, config: {ipv4.address: 10.79.0.1/24, ipv4.nat: 'false', \
                       ipv6.address: none}}\nprofiles:\n- name: default\n  devices:\n    root: {type: disk, path: /, pool: btr}\n    \
                       eth0: {type: nic, network: peerbr0, name: eth0}\n";
        manager.sh(&format!("cat >/tmp/preseed <<'E'\n{preseed}E\n{} </tmp/preseed", kind.preseed()));
        let client = kind.client();
        manager.sh(&format!(
            "{client} project create {ON_DIR} -c features.images=false -c features.profiles=true
             {client} --project {ON_DIR} profile device add default root disk path=/ pool=dir
             {client} --project {ON_DIR} profile device add default eth0 nic network=peerbr0 name=eth0"
        ));
        manager
    }

    /// One that another program started there, if it still runs.
    #[must_use]
    pub fn found(kind: Kind, dir: &Path) -> Option<RealPeer> {
        let outer = std::fs::read_to_string(dir.join("pid")).ok()?.trim().parse().ok()?;
        let manager = RealPeer { kind, dir: dir.to_owned(), outer, child: Mutex::new(None) };
        manager.first().map(|_| manager)
    }

    /// The name of its cgroup.
    fn cgroup(dir: &Path) -> String {
        dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Whether the process outside is still there, and not another one of its number. One that has just begun a program
    /// has no command line for a moment, and neither has one that ended and is not reaped.
    fn is_alive(&self) -> bool {
        let read = |file: &str| std::fs::read(format!("/proc/{}/{file}", self.outer)).unwrap_or_default();
        let line = read("cmdline");
        if line.is_empty() {
            let stat = String::from_utf8_lossy(&read("stat")).into_owned();
            return stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']));
        }
        String::from_utf8_lossy(&line).contains(&*self.dir.to_string_lossy())
    }

    /// The host's number of the first process inside.
    fn first(&self) -> Option<String> {
        if !self.is_alive() {
            return None;
        }
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.outer)).ok()?;
        children.split_whitespace().next().map(str::to_owned)
    }

    fn is_there(&self) -> bool {
        let said = || std::fs::read_to_string(self.dir.join("said")).unwrap_or_default();
        let log = || std::fs::read_to_string(self.dir.join("exchange/log")).unwrap_or_default();
        assert!(self.is_alive(), "{} ended:\n{}\n{}", self.kind.name(), said(), log());
        self.first().is_some() && self.dir.join("exchange/log").exists()
    }

    /// The words before those of its client.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn prefix(&self) -> Vec<String> {
        let first = self.first().expect("a manager that runs");
        let mut words: Vec<String> = ["nsenter", "--target", &first, "--mount", "--net", "--pid", "--cgroup"]
            .iter()
            .map(|&word| word.to_owned())
            .collect();
        words.extend(["/usr/bin/env", "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"].map(str::to_owned));
        words
    }

    /// The whole beginning of a command line for its client.
    #[must_use]
    pub fn client_prefix(&self) -> String {
        format!("{} {}", self.prefix().join(" "), self.kind.client())
    }

    fn inside(&self, words: &[&str]) -> Outcome {
        let prefix = self.prefix();
        run(Command::new(&prefix[0]).args(&prefix[1..]).args(words))
    }

    /// Its client with these words, for two minutes at most: LXD 5 has been seen to hang for ever in an import.
    pub fn client(&self, words: &[&str]) -> Outcome {
        self.inside(&[&["timeout", "--signal=KILL", "120", self.kind.client()], words].concat())
    }

    /// A shell script in its root: its output.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.inside(&["sh", "-ec", script]).ok()
    }

    /// Where a file of that name lies for the host and for the manager. Both may read and write it.
    #[must_use]
    pub fn exchange(&self, name: &str) -> (PathBuf, String) {
        (self.dir.join("exchange").join(name), format!("/exchange/{name}"))
    }

    /// Imports the files of an image under an alias.
    ///
    /// # Panics
    /// When it refuses.
    pub fn import(&self, alias: &str, files: &[PathBuf]) {
        let mut words = vec!["image".to_owned(), "import".to_owned()];
        for file in files {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let (here, there) = self.exchange(&name);
            std::fs::copy(file, here).expect("a copy of the image");
            words.push(there);
        }
        words.extend(["--alias".to_owned(), alias.to_owned()]);
        self.client(&words.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    }

    /// Imports one of our own images under its own name.
    pub fn image(&self, name: &str) {
        self.import(name, &images::files(name));
    }

    /// Ends it with all its containers, and removes what it wrote.
    ///
    /// # Panics
    /// When something of it stays.
    pub fn stop(&self) {
        if let Some(first) = self.first() {
            host(&["kill", "-KILL", &first]).ok();
        }
        if let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = child.wait();
        }
        // The first process is gone only when all others of its namespace are.
        until_true(&format!("{} to be gone", self.kind.name()), 60, || !self.is_alive());
        let dir = self.dir.display().to_string();
        let script = format!(
            "mount -t cgroup2 none {dir}/cgroup && if [ -d {dir}/cgroup/{0} ]; then find {dir}/cgroup/{0} -depth -type d -exec rmdir {{}} +; fi",
            RealPeer::cgroup(&self.dir)
        );
        until("its cgroups to be empty", 30, || {
            (host(&["unshare", "--mount", "sh", "-c", &script]).code == 0).then_some(())
        });
        until_true("its disks to be let go", 30, || {
            !host(&["losetup", "--all"]).out.contains(&dir)
                && !std::fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| mounts.contains(&dir))
        });
        until_true("its files to be removed", 30, || {
            host(&["rm", "-rf", "--one-file-system", &dir]).code == 0 && !self.dir.exists()
        });
    }
}
