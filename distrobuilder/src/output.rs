//! The only place that prints: progress and results, for people or as one JSON object a line.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::IsTerminal;
use std::process::ExitCode;

use cabin_distrobuilder::shipped::Shipped;
use cabin_distrobuilder::{Built, Error, Progress};
use clap::ValueEnum;
use serde_json::json;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Style {
    /// For people.
    Text,
    /// One JSON object a line, on stdout.
    Json,
}

/// Where a build is shown.
pub struct Output {
    style: Style,
    last: String,
}

impl Output {
    /// In this style.
    pub fn new(style: Style) -> Output {
        Output { style, last: String::new() }
    }

    /// Shows how far a build is.
    pub fn progress(&mut self, progress: &Progress) {
        match self.style {
            Style::Json => {
                println!(
                    "{}",
                    json!({ "step": progress.step, "done": progress.done, "total": progress.total })
                );
            }
            Style::Text if self.last != progress.step => {
                let percent = progress.done * 100 / progress.total.max(1);
                match std::io::stderr().is_terminal() {
                    true => eprint!("\r\x1b[K{percent:3}% {}", progress.step),
                    false => eprintln!("{percent:3}% {}", progress.step),
                }
                self.last.clone_from(&progress.step);
            }
            Style::Text => {}
        }
    }

    /// Shows what was built.
    pub fn built(&mut self, built: &Built) {
        if self.style == Style::Json {
            let (meta, rootfs, alias) = (&built.meta, &built.rootfs, &built.alias);
            println!("{}", json!({ "result": { "meta": meta, "rootfs": rootfs, "alias": alias } }));
            return;
        }
        if std::io::stderr().is_terminal() {
            eprintln!();
        }
        println!("{}", built.meta.display());
        if let Some(rootfs) = &built.rootfs {
            println!("{}", rootfs.display());
        }
    }
}

/// Lists definitions.
pub fn list(shipped: &[Shipped]) {
    let width = shipped.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    for entry in shipped {
        println!("{:width$}  {}", entry.name, entry.summary);
    }
}

/// Shows why there is no image.
pub fn failed(error: &Error) -> ExitCode {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    eprintln!("error: {text}");
    ExitCode::FAILURE
}
