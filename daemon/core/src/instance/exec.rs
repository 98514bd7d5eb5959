//! `exec`: a command inside a running container.

use std::fs::File;
use std::os::fd::OwnedFd;

use cabin_api::instance::ExecPost;
use cabin_runtime::spec::{ExecSpec, Streams};
use serde_json::json;

use super::{address, expand, load, profiles_of, running};
use crate::{Error, Host, recover};

pub use cabin_runtime::{Exec as Session, Prepared};

/// Where a command's streams go.
pub enum ExecStreams {
    /// A terminal of that size.
    Terminal {
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
    /// Three pipes.
    Pipes,
    /// Nothing in, and out to files.
    Files {
        /// Standard output.
        stdout: File,
        /// Standard error.
        stderr: File,
    },
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts a command.
///
/// # Errors
/// As [`prepare_exec`] and [`run_prepared`].
pub fn exec(
    host: &Host,
    project: &str,
    name: &str,
    post: &ExecPost,
    streams: ExecStreams,
) -> Result<Session, Error> {
    let prepared = prepare_exec(host, project, name, post, streams)?;
    run_prepared(host, project, name, post, prepared)
}

/// Makes everything ready for a command, whose process then waits inside. Nothing of it runs before
/// [`run_prepared`].
///
/// # Errors
/// When the instance does not run or is frozen, the command is empty, or its process cannot be made.
pub fn prepare_exec(
    host: &Host,
    project: &str,
    name: &str,
    post: &ExecPost,
    streams: ExecStreams,
) -> Result<Prepared, Error> {
    let live = running(host, project, name)?;
    if live.is_frozen() {
        return Err(Error::WrongStatus { name: name.to_owned(), action: "exec in", status: "frozen" });
    }
    check(post)?;
    let (streams, given) = match streams {
        ExecStreams::Terminal { width, height } => (Streams::Terminal { width, height }, None),
        ExecStreams::Pipes => (Streams::Pipes, None),
        ExecStreams::Files { stdout, stderr } => {
            let nothing = File::open("/dev/null").map_err(Error::io("open /dev/null"))?;
            (Streams::Given, Some([OwnedFd::from(nothing), OwnedFd::from(stdout), OwnedFd::from(stderr)]))
        }
    };
    let spec = ExecSpec {
        argv: post.command.clone(),
        env: environment(host, project, name, post)?,
        uid: post.user,
        gid: post.group,
        cwd: Some(post.cwd.clone()).filter(|cwd| !cwd.is_empty()),
        streams,
    };
    let again = given.as_ref().map(copies).transpose().map_err(Error::io("copy the streams"))?;
    match host.runtime().prepare_exec(name, &spec, given) {
        // Somebody took its cgroups away.
        Err(cabin_runtime::Error::Cgroup { .. }) if recover::mend_groups(host, &live) => {
            Ok(host.runtime().prepare_exec(name, &spec, again)?)
        }
        other => Ok(other?),
    }
}

/// Lets a prepared command run.
///
/// # Errors
/// When its program is not there or cannot be executed, or the instance has stopped meanwhile.
pub fn run_prepared(
    host: &Host,
    project: &str,
    name: &str,
    post: &ExecPost,
    prepared: Prepared,
) -> Result<Session, Error> {
    let session = prepared.run()?;
    let context = json!({ "command": post.command });
    host.events().lifecycle(project, "instance-exec", &address(name), name, context, None);
    Ok(session)
}

/// Keeps a helper at hand for the next command. For when nobody waits.
pub fn keep_exec_helper(host: &Host) {
    host.runtime().keep_helper();
}

fn copies(streams: &[OwnedFd; 3]) -> std::io::Result<[OwnedFd; 3]> {
    Ok([streams[0].try_clone()?, streams[1].try_clone()?, streams[2].try_clone()?])
}

/// Refuses a command that cannot be one, before anything is made for it.
fn check(post: &ExecPost) -> Result<(), Error> {
    if post.command.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("no command was given"));
    }
    let texts = post.command.iter().chain(post.environment.0.iter().flat_map(|(key, value)| [key, value]));
    if texts.chain([&post.cwd]).any(|text| text.contains('\0')) {
        return Err(Error::invalid("a command, its environment and directory cannot hold NUL"));
    }
    if post.environment.0.keys().any(|key| key.is_empty() || key.contains('=')) {
        return Err(Error::invalid("the name of an environment variable is not empty and has no `=`"));
    }
    Ok(())
}

/// The environment: what Incus gives, then `environment.*` of the instance, then what was asked for.
fn environment(
    host: &Host,
    project: &str,
    name: &str,
    post: &ExecPost,
) -> Result<Vec<(String, String)>, Error> {
    let row = load(host, project, name)?.row;
    let expanded = expand(&row, &profiles_of(host, project, &row.profiles)?);
    let mut env = std::collections::BTreeMap::new();
    let mut set = |key: &str, value: &str| env.insert(key.to_owned(), value.to_owned());
    set("PATH", PATH);
    set("LANG", "C.UTF-8");
    set("container", "lxc");
    if post.user == 0 {
        set("HOME", "/root");
        set("USER", "root");
    }
    if post.interactive {
        set("TERM", "xterm-256color");
    }
    for (key, value) in &expanded.config {
        if let Some(key) = key.strip_prefix("environment.") {
            set(key, value);
        }
    }
    for (key, value) in &post.environment.0 {
        set(key, value);
    }
    Ok(env.into_iter().collect())
}
