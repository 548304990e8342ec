//! `count(DISTINCT text)` by group, over columns instead of one set for each group.
//!
//! DataFusion counts distinct texts with a hash set of its own for every group. Who asks which of a million files were sent
//! by more than one person makes a million sets, nearly all of which hold one text. [`DistinctTexts`] keeps the first text
//! of each group in a column, and what differs from it as pairs of numbers in one set for all groups; a group of many texts has a
//! bit for each text instead:
//!
//! ```text
//!   group          0      1      2            texts    "ann"  "bob"  "eve"  "dan"
//!   first text     0      1      2            others   (0, 2), (0, 3)
//!   count          3      1      1
//! ```
//!
//! Beside it any other aggregate may stand, also other distinct ones.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::mem::size_of;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, BooleanArray, Int64Array, ListArray, StringViewArray, UInt32Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::hash_utils::RandomState;
use datafusion::common::{DFSchema, Result as PlanResult, ScalarValue};
use datafusion::functions_aggregate::count::Count;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, ExprSchemable as _, GroupsAccumulator, Signature, Volatility,
};

use super::aggregates::OneGroup;
use super::texts_of_groups::{NONE, Texts, counting, number, texts_at};

/// Our count of distinct texts in place of DataFusion's.
pub(super) fn instead_of(function: &AggregateFunction, input: &DFSchema) -> Option<AggregateFunction> {
    static OURS: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| {
        Arc::new(AggregateUDF::from(Function { signature: Signature::any(1, Volatility::Immutable) }))
    });
    let params = &function.params;
    let ([text], true, []) = (params.args.as_slice(), params.distinct, params.order_by.as_slice()) else { return None };
    let is_ours = function.func.inner().is::<Count>() && text.get_type(input).is_ok_and(|kind| kind.is_string());
    is_ours.then(|| {
        AggregateFunction::new_udf(Arc::clone(&OURS), vec![text.clone()], false, params.filter.clone(), vec![], None)
    })
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
        Ok(Box::new(OneGroup::of(DistinctTexts::default())?))
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

/// The distinct texts of every group.
#[derive(Debug, Default)]
struct DistinctTexts {
    texts: Texts,
    /// Of each group, the place of its first text in `texts`.
    first: Vec<u32>,
    /// Of each group, how many texts it has.
    counts: Vec<i64>,
    /// The texts that groups have beside their first.
    others: Others,
    /// The places of those texts, by their hash; where two have the same hash, the second is under the next number.
    places: HashMap<u64, u32, RandomState>,
    hasher: RandomState,
}

/// Groups with the places of their texts.
#[derive(Debug, Default)]
struct Others {
    pairs: HashSet<(u32, u32), RandomState>,
    /// Of groups that have many of the texts, a bit for each place.
    bits: HashMap<u32, Vec<u64>, RandomState>,
    /// Of all groups together.
    words: usize,
}

impl Others {
    /// A group of fewer texts has pairs.
    const MANY: i64 = 64;

    /// So many bits take the memory of one pair in the set.
    const BITS_OF_PAIR: i64 = 80;

    /// Adds a text to a group that has `count` of them; whether it is new there. As a count only grows, a pair that once
    /// belonged among the bits always does.
    fn insert(&mut self, group: u32, place: u32, count: i64) -> bool {
        if count < Self::MANY || i64::from(place) > count * Self::BITS_OF_PAIR {
            return self.pairs.insert((group, place));
        }
        let bits = self.bits.entry(group).or_default();
        let (word, bit) = (place as usize / 64, 1 << (place % 64));
        if word >= bits.len() {
            let before = bits.capacity();
            bits.resize(word + 1, 0);
            self.words += bits.capacity() - before;
        }
        if bits[word] & bit != 0 {
            return false;
        }
        bits[word] |= bit;
        !self.pairs.remove(&(group, place))
    }

    fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        let words = self.bits.iter().flat_map(|(group, words)| (0..).zip(words).map(move |word| (*group, word)));
        let of_bits = words.flat_map(|(group, (number, word))| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| (group, number * 64 + bit))
        });
        self.pairs.iter().copied().chain(of_bits)
    }

    /// Bytes; an entry of a table has a byte of its own.
    fn size(&self) -> usize {
        let pairs = self.pairs.capacity() * (size_of::<(u32, u32)>() + 1);
        let groups = self.bits.capacity() * (size_of::<(u32, Vec<u64>)>() + 1);
        pairs + groups + self.words * size_of::<u64>()
    }
}

