//! Users and groups of the directory.
//!
//! <https://learn.microsoft.com/graph/api/user-list>, <https://learn.microsoft.com/graph/api/group-list-transitivemembers>

use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::JSON;
use super::odata::{self, Filter, Select, is_selected};
use crate::simulator::Simulator;
use crate::simulator::answer::{Reply, Request, graph_error};
use crate::simulator::entra::Audience;
use crate::simulator::faults::Action;
use crate::simulator::tenant::{Group, User, UserKind};

/// Objects on a page unless `$top` says otherwise, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 999;

/// Properties that come without being selected.
const USER_DEFAULTS: [&str; 11] = [
    "businessphones",
    "displayname",
    "givenname",
    "jobtitle",
    "mail",
    "mobilephone",
    "officelocation",
    "preferredlanguage",
    "surname",
    "userprincipalname",
    "id",
];

fn addresses(user: &User) -> Vec<String> {
    let aliases = user.aliases.iter().map(|alias| format!("smtp:{alias}"));
    std::iter::once(format!("SMTP:{}", user.mail)).chain(aliases).collect()
}

fn user_object(user: &User, select: &Select) -> Map<String, Value> {
    let is_wanted = |name: &str| match select {
        Some(_) => is_selected(select, name),
        None => USER_DEFAULTS.contains(&name),
    };
    let is_enabled = matches!(user.kind, UserKind::Member | UserKind::Guest | UserKind::NoMailbox);
    let has_plan = user.has_mailbox() && user.kind != UserKind::Shared;
    let mut object = Map::new();
    let mut property = |name: &str, value: &dyn Fn() -> Value| {
        if is_wanted(&name.to_ascii_lowercase()) {
            object.insert(name.to_owned(), value());
        }
    };
    let nothing = || Value::Null;
    property("businessPhones", &|| json!([]));
    property("displayName", &|| user.display_name.clone().into());
    property("givenName", &nothing);
    property("jobTitle", &nothing);
    property("mail", &|| if user.kind == UserKind::NoMailbox { Value::Null } else { user.mail.clone().into() });
    property("mobilePhone", &nothing);
    property("officeLocation", &nothing);
    property("preferredLanguage", &nothing);
    property("surname", &nothing);
    property("userPrincipalName", &|| user.user_principal_name.clone().into());
    property("id", &|| user.id.clone().into());
    property("accountEnabled", &|| is_enabled.into());
    property("userType", &|| if user.kind == UserKind::Guest { "Guest".into() } else { "Member".into() });
    property("mailNickname", &|| user.mail.split('@').next().unwrap_or_default().into());
    property("proxyAddresses", &|| addresses(user).into());
    property("assignedPlans", &|| {
        let plan = json!({"assignedDateTime": "2024-01-01T00:00:00Z", "capabilityStatus": "Enabled", "service": "exchange",
            "servicePlanId": "efb87545-963c-4e0d-99df-69c6916d9eb0"});
        if has_plan { json!([plan]) } else { json!([]) }
    });
    object
}

fn user_values(user: &User, name: &str) -> Vec<String> {
    match name {
        "id" => vec![user.id.clone()],
        "userprincipalname" => vec![user.user_principal_name.clone()],
        "mail" => vec![user.mail.clone()],
        "displayname" => vec![user.display_name.clone()],
        "proxyaddresses" => addresses(user),
        "usertype" => vec![if user.kind == UserKind::Guest { "Guest" } else { "Member" }.to_owned()],
        "accountenabled" => {
            vec![matches!(user.kind, UserKind::Member | UserKind::Guest | UserKind::NoMailbox).to_string()]
        }
        _ => Vec::new(),
    }
}

fn group_object(group: &Group, select: &Select) -> Map<String, Value> {
    let mut object = Map::new();
    let properties = [
        ("id", group.id.clone().into()),
        ("displayName", group.display_name.clone().into()),
        ("mail", group.mail.clone().into()),
        ("mailEnabled", true.into()),
        ("securityEnabled", false.into()),
        ("groupTypes", json!([])),
        ("visibility", if group.is_hidden { "HiddenMembership".into() } else { Value::Null }),
        ("mailNickname", group.mail.split('@').next().unwrap_or_default().into()),
        ("proxyAddresses", json!([format!("SMTP:{}", group.mail)])),
    ];
    for (name, value) in properties {
        if is_selected(select, &name.to_ascii_lowercase()) {
            object.insert(name.to_owned(), value);
        }
    }
    object
}

