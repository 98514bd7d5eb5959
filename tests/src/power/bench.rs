//! A daemon on disks that are copied while it works, and the look at each copy afterwards.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::disks::{Disks, Kind, Which};
use super::journal::{Journal, Known, State, part};
use super::look::{self, Files};
use super::work::{BESIDE, Deck, ROUND};
use crate::machine;
use crate::subject::Subject;
use crate::sweep::audited;

/// The letters of the clients that work beside the main one.
const OTHERS: &[&str] = &["x", "y"];

/// What a bench is made of.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// The filesystem of the daemon's directory.
    pub state: Kind,
    /// The filesystem of the pool elsewhere.
    pub pool: Kind,
    /// The driver of that pool.
    pub driver: &'static str,
    /// What the daemon is told to do wrong (`skip:sync of names`), or `off`.
    pub plan: &'static str,
    /// What the choices of the work follow from.
    pub seed: u64,
}

/// A daemon at work, and the copies of its disks.
pub struct Bench {
    // Its processes go before the disks do.
    subject: Subject,
    disks: Disks,
    far: PathBuf,
    journal: Journal,
    deck: Mutex<Deck>,
    /// The clients beside the main one.
    others: Vec<(Mutex<Deck>, Journal)>,
    image: Mutex<Files>,
    copies: Mutex<Vec<(usize, Vec<Known>)>>,
    count: AtomicUsize,
    setup: Setup,
}

/// What was found on the copies.
#[derive(Debug, Default)]
pub struct Verdict {
    /// How many copies were looked at.
    pub images: usize,
    /// How many acknowledged changes they should have.
    pub acknowledged: usize,
    /// What was acknowledged and is not there, or never was asked for and is.
    pub lost: Vec<String>,
    /// Trees that are not whole, and instances that cannot start.
    pub torn: Vec<String>,
    /// Daemons that did not come up by themselves, and what they left over.
    pub stuck: Vec<String>,
}

impl Bench {
    /// Makes the disks and starts a daemon on them.
    ///
    /// # Panics
    /// When the daemon does not come up.
    #[must_use]
    pub fn new(setup: Setup) -> Bench {
        let disks = Disks::new(setup.state, setup.pool);
        let far = disks.place(Which::Pool).join("p");
        let mut subject = Subject::rough(disks.place(Which::State).join("d"), disks.view());
        std::fs::create_dir(subject.reach(&far)).expect("a directory for the pool");
        assert!(subject.boot(setup.plan), "cabind ended at its start:\n{}", subject.log_tail());
        let journal = Journal::from(look::state(&subject, &far));
        let deck = Mutex::new(Deck::new(setup.seed, &far, setup.driver));
        let others = OTHERS
            .iter()
            .map(|own| (Mutex::new(Deck::beside(setup.seed, &far, own)), Journal::from(State::new())))
            .collect();
        let bench = Bench {
            subject,
            disks,
            far,
            journal,
            deck,
            others,
            image: Mutex::default(),
            copies: Mutex::default(),
            count: AtomicUsize::new(0),
            setup,
        };
        bench.cut();
        bench
    }

    /// Cuts the power at that step of the very first start, and lets the next daemon make the rest. `None` when
    /// there are no so many steps.
    ///
    /// # Panics
    /// When there is no daemon at all.
    #[must_use]
    pub fn first_start(kind: Kind, step: usize) -> Option<Verdict> {
        let disks = Disks::new(kind, kind);
        let mut subject = Subject::rough(disks.place(Which::State).join("d"), disks.view());
        if subject.boot(&format!("kill:{step}")) {
            return None;
        }
        disks.copy(0);
        subject.cut_power();
        disks.unmount();
        let mut verdict = Verdict { images: 1, ..Verdict::default() };
        let what = format!("a first start that ended at step {step}");
        if let Err(why) = disks.mount(Some(0)) {
            verdict.stuck.push(format!("{what}: {why}"));
            return Some(verdict);
        }
        // The directory itself may be younger than the disk knows.
        let _ = std::fs::create_dir(subject.reach(&subject.dir));
        if subject.boot("off") {
            let profile = subject.get("/1.0/profiles/default");
            let made = ["root", "eth0"].iter().all(|device| profile["devices"][device].is_object());
            let there = ["storage-pools/default", "networks/cabinbr0"]
                .map(|it| subject.ask("GET", &format!("/1.0/{it}"), &json!(null)));
            if !made || there.iter().any(Result::is_err) {
                verdict.lost.push(format!("{what}: {profile} {there:?}"));
            }
            verdict.acknowledged = 1;
            verdict.stuck.extend(audited(&subject).into_iter().map(|it| format!("{what}: audit: {it}")));
        } else {
            verdict.stuck.push(format!("{what}: cabind ended at its start\n{}", subject.log_tail()));
        }
        subject.cut_power();
        disks.unmount();
        Some(verdict)
    }

    /// The daemon.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// What was acknowledged.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The disks.
    pub fn disks(&self) -> &Disks {
        &self.disks
    }

