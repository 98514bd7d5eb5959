//! Typed views over an engine.

use std::marker::PhantomData;

use cabin_undo::fault;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::engine::{Engine, Key, Record, Revision, Txn};

/// A kind of row: what it is called in keys.
pub trait Row: Serialize + DeserializeOwned {
    /// The first part of its keys.
    const KIND: &'static str;
}

/// A row and the revision it was read at.
#[derive(Debug, Clone)]
pub struct Versioned<T> {
    /// The object's name.
    pub name: String,
    /// The revision it was read at.
    pub revision: Revision,
    /// The row.
    pub row: T,
}

/// All rows of one kind.
pub struct Collection<'a, T> {
    engine: &'a dyn Engine,
    kind: PhantomData<T>,
}

/// Names may hold a slash (image aliases do); keys must not, beyond the two that part them.
fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2f")
}

fn unescape(name: &str) -> String {
    name.replace("%2f", "/").replace("%25", "%")
}

fn key<T: Row>(project: &str, name: &str) -> Key {
    Key(format!("{}/{}/{}", T::KIND, escape(project), escape(name)))
}

fn name_of(key: &Key) -> String {
    unescape(key.0.rsplit('/').next().unwrap_or_default())
}

fn read<T: Row>(record: Record) -> Result<Versioned<T>, Error> {
    let name = name_of(&record.key);
    match serde_json::from_slice(&record.document) {
        Ok(row) => Ok(Versioned { name, revision: record.revision, row }),
        Err(source) => Err(Error::Document { key: record.key.0, source }),
    }
}

impl<'a, T: Row> Collection<'a, T> {
    pub(crate) fn new(engine: &'a dyn Engine) -> Collection<'a, T> {
        Collection { engine, kind: PhantomData }
    }

    /// One row.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn get(&self, project: &str, name: &str) -> Result<Option<Versioned<T>>, Error> {
        self.engine.get(&key::<T>(project, name))?.map(read).transpose()
    }

    /// Every row of a project, by name.
    ///
    /// # Errors
    /// When one cannot be read or understood.
    pub fn list(&self, project: &str) -> Result<Vec<Versioned<T>>, Error> {
        let prefix = Key(format!("{}/{}/", T::KIND, escape(project)));
        self.engine.list(&prefix)?.into_iter().map(read).collect()
    }

    /// The names of every row of a project, in order. No row is read for it.
    ///
    /// # Errors
    /// When the keys cannot be read.
    pub fn names(&self, project: &str) -> Result<Vec<String>, Error> {
        let prefix = Key(format!("{}/{}/", T::KIND, escape(project)));
        Ok(self.engine.keys(&prefix)?.iter().map(name_of).collect())
    }

    /// The rows of a project whose names begin so, by name.
    ///
    /// # Errors
    /// When one cannot be read or understood.
    pub fn list_from(&self, project: &str, beginning: &str) -> Result<Vec<Versioned<T>>, Error> {
        self.engine.list(&key::<T>(project, beginning))?.into_iter().map(read).collect()
    }

    /// Every row of every project.
    ///
    /// # Errors
    /// When one cannot be read or understood.
    pub fn all(&self) -> Result<Vec<Versioned<T>>, Error> {
        self.engine.list(&Key(format!("{}/", T::KIND)))?.into_iter().map(read).collect()
    }
}

/// Writes that happen together, if what they rest on has not changed.
pub struct Transaction<'a> {
    engine: &'a dyn Engine,
    txn: Txn,
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(engine: &'a dyn Engine) -> Transaction<'a> {
        Transaction { engine, txn: Txn::default() }
    }

    /// A new row; the commit fails if one of that name exists.
    ///
    /// # Errors
    /// When the row cannot be written as JSON.
    pub fn insert<T: Row>(mut self, project: &str, name: &str, row: &T) -> Result<Self, Error> {
        self.txn.checks.push((key::<T>(project, name), None));
        self.write(project, name, row)
    }

    /// A changed row; the commit fails if it is not at `revision` any more.
    ///
    /// # Errors
    /// When the row cannot be written as JSON.
    pub fn update<T: Row>(
        mut self,
        project: &str,
        name: &str,
        revision: Revision,
        row: &T,
    ) -> Result<Self, Error> {
        self.txn.checks.push((key::<T>(project, name), Some(revision)));
        self.write(project, name, row)
    }

    /// A row whatever was there before.
    ///
    /// # Errors
    /// When the row cannot be written as JSON.
    pub fn write<T: Row>(mut self, project: &str, name: &str, row: &T) -> Result<Self, Error> {
        let key = key::<T>(project, name);
        match serde_json::to_vec(row) {
            Ok(document) => self.txn.writes.push((key, Some(document))),
            Err(source) => return Err(Error::Document { key: key.0, source }),
        }
        Ok(self)
    }

    /// The row is removed, if it is there.
    #[must_use]
    pub fn remove<T: Row>(mut self, project: &str, name: &str) -> Self {
        self.txn.writes.push((key::<T>(project, name), None));
        self
    }

    /// The commit fails if the row is not at `revision` (`None`: not absent) any more.
    #[must_use]
    pub fn check<T: Row>(mut self, project: &str, name: &str, revision: Option<Revision>) -> Self {
        self.txn.checks.push((key::<T>(project, name), revision));
        self
    }

    /// Writes it all to disk, or nothing.
    ///
    /// # Errors
    /// [`Error::Changed`] when a check does not hold; otherwise when writing fails.
    pub fn commit(self) -> Result<Revision, Error> {
        let keys: Vec<&str> = self.txn.writes.iter().map(|(key, _)| key.0.as_str()).collect();
        let keys = keys.join(", ");
        fault::pass(&format!("commit {keys}"))?;
        let revision = self.engine.commit(&self.txn)?;
        fault::reach(&format!("committed {keys}"));
        Ok(revision)
    }
}
