//! Whether a daemon is needed at all: asked at boot, before one is started for nothing.

use cabin_store::Store;
use cabin_store::rows::{self, Power};

use crate::{DEFAULT_PROJECT, Error, Settings, instance, resolve};

/// Whether some instance ran when the host went down, or is to be started always. Without any state
/// there is none.
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
    let instances = store.rows::<rows::Instance>().list(DEFAULT_PROJECT)?;
    Ok(instances.into_iter().any(|found| {
        let config = instance::expand(&found.row, &profiles).config;
        match config.get("boot.autostart").map(String::as_str) {
            None | Some("" | "last-state") => found.row.power == Power::Running,
            Some(_) => resolve::is_true(&config, "boot.autostart"),
        }
    }))
}