    /// Makes changes of these kinds, one after another, and copies the disks after each that was acknowledged.
    ///
    /// # Errors
    /// What the daemon said of the first that it refused.
    pub fn work(&self, kinds: &[&str]) -> Result<(), String> {
        for kind in kinds {
            let done = lock(&self.deck).play(kind, &self.subject, &self.journal);
            match done {
                Some(Ok(())) => self.cut(),
                Some(Err(why)) => return Err(why),
                None => {}
            }
            self.remember_image();
        }
        Ok(())
    }

    /// Makes changes of these kinds whatever becomes of them; what the daemon said of those that it refused.
    pub fn work_on(&self, kinds: &[&str]) -> Vec<String> {
        let mut deck = lock(&self.deck);
        kinds.iter().filter_map(|kind| deck.play(kind, &self.subject, &self.journal)?.err()).collect()
    }

    /// Makes that many changes as the seed has it, and copies the disks after each that was acknowledged; what
    /// the daemon said of those that it refused.
    pub fn work_freely(&self, count: usize) -> Vec<String> {
        let mut refused = Vec::new();
        for _ in 0..count {
            let kind = ROUND[lock(&self.deck).below(ROUND.len())];
            refused.extend(self.work(&[kind]).err());
        }
        refused
    }

    /// Does some work while other clients change things of their own; what the daemon said of those that it refused.
    pub fn beside_others<T>(&self, work: impl FnOnce() -> T) -> (T, Vec<String>) {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let over = &over;
            let clients: Vec<_> = self
                .others
                .iter()
                .map(|(deck, journal)| {
                    scope.spawn(move || {
                        let mut refused = Vec::new();
                        let going_on = BESIDE.iter().cycle().take_while(|_| !over.load(Ordering::SeqCst));
                        for kind in going_on {
                            refused
                                .extend(lock(deck).play(kind, &self.subject, journal).and_then(Result::err));
                        }
                        refused
                    })
                })
                .collect();
            let done = work();
            over.store(true, Ordering::SeqCst);
            let refused = clients.into_iter().flat_map(|client| client.join().expect("a client")).collect();
            (done, refused)
        })
    }

    /// Does some work while somebody else copies the disks at moments that nothing decides.
    pub fn watched<T>(&self, work: impl FnOnce() -> T) -> T {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = Deck::new(self.setup.seed.rotate_left(9), &self.far, "");
                while !over.load(Ordering::SeqCst) {
                    let pause = u64::try_from(random.below(60)).unwrap_or(0) + 10;
                    std::thread::park_timeout(Duration::from_millis(pause));
                    self.cut();
                }
            });
            let done = work();
            over.store(true, Ordering::SeqCst);
            done
        })
    }

    /// Copies the disks as a power cut would leave them now.
    pub fn cut(&self) {
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        let held: Vec<_> = self.journals().map(Journal::hold).collect();
        let daemon = self.subject.pid();
        still(daemon);
        self.disks.copy(number);
        signal(daemon, rustix::process::Signal::CONT);
        lock(&self.copies).push((number, held.iter().map(|known| (**known).clone()).collect()));
    }

    /// Those of all clients, the main one first.
    fn journals(&self) -> impl Iterator<Item = &Journal> {
        std::iter::once(&self.journal).chain(self.others.iter().map(|(_, journal)| journal))
    }

    fn known(&self) -> Vec<Known> {
        self.journals().map(|journal| journal.hold().clone()).collect()
    }

    /// What an unpacked image looks like, once there is one.
    fn remember_image(&self) {
        let mut image = lock(&self.image);
        if !image.is_empty() {
            return;
        }
        let near = self.subject.dir.join("storage-pools/default/images");
        let list = |place| std::fs::read_dir(self.subject.reach(place)).into_iter().flatten().flatten();
        let entries = list(&near).chain(list(&self.far.join("images")));
        for entry in entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')) {
            *image = look::files(&entry.path().join("rootfs"));
        }
    }

    /// Cuts the power for real: the daemon ends, its disks are unmounted.
    fn fall(&mut self) {
        self.subject.cut_power();
        self.disks.unmount();
    }

    /// Cuts the power and starts a daemon on copies, at most that many of them, or as long as there is time.
    pub fn judge(mut self, most: usize, time: Duration) -> Verdict {
        let mut verdict = Verdict::default();
        // A change that does not do what is expected of it is no matter of power.
        let why = wrong(&self.known(), &look::state(&self.subject, &self.far));
        assert!(why.is_none(), "before any power cut:\n{}", why.unwrap_or_default());
        self.fall();
        let copies = std::mem::take(&mut *lock(&self.copies));
        let began = Instant::now();
        let count = copies.len();
        for (place, (number, known)) in copies.into_iter().enumerate() {
            // Spread over all of them, the last always among them.
            let chosen = (place + 1) * most.min(count) / count > place * most.min(count) / count;
            if chosen && (began.elapsed() < time || place + 1 == count) {
                let what = format!("copy {number}, after `{}`", known[0].last);
                match self.disks.mount(Some(number)) {
                    Ok(()) => {
                        self.look(&what, &known, &mut verdict);
                        self.fall();
                    }
                    Err(why) => verdict.stuck.push(format!("{what}: {why}")),
                }
            }
            self.disks.forget(number);
        }
        verdict
    }

    /// After a filesystem was shut down: mounts the disks again, as the log has them, and looks.
    pub fn judge_remounted(mut self, what: &str) -> Verdict {
        self.subject.cut_power();
        self.disks.unmount();
        self.disks.mount(None).expect("a disk that is mounted again");
        let known = self.known();
        let mut verdict = Verdict::default();
        self.look(what, &known, &mut verdict);
        self.fall();
        verdict
    }

    fn look(&mut self, what: &str, known: &[Known], verdict: &mut Verdict) {
        verdict.images += 1;
        verdict.acknowledged = verdict.acknowledged.max(known.iter().map(|known| known.acknowledged).sum());
        let mark = self.subject.reach(&self.subject.dir.join("run/boot-id"));
        if mark.exists() {
            std::fs::write(mark, "00000000-0000-0000-0000-000000000000\n").expect("another boot's mark");
        }
        if !self.subject.boot("off") {
            verdict.stuck.push(format!("{what}: cabind ended at its start\n{}", self.subject.log_tail()));
            return;
        }
        let found = look::state(&self.subject, &self.far);
        if let Some(why) = wrong(known, &found) {
            verdict.lost.push(format!("{what}:\n{why}"));
        }
        let torn = look::torn(&self.subject, &self.far, &lock(&self.image));
        verdict.torn.extend(torn.into_iter().map(|it| format!("{what}:\n{it}")));
        verdict.stuck.extend(audited(&self.subject).into_iter().map(|it| format!("{what}: audit: {it}")));
        self.start_one(what, &found, verdict);
    }

    /// Starts an instance, another each time, and asks it for its mark.
    fn start_one(&self, what: &str, found: &State, verdict: &mut Verdict) {
        let names: Vec<&str> = found.keys().filter_map(|key| key.strip_prefix("instance ")).collect();
        let Some(name) = names.get(verdict.images % names.len().max(1)) else { return };
        let wanted = found.get(&format!("instance {name}")).map(String::as_str).unwrap_or_default();
        let wanted = wanted.rsplit('=').next().unwrap_or_default();
        if wanted == "no-tree" {
            return;
        }
        let body = json!({ "action": "start", "timeout": 30 });
        let started = self.subject.ask("PUT", &format!("/1.0/instances/{name}/state"), &body);
        if let Err(why) = started.as_ref()
            && !why.contains("running")
        {
            verdict.torn.push(format!("{what}: `{name}` does not start: {why}"));
            return;
        }
        let script = "test ! -s /mark || cat /mark";
        match self.subject.exec(name, script) {
            Ok(text) if wanted == "-" || text == format!("<{wanted}>") => {}
            other => verdict.torn.push(format!("{what}: `{name}` has {other:?}, not {wanted}")),
        }
    }
}

