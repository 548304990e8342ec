//! Values of filters: what was given, checked against the term and the operator.

use std::fmt;

use chrono::{DateTime, Days, Months, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use serde_json::json;

use super::finding::{Finding, FindingKind};
use super::{Operator, Place, Term};
use crate::clock::Time;
use crate::limits;
use crate::search::query::term::Kind;

/// The value of a filter, in the form that its term and operator take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// EXISTS and DOES_NOT_EXIST have none.
    Nothing,
    /// One or more texts; `*` and `?` are wildcards. Hashes are in lower case.
    Texts(Vec<String>),
    /// One or more numbers.
    Numbers(Vec<i64>),
    /// True or false.
    Flag(bool),
    /// A day or an instant.
    Moment(Moment),
    /// A span of time back from now.
    Span(Span),
}

/// When: a whole day of UTC, or an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// `2026-10-31`: the whole day, wherever the day as such is meant.
    Day(NaiveDate),
    /// `2026-10-31T00:00:00.000Z`: exactly then.
    Instant(Time),
}

impl Moment {
    /// Its first instant.
    pub fn begin(self) -> Time {
        match self {
            Self::Day(day) => midnight(day),
            Self::Instant(time) => time,
        }
    }

    /// The UTC day that it is or lies in.
    pub fn day(self) -> NaiveDate {
        match self {
            Self::Day(day) => day,
            Self::Instant(time) => time.date_naive(),
        }
    }

    /// A bare date is a day. Only that: a midnight with zone may be meant exactly.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
            return Some(Self::Day(day));
        }
        let with_zone = || DateTime::parse_from_rfc3339(text).ok().map(|time| time.with_timezone(&Utc));
        let without = |form| NaiveDateTime::parse_from_str(text, form).ok().map(|time| time.and_utc());
        let time =
            with_zone().or_else(|| without("%Y-%m-%dT%H:%M:%S%.f")).or_else(|| without("%Y-%m-%d %H:%M:%S%.f"))?;
        // The lake keeps microseconds.
        DateTime::from_timestamp_micros(time.timestamp_micros()).map(Self::Instant)
    }
}

pub(super) fn midnight(day: NaiveDate) -> Time {
    day.and_time(NaiveTime::MIN).and_utc()
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day(day) => write!(f, "{}", day.format("%Y-%m-%d")),
            Self::Instant(time) => f.write_str(&time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)),
        }
    }
}

/// A duration of ISO 8601 (`P7D`, `PT15M`, `P1M`): months and years by the calendar, days of 24 hours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    text: String,
    months: u32,
    days: u64,
    micros: i64,
}

impl Span {
    /// Reads `P1Y2M3W4DT5H6M7.5S`, of which any part may be absent but not all; only seconds have a fraction.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_uppercase();
        let rest = text.strip_prefix('P')?;
        let (date, time) = match rest.split_once('T') {
            Some((_, "")) => return None,
            Some((date, time)) => (date, time),
            None => (rest, ""),
        };
        let (mut months, mut days, mut micros) = (0_u32, 0_u64, 0_i64);
        let dated = parts(date, "YMWD")?;
        let timed = parts(time, "HMS")?;
        if dated.is_empty() && timed.is_empty() {
            return None;
        }
        let whole = |number: &str| number.parse::<u32>().ok();
        for (number, unit) in dated {
            match unit {
                'Y' => months = months.checked_add(whole(number)?.checked_mul(12)?)?,
                'M' => months = months.checked_add(whole(number)?)?,
                'W' => days = days.checked_add(u64::from(whole(number)?) * 7)?,
                _ => days = days.checked_add(u64::from(whole(number)?))?,
            }
        }
        for (number, unit) in timed {
            let part = match unit {
                'H' => i64::from(whole(number)?) * 3_600_000_000,
                'M' => i64::from(whole(number)?) * 60_000_000,
                _ => seconds(number)?,
            };
            micros = micros.checked_add(part)?;
        }
        Some(Self { text, months, days, micros })
    }

    /// That long before `now`; the beginning of time when that is before it.
    pub fn before(&self, now: Time) -> Time {
        now.checked_sub_months(Months::new(self.months))
            .and_then(|time| time.checked_sub_days(Days::new(self.days)))
            .and_then(|time| time.checked_sub_signed(chrono::Duration::microseconds(self.micros)))
            .unwrap_or(DateTime::<Utc>::MIN_UTC)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Numbers with their units, which come in the order of `units`, each at most once.
fn parts<'a>(mut text: &'a str, units: &str) -> Option<Vec<(&'a str, char)>> {
    let mut parts = Vec::new();
    let mut left = units;
    while !text.is_empty() {
        let end = text.find(|letter: char| letter.is_ascii_alphabetic())?;
        let unit = text[end..].chars().next()?;
        left = left.split_once(unit)?.1;
        let number = &text[..end];
        if !number.bytes().all(|digit| digit.is_ascii_digit() || digit == b'.' || digit == b',') {
            return None;
        }
        parts.push((number, unit));
        text = &text[end + 1..];
    }
    Some(parts)
}

