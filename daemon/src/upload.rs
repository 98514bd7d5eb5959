//! Image uploads: one file, or the parts of a form, written into a staging place as they come.

use std::fs::File;

use axum::body::Body;
use bytes::Bytes;
use cabin_api::image::ImageAlias;
use cabin_core::image::{Hints, Staging};
use futures_util::{Stream, StreamExt};
use http::header;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::call::Call;
use crate::error::Fault;
use crate::limits;

/// Writes a body that is one file.
///
/// # Errors
/// When it is too large, breaks off or stalls, or cannot be written.
pub async fn unified(body: Body, staging: &Staging) -> Result<(), Fault> {
    let to = staging.meta()?;
    let chunks = body.into_data_stream().map(|chunk| chunk.map_err(|source| Fault::BodyRead { source }));
    save(chunks, to).await
}

/// Writes the parts of a form: `metadata`, then `rootfs`.
///
/// # Errors
/// As [`unified`]; also when a part is missing, unknown or there twice.
pub async fn split(call: &mut Call, staging: &mut Staging) -> Result<(), Fault> {
    let kind = call.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let boundary =
        multer::parse_boundary(kind.unwrap_or_default()).map_err(|source| Fault::Multipart { source })?;
    let mut form = multer::Multipart::new(call.take_body().into_data_stream(), boundary);
    let mut seen = Vec::new();
    loop {
        let field = timeout(limits::UPLOAD_IDLE, form.next_field()).await.map_err(|_| Fault::BodyTooSlow)?;
        let Some(field) = field.map_err(|source| Fault::Multipart { source })? else { break };
        let name = match field.name().unwrap_or_default() {
            "metadata" => "metadata",
            "rootfs" => "rootfs",
            "rootfs.img" => return Err(Fault::NotYet { what: "an image of a virtual machine" }),
            other => return Err(Fault::invalid(format!("the form has a part `{other}` that is not known"))),
        };
        if seen.contains(&name) {
            return Err(Fault::invalid(format!("the form has two parts `{name}`")));
        }
        seen.push(name);
        let to = if name == "metadata" { staging.meta()? } else { staging.rootfs()? };
        save(field.map(|chunk| chunk.map_err(|source| Fault::Multipart { source })), to).await?;
    }
    match seen.contains(&"metadata") {
        true => Ok(()),
        false => Err(Fault::invalid("the form has no part `metadata`")),
    }
}

async fn save(mut chunks: impl Stream<Item = Result<Bytes, Fault>> + Unpin, to: File) -> Result<(), Fault> {
    let act = "write the upload";
    let mut to = tokio::fs::File::from_std(to);
    to.set_max_buf_size(256 * 1024);
    let mut left = limits::IMAGE;
    while let Some(chunk) =
        timeout(limits::UPLOAD_IDLE, chunks.next()).await.map_err(|_| Fault::BodyTooSlow)?
    {
        let chunk = chunk?;
        left = left.checked_sub(chunk.len() as u64).ok_or(Fault::UploadTooLarge { limit: limits::IMAGE })?;
        to.write_all(&chunk).await.map_err(Fault::io(act))?;
    }
    to.flush().await.map_err(Fault::io(act))
}

/// What the headers say about the image.
pub fn hints(call: &Call) -> Hints {
    let pairs = |name: &str| -> Vec<(String, String)> {
        let text = call.product_header(name).unwrap_or_default();
        form_urlencoded::parse(text.as_bytes()).into_owned().collect()
    };
    let values = |name: &str, key: &str| -> Vec<String> {
        pairs(name).into_iter().filter(|(one, _)| one == key).map(|(_, value)| value).collect()
    };
    let alias = |name| ImageAlias { name, description: String::new() };
    Hints {
        public: matches!(call.product_header("public"), Some("1" | "true")),
        filename: call.product_header("filename").unwrap_or_default().to_owned(),
        properties: pairs("properties").into_iter().collect(),
        aliases: values("aliases", "alias").into_iter().map(alias).collect(),
        fingerprint: call.product_header("fingerprint").unwrap_or_default().to_owned(),
        profiles: values("profiles", "profile"),
        built_from: String::new(),
    }
}
