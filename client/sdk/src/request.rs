//! Requests and replies: JSON in, an envelope out, taken apart by its kind.

use cabin_api::operation::Operation;
use http::header::{CONTENT_TYPE, ETAG, HOST, IF_MATCH, USER_AGENT};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::connection::{Upgrade, Upgraded};
use crate::{Address, Body, Client, Error, Result, full_body};

/// The version of an object, to change only what was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(pub String);

/// An object and its version.
#[derive(Debug, Clone)]
pub struct Tagged<T> {
    /// The object.
    pub value: T,
    /// Its version, where the route has one.
    pub etag: Option<ETag>,
}

/// What a change gave back.
#[derive(Debug, Clone)]
pub enum Reply {
    /// It is done; the metadata.
    Done(Value),
    /// It is under way.
    Begun(Box<Operation>),
}

#[derive(Deserialize)]
struct Sync<T> {
    metadata: T,
}

#[derive(Deserialize)]
struct Either {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    metadata: Value,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    error: String,
}

const AGENT: &str = concat!("cabin ", env!("CARGO_PKG_VERSION"));

impl Client {
    /// Reads an object or list.
    ///
    /// # Errors
    /// When the daemon refuses or the reply is not a `T`.
    pub async fn get<T: DeserializeOwned>(&self, address: Address) -> Result<T> {
        self.get_tagged(address).await.map(|tagged| tagged.value)
    }

