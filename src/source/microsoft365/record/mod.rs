//! Audit records out of a blob: a streamed JSON array becomes send records, with one record in memory at a time.
//!
//! A blob is one JSON array of up to hundreds of thousands of records, of which some in a thousand are sends. So
//! there are two steps. The *splitter* finds where each record ends, looking at quotes and brackets only. The
//! *reader* decides what a record is: one that cannot be a send is checked and counted, the others are parsed,
//! tolerantly, because what the feed sends differs by year, by client and by its documentation (reference: section 3
//! of the protocol notes).
//!
//! One record that is not JSON must not cost its neighbours. When the splitter meets something that no JSON can have
//! (`,{` among an object's members, text after a closed string, a bracket that closes another one), it looks for the
//! next place that begins like a record, gives everything before it as one unreadable record, and goes on there:
//!
//! ```text
//! [ {"CreationTime":"…","Id":"a, "Operation":"Send"} , {"CreationTime":"…", …} ]
//!   └── start                  │                       └── goes on here
//!                              └── text after a string: cannot be JSON
//! ```
//!
//! What ends in the middle of a record is a blob that was not read whole, and an error.
//!
//! The same reader takes the JSON of an exported audit log, which people have in more shapes: records one after the
//! other without an array, several arrays, rows whose `AuditData` holds the record, as text or as an object. Nobody can
//! be asked for it again, so its unreadable places name their line, and an end in the middle of a record is one of them.

mod object;

use std::net::IpAddr;

use chrono::{DateTime, NaiveDateTime, SubsecRound};
use memchr::memmem;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use self::object::{Object, list, readable, string};
use crate::clock::Time;
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::source::{NamedAttachment, Operation, RecordChunk, SendRecord, UnreadableRecord};

/// Properties with which a record may begin; the objects inside of records begin with others (`Name`, `Path`, …), but
/// for `Id`. A blob's records begin alike, so the property of a record that was read counts too.
const FIRST_KEYS: &[&[u8]] = &[
    b"AppAccessContext",
    b"AppId",
    b"ClientAppId",
    b"ClientIP",
    b"ClientIPAddress",
    b"ClientInfoString",
    b"CreationTime",
    b"Id",
    b"MailboxGuid",
    b"Operation",
    b"OrganizationId",
    b"RecordType",
    b"ResultStatus",
    b"UserId",
    b"UserKey",
    b"UserType",
    b"Workload",
];

/// Bytes that are split before results are looked at; bounds the buffer when a blob comes in large pieces.
const PIECE_BYTES: usize = 128 * 1024;

/// Bytes after which something between two records is no longer taken for a single value.
const STRAY_BYTES: usize = 64 * 1024;

/// Splits a blob's bytes into records, in pieces of any size, and reads those that are sends.
pub struct Records {
    form: Form,
    /// What is not split yet: at most one record and one piece.
    buffer: Vec<u8>,
    /// Where the record in hand begins.
    start: usize,
    /// Up to where the buffer is looked at.
    at: usize,
    /// Where the record in hand ends, once it is closed.
    end: usize,
    place: Place,
    /// The brackets that are open, from the record's own one.
    open: Vec<u8>,
    /// The last byte outside of strings that is no blank; `"` stands for a whole string, `0` for any other value.
    last: u8,
    /// The beginning of a record that is too large to be held.
    cut: Option<Cut>,
    /// With which property the last good record began.
    first_key: Vec<u8>,
    received_bytes: u64,
    /// Lines of an export before the buffer.
    lines_before: u64,
    /// Where the unreadable records of the piece in hand begin, for an export: their number and place.
    marks: Vec<(usize, Mark)>,
    /// Arrays of an export that are open.
    arrays: u64,
}

/// Who gave the JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The feed: one array.
    Blob,
    /// A person: any sequence of records, rows and arrays of them.
    Export,
}

/// What is kept of a record that is too large.
struct Cut {
    text: Vec<u8>,
    line: u64,
}

