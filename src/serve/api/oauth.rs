//! `POST /v1/oauth`: how clients of the replaced product sign in. Their id is the name of an API token, their secret is its
//! text, and what they get to present from then on is that text: so a token that is taken back is good for nothing at
//! once, here too.
//!
//! Credentials come in one of three ways, of which clients use all: HTTP Basic alone, Basic with the grant in the query, and
//! a form (RFC 6749 §2.3.1, §4.4).

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, HeaderMap};
use axum::response::Response;
use serde_json::json;

use super::answer;
use crate::limits;
use crate::secret::Secret;
use crate::serve::Shared;
use crate::serve::auth::{Credentials, token::Tokens};
use crate::serve::problem::Problem;

pub(super) async fn token(
    State(server): State<Shared>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    form: Bytes,
) -> Result<Response, Problem> {
    let query = query.unwrap_or_default();
    let field = |name: &str| {
        let fields = url::form_urlencoded::parse(&form).chain(url::form_urlencoded::parse(query.as_bytes()));
        fields.into_iter().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    };
    let refuse =
        |status, error: &str, why: &str| Ok(answer(status, &json!({"error": error, "error_description": why})));
    if field("grant_type").is_some_and(|grant| grant != "client_credentials") {
        return refuse(StatusCode::BAD_REQUEST, "unsupported_grant_type", "the grant is `client_credentials`");
    }
    let basic = headers.get(AUTHORIZATION).and_then(Credentials::of);
    let posted = || match (field("client_id"), field("client_secret")) {
        (Some(id), Some(secret)) => Some(Credentials::Named(id, Secret::new(secret))),
        _ => None,
    };
    let Some(Credentials::Named(id, secret)) = basic.or_else(posted) else {
        let why = "give an API token's name and text as client id and secret, by HTTP Basic or in a form";
        return refuse(StatusCode::BAD_REQUEST, "invalid_request", why);
    };
    let known = Tokens::of(&server.lake).find(secret.expose(), server.clock.now()).await?;
    if !known.is_some_and(|token| token.is_called(&id)) {
        let why = "there is no API token of this name and text, or it has expired";
        return refuse(StatusCode::UNAUTHORIZED, "invalid_client", why);
    }
    let body = json!({"access_token": secret.expose(), "token_type": "bearer",
        "expires_in": limits::API_TOKEN_SECONDS});
    Ok(answer(StatusCode::OK, &body))
}
