//! `min(text)` and `max(text)` by group, over columns instead of an allocation for each group.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array as _, ArrayRef, AsArray as _, BooleanArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DFSchema, Result as PlanResult};
use datafusion::error::DataFusionError;
use datafusion::functions_aggregate::min_max::{Max, Min};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, ExprSchemable as _, GroupsAccumulator, Signature, Volatility,
};

use super::aggregates::OneGroup;
use super::texts_of_groups::{TextOfGroups, counting};

/// Our least or greatest text in place of DataFusion's.
pub(super) fn instead_of(function: &AggregateFunction, input: &DFSchema) -> Option<AggregateFunction> {
    static OURS: LazyLock<[Arc<AggregateUDF>; 2]> = LazyLock::new(|| {
        [false, true].map(|is_max| {
            Arc::new(AggregateUDF::from(Function { is_max, signature: Signature::any(1, Volatility::Immutable) }))
        })
    });
    let is_max = function.func.inner().is::<Max>();
    if !is_max && !function.func.inner().is::<Min>() {
        return None;
    }
    let params = &function.params;
    // That it is distinct changes nothing, nor does an order.
    let [text] = params.args.as_slice() else { return None };
    let is_text = text.get_type(input).is_ok_and(|kind| kind.is_string());
    is_text.then(|| {
        let ours = Arc::clone(&OURS[usize::from(is_max)]);
        AggregateFunction::new_udf(ours, vec![text.clone()], false, params.filter.clone(), vec![], None)
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    is_max: bool,
    signature: Signature,
}

impl AggregateUDFImpl for Function {
    fn name(&self) -> &str {
        if self.is_max { "greatest_text" } else { "least_text" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, given: &[DataType]) -> PlanResult<DataType> {
        let kind = given.first().cloned();
        kind.ok_or_else(|| DataFusionError::Internal(format!("`{}` takes a text", self.name())))
    }

    fn state_fields(&self, about: StateFieldsArgs) -> PlanResult<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format_state_name(about.name, "text"), DataType::Utf8View, true))])
    }

    fn accumulator(&self, about: AccumulatorArgs) -> PlanResult<Box<dyn Accumulator>> {
        Ok(Box::new(OneGroup::of(ExtremeText::new(self.is_max, about.return_type().clone()))?))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, about: AccumulatorArgs) -> PlanResult<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(ExtremeText::new(self.is_max, about.return_type().clone())))
    }
}

/// The least or the greatest text of every group, by its bytes.
#[derive(Debug)]
struct ExtremeText {
    is_max: bool,
    kind: DataType,
    extreme: TextOfGroups,
}

impl ExtremeText {
    fn new(is_max: bool, kind: DataType) -> Self {
        Self { is_max, kind, extreme: TextOfGroups::default() }
    }

    fn see(&mut self, texts: &StringViewArray, group_indices: &[usize], groups: usize) -> PlanResult<()> {
        self.extreme.grow(groups);
        for (row, group) in group_indices.iter().enumerate().filter(|(row, _)| texts.is_valid(*row)) {
            let text = texts.value(row);
            let is_new = self.extreme.get(*group).is_none_or(|before| match self.is_max {
                true => text.as_bytes() > before,
                false => text.as_bytes() < before,
            });
            if is_new {
                self.extreme.set(*group, Some(text))?;
            }
        }
        self.extreme.tidy()
    }
}

impl GroupsAccumulator for ExtremeText {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> PlanResult<()> {
        self.see(&counting(&values[0], filter)?, group_indices, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> PlanResult<ArrayRef> {
        Ok(cast(&self.extreme.emit(emit_to)?, &self.kind)?)
    }

    fn state(&mut self, emit_to: EmitTo) -> PlanResult<Vec<ArrayRef>> {
        Ok(vec![self.extreme.emit(emit_to)?])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> PlanResult<()> {
        self.see(values[0].as_string_view(), group_indices, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> PlanResult<Vec<ArrayRef>> {
        Ok(vec![Arc::new(counting(&values[0], filter)?)])
    }

    fn size(&self) -> usize {
        self.extreme.size()
    }
}
