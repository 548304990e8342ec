//! The table of all connections; what fails is red, and said at the top.

use axum::extract::State;
use maud::html;

use super::{span, status, when};
use crate::connection::Registry;
use crate::doctor::standing;
use crate::error::Code;
use crate::event::Status;
use crate::serve::Shared;
use crate::serve::auth::{Role, Viewer};
use crate::serve::console::layout::{Kind, Page, Row, Section, alert, page, table_of};
use crate::serve::problem::Problem;

pub(super) async fn page_of_all(State(server): State<Shared>, viewer: Viewer) -> Result<Page, Problem> {
    let connections = match Registry::of(&server.lake).list().await {
        // A lake without any connection has no tables yet.
        Err(error) if error.code() == Code::NoLake => Vec::new(),
        connections => connections?,
    };
    let now = server.clock.now();
    let mut rows = Vec::new();
    let mut failing = Vec::new();
    for connection in &connections {
        let standing = standing(&server.lake, connection, now).await?;
        let is_failing = standing.status == Status::Error;
        if is_failing {
            failing.push((connection, standing.finding.clone()));
        }
        rows.push(Row {
            is_failing,
            cells: vec![
                html! { a href={ "/connections/" (connection.id) } { (connection.name) } },
                html! { (connection.service.as_str()) },
                html! { (connection.scope.kind()) @if let Some(count) = connection.scope.len() { " (" (count) ")" } },
                html! {
                    (status(standing.status))
                    @if let Some(finding) = &standing.finding { div.muted { (finding.code) } }
                },
                html! { @if let Some(last) = standing.last_run { (when(last)) } @else { "never" } },
                html! { @if let Some(lag) = standing.lag_seconds { (span(lag)) } @else { "–" } },
            ],
        });
    }
    let body = html! {
        @if let [(connection, finding)] = failing.as_slice() {
            (alert(
                Kind::Error,
                &format!("{} is not monitored", connection.name),
                finding.as_ref().map_or("the last run failed", |finding| finding.message.as_str()),
                finding.as_ref().and_then(|finding| finding.hint),
            ))
        } @else if !failing.is_empty() {
            (alert(
                Kind::Error,
                &format!("{} connections are not monitored", failing.len()),
                "the red rows below say why; each row leads to what to do",
                None,
            ))
        }
        @if viewer.may(Role::Admin) {
            div.actions { a.button href="/connections/add" { "Add data connection" } }
        }
        @if rows.is_empty() {
            p { "There is no connection yet. A connection is one Microsoft 365 tenant whose sent attachments are recorded." }
        } @else {
            (table_of(
                "Connections of this lake",
                &["Display name", "Service", "Scope", "Status", "Last run", "Lag"],
                rows,
            ))
            p.muted { "Lag is the age of the newest audit content. Microsoft makes it available an hour or more after a send." }
        }
    };
    Ok(page("Data Connections", Some(&viewer), body).section(Section::Connections))
}
