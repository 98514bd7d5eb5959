//! Copies between pools, moves, and copies that are brought up to date: with ours and the stock clients.

use cabin_tests::cli::host;
use cabin_tests::clients::Stock;
use cabin_tests::lab::Lab;
use cabin_tests::race::{Asked, Race, Score, done, of_busybox, one_wins, rounds, so, there};
use cabin_tests::subject::Subject;
use cabin_tests::wait::until_true;
use serde_json::{Value, json};

/// A script that makes what a tree can hold beside plain files.
const SPECIAL: &str = "mkdir -p /root/t/d /root/t/gone; cd /root/t; echo one >a; ln a b; ln -s a c; mkfifo p; \
     echo owned >o; chown 1000:1001 o; chmod 4755 o; truncate -s 64M hole; echo end >>hole; mkdir 's p'; touch 's p/é'; \
     touch -d '2020-01-02 03:04:05' d; rm -rf /usr/share /etc/issue; mkdir /usr/share; echo new >/usr/share/new; sync";

/// What can be seen of it from inside.
const LOOK: &str = "cd /root/t; find . | sort; stat -c '%n %F %a %u %g %h %s' a b c p o 's p/é' hole; cat a b o; \
     tail -c 4 hole; test $(stat -c %b hole) -lt 1000 && echo sparse; stat -c %Y d; ls -A /usr/share; \
     test ! -e /etc/issue && echo no issue";

fn pool(lab: &Lab, name: &str, driver: &str) {
    if lab.call("GET", &format!("/1.0/storage-pools/{name}"), None).status != 200 {
        lab.cabin(&["storage", "create", name, driver]).ok();
    }
}

/// The names of an instance's snapshots, the oldest first.
fn snapshots(lab: &Lab, name: &str) -> Vec<String> {
    let found = lab.get(&format!("/1.0/instances/{name}/snapshots?recursion=1"));
    let found = found.as_array().expect("a list").iter();
    found.map(|it| it["name"].as_str().unwrap_or_default().to_owned()).collect()
}

fn root_pool(lab: &Lab, name: &str) -> Value {
    lab.get(&format!("/1.0/instances/{name}"))["expanded_devices"]["root"]["pool"].clone()
}

/// Whether a pool's directory holds a tree of that name.
fn lies_in(lab: &Lab, pool: &str, name: &str) -> bool {
    lab.dir.join(format!("storage-pools/{pool}/containers/{name}")).exists()
}

#[test]
fn a_copy_in_a_pool_of_another_driver_is_the_same_to_the_last_attribute() {
    let lab = Lab::shared();
    pool(&lab, "flat", "dir");
    pool(&lab, "other", "overlay");
    lab.busybox("src");
    lab.sh("src", SPECIAL);
    let before = lab.sh("src", LOOK);
    assert!(before.contains("sparse") && before.contains("no issue"), "{before}");
    lab.cabin(&["snapshot", "create", "src", "s0"]).ok();
    lab.sh("src", "rm -r /root/t/gone; echo later >/root/later");
    let after = lab.sh("src", LOOK);
    // Running, with its snapshots; then from the copy, which is stopped, and from a snapshot.
    lab.cabin(&["copy", "src", "flat1", "--storage", "flat"]).ok();
    assert_eq!(lab.status("src"), "Running");
    lab.cabin(&["copy", "flat1", "over", "-s", "other"]).ok();
    lab.cabin(&["copy", "over/s0", "back", "-s", "default", "--instance-only"]).ok();
    for (name, place, wanted, taken) in [
        ("flat1", "flat", &after, &["s0"][..]),
        ("over", "other", &after, &["s0"][..]),
        ("back", "default", &before, &[][..]),
    ] {
        assert_eq!(root_pool(&lab, name), place);
        assert!(lies_in(&lab, place, name));
        assert_eq!(snapshots(&lab, name), taken);
        lab.cabin(&["start", name]).ok();
        assert_eq!(lab.sh(name, LOOK), **wanted, "{name}");
    }
    assert_eq!(lab.sh("over", "cat /root/later"), "later");
    // The snapshots that came along can be gone back to, in their new pool.
    for name in ["flat1", "over"] {
        lab.cabin(&["snapshot", "restore", name, "s0"]).ok();
        assert_eq!(lab.sh(name, LOOK), before, "{name}");
        assert_eq!(root_pool(&lab, name), if name == "over" { "other" } else { "flat" });
    }
    lab.cabin(&["delete", "-f", "src", "flat1", "over", "back"]).ok();
}

