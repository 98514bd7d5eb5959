//! `distrobuilder`: builds images from definitions.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cabin_distrobuilder::{Layout, Options, build, inside, shipped};
use cabin_images::Compression;
use clap::{Parser, Subcommand, ValueEnum};

mod output;

use output::{Output, Style};

/// Builds images from definitions.
#[derive(Parser)]
#[command(name = "distrobuilder", version)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build an image and put its files into a directory
    Build {
        /// A shipped definition (see `list`) or a file
        definition: String,
        /// Where the files go
        outdir: PathBuf,
        /// One file or two
        #[arg(long = "type", value_enum, default_value_t = Type::Unified)]
        layout: Type,
        /// How the tarball of a unified image is compressed
        #[arg(long, value_enum, default_value_t = Compress::Zstd)]
        compression: Compress,
        /// Set something over the definition, such as image.release=trixie
        #[arg(short = 'o', long = "option", value_name = "KEY=VALUE", value_parser = pair)]
        options: Vec<(String, String)>,
        /// Where builds happen and what was built is kept
        #[arg(long, default_value = "/var/cache/cabin/distrobuilder")]
        cache_dir: PathBuf,
        /// How progress is shown
        #[arg(long, value_enum, default_value_t = Style::Text)]
        progress: Style,
    },
    /// List the shipped definitions
    List,
    /// Run the script of a build inside its tree
    #[command(hide = true, name = inside::SUBCOMMAND)]
    Inside {
        /// The tree
        tree: PathBuf,
    },
    /// Run a program that ends when its parent does
    #[command(hide = true, name = inside::LEASH)]
    Leash {
        /// The program and its arguments
        #[arg(last = true)]
        words: Vec<OsString>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Type {
    Unified,
    Split,
}

#[derive(Clone, Copy, ValueEnum)]
enum Compress {
    None,
    Gzip,
    Xz,
    Zstd,
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("`{text}` is not KEY=VALUE"))
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Verb::List => {
            output::list(shipped());
            ExitCode::SUCCESS
        }
        Verb::Inside { tree } => ended(inside::main(&tree)),
        Verb::Leash { words } => ended(inside::leash(&words)),
        Verb::Build { definition, outdir, layout, compression, options, cache_dir, progress } => {
            let options = Options {
                layout: match layout {
                    Type::Unified => Layout::Unified,
                    Type::Split => Layout::Split,
                },
                compression: match compression {
                    Compress::None => Compression::None,
                    Compress::Gzip => Compression::Gzip,
                    Compress::Xz => Compression::Xz,
                    Compress::Zstd => Compression::Zstd,
                },
                set: options,
                cache: absolute(&cache_dir),
                helper: std::env::current_exe().unwrap_or_default(),
            };
            let mut output = Output::new(progress);
            match build(&definition, &absolute(&outdir), &options, &mut |progress| output.progress(progress))
            {
                Ok(built) => {
                    output.built(&built);
                    ExitCode::SUCCESS
                }
                Err(error) => output::failed(&error),
            }
        }
    }
}

fn ended(result: cabin_distrobuilder::Result<i32>) -> ExitCode {
    match result {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Err(error) => output::failed(&error),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
