//! One run of one connection: the whole path on one page.
//!
//! ```text
//!   plan ─▶ list ─▶ read ─────────▶ resolve ─▶ hash ─▶ collect ─▶ commit
//!           windows  blobs → sends   messages   bytes   fates      rows + state, slice by slice
//! ```
//!
//! [`run`] wires the stages with bounded channels, so that a slow stage holds the ones before it back. Every item leaves
//! its stage with a [`fate`]; `collect` turns fates into commits and is the only one that changes the state. What an
//! earlier run owed goes through the same stages first. A [`backfill`] is a run over a past interval instead.
//!
//! May use: `source`, `digest`, `event`, `lake`, and the base. Knows nothing of Microsoft but what `source` says.

mod backfill;
mod collect;
mod fate;
mod hash;
mod health;
mod inherit;
mod plan;
mod read;
mod report;
mod resolve;
mod row;
mod state;
mod taken;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

pub use self::backfill::{Estimate, Past, backfill, estimate};
pub use self::health::{Health, pending};
pub use self::inherit::standing;
pub use self::report::{Failure, OwedCounts, Report};
pub use self::state::{OwedMessage, State};
use crate::clock::{Clock, Time};
use crate::digest::HashPool;
use crate::error::{Code, Error, Result};
pub use crate::event::Outcome;
use crate::event::RunKind;
use crate::id::Id;
use crate::lake::{Lake, Shard};
use crate::limits;
use crate::monitor::Progress;
use crate::source::{ContentBlob, Feed, ResolvedScope, Scope, SendRecord, Source, Window};
use backfill::Recall;
use collect::Collector;
use fate::Fate;
use row::Stamp;
use taken::Taken;

/// Whose run it is, and how.
pub struct Job {
    /// The connection's id.
    pub connection_id: Uuid,
    /// Its display name.
    pub connection_name: String,
    /// The tenant that it reads.
    pub tenant_id: Uuid,
    /// Which of its mailboxes this run takes, and where their state is.
    pub shard: Shard,
    /// Whose mailboxes are monitored.
    pub scope: Scope,
    /// From when on; when it has moved past what was read, nobody wanted what lies between.
    pub since: Time,
    /// When the tenant's administrator last consented, if that is known: consent takes an hour to spread.
    pub authorized: Option<Time>,
    /// Only what earlier runs owed; nothing new is asked for.
    pub owed_only: bool,
    /// What time it is.
    pub clock: Clock,
    /// Cancelled when a signal came: the run commits what it has and ends.
    pub interrupt: CancellationToken,
    /// What a person sees meanwhile.
    pub progress: Arc<Progress>,
}

/// Runs one shard of a connection once: from its checkpoint to now, in slices that each end in one commit.
///
/// # Errors
/// Only when not even the run's own row could be committed: the lake is unavailable or damaged, or another run of the
/// shard committed first. Whatever else ended the run is in the report.
pub async fn run<S: Source>(job: Job, source: Arc<S>, lake: &Lake) -> Result<Report> {
    execute(job, None, source, lake).await
}

/// A run from the checkpoint to now, or over a past interval.
async fn execute<S: Source>(job: Job, past: Option<Past>, source: Arc<S>, lake: &Lake) -> Result<Report> {
    let kind = match (past, job.owed_only) {
        (Some(_), _) => RunKind::Backfill,
        (None, true) => RunKind::Owed,
        (None, false) => RunKind::Run,
    };
    let stamp = Stamp {
        tenant_id: job.tenant_id,
        connection_id: job.connection_id,
        connection_name: job.connection_name.clone(),
        shard: job.shard.clone(),
        run_id: Uuid::new_v4(),
        started_at: job.clock.now(),
    };
    let shard = job.shard.name();
    info!(run = %stamp.run_id, connection = %stamp.connection_name, shard, kind = kind.as_str(), "run begins");
    let (writer, before) = lake.writer::<State>(job.shard.state_id, stamp.run_id).await?;
    inherit::refuse_sealed(before.as_ref())?;
    let standing = before.as_ref().map(State::standing);
    let state = match before {
        Some(state) => state,
        None => inherit::first(lake, &job.shard, plan::whole_seconds(job.since), stamp.run_id).await?,
    };
    let report = Report::start(&stamp, kind, job.scope.kind());
    let mut collector = Collector::new(stamp.clone(), writer, standing, state, report);
    collector.authorized = job.authorized;
    let mut recall = None;
    if past.is_some() {
        collector.told = Some(backfill::told(lake).await?);
        recall = Some(Recall::of(lake));
    }

    let mut ended = gather(&job, past, recall, &stamp, &source, &mut collector).await;
    if past.is_some() && ended.is_ok() {
        ended = collector.report.check_fates();
    }
    if source.was_restarted() {
        // It was on when the run began; a clock that stands still must not hide it.
        let until = job.clock.now().max(stamp.started_at + chrono::Duration::seconds(1));
        if let Some(window) = Window::new(stamp.started_at, until) {
            collector.subscription_was_off(window);
        }
    }

    if matches!(past, Some(Past::Export { .. })) {
        // Files are no windows of the feed, and the run's row must tell from where it was filled.
        collector.report.windows = 0;
    }
    collector.report.usage = source.usage();
    let is_whole = ended.is_ok() && kind == RunKind::Run;
    match ended {
        Ok(()) => {}
        Err(error) if error.code() == Code::Interrupted => collector.report.outcome = Outcome::Interrupted,
        // Nothing of this run may become visible when another one won, and nothing can when the lake is away.
        Err(error)
            if matches!(
                error.code(),
                Code::RunInProgress | Code::LakeUnavailable | Code::LakeDamaged | Code::Internal
            ) =>
        {
            return Err(error);
        }
        Err(error) => {
            warn!(code = %error.code(), %error, "the run ends before its time");
            collector.end_with(error, job.clock.now());
        }
    }
    collector.finish(job.clock.now(), is_whole).await?;
    Ok(collector.report)
}

