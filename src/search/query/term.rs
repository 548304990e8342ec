//! What can be asked about an event: the terms, what each holds, and which column of `events` that is.
//!
//! The names are those of the replaced product's event model v2 (the terms that its API describes and its client
//! `incydr` 2.12.5 knows), so that queries written for it mean the same here. What happens at endpoints or in cloud
//! stores is no mail: those terms are known, and no event has a value for them. Waybill's own terms name what that
//! model lacks: the To, Cc and Bcc lines, the Message-ID, the connection.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, lit};
use datafusion::prelude::{coalesce, col};
use serde_json::Value as Json;

use super::Operator;

/// A field of an event that a filter can name.
#[derive(Clone, Copy)]
pub struct Term(&'static Row);

/// What sort of value a term has, and so which operators it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Words that people write: names of files, subjects.
    Text,
    /// A name from a list or a system: addresses, ids, categories.
    Identifier,
    /// Hexadecimal digits of a hash.
    Hash,
    /// A whole number.
    Number,
    /// A point in time.
    Time,
    /// True or false.
    Flag,
    /// Several texts, as the recipients are.
    Texts,
    /// Several numbers.
    Numbers,
}

/// Where an event keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// In a column of `events`.
    Column(&'static str),
    /// In the first of two columns that has a value.
    First(&'static str, &'static str),
    /// The same in every event.
    Constant(&'static str),
    /// In no event.
    Nothing,
}

/// Upper and lower case of a column's texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letters {
    /// The lake holds it in lower case, so the column can be compared as it is, and bloom filters work.
    Lower,
    /// As somebody wrote it; compared in lower case.
    Mixed,
    /// Case tells values apart.
    Exact,
}

struct Row {
    name: &'static str,
    kind: Kind,
    holds: Holds,
    letters: Letters,
}

const fn row(name: &'static str, kind: Kind, holds: Holds, letters: Letters) -> Row {
    Row { name, kind, holds, letters }
}

/// A term that no event has a value for.
const fn none(name: &'static str, kind: Kind) -> Row {
    row(name, kind, Holds::Nothing, Mixed)
}

use Holds::{Column, Constant, First};
use Kind::{Flag, Hash, Identifier, Number, Numbers, Text, Texts, Time};
use Letters::{Exact, Lower, Mixed};

