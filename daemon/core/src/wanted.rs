//! Whether a daemon is needed at all: asked at boot, before one is started for nothing.

use cabin_store::Store;
use cabin_store::rows::{self, Power};

use crate::{DEFAULT_PROJECT, Error, Settings, instance, resolve};

/// Whether some instance ran when the host went down, is to be started always, or is to be snapshotted by a schedule, or
/// a volume is. Without any state there is none.
///
/// # Errors
/// When the database is there but cannot be read.
pub fn daemon_wanted(settings: &Settings) -> Result<bool, Error> {
    let path = settings.dir.join("database/cabin.db");
    if !path.exists() {
        return Ok(false);
    }
    let store = Store::open(&path)?;
    let profiles: instance::Profiles = store
        .rows::<rows::Profile>()
        .list(DEFAULT_PROJECT)?
        .into_iter()
        .map(|profile| (profile.name, profile.row))
        .collect();
    let scheduled = |config: &rows::Config| {
        let schedule = config.get("snapshots.schedule").map_or("", String::as_str);
        !matches!(schedule, "" | "@never")
    };
    let volumes = store.rows::<rows::Volume>().list(DEFAULT_PROJECT)?;
    if volumes.iter().any(|volume| scheduled(&volume.row.config)) {
        return Ok(true);
    }
    let instances = store.rows::<rows::Instance>().list(DEFAULT_PROJECT)?;
    Ok(instances.into_iter().any(|found| {
        let config = instance::expand(&found.row, &profiles).config;
        if scheduled(&config) {
            return true;
        }
        match config.get("boot.autostart").map(String::as_str) {
            None | Some("" | "last-state") => found.row.power == Power::Running,
            Some(_) => resolve::is_true(&config, "boot.autostart"),
        }
    }))
}
