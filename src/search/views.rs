//! Views: file events under the names that other products gave them.
//!
//! Each is a file of `schemas/views/`, plain SQL with a comment for every column. A view is planned over the tables of
//! one session, so that what a policy hides is hidden in it, too, and a filter on one of its columns reaches the files as
//! if it had been written on the table's.
//!
//! The views of Microsoft's names have capital letters. SQL folds a name without quotes to lower case, so such a view
//! exists twice: under its exact name with its exact columns, and all in lower case, where no query needs quotes.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::catalog::{
    CatalogProvider as _, CatalogProviderList as _, MemoryCatalogProvider, MemoryCatalogProviderList,
    MemorySchemaProvider, SchemaProvider as _, TableProvider,
};
use datafusion::common::{Column, Result as PlanResult};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, ident};
use datafusion::sql::parser::Statement as AnyStatement;
use datafusion::sql::sqlparser::ast::{self, CommentObject, GroupByExpr, Ident, SelectItem, SetExpr, Statement};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use crate::event::schema::COMMENT;

/// A view as it is written.
#[derive(Debug)]
pub(super) struct View {
    /// Its exact name.
    pub(super) name: &'static str,
    sql: &'static str,
}

/// Every view, in the order of their names.
const VIEWS: [View; 6] = [
    View { name: "EmailAttachmentInfo", sql: include_str!("../../schemas/views/EmailAttachmentInfo.sql") },
    View { name: "EmailEvents", sql: include_str!("../../schemas/views/EmailEvents.sql") },
    View { name: "code42_file_events", sql: include_str!("../../schemas/views/code42_file_events.sql") },
    View { name: "ecs_email", sql: include_str!("../../schemas/views/ecs_email.sql") },
    View { name: "ocsf_email_activity", sql: include_str!("../../schemas/views/ocsf_email_activity.sql") },
    View { name: "ocsf_email_file_activity", sql: include_str!("../../schemas/views/ocsf_email_file_activity.sql") },
];

/// The exact names of the views.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    VIEWS.iter().map(|view| view.name)
}

/// The view of that name, exact or in lower case.
pub(super) fn find(name: &str) -> Option<&'static View> {
    VIEWS.iter().find(|view| view.name == name || view.name.to_lowercase() == name)
}

/// Makes a view over what somebody may see of `file_events` and `events`. `name` is how it was asked for; `state` has the
/// functions.
pub(super) async fn table(
    view: &View,
    name: &str,
    tables: Vec<(&str, Arc<dyn TableProvider>)>,
    state: &SessionState,
) -> PlanResult<Arc<dyn TableProvider>> {
    let plan = planned(view, name, &[], tables, state).await?;
    let plan = plan.ok_or_else(|| DataFusionError::Internal(format!("`{}` is no view", view.name)))?;
    Ok(Arc::new(ViewTable::new(plan, Some(view.sql.to_owned()))))
}

/// A view or table with the time and the id of each row's event as columns of the names `keys` at its end; nothing when
/// its rows are not of one event each.
pub(super) async fn keyed(
    name: &str,
    tables: Vec<(&str, Arc<dyn TableProvider>)>,
    keys: [&str; 2],
    state: &SessionState,
) -> PlanResult<Option<LogicalPlan>> {
    let keys = [("observed_at", keys[0]), ("event_id", keys[1])];
    if let Some(view) = find(name) {
        return planned(view, name, &keys, tables, state).await;
    }
    let Some((name, table)) = tables.into_iter().find(|(table, _)| *table == name) else { return Ok(None) };
    let plan = LogicalPlanBuilder::scan(name, provider_as_source(table), None)?;
    let mut columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    columns.extend(keys.map(|(column, key)| ident(column).alias(key)));
    plan.project(columns)?.build().map(Some)
}

/// The plan of a view; nothing when its rows are of several events, and keys are asked for.
async fn planned(
    view: &View,
    name: &str,
    keys: &[(&str, &str)],
    tables: Vec<(&str, Arc<dyn TableProvider>)>,
    state: &SessionState,
) -> PlanResult<Option<LogicalPlan>> {
    let statements = Parser::parse_sql(&GenericDialect {}, view.sql)?;
    let mut comments = HashMap::new();
    let mut query = None;
    for statement in statements {
        match statement {
            Statement::CreateView(create) => query = Some(create.query),
            Statement::Comment { object_type: CommentObject::Column, object_name, comment: Some(comment), .. } => {
                let column = object_name.0.last().and_then(|part| part.as_ident());
                comments.extend(column.map(|column| (column.value.clone(), comment)));
            }
            _ => {}
        }
    }
    let Some(mut query) = query else { return Ok(None) };
    if !keys.is_empty() {
        let SetExpr::Select(select) = query.body.as_mut() else { return Ok(None) };
        if !matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty()) {
            return Ok(None);
        }
        select.projection.extend(keys.iter().map(|(column, key)| SelectItem::ExprWithAlias {
            expr: ast::Expr::Identifier(Ident::new(*column)),
            alias: Ident::new(*key),
        }));
    }
    let plan = state_over(tables, state)?
        .statement_to_plan(AnyStatement::Statement(Box::new(Statement::Query(query))))
        .await?;
    let is_folded = name != view.name;
    let columns = plan.schema().iter().map(|(table, field)| {
        let column = Expr::Column(Column::new(table.cloned(), field.name()));
        let name = if is_folded { field.name().to_lowercase() } else { field.name().clone() };
        let comment = comments.get(field.name()).map(|text| HashMap::from([(COMMENT.to_owned(), text.clone())]));
        column.alias_with_metadata(name, comment.map(Into::into))
    });
    let columns: Vec<Expr> = columns.collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build().map(Some)
}

/// A state in which only these tables are there.
fn state_over(tables: Vec<(&str, Arc<dyn TableProvider>)>, state: &SessionState) -> PlanResult<SessionState> {
    let schema = Arc::new(MemorySchemaProvider::new());
    for (name, table) in tables {
        schema.register_table(name.to_owned(), table)?;
    }
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema("public", schema)?;
    let catalogs = MemoryCatalogProviderList::new();
    catalogs.register_catalog("waybill".to_owned(), Arc::new(catalog));
    // A null that is a text has the type of the lake's texts.
    let config = state.config().clone().set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false);
    let builder = SessionStateBuilder::new_from_existing(state.clone()).with_config(config);
    Ok(builder.with_catalog_list(Arc::new(catalogs)).build())
}
