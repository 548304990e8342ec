//! Fates → commits: the only place where a run's state changes.
//!
//! A blob is done when it was read to its end and each of its sends met its fate; only then is it marked as read. Rows of
//! a blob that is not done may be committed before: their records are marked as seen, and the blob is read again.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::NaiveDate;
use tokio::task::JoinSet;

use super::fate::{Fate, Outcome, Retried, Tally, reason};
use super::health::{self, Health};
use super::plan::Lost;
use super::report::{Failure, Report};
use super::row::Stamp;
use super::state::{OwedBlob, OwedHash, OwedMessage, Standing, State};
use crate::clock::Time;
use crate::error::{Code, Error, Result};
use crate::event::id::{GapKey, QuarantineKey, gap_id, quarantine_id, scope_id};
use crate::event::{FileEvent, Gap, GapKind, HashStatus, Quarantined, RunKind, ScopeMember};
use crate::id::Id;
use crate::lake::{Commit, Committed, Outbox, Writer};
use crate::limits;
use crate::source::{ContentBlob, ResolvedScope, UnreadableRecord, Window};

/// Gathers fates until a slice is worth a commit.
pub(super) struct Collector {
    stamp: Stamp,
    /// The one that commits; nothing while a commit is under way.
    writer: Option<Writer>,
    /// The commit under way, at most one; it ends when the run is dropped.
    committing: JoinSet<(Writer, Result<Committed>)>,
    /// The events that it brings.
    committing_ids: Vec<Id>,
    /// The state that the next commit makes effective.
    state: State,
    /// What the last commit made effective, or is about to.
    before: Option<Standing>,
    rows: Vec<FileEvent>,
    /// About the memory that the rows take.
    rows_bytes: usize,
    row_of: HashMap<Id, usize>,
    /// Further records of events whose row is still on its way.
    claimed_by: HashMap<Id, Vec<String>>,
    replaces: Vec<(String, NaiveDate)>,
    outbox: Outbox,
    met: Vec<Id>,
    blobs: HashMap<(Window, String), Blob>,
    records_since_commit: u64,
    last_commit: Time,
    /// Mailboxes that refused, and messages that were found.
    denied: HashSet<String>,
    found: u64,
    /// Why a window could not be listed, the last time.
    listing: Option<Failure>,
    /// What this run found to be lost because the feed has forgotten it.
    lost: Option<Failure>,
    /// When the tenant's administrator consented, if that is known.
    pub(super) authorized: Option<Time>,
    /// Ids of gaps and of quarantined records that have their rows; only of interest to a backfill, which may be repeated.
    pub(super) told: Option<HashSet<String>>,
    pub(super) report: Report,
}

/// A blob on its way to being done.
#[derive(Default)]
struct Blob {
    /// Its sends, once it was read to its end.
    sends: Option<u64>,
    /// Its sends that met their fate.
    met: u64,
    unreadable: Vec<UnreadableRecord>,
}

impl Collector {
    pub(super) fn new(stamp: Stamp, writer: Writer, before: Option<Standing>, state: State, report: Report) -> Self {
        let last_commit = stamp.started_at;
        Self {
            stamp,
            writer: Some(writer),
            committing: JoinSet::new(),
            committing_ids: Vec::new(),
            state,
            before,
            rows: Vec::with_capacity(limits::SLICE_ROWS),
            rows_bytes: 0,
            row_of: HashMap::new(),
            claimed_by: HashMap::new(),
            replaces: Vec::new(),
            outbox: Outbox::default(),
            met: Vec::new(),
            blobs: HashMap::new(),
            records_since_commit: 0,
            last_commit,
            denied: HashSet::new(),
            found: 0,
            listing: None,
            lost: None,
            authorized: None,
            told: None,
            report,
        }
    }

    /// Whether an earlier run has asked the feed for anything.
    pub(super) fn has_asked(&self) -> bool {
        self.state.watermark > self.state.since
    }

