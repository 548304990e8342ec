//! Header fields: finding them, their parameters (RFC 2045, RFC 2231) and their text (RFC 2047), in the charsets that
//! mail really uses.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};

use super::decode;

/// The header fields of one part, in their order.
#[derive(Debug, Default)]
pub(crate) struct Headers {
    /// Lower-case name and value as it stands in the file, folds included.
    fields: Vec<(String, Vec<u8>)>,
}

impl Headers {
    /// Joins continuation lines to fields. Lines without a name are dropped.
    pub(super) fn from_lines(lines: &[&[u8]]) -> Self {
        let mut fields: Vec<(String, Vec<u8>)> = Vec::new();
        let mut in_field = false;
        for line in lines {
            if matches!(line[0], b' ' | b'\t') {
                if let (true, Some((_, value))) = (in_field, fields.last_mut()) {
                    value.extend_from_slice(line);
                }
                continue;
            }
            in_field = false;
            // The envelope line of an mbox file has no colon after its first word.
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            if colon == 0 || line.starts_with(b"From ") {
                continue;
            }
            let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
            let value = line[colon + 1..].iter().position(|byte| !matches!(byte, b' ' | b'\t'));
            let value = value.map_or(&[][..], |start| &line[colon + 1 + start..]);
            fields.push((name, value.to_vec()));
            in_field = true;
        }
        for (_, value) in &mut fields {
            while matches!(value.last(), Some(b'\r' | b'\n')) {
                value.pop();
            }
        }
        Self { fields }
    }

    /// The first field of this (lower-case) name, as it stands in the file.
    pub(crate) fn raw(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_slice())
    }

    /// All fields of this (lower-case) name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_slice())
    }

    /// The first field of this name as text: unfolded, encoded words decoded.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.raw(name).map(decode_words)
    }

    /// `Content-Transfer-Encoding`, as it stands.
    pub(crate) fn transfer_encoding(&self) -> String {
        self.raw("content-transfer-encoding")
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .unwrap_or_default()
    }

    /// `attachment`, `inline`, or whatever else stands there, in lower case.
    pub(crate) fn disposition(&self) -> Option<String> {
        let value = String::from_utf8_lossy(self.raw("content-disposition")?).into_owned();
        Some(value.split(';').next().unwrap_or_default().trim().to_lowercase())
    }

    /// `type/subtype` in lower case; what is broken counts as `text/plain` (RFC 2045, 5.2).
    pub(super) fn content_type(&self, default_type: &str) -> String {
        let Some(value) = self.raw("content-type") else { return default_type.to_owned() };
        let value = String::from_utf8_lossy(value).into_owned();
        let content_type = value.split(';').next().unwrap_or_default().trim().to_lowercase();
        if content_type.matches('/').count() == 1 { content_type } else { "text/plain".to_owned() }
    }

    pub(super) fn boundary(&self) -> Option<String> {
        let boundary = self.parameter("content-type", "boundary")?;
        // Boundaries in angle brackets or in doubled quotes are stripped once more, as others do.
        Some(unquote(&boundary).trim_end().to_owned())
    }

    /// The file's name: `filename` of the disposition, else `name` of the type.
    pub(crate) fn file_name(&self) -> Option<String> {
        let name =
            self.parameter("content-disposition", "filename").or_else(|| self.parameter("content-type", "name"))?;
        Some(name.trim().to_owned())
    }

    /// A parameter of a structured field, whatever form it has: quoted or not, continued (`name*0`), with a charset
    /// (`name*`), or as encoded words, which no standard allows here and many programs write.
    pub(crate) fn parameter(&self, field: &str, name: &str) -> Option<String> {
        let value = self.raw(field)?;
        let mut continued: Vec<(u32, bool, Vec<u8>)> = Vec::new();
        for (parameter, value) in parameters(value).into_iter().skip(1) {
            if parameter == name {
                return Some(decode_words(&value));
            }
            let Some(rest) = parameter.strip_prefix(name).and_then(|rest| rest.strip_prefix('*')) else { continue };
            let (number, is_encoded) = match rest.strip_suffix('*') {
                Some(number) => (number, true),
                None => (rest, rest.is_empty()),
            };
            if number.is_empty() {
                continued.push((0, is_encoded, value));
            } else if let Ok(number) = number.parse() {
                continued.push((number, is_encoded, value));
            }
        }
        if continued.is_empty() {
            return None;
        }
        continued.sort_by_key(|(number, ..)| *number);
        Some(decode_continued(&continued))
    }
}

