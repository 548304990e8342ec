//! The CSV of users or groups that people really have: exported from a portal, saved by Excel, or typed by hand.
//!
//! What is understood: one column or many, with a header or without, separated by commas, semicolons, tabs or bars,
//! quoted, in UTF-8, UTF-16 or Windows' Latin alphabet, with blank and repeated lines. An entry is an address (or user
//! principal name) or an object id; what is neither is a finding with its line number, and never silently dropped.
//! `schemas/README.md` tells users the same.
//!
//! There is no limit on lines: each is looked at a bounded number of times, and only the entries are kept.

use std::borrow::Cow;
use std::collections::HashMap;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use uuid::Uuid;

use crate::error::{Code, Error, Result};
use crate::source::Member;

/// What separates cells, the usual one last.
const SEPARATORS: [char; 4] = ['|', '\t', ';', ','];

/// Findings that are kept in full; a file of another kind would give one per line, and nobody reads more.
const FINDINGS_KEPT: usize = 100;

/// Rows by which the separator is chosen.
const ROWS_SAMPLED: usize = 50;

/// Lines over which a quoted cell may go. Notes and postal addresses have some; more means a quote that is not one.
const QUOTED_LINES: usize = 20;

/// What nobody sees and copying brings along: marks of byte order and of direction, spaces without width.
const INVISIBLE: [char; 6] = ['\u{feff}', '\u{200b}', '\u{200e}', '\u{200f}', '\u{2060}', '\u{ad}'];

/// How a workbook or another archive begins.
const ARCHIVE: &[u8] = b"PK\x03\x04";

/// Line numbers that one finding lists.
const LINES_LISTED: usize = 10;

/// What a scope CSV names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeCsv {
    /// Addresses as they are written, and object ids in their usual form; each once, in the file's order.
    pub entries: Vec<String>,
    /// The line of each entry, from 1.
    pub lines: Vec<usize>,
    /// What was skipped or looked odd, one sentence each, with line numbers.
    pub findings: Vec<String>,
}

/// Reads a scope CSV.
///
/// # Errors
/// `configuration` when the file is empty or names nobody: a scope without people is never what was meant.
pub fn read(bytes: &[u8]) -> Result<ScopeCsv> {
    if bytes.starts_with(ARCHIVE) {
        return Err(Error::new(Code::Configuration, "it is a workbook and not a CSV; save it as CSV"));
    }
    let text = decode(bytes);
    let Layout { separator, columns, first, finding } = Layout::of(&text);
    let mut reader = Reader::new(&text, separator);
    let mut scope = ScopeCsv::default();
    let mut findings = Findings::default();
    findings.0.extend(finding);
    let mut lines: HashMap<String, usize> = HashMap::new();
    let mut blank = Lines::default();
    let mut repeated = Lines::default();
    let mut ambiguous = Lines::default();
    while let Some(row) = reader.next() {
        // Two stray quotes make one cell of all that is between them.
        if let Some(hidden) = row.hidden(separator) {
            findings.add(format!(
                "lines {} to {}: a quoted cell goes over them; `{hidden}` in it was not read",
                row.line,
                reader.line - 1
            ));
        }
        if row.line < first {
            continue;
        }
        if row.is_blank() {
            blank.add(row.line);
            continue;
        }
        let mut add = |entry: String| match lines.entry(entry.to_lowercase()) {
            std::collections::hash_map::Entry::Occupied(_) => repeated.add(row.line),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(row.line);
                scope.entries.push(entry);
                scope.lines.push(row.line);
            }
        };
        let mut odd = |cell| {
            findings.add(format!("line {}: `{}` is neither an address nor an object id", row.line, shortened(cell)));
        };
        match columns.pick(&row) {
            Picked::One(entry) => add(entry),
            Picked::Several(entries, other) => {
                entries.into_iter().for_each(add);
                other.into_iter().for_each(odd);
            }
            Picked::Odd(cell) => odd(cell),
            Picked::Nothing => match row.filled().find_map(entry) {
                None => findings.add(format!("line {}: no address and no object id", row.line)),
                Some(other) => findings.add(format!(
                    "line {}: nothing in the columns that the header names; `{other}` in another one was not read",
                    row.line
                )),
            },
        }
        if matches!(columns, Columns::Guessed(_)) && row.filled().filter_map(entry).nth(1).is_some() {
            ambiguous.add(row.line);
        }
    }
    findings.add_lines(&ambiguous, "more than one address or object id, only the first was read");
    findings.add_lines(&blank, "blank, skipped");
    findings.add_lines(&repeated, "repeated, skipped");
    scope.findings = findings.finish();
    if scope.entries.is_empty() {
        let what = match scope.findings.first() {
            None => "the CSV is empty".to_owned(),
            Some(finding) => format!("the CSV names no address and no object id: {finding}"),
        };
        return Err(Error::new(Code::Configuration, what));
    }
    Ok(scope)
}

