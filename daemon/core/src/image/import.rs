//! Taking an image in: its files wait in a staging place until they are read, hashed and written down.

use std::fs::File;
use std::sync::Arc;

use cabin_api::{UNIX_ZERO, image as api};
use cabin_store::rows;
use cabin_undo::{atomically, fault};
use serde_json::Value;

use super::{WHAT, address, get};
use crate::{DEFAULT_PROJECT, Error, Host, Op, clock, limits};

/// Files of an image that is on its way in. What is not imported is removed when this is dropped.
pub struct Staging {
    host: Arc<Host>,
    meta: String,
    rootfs: String,
    split: bool,
}

/// What the sender says about an image.
#[derive(Debug, Clone, Default)]
pub struct Hints {
    /// Whether anybody may read it.
    pub public: bool,
    /// The file name for downloads.
    pub filename: String,
    /// Properties laid over the image's own.
    pub properties: rows::Config,
    /// Aliases to make.
    pub aliases: Vec<api::ImageAlias>,
    /// What the fingerprint must be.
    pub fingerprint: String,
    /// Profiles given to instances made from it.
    pub profiles: Vec<String>,
    /// The shipped definition it was built from.
    pub built_from: String,
}

/// A place for the files of an image that comes in.
///
/// # Errors
/// When there are too many images.
pub fn stage(host: &Arc<Host>) -> Result<Staging, Error> {
    let present = host.store().rows::<rows::Image>().list(DEFAULT_PROJECT)?.len();
    limits::one_more("images", present, limits::IMAGES)?;
    let id = uuid::Uuid::new_v4();
    Ok(Staging {
        host: host.clone(),
        meta: format!("images/.staging-{id}"),
        rootfs: format!("images/.staging-{id}.rootfs"),
        split: false,
    })
}

impl Staging {
    /// The file for the unified tarball, or the metadata tarball of a split image.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn meta(&self) -> Result<File, Error> {
        let made = self.host.dir().create_file(&self.meta, 0o600);
        made.map_err(Error::io("make a file for the image"))
    }

    /// The file for the rootfs of a split image.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn rootfs(&mut self) -> Result<File, Error> {
        self.split = true;
        let made = self.host.dir().create_file(&self.rootfs, 0o600);
        made.map_err(Error::io("make a file for the image's rootfs"))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After an import the names are gone already, and gone is success.
        let _ = self.host.dir().remove_file(&self.meta);
        let _ = self.host.dir().remove_file(&self.rootfs);
    }
}

/// Takes a staged image in.
///
/// # Errors
/// When it is no image, is there already, its fingerprint is another, or an alias is taken.
pub fn import(host: &Arc<Host>, op: &Op, staging: &Staging, hints: Hints) -> Result<api::Image, Error> {
    for alias in &hints.aliases {
        cabin_profiles::value::name::alias(&alias.name)?;
        if host.store().rows::<rows::Alias>().get(DEFAULT_PROJECT, &alias.name)?.is_some() {
            return Err(Error::Exists { what: "image alias", name: alias.name.clone() });
        }
    }
    let open = |name: &str| host.dir().open_file(name).map_err(Error::io("open the image's file"));
    let meta = open(&staging.meta)?;
    let rootfs = staging.split.then(|| open(&staging.rootfs)).transpose()?;
    let fingerprint = cabin_images::fingerprint(&meta, rootfs.as_ref())?.to_string();
    if !hints.fingerprint.is_empty() && hints.fingerprint != fingerprint {
        return Err(Error::invalid(format!(
            "the image's fingerprint is {fingerprint}, not {} as was said",
            hints.fingerprint
        )));
    }
    if host.store().rows::<rows::Image>().get(DEFAULT_PROJECT, &fingerprint)?.is_some() {
        return Err(Error::Exists { what: WHAT, name: fingerprint });
    }
    let found = host.unpacker().inspect(&meta)?;
    let row = row_of(found, &meta, rootfs.as_ref(), &hints)?;
    fault::pass("files of the image staged")?;
    keep(host, staging, &fingerprint, &row, &hints.aliases)?;
    let context = Value::Null;
    host.events().lifecycle(
        DEFAULT_PROJECT,
        "image-created",
        &address(&fingerprint),
        &fingerprint,
        context,
        op.requestor(),
    );
    get(host, &fingerprint)
}

