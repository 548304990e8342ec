//! Cron expressions: the five fields that every scheduler reads alike, and when they fire.
//!
//! Schedulers agree on numbers, names, lists, ranges and steps, and on little else. What they read differently (`L`,
//! `W`, `#`, nicknames, seconds, `*/2` as a day beside a weekday) is refused, so that a job file means the same to
//! Waybill, cron, systemd, Kubernetes and Airflow. `croner` finds the instants, clock changes included.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::Cron as Pattern;
use serde::Deserialize;

use crate::clock::Time;
use crate::error::{Code, Error};

/// The fields in their order: name, least and greatest value, words for values.
const FIELDS: [(&str, u16, u16, &[&str]); 5] = [
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of the month", 1, 31, &[]),
    ("month", 1, 12, &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]),
    ("weekday", 0, 7, &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]),
];

/// A cron expression that fires.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Cron {
    text: String,
    pattern: Pattern,
    fields: Fields,
}

/// What the fields mean, sorted. Days and weekdays are `None` where they say nothing; if both say something, a day has to
/// be one *or* the other, as cron has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) minutes: Vec<u16>,
    pub(super) hours: Vec<u16>,
    pub(super) days: Option<Vec<u16>>,
    pub(super) months: Vec<u16>,
    /// 0 is Sunday.
    pub(super) weekdays: Option<Vec<u16>>,
}

impl FromStr for Cron {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |why: String| Error::new(Code::Configuration, format!("`{text}` is not a cron expression: {why}"));
        let words: Vec<&str> = text.split_whitespace().collect();
        let &[.., days, _, weekdays] = words.as_slice() else {
            return Err(refuse(count(&words)));
        };
        if words.len() != FIELDS.len() {
            return Err(refuse(count(&words)));
        }
        for (index, word) in words.iter().enumerate() {
            check(index, word).map_err(&refuse)?;
        }
        if days != "*" && weekdays != "*" && format!("{days}{weekdays}").contains('*') {
            return Err(refuse(format!(
                "the day of the month (`{days}`) and the weekday (`{weekdays}`) are both limited, and schedulers disagree \
                 about what `*/…` means then; list the days"
            )));
        }
        let pattern = Pattern::from_str(text).map_err(|error| refuse(error.to_string()))?;
        let fields = Fields::of(&pattern.pattern);
        let cron = Self { text: words.join(" "), pattern, fields };
        // A leap year begins: whatever fires at all does so within the next years.
        if cron.next(DateTime::UNIX_EPOCH + chrono::Duration::days(30 * 365 + 7), Tz::UTC).is_none() {
            return Err(refuse("no such day exists, so it would never fire".to_owned()));
        }
        Ok(cron)
    }
}

impl TryFrom<String> for Cron {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn count(words: &[&str]) -> String {
    format!("it has {} fields and not 5 (minute, hour, day of the month, month, weekday)", words.len())
}

/// Refuses what not every scheduler reads alike, and says which field is wrong.
fn check(index: usize, word: &str) -> Result<(), String> {
    let (name, least, greatest, names) = FIELDS[index];
    let refuse = |why: &str| Err(format!("the {name} `{word}` {why}"));
    for part in word.split(',') {
        if part.is_empty() {
            return refuse("has an empty place in its list");
        }
        for value in part.split(['-', '/']) {
            let is_known = value == "*"
                || value.chars().all(|letter| letter.is_ascii_digit())
                || names.contains(&value.to_ascii_uppercase().as_str());
            if !is_known || value.is_empty() {
                return refuse("is not made of numbers, names, `*`, `,`, `-` and `/`");
            }
        }
    }
    let mut alone = ["*"; FIELDS.len()];
    alone[index] = word;
    match Pattern::from_str(&alone.join(" ")) {
        Ok(_) => Ok(()),
        Err(_) => refuse(&format!(
            "cannot be; it goes from {least} to {greatest}, a range upwards, a step from `*` or a range"
        )),
    }
}

impl Cron {
    /// The first instant after `after` at which it fires on the clocks of `zone`.
    ///
    /// Where a clock goes forward, a time of day that it leaves out fires at the first instant after; where it goes back,
    /// a time of day fires once. Expressions with `*` in minute or hour follow the clock instead: they leave out and
    /// repeat with it.
    pub fn next(&self, after: Time, zone: Tz) -> Option<Time> {
        let next = self.pattern.find_next_occurrence(&after.with_timezone(&zone), false).ok()?;
        Some(next.with_timezone(&Utc))
    }

