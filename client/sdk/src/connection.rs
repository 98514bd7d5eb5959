//! Connections to the socket: one kept for requests, new ones for streams and websockets.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::{Error, Result};

/// A connection that speaks another protocol from now on.
pub type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// What became of a request for another protocol.
pub(crate) enum Upgrade {
    Agreed(Upgraded),
    Refused(Response<Incoming>, SendRequest<Body>),
}

/// The body of a request.
pub type Body = BoxBody<Bytes, io::Error>;

/// A body that is whole in memory.
pub fn full_body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A client of one daemon. Clones share the idle connections. Must be used inside a tokio runtime.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    project: Option<Arc<str>>,
    timed: bool,
}

#[derive(Debug)]
struct Shared {
    socket: PathBuf,
    idle: Mutex<Vec<SendRequest<Body>>>,
}

/// More idle connections than this are closed.
const KEPT: usize = 16;

impl Client {
    /// Connects to the daemon behind `socket`.
    ///
    /// # Errors
    /// When nothing listens there.
    pub async fn connect(socket: impl Into<PathBuf>) -> Result<Client> {
        let shared = Shared { socket: socket.into(), idle: Mutex::default() };
        let client = Client { shared: Arc::new(shared), project: None, timed: false };
        let connection = client.open().await?;
        client.put_back(connection);
        Ok(client)
    }

    /// The same daemon, seen from inside `project`.
    #[must_use]
    pub fn in_project(mut self, project: &str) -> Client {
        self.project = Some(project.into());
        self
    }

    /// The same daemon, asked to tell in each operation's metadata (`timings`) how long its steps took.
    #[must_use]
    pub fn with_timings(mut self) -> Client {
        self.timed = true;
        self
    }

    /// Whether it is asked to.
    #[must_use]
    pub fn is_timed(&self) -> bool {
        self.timed
    }

    /// The project asked in, when one was named.
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        self.project.as_deref()
    }

    /// Where the daemon's socket lies.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.shared.socket
    }

    /// A bare connection, for websockets.
    pub(crate) async fn stream(&self) -> Result<UnixStream> {
        let socket = &self.shared.socket;
        UnixStream::connect(socket).await.map_err(|source| Error::Connect { socket: socket.clone(), source })
    }

    /// Sends `request` and gives the head of the reply, with the connection to be put back once the reply's
    /// body is read.
    pub(crate) async fn exchange(
        &self,
        request: Request<Body>,
    ) -> Result<(Response<Incoming>, SendRequest<Body>)> {
        let label = format!("{} {}", request.method(), request.uri().path());
        let failed = |source| Error::Exchange { request: label.clone(), source };
        let mut request = request;
        while let Some(mut connection) = self.take_idle() {
            match connection.try_send_request(request).await {
                Ok(response) => return Ok((response, connection)),
                // The daemon closed the idle connection before it saw anything of this request.
                Err(mut refused) => match refused.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(failed(refused.into_error())),
                },
            }
        }
        let mut connection = self.open().await?;
        let response = connection.send_request(request).await.map_err(failed)?;
        Ok((response, connection))
    }

    /// Keeps a connection whose last reply was read to its end.
    pub(crate) fn put_back(&self, connection: SendRequest<Body>) {
        let mut idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT && !connection.is_closed() {
            idle.push(connection);
        }
    }

    fn take_idle(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop() {
            if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    /// Sends `request` on a connection of its own, which is what the daemon upgrades it to when it agrees.
    pub(crate) async fn upgrade(&self, request: Request<Body>) -> Result<Upgrade> {
        let label = format!("{} {}", request.method(), request.uri().path());
        let failed = |source| Error::Exchange { request: label.clone(), source };
        let stream = TokioIo::new(self.stream().await?);
        let (mut sender, driver) = http1::handshake(stream).await.map_err(failed)?;
        tokio::spawn(driver.with_upgrades());
        let mut response = sender.send_request(request).await.map_err(failed)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Upgrade::Refused(response, sender));
        }
        Ok(Upgrade::Agreed(TokioIo::new(hyper::upgrade::on(&mut response).await.map_err(failed)?)))
    }

    async fn open(&self) -> Result<SendRequest<Body>> {
        let stream = self.stream().await?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| Error::Exchange { request: "CONNECT".to_owned(), source })?;
        // The driver's failures come out of the request that was under way.
        tokio::spawn(driver);
        Ok(sender)
    }
}
