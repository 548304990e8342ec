//! Send → message → rows: each attachment hashed, owed, or given up with its reason.

use super::fate::{Outcome, Retried, reason};
use super::row::{self, Occurrences};
use super::state::{OwedHash, OwedMessage};
use super::{Pipeline, hash};
use crate::clock::Time;
use crate::error::{Code, Error, Result};
use crate::event::{FileEvent, HashStatus};
use crate::limits;
use crate::source::{Attachment, AttachmentKind, AttachmentRef, Message, SendRecord, Source};
use futures::{StreamExt as _, TryStreamExt as _};

/// Deals with one send.
///
/// # Errors
/// Only what must end the run.
pub(super) async fn send<S: Source>(pipeline: &Pipeline<S>, send: &SendRecord, blob_id: &str) -> Result<Outcome> {
    deal_with(pipeline, send, blob_id, true).await
}

/// Looks again for a message that an earlier run owed.
///
/// # Errors
/// Only what must end the run.
pub(super) async fn owed_message<S: Source>(pipeline: &Pipeline<S>, owed: OwedMessage) -> Result<Retried> {
    // Not claimed: another record's rows may be waiting for the rows that stand here to give way.
    let outcome = deal_with(pipeline, &owed.send, &owed.blob_id, false).await?;
    Ok(Retried::Message { owed: Box::new(owed), outcome })
}

/// Reads again an attachment whose bytes an earlier run owed.
///
/// # Errors
/// Only what must end the run.
pub(super) async fn owed_hash<S: Source>(pipeline: &Pipeline<S>, owed: OwedHash) -> Result<Retried> {
    let mut row = owed.row.clone();
    let still_owed = fill(pipeline, &mut row, &owed.attachment).await?;
    Ok(Retried::Hash { before: Box::new(owed), row: Box::new(row), still_owed })
}

async fn deal_with<S: Source>(
    pipeline: &Pipeline<S>,
    send: &SendRecord,
    blob_id: &str,
    claims: bool,
) -> Result<Outcome> {
    let found = if send.saved_to_sent_items == Some(false) {
        Err(Error::new(Code::MessageMissing, "it was sent without keeping a copy"))
    } else {
        pipeline.source.find(send).await
    };
    let error = match found {
        Ok(messages) if messages.iter().any(|message| !message.attachments.is_empty()) => {
            return events(pipeline, send, blob_id, messages, claims).await;
        }
        Ok(messages) if !messages.is_empty() && send.attachments.is_empty() => {
            return Ok(Outcome::Events { rows: Vec::new(), owed: Vec::new() });
        }
        Ok(messages) if !messages.is_empty() => Error::new(
            Code::MessageMissing,
            "the message is there, but the attachments that the audit record names are not",
        ),
        Ok(_) => Error::new(Code::MessageMissing, "no message in the mailbox has this internet message id"),
        Err(error) if error.is_about_one_item() => error,
        Err(error) => return Err(error),
    };
    Ok(unresolved(pipeline, send, blob_id, &error, claims))
}

/// The rows that an audit record can give by itself.
fn unresolved<S: Source>(
    pipeline: &Pipeline<S>,
    send: &SendRecord,
    blob_id: &str,
    error: &Error,
    claims: bool,
) -> Outcome {
    let is_owed = is_awaited(send, error, pipeline.clock.now());
    let status = if is_owed { HashStatus::Owed } else { HashStatus::Unavailable };
    let reason = reason(error);
    let mut occurrences = Occurrences::default();
    let mut rows: Vec<FileEvent> = Vec::with_capacity(send.attachments.len());
    for named in &send.attachments {
        let mut row = row::of_named(&pipeline.stamp, send, blob_id, named, occurrences.next(&named.name));
        row::set_unhashed(&mut row, status, &reason);
        rows.push(row);
    }
    if claims {
        rows.retain(|row| pipeline.claim(&row.event_id));
    }
    if is_owed {
        pipeline.keep(&send.id);
        let owed = OwedMessage {
            send: send.clone(),
            blob_id: blob_id.to_owned(),
            rows: rows.iter().map(|row| (row.event_id.clone(), row.event_date())).collect(),
            reason,
        };
        return Outcome::Owed { rows, owed: Box::new(owed) };
    }
    let subject = send.internet_message_id.clone().unwrap_or_else(|| send.id.clone());
    Outcome::Lost { rows, reason, subject }
}

