//! A daemon that the kernel gives too little of something: descriptors, processes, room in its runtime directory.
//! It says so, leaves nothing half done, and goes on when there is enough again.

use cabin_tests::cli::host;
use cabin_tests::disk::Disk;
use cabin_tests::fence::Fence;
use cabin_tests::squeeze::{self, Squeeze, squeezed_of};
use cabin_tests::subject::Subject;
use cabin_tests::sweep::{Tally, audited};
use cabin_tests::verbs::Verb;
use cabin_tests::wait::{until, until_true};

/// A daemon with a running container, which must not notice anything.
fn lab() -> (Subject, i64) {
    let subject = Subject::start();
    let init = subject.furnish();
    (subject, init)
}

/// Does what `test` does with a list of verbs to each list, with a daemon for each.
fn each_list(what: &str, test: impl Fn(&Subject, &[Verb], &mut Tally)) {
    let mut tally = Tally::brief();
    for list in squeeze::lists() {
        let (subject, init) = lab();
        test(&subject, list, &mut tally);
        // All are stopped by one of the verbs.
        if list.iter().all(|verb| verb.name != "all instances stop") {
            assert_eq!(subject.init_pid("bystander"), init);
        }
    }
    tally.close(what);
}

/// The descriptors a process holds.
fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").count()
}

fn limit(pid: u32, descriptors: usize) {
    host(&["prlimit", "--pid", &pid.to_string(), &format!("--nofile={descriptors}:")]).ok();
}

#[test]
fn without_descriptors_each_verb_says_so_or_does_and_none_is_lost() {
    each_list("no descriptors", |subject, list, tally| {
        let pid = subject.pid();
        let settled_at = until("a steady number of descriptors", 10, || {
            let found = descriptors(pid);
            (found == descriptors(pid)).then_some(found)
        });
        let tighten = [0, 3, 70, 90].map(|more| move || limit(pid, descriptors(pid) + more));
        let loosen = || limit(pid, 4096);
        let squeezes = tighten.each_ref().map(|tighten| Squeeze {
            tighten,
            loosen: &loosen,
            says: &["no descriptor left"],
            free: &|_| false,
            reads: false,
        });
        squeezed_of(subject, &squeezes, list, tally);
        // Further containers, pools and the like hold some of their own.
        until_true("the descriptors to be given back", 10, || descriptors(pid) < settled_at + 20);
    });
}

#[test]
fn without_processes_each_verb_says_so_or_does_and_goes_on_when_there_are_again() {
    each_list("no processes", |subject, list, tally| {
        let fence = Fence::around("pids", subject.pid());
        let tighten = [0, 1, 3].map(|more| {
            let fence = &fence;
            move || fence.allow(fence.used() + more)
        });
        let loosen = || fence.lift();
        let squeezes = tighten.each_ref().map(|tighten| Squeeze {
            tighten,
            loosen: &loosen,
            // The last words of dnsmasq and mkfs.btrfs are their own.
            says: &["Resource temporarily unavailable", "failed to create thread"],
            free: &|_| false,
            reads: false,
        });
        squeezed_of(subject, &squeezes, list, tally);
    });
}

/// What must be possible when there is no room in the runtime directory.
fn ending(verb: &str) -> bool {
    verb.contains("delete") || verb.contains("stop") || verb.contains("freeze")
}

fn with_full_run(what: &str, options: &str, fill: impl Fn(&Disk)) {
    let mut tally = Tally::brief();
    for list in squeeze::lists() {
        let disk = Disk::memory(options);
        let mut subject = Subject::start_with_run(&disk);
        let init = subject.furnish();
        let squeeze = [Squeeze {
            tighten: &|| fill(&disk),
            loosen: &|| disk.free(),
            says: &["free some space"],
            free: &ending,
            reads: true,
        }];
        squeezed_of(&subject, &squeeze, list, &mut tally);
        if list.iter().any(|verb| verb.name == "all instances stop") {
            continue;
        }
        // One that comes when it is full, after one that died and one that was ended, takes up what runs.
        for end in [Subject::crash, Subject::terminate] {
            fill(&disk);
            end(&mut subject);
            fill(&disk);
            assert!(disk.is_full());
            subject.boot_well();
            assert_eq!(subject.init_pid("bystander"), init);
            assert_eq!(subject.exec("bystander", "echo well").as_deref(), Ok("well"));
        }
        subject.power("bystander", "stop").expect("a stop");
        disk.free();
        let left = audited(&subject);
        tally.wrong.extend(left.into_iter().map(|it| format!("after a start on a full one: audit: {it}")));
    }
    tally.close(what);
}

#[test]
fn without_room_in_the_runtime_directory_each_verb_says_so_or_does_and_what_runs_is_taken_up() {
    with_full_run("a full runtime directory", "size=2m", Disk::fill);
}

#[test]
fn without_inodes_in_the_runtime_directory_each_verb_says_so_or_does_and_what_runs_is_taken_up() {
    with_full_run("no inodes in the runtime directory", "size=8m,nr_inodes=300", Disk::fill_inodes);
}