/// Where something unreadable begins.
#[derive(Clone, Copy)]
enum Mark {
    /// At this place of the buffer.
    At(usize),
    /// In this line.
    Line(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before the array.
    Before,
    /// Between two records.
    Between,
    /// Inside a record, outside of strings.
    Inside,
    /// Inside a string of a record.
    String,
    /// Behind the closing brace of a record, which is trusted when a comma or the array's end follows.
    Closed,
    /// Behind something that cannot be JSON, looking for the next record.
    Lost,
    /// Behind the array.
    After,
}

impl Default for Records {
    fn default() -> Self {
        Self::new()
    }
}

impl Records {
    /// For a blob of the feed that begins.
    pub fn new() -> Self {
        Self::of(Form::Blob)
    }

    /// For the JSON of an exported audit log.
    pub(super) fn exported() -> Self {
        Self::of(Form::Export)
    }

    fn of(form: Form) -> Self {
        Self {
            form,
            buffer: Vec::new(),
            start: 0,
            at: 0,
            end: 0,
            place: Place::Before,
            open: Vec::new(),
            last: 0,
            cut: None,
            first_key: Vec::new(),
            received_bytes: 0,
            lines_before: 0,
            marks: Vec::new(),
            arrays: 0,
        }
    }

    /// Takes the next piece of the blob and gives the records that it completes.
    ///
    /// # Errors
    /// `content-unreadable` when this is no array.
    pub fn split(&mut self, chunk: &[u8]) -> Result<RecordChunk> {
        let mut out = RecordChunk { bytes: chunk.len() as u64, ..RecordChunk::default() };
        for piece in chunk.chunks(PIECE_BYTES) {
            self.received_bytes += piece.len() as u64;
            self.buffer.extend_from_slice(piece);
            let buffer = std::mem::take(&mut self.buffer);
            let result = self.advance(&buffer, &mut out);
            self.buffer = buffer;
            self.name_lines(&mut out);
            self.forget_finished();
            result?;
        }
        Ok(out)
    }

    /// Ends the blob. What is left may be a last record that was broken and swallowed the end of the array.
    ///
    /// # Errors
    /// `content-unreadable` when the blob ended before its array did.
    pub fn finish(mut self) -> Result<RecordChunk> {
        let mut out = RecordChunk::default();
        if self.form == Form::Export {
            self.finish_export(&mut out)?;
            return Ok(out);
        }
        match self.place {
            Place::After => Ok(out),
            Place::Lost if self.buffer.trim_ascii_end().ends_with(b"]") => {
                let buffer = std::mem::take(&mut self.buffer);
                let text = buffer[self.start..].trim_ascii_end();
                self.give_up_on(&text[..text.len() - 1], "is not JSON", &mut out);
                Ok(out)
            }
            Place::Before | Place::Between | Place::Inside | Place::String | Place::Closed | Place::Lost => {
                let message = format!("the blob's JSON ended early, after {} bytes", self.received_bytes);
                Err(Error::new(Code::ContentUnreadable, message))
            }
        }
    }

    fn finish_export(&mut self, out: &mut RecordChunk) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        // A quote too many hides the records behind it until they are looked for.
        while matches!(self.place, Place::Inside | Place::String) && self.cut.is_none() {
            self.lose_the_way();
            self.advance(&buffer, out)?;
        }
        match self.place {
            Place::Before | Place::Between | Place::After => {}
            Place::Closed => self.accept(&buffer[self.start..self.end], Check::Needed, out),
            Place::Inside | Place::String | Place::Lost => {
                let text = buffer[self.start..].trim_ascii_end();
                self.give_up_on(text, "is broken, or the file ends in it", out);
            }
        }
        if self.arrays > 0 && self.place != Place::Lost {
            self.start = buffer.len();
            self.give_up_on(b"", "is missing: the file ends before its array does", out);
        }
        self.buffer = buffer;
        self.name_lines(out);
        Ok(())
    }

    fn advance(&mut self, buffer: &[u8], out: &mut RecordChunk) -> Result<()> {
        loop {
            let has_moved = match self.place {
                Place::Before => self.begin(buffer)?,
                Place::Between => self.next_record(buffer, out),
                Place::Inside => self.inside(buffer),
                Place::Closed => self.behind(buffer, out),
                Place::String => self.inside_string(buffer),
                Place::Lost => self.find_the_way(buffer, out),
                Place::After => self.after(buffer),
            };
            if !has_moved {
                return Ok(());
            }
        }
    }

