//! SQL logic tests: what the views, the functions and the search language answer, in the files of `tests/slt/`. Their format is
//! the usual one of sqllogictest, with the directive `search` for the search language; `tests/slt/README.md` has it.

mod lake;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, Utc};
use uuid::Uuid;
use waybill::clock::{Clock, Time};
use waybill::error::Result as WaybillResult;
use waybill::search::query::{Query, Selection};
use waybill::search::{Answer, Asker, Engine, Policy, Search, Surface};

use crate::support::repository;

/// When it is set to 1, the rows that are expected become those that are found, so that a change is reviewed as a diff.
const UPDATE: &str = "WAYBILL_SLT_UPDATE";

/// What "within the last" counts back from: a Sunday, after all events.
fn now() -> Time {
    DateTime::parse_from_rfc3339("2026-11-08T12:00:00Z").unwrap().with_timezone(&Utc)
}

/// Whoever may see little: the connection `analyst` of the files.
fn analyst() -> Policy {
    let hidden_columns = ["subject", "client_ip"].map(str::to_owned).to_vec();
    Policy { connections: Some(vec!["Contoso".to_owned()]), hidden_columns }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_of_the_sql_logic_tests_has_its_expected_answer() {
    let engine = Engine::new(lake::lake(now()).await, Clock::manual(now())).unwrap();
    let is_update = std::env::var(UPDATE).is_ok_and(|value| value == "1");
    let mut failures = Vec::new();
    for path in files(&repository("tests/slt")) {
        let name = path.strip_prefix(repository("")).unwrap().display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        let (count, wrong, updated) = File::new(&engine, &text).run().await;
        println!("{} {name}: {count} cases, {} wrong", if wrong.is_empty() { "ok" } else { "FAILED" }, wrong.len());
        failures.extend(wrong.into_iter().map(|wrong| format!("{name}:{wrong}")));
        if is_update && updated != text {
            std::fs::write(&path, updated).unwrap();
        }
    }
    assert!(failures.is_empty(), "{}\n\n{} cases are wrong", failures.join("\n\n"), failures.len());
}

/// Every `.slt` file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.extension() {
            _ if path.is_dir() => found.extend(files(&path)),
            Some(extension) if extension == "slt" => found.push(path),
            _ => {}
        }
    }
    found.sort();
    found
}

/// What a case asks for.
#[derive(Clone, Debug)]
enum Directive {
    /// `statement ok`
    Ok,
    /// `statement error TEXT`
    Error(String),
    /// `query TYPES [nosort|rowsort]`
    Query { types: String, is_sorted: bool },
    /// `search`
    Search,
    /// `search error TEXT`
    SearchError(String),
}

impl Directive {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let rest = |start: &str| line.trim().strip_prefix(start).unwrap_or_default().trim().to_owned();
        match words.as_slice() {
            ["statement", "ok"] => Some(Self::Ok),
            ["statement", "error", ..] => Some(Self::Error(rest("statement error"))),
            ["query", types] | ["query", types, "nosort"] => {
                Some(Self::Query { types: (*types).to_owned(), is_sorted: false })
            }
            ["query", types, "rowsort"] => Some(Self::Query { types: (*types).to_owned(), is_sorted: true }),
            ["search"] => Some(Self::Search),
            ["search", "error", _, ..] => Some(Self::SearchError(rest("search error"))),
            _ => None,
        }
    }

    fn has_rows(&self) -> bool {
        matches!(self, Self::Query { .. } | Self::Search)
    }
}

/// One file on its way.
struct File<'a> {
    engine: &'a Engine,
    lines: Vec<&'a str>,
    /// A session for each of the names that follow `connection`.
    sessions: BTreeMap<String, Search>,
}

impl<'a> File<'a> {
    fn new(engine: &'a Engine, text: &'a str) -> Self {
        Self { engine, lines: text.lines().collect(), sessions: BTreeMap::new() }
    }

    /// How many cases there are, what is wrong with some, and the file as it should be for all that was found.
    async fn run(mut self) -> (usize, Vec<String>, String) {
        let (mut count, mut wrong, mut updated) = (0, Vec::new(), Vec::new());
        let (mut at, mut connection) = (0, "default".to_owned());
        while let Some(line) = self.lines.get(at).copied() {
            at += 1;
            updated.push(line.to_owned());
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix("connection ") {
                name.trim().clone_into(&mut connection);
                continue;
            }
            let number = at;
            let Some(directive) = Directive::parse(line) else {
                wrong.push(format!("{number}: `{line}` is no directive"));
                continue;
            };
            count += 1;
            let text = self.block(&mut at, true).join("\n");
            updated.extend(text.lines().map(str::to_owned));
            let mut expected = Vec::new();
            if directive.has_rows() {
                if self.lines.get(at).is_none_or(|line| *line != "----") {
                    wrong.push(format!("{number}: `----` and the rows are missing"));
                    continue;
                }
                at += 1;
                updated.push("----".to_owned());
                expected = self.block(&mut at, false).iter().map(|line| line.replace('\t', "  ")).collect();
            }
            let session = self.session(&std::mem::replace(&mut connection, "default".to_owned())).await;
            match case(session, &directive, &text, &expected).await {
                Outcome::Right => updated.extend(expected),
                Outcome::Wrong(why) => {
                    wrong.push(format!("{number}: {why}\n{text}"));
                    updated.extend(expected);
                }
                Outcome::Other(found) => {
                    let rows = |rows: &[String]| rows.iter().map(|row| format!("  {row}\n")).collect::<String>();
                    let (expected, found_rows) = (rows(&expected), rows(&found));
                    wrong.push(format!("{number}:\n{text}\nexpected\n{expected}found\n{found_rows}"));
                    updated.extend(found);
                }
            }
        }
        (count, wrong, updated.join("\n") + "\n")
    }

