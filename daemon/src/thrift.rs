//! Keeping the daemon small: memory that a burst of requests needed goes back to the host soon after it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::app::App;

/// How often is looked whether there is something to give back.
const PAUSE: Duration = Duration::from_secs(2);

/// Gives back what requests and operations left, as long as the daemon serves.
pub async fn keep_small(app: Arc<App>) {
    // What it took to start is not needed again.
    if let Err(error) = cabin_sys::memory::forget_code() {
        tracing::debug!(%error, "the code of the start stays in memory");
    }
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut seen, mut owed) = (0, false);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = app.stopped() => return,
        }
        let now = app.requests();
        let asked = now != seen;
        // Once more after the last request: what it began may have gone on for a while.
        if asked || owed {
            // It locks the allocator for a moment: not on a thread that serves.
            let _ = tokio::task::spawn_blocking(cabin_sys::memory::give_back).await;
        }
        (seen, owed) = (now, asked);
    }
}
