//! A daemon that starts while its pool `default` is not there: what another one has left undone in it stays so until it
//! is.

use serde_json::json;

use crate::subject::Subject;

const POOL: &str = "/1.0/storage-pools/default";

/// Starts the daemon without the pool. Then that comes, somebody looks at it, and changes whatever lies in it, which
/// finishes what is left undone with it.
///
/// # Panics
/// When the daemon does not come up, or the pool cannot be moved.
pub fn boot(subject: &mut Subject) {
    let (place, away) = (subject.dir.join("storage-pools/default"), subject.dir.join("away"));
    std::fs::rename(&place, &away).expect("the pool goes away");
    subject.boot_well();
    std::fs::rename(&away, &place).expect("the pool comes back");
    let _ = subject.get(&format!("{POOL}/resources"));
    for list in ["/1.0/instances".to_owned(), format!("{POOL}/volumes/custom")] {
        for url in subject.get(&list).as_array().into_iter().flatten() {
            let _ = subject.ask("PATCH", url.as_str().unwrap_or_default(), &json!({}));
        }
    }
}
