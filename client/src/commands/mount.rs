//! `file mount`: sshfs shows the files of an instance or volume in a directory here, over the daemon's socket.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use cabin_client::{Client, Upgraded};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::{output, programs};

/// How much later than sshfs this program may hear of a Ctrl-C.
const LATE: Duration = Duration::from_millis(500);

/// Shows a directory until the mount is taken away, by Ctrl-C or by hand.
pub async fn run(client: &Client, (owner, path): (&str, &str), target: &str) -> anyhow::Result<()> {
    if !std::fs::metadata(target).with_context(|| format!("cannot mount on `{target}`"))?.is_dir() {
        bail!("cannot mount on `{target}`: it is no directory");
    }
    let stream = client.sftp(owner).await.with_context(|| format!("cannot mount the files of `{owner}`"))?;
    let server = sshfs(&format!(":{path}"), target)?;
    output::note(format!(
        "`{owner}{path}` is shown in `{target}` until Ctrl-C, or `fusermount3 -u {target}`"
    ));
    serve(stream, server).await
}

fn sshfs(source: &str, target: &str) -> anyhow::Result<Child> {
    // Without a connection of its own: what it says and hears goes over these two.
    Command::from(programs::command(Path::new("sshfs")))
        .args(["-f", "-o", "slave", source, target])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start `sshfs`: install the package sshfs")
}

/// Carries what sshfs and the daemon say to each other until sshfs ends. Ctrl-C reaches sshfs as well, and it unmounts.
async fn serve(mut stream: Upgraded, mut server: Child) -> anyhow::Result<()> {
    let (Some(input), Some(output)) = (server.stdin.take(), server.stdout.take()) else {
        bail!("sshfs has no input or output");
    };
    let mut talk = tokio::io::join(output, input);
    let mut interrupts = signal(SignalKind::interrupt())?;
    let carried = tokio::select! {
        carried = tokio::io::copy_bidirectional(&mut stream, &mut talk) => carried,
        _ = server.wait() => Ok((0, 0)),
    };
    // With its input closed it unmounts and ends.
    drop(talk);
    let ended = server.wait().await?;
    match ended.success() || timeout(LATE, interrupts.recv()).await.is_ok() {
        true => Ok(()),
        false => Err(carried.err().map_or_else(|| anyhow!("sshfs ended with {ended}"), anyhow::Error::from)),
    }
}