    /// The last instant up to `until`, itself included, at which it fired.
    pub(super) fn latest(&self, until: Time, zone: Tz) -> Option<Time> {
        let latest = self.pattern.find_previous_occurrence(&until.with_timezone(&zone), true).ok()?;
        Some(latest.with_timezone(&Utc))
    }

    /// The same in the smallest dialect, for whatever reads it: numbers only, Sunday is 0.
    pub(super) fn plain(&self) -> String {
        let Fields { minutes, hours, days, months, weekdays } = &self.fields;
        [
            steps(minutes, 60),
            steps(hours, 24),
            days.as_ref().map_or("*".to_owned(), |days| list(days, "-", |day| day.to_string())),
            if months.len() == 12 { "*".to_owned() } else { list(months, "-", |month| month.to_string()) },
            weekdays.as_ref().map_or("*".to_owned(), |weekdays| list(weekdays, "-", |weekday| weekday.to_string())),
        ]
        .join(" ")
    }

    /// What its fields mean.
    pub(super) fn fields(&self) -> &Fields {
        &self.fields
    }
}

impl Fields {
    fn of(pattern: &croner::CronPattern) -> Self {
        let some = |is_any: bool, values: Vec<u16>, all: usize| (!is_any && values.len() < all).then_some(values);
        let is_any = [pattern.is_dom_wildcard(), pattern.is_dow_wildcard()];
        let mut days = some(is_any[0], pattern.days.values(), 31);
        let mut weekdays = some(is_any[1], pattern.days_of_week.values(), 7);
        // One or the other, and one of them is every day.
        if is_any == [false, false] && (days.is_none() || weekdays.is_none()) {
            (days, weekdays) = (None, None);
        }
        Self {
            minutes: pattern.minutes.values(),
            hours: pattern.hours.values(),
            days,
            months: pattern.months.values(),
            weekdays,
        }
    }
}

/// Minutes or hours: `*`, `*/n` or a list.
fn steps(values: &[u16], size: u16) -> String {
    let step = values.get(1).map_or(size, |second| *second).max(1);
    let is_even = values.iter().copied().eq((0..size).step_by(step.into()));
    match step {
        1 if is_even => "*".to_owned(),
        _ if is_even && values.len() > 1 => format!("*/{step}"),
        _ => list(values, "-", |value| value.to_string()),
    }
}

/// A list in which three or more neighbours become a range.
pub(super) fn list(values: &[u16], to: &str, show: impl Fn(u16) -> String) -> String {
    let runs = values.chunk_by(|one, next| one + 1 == *next);
    let parts = runs.flat_map(|run| match *run {
        [first, _, .., last] => vec![format!("{}{to}{}", show(first), show(last))],
        _ => run.iter().map(|value| show(*value)).collect(),
    });
    parts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;

    use super::*;

    fn time(text: &str) -> Time {
        DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc)
    }

