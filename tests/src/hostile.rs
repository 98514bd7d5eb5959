//! A client without manners: half requests, half handshakes, websocket frames as nobody should send them, and
//! answers that are never read.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::machine;
use crate::subject::Subject;

/// What a client may put in a frame's first byte.
pub const CONTINUATION: u8 = 0;
/// Text.
pub const TEXT: u8 = 1;
/// Bytes.
pub const BINARY: u8 = 2;
/// The end.
pub const CLOSE: u8 = 8;
/// A sign of life.
pub const PING: u8 = 9;
/// The bit of a message's last frame.
pub const LAST: u8 = 0x80;

/// One connection, and nothing sent that was not asked for.
pub struct Line {
    stream: UnixStream,
    read: Vec<u8>,
}

impl Line {
    /// Connects and says nothing.
    ///
    /// # Panics
    /// When the daemon cannot be reached.
    #[must_use]
    pub fn open(subject: &Subject) -> Line {
        let stream = UnixStream::connect(subject.socket()).expect("a connection");
        stream.set_write_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        Line { stream, read: Vec::new() }
    }

    /// Sends bytes as they are; whether they were taken.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends the same bytes until they are not taken within a moment, or so many have been: how many were.
    pub fn flood(&mut self, bytes: &[u8], most: u64) -> u64 {
        let _ = self.stream.set_write_timeout(Some(Duration::from_secs(2)));
        let mut sent = 0;
        while sent < most && self.stream.write_all(bytes).is_ok() {
            sent += bytes.len() as u64;
        }
        sent
    }

    /// Sends a request's head and none of its body.
    pub fn head(&mut self, method: &str, target: &str, more: &str) -> bool {
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{more}\r\n").as_bytes())
    }

    /// Waits for an answer's head: its status, or nothing when the daemon hung up or said nothing in time.
    pub fn status(&mut self, seconds: u64) -> Option<u16> {
        let deadline = Instant::now() + machine::time(Duration::from_secs(seconds));
        while !self.read.windows(4).any(|four| four == b"\r\n\r\n") {
            if !self.more(deadline)? {
                return None;
            }
        }
        let end = self.read.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(self.read.get(..end)?).into_owned();
        self.read.drain(..end + 4);
        head.split(' ').nth(1)?.parse().ok()
    }

    /// Waits until the daemon hangs up, throwing away what it says before; whether it did in time.
    pub fn is_hung_up(&mut self, seconds: u64) -> bool {
        let deadline = Instant::now() + machine::time(Duration::from_secs(seconds));
        loop {
            self.read.clear();
            match self.more(deadline) {
                Some(true) => {}
                Some(false) => return true,
                None => return false,
            }
        }
    }

    /// Waits for an answer up to the end of the connection: its status and body; nothing when it does not come in time.
    pub fn answer(&mut self, seconds: u64) -> Option<(u16, Vec<u8>)> {
        let deadline = Instant::now() + machine::time(Duration::from_secs(seconds));
        let status = self.status(seconds)?;
        while self.more(deadline)? {}
        Some((status, std::mem::take(&mut self.read)))
    }

