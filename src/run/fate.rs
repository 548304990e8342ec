//! Where each record ends: event, owed, gap, quarantined, duplicate, out of scope, in another shard. Nothing leaves a stage without one.

use std::collections::BTreeMap;

use serde::Serialize;

use super::state::{OwedHash, OwedMessage};
use crate::error::Error;
use crate::event::FileEvent;
use crate::source::{ContentBlob, UnreadableRecord, Window};

/// What became of something that entered the pipeline.
pub(super) enum Fate {
    /// A blob was read to its end; `sends` of its records are on their way and have fates of their own.
    BlobRead { blob: ContentBlob, window: Window, sends: u64, tally: Tally, unreadable: Vec<UnreadableRecord> },
    /// A blob could not be read to its end.
    BlobFailed { blob: ContentBlob, window: Window, tally: Tally, error: Error },
    /// A send was dealt with.
    Send { window: Window, blob_id: String, record_id: String, outcome: Outcome },
    /// Something that an earlier run owed was tried again.
    Retried(Retried),
}

/// What became of one send.
pub(super) enum Outcome {
    /// The message was found; its attachments are these rows, some with a hash owed.
    Events { rows: Vec<FileEvent>, owed: Vec<OwedHash> },
    /// Every attachment of the message is on its way through another record.
    Claimed { event_ids: Vec<String> },
    /// The message cannot be had yet; these rows stand for it.
    Owed { rows: Vec<FileEvent>, owed: Box<OwedMessage> },
    /// The message cannot be had at all; the rows say what the record knows, and nothing more will come.
    Lost { rows: Vec<FileEvent>, reason: String, subject: String },
}

/// What became of something owed.
pub(super) enum Retried {
    /// A message: its rows give way to these.
    Message { owed: Box<OwedMessage>, outcome: Outcome },
    /// A hash: its row gives way to this one, which is owed still or is not.
    Hash { before: Box<OwedHash>, row: Box<FileEvent>, still_owed: bool },
}

/// Counts of records in a blob, or in many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Tally {
    /// Records of any kind.
    pub(super) records: u64,
    /// Bytes of their JSON.
    pub(super) feed_bytes: u64,
    /// Records that report a send.
    pub(super) sends: u64,
    /// Sends of mailboxes of other shards.
    pub(super) other_shards: u64,
    /// Sends that were known already.
    pub(super) duplicates: u64,
    /// Sends of mailboxes that are not monitored.
    pub(super) out_of_scope: u64,
    /// Records that cannot be understood.
    pub(super) unreadable: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.feed_bytes += other.feed_bytes;
        self.sends += other.sends;
        self.other_shards += other.other_shards;
        self.duplicates += other.duplicates;
        self.out_of_scope += other.out_of_scope;
        self.unreadable += other.unreadable;
    }
}

/// Counts by reason, for reports.
pub(super) type Reasons = BTreeMap<String, u64>;

/// `<code>: <text>`, as rows and owed work keep a failure.
pub(super) fn reason(error: &Error) -> String {
    format!("{}: {error}", error.code())
}
