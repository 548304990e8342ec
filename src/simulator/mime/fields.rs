//! Addresses and dates, read leniently: what is there of an address or of a date is used.

use chrono::{DateTime, NaiveDate, Utc};

use super::headers::decode_words;

/// A display name and an address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Mailbox {
    pub(crate) name: String,
    pub(crate) address: String,
}

/// The mailboxes of an address list (RFC 5322, 3.4): groups are opened, comments dropped, names decoded.
pub(crate) fn mailboxes(value: &[u8]) -> Vec<Mailbox> {
    let mut list = Vec::new();
    let mut name: Vec<u8> = Vec::new();
    let mut angle: Option<Vec<u8>> = None;
    let mut bytes = value.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => name.extend(bytes.next()),
                        byte => name.push(byte),
                    }
                }
            }
            b'(' => skip_comment(&mut bytes),
            b'<' => {
                let mut address = Vec::new();
                while let Some(byte) = bytes.next_if(|byte| *byte != b'>') {
                    match byte {
                        b'(' => skip_comment(&mut bytes),
                        byte => address.push(byte),
                    }
                }
                angle = Some(address);
            }
            b'>' => {}
            // A colon ends a group's name, if it is not inside of an address.
            b':' => name.clear(),
            b',' | b';' => push(&mut list, &mut name, &mut angle),
            byte => name.push(byte),
        }
    }
    push(&mut list, &mut name, &mut angle);
    list
}

