//! The threads that hash: what waits at the same time is hashed side by side.
//!
//! ```text
//!   hash(…) ─▶ ┌ waiting ┐     ┌ one thread's lanes ┐ ─▶ on_done, as each piece ends
//!   hash(…) ─▶ │ p p p p │ ──▶ │ p p p … (16 at most)│
//!   hash(…) ─▶ └─────────┘     └────────────────────┘    and the next one takes its lane
//! ```
//!
//! A thread works while there are pieces and then sleeps. When it has room it takes its share of what waits, so that a
//! few pieces spread over the cores, and many fill the lanes.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf as _, Bytes};
use rayon::ThreadPool;

use super::Hasher;
use super::lanes::{BLOCK_BYTES, Instructions, LANES, Lane};
use crate::error::{Code, Result, ResultExt};

/// Blocks of each piece that a thread takes before it looks at the queue again: 16 KB, and in all lanes a tenth of a
/// millisecond.
const TURN_BLOCKS: usize = 256;

/// The threads that hash: as many as the machine has cores, apart from those that serve the network.
#[derive(Debug)]
pub struct HashPool {
    threads: ThreadPool,
    work: Arc<Work>,
}

/// What the threads share.
#[derive(Debug)]
struct Work {
    instructions: Instructions,
    threads: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Piece>,
    /// Threads that look at the queue again before they sleep.
    awake: usize,
}

impl HashPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// `io` when the machine refuses to start them.
    pub fn new() -> Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::with(threads, Instructions::best())
    }

    /// The same with a choice of threads and of instructions, for tests and measurements.
    ///
    /// # Errors
    /// `io` when the machine refuses to start the threads.
    pub fn with(threads: usize, instructions: Instructions) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("hash-{index}"))
            .build()
            .or_error(Code::Io, "cannot start the threads that hash")?;
        Ok(Self { threads: pool, work: Arc::new(Work { instructions, threads, queue: Mutex::default() }) })
    }

    /// Queues a piece of an attachment and returns at once. When all of it was taken, the hasher goes to `on_done`, on
    /// the thread that hashed; each buffer goes back as soon as it was hashed.
    ///
    /// The queue has no limit of its own: whoever gives pieces waits for one before it gives the next.
    pub fn hash(&self, hasher: Hasher, buffers: Vec<Bytes>, on_done: impl FnOnce(Hasher) + Send + 'static) {
        let piece = Piece { hasher, buffers: buffers.into_iter(), blocks: Bytes::new(), on_done: Box::new(on_done) };
        let mut queue = self.work.queue();
        queue.waiting.push_back(piece);
        if queue.awake < self.work.threads {
            queue.awake += 1;
            drop(queue);
            let work = Arc::clone(&self.work);
            self.threads.spawn(move || work.run());
        }
    }
}

impl Work {
    /// What a thread does until nothing waits any more.
    fn run(&self) {
        let mut pieces = Vec::with_capacity(LANES);
        while self.refill(&mut pieces) {
            pieces = pieces.into_iter().filter_map(Piece::with_blocks).collect();
            step(self.instructions, &mut pieces);
        }
    }

    /// Takes this thread's share of what waits, as far as it has lanes; false when there is nothing left to do.
    fn refill(&self, pieces: &mut Vec<Piece>) -> bool {
        let mut queue = self.queue();
        let share = queue.waiting.len().div_ceil(self.threads).min(LANES - pieces.len());
        pieces.extend(queue.waiting.drain(..share));
        if pieces.is_empty() {
            queue.awake -= 1;
        }
        !pieces.is_empty()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing that holds the lock can leave the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes some blocks of each piece into its digests: as many as the shortest has, and not so many that a piece that came
/// in the meantime waits long.
fn step(instructions: Instructions, pieces: &mut [Piece]) {
    let mut lanes: Vec<Lane<'_>> = pieces
        .iter_mut()
        .map(|piece| {
            let (blocks, _) = piece.blocks.as_chunks::<BLOCK_BYTES>();
            Lane { state: &mut piece.hasher.state, blocks: &blocks[..blocks.len().min(TURN_BLOCKS)] }
        })
        .collect();
    let count = instructions.side_by_side(&mut lanes);
    for piece in pieces {
        piece.blocks.advance(count * BLOCK_BYTES);
    }
}

/// Some bytes of an attachment on their way through the hasher.
struct Piece {
    hasher: Hasher,
    buffers: std::vec::IntoIter<Bytes>,
    /// Whole blocks of the buffer whose turn it is.
    blocks: Bytes,
    on_done: Box<dyn FnOnce(Hasher) + Send>,
}

impl Piece {
    /// The piece when it has blocks left; otherwise it is done and says so.
    fn with_blocks(mut self) -> Option<Self> {
        while self.blocks.is_empty() {
            let Some(buffer) = self.buffers.next() else {
                let Self { hasher, on_done, .. } = self;
                // A panic is its owner's: the pieces in the other lanes have nothing to do with it.
                drop(catch_unwind(AssertUnwindSafe(|| on_done(hasher))));
                return None;
            };
            let blocks = self.hasher.take_ends(&buffer).as_flattened();
            self.blocks = buffer.slice_ref(blocks);
        }
        Some(self)
    }
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Piece").field("hasher", &self.hasher).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