fn group_values(group: &Group, name: &str) -> Vec<String> {
    match name {
        "id" => vec![group.id.clone()],
        "mail" => vec![group.mail.clone()],
        "displayname" => vec![group.display_name.clone()],
        "proxyaddresses" => vec![format!("SMTP:{}", group.mail)],
        "mailenabled" => vec!["true".to_owned()],
        "securityenabled" => vec!["false".to_owned()],
        _ => Vec::new(),
    }
}

fn missing(request: &Request, name: &str) -> Reply {
    let message =
        format!("Resource '{name}' does not exist or one of its queried reference-property objects are not present.");
    graph_error(request, 404, "Request_ResourceNotFound", &message)
}

/// A page of a listing: the asked part of all objects, and a link to the next one.
fn page<T>(request: &Request, context: &str, all: &[T], object: impl Fn(&T) -> Map<String, Value>) -> Reply {
    if request.query("$skip").is_some() {
        return graph_error(request, 400, "Request_BadRequest", "'$skip' is not supported by the service.");
    }
    let top = match request.query("$top").map(str::parse::<usize>) {
        None => PAGE,
        Some(Ok(top)) if (1..=PAGE_MAX).contains(&top) => top,
        Some(_) => {
            return graph_error(
                request,
                400,
                "Request_UnsupportedQuery",
                "Invalid page size specified. Must be between 1 and 999 inclusive.",
            );
        }
    };
    let start = match request
        .query("$skiptoken")
        .map(|token| token.strip_prefix("RFNwdAIAAQ").map(|place| usize::from_str_radix(place, 16)))
    {
        None => 0,
        Some(Some(Ok(start))) => start.min(all.len()),
        Some(_) => {
            return graph_error(
                request,
                400,
                "Directory_ExpiredPageToken",
                "The specified page token value has expired and can no longer be included in your request.",
            );
        }
    };
    // An empty page with a further one is legal.
    let top = if request.actions.contains(&Action::EmptyPage) { 0 } else { top };
    let end = (start + top).min(all.len());
    let mut body = Map::new();
    body.insert("@odata.context".to_owned(), format!("{}/v1.0/$metadata#{context}", request.base).into());
    if request.query("$count") == Some("true") && start == 0 {
        body.insert("@odata.count".to_owned(), all.len().into());
    }
    if end < all.len() {
        body.insert("@odata.nextLink".to_owned(), next_link(request, end).into());
    }
    body.insert("value".to_owned(), all[start..end].iter().map(|one| Value::Object(object(one))).collect());
    Reply::new(200, JSON, Value::Object(body).to_string())
}

/// The link to what comes after; its token means nothing to anybody else.
fn next_link(request: &Request, place: usize) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut link = format!("{}/{}?", request.base, request.segments.join("/"));
    for (name, value) in request.query.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("$skiptoken")) {
        link.push_str(&format!("{}={}&", encode(name).replace("%24", "$"), encode(value)));
    }
    link.push_str(&format!("$skiptoken=RFNwdAIAAQ{place:x}"));
    link
}

/// The parsed filter, if there is one, or the error that it is not understood.
fn filter(request: &Request) -> Result<Option<Filter>, Reply> {
    match request.query("$filter").map(Filter::parse) {
        None => Ok(None),
        Some(Some(filter)) => Ok(Some(filter)),
        Some(None) => Err(graph_error(request, 400, "Request_BadRequest", "Invalid filter clause.")),
    }
}

