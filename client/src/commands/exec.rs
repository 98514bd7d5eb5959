//! `exec` and `shell`.

use std::collections::BTreeMap;

use anyhow::Context as _;
use cabin_api::ConfigMap;
use cabin_api::instance::ExecPost;
use cabin_client::Error;

use super::Context;
use crate::cli::instance::{Exec, Mode, Shell};
use crate::session::{self, Input};
use crate::{output, remote, terminal};

/// The login shell: bash where there is one.
const LOGIN: &str = "command -v bash >/dev/null 2>&1 && exec bash -l; exec sh -l";

/// `exec`. Gives the command's exit code.
pub async fn run(context: &Context, args: Exec) -> anyhow::Result<u8> {
    let name = remote::local(&args.name)?;
    let interactive = wants_terminal(&args);
    let post = ExecPost {
        environment: environment(&args.env)?,
        user: args.user,
        group: args.group,
        cwd: args.cwd.clone().unwrap_or_default(),
        ..request(args.command.clone(), interactive)
    };
    let input = if args.disable_stdin { Input::Nothing } else { Input::Standard };
    go(context, name, &post, input).await
}

/// `shell`. Gives the shell's exit code.
pub async fn shell(context: &Context, args: Shell) -> anyhow::Result<u8> {
    let name = remote::local(&args.name)?;
    let command = match &args.user {
        Some(user) => ["su", "-l", user].map(str::to_owned).to_vec(),
        None => ["sh", "-c", LOGIN].map(str::to_owned).to_vec(),
    };
    let interactive = terminal::input_is_terminal() && terminal::output_is_terminal();
    let post = ExecPost { environment: environment(&[])?, ..request(command, interactive) };
    go(context, name, &post, Input::Standard).await
}

async fn go(context: &Context, name: &str, post: &ExecPost, input: Input) -> anyhow::Result<u8> {
    let client = context.client().await?;
    let session = client.exec(name, post).await?;
    let code = match session::run(&client, session, input).await {
        Ok(over) => over.metadata["return"].as_i64().context("the daemon gave no exit code")?,
        Err(error) => match error.downcast_ref() {
            // A command that cannot be run has an exit code too.
            Some(Error::Failed { text, exit_code: Some(code), .. }) => {
                output::note(format!("Error: {text}"));
                *code
            }
            _ => return Err(error),
        },
    };
    Ok(u8::try_from(code & 255).unwrap_or(u8::MAX))
}

fn wants_terminal(args: &Exec) -> bool {
    match args.mode {
        _ if args.force_interactive => true,
        _ if args.force_noninteractive => false,
        Mode::Interactive => true,
        Mode::NonInteractive => false,
        Mode::Auto => terminal::input_is_terminal() && terminal::output_is_terminal(),
    }
}

fn request(command: Vec<String>, interactive: bool) -> ExecPost {
    let size = terminal::size().filter(|_| interactive);
    let (width, height) = size.unwrap_or_default();
    ExecPost {
        command,
        wait_for_websocket: true,
        interactive,
        width: width.into(),
        height: height.into(),
        ..ExecPost::default()
    }
}

/// What was asked for, and the kind of terminal we are in.
fn environment(words: &[String]) -> anyhow::Result<ConfigMap> {
    let mut environment = BTreeMap::new();
    if let Ok(term) = std::env::var("TERM") {
        environment.insert("TERM".to_owned(), term);
    }
    for word in words {
        let (key, value) = match word.split_once('=') {
            Some(pair) => pair,
            // As in env(1) of other tools: a bare name passes our own value on.
            None => (word.as_str(), &*std::env::var(word).unwrap_or_default()),
        };
        environment.insert(key.to_owned(), value.to_owned());
    }
    Ok(ConfigMap(environment))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(line: &str) -> Exec {
        match Cli::parse_from(line.split(' ')).command {
            Command::Exec(exec) => exec.0,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_after_the_command_are_the_commands() {
        let check = |line: &str, expected: &[&str]| assert_eq!(parse(line).command, expected, "{line}");
        check("cabin exec web -- ls -l", &["ls", "-l"]);
        check("cabin exec web ls -la -t", &["ls", "-la", "-t"]);
        check("cabin exec web -- true", &["true"]);
    }

    #[test]
    fn flags_before_it_are_ours() {
        let exec = parse("cabin exec web -T --env A=b -- env");
        assert!(exec.force_noninteractive);
        assert_eq!(exec.env, ["A=b"]);
        assert!(!wants_terminal(&exec));
        assert!(wants_terminal(&parse("cabin exec -t web -- bash")));
        assert!(wants_terminal(&parse("cabin exec web --mode interactive -- bash")));
    }
}