    /// Passes the byte order mark, blanks and the opening bracket. `false`: more bytes are needed.
    fn begin(&mut self, buffer: &[u8]) -> Result<bool> {
        const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
        if buffer.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(buffer) {
            return Ok(false);
        }
        let text = buffer.strip_prefix(BYTE_ORDER_MARK).unwrap_or(buffer).trim_ascii_start();
        match text.first() {
            None => Ok(false),
            Some(b'[') => {
                self.at = buffer.len() - text.len() + 1;
                self.start = self.at;
                self.place = Place::Between;
                self.arrays = 1;
                Ok(true)
            }
            Some(b'{') if self.form == Form::Export => {
                self.at = buffer.len() - text.len();
                self.start = self.at;
                self.place = Place::Between;
                Ok(true)
            }
            Some(_) => {
                let beginning = String::from_utf8_lossy(&text[..text.len().min(80)]).into_owned();
                let message =
                    format!("the blob is not a JSON array, it begins with `{}`", crate::http::one_line(&beginning));
                Err(Error::new(Code::ContentUnreadable, message))
            }
        }
    }

    fn next_record(&mut self, buffer: &[u8], out: &mut RecordChunk) -> bool {
        let Some(skipped) =
            buffer[self.at..].iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b','))
        else {
            self.at = buffer.len();
            self.start = self.at;
            return false;
        };
        self.at += skipped;
        self.start = self.at;
        match buffer[self.at] {
            b'{' => {
                if let Some(end) = whole_record(&buffer[self.start..], self.form) {
                    self.end = self.start + end;
                    self.accept(&buffer[self.start..self.end], Check::Passed, out);
                    self.at = self.end;
                    self.start = self.end;
                    return true;
                }
                self.open.clear();
                self.open.push(b'{');
                self.last = b'{';
                self.at += 1;
                self.place = Place::Inside;
                true
            }
            b']' => {
                self.at += 1;
                self.start = self.at;
                self.arrays = self.arrays.saturating_sub(1);
                if self.form == Form::Blob {
                    self.place = Place::After;
                }
                true
            }
            b'[' if self.form == Form::Export => {
                self.at += 1;
                self.start = self.at;
                self.arrays += 1;
                true
            }
            _ => self.pass_stray(buffer, out),
        }
    }

    /// Passes something between two records that is no record: a number, a string, a closing brace too many.
    fn pass_stray(&mut self, buffer: &[u8], out: &mut RecordChunk) -> bool {
        let mut at = self.at;
        let mut is_string = false;
        let mut is_closed = false;
        loop {
            match buffer.get(at) {
                None if buffer.len() - self.start > STRAY_BYTES => return self.lose_the_way(),
                None => return false,
                Some(b'\\') if is_string => at += 1,
                Some(b'"') if is_string => (is_string, is_closed) = (false, true),
                Some(_) if is_string => {}
                Some(b'"') if at == self.at => is_string = true,
                // An array would end the blob's own with its end.
                Some(b'[') => return self.lose_the_way(),
                Some(b',' | b']' | b'{') => break,
                // The remains of a record that closed too early; a quote here would turn the strings inside out.
                Some(byte) if *byte == b'"' || (is_closed && !byte.is_ascii_whitespace()) => {
                    return self.lose_the_way();
                }
                Some(_) => {}
            }
            at += 1;
        }
        self.give_up_on(buffer[self.start..at].trim_ascii(), "is not an object", out);
        self.at = at;
        self.start = at;
        true
    }

    /// Follows a record's structure to its end, to a string, or to the end of the buffer.
    fn inside(&mut self, buffer: &[u8]) -> bool {
        while let Some(&byte) = buffer.get(self.at) {
            match byte {
                b'"' => {
                    if !matches!(self.last, b'{' | b'[' | b',' | b':') {
                        return self.lose_the_way();
                    }
                    self.at += 1;
                    self.last = b'"';
                    self.place = Place::String;
                    return true;
                }
                b',' | b':' => {
                    self.last = byte;
                    self.at += 1;
                }
                b'{' | b'[' => {
                    let is_expected = match self.open.last() {
                        Some(b'{') => self.last == b':',
                        _ => matches!(self.last, b'[' | b','),
                    };
                    if !is_expected {
                        return self.lose_the_way();
                    }
                    self.open.push(byte);
                    self.last = byte;
                    self.at += 1;
                }
                b'}' | b']' => {
                    let opened = if byte == b'}' { b'{' } else { b'[' };
                    if self.open.last() != Some(&opened) {
                        return self.lose_the_way();
                    }
                    self.open.pop();
                    self.last = byte;
                    self.at += 1;
                    if self.open.is_empty() {
                        self.end = self.at;
                        self.place = Place::Closed;
                        return true;
                    }
                }
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                _ => {
                    if matches!(self.last, b'"' | b'}' | b']') {
                        return self.lose_the_way();
                    }
                    self.last = b'0';
                    self.at += 1;
                }
            }
        }
        false
    }

    fn inside_string(&mut self, buffer: &[u8]) -> bool {
        loop {
            let passed = to_quote(&buffer[self.at..]);
            // No string of JSON holds a line break, so its end was missed; records of an export stand in lines.
            if self.form == Form::Export && memchr::memchr(b'\n', &buffer[self.at..self.at + passed]).is_some() {
                return self.lose_the_way();
            }
            self.at += passed;
            match buffer.get(self.at) {
                Some(b'\\') if self.at + 1 < buffer.len() => self.at += 2,
                // A backslash at the very end: its partner comes with the next piece.
                Some(b'\\') | None => return false,
                Some(_) => {
                    self.at += 1;
                    self.place = Place::Inside;
                    return true;
                }
            }
        }
    }

    /// Reads a record once it is clear that nothing of it follows.
    fn behind(&mut self, buffer: &[u8], out: &mut RecordChunk) -> bool {
        let Some(skipped) = buffer[self.at..].iter().position(|byte| !byte.is_ascii_whitespace()) else {
            self.at = buffer.len();
            return false;
        };
        self.at += skipped;
        let ends_line = self.form == Form::Export && buffer[self.end.min(self.at)..self.at].contains(&b'\n');
        if !matches!(buffer[self.at], b',' | b']' | b'{') && !ends_line {
            return self.lose_the_way();
        }
        self.accept(&buffer[self.start..self.end], Check::Needed, out);
        self.start = self.at;
        self.place = Place::Between;
        true
    }

    fn accept(&mut self, text: &[u8], check: Check, out: &mut RecordChunk) {
        if self.cut.is_some() || text.len() > limits::RECORD_BYTES {
            return self.give_up_on(text, "is larger than a record may be", out);
        }
        if let Some(key) = first_key(&text[1..]).filter(|key| *key != self.first_key) {
            self.first_key = key.to_vec();
        }
        let before = out.unreadable.len();
        match self.form {
            Form::Blob => read_record(text, check, out),
            Form::Export => read_row(text, check, out),
        }
        self.mark(before, None, out);
    }

    fn lose_the_way(&mut self) -> bool {
        // The fault may lie before the place where it shows: search from the record's own beginning.
        self.at = self.start + 1;
        self.place = Place::Lost;
        true
    }

    /// Looks for the next place that begins like a record.
    fn find_the_way(&mut self, buffer: &[u8], out: &mut RecordChunk) -> bool {
        let Some(found) = memchr::memchr(b'{', &buffer[self.at.min(buffer.len())..]).map(|offset| self.at + offset)
        else {
            self.at = buffer.len();
            return false;
        };
        match self.begins_record(&buffer[self.start..], found - self.start) {
            Some(true) => {
                let text = buffer[self.start..found].trim_ascii_end();
                let text = text.strip_suffix(b",").unwrap_or(text);
                self.give_up_on(text, "is not JSON", out);
                self.at = found;
                self.start = found;
                self.place = Place::Between;
                true
            }
            Some(false) => {
                self.at = found + 1;
                true
            }
            None => {
                self.at = found;
                false
            }
        }
    }

    /// Whether the brace at `at` begins a record: a comma before it, one of the known properties behind it. `None`:
    /// too few bytes to tell.
    fn begins_record(&self, text: &[u8], at: usize) -> Option<bool> {
        let before = text[..at].trim_ascii_end();
        if self.form == Form::Export && text[..at].ends_with(b"\n") {
            // Inside of a record, whoever breaks lines also indents them.
            return Some(true);
        }
        let is_separated =
            before.ends_with(b",") || (self.form == Form::Export && text[before.len()..at].contains(&b'\n'));
        if !is_separated {
            return Some(false);
        }
        let behind = &text[at + 1..];
        match first_key(behind) {
            Some(key) => Some(key == self.first_key || FIRST_KEYS.contains(&key)),
            None if behind.len() > 64 || behind.trim_ascii_start().first().is_some_and(|byte| *byte != b'"') => {
                Some(false)
            }
            None => None,
        }
    }

    /// Passes blanks behind the array. Anything else means that the array's end was none.
    fn after(&mut self, buffer: &[u8]) -> bool {
        let Some(skipped) = buffer[self.at..].iter().position(|byte| !byte.is_ascii_whitespace()) else {
            self.at = buffer.len();
            self.start = self.at;
            return false;
        };
        self.at += skipped;
        self.start = self.at;
        self.place = Place::Lost;
        true
    }

    /// Drops what is split, and of a record that is too large all but its beginning.
    fn forget_finished(&mut self) {
        self.lines_before += self.lines(self.start);
        self.buffer.drain(..self.start);
        self.at -= self.start;
        self.end = self.end.saturating_sub(self.start);
        self.start = 0;
        if self.cut.is_none() && self.buffer.len() > limits::RECORD_BYTES {
            let text = self.buffer[..limits::QUARANTINE_BYTES].to_vec();
            self.cut = Some(Cut { text, line: self.lines_before + 1 });
        }
        if self.cut.is_some() {
            // What `begins_record` looks back at must stay.
            let kept_from = self.at.min(self.buffer.len()).saturating_sub(64);
            self.lines_before += self.lines(kept_from);
            self.buffer.drain(..kept_from);
            self.at -= kept_from;
            self.end = self.end.saturating_sub(kept_from);
        }
    }

    fn give_up_on(&mut self, text: &[u8], reason: &str, out: &mut RecordChunk) {
        out.records += 1;
        let cut = self.cut.take();
        let before = out.unreadable.len();
        out.unreadable.push(unreadable(cut.as_ref().map_or(text, |cut| &cut.text), reason));
        self.mark(before, cut.map(|cut| cut.line), out);
    }

    /// Remembers where unreadable records of an export begin, from the given number on.
    fn mark(&mut self, from: usize, line: Option<u64>, out: &RecordChunk) {
        if self.form == Form::Export {
            let mark = line.map_or(Mark::At(self.start), Mark::Line);
            self.marks.extend((from..out.unreadable.len()).map(|number| (number, mark)));
        }
    }

    /// Adds the lines to the reasons of what is unreadable in the buffer.
    fn name_lines(&mut self, out: &mut RecordChunk) {
        for (number, mark) in std::mem::take(&mut self.marks) {
            let line = match mark {
                Mark::At(place) => self.lines_before + self.lines(place) + 1,
                Mark::Line(line) => line,
            };
            let reason = &mut out.unreadable[number].reason;
            *reason = format!("line {line}: {reason}");
        }
    }

    /// Line breaks of an export before a place of the buffer.
    fn lines(&self, place: usize) -> u64 {
        match self.form {
            Form::Blob => 0,
            Form::Export => memchr::memchr_iter(b'\n', &self.buffer[..place.min(self.buffer.len())]).count() as u64,
        }
    }

    /// What is held of an export.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.buffer.capacity() + self.cut.as_ref().map_or(0, |cut| cut.text.capacity())
    }
}

