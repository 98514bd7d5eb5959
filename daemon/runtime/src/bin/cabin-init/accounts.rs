//! The container's user database, read inside it and without its libraries.

use std::io::{self, Read};
use std::os::fd::AsFd;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

/// The largest database that is read, in bytes; a larger one counts as empty.
const LIMIT: u64 = 1 << 20;

/// The most groups one user is given (`NGROUPS_MAX` is 65536; no real user is in more than a few).
const GROUPS: usize = 256;

/// The groups that name the user `uid` as a member, from the databases below `root`. Whatever is missing,
/// malformed or hostile gives fewer groups, never an error: the files are the guest's.
pub fn supplementary_groups(root: impl AsFd, uid: u32) -> Vec<u32> {
    let Some(user) = read(&root, "etc/passwd").ok().and_then(|text| user_name(&text, uid)) else {
        return Vec::new();
    };
    read(&root, "etc/group").map(|text| groups_of(&text, &user)).unwrap_or_default()
}

fn read(root: impl AsFd, path: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let fd = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?;
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut bytes = Vec::new();
    std::fs::File::from(fd).take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The first user with this id: `name:password:uid:…`.
fn user_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid) && !name.is_empty()).then(|| name.to_owned())
    })
}

/// The groups that list the user: `name:password:gid:member,member…`.
fn groups_of(group: &str, user: &str) -> Vec<u32> {
    let of_line = |line: &str| {
        let mut fields = line.split(':').skip(2);
        let gid = fields.next()?.parse().ok()?;
        fields.next()?.split(',').any(|member| member == user).then_some(gid)
    };
    group.lines().filter_map(of_line).take(GROUPS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_those_that_list_the_user_by_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbroken\nmail:x:8:8::/:/x\nann:x:1000:1000::/:/x\n";
        let group = "root:x:0:\nsudo:x:27:ann,bob\naudio:x:29:joann\nbad:x:no:ann\nx:x:1000:ann\nshort:x:5\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("ann"));
        assert_eq!(user_name(passwd, 7), None);
        assert_eq!(groups_of(group, "ann"), [27, 1000]);
        assert_eq!(groups_of("", "ann"), [0u32; 0]);
    }
}
