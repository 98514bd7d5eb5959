//! What the host can run out of, and what helps.

use std::error::Error as StdError;
use std::io;

use rustix::io::Errno;

/// What to do about the shortage that an error comes from; none when it comes from something else.
pub fn of(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<io::Error>().and_then(advice) {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

fn advice(error: &io::Error) -> Option<&'static str> {
    match Errno::from_raw_os_error(error.raw_os_error()?) {
        Errno::NOSPC | Errno::DQUOT => {
            Some("free some space or inodes on that disk: deleting instances, snapshots and images works")
        }
        Errno::ROFS => {
            Some("the disk is read-only: the kernel's log says why; make it writable and try again")
        }
        Errno::MFILE => Some("the daemon has no descriptor left: raise `LimitNOFILE` of cabind.service"),
        Errno::NFILE => Some("the host has no descriptor left: raise the sysctl `fs.file-max`"),
        Errno::AGAIN => Some(
            "the host gives no more processes or threads: raise `TasksMax` of cabind.service or the sysctl `kernel.pid_max`",
        ),
        Errno::NOMEM => Some("the host is out of memory: stop something or give it more"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn a_shortage_is_found_at_the_end_of_the_chain() {
        let full = |number: Errno| Error::io("write")(number.into());
        assert!(full(Errno::NOSPC).report().contains("free some space"));
        assert!(full(Errno::MFILE).report().contains("LimitNOFILE"));
        assert_eq!(of(&full(Errno::NOENT)), None);
        let inner = Error::LeftBehind { left: "x".into(), source: Box::new(full(Errno::ROFS)) };
        assert!(inner.report().contains("read-only"));
    }
}
