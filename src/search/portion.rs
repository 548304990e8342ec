//! A portion of a view, for export: the events that became searchable within some time, in an order in which an export that
//! was interrupted goes on where it ended.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::{Result as PlanResult, ScalarValue};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, lit};
use datafusion::prelude::col;

use super::answer::Answer;
use super::query::Query;
use super::{Search, query_error, views};
use crate::clock::Time;
use crate::error::{Code, Error, Result};
use crate::event::schema::TableName;

/// When the event of a row was sent: the last column but one of a portion.
const AT: &str = "waybill_at";

/// The id of the event of a row: the last column of a portion.
const ID: &str = "waybill_id";

/// Which rows of which view.
#[derive(Clone, Debug)]
pub struct Portion<'a> {
    /// `file_events`, `events`, or a view with rows of one event each.
    pub view: &'a str,
    /// Events that meet it.
    pub query: &'a Query,
    /// From when spans of the query count back.
    pub now: Time,
    /// Only events that became searchable after this, µs since 1970.
    pub after: i64,
    /// And not after this.
    pub upto: i64,
    /// Only what comes after an event, by its time (µs since 1970) and id.
    pub beyond: Option<(i64, &'a str)>,
}

impl Search {
    /// When the newest event became searchable, µs since 1970; nothing when there is none.
    ///
    /// # Errors
    /// Like [`Search::plan`] and [`Search::answer`].
    pub async fn newest_inserted(&self) -> Result<Option<i64>> {
        let frame = self.table(TableName::FileEvents.as_str()).await?;
        let frame = frame.aggregate(vec![], vec![max(col("inserted_at")).alias("newest")]);
        let plan = frame.map_err(|error| query_error(error, Code::Internal))?.into_unoptimized_plan();
        let batches = self.answer(plan, "export: what is new").await?.collect().await?;
        let Some(batch) = batches.first() else { return Ok(None) };
        match ScalarValue::try_from_array(batch.column(0), 0).map_err(|error| query_error(error, Code::Internal))? {
            ScalarValue::TimestampMicrosecond(newest, _) => Ok(newest),
            _ => Ok(None),
        }
    }

    /// The rows of a portion, by the time of their events and their ids, which are the last two columns.
    ///
    /// # Errors
    /// `query-invalid` when there is no such view, or its rows are made of several events; otherwise like
    /// [`Search::answer`].
    pub async fn portion(&self, portion: &Portion<'_>) -> Result<Answer> {
        let failed = |error| query_error(error, Code::QueryInvalid);
        let mut tables = Vec::new();
        for name in [TableName::FileEvents.as_str(), "events"] {
            let provider = self.context.table_provider(name).await.map_err(failed)?;
            tables.push((name, provider));
        }
        let columns: Vec<String> = tables[0].1.schema().fields().iter().map(|field| field.name().clone()).collect();
        let whole = usize::from(portion.query.asks_for_risk());
        let below = Arc::clone(&tables[whole].1);
        let filtered = self.limited(portion, below).map_err(failed)?;
        if whole == 1 {
            let plan = LogicalPlanBuilder::scan("events", provider_as_source(Arc::clone(&filtered)), None);
            let plan = plan.and_then(|plan| plan.project(columns.iter().map(|name| col(name.as_str()))));
            let plan = plan.and_then(LogicalPlanBuilder::build).map_err(failed)?;
            tables[0].1 = Arc::new(ViewTable::new(plan, None));
            tables[1].1 = filtered;
        } else {
            tables[0].1 = filtered;
            let events = Arc::clone(&tables[1].1);
            tables[1].1 = self.limited(portion, events).map_err(failed)?;
        }
        let plan = views::keyed(portion.view, tables, [AT, ID], &self.context.state()).await.map_err(failed)?;
        let plan = plan.ok_or_else(|| {
            Error::new(
                Code::QueryInvalid,
                format!("`{}` cannot be exported: a row of it is not of one file event", portion.view),
            )
        })?;
        let order = [col(AT).sort(true, false), col(ID).sort(true, false)];
        let plan = LogicalPlanBuilder::from(plan).sort(order).and_then(LogicalPlanBuilder::build).map_err(failed)?;
        let text = format!("export {} where {:?}", portion.view, portion.query.to_string());
        self.answer(plan, &text).await
    }

    fn limited(&self, portion: &Portion<'_>, base: Arc<dyn TableProvider>) -> PlanResult<Arc<dyn TableProvider>> {
        let mut filter = portion.query.expression(portion.now);
        filter =
            filter.and(col("inserted_at").gt(time(portion.after))).and(col("inserted_at").lt_eq(time(portion.upto)));
        if let Some((at, id)) = portion.beyond {
            // The first bound is implied, and rules out files.
            let is_same = col("observed_at").eq(time(at)).and(col("event_id").gt(lit(id)));
            filter = filter.and(col("observed_at").gt_eq(time(at)));
            filter = filter.and(col("observed_at").gt(time(at)).or(is_same));
        }
        let plan = LogicalPlanBuilder::scan("file_events", provider_as_source(base), None)?.filter(filter)?.build()?;
        Ok(Arc::new(ViewTable::new(plan, None)))
    }
}

fn time(micros: i64) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())))
}