/// Makes in a tree what only the host or a daemon of a guest would make there.
const HOSTILE: &str = "mkdir -p t/d; cd t; echo text >f; ln f link; ln -s /etc/shadow away; ln -s ../../.. up; mkfifo p; \
     mknod null c 1 3; mknod disk b 8 0; truncate -s 1G hole; echo end >>hole; echo x >$(printf 'new\\nline'); \
     touch -d '1999-01-02 03:04:05.123456789' f d; chown -h 65534:12 away; chown 1000:1000 null; chmod 6711 f; \
     setfattr -n user.note -v kept f; setfattr -n user.dir -v kept d; setfacl -m u:1234:rwx,d:g:77:rx d; \
     setfacl -m g:88:r f; setcap cap_net_raw+ep link 2>/dev/null || true; chattr -R -i . 2>/dev/null || true";

/// All that can be told of a tree but the times of reading and the sizes of directories.
fn told(root: &std::path::Path) -> String {
    let script = "cd \"$1\" || exit 1; all() { find . \"$@\" -print0 | LC_ALL=C sort -z; }; \
         all | xargs -0 stat -c '%n|%F|%a|%u|%g|%t:%T|%y|%N'; all ! -type d | xargs -0 stat -c '%n %h %s'; \
         all -type f -size -1M | xargs -0 sha256sum; all | xargs -0 getfattr -h -d -m '^(user|security|system)' -e hex; \
         test $(stat -c %b t/hole) -lt 2048 && echo sparse; stat -c %i t/f t/link | uniq | wc -l";
    host(&["sh", "-c", script, "sh", &root.to_string_lossy()]).ok()
}

fn same(what: &str, found: &str, wanted: &str) {
    let all = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (found, wanted) = (all(found), all(wanted));
    let only =
        |a: &[String], b: &[String]| a.iter().filter(|it| !b.contains(it)).cloned().collect::<Vec<_>>();
    assert!(found == wanted, "{what}: lost {:#?}, got {:#?}", only(&wanted, &found), only(&found, &wanted));
}

#[test]
fn a_tree_goes_through_pools_of_every_driver_unchanged() {
    let lab = Lab::shared();
    lab.image("busybox");
    pool(&lab, "plain", "dir");
    lab.cabin(&["storage", "create", "tree", "btrfs", "size=512MiB"]).ok();
    lab.cabin(&["create", "busybox", "first", "-s", "plain"]).ok();
    // As the daemon sees it: a pool with a disk is mounted for it alone.
    let seen = std::path::PathBuf::from(format!("/proc/{}/root{}", lab.pid(), lab.dir.display()));
    let root = |pool: &str, name: &str| seen.join(format!("storage-pools/{pool}/containers/{name}/rootfs"));
    let first = root("plain", "first");
    host(&["sh", "-c", &format!("cd \"$1\" && {HOSTILE}"), "sh", &first.to_string_lossy()]).ok();
    let before = told(&first);
    for part in ["kept", "sparse", "posix_acl", "security.capability", "block special", "1999"] {
        let found = before.contains(part) || before.contains("0x6b657074") && part == "kept";
        assert!(found, "{part}: {before}");
    }
    for (from, to, pool) in
        [("first", "second", "tree"), ("second", "third", "default"), ("third", "last", "plain")]
    {
        lab.cabin(&["copy", from, to, "-s", pool]).ok();
    }
    same("btrfs", &told(&root("tree", "second")), &before);
    same("overlay and dir", &told(&root("plain", "last")), &before);
    // The driver's own way, and back by a stream; with a snapshot that shares everything.
    lab.cabin(&["snapshot", "create", "second", "s"]).ok();
    lab.cabin(&["copy", "second", "beside"]).ok();
    lab.cabin(&["move", "beside", "-s", "plain"]).ok();
    same("btrfs, moved", &told(&root("plain", "beside")), &before);
    lab.cabin(&["delete", "first", "second", "third", "last", "beside"]).ok();
    lab.cabin(&["storage", "delete", "tree"]).ok();
}

