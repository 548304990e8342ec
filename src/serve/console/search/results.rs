//! The page of a search: the form, how many events there are and when, and a page of them.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use uuid::Uuid;

use super::address::{Address, Place};
use super::builder::builder;
use super::cells::{cell, count};
use super::fields::{Field, Visible};
use super::histogram::{Histogram, bucket};
use super::{order, question, saved, selection};
use crate::clock::Time;
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::search::browse::{JsonRow, Leaf, Look, Mark, Near};
use crate::search::query::Query;
use crate::search::{Asker, Search, Surface};
use crate::serve::auth::Viewer;
use crate::serve::console::layout::{Kind, Section, alert, failure, page};
use crate::serve::problem::{self, Problem};
use crate::serve::saved::Saved;
use crate::serve::{Server, Shared};

/// What a search found.
struct Found {
    leaf: Leaf,
    histogram: Histogram,
}

pub(super) async fn page_of_results(
    State(server): State<Shared>,
    viewer: Viewer,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let asker = viewer.asker(Surface::Console)?;
    let visible = Visible(&asker.policy);
    let query = query.unwrap_or_default();
    let address = Address::parse(&query)?;
    if !query.is_empty() && !says_the_same(&query, &address.to_query()) {
        let part = if address.is_draft { "#filters" } else { "" };
        return Ok(Redirect::to(&format!("{}{part}", address.link())).into_response());
    }
    let now = server.clock.now();
    let wrong_range = address.range.bounds(now).err();
    let asked = question(&address, &visible);
    let (mut status, mut sql) = (StatusCode::OK, None);
    let outcome = match asked {
        _ if address.is_draft => {
            html! { p.muted { "Press " strong { "Search" } " when the filters are as you want them." } }
        }
        Err(error) => {
            status = StatusCode::UNPROCESSABLE_ENTITY;
            failure("The search cannot be asked like this", &error)
        }
        Ok(query) => {
            sql = Some(query.sql(&selection(&address, &visible)?, now));
            match find(&server, &asker, &address, &query, now).await {
                Ok(found) => shown(&address, &visible, &found),
                Err(error) if error.code() == Code::NoLake => alert(
                    Kind::Info,
                    "Nothing is recorded yet",
                    "the lake gets its first events with the first run",
                    None,
                ),
                Err(error) => {
                    status = problem::status(error.code());
                    tracing::warn!(code = %error.code(), %error, "a search failed");
                    failure("The search was not answered", &error)
                }
            }
        }
    };
    let searches = Saved::of(&server.lake).list().await?;
    let wrong_range = wrong_range.as_ref().map(Error::message);
    let body = html! {
        div.actions {
            a.button.plain href="/search/saved" { "Saved searches (" (searches.len()) ")" }
            a.button.plain href="/search/file" { "Who had a file?" }
        }
        section.card aria-label="Search" { (builder(&address, &visible, wrong_range)) }
        (outcome)
        @if let Some(sql) = &sql {
            details.more {
                summary { "The same search in SQL" }
                p.hint { "For " code { "waybill sql" } ", psql and Spark: it gives the same rows." }
                pre #sql tabindex="0" { (sql) }
                button.plain type="button" data-copies="sql" hidden { "Copy" }
            }
            (saved::form_to_save(&viewer, &address, &searches))
        }
    };
    let page = page("Forensic Search", Some(&viewer), body).section(Section::Search).wide().status(status);
    Ok(page.into_response())
}

/// Whether two addresses have the same fields, whatever their escapes are.
fn says_the_same(one: &str, other: &str) -> bool {
    url::form_urlencoded::parse(one.as_bytes()).eq(url::form_urlencoded::parse(other.as_bytes()))
}

