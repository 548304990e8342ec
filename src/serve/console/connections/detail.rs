//! One connection: where it stands, what is the matter, its history, its runs, what is owed and what is lost.

use axum::extract::{Path, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};
use serde_json::{Map, Value};

use super::{kind_of, span, status, when};
use crate::connection::{Connection, Intent, Registry, scope_csv};
use crate::doctor::{Owed, Verdict, examine, standing};
use crate::event::Status;
use crate::event::schema::TableName;
use crate::search::Search;
use crate::serve::Shared;
use crate::serve::auth::{Role, Viewer};
use crate::serve::console::layout::{
    Bar, Button, Kind, Page, Section, alert, badge, bar_chart, button, definitions, form, page, prose, sentence, table,
};
use crate::serve::form::Form;
use crate::serve::problem::Problem;
use crate::source::Source as _;

/// Rows of history, runs and gaps that the page shows; the tables have them all.
const ROWS_SHOWN: usize = 30;

type JsonRow = Map<String, Value>;

pub(super) async fn page_of_one(
    State(server): State<Shared>,
    viewer: Viewer,
    Path(id): Path<String>,
) -> Result<Page, Problem> {
    let connection = Registry::of(&server.lake).get(&id).await?;
    let standing = standing(&server.lake, &connection, server.clock.now()).await?;
    let search = Search::open(&server.lake).await?;
    let id = connection.id.to_string();
    let rows = async |table, newest_by| search.rows(table, &[("connection_id", &id)], newest_by, ROWS_SHOWN).await;
    let changes = rows(TableName::Changes, "changed_at").await?;
    let runs = rows(TableName::Runs, "started_at").await?;
    let gaps = rows(TableName::Gaps, "found_at").await?;
    let Owed { blobs, messages, hashes } = standing.owed;
    let nothing = || html! { "–" };
    let body = html! {
        @if let Some(finding) = &standing.finding {
            @let kind = if standing.status == Status::Error { Kind::Error } else { kind_of(standing.status) };
            @let title = if standing.status == Status::Error { "Not monitored" } else { "Not yet complete" };
            (alert(kind, &format!("{title}: {}", finding.code), &finding.message, finding.hint))
        }
        (actions(&viewer, &connection))
        section.card aria-label="State" {
            (definitions([
                ("Status", html! { (status(standing.status)) @if let Some(since) = standing.since { " since " (when(since)) } }),
                ("Service", html! { (connection.service.as_str()) }),
                ("Scoped to", html! {
                    (connection.scope.kind()) @if let Some(count) = connection.scope.len() { " (" (count) " entries)" }
                    " · " a href={ "/connections/" (connection.id) "/users.csv" } { "Export users as CSV" }
                }),
                ("Tenant", html! { (connection.application.tenant_id) }),
                ("Application", html! { (connection.application.client_id) }),
                ("Authorised", match &connection.authorized {
                    Some(authorized) => html! { (when(authorized.at)) " by " (authorized.by) },
                    None => html! { "not through Waybill" },
                }),
                ("Last run", standing.last_run.map_or_else(nothing, when)),
                ("Audit log read up to", standing.read_up_to.map_or_else(nothing, when)),
                ("Lag", standing.lag_seconds.map_or_else(nothing, |lag| html! { (span(lag)) })),
                ("Owed to later runs", html! { (blobs) " blobs, " (messages) " messages, " (hashes) " hashes" }),
            ]))
        }
        h2 { "Recent runs" }
        @if runs.is_empty() { p { "No run has finished yet." } } @else {
            (bar_chart("runs", "Events added by the recent runs", ["Run", "Events"], &bars(&runs)))
            (table(
                "Recent runs, the newest first",
                &["Started", "Outcome", "Events", "Sends", "Owed", "Gaps", "Error"],
                runs.iter().take(10).map(|run| vec![
                    moment(run, "started_at"),
                    badge(outcome_kind(text(run, "outcome")), text(run, "outcome")),
                    html! { (number(run, "events")) },
                    html! { (number(run, "sends")) },
                    html! { (number(run, "owed")) },
                    html! { (number(run, "gaps")) },
                    html! { (prose(text(run, "error"))) },
                ]),
            ))
        }
        h2 { "Gaps" }
        @if gaps.is_empty() { p { "Nothing that was to be read is lost." } } @else {
            (table(
                "What could not be read, the newest first",
                &["Found", "What", "From", "To", "Why", "What can fill it"],
                gaps.iter().map(|gap| vec![
                    moment(gap, "found_at"),
                    html! { (text(gap, "kind")) @if !text(gap, "subject").is_empty() { " " (text(gap, "subject")) } },
                    moment(gap, "window_start"),
                    moment(gap, "window_end"),
                    html! { (prose(text(gap, "reason"))) },
                    html! { @if text(gap, "remedy").is_empty() { "–" } @else { code { (text(gap, "remedy")) } } },
                ]),
            ))
        }
        h2 { "Status history" }
        (table(
            "What was done and found, the newest first",
            &["When", "Who", "What", "Status", "Detail"],
            changes.iter().map(|change| vec![
                moment(change, "changed_at"),
                html! { (text(change, "actor")) },
                html! { (text(change, "action")) },
                html! { (text(change, "status")) @if !text(change, "code").is_empty() { " (" (text(change, "code")) ")" } },
                html! { (prose(text(change, "detail"))) },
            ]),
        ))
    };
    Ok(page(&connection.name, Some(&viewer), body)
        .section(Section::Connections)
        .forms_may_lead_to(consent_origin(&connection)))
}

