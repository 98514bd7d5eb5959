//! Bodies that are files: one as it is, or several as the parts of a form.

use std::fs::File;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderValue, header};
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

use crate::error::Fault;
use crate::limits;

/// How much is read at once, in bytes.
const CHUNK: usize = 256 * 1024;

/// One part of a form.
pub struct Part {
    /// The field's name.
    pub field: &'static str,
    /// The file's name.
    pub name: String,
    /// Its bytes.
    pub file: File,
}

/// A file, to be saved as `name`.
///
/// # Errors
/// When its size cannot be read.
pub async fn file(file: File, name: &str) -> Result<Response, Fault> {
    let size = size(&file)?;
    let mut response = Response::new(Body::from_stream(chunks(file)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, size.into());
    headers.insert(header::CONTENT_DISPOSITION, disposition("inline", name)?);
    Ok(response)
}

/// A body that is written by `work` while it is sent. When the work fails the connection is cut off, so that nobody
/// takes the part for the whole; its words go to the log.
pub fn written(work: impl FnOnce(&mut Writer) -> Result<(), String> + Send + 'static) -> Response {
    let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(4);
    let mut out = Writer { sender, runtime: tokio::runtime::Handle::current() };
    tokio::task::spawn_blocking(move || {
        if let Err(error) = work(&mut out) {
            tracing::warn!(error, "a body could not be sent whole");
            // Nobody listening is the only failure.
            let _ = out.put(Err(std::io::Error::other(error)));
        }
    });
    let chunks =
        stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    Response::new(Body::from_stream(chunks))
}

/// Where a body is written.
pub struct Writer {
    sender: mpsc::Sender<std::io::Result<Bytes>>,
    runtime: tokio::runtime::Handle,
}

impl Writer {
    fn put(&self, chunk: std::io::Result<Bytes>) -> std::io::Result<()> {
        let sent = self.sender.send(chunk);
        match self.runtime.block_on(tokio::time::timeout(limits::UPLOAD_IDLE, sent)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(std::io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        }
    }
}

impl std::io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.put(Ok(Bytes::copy_from_slice(bytes)))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Files as a `multipart/form-data` body.
///
/// # Errors
/// When a size cannot be read.
pub fn form(parts: Vec<Part>) -> Result<Response, Fault> {
    let boundary = uuid::Uuid::new_v4().simple().to_string();
    let mut length = 0;
    let mut pieces = Vec::new();
    for part in parts {
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"; filename=\"{}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n",
            part.field,
            quoted(&part.name)
        );
        length += head.len() as u64 + size(&part.file)? + 2;
        pieces.push(text(head).chain(chunks(part.file)).chain(text("\r\n".to_owned())).boxed());
    }
    let end = format!("--{boundary}--\r\n");
    length += end.len() as u64;
    pieces.push(text(end).boxed());
    let mut response = Response::new(Body::from_stream(stream::iter(pieces).flatten()));
    let kind = HeaderValue::from_str(&format!("multipart/form-data; boundary={boundary}"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind.map_err(|_| Fault::invalid("no boundary"))?);
    headers.insert(header::CONTENT_LENGTH, length.into());
    Ok(response)
}

/// A `Content-Disposition`.
///
/// # Errors
/// When the name cannot stand in a header.
pub fn disposition(kind: &str, name: &str) -> Result<HeaderValue, Fault> {
    HeaderValue::from_bytes(format!("{kind};filename=\"{}\"", quoted(name)).as_bytes())
        .map_err(|_| Fault::invalid(format!("`{name}` cannot stand in a header")))
}

fn quoted(name: &str) -> String {
    name.chars()
        .filter(|letter| !letter.is_control())
        .flat_map(|letter| match letter {
            '"' | '\\' => vec!['\\', letter],
            _ => vec![letter],
        })
        .collect()
}

fn size(file: &File) -> Result<u64, Fault> {
    Ok(file.metadata().map_err(Fault::io("read the size of a file"))?.len())
}

fn chunks(file: File) -> ReaderStream<tokio::fs::File> {
    let mut file = tokio::fs::File::from_std(file);
    file.set_max_buf_size(CHUNK);
    ReaderStream::with_capacity(file, CHUNK)
}

fn text(text: String) -> stream::Iter<std::array::IntoIter<std::io::Result<Bytes>, 1>> {
    stream::iter([Ok(Bytes::from(text))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[tokio::test]
    async fn a_form_is_as_long_as_it_says_and_can_be_read_again() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[b'x'; 1000]).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let part = Part { field: "metadata", name: "a\"b.tar".into(), file };
        let response = form(vec![part]).unwrap();
        let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        let length: usize = response.headers()[header::CONTENT_LENGTH].to_str().unwrap().parse().unwrap();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        assert_eq!(body.len(), length);
        let boundary = multer::parse_boundary(kind).unwrap();
        let once = stream::iter([Ok::<_, std::io::Error>(body)]);
        let mut again = multer::Multipart::new(once, boundary);
        let field = again.next_field().await.unwrap().unwrap();
        assert_eq!(field.name(), Some("metadata"));
        assert_eq!(field.bytes().await.unwrap().len(), 1000);
    }
}
