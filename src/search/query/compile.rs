//! What each operator means: a query → conditions on columns.
//!
//! A condition is met or not, also where SQL would know a third answer: an event without a value meets "is not" and
//! "does not exist", and nothing else. So negation never stands above a condition but inside it, together with the test
//! for the missing value; AND and OR may then take "unknown" for "no".

use chrono::{Days, NaiveDate};

use super::term::{Holds, Letters};
use super::value::{Moment, Value, has_wildcard, midnight};
use super::{Clause, Filter, Member, Operator, Query, Term};
use crate::clock::Time;
use crate::search::query::term::Kind;

/// What keeps the elements of a list apart when they are searched as one text; no value of a filter has it.
pub(super) const SEPARATOR: char = '\u{1f}';

/// A query on columns.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    /// Whatever the event.
    Always(bool),
    /// Every one.
    All(Vec<Condition>),
    /// At least one.
    Any(Vec<Condition>),
    /// The column has no value.
    Missing(&'static str),
    /// The column has a value.
    Present(&'static str),
    /// The list has an element.
    Filled(&'static str),
    /// The list has none, or there is no list.
    Empty(&'static str),
    /// The text is one of these.
    In { text: Text, values: Vec<String>, negated: bool },
    /// The text is like this pattern of LIKE, with `\` before what is meant literally.
    Like { text: Text, pattern: String, negated: bool },
    /// The regular expression is found in the text.
    Matches { text: Text, regular: String, negated: bool },
    /// The list has one of these texts.
    Has { column: &'static str, values: Vec<String>, negated: bool },
    /// The number is one of these.
    InNumbers { column: &'static str, values: Vec<i64>, negated: bool },
    /// The list has one of these numbers.
    HasNumbers { column: &'static str, values: Vec<i64>, negated: bool },
    /// The column compared with a constant.
    Compare { column: Measure, comparison: Comparison, constant: Constant },
}

/// A text to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) column: &'static str,
    /// Whether it is a list, to be read as its elements between separators, and before the first and after the last one.
    pub(super) is_list: bool,
    pub(super) fold: Fold,
}

/// Which letters are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fold {
    /// Those that are.
    Nothing,
    /// Upper and lower case.
    Case,
    /// Also both small letters of the Greek sigma. Which of them a capital one becomes depends on the letters after it, which
    /// are others in a name than in a pattern.
    CaseAndSigma,
}

/// The small sigma that ends a word, and the other one.
pub(super) const SIGMAS: [char; 2] = ['\u{3c2}', '\u{3c3}'];

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// The column.
    Column(&'static str),
    /// The largest element of the list.
    Largest(&'static str),
    /// The smallest.
    Smallest(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Constant {
    Number(i64),
    Flag(bool),
    Time(Time),
    Date(NaiveDate),
}

/// The query on columns; `now` is what "within the last" counts back from.
pub(super) fn query(query: &Query, now: Time) -> Condition {
    let members = query.members.iter().map(|member| match member {
        Member::Filter(filter) => self::filter(filter, now),
        Member::Group(group) => self::query(group, now),
    });
    match query.clause {
        Clause::And => all(members),
        Clause::Or => any(members),
    }
}

/// Every condition, without what decides nothing.
fn all(conditions: impl IntoIterator<Item = Condition>) -> Condition {
    let mut parts = Vec::new();
    for condition in conditions {
        match condition {
            Condition::Always(true) => {}
            Condition::Always(false) => return Condition::Always(false),
            Condition::All(inner) => parts.extend(inner),
            condition => parts.push(condition),
        }
    }
    match parts.len() {
        0 => Condition::Always(true),
        1 => parts.remove(0),
        _ => Condition::All(parts),
    }
}

/// One of the conditions, without what decides nothing.
fn any(conditions: impl IntoIterator<Item = Condition>) -> Condition {
    let mut parts = Vec::new();
    for condition in conditions {
        match condition {
            Condition::Always(false) => {}
            Condition::Always(true) => return Condition::Always(true),
            Condition::Any(inner) => parts.extend(inner),
            condition => parts.push(condition),
        }
    }
    match parts.len() {
        0 => Condition::Always(false),
        1 => parts.remove(0),
        _ => Condition::Any(parts),
    }
}

fn filter(filter: &Filter, now: Time) -> Condition {
    match filter.term.holds() {
        Holds::Nothing => Condition::Always(is_met_by_nothing(filter.operator)),
        Holds::Constant(constant) => Condition::Always(is_met_by_text(filter, constant)),
        Holds::Column(column) => on_column(filter, column, now),
        // The first that has a value: the second counts only where the first is missing.
        Holds::First(first, second) => match filter.operator {
            Operator::Exists => any([Condition::Present(first), Condition::Present(second)]),
            Operator::DoesNotExist => all([Condition::Missing(first), Condition::Missing(second)]),
            _ => {
                let of_first = all([Condition::Present(first), on_column(filter, first, now)]);
                any([of_first, all([Condition::Missing(first), on_column(filter, second, now)])])
            }
        },
    }
}

fn is_met_by_nothing(operator: Operator) -> bool {
    matches!(operator, Operator::IsNot | Operator::IsNone | Operator::DoesNotExist)
}

fn is_met_by_text(filter: &Filter, text: &str) -> bool {
    let is_one = match &filter.value {
        Value::Texts(values) => values.iter().any(|value| is_like(&text.to_lowercase(), &value.to_lowercase())),
        _ => true,
    };
    match filter.operator {
        Operator::IsNot | Operator::IsNone => !is_one,
        Operator::DoesNotExist => false,
        _ => is_one,
    }
}

/// Whether a text is like a value with wildcards.
fn is_like(text: &str, value: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    // Which beginnings of the text are like the part of the value that was read.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for letter in value.chars() {
        if letter == '*' {
            for at in 1..reached.len() {
                reached[at] |= reached[at - 1];
            }
            continue;
        }
        for at in (1..reached.len()).rev() {
            reached[at] = reached[at - 1] && (letter == '?' || letter == text[at - 1]);
        }
        reached[0] = false;
    }
    reached.last().copied().unwrap_or_default()
}

fn on_column(filter: &Filter, column: &'static str, now: Time) -> Condition {
    let (term, operator) = (filter.term, filter.operator);
    let is_list = term.kind().is_list();
    match (operator, is_list) {
        (Operator::Exists, false) => return Condition::Present(column),
        (Operator::Exists, true) => return Condition::Filled(column),
        (Operator::DoesNotExist, false) => return Condition::Missing(column),
        (Operator::DoesNotExist, true) => return Condition::Empty(column),
        _ => {}
    }
    let negated = matches!(operator, Operator::IsNot | Operator::IsNone);
    let condition = match &filter.value {
        Value::Nothing => Condition::Always(true),
        Value::Texts(values) => return texts(term, column, values, negated),
        Value::Numbers(values) => match (operator, is_list) {
            (Operator::GreaterThan, false) => number(Measure::Column(column), Comparison::Greater, values),
            (Operator::LessThan, false) => number(Measure::Column(column), Comparison::Less, values),
            // One element is greater when the largest is.
            (Operator::GreaterThan, true) => number(Measure::Largest(column), Comparison::Greater, values),
            (Operator::LessThan, true) => number(Measure::Smallest(column), Comparison::Less, values),
            (_, false) => Condition::InNumbers { column, values: values.clone(), negated },
            (_, true) => Condition::HasNumbers { column, values: values.clone(), negated },
        },
        Value::Flag(flag) => Condition::Compare {
            column: Measure::Column(column),
            comparison: if negated { Comparison::NotEqual } else { Comparison::Equal },
            constant: Constant::Flag(*flag),
        },
        Value::Moment(moment) => when(column, operator, *moment),
        Value::Span(span) => bound(column, Comparison::GreaterOrEqual, span.before(now)),
    };
    or_missing(column, condition, negated)
}

/// A negated condition holds for an event without the value, too.
fn or_missing(column: &'static str, condition: Condition, negated: bool) -> Condition {
    if negated { any([Condition::Missing(column), condition]) } else { condition }
}

fn number(column: Measure, comparison: Comparison, values: &[i64]) -> Condition {
    let constant = Constant::Number(values.first().copied().unwrap_or_default());
    Condition::Compare { column, comparison, constant }
}

/// Values without wildcards are compared together, each pattern for itself.
fn texts(term: Term, column: &'static str, values: &[String], negated: bool) -> Condition {
    let letters = term.letters();
    let mut values: Vec<String> = match letters {
        Letters::Exact => values.to_vec(),
        Letters::Lower | Letters::Mixed => values.iter().map(|value| value.to_lowercase()).collect(),
    };
    let fold = match letters {
        Letters::Exact | Letters::Lower => Fold::Nothing,
        Letters::Mixed if values.iter().any(|value| value.contains(SIGMAS)) => Fold::CaseAndSigma,
        Letters::Mixed => Fold::Case,
    };
    if fold == Fold::CaseAndSigma {
        values.iter_mut().for_each(|value| *value = value.replace(SIGMAS[0], &SIGMAS[1].to_string()));
    }
    let (mut patterns, mut plain): (Vec<String>, Vec<String>) =
        values.into_iter().partition(|value| has_wildcard(value));
    for values in [&mut patterns, &mut plain] {
        values.sort();
        values.dedup();
    }
    // Only wildcards of any length: any value there is.
    if patterns.iter().any(|pattern| pattern.chars().all(|letter| letter == '*')) {
        return match (term.kind(), negated) {
            (Kind::Texts, false) => Condition::Filled(column),
            (Kind::Texts, true) => Condition::Empty(column),
            (_, false) => Condition::Present(column),
            (_, true) => Condition::Missing(column),
        };
    }
    let is_list = term.kind() == Kind::Texts;
    let text = Text { column, is_list, fold };
    let mut conditions = Vec::new();
    match (plain.is_empty(), is_list, fold) {
        (true, ..) => {}
        (false, false, _) => conditions.push(Condition::In { text, values: plain, negated }),
        (false, true, Fold::Nothing) => conditions.push(Condition::Has { column, values: plain, negated }),
        // An element in any case is found where the elements stand between separators.
        (false, true, Fold::Case | Fold::CaseAndSigma) => conditions.extend(plain.iter().map(|value| {
            Condition::Like { text, pattern: format!("%{SEPARATOR}{}{SEPARATOR}%", like(value)), negated }
        })),
    }
    conditions.extend(patterns.iter().map(|pattern| match is_list {
        false => Condition::Like { text, pattern: like(pattern), negated },
        true => Condition::Matches { text, regular: regular(pattern), negated },
    }));
    let condition = if negated { all(conditions) } else { any(conditions) };
    or_missing(column, condition, negated)
}

/// `*` and `?` as LIKE has them; what LIKE would take for a wildcard is escaped.
fn like(value: &str) -> String {
    let mut pattern = String::with_capacity(value.len());
    let mut before = ' ';
    for letter in value.chars() {
        match letter {
            '*' if before == '*' => {}
            '*' => pattern.push('%'),
            '?' => pattern.push('_'),
            '%' | '_' | '\\' => pattern.extend(['\\', letter]),
            _ => pattern.push(letter),
        }
        before = letter;
    }
    pattern
}

/// A value with wildcards as a regular expression for one element between separators. `*` must not reach over into the
/// next element; a pattern of LIKE cannot say that. What is written here means the same in Rust and in Java.
fn regular(value: &str) -> String {
    let mut expression = String::from(SEPARATOR);
    let mut before = ' ';
    for letter in value.chars() {
        match letter {
            '*' if before == '*' => {}
            '*' => expression.extend(['[', '^', SEPARATOR, ']', '*']),
            '?' => expression.extend(['[', '^', SEPARATOR, ']']),
            // A class of one letter is easier to read than a backslash, and safe in every dialect's literals.
            '.' | '+' | '(' | ')' | '|' | '$' => expression.extend(['[', letter, ']']),
            '\\' | '^' | '[' | ']' | '{' | '}' => expression.extend(['\\', letter]),
            _ => expression.push(letter),
        }
        before = letter;
    }
    expression.push(SEPARATOR);
    expression
}

/// A condition on a time.
fn when(column: &'static str, operator: Operator, moment: Moment) -> Condition {
    let after_day = |day: NaiveDate| midnight(day.checked_add_days(Days::new(1)).unwrap_or(day));
    match (operator, moment) {
        (Operator::On, moment) => all([
            bound(column, Comparison::GreaterOrEqual, midnight(moment.day())),
            bound(column, Comparison::Less, after_day(moment.day())),
        ]),
        (Operator::OnOrBefore, Moment::Day(day)) => bound(column, Comparison::Less, after_day(day)),
        (Operator::OnOrBefore, Moment::Instant(time)) => bound(column, Comparison::LessOrEqual, time),
        (Operator::LessThan, moment) => bound(column, Comparison::Less, moment.begin()),
        (Operator::GreaterThan, Moment::Day(day)) => bound(column, Comparison::GreaterOrEqual, after_day(day)),
        (Operator::GreaterThan, Moment::Instant(time)) => bound(column, Comparison::Greater, time),
        (_, moment) => bound(column, Comparison::GreaterOrEqual, moment.begin()),
    }
}

/// A bound on a time. On the time of the event it bounds the partition, too, so that files of other days are not read.
fn bound(column: &'static str, comparison: Comparison, time: Time) -> Condition {
    // Engines that count nanoseconds end in 1677 and 2262; no mail was sent outside of these years.
    let year = |year| midnight(NaiveDate::from_ymd_opt(year, 1, 1).unwrap_or_default());
    let time = time.clamp(year(1900), year(2200));
    let compare =
        |column, comparison, constant| Condition::Compare { column: Measure::Column(column), comparison, constant };
    let condition = compare(column, comparison, Constant::Time(time));
    if column != "observed_at" {
        return condition;
    }
    let (comparison, day) = match comparison {
        // Nothing of a day is before its midnight.
        Comparison::Less if time == midnight(time.date_naive()) => (Comparison::Less, time),
        Comparison::Less | Comparison::LessOrEqual => (Comparison::LessOrEqual, time),
        _ => (Comparison::GreaterOrEqual, time),
    };
    all([condition, compare("event_date", comparison, Constant::Date(day.date_naive()))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_like_takes_for_a_wildcard_is_escaped() {
        assert_eq!(like("100%_a\\**b?"), "100\\%\\_a\\\\%b_");
    }

    #[test]
    fn a_wildcard_for_recipients_stays_within_one_address() {
        assert_eq!(regular("a.*@x"), "\u{1f}a[.][^\u{1f}]*@x\u{1f}");
    }

    #[test]
    fn a_text_is_like_a_value() {
        for (text, value, is_one) in [
            ("email", "email", true),
            ("email", "e*l", true),
            ("email", "*", true),
            ("email", "e?ail", true),
            ("email", "?email", false),
            ("email", "e*x", false),
            ("email", "*m*a*", true),
            ("", "*", true),
            ("", "?", false),
        ] {
            assert_eq!(is_like(text, value), is_one, "{text} {value}");
        }
    }
}