/// Where the record ends with which a text begins, if it is good JSON, whole, and followed as it should be. That is
/// how it nearly always is, and four times as fast as the step-by-step way, which takes over for the rest.
fn whole_record(text: &[u8], form: Form) -> Option<usize> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    let end = values.byte_offset();
    let next = text[end..].iter().find(|byte| !byte.is_ascii_whitespace())?;
    (matches!(next, b',' | b']') || (form == Form::Export && *next == b'{')).then_some(end)
}

/// Whether a record is known to be good JSON.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    Passed,
    Needed,
}

/// How many bytes stand before the next quote or backslash. Eight at a time: most strings are shorter than what pays
/// for a wider search.
fn to_quote(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    const QUOTES: u64 = u64::from_ne_bytes([b'"'; 8]);
    const BACKSLASHES: u64 = u64::from_ne_bytes([b'\\'; 8]);
    let has_zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let mut words = bytes.chunks_exact(8);
    let mut passed = 0;
    for word in words.by_ref() {
        let word = u64::from_le_bytes(word.try_into().expect("chunks of eight bytes"));
        let found = has_zero(word ^ QUOTES) | has_zero(word ^ BACKSLASHES);
        if found != 0 {
            // Borrows only travel upwards, so the lowest marked byte is a true one.
            return passed + found.trailing_zeros() as usize / 8;
        }
        passed += 8;
    }
    let rest = words.remainder();
    passed + rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).unwrap_or(rest.len())
}

