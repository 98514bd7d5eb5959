//! `/1.0/warnings`.

use cabin_api::warning::WarningPut;
use cabin_core::warning;

use crate::call::Call;
use crate::error::Fault;
use crate::recursion::{self, address};
use crate::reply::Reply;

const BASE: &str = "/1.0/warnings";

/// GET of the list.
pub async fn list(call: Call) -> Result<Reply, Fault> {
    let found = call.blocking(|host| warning::list(host)).await?;
    recursion::list(&call, &found, |warning| address(BASE, &warning.uuid))
}

/// GET of one.
pub async fn show(call: Call) -> Result<Reply, Fault> {
    let uuid = call.name("uuid").to_owned();
    let found = call.blocking(move |host| warning::get(host, &uuid)).await?;
    Reply::tagged(&found, warning::tag(&found))
}

/// PUT and PATCH: there is one thing to change.
pub async fn update(mut call: Call) -> Result<Reply, Fault> {
    let put: WarningPut = call.json().await?;
    let uuid = call.name("uuid").to_owned();
    call.blocking(move |host| warning::update(host, &uuid, &put)).await?;
    Ok(Reply::empty())
}

/// DELETE.
pub async fn delete(call: Call) -> Result<Reply, Fault> {
    let uuid = call.name("uuid").to_owned();
    call.blocking(move |host| warning::delete(host, &uuid)).await?;
    Ok(Reply::empty())
}