/// People as a CSV that can be read again as a scope, and by a spreadsheet: a cell that one would take for a formula
/// begins with an apostrophe.
pub fn write(members: &[Member]) -> String {
    let cell = |text: &str| {
        let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
        format!("\"{guard}{}\"", text.replace('"', "\"\""))
    };
    let mut text = String::from("userPrincipalName,mail,displayName,id\r\n");
    for member in members {
        let optional = |text: &Option<String>| cell(text.as_deref().unwrap_or_default());
        let (mail, name) = (optional(&member.mail), optional(&member.name));
        text += &format!("{},{mail},{name},{}\r\n", cell(&member.address), cell(&member.object_id));
    }
    text
}

/// The bytes as text: by their byte order mark, else UTF-8, else UTF-16 when every other byte is zero, else Windows'
/// Latin alphabet, in which every byte is something.
fn decode(bytes: &[u8]) -> Cow<'_, str> {
    let encoding = match Encoding::for_bom(bytes) {
        Some((encoding, _)) => encoding,
        None => without_mark(bytes),
    };
    encoding.decode_with_bom_removal(bytes).0
}

fn without_mark(bytes: &[u8]) -> &'static Encoding {
    let start = &bytes[..bytes.len().min(256)];
    let zeros = |offset| start.iter().skip(offset).step_by(2).filter(|byte| **byte == 0).count();
    let (even, odd) = (zeros(0), zeros(1));
    if odd * 4 > start.len() && even == 0 {
        UTF_16LE
    } else if even * 4 > start.len() && odd == 0 {
        UTF_16BE
    } else if std::str::from_utf8(bytes).is_ok() {
        UTF_8
    } else {
        WINDOWS_1252
    }
}

/// How the file is built.
struct Layout {
    separator: char,
    columns: Columns,
    /// The first line that may hold an entry.
    first: usize,
    finding: Option<String>,
}

impl Layout {
    fn of(text: &str) -> Self {
        let start = Start::of(text);
        let separator = start.separator.unwrap_or_else(|| choose_separator(text, start.line));
        let rows = sample(text, separator, start.line);
        let Some(top) = rows.first() else {
            return Self { separator, columns: Columns::Every, first: start.line, finding: None };
        };
        let has_entry = top.cells.iter().any(|cell| entry(cell).is_some());
        let mut named: Vec<(usize, usize)> = Vec::new();
        if !has_entry {
            named = (0..top.cells.len()).filter_map(|column| Some((preference(&top.cells[column])?, column))).collect();
            named.sort_unstable();
        }
        if !named.is_empty() {
            let columns = Columns::Preferred(named.into_iter().map(|(_, column)| column).collect());
            return Self { separator, columns, first: top.line + 1, finding: None };
        }
        // Rows of nothing but entries are a list that somebody typed.
        let cells = || rows.iter().flat_map(|row| &row.cells);
        if cells().all(|cell| cell.trim().is_empty() || entry(cell).is_some()) {
            return Self { separator, columns: Columns::Every, first: top.line, finding: None };
        }
        let width = rows.iter().map(|row| row.cells.len()).max().unwrap_or_default();
        let holds =
            |column: usize| rows.iter().filter(|row| row.cells.get(column).is_some_and(|c| entry(c).is_some())).count();
        let best = (0..width).filter(|column| holds(*column) > 0).collect::<Vec<_>>();
        let columns = Columns::Guessed(if best.is_empty() { vec![0] } else { best });
        // A header that we do not know; in a file of one column it may as well be somebody without an address, which
        // must be said.
        let is_header = !has_entry && rows.len() > 1 && width > 1;
        let finding = is_header.then(|| {
            let header = top.cells.join(", ");
            let header = shortened(&header);
            format!(
                "line {}: no known column name in `{header}`; the first column with addresses or object ids is read",
                top.line
            )
        });
        Self { separator, columns, first: top.line + usize::from(is_header), finding }
    }
}

