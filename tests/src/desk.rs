//! The same work done by every client: the stock ones of two releases and our own, each with names of its own.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;

use crate::binary;
use crate::cli::{Outcome, run, run_with};
use crate::clients::Stock;
use crate::lab::Lab;
use crate::wait::until;

/// A client talking to a daemon, with a prefix for the names of what it makes.
pub struct Desk {
    /// The daemon.
    pub lab: Arc<Lab>,
    /// Which stock client; none for our own.
    pub stock: Option<Stock>,
    /// How its names begin.
    pub prefix: String,
}

impl Desk {
    /// One for every client.
    #[must_use]
    pub fn all(lab: &Arc<Lab>, topic: &str) -> Vec<Desk> {
        let clients = Stock::ALL.into_iter().map(Some).chain([None]);
        clients
            .map(|stock| {
                let prefix = format!("{}-{topic}", stock.map_or("own", Stock::suite));
                Desk { lab: lab.clone(), stock, prefix }
            })
            .collect()
    }

    /// The client's program.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.stock.map_or_else(|| binary("cabin"), Stock::program)
    }

    /// A name of this client's own.
    #[must_use]
    pub fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.prefix)
    }

    /// A folder of this client's own in the home of all.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        let folder = self.lab.home().join(&self.prefix);
        std::fs::create_dir_all(&folder).expect("a folder in the home");
        folder
    }

    /// Runs the client with nothing to read.
    pub fn run(&self, words: &[&str]) -> Outcome {
        run(&mut self.lab.command(&self.program(), words))
    }

    /// Runs the client with something to read.
    pub fn fed(&self, words: &[&str], stdin: &str) -> Outcome {
        run_with(&mut self.lab.command(&self.program(), words), stdin.as_bytes())
    }

    /// Runs the client under a terminal of its own.
    pub fn on_a_terminal(&self, line: &str, stdin: &str) -> Outcome {
        self.on_a_terminal_with(line, stdin, &[])
    }

    /// Runs the client under a terminal of its own, with more variables.
    pub fn on_a_terminal_with(&self, line: &str, stdin: &str, more: &[(&str, &str)]) -> Outcome {
        let line = format!("{} {line}", self.program().display());
        let script = Path::new("/usr/bin/script");
        let mut command = self.lab.command(script, &["--quiet", "--return", "--command", &line, "/dev/null"]);
        run_with(command.envs(more.iter().copied()), stdin.as_bytes())
    }

    /// Runs the client under a terminal where somebody types the same until it has ended; gives what was shown.
    ///
    /// # Panics
    /// When it does not end within a minute, or fails.
    #[must_use]
    pub fn typed_at(&self, line: &str, keys: &str) -> String {
        self.sit_at(line).leaves_with(keys)
    }

    /// Somebody at the client under a terminal of 101 columns and 37 rows.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn sit_at(&self, line: &str) -> Typist {
        let client = format!("stty cols 101 rows 37; exec {} {line}", self.program().display());
        let script = Path::new("/usr/bin/script");
        let mut command =
            self.lab.command(script, &["--quiet", "--return", "--command", &client, "/dev/null"]);
        let shown = self.folder().join("shown");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(File::create(&shown).expect("a file for what is shown"))
            .spawn()
            .expect("script (package bsdutils)");
        let keyboard = child.stdin.take().expect("stdin was asked for");
        Typist { line: line.to_owned(), child, keyboard, shown }
    }

    /// A running busybox.
    #[must_use]
    pub fn launch(&self, what: &str) -> String {
        let name = self.name(what);
        let _ = self.run(&["launch", "busybox", &name]).ok();
        name
    }

    /// Deletes an instance, running or not.
    pub fn delete(&self, name: &str) {
        let _ = self.run(&["delete", "--force", name]).ok();
    }
}

/// Somebody who types at a client.
pub struct Typist {
    line: String,
    child: Child,
    keyboard: ChildStdin,
    shown: PathBuf,
}

impl Typist {
    /// What the terminal has shown so far.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.shown).expect("what is shown")).into_owned()
    }

    /// Types the same again and again until there is that answer.
    ///
    /// # Panics
    /// When there is none within a minute, or the client has ended.
    pub fn types_until(&mut self, keys: &str, answer: &str) {
        let mut typing = keys.bytes().cycle();
        until(&format!("`{answer}` from `{}`", self.line), 60, || {
            let ended = self.child.try_wait().expect("a state");
            assert!(ended.is_none(), "`{}` ended\n{}", self.line, self.shown());
            self.press(typing.next());
            self.shown().contains(answer).then_some(())
        });
    }

    /// Types the same again and again until the client has ended; gives what was shown.
    ///
    /// # Panics
    /// When it does not end within a minute, or fails.
    #[must_use]
    pub fn leaves_with(mut self, keys: &str) -> String {
        let mut typing = keys.bytes().cycle();
        let ended = until(&format!("`{}` to end", self.line), 60, || {
            self.press(typing.next());
            self.child.try_wait().ok().flatten()
        });
        assert!(ended.success(), "`{}` ended with {ended}\n{}", self.line, self.shown());
        self.shown()
    }

    /// One at a time, as from a keyboard: the stock clients look for their keys in what comes alone.
    fn press(&mut self, key: Option<u8>) {
        let _ = self.keyboard.write_all(key.as_slice());
    }
}

/// Does the same with every client against the shared daemon, each with names of its own.
#[track_caller]
pub fn each(topic: &str, mut work: impl FnMut(&Desk)) {
    let lab = Lab::shared();
    lab.image("busybox");
    for desk in Desk::all(&lab, topic) {
        work(&desk);
    }
}
