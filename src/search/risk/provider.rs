//! The table `events`: `file_events` with the risk of each event beside it.
//!
//! Who asks for no risk column gets the scan of `file_events` and nothing else. Otherwise a plan is made of the parts
//! that the asked columns and the rules in force need:
//!
//! ```text
//!   file_events ── filters ── untrusted domains, trusted, hours ──┬─ conditions ── score, severity, indicators
//!   file_events ── uses of each destination in the days before ───┤   (only if a condition looks at them, over
//!   file_events ── bytes and files of each sender and day ────────┘    three or four columns of the days needed)
//! ```

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use chrono::{DateTime, Datelike as _, NaiveDate};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Column, JoinType, Result as PlanResult, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::functions_aggregate::expr_fn::{count, sum};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, Operator, TableProviderFilterPushDown, TableType, ident, lit, when,
};
use datafusion::physical_plan::ExecutionPlan;
use tokio::sync::OnceCell;

use super::LakeRules;
use super::history::WithHistory;
use super::rules::{Helper, Indicator, Rules};
use super::steps::Step;
use crate::event::schema::COMMENT;

/// Why an event is trusted, in the replaced product's words.
const TRUST_REASON: &str = "Trusted email recipient";

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// A column of `events` that `file_events` does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Risk {
    Score,
    Severity,
    Indicators,
    IndicatorIds,
    IndicatorWeights,
    Trusted,
    TrustReason,
    UntrustedDomains,
}

impl Risk {
    const ALL: [Self; 8] = [
        Self::Score,
        Self::Severity,
        Self::Indicators,
        Self::IndicatorIds,
        Self::IndicatorWeights,
        Self::Trusted,
        Self::TrustReason,
        Self::UntrustedDomains,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Score => "risk_score",
            Self::Severity => "risk_severity",
            Self::Indicators => "risk_indicators",
            Self::IndicatorIds => "risk_indicator_ids",
            Self::IndicatorWeights => "risk_indicator_weights",
            Self::Trusted => "trusted",
            Self::TrustReason => "trust_reason",
            Self::UntrustedDomains => "untrusted_domains",
        }
    }

    fn kind(self) -> DataType {
        let list = |of| DataType::List(Arc::new(Field::new_list_field(of, true)));
        match self {
            Self::Score => DataType::Int64,
            Self::Severity | Self::TrustReason => DataType::Utf8,
            Self::Indicators | Self::IndicatorIds | Self::UntrustedDomains => list(DataType::Utf8),
            Self::IndicatorWeights => list(DataType::Int64),
            Self::Trusted => DataType::Boolean,
        }
    }

    /// What it tells, for catalogs.
    fn description(self) -> &'static str {
        match self {
            Self::Score => "Sum of the weights of the risk indicators; 0 for a trusted event.",
            Self::Severity => "Severity of the score: `CRITICAL`, `HIGH`, `MODERATE`, `LOW` or `NO_RISK_INDICATED`.",
            Self::Indicators => "Names of the risk indicators that hold, as the rules order them; empty when trusted.",
            Self::IndicatorIds => "Ids of the risk indicators, in the same order.",
            Self::IndicatorWeights => "Weights of the risk indicators, in the same order.",
            Self::Trusted => "Whether it has a recipient domain and each of them was trusted when it was sent.",
            Self::TrustReason => "`Trusted email recipient` when trusted; null otherwise.",
            Self::UntrustedDomains => "Recipient domains that were not trusted when it was sent.",
        }
    }

    /// Whether it depends on the indicators, and not on trust alone.
    fn needs_indicators(self) -> bool {
        match self {
            Self::Score | Self::Severity | Self::Indicators | Self::IndicatorIds | Self::IndicatorWeights => true,
            Self::Trusted | Self::TrustReason | Self::UntrustedDomains => false,
        }
    }
}

/// `events` over what somebody may see of `file_events`, by the rules at the time when it was first asked for risk.
#[derive(Debug)]
pub(in crate::search) struct EventsTable {
    base: Arc<dyn TableProvider>,
    rules: Arc<LakeRules>,
    in_force: OnceCell<Arc<Rules>>,
    schema: SchemaRef,
}

/// The table `events` over `file_events`.
pub(in crate::search) fn events_table(base: Arc<dyn TableProvider>, rules: Arc<LakeRules>) -> Arc<dyn TableProvider> {
    let mut fields = base.schema().fields().to_vec();
    fields.extend(Risk::ALL.map(|risk| {
        let comment = HashMap::from([(COMMENT.to_owned(), risk.description().to_owned())]);
        Arc::new(Field::new(risk.name(), risk.kind(), true).with_metadata(comment))
    }));
    let schema = Arc::new(Schema::new(fields));
    Arc::new(EventsTable { base, rules, in_force: OnceCell::new(), schema })
}

