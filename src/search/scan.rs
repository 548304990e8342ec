//! A lake's table → DataFusion's own Parquet scan.
//!
//! The list of files, their days and their statistics come from the Delta snapshot, so that a query opens only files
//! that may hold an answer (`bloom` knows of hashes and ids); the reading, with row-group, bloom-filter and page pruning, is DataFusion's.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, NaiveDate};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PrunableStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, DFSchema, Result as PlanResult, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfigBuilder, ParquetFileReaderFactory, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion_datasource_parquet::CachedParquetFileReaderFactory;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::ParquetMetaData;
use serde::Deserialize;

use super::bloom::{Blooms, Candidates, Source};
use super::lists;
use crate::error::{Code, Result, ResultExt};
use crate::lake::{DataFile, Table};
use crate::limits;

/// A table of the lake at one version, for DataFusion to read.
#[derive(Debug)]
pub(super) struct LakeTable {
    schema: TableSchema,
    /// Each has as its statistics what the log says of it, as certain bounds. Delta cuts long texts and times, always outwards,
    /// so that they may rule a file out; they are not given on as the least and greatest values of the table.
    files: Arc<[PartitionedFile]>,
    /// Columns with bloom filters, and those of the files that were read.
    bloom_columns: Vec<&'static str>,
    blooms: Arc<Blooms>,
    url: ObjectStoreUrl,
    /// The same table with its texts as views.
    views: OnceLock<Arc<LakeTable>>,
}

impl LakeTable {
    /// Takes the files and statistics of the open version. `url` is where the session finds the table's store, and `blooms`
    /// what former versions of the table read of its files.
    pub(super) async fn open(table: &Table, url: ObjectStoreUrl, blooms: Arc<Blooms>) -> Result<Self> {
        let schema = table.schema()?;
        let partition = crate::event::schema::table(table.name()).partition_by.first();
        let (days, columns): (Vec<_>, Vec<_>) =
            schema.fields().iter().cloned().partition(|field| Some(field.name()) == partition);
        let file_schema = Arc::new(Schema::new(columns));
        let schema = TableSchema::builder(Arc::clone(&file_schema)).with_table_partition_cols(days).build();
        let files = table.files().await?;
        let mut partitioned = Vec::with_capacity(files.len());
        for file in &files {
            let mut statistics = statistics(schema.table_schema(), file)?;
            let day = ScalarValue::Date32(file.date.map(days_since_1970));
            for column in &mut statistics.column_statistics[file_schema.fields().len()..] {
                column.min_value = Precision::Exact(day.clone());
                column.max_value = Precision::Exact(day.clone());
                column.null_count = Precision::Exact(0);
            }
            let partition = PartitionedFile::new(file.path.to_string(), file.size).with_partition_values(vec![day]);
            let partition = match &file.bloom_places {
                Some(places) => partition.with_extension(places.clone()),
                None => partition,
            };
            partitioned.push(PartitionedFile { statistics: Some(Arc::new(statistics)), ..partition });
        }
        blooms.retain(&partitioned);
        let columns = crate::event::schema::table(table.name()).columns.iter();
        let bloom_columns = columns.filter(|column| column.bloom).map(|column| column.name.as_str()).collect();
        Ok(Self { schema, files: partitioned.into(), bloom_columns, blooms, url, views: OnceLock::new() })
    }

