//! What all who ask share: opened tables, caches, memory, places for queries at work, and the record of searches.

use std::sync::Arc;
use std::time::Instant;

use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::optimizer::{Analyzer, AnalyzerRule, Optimizer, OptimizerRule};
use datafusion::prelude::SessionConfig;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::aggregates::AggregatesOfTexts;
use super::answer::Bounds;
use super::by_day::ByDay;
use super::catalog::{Policy, Tables};
use super::evidence::Evidence;
use super::first_files::FirstFiles;
use super::memory::QueryMemory;
use super::texts::TextsAsViews;
use super::{Search, functions, query_error};
use crate::allocator::keep_freed;
use crate::clock::Clock;
use crate::error::{Code, Result};
use crate::lake::Lake;
use crate::limits;

/// Where somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// `waybill sql`.
    Shell,
    /// `waybill search`.
    Search,
    /// `waybill export`.
    Export,
    /// The web console.
    Console,
    /// The HTTP API.
    Api,
    /// The Postgres wire protocol.
    Postgres,
    /// Arrow Flight SQL.
    Flight,
}

impl Surface {
    /// The word in the lake.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shell => "sql",
            Self::Search => "search",
            Self::Export => "export",
            Self::Console => "console",
            Self::Api => "api",
            Self::Postgres => "postgres",
            Self::Flight => "flight",
        }
    }

    /// A person at a shell may wait for as long as they like; who asks a server shares it.
    fn bounds(self) -> Bounds {
        match self {
            Self::Shell | Self::Search | Self::Export => Bounds::default(),
            // Exports of the console and of the API are whole, however many rows they have.
            Self::Console | Self::Api => Bounds { time: Some(limits::QUERY_TIME), rows: None },
            Self::Postgres | Self::Flight => Bounds { time: Some(limits::QUERY_TIME), rows: Some(limits::QUERY_ROWS) },
        }
    }
}

/// Who asks, from where, and what they may see.
#[derive(Clone, Debug)]
pub struct Asker {
    /// For the record: `ann@contoso.example`, `token:CI`, `local:root`.
    pub who: String,
    /// By which way.
    pub surface: Surface,
    /// The network address of the other side.
    pub address: Option<String>,
    /// What they may see.
    pub policy: Arc<Policy>,
}

impl Asker {
    /// A person at this machine, who may see everything.
    pub fn local(who: String, surface: Surface) -> Self {
        Self { who, surface, address: None, policy: Arc::default() }
    }
}

/// Answers everybody's questions on one lake. A clone is the same engine.
#[derive(Clone, Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    /// Ends the writing of evidence with the last clone.
    _writing: Arc<DropGuard>,
}

#[derive(Debug)]
struct Shared {
    tables: Arc<Tables>,
    state: SessionState,
    runtime: Arc<RuntimeEnv>,
    memory: QueryMemory,
    places: Arc<Semaphore>,
    evidence: Arc<Evidence>,
}

impl Engine {
    /// An engine over a lake for many who ask at once; nothing is asked of the storage yet. Call it within a Tokio runtime:
    /// searches are recorded in the background.
    ///
    /// # Errors
    /// `internal` when the query engine cannot be set up.
    pub fn new(lake: Lake, clock: Clock) -> Result<Self> {
        Self::with_memory(lake, clock, QueryMemory::shared())
    }

    /// The same with so much memory for each query.
    ///
    /// # Errors
    /// `internal` when the query engine cannot be set up.
    pub fn with_memory(lake: Lake, clock: Clock, memory: QueryMemory) -> Result<Self> {
        // A query that groups millions of rows frees and takes hundreds of megabytes a second; when they go back to the
        // system in between, a quarter of its time is the system clearing pages.
        keep_freed(limits::QUERY_FREED_MEMORY_KEPT);
        let runtime = runtime()?;
        let evidence = Arc::new(Evidence::new(lake.clone(), clock));
        let stop = CancellationToken::new();
        let (stopped, writer) = (stop.clone(), Arc::clone(&evidence));
        tokio::spawn(async move {
            while stopped.run_until_cancelled(tokio::time::sleep(limits::SEARCHES_WRITTEN_EVERY)).await.is_some() {
                if let Err(error) = writer.write().await {
                    tracing::warn!(code = %error.code(), %error, "searches could not be recorded yet");
                }
            }
        });
        let shared = Shared {
            tables: Arc::new(Tables::of(lake, Arc::clone(&runtime))),
            state: state(),
            runtime,
            memory,
            places: Arc::new(Semaphore::new(limits::QUERIES_AT_ONCE)),
            evidence,
        };
        Ok(Self { shared: Arc::new(shared), _writing: Arc::new(stop.drop_guard()) })
    }

