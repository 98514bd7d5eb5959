//! What a place that keeps documents must do. Small enough for an embedded file and for a shared service.

mod room;
pub mod sqlite;

use crate::Error;

/// A count that grows with every commit; a document's revision is that of its last write.
pub type Revision = i64;

/// Where a document lies: `kind/project/name`. Parts never hold a slash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(pub String);

/// A document and its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it lies.
    pub key: Key,
    /// When it was last written.
    pub revision: Revision,
    /// JSON.
    pub document: Vec<u8>,
}

/// Checks and writes that go together.
#[derive(Debug, Clone, Default)]
pub struct Txn {
    /// Each key must have this revision (`None`: must not exist) or nothing is written.
    pub checks: Vec<(Key, Option<Revision>)>,
    /// Each key gets this document (`None`: is removed).
    pub writes: Vec<(Key, Option<Vec<u8>>)>,
}

/// A place that keeps documents.
pub trait Engine: Send + Sync {
    /// One document.
    ///
    /// # Errors
    /// When reading fails.
    fn get(&self, key: &Key) -> Result<Option<Record>, Error>;

    /// Every document whose key begins with `prefix`, by key.
    ///
    /// # Errors
    /// When reading fails.
    fn list(&self, prefix: &Key) -> Result<Vec<Record>, Error>;

    /// Every key that begins with `prefix`, in order.
    ///
    /// # Errors
    /// When reading fails.
    fn keys(&self, prefix: &Key) -> Result<Vec<Key>, Error>;

    /// Applies all writes if all checks hold, or none. On return it is on disk.
    ///
    /// # Errors
    /// [`Error::Changed`] when a check does not hold; otherwise when writing fails.
    fn commit(&self, txn: &Txn) -> Result<Revision, Error>;
}
