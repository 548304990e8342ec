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
