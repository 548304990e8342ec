//! The structure of a MIME message as ranges of its bytes: which parts there are, and where each body begins and ends.
//!
//! Real mail is malformed in every way, and two parsers rarely agree on what the parts of a broken message are. This
//! one follows the reading of Python's `email` package: outer boundaries end inner parts, the line end before a
//! boundary belongs to the boundary, a line that cannot be a header begins the body, a multipart whose boundary never
//! comes is text.

use std::ops::Range;

use super::headers::Headers;

/// Deeper nesting than this is read as an opaque body; hostile mail nests for ever.
const DEPTH_MAX: usize = 100;

/// One entity of a message: its headers and what its body consists of.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) headers: Headers,
    /// `type/subtype` in lower case, after the defaults for missing and broken headers.
    pub(crate) content_type: String,
    pub(crate) body: Body,
}

/// What follows the headers of a part.
#[derive(Debug)]
pub(crate) enum Body {
    /// Bytes in their transfer encoding.
    Leaf(Range<usize>),
    /// The parts of a multipart.
    Parts(Vec<Part>),
    /// A message of its own, and the bytes that it takes.
    Message(Range<usize>, Box<Part>),
}

/// Reads a whole message; never fails, as everything can be read as some message.
pub(crate) fn message(data: &[u8]) -> Part {
    let mut parser = Parser { data, position: 0, boundaries: Vec::new(), depth: 0 };
    parser.part("text/plain")
}

struct Parser<'a> {
    data: &'a [u8],
    position: usize,
    /// The separators (with their leading `--`) of all multiparts that we are inside of, outermost first.
    boundaries: Vec<Vec<u8>>,
    depth: usize,
}

impl<'a> Parser<'a> {
    /// The next line with its end, or `None` at the end of the data or at a boundary of any multipart around us.
    fn peek(&self) -> Option<&'a [u8]> {
        let rest = &self.data[self.position..];
        if rest.is_empty() {
            return None;
        }
        let end = match memchr::memchr2(b'\n', b'\r', rest) {
            None => rest.len(),
            Some(end) if rest[end..].starts_with(b"\r\n") => end + 2,
            Some(end) => end + 1,
        };
        let line = &rest[..end];
        if line.starts_with(b"--") && self.boundaries.iter().any(|boundary| separates(line, boundary).is_some()) {
            return None;
        }
        Some(line)
    }

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.peek()?;
        self.position += line.len();
        Some(line)
    }

    /// Takes all lines up to the end, and gives their range.
    fn rest(&mut self) -> Range<usize> {
        let start = self.position;
        while self.next().is_some() {}
        start..self.position
    }

    fn part(&mut self, default_type: &str) -> Part {
        let headers = self.headers();
        let content_type = headers.content_type(default_type);
        self.depth += 1;
        let body = match content_type.split('/').next().unwrap_or_default() {
            _ if self.depth > DEPTH_MAX => Body::Leaf(self.rest()),
            // A delivery status is a list of header blocks, not a message.
            "message" if content_type == "message/delivery-status" => Body::Leaf(self.rest()),
            "message" => {
                let start = self.position;
                let inner = self.part("text/plain");
                Body::Message(start..self.position, Box::new(inner))
            }
            "multipart" => match headers.boundary() {
                None => Body::Leaf(self.rest()),
                Some(boundary) => {
                    let digest = content_type == "multipart/digest";
                    self.multipart(&boundary, if digest { "message/rfc822" } else { "text/plain" })
                }
            },
            _ => Body::Leaf(self.rest()),
        };
        self.depth -= 1;
        Part { headers, content_type, body }
    }

    fn headers(&mut self) -> Headers {
        let mut lines: Vec<&[u8]> = Vec::new();
        while let Some(line) = self.peek() {
            if !is_header_line(line) {
                if matches!(line[0], b'\r' | b'\n') {
                    self.position += line.len();
                }
                break;
            }
            self.position += line.len();
            lines.push(line);
        }
        Headers::from_lines(&lines)
    }

    fn multipart(&mut self, boundary: &str, default_type: &str) -> Body {
        let start = self.position;
        let separator = [b"--", boundary.as_bytes()].concat();
        let mut parts: Vec<Part> = Vec::new();
        let mut in_preamble = true;
        while let Some(line) = self.peek() {
            match separates(line, &separator) {
                None => {
                    // Only the preamble is read here: parts end at separators.
                    self.position += line.len();
                }
                Some(Separator::End) => {
                    self.position += line.len();
                    if in_preamble {
                        // A close without an opening: all of it is text, and the rest is dropped.
                        let body = start..self.position - line.len();
                        self.rest();
                        return Body::Leaf(body);
                    }
                    self.rest();
                    return Body::Parts(parts);
                }
                Some(Separator::Between) => {
                    in_preamble = false;
                    self.position += line.len();
                    // Separators in a row hold no empty parts between them.
                    while let Some(line) = self.peek() {
                        if separates(line, &separator).is_none() {
                            break;
                        }
                        self.position += line.len();
                    }
                    self.boundaries.push(separator.clone());
                    let mut part = self.part(default_type);
                    self.boundaries.pop();
                    give_back_line_end(&mut part, self.data);
                    parts.push(part);
                }
            }
        }
        if in_preamble { Body::Leaf(start..self.position) } else { Body::Parts(parts) }
    }
}

