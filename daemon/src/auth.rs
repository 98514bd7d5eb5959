//! Who asks. On the unix socket that is who opened it, by the kernel's word (`SO_PEERCRED`); who may open
//! it at all is decided by the socket's owner, group and mode.

use std::fs;
use std::io::{BufRead, BufReader, Read};

use cabin_api::event::Requestor;
use tokio::net::UnixStream;

/// As much of a user or group table as is read, in bytes.
const TABLE: u64 = 4 * 1024 * 1024;

/// Who is at the other end of `stream`.
pub fn requestor(stream: &UnixStream) -> Requestor {
    let username = match stream.peer_cred() {
        Ok(peer) => user_name(peer.uid()),
        Err(_) => "unknown".to_owned(),
    };
    Requestor { username, protocol: "unix".to_owned(), address: "@".to_owned() }
}

/// The id of a group of this host, from /etc/group alone: the daemon is static, no other service is asked.
pub fn group_id(name: &str) -> Option<u32> {
    let mut lines = table("/etc/group")?;
    lines.find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

fn user_name(uid: u32) -> String {
    if uid == 0 {
        return "root".to_owned();
    }
    let number = uid.to_string();
    let named = table("/etc/passwd").and_then(|mut lines| {
        lines.find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            (fields.nth(1) == Some(number.as_str())).then_some(name)
        })
    });
    named.unwrap_or(number)
}

fn table(path: &str) -> Option<impl Iterator<Item = String>> {
    let file = fs::File::open(path).ok()?;
    Some(BufReader::new(file.take(TABLE)).lines().map_while(Result::ok))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_host_tables() {
        assert_eq!(user_name(0), "root");
        assert_eq!(user_name(1), "daemon");
        assert_eq!(user_name(4_000_000_000), "4000000000");
        assert_eq!(group_id("root"), Some(0));
        assert_eq!(group_id("no such group"), None);
    }
}
