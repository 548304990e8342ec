//! Messages and folders of a mailbox.
//!
//! <https://learn.microsoft.com/graph/api/user-list-messages>

use std::borrow::Cow;
use std::io::Write;
use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::attachments;
use super::odata::{self, Filter, Select, is_selected};
use super::{JSON, wants_immutable};
use crate::simulator::Simulator;
use crate::simulator::answer::{Reply, Request, graph_error, graph_time};
use crate::simulator::faults::Action;
use crate::simulator::ids::{Copy, Folder, Item, folder_of, text_number};
use crate::simulator::mime::fields::Mailbox;
use crate::simulator::records::json_string;
use crate::simulator::tenant::{Message, User};

/// Messages on a page unless `$top` says otherwise, and at most.
const PAGE: usize = 10;
const PAGE_MAX: usize = 1000;

/// A message as one of the objects that it is in its mailbox.
pub(crate) struct View<'a> {
    pub(crate) user: &'a User,
    pub(crate) message: Arc<Message>,
    pub(crate) item: Item,
    pub(crate) folder: Folder,
    pub(crate) immutable: bool,
}

impl View<'_> {
    pub(crate) fn id(&self) -> String {
        self.user.ids().message(self.item, self.folder, self.immutable)
    }

    /// Inline attachments do not count. <https://learn.microsoft.com/graph/api/resources/message>
    fn has_attachments(&self) -> bool {
        self.message.attachments.iter().any(|attachment| !attachment.is_inline)
    }

    fn is_draft(&self) -> bool {
        self.item.copy == Copy::Draft
    }

    /// A value for a filter, by the property's lower-case name.
    fn value(&self, name: &str) -> Vec<String> {
        let message = &self.message;
        vec![match name {
            "internetmessageid" => message.internet_message_id.clone(),
            "subject" => message.subject.clone(),
            "id" => self.id(),
            "isdraft" => self.is_draft().to_string(),
            "hasattachments" => self.has_attachments().to_string(),
            "parentfolderid" => self.user.ids().folder(self.folder),
            "sentdatetime" | "receiveddatetime" | "createddatetime" | "lastmodifieddatetime" => {
                graph_time(message.sent)
            }
            "from/emailaddress/address" | "sender/emailaddress/address" => message.from.address.clone(),
            _ => return Vec::new(),
        }]
    }
}

/// The objects of a message that a request can see, with the folders that faults may have put them into.
fn views<'a>(request: &Request, user: &'a User, message: &Arc<Message>) -> Vec<View<'a>> {
    let mut items = message.items();
    for action in &request.actions {
        match action {
            Action::DraftCopy => items.insert(0, Item { number: message.number, copy: Copy::Draft }),
            Action::SelfCopy if !message.is_to_self => {
                items.insert(0, Item { number: message.number, copy: Copy::Received })
            }
            Action::MessageMissing => items.retain(|item| item.copy != Copy::Sent),
            _ => {}
        }
    }
    let immutable = wants_immutable(request);
    items
        .into_iter()
        .map(|item| View { user, message: Arc::clone(message), item, folder: lies_in(request, item), immutable })
        .collect()
}

/// Where an item lies: in its usual folder, or where a fault has put it.
fn lies_in(request: &Request, item: Item) -> Folder {
    let moved = request.actions.iter().find_map(|action| match action {
        Action::MessageIn(name) if item.copy == Copy::Sent => Folder::well_known(name),
        _ => None,
    });
    moved.unwrap_or_else(|| folder_of(item))
}

/// The message that an id names, or the error that it names none.
pub(crate) fn find<'a>(simulator: &Simulator, request: &Request, user: &'a User, id: &str) -> Result<View<'a>, Reply> {
    let malformed = || graph_error(request, 400, "ErrorInvalidIdMalformed", "Id is malformed.");
    let missing = || graph_error(request, 404, "ErrorItemNotFound", "The specified object was not found in the store.");
    let Some((item, None)) = user.ids().read(id) else { return Err(malformed()) };
    let message =
        simulator.tenant.message(item.number).filter(|message| message.owner == user.index).ok_or_else(missing)?;
    let exists = match item.copy {
        Copy::Sent => !request.actions.contains(&Action::MessageMissing),
        Copy::Received => message.is_to_self || simulator.makes_copies(),
        // The draft is gone once the message is sent.
        Copy::Draft => simulator.makes_copies(),
    };
    if !exists {
        return Err(missing());
    }
    Ok(View { user, message, item, folder: lies_in(request, item), immutable: wants_immutable(request) })
}

