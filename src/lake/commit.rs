//! Rows and checkpoint in one commit: the only place that makes either of them visible.
//!
//! ```text
//!   1 write checkpoints/<id>/<n>.json      conditional put: n is ours alone, and means nothing yet
//!   2 write Parquet files                  nobody sees them yet
//!   3 commit to file_events                adds files, carries txn(connection, n): rows and state are true together
//!   4 append the outbox to runs, gaps …    each with txn(connection, n), so that a repeat is recognised
//! ```
//!
//! | killed or beaten at | what the next run finds                                | lost, doubled |
//! |---------------------|--------------------------------------------------------|---------------|
//! | 1, 2                | the old state; a leftover checkpoint, orphaned files   | nothing       |
//! | 3, answer lost      | whichever state the log names; looked up, never guessed | nothing       |
//! | 4                   | the new state, and the outbox in it, appended then     | nothing       |
//!
//! Three laws hold each time that step 3 is tried, on the version that it will follow:
//! the connection's last transaction is still the one that this run began with (else another run won, and this one
//! changes nothing); no row is added whose `event_id` the table has (however the feed repeats itself); and the rows'
//! `inserted_at` is later than that of every row that became visible before (whatever the clocks of the writers say), so
//! that who pages on it misses nothing. A try is for exactly one version; when another writer takes it, the laws are
//! checked again on the new one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use chrono::NaiveDate;
use deltalake_core::kernel::{Action, Add};
use deltalake_core::protocol::DeltaOperation;
use futures::{Stream, TryStreamExt as _, stream};
use object_store::path::Path;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::{debug, info};
use uuid::Uuid;

use super::checkpoint::{self, Checkpoint, Outbox};
use super::index::{Index, event_ids};
use super::store::Location;
use super::table::{Attempt, DataFile, Intent, Table, append, metadata, path};
use crate::clock::Time;
use crate::error::{Code, Error, Result, ResultExt};
use crate::event::schema::{self, TableName};
use crate::event::{FileEvent, Row, batch};
use crate::id::Id;
use crate::limits;

/// The transaction in the log of `file_events` whose number is the latest `inserted_at`, µs since 1970.
const LATEST_INSERTED: &str = "waybill/inserted_at";

/// Rows that are made into Arrow data at once on their way into a file: about 2 MB.
const ROWS_AT_ONCE: usize = 1024;

/// What becomes true together.
pub struct Commit<S> {
    /// Rows to add; one whose `event_id` the table has is dropped, unless it is replaced here. Their `inserted_at` is the
    /// earliest that they get: it becomes later where the table has a later one.
    pub rows: Vec<FileEvent>,
    /// Rows that give way to these: their ids and the days in whose partitions they are.
    pub replaces: Vec<(String, NaiveDate)>,
    /// Rows for the other tables.
    pub outbox: Outbox,
    /// Where the connection stands afterwards.
    pub state: S,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Rows that are new.
    pub added: u64,
    /// Rows that took the place of others.
    pub replaced: u64,
    /// Rows that were there already and were dropped.
    pub doubled: u64,
}

/// The one that commits for a connection during a run.
pub struct Writer {
    at: Location,
    connection: Uuid,
    run_id: Uuid,
    events: Table,
    /// Held, since every run ends with a row in it: opening it takes as long as opening `events`, beside which it is done.
    runs: Table,
    /// The number of the effective checkpoint; 0 before the first.
    base: i64,
    index: Index,
    /// What the try under way would do, for the case that its answer is lost.
    pending: Committed,
}

impl Writer {
    /// Opens the table and the state of a connection, and makes good what a killed run left unsaid.
    pub(super) async fn open<S: DeserializeOwned>(
        at: &Location,
        connection: Uuid,
        run_id: Uuid,
    ) -> Result<(Self, Option<S>)> {
        let (events, runs) = tokio::try_join!(
            Table::open_or_create(at, TableName::FileEvents),
            Table::open_or_create(at, TableName::Runs)
        )?;
        let base = events.transaction(&connection.to_string()).await?;
        let index = Index::new(limits::EVENTS_INDEXED);
        let pending = Committed::default();
        let mut writer = Self { at: at.clone(), connection, run_id, events, runs, base, index, pending };
        if base == 0 {
            return Ok((writer, None));
        }
        let checkpoint: Checkpoint<S> = checkpoint::read(at, connection, base).await?;
        writer.append_outbox(base, &checkpoint.outbox).await?;
        Ok((writer, Some(checkpoint.state)))
    }