    /// The same table with its texts as views; made once.
    pub(super) fn views(&self) -> Arc<Self> {
        let make = || {
            let as_view = |field: &FieldRef| match field.data_type() {
                DataType::Utf8 => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View)),
                _ => Arc::clone(field),
            };
            let fields: Fields = self.schema.file_schema().fields().iter().map(as_view).collect();
            let days: Vec<_> = self.schema.table_partition_cols().iter().cloned().collect();
            Arc::new(Self {
                schema: TableSchema::builder(Arc::new(Schema::new(fields))).with_table_partition_cols(days).build(),
                files: Arc::clone(&self.files),
                bloom_columns: self.bloom_columns.clone(),
                blooms: Arc::clone(&self.blooms),
                url: self.url.clone(),
                views: OnceLock::new(),
            })
        };
        Arc::clone(self.views.get_or_init(make))
    }

    /// The files that may hold a row for these filters, by their days, statistics and bloom filters: a look-up in a lake of
    /// years must not even plan to open all of it. The scan itself learns the filters from DataFusion's optimizer.
    async fn files_for(&self, state: &dyn Session, filters: &[Expr], from: Source<'_>) -> PlanResult<Candidates> {
        let Some(filter) = conjunction(filters.to_vec()) else { return Ok(Candidates::all(self.files.to_vec())) };
        let schema = DFSchema::try_from(self.schema())?;
        let filter = state.create_physical_expr(filter, &schema)?;
        let files = match PruningPredicateBuilder::new().with_file_schema(self.schema()).try_build(Arc::clone(&filter))
        {
            Ok(pruning) => {
                let bounds = self.files.iter().filter_map(|file| file.statistics.clone()).collect();
                let keep = pruning.prune(&PrunableStatistics::new(bounds, self.schema()))?;
                self.files.iter().zip(keep).filter(|(_, keep)| *keep).map(|(file, _)| file.clone()).collect()
            }
            // A filter that says nothing about bounds keeps every file.
            Err(_) => self.files.to_vec(),
        };
        self.blooms.may_hold(files, &filter, &self.bloom_columns, from).await
    }
}

impl LakeTable {
    /// What the scan may judge of the filters on lists, beyond what DataFusion gives it.
    fn filter_on_lists(&self, state: &dyn Session, filters: &[Expr]) -> PlanResult<Option<Arc<dyn PhysicalExpr>>> {
        let columns = self.schema.file_schema();
        let asks_lists = |filter: &&Expr| {
            let mut asked =
                filter.column_refs().into_iter().filter_map(|column| columns.field_with_name(&column.name).ok());
            !filter.is_volatile() && asked.any(|field| field.data_type().is_nested())
        };
        let schema = DFSchema::try_from(self.schema())?;
        let filters =
            filters.iter().filter(asks_lists).map(|filter| state.create_physical_expr(filter.clone(), &schema));
        Ok(lists::for_the_scan(&filters.collect::<PlanResult<Vec<_>>>()?, columns))
    }
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.schema.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> PlanResult<Vec<TableProviderFilterPushDown>> {
        // The scan drops what cannot match; the filter above it decides.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let store = state.runtime_env().object_store(&self.url)?;
        let metadata = state.runtime_env().cache_manager.get_file_metadata_cache();
        let cached = Arc::new(CachedParquetFileReaderFactory::new(Arc::clone(&store), metadata));
        let from = Source { store: store.as_ref(), readers: cached.as_ref() };
        let Candidates { files, are_blooms_asked } = self.files_for(state, filters, from).await?;
        // Where no filter is about what the files hold, there is no page to skip.
        let may_skip_pages = self.schema.file_schema().fields().iter().any(|field| is_asked(filters, field.name()));
        let readers: Arc<dyn ParquetFileReaderFactory> =
            if may_skip_pages { Arc::new(WithPageIndex(cached)) } else { cached };
        if files.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema().project(columns)?),
                None => self.schema(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let mut options = state.config_options().execution.parquet.clone();
        // A join brings its filter while it runs, on a column that is read. Where none of the columns has bloom filters, the scan
        // would look in vain for them in each file.
        let read = projection.map_or_else(Vec::new, |columns| {
            columns.iter().map(|column| self.schema.table_schema().field(*column).name().as_str()).collect()
        });
        options.bloom_filter_on_read &= !are_blooms_asked
            && (projection.is_none()
                || self.bloom_columns.iter().any(|column| read.contains(column) || is_asked(filters, column)));
        let source = ParquetSource::new(self.schema.clone())
            .with_table_parquet_options(datafusion::config::TableParquetOptions {
                global: options,
                ..Default::default()
            })
            .with_parquet_file_reader_factory(readers)
            .with_metadata_size_hint(limits::FOOTER_BYTES);
        let source = match self.filter_on_lists(state, filters)? {
            Some(filter) => source.with_predicate(filter),
            None => source,
        };
        let rows = files.iter().filter_map(|file| file.statistics.as_ref()).map(|statistics| statistics.num_rows);
        let rows = rows.fold(Precision::Exact(0), |sum, rows| sum.add(&rows));
        let statistics = Statistics { num_rows: rows, ..Statistics::new_unknown(&self.schema()) };
        let partitions = state.config().target_partitions();
        let groups = FileGroup::new(files).split_files(partitions);
        let scan = FileScanConfigBuilder::new(self.url.clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(filters.is_empty().then_some(limit).flatten())
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }
}

/// Readers that give a file's page index with its footer, and keep both. The scan itself asks for the footer alone, and then for
/// the page index at each query anew.
#[derive(Debug)]
struct WithPageIndex(Arc<CachedParquetFileReaderFactory>);

impl ParquetFileReaderFactory for WithPageIndex {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> PlanResult<Box<dyn AsyncFileReader + Send>> {
        Ok(Box::new(PageIndexReader(self.0.create_reader(partition, file, metadata_size_hint, metrics)?)))
    }
}

struct PageIndexReader(Box<dyn AsyncFileReader + Send>);

impl AsyncFileReader for PageIndexReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.0.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.0.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        // The options say no more than that the page index is not asked for; without them it is.
        self.0.get_metadata(None)
    }
}

