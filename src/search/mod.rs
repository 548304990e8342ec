//! Forensic Search: a question in, batches out.
//!
//! [`Engine`] is what all who ask share; [`Search`] is a session of somebody ([`Asker`]) over the lake's tables at their
//! newest version, which can read them and nothing else. SQL comes in as text and is judged by its plan; the common
//! questions are expressions from the start. Every way to an answer goes through [`Search::answer`], which holds its limits
//! and records it.
//!
//! May use: `lake`, `digest` (which content types contradict each other), `event`, and the base. Writes nothing but the record of searches.

mod aggregates;
mod answer;
mod bloom;
pub mod browse;
mod by_day;
mod catalog;
pub mod csv;
mod describe;
mod distinct;
mod engine;
mod evidence;
mod extreme_text;
mod first_files;
mod first_value;
mod functions;
mod guard;
mod lists;
mod memory;
mod portion;
mod postgres;
pub mod query;
mod risk;
mod scan;
pub mod script;
mod statement;
mod texts;
mod texts_of_groups;
mod views;

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Instant;

use arrow::error::ArrowError;
use datafusion::catalog::{
    CatalogProvider as _, CatalogProviderList as _, MemoryCatalogProvider, MemoryCatalogProviderList,
};
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{LogicalPlan, lit};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{SessionContext, col};
use tokio::sync::Semaphore;

use self::answer::Bounds;
pub use self::answer::{Answer, Gauge, Scanned};
pub use self::catalog::Policy;
use self::catalog::{LakeSchema, Tables};
pub use self::describe::{ColumnOf, FunctionOf, Relation, keywords};
pub use self::engine::{Asker, Engine, Surface};
use self::evidence::{Evidence, Open};
pub use self::guard::check_text as check_statement;
pub use self::memory::QueryMemory;
pub use self::portion::Portion;
pub use self::postgres::{POSTGRES_SETTINGS, POSTGRES_VERSION};
use self::query::{Query, Selection};
pub use self::risk::{RiskRules, Trusted};
pub use self::statement::Statement;
use crate::clock::Time;
use crate::error::{Code, Error, Result};
use crate::event::schema::TableName;
use crate::lake::Lake;
use crate::limits;

/// A lake open for questions: each table at the version that it had when a question first named it.
pub struct Search {
    context: SessionContext,
    tables: Arc<Tables>,
    policy: Arc<Policy>,
    somebody: Option<Somebody>,
}

/// For whom it is open, when it is not Waybill itself that looks.
struct Somebody {
    asker: Asker,
    bounds: Bounds,
    evidence: Arc<Evidence>,
    places: Arc<Semaphore>,
}

/// The catalog of every session.
pub const CATALOG: &str = "waybill";

/// Its schema.
pub const SCHEMA: &str = "public";

impl Search {
    /// Opens a lake for Waybill's own looks, which are bounded by their nature and of which nothing is recorded.
    ///
    /// # Errors
    /// `no-lake`, `lake-unavailable`, `lake-damaged`.
    pub async fn open(lake: &Lake) -> Result<Self> {
        let runtime = engine::runtime()?;
        let tables = Arc::new(Tables::of(lake.clone(), Arc::clone(&runtime)));
        let since = Instant::now();
        tables.require(since).await?;
        let runtime = engine::runtime_of_one(&runtime, QueryMemory::shared())?;
        Self::new(&engine::state(), runtime, tables, Arc::default(), since)
    }

    fn new(
        state: &SessionState,
        runtime: Arc<RuntimeEnv>,
        tables: Arc<Tables>,
        policy: Arc<Policy>,
        since: Instant,
    ) -> Result<Self> {
        let failed = |error| query_error(error, Code::Internal);
        let catalog = MemoryCatalogProvider::new();
        let schema = LakeSchema::new(Arc::clone(&tables), Arc::clone(&policy), since, state.clone());
        catalog.register_schema(SCHEMA, Arc::new(schema)).map_err(failed)?;
        let catalogs = MemoryCatalogProviderList::new();
        catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
        let mut config = state.config().clone();
        if tables.are_far() {
            // A partition of a scan reads one file at a time.
            let partitions = config.target_partitions().max(limits::FAR_FILES_AT_ONCE);
            config = config.with_target_partitions(partitions);
        }
        let state = SessionStateBuilder::new_from_existing(state.clone())
            .with_config(config)
            .with_catalog_list(Arc::new(catalogs))
            .with_runtime_env(runtime)
            .build();
        Ok(Self { context: SessionContext::new_with_state(state), tables, policy, somebody: None })
    }