impl EventsTable {
    fn is_about_risk(filter: &Expr) -> bool {
        filter.column_refs().iter().any(|column| Risk::ALL.iter().any(|risk| risk.name() == column.name))
    }
}

#[async_trait]
impl TableProvider for EventsTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> PlanResult<Vec<TableProviderFilterPushDown>> {
        let one = |filter: &&Expr| {
            if Self::is_about_risk(filter) {
                return Ok(TableProviderFilterPushDown::Unsupported);
            }
            let answer = self.base.supports_filters_pushdown(&[filter])?;
            Ok(answer.into_iter().next().unwrap_or(TableProviderFilterPushDown::Unsupported))
        };
        filters.iter().map(one).collect()
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let base_columns = self.base.schema().fields().len();
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let wanted = projection.unwrap_or(&all);
        if wanted.iter().all(|place| *place < base_columns) && !filters.iter().any(Self::is_about_risk) {
            return self.base.scan(state, projection, filters, limit).await;
        }
        let rules = self.in_force.get_or_try_init(|| self.rules.newest()).await;
        let rules = rules.map_err(|error| DataFusionError::External(Box::new(error)))?;
        let names: Vec<&str> = wanted.iter().map(|place| self.schema.field(*place).name().as_str()).collect();
        let plan = Pipeline { base: &self.base, rules, filters }.plan(&names, limit)?;
        // This plan becomes a part of the asker's, and is optimised again with it: joins may change sides then, which
        // they cannot once filters are made from them.
        let Some(session) = state.as_any().downcast_ref::<SessionState>() else {
            return state.create_physical_plan(&plan).await;
        };
        let mut session = session.clone();
        session.config_mut().options_mut().optimizer.enable_join_dynamic_filter_pushdown = false;
        session.create_physical_plan(&plan).await
    }
}

/// The plan of one scan.
struct Pipeline<'a> {
    base: &'a Arc<dyn TableProvider>,
    rules: &'a Rules,
    filters: &'a [Expr],
}

