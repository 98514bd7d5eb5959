//! `/internal`: readiness, shutdown, doctor. For the tools that come with the daemon.

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
