//! A daemon in a control group with hardly any memory: it does what it is asked, or refuses, or the kernel kills it and the
//! next one takes up everything. CABIN_TORTURE tries each at more widths.

use std::process::Command;
use std::sync::LazyLock;

use cabin_tests::fence::Fence;
use cabin_tests::host_state::{HostState, Look, settled};
use cabin_tests::machine;
use cabin_tests::subject::Subject;
use cabin_tests::sweep::{Tally, audited, halfway};
use cabin_tests::verbs::{self, Attempt, Verb};
use cabin_tests::wait::until_true;
use cabin_tests::{api, backup_verbs, snapshot_verbs};
use serde_json::{Value, json};

const MIB: u64 = 1024 * 1024;

/// An image that is larger than what memory there is.
static IMAGE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let script = r"set -e; at=$(mktemp -d); cd $at; mkdir -p rootfs/etc rootfs/root
        head -c 48M /dev/urandom >rootfs/root/large
        printf 'architecture: x86_64\ncreation_date: 1700000000\n' >metadata.yaml
        tar --owner=0 --group=0 -cf - metadata.yaml rootfs; cd /; rm -r $at";
    let made = Command::new("sh").args(["-c", script]).output().expect("sh");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    made.stdout
});

fn there(subject: &Subject, target: &str) -> bool {
    subject.call("GET", target, None).expect("an answer").status == 200
}

fn delete(subject: &Subject, target: &str) {
    if there(subject, target) {
        subject.must("DELETE", target, &Value::Null);
    }
}

fn import(subject: &Subject) -> Attempt {
    let headers = [("Content-Type", "application/octet-stream"), ("X-Incus-aliases", "alias=large")];
    subject.finish(api::send(&subject.socket(), "POST", "/1.0/images", &headers, &IMAGE))
}

fn imported(subject: &Subject) {
    if !there(subject, "/1.0/images/aliases/large") {
        import(subject).expect("a large image");
    }
}

fn forget_image(subject: &Subject) {
    if there(subject, "/1.0/images/aliases/large") {
        let target = subject.get("/1.0/images/aliases/large")["target"].clone();
        delete(subject, &format!("/1.0/images/{}", target.as_str().unwrap_or_default()));
    }
}

fn create(subject: &Subject) -> Attempt {
    let source = json!({ "type": "image", "alias": "large" });
    subject.ask("POST", "/1.0/instances", &json!({ "name": "large", "source": source }))
}

fn large(subject: &Subject) {
    imported(subject);
    if subject.status("large").is_empty() {
        create(subject).expect("an instance");
    }
}

/// A body nearly as large as one may be.
fn profile(name: &str, keys: usize) -> Value {
    let config: serde_json::Map<String, Value> =
        (0..keys).map(|number| (format!("user.key{number}"), json!("x".repeat(1000)))).collect();
    json!({ "name": name, "config": config })
}

/// What takes memory, or looks as if it did.
const HEAVY: &[Verb] = &[
    Verb {
        name: "profile create, of a large body",
        before: |_| {},
        act: |subject| subject.ask("POST", "/1.0/profiles", &profile("heavy", 900)),
        back: |subject| delete(subject, "/1.0/profiles/heavy"),
        halfway: None,
    },
    Verb {
        name: "image import, of a large one",
        before: |_| {},
        act: import,
        back: forget_image,
        halfway: None,
    },
    Verb {
        name: "instance create, of a large image",
        before: imported,
        act: create,
        back: |subject| delete(subject, "/1.0/instances/large"),
        halfway: None,
    },
    Verb {
        name: "backup create, of a large one",
        before: large,
        act: |subject| {
            let body = json!({ "name": "b", "compression_algorithm": "none" });
            subject.ask("POST", "/1.0/instances/large/backups", &body)
        },
        back: |subject| delete(subject, "/1.0/instances/large/backups/b"),
        halfway: None,
    },
    Verb {
        name: "file push, of a large one",
        before: |_| {},
        act: |subject| {
            let target = "/1.0/instances/bystander/files?path=/root/large";
            let headers = [("X-Incus-type", "file")];
            subject.finish(api::send(&subject.socket(), "POST", target, &headers, &IMAGE))
        },
        back: |subject| drop(subject.exec("bystander", "rm -f /root/large")),
        halfway: None,
    },
    Verb {
        name: "list, of many",
        before: |subject| {
            for number in 0..60 {
                subject.must("POST", "/1.0/profiles", &profile(&format!("many{number}"), 100));
            }
        },
        act: |subject| {
            let reply = subject.call("GET", "/1.0/profiles?recursion=1", None);
            reply.map(|reply| json!(reply.body.len())).map_err(|why| format!("no answer: {why}"))
        },
        back: |_| {},
        halfway: None,
    },
];

