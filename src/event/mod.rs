//! The rows that we promise: their fields, their identity, their schema, and their way into Arrow and back.
//!
//! A [`FileEvent`] is one attachment of one sent message, and the product of the whole system. [`Run`], [`Gap`] and
//! [`Quarantined`] are the rows that say how it came about and what is missing, [`Change`] and [`ScopeMember`] those that
//! say who was monitored, and by whose decision. `schemas/*.json` is the contract with
//! every user; it only ever grows.
//!
//! May use: `clock`, `error`, `limits`. Knows nothing of mail services, of Delta or of files; Arrow's types are ours from
//! here on.

pub mod batch;
pub mod id;
pub mod names;
pub mod schema;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::clock::Time;

pub use batch::{Row, file_events, to_batch};
pub use schema::{Table, TableName, table};

/// What happened to the file of every file event; the replaced product's word.
pub const EVENT_ACTION: &str = "file-emailed";

/// One attachment of one sent message. `event_action` and `event_date` follow from it and are not fields.
///
/// Each field is the column of the same name in `schemas/file_events.json`, which describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the columns' descriptions in schemas/file_events.json are the one place")]
pub struct FileEvent {
    pub event_id: String,
    pub observed_at: Time,
    pub inserted_at: Time,
    pub file_name: Option<String>,
    pub file_extension: Option<String>,
    pub file_size_bytes: Option<u64>,
    pub sha256: Option<String>,
    pub md5: Option<String>,
    pub hash_status: HashStatus,
    pub hash_error: Option<String>,
    pub sender: Option<String>,
    pub from_address: Option<String>,
    pub recipients: Vec<String>,
    pub recipient_domains: Vec<String>,
    pub subject: Option<String>,
    pub internet_message_id: Option<String>,
    pub mailbox: Option<String>,
    pub connection_id: String,
    pub connection_name: String,
    pub to_recipients: Vec<String>,
    pub cc_recipients: Vec<String>,
    pub bcc_recipients: Vec<String>,
    pub file_category: String,
    pub mime_type: Option<String>,
    pub mime_type_by_bytes: Option<String>,
    pub mime_type_by_extension: Option<String>,
    pub attachment_kind: Option<String>,
    pub is_inline: Option<bool>,
    pub source_url: Option<String>,
    pub attachment_id: Option<String>,
    pub store_size_bytes: Option<u64>,
    pub file_path: Option<String>,
    pub audit_record_ids: Vec<String>,
    pub audit_operation: Option<String>,
    pub actor: Option<String>,
    pub client_ip: Option<String>,
    pub client_info: Option<String>,
    pub app_id: Option<String>,
    pub tenant_id: Option<String>,
    pub mailbox_guid: Option<String>,
    pub content_blob_id: Option<String>,
    pub run_id: String,
}

impl FileEvent {
    /// The UTC date of `observed_at`, by which the table is partitioned.
    pub fn event_date(&self) -> NaiveDate {
        self.observed_at.date_naive()
    }

    /// About the memory that it takes: what rows have in common, and their lists, which may be of any length.
    pub fn held_bytes(&self) -> usize {
        /// Measured: the struct itself takes 1 KB, its texts 2.
        const USUALLY: usize = 3 * 1024;
        let lists = [
            &self.recipients,
            &self.recipient_domains,
            &self.to_recipients,
            &self.cc_recipients,
            &self.bcc_recipients,
            &self.audit_record_ids,
        ];
        USUALLY + lists.into_iter().flatten().map(|text| size_of::<String>() + text.len()).sum::<usize>()
    }
}

/// Whether a file event has its hash, and if not, whether it may still come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashStatus {
    /// `sha256`, `md5` and `file_size_bytes` are there.
    Hashed,
    /// Not yet; a later run tries again and upgrades the row.
    Owed,
    /// Cannot be had; `hash_error` says why.
    Unavailable,
    /// There are no bytes: a link to a file elsewhere.
    NotApplicable,
}

impl HashStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Hashed, Self::Owed, Self::Unavailable, Self::NotApplicable];

    /// The word in the lake.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hashed => "hashed",
            Self::Owed => "owed",
            Self::Unavailable => "unavailable",
            Self::NotApplicable => "not_applicable",
        }
    }

    /// The status of a word in the lake.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// One finished run of a connection. `run_date` follows from it and is not a field.