/// Puts the segments of RFC 2231 together; the charset stands at the head of the first one.
fn decode_continued(segments: &[(u32, bool, Vec<u8>)]) -> String {
    let mut bytes = Vec::new();
    let mut charset = None;
    for (index, (_, is_encoded, value)) in segments.iter().enumerate() {
        let mut value = value.as_slice();
        if *is_encoded && index == 0 {
            let mut pieces = value.splitn(3, |byte| *byte == b'\'');
            if let (Some(name), Some(_), Some(rest)) = (pieces.next(), pieces.next(), pieces.next()) {
                charset = Some(name);
                value = rest;
            }
        }
        if *is_encoded {
            bytes.extend(percent_encoding::percent_decode(value));
        } else {
            bytes.extend_from_slice(value);
        }
    }
    match charset.filter(|name| !name.is_empty()).and_then(encoding) {
        Some(encoding) => encoding.decode_without_bom_handling(&bytes).0.into_owned(),
        // No charset: perhaps encoded words, cut into segments.
        None => decode_words(&bytes),
    }
}

/// Splits at `;` outside of quotes, the first piece being the value itself.
fn parameters(value: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut pieces = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (index, byte) in value.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => {
                pieces.push(&value[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    pieces.push(&value[start..]);
    let split = |piece: &[u8]| match memchr::memchr(b'=', piece) {
        None => (String::from_utf8_lossy(piece.trim_ascii()).to_lowercase(), Vec::new()),
        Some(equals) => {
            let name = String::from_utf8_lossy(piece[..equals].trim_ascii()).to_lowercase();
            (name, unquote_bytes(piece[equals + 1..].trim_ascii()))
        }
    };
    pieces.into_iter().map(split).collect()
}

fn unquote_bytes(value: &[u8]) -> Vec<u8> {
    if let Some(inner) = value.strip_prefix(b"\"") {
        let inner = inner.strip_suffix(b"\"").unwrap_or(inner);
        let mut plain = Vec::with_capacity(inner.len());
        let mut bytes = inner.iter();
        while let Some(byte) = bytes.next() {
            match byte {
                // Only quotes and backslashes are escaped in practice; Windows paths come unescaped.
                b'\\' => match bytes.clone().next() {
                    Some(next @ (b'"' | b'\\')) => {
                        plain.push(*next);
                        bytes.next();
                    }
                    _ => plain.push(b'\\'),
                },
                byte => plain.push(*byte),
            }
        }
        return plain;
    }
    match value.strip_prefix(b"<").and_then(|inner| inner.strip_suffix(b">")) {
        Some(inner) => inner.to_vec(),
        None => value.to_vec(),
    }
}

fn unquote(value: &str) -> Cow<'_, str> {
    let strip = |open: char, close: char| value.strip_prefix(open).and_then(|inner| inner.strip_suffix(close));
    Cow::Borrowed(strip('"', '"').or_else(|| strip('<', '>')).unwrap_or(value))
}

/// The encoding that mail means by a charset's name.
fn encoding(name: &[u8]) -> Option<&'static Encoding> {
    // RFC 2231 allows a language after the charset of an encoded word: `utf-8*en`.
    let name = name.split(|byte| *byte == b'*').next().unwrap_or_default();
    Encoding::for_label_no_replacement(name).or_else(|| match name.to_ascii_lowercase().as_slice() {
        b"cp932" | b"ms932" => Encoding::for_label(b"shift_jis"),
        b"cp936" => Encoding::for_label(b"gbk"),
        b"cp949" => Encoding::for_label(b"euc-kr"),
        b"cp950" => Encoding::for_label(b"big5"),
        b"utf8mb4" | b"unknown-8bit" => Some(UTF_8),
        name if name.starts_with(b"iso-2022-jp") => Encoding::for_label(b"iso-2022-jp"),
        name if name.starts_with(b"cp125") => {
            Encoding::for_label(&[b"windows-", name.strip_prefix(b"cp").unwrap_or_default()].concat())
        }
        _ => None,
    })
}

/// Text that should be ASCII and is not: UTF-8 if it can be (RFC 6532), else what Western mailers used to write.
pub(crate) fn decode_unlabelled(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned(),
    }
}

