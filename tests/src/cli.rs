//! Running a program to its end and looking at what it said.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// How a program ended and what it said.
#[derive(Debug, Clone)]
#[must_use = "look at how it ended, or call `ok`"]
pub struct Outcome {
    /// What was run, for messages.
    pub line: String,
    /// The exit code; 128 + n when signal n ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard output as it came.
    pub bytes: Vec<u8>,
    /// Standard error.
    pub err: String,
}

impl Outcome {
    /// Standard output of a program that succeeded, without the white space around it.
    ///
    /// # Panics
    /// When it failed; the message holds all it said.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == 0, "`{}` ended with {}\n{}{}", self.line, self.code, self.out, self.err);
        self.out.trim().to_owned()
    }

    /// Standard error of a program that failed as it should.
    ///
    /// # Panics
    /// When it succeeded.
    #[track_caller]
    pub fn refused(self) -> String {
        assert!(self.code != 0, "`{}` should have failed, but said:\n{}{}", self.line, self.out, self.err);
        self.err.trim().to_owned()
    }

    /// Standard output of a program that succeeded, read as JSON.
    ///
    /// # Panics
    /// When it failed or wrote something else.
    #[track_caller]
    #[must_use]
    pub fn json(self) -> serde_json::Value {
        let line = self.line.clone();
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|why| panic!("`{line}` wrote no JSON ({why}):\n{text}"))
    }
}

/// Runs `command` to its end with `stdin` as its standard input.
///
/// # Panics
/// When it cannot be started.
pub fn run_with(command: &mut Command, stdin: &[u8]) -> Outcome {
    let line = line_of(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|why| panic!("cannot start `{line}`: {why}"));
    let mut pipe = child.stdin.take().expect("stdin was asked for");
    let bytes = stdin.to_vec();
    // A thread of its own: a program that writes before it has read all of its input would block both.
    let feeder = std::thread::spawn(move || {
        let _ = pipe.write_all(&bytes);
    });
    let done = child.wait_with_output().unwrap_or_else(|why| panic!("cannot wait for `{line}`: {why}"));
    let _ = feeder.join();
    outcome(line, done)
}

/// Runs `command` to its end with nothing on its standard input.
///
/// # Panics
/// When it cannot be started.
pub fn run(command: &mut Command) -> Outcome {
    let line = line_of(command);
    let done =
        command.stdin(Stdio::null()).output().unwrap_or_else(|why| panic!("cannot start `{line}`: {why}"));
    outcome(line, done)
}

/// Runs a program of the host.
///
/// # Panics
/// When it cannot be started.
pub fn host<S: AsRef<OsStr>>(words: &[S]) -> Outcome {
    let (program, args) = words.split_first().expect("a program to run");
    run(Command::new(program).args(args))
}

fn outcome(line: String, done: std::process::Output) -> Outcome {
    use std::os::unix::process::ExitStatusExt as _;
    let code = done.status.code().unwrap_or_else(|| 128 + done.status.signal().unwrap_or(0));
    Outcome {
        line,
        code,
        out: String::from_utf8_lossy(&done.stdout).into_owned(),
        bytes: done.stdout,
        err: String::from_utf8_lossy(&done.stderr).into_owned(),
    }
}

fn line_of(command: &Command) -> String {
    let mut words = vec![short(command.get_program())];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

fn short(program: &OsStr) -> String {
    std::path::Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned()
}