/// Seconds with at most six decimals, in microseconds.
fn seconds(number: &str) -> Option<i64> {
    let (whole, fraction) = number.split_once(['.', ',']).unwrap_or((number, "0"));
    if fraction.is_empty() || fraction.len() > 6 {
        return None;
    }
    let fraction: i64 = format!("{fraction:0<6}").parse().ok()?;
    Some(i64::from(whole.parse::<u32>().ok()?) * 1_000_000 + fraction)
}

impl Value {
    /// As the API has it.
    pub(super) fn to_json(&self, operator: Operator) -> serde_json::Value {
        match self {
            Self::Nothing => serde_json::Value::Null,
            Self::Texts(texts) if operator.takes_list() => json!(texts),
            Self::Texts(texts) => json!(texts.first()),
            Self::Numbers(numbers) if operator.takes_list() => json!(numbers),
            Self::Numbers(numbers) => json!(numbers.first()),
            Self::Flag(flag) => json!(flag),
            Self::Moment(moment) => json!(moment.to_string()),
            Self::Span(span) => json!(span.to_string()),
        }
    }

    /// How many values it is, and how many of them have wildcards.
    pub(super) fn count(&self) -> (usize, usize) {
        match self {
            Self::Texts(texts) => (texts.len(), texts.iter().filter(|text| has_wildcard(text)).count()),
            Self::Numbers(numbers) => (numbers.len(), 0),
            Self::Nothing | Self::Flag(_) | Self::Moment(_) | Self::Span(_) => (1, 0),
        }
    }
}

/// Whether a text is a pattern.
pub(super) fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// What was given as a value, before anybody knows whether it fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Given {
    /// No value.
    #[default]
    Nothing,
    /// One value.
    One(String),
    /// A list of values.
    Many(Vec<String>),
}

impl Given {
    pub(super) fn to_json(&self) -> Option<serde_json::Value> {
        match self {
            Self::Nothing => None,
            Self::One(value) => Some(json!(value)),
            Self::Many(values) => Some(json!(values)),
        }
    }
}

