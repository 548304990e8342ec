//! Rows of CSV → the records in their column `AuditData`.
//!
//! A cell may hold commas, line breaks and doubled quotes. One quote too many must not cost the rows behind it, which
//! it takes for text: a row that fails and spans several lines is given up for its first line only, and the next line is
//! looked at as a row of its own.
//!
//! ```text
//! 2026-11-02,ann,"{""Id"":""a",…}"      ◀─ ends in the next line; is no record: this line is given up
//! 2026-11-02,bob,"{""Id"":""b"",…}"     ◀─ and this one is a row
//! ```

use std::borrow::Cow;

use serde::de::IgnoredAny;

use crate::error::{Code, Error, Result};
use crate::limits;
use crate::source::RecordChunk;
use crate::source::microsoft365::record::{Check, read_record, unreadable};

/// The column with the records; exports differ in the others.
const COLUMN: &[u8] = b"AuditData";

/// What separates cells. Excel writes the last ones in some countries.
const SEPARATORS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// Bytes of a row: a record whose quotes are all doubled, and the other cells.
const ROW_BYTES: usize = 2 * limits::RECORD_BYTES + 64 * 1024;

/// Splits CSV into rows, in pieces of any size.
#[derive(Default)]
pub(super) struct Rows {
    /// What is not split yet: at most one row and one piece.
    buffer: Vec<u8>,
    /// How much of the buffer is done with.
    start: usize,
    /// Lines before that.
    lines_before: u64,
    header: Option<Header>,
    /// Rows in sequence that were given up for their first line.
    retries: u32,
    /// Everything up to the next line break belongs to a row that was given up.
    is_skipping: bool,
}

#[derive(Clone, Copy)]
struct Header {
    separator: u8,
    /// Which cell holds the record.
    column: usize,
}

/// A row's extent and its cell of interest.
struct Row<'a> {
    /// Bytes up to the next row.
    length: usize,
    cell: Option<Cow<'a, [u8]>>,
    /// The file ended inside of a quoted cell.
    is_open: bool,
}

impl Rows {
    /// Takes the next piece of the file and gives the records that it completes.
    ///
    /// # Errors
    /// `configuration` when the header names no column `AuditData`.
    pub(super) fn split(&mut self, piece: &[u8]) -> Result<RecordChunk> {
        let mut out = RecordChunk { bytes: piece.len() as u64, ..RecordChunk::default() };
        self.buffer.extend_from_slice(piece);
        self.advance(false, &mut out)?;
        self.buffer.drain(..self.start);
        self.start = 0;
        Ok(out)
    }

    /// Ends the file, whose last row may lack its line break.
    ///
    /// # Errors
    /// Like those of [`Self::split`].
    pub(super) fn finish(mut self) -> Result<RecordChunk> {
        let mut out = RecordChunk::default();
        self.advance(true, &mut out)?;
        Ok(out)
    }

    fn advance(&mut self, is_end: bool, out: &mut RecordChunk) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let mut result = Ok(true);
        while matches!(result, Ok(true)) && self.start < buffer.len() {
            result = self.row(&buffer[self.start..], is_end, out);
        }
        self.buffer = buffer;
        result.map(drop)
    }

    /// Deals with the row at the beginning of a text; false when there is no whole one.
    fn row(&mut self, text: &[u8], is_end: bool, out: &mut RecordChunk) -> Result<bool> {
        let line_bytes = memchr::memchr(b'\n', text).map(|at| at + 1);
        if self.is_skipping {
            self.is_skipping = line_bytes.is_none();
            self.pass(text, line_bytes.unwrap_or(text.len()));
            return Ok(true);
        }
        let Some(header) = self.header else { return self.header_row(text, line_bytes, is_end) };
        let Some(row) = row_of(text, header, is_end) else {
            if text.len() <= ROW_BYTES {
                return Ok(false);
            }
            self.give_up(text, text.len(), line_bytes, "is larger than a record may be", out);
            return Ok(true);
        };
        let whole = text[..row.length].trim_ascii();
        let cell = row.cell.as_deref().map(<[u8]>::trim_ascii).unwrap_or_default();
        if whole.is_empty() || cell.eq_ignore_ascii_case(COLUMN) {
            // A blank line, or the header of another file behind this one.
            self.pass(text, row.length);
        } else if cell.len() > limits::RECORD_BYTES {
            self.give_up(text, row.length, line_bytes, "is larger than a record may be", out);
        } else if row.is_open {
            self.give_up(text, row.length, line_bytes, "is broken, or the file ends in it", out);
        } else if cell.is_empty() {
            self.give_up(text, row.length, line_bytes, "has no `AuditData`", out);
        } else {
            let (records, unreadable) = (out.records, out.unreadable.len());
            read_record(cell, Check::Needed, out);
            let has_lines = line_bytes.is_some_and(|bytes| bytes < row.length);
            match out.unreadable.get_mut(unreadable) {
                Some(_) if has_lines && serde_json::from_slice::<IgnoredAny>(cell).is_err() => {
                    out.records = records;
                    out.unreadable.truncate(unreadable);
                    self.give_up(text, row.length, line_bytes, "is not JSON", out);
                }
                record => {
                    if let Some(record) = record {
                        record.reason = format!("line {}: {}", self.line(), record.reason);
                    }
                    self.pass(text, row.length);
                    self.retries = 0;
                }
            }
        }
        Ok(true)
    }

    fn line(&self) -> u64 {
        self.lines_before + 1
    }

    /// Finds the column; PowerShell writes the type of its objects above the header.
    fn header_row(&mut self, text: &[u8], line_bytes: Option<usize>, is_end: bool) -> Result<bool> {
        let length = match line_bytes {
            Some(bytes) => bytes,
            None if is_end || text.len() > limits::FILE_PIECE_BYTES => text.len(),
            None => return Ok(false),
        };
        let line = text[..length].trim_ascii();
        if !line.is_empty() && !line.starts_with(b"#TYPE") {
            let header = SEPARATORS.into_iter().find_map(|separator| {
                let names = cells(line, separator);
                let column = names.iter().position(|name| name.trim_ascii().eq_ignore_ascii_case(COLUMN))?;
                Some(Header { separator, column })
            });
            self.header = Some(header.ok_or_else(|| {
                let beginning = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
                let message = format!(
                    "it is no exported audit log: neither JSON, nor CSV with a column `AuditData`; it begins with `{}`",
                    crate::http::one_line(&beginning)
                );
                Error::new(Code::Configuration, message)
            })?);
        }
        self.pass(text, length);
        Ok(true)
    }

    fn pass(&mut self, text: &[u8], length: usize) {
        self.lines_before += memchr::memchr_iter(b'\n', &text[..length]).count() as u64;
        self.start += length;
    }

    /// Puts a row aside: its first line, or after too many of those all of it.
    fn give_up(&mut self, text: &[u8], length: usize, line_bytes: Option<usize>, reason: &str, out: &mut RecordChunk) {
        self.retries += 1;
        let given_up = match line_bytes {
            Some(bytes) if self.retries <= limits::CSV_RETRIES => bytes.min(length),
            _ => length,
        };
        self.is_skipping = !text[..given_up].ends_with(b"\n");
        self.put_aside(text[..given_up].trim_ascii(), reason, out);
        self.pass(text, given_up);
    }

    /// What is held of the file.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    fn put_aside(&self, text: &[u8], reason: &str, out: &mut RecordChunk) {
        out.records += 1;
        let mut record = unreadable(text, reason);
        record.reason = format!("line {}: {}", self.line(), record.reason);
        out.unreadable.push(record);
    }
}

