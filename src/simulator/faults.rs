//! Faults on demand: what goes wrong, when and for whom.
//!
//! A faults file is JSON: either a list of rules, or an object with `faults` and, if wanted, more users and groups in
//! `directory` (as in a corpus's `_groups.json`).
//!
//! ```json
//! {
//!   "faults": [
//!     {"on": "blob", "times": 2, "do": {"status": 503, "retry_after": 1}},
//!     {"on": "attachment_value", "match": "alice@", "every": 3, "do": {"reset": 4096}},
//!     {"on": "list", "after": 1, "times": 1, "do": "af429"},
//!     {"on": "find", "each": true, "times": 1, "do": "message_missing"},
//!     {"on": "token", "do": {"error": "7000222"}},
//!     {"do": {"late": {"share": 0.1, "seconds": 30}}}
//!   ],
//!   "directory": {
//!     "users": [{"mail": "office@contoso.example", "kind": "shared", "aliases": ["desk@contoso.example"]}],
//!     "groups": [{"mail": "all@contoso.example", "displayName": "All", "members": ["office@contoso.example"]}]
//!   }
//! }
//! ```
//!
//! `on` is the kind of a request as in the report (`token`, `start`, `list`, `blob`, `find`, `attachments`,
//! `attachment_value`, `users`, …) or `feed`, `mail`, `directory`, `graph`, `any`; without it a rule applies wherever its
//! action makes sense. `match` is text that must stand in the decoded path and query, or in the mailbox's address.
//! Of the requests that match, the first `after` pass; then a rule fires `times` times, or at `every` n-th, or with a
//! `probability`; without any of these always. With `each` every different path and query is counted by itself.
//!
//! | action | what happens |
//! |---|---|
//! | `{"status": 429, "retry_after": 2, "body": "…"}` | this status; without `body` the service's own wording |
//! | `{"error": "AF20051", "message": "…", "status": 400}` | the named error: an `AF` code, an `AADSTS` number, a Graph code |
//! | `af429`, `start_429`, `gateway_504`, `auditing_disabled` | errors with shapes of their own |
//! | `{"latency_ms": 200}` | the answer comes later, and holds its place on the mailbox until then |
//! | `{"reset": 1000}` | the connection ends after so many bytes of the body, in the middle of it |
//! | `{"truncate": 1000}` | the body ends after so many bytes, well-formed for HTTP |
//! | `{"short_body": 1000}` | the whole length is announced, and the connection ends after so many bytes |
//! | `truncated_json` | the last quarter of the body is missing, well-formed for HTTP |
//! | `bom`, `{"content_type": "text/html"}` | the body begins with a byte order mark; the type is another |
//! | `{"slow_body": {"bytes": 1024, "ms": 50}}` | the body comes in pieces of so many bytes, one each so many milliseconds |
//! | `expire_token` | the token of this request is void: 401 until a new one is asked for |
//! | `no_roles`, `{"roles": ["Mail.Read"]}`, `{"expires_in": 60}` | at `token`: a token without roles, with these only, or with this life in seconds |
//! | `expire_blob`, `missing_blob` | at `blob`: AF20051, AF20050 |
//! | `malformed_record`, `record_without_id`, `duplicates`, `shuffle`, `{"big_record": 1000000}` | what a blob contains |
//! | `empty_page`, `partial_long_window` | at `list`: nothing but a next page; more than 24 hours answered in part |
//! | `subscription_off`, `subscription_disabled` | AF20022, AF20023 at `list` and `blob` until the next start |
//! | `{"late": {"share": 0.1, "seconds": 30}}` | records listed only so long after the simulator's start, with an earlier `contentCreated` |
//! | `{"delayed": {"share": 0.1, "seconds": 30}}` | records that become available so long after the start |
//! | `{"repeated": {"share": 0.1, "seconds": 60}}` | records that come again in other blobs, so much later |
//! | `mailbox_denied`, `mailbox_missing`, `mailbox_alternating`, `mailbox_moving` | the mailbox cannot be read: 403, 404, 404 of two kinds, 503 |
//! | `message_missing` | the sent copy is not there |
//! | `{"message_in": "recoverableitemsdeletions"}` | the sent copy lies in this folder; recoverable items are not part of `/messages` |
//! | `draft_copy`, `self_copy` | a draft, a received copy with the same internet message id |
//! | `reference`, `{"reference_at": 0}` | all attachments, or the one at this index, are links to a cloud drive |
//! | `item_varies` | the MIME text of an attached message differs at every read |
//! | `{"app_wide_concurrency": 4}` | no more than so many requests at once on all mailboxes together |

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::answer::{Reply, Request, entra_error, feed_error, feed_unauthorized, graph_error};
use super::feed::timeline::Lateness;
use super::ids::{mix, text_number};
use super::report::Kind;
use super::tenant::DirectoryFile;
use super::{Result, SimulatorError};

