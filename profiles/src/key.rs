//! The table of instance config keys. What is not in it is not implemented, and is refused.

use crate::kind::Kind;

/// Who may set a key once projects can be restricted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restriction {
    /// Everybody who may change the object.
    Free,
    /// Widens what the instance may do to run containers inside.
    Nesting,
    /// Takes the boundary to the host away.
    Privilege,
    /// Reaches parts of the host, or text a host program reads.
    LowLevel,
    /// The daemon's to write; kept when a client sends it back.
    Server,
}

/// Where a key of the instance table may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In instances and profiles.
    Everywhere,
    /// In instances alone.
    Instance,
}

/// One declaration: of a config key or a device property.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The name; one that ends in `*` stands for all names with that prefix.
    pub name: &'static str,
    /// What values must be.
    pub kind: Kind,
    /// What not setting it means, where that is one fixed value.
    pub default: Option<&'static str>,
    /// Whether a change reaches what is running; if not, it counts from the next start.
    pub live: bool,
    /// Who may set it.
    pub restriction: Restriction,
    /// Where it may stand.
    pub scope: Scope,
    /// For people, one sentence without period.
    pub help: &'static str,
}

impl Key {
    /// A free key that takes effect at the next start.
    #[must_use]
    pub const fn new(name: &'static str, kind: Kind, help: &'static str) -> Key {
        Key {
            name,
            kind,
            default: None,
            live: false,
            restriction: Restriction::Free,
            scope: Scope::Everywhere,
            help,
        }
    }

    /// With what not setting it means.
    #[must_use]
    pub const fn default(self, value: &'static str) -> Key {
        Key { default: Some(value), ..self }
    }

    /// Applied to what is running.
    #[must_use]
    pub const fn live(self) -> Key {
        Key { live: true, ..self }
    }

    /// With who may set it.
    #[must_use]
    pub const fn restricted(self, restriction: Restriction) -> Key {
        Key { restriction, ..self }
    }

    /// Not in profiles.
    #[must_use]
    pub const fn instance_only(self) -> Key {
        Key { scope: Scope::Instance, ..self }
    }

    /// Whether this declaration is about `name`.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(prefix) => name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()),
            None => self.name == name,
        }
    }
}

/// The names of `limits.kernel.*`, as setrlimit(2) has them.
pub const RLIMITS: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

const ISOLATED: &str = "every instance has ids of its own here";

/// The config keys of instances and profiles.
pub const INSTANCE: &[Key] = &[
    Key::new(
        "boot.autorestart",
        Kind::Bool,
        "Start it again when its init ends by itself (at most ten times a minute)",
    )
    .default("false")
    .live(),
    Key::new(
        "boot.autostart",
        Kind::OneOf(&["true", "false", "last-state"]),
        "Start it with the daemon; unset or `last-state` starts what was running before",
    )
    .default("last-state")
    .live(),
    Key::new(
        "boot.autostart.delay",
        Kind::Integer(0, 86_400),
        "Seconds to wait after starting it, before the next",
    )
    .default("0")
    .live(),
    Key::new("boot.autostart.priority", Kind::Integer(-1_000_000, 1_000_000), "Higher is started earlier")
        .default("0")
        .live(),
    Key::new(
        "boot.host_shutdown_action",
        Kind::OneOf(&["stop", "force-stop"]),
        "How it is stopped with the host",
    )
    .default("stop")
    .live(),
    Key::new(
        "boot.host_shutdown_timeout",
        Kind::Integer(0, 86_400),
        "Seconds it gets to stop cleanly with the host before it is killed",
    )
    .default("30")
    .live(),
    Key::new("boot.stop.priority", Kind::Integer(-1_000_000, 1_000_000), "Higher is stopped earlier")
        .default("0")
        .live(),
    Key::new("environment.*", Kind::Blob, "A variable in the environment of init and of commands run inside")
        .live(),
    Key::new("image.*", Kind::Blob, "A property of the image it was made from").live().instance_only(),
    Key::new("limits.cpu", Kind::Cpus, "How many or which processors it may use; unset is all").live(),
    Key::new("limits.cpu.allowance", Kind::Allowance, "How much of the processors' time it gets")
        .default("100%")
        .live(),
    Key::new("limits.kernel.*", Kind::Rlimit, "A resource limit (setrlimit) that its init starts with"),
    Key::new("limits.memory", Kind::Memory, "Most memory it may use; unset is all").live(),
    Key::new(
        "limits.memory.enforce",
        Kind::OneOf(&["hard", "soft"]),
        "Whether more memory than the limit is refused, or only reclaimed first",
    )
    .default("hard")
    .live(),
    Key::new(
        "limits.memory.swap",
        Kind::Swap,
        "The host's swap it may use: `true` any, `false` none, or so many bytes",
    )
    .default("true")
    .live(),
    Key::new(
        "limits.processes",
        Kind::Integer(1, 4_194_304),
        "Most processes and threads; unset is a quarter of what the host's kernel has room for, at most 16384",
    )
    .live(),
    Key::new(
        "security.idmap.isolated",
        Kind::OnlyTrue(ISOLATED),
        "Host user ids shared with no other instance",
    )
    .default("true"),
    Key::new("security.nesting", Kind::Bool, "Let containers be run inside")
        .default("false")
        .restricted(Restriction::Nesting),
    Key::new("security.privileged", Kind::Bool, "Run without a user namespace: no boundary to the host")
        .default("false")
        .restricted(Restriction::Privilege),
    Key::new("security.protection.delete", Kind::Bool, "Refuse to delete it").default("false").live(),
    Key::new("snapshots.expiry", Kind::Expiry, "How long its snapshots are kept, such as `1d 12H`; unset is for ever")
        .live(),
    Key::new(
        "snapshots.expiry.manual",
        Kind::Expiry,
        "The same for those that somebody asks for; unset is as `snapshots.expiry`",
    )
    .live(),
    Key::new(
        "snapshots.pattern",
        Kind::SnapshotPattern,
        "The name of a snapshot that is given none: with `%d` for a number, or `{{ creation_date|date:'2006-01-02' }}`",
    )
    .default("snap%d")
    .live(),
    Key::new(
        "snapshots.schedule",
        Kind::Schedule,
        "When snapshots are taken by themselves: cron's five fields, or `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly`, `@yearly`, `@startup`; several with a comma and a space between; `@never` against a profile's",
    )
    .live(),
    Key::new("snapshots.schedule.stopped", Kind::Bool, "Take them of a stopped instance too").default("false").live(),
    Key::new("user.*", Kind::Blob, "Anything you like").live(),
    Key::new("volatile.*", Kind::Blob, "What the daemon remembers")
        .live()
        .restricted(Restriction::Server)
        .instance_only(),
];

