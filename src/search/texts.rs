//! Texts as views within a plan.
//!
//! The lake's tables have texts of Arrow's type `Utf8`, and so have answers: every client knows it. Between the scan and the
//! answer a plan moves texts about: it groups, sorts, joins and hands rows from core to core, and each step copies the
//! bytes. A view (`Utf8View`) has 16 bytes, whatever the text's length, and the bytes stay where the reader put them.
//!
//! So this rule lets tables of the lake be read as views, and turns the texts of the answer back. It comes before DataFusion
//! decides on types, which then makes the expressions between fit.

use std::cell::Cell;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Column, Result as PlanResult};
use datafusion::config::ConfigOptions;
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan, TableScanBuilder, cast};
use datafusion::optimizer::AnalyzerRule;

use super::scan::LakeTable;

/// Reads texts of the lake's tables as views.
#[derive(Debug)]
pub(super) struct TextsAsViews;

impl AnalyzerRule for TextsAsViews {
    fn name(&self) -> &str {
        "texts_as_views"
    }

    fn analyze(&self, plan: LogicalPlan, options: &ConfigOptions) -> PlanResult<LogicalPlan> {
        if let LogicalPlan::Analyze(mut analyze) = plan {
            analyze.input = Arc::new(self.analyze(Arc::unwrap_or_clone(analyze.input), options)?);
            return Ok(LogicalPlan::Analyze(analyze));
        }
        if !gains(&plan)? {
            return Ok(plan);
        }
        let schema = Arc::clone(plan.schema());
        let is_changed = Cell::new(false);
        let changed = plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::TableScan(scan) => {
                let Some(views) = views(&scan)? else { return Ok(Transformed::no(LogicalPlan::TableScan(scan))) };
                is_changed.set(true);
                let source = provider_as_source(views);
                let scan = TableScanBuilder::new(scan.table_name, source)
                    .with_projection(scan.projection)
                    .with_filters(scan.filters)
                    .with_fetch(scan.fetch)
                    .build()?;
                Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
            }
            other if is_changed.get() => other.recompute_schema().map(Transformed::yes),
            other => Ok(Transformed::no(other)),
        })?;
        if !is_changed.get() {
            return Ok(changed.data);
        }
        let columns = schema.iter().map(|(table, field)| {
            let column = Expr::Column(Column::new(table.cloned(), field.name()));
            match field.data_type() {
                DataType::Utf8 => {
                    let metadata = Some(field.metadata().into());
                    cast(column, DataType::Utf8).alias_qualified_with_metadata(table.cloned(), field.name(), metadata)
                }
                _ => column,
            }
        });
        let columns: Vec<Expr> = columns.collect();
        LogicalPlanBuilder::from(changed.data).project(columns)?.build()
    }
}

/// Whether a plan does more with texts than to read them; and nothing in it has types of its own, which would then be wrong.
fn gains(plan: &LogicalPlan) -> PlanResult<bool> {
    let (mut gains, mut has_types) = (false, false);
    plan.apply_with_subqueries(|plan| {
        match plan {
            LogicalPlan::Aggregate(_)
            | LogicalPlan::Distinct(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Window(_) => gains = true,
            LogicalPlan::RecursiveQuery(_) | LogicalPlan::Extension(_) => has_types = true,
            _ => {}
        }
        has_types |= plan.contains_outer_reference();
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(gains && !has_types)
}

/// The same table with views, when it is one of the lake.
fn views(scan: &TableScan) -> PlanResult<Option<Arc<dyn TableProvider>>> {
    // What is no table provider is none of the lake.
    let Ok(provider) = source_as_provider(&scan.source) else { return Ok(None) };
    let provider: &dyn TableProvider = provider.as_ref();
    Ok(provider.downcast_ref::<LakeTable>().map(|table| table.views() as Arc<dyn TableProvider>))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::Search;

    /// What a plan becomes, and the names and types of its columns before and after.
    async fn analysed(search: &Search, statement: &str) -> LogicalPlan {
        let plan = search.plan(statement).await.unwrap();
        let before = Arc::clone(plan.schema());
        let after = search.context().state().optimize(&plan).unwrap();
        for ((table, field), (other_table, other)) in before.iter().zip(after.schema().iter()) {
            assert_eq!((table, field.name(), field.data_type()), (other_table, other.name(), other.data_type()));
            // A union of columns may gain the comment of one of them.
            assert!(
                field.metadata().iter().all(|(key, value)| other.metadata().get(key) == Some(value)),
                "{statement}"
            );
        }
        after
    }

    #[tokio::test]
    async fn texts_are_views_within_and_plain_in_the_answer() {
        let folder = tempfile::tempdir().unwrap();
        let lake = crate::lake::Lake::at(folder.path().to_str().unwrap()).unwrap();
        lake.create().await.unwrap();
        let search = Search::open(&lake).await.unwrap();
        for (statement, has_views) in [
            ("SELECT sha256, count(*) AS n FROM file_events GROUP BY sha256", true),
            ("SELECT * FROM file_events ORDER BY observed_at", true),
            ("SELECT a.sender, b.sender FROM file_events a JOIN file_events b ON a.sha256 = b.sha256", true),
            ("SELECT sender FROM file_events UNION ALL SELECT 'x' ORDER BY sender", true),
            ("SELECT sender FROM file_events UNION SELECT file_name FROM file_events", true),
            ("SELECT domain_of(sender), is_free_mail(sender) FROM file_events GROUP BY 1, 2", true),
            (
                "SELECT sender FROM file_events WHERE sha256 IN (SELECT sha256 FROM file_events WHERE sender = 'x')",
                false,
            ),
            ("SELECT unnest(recipients) AS r, sender FROM file_events ORDER BY r", true),
            // Only read, or with types of its own.
            ("SELECT sender FROM file_events WHERE sha256 = 'x'", false),
            ("SELECT 1 AS one", false),
            (
                "SELECT sender FROM file_events f WHERE EXISTS (SELECT 1 FROM file_events g WHERE g.sha256 = f.sha256) ORDER BY 1",
                false,
            ),
            (
                "WITH RECURSIVE r AS (SELECT sender FROM file_events UNION ALL SELECT sender FROM r WHERE false) SELECT * FROM r ORDER BY 1",
                false,
            ),
        ] {
            let plan = analysed(&search, statement).await;
            let mut reads_views = false;
            plan.apply_with_subqueries(|plan| {
                if let LogicalPlan::TableScan(scan) = plan {
                    reads_views |=
                        scan.source.schema().field_with_name("sender").unwrap().data_type() == &DataType::Utf8View;
                }
                Ok(TreeNodeRecursion::Continue)
            })
            .unwrap();
            assert_eq!(reads_views, has_views, "{statement}");
            search.sql(statement).await.unwrap().collect().await.unwrap();
        }
    }
}
