//! The files and directories a client has open.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use rustix::fs::Dir;
use rustix::io::Errno;

use crate::failure::Failure;

/// The most handles one client may have open.
pub const MAX: usize = 512;

/// Something open.
#[derive(Debug)]
pub enum Open {
    /// A file.
    File(OwnedFd),
    /// A directory, listed up to somewhere.
    Dir(Dir),
}

/// All that is open, by the number that is the client's handle.
#[derive(Debug, Default)]
pub struct Handles {
    last: u64,
    open: HashMap<u64, Open>,
}

impl Handles {
    /// Keeps something open and gives its handle.
    pub fn add(&mut self, open: Open) -> Result<String, Failure> {
        if self.open.len() >= MAX {
            return Err(Errno::MFILE.into());
        }
        self.last += 1;
        self.open.insert(self.last, open);
        Ok(self.last.to_string())
    }

    /// The open file of a handle.
    pub fn file(&self, handle: &str) -> Result<&OwnedFd, Failure> {
        match self.open.get(&number(handle)?) {
            Some(Open::File(file)) => Ok(file),
            Some(Open::Dir(_)) => Err(Errno::ISDIR.into()),
            None => Err(Errno::BADF.into()),
        }
    }

    /// The open directory of a handle.
    pub fn dir(&mut self, handle: &str) -> Result<&mut Dir, Failure> {
        match self.open.get_mut(&number(handle)?) {
            Some(Open::Dir(dir)) => Ok(dir),
            Some(Open::File(_)) => Err(Errno::NOTDIR.into()),
            None => Err(Errno::BADF.into()),
        }
    }

    /// Closes a handle.
    pub fn close(&mut self, handle: &str) -> Result<(), Failure> {
        self.open.remove(&number(handle)?).map(drop).ok_or(Errno::BADF.into())
    }
}

fn number(handle: &str) -> Result<u64, Failure> {
    handle.parse().map_err(|_| Errno::BADF.into())
}
