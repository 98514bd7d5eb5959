//! `/1.0/storage-pools/{name}/volumes/{type}/{volume}/snapshots`: snapshots of a volume. Those of an instance's are looked
//! at and described here, and made, kept and deleted as the instance's.

use cabin_api::volume::{VolumeSnapshotPost, VolumeSnapshotPut, VolumeSnapshotsPost};
use cabin_core::volume;
use serde_json::Value;

use super::volumes::{base, find, kind, named, only_custom, resources};
use crate::call::Call;
use crate::error::Fault;
use crate::recursion::{self, address};
use crate::reply::Reply;

/// The snapshot an address names.
fn one(call: &Call) -> Result<(&'static str, String, String, String), Fault> {
    only_custom(kind(call)?)?;
    Ok(any(call))
}

fn any(call: &Call) -> (&'static str, String, String, String) {
    let (project, pool, volume) = named(call);
    (project, pool, volume, call.name("snapshot").to_owned())
}

/// GET of the list.
pub async fn list(call: Call) -> Result<Reply, Fault> {
    let (found, (project, pool, name)) = (find(&call).await?, named(&call));
    let kind = found.kind;
    let base = format!("{}/snapshots", address(&format!("{}/{kind}", base(&pool)), &name));
    let found = call.blocking(move |host| volume::snapshots_in(host, project, (&pool, &kind, &name))).await?;
    recursion::list(&call, &found, |snapshot| {
        address(&base, snapshot.name.split_once('/').map_or(snapshot.name.as_str(), |(_, name)| name))
    })
}

/// POST of a new one.
pub async fn create(mut call: Call) -> Result<Reply, Fault> {
    let (project, pool, name, _) = one(&call)?;
    let mut post: VolumeSnapshotsPost = call.json().await?;
    let (in_pool, looked_up) = (pool.clone(), name.clone());
    let post = call
        .blocking(move |host| {
            volume::check_new_snapshot(host, project, &in_pool, &looked_up, &mut post)?;
            Ok(post)
        })
        .await?;
    let mut touched = resources(&pool, &name);
    let snapshots = format!("{}/snapshots", address(&format!("{}/custom", base(&pool)), &name));
    touched.push(("storage_volume_snapshots", address(&snapshots, &post.name)));
    let plan = call.plan("Snapshotting storage volume", touched);
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, op| {
        volume::create_snapshot(host, Some(op), project, &pool, &name, &post)?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}

/// GET of one.
pub async fn show(call: Call) -> Result<Reply, Fault> {
    let (kind, (project, pool, name)) = (find(&call).await?.kind, named(&call));
    let snapshot = call.name("snapshot").to_owned();
    let found = call
        .blocking(move |host| volume::snapshot_in(host, project, (&pool, &kind, &name), &snapshot))
        .await?;
    Reply::tagged(&found, volume::snapshot_tag(&found))
}

/// PUT and PATCH: description, and when it is to go.
pub async fn update(mut call: Call) -> Result<Reply, Fault> {
    let kind = kind(&call)?;
    let update = match kind {
        "container" => volume::update_own_snapshot,
        kind => only_custom(kind).map(|()| volume::update_snapshot)?,
    };
    let (project, pool, name, snapshot) = any(&call);
    let body = call.object().await?;
    let sent: VolumeSnapshotPut =
        serde_json::from_value(body.clone()).map_err(|error| Fault::invalid(error.to_string()))?;
    let tag = call.if_match();
    let patch = call.parts.method == http::Method::PATCH;
    call.blocking(move |host| {
        let named = (pool.as_str(), name.as_str(), snapshot.as_str());
        let now = volume::snapshot_in(host, project, (&pool, kind, &name), &snapshot)?;
        let keep = |field: &str| patch && body.get(field).is_none();
        let put = VolumeSnapshotPut {
            description: if keep("description") { now.description } else { sent.description },
            expires_at: if keep("expires_at") { now.expires_at.unwrap_or_default() } else { sent.expires_at },
        };
        update(host, project, named, &put, tag.as_deref())
    })
    .await?;
    Ok(Reply::empty())
}

/// POST of a new name.
pub async fn rename(mut call: Call) -> Result<Reply, Fault> {
    let (project, pool, name, old) = one(&call)?;
    let post: VolumeSnapshotPost = call.json().await?;
    if post.migration {
        return Err(Fault::NotYet { what: "moving a snapshot to another server" });
    }
    let (in_pool, looked_up, from, to) = (pool.clone(), name.clone(), old.clone(), post.name.clone());
    call.blocking(move |host| {
        volume::check_rename_snapshot(host, project, (&in_pool, &looked_up, &from), &to)
    })
    .await?;
    let plan = call.plan("Renaming storage volume snapshot", resources(&pool, &name));
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, op| {
        volume::rename_snapshot(host, op, project, (&pool, &name, &old), &post.name)?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}

/// DELETE.
pub async fn delete(call: Call) -> Result<Reply, Fault> {
    let (project, pool, name, snapshot) = one(&call)?;
    let (in_pool, looked_up, of) = (pool.clone(), snapshot.clone(), name.clone());
    call.blocking(move |host| volume::snapshot(host, project, (&in_pool, &of, &looked_up))).await?;
    let plan = call.plan("Deleting storage volume snapshot", resources(&pool, &name));
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, op| {
        volume::delete_snapshot(host, Some(op), project, (&pool, &name, &snapshot))?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}
