//! A request as handlers see it: who asks, what the address names, the query, the body.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path};
use bytes::Bytes;
use cabin_api::event::Requestor;
use cabin_core::{DEFAULT_PROJECT, Host, Plan};
use futures_util::StreamExt;
use http::request::Parts;
use http::{HeaderMap, Request, header};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::app::App;
use crate::error::Fault;
use crate::{json, limits};

/// One request.
pub struct Call {
    /// The daemon.
    pub app: Arc<App>,
    /// Who asks.
    pub who: Requestor,
    /// Everything of the request but its body.
    pub parts: Parts,
    names: Vec<(String, String)>,
    query: Vec<(String, String)>,
    // Bodies can be sent to another thread but not shared; calls are shared while they wait.
    body: Mutex<Body>,
}

impl Call {
    /// Takes a routed request apart.
    ///
    /// # Errors
    /// When the address is not UTF-8, or the project asked for is not there.
    pub async fn open(app: Arc<App>, request: Request<Body>) -> Result<Call, Fault> {
        app.asked();
        let (mut parts, body) = request.into_parts();
        let names = Path::<Vec<(String, String)>>::from_request_parts(&mut parts, &())
            .await
            .map_err(|error| Fault::invalid(format!("the address cannot be read: {error}")))?
            .0;
        if names.iter().any(|(_, name)| name.contains('\0')) {
            return Err(Fault::invalid("the address holds a zero byte"));
        }
        let query = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect::<Vec<_>>();
        let who = parts.extensions.get::<Requestor>().cloned().unwrap_or_else(|| Requestor {
            username: "unknown".to_owned(),
            protocol: "unix".to_owned(),
            address: "@".to_owned(),
        });
        let call = Call { app, who, parts, names, query, body: Mutex::new(body) };
        match call.query("project") {
            None | Some("" | DEFAULT_PROJECT) => Ok(call),
            Some(name) => Err(Fault::NoProject { name: name.to_owned() }),
        }
    }

    /// What the part `{key}` of the address says; empty when the route has no such part.
    #[must_use]
    pub fn name(&self, key: &str) -> &str {
        self.names.iter().find(|(one, _)| one == key).map_or("", |(_, value)| value)
    }

    /// The first value of a query argument.
    #[must_use]
    pub fn query(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(one, _)| one == key).map(|(_, value)| value.as_str())
    }

    /// Whether a query argument is there and true.
    #[must_use]
    pub fn flag(&self, key: &str) -> bool {
        matches!(self.query(key), Some("1" | "true" | "TRUE" | "True" | "t"))
    }

    /// The project asked in.
    #[must_use]
    pub fn project(&self) -> &'static str {
        DEFAULT_PROJECT
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// A header of both families: `X-Incus-name`, or `X-LXD-name` of older clients.
    #[must_use]
    pub fn product_header(&self, name: &str) -> Option<&str> {
        ["x-incus-", "x-lxd-", "x-cabin-"]
            .iter()
            .find_map(|family| self.headers().get(format!("{family}{name}")))
            .and_then(|value| value.to_str().ok())
    }

    /// What the object must still be for a change to be made (`If-Match`).
    #[must_use]
    pub fn if_match(&self) -> Option<String> {
        let value = self.headers().get(header::IF_MATCH)?.to_str().ok()?.trim();
        let bare = value.strip_prefix("W/").unwrap_or(value).trim_matches('"');
        (!bare.is_empty() && bare != "*").then(|| bare.to_owned())
    }

    /// The media type of the body, in lower case, without its parameters.
    #[must_use]
    pub fn content_type(&self) -> String {
        let value = self.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        value.and_then(|value| value.split(';').next()).unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// A plan for an operation of this caller.
    #[must_use]
    pub fn plan(&self, description: &'static str, resources: Vec<(&'static str, String)>) -> Plan {
        let timed = self.product_header("timings").is_some();
        Plan { description, resources, requestor: Some(self.who.clone()), timed }
    }

    /// Does `work` on a thread that may block. A panic in it is a failed request.
    ///
    /// # Errors
    /// As `work`.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Host>) -> Result<T, cabin_core::Error> + Send + 'static,
    ) -> Result<T, Fault> {
        let (host, who) = (self.app.host.clone(), self.who.clone());
        let work = move || cabin_core::on_behalf_of(Some(&who), || work(&host));
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result.map_err(Fault::Core),
            Err(_) => Err(Fault::Panicked),
        }
    }

    /// The body, as it comes.
    pub fn take_body(&mut self) -> Body {
        std::mem::take(self.body.get_mut())
    }

    /// The whole body, if it is no larger than `limit` bytes and arrives in time.
    ///
    /// # Errors
    /// When it is too large, too slow or breaks off.
    pub async fn bytes(&mut self, limit: usize) -> Result<Bytes, Fault> {
        let announced = self.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        if announced.and_then(|text| text.parse::<u64>().ok()).is_some_and(|size| size > limit as u64) {
            return Err(Fault::BodyTooLarge { limit });
        }
        let body = self.take_body();
        let reading = collect(body, limit);
        tokio::time::timeout(limits::JSON_TIME, reading).await.unwrap_or(Err(Fault::BodyTooSlow))
    }

    /// The body, read as a `T`.
    ///
    /// # Errors
    /// When it cannot be had or is no `T`.
    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<T, Fault> {
        json::read(&self.bytes(limits::JSON_BODY).await?)
    }

    /// The body, read as any JSON object.
    ///
    /// # Errors
    /// When it cannot be had or is no object.
    pub async fn object(&mut self) -> Result<Value, Fault> {
        json::value(&self.bytes(limits::JSON_BODY).await?)
    }
}

async fn collect(body: Body, limit: usize) -> Result<Bytes, Fault> {
    let mut stream = body.into_data_stream();
    let mut whole = Vec::new();
    loop {
        let next = tokio::time::timeout(limits::JSON_IDLE, stream.next()).await;
        let Some(chunk) = next.map_err(|_| Fault::BodyTooSlow)? else { break };
        let chunk = chunk.map_err(|source| Fault::BodyRead { source })?;
        if whole.len() + chunk.len() > limit {
            return Err(Fault::BodyTooLarge { limit });
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.into())
}
