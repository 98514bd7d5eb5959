//! `/`, `/1.0` and what describes the server.

use cabin_api::server::ServerPut;
use cabin_core::{hardware, server};
use serde_json::{Value, json};

use crate::call::Call;
use crate::error::Fault;
use crate::reply::Reply;
use crate::{openapi, routes};

/// GET of `/`: the versions of the API.
pub async fn versions(_call: Call) -> Result<Reply, Fault> {
    Ok(Reply::Sync(json!(["/1.0"])))
}

/// GET of the server.
pub async fn show(call: Call) -> Result<Reply, Fault> {
    let (who, project) = (call.who.clone(), call.project());
    let found = call.blocking(move |host| server::get(host, &who, project)).await?;
    let tag = server::tag(&found);
    Reply::tagged(&found, tag)
}

/// PUT of the server's config.
pub async fn update(mut call: Call) -> Result<Reply, Fault> {
    let put: ServerPut = call.json().await?;
    let tag = call.if_match();
    call.blocking(move |host| server::update(host, put, tag.as_deref())).await?;
    Ok(Reply::empty())
}

/// PATCH of the server's config.
pub async fn patch(mut call: Call) -> Result<Reply, Fault> {
    let put: ServerPut = call.json().await?;
    let tag = call.if_match();
    call.blocking(move |host| server::patch(host, put, tag.as_deref())).await?;
    Ok(Reply::empty())
}

/// GET of the hardware.
pub async fn resources(call: Call) -> Result<Reply, Fault> {
    Ok(Reply::Sync(call.blocking(|_| Ok(hardware::resources())).await?))
}

/// GET of every config key there is.
pub async fn configuration(_call: Call) -> Result<Reply, Fault> {
    Ok(Reply::Sync(server::metadata_configuration()))
}

/// GET of the description of this API.
pub async fn describe(_call: Call) -> Result<Reply, Fault> {
    Ok(Reply::Raw(openapi::response(&routes::table())))
}

/// GET of the cluster: there is none.
pub async fn cluster(_call: Call) -> Result<Reply, Fault> {
    let none = json!({"server_name": "", "enabled": false, "member_config": []});
    let tag = cabin_core::etag(&none);
    Ok(Reply::Tagged(none, tag))
}

/// GET of a list that is empty on this server.
pub async fn nothing(_call: Call) -> Result<Reply, Fault> {
    Ok(Reply::Sync(Value::Array(Vec::new())))
}

/// Trust is not built yet: only the unix socket is served.
pub async fn no_trust(_call: Call) -> Result<Reply, Fault> {
    Err(Fault::NotYet { what: "trusting clients by certificate" })
}

/// Whatever is asked of one certificate: there are none.
pub async fn no_certificate(call: Call) -> Result<Reply, Fault> {
    Err(Fault::NotFound { what: "certificate", name: call.name("fingerprint").to_owned() })
}
