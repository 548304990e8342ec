//! How often a sender used a destination in the days before.
//!
//! It takes all uses of the past to say that of one event. As rows that are grouped, counted and joined, the past of ten million
//! events needed more memory than a query has; here it is sixteen bytes a use while it is read, and eight afterwards:
//!
//! ```text
//!   past     (sender, time, untrusted domains) … ──▶ sender → domain → times, sorted, each once
//!   events   … ──▶ for each untrusted domain the times within the days before ──▶ the fewest: `destination_uses`
//! ```
//!
//! With millions of uses a search waits for memory and for nothing else, so what is searched lies close together.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray as _, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::hash_utils::RandomState;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result as PlanResult, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableType};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties as _, PlanProperties, execute_stream,
};
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _};

use super::rules::{Helper, texts};
use super::steps::{micros, places};

/// What the past and the events have to have, in this order in the past: a text, a time, a list of texts.
const KEYS: [&str; 3] = ["sender", "observed_at", "untrusted_domains"];

/// Events with [`Helper::DestinationUses`] as their last column.
#[derive(Debug)]
pub(super) struct WithHistory {
    events: LogicalPlan,
    past: LogicalPlan,
    back: i64,
    schema: SchemaRef,
}

impl WithHistory {
    /// `past` has the columns sender, time, untrusted domains, and all uses that count; `back` is how far, in microseconds.
    pub(super) fn new(events: LogicalPlan, past: LogicalPlan, back: i64) -> Self {
        let schema = with_uses(events.schema().as_arrow());
        Self { events, past, back, schema }
    }
}

fn with_uses(events: &Schema) -> SchemaRef {
    let mut fields = events.fields().to_vec();
    fields.push(Arc::new(Field::new(Helper::DestinationUses.name(), DataType::Int64, true)));
    Arc::new(Schema::new(fields))
}

#[async_trait]
impl TableProvider for WithHistory {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let uses = self.schema.fields().len() - 1;
        let asked = projection.cloned().unwrap_or_else(|| (0..=uses).collect());
        let mut read: Vec<usize> = asked.iter().copied().filter(|place| *place < uses).collect();
        for key in KEYS {
            let place = self.schema.index_of(key)?;
            if !read.contains(&place) {
                read.push(place);
            }
        }
        let columns = self.events.schema().columns();
        let columns = read.iter().map(|place| Expr::Column(columns[*place].clone()));
        let events = LogicalPlanBuilder::from(self.events.clone()).project(columns)?.build()?;
        let events = state.create_physical_plan(&events).await?;
        let past = state.create_physical_plan(&self.past).await?;
        let joined: Arc<dyn ExecutionPlan> = Arc::new(HistoryExec::new(past, events, self.back));
        let columns = asked.iter().map(|place| {
            let name = self.schema.field(*place).name();
            let at = read.iter().position(|other| other == place).unwrap_or(read.len());
            (Arc::new(Column::new(name, at)) as Arc<dyn PhysicalExpr>, name.clone())
        });
        Ok(Arc::new(ProjectionExec::try_new(columns, joined)?))
    }
}

type Made = Shared<BoxFuture<'static, Result<Arc<History>, Arc<DataFusionError>>>>;

/// Reads the past as a whole, then adds a column to the events as they come.
struct HistoryExec {
    past: Arc<dyn ExecutionPlan>,
    events: Arc<dyn ExecutionPlan>,
    back: i64,
    properties: Arc<PlanProperties>,
    /// One for all partitions of the events.
    made: Mutex<Option<Made>>,
}

impl HistoryExec {
    fn new(past: Arc<dyn ExecutionPlan>, events: Arc<dyn ExecutionPlan>, back: i64) -> Self {
        let schema = with_uses(&events.schema());
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(schema),
            events.output_partitioning().clone(),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        Self { past, events, back, properties, made: Mutex::default() }
    }

