//! Looking through events: a page in an order, how many there are over time, and what values there are of a term.
//!
//! A page begins where the last one ended, by the value of its order and the event's id, and never by counting rows: so
//! the thousandth page costs what the first one does.

use std::collections::HashMap;

use arrow::datatypes::DataType;
use chrono::NaiveDate;
use datafusion::common::ScalarValue;
use datafusion::dataframe::DataFrame;
use datafusion::functions_aggregate::expr_fn::{count, max, min};
use datafusion::logical_expr::{Expr, cast, lit};
use datafusion::prelude::{col, date_trunc, lower};
use serde_json::{Map, Value};

use super::query::{Place, Query, Term};
use super::{Search, query_error};
use crate::clock::Time;
use crate::error::{Code, Error, Result};

/// A row as JSON.
pub type JsonRow = Map<String, Value>;

/// Which events somebody looks through, and when.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// Which events.
    pub query: &'a Query,
    /// From when spans count back.
    pub now: Time,
    /// What the record of searches says.
    pub text: &'a str,
}

/// The order of events; those without a value come last, and the id decides between equals.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// A column of `events` with one value per event.
    pub column: &'a str,
    /// The greatest first.
    pub is_descending: bool,
}

impl Order<'_> {
    /// Whether the greatest id comes first among equals. What was inserted at the same time is ordered by its id in the same
    /// direction, so that the order is that of the events' places.
    pub fn ties_fall(self) -> bool {
        self.is_descending && self.column == "inserted_at"
    }
}

/// A mark in an order: an event's value and its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The value as JSON has it; nothing where the event has none.
    pub value: Option<String>,
    /// The event.
    pub event_id: String,
}

/// Where a page begins or ends.
#[derive(Clone, Debug)]
pub enum Near {
    /// At the first event.
    Start,
    /// After so many events, which costs the more the more there are.
    Skip(usize),
    /// With the event that follows.
    After(Mark),
    /// It ends with the event before.
    Before(Mark),
}

/// A page of events.
#[derive(Debug)]
pub struct Leaf {
    /// The events, in order.
    pub rows: Vec<JsonRow>,
    /// Whether there are more in the direction in which the page was read.
    pub has_more: bool,
}

/// How long a bar of a histogram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// An hour of UTC.
    Hour,
    /// A day of UTC.
    Day,
}

/// A value, and what is known of its events.
#[derive(Clone, Debug)]
pub struct Share {
    /// The value; empty where events have none.
    pub value: String,
    /// How many events.
    pub count: u64,
    /// When the first was sent.
    pub first: String,
    /// When the last was sent.
    pub last: String,
}

impl Search {
    /// Whether this lake's events can be asked for their risk.
    pub fn has_risk(&self) -> bool {
        self.context.table_exist("events").unwrap_or_default()
    }

    async fn events(&self, look: Look<'_>, columns: &[&str]) -> Result<DataFrame> {
        let asks = look.query.asks_for_risk() || columns.iter().any(|column| !is_of_file_events(column));
        let frame = self.table(if asks { "events" } else { "file_events" }).await?;
        frame.filter(look.query.expression(look.now)).map_err(|error| query_error(error, Code::QueryInvalid))
    }

    /// A page of at most `limit` events with these columns (all when none is named).
    ///
    /// # Errors
    /// `query-invalid` when a column or the mark cannot be used; otherwise like [`Search::answer`](Search::answer) and
    /// [`Answer::next`](super::Answer::next).
    pub async fn leaf(
        &self,
        look: Look<'_>,
        columns: &[&str],
        order: Order<'_>,
        near: &Near,
        limit: usize,
    ) -> Result<Leaf> {
        let mut named = columns.to_vec();
        named.push(order.column);
        let frame = self.events(look, &named).await?;
        let is_backwards = matches!(near, Near::Before(_));
        let build = || -> datafusion::error::Result<DataFrame> {
            let kind = frame.schema().field_with_unqualified_name(order.column)?.data_type().clone();
            let mut frame = frame;
            if let Near::After(mark) | Near::Before(mark) = near {
                frame = frame.filter(beyond(order, mark, &kind, is_backwards)?)?;
            }
            let is_descending = order.is_descending != is_backwards;
            let by = vec![
                col(order.column).sort(!is_descending, is_backwards),
                col("event_id").sort(order.ties_fall() == is_backwards, false),
            ];
            let skip = if let Near::Skip(skip) = near { *skip } else { 0 };
            frame = frame.sort(by)?.limit(skip, Some(limit + 1))?;
            if columns.is_empty() {
                return Ok(frame);
            }
            named.push("event_id");
            named.sort_unstable();
            named.dedup();
            frame.select_columns(&named)
        };
        let frame = build().map_err(|error| query_error(error, Code::QueryInvalid))?;
        let mut rows = self.answer(frame.into_unoptimized_plan(), look.text).await?.objects().await?;
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        if is_backwards {
            rows.reverse();
        }
        Ok(Leaf { rows, has_more })
    }