/// Unfolds a field and decodes its encoded words (RFC 2047), also where they stand inside of other text.
pub(crate) fn decode_words(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    // Bytes of neighbouring words in one charset are joined before decoding: long names are cut within characters.
    let mut word: Option<(&'static Encoding, Vec<u8>)> = None;
    while !rest.is_empty() {
        match encoded_word(rest) {
            Some((encoding, bytes, length)) => {
                match &mut word {
                    Some((current, held)) if *current == encoding => held.extend_from_slice(&bytes),
                    _ => {
                        flush(&mut word, &mut text);
                        word = Some((encoding, bytes));
                    }
                }
                rest = &rest[length..];
                // White space between two encoded words is not part of the text (RFC 2047, 6.2).
                let blanks = rest.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(rest.len());
                if encoded_word(&rest[blanks..]).is_some() {
                    rest = &rest[blanks..];
                }
            }
            None => {
                flush(&mut word, &mut text);
                let next = memchr::memmem::find(&rest[1..], b"=?").map_or(rest.len(), |index| index + 1);
                text.push_str(&decode_unlabelled(&rest[..next]));
                rest = &rest[next..];
            }
        }
    }
    flush(&mut word, &mut text);
    unfold(&text)
}

fn flush(word: &mut Option<(&'static Encoding, Vec<u8>)>, text: &mut String) {
    if let Some((encoding, bytes)) = word.take() {
        text.push_str(&encoding.decode_without_bom_handling(&bytes).0);
    }
}

/// The encoded word that the text begins with: its encoding, its bytes and its length.
fn encoded_word(text: &[u8]) -> Option<(&'static Encoding, Vec<u8>, usize)> {
    let inner = text.strip_prefix(b"=?")?;
    let charset_end = memchr::memchr(b'?', inner)?;
    let (charset, rest) = (&inner[..charset_end], &inner[charset_end + 1..]);
    if charset.is_empty() || charset.len() > 40 || charset.iter().any(u8::is_ascii_whitespace) {
        return None;
    }
    let (kind, rest) = (rest.first()?, rest.get(1..)?.strip_prefix(b"?")?);
    let end = memchr::memmem::find(rest, b"?=")?;
    let payload = &rest[..end];
    let bytes = match kind {
        b'b' | b'B' => decode::base64(payload),
        b'q' | b'Q' => {
            let payload: Vec<u8> = payload.iter().map(|byte| if *byte == b'_' { b' ' } else { *byte }).collect();
            decode::quoted_printable(&payload)
        }
        _ => return None,
    };
    let length = text.len() - rest.len() + end + 2;
    Some((encoding(charset).unwrap_or(WINDOWS_1252), bytes, length))
}

/// Line ends of folded fields go; the blanks after them stay, as one blank in place of a tab.
fn unfold(text: &str) -> String {
    if !text.contains(['\r', '\n', '\t', '\0']) {
        return text.to_owned();
    }
    text.chars()
        .filter(|character| !matches!(character, '\r' | '\n' | '\0'))
        .map(|character| if character == '\t' { ' ' } else { character })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_name(lines: &[&str]) -> Option<String> {
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        Headers::from_lines(&lines).file_name()
    }

    #[test]
    fn file_names_come_in_every_form() {
        let quoted = ["Content-Disposition: attachment; filename=\"a;b \\\"c\\\".txt\"\r\n"];
        assert_eq!(file_name(&quoted).as_deref(), Some("a;b \"c\".txt"));
        let continued = [
            "Content-Disposition: attachment;\r\n",
            " filename*0*=iso-8859-1'en'caf%E9;\r\n",
            " filename*1=\" one.txt\"\r\n",
        ];
        assert_eq!(file_name(&continued).as_deref(), Some("café one.txt"));
        let words =
            ["Content-Type: image/png;\r\n", "\tname=\"=?UTF-8?B?44OG44K5?=\r\n", " =?UTF-8?B?44OILnBuZw==?=\"\r\n"];
        assert_eq!(file_name(&words).as_deref(), Some("テスト.png"));
        let simple = ["Content-Disposition: attachment; filename*=UTF-8''%e2%82%ac.txt\n"];
        assert_eq!(file_name(&simple).as_deref(), Some("€.txt"));
        let open_quote = ["Content-Type: text/x; name=\"never closed\r\n"];
        assert_eq!(file_name(&open_quote).as_deref(), Some("never closed"));
        assert_eq!(file_name(&["Content-Type: text/plain\r\n"]), None);
    }

    #[test]
    fn text_without_a_charset_is_read_as_well_as_possible() {
        assert_eq!(decode_words("Grüße".as_bytes()), "Grüße");
        assert_eq!(decode_words(b"Gr\xfc\xdfe"), "Grüße");
        assert_eq!(decode_words(b"=?iso-8859-1?Q?a_b=FC?= and =?utf-9?q?x?="), "a bü and x");
        assert_eq!(decode_words(b"=?broken"), "=?broken");
    }
}
