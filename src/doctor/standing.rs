//! Where a connection stands, from the registry and the checkpoint of each shard: small objects of the lake.

use serde::Serialize;

use crate::clock::Time;
use crate::connection::Connection;
use crate::error::{Code, Result};
use crate::event::Status;
use crate::lake::Lake;
use crate::run::{self, Failure, State};

/// Where a connection stands.
#[derive(Clone, Debug, Serialize)]
pub struct Standing {
    /// What an administrator decided, else what the last run found.
    pub status: Status,
    /// Since when, where a run found it.
    pub since: Option<Time>,
    /// What a person should know: why it is in error, or what is awaited.
    pub finding: Option<Failure>,
    /// When the last run finished.
    pub last_run: Option<Time>,
    /// The audit log was read up to here.
    pub read_up_to: Option<Time>,
    /// Age of the newest audit content that was listed, seconds.
    pub lag_seconds: Option<i64>,
    /// The number of the effective checkpoint; nothing for several shards, each of which has its own.
    pub checkpoint: Option<i64>,
    /// Windows that may still bring content.
    pub open_windows: usize,
    /// What later runs try again.
    pub owed: Owed,
    /// Its shards, in order; none where it is not split. A connection stands where the worst of them does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shards: Vec<Standing>,
}

/// What later runs try again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Owed {
    /// Content blobs that were not read whole.
    pub blobs: usize,
    /// Messages that were not found yet.
    pub messages: usize,
    /// Attachments without their hash.
    pub hashes: usize,
}

/// Reads where a connection stands.
///
/// # Errors
/// `lake-unavailable`, `lake-damaged`.
pub async fn standing(lake: &Lake, connection: &Connection, now: Time) -> Result<Standing> {
    let mut shards = Vec::new();
    for shard in connection.shards() {
        shards.push(of_shard(run::standing(lake, &shard).await?, connection, now));
    }
    Ok(if shards.len() == 1 { shards.remove(0) } else { together(shards) })
}

/// Where one shard stands.
fn of_shard(stands: Option<(Option<i64>, State)>, connection: &Connection, now: Time) -> Standing {
    let (checkpoint, state) = stands.map_or((None, None), |(number, state)| (number, Some(state)));
    let state = state.as_ref();
    let health = state.and_then(|state| state.health.clone());
    let decided = connection.intent.status();
    let found = health.as_ref().map_or(Status::Initializing, |health| health.status);
    let finding = health.as_ref().filter(|_| decided.is_none()).and_then(|health| {
        let code = Code::ALL.iter().find(|code| Some(code.as_str()) == health.code.as_deref())?;
        let message = health.message.clone().unwrap_or_default();
        Some(Failure { code: code.as_str(), message, hint: code.hint() })
    });
    Standing {
        status: decided.unwrap_or(found),
        since: health.filter(|_| decided.is_none()).map(|health| health.since),
        finding,
        last_run: state.and_then(|state| state.last_run),
        read_up_to: state.map(|state| state.watermark),
        lag_seconds: state.and_then(|state| state.newest_content).map(|newest| (now - newest).num_seconds().max(0)),
        checkpoint,
        open_windows: state.map_or(0, |state| state.windows.len()),
        owed: state.map_or_else(Owed::default, |state| Owed {
            blobs: state.owed.blobs.len(),
            messages: state.owed.messages.len(),
            hashes: state.owed.hashes.len(),
        }),
        shards: Vec::new(),
    }
}

/// Where several shards stand together: where the worst one does. One that never ran has read nothing yet.
fn together(shards: Vec<Standing>) -> Standing {
    let badness = |standing: &&Standing| match standing.status {
        Status::Error => 2,
        Status::Initializing => 1,
        // What an administrator decided is the same for all.
        Status::Monitoring | Status::Paused | Status::Deauthorized | Status::Removed => 0,
    };
    // Of equally bad ones the first, so that the answer stays the same.
    let worst = shards.iter().rev().max_by_key(badness).cloned().expect("a connection has a shard");
    let earliest = |time: fn(&Standing) -> Option<Time>| shards.iter().map(time).min().flatten();
    let sum = |count: fn(&Owed) -> usize| shards.iter().map(|shard| count(&shard.owed)).sum();
    Standing {
        last_run: earliest(|shard| shard.last_run),
        read_up_to: earliest(|shard| shard.read_up_to),
        lag_seconds: shards.iter().filter_map(|shard| shard.lag_seconds).max(),
        checkpoint: None,
        open_windows: shards.iter().map(|shard| shard.open_windows).sum(),
        owed: Owed {
            blobs: sum(|owed| owed.blobs),
            messages: sum(|owed| owed.messages),
            hashes: sum(|owed| owed.hashes),
        },
        shards,
        ..worst
    }
}
