//! Running a command in an instance: its streams over websockets, or into files.
//!
//! Nothing here polls: the end of the command is a descriptor that becomes readable, and so is its output.
//! What a command wrote before it ended is always delivered, however late the client reads it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket};
use cabin_api::StatusCode;
use cabin_api::event::Requestor;
use cabin_api::instance::{ExecControl, ExecPost};
use cabin_core::instance::{self, ExecStreams, Prepared, Session};
use cabin_core::{Error, Op};
use cabin_undo::fault;
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::{Instant, Interval};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::call::Call;
use crate::error::Fault;
use crate::handlers::instances::{exists, resources};
use crate::recursion::address;
use crate::reply::Reply;
use crate::stream::{self, Stream};
use crate::websocket::{self, Ended, Lines, Registered, Sink, Source, receive_all, send_all};
use crate::{limits, record};

const DESCRIPTION: &str = "Executing command";

/// POST …/exec.
///
/// # Errors
/// When there is no such instance, it does not run, or what is asked contradicts itself.
pub async fn start(mut call: Call) -> Result<Reply, Fault> {
    let post: ExecPost = call.json().await?;
    if post.command.is_empty() {
        return Err(Fault::invalid("no command was given"));
    }
    // Without websockets there is nobody to show a terminal to: as in Incus the command gets none.
    if post.record_output && (post.wait_for_websocket || post.interactive) {
        return Err(Fault::invalid("output is recorded only without websockets and terminal"));
    }
    let name = call.name("name").to_owned();
    match exists(&call, &name).await?.status_code {
        StatusCode::Running => {}
        StatusCode::Frozen => return Err(Fault::invalid(format!("instance `{name}` is frozen"))),
        _ => return Err(Fault::invalid(format!("instance `{name}` is not running"))),
    }
    if post.wait_for_websocket {
        Ok(over_websockets(&call, name, post))
    } else {
        Ok(into_files(&call, name, post))
    }
}

fn into_files(call: &Call, name: String, post: ExecPost) -> Reply {
    let project = call.project();
    let plan = call.plan(DESCRIPTION, resources(&name));
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, op| {
        let run = |streams| {
            let begun = instance::exec(host, project, &name, &post, streams);
            begun.inspect_err(|error| op.update(unstarted(error)))
        };
        if !post.record_output {
            let streams = ExecStreams::Files { stdout: nowhere()?, stderr: nowhere()? };
            return Ok(json!({ "return": run(streams)?.wait().code() }));
        }
        let (names, stdout, stderr) = instance::create_exec_output(host, project, &name)?;
        let recorded =
            run(ExecStreams::Pipes).and_then(|command| record::until_end(command, [stdout, stderr]));
        let code = recorded.inspect_err(|_| {
            for file in &names {
                // Of a command that failed nobody is told the files' names. With the instance they go anyway.
                let _ = instance::forget_exec_output(host, &name, file);
            }
        })?;
        let base = format!("{}/logs/exec-output", address("/1.0/instances", &name));
        let output = json!({ "1": address(&base, &names[0]), "2": address(&base, &names[1]) });
        Ok(json!({ "return": code, "output": output }))
    });
    Reply::Async(op)
}

fn nowhere() -> Result<File, Error> {
    File::options().write(true).open("/dev/null").map_err(Error::io("open `/dev/null`"))
}

fn over_websockets(call: &Call, name: String, post: ExecPost) -> Reply {
    let names: &[_] = if post.interactive { &["0", "control"] } else { &["0", "1", "2", "control"] };
    let lines = Lines::new(names);
    let metadata = json!({
        "fds": lines.secrets(),
        "command": post.command,
        "environment": post.environment,
        "interactive": post.interactive,
    });
    let plan = call.plan(DESCRIPTION, resources(&name));
    let op = call.app.host.operations().session(plan, metadata);
    let session = call.app.sockets.register(op.id(), call.who.clone(), lines);
    let (app, project, who) = (call.app.clone(), call.project(), call.who.clone());
    let (running, within) = (op.clone(), Within { app, project, name, who });
    call.app.host.operations().drive(&op, async move {
        running.start();
        match serve(session, post, &within).await {
            Ok(code) => running.succeed(json!({ "return": code })),
            Err(error) => give_up(&running, &error),
        }
        // With the client answered: the next command finds its helper ready.
        drop(tokio::task::spawn_blocking(move || instance::keep_exec_helper(&within.app.host)));
    });
    Reply::Async(op)
}

/// Where a command runs, and who asked for it.
#[derive(Clone)]
struct Within {
    app: Arc<App>,
    project: &'static str,
    name: String,
    who: Requestor,
}