    /// Lets the next question see the tables at their newest versions, for sessions that last.
    ///
    /// # Errors
    /// `internal`; none is known.
    pub fn refresh(&self) -> Result<()> {
        // The state that goes into the schema has no catalog: the catalog holds the schema, and would hold itself.
        let functions = SessionStateBuilder::new_from_existing(self.context.state())
            .with_catalog_list(Arc::new(MemoryCatalogProviderList::new()))
            .build();
        let (tables, policy) = (Arc::clone(&self.tables), Arc::clone(&self.policy));
        let schema = Arc::new(LakeSchema::new(tables, policy, Instant::now(), functions));
        let catalog = self.context.catalog(CATALOG);
        let registered = catalog.map(|catalog| catalog.register_schema(SCHEMA, schema)).transpose();
        registered.map(drop).map_err(|error| query_error(error, Code::Internal))
    }

    fn for_somebody(mut self, asker: Asker, bounds: Bounds, evidence: Arc<Evidence>, places: Arc<Semaphore>) -> Self {
        self.somebody = Some(Somebody { asker, bounds, evidence, places });
        self
    }

    /// The session: its catalog is `waybill`, its schema `public`. Whatever is planned on it must go through
    /// [`Search::answer`].
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    /// Plans one query.
    ///
    /// # Errors
    /// `query-invalid` when it cannot be planned, `query-refused` when it is no query; both are recorded.
    pub async fn plan(&self, statement: &str) -> Result<LogicalPlan> {
        self.plan_as(statement, statement).await
    }

    async fn plan_as(&self, statement: &str, recorded: &str) -> Result<LogicalPlan> {
        let plan = self.plan_unrecorded(statement).await;
        if let Err(error) = &plan
            && let Some(mut open) = self.record(recorded)
        {
            open.failed(error);
        }
        plan
    }

    async fn plan_unrecorded(&self, statement: &str) -> Result<LogicalPlan> {
        guard::check_text(statement)?;
        let invalid = |error| query_error(error, Code::QueryInvalid);
        let state = self.context.state();
        let statement =
            state.sql_to_statement(statement, &state.config_options().sql_parser.dialect).map_err(invalid)?;
        guard::check_kind(&statement)?;
        let plan = state.statement_to_plan(statement).await.map_err(invalid)?;
        guard::check(&plan)?;
        Ok(plan)
    }

    /// Answers a plan; `text` is what the record says was asked.
    ///
    /// # Errors
    /// `query-refused` when it is no query, `queries-busy` when too many are at work, `query-timeout`, `query-too-large`.
    pub async fn answer(&self, plan: LogicalPlan, text: &str) -> Result<Answer> {
        let mut open = self.record(text);
        let answer = self.begin(plan, &mut open).await;
        if let (Err(error), Some(open)) = (&answer, &mut open) {
            open.failed(error);
        }
        answer
    }

    /// Answers what belongs to a question that is recorded already: how many there are beside the page that was asked for.
    async fn beside(&self, plan: LogicalPlan) -> Result<Answer> {
        self.begin(plan, &mut None).await
    }

    async fn begin(&self, plan: LogicalPlan, open: &mut Option<Open>) -> Result<Answer> {
        guard::check(&plan)?;
        let (bounds, place) = match &self.somebody {
            None => (Bounds::default(), None),
            Some(somebody) => {
                let place = Arc::clone(&somebody.places).acquire_owned();
                let busy = || Error::new(Code::QueriesBusy, format!("{} queries are at work", limits::QUERIES_AT_ONCE));
                let place = tokio::time::timeout(limits::QUERY_PLACE_AWAITED, place).await.map_err(|_| busy())?;
                (somebody.bounds, Some(place.map_err(|_| busy())?))
            }
        };
        let began = Instant::now();
        let begun = async {
            let frame = self.context.execute_logical_plan(plan).await?;
            let task = Arc::new(frame.task_ctx());
            let plan = frame.create_physical_plan().await?;
            Ok((execute_stream(Arc::clone(&plan), task)?, plan))
        };
        let begun = match bounds.time {
            None => begun.await,
            Some(time) => tokio::time::timeout(time, begun).await.map_err(|_| answer::timeout(time))?,
        };
        let (stream, plan) = begun.map_err(|error| query_error(error, Code::QueryInvalid))?;
        Ok(Answer::new(stream, Gauge::of(plan), bounds, began.elapsed(), open.take(), place))
    }

    fn record(&self, text: &str) -> Option<Open> {
        self.somebody.as_ref().map(|somebody| somebody.evidence.open(&somebody.asker, text))
    }

    /// Asks in SQL: one query.
    ///
    /// # Errors
    /// Like [`Search::plan`] and [`Search::answer`].
    pub async fn sql(&self, statement: &str) -> Result<Answer> {
        let plan = self.plan(statement).await?;
        self.answer(plan, statement).await
    }