impl Pipeline<'_> {
    fn plan(&self, wanted: &[&str], limit: Option<usize>) -> PlanResult<LogicalPlan> {
        let asked: BTreeSet<Risk> = Risk::ALL.into_iter().filter(|risk| wanted.contains(&risk.name())).collect();
        let needs_indicators = asked.iter().any(|risk| risk.needs_indicators());
        let helpers = if needs_indicators { self.rules.helpers() } else { BTreeSet::new() };
        let mut plan = LogicalPlanBuilder::from(self.events()?);
        if limit.is_some() {
            plan = plan.limit(0, limit)?;
        }
        plan = self.with_own_helpers(plan)?;
        if helpers.contains(&Helper::DestinationUses) {
            plan = self.with_history(plan)?;
        }
        if helpers.contains(&Helper::BytesThatDay) || helpers.contains(&Helper::FilesThatDay) {
            plan = self.with_volume(plan)?;
        }
        let indicators: &[Indicator] = if needs_indicators { &self.rules.indicators } else { &[] };
        // Each condition once, whichever of the columns look at it.
        let mut columns = everything(&plan);
        for (place, indicator) in indicators.iter().enumerate() {
            columns.push(indicator.when.clone().alias(flag(place)));
        }
        plan = plan.project(columns)?;
        let labels = Arc::new(indicators.iter().map(|indicator| indicator.label.clone()).collect::<Vec<_>>());
        let mut flags = vec![ident(Helper::Trusted.name())];
        flags.extend((0..indicators.len()).map(|place| ident(flag(place))));
        let score = || Step::Score(Arc::clone(&labels)).call(flags.clone());
        let columns = wanted.iter().map(|name| {
            let Some(risk) = Risk::ALL.into_iter().find(|risk| risk.name() == *name) else {
                // Without its table's name, like the columns beside it.
                return Ok(Expr::Column(Column::from_name(*name)));
            };
            let value = match risk {
                Risk::Score => score(),
                Risk::Severity => Step::SeverityOf(self.rules.severity).call(vec![score()]),
                Risk::Indicators => Step::Names(Arc::clone(&labels)).call(flags.clone()),
                Risk::IndicatorIds => Step::Ids(Arc::clone(&labels)).call(flags.clone()),
                Risk::IndicatorWeights => Step::Weights(Arc::clone(&labels)).call(flags.clone()),
                Risk::TrustReason => when(ident(Helper::Trusted.name()), lit(TRUST_REASON)).end()?,
                Risk::Trusted | Risk::UntrustedDomains => ident(*name),
            };
            let comment = HashMap::from([(COMMENT.to_owned(), risk.description().to_owned())]);
            Ok(value.alias_with_metadata(*name, Some(comment.into())))
        });
        plan.project(columns.collect::<PlanResult<Vec<_>>>()?)?.build()
    }

    fn file_events(&self) -> PlanResult<LogicalPlanBuilder> {
        LogicalPlanBuilder::scan("file_events", provider_as_source(Arc::clone(self.base)), None)
    }

    /// The events that are asked for.
    fn events(&self) -> PlanResult<LogicalPlan> {
        let plan = self.file_events()?;
        match conjunction(self.filters.to_vec()) {
            Some(filter) => plan.filter(filter)?.build(),
            None => plan.build(),
        }
    }

    fn untrusted(&self) -> Expr {
        Step::UntrustedDomains(Arc::clone(&self.rules.trust))
            .call(vec![ident("recipient_domains"), ident("observed_at")])
    }

    /// The helpers that follow from the event alone.
    fn with_own_helpers(&self, plan: LogicalPlanBuilder) -> PlanResult<LogicalPlanBuilder> {
        let untrusted = Helper::UntrustedDomains.name();
        let mut columns = everything(&plan);
        columns.push(self.untrusted().alias(untrusted));
        let plan = plan.project(columns)?;
        let mut columns = everything(&plan);
        let domains = vec![ident("recipient_domains"), ident(untrusted)];
        columns.push(Step::Trusted.call(domains).alias(Helper::Trusted.name()));
        columns.push(Step::HasPersonalDomain.call(vec![ident(untrusted)]).alias(Helper::HasPersonalDomain.name()));
        let hours = Step::IsOffHours(self.rules.hours.clone());
        columns.push(hours.call(vec![ident("observed_at")]).alias(Helper::IsOffHours.name()));
        plan.project(columns)
    }

    /// How often the sender used the least used of the untrusted destinations in the days before, this time included.
    ///
    /// A message is known by its sender, its time and where it went, so that its attachments count once.
    fn with_history(&self, events: LogicalPlanBuilder) -> PlanResult<LogicalPlanBuilder> {
        let back = i64::from(self.rules.history_days) * DAY;
        let bounds = Bounds::of(self.filters);
        let before = Bounds { from: bounds.from.map(|from| from.saturating_sub(back)), to: bounds.to };
        let past = before.limit(self.file_events()?)?.filter(ident("sender").is_not_null())?.project([
            ident("sender").alias("past_sender"),
            ident("observed_at").alias("past_time"),
            self.untrusted().alias("past_domains"),
        ])?;
        let past = self.of_same_senders(past, "past_sender")?.build()?;
        let events = WithHistory::new(events.build()?, past, back);
        LogicalPlanBuilder::scan("events_with_history", provider_as_source(Arc::new(events)), None)
    }

    /// What the sender sent on that day to where it is not trusted.
    fn with_volume(&self, events: LogicalPlanBuilder) -> PlanResult<LogicalPlanBuilder> {
        let Bounds { from, to } = Bounds::of(self.filters);
        // Whole days, since the day of an event counts as a whole.
        let days = Bounds {
            from: from.map(|from| from.div_euclid(DAY).saturating_mul(DAY)),
            to: to.map(|to| to.div_euclid(DAY).saturating_mul(DAY).saturating_add(DAY - 1)),
        };
        let files = days.limit(self.file_events()?)?.filter(ident("sender").is_not_null())?;
        let files = files
            .project([
                ident("sender").alias("day_sender"),
                ident("event_date").alias("day_date"),
                ident("file_size_bytes").alias("day_bytes"),
                Step::Trusted.call(vec![ident("recipient_domains"), self.untrusted()]).alias("day_trusted"),
            ])?
            .filter(ident("day_trusted").is_not_true())?;
        let volume = self.of_same_senders(files, "day_sender")?.aggregate(
            [ident("day_sender"), ident("day_date")],
            [
                sum(ident("day_bytes")).alias(Helper::BytesThatDay.name()),
                count(lit(1_i64)).alias(Helper::FilesThatDay.name()),
            ],
        )?;
        let day = vec!["day_sender", "day_date"];
        volume.join(events.build()?, JoinType::Right, (day, vec!["sender", "event_date"]), None)
    }

    /// Where the question is about some events only, the others of their senders are enough.
    fn of_same_senders(&self, plan: LogicalPlanBuilder, column: &str) -> PlanResult<LogicalPlanBuilder> {
        let is_time = |filter| Bounds::of(std::slice::from_ref(filter)).is_any();
        if self.filters.iter().flat_map(split_conjunction).all(is_time) {
            return Ok(plan);
        }
        let senders = LogicalPlanBuilder::from(self.events()?).project([ident("sender").alias("asked_sender")])?;
        plan.join(senders.distinct()?.build()?, JoinType::LeftSemi, (vec![column], vec!["asked_sender"]), None)
    }
}