    /// Makes rows and state visible together, then the rows of the other tables.
    ///
    /// # Errors
    /// `run-in-progress` when another run of the connection committed since this writer was opened; nothing changed then.
    /// `lake-unavailable` when the storage failed; the next run finds out what became of it.
    pub async fn commit<S: Serialize>(&mut self, commit: Commit<S>) -> Result<Committed> {
        let mut checkpoint = Checkpoint {
            number: self.base + 1,
            base: self.base,
            run_id: self.run_id,
            outbox: commit.outbox,
            state: commit.state,
        };
        let is_run_told = !checkpoint.outbox.runs.is_empty();
        let written = checkpoint::write(&self.at, self.connection, &mut checkpoint);
        let events = self.events.catch_up();
        let runs = async { if is_run_told { self.runs.catch_up().await } else { Ok(()) } };
        // Side by side, since each is a way to the store.
        let (written, events, runs) = tokio::join!(written, events, runs);
        written.and(events).and(runs)?;
        let committed = self.commit_events(checkpoint.number, commit.rows, &commit.replaces).await?;
        self.base = checkpoint.number;
        self.append_outbox(checkpoint.number, &checkpoint.outbox).await?;
        info!(checkpoint = checkpoint.number, rows = committed.added, replaced = committed.replaced, "committed");
        Ok(committed)
    }

    /// What a commit of these rows would do on the table's present version; another writer may still change that.
    ///
    /// # Errors
    /// Like [`Writer::commit`].
    pub async fn preview(&mut self, rows: &[FileEvent], replaces: &[(String, NaiveDate)]) -> Result<Committed> {
        self.events.catch_up().await?;
        let files = self.events.files_of(&dates(rows, replaces)).await?;
        self.index.cover(&self.events, &files).await?;
        Ok(self.sort_out(&files, rows, replaces).counts)
    }

