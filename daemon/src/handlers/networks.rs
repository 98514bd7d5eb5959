//! `/1.0/networks`.

use cabin_api::network::NetworksPost;
use cabin_api::profile::RenamePost;
use cabin_api::storage::ConfigPut;
use cabin_core::network;

use crate::call::Call;
use crate::error::Fault;
use crate::recursion::{self, address};
use crate::reply::Reply;

const BASE: &str = "/1.0/networks";

/// GET of the list.
pub async fn list(call: Call) -> Result<Reply, Fault> {
    let found = call.blocking(|host| network::list(host)).await?;
    recursion::list(&call, &found, |network| address(BASE, &network.name))
}

/// GET of one.
pub async fn show(call: Call) -> Result<Reply, Fault> {
    let name = call.name("name").to_owned();
    let found = call.blocking(move |host| network::get(host, &name)).await?;
    Reply::tagged(&found, network::tag(&found))
}

/// POST of a new one.
pub async fn create(mut call: Call) -> Result<Reply, Fault> {
    let post: NetworksPost = call.json().await?;
    let made = address(BASE, &post.name);
    call.blocking(move |host| network::create(host, post)).await?;
    Ok(Reply::Created(made))
}

/// PUT.
pub async fn update(mut call: Call) -> Result<Reply, Fault> {
    let put: ConfigPut = call.json().await?;
    let (name, tag) = (call.name("name").to_owned(), call.if_match());
    call.blocking(move |host| network::update(host, &name, put, tag.as_deref())).await?;
    Ok(Reply::empty())
}

/// PATCH.
pub async fn patch(mut call: Call) -> Result<Reply, Fault> {
    let body = call.object().await?;
    let (name, tag) = (call.name("name").to_owned(), call.if_match());
    call.blocking(move |host| network::patch(host, &name, body, tag.as_deref())).await?;
    Ok(Reply::empty())
}

/// POST of a new name.
pub async fn rename(mut call: Call) -> Result<Reply, Fault> {
    let post: RenamePost = call.json().await?;
    let (name, made) = (call.name("name").to_owned(), address(BASE, &post.name));
    call.blocking(move |host| network::rename(host, &name, &post.name)).await?;
    Ok(Reply::Created(made))
}

/// DELETE.
pub async fn delete(call: Call) -> Result<Reply, Fault> {
    let name = call.name("name").to_owned();
    call.blocking(move |host| network::delete(host, &name)).await?;
    Ok(Reply::empty())
}

/// GET of the addresses given out.
pub async fn leases(call: Call) -> Result<Reply, Fault> {
    let name = call.name("name").to_owned();
    Reply::sync(&call.blocking(move |host| network::leases(host, &name)).await?)
}

/// GET of the addresses that networks and instances have.
pub async fn allocations(call: Call) -> Result<Reply, Fault> {
    Reply::sync(&call.blocking(|host| network::allocations(host)).await?)
}

/// GET of what the interface does.
pub async fn state(call: Call) -> Result<Reply, Fault> {
    let name = call.name("name").to_owned();
    Reply::sync(&call.blocking(move |host| network::state(host, &name)).await?)
}