    pub(super) fn extend(&mut self, now: Time) -> Vec<Lost> {
        super::plan::extend(&mut self.state, now)
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Says that a window was listed, and the newest content in it.
    pub(super) fn listed(&mut self, window: Window, newest: Option<Time>) {
        // A past window of a backfill says nothing about how far the feed has come.
        if let Some(open) = self.state.windows.iter_mut().find(|open| open.window == window) {
            open.listed = true;
            self.state.newest_content = self.state.newest_content.max(newest);
        }
        self.report.windows += 1;
    }

    /// Says that a window could not be listed. It stays open for the next run; the one of a backfill, which is in no
    /// state, makes the backfill fail.
    pub(super) fn not_listed(&mut self, window: Window, error: &Error) {
        self.report.windows_failed += 1;
        self.report.failed(error);
        self.listing = Some(Failure::from(error));
        if error.code() == Code::GapTooOld {
            self.lost(Lost { window, reason: reason(error) });
            self.state.windows.retain(|open| open.window != window);
        } else if self.state.windows.iter().all(|open| open.window != window) {
            self.report.end_with(error);
        }
    }

    /// Records an interval that cannot be read any more.
    pub(super) fn lost(&mut self, lost: Lost) {
        let what = format!("the audit content of {} is lost: the feed keeps 7 days", lost.window);
        self.lost = Some(Failure::from(&Error::new(Code::GapTooOld, what)));
        self.gap(GapKind::FeedMemory, Some(lost.window), None, None, lost.reason);
    }

    /// Says that the feed was off: what became available meanwhile was never kept.
    pub(super) fn subscription_was_off(&mut self, window: Window) {
        let reason =
            format!("{}: the audit subscription was off and was started by this run", Code::SubscriptionDisabled);
        self.gap(GapKind::Subscription, Some(window), None, None, reason);
    }

    /// A refusal by every mailbox that was asked is not a policy about some of them: the permission is missing. Once
    /// mail was read, it takes more of them: in a quiet hour only mailboxes that are closed may have sent.
    fn every_mailbox_refused(&self) -> Option<Error> {
        let suspicious = if self.state.has_read_mail { 20 } else { 2 };
        (self.denied.len() >= suspicious && self.found == 0).then(|| {
            Error::new(
                Code::MailboxesDenied,
                format!(
                    "each of the {} mailboxes that were asked refused: `Mail.Read` is not in force for them",
                    self.denied.len()
                ),
            )
        })
    }

    pub(super) fn collect(&mut self, fate: Fate, now: Time) {
        match fate {
            Fate::BlobRead { blob, window, sends, tally, unreadable } => {
                self.count(tally);
                let entry = self.blobs.entry((window, blob.id.clone())).or_default();
                entry.sends = Some(sends);
                entry.unreadable = unreadable;
                self.settle((window, blob.id), now);
            }
            Fate::BlobFailed { blob, window, tally, error } => {
                self.count(tally);
                self.blob_failed(blob, window, &error);
            }
            Fate::Send { window, blob_id, record_id, outcome } => {
                self.send(&record_id, outcome);
                self.met.push(Id::of(&record_id));
                let key = (window, blob_id);
                self.blobs.entry(key.clone()).or_default().met += 1;
                self.settle(key, now);
            }
            Fate::Retried(Retried::Message { owed, outcome }) => self.retried_message(*owed, outcome),
            Fate::Retried(Retried::Hash { before, row, still_owed }) => self.retried_hash(*before, *row, still_owed),
        }
    }

    /// Whether enough came together for a commit.
    pub(super) fn is_slice(&self, now: Time) -> bool {
        self.rows.len() >= limits::SLICE_ROWS
            || self.rows_bytes >= limits::SLICE_BYTES
            || self.met.len() >= limits::SLICE_SENDS
            || self.records_since_commit >= limits::SLICE_RECORDS
            || (now - self.last_commit).to_std().is_ok_and(|time| time >= limits::SLICE_TIME)
    }

    /// Begins to commit what came together, when the commit before has ended; returns the ids of the events that the lake has
    /// since. What comes meanwhile is for the next one, so that the run does not wait for the store.
    pub(super) async fn begin_commit(&mut self, now: Time) -> Result<Vec<Id>> {
        let ended = self.end_commit().await?;
        let met = std::mem::take(&mut self.met);
        match self.report.kind {
            RunKind::Run | RunKind::Owed => self.state.remember(met, now),
            RunKind::Backfill => self.state.remember_past(met, now),
        }
        self.state.check(self.before.as_ref())?;
        let mut rows = std::mem::replace(&mut self.rows, Vec::with_capacity(limits::SLICE_ROWS));
        self.rows_bytes = 0;
        self.row_of.clear();
        for row in &mut rows {
            // A row becomes searchable with this commit, and so does what a retry added to it.
            row.inserted_at = now;
        }
        self.committing_ids = rows.iter().map(|row| Id::of(&row.event_id)).collect();
        let commit = Commit {
            rows,
            replaces: std::mem::take(&mut self.replaces),
            outbox: std::mem::take(&mut self.outbox),
            state: self.state.clone(),
        };
        let mut writer = self.writer.take().ok_or_else(no_writer)?;
        self.committing.spawn(async move {
            let committed = writer.commit(commit).await;
            (writer, committed)
        });
        self.before = Some(self.state.standing());
        self.records_since_commit = 0;
        self.last_commit = now;
        Ok(ended)
    }

    /// Waits for the commit under way; returns the ids of the events that it brought.
    pub(super) async fn end_commit(&mut self) -> Result<Vec<Id>> {
        let Some(ended) = self.committing.join_next().await else { return Ok(Vec::new()) };
        let (writer, committed) = ended.map_err(super::died)?;
        self.writer = Some(writer);
        let Committed { added, replaced, doubled } = committed?;
        self.report.events += added;
        self.report.events_upgraded += replaced;
        self.report.events_doubled += doubled;
        self.report.commits += 1;
        Ok(std::mem::take(&mut self.committing_ids))
    }

    /// The last commit of a run: with the run's own row, and with windows closed when all of them were dealt with.
    pub(super) async fn finish(&mut self, now: Time, is_whole: bool) -> Result<()> {
        self.end_commit().await?;
        if is_whole {
            self.report.check_fates()?;
            super::plan::close(&mut self.state, now);
        }
        if self.report.error.is_none()
            && let Some(error) = self.every_mailbox_refused()
        {
            self.end_with(error, now);
        }
        self.report.finish(now, &self.state);
        // What lies in the past, or is owed, says nothing about whether the feed is read now.
        if self.report.kind == RunKind::Run {
            self.judge(now);
        }
        // The run's row is part of its last commit, so it must say what that commit is about to do.
        let writer = self.writer.as_mut().ok_or_else(no_writer)?;
        let last = writer.preview(&self.rows, &self.replaces).await?;
        let mut row = self.report.row(&self.stamp);
        row.events += last.added;
        row.events_upgraded += last.replaced;
        self.outbox.runs.push(row);
        self.begin_commit(now).await?;
        self.end_commit().await.map(drop)
    }

    /// Says how the run leaves the connection.
    fn judge(&mut self, now: Time) {
        self.state.begun.get_or_insert(self.stamp.started_at);
        self.state.last_run = Some(now);
        let found = self.lost.as_ref().or(self.listing.as_ref().filter(|_| self.report.windows == 0));
        let health = Health::after(&self.report, &self.state, found, now);
        // One shard speaks for the connection; what befalls another one stands in its own run's row.
        if self.stamp.shard.is_first() {
            self.outbox.changes.extend(health.change(self.state.health.as_ref(), &self.stamp));
        }
        self.state.health = Some(health);
    }

    /// Remembers whom this run monitors. The same people as before are the same scope, and are in the lake already; whether
    /// they are so many that they are worth a commit.
    pub(super) fn monitors(&mut self, scope: &ResolvedScope) -> bool {
        self.report.scope_people = scope.people();
        self.report.scope_findings = scope.findings.iter().map(ToString::to_string).collect();
        let connection_id = self.stamp.connection_id.to_string();
        let scope_id = scope.members().map(|members| {
            let people = members.iter().map(|member| (member.object_id.as_str(), member.address.as_str()));
            scope_id(&connection_id, people)
        });
        if let (Some(scope_id), Some(members)) = (&scope_id, scope.members())
            && self.state.scope_id.as_ref() != Some(scope_id)
            && self.stamp.shard.is_first()
        {
            self.outbox.scope_members = members
                .iter()
                .map(|member| ScopeMember {
                    scope_id: scope_id.clone(),
                    connection_id: connection_id.clone(),
                    address: member.address.clone(),
                    object_id: member.object_id.clone(),
                    mail: member.mail.clone(),
                    display_name: member.name.clone(),
                    resolved_at: self.stamp.started_at,
                    run_id: self.stamp.run_id.to_string(),
                })
                .collect();
        }
        self.state.scope_id.clone_from(&scope_id);
        self.report.scope_id = scope_id;
        self.outbox.scope_members.len() >= limits::SLICE_ROWS
    }

    /// Says what ended the run before its time, or made it worthless.
    pub(super) fn end_with(&mut self, error: Error, now: Time) {
        self.report.end_with(&health::pending(error, self.authorized, now));
    }

    /// Leaves out what nobody wanted: the time until a connection that was deauthorised was authorised anew.
    pub(super) fn skip_to(&mut self, since: Time) {
        let Some(window) = Window::new(self.state.watermark, since) else { return };
        let reason = format!("{}: the connection was not authorised at this time", Code::ConnectionDeauthorized);
        self.gap(GapKind::Deauthorized, Some(window), None, None, reason);
        self.state.watermark = since;
        self.state.since = since;
    }

    fn count(&mut self, tally: Tally) {
        self.report.tally += tally;
        self.records_since_commit += tally.records;
    }

    fn settle(&mut self, key: (Window, String), now: Time) {
        let Some(blob) = self.blobs.get(&key) else { return };
        if blob.sends != Some(blob.met) {
            return;
        }
        let blob = self.blobs.remove(&key).unwrap_or_default();
        let (window, id) = key;
        // Whose it is cannot be told, and every shard reads it.
        if self.stamp.shard.is_first() {
            for record in blob.unreadable {
                self.quarantine(&id, record, now);
            }
        }
        self.report.blobs += 1;
        self.state.owed.blobs.retain(|owed| owed.blob.id != id || owed.window != window);
        if let Some(open) = self.state.windows.iter_mut().find(|open| open.window == window) {
            open.read.insert(&id);
        }
    }

    fn blob_failed(&mut self, blob: ContentBlob, window: Window, error: &Error) {
        self.report.blobs_failed += 1;
        self.report.failed(error);
        self.blobs.remove(&(window, blob.id.clone()));
        self.state.owed.blobs.retain(|owed| owed.blob.id != blob.id || owed.window != window);
        if error.code() == Code::ContentExpired {
            let created = Window::new(blob.created, blob.created + chrono::Duration::seconds(1));
            self.gap(GapKind::Blob, created, Some(blob.id.clone()), None, reason(error));
            if let Some(open) = self.state.windows.iter_mut().find(|open| open.window == window) {
                open.read.insert(&blob.id);
            }
        } else {
            self.state.owed.blobs.push(OwedBlob { blob, window, reason: reason(error) });
        }
    }

    fn send(&mut self, record_id: &str, outcome: Outcome) {
        self.report.sends_met += 1;
        match outcome {
            Outcome::Events { rows, owed } => {
                self.found += 1;
                self.state.has_read_mail = true;
                self.state.owed.hashes.extend(owed);
                self.add(rows);
            }
            Outcome::Claimed { event_ids } => {
                self.report.sends_claimed += 1;
                for id in event_ids.iter().map(|id| Id::of(id)) {
                    // The row of the other record is here, or comes with its last byte. When it was committed in between, the
                    // lake names one record.
                    match self.row_of.get(&id).and_then(|index| self.rows.get_mut(*index)) {
                        Some(row) => row.audit_record_ids.push(record_id.to_owned()),
                        None => self.claimed_by.entry(id).or_default().push(record_id.to_owned()),
                    }
                }
            }
            Outcome::Owed { rows, owed } => {
                if owed.reason.starts_with(Code::MailboxDenied.as_str()) {
                    self.denied.insert(owed.send.mailbox.clone());
                }
                self.state.owed.messages.push(*owed);
                self.add(rows);
            }
            Outcome::Lost { rows, reason, subject } => self.message_lost(rows, reason, subject),
        }
    }

    fn message_lost(&mut self, rows: Vec<FileEvent>, reason: String, subject: String) {
        if rows.is_empty() {
            // No row can say it, so a gap does: whether this message carried files is not known.
            self.gap(GapKind::Message, None, None, Some(subject), reason);
        }
        self.add(rows);
    }

    fn retried_message(&mut self, owed: OwedMessage, outcome: Outcome) {
        self.state.owed.messages.retain(|other| other.send.id != owed.send.id);
        let rows = match outcome {
            Outcome::Owed { owed: again, .. } => {
                self.state.owed.messages.push(OwedMessage { reason: again.reason, ..owed });
                return;
            }
            Outcome::Events { rows, owed: hashes } => {
                self.state.owed.hashes.extend(hashes);
                rows
            }
            Outcome::Lost { rows, reason, subject } => {
                if rows.is_empty() {
                    self.gap(GapKind::Message, None, None, Some(subject), reason);
                }
                rows
            }
            Outcome::Claimed { .. } => Vec::new(),
        };
        self.replaces.extend(owed.rows);
        self.add(rows);
    }

    fn retried_hash(&mut self, before: OwedHash, row: FileEvent, still_owed: bool) {
        self.state.owed.hashes.retain(|other| other.row.event_id != before.row.event_id);
        if still_owed {
            self.state.owed.hashes.push(before);
            return;
        }
        self.replaces.push((before.row.event_id.clone(), before.row.event_date()));
        self.add(vec![row]);
    }

    fn add(&mut self, rows: Vec<FileEvent>) {
        for mut row in rows {
            match row.hash_status {
                HashStatus::Hashed => {
                    self.report.hashed += 1;
                    self.report.bytes_hashed += row.file_size_bytes.unwrap_or(0);
                }
                HashStatus::Owed | HashStatus::Unavailable | HashStatus::NotApplicable => {
                    let code = row.hash_error.as_deref().unwrap_or_default().split(':').next().unwrap_or_default();
                    *self.report.not_hashed.entry(code.to_owned()).or_default() += 1;
                    self.report.unavailable += u64::from(row.hash_status == HashStatus::Unavailable);
                }
            }
            let id = Id::of(&row.event_id);
            row.audit_record_ids.extend(self.claimed_by.remove(&id).unwrap_or_default());
            self.row_of.insert(id, self.rows.len());
            self.rows_bytes += row.held_bytes();
            self.rows.push(row);
        }
    }

    fn gap(
        &mut self,
        kind: GapKind,
        window: Option<Window>,
        blob_id: Option<String>,
        subject: Option<String>,
        reason: String,
    ) {
        self.report.gaps += 1;
        // Shards may be at different places, so each tells what its own mailboxes lost.
        let subject = subject.or_else(|| self.stamp.shard.name().map(|shard| format!("shard {shard}")));
        let found_at = self.stamp.started_at;
        let gap_id = gap_id(&GapKey {
            connection_id: &self.stamp.connection_id.to_string(),
            kind,
            window: window.map(Into::into),
            content_blob_id: blob_id.as_deref(),
            subject: subject.as_deref(),
        });
        if self.was_told(&gap_id) {
            return;
        }
        self.outbox.gaps.push(Gap {
            gap_id,
            found_at,
            kind,
            connection_id: self.stamp.connection_id.to_string(),
            connection_name: self.stamp.connection_name.clone(),
            window_start: window.map(|window| window.start()),
            window_end: window.map(|window| window.end()),
            content_blob_id: blob_id,
            subject,
            reason,
            remedy: window.map(|window| super::backfill::remedy(&self.stamp.connection_name, window)),
            run_id: self.stamp.run_id.to_string(),
        });
    }

    /// Whether a gap or quarantined record has its row already.
    fn was_told(&mut self, id: &str) -> bool {
        self.told.as_mut().is_some_and(|told| !told.insert(id.to_owned()))
    }

    fn quarantine(&mut self, blob_id: &str, record: UnreadableRecord, now: Time) {
        self.report.quarantined += 1;
        let connection_id = self.stamp.connection_id.to_string();
        let quarantine_id = quarantine_id(&QuarantineKey { connection_id: &connection_id, raw: &record.raw });
        if self.was_told(&quarantine_id) {
            return;
        }
        self.outbox.quarantine.push(Quarantined {
            quarantine_id,
            found_at: now,
            connection_id,
            connection_name: self.stamp.connection_name.clone(),
            content_blob_id: Some(blob_id.to_owned()),
            reason: record.reason,
            raw: record.raw,
            run_id: self.stamp.run_id.to_string(),
        });
    }
}

/// A commit died, and its writer with it; the run has ended before anybody can ask for it.
fn no_writer() -> Error {
    Error::new(Code::Internal, "the writer of the run is gone")
}

/// Counts by reason as the lake keeps them: `code=count`.
pub(super) fn pairs<K: std::fmt::Display>(counts: &BTreeMap<K, u64>) -> Vec<String> {
    counts.iter().map(|(key, count)| format!("{key}={count}")).collect()
}
