//! An attachment's bytes, as they are, on their way to the hash.

use futures::StreamExt;

use super::Tenant;
use super::graph::{Asked, VALUE, with_immutable_ids};
use crate::error::{Code, Error, Result};
use crate::http::Request;
use crate::source::{AttachmentBody, AttachmentKind, AttachmentRef};

impl Tenant {
    /// Opens the raw bytes. For an item Graph renders the message, event or contact while it is read.
    pub(super) async fn open(&self, attachment: &AttachmentRef) -> Result<AttachmentBody> {
        let AttachmentRef { mailbox, message_id, attachment_id, kind } = attachment;
        if *kind == AttachmentKind::Reference {
            // Graph would answer 405.
            return Err(Error::new(Code::AttachmentHasNoBytes, "the attachment is a link, the file is elsewhere"));
        }
        let url =
            self.graph_url(&["users", mailbox, "messages", message_id, "attachments", attachment_id, VALUE], &[])?;
        let request = with_immutable_ids(Request::get("attachment", url));
        let body = self.http.stream(&request, &self.graph_mail(Asked::Attachment, mailbox)).await;
        let body = body.map_err(|error| error.context("cannot open the attachment"))?;
        Ok(AttachmentBody { announced_bytes: body.announced_bytes, bytes: body.bytes.boxed() })
    }
}
