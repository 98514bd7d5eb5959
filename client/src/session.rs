//! What flows through the websockets of exec and console: input, output, window sizes, signals.

use std::io;
use std::time::Duration;

use anyhow::Context as _;
use cabin_api::instance::ExecControl;
use cabin_api::operation::Operation;
use cabin_client::{Client, Console, Session, Socket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::output;
use crate::terminal::{self, Raw};

/// How long output may stay away once the command is over: what held it open lives on without us.
const STRAGGLERS: Duration = Duration::from_secs(2);

/// Where a command's input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Our own standard input.
    Standard,
    /// Nowhere.
    Nothing,
}

/// What we do with what arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Output,
    Errors,
}

/// Runs a session to its end and gives the ended operation.
pub async fn run(client: &Client, session: Session, input: Input) -> anyhow::Result<Operation> {
    let Session { operation, input: channel, output, errors, control } = session;
    let over = client.finish_operation(operation);
    let (control, sizes) = (Control::new(control), output.is_none());
    let raw = if sizes { Raw::enter().context("cannot set the terminal up")? } else { None };
    let steering = tokio::spawn(control.steer(sizes));
    let result = match (output, errors) {
        (Some(output), Some(errors)) => {
            tokio::spawn(feed(channel, input));
            streams(output, errors, over).await
        }
        _ => terminal(channel, input, over).await,
    };
    steering.abort();
    drop(raw);
    result
}

/// Three streams apart. The end of both outputs and of the operation is the end.
async fn streams(
    output: Socket,
    errors: Socket,
    over: impl Future<Output = cabin_client::Result<Operation>>,
) -> anyhow::Result<Operation> {
    tokio::pin!(over);
    let (_keep_output, mut output) = output.split();
    let (_keep_errors, mut errors) = errors.split();
    let (mut output_open, mut errors_open, mut ended) = (true, true, None);
    while output_open || errors_open || ended.is_none() {
        let waiting = async {
            tokio::select! {
                message = output.next(), if output_open => (Some(Stream::Output), message, None),
                message = errors.next(), if errors_open => (Some(Stream::Errors), message, None),
                result = &mut over, if ended.is_none() => (None, None, Some(result)),
            }
        };
        let (stream, message, result) = if ended.is_some() {
            let Ok(event) = timeout(STRAGGLERS, waiting).await else { break };
            event
        } else {
            waiting.await
        };
        if let Some(result) = result {
            ended = Some(result?);
        }
        match (stream, take(message)) {
            (Some(Stream::Output), Some(bytes)) => output::raw_now(&bytes)?,
            (Some(Stream::Errors), Some(bytes)) => output::raw_errors(&bytes)?,
            (Some(Stream::Output), None) => output_open = false,
            (Some(Stream::Errors), None) => errors_open = false,
            (None, _) => {}
        }
    }
    ended.context("the command never ended")
}

/// A terminal: both directions over one websocket.
async fn terminal(
    channel: Socket,
    input: Input,
    over: impl Future<Output = cabin_client::Result<Operation>>,
) -> anyhow::Result<Operation> {
    tokio::pin!(over);
    let (mut sink, mut stream) = channel.split();
    let mut typed = read_input(input);
    let mut typing = true;
    let mut ended = None;
    loop {
        if ended.is_some() {
            match timeout(STRAGGLERS, stream.next()).await.map(take) {
                Ok(Some(bytes)) => output::raw_now(&bytes)?,
                _ => break,
            }
            continue;
        }
        tokio::select! {
            message = stream.next() => match take(message) {
                Some(bytes) => output::raw_now(&bytes)?,
                None => break,
            },
            chunk = typed.recv(), if typing => typing = send(&mut sink, chunk).await,
            result = &mut over => ended = Some(result?),
        }
    }
    if let Some(operation) = ended {
        return Ok(operation);
    }
    // Incus ends the operation only when this side has ended too.
    let _ = sink.send(Message::text("")).await;
    let _ = sink.send(Message::Close(None)).await;
    Ok(over.await?)
}

/// Attaches to a console until the person lets go or it ends.
pub async fn console(console: Console) -> anyhow::Result<()> {
    let raw = Raw::enter().context("cannot set the terminal up")?;
    // Said once keys arrive one by one: what is typed before that would wait for the end of a line.
    output::note("To detach from the console, press: <ctrl>+a q\r");
    let steering = tokio::spawn(Control::new(console.control).steer(true));
    let (mut sink, mut stream) = console.terminal.split();
    let mut typed = read_input(Input::Standard);
    let mut typing = true;
    let mut escape = Escape::default();
    let result = loop {
        tokio::select! {
            message = stream.next() => match take(message) {
                Some(bytes) => if let Err(error) = output::raw_now(&bytes) { break Err(error.into()) },
                None => break Ok(()),
            },
            chunk = typed.recv(), if typing => {
                let Some(chunk) = chunk else { typing = false; continue };
                let (through, detach) = escape.filter(&chunk);
                typing = through.is_empty() || send(&mut sink, Some(through)).await;
                if detach {
                    break Ok(());
                }
            }
        }
    };
    // The daemon lets the next one in when it sees the close; a broken connection says the same.
    let _ = sink.send(Message::Close(None)).await;
    steering.abort();
    drop(raw);
    output::note("");
    result
}

/// Watches typed bytes for ctrl-a q; ctrl-a ctrl-a is one ctrl-a.
#[derive(Debug, Default)]
struct Escape {
    pending: bool,
}