/// A parsed faults file.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    rules: Vec<RuleEntry>,
    pub(crate) directory: DirectoryFile,
}

impl Faults {
    /// Reads a faults file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(|source| SimulatorError::read(path, source))?;
        let value = serde_json::from_slice(&text).map_err(|source| SimulatorError::understand(path, &source))?;
        Self::parse(value).map_err(|source| SimulatorError::understand(path, &source))
    }

    /// Understands the content of a faults file.
    pub fn parse(value: Value) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Whole {
            #[serde(default)]
            faults: Vec<RuleEntry>,
            #[serde(default)]
            directory: DirectoryFile,
        }
        if value.is_array() {
            return Ok(Self { rules: serde_json::from_value(value)?, directory: DirectoryFile::default() });
        }
        let whole: Whole = serde_json::from_value(value)?;
        Ok(Self { rules: whole.faults, directory: whole.directory })
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleEntry {
    #[serde(default)]
    on: Option<On>,
    #[serde(default, rename = "match")]
    matches: Option<String>,
    #[serde(default)]
    times: Option<u64>,
    #[serde(default)]
    every: Option<u64>,
    #[serde(default)]
    probability: Option<f64>,
    #[serde(default)]
    after: u64,
    #[serde(default)]
    each: bool,
    #[serde(rename = "do", deserialize_with = "action")]
    action: Action,
}

/// What requests a rule is about.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum On {
    Group(OnGroup),
    Kind(Kind),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnGroup {
    Any,
    Feed,
    Mail,
    Directory,
    Graph,
}

/// What a rule does; see the head of this file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    #[serde(skip)]
    Status {
        status: u16,
        retry_after: Option<String>,
        body: Option<String>,
    },
    #[serde(skip)]
    Error {
        code: String,
        message: Option<String>,
        status: Option<u16>,
        retry_after: Option<String>,
    },
    Af429,
    #[serde(rename = "start_429")]
    Start429,
    #[serde(rename = "gateway_504")]
    Gateway504,
    AuditingDisabled,
    LatencyMs(u64),
    Reset(usize),
    Truncate(usize),
    ShortBody(usize),
    TruncatedJson,
    Bom,
    ContentType(String),
    SlowBody {
        bytes: usize,
        ms: u64,
    },
    ExpireToken,
    NoRoles,
    Roles(Vec<String>),
    ExpiresIn(u64),
    ExpireBlob,
    MissingBlob,
    MalformedRecord,
    RecordWithoutId,
    Duplicates,
    Shuffle,
    BigRecord(usize),
    EmptyPage,
    PartialLongWindow,
    SubscriptionOff,
    SubscriptionDisabled,
    Late {
        share: f64,
        seconds: f64,
    },
    Delayed {
        share: f64,
        seconds: f64,
    },
    Repeated {
        share: f64,
        seconds: f64,
    },
    MailboxDenied,
    MailboxMissing,
    MailboxAlternating,
    MailboxMoving,
    MessageMissing,
    MessageIn(String),
    DraftCopy,
    SelfCopy,
    Reference,
    ReferenceAt(usize),
    ItemVaries,
    AppWideConcurrency(u32),
}

