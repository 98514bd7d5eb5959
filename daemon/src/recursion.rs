//! Lists as clients ask for them: addresses, objects or whole objects; filtered.

use cabin_core::instance::Looks;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::Value;

use crate::call::Call;
use crate::error::Fault;
use crate::filter::Filter;
use crate::reply::{self, Reply};

/// What stays as it is in one part of an address (RFC 3986, unreserved).
const PART: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How much of each object a list holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recursion {
    /// Addresses.
    Addresses,
    /// Objects.
    Objects,
    /// Objects with all that belongs to them.
    Full,
}

impl Recursion {
    /// What `?recursion=` says. What is no number means 0, as in Incus; words after a `;` are ignored.
    #[must_use]
    pub fn of(call: &Call) -> Recursion {
        Recursion::parse(call.query("recursion").unwrap_or_default())
    }

    fn parse(text: &str) -> Recursion {
        match text.split(';').next().unwrap_or_default().trim().parse::<u32>() {
            Ok(0) | Err(_) => Recursion::Addresses,
            Ok(1) => Recursion::Objects,
            Ok(_) => Recursion::Full,
        }
    }
}

/// The filter of a call.
///
/// # Errors
/// When it does not follow the language.
pub fn filter(call: &Call) -> Result<Filter, Fault> {
    Filter::parse(call.query("filter").unwrap_or_default())
}

/// The address of an object: `base` and its name, safely written.
#[must_use]
pub fn address(base: &str, name: &str) -> String {
    format!("{base}/{}", utf8_percent_encode(name, &PART))
}

/// A list: filtered, then addresses or objects.
///
/// # Errors
/// When the filter is wrong or an object cannot be written as JSON.
pub fn list<T: Serialize>(
    call: &Call,
    objects: &[T],
    to_address: impl Fn(&T) -> String,
) -> Result<Reply, Fault> {
    let filter = filter(call)?;
    let addresses = Recursion::of(call) == Recursion::Addresses;
    if !addresses && filter.is_empty() {
        return Reply::list(objects);
    }
    let mut list = Vec::with_capacity(objects.len());
    for object in objects {
        if addresses && filter.is_empty() {
            list.push(Value::String(to_address(object)));
            continue;
        }
        let value = reply::to_value(object)?;
        if filter.matches(&value) {
            list.push(if addresses { Value::String(to_address(object)) } else { value });
        }
    }
    Ok(Reply::Sync(Value::Array(list)))
}

/// What of states is looked up. `?recursion=2;fields=state.disk,state.network` names of these two the ones that are
/// wanted (LXD's `instances_state_selective_recursion`); all else is there. `&fields=…`, which a server that does not know
/// it leaves alone, names all that is: `state.usage` is the third. Without either all is looked up.
pub fn looks(call: &Call) -> Looks {
    match call.query("fields") {
        Some(fields) => looks_of_fields(fields),
        None => looks_of(call.query("recursion").unwrap_or_default()),
    }
}

fn looks_of(text: &str) -> Looks {
    match text.split(';').find_map(|word| word.trim().strip_prefix("fields=")) {
        None => Looks::ALL,
        Some(fields) => Looks { usage: true, ..looks_of_fields(fields) },
    }
}

fn looks_of_fields(fields: &str) -> Looks {
    let named = |field| fields.split(',').any(|one| one.trim() == field);
    Looks { disk: named("state.disk"), network: named("state.network"), usage: named("state.usage") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_slashes_of_names_apart_from_their_own() {
        assert_eq!(address("/1.0/images/aliases", "debian/12"), "/1.0/images/aliases/debian%2F12");
        assert_eq!(address("/1.0/instances", "web-1"), "/1.0/instances/web-1");
    }

    #[test]
    fn only_what_is_named_is_looked_up() {
        let only = |disk, network| Looks { disk, network, usage: true };
        for (text, expected) in [
            ("2", Looks::ALL),
            ("2;x=1", Looks::ALL),
            ("2;fields=", only(false, false)),
            ("2;fields=state.disk", only(true, false)),
            ("2;fields=state.network,state.disk", Looks::ALL),
        ] {
            assert_eq!(looks_of(text), expected, "{text}");
        }
        assert_eq!(looks_of_fields("state.network"), Looks { disk: false, network: true, usage: false });
    }

    #[test]
    fn recursion_is_read_as_incus_reads_it() {
        for (text, expected) in [
            ("", Recursion::Addresses),
            ("0", Recursion::Addresses),
            ("x", Recursion::Addresses),
            ("1", Recursion::Objects),
            ("2", Recursion::Full),
            ("2;fields=state.disk", Recursion::Full),
        ] {
            assert_eq!(Recursion::parse(text), expected, "{text}");
        }
    }
}
