//! One file per verb. Here: which verb does what, and the waiting that all of them share.

use std::time::Duration;

use cabin_api::operation::Operation;
use cabin_client::{Client, Reply};
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::cli::{Cli, Command, Global};
use crate::output::progress::Progress;
use crate::{output, remote, terminal};

mod admin;
mod alias;
mod backup;
mod completion;
mod config;
mod console;
mod copy;
mod create;
mod delete;
mod device;
mod diff;
mod doctor;
mod exec;
mod file;
mod image;
mod info;
mod list;
mod manpage;
mod monitor;
mod network;
mod object;
mod operation;
mod preseed;
mod profile;
mod project;
mod publish;
mod pull;
mod push;
mod query;
mod rename;
mod snapshot;
mod state;
mod storage;
mod version;
mod volume;
mod warning;

/// Work shorter than this shows no progress.
const UNSEEN: Duration = Duration::from_millis(250);
/// How often a person sees news.
const NEWS: Duration = Duration::from_millis(150);

/// What every command has at hand.
#[derive(Debug, Clone)]
pub struct Context {
    global: Global,
    /// Whether to show progress.
    pub watched: bool,
}

/// Runs the command and gives the exit code.
pub async fn run(cli: Cli) -> anyhow::Result<u8> {
    let watched = !cli.global.quiet && terminal::person_watches();
    let context = &Context { global: cli.global, watched };
    match cli.command {
        Command::Launch(args) => create::launch(context, args).await?,
        Command::Create(args) => create::create(context, args).await?,
        Command::List(args) => list::run(context, &args).await?,
        Command::Info(args) => info::run(context, args).await?,
        Command::Start(args) => state::run(context, state::Action::Start, args).await?,
        Command::Stop(args) => state::run(context, state::Action::Stop, args).await?,
        Command::Restart(args) => state::run(context, state::Action::Restart, args).await?,
        Command::Pause(args) => state::run_plain(context, state::Action::Freeze, args).await?,
        Command::Resume(args) => state::run_plain(context, state::Action::Unfreeze, args).await?,
        Command::Delete(args) => delete::run(context, args).await?,
        Command::Rename(args) => rename::run(context, &args).await?,
        Command::Move(args) => rename::relocate(context, &args).await?,
        Command::Copy(args) => copy::run(context, &args).await?,
        Command::Diff(args) => diff::run(context, &args).await?,
        Command::Snapshot(args) => snapshot::run(context, args).await?,
        Command::Restore(args) => snapshot::restore(context, &args).await?,
        Command::Export(args) => backup::export(context, &args).await?,
        Command::Import(args) => backup::import(context, &args).await?,
        Command::Publish(args) => publish::publish(context, &args).await?,
        Command::Rebuild(args) => publish::rebuild(context, &args).await?,
        Command::Exec(args) => return exec::run(context, args).await,
        Command::Shell(args) => return exec::shell(context, args).await,
        Command::Console(args) => console::run(context, &args).await?,
        Command::File(args) => file::run(context, args).await?,
        Command::Config(args) => config::run(context, args).await?,
        Command::Profile(args) => profile::run(context, args).await?,
        Command::Image(args) => image::run(context, args).await?,
        Command::Network(args) => network::run(context, args).await?,
        Command::Storage(args) => storage::run(context, args).await?,
        Command::Project(args) => project::run(context, args).await?,
        Command::Operation(args) => operation::run(context, args).await?,
        Command::Warning(args) => warning::run(context, args).await?,
        Command::Monitor(args) => monitor::run(context, args).await?,
        Command::Query(args) => query::run(context, args).await?,
        Command::Doctor(args) => return doctor::run(context, &args).await,
        Command::Admin(args) => admin::run(context, args).await?,
        Command::Version(_) => version::run(context).await?,
        Command::Completion(args) => completion::run(&args)?,
        Command::Manpage(args) => manpage::run(&args)?,
    }
    Ok(0)
}

impl Context {
    /// The daemon.
    pub async fn client(&self) -> anyhow::Result<Client> {
        let client = Client::connect(remote::socket(self.global.socket.as_deref())).await?;
        let client = if self.global.timings { client.with_timings() } else { client };
        Ok(match &self.global.project {
            Some(project) => client.in_project(project),
            None => client,
        })
    }

    /// Waits for what a request began. Shows progress when a person watches; their ctrl-c cancels it.
    pub async fn finish(&self, client: &Client, reply: Reply, title: &str) -> anyhow::Result<Value> {
        let operation = match reply {
            Reply::Done(value) => return Ok(value),
            Reply::Begun(operation) => *operation,
        };
        let over = if self.watched && !operation.status_code.is_final() {
            watch(client, operation, title).await?
        } else {
            operation
        };
        let over = if over.status_code.is_final() { over } else { client.wait_operation(&over.id).await? };
        output::timings::tell(title, &over.metadata);
        Ok(client.finish_operation(over).await?.metadata)
    }
}

async fn watch(client: &Client, operation: Operation, title: &str) -> anyhow::Result<Operation> {
    let id = operation.id;
    let over = client.wait_operation(&id);
    tokio::pin!(over);
    let mut news = interval_at(Instant::now() + UNSEEN, NEWS);
    news.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut progress: Option<Progress> = None;
    let mut interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut interrupted = false;
    loop {
        tokio::select! {
            over = &mut over => return Ok(over?),
            _ = news.tick() => {
                let shown = progress.get_or_insert_with(|| Progress::new(title, true));
                if let Ok(now) = client.operation(&id).await {
                    shown.operation(&now.metadata);
                }
            }
            _ = interrupts.recv() => {
                if interrupted {
                    anyhow::bail!("interrupted; operation `{id}` goes on in the daemon");
                }
                interrupted = true;
                drop(progress.take());
                match client.cancel_operation(&id).await {
                    Ok(()) => output::note("Cancelling"),
                    Err(error) => output::note(format!("{error}; press ctrl-c again to leave it alone")),
                }
            }
        }
    }
}