/// Actions are a name, an object with one name, or a status or error with more beside it.
fn action<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Action, D::Error> {
    use serde::de::Error;
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Flat {
        #[serde(default)]
        status: Option<u16>,
        #[serde(default)]
        error: Option<Value>,
        #[serde(default)]
        message: Option<String>,
        #[serde(default)]
        retry_after: Option<Value>,
        #[serde(default)]
        body: Option<String>,
    }
    let value = Value::deserialize(deserializer)?;
    if value.get("status").is_none() && value.get("error").is_none() {
        return serde_json::from_value(value).map_err(D::Error::custom);
    }
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let flat: Flat = serde_json::from_value(value).map_err(D::Error::custom)?;
    let retry_after = flat.retry_after.map(text);
    match (flat.error, flat.status) {
        (Some(code), status) => Ok(Action::Error { code: text(code), message: flat.message, status, retry_after }),
        (None, Some(status)) => Ok(Action::Status { status, retry_after, body: flat.body }),
        (None, None) => Err(D::Error::custom("an action needs a status or an error")),
    }
}

impl Action {
    /// Where an action applies if its rule does not tell.
    fn applies_to(&self, kind: Kind) -> bool {
        match self {
            Self::NoRoles | Self::Roles(_) | Self::ExpiresIn(_) => kind == Kind::Token,
            Self::Start429 | Self::AuditingDisabled => kind == Kind::Start,
            Self::Af429 => kind.is_feed() && kind != Kind::Start,
            Self::EmptyPage | Self::PartialLongWindow => kind == Kind::List,
            Self::SubscriptionOff | Self::SubscriptionDisabled => matches!(kind, Kind::List | Kind::Blob),
            Self::ExpireBlob
            | Self::MissingBlob
            | Self::MalformedRecord
            | Self::RecordWithoutId
            | Self::Duplicates
            | Self::Shuffle
            | Self::BigRecord(_) => kind == Kind::Blob,
            Self::Late { .. } | Self::Delayed { .. } | Self::Repeated { .. } => false,
            Self::MailboxDenied
            | Self::MailboxMissing
            | Self::MailboxAlternating
            | Self::MailboxMoving
            | Self::AppWideConcurrency(_)
            | Self::MessageIn(_) => kind.is_mail(),
            Self::MessageMissing | Self::DraftCopy | Self::SelfCopy => matches!(kind, Kind::Find | Kind::Messages),
            Self::Reference | Self::ReferenceAt(_) => {
                matches!(
                    kind,
                    Kind::Find
                        | Kind::Messages
                        | Kind::Message
                        | Kind::Attachments
                        | Kind::Attachment
                        | Kind::AttachmentValue
                )
            }
            Self::ItemVaries | Self::Gateway504 => kind == Kind::AttachmentValue,
            Self::ExpireToken => kind.is_feed() || kind.is_mail() || kind.is_directory(),
            Self::Status { .. }
            | Self::Error { .. }
            | Self::LatencyMs(_)
            | Self::Reset(_)
            | Self::Truncate(_)
            | Self::ShortBody(_)
            | Self::TruncatedJson
            | Self::Bom
            | Self::ContentType(_)
            | Self::SlowBody { .. } => kind != Kind::Control,
        }
    }

    /// The name in the report.
    fn name(&self) -> String {
        match self {
            Self::Status { status, .. } => format!("status {status}"),
            Self::Error { code, .. } => format!("error {code}"),
            other => {
                let text = format!("{other:?}");
                let name = text.split([' ', '(', '{']).next().unwrap_or_default();
                let mut snake = String::new();
                for character in name.chars() {
                    if character.is_uppercase() && !snake.is_empty() {
                        snake.push('_');
                    }
                    snake.push(character.to_ascii_lowercase());
                }
                snake
            }
        }
    }

