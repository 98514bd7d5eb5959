//! Images and aliases: `/1.0/images`.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes, BytesMut};
use cabin_api::image::{Image, ImageAliasPut, ImageAliasesEntry, ImagePut, ImagesPost};
use cabin_api::profile::RenamePost;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;

use crate::address::form;
use crate::request::header;
use crate::upload::reading_body;
use crate::{Address, Client, ETag, Error, Reply, Result, Sent, Tagged};

/// An image file to be sent.
#[derive(Debug, Clone, Default)]
pub struct ImageUpload {
    /// The unified tarball, or the metadata of a split image.
    pub metadata: PathBuf,
    /// The root file system of a split image.
    pub rootfs: Option<PathBuf>,
    /// Properties over those in the file.
    pub properties: Vec<(String, String)>,
    /// Aliases to be made.
    pub aliases: Vec<String>,
    /// Whether anybody may read it.
    pub public: bool,
}

/// A file of an image: `metadata`, `rootfs`, or all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// `metadata` or `rootfs`; empty for a unified image.
    pub part: String,
    /// The name the daemon gives it.
    pub name: String,
}

/// What a download gives next.
#[derive(Debug)]
pub enum Part {
    /// A file begins.
    Begin(ImageFile),
    /// More of the file that began.
    Data(Bytes),
}

/// The files of an image as they arrive.
#[derive(Debug)]
pub struct ImageDownload {
    body: Incoming,
    address: String,
    /// Bytes to come, where the daemon knows.
    pub length: Option<u64>,
    waiting: Option<ImageFile>,
    splitter: Option<Splitter>,
}

fn root() -> Address {
    Address::new("/1.0/images")
}

fn aliases_root() -> Address {
    Address::new("/1.0/images/aliases")
}

