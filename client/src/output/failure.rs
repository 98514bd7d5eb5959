//! How a failure is told: `Error:` with the whole chain, `hint:` where one helps, exit code 1.

use std::io;
use std::process::ExitCode;

use cabin_client::{Error, Kind};

/// Prints why the command failed and gives the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        // Who read the output has seen enough.
        return ExitCode::SUCCESS;
    }
    super::note(format!("Error: {}", chain(error)));
    if let Some(hint) = hint(error) {
        super::note(format!("hint: {hint}"));
    }
    ExitCode::FAILURE
}

/// The chain of causes on one line; a cause whose text is in the one above it is not said twice.
pub fn chain(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if said.is_empty() {
            said = text;
        } else if !said.contains(&text) {
            said.push_str(": ");
            said.push_str(&text);
        }
    }
    said
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
        && error.chain().all(|cause| cause.downcast_ref::<Error>().is_none())
}

/// What a person can do about it.
fn hint(error: &anyhow::Error) -> Option<String> {
    let cause = error.chain().find_map(|cause| cause.downcast_ref::<Error>())?;
    if let Error::Connect { source, .. } = cause {
        return Some(match source.kind() {
            io::ErrorKind::PermissionDenied => {
                "join the group `cabin` (`usermod -aG cabin USER`, then log in again), or use sudo".to_owned()
            }
            _ => "start the daemon: `systemctl start cabind`, or name its socket with --socket or CABIN_DIR"
                .to_owned(),
        });
    }
    let text = cause.to_string().to_lowercase();
    match cause.kind() {
        Kind::Busy => Some("the daemon may still be starting: `cabin admin waitready`".to_owned()),
        Kind::Changed => Some("somebody else changed it in between: look again, then try again".to_owned()),
        _ if text.contains("is running") => {
            Some("stop it first (`cabin stop NAME`), or add --force".to_owned())
        }
        _ if text.contains("is not running") || text.contains("isn't running") => {
            Some("start it first: `cabin start NAME`".to_owned())
        }
        Kind::NotFound if text.contains("image") => Some("`cabin image list` shows what is here".to_owned()),
        Kind::NotFound if text.contains("instance") => Some("`cabin list` shows what is here".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, text: &str) -> anyhow::Error {
        Error::Refused { code, text: text.to_owned() }.into()
    }

    #[test]
    fn the_chain_is_said_once() {
        let error = refused(404, "Instance not found").context("cannot start `web`");
        assert_eq!(chain(&error), "cannot start `web`: Instance not found");
        let doubled = refused(404, "no such thing").context("cannot: no such thing");
        assert_eq!(chain(&doubled), "cannot: no such thing");
    }

    #[test]
    fn a_missing_daemon_gets_a_hint() {
        let source = io::ErrorKind::NotFound.into();
        let error = Error::Connect { socket: "/run/cabin/unix.socket".into(), source }.into();
        assert!(hint(&error).is_some_and(|hint| hint.contains("systemctl start cabind")));
        assert!(hint(&refused(400, "bad thing")).is_none());
        assert!(hint(&refused(400, "The instance is running")).is_some_and(|hint| hint.contains("--force")));
    }
}
