//! Backups of instances: sent while they are made, and made into instances while they are sent.

use std::io::Read;

use bytes::Bytes;
use cabin_api::backup::{InstanceBackup, InstanceBackupsPost};
use cabin_api::rebuild::InstanceRebuildPost;
use cabin_api::volume::VolumeBackupsPost;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Serialize;

use crate::address::form;
use crate::images::parameter;
use crate::request::header;
use crate::upload::reading_body;
use crate::volumes::custom_volume;
use crate::{Address, Client, Error, Reply, Result, Sent};

/// A backup as it arrives.
#[derive(Debug)]
pub struct BackupDownload {
    body: Incoming,
    address: String,
    /// The name the daemon gives the file.
    pub name: String,
}

/// What is to be made of a backup.
#[derive(Debug, Clone, Default)]
pub struct BackupUpload {
    /// The instance's name; empty for the one in the backup.
    pub name: String,
    /// The storage pool; empty for the one in the backup, or the profile's.
    pub pool: String,
    /// Config over the backup's; an empty value leaves a key out.
    pub config: Vec<(String, String)>,
    /// Properties over those of the backup's devices: the device, and `KEY=VALUE,…`.
    pub devices: Vec<(String, String)>,
    /// Bytes, where that is known.
    pub size: Option<u64>,
}

fn root(instance: &str) -> Address {
    Address::new("/1.0/instances").name(instance).then("backups")
}

impl Client {
    /// Begins to export an instance.
    ///
    /// # Errors
    /// When it is not there or the daemon refuses.
    pub async fn export_instance(&self, name: &str, post: &InstanceBackupsPost) -> Result<BackupDownload> {
        self.export(root(name), name, post).await
    }

    /// Begins to export a custom volume.
    ///
    /// # Errors
    /// When it is not there or the daemon refuses.
    pub async fn export_volume(
        &self,
        pool: &str,
        volume: &str,
        post: &VolumeBackupsPost,
    ) -> Result<BackupDownload> {
        self.export(custom_volume(pool, volume).then("backups"), volume, post).await
    }

    async fn export(&self, address: Address, name: &str, post: &impl Serialize) -> Result<BackupDownload> {
        let headers = [("accept", "application/octet-stream".to_owned())];
        let response = self.open_stream_of(Method::POST, &address, post, &headers).await?;
        let disposition = header(&response, "content-disposition").unwrap_or_default();
        let file = parameter(&disposition, "filename").unwrap_or_else(|| format!("{name}.backup"));
        Ok(BackupDownload { body: response.into_body(), address: address.to_string(), name: file })
    }

    /// Makes a custom volume from a backup. An empty name is the one in the backup.
    ///
    /// # Errors
    /// When the backup cannot be read or the daemon refuses.
    pub async fn import_volume(
        &self,
        backup: Box<dyn Read + Send>,
        pool: &str,
        name: &str,
        size: Option<u64>,
        sent: &Sent,
    ) -> Result<Reply> {
        let mut headers = vec![("content-type", "application/octet-stream".to_owned())];
        if !name.is_empty() {
            headers.push(("x-incus-name", name.to_owned()));
        }
        headers.extend(size.map(|size| ("content-length", size.to_string())));
        let address = Address::new("/1.0/storage-pools").name(pool).then("volumes").then("custom");
        self.send_body(Method::POST, address, &headers, reading_body(vec![backup], sent.clone())).await
    }

    /// Makes an instance from a backup.
    ///
    /// # Errors
    /// When the backup cannot be read or the daemon refuses.
    pub async fn import_instance(
        &self,
        backup: Box<dyn Read + Send>,
        upload: &BackupUpload,
        sent: &Sent,
    ) -> Result<Reply> {
        let mut headers = vec![("content-type", "application/octet-stream".to_owned())];
        let pairs = |pairs: &[(String, String)]| {
            form(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())))
        };
        for (name, text) in [
            ("x-incus-name", upload.name.clone()),
            ("x-incus-pool", upload.pool.clone()),
            ("x-incus-config", pairs(&upload.config)),
            ("x-incus-devices", pairs(&upload.devices)),
        ] {
            if !text.is_empty() {
                headers.push((name, text));
            }
        }
        if let Some(size) = upload.size {
            headers.push(("content-length", size.to_string()));
        }
        let body = reading_body(vec![backup], sent.clone());
        self.send_body(Method::POST, Address::new("/1.0/instances"), &headers, body).await
    }

    /// Gives an instance a new root filesystem.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn rebuild_instance(&self, name: &str, post: &InstanceRebuildPost) -> Result<Reply> {
        self.post(Address::new("/1.0/instances").name(name).then("rebuild"), post).await
    }

    /// The backups of an instance that are kept by the daemon.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn backups(&self, instance: &str) -> Result<Vec<InstanceBackup>> {
        self.get(root(instance).query("recursion", "1")).await
    }
}

impl BackupDownload {
    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// When the stream breaks off: then what came is worth nothing.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame = frame
                .map_err(|source| Error::Exchange { request: format!("POST {}", self.address), source })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }
}
