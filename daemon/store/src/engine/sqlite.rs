//! Documents in one SQLite file: WAL, `synchronous=FULL`, one writer.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use cabin_undo::fault;
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};

use super::room::{self, Room};
use super::{Engine, Key, Record, Revision, Txn};
use crate::Error;

/// The schema this version writes (`PRAGMA user_version`).
const SCHEMA: i64 = 1;

/// The first SQLite without the WAL-reset bug that loses committed transactions.
const OLDEST: i32 = 3_051_003;

const KEYS: &str = "SELECT key FROM objects WHERE key >= ?1 AND key < ?2 ORDER BY key";

/// The engine. Readers have a connection of their own, so that a commit's fsync does not hold them up.
pub struct Sqlite {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    room: Room,
    commits: AtomicU32,
}

/// After how many commits is looked whether there is still room for more.
const LOOK: u32 = 64;

impl Sqlite {
    /// Opens the file, makes it when missing, checks it, and brings its schema up to date.
    ///
    /// # Errors
    /// When it cannot be opened, is damaged or too new, or the library is too old.
    pub fn open(path: &Path) -> Result<Sqlite, Error> {
        if rusqlite::version_number() < OLDEST {
            return Err(Error::Library { found: rusqlite::version() });
        }
        let name = path.display().to_string();
        let wrong = |source| Error::Open { path: name.clone(), source };
        let dir = path.parent().unwrap_or(path);
        if !path.exists() {
            room::write_in_place(dir);
        }
        let writer = match connect(path) {
            // On a full disk.
            Err(why) if of_the_disk(&why) && room::give_spare(dir) => connect(path),
            other => other,
        };
        let writer = writer.map_err(wrong)?;
        let found: String = writer.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(wrong)?;
        if found != "ok" {
            return Err(Error::Damaged { path: name, found });
        }
        migrate(&writer, &name)?;
        let reader = connect(path).map_err(wrong)?;
        let room = Room::of(path).map_err(|source| Error::Room { path: name, source })?;
        // A full disk is no reason not to start: what is there can be read and deleted.
        let _ = room.take();
        Ok(Sqlite {
            writer: Mutex::new(writer),
            reader: Mutex::new(reader),
            room,
            commits: AtomicU32::new(0),
        })
    }

    fn look_after_room(&self) {
        if self.commits.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK) {
            // Without it the next commits go on as long as there is any.
            let _ = self.room.take();
        }
    }

    /// What the disk said, as the kernel would have said it, where SQLite has words of its own.
    fn disk_said(&self, source: &rusqlite::Error) -> Option<std::io::Error> {
        match source.sqlite_error_code()? {
            ErrorCode::DiskFull => Some(rustix::io::Errno::NOSPC.into()),
            ErrorCode::ReadOnly => Some(rustix::io::Errno::ROFS.into()),
            ErrorCode::SystemIoFailure => {
                Some(self.room.probe().err().unwrap_or_else(|| rustix::io::Errno::IO.into()))
            }
            // It calls a file damaged that cannot be read at all.
            ErrorCode::DatabaseCorrupt => self.room.look().err(),
            _ => None,
        }
    }

    fn refused(&self, keys: String, source: rusqlite::Error) -> Error {
        match self.disk_said(&source) {
            Some(source) => Error::Refused { keys, source },
            None => Error::Commit { keys, source },
        }
    }

    fn unread(&self, key: &Key, source: rusqlite::Error) -> Error {
        let key = key.0.clone();
        match self.disk_said(&source) {
            Some(source) => Error::Unread { key, source },
            None => Error::Read { key, source },
        }
    }
}

/// Whether it may be for want of room that a database cannot be opened.
fn of_the_disk(why: &rusqlite::Error) -> bool {
    use ErrorCode::{CannotOpen, DiskFull, SystemIoFailure};
    matches!(why.sqlite_error_code(), Some(CannotOpen | DiskFull | SystemIoFailure))
}

/// The index of the log is kept in memory of our own, for only this process may read: by default it is a mapped file
/// beside the database, and on a full disk it is a signal (SIGBUS) that says so, which ends the process (Linux 6.1, btrfs).
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags_and_vfs(path, flags, "unix-excl")?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // NORMAL loses what was acknowledged: a test of power loss has to notice that.
    let synchronous = if fault::leaves_out("sync of the database") { "NORMAL" } else { "FULL" };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    Ok(connection)
}

