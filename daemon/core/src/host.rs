//! Everything the daemon holds on this host, in one place, each by its own crate.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use cabin_network::Network;
use cabin_runtime::Runtime;
use cabin_runtime::cgroup::Cgroups;
use cabin_storage::Storage;
use cabin_store::Store;
use cabin_sys::command::Programs;
use cabin_sys::dir::HostDir;

use jiff::Zoned;

use crate::busy::Busy;
use crate::clock::Stretch;
use crate::instance::Claimed;
use crate::live::LiveTable;
use crate::measured::Measured;
use crate::warning::Warnings;
use crate::{Error, Events, Operations, Settings, defaults, ids, recover};

/// The daemon's hold on the host.
pub struct Host {
    settings: Settings,
    store: Store,
    dir: HostDir,
    storage: Storage,
    network: Network,
    runtime: Runtime,
    groups: Option<Arc<cabin_runtime::cgroup::CgroupWatch>>,
    programs: Programs,
    unpacker: cabin_images::Unpacker,
    events: Arc<Events>,
    operations: Operations,
    live: LiveTable,
    busy: Arc<Busy>,
    macs: Arc<Claimed>,
    ready: AtomicBool,
    late: AtomicBool,
    closing: AtomicBool,
    layout: parking_lot::RwLock<()>,
    ids: ids::Registry,
    /// Pools that were put right since the daemon started, see `storage::pool`.
    pub(crate) swept_pools: parking_lot::Mutex<BTreeSet<String>>,
    pub(crate) unpacking: parking_lot::Mutex<()>,
    pub(crate) shipped: OnceLock<Vec<String>>,
    pub(crate) building: parking_lot::Mutex<()>,
    pub(crate) facts: cabin_profiles::HostFacts,
    warnings: Warnings,
    measured: Measured,
}

impl Host {
    /// Opens the state and makes pools and networks usable. No instance is touched yet. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// When the state cannot be opened or the host lacks what every container needs. A pool or network
    /// that cannot be made usable is only logged.
    pub fn open(settings: Settings) -> Result<Arc<Host>, Error> {
        let dir = lay_out(&settings)?;
        let store = Store::open(&settings.dir.join("database/cabin.db"))?;
        let programs = Programs::find();
        let events = Arc::new(Events::default());
        let cgroups = Cgroups::new(&settings.prefix)?;
        let runtime = Runtime::new(&settings.containers_dir(), &settings.bin_dir, cgroups)?;
        let storage = Storage::new(&settings.dir)?;
        let table = settings.prefix.replace('-', "_");
        let network = Network::new(&settings.dir.join("networks"), &table, programs.clone())?;
        let registry = ids::Registry::open(&settings)?;
        let unpack_ids = registry.unpacker()?;
        let unpacker = cabin_images::Unpacker {
            helper: settings.bin_dir.join("cabin-unpack"),
            ids: cabin_images::IdRange { base: unpack_ids.base, size: unpack_ids.size },
            limits: cabin_images::Limits::default(),
        };
        // The table's thread needs the host, which is made with the table.
        let me: Arc<OnceLock<Weak<Host>>> = Arc::default();
        let back = me.clone();
        let live = LiveTable::new(move |live| {
            if let Some(host) = back.get().and_then(Weak::upgrade) {
                recover::ended(host, live);
            }
        })?;
        let host = Arc::new(Host {
            operations: Operations::new(events.clone()),
            facts: facts(),
            warnings: Warnings::default(),
            measured: Measured::default(),
            ids: registry,
            swept_pools: parking_lot::Mutex::default(),
            unpacking: parking_lot::Mutex::new(()),
            shipped: OnceLock::new(),
            building: parking_lot::Mutex::new(()),
            groups: recover::watch_groups(runtime.cgroups()),
            busy: Arc::default(),
            macs: Arc::default(),
            ready: AtomicBool::new(false),
            late: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            layout: parking_lot::RwLock::new(()),
            settings,
            store,
            dir,
            storage,
            network,
            runtime,
            programs,
            unpacker,
            events,
            live,
        });
        // Set once, here.
        let _ = me.set(Arc::downgrade(&host));
        // Before the defaults: a first start may have died while it made them.
        crate::network::sweep(&host)?;
        if defaults::made(&host)? {
            // Without rows nothing can be told from a stray; whoever lost the database still has the rest.
            crate::storage::sweep(&host)?;
        }
        defaults::ensure(&host)?;
        crate::storage::open_all(&host)?;
        crate::network::ensure_all(&host)?;
        crate::image::sweep(&host)?;
        crate::instance::sweep_backups(&host)?;
        Ok(host)
    }

    /// Takes up the instances that still run, and starts those that should.
    pub fn recover(self: &Arc<Self>) {
        recover::instances(self);
        recover::keep(self);
        recover::keep_run_dir(self);
        recover::keep_groups(self);
        crate::instance::watch_snapshots(self);
        self.runtime.keep_helper();
        self.ready.store(true, Ordering::SeqCst);
    }

