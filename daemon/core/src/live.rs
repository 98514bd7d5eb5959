//! The containers that run now: their supervisors, and one thread that learns when one ends.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cabin_network::NicSpec;
use cabin_runtime::{Exit, Supervisor, Watch};
use parking_lot::{Condvar, Mutex, RwLock};
use rustix::event::epoll;

use crate::Error;

/// How often `boot.autorestart` starts a container again within [`RESTART_TIME`] (as Incus).
const RESTARTS: usize = 10;

/// See [`RESTARTS`].
const RESTART_TIME: Duration = Duration::from_secs(60);

/// A nic of a running container, and the bridge it hangs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugged {
    /// The device's name in the config.
    pub device: String,
    /// The network; none for a pair of which the host keeps the other end.
    pub network: Option<String>,
    /// The veth pair.
    pub nic: NicSpec,
}

/// A running container.
pub struct Live {
    /// The instance.
    pub name: String,
    /// Its supervisor.
    pub supervisor: Supervisor,
    /// RFC 3339.
    pub started_at: String,
    /// Its nics.
    pub nics: Mutex<Vec<Plugged>>,
    /// Whether it is frozen.
    pub frozen: AtomicBool,
    /// Whether a stop was asked for, so that its end is no accident.
    pub stopping: AtomicBool,
    /// Somebody stopped it by force while it was to be restarted: it is not started again.
    pub stays_down: AtomicBool,
    /// Held while the container's interfaces are read.
    pub asking: Mutex<()>,
    ended: Mutex<Option<Exit>>,
    end: Condvar,
}

impl Live {
    /// A container whose init was just released (or found again).
    #[must_use]
    pub fn new(name: &str, supervisor: Supervisor, started_at: String, nics: Vec<Plugged>) -> Live {
        Live {
            name: name.to_owned(),
            supervisor,
            started_at,
            nics: Mutex::new(nics),
            frozen: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stays_down: AtomicBool::new(false),
            asking: Mutex::new(()),
            ended: Mutex::new(None),
            end: Condvar::new(),
        }
    }

    /// Waits until the container ended; `None` when the time is over first. No timeout is for ever.
    pub fn wait(&self, timeout: Option<Duration>) -> Option<Exit> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut ended = self.ended.lock();
        while ended.is_none() {
            match deadline {
                Some(deadline) => {
                    if self.end.wait_until(&mut ended, deadline).timed_out() {
                        break;
                    }
                }
                None => self.end.wait(&mut ended),
            }
        }
        *ended
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        *self.ended.lock()
    }

    fn finish(&self, exit: Exit) {
        *self.ended.lock() = Some(exit);
        self.end.notify_all();
    }

    /// Its network namespace. A pid that was given to somebody else meanwhile is noticed: the supervisor
    /// still holds the init it started.
    ///
    /// # Errors
    /// When the container is gone.
    pub fn netns(&self) -> Result<std::os::fd::OwnedFd, Error> {
        let path = format!("/proc/{}/ns/net", self.supervisor.init_pid());
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        let netns = rustix::fs::open(&path, flags, rustix::fs::Mode::empty())
            .map_err(|e| Error::io(format!("open the network namespace of `{}`", self.name))(e.into()))?;
        match self.exit() {
            None => Ok(netns),
            Some(_) => Err(Error::invalid(format!("instance `{}` is not running", self.name))),
        }
    }

    /// Whether it is frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Relaxed)
    }
}

/// The table of running containers, by instance name.
pub struct LiveTable {
    all: RwLock<HashMap<String, Arc<Live>>>,
    restarts: Mutex<HashMap<String, Vec<Instant>>>,
    watched: Arc<Watched>,
}

struct Watched {
    epoll: std::os::fd::OwnedFd,
    by_number: Mutex<HashMap<u64, (Watch, Arc<Live>)>>,
    next: Mutex<u64>,
}

impl LiveTable {
    /// An empty table; `ended` is called on the watching thread for each container that ends, and must not
    /// take long.
    ///
    /// # Errors
    /// When the kernel gives no epoll or thread.
    pub fn new(ended: impl Fn(Arc<Live>) + Send + 'static) -> Result<LiveTable, Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|e| Error::io("watch running containers")(e.into()))?;
        let watched = Arc::new(Watched { epoll, by_number: Mutex::default(), next: Mutex::new(0) });
        let seen = watched.clone();
        std::thread::Builder::new()
            .name("containers".into())
            .stack_size(256 * 1024)
            .spawn(move || watch(&seen, &ended))
            .map_err(Error::io("watch running containers"))?;
        Ok(LiveTable { all: RwLock::default(), restarts: Mutex::default(), watched })
    }

    /// Adds a container and watches it until it ends.
    ///
    /// # Errors
    /// When its supervisor cannot be watched.
    pub fn add(&self, live: Arc<Live>) -> Result<(), Error> {
        let watch = live.supervisor.watch()?;
        let number = {
            let mut next = self.watched.next.lock();
            *next += 1;
            *next
        };
        let mut by_number = self.watched.by_number.lock();
        let added = epoll::add(
            &self.watched.epoll,
            watch.as_fd(),
            epoll::EventData::new_u64(number),
            epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::RDHUP,
        );
        added.map_err(|e| Error::io("watch a running container")(e.into()))?;
        // Its end is told under the lock that is held here, so it is in the table before it can be taken out.
        self.all.write().insert(live.name.clone(), live.clone());
        by_number.insert(number, (watch, live));
        Ok(())
    }

    /// Gives a container's supervisor another control socket.
    ///
    /// # Errors
    /// When that cannot be made, or the container has ended.
    pub fn give_socket(&self, live: &Arc<Live>) -> Result<(), Error> {
        let by_number = self.watched.by_number.lock();
        match by_number.values().find(|(_, present)| Arc::ptr_eq(present, live)) {
            Some((watch, _)) => Ok(watch.give_socket()?),
            None => Err(Error::invalid(format!("instance `{}` has ended", live.name))),
        }
    }

    /// The running container of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Live>> {
        self.all.read().get(name).cloned()
    }

    /// Whether a container may be started again by itself once more; if so it is counted. What ends again and
    /// again would keep the host busy for nothing.
    pub fn may_restart(&self, name: &str) -> bool {
        let mut restarts = self.restarts.lock();
        restarts.retain(|_, times| times.last().is_some_and(|last| last.elapsed() < RESTART_TIME));
        let times = restarts.entry(name.to_owned()).or_default();
        times.retain(|time| time.elapsed() < RESTART_TIME);
        let may = times.len() < RESTARTS;
        if may {
            times.push(Instant::now());
        }
        may
    }

    /// Forgets a container that ended, if it is still the same one.
    pub fn remove(&self, live: &Arc<Live>) {
        let mut all = self.all.write();
        if all.get(&live.name).is_some_and(|present| Arc::ptr_eq(present, live)) {
            all.remove(&live.name);
        }
    }

    /// All of them.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Live>> {
        self.all.read().values().cloned().collect()
    }
}

fn watch(watched: &Watched, ended: &(impl Fn(Arc<Live>) + Send)) {
    let mut events = Vec::with_capacity(64);
    loop {
        events.clear();
        match epoll::wait(&watched.epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // The descriptor is ours and stays open: any other error is a broken program.
            Err(_) => return,
        }
        for event in &events {
            let found = watched.by_number.lock().remove(&event.data.u64());
            let Some((watch, live)) = found else { continue };
            // A watch that cannot be removed was closed by the other side; dropping it removes it.
            let _ = epoll::delete(&watched.epoll, watch.as_fd());
            let exit = watch.wait();
            live.finish(exit);
            ended(live);
        }
    }
}
