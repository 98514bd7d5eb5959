//! Reading JSON bodies: not too deep, no key twice; top-level keys in any case, null as if it were not there (as Go
//! reads them).

use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::Fault;
use crate::limits;

/// Objects whose keys are the user's: there null is a value, the empty one.
const MAPS: [&str; 4] = ["config", "devices", "environment", "properties"];

/// Reads `bytes` as a `T`.
///
/// # Errors
/// [`Fault::BodyInvalid`] when it is no JSON, too deep, holds a key twice or is no `T`.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    serde_path_to_error::deserialize(value(bytes)?).map_err(|error| {
        let field = error.path().to_string();
        let source = error.into_inner();
        // Fields of flattened parts have no path of their own.
        if matches!(field.as_str(), "." | "?") {
            Fault::BodyInvalid { source }
        } else {
            Fault::Field { field, source }
        }
    })
}

/// Reads `bytes` as any JSON object, its top-level keys in lower case.
///
/// # Errors
/// As [`read`].
pub fn value(bytes: &[u8]) -> Result<Value, Fault> {
    let parse = || {
        let mut source = serde_json::Deserializer::from_slice(bytes);
        let value = Strict { depth: 0 }.deserialize(&mut source)?;
        source.end()?;
        match value {
            Value::Object(map) => lower_case(map).map(without_nulls).map(Value::Object),
            other => Err(de::Error::invalid_type(unexpected(&other), &"an object")),
        }
    };
    parse().map_err(|source| Fault::BodyInvalid { source })
}

fn lower_case(map: Map<String, Value>) -> Result<Map<String, Value>, serde_json::Error> {
    let mut lower = Map::with_capacity(map.len());
    for (key, value) in map {
        let key = if key.bytes().any(|byte| byte.is_ascii_uppercase()) { key.to_lowercase() } else { key };
        if lower.contains_key(&key) {
            return Err(de::Error::custom(format!("the key `{key}` is there twice")));
        }
        lower.insert(key, value);
    }
    Ok(lower)
}

/// Many clients send every field they know, null for what they have no word for.
fn without_nulls(map: Map<String, Value>) -> Map<String, Value> {
    let said = map.into_iter().filter(|(_, value)| !value.is_null());
    said.map(|(key, value)| match value {
        Value::Object(inner) if !MAPS.contains(&key.as_str()) => (key, Value::Object(without_nulls(inner))),
        other => (key, other),
    })
    .collect()
}

fn unexpected(value: &Value) -> de::Unexpected<'_> {
    match value {
        Value::Null => de::Unexpected::Unit,
        Value::Bool(truth) => de::Unexpected::Bool(*truth),
        Value::String(text) => de::Unexpected::Str(text),
        Value::Array(_) => de::Unexpected::Seq,
        _ => de::Unexpected::Other("a number"),
    }
}

/// A value whose objects hold no key twice: which of the two counted would depend on the reader.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: de::Error>(self) -> Result<Strict, E> {
        if self.depth >= limits::JSON_DEPTH {
            return Err(E::custom(format!("nested deeper than {} levels", limits::JSON_DEPTH)));
        }
        Ok(Strict { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str("JSON")
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(truth.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(value) = source.next_element_seed(inner)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = source.next_key::<String>()? {
            let value = source.next_value_seed(inner)?;
            if map.contains_key(&key) {
                return Err(de::Error::custom(format!("the key `{key}` is there twice")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> String {
        value(body.as_bytes()).unwrap_err().report()
    }

    #[test]
    fn keys_may_come_in_any_case_at_the_top_only() {
        let read = value(br#"{"Name":"a","CONFIG":{"User.X":"1"}}"#).unwrap();
        assert_eq!(read, serde_json::json!({"name":"a","config":{"User.X":"1"}}));
    }

    #[test]
    fn null_is_what_is_not_there_but_in_the_maps_of_users() {
        let read =
            value(br#"{"name":null,"config":{"a":null},"source":{"alias":null,"x":{"y":null}}}"#).unwrap();
        assert_eq!(read, serde_json::json!({"config":{"a":null},"source":{"x":{}}}));
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused_by_name() {
        for body in [r#"{"a":1,"a":2}"#, r#"{"a":1,"A":2}"#, r#"{"x":{"a":1,"a":2}}"#] {
            assert!(refused(body).contains("`a` is there twice"), "{}", refused(body));
        }
    }

    #[test]
    fn too_deep_is_refused_and_just_deep_enough_is_taken() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(value(nested(limits::JSON_DEPTH - 1).as_bytes()).is_ok());
        assert!(refused(&nested(limits::JSON_DEPTH)).contains("nested deeper"));
        assert!(refused(&nested(100_000)).contains("nested deeper"));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in ["", "[]", "1", "null", "\"x\"", "{", "{}x", "{\"a\":}", "\u{feff}{}"] {
            assert!(value(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn wrong_types_say_what_was_expected() {
        let error = read::<cabin_api::instance::InstancesPost>(br#"{"start":"yes"}"#).unwrap_err();
        assert!(error.report().contains("expected a boolean"), "{}", error.report());
        let error = read::<cabin_api::instance::InstancesPost>(br#"{"source":{"type":5}}"#).unwrap_err();
        assert!(error.report().contains("`source.type`"), "{}", error.report());
    }
}