/// The property right behind an opening brace.
fn first_key(text: &[u8]) -> Option<&[u8]> {
    let name = text.trim_ascii_start().strip_prefix(b"\"")?;
    Some(&name[..memchr::memchr(b'"', name)?])
}

/// Sorts one row of an export: its `AuditData`, text or object, is the record. A row without it is the record itself.
fn read_row(text: &[u8], check: Check, out: &mut RecordChunk) {
    #[derive(serde::Deserialize)]
    struct Row<'a> {
        #[serde(rename = "AuditData", alias = "auditData", borrow)]
        audit_data: &'a RawValue,
    }
    let is_row = memmem::find(text, b"\"AuditData\"").is_some() || memmem::find(text, b"\"auditData\"").is_some();
    let row = is_row.then(|| serde_json::from_slice::<Row<'_>>(text)).and_then(std::result::Result::ok);
    let Some(row) = row else { return read_record(text, check, out) };
    match serde_json::from_str::<String>(row.audit_data.get()) {
        Ok(record) => read_record(record.as_bytes(), Check::Needed, out),
        Err(_) => read_record(row.audit_data.get().as_bytes(), Check::Passed, out),
    }
}

/// Sorts one record: counted, a send, or unreadable.
pub(super) fn read_record(text: &[u8], check: Check, out: &mut RecordChunk) {
    out.records += 1;
    if !may_be_send(text) {
        // The check keeps a torn record from being counted as one that is none of our business.
        let is_json = check == Check::Passed || serde_json::from_slice::<IgnoredAny>(text).is_ok();
        if !is_json {
            out.unreadable.push(unreadable(text, "is not JSON"));
        } else if memmem::find(text, b"\"Operation\"").is_none() {
            out.unreadable.push(unreadable(text, "names no operation"));
        }
        return;
    }
    match read_send(&readable(text)) {
        Ok(Some(send)) => out.sends.push(send),
        Ok(None) => {}
        Err(reason) => out.unreadable.push(unreadable(text, &reason)),
    }
}

