//! What can go wrong at the door itself; everything behind it fails with `cabin_core::Error`.

use std::error::Error as _;
use std::io;

/// Why a request was not answered as asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Fault {
    #[error(transparent)]
    Core(#[from] cabin_core::Error),
    #[error("the request's body is larger than {limit} bytes")]
    BodyTooLarge { limit: usize },
    #[error("the upload is larger than {limit} bytes")]
    UploadTooLarge { limit: u64 },
    #[error("the request's body did not arrive in time")]
    BodyTooSlow,
    #[error("cannot read the request's body")]
    BodyRead {
        #[source]
        source: axum::Error,
    },
    #[error("the request's body is not what this address takes")]
    BodyInvalid {
        #[source]
        source: serde_json::Error,
    },
    #[error("`{field}` of the request's body is not what this address takes")]
    Field {
        field: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot read the multipart body")]
    Multipart {
        #[source]
        source: multer::Error,
    },
    #[error("{reason}")]
    Invalid { reason: String },
    #[error("{what} `{name}` not found")]
    NotFound { what: &'static str, name: String },
    #[error("project `{name}` not found")]
    NoProject { name: String },
    #[error("method `{method}` is not known")]
    UnknownMethod { method: String },
    #[error("`{method}` is not implemented for this address")]
    NotImplemented { method: String },
    #[error("{what} is not supported yet")]
    NotYet { what: &'static str },
    #[error("{reason}")]
    Forbidden { reason: &'static str },
    #[error("the daemon is still starting")]
    Starting,
    #[error("the object was changed meanwhile; read it again")]
    Changed,
    #[error("cannot {act}")]
    Io {
        act: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot {act} `{path}`")]
    File {
        act: &'static str,
        path: String,
        #[source]
        source: Said,
    },
    #[error("cannot write the reply as JSON")]
    Reply {
        #[source]
        source: serde_json::Error,
    },
    #[error("the request made the daemon panic; this is a bug")]
    Panicked,
}

/// What a file server said, without the protocol's own words for it when it gave better ones.
#[derive(Debug)]
pub struct Said(pub russh_sftp::client::error::Error);

impl std::error::Error for Said {}

impl std::fmt::Display for Said {
    fn fmt(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            russh_sftp::client::error::Error::Status(status) if !status.error_message.is_empty() => {
                text.write_str(&status.error_message)
            }
            other => other.fmt(text),
        }
    }
}

impl Fault {
    /// What was asked makes no sense, and why.
    pub fn invalid(reason: impl Into<String>) -> Fault {
        Fault::Invalid { reason: reason.into() }
    }

    /// An act of the door that failed, in words that follow "cannot".
    pub fn io(act: &'static str) -> impl FnOnce(io::Error) -> Fault {
        move |source| Fault::Io { act, source }
    }

    /// The whole chain on one line, outermost first.
    #[must_use]
    pub fn report(&self) -> String {
        if let Fault::Core(error) = self {
            return error.report();
        }
        let mut text = self.to_string();
        let mut next = self.source();
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        if let Some(advice) = cabin_core::shortage(self) {
            text.push_str(&format!(" ({advice})"));
        }
        text
    }
}