/// Comments nest.
fn skip_comment(bytes: &mut impl Iterator<Item = u8>) {
    let mut depth = 1;
    while let Some(byte) = bytes.next() {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

/// Blanks around dots and at signs belong to the address (the obsolete syntax of RFC 5322, 4.4).
fn without_inner_blanks(text: &str) -> String {
    let mut joined = String::new();
    for word in text.split_whitespace() {
        if !joined.is_empty() && !joined.ends_with(['.', '@']) && !word.starts_with(['.', '@']) {
            joined.push(' ');
        }
        joined.push_str(word);
    }
    joined
}

fn push(list: &mut Vec<Mailbox>, name: &mut Vec<u8>, angle: &mut Option<Vec<u8>>) {
    let text = without_inner_blanks(&decode_words(name));
    name.clear();
    let (name, address) = match angle.take() {
        Some(address) => (text, decode_words(&address)),
        // `Big Bug bb@bug.com`: the first word that looks like an address is it.
        None => match text.split_whitespace().find(|word| word.trim_matches('@').contains('@')) {
            Some(word) => (text.split(word).next().unwrap_or_default().trim().to_owned(), word.to_owned()),
            None => (String::new(), text),
        },
    };
    // The obsolete route `@a,@b:local@domain` is not part of the address (RFC 5322, 4.4).
    let address = match address.split_once(':') {
        Some((route, address)) if route.trim_start().starts_with('@') => address,
        _ => &address,
    };
    let address: String = address.chars().filter(|character| !character.is_whitespace()).collect();
    if !address.is_empty() {
        list.push(Mailbox { name, address });
    }
}

/// A `Date` field in any of the forms seen in mail, including the obsolete ones of RFC 5322, 4.3. Without a known zone
/// it counts as UTC.
pub(crate) fn date(value: &[u8]) -> Option<DateTime<Utc>> {
    let text = String::from_utf8_lossy(value).into_owned();
    let text = text.split('(').next().unwrap_or_default();
    let (mut day, mut month, mut year, mut time, mut offset) = (None, None, None, None, 0_i64);
    for token in text.split(|character: char| character.is_whitespace() || character == ',') {
        if token.is_empty() {
            continue;
        }
        if token.contains(':') {
            let (clock, zone) = match token.find(['+', '-']) {
                Some(sign) => token.split_at(sign),
                None => (token.trim_end_matches('Z'), ""),
            };
            time = time.or(clock_seconds(clock));
            offset = zone_seconds(zone).unwrap_or(offset);
        } else if let Some(number) = month_number(token) {
            month = month.or(Some(number));
        } else if token.starts_with(['+', '-']) {
            offset = zone_seconds(token).unwrap_or(offset);
        } else if let Ok(number) = token.parse::<i32>() {
            if day.is_none() && (1..=31).contains(&number) && token.len() <= 2 {
                day = Some(number);
            } else {
                year = year.or(Some(full_year(number, token.len())));
            }
        } else if token.matches('-').count() == 2 {
            // `02-Jan-06` of RFC 850, or `2006-01-02`.
            let pieces: Vec<&str> = token.split('-').collect();
            if let (Ok(first), Ok(last)) = (pieces[0].parse::<i32>(), pieces[2].parse::<i32>()) {
                let middle = month_number(pieces[1]).or_else(|| pieces[1].parse().ok());
                let year_is_first = pieces[0].len() == 4;
                month = month.or(middle);
                day = day.or(Some(if year_is_first { last } else { first }));
                let (number, digits) = if year_is_first { (first, 4) } else { (last, pieces[2].len()) };
                year = year.or(Some(full_year(number, digits)));
            }
        } else {
            offset = zone_seconds(token).unwrap_or(offset);
        }
    }
    let date = NaiveDate::from_ymd_opt(year?, month?, u32::try_from(day?).ok()?)?;
    let midnight = date.and_hms_opt(0, 0, 0)?.and_utc().timestamp();
    DateTime::from_timestamp(midnight + time? - offset, 0)
}

fn clock_seconds(clock: &str) -> Option<i64> {
    let mut pieces = clock.split(':').map(|piece| piece.split('.').next().unwrap_or_default().parse::<i64>());
    let (hours, minutes) = (pieces.next()?.ok()?, pieces.next()?.ok()?);
    let seconds = pieces.next().map_or(Some(0), Result::ok)?;
    let valid = (0..24).contains(&hours) && (0..60).contains(&minutes) && (0..=60).contains(&seconds);
    valid.then_some(hours * 3600 + minutes * 60 + seconds.min(59))
}

fn month_number(token: &str) -> Option<u32> {
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let start = token.get(..3)?.to_ascii_lowercase();
    let number = MONTHS.iter().position(|month| *month == start)? as u32 + 1;
    token.chars().all(|character| character.is_alphabetic() || character == '.').then_some(number)
}

/// Two digits mean 1969 to 2068, as POSIX has it.
fn full_year(number: i32, digits: usize) -> i32 {
    match number {
        0..=68 if digits <= 2 => number + 2000,
        69..=99 if digits <= 2 => number + 1900,
        100..=199 if digits == 3 => number + 1900,
        number => number,
    }
}

fn zone_seconds(zone: &str) -> Option<i64> {
    if let Some(digits) = zone.strip_prefix(['+', '-']) {
        let number: i64 = digits.replace(':', "").parse().ok()?;
        let seconds = (number / 100) * 3600 + (number % 100) * 60;
        return (seconds < 86_400).then_some(if zone.starts_with('-') { -seconds } else { seconds });
    }
    let hours = match zone.to_ascii_uppercase().as_str() {
        "UT" | "UTC" | "GMT" | "Z" => 0,
        "EDT" | "AST" => -4,
        "EST" | "CDT" => -5,
        "CST" | "MDT" => -6,
        "MST" | "PDT" => -7,
        "PST" => -8,
        "ADT" => -3,
        _ => return None,
    };
    Some(hours * 3600)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(value: &str) -> Vec<String> {
        mailboxes(value.as_bytes()).into_iter().map(|mailbox| format!("{}|{}", mailbox.name, mailbox.address)).collect()
    }

    #[test]
    fn address_lists_are_opened() {
        assert_eq!(addresses("\"Doe, A.\" <a@x.org>, b@x.org (Bee)"), ["Doe, A.|a@x.org", "|b@x.org"]);
        assert_eq!(addresses("Team: a@x.org, C <c@x.org>;, d@x.org"), ["|a@x.org", "C|c@x.org", "|d@x.org"]);
        assert_eq!(addresses("=?utf-8?q?J=C3=BCrgen?= <j@x.org"), ["Jürgen|j@x.org"]);
        assert_eq!(addresses("undisclosed-recipients:;"), [""; 0]);
        assert_eq!(addresses("Big Bug bb@bug.com"), ["Big Bug|bb@bug.com"]);
        assert_eq!(addresses("jdoe@test   . example"), ["|jdoe@test.example"]);
        assert_eq!(
            addresses("Pete <pete(his \\) account)@silly.test(host)>, <@a.tld,@b.tld:m@x.net>"),
            ["Pete|pete@silly.test", "|m@x.net"]
        );
        assert_eq!(addresses("@"), ["|@"]);
    }

    #[test]
    fn dates_come_in_every_form() {
        let at = |value: &str| date(value.as_bytes()).map(|time| time.to_rfc3339());
        assert_eq!(at("Fri, 21 Nov 1997 09:55:06 -0600").as_deref(), Some("1997-11-21T15:55:06+00:00"));
        assert_eq!(at("21 Nov 97 09:55:06 GMT").as_deref(), Some("1997-11-21T09:55:06+00:00"));
        assert_eq!(at("Thu Nov 20 09:55 2025").as_deref(), Some("2025-11-20T09:55:00+00:00"));
        assert_eq!(at("Mon, 2 Jan 2006 15:04:05 +0200 (EET)").as_deref(), Some("2006-01-02T13:04:05+00:00"));
        assert_eq!(at("2006-01-02 15:04:05").as_deref(), Some("2006-01-02T15:04:05+00:00"));
        assert_eq!(at("yesterday"), None);
        assert_eq!(at("31 Feb 2020 10:00:00 +0000"), None);
    }
}
