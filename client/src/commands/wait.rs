//! `wait`: until an instance is in a status, or can be reached.

use std::time::Duration;

use anyhow::{Context as _, bail};
use cabin_api::instance::InstanceState;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Context;
use crate::cli::instance::Wait;
use crate::remote;

/// What is waited for.
#[derive(Debug, PartialEq, Eq)]
enum Condition {
    /// A status, such as Running.
    Status(String),
    /// An address that others can reach, of one of these families.
    Address(&'static [&'static str]),
}

impl Condition {
    fn parse(word: &str) -> anyhow::Result<Condition> {
        Ok(match word {
            "ip" => Condition::Address(&["inet", "inet6"]),
            "ipv4" => Condition::Address(&["inet"]),
            "ipv6" => Condition::Address(&["inet6"]),
            "agent" => bail!("only virtual machines have an agent, and they are not supported"),
            _ => match word.split_once('=') {
                Some(("status", status)) if !status.is_empty() => Condition::Status(status.to_owned()),
                _ => bail!("`{word}` is none of ip, ipv4, ipv6, status=STATUS"),
            },
        })
    }

    fn holds(&self, state: &InstanceState) -> bool {
        match self {
            Condition::Status(status) => state.status.eq_ignore_ascii_case(status),
            Condition::Address(families) => state
                .network
                .values()
                .flat_map(|it| &it.addresses)
                .any(|address| address.scope == "global" && families.contains(&address.family.as_str())),
        }
    }
}

/// `wait`.
pub async fn run(context: &Context, args: &Wait) -> anyhow::Result<()> {
    let condition = Condition::parse(&args.condition)?;
    let client = context.client().await?;
    let name = remote::local(&args.name)?;
    // The daemon hears of a lease, not of what a guest does with it: there is no event for an address.
    let mut looks = interval(Duration::from_secs(args.interval.max(1)));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let held = async {
        loop {
            looks.tick().await;
            if condition.holds(&client.instance_state(name).await?) {
                return anyhow::Ok(());
            }
        }
    };
    match u64::try_from(args.timeout) {
        Ok(seconds) => timeout(Duration::from_secs(seconds), held).await.with_context(|| {
            format!("`{}` did not come true for `{name}` within {seconds} s", args.condition)
        })?,
        Err(_) => held.await,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_are_told_from_the_state() {
        let state: InstanceState = serde_json::from_value(json!({
            "status": "Running", "status_code": 103, "pid": 7, "processes": 1, "started_at": "", "disk": {}, "os_info": null,
            "cpu": { "usage": 0, "allocated_time": 0 },
            "memory": { "usage": 0, "usage_peak": 0, "swap_usage": 0, "swap_usage_peak": 0, "total": 0 },
            "network": { "eth0": {
                "addresses": [
                    { "family": "inet6", "address": "fe80::1", "netmask": "64", "scope": "link" },
                    { "family": "inet", "address": "10.0.0.2", "netmask": "24", "scope": "global" },
                ],
                "counters": { "bytes_received": 0, "bytes_sent": 0, "packets_received": 0, "packets_sent": 0,
                    "errors_received": 0, "errors_sent": 0, "packets_dropped_outbound": 0,
                    "packets_dropped_inbound": 0 },
                "hwaddr": "", "host_name": "", "mtu": 1500, "state": "up", "type": "broadcast",
            } },
        }))
        .unwrap();
        let check = |word: &str, expected: bool| {
            assert_eq!(Condition::parse(word).unwrap().holds(&state), expected, "{word}");
        };
        check("ip", true);
        check("ipv4", true);
        check("ipv6", false);
        check("status=RUNNING", true);
        check("status=stopped", false);
        for word in ["agent", "status=", "up"] {
            assert!(Condition::parse(word).is_err(), "{word}");
        }
    }
}