/// What stands before the header in files of Excel and of Microsoft's portals.
struct Start {
    separator: Option<char>,
    line: usize,
}

impl Start {
    fn of(text: &str) -> Self {
        let top = text.lines().next().unwrap_or_default().trim().trim_matches('"').to_lowercase();
        if let Some(separator) = top.strip_prefix("sep=") {
            return Self { separator: separator.chars().next(), line: 2 };
        }
        let is_version =
            top.strip_prefix("version:v").is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()));
        // `Export-Csv` of Windows PowerShell begins with the type of what it writes.
        let is_preamble = is_version || top.starts_with("#type ");
        Self { separator: None, line: if is_preamble { 2 } else { 1 } }
    }
}

/// The separator by which most cells are entries; then the one that cuts most.
fn choose_separator(text: &str, first: usize) -> char {
    let score = |separator: char| {
        let rows = sample(text, separator, first);
        let cells = rows.iter().flat_map(|row| &row.cells);
        (cells.filter(|cell| entry(cell).is_some()).count(), rows.iter().map(|row| row.cells.len()).sum::<usize>())
    };
    // The last of equals wins.
    SEPARATORS.into_iter().max_by_key(|separator| score(*separator)).unwrap_or(',')
}

fn sample(text: &str, separator: char, first: usize) -> Vec<Row<'_>> {
    let mut reader = Reader::new(text, separator);
    let rows = std::iter::from_fn(|| reader.next()).filter(|row| row.line >= first && !row.is_blank());
    rows.take(ROWS_SAMPLED).collect()
}

/// How much a column's name promises, the smaller the more; `None` for a name that promises nothing.
fn preference(header: &str) -> Option<usize> {
    const KNOWN: [&str; 38] = [
        "userprincipalname",
        "upn",
        "memberobjectidorupn",
        "primarysmtpaddress",
        "mail",
        "email",
        "emailaddress",
        "emailaddresses",
        "primaryemail",
        "workemail",
        "mailaddress",
        "windowsemailaddress",
        "smtpaddress",
        "address",
        "emailadresse",
        "mailadresse",
        "adresseemail",
        "adressedemessagerie",
        "courriel",
        "correo",
        "correoelectronico",
        "benutzerprinzipalname",
        "user",
        "username",
        "useremail",
        "signinname",
        "login",
        "account",
        "member",
        "mailbox",
        "group",
        "groupemail",
        "groupmail",
        "groupid",
        "userid",
        "objectid",
        "id",
        "guid",
    ];
    // Microsoft's templates write `User name [userPrincipalName] Required`.
    let header = header.split_once('[').and_then(|(_, name)| name.split_once(']')).map_or(header, |(name, _)| name);
    let header: String = header.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    KNOWN.iter().position(|known| *known == header)
}

/// Where entries are looked for.
enum Columns {
    /// In these, in this order; the first that has one. The header says that the others are about the same person.
    Preferred(Vec<usize>),
    /// The same, but nothing says so.
    Guessed(Vec<usize>),
    /// In all, and all are meant.
    Every,
}

