//! The HTTP API: what scripts of the replaced product call, under the same paths and with the same words, and what they
//! missed there.
//!
//! ```text
//!   POST   /v1/oauth                             oauth           an API token's name and text for a bearer token
//!   POST   /v2/file-events                       search          a page of events
//!   POST   /v2/file-events/grouping              search          values of a term, and how many events of each
//!   POST   /v2/file-events/export                search          all events as CSV
//!   POST   /v2/file-events/sql                   search          the same question in SQL
//!   GET    /v2/file-events/saved-searches[/id]   saved_searches  also POST, PUT and DELETE
//!   GET    /v2/openapi.json                                      the description, schemas/openapi.json
//! ```
//!
//! The exchange is that of the client `incydr` 2.12.5, seen on the wire, and of the vendor's OpenAPI description of
//! 2024-09-13 (`code42/developer.code42.com`, `api/code42api.json`). `docs/api.md` says where Waybill differs.

mod event;
mod oauth;
mod request;
mod saved_searches;
mod search;

use axum::Router;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

pub(crate) use self::search::Totals;
use super::Shared;
use super::auth::Viewer;
use super::problem::{Problem, Written};
use crate::error::{Code, Error};
use crate::limits;
use crate::search::query::Finding;

/// Every path of the API.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/oauth", post(oauth::token))
        .route("/v2/file-events", post(search::page))
        .route("/v2/file-events/grouping", post(search::grouping))
        .route("/v2/file-events/export", post(search::export))
        .route("/v2/file-events/sql", post(search::sql))
        .route("/v2/file-events/saved-searches", get(saved_searches::list).post(saved_searches::create))
        .route(
            "/v2/file-events/saved-searches/{id}",
            get(saved_searches::one).put(saved_searches::replace).delete(saved_searches::remove),
        )
        .route("/v2/openapi.json", get(description))
}

/// The API's description in OpenAPI 3.1.
const DESCRIPTION: &str = include_str!("../../../schemas/openapi.json");

async fn description(_viewer: Viewer) -> Response {
    ([(CONTENT_TYPE, "application/json")], DESCRIPTION).into_response()
}

/// Why a request of the API is not answered.
#[derive(Debug)]
enum Refusal {
    /// Something is wrong with the question, or it cannot be answered now: as the replaced product says it.
    Problems { status: StatusCode, problems: Vec<Value> },
    /// Anything else, such as a missing role: as everywhere on this server.
    Other(Problem),
}

impl Refusal {
    /// One thing that is wrong with the request and concerns no filter.
    fn of(kind: &str, description: impl Into<String>) -> Self {
        let problem = json!({"type": kind, "badFilter": null, "description": description.into()});
        Self::Problems { status: StatusCode::BAD_REQUEST, problems: vec![problem] }
    }
}

impl From<Vec<Finding>> for Refusal {
    fn from(findings: Vec<Finding>) -> Self {
        let problem = |finding: &Finding| {
            let filter = finding.term.is_some() || finding.operator.is_some();
            let filter = filter.then(|| {
                json!({"term": finding.term, "operator": finding.operator, "value": finding.value.as_ref().map(as_texts)})
            });
            json!({"type": finding.kind.as_str(), "badFilter": filter, "description": finding.to_string()})
        };
        Self::Problems { status: StatusCode::BAD_REQUEST, problems: findings.iter().map(problem).collect() }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let (status, kind) = match error.code() {
            Code::Usage | Code::QueryInvalid => (StatusCode::BAD_REQUEST, "ILLEGAL_VALUE"),
            Code::QueryTimeout => (StatusCode::INTERNAL_SERVER_ERROR, "QUERY_TIMEOUT"),
            Code::QueryTooLarge => (StatusCode::INTERNAL_SERVER_ERROR, "RESPONSE_CONTENT_TOO_LARGE"),
            // Clients wait and ask again after a 429, and give up after any other failure.
            Code::QueriesBusy => (StatusCode::TOO_MANY_REQUESTS, "SEARCH_FAILED"),
            Code::NotSignedIn | Code::NotAllowed | Code::NoLake => return Self::Other(error.into()),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "SEARCH_FAILED"),
        };
        if status.is_server_error() {
            tracing::warn!(code = %error.code(), %error, "a search of the API failed");
        }
        let description = match error.code().hint() {
            Some(hint) => format!("{} ({}). {hint}", error.message(), error.code()),
            None => format!("{} ({})", error.message(), error.code()),
        };
        let problem = json!({"type": kind, "badFilter": null, "description": description});
        Self::Problems { status, problems: vec![problem] }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Other(problem) => problem.into_response(),
            // The members of every answer, so that a client reads it whatever it asked for.
            Self::Problems { status, problems } => {
                let body = json!({"totalCount": 0, "fileEvents": null, "nextPgToken": null, "groups": null,
                    "problems": problems});
                let mut response = answer(status, &body);
                if status == StatusCode::TOO_MANY_REQUESTS {
                    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(limits::API_RETRY_AFTER_SECONDS));
                }
                response
            }
        }
    }
}

/// An answer in JSON that no other form is made of.
fn answer(status: StatusCode, body: &Value) -> Response {
    let mut response = (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response();
    response.extensions_mut().insert(Written);
    response
}

/// Numbers and truth as texts: the client's model of a filter has texts and lists of texts only.
fn as_texts(value: &Value) -> Value {
    match value {
        Value::Null | Value::String(_) => value.clone(),
        Value::Array(values) => values.iter().map(as_texts).collect(),
        other => Value::String(other.to_string()),
    }
}
