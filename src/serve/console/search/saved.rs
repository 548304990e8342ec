//! Saved searches: what is asked again, shared by everybody who may search. The API has the same ones.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use uuid::Uuid;

use super::address::Address;
use super::cells::moment;
use super::fields;
use crate::error::{Code, Error};
use crate::search::Surface;
use crate::serve::Shared;
use crate::serve::auth::Viewer;
use crate::serve::console::layout::{Button, Field, Section, button, failure, field, form, page, table};
use crate::serve::form::Form;
use crate::serve::problem::Problem;
use crate::serve::saved::{Saved, SavedSearch, Wanted};

/// The form that saves a search, on its page.
pub(super) fn form_to_save(viewer: &Viewer, address: &Address, searches: &[SavedSearch]) -> Markup {
    let fields = html! {
        input type="hidden" name="query" value=(address.at_start().to_query());
        (field(&Field { name: "name", label: "Name", is_required: true, ..Field::default() }))
        (field(&Field { name: "notes", label: "Notes", ..Field::default() }))
        @if !searches.is_empty() {
            div.field {
                label for="over" { "Save it" }
                select #over name="over" {
                    option value="" { "as a new search" }
                    @for search in searches { option value=(search.id) { "in the place of " (search.wanted.name) } }
                }
            }
        }
        (button(Button::Plain, "Save search"))
    };
    html! { details.more { summary { "Save this search" } (form(viewer, "/search/saved", fields)) } }
}

pub(super) async fn page_of_all(State(server): State<Shared>, viewer: Viewer) -> Result<Response, Problem> {
    viewer.asker(Surface::Console)?;
    let searches = Saved::of(&server.lake).list().await?;
    let body = html! {
        div.actions { a.button.plain href="/search" { "New search" } }
        @if searches.is_empty() {
            p { "Nothing is saved yet. The page of a search has " strong { "Save this search" } " below its results." }
        } @else {
            (table("Saved searches, for everybody who may search", &["Name", "Notes", "Changed", "By", "Change"],
                searches.iter().map(|search| vec![
                    html! { a href={ "/search/saved/" (search.id) } { (search.wanted.name) } },
                    html! { (search.wanted.notes.as_deref().unwrap_or("–")) },
                    moment(&search.modified.to_rfc3339()),
                    html! { (search.modified_by) },
                    orders(&viewer, search),
                ])))
        }
    };
    Ok(page("Saved searches", Some(&viewer), body).section(Section::Search).wide().into_response())
}

fn orders(viewer: &Viewer, search: &SavedSearch) -> Markup {
    let (id, name) = (search.id, &search.wanted.name);
    html! {
        details {
            summary aria-label={ "Rename or delete " (name) } { "Rename or delete" }
            (form(viewer, &format!("/search/saved/{id}"), html! {
                input type="text" name="name" value=(name) required aria-label={ "New name of " (name) };
                input type="text" name="notes" value=(search.wanted.notes.as_deref().unwrap_or_default())
                    aria-label={ "Notes of " (name) };
                (button(Button::Plain, "Rename"))
            }))
            (form(viewer, &format!("/search/saved/{id}/delete"), button(Button::Danger, "Delete")))
        }
    }
}

/// Saves the search of an address, as a new one or in the place of another.
pub(super) async fn save(State(server): State<Shared>, form: Form) -> Result<Response, Problem> {
    let asker = form.viewer.asker(Surface::Console)?;
    let address = Address::parse(form.text("query"))?.at_start();
    let wanted = Wanted {
        name: form.text("name").to_owned(),
        notes: Some(form.text("notes").to_owned()),
        columns: address.columns.clone(),
        query: address.groups()?,
        sort_key: Some(address.sort.clone()),
        is_descending: !address.is_ascending,
    };
    let over = match form.text("over") {
        "" => None,
        id => Some(parsed(id)?),
    };
    let saved = Saved::of(&server.lake).put(wanted, over, &asker.who, server.clock.now()).await;
    done(&form.viewer, saved)
}

/// Another name and other notes.
pub(super) async fn change(
    State(server): State<Shared>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Problem> {
    let asker = form.viewer.asker(Surface::Console)?;
    let saved = Saved::of(&server.lake);
    let search = saved.find(parsed(&id)?).await?.ok_or_else(unknown)?;
    let (name, notes) = (form.text("name").to_owned(), Some(form.text("notes").to_owned()));
    let wanted = Wanted { name, notes, ..search.wanted };
    done(&form.viewer, saved.put(wanted, Some(search.id), &asker.who, server.clock.now()).await)
}

pub(super) async fn delete(
    State(server): State<Shared>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Problem> {
    let asker = form.viewer.asker(Surface::Console)?;
    done(&form.viewer, Saved::of(&server.lake).remove(parsed(&id)?, &asker.who, server.clock.now()).await)
}

/// Leads to the page of the search.
pub(super) async fn open(
    State(server): State<Shared>,
    viewer: Viewer,
    Path(id): Path<String>,
) -> Result<Redirect, Problem> {
    viewer.asker(Surface::Console)?;
    let Wanted { query, columns, sort_key, is_descending, .. } =
        Saved::of(&server.lake).find(parsed(&id)?).await?.ok_or_else(unknown)?.wanted;
    let mut address = Address::of_groups(&query);
    address.columns = columns.into_iter().filter(|term| fields::of_term(term).is_some()).collect();
    if let Some(key) = sort_key.filter(|key| fields::of_term(key).is_some_and(|field| field.is_sortable)) {
        (address.sort, address.is_ascending) = (key, !is_descending);
    }
    Ok(Redirect::to(&address.link()))
}

fn done(viewer: &Viewer, saved: crate::error::Result<Option<SavedSearch>>) -> Result<Response, Problem> {
    match saved {
        Ok(Some(_)) => Ok(Redirect::to("/search/saved").into_response()),
        Ok(None) => Err(unknown()),
        Err(error) if error.code() == Code::Usage => {
            let body = html! {
                (failure("The search was not saved", &error))
                div.actions { a.button.plain href="/search/saved" { "Saved searches" } }
            };
            let page = page("Saved searches", Some(viewer), body).section(Section::Search);
            Ok(page.status(StatusCode::UNPROCESSABLE_ENTITY).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

fn parsed(id: &str) -> Result<Uuid, Problem> {
    id.parse().map_err(|_| unknown())
}

fn unknown() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, Error::new(Code::RequestRefused, "there is no such saved search"))
}
