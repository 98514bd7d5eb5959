//! `/1.0/operations`: watching, waiting, cancelling, connecting.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::call::Call;
use crate::error::Fault;
use crate::recursion::{Recursion, address};
use crate::reply::{self, Reply};
use crate::websocket;

/// GET of the list: a map of status to operations, as Incus sends it.
pub async fn list(call: Call) -> Result<Reply, Fault> {
    let addresses = Recursion::of(&call) == Recursion::Addresses;
    let mut by_status: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for op in call.app.host.operations().list() {
        let shown = op.show();
        let status = shown.status.to_lowercase();
        let entry = match addresses {
            true => Value::String(address("/1.0/operations", &shown.id)),
            false => reply::to_value(&shown)?,
        };
        by_status.entry(status).or_default().push(entry);
    }
    Reply::sync(&by_status)
}

/// GET of one.
pub async fn show(call: Call) -> Result<Reply, Fault> {
    Reply::sync(&call.app.host.operations().get(call.name("id"))?.show())
}

/// DELETE: asks the operation to stop.
pub async fn cancel(call: Call) -> Result<Reply, Fault> {
    let op = call.app.host.operations().get(call.name("id"))?;
    if !call.app.sockets.cancel(op.id()) {
        op.cancel()?;
    }
    Ok(Reply::empty())
}

/// GET that is answered when the operation ended or `?timeout=` seconds (none or -1: no limit) are over.
pub async fn wait(call: Call) -> Result<Reply, Fault> {
    let op = call.app.host.operations().get(call.name("id"))?;
    let timeout = match call.query("timeout") {
        None | Some("") => None,
        Some(text) => {
            let seconds: i64 =
                text.parse().map_err(|_| Fault::invalid(format!("`{text}` is no number of seconds")))?;
            u64::try_from(seconds).ok().map(Duration::from_secs)
        }
    };
    Reply::sync(&op.wait(timeout).await)
}

/// GET that becomes one of the operation's websockets.
pub async fn connect(mut call: Call) -> Result<Reply, Fault> {
    call.app.host.operations().get(call.name("id"))?;
    Ok(Reply::Raw(websocket::connect(&mut call).await?))
}
