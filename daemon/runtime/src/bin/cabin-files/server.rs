//! SFTP version 3 requests as system calls. Paths go to the kernel as they come: its root directory is the
//! container's, so there is nothing else they could reach.

use std::collections::HashMap;

use russh_sftp::protocol::{
    Attrs, Data, File, FileAttributes, Handle, Name, OpenFlags, Packet, Status, StatusCode, Version,
};
use russh_sftp::server::Handler;
use rustix::fs::{self as rfs, AtFlags, CWD, Dir, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use tokio::sync::oneshot;

use crate::attributes::{self, Target};
use crate::extension;
use crate::failure::Failure;
use crate::handles::{Handles, Open};

/// The most data one read or write carries, in bytes: with its frame it fits into the 256 KiB that clients
/// take.
pub const MAX_DATA: u32 = 255 * 1024;

/// How many names one answer to a listing holds.
const BATCH: usize = 128;

/// One client's session.
#[derive(Debug)]
pub struct Server {
    handles: Handles,
    /// Dropped with the server, which ends the process.
    _ended: oneshot::Sender<()>,
}

impl Server {
    /// A server, and what resolves when it is dropped.
    pub fn new() -> (Server, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Server { handles: Handles::default(), _ended: sender }, receiver)
    }
}

/// The answer that something was done.
pub fn done(id: u32) -> Status {
    Status {
        id,
        status_code: StatusCode::Ok,
        error_message: "Success".to_owned(),
        language_tag: "en-US".to_owned(),
    }
}

/// An empty path is the directory the session starts in.
fn path(text: &str) -> &str {
    if text.is_empty() { "." } else { text }
}

fn flags(asked: OpenFlags) -> OFlags {
    let mut flags = match (asked.contains(OpenFlags::READ), asked.contains(OpenFlags::WRITE)) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        (_, false) => OFlags::RDONLY,
    };
    for (given, flag) in [
        (OpenFlags::APPEND, OFlags::APPEND),
        (OpenFlags::CREATE, OFlags::CREATE),
        (OpenFlags::TRUNCATE, OFlags::TRUNC),
        (OpenFlags::EXCLUDE, OFlags::EXCL),
    ] {
        flags.set(flag, asked.contains(given));
    }
    // A pipe without a peer must not hold up the session, nor a terminal become the process's own.
    flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY
}

