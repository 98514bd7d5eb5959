//! bash, which cuts words at `=`: `--type=li` reaches us as three. They are one to the parser of commands, and the
//! shell gets back what goes after the cut.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap_complete::env::{Bash, EnvCompleter};

use super::line;

/// bash, with whole words.
#[derive(Debug)]
pub struct WholeWords;

impl EnvCompleter for WholeWords {
    fn name(&self) -> &'static str {
        Bash.name()
    }

    fn is(&self, name: &str) -> bool {
        Bash.is(name)
    }

    fn write_registration(
        &self,
        var: &str,
        name: &str,
        bin: &str,
        completer: &str,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        Bash.write_registration(var, name, bin, completer, out)
    }

    fn write_complete(
        &self,
        command: &mut clap::Command,
        mut words: Vec<OsString>,
        folder: Option<&Path>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let cursor = line::cursor().unwrap_or_default();
        let typed = words.get(cursor).map_or(0, |word| word.len());
        words.truncate(cursor.saturating_add(1));
        let words = line::joined(words);
        let last = words.len().saturating_sub(1);
        let cut = words.last().map_or(0, |word| word.len()).saturating_sub(typed);
        let found = clap_complete::engine::complete(command, words, last, folder)?;
        let values = found.iter().map(|it| it.get_value().to_string_lossy());
        let shown: Vec<String> = values.map(|it| it.get(cut..).unwrap_or_default().to_owned()).collect();
        let between = env::var("_CLAP_IFS").unwrap_or_else(|_| "\n".to_owned());
        write!(out, "{}", shown.join(&between))
    }
}
