//! What can go wrong between here and the daemon.

use std::io;
use std::path::PathBuf;

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be connected to.
    #[error("cannot reach the daemon at `{socket}`")]
    Connect {
        /// The socket's path.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or spoke something else than HTTP.
    #[error("cannot complete `{request}`")]
    Exchange {
        /// Method and address.
        request: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The request cannot be written as HTTP.
    #[error("cannot make the request `{request}`")]
    Compose {
        /// Method and address.
        request: String,
        /// Why.
        #[source]
        source: http::Error,
    },
    /// The request's body cannot be written as JSON.
    #[error("cannot write the body of `{request}`")]
    Encode {
        /// Method and address.
        request: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The reply is not the JSON it should be.
    #[error("cannot read the reply to `{request}`")]
    Decode {
        /// Method and address.
        request: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The reply is of another kind than this route gives.
    #[error("the reply to `{request}` is not {expected}")]
    Unexpected {
        /// Method and address.
        request: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// The daemon said no. The text is the daemon's.
    #[error("{text}")]
    Refused {
        /// The HTTP code.
        code: u16,
        /// The daemon's words.
        text: String,
    },
    /// The operation was begun and failed. The text is the daemon's.
    #[error("{text}")]
    Failed {
        /// The operation's id.
        operation: String,
        /// 400 when it failed, 401 when it was cancelled.
        code: u16,
        /// The daemon's words.
        text: String,
        /// The exit code of a command that could not be run, where the daemon gives one.
        exit_code: Option<i64>,
    },
    /// A websocket cannot be opened or broke.
    #[error("cannot talk over the websocket `{address}`")]
    Websocket {
        /// Its address.
        address: String,
        /// Why.
        #[source]
        source: Box<tokio_tungstenite::tungstenite::Error>,
    },
    /// What the daemon streams could not be read.
    #[error("cannot read the stream from `{address}`")]
    Stream {
        /// Its address.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file to be sent cannot be read, or a received one written.
    #[error("cannot use the file `{path}`")]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What kind of failure it is, for who must react to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No daemon answers.
    Unreachable,
    /// The thing is not there.
    NotFound,
    /// The name is taken, or the state forbids it.
    Conflict,
    /// The thing was changed by somebody else in between.
    Changed,
    /// The request is wrong.
    Invalid,
    /// Not allowed.
    Forbidden,
    /// The daemon is starting or busy.
    Busy,
    /// The daemon cannot do that.
    Unsupported,
    /// The operation was cancelled.
    Cancelled,
    /// Anything else.
    Internal,
}

impl Error {
    /// The kind of this failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Error::Connect { .. } => Kind::Unreachable,
            Error::Refused { code, .. } => match code {
                400 => Kind::Invalid,
                401 | 403 => Kind::Forbidden,
                404 => Kind::NotFound,
                409 => Kind::Conflict,
                412 => Kind::Changed,
                501 | 405 => Kind::Unsupported,
                503 | 429 => Kind::Busy,
                _ => Kind::Internal,
            },
            Error::Failed { code: 401, .. } => Kind::Cancelled,
            _ => Kind::Internal,
        }
    }

    /// Whether the thing asked for is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind() == Kind::NotFound
    }
}
