//! `/1.0/storage-pools/{name}/volumes`: volumes of a pool, and what is done with custom ones.

use cabin_api::storage::Volume;
use cabin_api::volume::{VolumePost, VolumePut, VolumeState, VolumesPost};
use cabin_core::{storage, volume};
use serde_json::Value;

use crate::call::Call;
use crate::error::Fault;
use crate::handlers::volume_backups;
use crate::recursion::{self, address};
use crate::reply::Reply;

/// The pool and volume an address names.
pub(crate) fn named(call: &Call) -> (&'static str, String, String) {
    (call.project(), call.name("name").to_owned(), call.name("volume").to_owned())
}

pub(crate) fn base(pool: &str) -> String {
    format!("{}/volumes", address("/1.0/storage-pools", pool))
}

/// What an operation on a volume touches.
pub(crate) fn resources(pool: &str, volume: &str) -> Vec<(&'static str, String)> {
    vec![("storage_volumes", address(&format!("{}/custom", base(pool)), volume))]
}

/// GET of all volumes of a pool.
pub async fn list(call: Call) -> Result<Reply, Fault> {
    list_of(call, None).await
}

/// GET of the volumes of one type.
pub async fn list_of_type(call: Call) -> Result<Reply, Fault> {
    let kind = kind(&call)?;
    list_of(call, Some(kind)).await
}

async fn list_of(call: Call, kind: Option<&'static str>) -> Result<Reply, Fault> {
    let pool = call.name("name").to_owned();
    let base = base(&pool);
    if call.query("recursion") == Some("2") {
        let project = call.project();
        let full = call.blocking(move |host| {
            let found = storage::volumes(host, &pool, kind)?;
            Ok(found.into_iter().map(|found| volume::full(host, project, &pool, found)).collect::<Vec<_>>())
        });
        return Reply::sync(&full.await?);
    }
    let found = call.blocking(move |host| storage::volumes(host, &pool, kind)).await?;
    recursion::list(&call, &found, |volume| {
        let base = format!("{base}/{}", volume.kind);
        match volume.name.split_once('/') {
            Some((volume, snapshot)) => address(&format!("{}/snapshots", address(&base, volume)), snapshot),
            None => address(&base, &volume.name),
        }
    })
}

/// GET of one.
pub async fn show(call: Call) -> Result<Reply, Fault> {
    let found = find(&call).await?;
    let tag = volume::tag(&found);
    if call.query("recursion").is_none_or(|depth| matches!(depth, "" | "0")) {
        return Reply::tagged(&found, tag);
    }
    let (project, pool, _) = named(&call);
    let full = call.blocking(move |host| Ok(volume::full(host, project, &pool, found))).await?;
    Reply::tagged(&full, tag)
}

/// GET of what one uses; a volume without a limit has no total.
pub async fn state(call: Call) -> Result<Reply, Fault> {
    let found = find(&call).await?;
    let (project, pool, name) = named(&call);
    let usage = match found.kind.as_str() {
        "custom" => Some(call.blocking(move |host| volume::usage(host, project, &pool, &name)).await?),
        _ => None,
    };
    Reply::sync(&VolumeState { usage })
}

/// POST of a new one.
pub async fn create(mut call: Call) -> Result<Reply, Fault> {
    if call.content_type() == "application/octet-stream" {
        return volume_backups::import(call).await;
    }
    let mut post: VolumesPost = call.json().await?;
    if call.parts.uri.path().ends_with("/volumes") {
        only_custom(if post.kind.is_empty() { "custom" } else { &post.kind })?;
    } else {
        only_custom(kind(&call)?)?;
        "custom".clone_into(&mut post.kind);
    }
    let (project, pool, _) = named(&call);
    if !post.source.name.is_empty() {
        return copy(call, post).await;
    }
    let made = address(&format!("{}/custom", base(&pool)), &post.name);
    call.blocking(move |host| volume::create(host, project, &pool, &post)).await?;
    Ok(Reply::Created(made))
}

