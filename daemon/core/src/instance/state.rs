//! What an instance does now: usage from its cgroups, interfaces over a socket kept from its start.
//! Nothing is started and nothing is entered.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use cabin_api::ZERO_TIME;
use cabin_api::instance::{
    CpuState, DiskState, InstanceState, MemoryState, NetworkAddress, NetworkCounters, NetworkInterface,
};
use cabin_network::{InterfaceState, LinkType, Scope};
use cabin_storage::VolumeName;
use cabin_store::rows::{Config, Devices};

use super::full::Looks;
use super::{expand, load, profiles_of};
use crate::live::Live;
use crate::{Error, Host, quota, storage};

/// What an instance does now.
///
/// # Errors
/// When there is none of that name, or the kernel's files cannot be read.
pub fn state(host: &Host, project: &str, name: &str) -> Result<InstanceState, Error> {
    let row = load(host, project, name)?.row;
    let expanded = expand(&row, &profiles_of(host, project, &row.profiles)?);
    of(host, name, &expanded.config, &expanded.devices, Looks::ALL)
}

pub(super) fn of(
    host: &Host,
    name: &str,
    config: &Config,
    devices: &Devices,
    looks: Looks,
) -> Result<InstanceState, Error> {
    let status = super::status(host, name);
    let mut state = InstanceState {
        status: status.text().to_owned(),
        status_code: status.into(),
        started_at: ZERO_TIME.to_owned(),
        disk: if looks.disk { disks(host, name, config, devices) } else { BTreeMap::new() },
        ..InstanceState::default()
    };
    let Some(live) = host.live().get(name).filter(|live| live.exit().is_none()) else {
        return Ok(state);
    };
    state.pid = live.supervisor.init_pid().into();
    state.started_at.clone_from(&live.started_at);
    if looks.usage {
        add_usage(host, name, config, &mut state)?;
    }
    if looks.network {
        state.network = interfaces(&live)?;
    }
    Ok(state)
}

fn add_usage(host: &Host, name: &str, config: &Config, state: &mut InstanceState) -> Result<(), Error> {
    // Somebody may have taken its cgroups away: the audit tells, and the rest is worth showing.
    let usage = host.runtime().cgroups().usage(name).unwrap_or_default();
    let limits = cabin_profiles::Limits::resolve(config, &host.facts)?;
    state.processes = signed(usage.processes.unwrap_or(0));
    state.cpu = CpuState {
        usage: signed(usage.cpu.unwrap_or(0)),
        allocated_time: signed(limits.processor_time(&host.facts)),
    };
    state.memory = MemoryState {
        usage: signed(usage.memory.unwrap_or(0)),
        usage_peak: signed(usage.memory_peak.unwrap_or(0)),
        total: signed(limits.memory.unwrap_or(host.facts.memory)),
        swap_usage: signed(usage.swap.unwrap_or(0)),
        swap_usage_peak: signed(usage.swap_peak.unwrap_or(0)),
    };
    Ok(())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The root disk's usage, when the pool can tell it cheaply.
fn disks(host: &Host, name: &str, config: &Config, devices: &Devices) -> BTreeMap<String, DiskState> {
    let Some((device, pool)) = cabin_profiles::root_disk(devices) else { return BTreeMap::new() };
    let total = devices.get(device).and_then(|root| quota::of(root.get("size")).ok()?).map_or(0, signed);
    let walk =
        || -> Result<u64, Error> { Ok(storage::pool(host, pool)?.usage(&VolumeName::container(name)?)?) };
    // After a restore, and under the name of one that is gone, it is another disk.
    let generation = config.get("volatile.uuid.generation").map_or("", String::as_str);
    let usage = host
        .measured()
        .bytes(&format!("{pool}/{name}/{generation}"), walk)
        .map(|usage| DiskState { usage: signed(usage), total });
    usage.map(|usage| BTreeMap::from([(device.to_owned(), usage)])).unwrap_or_default()
}

fn interfaces(live: &Live) -> Result<BTreeMap<String, NetworkInterface>, Error> {
    // The socket is one for all: two readers would take each other's answers.
    let _alone = live.asking.lock();
    let socket = live.supervisor.netns_socket()?;
    let found = cabin_network::guest_state(socket.as_fd())?;
    let nics = live.nics.lock();
    Ok(found
        .into_iter()
        .map(|interface| {
            let host_name = nics
                .iter()
                .find(|plugged| interface.mac == Some(plugged.nic.mac))
                .map(|plugged| plugged.nic.host_name.to_string())
                .unwrap_or_default();
            (interface.name.clone(), rendered(interface, host_name))
        })
        .collect())
}

/// An interface as it is shown, without its other end.
pub(crate) fn rendered_interface(interface: InterfaceState) -> NetworkInterface {
    rendered(interface, String::new())
}

fn rendered(interface: InterfaceState, host_name: String) -> NetworkInterface {
    let counters = &interface.counters;
    NetworkInterface {
        counters: NetworkCounters {
            bytes_received: counters.rx_bytes,
            bytes_sent: counters.tx_bytes,
            packets_received: counters.rx_packets,
            packets_sent: counters.tx_packets,
            errors_received: counters.rx_errors,
            errors_sent: counters.tx_errors,
            packets_dropped_outbound: counters.tx_dropped,
            packets_dropped_inbound: counters.rx_dropped,
        },
        addresses: interface
            .addresses
            .iter()
            .map(|address| NetworkAddress {
                family: if address.address.is_ipv4() { "inet" } else { "inet6" }.to_owned(),
                address: address.address.to_string(),
                netmask: address.prefix.to_string(),
                scope: match address.scope {
                    Scope::Global => "global",
                    Scope::Link => "link",
                    Scope::Local => "local",
                }
                .to_owned(),
            })
            .collect(),
        hwaddr: interface.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        host_name,
        mtu: interface.mtu,
        state: if interface.up { "up" } else { "down" }.to_owned(),
        kind: match interface.link {
            LinkType::Loopback => "loopback",
            LinkType::Broadcast => "broadcast",
            _ => "point-to-point",
        }
        .to_owned(),
    }
}
