//! `network`.

use cabin_api::network::{Network as Bridge, NetworksPost};
use cabin_client::Client;
use serde_json::Value;

use super::object::{Part, Target};
use super::{Context, all, nic};
use crate::cli::network::Network;
use crate::output::columns::{Column, yes};
use crate::output::{self, Table, table, text};
use crate::{remote, words};

const ORDER: &[&str] =
    &["config", "description", "name", "type", "used_by", "managed", "status", "locations"];

const COLUMNS: &[Column<Bridge>] = &[
    Column { letter: 'n', head: "NAME", cell: |it| it.name.clone() },
    Column { letter: 't', head: "TYPE", cell: |it| it.kind.clone() },
    Column { letter: 'm', head: "MANAGED", cell: |it| yes(it.managed) },
    Column { letter: '4', head: "IPV4", cell: |it| key(it, "ipv4.address") },
    Column { letter: '6', head: "IPV6", cell: |it| key(it, "ipv6.address") },
    Column { letter: 'd', head: "DESCRIPTION", cell: |it| it.description.clone() },
    Column { letter: 'u', head: "USED BY", cell: |it| it.used_by.len().to_string() },
    Column { letter: 's', head: "STATE", cell: |it| it.status.to_uppercase() },
    Column { letter: 'e', head: "PROJECT", cell: |it| it.project.clone() },
];

/// `network`.
pub async fn run(context: &Context, command: Network) -> anyhow::Result<()> {
    let client = &context.client().await?;
    match command {
        Network::Attach { network, instance, device } => {
            nic::attach(context, client, &network, Target::instance(&instance)?, &device).await?;
        }
        Network::AttachProfile { network, profile, device } => {
            nic::attach(context, client, &network, Target::profile(&profile)?, &device).await?;
        }
        Network::Create { name, config, kind, description } => {
            let yaml = words::piped_yaml()?;
            let given = Value::Object(output::yaml::parse(&yaml)?);
            let mut post: NetworksPost = serde_json::from_value(given)?;
            remote::local(&name)?.clone_into(&mut post.name);
            post.config.0.extend(words::pairs(&config)?);
            post.kind = kind;
            post.description = description.unwrap_or(post.description);
            let reply = client.create_network(&post).await?;
            context.finish(client, reply, &format!("Creating {name}")).await?;
            output::line(format!("Network {name} created"))?;
        }
        Network::Delete { names } => {
            for name in &names {
                let reply = client.delete_network(remote::local(name)?).await?;
                context.finish(client, reply, &format!("Deleting {name}")).await?;
                output::line(format!("Network {name} deleted"))?;
            }
        }
        Network::Detach { network, instance, device } => {
            nic::detach(context, client, &network, Target::instance(&instance)?, device.as_deref()).await?;
        }
        Network::DetachProfile { network, profile, device } => {
            nic::detach(context, client, &network, Target::profile(&profile)?, device.as_deref()).await?;
        }
        Network::Edit { name } => Target::network(&name)?.edit(context, client).await?,
        Network::Get { name, key, property } => {
            Target::network(&name)?.get(client, &key, Part::from_flag(property)).await?;
        }
        Network::Info { name } => info(client, remote::local(&name)?).await?,
        Network::List { filters, list } => {
            let networks: Vec<_> = all(client, "/1.0/networks", list.all_projects, &filters).await?;
            list.show(COLUMNS, "ntm46dus", &networks)?;
        }
        Network::ListAllocations { all_projects: _, format } => {
            let found = client.network_allocations().await?;
            table::show(format.format, &found, || {
                let mut table = Table::new(["USED BY", "ADDRESS", "TYPE", "NAT", "MAC ADDRESS"]);
                for one in found.iter().cloned() {
                    table.row([one.used_by, one.address, one.kind, yes(one.nat), one.hwaddr]);
                }
                table
            })?;
        }
        Network::ListLeases { name, format } => {
            let leases = client.network_leases(remote::local(&name)?).await?;
            table::show(format.format, &leases, || {
                let mut table = Table::new(["HOSTNAME", "MAC ADDRESS", "IP ADDRESS", "TYPE"]);
                for lease in &leases {
                    let kind = lease.kind.to_uppercase();
                    table.row([lease.hostname.clone(), lease.hwaddr.clone(), lease.address.clone(), kind]);
                }
                table
            })?;
        }
        Network::Rename { name, new } => {
            client.rename_network(remote::local(&name)?, &new).await?;
            output::line(format!("Network {name} renamed to {new}"))?;
        }
        Network::Set { name, words, property } => {
            let pairs = words::pairs(&words)?;
            Target::network(&name)?.set(context, client, &pairs, Part::from_flag(property)).await?;
        }
        Network::Show { name } => Target::network(&name)?.show(client, ORDER).await?,
        Network::Unset { name, keys, property } => {
            Target::network(&name)?.unset(context, client, &keys, Part::from_flag(property)).await?;
        }
    }
    Ok(())
}

fn key(network: &Bridge, key: &str) -> String {
    network.config.0.get(key).cloned().unwrap_or_default()
}

async fn info(client: &Client, name: &str) -> anyhow::Result<()> {
    let state = client.network_state(name).await?;
    let mut said = format!(
        "Name: {name}\nMAC address: {}\nMTU: {}\nState: {}\nType: {}\n",
        state.hwaddr, state.mtu, state.state, state.kind
    );
    if !state.addresses.is_empty() {
        said.push_str("\nIP addresses:\n");
        for address in &state.addresses {
            let line = format!(
                "  {}\t{}/{} ({})\n",
                address.family, address.address, address.netmask, address.scope
            );
            said.push_str(&line);
        }
    }
    let counters = &state.counters;
    said.push_str(&format!(
        "\nNetwork usage:\n  Bytes received: {}\n  Bytes sent: {}\n  Packets received: {}\n  Packets sent: {}\n",
        text::size_u64(counters.bytes_received),
        text::size_u64(counters.bytes_sent),
        counters.packets_received,
        counters.packets_sent,
    ));
    output::raw(said.as_bytes())?;
    Ok(())
}