    /// The answer that this action gives in place of the service's, if it gives one.
    pub(crate) fn reply(&self, request: &Request, kind: Kind) -> Option<Reply> {
        let now = request.now;
        Some(match self {
            Self::Status { status, retry_after, body } => {
                let reply = match body {
                    Some(body) => Reply::new(*status, "text/plain", body.clone()),
                    None => reply_of_status(request, kind, *status),
                };
                with_retry_after(reply, retry_after.as_deref())
            }
            Self::Error { code, message, status, retry_after } => {
                with_retry_after(named(request, code, message.as_deref(), *status), retry_after.as_deref())
            }
            Self::Af429 => named(request, "AF429", None, None),
            Self::Start429 => named(request, "429", None, None),
            Self::Gateway504 => graph_error(request, 504, "UnknownError", ""),
            Self::ExpireBlob => named(request, "AF20051", None, None),
            Self::MissingBlob => named(request, "AF20050", None, None),
            Self::SubscriptionOff => named(request, "AF20022", None, None),
            Self::SubscriptionDisabled => named(request, "AF20023", None, None),
            Self::AuditingDisabled => auditing_disabled(now),
            Self::MailboxDenied => graph_error(
                request,
                403,
                "ErrorAccessDenied",
                "Access to OData is disabled: [RAOP] : Blocked by tenant configured AppOnly AccessPolicy settings.",
            ),
            Self::MailboxMissing => named(request, "MailboxNotEnabledForRESTAPI", None, None),
            // The same user was seen to alternate (microsoft-graph-docs#10481).
            Self::MailboxAlternating if now.timestamp_subsec_nanos() & 1024 == 0 => {
                named(request, "ResourceNotFound", None, None)
            }
            Self::MailboxAlternating => named(request, "MailboxNotEnabledForRESTAPI", None, None),
            Self::MailboxMoving => named(request, "MailboxInfoStale", None, None),
            _ => return None,
        })
    }
}

fn with_retry_after(reply: Reply, retry_after: Option<&str>) -> Reply {
    match retry_after {
        Some(seconds) => reply.custom("retry-after", seconds),
        None => reply,
    }
}

/// What the asked service says with a status, when nothing more is told.
fn reply_of_status(request: &Request, kind: Kind, status: u16) -> Reply {
    if kind == Kind::Token {
        return match status {
            429 => entra_error(429, "temporarily_unavailable", 90055, "The tenant is throttled.", request.now),
            500.. => entra_error(
                status,
                "temporarily_unavailable",
                90033,
                "A transient error has occurred. Please try again.",
                request.now,
            ),
            _ => entra_error(status, "invalid_request", 90014, "The request is not valid.", request.now),
        };
    }
    if kind.is_feed() {
        return match status {
            401 => feed_unauthorized(),
            403 | 429 => feed_error(status, "AF429", &af429(kind)),
            // No JSON is guaranteed when the backend is down.
            503 | 408 => Reply::new(status, "text/html", "<html><body>Service Unavailable</body></html>"),
            _ => feed_error(status, "AF50000", "An internal error occurred. Retry the request."),
        };
    }
    let (code, message) = match status {
        400 => ("BadRequest", "The request is malformed."),
        401 => ("InvalidAuthenticationToken", "Access token has expired or is not yet valid."),
        403 => ("ErrorAccessDenied", "Access is denied. Check credentials and try again."),
        404 => ("ErrorItemNotFound", "The specified object was not found in the store."),
        429 if kind.is_mail() => ("ApplicationThrottled", "Application is over its MailboxConcurrency limit."),
        429 => ("TooManyRequests", "Too many requests."),
        503 => ("serviceNotAvailable", "The service is temporarily unavailable."),
        504 => ("UnknownError", ""),
        _ => ("ErrorInternalServerError", "An internal server error occurred. The operation failed."),
    };
    graph_error(request, status, code, message)
}

