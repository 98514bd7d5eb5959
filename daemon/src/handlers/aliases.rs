//! `/1.0/images/aliases`. Names may hold `/`, written as it is or as `%2F`.

use cabin_api::image::{ImageAliasPut, ImageAliasesEntry};
use cabin_api::profile::RenamePost;
use cabin_core::image;

use crate::call::Call;
use crate::error::Fault;
use crate::recursion::{self, address};
use crate::reply::Reply;

const BASE: &str = "/1.0/images/aliases";

/// GET of the list.
pub async fn list(call: Call) -> Result<Reply, Fault> {
    let found = call.blocking(|host| image::aliases(host)).await?;
    recursion::list(&call, &found, |alias| address(BASE, &alias.name))
}

/// GET of one.
pub async fn show(call: Call) -> Result<Reply, Fault> {
    let name = call.name("name").to_owned();
    let found = call.blocking(move |host| image::alias(host, &name)).await?;
    Reply::tagged(&found, image::alias_tag(&found))
}

/// POST of a new one.
pub async fn create(mut call: Call) -> Result<Reply, Fault> {
    let entry: ImageAliasesEntry = call.json().await?;
    let made = address(BASE, &entry.name);
    call.blocking(move |host| image::create_alias(host, entry)).await?;
    Ok(Reply::Created(made))
}

/// PUT.
pub async fn update(call: Call) -> Result<Reply, Fault> {
    change(call, false).await
}

/// PATCH.
pub async fn patch(call: Call) -> Result<Reply, Fault> {
    change(call, true).await
}

async fn change(mut call: Call, keep_missing: bool) -> Result<Reply, Fault> {
    let put: ImageAliasPut = call.json().await?;
    let (name, tag) = (call.name("name").to_owned(), call.if_match());
    call.blocking(move |host| image::update_alias(host, &name, put, tag.as_deref(), keep_missing)).await?;
    Ok(Reply::empty())
}

/// POST of a new name.
pub async fn rename(mut call: Call) -> Result<Reply, Fault> {
    let post: RenamePost = call.json().await?;
    let (name, made) = (call.name("name").to_owned(), address(BASE, &post.name));
    call.blocking(move |host| image::rename_alias(host, &name, &post.name)).await?;
    Ok(Reply::Created(made))
}

/// DELETE.
pub async fn delete(call: Call) -> Result<Reply, Fault> {
    let name = call.name("name").to_owned();
    call.blocking(move |host| image::delete_alias(host, &name)).await?;
    Ok(Reply::empty())
}