#[test]
fn a_move_takes_an_instance_with_its_snapshots_to_another_pool() {
    let lab = Lab::shared();
    pool(&lab, "there", "dir");
    lab.busybox("goes");
    lab.sh("goes", "mkdir -p /root; echo old >/root/note; sync");
    lab.cabin(&["snapshot", "create", "goes", "s"]).ok();
    lab.sh("goes", "echo new >/root/note; sync");
    let refused = lab.cabin(&["move", "goes", "--storage", "there"]);
    assert!(refused.code != 0 && refused.err.contains("running"), "{refused:?}");
    lab.cabin(&["stop", "-f", "goes"]).ok();
    let before = lab.get("/1.0/instances/goes");
    lab.cabin(&["move", "goes", "--storage", "there", "-c", "user.moved=yes"]).ok();
    let after = lab.get("/1.0/instances/goes");
    assert!(lies_in(&lab, "there", "goes") && !lies_in(&lab, "default", "goes"));
    assert_eq!(after["config"]["user.moved"], "yes");
    for kept in ["created_at", "profiles", "description"] {
        assert_eq!(after[kept], before[kept]);
    }
    for kept in ["volatile.uuid", "volatile.eth0.hwaddr"] {
        assert_eq!(after["config"][kept], before["config"][kept]);
    }
    let again = lab.cabin(&["move", "goes", "--storage", "there"]);
    assert!(again.code != 0 && again.err.contains("already"), "{again:?}");
    let nowhere = lab.cabin(&["move", "goes", "--storage", "nowhere"]);
    assert!(nowhere.code != 0 && nowhere.err.contains("nowhere"), "{nowhere:?}");
    // Back, under another name, by way of the link that people follow.
    lab.cabin(&["move", "goes", "went", "-s", "default"]).ok();
    assert!(lies_in(&lab, "default", "went"));
    let link = std::fs::read_link(lab.dir.join("containers/went")).expect("a link");
    assert_eq!(link.to_string_lossy(), "../storage-pools/default/containers/went");
    assert!(!lies_in(&lab, "there", "goes") && !lies_in(&lab, "there", "went"));
    lab.cabin(&["start", "went"]).ok();
    assert_eq!(lab.sh("went", "cat /root/note; hostname"), "new\nwent");
    lab.cabin(&["snapshot", "restore", "went", "s"]).ok();
    assert_eq!(lab.sh("went", "cat /root/note"), "old");
    lab.cabin(&["stop", "-f", "went"]).ok();
    lab.cabin(&["move", "went", "-s", "there", "--instance-only"]).ok();
    assert_eq!(snapshots(&lab, "went"), Vec::<String>::new());
    lab.cabin(&["delete", "went"]).ok();
    lab.cabin(&["storage", "delete", "there"]).ok();
}

