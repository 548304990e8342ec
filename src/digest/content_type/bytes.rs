//! The type that a file's first bytes show.
//!
//! Text is looked at before binary formats: a letter that begins with "BM" is no bitmap. ZIP and OLE containers are
//! opened as far as the first bytes reach, because what is in them is what people ask for. The rest is `infer`'s.
//!
//! Input is hostile: nothing here panics, loops for long, or trusts a length.

use std::borrow::Cow;

use encoding_rs::{UTF_16BE, UTF_16LE};
use memchr::memmem;
use serde::de::IgnoredAny;

use crate::digest::content_type::extension::canonical;
use crate::digest::content_type::{OLE, TEXT, ZIP};

/// The type that the first bytes of a file show; `None` when they show none. `is_whole` tells that there are no more.
pub fn by_bytes(prefix: &[u8], is_whole: bool) -> Option<&'static str> {
    if prefix.is_empty() {
        return None;
    }
    if let Some(text) = unicode_text(prefix, is_whole) {
        return Some(text_type(&text, is_whole));
    }
    // Formats that begin as text and go on in binary.
    let start = prefix.trim_ascii_start();
    if start.starts_with(b"%PDF-") {
        return Some("application/pdf");
    }
    if start.starts_with(br"{\rtf") {
        return Some("application/rtf");
    }
    if start.starts_with(b"%!PS") {
        return Some("application/postscript");
    }
    if prefix.starts_with(b"PK\x03\x04") || prefix.starts_with(b"PK\x05\x06") || prefix.starts_with(b"PK\x07\x08") {
        return Some(zip_type(prefix));
    }
    if prefix.starts_with(b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1") {
        return Some(ole_type(prefix));
    }
    let known = signature(prefix).or_else(|| inferred(prefix));
    // Old one-byte encodings; also Shift JIS, GBK and the like.
    known.or_else(|| is_plain(prefix).then(|| text_type(&String::from_utf8_lossy(prefix), is_whole)))
}

/// The prefix as text, when it is Unicode text: without control characters, and cut at most within its last character.
fn unicode_text(prefix: &[u8], is_whole: bool) -> Option<Cow<'_, str>> {
    let text = match prefix {
        [0xFF, 0xFE, rest @ ..] if !rest.starts_with(&[0, 0]) => utf_16(UTF_16LE, rest, is_whole)?,
        [0xFE, 0xFF, rest @ ..] => utf_16(UTF_16BE, rest, is_whole)?,
        _ => {
            let bytes = prefix.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(prefix);
            match std::str::from_utf8(bytes) {
                Ok(text) => Cow::Borrowed(text),
                Err(error) if error.error_len().is_none() && !is_whole => {
                    Cow::Borrowed(std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()?)
                }
                Err(_) => return None,
            }
        }
    };
    is_plain(text.as_bytes()).then_some(text)
}

fn utf_16<'a>(encoding: &'static encoding_rs::Encoding, bytes: &'a [u8], is_whole: bool) -> Option<Cow<'a, str>> {
    // A cut may go through a surrogate pair, and the half of it is no error.
    let even = bytes.len() & !1;
    let is_high = |unit: &[u8]| matches!(unit[usize::from(encoding == UTF_16LE)], 0xD8..=0xDB);
    let end = if !is_whole && even >= 2 && is_high(&bytes[even - 2..even]) { even - 2 } else { even };
    encoding.decode_without_bom_handling_and_without_replacement(&bytes[..end])
}

/// Free of the control characters that no text has. Line ends, tabs, form feeds and terminal colours are fine.
fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| !matches!(byte, 0..=8 | 11 | 14..=26 | 28..=31 | 127))
}

