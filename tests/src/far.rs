//! A pool whose place can be away, as that of a disk which is not attached.

use std::path::PathBuf;

use serde_json::json;

use crate::subject::Subject;

/// The pool `far`.
#[derive(Debug)]
pub struct Far {
    place: PathBuf,
    away: PathBuf,
}

impl Far {
    /// Makes it, beside the daemon's own directory.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn make(subject: &Subject) -> Far {
        let far = Far { place: subject.dir.with_extension("far"), away: subject.dir.with_extension("away") };
        std::fs::create_dir(&far.place).expect("a directory");
        let pool = json!({ "name": "far", "driver": "dir", "config": { "source": far.place } });
        subject.must("POST", "/1.0/storage-pools", &pool);
        far
    }

    /// It is not there any more.
    ///
    /// # Panics
    /// When it is not there already.
    pub fn goes(&self) {
        std::fs::rename(&self.place, &self.away).expect("the pool goes away");
    }

    /// It is there again, and somebody looks at it.
    ///
    /// # Panics
    /// When it is there already.
    pub fn comes(&self, subject: &Subject) {
        std::fs::rename(&self.away, &self.place).expect("the pool comes back");
        let _ = subject.get("/1.0/storage-pools/far/resources");
    }

    /// Deletes it, now that it is empty.
    ///
    /// # Panics
    /// When it is not.
    pub fn end(self, subject: &Subject) {
        subject.must("DELETE", "/1.0/storage-pools/far", &json!({}));
        std::fs::remove_dir_all(&self.place).expect("the place is ours");
    }
}