/// Whether a later run may still find what is missing.
fn is_awaited(send: &SendRecord, error: &Error, now: Time) -> bool {
    let awaited = match error.code() {
        Code::MessageMissing if send.saved_to_sent_items == Some(false) || send.internet_message_id.is_none() => {
            return false;
        }
        Code::MessageMissing => limits::MESSAGE_AWAITED,
        code if code.is_transient() => limits::HASH_AWAITED,
        _ => return false,
    };
    now - send.created < awaited
}

async fn events<S: Source>(
    pipeline: &Pipeline<S>,
    send: &SendRecord,
    blob_id: &str,
    messages: Vec<Message>,
    claims: bool,
) -> Result<Outcome> {
    let mut occurrences = Occurrences::default();
    let mut claimed_by_others: Vec<String> = Vec::new();
    let mut work: Vec<(FileEvent, AttachmentRef)> = Vec::new();
    for message in &messages {
        for attachment in &message.attachments {
            let occurrence = occurrences.next(&attachment.name);
            let id = row::id_in_message(&pipeline.stamp, message, &attachment.name, occurrence);
            if claims && !pipeline.claim(&id) {
                claimed_by_others.push(id);
                continue;
            }
            let row = row::of_attachment(&pipeline.stamp, send, blob_id, message, attachment, id);
            work.push((row, reference(message, attachment)));
        }
    }
    if work.is_empty() && !claimed_by_others.is_empty() {
        return Ok(Outcome::Claimed { event_ids: claimed_by_others });
    }
    let hashed: Vec<(FileEvent, Option<AttachmentRef>)> = futures::stream::iter(work)
        .map(|(mut row, attachment)| async move {
            let is_owed = fill(pipeline, &mut row, &attachment).await?;
            Ok::<_, Error>((row, is_owed.then_some(attachment)))
        })
        .buffered(limits::REQUESTS_PER_MAILBOX)
        .try_collect()
        .await?;
    let mut rows = Vec::with_capacity(hashed.len());
    let mut owed = Vec::new();
    for (row, attachment) in hashed {
        owed.extend(attachment.map(|attachment| OwedHash { attachment, row: row.clone() }));
        rows.push(row);
    }
    Ok(Outcome::Events { rows, owed })
}

/// Reads an attachment's bytes into its row; true when that is owed to a later run.
async fn fill<S: Source>(pipeline: &Pipeline<S>, row: &mut FileEvent, attachment: &AttachmentRef) -> Result<bool> {
    let hashed = if attachment.kind == AttachmentKind::Reference {
        Err(Error::new(Code::AttachmentHasNoBytes, "it is a link to a file in a cloud store"))
    } else {
        hash::attachment(&*pipeline.source, &pipeline.pool, &pipeline.streams, attachment, row.store_size_bytes).await
    };
    match hashed {
        Ok(hashed) => {
            pipeline.progress.bytes_hashed.add(hashed.digests.size_bytes);
            row::set_hashed(row, hashed);
            Ok(false)
        }
        Err(error) if error.code() == Code::AttachmentHasNoBytes => {
            row::set_unhashed(row, HashStatus::NotApplicable, &reason(&error));
            Ok(false)
        }
        Err(error) if error.is_about_one_item() => {
            let is_owed = error.code().is_transient() && pipeline.clock.now() - row.observed_at < limits::HASH_AWAITED;
            let status = if is_owed { HashStatus::Owed } else { HashStatus::Unavailable };
            row::set_unhashed(row, status, &reason(&error));
            Ok(is_owed)
        }
        Err(error) => Err(error),
    }
}

fn reference(message: &Message, attachment: &Attachment) -> AttachmentRef {
    AttachmentRef {
        mailbox: message.mailbox.clone(),
        message_id: message.id.clone(),
        attachment_id: attachment.id.clone(),
        kind: attachment.kind,
    }
}
