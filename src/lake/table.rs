//! One Delta table of a lake: created, opened, grown by columns, written, and committed to.
//!
//! With `delivery`, the only file that knows how the Delta library is driven. Conflicts are not left to it: a commit is tried for exactly
//! one version, and whoever loses looks at the new state and decides again (`commit`, `maintain`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use chrono::NaiveDate;
use deltalake_core::datafile::writer::{DeltaWriter, WriterConfig};
use deltalake_core::kernel::engine::arrow_conversion::{TryIntoArrow as _, TryIntoKernel as _};
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake_core::kernel::{Action, Add, StructField, StructType, Transaction};
use deltalake_core::logstore::{StorageConfig, default_logstore};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::table::config::TablePropertiesExt as _;
use deltalake_core::{DeltaTable, DeltaTableError};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::{AsyncFileReader as _, ParquetRecordBatchStreamBuilder};
use url::Url;
use uuid::Uuid;

use super::blooms::BloomPlaces;
use super::store::{Location, cause_in_store};
use super::{parquet as files, paths};
use crate::error::{Code, Error, Result, ResultExt};
use crate::event::schema::{self, TableName};
use crate::limits;

#[expect(deprecated, reason = "arrow 59 deprecates it in favour of an example to copy; the store runs on this runtime")]
type FileReader = parquet::arrow::async_reader::ParquetObjectReader;

/// An open table at one version.
pub struct Table {
    name: TableName,
    delta: DeltaTable,
    store: Arc<dyn ObjectStore>,
    /// When its log was last listed.
    listed: Instant,
    /// Whether it committed since then.
    is_behind: bool,
}

/// A data file of a table's present version.
#[derive(Clone, Debug)]
pub struct DataFile {
    /// Below the table's folder.
    pub path: Path,
    /// Bytes.
    pub size: u64,
    /// The partition's day.
    pub date: Option<NaiveDate>,
    /// Delta's statistics as JSON: `numRecords`, `minValues`, `maxValues`, `nullCount`.
    pub stats: Option<String>,
    /// Where its bloom filters are; nothing for a file that an older Waybill or somebody else wrote.
    pub bloom_places: Option<BloomPlaces>,
    pub(super) remove: deltalake_core::kernel::Remove,
}

/// How a commit for one version ended.
pub(super) enum Attempt {
    /// It is the table's new version.
    Won,
    /// Another writer took the version.
    Lost,
}

/// What a commit says about itself.
pub(super) struct Intent<'a> {
    /// The operation in Delta's words.
    pub(super) operation: DeltaOperation,
    /// The transactions `(application, version)` that it carries.
    pub(super) transactions: Vec<(&'a str, i64)>,
    /// Keys for the commit's own record, for a person who reads the log.
    pub(super) metadata: Vec<(String, serde_json::Value)>,
}

/// An append in Delta's words.
pub(super) fn append(table: TableName) -> DeltaOperation {
    DeltaOperation::Write {
        mode: SaveMode::Append,
        partition_by: Some(schema::table(table).partition_by.clone()),
        predicate: None,
    }
}

impl Table {
    /// Opens a table at its newest version; nothing when there is none.
    pub(super) async fn open(at: &Location, name: TableName) -> Result<Option<Self>> {
        let mut table = Self::at(at, name)?;
        match table.delta.load().await {
            Ok(()) => Ok(Some(table)),
            Err(DeltaTableError::NotATable(_)) => Ok(None),
            // A folder of this machine that is not there has an error of its own.
            Err(error) => match table.delta.log_store().is_delta_table_location().await {
                Ok(false) => Ok(None),
                _ => Err(table.error(error, "cannot open")),
            },
        }
    }

    /// Opens a table, creating it or adding the columns that a newer Waybill brought.
    pub(super) async fn open_or_create(at: &Location, name: TableName) -> Result<Self> {
        let Some(mut table) = Self::open(at, name).await? else {
            let table = Self::at(at, name)?;
            let definition = schema::table(name);
            let schema = table.kernel_schema()?;
            // Frequent log checkpoints keep the opening of the table flat: an hourly job makes 8,760 commits a year. Each opening
            // and each commit lists the log, whose entries are of no use once the files that they name are deleted.
            let created = table
                .delta
                .create()
                .with_table_name(definition.name.clone())
                .with_comment(definition.description.clone())
                .with_columns(schema.fields().cloned())
                .with_partition_columns(definition.partition_by.clone())
                .with_configuration([
                    ("delta.checkpointInterval", Some("20")),
                    ("delta.logRetentionDuration", Some("interval 7 days")),
                    ("delta.deletedFileRetentionDuration", Some("interval 7 days")),
                    ("delta.enableExpiredLogCleanup", Some("true")),
                ])
                .await;
            return match created {
                Ok(delta) => Ok(Self { delta, ..table }),
                // Somebody else created it at the same moment.
                Err(error) => match Self::open(at, name).await? {
                    Some(table) => Ok(table),
                    None => Err(table.error(error, "cannot create")),
                },
            };
        };
        table.add_missing_columns().await?;
        Ok(table)
    }

