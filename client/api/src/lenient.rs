//! Reading what clients send: scalars become text, null becomes the zero value.

use std::collections::BTreeMap;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A config: key to text. Numbers, bools and null are taken and turned to text (null to the empty one),
/// as Incus's `ConfigMap` does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ConfigMap(pub BTreeMap<String, String>);

/// Devices: name to properties.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct DevicesMap(pub BTreeMap<String, BTreeMap<String, String>>);

impl ConfigMap {
    /// The keys that have a value: an empty one is how clients unset a key.
    #[must_use]
    pub fn given(self) -> BTreeMap<String, String> {
        given(self.0)
    }
}

impl DevicesMap {
    /// The devices with the properties that have a value, as [`ConfigMap::given`].
    #[must_use]
    pub fn given(self) -> BTreeMap<String, BTreeMap<String, String>> {
        self.0.into_iter().map(|(name, properties)| (name, given(properties))).collect()
    }
}

fn given(mut map: BTreeMap<String, String>) -> BTreeMap<String, String> {
    map.retain(|_, value| !value.is_empty());
    map
}

fn scalar(key: &str, value: Value) -> Result<String, String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        Value::Bool(truth) => Ok(truth.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Array(_) | Value::Object(_) => Err(format!("the value of `{key}` must be text")),
    }
}

fn scalars(map: BTreeMap<String, Value>) -> Result<BTreeMap<String, String>, String> {
    map.into_iter().map(|(key, value)| Ok((key.clone(), scalar(&key, value)?))).collect()
}

impl<'de> Deserialize<'de> for ConfigMap {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<ConfigMap, D::Error> {
        let map = Option::<BTreeMap<String, Value>>::deserialize(source)?.unwrap_or_default();
        scalars(map).map(ConfigMap).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for DevicesMap {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<DevicesMap, D::Error> {
        let map = Option::<BTreeMap<String, Option<BTreeMap<String, Value>>>>::deserialize(source)?
            .unwrap_or_default();
        map.into_iter()
            .map(|(name, properties)| Ok((name, scalars(properties.unwrap_or_default())?)))
            .collect::<Result<_, String>>()
            .map(DevicesMap)
            .map_err(D::Error::custom)
    }
}

/// Reads null as the zero value.
///
/// # Errors
/// As the type's own reading.
pub fn null_is_zero<'de, D, T>(source: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(source)?.unwrap_or_default())
}

/// Reads text, a number or a bool as text, and null or nothing in it as none.
///
/// # Errors
/// For a list or an object.
pub fn scalar_or_none<'de, D: Deserializer<'de>>(source: D) -> Result<Option<String>, D::Error> {
    let value = Option::<Value>::deserialize(source)?.unwrap_or_default();
    Ok(Some(scalar("it", value).map_err(D::Error::custom)?).filter(|text| !text.is_empty()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn scalars_become_text_and_null_is_empty() {
        let map: ConfigMap = serde_json::from_str(r#"{"a":1,"b":true,"c":null,"d":"x"}"#).unwrap();
        let flat: Vec<_> = map.0.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(flat, ["a=1", "b=true", "c=", "d=x"]);
        assert_eq!(serde_json::from_str::<ConfigMap>("null").unwrap(), ConfigMap::default());
    }

    #[test]
    fn what_is_empty_is_not_given() {
        let map: ConfigMap = serde_json::from_str(r#"{"a":"","b":null,"c":0}"#).unwrap();
        assert_eq!(map.given().into_iter().collect::<Vec<_>>(), [("c".to_owned(), "0".to_owned())]);
        let map: DevicesMap = serde_json::from_str(r#"{"d":{"type":"none","x":""},"e":null}"#).unwrap();
        let devices = map.given();
        assert_eq!((devices["d"].len(), devices["e"].len()), (1, 0));
    }

    #[test]
    fn a_list_as_value_is_refused_by_name() {
        let error = serde_json::from_str::<ConfigMap>(r#"{"limits.cpu":[1]}"#).unwrap_err();
        assert!(error.to_string().contains("`limits.cpu`"), "{error}");
    }
}
