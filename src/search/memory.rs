//! How much memory a query may take.
//!
//! May use: the base.

use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, human_readable_size,
};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::limits;

const MB: usize = 1024 * 1024;

/// Memory of one query; what needs more spills to disk or fails with a clear error.
///
/// Without an order it comes from the machine, or from the container's limit where that is less: queries get half of it,
/// as what they hold beside the pool (pieces of files, answers on their way) needs some, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueryMemory(usize);

impl QueryMemory {
    /// For a person who asks one question at a time: half of the machine.
    pub fn alone() -> Self {
        Self::of_machine(*MACHINE_BYTES, 1)
    }

    /// For a server: all queries that may be at work at once get half of the machine.
    pub fn shared() -> Self {
        Self::of_machine(*MACHINE_BYTES, limits::QUERIES_AT_ONCE)
    }

    /// So many megabytes (of 1,048,576 bytes).
    pub fn of_mb(megabytes: u64) -> Self {
        Self(usize::try_from(megabytes).unwrap_or(usize::MAX).saturating_mul(MB))
    }

    fn of_machine(bytes: u64, at_once: usize) -> Self {
        let half = usize::try_from(bytes / 2).unwrap_or(usize::MAX);
        Self(half / at_once).max(Self::of_mb(limits::QUERY_MEMORY_MB_LEAST))
    }

    /// What one session's queries take their memory from.
    pub(super) fn pool(self) -> Arc<dyn MemoryPool> {
        Arc::new(Shared::of(self.0))
    }
}

/// What one query's operators share.
///
/// DataFusion's fair pool gives each operator that can spill an equal part, also of what others never ask for: of four that group,
/// two spread rows and two hold them, and these two spilled to disk with two thirds of the memory free. Here they may have more
/// than their part as long as a quarter is left for the others.
#[derive(Debug)]
struct Shared {
    bytes: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    /// Operators that can spill.
    spillers: usize,
    spillable: usize,
    unspillable: usize,
}

impl Used {
    fn all(&self) -> usize {
        self.spillable + self.unspillable
    }

    fn of(&mut self, reservation: &MemoryReservation) -> &mut usize {
        if reservation.consumer().can_spill() { &mut self.spillable } else { &mut self.unspillable }
    }
}

impl Shared {
    fn of(bytes: usize) -> Self {
        Self { bytes, used: Mutex::default() }
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an operator that has `held` bytes may have `more`.
    fn has_room(&self, used: &Used, can_spill: bool, held: usize, more: usize) -> bool {
        let fits = used.all() + more <= self.bytes;
        if !can_spill {
            return fits;
        }
        let spillable = self.bytes.saturating_sub(used.unspillable);
        let is_part = held + more <= spillable / used.spillers.max(1);
        fits && (is_part || used.spillable + more <= spillable / 4 * 3)
    }
}

impl MemoryPool for Shared {
    fn name(&self) -> &str {
        "query"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.used().spillers += usize::from(consumer.can_spill());
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.used().spillers -= usize::from(consumer.can_spill());
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        *self.used().of(reservation) += additional;
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        *self.used().of(reservation) -= shrink;
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> datafusion::common::Result<()> {
        let mut used = self.used();
        let consumer = reservation.consumer();
        if self.has_room(&used, consumer.can_spill(), reservation.size(), additional) {
            *used.of(reservation) += additional;
            return Ok(());
        }
        let (wanted, name) = (human_readable_size(additional), consumer.name());
        let (has, left) =
            (human_readable_size(reservation.size()), human_readable_size(self.bytes.saturating_sub(used.all())));
        Err(DataFusionError::ResourcesExhausted(format!(
            "{name} has {has} and wants {wanted} more, of the query's {self} {left} are left"
        )))
    }

    fn reserved(&self) -> usize {
        self.used().all()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes)
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&human_readable_size(self.bytes))
    }
}

/// What the machine has, or the container lets us have; asked once, since every look at the lake wants it.
static MACHINE_BYTES: LazyLock<u64> = LazyLock::new(|| {
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(memory);
    let container = system.cgroup_limits().map(|limits| limits.total_memory);
    container.unwrap_or(u64::MAX).min(system.total_memory())
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_may_have_more_than_their_part_while_a_quarter_is_left_for_the_others() {
        let pool: Arc<dyn MemoryPool> = Arc::new(Shared::of(1_000));
        let operator = |name: &str, can_spill| MemoryConsumer::new(name).with_can_spill(can_spill).register(&pool);
        let (one, two, three, four) =
            (operator("one", true), operator("two", true), operator("three", true), operator("four", true));
        one.try_grow(600).unwrap();
        two.try_grow(150).unwrap();
        let error = one.try_grow(1).unwrap_err().to_string();
        assert!(error.contains("one has 600.0 B and wants 1.0 B more"), "{error}");
        // Its part is 250, of which 100 are left in the pool after another one took theirs.
        two.try_grow(100).unwrap();
        assert!(two.try_grow(1).is_err());
        three.try_grow(150).unwrap();
        assert!(four.try_grow(1).is_err(), "there is none left");
        one.free();
        four.try_grow(250).unwrap();
        // What cannot spill takes what there is, and makes the parts smaller.
        let fixed = operator("fixed", false);
        fixed.try_grow(350).unwrap();
        assert!(fixed.try_grow(1).is_err());
        drop((two, three));
        assert_eq!(pool.reserved(), 600);
        assert!(four.try_grow(237).is_err());
        four.try_grow(236).unwrap();
        drop((one, four, fixed));
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn a_query_gets_its_share_of_half_of_the_machine_and_never_nothing() {
        const GB: u64 = 1 << 30;
        assert_eq!(QueryMemory::of_machine(24 * GB, 1), QueryMemory::of_mb(12 * 1024));
        assert_eq!(QueryMemory::of_machine(16 * GB, 8), QueryMemory::of_mb(1024));
        assert_eq!(QueryMemory::of_machine(0, 8), QueryMemory::of_mb(limits::QUERY_MEMORY_MB_LEAST));
        assert!(*MACHINE_BYTES > GB / 4, "{}", *MACHINE_BYTES);
        assert!(QueryMemory::shared().0 <= QueryMemory::alone().0);
    }
}
