//! `/1.0/instances/{name}/backups`, and instances that are made from a backup.

use std::fs::File;
use std::sync::Arc;

use cabin_api::backup::{InstanceBackupPost, InstanceBackupsPost};
use cabin_core::instance::{self, Wishes};
use cabin_core::{Host, Op};
use futures_util::StreamExt as _;
use http::{HeaderValue, header};
use serde_json::Value;
use tokio::time::timeout;

use crate::call::Call;
use crate::error::Fault;
use crate::handlers::instances::resources;
use crate::recursion::{self, address};
use crate::reply::Reply;
use crate::stream::Stream;
use crate::{limits, send};

/// The instance and backup an address names.
fn named(call: &Call) -> (&'static str, String, String) {
    (call.project(), call.name("name").to_owned(), call.name("backup").to_owned())
}

fn base(instance: &str) -> String {
    format!("{}/backups", address("/1.0/instances", instance))
}

/// GET of the list.
pub async fn list(call: Call) -> Result<Reply, Fault> {
    let (project, name, _) = named(&call);
    let base = base(&name);
    let found = call.blocking(move |host| instance::backups(host, project, &name)).await?;
    recursion::list(&call, &found, |backup| address(&base, &backup.name))
}

/// GET of one.
pub async fn show(call: Call) -> Result<Reply, Fault> {
    let (project, name, backup) = named(&call);
    Reply::sync(&call.blocking(move |host| instance::backup(host, project, &name, &backup)).await?)
}

/// GET of the file.
pub async fn fetch(call: Call) -> Result<Reply, Fault> {
    let (project, name, backup) = named(&call);
    let (file, name) =
        call.blocking(move |host| instance::open_backup(host, project, &name, &backup)).await?;
    Ok(Reply::Raw(send::file(file, &name).await?))
}