/// Which text it is.
fn text_type(text: &str, is_whole: bool) -> &'static str {
    let start = text.trim_start();
    let begins =
        |what: &str| start.as_bytes().get(..what.len()).is_some_and(|s| s.eq_ignore_ascii_case(what.as_bytes()));
    if let Some(line) = text.strip_prefix("#!") {
        return script_type(line.lines().next().unwrap_or_default());
    }
    match start.as_bytes().first() {
        Some(b'<') => return markup_type(start),
        Some(b'{') if begins(r"{\rtf") => return "application/rtf",
        Some(b'{' | b'[') => return json_type(start, is_whole).unwrap_or(TEXT),
        _ => {}
    }
    const BEGINNINGS: [(&str, &str); 10] = [
        ("%PDF-", "application/pdf"),
        ("%!PS", "application/postscript"),
        ("BEGIN:VCALENDAR", "text/calendar"),
        ("BEGIN:VCARD", "text/vcard"),
        ("-----BEGIN PGP MESSAGE", "application/pgp-encrypted"),
        ("-----BEGIN PGP PUBLIC KEY", "application/pgp-keys"),
        ("-----BEGIN PGP SIGNATURE", "application/pgp-signature"),
        ("-----BEGIN ", "application/x-pem-file"),
        ("@echo off", "application/x-bat"),
        ("# Disk DescriptorFile", "application/x-vmdk"),
    ];
    if let Some((_, mime_type)) = BEGINNINGS.iter().find(|(beginning, _)| begins(beginning)) {
        return mime_type;
    }
    if begins("diff --git ") {
        return "text/x-diff";
    }
    mail_type(text).unwrap_or(TEXT)
}

/// Which script it is, by the first line after `#!`.
fn script_type(line: &str) -> &'static str {
    let words = line.split_whitespace().map(|word| word.rsplit('/').next().unwrap_or(word));
    let interpreter = words.into_iter().find(|word| *word != "env" && !word.starts_with('-') && !word.contains('='));
    let interpreter = interpreter.unwrap_or_default();
    let name = interpreter.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    match name {
        "sh" | "bash" | "dash" | "zsh" | "ksh" | "ash" => "text/x-shellscript",
        "python" | "pypy" | "uv" => "text/x-python",
        "perl" => "text/x-perl",
        "ruby" => "text/x-ruby",
        "php" => "text/x-php",
        "node" | "nodejs" | "deno" | "bun" => "text/javascript",
        "pwsh" | "powershell" => "text/x-powershell",
        "lua" => "text/x-lua",
        "tclsh" | "wish" | "expect" => "text/x-tcl",
        "osascript" => "text/x-applescript",
        _ => "text/x-script",
    }
}

/// Tags with which pages and fragments of pages begin.
const HTML_TAGS: [&str; 21] = [
    "head", "body", "script", "iframe", "div", "span", "table", "style", "title", "meta", "font", "form", "link", "h1",
    "h2", "p", "br", "b", "a", "center", "img",
];

fn markup_type(text: &str) -> &'static str {
    if starts_with_word(text, "<?php") || text.starts_with("<?=") {
        return "text/x-php";
    }
    let is_xml = starts_with_word(text, "<?xml");
    let root = after_prolog(text);
    let name = root.strip_prefix('<').unwrap_or_default();
    let name = name.split(|c: char| !(c.is_alphanumeric() || ":_-.".contains(c))).next().unwrap_or_default();
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "svg" | "svg:svg" => "image/svg+xml",
        "html" => "text/html",
        name if !is_xml && HTML_TAGS.contains(&name) => "text/html",
        _ if after_comments(text).get(..14).is_some_and(|s| s.eq_ignore_ascii_case("<!doctype html")) => "text/html",
        _ if is_xml => "text/xml",
        _ => TEXT,
    }
}

/// What follows declarations, doctypes and comments, which is the first element.
fn after_prolog(mut text: &str) -> &str {
    loop {
        text = after_comments(text);
        let end = match text.as_bytes() {
            [b'<', b'?', ..] => text.find("?>").map(|end| end + 2),
            // A doctype may hold declarations in brackets.
            [b'<', b'!', ..] => match (text.find('>'), text.find('[')) {
                (Some(end), Some(bracket)) if bracket < end => text.find("]>").map(|end| end + 2),
                (end, _) => end.map(|end| end + 1),
            },
            _ => return text,
        };
        let Some(end) = end else { return "" };
        text = &text[end..];
    }
}

