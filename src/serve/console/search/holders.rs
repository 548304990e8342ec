//! Who had a file: everybody who sent or got its bytes, under whatever name, from either of its hashes.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use maud::{Markup, html};

use super::address::Address;
use super::cells::{count, moment};
use super::fields::{Visible, of_term};
use super::{order, question, selection};
use crate::error::Error;
use crate::limits;
use crate::search::Surface;
use crate::search::browse::{Look, Near, Share};
use crate::serve::Shared;
use crate::serve::auth::Viewer;
use crate::serve::console::layout::{Field, Kind, Page, Section, alert, field, page, table};
use crate::serve::problem::Problem;

/// What the page tells about a file, and under which heading.
const TOLD: [(&str, &str); 3] = [
    ("source.email.sender", "Who sent it"),
    ("destination.email.recipients", "Who received it"),
    ("file.name", "Under which names"),
];

pub(super) async fn page_of_holders(
    State(server): State<Shared>,
    viewer: Viewer,
    RawQuery(query): RawQuery,
) -> Result<Page, Problem> {
    let asker = viewer.asker(Surface::Console)?;
    let visible = Visible(&asker.policy);
    let query = query.unwrap_or_default();
    let hash = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "hash");
    let hash = hash.map(|(_, hash)| hash.trim().to_ascii_lowercase()).unwrap_or_default();
    let shown = |status, wrong: Option<&Error>, found: Markup| {
        let asked = html! {
            form.card method="get" action="/search/file" {
                (field(&Field {
                    name: "hash",
                    label: "Hash of the file",
                    value: &hash,
                    hint: "MD5 (32 digits) or SHA-256 (64 digits)",
                    error: wrong.map(Error::message),
                    is_required: true,
                }))
                button.main type="submit" { "Who had it?" }
            }
            (found)
        };
        page("Who had this file?", Some(&viewer), asked).section(Section::Search).wide().status(status)
    };
    if hash.is_empty() {
        return Ok(shown(StatusCode::OK, None, html! {}));
    }
    let address = Address::of(if hash.len() == 32 { "file.hash.md5" } else { "file.hash.sha256" }, &hash);
    let query = match question(&address, &visible) {
        Ok(query) => query,
        Err(error) => return Ok(shown(StatusCode::UNPROCESSABLE_ENTITY, Some(&error), html! {})),
    };
    let now = server.clock.now();
    let text = query.sql(&selection(&address, &visible)?.part(0, Some(1)), now);
    let search = server.engine.search(&asker).await?;
    let look = Look { query: &query, now, text: &text };
    // This one is recorded; the counts belong to it.
    let newest = search.leaf(look, &["file_size_bytes"], order(&address, &visible), &Near::Start, 1).await?;
    if newest.rows.is_empty() {
        let nobody = alert(Kind::Info, "Nobody", "no recorded event has this file", None);
        return Ok(shown(StatusCode::OK, None, nobody));
    }
    let total = search.count(&query, now).await?;
    let mut found = html! {
        h2 role="status" { @if total == 1 { "1 event" } @else { (count(total)) " events" } }
        div.actions { a.button.plain href=(address.link()) { "Show the events" } }
    };
    for (term, heading) in TOLD {
        let Some(told) = of_term(term).filter(|field| visible.has(field)) else { continue };
        let shares = search.shares(look, told.column, limits::CONSOLE_HOLDERS + 1).await?;
        found = html! { (found) (table_of(&address, term, heading, &shares)) };
    }
    Ok(shown(StatusCode::OK, None, found))
}

fn table_of(address: &Address, term: &str, heading: &str, shares: &[Share]) -> Markup {
    let caption = format!("{heading}, the first to have it first");
    let name = |share: &Share| {
        html! {
            @if share.value.is_empty() || share.value.contains(['*', '?']) { (share.value) } @else {
                a href=(address.with(term, "IS", &share.value).link()) { (share.value) }
            }
        }
    };
    html! {
        h2 { (heading) }
        (table(&caption, &["Who or what", "First", "Last", "Events"],
            shares.iter().take(limits::CONSOLE_HOLDERS).map(|share| vec![
                name(share), moment(&share.first), moment(&share.last), html! { (count(share.count)) },
            ])))
        @if shares.len() > limits::CONSOLE_HOLDERS {
            p.muted { "There are more; the events have them all." }
        }
    }
}
