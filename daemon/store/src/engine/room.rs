//! Room on the disk that the database has before it needs it, so that what frees room can be stored when there
//! is none left: beyond the end of its files, where only they can take it.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, IFlags, fallocate, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;

/// Bytes the log may take: it is written from the start again once it has 1000 pages (SQLite's default), and a
/// transaction that comes then is small beside that.
const LOG: u64 = 8 << 20;

/// Bytes beyond the end of the database: more than all that the log can hold.
const BEYOND: u64 = 8 << 20;

/// Has files that are made in the directory from now on written in place: else btrfs writes to new blocks, and room that a
/// file has already is none. What it cannot be said of is written as ever.
pub fn write_in_place(dir: &Path) {
    if let Ok(dir) = File::open(dir)
        && let Ok(flags) = ioctl_getflags(&dir)
    {
        let _ = ioctl_setflags(&dir, flags | IFlags::NOCOW);
    }
}

/// What lies beside the database only to be removed: to open a database takes a little room, too, and on btrfs that of a
/// file that was cut is not free at once.
const SPARE: &str = "spare";

/// Bytes of it, and what is better than none.
const SPARES: [u64; 4] = [1 << 20, 512 << 10, 256 << 10, 128 << 10];

/// Gives the disk what was kept for the opening of a database in that directory. Whether there was anything.
pub fn give_spare(dir: &Path) -> bool {
    let given = std::fs::remove_file(dir.join(SPARE)).is_ok();
    if given && let Ok(dir) = File::open(dir) {
        // What was removed is free once that is on disk.
        let _ = rustix::fs::syncfs(&dir);
    }
    given
}

/// The files of a database, kept open: to close one would give up the locks that SQLite holds on it (fcntl(2)).
pub struct Room {
    database: File,
    log: PathBuf,
}

impl Room {
    /// For the database in that file, which is there.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn of(path: &Path) -> io::Result<Room> {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        Ok(Room { database: File::options().read(true).write(true).open(path)?, log: log.into() })
    }

    /// Whether the disk gives anything of the database.
    ///
    /// # Errors
    /// When it does not.
    pub fn look(&self) -> io::Result<()> {
        let mut first = [0; 16];
        std::os::unix::fs::FileExt::read_at(&self.database, &mut first, 0).map(drop)
    }

    /// Asks the disk for room the database has already: what it says to that it says to every write.
    ///
    /// # Errors
    /// When it takes nothing any more.
    pub fn probe(&self) -> io::Result<()> {
        match rustix::io::retry_on_intr(|| fallocate(&self.database, FallocateFlags::KEEP_SIZE, 0, 1)) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what is missing. Without a filesystem that can keep room there is none, and nothing is lost.
    ///
    /// # Errors
    /// When the disk has none left.
    pub fn take(&self) -> io::Result<()> {
        let end = self.database.metadata()?.len();
        keep(&self.database, end + BEYOND / 2, end + BEYOND)?;
        // Locks are only taken on the database itself, so this one may be closed.
        let log = File::options().write(true).open(&self.log)?;
        keep(&log, LOG, LOG)?;
        self.take_spare()
    }

    fn take_spare(&self) -> io::Result<()> {
        let spare = File::options().create(true).append(true).open(self.log.with_file_name(SPARE))?;
        let most = |taken: io::Result<()>, size: u64| taken.or_else(|_| keep(&spare, size, size));
        SPARES.into_iter().fold(Err(io::ErrorKind::StorageFull.into()), most)
    }
}

/// Sees to it that a file that has less than `least` bytes of room has `wanted`. Its length stays.
fn keep(file: &File, least: u64, wanted: u64) -> io::Result<()> {
    if file.metadata()?.blocks() * 512 >= least {
        return Ok(());
    }
    match rustix::io::retry_on_intr(|| fallocate(file, FallocateFlags::KEEP_SIZE, 0, wanted)) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_and_no_file_grows_longer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let log = dir.path().join("x.db-wal");
        std::fs::write(&path, [1u8; 5000]).unwrap();
        std::fs::write(&log, []).unwrap();
        Room::of(&path).unwrap().take().unwrap();
        assert!(dir.path().join(SPARE).metadata().unwrap().blocks() * 512 >= SPARES[0]);
        assert!(give_spare(dir.path()) && !give_spare(dir.path()));
        let (database, log) = (path.metadata().unwrap(), log.metadata().unwrap());
        assert_eq!((database.len(), log.len()), (5000, 0));
        assert!(database.blocks() * 512 >= BEYOND && log.blocks() * 512 >= LOG);
    }
}
