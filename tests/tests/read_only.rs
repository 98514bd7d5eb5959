//! Every kind of work in a pool, or on a disk, that is read-only: it says so and changes nothing, and is done once that can
//! be written again.

use cabin_tests::cli::host;
use cabin_tests::disk::{Disk, seal};
use cabin_tests::host_state::{HostState, Look, settled, settled_within};
use cabin_tests::squeeze::{self, Squeeze, is_told, squeezed_of};
use cabin_tests::subject::Subject;
use cabin_tests::sweep::{Tally, audited, redo};
use cabin_tests::verbs::Verb;
use serde_json::json;

const SAYS: &str = "the disk is read-only";

#[test]
fn in_a_pool_that_is_read_only_each_verb_says_so_or_does() {
    let mut tally = Tally::brief();
    for list in squeeze::lists() {
        let disk = Disk::btrfs(600);
        let place = disk.sealable("pool");
        let config = json!({ "source": place });
        let pool = json!({ "name": "default", "driver": "overlay", "config": config });
        let subject = Subject::start_with_pool(&pool);
        subject.import("busybox").expect("the image");
        let squeeze = [Squeeze {
            tighten: &|| seal(&place, true),
            loosen: &|| seal(&place, false),
            says: &[SAYS],
            free: &|_| false,
            reads: true,
        }];
        squeezed_of(&subject, &squeeze, list, &mut tally);
    }
    tally.close("a read-only pool");
}

#[test]
fn on_a_disk_that_the_kernel_made_read_only_each_verb_says_so_or_does() {
    let mut tally = Tally::brief();
    for list in squeeze::lists() {
        let disk = Disk::new(600, None);
        let mut subject = Subject::start_on(&disk);
        subject.import("busybox").expect("the image");
        for verb in list.iter().filter(|verb| squeeze::is_tried(verb) && !is_of_memory(verb)) {
            (verb.before)(&subject);
            if tally.takes() {
                broken(&mut subject, &disk, verb, &mut tally);
            }
        }
    }
    tally.close("a read-only disk");
}

/// What stands still does so in memory alone, and no boot of the host brings it back.
fn is_of_memory(verb: &Verb) -> bool {
    ["instance freeze", "instance unfreeze"].contains(&verb.name)
}

/// Does a verb on a disk that breaks down before it, and again when it is mended and the host has started anew.
fn broken(subject: &mut Subject, disk: &Disk, verb: &Verb, tally: &mut Tally) {
    let exact = HostState::of(subject, Look::Exact);
    let shape = exact.masked();
    // What guests wrote is nobody's to lose here.
    host(&["sync", "--file-system", &disk.place().display().to_string()]).ok();
    let logged = subject.log().len();
    disk.break_down();
    let done = (verb.act)(subject);
    tally.points += 1;
    let mut tell = |what: String| tally.wrong.push(format!("{}: {what}", verb.name));
    if let Err(why) = &done {
        eprintln!("{}: {why}", verb.name);
        if !is_told(subject, logged, why, &[SAYS]) {
            tell(format!("does not say that {SAYS}: {why}"));
        }
        if let Err(difference) = settled(subject, &[(&exact, Look::Exact)]) {
            tell(format!("is not as before\n{difference}"));
        }
    }
    subject.cut_power();
    disk.mend();
    // As of another boot of the host.
    std::fs::write(subject.dir.join("run/boot-id"), "0000\n").expect("a mark");
    subject.boot_well();
    // What ran runs again.
    if done.is_err()
        && let Err(difference) = settled_within(30, subject, &[(&shape, Look::Shape)])
    {
        tell(format!("is not as before when the disk is mended\n{difference}"));
    }
    (verb.back)(subject);
    redo(subject, verb, verb.name, tally);
    tally.wrong.extend(audited(subject).into_iter().map(|it| format!("{}: audit: {it}", verb.name)));
}
