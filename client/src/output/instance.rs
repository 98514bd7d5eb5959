//! Instances for people: the columns of `list`.

use anyhow::bail;
use cabin_api::instance::{InstanceFull, InstanceState};

use super::Table;
use super::text;

/// A column of `list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column {
    /// What a letter stands for.
    Letter(char),
    /// The project.
    Project,
    /// A key of the config or a device, with its head and greatest width.
    Key {
        /// Where it lies.
        place: Place,
        /// The key.
        key: String,
        /// The head.
        head: String,
        /// The width; none for as wide as it is.
        width: Option<usize>,
    },
}

/// Where a key lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the expanded config.
    Config,
    /// In the expanded devices, as DEVICE.KEY.
    Devices,
}

/// What a column is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// What is stored of the instance.
    Row,
    /// What belongs to it beside that.
    Full,
    /// A field of its state that has to be looked up.
    State(&'static str),
}

const NETWORK: From = From::State("state.network");
const USAGE: From = From::State("state.usage");

/// Letters, heads, and what they are made from.
const LETTERS: &[(char, &str, From)] = &[
    ('4', "IPV4", NETWORK),
    ('6', "IPV6", NETWORK),
    ('a', "ARCHITECTURE", From::Row),
    ('b', "STORAGE POOL", From::Row),
    ('c', "CREATED AT", From::Row),
    ('d', "DESCRIPTION", From::Row),
    ('D', "DISK USAGE", From::State("state.disk")),
    ('f', "BASE IMAGE", From::Row),
    ('F', "BASE IMAGE", From::Row),
    ('l', "LAST USED AT", From::Row),
    ('L', "LOCATION", From::Row),
    ('m', "MEMORY USAGE", USAGE),
    ('M', "MEMORY USAGE%", USAGE),
    ('n', "NAME", From::Row),
    ('N', "PROCESSES", USAGE),
    ('p', "PID", From::Full),
    ('P', "PROFILES", From::Row),
    ('s', "STATE", From::Row),
    ('S', "SNAPSHOTS", From::Full),
    ('t', "TYPE", From::Row),
    ('u', "CPU USAGE", USAGE),
    ('U', "STARTED AT", From::Full),
];

/// The columns a word such as `ns46` or `n,user.owner:OWNER` asks for.
pub fn columns(word: &str) -> anyhow::Result<Vec<Column>> {
    let mut columns = Vec::new();
    for part in word.split(',') {
        if part.is_empty() {
            bail!("`{word}` has an empty column");
        }
        if part.contains(['.', ':']) {
            columns.push(key_column(part)?);
            continue;
        }
        for letter in part.chars() {
            columns.push(match letter {
                'e' => Column::Project,
                _ if LETTERS.iter().any(|(known, ..)| *known == letter) => Column::Letter(letter),
                _ => bail!("`{letter}` in `{word}` is no column; `cabin list --help` shows them"),
            });
        }
    }
    Ok(columns)
}

fn key_column(part: &str) -> anyhow::Result<Column> {
    let (place, rest) = match part.split_once(':') {
        Some(("config", rest)) => (Place::Config, rest),
        Some(("devices", rest)) => (Place::Devices, rest),
        _ => (Place::Config, part),
    };
    let mut fields = rest.split(':');
    let key = fields.next().unwrap_or_default().to_owned();
    let head = fields.next().filter(|head| !head.is_empty()).unwrap_or(&key).to_owned();
    let width = match fields.next() {
        None | Some("" | "-1" | "0") => None,
        Some(width) => match width.parse() {
            Ok(width) => Some(width),
            Err(_) => bail!("`{width}` in `{part}` is no width"),
        },
    };
    if place == Place::Devices && !key.contains('.') {
        bail!("`{part}` is not devices:DEVICE.KEY");
    }
    Ok(Column::Key { place, key, head, width })
}

impl Column {
    fn made_from(&self) -> From {
        let Column::Letter(letter) = self else { return From::Row };
        LETTERS.iter().find(|(known, ..)| known == letter).map_or(From::Row, |(.., from)| *from)
    }

