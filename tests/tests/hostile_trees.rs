//! What lies in a container's tree, and what it does to it meanwhile, leads no verb out of it: ways out of every kind
//! stand in the tree, directories and ways out change places all the time, and snapshots, copies, exports, images,
//! restores and deletes go on. What the ways lead to on the host must be untouched, and no copy may hold it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cabin_tests::disk::Disk;
use cabin_tests::lab::Lab;
use cabin_tests::machine;
use serde_json::json;

/// What stands in the host's files that no guest may read.
const SECRET: &str = "cabin-canary: of the host alone";

/// Mode, owner, links, time of change and content of each file.
type Files = BTreeMap<PathBuf, (u32, u32, u64, i64, i64, Vec<u8>)>;

/// The host's files that the ways out lead to.
struct Canary(PathBuf);

impl Canary {
    fn new() -> Canary {
        let dir = PathBuf::from(format!("/var/tmp/cabin-canary-{}", std::process::id()));
        fs::create_dir_all(dir.join("deep/er")).expect("a directory");
        for file in ["secret", "deep/secret", "deep/er/secret"] {
            fs::write(dir.join(file), SECRET).expect("a file");
        }
        Canary(dir)
    }

    /// All of it, as it is now.
    fn now(&self) -> Files {
        let mut found = BTreeMap::new();
        let mut next = vec![self.0.clone()];
        while let Some(path) = next.pop() {
            let about = fs::symlink_metadata(&path).expect("what is there");
            let content = if about.is_file() { fs::read(&path).expect("a file") } else { Vec::new() };
            if about.is_dir() {
                next.extend(fs::read_dir(&path).expect("a directory").map(|it| it.expect("an entry").path()));
            }
            let what = (about.mode(), about.uid(), about.nlink(), about.ctime(), about.ctime_nsec(), content);
            found.insert(path, what);
        }
        found
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Makes the tree: `$C` is the canary's directory.
const TREE: &str = r#"
set -e
mkdir -p /srv/ways /srv/was/deep/er
cd /srv/ways
ln -s $C abs; ln -s ../../../../../../../../../..$C up; ln -s $C/secret file; ln -s /proc/self/root$C proc
ln -s /proc/1/root$C init; ln -s abs again; ln abs twice; ln -s . here; ln -s loop loop; ln -s "" empty 2>/dev/null || true
for name in "new
line" "-rf" "..." "*" "$(printf '%0255d' 7)" "$(printf '\303\050')" .wh.abs .wh..wh..opq; do ln -s $C "./$name"; done
mkfifo pipe; mknod whiteout c 0 0 2>/dev/null || true; echo x >set; chmod 6755 set; truncate -s 64M sparse
deep=.; for n in $(seq 1 200); do deep=$deep/d; done; mkdir -p $deep; ln -s $C $deep/out
mkdir -p /srv/x/deep/er /srv/z/deep/er
for dir in /srv/was /srv/x /srv/z; do for file in secret deep/secret deep/er/secret; do echo guest >$dir/$file; done; done
ln -s $C /srv/y; ln -s ../..$C /srv/w
/root/cabin-bomb exchange /srv/x /srv/y >/dev/null 2>&1 &
/root/cabin-bomb exchange /srv/z /srv/w >/dev/null 2>&1 &
"#;

/// One pool's containers, and the pool that copies go to.
struct Trial<'a> {
    lab: &'a Lab,
    canary: &'a Canary,
    pool: &'a str,
    other: &'a str,
    before: Files,
}

impl Trial<'_> {
    fn verb(&self, words: &[&str]) {
        self.lab.cabin(words).ok();
        assert_eq!(self.canary.now(), self.before, "pool {}, after {words:?}", self.pool);
    }

    /// A packed tree holds the ways, and not what is at their ends.
    fn holds_no_secret(&self, file: &Path) {
        let bytes = fs::read(file).expect("a file");
        let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(has("srv/ways/abs") && !has(SECRET), "pool {}: `{}`", self.pool, file.display());
        fs::remove_file(file).expect("a file");
    }

    fn guest(&self, name: &str, script: &str) -> String {
        let script = format!("C={}; {script}", self.canary.0.display());
        self.lab.exec(name, &["sh", "-c", &script]).ok()
    }

