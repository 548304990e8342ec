//! The one place where a run remembers which records it has dealt with, or is about to.
//!
//! It only saves requests, as the lake itself decides what is new; so it may forget, and its size does not grow with the run:
//! the oldest records go, half of them at a time. The feed repeats a record soon as a rule. What is owed is never forgotten:
//! a record that is owed twice would be looked for twice by every later run.

use std::collections::HashSet;

use crate::id::Id;

/// Records of a run.
pub(super) struct Taken {
    owed: HashSet<Id>,
    recent: HashSet<Id>,
    older: HashSet<Id>,
    /// When so many are recent, they become the older ones, and the older ones are forgotten.
    half: usize,
}

impl Taken {
    /// Remembers the last `most` records, and half of them at least.
    pub(super) fn new(most: usize) -> Self {
        Self { owed: HashSet::new(), recent: HashSet::new(), older: HashSet::new(), half: (most / 2).max(1) }
    }

    /// Takes a record; false when it was taken before.
    pub(super) fn take(&mut self, record: Id) -> bool {
        if self.owed.contains(&record) || self.older.contains(&record) || !self.recent.insert(record) {
            return false;
        }
        if self.recent.len() >= self.half {
            std::mem::swap(&mut self.recent, &mut self.older);
            self.recent.clear();
        }
        true
    }

    /// Remembers a record for good.
    pub(super) fn keep(&mut self, record: Id) {
        self.owed.insert(record);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A set that never forgets is the judge: nothing is refused that was not taken, and nothing of the last half and
        /// nothing owed is taken again.
        #[test]
        fn only_old_records_are_taken_again(
            records in proptest::collection::vec((0_u32..60, any::<bool>()), 1..400),
            most in 1_usize..40,
        ) {
            let mut taken = Taken::new(most);
            let mut order: Vec<u32> = Vec::new();
            let mut owed: HashSet<u32> = HashSet::new();
            for (record, is_owed) in records {
                let id = Id::of(&record.to_string());
                let is_new = taken.take(id);
                let before = order.iter().rposition(|other| *other == record).map(|place| order.len() - place);
                match before {
                    None => prop_assert!(is_new),
                    Some(ago) if ago <= most / 2 || owed.contains(&record) => prop_assert!(!is_new),
                    Some(_) => {}
                }
                if is_new {
                    order.push(record);
                }
                if is_owed {
                    taken.keep(id);
                    owed.insert(record);
                }
                prop_assert!(taken.recent.len() + taken.older.len() <= most.max(2));
            }
        }
    }
}