    /// Whether it needs a look into the instance.
    pub fn needs_state(&self) -> bool {
        self.made_from() != From::Row
    }

    /// The field of the state it shows.
    pub fn field(&self) -> Option<&'static str> {
        match self.made_from() {
            From::State(field) => Some(field),
            From::Row | From::Full => None,
        }
    }

    fn head(&self) -> String {
        match self {
            Column::Project => "PROJECT".to_owned(),
            Column::Key { head, .. } => head.to_uppercase(),
            Column::Letter(letter) => {
                let found = LETTERS.iter().find(|(known, ..)| known == letter);
                found.map(|(_, head, _)| *head).unwrap_or_default().to_owned()
            }
        }
    }

    fn cell(&self, full: &InstanceFull) -> String {
        let instance = &full.instance;
        match self {
            Column::Project => instance.project.clone(),
            Column::Key { place: Place::Config, key, width, .. } => {
                cut(instance.expanded_config.0.get(key).cloned().unwrap_or_default(), *width)
            }
            Column::Key { place: Place::Devices, key, width, .. } => {
                let value = key.split_once('.').and_then(|(device, property)| {
                    instance.expanded_devices.0.get(device)?.get(property).cloned()
                });
                cut(value.unwrap_or_default(), *width)
            }
            Column::Letter(letter) => letter_cell(*letter, full),
        }
    }
}

/// A table of instances.
pub fn rows(columns: &[Column], instances: &[InstanceFull]) -> Table {
    let mut table = Table::new(columns.iter().map(Column::head));
    for full in instances {
        table.row(columns.iter().map(|column| column.cell(full)));
    }
    table
}

fn letter_cell(letter: char, full: &InstanceFull) -> String {
    let instance = &full.instance;
    let config = |key: &str| instance.expanded_config.0.get(key).cloned().unwrap_or_default();
    match letter {
        'a' => instance.architecture.clone(),
        'b' => root_pool(full),
        'c' => text::time(&instance.created_at),
        'd' => instance.description.clone(),
        'f' => config("volatile.base_image").chars().take(12).collect(),
        'F' => config("volatile.base_image"),
        'l' => text::time(&instance.last_used_at),
        'L' => instance.location.clone(),
        'n' => instance.name.clone(),
        'P' => instance.profiles.join("\n"),
        's' => instance.status.to_uppercase(),
        'S' => full.snapshots.as_ref().map_or(0, Vec::len).to_string(),
        't' if instance.ephemeral => format!("{} (EPHEMERAL)", instance.kind.to_uppercase()),
        't' => instance.kind.to_uppercase().replace('-', " "),
        _ => full.state.as_ref().map(|state| state_cell(letter, state)).unwrap_or_default(),
    }
}

fn state_cell(letter: char, state: &InstanceState) -> String {
    let some = |value: i64, shown: String| if value > 0 { shown } else { String::new() };
    match letter {
        '4' => addresses(state, "inet"),
        '6' => addresses(state, "inet6"),
        'D' => {
            let used = state.disk.get("root").map_or(0, |disk| disk.usage);
            some(used, text::size(used))
        }
        'm' => some(state.memory.usage, text::size(state.memory.usage)),
        'M' => some(state.memory.usage, text::percent(state.memory.usage, state.memory.total)),
        'N' => some(state.processes, state.processes.to_string()),
        'p' => some(state.pid, state.pid.to_string()),
        'u' => some(state.cpu.usage, format!("{}s", text::seconds(state.cpu.usage))),
        'U' => text::time(&state.started_at),
        _ => String::new(),
    }
}

