//! Groups by day, where each file holds one day.
//!
//! The day is the same for all rows of a file, and DataFusion looks each row's group up in a hash table all the same: a third of
//! a query that sums one column of the lake. Here a file's rows go to the groups of its day as they come, by what else they are
//! grouped by, if anything; with the next day the groups of the last are told:
//!
//! ```text
//!   rows      2 Nov pdf, 2 Nov zip, 2 Nov pdf, …        3 Nov zip, …
//!   groups    pdf: count, sum    zip: count, sum   ──▶   zip: count, sum
//! ```
//!
//! Only the first stage of a `GROUP BY` is another; DataFusion merges what those of all cores tell, of a day or more than once
//! of the same.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::partition;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Result as PlanResult, ScalarValue, internal_err};
use datafusion::config::{ConfigOptions, ExecutionOptions};
use datafusion::datasource::physical_plan::ParquetSource;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, aggregate_expressions, evaluate_many};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, InputOrderMode, PlanProperties, replace_children_if_necessary,
};
use futures::future::ready;
use futures::{StreamExt as _, TryStreamExt as _};

use super::first_files::column_of_file;

/// Replaces the first stage of a group by day right above a scan.
#[derive(Debug)]
pub(super) struct ByDay;

impl PhysicalOptimizerRule for ByDay {
    fn name(&self) -> &str {
        "by_day"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let replaced = plan.transform_down(|plan| match plan.downcast_ref::<AggregateExec>().and_then(ByDayExec::of) {
            Some(by_day) => Ok(Transformed::yes(Arc::new(by_day))),
            None => Ok(Transformed::no(plan)),
        });
        replaced.data()
    }
}

/// Aggregates whose state is a number or two, or one value.
const SMALL: [&str; 5] = ["count", "sum", "min", "max", "avg"];

#[derive(Debug)]
struct ByDayExec {
    stage: AggregateExec,
    /// Which of the columns that it groups by is the day.
    day: usize,
}

impl ByDayExec {
    /// The same as this stage; nothing where it groups by no column that is the same in all of a file, or where the
    /// aggregates of a group might need much memory, which DataFusion's stage knows how to spare.
    fn of(stage: &AggregateExec) -> Option<Self> {
        let is_first = *stage.mode() == AggregateMode::Partial && *stage.input_order_mode() == InputOrderMode::Linear;
        let (scan, _) = stage.input().downcast_ref::<DataSourceExec>()?.downcast_to_file_source::<ParquetSource>()?;
        let of_rows = scan.file_schema().fields().len();
        let is_of_file = |by: &Arc<dyn PhysicalExpr>| column_of_file(scan, by).is_some_and(|column| column >= of_rows);
        let day = stage.group_expr().expr().iter().position(|(by, _)| is_of_file(by))?;
        let is_small = |aggregate: &AggregateFunctionExpr| {
            SMALL.contains(&aggregate.fun().name())
                && !aggregate.is_distinct()
                && aggregate.order_bys().is_empty()
                && aggregate.groups_accumulator_supported()
        };
        let are_small = stage.aggr_expr().iter().all(|aggregate| is_small(aggregate));
        let counts_all = stage.filter_expr().iter().all(Option::is_none) && stage.limit_options().is_none();
        let is_plain = is_first && stage.group_expr().is_single();
        (is_plain && are_small && counts_all).then(|| Self { stage: stage.clone(), day })
    }
}

impl DisplayAs for ByDayExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByDayExec: ")?;
        self.stage.fmt_as(kind, f)
    }
}

impl ExecutionPlan for ByDayExec {
    fn name(&self) -> &str {
        "ByDayExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.stage.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.stage.children()
    }

