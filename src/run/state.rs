//! Where a connection stands: what was asked for, what was read, what is owed.
//!
//! This is the state that rides in a checkpoint. Its laws are the functions [`State::check`] names; they are checked
//! before each commit, against the state that the commit replaces.

use std::collections::{BTreeSet, VecDeque};

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use super::health::Health;
use crate::clock::Time;
use crate::error::{Code, Error, Result};
use crate::event::FileEvent;
use crate::id::Id;
use crate::limits;
use crate::source::{AttachmentRef, ContentBlob, SendRecord, Window};

/// The state of a connection between two commits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Monitoring covers what became available from here on.
    pub since: Time,
    /// Every instant before it lies in a window that was planned, is closed, or is a gap.
    pub watermark: Time,
    /// Windows that are not closed: not read whole, or so new that content may still be listed late. In order.
    pub windows: Vec<OpenWindow>,
    /// Records whose fate is known, the oldest first. Saves requests; what makes a row single is its event id in the lake.
    pub seen: VecDeque<Seen>,
    /// Work for later runs.
    pub owed: Owed,
    /// The newest audit content that was ever listed.
    pub newest_content: Option<Time>,
    /// Whether a mailbox was ever read: then a refusal is a policy sooner than a missing permission.
    #[serde(default)]
    pub has_read_mail: bool,
    /// When the first run began.
    #[serde(default)]
    pub begun: Option<Time>,
    /// When the last run finished.
    #[serde(default)]
    pub last_run: Option<Time>,
    /// How the last run left the connection; nothing before the first.
    #[serde(default)]
    pub health: Option<Health>,
    /// The people that the last run monitored, as rows of `scope_members`; nothing for everybody.
    #[serde(default)]
    pub scope_id: Option<String>,
    /// Whether shards of a later layout took it over: no run begins with it any more.
    #[serde(default)]
    pub is_sealed: bool,
}

/// A window and which of its blobs were read whole. Boundaries never change, since ids name ranges cut by them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenWindow {
    /// The interval.
    pub window: Window,
    /// Blobs that were read whole and whose records all met their fate.
    pub read: BlobSet,
    /// Whether a listing of this window ever succeeded.
    pub listed: bool,
}

/// Blobs of a window. It only ever grows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlobSet(BTreeSet<Id>);

impl BlobSet {
    /// Adds a blob by its id.
    pub fn insert(&mut self, blob_id: &str) {
        self.0.insert(Id::of(blob_id));
    }

    /// Their ids.
    pub fn iter(&self) -> impl Iterator<Item = Id> {
        self.0.iter().copied()
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Records that met their fate with one commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// When.
    pub at: Time,
    /// Their ids.
    pub ids: Vec<Id>,
}

/// What could not be had yet.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Owed {
    /// Blobs that were listed and could not be read whole.
    pub blobs: Vec<OwedBlob>,
    /// Sends whose message could not be had yet.
    pub messages: Vec<OwedMessage>,
    /// Attachments whose bytes could not be had yet.
    pub hashes: Vec<OwedHash>,
}

impl Owed {
    /// How many things are owed.
    pub fn count(&self) -> usize {
        self.blobs.len() + self.messages.len() + self.hashes.len()
    }
}

/// A blob that is tried again until it expires.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OwedBlob {
    /// The blob.
    pub blob: ContentBlob,
    /// The window in which it was listed.
    pub window: Window,
    /// Why it could not be read, `<code>: <text>`.
    pub reason: String,
}

/// A send whose message is looked for again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OwedMessage {
    /// What the audit record said.
    pub send: SendRecord,
    /// The blob that held the record.
    pub blob_id: String,
    /// The rows that stand for it meanwhile: event id and partition.
    pub rows: Vec<(String, NaiveDate)>,
    /// Why the message could not be had, `<code>: <text>`.
    pub reason: String,
}

/// An attachment whose bytes are read again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OwedHash {
    /// What to read.
    pub attachment: AttachmentRef,
    /// The row that stands for it meanwhile.
    pub row: FileEvent,
}

impl State {
    /// The state of a connection that has never run.
    pub fn new(since: Time) -> Self {
        Self {
            since,
            watermark: since,
            windows: Vec::new(),
            seen: VecDeque::new(),
            owed: Owed::default(),
            newest_content: None,
            has_read_mail: false,
            begun: None,
            last_run: None,
            health: None,
            scope_id: None,
            is_sealed: false,
        }
    }

    /// Records that need no second look: their fate is known, or their message is owed.
    pub fn met_ids(&self) -> impl Iterator<Item = Id> {
        self.seen_ids().chain(self.owed.messages.iter().map(|owed| Id::of(&owed.send.id)))
    }

    /// Records whose fate is known, the oldest first.
    pub fn seen_ids(&self) -> impl Iterator<Item = Id> {
        self.seen.iter().flat_map(|seen| &seen.ids).copied()
    }

    /// Remembers records, and forgets those that the feed can no longer repeat or that are too many.
    pub fn remember(&mut self, ids: Vec<Id>, now: Time) {
        if !ids.is_empty() {
            self.seen.push_back(Seen { at: now, ids });
        }
        self.forget(now);
    }

    /// Remembers records of a past interval: the first to be forgotten, since the feed repeats the others sooner.
    pub fn remember_past(&mut self, ids: Vec<Id>, now: Time) {
        if !ids.is_empty() {
            self.seen.push_front(Seen { at: now, ids });
        }
        self.forget(now);
    }

    fn forget(&mut self, now: Time) {
        let mut count: usize = self.seen.iter().map(|seen| seen.ids.len()).sum();
        while let Some(oldest) = self.seen.front() {
            if count <= limits::SEEN_RECORDS && oldest.at >= now - limits::SEEN_TIME {
                break;
            }
            count -= oldest.ids.len();
            self.seen.pop_front();
        }
    }

    /// What the laws say of a state that comes after this one.
    pub fn standing(&self) -> Standing {
        let windows = self.windows.iter().map(|open| (open.window, open.read.count())).collect();
        Standing { watermark: self.watermark, windows }
    }

    /// Whether what replaces `before` keeps the laws of a connection's state.
    ///
    /// # Errors
    /// `internal`, naming the law; the commit does not happen then.
    pub fn check(&self, before: Option<&Standing>) -> Result<()> {
        let broken = |law: &str| Err(Error::new(Code::Internal, format!("the new state breaks a law: {law}")));
        if before.is_some_and(|before| self.watermark < before.watermark) {
            return broken("the watermark never moves back");
        }
        if self.windows.iter().any(|open| open.window.end() > self.watermark) {
            return broken("no open window reaches beyond the watermark");
        }
        if self.windows.windows(2).any(|pair| pair[0].window.end() > pair[1].window.start()) {
            return broken("open windows do not overlap");
        }
        // A window that is dropped must be closed: what it still owed must be owed by name.
        let read_before = |window| before?.windows.iter().find(|(other, _)| *other == window).map(|(_, read)| *read);
        if self.windows.iter().any(|open| read_before(open.window).is_some_and(|read| open.read.count() < read)) {
            return broken("a blob that was read stays read");
        }
        Ok(())
    }
}

/// What the laws need to know of a state that was replaced; of sets that only grow, their sizes.
#[derive(Clone, Debug)]
pub struct Standing {
    watermark: Time,
    windows: Vec<(Window, usize)>,
}
