//! Replies: the envelopes of the API, and the only place that knows HTTP codes.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use cabin_core::{Kind, Op};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::error::Fault;

/// What a handler answers with.
pub enum Reply {
    /// The object or list asked for.
    Sync(Value),
    /// A list that is JSON already: long ones are written once, and not built as a tree before.
    List(Box<RawValue>),
    /// An object that can be changed, with the tag its changes are checked against.
    Tagged(Value, String),
    /// A new object was made at this address.
    Created(String),
    /// Work goes on.
    Async(Arc<Op>),
    /// Anything that comes without an envelope.
    Raw(Response),
}

impl Reply {
    /// Done, nothing to tell.
    #[must_use]
    pub fn empty() -> Reply {
        Reply::Sync(json!({}))
    }

    /// An object or list.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn sync(value: &impl Serialize) -> Result<Reply, Fault> {
        Ok(Reply::Sync(to_value(value)?))
    }

    /// A list of objects.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn list(objects: &[impl Serialize]) -> Result<Reply, Fault> {
        serde_json::value::to_raw_value(objects).map(Reply::List).map_err(|source| Fault::Reply { source })
    }

    /// An object that can be changed.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn tagged(value: &impl Serialize, tag: String) -> Result<Reply, Fault> {
        Ok(Reply::Tagged(to_value(value)?, tag))
    }

    /// The reply as it goes over the wire.
    #[must_use]
    pub fn render(self) -> Response {
        match self {
            Reply::Sync(metadata) => envelope(StatusCode::OK, sync_body(&metadata), &[]),
            Reply::List(metadata) => envelope(StatusCode::OK, sync_body(&metadata), &[]),
            Reply::Tagged(metadata, tag) => {
                envelope(StatusCode::OK, sync_body(&metadata), &[(header::ETAG, format!("\"{tag}\""))])
            }
            Reply::Created(address) => {
                envelope(StatusCode::CREATED, sync_body(&json!({})), &[(header::LOCATION, address)])
            }
            Reply::Async(op) => {
                let address = format!("/1.0/operations/{}", op.id());
                let body = json!({
                    "type": "async",
                    "status": cabin_api::StatusCode::OperationCreated.text(),
                    "status_code": u16::from(cabin_api::StatusCode::OperationCreated),
                    "operation": address,
                    "error_code": 0,
                    "error": "",
                    "metadata": op.show_to_creator(),
                });
                envelope(StatusCode::ACCEPTED, body.to_string(), &[(header::LOCATION, address)])
            }
            Reply::Raw(response) => response,
        }
    }
}

/// A value as JSON.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn to_value(value: &impl Serialize) -> Result<Value, Fault> {
    serde_json::to_value(value).map_err(|source| Fault::Reply { source })
}

/// The error envelope for a fault. Failures of the daemon or host are logged here, once.
#[must_use]
pub fn error(fault: &Fault) -> Response {
    let code = code(fault);
    let text = fault.report();
    if code == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(code = code.as_u16(), error = %text, "request failed");
    }
    envelope(code, error_body(&text, code), &[])
}

/// The whole HTTP message for a client that comes when no connection is left.
#[must_use]
pub fn too_many_connections() -> Vec<u8> {
    unavailable("too many connections")
}

/// The same for one that comes when the daemon has no descriptor left.
#[must_use]
pub fn no_descriptor() -> Vec<u8> {
    let why = io::Error::from(rustix::io::Errno::MFILE);
    let advice = cabin_core::shortage(&why).unwrap_or_default();
    unavailable(&format!("cannot take a connection: {why} ({advice})"))
}

fn unavailable(why: &str) -> Vec<u8> {
    let body = error_body(why, StatusCode::SERVICE_UNAVAILABLE);
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A switch of protocols, the connection is then the handler's.
#[must_use]
pub fn switching_to(protocol: &'static str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static(protocol));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response
}

/// The envelope of what is done at once.
#[derive(Serialize)]
struct Done<'a, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    status: &'static str,
    status_code: u16,
    operation: &'static str,
    error_code: u16,
    error: &'static str,
    metadata: &'a T,
}

