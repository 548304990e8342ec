//! The fields of an event in the console's words: what a person chooses to filter by, to see, and to sort by.

use std::borrow::Cow;

use crate::search::Policy;
use crate::search::query::Term;

/// A field that pages offer.
pub(super) struct Field {
    /// The term of the search model, which is also what addresses of pages say.
    pub(super) term: &'static str,
    /// The column of `events`.
    pub(super) column: &'static str,
    /// What people call it.
    pub(super) label: &'static str,
    /// Under which heading.
    pub(super) group: &'static str,
    /// How its values look.
    pub(super) looks: Looks,
    /// Whether events can be sorted by it.
    pub(super) is_sortable: bool,
}

/// How values look on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looks {
    /// As they are.
    Text,
    /// Bytes in a larger unit.
    Size,
    /// Day and time.
    Time,
    /// Digits and ids: monospaced, shortened in tables.
    Code,
    /// A number.
    Number,
    /// Yes or no.
    Flag,
    /// Several texts.
    List,
    /// A risk severity, in its colour.
    Severity,
}

use Looks::{Code, Flag, List, Number, Severity, Size, Text, Time};

const fn field(
    term: &'static str,
    column: &'static str,
    label: &'static str,
    group: &'static str,
    looks: Looks,
) -> Field {
    // What there is one value of per event, and what somebody looks through in order.
    let is_sortable = matches!(looks, Text | Size | Time | Number);
    Field { term, column, label, group, looks, is_sortable }
}

/// Every field, by groups, the most asked first. The first one is that by which events are sorted usually.
#[rustfmt::skip]
pub(super) static FIELDS: [Field; 44] = [
    field("@timestamp", "observed_at", "Sent", "Event", Time),
    field("event.inserted", "inserted_at", "Recorded", "Event", Time),
    field("event.id", "event_id", "Event id", "Event", Code),
    field("connection.name", "connection_name", "Connection", "Event", Text),
    field("file.name", "file_name", "File name", "File", Text),
    field("file.hash.sha256", "sha256", "SHA-256", "File", Code),
    field("file.hash.md5", "md5", "MD5", "File", Code),
    field("file.sizeInBytes", "file_size_bytes", "Size", "File", Size),
    field("file.category", "file_category", "Category", "File", Text),
    field("file.extension", "file_extension", "Extension", "File", Text),
    field("file.mimeType", "mime_type", "Content type", "File", Text),
    field("file.mimeTypeByBytes", "mime_type_by_bytes", "Type by its bytes", "File", Text),
    field("file.mimeTypeByExtension", "mime_type_by_extension", "Type by its extension", "File", Text),
    field("file.hash.status", "hash_status", "Hash status", "File", Text),
    field("file.hash.sha256Error", "hash_error", "Why no hash", "File", Text),
    field("file.attachmentKind", "attachment_kind", "Kind of attachment", "File", Text),
    field("file.isInline", "is_inline", "Inline picture", "File", Flag),
    field("file.url", "source_url", "Link to", "File", Text),
    field("file.path", "file_path", "Raw name", "File", Text),
    field("file.id", "attachment_id", "Attachment id", "File", Code),
    field("source.email.sender", "sender", "Sender", "Source", Text),
    field("source.email.from", "from_address", "Shown author", "Source", Text),
    field("email.mailbox", "mailbox", "Mailbox", "Source", Text),
    field("audit.actor", "actor", "Actor", "Source", Text),
    field("audit.operation", "audit_operation", "Operation", "Source", Text),
    field("client.ip", "client_ip", "Client address", "Source", Text),
    field("client.info", "client_info", "Client program", "Source", Text),
    field("client.appId", "app_id", "Application id", "Source", Code),
    field("destination.email.recipients", "recipients", "Recipient", "Destination", List),
    field("email.recipientDomains", "recipient_domains", "Recipient domain", "Destination", List),
    field("email.to", "to_recipients", "To", "Destination", List),
    field("email.cc", "cc_recipients", "Cc", "Destination", List),
    field("email.bcc", "bcc_recipients", "Bcc", "Destination", List),
    field("destination.email.subject", "subject", "Subject", "E-mail", Text),
    field("email.messageId", "internet_message_id", "Message-ID", "E-mail", Code),
    field("risk.severity", "risk_severity", "Severity", "Risk", Severity),
    field("risk.score", "risk_score", "Risk score", "Risk", Number),
    field("risk.indicators.name", "risk_indicators", "Risk indicator", "Risk", List),
    field("risk.trusted", "trusted", "Trusted", "Risk", Flag),
    field("risk.trustReason", "trust_reason", "Why trusted", "Risk", Text),
    field("risk.untrustedValues.domains", "untrusted_domains", "Untrusted domain", "Risk", List),
    field("tenant.id", "tenant_id", "Tenant", "Recording", Code),
    field("run.id", "run_id", "Run", "Recording", Code),
    field("audit.recordIds", "audit_record_ids", "Audit records", "Recording", List),
];

