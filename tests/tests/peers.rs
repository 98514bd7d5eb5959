//! The real Incus 7 and LXD 5 of Debian: what they export is taken in and boots here, and the other way round.

use std::path::{Path, PathBuf};

use cabin_tests::daemon::{PLACE, PREFIX};
use cabin_tests::lab::Lab;
use cabin_tests::real_peer::{Kind, RealPeer};
use cabin_tests::wait::until_true;

/// A manager beside a daemon of ours; both go with it.
struct Pair {
    lab: Lab,
    peer: RealPeer,
}

impl Pair {
    fn new(kind: Kind) -> Pair {
        let peer = RealPeer::start(
            kind,
            &Path::new(PLACE).join(format!("{PREFIX}{}-{}", std::process::id(), kind.name())),
        );
        let lab = Lab::own();
        lab.image("busybox");
        peer.image("busybox");
        Pair { lab, peer }
    }

    /// The manager's client with the words that Incus has; LXD's are others now and then.
    #[track_caller]
    fn there(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let words = match (self.peer.kind, words.as_slice()) {
            (Kind::Lxd, ["snapshot", "create", rest @ ..]) => [&["snapshot"], rest].concat(),
            (Kind::Lxd, ["snapshot", "restore", rest @ ..]) => [&["restore"], rest].concat(),
            (Kind::Lxd, ["storage", "volume", "snapshot", "create", rest @ ..]) => {
                [&["storage", "volume", "snapshot"], rest].concat()
            }
            _ => words,
        };
        self.peer.client(&words).ok()
    }

    #[track_caller]
    fn here(&self, line: &str) -> String {
        self.lab.cabin(&line.split_whitespace().collect::<Vec<_>>()).ok()
    }

    /// A shell script inside an instance of the manager: its output.
    #[track_caller]
    fn sh_there(&self, name: &str, script: &str) -> String {
        self.peer.client(&["exec", name, "--", "sh", "-c", script]).ok()
    }

    fn file(&self, name: &str) -> (String, String) {
        let (here, there): (PathBuf, String) = self.peer.exchange(name);
        (here.display().to_string(), there)
    }

    /// Where the tree of an instance of the manager lies in its root, on the pool `btr`.
    fn tree(&self, name: &str) -> String {
        let state = match self.peer.kind {
            Kind::Incus => "/var/lib/incus",
            Kind::Lxd => "/var/lib/lxd",
        };
        format!("{state}/storage-pools/btr/containers/{name}/rootfs")
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.peer.stop();
    }
}

/// Everything about the files of an instance that a backup is to keep. Runs inside.
const INVENTORY: &str = "cd /; L='bin/busybox etc/passwd opt root usr/share srv'; \
    find $L ! -type d -exec stat -c '%n %F %a %u %g %h %s %Y' {} + | sort; \
    find $L -type d -exec stat -c '%n %a %u %g %Y' {} + | sort; \
    find root opt -type f -exec md5sum {} + | sort; find root -type l -exec readlink {} +";

/// Files of every kind. Runs inside.
const FURNISH: &str = "mkdir -p /root /opt/deep/er /srv; cd /root; echo one >one; chown 1000:2000 one; chmod 4750 one; \
    ln one two; ln -s /nowhere link; mkfifo pipe; echo x | dd of=sparse bs=1 seek=20000000 2>/dev/null; \
    touch -d '2001-02-03 04:05:06' one; rm -rf /usr/share; mkdir /usr/share; echo new >/usr/share/new; mkdir -m 1777 /srv/sticky";

/// What comes after the snapshot. Runs inside.
const GO_ON: &str = "rm /root/two; echo later >/root/later; chown 7:8 /root/later";

/// Both write times rounded to seconds into their tarballs. Runs inside.
const WHOLE_SECONDS: &str = "cd /; find root opt usr/share srv -exec touch -h -d '2011-12-13 14:15:16' {} +";

/// The same here, where an overlay goes on counting a name that is gone. Runs inside.
const FURTHER: &str = "echo further >/root/further; chown 7:8 /root/further; chmod 600 /root/sparse";

/// `cap_net_raw=ep`, as capabilities(7) are kept on disk.
const CAPABILITY: &str = "0x0100000200200000000000000000000000000000";

