//! A directory of `.eml` files as sent messages: every file becomes one, however broken it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Bytes;
use chrono::{DateTime, Datelike, Duration, Utc};

use super::clock;
use super::ids::text_number;
use super::mime::fields::{self, Mailbox};
use super::mime::{self, MimeAttachment, MimeKind, parse};
use super::tenant::{Attachment, AttachmentKind, Content, DirectoryFile};
use super::{Result, SimulatorError};

/// Attachments are kept in memory up to this sum; beyond it they are read from their files when asked for.
const HELD_BYTES_MAX: usize = 512 << 20;

/// The directory's users and groups, if it has this file.
const DIRECTORY_FILE: &str = "_groups.json";

/// The domain of what is made up for mails that do not tell.
pub(crate) const CORPUS_DOMAIN: &str = "corpus.example";

/// One mail of a corpus, before it has an owner.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) from: Mailbox,
    pub(crate) to: Vec<Mailbox>,
    pub(crate) cc: Vec<Mailbox>,
    pub(crate) bcc: Vec<Mailbox>,
    pub(crate) subject: String,
    pub(crate) internet_message_id: String,
    /// When it says that it was sent, if it does.
    pub(crate) dated: Option<DateTime<Utc>>,
    /// A number that follows from the mail, for what has to be made up.
    pub(crate) stable: u64,
    pub(crate) attachments: Vec<Attachment>,
    pub(crate) source: Source,
}

/// Where a mail's own bytes are.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    File(Arc<Path>),
    Held(Bytes),
}

impl Source {
    /// The whole MIME message as it was given.
    pub(crate) fn read(&self) -> std::io::Result<Bytes> {
        match self {
            Self::File(path) => std::fs::read(path).map(Bytes::from),
            Self::Held(bytes) => Ok(bytes.clone()),
        }
    }
}

/// Reads all mails below a directory in the order of their paths, and the directory's file of users and groups.
pub(crate) fn read(root: &Path) -> Result<(Vec<Mail>, DirectoryFile)> {
    let mut paths = Vec::new();
    find(root, &mut paths)?;
    paths.sort();
    let mut mails = Vec::with_capacity(paths.len());
    let mut held = 0;
    for path in paths {
        let data = Bytes::from(std::fs::read(&path).map_err(|source| SimulatorError::read(&path, source))?);
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        let keep = held < HELD_BYTES_MAX;
        let mail = mail(&name, &data, Source::File(Arc::from(path)), keep);
        if keep {
            held += mail.attachments.iter().map(|attachment| attachment.bytes as usize).sum::<usize>();
        }
        mails.push(mail);
    }
    let directory = root.join(DIRECTORY_FILE);
    let directory = if directory.is_file() { DirectoryFile::read(&directory)? } else { DirectoryFile::default() };
    Ok((mails, directory))
}

fn find(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).map_err(|source| SimulatorError::read(folder, source))?;
    for entry in entries {
        let path = entry.map_err(|source| SimulatorError::read(folder, source))?.path();
        if path.is_dir() {
            find(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("eml")) {
            paths.push(path);
        }
    }
    Ok(())
}

/// Reads one mail. What it does not tell is made up from its name and size, so that it is the same in every run.
pub(crate) fn mail(name: &str, data: &Bytes, source: Source, keep: bool) -> Mail {
    let message = parse::message(data);
    let headers = &message.headers;
    let stable = text_number(&format!("{name}/{}", data.len()));
    let list = |field: &str| -> Vec<Mailbox> { headers.all(field).flat_map(fields::mailboxes).collect() };
    let from = list("from").into_iter().chain(list("sender")).find(|mailbox| is_address(&mailbox.address));
    let from = from.unwrap_or_else(|| Mailbox {
        name: String::new(),
        address: format!("sender-{:08x}@{CORPUS_DOMAIN}", stable as u32),
    });
    let attachments =
        mime::attachments(&message).into_iter().map(|found| attachment(found, data, &source, keep, stable));
    Mail {
        from,
        to: list("to"),
        cc: list("cc"),
        bcc: list("bcc"),
        subject: headers.text("subject").unwrap_or_default().trim().to_owned(),
        internet_message_id: headers
            .text("message-id")
            .and_then(|id| message_id(&id))
            .unwrap_or_else(|| format!("<{stable:016x}@{CORPUS_DOMAIN}>")),
        dated: headers.raw("date").and_then(fields::date).filter(is_plausible),
        stable,
        attachments: attachments.collect(),
        source,
    }
}

