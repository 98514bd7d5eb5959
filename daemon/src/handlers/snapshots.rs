//! `/1.0/instances/{name}/snapshots`: snapshots of an instance.

use cabin_api::instance::InstancePut;
use cabin_api::snapshot::{InstanceSnapshotPost, InstanceSnapshotPut, InstanceSnapshotsPost};
use cabin_core::instance::{self, Extent};
use serde_json::Value;

use crate::call::Call;
use crate::error::Fault;
use crate::handlers::instances::resources;
use crate::recursion::{self, address};
use crate::reply::Reply;

/// The instance and snapshot an address names.
fn named(call: &Call) -> (&'static str, String, String) {
    (call.project(), call.name("name").to_owned(), call.name("snapshot").to_owned())
}

fn base(instance: &str) -> String {
    format!("{}/snapshots", address("/1.0/instances", instance))
}

/// GET of the list.
pub async fn list(call: Call) -> Result<Reply, Fault> {
    let (project, name, _) = named(&call);
    let base = base(&name);
    let found = call.blocking(move |host| instance::snapshots(host, project, &name)).await?;
    recursion::list(&call, &found, |snapshot| address(&base, &snapshot.name))
}

/// POST of a new one.
pub async fn create(mut call: Call) -> Result<Reply, Fault> {
    let mut post: InstanceSnapshotsPost = call.json().await?;
    let (project, name, _) = named(&call);
    let looked_up = name.clone();
    let post = call
        .blocking(move |host| {
            instance::check_new_snapshot(host, project, &looked_up, &mut post)?;
            Ok(post)
        })
        .await?;
    let mut touched = resources(&name);
    touched.push(("instances_snapshots", address(&base(&name), &post.name)));
    let plan = call.plan("Snapshotting instance", touched);
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, op| {
        instance::create_snapshot(host, op, project, &name, &post)?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}

/// GET of one.
pub async fn show(call: Call) -> Result<Reply, Fault> {
    let (project, name, snapshot) = named(&call);
    let found = call.blocking(move |host| instance::snapshot(host, project, &name, &snapshot)).await?;
    Reply::tagged(&found, instance::snapshot_tag(&found))
}

/// PUT and PATCH: when it is to go.
pub async fn update(mut call: Call) -> Result<Reply, Fault> {
    let body = call.object().await?;
    let said = match body.get("expires_at") {
        None => None,
        Some(Value::Null) => Some(String::new()),
        Some(Value::String(at)) => Some(at.clone()),
        Some(_) => return Err(Fault::invalid("`expires_at` is no text")),
    };
    if let Some(at) = &said {
        instance::check_expiry(at).map_err(Fault::Core)?;
    }
    let (project, name, snapshot) = named(&call);
    let tag = call.if_match();
    let (instance, looked_up) = (name.clone(), snapshot.clone());
    let now = call.blocking(move |host| instance::snapshot(host, project, &instance, &looked_up)).await?;
    if tag.as_ref().is_some_and(|tag| *tag != instance::snapshot_tag(&now)) {
        return Err(Fault::Changed);
    }
    let expires_at = match said {
        None if call.parts.method == http::Method::PATCH => now.expires_at,
        said => said.unwrap_or_default(),
    };
    let put = InstanceSnapshotPut { expires_at };
    let plan = call.plan("Updating snapshot", resources(&name));
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, op| {
        instance::update_snapshot(host, op, project, &name, &snapshot, &put, tag.as_deref())?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}

/// POST of a new name.
pub async fn rename(mut call: Call) -> Result<Reply, Fault> {
    let post: InstanceSnapshotPost = call.json().await?;
    if post.migration {
        return Err(Fault::NotYet { what: "moving a snapshot to another server" });
    }
    let (project, name, old) = named(&call);
    let (instance, looked_up, new) = (name.clone(), old.clone(), post.name.clone());
    call.blocking(move |host| instance::check_rename_snapshot(host, project, &instance, &looked_up, &new))
        .await?;
    let plan = call.plan("Renaming snapshot", resources(&name));
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, op| {
        instance::rename_snapshot(host, op, project, &name, &old, &post.name)?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}

/// DELETE.
pub async fn delete(call: Call) -> Result<Reply, Fault> {
    let (project, name, snapshot) = named(&call);
    let (instance, looked_up) = (name.clone(), snapshot.clone());
    call.blocking(move |host| instance::snapshot(host, project, &instance, &looked_up)).await?;
    let plan = call.plan("Deleting snapshot", resources(&name));
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, op| {
        instance::delete_snapshot(host, Some(op), project, &name, &snapshot)?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}

/// PUT of an instance that is to go back to a snapshot.
pub async fn restore(call: Call, put: InstancePut) -> Result<Reply, Fault> {
    if put.stateful {
        return Err(Fault::NotYet { what: "bringing memory back" });
    }
    let (project, name, _) = named(&call);
    // Incus takes the whole name too.
    let whole = format!("{name}/");
    let snapshot = put.restore.strip_prefix(&whole).unwrap_or(&put.restore).to_owned();
    let what = Extent { disk_only: put.disk_only, volumes: put.volumes };
    let (instance, looked_up) = (name.clone(), snapshot.clone());
    call.blocking(move |host| instance::check_restore(host, project, &instance, &looked_up, what)).await?;
    let plan = call.plan("Restoring snapshot", resources(&name));
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, op| {
        instance::restore(host, op, project, &name, &snapshot, what)?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}
