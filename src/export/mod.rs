//! Exports: rows of a view as files somewhere else.
//!
//! An export reads what became searchable since its last end, and writes it as files in the order of the events' times and
//! ids. Below its target it keeps one small document of where it stands, written after each file:
//!
//! ```text
//!   1 which rows      everything inserted after the last export's end, up to the newest event of now: written down
//!   2 a file          one put under a name that follows from the document; seen whole or not at all. For a Delta
//!                     table, it is then committed under its number, which the table's log takes once
//!   3 where it ended  the last event of the file; killed before this, the next try writes the same file again
//!   4 done            everything up to the newest event of then is exported
//! ```
//!
//! So nothing is skipped or doubled, wherever it is killed. Two exports to one target at once do not get far: the document
//! is written over the version that was read (a folder is locked instead), and the slower one ends. An event that is upgraded later (its hash became known) has a
//! new `inserted_at` and is exported again with the same `event_id`. In memory there is one file, and what the engine needs
//! to sort, which it spills to disk.
//!
//! May use: `search`, `lake`, and the base.

mod encode;

use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::encode::Encoder;
pub use self::encode::Format;
use crate::clock::Time;
use crate::error::{Code, Error, Result, ResultExt};
use crate::lake::{Delivered, Delivery, Outlet, Versioned};
use crate::limits;
use crate::search::query::Query;
use crate::search::{Portion, Search};

/// Where an export stands, below its target.
const STATE: &str = "_waybill/export.json";

/// What a process holds that exports to a folder of its machine.
const HELD: &str = "_waybill/export.lock";

/// What is exported, and how.
#[derive(Clone, Debug)]
pub struct Export {
    /// `file_events`, `events`, or a view.
    pub view: String,
    /// Which events.
    pub query: Query,
    /// The form of the files.
    pub format: Format,
    /// The custom source of Amazon Security Lake, whose layout the files get.
    pub security_lake: Option<SecurityLake>,
    /// Bytes after which a file is full.
    pub file_bytes: usize,
}

/// A custom source of Amazon Security Lake:
/// <https://docs.aws.amazon.com/security-lake/latest/userguide/custom-sources.html>.
#[derive(Clone, Debug)]
pub struct SecurityLake {
    /// Its name, the folder below `ext/`.
    pub source: String,
    /// The AWS region.
    pub region: String,
    /// The AWS account.
    pub account: String,
}

/// What an export did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Rows written.
    pub rows: u64,
    /// Files written.
    pub files: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// Where an export stands.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// What is exported; a target holds one export.
    what: String,
    /// Everything that became searchable until then is exported, µs since 1970.
    upto: i64,
    /// Files that were ever finished: the number of the last one in a Delta log.
    files: i64,
    /// What is being exported.
    window: Option<Window>,
}

/// The document of a target, which only this export changes.
struct Standing<'a> {
    to: &'a Outlet,
    state: State,
    version: Option<Versioned>,
}

