//! `/1.0/storage-pools`.

use cabin_api::storage::{ConfigPut, PoolsPost};
use cabin_core::storage;

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