/// The path without `.`, `..` and double slashes, by its words alone: what is answered need not exist.
fn absolute(text: &str) -> String {
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

impl Handler for Server {
    type Error = Failure;

    fn unimplemented(&self) -> Failure {
        StatusCode::OpUnsupported.into()
    }

    async fn init(
        &mut self,
        _version: u32,
        _extensions: HashMap<String, String>,
    ) -> Result<Version, Failure> {
        Ok(extension::version())
    }

    async fn open(
        &mut self,
        id: u32,
        filename: String,
        pflags: OpenFlags,
        attrs: FileAttributes,
    ) -> Result<Handle, Failure> {
        let file = rfs::open(path(&filename), flags(pflags), attributes::mode(&attrs, 0o644))?;
        Ok(Handle { id, handle: self.handles.add(Open::File(file))? })
    }

    async fn close(&mut self, id: u32, handle: String) -> Result<Status, Failure> {
        self.handles.close(&handle)?;
        Ok(done(id))
    }

    async fn read(&mut self, id: u32, handle: String, offset: u64, len: u32) -> Result<Data, Failure> {
        let file = self.handles.file(&handle)?;
        let mut data = vec![0; len.min(MAX_DATA) as usize];
        let got = rustix::io::retry_on_intr(|| rustix::io::pread(file, data.as_mut_slice(), offset))?;
        if got == 0 && len > 0 {
            return Err(StatusCode::Eof.into());
        }
        data.truncate(got);
        Ok(Data { id, data })
    }

    async fn write(
        &mut self,
        id: u32,
        handle: String,
        offset: u64,
        data: Vec<u8>,
    ) -> Result<Status, Failure> {
        let file = self.handles.file(&handle)?;
        let mut rest = data.as_slice();
        let mut at = offset;
        while !rest.is_empty() {
            let wrote = rustix::io::retry_on_intr(|| rustix::io::pwrite(file, rest, at))?;
            if wrote == 0 {
                return Err(Errno::IO.into());
            }
            rest = &rest[wrote..];
            at += wrote as u64;
        }
        Ok(done(id))
    }

    async fn lstat(&mut self, id: u32, name: String) -> Result<Attrs, Failure> {
        Ok(Attrs { id, attrs: attributes::of(&rfs::lstat(path(&name))?) })
    }

    async fn stat(&mut self, id: u32, name: String) -> Result<Attrs, Failure> {
        Ok(Attrs { id, attrs: attributes::of(&rfs::stat(path(&name))?) })
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Result<Attrs, Failure> {
        Ok(Attrs { id, attrs: attributes::of(&rfs::fstat(self.handles.file(&handle)?)?) })
    }

    async fn setstat(&mut self, id: u32, name: String, attrs: FileAttributes) -> Result<Status, Failure> {
        attributes::set(Target::Path(path(&name)), &attrs)?;
        Ok(done(id))
    }

    async fn fsetstat(&mut self, id: u32, handle: String, attrs: FileAttributes) -> Result<Status, Failure> {
        use std::os::fd::AsFd;
        attributes::set(Target::File(self.handles.file(&handle)?.as_fd()), &attrs)?;
        Ok(done(id))
    }

    async fn opendir(&mut self, id: u32, name: String) -> Result<Handle, Failure> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = Dir::new(rfs::open(path(&name), flags, Mode::empty())?)?;
        Ok(Handle { id, handle: self.handles.add(Open::Dir(dir))? })
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Result<Name, Failure> {
        let dir = self.handles.dir(&handle)?;
        let mut files = Vec::new();
        while files.len() < BATCH {
            let Some(entry) = dir.read() else { break };
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match rfs::statat(dir.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => files.push(attributes::entry(&name.to_string_lossy(), attributes::of(&stat))),
                // Removed since it was listed.
                Err(Errno::NOENT) => {}
                // There, but not to be looked at (a dead FUSE mount): its name is still right.
                Err(_) => files.push(attributes::entry(&name.to_string_lossy(), FileAttributes::empty())),
            }
        }
        if files.is_empty() { Err(StatusCode::Eof.into()) } else { Ok(Name { id, files }) }
    }

    async fn remove(&mut self, id: u32, name: String) -> Result<Status, Failure> {
        rfs::unlink(path(&name))?;
        Ok(done(id))
    }

    async fn mkdir(&mut self, id: u32, name: String, attrs: FileAttributes) -> Result<Status, Failure> {
        rfs::mkdir(path(&name), attributes::mode(&attrs, 0o755))?;
        Ok(done(id))
    }

    async fn rmdir(&mut self, id: u32, name: String) -> Result<Status, Failure> {
        rfs::rmdir(path(&name))?;
        Ok(done(id))
    }

    async fn realpath(&mut self, id: u32, name: String) -> Result<Name, Failure> {
        Ok(Name { id, files: vec![File::dummy(absolute(&name))] })
    }

    async fn rename(&mut self, id: u32, oldpath: String, newpath: String) -> Result<Status, Failure> {
        // Version 3 has no overwriting rename; posix-rename@openssh.com is the one.
        rfs::renameat_with(CWD, path(&oldpath), CWD, path(&newpath), RenameFlags::NOREPLACE)?;
        Ok(done(id))
    }

    async fn readlink(&mut self, id: u32, name: String) -> Result<Name, Failure> {
        let target = rfs::readlink(path(&name), Vec::new())?;
        Ok(Name { id, files: vec![File::dummy(target.to_string_lossy())] })
    }

    /// The protocol's text has the link first; OpenSSH sent the target first from the start, and every
    /// client (pkg/sftp, which Incus uses, among them) does as OpenSSH does.
    async fn symlink(&mut self, id: u32, linkpath: String, targetpath: String) -> Result<Status, Failure> {
        let (target, link) = (linkpath, targetpath);
        rfs::symlink(target.as_str(), path(&link))?;
        Ok(done(id))
    }

    async fn extended(&mut self, id: u32, request: String, data: Vec<u8>) -> Result<Packet, Failure> {
        extension::answer(&self.handles, id, &request, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_made_absolute_by_its_words() {
        for (given, answer) in [
            ("", "/"),
            (".", "/"),
            ("a/./b//c", "/a/b/c"),
            ("/a/../../..", "/"),
            ("../../etc", "/etc"),
            ("/a/b/..", "/a"),
        ] {
            assert_eq!(absolute(given), answer, "{given:?}");
        }
    }

    #[test]
    fn flags_of_an_open_are_the_systems() {
        let always = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        assert_eq!(flags(OpenFlags::READ), OFlags::RDONLY | always);
        assert_eq!(
            flags(OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE | OpenFlags::APPEND),
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND | always
        );
        assert_eq!(
            flags(OpenFlags::READ | OpenFlags::WRITE | OpenFlags::TRUNCATE),
            OFlags::RDWR | OFlags::TRUNC | always
        );
    }
}
