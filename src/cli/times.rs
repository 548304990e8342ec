//! Times as people type them.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};

pub(super) use crate::clock::span;
use crate::clock::{Clock, Time};
use crate::error::{Code, Error, Result};

/// RFC 3339, a day (its first instant, UTC), `now`, or a span back from now: `90s`, `30m`, `24h`, `7d`, `2w`.
pub(super) fn parse(text: &str, clock: &Clock) -> Result<Time> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("now") {
        return Ok(clock.now());
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.with_timezone(&Utc));
    }
    if let Ok(day) = text.parse::<NaiveDate>() {
        return Ok(day.and_time(NaiveTime::MIN).and_utc());
    }
    let not_a_time = || {
        Error::new(
            Code::Usage,
            format!(
                "`{text}` is not a time: give RFC 3339 (2026-11-23T15:00:00Z), a day (2026-11-23), or a span back from now (24h, 7d)"
            ),
        )
    };
    let span = span(text).ok_or_else(not_a_time)?;
    clock.now().checked_sub_signed(span).ok_or_else(not_a_time)
}

/// Like [`parse`], but a day means its end: the first instant of the next one. For the end of an interval.
pub(super) fn parse_end(text: &str, clock: &Clock) -> Result<Time> {
    match text.trim().parse::<NaiveDate>() {
        Ok(day) => Ok(day.succ_opt().unwrap_or(day).and_time(NaiveTime::MIN).and_utc()),
        Err(_) => parse(text, clock),
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;

    use super::*;

    #[test]
    fn people_type_times_in_four_ways() {
        let now = Utc.with_ymd_and_hms(2026, 11, 23, 15, 0, 0).unwrap();
        let clock = Clock::manual(now);
        let day = Utc.with_ymd_and_hms(2026, 11, 1, 0, 0, 0).unwrap();
        assert_eq!(parse("2026-11-01T01:00:00+01:00", &clock).unwrap(), day);
        assert_eq!(parse("2026-11-01", &clock).unwrap(), day);
        assert_eq!(parse_end("2026-10-31", &clock).unwrap(), day, "an end that is a day includes it");
        assert_eq!(parse("24h", &clock).unwrap(), now - chrono::Duration::hours(24));
        assert_eq!(parse("now", &clock).unwrap(), now);
    }

    #[test]
    fn what_is_no_time_is_wrong_usage() {
        let clock = Clock::System;
        for text in ["", "yesterday", "7", "d", "-7d", "9223372036854775807w", "7d7d", "ü"] {
            assert_eq!(parse(text, &clock).unwrap_err().code(), Code::Usage, "{text}");
        }
    }
}