#[test]
fn a_copy_is_brought_up_to_date_with_the_snapshots_it_lacks() {
    let lab = Lab::shared();
    pool(&lab, "mirror", "dir");
    lab.busybox("main");
    let write = |text: &str| lab.sh("main", &format!("mkdir -p /root; echo {text} >/root/note; sync"));
    let take = |name: &str| lab.cabin(&["snapshot", "create", "main", name]).ok();
    write("zero");
    take("s0");
    write("one");
    take("s1");
    lab.cabin(&["storage", "create", "subvolumes", "btrfs", "size=512MiB"]).ok();
    pool(&lab, "alike", "overlay");
    let all = [("near", "default"), ("far", "mirror"), ("layered", "alike"), ("apart", "subvolumes")];
    for (copy, place) in all {
        // One that is not there is a plain copy.
        lab.cabin(&["copy", "main", copy, "--refresh", "-s", place]).ok();
        lab.cabin(&["config", "set", copy, "user.own=mine"]).ok();
        lab.cabin(&["snapshot", "create", copy, "own"]).ok();
    }
    lab.cabin(&["snapshot", "delete", "main", "s0"]).ok();
    write("two");
    take("s2");
    // The same name, but another time.
    lab.cabin(&["snapshot", "delete", "main", "s1"]).ok();
    write("three");
    take("s1");
    write("four");
    for (copy, _) in all {
        lab.cabin(&["copy", "main", copy, "--refresh"]).ok();
        assert_eq!(snapshots(&lab, copy), ["s2", "s1"], "{copy}");
        assert_eq!(lab.get(&format!("/1.0/instances/{copy}"))["config"]["user.own"], "mine");
        lab.cabin(&["start", copy]).ok();
        assert_eq!(lab.sh(copy, "cat /root/note; hostname"), format!("four\n{copy}"));
        let running = lab.cabin(&["copy", "main", copy, "--refresh"]);
        assert!(running.code != 0 && running.err.contains("running"), "{running:?}");
        for (snapshot, text) in [("s1", "three"), ("s2", "two")] {
            lab.cabin(&["snapshot", "restore", copy, snapshot]).ok();
            assert_eq!(lab.sh(copy, "cat /root/note"), text, "{copy}/{snapshot}");
        }
        lab.cabin(&["stop", "-f", copy]).ok();
        // Of what is missing, what is older than the newest they share can be left out.
        lab.cabin(&["snapshot", "delete", copy, "s2"]).ok();
        lab.cabin(&["copy", "main", copy, "--refresh", "--refresh-exclude-older"]).ok();
        assert_eq!(snapshots(&lab, copy), ["s1"], "{copy}");
        lab.cabin(&["copy", "main", copy, "--refresh"]).ok();
        assert_eq!(snapshots(&lab, copy), ["s2", "s1"], "{copy}");
    }
    let itself = lab.cabin(&["copy", "near", "near", "--refresh"]);
    assert!(itself.code != 0 && itself.err.contains("itself"), "{itself:?}");
    let of_snapshot = lab.cabin(&["copy", "main/s1", "near", "--refresh"]);
    assert!(of_snapshot.code != 0, "{of_snapshot:?}");
    // The driver's own way, with the source running.
    lab.cabin(&["copy", "apart", "apart2"]).ok();
    lab.cabin(&["start", "apart"]).ok();
    lab.sh("apart", "echo five >/root/note; sync");
    lab.cabin(&["copy", "apart", "apart2", "--refresh"]).ok();
    lab.cabin(&["start", "apart2"]).ok();
    assert_eq!(lab.sh("apart2", "cat /root/note"), "five");
    lab.cabin(&["delete", "-f", "main", "near", "far", "layered", "apart", "apart2"]).ok();
    lab.cabin(&["storage", "delete", "subvolumes"]).ok();
}

