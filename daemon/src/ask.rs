//! What the command line asks a daemon that runs: a request over its socket.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::body::Body;
use cabin_core::Settings;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::server;

/// How long to leave a daemon alone that does not answer yet.
const PAUSE: Duration = Duration::from_millis(100);

/// Wakes the daemon through its socket when an instance is waiting to be started. One that runs is awake, and has the
/// database for itself.
pub async fn activate_if_needed(settings: &Settings) -> anyhow::Result<()> {
    if server::is_locked(settings) {
        return Ok(());
    }
    let asked = settings.clone();
    match tokio::task::spawn_blocking(move || cabin_core::daemon_wanted(&asked)).await? {
        Ok(false) => return Ok(()),
        Ok(true) => {}
        // It has started meanwhile.
        Err(_) if server::is_locked(settings) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    request(&settings.socket(), Method::GET, "/internal/ready").await.map(drop)
}

/// Returns once the daemon has taken up its instances.
pub async fn wait_ready(settings: &Settings) -> anyhow::Result<()> {
    loop {
        if let Ok((StatusCode::OK, _)) = request(&settings.socket(), Method::GET, "/internal/ready").await {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Stops every instance and the daemon; returns when its process has ended.
///
/// Asking the socket would not do: a service manager goes on listening there, and starts the daemon again for
/// whoever connects.
pub async fn shutdown(settings: &Settings) -> anyhow::Result<()> {
    let socket = settings.socket();
    let daemon = process(&socket).await?;
    let (code, text) = request(&socket, Method::PUT, "/internal/shutdown").await?;
    if code != StatusCode::OK {
        bail!("the daemon refused: {text}");
    }
    while is_alive(daemon) {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// The process id of the daemon.
async fn process(socket: &Path) -> anyhow::Result<u64> {
    let (_, text) = request(socket, Method::GET, "/1.0").await?;
    serde_json::from_str::<serde_json::Value>(&text)
        .ok()
        .and_then(|reply| reply.pointer("/metadata/environment/server_pid")?.as_u64())
        .context("the daemon does not say which process it is")
}

/// One that has ended but was not waited for yet has no command line any more.
fn is_alive(pid: u64) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

async fn request(socket: &Path, method: Method, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let doing = || format!("cannot talk to the daemon on `{}`", socket.display());
    let stream = UnixStream::connect(socket).await.with_context(doing)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.with_context(doing)?;
    let connection = tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "cabin").body(Body::empty())?;
    let response = sender.send_request(request).await.with_context(doing)?;
    let code = response.status();
    let body = response.into_body().collect().await.with_context(doing)?.to_bytes();
    connection.abort();
    Ok((code, String::from_utf8_lossy(&body).into_owned()))
}
