//! What every request has at hand: the host, the websockets that are waited for, the way to stop.

use std::sync::Arc;

use cabin_core::Host;
use tokio::sync::watch;

use crate::console::Consoles;
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
        })
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
