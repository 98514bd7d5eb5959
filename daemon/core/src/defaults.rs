//! What a fresh daemon has: profiles, and unless it is to be bare, a pool, a network and devices for
//! them in profile `default`.

use std::sync::Arc;

use cabin_profiles::{Document, SHIPPED};
use cabin_store::rows;
use cabin_undo::atomically;

use crate::{DEFAULT_PROJECT, Error, Host, resolve};

/// The network of a fresh host, before its number: the first one that no interface of the host has.
const NETWORK: &str = "cabinbr";
/// How many numbers are tried.
const NUMBERS: u32 = 100;
/// The pool of a fresh host.
const POOL: &str = "default";

/// Whether the defaults were made, or were not wanted: whether this state has been used before.
///
/// # Errors
/// When the rows cannot be read.
pub(crate) fn made(host: &Host) -> Result<bool, Error> {
    let server = host.store().rows::<rows::Server>().get(DEFAULT_PROJECT, "server")?;
    Ok(server.is_some_and(|found| found.row.initialised))
}

/// Makes the defaults once. What a user changed or deleted later stays so.
///
/// # Errors
/// When the rows cannot be written. What the host refuses (no dnsmasq, say) is logged and left out: the
/// daemon must come up so that a user can be told.
pub(crate) fn ensure(host: &Arc<Host>) -> Result<(), Error> {
    if made(host)? {
        return Ok(());
    }
    let mut txn = host.store().begin();
    let bare = host.settings().bare;
    let (mut pool, mut network) = (false, None);
    if !bare {
        match make_pool(host) {
            Ok(row) => {
                txn = txn.write(DEFAULT_PROJECT, POOL, &row)?;
                pool = true;
            }
            Err(error) => tracing::error!(error = %error.report(), "the default storage pool cannot be made"),
        }
        match make_network(host) {
            Ok((name, row)) => {
                txn = txn.write(DEFAULT_PROJECT, &name, &row)?;
                network = Some(name);
            }
            Err(error) => tracing::error!(error = %error.report(), "the default network cannot be made"),
        }
    }
    for (name, text) in SHIPPED {
        let document = Document::parse(text)?;
        let mut row = rows::Profile {
            description: document.description,
            config: document.config,
            devices: document.devices,
        };
        if *name == "default" {
            row.devices.retain(|_, device| match device.get("type").map(String::as_str) {
                Some("disk") => pool,
                Some("nic") => network.as_ref().is_some_and(|network| {
                    device.insert("network".to_owned(), network.clone());
                    true
                }),
                _ => true,
            });
        } else if bare {
            continue;
        }
        txn = txn.write(DEFAULT_PROJECT, name, &row)?;
    }
    let server = rows::Server { config: rows::Config::new(), initialised: true };
    txn.write(DEFAULT_PROJECT, "server", &server)?.commit()?;
    Ok(())
}

fn make_pool(host: &Arc<Host>) -> Result<rows::Pool, Error> {
    let on_btrfs =
        cabin_sys::btrfs::is_btrfs(host.dir()).map_err(Error::io("look at the daemon's directory"))?;
    let driver = if on_btrfs { "btrfs" } else { "overlay" };
    let row = rows::Pool { driver: driver.to_owned(), ..rows::Pool::default() };
    let spec = crate::storage::spec(host, POOL, &row)?;
    // A first start that died may have left a pool, or half of one. What holds volumes is another matter:
    // their rows are lost, and the next start would take them for strays.
    host.storage().delete_stray(POOL)?;
    atomically(|undo| host.storage().create_pool(&spec, undo).map_err(Error::from))?;
    Ok(row)
}

/// The network by the name it got: another daemon of this host may have the first.
fn make_network(host: &Arc<Host>) -> Result<(String, rows::Network), Error> {
    let mut config = rows::Config::new();
    resolve::resolve_auto(host, &mut config, true)?;
    let row = rows::Network { kind: "bridge".to_owned(), config, ..rows::Network::default() };
    for name in (0..NUMBERS).map(|number| format!("{NETWORK}{number}")) {
        if host.network().host_state(&resolve::interface(&name)?)?.is_none() {
            let spec = resolve::bridge(&name, &row)?;
            atomically(|undo| host.network().create_bridge(&spec, undo).map_err(Error::from))?;
            return Ok((name, row));
        }
    }
    Err(Error::Exists {
        what: "interface",
        name: format!("{NETWORK}{}` and every one before `it", NUMBERS - 1),
    })
}
