//! The line before the cursor, as the parser of commands understands it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgMatches, CommandFactory as _};

/// What has been typed up to the word that is completed.
#[derive(Debug)]
pub struct Line(ArgMatches);

impl Line {
    /// The line the shell asks about: our own words after `--`, up to the place of the cursor where the shell
    /// tells it.
    pub fn typed() -> Line {
        Line::of(std::env::args_os().skip_while(|word| word != "--").skip(1).collect(), cursor())
    }

    fn of(mut words: Vec<OsString>, cursor: Option<usize>) -> Line {
        let cursor = cursor.unwrap_or(words.len().saturating_sub(1));
        words.truncate(cursor.saturating_add(1));
        let mut words = joined(words);
        words.pop();
        let parser = crate::cli::Cli::command().ignore_errors(true);
        Line(parser.try_get_matches_from(words).unwrap_or_default())
    }

    /// The socket that was named.
    pub fn socket(&self) -> Option<PathBuf> {
        self.0.try_get_one::<PathBuf>("socket").ok().flatten().cloned()
    }

    /// Whether the command is one of those below `verb`.
    pub fn is_under(&self, verb: &str) -> bool {
        self.verbs().contains(&verb)
    }

    /// The command's words, the outermost first.
    pub fn verbs(&self) -> Vec<&str> {
        let mut verbs = Vec::new();
        let mut at = &self.0;
        while let Some((verb, below)) = at.subcommand() {
            verbs.push(verb);
            at = below;
        }
        verbs
    }

    /// The values of an argument, by the name of its field.
    pub fn all(&self, argument: &str) -> Vec<String> {
        let values = self.command().try_get_raw(argument).ok().flatten();
        values.map(|all| all.map(|it| it.to_string_lossy().into_owned()).collect()).unwrap_or_default()
    }

    /// The value of an argument, without the remote before it.
    pub fn first(&self, argument: &str) -> Option<String> {
        let value = self.all(argument).into_iter().next()?;
        crate::remote::local(&value).ok().map(str::to_owned)
    }

    /// Whether a flag is there.
    pub fn is_set(&self, flag: &str) -> bool {
        self.command().try_get_one::<bool>(flag).ok().flatten().copied().unwrap_or(false)
    }

    fn command(&self) -> &ArgMatches {
        let mut at = &self.0;
        while let Some((_, below)) = at.subcommand() {
            at = below;
        }
        at
    }
}

/// Which word the cursor is in, where the shell tells.
pub fn cursor() -> Option<usize> {
    std::env::var("_CLAP_COMPLETE_INDEX").ok()?.parse().ok()
}

/// The words as they were typed: bash gives `KEY=VALUE` as three.
pub fn joined(words: Vec<OsString>) -> Vec<OsString> {
    let mut whole: Vec<OsString> = Vec::with_capacity(words.len());
    let mut open = false;
    for word in words {
        let sign = word == "=";
        match whole.last_mut() {
            Some(last) if sign || open => last.push(word),
            _ => whole.push(word),
        }
        open = sign;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line::of(text.split(' ').map(OsString::from).collect(), None)
    }

    #[test]
    fn what_stands_before_the_cursor_is_understood() {
        let found = line("cabin --socket /s config set web limits.cpu = 2 user.a");
        assert_eq!(found.socket(), Some("/s".into()));
        assert_eq!(found.verbs(), ["config", "set"]);
        assert_eq!(found.all("words"), ["web", "limits.cpu=2"]);
        assert_eq!(line("cabin config set web limits.cpu = 2").all("words"), ["web"]);
        let found = line("cabin snapshot rename local:web s0 ");
        assert_eq!(found.first("instance").as_deref(), Some("web"));
        assert_eq!(found.first("name").as_deref(), Some("s0"));
        assert_eq!(found.first("none"), None);
        assert!(line("cabin rebuild --empty ").is_set("empty"));
        assert_eq!(line("cabin profile device add small ").all("owner"), ["small"]);
    }

    #[test]
    fn words_after_the_cursor_do_not_count() {
        let words = ["cabin", "restore", "web", "", "more"].map(OsString::from).to_vec();
        assert_eq!(Line::of(words, Some(3)).all("name"), Vec::<String>::new());
    }
}