fn migrate(connection: &Connection, name: &str) -> Result<(), Error> {
    let wrong = |source| Error::Open { path: name.to_owned(), source };
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(wrong)?;
    if found > SCHEMA {
        return Err(Error::Newer { found, known: SCHEMA });
    }
    if found < SCHEMA {
        connection
            .execute_batch(
                "BEGIN IMMEDIATE;
                 CREATE TABLE objects (key TEXT PRIMARY KEY, revision INTEGER NOT NULL, document BLOB NOT NULL)
                     WITHOUT ROWID;
                 CREATE TABLE revision (only INTEGER PRIMARY KEY CHECK (only = 1), last INTEGER NOT NULL);
                 INSERT INTO revision VALUES (1, 0);
                 PRAGMA user_version = 1;
                 COMMIT;",
            )
            .map_err(wrong)?;
    }
    // Names alone are read from here: documents lie between the keys of the table itself. It changes nothing of what
    // is written, so versions that know it and others may follow each other; on a full disk it comes another day.
    let _ = connection.execute_batch("CREATE INDEX IF NOT EXISTS keys ON objects (key)");
    Ok(())
}

/// The end of the range of keys that begin so. Keys are ASCII: it is the prefix with its last byte one higher.
fn end_of(prefix: &Key) -> String {
    let mut end = prefix.0.clone().into_bytes();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    String::from_utf8_lossy(&end).into_owned()
}

impl Engine for Sqlite {
    fn get(&self, key: &Key) -> Result<Option<Record>, Error> {
        let reader = self.reader.lock();
        reader
            .prepare_cached("SELECT revision, document FROM objects WHERE key = ?1")
            .and_then(|mut query| {
                query
                    .query_row([&key.0], |row| {
                        Ok(Record { key: key.clone(), revision: row.get(0)?, document: row.get(1)? })
                    })
                    .optional()
            })
            .map_err(|source| self.unread(key, source))
    }

    fn list(&self, prefix: &Key) -> Result<Vec<Record>, Error> {
        let end = end_of(prefix);
        let reader = self.reader.lock();
        reader
            .prepare_cached(
                "SELECT key, revision, document FROM objects WHERE key >= ?1 AND key < ?2 ORDER BY key",
            )
            .and_then(|mut query| {
                query
                    .query_map([&prefix.0, &end], |row| {
                        Ok(Record { key: Key(row.get(0)?), revision: row.get(1)?, document: row.get(2)? })
                    })?
                    .collect()
            })
            .map_err(|source| self.unread(prefix, source))
    }

    fn keys(&self, prefix: &Key) -> Result<Vec<Key>, Error> {
        let end = end_of(prefix);
        let reader = self.reader.lock();
        reader
            .prepare_cached(KEYS)
            .and_then(|mut query| query.query_map([&prefix.0, &end], |row| Ok(Key(row.get(0)?)))?.collect())
            .map_err(|source| self.unread(prefix, source))
    }

    fn commit(&self, txn: &Txn) -> Result<Revision, Error> {
        let mut writer = self.writer.lock();
        let keys = || txn.writes.iter().map(|(key, _)| key.0.as_str()).collect::<Vec<_>>().join(", ");
        let wrong = |source| self.refused(keys(), source);
        let open =
            writer.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(wrong)?;
        for (key, expected) in &txn.checks {
            let found: Option<Revision> = open
                .prepare_cached("SELECT revision FROM objects WHERE key = ?1")
                .and_then(|mut query| query.query_row([&key.0], |row| row.get(0)).optional())
                .map_err(wrong)?;
            if found != *expected {
                return Err(Error::Changed { key: key.0.clone() });
            }
        }
        let revision: Revision = open
            .prepare_cached("UPDATE revision SET last = last + 1 RETURNING last")
            .and_then(|mut query| query.query_row([], |row| row.get(0)))
            .map_err(wrong)?;
        for (key, document) in &txn.writes {
            match document {
                Some(document) => open
                    .prepare_cached(
                        "INSERT INTO objects VALUES (?1, ?2, ?3)
                         ON CONFLICT (key) DO UPDATE SET revision = ?2, document = ?3",
                    )
                    .and_then(|mut query| query.execute(params![key.0, revision, document])),
                None => open
                    .prepare_cached("DELETE FROM objects WHERE key = ?1")
                    .and_then(|mut query| query.execute([&key.0])),
            }
            .map_err(wrong)?;
        }
        open.commit().map_err(wrong)?;
        self.look_after_room();
        Ok(revision)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_without_the_documents_between_them() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Sqlite::open(&dir.path().join("some.db")).unwrap();
        let reader = engine.reader.lock();
        let plan: String =
            reader.query_row(&format!("EXPLAIN QUERY PLAN {KEYS}"), ["a", "b"], |row| row.get(3)).unwrap();
        assert!(plan.contains("COVERING INDEX keys"), "{plan}");
    }
}
