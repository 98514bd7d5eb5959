//! Containers that take what they can get: while each of them does its worst, the API and another container answer,
//! a forced stop and a delete come to an end, and nothing is left over. CABIN_TORTURE makes each last longer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cabin_tests::subject::Subject;
use cabin_tests::sweep::audited;
use cabin_tests::vitals::{Answers, MANY, Vitals, answers_during, answers_until};
use cabin_tests::wait::{until_true, while_others_go_on};
use cabin_tests::{api, audit, machine};
use serde_json::{Value, json};

/// How long others may wait for the API, in milliseconds: 99 of a hundred times.
const LIMIT: u128 = 250;

/// How long is looked how the machine answers before something is lit, and while it is at its worst.
const CALM: Duration = Duration::from_millis(500);

/// See [`CALM`].
const PRESSED: Duration = Duration::from_millis(1500);

/// Within what time there must be [`MANY`] answers beside a bomb: twice what they take if each takes as long as it may.
const ENOUGH: Duration = Duration::from_secs(100);

/// How long a forced stop and a delete may take together.
const END: Duration = Duration::from_secs(30);

/// How much a daemon may grow by what a container does, in KiB.
const GROWTH: u64 = 64 * 1024;

/// Something a container does to its host.
struct Bomb {
    name: &'static str,
    /// What it is limited to, beside 256 MiB and 600 processes.
    config: &'static [(&'static str, &'static str)],
    /// Run by the container's shell.
    script: &'static str,
    /// How it shows that it is at its worst.
    lit: Lit,
    /// A command in another container that must succeed all the same.
    elsewhere: &'static str,
}

