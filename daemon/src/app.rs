//! What every request has at hand: the host, the websockets that are waited for, the way to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cabin_core::Host;
use tokio::sync::watch;

use crate::console::Consoles;
use crate::error::Fault;
use crate::websocket::Sockets;

/// The daemon as requests see it.
pub struct App {
    /// The host.
    pub host: Arc<Host>,
    /// Websockets that operations wait for.
    pub sockets: Sockets,
    /// Who takes part in a console.
    pub consoles: Consoles,
    /// Whether tests may make steps fail: only when the daemon was started with `CABIN_FAULT`.
    pub fault_plans: bool,
    stop: watch::Sender<bool>,
    taken_up: watch::Sender<bool>,
    requests: AtomicU64,
}

impl App {
    /// The daemon over `host`.
    #[must_use]
    pub fn new(host: Arc<Host>, fault_plans: bool) -> Arc<App> {
        Arc::new(App {
            host,
            sockets: Sockets::default(),
            consoles: Consoles::default(),
            fault_plans,
            stop: watch::Sender::new(false),
            taken_up: watch::Sender::new(false),
            requests: AtomicU64::new(0),
        })
    }

    /// Counts a request.
    pub fn asked(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests there were.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The instances that still run were taken up, as far as they could be.
    pub fn took_up(&self) {
        self.taken_up.send_replace(true);
    }

    /// Returns once the instances were taken up: before that one that runs looks like one that does not.
    ///
    /// # Errors
    /// When the server is told to stop before.
    pub async fn taken_up(&self) -> Result<(), Fault> {
        let mut told = self.taken_up.subscribe();
        tokio::select! {
            biased;
            // The sender lives as long as `self`, so waiting cannot fail.
            _ = told.wait_for(|done| *done) => Ok(()),
            () = self.stopped() => Err(Fault::Starting),
        }
    }

    /// Tells the server to stop serving. Instances are not touched.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Returns once the server is told to stop.
    pub async fn stopped(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }
}
