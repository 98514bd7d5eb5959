//! Projects. There is one, `default`.

use cabin_api::ConfigMap;
use cabin_api::project::Project;
use cabin_api::storage::ConfigPut;
use cabin_store::rows;
use serde_json::Value;

use crate::{DEFAULT_PROJECT, Error, Host, etag};

/// Every project.
///
/// # Errors
/// When the rows cannot be read.
pub fn list(host: &Host) -> Result<Vec<Project>, Error> {
    Ok(vec![get(host, DEFAULT_PROJECT)?])
}

/// One project.
///
/// # Errors
/// When there is none of that name.
pub fn get(host: &Host, name: &str) -> Result<Project, Error> {
    check(name)?;
    let store = host.store();
    let mut used_by: Vec<String> = Vec::new();
    used_by.extend(
        store.rows::<rows::Image>().list(name)?.into_iter().map(|i| format!("/1.0/images/{}", i.name)),
    );
    used_by.extend(
        store.rows::<rows::Instance>().list(name)?.into_iter().map(|i| format!("/1.0/instances/{}", i.name)),
    );
    used_by.extend(
        store.rows::<rows::Network>().list(name)?.into_iter().map(|n| format!("/1.0/networks/{}", n.name)),
    );
    used_by.extend(
        store.rows::<rows::Profile>().list(name)?.into_iter().map(|p| format!("/1.0/profiles/{}", p.name)),
    );
    let features = ["images", "networks", "networks.zones", "profiles", "storage.buckets", "storage.volumes"];
    let config = features.iter().map(|feature| (format!("features.{feature}"), "true".to_owned())).collect();
    Ok(Project {
        config: ConfigMap(config),
        description: "Default Cabin project".to_owned(),
        name: name.to_owned(),
        used_by,
    })
}

/// The tag of what PUT changes.
#[must_use]
pub fn tag(project: &Project) -> String {
    etag::etag(&(&project.description, &project.config))
}

/// Takes a PUT that changes nothing, as tools send that write back what they read.
///
/// # Errors
/// When there is none of that name, somebody thinks it is another, or it would change something: project
/// `default` is as it is in this version.
pub fn update(host: &Host, name: &str, put: &ConfigPut, if_match: Option<&str>) -> Result<(), Error> {
    let now = get(host, name)?;
    etag::check("project", name, &tag(&now), if_match)?;
    if put.config == now.config && put.description == now.description {
        return Ok(());
    }
    let reason = "this version has one project, and it is as it is";
    Err(Error::Unsupported { what: format!("changing project `{name}`"), reason })
}

/// As [`update`], for the keys that are given.
///
/// # Errors
/// As [`update`].
pub fn patch(host: &Host, name: &str, body: Value, if_match: Option<&str>) -> Result<(), Error> {
    let now = get(host, name)?;
    update(host, name, &crate::network::merged(now.config.0, now.description, body)?, if_match)
}

/// Refuses a project that does not exist.
///
/// # Errors
/// [`Error::NotFound`].
pub fn check(name: &str) -> Result<(), Error> {
    if name == DEFAULT_PROJECT { Ok(()) } else { Err(Error::not_found("project", name)) }
}
