//! `network`.

use cabin_api::network::NetworksPost;
use cabin_client::Client;
use serde_json::Value;

use super::Context;
use super::object::{Part, Target};
use crate::cli::network::Network;
use crate::output::{self, Table, table, text};
use crate::{remote, words};

const ORDER: &[&str] =
    &["config", "description", "name", "type", "used_by", "managed", "status", "locations"];

/// `network`.
pub async fn run(context: &Context, command: Network) -> anyhow::Result<()> {
    let client = &context.client().await?;
    match command {
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
        Network::Edit { name } => Target::network(&name)?.edit(context, client).await?,
        Network::Get { name, key, property } => {
            Target::network(&name)?.get(client, &key, Part::from_flag(property)).await?;
        }
        Network::Info { name } => info(client, remote::local(&name)?).await?,
        Network::List(list) => {
            let networks = client.networks().await?;
            table::show(list.format.format, &networks, || rows(&networks))?;
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
        Network::Unset { name, key, property } => {
            Target::network(&name)?.unset(context, client, &key, Part::from_flag(property)).await?;
        }
    }
    Ok(())
}

fn rows(networks: &[cabin_api::network::Network]) -> Table {
    let mut table =
        Table::new(["NAME", "TYPE", "MANAGED", "IPV4", "IPV6", "DESCRIPTION", "USED BY", "STATE"]);
    for network in networks {
        let key = |key: &str| network.config.0.get(key).cloned().unwrap_or_default();
        table.row([
            network.name.clone(),
            network.kind.clone(),
            if network.managed { "YES" } else { "NO" }.to_owned(),
            key("ipv4.address"),
            key("ipv6.address"),
            network.description.clone(),
            network.used_by.len().to_string(),
            network.status.to_uppercase(),
        ]);
    }
    table
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