    fn history(&self, context: &Arc<TaskContext>) -> PlanResult<Made> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = made.as_ref() {
            return Ok(made.clone());
        }
        let past = execute_stream(Arc::clone(&self.past), Arc::clone(context))?;
        let reservation = MemoryConsumer::new("RiskHistory").register(context.memory_pool());
        let history = History::of(past, self.back, reservation).map_ok(Arc::new).map_err(Arc::new);
        Ok(made.insert(history.boxed().shared()).clone())
    }
}

impl fmt::Debug for HistoryExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HistoryExec").field("past", &self.past).field("events", &self.events).finish_non_exhaustive()
    }
}

impl DisplayAs for HistoryExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HistoryExec: {} µs back", self.back)
    }
}

impl ExecutionPlan for HistoryExec {
    fn name(&self) -> &str {
        "HistoryExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.past, &self.events]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false, false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> PlanResult<TreeNodeRecursion>,
    ) -> PlanResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> PlanResult<Arc<dyn ExecutionPlan>> {
        match <[Arc<dyn ExecutionPlan>; 2]>::try_from(children) {
            Ok([past, events]) => Ok(Arc::new(Self::new(past, events, self.back))),
            Err(children) => internal_err!("HistoryExec has two children, not {}", children.len()),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> PlanResult<SendableRecordBatchStream> {
        let history = self.history(&context)?.map_err(DataFusionError::Shared);
        let events = self.events.execute(partition, context)?;
        let schema = self.schema();
        let of_events = Arc::clone(&schema);
        let added = history.map_ok(move |history| events.map(move |batch| history.add_to(&batch?, &of_events)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, added.try_flatten_stream())))
    }
}

/// When each sender used each destination.
struct History {
    senders: Numbers,
    domains: Numbers,
    /// Of each sender.
    destinations: Vec<Destinations>,
    back: i64,
    /// Holds what it takes of the query's memory until it is dropped.
    _reservation: MemoryReservation,
}

/// The destinations of one sender.
struct Destinations {
    /// By their number, with the place of the first of their times; nobody has four billion.
    domains: Vec<(u32, u32)>,
    /// Of one destination after the other, sorted, each once.
    times: Vec<i64>,
}

impl Destinations {
    fn of(mut uses: Vec<(u32, i64)>) -> Self {
        uses.sort_unstable();
        uses.dedup();
        let mut domains: Vec<(u32, u32)> = Vec::new();
        for (place, (domain, _)) in (0..).zip(&uses) {
            if domains.last().is_none_or(|(last, _)| last != domain) {
                domains.push((*domain, place));
            }
        }
        Self { domains, times: uses.iter().map(|(_, time)| *time).collect() }
    }

    fn times(&self, domain: u32) -> &[i64] {
        let Ok(place) = self.domains.binary_search_by_key(&domain, |(domain, _)| *domain) else { return &[] };
        let first = |place: usize| self.domains.get(place).map(|(_, first)| *first as usize);
        &self.times[first(place).unwrap_or_default()..first(place + 1).unwrap_or(self.times.len())]
    }

    fn bytes(&self) -> usize {
        size_of_val(self.domains.as_slice()) + size_of_val(self.times.as_slice())
    }
}

/// What was read of the past until now.
#[derive(Default)]
struct Learned {
    senders: Numbers,
    domains: Numbers,
    /// Of each sender, domains and times.
    uses: Vec<Vec<(u32, i64)>>,
    /// The bytes of the uses.
    bytes: usize,
}

/// Texts as small numbers.
#[derive(Default)]
struct Numbers {
    of: HashMap<Box<str>, u32, RandomState>,
    bytes: usize,
}

impl Numbers {
    /// Bytes of an entry beside its text.
    const ENTRY_BYTES: usize = 48;