/// How a bomb shows that it is at its worst.
enum Lit {
    /// There are nearly as many processes as may be.
    Processes,
    /// There was no memory left.
    Memory,
    /// The console says the same again and again.
    Console,
    /// This command inside succeeds.
    Inside(&'static str),
}

const PLAIN: Bomb = Bomb { name: "", config: &[], script: "", lit: Lit::Inside("true"), elsewhere: "true" };

const BOMBS: &[Bomb] = &[
    Bomb { name: "forks", script: "f() { f | f & }; f; f; sleep 1000", lit: Lit::Processes, ..PLAIN },
    Bomb {
        name: "forks without a limit",
        config: &[("limits.processes", ""), ("limits.memory", "")],
        script: "f() { f | f & }; f; sleep 1000",
        lit: Lit::Processes,
        elsewhere: "for i in 1 2 3 4 5 6 7 8; do sleep 0 & done; wait",
    },
    Bomb {
        name: "memory",
        script: "while :; do tail /dev/zero; tail /dev/zero & tail /dev/zero & wait; done",
        lit: Lit::Memory,
        ..PLAIN
    },
    Bomb {
        name: "full /dev/shm and tmpfs",
        script: "mkdir -p /t; mount -t tmpfs none /t; (dd if=/dev/zero of=/dev/shm/a bs=1M & \
                 dd if=/dev/zero of=/t/a bs=1M & sleep 1000) 2>/dev/null",
        lit: Lit::Memory,
        ..PLAIN
    },
    Bomb {
        name: "100,000 mounts",
        script: "cd /; many() { mkdir /$1; mount -t tmpfs none /$1; i=0; while [ $i -lt $2 ]; do mkdir /$1/$i; \
                 mount -o rbind /$1 /$1/$i || return; i=$((i + 1)); done; }; \
                 many a 16; many b 15; many c 10; many d 9; many e 7; i=0; \
                 while mount --bind /tmp /tmp; do i=$((i + 1)); done; sleep 1000",
        lit: Lit::Inside("test $(wc -l </proc/self/mountinfo) -gt 99900"),
        ..PLAIN
    },
    Bomb {
        name: "cgroups",
        script: "cd /sys/fs/cgroup; i=0; while mkdir $i; do i=$((i + 1)); [ $i -lt 5000 ] || break; done; \
                 cd 1 && while mkdir d; do cd d; done; sleep 1000",
        lit: Lit::Inside("test $(find /sys/fs/cgroup -type d | wc -l) -gt 990"),
        ..PLAIN
    },
    Bomb {
        name: "network namespaces",
        script: "for i in $(seq 1 250); do unshare -n sleep 1000 & done; sleep 1000",
        lit: Lit::Inside("test $(ls -l /proc/[0-9]*/ns/net | awk '{ print $NF }' | sort -u | wc -l) -gt 200"),
        ..PLAIN
    },
    Bomb {
        name: "a flood of the console",
        script: "for i in 1 2 3 4; do yes $(seq 1 200) >/dev/console & done; sleep 1000",
        lit: Lit::Console,
        ..PLAIN
    },
    Bomb {
        name: "deafness to every signal, and zombies",
        script: "for i in $(seq 1 64); do trap '' $i 2>/dev/null; done; \
                 for i in $(seq 1 40); do sh -c 'while :; do sleep 1; done' & done; \
                 for i in $(seq 1 10); do sh -c 'for i in $(seq 1 40); do true & done; exec sleep 1000' & done; \
                 while :; do sleep 1; done",
        lit: Lit::Inside("test $(grep -l ^State:.Z /proc/[0-9]*/status | wc -l) -gt 300"),
        ..PLAIN
    },
    Bomb {
        name: "inotify instances and terminals, all of them",
        script: "ulimit -n 100000; /root/cabin-bomb inotify >/root/inotify & \
                 /root/cabin-bomb terminals >/root/terminals & sleep 1000",
        lit: Lit::Inside("test -s /root/inotify && test -s /root/terminals"),
        elsewhere: "/root/cabin-bomb inotify 30 && /root/cabin-bomb terminals 30",
        ..PLAIN
    },
    Bomb {
        name: "files, wide and deep",
        script: "mkdir /root/wide; cd /root/wide; seq 1 3000 | xargs touch; mkdir /root/deep; cd /root/deep; \
                 n=$(seq 1 40 | tr -d '\\n'); i=0; while [ $i -lt 100 ]; do mkdir $n && cd $n || break; \
                 i=$((i + 1)); done; touch /root/lit; sleep 1000",
        lit: Lit::Inside("test -e /root/lit"),
        ..PLAIN
    },
    Bomb {
        name: "logs without end",
        script: "for i in 1 2; do dd if=/dev/zero of=/var/log/endless$i bs=1M count=400 & done 2>/dev/null; \
                 for i in 1 2 3; do yes $(seq 1 100) | logger & done; sleep 1000",
        lit: Lit::Inside("test $(du -m /var/log | cut -f1) -gt 300"),
        ..PLAIN
    },
];

/// A number that the host keeps in a control group of the instance: all that the file holds, or what follows `key`.
fn number(subject: &Subject, file: &str, key: &str) -> Option<u64> {
    let groups = audit::cgroups(&subject.dir);
    let of_box = groups.iter().filter(|group| group.ends_with("box"));
    let texts = of_box.filter_map(|group| std::fs::read_to_string(group.join(file)).ok());
    let of_text = |text: String| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
    texts.filter_map(of_text).next()
}

fn is_lit(subject: &Subject, lit: &Lit) -> bool {
    match lit {
        Lit::Processes => {
            let (now, most) = (number(subject, "pids.current", ""), number(subject, "pids.max", ""));
            now.zip(most).is_some_and(|(now, most)| now * 10 >= most * 9)
        }
        Lit::Memory => {
            let failed = number(subject, "memory.failcnt", "");
            failed.or_else(|| number(subject, "memory.events", "max ")).is_some_and(|count| count > 0)
        }
        Lit::Console => {
            let said = subject.call("GET", "/1.0/instances/box/console", None).expect("an answer").text();
            said.matches(" 199 200").count() > 40
        }
        Lit::Inside(command) => subject.exec("box", command).is_ok(),
    }
}

/// Lets others ask until a time is over and there are enough answers to judge them by.
fn press(count: &AtomicUsize) -> Result<(), String> {
    while_others_go_on(PRESSED * machine::torture());
    let deadline = Instant::now() + machine::time(ENOUGH);
    loop {
        match count.load(Ordering::Relaxed) {
            found if found >= MANY => return Ok(()),
            found if Instant::now() >= deadline => return Err(format!("only {found} answers in {ENOUGH:?}")),
            _ => while_others_go_on(Duration::from_millis(50)),
        }
    }
}

/// Starts and stops an instance that was stopped.
fn start_and_stop(subject: &Subject) -> Result<(), String> {
    let began = Instant::now();
    subject.power("third", "start")?;
    subject.exec("third", "true")?;
    subject.power("third", "stop")?;
    let took = began.elapsed();
    if took > machine::time(END) { Err(format!("it took {took:?}")) } else { Ok(()) }
}

/// Puts the program that takes what the kernel counts into an instance.
fn arm(subject: &Subject, name: &str) {
    let program = std::fs::read(env!("CARGO_BIN_EXE_cabin-bomb")).expect("the program");
    let headers = [("X-Incus-type", "file"), ("X-Incus-mode", "0755")];
    let target = format!("/1.0/instances/{name}/files?path=/root/cabin-bomb");
    let reply = api::send(&subject.socket(), "POST", &target, &headers, &program).expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// Lights it in a container of its own; what was wrong.
fn explode(subject: &Subject, bomb: &Bomb, rest: &mut Answers, answers: &mut Answers) -> Vec<String> {
    let mut config = json!({ "limits.memory": "256MiB", "limits.processes": "600" });
    for (key, value) in bomb.config {
        match value.is_empty() {
            true => drop(config.as_object_mut().and_then(|config| config.remove(*key))),
            false => config[*key] = json!(value),
        }
    }
    subject.create("box", &config);
    subject.power("box", "start").expect("a start");
    if bomb.script.contains("cabin-bomb") {
        arm(subject, "box");
    }
    // How the machine itself is, with nothing lit.
    let ((), calm) = answers_during(subject, "other", || while_others_go_on(CALM));
    let before = Vitals::of(subject.pid());
    let mut wrong = Vec::new();
    let (took, during) = answers_until(subject, "other", |count| {
        let body = json!({ "command": ["sh", "-c", bomb.script], "wait-for-websocket": false, "interactive": false });
        let reply = subject.call("POST", "/1.0/instances/box/exec", Some(&body)).expect("an answer");
        assert_eq!(reply.status, 202, "{}", reply.text());
        let began = Instant::now();
        until_true(&format!("{} to be at their worst", bomb.name), 40, || is_lit(subject, &bomb.lit));
        let took = began.elapsed();
        let started = start_and_stop(subject);
        wrong.extend(
            started.err().map(|why| format!("another container cannot be started and stopped: {why}")),
        );
        wrong.extend(press(count).err());
        let elsewhere = subject.exec("other", bomb.elsewhere);
        wrong.extend(
            elsewhere.err().map(|why| format!("another container cannot `{}`: {why}", bomb.elsewhere)),
        );
        took
    });
    wrong.extend(during.faults_by_number(LIMIT, &calm));
    let began = Instant::now();
    let (ended, after) = answers_during(subject, "other", || {
        subject.power("box", "stop").and_then(|_| subject.ask("DELETE", "/1.0/instances/box", &Value::Null))
    });
    let end = began.elapsed();
    wrong.extend(ended.err().map(|why| format!("cannot be ended: {why}")));
    wrong.extend(after.faults(90, LIMIT, &calm).into_iter().map(|why| format!("while it is ended: {why}")));
    if end > machine::time(END) {
        wrong.push(format!("its end took {end:?}"));
    }
    wrong.extend(audited(subject));
    let growth = Vitals::of(subject.pid()).rss.saturating_sub(before.rss);
    if growth > GROWTH {
        wrong.push(format!("the daemon has grown by {growth} KiB"));
    }
    eprintln!(
        "    {}: {}; at rest {}; lit after {} ms, ended in {} ms, memory +{growth} KiB",
        bomb.name,
        during.told(),
        calm.told(),
        took.as_millis(),
        end.as_millis()
    );
    rest.join(calm);
    answers.join(during);
    answers.join(after);
    wrong.into_iter().map(|why| format!("{}: {why}", bomb.name)).collect()
}

#[test]
fn no_container_takes_the_others_down() {
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    subject.create("other", &json!({}));
    subject.power("other", "start").expect("a start");
    arm(&subject, "other");
    subject.create("third", &json!({}));
    let only = std::env::var("CABIN_BOMB").unwrap_or_default();
    let (mut rest, mut answers) = (Answers::default(), Answers::default());
    let mut wrong = Vec::new();
    let (mut count, mut repeated) = (0, 0);
    for bomb in BOMBS.iter().filter(|bomb| bomb.name.contains(&only)) {
        let mut found = explode(&subject, bomb, &mut rest, &mut answers);
        if !found.is_empty() {
            // What a container does to others it does each time; what else the machine does for a moment it does not.
            eprintln!("    once more, for: {}", found.join(", "));
            found = explode(&subject, bomb, &mut rest, &mut answers);
            repeated += 1;
        }
        wrong.extend(found);
        count += 1;
    }
    // Commands elsewhere are some dozens beside one bomb, and thousands beside all of them.
    wrong.extend(answers.faults(99, LIMIT, &rest).into_iter().map(|why| format!("over all of them {why}")));
    eprintln!(
        "hostile guests: {count} bombs, {repeated} repeated, {}, {} leftovers and faults",
        answers.told(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), subject.log_tail());
}

/// What a container can lay out for who comes in from outside.
const TRAPS: &[(&str, &str)] = &[
    (
        "cgroups whose names are no text",
        "for d in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do \
         n=$d/$(printf '\\377\\376'); mkdir $n $n/$(printf 'a\\200') 2>/dev/null; done; true",
    ),
    (
        "groups that cannot be",
        "for n in 70000 4294967294 4294967295; do echo x$n:x:$n:root >>/etc/group; done",
    ),
    ("answers in the kernel's place", "/root/cabin-bomb answers >/dev/null 2>&1 &"),
    (
        "pipes where files are read and written",
        "for f in passwd group hosts hostname resolv.conf; do rm -f /etc/$f; mkfifo /etc/$f; done; mkfifo /root/pipe",
    ),
    (
        "files without end where files are read and written",
        "for f in passwd group hosts hostname resolv.conf; do rm -f /etc/$f; ln -s /dev/zero /etc/$f; done; \
         ln -s /dev/zero /root/pipe",
    ),
    (
        "links that go round",
        "rm -rf /etc/passwd /etc/group /root/pipe; ln -s passwd /etc/passwd; ln -s group /etc/group; \
         ln -s pipe /root/pipe; cd /; mv /root /root.kept; ln -s root /root",
    ),
    (
        "a tree deeper than any path, under names of every byte",
        "mkfifo /root/pipe; cd /root; n=$(seq 1 60 | tr -d '\\n'); i=0; while [ $i -lt 120 ]; do \
         mkdir $n && cd $n || break; i=$((i + 1)); done; cd /root; \
         touch \"$(printf 'a\\nb')\" \"$(printf '\\377\\376')\" ' ' '*' -- -rf '$(reboot)'",
    ),
    (
        "files that look larger than they are",
        "mkfifo /root/pipe; truncate -s 1024G /root/sparse; truncate -s 8191G /root/huge; \
         for i in $(seq 1 500); do ln /root/sparse /root/link$i; done",
    ),
    ("no /proc", "mkfifo /root/pipe; mount -t tmpfs none /proc"),
    ("no terminals and no /dev", "mkfifo /root/pipe; mount -t tmpfs none /dev/pts; mount -t tmpfs none /dev"),
    (
        "its own cgroups frozen",
        "mkfifo /root/pipe; cd /sys/fs/cgroup; mkdir cold; for p in $(cat cgroup.procs); do \
         [ $p = $$ ] || echo $p >cold/cgroup.procs; done; echo 1 >cold/cgroup.freeze",
    ),
    (
        "cgroups that take no process",
        "mkfifo /root/pipe; cd /sys/fs/cgroup; mkdir thread; echo threaded >thread/cgroup.type; \
         echo 0 >cgroup.max.descendants; true",
    ),
    (
        "a world nobody may read",
        "mkfifo /root/pipe; chmod 000 /root /etc /usr /bin /sbin 2>/dev/null; mount -t tmpfs -o mode=000 none /sys; true",
    ),
];

/// Does one thing to a container with a trap in it; what is wrong when it took too long.
fn in_time(
    what: &str,
    done: impl FnOnce() -> Result<Value, String>,
) -> (Result<Value, String>, Option<String>) {
    let began = Instant::now();
    let result = done();
    let took = began.elapsed();
    let late =
        (took > machine::time(Duration::from_secs(10))).then(|| format!("{what} took {took:?}: {result:?}"));
    (result, late)
}

fn spring(subject: &Subject, name: &str, script: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut must = |what: &str, done: &dyn Fn() -> Result<Value, String>| {
        let (result, late) = in_time(what, done);
        wrong.extend(late);
        wrong.extend(result.err().map(|why| format!("{what}: {why}")));
    };
    let state = |action: &str| json!({ "action": action, "force": action == "stop", "timeout": 20 });
    let run = |command: &[&str]| {
        let body = json!({ "command": command, "wait-for-websocket": false, "interactive": false });
        let ended = subject.ask("POST", "/1.0/instances/box/exec", &body)?;
        if ended["metadata"]["return"] == 0 { Ok(ended) } else { Err(ended.to_string()) }
    };
    subject.create("box", &json!({ "limits.memory": "256MiB", "limits.processes": "600" }));
    subject.power("box", "start").expect("a start");
    if script.contains("cabin-bomb") {
        arm(subject, "box");
    }
    must("the trap", &|| run(&["sh", "-c", script]));
    must("a command", &|| run(&["/bin/busybox", "true"]));
    must("its state", &|| subject.ask("GET", "/1.0/instances/box/state", &Value::Null));
    must("a file it may not give", &|| {
        let reply = subject.call("GET", "/1.0/instances/box/files?path=/root/pipe", None);
        let reply = reply.map_err(|why| why.to_string())?;
        // A link is shown as one; a pipe is refused.
        let endless = reply.status == 200 && reply.body.len() > 100;
        if reply.status >= 500 || endless {
            Err(format!("{}: {}", reply.status, reply.text()))
        } else {
            Ok(Value::Null)
        }
    });
    must("a snapshot", &|| subject.ask("POST", "/1.0/instances/box/snapshots", &json!({ "name": "s" })));
    must("a stop", &|| subject.ask("PUT", "/1.0/instances/box/state", &state("stop")));
    // It may or may not come up again: that is its own doing.
    let (_, late) = in_time("a start", || subject.ask("PUT", "/1.0/instances/box/state", &state("start")));
    wrong.extend(late);
    if subject.status("box") == "Running" {
        wrong.extend(subject.power("box", "stop").err());
    }
    let mut must = |what: &str, done: &dyn Fn() -> Result<Value, String>| {
        let (result, late) = in_time(what, done);
        wrong.extend(late);
        wrong.extend(result.err().map(|why| format!("{what}: {why}")));
    };
    must("a restore", &|| subject.ask("PUT", "/1.0/instances/box", &json!({ "restore": "s" })));
    let source = json!({ "type": "copy", "source": "box" });
    must("a copy", &|| subject.ask("POST", "/1.0/instances", &json!({ "name": "twin", "source": source })));
    for target in ["/1.0/instances/twin", "/1.0/instances/box"] {
        must("a delete", &|| subject.ask("DELETE", target, &Value::Null));
    }
    wrong.extend(audited(subject));
    wrong.into_iter().map(|why| format!("{name}: {why}")).collect()
}

#[test]
fn traps_of_a_container_catch_nobody() {
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    let only = std::env::var("CABIN_BOMB").unwrap_or_default();
    let mut wrong = Vec::new();
    let traps: Vec<_> = TRAPS.iter().filter(|(name, _)| name.contains(&only)).collect();
    for (name, script) in &traps {
        wrong.extend(spring(&subject, name, script));
    }
    eprintln!("hostile guests: {} traps, {} leftovers and faults", traps.len(), wrong.len());
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), subject.log_tail());
}
