//! Message + attachment + digests → the row that is promised.

use std::collections::HashMap;

use uuid::Uuid;

use super::hash::Hashed;
use crate::clock::Time;
use crate::digest::content_type::{Category, ContentType};
use crate::event::id::{EventKey, MessageKey, event_id};
use crate::event::names::{self, FileName};
use crate::event::{FileEvent, HashStatus};
use crate::lake::Shard;
use crate::source::{Attachment, AttachmentKind, Mailbox, Message, NamedAttachment, SendRecord};

/// What every row of a run carries.
#[derive(Clone, Debug)]
pub(super) struct Stamp {
    pub(super) tenant_id: Uuid,
    pub(super) connection_id: Uuid,
    pub(super) connection_name: String,
    pub(super) shard: Shard,
    pub(super) run_id: Uuid,
    pub(super) started_at: Time,
}

/// How many attachments of each name came before within one message: two may be called the same.
#[derive(Default)]
pub(super) struct Occurrences(HashMap<String, u32>);

impl Occurrences {
    pub(super) fn next(&mut self, name: &str) -> u32 {
        let count = self.0.entry(name.to_owned()).or_default();
        let before = *count;
        *count += 1;
        before
    }
}

/// The id of an attachment of a found message.
pub(super) fn id_in_message(stamp: &Stamp, message: &Message, name: &str, occurrence: u32) -> String {
    event_id(&EventKey {
        tenant_id: &stamp.tenant_id.to_string(),
        message: MessageKey::InternetMessageId(&message.internet_message_id),
        from: message.from.as_ref().or(message.sender.as_ref()).map_or(&message.mailbox, |author| &author.address),
        sent: message.sent,
        attachment_name: name,
        occurrence,
    })
}

/// The id of an attachment that only an audit record names.
fn id_in_record(stamp: &Stamp, send: &SendRecord, name: &str, occurrence: u32) -> String {
    event_id(&EventKey {
        tenant_id: &stamp.tenant_id.to_string(),
        message: match &send.internet_message_id {
            Some(id) => MessageKey::InternetMessageId(id),
            None => MessageKey::Record(&send.id),
        },
        from: send.sent_as.as_ref().unwrap_or(&send.mailbox),
        sent: send.created,
        attachment_name: name,
        occurrence,
    })
}

/// The row of an attachment before its bytes were read.
pub(super) fn of_attachment(
    stamp: &Stamp,
    send: &SendRecord,
    blob_id: &str,
    message: &Message,
    attachment: &Attachment,
    event_id: String,
) -> FileEvent {
    let address = |mailbox: &Option<Mailbox>| mailbox.as_ref().and_then(|mailbox| names::address(&mailbox.address));
    let addresses = |list: &[Mailbox]| names::addresses(list.iter().map(|mailbox| mailbox.address.as_str()));
    let (to, cc, bcc) = (addresses(&message.to), addresses(&message.cc), addresses(&message.bcc));
    let recipients = names::recipients([to.as_slice(), &cc, &bcc]);
    let file = match attachment.kind {
        AttachmentKind::File | AttachmentKind::Reference => FileName::of_file(&attachment.name),
        AttachmentKind::Item => FileName::of_item(&attachment.name),
    };
    let mut row = base(stamp, send, blob_id, event_id, message.sent, file);
    row.sender = address(&message.sender).or_else(|| address(&message.from)).or(row.sender);
    row.from_address = address(&message.from).or_else(|| address(&message.sender)).or(row.from_address);
    row.recipient_domains = names::recipient_domains(&recipients);
    row.recipients = recipients;
    (row.to_recipients, row.cc_recipients, row.bcc_recipients) = (to, cc, bcc);
    row.subject = message.subject.clone().or(row.subject);
    row.internet_message_id = Some(message.internet_message_id.clone());
    row.attachment_kind = Some(attachment.kind.as_str().to_owned());
    row.is_inline = Some(attachment.is_inline);
    row.source_url = attachment.source_url.clone();
    row.attachment_id = Some(attachment.id.clone());
    row.store_size_bytes = attachment.store_size_bytes;
    row
}

