//! Microsoft Graph, as far as mail clients of our kind call it: users, groups, messages, attachments, batches.

pub(crate) mod attachments;
pub(crate) mod directory;
pub(crate) mod messages;
pub(crate) mod odata;

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Simulator;
use super::answer::{Reply, Request, graph_error};
use super::entra::{Audience, TokenFault};
use super::report::Kind;
use super::tenant::User;

/// Most requests of one batch. <https://learn.microsoft.com/graph/json-batching>
const BATCH_MAX: usize = 20;

pub(crate) const JSON: &str =
    "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8";

/// Splits `name('value')` segments, so that both forms of addressing are one.
pub(crate) fn normalised(segments: &[String]) -> Vec<&str> {
    let mut parts = Vec::with_capacity(segments.len() + 2);
    for segment in segments {
        match segment.split_once("('").and_then(|(name, rest)| Some((name, rest.strip_suffix("')")?))) {
            Some((name, value)) => parts.extend([name, value]),
            None => parts.push(segment.as_str()),
        }
    }
    parts
}

/// What a path after `/v1.0` asks for, and the user whose mailbox it names.
pub(crate) fn kind<'a>(parts: &[&'a str], request: &Request) -> (Kind, Option<&'a str>) {
    match parts {
        ["$batch"] => (Kind::Batch, None),
        ["users"] | ["users", "$count"] => (Kind::Users, None),
        ["users", _] | ["users", _, "mailboxSettings"] => (Kind::User, None),
        ["users", user, "translateExchangeIds"] => (Kind::Translate, Some(user)),
        ["users", user, "mailFolders"] | ["users", user, "mailFolders", _] => (Kind::Folder, Some(user)),
        ["users", user, "messages"] | ["users", user, "mailFolders", _, "messages"] => {
            let kind = if request.query("$filter").is_some() { Kind::Find } else { Kind::Messages };
            (kind, Some(user))
        }
        ["users", user, rest @ ..] => (message_kind(rest), Some(user)),
        ["groups"] => (Kind::Groups, None),
        ["groups", _] => (Kind::Group, None),
        ["groups", ..] => (Kind::Members, None),
        ["directoryObjects", "getByIds"] => (Kind::Users, None),
        _ => (Kind::Unknown, None),
    }
}

fn message_kind(rest: &[&str]) -> Kind {
    match message_path(rest) {
        Some(["$value"]) => Kind::MessageMime,
        Some([]) => Kind::Message,
        Some(["attachments"]) => Kind::Attachments,
        Some(["attachments", _]) => Kind::Attachment,
        Some(["attachments", _, "$value"]) => Kind::AttachmentValue,
        _ => Kind::Unknown,
    }
}

/// What follows a message's id, whether or not its folder is named.
fn message_path<'a, 'b>(rest: &'b [&'a str]) -> Option<&'b [&'a str]> {
    match rest {
        ["messages", _, tail @ ..] | ["mailFolders", _, "messages", _, tail @ ..] => Some(tail),
        _ => None,
    }
}

/// Answers a request whose path goes on with `parts` after `/v1.0`.
pub(crate) fn answer<'a>(
    simulator: &'a Arc<Simulator>,
    request: &'a Request,
    kind: Kind,
    parts: &'a [&'a str],
) -> BoxFuture<'a, Reply> {
    Box::pin(async move {
        if let Some(refusal) = refusal(simulator, request, kind) {
            return refusal;
        }
        let mut reply = dispatch(simulator, request, kind, parts).await;
        let request_id = Uuid::new_v4().to_string();
        let client_request_id = request.header("client-request-id").unwrap_or(&request_id).to_owned();
        if wants_immutable(request) && kind.is_mail() {
            reply = reply.custom("preference-applied", "IdType=ImmutableId");
        }
        if kind.is_directory() {
            reply = reply.custom("x-ms-resource-unit", "1");
        }
        reply
            .custom("client-request-id", &client_request_id)
            .custom("request-id", &request_id)
            .custom("odata-version", "4.0")
            .custom("x-ms-ags-diagnostic", r#"{"ServerInfo":{"DataCenter":"Simulator","Slice":"E","Ring":"1","ScaleUnit":"001","RoleInstance":"SIM01"}}"#)
    })
}

