//! What can go wrong with an image file.

use std::io;

/// The result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure it is, for those who answer requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The image is at fault.
    Invalid,
    /// The host lacks something.
    Unsupported,
    /// Anything else.
    Internal,
}

/// A failure of this crate, named for what was being done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image file could not be read.
    #[error("cannot read the image file")]
    Read {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Neither a tarball nor a squashfs in a form we know.
    #[error("not a tarball (plain, gzip, bzip2, xz, zstd) or squashfs")]
    UnknownFormat,
    /// A file of a kind that cannot be used for this part of an image.
    #[error("a {found} cannot be used as {wanted}")]
    WrongFormat {
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// Not 64 lower case hexadecimal digits.
    #[error("`{text}` is not an image fingerprint (64 lower case hexadecimal digits)")]
    Fingerprint {
        /// What was given, shortened.
        text: String,
    },
    /// `metadata.yaml` is not what it should be.
    #[error("cannot parse `metadata.yaml`")]
    ParseMetadata {
        /// Why.
        #[source]
        source: serde_yaml::Error,
    },
    /// Metadata could not be written as YAML.
    #[error("cannot write `metadata.yaml`")]
    RenderMetadata {
        /// Why.
        #[source]
        source: serde_yaml::Error,
    },
    /// `index.yaml` of a backup is not YAML.
    #[error("cannot parse `index.yaml`")]
    ParseIndex {
        /// Why.
        #[source]
        source: serde_yaml::Error,
    },
    /// Well-formed metadata that breaks a rule.
    #[error("metadata is not acceptable: {why}: `{value}`")]
    Metadata {
        /// The rule.
        why: &'static str,
        /// What broke it.
        value: String,
    },
    /// The archive's structure is wrong.
    #[error("the archive is damaged or hostile: {why}")]
    Archive {
        /// What is wrong.
        why: &'static str,
    },
    /// A member of the archive is refused.
    #[error("member `{path}` is refused: {why}")]
    Member {
        /// Its path as the archive has it.
        path: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// More bytes than allowed come out of the image.
    #[error("the image expands beyond {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// More files than allowed are in the image.
    #[error("the image holds more than {limit} files")]
    TooMany {
        /// The limit.
        limit: u64,
    },
    /// A file of the tree could not be made.
    #[error("cannot make `{path}`")]
    Make {
        /// Its path in the tree.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The unpacking process could not confine itself.
    #[error("cannot confine the unpacking process: {step}")]
    Confine {
        /// The step that failed.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The unpacking process could not be started.
    #[error("cannot start `{helper}`")]
    Start {
        /// The helper's path.
        helper: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The talk with the unpacking process broke.
    #[error("lost the unpacking process")]
    Talk {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A message between daemon and unpacking process made no sense.
    #[error("the unpacking process was misunderstood")]
    Message {
        /// Why.
        #[source]
        source: postcard::Error,
    },
    /// The unpacking process ended without an answer.
    #[error("the unpacking process ended early ({status})")]
    Died {
        /// How it ended, as the system says it.
        status: String,
    },
    /// The unpacking process refused the image, or failed.
    #[error("cannot unpack the archive")]
    Unpack {
        /// Whether the image is at fault.
        kind: Kind,
        /// What it reported.
        #[source]
        source: Reported,
    },
    /// A tree could not be packed.
    #[error("cannot pack `{path}`")]
    Pack {
        /// The file in the tree, or the output.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program is not on this host.
    #[error("cannot pack a squashfs")]
    Program {
        /// Which.
        #[source]
        source: cabin_sys::command::Missing,
    },
}

impl Error {
    /// What an archive lacks that is cut off.
    pub(crate) const EARLY: &'static str = "it ends too early";

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Error::UnknownFormat
            | Error::WrongFormat { .. }
            | Error::Fingerprint { .. }
            | Error::ParseMetadata { .. }
            | Error::ParseIndex { .. }
            | Error::Metadata { .. }
            | Error::Archive { .. }
            | Error::Member { .. }
            | Error::TooLarge { .. }
            | Error::TooMany { .. } => Kind::Invalid,
            Error::Program { .. } => Kind::Unsupported,
            Error::Unpack { kind, .. } => *kind,
            _ => Kind::Internal,
        }
    }

    /// For bytes that should have come out of the image: a decoder's complaint names the image, not the disk.
    pub(crate) fn reading(source: io::Error) -> Error {
        match source.downcast::<Error>() {
            Ok(ours) => ours,
            Err(source) => match source.kind() {
                io::ErrorKind::UnexpectedEof => Error::Archive { why: Error::EARLY },
                _ => Error::Read { source },
            },
        }
    }
}

/// A failure that came over from the unpacking process: its text, and what caused it.
#[derive(Debug)]
pub struct Reported {
    text: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Reported {
    /// Rebuilds a chain from its texts, outermost first. With a `number` the last of them is the system's own.
    pub(crate) fn from_chain(mut chain: Vec<String>, number: Option<i32>) -> Reported {
        let system = number.filter(|_| chain.len() > 1).map(io::Error::from_raw_os_error);
        if system.is_some() {
            chain.pop();
        }
        let mut chain = chain.into_iter().rev();
        let text = chain.next().unwrap_or_else(|| "no reason given".to_owned());
        let innermost = Reported { text, source: system.map(Into::into) };
        chain.fold(innermost, |inner, text| Reported { text, source: Some(Box::new(inner)) })
    }
}

impl std::fmt::Display for Reported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Reported {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|inner| inner as _)
    }
}
