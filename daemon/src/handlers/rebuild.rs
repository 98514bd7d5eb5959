//! `/1.0/instances/{name}/rebuild`.

use cabin_api::rebuild::InstanceRebuildPost;
use cabin_core::instance;
use serde_json::Value;

use crate::call::Call;
use crate::error::Fault;
use crate::handlers::instances::resources;
use crate::reply::Reply;

/// POST of a new root filesystem.
pub async fn create(mut call: Call) -> Result<Reply, Fault> {
    let post: InstanceRebuildPost = call.json().await?;
    let (project, name) = (call.project(), call.name("name").to_owned());
    let (looked_up, source) = (name.clone(), post.source.clone());
    call.blocking(move |host| instance::check_rebuild(host, project, &looked_up, &source)).await?;
    let plan = call.plan("Rebuilding instance", resources(&name));
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, op| {
        instance::rebuild(host, op, project, &name, &post.source)?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}
