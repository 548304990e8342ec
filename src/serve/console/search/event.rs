//! All of one event: every field in groups, and why it is a risk.

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use maud::{Markup, html};
use uuid::Uuid;

use super::address::Address;
use super::cells::{severity, texts, whole};
use super::fields::{FIELDS, Field, GROUPS, Looks, Visible};
use crate::error::{Code, Error};
use crate::search::Surface;
use crate::search::browse::{JsonRow, Look, Near, Order};
use crate::search::query::{Filter, Member, Operator, Query, Selection, Term};
use crate::serve::Shared;
use crate::serve::auth::Viewer;
use crate::serve::console::layout::{Page, Section, badge, page, table};
use crate::serve::problem::Problem;

pub(super) async fn page_of_event(
    State(server): State<Shared>,
    viewer: Viewer,
    Path(id): Path<String>,
    RawQuery(back): RawQuery,
) -> Result<Page, Problem> {
    let asker = viewer.asker(Surface::Console)?;
    let visible = Visible(&asker.policy);
    let back = Address::parse(&back.unwrap_or_default())?;
    let unknown = || {
        let error = Error::new(Code::RequestRefused, "there is no such event");
        Problem::new(StatusCode::NOT_FOUND, error)
    };
    let id: Uuid = id.parse().map_err(|_| unknown())?;
    let term = Term::parse("event.id").ok_or_else(unknown)?;
    let filter = Filter::new(term, Operator::Is, id.to_string()).map_err(|_| unknown())?;
    let query = Query { members: vec![Member::Filter(filter)], ..Query::everything() };
    let now = server.clock.now();
    let text = query.sql(&Selection::new(&[], &[])?, now);
    let search = server.engine.search(&asker).await?;
    let order = Order { column: "observed_at", is_descending: true };
    let mut leaf = search.leaf(Look { query: &query, now, text: &text }, &[], order, &Near::Start, 1).await?;
    if leaf.rows.is_empty() {
        return Err(unknown());
    }
    search.add_risk(&mut leaf.rows).await?;
    let row = &leaf.rows[0];
    let title = texts(row, "file_name").into_iter().next().unwrap_or_else(|| "Event without a file name".to_owned());
    let body = html! {
        div.actions { a.button.plain href=(back.link()) { "Back to the results" } }
        (risk(row))
        @for heading in GROUPS {
            @let fields: Vec<_> = visible.all().filter(|field| field.group == heading && heading != "Risk").collect();
            @if !fields.is_empty() {
                h2 { (heading) }
                section.card aria-label=(heading) { dl.whole { @for field in fields { (line(field, row, &back)) } } }
            }
        }
        h2 { "Other columns" }
        section.card aria-label="Other columns" {
            dl.whole {
                @for (name, _) in row.iter().filter(|(name, _)| is_other(name) && !asker.policy.hidden_columns.contains(name)) {
                    div { dt { code { (name) } } dd { (copied(&texts(row, name))) } }
                }
            }
        }
    };
    Ok(page(&title, Some(&viewer), body).section(Section::Search).wide())
}

fn is_other(column: &str) -> bool {
    FIELDS.iter().all(|field| field.column != column) && !column.starts_with("risk_")
}

fn risk(row: &JsonRow) -> Markup {
    let one = |column: &str| texts(row, column).into_iter().next().unwrap_or_default();
    let (word, score) = (one("risk_severity"), one("risk_score"));
    let [names, ids, weights] =
        ["risk_indicators", "risk_indicator_ids", "risk_indicator_weights"].map(|column| texts(row, column));
    let indicators = names.iter().zip(&ids).zip(&weights);
    html! {
        h2 { "Risk" }
        p {
            (badge(severity(&word), &word.replace('_', " "))) " score " strong { (score) }
            @if one("trusted") == "true" { " · trusted: " (one("trust_reason")) }
        }
        @if !texts(row, "untrusted_domains").is_empty() {
            p { "Domains that are not trusted: " (texts(row, "untrusted_domains").join(", ")) }
        }
        @if names.is_empty() { p.muted { "No indicator applies." } } @else {
            (table("Risk indicators, and what each adds to the score", &["Indicator", "Weight", "Id"],
                indicators.map(|((name, id), weight)| vec![
                    html! { (name) }, html! { (weight) }, html! { code { (id) } },
                ])))
        }
    }
}

/// A field with what can be asked of its value.
fn line(field: &Field, row: &JsonRow, back: &Address) -> Markup {
    let values = texts(row, field.column);
    html! {
        div {
            dt { (field.label) }
            @if values.is_empty() { dd.muted { "–" } }
            @for value in &values {
                dd {
                    @match field.looks {
                        Looks::Time | Looks::Size => { (whole(field.looks, value)) " " span.muted { (copied(std::slice::from_ref(value))) } }
                        Looks::Flag | Looks::Number => (whole(field.looks, value)),
                        _ => (copied(std::slice::from_ref(value))),
                    }
                    @if matches!(field.column, "sha256" | "md5") {
                        " " a href={ "/search/file?hash=" (value) } { "Who else had this file?" }
                    } @else if can_be_asked(field, value) {
                        " " a.quiet href=(Address::of(field.term, value).link())
                            aria-label={ "all events with " (field.label) " " (value) } { "all" }
                        " " a.quiet href=(back.with(field.term, "IS", value).link())
                            aria-label={ "filter the results by " (field.label) " " (value) } { "filter" }
                    }
                }
            }
        }
    }
}

/// Whether a filter can mean this very value: a wildcard in it would mean others too.
fn can_be_asked(field: &Field, value: &str) -> bool {
    !matches!(field.looks, Looks::Time | Looks::Size | Looks::Number)
        && !value.contains(['*', '?'])
        && value.len() < 500
}

/// Texts that one click selects whole.
fn copied(values: &[String]) -> Markup {
    html! { @for value in values { code.copy { (value) } " " } @if values.is_empty() { "–" } }
}