/// POST of one that is a copy.
async fn copy(call: Call, post: VolumesPost) -> Result<Reply, Fault> {
    let (project, pool, _) = named(&call);
    let (in_pool, looked_up) = (pool.clone(), post.clone());
    call.blocking(move |host| volume::check_copy(host, project, &in_pool, &looked_up)).await?;
    let plan = call.plan("Copying storage volume", resources(&pool, &post.name));
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, op| {
        volume::copy(host, op, project, &pool, &post)?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}

/// POST of a new name (done at once), or of another pool.
pub async fn rename(mut call: Call) -> Result<Reply, Fault> {
    only_custom(kind(&call)?)?;
    let post: VolumePost = call.json().await?;
    if post.migration {
        return Err(Fault::NotYet { what: "moving a volume to another server" });
    }
    if !matches!(post.project.as_str(), "" | cabin_core::DEFAULT_PROJECT) {
        return Err(Fault::NoProject { name: post.project });
    }
    let (project, pool, old) = named(&call);
    let new_pool = if post.pool.is_empty() { pool.clone() } else { post.pool };
    let new = if post.name.is_empty() { old.clone() } else { post.name };
    if new_pool == pool {
        let made = address(&format!("{}/custom", base(&pool)), &new);
        call.blocking(move |host| volume::rename(host, project, &pool, &old, &new)).await?;
        return Ok(Reply::Created(made));
    }
    let checked = (pool.clone(), old.clone(), new_pool.clone(), new.clone());
    call.blocking(move |host| {
        volume::check_rename(host, project, (&checked.0, &checked.1), (&checked.2, &checked.3))
    })
    .await?;
    let plan = call.plan("Moving storage volume", resources(&pool, &old));
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, _| {
        volume::move_to(host, project, (&pool, &old), (&new_pool, &new))?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}

/// PUT: description and config, or a snapshot to go back to.
pub async fn update(mut call: Call) -> Result<Reply, Fault> {
    let kind = kind(&call)?;
    if kind != "container" {
        only_custom(kind)?;
    }
    let put: VolumePut = call.json().await?;
    let (project, pool, name) = named(&call);
    if kind == "container" {
        let tag = call.if_match();
        call.blocking(move |host| volume::update_own(host, project, &pool, &name, put, tag.as_deref()))
            .await?;
        return Ok(Reply::empty());
    }
    if !put.restore.is_empty() {
        // Incus takes the whole name too.
        let whole = format!("{name}/");
        let snapshot = put.restore.strip_prefix(&whole).unwrap_or(&put.restore).to_owned();
        call.blocking(move |host| volume::restore(host, project, (&pool, &name, &snapshot))).await?;
        return Ok(Reply::empty());
    }
    let tag = call.if_match();
    call.blocking(move |host| volume::update(host, project, &pool, &name, put, tag.as_deref())).await?;
    Ok(Reply::empty())
}

/// PATCH.
pub async fn patch(mut call: Call) -> Result<Reply, Fault> {
    let patch = match kind(&call)? {
        "container" => volume::patch_own,
        kind => only_custom(kind).map(|()| volume::patch)?,
    };
    let body = call.object().await?;
    let (project, pool, name) = named(&call);
    let tag = call.if_match();
    call.blocking(move |host| patch(host, project, &pool, &name, body, tag.as_deref())).await?;
    Ok(Reply::empty())
}

/// DELETE.
pub async fn delete(call: Call) -> Result<Reply, Fault> {
    only_custom(kind(&call)?)?;
    let (project, pool, name) = named(&call);
    call.blocking(move |host| volume::delete(host, project, &pool, &name)).await?;
    Ok(Reply::empty())
}

/// The volume an address names.
pub(crate) async fn find(call: &Call) -> Result<Volume, Fault> {
    let kind = kind(call)?;
    let (project, pool, name) = named(call);
    call.blocking(move |host| match kind {
        "custom" => volume::get(host, project, &pool, &name),
        "container" => volume::own(host, project, &pool, &name),
        _ => storage::volume_of_image(host, &pool, &name),
    })
    .await
}

/// The type of volume an address names.
pub(crate) fn kind(call: &Call) -> Result<&'static str, Fault> {
    match call.name("type") {
        "container" => Ok("container"),
        "image" => Ok("image"),
        "custom" => Ok("custom"),
        other => Err(Fault::invalid(format!("`{other}` is no type of volume"))),
    }
}

/// Volumes of instances and images are made, moved and deleted with these.
pub(crate) fn only_custom(kind: &str) -> Result<(), Fault> {
    match kind {
        "custom" => Ok(()),
        kind => Err(Fault::invalid(format!("volumes of type `{kind}` are not changed by themselves"))),
    }
}
