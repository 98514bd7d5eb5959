//! YAML for people: the fields that matter first.

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Map, Value};

/// Writes anything as YAML to standard output.
pub fn show<T: Serialize>(thing: &T) -> anyhow::Result<()> {
    super::raw(text(thing)?.as_bytes())?;
    Ok(())
}

/// Anything as YAML.
pub fn text<T: Serialize>(thing: &T) -> anyhow::Result<String> {
    serde_yaml::to_string(thing).context("cannot write YAML")
}

/// An object as YAML, the fields named in `first` before the others.
pub fn ordered(object: &Map<String, Value>, first: &[&str]) -> anyhow::Result<String> {
    let mut mapping = serde_yaml::Mapping::new();
    let named = first.iter().filter_map(|key| object.get_key_value(*key));
    let others = object.iter().filter(|(key, _)| !first.contains(&key.as_str()));
    for (key, value) in named.chain(others) {
        let value = serde_yaml::to_value(value).context("cannot write YAML")?;
        mapping.insert(serde_yaml::Value::String(key.clone()), value);
    }
    text(&mapping)
}

/// YAML as a JSON object; nothing at all is the empty object.
pub fn parse(yaml: &str) -> anyhow::Result<Map<String, Value>> {
    let value: Value = serde_yaml::from_str(yaml).context("this is not YAML")?;
    match value {
        Value::Object(object) => Ok(object),
        Value::Null => Ok(Map::new()),
        _ => anyhow::bail!("this YAML is not a map of keys"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_fields_come_first() {
        let object = parse("b: 1\na: {x: 'true'}\nname: web\n").unwrap();
        assert_eq!(
            ordered(&object, &["name", "missing", "b"]).unwrap(),
            "name: web\nb: 1\na:\n  x: 'true'\n"
        );
    }

    #[test]
    fn nothing_is_an_empty_object_and_a_list_is_refused() {
        assert!(parse("# only words\n").unwrap().is_empty());
        assert!(parse("- a\n").is_err());
        assert!(parse("a: [").is_err());
    }
}
