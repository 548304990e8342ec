//! Texts that aggregates keep for their groups.
//!
//! There may be a group for every file that ever left, and nearly all of their texts may be the same few: who sent it, under
//! which name. [`Texts`] has bytes for what is new, and a group has the place of its text there:
//!
//! ```text
//!   texts     "ann@contoso.example"  "bob@contoso.example"
//!   groups    0  0  1  0  1  0  …
//! ```

use std::hash::BuildHasher as _;
use std::mem::size_of;

use arrow::array::{
    Array as _, ArrayBuilder as _, ArrayRef, AsArray as _, BooleanArray, StringViewArray, StringViewBuilder,
    UInt32Array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, take};
use arrow::datatypes::DataType;
use datafusion::common::Result as PlanResult;
use datafusion::common::hash_utils::RandomState;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::EmitTo;

use super::functions::are_true;

/// No text.
pub(super) const NONE: u32 = u32::MAX;

/// Texts in the order in which they came. One that came not long before is not kept again; to find any would take more memory
/// than it spares where each text is another.
#[derive(Debug, Default)]
pub(super) struct Texts {
    kept: StringViewBuilder,
    /// By the last bits of their hashes, the places of the texts that came last.
    recent: Vec<u32>,
    hasher: RandomState,
}

impl Texts {
    /// A few thousand senders find each other here nearly always.
    const RECENT: usize = 1 << 14;

    /// The text's place.
    pub(super) fn keep(&mut self, text: &str) -> PlanResult<u32> {
        self.recent.resize(Self::RECENT, NONE);
        let slot = self.hasher.hash_one(text) as usize % Self::RECENT;
        let recent = self.recent[slot];
        if recent != NONE && self.is(recent, text) {
            return Ok(recent);
        }
        let place = number(self.len())?;
        self.kept.append_value(text);
        self.recent[slot] = place;
        Ok(place)
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn is(&self, place: u32, text: &str) -> bool {
        self.bytes(place) == text.as_bytes()
    }

    fn bytes(&self, place: u32) -> &[u8] {
        self.kept.get_value(place as usize)
    }

    /// All of them as a column; nothing is left.
    pub(super) fn finish(&mut self) -> StringViewArray {
        self.recent.clear();
        self.kept.finish()
    }

    pub(super) fn column(&self) -> StringViewArray {
        self.kept.finish_cloned()
    }

    /// Bytes.
    pub(super) fn size(&self) -> usize {
        self.kept.allocated_size() + self.recent.capacity() * size_of::<u32>()
    }
}

/// A place or group as a small number.
pub(super) fn number(place: usize) -> PlanResult<u32> {
    let number = u32::try_from(place).ok().filter(|number| *number != NONE);
    number.ok_or_else(|| DataFusionError::ResourcesExhausted("too many groups or texts to keep".to_owned()))
}

/// The texts at these places, null where there is none.
pub(super) fn texts_at(texts: &StringViewArray, places: &[u32]) -> PlanResult<ArrayRef> {
    let places = places.iter().map(|place| (*place != NONE).then_some(*place));
    Ok(take(texts, &places.collect::<UInt32Array>(), None)?)
}

/// The texts that count: null where there is none, and where the filter says no.
pub(super) fn counting(texts: &ArrayRef, filter: Option<&BooleanArray>) -> PlanResult<StringViewArray> {
    let texts = cast(texts, &DataType::Utf8View)?.as_string_view().clone();
    let Some(filter) = filter else { return Ok(texts) };
    let nulls = NullBuffer::union(texts.nulls(), Some(&NullBuffer::new(are_true(filter))));
    let (views, buffers, _) = texts.into_parts();
    Ok(StringViewArray::try_new(views, buffers, nulls)?)
}

/// One text of each group, or none, which may change.
#[derive(Debug, Default)]
pub(super) struct TextOfGroups {
    texts: Texts,
    places: Vec<u32>,
}

impl TextOfGroups {
    /// So many texts that no group has any more may be kept beside as many that some group has.
    const SPARE: usize = 8 * 1024;

    pub(super) fn grow(&mut self, groups: usize) {
        self.places.resize(groups, NONE);
    }

    pub(super) fn get(&self, group: usize) -> Option<&[u8]> {
        let place = self.places[group];
        (place != NONE).then(|| self.texts.bytes(place))
    }

    pub(super) fn set(&mut self, group: usize, text: Option<&str>) -> PlanResult<()> {
        self.places[group] = text.map_or(Ok(NONE), |text| self.texts.keep(text))?;
        Ok(())
    }

    /// Forgets the texts that no group has any more, when they are many; to be called after many changes.
    pub(super) fn tidy(&mut self) -> PlanResult<()> {
        if self.texts.len() <= 2 * self.places.len() + Self::SPARE {
            return Ok(());
        }
        let texts = self.texts.finish();
        self.keep_only(&texts)
    }

    /// The texts of the groups that leave.
    pub(super) fn emit(&mut self, emit_to: EmitTo) -> PlanResult<ArrayRef> {
        let places = emit_to.take_needed(&mut self.places);
        let texts = self.texts.finish();
        self.keep_only(&texts)?;
        texts_at(&texts, &places)
    }

    fn keep_only(&mut self, texts: &StringViewArray) -> PlanResult<()> {
        for place in self.places.iter_mut().filter(|place| **place != NONE) {
            *place = self.texts.keep(texts.value(*place as usize))?;
        }
        Ok(())
    }

    /// Bytes.
    pub(super) fn size(&self) -> usize {
        self.texts.size() + self.places.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(column: &ArrayRef) -> Vec<Option<&str>> {
        column.as_string_view().iter().collect()
    }

    #[test]
    fn a_text_of_many_groups_is_kept_once() {
        let mut groups = TextOfGroups::default();
        groups.grow(100_000);
        let sender = |group: usize| format!("person{}@contoso.example", group % 50);
        for group in (0..100_000).filter(|group| group % 3 > 0) {
            groups.set(group, Some(&sender(group))).unwrap();
        }
        assert_eq!(groups.texts.len(), 50);
        assert_eq!((groups.get(0), groups.get(1)), (None, Some(sender(1).as_bytes())));
        let first = groups.emit(EmitTo::First(2)).unwrap();
        assert_eq!(texts(&first), [None, Some(sender(1).as_str())]);
        groups.set(1, None).unwrap();
        let rest = groups.emit(EmitTo::All).unwrap();
        assert_eq!(
            texts(&rest)[..4],
            [Some(sender(2).as_str()), None, Some(sender(4).as_str()), Some(sender(5).as_str())]
        );
        assert_eq!((rest.len(), groups.texts.len()), (99_998, 0));
    }

    /// Danger: a group loses its text, or gets another's, when those of others are forgotten.
    #[test]
    fn texts_that_no_group_has_any_more_are_forgotten() {
        let mut groups = TextOfGroups::default();
        groups.grow(3);
        groups.set(1, Some("stays, and is longer than a view")).unwrap();
        for number in 0..3 * TextOfGroups::SPARE {
            groups.set(2, Some(&format!("text {number} of some length"))).unwrap();
            groups.tidy().unwrap();
        }
        assert!(groups.texts.len() <= TextOfGroups::SPARE + 6, "{}", groups.texts.len());
        assert!(groups.size() < 4 << 20, "{}", groups.size());
        let last = format!("text {} of some length", 3 * TextOfGroups::SPARE - 1);
        let all = groups.emit(EmitTo::All).unwrap();
        assert_eq!(texts(&all), [None, Some("stays, and is longer than a view"), Some(last.as_str())]);
    }
}
