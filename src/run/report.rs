//! What a run did: one JSON object, one table, one row of `runs`.

use serde::Serialize;
use uuid::Uuid;

use super::collect::pairs;
use super::fate::{Reasons, Tally};
use super::row::Stamp;
use super::state::State;
use crate::clock::Time;
use crate::error::{Code, Error, Result};
use crate::event::{self, Outcome, RunKind};
use crate::source::Usage;

/// The counts of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The run.
    pub run_id: Uuid,
    /// The connection's display name.
    pub connection: String,
    /// Which shard of it; nothing where it is not split.
    pub shard: Option<String>,
    /// `run`, `owed` or `backfill`.
    pub kind: RunKind,
    /// `done`, `partial`, `failed` or `interrupted`.
    pub outcome: Outcome,
    /// The process's exit code that this means.
    pub exit_code: u8,
    /// When it began.
    pub started_at: Time,
    /// When its last commit was made.
    pub finished_at: Time,
    /// The earliest instant of the audit feed that it asked for.
    pub window_start: Option<Time>,
    /// The first instant after.
    pub window_end: Option<Time>,
    /// Windows listed.
    pub windows: u64,
    /// Windows that could not be listed and stay open.
    pub windows_failed: u64,
    /// Blobs read whole.
    pub blobs: u64,
    /// Blobs that could not be read whole, and are owed or lost.
    pub blobs_failed: u64,
    #[serde(flatten)]
    pub(super) tally: Tally,
    /// Sends that met their fate.
    pub sends_met: u64,
    /// Sends whose message another record brought already.
    pub sends_claimed: u64,
    /// Rows added.
    pub events: u64,
    /// Rows upgraded in place.
    pub events_upgraded: u64,
    /// Rows that the lake had already.
    pub events_doubled: u64,
    /// Attachments hashed.
    pub hashed: u64,
    /// Their bytes.
    pub bytes_hashed: u64,
    /// Attachments without a hash, by the code of the reason.
    pub not_hashed: Reasons,
    /// Attachments whose hash cannot be had any more.
    pub unavailable: u64,
    /// Records put into quarantine.
    pub quarantined: u64,
    /// Rows added to `gaps`.
    pub gaps: u64,
    /// What later runs try again: blobs, messages, hashes.
    pub owed: OwedCounts,
    /// Failures that did not end the run, by code.
    pub failures: Reasons,
    /// Commits.
    pub commits: u64,
    /// What was asked of the service.
    #[serde(flatten)]
    pub usage: Usage,
    /// From the newest audit content to the end of the run, seconds.
    pub lag_seconds: Option<i64>,
    /// How the scope was given.
    pub scope: String,
    /// How many people it meant at this run; nothing for everybody.
    pub scope_people: Option<usize>,
    /// The people that it meant, as rows of `scope_members`; nothing for everybody.
    pub scope_id: Option<String>,
    /// Entries of the scope that name nobody.
    pub scope_findings: Vec<String>,
    /// What ended the run before its time.
    pub error: Option<Failure>,
}

/// What is owed to later runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OwedCounts {
    /// Blobs.
    pub blobs: usize,
    /// Messages.
    pub messages: usize,
    /// Hashes.
    pub hashes: usize,
    /// Windows that could not be listed.
    pub windows: usize,
}

/// An error as a report shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// The stable code.
    pub code: &'static str,
    /// What failed, on what, why.
    pub message: String,
    /// What to do next.
    pub hint: Option<&'static str>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self { code: error.code().as_str(), message: error.to_string(), hint: error.hint() }
    }
}

impl Report {
    pub(super) fn start(stamp: &Stamp, kind: RunKind, scope: &str) -> Self {
        Self {
            run_id: stamp.run_id,
            connection: stamp.connection_name.clone(),
            shard: stamp.shard.name(),
            kind,
            outcome: Outcome::Done,
            exit_code: 0,
            started_at: stamp.started_at,
            finished_at: stamp.started_at,
            window_start: None,
            window_end: None,
            windows: 0,
            windows_failed: 0,
            blobs: 0,
            blobs_failed: 0,
            tally: Tally::default(),
            sends_met: 0,
            sends_claimed: 0,
            events: 0,
            events_upgraded: 0,
            events_doubled: 0,
            hashed: 0,
            bytes_hashed: 0,
            not_hashed: Reasons::new(),
            unavailable: 0,
            quarantined: 0,
            gaps: 0,
            owed: OwedCounts::default(),
            failures: Reasons::new(),
            commits: 0,
            usage: Usage::default(),
            lag_seconds: None,
            scope: scope.to_owned(),
            scope_people: None,
            scope_id: None,
            scope_findings: Vec::new(),
            error: None,
        }
    }

    /// Counts a failure that does not end the run.
    pub(super) fn failed(&mut self, error: &Error) {
        *self.failures.entry(error.code().to_string()).or_default() += 1;
    }

    /// Says what ended the run before its time, or made it worthless.
    pub(super) fn end_with(&mut self, error: &Error) {
        self.exit_code = error.code().exit_code();
        self.error = Some(Failure::from(error));
    }

    /// The law of fates: each send that was read is another shard's, a duplicate, out of scope, or met its fate.
    ///
    /// # Errors
    /// `internal`; the windows are not closed then.
    pub(super) fn check_fates(&self) -> Result<()> {
        let Tally { sends, other_shards, duplicates, out_of_scope, .. } = self.tally;
        if sends == other_shards + duplicates + out_of_scope + self.sends_met {
            return Ok(());
        }
        let met = self.sends_met;
        Err(Error::new(
            Code::Internal,
            format!(
                "{sends} sends were read, but {other_shards} are of other shards, {duplicates} duplicates, {out_of_scope} out of scope, and {met} met their fate"
            ),
        ))
    }

