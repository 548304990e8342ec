//! How much memory a query may take, and what becomes of it afterwards.
//!
//! May use: the base, and the allocator.

use std::sync::Arc;

use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::limits;

const MB: usize = 1024 * 1024;

/// `mi_option_purge_delay` of mimalloc 3 (`mimalloc.h`), in milliseconds, for which the binding has no name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Memory of one query; what needs more spills to disk or fails with a clear error.
///
/// Without an order it comes from the machine, or from the container's limit where that is less: queries get half of it,
/// as what they hold beside the pool (pieces of files, answers on their way) needs some, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryMemory(usize);

impl QueryMemory {
    /// For a person who asks one question at a time: half of the machine.
    pub fn alone() -> Self {
        Self::of_machine(machine_bytes(), 1)
    }

    /// For a server: all queries that may be at work at once get half of the machine.
    pub fn shared() -> Self {
        Self::of_machine(machine_bytes(), limits::QUERIES_AT_ONCE)
    }

    /// So many megabytes (of 1,048,576 bytes).
    pub fn of_mb(megabytes: u64) -> Self {
        Self(usize::try_from(megabytes).unwrap_or(usize::MAX).saturating_mul(MB))
    }

    fn of_machine(bytes: u64, at_once: usize) -> Self {
        let half = usize::try_from(bytes / 2).unwrap_or(usize::MAX);
        Self((half / at_once).max(limits::QUERY_MEMORY_MB_LEAST as usize * MB))
    }

    /// What one session's queries take their memory from.
    pub(super) fn pool(self) -> Arc<dyn MemoryPool> {
        Arc::new(FairSpillPool::new(self.0))
    }
}

/// Lets the allocator keep what queries free for half a minute instead of a second.
///
/// A query that groups millions of rows frees and takes hundreds of megabytes a second; when they go back to the system in
/// between, a quarter of its time is the system clearing pages. A run does not ask for this: it promises a low peak instead.
pub(super) fn keep_freed() {
    let milliseconds = limits::FREED_MEMORY_KEPT.as_millis().try_into().unwrap_or(i32::MAX);
    #[expect(unsafe_code, reason = "the binding wraps no options")]
    // SAFETY: it stores a number that the allocator reads now and then, whichever allocator the program uses.
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, milliseconds.into());
    }
}

/// What the machine has, or the container lets us have.
fn machine_bytes() -> u64 {
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(memory);
    let container = system.cgroup_limits().map(|limits| limits.total_memory);
    container.unwrap_or(u64::MAX).min(system.total_memory())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: reads a number.
        #[expect(unsafe_code, reason = "the binding wraps no options")]
        let read = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        // Its own, or ours where another test was here before.
        assert!([1_000, 30_000].contains(&read()), "the option has another number: {}", read());
        keep_freed();
        assert_eq!(read(), 30_000);
    }

    #[test]
    fn a_query_gets_its_share_of_half_of_the_machine_and_never_nothing() {
        const GB: u64 = 1 << 30;
        assert_eq!(QueryMemory::of_machine(24 * GB, 1), QueryMemory::of_mb(12 * 1024));
        assert_eq!(QueryMemory::of_machine(16 * GB, 8), QueryMemory::of_mb(1024));
        assert_eq!(QueryMemory::of_machine(0, 8), QueryMemory::of_mb(limits::QUERY_MEMORY_MB_LEAST));
        assert!(machine_bytes() > GB / 4, "{}", machine_bytes());
        assert!(QueryMemory::shared().0 <= QueryMemory::alone().0);
    }
}
