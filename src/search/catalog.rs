//! The lake as SQL sees it: tables that are opened when a query names them, and what a policy leaves of them.
//!
//! A table's log is read once and then only followed, and the list of its files is made once for a version; so a query
//! on a table that has not changed costs one small request to the storage before it reads data: whether the next version
//! is there.

use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::{Result as PlanResult, ScalarValue};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableType, lit};
use datafusion::prelude::col;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OnceCell};

use super::bloom::Blooms;
use super::risk::{LakeRules, events_table};
use super::scan::LakeTable;
use super::{query_error, views};
use crate::error::{Code, Error, Result};
use crate::event::schema::{TableName, table};
use crate::lake::{Lake, Table};

/// What somebody may see of the lake. Without any limit, all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Only rows of these connections, by id or display name. Whoever has such a limit sees neither raw audit records nor
    /// what others did: only file events, runs and gaps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<Vec<String>>,
    /// Columns of file events whose values they do not see; as if they were empty. Not even a filter can guess at them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden_columns: Vec<String>,
}

impl Policy {
    /// Whether it keeps anything from anybody.
    pub fn is_limit(&self) -> bool {
        self.connections.is_some() || !self.hidden_columns.is_empty()
    }

    /// Fails when it names a column that file events do not have: a mistyped name would hide nothing.
    ///
    /// # Errors
    /// `configuration`.
    pub fn check(&self) -> Result<()> {
        let events = table(TableName::FileEvents);
        match self.hidden_columns.iter().find(|name| events.column(name).is_none()) {
            Some(name) => Err(Error::new(Code::Configuration, format!("`file_events` has no column `{name}` to hide"))),
            None => Ok(()),
        }
    }

    fn may_see(&self, name: TableName) -> bool {
        !self.is_limit() || matches!(name, TableName::FileEvents | TableName::Runs | TableName::Gaps)
    }
}

/// The tables of a lake, as far as they were opened.
#[derive(Debug)]
pub(super) struct Tables {
    lake: Lake,
    runtime: Arc<RuntimeEnv>,
    rules: Arc<LakeRules>,
    opened: [Mutex<Option<Opened>>; TableName::ALL.len()],
    /// Only file events have bloom filters.
    blooms: Arc<Blooms>,
}

struct Opened {
    table: Table,
    provider: Arc<LakeTable>,
    /// When somebody last began to look whether there is a newer version.
    looked: Instant,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at version {}", self.table.name(), self.table.version())
    }
}

impl Tables {
    /// Nothing is asked of the storage yet. The stores of the tables are registered with `runtime`.
    pub(super) fn of(lake: Lake, runtime: Arc<RuntimeEnv>) -> Self {
        let (opened, rules) = (std::array::from_fn(|_| Mutex::default()), Arc::new(LakeRules::of(lake.clone())));
        Self { lake, runtime, rules, opened, blooms: Arc::default() }
    }

    /// A table at a version no older than its newest one at `since`; nothing where the lake is older than the table.
    pub(super) async fn newest(&self, name: TableName, since: Instant) -> Result<Option<Arc<LakeTable>>> {
        let place = TableName::ALL.iter().position(|other| *other == name).unwrap_or_default();
        let mut place = self.opened[place].lock().await;
        let looked = Instant::now();
        if let Some(opened) = place.as_mut() {
            if opened.looked >= since {
                return Ok(Some(Arc::clone(&opened.provider)));
            }
            let before = opened.table.version();
            match opened.table.catch_up().await {
                Ok(()) => {
                    if opened.table.version() != before {
                        opened.provider = self.provider(&opened.table).await?;
                    }
                    opened.looked = looked;
                    return Ok(Some(Arc::clone(&opened.provider)));
                }
                // What was known cannot be followed, for instance since the log was tidied meanwhile: begin anew.
                Err(_) => *place = None,
            }
        }
        let Some(table) = self.lake.table_if_there(name).await? else { return Ok(None) };
        let provider = self.provider(&table).await?;
        *place = Some(Opened { table, provider: Arc::clone(&provider), looked });
        Ok(Some(provider))
    }

    async fn provider(&self, table: &Table) -> Result<Arc<LakeTable>> {
        let url = format!("waybill://{}", table.name().as_str().replace('_', "-"));
        let url = ObjectStoreUrl::parse(url).map_err(|error| query_error(error, Code::Internal))?;
        self.runtime.register_object_store(url.as_ref(), table.store());
        let blooms = match table.name() {
            TableName::FileEvents => Arc::clone(&self.blooms),
            _ => Arc::default(),
        };
        Ok(Arc::new(LakeTable::open(table, url, blooms).await?))
    }

    /// Whether the lake is not on this machine.
    pub(super) fn are_far(&self) -> bool {
        self.lake.url().scheme() != "file"
    }

    /// Fails unless the lake is there, or was there when somebody asked before.
    pub(super) async fn require(&self, since: Instant) -> Result<()> {
        // In the order of `TableName::ALL`, in which file events are first.
        let [file_events, ..] = &self.opened;
        if file_events.lock().await.is_some() {
            return Ok(());
        }
        match self.newest(TableName::FileEvents, since).await? {
            Some(_) => Ok(()),
            None => self.lake.require().await,
        }
    }
}

