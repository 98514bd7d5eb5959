//! `/1.0/profiles`.

use cabin_api::profile::{ProfilePut, ProfilesPost, RenamePost};
use cabin_core::profile;

use crate::call::Call;
use crate::error::Fault;
use crate::recursion::{self, address};
use crate::reply::Reply;

const BASE: &str = "/1.0/profiles";

/// GET of the list.
pub async fn list(call: Call) -> Result<Reply, Fault> {
    let project = call.project();
    let found = call.blocking(move |host| profile::list(host, project)).await?;
    recursion::list(&call, &found, |profile| address(BASE, &profile.name))
}

/// GET of one.
pub async fn show(call: Call) -> Result<Reply, Fault> {
    let (project, name) = (call.project(), call.name("name").to_owned());
    let found = call.blocking(move |host| profile::get(host, project, &name)).await?;
    Reply::tagged(&found, profile::tag(&found))
}

/// POST of a new one.
pub async fn create(mut call: Call) -> Result<Reply, Fault> {
    let post: ProfilesPost = call.json().await?;
    let (project, made) = (call.project(), address(BASE, &post.name));
    call.blocking(move |host| profile::create(host, project, post)).await?;
    Ok(Reply::Created(made))
}

/// PUT.
pub async fn update(mut call: Call) -> Result<Reply, Fault> {
    let put: ProfilePut = call.json().await?;
    let (project, name, tag) = (call.project(), call.name("name").to_owned(), call.if_match());
    call.blocking(move |host| profile::update(host, project, &name, put, tag.as_deref())).await?;
    Ok(Reply::empty())
}

/// PATCH.
pub async fn patch(mut call: Call) -> Result<Reply, Fault> {
    let body = call.object().await?;
    let (project, name, tag) = (call.project(), call.name("name").to_owned(), call.if_match());
    call.blocking(move |host| profile::patch(host, project, &name, body, tag.as_deref())).await?;
    Ok(Reply::empty())
}

/// POST of a new name.
pub async fn rename(mut call: Call) -> Result<Reply, Fault> {
    let post: RenamePost = call.json().await?;
    let (project, name, made) = (call.project(), call.name("name").to_owned(), address(BASE, &post.name));
    call.blocking(move |host| profile::rename(host, project, &name, &post.name)).await?;
    Ok(Reply::Created(made))
}

/// DELETE.
pub async fn delete(call: Call) -> Result<Reply, Fault> {
    let (project, name) = (call.project(), call.name("name").to_owned());
    call.blocking(move |host| profile::delete(host, project, &name)).await?;
    Ok(Reply::empty())
}
