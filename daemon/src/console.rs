//! Taking part in an instance's console: one websocket for the bytes, one for the window's size.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::Arc;

use cabin_api::instance::{ConsolePost, ExecControl};
use cabin_core::{Error, Op, instance};
use cabin_undo::fault;
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::call::Call;
use crate::error::Fault;
use crate::exec::{control_messages, size};
use crate::handlers::instances::{exists, resources};
use crate::limits;
use crate::reply::Reply;
use crate::stream::Stream;
use crate::websocket::{Lines, Registered, Sink, Source, part, receive_all, send_all};

/// The consoles somebody takes part in, by instance. Two at one keyboard would each see half of it.
#[derive(Default)]
pub struct Consoles {
    taken: Arc<Mutex<HashMap<String, CancellationToken>>>,
}

/// A place at a console, until it is dropped or somebody forces it away.
struct Place {
    name: String,
    taken: Arc<Mutex<HashMap<String, CancellationToken>>>,
    lost: CancellationToken,
}

impl Consoles {
    fn take(&self, name: &str, force: bool) -> Result<Place, Fault> {
        let mut taken = self.taken.lock();
        if let Some(other) = taken.get(name) {
            if !force {
                let reason = format!("somebody is attached to the console of `{name}`; take it with force");
                return Err(Fault::invalid(reason));
            }
            other.cancel();
        }
        let lost = CancellationToken::new();
        taken.insert(name.to_owned(), lost.clone());
        Ok(Place { name: name.to_owned(), taken: self.taken.clone(), lost })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Who was forced away has nothing to give back.
        if !self.lost.is_cancelled() {
            self.taken.lock().remove(&self.name);
        }
    }
}

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
    let place = call.app.consoles.take(&name, post.force)?;
    let looked_up = name.clone();
    let size = (u16::try_from(post.width), u16::try_from(post.height));
    let attached = call.blocking(move |host| {
        let console = instance::attach_console(host, project, &looked_up)?;
        if let (Ok(width @ 1..), Ok(height @ 1..)) = size {
            resize(&console, width, height);
        }
        Ok(Arc::new(console))
    });
    let console = attached.await?;
    let stream = Stream::new(console.stream()?).map_err(Fault::io("listen to the console"))?;
    let lines = Lines::new(&["0", "control"]);
    let plan = call.plan("Showing console", resources(&name));
    let op = call.app.host.operations().session(plan, json!({ "fds": lines.secrets() }));
    let session = call.app.sockets.register(op.id(), call.who.clone(), lines);
    let running = run(op.clone(), session, console, stream, place);
    call.app.host.operations().drive(&op, running);
    Ok(Reply::Async(op))
}

async fn run(
    op: Arc<Op>,
    session: Registered,
    console: Arc<instance::Console>,
    stream: Stream,
    place: Place,
) {
    op.start();
    let carried = carry(session, &console, &stream, &place).await;
    // Whoever is told that it is over may come next.
    drop(place);
    match carried {
        Ok((to, from)) => {
            op.succeed(Value::Null);
            part(to, from);
        }
        Err(error) => op.fail(&error),
    }
}

/// Carries what is typed and said until one side goes; gives the client's.
async fn carry(
    mut session: Registered,
    console: &Arc<instance::Console>,
    stream: &Stream,
    place: &Place,
) -> Result<(Sink, Source), Error> {
    let data = session.connected(0, limits::CONNECT_TIME).await;
    let data = data.ok_or_else(|| Error::invalid("timed out waiting for websockets to connect"))?;
    fault::pass("console over websockets")?;
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
            obey(console, &message).await;
        }
    };
    // Whichever side goes first ends it: the guest (end of stream), the client, or a cancellation.
    tokio::select! {
        _ = send_all(stream, &mut to, &never) => {}
        _ = receive_all(&mut from, stream) => {}
        () = control => {}
        () = cancelled.cancelled() => {}
        () = place.lost.cancelled() => {}
    }
    Ok((to, from))
}

/// Does what a control message says, one after the other: the supervisor's answer is waited for where nobody is served.
async fn obey(console: &Arc<instance::Console>, message: &ExecControl) {
    if message.command == "window-resize"
        && let Some((width, height)) = size(message)
    {
        let console = console.clone();
        let resized = tokio::task::spawn_blocking(move || resize(&console, width, height)).await;
        resized.unwrap_or_else(|ended| resume_unwind(ended.into_panic()));
    }
}

fn resize(console: &instance::Console, width: u16, height: u16) {
    if let Err(error) = console.resize(width, height) {
        tracing::debug!(error = %error.report(), "the console's size stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_has_one_place_unless_it_is_forced() {
        let consoles = Consoles::default();
        let first = consoles.take("web", false).unwrap();
        assert!(consoles.take("web", false).is_err());
        assert!(consoles.take("other", false).is_ok());
        let second = consoles.take("web", true).unwrap();
        assert!(first.lost.is_cancelled() && !second.lost.is_cancelled());
        drop(first);
        assert!(consoles.take("web", false).is_err(), "who was forced away gave the place back");
        drop(second);
        assert!(consoles.take("web", false).is_ok());
    }
}
