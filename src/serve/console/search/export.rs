//! All events of a search as CSV: the columns and the order of the page, and every row of it.

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use futures::{StreamExt as _, TryStreamExt as _};

use super::address::Address;
use super::fields::Visible;
use super::{order, question, selection};
use crate::search::browse::Look;
use crate::search::{Surface, csv};
use crate::serve::Shared;
use crate::serve::auth::Viewer;
use crate::serve::problem::Problem;

pub(super) async fn csv_of_all(
    State(server): State<Shared>,
    viewer: Viewer,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let asker = viewer.asker(Surface::Console)?;
    let visible = Visible(&asker.policy);
    let address = Address::parse(&query.unwrap_or_default())?.at_start();
    let (query, now) = (question(&address, &visible)?, server.clock.now());
    let text = query.sql(&selection(&address, &visible)?, now);
    let columns: Vec<&str> = address.shown(&visible).iter().map(|field| field.column).collect();
    let search = server.engine.search(&asker).await?;
    let look = Look { query: &query, now, text: &text };
    let events = search.all_events(look, &columns, order(&address, &visible)).await?;
    let header = csv::header(columns)?;
    let lines = events.into_stream().map(|batch| csv::lines(&batch?));
    // A failure on the way ends the connection in the middle of the body, so that nobody takes a part for the whole.
    let lines = futures::stream::once(async { Ok(header) }).chain(lines).map_ok(Bytes::from).inspect_err(|error| {
        tracing::warn!(code = %error.code(), %error, "an export ended early");
    });
    let name = format!("attachment; filename=\"file-events-{}.csv\"", now.format("%Y-%m-%dT%H%M"));
    let headers = [(CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()), (CONTENT_DISPOSITION, name)];
    Ok((headers, Body::from_stream(lines)).into_response())
}
