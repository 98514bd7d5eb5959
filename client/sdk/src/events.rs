//! The events websocket, and websockets in general.

use cabin_api::event::Event;
use futures_util::StreamExt;
use http_body_util::BodyExt;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::{Address, Client, Error, Result, Socket};

/// A stream of events.
#[derive(Debug)]
pub struct Events {
    socket: Socket,
    address: String,
}

impl Client {
    /// Opens a websocket. A refusal keeps the daemon's words.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn websocket(&self, address: &Address) -> Result<Socket> {
        let failed = |source| Error::Websocket { address: address.to_string(), source: Box::new(source) };
        let request = format!("ws://cabin{address}").into_client_request().map_err(failed)?;
        let stream = self.stream().await?;
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(response)) => {
                let status = response.status();
                let body = response.into_body().unwrap_or_default();
                Err(crate::request::refusal(status, &body))
            }
            Err(source) => Err(failed(source)),
        }
    }

    /// Listens to events. `kinds` is a list such as `lifecycle,operation`; all when empty.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn events(&self, kinds: &str, all_projects: bool) -> Result<Events> {
        let address = Address::new("/1.0/events")
            .query_if("type", Some(kinds).filter(|kinds| !kinds.is_empty()))
            .query_if("all-projects", all_projects.then_some("true"))
            .query_if("project", self.project().filter(|_| !all_projects));
        Ok(Events { socket: self.websocket(&address).await?, address: address.to_string() })
    }

    /// Reads a reply's whole body, for texts such as logs.
    pub(crate) async fn text(&self, address: Address) -> Result<String> {
        let response = self.open_stream(http::Method::GET, &address).await?;
        let collected = response.into_body().collect().await;
        let bytes = collected
            .map_err(|source| Error::Exchange { request: format!("GET {address}"), source })?
            .to_bytes();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Events {
    /// The next event; none when the daemon has closed the stream.
    ///
    /// # Errors
    /// When the connection breaks or an event cannot be read.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        while let Some(message) = self.socket.next().await {
            let message = message.map_err(|source| Error::Websocket {
                address: self.address.clone(),
                source: Box::new(source),
            })?;
            let bytes = match message {
                Message::Text(text) => text.as_bytes().to_vec(),
                Message::Binary(bytes) => bytes.to_vec(),
                Message::Close(_) => return Ok(None),
                _ => continue,
            };
            return serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| Error::Decode { request: format!("GET {}", self.address), source });
        }
        Ok(None)
    }
}