fn after_comments(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        match text.strip_prefix("<!--").map(|comment| comment.split_once("-->")) {
            Some(Some((_, rest))) => text = rest,
            Some(None) => return "",
            None => return text,
        }
    }
}

fn starts_with_word(text: &str, word: &str) -> bool {
    let begins = text.as_bytes().get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()));
    begins && !text.as_bytes().get(word.len()).is_some_and(u8::is_ascii_alphanumeric)
}

/// JSON when it can be read as such as far as it goes; several values one after the other are lines of JSON.
fn json_type(text: &str, is_whole: bool) -> Option<&'static str> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let mut count = 0;
    loop {
        match values.next() {
            Some(Ok(_)) => count += 1,
            Some(Err(error)) if error.is_eof() && !is_whole => break,
            Some(Err(_)) => return None,
            None => break,
        }
    }
    // A section of an .ini file, `[1]`, is JSON, too, but what follows it is not.
    Some(if count > 1 { "application/x-ndjson" } else { "application/json" })
}

/// Lines of a header that are read: enough for the longest chain of `Received` that the first bytes can hold.
const HEADER_LINES: usize = 200;

/// An e-mail, when everything up to the first blank line looks like an e-mail's header and names who, when or what. Web
/// pages in one file have such a header, too, but nobody wrote them to anybody.
fn mail_type(text: &str) -> Option<&'static str> {
    const TELLING: [&str; 7] = ["received", "from", "to", "date", "message-id", "return-path", "delivered-to"];
    let is_mailbox = text.starts_with("From ") && text.lines().next().is_some_and(|line| line.contains(':'));
    let (mut telling, mut has_version, mut is_related, mut is_page) = (0, false, false, false);
    for (number, line) in text.lines().enumerate().take(HEADER_LINES) {
        if line.trim().is_empty() {
            break;
        }
        let is_continued = number > 0 && line.starts_with([' ', '\t']);
        if is_continued || number == 0 && is_mailbox {
            continue;
        }
        let Some((name, value)) = line.split_once(':') else {
            // The last line may be cut; any other must be a header.
            if number > 0 && text.ends_with(line) { break } else { return None }
        };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let (name, value) = (name.to_ascii_lowercase(), value.trim_start());
        telling += usize::from(TELLING.contains(&name.as_str()));
        has_version |= name == "mime-version";
        is_related |= name == "content-type" && value.to_ascii_lowercase().starts_with("multipart/related");
        is_page |= name == "snapshot-content-location" || name == "from" && value.starts_with("<Saved by ");
    }
    if has_version && (is_page || is_related && telling == 0) {
        Some("multipart/related")
    } else if telling + usize::from(has_version) < 2 {
        None
    } else if is_mailbox {
        Some("application/mbox")
    } else {
        Some("message/rfc822")
    }
}

/// What a ZIP file holds, as far as its first entries tell.
fn zip_type(prefix: &[u8]) -> &'static str {
    let mut is_office = false;
    for (index, entry) in ZipEntries(prefix).enumerate() {
        let name = entry.name;
        if index == 0 && name == b"mimetype" {
            return declared_type(entry.stored);
        }
        is_office |= name == b"[Content_Types].xml" || name.starts_with(b"_rels/") || name.starts_with(b"docProps/");
        let found = match name {
            b"AndroidManifest.xml" => Some("application/vnd.android.package-archive"),
            b"META-INF/MANIFEST.MF" | b"META-INF/" => Some("application/java-archive"),
            b"doc.kml" => Some("application/vnd.google-earth.kmz"),
            b"FixedDocSeq.fdseq" | b"FixedDocumentSequence.fdseq" => Some("application/vnd.ms-xpsdocument"),
            _ if name.starts_with(b"Documents/1/") => Some("application/vnd.ms-xpsdocument"),
            // The same folders may be in any ZIP file. In an Office file they come after its lists, or, in what Google
            // exports, hold XML from the first entry on.
            _ if !is_office && !name.ends_with(b".xml") && !name.ends_with(b".rels") => None,
            _ if name.starts_with(b"word/") => {
                Some("application/vnd.openxmlformats-officedocument.wordprocessingml.document")
            }
            _ if name.starts_with(b"xl/") => Some("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
            _ if name.starts_with(b"ppt/") => {
                Some("application/vnd.openxmlformats-officedocument.presentationml.presentation")
            }
            _ if name.starts_with(b"visio/") => Some("application/vnd.ms-visio.drawing"),
            _ => None,
        };
        if let Some(found) = found {
            return found;
        }
    }
    ZIP
}

