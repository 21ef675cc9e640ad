//! JSON (RFC 8259) read strictly: an object that names a member twice is refused, because two readers would take two
//! different values of it (RFC 8259 section 4, RFC 7515 section 4), and depth and size are bounded.

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;
use thiserror::Error;

/// Nesting of what identity providers send; a claim is rarely deeper than three.
const DEPTH_MAX: usize = 16;

/// The text is no JSON object that this crate reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("not one JSON object without repeated members and of at most {DEPTH_MAX} levels")]
pub struct JsonError;

/// Reads one object that fills the text.
pub(crate) fn object(text: &[u8]) -> Result<Map<String, Value>, JsonError> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Strict { depth_left: DEPTH_MAX }.deserialize(&mut reader).map_err(|_| JsonError)?;
    reader.end().map_err(|_| JsonError)?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(JsonError),
    }
}

/// The text of a member; an absent one is `None`, one of another type an error.
pub(crate) fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, JsonError> {
    match object.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(JsonError),
    }
}

/// A NumericDate (RFC 7519 section 2) in whole seconds. Fractions and exponents are refused: nobody sends them, and
/// readers round them differently.
pub(crate) fn seconds(object: &Map<String, Value>, name: &str) -> Result<Option<u64>, JsonError> {
    match object.get(name) {
        None => Ok(None),
        // Beyond 2^53 readers that use floating point see another number (RFC 8259 section 6).
        Some(value) => value.as_u64().filter(|n| *n < 1 << 53).map(Some).ok_or(JsonError),
    }
}

/// A text, or a list of texts, as `aud` is written (RFC 7519 section 4.1.3). At most `max` of them.
pub(crate) fn texts(value: &Value, max: usize) -> Result<Vec<&str>, JsonError> {
    match value {
        Value::String(text) => Ok(vec![text]),
        Value::Array(items) if items.len() <= max => {
            items.iter().map(|item| item.as_str().ok_or(JsonError)).collect()
        }
        _ => Err(JsonError),
    }
}

struct Strict {
    depth_left: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(&self) -> Result<Self, E> {
        let depth_left = self.depth_left.checked_sub(1).ok_or_else(|| E::custom("too deep"))?;
        Ok(Self { depth_left })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.deeper()?)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(self.deeper()?)?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a member twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_objects_are_read_as_serde_reads_them() {
        let text = br#"{"a":1,"b":[true,null,-2,1.5,"x\u0041"],"c":{"d":{}}}"#;
        let expected: Value = serde_json::from_slice(text).unwrap();
        assert_eq!(Value::Object(object(text).unwrap()), expected);
    }

    #[test]
    fn what_two_readers_would_read_differently_is_refused() {
        for bad in [
            r#"{"sub":"alice","sub":"admin"}"#,
            r#"{"sub":"alice","s\u0075b":"admin"}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":[{"b":1,"b":2}]}"#,
            r#"{"a":1} {"a":2}"#,
            r#"{"a":1}x"#,
            r#"[]"#,
            r#""x""#,
            "",
            "{",
            "{\"a\":1,}",
            "\u{feff}{}",
        ] {
            assert_eq!(object(bad.as_bytes()), Err(JsonError), "{bad}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), Err(JsonError));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(object(nested(DEPTH_MAX - 1).as_bytes()).is_ok(), "with the object itself");
        assert_eq!(object(nested(DEPTH_MAX).as_bytes()), Err(JsonError));
        assert_eq!(object(nested(1_000_000).as_bytes()), Err(JsonError));
    }

    #[test]
    fn dates_are_whole_and_exact() {
        let of = |text: &str| seconds(&object(format!("{{\"t\":{text}}}").as_bytes()).unwrap(), "t");
        assert_eq!(of("1700000000"), Ok(Some(1_700_000_000)));
        for bad in ["-1", "1.5", "1e9", "9007199254740992", "\"1\"", "null", "99999999999999999999"] {
            assert_eq!(of(bad), Err(JsonError), "{bad}");
        }
    }
}
