//! What becomes of memory that was freed.
//!
//! The program's allocator is mimalloc (`main.rs`). May use: nothing of Waybill.

use std::time::Duration;

/// `mi_option_purge_delay` of mimalloc 3 (`mimalloc.h`), in milliseconds, for which the binding has no name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Lets the allocator keep what is freed for so long before it goes back to the system; counts for the whole program, and
/// the last word holds.
pub fn keep_freed(time: Duration) {
    let milliseconds = time.as_millis().try_into().unwrap_or(i32::MAX);
    #[expect(unsafe_code, reason = "the binding wraps no options")]
    // SAFETY: it stores a number that the allocator reads now and then, whichever allocator the program uses.
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, milliseconds.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    #[test]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: reads a number.
        #[expect(unsafe_code, reason = "the binding wraps no options")]
        let read = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        // Its own, or ours where another test was here before.
        assert!([1_000, 30_000].contains(&read()), "the option has another number: {}", read());
        // As every test that asks a query does, so that none of them is disturbed.
        keep_freed(limits::QUERY_FREED_MEMORY_KEPT);
        assert_eq!(read(), 30_000);
    }
}
