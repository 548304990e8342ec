//! An answer on its way: within its limits, and on record when it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::ExecutionPlan;
use futures::TryStreamExt as _;
use tokio::sync::OwnedSemaphorePermit;

use super::evidence::Open;
use super::query_error;
use crate::error::{Code, Error, Result};
use crate::event::SearchOutcome;

/// How much one answer may take beside memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    /// Time in which the engine works on it; the time in which whoever asked does something else does not count.
    pub(super) time: Option<Duration>,
    /// Rows.
    pub(super) rows: Option<u64>,
}

/// An answer on its way. Dropping it cancels the query.
pub struct Answer {
    schema: SchemaRef,
    batches: SendableRecordBatchStream,
    gauge: Gauge,
    bounds: Bounds,
    worked: Duration,
    /// What is recorded of it; nothing for Waybill's own looks.
    evidence: Option<Open>,
    rows: u64,
    _place: Option<OwnedSemaphorePermit>,
}

impl Answer {
    pub(super) fn new(
        batches: SendableRecordBatchStream,
        gauge: Gauge,
        bounds: Bounds,
        worked: Duration,
        evidence: Option<Open>,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self { schema: batches.schema(), batches, gauge, bounds, worked, evidence, rows: 0, _place: place }
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Tells how far the work is, also while somebody waits for the next rows.
    pub fn gauge(&self) -> Gauge {
        self.gauge.clone()
    }

    /// The next rows; nothing at the end.
    ///
    /// # Errors
    /// `query-invalid` when the query fails while it runs, `query-too-large` and `query-timeout` at its limits;
    /// `lake-unavailable`, `lake-damaged`.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let next = self.bounded().await;
        if let Some(evidence) = &mut self.evidence {
            match &next {
                Ok(Some(_)) => evidence.rows(self.rows),
                Ok(None) => evidence.end(SearchOutcome::Done, None),
                Err(error) => evidence.end(SearchOutcome::Failed, Some(error.code())),
            }
        }
        next
    }

    async fn bounded(&mut self) -> Result<Option<RecordBatch>> {
        let began = Instant::now();
        let next = match self.bounds.time {
            None => self.batches.try_next().await,
            Some(time) => {
                let left = time.saturating_sub(self.worked);
                match tokio::time::timeout(left, self.batches.try_next()).await {
                    Ok(next) => next,
                    Err(_) => return Err(timeout(time)),
                }
            }
        };
        self.worked += began.elapsed();
        let next = next.map_err(|error| query_error(error, Code::QueryInvalid))?;
        self.rows += next.as_ref().map_or(0, |batch| batch.num_rows() as u64);
        match self.bounds.rows {
            Some(most) if self.rows > most => Err(Error::new(
                Code::QueryTooLarge,
                format!("the answer has more than the {most} rows that one query may have here"),
            )),
            _ => Ok(next),
        }
    }

    /// All rows; for answers that are known to be small.
    ///
    /// # Errors
    /// Like [`Answer::next`].
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await? {
            batches.push(batch);
        }
        Ok(batches)
    }

    /// The rows as JSON objects; for answers that are known to be small.
    ///
    /// # Errors
    /// Like [`Answer::next`].
    pub async fn objects(self) -> Result<Vec<serde_json::Map<String, serde_json::Value>>> {
        let batches = self.collect().await?;
        let mut writer = arrow::json::WriterBuilder::new()
            .with_explicit_nulls(true)
            .build::<_, arrow::json::writer::JsonArray>(Vec::new());
        let failed = |error| Error::new(Code::Internal, format!("cannot write rows as JSON: {error}"));
        for batch in &batches {
            writer.write(batch).map_err(failed)?;
        }
        writer.finish().map_err(failed)?;
        let text = writer.into_inner();
        if text.is_empty() {
            return Ok(Vec::new());
        }
        serde_json::from_slice(&text)
            .map_err(|error| Error::new(Code::Internal, format!("cannot read rows as JSON: {error}")))
    }

    /// The batches as a stream that owns the answer.
    pub fn into_stream(self) -> impl futures::Stream<Item = Result<RecordBatch>> + Send + 'static {
        futures::stream::try_unfold(
            self,
            |mut answer| async move { Ok(answer.next().await?.map(|batch| (batch, answer))) },
        )
    }
}

/// How far the work on an answer is.
#[derive(Clone, Debug)]
pub struct Gauge(Arc<dyn ExecutionPlan>);

/// What was read for an answer until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Rows that left the tables; rows that a filter dropped while it read are not among them.
    pub rows: u64,
    /// Bytes that were fetched from storage.
    pub bytes: u64,
}

impl Gauge {
    pub(super) fn of(plan: Arc<dyn ExecutionPlan>) -> Self {
        Self(plan)
    }

    /// What was read until now; costs a walk over the plan.
    pub fn scanned(&self) -> Scanned {
        let mut scanned = Scanned::default();
        // The depth of a plan is bounded by that of its statement, and this does not go down into itself.
        let mut plans = vec![&self.0];
        while let Some(plan) = plans.pop() {
            let children = plan.children();
            if children.is_empty()
                && let Some(metrics) = plan.metrics()
            {
                let count = |value: Option<usize>| value.unwrap_or_default() as u64;
                scanned.rows += count(metrics.output_rows());
                scanned.bytes += count(metrics.sum_by_name("bytes_scanned").map(|value| value.as_usize()));
            }
            plans.extend(children);
        }
        scanned
    }
}

/// The refusal of a query that takes too long.
pub(super) fn timeout(time: Duration) -> Error {
    Error::new(Code::QueryTimeout, format!("the query was not done after {} s", time.as_secs()))
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("schema", &self.schema).field("rows", &self.rows).finish_non_exhaustive()
    }
}
