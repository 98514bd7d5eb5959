//! Aliases: names of images.

use cabin_api::image as api;
use cabin_store::{Versioned, rows};
use serde_json::{Value, json};

use super::find;
use crate::{DEFAULT_PROJECT, Error, Host, etag, limits};

const WHAT: &str = "image alias";

fn load(host: &Host, name: &str) -> Result<Versioned<rows::Alias>, Error> {
    let found = host.store().rows::<rows::Alias>().get(DEFAULT_PROJECT, name)?;
    found.ok_or_else(|| Error::not_found(WHAT, name))
}

fn render(found: Versioned<rows::Alias>) -> api::ImageAliasesEntry {
    api::ImageAliasesEntry {
        description: found.row.description,
        target: found.row.target,
        name: found.name,
        kind: "container".to_owned(),
        project: DEFAULT_PROJECT.to_owned(),
    }
}

fn address(name: &str) -> String {
    format!("/1.0/images/aliases/{name}")
}

fn tell(host: &Host, action: &str, name: &str, context: Value) {
    host.events().lifecycle(DEFAULT_PROJECT, action, &address(name), name, context, None);
}

/// Every alias.
///
/// # Errors
/// When the rows cannot be read.
pub fn aliases(host: &Host) -> Result<Vec<api::ImageAliasesEntry>, Error> {
    Ok(host.store().rows::<rows::Alias>().list(DEFAULT_PROJECT)?.into_iter().map(render).collect())
}

/// One alias.
///
/// # Errors
/// When there is none of that name.
pub fn alias(host: &Host, name: &str) -> Result<api::ImageAliasesEntry, Error> {
    load(host, name).map(render)
}

/// The tag of what PUT changes.
#[must_use]
pub fn alias_tag(alias: &api::ImageAliasesEntry) -> String {
    etag::etag(&(&alias.description, &alias.target))
}

/// Makes an alias.
///
/// # Errors
/// For a bad or taken name, or an image that is not there.
pub fn create_alias(host: &Host, entry: api::ImageAliasesEntry) -> Result<(), Error> {
    cabin_profiles::value::name::alias(&entry.name)?;
    let _kept = host.keep_layout();
    let present = host.store().rows::<rows::Alias>().list(DEFAULT_PROJECT)?;
    if present.iter().any(|alias| alias.name == entry.name) {
        return Err(Error::Exists { what: WHAT, name: entry.name });
    }
    limits::one_more("image aliases", present.len(), limits::ALIASES)?;
    let row = rows::Alias { description: entry.description, target: find(host, &entry.target)?.name };
    host.store().begin().insert(DEFAULT_PROJECT, &entry.name, &row)?.commit()?;
    tell(host, "image-alias-created", &entry.name, Value::Null);
    Ok(())
}

/// Changes an alias: what is given replaces what was.
///
/// # Errors
/// When there is none, somebody else changed it, or the image is not there.
pub fn update_alias(
    host: &Host,
    name: &str,
    put: api::ImageAliasPut,
    if_match: Option<&str>,
    patch: bool,
) -> Result<(), Error> {
    let _kept = host.keep_layout();
    let old = load(host, name)?;
    etag::check(WHAT, name, &alias_tag(&render(old.clone())), if_match)?;
    let target = match put.target.filter(|target| !target.is_empty()) {
        Some(target) => find(host, &target)?.name,
        None if patch => old.row.target,
        None => return Err(Error::invalid("an alias needs a target")),
    };
    let kept = if patch { old.row.description } else { String::new() };
    let row = rows::Alias { description: put.description.unwrap_or(kept), target };
    host.store().begin().update(DEFAULT_PROJECT, name, old.revision, &row)?.commit()?;
    tell(host, "image-alias-updated", name, Value::Null);
    Ok(())
}

/// Gives an alias another name.
///
/// # Errors
/// When there is none, or the new name is bad or taken.
pub fn rename_alias(host: &Host, name: &str, new: &str) -> Result<(), Error> {
    cabin_profiles::value::name::alias(new)?;
    let old = load(host, name)?;
    if host.store().rows::<rows::Alias>().get(DEFAULT_PROJECT, new)?.is_some() {
        return Err(Error::Exists { what: WHAT, name: new.to_owned() });
    }
    host.store()
        .begin()
        .check::<rows::Alias>(DEFAULT_PROJECT, name, Some(old.revision))
        .remove::<rows::Alias>(DEFAULT_PROJECT, name)
        .insert(DEFAULT_PROJECT, new, &old.row)?
        .commit()?;
    tell(host, "image-alias-renamed", new, json!({ "old_name": name }));
    Ok(())
}

/// Deletes an alias; the image stays.
///
/// # Errors
/// When there is none of that name.
pub fn delete_alias(host: &Host, name: &str) -> Result<(), Error> {
    load(host, name)?;
    host.store().begin().remove::<rows::Alias>(DEFAULT_PROJECT, name).commit()?;
    tell(host, "image-alias-deleted", name, Value::Null);
    Ok(())
}
