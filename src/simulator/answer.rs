//! Requests as the services see them and answers as they give them, including the three different shapes of errors.

use axum::body::Bytes;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use chrono::{DateTime, Utc};
use futures::stream::{BoxStream, StreamExt};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use uuid::Uuid;

use super::clock;
use super::faults::Action;

/// One request, taken apart.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// The path's segments, percent-decoded.
    pub(crate) segments: Vec<String>,
    /// Query parameters, decoded as forms are: `+` is a blank.
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Scheme and host under which we were asked; links in answers begin with it.
    pub(crate) base: String,
    /// The fault actions that apply to this request.
    pub(crate) actions: Vec<Action>,
    pub(crate) now: DateTime<Utc>,
}

impl Request {
    /// Takes a path with its query apart.
    pub(crate) fn new(method: Method, path_and_query: &str, headers: HeaderMap, body: Bytes, base: String) -> Self {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        Self {
            method,
            segments: path.split('/').filter(|segment| !segment.is_empty()).map(percent_decoded).collect(),
            query: form(query),
            headers,
            body,
            base,
            actions: Vec::new(),
            now: clock::now(),
        }
    }

    /// The first query parameter of this name, in any letter case.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The text of path and query after decoding; what the `match` of a fault rule is looked for in.
    pub(crate) fn subject(&self) -> String {
        let mut subject = String::new();
        for segment in &self.segments {
            subject.push('/');
            subject.push_str(segment);
        }
        for (index, (name, value)) in self.query.iter().enumerate() {
            subject.push(if index == 0 { '?' } else { '&' });
            subject.push_str(name);
            subject.push('=');
            subject.push_str(value);
        }
        subject
    }

    /// The body as JSON, `null` if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

pub(crate) fn percent_decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Decodes `application/x-www-form-urlencoded` text.
pub(crate) fn form(text: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decoded(&text.replace('+', " "));
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

/// The body of an answer.
pub(crate) enum Content {
    Whole(Bytes),
    /// Sent in chunks without an announced length.
    Stream(BoxStream<'static, Bytes>),
}

/// An answer before it is put on the wire.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) content: Content,
}

impl Reply {
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let reply = Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            headers: Vec::with_capacity(8),
            content: Content::Whole(body.into()),
        };
        if content_type.is_empty() { reply } else { reply.header(CONTENT_TYPE, content_type) }
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json; charset=utf-8", body.to_string())
    }

    pub(crate) fn stream(content_type: &str, stream: BoxStream<'static, Bytes>) -> Self {
        let mut reply = Self::new(200, content_type, Bytes::new());
        reply.content = Content::Stream(stream);
        reply
    }

    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        // A value that cannot stand in a header is left out, as a proxy would.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    pub(crate) fn custom(self, name: &'static str, value: &str) -> Self {
        self.header(HeaderName::from_static(name), value)
    }

    /// The body as one piece.
    pub(crate) async fn into_bytes(self) -> Bytes {
        match self.content {
            Content::Whole(bytes) => bytes,
            Content::Stream(mut stream) => {
                let mut whole = Vec::new();
                while let Some(chunk) = stream.next().await {
                    whole.extend_from_slice(&chunk);
                }
                whole.into()
            }
        }
    }
}

/// Whole seconds with `Z`, as Graph writes times.
pub(crate) fn graph_time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// An error as Graph words it. <https://learn.microsoft.com/graph/errors>
pub(crate) fn graph_error(request: &Request, status: u16, code: &str, message: &str) -> Reply {
    let request_id = Uuid::new_v4().to_string();
    let client_request_id = request.header("client-request-id").unwrap_or(&request_id);
    let body = json!({"error": {"code": code, "message": message, "innerError": {
        "date": request.now.format("%Y-%m-%dT%H:%M:%S").to_string(),
        "request-id": request_id, "client-request-id": client_request_id,
    }}});
    Reply::new(status, "application/json", body.to_string())
}

/// An error as the Management Activity API words it.
/// <https://learn.microsoft.com/office/office-365-management-api/office-365-management-activity-api-reference#errors>
pub(crate) fn feed_error(status: u16, code: &str, message: &str) -> Reply {
    Reply::json(status, &json!({"error": {"code": code, "message": message}}))
}

/// What the Management Activity API says to a request without a valid token: another shape than its other errors.
pub(crate) fn feed_unauthorized() -> Reply {
    Reply::json(401, &json!({"Message": "Authorization has been denied for this request."}))
}

/// An error as Entra words it.
/// <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>
pub(crate) fn entra_error(status: u16, error: &str, number: u32, message: &str, now: DateTime<Utc>) -> Reply {
    let (trace_id, correlation_id) = (Uuid::new_v4(), Uuid::new_v4());
    let timestamp = now.format("%Y-%m-%d %H:%M:%SZ").to_string();
    Reply::json(
        status,
        &json!({
            "error": error,
            "error_description": format!(
                "AADSTS{number}: {message}\r\nTrace ID: {trace_id}\r\nCorrelation ID: {correlation_id}\r\nTimestamp: {timestamp}"
            ),
            "error_codes": [number],
            "timestamp": timestamp,
            "trace_id": trace_id.to_string(),
            "correlation_id": correlation_id.to_string(),
            "error_uri": format!("https://login.microsoftonline.com/error?code={number}"),
        }),
    )
}