    fn apply_expressions(
        &self,
        each: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> PlanResult<TreeNodeRecursion>,
    ) -> PlanResult<TreeNodeRecursion> {
        self.stage.apply_expressions(each)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let stage = replace_children_if_necessary(Arc::new(self.stage.clone()), children)?;
        match stage.downcast_ref::<AggregateExec>() {
            Some(stage) => Ok(Arc::new(Self { stage: stage.clone(), day: self.day })),
            None => internal_err!("an aggregate with another input is something else"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> PlanResult<SendableRecordBatchStream> {
        let memory = MemoryConsumer::new(format!("ByDayExec[{partition}]")).register(context.memory_pool());
        let mut days = Days::new(self, &context.session_config().options().execution, memory)?;
        let rows = self.stage.input().execute(partition, context)?;
        // With nothing after the last rows, what there is of their day.
        let rows = rows.map_ok(Some).chain(futures::stream::once(async { Ok(None) }));
        let told = rows.and_then(move |rows| {
            let told = match rows {
                Some(rows) => days.see(&rows),
                None => days.tell().map(Vec::from_iter),
            };
            ready(told.map(|batches| futures::stream::iter(batches.into_iter().map(Ok))))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), told.try_flatten())))
    }
}

/// The groups of one day after the other.
struct Days {
    /// What the rows are grouped by, and which of it is the day.
    by: Vec<Arc<dyn PhysicalExpr>>,
    place: usize,
    /// Of each aggregate.
    arguments: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    told_as: SchemaRef,
    day: Option<ScalarValue>,
    groups: Groups,
    memory: MemoryReservation,
    worth: Worth,
}

impl Days {
    fn new(plan: &ByDayExec, options: &ExecutionOptions, memory: MemoryReservation) -> PlanResult<Self> {
        let (stage, aggregates) = (&plan.stage, plan.stage.aggr_expr());
        let by: Vec<_> = stage.group_expr().expr().iter().map(|(by, _)| Arc::clone(by)).collect();
        let mut others = stage.schema().fields()[..by.len()].to_vec();
        others.remove(plan.day);
        Ok(Self {
            groups: Groups::new(others, aggregates)?,
            arguments: aggregate_expressions(aggregates, stage.mode(), by.len())?,
            by,
            place: plan.day,
            told_as: stage.schema(),
            day: None,
            memory,
            worth: Worth::new(options),
        })
    }

    /// Takes more rows, and tells the groups of the days that are over.
    fn see(&mut self, rows: &RecordBatch) -> PlanResult<Vec<RecordBatch>> {
        let mut by: Vec<ArrayRef> = Vec::with_capacity(self.by.len());
        for column in &self.by {
            by.push(column.evaluate(rows)?.into_array(rows.num_rows())?);
        }
        let arguments = evaluate_many(&self.arguments, rows)?;
        if self.worth.is_none {
            by.extend(self.groups.of_each(&arguments)?);
            return Ok(vec![RecordBatch::try_new(Arc::clone(&self.told_as), by)?]);
        }
        let days = by.remove(self.place);
        let mut told = Vec::new();
        for run in partition(&[Arc::clone(&days)])?.ranges() {
            let day = ScalarValue::try_from_array(&days, run.start)?;
            if self.day.as_ref() != Some(&day) {
                told.extend(self.tell()?);
                self.day = Some(day);
            }
            let part = |column: &ArrayRef| column.slice(run.start, run.len());
            let by: Vec<ArrayRef> = by.iter().map(part).collect();
            let arguments: Vec<Vec<ArrayRef>> = arguments.iter().map(|of| of.iter().map(part).collect()).collect();
            self.groups.see(run.len(), &by, &arguments)?;
        }
        self.worth.rows += rows.num_rows();
        self.worth.is_none = self.worth.is_none_with(self.groups.len());
        // The next stage merges what is told early with what is told later, so there is always a way to need less.
        if self.worth.is_none || self.memory.try_resize(self.groups.size()).is_err() {
            told.extend(self.tell()?);
        }
        Ok(told)
    }

    /// The groups of the day as the next stage takes them: what they are grouped by, and the state of each aggregate.
    fn tell(&mut self) -> PlanResult<Option<RecordBatch>> {
        let Some(day) = self.day.take() else { return Ok(None) };
        let count = self.groups.len();
        self.worth.groups_told += count;
        let mut columns = self.groups.told()?;
        columns.insert(self.place, day.to_array_of_size(count)?);
        self.memory.free();
        Ok(Some(RecordBatch::try_new(Arc::clone(&self.told_as), columns)?))
    }
}

/// Whether grouping rows early makes them fewer; where it does not, each is told as a group of its own.
struct Worth {
    rows_at_least: usize,
    groups_of_rows: f64,
    rows: usize,
    groups_told: usize,
    is_none: bool,
}

impl Worth {
    /// By DataFusion's own measure.
    fn new(options: &ExecutionOptions) -> Self {
        Self {
            rows_at_least: options.skip_partial_aggregation_probe_rows_threshold,
            groups_of_rows: options.skip_partial_aggregation_probe_ratio_threshold,
            rows: 0,
            groups_told: 0,
            is_none: false,
        }
    }

