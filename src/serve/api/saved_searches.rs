//! Saved searches, in the form in which the replaced product lists them; here they can be made and changed too.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Refusal, answer, as_texts};
use crate::error::{Code, Error};
use crate::search::Surface;
use crate::serve::Shared;
use crate::serve::auth::Viewer;
use crate::serve::problem::Problem;
use crate::serve::saved::{Saved, SavedSearch, Wanted};

/// The version of the API by which it was saved; there has been one.
const API_VERSION: u32 = 2;

/// A search on its way in.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Given {
    name: String,
    #[serde(default)]
    notes: Option<String>,
    #[serde(default)]
    columns: Option<Vec<String>>,
    #[serde(default)]
    srt_key: Option<String>,
    #[serde(default)]
    srt_dir: Option<String>,
}

impl Given {
    fn read(bytes: &[u8]) -> Result<Wanted, Refusal> {
        let wrong = |error| Refusal::of("ILLEGAL_VALUE", format!("the body is no saved search: {error}"));
        let body: Value = serde_json::from_slice(bytes).map_err(wrong)?;
        crate::search::query::Query::from_json(&body)?;
        let query =
            ["groupClause", "groups"].iter().filter_map(|name| Some(((*name).to_owned(), body.get(name)?.clone())));
        let query = Value::Object(query.collect::<Map<_, _>>());
        let given: Self = serde_json::from_value(body).map_err(wrong)?;
        let is_descending = match given.srt_dir.as_deref() {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(other) => return Err(Refusal::of("ILLEGAL_SORT", format!("`srtDir` is asc or desc, not `{other}`"))),
        };
        Ok(Wanted {
            name: given.name,
            notes: given.notes,
            columns: given.columns.unwrap_or_default(),
            query,
            sort_key: given.srt_key,
            is_descending,
        })
    }
}

fn shown(search: &SavedSearch) -> Value {
    let SavedSearch { id, wanted, created, created_by, modified, modified_by } = search;
    json!({
        "id": id, "name": wanted.name, "notes": wanted.notes, "apiVersion": API_VERSION, "columns": wanted.columns,
        "groupClause": wanted.query.get("groupClause").unwrap_or(&json!("AND")),
        "groups": wanted.query.get("groups").map(readable),
        "srtKey": wanted.sort_key.as_deref().unwrap_or("event.id"),
        "srtDir": if wanted.is_descending { "desc" } else { "asc" },
        "createdByUID": created_by, "createdByUsername": created_by, "creationTimestamp": created,
        "modifiedByUID": modified_by, "modifiedByUsername": modified_by, "modifiedTimestamp": modified,
    })
}

/// Groups whose filters the official client can read: its model of a value has no numbers.
fn readable(groups: &Value) -> Value {
    match groups {
        Value::Array(values) => values.iter().map(readable).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), if name == "value" { as_texts(value) } else { readable(value) }))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

fn listed(status: StatusCode, searches: &[SavedSearch]) -> Response {
    answer(status, &json!({"searches": searches.iter().map(shown).collect::<Vec<_>>()}))
}

fn unknown(id: &str) -> Refusal {
    let error = Error::new(Code::Usage, format!("there is no saved search `{id}`"));
    Refusal::Other(Problem::new(StatusCode::NOT_FOUND, error))
}

fn parsed(id: &str) -> Result<Uuid, Refusal> {
    id.parse().map_err(|_| unknown(id))
}

pub(super) async fn list(State(server): State<Shared>, viewer: Viewer) -> Result<Response, Refusal> {
    viewer.asker(Surface::Api)?;
    Ok(listed(StatusCode::OK, &Saved::of(&server.lake).list().await?))
}

pub(super) async fn one(
    State(server): State<Shared>,
    viewer: Viewer,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    viewer.asker(Surface::Api)?;
    let search = Saved::of(&server.lake).find(parsed(&id)?).await?.ok_or_else(|| unknown(&id))?;
    Ok(listed(StatusCode::OK, &[search]))
}

pub(super) async fn create(State(server): State<Shared>, viewer: Viewer, bytes: Bytes) -> Result<Response, Refusal> {
    let asker = viewer.asker(Surface::Api)?;
    let saved = Saved::of(&server.lake).put(Given::read(&bytes)?, None, &asker.who, server.clock.now()).await?;
    Ok(listed(StatusCode::CREATED, &saved.into_iter().collect::<Vec<_>>()))
}

pub(super) async fn replace(
    State(server): State<Shared>,
    viewer: Viewer,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let asker = viewer.asker(Surface::Api)?;
    let (over, wanted) = (parsed(&id)?, Given::read(&bytes)?);
    let saved = Saved::of(&server.lake).put(wanted, Some(over), &asker.who, server.clock.now()).await?;
    Ok(listed(StatusCode::OK, &[saved.ok_or_else(|| unknown(&id))?]))
}

pub(super) async fn remove(
    State(server): State<Shared>,
    viewer: Viewer,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let asker = viewer.asker(Surface::Api)?;
    let removed = Saved::of(&server.lake).remove(parsed(&id)?, &asker.who, server.clock.now()).await?;
    removed.ok_or_else(|| unknown(&id))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
