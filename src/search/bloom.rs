//! Bloom filters: which row groups may hold a hash or an id, without a look at each file.
//!
//! A look-up by hash must ask every row group of the lake whether it may hold it. DataFusion's scan does that by reading each
//! file's footer and whole filters, so that time and bytes grow with the lake. Two things make it cheap:
//!
//! - A filter consists of blocks of 32 bytes, of which a value concerns one (<https://parquet.apache.org/docs/file-format/bloomfilter/>).
//!   The log says where each filter is (`lake::BloomPlaces`), so that only this block is read.
//! - Data files never change. Whole filters are kept in memory up to a number of bytes, and a look-up adds a few megabytes
//!   to them: the first one need not wait for all, and later ones read less and less.
//!
//! Files about which the log says nothing, since an older Waybill or another program wrote them, are asked through their
//! footers; what of them does not fit into memory is left to the scan.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use datafusion::common::ScalarValue;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::ParquetAccessPlan;
use datafusion::error::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::{Guarantee, LiteralGuarantee};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectStore;
use parquet::bloom_filter::Sbbf;

use crate::lake::BloomPlaces;
use crate::limits;

/// Bytes of a block.
const BLOCK_BYTES: u64 = 32;

/// The filters of one column of one file, one for each row group; nothing for a row group without one.
type Filters = Arc<Vec<Option<Sbbf>>>;

/// Where those filters are in the file.
type Places = Vec<Option<Range<u64>>>;

/// The filters of a table's files, by path and column.
#[derive(Default)]
pub(super) struct Blooms {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    filters: HashMap<String, HashMap<&'static str, Filters>>,
    bytes: usize,
}

/// What is left to scan.
pub(super) struct Candidates {
    /// The files that may hold a row, in the table's order, with their row groups that may.
    pub(super) files: Vec<PartitionedFile>,
    /// Whether bloom filters have told all that they know, so that the scan need not ask them again.
    pub(super) are_blooms_asked: bool,
}

impl Candidates {
    /// Files of which bloom filters said nothing.
    pub(super) fn all(files: Vec<PartitionedFile>) -> Self {
        Self { files, are_blooms_asked: false }
    }
}

/// From where a look-up reads.
pub(super) struct Source<'a> {
    /// The store, rooted at the table's folder.
    pub(super) store: &'a dyn ObjectStore,
    /// Readers of files with their footers, which they keep.
    pub(super) readers: &'a dyn ParquetFileReaderFactory,
}

/// One equality that a filter asks for: the column must be one of the values.
struct Wanted {
    column: &'static str,
    values: Vec<Value>,
}

struct Value {
    text: String,
    /// Made when the first block is read.
    trace: Option<Trace>,
}

/// What a value leaves in a filter.
struct Trace {
    /// The number of blocks of the filter that it was made for, a power of two.
    blocks: u64,
    /// The one of them that the value concerns.
    block: u64,
    /// The bits that it sets there.
    bits: [u8; BLOCK_BYTES as usize],
}

/// What one look-up may still read in order to keep it.
struct Allowance(Mutex<u64>);

impl Blooms {
    /// Forgets files that are no part of the table any more.
    pub(super) fn retain(&self, files: &[PartitionedFile]) {
        let present: HashSet<&str> = files.iter().map(|file| file.object_meta.location.as_ref()).collect();
        let mut held = self.held();
        held.filters.retain(|path, _| present.contains(path.as_str()));
        let filters = held.filters.values().flat_map(HashMap::values);
        held.bytes = filters.map(|filters| bytes(filters)).sum();
    }

