//! `exec`: a command inside a running container.

use std::fs::File;
use std::os::fd::OwnedFd;

use cabin_api::instance::ExecPost;
use cabin_runtime::spec::{ExecSpec, Streams};
use serde_json::json;

use super::{address, expand, load, profiles_of, running};
use crate::{Error, Host};

pub use cabin_runtime::Exec as Session;

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
/// When the instance does not run or is frozen, the command is empty, or it cannot be started.
pub fn exec(
    host: &Host,
    project: &str,
    name: &str,
    post: &ExecPost,
    streams: ExecStreams,
) -> Result<Session, Error> {
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
    let session = host.runtime().exec(name, &spec, given)?;
    let context = json!({ "command": post.command });
    host.events().lifecycle(project, "instance-exec", &address(name), name, context, None);
    Ok(session)
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