#[test]
fn what_is_said_of_a_copy_goes_over_what_the_source_has() {
    let lab = Lab::shared();
    lab.image("busybox");
    lab.cabin(&["profile", "create", "plain"]).ok();
    lab.cabin(&["profile", "device", "add", "plain", "root", "disk", "path=/", "pool=default"]).ok();
    lab.cabin(&["create", "busybox", "origin", "-c", "user.a=1", "-c", "user.b=2"]).ok();
    lab.cabin(&["snapshot", "create", "origin", "s"]).ok();
    let words =
        ["-c", "user.a=9", "-p", "plain", "-e", "--instance-only", "--stateless", "--allow-inconsistent"];
    lab.cabin(&[&["copy", "origin", "said"][..], &words].concat()).ok();
    let said = lab.get("/1.0/instances/said");
    assert_eq!((&said["config"]["user.a"], &said["config"]["user.b"]), (&json!("9"), &json!("2")));
    assert_eq!((&said["profiles"], &said["ephemeral"]), (&json!(["plain"]), &json!(true)));
    assert_eq!(snapshots(&lab, "said"), Vec::<String>::new());
    let bare = lab.cabin(&["copy", "origin", "bare", "--no-profiles"]);
    assert!(bare.code != 0 && bare.err.contains("root"), "{bare:?}");
    lab.cabin(&["copy", "origin", "bare", "--no-profiles", "-s", "default"]).ok();
    assert_eq!(lab.get("/1.0/instances/bare")["profiles"], json!([]));
    for words in [&["copy", "origin", "x", "--target", "m"][..], &["move", "origin", "x", "--target", "m"]] {
        assert_ne!(lab.cabin(words).code, 0);
    }
    lab.cabin(&["delete", "said", "bare", "origin"]).ok();
    lab.cabin(&["profile", "delete", "plain"]).ok();
}

#[test]
fn a_fixed_address_is_not_copied_without_saying_so() {
    let lab = Lab::shared();
    lab.image("busybox");
    let network = lab.get("/1.0/networks/cabinbr0");
    let address = network["config"]["ipv4.address"].as_str().expect("an address");
    let net = address.rsplit_once('.').expect("four parts").0;
    // Another test's instance may have been given any of them.
    let make = |address: &String| {
        lab.cabin(&["create", "busybox", "fixed", "-d", &format!("eth0,ipv4.address={address}")])
    };
    let free = (70..80).map(|last| format!("{net}.{last}")).find(|address| make(address).code == 0);
    let fixed = free.expect("one of ten addresses that nobody has");
    let refused = lab.cabin(&["copy", "fixed", "fixed2"]);
    assert!(refused.code != 0 && refused.err.contains(&fixed), "{refused:?}");
    assert_eq!(lab.call("GET", "/1.0/instances/fixed2", None).status, 404);
    lab.cabin(&["copy", "fixed", "fixed2", "-d", "eth0,ipv4.address="]).ok();
    lab.cabin(&["start", "fixed", "fixed2"]).ok();
    until_true("the fixed address", 20, || {
        lab.cabin(&["list", "^fixed$", "-c4", "-f", "csv"]).ok().contains(&fixed)
    });
    lab.cabin(&["delete", "-f", "fixed", "fixed2"]).ok();
}

#[test]
fn snapshots_of_the_longest_names_are_replaced_by_others_of_the_same() {
    let lab = Lab::shared();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "lengthy"]).ok();
    let names = ["a", "b"].map(|end| format!("{}{end}", "n".repeat(127)));
    let take =
        || names.iter().for_each(|name| drop(lab.cabin(&["snapshot", "create", "lengthy", name]).ok()));
    take();
    lab.cabin(&["copy", "lengthy", "lengthy2"]).ok();
    names.iter().for_each(|name| drop(lab.cabin(&["snapshot", "delete", "lengthy", name]).ok()));
    take();
    lab.cabin(&["copy", "lengthy", "lengthy2", "--refresh"]).ok();
    assert_eq!(snapshots(&lab, "lengthy2"), names);
    lab.cabin(&["delete", "lengthy", "lengthy2"]).ok();
}

