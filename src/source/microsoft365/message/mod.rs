//! The message behind a send, with its attachments' metadata and without its body.
//!
//! The audit record's own item id names the draft, which is gone; only the internet message id finds what was sent. One
//! request finds the message, all it says about itself, and its attachments. A mailbox may hold several messages of one
//! internet message id: drafts, copies to oneself, copies in other folders, and messages that were really sent several
//! times. The last have a record each, and are told apart by when they were sent.

use std::sync::Arc;

use serde::Deserialize;

use super::Tenant;
use super::graph::{Asked, quoted, with_immutable_ids};
use super::record::parse_time;
use super::throttle::locked;
use crate::clock::Time;
use crate::error::{Code, Error, Result};
use crate::http::{Request, Url};
use crate::limits;
use crate::source::{Attachment, AttachmentKind, Mailbox, Message, Operation, SendRecord};

/// Never a body, nor a preview of one.
const MESSAGE_FIELDS: &str = "id,internetMessageId,subject,from,sender,toRecipients,ccRecipients,bccRecipients,sentDateTime,isDraft,parentFolderId";

/// Never the bytes: small attachments would bring them along in Base64.
const ATTACHMENTS: &str = "attachments($select=id,name,contentType,size,isInline,lastModifiedDateTime)";

/// A page of a collection.
#[derive(Deserialize)]
pub(super) struct Page<T> {
    pub(super) value: Vec<T>,
    #[serde(rename = "@odata.nextLink")]
    pub(super) next: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    id: String,
    internet_message_id: Option<String>,
    subject: Option<String>,
    from: Option<Recipient>,
    sender: Option<Recipient>,
    #[serde(default)]
    to_recipients: Vec<Recipient>,
    #[serde(default)]
    cc_recipients: Vec<Recipient>,
    #[serde(default)]
    bcc_recipients: Vec<Recipient>,
    sent_date_time: Option<String>,
    #[serde(default)]
    is_draft: bool,
    parent_folder_id: Option<String>,
    #[serde(default)]
    attachments: Vec<FoundAttachment>,
    #[serde(rename = "attachments@odata.nextLink")]
    more_attachments: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recipient {
    email_address: Option<EmailAddress>,
}

#[derive(Deserialize)]
struct EmailAddress {
    name: Option<String>,
    address: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FoundAttachment {
    #[serde(rename = "@odata.type")]
    odata_type: Option<String>,
    id: String,
    name: Option<String>,
    content_type: Option<String>,
    size: Option<i64>,
    #[serde(default)]
    is_inline: bool,
    source_url: Option<String>,
}

/// A message of Sent Items, as far as a comparison with the lake needs it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SentMessage {
    /// The `Message-ID` with its angle brackets.
    pub internet_message_id: Option<String>,
    /// When it was sent.
    #[serde(rename = "sentDateTime")]
    pub sent: Option<Time>,
}

#[derive(Deserialize)]
struct Folder {
    id: String,
}

/// Which part of a mailbox is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// All folders that a person sees.
    Folders,
    /// What was deleted from Deleted Items and can still be had back.
    Recoverable,
}

