//! `/1.0/images`, without their aliases.

use cabin_api::image::{Image, ImagePut, ImagesPost};
use cabin_core::image;
use serde_json::{Value, json};

use crate::call::Call;
use crate::error::Fault;
use crate::recursion::{self, address};
use crate::reply::Reply;
use crate::{send, upload};

const BASE: &str = "/1.0/images";

/// GET of the list.
pub async fn list(call: Call) -> Result<Reply, Fault> {
    let found = call.blocking(|host| image::list(host)).await?;
    recursion::list(&call, &found, |image| address(BASE, &image.fingerprint))
}

/// GET of one, by fingerprint or a beginning of it that is unique.
pub async fn show(call: Call) -> Result<Reply, Fault> {
    let found = find(&call).await?;
    Reply::tagged(&found, image::tag(&found))
}

/// POST: a file, a form of two files, or JSON that says where the image comes from.
pub async fn create(mut call: Call) -> Result<Reply, Fault> {
    let kind = call.content_type();
    // Without a type, Incus takes what begins like JSON for JSON; a tarball without a type is a mistake.
    if kind == "application/json" || kind.is_empty() {
        return build(call).await;
    }
    let mut staging = call.blocking(image::stage).await?;
    if kind == "multipart/form-data" {
        upload::split(&mut call, &mut staging).await?;
    } else {
        upload::unified(call.take_body(), &staging).await?;
    }
    let hints = upload::hints(&call);
    let plan = call.plan("Downloading image", Vec::new());
    let op = call
        .app
        .host
        .operations()
        .run(&call.app.host, plan, move |host, op| Ok(made(&image::import(host, op, &staging, hints)?)));
    Ok(Reply::Async(op))
}

async fn build(mut call: Call) -> Result<Reply, Fault> {
    let post: ImagesPost = call.json().await?;
    let text = |key: &str| post.source.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    match text("type").as_str() {
        "build" => {}
        "instance" | "container" | "snapshot" => return publish(call, post).await,
        "" => return Err(Fault::invalid("the image has no source")),
        _ => {
            return Err(Fault::NotYet { what: "making an image from another server or an address" });
        }
    }
    let name = text("alias");
    if name.is_empty() {
        return Err(Fault::invalid("`source.alias` must name the definition to build"));
    }
    let plan = call.plan("Building image", Vec::new());
    let op = call
        .app
        .host
        .operations()
        .run(&call.app.host, plan, move |host, op| Ok(made(&image::build(host, op, &name)?)));
    Ok(Reply::Async(op))
}

async fn publish(call: Call, post: ImagesPost) -> Result<Reply, Fault> {
    let project = call.project();
    let what = call.blocking(move |host| image::check_publish(host, project, post)).await?;
    let plan = call.plan("Publishing image", Vec::new());
    let op = call
        .app
        .host
        .operations()
        .run(&call.app.host, plan, move |host, op| Ok(made(&image::publish(host, op, project, what)?)));
    Ok(Reply::Async(op))
}

fn made(image: &Image) -> Value {
    // Incus sends the size as text.
    json!({"fingerprint": image.fingerprint, "size": image.size.to_string()})
}

/// PUT.
pub async fn update(mut call: Call) -> Result<Reply, Fault> {
    let put: ImagePut = call.json().await?;
    let (fingerprint, tag) = (call.name("fingerprint").to_owned(), call.if_match());
    call.blocking(move |host| image::update(host, &fingerprint, put, tag.as_deref())).await?;
    Ok(Reply::empty())
}

/// PATCH.
pub async fn patch(mut call: Call) -> Result<Reply, Fault> {
    let body = call.object().await?;
    let (fingerprint, tag) = (call.name("fingerprint").to_owned(), call.if_match());
    call.blocking(move |host| image::patch(host, &fingerprint, body, tag.as_deref())).await?;
    Ok(Reply::empty())
}

/// DELETE.
pub async fn delete(call: Call) -> Result<Reply, Fault> {
    let fingerprint = find(&call).await?.fingerprint;
    let plan = call.plan("Deleting image", vec![("images", address(BASE, &fingerprint))]);
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, _| {
        image::delete(host, &fingerprint)?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}

/// GET of the files: the one, or both as a form.
pub async fn export(call: Call) -> Result<Reply, Fault> {
    let fingerprint = call.name("fingerprint").to_owned();
    let files = call.blocking(move |host| image::export(host, &fingerprint)).await?;
    let (name, file) = files.meta;
    let Some((rootfs_name, rootfs)) = files.rootfs else {
        return Ok(Reply::Raw(send::file(file, &name).await?));
    };
    let parts = vec![
        send::Part { field: "metadata", name, file },
        send::Part { field: "rootfs", name: rootfs_name, file: rootfs },
    ];
    Ok(Reply::Raw(send::form(parts)?))
}

/// What this version does not do with images yet.
pub async fn not_yet(_call: Call) -> Result<Reply, Fault> {
    Err(Fault::NotYet { what: "sending, refreshing or sharing images between servers" })
}

async fn find(call: &Call) -> Result<Image, Fault> {
    let fingerprint = call.name("fingerprint").to_owned();
    call.blocking(move |host| image::get(host, &fingerprint)).await
}
