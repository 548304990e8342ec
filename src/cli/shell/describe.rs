//! What `\d` and its kind show, and where an error is in a statement.

use comfy_table::ContentArrangement;

use crate::cli::output;
use crate::error::Result;
use crate::search::{Relation, Search};

/// The columns of a table, or all tables and views.
pub(super) async fn relation(search: &Search, name: Option<&str>, is_long: bool, width: u16) -> Result<String> {
    let Some(name) = name else { return relations(search, None, is_long, width).await };
    let name = name.strip_prefix("public.").unwrap_or(name);
    let columns = search.columns(name).await?;
    let about = search.relations().await?.into_iter().find(|relation| relation.name == name);
    let mut text =
        format!("{} `{name}`\n", if about.as_ref().is_some_and(|about| about.is_view) { "View" } else { "Table" });
    if let Some(description) = about.and_then(|about| about.description).filter(|_| is_long) {
        text.push_str(&format!("{description}\n"));
    }
    let rows = columns.into_iter().map(|column| {
        let null = if column.nullable { "may be null" } else { "" };
        let mut row = vec![column.name, column.kind, null.to_owned()];
        row.extend(is_long.then(|| column.description.unwrap_or_default()));
        row
    });
    text.push_str(&table(&["column", "type", "null", "meaning"][..if is_long { 4 } else { 3 }], rows, width));
    Ok(text)
}

/// Tables and views, or one of both.
pub(super) async fn relations(search: &Search, views: Option<bool>, is_long: bool, width: u16) -> Result<String> {
    let is_wanted = |relation: &Relation| views.is_none_or(|views| relation.is_view == views);
    let rows = search.relations().await?.into_iter().filter(is_wanted).map(|relation| {
        let kind = if relation.is_view { "view" } else { "table" };
        let mut row = vec![relation.name, kind.to_owned()];
        row.extend(is_long.then(|| relation.description.unwrap_or_default()));
        row
    });
    Ok(table(&["name", "kind", "meaning"][..if is_long { 3 } else { 2 }], rows, width))
}

/// The functions whose names meet a pattern.
pub(super) fn functions(search: &Search, pattern: Option<&str>, is_long: bool, width: u16) -> String {
    let is_wanted = |name: &str| pattern.is_none_or(|pattern| meets(name, &pattern.to_lowercase()));
    let rows = search.functions().into_iter().filter(|function| is_wanted(&function.name)).map(|function| {
        let mut row = vec![function.name, function.kind.to_owned(), function.syntax];
        row.extend(is_long.then_some(function.description));
        row
    });
    table(&["name", "kind", "call", "gives"][..if is_long { 4 } else { 3 }], rows, width)
}

/// Where the answers come from.
pub(super) fn lake(url: &str, who: &str) -> String {
    table(
        &["catalog", "schema", "lake", "recorded as"],
        [["waybill", "public", url, who].map(str::to_owned).to_vec()],
        0,
    )
}

/// Rows under a header, broken to a width where there is one.
fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>, width: u16) -> String {
    let mut table = output::new_table();
    if width > 0 {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table.set_header(header);
    table.add_rows(rows.into_iter().map(|row| row.iter().map(|cell| output::shown(cell)).collect::<Vec<_>>()));
    format!("{table}\n")
}

/// Whether a name meets a pattern of `*` and `?`.
fn meets(name: &str, pattern: &str) -> bool {
    let (name, pattern): (Vec<char>, Vec<char>) = (name.chars().collect(), pattern.chars().collect());
    // Which ends of the name can be reached with the pattern so far.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for letter in pattern {
        let mut next = vec![false; name.len() + 1];
        match letter {
            '*' => {
                let first = reached.iter().position(|is| *is).unwrap_or(next.len());
                next[first..].fill(true);
            }
            _ => {
                for at in 0..name.len() {
                    next[at + 1] = reached[at] && (letter == '?' || letter == name[at]);
                }
            }
        }
        reached = next;
    }
    reached.last() == Some(&true)
}

/// The line of a statement that an error is about, and a sign below the place, when the error tells it as the parser does:
/// `… at Line: 2, Column: 8`.
pub(super) fn point(statement: &str, message: &str) -> Option<String> {
    let (_, place) = message.rsplit_once("Line: ")?;
    let (line, rest) = place.split_once(", Column: ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let (line, column): (usize, usize) = (line.parse().ok()?, digits.parse().ok()?);
    let text = output::shown(statement.lines().nth(line.checked_sub(1)?)?).replace('\t', " ");
    let head = format!("line {line}: ");
    let before = column.checked_sub(1)?;
    if before > text.chars().count() {
        return None;
    }
    Some(format!("{head}{text}\n{}^", " ".repeat(head.chars().count() + before)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_points_at_its_place() {
        let statement = "SELECT *\nFORM file_events";
        let pointed = point(statement, "SQL error: ParserError(\"Expected: x, found: FORM at Line: 2, Column: 6\")");
        assert_eq!(pointed.unwrap(), "line 2: FORM file_events\n             ^");
        for message in [
            "there is no table",
            "at Line: 0, Column: 1",
            "at Line: 1, Column: 0",
            "at Line: 9, Column: 1",
            "at Line: 1, Column: 99",
            "at Line: 99999999999999999999, Column: 1",
            "Line: , Column: ",
            "Line: 1, Column: 99999999999999999999999",
        ] {
            assert_eq!(point(statement, message), None, "{message}");
        }
        assert_eq!(point("a\u{1b}[2Jb", "Line: 1, Column: 1").unwrap(), "line 1: a\u{fffd}[2Jb\n        ^");
    }

    #[test]
    fn names_meet_patterns() {
        for (name, pattern, is_met) in [
            ("domain_of", "domain_of", true),
            ("domain_of", "domain", false),
            ("domain_of", "domain*", true),
            ("domain_of", "*_of", true),
            ("domain_of", "*", true),
            ("domain_of", "?omain?of", true),
            ("domain_of", "*x*", false),
            ("", "*", true),
            ("", "", true),
            ("a", "", false),
            ("aaab", "a*a*b", true),
        ] {
            assert_eq!(meets(name, pattern), is_met, "{name} {pattern}");
        }
        assert!(!meets(&"a".repeat(200), &"a*".repeat(200).replace("a*a", "a*?a")));
    }
}