impl Standing<'_> {
    async fn put(&mut self) -> Result<()> {
        let bytes = serde_json::to_vec(&self.state).or_error(Code::Internal, "cannot write where the export stands")?;
        self.version = Some(self.to.put_document(STATE, bytes, self.version.as_ref()).await?);
        Ok(())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Window {
    upto: i64,
    /// From when spans of the query count back.
    now: Time,
    /// Finished files.
    files: u64,
    /// The last event of the last finished file.
    beyond: Option<(i64, String)>,
}

impl Export {
    /// Exports what became searchable since the last time, to its end.
    ///
    /// # Errors
    /// `configuration` when the target holds another export; `query-invalid` when the view cannot be exported;
    /// `run-in-progress` when another export to the target is at work; `lake-unavailable`, `lake-not-writable`.
    pub async fn run(&self, search: &Search, to: &Outlet, now: Time) -> Result<Exported> {
        let _held = to.hold(HELD).await?;
        let what = self.what();
        let version = to.document(STATE).await?;
        let state = match &version {
            None => State { what: what.clone(), upto: 0, files: 0, window: None },
            Some(document) => serde_json::from_slice::<State>(&document.bytes)
                .or_error(Code::Configuration, format!("cannot read `{STATE}` below the target"))?,
        };
        if state.what != what {
            return Err(Error::new(
                Code::Configuration,
                format!("the target holds another export, of {}; choose another one for {what}", state.what),
            ));
        }
        let window = match state.window.clone() {
            Some(window) => window,
            None => match search.newest_inserted().await? {
                Some(upto) if upto > state.upto => Window { upto, now, files: 0, beyond: None },
                _ => return Ok(Exported::default()),
            },
        };
        self.write(search, Standing { to, state, version }, window).await
    }

    /// Writes all of it to one stream, which begins anew each time; `sink` gets the bytes as they come.
    ///
    /// # Errors
    /// `query-invalid` when the view cannot be exported, `usage` when the form is none of a stream; those of `sink`.
    pub async fn stream(&self, search: &Search, now: Time, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let Some(upto) = search.newest_inserted().await? else { return Ok(()) };
        let (view, query) = (self.view.as_str(), &self.query);
        let mut answer = search.portion(&Portion { view, query, now, after: 0, upto, beyond: None }).await?;
        let empty = RecordBatch::new_empty(Arc::clone(answer.schema()));
        let mut encoder = Encoder::new(self.format, &shown(&empty)?)?;
        loop {
            sink(&encoder.take()?)?;
            let Some(batch) = answer.next().await? else { return Ok(()) };
            encoder.write(&shown(&batch)?)?;
        }
    }

    /// The name that an export has in its document: what may not change between its parts.
    fn what(&self) -> String {
        format!("{} of {} where {}", self.format.as_str(), self.view, self.query)
    }

    async fn write(&self, search: &Search, mut standing: Standing<'_>, mut window: Window) -> Result<Exported> {
        let beyond = window.beyond.clone();
        let portion = Portion {
            view: &self.view,
            query: &self.query,
            now: window.now,
            after: standing.state.upto,
            upto: window.upto,
            beyond: beyond.as_ref().map(|(at, id)| (*at, id.as_str())),
        };
        // Only what can be exported takes the target.
        let mut answer = search.portion(&portion).await?;
        standing.state.window = Some(window.clone());
        standing.put().await?;
        let mut delivery = match self.format {
            Format::Delta => {
                let empty = RecordBatch::new_empty(Arc::clone(answer.schema()));
                Some(Delivery::open(standing.to, &shown(&empty)?.schema()).await?)
            }
            _ => None,
        };
        let mut exported = Exported::default();
        let mut file: Option<File> = None;
        while let Some(batch) = answer.next().await? {
            let keys = Keys::of(&batch)?;
            let mut from = 0;
            while from < batch.num_rows() {
                let is_done = file.as_ref().is_some_and(|file| !file.takes(&keys, from, self.security_lake.is_some()));
                if is_done && let Some(full) = file.take() {
                    self.finish(full, &mut standing, delivery.as_mut(), &mut window, &mut exported).await?;
                }
                let open = match &mut file {
                    Some(open) => open,
                    None => file.insert(File::new(Encoder::new(self.format, &shown(&batch)?)?)),
                };
                let rows = open.room(&keys, from, self.security_lake.is_some());
                open.write(&shown(&batch.slice(from, rows))?, &keys, from + rows - 1, self.file_bytes)?;
                from += rows;
            }
        }
        if let Some(last) = file {
            self.finish(last, &mut standing, delivery.as_mut(), &mut window, &mut exported).await?;
        }
        standing.state.upto = window.upto;
        standing.state.window = None;
        standing.put().await?;
        Ok(exported)
    }

    async fn finish(
        &self,
        file: File,
        standing: &mut Standing<'_>,
        delivery: Option<&mut Delivery>,
        window: &mut Window,
        exported: &mut Exported,
    ) -> Result<()> {
        let (at, id) = file.last;
        let name = format!("{}-{:06}.{}", window.upto, window.files, self.format.extension());
        let path = match &self.security_lake {
            None => name,
            Some(SecurityLake { source, region, account }) => {
                let day = Time::from_timestamp_micros(at)
                    .ok_or_else(|| Error::new(Code::LakeDamaged, format!("{at} µs is no time of an event")))?;
                let day = day.format("%Y%m%d");
                format!("ext/{source}/region={region}/accountId={account}/eventDay={day}/{name}")
            }
        };
        let bytes = Bytes::from(file.encoder.finish()?);
        exported.rows += file.rows;
        exported.files += 1;
        exported.bytes += bytes.len() as u64;
        standing.to.put(&path, bytes.clone()).await?;
        standing.state.files += 1;
        if let Some(delivery) = delivery {
            let stats = encode::stats(&bytes)?;
            let delivered = Delivered { path, size: bytes.len() as u64, stats, at: window.now };
            delivery.add(standing.state.files, &delivered).await?;
        }
        window.files += 1;
        window.beyond = Some((at, id));
        standing.state.window = Some(window.clone());
        standing.put().await
    }
}

/// A batch without its keys.
fn shown(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns: Vec<usize> = (0..batch.num_columns().saturating_sub(2)).collect();
    batch.project(&columns).or_error(Code::Internal, "a portion has no columns")
}

/// The times and ids of a batch's events.
struct Keys<'a> {
    at: &'a arrow::array::PrimitiveArray<TimestampMicrosecondType>,
    id: &'a arrow::array::StringArray,
}

