//! Failures on their way out: a page for a person, `application/problem+json` (RFC 9457) for a program, with the same
//! words and the same remedy as on the command line.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use maud::html;
use serde_json::json;

use super::auth::{Viewer, sign_in_path};
use super::console::layout::{self, Kind, page};
use super::{Server, Shared};
use crate::error::{Code, Error};

/// A failure that ends a request. Every [`Error`] becomes one with `?`.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    error: Error,
}

impl Problem {
    /// A failure with another status than its code's.
    pub(crate) fn new(status: StatusCode, error: Error) -> Self {
        Self { status, error }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self { status: status(error.code()), error }
    }
}

impl IntoResponse for Problem {
    /// An empty answer that carries the failure; [`render`] knows for whom to write it.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(Carried { code: self.error.code(), message: self.error.message().to_owned() });
        if self.status.is_server_error() {
            tracing::warn!(code = %self.error.code(), error = %self.error, "a request failed");
        } else {
            tracing::debug!(code = %self.error.code(), error = %self.error, "a request was refused");
        }
        response
    }
}

/// In an answer's extensions: it says itself what failed, in the form that whoever asked expects.
#[derive(Clone, Copy)]
pub(crate) struct Written;

#[derive(Clone)]
struct Carried {
    code: Code,
    message: String,
}

/// The HTTP status of a failure.
pub(crate) fn status(code: Code) -> StatusCode {
    match code {
        Code::NotSignedIn => StatusCode::UNAUTHORIZED,
        Code::NotAllowed => StatusCode::FORBIDDEN,
        Code::ConnectionUnknown | Code::NoLake => StatusCode::NOT_FOUND,
        Code::RunInProgress | Code::ConnectionConflict | Code::ConnectionDeauthorized => StatusCode::CONFLICT,
        Code::Usage | Code::RequestRefused | Code::QueryInvalid | Code::QueryTooLarge => StatusCode::BAD_REQUEST,
        Code::QueryRefused => StatusCode::FORBIDDEN,
        // What the tenant, its directory or its mailboxes say no to: nothing is wrong with the request or with the server.
        Code::SecretRefused
        | Code::SecretExpired
        | Code::CertificateExpired
        | Code::ApplicationMissing
        | Code::TenantUnknown
        | Code::ConsentMissing
        | Code::ConsentPending
        | Code::ConsentRefused
        | Code::PermissionMissing
        | Code::MailboxesDenied
        | Code::AuditingDisabled
        | Code::SubscriptionDisabled
        | Code::ContentAwaited
        | Code::ContentSilent
        | Code::RunOverdue
        | Code::SendNotAudited
        | Code::ServiceUnavailable
        | Code::ServiceProtocol
        | Code::ClockSkew
        | Code::ContentExpired
        | Code::ContentUnreadable
        | Code::GapTooOld
        | Code::MailboxDenied
        | Code::MailboxMissing
        | Code::MessageMissing
        | Code::AttachmentUnreadable
        | Code::AttachmentHasNoBytes
        | Code::RecordUnreadable => StatusCode::BAD_GATEWAY,
        Code::Throttled
        | Code::LakeUnavailable
        | Code::LakeNotWritable
        | Code::QueryTimeout
        | Code::QueriesBusy
        | Code::Interrupted => StatusCode::SERVICE_UNAVAILABLE,
        Code::Configuration | Code::LakeDamaged | Code::Io | Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Writes the failures of the routes below, and of the library that carries them, for whoever asked.
pub(super) async fn render(State(server): State<Shared>, request: Request, next: Next) -> Response {
    let wants_page = wants_page(request.headers());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    // A sign-in that failed leads to no other one: an account without a role would go round in circles.
    let may_sign_in_first = wants_page && request.method() == Method::GET && !path.starts_with("/sign-in");
    let response = next.run(request).await;
    let status = response.status();
    let is_page = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    let is_written = is_page || response.extensions().get::<Written>().is_some();
    if !(status.is_client_error() || status.is_server_error()) || is_written {
        return response;
    }
    let carried = response.extensions().get::<Carried>().cloned().unwrap_or_else(|| Carried {
        code: Code::RequestRefused,
        message: status.canonical_reason().unwrap_or("the request was refused").to_lowercase(),
    });
    if carried.code == Code::NotSignedIn && may_sign_in_first && server.has_sign_in() {
        return sign_in(&path);
    }
    let viewer = response.extensions().get::<Viewer>().cloned();
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.remove(CONTENT_TYPE);
    if carried.code == Code::NotSignedIn {
        parts.headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    let mut written = if wants_page { as_page(&server, &carried, viewer.as_ref()) } else { as_json(status, &carried) };
    *written.status_mut() = status;
    written.headers_mut().extend(parts.headers);
    written
}

/// Leads to the sign-in, and from there back.
fn sign_in(path: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(location) = HeaderValue::from_str(&sign_in_path(path)) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn as_page(server: &Server, carried: &Carried, viewer: Option<&Viewer>) -> Response {
    let title = match carried.code {
        Code::NotSignedIn => "Not signed in",
        Code::NotAllowed => "Not allowed",
        Code::ConnectionUnknown => "No such connection",
        _ => "That did not work",
    };
    let body = html! {
        (layout::alert(Kind::Error, title, &carried.message, carried.code.hint()))
        p.muted { "Code: " code { (carried.code) } }
        @if viewer.is_none() && server.has_sign_in() {
            p { a.button href=(sign_in_path("/")) { "Sign in" } }
        } @else {
            p { a href="/" { "Back to the start" } }
        }
    };
    page(title, viewer, body).into_response()
}

fn as_json(status: StatusCode, carried: &Carried) -> Response {
    let problem = json!({
        "type": format!("urn:waybill:{}", carried.code), "title": status.canonical_reason(), "status": status.as_u16(),
        "code": carried.code.as_str(), "detail": carried.message, "hint": carried.code.hint(),
    });
    let mut response = Response::new(Body::from(problem.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

/// Browsers say that they take HTML; programs say something else, or that they take anything.
fn wants_page(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|kind| kind.trim().starts_with("text/html"))
}