/// Checks a value against its term and operator.
pub(super) fn check(term: Term, operator: Operator, given: Given) -> Result<Value, Finding> {
    let problem = |kind, description: String| {
        Box::new(Finding {
            kind,
            term: Some(term.name().to_owned()),
            operator: Some(operator.as_str().to_owned()),
            value: given.to_json(),
            description,
        })
    };
    let found = |kind, description| Err(*problem(kind, description));
    if !term.kind().operators().contains(&operator) {
        let takes: Vec<&str> = term.kind().operators().iter().map(|operator| operator.as_str()).collect();
        let description = format!("`{term}` takes {}, not {}", takes.join(", "), operator.as_str());
        return found(FindingKind::IllegalOperator, description);
    }
    let values: Vec<&str> = match &given {
        Given::Nothing => Vec::new(),
        Given::One(value) => vec![value],
        Given::Many(values) => values.iter().map(String::as_str).collect(),
    };
    if matches!(operator, Operator::Exists | Operator::DoesNotExist) {
        // Clients send null, an empty text or an empty list for none.
        return match values.iter().all(|value| value.is_empty()) {
            true => Ok(Value::Nothing),
            false => found(FindingKind::UnexpectedValue, format!("{} takes no value", operator.as_str())),
        };
    }
    if values.is_empty() || values.iter().any(|value| value.is_empty()) {
        return found(FindingKind::MissingValue, format!("{} needs a value", operator.as_str()));
    }
    if values.len() > 1 && !operator.takes_list() {
        let description = format!("{} takes one value; IS_ANY and IS_NONE take a list", operator.as_str());
        return found(FindingKind::IllegalValue, description);
    }
    if values.iter().any(|value| value.chars().count() > limits::SEARCH_VALUE_LETTERS) {
        let description = format!("a value has at most {} letters", limits::SEARCH_VALUE_LETTERS);
        return found(FindingKind::MaxLengthExceeded, description);
    }
    let value = match (term.kind(), operator) {
        (Kind::Time, Operator::WithinTheLast) => Span::parse(values[0]).map(Value::Span),
        (Kind::Time, _) => Moment::parse(values[0]).map(Value::Moment),
        (Kind::Number | Kind::Numbers, _) => {
            values.iter().map(|value| number(value)).collect::<Option<_>>().map(Value::Numbers)
        }
        (Kind::Flag, _) => flag(values[0]).map(Value::Flag),
        (Kind::Hash, _) => values.iter().map(|value| hash(term, value)).collect::<Option<_>>().map(Value::Texts),
        (Kind::Identifier, _) => Some(Value::Texts(values.iter().map(|value| identifier(term, value)).collect())),
        (Kind::Text, _) => Some(Value::Texts(values.iter().map(|value| (*value).to_owned()).collect())),
        (Kind::Texts, _) => values.iter().map(|value| element(value)).collect::<Option<_>>().map(Value::Texts),
    };
    let Some(value) = value else {
        let want = match (term.kind(), operator) {
            (Kind::Time, Operator::WithinTheLast) => "a duration of ISO 8601 (P7D, PT15M, P1M)",
            (Kind::Time, _) => "a day (2026-10-31) or a time (2026-10-31T15:00:00Z)",
            (Kind::Number | Kind::Numbers, _) => "a whole number",
            (Kind::Flag, _) => "true or false",
            (Kind::Hash, _) if term.name().contains("md5") => "an MD5: 32 hexadecimal digits, or a pattern of them",
            (Kind::Hash, _) => "a SHA-256: 64 hexadecimal digits, or a pattern of them",
            _ => "a text without the control character U+001F",
        };
        return found(FindingKind::IllegalValue, format!("`{term}` {} needs {want}", operator.as_str()));
    };
    if matches!(&value, Value::Texts(texts) if texts.iter().any(String::is_empty)) {
        return found(FindingKind::MissingValue, format!("{} needs a value", operator.as_str()));
    }
    Ok(value)
}

/// A whole number; `1.0` is one. The smallest is not taken: SQL has no literal for it.
fn number(text: &str) -> Option<i64> {
    let text = text.trim();
    let whole = text.split_once('.').filter(|(_, zeros)| zeros.bytes().all(|digit| digit == b'0'));
    let number: i64 = whole.map_or(text, |(whole, _)| whole).parse().ok()?;
    (number != i64::MIN).then_some(number)
}

