//! The command line explains itself: every command has help, completions and man pages come from the same tree,
//! and the commands that README and the docs show exist.

use std::collections::BTreeSet;
use std::process::Command;

use cabin_tests::binary;
use cabin_tests::cli::{Outcome, run};
use cabin_tests::tree::files;

fn cabin(words: &[&str]) -> Outcome {
    run(Command::new(binary("cabin")).args(words).env("CABIN_DIR", "/nonexistent").env("COLUMNS", "100"))
}

/// The names under `Commands:` in a help text.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| line.trim() != "Commands:").skip(1);
    listed
        .take_while(|line| !line.trim().is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("    "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|name| name != "help")
        .collect()
}

/// Every command with its sub-commands, as the words that are typed.
fn all() -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    let mut left: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(words) = left.pop() {
        let mut line: Vec<&str> = words.iter().map(String::as_str).collect();
        line.push("--help");
        let help = cabin(&line).ok();
        assert!(help.len() > 40, "`cabin {}` says nothing about itself", words.join(" "));
        for name in commands(&help) {
            let mut below = words.clone();
            below.push(name);
            left.push(below);
        }
        if !words.is_empty() {
            found.insert(words);
        }
    }
    found
}

#[test]
fn every_command_has_help_and_every_verb_people_know_is_there() {
    let all = all();
    let top: BTreeSet<&str> =
        all.iter().filter(|it| it.len() == 1).filter_map(|it| it.first()).map(String::as_str).collect();
    for verb in [
        "launch",
        "create",
        "list",
        "info",
        "start",
        "stop",
        "restart",
        "pause",
        "resume",
        "rename",
        "delete",
        "exec",
        "shell",
        "console",
        "file",
        "config",
        "profile",
        "image",
        "network",
        "storage",
        "monitor",
        "query",
        "doctor",
        "completion",
        "manpage",
    ] {
        assert!(top.contains(verb), "no `cabin {verb}` among {top:?}");
    }
    for pair in [
        "config set",
        "config device",
        "file push",
        "file pull",
        "image import",
        "image export",
        "profile assign",
    ] {
        let words: Vec<String> = pair.split(' ').map(str::to_owned).collect();
        assert!(all.contains(&words), "no `cabin {pair}`");
    }
}

#[test]
fn completions_and_man_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(cabin(&["completion", shell]).ok().contains("cabin"), "{shell}");
    }
    let dir = std::env::temp_dir().join(format!("cabin-man-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    cabin(&["manpage", &dir.display().to_string()]).ok();
    let pages = std::fs::read_dir(&dir).unwrap().count();
    let main = std::fs::read_to_string(dir.join("cabin.1")).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(pages > 20 && main.contains(".TH"), "{pages} pages");
}

#[test]
fn an_error_says_what_failed_and_gives_a_hint() {
    let done = cabin(&["list"]);
    assert_ne!(done.code, 0);
    assert_eq!(done.out, "");
    assert!(done.err.contains("/nonexistent") && done.err.contains("hint:"), "{}", done.err);
}

#[test]
fn the_commands_in_the_docs_exist() {
    let all = all();
    let mut shown = 0;
    for page in files(&["md"]).iter().filter(|it| it.path == "README.md" || it.path.starts_with("docs/")) {
        let code = page.text.split("```").skip(1).step_by(2);
        for line in code.flat_map(str::lines) {
            let line = line.trim_start().trim_start_matches("$ ").trim_start_matches("sudo ");
            let Some(rest) = line.strip_prefix("cabin ") else { continue };
            let words: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
            let known =
                (1..=words.len().min(3)).any(|many| all.contains(words.get(..many).unwrap_or_default()));
            assert!(known, "{} shows `{line}`, which is no command", page.path);
            shown += 1;
        }
    }
    assert!(shown > 10, "only {shown} commands in the docs");
}