    fn run(&self, rounds: usize) {
        let (name, twin) = (format!("evil-{}", self.pool), format!("twin-{}", self.pool));
        let (evil, twin) = (name.as_str(), twin.as_str());
        self.lab.launch("busybox", evil, &["-s", self.pool]);
        arm(self.lab, evil);
        self.guest(evil, TREE);
        let packed = self.lab.dir.join(format!("{evil}.tar"));
        let file = packed.display().to_string();
        for round in 0..rounds {
            let snap = format!("s{round}");
            let from = format!("{evil}/{snap}");
            self.verb(&["snapshot", "create", evil, &snap]);
            self.verb(&["copy", evil, twin, "-s", self.other, "--instance-only"]);
            // Where the copy has a directory the other has a way out now, and the other way round.
            self.guest(evil, "mv /srv/was /srv/is; ln -s $C /srv/was");
            self.verb(&["copy", evil, twin, "--refresh", "--instance-only"]);
            self.guest(evil, "rm /srv/was; mv /srv/is /srv/was");
            self.verb(&["copy", evil, twin, "--refresh", "--instance-only"]);
            self.verb(&["delete", twin]);
            self.verb(&["copy", &from, twin, "-s", self.pool]);
            self.verb(&["snapshot", "create", twin, "s"]);
            self.verb(&["snapshot", "restore", twin, "s"]);
            self.verb(&["move", twin, "-s", self.other]);
            self.verb(&["delete", twin]);
            self.verb(&["export", evil, &file, "--compression", "none"]);
            self.holds_no_secret(&packed);
            self.verb(&["publish", &from, "--alias", twin, "--compression", "none"]);
            // Which names its file by what it is.
            self.verb(&["image", "export", twin, file.trim_end_matches(".tar")]);
            self.holds_no_secret(&packed);
            self.verb(&["image", "delete", twin]);
            self.verb(&["diff", &from]);
            let places = "d=; w=; n=0; until [ $d$w = dw ] || [ $n -gt 300000 ]; do \
                          if test -L /srv/x; then w=w; else d=d; fi; n=$((n+1)); done; echo $d$w";
            assert_eq!(self.guest(evil, places).trim(), "dw", "they do not change places");
        }
        self.verb(&["snapshot", "restore", evil, "s0"]);
        self.verb(&["delete", "-f", evil]);
    }
}

#[test]
fn a_hostile_tree_leads_no_verb_out() {
    let disk = Disk::btrfs(2048);
    let lab = Lab::own();
    lab.image("busybox");
    lab.cabin(&["storage", "create", "plain", "dir"]).ok();
    lab.cabin(&["storage", "create", "sub", "btrfs", &format!("source={}", disk.place().display())]).ok();
    let canary = Canary::new();
    let rounds = if machine::has_time() { 10 } else { 1 };
    for (pool, other) in [("default", "plain"), ("plain", "sub"), ("sub", "default")] {
        Trial { lab: &lab, canary: &canary, pool, other, before: canary.now() }.run(rounds);
    }
    println!("hostile trees: {} rounds on 3 drivers", 3 * rounds);
}

/// Runs in a guest: one name is a directory, then a way out, then another, as fast as the kernel exchanges them.
const WAYS: &str = "mkdir -p /srv/a; cd /srv; for way in /../../../../.. /proc/self/root/.. /proc/1/root /etc; do \
     n=$((n+1)); ln -s $way w$n; /root/cabin-bomb exchange /srv/a /srv/w$n >/dev/null 2>&1 & done";

/// Gives a guest the program that exchanges names.
fn arm(lab: &Lab, name: &str) {
    let program = format!("{name}/root/cabin-bomb");
    lab.cabin(&["file", "push", "--mode", "755", env!("CARGO_BIN_EXE_cabin-bomb"), &program]).ok();
}

#[test]
fn links_that_a_guest_lays_lead_no_mount_out() {
    let lab = Lab::own();
    lab.image("busybox");
    lab.busybox("swap");
    lab.cabin(&["storage", "volume", "create", "default", "bait"]).ok();
    // Where the daemon and its helpers are, and what they see.
    let mounts = || {
        let daemon = lab.get("/1.0")["environment"]["server_pid"].as_u64().expect("a process");
        ["self".to_owned(), daemon.to_string()].map(|process| {
            let text = std::fs::read_to_string(format!("/proc/{process}/mountinfo")).expect("its mounts");
            text.lines().filter(|line| line.contains("x-cabin-swap")).count()
        })
    };
    // Where the ways lead from the host's point of view.
    let marks = ["/x-cabin-swap", "/etc/x-cabin-swap"];
    arm(&lab, "swap");
    lab.exec("swap", &["sh", "-c", WAYS]).ok();
    let device =
        json!({ "type": "disk", "pool": "default", "source": "bait", "path": "/srv/a/x-cabin-swap/y" });
    let (mut attached, mut refused) = (0, 0);
    let rounds = if machine::has_time() { 1000 } else { 60 };
    // Until both have met, which on a busy host takes more of them.
    while attached + refused < rounds || attached == 0 || refused == 0 {
        assert!(attached + refused < 20 * rounds, "{attached} attached, {refused} refused: they never met");
        let body = json!({ "devices": { "d": device } });
        // The guest may be in the way at any step; then nothing is changed.
        if lab.call("PATCH", "/1.0/instances/swap", Some(&body)).status == 200 {
            attached += 1;
            // A way out ends at the guest's own root.
            assert_ne!(lab.sh("swap", "grep -c x-cabin-swap /proc/mounts"), "0");
            let mut now = lab.get("/1.0/instances/swap");
            now["devices"].as_object_mut().expect("devices").remove("d");
            let done = lab.operate("PUT", "/1.0/instances/swap", &now);
            assert_eq!(done["status_code"], 200, "{done}");
        } else {
            refused += 1;
        }
        for mark in marks {
            assert!(!Path::new(mark).exists(), "{mark} was made on the host");
        }
        assert_eq!(mounts(), [0, 0], "mounted outside");
    }
    println!("attached {attached} times, refused {refused} times");
    assert_eq!(lab.status("swap"), "Running");
    lab.cabin(&["delete", "-f", "swap"]).ok();
    lab.cabin(&["storage", "volume", "delete", "default", "bait"]).ok();
}