/// `GET /users`.
pub(crate) fn users(simulator: &Simulator, request: &Request) -> Reply {
    let select = odata::select(request.query("$select"));
    if select.iter().flatten().any(|name| name == "mailboxsettings") {
        return graph_error(
            request,
            501,
            "NotImplemented",
            "The requested property cannot be selected on a collection.",
        );
    }
    let filter = match filter(request) {
        Ok(filter) => filter,
        Err(error) => return error,
    };
    let users: Vec<Arc<User>> = match &filter {
        None => simulator.tenant.read().users.clone(),
        Some(filter) => {
            // Names are looked up; only other filters look at everybody.
            let mut names = Vec::new();
            for property in ["id", "userprincipalname", "mail", "proxyaddresses"] {
                filter.equals(property, &mut names);
            }
            let bare = |name: &str| match name.get(..5) {
                Some(prefix) if prefix.eq_ignore_ascii_case("smtp:") => name[5..].to_owned(),
                _ => name.to_owned(),
            };
            let mut found: Vec<Arc<User>> = if names.is_empty() {
                simulator.tenant.read().users.clone()
            } else {
                names.iter().filter_map(|name| simulator.tenant.user(&bare(name))).collect()
            };
            found.sort_by_key(|user| user.index);
            found.dedup_by_key(|user| user.index);
            found.retain(|user| filter.passes(&|name| user_values(user, name)));
            found
        }
    };
    page(request, "users", &users, |user| user_object(user, &select))
}

/// `GET /users/$count`: plain text, and only for those who accept that it lags.
pub(crate) fn users_count(simulator: &Simulator, request: &Request) -> Reply {
    match advanced(request, false) {
        Err(error) => error,
        Ok(()) => Reply::new(200, "text/plain", simulator.tenant.read().users.len().to_string()),
    }
}

/// Advanced queries need `ConsistencyLevel: eventual`, and those of collections `$count=true` as well.
/// <https://learn.microsoft.com/graph/aad-advanced-queries>
fn advanced(request: &Request, needs_count: bool) -> Result<(), Reply> {
    let is_eventual = request.header("consistencylevel").is_some_and(|level| level.eq_ignore_ascii_case("eventual"));
    if is_eventual && (!needs_count || request.query("$count") == Some("true")) {
        return Ok(());
    }
    let message = "Request with $count or OData cast requires the header ConsistencyLevel:eventual and $count=true.";
    Err(graph_error(request, 400, "Request_UnsupportedQuery", message))
}

/// `GET /users/{id or name}`.
pub(crate) fn user(simulator: &Simulator, request: &Request, name: &str) -> Reply {
    // By id or by principal name, not by any other address.
    let is_named =
        |user: &Arc<User>| user.id.eq_ignore_ascii_case(name) || user.user_principal_name.eq_ignore_ascii_case(name);
    let Some(user) = simulator.tenant.user(name).filter(is_named) else { return missing(request, name) };
    let mut object = user_object(&user, &odata::select(request.query("$select")));
    object.insert("@odata.context".to_owned(), format!("{}/v1.0/$metadata#users/$entity", request.base).into());
    Reply::new(200, JSON, Value::Object(object).to_string())
}

/// `GET /users/{user}/mailboxSettings`: only what kind of mailbox it is.
pub(crate) fn mailbox_settings(simulator: &Simulator, request: &Request, name: &str) -> Reply {
    let Some(user) = simulator.tenant.user(name) else { return missing(request, name) };
    let purpose = if user.kind == UserKind::Shared { "shared" } else { "user" };
    Reply::new(200, JSON, json!({"userPurpose": purpose}).to_string())
}

/// `GET /groups`.
pub(crate) fn groups(simulator: &Simulator, request: &Request) -> Reply {
    let filter = match filter(request) {
        Ok(filter) => filter,
        Err(error) => return error,
    };
    let select = odata::select(request.query("$select"));
    let mut groups = simulator.tenant.read().groups.clone();
    if let Some(filter) = filter {
        groups.retain(|group| filter.passes(&|name| group_values(group, name)));
    }
    page(request, "groups", &groups, |group| group_object(group, &select))
}

