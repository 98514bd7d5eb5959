//! Images: the files under `images/`, their rows, and what instances are made from.

mod alias;
mod build;
mod import;
mod publish;
mod resolve;

use std::fs::File;
use std::sync::Arc;

use cabin_api::image as api;
use cabin_api::{ConfigMap, UNIX_ZERO, ZERO_TIME};
use cabin_store::{Versioned, rows};
use cabin_undo::fault;
use serde_json::Value;

use crate::{DEFAULT_PROJECT, Error, Host, clock, etag};

pub use alias::{alias, alias_tag, aliases, create_alias, delete_alias, rename_alias, update_alias};
pub use build::{build, shipped};
pub use publish::{Publication, check_publish, publish};

pub(crate) use import::templates;
pub use import::{Hints, Staging, import, stage};
pub(crate) use resolve::{
    Resolved, Wanted, ensure_carried, ensure_unpacked, obtain, resolve, still_here, still_here_in, sweep,
};

const WHAT: &str = "image";

/// An image's files, opened.
pub struct Export {
    /// The unified tarball or the metadata tarball, with a name for the download.
    pub meta: (String, File),
    /// The rootfs of a split image.
    pub rootfs: Option<(String, File)>,
}

/// Every image.
///
/// # Errors
/// When the rows cannot be read.
pub fn list(host: &Host) -> Result<Vec<api::Image>, Error> {
    let aliases = host.store().rows::<rows::Alias>().list(DEFAULT_PROJECT)?;
    let found = host.store().rows::<rows::Image>().list(DEFAULT_PROJECT)?;
    Ok(found.into_iter().map(|image| render(image, &aliases)).collect())
}

/// One image, by fingerprint or a unique beginning of it.
///
/// # Errors
/// When there is none, or the beginning is that of several.
pub fn get(host: &Host, fingerprint: &str) -> Result<api::Image, Error> {
    let aliases = host.store().rows::<rows::Alias>().list(DEFAULT_PROJECT)?;
    Ok(render(find(host, fingerprint)?, &aliases))
}

/// The tag of what PUT changes.
#[must_use]
pub fn tag(image: &api::Image) -> String {
    etag::etag(&(image.public, image.auto_update, &image.properties, &image.expires_at, &image.profiles))
}

pub(crate) fn find(host: &Host, fingerprint: &str) -> Result<Versioned<rows::Image>, Error> {
    let hex = !fingerprint.is_empty()
        && fingerprint.len() <= 64
        && fingerprint.bytes().all(|b| b.is_ascii_hexdigit());
    if !hex {
        return Err(Error::not_found(WHAT, fingerprint));
    }
    let images = host.store().rows::<rows::Image>();
    if fingerprint.len() == 64 {
        return images.get(DEFAULT_PROJECT, fingerprint)?.ok_or_else(|| Error::not_found(WHAT, fingerprint));
    }
    let mut found: Vec<_> = images
        .list(DEFAULT_PROJECT)?
        .into_iter()
        .filter(|image| image.name.starts_with(fingerprint))
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        (None, _) => Err(Error::not_found(WHAT, fingerprint)),
        _ => Err(Error::invalid(format!("`{fingerprint}` is the beginning of several images' fingerprints"))),
    }
}

fn render(found: Versioned<rows::Image>, aliases: &[Versioned<rows::Alias>]) -> api::Image {
    let row = found.row;
    let or_zero = |time: String| if time.is_empty() { UNIX_ZERO.to_owned() } else { time };
    api::Image {
        auto_update: row.auto_update,
        properties: ConfigMap(row.properties),
        public: row.public,
        expires_at: or_zero(row.expires_at),
        profiles: row.profiles,
        aliases: aliases
            .iter()
            .filter(|alias| alias.row.target == found.name)
            .map(|alias| api::ImageAlias {
                name: alias.name.clone(),
                description: alias.row.description.clone(),
            })
            .collect(),
        architecture: row.architecture,
        cached: row.cached,
        filename: row.filename,
        fingerprint: found.name,
        size: i64::try_from(row.size).unwrap_or(i64::MAX),
        update_source: None,
        kind: "container".to_owned(),
        created_at: or_zero(row.created_at),
        last_used_at: if row.last_used_at.is_empty() { ZERO_TIME.to_owned() } else { row.last_used_at },
        uploaded_at: or_zero(row.uploaded_at),
        project: DEFAULT_PROJECT.to_owned(),
        locations: vec!["none".to_owned()],
    }
}

fn address(fingerprint: &str) -> String {
    format!("/1.0/images/{fingerprint}")
}

/// Replaces what PUT may change of an image.
///
/// # Errors
/// When there is none, or somebody else changed it.
pub fn update(
    host: &Host,
    fingerprint: &str,
    put: api::ImagePut,
    if_match: Option<&str>,
) -> Result<(), Error> {
    replace(host, fingerprint, if_match, |_| put.clone())
}