/// The row with which a text begins; nothing when its end is not there.
fn row_of(text: &[u8], header: Header, is_end: bool) -> Option<Row<'_>> {
    let mut row = Row { length: 0, cell: None, is_open: false };
    for number in 0.. {
        let cell = cell_of(&text[row.length..], header.separator, is_end)?;
        row.length += cell.length;
        if number == header.column {
            row.cell = Some(cell.text);
        }
        if cell.is_last {
            row.is_open = cell.is_open;
            return Some(row);
        }
    }
    None
}

/// The cells of a line.
fn cells(line: &[u8], separator: u8) -> Vec<Cow<'_, [u8]>> {
    let mut cells = Vec::new();
    let mut at = 0;
    while let Some(cell) = cell_of(&line[at..], separator, true) {
        at += cell.length;
        cells.push(cell.text);
        if cell.is_last {
            break;
        }
    }
    cells
}

/// A cell, and what follows it.
struct Cell<'a> {
    text: Cow<'a, [u8]>,
    /// Bytes up to the next cell or row.
    length: usize,
    /// A row ends with it.
    is_last: bool,
    /// The file ended inside of its quotes.
    is_open: bool,
}

/// The cell with which a text begins; nothing when its end is not there.
fn cell_of(text: &[u8], separator: u8, is_end: bool) -> Option<Cell<'_>> {
    let mut quoted = None;
    if text.first() == Some(&b'"') {
        let mut at = 1;
        loop {
            let Some(offset) = memchr::memchr(b'"', &text[at..]) else {
                let cell = || Cell { text: unquoted(&text[1..]), length: text.len(), is_last: true, is_open: true };
                return is_end.then(cell);
            };
            at += offset + 1;
            match text.get(at) {
                Some(b'"') => at += 1,
                None if !is_end => return None,
                Some(_) | None => break,
            }
        }
        quoted = Some(at);
    }
    let from = quoted.unwrap_or(0);
    let (end, length, is_last) = match memchr::memchr2(separator, b'\n', &text[from..]) {
        Some(offset) => (from + offset, from + offset + 1, text[from + offset] == b'\n'),
        None if is_end => (text.len(), text.len(), true),
        None => return None,
    };
    let rest = text[from..end].strip_suffix(b"\r").filter(|_| is_last).unwrap_or(&text[from..end]);
    let text = match quoted {
        None => Cow::Borrowed(rest),
        Some(closed) => {
            let mut text = unquoted(&text[1..closed - 1]);
            if !rest.is_empty() {
                text.to_mut().extend_from_slice(rest);
            }
            text
        }
    };
    Some(Cell { text, length, is_last, is_open: false })
}

/// The inside of quotes, in which a quote is doubled.
fn unquoted(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'"', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(offset) = memchr::memchr(b'"', &text[at..]) {
        plain.extend_from_slice(&text[at..=at + offset]);
        at += offset + 2;
        if at > text.len() {
            break;
        }
    }
    plain.extend_from_slice(text.get(at..).unwrap_or_default());
    Cow::Owned(plain)
}
