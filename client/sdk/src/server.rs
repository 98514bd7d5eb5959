//! The daemon itself: `/1.0`, `/1.0/resources`, warnings and the internal routes.

use cabin_api::server::{Server, ServerPut};
use serde_json::Value;

use crate::{Address, Client, ETag, Reply, Result, Tagged};

impl Client {
    /// The server.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn server(&self) -> Result<Tagged<Server>> {
        self.get_tagged(Address::new("/1.0")).await
    }

    /// Replaces the server's config.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn update_server(&self, put: &ServerPut, etag: Option<&ETag>) -> Result<Reply> {
        self.put(Address::new("/1.0"), put, etag).await
    }

    /// The host's hardware.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn resources(&self) -> Result<Value> {
        self.get(Address::new("/1.0/resources")).await
    }

    /// Warnings.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn warnings(&self) -> Result<Vec<Value>> {
        self.get(Address::new("/1.0/warnings?recursion=1")).await
    }

    /// Says that somebody knows of a warning.
    ///
    /// # Errors
    /// When there is none of that id.
    pub async fn acknowledge_warning(&self, id: &str) -> Result<Reply> {
        let put = cabin_api::warning::WarningPut { status: "acknowledged".to_owned() };
        self.put(Address::new("/1.0/warnings").name(id), &put, None).await
    }

    /// Forgets a warning.
    ///
    /// # Errors
    /// When there is none of that id.
    pub async fn delete_warning(&self, id: &str) -> Result<Reply> {
        self.delete(Address::new("/1.0/warnings").name(id)).await
    }

    /// Whether the daemon has finished starting: it answers once it has.
    ///
    /// # Errors
    /// While it has not.
    pub async fn ready(&self) -> Result<()> {
        self.get::<Value>(Address::new("/internal/ready")).await.map(drop)
    }

    /// Asks the daemon to end.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn shutdown(&self) -> Result<()> {
        self.send::<Value>(http::Method::PUT, Address::new("/internal/shutdown"), None, None).await.map(drop)
    }

    /// What works on this host, as the daemon sees it.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn doctor(&self) -> Result<Value> {
        self.get(Address::new("/internal/doctor")).await
    }

    /// Raises the kernel's limits that are too low for many containers, now and for every boot; then as
    /// [`Client::doctor`].
    ///
    /// # Errors
    /// When the daemon refuses, or one cannot be raised.
    pub async fn raise_limits(&self) -> Result<Value> {
        Ok(self.post(Address::new("/internal/doctor"), &serde_json::json!({})).await?.metadata())
    }

    /// What is left over on the host, or missing, as objects with `kind`, `name` and `why`.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn audit(&self) -> Result<Vec<Value>> {
        self.get(Address::new("/internal/audit")).await
    }
}