/// Clients of Python send True as 1 where a field takes texts and numbers.
fn flag(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// A mistyped hash must not look like a file that nobody sent.
fn hash(term: Term, text: &str) -> Option<String> {
    let digits = if term.name().contains("md5") { 32 } else { 64 };
    let text = text.trim().to_ascii_lowercase();
    let is_hash = if has_wildcard(&text) {
        text.chars().all(|letter| letter.is_ascii_hexdigit() || letter == '*' || letter == '?')
    } else {
        text.len() == digits && text.bytes().all(|digit| digit.is_ascii_hexdigit())
    };
    is_hash.then_some(text)
}

/// An event may be named by its id in the lake or by its place, as the API does.
fn identifier(term: Term, text: &str) -> String {
    match Place::parse(text) {
        Some(place) if term.name() == "event.id" => place.event.to_string(),
        _ => text.trim().to_owned(),
    }
}

/// U+001F keeps the elements of a list apart where a pattern is tried on them.
fn element(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.contains('\u{1f}')).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Time {
        Moment::parse(text).unwrap().begin()
    }

    #[test]
    fn spans_are_durations_of_iso_8601() {
        let now = time("2026-03-31T12:00:00Z");
        for (span, begin) in [
            ("P7D", "2026-03-24T12:00:00Z"),
            ("PT15M", "2026-03-31T11:45:00Z"),
            ("P1M", "2026-02-28T12:00:00Z"),
            ("P1Y", "2025-03-31T12:00:00Z"),
            ("P2W", "2026-03-17T12:00:00Z"),
            ("p1dt12h", "2026-03-30T00:00:00Z"),
            ("PT0.5S", "2026-03-31T11:59:59.5Z"),
        ] {
            assert_eq!(Span::parse(span).unwrap().before(now), time(begin), "{span}");
        }
        for wrong in
            ["", "P", "PT", "7D", "P7", "P-7D", "P7DT", "PT7D", "P1D2W", "P1.5D", "PT1.1234567S", "P99999999999D", "Pü"]
        {
            assert_eq!(Span::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Span::parse("P4294967295D").unwrap().before(now), DateTime::<Utc>::MIN_UTC);
    }

    #[test]
    fn a_bare_date_is_a_day_and_a_midnight_is_an_instant() {
        assert!(matches!(Moment::parse("2026-10-31"), Some(Moment::Day(_))));
        assert!(matches!(Moment::parse("2026-10-31T00:00:00.000Z"), Some(Moment::Instant(_))));
        assert_eq!(time("2026-10-31 01:00:00"), time("2026-10-31T02:00:00+01:00"));
        for wrong in ["", "yesterday", "2026-02-30", "2026-10-31T25:00:00Z", "1790000000"] {
            assert_eq!(Moment::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_a_finding_of_the_right_kind() {
        let finding = |term, operator, given| check(Term::parse(term).unwrap(), operator, given).unwrap_err().kind;
        let one = |text: &str| Given::One(text.to_owned());
        use FindingKind::{IllegalOperator, IllegalValue, MaxLengthExceeded, MissingValue, UnexpectedValue};
        assert_eq!(finding("file.name", Operator::GreaterThan, one("1")), IllegalOperator);
        assert_eq!(finding("@timestamp", Operator::Is, one("2026-10-31")), IllegalOperator);
        assert_eq!(finding("risk.score", Operator::GreaterThan, one("high")), IllegalValue);
        assert_eq!(finding("risk.score", Operator::Is, one("1.5")), IllegalValue);
        assert_eq!(finding("risk.trusted", Operator::Is, one("maybe")), IllegalValue);
        assert_eq!(finding("file.hash.md5", Operator::Is, one("d41d")), IllegalValue);
        assert_eq!(finding("file.hash.sha256", Operator::Is, one("d41d8cd98f00b204e9800998ecf8427e")), IllegalValue);
        assert_eq!(finding("@timestamp", Operator::WithinTheLast, one("7 days")), IllegalValue);
        assert_eq!(finding("file.name", Operator::Is, Given::Nothing), MissingValue);
        assert_eq!(finding("file.name", Operator::Is, one("")), MissingValue);
        assert_eq!(finding("source.email.sender", Operator::Is, one(" ")), MissingValue);
        assert_eq!(finding("file.name", Operator::IsAny, Given::Many(vec![])), MissingValue);
        assert_eq!(finding("file.name", Operator::Exists, one("x")), UnexpectedValue);
        assert_eq!(finding("file.name", Operator::Is, one(&"x".repeat(2049))), MaxLengthExceeded);
        assert_eq!(finding("destination.email.recipients", Operator::Is, one("a\u{1f}b")), IllegalValue);
        assert_eq!(finding("file.name", Operator::Is, Given::Many(vec!["a".into(), "b".into()])), IllegalValue);
    }
}
