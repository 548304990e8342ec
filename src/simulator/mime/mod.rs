//! Exchange's view of a MIME message: whom it is from, whom it goes to, and which of its parts are attachments.

pub(crate) mod decode;
pub(crate) mod fields;
pub(crate) mod headers;
pub(crate) mod parse;

use std::borrow::Cow;
use std::ops::Range;

use parse::{Body, Part};

/// One attachment as a mailbox shows it.
#[derive(Debug, Clone)]
pub(crate) struct MimeAttachment {
    pub(crate) name: String,
    pub(crate) content_type: String,
    pub(crate) is_inline: bool,
    pub(crate) content_id: Option<String>,
    pub(crate) kind: MimeKind,
    /// Where its bytes stand in the file.
    pub(crate) range: Range<usize>,
}

/// What kind of thing is attached, and so what its `$value` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MimeKind {
    /// A file in this transfer encoding.
    File(String),
    /// A message; its bytes are handed out as they stand.
    Message,
}

impl MimeAttachment {
    /// The bytes that `$value` gives: decoded from the transfer encoding and changed in no other way.
    pub(crate) fn bytes<'a>(&self, data: &'a [u8]) -> Cow<'a, [u8]> {
        let body = data.get(self.range.clone()).unwrap_or_default();
        match &self.kind {
            MimeKind::File(encoding) => decode::transfer_encoding(encoding, body),
            MimeKind::Message => Cow::Borrowed(body),
        }
    }
}

/// The attachments of a message, in the order of its parts.
///
/// A part is an attachment if its disposition says so, if it is no text, or if it is text with a file name. A message
/// inside of the message is one attachment, and what is attached to it stays inside of it. The status parts of a
/// report (RFC 3464, RFC 8098) become properties of the message instead, unless they are named.
pub(crate) fn attachments(message: &Part) -> Vec<MimeAttachment> {
    let mut found = Vec::new();
    collect(message, &mut found);
    found
}

fn collect(part: &Part, found: &mut Vec<MimeAttachment>) {
    let is_attached = part.headers.disposition().as_deref() == Some("attachment");
    let file_name = part.headers.file_name();
    let main_type = part.content_type.split('/').next().unwrap_or_default();
    match &part.body {
        Body::Parts(parts) => parts.iter().for_each(|part| collect(part, found)),
        Body::Message(range, inner) if matches!(part.content_type.as_str(), "message/rfc822" | "message/global") => {
            let name = inner.headers.text("subject").unwrap_or_default().trim().to_owned();
            found.push(attachment(part, name, MimeKind::Message, range.clone()));
        }
        Body::Message(range, _) if is_attached || file_name.is_some() => {
            push_file(part, file_name, range.clone(), found);
        }
        Body::Message(..) => {}
        Body::Leaf(range) => {
            let counts = match main_type {
                "text" | "message" => is_attached || file_name.is_some(),
                "multipart" => is_attached,
                _ => true,
            };
            if counts {
                push_file(part, file_name, range.clone(), found);
            }
        }
    }
}

fn push_file(part: &Part, file_name: Option<String>, range: Range<usize>, found: &mut Vec<MimeAttachment>) {
    // Exchange invents names for attachments that have none.
    let name = file_name
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("ATT{:05}.{}", found.len() + 1, extension(&part.content_type)));
    let kind = MimeKind::File(part.headers.transfer_encoding());
    found.push(attachment(part, name, kind, range));
}

fn attachment(part: &Part, name: String, kind: MimeKind, range: Range<usize>) -> MimeAttachment {
    let is_attached = part.headers.disposition().as_deref() == Some("attachment");
    let content_id = part.headers.text("content-id");
    let content_id = content_id.map(|id| id.trim().trim_matches(['<', '>']).to_owned()).filter(|id| !id.is_empty());
    MimeAttachment {
        name,
        content_type: part.content_type.clone(),
        is_inline: content_id.is_some() && !is_attached && kind != MimeKind::Message,
        content_id,
        kind,
        range,
    }
}

fn extension(content_type: &str) -> &str {
    match content_type {
        "text/plain" => "txt",
        "text/html" => "htm",
        "text/calendar" => "ics",
        "image/jpeg" => "jpg",
        "image/png" => "png",
        "image/gif" => "gif",
        "application/pdf" => "pdf",
        _ => "bin",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(mail: &str) -> Vec<(String, bool, String)> {
        let mail = mail.as_bytes();
        attachments(&parse::message(mail))
            .into_iter()
            .map(|found| {
                (found.name.clone(), found.is_inline, String::from_utf8_lossy(&found.bytes(mail)).into_owned())
            })
            .collect()
    }

    #[test]
    fn a_message_in_a_message_is_one_attachment() {
        let mail = "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n\r\ntext\r\n--o\r\nContent-Type: message/rfc822\r\n\r\n\
            Subject: =?utf-8?q?inner=21?=\r\nContent-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\nContent-Type: image/png\r\n\r\nx\r\n--i--\r\n\
            --o--\r\n";
        let found = list(mail);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, "inner!");
        assert!(found[0].2.starts_with("Subject: ") && found[0].2.ends_with("--i--"), "{}", found[0].2);
    }

    #[test]
    fn text_is_an_attachment_only_with_a_name_or_a_disposition() {
        let mail = "Content-Type: multipart/related; boundary=o\n\n--o\n\nbody\n--o\nContent-Type: text/html; name=a.htm\n\n<p>\n\
            --o\nContent-Disposition: ATTACHMENT\n\nplain\n--o\nContent-Type: image/gif\nContent-ID: <1@x>\n\
            Content-Transfer-Encoding: base64\n\nR0lG\n--o--\n";
        let expected = [("a.htm", false, "<p>"), ("ATT00002.txt", false, "plain"), ("ATT00003.gif", true, "GIF")];
        let expected: Vec<_> = expected.map(|(name, inline, bytes)| (name.to_owned(), inline, bytes.to_owned())).into();
        assert_eq!(list(mail), expected);
    }

    #[test]
    fn any_cut_of_a_mail_is_read_without_panic() {
        let mail = "From: \"a\" <a@b>\r\nContent-Type: multipart/mixed; boundary=\"=_?o\"\r\n\r\n--=_?o\r\n\
            Content-Type: application/x; name*0*=utf-8''%e2%82;\r\n name*1*=%ac\r\nContent-Transfer-Encoding: x-uuencode\r\n\r\n\
            begin 644 x\r\n#0V%T\r\n`\r\nend\r\n--=_?o--\r\n";
        for end in 0..=mail.len() {
            list(&mail[..end]);
            list(&mail[end..]);
        }
    }
}