impl Within {
    /// Does `work` on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Within) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let within = self.clone();
        let work = move || cabin_core::on_behalf_of(Some(&within.who), || work(&within));
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|ended| resume_unwind(ended.into_panic()))
    }

    async fn prepare(&self, post: &Arc<ExecPost>, streams: ExecStreams) -> Result<Prepared, Error> {
        let post = post.clone();
        self.blocking(move |it| instance::prepare_exec(&it.app.host, it.project, &it.name, &post, streams))
            .await
    }

    async fn run(&self, post: &Arc<ExecPost>, prepared: Prepared) -> Result<Session, Error> {
        let post = post.clone();
        self.blocking(move |it| instance::run_prepared(&it.app.host, it.project, &it.name, &post, prepared))
            .await
    }
}

fn give_up(op: &Op, error: &Error) {
    tracing::debug!(operation = op.id(), error = %error.report(), "a command was not run");
    op.update(unstarted(error));
    op.fail(error);
}

/// The code a shell gives for a command that cannot be started; clients show it.
fn unstarted(error: &Error) -> Value {
    error.exec_code().map_or(Value::Null, |code| json!({ "return": code }))
}

/// The client's connections to a command's streams, and the command.
///
/// It is prepared as soon as the first connection is there, while the others are made, and runs with the last.
async fn meet(
    session: &mut Registered,
    post: &Arc<ExecPost>,
    within: &Within,
) -> Result<(Vec<WebSocket>, Session), Error> {
    let deadline = Instant::now() + limits::CONNECT_TIME;
    let late = || Error::invalid("timed out waiting for websockets to connect");
    let left = || deadline.saturating_duration_since(Instant::now());
    let (data, streams) = match post.interactive {
        true => (1, ExecStreams::Terminal { width: length(post.width, 80), height: length(post.height, 25) }),
        false => (3, ExecStreams::Pipes),
    };
    let mut sockets = vec![session.connected(0, left()).await.ok_or_else(late)?];
    let others = async {
        for index in 1..data {
            sockets.push(session.connected(index, left()).await.ok_or_else(late)?);
        }
        Ok::<_, Error>(sockets)
    };
    match tokio::join!(others, within.prepare(post, streams)) {
        (Ok(sockets), prepared) => Ok((sockets, within.run(post, prepared?).await?)),
        (Err(late), prepared) => {
            // Ending its process may take a moment.
            drop(tokio::task::spawn_blocking(move || drop(prepared)));
            Err(late)
        }
    }
}

/// Waits for the client, runs the command, brings its streams over; the command's exit code.
async fn serve(mut session: Registered, post: ExecPost, within: &Within) -> Result<i32, Error> {
    let post = Arc::new(post);
    let (sockets, mut command) = meet(&mut session, &post, within).await?;
    let data = sockets.len();
    let cancelled = session.cancelled();
    let place = session.take(data);
    let ended = CancellationToken::new();
    let act = "listen to the command";
    let orders = command.control().map_err(Error::io(act))?;
    let kill = || {
        // A command that is gone already needs no killing.
        let _ = orders.signal(9);
    };
    let obey = |order: &ExecControl| match (order.command.as_str(), size(order)) {
        ("window-resize", Some((width, height))) => drop(orders.resize(width, height)),
        ("signal", _) => drop(orders.signal(order.signal)),
        _ => {}
    };
    let ends = Ends::take(&mut command).map_err(Error::io(act))?;
    let end = command.as_fd().try_clone_to_owned().map_err(Error::io(act))?;
    let exited = stream::watch(end).map_err(Error::io(act))?;
    let controlled = CancellationToken::new();
    let control = async {
        if let Some(Ok(socket)) = option(place).await {
            controlled.cancel();
            let mut orders = std::pin::pin!(control_messages(socket));
            while let Some(order) = orders.next().await {
                obey(&order);
            }
            kill();
        }
        std::future::pending::<()>().await;
    };
    let cancel = async {
        cancelled.cancelled().await;
        kill();
        std::future::pending::<()>().await;
    };
    let left_alone = || {
        if !controlled.is_cancelled() {
            kill();
        }
    };
    let over = async {
        // An error here would mean the descriptor is broken: then the command's end is found by waiting.
        let _ = exited.readable().await;
        ended.cancel();
    };
    let carried = AssertUnwindSafe(async {
        fault::pass("command over websockets")?;
        tokio::select! {
            _ = async { tokio::join!(over, ends.carry(sockets, &ended, left_alone)) } => {}
            () = control => {}
            () = cancel => {}
        }
        Ok::<_, Error>(())
    });
    let carried = carried.catch_unwind().await;
    if !matches!(carried, Ok(Ok(()))) {
        kill();
    }
    drop(session);
    let waited = tokio::task::spawn_blocking(move || command.wait().code()).await;
    carried.unwrap_or_else(|panic| resume_unwind(panic))?;
    Ok(waited.unwrap_or_else(|ended| resume_unwind(ended.into_panic())))
}

async fn option<F: Future>(future: Option<F>) -> Option<F::Output> {
    match future {
        Some(future) => Some(future.await),
        None => None,
    }
}

/// Our ends of a command's streams.
enum Ends {
    Terminal(Stream),
    Pipes { stdin: Stream, stdout: Stream, stderr: Stream },
}

