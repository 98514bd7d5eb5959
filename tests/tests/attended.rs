//! People at a terminal: sizes that change, signals that are passed on, clients that vanish, and the console.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Receiver;

use cabin_tests::cli::host;
use cabin_tests::lab::Lab;
use cabin_tests::wait::until_true;

/// A program that runs while it is watched.
struct Attended {
    child: Child,
    input: Option<ChildStdin>,
    heard: String,
    lines: Receiver<String>,
}

impl Attended {
    fn start(command: &mut Command) -> Attended {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let _ = tell.send(String::from_utf8_lossy(&line).into_owned());
                line.clear();
            }
        });
        Attended { input: child.stdin.take(), child, heard: String::new(), lines }
    }

    /// A client under a terminal of its own, which it writes down in `tty`.
    fn at_a_terminal(lab: &Lab, words: &str, tty: &Path) -> Attended {
        let client = cabin_tests::binary("cabin");
        let line = format!("tty >{}; exec {} {words}", tty.display(), client.display());
        let words = ["--quiet", "--return", "--command", &line, "/dev/null"];
        Attended::start(&mut lab.command(Path::new("/usr/bin/script"), &words))
    }

    fn hears(&mut self, what: &str) {
        until_true(&format!("`{what}`"), 20, || {
            self.heard.extend(self.lines.try_iter());
            self.heard.contains(what)
        });
    }

    fn ends_with(&mut self, code: i32) {
        let mut ended = None;
        until_true("its end", 20, || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        self.heard.extend(self.lines.iter());
        assert_eq!(ended.unwrap().code(), Some(code), "{}", self.heard);
    }
}

#[test]
fn a_terminal_that_changes_its_size_tells_the_command() {
    let lab = Lab::shared();
    lab.busybox("resized");
    let tty = lab.home().join("resized.tty");
    // The trap is there before the first size is told.
    let script = "trap \"stty size; exit 4\" WINCH; stty size; while :; do sleep 0.1; done";
    let mut client = Attended::at_a_terminal(&lab, &format!("exec resized -t -- sh -c '{script}'"), &tty);
    client.hears("\n");
    let tty = std::fs::read_to_string(&tty).unwrap();
    host(&["stty", "-F", tty.trim(), "rows", "44", "cols", "99"]).ok();
    client.hears("44 99");
    client.ends_with(4);
    lab.cabin(&["delete", "-f", "resized"]).ok();
}

#[test]
fn a_signal_to_the_client_is_passed_on_to_the_command() {
    let lab = Lab::shared();
    lab.busybox("signalled");
    let script = "trap 'echo heard; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let words = ["exec", "signalled", "-T", "--", "sh", "-c", script];
    let mut client = Attended::start(&mut lab.command(&cabin_tests::binary("cabin"), &words));
    client.hears("ready");
    host(&["kill", "-TERM", &client.child.id().to_string()]).ok();
    client.ends_with(9);
    assert!(client.heard.contains("heard"), "{}", client.heard);
    lab.cabin(&["delete", "-f", "signalled"]).ok();
}

#[test]
fn a_command_whose_client_is_gone_goes_too() {
    let lab = Lab::shared();
    lab.busybox("deserted");
    let words = ["exec", "deserted", "-T", "--", "sh", "-c", "echo ready; exec sleep 12345"];
    let mut client = Attended::start(&mut lab.command(&cabin_tests::binary("cabin"), &words));
    client.hears("ready");
    let sleepers = || lab.sh("deserted", "cat /proc/[0-9]*/comm 2>/dev/null | grep -x sleep | wc -l");
    until_true("the command", 20, || sleepers() == "1");
    client.child.kill().unwrap();
    client.child.wait().unwrap();
    until_true("the end of the command", 20, || sleepers() == "0");
    lab.cabin(&["delete", "-f", "deserted"]).ok();
}

#[test]
fn a_console_is_shared_with_one_person_until_that_one_lets_go() {
    let lab = Lab::shared();
    lab.busybox("consoled");
    let tty = lab.home().join("consoled.tty");
    let mut first = Attended::at_a_terminal(&lab, "console consoled", &tty);
    until_true("the console to be attached", 20, || {
        let _ = lab.exec("consoled", &["sh", "-c", "echo knock >/dev/console"]);
        first.heard.extend(first.lines.try_iter());
        first.heard.contains("knock")
    });
    let second = lab.cabin(&["console", "consoled"]);
    assert!(second.refused().contains("consoled"));
    let mut input = first.input.take().unwrap();
    input.write_all(b"\x01q").unwrap();
    first.ends_with(0);
    assert!(lab.cabin(&["console", "consoled", "--show-log"]).ok().contains("knock"));
    lab.cabin(&["delete", "-f", "consoled"]).ok();
}