fn af429(kind: Kind) -> String {
    let method = if kind == Kind::Blob { "GetBlob" } else { "GetContent" };
    format!("Too many requests. Method={method}, PublisherId=00000000-0000-0000-0000-000000000000")
}

/// The error that a code names: status and message as documented or as seen.
pub(crate) fn named(request: &Request, code: &str, message: Option<&str>, status: Option<u16>) -> Reply {
    let code = code.strip_prefix("AADSTS").unwrap_or(code);
    if let Some((known_status, known_message)) = feed_code(code) {
        let message = message.map_or_else(|| known_message.to_owned(), str::to_owned);
        return feed_error(status.unwrap_or(known_status), code, &message);
    }
    if let Ok(number) = code.parse::<u32>() {
        let (known_status, error, known_message) = entra_code(number);
        return entra_error(
            status.unwrap_or(known_status),
            error,
            number,
            message.unwrap_or(known_message),
            request.now,
        );
    }
    if code.starts_with("AF") {
        return feed_error(status.unwrap_or(400), code, message.unwrap_or("An error occurred."));
    }
    let (known_status, known_message) = graph_code(code);
    graph_error(request, status.unwrap_or(known_status), code, message.unwrap_or(known_message))
}

/// Statuses that the documentation leaves open are those that others saw, or the most likely ones.
fn feed_code(code: &str) -> Option<(u16, &'static str)> {
    Some(match code {
        "AF10001" => (401, "The permission set () sent in the request does not include the expected permission."),
        "AF20001" => (400, "Missing parameter: contentType."),
        "AF20002" => (400, "Invalid parameter type: contentType. Expected type: string"),
        "AF20010" => (400, "The tenant ID passed in the URL does not match the tenant ID passed in the access token."),
        "AF20011" => (400, "Specified tenant ID does not exist in the system or has been deleted."),
        "AF20012" => (400, "Specified tenant ID is incorrectly configured in the system."),
        "AF20013" => (400, "The tenant ID passed in the URL is not a valid GUID."),
        "AF20020" => (400, "The specified content type is not valid."),
        "AF20022" => (400, "No subscription found for the specified content type."),
        "AF20023" => (400, "The subscription was disabled."),
        "AF20024" => (400, "The subscription is already enabled. No property change."),
        "AF20030" => (
            400,
            "Start time and end time must both be specified (or both omitted) and must be less than or equal to 24 hours apart, with the start time no more than 7 days in the past.",
        ),
        "AF20031" => (400, "Invalid nextPage Input."),
        "AF20050" => (404, "The specified content does not exist."),
        "AF20051" => {
            (400, "Content requested with the key has already expired. Content older than 7 days cannot be retrieved.")
        }
        "AF20052" => (400, "Content ID in the URL is invalid."),
        "AF20055" => (
            400,
            "Start time and end time must both be specified (or both omitted) and must be less than or equal to 24 hours apart, with the start time no more than 7 days in the past.",
        ),
        "AF429" => (403, "Too many requests. Method=GetBlob, PublisherId=00000000-0000-0000-0000-000000000000"),
        "429" => (403, "Too many frequent subscription start requests. Please retry again after 8m 46s."),
        "AF50000" | "AF50005" | "AF50006" => (500, "An internal error occurred. Retry the request."),
        _ => return None,
    })
}

