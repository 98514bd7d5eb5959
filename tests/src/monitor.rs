//! Somebody who listens to the daemon's events, with `cabin monitor`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

use crate::binary;
use crate::daemon::Daemon;
use crate::wait::until_true;

/// A monitor that runs; it ends with this.
pub struct Monitor {
    child: Child,
    lines: Receiver<String>,
}

impl Monitor {
    /// Listens to events as these words for `cabin monitor` say.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(daemon: &Daemon, words: &[&str]) -> Monitor {
        let words = [&["monitor", "--format", "json"], words].concat();
        let mut command = daemon.command(&binary("cabin"), &words);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a monitor");
        let read = BufReader::new(child.stdout.take().expect("its output")).lines();
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in read.map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        Monitor { child, lines }
    }

    /// As [`Monitor::start`] of lifecycle events, and waits until it hears them.
    ///
    /// # Panics
    /// When it hears nothing.
    #[must_use]
    pub fn of_lifecycle(daemon: &Daemon) -> Monitor {
        let monitor = Monitor::start(daemon, &["--type", "lifecycle"]);
        until_true("the listener", 20, || {
            daemon.cabin(&["profile", "create", "heard"]).ok();
            daemon.cabin(&["profile", "delete", "heard"]).ok();
            !monitor.heard().is_empty()
        });
        monitor
    }

    /// What it has heard since this was asked.
    ///
    /// # Panics
    /// When a line is no JSON.
    #[must_use]
    pub fn heard(&self) -> Vec<Value> {
        self.lines.try_iter().map(|line| serde_json::from_str(&line).expect("an event")).collect()
    }

    /// Waits for lifecycle events of these actions, in that order and others between them; what they held.
    ///
    /// # Panics
    /// When one does not come.
    pub fn wait_for(&self, actions: &[&str]) -> Vec<Value> {
        let mut found: Vec<Value> = Vec::new();
        until_true(&format!("events of {actions:?}"), 20, || {
            for event in self.heard() {
                if actions.get(found.len()).is_some_and(|action| event["metadata"]["action"] == *action) {
                    found.push(event["metadata"].clone());
                }
            }
            found.len() == actions.len()
        });
        found
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
