//! `/1.0/instances`: the objects themselves and what they do.

use cabin_api::instance::{InstancePost, InstancePut, InstanceStatePut, InstancesPost, InstancesPut};
use cabin_core::instance::{self, WhenRunning};
use serde_json::Value;

use crate::call::Call;
use crate::error::Fault;
use crate::handlers::backups;
use crate::recursion::{self, Recursion, address};
use crate::reply::Reply;

const BASE: &str = "/1.0/instances";

/// What an operation on one instance works on.
pub fn resources(name: &str) -> Vec<(&'static str, String)> {
    vec![("instances", address(BASE, name))]
}

/// GET of the list.
pub async fn list(call: Call) -> Result<Reply, Fault> {
    let (project, recursion) = (call.project(), Recursion::of(&call));
    if recursion == Recursion::Full {
        let looks = recursion::looks(&call);
        let found = call.blocking(move |host| instance::list_full(host, project, looks)).await?;
        return recursion::list(&call, &found, |full| address(BASE, &full.instance.name));
    }
    if recursion == Recursion::Addresses && recursion::filter(&call)?.is_empty() {
        let names = call.blocking(move |host| instance::names(host, project)).await?;
        return Reply::sync(&names.iter().map(|name| address(BASE, name)).collect::<Vec<_>>());
    }
    let found = call.blocking(move |host| instance::list(host, project)).await?;
    recursion::list(&call, &found, |instance| address(BASE, &instance.name))
}