/// The files get their names, then the rows are written.
fn keep(
    host: &Arc<Host>,
    staging: &Staging,
    fingerprint: &str,
    row: &rows::Image,
    aliases: &[api::ImageAlias],
) -> Result<(), Error> {
    let mut moves = vec![(staging.meta.clone(), format!("images/{fingerprint}"))];
    if staging.split {
        moves.push((staging.rootfs.clone(), format!("images/{fingerprint}.rootfs")));
    }
    for (from, to) in &moves {
        let synced = host.dir().open_file(from).and_then(|file| file.sync_all());
        synced.map_err(Error::io(format!("keep the image's file `{to}`")))?;
    }
    // The same image may be imported by somebody else, or deleted: its files belong to whose row it is.
    let _alone = host.change_layout();
    if host.store().rows::<rows::Image>().get(DEFAULT_PROJECT, fingerprint)?.is_some() {
        return Err(Error::Exists { what: WHAT, name: fingerprint.to_owned() });
    }
    atomically(|undo| -> Result<(), Error> {
        for (from, to) in moves {
            let act = || format!("keep the image's file `{to}`");
            // A file without a row is what a crash left; this one has the same name and so the same bytes.
            host.dir().remove_file(&to).map_err(Error::io(act()))?;
            host.dir().rename(&from, &to).map_err(Error::io(act()))?;
            let (again, name) = (host.clone(), to.clone());
            undo.push(format!("file `{to}`"), move || again.dir().remove_file(&name))?;
        }
        let mut txn = host.store().begin().insert(DEFAULT_PROJECT, fingerprint, row)?;
        for alias in aliases {
            let row = rows::Alias { description: alias.description.clone(), target: fingerprint.to_owned() };
            txn = txn.insert(DEFAULT_PROJECT, &alias.name, &row)?;
        }
        match txn.commit() {
            Err(cabin_store::Error::Changed { .. }) => {
                Err(Error::Exists { what: WHAT, name: fingerprint.to_owned() })
            }
            other => Ok(other.map(drop)?),
        }
    })?;
    Ok(())
}

fn row_of(
    found: cabin_images::Metadata,
    meta: &File,
    rootfs: Option<&File>,
    hints: &Hints,
) -> Result<rows::Image, Error> {
    let size =
        |file: &File| file.metadata().map(|meta| meta.len()).map_err(Error::io("read the image's size"));
    let mut properties = found.properties;
    properties.extend(hints.properties.clone());
    let expires_at = match found.expiry_date {
        0 => String::new(),
        seconds => clock::from_unix(seconds),
    };
    Ok(rows::Image {
        auto_update: false,
        properties,
        public: hints.public,
        expires_at: if expires_at == UNIX_ZERO { String::new() } else { expires_at },
        profiles: match hints.profiles.is_empty() {
            true => vec!["default".to_owned()],
            false => hints.profiles.clone(),
        },
        architecture: found.architecture,
        cached: false,
        filename: hints.filename.clone(),
        size: size(meta)? + rootfs.map(size).transpose()?.unwrap_or(0),
        split: rootfs.is_some(),
        created_at: clock::from_unix(found.creation_date),
        last_used_at: String::new(),
        uploaded_at: clock::now(),
        built_from: hints.built_from.clone(),
        templates: templates(found.templates),
    })
}

/// Templates as they are kept.
pub(crate) fn templates(found: Vec<cabin_images::Template>) -> Vec<rows::Template> {
    found
        .into_iter()
        .map(|template| rows::Template {
            path: template.path,
            when: template.when,
            create_only: template.create_only,
            uid: template.uid,
            gid: template.gid,
            mode: template.mode,
            properties: template.properties,
            content: template.content,
            name: template.name,
        })
        .collect()
}
