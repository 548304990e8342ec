//! `first_value(text ORDER BY time)` by group, over columns instead of one row of values for each group.
//!
//! Who had a file first asks it of every file of the lake. DataFusion keeps the values by which it orders as a list of its own
//! for each group. [`FirstText`] keeps them as numbers in two columns, in which less always means earlier: for a text by one
//! time, day or whole number. `last_value` is the same in the other direction.

use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, BooleanArray, Int64Array, StringViewArray, UInt8Array};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, UInt8Type};
use datafusion::common::{DFSchema, Result as PlanResult};
use datafusion::error::DataFusionError;
use datafusion::functions_aggregate::first_last::{FirstValue, LastValue};
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, ExprSchemable as _, GroupsAccumulator, Signature, Volatility,
};

use super::aggregates::OneGroup;
use super::texts_of_groups::TextOfGroups;

/// Our first text in place of DataFusion's, where it does the same.
pub(super) fn instead_of(function: &AggregateFunction, input: &DFSchema) -> Option<AggregateFunction> {
    let is_last = function.func.inner().is::<LastValue>();
    if !is_last && !function.func.inner().is::<FirstValue>() {
        return None;
    }
    let params = &function.params;
    let ([text], [sort], false) = (params.args.as_slice(), params.order_by.as_slice(), params.distinct) else {
        return None;
    };
    let is_text = text.get_type(input).is_ok_and(|kind| kind.is_string());
    let is_number = sort.expr.get_type(input).is_ok_and(|kind| {
        matches!(kind, DataType::Timestamp(..) | DataType::Date32 | DataType::Int64 | DataType::Int32)
    });
    if !is_text || !is_number || params.null_treatment == Some(NullTreatment::IgnoreNulls) {
        return None;
    }
    // The last is the first when one looks from the other end.
    let options = SortOptions { descending: sort.asc == is_last, nulls_first: sort.nulls_first != is_last };
    let function = AggregateUDF::from(Function {
        options: Direction(options),
        signature: Signature::any(2, Volatility::Immutable),
    });
    let args = vec![text.clone(), sort.expr.clone()];
    Some(AggregateFunction::new_udf(Arc::new(function), args, false, params.filter.clone(), vec![], None))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    options: Direction,
    signature: Signature,
}

/// By what it is ordered, as DataFusion's own sorts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Direction(SortOptions);

impl Direction {
    /// Columns of which the lesser pair, first by `rank` and then by `key`, comes first.
    fn order(self, by: &ArrayRef, counts: Option<&BooleanArray>) -> PlanResult<(UInt8Array, Int64Array)> {
        let by = match by.data_type() {
            DataType::Date32 => cast(&cast(by, &DataType::Int32)?, &DataType::Int64)?,
            _ => cast(by, &DataType::Int64)?,
        };
        let by = by.as_primitive::<Int64Type>();
        let rank_of_null = if self.0.nulls_first { NULL_FIRST } else { NULL_LAST };
        let rank = |row: usize| match counts {
            Some(counts) if counts.is_null(row) || !counts.value(row) => NO_ROW,
            _ if by.is_null(row) => rank_of_null,
            _ => VALUE,
        };
        let ranks = (0..by.len()).map(rank).collect::<Vec<_>>();
        // Of numbers turned about bit by bit, the order is turned about, too.
        let keys = by.values().iter().map(|key| if self.0.descending { !key } else { *key });
        Ok((UInt8Array::from(ranks), keys.collect::<Vec<_>>().into()))
    }
}

const NULL_FIRST: u8 = 0;
const VALUE: u8 = 1;
const NULL_LAST: u8 = 2;
const NO_ROW: u8 = 3;

impl AggregateUDFImpl for Function {
    fn name(&self) -> &str {
        "first_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, given: &[DataType]) -> PlanResult<DataType> {
        given
            .first()
            .cloned()
            .ok_or_else(|| DataFusionError::Internal("`first_text` takes a text and a number".to_owned()))
    }

