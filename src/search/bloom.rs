//! Bloom filters in memory: which files may hold a hash or an id, without a look at each of them.
//!
//! A look-up by hash must ask every file of the lake whether it may hold it. DataFusion's scan does that by opening each and
//! reading its filters, so that the time grows with the number of days. Data files never change; here their filters stay
//! in memory once they were read, up to a number of bytes, and a look-up opens only the files that say "perhaps". What
//! does not fit is left to the scan.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::common::ScalarValue;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::error::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::{Guarantee, LiteralGuarantee};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::{StreamExt as _, TryStreamExt as _};
use parquet::bloom_filter::Sbbf;

use crate::limits;

/// The filters of one column of one file, one for each row group; nothing for a row group without one.
type Filters = Arc<Vec<Option<Sbbf>>>;

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

/// One equality that a filter asks for: the column must be one of the values.
struct Wanted {
    column: &'static str,
    values: HashSet<String>,
}

impl Blooms {
    /// Forgets files that are no part of the table any more.
    pub(super) fn retain(&self, files: &[PartitionedFile]) {
        let present: HashSet<&str> = files.iter().map(|file| file.object_meta.location.as_ref()).collect();
        let mut held = self.held();
        held.filters.retain(|path, _| present.contains(path.as_str()));
        let filters = held.filters.values().flat_map(HashMap::values);
        held.bytes = filters.map(|filters| bytes(filters)).sum();
    }

    /// The files that may hold a row for this filter, as far as equality with a column of `columns` rules some out.
    ///
    /// # Errors
    /// Those of the storage, and of files that are no Parquet.
    pub(super) async fn may_hold(
        &self,
        files: Vec<PartitionedFile>,
        filter: &Arc<dyn PhysicalExpr>,
        columns: &[&'static str],
        readers: &dyn ParquetFileReaderFactory,
    ) -> Result<Vec<PartitionedFile>, DataFusionError> {
        let wanted = wanted(filter, columns);
        if wanted.is_empty() {
            return Ok(files);
        }
        // In their order, since the order of files decides what a scan reads first.
        let kept = futures::stream::iter(files).map(|file| async {
            for wanted in &wanted {
                let Some(filters) = self.of(&file, wanted.column, readers).await? else { continue };
                let may_hold = |filter: &Option<Sbbf>| {
                    filter.as_ref().is_none_or(|filter| wanted.values.iter().any(|value| filter.check(value.as_str())))
                };
                if !filters.iter().any(may_hold) {
                    return Ok(None);
                }
            }
            Ok(Some(file))
        });
        kept.buffered(limits::BLOOMS_AT_ONCE).try_filter_map(|file| async { Ok(file) }).try_collect().await
    }

    /// The filters of a file's column; nothing when they would not fit.
    async fn of(
        &self,
        file: &PartitionedFile,
        column: &'static str,
        readers: &dyn ParquetFileReaderFactory,
    ) -> Result<Option<Filters>, DataFusionError> {
        let path = file.object_meta.location.as_ref();
        {
            let held = self.held();
            if let Some(filters) = held.filters.get(path).and_then(|columns| columns.get(column)) {
                return Ok(Some(Arc::clone(filters)));
            }
            if held.bytes >= limits::BLOOMS_BYTES {
                return Ok(None);
            }
        }
        let filters = Arc::new(read(file, column, readers).await?);
        let mut held = self.held();
        if held.filters.entry(path.to_owned()).or_default().insert(column, Arc::clone(&filters)).is_none() {
            held.bytes += bytes(&filters);
        }
        Ok(Some(filters))
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

/// What the filter asks to be equal, among the columns that have bloom filters.
fn wanted(filter: &Arc<dyn PhysicalExpr>, columns: &[&'static str]) -> Vec<Wanted> {
    let guarantees = LiteralGuarantee::analyze(filter).into_iter();
    let equalities = guarantees.filter(|guarantee| guarantee.guarantee == Guarantee::In);
    let wanted = equalities.filter_map(|guarantee| {
        let column = columns.iter().find(|column| **column == guarantee.column.name())?;
        let text = |value: &ScalarValue| value.try_as_str().flatten().map(str::to_owned);
        let values = guarantee.literals.iter().map(text).collect::<Option<HashSet<_>>>()?;
        Some(Wanted { column, values })
    });
    wanted.collect()
}

async fn read(
    file: &PartitionedFile,
    column: &str,
    readers: &dyn ParquetFileReaderFactory,
) -> Result<Vec<Option<Sbbf>>, DataFusionError> {
    let mut reader = readers.create_reader(0, file.clone(), None, &ExecutionPlanMetricsSet::new())?;
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

/// Bytes in memory: a block has 32 (<https://parquet.apache.org/docs/file-format/bloomfilter/>).
fn bytes(filters: &[Option<Sbbf>]) -> usize {
    filters.iter().flatten().map(|filter| filter.num_blocks() * 32).sum()
}
