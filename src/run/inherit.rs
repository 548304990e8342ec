//! A shard's first run: what it takes over from the layout before.
//!
//! A connection that is split anew has shards without a state. Each begins with what the states of the layout before say
//! of its mailboxes. Those states are sealed first, by a commit that only says so: a run of the layout before that still
//! goes on then fails its own commit, as it would beside another run, and none begins any more. So every shard of the
//! new layout takes over the same, however long after the others it runs first, and what was owed is owed once.
//!
//! | of the states before | a shard takes over |
//! |---|---|
//! | windows and watermark | of a single state: as they are. Of several: nothing is open, and the watermark is the earliest instant that one of them had not read for good; what is read again is known by its record or by its row |
//! | records seen | all; a record id does not tell whose it is |
//! | owed blobs | all: each shard reads its own mailboxes' sends out of them |
//! | owed messages and hashes | those of its mailboxes |

use std::collections::HashSet;

use tracing::info;
use uuid::Uuid;

use super::state::{Owed, State};
use crate::clock::Time;
use crate::error::{Code, Error, Result};
use crate::lake::{Checkpoint, Commit, Lake, Outbox, Shard};
use crate::limits;

/// Where a shard stands: by its own state, else by what its first run would take over. With it the number of its own
/// checkpoint. Nothing where nobody has run.
///
/// # Errors
/// `lake-unavailable`, `lake-damaged`.
pub async fn standing(lake: &Lake, shard: &Shard) -> Result<Option<(Option<i64>, State)>> {
    if let Some(Checkpoint { number, state, .. }) = lake.checkpoint::<State>(shard.state_id).await? {
        return Ok(Some((Some(number), state)));
    }
    let mut before = Vec::new();
    for id in &shard.inherits {
        before.extend(lake.checkpoint::<State>(*id).await?.map(|checkpoint| checkpoint.state));
    }
    Ok(inherited(&before, shard).map(|state| (None, state)))
}

/// The state with which a shard's first run begins.
///
/// # Errors
/// `lake-unavailable`, `lake-damaged`; `run-in-progress` when runs of the layout before keep committing.
pub(super) async fn first(lake: &Lake, shard: &Shard, since: Time, run_id: Uuid) -> Result<State> {
    let mut before = Vec::new();
    for id in &shard.inherits {
        before.push(seal(lake, *id, since, run_id).await?);
    }
    Ok(inherited(&before, shard).unwrap_or_else(|| State::new(since)))
}

/// Ends a state's life; returns what it says for good.
async fn seal(lake: &Lake, state_id: Uuid, since: Time, run_id: Uuid) -> Result<State> {
    for _ in 0..limits::COMMIT_ATTEMPTS {
        let (mut writer, state) = lake.writer::<State>(state_id, run_id).await?;
        let mut state = state.unwrap_or_else(|| State::new(since));
        if state.is_sealed {
            return Ok(state);
        }
        state.is_sealed = true;
        let commit = Commit { rows: Vec::new(), replaces: Vec::new(), outbox: Outbox::default(), state: &state };
        match writer.commit(commit).await {
            Ok(_) => {
                info!(state = %state_id, "a state of the layout before is sealed");
                return Ok(state);
            }
            // Another shard sealed it, or a run of the layout before committed once more.
            Err(error) if error.code() == Code::RunInProgress => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::new(Code::RunInProgress, "runs from before the connection was split keep committing; stop them"))
}

/// Fails for a state that was sealed: whoever still asks for it knows the connection as it was.
pub(super) fn refuse_sealed(state: Option<&State>) -> Result<()> {
    match state {
        Some(state) if state.is_sealed => Err(Error::new(
            Code::RunInProgress,
            "the connection was split anew while this run began, so it changed nothing; the next run knows",
        )),
        _ => Ok(()),
    }
}

/// What the states of the layout before mean for a shard; nothing when there is none.
fn inherited(before: &[State], shard: &Shard) -> Option<State> {
    let mut state = before.first()?.clone();
    state.is_sealed = false;
    if before.len() > 1 {
        let open = |state: &State| state.windows.iter().map(|open| open.window.start()).min();
        let reached = |state: &State| open(state).unwrap_or(state.watermark).min(state.watermark);
        state.since = before.iter().map(|state| state.since).min()?;
        state.watermark = before.iter().map(reached).min()?;
        state.windows = Vec::new();
        state.newest_content = before.iter().filter_map(|state| state.newest_content).max();
        state.has_read_mail = before.iter().any(|state| state.has_read_mail);
        state.begun = before.iter().filter_map(|state| state.begun).min();
        state.last_run = before.iter().filter_map(|state| state.last_run).min();
        let mut seen: Vec<_> = before.iter().flat_map(|state| state.seen.iter().cloned()).collect();
        seen.sort_by_key(|seen| seen.at);
        state.seen = seen.into();
    }
    let mut known = HashSet::new();
    let owed = || before.iter().map(|state| &state.owed);
    state.owed = Owed {
        blobs: owed()
            .flat_map(|owed| owed.blobs.iter().cloned())
            .filter(|owed| known.insert((owed.window, owed.blob.id.clone())))
            .collect(),
        messages: owed()
            .flat_map(|owed| owed.messages.iter().cloned())
            .filter(|owed| shard.has(&owed.send.mailbox))
            .collect(),
        hashes: owed()
            .flat_map(|owed| owed.hashes.iter().cloned())
            .filter(|owed| shard.has(owed.row.mailbox.as_deref().unwrap_or(&owed.attachment.mailbox)))
            .collect(),
    };
    Some(state)
}
