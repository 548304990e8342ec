//! `count(DISTINCT text)` by group, over columns instead of one set for each group.
//!
//! DataFusion counts distinct texts with a hash set of its own for every group. Who asks which of a million files were sent
//! by more than one person makes a million sets, nearly all of which hold one text. [`DistinctTexts`] keeps the first text
//! of each group in a column, and only what differs from it in one set for all groups:
//!
//! ```text
//!   group          0      1      2            texts    "ann"  "bob"  "eve"  "dan"
//!   first text     0      1      2            others   (0, "eve") → 2, (0, "dan") → 3
//!   count          3      1      1
//! ```
//!
//! [`CountDistinctTexts`] is the rule that puts it in place of DataFusion's, wherever there are groups; beside it any other
//! aggregate may stand, also other distinct ones.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::mem::size_of;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array as _, ArrayBuilder as _, ArrayRef, AsArray as _, BooleanArray, Int64Array, ListArray, StringViewArray,
    StringViewBuilder, UInt32Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::hash_utils::RandomState;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result as PlanResult, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, Aggregate, AggregateUDF, AggregateUDFImpl, EmitTo, Expr, ExprSchemable as _, GroupsAccumulator,
    LogicalPlan, Signature, Volatility,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// Replaces `count(DISTINCT text)` of plans with groups.
#[derive(Debug)]
pub(super) struct CountDistinctTexts;

impl OptimizerRule for CountDistinctTexts {
    fn name(&self) -> &str {
        "count_distinct_texts"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> PlanResult<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = plan else { return Ok(Transformed::no(plan)) };
        let is_ours = |expr: &Expr| counted(expr, aggregate.input.schema()).is_some();
        // Without groups there is one set only, and DataFusion fills it on all cores.
        if aggregate.group_expr.is_empty() || !aggregate.aggr_expr.iter().any(is_ours) {
            return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
        }
        let groups = aggregate.schema.fields().len() - aggregate.aggr_expr.len();
        let replaced = aggregate.aggr_expr.iter().enumerate().map(|(place, expr)| {
            let Some(function) = counted(expr, aggregate.input.schema()) else { return expr.clone() };
            let (table, field) = aggregate.schema.qualified_field(groups + place);
            let filter = function.params.filter.clone();
            let ours = AggregateFunction::new_udf(
                function_of_ours(),
                function.params.args.clone(),
                false,
                filter,
                vec![],
                None,
            );
            Expr::AggregateFunction(ours).alias_qualified(table.cloned(), field.name())
        });
        let replaced = replaced.collect();
        let (input, group_expr) = (Arc::clone(&aggregate.input), aggregate.group_expr.clone());
        Ok(Transformed::yes(LogicalPlan::Aggregate(Aggregate::try_new(input, group_expr, replaced)?)))
    }
}

/// The call, when an expression is DataFusion's count of distinct texts.
fn counted<'a>(expr: &'a Expr, input: &DFSchema) -> Option<&'a AggregateFunction> {
    let Expr::AggregateFunction(function) = expr else { return None };
    let params = &function.params;
    let ([text], true) = (params.args.as_slice(), params.distinct && params.order_by.is_empty()) else { return None };
    let is_count = function.func.inner().is::<datafusion::functions_aggregate::count::Count>();
    (is_count && text.get_type(input).is_ok_and(|kind| kind.is_string())).then_some(function)
}

fn function_of_ours() -> Arc<AggregateUDF> {
    static FUNCTION: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| {
        Arc::new(AggregateUDF::from(Function { signature: Signature::any(1, Volatility::Immutable) }))
    });
    Arc::clone(&FUNCTION)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    signature: Signature,
}

impl AggregateUDFImpl for Function {
    fn name(&self) -> &str {
        "count_distinct_texts"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> PlanResult<DataType> {
        Ok(DataType::Int64)
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn default_value(&self, _: &DataType) -> PlanResult<ScalarValue> {
        Ok(ScalarValue::Int64(Some(0)))
    }

    /// A text, and the others: nearly every row that goes from one stage to the next has one text and no list.
    fn state_fields(&self, about: StateFieldsArgs) -> PlanResult<Vec<FieldRef>> {
        let name = |part: &str| format_state_name(about.name, part);
        let others = Field::new(name("others"), DataType::List(element()), false);
        Ok(vec![Arc::new(Field::new(name("first"), DataType::Utf8View, true)), Arc::new(others)])
    }

    fn accumulator(&self, _: AccumulatorArgs) -> PlanResult<Box<dyn Accumulator>> {
        Ok(Box::new(OneGroup(DistinctTexts::default())))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> PlanResult<Box<dyn GroupsAccumulator>> {
        Ok(Box::<DistinctTexts>::default())
    }
}

fn element() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Utf8View, true))
}

