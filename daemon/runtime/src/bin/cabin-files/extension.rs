//! The extended requests: those of OpenSSH that clients use.

use bytes::Bytes;
use russh_sftp::extensions::{
    FSYNC, FsyncExtension, HARDLINK, HardlinkExtension, LIMITS, LimitsExtension, STATVFS, Statvfs,
    StatvfsExtension,
};
use russh_sftp::protocol::{ExtendedReply, FileAttributes, Packet, Status, StatusCode, Version};
use russh_sftp::{de, ser};
use rustix::fs::{self as rfs, AtFlags, CWD};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::attributes::{self, Target};
use crate::failure::Failure;
use crate::handles::{self, Handles};
use crate::server::{MAX_DATA, done};

/// Renames over an existing target.
const POSIX_RENAME: &str = "posix-rename@openssh.com";

/// Sets attributes of a link itself.
const LSETSTAT: &str = "lsetstat@openssh.com";

#[derive(Deserialize)]
struct Lsetstat {
    path: String,
    attrs: FileAttributes,
}

/// `SSH_FXE_STATVFS_ST_RDONLY` and `SSH_FXE_STATVFS_ST_NOSUID`, which are the system's own first two flags.
const FLAGS: u64 = 3;

/// What the server tells a client it can do.
pub fn version() -> Version {
    let mut version = Version::new();
    let known =
        [(POSIX_RENAME, "1"), (HARDLINK, "1"), (FSYNC, "1"), (STATVFS, "2"), (LIMITS, "1"), (LSETSTAT, "1")];
    for (name, value) in known {
        version.extensions.insert(name.to_owned(), value.to_owned());
    }
    version
}

/// Answers an extended request.
pub fn answer(handles: &Handles, id: u32, request: &str, data: Vec<u8>) -> Result<Packet, Failure> {
    match request {
        POSIX_RENAME => {
            let names: HardlinkExtension = parse(data)?;
            rfs::rename(names.oldpath.as_str(), names.newpath.as_str())?;
            Ok(ok(id))
        }
        HARDLINK => {
            let names: HardlinkExtension = parse(data)?;
            rfs::linkat(CWD, names.oldpath.as_str(), CWD, names.newpath.as_str(), AtFlags::empty())?;
            Ok(ok(id))
        }
        FSYNC => {
            let file: FsyncExtension = parse(data)?;
            rfs::fsync(handles.file(&file.handle)?)?;
            Ok(ok(id))
        }
        LSETSTAT => {
            let of: Lsetstat = parse(data)?;
            attributes::set(Target::Link(&of.path), &of.attrs)?;
            Ok(ok(id))
        }
        STATVFS => {
            let of: StatvfsExtension = parse(data)?;
            let stat = rfs::statvfs(of.path.as_str())?;
            reply(
                id,
                &Statvfs {
                    block_size: stat.f_bsize,
                    fragment_size: stat.f_frsize,
                    blocks: stat.f_blocks,
                    blocks_free: stat.f_bfree,
                    blocks_avail: stat.f_bavail,
                    inodes: stat.f_files,
                    inodes_free: stat.f_ffree,
                    inodes_avail: stat.f_favail,
                    fs_id: stat.f_fsid,
                    flags: stat.f_flag.bits() & FLAGS,
                    name_max: stat.f_namemax,
                },
            )
        }
        LIMITS => reply(
            id,
            &LimitsExtension {
                max_packet_len: u64::from(MAX_DATA) + 1024,
                max_read_len: u64::from(MAX_DATA),
                max_write_len: u64::from(MAX_DATA),
                max_open_handles: handles::MAX as u64,
            },
        ),
        _ => Err(StatusCode::OpUnsupported.into()),
    }
}

fn parse<T: DeserializeOwned>(data: Vec<u8>) -> Result<T, Failure> {
    de::from_bytes(&mut Bytes::from(data)).map_err(|_| StatusCode::BadMessage.into())
}

fn reply(id: u32, value: &impl Serialize) -> Result<Packet, Failure> {
    let data = ser::to_bytes(value).map_err(|_| Failure::from(StatusCode::Failure))?.to_vec();
    Ok(Packet::ExtendedReply(ExtendedReply { id, data }))
}

fn ok(id: u32) -> Packet {
    let status: Status = done(id);
    Packet::Status(status)
}