    fn is_none_with(&self, groups: usize) -> bool {
        let groups = (self.groups_told + groups) as f64;
        self.rows >= self.rows_at_least && groups > self.groups_of_rows * self.rows as f64
    }
}

/// The groups of a day.
struct Groups {
    /// What they are grouped by beside the day; nothing where that is all.
    by: Option<Box<dyn GroupValues>>,
    states: Vec<Box<dyn GroupsAccumulator>>,
    /// Of each row of a batch.
    group_of: Vec<usize>,
}

impl Groups {
    fn new(by: Vec<FieldRef>, aggregates: &[Arc<AggregateFunctionExpr>]) -> PlanResult<Self> {
        let by = match by.is_empty() {
            true => None,
            false => Some(new_group_values(Arc::new(Schema::new(by)), &GroupOrdering::None)?),
        };
        let states = aggregates.iter().map(|aggregate| aggregate.create_groups_accumulator());
        Ok(Self { by, states: states.collect::<PlanResult<_>>()?, group_of: Vec::new() })
    }

    fn see(&mut self, rows: usize, by: &[ArrayRef], arguments: &[Vec<ArrayRef>]) -> PlanResult<()> {
        match &mut self.by {
            Some(groups) => groups.intern(by, &mut self.group_of)?,
            // All zeros, always.
            None => self.group_of.resize(rows, 0),
        }
        let count = self.len();
        for (state, arguments) in self.states.iter_mut().zip(arguments) {
            state.update_batch(arguments, &self.group_of, None, count)?;
        }
        Ok(())
    }

    /// What they are grouped by, and their states; afterwards there are none.
    fn told(&mut self) -> PlanResult<Vec<ArrayRef>> {
        let (mut columns, count) = (Vec::new(), self.len());
        if let Some(groups) = &mut self.by {
            columns.extend(groups.emit(EmitTo::All)?);
            // Those by several columns would know where they were.
            groups.clear_shrink(count);
        }
        for state in &mut self.states {
            columns.extend(state.state(EmitTo::All)?);
        }
        Ok(columns)
    }

    /// The states of groups of one row each.
    fn of_each(&self, arguments: &[Vec<ArrayRef>]) -> PlanResult<Vec<ArrayRef>> {
        let mut columns = Vec::new();
        for (state, arguments) in self.states.iter().zip(arguments) {
            columns.extend(state.convert_to_state(arguments, None)?);
        }
        Ok(columns)
    }

    fn len(&self) -> usize {
        self.by.as_ref().map_or(1, |groups| groups.len())
    }

    /// Bytes.
    fn size(&self) -> usize {
        self.by.as_ref().map_or(0, |groups| groups.size()) + self.states.iter().map(|state| state.size()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, Int64Array, StringViewArray};
    use datafusion::common::resources_err;
    use datafusion::execution::memory_pool::{MemoryPool, UnboundedMemoryPool};
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;
    use datafusion::physical_expr::expressions::Column;
    use datafusion::physical_plan::collect;
    use datafusion::prelude::{SessionConfig, SessionContext};
    use proptest::prelude::*;

    use super::super::tests::{register, sorted_rows};
    use super::*;

    /// Memory of which groups by day get none.
    #[derive(Debug, Default)]
    struct Refusing(UnboundedMemoryPool);

    impl fmt::Display for Refusing {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.name())
        }
    }

    impl MemoryPool for Refusing {
        fn name(&self) -> &str {
            "refusing"
        }

        fn grow(&self, to: &MemoryReservation, bytes: usize) {
            self.0.grow(to, bytes);
        }

        fn shrink(&self, of: &MemoryReservation, bytes: usize) {
            self.0.shrink(of, bytes);
        }

        fn try_grow(&self, to: &MemoryReservation, bytes: usize) -> PlanResult<()> {
            match to.consumer().name().starts_with("ByDayExec") {
                true => resources_err!("none for you"),
                false => self.0.try_grow(to, bytes),
            }
        }

