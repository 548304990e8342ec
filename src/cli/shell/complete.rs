//! What Tab offers: commands, tables, columns, functions, words of SQL, by what stands before the cursor.

use clap::ValueEnum as _;

use super::command;
use crate::cli::rows::Format;
use crate::error::Result;
use crate::search::Search;
use crate::search::script::{self, PieceKind};

/// The names that there are.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    /// Tables and views, each with its columns.
    relations: Vec<(String, Vec<String>)>,
    functions: Vec<String>,
}

/// Words of SQL that a query can have. The parser knows a thousand more, of every dialect, which would only be in the way.
const WORDS: [&str; 74] = [
    "ALL",
    "AND",
    "ANY",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "CROSS",
    "CURRENT",
    "DATE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "ANALYZE",
    "EXTRACT",
    "FALSE",
    "FILTER",
    "FIRST",
    "FOLLOWING",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "ILIKE",
    "IN",
    "INNER",
    "INTERSECT",
    "INTERVAL",
    "IS",
    "JOIN",
    "LAST",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NATURAL",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "PRECEDING",
    "QUALIFY",
    "RANGE",
    "RECURSIVE",
    "RIGHT",
    "ROWS",
    "SELECT",
    "SHOW",
    "SIMILAR",
    "TABLES",
    "THEN",
    "TIMESTAMP",
    "TRUE",
    "UNBOUNDED",
    "UNION",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
];

impl Vocabulary {
    /// The names of a lake.
    pub(super) async fn of(search: &Search) -> Result<Self> {
        let mut relations = Vec::new();
        for relation in search.relations().await? {
            let columns = search.columns(&relation.name).await?.into_iter().map(|column| column.name);
            relations.push((relation.name, columns.collect()));
        }
        let mut functions: Vec<String> = search.functions().into_iter().map(|function| function.name).collect();
        functions.dedup();
        Ok(Self { relations, functions })
    }

    fn columns_of(&self, relation: &str) -> &[String] {
        let found = self.relations.iter().find(|(name, _)| name.eq_ignore_ascii_case(relation));
        found.map_or(&[], |(_, columns)| columns)
    }
}

/// What could stand at the cursor: the place where the word begins, and the words. `None` when it is the name of a file.
pub(super) fn complete(words: &Vocabulary, line: &str, position: usize) -> Option<(usize, Vec<String>)> {
    let before = line.get(..position).unwrap_or(line);
    let last = script::pieces(before).into_iter().last();
    let open = last.filter(|piece| matches!(piece.kind, PieceKind::Open | PieceKind::Command));
    let Some(open) = open else {
        return Some((before.len(), Vec::new()));
    };
    let text = &before[open.bytes.start..];
    match open.kind {
        PieceKind::Command => in_command(words, text, open.bytes.start),
        PieceKind::Open | PieceKind::Statement => Some(in_statement(words, text, open.bytes.start)),
    }
}

fn in_command(words: &Vocabulary, text: &str, from: usize) -> Option<(usize, Vec<String>)> {
    let Some((name, rest)) = text.split_once(char::is_whitespace) else {
        let names = command::ALL.iter().flat_map(|about| about.names).map(|name| (*name).to_owned());
        return Some((from, starting(names, text)));
    };
    let word = rest.rsplit(char::is_whitespace).next().unwrap_or_default();
    let place = from + text.len() - word.len();
    let offered = match name {
        "\\d" | "\\d+" => starting(words.relations.iter().map(|(name, _)| name.clone()), word),
        "\\df" | "\\df+" => starting(words.functions.iter().cloned(), word),
        "\\x" | "\\timing" => starting(["on", "off"].map(str::to_owned), word),
        "\\pset" if rest.len() == word.len() => starting(["format", "expanded", "pager"].map(str::to_owned), word),
        "\\pset" if rest.starts_with("format") => starting(formats(), word),
        "\\pset" => starting(["on", "off"].map(str::to_owned), word),
        "\\format" => starting(formats(), word),
        "\\i" | "\\include" | "\\o" | "\\out" => return None,
        _ => Vec::new(),
    };
    Some((place, offered))
}

fn formats() -> impl Iterator<Item = String> {
    Format::value_variants().iter().map(|format| format.name().to_owned())
}

fn in_statement(words: &Vocabulary, text: &str, from: usize) -> (usize, Vec<String>) {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '.';
    let word = &text[text
        .rfind(|letter| !is_word(letter))
        .map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8))..];
    let place = from + text.len() - word.len();
    let head = &text[..text.len() - word.len()];
    // In a string there are no names.
    if is_quoted(head) {
        return (place, Vec::new());
    }
    if let Some((table, column)) = word.rsplit_once('.') {
        let table = table.rsplit('.').next().unwrap_or_default();
        let table = alias(text, words, table).unwrap_or(table);
        return (place + word.len() - column.len(), starting(words.columns_of(table).iter().cloned(), column));
    }
    let previous = head.split_whitespace().next_back().unwrap_or_default().to_ascii_uppercase();
    let is_list = previous.ends_with(',') && clause(head) == "FROM";
    let relations = || words.relations.iter().map(|(name, _)| name.clone());
    if ["FROM", "JOIN", "DESCRIBE"].contains(&previous.as_str()) || is_list {
        return (place, starting(relations(), word));
    }
    if word.is_empty() && head.trim().is_empty() {
        return (place, Vec::new());
    }
    // Columns of the tables that are named anywhere in the statement, or of all.
    let named: Vec<&(String, Vec<String>)> = words.relations.iter().filter(|(name, _)| has_word(text, name)).collect();
    let of_named: Vec<&String> = match named.as_slice() {
        [] => words.relations.iter().flat_map(|(_, columns)| columns).collect(),
        named => named.iter().flat_map(|(_, columns)| columns).collect(),
    };
    let mut offered = starting(of_named.into_iter().cloned(), word);
    if !word.is_empty() {
        offered.extend(starting(words.functions.iter().map(|name| format!("{name}(")), word));
        offered.extend(starting(relations(), word));
        // As the person writes them.
        let is_lower = word.chars().any(char::is_lowercase);
        let keyword = |word: &str| if is_lower { word.to_lowercase() } else { word.to_owned() };
        offered.extend(starting(WORDS.iter().map(|word| keyword(word)), word));
        offered.sort();
        offered.dedup();
    }
    (place, offered)
}