/// Of the other lists, what is done besides. What asks for the state first would find nobody.
const USUAL: &[&str] = &[
    "instance create",
    "instance delete",
    "instance start",
    "instance stop",
    "snapshot create, stopped",
    "snapshot delete",
    "copy with snapshots",
    "backup create, stopped",
    "import",
    "publish",
];

/// Does a verb in so little memory. `true` when the daemon died of it.
fn starved(subject: &mut Subject, verb: &Verb, more: u64, tally: &mut Tally) -> bool {
    let halfway = halfway(subject, verb);
    (verb.act)(subject).expect("the verb");
    let after = HostState::of(subject, Look::Shape);
    (verb.back)(subject);
    // Only now: the first time may have more to do, such as unpacking an image.
    let before = HostState::of(subject, Look::Shape);
    let fence = Fence::around("memory", subject.pid());
    fence.give_back();
    fence.allow(fence.used() + more);
    let done = (verb.act)(subject);
    tally.points += 1;
    let told = format!("{}, with {} KiB", verb.name, more / 1024);
    let hung_up = done.as_ref().is_err_and(|why| why.starts_with("no answer"));
    if hung_up {
        until_true(&format!("{told}: the daemon to die, that hung up"), 20, || subject.is_gone());
    }
    let died = subject.is_gone();
    drop(fence);
    eprintln!(
        "{told}: {}{}",
        if died { "died, " } else { "" },
        done.as_ref().err().map_or("done", |why| why)
    );
    if died {
        subject.boot_well();
    }
    let mut wanted = vec![(&after, Look::Shape)];
    if done.is_err() {
        wanted.push((&before, Look::Shape));
        wanted.extend(halfway.iter().map(|halfway| (halfway, Look::Shape)));
    }
    if let Err(difference) = settled(subject, &wanted) {
        tally.wrong.push(format!("{told}: neither after nor before\n{difference}"));
    }
    tally.wrong.extend(audited(subject).into_iter().map(|it| format!("{told}: audit: {it}")));
    (verb.back)(subject);
    if let Err(why) = (verb.act)(subject) {
        tally.wrong.push(format!("{told}: the verb does not do afterwards: {why}"));
    }
    (verb.back)(subject);
    died
}

#[test]
fn with_hardly_any_memory_it_does_or_refuses_or_dies_and_the_next_takes_all_up() {
    let widths: &[u64] = if machine::has_time() { &[0, 256, 1024, 4096, 16384] } else { &[0, 1024] };
    let (mut tally, mut deaths) = (Tally::default(), 0);
    for list in [HEAVY, verbs::LIFE, snapshot_verbs::KEPT, backup_verbs::VERBS] {
        let mut subject = Subject::start();
        let init = subject.furnish();
        let is_wanted =
            |verb: &&Verb| USUAL.contains(&verb.name) || HEAVY.iter().any(|it| it.name == verb.name);
        for verb in list {
            (verb.before)(&subject);
            for more in widths.iter().filter(|_| is_wanted(&verb)) {
                if tally.takes() {
                    deaths += usize::from(starved(&mut subject, verb, more * 1024, &mut tally));
                    assert_eq!(subject.init_pid("bystander"), init, "{}: the container went too", verb.name);
                }
            }
        }
    }
    eprintln!("hardly any memory: {deaths} deaths");
    assert!(deaths > 0, "there was memory enough for everything");
    tally.close("hardly any memory");
}

#[test]
fn a_daemon_that_the_kernel_kills_for_its_memory_is_followed_by_one_that_takes_all_up() {
    use std::io::Write as _;
    let mut subject = Subject::start();
    let init = subject.furnish();
    let fence = Fence::around("memory", subject.pid());
    let before = HostState::of(&subject, Look::Shape);
    fence.allow(fence.used() + (24 * MIB));
    // Bodies that are announced and never end are kept as far as they came.
    let body = vec![b' '; 1024 * 1024];
    let mut open = Vec::new();
    until_true("the kernel to kill it", 60, || {
        if let Ok(mut stream) = std::os::unix::net::UnixStream::connect(subject.socket()) {
            let head = format!(
                "POST /1.0/profiles HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.set_write_timeout(Some(std::time::Duration::from_secs(1)));
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[1..]));
            open.push(stream);
        }
        subject.is_gone()
    });
    drop((open, fence));
    assert!(std::path::Path::new(&format!("/proc/{init}")).exists(), "the container went too");
    subject.boot_well();
    assert_eq!(subject.init_pid("bystander"), init);
    settled(&subject, &[(&before, Look::Shape)]).unwrap_or_else(|why| panic!("not as before:\n{why}"));
    assert_eq!(subject.exec("bystander", "echo well").as_deref(), Ok("well"));
    assert_eq!(audited(&subject), Vec::<String>::new());
}