/// <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>
pub(crate) fn entra_code(number: u32) -> (u16, &'static str, &'static str) {
    match number {
        7000215 => (
            401,
            "invalid_client",
            "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app.",
        ),
        7000222 => (
            401,
            "invalid_client",
            "The provided client secret keys are expired. Visit the Azure portal to create new keys for your app: https://aka.ms/NewClientSecret",
        ),
        7000218 => (
            401,
            "invalid_client",
            "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
        ),
        700027 => (
            401,
            "invalid_client",
            "The certificate with identifier used to sign the client assertion is not registered on application.",
        ),
        50012 => (401, "invalid_client", "Authentication failed. Client assertion contains an invalid signature."),
        700024 | 500133 => (
            400,
            "invalid_grant",
            "Assertion is not within its valid time range. Ensure that the access token is not expired before using it for user assertion.",
        ),
        50013 => (400, "invalid_grant", "Assertion failed signature validation."),
        700016 => (
            400,
            "unauthorized_client",
            "Application was not found in the directory. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant.",
        ),
        90002 => (
            400,
            "invalid_request",
            "Tenant not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud.",
        ),
        900023 => (
            400,
            "invalid_request",
            "Specified tenant identifier is neither a valid DNS name, nor a valid external domain.",
        ),
        500011 => (400, "invalid_resource", "The resource principal named was not found in the tenant."),
        70011 => (
            400,
            "invalid_scope",
            "The provided request must include a 'scope' input parameter. The provided value for the input parameter 'scope' is not valid.",
        ),
        700022 => (
            400,
            "invalid_scope",
            "The provided value for the input parameter scope is not valid because it contains more than one resource.",
        ),
        700023 => (
            400,
            "invalid_scope",
            "The provided value for the input parameter scope is not valid because it doesn't contain any resource.",
        ),
        900144 => (400, "invalid_request", "The request body must contain the required parameters."),
        901002 => (400, "invalid_request", "The 'resource' request parameter is not supported."),
        9001023 => (
            400,
            "invalid_request",
            "The grant type is not supported over the /common or /consumers endpoints. Please use the /organizations or tenant-specific endpoint.",
        ),
        70003 => (400, "unsupported_grant_type", "The app requested an unsupported grant type."),
        65001 => (400, "invalid_grant", "The user or administrator has not consented to use the application."),
        53003 => (
            400,
            "invalid_grant",
            "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance.",
        ),
        7000112 => (400, "unauthorized_client", "Application is disabled."),
        50011 => (400, "invalid_request", "The redirect URI specified in the request does not match those configured."),
        500112 => (400, "invalid_grant", "The reply address does not match the one provided when requesting the code."),
        54005 => (
            400,
            "invalid_grant",
            "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an existing refresh token.",
        ),
        70008 => {
            (400, "invalid_grant", "The provided authorization code or refresh token has expired due to inactivity.")
        }
        70000 => (400, "invalid_grant", "The provided authorization code is for another application."),
        9002313 => (400, "invalid_request", "Invalid request. Request is malformed or invalid."),
        50148 => (
            400,
            "invalid_grant",
            "The code_verifier does not match the code_challenge supplied in the authorization request for PKCE.",
        ),
        50034 => (400, "invalid_grant", "The user account does not exist in the directory."),
        50196 => {
            (400, "invalid_grant", "The server terminated an operation because it encountered a client request loop.")
        }
        90055 => (429, "temporarily_unavailable", "The tenant is throttled."),
        90038 => (400, "invalid_request", "The tenant belongs to another cloud."),
        90006 | 90012 | 90024 | 90033 | 90090 => {
            (503, "temporarily_unavailable", "A transient error has occurred. Please try again.")
        }
        _ => (400, "invalid_request", "The request is not valid."),
    }
}

