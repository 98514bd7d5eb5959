//! `/1.0/storage-pools` and the volumes in them.

use cabin_api::storage::{ConfigPut, PoolsPost, Volume};
use cabin_core::storage;
use serde_json::json;

use crate::call::Call;
use crate::error::Fault;
use crate::recursion::{self, address};
use crate::reply::Reply;

const BASE: &str = "/1.0/storage-pools";

/// GET of the list.
pub async fn list(call: Call) -> Result<Reply, Fault> {
    let found = call.blocking(|host| storage::list(host)).await?;
    recursion::list(&call, &found, |pool| address(BASE, &pool.name))
}

/// GET of one.
pub async fn show(call: Call) -> Result<Reply, Fault> {
    let name = call.name("name").to_owned();
    let found = call.blocking(move |host| storage::get(host, &name)).await?;
    Reply::tagged(&found, storage::tag(&found))
}

/// POST of a new one.
pub async fn create(mut call: Call) -> Result<Reply, Fault> {
    let post: PoolsPost = call.json().await?;
    let made = address(BASE, &post.name);
    call.blocking(move |host| storage::create(host, post)).await?;
    Ok(Reply::Created(made))
}

/// PUT.
pub async fn update(mut call: Call) -> Result<Reply, Fault> {
    let put: ConfigPut = call.json().await?;
    let (name, tag) = (call.name("name").to_owned(), call.if_match());
    call.blocking(move |host| storage::update(host, &name, put, tag.as_deref())).await?;
    Ok(Reply::empty())
}

/// PATCH.
pub async fn patch(mut call: Call) -> Result<Reply, Fault> {
    let body = call.object().await?;
    let (name, tag) = (call.name("name").to_owned(), call.if_match());
    call.blocking(move |host| storage::patch(host, &name, body, tag.as_deref())).await?;
    Ok(Reply::empty())
}

/// DELETE.
pub async fn delete(call: Call) -> Result<Reply, Fault> {
    let name = call.name("name").to_owned();
    call.blocking(move |host| storage::delete(host, &name)).await?;
    Ok(Reply::empty())
}

/// GET of what a pool has left.
pub async fn resources(call: Call) -> Result<Reply, Fault> {
    let name = call.name("name").to_owned();
    Reply::sync(&call.blocking(move |host| storage::resources(host, &name)).await?)
}

/// GET of all volumes of a pool.
pub async fn volumes(call: Call) -> Result<Reply, Fault> {
    volumes_of(call, None).await
}

/// GET of the volumes of one type.
pub async fn volumes_of_type(call: Call) -> Result<Reply, Fault> {
    let kind = kind(&call)?;
    volumes_of(call, Some(kind)).await
}

async fn volumes_of(call: Call, kind: Option<&'static str>) -> Result<Reply, Fault> {
    let pool = call.name("name").to_owned();
    let base = address(BASE, &pool);
    let found = call.blocking(move |host| storage::volumes(host, &pool, kind)).await?;
    recursion::list(&call, &found, |volume| address(&format!("{base}/volumes/{}", volume.kind), &volume.name))
}

/// GET of one volume.
pub async fn volume(call: Call) -> Result<Reply, Fault> {
    let found = find(&call).await?;
    Reply::tagged(&found, cabin_core::etag(&(&found.name, &found.kind, &found.config)))
}

/// GET of what a volume uses; a volume without a limit has no total.
pub async fn volume_state(call: Call) -> Result<Reply, Fault> {
    find(&call).await?;
    Ok(Reply::Sync(json!({ "usage": null })))
}

/// Everything that would make or change a volume of its own.
pub async fn not_yet(_call: Call) -> Result<Reply, Fault> {
    Err(Fault::NotYet { what: "making or changing custom volumes" })
}

async fn find(call: &Call) -> Result<Volume, Fault> {
    let kind = kind(call)?;
    let (pool, name) = (call.name("name").to_owned(), call.name("volume").to_owned());
    call.blocking(move |host| storage::volume(host, &pool, kind, &name)).await
}

fn kind(call: &Call) -> Result<&'static str, Fault> {
    match call.name("type") {
        "container" => Ok("container"),
        "image" => Ok("image"),
        "custom" => Ok("custom"),
        other => Err(Fault::invalid(format!("`{other}` is no type of volume"))),
    }
}
