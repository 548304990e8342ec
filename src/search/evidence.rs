//! Every search is evidence: who asked what, when, from where, and how many rows left.
//!
//! A search is recorded when it ends, in memory first; rows go to the lake's table `searches` in one commit every few
//! seconds, and before the program ends. Where they cannot be written they are kept and tried again, and beyond a number of
//! them nobody is answered any more: a server that cannot record searches does not search.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use uuid::Uuid;

use super::engine::Asker;
use crate::clock::Clock;
use crate::error::{Code, Error, Result};
use crate::event::{SearchOutcome, Searched};
use crate::lake::Lake;
use crate::limits;

/// What was searched and is not in the lake yet.
#[derive(Debug)]
pub(super) struct Evidence {
    lake: Lake,
    clock: Clock,
    waiting: Mutex<Vec<Searched>>,
    /// One writer at a time, so that rows reach the lake in their order.
    writing: tokio::sync::Mutex<()>,
}

impl Evidence {
    pub(super) fn new(lake: Lake, clock: Clock) -> Self {
        Self { lake, clock, waiting: Mutex::default(), writing: tokio::sync::Mutex::default() }
    }

    /// Fails when too much is waiting to be written.
    ///
    /// # Errors
    /// `lake-not-writable`.
    pub(super) fn require(&self) -> Result<()> {
        let waiting = self.waiting().len();
        match waiting < limits::SEARCHES_WAITING {
            true => Ok(()),
            false => Err(Error::new(
                Code::LakeNotWritable,
                format!("{waiting} searches could not be recorded in the lake, so no more are answered"),
            )),
        }
    }

    /// Begins the record of a search.
    pub(super) fn open(self: &Arc<Self>, asker: &Asker, statement: &str) -> Open {
        let end = statement.floor_char_boundary(limits::SEARCH_TEXT_KEPT_BYTES);
        let policy = asker.policy.is_limit().then(|| serde_json::to_string(&*asker.policy).ok()).flatten();
        Open {
            evidence: Arc::clone(self),
            began: Instant::now(),
            record: Some(Searched {
                search_id: Uuid::new_v4().to_string(),
                asked_at: self.clock.now(),
                who: asker.who.clone(),
                surface: asker.surface.as_str().to_owned(),
                address: asker.address.clone(),
                statement: statement[..end].to_owned(),
                outcome: SearchOutcome::Cancelled,
                code: None,
                rows: 0,
                duration_ms: 0,
                policy,
            }),
        }
    }

    /// Writes what is waiting.
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-not-writable`, `lake-damaged`; what could not be written waits on.
    pub(super) async fn write(&self) -> Result<()> {
        let _turn = self.writing.lock().await;
        let records = std::mem::take(&mut *self.waiting());
        let written = self.lake.record_searches(&records).await;
        if written.is_err() {
            self.waiting().splice(0..0, records);
        }
        written
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Searched>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The record of a search that has not ended. Dropped before its end, the search was cancelled.
#[derive(Debug)]
pub(super) struct Open {
    evidence: Arc<Evidence>,
    began: Instant,
    record: Option<Searched>,
}

impl Open {
    /// So many rows left until now.
    pub(super) fn rows(&mut self, rows: u64) {
        if let Some(record) = &mut self.record {
            record.rows = rows;
        }
    }

    /// It ended; only the first end counts.
    pub(super) fn end(&mut self, outcome: SearchOutcome, code: Option<Code>) {
        let Some(mut record) = self.record.take() else { return };
        record.outcome = outcome;
        record.code = code.map(|code| code.as_str().to_owned());
        record.duration_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            search = record.search_id,
            who = record.who,
            surface = record.surface,
            rows = record.rows,
            outcome = record.outcome.as_str(),
            ms = record.duration_ms,
            "searched"
        );
        self.evidence.waiting().push(record);
    }

    /// It could not be answered.
    pub(super) fn failed(&mut self, error: &Error) {
        let outcome = match error.code() {
            Code::QueryRefused | Code::NotAllowed => SearchOutcome::Refused,
            _ => SearchOutcome::Failed,
        };
        self.end(outcome, Some(error.code()));
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.end(SearchOutcome::Cancelled, None);
    }
}
