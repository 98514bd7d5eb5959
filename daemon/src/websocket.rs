//! Websockets of operations: secrets, who may connect, how data, pings and the end of a stream are framed.
//!
//! Data goes in binary messages; an empty text message is the end of a stream (what Incus's clients call
//! the barrier). A secret opens one connection, once, for who made the operation.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use bytes::Bytes;
use cabin_api::event::Requestor;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use crate::call::Call;
use crate::error::Fault;
use crate::limits;
use crate::stream::Stream;

/// The most a stream may still hold when its process is gone: the largest pipe an unprivileged process can
/// make. What comes after it was written by somebody else.
const TAIL: usize = 1024 * 1024;

/// How much is read and sent at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// The half of a websocket that sends.
pub type Sink = SplitSink<WebSocket, Message>;

/// The half of a websocket that receives.
pub type Source = SplitStream<WebSocket>;

/// The websockets that operations wait for, by operation.
#[derive(Default)]
pub struct Sockets {
    sessions: Arc<Mutex<HashMap<String, Session>>>,
}

struct Session {
    who: Requestor,
    lines: Vec<Line>,
    cancel: CancellationToken,
}

struct Line {
    secret: String,
    sender: Option<oneshot::Sender<WebSocket>>,
}

/// The websockets of one operation before it has an id.
pub struct Lines {
    names: Vec<&'static str>,
    lines: Vec<Line>,
    receivers: Vec<oneshot::Receiver<WebSocket>>,
}

/// A registered session; the secrets die with it.
pub struct Registered {
    id: String,
    sessions: Arc<Mutex<HashMap<String, Session>>>,
    receivers: Vec<Option<oneshot::Receiver<WebSocket>>>,
    cancel: CancellationToken,
}

impl Lines {
    /// One line for each name, each with a secret of its own (two random UUIDs, 244 bits).
    #[must_use]
    pub fn new(names: &[&'static str]) -> Lines {
        let mut made = Lines { names: names.to_vec(), lines: Vec::new(), receivers: Vec::new() };
        for _ in names {
            let (sender, receiver) = oneshot::channel();
            let secret = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
            made.lines.push(Line { secret, sender: Some(sender) });
            made.receivers.push(receiver);
        }
        made
    }

    /// The secrets by name, for the reply to who made the operation.
    #[must_use]
    pub fn secrets(&self) -> Value {
        let secrets = self.names.iter().zip(&self.lines);
        Value::Object(
            secrets
                .map(|(name, line)| ((*name).to_owned(), line.secret.clone().into()))
                .collect::<Map<_, _>>(),
        )
    }
}

impl Sockets {
    /// Lets `who` connect the lines of an operation.
    #[must_use]
    pub fn register(&self, operation: &str, who: Requestor, lines: Lines) -> Registered {
        let cancel = CancellationToken::new();
        let session = Session { who, lines: lines.lines, cancel: cancel.clone() };
        self.sessions.lock().insert(operation.to_owned(), session);
        Registered {
            id: operation.to_owned(),
            sessions: self.sessions.clone(),
            receivers: lines.receivers.into_iter().map(Some).collect(),
            cancel,
        }
    }

    /// Asks a session to end; false when there is none.
    #[must_use]
    pub fn cancel(&self, operation: &str) -> bool {
        self.sessions.lock().get(operation).map(|session| session.cancel.cancel()).is_some()
    }

    /// Takes the place a secret opens.
    fn claim(
        &self,
        operation: &str,
        who: &Requestor,
        secret: &str,
    ) -> Result<oneshot::Sender<WebSocket>, Fault> {
        let refused =
            || Fault::Forbidden { reason: "the secret does not open a websocket of this operation" };
        let mut sessions = self.sessions.lock();
        let session = sessions.get_mut(operation).ok_or_else(refused)?;
        if session.who != *who {
            return Err(refused());
        }
        let line = session.lines.iter_mut().find(|line| same(&line.secret, secret)).ok_or_else(refused)?;
        line.sender.take().ok_or_else(refused)
    }
}

/// Compares secrets in a time that does not tell how much of them is right.
fn same(secret: &str, given: &str) -> bool {
    secret.len() == given.len()
        && secret.bytes().zip(given.bytes()).fold(0, |different, (one, two)| different | (one ^ two)) == 0
}

impl Registered {
    /// Waits for the line at `index`; nothing when it did not come in time.
    pub async fn connected(&mut self, index: usize, within: Duration) -> Option<WebSocket> {
        let receiver = self.receivers.get_mut(index)?.take()?;
        timeout(within, receiver).await.ok()?.ok()
    }

    /// The line at `index`, to be waited for elsewhere.
    pub fn take(&mut self, index: usize) -> Option<oneshot::Receiver<WebSocket>> {
        self.receivers.get_mut(index)?.take()
    }

    /// Ends when somebody asks the session to.
    #[must_use]
    pub fn cancelled(&self) -> CancellationToken {
        self.cancel.clone()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.id);
    }
}

/// Makes a websocket of a request. Any `Origin` is taken: only local users reach the unix socket.
///
/// # Errors
/// When the request does not ask for one.
pub async fn upgrade(call: &mut Call) -> Result<WebSocketUpgrade, Fault> {
    let upgrade = WebSocketUpgrade::from_request_parts(&mut call.parts, &())
        .await
        .map_err(|error| Fault::invalid(format!("not a websocket handshake: {error}")))?;
    Ok(upgrade
        .read_buffer_size(limits::READ_BUFFER)
        .max_message_size(limits::MESSAGE)
        .max_frame_size(limits::MESSAGE))
}

