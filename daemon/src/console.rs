//! Taking part in an instance's console: one websocket for the bytes, one for the window's size.

use cabin_api::instance::{ConsolePost, ExecControl};
use cabin_core::{Error, Op, instance};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use crate::call::Call;
use crate::error::Fault;
use crate::exec::{control_messages, size};
use crate::handlers::instances::{exists, resources};
use crate::limits;
use crate::reply::Reply;
use crate::stream::Stream;
use crate::websocket::{Lines, Registered, part, receive_all, send_all};

/// POST …/console: an operation whose websockets are the console.
///
/// # Errors
/// When there is no such instance or it does not run, or the type is not `console`.
pub async fn attach(mut call: Call) -> Result<Reply, Fault> {
    let post: ConsolePost = call.json().await?;
    if !matches!(post.kind.as_str(), "" | "console") {
        return Err(Fault::invalid(format!("console type `{}` is for virtual machines", post.kind)));
    }
    let (project, name) = (call.project(), call.name("name").to_owned());
    exists(&call, &name).await?;
    let looked_up = name.clone();
    let console = call.blocking(move |host| instance::attach_console(host, project, &looked_up)).await?;
    resize(&console, post.width, post.height);
    let stream = Stream::new(console.stream()?).map_err(Fault::io("listen to the console"))?;
    let lines = Lines::new(&["0", "control"]);
    let plan = call.plan("Showing console", resources(&name));
    let op = call.app.host.operations().session(plan, json!({ "fds": lines.secrets() }));
    let session = call.app.sockets.register(op.id(), call.who.clone(), lines);
    tokio::spawn(run(op.clone(), session, console, stream));
    Ok(Reply::Async(op))
}

async fn run(op: Arc<Op>, mut session: Registered, console: instance::Console, stream: Stream) {
    op.start();
    let Some(data) = session.connected(0, limits::CONNECT_TIME).await else {
        op.fail(&Error::invalid("timed out waiting for websockets to connect"));
        return;
    };
    let (mut to, mut from) = data.split();
    let cancelled = session.cancelled();
    let never = CancellationToken::new();
    let control = async {
        let Some(Ok(control)) = (match session.take(1) {
            Some(place) => Some(place.await),
            None => None,
        }) else {
            return std::future::pending().await;
        };
        let mut messages = std::pin::pin!(control_messages(control));
        while let Some(message) = messages.next().await {
            obey(&console, &message);
        }
    };
    // Whichever side goes first ends it: the guest (end of stream), the client, or a cancellation.
    tokio::select! {
        () = send_all(&stream, &mut to, &never) => {}
        _ = receive_all(&mut from, &stream) => {}
        () = control => {}
        () = cancelled.cancelled() => {}
    }
    op.succeed(Value::Null);
    part(to, from);
}

fn obey(console: &instance::Console, message: &ExecControl) {
    if message.command == "window-resize"
        && let Some((width, height)) = size(message)
        && let Err(error) = console.resize(width, height)
    {
        tracing::debug!(error = %error.report(), "the console's size stays as it is");
    }
}

fn resize(console: &instance::Console, width: i64, height: i64) {
    let size = (u16::try_from(width), u16::try_from(height));
    if let (Ok(width @ 1..), Ok(height @ 1..)) = size
        && let Err(error) = console.resize(width, height)
    {
        tracing::debug!(error = %error.report(), "the console's size stays as it is");
    }
}