/// POST of a new one.
pub async fn create(mut call: Call) -> Result<Reply, Fault> {
    if call.content_type() == "application/octet-stream" {
        return backups::import(call).await;
    }
    let mut post: InstancesPost = call.json().await?;
    let project = call.project();
    let post = call
        .blocking(move |host| {
            instance::check_new(host, project, &mut post)?;
            Ok(post)
        })
        .await?;
    let plan = call.plan("Creating instance", resources(&post.name));
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, op| {
        instance::create(host, op, project, post)?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}

/// PUT on the list: the state of all of them.
pub async fn change_all(mut call: Call) -> Result<Reply, Fault> {
    let put: InstancesPut = call.json().await?;
    let state = put.state.ok_or_else(|| Fault::invalid("`state` is missing"))?;
    let description = match state.action.as_str() {
        "start" => "Starting instances",
        "stop" => "Stopping instances",
        "restart" => "Restarting instances",
        "freeze" => "Freezing instances",
        "unfreeze" => "Unfreezing instances",
        other => return Err(Fault::invalid(format!("`{other}` is no action"))),
    };
    let project = call.project();
    let names = call.blocking(move |host| instance::names(host, project)).await?;
    let resources = names.iter().map(|name| ("instances", address(BASE, name))).collect();
    let op =
        call.app.host.operations().run(&call.app.host, call.plan(description, resources), move |host, op| {
            instance::change_all(host, op, project, &state)?;
            Ok(Value::Null)
        });
    Ok(Reply::Async(op))
}

/// GET of one; `?recursion=1` gives the whole object.
pub async fn show(call: Call) -> Result<Reply, Fault> {
    let (project, name) = (call.project(), call.name("name").to_owned());
    if Recursion::of(&call) != Recursion::Addresses {
        let found = call.blocking(move |host| instance::get_full(host, project, &name)).await?;
        return Reply::tagged(&found, instance::tag(&found.instance));
    }
    let found = call.blocking(move |host| instance::get(host, project, &name)).await?;
    Reply::tagged(&found, instance::tag(&found))
}

/// PUT: replaces what can be changed. Answered with an operation, as Incus does.
pub async fn update(mut call: Call) -> Result<Reply, Fault> {
    let put: InstancePut = call.json().await?;
    if !put.restore.is_empty() {
        return super::snapshots::restore(call, put).await;
    }
    let (project, name, tag) = (call.project(), call.name("name").to_owned(), call.if_match());
    let looked_up = name.clone();
    let now = call.blocking(move |host| instance::get(host, project, &looked_up)).await?;
    // The change itself compares again; this spares the client an operation that must fail.
    if tag.as_ref().is_some_and(|tag| *tag != instance::tag(&now)) {
        return Err(Fault::Changed);
    }
    let plan = call.plan("Updating instance", resources(&name));
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, _| {
        instance::update(host, project, &name, put, tag.as_deref())?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}

/// PATCH: changes what is named.
pub async fn patch(mut call: Call) -> Result<Reply, Fault> {
    let body = call.object().await?;
    let (project, name, tag) = (call.project(), call.name("name").to_owned(), call.if_match());
    call.blocking(move |host| instance::patch(host, project, &name, body, tag.as_deref())).await?;
    Ok(Reply::empty())
}

/// POST of a new name, or of a new place.
pub async fn rename(mut call: Call) -> Result<Reply, Fault> {
    let post: InstancePost = call.json().await?;
    let (project, name) = (call.project(), call.name("name").to_owned());
    let (old, asked) = (name.clone(), post.clone());
    let moves = post.migration || !post.pool.is_empty() || !post.project.is_empty();
    call.blocking(move |host| match moves {
        true => instance::check_relocate(host, project, &old, &asked),
        false => instance::check_rename(host, project, &old, &asked.name),
    })
    .await?;
    let plan = call.plan(if moves { "Moving instance" } else { "Renaming instance" }, resources(&name));
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, op| {
        match moves {
            true => instance::relocate(host, op, project, &name, &post)?,
            false => instance::rename(host, project, &name, &post.name)?,
        }
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}

/// DELETE.
pub async fn delete(call: Call) -> Result<Reply, Fault> {
    let (project, name) = (call.project(), call.name("name").to_owned());
    let looked_up = name.clone();
    let now = call.blocking(move |host| instance::get(host, project, &looked_up)).await?;
    let running = if call.flag("force") { WhenRunning::Kill } else { WhenRunning::Refuse };
    if now.status_code != cabin_api::StatusCode::Stopped && running == WhenRunning::Refuse {
        return Err(Fault::invalid(format!("instance `{name}` is running; stop it first")));
    }
    let plan = call.plan("Deleting instance", resources(&name));
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, _| {
        instance::delete(host, project, &name, running)?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}

/// GET of what it does now.
pub async fn state(call: Call) -> Result<Reply, Fault> {
    let (project, name) = (call.project(), call.name("name").to_owned());
    Reply::sync(&call.blocking(move |host| instance::state(host, project, &name)).await?)
}

/// GET of what differs between two states of its files.
pub async fn diff(call: Call) -> Result<Reply, Fault> {
    let (project, name) = (call.project(), call.name("name").to_owned());
    let moment = |key: &str| call.query(key).unwrap_or_default().to_owned();
    let (from, to) = (moment("from"), moment("to"));
    Reply::sync(&call.blocking(move |host| instance::diff(host, project, &name, &from, &to)).await?)
}

/// PUT of what it is to do.
pub async fn change_state(mut call: Call) -> Result<Reply, Fault> {
    let put: InstanceStatePut = call.json().await?;
    let (project, name) = (call.project(), call.name("name").to_owned());
    let (checked, looked_up) = (put.clone(), name.clone());
    let description =
        call.blocking(move |host| instance::check_state_change(host, project, &looked_up, &checked)).await?;
    let plan = call.plan(description, resources(&name));
    let op = call.app.host.operations().run(&call.app.host, plan, move |host, op| {
        instance::change_state(host, op, project, &name, &put)?;
        Ok(Value::Null)
    });
    Ok(Reply::Async(op))
}

/// Refuses at once when there is no instance of that name.
pub async fn exists(call: &Call, name: &str) -> Result<cabin_api::instance::Instance, Fault> {
    let (project, name) = (call.project(), name.to_owned());
    call.blocking(move |host| instance::get(host, project, &name)).await
}
