//! The rule that puts Waybill's own aggregates over texts in place of DataFusion's.
//!
//! DataFusion keeps a state of its own for each group where it has none over columns; with a group for every file that ever
//! left, that is most of a query's time. `distinct`, `first_value` and `extreme_text` do the same over columns. Only plans with groups
//! are changed: without, there is one state, and DataFusion fills it on all cores.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::ArrayRef;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result as PlanResult, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Accumulator, Aggregate, EmitTo, Expr, GroupsAccumulator, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::{distinct, extreme_text, first_value};

/// Replaces aggregates over texts in plans with groups; their columns keep their names.
#[derive(Debug)]
pub(super) struct AggregatesOfTexts;

impl OptimizerRule for AggregatesOfTexts {
    fn name(&self) -> &str {
        "aggregates_of_texts"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> PlanResult<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = plan else { return Ok(Transformed::no(plan)) };
        let input = aggregate.input.schema();
        if aggregate.group_expr.is_empty() || !aggregate.aggr_expr.iter().any(|expr| ours(expr, input).is_some()) {
            return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
        }
        let groups = aggregate.schema.fields().len() - aggregate.aggr_expr.len();
        let replaced = aggregate.aggr_expr.iter().enumerate().map(|(place, expr)| {
            let Some(ours) = ours(expr, input) else { return expr.clone() };
            let (table, field) = aggregate.schema.qualified_field(groups + place);
            Expr::AggregateFunction(ours).alias_qualified(table.cloned(), field.name())
        });
        let replaced = replaced.collect();
        let replaced = Aggregate::try_new(Arc::clone(&aggregate.input), aggregate.group_expr.clone(), replaced)?;
        Ok(Transformed::yes(LogicalPlan::Aggregate(replaced)))
    }
}

/// Our call in place of DataFusion's, where there is one that gives the same.
fn ours(expr: &Expr, input: &DFSchema) -> Option<AggregateFunction> {
    let Expr::AggregateFunction(function) = expr else { return None };
    distinct::instead_of(function, input)
        .or_else(|| first_value::instead_of(function, input))
        .or_else(|| extreme_text::instead_of(function, input))
}

/// A state over columns for the one group of a plan without groups, for which DataFusion asks where it found that a plan has
/// none after all.
#[derive(Debug)]
pub(super) struct OneGroup<G>(G);

impl<G: GroupsAccumulator> OneGroup<G> {
    /// A group without rows, in a state that has seen nothing.
    pub(super) fn of(mut groups: G) -> PlanResult<Self> {
        let nothing = groups.state(EmitTo::All)?;
        groups.merge_batch(&nothing, &[], 1)?;
        Ok(Self(groups))
    }

    /// The group as columns of one row; it stays, though to tell it takes it away.
    fn told(&mut self) -> PlanResult<Vec<ArrayRef>> {
        let state = self.0.state(EmitTo::All)?;
        self.0.merge_batch(&state, &[0], 1)?;
        Ok(state)
    }
}

