//! An event's place in the order in which events became searchable, as text: `1764000000000000_<event id>`.
//!
//! It is the `event.id` of the API: who stored the last one that they saw gets, however much later, every event that
//! became searchable after it. That holds because `inserted_at` grows with each commit (`lake::commit`) and the
//! events of one commit are told apart by their ids. An event that is upgraded, as when its hash is found later, gets a new
//! place and is shown again.

use std::fmt;

use datafusion::arrow::datatypes::DataType;
use datafusion::functions::expr_fn::lpad;
use datafusion::logical_expr::{Expr, cast, lit};
use datafusion::prelude::{col, concat};
use uuid::Uuid;

use crate::clock::Time;

/// Digits of the time, so that texts sort as times do; enough until the year 2286.
const DIGITS: usize = 16;

/// An event's place in the order of insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// When it became searchable, in microseconds since 1970.
    pub inserted: i64,
    /// `event_id` of the lake.
    pub event: Uuid,
}

impl Place {
    /// Reads one; nothing when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (digits, event) = text.trim().split_once('_')?;
        if digits.len() != DIGITS || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        Some(Self { inserted: digits.parse().ok()?, event: event.parse().ok()? })
    }

    /// The place of a row that was written as JSON.
    pub fn of_row(row: &serde_json::Map<String, serde_json::Value>) -> Option<Self> {
        let text = |name: &str| row.get(name)?.as_str();
        let inserted: Time = text("inserted_at")?.parse().ok()?;
        Some(Self { inserted: inserted.timestamp_micros(), event: text("event_id")?.parse().ok()? })
    }

    /// When it became searchable; nothing for a number that is no time.
    pub fn time(self) -> Option<Time> {
        Time::from_timestamp_micros(self.inserted)
    }

    /// The same as an expression over the columns of `events`.
    pub(in crate::search) fn expression() -> Expr {
        let micros = cast(cast(col("inserted_at"), DataType::Int64), DataType::Utf8);
        concat(vec![lpad(vec![micros, lit(16_i64), lit("0")]), lit("_"), col("event_id")])
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0DIGITS$}_{}", self.inserted, self.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written_and_nothing_else_is_one() {
        let place = Place { inserted: 1_764_000_000_000_000, event: Uuid::from_u128(5) };
        assert_eq!(place.to_string(), "1764000000000000_00000000-0000-0000-0000-000000000005");
        assert_eq!(Place::parse(&place.to_string()), Some(place));
        assert!(Place { inserted: 5, ..place }.to_string() < place.to_string());
        for text in
            ["", "_", "1764000000000000", "1_00000000-0000-0000-0000-000000000005", "1764000000000000_x", "0_é_1"]
        {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }
}
