//! What a reader of the lake may not do, decided on the plan and not on the text.

use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SQLOptions;

use crate::error::{Code, Error, Result};
use crate::limits;

/// Refuses a statement that is too long to be one that a person or a tool wrote.
///
/// # Errors
/// `query-refused`.
pub(super) fn check_text(statement: &str) -> Result<()> {
    let (length, most) = (statement.len(), limits::STATEMENT_BYTES);
    if length <= most {
        return Ok(());
    }
    Err(Error::new(Code::QueryRefused, format!("the statement has {length} bytes, and {most} are the most")))
}

/// Lets queries through and nothing else: no definition of objects, no writing, no COPY, no settings.
///
/// # Errors
/// `query-refused`.
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(plan)
        .map_err(|error| {
            Error::new(Code::QueryRefused, format!("only queries are allowed: {}", error.strip_backtrace()))
        })
}
