//! Operations: every change a client waits for is one. They are watched, waited for, and fade away a
//! little after they ended.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cabin_api::StatusCode;
use cabin_api::event::Requestor;
use cabin_api::operation::{Class, Operation};
use cabin_undo::trace;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::event::on_behalf_of;
use crate::{Error, Host, clock, fence};

/// How long an ended operation can still be read (Incus: 5 s).
const FADE: Duration = Duration::from_secs(5);

/// What an operation will do, as it is shown.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// A fixed sentence: `Creating instance` …
    pub description: &'static str,
    /// What it works on: kind (`instances`) and address.
    pub resources: Vec<(&'static str, String)>,
    /// Who asked.
    pub requestor: Option<Requestor>,
    /// Whether its metadata is to tell how long each step took.
    pub timed: bool,
}

/// The operations of this daemon.
pub struct Operations {
    all: Arc<Mutex<HashMap<String, Arc<Op>>>>,
    events: Arc<crate::Events>,
    runtime: tokio::runtime::Handle,
    last: AtomicU64,
}

/// One operation.
pub struct Op {
    id: String,
    /// Its place among all of them, whatever the clock says.
    number: u64,
    class: Class,
    plan: Plan,
    created_at: String,
    state: Mutex<State>,
    changed: watch::Sender<StatusCode>,
    events: Arc<crate::Events>,
}

struct State {
    status: StatusCode,
    updated_at: String,
    metadata: Map<String, Value>,
    error: String,
}

impl Operations {
    /// None yet. Must be called within a tokio runtime: ended operations fade on its clock.
    pub(crate) fn new(events: Arc<crate::Events>) -> Operations {
        Operations {
            all: Arc::default(),
            events,
            runtime: tokio::runtime::Handle::current(),
            last: AtomicU64::new(0),
        }
    }

    /// Does `work` on a thread of its own. A panic in it fails the operation and nothing else.
    pub fn run(
        &self,
        host: &Arc<Host>,
        plan: Plan,
        work: impl FnOnce(&Arc<Host>, &Op) -> Result<Value, Error> + Send + 'static,
    ) -> Arc<Op> {
        let op = self.register(Class::Task, plan, Map::new());
        let (host, running) = (host.clone(), op.clone());
        let all = self.all.clone();
        let fade = self.runtime.clone();
        self.runtime.spawn_blocking(move || {
            running.start();
            let asked_by = running.requestor().cloned();
            let work = || {
                let work = || on_behalf_of(asked_by.as_ref(), || work(&host, &running));
                catch_unwind(AssertUnwindSafe(work))
            };
            let (outcome, steps) = if running.plan.timed { trace::record(work) } else { (work(), Vec::new()) };
            if running.plan.timed {
                running.update(timings(&steps));
            }
            match outcome {
                Ok(Ok(metadata)) => running.succeed(metadata),
                Ok(Err(error)) => {
                    tracing::warn!(operation = %running.id, doing = running.plan.description, error = %error.report(), "operation failed");
                    running.fail(&error);
                }
                Err(panic) => running.panicked(panic.as_ref()),
            }
            forget_later(&fade, all, running.id.clone());
        });
        op
    }

    /// An operation that talks to its client over websockets; [`Operations::drive`] brings it to its end.
    pub fn session(&self, plan: Plan, metadata: Value) -> Arc<Op> {
        let metadata = match metadata {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        let op = self.register(Class::Websocket, plan, metadata);
        let (all, id, mut end) = (self.all.clone(), op.id.clone(), op.changed.subscribe());
        let runtime = self.runtime.clone();
        self.runtime.spawn(async move {
            let _ = end.wait_for(|status| status.is_final()).await;
            forget_later(&runtime, all, id);
        });
        op
    }

    /// Does the work of a session. A panic in it fails the operation and nothing else.
    pub fn drive(&self, op: &Arc<Op>, work: impl Future<Output = ()> + Send + 'static) {
        let (op, working) = (op.clone(), self.runtime.spawn(work));
        self.runtime.spawn(async move {
            if let Err(ended) = working.await
                && let Ok(panic) = ended.try_into_panic()
            {
                op.panicked(panic.as_ref());
            }
        });
    }

    fn register(&self, class: Class, plan: Plan, metadata: Map<String, Value>) -> Arc<Op> {
        let now = clock::now();
        let op = Arc::new(Op {
            id: uuid::Uuid::new_v4().to_string(),
            number: self.last.fetch_add(1, Ordering::Relaxed),
            class,
            plan,
            created_at: now.clone(),
            state: Mutex::new(State {
                status: StatusCode::Pending,
                updated_at: now,
                metadata,
                error: String::new(),
            }),
            changed: watch::Sender::new(StatusCode::Pending),
            events: self.events.clone(),
        });
        self.all.lock().insert(op.id.clone(), op.clone());
        op.tell();
        op
    }

    /// One operation.
    ///
    /// # Errors
    /// When there is none of that id (any more).
    pub fn get(&self, id: &str) -> Result<Arc<Op>, Error> {
        self.all.lock().get(id).cloned().ok_or_else(|| Error::not_found("operation", id))
    }

    /// All of them, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Op>> {
        let mut list: Vec<_> = self.all.lock().values().cloned().collect();
        list.sort_by_key(|op| op.number);
        list
    }
}