/// Every term; those of one column follow the one by which it is best known.
#[rustfmt::skip]
static TERMS: &[Row] = &[
    // What the replaced product's model has for mail.
    row("@timestamp", Time, Column("observed_at"), Exact),
    row("event.id", Identifier, Column("event_id"), Lower),
    row("event.inserted", Time, Column("inserted_at"), Exact),
    row("event.ingested", Time, Column("inserted_at"), Exact),
    row("event.action", Identifier, Column("event_action"), Lower),
    row("event.observer", Identifier, Constant("Office365"), Mixed),
    row("event.detectorDisplayName", Identifier, Column("connection_name"), Mixed),
    row("event.vector", Identifier, Constant("EMAILED"), Mixed),
    row("user.email", Identifier, First("mailbox", "sender"), Lower),
    row("file.name", Text, Column("file_name"), Mixed),
    row("file.category", Identifier, Column("file_category"), Mixed),
    row("file.mimeType", Identifier, Column("mime_type"), Mixed),
    row("file.mimeTypeByBytes", Identifier, Column("mime_type_by_bytes"), Mixed),
    row("file.mimeTypeByExtension", Identifier, Column("mime_type_by_extension"), Mixed),
    row("file.sizeInBytes", Number, Column("file_size_bytes"), Exact),
    row("file.hash.md5", Hash, Column("md5"), Lower),
    row("file.hash.sha256", Hash, Column("sha256"), Lower),
    row("file.hash.md5Error", Text, Column("hash_error"), Mixed),
    row("file.hash.sha256Error", Text, Column("hash_error"), Mixed),
    row("file.id", Identifier, Column("attachment_id"), Exact),
    row("file.url", Text, Column("source_url"), Mixed),
    row("source.category", Identifier, Constant("Email"), Mixed),
    row("source.email.sender", Identifier, Column("sender"), Lower),
    row("source.email.from", Identifier, Column("from_address"), Lower),
    row("destination.category", Identifier, Constant("Email"), Mixed),
    row("destination.email.recipients", Texts, Column("recipients"), Lower),
    row("destination.email.subject", Text, Column("subject"), Mixed),
    row("risk.score", Number, Column("risk_score"), Exact),
    row("risk.severity", Identifier, Column("risk_severity"), Mixed),
    row("risk.indicators.name", Texts, Column("risk_indicators"), Mixed),
    row("risk.indicators.id", Texts, Column("risk_indicator_ids"), Mixed),
    row("risk.indicators.weight", Numbers, Column("risk_indicator_weights"), Exact),
    row("risk.trusted", Flag, Column("trusted"), Exact),
    row("risk.trustReason", Identifier, Column("trust_reason"), Mixed),
    row("risk.untrustedValues.domains", Texts, Column("untrusted_domains"), Lower),
    // Waybill's own: what that model lacks.
    row("email.messageId", Identifier, Column("internet_message_id"), Exact),
    row("email.to", Texts, Column("to_recipients"), Lower),
    row("email.cc", Texts, Column("cc_recipients"), Lower),
    row("email.bcc", Texts, Column("bcc_recipients"), Lower),
    row("email.recipientDomains", Texts, Column("recipient_domains"), Lower),
    row("email.mailbox", Identifier, Column("mailbox"), Lower),
    row("email.mailboxGuid", Identifier, Column("mailbox_guid"), Mixed),
    row("file.extension", Identifier, Column("file_extension"), Lower),
    row("file.path", Text, Column("file_path"), Mixed),
    row("file.hash.status", Identifier, Column("hash_status"), Lower),
    row("file.attachmentKind", Identifier, Column("attachment_kind"), Lower),
    row("file.isInline", Flag, Column("is_inline"), Exact),
    row("file.storeSizeInBytes", Number, Column("store_size_bytes"), Exact),
    row("connection.id", Identifier, Column("connection_id"), Mixed),
    row("connection.name", Identifier, Column("connection_name"), Mixed),
    row("run.id", Identifier, Column("run_id"), Mixed),
    row("tenant.id", Identifier, Column("tenant_id"), Mixed),
    row("client.ip", Identifier, Column("client_ip"), Mixed),
    row("client.info", Text, Column("client_info"), Mixed),
    row("client.appId", Identifier, Column("app_id"), Mixed),
    row("audit.actor", Identifier, Column("actor"), Mixed),
    row("audit.operation", Identifier, Column("audit_operation"), Mixed),
    row("audit.recordIds", Texts, Column("audit_record_ids"), Mixed),
    row("audit.blobId", Identifier, Column("content_blob_id"), Exact),
    // What the replaced product's model has for endpoints, cloud stores, reports and source code, and mail has not.
    none("destination.accountName", Text),
    none("destination.accountType", Text),
    none("destination.domains", Texts),
    none("destination.identifiers", Texts),
    none("destination.identifier.id", Text),
    none("destination.ip", Text),
    none("destination.name", Text),
    none("destination.operatingSystem", Text),
    none("destination.printJobName", Text),
    none("destination.printedFilesBackupPath", Text),
    none("destination.printerName", Text),
    none("destination.privateIp", Texts),
    none("destination.remoteHostname", Text),
    none("destination.removableMedia.busType", Text),
    none("destination.removableMedia.capacity", Number),
    none("destination.removableMedia.mediaName", Text),
    none("destination.removableMedia.name", Text),
    none("destination.removableMedia.partitionId", Texts),
    none("destination.removableMedia.serialNumber", Text),
    none("destination.removableMedia.vendor", Text),
    none("destination.removableMedia.volumeName", Texts),
    none("destination.tabs.title", Texts),
    none("destination.tabs.titleError", Texts),
    none("destination.tabs.url", Texts),
    none("destination.tabs.urlError", Texts),
    none("destination.user.email", Texts),
    none("event.relatedEvents.agentTimestamp", Time),
    none("event.relatedEvents.eventAction", Texts),
    none("event.relatedEvents.id", Texts),
    none("event.relatedEvents.sourceCategory", Texts),
    none("event.relatedEvents.sourceName", Texts),
    none("event.relatedEvents.tabs.title", Texts),
    none("event.relatedEvents.tabs.titleError", Texts),
    none("event.relatedEvents.tabs.url", Texts),
    none("event.relatedEvents.tabs.urlError", Texts),
    none("event.relatedEvents.userEmail", Texts),
    none("event.shareType", Texts),
    none("event.xfcEventId", Text),
    none("file.acquiredFrom.agentTimestamp", Time),
    none("file.acquiredFrom.eventAction", Texts),
    none("file.acquiredFrom.eventId", Texts),
    none("file.acquiredFrom.fileName", Texts),
    none("file.acquiredFrom.git.repositoryEmail", Texts),
    none("file.acquiredFrom.git.repositoryUri", Texts),
    none("file.acquiredFrom.git.repositoryUser", Texts),
    none("file.acquiredFrom.md5", Texts),
    none("file.acquiredFrom.sourceAccountName", Texts),
    none("file.acquiredFrom.sourceAccountType", Texts),
    none("file.acquiredFrom.sourceCategory", Texts),
    none("file.acquiredFrom.sourceDomains", Texts),
    none("file.acquiredFrom.sourceName", Texts),
    none("file.acquiredFrom.sourceUser.email", Texts),
    none("file.acquiredFrom.tabs.title", Texts),
    none("file.acquiredFrom.tabs.titleError", Texts),
    none("file.acquiredFrom.tabs.url", Texts),
    none("file.acquiredFrom.tabs.urlError", Texts),
    none("file.acquiredFrom.userEmail", Texts),
    none("file.archiveId", Text),
    none("file.categoryByBytes", Text),
    none("file.categoryByExtension", Text),
    none("file.changeType", Text),
    none("file.classifications.value", Texts),
    none("file.classifications.vendor", Texts),
    none("file.cloudDriveId", Text),
    none("file.created", Time),
    none("file.directory", Text),
    none("file.directoryId", Texts),
    none("file.modified", Time),
    none("file.originalDirectory", Text),
    none("file.originalName", Text),
    none("file.owner", Text),
    none("file.parentArchiveId", Text),
    none("file.passwordProtected", Flag),
    none("git.eventId", Text),
    none("git.lastCommitHash", Text),
    none("git.repositoryEmail", Text),
    none("git.repositoryEndpointPath", Text),
    none("git.repositoryUri", Text),
    none("git.repositoryUser", Text),
    none("process.executable", Text),
    none("process.extension.browser", Text),
    none("process.extension.loggedInUser", Text),
    none("process.extension.version", Text),
    none("process.owner", Text),
    none("report.count", Number),
    none("report.description", Text),
    none("report.headers", Texts),
    none("report.id", Text),
    none("report.name", Text),
    none("report.type", Text),
    none("responseControls.preventativeControl", Text),
    none("responseControls.reason", Text),
    none("responseControls.userJustification.reason", Text),
    none("responseControls.userJustification.text", Text),
    none("risk.untrustedValues.accountNames", Texts),
    none("risk.untrustedValues.gitRepositoryUris", Texts),
    none("risk.untrustedValues.slackWorkspaces", Texts),
    none("risk.untrustedValues.urlPaths", Texts),
    none("source.accountName", Text),
    none("source.accountType", Text),
    none("source.domain", Text),
    none("source.domains", Texts),
    none("source.identifiers", Texts),
    none("source.identifier.id", Text),
    none("source.ip", Text),
    none("source.name", Text),
    none("source.operatingSystem", Text),
    none("source.privateIp", Texts),
    none("source.remoteHostname", Text),
    none("source.removableMedia.busType", Text),
    none("source.removableMedia.capacity", Number),
    none("source.removableMedia.mediaName", Text),
    none("source.removableMedia.name", Text),
    none("source.removableMedia.partitionId", Texts),
    none("source.removableMedia.serialNumber", Text),
    none("source.removableMedia.vendor", Text),
    none("source.removableMedia.volumeName", Texts),
    none("source.tabs.title", Texts),
    none("source.tabs.titleError", Texts),
    none("source.tabs.url", Texts),
    none("source.tabs.urlError", Texts),
    none("source.user.email", Texts),
    none("user.deviceUid", Text),
    none("user.id", Text),
];

