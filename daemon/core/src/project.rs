//! Projects. There is one, `default`.

use cabin_api::ConfigMap;
use cabin_api::project::Project;
use cabin_store::rows;

use crate::{DEFAULT_PROJECT, Error, Host};

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

/// Refuses a project that does not exist.
///
/// # Errors
/// [`Error::NotFound`].
pub fn check(name: &str) -> Result<(), Error> {
    if name == DEFAULT_PROJECT { Ok(()) } else { Err(Error::not_found("project", name)) }
}
