//! Identities of rows: made from what the row is about and from nothing else, so that every retry and rerun makes the
//! same one.
//!
//! An id is the first 128 bits of a SHA-256 over length-prefixed fields, written as a UUID of version 8 (RFC 9562, 5.8:
//! "vendor-specific", which is what tells it from a random one). These bytes are for ever: a lake that knows an event
//! under one id must never meet it under another. A test holds some of them fixed.

use sha2::{Digest, Sha256};
use uuid::Builder;

use crate::clock::Time;
use crate::event::GapKind;

/// What makes a file event the same file event.
#[derive(Clone, Copy, Debug)]
pub struct EventKey<'a> {
    /// The tenant's id; case does not matter.
    pub tenant_id: &'a str,
    /// Which message.
    pub message: MessageKey<'a>,
    /// The author that it shows, an address in any case: programs and forwarded test mails give one `Message-ID` to the
    /// messages of several people. A copy in another mailbox shows the same author.
    pub from: &'a str,
    /// When it was sent; whole seconds count, because audit records carry no more. The owner of a row that may be
    /// upgraded later must give the same time both times.
    pub sent: Time,
    /// The attachment's name as the service gives it, raw.
    pub attachment_name: &'a str,
    /// How many attachments of exactly that name come before it in the message: 0 for the first.
    pub occurrence: u32,
}

/// What names a message in every source that mentions it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKey<'a> {
    /// Its `Message-ID` with the angle brackets; spaces around it do not matter.
    InternetMessageId(&'a str),
    /// The audit record that mentions it, when it has no `Message-ID`.
    Record(&'a str),
}

/// The id of a file event.
pub fn event_id(key: &EventKey<'_>) -> String {
    let record;
    let message = match key.message {
        MessageKey::InternetMessageId(id) => id.trim(),
        MessageKey::Record(id) => {
            record = format!("record:{id}");
            &record
        }
    };
    Fields::new("waybill.event.1")
        .text(&key.tenant_id.to_ascii_lowercase())
        .text(message)
        .text(&key.from.trim().to_lowercase())
        .text(&key.sent.timestamp().to_string())
        .text(key.attachment_name)
        .text(&key.occurrence.to_string())
        .finish()
}

/// What makes a gap the same gap, however often it is found.
#[derive(Clone, Copy, Debug)]
pub struct GapKey<'a> {
    /// The connection that has it.
    pub connection_id: &'a str,
    /// Where something was lost.
    pub kind: GapKind,
    /// The missing audit content's `[start, end)`.
    pub window: Option<(Time, Time)>,
    /// The content blob.
    pub content_blob_id: Option<&'a str>,
    /// What else it is about.
    pub subject: Option<&'a str>,
}

/// The id of a gap.
pub fn gap_id(key: &GapKey<'_>) -> String {
    let micros = |time: Time| time.timestamp_micros().to_string();
    Fields::new("waybill.gap.1")
        .text(key.connection_id)
        .text(key.kind.as_str())
        .optional(key.window.map(|(start, _)| micros(start)).as_deref())
        .optional(key.window.map(|(_, end)| micros(end)).as_deref())
        .optional(key.content_blob_id)
        .optional(key.subject)
        .finish()
}

/// What makes a quarantined record the same record. The blob is no part of it: the feed repeats records in other blobs.
#[derive(Clone, Copy, Debug)]
pub struct QuarantineKey<'a> {
    /// The connection whose feed held it.
    pub connection_id: &'a str,
    /// The record's text, as it is kept.
    pub raw: &'a str,
}

/// The id of a quarantined record.
pub fn quarantine_id(key: &QuarantineKey<'_>) -> String {
    Fields::new("waybill.quarantine.1").text(key.connection_id).text(key.raw).finish()
}

/// The id of a resolved scope: the same people, by their ids and addresses in order, are the same scope.
pub fn scope_id<'a>(connection_id: &str, people: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let fields = Fields::new("waybill.scope.1").text(connection_id);
    people.fold(fields, |fields, (object_id, address)| fields.text(object_id).text(address)).finish()
}

/// Fields on their way into an id; the length before each keeps `("ab", "c")` apart from `("a", "bc")`.
struct Fields(Sha256);

impl Fields {
    fn new(what: &str) -> Self {
        Self(Sha256::new()).text(what)
    }

    fn text(mut self, field: &str) -> Self {
        self.0.update((field.len() as u64).to_be_bytes());
        self.0.update(field);
        self
    }

    /// Nothing is a count of fields and not an empty text.
    fn optional(self, field: Option<&str>) -> Self {
        match field {
            None => self.text("0"),
            Some(field) => self.text("1").text(field),
        }
    }

    fn finish(self) -> String {
        let digest: [u8; 32] = self.0.finalize().into();
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        Builder::from_custom_bytes(first).into_uuid().to_string()
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn key() -> EventKey<'static> {
        EventKey {
            tenant_id: "0f0f0f0f-aaaa-bbbb-cccc-121212121212",
            message: MessageKey::InternetMessageId("<a@b>"),
            from: "ann@b.example",
            sent: DateTime::from_timestamp(1_700_000_000, 0).unwrap(),
            attachment_name: "plan.pdf",
            occurrence: 0,
        }
    }

    /// Danger: a refactoring changes ids, and the lakes of all users get every event twice.
    #[test]
    fn ids_never_change() {
        assert_eq!(event_id(&key()), EVENT);
        let window = Some((key().sent, key().sent + chrono::Duration::hours(1)));
        let gap = GapKey { connection_id: "c", kind: GapKind::Blob, window, content_blob_id: Some("b"), subject: None };
        assert_eq!(gap_id(&gap), GAP);
        assert_eq!(quarantine_id(&QuarantineKey { connection_id: "c", raw: "{" }), QUARANTINE);
    }

    // Computed with Python's hashlib.
    const EVENT: &str = "580f6310-c91f-838a-a105-227decb62fee";
    const GAP: &str = "2b133b39-e979-8756-9f35-20673fd8d2fe";
    const QUARANTINE: &str = "d4192507-ba20-89a8-82a8-45a10dc60b2c";

    #[test]
    fn the_same_attachment_has_the_same_id_whatever_the_source_wrote() {
        let upper = key().tenant_id.to_uppercase();
        let sent = key().sent + chrono::Duration::milliseconds(999);
        let message = MessageKey::InternetMessageId(" <a@b>\r\n");
        assert_eq!(
            event_id(&EventKey { tenant_id: &upper, message, from: "Ann@B.example ", sent, ..key() }),
            event_id(&key())
        );
    }

    #[test]
    fn another_attachment_has_another_id() {
        let others = [
            EventKey { tenant_id: "t", ..key() },
            EventKey { message: MessageKey::InternetMessageId("<A@b>"), ..key() },
            EventKey { message: MessageKey::Record("<a@b>"), ..key() },
            EventKey { from: "ben@b.example", ..key() },
            EventKey { sent: key().sent + chrono::Duration::seconds(1), ..key() },
            EventKey { attachment_name: "Plan.pdf", ..key() },
            EventKey { attachment_name: "plan.pdf0", ..key() },
            EventKey { occurrence: 1, ..key() },
        ];
        let mut ids: Vec<String> = others.iter().chain([&key()]).map(event_id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), others.len() + 1);
    }

    #[test]
    fn an_id_is_a_uuid_of_version_8() {
        let id = uuid::Uuid::parse_str(&event_id(&key())).unwrap();
        assert_eq!((id.get_version_num(), id.get_variant()), (8, uuid::Variant::RFC4122));
    }
}