/// Whether properties are selected that are, or include, the text of the message.
fn asks_for_body(select: &Select) -> bool {
    select
        .as_ref()
        .is_none_or(|names| names.iter().any(|name| matches!(name.as_str(), "body" | "bodypreview" | "uniquebody")))
}

/// `GET /users/{user}/messages`, and the same in a folder.
pub(crate) fn list(simulator: &Simulator, request: &Request, user: &User, folder: Option<&str>) -> Reply {
    let folder = match folder.map(|name| find_folder(request, name)) {
        None => None,
        Some(Ok(folder)) => Some(folder),
        Some(Err(error)) => return error,
    };
    let filter = match request.query("$filter").map(Filter::parse) {
        None => None,
        Some(Some(filter)) => Some(filter),
        Some(None) => return graph_error(request, 400, "BadRequest", "Invalid filter clause."),
    };
    // What is sorted by has to be what is filtered by.
    let sorted =
        request.query("$orderby").and_then(|order| order.split([' ', ',']).next()).map(str::to_ascii_lowercase);
    if let (Some(filter), Some(sorted)) = (&filter, &sorted)
        && filter.first_property() != Some(sorted)
    {
        let message = "The restriction or sort order is too complex for this operation.";
        return graph_error(request, 400, "InefficientFilter", message);
    }
    let select = odata::select(request.query("$select"));
    if asks_for_body(&select) {
        simulator.counters.body_request();
    }
    let number = |name: &str| request.query(name).map(str::parse::<usize>);
    let (Ok(top), Ok(skip)) = (number("$top").unwrap_or(Ok(PAGE)), number("$skip").unwrap_or(Ok(0))) else {
        return graph_error(request, 400, "BadRequest", "Invalid value for '$top' or '$skip'.");
    };
    let top = top.clamp(1, PAGE_MAX);
    let (views, has_more) = page(simulator, request, user, folder, filter.as_ref(), (skip, top));
    let mut body = Vec::with_capacity(512 + views.len() * 2048);
    write_context(&mut body, request, user, "messages", &select);
    if has_more {
        body.extend_from_slice(b"\"@odata.nextLink\":");
        json_string(&mut body, &next_link(request, skip + top));
        body.push(b',');
    }
    body.extend_from_slice(b"\"value\":[");
    let expand = odata::expand(request.query("$expand"), "attachments");
    for (index, view) in views.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        write(&mut body, request, view, &select, expand.as_ref());
    }
    body.extend_from_slice(b"]}");
    Reply::new(200, JSON, body)
}

fn page<'a>(
    simulator: &Simulator,
    request: &Request,
    user: &'a User,
    folder: Option<Folder>,
    filter: Option<&Filter>,
    (skip, top): (usize, usize),
) -> (Vec<View<'a>>, bool) {
    let is_visible = |view: &View<'_>| match folder {
        Some(folder) => view.folder == folder,
        // Recoverable items are not part of a mailbox's messages.
        None => view.folder != Folder::RecoverableItems,
    };
    let passes =
        |view: &View<'_>| is_visible(view) && filter.is_none_or(|filter| filter.passes(&|name| view.value(name)));
    let mut ids = Vec::new();
    if let Some(filter) = filter {
        filter.equals("internetmessageid", &mut ids);
    }
    let numbers = if ids.is_empty() {
        simulator.tenant.mailbox(user, 0, usize::MAX)
    } else {
        ids.iter().flat_map(|id| simulator.tenant.find(user, id)).collect()
    };
    let mut views = Vec::new();
    let mut passed = 0;
    for message in numbers.into_iter().filter_map(|number| simulator.tenant.message(number)) {
        for view in self::views(request, user, &message).into_iter().filter(&passes) {
            passed += 1;
            if passed > skip + top {
                return (views, true);
            }
            if passed > skip {
                views.push(view);
            }
        }
    }
    (views, false)
}

/// The same request from another place on.
fn next_link(request: &Request, skip: usize) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let path: Vec<String> = request.segments.iter().map(|segment| encode(segment)).collect();
    let mut link = format!("{}/{}?", request.base, path.join("/").replace("v1%2E0", "v1.0"));
    for (name, value) in request.query.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("$skip")) {
        link.push_str(&format!("{}={}&", encode(name).replace("%24", "$"), encode(value)));
    }
    link.push_str(&format!("$skip={skip}"));
    link
}

