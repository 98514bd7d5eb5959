//! A daemon that the tests of one file share while any of them runs.
//!
//! The first test starts it, the last one to let go of it stops it and looks for leftovers; a test that comes
//! later starts another. Tests keep apart by the names of what they make.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::daemon::Daemon;
use crate::images;

/// A daemon with the images that tests have asked for.
pub struct Lab {
    daemon: Daemon,
    imported: Mutex<BTreeSet<String>>,
}

static SHARED: Mutex<Weak<Lab>> = Mutex::new(Weak::new());

impl Lab {
    /// The shared daemon of this test program.
    #[must_use]
    pub fn shared() -> Arc<Lab> {
        let mut shared = held(&SHARED);
        shared.upgrade().unwrap_or_else(|| {
            let lab = Arc::new(Lab::own());
            *shared = Arc::downgrade(&lab);
            lab
        })
    }

    /// A daemon for one test alone.
    #[must_use]
    pub fn own() -> Lab {
        Lab { daemon: Daemon::start(), imported: Mutex::default() }
    }

    /// Makes the image of that definition available under an alias of the same name.
    ///
    /// # Panics
    /// When it cannot be built or imported.
    pub fn image(&self, name: &str) -> &Lab {
        let files = images::files(name);
        let mut imported = held(&self.imported);
        if imported.insert(name.to_owned()) {
            let mut words = vec!["image".to_owned(), "import".to_owned()];
            words.extend(files.iter().map(|file| file.display().to_string()));
            words.extend(["--alias".to_owned(), name.to_owned()]);
            self.daemon.cabin(&words).ok();
        }
        self
    }

    /// A running busybox of that name, which is up.
    pub fn busybox(&self, name: &str) -> &Lab {
        self.launch("busybox", name, &[])
    }

    /// A running instance of that image, with more words for `launch`.
    pub fn launch(&self, image: &str, name: &str, more: &[&str]) -> &Lab {
        self.image(image);
        let mut words = vec!["launch", image, name];
        words.extend(more);
        self.daemon.cabin(&words).ok();
        self
    }

    /// The daemon, for what changes it.
    pub fn daemon_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

impl Deref for Lab {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that failed with the lock held has left nothing half-done here.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
