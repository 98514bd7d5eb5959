//! `/1.0/instances/{name}/metadata`: what an instance's image says about itself, and the templates.

use axum::body::Body;
use axum::response::Response;
use cabin_api::image::ImageMetadata;
use cabin_core::{MOST_TEMPLATE, instance};
use http::{HeaderValue, header};

use crate::call::Call;
use crate::error::Fault;
use crate::reply::Reply;

fn named(call: &Call) -> (&'static str, String) {
    (call.project(), call.name("name").to_owned())
}

/// GET.
pub async fn show(call: Call) -> Result<Reply, Fault> {
    let (project, name) = named(&call);
    let found = call.blocking(move |host| instance::image_metadata(host, project, &name)).await?;
    Reply::tagged(&found, instance::metadata_tag(&found))
}

/// PUT.
pub async fn update(mut call: Call) -> Result<Reply, Fault> {
    let put: ImageMetadata = call.json().await?;
    let (project, name) = named(&call);
    let tag = call.if_match();
    call.blocking(move |host| instance::update_metadata(host, project, &name, put, tag.as_deref())).await?;
    Ok(Reply::empty())
}

/// PATCH.
pub async fn patch(mut call: Call) -> Result<Reply, Fault> {
    let body = call.object().await?;
    let (project, name) = named(&call);
    let tag = call.if_match();
    call.blocking(move |host| instance::patch_metadata(host, project, &name, body, tag.as_deref())).await?;
    Ok(Reply::empty())
}

/// GET of the list of templates, or with `path` of one.
pub async fn templates(call: Call) -> Result<Reply, Fault> {
    let (project, name) = named(&call);
    let Some(file) = call.query("path").filter(|file| !file.is_empty()).map(str::to_owned) else {
        let found = call.blocking(move |host| instance::templates(host, project, &name)).await?;
        return Reply::sync(&found);
    };
    let text = call.blocking(move |host| instance::template(host, project, &name, &file)).await?;
    let mut response = Response::new(Body::from(text));
    let octets = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, octets);
    Ok(Reply::Raw(response))
}

fn file(call: &Call) -> Result<String, Fault> {
    let file = call.query("path").filter(|file| !file.is_empty());
    file.map(str::to_owned).ok_or_else(|| Fault::invalid("`path` is missing: the name of the template"))
}

/// POST of one.
pub async fn write_template(mut call: Call) -> Result<Reply, Fault> {
    let file = file(&call)?;
    let text = call.bytes(MOST_TEMPLATE).await?;
    let (project, name) = named(&call);
    call.blocking(move |host| instance::write_template(host, project, &name, &file, &text)).await?;
    Ok(Reply::empty())
}

/// DELETE of one.
pub async fn delete_template(call: Call) -> Result<Reply, Fault> {
    let file = file(&call)?;
    let (project, name) = named(&call);
    call.blocking(move |host| instance::delete_template(host, project, &name, &file)).await?;
    Ok(Reply::empty())
}