/// POST: a new backup, kept here, or sent at once to who accepts that.
pub async fn create(mut call: Call) -> Result<Reply, Fault> {
    let mut post: InstanceBackupsPost = call.json().await?;
    if wants_bytes(&call) {
        return send_new(call, post).await;
    }
    let (project, name, _) = named(&call);
    let looked_up = name.clone();
    let post = call
        .blocking(move |host| {
            instance::check_new_backup(host, project, &looked_up, &mut post)?;
            Ok(post)
        })
        .await?;
    let mut touched = resources(&name);
    touched.push(("backups", address(&base(&name), &post.name)));
    let plan = call.plan("Backing up instance", touched);
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, op| {
        instance::create_backup(host, op, project, &name, &post)?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}

/// POST of a new name.
pub async fn rename(mut call: Call) -> Result<Reply, Fault> {
    let post: InstanceBackupPost = call.json().await?;
    let (project, name, old) = named(&call);
    let (instance, looked_up, new) = (name.clone(), old.clone(), post.name.clone());
    call.blocking(move |host| instance::check_rename_backup(host, project, &instance, &looked_up, &new))
        .await?;
    let plan = call.plan("Renaming instance backup", resources(&name));
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, op| {
        instance::rename_backup(host, op, project, &name, &old, &post.name)?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}

/// DELETE.
pub async fn delete(call: Call) -> Result<Reply, Fault> {
    let (project, name, backup) = named(&call);
    let (instance, looked_up) = (name.clone(), backup.clone());
    call.blocking(move |host| instance::backup(host, project, &instance, &looked_up)).await?;
    let plan = call.plan("Removing instance backup", resources(&name));
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, op| {
        instance::delete_backup(host, Some(op), project, &name, &backup)?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}

/// Whether the backup is to be sent while it is made.
pub(crate) fn wants_bytes(call: &Call) -> bool {
    let accepted =
        call.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split([',', ';']).any(|kind| kind.trim() == "application/octet-stream")
}

async fn send_new(call: Call, post: InstanceBackupsPost) -> Result<Reply, Fault> {
    let (project, name) = (call.project(), call.name("name").to_owned());
    let asked = name.clone();
    let export = call.blocking(move |host| instance::export(host, project, &asked, &post)).await?;
    let file = format!("{name}{}", export.extension());
    let mut response = send::written(move |out| export.write(out).map(drop).map_err(|error| error.report()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_DISPOSITION, send::disposition("inline", &file)?);
    Ok(Reply::Raw(response))
}

/// How much of a backup is looked at first, in bytes; its index is at the beginning.
const HEAD: usize = 256 * 1024;
/// The most that is looked at.
const MAX_HEAD: usize = 32 * 1024 * 1024;

/// POST on the list of instances, with a backup for its body.
pub async fn import(call: Call) -> Result<Reply, Fault> {
    let wishes = wishes(&call)?;
    let project = call.project();
    let look = move |host: &Arc<Host>, head: &[u8]| instance::look(host, project, head, &wishes);
    take_in(call, look, move |call, planned, input| {
        let plan = call.plan("Restoring backup", resources(planned.name()));
        call.app.host.operations().run(&call.app.host, plan, move |host, op| {
            instance::import(host, op, project, planned, input)?;
            Ok(Value::Null)
        })
    })
    .await
}

/// Reads a backup from the body: `look` sees as much of its beginning as it needs, then `begin` starts the operation
/// that reads all of it.
pub(crate) async fn take_in<T: Send + 'static>(
    mut call: Call,
    look: impl Fn(&Arc<Host>, &[u8]) -> Result<Option<T>, cabin_core::Error> + Clone + Send + 'static,
    begin: impl FnOnce(&Call, T, File) -> Arc<Op>,
) -> Result<Reply, Fault> {
    let mut chunks = call.take_body().into_data_stream();
    let mut head: Vec<u8> = Vec::new();
    let mut wanted = HEAD;
    let planned = loop {
        let mut ended = false;
        while head.len() < wanted && !ended {
            match timeout(limits::UPLOAD_IDLE, chunks.next()).await.map_err(|_| Fault::BodyTooSlow)? {
                Some(chunk) => head.extend_from_slice(&chunk.map_err(|source| Fault::BodyRead { source })?),
                None => ended = true,
            }
        }
        let (looked_at, look) = (head, look.clone());
        let (found, given_back) = call.blocking(move |host| Ok((look(host, &looked_at)?, looked_at))).await?;
        head = given_back;
        match found {
            Some(planned) => break planned,
            None if ended || wanted >= MAX_HEAD => {
                return Err(Fault::invalid("the backup ends before its index does"));
            }
            None => wanted *= 4,
        }
    };
    let act = "make a pipe for the backup";
    let (input, pipe) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| Fault::io(act)(e.into()))?;
    let pipe = Stream::new(pipe).map_err(Fault::io(act))?;
    let op = begin(&call, planned, input.into());
    // Nobody reading any more means that the operation has failed, and says why.
    let mut goes_on = pipe.write_all(&head).await.is_ok();
    let mut left = limits::IMAGE;
    while goes_on {
        let Ok(next) = timeout(limits::UPLOAD_IDLE, chunks.next()).await else { break };
        let Some(Ok(chunk)) = next else { break };
        left = left.checked_sub(chunk.len() as u64).ok_or(Fault::UploadTooLarge { limit: limits::IMAGE })?;
        goes_on = pipe.write_all(&chunk).await.is_ok();
    }
    Ok(Reply::Async(op))
}

fn wishes(call: &Call) -> Result<Wishes, Fault> {
    let text = |name: &str| call.product_header(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let pairs = |name: &str| -> Vec<(String, String)> {
        form_urlencoded::parse(text(name).unwrap_or_default().as_bytes()).into_owned().collect()
    };
    let mut wishes = Wishes { name: text("name"), pool: text("pool"), ..Wishes::default() };
    wishes.config.extend(pairs("config"));
    for (device, properties) in pairs("devices") {
        let device = wishes.devices.entry(device).or_default();
        for pair in properties.split(',') {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| Fault::invalid("a device's properties must be KEY=VALUE"))?;
            device.insert(key.to_owned(), value.to_owned());
        }
    }
    Ok(wishes)
}