/// `GET /users/{user}/messages/{id}`.
pub(crate) fn message(simulator: &Simulator, request: &Request, user: &User, id: &str) -> Reply {
    let select = odata::select(request.query("$select"));
    if asks_for_body(&select) {
        simulator.counters.body_request();
    }
    let view = match find(simulator, request, user, id) {
        Ok(view) => view,
        Err(error) => return error,
    };
    let mut body = Vec::with_capacity(2048);
    write_context(&mut body, request, user, "messages", &select);
    let expand = odata::expand(request.query("$expand"), "attachments");
    let mut object = Vec::with_capacity(2048);
    write(&mut object, request, &view, &select, expand.as_ref());
    body.extend_from_slice(&object[1..]);
    Reply::new(200, JSON, body)
}

/// `GET /users/{user}/messages/{id}/$value`: the whole message as MIME, which nobody who wants no bodies should ask for.
pub(crate) async fn mime(simulator: &Simulator, request: &Request, user: &User, id: &str) -> Reply {
    simulator.counters.body_request();
    let view = match find(simulator, request, user, id) {
        Ok(view) => view,
        Err(error) => return error,
    };
    let message = Arc::clone(&view.message);
    let whole = tokio::task::spawn_blocking(move || match &message.source {
        Some(source) => source.read(),
        None => Ok(format!(
            "From: {}\r\nSubject: {}\r\nMessage-ID: {}\r\nDate: {}\r\n\r\ngenerated\r\n",
            message.from.address,
            message.subject,
            message.internet_message_id,
            message.sent.to_rfc2822()
        )
        .into()),
    });
    match whole.await {
        Ok(Ok(whole)) => Reply::new(200, "text/plain", whole),
        _ => graph_error(
            request,
            500,
            "ErrorInternalServerError",
            "An internal server error occurred. The operation failed.",
        ),
    }
}

fn find_folder(request: &Request, name: &str) -> Result<Folder, Reply> {
    Folder::well_known(name).or_else(|| Folder::of_id(name)).ok_or_else(|| {
        graph_error(request, 404, "ErrorItemNotFound", "The specified folder could not be found in the store.")
    })
}

fn folder_properties(request: &Request, user: &User, folder: Folder, context: bool) -> serde_json::Value {
    let select = odata::select(request.query("$select"));
    let mut object = serde_json::Map::new();
    if context {
        let name = &user.id;
        object.insert(
            "@odata.context".to_owned(),
            format!("{}/v1.0/$metadata#users('{name}')/mailFolders/$entity", request.base).into(),
        );
    }
    let ids = user.ids();
    let properties = [
        ("id", ids.folder(folder).into()),
        ("displayName", folder.display_name().into()),
        ("parentFolderId", ids.folder(Folder::Other).into()),
        ("childFolderCount", 0.into()),
        ("unreadItemCount", 0.into()),
        ("totalItemCount", 0.into()),
        ("isHidden", false.into()),
    ];
    for (name, value) in properties {
        if name == "id" || is_selected(&select, &name.to_ascii_lowercase()) {
            object.insert(name.to_owned(), value);
        }
    }
    object.into()
}

/// `GET /users/{user}/mailFolders/{name or id}`.
pub(crate) fn folder(request: &Request, user: &User, name: &str) -> Reply {
    match find_folder(request, name) {
        Ok(folder) => Reply::new(200, JSON, folder_properties(request, user, folder, true).to_string()),
        Err(error) => error,
    }
}

/// All folders that items lie in.
pub(crate) fn folders(request: &Request, user: &User) -> Reply {
    let folders = [Folder::DeletedItems, Folder::Drafts, Folder::Inbox, Folder::SentItems];
    let value: Vec<serde_json::Value> =
        folders.into_iter().map(|folder| folder_properties(request, user, folder, false)).collect();
    let context = format!("{}/v1.0/$metadata#users('{}')/mailFolders", request.base, user.id);
    Reply::new(200, JSON, serde_json::json!({"@odata.context": context, "value": value}).to_string())
}

/// `{"@odata.context":"…",`
pub(crate) fn write_context(out: &mut Vec<u8>, request: &Request, user: &User, what: &str, select: &Select) {
    let names = select.as_ref().map(|names| format!("({})", names.join(","))).unwrap_or_default();
    let context = format!("{}/v1.0/$metadata#users('{}')/{what}{names}", request.base, user.id);
    out.extend_from_slice(b"{\"@odata.context\":");
    json_string(out, &context);
    out.push(b',');
}