    /// Reads on. `false` at the end; nothing when the time is over.
    fn more(&mut self, deadline: Instant) -> Option<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        self.stream.set_read_timeout(Some(left)).ok()?;
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Some(false),
            Ok(count) => {
                self.read.extend_from_slice(buffer.get(..count)?);
                Some(true)
            }
            Err(why) if why.kind() == std::io::ErrorKind::Interrupted => Some(true),
            Err(why)
                if matches!(why.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                None
            }
            // Reset by the other side.
            Err(_) => Some(false),
        }
    }

    /// Makes a websocket of the connection.
    ///
    /// # Panics
    /// When the daemon does not agree.
    #[must_use]
    #[track_caller]
    pub fn websocket(subject: &Subject, target: &str) -> Line {
        Line::upgraded(subject, target, HANDSHAKE)
    }

    /// Makes of the connection what these header lines ask for.
    ///
    /// # Panics
    /// When the daemon does not agree.
    #[must_use]
    #[track_caller]
    pub fn upgraded(subject: &Subject, target: &str, headers: &str) -> Line {
        let mut line = Line::open(subject);
        line.head("GET", target, headers);
        let status = line.status(20);
        assert_eq!(status, Some(101), "an upgrade at {target}");
        line
    }

    /// Sends a frame: `first` holds its bits and kind; masked, as clients must, unless told otherwise.
    pub fn frame(&mut self, first: u8, payload: &[u8], masked: bool) -> bool {
        let bit = if masked { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match payload.len() {
            length @ 0..126 => bytes.push(bit | u8::try_from(length).unwrap_or(0)),
            length @ 126..65536 => {
                bytes.push(bit | 126);
                bytes.extend(u16::try_from(length).unwrap_or(0).to_be_bytes());
            }
            length => {
                bytes.push(bit | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        if masked {
            // A mask of zeros leaves the payload as it is.
            bytes.extend([0; 4]);
        }
        bytes.extend_from_slice(payload);
        self.send(&bytes)
    }

    /// Waits for the daemon's next frame: its first byte and payload.
    pub fn next_frame(&mut self, seconds: u64) -> Option<(u8, Vec<u8>)> {
        let deadline = Instant::now() + machine::time(Duration::from_secs(seconds));
        loop {
            if let Some((first, payload, whole)) = parse(&self.read) {
                self.read.drain(..whole);
                return Some((first, payload));
            }
            if !self.more(deadline)? {
                return None;
            }
        }
    }

    /// Waits for the daemon's goodbye: its code, 0 without one; nothing when it does not part in time.
    pub fn parting(&mut self, seconds: u64) -> Option<u16> {
        let deadline = Instant::now() + machine::time(Duration::from_secs(seconds));
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).as_secs();
            match self.next_frame(left) {
                Some((first, payload)) if first & 0x0f == CLOSE => {
                    return Some(payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code)));
                }
                Some(_) => {}
                None if Instant::now() < deadline => return Some(0),
                None => return None,
            }
        }
    }
}

/// The header lines of a handshake.
pub const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Those of an upgrade to SFTP.
pub const SFTP: &str = "Connection: Upgrade\r\nUpgrade: sftp\r\n";

fn parse(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (length, head) = match second & 0x7f {
        126 => (usize::from(u16::from_be_bytes(*bytes.get(2..4)?.first_chunk()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(*bytes.get(2..10)?.first_chunk()?)).ok()?, 10),
        short => (usize::from(short), 2),
    };
    Some((first, bytes.get(head..head + length)?.to_vec(), head + length))
}

/// An exec over websockets: where each of them is to be connected.
pub struct Exec {
    /// The operation's address.
    pub operation: String,
    secrets: Value,
}

impl Exec {
    /// Asks for a command in an instance.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    #[track_caller]
    pub fn start(subject: &Subject, name: &str, command: &[&str]) -> Exec {
        let body =
            serde_json::json!({ "command": command, "wait-for-websocket": true, "interactive": false });
        Exec::ask(subject, &format!("/1.0/instances/{name}/exec"), &body)
    }

    /// Asks for a command at a terminal in an instance.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    #[track_caller]
    pub fn terminal(subject: &Subject, name: &str, command: &[&str]) -> Exec {
        let body = serde_json::json!({ "command": command, "wait-for-websocket": true, "interactive": true });
        Exec::ask(subject, &format!("/1.0/instances/{name}/exec"), &body)
    }

    /// Asks for the console of an instance.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    #[track_caller]
    pub fn console(subject: &Subject, name: &str) -> Exec {
        let body = serde_json::json!({ "width": 80, "height": 25, "type": "console", "force": true });
        Exec::ask(subject, &format!("/1.0/instances/{name}/console"), &body)
    }

    #[track_caller]
    fn ask(subject: &Subject, target: &str, body: &Value) -> Exec {
        let reply = subject.call("POST", target, Some(body)).expect("an answer");
        assert_eq!(reply.status, 202, "{}", reply.text());
        let operation = reply.json()["operation"].as_str().unwrap_or_default().to_owned();
        Exec { operation, secrets: reply.json()["metadata"]["metadata"]["fds"].clone() }
    }

    /// Where the websocket of that name (`0`, `1`, `2`, `control`) is.
    #[must_use]
    pub fn place(&self, name: &str) -> String {
        format!("{}/websocket?secret={}", self.operation, self.secrets[name].as_str().unwrap_or_default())
    }

    /// Connects it.
    ///
    /// # Panics
    /// When the daemon does not take it.
    #[must_use]
    #[track_caller]
    pub fn connect(&self, subject: &Subject, name: &str) -> Line {
        Line::websocket(subject, &self.place(name))
    }

    /// Waits for the operation's end.
    ///
    /// # Panics
    /// When there is no answer.
    #[must_use]
    pub fn ended(&self, subject: &Subject, seconds: u64) -> Value {
        let target = format!("{}/wait?timeout={seconds}", self.operation);
        subject.call("GET", &target, None).expect("an answer").json()["metadata"].clone()
    }
}