    /// Reads an object with its version.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get_tagged<T: DeserializeOwned>(&self, address: Address) -> Result<Tagged<T>> {
        let request = self.compose(&Method::GET, &address, None)?;
        let (response, connection) = self.exchange(request).await?;
        let etag = header(&response, ETAG.as_str()).map(ETag);
        let (_, bytes) = self.whole(&Method::GET, &address, response, connection).await?;
        let reply: Sync<T> = decode(&Method::GET, &address, &bytes)?;
        Ok(Tagged { value: reply.metadata, etag })
    }

    /// Makes something.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn post<B: Serialize>(&self, address: Address, body: &B) -> Result<Reply> {
        self.send(Method::POST, address, Some(body), None).await
    }

    /// Replaces something, if it still is what `etag` says.
    ///
    /// # Errors
    /// When the daemon refuses; [`crate::Kind::Changed`] when the version is another.
    pub async fn put<B: Serialize>(&self, address: Address, body: &B, etag: Option<&ETag>) -> Result<Reply> {
        self.send(Method::PUT, address, Some(body), etag).await
    }

    /// Changes parts of something.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub async fn patch<B: Serialize>(
        &self,
        address: Address,
        body: &B,
        etag: Option<&ETag>,
    ) -> Result<Reply> {
        self.send(Method::PATCH, address, Some(body), etag).await
    }

    /// Takes something away.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn delete(&self, address: Address) -> Result<Reply> {
        self.send::<()>(Method::DELETE, address, None, None).await
    }

    /// Any request with a JSON body.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn send<B: Serialize>(
        &self,
        method: Method,
        address: Address,
        body: Option<&B>,
        etag: Option<&ETag>,
    ) -> Result<Reply> {
        let encoded = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|source| Error::Encode { request: label(&method, &address), source })?;
        let mut request = self.compose(&method, &address, encoded.map(full_body))?;
        if let Some(tag) = etag.and_then(|tag| tag.0.parse().ok()) {
            request.headers_mut().insert(IF_MATCH, tag);
        }
        let (response, connection) = self.exchange(request).await?;
        let (_, bytes) = self.whole(&method, &address, response, connection).await?;
        into_reply(&method, &address, &bytes)
    }

    /// Sends a body that is not JSON.
    pub(crate) async fn send_body(
        &self,
        method: Method,
        address: Address,
        headers: &[(&'static str, String)],
        body: Body,
    ) -> Result<Reply> {
        let mut request = self.compose(&method, &address, Some(body))?;
        set_headers(&mut request, &label(&method, &address), headers)?;
        let (response, connection) = self.exchange(request).await?;
        let (_, bytes) = self.whole(&method, &address, response, connection).await?;
        into_reply(&method, &address, &bytes)
    }

    /// Asks and gives the reply as it comes: head and unread body. A refusal is an error.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn open_stream(&self, method: Method, address: &Address) -> Result<Response<Incoming>> {
        let request = self.compose(&method, address, None)?;
        let (response, connection) = self.exchange(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let refused = self.whole(&method, address, response, connection).await;
        refused.and(Err(Error::Unexpected { request: label(&method, address), expected: "a success" }))
    }

    /// As [`Client::open_stream`], with a body and more headers.
    pub(crate) async fn open_stream_of<B: Serialize>(
        &self,
        method: Method,
        address: &Address,
        body: &B,
        headers: &[(&'static str, String)],
    ) -> Result<Response<Incoming>> {
        let encode = |source| Error::Encode { request: label(&method, address), source };
        let encoded = serde_json::to_vec(body).map_err(encode)?;
        let mut request = self.compose(&method, address, Some(full_body(encoded)))?;
        set_headers(&mut request, &label(&method, address), headers)?;
        let (response, connection) = self.exchange(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let refused = self.whole(&method, address, response, connection).await;
        refused.and(Err(Error::Unexpected { request: label(&method, address), expected: "a success" }))
    }

    /// Asks for another protocol on a connection of its own.
    pub(crate) async fn switch(&self, address: &Address, protocol: &'static str) -> Result<Upgraded> {
        let mut request = self.compose(&Method::GET, address, None)?;
        let asked = [("connection", "Upgrade".to_owned()), ("upgrade", protocol.to_owned())];
        set_headers(&mut request, &label(&Method::GET, address), &asked)?;
        match self.upgrade(request).await? {
            Upgrade::Agreed(stream) => Ok(stream),
            Upgrade::Refused(response, connection) => {
                let refused = self.whole(&Method::GET, address, response, connection).await;
                refused.and(Err(Error::Unexpected {
                    request: label(&Method::GET, address),
                    expected: "another protocol",
                }))
            }
        }
    }

    /// The text the daemon sends, envelope and all, whatever its code. For `query`.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn raw(
        &self,
        method: Method,
        address: &Address,
        body: Option<String>,
    ) -> Result<(u16, String)> {
        let request = self.compose(&method, address, body.map(full_body))?;
        let (response, connection) = self.exchange(request).await?;
        let code = response.status().as_u16();
        let bytes = self.read(&method, address, response, connection).await?;
        Ok((code, String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn compose(&self, method: &Method, address: &Address, body: Option<Body>) -> Result<Request<Body>> {
        let target = match self.project() {
            Some(project) => address.clone().query("project", project),
            None => address.clone(),
        };
        let json = body.is_some();
        let mut builder = Request::builder()
            .method(method)
            .uri(target.as_str())
            .header(HOST, "cabin")
            .header(USER_AGENT, AGENT);
        if json {
            builder = builder.header(CONTENT_TYPE, "application/json");
        }
        if self.is_timed() {
            builder = builder.header("X-Cabin-timings", "1");
        }
        builder
            .body(body.unwrap_or_else(|| full_body("")))
            .map_err(|source| Error::Compose { request: label(method, address), source })
    }

    /// Reads a reply to its end and gives the connection back. A refusal is an error.
    async fn whole(
        &self,
        method: &Method,
        address: &Address,
        response: Response<Incoming>,
        connection: SendRequest<Body>,
    ) -> Result<(http::HeaderMap, bytes::Bytes)> {
        let status = response.status();
        let headers = response.headers().clone();
        let bytes = self.read(method, address, response, connection).await?;
        if status.is_success() {
            return Ok((headers, bytes));
        }
        Err(refusal(status, &bytes))
    }

    async fn read(
        &self,
        method: &Method,
        address: &Address,
        response: Response<Incoming>,
        connection: SendRequest<Body>,
    ) -> Result<bytes::Bytes> {
        let collected = response.into_body().collect().await;
        let bytes = collected
            .map_err(|source| Error::Exchange { request: label(method, address), source })?
            .to_bytes();
        self.put_back(connection);
        Ok(bytes)
    }
}

fn label(method: &Method, address: &Address) -> String {
    format!("{method} {address}")
}

/// The error in a reply that is not a success; its words are kept.
pub(crate) fn refusal(status: http::StatusCode, bytes: &[u8]) -> Error {
    let text = match serde_json::from_slice::<Refusal>(bytes) {
        Ok(refusal) if !refusal.error.is_empty() => refusal.error,
        _ => match String::from_utf8_lossy(bytes).trim() {
            "" => status.to_string(),
            text => text.chars().take(500).collect(),
        },
    };
    Error::Refused { code: status.as_u16(), text }
}

fn decode<T: DeserializeOwned>(method: &Method, address: &Address, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|source| Error::Decode { request: label(method, address), source })
}

fn into_reply(method: &Method, address: &Address, bytes: &[u8]) -> Result<Reply> {
    let either: Either = decode(method, address, bytes)?;
    if either.kind != "async" {
        return Ok(Reply::Done(either.metadata));
    }
    let operation = serde_json::from_value(either.metadata)
        .map_err(|source| Error::Decode { request: label(method, address), source })?;
    Ok(Reply::Begun(Box::new(operation)))
}

pub(crate) fn set_headers(
    request: &mut Request<Body>,
    label: &str,
    headers: &[(&'static str, String)],
) -> Result<()> {
    for (name, value) in headers {
        let value = http::HeaderValue::from_str(value)
            .map_err(|source| Error::Compose { request: label.to_owned(), source: source.into() })?;
        request.headers_mut().insert(*name, value);
    }
    Ok(())
}

/// A header's text, when it is there and is text.
pub(crate) fn header<B>(response: &Response<B>, name: &str) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_words_are_kept() {
        let error = refusal(http::StatusCode::NOT_FOUND, br#"{"type":"error","error":"Instance not found"}"#);
        assert_eq!(error.to_string(), "Instance not found");
        assert!(error.is_not_found());
        let bare = refusal(http::StatusCode::BAD_GATEWAY, b"");
        assert_eq!(bare.to_string(), "502 Bad Gateway");
    }

    #[test]
    fn replies_are_told_apart() {
        let address = Address::new("/1.0/x");
        let done = into_reply(&Method::PUT, &address, br#"{"type":"sync","metadata":{"a":1}}"#).unwrap();
        assert!(matches!(done, Reply::Done(value) if value["a"] == 1));
        let begun = br#"{"type":"async","metadata":{"id":"u","class":"task","description":"","created_at":"",
            "updated_at":"","status":"Running","status_code":103,"metadata":null,"may_cancel":false,"err":""}}"#;
        let begun = into_reply(&Method::PUT, &address, begun).unwrap();
        assert!(matches!(begun, Reply::Begun(operation) if operation.id == "u"));
        assert!(into_reply(&Method::PUT, &address, b"<html>").is_err());
    }
}