#[test]
fn the_stock_clients_copy_move_and_refresh() {
    let lab = Lab::shared();
    pool(&lab, "shelf", "dir");
    for stock in Stock::ALL {
        lab.busybox("st");
        lab.sh("st", "mkdir -p /root; echo one >/root/note; sync");
        let run = |words: &[&str]| stock.run(&lab, words).ok();
        run(&["snapshot", "create", "st", "s0"]);
        run(&["copy", "st", "st2", "-s", "shelf"]);
        assert_eq!(root_pool(&lab, "st2"), "shelf", "{stock:?}");
        lab.sh("st", "echo two >/root/note; sync");
        run(&["snapshot", "create", "st", "s1"]);
        // Where the root disk comes from a profile, these clients need to hear again where the copy is to stay.
        run(&["copy", "st", "st2", "--refresh", "-s", "shelf"]);
        assert_eq!(snapshots(&lab, "st2"), ["s0", "s1"]);
        assert_eq!(root_pool(&lab, "st2"), "shelf", "{stock:?}");
        run(&["copy", "st/s0", "st3", "--no-profiles", "-s", "shelf", "-c", "user.x=y"]);
        run(&["copy", "st", "st4", "--instance-only", "--allow-inconsistent"]);
        run(&["copy", "st", "st5", "--refresh", "--refresh-exclude-older"]);
        run(&["move", "st2", "st6", "-s", "default"]);
        assert_eq!(root_pool(&lab, "st6"), "default", "{stock:?}");
        assert_eq!(snapshots(&lab, "st6"), ["s0", "s1"]);
        run(&["move", "st6", "-s", "shelf"]);
        run(&["move", "st6", "st7"]);
        run(&["rename", "st7", "st8"]);
        assert_eq!(root_pool(&lab, "st8"), "shelf", "{stock:?}");
        lab.cabin(&["start", "st8"]).ok();
        assert_eq!(lab.sh("st8", "cat /root/note; hostname"), "two\nst8");
        run(&["delete", "-f", "st", "st3", "st4", "st5", "st8"]);
    }
}

/// An instance, and a pool it can go to.
fn one_and_pool(subject: &Subject) {
    subject.must("POST", "/1.0/instances", &of_busybox("one"));
    let body = json!({ "name": "race", "driver": "dir", "config": {} });
    subject.must("POST", "/1.0/storage-pools", &body);
}

fn to_pool(name: &str) -> Asked {
    let body = json!({ "name": name, "migration": true, "pool": "race" });
    Asked::new("POST", "/1.0/instances/one", body)
}

fn start(name: &str) -> Asked {
    Asked::new("PUT", format!("/1.0/instances/{name}/state"), json!({ "action": "start", "timeout": 30 }))
}

fn refresh() -> Asked {
    let source = json!({ "type": "copy", "source": "one", "refresh": true });
    Asked::new("POST", "/1.0/instances", json!({ "name": "twin", "source": source }))
}

const RACES: &[Race] = &[
    Race {
        name: "move to a pool and delete it",
        before: one_and_pool,
        asked: |_| vec![to_pool(""), Asked::new("DELETE", "/1.0/storage-pools/race", Value::Null)],
        judge: |subject, answers| {
            one_wins(answers)?;
            so(subject.status("one") == "Stopped", "it is lost")?;
            so(
                there(subject, "/1.0/storage-pools/race") == answers[0].is_done(),
                "the pool is not as it should be",
            )
        },
        often: 2,
    },
    Race {
        name: "move and start",
        before: one_and_pool,
        asked: |_| vec![to_pool("new"), start("one")],
        judge: |subject, answers| {
            one_wins(answers)?;
            let (name, status) = if answers[0].is_done() { ("new", "Stopped") } else { ("one", "Running") };
            so(subject.status(name) == status, "not as the winner wants it")
        },
        often: 2,
    },
    Race {
        name: "move and snapshot",
        before: one_and_pool,
        asked: |_| {
            let take = Asked::new("POST", "/1.0/instances/one/snapshots", json!({ "name": "s" }));
            vec![to_pool(""), take]
        },
        judge: |subject, answers| {
            so(done(answers) == 2, "both can be")?;
            so(there(subject, "/1.0/instances/one/snapshots/s"), "the snapshot is lost")
        },
        often: 2,
    },
    Race {
        name: "two refreshings and a start",
        before: |subject| {
            one_and_pool(subject);
            subject.must("POST", "/1.0/instances/one/snapshots", &json!({ "name": "s" }));
        },
        asked: |_| vec![refresh(), refresh(), start("one")],
        judge: |subject, answers| {
            so(done(answers) == 3, "all can be")?;
            so(
                subject.status("twin") == "Stopped" && there(subject, "/1.0/instances/twin/snapshots/s"),
                "no copy",
            )
        },
        often: 2,
    },
];