impl DistinctTexts {
    fn grow(&mut self, groups: usize) {
        self.first.resize(groups, NONE);
        self.counts.resize(groups, 0);
    }

    fn see(&mut self, group: usize, text: &str) -> PlanResult<()> {
        let first = self.first[group];
        if first == NONE {
            self.first[group] = self.texts.keep(text)?;
            self.counts[group] = 1;
        } else if !self.texts.is(first, text) {
            let place = self.place(text)?;
            self.counts[group] += i64::from(self.others.insert(number(group)?, place, self.counts[group]));
        }
        Ok(())
    }

    /// The one place of a text that some group has beside its first.
    fn place(&mut self, text: &str) -> PlanResult<u32> {
        let mut hash = self.hasher.hash_one(text);
        while let Some(place) = self.places.get(&hash) {
            if self.texts.is(*place, text) {
                return Ok(*place);
            }
            hash = hash.wrapping_add(1);
        }
        let place = self.texts.keep(text)?;
        self.places.insert(hash, place);
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
        let mut before = std::mem::take(self);
        if before.first.len() == gone {
            return Ok(());
        }
        let texts = before.texts.finish();
        self.grow(before.first.len() - gone);
        for (group, first) in before.first[gone..].iter().enumerate().filter(|(_, first)| **first != NONE) {
            self.see(group, texts.value(*first as usize))?;
        }
        for (group, text) in before.others.iter() {
            if let Some(group) = (group as usize).checked_sub(gone) {
                self.see(group, texts.value(text as usize))?;
            }
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
        let texts = self.texts.column();
        let firsts = texts_at(&texts, &self.first[..emitted])?;
        let others = self.counts[..emitted].iter().map(|count| usize::try_from(*count - 1).unwrap_or(0));
        let lengths: Vec<usize> = others.collect();
        let offsets = OffsetBuffer::<i32>::from_lengths(lengths.iter().copied());
        let mut ends: Vec<usize> = offsets.iter().map(|offset| *offset as usize).collect();
        let mut places = vec![0; lengths.iter().sum()];
        for (group, text) in self.others.iter() {
            let group = group as usize;
            if group < emitted {
                places[ends[group]] = text;
                ends[group] += 1;
            }
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
        let groups = self.first.capacity() * size_of::<u32>() + self.counts.capacity() * size_of::<i64>();
        // An entry of a table has a byte of its own.
        let places = self.places.capacity() * (size_of::<(u64, u32)>() + 1);
        self.texts.size() + groups + self.others.size() + places
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;

    use super::*;

    /// Danger: a text is counted twice, or is gone, where a group's pairs become bits.
    #[test]
    fn groups_of_many_texts_count_like_those_of_few() {
        let mut counted = DistinctTexts::default();
        let mut wanted = vec![HashSet::new(); 3];
        // A few texts in the first group, many in the second, and in the third many of which some are far behind the others.
        for number in 0..20_000_u64 {
            let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
            let (group, text) = match number % 4 {
                0 => (0, mixed % 40),
                1 | 2 => (1, mixed % 900),
                _ if number % 400 == 3 => (2, 1_000_000 + number),
                _ => (2, mixed % 2_000),
            };
            wanted[group].insert(text);
            counted.grow(3);
            counted.see(group, &format!("text {text}")).unwrap();
        }
        let counts: Vec<i64> = wanted.iter().map(|texts| texts.len() as i64).collect();
        assert_eq!(counted.counts, counts);
        assert!(counted.others.bits.len() == 2 && !counted.others.pairs.is_empty());
        // What one stage tells the next is the same, and nothing of it comes twice.
        let mut next = DistinctTexts::default();
        for group in [1, 2] {
            let state = counted.state(EmitTo::First(group)).unwrap();
            next.merge_batch(&state, [&[0][..], &[1, 2]][group - 1], 3).unwrap();
        }
        assert_eq!(next.counts, counts);
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
