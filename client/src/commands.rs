//! One file per verb. Here: which verb does what, and the waiting that all of them share.

use std::time::Duration;

use cabin_api::operation::Operation;
use cabin_client::{Address, Client, Reply};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::cli::lazy::Lazy;
use crate::cli::{Cli, ColumnList, Command, Filters, Global, ProjectsList};
use crate::output::columns::{self, Column};
use crate::output::progress::Progress;
use crate::{output, remote, terminal, words};

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
mod mount;
mod network;
mod nic;
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
mod template;
mod version;
mod volume;
mod wait;
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
        Command::Launch(Lazy(args)) => create::launch(context, args).await?,
        Command::Create(Lazy(args)) => create::create(context, args).await?,
        Command::List(Lazy(args)) => list::run(context, &args).await?,
        Command::Info(Lazy(args)) => info::run(context, args).await?,
        Command::Start(Lazy(args)) => state::run(context, state::Action::Start, args).await?,
        Command::Stop(Lazy(args)) => state::run(context, state::Action::Stop, args).await?,
        Command::Restart(Lazy(args)) => state::run(context, state::Action::Restart, args).await?,
        Command::Pause(Lazy(args)) => state::run_plain(context, state::Action::Freeze, args).await?,
        Command::Resume(Lazy(args)) => state::run_plain(context, state::Action::Unfreeze, args).await?,
        Command::Wait(Lazy(args)) => wait::run(context, &args).await?,
        Command::Delete(Lazy(args)) => delete::run(context, args).await?,
        Command::Rename(Lazy(args)) => rename::run(context, &args).await?,
        Command::Move(Lazy(args)) => rename::relocate(context, &args).await?,
        Command::Copy(Lazy(args)) => copy::run(context, &args).await?,
        Command::Diff(Lazy(args)) => diff::run(context, &args).await?,
        Command::Snapshot(Lazy(args)) => snapshot::run(context, args).await?,
        Command::Restore(Lazy(args)) => snapshot::restore(context, &args).await?,
        Command::Export(Lazy(args)) => backup::export(context, &args).await?,
        Command::Import(Lazy(args)) => backup::import(context, &args).await?,
        Command::Publish(Lazy(args)) => publish::publish(context, &args).await?,
        Command::Rebuild(Lazy(args)) => publish::rebuild(context, &args).await?,
        Command::Exec(Lazy(args)) => return exec::run(context, args).await,
        Command::Shell(Lazy(args)) => return exec::shell(context, args).await,
        Command::Console(Lazy(args)) => console::run(context, &args).await?,
        Command::File(Lazy(args)) => file::run(context, args).await?,
        Command::Config(Lazy(args)) => config::run(context, args).await?,
        Command::Profile(Lazy(args)) => profile::run(context, args).await?,
        Command::Image(Lazy(args)) => image::run(context, args).await?,
        Command::Network(Lazy(args)) => network::run(context, args).await?,
        Command::Storage(Lazy(args)) => storage::run(context, args).await?,
        Command::Project(Lazy(args)) => project::run(context, args).await?,
        Command::Operation(Lazy(args)) => operation::run(context, args).await?,
        Command::Warning(Lazy(args)) => warning::run(context, args).await?,
        Command::Monitor(Lazy(args)) => monitor::run(context, args).await?,
        Command::Query(Lazy(args)) => query::run(context, args).await?,
        Command::Doctor(Lazy(args)) => return doctor::run(context, &args).await,
        Command::Admin(Lazy(args)) => admin::run(context, args).await?,
        Command::Version(_) => version::run(context).await?,
        Command::Completion(Lazy(args)) => completion::run(&args)?,
        Command::Manpage(Lazy(args)) => manpage::run(&args)?,
    }
    Ok(0)
}

/// The objects of a collection for which the filters hold; of every project when they are asked for.
async fn all<T: DeserializeOwned>(
    client: &Client,
    root: &str,
    all_projects: bool,
    filters: &Filters,
) -> anyhow::Result<T> {
    let filter = (!filters.words.is_empty()).then(|| filters.asked());
    let address = Address::new(root).query("recursion", "1").query_if("filter", filter.as_deref());
    Ok(client.get(address.query_if("all-projects", all_projects.then_some("true"))).await?)
}

impl Filters {
    /// The filters in the daemon's language.
    fn asked(&self) -> String {
        let one = |word: &String| match word.split_once('=') {
            Some((key, value)) => format!("{key} eq {}", words::filter_value(value)),
            None => format!("name eq (^{word}$|^{word}.*)"),
        };
        self.words.iter().map(one).collect::<Vec<_>>().join(" and ")
    }
}

impl ColumnList {
    /// Shows the objects in the columns that were chosen, else in those of `default`.
    fn show<T: Serialize>(
        &self,
        columns: &'static [Column<T>],
        default: &str,
        objects: &[T],
    ) -> anyhow::Result<()> {
        let chosen = columns::chosen(columns, self.columns.as_deref().unwrap_or(default))?;
        output::table::show(self.format.format, &objects, || columns::rows(&chosen, objects))
    }
}

impl ProjectsList {
    /// As [`ColumnList::show`]; what is of every project says of which.
    fn show<T: Serialize>(
        &self,
        columns: &'static [Column<T>],
        default: &str,
        objects: &[T],
    ) -> anyhow::Result<()> {
        let told = self.all_projects && columns.iter().any(|column| column.letter == 'e');
        self.list.show(columns, &if told { format!("e{default}") } else { default.to_owned() }, objects)
    }
}

impl Context {
    /// The daemon.
    pub async fn client(&self) -> anyhow::Result<Client> {
        let client = Client::connect(remote::socket(self.global.socket.as_deref())).await?;
        let client = if self.global.timings || self.global.debug { client.with_timings() } else { client };
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