/// The steps as the metadata has them: microseconds each.
fn timings(steps: &[trace::Step]) -> Value {
    let shown = |step: &trace::Step| serde_json::json!({ "step": step.what, "us": micros(step.took) });
    serde_json::json!({ "timings": steps.iter().map(shown).collect::<Vec<_>>() })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn forget_later(runtime: &tokio::runtime::Handle, all: Arc<Mutex<HashMap<String, Arc<Op>>>>, id: String) {
    runtime.spawn(async move {
        tokio::time::sleep(FADE).await;
        all.lock().remove(&id);
    });
}

impl Op {
    /// The id (UUID).
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Who asked.
    #[must_use]
    pub fn requestor(&self) -> Option<&Requestor> {
        self.plan.requestor.as_ref()
    }

    /// How it stands, without the secrets of its websockets.
    #[must_use]
    pub fn show(&self) -> Operation {
        let mut shown = self.show_to_creator();
        if let Value::Object(metadata) = &mut shown.metadata {
            metadata.remove("fds");
        }
        shown
    }

    /// How it stands, secrets included: only for the reply to who made it.
    #[must_use]
    pub fn show_to_creator(&self) -> Operation {
        let state = self.state.lock();
        let mut resources: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (kind, address) in &self.plan.resources {
            resources.entry((*kind).to_owned()).or_default().push(address.clone());
        }
        Operation {
            id: self.id.clone(),
            class: self.class,
            description: self.plan.description.to_owned(),
            created_at: self.created_at.clone(),
            updated_at: state.updated_at.clone(),
            status: state.status.text().to_owned(),
            status_code: state.status,
            resources,
            metadata: Value::Object(state.metadata.clone()),
            may_cancel: self.class == Class::Websocket && !state.status.is_final(),
            err: state.error.clone(),
            location: "none".to_owned(),
        }
    }

    /// The work begins.
    pub fn start(&self) {
        self.set(StatusCode::Running, |_| ());
    }

    /// Merges fields into the metadata.
    pub fn update(&self, metadata: Value) {
        self.set(StatusCode::Running, |state| merge(state, metadata));
    }

    /// Tells how far something is; `key` ends in `_progress`.
    pub fn progress(&self, key: &str, text: String) {
        self.update(serde_json::json!({ key: text }));
    }

    /// The work is done.
    pub fn succeed(&self, metadata: Value) {
        self.set(StatusCode::Success, |state| merge(state, metadata));
    }

    /// The work failed.
    pub fn fail(&self, error: &Error) {
        self.set(StatusCode::Failure, |state| state.error = error.report());
    }

    /// The work panicked.
    fn panicked(&self, panic: &(dyn std::any::Any + Send)) {
        let error = fence::panicked(panic);
        tracing::error!(operation = %self.id, doing = self.plan.description, error = %error.report(), "operation panicked");
        self.fail(&error);
    }

    /// Asks the work to stop.
    ///
    /// # Errors
    /// Always for now: no work of this version can be cancelled half way.
    pub fn cancel(&self) -> Result<(), Error> {
        let reason = "this operation cannot be cancelled";
        Err(Error::Unsupported { what: format!("cancelling `{}`", self.plan.description), reason })
    }

    /// Waits until it ended, or the time is over; then how it stands.
    pub async fn wait(&self, timeout: Option<Duration>) -> Operation {
        let mut changed = self.changed.subscribe();
        let ended = changed.wait_for(|status| status.is_final());
        match timeout {
            Some(timeout) => {
                let _ = tokio::time::timeout(timeout, ended).await;
            }
            None => {
                let _ = ended.await;
            }
        }
        self.show()
    }

    fn set(&self, status: StatusCode, change: impl FnOnce(&mut State)) {
        {
            let mut state = self.state.lock();
            if state.status.is_final() {
                return;
            }
            state.status = status;
            state.updated_at = clock::now();
            change(&mut state);
        }
        self.tell();
        self.changed.send_replace(status);
    }

    fn tell(&self) {
        let shown = serde_json::to_value(self.show()).unwrap_or_default();
        self.events.operation(crate::DEFAULT_PROJECT, shown);
    }
}

fn merge(state: &mut State, metadata: Value) {
    if let Value::Object(fields) = metadata {
        state.metadata.extend(fields);
    }
}