/// Nobody sends mail from the far future, whatever a header says; and the newest mail of a corpus is what the others
/// are shifted by.
fn is_plausible(date: &DateTime<Utc>) -> bool {
    *date <= clock::now() + Duration::days(1) && date.year() >= 1900
}

/// A mailbox needs an address with something on both sides of its `@`.
fn is_address(address: &str) -> bool {
    address.rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
}

/// The id in its angle brackets; an id without them as it stands, as Exchange keeps it.
fn message_id(text: &str) -> Option<String> {
    let text = text.trim();
    let bracketed = text.find('<').and_then(|start| {
        let end = text[start..].find('>')?;
        Some(&text[start..=start + end])
    });
    let id: String = bracketed.unwrap_or(text).chars().filter(|character| !character.is_control()).collect();
    (!id.is_empty() && id != "<>").then_some(id)
}

impl Mail {
    /// When it was sent. A mail without a date was sent some time within the day before `newest`.
    pub(crate) fn sent(&self, newest: DateTime<Utc>) -> DateTime<Utc> {
        self.dated.unwrap_or_else(|| newest - Duration::seconds((self.stable % 86_400) as i64))
    }
}

fn attachment(found: MimeAttachment, data: &Bytes, source: &Source, keep: bool, stable: u64) -> Attachment {
    let decoded = found.bytes(data);
    let bytes = decoded.len() as u64;
    let content = if keep {
        Content::Held(Bytes::from(decoded.into_owned()))
    } else {
        Content::InMail(source.clone(), found.clone())
    };
    Attachment {
        kind: match found.kind {
            MimeKind::File(_) => AttachmentKind::File,
            MimeKind::Message => AttachmentKind::Message,
        },
        name: found.name,
        content_type: found.content_type,
        is_inline: found.is_inline,
        content_id: found.content_id,
        bytes,
        // What the store needs beside the file: 816 bytes became 1053 (microsoft-graph-docs#9796).
        overhead: 200 + (stable % 100) as u32,
        content,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Mail {
        let data = Bytes::copy_from_slice(text.as_bytes());
        mail("a/b.eml", &data, Source::Held(data.clone()), true)
    }

    #[test]
    fn a_mail_that_tells_nothing_is_the_same_in_every_run() {
        let (first, second) = (read_text("no headers at all\n"), read_text("no headers at all\n"));
        assert_eq!(first.internet_message_id, second.internet_message_id);
        let newest = DateTime::from_timestamp(1_000_000_000, 0).expect("in range");
        assert_eq!((first.sent(newest), &first.from), (second.sent(newest), &second.from));
        assert!(first.from.address.ends_with(CORPUS_DOMAIN) && first.sent(newest) <= newest);
    }

    #[test]
    fn the_headers_of_a_mail_are_its_facts() {
        let mail = read_text(
            "From: Ann <Ann@x.org>\nTo: b@x.org, c@x.org\nCC: d@x.org\nMessage-ID:\n <1@x.org>\nSubject: =?utf-8?q?a=20b?=\n\
             Date: Fri, 21 Nov 1997 09:55:06 -0600\nContent-Type: image/png\n\nx\n",
        );
        assert_eq!(mail.from.address, "Ann@x.org");
        assert_eq!((mail.to.len(), mail.cc.len(), mail.bcc.len()), (2, 1, 0));
        assert_eq!((mail.internet_message_id.as_str(), mail.subject.as_str()), ("<1@x.org>", "a b"));
        assert_eq!(mail.dated.map(|sent| sent.to_rfc3339()).as_deref(), Some("1997-11-21T15:55:06+00:00"));
        assert_eq!((mail.attachments.len(), mail.attachments[0].bytes), (1, 2));
    }
}