    fn at(at: &Location, name: TableName) -> Result<Self> {
        let url = at
            .url
            .join(&format!("{name}/"))
            .or_error(Code::Internal, format!("cannot build the URL of the table `{name}`"))?;
        let (delta, store) = connect(at, paths::table(&at.root, name.as_str()), &url);
        Ok(Self { name, delta, store, listed: Instant::now(), is_behind: false })
    }

    /// Which table it is.
    pub fn name(&self) -> TableName {
        self.name
    }

    fn definition(&self) -> &'static schema::Table {
        schema::table(self.name)
    }

    /// Reads what was committed since.
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-damaged`.
    pub(super) async fn refresh(&mut self) -> Result<()> {
        let listed = Instant::now();
        self.delta.update_state().await.map_err(|error| self.error(error, "cannot read the log of"))?;
        (self.listed, self.is_behind) = (listed, false);
        Ok(())
    }

    /// Reads what was committed since, if anything was: one small request tells, where reading what is new lists the log first.
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-damaged`.
    pub async fn catch_up(&mut self) -> Result<()> {
        let is_listed = !self.is_behind && self.listed.elapsed() < limits::LOG_LISTED_EVERY;
        if is_listed && !self.has_next().await { Ok(()) } else { self.refresh().await }
    }

    /// Whether the log has a version after the open one. What cannot be told counts as new. It says no, too, when the log has
    /// been tidied so far that the next version is gone, which takes longer than [`limits::LOG_LISTED_EVERY`].
    async fn has_next(&self) -> bool {
        let next = Path::from(format!("_delta_log/{:020}.json", self.version() + 1));
        !matches!(self.store.head(&next).await, Err(object_store::Error::NotFound { .. }))
    }

    /// The version that is open.
    pub fn version(&self) -> u64 {
        self.delta.version().unwrap_or_default()
    }

    /// The store, rooted at the table's folder.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// The table's columns as its log names them, partition columns included; perhaps more than this Waybill knows.
    ///
    /// # Errors
    /// `lake-damaged` when the log's schema cannot be understood.
    pub fn schema(&self) -> Result<SchemaRef> {
        let snapshot = self.delta.snapshot().map_err(|error| self.error(error, "cannot read the schema of"))?;
        let schema: arrow::datatypes::Schema = snapshot
            .schema()
            .as_ref()
            .try_into_arrow()
            .or_error(Code::LakeDamaged, format!("cannot read the schema of the table `{}`", self.name))?;
        Ok(Arc::new(schema))
    }

    /// The data files of the open version, in the log's order.
    ///
    /// # Errors
    /// `lake-damaged` when the log cannot be understood.
    pub async fn files(&self) -> Result<Vec<DataFile>> {
        self.files_if(|_| true).await
    }

    /// The data files of these days only: a commit must not pay for the table's age.
    pub(super) async fn files_of(&self, dates: &BTreeSet<NaiveDate>) -> Result<Vec<DataFile>> {
        self.files_if(|date| date.is_none_or(|date| dates.contains(&date))).await
    }

    async fn files_if(&self, is_wanted: impl Fn(Option<NaiveDate>) -> bool) -> Result<Vec<DataFile>> {
        let describe = |error| self.error(error, "cannot list the files of");
        let snapshot = self.delta.snapshot().map_err(describe)?;
        let log = self.delta.log_store();
        let partition = self.definition().partition_by.first();
        snapshot
            .snapshot()
            .file_views(log.as_ref(), None)
            .map_err(describe)
            .try_filter_map(|view| {
                let values = view.partition_values_map();
                let date = partition.and_then(|column| values.get(column)?.as_deref()?.parse().ok());
                let file = is_wanted(date).then(|| {
                    #[expect(deprecated, reason = "nothing else gives a file's tags")]
                    let add = view.add_action();
                    let size = u64::try_from(add.size).unwrap_or_default();
                    DataFile {
                        path: view.object_store_path(),
                        size,
                        date,
                        bloom_places: BloomPlaces::of_tags(add.tags.as_ref(), size),
                        stats: add.stats,
                        remove: view.remove_action(true),
                    }
                });
                std::future::ready(Ok(file))
            })
            .try_collect()
            .await
    }

    /// The last transaction of an application; 0 when it has none.
    pub(super) async fn transaction(&self, application: &str) -> Result<i64> {
        let describe = |error| self.error(error, "cannot read the transactions of");
        let snapshot = self.delta.snapshot().map_err(describe)?;
        let log = self.delta.log_store();
        let version = snapshot.transaction_version(log.as_ref(), application).await.map_err(describe)?;
        Ok(version.unwrap_or_default())
    }

    /// Writes batches of about `rows` rows, as they come, as new data files: one for each value of the partition column.
    /// Nobody sees them until a commit names them.
    pub(super) async fn write(
        &self,
        rows: usize,
        batches: impl Stream<Item = Result<RecordBatch>> + Send,
    ) -> Result<Vec<Add>> {
        let mut writer = self.writer(rows)?;
        let mut batches = std::pin::pin!(batches);
        while let Some(batch) = batches.try_next().await? {
            writer.write(&batch).await.map_err(|error| self.error(error, "cannot write to"))?;
        }
        let mut adds = writer.close().await.map_err(|error| self.error(error, "cannot write to"))?;
        if self.definition().columns.iter().any(|column| column.bloom) {
            // Side by side: a commit of many days has a file for each.
            futures::future::try_join_all(adds.iter_mut().map(|add| self.tag(add))).await?;
        }
        Ok(adds)
    }

    /// Notes in the log where the bloom filters of a new file are. The writer does not tell, so its footer is read.
    async fn tag(&self, add: &mut Add) -> Result<()> {
        let size = u64::try_from(add.size).unwrap_or_default();
        let reader = FileReader::new(Arc::clone(&self.store), path(add)).with_file_size(size);
        let metadata =
            reader.with_footer_size_hint(limits::FOOTER_BYTES).get_metadata(None).await.map_err(|error| {
                let code = cause_in_store(&error).unwrap_or(Code::LakeDamaged);
                let doing = format!("cannot read the footer of `{}` of the table `{}`", add.path, self.name);
                Error::new(code, format!("{doing}: {error}")).caused_by(error)
            })?;
        let tag = BloomPlaces::of(self.definition(), size, &metadata).tag();
        add.tags.get_or_insert_default().extend(tag);
        Ok(())
    }

    /// A writer for about `rows` rows.
    pub(super) fn writer(&self, rows: usize) -> Result<DeltaWriter> {
        let snapshot = self.delta.snapshot().map_err(|error| self.error(error, "cannot write to"))?;
        let properties = files::writer_properties(self.definition(), rows);
        let config = WriterConfig::new(
            self.definition().arrow_schema(),
            self.definition().partition_by.clone(),
            Some(properties),
            None,
            None,
            snapshot.table_config().num_indexed_cols(),
            None,
        );
        Ok(DeltaWriter::new(Arc::clone(&self.store), config))
    }

    /// Reads a data file; all columns, or only those named. Each error says which file it is about.
    pub(super) async fn read(
        &self,
        file: &DataFile,
        columns: Option<&[&str]>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let doing = format!("cannot read `{}` of the table `{}`", file.path, self.name);
        let reader = FileReader::new(Arc::clone(&self.store), file.path.clone()).with_file_size(file.size);
        let reader = reader.with_footer_size_hint(limits::FOOTER_BYTES);
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await.or_error(Code::LakeDamaged, &doing)?;
        let mask = match columns {
            Some(columns) => ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied()),
            None => ProjectionMask::all(),
        };
        let rows = builder.with_projection(mask).build().or_error(Code::LakeDamaged, &doing)?;
        Ok(rows.map(move |rows| rows.or_error(Code::LakeDamaged, &doing)).boxed())
    }

    /// Tries to make `actions` the version that follows the open one.
    ///
    /// An error leaves open whether the commit landed (its answer may have been lost): look the transaction up.
    pub(super) async fn try_commit(&mut self, actions: Vec<Action>, intent: Intent<'_>) -> Result<Attempt> {
        // Maintenance tidies the log.
        let tidies_log = false;
        let attempt = try_commit(&mut self.delta, actions, intent, tidies_log)
            .await
            .map_err(|error| self.error(error, "cannot commit to"))?;
        self.is_behind |= matches!(attempt, Attempt::Won);
        Ok(attempt)
    }

    /// Writes a log checkpoint and removes log entries that are past their retention; returns how many were removed.
    pub(super) async fn tidy_log(&self) -> Result<usize> {
        let describe = |error| self.error(error, "cannot tidy the log of");
        deltalake_core::checkpoints::create_checkpoint(&self.delta, None).await.map_err(describe)?;
        deltalake_core::checkpoints::cleanup_metadata(&self.delta, None).await.map_err(describe)
    }

    /// Deletes files that no version within the retention names; returns how many.
    pub(super) async fn vacuum(&self, retention: Option<chrono::Duration>) -> Result<usize> {
        let mut builder = self.delta.clone().vacuum();
        if let Some(retention) = retention {
            builder = builder.with_retention_period(retention).with_enforce_retention_duration(false);
        }
        let (_, metrics) = builder.await.map_err(|error| self.error(error, "cannot vacuum"))?;
        Ok(metrics.files_deleted.len())
    }

    async fn add_missing_columns(&mut self) -> Result<()> {
        let missing = self.missing_columns()?;
        if missing.is_empty() {
            return Ok(());
        }
        match self.delta.clone().add_columns().with_fields(missing).await {
            Ok(delta) => self.delta = delta,
            Err(error) => {
                // Perhaps somebody else added them at the same moment: shards begin together.
                self.refresh().await?;
                if !self.missing_columns()?.is_empty() {
                    return Err(self.error(error, "cannot add columns to"));
                }
            }
        }
        Ok(())
    }

    /// The columns that a newer Waybill brought and the table has not.
    fn missing_columns(&self) -> Result<Vec<StructField>> {
        let present = self.schema()?;
        let wanted = self.kernel_schema()?;
        let missing = wanted.fields().filter(|field| present.column_with_name(field.name()).is_none());
        // A new column is absent from old files, so it must be nullable there whatever it is in new ones.
        Ok(missing
            .cloned()
            .map(|mut field| {
                field.nullable = true;
                field
            })
            .collect())
    }

    fn kernel_schema(&self) -> Result<StructType> {
        self.definition()
            .arrow_schema()
            .as_ref()
            .try_into_kernel()
            .or_error(Code::Internal, format!("the schema of the table `{}` is not one of Delta's", self.name))
    }

    fn error(&self, error: DeltaTableError, doing: &str) -> Error {
        let code = cause_in_store(&error).unwrap_or(Code::LakeDamaged);
        Error::new(code, format!("{doing} the table `{}`: {error}", self.name)).caused_by(error)
    }
}