impl<G: GroupsAccumulator + Debug + Sync> Accumulator for OneGroup<G> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> PlanResult<()> {
        self.0.update_batch(values, &vec![0; values[0].len()], None, 1)
    }

    fn evaluate(&mut self) -> PlanResult<ScalarValue> {
        let state = self.told()?;
        let value = self.0.evaluate(EmitTo::All)?;
        self.0.merge_batch(&state, &[0], 1)?;
        ScalarValue::try_from_array(&value, 0)
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn state(&mut self) -> PlanResult<Vec<ScalarValue>> {
        self.told()?.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> PlanResult<()> {
        self.0.merge_batch(states, &vec![0; states[0].len()], 1)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array as Numbers, RecordBatch, StringArray};
    use arrow::compute::cast;
    use arrow::datatypes::DataType;
    use datafusion::execution::session_state::SessionStateBuilder;
    use datafusion::optimizer::Optimizer;
    use datafusion::prelude::{SessionConfig, SessionContext};
    use proptest::prelude::*;

    use super::super::tests::{register, sorted_rows};
    use super::*;

    async fn ask(context: &SessionContext, statement: &str) -> Vec<String> {
        sorted_rows(&context.sql(statement).await.unwrap().collect().await.unwrap())
    }

    /// A session over a table `t` of two partitions, with our rule or without; after `probe` rows a group by many values
    /// gives up on grouping before the rows are spread over the cores.
    fn session(rows: &[Row], kind: &DataType, with_rule: bool, probe: usize) -> SessionContext {
        let config = SessionConfig::new()
            .with_target_partitions(2)
            .with_batch_size(4)
            .set_usize("datafusion.execution.skip_partial_aggregation_probe_rows_threshold", probe)
            .set_str("datafusion.execution.skip_partial_aggregation_probe_ratio_threshold", "0.3");
        let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = Vec::new();
        if with_rule {
            rules.push(Arc::new(AggregatesOfTexts));
        }
        rules.extend(Optimizer::new().rules);
        let state = SessionStateBuilder::new().with_config(config).with_default_features().with_optimizer_rules(rules);
        let context = SessionContext::new_with_state(state.build());
        let batch = |rows: &[Row]| {
            let text = |of: fn(&Row) -> &Option<String>| {
                cast(&rows.iter().map(of).map(Option::as_deref).collect::<StringArray>(), kind).unwrap()
            };
            let number = |of: fn(&Row) -> Option<i64>| Arc::new(rows.iter().map(of).collect::<Numbers>()) as ArrayRef;
            let columns: [(&str, ArrayRef, bool); 7] = [
                ("g", text(|row| &row.0), true),
                ("h", number(|row| row.1), true),
                ("a", text(|row| &row.2), true),
                ("b", text(|row| &row.3), true),
                ("n", number(|row| row.4), true),
                ("id", number(|row| row.5), true),
                // The same, but for one that is null.
                ("unique", number(|row| row.5.filter(|id| *id != 7)), true),
            ];
            RecordBatch::try_from_iter_with_nullable(columns).unwrap()
        };
        register(&context, rows, 3, batch);
        context
    }

    type Row = (Option<String>, Option<i64>, Option<String>, Option<String>, Option<i64>, Option<i64>);

    const STATEMENTS: [&str; 14] = [
        "SELECT g, count(DISTINCT a) FROM t GROUP BY g",
        "SELECT g, h, count(DISTINCT a) AS x, count(DISTINCT b), count(*), count(a), min(b), max(a), sum(n) FROM t GROUP BY g, h",
        "SELECT h, count(DISTINCT a) FILTER (WHERE n > 2), count(DISTINCT a) FROM t GROUP BY h",
        "SELECT g, count(DISTINCT n), count(DISTINCT a), avg(n) FROM t GROUP BY g HAVING count(DISTINCT a) > 1",
        "SELECT count(DISTINCT a), count(*), count(DISTINCT b) FILTER (WHERE h = 1) FROM t",
        "SELECT upper(g), count(DISTINCT a || b) + 1 FROM t WHERE n IS NOT NULL GROUP BY upper(g)",
        "SELECT g, h, count(DISTINCT a) FROM t GROUP BY ROLLUP (g, h)",
        "SELECT count(DISTINCT a) FROM t GROUP BY 'one'",
        "SELECT g, count(DISTINCT a) FROM (SELECT * FROM t ORDER BY g) GROUP BY g ORDER BY g",
        // Each number of the order is there once, so that there is one first.
        "SELECT g, first_value(a ORDER BY id), last_value(b ORDER BY id), count(DISTINCT b), max(n) FROM t GROUP BY g",
        "SELECT g, first_value(a ORDER BY id DESC) FILTER (WHERE n > 1), last_value(a ORDER BY id DESC) FROM t GROUP BY g",
        "SELECT h, first_value(id || 'x' ORDER BY unique NULLS FIRST), last_value(id || 'x' ORDER BY unique) FROM t GROUP BY h",
        "SELECT first_value(a ORDER BY id), last_value(b ORDER BY id), count(DISTINCT b) FROM t GROUP BY 'one'",
        "SELECT g, min(a) FILTER (WHERE n > 1), max(DISTINCT b), max(n) FROM t GROUP BY g",
    ];

    fn text() -> impl Strategy<Value = Option<String>> {
        // Few values, so that they meet; short ones and ones that do not fit into a view.
        proptest::option::of(
            (0..5_usize).prop_map(|n| ["", "a", "bb", "a text of some length", "another text of length"][n].to_owned()),
        )
    }

    fn row() -> impl Strategy<Value = Row> {
        let number = || proptest::option::of(0..4_i64);
        (text(), number(), text(), text(), number(), Just(None))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn counts_are_those_of_datafusion(rows in proptest::collection::vec(row(), 0..60), probe in 1..80_usize, kind in 0..3_usize) {
            let mut rows = rows;
            // In an order that is not that of the rows.
            (0..).zip(&mut rows).for_each(|(place, row)| row.5 = Some(place * 37 % 61));
            let kind = [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View][kind].clone();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (ours, theirs) = (session(&rows, &kind, true, probe), session(&rows, &kind, false, probe));
            for statement in STATEMENTS {
                let answers = runtime.block_on(async { (ask(&ours, statement).await, ask(&theirs, statement).await) });
                prop_assert_eq!(answers.0, answers.1, "{}", statement);
            }
        }
    }

    #[tokio::test]
    async fn groups_have_our_functions_and_keep_their_columns() {
        let (ours, theirs) = (session(&[], &DataType::Utf8, true, 1), session(&[], &DataType::Utf8, false, 1));
        for statement in STATEMENTS {
            let schema = |context: &SessionContext| {
                let context = context.clone();
                async move { context.sql(statement).await.unwrap().create_physical_plan().await.unwrap().schema() }
            };
            assert_eq!(schema(&ours).await, schema(&theirs).await, "{statement}");
        }
        let plan = async |context: &SessionContext, statement| {
            let plan = context.sql(statement).await.unwrap().into_optimized_plan().unwrap();
            plan.to_string().contains("_texts(") || plan.to_string().contains("first_text(")
        };
        assert!(plan(&ours, STATEMENTS[0]).await);
        assert!(plan(&ours, STATEMENTS[11]).await);
        // One group, and numbers, are DataFusion's.
        assert!(!plan(&ours, STATEMENTS[4]).await);
        assert!(!plan(&ours, "SELECT g, count(DISTINCT n) FROM t GROUP BY g").await);
        assert!(!plan(&ours, "SELECT g, first_value(a ORDER BY b) FROM t GROUP BY g").await);
        assert!(!plan(&ours, "SELECT g, first_value(a ORDER BY n) IGNORE NULLS FROM t GROUP BY g").await);
        assert!(!plan(&theirs, STATEMENTS[0]).await);
    }
}