    /// How many events there are. It belongs to a page, and is not recorded beside it.
    ///
    /// # Errors
    /// Like [`Search::answer`](Search::answer) and [`Answer::next`](super::Answer::next).
    pub async fn count(&self, query: &Query, now: Time) -> Result<u64> {
        let frame = self.events(Look { query, now, text: "" }, &[]).await?;
        let frame = frame.aggregate(Vec::new(), vec![count(lit(1)).alias("events")]);
        let frame = frame.map_err(|error| query_error(error, Code::QueryInvalid))?;
        let rows = self.beside(frame.into_unoptimized_plan()).await?.objects().await?;
        Ok(rows.first().and_then(|row| row.get("events")).and_then(Value::as_u64).unwrap_or_default())
    }

    /// An event's value of a column, which tells its place in an order by it; nothing when there is no such event. Not
    /// recorded: it belongs to a page.
    ///
    /// # Errors
    /// Like [`Search::answer`](Search::answer) and [`Answer::next`](super::Answer::next).
    pub async fn mark(&self, column: &str, event_id: &str) -> Result<Option<Mark>> {
        let frame = self.table(if is_of_file_events(column) { "file_events" } else { "events" }).await?;
        let frame = frame.filter(col("event_id").eq(lit(event_id))).and_then(|frame| frame.select_columns(&[column]));
        let frame = frame.map_err(|error| query_error(error, Code::QueryInvalid))?;
        let rows = self.beside(frame.into_unoptimized_plan()).await?.objects().await?;
        let value = |row: &JsonRow| match row.get(column) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => Some(other.to_string()),
        };
        Ok(rows.first().map(|row| Mark { value: value(row), event_id: event_id.to_owned() }))
    }

    /// Adds the columns of risk to events of `file_events`, which is cheaper than to sort by what has them. Not recorded: it
    /// belongs to a page.
    ///
    /// # Errors
    /// Like [`Search::answer`](Search::answer) and [`Answer::next`](super::Answer::next).
    pub async fn add_risk(&self, rows: &mut [JsonRow]) -> Result<()> {
        let text = |row: &JsonRow, name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
        let mut days: Vec<NaiveDate> = rows.iter().filter_map(|row| text(row, "event_date")?.parse().ok()).collect();
        days.sort_unstable();
        days.dedup();
        let ids: Vec<Expr> = rows.iter().filter_map(|row| text(row, "event_id")).map(lit).collect();
        let frame = self.table("events").await?;
        let build = || {
            let days = days
                .iter()
                .map(|day| lit(ScalarValue::Date32(Some(arrow::datatypes::Date32Type::from_naive_date(*day)))));
            let names: Vec<String> = frame.schema().fields().iter().map(|field| field.name().clone()).collect();
            let mut wanted: Vec<&str> =
                names.iter().map(String::as_str).filter(|name| !is_of_file_events(name)).collect();
            wanted.push("event_id");
            frame
                .filter(col("event_date").in_list(days.collect(), false))?
                .filter(col("event_id").in_list(ids, false))?
                .select_columns(&wanted)
        };
        let frame: DataFrame = build().map_err(|error| query_error(error, Code::QueryInvalid))?;
        let found = self.beside(frame.into_unoptimized_plan()).await?.objects().await?;
        let mut by_id: HashMap<String, JsonRow> =
            found.into_iter().filter_map(|row| Some((text(&row, "event_id")?, row))).collect();
        for row in rows {
            let risk = text(row, "event_id").and_then(|id| by_id.remove(&id));
            row.extend(risk.unwrap_or_default());
        }
        Ok(())
    }

    /// How many events there are of each value of a term (each element, if it is a list), the most first, at most `limit`.
    /// Values that differ in case only count as one, in one of their spellings; events without a value do not count.
    ///
    /// # Errors
    /// Like [`Search::answer`](Search::answer) and [`Answer::next`](super::Answer::next).
    pub async fn groups(&self, look: Look<'_>, term: Term, limit: usize) -> Result<Vec<(String, u64)>> {
        let columns: Vec<&str> = term.column().into_iter().collect();
        let frame = self.events(look, &columns).await?;
        let build = || -> datafusion::error::Result<DataFrame> {
            let mut frame = frame.select(vec![term.value().alias("value")])?;
            if term.kind().is_list() && term.is_known_to_mail() {
                frame = frame.unnest_columns(&["value"])?;
            }
            let value = || cast(col("value"), DataType::Utf8);
            frame
                .filter(col("value").is_not_null())?
                .aggregate(
                    vec![lower(value()).alias("folded")],
                    vec![min(value()).alias("value"), count(lit(1)).alias("events")],
                )?
                .sort(vec![col("events").sort(false, false), col("value").sort(true, false)])?
                .limit(0, Some(limit))?
                .select_columns(&["value", "events"])
        };
        let frame = build().map_err(|error| query_error(error, Code::QueryInvalid))?;
        let rows = self.answer(frame.into_unoptimized_plan(), look.text).await?.objects().await?;
        let group = |row: &JsonRow| {
            let value = row.get("value").and_then(Value::as_str).unwrap_or_default().to_owned();
            (value, row.get("events").and_then(Value::as_u64).unwrap_or_default())
        };
        Ok(rows.iter().map(group).collect())
    }

    /// How many events were sent when; only times that have some. It belongs to a page, and is not recorded beside it.
    ///
    /// # Errors
    /// Like [`Search::answer`](Search::answer) and [`Answer::next`](super::Answer::next).
    pub async fn histogram(&self, look: Look<'_>, bucket: Bucket) -> Result<Vec<(Time, u64)>> {
        let frame = self.events(look, &[]).await?;
        let at = match bucket {
            Bucket::Hour => date_trunc(lit("hour"), col("observed_at")),
            // The partition's own column: where nothing else is asked, no file is read for it.
            Bucket::Day => col("event_date"),
        };
        let build = || {
            let at = cast(at, DataType::Utf8).alias("at");
            frame.aggregate(vec![at], vec![count(lit(1)).alias("events")])?.sort(vec![col("at").sort(true, false)])
        };
        let frame = build().map_err(|error| query_error(error, Code::QueryInvalid))?;
        let rows = self.beside(frame.into_unoptimized_plan()).await?.objects().await?;
        let read = |row: &JsonRow| {
            let text = row.get("at").and_then(Value::as_str).unwrap_or_default();
            let day = || Some(text.parse::<NaiveDate>().ok()?.and_hms_opt(0, 0, 0)?.and_utc());
            let at = text.parse::<Time>().ok().or_else(day);
            let at = at.ok_or_else(|| Error::new(Code::Internal, format!("a histogram has the time `{text}`")))?;
            Ok((at, row.get("events").and_then(Value::as_u64).unwrap_or_default()))
        };
        rows.iter().map(read).collect()
    }

    /// The values of a column (each of its elements, if it is a list), the first sent first, at most `limit`.
    /// It belongs to a page, and is not recorded beside it.
    ///
    /// # Errors
    /// Like [`Search::answer`](Search::answer) and [`Answer::next`](super::Answer::next).
    pub async fn shares(&self, look: Look<'_>, column: &str, limit: usize) -> Result<Vec<Share>> {
        let frame = self.events(look, &[column]).await?;
        let build = || -> datafusion::error::Result<DataFrame> {
            let is_list = matches!(frame.schema().field_with_unqualified_name(column)?.data_type(), DataType::List(_));
            let mut frame = frame.select_columns(&[column, "observed_at"])?;
            if is_list {
                frame = frame.unnest_columns(&[column])?;
            }
            let at = || col("observed_at");
            let what = vec![count(lit(1)).alias("events"), min(at()).alias("first"), max(at()).alias("last")];
            frame
                .aggregate(vec![col(column).alias("value")], what)?
                .sort(vec![col("first").sort(true, false), col("value").sort(true, false)])?
                .limit(0, Some(limit))
        };
        let frame = build().map_err(|error| query_error(error, Code::QueryInvalid))?;
        let rows = self.beside(frame.into_unoptimized_plan()).await?.objects().await?;
        let text = |row: &JsonRow, name: &str| {
            let value = row.get(name).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        let share = |row: &JsonRow| Share {
            value: text(row, "value"),
            count: row.get("events").and_then(Value::as_u64).unwrap_or_default(),
            first: text(row, "first"),
            last: text(row, "last"),
        };
        Ok(rows.iter().map(share).collect())
    }

    /// All events in an order, as they come: of each the values of these terms, under their names; of `event.id` the
    /// [`Place`].
    ///
    /// # Errors
    /// Like [`Search::answer`](Search::answer).
    pub async fn all_terms(&self, look: Look<'_>, terms: &[Term], order: Order<'_>) -> Result<super::Answer> {
        let mut columns: Vec<&str> = terms.iter().filter_map(|term| term.column()).collect();
        columns.push(order.column);
        let frame = self.events(look, &columns).await?;
        let build = || {
            let by = vec![
                col(order.column).sort(!order.is_descending, false),
                col("event_id").sort(!order.ties_fall(), false),
            ];
            let value = |term: &Term| match term.name() {
                "event.id" => Place::expression(),
                _ => term.value(),
            };
            frame.sort(by)?.select(terms.iter().map(|term| value(term).alias(term.name())).collect::<Vec<_>>())
        };
        let frame: DataFrame = build().map_err(|error| query_error(error, Code::QueryInvalid))?;
        self.answer(frame.into_unoptimized_plan(), look.text).await
    }

    /// All events with these columns in an order, as they come.
    ///
    /// # Errors
    /// Like [`Search::answer`](Search::answer).
    pub async fn all_events(&self, look: Look<'_>, columns: &[&str], order: Order<'_>) -> Result<super::Answer> {
        let mut named = columns.to_vec();
        named.push(order.column);
        let frame = self.events(look, &named).await?;
        let build = || {
            let ids = col("event_id").sort(!order.ties_fall(), false);
            frame.sort(vec![col(order.column).sort(!order.is_descending, false), ids])?.select_columns(columns)
        };
        let frame = build().map_err(|error| query_error(error, Code::QueryInvalid))?;
        self.answer(frame.into_unoptimized_plan(), look.text).await
    }
}

