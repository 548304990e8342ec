//! The state of a connection between two runs, as a file that a commit makes effective.
//!
//! A checkpoint `n` is written before the Delta commit that carries the transaction `(connection, n)`. Until that commit
//! it is a leftover that nobody reads; with it, it is the state. Cases:
//!
//! | what happened                                        | log names | what the next run reads           |
//! |------------------------------------------------------|-----------|-----------------------------------|
//! | killed before the file was written                   | `m`       | `m`                               |
//! | killed between file `n` and commit                   | `m`       | `m`; takes `n+1`, `n` is left over |
//! | two runs wrote `n` and `n+1`, the first committed    | `n`       | `n`; the second's commit failed   |
//! | killed after the commit                              | `n`       | `n`, and makes good its outbox    |
//!
//! A file is created and never overwritten (conditional put), so that the number in the log means one content for ever.
//! What the state says is the business of the room that runs; here it is only kept.

use futures::TryStreamExt as _;
use object_store::{ObjectStoreExt as _, PutMode, PutOptions, PutPayload, PutPayloadMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::paths;
use super::store::{Location, store_error};
use crate::error::{Code, Error, Result, ResultExt};
use crate::event::{Change, Gap, Quarantined, Run, ScopeMember};

/// A connection's state, the number that names it, and rows for the other tables that follow its commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Checkpoint<S> {
    /// Names this checkpoint in the log of `file_events`; grows, with gaps where a run was lost.
    pub number: i64,
    /// The number on which this one builds; 0 for the first.
    pub base: i64,
    /// Which run wrote it.
    pub run_id: Uuid,
    /// Rows of the other tables that became true with this commit.
    pub outbox: Outbox,
    /// Where the connection stands.
    pub state: S,
}

/// Rows for the tables beside `file_events`. They ride in the checkpoint and are appended after its commit, each table
/// with the same transaction, so that a crash in between is made good by the next run, once.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outbox {
    /// Rows for `runs`.
    pub runs: Vec<Run>,
    /// Rows for `gaps`.
    pub gaps: Vec<Gap>,
    /// Rows for `quarantine`.
    pub quarantine: Vec<Quarantined>,
    /// Rows for `changes`.
    #[serde(default)]
    pub changes: Vec<Change>,
    /// Rows for `scope_members`.
    #[serde(default)]
    pub scope_members: Vec<ScopeMember>,
}

impl Outbox {
    /// Whether there is nothing to append.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
            && self.gaps.is_empty()
            && self.quarantine.is_empty()
            && self.changes.is_empty()
            && self.scope_members.is_empty()
    }
}

/// Reads a checkpoint that the log names.
pub(super) async fn read<S: DeserializeOwned>(at: &Location, connection: Uuid, number: i64) -> Result<Checkpoint<S>> {
    let path = paths::checkpoint(&at.root, connection, number);
    let doing = format!("cannot read the checkpoint `{path}`");
    let answer = at.store.get(&path).await.map_err(|error| store_error(error, &doing))?;
    let bytes = answer.bytes().await.map_err(|error| store_error(error, &doing))?;
    serde_json::from_slice(&bytes).or_error(Code::LakeDamaged, doing)
}

/// Writes a checkpoint under the first free number from `checkpoint.number` on, and sets that number.
pub(super) async fn write<S: Serialize>(at: &Location, connection: Uuid, checkpoint: &mut Checkpoint<S>) -> Result<()> {
    // A leftover of a killed run takes one number; this many in a row means that something else is wrong.
    const LEFTOVERS_MAX: i64 = 1_000;
    let first = checkpoint.number;
    while checkpoint.number < first + LEFTOVERS_MAX {
        let path = paths::checkpoint(&at.root, connection, checkpoint.number);
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        match at.store.put_opts(&path, json(checkpoint)?, options).await {
            Ok(_) => return Ok(()),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                checkpoint.number += 1;
            }
            Err(error) => return Err(store_error(error, format!("cannot write the checkpoint `{path}`"))),
        }
    }
    Err(Error::new(Code::LakeDamaged, format!("more than {LEFTOVERS_MAX} checkpoints of `{connection}` are left over")))
}

/// A checkpoint as JSON, in pieces: one with a scope of 100,000 people has 30 MB, and a buffer that grows to that holds it twice.
fn json<S: Serialize>(checkpoint: &Checkpoint<S>) -> Result<PutPayload> {
    struct Pieces(PutPayloadMut);
    impl std::io::Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    const PIECE_BYTES: usize = 256 * 1024;
    let mut pieces = Pieces(PutPayloadMut::new().with_block_size(PIECE_BYTES));
    serde_json::to_writer(&mut pieces, checkpoint).or_error(Code::Internal, "cannot write the checkpoint as JSON")?;
    Ok(pieces.0.freeze())
}

/// Deletes checkpoints below `effective`, keeping the newest few for a person who must look back.
pub(super) async fn expire(at: &Location, connection: Uuid, effective: i64) -> Result<u64> {
    const KEPT: usize = 10;
    let folder = paths::checkpoints(&at.root, connection);
    let doing = || format!("cannot clean the checkpoints of `{connection}`");
    let mut old: Vec<_> = at
        .store
        .list(Some(&folder))
        .try_filter_map(async |object| Ok(paths::checkpoint_number(&object.location).map(|n| (n, object.location))))
        .try_filter(|(number, _)| std::future::ready(*number < effective))
        .try_collect()
        .await
        .map_err(|error| store_error(error, doing()))?;
    old.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
    let mut deleted = 0;
    for (_, path) in old.into_iter().skip(KEPT) {
        match at.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => deleted += 1,
            Err(error) => return Err(store_error(error, doing())),
        }
    }
    Ok(deleted)
}
