//! `cabin`, the command line: parses, runs one command, prints why it failed, passes the exit code on.

#![forbid(unsafe_code)]

mod cli;
mod commands;
mod complete;
mod output;
mod programs;
mod remote;
mod session;
mod terminal;
mod words;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    clap_complete::CompleteEnv::with_factory(complete::tree).shells(complete::SHELLS).complete();
    let cli = cli::Cli::parse();
    let done = runtime().and_then(|runtime| {
        let done = runtime.block_on(commands::run(cli));
        // Threads that still read standard input must not hold the end up.
        runtime.shutdown_background();
        done
    });
    match done.and_then(|code| output::flush().map(|()| code).map_err(anyhow::Error::from)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => output::failure::report(&error),
    }
}

/// One thread is enough for one command, and starts fastest.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
