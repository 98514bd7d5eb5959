//! The profiles that come with Cabin.

/// Name and document of each, `default` first.
pub const SHIPPED: &[(&str, &str)] = &[
    ("default", include_str!("../default.yaml")),
    ("small", include_str!("../small.yaml")),
    ("medium", include_str!("../medium.yaml")),
    ("large", include_str!("../large.yaml")),
    ("nesting", include_str!("../nesting.yaml")),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Document;

    #[test]
    fn every_shipped_profile_is_valid_and_bears_its_name() {
        for (name, text) in SHIPPED {
            let document = Document::parse(text).unwrap();
            assert_eq!(document.name, *name);
            assert!(!document.description.is_empty(), "{name}");
        }
    }

    #[test]
    fn the_default_profile_is_enough_for_an_instance() {
        let document = Document::parse(SHIPPED[0].1).unwrap();
        crate::validate_expanded_devices(&document.devices).unwrap();
    }
}