/// `GET /groups/{id}`.
pub(crate) fn group(simulator: &Simulator, request: &Request, id: &str) -> Reply {
    let Some(group) = simulator.tenant.group(id).filter(|group| group.id.eq_ignore_ascii_case(id)) else {
        return missing(request, id);
    };
    let mut object = group_object(&group, &odata::select(request.query("$select")));
    object.insert("@odata.context".to_owned(), format!("{}/v1.0/$metadata#groups/$entity", request.base).into());
    Reply::new(200, JSON, Value::Object(object).to_string())
}

enum Member {
    User(Arc<User>),
    Group(Arc<Group>),
}

/// `GET /groups/{id}/members` and `transitiveMembers`, with a cast or without, or only their number.
pub(crate) fn members(simulator: &Simulator, request: &Request, id: &str, rest: &[&str]) -> Reply {
    let Some(group) = simulator.tenant.group(id).filter(|group| group.id.eq_ignore_ascii_case(id)) else {
        return missing(request, id);
    };
    let (kind, rest) = match rest {
        [kind @ ("members" | "transitiveMembers"), rest @ ..] => (*kind, rest),
        _ => return super::not_found(request),
    };
    // Without the right to see hidden members the list is empty, and no error.
    let may_see = !group.is_hidden
        || simulator.tokens.check(request, Audience::Graph).is_ok_and(|token| token.has("Member.Read.Hidden"));
    let members: Vec<Member> = if !may_see {
        Vec::new()
    } else if kind == "transitiveMembers" {
        let (users, groups) = simulator.tenant.members(&group);
        users.into_iter().map(Member::User).chain(groups.into_iter().map(Member::Group)).collect()
    } else {
        let world = simulator.tenant.read();
        let member = |name: &String| match world.find_group(name) {
            Some(group) => Some(Member::Group(group)),
            None => world.find_user(name).map(Member::User),
        };
        group.members.iter().filter_map(member).collect()
    };
    let (cast, is_count) = match rest {
        [] => (None, false),
        ["$count"] => (None, true),
        [cast] => (Some(*cast), false),
        [cast, "$count"] => (Some(*cast), true),
        _ => return super::not_found(request),
    };
    if (cast.is_some() || is_count)
        && let Err(error) = advanced(request, !is_count)
    {
        return error;
    }
    // `graph` is the alias of the namespace that Microsoft's SDKs write.
    let cast = cast.map(|cast| cast.strip_prefix("microsoft.").unwrap_or(cast));
    let is_wanted = |member: &Member| match (cast, member) {
        (None, _) | (Some("graph.user"), Member::User(_)) | (Some("graph.group"), Member::Group(_)) => true,
        (Some(_), _) => false,
    };
    let members: Vec<Member> = members.into_iter().filter(is_wanted).collect();
    if is_count {
        return Reply::new(200, "text/plain", members.len().to_string());
    }
    let select = odata::select(request.query("$select"));
    let context = if cast.is_some() { "users" } else { "directoryObjects" };
    page(request, context, &members, |member| {
        let (kind, mut object) = match member {
            Member::User(user) => ("user", user_object(user, &select)),
            Member::Group(group) => ("group", group_object(group, &select)),
        };
        if cast.is_none() {
            object.insert("@odata.type".to_owned(), format!("#microsoft.graph.{kind}").into());
        }
        object
    })
}

/// `POST /directoryObjects/getByIds`.
pub(crate) fn by_ids(simulator: &Simulator, request: &Request) -> Reply {
    let body = request.json();
    let ids = body["ids"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut objects = Vec::new();
    for id in ids.iter().filter_map(Value::as_str) {
        let (kind, mut object) = if let Some(user) = simulator.tenant.user(id).filter(|user| user.id == id) {
            ("user", user_object(&user, &None))
        } else if let Some(group) = simulator.tenant.group(id).filter(|group| group.id == id) {
            ("group", group_object(&group, &None))
        } else {
            continue;
        };
        object.insert("@odata.type".to_owned(), format!("#microsoft.graph.{kind}").into());
        objects.push(Value::Object(object));
    }
    Reply::new(
        200,
        JSON,
        json!({"@odata.context": format!("{}/v1.0/$metadata#directoryObjects", request.base), "value": objects})
            .to_string(),
    )
}
