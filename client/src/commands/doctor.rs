//! `doctor`: what the daemon says of this host; without a daemon, what its program says.

use anyhow::Context as _;
use cabin_client::{Error, Kind};
use serde_json::Value;

use super::Context;
use crate::cli::system::Doctor;
use crate::{output, programs};

/// `doctor`. Exit code 1 when something that is needed does not work.
pub async fn run(context: &Context, args: &Doctor) -> anyhow::Result<u8> {
    let report = match context.client().await {
        Ok(client) if args.raise => client.raise_limits().await?,
        Ok(client) => client.doctor().await?,
        Err(error) => {
            let unreachable =
                error.downcast_ref::<Error>().is_some_and(|error| error.kind() == Kind::Unreachable);
            if !unreachable {
                return Err(error);
            }
            output::note(format!("{}; asking the daemon's program instead", output::failure::chain(&error)));
            without_daemon(args.raise)?
        }
    };
    if args.json {
        output::line(serde_json::to_string_pretty(&report)?)?;
    } else {
        output::raw(output::checks::render(&report).as_bytes())?;
    }
    Ok(u8::from(output::checks::broken(&report)))
}

fn without_daemon(raise: bool) -> anyhow::Result<Value> {
    let done = programs::daemon_doctor(raise)?;
    serde_json::from_slice(&done.stdout).with_context(|| {
        let said = String::from_utf8_lossy(&done.stderr);
        format!("`cabind doctor` gave no report: {}", said.trim())
    })
}