fn is_of_file_events(column: &str) -> bool {
    use crate::event::schema::{TableName, table};
    table(TableName::FileEvents).column(column).is_some()
}

/// What comes after a mark, or before it.
fn beyond(order: Order<'_>, mark: &Mark, kind: &DataType, is_backwards: bool) -> datafusion::error::Result<Expr> {
    let (key, id) = (|| col(order.column), || col("event_id"));
    let do_ids_fall = order.ties_fall() != is_backwards;
    let later_id = if do_ids_fall { id().lt(lit(&mark.event_id)) } else { id().gt(lit(&mark.event_id)) };
    let Some(text) = &mark.value else {
        let among_equals = key().is_null().and(later_id);
        return Ok(if is_backwards { key().is_not_null().or(among_equals) } else { among_equals });
    };
    let value = || ScalarValue::try_from_string(text.clone(), kind).map(|value| Expr::Literal(value, None));
    let is_falling = order.is_descending != is_backwards;
    let beyond = if is_falling { key().lt(value()?) } else { key().gt(value()?) };
    let beyond = beyond.or(key().eq(value()?).and(later_id));
    if order.column != "observed_at" {
        return Ok(if is_backwards { beyond } else { beyond.or(key().is_null()) });
    }
    // Every event has this one, and said this way whole days and files are ruled out.
    let day = cast(value()?, DataType::Date32);
    let day = if is_falling { col("event_date").lt_eq(day) } else { col("event_date").gt_eq(day) };
    let within = if is_falling { key().lt_eq(value()?) } else { key().gt_eq(value()?) };
    Ok(day.and(within).and(beyond))
}