fn sync_body(metadata: &impl Serialize) -> String {
    let done = Done {
        kind: "sync",
        status: cabin_api::StatusCode::Success.text(),
        status_code: cabin_api::StatusCode::Success.into(),
        operation: "",
        error_code: 0,
        error: "",
        metadata,
    };
    // What is in it was JSON before.
    serde_json::to_string(&done).unwrap_or_default()
}

fn error_body(text: &str, code: StatusCode) -> String {
    let body = json!({
        "type": "error",
        "status": "",
        "status_code": 0,
        "operation": "",
        "error_code": code.as_u16(),
        "error": text,
        "metadata": null,
    });
    body.to_string()
}

fn envelope(code: StatusCode, body: String, headers: &[(header::HeaderName, String)]) -> Response {
    let mut response = Response::new(Body::from(body + "\n"));
    *response.status_mut() = code;
    let map = response.headers_mut();
    map.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            map.insert(name, value);
        }
    }
    response
}

fn code(fault: &Fault) -> StatusCode {
    match code_of_act(fault) {
        StatusCode::INTERNAL_SERVER_ERROR if cabin_core::shortage(fault).is_some() => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        code => code,
    }
}

fn code_of_act(fault: &Fault) -> StatusCode {
    match fault {
        Fault::Core(error) => match error.kind() {
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::Invalid => StatusCode::BAD_REQUEST,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            // Incus answers 400 when an instance is busy with something else.
            Kind::Busy => StatusCode::BAD_REQUEST,
            Kind::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Kind::Unsupported => StatusCode::NOT_IMPLEMENTED,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        },
        Fault::BodyTooLarge { .. } | Fault::UploadTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Fault::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
        Fault::BodyRead { .. }
        | Fault::BodyInvalid { .. }
        | Fault::Field { .. }
        | Fault::Multipart { .. }
        | Fault::Invalid { .. } => StatusCode::BAD_REQUEST,
        Fault::NotFound { .. } | Fault::NoProject { .. } | Fault::UnknownMethod { .. } => {
            StatusCode::NOT_FOUND
        }
        Fault::NotImplemented { .. } | Fault::NotYet { .. } => StatusCode::NOT_IMPLEMENTED,
        Fault::Forbidden { .. } => StatusCode::FORBIDDEN,
        Fault::Changed => StatusCode::PRECONDITION_FAILED,
        Fault::Starting => StatusCode::SERVICE_UNAVAILABLE,
        Fault::File { source, .. } => file_code(&source.0),
        Fault::Io { .. } | Fault::Reply { .. } | Fault::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn file_code(error: &russh_sftp::client::error::Error) -> StatusCode {
    use russh_sftp::client::error::Error;
    use russh_sftp::protocol::StatusCode as Sftp;
    match error {
        Error::Status(status) => match status.status_code {
            Sftp::NoSuchFile => StatusCode::NOT_FOUND,
            Sftp::PermissionDenied => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        },
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_fault_has_its_code() {
        for (fault, expected) in [
            (Fault::Core(cabin_core::Error::not_found("instance", "web")), 404),
            (Fault::Core(cabin_core::Error::invalid("no")), 400),
            (Fault::BodyTooLarge { limit: 1 }, 413),
            (Fault::NoProject { name: "x".into() }, 404),
            (Fault::NotImplemented { method: "PUT".into() }, 501),
            (Fault::Changed, 412),
            (Fault::Panicked, 500),
            (Fault::Io { act: "write", source: std::io::Error::from_raw_os_error(28) }, 503),
            (Fault::Io { act: "write", source: std::io::Error::from_raw_os_error(5) }, 500),
        ] {
            assert_eq!(error(&fault).status().as_u16(), expected, "{fault:?}");
        }
    }

    #[test]
    fn a_made_object_is_answered_with_its_address() {
        let reply = Reply::Created("/1.0/profiles/x".into()).render();
        assert_eq!(reply.status(), StatusCode::CREATED);
        assert_eq!(reply.headers()[header::LOCATION], "/1.0/profiles/x");
    }
}
