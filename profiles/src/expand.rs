//! Profiles under what an instance has itself.

use crate::{Config, Devices};

/// What an instance is in the end: its profiles in order, then its own config and devices on top. A later
/// value wins; a device is replaced whole; one of type `none` takes an earlier one of its name away.
/// A key that is set to nothing takes an earlier value away too.
#[must_use]
pub fn expand(profiles: &[(&Config, &Devices)], local: (&Config, &Devices)) -> (Config, Devices) {
    let (mut config, mut devices) = (Config::new(), Devices::new());
    for (more_config, more_devices) in profiles.iter().copied().chain([local]) {
        config.extend(more_config.iter().map(|(key, value)| (key.clone(), value.clone())));
        devices.extend(more_devices.iter().map(|(name, device)| (name.clone(), device.clone())));
    }
    config.retain(|_, value| !value.is_empty());
    devices.retain(|_, device| device.get("type").is_none_or(|kind| kind != "none"));
    (config, devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Config {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn devices(list: &[(&str, &[(&str, &str)])]) -> Devices {
        list.iter().map(|(name, pairs)| ((*name).to_owned(), config(pairs))).collect()
    }

    #[test]
    fn later_profiles_win_and_the_instance_wins_over_all() {
        let (first, second) =
            (config(&[("a", "1"), ("b", "1"), ("c", "1")]), config(&[("b", "2"), ("c", "2")]));
        let (none, own) = (Devices::new(), config(&[("c", "3")]));
        let (all, _) = expand(&[(&first, &none), (&second, &none)], (&own, &none));
        assert_eq!(all, config(&[("a", "1"), ("b", "2"), ("c", "3")]));
    }

    #[test]
    fn an_empty_value_takes_the_inherited_one_away() {
        let (profile, own, none) = (config(&[("a", "1")]), config(&[("a", "")]), Devices::new());
        assert!(expand(&[(&profile, &none)], (&own, &none)).0.is_empty());
    }

    #[test]
    fn a_device_is_replaced_whole() {
        let profile = devices(&[("eth0", &[("type", "nic"), ("network", "a"), ("mtu", "1400")])]);
        let own = devices(&[("eth0", &[("type", "nic"), ("network", "b")])]);
        let none = Config::new();
        assert_eq!(expand(&[(&none, &profile)], (&none, &own)).1, own);
    }

    #[test]
    fn a_device_of_type_none_masks_an_inherited_one() {
        let profile =
            devices(&[("eth0", &[("type", "nic"), ("network", "a")]), ("root", &[("type", "disk")])]);
        let own = devices(&[("eth0", &[("type", "none")])]);
        let none = Config::new();
        assert_eq!(expand(&[(&none, &profile)], (&none, &own)).1, devices(&[("root", &[("type", "disk")])]));
    }
}