/// The row of an attachment that only an audit record names.
pub(super) fn of_named(
    stamp: &Stamp,
    send: &SendRecord,
    blob_id: &str,
    named: &NamedAttachment,
    occurrence: u32,
) -> FileEvent {
    let id = id_in_record(stamp, send, &named.name, occurrence);
    let mut row = base(stamp, send, blob_id, id, send.created, FileName::of_file(&named.name));
    let recipients = names::recipients([send.recipients.as_slice()]);
    row.recipient_domains = names::recipient_domains(&recipients);
    row.recipients = recipients;
    row.store_size_bytes = named.store_size_bytes;
    row
}

/// What the audit record says, whatever becomes of the message.
fn base(
    stamp: &Stamp,
    send: &SendRecord,
    blob_id: &str,
    event_id: String,
    observed_at: Time,
    file: FileName,
) -> FileEvent {
    let types = ContentType::of(None, file.name.as_deref().unwrap_or_default());
    FileEvent {
        event_id,
        observed_at,
        inserted_at: stamp.started_at,
        file_name: file.name,
        file_extension: file.extension,
        file_path: file.path,
        file_size_bytes: None,
        sha256: None,
        md5: None,
        hash_status: HashStatus::Owed,
        hash_error: None,
        sender: names::address(&send.actor),
        from_address: names::address(send.sent_as.as_deref().unwrap_or(&send.mailbox)),
        recipients: Vec::new(),
        recipient_domains: Vec::new(),
        subject: send.subject.clone(),
        internet_message_id: send.internet_message_id.clone(),
        mailbox: names::address(&send.mailbox),
        connection_id: stamp.connection_id.to_string(),
        connection_name: stamp.connection_name.clone(),
        to_recipients: Vec::new(),
        cc_recipients: Vec::new(),
        bcc_recipients: Vec::new(),
        file_category: Category::of(types.most_likely).as_str().to_owned(),
        mime_type: types.most_likely.map(str::to_owned),
        mime_type_by_bytes: None,
        mime_type_by_extension: types.by_name.map(str::to_owned),
        attachment_kind: None,
        is_inline: None,
        source_url: None,
        attachment_id: None,
        store_size_bytes: None,
        audit_record_ids: vec![send.id.clone()],
        audit_operation: Some(send.operation.as_str().to_owned()),
        actor: Some(send.actor.clone()),
        client_ip: send.client_ip.clone(),
        client_info: send.client_info.clone(),
        app_id: send.app_id.clone(),
        tenant_id: Some(stamp.tenant_id.to_string()),
        mailbox_guid: send.mailbox_guid.clone(),
        content_blob_id: Some(blob_id.to_owned()),
        run_id: stamp.run_id.to_string(),
    }
}

/// Adds what the bytes told.
pub(super) fn set_hashed(row: &mut FileEvent, hashed: Hashed) {
    let types = ContentType::of(hashed.type_by_bytes, row.file_name.as_deref().unwrap_or_default());
    row.file_size_bytes = Some(hashed.digests.size_bytes);
    row.md5 = Some(hashed.digests.md5_hex());
    row.sha256 = Some(hashed.digests.sha256_hex());
    row.hash_status = HashStatus::Hashed;
    row.hash_error = None;
    row.file_category = Category::of(types.most_likely).as_str().to_owned();
    row.mime_type = types.most_likely.map(str::to_owned);
    row.mime_type_by_bytes = types.by_bytes.map(str::to_owned);
}

/// Says why there is no hash.
pub(super) fn set_unhashed(row: &mut FileEvent, status: HashStatus, reason: &str) {
    row.hash_status = status;
    row.hash_error = Some(reason.to_owned());
}