/// <https://learn.microsoft.com/graph/errors>, and what threads show.
fn graph_code(code: &str) -> (u16, &'static str) {
    match code {
        "InvalidAuthenticationToken" => (401, "Lifetime validation failed, the token is expired."),
        "ErrorAccessDenied" => (403, "Access is denied. Check credentials and try again."),
        "Authorization_RequestDenied" => (403, "Insufficient privileges to complete the operation."),
        "ErrorItemNotFound" => (404, "The specified object was not found in the store."),
        "MailboxNotEnabledForRESTAPI" => {
            (404, "The mailbox is either inactive, soft-deleted, or is hosted on-premise.")
        }
        "ResourceNotFound" => (404, "Resource could not be discovered."),
        "ErrorInvalidUser" => (404, "The requested user is invalid."),
        "Request_ResourceNotFound" => {
            (404, "Resource does not exist or one of its queried reference-property objects are not present.")
        }
        "ErrorInvalidIdMalformed" => (400, "Id is malformed."),
        "InefficientFilter" => (400, "The restriction or sort order is too complex for this operation."),
        "BadRequest" => (400, "The request is malformed."),
        "ApplicationThrottled" => (429, "Application is over its MailboxConcurrency limit."),
        "TooManyRequests" | "activityLimitReached" | "throttledRequest" => (429, "Too many requests."),
        "ErrorTooManyObjectsOpened" => (429, "Too many concurrent connections opened."),
        "MailboxInfoStale" => (503, "Target resource hosted on database is currently on backend 'Unknown'"),
        "ErrorMailboxMoveInProgress" | "ErrorServerBusy" | "serviceNotAvailable" | "ErrorMailboxStoreUnavailable" => {
            (503, "The service is temporarily unavailable.")
        }
        "UnknownError" => (504, ""),
        "syncStateNotFound" | "resyncRequired" => (410, "Resync is required."),
        _ => (500, "An internal server error occurred. The operation failed."),
    }
}

/// Auditing was never switched on: the service cuts its own text in two, so that half of the sentence is the code
/// (office-365-management-api#89).
fn auditing_disabled(now: DateTime<Utc>) -> Reply {
    let guid = |salt: u64| super::ids::guid(salt, &now.to_rfc3339());
    let (first, rest) =
        guid(1).to_string().split_once('-').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap_or_default();
    let code = format!(
        "StartSubscription [CorrId={}][TenantId={},ContentType=Audit.Exchange,ApplicationId={},PublisherId={}][AppId={first}",
        guid(2),
        guid(3),
        guid(4),
        guid(5)
    );
    let message = format!(
        "-{rest}] failed. Exception: Microsoft.Office.Compliance.Audit.DataServiceException: Tenant {} does not exist.\r\n   at Microsoft.Office.Compliance.Audit.API.AzureManager",
        guid(3)
    );
    feed_error(400, &code, &message)
}

/// The rules of a running simulator, and how often each has matched.
#[derive(Debug)]
pub(crate) struct Rules {
    seed: u64,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    entry: RuleEntry,
    /// By subject if each is counted by itself, else under the empty text.
    matched: Mutex<HashMap<String, u64>>,
}