impl Ends {
    fn take(command: &mut Session) -> std::io::Result<Ends> {
        if let Some(terminal) = command.terminal.take() {
            return Ok(Ends::Terminal(Stream::new(terminal)?));
        }
        let open = |end: Option<OwnedFd>| {
            end.ok_or_else(|| std::io::ErrorKind::NotFound.into()).and_then(Stream::new)
        };
        Ok(Ends::Pipes {
            stdin: open(command.stdin.take())?,
            stdout: open(command.stdout.take())?,
            stderr: open(command.stderr.take())?,
        })
    }

    /// Brings everything over until the command's output has ended. `left` is called when the client hangs
    /// up on the output, whether that is seen where it is sent or where input would come.
    async fn carry(self, sockets: Vec<WebSocket>, ended: &CancellationToken, left: impl Fn()) {
        let mut sockets = sockets.into_iter().map(StreamExt::split);
        match (self, sockets.next(), sockets.next(), sockets.next()) {
            (Ends::Terminal(terminal), Some((mut to, mut from)), ..) => {
                let input = async {
                    if receive_all(&mut from, &terminal).await == Ended::HungUp {
                        left();
                    }
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    sent = send_all(&terminal, &mut to, ended) => if sent == Ended::HungUp { left() },
                    () = input => {}
                }
                websocket::part(to, from);
            }
            (Ends::Pipes { stdin, stdout, stderr }, Some(input), Some(output), Some(errors)) => {
                let (mut to_input, mut from_input) = input;
                let outputs = async {
                    tokio::join!(send(stdout, output, ended, &left), send(stderr, errors, ended, &|| {}))
                };
                tokio::select! {
                    _ = outputs => {}
                    () = feed(&mut from_input, stdin) => {}
                    () = websocket::keep_alive(&mut to_input) => {}
                }
                websocket::part(to_input, from_input);
            }
            _ => {}
        }
    }
}

/// Brings one output over. When the client has gone the pipe is closed, so that the command learns it.
async fn send(from: Stream, socket: (Sink, Source), ended: &CancellationToken, left: &impl Fn()) {
    let (mut to, mut back) = socket;
    let sent = tokio::select! {
        sent = send_all(&from, &mut to, ended) => sent,
        () = websocket::hung_up(&mut back) => Ended::HungUp,
    };
    if sent == Ended::HungUp {
        return left();
    }
    drop(from);
    websocket::part(to, back);
}

/// Brings the input over, then closes it; never ends by itself.
async fn feed(from: &mut Source, to: Stream) {
    receive_all(from, &to).await;
    drop(to);
    // Kept being read, so that pings are answered and the socket stays open.
    websocket::hung_up(from).await;
    std::future::pending().await
}

/// What comes over a control websocket, until the client hangs up. What makes no sense is passed over.
pub fn control_messages(socket: WebSocket) -> impl futures_util::Stream<Item = ExecControl> {
    futures_util::stream::unfold((socket, websocket::pings()), async move |(mut socket, mut pings)| {
        let order = next_order(&mut socket, &mut pings).await?;
        Some((order, (socket, pings)))
    })
}

async fn next_order(socket: &mut WebSocket, pings: &mut Interval) -> Option<ExecControl> {
    loop {
        let message = tokio::select! {
            message = socket.next() => message?.ok()?,
            _ = pings.tick() => {
                socket.send(websocket::ping()).await.ok()?;
                continue;
            }
        };
        let bytes = match message {
            Message::Text(text) => text.into(),
            Message::Binary(bytes) => bytes,
            Message::Close(_) => return None,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        match serde_json::from_slice(&bytes) {
            Ok(order) => return Some(order),
            Err(error) => tracing::debug!(%error, "a control message makes no sense"),
        }
    }
}

/// The window's size in a control message, if it holds one.
#[must_use]
pub fn size(order: &ExecControl) -> Option<(u16, u16)> {
    let number = |key: &str| order.args.get(key)?.parse::<u16>().ok().filter(|number| *number > 0);
    Some((number("width")?, number("height")?))
}

fn length(asked: i64, otherwise: u16) -> u16 {
    u16::try_from(asked).ok().filter(|length| *length > 0).unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_sizes_are_read_from_text() {
        let order: ExecControl =
            serde_json::from_str(r#"{"command":"window-resize","args":{"width":"80","height":"24"}}"#)
                .unwrap();
        assert_eq!(size(&order), Some((80, 24)));
        for bad in [
            r#"{"width":"0","height":"1"}"#,
            r#"{"width":"x","height":"1"}"#,
            r#"{"width":"70000","height":"1"}"#,
            "{}",
        ] {
            let order: ExecControl = serde_json::from_str(&format!(r#"{{"args":{bad}}}"#)).unwrap();
            assert_eq!(size(&order), None, "{bad}");
        }
        assert_eq!((length(-1, 80), length(0, 80), length(132, 80)), (80, 80, 132));
    }
}
