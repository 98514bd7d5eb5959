//! A command in a running container, from inside: the last steps before its program.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use cabin_runtime::cgroup::Entry;
use cabin_runtime::spec::{ExecSpec, IdMap};
use cabin_runtime::wire::{self, Failure, SessionProgress, Standing};
use cabin_sys::{inheritance, process, pty};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use crate::step::{Step, odd};
use crate::{accounts, confine, link, payload, session};

/// `SIGKILL`.
const KILL: i32 = 9;

/// Where programs are looked for when the environment does not say.
const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// From the process outside.
#[derive(Debug, Serialize, Deserialize)]
pub enum Word {
    /// The command's process is in its cgroups, and its program may run. Descriptors: its three streams.
    Go,
}

/// Whether the standard streams are a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// They are, and it becomes the controlling one.
    Controlling,
    /// They are not.
    None,
}

/// Becomes the command. Returns only when that failed.
pub fn run(
    outside: &OwnedFd,
    spec: &ExecSpec,
    (init, standing): (&OwnedFd, &Standing),
    entry: &Entry,
) -> i32 {
    // On a host with much to do the command is not the last to run; whatever it starts has the usual turns.
    let _ = inheritance::take_short_turns();
    let entered = entry.walk_in().step("enter the cgroups").and_then(|()| session::enter(init, standing));
    let entered = entered.map_err(SessionProgress::Failed);
    let Err(why) = entered.and_then(|()| become_command(outside, spec, standing.ids));
    let _ = wire::send(outside, &why, &[]);
    1
}

fn become_command(outside: &OwnedFd, spec: &ExecSpec, ids: IdMap) -> Result<Infallible, SessionProgress> {
    let argv = payload::strings(&spec.argv).map_err(SessionProgress::Failed)?;
    let env: Vec<String> = spec.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let env = payload::strings(&env).map_err(SessionProgress::Failed)?;
    prepare(outside, spec, ids).map_err(SessionProgress::Failed)?;
    take_streams(outside, spec).map_err(SessionProgress::Failed)?;
    Err(execute(spec, &argv, &env))
}

/// Everything that needs neither the streams nor the daemon's leave, so that it is done when that comes.
fn prepare(outside: &OwnedFd, spec: &ExecSpec, ids: IdMap) -> Result<(), Failure> {
    process::close_all_but(&[outside.as_fd()]).step("close descriptors")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).step("open the root directory")?;
    let mut groups = accounts::supplementary_groups(&root, spec.uid);
    // What its files say is the guest's: a group that cannot be has no members.
    groups.retain(|gid| match ids {
        IdMap::Isolated(range) => *gid < range.size,
        IdMap::Privileged => *gid != u32::MAX,
    });
    confine::shed(ids)?;
    process::reset_signals().step("reset the signals")?;
    // It needs a capability that a change of user takes away.
    confine::filter_calls()?;
    process::set_ids(spec.uid, spec.gid, &groups).step("become the user")?;
    // A change of user takes it back, so it is asked for after that.
    process::set_parent_death_signal(Some(KILL)).step("tie itself to its helper")?;
    match &spec.cwd {
        Some(cwd) => change_directory(&root, cwd),
        None => {
            // As Incus: where the environment says that the user is at home.
            let home =
                spec.env.iter().find(|(name, _)| name == "HOME").map_or("/root", |(_, home)| home.as_str());
            change_directory(&root, home).or_else(|_| change_directory(&root, "/"))
        }
    }
}

/// Waits for leave, which brings the streams.
fn take_streams(outside: &OwnedFd, spec: &ExecSpec) -> Result<(), Failure> {
    let (Word::Go, streams) = link::next(outside, "wait for leave to run")?;
    let streams =
        <[OwnedFd; 3]>::try_from(streams).map_err(|_| odd("take the streams", "there are not three"))?;
    match session::terminal(spec.streams) {
        Terminal::Controlling => pty::become_controlling(&streams[0]).step("take the terminal")?,
        Terminal::None => drop(rustix::process::setsid().step("start a session")?),
    }
    for (stream, standard) in streams.iter().zip(0..) {
        process::place(stream, standard).step("take the streams")?;
    }
    Ok(())
}

fn change_directory(root: &OwnedFd, cwd: &str) -> Result<(), Failure> {
    let what = || format!("change to directory `{cwd}`");
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat2(root, cwd, flags, Mode::empty(), resolve).step(what())?;
    rustix::process::fchdir(&dir).step(what())?;
    // A directory outside the root would be named "(unreachable)…".
    let name = rustix::process::getcwd(Vec::new()).step(what())?;
    if name.as_bytes().first() == Some(&b'/') { Ok(()) } else { Err(odd(&what(), "it is out of reach")) }
}

/// Tries the program where it may be, and says why it is not executed.
fn execute(spec: &ExecSpec, argv: &[CString], env: &[CString]) -> SessionProgress {
    let Some(program) = spec.argv.first().filter(|program| !program.is_empty()) else {
        return SessionProgress::NotFound;
    };
    let mut refused = None;
    for path in candidates(program, &spec.env) {
        let Ok(path) = CString::new(path) else { continue };
        let error = process::exec(&path, argv, env);
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {}
            _ => refused = Some(error),
        }
    }
    match refused {
        Some(error) => SessionProgress::NotExecutable(Failure::new("execute it", &error)),
        None => SessionProgress::NotFound,
    }
}

fn candidates(program: &str, env: &[(String, String)]) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let search = env.iter().find(|(key, _)| key == "PATH").map_or(SEARCH, |(_, value)| value.as_str());
    search.split(':').map(|dir| format!("{}/{program}", if dir.is_empty() { "." } else { dir })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_a_slash_is_looked_for_in_path() {
        let env = [("PATH".to_owned(), "/a::/b".to_owned())];
        assert_eq!(candidates("x", &env), ["/a/x", "./x", "/b/x"]);
        assert_eq!(candidates("./x", &env), ["./x"]);
        assert_eq!(candidates("x", &[])[0], "/usr/local/sbin/x");
    }
}
