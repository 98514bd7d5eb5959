//! What can go wrong with a build.

use std::io;
use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No definition of that name is shipped.
    #[error("no definition is named `{name}` (there are: {known})")]
    Unknown {
        /// The name.
        name: String,
        /// Those there are.
        known: String,
    },
    /// A definition that cannot be read.
    #[error("cannot read definition `{name}`")]
    Parse {
        /// The file, or the name of a shipped one.
        name: String,
        /// What is wrong, with line and column.
        #[source]
        source: serde_yaml::Error,
    },
    /// A definition that says what cannot be.
    #[error("definition `{name}`: {field}: {rule}")]
    Definition {
        /// The file, or the name of a shipped one.
        name: String,
        /// The field.
        field: String,
        /// What is wrong with it.
        rule: String,
    },
    /// An option that means nothing.
    #[error("unknown option `{option}` (there are: {known})")]
    Option {
        /// The option.
        option: String,
        /// Those there are.
        known: String,
    },
    /// A text with placeholders that did not render.
    #[error("cannot render {what}")]
    Render {
        /// Which text.
        what: String,
        /// Why.
        #[source]
        source: cabin_templates::Error,
    },
    /// A program of the host is missing.
    #[error("cannot {act}")]
    Program {
        /// For what.
        act: &'static str,
        /// Which.
        #[source]
        source: cabin_sys::command::Missing,
    },
    /// The host's busybox needs libraries.
    #[error("`{path}` is not statically linked (install the package `busybox-static`)")]
    NotStatic {
        /// The program.
        path: String,
    },
    /// Something with a file or a program went wrong.
    #[error("cannot {act} `{path}`")]
    Io {
        /// What was tried.
        act: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The source did not make a tree.
    #[error("{program} failed: {said}")]
    Source {
        /// The program.
        program: &'static str,
        /// The end of what it said.
        said: String,
    },
    /// A script inside the tree failed.
    #[error("{what} failed inside the tree: {said}")]
    Script {
        /// Which.
        what: String,
        /// The end of what it said.
        said: String,
    },
    /// The tree could not be packed.
    #[error("cannot pack the image")]
    Pack {
        /// Why.
        #[source]
        source: cabin_images::Error,
    },
    /// What the cache remembers cannot be read.
    #[error("cannot read or write what the cache remembers of `{name}`")]
    Remember {
        /// The image.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Makes an [`Error::Io`] of what went wrong.
pub(crate) fn io(act: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
    let path = path.as_ref().to_owned();
    move |source| Error::Io { act, path, source }
}
