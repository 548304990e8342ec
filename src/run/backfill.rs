//! A past interval, filled from where the sources still hold it.
//!
//! A backfill is a run like any other: the same stages, fates and commits. What differs is what it asks for, and that it
//! leaves the windows and the watermark of the checkpoint alone:
//!
//! | | a run | a backfill |
//! |---|---|---|
//! | reads | windows from the watermark to now | windows of the interval, or exported files |
//! | a window that cannot be listed | stays open | fails the backfill, which is then repeated |
//! | a blob, message or hash that cannot be had | is owed | is owed, and later runs try again |
//! | knows what was read before | by the checkpoint | by the checkpoint and by the lake's rows, since it goes further back |
//! | a gap or quarantined record found again | is told again | is not |
//!
//! [`estimate`] reads the same and counts what a backfill would ask for; it asks for no message and writes nothing.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{Duration, NaiveDate};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use tokio::sync::OnceCell;

use super::collect::Collector;
use super::state::Owed;
use super::{Job, OpenWork, Report, State, Work, execute, interruptible, plan, standing};
use crate::clock::Time;
use crate::error::{Code, Error, Result};
use crate::event::TableName;
use crate::id::Id;
use crate::lake::{Lake, Shard};
use crate::limits;
use crate::source::{ContentBlob, Feed, ResolvedScope, SendRecord, Source, Window};

/// What to fill, and from where.
#[derive(Clone, Copy, Debug)]
pub enum Past {
    /// What became available in this interval, from the feed.
    Feed(Window),
    /// Exported files, which the source lists whatever window it is asked for. It gives only sends of its own interval of
    /// creation, which is repeated here for the run's row.
    Export {
        /// The first moment of creation.
        from: Option<Time>,
        /// The first moment after.
        to: Option<Time>,
    },
}

/// Runs one connection over a past interval. `job.owed_only` does not matter.
///
/// # Errors
/// Like those of [`super::run`].
pub async fn backfill<S: Source>(job: Job, past: Past, source: Arc<S>, lake: &Lake) -> Result<Report> {
    execute(job, Some(past), source, lake).await
}

impl Past {
    /// What is to be listed, and what is lost already.
    fn windows(self, now: Time) -> (Vec<Window>, Option<plan::Lost>) {
        match self {
            Self::Feed(interval) => plan::past(interval, now),
            Self::Export { from, to } => {
                // Only a name for what the files hold together; they may have been written by a clock before ours.
                let start = from.unwrap_or(Time::UNIX_EPOCH);
                let end = to.unwrap_or_else(|| now.max(start) + limits::WINDOW_MAX);
                (Window::new(start, end).into_iter().collect(), None)
            }
        }
    }
}

impl Collector {
    /// Says what there is to do in a past interval; the state's own windows stay as they are.
    pub(super) fn plan_past(&mut self, past: Past, feed: Feed, now: Time) -> Work {
        let (windows, lost) = past.windows(now);
        if let Some(lost) = lost {
            self.report.failed(&Error::new(Code::GapTooOld, lost.reason.clone()));
            self.lost(lost);
        }
        let span = windows.first().zip(windows.last()).and_then(|(first, last)| Window::new(first.start(), last.end()));
        if feed == Feed::Started {
            // Whoever runs next finds the feed on, so what is lost to that run must be told now.
            self.feed_was_started(now);
            if let Some(span) = span {
                self.subscription_was_off(span);
            }
        }
        (self.report.window_start, self.report.window_end) = match past {
            Past::Feed(_) => (span.map(|span| span.start()), span.map(|span| span.end())),
            Past::Export { from, to } => (from, to),
        };
        let windows = windows.into_iter().map(|window| OpenWork { window, known: HashSet::new() }).collect();
        Work { windows, owed: Owed::default() }
    }
}

/// What a person can do about a gap: an export holds what the feed has forgotten. It is cut by the time of creation, the
/// gap by the time at which content became available, which is later.
pub(super) fn remedy(connection: &str, gap: Window) -> String {
    let second = |time: Time| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let (from, to) = (second(gap.start() - limits::CONTENT_LATE), second(gap.end()));
    let name = connection.replace('\'', r"'\''");
    format!(
        "export the audit log from {from} to {to} in Purview, then `waybill backfill --connection '{name}' --from {from} --to {to} --export AUDIT.csv`"
    )
}

/// Ids of the gaps and of the quarantined records that the lake has.
///
/// # Errors
/// `lake-unavailable`, `lake-damaged`.
pub(super) async fn told(lake: &Lake) -> Result<HashSet<String>> {
    let mut told = HashSet::new();
    for (table, column) in [(TableName::Gaps, "gap_id"), (TableName::Quarantine, "quarantine_id")] {
        told.extend(texts(lake, table, column, None).await?);
    }
    Ok(told)
}

