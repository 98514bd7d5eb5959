//! `/internal`: readiness, shutdown, doctor, audit, images to build, fault plans. For the tools that come with the daemon.

use cabin_undo::fault::{self, Plan};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::json;

use crate::call::Call;
use crate::error::Fault;
use crate::reply::Reply;

/// GET: whether the instances that should run were taken up.
pub async fn ready(call: Call) -> Result<Reply, Fault> {
    if call.app.host.is_ready() { Ok(Reply::empty()) } else { Err(Fault::Starting) }
}

/// PUT: stops every instance, answers, then ends the daemon.
pub async fn shutdown(call: Call) -> Result<Reply, Fault> {
    tracing::info!(by = %call.who.username, "told to shut down: stopping the instances");
    call.blocking(|host| {
        host.shutdown();
        Ok(())
    })
    .await?;
    call.app.stop();
    Ok(Reply::empty())
}

/// GET: what of this host works for containers and what does not.
pub async fn doctor(call: Call) -> Result<Reply, Fault> {
    Ok(Reply::Sync(call.blocking(|_| Ok(cabin_core::doctor::report_here())).await?))
}

/// POST: raises the limits of the kernel that are too low for many containers; then as GET.
pub async fn raise(call: Call) -> Result<Reply, Fault> {
    tracing::info!(by = %call.who.username, "told to raise the kernel's limits");
    call.blocking(|_| cabin_core::doctor::raise()).await?;
    doctor(call).await
}

/// GET: what on this host belongs to this daemon and should not be there.
pub async fn audit(call: Call) -> Result<Reply, Fault> {
    Reply::sync(&call.blocking(|host| cabin_core::audit::strays(host)).await?)
}

/// GET: the names of the images that can be built on this host.
pub async fn images(call: Call) -> Result<Reply, Fault> {
    Reply::sync(&call.blocking(|host| cabin_core::image::shipped(host)).await?)
}

#[derive(Deserialize)]
struct FaultPlan {
    plan: String,
    #[serde(default)]
    skip: Option<String>,
}

/// A daemon that was not started for a test has no such addresses.
fn for_tests(call: &Call) -> Result<(), Fault> {
    match call.app.fault_plans {
        true => Ok(()),
        false => Err(Fault::NotFound { what: "address", name: "/internal/fault".to_owned() }),
    }
}

/// Leaves out what a test named: steps that are not taken back, or what is not flushed to disk.
pub fn leave_out(what: Option<String>) {
    fault::skip(what);
    let [names, trees] = ["sync of names", "sync of trees"].map(fault::leaves_out);
    cabin_sys::dir::leave_unsynced(names, trees);
}

/// PUT: arms a plan; counting begins anew. `skip` names steps that are not taken back, to see a sweep find it.
pub async fn arm_fault(mut call: Call) -> Result<Reply, Fault> {
    for_tests(&call)?;
    let sent: FaultPlan = call.json().await?;
    let plan = Plan::parse(&sent.plan);
    leave_out(sent.skip);
    if sent.plan == "panic" {
        fault::panic_on_purpose("this request");
    }
    let known = "a plan is `off`, `count`, `fail:N`, `leave:N`, `panic:N`, `kill:N`, `undo-kill:N:M` or `hold:WHAT`, or `panic` for at once";
    fault::arm(plan.ok_or_else(|| Fault::invalid(known))?);
    Ok(Reply::empty())
}

/// Either may be left out.
#[derive(Deserialize)]
struct Clock {
    /// Seconds.
    ahead: Option<i64>,
    /// From when to when.
    through: Option<(Timestamp, Timestamp)>,
}

/// PUT: puts the daemon's clock ahead, or back, and lets it look what is to be deleted by then; or lets it do at once
/// what is to be done between two times.
pub async fn set_clock(mut call: Call) -> Result<Reply, Fault> {
    for_tests(&call)?;
    let sent: Clock = call.json().await?;
    call.blocking(move |host| {
        if let Some(ahead) = sent.ahead {
            host.set_clock(ahead);
        }
        if let Some((since, until)) = sent.through {
            host.go_through(since.to_zoned(TimeZone::UTC), until.to_zoned(TimeZone::UTC));
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty())
}

/// GET: the points passed since the plan was armed.
pub async fn fault(call: Call) -> Result<Reply, Fault> {
    for_tests(&call)?;
    let points: Vec<_> =
        fault::passed().into_iter().map(|it| json!({ "what": it.what, "kind": it.kind.word() })).collect();
    let (seen, failed, undone) = (fault::seen(), fault::failed(), fault::undone());
    Reply::sync(&json!({ "seen": seen, "failed": failed, "undone": undone, "points": points }))
}
