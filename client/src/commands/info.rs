//! `info`: one instance, or the server.

use std::fmt::Write as _;

use cabin_api::instance::{InstanceFull, InstanceState};
use cabin_profiles::value::number;

use super::Context;
use crate::cli::instance::Info;
use crate::output::{self, text};
use crate::remote;

/// `info`.
pub async fn run(context: &Context, args: Info) -> anyhow::Result<()> {
    let client = context.client().await?;
    let Some(name) = &args.name else {
        return if args.resources {
            output::yaml::show(&client.resources().await?)
        } else {
            output::yaml::show(&client.server().await?.value)
        };
    };
    let name = remote::local(name)?;
    let full = client.instance_full(name).await?;
    let mut said = String::new();
    // Writing to a string cannot fail.
    let _ = about(&mut said, &full);
    if let Some(state) = full.state.as_ref().filter(|state| state.pid > 0) {
        let _ = resources(&mut said, state);
    }
    let snapshots = full.snapshots.unwrap_or_default();
    if !snapshots.is_empty() {
        let _ = writeln!(said, "\nSnapshots:");
        for snapshot in &snapshots {
            let expires = match text::time(&snapshot.expires_at) {
                never if never.is_empty() => String::new(),
                time => format!(" (expires {time})"),
            };
            let _ = writeln!(said, "  {}: {}{expires}", snapshot.name, text::time(&snapshot.created_at));
        }
    }
    if args.show_log {
        let log = client.instance_log(name, "lxc.log").await?;
        let _ = write!(said, "\nLog:\n\n{log}");
    }
    output::raw(said.as_bytes())?;
    Ok(())
}

fn about(out: &mut String, full: &InstanceFull) -> std::fmt::Result {
    let instance = &full.instance;
    writeln!(out, "Name: {}", instance.name)?;
    writeln!(out, "Description: {}", instance.description)?;
    writeln!(out, "Status: {}", instance.status.to_uppercase())?;
    let ephemeral = if instance.ephemeral { " (ephemeral)" } else { "" };
    writeln!(out, "Type: {}{ephemeral}", instance.kind)?;
    writeln!(out, "Architecture: {}", instance.architecture)?;
    if !matches!(instance.location.as_str(), "" | "none") {
        writeln!(out, "Location: {}", instance.location)?;
    }
    let privileged = instance.expanded_config.0.get("security.privileged");
    if privileged.is_some_and(|value| number::boolean(value).unwrap_or(false)) {
        writeln!(out, "Privileged: yes, nothing but trust in it guards the host")?;
    }
    if let Some(state) = full.state.as_ref().filter(|state| state.pid > 0) {
        writeln!(out, "PID: {}", state.pid)?;
    }
    for (head, time) in [("Created", &instance.created_at), ("Last Used", &instance.last_used_at)] {
        let time = text::time(time);
        if !time.is_empty() {
            writeln!(out, "{head}: {time}")?;
        }
    }
    Ok(())
}

fn resources(out: &mut String, state: &InstanceState) -> std::fmt::Result {
    let started = text::time(&state.started_at);
    if !started.is_empty() {
        writeln!(out, "Started: {started}")?;
    }
    writeln!(out, "\nResources:")?;
    writeln!(out, "  Processes: {}", state.processes)?;
    let disks: Vec<_> = state.disk.iter().filter(|(_, disk)| disk.usage > 0).collect();
    if !disks.is_empty() {
        writeln!(out, "  Disk usage:")?;
        for (name, disk) in disks {
            writeln!(out, "    {name}: {}", text::size(disk.usage))?;
        }
    }
    writeln!(out, "  CPU usage:\n    CPU usage (in seconds): {}", text::seconds(state.cpu.usage))?;
    let memory = [
        ("Memory (current)", state.memory.usage),
        ("Memory (peak)", state.memory.usage_peak),
        ("Swap (current)", state.memory.swap_usage),
        ("Swap (peak)", state.memory.swap_usage_peak),
    ];
    if memory.iter().any(|(_, bytes)| *bytes > 0) {
        writeln!(out, "  Memory usage:")?;
    }
    for (head, bytes) in memory.into_iter().filter(|(_, bytes)| *bytes > 0) {
        writeln!(out, "    {head}: {}", text::size(bytes))?;
    }
    if !state.network.is_empty() {
        writeln!(out, "  Network usage:")?;
    }
    for (name, interface) in &state.network {
        writeln!(out, "    {name}:\n      Type: {}", interface.kind)?;
        writeln!(out, "      State: {}", interface.state.to_uppercase())?;
        for (head, value) in [("Host interface", &interface.host_name), ("MAC address", &interface.hwaddr)] {
            if !value.is_empty() {
                writeln!(out, "      {head}: {value}")?;
            }
        }
        writeln!(out, "      MTU: {}", interface.mtu)?;
        writeln!(out, "      Bytes received: {}", text::size_u64(interface.counters.bytes_received))?;
        writeln!(out, "      Bytes sent: {}", text::size_u64(interface.counters.bytes_sent))?;
        writeln!(out, "      Packets received: {}", interface.counters.packets_received)?;
        writeln!(out, "      Packets sent: {}", interface.counters.packets_sent)?;
        writeln!(out, "      IP addresses:")?;
        for address in &interface.addresses {
            let family = format!("{}:", address.family);
            writeln!(out, "        {family:<7}{}/{} ({})", address.address, address.netmask, address.scope)?;
        }
    }
    Ok(())
}
