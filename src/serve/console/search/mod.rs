//! Forensic Search: who sent which file to whom, for an analyst with a browser.
//!
//! A search is the query of its address (`address`), so that it can be shared, kept and gone back to. `builder` is the form
//! that writes it, `results` the page of a search, `histogram` its bars, `event` all of one event, `holders` who had a
//! file, `export` the whole answer as CSV, `saved` what is asked again. `fields` are the words for it all, `cells` how
//! values look. Whatever is asked goes through the engine with the viewer's policy; nothing here builds SQL.

mod address;
mod builder;
mod cells;
mod event;
mod export;
mod fields;
mod histogram;
mod holders;
mod results;
mod saved;

use axum::Router;
use axum::routing::{get, post};

use self::address::Address;
use self::fields::Visible;
use crate::error::{Code, Error, Result};
use crate::search::browse::Order;
use crate::search::query::{Finding, Query, Selection, Sort};
use crate::serve::Shared;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/search", get(results::page_of_results))
        .route("/search/export.csv", get(export::csv_of_all))
        .route("/search/event/{id}", get(event::page_of_event))
        .route("/search/file", get(holders::page_of_holders))
        .route("/search/saved", get(saved::page_of_all).post(saved::save))
        .route("/search/saved/{id}", get(saved::open).post(saved::change))
        .route("/search/saved/{id}/delete", post(saved::delete))
}

/// What an address asks.
///
/// # Errors
/// `request-refused` when its range holds no times, `usage` when a filter is none, or names what somebody may not see.
fn question(address: &Address, visible: &Visible<'_>) -> Result<Query> {
    if let Some(filter) = address.filters().into_iter().find(|filter| !visible.has_term(&filter.term)) {
        return Err(Error::new(Code::Usage, hidden(&filter.term)));
    }
    Query::from_json(&address.groups()?).map_err(|findings| Finding::error(&findings))
}

/// Why nobody can filter by a term whose values they may not see.
fn hidden(term: &str) -> String {
    format!("`{}` is hidden from you by a policy of this server", fields::label(term))
}

/// The columns that an address shows in its order, for the question in SQL.
fn selection(address: &Address, visible: &Visible<'_>) -> Result<Selection> {
    let columns: Vec<String> = address.shown(visible).iter().map(|field| field.column.to_owned()).collect();
    let Order { column, is_descending } = order(address, visible);
    Selection::new(&columns, &[Sort { column: column.to_owned(), descending: is_descending }])
}

fn order(address: &Address, visible: &Visible<'_>) -> Order<'static> {
    let (field, is_descending) = address.order(visible);
    Order { column: field.column, is_descending }
}