    /// Commits on the open version, or on later ones where that is not the newest any more.
    async fn commit_events(
        &mut self,
        number: i64,
        mut rows: Vec<FileEvent>,
        replaces: &[(String, NaiveDate)],
    ) -> Result<Committed> {
        let application = self.connection.to_string();
        let dates = dates(&rows, replaces);
        let mut unclear = None;
        for attempt in 0..limits::COMMIT_ATTEMPTS {
            if attempt > 0 {
                self.events.refresh().await?;
            }
            let last = self.events.transaction(&application).await?;
            if last == number {
                // Our own commit, whose answer was lost.
                return Ok(self.pending);
            }
            if last != self.base {
                return Err(Error::new(
                    Code::RunInProgress,
                    format!(
                        "another run of this connection committed first (checkpoint {last}), so this one changed nothing"
                    ),
                ));
            }
            if let Some(error) = unclear.take() {
                debug!(%error, "a commit failed without an answer and did not land; trying again");
            }
            let files = self.events.files_of(&dates).await?;
            self.index.cover(&self.events, &files).await?;
            let inserted = self.stamp(&mut rows).await?;
            let Prepared { actions, counts: committed, written } = self.prepare(&files, &rows, replaces).await?;
            self.pending = committed;
            let operation = if committed.replaced == 0 {
                append(TableName::FileEvents)
            } else {
                DeltaOperation::Update { predicate: None }
            };
            let run_id = self.run_id.to_string();
            let mut transactions = vec![(application.as_str(), number)];
            transactions.extend(inserted.map(|inserted| (LATEST_INSERTED, inserted)));
            let intent = Intent {
                operation,
                transactions,
                metadata: metadata([("waybill.run_id", run_id), ("waybill.checkpoint", number.to_string())]),
            };
            match self.events.try_commit(actions, intent).await {
                Ok(Attempt::Won) => {
                    written.into_iter().for_each(|(path, date, ids)| self.index.add(path, date, ids));
                    return Ok(committed);
                }
                Ok(Attempt::Lost) => {}
                Err(error) if error.code() == Code::LakeUnavailable => unclear = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(unclear.unwrap_or_else(|| {
            Error::new(
                Code::LakeUnavailable,
                format!("other writers took {} versions of `file_events` in a row", limits::COMMIT_ATTEMPTS),
            )
        }))
    }

    /// Gives the rows an `inserted_at` that is later than every one in the open version; returns it, µs since 1970.
    async fn stamp(&self, rows: &mut [FileEvent]) -> Result<Option<i64>> {
        let Some(wished) = rows.iter().map(|row| row.inserted_at.timestamp_micros()).max() else { return Ok(None) };
        let inserted = wished.max(self.events.transaction(LATEST_INSERTED).await?.saturating_add(1));
        let time = Time::from_timestamp_micros(inserted).ok_or_else(|| {
            Error::new(Code::LakeDamaged, format!("the latest `inserted_at` is no time: {inserted} µs"))
        })?;
        for row in rows {
            row.inserted_at = time;
        }
        Ok(Some(inserted))
    }

    /// Decides, for the open version, what is new and what gives way, and writes the files for it.
    async fn prepare(
        &self,
        files: &[DataFile],
        rows: &[FileEvent],
        replaces: &[(String, NaiveDate)],
    ) -> Result<Prepared> {
        let SortedOut { leaving, mut fresh, counts } = self.sort_out(files, rows, replaces);
        let rewritten: BTreeMap<&Path, &DataFile> = leaving.values().map(|file| (&file.path, *file)).collect();
        // Rows of one commit in the order of their time: a reader that filters on time skips pages.
        fresh.sort_by(|a, b| (a.observed_at, &a.event_id).cmp(&(b.observed_at, &b.event_id)));
        let mut ids: HashMap<Option<NaiveDate>, Vec<Id>> = HashMap::new();
        for row in &fresh {
            ids.entry(Some(row.event_date())).or_default().push(Id::of(&row.event_id));
        }
        for file in rewritten.values() {
            let stays = self.index.ids(&file.path).iter().filter(|id| !leaving.contains_key(id));
            ids.entry(file.date).or_default().extend(stays);
        }
        let count = ids.values().map(Vec::len).sum();
        let batches = self.batches(&fresh, rewritten.values().copied(), &leaving);
        let adds = if count == 0 { Vec::new() } else { self.events.write(count, batches).await? };
        let mut written = Vec::new();
        for (date, ids) in ids {
            let mut of_date = adds.iter().filter(|add| partition(add) == date);
            // A day's rows are one file; what an unexpected second one holds would have to be read.
            if let (Some(add), None) = (of_date.next(), of_date.next()) {
                written.push((path(add), date, ids));
            }
        }
        let removes = rewritten.values().map(|file| Action::Remove(file.remove.clone()));
        let actions = removes.chain(adds.into_iter().map(Action::Add)).collect();
        Ok(Prepared { actions, counts, written })
    }

    /// Tells what is new from what the table has.
    fn sort_out<'a>(
        &self,
        files: &'a [DataFile],
        rows: &'a [FileEvent],
        replaces: &'a [(String, NaiveDate)],
    ) -> SortedOut<'a> {
        let ids = rows.iter().map(|row| &row.event_id).chain(replaces.iter().map(|(id, _)| id));
        let found = self.index.find(files, ids.map(|id| Id::of(id)));
        let leaving: HashMap<Id, &DataFile> = replaces
            .iter()
            .filter_map(|(id, _)| found.get_key_value(&Id::of(id)))
            .map(|(id, file)| (*id, *file))
            .collect();
        let mut taken = HashSet::new();
        let (mut fresh, mut counts) = (Vec::new(), Committed::default());
        for row in rows {
            let id = Id::of(&row.event_id);
            let is_replacement = leaving.contains_key(&id);
            let is_there = found.contains_key(&id);
            if !taken.insert(id) || (is_there && !is_replacement) {
                counts.doubled += 1;
            } else {
                counts.replaced += u64::from(is_replacement);
                counts.added += u64::from(!is_replacement);
                fresh.push(row);
            }
        }
        SortedOut { leaving, fresh, counts }
    }

    /// New rows, and then what stays of files that are written anew; made as they are asked for, since either may be much.
    fn batches<'a>(
        &'a self,
        fresh: &'a [&'a FileEvent],
        rewritten: impl Iterator<Item = &'a DataFile> + Send + 'a,
        leaving: &'a HashMap<Id, &'a DataFile>,
    ) -> impl Stream<Item = Result<RecordBatch>> + Send + 'a {
        async_stream::try_stream! {
            for rows in fresh.chunks(ROWS_AT_ONCE) {
                yield batch::to_batch(rows)?;
            }
            for file in rewritten {
                let doing = || format!("cannot rewrite `{}` of `file_events`", file.path);
                let mut stream = self.events.read(file, None).await?;
                while let Some(rows) = stream.try_next().await? {
                    let rows = batch::complete(TableName::FileEvents, &rows, file.date)?;
                    let ids = event_ids(&rows)?;
                    let stays: BooleanArray =
                        ids.iter().map(|id| id.map(|id| !leaving.contains_key(&Id::of(id)))).collect();
                    yield filter_record_batch(&rows, &stays).or_error(Code::Internal, doing())?;
                }
            }
        }
    }

    async fn append_outbox(&mut self, number: i64, outbox: &Outbox) -> Result<()> {
        let application = self.connection.to_string();
        let (at, application) = (&self.at, application.as_str());
        // Side by side, since each table stands by itself and most of the time is the way to the store.
        let (quarantine, gaps, scope_members, changes, runs) = tokio::join!(
            Box::pin(append_once(at, application, number, &outbox.quarantine)),
            Box::pin(append_once(at, application, number, &outbox.gaps)),
            Box::pin(append_once(at, application, number, &outbox.scope_members)),
            Box::pin(append_once(at, application, number, &outbox.changes)),
            Box::pin(append_to(&mut self.runs, application, number, &outbox.runs)),
        );
        quarantine.and(gaps).and(scope_members).and(changes).and(runs)
    }
}