fn refusal(simulator: &Simulator, request: &Request, kind: Kind) -> Option<Reply> {
    let unauthorized = |message: &str| Some(graph_error(request, 401, "InvalidAuthenticationToken", message));
    let token = match simulator.tokens.check(request, Audience::Graph) {
        Ok(token) => token,
        Err(TokenFault::Missing) => return unauthorized("Access token is empty."),
        Err(TokenFault::Unknown) => return unauthorized("Access token validation failure. Invalid signature."),
        Err(TokenFault::Expired) => return unauthorized("Lifetime validation failed, the token is expired."),
        Err(TokenFault::Audience) => return unauthorized("Access token validation failure. Invalid audience."),
    };
    // <https://learn.microsoft.com/graph/permissions-reference>: the least of the permissions that work.
    let needed = match kind {
        Kind::Batch => return None,
        Kind::Groups | Kind::Group | Kind::Members => "GroupMember.Read.All",
        kind if kind.is_directory() => "User.Read.All",
        _ => "Mail.Read",
    };
    if token.has(needed) {
        return None;
    }
    Some(if kind.is_directory() {
        graph_error(request, 403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
    } else {
        graph_error(request, 403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
    })
}

/// Whether ids are wanted that survive moves. <https://learn.microsoft.com/graph/outlook-immutable-id>
pub(crate) fn wants_immutable(request: &Request) -> bool {
    request.headers.get_all("prefer").iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.to_ascii_lowercase().replace(['"', ' '], "").contains("idtype=immutableid"))
    })
}

async fn dispatch(simulator: &Arc<Simulator>, request: &Request, kind: Kind, parts: &[&str]) -> Reply {
    match (request.method.as_str(), parts) {
        ("POST", ["$batch"]) => batch(simulator, request).await,
        ("GET", ["users"]) => directory::users(simulator, request),
        ("GET", ["users", "$count"]) => directory::users_count(simulator, request),
        ("GET", ["users", user]) => directory::user(simulator, request, user),
        ("GET", ["users", user, "mailboxSettings"]) => directory::mailbox_settings(simulator, request, user),
        ("GET", ["groups"]) => directory::groups(simulator, request),
        ("GET", ["groups", group]) => directory::group(simulator, request, group),
        ("GET", ["groups", group, rest @ ..]) => directory::members(simulator, request, group, rest),
        ("POST", ["directoryObjects", "getByIds"]) => directory::by_ids(simulator, request),
        (method, ["users", user, rest @ ..]) => {
            let user = match mailbox_user(simulator, request, user, kind) {
                Ok(user) => user,
                Err(refusal) => return refusal,
            };
            match (method, rest) {
                ("POST", ["translateExchangeIds"]) => translate(request, &user),
                ("GET", ["mailFolders"]) => messages::folders(request, &user),
                ("GET", ["mailFolders", folder]) => messages::folder(request, &user, folder),
                ("GET", ["messages"]) => messages::list(simulator, request, &user, None),
                ("GET", ["mailFolders", folder, "messages"]) => messages::list(simulator, request, &user, Some(folder)),
                ("GET", ["messages", id, tail @ ..] | ["mailFolders", _, "messages", id, tail @ ..]) => match tail {
                    [] => messages::message(simulator, request, &user, id),
                    ["$value"] => messages::mime(simulator, request, &user, id).await,
                    ["attachments"] => attachments::list(simulator, request, &user, id),
                    ["attachments", attachment] => attachments::one(simulator, request, &user, id, attachment).await,
                    ["attachments", attachment, "$value"] => {
                        attachments::value(simulator, request, &user, id, attachment).await
                    }
                    _ => not_found(request),
                },
                // `HEAD` and everything that would write: this is a reader's tenant.
                (_, ["messages", ..] | ["mailFolders", ..]) => method_not_allowed(request),
                _ => not_found(request),
            }
        }
        _ => not_found(request),
    }
}

pub(crate) fn not_found(request: &Request) -> Reply {
    let segment = request.segments.last().map_or("", String::as_str);
    graph_error(request, 400, "BadRequest", &format!("Resource not found for the segment '{segment}'."))
}

pub(crate) fn method_not_allowed(request: &Request) -> Reply {
    graph_error(request, 405, "ErrorInvalidRequest", "The OData request is not supported.")
}

/// The user whose mailbox is asked for, if there is one.
fn mailbox_user(simulator: &Simulator, request: &Request, name: &str, kind: Kind) -> Result<Arc<User>, Reply> {
    let Some(user) = simulator.tenant.user(name) else {
        return Err(graph_error(request, 404, "ErrorInvalidUser", &format!("The requested user '{name}' is invalid.")));
    };
    if kind.is_mail() && !user.has_mailbox() {
        return Err(graph_error(
            request,
            404,
            "MailboxNotEnabledForRESTAPI",
            "The mailbox is either inactive, soft-deleted, or is hosted on-premise.",
        ));
    }
    Ok(user)
}

