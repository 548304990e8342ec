//! Blobs → sends in scope that are new. What is unreadable goes to quarantine, what breaks is read again.

use futures::StreamExt as _;
use tracing::warn;

use super::fate::{Fate, Tally};
use super::{Pipeline, QueuedSend};
use crate::error::{Code, Error, Result};
use crate::source::{ContentBlob, Source, Window};

/// Reads of one blob in one run. The source has retried each request already; this heals a body that broke.
const READS: u32 = 3;

/// Unreadable records of one blob that are kept; a blob of nothing else is one defect and not a million rows.
const UNREADABLE_MAX: usize = 10_000;

/// Reads one blob and hands its new sends on; its fate follows them.
///
/// # Errors
/// Only what must end the run.
pub(super) async fn blob<S: Source>(pipeline: &Pipeline<S>, blob: ContentBlob, window: Window) -> Result<()> {
    if blob.expires <= pipeline.clock.now() {
        let message = format!("the content blob `{}` expired at {}", blob.id, blob.expires.to_rfc3339());
        let error = Error::new(Code::ContentExpired, message);
        return pipeline.fate(Fate::BlobFailed { blob, window, tally: Tally::default(), error }).await;
    }
    let mut total = Tally::default();
    let mut queued = 0;
    let mut read = 1;
    loop {
        match once(pipeline, &blob, window, &mut total, &mut queued).await {
            Ok(unreadable) => {
                total.unreadable = unreadable.len() as u64;
                return pipeline.fate(Fate::BlobRead { blob, window, sends: queued, tally: total, unreadable }).await;
            }
            Err(error) if !error.is_about_one_item() => return Err(error),
            Err(error) if error.code() == Code::ContentExpired || read == READS => {
                return pipeline.fate(Fate::BlobFailed { blob, window, tally: total, error }).await;
            }
            Err(error) => {
                warn!(blob = %blob.id, read, %error, "a content blob was not read whole; reading it again");
                read += 1;
            }
        }
    }
}

/// One read from the first byte. Records that an earlier, broken read handed on are duplicates in this one.
async fn once<S: Source>(
    pipeline: &Pipeline<S>,
    blob: &ContentBlob,
    window: Window,
    total: &mut Tally,
    queued: &mut u64,
) -> Result<Vec<crate::source::UnreadableRecord>> {
    let mut unreadable = Vec::new();
    let mut chunks = pipeline.source.read(blob);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        pipeline.progress.records.add(chunk.records);
        total.records += chunk.records;
        total.feed_bytes += chunk.bytes;
        total.sends += chunk.sends.len() as u64;
        unreadable.extend(chunk.unreadable.into_iter().take(UNREADABLE_MAX - unreadable.len()));
        for send in chunk.sends {
            if !pipeline.scope.contains(&send) {
                total.out_of_scope += 1;
            } else if !pipeline.take(&send.id) {
                total.duplicates += 1;
            } else {
                *queued += 1;
                pipeline.progress.sends.add(1);
                pipeline.queue(QueuedSend { send, blob_id: blob.id.clone(), window }).await?;
            }
        }
    }
    Ok(unreadable)
}