enum Picked<'a> {
    One(String),
    /// Entries, and a cell among them that is none.
    Several(Vec<String>, Option<&'a str>),
    /// A cell that should be an entry and is not.
    Odd(&'a str),
    Nothing,
}

impl Columns {
    fn pick<'a>(&self, row: &'a Row<'_>) -> Picked<'a> {
        match self {
            Self::Preferred(columns) | Self::Guessed(columns) => {
                let cells = || columns.iter().filter_map(|column| row.cells.get(*column));
                match cells().find_map(|cell| entry(cell)) {
                    Some(entry) => Picked::One(entry),
                    None => cells()
                        .map(|cell| trimmed(cell))
                        .find(|cell| !cell.is_empty())
                        .map_or(Picked::Nothing, Picked::Odd),
                }
            }
            Self::Every => {
                let (entries, odd): (Vec<_>, Vec<_>) =
                    row.filled().map(|cell| entry(cell).ok_or(cell)).partition(Result::is_ok);
                match odd.into_iter().find_map(Result::err) {
                    Some(cell) if entries.is_empty() => Picked::Odd(cell),
                    odd => Picked::Several(entries.into_iter().flatten().collect(), odd),
                }
            }
        }
    }
}

/// A cell as an entry: an address, also in `Jo <jo@example.com>` and `smtp:jo@example.com`, or an object id.
fn entry(cell: &str) -> Option<String> {
    let mut cell = trimmed(trimmed(cell).trim_matches(['"', '\'']));
    // `="…"` keeps spreadsheets from taking a text for something else.
    if let Some(text) = cell.strip_prefix("=\"") {
        cell = trimmed(text);
    }
    if let Some((_, address)) = cell.rsplit_once('<') {
        cell = trimmed(address.strip_suffix('>')?);
    }
    for prefix in ["smtp:", "mailto:"] {
        if let (Some(start), Some(rest)) = (cell.get(..prefix.len()), cell.get(prefix.len()..))
            && start.eq_ignore_ascii_case(prefix)
        {
            cell = trimmed(rest);
        }
    }
    if matches!(cell.len(), 32 | 36 | 38)
        && let Ok(id) = Uuid::try_parse(cell)
    {
        return Some(id.to_string());
    }
    is_address(cell).then(|| cell.to_owned())
}

/// Without what nobody sees around it.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || INVISIBLE.contains(&c))
}

/// Whether it can be an address or a user principal name; guests' names have a `#`.
fn is_address(text: &str) -> bool {
    let is_odd =
        |c: char| c.is_whitespace() || c.is_control() || INVISIBLE.contains(&c) || "\"<>(),;:[]\\|".contains(c);
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let is_domain = domain
        .split('.')
        .all(|label| !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_'));
    !local.is_empty() && !local.contains('@') && !local.contains(is_odd) && is_domain && text.len() <= 320
}

/// A row of the file.
struct Row<'a> {
    /// The line on which it begins, from 1.
    line: usize,
    cells: Vec<Cow<'a, str>>,
}

impl Row<'_> {
    /// The cells that are not empty, trimmed.
    fn filled(&self) -> impl Iterator<Item = &str> {
        self.cells.iter().map(|cell| trimmed(cell)).filter(|cell| !cell.is_empty())
    }

    /// An entry that stands by itself within a cell of several lines, where nobody looks for it.
    fn hidden(&self, separator: char) -> Option<String> {
        let long = self.cells.iter().filter(|cell| cell.contains(['\n', '\r']) && entry(cell).is_none());
        long.flat_map(|cell| cell.split([separator, '\n', '\r'])).find_map(entry)
    }

    /// Nothing but spaces and separators, also those that this file does not use.
    fn is_blank(&self) -> bool {
        let is_nothing = |c: char| c.is_whitespace() || SEPARATORS.contains(&c) || INVISIBLE.contains(&c);
        self.cells.iter().all(|cell| cell.chars().all(is_nothing))
    }
}