///
/// Each field is the column of the same name in `schemas/runs.json`, which describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the columns' descriptions in schemas/runs.json are the one place")]
pub struct Run {
    pub run_id: String,
    pub connection_id: String,
    pub connection_name: String,
    pub started_at: Time,
    pub finished_at: Time,
    pub outcome: Outcome,
    pub exit_code: u8,
    pub window_start: Option<Time>,
    pub window_end: Option<Time>,
    pub windows: u64,
    pub blobs: u64,
    pub blobs_failed: u64,
    pub records: u64,
    pub sends: u64,
    pub sends_out_of_scope: u64,
    pub duplicates: u64,
    pub events: u64,
    pub events_upgraded: u64,
    pub bytes_hashed: u64,
    pub hashed: u64,
    /// Each `<code>=<count>`.
    pub hash_failed: Vec<String>,
    pub quarantined: u64,
    pub gaps: u64,
    pub owed: u64,
    /// Each `<kind>=<count>`.
    pub requests: Vec<String>,
    pub retries: u64,
    pub throttled: u64,
    pub throttled_ms: u64,
    pub lag_seconds: Option<i64>,
    pub scope_kind: String,
    pub scope_people: Option<u64>,
    #[serde(default)]
    pub scope_id: Option<String>,
    pub waybill_version: String,
    pub error: Option<String>,
    /// Absent from checkpoints that an older Waybill wrote.
    #[serde(default)]
    pub kind: Option<RunKind>,
    #[serde(default)]
    pub shard: Option<String>,
}

/// What a run was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// To read on from where the last one stopped.
    Run,
    /// To try again what earlier ones owed.
    Owed,
    /// To fill a past interval.
    Backfill,
}

impl RunKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Run, Self::Owed, Self::Backfill];

    /// The word in the lake.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Owed => "owed",
            Self::Backfill => "backfill",
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything was read.
    Done,
    /// Something is owed, quarantined or lost.
    Partial,
    /// It could not go on.
    Failed,
    /// A signal stopped it; nothing is lost.
    Interrupted,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Done, Self::Partial, Self::Failed, Self::Interrupted];

    /// The word in the lake.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Something that could not be read. `gap_date` follows from it and is not a field.
///
/// Each field is the column of the same name in `schemas/gaps.json`, which describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the columns' descriptions in schemas/gaps.json are the one place")]
pub struct Gap {
    /// From [`id::GapKey`].
    pub gap_id: String,
    pub found_at: Time,
    pub kind: GapKind,
    pub connection_id: String,
    pub connection_name: String,
    pub window_start: Option<Time>,
    pub window_end: Option<Time>,
    pub content_blob_id: Option<String>,
    pub subject: Option<String>,
    pub reason: String,
    pub remedy: Option<String>,
    pub run_id: String,
}

/// Where something was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapKind {
    /// The time is older than the feed keeps.
    FeedMemory,
    /// A content blob expired before it was read whole.
    Blob,
    /// The feed was switched off for a time.
    Subscription,
    /// A mailbox cannot be read.
    Mailbox,
    /// A message that the feed reported was never found, and the record names no attachment.
    Message,
    /// The connection was deauthorised for a time.
    Deauthorized,
}

impl GapKind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::FeedMemory, Self::Blob, Self::Subscription, Self::Mailbox, Self::Message, Self::Deauthorized];

    /// The word in the lake.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FeedMemory => "feed_memory",
            Self::Blob => "blob",
            Self::Subscription => "subscription",
            Self::Mailbox => "mailbox",
            Self::Message => "message",
            Self::Deauthorized => "deauthorized",
        }
    }
}

/// An audit record that could not be understood. `quarantine_date` follows from it and is not a field.
///
/// Each field is the column of the same name in `schemas/quarantine.json`, which describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the columns' descriptions in schemas/quarantine.json are the one place")]
pub struct Quarantined {
    /// From [`id::QuarantineKey`].
    pub quarantine_id: String,
    pub found_at: Time,
    pub connection_id: String,
    pub connection_name: String,
    pub content_blob_id: Option<String>,
    pub reason: String,
    pub raw: String,
    pub run_id: String,
}