/// Addresses that others can use, each with its interface.
fn addresses(state: &InstanceState, family: &str) -> String {
    let lines = state.network.iter().filter(|(name, _)| *name != "lo").flat_map(|(name, interface)| {
        let usable = interface.addresses.iter();
        let usable = usable.filter(|address| {
            address.family == family && !matches!(address.scope.as_str(), "link" | "local")
        });
        usable.map(move |address| format!("{} ({name})", address.address))
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn root_pool(full: &InstanceFull) -> String {
    let devices = full.instance.expanded_devices.0.values();
    let root = devices
        .into_iter()
        .find(|device| device.get("path").is_some_and(|path| path == "/") && device.contains_key("pool"));
    root.and_then(|device| device.get("pool").cloned()).unwrap_or_default()
}

fn cut(text: String, width: Option<usize>) -> String {
    match width {
        Some(width) => text.chars().take(width).collect(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample() -> InstanceFull {
        serde_json::from_value(json!({
            "name": "web", "status": "Running", "status_code": 103, "type": "container", "ephemeral": true,
            "created_at": "0001-01-01T00:00:00Z", "last_used_at": "0001-01-01T00:00:00Z",
            "project": "default", "profiles": ["a", "b"],
            "expanded_config": {"user.owner": "somebody", "volatile.base_image": "0123456789abcdef"},
            "expanded_devices": {"root": {"type": "disk", "path": "/", "pool": "fast"}},
            "state": {
                "status": "Running", "status_code": 103, "disk": {}, "pid": 42, "processes": 7,
                "memory": {"usage": 1048576, "usage_peak": 0, "total": 4194304, "swap_usage": 0,
                    "swap_usage_peak": 0},
                "cpu": {"usage": 5_000_000_000_i64, "allocated_time": 0}, "started_at": "", "os_info": null,
                "network": {
                    "lo": {"addresses": [{"family": "inet", "address": "127.0.0.1", "netmask": "8",
                        "scope": "local"}], "counters": counters(), "hwaddr": "", "host_name": "",
                        "mtu": 1, "state": "up", "type": "loopback"},
                    "eth0": {"addresses": [
                        {"family": "inet", "address": "10.0.0.2", "netmask": "24", "scope": "global"},
                        {"family": "inet6", "address": "fe80::1", "netmask": "64", "scope": "link"}],
                        "counters": counters(), "hwaddr": "", "host_name": "", "mtu": 1, "state": "up",
                        "type": "broadcast"},
                },
            },
            "snapshots": null, "backups": null,
        }))
        .unwrap()
    }

    fn counters() -> serde_json::Value {
        json!({"bytes_received": 0, "bytes_sent": 0, "packets_received": 0, "packets_sent": 0,
            "errors_received": 0, "errors_sent": 0, "packets_dropped_outbound": 0,
            "packets_dropped_inbound": 0})
    }

    #[test]
    fn cells_say_what_their_letters_mean() {
        let check = |word: &str, head: &str, cell: &str| {
            let columns = columns(word).unwrap();
            let column = columns.first().unwrap();
            assert_eq!((column.head().as_str(), column.cell(&sample()).as_str()), (head, cell), "{word}");
        };
        check("n", "NAME", "web");
        check("s", "STATE", "RUNNING");
        check("4", "IPV4", "10.0.0.2 (eth0)");
        check("6", "IPV6", "");
        check("t", "TYPE", "CONTAINER (EPHEMERAL)");
        check("S", "SNAPSHOTS", "0");
        check("b", "STORAGE POOL", "fast");
        check("f", "BASE IMAGE", "0123456789ab");
        check("m", "MEMORY USAGE", "1.00MiB");
        check("M", "MEMORY USAGE%", "25.0%");
        check("u", "CPU USAGE", "5s");
        check("P", "PROFILES", "a\nb");
        check("e", "PROJECT", "default");
        check("user.owner", "USER.OWNER", "somebody");
        check("config:user.owner:owner:4", "OWNER", "some");
        check("devices:root.pool:Pool", "POOL", "fast");
    }

    #[test]
    fn letters_and_keys_mix_and_mistakes_are_named() {
        assert_eq!(columns("ns,user.owner:O,4").unwrap().len(), 4);
        assert!(columns("nsz").unwrap_err().to_string().contains("`z`"));
        assert!(columns("n,,s").is_err());
        assert!(columns("user.a:A:wide").is_err());
    }

    #[test]
    fn only_some_columns_need_a_look_inside() {
        let needs = |word: &str| columns(word).unwrap().iter().any(Column::needs_state);
        assert!(!needs("nsacPtbdfFlLe,user.a"));
        assert!(needs("4") && needs("S") && needs("m"));
    }
}