fn instances_go_both_ways(pair: &Pair) {
    pair.there("launch busybox from");
    pair.sh_there("from", FURNISH);
    pair.sh_there("from", WHOLE_SECONDS);
    let tree = pair.tree("from");
    pair.peer.sh(&format!("setfattr -n user.note -v kept {tree}/root/one"));
    if pair.peer.kind == Kind::Incus {
        // Where ids are shifted on disk these two are not what they would be inside.
        pair.peer.sh(&format!("setfacl -m u:1000:r {tree}/usr/share/new"));
        pair.peer.sh(&format!("setfattr -n security.capability -v {CAPABILITY} {tree}/usr/share/new"));
    }
    let old = pair.sh_there("from", INVENTORY);
    pair.there("snapshot create from before");
    pair.sh_there("from", GO_ON);
    pair.sh_there("from", WHOLE_SECONDS);
    let new = pair.sh_there("from", INVENTORY);
    assert_ne!(old, new);
    let (here, there) = pair.file("from.tar.gz");
    pair.there(&format!("export from {there}"));
    pair.there("delete --force from");

    pair.here(&format!("import {here} -s default"));
    pair.here("start from");
    pair.lab.wait_status("from", "Running", 10);
    assert_eq!(pair.lab.sh("from", "cat /proc/1/comm"), "init");
    assert_eq!(pair.lab.sh("from", INVENTORY), new);
    let inner = format!("/proc/{}/root", pair.lab.init_pid("from"));
    let seen = |what: &[&str]| cabin_tests::cli::host(what).ok();
    assert!(seen(&["getfattr", "-n", "user.note", &format!("{inner}/root/one")]).contains("kept"));
    if pair.peer.kind == Kind::Incus {
        let file = format!("{inner}/usr/share/new");
        assert!(seen(&["getcap", &file]).contains("cap_net_raw"), "the capability is lost");
        assert!(
            seen(&["getfacl", "-n", "-p", &file])
                .lines()
                .any(|line| line.starts_with("user:") && line.ends_with(":r--"))
        );
    }
    pair.here("snapshot restore from before");
    assert_eq!(pair.lab.sh("from", INVENTORY), old);
    pair.here("stop --force from");

    // And back again, with what happened here.
    pair.here("start from");
    pair.lab.sh("from", FURTHER);
    // On disk, where no ids are shifted.
    let rights =
        pair.lab.dir.join("storage-pools/default/containers/from/u/root/further").display().to_string();
    seen(&["setfattr", "-n", "user.note", "-v", "kept", &rights]);
    seen(&["setfacl", "-m", "u:1000:r,g:77:rw", &rights]);
    seen(&["setfattr", "-n", "security.capability", "-v", CAPABILITY, &rights]);
    pair.here("snapshot create from after");
    let new = pair.lab.sh("from", INVENTORY);
    let (here, there) = pair.file("back.tar.gz");
    pair.here(&format!("export from {here} --compression gzip"));
    pair.here("delete --force from");
    pair.there(&format!("import {there}"));
    pair.there("start from");
    until_true("the container there to be up", 20, || {
        pair.peer.client(&["exec", "from", "--", "true"]).code == 0
    });
    assert_eq!(pair.sh_there("from", INVENTORY), new);
    let rights = format!("{}/root/further", pair.tree("from"));
    let shown = pair.peer.sh(&format!("getfattr -d -m - -e hex {rights}; getfacl -n -p {rights}"));
    assert!(shown.contains("user.note=0x6b657074"), "{shown}");
    if pair.peer.kind == Kind::Incus {
        for kept in ["user:1000:r--", "group:77:rw-", &format!("security.capability={CAPABILITY}")] {
            assert!(shown.contains(kept), "{kept} in {shown}");
        }
    }
    pair.there("snapshot restore from before");
    assert_eq!(pair.sh_there("from", INVENTORY), old);
    pair.there("delete --force from");
}

