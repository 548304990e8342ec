//! Conditions → the equivalent SELECT, for people to copy; Waybill itself runs the expression.
//!
//! The text must mean the same to DataFusion (and so through psql to Waybill) and to Spark SQL, whose dialects disagree
//! on what stands inside a literal: to Spark a backslash escapes and, before version 4, `''` is no quote but two literals side
//! by side; its shell and psql also look for variables there. So a literal holds only letters that all agree on, and the
//! rest is written as `chr(n)`. Functions are those that both have under one name.

use std::fmt::Write as _;

use super::Term;
use super::compile::{Comparison, Condition, Constant, Fold, Measure, SEPARATOR, SIGMAS, Text};
use super::term::is_risk_column;
use crate::error::{Code, Error, Result};
use crate::event::schema::{TableName, table};

/// Which columns of the events are wanted, in which order, and how many.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    columns: Vec<String>,
    order: Vec<Sort>,
    limit: Option<usize>,
    offset: usize,
}

/// One column to sort by; events without a value come last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sort {
    /// The column.
    pub column: String,
    /// The largest first.
    pub descending: bool,
}

impl Selection {
    /// Columns by their names or by terms; none means all. `order` empty means the newest first. Events that are equal in
    /// it come by their ids, so that pages do not overlap.
    ///
    /// # Errors
    /// `usage` when there is no such column.
    pub fn new(columns: &[String], order: &[Sort]) -> Result<Self> {
        let columns = columns.iter().map(|name| column(name)).collect::<Result<_>>()?;
        let named = |sort: &Sort| Ok(Sort { column: column(&sort.column)?, descending: sort.descending });
        let mut order = order.iter().map(named).collect::<Result<Vec<_>>>()?;
        if order.is_empty() {
            order.push(Sort { column: "observed_at".to_owned(), descending: true });
        }
        if order.iter().all(|sort| sort.column != "event_id") {
            order.push(Sort { column: "event_id".to_owned(), descending: false });
        }
        Ok(Self { columns, order, limit: None, offset: 0 })
    }

    /// The same with at most `limit` events, after passing over `offset`.
    #[must_use]
    pub fn part(self, offset: usize, limit: Option<usize>) -> Self {
        Self { limit, offset, ..self }
    }

    /// The columns; none means all.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// What to sort by, the first first.
    pub fn order(&self) -> &[Sort] {
        &self.order
    }

    /// How many are passed over.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// How many there are at most.
    pub fn limit(&self) -> Option<usize> {
        self.limit
    }

    /// Whether it names a column that only the view `events` has.
    pub fn asks_for_risk(&self) -> bool {
        self.columns.iter().chain(self.order.iter().map(|sort| &sort.column)).any(|column| is_risk_column(column))
    }
}

impl Sort {
    /// `column`, `column asc` or `column desc`.
    ///
    /// # Errors
    /// `usage` when it is nothing of the kind.
    pub fn parse(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (column, descending) = match words.as_slice() {
            [column] => (column, false),
            [column, way] if way.eq_ignore_ascii_case("asc") => (column, false),
            [column, way] if way.eq_ignore_ascii_case("desc") => (column, true),
            _ => return Err(Error::new(Code::Usage, format!("`{text}` is no order: give a column, and asc or desc"))),
        };
        Ok(Self { column: (*column).to_owned(), descending })
    }
}

/// The column of `events` that a person means.
fn column(name: &str) -> Result<String> {
    let name = name.trim();
    if is_risk_column(name) || table(TableName::FileEvents).column(name).is_some() {
        return Ok(name.to_owned());
    }
    let column = Term::named(name).and_then(Term::column);
    column.map(str::to_owned).ok_or_else(|| Error::new(Code::Usage, format!("file events have no column `{name}`")))
}

