//! `/1.0/projects`. Only `default` exists for now.

use cabin_api::storage::ConfigPut;
use cabin_core::project;

use crate::call::Call;
use crate::error::Fault;
use crate::recursion::{self, address};
use crate::reply::Reply;

/// GET of the list.
pub async fn list(call: Call) -> Result<Reply, Fault> {
    let found = call.blocking(|host| project::list(host)).await?;
    recursion::list(&call, &found, |project| address("/1.0/projects", &project.name))
}

/// GET of one.
pub async fn show(call: Call) -> Result<Reply, Fault> {
    let name = call.name("name").to_owned();
    let found = call.blocking(move |host| project::get(host, &name)).await?;
    Reply::tagged(&found, project::tag(&found))
}

/// PUT.
pub async fn update(mut call: Call) -> Result<Reply, Fault> {
    let put: ConfigPut = call.json().await?;
    let (name, tag) = (call.name("name").to_owned(), call.if_match());
    call.blocking(move |host| project::update(host, &name, &put, tag.as_deref())).await?;
    Ok(Reply::empty())
}

/// PATCH.
pub async fn patch(mut call: Call) -> Result<Reply, Fault> {
    let body = call.object().await?;
    let (name, tag) = (call.name("name").to_owned(), call.if_match());
    call.blocking(move |host| project::patch(host, &name, body, tag.as_deref())).await?;
    Ok(Reply::empty())
}
