//! Attachment stream → digests, or the reason why not.
//!
//! Bytes flow from the network into the hasher and are gone. Pieces of a large attachment go to the CPU pool, one at a
//! time, while the connection reads ahead; a small one is hashed where it arrives, together with others that arrive at the
//! same time. A stream that breaks starts again from its beginning, digests included, since the service does not promise
//! ranges.
//!
//! What a run holds of attachments is what its streams hold: each a piece on its way to the digests, and what its
//! connection has read ahead. A large attachment needs far more of both than a small one, so it counts as more streams.

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Semaphore, oneshot};
use tracing::debug;

use crate::digest::{Digests, HashPool, Hasher};
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::source::{AttachmentBody, AttachmentKind, AttachmentRef, Source};

/// What an attachment's bytes told.
pub(super) struct Hashed {
    pub(super) digests: Digests,
    pub(super) type_by_bytes: Option<&'static str>,
}

/// Reads an attachment through the hasher, trying again what may heal.
///
/// A body may come without an announced length and still be cut short, by a proxy for example. `store_size_bytes` is
/// more than a file has, but not by much: what is far shorter is read again, and believed when it comes twice.
pub(super) async fn attachment<S: Source>(
    source: &S,
    pool: &HashPool,
    streams: &Semaphore,
    attachment: &AttachmentRef,
    store_size_bytes: Option<u64>,
) -> Result<Hashed> {
    let least_bytes = match attachment.kind {
        AttachmentKind::File => store_size_bytes.unwrap_or(0).saturating_sub(limits::STORE_OVERHEAD_BYTES),
        AttachmentKind::Item | AttachmentKind::Reference => 0,
    };
    let is_small = store_size_bytes.is_some_and(|bytes| bytes <= limits::SMALL_BYTES);
    let weight = if is_small { 1 } else { limits::LARGE_STREAM_WEIGHT };
    let mut doubted = None;
    let mut attempt = 1;
    loop {
        let stream = streams.acquire_many(weight).await.expect("the semaphore is never closed");
        let hashed = match source.open(attachment).await {
            Ok(body) => stream_through(pool, body).await,
            Err(error) => Err(error),
        };
        drop(stream);
        match hashed {
            Ok(hashed) if hashed.digests.size_bytes < least_bytes && doubted != Some(hashed.digests.size_bytes) => {
                let size_bytes = hashed.digests.size_bytes;
                if attempt >= limits::HASH_ATTEMPTS {
                    let message = format!("only {size_bytes} bytes came of an attachment of more than {least_bytes}");
                    return Err(Error::new(Code::ContentUnreadable, message));
                }
                debug!(
                    attempt,
                    size_bytes, least_bytes, "an attachment is shorter than its store says; reading it again"
                );
                doubted = Some(size_bytes);
                attempt += 1;
            }
            Ok(hashed) => return Ok(hashed),
            // Only a body that broke on its way is read again here; whatever the source gave up on is owed.
            Err(error) if error.code() == Code::ContentUnreadable && attempt < limits::HASH_ATTEMPTS => {
                debug!(attempt, %error, "an attachment's stream broke; reading it again");
                tokio::time::sleep(limits::BACKOFF_START * 2_u32.pow(attempt)).await;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn stream_through(pool: &HashPool, mut body: AttachmentBody) -> Result<Hashed> {
    let mut hasher = Hasher::new();
    let (mut piece, mut piece_bytes) = (Vec::new(), 0);
    while let Some(bytes) = body.bytes.next().await {
        let bytes = bytes?;
        piece_bytes += bytes.len();
        piece.push(bytes);
        if piece_bytes >= limits::HASH_PIECE_BYTES {
            hasher = on_pool(pool, hasher, std::mem::take(&mut piece)).await?;
            piece_bytes = 0;
        }
    }
    if !piece.is_empty() {
        hasher = here(pool, hasher, piece).await?;
    }
    let (digests, type_by_bytes) = hasher.finish();
    Ok(Hashed { digests, type_by_bytes })
}

async fn on_pool(pool: &HashPool, hasher: Hasher, piece: Vec<Bytes>) -> Result<Hasher> {
    let (done, hashed) = oneshot::channel();
    // Nobody waits any more when the run was interrupted.
    pool.hash(hasher, piece, |hasher| drop(done.send(hasher)));
    hashed.await.map_err(|_| gone())
}

async fn here(pool: &HashPool, hasher: Hasher, piece: Vec<Bytes>) -> Result<Hasher> {
    let (done, mut hashed) = oneshot::channel();
    pool.set_aside(hasher, piece, |hasher| drop(done.send(hasher)));
    loop {
        // Others may have a piece to set aside, or hash this one with theirs.
        tokio::task::yield_now().await;
        match hashed.try_recv() {
            Ok(hasher) => return Ok(hasher),
            Err(TryRecvError::Closed) => return Err(gone()),
            // The oldest are hashed first, and this one is among them soon.
            Err(TryRecvError::Empty) if pool.hash_aside() => {}
            // Another thread has it.
            Err(TryRecvError::Empty) => return hashed.await.map_err(|_| gone()),
        }
    }
}

fn gone() -> Error {
    Error::new(Code::Internal, "a hashing thread is gone")
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    /// Small ones end on the network's threads, large ones begin in the pool, and each comes in other buffers.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn attachments_that_arrive_at_once_keep_their_digests() {
        let pool = std::sync::Arc::new(HashPool::new().unwrap());
        let bytes = |number: usize| vec![number as u8; 977 * number];
        let tasks: Vec<_> = (0..200)
            .map(|number| {
                let buffers: Vec<_> =
                    bytes(number).chunks(1 + 300 * number).map(|buffer| Ok(Bytes::copy_from_slice(buffer))).collect();
                let body = AttachmentBody { announced_bytes: None, bytes: stream::iter(buffers).boxed() };
                let pool = std::sync::Arc::clone(&pool);
                tokio::spawn(async move { stream_through(&pool, body).await.unwrap().digests })
            })
            .collect();
        for (number, task) in tasks.into_iter().enumerate() {
            let mut hasher = Hasher::new();
            hasher.update(&bytes(number));
            assert_eq!(task.await.unwrap(), hasher.finish().0);
        }
    }
}