/// Where a new file is, below the table's folder.
pub(super) fn path(add: &Add) -> Path {
    Path::parse(&add.path).unwrap_or_else(|_| Path::from(add.path.as_str()))
}

/// A table that is not loaded yet, and the store rooted at its folder.
pub(super) fn connect(at: &Location, folder: Path, url: &Url) -> (DeltaTable, Arc<dyn ObjectStore>) {
    let store: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&at.store), folder));
    let log = default_logstore(Arc::clone(&store), Arc::clone(&at.store), url, &StorageConfig::default());
    (DeltaTable::new(log), store)
}

/// Tries to make `actions` the version that follows the loaded one; see [`Table::try_commit`]. With a log checkpoint, which comes
/// when it is due, `tidies_log` removes log entries that have expired, too.
///
/// The library would list the log before the entry is written and again after it: for retries that nobody wants here, and
/// for a state that the next look at the log brings anyway. Writing the entry is the whole commit: it fails when the version is there.
/// It would be there and not be seen only if the last look at the log were older than the log's retention of 7 days; every caller looks
/// just before.
pub(super) async fn try_commit(
    delta: &mut DeltaTable,
    actions: Vec<Action>,
    intent: Intent<'_>,
    tidies_log: bool,
) -> std::result::Result<Attempt, DeltaTableError> {
    let mut properties = CommitProperties::default().with_metadata(intent.metadata);
    for (application, version) in intent.transactions {
        properties = properties.with_application_transaction(Transaction::new(application, version));
    }
    let (log, snapshot) = (delta.log_store(), delta.snapshot()?);
    let version = snapshot.version() + 1;
    let is_checkpoint_due = (version + 1).is_multiple_of(snapshot.table_config().checkpoint_interval().get());
    let commit = CommitBuilder::from(properties).with_actions(actions);
    let prepared =
        commit.build(Some(snapshot), Arc::clone(&log), intent.operation).into_prepared_commit_future().await?;
    let entry = prepared.commit_or_bytes().clone();
    match log.write_commit_entry(version, entry, Uuid::new_v4()).await {
        Ok(()) => {}
        Err(TransactionError::VersionAlreadyExists(_)) => return Ok(Attempt::Lost),
        Err(error) => return Err(error.into()),
    }
    // The commit stands whatever becomes of its checkpoint; the next one that is due makes good for it.
    if is_checkpoint_due && let Err(error) = write_log_checkpoint(delta, tidies_log).await {
        tracing::warn!(version, %error, "the log's checkpoint could not be written; the table opens slower until the next one");
    }
    Ok(Attempt::Won)
}

async fn write_log_checkpoint(delta: &mut DeltaTable, tidies_log: bool) -> std::result::Result<(), DeltaTableError> {
    delta.update_state().await?;
    deltalake_core::checkpoints::create_checkpoint(delta, None).await?;
    if tidies_log {
        deltalake_core::checkpoints::cleanup_metadata(delta, None).await?;
    }
    Ok(())
}

/// Partition values as a log entry wants them.
pub(super) fn metadata<const N: usize>(entries: [(&str, String); N]) -> Vec<(String, serde_json::Value)> {
    entries
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect::<HashMap<_, _>>()
        .into_iter()
        .collect()
}
