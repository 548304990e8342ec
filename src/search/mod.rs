//! Forensic Search: a question in, batches out.
//!
//! [`Search`] opens the lake's tables at their newest version in a DataFusion session that can read them and nothing
//! else. SQL comes in as text and is judged by its plan; the common questions are expressions from the start.
//!
//! May use: `lake`, `event`, and the base. Never writes.

mod filter;
mod guard;
mod scan;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::lit;
use datafusion::prelude::{SessionConfig, SessionContext, col};
use futures::TryStreamExt as _;

pub use self::filter::Filter;
use crate::error::{Code, Error, Result, ResultExt};
use crate::event::schema::TableName;
use crate::lake::Lake;
use crate::limits;
use scan::LakeTable;

/// A lake open for questions, at the version that it had when it was opened.
pub struct Search {
    context: SessionContext,
}

/// An answer on its way.
pub struct Answer {
    schema: SchemaRef,
    batches: SendableRecordBatchStream,
}

impl Search {
    /// Opens every table of a lake.
    ///
    /// # Errors
    /// `no-lake`, `lake-unavailable`, `lake-damaged`.
    pub async fn open(lake: &Lake) -> Result<Self> {
        let config = SessionConfig::new()
            .with_information_schema(true)
            .set_str("datafusion.catalog.default_schema", "public")
            .set_str("datafusion.catalog.default_catalog", "waybill")
            // Rows that a filter drops are not decoded; bloom filters and the page index answer look-ups by hash.
            .set_bool("datafusion.execution.parquet.pushdown_filters", true)
            .set_bool("datafusion.execution.parquet.reorder_filters", true)
            .set_bool("datafusion.execution.parquet.bloom_filter_on_read", true)
            .set_str("datafusion.execution.time_zone", "UTC");
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_limit(limits::QUERY_MEMORY_BYTES, 1.0)
            .build_arc()
            .map_err(|error| query_error(error, Code::Internal))?;
        let context = SessionContext::new_with_config_rt(config, runtime);
        lake.require().await?;
        for name in TableName::ALL {
            // A lake of an older Waybill has fewer tables; the next run brings them, and until then they are empty.
            let Some(table) = lake.table_if_there(name).await? else {
                let empty = EmptyTable::new(crate::event::table(name).arrow_schema());
                context
                    .register_table(name.as_str(), Arc::new(empty))
                    .map_err(|error| query_error(error, Code::Internal))?;
                continue;
            };
            let url = format!("waybill://{}", name.as_str().replace('_', "-"));
            let url = ObjectStoreUrl::parse(url).map_err(|error| query_error(error, Code::Internal))?;
            context.runtime_env().register_object_store(url.as_ref(), table.store());
            let provider = LakeTable::open(&table, url).await?;
            context
                .register_table(name.as_str(), Arc::new(provider))
                .map_err(|error| query_error(error, Code::Internal))?;
        }
        Ok(Self { context })
    }

    /// Asks in SQL: one query.
    ///
    /// # Errors
    /// `query-invalid` when it cannot be planned, `query-refused` when it is no query.
    pub async fn sql(&self, statement: &str) -> Result<Answer> {
        let plan = self
            .context
            .state()
            .create_logical_plan(statement)
            .await
            .map_err(|error| query_error(error, Code::QueryInvalid))?;
        guard::check(&plan)?;
        let frame = self.context.execute_logical_plan(plan).await;
        Self::stream(frame.map_err(|error| query_error(error, Code::QueryInvalid))?).await
    }

    /// Asks one of the common questions; the newest events first.
    ///
    /// # Errors
    /// `query-invalid` when a column is unknown.
    pub async fn file_events(&self, filter: &Filter, columns: &[String], limit: Option<usize>) -> Result<Answer> {
        let build = async {
            let mut frame = self.context.table(TableName::FileEvents.as_str()).await?;
            if let Some(expression) = filter.expression() {
                frame = frame.filter(expression)?;
            }
            frame = frame.sort(vec![col("observed_at").sort(false, false), col("event_id").sort(true, false)])?;
            frame = frame.limit(0, limit)?;
            if !columns.is_empty() {
                frame = frame.select_columns(&columns.iter().map(String::as_str).collect::<Vec<_>>())?;
            }
            Ok(frame)
        };
        Self::stream(build.await.map_err(|error| query_error(error, Code::QueryInvalid))?).await
    }

    /// The newest rows of a table of which each named column has its value, as JSON objects; for pages and reports that
    /// show a bounded number. `newest_by` is a column of times.
    ///
    /// # Errors
    /// `query-invalid` when a column is unknown; otherwise like [`Answer::next`].
    pub async fn rows(
        &self,
        table: TableName,
        equal: &[(&str, &str)],
        newest_by: &str,
        limit: usize,
    ) -> Result<Vec<serde_json::Map<String, serde_json::Value>>> {
        let build = async {
            let mut frame = self.context.table(table.as_str()).await?;
            for (column, value) in equal {
                frame = frame.filter(col(*column).eq(lit(*value)))?;
            }
            frame.sort(vec![col(newest_by).sort(false, false)])?.limit(0, Some(limit))
        };
        let frame = build.await.map_err(|error| query_error(error, Code::QueryInvalid))?;
        let batches = Self::stream(frame).await?.collect().await?;
        let mut writer = arrow::json::ArrayWriter::new(Vec::new());
        for batch in &batches {
            writer.write(batch).or_error(Code::Internal, "cannot write rows as JSON")?;
        }
        writer.finish().or_error(Code::Internal, "cannot write rows as JSON")?;
        let text = writer.into_inner();
        if text.is_empty() {
            return Ok(Vec::new());
        }
        serde_json::from_slice(&text).or_error(Code::Internal, "cannot read rows as JSON")
    }

    async fn stream(frame: DataFrame) -> Result<Answer> {
        let schema = Arc::clone(frame.schema().inner());
        let batches = frame.execute_stream().await.map_err(|error| query_error(error, Code::QueryInvalid))?;
        Ok(Answer { schema, batches })
    }
}

impl Answer {
    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next rows; nothing at the end.
    ///
    /// # Errors
    /// `query-invalid` when the query fails while it runs.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        self.batches.try_next().await.map_err(|error| query_error(error, Code::QueryInvalid))
    }

    /// All rows; for answers that are known to be small.
    ///
    /// # Errors
    /// Like [`Answer::next`].
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await? {
            batches.push(batch);
        }
        Ok(batches)
    }
}

/// What a failure of the engine means. Its text names columns and statements, never secrets.
fn query_error(error: DataFusionError, code: Code) -> Error {
    let code = match error.find_root() {
        DataFusionError::ObjectStore(_) => Code::LakeUnavailable,
        DataFusionError::ParquetError(_) => Code::LakeDamaged,
        _ => code,
    };
    Error::new(code, error.strip_backtrace()).caused_by(error)
}