/// No text yet.
const NONE: u32 = u32::MAX;

/// The distinct texts of every group.
#[derive(Debug, Default)]
struct DistinctTexts {
    /// Each text that counts, in the order in which they came.
    texts: StringViewBuilder,
    /// Of each group, the place of its first text in `texts`.
    first: Vec<u32>,
    /// Of each group, how many texts it has.
    counts: Vec<i64>,
    /// All other texts, by the hash of group and text; where two have the same hash, the second is under the next number.
    others: HashMap<u64, Other, RandomState>,
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug)]
struct Other {
    group: usize,
    text: u32,
}

impl DistinctTexts {
    fn grow(&mut self, groups: usize) {
        self.first.resize(groups, NONE);
        self.counts.resize(groups, 0);
    }

    fn see(&mut self, group: usize, text: &str) -> PlanResult<()> {
        let first = self.first[group];
        if first == NONE {
            self.first[group] = self.keep(text)?;
            self.counts[group] = 1;
            return Ok(());
        }
        if self.is(first, text) {
            return Ok(());
        }
        let mut hash = self.hasher.hash_one((group, text));
        while let Some(other) = self.others.get(&hash) {
            if other.group == group && self.is(other.text, text) {
                return Ok(());
            }
            hash = hash.wrapping_add(1);
        }
        let text = self.keep(text)?;
        self.others.insert(hash, Other { group, text });
        self.counts[group] += 1;
        Ok(())
    }

    fn is(&self, place: u32, text: &str) -> bool {
        self.texts.get_value(place as usize) == text.as_bytes()
    }

    fn keep(&mut self, text: &str) -> PlanResult<u32> {
        let place = u32::try_from(self.texts.len()).ok().filter(|place| *place != NONE);
        let place = place.ok_or_else(|| {
            DataFusionError::ResourcesExhausted("a count of distinct texts has too many of them".to_owned())
        })?;
        self.texts.append_value(text);
        Ok(place)
    }

    fn see_all(&mut self, texts: &StringViewArray, groups: &[usize]) -> PlanResult<()> {
        match texts.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => groups.iter().enumerate().try_for_each(|(row, group)| self.see(*group, texts.value(row))),
            Some(nulls) => nulls.valid_indices().try_for_each(|row| self.see(groups[row], texts.value(row))),
        }
    }

    /// Leaves only the groups from `gone` on.
    fn forget(&mut self, gone: usize) -> PlanResult<()> {
        let before = std::mem::take(self);
        if before.first.len() == gone {
            return Ok(());
        }
        let texts = before.texts.finish_cloned();
        self.grow(before.first.len() - gone);
        for (group, first) in before.first[gone..].iter().enumerate().filter(|(_, first)| **first != NONE) {
            self.see(group, texts.value(*first as usize))?;
        }
        for other in before.others.values().filter(|other| other.group >= gone) {
            self.see(other.group - gone, texts.value(other.text as usize))?;
        }
        Ok(())
    }

    fn emitted(&self, emit_to: EmitTo) -> usize {
        match emit_to {
            EmitTo::All => self.counts.len(),
            EmitTo::First(groups) => groups,
        }
    }
}

impl GroupsAccumulator for DistinctTexts {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> PlanResult<()> {
        self.grow(total_num_groups);
        self.see_all(&counting(&values[0], filter)?, group_indices)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> PlanResult<ArrayRef> {
        let emitted = self.emitted(emit_to);
        let counts = self.counts[..emitted].to_vec();
        self.forget(emitted)?;
        Ok(Arc::new(Int64Array::from(counts)))
    }

