//! Groups by day, where each file holds one day.
//!
//! The day is the same for all rows of a file, and DataFusion looks each row's group up in a hash table all the same: a third of
//! a query that sums one column of the lake. Here the rows of a day go to the aggregates of that day as they come:
//!
//! ```text
//!   batch        [2 Nov, 2 Nov, 2 Nov, …]     [3 Nov, 3 Nov, …]
//!   aggregates    2 Nov: count, sum ◀── all    3 Nov: count, sum ◀── all
//! ```
//!
//! Only the first stage of a `GROUP BY` is another; DataFusion merges what those of all cores tell.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::partition;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Result as PlanResult, ScalarValue, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::datasource::physical_plan::ParquetSource;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{
    AccumulatorItem, AggregateExec, AggregateMode, aggregate_expressions, create_accumulators, evaluate_many,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, InputOrderMode, PlanProperties, replace_children_if_necessary,
};
use futures::TryStreamExt as _;

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
    day: Arc<dyn PhysicalExpr>,
}

impl ByDayExec {
    /// The same as this stage; nothing where it groups by anything else than a column that is the same in all of a file, or
    /// where the aggregates of a day might need much memory, which DataFusion's stage knows how to spare.
    fn of(stage: &AggregateExec) -> Option<Self> {
        let is_first = *stage.mode() == AggregateMode::Partial && *stage.input_order_mode() == InputOrderMode::Linear;
        let ([(day, _)], true) = (stage.group_expr().expr(), stage.group_expr().is_single()) else { return None };
        let (scan, _) = stage.input().downcast_ref::<DataSourceExec>()?.downcast_to_file_source::<ParquetSource>()?;
        let is_of_file = column_of_file(scan, day)? >= scan.file_schema().fields().len();
        let is_small = |aggregate: &AggregateFunctionExpr| {
            SMALL.contains(&aggregate.fun().name()) && !aggregate.is_distinct() && aggregate.order_bys().is_empty()
        };
        let are_small = stage.aggr_expr().iter().all(|aggregate| is_small(aggregate));
        let counts_all = stage.filter_expr().iter().all(Option::is_none) && stage.limit_options().is_none();
        (is_first && is_of_file && are_small && counts_all).then(|| Self { stage: stage.clone(), day: Arc::clone(day) })
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
            Some(stage) => Ok(Arc::new(Self { stage: stage.clone(), day: Arc::clone(&self.day) })),
            None => internal_err!("an aggregate with another input is something else"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> PlanResult<SendableRecordBatchStream> {
        let aggregates = self.stage.aggr_expr().to_vec();
        let arguments = aggregate_expressions(&aggregates, self.stage.mode(), 0)?;
        let mut days = Days { day: Arc::clone(&self.day), aggregates, arguments, states: HashMap::new() };
        let mut rows = self.stage.input().execute(partition, context)?;
        let (schema, of_answer) = (self.schema(), self.schema());
        let answer = futures::stream::once(async move {
            while let Some(batch) = rows.try_next().await? {
                days.see(&batch)?;
            }
            days.told(of_answer)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, answer)))
    }
}

/// What is known of each day.
struct Days {
    day: Arc<dyn PhysicalExpr>,
    aggregates: Vec<Arc<AggregateFunctionExpr>>,
    /// Of each aggregate.
    arguments: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    states: HashMap<ScalarValue, Vec<AccumulatorItem>>,
}

impl Days {
    fn see(&mut self, batch: &RecordBatch) -> PlanResult<()> {
        let days = self.day.evaluate(batch)?.into_array(batch.num_rows())?;
        let arguments = evaluate_many(&self.arguments, batch)?;
        for run in partition(&[Arc::clone(&days)])?.ranges() {
            let states = match self.states.entry(ScalarValue::try_from_array(&days, run.start)?) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(create_accumulators(&self.aggregates)?),
            };
            for (state, arguments) in states.iter_mut().zip(&arguments) {
                let of_run: Vec<ArrayRef> =
                    arguments.iter().map(|argument| argument.slice(run.start, run.len())).collect();
                state.update_batch(&of_run)?;
            }
        }
        Ok(())
    }

    /// A row for each day, as the next stage takes it: the day, and the state of each aggregate.
    fn told(self, schema: SchemaRef) -> PlanResult<RecordBatch> {
        let mut columns = vec![Vec::with_capacity(self.states.len()); schema.fields().len()];
        for (day, mut states) in self.states {
            let mut row = vec![day];
            for state in &mut states {
                row.extend(state.state()?);
            }
            columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
        }
        if columns.first().is_none_or(Vec::is_empty) {
            return Ok(RecordBatch::new_empty(schema));
        }
        let columns = columns.into_iter().map(ScalarValue::iter_to_array).collect::<PlanResult<Vec<_>>>()?;
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}