/// Whether one of the filters is about this column.
fn is_asked(filters: &[Expr], column: &str) -> bool {
    filters.iter().any(|filter| filter.column_refs().iter().any(|asked| asked.name == column))
}

/// Delta's statistics of one file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeltaStatistics {
    num_records: Option<usize>,
    #[serde(default)]
    min_values: HashMap<String, serde_json::Value>,
    #[serde(default)]
    max_values: HashMap<String, serde_json::Value>,
    #[serde(default)]
    null_count: HashMap<String, serde_json::Value>,
}

/// A file's statistics in DataFusion's words.
fn statistics(schema: &Schema, file: &DataFile) -> Result<Statistics> {
    let mut statistics = Statistics::new_unknown(schema);
    let Some(json) = &file.stats else { return Ok(statistics) };
    let delta: DeltaStatistics = serde_json::from_str(json)
        .or_error(Code::LakeDamaged, format!("cannot read the statistics of the file `{}`", file.path))?;
    statistics.num_rows = delta.num_records.map_or(Precision::Absent, Precision::Exact);
    for (field, column) in schema.fields().iter().zip(&mut statistics.column_statistics) {
        // What writers count as nulls of a list are perhaps its elements, and a column without any value is not read.
        if field.data_type().is_nested() {
            continue;
        }
        let bound = |values: &HashMap<String, serde_json::Value>, is_max| {
            let value = values.get(field.name()).and_then(|value| scalar(field, value, is_max));
            value.map_or(Precision::Absent, Precision::Exact)
        };
        let (min, max) = (bound(&delta.min_values, false), bound(&delta.max_values, true));
        let nulls = delta.null_count.get(field.name()).and_then(serde_json::Value::as_u64);
        let nulls = nulls.and_then(|n| usize::try_from(n).ok()).map_or(Precision::Absent, Precision::Exact);
        // DataFusion 55.2 puts the one value of a column into the filter in the column's place, and a filter whose columns all
        // went that way drops no row. It does so only where it is certain how many nulls there are.
        let is_constant = nulls == statistics.num_rows || (min == max && min != Precision::Absent);
        let null_count = if is_constant { nulls.to_inexact() } else { nulls };
        *column = ColumnStatistics { null_count, min_value: min, max_value: max, ..ColumnStatistics::new_unknown() };
    }
    Ok(statistics)
}

fn scalar(field: &Field, value: &serde_json::Value, is_max: bool) -> Option<ScalarValue> {
    match field.data_type() {
        DataType::Utf8 => Some(ScalarValue::Utf8(Some(value.as_str()?.to_owned()))),
        DataType::Int64 => Some(ScalarValue::Int64(Some(value.as_i64()?))),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let time = DateTime::parse_from_rfc3339(value.as_str()?).ok()?;
            // Some writers cut to milliseconds, which would put the newest row outside.
            let micros = time.timestamp_micros() + if is_max { 999 } else { 0 };
            Some(ScalarValue::TimestampMicrosecond(Some(micros), zone.clone()))
        }
        _ => None,
    }
}

fn days_since_1970(date: NaiveDate) -> i32 {
    i32::try_from((date - NaiveDate::default()).num_days()).unwrap_or(i32::MAX)
}