    fn state(&mut self, emit_to: EmitTo) -> PlanResult<Vec<ArrayRef>> {
        let emitted = self.emitted(emit_to);
        let texts = self.texts.finish_cloned();
        let firsts = self.first[..emitted].iter().map(|first| (*first != NONE).then_some(*first));
        let firsts = take(&texts, &firsts.collect::<UInt32Array>(), None)?;
        let others = self.counts[..emitted].iter().map(|count| usize::try_from(*count - 1).unwrap_or(0));
        let lengths: Vec<usize> = others.collect();
        let offsets = OffsetBuffer::<i32>::from_lengths(lengths.iter().copied());
        let mut ends: Vec<usize> = offsets.iter().map(|offset| *offset as usize).collect();
        let mut places = vec![0; lengths.iter().sum()];
        for other in self.others.values().filter(|other| other.group < emitted) {
            places[ends[other.group]] = other.text;
            ends[other.group] += 1;
        }
        let others = take(&texts, &UInt32Array::from(places), None)?;
        self.forget(emitted)?;
        Ok(vec![firsts, Arc::new(ListArray::try_new(element(), offsets, others, None)?)])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> PlanResult<()> {
        self.grow(total_num_groups);
        self.see_all(values[0].as_string_view(), group_indices)?;
        let lists = values[1].as_list::<i32>();
        let texts = lists.values().as_string_view();
        for (ends, group) in lists.value_offsets().windows(2).zip(group_indices) {
            (ends[0]..ends[1]).try_for_each(|place| self.see(*group, texts.value(place as usize)))?;
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> PlanResult<Vec<ArrayRef>> {
        let firsts = counting(&values[0], filter)?;
        let none = OffsetBuffer::<i32>::new_zeroed(firsts.len());
        let others = ListArray::try_new(element(), none, Arc::new(StringViewArray::new_null(0)), None)?;
        Ok(vec![Arc::new(firsts), Arc::new(others)])
    }

    fn size(&self) -> usize {
        // The view of a text has 16 bytes; an entry of the map has a byte of its own.
        let texts = self.texts.allocated_size();
        let groups = self.first.capacity() * size_of::<u32>() + self.counts.capacity() * size_of::<i64>();
        texts + groups + self.others.capacity() * (size_of::<(u64, Other)>() + 1)
    }
}

/// The texts that count: null where there is none, and where the filter says no.
fn counting(texts: &ArrayRef, filter: Option<&BooleanArray>) -> PlanResult<StringViewArray> {
    let texts = cast(texts, &DataType::Utf8View)?.as_string_view().clone();
    let Some(filter) = filter else { return Ok(texts) };
    let passes = match filter.nulls() {
        Some(nulls) => filter.values() & nulls.inner(),
        None => filter.values().clone(),
    };
    let nulls = NullBuffer::union(texts.nulls(), Some(&NullBuffer::new(passes)));
    let (views, buffers, _) = texts.into_parts();
    Ok(StringViewArray::try_new(views, buffers, nulls)?)
}

/// The same for one group, which DataFusion asks for where a plan has none after all.
#[derive(Debug)]
struct OneGroup(DistinctTexts);

impl Accumulator for OneGroup {
    fn update_batch(&mut self, values: &[ArrayRef]) -> PlanResult<()> {
        self.0.update_batch(values, &vec![0; values[0].len()], None, 1)
    }

    fn evaluate(&mut self) -> PlanResult<ScalarValue> {
        self.0.grow(1);
        Ok(ScalarValue::Int64(Some(self.0.counts[0])))
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn state(&mut self) -> PlanResult<Vec<ScalarValue>> {
        self.0.grow(1);
        self.0.state(EmitTo::All)?.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> PlanResult<()> {
        self.0.merge_batch(states, &vec![0; states[0].len()], 1)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array as Numbers, RecordBatch, StringArray};
    use arrow::util::display::array_value_to_string;
    use datafusion::datasource::MemTable;
    use datafusion::execution::session_state::SessionStateBuilder;
    use datafusion::optimizer::Optimizer;
    use datafusion::prelude::{SessionConfig, SessionContext};
    use proptest::prelude::*;

    use super::*;

    /// What two rows of the answer are compared by.
    async fn ask(context: &SessionContext, statement: &str) -> Vec<String> {
        let batches = context.sql(statement).await.unwrap().collect().await.unwrap();
        let text = |batch: &RecordBatch, row| {
            let values = batch.columns().iter().map(|column| array_value_to_string(column, row).unwrap());
            values.collect::<Vec<_>>().join("|")
        };
        let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| text(batch, row)));
        let mut rows: Vec<String> = rows.collect();
        rows.sort();
        rows
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
            rules.push(Arc::new(CountDistinctTexts));
        }
        rules.extend(Optimizer::new().rules);
        let state = SessionStateBuilder::new().with_config(config).with_default_features().with_optimizer_rules(rules);
        let context = SessionContext::new_with_state(state.build());
        let batch = |rows: &[Row]| {
            let text = |of: fn(&Row) -> &Option<String>| {
                cast(&rows.iter().map(of).map(Option::as_deref).collect::<StringArray>(), kind).unwrap()
            };
            let number = |of: fn(&Row) -> Option<i64>| Arc::new(rows.iter().map(of).collect::<Numbers>()) as ArrayRef;
            let columns: [(&str, ArrayRef, bool); 5] = [
                ("g", text(|row| &row.0), true),
                ("h", number(|row| row.1), true),
                ("a", text(|row| &row.2), true),
                ("b", text(|row| &row.3), true),
                ("n", number(|row| row.4), true),
            ];
            RecordBatch::try_from_iter_with_nullable(columns).unwrap()
        };
        let (left, right) = rows.split_at(rows.len() / 2);
        let slices = |rows: &[Row]| rows.chunks(3).map(batch).collect::<Vec<_>>();
        let table = MemTable::try_new(batch(&[]).schema(), vec![slices(left), slices(right)]).unwrap();
        context.register_table("t", Arc::new(table)).unwrap();
        context
    }

    type Row = (Option<String>, Option<i64>, Option<String>, Option<String>, Option<i64>);

    const STATEMENTS: [&str; 9] = [
        "SELECT g, count(DISTINCT a) FROM t GROUP BY g",
        "SELECT g, h, count(DISTINCT a) AS x, count(DISTINCT b), count(*), count(a), min(b), max(a), sum(n) FROM t GROUP BY g, h",
        "SELECT h, count(DISTINCT a) FILTER (WHERE n > 2), count(DISTINCT a) FROM t GROUP BY h",
        "SELECT g, count(DISTINCT n), count(DISTINCT a), avg(n) FROM t GROUP BY g HAVING count(DISTINCT a) > 1",
        "SELECT count(DISTINCT a), count(*), count(DISTINCT b) FILTER (WHERE h = 1) FROM t",
        "SELECT upper(g), count(DISTINCT a || b) + 1 FROM t WHERE n IS NOT NULL GROUP BY upper(g)",
        "SELECT g, h, count(DISTINCT a) FROM t GROUP BY ROLLUP (g, h)",
        "SELECT count(DISTINCT a) FROM t GROUP BY 'one'",
        "SELECT g, count(DISTINCT a) FROM (SELECT * FROM t ORDER BY g) GROUP BY g ORDER BY g",
    ];

    fn text() -> impl Strategy<Value = Option<String>> {
        // Few values, so that they meet; short ones and ones that do not fit into a view.
        proptest::option::of(
            (0..5_usize).prop_map(|n| ["", "a", "bb", "a text of some length", "another text of length"][n].to_owned()),
        )
    }

    fn row() -> impl Strategy<Value = Row> {
        let number = || proptest::option::of(0..4_i64);
        (text(), number(), text(), text(), number())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn counts_are_those_of_datafusion(rows in proptest::collection::vec(row(), 0..60), probe in 1..80_usize, kind in 0..3_usize) {
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
    async fn groups_are_counted_by_our_function_and_keep_their_columns() {
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
            plan.to_string().contains("count_distinct_texts")
        };
        assert!(plan(&ours, STATEMENTS[0]).await);
        // One group, and numbers, are DataFusion's.
        assert!(!plan(&ours, STATEMENTS[4]).await);
        assert!(!plan(&ours, "SELECT g, count(DISTINCT n) FROM t GROUP BY g").await);
        assert!(!plan(&theirs, STATEMENTS[0]).await);
    }

    #[test]
    fn groups_that_leave_early_take_their_texts_along() {
        let texts = |texts: &[&str]| Arc::new(StringArray::from(texts.to_vec())) as ArrayRef;
        let mut counted = DistinctTexts::default();
        counted.update_batch(&[texts(&["a", "b", "a", "c", "d"])], &[0, 0, 1, 1, 2], None, 4).unwrap();
        let state = counted.state(EmitTo::First(1)).unwrap();
        counted.update_batch(&[texts(&["a", "c", "e", "d"])], &[0, 0, 0, 1], None, 3).unwrap();
        let count = |counted: &mut DistinctTexts, emit_to| {
            counted.evaluate(emit_to).unwrap().as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()
        };
        assert_eq!(count(&mut counted, EmitTo::First(2)), [3, 1]);
        assert_eq!(count(&mut counted, EmitTo::All), [0]);
        counted.merge_batch(&state, &[0], 1).unwrap();
        counted.update_batch(&[texts(&["a", "b"])], &[0, 0], None, 1).unwrap();
        assert_eq!(count(&mut counted, EmitTo::All), [2]);
        assert!(counted.size() < 64 * 1024, "{}", counted.size());
    }
}
