//! The kernel's switches of an interface beneath /proc/sys/net.

use std::io::Write;
use std::path::Path;

use cabin_sys::dir::HostDir;

use crate::error::{Error, Result};
use crate::spec::BridgeSpec;

/// Sets a bridge's switches, and the host's forwarding when the bridge is routed.
pub fn apply(spec: &BridgeSpec) -> Result<()> {
    let name = spec.name.as_str();
    let four = spec.ipv4.as_ref().is_some_and(|side| side.routing);
    let six = spec.ipv6.as_ref().is_some_and(|side| side.routing);
    if four {
        // Switching it on resets some switches of every interface, so it comes before the bridge's own.
        forward_ipv4()?;
    }
    if six {
        forward_ipv6()?;
    }
    for (setting, value) in [
        ("ipv4/conf/*/rp_filter", "1"),
        ("ipv4/conf/*/arp_ignore", "1"),
        ("ipv4/conf/*/arp_announce", "2"),
        ("ipv4/conf/*/accept_redirects", "0"),
        ("ipv4/conf/*/send_redirects", "0"),
        ("ipv4/conf/*/accept_source_route", "0"),
        ("ipv4/conf/*/forwarding", if four { "1" } else { "0" }),
    ] {
        set(name, setting, value)?;
    }
    if !has_ipv6() {
        return Ok(());
    }
    // A guest's router advertisements and redirects must not change the host's routes.
    for (setting, value) in [
        // The link-local address is given like the others, so that it is there before a port has a carrier.
        ("ipv6/conf/*/addr_gen_mode", "1"),
        ("ipv6/conf/*/accept_ra", "0"),
        ("ipv6/conf/*/autoconf", "0"),
        ("ipv6/conf/*/accept_redirects", "0"),
        ("ipv6/conf/*/accept_dad", "0"),
        ("ipv6/conf/*/disable_ipv6", if spec.ipv6.is_some() { "0" } else { "1" }),
        ("ipv6/conf/*/forwarding", if six { "1" } else { "0" }),
    ] {
        set(name, setting, value)?;
    }
    Ok(())
}

/// Keeps the host from speaking IPv6 on a port itself.
pub fn silence_port(name: &str) -> Result<()> {
    if has_ipv6() { set(name, "ipv6/conf/*/disable_ipv6", "1") } else { Ok(()) }
}

/// Lets nothing that comes in by an interface change the host's routes.
pub fn distrust(name: &str) -> Result<()> {
    set(name, "ipv4/conf/*/accept_redirects", "0")?;
    if !has_ipv6() {
        return Ok(());
    }
    let settings = ["ipv6/conf/*/accept_ra", "ipv6/conf/*/autoconf", "ipv6/conf/*/accept_redirects"];
    settings.iter().try_for_each(|setting| set(name, setting, "0"))
}

fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").is_dir()
}

fn forward_ipv4() -> Result<()> {
    if get("all", "ipv4/conf/*/forwarding")? == "1" {
        return Ok(());
    }
    set("all", "ipv4/conf/*/forwarding", "1")
}

/// A host that forwards no longer listens to router advertisements, unless it is told to do both: where it
/// listened before, it goes on.
fn forward_ipv6() -> Result<()> {
    if get("all", "ipv6/conf/*/forwarding")? == "1" {
        return Ok(());
    }
    let failed = |source| Error::Setting { setting: "ipv6/conf", name: "all".to_owned(), source };
    let interfaces = root("ipv6/conf").and_then(|dir| dir.list()).map_err(failed)?;
    for interface in interfaces {
        // One that vanishes meanwhile is no loss.
        if get(&interface.name, "ipv6/conf/*/accept_ra").is_ok_and(|value| value == "1") {
            let _ = set(&interface.name, "ipv6/conf/*/accept_ra", "2");
        }
    }
    set("all", "ipv6/conf/*/forwarding", "1")
}

fn root(below: &str) -> std::io::Result<HostDir> {
    HostDir::open(Path::new("/proc/sys/net"))?.open_dir(below)
}

fn set(name: &str, setting: &'static str, value: &str) -> Result<()> {
    let write = || {
        let (family, switch) = setting.split_once("/*/").unwrap_or((setting, ""));
        let mut file = root(family)?.append_file(&format!("{name}/{switch}"), 0o644)?;
        file.write_all(value.as_bytes())
    };
    write().map_err(|source| Error::Setting { setting, name: name.to_owned(), source })
}

fn get(name: &str, setting: &'static str) -> Result<String> {
    let read = || {
        let (family, switch) = setting.split_once("/*/").unwrap_or((setting, ""));
        let bytes = root(family)?.read(&format!("{name}/{switch}"), 4096)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    read().map_err(|source| Error::Setting { setting, name: name.to_owned(), source })
}
