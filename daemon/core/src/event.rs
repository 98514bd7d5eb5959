//! What happens, told to whoever listens.

use std::sync::Arc;

use cabin_api::event::{Event, Lifecycle, Requestor};
use serde_json::Value;
use tokio::sync::broadcast;

/// How many events a slow listener may lag behind before it loses some.
const BACKLOG: usize = 1024;

/// The daemon's events.
pub struct Events {
    sender: broadcast::Sender<Arc<Event>>,
}

impl Default for Events {
    fn default() -> Events {
        Events { sender: broadcast::Sender::new(BACKLOG) }
    }
}

impl Events {
    /// Everything that happens from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.sender.subscribe()
    }

    /// Tells that something happened to an object.
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
            requestor: requestor.cloned(),
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
        let event = Event {
            kind: kind.to_owned(),
            timestamp: crate::clock::now(),
            metadata,
            location: "none".to_owned(),
            project: project.to_owned(),
        };
        // No listener left since the check is no failure.
        let _ = self.sender.send(Arc::new(event));
    }
}
