//! Ids in 16 bytes: a run meets millions of records and events, and remembers them.
//!
//! May use: nothing of Waybill.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

/// An id of a record, event or blob in 16 bytes; equal ids are equal texts. Most are GUIDs and become their number, whatever
/// their case; any other text becomes a hash of 122 bits. Written as a GUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Id(Uuid);

impl Id {
    /// The id that a text is.
    pub fn of(text: &str) -> Self {
        Self(text.parse().unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes())))
    }
}

impl<'de> Deserialize<'de> for Id {
    /// Reads any text, so that what was written as one before is still the same id.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::of(&Cow::<str>::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_same_after_it_was_written_and_takes_16_bytes() {
        assert_eq!(size_of::<Id>(), 16);
        for text in ["7f0c1a52-39a5-4d6b-8a4e-6a1f8f6d1c02", "20261126$audit_exchange$na0042", ""] {
            let written = serde_json::to_string(&Id::of(text)).unwrap();
            assert_eq!(serde_json::from_str::<Id>(&written).unwrap(), Id::of(text));
            assert_eq!(serde_json::from_str::<Id>(&serde_json::to_string(text).unwrap()).unwrap(), Id::of(text));
        }
        assert_eq!(Id::of("7F0C1A52-39A5-4D6B-8A4E-6A1F8F6D1C02"), Id::of("7f0c1a52-39a5-4d6b-8a4e-6a1f8f6d1c02"));
        assert_ne!(Id::of("a"), Id::of("b"));
    }
}