/// Appends a message with its selected properties; the id and the tag come always.
fn write(out: &mut Vec<u8>, request: &Request, view: &View<'_>, select: &Select, expand: Option<&Select>) {
    let message = &view.message;
    let change_key = format!("CQAAABYA{:016x}", text_number(&message.internet_message_id));
    // Writing to memory cannot fail.
    let _ = write!(out, r#"{{"@odata.etag":"W/\"{change_key}\"","id":"{}""#, view.id());
    let mut property = |name: &str, value: Value<'_>| {
        if !is_selected(select, &name.to_ascii_lowercase()) {
            return;
        }
        let _ = write!(out, r#","{name}":"#);
        match value {
            Value::Text(text) => json_string(out, &text),
            Value::Raw(text) => out.extend_from_slice(text.as_bytes()),
            Value::Mailbox(mailbox) => write_mailbox(out, mailbox),
            Value::Mailboxes(mailboxes) => {
                out.push(b'[');
                for (index, mailbox) in mailboxes.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    write_mailbox(out, mailbox);
                }
                out.push(b']');
            }
        }
    };
    let sent = graph_time(message.sent);
    property("createdDateTime", Value::Text(Cow::Borrowed(&sent)));
    property("lastModifiedDateTime", Value::Text(Cow::Borrowed(&sent)));
    property("changeKey", Value::Text(Cow::Borrowed(&change_key)));
    property("categories", Value::Raw("[]"));
    property("receivedDateTime", Value::Text(Cow::Borrowed(&sent)));
    property("sentDateTime", Value::Text(Cow::Borrowed(&sent)));
    property("hasAttachments", Value::Raw(if view.has_attachments() { "true" } else { "false" }));
    property("internetMessageId", Value::Text(Cow::Borrowed(&message.internet_message_id)));
    property("subject", Value::Text(Cow::Borrowed(&message.subject)));
    property("bodyPreview", Value::Text(Cow::Borrowed("simulated")));
    property("importance", Value::Raw(r#""normal""#));
    if is_selected(select, "parentfolderid") {
        property("parentFolderId", Value::Text(Cow::Owned(view.user.ids().folder(view.folder))));
    }
    if is_selected(select, "conversationid") {
        let conversation = format!("AAQkA{:016x}AQA{:08x}=", text_number(&message.subject), message.owner);
        property("conversationId", Value::Text(Cow::Owned(conversation)));
    }
    property("isDeliveryReceiptRequested", Value::Raw("false"));
    property("isReadReceiptRequested", Value::Raw("false"));
    property("isRead", Value::Raw("true"));
    property("isDraft", Value::Raw(if view.is_draft() { "true" } else { "false" }));
    property("webLink", Value::Text(Cow::Borrowed("https://outlook.office365.com/owa/")));
    property("inferenceClassification", Value::Raw(r#""focused""#));
    property("body", Value::Raw(r#"{"contentType":"html","content":"<html><body>simulated</body></html>"}"#));
    property("sender", Value::Mailbox(&message.from));
    property("from", Value::Mailbox(&message.from));
    property("toRecipients", Value::Mailboxes(&message.to));
    property("ccRecipients", Value::Mailboxes(&message.cc));
    // Only the sender's own copies know them.
    property("bccRecipients", Value::Mailboxes(if view.item.copy == Copy::Received { &[] } else { &message.bcc }));
    property("replyTo", Value::Raw("[]"));
    property("flag", Value::Raw(r#"{"flagStatus":"notFlagged"}"#));
    if let Some(select) = expand {
        out.extend_from_slice(b",\"attachments\":[");
        attachments::write_all(out, request, view, select);
        out.push(b']');
    }
    out.push(b'}');
}

enum Value<'a> {
    Text(Cow<'a, str>),
    Raw(&'a str),
    Mailbox(&'a Mailbox),
    Mailboxes(&'a [Mailbox]),
}

/// Somebody without a display name is called by the address.
fn write_mailbox(out: &mut Vec<u8>, mailbox: &Mailbox) {
    out.extend_from_slice(b"{\"emailAddress\":{\"name\":");
    json_string(out, if mailbox.name.is_empty() { &mailbox.address } else { &mailbox.name });
    out.extend_from_slice(b",\"address\":");
    json_string(out, &mailbox.address);
    out.extend_from_slice(b"}}");
}
