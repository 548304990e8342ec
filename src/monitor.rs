//! What the library reports while it works. The library counts, and only `cli` shows.
//!
//! May use: nothing of Waybill.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts that grow during a run; cheap enough for every record, and read by whoever draws a bar.
#[derive(Debug, Default)]
pub struct Progress {
    /// Blobs that were listed.
    pub blobs_listed: Count,
    /// Blobs that were dealt with.
    pub blobs_read: Count,
    /// Audit records that were read.
    pub records: Count,
    /// Sends in scope that were found in them.
    pub sends: Count,
    /// Sends that met their fate.
    pub sends_done: Count,
    /// Attachment bytes that were hashed.
    pub bytes_hashed: Count,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds to it.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// What it is now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
