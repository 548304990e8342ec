//! Texts as views where they are grouped.
//!
//! The lake's tables have texts of Arrow's type `Utf8`, and so have answers. To group by a text, or to count it, its bytes are
//! copied out of the file's dictionary for every row, hashed and compared. A view (`Utf8View`) has 16 bytes, with the whole of a
//! short text in them. So below an aggregate the lake's tables are read as views; what the aggregate gives is turned back right
//! above it. Not further up, and not without an aggregate: many batches there share what their views look at, and each of
//! them counts with all of it against a query's memory.
//!
//! The rule comes before DataFusion decides on types, which then makes the expressions between fit.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Column, Result as PlanResult};
use datafusion::config::ConfigOptions;
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan, TableScanBuilder, cast};
use datafusion::optimizer::AnalyzerRule;

use super::scan::LakeTable;

/// Reads texts of the lake's tables as views below aggregates.
#[derive(Debug)]
pub(super) struct TextsAsViews;

impl AnalyzerRule for TextsAsViews {
    fn name(&self) -> &str {
        "texts_as_views"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> PlanResult<LogicalPlan> {
        // From above, so that of two aggregates the upper one finds the lower, which is not read row by row.
        let changed = plan.transform_down_with_subqueries(|plan| match plan {
            LogicalPlan::Aggregate(_) if reads_the_lake(&plan)? => with_views(plan).map(jumped),
            plan => Ok(Transformed::no(plan)),
        })?;
        Ok(changed.data)
    }
}

/// What has been changed is not looked at again.
fn jumped(plan: LogicalPlan) -> Transformed<LogicalPlan> {
    Transformed::new(plan, true, TreeNodeRecursion::Jump)
}

/// Whether there is nothing between an aggregate and tables of the lake but what goes row by row.
fn reads_the_lake(aggregate: &LogicalPlan) -> PlanResult<bool> {
    let (mut reads, mut is_row_by_row) = (false, true);
    aggregate.apply(|plan| {
        match plan {
            LogicalPlan::TableScan(scan) => reads |= views(scan).is_some(),
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Unnest(_) => {}
            LogicalPlan::Aggregate(_) if std::ptr::eq(plan, aggregate) => {}
            _ => is_row_by_row = false,
        }
        // A subquery and what it takes from outside have types of their own.
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                is_row_by_row &= !matches!(
                    expr,
                    Expr::OuterReferenceColumn(..)
                        | Expr::ScalarSubquery(_)
                        | Expr::InSubquery(_)
                        | Expr::Exists(_)
                        | Expr::SetComparison(_)
                );
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(if is_row_by_row { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(reads && is_row_by_row)
}

fn with_views(aggregate: LogicalPlan) -> PlanResult<LogicalPlan> {
    let schema = Arc::clone(aggregate.schema());
    let changed = aggregate.transform_up(|plan| match plan {
        LogicalPlan::TableScan(scan) => {
            let Some(views) = views(&scan) else { return Ok(Transformed::no(LogicalPlan::TableScan(scan))) };
            let scan = TableScanBuilder::new(scan.table_name, provider_as_source(views))
                .with_projection(scan.projection)
                .with_filters(scan.filters)
                .with_fetch(scan.fetch)
                .build()?;
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        }
        other => other.recompute_schema().map(Transformed::yes),
    })?;
    let columns = schema.iter().map(|(table, field)| {
        let column = Expr::Column(Column::new(table.cloned(), field.name()));
        let (kind, metadata) = (field.data_type(), Some(field.metadata().into()));
        match kind {
            // A list may have been made of texts.
            kind if kind.is_nested() || *kind == DataType::Utf8 => {
                cast(column, kind.clone()).alias_qualified_with_metadata(table.cloned(), field.name(), metadata)
            }
            _ => column,
        }
    });
    let columns: Vec<Expr> = columns.collect();
    LogicalPlanBuilder::from(changed.data).project(columns)?.build()
}

/// The same table with views, when it is one of the lake; what is no table provider is none of them.
fn views(scan: &TableScan) -> Option<Arc<dyn TableProvider>> {
    let provider = source_as_provider(&scan.source).ok()?;
    let provider: &dyn TableProvider = provider.as_ref();
    provider.downcast_ref::<LakeTable>().map(|table| table.views() as Arc<dyn TableProvider>)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::Lake;
    use crate::search::Search;

    #[tokio::test]
    async fn texts_are_views_below_an_aggregate_and_plain_above() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        lake.create().await.unwrap();
        let search = Search::open(&lake).await.unwrap();
        for (statement, has_views) in [
            ("SELECT sha256, count(*) AS n FROM file_events GROUP BY sha256", true),
            ("SELECT count(DISTINCT sender), min(file_name), max(observed_at) FROM file_events WHERE md5 = 'x'", true),
            ("SELECT first_value(sender ORDER BY observed_at) AS s FROM file_events f GROUP BY f.md5 ORDER BY s", true),
            ("SELECT domain_of(sender), is_free_mail(sender) FROM file_events GROUP BY 1, 2", true),
            (
                "SELECT d, min(sender) FROM (SELECT unnest(recipient_domains) d, sender FROM file_events) GROUP BY d",
                true,
            ),
            ("SELECT max(n) FROM (SELECT sender, count(*) AS n FROM file_events GROUP BY sender)", true),
            ("SELECT array_agg(sender) FROM file_events", true),
            ("SELECT DISTINCT sender FROM file_events", false),
            ("SELECT sender FROM file_events ORDER BY sender", false),
            ("SELECT count(*) FROM file_events a JOIN file_events b ON a.sha256 = b.sha256 GROUP BY a.sender", false),
            (
                "SELECT sender, count(*) FROM file_events WHERE md5 IN (SELECT md5 FROM file_events) GROUP BY sender",
                false,
            ),
            (
                "SELECT md5 FROM file_events f WHERE EXISTS (SELECT max(sender) FROM file_events g WHERE g.md5 = f.md5)",
                false,
            ),
        ] {
            let plan = search.plan(statement).await.unwrap();
            let after = search.context().state().optimize(&plan).unwrap();
            for ((table, field), (other_table, other)) in plan.schema().iter().zip(after.schema().iter()) {
                assert_eq!((table, field.name(), field.data_type()), (other_table, other.name(), other.data_type()));
                assert_eq!(field.metadata(), other.metadata(), "{statement}");
            }
            let mut reads_views = false;
            after
                .apply_with_subqueries(|plan| {
                    if let LogicalPlan::TableScan(scan) = plan {
                        let sender = scan.source.schema().field_with_name("sender").unwrap().data_type().clone();
                        reads_views |= sender == DataType::Utf8View;
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
                .unwrap();
            assert_eq!(reads_views, has_views, "{statement}");
            search.sql(statement).await.unwrap().collect().await.unwrap();
        }
    }
}
