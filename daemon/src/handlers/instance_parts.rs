//! What hangs below an instance: console log, logs, recorded output, and the lists that are still empty.

use std::fs::File;

use axum::body::Body;
use axum::response::Response;
use cabin_core::instance;
use http::{HeaderValue, header};

use crate::call::Call;
use crate::error::Fault;
use crate::recursion::address;
use crate::reply::Reply;
use crate::send;

/// GET of what the console said.
pub async fn console_log(call: Call) -> Result<Reply, Fault> {
    let (project, name) = (call.project(), call.name("name").to_owned());
    let said = call.blocking(move |host| instance::console_log(host, project, &name)).await?;
    let mut response = Response::new(Body::from(said));
    let octets = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, octets);
    Ok(Reply::Raw(response))
}

/// DELETE of what the console said.
pub async fn clear_console_log(call: Call) -> Result<Reply, Fault> {
    let (project, name) = (call.project(), call.name("name").to_owned());
    call.blocking(move |host| instance::clear_console_log(host, project, &name)).await?;
    Ok(Reply::empty())
}

/// GET of the list of log files.
pub async fn logs(call: Call) -> Result<Reply, Fault> {
    let (project, name) = (call.project(), call.name("name").to_owned());
    let base = format!("{}/logs", address("/1.0/instances", &name));
    let files = call.blocking(move |host| instance::logs(host, project, &name)).await?;
    Reply::sync(&files.iter().map(|file| address(&base, file)).collect::<Vec<_>>())
}

/// GET of a log file.
pub async fn log(call: Call) -> Result<Reply, Fault> {
    let file = call.name("file").to_owned();
    let (project, name) = (call.project(), call.name("name").to_owned());
    let open = call.blocking(move |host| instance::read_log(host, project, &name, &file)).await?;
    answer(&call, open).await
}

/// DELETE of a log file.
pub async fn delete_log(call: Call) -> Result<Reply, Fault> {
    let (project, name, file) = (call.project(), call.name("name").to_owned(), call.name("file").to_owned());
    call.blocking(move |host| instance::delete_log(host, project, &name, &file)).await?;
    Ok(Reply::empty())
}

/// GET of the list of recorded outputs.
pub async fn outputs(call: Call) -> Result<Reply, Fault> {
    let (project, name) = (call.project(), call.name("name").to_owned());
    let base = format!("{}/logs/exec-output", address("/1.0/instances", &name));
    let files = call.blocking(move |host| instance::list_exec_output(host, project, &name)).await?;
    Reply::sync(&files.iter().map(|file| address(&base, file)).collect::<Vec<_>>())
}

/// GET of a recorded output.
pub async fn output(call: Call) -> Result<Reply, Fault> {
    let file = call.name("file").to_owned();
    let (project, name) = (call.project(), call.name("name").to_owned());
    let open = call.blocking(move |host| instance::read_exec_output(host, project, &name, &file)).await?;
    answer(&call, open).await
}

/// DELETE of a recorded output.
pub async fn delete_output(call: Call) -> Result<Reply, Fault> {
    let (project, name, file) = (call.project(), call.name("name").to_owned(), call.name("file").to_owned());
    call.blocking(move |host| instance::delete_exec_output(host, project, &name, &file)).await?;
    Ok(Reply::empty())
}

async fn answer(call: &Call, open: File) -> Result<Reply, Fault> {
    Ok(Reply::Raw(send::file(open, call.name("file")).await?))
}
