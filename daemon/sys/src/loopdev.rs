//! Loop devices: a file as a block device (loop(4)).
//!
//! A device made here clears itself when its last user goes, so one that was attached by a process that died before
//! it mounted it is gone with that process.

use std::ffi::c_ulong;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self as rfs, Mode, OFlags};

const SET_CAPACITY: c_ulong = 0x4c07;
const CONFIGURE: c_ulong = 0x4c0a;
const GET_FREE: c_ulong = 0x4c82;

const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;

/// How often another process may take the free device first.
const TRIES: usize = 64;

#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// The kernel's own sizes of these structures, or the build ends here.
const _: () = assert!(size_of::<Info>() == 0xe8 && size_of::<Config>() == 0x130);

/// An attached device: it stays while this, a mount or anybody else has it open.
#[derive(Debug)]
pub struct Loop {
    fd: OwnedFd,
    path: PathBuf,
}

impl Loop {
    /// Its path below /dev.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn last() -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO)
}

/// Attaches a file, for reading and writing, past the page cache where its filesystem can.
///
/// # Errors
/// As loop(4): `ENOENT` where the kernel has no loop devices.
pub fn attach(file: &File) -> io::Result<Loop> {
    let control = rfs::open("/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    for _ in 0..TRIES {
        // SAFETY: the request takes no argument and gives a number.
        let number =
            rustix::io::retry_on_intr(|| match unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE as _) } {
                number @ 0.. => Ok(number),
                _ => Err(last()),
            })?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let fd = rfs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        match configure(&fd, file) {
            // Somebody took it in the meantime.
            Err(rustix::io::Errno::BUSY) => {}
            other => return Ok(other.map(|()| Loop { fd, path })?),
        }
    }
    Err(rustix::io::Errno::BUSY.into())
}

fn configure(device: &OwnedFd, file: &File) -> Result<(), rustix::io::Errno> {
    let number = u32::try_from(file.as_fd().as_raw_fd()).map_err(|_| rustix::io::Errno::BADF)?;
    let info = Info {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encryption: [0; 2],
        flags: AUTOCLEAR | DIRECT_IO,
        file_name: [0; 64],
        crypt_name: [0; 64],
        key: [0; 32],
        init: [0; 2],
    };
    let config = Config { fd: number, block_size: 0, info, reserved: [0; 8] };
    rustix::io::retry_on_intr(|| {
        // SAFETY: `config` has the layout the request expects (held by the assertion above) and is only read.
        match unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE as _, std::ptr::from_ref(&config)) } {
            0.. => Ok(()),
            _ => Err(last()),
        }
    })
}

/// Tells a device that its file has another length now.
///
/// # Errors
/// As loop(4).
pub fn take_new_size(device: &Loop) -> io::Result<()> {
    // SAFETY: the request takes no argument.
    rustix::io::retry_on_intr(|| match unsafe { libc::ioctl(device.fd.as_raw_fd(), SET_CAPACITY as _) } {
        0.. => Ok(()),
        _ => Err(last()),
    })?;
    Ok(())
}

/// The device a file is attached to, if it is: the file itself, whatever its name is by now.
///
/// # Errors
/// When /sys cannot be read.
pub fn of(file: &File) -> io::Result<Option<Loop>> {
    Ok(all()?.into_iter().find_map(|(path, _)| {
        let fd = rfs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let status = status(&fd).ok()?;
        let stat = rfs::fstat(file).ok()?;
        (status == (stat.st_dev, stat.st_ino)).then_some(Loop { fd, path })
    }))
}

/// Device and inode of the file behind a device.
fn status(device: &OwnedFd) -> io::Result<(u64, u64)> {
    const GET_STATUS64: c_ulong = 0x4c05;
    // SAFETY: all bytes of the structure may be zero; it has the layout the request fills (held by the assertion
    // above) and is exclusively borrowed during the call.
    let info = unsafe {
        let mut info: Info = std::mem::zeroed();
        if libc::ioctl(device.as_raw_fd(), GET_STATUS64 as _, std::ptr::from_mut(&mut info)) < 0 {
            return Err(io::Error::last_os_error());
        }
        info
    };
    // The kernel gives the device in its own, shorter form.
    let device = u32::try_from(info.device).unwrap_or(0);
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    Ok((rfs::makedev(major, minor), info.inode))
}

/// All attached devices, with the name the file behind each has or had (then with ` (deleted)`).
///
/// # Errors
/// When /sys cannot be read.
pub fn all() -> io::Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    let block = rfs::open("/sys/block", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in rfs::Dir::read_from(&block)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with("loop") {
            continue;
        }
        #[allow(clippy::disallowed_methods)] // The kernel's own file, by the kernel's own name.
        if let Ok(file) = std::fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")) {
            found.push((PathBuf::from(format!("/dev/{name}")), file.trim_end_matches('\n').to_owned()));
        }
    }
    Ok(found)
}