/// The type that OpenDocument and EPUB files declare in their first entry.
fn declared_type(declared: &[u8]) -> &'static str {
    const DECLARED: [&str; 10] = [
        "application/vnd.oasis.opendocument.text-template",
        "application/vnd.oasis.opendocument.text",
        "application/vnd.oasis.opendocument.spreadsheet-template",
        "application/vnd.oasis.opendocument.spreadsheet",
        "application/vnd.oasis.opendocument.presentation-template",
        "application/vnd.oasis.opendocument.presentation",
        "application/vnd.oasis.opendocument.graphics",
        "application/epub+zip",
        "image/openraster",
        "application/vnd.sun.xml.writer",
    ];
    DECLARED.into_iter().find(|known| declared.starts_with(known.as_bytes())).unwrap_or(ZIP)
}

/// The entries of a ZIP file whose headers lie in the first bytes.
struct ZipEntries<'a>(&'a [u8]);

struct ZipEntry<'a> {
    name: &'a [u8],
    /// The entry's bytes as they are in the file, as far as they are there.
    stored: &'a [u8],
}

impl<'a> Iterator for ZipEntries<'a> {
    type Item = ZipEntry<'a>;

    fn next(&mut self) -> Option<ZipEntry<'a>> {
        const SIGNATURE: &[u8] = b"PK\x03\x04";
        let header = self.0;
        if !header.starts_with(SIGNATURE) {
            return None;
        }
        let short = |at: usize| header.get(at..at + 2).map(|b| usize::from(u16::from_le_bytes([b[0], b[1]])));
        let (flags, method, name, extra) = (short(6)?, short(8)?, short(26)?, short(28)?);
        let size = short(18)? | short(20)? << 16;
        let name_bytes = header.get(30..30 + name)?;
        let stored = header.get(30 + name + extra..).unwrap_or_default();
        // With bit 3 the size follows the bytes; their end is then the next header, unless the bytes are stored as they
        // are and may themselves be a ZIP file.
        let next = match (flags & 8 != 0 && size == 0, method) {
            (false, _) => stored.get(size..),
            (true, 0) => None,
            (true, _) => memmem::find(stored, SIGNATURE).map(|next| &stored[next..]),
        };
        self.0 = next.unwrap_or_default();
        let stored = if size > 0 { stored.get(..size).unwrap_or(stored) } else { stored };
        Some(ZipEntry { name: name_bytes, stored })
    }
}

