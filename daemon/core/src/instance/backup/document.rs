//! What a backup says about its instance, in the words of Incus: `index.yaml` and each `backup.yaml`.

use cabin_api::instance::Instance;
use cabin_api::profile::Profile;
use cabin_api::snapshot::InstanceSnapshot;
use cabin_api::storage::{Pool, Volume};
use cabin_api::{ConfigMap, ZERO_TIME};
use cabin_images::{Metadata, Template};
use cabin_store::rows;
use jiff::Timestamp;
use serde::Serialize;

use crate::instance::image_metadata;
use crate::{Error, Host, instance, profile, storage, volume};

#[derive(Serialize)]
struct Index<'a> {
    name: &'a str,
    backend: &'a str,
    pool: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    snapshots: Vec<&'a str>,
    optimized: bool,
    optimized_header: bool,
    #[serde(rename = "type")]
    kind: &'a str,
    config: &'a Document,
}

/// Everything the server knows that the instance needs. `backup.yaml` is this alone.
#[derive(Serialize)]
pub(super) struct Document {
    container: Instance,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    snapshots: Vec<InstanceSnapshot>,
    pool: Pool,
    profiles: Vec<Profile>,
    volume: Volume,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    volume_snapshots: Vec<VolumeSnapshot>,
}

#[derive(Serialize)]
struct VolumeSnapshot {
    description: String,
    expires_at: String,
    name: String,
    config: ConfigMap,
    content_type: String,
    created_at: String,
}

/// Collects it. `snapshots` is false when they are left out.
pub(super) fn document(
    host: &Host,
    project: &str,
    row: &rows::Instance,
    name: &str,
    snapshots: bool,
) -> Result<Document, Error> {
    let mut container = instance::get(host, project, name)?;
    let mut snapshots = match snapshots {
        true => instance::snapshots(host, project, name)?,
        false => Vec::new(),
    };
    for config in [&mut container.config, &mut container.expanded_config]
        .into_iter()
        .chain(snapshots.iter_mut().flat_map(|found| [&mut found.config, &mut found.expanded_config]))
    {
        config.0.retain(|key, _| travels(key));
    }
    let profiles = row.profiles.iter().map(|name| profile::get(host, project, name));
    let mut profiles = profiles.collect::<Result<Vec<_>, _>>()?;
    // Who else uses them is nobody's business who gets the backup.
    profiles.iter_mut().for_each(|profile| profile.used_by.clear());
    let pool = storage::get(host, &row.pool)?;
    Ok(Document {
        pool: Pool { config: ConfigMap::default(), used_by: Vec::new(), ..pool },
        volume: Volume { used_by: Vec::new(), ..volume::render_own(name.to_owned(), row) },
        volume_snapshots: volume_snapshots(host, project, name, &snapshots)?,
        container,
        snapshots,
        profiles,
    })
}

/// What was kept with the instance's volume when each of its snapshots was taken.
fn volume_snapshots(
    host: &Host,
    project: &str,
    name: &str,
    snapshots: &[InstanceSnapshot],
) -> Result<Vec<VolumeSnapshot>, Error> {
    let kept = instance::snapshot::rows_of(host, project, name)?;
    let of = |snapshot: &InstanceSnapshot| {
        let kept = kept.iter().find(|kept| kept.name == snapshot.name);
        let kept = kept.map(|kept| kept.row.volume.clone()).unwrap_or_default();
        VolumeSnapshot {
            description: kept.description,
            expires_at: ZERO_TIME.to_owned(),
            name: snapshot.name.clone(),
            config: ConfigMap(kept.config),
            content_type: "filesystem".to_owned(),
            created_at: snapshot.created_at.clone(),
        }
    };
    Ok(snapshots.iter().map(of).collect())
}

/// Whether a key means something elsewhere. Of what servers remember, they refuse what they do not know: only
/// what all of Incus and LXD 5 do is told.
fn travels(key: &str) -> bool {
    let Some(remembered) = key.strip_prefix("volatile.") else { return true };
    ["base_image", "uuid", "cloud-init.instance-id", "apply_template"].contains(&remembered)
        || remembered.ends_with(".hwaddr")
}

impl Document {
    /// `optimized` says whether the files are in the own form of the storage driver.
    pub(super) fn index(&self, optimized: bool) -> Result<String, Error> {
        yaml(&Index {
            name: &self.container.name,
            backend: &self.pool.driver,
            pool: &self.pool.name,
            snapshots: self.names().collect(),
            optimized,
            optimized_header: optimized,
            kind: "container",
            config: self,
        })
    }

    /// The names of the snapshots, oldest first.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.snapshots.iter().map(|snapshot| snapshot.name.as_str())
    }

    pub(super) fn render(&self) -> Result<String, Error> {
        yaml(self)
    }
}

fn yaml(document: &impl Serialize) -> Result<String, Error> {
    serde_yaml::to_string(document).map_err(|source| Error::Document { source })
}

/// The metadata of an image of this instance: what is in `metadata.yaml`. `made_at` is in seconds since 1970.
pub(crate) fn metadata(row: &rows::Instance, kept: rows::Templates, made_at: i64) -> Metadata {
    let templates = image_metadata::named(kept.templates);
    Metadata {
        architecture: row.architecture.clone(),
        creation_date: made_at,
        expiry_date: 0,
        properties: kept
            .about
            .map_or_else(|| image_metadata::properties(&row.config), |about| about.properties),
        templates: templates.into_iter().map(template).collect(),
    }
}

fn template(row: rows::Template) -> Template {
    Template {
        path: row.path,
        when: row.when,
        name: row.name,
        create_only: row.create_only,
        uid: row.uid,
        gid: row.gid,
        mode: row.mode,
        properties: row.properties,
        content: row.content,
    }
}

/// Seconds since 1970 of a time as it is kept; now when it is none.
pub(super) fn seconds(time: &str) -> i64 {
    time.parse::<Timestamp>().unwrap_or_else(|_| Timestamp::now()).as_second()
}