/// Cuts text into rows and cells. Quotes count only where they surround a whole cell, so that `5" disk` and a name with
/// one quote do not swallow the lines that follow.
struct Reader<'a> {
    rest: &'a str,
    separator: char,
    line: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, separator: char) -> Self {
        Self { rest: text, separator, line: 1 }
    }

    fn next(&mut self) -> Option<Row<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let mut row = Row { line: self.line, cells: Vec::new() };
        loop {
            let (cell, rest) = self.quoted().unwrap_or_else(|| self.bare());
            row.cells.push(cell);
            let mut chars = rest.chars();
            match chars.next() {
                Some(c) if c == self.separator => self.rest = chars.as_str(),
                Some('\r') => {
                    self.rest = chars.as_str().strip_prefix('\n').unwrap_or(chars.as_str());
                    self.line += 1;
                    return Some(row);
                }
                Some(_) => {
                    self.rest = chars.as_str();
                    self.line += 1;
                    return Some(row);
                }
                None => {
                    self.rest = "";
                    self.line += 1;
                    return Some(row);
                }
            }
        }
    }

    /// A cell up to the separator or the line's end, and what follows.
    fn bare(&self) -> (Cow<'a, str>, &'a str) {
        let end = self.rest.find([self.separator, '\n', '\r']).unwrap_or(self.rest.len());
        (Cow::Borrowed(&self.rest[..end]), &self.rest[end..])
    }

    /// A cell that is quoted as a whole; nothing when it is not, or goes over too many lines.
    fn quoted(&mut self) -> Option<(Cow<'a, str>, &'a str)> {
        let inside = self.rest.trim_start_matches(' ').strip_prefix('"')?;
        let (mut lines, mut is_escaped, mut from) = (0, false, 0);
        loop {
            let at = from + inside[from..].find(['"', '\n', '\r'])?;
            let after = &inside[at + 1..];
            match inside.as_bytes()[at] {
                b'"' if after.starts_with('"') => {
                    is_escaped = true;
                    from = at + 2;
                    continue;
                }
                b'"' => {
                    let rest = after.trim_start_matches(' ');
                    if !(rest.is_empty() || rest.starts_with([self.separator, '\n', '\r'])) {
                        return None;
                    }
                    self.line += lines;
                    let cell = &inside[..at];
                    let cell = if is_escaped { Cow::Owned(cell.replace("\"\"", "\"")) } else { Cow::Borrowed(cell) };
                    return Some((cell, rest));
                }
                b'\r' if after.starts_with('\n') => {}
                _ => lines += 1,
            }
            if lines > QUOTED_LINES {
                return None;
            }
            from = at + 1;
        }
    }
}

/// Findings, the first of them in full.
#[derive(Default)]
struct Findings(Vec<String>, usize);

impl Findings {
    fn add(&mut self, finding: String) {
        if self.0.len() < FINDINGS_KEPT {
            self.0.push(finding);
        } else {
            self.1 += 1;
        }
    }

    fn add_lines(&mut self, lines: &Lines, what: &str) {
        let listed: Vec<String> = lines.listed.iter().map(ToString::to_string).collect();
        let listed = listed.join(", ");
        match lines.count {
            0 => {}
            1 => self.0.push(format!("line {listed}: {what}")),
            count if count > LINES_LISTED => self.0.push(format!("lines {listed}, … ({count} in all): {what}")),
            _ => self.0.push(format!("lines {listed}: {what}")),
        }
    }

    fn finish(mut self) -> Vec<String> {
        if self.1 > 0 {
            self.0.push(format!("{} more lines are neither an address nor an object id", self.1));
        }
        self.0
    }
}

/// Lines with the same finding.
#[derive(Default)]
struct Lines {
    listed: Vec<usize>,
    count: usize,
}

impl Lines {
    fn add(&mut self, line: usize) {
        self.count += 1;
        if self.listed.len() < LINES_LISTED {
            self.listed.push(line);
        }
    }
}