/// A try of a commit, with its files written.
struct Prepared {
    actions: Vec<Action>,
    counts: Committed,
    /// The new files with the ids of their rows.
    written: Vec<(Path, Option<NaiveDate>, Vec<Id>)>,
}

/// Rows on their way into a commit.
struct SortedOut<'a> {
    /// Rows that the table has and that give way, and in which files they are.
    leaving: HashMap<Id, &'a DataFile>,
    /// Rows to write.
    fresh: Vec<&'a FileEvent>,
    counts: Committed,
}

/// The days that a commit touches.
fn dates(rows: &[FileEvent], replaces: &[(String, NaiveDate)]) -> BTreeSet<NaiveDate> {
    rows.iter().map(FileEvent::event_date).chain(replaces.iter().map(|(_, date)| *date)).collect()
}

/// Appends rows to a table unless the table's log says that this transaction was done.
pub(super) async fn append_once<R: Row + Sync>(
    at: &Location,
    application: &str,
    number: i64,
    rows: &[R],
) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut table = Table::open_or_create(at, R::TABLE).await?;
    append_to(&mut table, application, number, rows).await
}

/// The same to a table that was opened or has caught up just before.
async fn append_to<R: Row + Sync>(table: &mut Table, application: &str, number: i64, rows: &[R]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut written = None;
    let mut last_error = None;
    for attempt in 0..limits::COMMIT_ATTEMPTS {
        if attempt > 0 {
            table.refresh().await?;
        }
        if table.transaction(application).await? >= number {
            return Ok(());
        }
        let adds = match &written {
            Some(adds) => adds,
            None => written.insert(write(table, rows).await?),
        };
        let actions = adds.iter().cloned().map(Action::Add).collect();
        let intent =
            Intent { operation: append(R::TABLE), transactions: vec![(application, number)], metadata: Vec::new() };
        match table.try_commit(actions, intent).await {
            Ok(Attempt::Won) => return Ok(()),
            Ok(Attempt::Lost) => {}
            Err(error) if error.code() == Code::LakeUnavailable => last_error = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last_error
        .unwrap_or_else(|| Error::new(Code::LakeUnavailable, format!("other writers kept `{}` busy", R::TABLE))))
}

/// Appends rows that carry their own identity. An answer of the storage that got lost may bring them twice: a transaction
/// for each writer would stay in the table's log for ever, and there is one writer per command.
pub(super) async fn append_rows<R: Row + Sync>(at: &Location, rows: &[R]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut table = Table::open_or_create(at, R::TABLE).await?;
    let adds = write(&table, rows).await?;
    for _ in 0..limits::COMMIT_ATTEMPTS {
        let actions = adds.iter().cloned().map(Action::Add).collect();
        let intent = Intent { operation: append(R::TABLE), transactions: Vec::new(), metadata: Vec::new() };
        match table.try_commit(actions, intent).await? {
            Attempt::Won => return Ok(()),
            Attempt::Lost => table.refresh().await?,
        }
    }
    Err(Error::new(Code::LakeUnavailable, format!("other writers kept `{}` busy", R::TABLE)))
}

/// Writes rows as new files, a part of them at a time.
async fn write<R: Row + Sync>(table: &Table, rows: &[R]) -> Result<Vec<Add>> {
    table.write(rows.len(), stream::iter(rows.chunks(ROWS_AT_ONCE).map(batch::to_batch))).await
}

/// The day whose rows a new file holds.
fn partition(add: &Add) -> Option<NaiveDate> {
    schema::table(TableName::FileEvents)
        .partition_by
        .first()
        .and_then(|column| add.partition_values.get(column)?.as_deref()?.parse().ok())
}

/// Rows by the day of their partition, for tests and for maintenance.
pub(super) fn by_date(files: Vec<DataFile>) -> BTreeMap<Option<NaiveDate>, Vec<DataFile>> {
    let mut days: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for file in files {
        days.entry(file.date).or_default().push(file);
    }
    days
}
