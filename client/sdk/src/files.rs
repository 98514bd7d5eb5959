//! Files in instances and custom volumes: `/1.0/instances/NAME/files`,
//! `/1.0/storage-pools/POOL/volumes/custom/VOLUME/files`.

use std::io::Read;

use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;

use crate::connection::Upgraded;
use crate::request::header;
use crate::upload::reading_body;
use crate::volumes::custom_volume;
use crate::{Address, Body, Client, Error, Result, Sent, full_body};

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

impl FileKind {
    fn text(self) -> &'static str {
        match self {
            FileKind::File => "file",
            FileKind::Directory => "directory",
            FileKind::Symlink => "symlink",
        }
    }
}

/// Whether a written file replaces the old content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// The old content goes.
    Overwrite,
    /// The new content comes after the old.
    Append,
}

/// A file to be made in an instance. What is none is left to the daemon (or as it is).
#[derive(Debug, Clone, Copy)]
pub struct NewFile {
    /// What it is.
    pub kind: FileKind,
    /// Its owner inside.
    pub uid: Option<u32>,
    /// Its group inside.
    pub gid: Option<u32>,
    /// Its permission bits.
    pub mode: Option<u32>,
    /// What happens to what is there.
    pub write: WriteMode,
    /// Whether owner and mode are those of a file that is there, too; else it keeps its own.
    pub replaces_owner: bool,
}

/// A file as it is read.
#[derive(Debug)]
pub struct FileContent {
    /// Its owner inside.
    pub uid: u32,
    /// Its group inside.
    pub gid: u32,
    /// Its permission bits.
    pub mode: u32,
    /// What it holds.
    pub body: FileBody,
}

/// What a file holds.
#[derive(Debug)]
pub enum FileBody {
    /// The bytes, unread.
    File(Incoming),
    /// The names in it.
    Directory(Vec<String>),
    /// Where it points.
    Symlink(String),
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    metadata: Option<Vec<String>>,
}

/// `owner` is an instance, or `POOL/VOLUME`: no instance has a slash in its name.
fn owner_address(owner: &str) -> Address {
    match owner.split_once('/') {
        Some((pool, volume)) => custom_volume(pool, volume),
        None => Address::new("/1.0/instances").name(owner),
    }
}

fn address(owner: &str, path: &str) -> Address {
    owner_address(owner).then("files").query("path", path)
}

impl Client {
    /// A connection that speaks SFTP version 3 with the files of an instance, or of a custom volume by `POOL/VOLUME`.
    ///
    /// # Errors
    /// When it is not there, or its files cannot be reached.
    pub async fn sftp(&self, owner: &str) -> Result<Upgraded> {
        self.switch(&owner_address(owner).then("sftp"), "sftp").await
    }

    /// Reads a file, directory or link of an instance, or of a custom volume by `POOL/VOLUME`.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn read_file(&self, instance: &str, path: &str) -> Result<FileContent> {
        let address = address(instance, path);
        let response = self.open_stream(Method::GET, &address).await?;
        let number = |key: &str| header(&response, key).and_then(|text| text.parse().ok()).unwrap_or(0);
        let (uid, gid) = (number("x-incus-uid"), number("x-incus-gid"));
        let mode = header(&response, "x-incus-mode")
            .and_then(|text| u32::from_str_radix(text.trim_start_matches("0o"), 8).ok());
        let kind = header(&response, "x-incus-type").unwrap_or_default();
        let body = match kind.as_str() {
            "directory" => {
                let bytes = collect(&address, response.into_body()).await?;
                let listing: Listing = serde_json::from_slice(&bytes)
                    .map_err(|source| Error::Decode { request: format!("GET {address}"), source })?;
                FileBody::Directory(listing.metadata.unwrap_or_default())
            }
            "symlink" => {
                let bytes = collect(&address, response.into_body()).await?;
                FileBody::Symlink(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
            }
            _ => FileBody::File(response.into_body()),
        };
        let default = if kind == "directory" { 0o755 } else { 0o644 };
        Ok(FileContent { uid, gid, mode: mode.unwrap_or(default), body })
    }

    /// Writes a regular file from what `source` gives.
    ///
    /// # Errors
    /// When the daemon refuses, or `source` cannot be read.
    pub async fn write_file(
        &self,
        instance: &str,
        path: &str,
        file: &NewFile,
        source: Box<dyn Read + Send>,
        sent: &Sent,
    ) -> Result<()> {
        self.make(instance, path, file, reading_body(vec![source], sent.clone())).await
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn make_directory(&self, instance: &str, path: &str, file: &NewFile) -> Result<()> {
        self.make(instance, path, file, full_body("")).await
    }

    /// Makes a symbolic link to `target`.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn make_symlink(&self, instance: &str, path: &str, target: &str, file: &NewFile) -> Result<()> {
        self.make(instance, path, file, full_body(target.to_owned())).await
    }

    /// Deletes a file; a directory with all that is in it when `recursive`.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn delete_file(&self, instance: &str, path: &str, recursive: bool) -> Result<()> {
        let headers: &[_] = if recursive { &[("x-incus-force", "true".to_owned())] } else { &[] };
        let reply = self.send_body(Method::DELETE, address(instance, path), headers, full_body("")).await;
        reply.map(drop)
    }

    async fn make(&self, instance: &str, path: &str, file: &NewFile, body: Body) -> Result<()> {
        let write = match file.write {
            WriteMode::Overwrite => "overwrite",
            WriteMode::Append => "append",
        };
        let mut headers = vec![
            ("content-type", "application/octet-stream".to_owned()),
            ("x-incus-type", file.kind.text().to_owned()),
            ("x-incus-write", write.to_owned()),
        ];
        headers.extend(file.uid.map(|uid| ("x-incus-uid", uid.to_string())));
        headers.extend(file.gid.map(|gid| ("x-incus-gid", gid.to_string())));
        headers.extend(file.mode.map(|mode| ("x-incus-mode", format!("{mode:04o}"))));
        headers.extend(file.replaces_owner.then(|| ("x-cabin-owner", "replace".to_owned())));
        self.send_body(Method::POST, address(instance, path), &headers, body).await.map(drop)
    }
}

async fn collect(address: &Address, body: Incoming) -> Result<bytes::Bytes> {
    let collected = body.collect().await;
    collected
        .map(http_body_util::Collected::to_bytes)
        .map_err(|source| Error::Exchange { request: format!("GET {address}"), source })
}