/// In the own form of btrfs, which is quicker and smaller.
fn streams_go_both_ways(pair: &Pair) {
    pair.here("storage create btr btrfs size=2GiB");
    pair.there("launch busybox sent");
    pair.sh_there("sent", FURNISH);
    let old = pair.sh_there("sent", INVENTORY);
    pair.there("snapshot create sent before");
    pair.sh_there("sent", GO_ON);
    let new = pair.sh_there("sent", INVENTORY);
    let (here, there) = pair.file("sent.tar.gz");
    pair.there(&format!("export sent {there} --optimized-storage"));
    pair.there("delete --force sent");

    pair.here(&format!("import {here} -s btr"));
    pair.here("start sent");
    assert_eq!(pair.lab.sh("sent", INVENTORY), new);
    pair.here("snapshot restore sent before");
    assert_eq!(pair.lab.sh("sent", INVENTORY), old);
    pair.lab.sh("sent", GO_ON);
    pair.here("snapshot create sent after");
    pair.lab.sh("sent", "echo last >/root/last; mv /opt/deep /srv/deep; rm -r /usr/share");
    let new = pair.lab.sh("sent", INVENTORY);
    let (here, there) = pair.file("sent-back.tar.gz");
    pair.here(&format!("export sent {here} --optimized-storage --compression gzip"));
    pair.here("delete --force sent");
    pair.here("storage delete btr");

    pair.there(&format!("import {there}"));
    pair.there("start sent");
    until_true("the container there to be up", 20, || {
        pair.peer.client(&["exec", "sent", "--", "true"]).code == 0
    });
    assert_eq!(pair.sh_there("sent", INVENTORY), new);
    pair.there("snapshot restore sent before");
    assert_eq!(pair.sh_there("sent", INVENTORY), old);
    pair.there("delete --force sent");
}

/// In the pool `pool` of ours, with more words for each export.
fn volumes_go_both_ways(pair: &Pair, pool: &str, more: &str) {
    const LIST: &str =
        "cd /data; find . ! -type d -exec stat -c '%n %F %a %u %g %h %s %Y' {} + | sort; cat one";
    pair.there("launch busybox user");
    pair.there("storage volume create btr vol");
    pair.there("config device add user data disk pool=btr source=vol path=/data");
    pair.sh_there("user", "cd /data; echo one >one; chown 1000:2000 one; chmod 640 one; ln one two; ln -s one link; mkdir d; echo x >d/x; touch -h -d '2011-12-13 14:15:16' one link d/x");
    let old = pair.sh_there("user", LIST);
    pair.there("config device remove user data");
    pair.there("storage volume snapshot create btr vol before");
    pair.there("config device add user data disk pool=btr source=vol path=/data");
    pair.sh_there("user", "cd /data; echo more >>one; rm two; touch -d '2012-12-13 14:15:16' one");
    let new = pair.sh_there("user", LIST);
    pair.there("config device remove user data");
    let (here, there) = pair.file(&format!("vol{more}.tar.gz"));
    pair.there(&format!("storage volume export btr vol {there} {more}"));
    pair.there("storage volume delete btr vol");

    pair.here(&format!("storage volume import {pool} {here} vol"));
    pair.here("launch busybox user");
    pair.here(&format!("config device add user data disk pool={pool} source=vol path=/data"));
    assert_eq!(pair.lab.sh("user", LIST), new);
    pair.here("config device remove user data");
    pair.here(&format!("storage volume snapshot restore {pool} vol before"));
    pair.here(&format!("config device add user data disk pool={pool} source=vol path=/data"));
    assert_eq!(pair.lab.sh("user", LIST), old);

    let (here, there) = pair.file(&format!("vol-back{more}.tar.gz"));
    pair.here(&format!("storage volume export {pool} vol {here} --compression gzip {more}"));
    pair.here("delete --force user");
    pair.here(&format!("storage volume delete {pool} vol"));
    pair.there(&format!("storage volume import btr {there} vol"));
    pair.there("config device add user data disk pool=btr source=vol path=/data");
    assert_eq!(pair.sh_there("user", LIST), old);
    assert!(pair.there("storage volume show btr vol/before").contains("before"));
    pair.there("delete --force user");
    pair.there("storage volume delete btr vol");
}

#[test]
fn backups_of_instances_and_volumes_go_to_incus_and_come_from_there() {
    let pair = Pair::new(Kind::Incus);
    instances_go_both_ways(&pair);
    streams_go_both_ways(&pair);
    volumes_go_both_ways(&pair, "default", "");
    pair.here("storage create btr btrfs size=2GiB");
    volumes_go_both_ways(&pair, "btr", "--optimized-storage");
    pair.here("storage delete btr");
}

#[test]
fn backups_of_instances_and_volumes_go_to_lxd_and_come_from_there() {
    let pair = Pair::new(Kind::Lxd);
    instances_go_both_ways(&pair);
    streams_go_both_ways(&pair);
    volumes_go_both_ways(&pair, "default", "");
    pair.here("storage create btr btrfs size=2GiB");
    volumes_go_both_ways(&pair, "btr", "--optimized-storage");
    pair.here("storage delete btr");
}