/// The columns that the view `events` has beside those of `file_events`.
const RISK_COLUMNS: [&str; 8] = [
    "risk_score",
    "risk_severity",
    "risk_indicators",
    "risk_indicator_ids",
    "risk_indicator_weights",
    "trusted",
    "trust_reason",
    "untrusted_domains",
];

/// Whether only the view `events` has the column.
pub(super) fn is_risk_column(column: &str) -> bool {
    RISK_COLUMNS.contains(&column)
}

impl Term {
    /// The term of that name, as the API spells it.
    pub fn parse(name: &str) -> Option<Self> {
        TERMS.iter().find(|row| row.name == name).map(Self)
    }

    /// The term that a person means: its name or its column in any case.
    pub fn named(name: &str) -> Option<Self> {
        let is_named = |row: &&Row| row.name.eq_ignore_ascii_case(name);
        TERMS.iter().find(is_named).map(Self).or_else(|| Self::of_column(&name.to_ascii_lowercase()))
    }

    /// The term by which a column of `events` is best known.
    pub fn of_column(column: &str) -> Option<Self> {
        TERMS.iter().find(|row| matches!(row.holds, Column(held) if held == column)).map(Self)
    }

    /// Every term.
    pub fn all() -> impl Iterator<Item = Self> {
        TERMS.iter().map(Self)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// What sort of value it has.
    pub fn kind(self) -> Kind {
        self.0.kind
    }

    /// The column of `events` that holds it; nothing when it is not one column.
    pub fn column(self) -> Option<&'static str> {
        match self.0.holds {
            Column(column) => Some(column),
            First(..) | Constant(_) | Holds::Nothing => None,
        }
    }