async fn find(server: &Server, asker: &Asker, address: &Address, query: &Query, now: Time) -> Result<Found> {
    let (visible, rows) = (Visible(&asker.policy), limits::CONSOLE_PAGE_ROWS);
    let search = server.engine.search(asker).await?;
    let order = order(address, &visible);
    let near = match &address.place {
        Place::Start => Near::Start,
        Place::After(id) => Near::After(mark(&search, order.column, id).await?),
        Place::Before(id) => Near::Before(mark(&search, order.column, id).await?),
    };
    let fields = address.shown(&visible);
    let mut columns: Vec<&str> = fields.iter().filter(|field| !field.is_risk()).map(|field| field.column).collect();
    // By the day, the risk of just these events is found.
    columns.push("event_date");
    let text = query.sql(&selection(address, &visible)?.part(0, Some(rows)), now);
    let (look, bounds) = (Look { query, now, text: &text }, address.range.bounds(now)?);
    let bucket = bucket(bounds);
    let leaf = search.leaf(look, &columns, order, &near, rows);
    let (mut leaf, counts) = tokio::try_join!(leaf, search.histogram(look, bucket))?;
    if fields.iter().any(|field| field.is_risk()) && !leaf.rows.is_empty() {
        search.add_risk(&mut leaf.rows).await?;
    }
    Ok(Found { leaf, histogram: Histogram::new(bucket, bounds, &counts) })
}

/// Where a page begins or ends.
async fn mark(search: &Search, column: &str, id: &str) -> Result<Mark> {
    let unknown = || Error::new(Code::RequestRefused, "the address names a place in the pages that does not exist");
    let id: Uuid = id.parse().map_err(|_| unknown())?;
    search.mark(column, &id.to_string()).await?.ok_or_else(unknown)
}

fn shown(address: &Address, visible: &Visible<'_>, found: &Found) -> Markup {
    let (total, leaf) = (found.histogram.total(), &found.leaf);
    html! {
        h2 #results role="status" {
            @if total == 1 { "1 event" } @else { (count(total)) " events" }
        }
        @if total > 0 { (found.histogram.draw(address)) }
        @if leaf.rows.is_empty() {
            (alert(
                Kind::Info,
                "No event matches",
                "take a longer range, or fewer filters; `*` and `?` are wildcards in texts",
                None,
            ))
        } @else {
            div.actions {
                a.button.plain href={ "/search/export.csv?" (address.at_start().to_query()) } download {
                    "Export all " (count(total)) " as CSV"
                }
                (pages(address, leaf))
            }
            (table(address, visible, &leaf.rows))
            div.actions { (pages(address, leaf)) }
        }
    }
}

fn pages(address: &Address, leaf: &Leaf) -> Markup {
    let id = |row: Option<&JsonRow>| row.and_then(|row| row.get("event_id")?.as_str()).unwrap_or_default().to_owned();
    let (first, last) = (id(leaf.rows.first()), id(leaf.rows.last()));
    let (has_previous, has_next) = match address.place {
        Place::Start => (false, leaf.has_more),
        Place::After(_) => (true, leaf.has_more),
        Place::Before(_) => (leaf.has_more, true),
    };
    html! {
        @if has_previous {
            a.button.plain href=(address.at(Place::Start).link()) { "First page" }
            a.button.plain rel="prev" href=(address.at(Place::Before(first)).link()) { "Previous page" }
        }
        @if has_next { a.button.plain rel="next" href=(address.at(Place::After(last)).link()) { "Next page" } }
    }
}

fn table(address: &Address, visible: &Visible<'_>, rows: &[JsonRow]) -> Markup {
    let fields = address.shown(visible);
    let here = address.to_query();
    html! {
        div.scroll role="region" aria-label="Events" tabindex="0" {
            table.events {
                caption { "Events; each leads to all that is known of it" }
                thead { tr { @for field in &fields { (header(address, visible, field)) } } }
                tbody {
                    @for row in rows {
                        @let id = row.get("event_id").and_then(|id| id.as_str()).unwrap_or_default();
                        tr {
                            @for (index, field) in fields.iter().enumerate() {
                                @if index == 0 {
                                    th scope="row" { a href={ "/search/event/" (id) "?" (here) } { (cell(field, row)) } }
                                } @else { td { (cell(field, row)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn header(address: &Address, visible: &Visible<'_>, field: &'static Field) -> Markup {
    let (by, is_descending) = address.order(visible);
    let is_it = by.term == field.term;
    let (sorted, sign) = match (is_it, is_descending) {
        (true, true) => (Some("descending"), " ▼"),
        (true, false) => (Some("ascending"), " ▲"),
        (false, _) => (None, ""),
    };
    html! {
        th scope="col" aria-sort=[sorted] {
            @if field.is_sortable {
                a href=(address.sorted(field.term, is_it && is_descending).link()) {
                    (field.label) span aria-hidden="true" { (sign) }
                }
            } @else { (field.label) }
        }
    }
}
