//! Where a connection stands, from the registry and its checkpoint: two small objects of the lake.

use serde::Serialize;

use crate::clock::Time;
use crate::connection::Connection;
use crate::error::{Code, Result};
use crate::event::Status;
use crate::lake::Lake;
use crate::run::{Failure, State};

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
    /// The number of the effective checkpoint.
    pub checkpoint: Option<i64>,
    /// Windows that may still bring content.
    pub open_windows: usize,
    /// What later runs try again.
    pub owed: Owed,
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
    let checkpoint = lake.checkpoint::<State>(connection.id).await?;
    let state = checkpoint.as_ref().map(|checkpoint| &checkpoint.state);
    let health = state.and_then(|state| state.health.clone());
    let decided = connection.intent.status();
    let found = health.as_ref().map_or(Status::Initializing, |health| health.status);
    let finding = health.as_ref().filter(|_| decided.is_none()).and_then(|health| {
        let code = Code::ALL.iter().find(|code| Some(code.as_str()) == health.code.as_deref())?;
        let message = health.message.clone().unwrap_or_default();
        Some(Failure { code: code.as_str(), message, hint: code.hint() })
    });
    Ok(Standing {
        status: decided.unwrap_or(found),
        since: health.filter(|_| decided.is_none()).map(|health| health.since),
        finding,
        last_run: state.and_then(|state| state.last_run),
        read_up_to: state.map(|state| state.watermark),
        lag_seconds: state.and_then(|state| state.newest_content).map(|newest| (now - newest).num_seconds().max(0)),
        checkpoint: checkpoint.as_ref().map(|checkpoint| checkpoint.number),
        open_windows: state.map_or(0, |state| state.windows.len()),
        owed: state.map_or_else(Owed::default, |state| Owed {
            blobs: state.owed.blobs.len(),
            messages: state.owed.messages.len(),
            hashes: state.owed.hashes.len(),
        }),
    })
}