    /// The files that may hold a row for this filter, as far as equality with a column of `columns` rules some out, and with
    /// each of them its row groups that may.
    ///
    /// # Errors
    /// Those of the storage, and of files that are no Parquet.
    pub(super) async fn may_hold(
        &self,
        files: Vec<PartitionedFile>,
        filter: &Arc<dyn PhysicalExpr>,
        columns: &[&'static str],
        from: Source<'_>,
    ) -> Result<Candidates, DataFusionError> {
        let mut wanted = wanted(filter, columns);
        if wanted.is_empty() {
            return Ok(Candidates::all(files));
        }
        let is_all = AtomicBool::new(true);
        trace(&mut wanted, &files);
        let allowance = Allowance(Mutex::new(limits::BLOOMS_READ_BYTES));
        // In their order, since the order of files decides what a scan reads first.
        let kept = futures::stream::iter(files).map(|file| async {
            let mut row_groups: Option<Vec<bool>> = None;
            for wanted in &wanted {
                let Some(may_hold) = self.row_groups(&file, wanted, &from, &allowance).await? else {
                    is_all.store(false, Ordering::Relaxed);
                    continue;
                };
                let both = match row_groups {
                    None => may_hold,
                    Some(others) => others.iter().zip(&may_hold).map(|(one, other)| *one && *other).collect(),
                };
                if !both.contains(&true) {
                    return Ok::<_, DataFusionError>(None);
                }
                row_groups = Some(both);
            }
            Ok(Some(match row_groups {
                Some(row_groups) if row_groups.contains(&false) => file.with_extension(access(&row_groups)),
                _ => file,
            }))
        });
        let kept = kept.buffered(limits::BLOOMS_AT_ONCE).try_filter_map(|file| async { Ok(file) });
        Ok(Candidates { files: kept.try_collect().await?, are_blooms_asked: is_all.into_inner() })
    }

    /// Which row groups of a file may hold one of the values; nothing when that cannot be told for little.
    async fn row_groups(
        &self,
        file: &PartitionedFile,
        wanted: &Wanted,
        from: &Source<'_>,
        allowance: &Allowance,
    ) -> Result<Option<Vec<bool>>, DataFusionError> {
        let path = &file.object_meta.location;
        if let Some(filters) = self.held_of(path.as_ref(), wanted.column) {
            return Ok(Some(wanted.among(&filters)));
        }
        let Some(places) = file.extension::<BloomPlaces>().and_then(|places| places.of_column(wanted.column)) else {
            if self.held().bytes >= limits::BLOOMS_BYTES {
                return Ok(None);
            }
            let filters = Arc::new(read_by_footer(file, wanted.column, from.readers).await?);
            self.hold(path.as_ref(), wanted.column, &filters);
            return Ok(Some(wanted.among(&filters)));
        };
        let size: u64 = places.iter().flatten().map(|place| place.end - place.start).sum();
        let is_kept = self.has_room(size) && allowance.take(size);
        let by_blocks = wanted.values.len() as u64 * places.len() as u64 * limits::BLOOM_BLOCK_COST_BYTES;
        if !is_kept && by_blocks < size {
            return wanted.by_blocks(path, &places, from.store).await.map(Some);
        }
        let filters = Arc::new(read(path, &places, from.store).await?);
        if is_kept {
            self.hold(path.as_ref(), wanted.column, &filters);
        }
        Ok(Some(wanted.among(&filters)))
    }

    fn held_of(&self, path: &str, column: &str) -> Option<Filters> {
        self.held().filters.get(path)?.get(column).map(Arc::clone)
    }

    fn has_room(&self, size: u64) -> bool {
        self.held().bytes as u64 + size <= limits::BLOOMS_BYTES as u64
    }

    fn hold(&self, path: &str, column: &'static str, filters: &Filters) {
        let mut held = self.held();
        if held.filters.entry(path.to_owned()).or_default().insert(column, Arc::clone(filters)).is_none() {
            held.bytes += bytes(filters);
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Blooms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let held = self.held();
        write!(f, "bloom filters of {} files, {} bytes", held.filters.len(), held.bytes)
    }
}

impl Wanted {
    /// By row group, whether its filter may know one of the values.
    fn among(&self, filters: &[Option<Sbbf>]) -> Vec<bool> {
        let may_hold = |filter: &Option<Sbbf>| {
            filter.as_ref().is_none_or(|filter| self.values.iter().any(|value| filter.check(value.text.as_str())))
        };
        filters.iter().map(may_hold).collect()
    }

    /// The same by a block for each value and row group.
    async fn by_blocks(
        &self,
        path: &object_store::path::Path,
        places: &Places,
        store: &dyn ObjectStore,
    ) -> Result<Vec<bool>, DataFusionError> {
        let place_of = |filter: &Range<u64>, trace: &Trace| {
            let first = filter.start + trace.block_among((filter.end - filter.start) / BLOCK_BYTES) * BLOCK_BYTES;
            first..first + BLOCK_BYTES
        };
        let traces = || self.values.iter().filter_map(|value| value.trace.as_ref());
        let ranges: Vec<_> =
            places.iter().flatten().flat_map(|filter| traces().map(|trace| place_of(filter, trace))).collect();
        let mut blocks = store.get_ranges(path, &ranges).await?.into_iter();
        let may_hold = |filter: &Option<Range<u64>>| {
            // Without a break, so that the blocks of the next row group are next.
            let found = traces().filter(|trace| blocks.next().is_none_or(|block| trace.is_in(&block))).count();
            filter.is_none() || found > 0
        };
        Ok(places.iter().map(may_hold).collect())
    }
}

impl Trace {
    /// The trace of a value in a filter of so many blocks: what a filter with nothing else in it shows. So the hash and the
    /// choice of bits are those that the files were written with.
    fn of(value: &str, blocks: u64) -> Option<Self> {
        let mut filter = Sbbf::new_with_num_of_bytes(usize::try_from(blocks * BLOCK_BYTES).ok()?);
        filter.insert(value);
        let mut bitset = Vec::new();
        filter.write_bitset(&mut bitset).ok()?;
        let (block, bits) = (0..).zip(bitset.as_chunks().0).find(|(_, bits)| bits.iter().any(|byte| *byte != 0))?;
        Some(Self { blocks: filter.num_blocks() as u64, block, bits: *bits })
    }

    /// The block in a smaller filter: with half as many blocks, two neighbours become one.
    fn block_among(&self, blocks: u64) -> u64 {
        self.block / (self.blocks / blocks).max(1)
    }

    fn is_in(&self, block: &[u8]) -> bool {
        self.bits.iter().zip(block).all(|(bits, block)| bits & block == *bits)
    }
}

impl Allowance {
    fn take(&self, bytes: u64) -> bool {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_enough = bytes <= *left;
        if is_enough {
            *left -= bytes;
        }
        is_enough
    }
}

/// What the filter asks to be equal, among the columns that have bloom filters.
fn wanted(filter: &Arc<dyn PhysicalExpr>, columns: &[&'static str]) -> Vec<Wanted> {
    let guarantees = LiteralGuarantee::analyze(filter).into_iter();
    let equalities = guarantees.filter(|guarantee| guarantee.guarantee == Guarantee::In);
    let wanted = equalities.filter_map(|guarantee| {
        let column = columns.iter().find(|column| **column == guarantee.column.name())?;
        let text = |value: &ScalarValue| value.try_as_str().flatten().map(str::to_owned);
        let texts = guarantee.literals.iter().map(text).collect::<Option<HashSet<_>>>()?;
        let values = texts.into_iter().map(|text| Value { text, trace: None }).collect();
        Some(Wanted { column, values })
    });
    wanted.collect()
}

/// Makes the traces of the values, where there are so few that blocks are read, in the largest of the files' filters.
fn trace(wanted: &mut [Wanted], files: &[PartitionedFile]) {
    for wanted in wanted {
        let places = files.iter().filter_map(|file| file.extension::<BloomPlaces>()?.of_column(wanted.column));
        let largest = places.flatten().flatten().map(|place| place.end - place.start).max().unwrap_or_default();
        if wanted.values.len() as u64 * limits::BLOOM_BLOCK_COST_BYTES < largest {
            for value in &mut wanted.values {
                value.trace = Trace::of(&value.text, largest / BLOCK_BYTES);
            }
        }
    }
}

/// The scan of some row groups of a file.
fn access(row_groups: &[bool]) -> ParquetAccessPlan {
    let mut plan = ParquetAccessPlan::new_all(row_groups.len());
    for (number, _) in row_groups.iter().enumerate().filter(|(_, may_hold)| !**may_hold) {
        plan.skip(number);
    }
    plan
}

async fn read(
    path: &object_store::path::Path,
    places: &Places,
    store: &dyn ObjectStore,
) -> Result<Vec<Option<Sbbf>>, DataFusionError> {
    let ranges: Vec<Range<u64>> = places.iter().flatten().cloned().collect();
    let mut bitsets = store.get_ranges(path, &ranges).await?.into_iter();
    let mut next = || bitsets.next().map(|bitset: Bytes| Sbbf::new(&bitset));
    Ok(places.iter().map(|place| place.as_ref().and_then(|_| next())).collect())
}

/// The filters of a file about which the log does not say where they are.
async fn read_by_footer(
    file: &PartitionedFile,
    column: &str,
    readers: &dyn ParquetFileReaderFactory,
) -> Result<Vec<Option<Sbbf>>, DataFusionError> {
    let mut reader =
        readers.create_reader(0, file.clone(), Some(limits::FOOTER_BYTES), &ExecutionPlanMetricsSet::new())?;
    let metadata = reader.get_metadata(None).await?;
    // A file of an older Waybill may lack the column: nothing of it can be equal, and the scan knows that.
    let leaves = metadata.file_metadata().schema_descr().columns();
    let place = leaves.iter().position(|leaf| leaf.path().string() == column);
    let mut filters = Vec::new();
    for row_group in metadata.row_groups() {
        let chunk = place.map(|place| row_group.column(place));
        let at = chunk.and_then(|chunk| Some((chunk.bloom_filter_offset()?, chunk.bloom_filter_length()?)));
        let at = at.and_then(|(from, length)| Some((u64::try_from(from).ok()?, u64::try_from(length).ok()?)));
        filters.push(match at {
            Some((from, length)) => Some(Sbbf::from_bytes(&reader.get_bytes(from..from + length).await?)?),
            None => None,
        });
    }
    Ok(filters)
}

/// Bytes in memory.
fn bytes(filters: &[Option<Sbbf>]) -> usize {
    filters.iter().flatten().map(|filter| filter.num_blocks() * BLOCK_BYTES as usize).sum()
}

#[cfg(test)]
mod tests {
    use datafusion::datasource::physical_plan::parquet::DefaultParquetFileReaderFactory;
    use object_store::memory::InMemory;
    use proptest::prelude::*;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::event::FileEvent;
    use crate::event::schema::TableName;
    use crate::lake::{Commit, Lake};

    fn event(number: u128) -> FileEvent {
        let at = "2026-11-04T12:00:00Z";
        let row = json!({
            "event_id": Uuid::from_u128(number), "observed_at": at, "inserted_at": at, "hash_status": "hashed",
            "sha256": format!("{number:064x}"), "md5": format!("{number:032x}"), "recipients": [], "recipient_domains": [],
            "connection_id": "c", "connection_name": "C", "to_recipients": [], "cc_recipients": [], "bcc_recipients": [],
            "file_category": "Document", "audit_record_ids": [], "run_id": "r",
        });
        serde_json::from_value(row).unwrap()
    }

    /// A file whose filters are larger than a block is worth.
    async fn large_file() -> (Arc<dyn ObjectStore>, PartitionedFile) {
        let lake = Lake::with_store("memory:///lake/", Arc::new(InMemory::new())).unwrap();
        lake.create().await.unwrap();
        let (mut writer, _) = lake.writer::<()>(Uuid::from_u128(1), Uuid::from_u128(2)).await.unwrap();
        let rows = (0..8_000).map(event).collect();
        writer.commit(Commit { rows, replaces: Vec::new(), outbox: Default::default(), state: () }).await.unwrap();
        let table = lake.table(TableName::FileEvents).await.unwrap();
        let file = table.files().await.unwrap().remove(0);
        let places = file.bloom_places.unwrap();
        (table.store(), PartitionedFile::new(file.path.to_string(), file.size).with_extension(places))
    }

    #[tokio::test]
    async fn a_look_up_that_may_not_keep_a_filter_reads_a_block_of_it() {
        let (store, file) = large_file().await;
        let readers = DefaultParquetFileReaderFactory::new(Arc::clone(&store));
        let from = Source { store: store.as_ref(), readers: &readers };
        let blooms = Blooms::default();
        let ask = async |values: &[String], allowed| {
            let values = values.iter().map(|text| Value { text: text.clone(), trace: None }).collect();
            let mut wanted = [Wanted { column: "md5", values }];
            trace(&mut wanted, std::slice::from_ref(&file));
            let allowance = Allowance(Mutex::new(allowed));
            let found = blooms.row_groups(&file, &wanted[0], &from, &allowance).await.unwrap().unwrap();
            (found, wanted[0].values[0].trace.is_some(), blooms.held().bytes)
        };
        let md5 = |number: u128| format!("{number:032x}");
        for number in [0, 4_711, 7_999] {
            assert_eq!(ask(&[md5(number)], 0).await, (vec![true], true, 0));
        }
        let absent: Vec<String> = (8_000..8_400).map(md5).collect();
        let mut doubtful = 0;
        for value in &absent {
            doubtful += usize::from(ask(std::slice::from_ref(value), 0).await.0[0]);
        }
        assert!(doubtful < 3, "{doubtful} of 400 absent values seem to be there");
        // Many values at once: the whole filter is read, and dropped where it may not be kept.
        let (found, _, held) = ask(&[&absent[..], &[md5(9)]].concat(), 0).await;
        assert_eq!((found, held), (vec![true], 0));
        let (found, _, held) = ask(&[md5(9)], u64::MAX).await;
        assert_eq!((found, held), (vec![true], 32 * 1024));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_block_says_what_the_whole_filter_says(
            size in 0..8_u32,
            larger in 0..5_u32,
            inside in proptest::collection::vec("[0-9a-f]{0,64}", 0..200),
            others in proptest::collection::vec("[0-9a-f]{0,64}", 0..200),
        ) {
            let mut filter = Sbbf::new_with_num_of_bytes(32 << size);
            inside.iter().for_each(|value| filter.insert(value.as_str()));
            let mut bitset = Vec::new();
            filter.write_bitset(&mut bitset).unwrap();
            for value in inside.iter().chain(&others) {
                // The trace is that of the largest filter of a lake.
                let trace = Trace::of(value, 1 << (size + larger)).unwrap();
                let block = trace.block_among(1 << size) as usize * 32;
                let says = trace.is_in(&bitset[block..block + 32]);
                prop_assert_eq!(says, filter.check(value.as_str()), "{} in {} blocks", value, 1 << size);
            }
        }
    }
}