/// Every column of a plan.
fn everything(plan: &LogicalPlanBuilder) -> Vec<Expr> {
    plan.schema().columns().into_iter().map(Expr::Column).collect()
}

fn flag(place: usize) -> String {
    format!("indicator_{place}")
}

/// Between which times, in microseconds since 1970 UTC, both included, the events of a question were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bounds {
    from: Option<i64>,
    to: Option<i64>,
}

impl Bounds {
    /// As far as conditions on `observed_at` and `event_date` that must all hold say it plainly.
    fn of(filters: &[Expr]) -> Self {
        let mut bounds = Self::default();
        for filter in filters.iter().flat_map(split_conjunction) {
            match filter {
                Expr::BinaryExpr(binary) => {
                    let (column, operator, value) = match (&*binary.left, &*binary.right) {
                        (Expr::Column(column), Expr::Literal(value, _)) => (column, Some(binary.op), value),
                        (Expr::Literal(value, _), Expr::Column(column)) => (column, binary.op.swap(), value),
                        _ => continue,
                    };
                    let Some((first, last)) = instants(&column.name, value) else { continue };
                    match operator {
                        Some(Operator::Eq) => bounds.narrow(Some(first), Some(last)),
                        Some(Operator::Gt | Operator::GtEq) => bounds.narrow(Some(first), None),
                        Some(Operator::Lt | Operator::LtEq) => bounds.narrow(None, Some(last)),
                        _ => {}
                    }
                }
                Expr::Between(between) if !between.negated => {
                    let Expr::Column(column) = &*between.expr else { continue };
                    let of = |expr: &Expr| match expr {
                        Expr::Literal(value, _) => instants(&column.name, value),
                        _ => None,
                    };
                    bounds.narrow(of(&between.low).map(|low| low.0), of(&between.high).map(|high| high.1));
                }
                _ => {}
            }
        }
        bounds
    }

    fn narrow(&mut self, from: Option<i64>, to: Option<i64>) {
        self.from = self.from.max(from);
        self.to = match (self.to, to) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }

    fn is_any(self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    /// Only what lies between them, by the partition as well.
    fn limit(self, mut plan: LogicalPlanBuilder) -> PlanResult<LogicalPlanBuilder> {
        if let Some(from) = self.from {
            plan = plan.filter(ident("observed_at").gt_eq(time(from)).and(ident("event_date").gt_eq(day(from))))?;
        }
        if let Some(to) = self.to {
            plan = plan.filter(ident("observed_at").lt_eq(time(to)).and(ident("event_date").lt_eq(day(to))))?;
        }
        Ok(plan)
    }
}

/// The first and the last microsecond that a value of such a column means.
fn instants(column: &str, value: &ScalarValue) -> Option<(i64, i64)> {
    match (column, value) {
        ("observed_at", _) => {
            let kind = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
            match value.data_type() {
                DataType::Timestamp(..) => match value.cast_to(&kind).ok()? {
                    // A nanosecond more than a microsecond is still before the next one.
                    ScalarValue::TimestampMicrosecond(Some(micros), _) => Some((micros, micros.saturating_add(1))),
                    _ => None,
                },
                _ => None,
            }
        }
        ("event_date", ScalarValue::Date32(Some(days))) => {
            let first = i64::from(*days) * DAY;
            Some((first, first + DAY - 1))
        }
        _ => None,
    }
}

fn time(micros: i64) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())))
}

fn day(micros: i64) -> Expr {
    let day = DateTime::from_timestamp_micros(micros).map(|time| time.date_naive());
    let days = day.map(|day| day.num_days_from_ce() - NaiveDate::default().num_days_from_ce());
    // A time outside the calendar is before or after every day.
    let days = days.unwrap_or(if micros < 0 { i32::MIN } else { i32::MAX });
    lit(ScalarValue::Date32(Some(days)))
}