/// What an OLE compound file holds, when its directory lies in the first bytes; often it does not.
fn ole_type(prefix: &[u8]) -> &'static str {
    const MSI_CLASS: [u8; 16] = [0x84, 0x10, 0x0C, 0, 0, 0, 0, 0, 0xC0, 0, 0, 0, 0, 0, 0, 0x46];
    // Directory entries are 128 bytes each and aligned; a name is UTF-16 with its length in bytes at 64.
    for entry in prefix.get(512..).unwrap_or_default().chunks_exact(128) {
        let length = usize::from(u16::from_le_bytes([entry[64], entry[65]]));
        let kind = entry[66];
        if !(4..=64).contains(&length) || !matches!(kind, 1 | 2 | 5) {
            continue;
        }
        let name: String =
            entry[..length - 2].chunks_exact(2).map(|c| if c[1] == 0 { char::from(c[0]) } else { '?' }).collect();
        match name.as_str() {
            "WordDocument" => return "application/msword",
            "Workbook" | "Book" => return "application/vnd.ms-excel",
            "PowerPoint Document" => return "application/vnd.ms-powerpoint",
            "VisioDocument" => return "application/vnd.visio",
            "Root Entry" if entry[80..96] == MSI_CLASS => return "application/x-msi",
            _ if name.starts_with("__substg1.0_")
                || name == "__properties_version1.0"
                || name == "__nameid_version1.0" =>
            {
                return "application/vnd.ms-outlook";
            }
            _ => {}
        }
    }
    // Among others, an encrypted file of the new Office formats: which one, only its name can tell.
    OLE
}

/// Formats that `infer` does not know.
fn signature(prefix: &[u8]) -> Option<&'static str> {
    const SIGNATURES: [(&[u8], &str); 16] = [
        (b"\x78\x9F\x3E\x22", "application/vnd.ms-tnef"),
        (b"!BDN", "application/vnd.ms-outlook-pst"),
        (b"L\0\0\0\x01\x14\x02\0", "application/x-ms-shortcut"),
        (b"ITSF\x03\0", "application/vnd.ms-htmlhelp"),
        (b"\xE4\x52\x5C\x7B\x8C\xD8\xA7\x4D", "application/onenote"),
        (b"\0\x01\0\0Standard Jet DB", "application/vnd.ms-access"),
        (b"\0\x01\0\0Standard ACE DB", "application/vnd.ms-access"),
        (b"vhdxfile", "application/x-vhdx"),
        (b"conectix", "application/x-vhd"),
        (b"KDMV", "application/x-vmdk"),
        (b"<<< Oracle VM VirtualBox Disk Image >>>", "application/x-virtualbox-vdi"),
        (b"MSWIM\0\0\0", "application/x-ms-wim"),
        (b"xar!", "application/x-xar"),
        (b"PAR1", "application/vnd.apache.parquet"),
        (b"**ACE**", "application/x-ace-compressed"),
        (b"PK00PK\x03\x04", ZIP),
    ];
    if let Some((_, mime_type)) = SIGNATURES.iter().find(|(signature, _)| prefix.starts_with(signature)) {
        return Some(mime_type);
    }
    match prefix {
        // Python's compiled modules: a version, CR LF, flags.
        [_, 0x0C..=0x0F, b'\r', b'\n', 0..=3, 0, 0, 0, ..] => Some("application/x-python-code"),
        // DER: signed or encrypted mail. Everything else that begins like that is left to its name.
        [0x30, 0x80..=0x84, ..] => {
            let start = &prefix[..prefix.len().min(32)];
            let is_pkcs7 = memmem::find(start, b"\x2A\x86\x48\x86\xF7\x0D\x01\x07")
                .is_some_and(|at| matches!(start.get(at + 8), Some(2 | 3)));
            is_pkcs7.then_some("application/pkcs7-mime")
        }
        _ => None,
    }
}

/// What `infer` says, where it has looked at enough bytes to be believed.
fn inferred(prefix: &[u8]) -> Option<&'static str> {
    let found = infer::get(prefix)?;
    let is_believed = match found.extension() {
        // Two bytes that many files begin with.
        "bc" | "obj" | "der" | "pem" | "ps" | "eot" => false,
        "exe" | "dll" => prefix.len() >= 64 && prefix[..64].contains(&0),
        // The reserved bytes of a bitmap's header.
        "bmp" => prefix.get(6..10) == Some(&[0; 4]),
        _ => true,
    };
    is_believed.then(|| match (found.extension(), found.mime_type()) {
        ("sh", _) => "text/x-script",
        (_, mime_type) => canonical(mime_type),
    })
}
