//! `list`: the filters are the daemon's work, as far as it can; the columns are ours.

use std::net::IpAddr;

use cabin_api::instance::InstanceFull;
use cabin_client::{Client, Recursion};
use serde_json::value::RawValue;

use super::Context;
use crate::cli::instance::List;
use crate::output::instance::{Column, columns, rows};
use crate::{output, words};

/// Columns that are quick to have.
const FAST: &str = "nsacPt";

/// `list`.
pub async fn run(context: &Context, args: &List) -> anyhow::Result<()> {
    let format = args.format.format;
    let chosen = if args.fast { FAST } else { args.columns.as_str() };
    let mut wanted = columns(chosen)?;
    if args.all_projects && !wanted.contains(&Column::Project) {
        wanted.insert(0, Column::Project);
    }
    let filters: Vec<Filter> = args.filter.iter().map(|word| Filter::parse(word)).collect();
    let needs_state = format.wants_objects()
        || wanted.iter().any(Column::needs_state)
        || filters.iter().any(|filter| matches!(filter, Filter::Address(..)));
    let recursion = if needs_state && !args.fast { Recursion::Full } else { Recursion::Objects };
    let asked = server_filter(&filters);
    let address = Client::instances_address(recursion, asked.as_deref(), args.all_projects);
    let whole = format.wants_objects();
    let address = if whole { address } else { Client::with_fields(address, &fields(&wanted, &filters)) };
    let client = context.client().await?;
    let here: Vec<&Filter> = filters.iter().filter(|filter| matches!(filter, Filter::Address(..))).collect();
    if format.wants_json() && here.is_empty() {
        // As the daemon wrote it: there is nothing to add.
        let text: Box<RawValue> = client.get(address).await?;
        output::line(text.get())?;
        return Ok(());
    }
    let mut instances: Vec<InstanceFull> = client.get(address).await?;
    instances.retain(|full| here.iter().all(|filter| filter.holds(full)));
    let by = |full: &InstanceFull| (full.instance.project.clone(), full.instance.name.clone());
    instances.sort_by_key(by);
    output::table::show(format, &instances, || rows(&wanted, &instances))
}

/// What of states is looked up: no more than is shown or asked about, for each costs a look at every instance.
fn fields(wanted: &[Column], filters: &[Filter]) -> String {
    let by_address = filters.iter().any(|filter| matches!(filter, Filter::Address(..)));
    let mut fields: Vec<&str> = wanted.iter().filter_map(Column::field).collect();
    fields.extend(by_address.then_some("state.network"));
    fields.sort_unstable();
    fields.dedup();
    fields.join(",")
}

/// What must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    /// A name, its beginning, or a regular expression.
    Name(String),
    /// A field or key has one of some values.
    Field(String, Vec<String>),
    /// An address of one of its interfaces, in a range.
    Address(IpAddr, u8),
}

impl Filter {
    fn parse(word: &str) -> Filter {
        let Some((key, value)) = word.split_once('=') else {
            return Filter::Name(word.to_owned());
        };
        if matches!(key, "ipv4" | "ipv6")
            && let Some((address, length)) = network(value)
        {
            return Filter::Address(address, length);
        }
        let field = match key {
            "state" => "status".to_owned(),
            _ if key.contains('.') && !key.starts_with("devices.") && !key.starts_with("config.") => {
                format!("expanded_config.{key}")
            }
            _ => key.to_owned(),
        };
        Filter::Field(field, value.split(',').map(str::to_owned).collect())
    }

    /// The filter in the daemon's language.
    fn asked(&self) -> Option<String> {
        match self {
            Filter::Name(name) => Some(format!("name eq (^{name}$|^{name}.*)")),
            Filter::Field(field, values) => match values.as_slice() {
                [value] => Some(format!("{field} eq {}", words::filter_value(value))),
                // A regular expression that is one of them.
                several => Some(format!("{field} eq ({})", several.join("|"))),
            },
            Filter::Address(..) => None,
        }
    }

    fn holds(&self, full: &InstanceFull) -> bool {
        let Filter::Address(base, length) = self else { return true };
        let interfaces = full.state.iter().flat_map(|state| state.network.values());
        interfaces
            .flat_map(|interface| &interface.addresses)
            .filter_map(|address| address.address.parse().ok())
            .any(|address| within(address, *base, *length))
    }
}

fn server_filter(filters: &[Filter]) -> Option<String> {
    let asked: Vec<String> = filters.iter().filter_map(Filter::asked).collect();
    (!asked.is_empty()).then(|| asked.join(" and "))
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address.parse().ok()?, length.parse().ok()?),
        None => (text.parse().ok()?, 128),
    };
    Some((address, length))
}

/// Whether an address lies in a range; a length beyond the address's own is all of it.
fn within(address: IpAddr, base: IpAddr, length: u8) -> bool {
    let shift = |width: u8| u32::from(width.saturating_sub(length));
    match (address, base) {
        (IpAddr::V4(address), IpAddr::V4(base)) => {
            (address.to_bits() ^ base.to_bits()).checked_shr(shift(32)).is_none_or(|rest| rest == 0)
        }
        (IpAddr::V6(address), IpAddr::V6(base)) => {
            (address.to_bits() ^ base.to_bits()).checked_shr(shift(128)).is_none_or(|rest| rest == 0)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_the_daemons_filters() {
        let check = |words: &[&str], expected: Option<&str>| {
            let filters: Vec<Filter> = words.iter().map(|word| Filter::parse(word)).collect();
            assert_eq!(server_filter(&filters).as_deref(), expected, "{words:?}");
        };
        check(&[], None);
        check(&["web"], Some("name eq (^web$|^web.*)"));
        check(&["status=running", "user.a=b"], Some("status eq running and expanded_config.user.a eq b"));
        check(&["state=running,frozen"], Some("status eq (running|frozen)"));
        check(&["description=two words"], Some("description eq \"two words\""));
        check(&["ipv4=10.0.0.0/8"], None);
    }

    #[test]
    fn ranges_hold_their_addresses() {
        let check = |address: &str, range: &str, expected: bool| {
            let (base, length) = network(range).unwrap();
            assert_eq!(within(address.parse().unwrap(), base, length), expected, "{address} {range}");
        };
        check("10.1.2.3", "10.0.0.0/8", true);
        check("11.1.2.3", "10.0.0.0/8", false);
        check("10.1.2.3", "10.1.2.3", true);
        check("10.1.2.4", "10.1.2.3", false);
        check("10.1.2.4", "0.0.0.0/0", true);
        check("fd42::1", "fd42::/64", true);
        check("fd43::1", "fd42::/64", false);
        check("10.1.2.4", "fd42::/64", false);
    }
}
