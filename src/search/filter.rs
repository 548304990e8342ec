//! The common questions as a plan: which file, from whom, to whom, when.
//!
//! Filters become expressions, never text, so that no value can change the question.

use datafusion::functions_nested::expr_fn::array_has;
use datafusion::logical_expr::{Expr, lit};
use datafusion::prelude::{col, lower};

use crate::clock::Time;

/// What to look for; an event must meet each criterion that is given, by one of its values.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// SHA-256, hexadecimal in any case.
    pub sha256: Vec<String>,
    /// MD5, hexadecimal in any case.
    pub md5: Vec<String>,
    /// File names; `*` stands for any characters and `?` for one; case does not matter.
    pub file_name: Vec<String>,
    /// Senders or shown authors, likewise.
    pub sender: Vec<String>,
    /// Recipients (to, cc or bcc), likewise; without wildcard and `@` it is a domain.
    pub recipient: Vec<String>,
    /// Words of the subject, likewise; matches anywhere.
    pub subject: Vec<String>,
    /// Message-IDs with their angle brackets.
    pub message_id: Vec<String>,
    /// Sent at or after.
    pub begin: Option<Time>,
    /// Sent before.
    pub end: Option<Time>,
}

impl Filter {
    /// The criteria as one expression; nothing when there is none.
    pub fn expression(&self) -> Option<Expr> {
        let hash =
            |column: &str, values: &[String]| any(values, |value| col(column).eq(lit(value.trim().to_lowercase())));
        let criteria = [
            hash("sha256", &self.sha256),
            hash("md5", &self.md5),
            any(&self.file_name, |value| matches(lower(col("file_name")), value)),
            any(&self.sender, |value| matches(col("sender"), value).or(matches(col("from_address"), value))),
            any(&self.recipient, recipient),
            any(&self.subject, |value| matches(lower(col("subject")), &format!("*{value}*"))),
            any(&self.message_id, |value| col("internet_message_id").eq(lit(value.trim()))),
            self.begin.map(|begin| col("observed_at").gt_eq(time(begin)).and(col("event_date").gt_eq(day(begin)))),
            self.end.map(|end| col("observed_at").lt(time(end)).and(col("event_date").lt_eq(day(end)))),
        ];
        criteria.into_iter().flatten().reduce(Expr::and)
    }
}

fn any(values: &[String], criterion: impl Fn(&str) -> Expr) -> Option<Expr> {
    values.iter().map(|value| criterion(value)).reduce(Expr::or)
}

/// Equality, or a pattern where the value has wildcards. Addresses are lower-case in the lake.
fn matches(column: Expr, value: &str) -> Expr {
    let value = value.trim().to_lowercase();
    if !value.contains(['*', '?']) {
        return column.eq(lit(value));
    }
    column.like(lit(pattern(&value)))
}

/// `*` and `?` as LIKE has them; what LIKE would take for a wildcard is escaped.
fn pattern(value: &str) -> String {
    let mut pattern = String::with_capacity(value.len());
    for letter in value.chars() {
        match letter {
            '*' => pattern.push('%'),
            '?' => pattern.push('_'),
            '%' | '_' | '\\' => pattern.extend(['\\', letter]),
            _ => pattern.push(letter),
        }
    }
    pattern
}

fn recipient(value: &str) -> Expr {
    let value = value.trim().to_lowercase();
    if value.contains(['*', '?']) {
        // A list has no LIKE of its own; its text has, between separators that no address holds.
        let list = datafusion::functions_nested::expr_fn::array_to_string(col("recipients"), lit("\u{1f}"));
        let wrapped = datafusion::prelude::concat(vec![lit("\u{1f}"), list, lit("\u{1f}")]);
        // `*` must not reach over into the next address; a pattern of LIKE cannot say that, a regular expression can.
        return datafusion::prelude::regexp_like(wrapped, lit(regular(&value)), None);
    }
    if value.contains('@') {
        array_has(col("recipients"), lit(value))
    } else {
        array_has(col("recipient_domains"), lit(value))
    }
}

/// A wildcard value as a regular expression for one element between separators.
fn regular(value: &str) -> String {
    let mut expression = String::from("\u{1f}");
    for letter in value.chars() {
        match letter {
            '*' => expression.push_str("[^\u{1f}]*"),
            '?' => expression.push_str("[^\u{1f}]"),
            letter if letter.is_alphanumeric() || letter == '@' => expression.push(letter),
            letter => expression.extend(['\\', letter]),
        }
    }
    expression.push('\u{1f}');
    expression
}

fn time(time: Time) -> Expr {
    let value =
        datafusion::common::ScalarValue::TimestampMicrosecond(Some(time.timestamp_micros()), Some("UTC".into()));
    Expr::Literal(value, None)
}

fn day(time: Time) -> Expr {
    let days = (time.date_naive() - chrono::NaiveDate::default()).num_days();
    Expr::Literal(datafusion::common::ScalarValue::Date32(i32::try_from(days).ok()), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_like_takes_for_a_wildcard_is_escaped() {
        assert_eq!(pattern("100%_a*b?"), "100\\%\\_a%b_");
    }

    #[test]
    fn a_wildcard_for_recipients_stays_within_one_address() {
        assert_eq!(regular("a.*@x"), "\u{1f}a\\.[^\u{1f}]*@x\u{1f}");
    }
}