/// Keys of Incus that will not come, with the reason.
pub const REFUSED: &[(&str, &str)] = &[
    ("raw.lxc", "there is no LXC underneath"),
    ("raw.apparmor", "AppArmor profiles are not taken from outside"),
    ("raw.qemu*", "only containers are run"),
    ("agent.*", "only containers are run"),
    ("nvidia.*", "NVIDIA's container runtime is not used"),
];

/// The declaration in `table` that is about `name`, the exact one before a prefix.
#[must_use]
pub fn find(table: &'static [Key], name: &str) -> Option<&'static Key> {
    table.iter().find(|key| key.name == name).or_else(|| table.iter().find(|key| key.covers(name)))
}

/// Who may set the instance config key `name`, if there is such a key.
#[must_use]
pub fn restriction(name: &str) -> Option<Restriction> {
    find(INSTANCE, name).map(|key| key.restriction)
}

/// Whether a change of the instance config key `name` reaches a running instance.
#[must_use]
pub fn is_live(name: &str) -> bool {
    find(INSTANCE, name).is_some_and(|key| key.live)
}

/// The name in `names` that somebody who wrote `name` may have meant.
#[must_use]
pub fn nearest<'a>(names: impl IntoIterator<Item = &'a str>, name: &str) -> Option<String> {
    if name.len() > 80 {
        return None;
    }
    let guess = |known: &str| match known.strip_suffix('*') {
        // A prefix: compare the part before the last dot and keep what was written after it.
        Some(prefix) => {
            let (head, tail) = name.split_at_checked(name.find('.')? + 1)?;
            (!tail.is_empty() && head != prefix).then(|| (distance(prefix, head), format!("{prefix}{tail}")))
        }
        None => Some((distance(known, name), known.to_owned())),
    };
    let (far, best) = names.into_iter().filter_map(guess).min_by_key(|(far, _)| *far)?;
    (far <= 1 + name.len() / 8).then_some(best)
}

/// How many letters must be added, dropped, changed or swapped with the next one.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let mut least = (rows[i][j] + usize::from(a != b)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && left[i - 1] == *b && right[j - 1] == *a {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_declared_once_and_in_order() {
        let names: Vec<&str> = INSTANCE.iter().map(|key| key.name).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
    }

    #[test]
    fn every_default_is_a_value_the_key_takes() {
        for key in INSTANCE {
            if let Some(value) = key.default {
                assert_eq!(key.kind.check(value), Ok(()), "{}", key.name);
            }
            assert!(!key.help.ends_with('.') && !key.help.is_empty(), "{}", key.name);
        }
    }

    #[test]
    fn a_prefix_covers_what_follows_it_but_not_itself() {
        assert!(find(INSTANCE, "user.a").is_some());
        assert!(find(INSTANCE, "user.").is_none());
        assert!(find(INSTANCE, "user").is_none());
        assert_eq!(find(INSTANCE, "limits.memory").map(|key| key.name), Some("limits.memory"));
    }

    #[test]
    fn a_slip_of_the_pen_is_recognised() {
        let check = |name: &str, expected: Option<&str>| {
            let names = INSTANCE.iter().map(|key| key.name);
            assert_eq!(nearest(names, name).as_deref(), expected, "{name}");
        };
        check("limits.memroy", Some("limits.memory"));
        check("limit.cpu", Some("limits.cpu"));
        check("security.nestin", Some("security.nesting"));
        check("enviroment.A", Some("environment.A"));
        check("usr.a", Some("user.a"));
        check("cloud-init.user-data", None);
        check("", None);
        check("x", None);
    }

    #[test]
    fn limits_are_live_and_the_boundary_is_not() {
        assert!(is_live("limits.memory") && is_live("environment.A") && is_live("boot.autostart"));
        assert!(!is_live("security.privileged") && !is_live("security.nesting") && !is_live("no.such.key"));
    }
}