/// The table that a short name means: `FROM file_events e`, `FROM file_events AS e`.
fn alias<'a>(text: &str, words: &'a Vocabulary, short: &str) -> Option<&'a str> {
    let all: Vec<&str> = text.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).collect();
    let all: Vec<&str> = all.into_iter().filter(|word| !word.is_empty()).collect();
    words.relations.iter().map(|(name, _)| name.as_str()).find(|name| {
        all.iter().enumerate().any(|(at, word)| {
            let next = all.get(at + 1).filter(|next| !next.eq_ignore_ascii_case("AS")).or_else(|| all.get(at + 2));
            word.eq_ignore_ascii_case(name) && next.is_some_and(|next| next.eq_ignore_ascii_case(short))
        })
    })
}

/// The word that began the clause in which a text ends.
fn clause(head: &str) -> String {
    let is_clause = |word: &&str| {
        ["SELECT", "FROM", "WHERE", "GROUP", "ORDER", "HAVING"].iter().any(|clause| word.eq_ignore_ascii_case(clause))
    };
    head.split_whitespace().rfind(is_clause).unwrap_or_default().to_ascii_uppercase()
}

fn has_word(text: &str, name: &str) -> bool {
    text.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).any(|word| word.eq_ignore_ascii_case(name))
}

fn is_quoted(head: &str) -> bool {
    head.matches('\'').count() % 2 == 1
}

fn starting(names: impl IntoIterator<Item = String>, word: &str) -> Vec<String> {
    let is_start = |name: &String| name.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    let mut names: Vec<String> = names.into_iter().filter(is_start).collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::keywords;

    fn words() -> Vocabulary {
        let relation = |name: &str, columns: &[&str]| {
            (name.to_owned(), columns.iter().map(|column| (*column).to_owned()).collect())
        };
        Vocabulary {
            relations: vec![
                relation("file_events", &["file_name", "sender", "subject"]),
                relation("runs", &["run_id", "started_at"]),
            ],
            functions: ["domain_of", "sum", "substr"].map(str::to_owned).to_vec(),
        }
    }

    #[test]
    fn what_is_offered_depends_on_what_stands_before() {
        for (line, place, expected) in [
            ("\\d", 0, vec!["\\d", "\\df", "\\dt", "\\dv"]),
            ("\\ti", 0, vec!["\\timing"]),
            ("\\d fi", 3, vec!["file_events"]),
            ("\\d+ ", 4, vec!["file_events", "runs"]),
            ("\\df su", 4, vec!["substr", "sum"]),
            ("\\x o", 3, vec!["off", "on"]),
            ("\\format pa", 8, vec!["parquet"]),
            ("\\pset f", 6, vec!["format"]),
            ("\\pset format c", 13, vec!["csv"]),
            ("SEL", 0, vec!["SELECT"]),
            ("sel", 0, vec!["select"]),
            ("SELECT * FROM ", 14, vec!["file_events", "runs"]),
            ("SELECT * FROM FI", 14, vec!["file_events"]),
            ("SELECT * FROM runs, f", 20, vec!["file_events"]),
            ("SELECT * FROM runs JOIN f", 24, vec!["file_events"]),
            ("SELECT * FROM runs WHERE s", 25, vec!["select", "show", "similar", "started_at", "substr(", "sum("]),
            ("SELECT * FROM runs r WHERE r.", 29, vec!["run_id", "started_at"]),
            ("SELECT * FROM runs AS r WHERE r.s", 32, vec!["started_at"]),
            ("SELECT file_events.s", 19, vec!["sender", "subject"]),
            ("SELECT 1; SELECT * FROM r", 24, vec!["runs"]),
            ("SELECT 'fi", 8, vec![]),
            ("SELECT ä, fi", 11, vec!["file_events", "file_name", "filter", "first"]),
            ("", 0, vec![]),
            ("SELECT 1;", 9, vec![]),
            ("\\nothing x", 9, vec![]),
        ] {
            let (at, offered) = complete(&words(), line, line.len()).unwrap();
            assert_eq!((at, offered), (place, expected.into_iter().map(str::to_owned).collect()), "{line:?}");
        }
        assert_eq!(complete(&words(), "\\i /et", 6), None);
    }

    #[test]
    fn hostile_lines_offer_something_or_nothing_and_never_fail() {
        for line in ["'", "\"", "\\", ".", "a.b.c.", "..", "\u{0}", "😀.", "\\d 😀", "\\i", ";;", "--", "/*", "ß"]
        {
            for end in 0..=line.len() + 1 {
                drop(complete(&words(), line, end));
            }
        }
    }

    #[test]
    fn every_word_is_one_that_the_parser_knows() {
        assert_eq!(WORDS.iter().filter(|word| !keywords().contains(word)).collect::<Vec<_>>(), [&""; 0]);
    }
}
