//! The first rows of an order: only from the files that can hold them.
//!
//! `ORDER BY observed_at DESC LIMIT 100` needs the newest rows, and the log tells between which times the rows of each file
//! are. DataFusion reads the newest file first and skips a file when the rows found until then rule it out; but it must come to
//! each of them for that. Here those that cannot matter leave the plan:
//!
//! ```text
//!   file          a        b        c        d
//!   values     [1, 9]  [10, 19]  [18, 29]  [30, 39]      the greatest 100, of which c and d have 60 each
//!                                 └── all rows of c and d are at least 18, and they are enough ──┘
//!               out      stays: its 19 may be one of them
//! ```

use std::sync::Arc;

use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _};
use datafusion::common::{Result as PlanResult, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, DynamicFilterPhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, replace_children_if_necessary};

/// Takes files out of the scan below a sort that keeps its first rows only.
#[derive(Debug)]
pub(super) struct FirstFiles;

impl PhysicalOptimizerRule for FirstFiles {
    fn name(&self) -> &str {
        "first_files"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let narrowed = plan.transform_down(|plan| match plan.downcast_ref::<SortExec>().and_then(narrowed) {
            Some(input) => replace_children_if_necessary(plan, vec![input]).map(Transformed::yes),
            None => Ok(Transformed::no(plan)),
        });
        narrowed.data()
    }
}

/// The input of a sort without the files that hold none of its first rows; nothing when that is all of them, or not known.
fn narrowed(sort: &SortExec) -> Option<Arc<dyn ExecutionPlan>> {
    let (fetch, first) = (sort.fetch()?, sort.expr().first());
    let (scan, _) = sort.input().downcast_ref::<DataSourceExec>()?.downcast_to_file_source::<ParquetSource>()?;
    // Rows that a filter drops are in the files' numbers of rows. The filter that the sort itself moves drops no row that counts.
    let filter = scan.file_source().filter();
    if !filter.is_none_or(|filter| filter.is::<DynamicFilterPhysicalExpr>()) || scan.limit.is_some() {
        return None;
    }
    let column = column_of_file(scan, &first.expr)?;
    let bounds = scan.file_groups.iter().flat_map(FileGroup::iter).map(|file| Bounds::of(file, column));
    let needed = needed(&bounds.collect::<Option<Vec<_>>>()?, fetch, first.options.descending)?;
    let mut needed = needed.into_iter();
    let groups = scan
        .file_groups
        .iter()
        .map(|group| FileGroup::new(group.iter().filter(|_| needed.next().unwrap_or(true)).cloned().collect()));
    let groups: Vec<FileGroup> = groups.filter(|group| !group.is_empty()).collect();
    let scan = FileScanConfigBuilder::from(scan.clone()).with_file_groups(groups).build();
    Some(DataSourceExec::from_data_source(scan))
}

/// The place of a scan's column among those of its files.
pub(super) fn column_of_file(scan: &FileScanConfig, expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    let place = expr.downcast_ref::<Column>()?.index();
    match scan.file_source().projection() {
        None => Some(place),
        Some(projection) => Some(projection.as_ref().get(place)?.expr.downcast_ref::<Column>()?.index()),
    }
}

/// Between which values the rows of a file are; none of them is null.
struct Bounds {
    rows: usize,
    least: ScalarValue,
    greatest: ScalarValue,
}

impl Bounds {
    fn of(file: &PartitionedFile, column: usize) -> Option<Self> {
        let statistics = file.statistics.as_ref()?;
        let known = statistics.column_statistics.get(column)?;
        match (&statistics.num_rows, known.null_count.get_value(), &known.min_value, &known.max_value) {
            (Precision::Exact(rows), Some(0), Precision::Exact(least), Precision::Exact(greatest)) => {
                // Of a file that is read in parts, each has all that is known of it; its rows count once.
                let is_first = file.range.as_ref().is_none_or(|range| range.start == 0);
                Some(Self { rows: if is_first { *rows } else { 0 }, least: least.clone(), greatest: greatest.clone() })
            }
            _ => None,
        }
    }
}

/// Of each file, whether it may hold one of the first rows; nothing when all of them may.
fn needed(files: &[Bounds], fetch: usize, is_descending: bool) -> Option<Vec<bool>> {
    // Every row of a file comes no later than its last value, and none before its first.
    let first = |file: &Bounds| if is_descending { file.greatest.clone() } else { file.least.clone() };
    let last = |file: &Bounds| if is_descending { file.least.clone() } else { file.greatest.clone() };
    let is_before = |a: ScalarValue, b: ScalarValue| if is_descending { a > b } else { a < b };
    let mut by_last: Vec<&Bounds> = files.iter().collect();
    let ascending = |a: &&Bounds, b: &&Bounds| last(a).partial_cmp(&last(b)).unwrap_or(std::cmp::Ordering::Equal);
    by_last.sort_by(|a, b| if is_descending { ascending(b, a) } else { ascending(a, b) });
    let mut rows = 0_usize;
    let enough = by_last.into_iter().find(|file| {
        rows = rows.saturating_add(file.rows);
        rows >= fetch
    })?;
    let needed: Vec<bool> = files.iter().map(|file| !is_before(last(enough), first(file))).collect();
    (!needed.iter().all(|is_needed| *is_needed)).then_some(needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(files: &[(usize, i64, i64)]) -> Vec<Bounds> {
        let value = |value| ScalarValue::Int64(Some(value));
        files.iter().map(|(rows, a, b)| Bounds { rows: *rows, least: value(*a), greatest: value(*b) }).collect()
    }

    #[test]
    fn a_file_stays_where_one_of_its_rows_may_be_among_the_first() {
        let days = files(&[(60, 1, 9), (60, 10, 19), (60, 18, 29), (60, 30, 39)]);
        for (fetch, is_descending, expected) in [
            (100, true, Some(vec![false, true, true, true])),
            (60, true, Some(vec![false, false, false, true])),
            (61, true, Some(vec![false, true, true, true])),
            (121, true, Some(vec![false, true, true, true])),
            (181, true, None),
            (1, false, Some(vec![true, false, false, false])),
            (100, false, Some(vec![true, true, true, false])),
            (1000, false, None),
        ] {
            assert_eq!(needed(&days, fetch, is_descending), expected, "{fetch} {is_descending}");
        }
        // Equal values may be taken from either file.
        let equal = files(&[(10, 1, 5), (10, 5, 5), (10, 0, 4)]);
        assert_eq!(needed(&equal, 10, true), Some(vec![true, true, false]));
        assert_eq!(needed(&[], 10, true), None);
    }
}