#[test]
fn a_move_or_refreshing_and_what_it_excludes_tear_nothing() {
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    let mut score = Score::default();
    RACES.iter().for_each(|race| score.run(&subject, race, rounds()));
    score.close(" of copies and moves");
}

/// A subvolume with another one in it, made by the host's root in `/srv` of an instance in the pool `subvolumes`. Gives how
/// many there are in all now.
fn subvolumes(lab: &Lab, make: Option<&str>) -> usize {
    // The pool's disk is mounted where the daemon is.
    let dir = lab.socket().parent().expect("its directory").display().to_string();
    let pool = format!("/proc/{}/root{dir}/storage-pools/subvolumes", lab.pid());
    if let Some(name) = make {
        for path in ["srv/own", "srv/own/inner"] {
            let path = format!("{pool}/containers/{name}/rootfs/{path}");
            host(&["btrfs", "subvolume", "create", &path]).ok();
        }
    }
    host(&["btrfs", "subvolume", "list", &pool]).ok().lines().count()
}

#[test]
fn subvolumes_that_the_hosts_root_made_inside_come_along() {
    let lab = Lab::own();
    lab.image("busybox");
    lab.cabin(&["storage", "create", "subvolumes", "btrfs", "size=1GiB"]).ok();
    lab.cabin(&["create", "busybox", "web", "-s", "subvolumes"]).ok();
    lab.cabin(&["start", "web"]).ok();
    lab.sh("web", "mkdir -p /srv");
    let before = subvolumes(&lab, None);
    assert_eq!(subvolumes(&lab, Some("web")), before + 2);
    // The same number goes into both, first into the outer one.
    lab.sh(
        "web",
        "cd /srv/own; echo 0 | tee n >inner/n; chown 5:6 inner/n; \
         (n=0; while :; do n=$((n+1)); echo $n >>n; echo $n >>inner/n; done) >/dev/null 2>&1 &",
    );
    let told = |name: &str, what: &str| lab.sh(name, &format!("cd /srv/own; {what}"));
    for number in 0..5 {
        let snapshot = format!("s{number}");
        lab.cabin(&["snapshot", "create", "web", &snapshot]).ok();
        lab.cabin(&["copy", &format!("web/{snapshot}"), "one"]).ok();
        lab.cabin(&["start", "one"]).ok();
        let lines = told("one", "cat n | wc -l; cat inner/n | wc -l; stat -c '%u %g' inner/n");
        let lines: Vec<&str> = lines.lines().collect();
        let (outer, inner): (i64, i64) = (lines[0].parse().unwrap(), lines[1].parse().unwrap());
        assert!(inner > 0 && (0..=1).contains(&(outer - inner)), "{outer} and {inner}: of two moments");
        assert_eq!(lines[2], "5 6");
        lab.cabin(&["delete", "-f", "one"]).ok();
        lab.cabin(&["snapshot", "delete", "web", &snapshot]).ok();
    }
    assert_eq!(subvolumes(&lab, None), before + 2, "what was copied is gone");
    lab.cabin(&["stop", "-f", "web"]).ok();
    lab.cabin(&["start", "web"]).ok();
    told("web", "echo good >note; echo deep >inner/note");
    lab.cabin(&["snapshot", "create", "web", "good"]).ok();
    told("web", "echo bad >note; rm inner/note");
    lab.cabin(&["snapshot", "restore", "web", "good"]).ok();
    until_true("the instance to be up again", 10, || lab.exec("web", &["true"]).code == 0);
    assert_eq!(told("web", "cat note inner/note"), "good\ndeep");
    // Somewhere else they are directories, and in a file as well.
    lab.cabin(&["copy", "web", "far", "-s", "default"]).ok();
    let file = lab.home().join("web").display().to_string();
    lab.cabin(&["export", "web", &file]).ok();
    lab.cabin(&["import", &file, "again", "-s", "default"]).ok();
    for name in ["far", "again"] {
        for snapshot in [false, true] {
            if snapshot {
                lab.cabin(&["snapshot", "restore", name, "good"]).ok();
            }
            lab.cabin(&["start", name]).ok();
            assert_eq!(told(name, "cat note inner/note"), "good\ndeep", "{name}");
            lab.cabin(&["stop", "-f", name]).ok();
        }
    }
    // A stream has one subvolume.
    let refused = lab.cabin(&["export", "web", &format!("{file}-own"), "--optimized-storage"]).refused();
    assert!(refused.contains("subvolumes") && refused.contains("without"), "{refused}");
    lab.cabin(&["delete", "-f", "web", "far", "again"]).ok();
    assert_eq!(subvolumes(&lab, None), 1, "the image's");
    lab.cabin(&["storage", "delete", "subvolumes"]).ok();
}