/// The schema `public` of one session: each table stays at the version at which the session first named it.
#[derive(Debug)]
pub(super) struct LakeSchema {
    tables: Arc<Tables>,
    policy: Arc<Policy>,
    /// When the session began: what was committed before, it sees.
    since: Instant,
    seen: [OnceCell<Arc<dyn TableProvider>>; TableName::ALL.len()],
    events: OnceCell<Arc<dyn TableProvider>>,
    /// The functions that views call.
    state: SessionState,
}

/// The view of `file_events` with the risk of each.
const EVENTS: &str = "events";

impl LakeSchema {
    pub(super) fn new(tables: Arc<Tables>, policy: Arc<Policy>, since: Instant, state: SessionState) -> Self {
        Self { tables, policy, since, seen: std::array::from_fn(|_| OnceCell::new()), events: OnceCell::new(), state }
    }

    fn place(&self, name: &str) -> Option<usize> {
        TableName::ALL.iter().position(|table| table.as_str() == name && self.policy.may_see(*table))
    }

    async fn open(&self, name: TableName) -> Result<Arc<dyn TableProvider>> {
        let provider: Arc<dyn TableProvider> = match self.tables.newest(name, self.since).await? {
            Some(table) => table,
            // A lake of an older Waybill has fewer tables; the next run brings them, and until then they are empty.
            None => Arc::new(EmptyTable::new(table(name).arrow_schema())),
        };
        if !self.policy.is_limit() {
            return Ok(provider);
        }
        limited(name, provider, &self.policy).map_err(|error| query_error(error, Code::Internal))
    }
}

#[async_trait]
impl SchemaProvider for LakeSchema {
    fn table_names(&self) -> Vec<String> {
        TableName::ALL
            .iter()
            .filter(|table| self.policy.may_see(**table))
            .map(|table| table.as_str().to_owned())
            .chain([EVENTS.to_owned()])
            .chain(views::names().map(str::to_owned))
            .collect()
    }

    async fn table(&self, name: &str) -> PlanResult<Option<Arc<dyn TableProvider>>> {
        if name == EVENTS {
            // What a policy hides of file events is hidden here, too: the risk is that of what is left.
            let made = self.events.get_or_try_init(async || {
                let base = self.table(TableName::FileEvents.as_str()).await?;
                let missing = || DataFusionError::Internal("the lake has no file events".to_owned());
                Ok::<_, DataFusionError>(events_table(base.ok_or_else(missing)?, Arc::clone(&self.tables.rules)))
            });
            return made.await.map(|table| Some(Arc::clone(table)));
        }
        if let Some(view) = views::find(name) {
            let mut below = Vec::new();
            for table in [TableName::FileEvents.as_str(), EVENTS] {
                let missing = || DataFusionError::Internal(format!("the lake has no `{table}`"));
                below.push((table, self.table(table).await?.ok_or_else(missing)?));
            }
            return views::table(view, name, below, &self.state).await.map(Some);
        }
        let Some(place) = self.place(name) else { return Ok(None) };
        let opened = self.seen[place].get_or_try_init(|| self.open(TableName::ALL[place])).await;
        opened.map(|table| Some(Arc::clone(table))).map_err(|error| DataFusionError::External(Box::new(error)))
    }

    async fn table_type(&self, name: &str) -> PlanResult<Option<TableType>> {
        Ok(match name {
            EVENTS => Some(TableType::View),
            name if views::find(name).is_some() => Some(TableType::View),
            name => self.place(name).map(|_| TableType::Base),
        })
    }

    fn table_exist(&self, name: &str) -> bool {
        name == EVENTS || views::find(name).is_some() || self.place(name).is_some()
    }
}

/// What a policy leaves of a table: other rows are filtered out and hidden values replaced below everything that a
/// question can say, so that no filter, function or view of it reaches them.
fn limited(name: TableName, base: Arc<dyn TableProvider>, policy: &Policy) -> PlanResult<Arc<dyn TableProvider>> {
    let schema: SchemaRef = base.schema();
    let mut plan = LogicalPlanBuilder::scan(name.as_str(), provider_as_source(base), None)?;
    if let Some(connections) = &policy.connections {
        let is_one_of = |column: &str| col(column).in_list(connections.iter().map(lit).collect(), false);
        plan = plan.filter(is_one_of("connection_id").or(is_one_of("connection_name")))?;
    }
    let columns = schema.fields().iter().map(|field| {
        let is_hidden = name == TableName::FileEvents && policy.hidden_columns.contains(field.name());
        if !is_hidden {
            return Ok(col(field.name()));
        }
        let nothing = ScalarValue::try_new_null(field.data_type())?;
        Ok(Expr::Literal(nothing, None).alias_with_metadata(field.name(), Some(field.metadata().into())))
    });
    let plan = plan.project(columns.collect::<PlanResult<Vec<_>>>()?)?.build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}