/// The whole statement.
pub(super) fn select(condition: &Condition, selection: &Selection) -> String {
    let columns = if selection.columns.is_empty() { "*".to_owned() } else { selection.columns.join(", ") };
    let table = if selection.asks_for_risk() || names_risk(condition) { "events" } else { "file_events" };
    let mut text = format!("SELECT {columns}\nFROM {table}");
    match condition {
        Condition::Always(true) => {}
        Condition::All(parts) => {
            let parts = joined(parts.iter().map(|part| factor(part, true)), "\n  AND ");
            // Writing to a string does not fail.
            let _ = write!(text, "\nWHERE {parts}");
        }
        condition => {
            let _ = write!(text, "\nWHERE {}", factor(condition, false));
        }
    }
    let order = selection
        .order
        .iter()
        .map(|sort| format!("{} {} NULLS LAST", sort.column, if sort.descending { "DESC" } else { "ASC" }));
    let order: Vec<String> = order.collect();
    if !order.is_empty() {
        let _ = write!(text, "\nORDER BY {}", order.join(", "));
    }
    if let Some(limit) = selection.limit {
        let _ = write!(text, "\nLIMIT {limit}");
    }
    if selection.offset > 0 {
        let _ = write!(text, "\nOFFSET {}", selection.offset);
    }
    text
}

fn names_risk(condition: &Condition) -> bool {
    match condition {
        Condition::Always(_) => false,
        Condition::All(parts) | Condition::Any(parts) => parts.iter().any(names_risk),
        Condition::Missing(column)
        | Condition::Present(column)
        | Condition::Filled(column)
        | Condition::Empty(column)
        | Condition::Has { column, .. }
        | Condition::InNumbers { column, .. }
        | Condition::HasNumbers { column, .. } => is_risk_column(column),
        Condition::In { text, .. } | Condition::Like { text, .. } | Condition::Matches { text, .. } => {
            is_risk_column(text.column)
        }
        Condition::Compare { column, .. } => {
            let (Measure::Column(column) | Measure::Largest(column) | Measure::Smallest(column)) = column;
            is_risk_column(column)
        }
    }
}

/// A condition; in parentheses where it stands beside others and would fall apart.
fn factor(condition: &Condition, is_beside_others: bool) -> String {
    let is_disjunction = match condition {
        Condition::Any(_) | Condition::Empty(_) => true,
        Condition::Has { values, negated, .. } => values.len() > 1 && !negated,
        Condition::HasNumbers { values, negated, .. } => values.len() > 1 && !negated,
        _ => false,
    };
    let text = sql(condition);
    if is_disjunction && is_beside_others { format!("({text})") } else { text }
}

fn sql(condition: &Condition) -> String {
    match condition {
        Condition::Always(true) => "TRUE".to_owned(),
        Condition::Always(false) => "FALSE".to_owned(),
        Condition::All(parts) => joined(parts.iter().map(|part| factor(part, true)), " AND "),
        Condition::Any(parts) => joined(
            parts.iter().map(|part| match part {
                Condition::All(_) => format!("({})", sql(part)),
                part => factor(part, false),
            }),
            " OR ",
        ),
        Condition::Missing(column) => format!("{column} IS NULL"),
        Condition::Present(column) => format!("{column} IS NOT NULL"),
        Condition::Filled(column) => format!("cardinality({column}) > 0"),
        Condition::Empty(column) => format!("{column} IS NULL OR cardinality({column}) = 0"),
        Condition::In { text, values, negated } => {
            is_in(&self::text(*text), values.iter().map(|value| literal(value)), *negated)
        }
        Condition::Like { text, pattern, negated } => {
            format!("{} {}LIKE {}", self::text(*text), not(*negated), literal(pattern))
        }
        Condition::Matches { text, regular, negated } => {
            format!("{}regexp_like({}, {})", not(*negated), self::text(*text), literal(regular))
        }
        Condition::Has { column, values, negated } => has(column, values.iter().map(|value| literal(value)), *negated),
        Condition::InNumbers { column, values, negated } => {
            is_in(column, values.iter().map(ToString::to_string), *negated)
        }
        Condition::HasNumbers { column, values, negated } => {
            has(column, values.iter().map(|value| format!("CAST({value} AS BIGINT)")), *negated)
        }
        Condition::Compare { column, comparison, constant } => {
            let sign = match comparison {
                Comparison::Equal => "=",
                Comparison::NotEqual => "<>",
                Comparison::Less => "<",
                Comparison::LessOrEqual => "<=",
                Comparison::Greater => ">",
                Comparison::GreaterOrEqual => ">=",
            };
            format!("{} {sign} {}", measure(*column), self::constant(*constant))
        }
    }
}

/// Many parts are joined in groups: engines walk a chain of a thousand ORs as deep as it is long.
fn joined(parts: impl Iterator<Item = String>, by: &str) -> String {
    let mut parts: Vec<String> = parts.collect();
    while parts.len() > JOINED_AT_ONCE {
        parts = parts.chunks(JOINED_AT_ONCE).map(|some| format!("({})", some.join(by))).collect();
    }
    parts.join(by)
}