    /// Opens the lake at its newest version for somebody's questions.
    ///
    /// # Errors
    /// `no-lake`, `lake-unavailable`, `lake-damaged`; `lake-not-writable` when searches cannot be recorded.
    pub async fn search(&self, asker: &Asker) -> Result<Search> {
        let shared = &self.shared;
        shared.evidence.require()?;
        let since = Instant::now();
        shared.tables.require(since).await?;
        let (tables, policy) = (Arc::clone(&shared.tables), Arc::clone(&asker.policy));
        let runtime = runtime_of_one(&shared.runtime, shared.memory)?;
        Search::new(&shared.state, runtime, tables, policy, since).map(|search| {
            search.for_somebody(
                asker.clone(),
                asker.surface.bounds(),
                Arc::clone(&shared.evidence),
                Arc::clone(&shared.places),
            )
        })
    }

    /// Writes the searches that are not in the lake yet.
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-not-writable`, `lake-damaged`.
    pub async fn close(&self) -> Result<()> {
        self.shared.evidence.write().await
    }
}

/// What all queries share: caches and the stores of the tables.
pub(super) fn runtime() -> Result<Arc<RuntimeEnv>> {
    RuntimeEnvBuilder::new()
        .with_metadata_cache_limit(limits::QUERY_CACHE_BYTES)
        .with_max_temp_directory_size(limits::QUERY_SPILL_BYTES)
        .build_arc()
        .map_err(|error| query_error(error, Code::Internal))
}

/// The same with memory of its own, for one session.
pub(super) fn runtime_of_one(shared: &RuntimeEnv, memory: QueryMemory) -> Result<Arc<RuntimeEnv>> {
    RuntimeEnvBuilder::from_runtime_env(shared)
        .with_memory_pool(memory.pool())
        .build_arc()
        .map_err(|error| query_error(error, Code::Internal))
}

/// Settings and functions of every session.
pub(super) fn state() -> SessionState {
    let config = SessionConfig::new()
        .with_information_schema(true)
        .with_create_default_catalog_and_schema(false)
        .set_str("datafusion.catalog.default_catalog", "waybill")
        .set_str("datafusion.catalog.default_schema", "public")
        // Rows that a filter drops are not decoded; bloom filters and the page index answer look-ups by hash.
        .set_bool("datafusion.execution.parquet.pushdown_filters", true)
        .set_bool("datafusion.execution.parquet.reorder_filters", true)
        .set_bool("datafusion.execution.parquet.bloom_filter_on_read", true)
        // DataFusion 55 fails to plan `SELECT * … ORDER BY an['element']` with it, and only tables with objects gain from it.
        .set_bool("datafusion.optimizer.enable_leaf_expression_pushdown", false)
        // Whether it helps to group rows before they are spread over the cores shows early: by a hash it never does.
        .set_usize("datafusion.execution.skip_partial_aggregation_probe_rows_threshold", limits::QUERY_PROBED_ROWS)
        // Hashes and names take half of the disk then.
        .set_str("datafusion.execution.spill_compression", "lz4_frame")
        .set_str("datafusion.execution.time_zone", "UTC");
    // What takes the types of the tables comes before the decision on types.
    let mut analysis: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![Arc::new(TextsAsViews)];
    analysis.extend(Analyzer::new().rules);
    // DataFusion's own rules would see distinct counts first, and take some of them.
    let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![Arc::new(AggregatesOfTexts)];
    rules.extend(Optimizer::new().rules);
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_analyzer_rules(analysis)
        .with_optimizer_rules(rules)
        .with_physical_optimizer_rule(Arc::new(FirstFiles))
        .with_physical_optimizer_rule(Arc::new(ByDay))
        .build();
    functions::restrict(&mut state);
    if let Err(error) = functions::register(&mut state) {
        // Only a session that is shared read-only refuses, and this one is new.
        tracing::error!(%error, "functions of Waybill are missing");
    }
    state
}