impl Rules {
    pub(crate) fn new(seed: u64, faults: &Faults) -> Self {
        let rule = |entry: &RuleEntry| Rule { entry: entry.clone(), matched: Mutex::default() };
        Self { seed, rules: faults.rules.iter().map(rule).collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a rule makes copies of messages that are not there otherwise.
    pub(crate) fn makes_copies(&self) -> bool {
        self.rules.iter().any(|rule| matches!(rule.entry.action, Action::DraftCopy | Action::SelfCopy))
    }

    /// What the rules say about late and repeated records.
    pub(crate) fn lateness(&self) -> Lateness {
        let mut lateness = Lateness::default();
        for rule in &self.rules {
            match rule.entry.action {
                Action::Late { share, seconds } => lateness.hidden = Some((share, seconds)),
                Action::Delayed { share, seconds } => lateness.delayed = Some((share, seconds)),
                Action::Repeated { share, seconds } => lateness.repeated = Some((share, seconds)),
                _ => {}
            }
        }
        lateness
    }

    /// The actions for a request: with its subject and the names of the mailbox that it reads.
    pub(crate) fn fire(&self, kind: Kind, subject: &str, mailbox: &str) -> Vec<(Action, String)> {
        let fires = |(index, rule): (usize, &Rule)| {
            rule.fires(self.seed ^ index as u64, kind, subject, mailbox)
                .then(|| (rule.entry.action.clone(), rule.entry.action.name()))
        };
        self.rules.iter().enumerate().filter_map(fires).collect()
    }
}

impl Rule {
    fn fires(&self, seed: u64, kind: Kind, subject: &str, mailbox: &str) -> bool {
        let entry = &self.entry;
        let is_meant = match entry.on {
            None => entry.action.applies_to(kind),
            Some(On::Group(OnGroup::Any)) => kind != Kind::Control,
            Some(On::Group(OnGroup::Feed)) => kind.is_feed(),
            Some(On::Group(OnGroup::Mail)) => kind.is_mail(),
            Some(On::Group(OnGroup::Directory)) => kind.is_directory(),
            Some(On::Group(OnGroup::Graph)) => kind.is_mail() || kind.is_directory() || kind == Kind::Batch,
            Some(On::Kind(on)) => on == kind,
        };
        let matches = |text: &String| {
            let text = text.to_lowercase();
            subject.to_lowercase().contains(&text) || mailbox.to_lowercase().contains(&text)
        };
        if !is_meant || !entry.matches.as_ref().is_none_or(matches) {
            return false;
        }
        let key = if entry.each { subject } else { "" };
        let number = {
            let mut matched = self.matched.lock().unwrap_or_else(PoisonError::into_inner);
            let number = matched.entry(key.to_owned()).or_default();
            *number += 1;
            *number
        };
        let Some(number) = number.checked_sub(entry.after).filter(|number| *number > 0) else { return false };
        let in_times = entry.times.is_none_or(|times| number <= times);
        let in_every = entry.every.is_none_or(|every| every > 0 && number.is_multiple_of(every));
        let chance = || (mix(seed ^ text_number(key), number) >> 11) as f64 / (1_u64 << 53) as f64;
        in_times && in_every && entry.probability.is_none_or(|probability| chance() < probability)
    }
}

/// Shared between requests and replaced as a whole.
pub(crate) type SharedRules = std::sync::RwLock<Arc<Rules>>;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(value: Value) -> Rules {
        Rules::new(1, &Faults::parse(value).expect("understood"))
    }

    fn fired(rules: &Rules, count: usize) -> Vec<usize> {
        (0..count).map(|_| rules.fire(Kind::Blob, "/x", "").len()).collect()
    }

    #[test]
    fn rules_count_what_they_match() {
        let after_and_times = rules(json!([{"on": "blob", "after": 1, "times": 2, "do": "af429"}]));
        assert_eq!(fired(&after_and_times, 5), [0, 1, 1, 0, 0]);
        let every = rules(json!({"faults": [{"on": "feed", "every": 2, "do": {"status": 500}}]}));
        assert_eq!(fired(&every, 5), [0, 1, 0, 1, 0]);
        let other = rules(json!([{"on": "list", "do": "bom"}, {"do": "no_roles"}, {"match": "y", "do": "bom"}]));
        assert_eq!(fired(&other, 2), [0, 0]);
        let each = rules(json!([{"each": true, "times": 1, "do": "bom"}]));
        let counts: Vec<usize> =
            ["/a", "/a", "/b"].iter().map(|subject| each.fire(Kind::Find, subject, "").len()).collect();
        assert_eq!(counts, [1, 0, 1]);
    }

    #[test]
    fn actions_have_many_forms() {
        for action in [
            json!({"status": 429, "retry_after": 2}),
            json!({"error": "AF20051"}),
            json!({"error": 7000222, "status": 400}),
            json!({"latency_ms": 5}),
            json!({"slow_body": {"bytes": 5, "ms": 1}}),
            json!({"late": {"share": 0.5, "seconds": 3}}),
            json!("start_429"),
            json!("gateway_504"),
            json!("af429"),
        ] {
            let text = action.to_string();
            assert!(Faults::parse(json!([{"do": action}])).is_ok(), "{text}");
        }
        assert!(Faults::parse(json!([{"on": "blobs", "do": "bom"}])).is_err(), "no such kind");
        for wrong in [json!("colour"), json!({"status": 1, "latency_ms": 2}), json!({})] {
            assert!(Faults::parse(json!([{"do": wrong}])).is_err());
        }
        assert_eq!(Action::SlowBody { bytes: 1, ms: 1 }.name(), "slow_body");
    }
}
