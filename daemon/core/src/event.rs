//! What happens, told to whoever listens, and who asked for it.

use std::cell::RefCell;
use std::sync::Arc;

use cabin_api::event::{Event, Lifecycle, Logging, Requestor};
use serde_json::Value;
use tokio::sync::broadcast;

thread_local! {
    /// For whom this thread works now.
    static ASKED_BY: RefCell<Option<Requestor>> = const { RefCell::new(None) };
}

/// Does `work` for somebody: what it tells of on this thread names them. A panic in it is the caller's to catch.
pub fn on_behalf_of<T>(who: Option<&Requestor>, work: impl FnOnce() -> T) -> T {
    struct Before(Option<Requestor>);
    impl Drop for Before {
        fn drop(&mut self) {
            ASKED_BY.set(self.0.take());
        }
    }
    let _before = Before(ASKED_BY.replace(who.cloned()));
    work()
}

/// How many events a slow listener may lag behind before it loses some.
const BACKLOG: usize = 1024;

/// The daemon's events.
pub struct Events {
    sender: broadcast::Sender<Arc<Event>>,
    /// Lines of the log go their own way, so that many of them push nobody out.
    log: broadcast::Sender<Arc<Event>>,
}

impl Default for Events {
    fn default() -> Events {
        Events { sender: broadcast::Sender::new(BACKLOG), log: broadcast::Sender::new(BACKLOG) }
    }
}

impl Events {
    /// Every line of the log from now on.
    #[must_use]
    pub fn subscribe_to_log(&self) -> broadcast::Receiver<Arc<Event>> {
        self.log.subscribe()
    }

    /// Whether somebody wants the lines of the log.
    #[must_use]
    pub fn log_is_heard(&self) -> bool {
        self.log.receiver_count() > 0
    }

    /// Tells a line of the log to whoever listens.
    pub fn logging(&self, line: &Logging) {
        let metadata = serde_json::to_value(line).unwrap_or_default();
        // No listener left since somebody looked is no failure.
        let _ = self.log.send(Arc::new(event("logging", "", metadata)));
    }

    /// Everything else that happens from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.sender.subscribe()
    }

    /// Tells that something happened to an object: asked for by `requestor`, or by whom this thread works for.
    pub fn lifecycle(
        &self,
        project: &str,
        action: &str,
        source: &str,
        name: &str,
        context: Value,
        requestor: Option<&Requestor>,
    ) {
        let what = Lifecycle {
            action: action.to_owned(),
            source: source.to_owned(),
            context,
            requestor: requestor.cloned().or_else(|| ASKED_BY.with_borrow(Clone::clone)),
            name: name.to_owned(),
            project: project.to_owned(),
        };
        self.send("lifecycle", project, serde_json::to_value(what).unwrap_or_default());
    }

    /// Tells how an operation stands.
    pub(crate) fn operation(&self, project: &str, operation: Value) {
        self.send("operation", project, operation);
    }

    fn send(&self, kind: &str, project: &str, metadata: Value) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        // No listener left since the check is no failure.
        let _ = self.sender.send(Arc::new(event(kind, project, metadata)));
    }
}

fn event(kind: &str, project: &str, metadata: Value) -> Event {
    Event {
        kind: kind.to_owned(),
        timestamp: crate::clock::now(),
        metadata,
        location: "none".to_owned(),
        project: project.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(username: &str) -> Requestor {
        Requestor { username: username.into(), protocol: "unix".into(), address: "@".into() }
    }

    fn told(events: &Events) -> Option<String> {
        let mut listener = events.subscribe();
        events.lifecycle("default", "profile-updated", "/1.0/profiles/x", "x", Value::Null, None);
        let event = listener.try_recv().unwrap();
        event.metadata["requestor"]["username"].as_str().map(str::to_owned)
    }

    #[test]
    fn what_happens_names_whom_the_thread_works_for_and_nobody_afterwards() {
        let events = Events::default();
        assert_eq!(told(&events), None);
        let (outer, inner) = (who("ann"), who("bob"));
        on_behalf_of(Some(&outer), || {
            assert_eq!(on_behalf_of(Some(&inner), || told(&events)).as_deref(), Some("bob"));
            assert_eq!(told(&events).as_deref(), Some("ann"));
        });
        let broken = std::panic::catch_unwind(|| on_behalf_of(Some(&outer), || panic!("broken")));
        assert!(broken.is_err());
        assert_eq!(told(&events), None);
    }
}