    fn state_fields(&self, about: StateFieldsArgs) -> PlanResult<Vec<FieldRef>> {
        let field = |part: &str, kind, is_nullable| {
            Arc::new(Field::new(format_state_name(about.name, part), kind, is_nullable))
        };
        Ok(vec![
            field("text", DataType::Utf8View, true),
            field("rank", DataType::UInt8, false),
            field("key", DataType::Int64, false),
        ])
    }

    fn accumulator(&self, about: AccumulatorArgs) -> PlanResult<Box<dyn Accumulator>> {
        Ok(Box::new(OneGroup::of(FirstText::new(self.options, about.return_type().clone()))?))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, about: AccumulatorArgs) -> PlanResult<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(FirstText::new(self.options, about.return_type().clone())))
    }
}

/// The first text of every group.
#[derive(Debug)]
struct FirstText {
    direction: Direction,
    kind: DataType,
    first: TextOfGroups,
    /// Of each group, what makes its text the first.
    ranks: Vec<u8>,
    keys: Vec<i64>,
}

impl FirstText {
    fn new(direction: Direction, kind: DataType) -> Self {
        Self { direction, kind, first: TextOfGroups::default(), ranks: Vec::new(), keys: Vec::new() }
    }

    fn see(
        &mut self,
        (texts, ranks, keys): (&StringViewArray, &[u8], &[i64]),
        group_indices: &[usize],
        groups: usize,
    ) -> PlanResult<()> {
        self.first.grow(groups);
        self.ranks.resize(groups, NO_ROW);
        self.keys.resize(groups, i64::MAX);
        for (row, group) in group_indices.iter().enumerate() {
            let (rank, key) = (ranks[row], keys[row]);
            let (best_rank, best_key) = (&mut self.ranks[*group], &mut self.keys[*group]);
            if rank != NO_ROW && (rank, key) < (*best_rank, *best_key) {
                (*best_rank, *best_key) = (rank, key);
                self.first.set(*group, texts.is_valid(row).then(|| texts.value(row)))?;
            }
        }
        self.first.tidy()
    }

    /// What is known of the groups that leave.
    fn emit(&mut self, emit_to: EmitTo) -> PlanResult<(ArrayRef, Vec<u8>, Vec<i64>)> {
        let texts = self.first.emit(emit_to)?;
        Ok((texts, emit_to.take_needed(&mut self.ranks), emit_to.take_needed(&mut self.keys)))
    }
}

impl GroupsAccumulator for FirstText {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> PlanResult<()> {
        let texts = cast(&values[0], &DataType::Utf8View)?;
        let (ranks, keys) = self.direction.order(&values[1], filter)?;
        self.see((texts.as_string_view(), ranks.values(), keys.values()), group_indices, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> PlanResult<ArrayRef> {
        let (texts, _, _) = self.emit(emit_to)?;
        Ok(cast(&texts, &self.kind)?)
    }

    fn state(&mut self, emit_to: EmitTo) -> PlanResult<Vec<ArrayRef>> {
        let (texts, ranks, keys) = self.emit(emit_to)?;
        Ok(vec![texts, Arc::new(UInt8Array::from(ranks)), Arc::new(Int64Array::from(keys))])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> PlanResult<()> {
        let (ranks, keys) = (values[1].as_primitive::<UInt8Type>(), values[2].as_primitive::<Int64Type>());
        self.see((values[0].as_string_view(), ranks.values(), keys.values()), group_indices, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> PlanResult<Vec<ArrayRef>> {
        let (ranks, keys) = self.direction.order(&values[1], filter)?;
        Ok(vec![cast(&values[0], &DataType::Utf8View)?, Arc::new(ranks), Arc::new(keys)])
    }

    fn size(&self) -> usize {
        self.first.size() + self.ranks.capacity() + self.keys.capacity() * size_of::<i64>()
    }
}