    fn of(&mut self, text: &str) -> u32 {
        if let Some(number) = self.of.get(text) {
            return *number;
        }
        // There are fewer senders and domains than that.
        let number = u32::try_from(self.of.len()).unwrap_or(u32::MAX);
        self.of.insert(text.into(), number);
        self.bytes += text.len() + Self::ENTRY_BYTES;
        number
    }
}

/// The columns [`KEYS`] of a batch.
struct Uses {
    senders: ArrayRef,
    times: ArrayRef,
    domains: ArrayRef,
}

impl Uses {
    fn of(columns: [&ArrayRef; 3]) -> PlanResult<Self> {
        let [senders, times, domains] = columns;
        Ok(Self { senders: cast(senders, &DataType::Utf8)?, times: micros(times)?, domains: cast(domains, &texts())? })
    }

    /// Calls `each` with the sender, the time and the domains of every row; without them where a row lacks any.
    fn each(&self, mut each: impl FnMut(Option<(&str, i64, &mut dyn Iterator<Item = &str>)>)) {
        let senders = self.senders.as_string::<i32>();
        let times = self.times.as_primitive::<TimestampMicrosecondType>();
        let domains = self.domains.as_list::<i32>();
        let names = domains.values().as_string::<i32>();
        for row in 0..senders.len() {
            if senders.is_null(row) || times.is_null(row) || domains.is_null(row) {
                each(None);
                continue;
            }
            let places = places(domains, row).filter(|place| names.is_valid(*place));
            each(Some((senders.value(row), times.value(row), &mut places.map(|place| names.value(place)))));
        }
    }
}

impl Learned {
    fn learn(&mut self, uses: &Uses) {
        const USE_BYTES: usize = size_of::<(u32, i64)>();
        uses.each(|row| {
            let Some((sender, time, domains)) = row else { return };
            let sender = self.senders.of(sender) as usize;
            if sender >= self.uses.len() {
                self.uses.resize_with(sender + 1, Vec::new);
            }
            let uses = &mut self.uses[sender];
            let before = uses.capacity();
            for domain in domains {
                let it = (self.domains.of(domain), time);
                // The attachments of a message follow each other.
                if uses.last() != Some(&it) {
                    uses.push(it);
                }
            }
            self.bytes += (uses.capacity() - before) * USE_BYTES;
        });
    }
}

impl History {
    async fn of(mut past: SendableRecordBatchStream, back: i64, reservation: MemoryReservation) -> PlanResult<Self> {
        let mut learned = Learned::default();
        while let Some(batch) = past.try_next().await? {
            learned.learn(&Uses::of([batch.column(0), batch.column(1), batch.column(2)])?);
            reservation.try_resize(learned.bytes + learned.senders.bytes + learned.domains.bytes)?;
        }
        let Learned { senders, domains, uses, .. } = learned;
        let destinations: Vec<Destinations> = uses.into_iter().map(Destinations::of).collect();
        let bytes: usize = destinations.iter().map(|of_one| of_one.bytes() + size_of::<Destinations>()).sum();
        reservation.try_resize(bytes + senders.bytes + domains.bytes)?;
        Ok(Self { senders, domains, destinations, back, _reservation: reservation })
    }

    /// The fewest uses of one of these domains; nothing where there are none.
    fn fewest(&self, sender: &str, time: i64, domains: &mut dyn Iterator<Item = &str>) -> Option<i64> {
        let destinations = &self.destinations[*self.senders.of.get(sender)? as usize];
        let counts = domains.filter_map(|domain| {
            let times = destinations.times(*self.domains.of.get(domain)?);
            let from = time.saturating_sub(self.back);
            let until = times.partition_point(|other| *other <= time);
            // Often the past begins within the days before.
            let is_all = times.first().is_some_and(|first| *first >= from);
            let since = if is_all { 0 } else { times[..until].partition_point(|other| *other < from) };
            i64::try_from(until - since).ok()
        });
        counts.min().filter(|uses| *uses > 0)
    }