pub(super) fn unreadable(text: &[u8], reason: &str) -> UnreadableRecord {
    let kept = &text[..text.len().min(limits::QUARANTINE_BYTES)];
    UnreadableRecord { raw: String::from_utf8_lossy(kept).into_owned(), reason: format!("the record {reason}") }
}

/// Whether a record holds one of the three words as a whole string. False only for what cannot be a send.
fn may_be_send(text: &[u8]) -> bool {
    let is_operation = |at: usize| {
        let word = &text[at + 1..];
        word.starts_with(b"Send\"") || word.starts_with(b"SendAs\"") || word.starts_with(b"SendOnBehalf\"")
    };
    memmem::find_iter(text, b"\"Send").any(is_operation) || holds_escaped_letter(text)
}

/// Whether a plain letter is written as an escape, so that a word could hide from a search in the text.
fn holds_escaped_letter(text: &[u8]) -> bool {
    memmem::find_iter(text, b"\\u00").any(|at| {
        let digits = text.get(at + 4..at + 6).and_then(|digits| std::str::from_utf8(digits).ok());
        digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).is_some_and(|byte| byte.is_ascii_alphabetic())
    })
}

/// Reads a record that may be a send. `None`: it reports something else.
fn read_send(record: &str) -> Result<Option<SendRecord>, String> {
    let record = Object::read(record).map_err(|error| format!("is not JSON: {error}"))?;
    let operation = match record.text("Operation").ok_or("names no operation")?.as_str() {
        "Send" => Operation::Send,
        "SendAs" => Operation::SendAs,
        "SendOnBehalf" => Operation::SendOnBehalf,
        _ => return Ok(None),
    };
    if record.text("ResultStatus").is_some_and(|status| status.eq_ignore_ascii_case("failed")) {
        // Nothing left the mailbox.
        return Ok(None);
    }
    let id = record.text("Id").ok_or("has no `Id`")?;
    let created = record.text("CreationTime").ok_or("has no `CreationTime`")?;
    let created = parse_time(&created).ok_or_else(|| format!("has a `CreationTime` that is no time: `{created}`"))?;
    let actor = record.text("UserId");
    let owner = record.text("MailboxOwnerUPN");
    let mailbox = owner.clone().or_else(|| actor.clone()).ok_or("names neither `UserId` nor `MailboxOwnerUPN`")?;
    let item = record.get("Item").and_then(Object::of).unwrap_or_default();
    Ok(Some(SendRecord {
        id,
        operation,
        created: created.trunc_subsecs(0),
        actor: actor.unwrap_or_else(|| mailbox.clone()),
        mailbox,
        mailbox_guid: record.text("MailboxGuid"),
        tenant_id: record.text("OrganizationId"),
        internet_message_id: item.text("InternetMessageId"),
        subject: item.text("Subject"),
        attachments: item.get("Attachments").map(read_attachments).unwrap_or_default(),
        recipients: read_recipients(&record),
        sent_as: match operation {
            Operation::Send => None,
            Operation::SendAs => record.text("SendAsUserSmtp"),
            Operation::SendOnBehalf => record.text("SendOnBehalfOfUserSmtp"),
        },
        client_ip: ["ClientIP", "ClientIPAddress", "ActorIP"]
            .into_iter()
            .find_map(|key| record.text(key))
            .map(|ip| plain_ip(&ip)),
        client_info: record.text("ClientInfoString"),
        app_id: record.text("AppId").or_else(|| record.text("ClientAppId")),
        saved_to_sent_items: record.flag("SaveToSentItems"),
    }))
}