    /// The lines until one is empty, or until the rows begin.
    fn block(&self, at: &mut usize, ends_at_rows: bool) -> Vec<&'a str> {
        let is_end = |line: &str| line.trim().is_empty() || ends_at_rows && line == "----";
        let block: Vec<&str> = self.lines[*at..].iter().copied().take_while(|line| !is_end(line)).collect();
        *at += block.len();
        block
    }

    async fn session(&mut self, name: &str) -> &Search {
        if !self.sessions.contains_key(name) {
            let policy = match name {
                "default" => Policy::default(),
                "analyst" => analyst(),
                other => panic!("`connection {other}`: there are `default` and `analyst`"),
            };
            let asker = Asker { policy: Arc::new(policy), ..Asker::local(format!("local:{name}"), Surface::Shell) };
            let session = self.engine.search(&asker).await.unwrap();
            self.sessions.insert(name.to_owned(), session);
        }
        &self.sessions[name]
    }
}

/// What became of a case.
enum Outcome {
    Right,
    /// And no rows would make it right.
    Wrong(String),
    /// These rows instead of the expected ones.
    Other(Vec<String>),
}

async fn case(session: &Search, directive: &Directive, text: &str, expected: &[String]) -> Outcome {
    let failed = |error: waybill::error::Error| Outcome::Wrong(format!("fails: {error}"));
    let compared = |found: Vec<String>| if found == expected { Outcome::Right } else { Outcome::Other(found) };
    let refused = |error: Option<String>, wanted: &str| match error {
        Some(error) if error.contains(wanted) => Outcome::Right,
        Some(error) => Outcome::Wrong(format!("fails with another error than `{wanted}`:\n  {error}")),
        None => Outcome::Wrong(format!("is answered, and should fail with `{wanted}`")),
    };
    match directive {
        Directive::Ok => answer(session, text).await.map_or_else(failed, |_| Outcome::Right),
        Directive::Error(wanted) => refused(answer(session, text).await.err().map(|error| error.to_string()), wanted),
        Directive::SearchError(wanted) => refused(Query::parse(text).err().map(|error| error.to_string()), wanted),
        Directive::Query { types, is_sorted } => match answer(session, text).await {
            Err(error) => failed(error),
            Ok((found_types, _)) if found_types != *types => Outcome::Wrong(format!("has the types {found_types}")),
            Ok((_, mut rows)) => {
                if *is_sorted {
                    rows.sort();
                }
                compared(rows)
            }
        },
        Directive::Search => match search(session, text).await {
            Err(error) => failed(error),
            Ok((asked, sql, by_sql)) if asked != by_sql => {
                Outcome::Wrong(format!("finds {asked}, and its SQL {by_sql}:\n{sql}"))
            }
            Ok((asked, ..)) => compared(vec![asked]),
        },
    }
}

/// The types of the columns as letters, and the rows.
async fn answer(session: &Search, statement: &str) -> WaybillResult<(String, Vec<String>)> {
    let answer = session.sql(statement).await?;
    let types = answer.schema().fields().iter().map(|field| letter(field.data_type())).collect();
    Ok((types, answer.collect().await?.iter().flat_map(rows).collect()))
}

/// The letters that DataFusion's own tests have.
fn letter(kind: &DataType) -> char {
    match kind {
        DataType::Boolean => 'B',
        DataType::Date32 => 'D',
        DataType::Timestamp(..) => 'P',
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => 'T',
        kind if kind.is_integer() => 'I',
        kind if kind.is_floating() => 'R',
        _ => '?',
    }
}

fn rows(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL").with_display_error(false);
    let columns: Vec<ArrayFormatter<'_>> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
    let value = |column: &ArrayFormatter<'_>, row| shown(&column.value(row).to_string());
    (0..batch.num_rows())
        .map(|row| columns.iter().map(|column| value(column, row)).collect::<Vec<_>>().join("  "))
        .collect()
}

/// What would break a line or turn it around is escaped, and what is empty is seen.
fn shown(text: &str) -> String {
    if text.is_empty() {
        return "(empty)".to_owned();
    }
    let is_odd =
        |letter: char| letter.is_control() || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}');
    let letters = text.chars().map(|letter| match letter {
        letter if is_odd(letter) => letter.escape_default().to_string(),
        letter => letter.to_string(),
    });
    letters.collect()
}

/// The numbers of the events that a filter finds, its SQL, and the numbers of those that this finds.
async fn search(session: &Search, filter: &str) -> WaybillResult<(String, String, String)> {
    let query = Query::parse(filter)?;
    let selection = Selection::new(&["event_id".to_owned()], &[])?;
    let sql = query.sql(&selection, now());
    let asked = numbers(session.file_events(&query, &selection, now()).await?).await?;
    let by_sql = numbers(session.sql(&sql).await?).await?;
    Ok((asked, sql, by_sql))
}

async fn numbers(answer: Answer) -> WaybillResult<String> {
    let ids = answer.collect().await?.iter().flat_map(rows).collect::<Vec<_>>();
    let mut numbers: Vec<u128> = ids.iter().map(|id| Uuid::parse_str(id).unwrap().as_u128()).collect();
    numbers.sort_unstable();
    let numbers: Vec<String> = numbers.iter().map(u128::to_string).collect();
    Ok(if numbers.is_empty() { "(none)".to_owned() } else { numbers.join(" ") })
}