impl<'a> Keys<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self> {
        let count = batch.num_columns();
        let keys = count.checked_sub(2).and_then(|first| {
            let at = batch.column(first).as_primitive_opt::<TimestampMicrosecondType>()?;
            Some(Self { at, id: batch.column(first + 1).as_string_opt()? })
        });
        keys.ok_or_else(|| Error::new(Code::Internal, "a portion has no keys"))
    }

    fn day(&self, row: usize) -> i64 {
        day(self.at.value(row))
    }
}

fn day(micros: i64) -> i64 {
    micros.div_euclid(86_400_000_000)
}

/// A file that is being made.
struct File {
    encoder: Encoder,
    rows: u64,
    /// Rows until its size is looked at again; counted from its beginning, so that files do not depend on batches.
    unchecked: usize,
    is_full: bool,
    last: (i64, String),
}

impl File {
    fn new(encoder: Encoder) -> Self {
        Self {
            encoder,
            rows: 0,
            unchecked: limits::EXPORT_ROWS_CHECKED,
            is_full: false,
            last: (i64::MIN, String::new()),
        }
    }

    /// Whether the row belongs into it: the rows of one event are never apart, and a file may be of one day.
    fn takes(&self, keys: &Keys<'_>, row: usize, is_of_a_day: bool) -> bool {
        if self.rows == 0 || keys.id.value(row) == self.last.1 {
            return true;
        }
        !self.is_full && (!is_of_a_day || day(self.last.0) == keys.day(row))
    }

    /// How many rows from `from` on it takes before the next look.
    fn room(&self, keys: &Keys<'_>, from: usize, is_of_a_day: bool) -> usize {
        let most = (keys.id.len() - from).min(if self.is_full { 1 } else { self.unchecked });
        let ends = |row: &usize| is_of_a_day && keys.day(*row) != keys.day(from);
        (from..from + most).find(ends).map_or(most, |end| end - from).max(1)
    }

    fn write(&mut self, rows: &RecordBatch, keys: &Keys<'_>, last: usize, file_bytes: usize) -> Result<()> {
        self.encoder.write(rows)?;
        self.rows += rows.num_rows() as u64;
        self.last = (keys.at.value(last), keys.id.value(last).to_owned());
        self.unchecked = self.unchecked.saturating_sub(rows.num_rows());
        if self.unchecked == 0 {
            self.is_full |= self.encoder.size() >= file_bytes;
            self.unchecked = limits::EXPORT_ROWS_CHECKED;
        }
        Ok(())
    }
}