/// `GET /1.0/operations/{id}/websocket`: hands the connection to the operation that waits for it.
///
/// # Errors
/// When the secret is wrong, used or somebody else's, or the request is no handshake.
pub async fn connect(call: &mut Call) -> Result<Response, Fault> {
    let upgrade = upgrade(call).await?;
    let place =
        call.app.sockets.claim(call.name("id"), &call.who, call.query("secret").unwrap_or_default())?;
    Ok(upgrade.on_upgrade(async move |socket| {
        // Nobody waits any more: dropping the socket closes it.
        let _ = place.send(socket);
    }))
}

/// The clock that pings go by.
#[must_use]
pub fn pings() -> Interval {
    let mut pings = interval_at(Instant::now() + limits::PING_EVERY, limits::PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings
}

/// A ping as Incus sends it.
#[must_use]
pub fn ping() -> Message {
    Message::Ping(Bytes::from_static(b"keepalive"))
}

/// Sends what `from` gives until it ends, or until `ended` and nothing is left; then the end of stream.
/// A client that does not read makes the writer wait.
pub async fn send_all(from: &Stream, to: &mut Sink, ended: &CancellationToken) -> Ended {
    let mut pings = pings();
    let mut buffer = vec![0; CHUNK];
    loop {
        let sent = tokio::select! {
            read = from.read(&mut buffer) => match chunk(&buffer, read) {
                Some(data) => to.send(Message::Binary(data)).await,
                None => break,
            },
            () = ended.cancelled() => {
                drain(from, to, &mut buffer).await;
                break;
            }
            _ = pings.tick() => to.send(ping()).await,
        };
        if sent.is_err() {
            return Ended::HungUp;
        }
    }
    // A client that is gone has no use for the end of the stream.
    let _ = to.send(Message::text("")).await;
    Ended::Stream
}

async fn drain(from: &Stream, to: &mut Sink, buffer: &mut [u8]) {
    let mut left = TAIL;
    loop {
        let read = from.try_read(buffer);
        let Some(data) = chunk(buffer, read) else { return };
        left = left.saturating_sub(data.len());
        if to.send(Message::Binary(data)).await.is_err() || left == 0 {
            return;
        }
    }
}

fn chunk(buffer: &[u8], read: io::Result<usize>) -> Option<Bytes> {
    let data = buffer.get(..read.ok()?)?;
    (!data.is_empty()).then(|| Bytes::copy_from_slice(data))
}

/// How what goes over a websocket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its sender said that nothing more comes.
    Stream,
    /// The connection is gone.
    HungUp,
}

/// Writes what comes over the websocket to `to`, until the end of stream or of the connection. What cannot
/// be written because the reader is gone is thrown away.
pub async fn receive_all(from: &mut Source, to: &Stream) -> Ended {
    let mut open = true;
    while let Some(Ok(message)) = from.next().await {
        let data = match message {
            Message::Binary(data) => data,
            Message::Text(text) if text.is_empty() => return Ended::Stream,
            Message::Text(text) => text.into(),
            Message::Close(_) => return Ended::HungUp,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        if open && to.write_all(&data).await.is_err() {
            open = false;
        }
    }
    Ended::HungUp
}

/// Says goodbye, and leaves it to the client to hang up: a client that still reads and answers a ping while
/// the socket is already gone would throw away what it has not read. One that does not hang up is not
/// waited for.
pub fn part(mut to: Sink, mut from: Source) {
    tokio::spawn(timeout(limits::PARTING_TIME, async move {
        // A client that is gone already needs no goodbye.
        if to.send(Message::Close(None)).await.is_ok() {
            hung_up(&mut from).await;
        }
    }));
}

/// Pings a websocket that sends nothing else; never ends.
pub async fn keep_alive(to: &mut Sink) {
    let mut pings = pings();
    loop {
        pings.tick().await;
        if to.send(ping()).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Waits for the other side to hang up.
pub async fn hung_up(from: &mut Source) {
    while let Some(Ok(_)) = from.next().await {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Requestor {
        Requestor { username: name.into(), protocol: "unix".into(), address: "@".into() }
    }

    #[test]
    fn a_secret_opens_one_connection_once_for_its_owner() {
        let sockets = Sockets::default();
        let lines = Lines::new(&["0", "control"]);
        let secrets = lines.secrets();
        let secret = secrets["0"].as_str().unwrap().to_owned();
        assert_eq!(secret.len(), 64);
        assert_ne!(secrets["0"], secrets["control"]);
        let registered = sockets.register("op", user("root"), lines);
        assert!(sockets.claim("op", &user("root"), "wrong").is_err());
        assert!(sockets.claim("op", &user("root"), "").is_err());
        assert!(sockets.claim("op", &user("eve"), &secret).is_err());
        assert!(sockets.claim("other", &user("root"), &secret).is_err());
        assert!(sockets.claim("op", &user("root"), &secret).is_ok());
        assert!(sockets.claim("op", &user("root"), &secret).is_err(), "a second time");
        let control = secrets["control"].as_str().unwrap().to_owned();
        drop(registered);
        assert!(sockets.claim("op", &user("root"), &control).is_err(), "after the end");
        assert!(!sockets.cancel("op"));
    }

    #[tokio::test(start_paused = true)]
    async fn lines_that_nobody_connects_are_given_up() {
        let sockets = Sockets::default();
        let mut registered = sockets.register("op", user("root"), Lines::new(&["0"]));
        assert!(registered.connected(0, limits::CONNECT_TIME).await.is_none());
    }
}
