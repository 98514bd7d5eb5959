//! Images for the tests: built once by our own builder, kept outside the tree, and built anew when a definition
//! changes.

use std::fs::File;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::binary;
use crate::cli::{Outcome, run};

/// Where slow things are kept between runs.
pub const CACHE: &str = "/var/cache/cabin-tests";

/// The folder that holds the built image of a definition (`debian/12`, `busybox` …).
///
/// # Panics
/// When it cannot be built; the message holds all that the builder said.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    let folder =
        Path::new(CACHE).join("images").join(format!("{}-{}", name.replace('/', "-"), definitions()));
    let done = folder.join(".done");
    let _lock = lock(&folder.with_extension("lock"));
    if !done.exists() {
        forget(name);
        std::fs::create_dir_all(&folder).expect("a folder in the cache");
        eprintln!("building the image `{name}` once, in {}", folder.display());
        let _ = build(name, &folder).ok();
        File::create(&done).expect("a mark in the cache");
    }
    folder
}

/// Removes what was built of that definition before.
fn forget(name: &str) {
    let images = Path::new(CACHE).join("images");
    let start = format!("{}-", name.replace('/', "-"));
    for entry in std::fs::read_dir(images).into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        // `debian-12-` also begins the names of `debian/12/sysvinit`: only a hash may follow.
        let ours =
            file.strip_prefix(&start).is_some_and(|rest| rest.chars().all(|it| it.is_ascii_hexdigit()));
        if ours {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn build(name: &str, folder: &Path) -> Outcome {
    run(std::process::Command::new(binary("distrobuilder")).arg("build").arg(name).arg(folder))
}

/// The files of a built image, as `image import` takes them: one unified file, or metadata and rootfs.
///
/// # Panics
/// When the builder wrote neither.
#[must_use]
pub fn files(name: &str) -> Vec<PathBuf> {
    let folder = built(name);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the cache")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|it| it != ".done") && path.is_file())
        .collect();
    // Metadata first, the rootfs after it.
    files.sort_by_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (name.contains("rootfs"), name)
    });
    assert!(matches!(files.len(), 1 | 2), "files of `{name}`: {files:?}");
    files
}

/// A hash over the definitions we ship and the builder: a change of any builds all anew.
fn definitions() -> String {
    let mut hash = Sha256::new();
    let makes =
        |path: &str| path.starts_with("distrobuilder/images/") || path.starts_with("distrobuilder/src/");
    for file in crate::tree::files(&["yaml", "rs"]).iter().filter(|file| makes(&file.path)) {
        hash.update(&file.text);
    }
    hex::encode(hash.finalize()).chars().take(12).collect()
}

/// Holds a lock file until the result is dropped, against other test processes.
///
/// # Panics
/// When the cache cannot be written.
#[must_use]
pub fn lock(path: &Path) -> File {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder in the cache");
    let file = File::create(path).expect("a lock file in the cache");
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).expect("the lock");
    file
}