    /// Whether any event can have a value for it.
    pub fn is_known_to_mail(self) -> bool {
        self.0.holds != Holds::Nothing
    }

    /// Its value as an expression over the columns of `events`, to sort and group by.
    pub fn value(self) -> Expr {
        match self.0.holds {
            Column(column) => col(column),
            First(first, second) => coalesce(vec![col(first), col(second)]),
            Constant(value) => lit(value),
            Holds::Nothing => Expr::Literal(ScalarValue::Utf8(None), None),
        }
    }

    /// Its value in a row of `events` that was written as JSON; null, or an empty list, where the event has none.
    pub fn of_row(self, row: &serde_json::Map<String, Json>) -> Json {
        let column = |name: &str| row.get(name).filter(|value| !value.is_null()).cloned();
        let value = match self.0.holds {
            Column(name) => column(name),
            First(first, second) => column(first).or_else(|| column(second)),
            Constant(value) => Some(Json::from(value)),
            Holds::Nothing => None,
        };
        value.unwrap_or_else(|| if self.kind().is_list() { Json::Array(Vec::new()) } else { Json::Null })
    }

    pub(super) fn holds(self) -> Holds {
        self.0.holds
    }

    pub(super) fn letters(self) -> Letters {
        self.0.letters
    }
}

impl PartialEq for Term {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Term {}

impl std::fmt::Debug for Term {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::fmt::Display for Term {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Kind {
    /// The operators that a term of this kind takes.
    pub fn operators(self) -> &'static [Operator] {
        use Operator::{
            DoesNotExist, Exists, GreaterThan, Is, IsAny, IsNone, IsNot, LessThan, On, OnOrAfter, OnOrBefore,
            WithinTheLast,
        };
        match self {
            Text | Identifier | Hash | Texts => &[Is, IsNot, IsAny, IsNone, Exists, DoesNotExist],
            Number | Numbers => &[Is, IsNot, IsAny, IsNone, Exists, DoesNotExist, GreaterThan, LessThan],
            Time => &[On, OnOrAfter, OnOrBefore, WithinTheLast, GreaterThan, LessThan, Exists, DoesNotExist],
            Flag => &[Is, IsNot, Exists, DoesNotExist],
        }
    }

    /// Whether an event can have several values.
    pub fn is_list(self) -> bool {
        matches!(self, Texts | Numbers)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::event::schema::{TableName, table};

    #[test]
    fn every_column_of_file_events_has_a_term_and_every_term_a_column_that_exists() {
        let events = table(TableName::FileEvents);
        for column in &events.columns {
            // The partition repeats the day of observed_at, by which filters on that read less.
            let is_asked = Term::of_column(&column.name).is_some() || column.name == "mailbox";
            assert!(is_asked || column.name == "event_date", "no term asks for `{}`", column.name);
        }
        for term in Term::all() {
            let columns = match term.holds() {
                Column(column) => vec![column],
                First(first, second) => vec![first, second],
                Constant(_) | Holds::Nothing => Vec::new(),
            };
            for column in columns {
                assert!(events.column(column).is_some() || is_risk_column(column), "{term}: `{column}`");
            }
        }
    }

    #[test]
    fn names_are_unique_and_found_in_any_case() {
        let names: BTreeSet<String> = Term::all().map(|term| term.name().to_ascii_lowercase()).collect();
        assert_eq!(names.len(), TERMS.len());
        assert_eq!(Term::named("FILE.NAME"), Term::parse("file.name"));
        assert_eq!(Term::named("Sha256").map(Term::name), Some("file.hash.sha256"));
        assert_eq!(Term::parse("sha256"), None, "the API knows terms, not columns");
    }

    #[test]
    fn what_the_lake_holds_in_lower_case_is_known_by_its_description() {
        let events = table(TableName::FileEvents);
        for term in Term::all().filter(|term| term.letters() == Lower) {
            let Some(column) = term.column().and_then(|column| events.column(column)) else { continue };
            let description = &column.description;
            let is_said = ["lower", "UUID", "Address", "Domains", "always `file-emailed`", "`hashed`", "`file`"]
                .iter()
                .any(|word| description.contains(word));
            assert!(is_said, "{term}: {description}");
        }
    }
}