/// Feeds the collector until everything that there is to read met its fate.
async fn gather<S: Source>(
    job: &Job,
    past: Option<Past>,
    recall: Option<Recall>,
    stamp: &Stamp,
    source: &Arc<S>,
    collector: &mut Collector,
) -> Result<()> {
    let feed = interruptible(&job.interrupt, source.prepare()).await?;
    let scope = interruptible(&job.interrupt, source.resolve_scope(&job.scope)).await?;
    if collector.monitors(&scope) {
        // They take as much memory as a slice, and are gone before the first one.
        collector.begin_commit(job.clock.now()).await?;
        collector.end_commit().await?;
    }
    for finding in &scope.findings {
        warn!("{finding}");
    }
    let work = match past {
        None => collector.plan(job, feed),
        Some(past) => collector.plan_past(past, feed, job.clock.now()),
    };
    let (sends_in, sends_out) = mpsc::channel(limits::SENDS_QUEUED);
    let (fates_in, mut fates_out) = mpsc::channel(limits::FATES_QUEUED);
    let mut taken = Taken::new(limits::RECORDS_REMEMBERED);
    for record in &collector.state().owed.messages {
        taken.keep(Id::of(&record.send.id));
    }
    for record in collector.state().seen_ids() {
        taken.take(record);
    }
    let pipeline = Arc::new(Pipeline {
        source: Arc::clone(source),
        pool: HashPool::new()?,
        streams: Semaphore::new(limits::STREAMS_AT_ONCE),
        messages: Arc::new(Semaphore::new(limits::MESSAGES_AT_ONCE)),
        scope,
        stamp: stamp.clone(),
        clock: job.clock.clone(),
        progress: Arc::clone(&job.progress),
        taken: Mutex::new(taken),
        recall,
        claimed: Mutex::default(),
        sends: sends_in.downgrade(),
        fates: fates_in.downgrade(),
    });
    let mut stages = JoinSet::new();
    stages.spawn(stage_read(Arc::clone(&pipeline), work, sends_in, fates_in.clone()));
    stages.spawn(stage_resolve(Arc::clone(&pipeline), sends_out, fates_in));
    let mut failed = None;
    loop {
        let step = tokio::select! {
            biased;
            () = job.interrupt.cancelled() => return Err(Error::new(Code::Interrupted, "the run was interrupted")),
            step = fates_out.recv() => step,
        };
        let Some(step) = step else { break };
        match step {
            Step::Listed { window, newest } => collector.listed(window, newest),
            Step::NotListed { window, error } => collector.not_listed(window, &error),
            Step::Fate(fate) => {
                collector.collect(*fate, job.clock.now());
                if collector.is_slice(job.clock.now()) {
                    let ids = collector.begin_commit(job.clock.now()).await?;
                    pipeline.release(&ids);
                }
            }
            Step::Failed(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    if let Some(error) = failed {
        stages.shutdown().await;
        return Err(error);
    }
    // The channel also closes when a stage dies; then this run must not look whole.
    while let Some(ended) = stages.join_next().await {
        ended.map_err(died)?;
    }
    Ok(())
}

/// A task of the run is gone without having said what became of its work.
fn died(error: tokio::task::JoinError) -> Error {
    Error::new(Code::Internal, format!("a stage of the run died: {error}")).caused_by(error)
}

/// What a run has to do.
struct Work {
    windows: Vec<OpenWork>,
    owed: state::Owed,
}

/// A window to list, and the blobs of it that need no reading.
struct OpenWork {
    window: Window,
    known: HashSet<Id>,
}

impl Collector {
    /// Extends the windows up to now, and says what there is to do.
    fn plan(&mut self, job: &Job, feed: Feed) -> Work {
        let now = job.clock.now();
        let owed = self.state().owed.clone();
        if job.owed_only {
            return Work { windows: Vec::new(), owed: state::Owed { blobs: Vec::new(), ..owed } };
        }
        self.skip_to(plan::whole_seconds(job.since));
        if feed == Feed::Started {
            self.feed_was_started(now);
        }
        for lost in self.extend(now) {
            self.lost(lost);
        }
        let windows: Vec<OpenWork> = self
            .state()
            .windows
            .iter()
            .filter(|open| !open.listed || plan::can_list(open.window, now))
            .map(|open| OpenWork {
                window: open.window,
                known: owed
                    .blobs
                    .iter()
                    .filter(|owed| owed.window == open.window)
                    .map(|owed| Id::of(&owed.blob.id))
                    .chain(open.read.iter())
                    .collect(),
            })
            .collect();
        self.report.window_start = windows.first().map(|open| open.window.start());
        self.report.window_end = windows.last().map(|open| open.window.end());
        Work { windows, owed }
    }
}

impl Collector {
    /// Says what is lost between the last run and now. What became available before the feed was on is never listed. A
    /// first run starts the feed itself: content takes an hour to become available, so nothing of what was asked for is
    /// lost if it was asked for since then.
    fn feed_was_started(&mut self, now: Time) {
        let from = self.state().watermark;
        if (self.has_asked() || from < now - limits::FEED_LATENCY)
            && let Some(window) = Window::new(from, plan::whole_seconds(now))
        {
            self.subscription_was_off(window);
        }
    }
}

/// Lists what is to be read, and reads it: what is owed first, since it expires first. Holds its end of the queue of
/// sends, so that `stage_resolve` ends when this does.
async fn stage_read<S: Source>(
    pipeline: Arc<Pipeline<S>>,
    work: Work,
    _sends: mpsc::Sender<QueuedSend>,
    fates: mpsc::Sender<Step>,
) {
    if let Err(error) = read_all(&pipeline, work).await {
        // The collector is gone only when the run has ended already.
        drop(fates.send(Step::Failed(error)).await);
    }
}

async fn read_all<S: Source>(pipeline: &Arc<Pipeline<S>>, work: Work) -> Result<()> {
    let share = || Arc::clone(pipeline);
    futures::stream::iter(work.owed.hashes.into_iter().map(|owed| Ok((share(), owed))))
        .try_for_each_concurrent(limits::MESSAGES_AT_ONCE, |(pipeline, owed)| async move {
            pipeline.fate(Fate::Retried(resolve::owed_hash(&pipeline, owed).await?)).await
        })
        .await?;
    futures::stream::iter(work.owed.messages.into_iter().map(|owed| Ok((share(), owed))))
        .try_for_each_concurrent(limits::MESSAGES_AT_ONCE, |(pipeline, owed)| async move {
            pipeline.fate(Fate::Retried(resolve::owed_message(&pipeline, owed).await?)).await
        })
        .await?;
    let owed = work.owed.blobs.into_iter().map(|owed| (owed.blob, owed.window));
    let listed = futures::stream::iter(work.windows.into_iter().map(|open| (share(), open)))
        .then(|(pipeline, open)| async move {
            let window = open.window;
            Ok((list(&pipeline, open).await?, window))
        })
        .map_ok(|(blobs, window)| futures::stream::iter(blobs.into_iter().map(move |blob| Ok((blob, window)))))
        .try_flatten();
    futures::stream::iter(owed.map(Ok))
        .chain(listed)
        .map_ok(|work| (share(), work))
        .try_for_each_concurrent(limits::BLOBS_AT_ONCE, |(pipeline, (blob, window))| async move {
            read::blob(&pipeline, blob, window).await?;
            pipeline.progress.blobs_read.add(1);
            Ok(())
        })
        .await
}

/// Lists a window; what is known already needs no reading.
async fn list<S: Source>(pipeline: &Pipeline<S>, open: OpenWork) -> Result<Vec<ContentBlob>> {
    let window = open.window;
    match pipeline.source.list(window).await {
        Ok(mut blobs) => {
            let newest = blobs.iter().map(|blob| blob.created).max();
            blobs.retain(|blob| !open.known.contains(&Id::of(&blob.id)));
            pipeline.progress.blobs_listed.add(blobs.len() as u64);
            pipeline.step(Step::Listed { window, newest }).await?;
            Ok(blobs)
        }
        Err(error) if error.is_about_one_item() || error.code() == Code::GapTooOld => {
            warn!(%window, %error, "a window could not be listed; it stays open");
            pipeline.step(Step::NotListed { window, error }).await?;
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// Resolves sends side by side; each ends in a fate.
async fn stage_resolve<S: Source>(
    pipeline: Arc<Pipeline<S>>,
    mut sends: mpsc::Receiver<QueuedSend>,
    fates: mpsc::Sender<Step>,
) {
    let mut tasks = JoinSet::new();
    while let Some(queued) = sends.recv().await {
        while let Some(ended) = tasks.try_join_next() {
            report_death(ended, &fates).await;
        }
        let permit = Arc::clone(&pipeline.messages).acquire_owned().await.expect("the semaphore is never closed");
        let (pipeline, fates) = (Arc::clone(&pipeline), fates.clone());
        tasks.spawn(async move {
            let _permit = permit;
            let QueuedSend { send, blob_id, window } = queued;
            let step = match resolve::send(&pipeline, &send, &blob_id).await {
                Ok(outcome) => Step::Fate(Box::new(Fate::Send { window, blob_id, record_id: send.id, outcome })),
                Err(error) => Step::Failed(error),
            };
            pipeline.progress.sends_done.add(1);
            drop(fates.send(step).await);
        });
    }
    while let Some(ended) = tasks.join_next().await {
        report_death(ended, &fates).await;
    }
}

/// Ends the run when a send's task died: its fate would be missing.
async fn report_death(ended: std::result::Result<(), tokio::task::JoinError>, fates: &mpsc::Sender<Step>) {
    if let Err(error) = ended {
        drop(fates.send(Step::Failed(died(error))).await);
    }
}

/// What the stages share.
struct Pipeline<S> {
    source: Arc<S>,
    pool: HashPool,
    streams: Semaphore,
    messages: Arc<Semaphore>,
    scope: ResolvedScope,
    stamp: Stamp,
    clock: Clock,
    progress: Arc<Progress>,
    /// Records that met their fate, or are about to in this run.
    taken: Mutex<Taken>,
    /// What the lake knows beyond that; of a past interval the checkpoint may have forgotten it.
    recall: Option<Recall>,
    /// Events on their way to the lake in this run.
    claimed: Mutex<HashSet<Id>>,
    sends: mpsc::WeakSender<QueuedSend>,
    fates: mpsc::WeakSender<Step>,
}

/// A new send in scope on its way to being resolved.
struct QueuedSend {
    send: SendRecord,
    blob_id: String,
    window: Window,
}

/// What the stages tell the collector.
enum Step {
    /// With the newest content that was listed.
    Listed {
        window: Window,
        newest: Option<Time>,
    },
    NotListed {
        window: Window,
        error: Error,
    },
    Fate(Box<Fate>),
    Failed(Error),
}

impl<S: Source> Pipeline<S> {
    /// Whether the lake has rows of a send's record.
    async fn is_in_lake(&self, send: &SendRecord) -> Result<bool> {
        match &self.recall {
            None => Ok(false),
            Some(recall) => recall.knows_record(send).await,
        }
    }

    /// Takes a record for this run; false when somebody has it.
    fn take(&self, record: &str) -> bool {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).take(Id::of(record))
    }

    /// Remembers for good that a record's message is owed.
    fn keep(&self, record: &str) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).keep(Id::of(record));
    }

    /// Claims an event for a record; false when another record of the same message has it.
    fn claim(&self, event: &str) -> bool {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner).insert(Id::of(event))
    }

    /// Forgets claims of events that the lake has now; the commit itself knows them from here on.
    fn release(&self, events: &[Id]) {
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            claimed.remove(event);
        }
    }

    async fn fate(&self, fate: Fate) -> Result<()> {
        self.step(Step::Fate(Box::new(fate))).await
    }

    async fn step(&self, step: Step) -> Result<()> {
        let Some(fates) = self.fates.upgrade() else { return Err(over()) };
        fates.send(step).await.map_err(|_| over())
    }

    async fn queue(&self, send: QueuedSend) -> Result<()> {
        let Some(sends) = self.sends.upgrade() else { return Err(over()) };
        sends.send(send).await.map_err(|_| over())
    }
}

/// A stage outlived the run.
fn over() -> Error {
    Error::new(Code::Interrupted, "the run has ended")
}

/// Waits for a step of the run, or for the signal that ends it.
async fn interruptible<T>(interrupt: &CancellationToken, step: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        biased;
        () = interrupt.cancelled() => Err(Error::new(Code::Interrupted, "the run was interrupted")),
        done = step => done,
    }
}