#[test]
fn what_snapshots_on_btrfs_share_is_shared_in_another_pool_too() {
    const BIG: u64 = 32 << 20;
    let lab = Lab::own();
    lab.image("busybox");
    for pool in ["from", "to"] {
        lab.cabin(&["storage", "create", pool, "btrfs", "size=512MiB"]).ok();
    }
    let used = |pool: &str| {
        let found = lab.get(&format!("/1.0/storage-pools/{pool}/resources"));
        found["space"]["used"].as_u64().expect("bytes")
    };
    let empty = used("to");
    lab.cabin(&["create", "busybox", "web", "-s", "from"]).ok();
    lab.cabin(&["start", "web"]).ok();
    lab.sh("web", "mkdir -p /root; dd if=/dev/urandom of=/root/big bs=1M count=32 2>/dev/null");
    let next = |name: &str| {
        lab.sh("web", &format!("echo {name} >/root/note; echo {name} >>/root/big; sync"));
        lab.cabin(&["snapshot", "create", "web", name]).ok();
    };
    ["s0", "s1", "s2"].into_iter().for_each(next);
    // Running, so that it is copied from a copy.
    lab.cabin(&["copy", "web", "twin", "-s", "to"]).ok();
    let (source, target) = (used("from"), used("to") - empty);
    println!("an instance with three snapshots: {source} bytes in its pool, {target} in the other");
    assert!(target > BIG && target < BIG + BIG / 2, "{source} {target}");
    ["s3", "s4"].into_iter().for_each(next);
    let before = used("to");
    lab.cabin(&["copy", "web", "twin", "--refresh"]).ok();
    let more = used("to").saturating_sub(before);
    println!("brought up to date by two snapshots: {more} bytes more");
    assert!(more < BIG / 2, "{more}");
    assert_eq!(snapshots(&lab, "twin"), ["s0", "s1", "s2", "s3", "s4"]);
    lab.cabin(&["start", "twin"]).ok();
    let sum = |name: &str| lab.sh(name, "md5sum /root/big; cat /root/note");
    assert_eq!(sum("twin"), sum("web"));
    lab.cabin(&["snapshot", "restore", "twin", "s1"]).ok();
    until_true("the copy to be up again", 20, || lab.exec("twin", &["true"]).code == 0);
    assert_eq!(lab.sh("twin", "cat /root/note; tail -n 2 /root/big | wc -l"), "s1\n2");
    // And back, with all of them.
    lab.cabin(&["stop", "-f", "twin"]).ok();
    lab.cabin(&["delete", "-f", "web"]).ok();
    lab.cabin(&["move", "twin", "-s", "from"]).ok();
    assert_eq!(snapshots(&lab, "twin"), ["s0", "s1", "s2", "s3", "s4"]);
    lab.cabin(&["delete", "twin"]).ok();
    for pool in ["from", "to"] {
        lab.cabin(&["storage", "delete", pool]).ok();
    }
}