    /// Stops every running instance, in the order of `boot.stop.priority`, then takes the networks down.
    /// Their rows stay: all of it comes back with the next start.
    pub fn shutdown(self: &Arc<Self>) {
        self.closing.store(true, Ordering::SeqCst);
        recover::stop_all(self);
        crate::network::take_down_all(self);
        crate::storage::close(self);
        self.leave();
    }

    /// The daemon ends, and what runs goes on: only what nothing of it needs is taken away.
    pub fn leave(&self) {
        self.runtime.dismiss_helper();
        if let Err(error) = self.runtime.cgroups().close() {
            tracing::warn!(error = %Error::from(error).report(), "empty cgroups could not be taken away");
        }
    }

    /// Puts the daemon's clock ahead by that many seconds, or back, and lets it delete what is to go by then. For
    /// tests: the host has but one clock.
    pub fn set_clock(self: &Arc<Self>, ahead: i64) {
        crate::clock::put_ahead(ahead);
        crate::instance::look_at_clock(self);
        crate::instance::go_through(self, &Stretch::from(crate::clock::here()));
    }

    /// Does what is to be done by the clock between these times, at once. For tests, that need not wait for them.
    pub fn go_through(self: &Arc<Self>, since: Zoned, until: Zoned) {
        let to_delete = Some(until.timestamp());
        crate::instance::go_through(self, &Stretch { since, until, to_delete });
    }

    /// Whether everything is being stopped: then nothing is to be started or mended any more.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Whether recovery is done.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    /// From now on a pool that is opened for the first time was not there when the daemon started.
    pub(crate) fn pools_come_late(&self) {
        self.late.store(true, Ordering::SeqCst);
    }

    /// Whether they do.
    pub(crate) fn do_pools_come_late(&self) -> bool {
        self.late.load(Ordering::SeqCst)
    }

    /// Tells of what others do to cgroups, when the kernel lets it.
    pub(crate) fn groups(&self) -> Option<&Arc<cabin_runtime::cgroup::CgroupWatch>> {
        self.groups.as_ref()
    }

    /// The daemon's own settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The operations.
    #[must_use]
    pub fn operations(&self) -> &Operations {
        &self.operations
    }

    /// The events.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Networks, pools, profiles and images are not taken away while this is held, nor profiles changed: for who is
    /// about to use one.
    pub(crate) fn keep_layout(&self) -> parking_lot::RwLockReadGuard<'_, ()> {
        self.layout.read()
    }

    /// The right to change networks, pools and profiles, and to take away what instances stand on. Whoever needs turns
    /// takes them before.
    pub(crate) fn change_layout(&self) -> parking_lot::RwLockWriteGuard<'_, ()> {
        self.layout.write()
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn dir(&self) -> &HostDir {
        &self.dir
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(crate) fn programs(&self) -> &Programs {
        &self.programs
    }

    pub(crate) fn unpacker(&self) -> &cabin_images::Unpacker {
        &self.unpacker
    }

    pub(crate) fn ids(&self) -> &ids::Registry {
        &self.ids
    }

    pub(crate) fn live(&self) -> &LiveTable {
        &self.live
    }

    pub(crate) fn measured(&self) -> &Measured {
        &self.measured
    }

    pub(crate) fn warnings(&self) -> &Warnings {
        &self.warnings
    }

    pub(crate) fn busy(&self) -> &Arc<Busy> {
        &self.busy
    }

    pub(crate) fn macs(&self) -> &Arc<Claimed> {
        &self.macs
    }
}

/// Makes the directories. Pool roots are closed to everybody (on disk, setuid files carry real ids), the
/// state directory itself may be passed through by name.
fn lay_out(settings: &Settings) -> Result<HostDir, Error> {
    let make = |path: &std::path::Path, mode| {
        HostDir::ensure(path, mode).map_err(Error::io(format!("make the directory `{}`", path.display())))
    };
    let dir = make(&settings.dir, 0o711)?;
    for (name, mode) in [
        ("database", 0o700),
        ("storage-pools", 0o711),
        ("images", 0o700),
        ("backups", 0o700),
        ("containers", 0o711),
        ("networks", 0o711),
        ("logs", 0o700),
    ] {
        dir.ensure_dir(name, mode).map_err(Error::io(format!("make the directory `{name}`")))?;
    }
    dir.sync().map_err(Error::io(format!("sync the directory `{}`", settings.dir.display())))?;
    let run = if settings.run_dir.starts_with(&settings.dir) { 0o700 } else { 0o711 };
    make(&settings.run_dir, run)?;
    Ok(dir)
}

fn facts() -> cabin_profiles::HostFacts {
    let cpus = rustix::thread::sched_getaffinity(None)
        .map(|set| {
            (0..1024).filter(|cpu| set.is_set(*cpu)).filter_map(|cpu| u32::try_from(cpu).ok()).collect()
        })
        .unwrap_or_else(|_| vec![0]);
    let info = rustix::system::sysinfo();
    let memory = info.totalram as u64 * u64::from(info.mem_unit);
    cabin_profiles::HostFacts { cpus, memory }
}
