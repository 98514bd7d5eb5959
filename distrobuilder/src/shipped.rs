//! The definitions that come with Cabin, and the names images made from them have.

use crate::definition::Definition;
use crate::error::{Error, Result};

/// A shipped definition under one name.
#[derive(Debug, Clone, Copy)]
pub struct Shipped {
    /// The name, which is the alias of the image: `debian/12`.
    pub name: &'static str,
    /// For people.
    pub summary: &'static str,
    definition: &'static str,
    options: &'static [(&'static str, &'static str)],
}

const DEBIAN: &str = include_str!("../images/debian.yaml");
const BUSYBOX: &str = include_str!("../images/busybox.yaml");

const SHIPPED: &[Shipped] = &[
    Shipped {
        name: "debian/12",
        summary: "Debian 12 (bookworm) with systemd",
        definition: DEBIAN,
        options: &[("image.release", "bookworm")],
    },
    Shipped {
        name: "debian/12/sysvinit",
        summary: "Debian 12 (bookworm) with sysvinit",
        definition: DEBIAN,
        options: &[("image.release", "bookworm"), ("image.variant", "sysvinit")],
    },
    Shipped {
        name: "debian/13",
        summary: "Debian 13 (trixie) with systemd",
        definition: DEBIAN,
        options: &[("image.release", "trixie")],
    },
    Shipped {
        name: "debian/sid",
        summary: "Debian unstable with systemd",
        definition: DEBIAN,
        // Its lists are good for a week only, and mirrors lag.
        options: &[("image.release", "sid"), ("source.check_valid_until", "false")],
    },
    Shipped {
        name: "busybox",
        summary: "busybox as init and as everything else",
        definition: BUSYBOX,
        options: &[],
    },
];

/// The shipped definitions.
#[must_use]
pub fn shipped() -> &'static [Shipped] {
    SHIPPED
}

/// The definition shipped as `name`, with `options` set over it.
///
/// # Errors
/// When there is none of that name, or an option is unknown.
pub fn find(name: &str, options: &[(String, String)]) -> Result<Definition> {
    let Some(entry) = SHIPPED.iter().find(|entry| entry.name == name) else {
        let known = SHIPPED.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
        return Err(Error::Unknown { name: name.to_owned(), known });
    };
    let own = entry.options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Definition::parse(name, entry.definition, &own.chain(options.iter().cloned()).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_definition_can_be_read() {
        for entry in shipped() {
            let definition = find(entry.name, &[]).unwrap();
            assert!(definition.fill("it", &definition.image.description).is_ok(), "{}", entry.name);
        }
        assert!(find("plan/9", &[]).unwrap_err().to_string().contains("debian/12"));
    }
}