impl Client {
    /// All images.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn images(&self, filter: Option<&str>) -> Result<Vec<Image>> {
        self.get(root().query("recursion", "1").query_if("filter", filter)).await
    }

    /// One image, by fingerprint or the beginning of it.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn image(&self, fingerprint: &str) -> Result<Tagged<Image>> {
        self.get_tagged(root().name(fingerprint)).await
    }

    /// Replaces what can be changed of an image.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn update_image(
        &self,
        fingerprint: &str,
        put: &ImagePut,
        etag: Option<&ETag>,
    ) -> Result<Reply> {
        self.put(root().name(fingerprint), put, etag).await
    }

    /// Deletes an image.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn delete_image(&self, fingerprint: &str) -> Result<Reply> {
        self.delete(root().name(fingerprint)).await
    }

    /// Makes an image from something the daemon has or can build.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn create_image(&self, post: &ImagesPost) -> Result<Reply> {
        self.post(root(), post).await
    }

    /// Builds an image from one of the definitions the daemon ships.
    ///
    /// # Errors
    /// When there is no such definition.
    pub async fn build_image(&self, definition: &str) -> Result<Reply> {
        let source = [("type", "build"), ("alias", definition)];
        let source = source.map(|(key, value)| (key.to_owned(), json!(value)));
        self.create_image(&ImagesPost { source: source.into(), ..ImagesPost::default() }).await
    }

    /// The names of the images that the daemon can build.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn image_definitions(&self) -> Result<Vec<String>> {
        self.get(Address::new("/internal/images")).await
    }

    /// Sends an image file.
    ///
    /// # Errors
    /// When a file cannot be read or the daemon refuses.
    pub async fn upload_image(&self, upload: &ImageUpload, sent: &Sent) -> Result<Reply> {
        let mut headers = vec![("x-incus-filename", file_name(&upload.metadata))];
        if upload.public {
            headers.push(("x-incus-public", "true".to_owned()));
        }
        if !upload.properties.is_empty() {
            let pairs = upload.properties.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            headers.push(("x-incus-properties", form(pairs)));
        }
        if !upload.aliases.is_empty() {
            let pairs = upload.aliases.iter().map(|alias| ("alias", alias.as_str()));
            headers.push(("x-incus-aliases", form(pairs)));
        }
        let (metadata, size) = open(&upload.metadata)?;
        let Some(rootfs) = &upload.rootfs else {
            headers.push(("content-type", "application/octet-stream".to_owned()));
            headers.push(("content-length", size.to_string()));
            let body = reading_body(vec![Box::new(metadata)], sent.clone());
            return self.send_body(Method::POST, root(), &headers, body).await;
        };
        let boundary = format!("cabin-{:016x}-{size:x}", std::process::id());
        let (rootfs_file, rootfs_size) = open(rootfs)?;
        let first = part_head(&boundary, "metadata", &file_name(&upload.metadata));
        let second = format!("\r\n{}", part_head(&boundary, "rootfs", &file_name(rootfs)));
        let last = format!("\r\n--{boundary}--\r\n");
        let framing = u64::try_from(first.len() + second.len() + last.len()).unwrap_or(0);
        headers.push(("content-type", format!("multipart/form-data; boundary={boundary}")));
        headers.push(("content-length", (size + rootfs_size + framing).to_string()));
        let sources: Vec<Box<dyn Read + Send>> = vec![
            Box::new(Cursor::new(first)),
            Box::new(metadata),
            Box::new(Cursor::new(second)),
            Box::new(rootfs_file),
            Box::new(Cursor::new(last)),
        ];
        self.send_body(Method::POST, root(), &headers, reading_body(sources, sent.clone())).await
    }

    /// Begins to download an image.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn export_image(&self, fingerprint: &str) -> Result<ImageDownload> {
        let address = root().name(fingerprint).then("export");
        let response = self.open_stream(Method::GET, &address).await?;
        let length = header(&response, "content-length").and_then(|text| text.parse().ok());
        let kind = header(&response, "content-type").unwrap_or_default();
        let splitter = kind
            .starts_with("multipart/")
            .then(|| parameter(&kind, "boundary").map(|boundary| Splitter::new(&boundary)))
            .flatten();
        let waiting = splitter.is_none().then(|| {
            let disposition = header(&response, "content-disposition").unwrap_or_default();
            let name = parameter(&disposition, "filename").unwrap_or_else(|| fingerprint.to_owned());
            ImageFile { part: String::new(), name }
        });
        let address = address.to_string();
        Ok(ImageDownload { body: response.into_body(), address, length, waiting, splitter })
    }

    /// The names of all aliases.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn image_alias_names(&self) -> Result<Vec<String>> {
        Ok(self.image_aliases().await?.into_iter().map(|alias| alias.name).collect())
    }

    /// All aliases.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn image_aliases(&self) -> Result<Vec<ImageAliasesEntry>> {
        self.get(aliases_root().query("recursion", "1")).await
    }

    /// One alias.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn image_alias(&self, name: &str) -> Result<Tagged<ImageAliasesEntry>> {
        self.get_tagged(aliases_root().name(name)).await
    }

    /// Makes an alias.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn create_image_alias(&self, alias: &ImageAliasesEntry) -> Result<Reply> {
        self.post(aliases_root(), alias).await
    }

    /// Points an alias elsewhere.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn update_image_alias(&self, name: &str, put: &ImageAliasPut) -> Result<Reply> {
        self.put(aliases_root().name(name), put, None).await
    }

    /// Gives an alias a new name.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn rename_image_alias(&self, name: &str, new: &str) -> Result<Reply> {
        self.post(aliases_root().name(name), &RenamePost { name: new.to_owned() }).await
    }

    /// Deletes an alias.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn delete_image_alias(&self, name: &str) -> Result<Reply> {
        self.delete(aliases_root().name(name)).await
    }
}

impl ImageDownload {
    /// What comes next; none at the end.
    ///
    /// # Errors
    /// When the stream breaks off.
    pub async fn next(&mut self) -> Result<Option<Part>> {
        if let Some(file) = self.waiting.take() {
            return Ok(Some(Part::Begin(file)));
        }
        loop {
            if let Some(part) = self.splitter.as_mut().and_then(Splitter::next) {
                return Ok(Some(part));
            }
            let Some(frame) = self.body.frame().await else {
                let cut = self.splitter.as_ref().is_some_and(|splitter| !splitter.ended);
                return if cut { Err(self.broken()) } else { Ok(None) };
            };
            let frame = frame
                .map_err(|source| Error::Exchange { request: format!("GET {}", self.address), source })?;
            let Ok(data) = frame.into_data() else { continue };
            match &mut self.splitter {
                Some(splitter) => splitter.buffer.extend_from_slice(&data),
                None => return Ok(Some(Part::Data(data))),
            }
        }
    }