impl Verdict {
    /// Takes what another found.
    pub fn add(&mut self, other: Verdict) {
        self.images += other.images;
        self.acknowledged += other.acknowledged;
        self.lost.extend(other.lost);
        self.torn.extend(other.torn);
        self.stuck.extend(other.stuck);
    }

    /// Whether anything is wrong.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        !(self.lost.is_empty() && self.torn.is_empty() && self.stuck.is_empty())
    }

    /// Prints the numbers, and fails when anything is wrong.
    ///
    /// # Panics
    /// When something was lost, torn, or did not come up.
    pub fn close(self, what: &str) {
        eprintln!(
            "{what}: {} crash images, {} acknowledged changes, {} lost, {} torn, {} leftovers",
            self.images,
            self.acknowledged,
            self.lost.len(),
            self.torn.len(),
            self.stuck.len()
        );
        let wrong = [&self.lost, &self.torn, &self.stuck].map(|found| found.join("\n")).concat();
        assert!(!self.is_bad(), "{what}:\n{wrong}");
        assert!(self.images > 0 && self.acknowledged > 0, "{what}: nothing was looked at");
    }
}

/// What is wrong with a state that was found, each client's part of it looked at by what that client knows.
fn wrong(known: &[Known], found: &State) -> Option<String> {
    let owners = std::iter::once("").chain(OTHERS.iter().copied());
    let faults: Vec<String> =
        owners.zip(known).filter_map(|(own, known)| known.wrong(&part(found, own, OTHERS))).collect();
    (!faults.is_empty()).then(|| faults.join("\n"))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    // One that ended by itself is missed elsewhere.
    let _ = pid.map(|pid| rustix::process::kill_process(pid, signal));
}

/// Stops every thread of a process: of what it does later nothing can be in one copy and not in the other.
fn still(pid: u32) {
    signal(pid, rustix::process::Signal::STOP);
    let deadline = Instant::now() + machine::time(Duration::from_secs(10));
    loop {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let mut stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
        let all = stats.all(|stat| {
            let state = stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
            // One that waits for a disk stops before it does anything else.
            matches!(state, Some('T' | 't' | 'D' | 'Z' | 'X') | None)
        });
        if all {
            return;
        }
        assert!(Instant::now() < deadline, "waited 10 s in vain for: every thread of cabind to stand still");
        std::thread::yield_now();
    }
}