/// The line end before a separator belongs to the separator (RFC 2046, 5.1.1).
fn give_back_line_end(part: &mut Part, data: &[u8]) {
    let shorten = |range: &mut Range<usize>| {
        let body = &data[range.clone()];
        let line_end =
            if body.ends_with(b"\r\n") { 2 } else { usize::from(body.ends_with(b"\n") || body.ends_with(b"\r")) };
        range.end -= line_end;
    };
    match &mut part.body {
        Body::Leaf(range) => shorten(range),
        Body::Message(range, inner) => {
            shorten(range);
            give_back_line_end(inner, data);
        }
        Body::Parts(_) => {}
    }
}

enum Separator {
    Between,
    End,
}

/// Whether a line is this separator: the boundary, perhaps `--`, perhaps blanks, and nothing else.
fn separates(line: &[u8], separator: &[u8]) -> Option<Separator> {
    let rest = line.strip_prefix(separator)?;
    let (rest, kind) = match rest.strip_prefix(b"--") {
        Some(rest) => (rest, Separator::End),
        None => (rest, Separator::Between),
    };
    let end = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(rest.len());
    matches!(&rest[end..], b"" | b"\n" | b"\r" | b"\r\n").then_some(kind)
}

/// Whether a line can belong to the headers: `Name:`, a continuation, or the envelope line of an mbox file.
fn is_header_line(line: &[u8]) -> bool {
    if matches!(line[0], b' ' | b'\t') || line.starts_with(b"From ") {
        return true;
    }
    match line.iter().position(|byte| !matches!(byte, b'!'..=b'9' | b';'..=b'~')) {
        Some(end) => line[end] == b':',
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(part: &Part, data: &[u8]) -> String {
        match &part.body {
            Body::Leaf(range) => format!("{}={:?}", part.content_type, String::from_utf8_lossy(&data[range.clone()])),
            Body::Parts(parts) => {
                let parts: Vec<_> = parts.iter().map(|part| shape(part, data)).collect();
                format!("{}[{}]", part.content_type, parts.join(", "))
            }
            Body::Message(_, inner) => format!("{}({})", part.content_type, shape(inner, data)),
        }
    }

    #[test]
    fn outer_boundaries_end_inner_parts() {
        let data = b"Content-Type: multipart/mixed; boundary=a\n\nhello\n--a\nContent-Type: multipart/mixed; boundary=\"b c\"\n\n\
            --b c\nContent-Type: image/png\n\nxyz\n--a\n\nlast\r\n--a--\nepilogue\n";
        assert_eq!(
            shape(&message(data), data),
            r#"multipart/mixed[multipart/mixed[image/png="xyz"], text/plain="last"]"#
        );
    }

    #[test]
    fn a_multipart_whose_boundary_never_comes_is_text() {
        let data = b"Content-Type: multipart/mixed; boundary=a\n\n--b\n\nx\n--b--\n";
        assert_eq!(shape(&message(data), data), r#"multipart/mixed="--b\n\nx\n--b--\n""#);
    }

    #[test]
    fn hostile_nesting_does_not_overflow_the_stack() {
        let data = b"Content-Type: message/rfc822\n\n".repeat(100_000);
        message(&data);
        let mut data = Vec::new();
        for depth in 0..20_000 {
            data.extend_from_slice(
                format!("Content-Type: multipart/mixed; boundary=b{depth}\n\n--b{depth}\n").as_bytes(),
            );
        }
        message(&data);
    }
}
