//! The system's errors in SFTP's few codes.

use russh_sftp::protocol::StatusCode;
use russh_sftp::server::StatusReply;
use rustix::io::Errno;

/// Why a request is refused.
#[derive(Debug)]
pub enum Failure {
    /// The system said so.
    System(Errno),
    /// The protocol says so.
    Protocol(StatusCode),
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Failure {
        Failure::System(error)
    }
}

impl From<StatusCode> for Failure {
    fn from(code: StatusCode) -> Failure {
        Failure::Protocol(code)
    }
}

impl From<Failure> for StatusReply {
    fn from(failure: Failure) -> StatusReply {
        match failure {
            Failure::Protocol(code) => code.into(),
            Failure::System(error) => code(error).with_message(text(error)),
        }
    }
}

/// The same choice as OpenSSH's server, which clients know best.
fn code(error: Errno) -> StatusCode {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::BADF | Errno::LOOP => StatusCode::NoSuchFile,
        Errno::ACCESS | Errno::PERM | Errno::FAULT => StatusCode::PermissionDenied,
        Errno::NAMETOOLONG | Errno::INVAL => StatusCode::BadMessage,
        Errno::NOSYS | Errno::OPNOTSUPP => StatusCode::OpUnsupported,
        _ => StatusCode::Failure,
    }
}

/// The system's own words, without the number std adds.
fn text(error: Errno) -> String {
    let text = std::io::Error::from(error).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_words_and_gets_the_nearest_code() {
        let check = |error, code, words: &str| {
            let reply = StatusReply::from(Failure::System(error));
            assert_eq!((reply.status_code, reply.error_message.as_deref()), (code, Some(words)));
        };
        check(Errno::NOENT, StatusCode::NoSuchFile, "No such file or directory");
        check(Errno::ACCESS, StatusCode::PermissionDenied, "Permission denied");
        check(Errno::NOTEMPTY, StatusCode::Failure, "Directory not empty");
        check(Errno::OPNOTSUPP, StatusCode::OpUnsupported, "Operation not supported");
    }
}
