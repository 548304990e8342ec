//! Blobs → sends in scope that are new. What is unreadable goes to quarantine, a blob that breaks is owed.

use futures::StreamExt as _;
use tracing::warn;

use super::fate::{Fate, Tally};
use super::{Pipeline, QueuedSend};
use crate::error::Result;
use crate::limits;
use crate::source::{ContentBlob, Source, UnreadableRecord, Window};

/// Unreadable records of one blob that are kept; a blob of nothing else is one defect and not a million rows.
const UNREADABLE_MAX: usize = 10_000;

/// Reads one blob and hands its new sends on; its fate follows them.
///
/// # Errors
/// Only what must end the run.
pub(super) async fn blob<S: Source>(pipeline: &Pipeline<S>, blob: ContentBlob, window: Window) -> Result<()> {
    let (mut tally, mut sends, mut unreadable) = (Tally::default(), 0, Vec::new());
    match read(pipeline, &blob, window, &mut tally, &mut sends, &mut unreadable).await {
        Ok(()) => pipeline.fate(Fate::BlobRead { blob, window, sends, tally, unreadable }).await,
        Err(error) if error.is_about_one_item() => {
            warn!(blob = %blob.id, %error, "a content blob was not read whole");
            pipeline.fate(Fate::BlobFailed { blob, window, tally, error }).await
        }
        Err(error) => Err(error),
    }
}

async fn read<S: Source>(
    pipeline: &Pipeline<S>,
    blob: &ContentBlob,
    window: Window,
    tally: &mut Tally,
    queued: &mut u64,
    unreadable: &mut Vec<UnreadableRecord>,
) -> Result<()> {
    let mut unreadable_bytes = 0;
    let mut chunks = pipeline.source.read(blob);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        pipeline.progress.records.add(chunk.records);
        tally.records += chunk.records;
        tally.feed_bytes += chunk.bytes;
        tally.sends += chunk.sends.len() as u64;
        tally.unreadable += chunk.unreadable.len() as u64;
        for record in chunk.unreadable {
            unreadable_bytes += record.raw.len();
            if unreadable.len() < UNREADABLE_MAX && unreadable_bytes <= limits::UNREADABLE_BYTES {
                unreadable.push(record);
            }
        }
        for send in chunk.sends {
            if !pipeline.stamp.shard.has(&send.mailbox) {
                tally.other_shards += 1;
            } else if !pipeline.scope.contains(&send) {
                tally.out_of_scope += 1;
            } else if pipeline.is_in_lake(&send).await? || !pipeline.take(&send.id) {
                tally.duplicates += 1;
            } else {
                *queued += 1;
                pipeline.progress.sends.add(1);
                pipeline.queue(QueuedSend { send, blob_id: blob.id.clone(), window }).await?;
            }
        }
    }
    Ok(())
}