        fn reserved(&self) -> usize {
            self.0.reserved()
        }
    }

    type Row = (i32, Option<String>, Option<i64>);

    /// A session over a table `t` of two partitions.
    fn session(rows: &[Row], probe: usize, refuses: bool) -> SessionContext {
        let config = SessionConfig::new()
            .with_target_partitions(2)
            .set_usize("datafusion.execution.skip_partial_aggregation_probe_rows_threshold", probe)
            .set_str("datafusion.execution.skip_partial_aggregation_probe_ratio_threshold", "0.3");
        let pool: Arc<dyn MemoryPool> =
            if refuses { Arc::new(Refusing::default()) } else { Arc::new(UnboundedMemoryPool::default()) };
        let memory = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().unwrap();
        let context = SessionContext::new_with_config_rt(config, memory);
        let batch = |rows: &[Row]| {
            let columns: [(&str, ArrayRef, bool); 3] = [
                ("day", Arc::new(rows.iter().map(|row| Some(row.0)).collect::<Date32Array>()), true),
                ("a", Arc::new(rows.iter().map(|row| row.1.as_deref()).collect::<StringViewArray>()), true),
                ("n", Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>()), true),
            ];
            RecordBatch::try_from_iter_with_nullable(columns).unwrap()
        };
        register(&context, rows, 5, batch);
        context
    }

    const STATEMENTS: [&str; 6] = [
        "SELECT day, count(*), sum(n), min(n), avg(n) FROM t GROUP BY day",
        "SELECT day, a, count(*), sum(n), max(n), avg(n) FROM t GROUP BY day, a",
        "SELECT a, day, n, count(a) FROM t GROUP BY a, day, n",
        "SELECT upper(a), day, count(n) FROM t WHERE n > 0 GROUP BY day, upper(a)",
        "SELECT DISTINCT day FROM t",
        "SELECT DISTINCT n, day FROM t",
    ];

    /// The rows of the answer, and in how many places it was grouped by day.
    async fn ask(context: &SessionContext, statement: &str, by_day: bool) -> (Vec<String>, usize) {
        let mut plan = context.sql(statement).await.unwrap().create_physical_plan().await.unwrap();
        let mut replaced = 0;
        if by_day {
            let with = plan.transform_down(|plan| {
                let stage = plan.downcast_ref::<AggregateExec>();
                let Some(stage) = stage.filter(|stage| *stage.mode() == AggregateMode::Partial) else {
                    return Ok(Transformed::no(plan));
                };
                let is_day = |by: &Arc<dyn PhysicalExpr>| {
                    by.downcast_ref::<Column>().is_some_and(|column| column.name() == "day")
                };
                let day = stage.group_expr().expr().iter().position(|(by, _)| is_day(by)).unwrap();
                replaced += 1;
                Ok(Transformed::yes(Arc::new(ByDayExec { stage: stage.clone(), day }) as Arc<dyn ExecutionPlan>))
            });
            plan = with.data().unwrap();
        }
        (sorted_rows(&collect(plan, context.task_ctx()).await.unwrap()), replaced)
    }

    fn row() -> impl Strategy<Value = Row> {
        let text = (0..4_usize).prop_map(|n| ["", "a", "B", "a text of some length"][n].to_owned());
        (0..4, proptest::option::of(text), proptest::option::of(-2..9_i64))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Danger: rows that are lost or counted twice where a day ends or comes again, where there is no more memory, and
        /// where grouping early is given up.
        #[test]
        fn groups_are_those_of_datafusion(
            rows in proptest::collection::vec(row(), 0..60),
            are_sorted: bool,
            probe in 1..120_usize,
            refuses: bool,
        ) {
            let mut rows = rows;
            if are_sorted {
                rows.sort_by_key(|row| row.0);
            }
            let context = session(&rows, probe, refuses);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            for statement in STATEMENTS {
                let (ours, theirs) = runtime
                    .block_on(async { (ask(&context, statement, true).await, ask(&context, statement, false).await) });
                prop_assert_eq!(ours.0, theirs.0, "{}", statement);
                prop_assert_eq!(ours.1, 1, "{}", statement);
            }
        }
    }
}