impl Escape {
    /// What goes on, and whether to let go.
    fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        const CTRL_A: u8 = 1;
        let mut through = Vec::with_capacity(typed.len() + 1);
        for &byte in typed {
            match (self.pending, byte) {
                (true, b'q') => return (through, true),
                (false, CTRL_A) => self.pending = true,
                (true, CTRL_A) => {
                    self.pending = false;
                    through.push(CTRL_A);
                }
                (true, other) => {
                    self.pending = false;
                    through.extend([CTRL_A, other]);
                }
                (false, other) => through.push(other),
            }
        }
        (through, false)
    }
}

/// Sends input until it ends, then says so. Reads too, because pings must be answered.
async fn feed(channel: Socket, input: Input) {
    let (mut sink, mut stream) = channel.split();
    let mut typed = read_input(input);
    loop {
        tokio::select! {
            chunk = typed.recv() => {
                let ended = chunk.is_none();
                if !send(&mut sink, chunk).await || ended {
                    break;
                }
            }
            message = stream.next() => if matches!(message, None | Some(Err(_) | Ok(Message::Close(_)))) {
                return;
            },
        }
    }
    drain(stream).await;
}

/// Keeps a channel alive until the other side ends it.
async fn drain(mut stream: SplitStream<Socket>) {
    while let Some(Ok(_)) = stream.next().await {}
}

/// Sends a chunk, or the end of the input when there is none. False when nothing more can be sent.
async fn send(sink: &mut SplitSink<Socket, Message>, chunk: Option<Vec<u8>>) -> bool {
    match chunk {
        Some(bytes) => sink.send(Message::binary(bytes)).await.is_ok(),
        None => {
            // The command may be gone already; its exit code comes from elsewhere.
            let _ = sink.send(Message::text("")).await;
            false
        }
    }
}

/// The data in a message; none when it ends the stream.
fn take(message: Option<Result<Message, tungstenite::Error>>) -> Option<Vec<u8>> {
    match message {
        Some(Ok(Message::Binary(bytes))) => Some(bytes.into()),
        Some(Ok(Message::Text(text))) if text.is_empty() => None,
        Some(Ok(Message::Text(text))) => Some(text.as_bytes().to_vec()),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Some(Vec::new()),
        Some(Ok(Message::Close(_)) | Err(_)) | None => None,
    }
}

/// Standard input in chunks, read on a thread of its own: there is no other way that leaves the terminal of
/// the caller's shell as it was.
fn read_input(input: Input) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    if input == Input::Standard {
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                match rustix::io::read(rustix::stdio::stdin(), buffer.as_mut_slice()) {
                    Ok(0) => return,
                    Ok(count) => {
                        let chunk = buffer.get(..count).unwrap_or_default().to_vec();
                        if sender.blocking_send(chunk).is_err() {
                            return;
                        }
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) => return,
                }
            }
        });
    }
    receiver
}

/// The control websocket.
struct Control {
    sink: SplitSink<Socket, Message>,
    stream: SplitStream<Socket>,
}

impl Control {
    fn new(socket: Socket) -> Control {
        let (sink, stream) = socket.split();
        Control { sink, stream }
    }

    /// Passes signals on, and window sizes when there is a terminal, for as long as it is let.
    async fn steer(mut self, sizes: bool) -> io::Result<()> {
        let (sender, mut signals) = mpsc::unbounded_channel();
        let mut kinds = vec![
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
            SignalKind::quit(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        if sizes {
            kinds.push(SignalKind::window_change());
        }
        for kind in kinds {
            let (mut source, sender) = (signal(kind)?, sender.clone());
            tokio::spawn(async move { while source.recv().await.is_some() && sender.send(kind).is_ok() {} });
        }
        loop {
            tokio::select! {
                kind = signals.recv() => {
                    let Some(order) = kind.and_then(order) else { continue };
                    let text = serde_json::to_string(&order).map_err(io::Error::other)?;
                    self.sink.send(Message::text(text)).await.map_err(io::Error::other)?;
                }
                message = self.stream.next() => if matches!(message, None | Some(Err(_))) {
                    return Ok(());
                },
            }
        }
    }
}

/// What a signal to us means for the command.
fn order(kind: SignalKind) -> Option<ExecControl> {
    if kind == SignalKind::window_change() {
        let (width, height) = terminal::size()?;
        let args = [("width", width), ("height", height)];
        let args = args.map(|(key, value)| (key.to_owned(), value.to_string()));
        return Some(ExecControl { command: "window-resize".to_owned(), args: args.into(), signal: 0 });
    }
    let signal = kind.as_raw_value();
    Some(ExecControl { command: "signal".to_owned(), signal, ..ExecControl::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_a_q_lets_go_wherever_the_bytes_are_cut() {
        let check = |chunks: &[&[u8]], through: &[u8], detached: bool| {
            let mut escape = Escape::default();
            let mut seen = Vec::new();
            let mut detach = false;
            for chunk in chunks {
                let (bytes, done) = escape.filter(chunk);
                seen.extend(bytes);
                detach |= done;
            }
            assert_eq!((seen.as_slice(), detach), (through, detached), "{chunks:?}");
        };
        check(&[b"ls\x01q"], b"ls", true);
        check(&[b"ls\x01", b"q"], b"ls", true);
        check(&[b"\x01x"], b"\x01x", false);
        check(&[b"\x01\x01q"], b"\x01q", false);
        check(&[b"quit"], b"quit", false);
    }

    #[test]
    fn an_empty_text_message_ends_a_stream() {
        assert_eq!(take(Some(Ok(Message::text("")))), None);
        assert_eq!(take(Some(Ok(Message::binary(b"x".to_vec())))), Some(b"x".to_vec()));
        assert_eq!(take(Some(Ok(Message::Ping(Vec::new().into())))), Some(Vec::new()));
        assert_eq!(take(None), None);
    }
}
