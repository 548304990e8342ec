//! Content transfer encodings, undone the way that mail programs in the field do it: whatever is broken is decoded as
//! far as it goes, and what cannot be decoded at all is handed out as it stands.
//!
//! The bytes are compared with those of Python's `email` package (`get_payload(decode=True)`), which is the decoder
//! that most people would reach for to check us, so its lenience is the measure for broken input.

use std::borrow::Cow;

/// The decoded bytes of a body with this `Content-Transfer-Encoding`; an unknown encoding leaves them as they are.
pub(crate) fn transfer_encoding<'a>(encoding: &str, body: &'a [u8]) -> Cow<'a, [u8]> {
    match encoding.to_ascii_lowercase().as_str() {
        "base64" => Cow::Owned(base64(body)),
        "quoted-printable" => Cow::Owned(quoted_printable(body)),
        "x-uuencode" | "uuencode" | "uue" | "x-uue" => match uuencoded(body) {
            Some(decoded) => Cow::Owned(decoded),
            None => Cow::Borrowed(body),
        },
        _ => Cow::Borrowed(body),
    }
}

/// Base64 with stray characters skipped and missing padding supplied; text that is no base64 at all comes back without
/// its line ends.
pub(crate) fn base64(body: &[u8]) -> Vec<u8> {
    if let Some(decoded) = base64_quads(body.iter().copied()) {
        return decoded;
    }
    if let Some(decoded) = base64_quads(body.iter().copied().chain(*b"==")) {
        return decoded;
    }
    body.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect()
}

/// Decodes until complete padding or the end; `None` if the data stops in the middle of a quad.
fn base64_quads(characters: impl Iterator<Item = u8>) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(characters.size_hint().0 / 4 * 3 + 3);
    let mut position = 0_u8;
    let mut pads = 0_u8;
    let mut left = 0_u8;
    for character in characters {
        if character == b'=' {
            if position >= 2 {
                pads += 1;
                if position + pads >= 4 {
                    return Some(decoded);
                }
            }
            continue;
        }
        let value = BASE64_VALUES[character as usize];
        if value >= 64 {
            continue;
        }
        pads = 0;
        match position {
            0 => left = value,
            1 => {
                decoded.push(left << 2 | value >> 4);
                left = value & 0x0f;
            }
            2 => {
                decoded.push(left << 4 | value >> 2);
                left = value & 0x03;
            }
            _ => decoded.push(left << 6 | value),
        }
        position = (position + 1) % 4;
    }
    (position == 0).then_some(decoded)
}

const BASE64_VALUES: [u8; 256] = {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut values = [0xff; 256];
    let mut index = 0;
    while index < alphabet.len() {
        values[alphabet[index] as usize] = index as u8;
        index += 1;
    }
    values
};

/// Quoted-printable; an escape that is none stays in the text, and blanks at line ends stay too.
pub(crate) fn quoted_printable(body: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some(equals) = memchr::memchr(b'=', rest) {
        decoded.extend_from_slice(&rest[..equals]);
        rest = &rest[equals + 1..];
        match rest {
            [] => return decoded,
            [b'\n', ..] => rest = &rest[1..],
            [b'\r', ..] => {
                // A soft line break; whatever stands between the CR and the next LF goes with it.
                rest = memchr::memchr(b'\n', rest).map_or(&[], |line_feed| &rest[line_feed + 1..]);
            }
            [b'=', ..] => {
                decoded.push(b'=');
                rest = &rest[1..];
            }
            [high, low, ..] => match (hex_value(*high), hex_value(*low)) {
                (Some(high), Some(low)) => {
                    decoded.push(high << 4 | low);
                    rest = &rest[2..];
                }
                _ => decoded.push(b'='),
            },
            [_] => decoded.push(b'='),
        }
    }
    decoded.extend_from_slice(rest);
    decoded
}

pub(crate) fn hex_value(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

/// The file between `begin <mode> <name>` and `end`, or `None` if there is no such thing in the body.
fn uuencoded(body: &[u8]) -> Option<Vec<u8>> {
    let mut lines = lines(body);
    loop {
        let line = lines.next()?;
        let Some(rest) = line.strip_prefix(b"begin ") else { continue };
        let mode = rest.split(|byte| *byte == b' ').next().unwrap_or_default();
        let mode = mode.trim_ascii();
        if !mode.is_empty() && mode.iter().all(|digit| matches!(digit, b'0'..=b'7')) {
            break;
        }
    }
    let mut decoded = Vec::with_capacity(body.len() / 4 * 3);
    for line in lines {
        if line.is_empty() {
            return None;
        }
        if line.trim_ascii() == b"end" {
            break;
        }
        if !uuencoded_line(line, &mut decoded) {
            // Some encoders count the line wrong: try again with as many characters as the count stands for.
            let count = (line[0].wrapping_sub(32) & 63) as usize;
            let characters = (count * 4 + 5) / 3;
            if !uuencoded_line(&line[..characters.min(line.len())], &mut decoded) {
                return None;
            }
        }
    }
    Some(decoded)
}

/// Appends one line's bytes and tells whether the line was well-formed; if it was not, nothing is appended.
fn uuencoded_line(line: &[u8], decoded: &mut Vec<u8>) -> bool {
    let before = decoded.len();
    let Some((count, mut characters)) = line.split_first() else { return false };
    let mut missing = count.wrapping_sub(b' ') & 63;
    let (mut bits, mut held) = (0_u32, 0_u32);
    while missing > 0 {
        let value = match characters.split_first() {
            // Blanks at the end of a line are eaten by some mail servers.
            None => 0,
            Some((character @ b' '..=b'`', rest)) => {
                characters = rest;
                character.wrapping_sub(b' ') & 63
            }
            Some(_) => {
                decoded.truncate(before);
                return false;
            }
        };
        held = held << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            decoded.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
            missing -= 1;
        }
    }
    let garbage = characters.iter().any(|character| !matches!(character, b' ' | b'`'));
    if garbage {
        decoded.truncate(before);
    }
    !garbage
}

/// Lines without their ends, where LF, CR and CRLF all end a line.
fn lines(mut text: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let Some(end) = memchr::memchr2(b'\n', b'\r', text) else {
            return Some(std::mem::take(&mut text));
        };
        let line = &text[..end];
        let skip = if text[end..].starts_with(b"\r\n") { 2 } else { 1 };
        text = &text[end + skip..];
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_base64_is_decoded_as_far_as_it_goes() {
        assert_eq!(base64(b"SGVs\r\nbG8="), b"Hello");
        assert_eq!(base64(b"SGVsbG8"), b"Hello");
        assert_eq!(base64(b"SG!Vs bG8="), b"Hello");
        assert_eq!(base64(b"SGVsbG8=ignored"), b"Hello");
        assert_eq!(base64(b"SGVsb\r\n"), b"SGVsb", "one character too many cannot be decoded at all");
    }

    #[test]
    fn an_escape_that_is_none_stays_in_the_text() {
        assert_eq!(quoted_printable(b"a=3Db=\r\nc=ZZ =  d=="), b"a=bc=ZZ =  d=");
        assert_eq!(quoted_printable(b"end="), b"end");
    }

    #[test]
    fn uuencoded_files_are_found_between_begin_and_end() {
        let body = b"some text\nbegin 644 cat.txt\n#0V%T\n`\nend\n";
        assert_eq!(transfer_encoding("x-uuencode", body).as_ref(), b"Cat");
        assert_eq!(transfer_encoding("x-uuencode", b"no file").as_ref(), b"no file");
    }
}
