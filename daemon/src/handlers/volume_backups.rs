//! `/1.0/storage-pools/{name}/volumes/custom/{volume}/backups`, and volumes that are made from a backup.

use std::sync::Arc;

use cabin_api::backup::InstanceBackupPost;
use cabin_api::volume::VolumeBackupsPost;
use cabin_core::{Host, volume};
use http::{HeaderValue, header};
use serde_json::Value;

use super::backups::{take_in, wants_bytes};
use super::volumes::{base, kind, named, only_custom, resources};
use crate::call::Call;
use crate::error::Fault;
use crate::recursion::{self, address};
use crate::reply::Reply;
use crate::send;

/// The backup an address names.
fn one(call: &Call) -> Result<(&'static str, String, String, String), Fault> {
    only_custom(kind(call)?)?;
    let (project, pool, volume) = named(call);
    Ok((project, pool, volume, call.name("backup").to_owned()))
}

fn root(pool: &str, volume: &str) -> String {
    format!("{}/backups", address(&format!("{}/custom", base(pool)), volume))
}

/// GET of the list.
pub async fn list(call: Call) -> Result<Reply, Fault> {
    let (project, pool, name, _) = one(&call)?;
    let root = root(&pool, &name);
    let found = call.blocking(move |host| volume::backups(host, project, &pool, &name)).await?;
    recursion::list(&call, &found, |backup| address(&root, &backup.name))
}

/// GET of one.
pub async fn show(call: Call) -> Result<Reply, Fault> {
    let (project, pool, name, backup) = one(&call)?;
    Reply::sync(&call.blocking(move |host| volume::backup(host, project, (&pool, &name, &backup))).await?)
}

/// GET of the file.
pub async fn fetch(call: Call) -> Result<Reply, Fault> {
    let (project, pool, name, backup) = one(&call)?;
    let (file, name) =
        call.blocking(move |host| volume::open_backup(host, project, (&pool, &name, &backup))).await?;
    Ok(Reply::Raw(send::file(file, &name).await?))
}

/// POST: a new backup, kept here, or sent at once to who accepts that.
pub async fn create(mut call: Call) -> Result<Reply, Fault> {
    let (project, pool, name, _) = one(&call)?;
    let mut post: VolumeBackupsPost = call.json().await?;
    if wants_bytes(&call) {
        return send_new(call, post).await;
    }
    let (in_pool, looked_up) = (pool.clone(), name.clone());
    let post = call
        .blocking(move |host| {
            volume::check_new_backup(host, project, &in_pool, &looked_up, &mut post)?;
            Ok(post)
        })
        .await?;
    let mut touched = resources(&pool, &name);
    // LXD's client 5.0 takes the name from behind this address, newer ones of both from behind the last `/`.
    touched.push(("backups", address("/1.0/backups", &post.name)));
    touched.push(("backups", address(&root(&pool, &name), &post.name)));
    let plan = call.plan("Backing up storage volume", touched);
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, op| {
        volume::create_backup(host, op, project, (&pool, &name), &post)?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}

/// POST of a new name.
pub async fn rename(mut call: Call) -> Result<Reply, Fault> {
    let (project, pool, name, old) = one(&call)?;
    let post: InstanceBackupPost = call.json().await?;
    let (looked_up, new) = ((pool.clone(), name.clone(), old.clone()), post.name.clone());
    call.blocking(move |host| {
        volume::check_rename_backup(host, project, (&looked_up.0, &looked_up.1, &looked_up.2), &new)
    })
    .await?;
    let plan = call.plan("Renaming storage volume backup", resources(&pool, &name));
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, op| {
        volume::rename_backup(host, op, project, (&pool, &name, &old), &post.name)?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}

/// DELETE.
pub async fn delete(call: Call) -> Result<Reply, Fault> {
    let (project, pool, name, backup) = one(&call)?;
    let looked_up = (pool.clone(), name.clone(), backup.clone());
    call.blocking(move |host| volume::backup(host, project, (&looked_up.0, &looked_up.1, &looked_up.2)))
        .await?;
    let plan = call.plan("Removing storage volume backup", resources(&pool, &name));
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, op| {
        volume::delete_backup(host, Some(op), project, (&pool, &name, &backup))?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}

async fn send_new(call: Call, post: VolumeBackupsPost) -> Result<Reply, Fault> {
    let (project, pool, name) = named(&call);
    let asked = name.clone();
    let export = call.blocking(move |host| volume::export(host, project, &pool, &asked, &post)).await?;
    let file = format!("{name}{}", export.extension());
    let mut response = send::written(move |out| export.write(out).map(drop).map_err(|error| error.report()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_DISPOSITION, send::disposition("inline", &file)?);
    Ok(Reply::Raw(response))
}

/// POST on the list of volumes, with a backup for its body.
pub async fn import(call: Call) -> Result<Reply, Fault> {
    if call.product_header("type").is_some_and(|kind| !matches!(kind, "" | "backup")) {
        return Err(Fault::invalid(
            "only backups are made into volumes: containers have no use for an ISO image",
        ));
    }
    let (project, pool, _) = named(&call);
    let name = call.product_header("name").unwrap_or_default().to_owned();
    let in_pool = pool.clone();
    let look =
        move |host: &Arc<Host>, head: &[u8]| volume::look_at_backup(host, project, &in_pool, &name, head);
    take_in(call, look, move |call, planned, input| {
        let plan = call.plan("Restoring storage volume backup", resources(&pool, planned.name()));
        call.app.host.operations().run(&call.app.host, plan, move |host, op| {
            volume::import(host, op, project, planned, input)?;
            Ok(Value::Null)
        })
    })
    .await
}
