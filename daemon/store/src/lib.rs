//! The state of the product: objects with revisions.
//!
//! Owns the database and the rows' shapes. An [`Engine`] keeps documents under keys with revisions and
//! applies a transaction wholly or not at all; typed [`Collection`]s stand on it. Nobody outside sees a
//! key or JSON. What a row means and when it may change is core's business.

#![forbid(unsafe_code)]

pub mod collection;
pub mod engine;
pub mod rows;

pub use collection::{Collection, Row, Transaction, Versioned};
pub use engine::{Engine, Key, Record, Revision, Txn};

use std::path::Path;
use std::sync::Arc;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database file cannot be opened.
    #[error("cannot open the database `{path}`")]
    Open {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// The database says it is damaged.
    #[error("the database `{path}` is damaged: {found}")]
    Damaged {
        /// The file.
        path: String,
        /// What the check found.
        found: String,
    },
    /// The database was written by a newer version.
    #[error("the database has schema {found}, newer than {known} which this version knows")]
    Newer {
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The SQLite library is too old to be trusted with committed data.
    #[error("SQLite {found} can lose committed transactions; 3.51.3 or later is needed")]
    Library {
        /// Its version.
        found: &'static str,
    },
    /// Reading failed.
    #[error("cannot read `{key}`")]
    Read {
        /// The key or prefix.
        key: String,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// The disk gives nothing.
    #[error("cannot read `{key}`")]
    Unread {
        /// The key or prefix.
        key: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A transaction failed; nothing of it is stored.
    #[error("cannot store `{keys}`")]
    Commit {
        /// The keys written.
        keys: String,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// The disk took nothing; nothing of the transaction is stored.
    #[error("cannot store `{keys}`")]
    Refused {
        /// The keys written.
        keys: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database's file cannot be opened for keeping room.
    #[error("cannot keep room for the database `{path}`")]
    Room {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something changed between reading and writing; nothing is stored.
    #[error("`{key}` was changed by somebody else meanwhile")]
    Changed {
        /// The key.
        key: String,
    },
    /// A document is not what its collection holds.
    #[error("cannot understand the stored `{key}`")]
    Document {
        /// The key.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A test made the commit fail; nothing is stored.
    #[error(transparent)]
    Injected(#[from] cabin_undo::Injected),
}

/// The daemon's state.
#[derive(Clone)]
pub struct Store {
    engine: Arc<dyn Engine>,
}

impl Store {
    /// Opens (or makes) the embedded database in a file.
    ///
    /// # Errors
    /// When it cannot be opened, is damaged or too new.
    pub fn open(path: &Path) -> Result<Store, Error> {
        Ok(Store { engine: Arc::new(engine::sqlite::Sqlite::open(path)?) })
    }

    /// A typed view of one kind of row.
    #[must_use]
    pub fn rows<T: Row>(&self) -> Collection<'_, T> {
        Collection::new(self.engine.as_ref())
    }

    /// Begins a transaction: checks and writes are gathered, then committed together.
    #[must_use]
    pub fn begin(&self) -> Transaction<'_> {
        Transaction::new(self.engine.as_ref())
    }
}
