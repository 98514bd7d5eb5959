//! `cabind`: the daemon's command line. Serving is [`server`]'s, asking a running daemon [`ask`]'s.

#![forbid(unsafe_code)]

mod app;
mod ask;
mod auth;
mod call;
mod console;
mod directory;
mod error;
mod events;
mod exec;
mod files;
mod filter;
mod handlers;
mod json;
mod limits;
mod linger;
mod logging;
mod openapi;
mod patient;
mod record;
mod recursion;
mod reply;
mod routes;
mod send;
mod server;
mod shapes;
mod stream;
mod thrift;
mod upload;
mod websocket;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cabin_core::{Host, Settings};
use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit};
use sd_notify::NotifyState;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// Descriptors the daemon wants: a few for each connection, instance and session.
const DESCRIPTORS: u64 = 65_536;

/// Operations and requests under way at once, at most; further ones queue.
const BLOCKING_THREADS: usize = 4096;

/// What the hard limit should allow: as much as service managers give services.
const HARD_DESCRIPTORS: u64 = 1_048_576;

/// Runs system containers and serves the API for them.
#[derive(Parser)]
#[command(name = "cabind", version)]
struct Cli {
    /// Keep everything (state, runtime files, socket) under this directory, so that several daemons share a host
    #[arg(long, env = "CABIN_DIR", value_name = "DIR", global = true)]
    dir: Option<PathBuf>,
    /// Make no pool, network or profile devices on the first start
    #[arg(long)]
    bare: bool,
    /// What to log: error, warn, info, debug, trace, or a filter such as `cabin_core=debug`
    #[arg(long, value_name = "LEVEL", default_value = "info", global = true)]
    log: String,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Wake the daemon through its socket if there are instances it should start
    #[command(name = "activateifneeded")]
    ActivateIfNeeded,
    /// Check what this host can do for containers
    Doctor {
        /// Write JSON
        #[arg(long)]
        json: bool,
        /// Raise the kernel's limits that are too low for many containers, now and for every boot
        #[arg(long)]
        raise: bool,
    },
    /// Wait until the daemon has taken up its instances
    #[command(name = "waitready")]
    WaitReady {
        /// Give up after this many seconds; 0 waits for ever
        #[arg(long, default_value_t = 0)]
        timeout: u64,
    },
    /// Stop every instance, then the daemon
    Shutdown {
        /// Give up after this many seconds; 0 waits for ever
        #[arg(long, default_value_t = 0)]
        timeout: u64,
    },
    /// Show the version
    Version,
    /// Write the OpenAPI description of the API
    #[command(name = "openapi")]
    OpenApi,
}

fn main() -> ExitCode {
    cabin_sys::memory::economise();
    let cli = Cli::parse();
    // The SFTP client warns of every hang-up of the other side.
    let filter =
        EnvFilter::try_new(format!("russh_sftp=off,{}", cli.log)).unwrap_or_else(|_| EnvFilter::new("info"));
    let written = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_filter(filter);
    tracing_subscriber::registry().with(written).with(logging::layer()).init();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Some(Command::Version) => write(env!("CARGO_PKG_VERSION"))?,
        Some(Command::OpenApi) => {
            write(&serde_json::to_string_pretty(&openapi::document(&routes::table()))?)?;
        }
        Some(Command::Doctor { json, raise }) => return doctor(json, raise),
        other => {
            let settings = Settings::new(cli.dir, cli.bare)?;
            let runtime = runtime()?;
            return runtime.block_on(async {
                match other {
                    Some(Command::ActivateIfNeeded) => ask::activate_if_needed(&settings).await?,
                    Some(Command::WaitReady { timeout }) => {
                        within(timeout, ask::wait_ready(&settings)).await?
                    }
                    Some(Command::Shutdown { timeout }) => within(timeout, ask::shutdown(&settings)).await?,
                    _ => serve(settings).await?,
                }
                Ok(ExitCode::SUCCESS)
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Operations wait on blocking threads, some for minutes; a plain request must never queue behind them.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build()
}

async fn within(seconds: u64, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    if seconds == 0 {
        return work.await;
    }
    tokio::time::timeout(Duration::from_secs(seconds), work)
        .await
        .with_context(|| format!("not done within {seconds} s"))?
}

fn doctor(json: bool, raise: bool) -> anyhow::Result<ExitCode> {
    if raise {
        cabin_core::doctor::raise().map_err(|error| anyhow::anyhow!("{}", error.report()))?;
    }
    let checks = cabin_core::doctor::report_here();
    if json {
        write(&serde_json::to_string_pretty(&checks)?)?;
    } else {
        for check in checks.as_array().into_iter().flatten() {
            let text = |key: &str| check.get(key).and_then(Value::as_str).unwrap_or_default();
            let mut line = format!("{:<5} {}: {}", text("state"), text("name"), text("found"));
            if !text("advice").is_empty() {
                line.push_str(&format!(" ({})", text("advice")));
            }
            write(&line)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("cannot write the answer")
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    allow_descriptors();
    let lock = server::lock(&settings)?;
    let fault_plans = arm_fault()?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), dir = %settings.dir.display(), "starting");
    let host = Host::open(settings).map_err(|error| anyhow::anyhow!("{}", error.report()))?;
    logging::tell_listeners_of(&host);
    let listener = server::listen(host.settings())?;
    let app = app::App::new(host.clone(), fault_plans);
    stop_on_signal(&app)?;
    let router = server::router(&app);
    let recovering = host.clone();
    let recovery = tokio::task::spawn_blocking(move || recovering.recover());
    let (half_done, recovered) = (recovery.abort_handle(), app.clone());
    tokio::spawn(async move {
        // One that failed is told in the log; what it did not come to is no reason to refuse everything.
        let _ = recovery.await;
        recovered.took_up();
    });
    tell_manager(&[NotifyState::Ready]);
    tokio::spawn(thrift::keep_small(app.clone()));
    server::serve(&app, listener, router).await;
    // Half a recovery is finished by the next start; it must not hold this process up.
    half_done.abort();
    host.leave();
    tracing::info!("stopped");
    drop(lock);
    std::process::exit(0)
}

/// A daemon under test is told in its environment which step fails, or that it will be told later.
fn arm_fault() -> anyhow::Result<bool> {
    let Ok(text) = std::env::var("CABIN_FAULT") else { return Ok(false) };
    if let Some(what) = text.strip_prefix("skip:") {
        handlers::internal::leave_out(Some(what.to_owned()));
        return Ok(true);
    }
    let plan =
        cabin_undo::fault::Plan::parse(&text).with_context(|| format!("CABIN_FAULT=`{text}` is no plan"))?;
    cabin_undo::fault::arm(plan);
    Ok(true)
}

fn stop_on_signal(app: &Arc<app::App>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let app = app.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to stop; instances that run keep running");
        tell_manager(&[NotifyState::Stopping]);
        app.stop();
    });
    Ok(())
}

fn tell_manager(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

/// The hard limit is raised as far as containers are given one, so that their inits can have it.
fn allow_descriptors() {
    let now = rustix::process::getrlimit(Resource::Nofile);
    let hard = now.maximum.map(|most| most.max(HARD_DESCRIPTORS));
    let soft = now.current.map(|current| current.max(DESCRIPTORS));
    let best = Rlimit { current: soft, maximum: hard };
    let second = Rlimit { current: now.maximum.min(soft), maximum: now.maximum };
    let raised = rustix::process::setrlimit(Resource::Nofile, best)
        .or_else(|_| rustix::process::setrlimit(Resource::Nofile, second));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays low");
    }
}
