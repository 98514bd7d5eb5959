//! A daemon that clients press upon: its memory and descriptors before and after, and how others are answered meanwhile.

use std::time::Duration;

use serde_json::json;

use crate::machine;
use crate::subject::Subject;
use crate::sweep::audited;
use crate::vitals::{Answers, Vitals, answers_during};
use crate::wait::{until_true, while_others_go_on};

/// How long others may wait for an answer, in milliseconds: 99 of a hundred times.
const LIMIT: u128 = 250;

/// How much a daemon may grow by what clients do to it, in KiB. A thousand requests at the same moment cost the most: a
/// thread for each, whose memory the allocator keeps for the next thousand and does not add to.
const GROWTH: u64 = 128 * 1024;

/// How many times more than usual.
#[must_use]
pub fn torture() -> usize {
    machine::torture() as usize
}

/// A daemon with a running instance `box`, to which things are done, and another one.
pub struct Stage {
    /// The daemon.
    pub subject: Subject,
    before: Vitals,
    answers: Answers,
    /// How it answered when nobody pressed.
    calm: Answers,
    /// What was wrong so far.
    pub wrong: Vec<String>,
    most: u64,
}

impl Stage {
    /// Sets it.
    ///
    /// # Panics
    /// When the daemon does not answer in time with nobody pressing.
    #[must_use]
    pub fn set() -> Stage {
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let limit = rustix::process::Rlimit { current: most, maximum: most };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("descriptors");
        let subject = Subject::start();
        subject.import("busybox").expect("the image");
        for name in ["box", "other"] {
            subject.create(name, &json!({}));
            subject.power(name, "start").expect("a start");
        }
        // What is opened and allocated once is not theirs.
        let ((), answers) = answers_during(&subject, "other", || {
            subject.exec("box", "true").expect("a command");
            while_others_go_on(Duration::from_millis(300));
        });
        assert!(
            answers.faults(99, 4 * LIMIT, &Answers::default()).is_empty(),
            "at rest: {} {:?}",
            answers.told(),
            answers.faults(99, LIMIT, &Answers::default())
        );
        let before = Vitals::of(subject.pid());
        Stage {
            subject,
            before,
            answers: Answers::default(),
            calm: answers,
            wrong: Vec::new(),
            most: before.rss,
        }
    }

    /// Notes what is wrong.
    pub fn fault(&mut self, wrong: impl Into<String>) {
        self.wrong.push(wrong.into());
    }

    /// Lets others ask while `work` is done.
    pub fn others<T>(&mut self, work: impl FnOnce(&Subject) -> T) -> T {
        let (done, answers) = answers_during(&self.subject, "other", || work(&self.subject));
        self.answers.join(answers);
        self.weigh();
        done
    }

    fn weigh(&mut self) {
        self.most = self.most.max(Vitals::of(self.subject.pid()).rss);
    }

    /// Nothing of theirs is left, and the others were served.
    ///
    /// # Panics
    /// When something was wrong.
    pub fn close(mut self, points: usize, what: &str) {
        self.weigh();
        self.before.wait_for_fds(self.subject.pid(), 20);
        until_true("all their operations to be over", 20, || {
            self.subject.get("/1.0/operations").as_object().is_none_or(|lists| !lists.contains_key("running"))
        });
        let left = audited(&self.subject);
        let growth = self.most.saturating_sub(self.before.rss);
        let told = self.answers.told();
        eprintln!(
            "hostile clients: {what}: {points} points, {told}, memory +{growth} KiB, descriptors +0, {} leftovers, {} faults",
            left.len(),
            self.wrong.len()
        );
        self.wrong.extend(self.answers.faults(99, LIMIT, &self.calm));
        self.wrong.extend(left);
        if growth > GROWTH {
            self.wrong.push(format!("the daemon has grown by {growth} KiB"));
        }
        assert!(self.wrong.is_empty(), "{what}: {}\n{}", self.wrong.join("\n"), self.subject.log_tail());
    }
}