    fn add_to(&self, events: &RecordBatch, schema: &SchemaRef) -> PlanResult<RecordBatch> {
        let place = |name| events.schema_ref().index_of(name);
        let columns = [place(KEYS[0])?, place(KEYS[1])?, place(KEYS[2])?].map(|place| events.column(place));
        let mut uses = Vec::with_capacity(events.num_rows());
        Uses::of(columns)?.each(|row| {
            uses.push(row.and_then(|(sender, time, domains)| self.fewest(sender, time, domains)));
        });
        let mut columns = events.columns().to_vec();
        columns.push(Arc::new(Int64Array::from(uses)));
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use arrow::array::{ListArray, StringArray, TimestampMicrosecondArray};
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
    use datafusion::physical_plan::memory::MemoryStream;
    use proptest::prelude::*;

    use super::*;

    type Row = (Option<u8>, i64, Vec<u8>);

    fn batch(rows: &[Row]) -> RecordBatch {
        let senders: StringArray = rows.iter().map(|(sender, ..)| sender.map(|sender| format!("s{sender}"))).collect();
        let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|(_, time, _)| *time));
        let mut domains = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new());
        for (.., names) in rows {
            names.iter().for_each(|name| domains.values().append_value(format!("d{name}")));
            domains.append(true);
        }
        let domains: ListArray = domains.finish();
        let columns: [(&str, ArrayRef); 3] = [
            (KEYS[0], Arc::new(senders)),
            (KEYS[1], Arc::new(times.with_timezone("UTC"))),
            (KEYS[2], Arc::new(domains)),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
    }

    fn stream(batches: Vec<RecordBatch>, schema: SchemaRef) -> SendableRecordBatchStream {
        Box::pin(MemoryStream::try_new(batches, schema, None).unwrap())
    }

    fn reservation(bytes: usize) -> MemoryReservation {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(bytes));
        MemoryConsumer::new("test").register(&pool)
    }

    /// For one row, as it is defined.
    fn expected(rows: &[Row], (sender, time, domains): &Row, back: i64) -> Option<i64> {
        (*sender)?;
        let uses = |domain: &u8| {
            let same = rows
                .iter()
                .filter(|(other, at, to)| other == sender && to.contains(domain) && (time - back..=*time).contains(at));
            same.map(|(_, at, _)| *at).collect::<BTreeSet<_>>().len() as i64
        };
        domains.iter().map(uses).min()
    }

    proptest! {
        #[test]
        fn uses_are_counted_as_they_are_defined(
            rows in proptest::collection::vec(
                (proptest::option::weighted(0.9, 0_u8..3), 0_i64..40, proptest::collection::vec(0_u8..4, 0..3)), 0..60),
            cut in 0_usize..60,
            back in 0_i64..20,
        ) {
            let cut = cut.min(rows.len());
            let batches = vec![batch(&rows[..cut]), batch(&rows[cut..])];
            let schema = batches[0].schema();
            let past = stream(batches.clone(), Arc::clone(&schema));
            let history = History::of(past, back, reservation(1 << 20)).now_or_never().unwrap().unwrap();
            let mut found = Vec::new();
            for batch in &batches {
                let with_uses = history.add_to(batch, &with_uses(&schema)).unwrap();
                let uses = with_uses.column(3).as_primitive::<arrow::datatypes::Int64Type>();
                found.extend(uses.iter());
            }
            let expected: Vec<_> = rows.iter().map(|row| expected(&rows, row, back)).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_past_that_does_not_fit_into_memory_is_an_error() {
        let rows: Vec<Row> = (0..1_000).map(|time| (Some(1), time, vec![1])).collect();
        let rows = batch(&rows);
        let past = stream(vec![rows.clone()], rows.schema());
        let error = History::of(past, 1, reservation(1_000)).now_or_never().unwrap().err().unwrap();
        assert!(matches!(error, DataFusionError::ResourcesExhausted(_)), "{error}");
    }
}