    /// Draws the conclusion.
    pub(super) fn finish(&mut self, now: Time, state: &State) {
        self.finished_at = now;
        self.owed = OwedCounts {
            blobs: state.owed.blobs.len(),
            messages: state.owed.messages.len(),
            hashes: state.owed.hashes.len(),
            windows: state.windows.iter().filter(|open| !open.listed).count(),
        };
        self.lag_seconds = state.newest_content.map(|newest| (now - newest).num_seconds().max(0));
        let is_whole = state.owed.count() == 0
            && self.owed.windows == 0
            && self.quarantined == 0
            && self.gaps == 0
            && self.unavailable == 0;
        match (&self.error, self.outcome) {
            (_, Outcome::Interrupted) => self.exit_code = 130,
            (Some(_), _) => self.outcome = Outcome::Failed,
            (None, _) if is_whole => (self.outcome, self.exit_code) = (Outcome::Done, 0),
            (None, _) => (self.outcome, self.exit_code) = (Outcome::Partial, 3),
        }
    }

    /// The row of `runs`.
    pub(super) fn row(&self, stamp: &Stamp) -> event::Run {
        event::Run {
            run_id: self.run_id.to_string(),
            connection_id: stamp.connection_id.to_string(),
            connection_name: self.connection.clone(),
            started_at: self.started_at,
            finished_at: self.finished_at,
            outcome: self.outcome,
            exit_code: self.exit_code,
            window_start: self.window_start,
            window_end: self.window_end,
            windows: self.windows,
            blobs: self.blobs,
            blobs_failed: self.blobs_failed,
            records: self.tally.records,
            // Of its own mailboxes, so that the runs of a connection's shards can be added up.
            sends: self.tally.sends - self.tally.other_shards,
            sends_out_of_scope: self.tally.out_of_scope,
            duplicates: self.tally.duplicates,
            events: self.events,
            events_upgraded: self.events_upgraded,
            bytes_hashed: self.bytes_hashed,
            hashed: self.hashed,
            hash_failed: pairs(&self.not_hashed),
            quarantined: self.quarantined,
            gaps: self.gaps,
            owed: (self.owed.blobs + self.owed.messages + self.owed.hashes + self.owed.windows) as u64,
            requests: pairs(&self.usage.requests),
            retries: self.usage.retries,
            throttled: self.usage.throttled,
            throttled_ms: self.usage.throttled_ms,
            lag_seconds: self.lag_seconds,
            scope_kind: self.scope.clone(),
            scope_people: self.scope_people.map(|people| people as u64),
            scope_id: self.scope_id.clone(),
            waybill_version: env!("CARGO_PKG_VERSION").to_owned(),
            error: self.error.as_ref().map(|error| format!("{}: {}", error.code, error.message)),
            kind: Some(self.kind),
            shard: self.shard.clone(),
        }
    }
}

impl Report {
    /// What was run, for a person.
    pub fn title(&self) -> String {
        match &self.shard {
            Some(shard) => format!("{}, shard {shard}", self.connection),
            None => self.connection.clone(),
        }
    }

    /// The summary for a person: what happened first, what is missing last.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let counts = |counts: &Reasons| {
            let parts: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            parts.join(", ")
        };
        let requests: u64 = self.usage.requests.values().sum();
        let mut lines = vec![
            ("connection", self.title()),
            ("outcome", format!("{} (exit code {})", self.outcome.as_str(), self.exit_code)),
            (
                "events",
                format!(
                    "{} added, {} upgraded, {} known already",
                    self.events, self.events_upgraded, self.events_doubled
                ),
            ),
            ("hashed", format!("{} attachments, {} bytes", self.hashed, self.bytes_hashed)),
            ("audit records", format!("{} in {} blobs of {} windows", self.tally.records, self.blobs, self.windows)),
            (
                "sends",
                format!(
                    "{}: {} in scope, {} duplicates, {} out of scope",
                    self.tally.sends - self.tally.other_shards,
                    self.sends_met,
                    self.tally.duplicates,
                    self.tally.out_of_scope
                ),
            ),
            (
                "requests",
                format!(
                    "{requests}, {} retries, {} throttled ({} ms)",
                    self.usage.retries, self.usage.throttled, self.usage.throttled_ms
                ),
            ),
        ];
        let owed = self.owed;
        let missing = [
            ("not hashed", counts(&self.not_hashed)),
            ("failures", counts(&self.failures)),
            (
                "owed",
                if owed == OwedCounts::default() {
                    String::new()
                } else {
                    format!(
                        "{} blobs, {} messages, {} hashes, {} windows",
                        owed.blobs, owed.messages, owed.hashes, owed.windows
                    )
                },
            ),
            ("quarantined", if self.quarantined == 0 { String::new() } else { self.quarantined.to_string() }),
            ("gaps", if self.gaps == 0 { String::new() } else { self.gaps.to_string() }),
            ("scope", self.scope_findings.join("\n")),
            ("lag", self.lag_seconds.map(|seconds| format!("{seconds} s")).unwrap_or_default()),
        ];
        lines.extend(missing.into_iter().filter(|(_, text)| !text.is_empty()));
        lines
    }
}