    fn broken(&self) -> Error {
        let source = std::io::ErrorKind::UnexpectedEof.into();
        Error::Stream { address: self.address.clone(), source }
    }
}

/// Takes a multipart stream apart.
#[derive(Debug)]
struct Splitter {
    buffer: BytesMut,
    /// What ends a part: a line break and the boundary.
    delimiter: Vec<u8>,
    in_part: bool,
    ended: bool,
}

impl Splitter {
    fn new(boundary: &str) -> Splitter {
        // The first boundary has no line break before it; with one put there all are the same.
        let buffer = BytesMut::from(&b"\r\n"[..]);
        Splitter { buffer, delimiter: format!("\r\n--{boundary}").into_bytes(), in_part: false, ended: false }
    }

    /// What the buffer holds whole; none when more must come first.
    fn next(&mut self) -> Option<Part> {
        if self.ended {
            return None;
        }
        let found = find(&self.buffer, &self.delimiter);
        if self.in_part {
            let ready = found.unwrap_or_else(|| (self.buffer.len() + 1).saturating_sub(self.delimiter.len()));
            if ready > 0 {
                return Some(Part::Data(self.buffer.split_to(ready).freeze()));
            }
        }
        let start = found? + self.delimiter.len();
        let rest = &self.buffer[start..];
        if rest.starts_with(b"--") {
            self.ended = true;
            return None;
        }
        let head_end = find(rest, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&rest[..head_end]).into_owned();
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-disposition"))?;
        let part = parameter(line, "name").unwrap_or_default();
        let name = parameter(line, "filename").unwrap_or_default();
        self.buffer.advance(start + head_end + 4);
        self.in_part = true;
        Some(Part::Begin(ImageFile { part, name }))
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// A parameter of a header such as `attachment; filename=x` or `form-data; name="metadata"`.
pub(crate) fn parameter(header: &str, key: &str) -> Option<String> {
    header.split(';').skip(1).find_map(|field| {
        let (name, value) = field.trim().split_once('=')?;
        name.eq_ignore_ascii_case(key).then(|| value.trim_matches('"').to_owned())
    })
}

fn part_head(boundary: &str, part: &str, name: &str) -> String {
    let name = name.replace(['"', '\r', '\n'], "_");
    format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"{part}\"; filename=\"{name}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    )
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn open(path: &Path) -> Result<(File, u64)> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    Ok((file, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> (String, bool) {
        let mut splitter = Splitter::new("B");
        let mut seen = String::new();
        for chunk in chunks {
            splitter.buffer.extend_from_slice(chunk);
            while let Some(part) = splitter.next() {
                match part {
                    Part::Begin(file) => seen.push_str(&format!("[{}:{}]", file.part, file.name)),
                    Part::Data(data) => seen.push_str(&String::from_utf8_lossy(&data)),
                }
            }
        }
        (seen, splitter.ended)
    }

    #[test]
    fn a_multipart_stream_is_taken_apart_wherever_it_is_cut() {
        let whole = format!(
            "{}meta\r\n--Bdata\r\n{}root\r\n--B--\r\n",
            part_head("B", "metadata", "m.tar"),
            part_head("B", "rootfs", "r.squashfs")
        )
        .replace("--Bdata", "--xdata");
        let expected = "[metadata:m.tar]meta\r\n--xdata[rootfs:r.squashfs]root".to_owned();
        for cut in 0..whole.len() {
            let (left, right) = whole.as_bytes().split_at(cut);
            assert_eq!(split(&[left, right]), (expected.clone(), true), "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = whole.as_bytes().chunks(1).collect();
        assert_eq!(split(&bytes), (expected, true));
    }

    #[test]
    fn header_parameters_are_read_with_and_without_quotes() {
        assert_eq!(parameter("inline;filename=a.tar.xz", "filename").as_deref(), Some("a.tar.xz"));
        assert_eq!(parameter("form-data; name=\"rootfs\"", "name").as_deref(), Some("rootfs"));
        assert_eq!(parameter("inline", "filename"), None);
    }
}