/// Parts that stand side by side.
const JOINED_AT_ONCE: usize = 64;

fn not(negated: bool) -> &'static str {
    if negated { "NOT " } else { "" }
}

fn is_in(operand: &str, values: impl Iterator<Item = String>, negated: bool) -> String {
    let values: Vec<String> = values.collect();
    match (values.as_slice(), negated) {
        ([value], false) => format!("{operand} = {value}"),
        ([value], true) => format!("{operand} <> {value}"),
        (values, negated) => format!("{operand} {}IN ({})", not(negated), values.join(", ")),
    }
}

fn has(column: &str, values: impl Iterator<Item = String>, negated: bool) -> String {
    let not = not(negated);
    let by = if negated { " AND " } else { " OR " };
    joined(values.map(|value| format!("{not}array_contains({column}, {value})")), by)
}

fn text(text: Text) -> String {
    let (column, separator) = (text.column, u32::from(SEPARATOR));
    let whole = match text.is_list {
        false => column.to_owned(),
        true => format!("concat(chr({separator}), array_join({column}, chr({separator})), chr({separator}))"),
    };
    match text.fold {
        Fold::Nothing => whole,
        Fold::Case => format!("lower({whole})"),
        Fold::CaseAndSigma => format!("replace(lower({whole}), '{}', '{}')", SIGMAS[0], SIGMAS[1]),
    }
}

fn measure(measure: Measure) -> String {
    match measure {
        Measure::Column(column) => column.to_owned(),
        Measure::Largest(column) => format!("array_max({column})"),
        Measure::Smallest(column) => format!("array_min({column})"),
    }
}

fn constant(constant: Constant) -> String {
    match constant {
        Constant::Number(number) => number.to_string(),
        Constant::Flag(flag) => if flag { "TRUE" } else { "FALSE" }.to_owned(),
        Constant::Time(time) => format!("TIMESTAMP '{}+00:00'", time.format("%Y-%m-%d %H:%M:%S%.6f")),
        Constant::Date(date) => format!("DATE '{}'", date.format("%Y-%m-%d")),
    }
}

/// A text as SQL: what all dialects read alike in quotes, and the rest as `chr(n)`.
fn literal(text: &str) -> String {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        // `${name}` is a variable of Spark, even inside a literal.
        let is_variable = letter == '$' && letters.peek() == Some(&'{');
        if !(letter.is_control() || matches!(letter, '\'' | '\\') || is_variable) || u32::from(letter) > 127 {
            plain.push(letter);
            continue;
        }
        if !plain.is_empty() {
            parts.push(format!("'{plain}'"));
            plain.clear();
        }
        parts.push(format!("chr({})", u32::from(letter)));
    }
    if !plain.is_empty() || parts.is_empty() {
        parts.push(format!("'{plain}'"));
    }
    if parts.len() == 1 { parts.remove(0) } else { format!("concat({})", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_holds_only_what_every_dialect_reads_alike() {
        assert_eq!(literal("a\u{e4}b"), "'a\u{e4}b'");
        assert_eq!(literal("O'Brien"), "concat('O', chr(39), 'Brien')");
        assert_eq!(literal("C:\\new\n"), "concat('C:', chr(92), 'new', chr(10))");
        assert_eq!(literal("${env:HOME} $5"), "concat(chr(36), '{env:HOME} $5')");
        assert_eq!(literal("'"), "chr(39)");
        assert_eq!(literal(""), "''");
        assert_eq!(literal("x'; DROP TABLE file_events; --"), "concat('x', chr(39), '; DROP TABLE file_events; --')");
    }

    #[test]
    fn an_order_is_a_column_and_a_way() {
        assert_eq!(Sort::parse("file.name DESC").unwrap(), Sort { column: "file.name".into(), descending: true });
        assert!(Sort::parse("a; DROP").is_err());
        assert!(Selection::new(&["sha256) --".into()], &[]).is_err());
        let selection = Selection::new(&["file.name".into()], &[Sort::parse("event.id").unwrap()]).unwrap();
        assert_eq!(selection.columns(), ["file_name"]);
        assert_eq!(selection.order().len(), 1, "an order by id needs nothing more");
    }
}
