//! Attachments: their list, their properties, their bytes.
//!
//! <https://learn.microsoft.com/graph/api/attachment-get>

use std::io::Write;
use std::sync::Arc;

use axum::body::Bytes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::stream::{self, StreamExt};
use uuid::Uuid;

use super::messages::{View, find, write_context};
use super::odata::{self, Select, is_selected};
use super::{JSON, method_not_allowed};
use crate::simulator::Simulator;
use crate::simulator::answer::{Reply, Request, graph_error, graph_time};
use crate::simulator::faults::Action;
use crate::simulator::mime::{fields, parse};
use crate::simulator::records::json_string;
use crate::simulator::tenant::{Attachment, AttachmentKind, Content, User};

/// Lists carry the bytes of files up to this size, unless only other properties are selected.
const INLINE_BYTES_MAX: u64 = 3_000_000;

/// How much of a file is handed to the connection at once.
const CHUNK_BYTES: usize = 256 << 10;

/// What a reference attachment's size is: that of the stored link.
const REFERENCE_BYTES: u64 = 412;

/// `GET …/messages/{id}/attachments`.
pub(crate) fn list(simulator: &Simulator, request: &Request, user: &User, id: &str) -> Reply {
    let view = match find(simulator, request, user, id) {
        Ok(view) => view,
        Err(error) => return error,
    };
    let select = odata::select(request.query("$select"));
    // Properties of the derived types need a cast: `microsoft.graph.fileAttachment/contentId`.
    let derived = ["contentid", "contentbytes", "contentlocation", "item", "sourceurl"];
    if let Some(name) = select.iter().flatten().find(|name| derived.contains(&name.as_str())) {
        let message = format!(
            "Parsing OData Select and Expand failed: Could not find a property named '{name}' on type 'Microsoft.OutlookServices.Attachment'."
        );
        return graph_error(request, 400, "RequestBroker--ParseUri", &message);
    }
    let what = format!("messages('{}')/attachments", view.id());
    let mut body = Vec::with_capacity(256 + view.message.attachments.len() * 512);
    write_context(&mut body, request, user, &what, &select);
    body.extend_from_slice(b"\"value\":[");
    write_all(&mut body, request, &view, &select);
    body.extend_from_slice(b"]}");
    Reply::new(200, JSON, body)
}

/// Appends all attachments of a message, without the brackets.
pub(crate) fn write_all(out: &mut Vec<u8>, request: &Request, view: &View<'_>, select: &Select) {
    for (index, attachment) in view.message.attachments.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let is_small = attachment.bytes < INLINE_BYTES_MAX;
        let wants_bytes = select.is_none() && is_small && attachment.kind == AttachmentKind::File;
        let bytes = if wants_bytes { attachment.content.read(attachment.bytes).ok() } else { None };
        write(out, request, view, index, select, bytes.as_deref());
        out.push(b'}');
    }
}

fn is_reference(request: &Request, index: usize) -> bool {
    request.actions.iter().any(|action| match action {
        Action::Reference => true,
        Action::ReferenceAt(place) => *place == index,
        _ => false,
    })
}

