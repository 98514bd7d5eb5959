//! `rebuild`: a new root filesystem, from an image or empty, under the same name and config. Snapshots stay.

use std::sync::Arc;

use cabin_api::StatusCode;
use cabin_api::instance::InstanceSource;
use cabin_storage::VolumeName;
use cabin_store::rows::{self, Config, Intent};
use cabin_undo::atomically;
use serde_json::Value;

use super::{WHAT, address, create, intent, load, status, turn};
use crate::{Error, Host, Op, image, storage};

/// Refuses at once what can be seen to fail.
///
/// # Errors
/// When there is no such instance or image, or the instance runs.
pub fn check_rebuild(host: &Host, project: &str, name: &str, source: &InstanceSource) -> Result<(), Error> {
    load(host, project, name)?;
    check_stopped(host, name)?;
    match source.kind.as_str() {
        "none" => Ok(()),
        "image" if source.server.is_empty() || source.protocol == "build" => {
            image::resolve(host, project, source).map(drop)
        }
        "image" => {
            let what = format!("the image server `{}`", source.server);
            let reason = "this version makes instances from local images and shipped definitions";
            Err(Error::Unsupported { what, reason })
        }
        "" => Err(Error::invalid("no source was given: use an image, or `--empty`")),
        other => {
            let what = format!("rebuilding from source type `{other}`");
            Err(Error::Unsupported { what, reason: "an instance is rebuilt from an image or empty" })
        }
    }
}

fn check_stopped(host: &Host, name: &str) -> Result<(), Error> {
    match status(host, name) {
        StatusCode::Stopped => Ok(()),
        _ => Err(Error::WrongStatus { name: name.to_owned(), action: "rebuild", status: "running" }),
    }
}

/// Gives a stopped instance a new root filesystem. A crash leaves the old one or the new one.
///
/// # Errors
/// As [`check_rebuild`]; when the image cannot be built or unpacked; when the host refuses.
pub fn rebuild(
    host: &Arc<Host>,
    op: &Op,
    project: &str,
    name: &str,
    source: &InstanceSource,
) -> Result<(), Error> {
    let _turn = turn(host, project, name, "rebuild")?;
    check_rebuild(host, project, name, source)?;
    let now = load(host, project, name)?;
    let image = match source.kind.as_str() {
        "image" => Some(image::obtain(host, op, project, image::resolve(host, project, source)?)?),
        _ => None,
    };
    let pool = storage::pool(host, &now.row.pool)?;
    if let Some(image) = &image {
        // Told as what it is when it failed because somebody deleted it meanwhile.
        let unpacked = image::ensure_unpacked(host, op, &pool, image);
        unpacked.or_else(|why| image::still_here(host, image).and(Err(why)))?;
    }
    let volume = VolumeName::container(name)?;
    let mark = uuid::Uuid::new_v4().to_string();
    let templates = image.as_ref().map(|image| image.row.templates.clone()).unwrap_or_default();
    let fingerprint = image.as_ref().map(|image| image.fingerprint.as_str());
    let config = rebuilt(now.row.config, image.as_ref());
    let going_on = Intent::Rebuild { mark: mark.clone(), config, templates };
    // Until it is taken back, too, if it must be: what is staged stands on the image, and would go without a look at it.
    let kept = host.keep_layout();
    if let Some(image) = &image {
        image::still_here_in(host, &pool, image)?;
    }
    atomically(|undo| -> Result<(), Error> {
        intent::note(host, project, name, &going_on, undo)?;
        pool.stage_rebuild(&volume, fingerprint, &mark, undo)?.show(undo)?;
        commit(host, project, name, &going_on)
    })?;
    drop(kept);
    let forgotten = pool.forget_replaced(&volume);
    host.events().lifecycle(project, "instance-rebuilt", &address(name), name, Value::Null, op.requestor());
    forgotten.map_err(|source| Error::LeftBehind {
        left: format!("the old files of instance `{name}`, which is rebuilt"),
        source: Box::new(source.into()),
    })
}

/// The config afterwards: what told of the old image tells of the new one.
fn rebuilt(mut config: Config, image: Option<&image::Resolved>) -> Config {
    config.retain(|key, _| !key.starts_with("image.") && key != "volatile.base_image");
    let mut fresh = create::volatile(image);
    // It stays the same instance, and is told that its time was turned back.
    fresh.remove("volatile.uuid");
    config.extend(fresh);
    config
}

/// The rows after a rebuild whose tree is in place.
pub(super) fn commit(host: &Host, project: &str, name: &str, going_on: &Intent) -> Result<(), Error> {
    let Intent::Rebuild { config, templates, .. } = going_on else { return Ok(()) };
    let now = load(host, project, name)?;
    let row = rows::Instance { config: config.clone(), ..now.row };
    let templates = rows::Templates { templates: templates.clone(), ..rows::Templates::default() };
    let txn = host.store().begin().update(project, name, now.revision, &row)?;
    match txn.write(project, name, &templates)?.remove::<Intent>(project, name).commit() {
        Err(cabin_store::Error::Changed { .. }) => Err(Error::Changed { what: WHAT, name: name.to_owned() }),
        other => Ok(other.map(drop)?),
    }
}
