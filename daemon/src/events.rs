//! `GET /1.0/events`: what happens, sent to who listens. A listener that does not read is dropped; it never
//! holds up the daemon or the others.

use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket};
use cabin_api::event::Event;
use futures_util::{SinkExt, StreamExt};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::app::App;
use crate::call::Call;
use crate::error::Fault;
use crate::reply::Reply;
use crate::{limits, websocket};

/// The sorts of events there are.
const KINDS: [&str; 3] = ["lifecycle", "logging", "operation"];

/// What a listener wants to hear.
#[derive(Debug)]
struct Wanted {
    kinds: Vec<String>,
    project: Option<String>,
}

impl Wanted {
    fn read(kinds: &str, project: Option<&str>) -> Result<Wanted, Fault> {
        let kinds: Vec<String> =
            kinds.split(',').map(str::trim).filter(|kind| !kind.is_empty()).map(str::to_owned).collect();
        match kinds.iter().find(|kind| !KINDS.contains(&kind.as_str()) && *kind != "network-acl") {
            Some(kind) => Err(Fault::invalid(format!("there are no events of type `{kind}`"))),
            None => Ok(Wanted { kinds, project: project.map(str::to_owned) }),
        }
    }

    fn takes_kind(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|one| one == kind)
    }

    fn takes(&self, event: &Event) -> bool {
        let kind = self.takes_kind(&event.kind);
        let place = event.project.is_empty() || self.project.as_ref().is_none_or(|one| *one == event.project);
        kind && place
    }
}

/// Listens.
///
/// # Errors
/// When a type is not known, or the request is no websocket handshake.
pub async fn listen(mut call: Call) -> Result<Reply, Fault> {
    let project = (!call.flag("all-projects")).then(|| call.project());
    let wanted = Wanted::read(call.query("type").unwrap_or_default(), project)?;
    let upgrade = websocket::upgrade(&mut call).await?;
    // Subscribed before the client hears that it is connected: it may ask for work right after.
    let events = call.app.host.events();
    let heard = Heard {
        events: events.subscribe(),
        log: wanted.takes_kind("logging").then(|| events.subscribe_to_log()),
    };
    let app = call.app.clone();
    Ok(Reply::Raw(upgrade.on_upgrade(async move |socket| tell(&app, socket, heard, &wanted).await)))
}

/// What a listener is told from.
struct Heard {
    events: Receiver<Arc<Event>>,
    log: Option<Receiver<Arc<Event>>>,
}

impl Heard {
    async fn next(&mut self) -> Result<Arc<Event>, RecvError> {
        tokio::select! {
            event = self.events.recv() => event,
            line = next_line(self.log.as_mut()) => Ok(line),
        }
    }
}

/// The next line of the log; never for who does not want them. Lines that come too fast are left out.
async fn next_line(log: Option<&mut Receiver<Arc<Event>>>) -> Arc<Event> {
    let Some(log) = log else { return std::future::pending().await };
    loop {
        match log.recv().await {
            Ok(line) => return line,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

async fn tell(app: &App, socket: WebSocket, mut heard: Heard, wanted: &Wanted) {
    let (mut to, mut from) = socket.split();
    let mut pings = websocket::pings();
    let gone = websocket::hung_up(&mut from);
    let stopped = app.stopped();
    tokio::pin!(gone, stopped);
    loop {
        let message = tokio::select! {
            event = heard.next() => match event {
                Ok(event) if wanted.takes(&event) => match serde_json::to_string(&*event) {
                    Ok(text) => Message::text(text),
                    Err(_) => continue,
                },
                Ok(_) => continue,
                Err(RecvError::Lagged(lost)) => {
                    tracing::warn!(lost, "a listener of events does not read; it is dropped");
                    break;
                }
                Err(RecvError::Closed) => break,
            },
            _ = pings.tick() => websocket::ping(),
            () = &mut gone => return,
            () = &mut stopped => break,
        };
        match tokio::time::timeout(limits::EVENT_TIME, to.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                tracing::warn!("a listener of events does not read; it is dropped");
                return;
            }
        }
    }
    // Told politely if it reads at all.
    let _ = tokio::time::timeout(limits::EVENT_TIME, to.send(Message::Close(None))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, project: &str) -> Event {
        Event {
            kind: kind.into(),
            timestamp: String::new(),
            metadata: serde_json::Value::Null,
            location: "none".into(),
            project: project.into(),
        }
    }

    #[test]
    fn listeners_hear_what_they_asked_for() {
        let all = Wanted::read("", Some("default")).unwrap();
        assert!(all.takes(&event("operation", "default")) && all.takes(&event("lifecycle", "")));
        assert!(!all.takes(&event("operation", "other")));
        let some = Wanted::read("operation, lifecycle", None).unwrap();
        assert!(some.takes(&event("operation", "other")) && !some.takes(&event("logging", "")));
        assert!(Wanted::read("nonsense", None).is_err());
    }
}