/// The start of a text that may be very long, and may hold what a terminal obeys.
fn shortened(text: &str) -> String {
    const CHARS: usize = 80;
    let start = text.char_indices().nth(CHARS).map_or(text, |(end, _)| &text[..end]);
    let more = if start.len() < text.len() { "…" } else { "" };
    start.replace(char::is_control, "\u{fffd}") + more
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries(text: &str) -> Vec<String> {
        read(text.as_bytes()).unwrap().entries
    }

    fn findings(text: &str) -> Vec<String> {
        read(text.as_bytes()).unwrap().findings
    }

    const ID: &str = "0f0f0f0f-aaaa-bbbb-cccc-121212121212";

    #[test]
    fn a_plain_list_needs_no_header() {
        let plain = read(b"a@x.com\nb@x.com\n").unwrap();
        assert_eq!(
            plain,
            ScopeCsv { entries: vec!["a@x.com".into(), "b@x.com".into()], lines: vec![1, 2], findings: vec![] }
        );
        assert_eq!(entries("a@x.com"), ["a@x.com"]);
        assert_eq!(entries("a@x.com\r\nb@x.com\rc@x.com"), ["a@x.com", "b@x.com", "c@x.com"]);
    }

    #[test]
    fn every_separator_and_header_is_understood() {
        for separator in [",", ";", "\t", "|"] {
            for header in ["E-Mail", "email address", "User principal name", "UPN", "\"mail\"", "Object ID", "Group"] {
                let text =
                    ["Display name,".to_owned() + header, "\"Doe, Jo\",a@x.com".to_owned(), "Bo,b@x.com".to_owned()]
                        .join("\n");
                let text = if separator == "," { text } else { text.replace(',', separator) };
                assert_eq!(read(text.as_bytes()).unwrap().entries, ["a@x.com", "b@x.com"], "{text}");
                assert_eq!(findings(&text), Vec::<String>::new(), "{text}");
            }
        }
        assert_eq!(entries("sep=;\nName;Mail\nDoe, Jo;a@x.com\n"), ["a@x.com"]);
        assert_eq!(entries("Doe, Jo;a@x.com\nRoe, Bo;b@x.com\n"), ["a@x.com", "b@x.com"]);
    }

    #[test]
    fn exports_of_the_portals_are_understood() {
        let template =
            "version:v1.0\nMember object ID or user principal name [memberObjectIdOrUpn] Required\na@x.com\n";
        assert_eq!(entries(template), ["a@x.com"]);
        let groups = format!("id,displayName,mail\n{ID},Finance,\n11111111-2222-3333-4444-555555555555,HR,hr@x.com\n");
        assert_eq!(entries(&groups), [ID, "hr@x.com"]);
        assert_eq!(
            entries("mail,upn\nb@x.com,b_gmail.com#EXT#@x.onmicrosoft.com\n"),
            ["b_gmail.com#EXT#@x.onmicrosoft.com"]
        );
    }

    #[test]
    fn an_unknown_header_is_said_and_the_entries_are_found() {
        let scope = read(b"Wer,Wo\nJo,a@x.com\nBo,b@x.com\n").unwrap();
        assert_eq!(scope.entries, ["a@x.com", "b@x.com"]);
        assert_eq!(
            scope.findings,
            ["line 1: no known column name in `Wer, Wo`; the first column with addresses or object ids is read"]
        );
        assert_eq!(findings("Leute\na@x.com\n"), ["line 1: `Leute` is neither an address nor an object id"]);
    }

    #[test]
    fn a_typed_list_in_one_row_is_all_meant() {
        assert_eq!(entries("a@x.com; b@x.com;c@x.com;"), ["a@x.com", "b@x.com", "c@x.com"]);
        assert_eq!(entries("Jo Doe <a@x.com>, SMTP:b@x.com"), ["a@x.com", "b@x.com"]);
    }

    #[test]
    fn nobody_in_a_further_column_is_dropped_silently() {
        assert_eq!(
            entries("a@x.com,b@x.com\nc@x.com,d@x.com,e@x.com\n"),
            ["a@x.com", "b@x.com", "c@x.com", "d@x.com", "e@x.com"]
        );
        let scope = read(b"Jo,a@x.com,b@x.com\nBo,c@x.com,\n").unwrap();
        assert_eq!(scope.entries, ["a@x.com", "c@x.com"]);
        assert_eq!(scope.findings, ["line 1: more than one address or object id, only the first was read"]);
        let list = "a@x.com\n".repeat(ROWS_SAMPLED) + "b@x.com,nobody\n";
        assert_eq!(
            findings(&list)[0],
            format!("line {}: `nobody` is neither an address nor an object id", ROWS_SAMPLED + 1)
        );
    }

    #[test]
    fn object_ids_come_in_every_form() {
        let text = format!("{{{}}}\n{}\n", ID.to_uppercase(), ID.replace('-', "").replace('0', "1"));
        assert_eq!(entries(&text), [ID, "1f1f1f1f-aaaa-bbbb-cccc-121212121212"]);
    }

    #[test]
    fn what_is_skipped_is_said_with_its_line() {
        let scope = read(b"mail\n\na@x.com\nJo Doe\n   \nA@X.com\nb@x.com\n,,\n").unwrap();
        assert_eq!(scope.entries, ["a@x.com", "b@x.com"]);
        assert_eq!(
            scope.findings,
            [
                "line 4: `Jo Doe` is neither an address nor an object id",
                "lines 2, 5, 8: blank, skipped",
                "line 6: repeated, skipped",
            ]
        );
    }

    #[test]
    fn a_stray_quote_swallows_nobody() {
        let scope = read(
            b"mail,note\na@x.com,\"5\" disk\nb@x.com,\"open\nc@x.com,plain\n\"d@x.com\",\"two\nlines\"\ne@x.com,\n",
        )
        .unwrap();
        assert_eq!(scope.entries, ["a@x.com", "b@x.com", "c@x.com", "d@x.com", "e@x.com"]);
        assert_eq!(scope.findings, Vec::<String>::new());
    }

    #[test]
    fn a_quoted_line_break_moves_the_line_numbers() {
        assert_eq!(
            findings("note,mail\n\"a\nb\",a@x.com\nx,nobody\n"),
            ["line 4: `nobody` is neither an address nor an object id"]
        );
    }

    #[test]
    fn every_encoding_gives_the_same_entries() {
        let text = "Name;E-Mail\nJürgen Größe;jürgen@x.com\n";
        let expected = ["jürgen@x.com"];
        let utf_16 = |big: bool| -> Vec<u8> {
            text.encode_utf16().flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
        };
        let marked = |mark: &[u8], bytes: Vec<u8>| [mark, &bytes].concat();
        let files = [
            text.as_bytes().to_vec(),
            marked(b"\xEF\xBB\xBF", text.as_bytes().to_vec()),
            marked(b"\xFF\xFE", utf_16(false)),
            marked(b"\xFE\xFF", utf_16(true)),
            utf_16(false),
            utf_16(true),
            WINDOWS_1252.encode(text).0.into_owned(),
        ];
        for file in files {
            assert_eq!(read(&file).unwrap().entries, expected, "{file:x?}");
        }
    }

    #[test]
    fn a_file_that_names_nobody_is_refused() {
        for text in ["", "\u{feff}", "\n\n  \n", "mail\n", "Jo\nBo\n"] {
            assert_eq!(read(text.as_bytes()).unwrap_err().code(), Code::Configuration, "{text:?}");
        }
        assert_eq!(read(b"").unwrap_err().message(), "the CSV is empty");
        assert_eq!(
            read(b"Jo\n").unwrap_err().message(),
            "the CSV names no address and no object id: line 1: `Jo` is neither an address nor an object id"
        );
    }

    /// Danger: the replaced product takes 1,000 entries; a reader that looks back for repeats, or at open quotes again
    /// and again, takes minutes for a large tenant.
    #[test]
    fn a_hundred_thousand_lines_are_read_in_bounded_time() {
        let mut text = "mail,name\n".to_owned();
        for number in 0..100_000 {
            text += &format!("user{number}@example.com,\"stray {number}\n");
        }
        let start = std::time::Instant::now();
        assert_eq!(entries(&text).len(), 100_000);
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }

    #[test]
    fn a_file_of_another_kind_gives_a_bounded_report() {
        let text = "a@x.com\n".to_owned() + &"nonsense\n".repeat(1000);
        let findings = findings(&text);
        assert_eq!(findings.len(), FINDINGS_KEPT + 1);
        assert_eq!(findings[FINDINGS_KEPT], "900 more lines are neither an address nor an object id");
    }

    #[test]
    fn the_examples_for_users_are_read_without_findings() {
        for example in [
            include_bytes!("../../schemas/scope-users.csv").as_slice(),
            include_bytes!("../../schemas/scope-groups.csv"),
        ] {
            let scope = read(example).unwrap();
            assert!(!scope.entries.is_empty());
            assert_eq!(scope.findings, Vec::<String>::new());
        }
    }

    #[test]
    fn people_that_are_written_are_read_again_and_no_spreadsheet_runs_them() {
        let member = |address: &str, name: &str| Member {
            object_id: ID.to_owned(),
            address: address.to_owned(),
            mail: None,
            name: Some(name.to_owned()),
        };
        let text = write(&[member("a@x.com", "=cmd|' /C calc'!A0"), member("b@x.com", "Doe, \"Jo\"")]);
        assert!(text.contains("\"'=cmd|"), "{text}");
        let scope = read(text.as_bytes()).unwrap();
        assert_eq!(
            (scope.entries.as_slice(), scope.findings.len()),
            (&["a@x.com".to_owned(), "b@x.com".to_owned()][..], 0)
        );
    }

    /// A change of a file's bytes at a place.
    #[derive(Clone, Debug)]
    enum Change {
        Replace(u8),
        Insert(u8),
        Delete,
    }

    fn change() -> impl Strategy<Value = (prop::sample::Index, Change)> {
        // What cuts files into lines and cells, what no encoding has, and anything.
        let byte = || prop_oneof![4 => prop::sample::select(&b"\",;\n\r\t|<>@'= \x00\x80\xff"[..]), 1 => any::<u8>()];
        let change =
            prop_oneof![byte().prop_map(Change::Replace), byte().prop_map(Change::Insert), Just(Change::Delete)];
        (any::<prop::sample::Index>(), change)
    }

    proptest! {
        /// Danger: one stray byte, and the lines that follow it are gone, or are somebody else's.
        #[test]
        fn whatever_happens_to_a_file_nobody_of_an_untouched_line_is_lost_silently(
            people in 5..30_usize, quoted in any::<bool>(), end in prop::sample::select(&["\n", "\r\n"][..]),
            changes in prop::collection::vec(change(), 0..6),
        ) {
            let person = |n: usize| if quoted { format!("\"Doe, {n}\",\"p{n}@x.com\"") } else { format!("Doe {n},p{n}@x.com") };
            let original: Vec<String> = (0..people).map(person).collect();
            let mut bytes = format!("Name,Mail{end}{}{end}", original.join(end)).into_bytes();
            for (index, change) in changes {
                // The very first bytes may mean another encoding, which is another file.
                let at = 3 + index.index(bytes.len() - 4);
                match change {
                    Change::Replace(byte) => bytes[at] = byte,
                    Change::Insert(byte) => bytes.insert(at, byte),
                    Change::Delete => drop(bytes.remove(at)),
                }
            }
            // A file of which nothing can be read is refused, which nobody overlooks.
            let Ok(scope) = read(&bytes) else { return Ok(()) };
            let text = decode(&bytes);
            let lines: Vec<&str> = text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r')).collect();
            for (number, line) in lines.iter().enumerate() {
                let Some(n) = original.iter().position(|one| one == line) else { continue };
                let (address, number) = (format!("p{n}@x.com"), number + 1);
                let is_read = scope.entries.contains(&address);
                let is_told = scope.findings.iter().any(|finding| {
                    let told = finding.split(": ").next().unwrap_or_default();
                    let numbers: Vec<usize> =
                        told.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect();
                    match numbers[..] {
                        [first, last] if told.contains(" to ") => (first..=last).contains(&number),
                        _ => numbers.contains(&number),
                    }
                });
                prop_assert!(is_read || is_told, "line {number} `{line}` is lost: {:?} of {text:?}", scope);
            }
            prop_assert_eq!(scope.entries.len(), scope.lines.len());
            for (entry, line) in scope.entries.iter().zip(&scope.lines) {
                prop_assert!(lines[line - 1..].iter().take(QUOTED_LINES + 1).any(|text| text.contains(entry.as_str())));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&bytes);
        }

        #[test]
        fn nothing_that_looks_like_csv_makes_it_panic(text in "([a-b@.]|[\",;\t\r\n |<>]){0,80}") {
            let _ = read(text.as_bytes());
        }

        #[test]
        fn what_is_written_is_read(names in proptest::collection::hash_set("[a-z]{1,6}", 1..20), separator in "[,;\t|]") {
            let names: Vec<String> = names.into_iter().map(|name| format!("{name}@example.com")).collect();
            let rows: String = names.iter().map(|name| format!("\"x{separator}\"{separator}{name}\r\n")).collect();
            let scope = read(format!("name{separator}mail\r\n{rows}").as_bytes()).unwrap();
            let lines = (2..names.len() + 2).collect();
            prop_assert_eq!(scope, ScopeCsv { entries: names, lines, findings: vec![] });
        }
    }
}