/// Where the form *Authorize* leads in the end.
fn consent_origin(connection: &Connection) -> String {
    url::Url::parse(connection.login_root()).map_or_else(|_| String::new(), |url| url.origin().ascii_serialization())
}

fn actions(viewer: &Viewer, connection: &Connection) -> Markup {
    let order = |name: &str, kind, words: &str| {
        form(viewer, &format!("/connections/{}/{name}", connection.id), button(kind, words))
    };
    html! {
        div.actions {
            @if viewer.may(Role::Admin) {
                (order("authorize", Button::Main, "Authorize"))
                (order("check", Button::Plain, "Check now"))
                a.button.plain href={ "/connections/" (connection.id) "/scope" } { "Change scope" }
                @match connection.intent {
                    Intent::Monitor => (order("pause", Button::Plain, "Pause")),
                    Intent::Pause => (order("resume", Button::Plain, "Resume")),
                    Intent::Deauthorize => {},
                }
                @if connection.intent == Intent::Deauthorize {
                    (order("remove", Button::Danger, "Remove"))
                } @else {
                    (order("deauthorize", Button::Danger, "Deauthorize"))
                }
            }
        }
    }
}

fn bars(runs: &[JsonRow]) -> Vec<Bar> {
    runs.iter()
        .rev()
        .map(|run| Bar {
            label: text(run, "started_at").to_owned(),
            value: number(run, "events"),
            kind: outcome_kind(text(run, "outcome")),
        })
        .collect()
}

fn outcome_kind(outcome: &str) -> Kind {
    match outcome {
        "done" => Kind::Good,
        "partial" => Kind::Warning,
        "interrupted" => Kind::Resting,
        _ => Kind::Error,
    }
}

fn text<'a>(row: &'a JsonRow, name: &str) -> &'a str {
    row.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A time of a row, as all times of the console look.
fn moment(row: &JsonRow, name: &str) -> Markup {
    text(row, name).parse().map_or_else(|_| html! { (text(row, name)) }, when)
}

fn number(row: &JsonRow, name: &str) -> u64 {
    row.get(name).and_then(Value::as_u64).unwrap_or_default()
}

/// The people whom the connection monitors at this moment.
pub(super) async fn users(
    State(server): State<Shared>,
    _viewer: Viewer,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let connection = Registry::of(&server.lake).get(&id).await?;
    let resolved = connection.source(server.clock.clone())?.resolve_scope(&connection.scope).await?;
    let csv = scope_csv::write(resolved.members().unwrap_or_default());
    let headers = [
        (CONTENT_TYPE, "text/csv; charset=utf-8"),
        (CONTENT_DISPOSITION, "attachment; filename=\"monitored-users.csv\""),
    ];
    Ok((headers, csv).into_response())
}

/// The doctor's examination, as a page.
pub(super) async fn check(State(server): State<Shared>, Path(id): Path<String>, form: Form) -> Result<Page, Problem> {
    form.viewer.require(Role::Admin)?;
    let connection = Registry::of(&server.lake).get(&id).await?;
    let examination = examine(&server.lake, &connection, &server.clock).await?;
    let body = html! {
        @match examination.to_do() {
            Some(check) => (alert(
                if check.verdict == Verdict::Bad { Kind::Error } else { Kind::Warning },
                &format!("First of all: {}", check.name),
                &check.finding,
                check.hint,
            )),
            None => (alert(Kind::Good, "All is well", "every check is as it should be", None)),
        }
        (table("Checks, in order", &["Check", "Verdict", "Finding"], examination.checks.iter().map(|check| {
            let (kind, word) = match check.verdict {
                Verdict::Good => (Kind::Good, "good"),
                Verdict::Warning => (Kind::Warning, "note"),
                Verdict::Bad => (Kind::Error, "bad"),
                Verdict::Skipped => (Kind::Resting, "skipped"),
            };
            vec![html! { (check.name) }, badge(kind, word), html! { (sentence(&check.finding)) }]
        })))
        div.actions { a.button.plain href={ "/connections/" (connection.id) } { "Back to " (connection.name) } }
    };
    Ok(page(&format!("Check of {}", connection.name), Some(&form.viewer), body).section(Section::Connections))
}
