//! Everything that can go wrong, by the act that failed.

use std::error::Error as _;

use cabin_undo::Failed;

use crate::shortage;

/// What sort of failure it is; the door turns it into a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is no such object.
    NotFound,
    /// It is there already, or in use.
    Conflict,
    /// What was asked makes no sense.
    Invalid,
    /// It makes sense but is not allowed.
    Forbidden,
    /// Something else is being done to the object.
    Busy,
    /// The object is not what the caller thinks (`If-Match`).
    PreconditionFailed,
    /// This version or this host cannot do it.
    Unsupported,
    /// What is needed is not there at the moment.
    Unavailable,
    /// The host or the daemon failed.
    Internal,
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("{what} `{name}` not found")]
    NotFound { what: &'static str, name: String },
    #[error("{what} `{name}` already exists")]
    Exists { what: &'static str, name: String },
    #[error("{reason}")]
    Invalid { reason: String },
    #[error("{what} `{name}` is in use by {by}")]
    InUse { what: &'static str, name: String, by: String },
    #[error("{} is busy: {doing} is going on", busy(name))]
    Busy { name: String, doing: &'static str },
    #[error("cannot {action} instance `{name}`: it is {status}")]
    WrongStatus { name: String, action: &'static str, status: &'static str },
    #[error("{what} `{name}` was changed meanwhile; read it again")]
    Changed { what: &'static str, name: String },
    #[error("{what} is not supported: {reason}")]
    Unsupported { what: String, reason: &'static str },
    #[error("instance `{name}` is protected: unset `{key}` first")]
    Protected { name: String, key: &'static str },
    #[error("{what} `{name}` is unavailable")]
    Unavailable {
        what: &'static str,
        name: String,
        #[source]
        source: Box<Error>,
    },
    #[error("instance `{name}` did not stop within {seconds} s")]
    StopTimedOut { name: String, seconds: u64 },
    #[error("the limit of {limit} {what} is reached")]
    TooMany { what: &'static str, limit: usize },
    #[error(
        "no host ids are left for another instance: give root a larger range in /etc/subuid and /etc/subgid"
    )]
    NoIds,
    #[error("the operation ended unexpectedly: {message}")]
    Panicked { message: String },
    #[error("cannot {act}")]
    Io {
        act: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot build image `{name}`: {said}")]
    Build { name: String, said: String },
    #[error("cannot read what was sent")]
    Body {
        #[source]
        source: serde_json::Error,
    },
    #[error(transparent)]
    Profiles(#[from] cabin_profiles::Error),
    #[error(transparent)]
    Value(#[from] cabin_profiles::value::Invalid),
    #[error(transparent)]
    Store(#[from] cabin_store::Error),
    #[error(transparent)]
    Runtime(#[from] cabin_runtime::Error),
    #[error(transparent)]
    Cgroup(#[from] cabin_runtime::cgroup::Error),
    #[error(transparent)]
    Files(#[from] cabin_runtime::files::Error),
    #[error(transparent)]
    Storage(#[from] cabin_storage::Error),
    #[error(transparent)]
    Network(#[from] cabin_network::Error),
    #[error(transparent)]
    NetworkName(#[from] cabin_network::BadName),
    #[error(transparent)]
    Images(#[from] cabin_images::Error),
    #[error("cannot write what the backup says about the instance")]
    Document {
        #[source]
        source: serde_yaml::Error,
    },
    #[error("the backup's `index.yaml` is not in its form")]
    Index {
        #[source]
        source: serde_json::Error,
    },
    #[error(
        "the backup cannot be had here as it is, because of {keys}; an empty value (`--config {key}=`) leaves a key out"
    )]
    Backup {
        keys: String,
        key: String,
        #[source]
        source: Box<cabin_profiles::Error>,
    },
    #[error("snapshot `{name}` of the backup")]
    InSnapshot {
        name: String,
        #[source]
        source: Box<Error>,
    },
    #[error(
        "the backup sets `{key}`, which gives the instance rights on this host: say so yourself (`--config {key}=VALUE`), or leave it out with an empty value"
    )]
    Widening { key: String },
    #[error("cannot render template `{path}`")]
    Template {
        path: String,
        #[source]
        source: cabin_templates::Error,
    },
    #[error(transparent)]
    Injected(#[from] cabin_undo::Injected),
    #[error("left behind: {left}")]
    LeftBehind {
        left: String,
        #[source]
        source: Box<Error>,
    },
}

/// Turns of other things than instances are taken under names that say what they are.
fn busy(name: &str) -> String {
    if name.contains(' ') { name.to_owned() } else { format!("instance `{name}`") }
}

impl Error {
    /// There is no `what` of that name.
    pub fn not_found(what: &'static str, name: impl Into<String>) -> Error {
        Error::NotFound { what, name: name.into() }
    }

    /// What was asked makes no sense, and why.
    pub fn invalid(reason: impl Into<String>) -> Error {
        Error::Invalid { reason: reason.into() }
    }

    /// An act on the host that failed, in words that follow "cannot".
    pub fn io(act: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let act = act.into();
        move |source| Error::Io { act, source }
    }

    /// What sort of failure it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.kind_of_act() {
            Kind::Internal if shortage::of(self).is_some() => Kind::Unavailable,
            kind => kind,
        }
    }

    fn kind_of_act(&self) -> Kind {
        match self {
            Error::NotFound { .. } => Kind::NotFound,
            Error::Exists { .. } | Error::InUse { .. } => Kind::Conflict,
            Error::Invalid { .. }
            | Error::Body { .. }
            | Error::Profiles(_)
            | Error::Value(_)
            | Error::Index { .. }
            | Error::Backup { .. }
            | Error::NetworkName(_)
            | Error::WrongStatus { .. } => Kind::Invalid,
            Error::InSnapshot { source, .. } => source.kind(),
            Error::Widening { .. } | Error::Protected { .. } | Error::TooMany { .. } | Error::NoIds => {
                Kind::Forbidden
            }
            Error::Busy { .. } => Kind::Busy,
            Error::Changed { .. } => Kind::PreconditionFailed,
            Error::Store(cabin_store::Error::Changed { .. }) => Kind::Conflict,
            Error::Unsupported { .. } => Kind::Unsupported,
            Error::Unavailable { .. } => Kind::Unavailable,
            Error::LeftBehind { source, .. } => source.kind(),
            Error::Storage(error) => match error.kind() {
                cabin_storage::Kind::NotFound => Kind::NotFound,
                cabin_storage::Kind::Conflict => Kind::Conflict,
                cabin_storage::Kind::Invalid => Kind::Invalid,
                cabin_storage::Kind::Unsupported => Kind::Unsupported,
                cabin_storage::Kind::Unavailable => Kind::Unavailable,
                cabin_storage::Kind::Internal => Kind::Internal,
            },
            Error::Images(error) if error.kind() == cabin_images::Kind::Invalid => Kind::Invalid,
            _ => Kind::Internal,
        }
    }

    /// The code a shell gives for a command that could not be started; `None` for every other failure.
    #[must_use]
    pub fn exec_code(&self) -> Option<i32> {
        match self {
            Error::Runtime(cabin_runtime::Error::ProgramNotFound { .. }) => Some(127),
            Error::Runtime(cabin_runtime::Error::ProgramNotExecutable { .. }) => Some(126),
            _ => None,
        }
    }

    /// The whole chain on one line, outermost first; when the host is short of something, what helps.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut next = self.source();
        while let Some(cause) = next {
            let line = cause.to_string();
            if !text.ends_with(&line) {
                text.push_str(": ");
                text.push_str(&line);
            }
            next = cause.source();
        }
        if let Some(advice) = shortage::of(self) {
            text.push_str(&format!(" ({advice})"));
        }
        text
    }
}

impl From<Failed<Error>> for Error {
    fn from(failed: Failed<Error>) -> Error {
        if failed.left_behind.is_empty() {
            return failed.cause;
        }
        let left: Vec<_> =
            failed.left_behind.iter().map(|left| format!("{} ({})", left.what, left.why)).collect();
        Error::LeftBehind { left: left.join(", "), source: Box::new(failed.cause) }
    }
}
