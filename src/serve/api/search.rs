//! Pages of events, groups, exports, and the same question in SQL.

use std::collections::HashMap;
use std::sync::Mutex;

use axum::body::{Body as ResponseBody, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::json;

use super::request::{Body, Paging};
use super::{Refusal, answer, event};
use crate::clock::Time;
use crate::limits;
use crate::search::browse::{Look, Mark, Near, Order};
use crate::search::query::{Place, Selection, Sort, Term};
use crate::search::{Search, Surface, csv};
use crate::serve::Shared;
use crate::serve::auth::Viewer;

/// How many events the questions of the last minutes have, by who asked and what.
#[derive(Debug, Default)]
pub(crate) struct Totals(Mutex<HashMap<(String, String), (u64, Time)>>);

impl Totals {
    fn get(&self, key: &(String, String), now: Time) -> Option<u64> {
        let totals = self.0.lock().ok()?;
        totals.get(key).filter(|(_, at)| now - *at < limits::API_TOTAL_KEPT).map(|(total, _)| *total)
    }

    fn put(&self, key: (String, String), total: u64, now: Time) {
        let Ok(mut totals) = self.0.lock() else { return };
        totals.retain(|_, (_, at)| now - *at < limits::API_TOTAL_KEPT);
        if totals.len() < limits::API_TOTALS {
            totals.insert(key, (total, now));
        }
    }
}

/// The question as a person would ask it, for the record of searches and for whoever asks for it.
fn in_sql(body: &Body, order: Order<'_>, part: (usize, Option<usize>), now: Time) -> Result<String, Refusal> {
    let mut sorts = vec![Sort { column: order.column.to_owned(), descending: order.is_descending }];
    if order.ties_fall() {
        sorts.push(Sort { column: "event_id".to_owned(), descending: true });
    }
    Ok(body.query.sql(&Selection::new(&[], &sorts)?.part(part.0, part.1), now))
}

async fn open(server: &Shared, viewer: &Viewer) -> Result<Search, Refusal> {
    Ok(server.engine.search(&viewer.asker(Surface::Api)?).await?)
}

/// `POST /v2/file-events`.
pub(super) async fn page(State(server): State<Shared>, viewer: Viewer, bytes: Bytes) -> Result<Response, Refusal> {
    let search = open(&server, &viewer).await?;
    let body = Body::read(&bytes)?;
    let (Paging { size, number, token }, order, now) = (body.paging()?, body.order()?, server.clock.now());
    let near = match &token {
        None => Near::Skip((number - 1) * size),
        Some(token) if token.is_empty() => Near::Start,
        Some(token) => Near::After(mark(&search, order, token).await?),
    };
    let skipped = if let Near::Skip(skipped) = near { skipped } else { 0 };
    let text = in_sql(&body, order, (skipped, Some(size)), now)?;
    let look = Look { query: &body.query, now, text: &text };
    let mut leaf = search.leaf(look, &[], order, &near, size).await?;
    let key = (viewer.who, body.question());
    let is_later_page = matches!(near, Near::After(_));
    let total = match server.totals.get(&key, now).filter(|_| is_later_page) {
        Some(total) => total,
        None => search.count(&body.query, now).await?,
    };
    server.totals.put(key, total, now);
    let has_risk = leaf.rows.first().is_none_or(|row| row.contains_key("risk_score"));
    if !has_risk {
        search.add_risk(&mut leaf.rows).await?;
    }
    let last = leaf.rows.last().and_then(Place::of_row).map(|place| place.to_string());
    let next = last.filter(|_| token.is_some() && leaf.has_more);
    let events: Vec<_> = leaf.rows.iter().map(event::of_row).collect();
    let body = json!({"totalCount": total, "fileEvents": events, "nextPgToken": next, "problems": null});
    Ok(answer(StatusCode::OK, &body))
}

/// Where a page begins: after the event that the token names, which may be any that was ever shown.
async fn mark(search: &Search, order: Order<'_>, token: &str) -> Result<Mark, Refusal> {
    let unknown = || Refusal::of("INVALID_PAGE_TOKEN", "`pgToken` is none that this server gave");
    let place = Place::parse(token).ok_or_else(unknown)?;
    if order.column == "inserted_at" {
        // Also when the event was upgraded since and stands elsewhere: everything after this place is still to come.
        let time = place.time().ok_or_else(unknown)?.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        return Ok(Mark { value: Some(time), event_id: place.event.to_string() });
    }
    search.mark(order.column, &place.event.to_string()).await?.ok_or_else(unknown)
}

/// `POST /v2/file-events/grouping`.
pub(super) async fn grouping(State(server): State<Shared>, viewer: Viewer, bytes: Bytes) -> Result<Response, Refusal> {
    let search = open(&server, &viewer).await?;
    let body = Body::read(&bytes)?;
    let ((term, size), now) = (body.grouping()?, server.clock.now());
    let text = format!("-- counted by {term}\n{}", body.query.sql(&Selection::new(&[], &[])?, now));
    let groups = search.groups(Look { query: &body.query, now, text: &text }, term, size).await?;
    let groups: Vec<_> = groups.iter().map(|(value, count)| json!({"value": value, "docCount": count})).collect();
    Ok(answer(StatusCode::OK, &json!({"groups": groups, "problems": null})))
}

/// `POST /v2/file-events/export`: however many events there are.
pub(super) async fn export(State(server): State<Shared>, viewer: Viewer, bytes: Bytes) -> Result<Response, Refusal> {
    let search = open(&server, &viewer).await?;
    let body = Body::read(&bytes)?;
    let (columns, order, now) = (body.columns()?, body.order()?, server.clock.now());
    let text = in_sql(&body, order, (0, None), now)?;
    let events = search.all_terms(Look { query: &body.query, now, text: &text }, &columns, order).await?;
    let header = csv::header(columns.iter().map(|term: &Term| term.name()))?;
    let lines = events.into_stream().map(|batch| csv::lines(&batch?));
    // A failure on the way ends the connection in the middle of the body, so that nobody takes a part for the whole.
    let lines = futures::stream::once(async { Ok(header) }).chain(lines).map_ok(Bytes::from).inspect_err(|error| {
        tracing::warn!(code = %error.code(), %error, "an export ended early");
    });
    let headers =
        [(CONTENT_TYPE, "text/csv; charset=utf-8"), (CONTENT_DISPOSITION, "attachment; filename=\"file-events.csv\"")];
    Ok((headers, ResponseBody::from_stream(lines)).into_response())
}

/// `POST /v2/file-events/sql`: the same question for psql and Spark; nothing is searched.
pub(super) async fn sql(State(server): State<Shared>, viewer: Viewer, bytes: Bytes) -> Result<Response, Refusal> {
    viewer.asker(Surface::Api)?;
    let body = Body::read(&bytes)?;
    let sql = in_sql(&body, body.order()?, (0, None), server.clock.now())?;
    Ok(answer(StatusCode::OK, &json!({"sql": sql, "problems": null})))
}
