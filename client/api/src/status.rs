//! The status codes of instances and operations, with their texts.

use serde::{Deserialize, Serialize};

/// A status as Incus numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "u16", into = "u16")]
#[repr(u16)]
#[allow(missing_docs)]
pub enum StatusCode {
    OperationCreated = 100,
    Started = 101,
    Stopped = 102,
    Running = 103,
    Cancelling = 104,
    Pending = 105,
    Starting = 106,
    Stopping = 107,
    Aborting = 108,
    Freezing = 109,
    Frozen = 110,
    Thawed = 111,
    Error = 112,
    Ready = 113,
    Success = 200,
    Failure = 400,
    Cancelled = 401,
}

impl StatusCode {
    const ALL: [StatusCode; 17] = [
        StatusCode::OperationCreated,
        StatusCode::Started,
        StatusCode::Stopped,
        StatusCode::Running,
        StatusCode::Cancelling,
        StatusCode::Pending,
        StatusCode::Starting,
        StatusCode::Stopping,
        StatusCode::Aborting,
        StatusCode::Freezing,
        StatusCode::Frozen,
        StatusCode::Thawed,
        StatusCode::Error,
        StatusCode::Ready,
        StatusCode::Success,
        StatusCode::Failure,
        StatusCode::Cancelled,
    ];

    /// The text that goes with the number in replies.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            StatusCode::OperationCreated => "Operation created",
            StatusCode::Started => "Started",
            StatusCode::Stopped => "Stopped",
            StatusCode::Running => "Running",
            StatusCode::Cancelling => "Cancelling",
            StatusCode::Pending => "Pending",
            StatusCode::Starting => "Starting",
            StatusCode::Stopping => "Stopping",
            StatusCode::Aborting => "Aborting",
            StatusCode::Freezing => "Freezing",
            StatusCode::Frozen => "Frozen",
            StatusCode::Thawed => "Thawed",
            StatusCode::Error => "Error",
            StatusCode::Ready => "Ready",
            StatusCode::Success => "Success",
            StatusCode::Failure => "Failure",
            StatusCode::Cancelled => "Cancelled",
        }
    }

    /// Whether an operation in this status will not change any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        u16::from(self) >= 200
    }
}

impl From<StatusCode> for u16 {
    fn from(code: StatusCode) -> u16 {
        code as u16
    }
}

impl From<u16> for StatusCode {
    /// A number that is not known counts as an error.
    fn from(number: u16) -> StatusCode {
        StatusCode::ALL.into_iter().find(|code| u16::from(*code) == number).unwrap_or(StatusCode::Error)
    }
}