impl Tenant {
    /// Finds the messages of a send: in the first mailbox that holds any.
    pub(super) async fn find(&self, send: &SendRecord) -> Result<Vec<Message>> {
        let Some(internet_message_id) = send.internet_message_id.as_deref() else {
            return Err(Error::new(
                Code::MessageMissing,
                "the audit record names no internet message id, so no message can be found",
            ));
        };
        let mailboxes = mailboxes(send);
        let mut refusal = None;
        for (index, mailbox) in mailboxes.iter().enumerate() {
            match self.find_in(mailbox, Where::Folders, internet_message_id, send.created).await {
                Ok(messages) if messages.is_empty() => {}
                Ok(messages) => return Ok(messages),
                // The actor of a delegated send may have no mailbox of its own, and the owner's still hold the copy.
                Err(error) if is_closed(&error) && index == 0 => refusal = Some(error),
                Err(error) if is_closed(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        if self.clock.now() - send.created <= limits::MESSAGE_SETTLES {
            return Ok(Vec::new());
        }
        for mailbox in &mailboxes {
            match self.find_in(mailbox, Where::Recoverable, internet_message_id, send.created).await {
                Ok(messages) if messages.is_empty() => {}
                Ok(messages) => return Ok(messages),
                // That this folder cannot be looked into is no news about the message.
                Err(error) if is_closed(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Vec::new())
    }

    async fn find_in(
        &self,
        mailbox: &str,
        place: Where,
        internet_message_id: &str,
        created: Time,
    ) -> Result<Vec<Message>> {
        let filter = format!("internetMessageId eq {}", quoted(internet_message_id));
        let page_size = limits::MESSAGES_PER_PAGE.to_string();
        let query = [
            ("$filter", filter.as_str()),
            ("$select", MESSAGE_FIELDS),
            ("$expand", ATTACHMENTS),
            ("$top", page_size.as_str()),
        ];
        let (kind, path): (_, &[&str]) = match place {
            Where::Folders => ("find", &["users", mailbox, "messages"]),
            Where::Recoverable => {
                ("find_deleted", &["users", mailbox, "mailFolders", "recoverableitemsdeletions", "messages"])
            }
        };
        let url = self.graph_url(path, &query)?;
        let mut found: Vec<Found> = self.pages(kind, mailbox, url).await?;
        // A draft is another object than what was sent, even with the same id; the comparison holds a service to its
        // filter.
        found.retain(|message| {
            let id = message.internet_message_id.as_deref().unwrap_or_default();
            !message.is_draft && id.trim().eq_ignore_ascii_case(internet_message_id.trim())
        });
        let sent_items = match found.len() {
            0 | 1 => None,
            _ if place == Where::Recoverable => None,
            _ => self.sent_items(mailbox).await?,
        };
        let mut messages = Vec::new();
        for found in choose(found, sent_items.as_deref(), created) {
            messages.push(self.complete(mailbox, found).await?);
        }
        messages.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(messages)
    }

    /// Fetches the attachments that did not fit beside their message, and translates.
    async fn complete(&self, mailbox: &str, found: Found) -> Result<Message> {
        let mut attachments = found.attachments;
        if let Some(link) = &found.more_attachments {
            attachments.extend(self.pages::<FoundAttachment>("attachments", mailbox, self.graph_link(link)?).await?);
        }
        let sent = found.sent_date_time.as_deref().and_then(parse_time);
        let sent = sent.ok_or_else(|| {
            let subject_id = &found.id;
            Error::new(
                Code::ServiceProtocol,
                format!("the message `{subject_id}` in `{mailbox}` has no `sentDateTime` that can be read"),
            )
        })?;
        let several = |recipients: Vec<Recipient>| recipients.into_iter().filter_map(Recipient::into_mailbox).collect();
        Ok(Message {
            mailbox: mailbox.to_owned(),
            id: found.id,
            internet_message_id: found.internet_message_id.unwrap_or_default(),
            subject: found.subject.filter(|subject| !subject.is_empty()),
            sender: found.sender.and_then(Recipient::into_mailbox),
            from: found.from.and_then(Recipient::into_mailbox),
            to: several(found.to_recipients),
            cc: several(found.cc_recipients),
            bcc: several(found.bcc_recipients),
            sent,
            attachments: attachments.into_iter().map(FoundAttachment::into_attachment).collect(),
        })
    }

    /// Messages with attachments that a mailbox's Sent Items hold of a time, the newest first, at most one page; without
    /// attachments and bodies.
    pub(super) async fn sent_messages(&self, mailbox: &str, from: Time, to: Time) -> Result<Vec<SentMessage>> {
        let second = |time: Time| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        let filter =
            format!("sentDateTime ge {} and sentDateTime lt {} and hasAttachments eq true", second(from), second(to));
        let page_size = limits::MESSAGES_PER_PAGE.to_string();
        // Graph wants what it sorts by at the start of the filter (message resource, "InefficientFilter").
        let query = [
            ("$filter", filter.as_str()),
            ("$orderby", "sentDateTime desc"),
            ("$select", "internetMessageId,sentDateTime"),
            ("$top", page_size.as_str()),
        ];
        let url = self.graph_url(&["users", mailbox, "mailFolders", "sentitems", "messages"], &query)?;
        let request = with_immutable_ids(Request::get("sent_messages", url));
        let page: Page<SentMessage> = self.http.json(&request, &self.graph_mail(Asked::Mailbox, mailbox)).await?;
        Ok(page.value)
    }

    /// The id of a mailbox's Sent Items folder, asked for once however many sends wait for it. `None`: it has none.
    pub(super) async fn sent_items(&self, mailbox: &str) -> Result<Option<String>> {
        let known = Arc::clone(locked(&self.sent_items).entry(mailbox.to_lowercase()).or_default());
        known.get_or_try_init(|| self.ask_sent_items(mailbox)).await.cloned()
    }

    async fn ask_sent_items(&self, mailbox: &str) -> Result<Option<String>> {
        let url = self.graph_url(&["users", mailbox, "mailFolders", "sentitems"], &[("$select", "id")])?;
        let request = with_immutable_ids(Request::get("folder", url));
        match self.http.json::<_, Folder>(&request, &self.graph_mail(Asked::Message, mailbox)).await {
            Ok(folder) => Ok(Some(folder.id)),
            Err(error) if error.code() == Code::MessageMissing => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a collection of a mailbox, all pages.
    async fn pages<T: serde::de::DeserializeOwned>(
        &self,
        kind: &'static str,
        mailbox: &str,
        mut url: Url,
    ) -> Result<Vec<T>> {
        let service = self.graph_mail(Asked::Mailbox, mailbox);
        let mut all = Vec::new();
        for _ in 0..limits::PAGES {
            let request = with_immutable_ids(Request::get(kind, url));
            let page: Page<T> = self.http.json(&request, &service).await?;
            all.extend(page.value);
            match page.next {
                // An empty page may have a successor.
                Some(next) => url = self.graph_link(&next)?,
                None => return Ok(all),
            }
        }
        Err(Error::new(Code::ServiceProtocol, format!("graph's pages of the mailbox `{mailbox}` never end")))
    }
}

/// Whether a mailbox cannot be looked into, now and with every other request of this run.
fn is_closed(error: &Error) -> bool {
    matches!(error.code(), Code::MailboxDenied | Code::MailboxMissing)
}

/// Where a send's copy may lie, most likely first. Delegated sends leave it with the actor unless the mailbox is set to
/// keep one itself.
fn mailboxes(send: &SendRecord) -> Vec<Arc<str>> {
    let (owner, actor) = (send.mailbox.as_str(), send.actor.as_str());
    let names = match send.operation {
        Operation::Send => [owner, actor],
        Operation::SendAs | Operation::SendOnBehalf => [actor, owner],
    };
    // The system and Exchange's own servers act under an SID, which is no mailbox.
    let is_mailbox = |name: &&str| !name.is_empty() && !name.to_ascii_uppercase().starts_with("S-1-");
    let mut mailboxes: Vec<Arc<str>> = names.into_iter().filter(is_mailbox).map(Arc::from).collect();
    mailboxes.dedup_by(|second, first| second.eq_ignore_ascii_case(first));
    mailboxes
}

/// Chooses what was sent among the messages of one internet message id.
fn choose(found: Vec<Found>, sent_items: Option<&str>, created: Time) -> Vec<Found> {
    let is_in_sent_items = |message: &Found| sent_items.is_some() && message.parent_folder_id.as_deref() == sent_items;
    let (mut sent, mut elsewhere): (Vec<_>, Vec<_>) = found.into_iter().partition(is_in_sent_items);
    let when = |message: &Found| message.sent_date_time.as_deref().and_then(parse_time);
    // How far from the record's time, then the earlier one.
    let distance = |message: &Found| {
        when(message).map_or((i64::MAX, None), |sent| ((sent - created).num_milliseconds().abs(), Some(sent)))
    };
    if let Some(nearest) = sent.iter().map(distance).min() {
        sent.retain(|message| distance(message) == nearest);
        return sent;
    }
    // Copies of one message: of those outside of Sent Items, one stands for all.
    elsewhere.sort_by_cached_key(|message| (distance(message), message.id.clone()));
    elsewhere.truncate(1);
    elsewhere
}

impl Recipient {
    fn into_mailbox(self) -> Option<Mailbox> {
        let EmailAddress { name, address } = self.email_address?;
        let name = name.filter(|name| !name.is_empty());
        let address = address.filter(|address| !address.is_empty()).or_else(|| name.clone())?;
        Some(Mailbox { address, name })
    }
}

impl FoundAttachment {
    fn into_attachment(self) -> Attachment {
        let kind = match self.odata_type.as_deref().unwrap_or_default().rsplit('.').next() {
            Some("itemAttachment") => AttachmentKind::Item,
            Some("referenceAttachment") => AttachmentKind::Reference,
            _ => AttachmentKind::File,
        };
        Attachment {
            id: self.id,
            name: self.name.unwrap_or_default(),
            kind,
            content_type: self.content_type.filter(|content_type| !content_type.is_empty()),
            store_size_bytes: self.size.and_then(|size| u64::try_from(size).ok()),
            is_inline: self.is_inline,
            source_url: self.source_url,
        }
    }
}

#[cfg(test)]
mod tests;
