//! A question at work on the runtime's threads, so that whoever waits for it can hear a signal however busy the engine is.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::error::{Code, Error, Result};
use crate::limits;
use crate::search::{Answer, Gauge};

/// What comes of a question.
pub(super) enum Event {
    /// It is understood: the columns, and how far the work is.
    Begun(SchemaRef, Gauge),
    /// The next rows.
    Rows(RecordBatch),
}

/// A question at work. Dropping it cancels the query.
pub(super) struct Asked {
    events: mpsc::Receiver<Event>,
    /// One task; a set of them ends with its owner.
    work: JoinSet<Result<()>>,
}

impl Asked {
    /// Starts the work.
    pub(super) fn begin(question: impl Future<Output = Result<Answer>> + Send + 'static) -> Self {
        let (sender, events) = mpsc::channel(limits::BATCHES_AHEAD);
        let mut work = JoinSet::new();
        work.spawn(async move {
            let mut answer = question.await?;
            // Whoever does not listen any more has had enough.
            if sender.send(Event::Begun(SchemaRef::clone(answer.schema()), answer.gauge())).await.is_err() {
                return Ok(());
            }
            while let Some(batch) = answer.next().await? {
                if sender.send(Event::Rows(batch)).await.is_err() {
                    return Ok(());
                }
            }
            Ok(())
        });
        Self { events, work }
    }

    /// Cancels the query, and waits until it is on record: whoever ends the program next would lose that. A query that
    /// computes for long without a pause is not waited for.
    pub(super) async fn stop(mut self) {
        let _ = tokio::time::timeout(limits::QUERY_STOP_AWAITED, self.work.shutdown()).await;
    }

    /// What comes next; nothing at the end.
    ///
    /// # Errors
    /// What the question fails with.
    pub(super) async fn next(&mut self) -> Result<Option<Event>> {
        if let Some(event) = self.events.recv().await {
            return Ok(Some(event));
        }
        match self.work.join_next().await {
            Some(Ok(ended)) => ended.map(|()| None),
            Some(Err(failure)) if failure.is_panic() => std::panic::resume_unwind(failure.into_panic()),
            Some(Err(_)) => Err(Error::new(Code::Interrupted, "the query was cancelled")),
            None => Ok(None),
        }
    }
}
