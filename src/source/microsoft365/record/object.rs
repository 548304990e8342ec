//! A record's JSON, read where it stands: an object is the places of its values, of which only those are made that somebody
//! asks for. A tree of all of them was a quarter of what a run allocates.
//!
//! May use: nothing of Waybill.

use std::borrow::Cow;
use std::fmt;

use memchr::memmem;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Properties for which there is room at once; a send has about forty.
const PROPERTIES: usize = 48;

/// A record as text; bytes and escapes that are no characters become replacement characters rather than a lost record.
pub(super) fn readable(text: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(text);
    let may_have_surrogates =
        memmem::find_iter(text.as_bytes(), b"\\u").any(|at| matches!(text.as_bytes().get(at + 2), Some(b'd' | b'D')));
    if may_have_surrogates { Cow::Owned(replace_lone_surrogates(&text)) } else { text }
}

/// Replaces `\ud800`…`\udfff` that do not stand in pairs, as an emoji that was cut in its middle leaves them.
fn replace_lone_surrogates(text: &str) -> String {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut repaired = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(offset) = text[at..].find('\\') {
        repaired.push_str(&text[at..at + offset]);
        at += offset;
        let kept = match (unit(at), unit(at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => 0,
            // Backslash and the character behind it, so that `\\ud800` is no escape.
            _ => 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
        };
        if kept == 0 {
            repaired.push_str("\\ufffd");
            at += 6;
        } else {
            repaired.push_str(&text[at..at + kept]);
            at += kept;
        }
    }
    repaired.push_str(&text[at..]);
    repaired
}

/// A JSON object: its properties and where their values are.
#[derive(Default)]
pub(super) struct Object<'a>(Vec<(Text<'a>, &'a RawValue)>);

/// A string, in the record itself where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Object<'a> {
    /// Reads a text that is one object.
    pub(super) fn read(text: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// A value that is one.
    pub(super) fn of(value: &'a RawValue) -> Option<Self> {
        Self::read(value.get()).ok()
    }

    /// The value of a property. The last one counts, where a property comes twice.
    pub(super) fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0.iter().rfind(|(name, _)| name.0 == key).map(|(_, value)| *value)
    }

    /// A property as text, without the line break that the service leaves at some ends. Empty is absent.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        let value = self.get(key)?;
        let text = match string(value) {
            Some(text) => text,
            None if value.get().starts_with(['{', '[', 'n']) => return None,
            None => Cow::Borrowed(value.get()),
        };
        let text = text.trim().trim_end_matches("\\r\\n");
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// A property that is true or false, as a number or text too.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        match self.text(key)?.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Properties;

        impl<'de> Visitor<'de> for Properties {
            type Value = Object<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut properties = Vec::with_capacity(PROPERTIES);
                while let Some(property) = map.next_entry()? {
                    properties.push(property);
                }
                Ok(Object(properties))
            }
        }

        deserializer.deserialize_map(Properties)
    }
}

/// A value that is a string.
pub(super) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    if !value.get().starts_with('"') {
        return None;
    }
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|text| text.0)
}

/// The entries of a value that is a list.
pub(super) fn list(value: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value.get()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let plain = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            r#"[ \\\\rn"{}\[\]a\u{e9}\u{1f600}]{0,8}"#.prop_map(Value::from),
        ];
        plain.prop_recursive(2, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c\\\\]{1,2}", inner, 0..4).prop_map(Value::from_iter),
            ]
        })
    }

    /// What a property is as text, read from a tree.
    fn text(object: &Map<String, Value>, key: &str) -> Option<String> {
        let text = match object.get(key)? {
            Value::String(text) => text.trim().trim_end_matches("\\r\\n").to_owned(),
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
            plain => plain.to_string(),
        };
        (!text.is_empty()).then_some(text)
    }

    /// As a service may write it: characters beyond ASCII as escapes.
    fn escaped(json: &str) -> String {
        let mut units = [0; 2];
        let escape = |character: char| match character.is_ascii() {
            true => character.to_string(),
            false => character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        };
        json.chars().map(escape).collect()
    }

    proptest! {
        /// A tree is the judge, of the object and of the objects and lists in it.
        #[test]
        fn a_property_is_what_a_tree_says(
            properties in prop::collection::btree_map("[a-c\\\\]{1,2}", value(), 0..6),
            is_escaped in any::<bool>(),
        ) {
            let tree = Map::from_iter(properties);
            let json = Value::Object(tree.clone()).to_string();
            let json = if is_escaped { escaped(&json) } else { json };
            let json = readable(json.as_bytes());
            let object = Object::read(&json).unwrap();
            for (key, expected) in &tree {
                prop_assert_eq!(object.text(key), text(&tree, key));
                let value = object.get(key).unwrap();
                let read = string(value);
                prop_assert_eq!(read.as_deref(), expected.as_str());
                prop_assert_eq!(list(value).map(|entries| entries.len()), expected.as_array().map(Vec::len));
                let inner = Object::of(value);
                prop_assert_eq!(inner.is_some(), expected.is_object());
                if let (Some(inner), Some(tree)) = (inner, expected.as_object()) {
                    for key in tree.keys() {
                        prop_assert_eq!(inner.text(key), text(tree, key));
                    }
                }
            }
            prop_assert!(object.get("absent").is_none());
        }
    }

    #[test]
    fn of_a_property_that_comes_twice_the_last_one_counts() {
        assert_eq!(Object::read(r#"{"a": 1, "b": 2, "a": "3"}"#).unwrap().text("a").as_deref(), Some("3"));
    }
}
