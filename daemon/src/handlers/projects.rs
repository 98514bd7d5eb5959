//! `/1.0/projects`. Only `default` exists for now.

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
    Reply::tagged(&found, cabin_core::etag(&(&found.description, &found.config)))
}