/// <https://learn.microsoft.com/graph/api/user-translateexchangeids>
fn translate(request: &Request, user: &User) -> Reply {
    /// Most ids of one request.
    const IDS_MAX: usize = 1000;
    let body = request.json();
    let ids = body["inputIds"].as_array().map(Vec::as_slice).unwrap_or_default();
    let source = body["sourceIdType"].as_str().unwrap_or("restId");
    let target = body["targetIdType"].as_str().unwrap_or("restImmutableEntryId");
    if ids.is_empty() || ids.len() > IDS_MAX {
        return graph_error(request, 400, "ErrorInvalidRequest", "The number of ids must be between 1 and 1000.");
    }
    let mut translated = Vec::with_capacity(ids.len());
    for id in ids.iter().filter_map(Value::as_str) {
        let target_id = user.ids().read_as(id, source).and_then(|item| user.ids().write_as(item, target));
        translated.push(match target_id {
            Some(target_id) => json!({"sourceId": id, "targetId": target_id}),
            None => json!({"sourceId": id, "errorDetails": {"code": "ErrorInvalidIdMalformed", "message": "Id is malformed."}}),
        });
    }
    let context = format!("{}/v1.0/$metadata#Collection(microsoft.graph.convertIdResult)", request.base);
    Reply::new(200, JSON, json!({"@odata.context": context, "value": translated}).to_string())
}

/// Each part is a request of its own: throttled alone, refused alone.
async fn batch(simulator: &Arc<Simulator>, request: &Request) -> Reply {
    let bad = |message: &str| graph_error(request, 400, "BadRequest", message);
    let body = request.json();
    let Some(parts) = body["requests"].as_array() else { return bad("Invalid batch payload format.") };
    if parts.len() > BATCH_MAX {
        return bad("Number of batch request steps exceeds the maximum value of 20.");
    }
    let mut ids: Vec<&str> = parts.iter().filter_map(|part| part["id"].as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() != parts.len() {
        return bad("Ids of batch requests must be present and unique.");
    }
    let mut responses: Vec<Value> = Vec::with_capacity(parts.len());
    for part in parts {
        let failed = |id: &Value| {
            let done = responses.iter().find(|response| response["id"] == *id);
            done.is_none_or(|response| response["status"].as_u64().is_none_or(|status| status >= 400))
        };
        if part["dependsOn"].as_array().is_some_and(|needed| needed.iter().any(failed)) {
            let error = json!({"error": {"code": "FailedDependency", "message": "A request that this one depends on has failed."}});
            responses.push(json!({"id": part["id"], "status": 424, "headers": {"Content-Type": "application/json"}, "body": error}));
            continue;
        }
        let inner = batched(request, part);
        let reply = simulator.graph(inner).await;
        responses.push(response(&part["id"], reply).await);
    }
    // Answers come in any order.
    responses.reverse();
    Reply::new(200, JSON, json!({"responses": responses}).to_string())
}

fn batched(request: &Request, part: &Value) -> Request {
    let mut headers = HeaderMap::new();
    for name in ["authorization", "user-agent"] {
        if let Some(value) = request.headers.get(name) {
            headers.insert(name, value.clone());
        }
    }
    let empty = Map::new();
    for (name, value) in part["headers"].as_object().unwrap_or(&empty) {
        if let (Ok(name), Some(Ok(value))) = (name.parse::<HeaderName>(), value.as_str().map(HeaderValue::from_str)) {
            headers.insert(name, value);
        }
    }
    let method = part["method"].as_str().and_then(|method| method.parse().ok()).unwrap_or(Method::GET);
    let url = part["url"].as_str().unwrap_or_default();
    let body = if part["body"].is_null() { Bytes::new() } else { Bytes::from(part["body"].to_string()) };
    Request::new(method, &format!("/v1.0/{}", url.trim_start_matches('/')), headers, body, request.base.clone())
}

async fn response(id: &Value, reply: Reply) -> Value {
    let status = reply.status.as_u16();
    let headers: Map<String, Value> = reply
        .headers
        .iter()
        .filter(|(name, _)| ["content-type", "retry-after", "location"].contains(&name.as_str()))
        .map(|(name, value)| {
            let name = match name.as_str() {
                "content-type" => "Content-Type",
                "retry-after" => "Retry-After",
                _ => "Location",
            };
            (name.to_owned(), Value::from(value.to_str().unwrap_or_default()))
        })
        .collect();
    let body = reply.into_bytes().await;
    // What is no JSON comes as base64.
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| Value::from(STANDARD.encode(&body)));
    json!({"id": id, "status": status, "headers": headers, "body": body})
}
