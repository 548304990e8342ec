//! Keeping a lake fast while runs and queries go on: merge small files, tidy the logs, delete what nothing names.
//!
//! A merge rewrites rows that stay the same, so it commits with `dataChange` false, and only when each file that it read
//! is still part of the table; a run that upgraded one of them meanwhile wins, and the merge of that day waits for the
//! next time. A crash leaves files that nothing names, which the next vacuum takes.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use deltalake_core::kernel::Action;
use deltalake_core::protocol::DeltaOperation;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;

use super::commit::by_date;
use super::store::Location;
use super::table::{Attempt, DataFile, Intent, Table};
use crate::error::{Code, Result, ResultExt};
use crate::event::batch;
use crate::event::schema::{self, ColumnType, TableName};
use crate::limits;

/// What maintenance may do.
#[derive(Clone, Copy, Debug)]
pub struct Maintenance {
    /// Files are merged up to about this many bytes.
    pub target_bytes: u64,
    /// Files that no version of this span names are deleted; `None` keeps the table's own setting (7 days).
    pub vacuum_after: Option<chrono::Duration>,
}

impl Default for Maintenance {
    /// 64 MB: some 150,000 rows, whose merging holds about 250 MB in memory.
    fn default() -> Self {
        Self { target_bytes: 64 * 1024 * 1024, vacuum_after: None }
    }
}

/// What maintenance did to one table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Maintained {
    /// The table.
    pub table: &'static str,
    /// Files before.
    pub files_before: usize,
    /// Files after.
    pub files_after: usize,
    /// Merges that gave way to a run; the next maintenance does them.
    pub merges_postponed: usize,
    /// Log entries that were removed.
    pub log_entries_removed: usize,
    /// Data files that were deleted because nothing names them.
    pub files_deleted: usize,
}

/// Maintains one table; nothing when the lake has no such table.
pub(super) async fn table(at: &Location, name: TableName, maintenance: Maintenance) -> Result<Option<Maintained>> {
    let Some(mut table) = Table::open(at, name).await? else { return Ok(None) };
    let files = table.files().await?;
    let mut report = Maintained { table: name.as_str(), files_before: files.len(), ..Maintained::default() };
    for (_, day) in by_date(files) {
        for group in groups(day, maintenance.target_bytes) {
            if !merge(&mut table, group, maintenance.target_bytes).await? {
                report.merges_postponed += 1;
            }
        }
    }
    table.refresh().await?;
    report.files_after = table.files().await?.len();
    report.log_entries_removed = table.tidy_log().await?;
    report.files_deleted = table.vacuum(maintenance.vacuum_after).await?;
    Ok(Some(report))
}

/// Small files of one day in groups of about the target size; a group of one has nothing to merge.
fn groups(mut day: Vec<DataFile>, target_bytes: u64) -> Vec<Vec<DataFile>> {
    day.retain(|file| file.size < target_bytes / 2);
    day.sort_by_key(|file| file.size);
    let mut groups: Vec<Vec<DataFile>> = Vec::new();
    let mut room = 0;
    for file in day {
        if file.size > room {
            groups.push(Vec::new());
            room = target_bytes;
        }
        room -= file.size;
        groups.last_mut().expect("a group was just pushed").push(file);
    }
    groups.retain(|group| group.len() > 1);
    groups
}

/// Merges files into one, in the order of their time; false when a run changed one of them meanwhile.
async fn merge(table: &mut Table, group: Vec<DataFile>, target_bytes: u64) -> Result<bool> {
    let name = table.name();
    let doing = || format!("cannot merge files of the table `{name}`");
    // Side by side, since small files are mostly the way to the store; all of them are held in any case.
    let reading: Vec<_> = group.iter().map(|file| read(table, file)).collect();
    let batches: Vec<Vec<RecordBatch>> =
        stream::iter(reading).buffered(limits::FAR_FILES_AT_ONCE).try_collect().await?;
    let schema = schema::table(name).arrow_schema();
    let rows = concat_batches(&schema, batches.iter().flatten()).or_error(Code::Internal, doing())?;
    drop(batches);
    let rows = sorted(name, &rows).or_error(Code::Internal, doing())?;
    let adds = table.write(rows.num_rows(), stream::iter([Ok(rows)])).await?;
    for _ in 0..limits::COMMIT_ATTEMPTS {
        let mut actions: Vec<Action> = Vec::new();
        for file in &group {
            let mut remove = file.remove.clone();
            remove.data_change = false;
            actions.push(Action::Remove(remove));
        }
        for add in &adds {
            let mut add = add.clone();
            add.data_change = false;
            actions.push(Action::Add(add));
        }
        let target_size = i64::try_from(target_bytes).unwrap_or(i64::MAX);
        let operation = DeltaOperation::Optimize { predicate: None, target_size };
        let intent = Intent { operation, transactions: Vec::new(), metadata: Vec::new() };
        let attempt = table.try_commit(actions, intent).await?;
        table.refresh().await?;
        match attempt {
            Attempt::Won => return Ok(true),
            Attempt::Lost => {
                let active = table.files().await?;
                let stays = |file: &DataFile| active.iter().any(|other| other.path == file.path);
                if !group.iter().all(stays) {
                    return Ok(false);
                }
            }
        }
    }
    Ok(false)
}

/// All rows of a file.
async fn read(table: &Table, file: &DataFile) -> Result<Vec<RecordBatch>> {
    let rows = table.read(file, None).await?;
    rows.map(|rows| batch::complete(table.name(), &rows?, file.date)).try_collect().await
}

/// Rows in the order of the table's time column.
fn sorted(name: TableName, rows: &RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
    let order = schema::table(name).columns.iter().find(|column| column.kind == ColumnType::Timestamp);
    let Some(values) = order.and_then(|column| rows.column_by_name(&column.name)) else { return Ok(rows.clone()) };
    let by_time = SortColumn { values: Arc::clone(values), options: None };
    take_record_batch(rows, &lexsort_to_indices(&[by_time], None)?)
}