    #[test]
    fn what_is_wrong_is_said_with_its_field() {
        let refused = |text: &str| text.parse::<Cron>().unwrap_err().message().to_owned();
        assert_eq!(
            refused("hourly"),
            "`hourly` is not a cron expression: it has 1 fields and not 5 (minute, hour, day of the month, month, weekday)"
        );
        assert!(refused("0 0 0 * * *").contains("it has 6 fields"), "no seconds");
        assert!(refused("0 25 * * *").contains("the hour `25` cannot be; it goes from 0 to 23"));
        assert!(refused("0 22-2 * * *").contains("the hour `22-2`"));
        assert!(refused("5/10 * * * *").contains("the minute `5/10`"));
        assert!(refused("*/0 * * * *").contains("the minute `*/0`"));
        assert!(refused("MON * * * *").contains("the minute `MON` is not made of"));
        assert!(refused("1,,2 * * * *").contains("an empty place"));
        assert!(refused("0 0 L * *").contains("the day of the month `L`"));
        assert!(refused("0 0 * * 5#2").contains("the weekday `5#2`"));
        assert!(refused("0 0 */2 * MON").contains("list the days"));
        assert!(refused("0 0 31 2,4 *").contains("never fire"));
        for text in
            ["", "@daily", "- - - - -", "0 0 * * +1", "? * * * *", "0 0 * MON *", "0 0 * * 8", "0 0 0 * *", "ü * * * *"]
        {
            assert_eq!(text.parse::<Cron>().unwrap_err().code(), Code::Configuration, "{text}");
        }
    }

    #[test]
    fn the_plain_form_means_the_same() {
        for (text, plain) in [
            ("5 * * * *", "5 * * * *"),
            ("*/15 0-23 * JAN-DEC *", "*/15 * * * *"),
            ("30  2 * * MON-FRI", "30 2 * * 1-5"),
            ("0 0 * * 5-7", "0 0 * * 0,5,6"),
            ("0 6,18 1,15 */3 *", "0 6,18 1,15 1,4,7,10 *"),
            ("0 0 13 * FRI", "0 0 13 * 5"),
            ("0 0 1-31 * FRI", "0 0 * * *"),
            ("10-14/2 */7 29 2 *", "10,12,14 */7 29 2 *"),
        ] {
            let cron: Cron = text.parse().unwrap();
            let again: Cron = cron.plain().parse().unwrap();
            assert_eq!(again.fields, cron.fields);
            assert_eq!(cron.plain(), plain);
        }
    }

    #[test]
    fn a_day_is_one_or_the_other_when_both_are_given() {
        let cron: Cron = "0 0 13 * FRI".parse().unwrap();
        let start = time("2026-11-12T00:00:00Z");
        let first = cron.next(start, Tz::UTC).unwrap();
        assert_eq!(first, time("2026-11-13T00:00:00Z"), "a Friday and a thirteenth");
        let second = cron.next(first, Tz::UTC).unwrap();
        assert_eq!(second, time("2026-11-20T00:00:00Z"), "a Friday");
        assert_eq!(cron.next(time("2026-12-12T00:00:00Z"), Tz::UTC).unwrap(), time("2026-12-13T00:00:00Z"), "a Sunday");
    }

    #[test]
    fn around_a_clock_change_a_nightly_job_fires_once_a_night() {
        let cron: Cron = "30 2 * * *".parse().unwrap();
        let berlin = Tz::Europe__Berlin;
        let fires = |from: &str, count: usize| {
            let mut at = time(from);
            std::iter::from_fn(|| {
                at = cron.next(at, berlin)?;
                Some(at)
            })
            .take(count)
            .collect::<Vec<_>>()
        };
        let night = |day: u32, hour: u32, minute: u32, month: u32| {
            Utc.with_ymd_and_hms(2026, month, day, hour, minute, 0).unwrap()
        };
        // 29 March 2026: 02:00 becomes 03:00, so 02:30 does not exist. 25 October: 03:00 becomes 02:00, so it comes twice.
        assert_eq!(fires("2026-03-27T12:00:00Z", 3), [night(28, 1, 30, 3), night(29, 1, 0, 3), night(30, 0, 30, 3)]);
        assert_eq!(
            fires("2026-10-23T12:00:00Z", 3),
            [night(24, 0, 30, 10), night(25, 0, 30, 10), night(26, 1, 30, 10)]
        );
    }
}