/// Appends the attachment's object without its last brace.
fn write(out: &mut Vec<u8>, request: &Request, view: &View<'_>, index: usize, select: &Select, bytes: Option<&[u8]>) {
    let attachment = &view.message.attachments[index];
    let is_reference = is_reference(request, index);
    let kind = match attachment.kind {
        _ if is_reference => "reference",
        AttachmentKind::File => "file",
        AttachmentKind::Message => "item",
    };
    let is_file = kind == "file";
    // Writing to memory cannot fail.
    let _ = write!(out, r##"{{"@odata.type":"#microsoft.graph.{kind}Attachment""##);
    if is_file {
        out.extend_from_slice(b",\"@odata.mediaContentType\":");
        json_string(out, &attachment.content_type);
    }
    let id = view.user.ids().attachment(view.item, view.folder, view.immutable, index);
    let _ = write!(out, r#","id":"{id}""#);
    if is_selected(select, "lastmodifieddatetime") {
        let _ = write!(out, r#","lastModifiedDateTime":"{}""#, graph_time(view.message.sent));
    }
    if is_selected(select, "name") {
        out.extend_from_slice(b",\"name\":");
        json_string(out, &attachment.name);
    }
    if is_selected(select, "contenttype") {
        out.extend_from_slice(b",\"contentType\":");
        if is_file { json_string(out, &attachment.content_type) } else { out.extend_from_slice(b"null") }
    }
    if is_selected(select, "size") {
        // The size in the store, which is more than the file's.
        let size = if is_reference { REFERENCE_BYTES } else { attachment.bytes + u64::from(attachment.overhead) };
        let _ = write!(out, r#","size":{size}"#);
    }
    if is_selected(select, "isinline") {
        let _ = write!(out, r#","isInline":{}"#, attachment.is_inline);
    }
    let selects = |name: &str| {
        is_selected(select, name) || is_selected(select, &format!("microsoft.graph.fileattachment/{name}"))
    };
    if is_file && selects("contentid") {
        out.extend_from_slice(b",\"contentId\":");
        match &attachment.content_id {
            Some(id) => json_string(out, id),
            None => out.extend_from_slice(b"null"),
        }
    }
    if is_file && select.is_none() {
        out.extend_from_slice(b",\"contentLocation\":null");
    }
    if let Some(bytes) = bytes.filter(|_| is_file) {
        out.extend_from_slice(b",\"contentBytes\":\"");
        out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
        out.push(b'"');
    }
}

/// The index of an attachment, which belongs to the message of its own id.
fn find_index(request: &Request, view: &View<'_>, id: &str) -> Result<usize, Reply> {
    match view.user.ids().read(id) {
        Some((item, Some(index))) if item == view.item && index < view.message.attachments.len() => Ok(index),
        Some((_, Some(_))) => {
            Err(graph_error(request, 404, "ErrorItemNotFound", "The specified object was not found in the store."))
        }
        _ => Err(graph_error(request, 400, "ErrorInvalidIdMalformed", "Id is malformed.")),
    }
}

/// `GET …/attachments/{id}`: with the bytes in it, whatever their size.
pub(crate) async fn one(simulator: &Simulator, request: &Request, user: &User, message: &str, id: &str) -> Reply {
    let view = match find(simulator, request, user, message) {
        Ok(view) => view,
        Err(error) => return error,
    };
    let index = match find_index(request, &view, id) {
        Ok(index) => index,
        Err(error) => return error,
    };
    let select = odata::select(request.query("$select"));
    let attachment = &view.message.attachments[index];
    let expand = request.query("$expand").unwrap_or_default().to_ascii_lowercase();
    let wants_item = attachment.kind == AttachmentKind::Message && expand.ends_with("/item");
    let wants_bytes = attachment.kind == AttachmentKind::File && is_selected(&select, "contentbytes");
    let bytes = if wants_bytes || wants_item { read(attachment).await } else { None };
    let mut body = Vec::with_capacity(1024);
    let what = format!("messages('{}')/attachments/$entity", view.id());
    write_context(&mut body, request, user, &what, &None);
    let mut object = Vec::with_capacity(1024);
    write(&mut object, request, &view, index, &select, bytes.as_deref().filter(|_| wants_bytes));
    body.extend_from_slice(&object[1..]);
    if wants_item && let Some(bytes) = bytes {
        write_item(&mut body, &bytes);
    }
    body.push(b'}');
    Reply::new(200, JSON, body)
}

async fn read(attachment: &Attachment) -> Option<Bytes> {
    let (content, length) = (attachment.content.clone(), attachment.bytes);
    match content {
        Content::Held(held) => Some(held),
        content => tokio::task::spawn_blocking(move || content.read(length)).await.ok()?.ok(),
    }
}

/// The attached message as an object.
fn write_item(out: &mut Vec<u8>, data: &[u8]) {
    let message = parse::message(data);
    let text = |name: &str| message.headers.text(name).unwrap_or_default().trim().to_owned();
    out.extend_from_slice(b",\"item\":{\"@odata.type\":\"#microsoft.graph.message\",\"id\":\"\",\"subject\":");
    json_string(out, &text("subject"));
    out.extend_from_slice(b",\"internetMessageId\":");
    json_string(out, &text("message-id"));
    if let Some(sent) = message.headers.raw("date").and_then(fields::date) {
        let _ = write!(out, r#","sentDateTime":"{}""#, graph_time(sent));
    }
    out.push(b'}');
}

/// `GET …/attachments/{id}/$value`: the bytes. `Range` is not known here, so an interrupted download begins again.
pub(crate) async fn value(
    simulator: &Arc<Simulator>,
    request: &Request,
    user: &User,
    message: &str,
    id: &str,
) -> Reply {
    let view = match find(simulator, request, user, message) {
        Ok(view) => view,
        Err(error) => return error,
    };
    let index = match find_index(request, &view, id) {
        Ok(index) => index,
        Err(error) => return error,
    };
    // A link has no bytes.
    if is_reference(request, index) {
        return method_not_allowed(request);
    }
    let attachment = &view.message.attachments[index];
    match attachment.kind {
        AttachmentKind::Message => {
            let Some(bytes) = read(attachment).await else { return unreadable(request) };
            // The MIME text is made anew for every request.
            let varies = request.actions.contains(&Action::ItemVaries);
            let head = if varies { Bytes::from(format!("X-Rendered: {}\r\n", Uuid::new_v4())) } else { Bytes::new() };
            Reply::stream(
                "text/plain",
                stream::iter([head, bytes].into_iter().filter(|chunk| !chunk.is_empty())).boxed(),
            )
        }
        AttachmentKind::File => {
            let content_type = &attachment.content_type;
            if let Content::Pattern(pattern) = attachment.content {
                return Reply::stream(content_type, stream::iter(pattern.chunks(attachment.bytes)).boxed());
            }
            let Some(bytes) = read(attachment).await else { return unreadable(request) };
            let chunks = (0..bytes.len())
                .step_by(CHUNK_BYTES)
                .map(move |start| bytes.slice(start..(start + CHUNK_BYTES).min(bytes.len())));
            Reply::stream(content_type, stream::iter(chunks).boxed())
        }
    }
}

fn unreadable(request: &Request) -> Reply {
    graph_error(request, 500, "ErrorInternalServerError", "An internal server error occurred. The operation failed.")
}