/// The texts of a column, or none when the table is not there.
async fn texts(lake: &Lake, table: TableName, column: &str, day: Option<NaiveDate>) -> Result<Vec<String>> {
    match lake.table(table).await {
        Ok(table) => table.texts(column, day).await,
        Err(error) if error.code() == Code::NoLake => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// What the lake's rows know of sends, read day by day as it is asked for: a checkpoint forgets records after some days.
pub(super) struct Recall {
    lake: Lake,
    days: Mutex<HashMap<NaiveDate, Arc<OnceCell<Day>>>>,
}

/// Records and messages of a day's rows.
struct Day {
    records: HashSet<Id>,
    messages: HashSet<Id>,
}

impl Recall {
    pub(super) fn of(lake: &Lake) -> Self {
        Self { lake: lake.clone(), days: Mutex::default() }
    }

    /// Whether the record has rows. Its rows were committed together with all that is owed for it, so there is nothing
    /// left to do for it.
    pub(super) async fn knows_record(&self, send: &SendRecord) -> Result<bool> {
        let id = Id::of(&send.id);
        Ok(self.days_of(send).await?.iter().filter_map(|day| day.get()).any(|day| day.records.contains(&id)))
    }

    /// Whether the message of a record has rows, of this record or of another one.
    async fn knows_message(&self, send: &SendRecord) -> Result<bool> {
        let Some(id) = send.internet_message_id.as_deref().map(Id::of) else { return Ok(false) };
        Ok(self.days_of(send).await?.iter().filter_map(|day| day.get()).any(|day| day.messages.contains(&id)))
    }

    /// The days on which a send's rows may lie: a message may be dated a moment before or after its record.
    async fn days_of(&self, send: &SendRecord) -> Result<Vec<Arc<OnceCell<Day>>>> {
        let hour = Duration::hours(1);
        let (first, last) = ((send.created - hour).date_naive(), (send.created + hour).date_naive());
        let mut days = Vec::with_capacity(2);
        for date in std::iter::once(first).chain((last != first).then_some(last)) {
            let day = Arc::clone(self.days.lock().unwrap_or_else(PoisonError::into_inner).entry(date).or_default());
            day.get_or_try_init(|| self.read(date)).await?;
            days.push(day);
        }
        Ok(days)
    }

    async fn read(&self, date: NaiveDate) -> Result<Day> {
        let ids = async |column| -> Result<HashSet<Id>> {
            let texts = texts(&self.lake, TableName::FileEvents, column, Some(date)).await?;
            Ok(texts.iter().map(|id| Id::of(id)).collect())
        };
        Ok(Day { records: ids("audit_record_ids").await?, messages: ids("internet_message_id").await? })
    }
}

/// What a backfill would cost. Counts of what would be asked for, not of what it would bring.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Estimate {
    /// The connection's display name.
    pub connection: String,
    /// The earliest moment that would be read.
    pub window_start: Option<Time>,
    /// The first moment after.
    pub window_end: Option<Time>,
    /// Windows of the feed that would be listed; none for files.
    pub windows: u64,
    /// The part that the feed no longer holds.
    pub lost: Option<Window>,
    /// Blobs, or files.
    pub blobs: u64,
    /// Audit records in them.
    pub records: u64,
    /// Records that cannot be understood.
    pub unreadable: u64,
    /// Records that report a send.
    pub sends: u64,
    /// Sends whose mailbox and actor are not monitored.
    pub out_of_scope: u64,
    /// Sends in scope that are repeated, or that the checkpoint or the lake knows.
    pub known: u64,
    /// Sends in scope that would be looked for.
    pub new: u64,
    /// Attachments that their records name.
    pub attachments: u64,
    /// Their bytes in the store, where the records tell.
    pub bytes: u64,
    /// Requests to Graph: one for each send, one for each attachment.
    pub requests: u64,
    /// How long that takes, roughly, when the service is in a good mood.
    pub seconds: u64,
}

/// Reads a past interval and counts what backfills of all shards would ask for, whichever is the job's. Asks for no
/// message, and writes nothing.
///
/// # Errors
/// Whatever keeps the interval from being read: authorisation, the service, the lake.
pub async fn estimate<S: Source>(
    job: Job,
    shards: &[Shard],
    past: Past,
    source: Arc<S>,
    lake: &Lake,
) -> Result<Estimate> {
    let scope = interruptible(&job.interrupt, source.resolve_scope(&job.scope)).await?;
    let mut taken = HashSet::new();
    for shard in shards {
        let state = standing(lake, shard).await?.map(|(_, state)| state);
        taken.extend(state.iter().flat_map(State::met_ids));
    }
    let (windows, lost) = past.windows(job.clock.now());
    let (window_start, window_end) = match past {
        Past::Feed(_) => (windows.first().map(|window| window.start()), windows.last().map(|window| window.end())),
        Past::Export { from, to } => (from, to),
    };
    let estimate = Estimate {
        connection: job.connection_name.clone(),
        window_start,
        window_end,
        windows: if matches!(past, Past::Export { .. }) { 0 } else { windows.len() as u64 },
        lost: lost.map(|lost| lost.window),
        ..Estimate::default()
    };
    let counting = Arc::new(Counting {
        source,
        scope,
        recall: Recall::of(lake),
        counts: Mutex::new(Counts { taken, mailboxes: HashMap::new(), estimate }),
    });
    interruptible(&job.interrupt, count(&counting, windows)).await?;
    let counts = std::mem::take(&mut *counting.counts.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(counts.finish())
}

async fn count<S: Source>(counting: &Arc<Counting<S>>, windows: Vec<Window>) -> Result<()> {
    for window in windows {
        let blobs = counting.source.list(window).await?;
        futures::stream::iter(blobs.into_iter().map(|blob| Ok((Arc::clone(counting), blob))))
            .try_for_each_concurrent(
                limits::BLOBS_AT_ONCE,
                |(counting, blob)| async move { counting.blob(&blob).await },
            )
            .await?;
    }
    Ok(())
}

/// What the counting of blobs shares.
struct Counting<S> {
    source: Arc<S>,
    scope: ResolvedScope,
    recall: Recall,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Records that were met.
    taken: HashSet<Id>,
    /// Requests by mailbox: the busiest one may decide how long it takes.
    mailboxes: HashMap<Id, u64>,
    estimate: Estimate,
}

impl<S: Source> Counting<S> {
    async fn blob(&self, blob: &ContentBlob) -> Result<()> {
        let mut chunks = self.source.read(blob);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            self.change(|counts| {
                counts.estimate.records += chunk.records;
                counts.estimate.unreadable += chunk.unreadable.len() as u64;
                counts.estimate.sends += chunk.sends.len() as u64;
            });
            for send in chunk.sends {
                if !self.scope.contains(&send) {
                    self.change(|counts| counts.estimate.out_of_scope += 1);
                    continue;
                }
                let is_known = self.recall.knows_record(&send).await? || self.recall.knows_message(&send).await?;
                self.change(|counts| counts.add(&send, is_known));
            }
        }
        self.change(|counts| counts.estimate.blobs += 1);
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Counts {
    fn add(&mut self, send: &SendRecord, is_known: bool) {
        if is_known || !self.taken.insert(Id::of(&send.id)) {
            self.estimate.known += 1;
            return;
        }
        let attachments = send.attachments.len() as u64;
        self.estimate.new += 1;
        self.estimate.attachments += attachments;
        let bytes = send.attachments.iter().filter_map(|attachment| attachment.store_size_bytes);
        self.estimate.bytes = bytes.fold(self.estimate.bytes, u64::saturating_add);
        if send.saved_to_sent_items != Some(false) {
            self.estimate.requests += 1 + attachments;
            *self.mailboxes.entry(Id::of(&send.mailbox)).or_default() += 1 + attachments;
        }
    }

    /// Adds the time: the busiest mailbox, all mailboxes together, or the hashing decides.
    fn finish(mut self) -> Estimate {
        let busiest = self.mailboxes.values().max().copied().unwrap_or(0);
        let turns = |requests: u64, at_once: usize| requests.div_ceil(at_once as u64);
        let turns = turns(busiest, limits::REQUESTS_PER_MAILBOX)
            .max(turns(self.estimate.requests, limits::GRAPH_REQUESTS_START));
        let asking = turns.saturating_mul(limits::REQUEST_TIME.as_millis() as u64).div_ceil(1000);
        self.estimate.seconds = asking.max(self.estimate.bytes.div_ceil(limits::HASHED_BYTES_PER_SECOND));
        self.estimate
    }
}

impl Estimate {
    /// The summary for a person.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let Self { records, blobs, windows, sends, new, known, out_of_scope, .. } = self;
        let place = match windows {
            0 => format!("{blobs} files"),
            _ => format!("{blobs} blobs of {windows} windows"),
        };
        let mut lines = vec![
            ("connection", self.connection.clone()),
            ("audit records", format!("{records} in {place}")),
            ("sends", format!("{sends}: {new} to look for, {known} known, {out_of_scope} out of scope")),
            ("attachments", format!("{} named by the records, {} bytes", self.attachments, self.bytes)),
            ("requests", format!("about {} to Graph", self.requests)),
            ("time", format!("about {} s, if the service does not slow down", self.seconds)),
        ];
        if self.unreadable > 0 {
            lines.push(("unreadable", format!("{} records", self.unreadable)));
        }
        if let Some(lost) = self.lost {
            lines.push(("lost", format!("{lost}: the feed no longer holds it; use an export")));
        }
        lines
    }
}
