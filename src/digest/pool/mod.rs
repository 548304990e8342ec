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
//!
//! A small piece is hashed sooner than a thread wakes up. It is set aside, and who set it aside lets others come with
//! theirs before it hashes them all on its own thread: of 32 attachments of 20 KB at once, about ten come together, and each
//! takes 25 µs of CPU, download included, instead of 41.

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

/// Bytes that are taken from aside at once: at the portable speed, half a millisecond.
const ASIDE_BYTES: usize = 256 * 1024;

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
    /// Small pieces, for which nobody is woken.
    aside: VecDeque<Piece>,
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
        let piece = Piece::new(hasher, buffers, on_done);
        let mut queue = self.work.queue();
        queue.waiting.push_back(piece);
        if queue.awake < self.work.threads {
            queue.awake += 1;
            drop(queue);
            let work = Arc::clone(&self.work);
            self.threads.spawn(move || work.run());
        }
    }

    /// Keeps a small piece until somebody calls [`HashPool::hash_aside`]. For a small one, waking a thread takes longer than
    /// hashing it.
    pub fn set_aside(&self, hasher: Hasher, buffers: Vec<Bytes>, on_done: impl FnOnce(Hasher) + Send + 'static) {
        self.work.queue().aside.push_back(Piece::new(hasher, buffers, on_done));
    }

    /// Hashes some pieces that were set aside, the oldest first, on the thread that calls: side by side they take a tenth
    /// of a millisecond. False when there were none.
    pub fn hash_aside(&self) -> bool {
        let mut pieces = self.work.take_aside();
        let are_some = !pieces.is_empty();
        while !pieces.is_empty() {
            self.work.step(&mut pieces);
        }
        are_some
    }
}

impl Work {
    /// What a thread does until nothing waits any more.
    fn run(&self) {
        let mut pieces = Vec::with_capacity(LANES);
        while self.refill(&mut pieces) {
            self.step(&mut pieces);
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

    /// As many of the pieces that were set aside as a thread that serves the network may take.
    fn take_aside(&self) -> Vec<Piece> {
        let mut queue = self.queue();
        let mut bytes = 0;
        let fits = |piece: &&Piece| {
            bytes += piece.buffers.as_slice().iter().map(Bytes::len).sum::<usize>();
            bytes <= ASIDE_BYTES
        };
        let count = queue.aside.iter().take(LANES).take_while(fits).count().max(1).min(queue.aside.len());
        queue.aside.drain(..count).collect()
    }

    /// Takes some blocks of each piece into its digests: as many as the shortest has, and not so many that a piece that
    /// came in the meantime waits long. Pieces that have ended say so and are gone.
    fn step(&self, pieces: &mut Vec<Piece>) {
        *pieces = std::mem::take(pieces).into_iter().filter_map(Piece::with_blocks).collect();
        let mut lanes: Vec<Lane<'_>> = pieces.iter_mut().map(Piece::lane).collect();
        let count = self.instructions.side_by_side(&mut lanes);
        for piece in pieces {
            piece.blocks.advance(count * BLOCK_BYTES);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing that holds the lock can leave the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn new(hasher: Hasher, buffers: Vec<Bytes>, on_done: impl FnOnce(Hasher) + Send + 'static) -> Self {
        Self { hasher, buffers: buffers.into_iter(), blocks: Bytes::new(), on_done: Box::new(on_done) }
    }

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

    fn lane(&mut self) -> Lane<'_> {
        let (blocks, _) = self.blocks.as_chunks();
        Lane { state: &mut self.hasher.state, blocks: &blocks[..blocks.len().min(TURN_BLOCKS)] }
    }
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Piece").field("hasher", &self.hasher).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