/// The groups, in the order of pages.
pub(super) const GROUPS: [&str; 7] = ["Event", "File", "Source", "Destination", "E-mail", "Risk", "Recording"];

/// What a table shows unless somebody chooses.
pub(super) const SHOWN_AT_FIRST: [&str; 7] = [
    "@timestamp",
    "file.name",
    "file.sizeInBytes",
    "source.email.sender",
    "destination.email.recipients",
    "destination.email.subject",
    "risk.severity",
];

/// The field of a term.
pub(super) fn of_term(term: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.term == term)
}

/// What people call a term; its own name where pages do not offer it.
pub(super) fn label(term: &str) -> Cow<'_, str> {
    of_term(term).map_or(Cow::Borrowed(term), |field| Cow::Borrowed(field.label))
}

impl Field {
    /// Whether only the view with the risk columns has it.
    pub(super) fn is_risk(&self) -> bool {
        self.group == "Risk"
    }
}

/// Which fields somebody may see.
pub(super) struct Visible<'a>(pub(super) &'a Policy);

impl Visible<'_> {
    /// Whether this one is among them.
    pub(super) fn has(&self, field: &Field) -> bool {
        !self.0.hidden_columns.iter().any(|column| column == field.column)
    }

    /// Whether the values of a term are; of one that nobody knows there are none.
    pub(super) fn has_term(&self, term: &str) -> bool {
        let column = Term::parse(term).and_then(Term::column);
        !self.0.hidden_columns.iter().any(|hidden| Some(hidden.as_str()) == column)
    }

    /// All of them, in the order of pages.
    pub(super) fn all(&self) -> impl Iterator<Item = &'static Field> {
        FIELDS.iter().filter(|field| self.has(field))
    }
}

/// The operators in the order of the builder: the API's word, and what people read.
pub(super) const OPERATORS: [(&str, &str); 12] = [
    ("IS", "is"),
    ("IS_NOT", "is not"),
    ("IS_ANY", "is any of"),
    ("IS_NONE", "is none of"),
    ("EXISTS", "exists"),
    ("DOES_NOT_EXIST", "does not exist"),
    ("GREATER_THAN", "is greater than"),
    ("LESS_THAN", "is less than"),
    ("ON", "is on"),
    ("ON_OR_AFTER", "is on or after"),
    ("ON_OR_BEFORE", "is on or before"),
    ("WITHIN_THE_LAST", "is within the last"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_the_term_and_the_column_that_it_says() {
        for field in &FIELDS {
            let term = Term::parse(field.term).unwrap_or_else(|| panic!("`{}` is no term", field.term));
            assert_eq!(term.column(), Some(field.column), "{}", field.term);
            assert!(GROUPS.contains(&field.group), "{}", field.group);
        }
        assert!(SHOWN_AT_FIRST.iter().all(|term| of_term(term).is_some()));
    }
}