fn replace(
    host: &Host,
    fingerprint: &str,
    if_match: Option<&str>,
    new: impl Fn(rows::Image) -> api::ImagePut,
) -> Result<(), Error> {
    let name = loop {
        let old = find(host, fingerprint)?;
        etag::check(WHAT, &old.name, &tag(&render(old.clone(), &[])), if_match)?;
        let put = new(old.row.clone());
        let expires_at = if put.expires_at == UNIX_ZERO || put.expires_at == ZERO_TIME {
            String::new()
        } else {
            put.expires_at
        };
        let row = rows::Image {
            auto_update: put.auto_update,
            properties: put.properties.0.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
            public: put.public,
            expires_at,
            profiles: put.profiles,
            ..old.row
        };
        match host.store().begin().update(DEFAULT_PROJECT, &old.name, old.revision, &row)?.commit() {
            // Somebody else was first, or used it: the change is made to what there is now.
            Err(cabin_store::Error::Changed { .. }) => {}
            done => break done.map(|_| old.name)?,
        }
    };
    host.events().lifecycle(DEFAULT_PROJECT, "image-updated", &address(&name), &name, Value::Null, None);
    Ok(())
}

/// Merges into what PUT may change of an image.
///
/// # Errors
/// As [`update`].
pub fn patch(host: &Host, fingerprint: &str, body: Value, if_match: Option<&str>) -> Result<(), Error> {
    let sent: api::ImagePut =
        serde_json::from_value(body.clone()).map_err(|source| Error::Body { source })?;
    let named = |field: &str| body.get(field).is_some();
    replace(host, fingerprint, if_match, |old| {
        let sent = sent.clone();
        let mut properties = old.properties;
        properties.extend(sent.properties.0);
        api::ImagePut {
            auto_update: if named("auto_update") { sent.auto_update } else { old.auto_update },
            properties: ConfigMap(properties),
            public: if named("public") { sent.public } else { old.public },
            expires_at: if named("expires_at") { sent.expires_at } else { old.expires_at },
            profiles: if named("profiles") { sent.profiles } else { old.profiles },
        }
    })
}

/// Deletes an image, its aliases, its files, and its unpacked trees that no instance stands on. A tree
/// that is in use stays until the last instance on it is gone.
///
/// # Errors
/// When there is none. When only its files cannot be removed the image is gone and the error names them; the next
/// start tries again.
pub fn delete(host: &Arc<Host>, fingerprint: &str) -> Result<(), Error> {
    // Nobody may begin to stand on it meanwhile. That somebody used it just now does not keep it.
    let _alone = host.change_layout();
    let found = find(host, fingerprint)?;
    let mut txn = host.store().begin().remove::<rows::Image>(DEFAULT_PROJECT, &found.name);
    for alias in host.store().rows::<rows::Alias>().list(DEFAULT_PROJECT)? {
        if alias.row.target == found.name {
            txn = txn.remove::<rows::Alias>(DEFAULT_PROJECT, &alias.name);
        }
    }
    txn.commit()?;
    let name = &found.name;
    host.events().lifecycle(DEFAULT_PROJECT, "image-deleted", &address(name), name, Value::Null, None);
    clear_away(host, name).map_err(|source| Error::LeftBehind {
        left: format!("files of image `{name}`, which is deleted"),
        source: Box::new(source),
    })
}

/// Removes what lies on disk of an image that is no more.
fn clear_away(host: &Host, name: &str) -> Result<(), Error> {
    let mut first = Ok(());
    for file in [format!("images/{name}"), format!("images/{name}.rootfs")] {
        let removed = fault::behind(&format!("file `{file}`")).map_err(Error::from);
        let remove = || host.dir().remove_file(&file).map_err(Error::io(format!("remove `{file}`")));
        first = first.and(removed.and_then(|()| remove()));
    }
    for pool in host.store().rows::<rows::Pool>().list(DEFAULT_PROJECT)? {
        // A tree that instances stand on goes with the last of them; an unavailable pool keeps its own.
        if let Ok(pool) = crate::storage::pool(host, &pool.name) {
            first = first.and(pool.delete_image(name).map(drop).map_err(Error::from));
        }
    }
    first
}

/// An image's files, for a download of the same bytes that came in.
///
/// # Errors
/// When there is none, or its files are gone.
pub fn export(host: &Host, fingerprint: &str) -> Result<Export, Error> {
    let found = find(host, fingerprint)?;
    let open = |file: &str| host.dir().open_file(file).map_err(Error::io(format!("open `{file}`")));
    let name = &found.name;
    let meta = open(&format!("images/{name}"))?;
    let ending = |file: &File| cabin_images::detect(file).map(|shape| shape.extension()).unwrap_or_default();
    let meta_name = match found.row.split {
        true => format!("meta-{name}{}", dotted(ending(&meta))),
        false => format!("{name}{}", dotted(ending(&meta))),
    };
    let rootfs = match found.row.split {
        true => {
            let file = open(&format!("images/{name}.rootfs"))?;
            Some((format!("{name}{}", dotted(ending(&file))), file))
        }
        false => None,
    };
    host.events().lifecycle(DEFAULT_PROJECT, "image-retrieved", &address(name), name, Value::Null, None);
    Ok(Export { meta: (meta_name, meta), rootfs })
}

fn dotted(ending: &str) -> String {
    if ending.is_empty() || ending.starts_with('.') { ending.to_owned() } else { format!(".{ending}") }
}

/// Writes down that an image was used just now.
pub(crate) fn touch(host: &Host, fingerprint: &str) -> Result<(), Error> {
    if let Some(found) = host.store().rows::<rows::Image>().get(DEFAULT_PROJECT, fingerprint)? {
        let row = rows::Image { last_used_at: clock::now(), ..found.row };
        match host.store().begin().update(DEFAULT_PROJECT, fingerprint, found.revision, &row)?.commit() {
            // Somebody else used it at the same moment: as good.
            Ok(_) | Err(cabin_store::Error::Changed { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