/// Reads `2026-11-02T09:14:07`, which is UTC; a zone or a fraction is understood too.
pub(super) fn parse_time(text: &str) -> Option<Time> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok().map(|time| time.and_utc())
}

/// The address of `203.0.113.7:50123`, `[2001:db8::7]:50123` and the like; as it came when it is none of them.
fn plain_ip(text: &str) -> String {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split(']').next());
    let before_port = text.rsplit_once(':').map(|(address, _)| address);
    let address =
        [Some(text), bracketed, before_port].into_iter().flatten().find_map(|part| part.parse::<IpAddr>().ok());
    address.map_or_else(|| text.to_owned(), |address| address.to_string())
}

/// Reads the attachments, which are one text; a list is understood too.
fn read_attachments(value: &RawValue) -> Vec<NamedAttachment> {
    match string(value) {
        Some(text) => parse_attachments(&text),
        None => {
            list(value).into_iter().flatten().filter_map(string).flat_map(|text| parse_attachments(&text)).collect()
        }
    }
}

/// Reads `name (123b); name (45b)`. There is no escaping, so a name may hold any part of this; only a size in brackets
/// followed by `; ` ends one.
fn parse_attachments(text: &str) -> Vec<NamedAttachment> {
    let text = text.trim();
    let mut attachments = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices("; ") {
        if split_size(&text[start..at]).1.is_some() {
            attachments.push(named(&text[start..at]));
            start = at + 2;
        }
    }
    let rest = text[start..].strip_suffix(';').unwrap_or(&text[start..]);
    if !rest.trim().is_empty() {
        attachments.push(named(rest));
    }
    attachments
}

fn named(text: &str) -> NamedAttachment {
    let (name, size) = split_size(text);
    NamedAttachment { name: name.to_owned(), store_size_bytes: size.and_then(|digits| digits.parse().ok()) }
}

/// Splits `name (123b)` into the name and the digits.
fn split_size(text: &str) -> (&str, Option<&str>) {
    let parts = text.strip_suffix("b)").and_then(|rest| rest.rsplit_once('('));
    match parts {
        Some((name, digits)) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            (name.strip_suffix(' ').unwrap_or(name), Some(digits))
        }
        _ => (text, None),
    }
}

fn read_recipients(record: &Object<'_>) -> Vec<String> {
    let entries = ["recipientList", "RecipientList"].into_iter().find_map(|key| list(record.get(key)?));
    let address = |entry| match string(entry) {
        Some(address) => Some(address.into_owned()),
        None => {
            let entry = Object::of(entry)?;
            ["Address", "address"].into_iter().find_map(|key| entry.text(key))
        }
    };
    entries.into_iter().flatten().filter_map(address).collect()
}

#[cfg(test)]
mod tests;