/// Something that was done to a connection, or became of it. `change_date` follows from it and is not a field.
///
/// Each field is the column of the same name in `schemas/changes.json`, which describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the columns' descriptions in schemas/changes.json are the one place")]
pub struct Change {
    pub change_id: String,
    pub changed_at: Time,
    pub actor: String,
    pub action: Action,
    pub connection_id: Option<String>,
    pub connection_name: Option<String>,
    pub status: Option<Status>,
    pub status_before: Option<Status>,
    pub code: Option<String>,
    pub detail: Option<String>,
    pub run_id: Option<String>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A connection was added.
    Added,
    /// An administrator of the tenant consented.
    Authorized,
    /// Other people are monitored.
    Rescoped,
    /// Its mailboxes are divided into another number of shards.
    Split,
    /// Runs leave it alone until it is resumed.
    Paused,
    /// Runs read it again, from where they stopped.
    Resumed,
    /// Runs leave it alone until it is authorised anew.
    Deauthorized,
    /// It is gone; its rows stay.
    Removed,
    /// A run found the status to be another one.
    Status,
    /// A search was saved, or a saved one changed.
    SearchSaved,
    /// A saved search was removed.
    SearchRemoved,
    /// An API token was made.
    TokenAdded,
    /// An API token was taken back.
    TokenRemoved,
    /// A lake got rules of risk of its own, or other ones.
    RiskRulesSet,
    /// The default rules of risk apply again.
    RiskRulesReset,
    /// A domain is trusted.
    TrustAdded,
    /// A domain is trusted no more.
    TrustRemoved,
}

impl Action {
    /// The word in the lake.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Authorized => "authorized",
            Self::Rescoped => "rescoped",
            Self::Split => "split",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Deauthorized => "deauthorized",
            Self::Removed => "removed",
            Self::Status => "status",
            Self::SearchSaved => "search_saved",
            Self::SearchRemoved => "search_removed",
            Self::TokenAdded => "token_added",
            Self::TokenRemoved => "token_removed",
            Self::RiskRulesSet => "risk_rules_set",
            Self::RiskRulesReset => "risk_rules_reset",
            Self::TrustAdded => "trust_added",
            Self::TrustRemoved => "trust_removed",
        }
    }
}

/// Where a connection stands, in the words of the product that Waybill replaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// No run has read audit content yet.
    #[default]
    Initializing,
    /// The last run read the audit log.
    Monitoring,
    /// The last run could not, or what it read cannot be right.
    Error,
    /// An administrator paused it.
    Paused,
    /// An administrator took back the right to read.
    Deauthorized,
    /// It is gone.
    Removed,
}

impl Status {
    /// The word in the lake.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Initializing => "initializing",
            Self::Monitoring => "monitoring",
            Self::Error => "error",
            Self::Paused => "paused",
            Self::Deauthorized => "deauthorized",
            Self::Removed => "removed",
        }
    }
}

/// A person of a resolved scope. `resolved_date` follows from it and is not a field.
///
/// Each field is the column of the same name in `schemas/scope_members.json`, which describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the columns' descriptions in schemas/scope_members.json are the one place")]
pub struct ScopeMember {
    pub scope_id: String,
    pub connection_id: String,
    pub address: String,
    pub object_id: String,
    pub mail: Option<String>,
    pub display_name: Option<String>,
    pub resolved_at: Time,
    pub run_id: String,
}

/// A search, as evidence. `asked_date` follows from it and is not a field.
///
/// Each field is the column of the same name in `schemas/searches.json`, which describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the columns' descriptions in schemas/searches.json are the one place")]
pub struct Searched {
    pub search_id: String,
    pub asked_at: Time,
    pub who: String,
    pub surface: String,
    pub address: Option<String>,
    pub statement: String,
    pub outcome: SearchOutcome,
    pub code: Option<String>,
    pub rows: u64,
    pub duration_ms: u64,
    pub policy: Option<String>,
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SearchOutcome {
    /// The answer was handed over whole.
    Done,
    /// It could not be answered.
    Failed,
    /// It asked for something that whoever asked may not do.
    Refused,
    /// Whoever asked went away before the end.
    Cancelled,
}

impl SearchOutcome {
    /// The word in the lake.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
        }
    }
}