    /// A table or view, to ask by expressions.
    ///
    /// # Errors
    /// `query-invalid` when there is none of that name; `lake-unavailable`, `lake-damaged`.
    pub async fn table(&self, name: &str) -> Result<DataFrame> {
        self.context.table(name).await.map_err(|error| query_error(error, Code::QueryInvalid))
    }

    /// The file events that meet a query. `now` is what "within the last" counts back from.
    ///
    /// # Errors
    /// Like [`Search::plan`] and [`Search::answer`].
    pub async fn file_events(&self, query: &Query, selection: &Selection, now: Time) -> Result<Answer> {
        let is_risk_asked = query.asks_for_risk() || selection.asks_for_risk();
        let frame = self.table(if is_risk_asked { "events" } else { TableName::FileEvents.as_str() }).await?;
        let build = || {
            let order = selection.order().iter().map(|sort| col(sort.column.as_str()).sort(!sort.descending, false));
            let frame = frame.filter(query.expression(now))?.sort(order.collect())?;
            let frame = match (selection.offset(), selection.limit()) {
                (0, None) => frame,
                (offset, limit) => frame.limit(offset, limit)?,
            };
            match selection.columns() {
                [] => Ok(frame),
                columns => frame.select_columns(&columns.iter().map(String::as_str).collect::<Vec<_>>()),
            }
        };
        let frame: DataFrame = build().map_err(|error| query_error(error, Code::QueryInvalid))?;
        self.answer(frame.into_unoptimized_plan(), &query.sql(selection, now)).await
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
        self.answer(frame.into_unoptimized_plan(), table.as_str()).await?.objects().await
    }
}

/// What a failure of the engine means. Its text names columns and statements, never secrets.
fn query_error(error: DataFusionError, code: Code) -> Error {
    let code = match error.find_root() {
        DataFusionError::ObjectStore(_) => Code::LakeUnavailable,
        DataFusionError::ParquetError(_) => Code::LakeDamaged,
        DataFusionError::ResourcesExhausted(_) => Code::QueryTooLarge,
        // What a query has too much of goes to the temporary directory.
        DataFusionError::IoError(cause) if cause.kind() == ErrorKind::StorageFull => Code::QueryTooLarge,
        DataFusionError::ArrowError(cause, _) if is_disk_full(cause) => Code::QueryTooLarge,
        DataFusionError::External(cause) => cause.downcast_ref::<Error>().map_or(code, Error::code),
        _ => code,
    };
    Error::new(code, error.strip_backtrace()).caused_by(error)
}

fn is_disk_full(error: &ArrowError) -> bool {
    // As an error of its own where a file is written, and within a text where the library wraps it.
    let ArrowError::IoError(text, cause) = error else { return false };
    cause.kind() == ErrorKind::StorageFull || text.contains("No space left on device")
}

#[cfg(test)]
mod tests {
    use arrow::array::RecordBatch;
    use arrow::util::display::array_value_to_string;
    use datafusion::datasource::MemTable;

    use super::*;

    /// A table `t` of two partitions, whose rows come so many at once.
    pub(super) fn register<R>(
        context: &SessionContext,
        rows: &[R],
        at_once: usize,
        batch: impl Fn(&[R]) -> RecordBatch,
    ) {
        let (left, right) = rows.split_at(rows.len() / 2);
        let slices = |rows: &[R]| rows.chunks(at_once).map(&batch).collect::<Vec<_>>();
        let table = MemTable::try_new(batch(&[]).schema(), vec![slices(left), slices(right)]).unwrap();
        context.register_table("t", Arc::new(table)).unwrap();
    }

    /// What two answers are compared by, whatever their order: a text of each row.
    pub(super) fn sorted_rows(batches: &[RecordBatch]) -> Vec<String> {
        let text = |batch: &RecordBatch, row| {
            let values = batch.columns().iter().map(|column| array_value_to_string(column, row).unwrap());
            values.collect::<Vec<_>>().join("|")
        };
        let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| text(batch, row)));
        let mut rows: Vec<String> = rows.collect();
        rows.sort();
        rows
    }

    #[test]
    fn a_full_disk_means_that_a_query_is_too_large_however_it_is_wrapped() {
        let full = || std::io::Error::from(ErrorKind::StorageFull);
        let wrapped =
            ArrowError::IoError("IO error: No space left on device (os error 28)".into(), std::io::Error::other("it"));
        let other = ArrowError::IoError("IO error: denied".into(), ErrorKind::PermissionDenied.into());
        for (error, code) in [
            (DataFusionError::from(full()), Code::QueryTooLarge),
            (ArrowError::IoError("write".into(), full()).into(), Code::QueryTooLarge),
            (DataFusionError::from(wrapped).context("of a sort"), Code::QueryTooLarge),
            (other.into(), Code::QueryInvalid),
        ] {
            assert_eq!(query_error(error, Code::QueryInvalid).code(), code);
        }
    }
}
