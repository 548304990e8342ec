//! A query as an expression, its SQL, its two written forms, and a naive reading of `docs/search.md` agree on every
//! event.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray as _, BooleanArray, Date32Array, Int64Array, Int64Builder, ListBuilder, RecordBatch, StringArray,
    StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::Int64Type;
use chrono::{Duration, NaiveDate};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext, col};
use proptest::prelude::*;

use super::value::midnight;
use super::*;
use crate::event::schema::{TableName, table};

/// An event as the naive reading sees it: a value of each kind.
#[derive(Clone, Debug, Default)]
struct Event {
    file_name: Option<String>,
    subject: Option<String>,
    sender: Option<String>,
    mailbox: Option<String>,
    sha256: Option<String>,
    size: Option<i64>,
    inline: Option<bool>,
    recipients: Option<Vec<String>>,
    indicators: Option<Vec<String>>,
    weights: Option<Vec<i64>>,
    observed_micros: i64,
}

fn now() -> Time {
    midnight(NaiveDate::from_ymd_opt(2026, 11, 2).unwrap()) + Duration::hours(12)
}

/// What makes trouble in SQL, in LIKE, in regular expressions and between elements of lists.
const TEXTS: [&str; 22] = [
    "a",
    "A",
    "ab",
    "a.b",
    "a_b",
    "100%",
    "O'Brien",
    "C:\\new\\x",
    "\\",
    "line\nbreak",
    "tab\t",
    "nul\0l",
    "ä",
    "Ä😀",
    "${env:HOME}",
    "x'; DROP TABLE file_events; --",
    "a,b",
    "[a-z]^$",
    "{(|)}+",
    "a b",
    "\"q\"\"",
    "--",
];

const TERMS: [&str; 12] = [
    "file.name",
    "destination.email.subject",
    "source.email.sender",
    "user.email",
    "file.hash.sha256",
    "file.sizeInBytes",
    "file.isInline",
    "destination.email.recipients",
    "risk.indicators.name",
    "risk.indicators.weight",
    "@timestamp",
    "file.owner",
];

fn hash_of(digit: u8) -> String {
    char::from(b'a' + digit % 3).to_string().repeat(64)
}

fn some_text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => proptest::sample::select(TEXTS.as_slice()).prop_map(str::to_owned),
        1 => "[a-cA-C.%_\\\\' ]{1,4}",
        1 => any::<char>().prop_map(String::from),
    ]
}

fn some_event() -> impl Strategy<Value = Event> {
    let text = || proptest::option::of(some_text());
    let lower = || proptest::option::of(some_text().prop_map(|text| text.to_lowercase()));
    let element = || some_text().prop_filter("no separator", |text| !text.contains('\u{1f}'));
    let list = move |is_lower: bool| {
        let element = element().prop_map(move |text| if is_lower { text.to_lowercase() } else { text });
        proptest::option::weighted(0.9, proptest::collection::vec(element, 0..4))
    };
    (
        (text(), text(), lower(), lower()),
        proptest::option::of(any::<u8>().prop_map(hash_of)),
        proptest::option::of(-3_i64..4),
        proptest::option::of(any::<bool>()),
        (list(true), list(false), proptest::option::of(proptest::collection::vec(-2_i64..3, 0..3))),
        0_i64..3 * 86_400,
    )
        .prop_map(|((file_name, subject, sender, mailbox), sha256, size, inline, lists, seconds)| Event {
            file_name,
            subject,
            sender,
            mailbox,
            sha256,
            size,
            inline,
            recipients: lists.0,
            indicators: lists.1,
            weights: lists.2,
            // Whole days are frequent: that is where bounds go wrong.
            observed_micros: (now() - Duration::days(2)).timestamp_micros() / 86_400_000_000 * 86_400_000_000
                + if seconds % 3 == 0 { seconds / 86_400 * 86_400 } else { seconds } * 1_000_000,
        })
}

fn some_value() -> impl Strategy<Value = String> {
    (some_text(), 0_u8..8).prop_map(|(text, form)| match form {
        0 => format!("*{text}"),
        1 => format!("{text}*"),
        2 => format!("*{text}*"),
        3 => text.chars().skip(1).fold("?".to_owned(), |made, letter| made + &letter.to_string()),
        4 => "*".to_owned(),
        _ => text,
    })
}

fn some_filter() -> impl Strategy<Value = Filter> {
    let parts = (
        proptest::sample::select(TERMS.as_slice()),
        any::<proptest::sample::Index>(),
        proptest::collection::vec(some_value(), 1..4),
        proptest::collection::vec((-3_i64..4, 0_u8..4), 1..4),
    );
    parts.prop_filter_map("a value that fits", |(name, operator, texts, numbers)| {
        let term = Term::parse(name)?;
        let operator = *operator.get(term.kind().operators());
        let (number, form) = numbers[0];
        let day = now() - Duration::days(number);
        let values: Vec<String> = match (term.kind(), operator) {
            (_, Operator::Exists | Operator::DoesNotExist) => vec![String::new()],
            (Kind::Time, Operator::WithinTheLast) => vec![format!("PT{}H", (number + 3) * 11)],
            (Kind::Time, _) if form == 0 => vec![midnight(day.date_naive()).to_rfc3339()],
            (Kind::Time, _) if form == 1 => vec![day.to_rfc3339()],
            (Kind::Time, _) => vec![day.format("%Y-%m-%d").to_string()],
            (Kind::Number | Kind::Numbers, _) => numbers.iter().map(|(number, _)| number.to_string()).collect(),
            (Kind::Flag, _) => vec![(number > 0).to_string()],
            (Kind::Hash, _) => numbers
                .iter()
                .map(|(number, form)| match form {
                    0 => format!("{}*", (b'a' + number.unsigned_abs() as u8 % 3) as char),
                    _ => hash_of(number.unsigned_abs() as u8).to_uppercase(),
                })
                .collect(),
            _ => texts,
        };
        if operator.takes_list() {
            Filter::list(term, operator, values).ok()
        } else {
            Filter::new(term, operator, values[0].clone()).ok()
        }
    })
}

fn some_query() -> impl Strategy<Value = Query> {
    let clause = || prop_oneof![Just(Clause::And), Just(Clause::Or)];
    let leaf = (clause(), proptest::collection::vec(some_filter().prop_map(Member::Filter), 1..4))
        .prop_map(|(clause, members)| Query { clause, members });
    leaf.prop_recursive(3, 12, 3, move |inner| {
        let member = prop_oneof![some_filter().prop_map(Member::Filter), inner.prop_map(Member::Group)];
        (clause(), proptest::collection::vec(member, 1..4)).prop_map(|(clause, members)| Query { clause, members })
    })
}

/// The naive reading.
fn meets(event: &Event, query: &Query) -> bool {
    let mut members = query.members.iter().map(|member| match member {
        Member::Filter(filter) => is_met(event, filter),
        Member::Group(group) => meets(event, group),
    });
    match query.clause {
        Clause::And => members.all(|is_met| is_met),
        Clause::Or => members.any(|is_met| is_met),
    }
}

enum Held {
    Texts(Vec<String>),
    Numbers(Vec<i64>),
    Flag(bool),
    Time(i64),
}

fn held(event: &Event, term: &str) -> Option<Held> {
    let one = |text: &Option<String>| text.clone().map(|text| Held::Texts(vec![text]));
    match term {
        "file.name" => one(&event.file_name),
        "destination.email.subject" => one(&event.subject),
        "source.email.sender" => one(&event.sender),
        "user.email" => one(&event.mailbox).or_else(|| one(&event.sender)),
        "file.hash.sha256" => one(&event.sha256),
        "file.sizeInBytes" => event.size.map(|size| Held::Numbers(vec![size])),
        "file.isInline" => event.inline.map(Held::Flag),
        "destination.email.recipients" => event.recipients.clone().filter(|list| !list.is_empty()).map(Held::Texts),
        "risk.indicators.name" => event.indicators.clone().filter(|list| !list.is_empty()).map(Held::Texts),
        "risk.indicators.weight" => event.weights.clone().filter(|list| !list.is_empty()).map(Held::Numbers),
        "@timestamp" => Some(Held::Time(event.observed_micros)),
        _ => None,
    }
}

fn is_met(event: &Event, filter: &Filter) -> bool {
    let is_negative = matches!(filter.operator, Operator::IsNot | Operator::IsNone | Operator::DoesNotExist);
    let Some(held) = held(event, filter.term.name()) else { return is_negative };
    let is_met = match (&held, &filter.value) {
        (_, Value::Nothing) => true,
        (Held::Texts(texts), Value::Texts(values)) => {
            texts.iter().any(|text| values.iter().any(|value| is_like(&text.to_lowercase(), &value.to_lowercase())))
        }
        (Held::Numbers(numbers), Value::Numbers(values)) => numbers.iter().any(|number| match filter.operator {
            Operator::GreaterThan => *number > values[0],
            Operator::LessThan => *number < values[0],
            _ => values.contains(number),
        }),
        (Held::Flag(held), Value::Flag(flag)) => held == flag,
        (Held::Time(micros), Value::Span(span)) => *micros >= span.before(now()).timestamp_micros(),
        (Held::Time(micros), Value::Moment(moment)) => {
            let time = Time::from_timestamp_micros(*micros).unwrap();
            let (day, given) = (time.date_naive(), moment.day());
            match (filter.operator, moment) {
                (Operator::On, _) => day == given,
                (Operator::OnOrAfter, Moment::Day(_)) => day >= given,
                (Operator::OnOrBefore, Moment::Day(_)) => day <= given,
                (Operator::GreaterThan, Moment::Day(_)) => day > given,
                (Operator::LessThan, Moment::Day(_)) => day < given,
                (Operator::OnOrAfter, Moment::Instant(instant)) => time >= *instant,
                (Operator::OnOrBefore, Moment::Instant(instant)) => time <= *instant,
                (Operator::GreaterThan, Moment::Instant(instant)) => time > *instant,
                (_, Moment::Instant(instant)) => time < *instant,
                (operator, _) => panic!("{operator:?} of times"),
            }
        }
        other => panic!("{filter} on {:?}", std::mem::discriminant(other.1)),
    };
    is_met != is_negative
}

fn is_like(text: &str, value: &str) -> bool {
    let (mut letters, mut rest) = (value.chars(), text.chars());
    match letters.next() {
        None => text.is_empty(),
        Some('*') => {
            let value = letters.as_str();
            is_like(text, value)
                || text.char_indices().any(|(at, letter)| is_like(&text[at + letter.len_utf8()..], value))
        }
        Some(letter) => {
            rest.next().is_some_and(|first| letter == '?' || letter == first)
                && is_like(rest.as_str(), letters.as_str())
        }
    }
}

fn session(events: &[Event]) -> SessionContext {
    fn texts<'a>(events: &'a [Event], of: fn(&'a Event) -> &'a Option<String>) -> ArrayRef {
        Arc::new(StringArray::from_iter(events.iter().map(|event| of(event).as_deref())))
    }
    fn lists<'a>(events: &'a [Event], of: fn(&'a Event) -> &'a Option<Vec<String>>) -> ArrayRef {
        let mut builder = ListBuilder::new(StringBuilder::new());
        for event in events {
            builder.append_option(of(event).as_ref().map(|list| list.iter().map(Some)));
        }
        Arc::new(builder.finish())
    }
    let mut weights = ListBuilder::new(Int64Builder::new());
    for event in events {
        weights.append_option(event.weights.as_ref().map(|list| list.iter().copied().map(Some)));
    }
    let micros = || events.iter().map(|event| event.observed_micros);
    let count = i64::try_from(events.len()).unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("number", Arc::new(Int64Array::from_iter_values(0..count))),
        ("file_name", texts(events, |event| &event.file_name)),
        ("subject", texts(events, |event| &event.subject)),
        ("sender", texts(events, |event| &event.sender)),
        ("mailbox", texts(events, |event| &event.mailbox)),
        ("sha256", texts(events, |event| &event.sha256)),
        ("file_size_bytes", Arc::new(Int64Array::from_iter(events.iter().map(|event| event.size)))),
        ("is_inline", Arc::new(BooleanArray::from_iter(events.iter().map(|event| event.inline)))),
        ("recipients", lists(events, |event| &event.recipients)),
        ("risk_indicators", lists(events, |event| &event.indicators)),
        ("risk_indicator_weights", Arc::new(weights.finish())),
        ("observed_at", Arc::new(TimestampMicrosecondArray::from_iter_values(micros()).with_timezone("UTC"))),
        (
            "event_date",
            Arc::new(Date32Array::from_iter_values(micros().map(|micros| (micros / 86_400_000_000) as i32))),
        ),
    ];
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)));
    let batch = batch.unwrap();
    let config = SessionConfig::new().set_str("datafusion.execution.time_zone", "UTC").with_target_partitions(1);
    let context = SessionContext::new_with_config(config);
    for name in ["file_events", "events"] {
        let table = MemTable::try_new(batch.schema(), vec![vec![batch.clone()]]).unwrap();
        context.register_table(name, Arc::new(table)).unwrap();
    }
    context
}

fn numbers(batches: &[RecordBatch]) -> BTreeSet<i64> {
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn expression_sql_and_a_naive_reading_agree(
        events in proptest::collection::vec(some_event(), 1..12),
        query in some_query(),
    ) {
        let expected: BTreeSet<i64> =
            (0_i64..).zip(&events).filter(|(_, event)| meets(event, &query)).map(|(number, _)| number).collect();
        let sql = query.sql(&Selection::default(), now()).replacen('*', "number", 1);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (by_expression, by_sql) = runtime.block_on(async {
            let context = session(&events);
            let frame = context.table("events").await.unwrap();
            let frame = frame.filter(query.expression(now())).unwrap().select(vec![col("number")]).unwrap();
            let by_sql = context.sql(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
            (frame.collect().await.unwrap(), by_sql.collect().await.unwrap())
        });
        prop_assert_eq!(numbers(&by_expression), expected.clone(), "expression: {}", query.expression(now()));
        prop_assert_eq!(numbers(&by_sql), expected, "{}", sql);
    }

    #[test]
    fn both_written_forms_are_read_back(query in some_query(), events in proptest::collection::vec(some_event(), 1..6)) {
        let by_text = Query::parse(&query.to_string()).unwrap();
        let by_json = Query::from_json(&query.to_json()).unwrap();
        for event in &events {
            prop_assert_eq!(meets(event, &query), meets(event, &by_text), "{}", query);
            prop_assert_eq!(meets(event, &query), meets(event, &by_json), "{}", query.to_json());
        }
    }

    #[test]
    fn no_text_is_too_odd_for_the_parser(text in "\\PC{0,40}") {
        // Whether it is a filter does not matter; that the reader comes back does.
        let _ = Query::parse(&text);
        let _ = Query::parse(&format!("file.name is {text}"));
        let _ = Span::parse(&text);
    }
}

#[test]
fn every_term_takes_its_operators_and_the_statement_is_planned_over_the_real_columns() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let empty = datafusion::datasource::empty::EmptyTable::new(table(TableName::FileEvents).arrow_schema());
    let context = SessionContext::new();
    context.register_table("file_events", Arc::new(empty)).unwrap();
    for term in Term::all() {
        for operator in term.kind().operators() {
            let value = match (term.kind(), operator) {
                (_, Operator::Exists | Operator::DoesNotExist) => "",
                (Kind::Time, Operator::WithinTheLast) => "P7D",
                (Kind::Time, _) => "2026-10-31",
                (Kind::Number | Kind::Numbers, _) => "3",
                (Kind::Flag, _) => "true",
                (Kind::Hash, _) => "a*",
                _ => "x*y",
            };
            let filter = Filter::new(term, *operator, value).unwrap();
            let query = Query { clause: Clause::And, members: vec![Member::Filter(filter)] };
            let sql = query.sql(&Selection::new(&[], &[]).unwrap(), now());
            assert_eq!(query.asks_for_risk(), sql.contains("FROM events"), "{sql}");
            if !query.asks_for_risk() {
                runtime.block_on(context.sql(&sql)).unwrap_or_else(|error| panic!("{sql}: {error}"));
            }
        }
    }
}

#[test]
fn the_end_of_an_interval_is_in_it_only_as_a_bare_date() {
    let sql = |value: &str| {
        let filter = Filter::new(Term::parse("@timestamp").unwrap(), Operator::OnOrBefore, value).unwrap();
        Query { clause: Clause::And, members: vec![Member::Filter(filter)] }.sql(&Selection::default(), now())
    };
    assert!(sql("2026-10-31").contains("observed_at < TIMESTAMP '2026-11-01 00:00:00.000000+00:00'"));
    assert!(sql("2026-10-31").contains("event_date < DATE '2026-11-01'"));
    assert!(sql("2026-10-31T00:00:00.000Z").contains("observed_at <= TIMESTAMP '2026-10-31 00:00:00.000000+00:00'"));
}

#[test]
fn the_largest_query_is_planned() {
    let many: Vec<String> = (0..limits::SEARCH_VALUES).map(|number| format!("{number:064x}")).collect();
    let term = |name| Term::parse(name).unwrap();
    let mut query = Query { clause: Clause::Or, members: Vec::new() };
    query.members.push(Member::Filter(Filter::list(term("file.hash.sha256"), Operator::IsAny, many).unwrap()));
    for number in 0..limits::SEARCH_FILTERS - 1 {
        let filter = Filter::new(term("file.name"), Operator::Is, format!("a{number}*")).unwrap();
        query.members.push(Member::Filter(filter));
    }
    for _ in 0..limits::SEARCH_DEPTH {
        let filter = Filter::new(term("file.name"), Operator::Exists, "").unwrap();
        let clause = if query.clause == Clause::And { Clause::Or } else { Clause::And };
        query = Query { clause, members: vec![Member::Group(query), Member::Filter(filter)] };
    }
    let sql = query.sql(&Selection::default(), now());
    assert!(sql.len() < limits::STATEMENT_BYTES, "{}", sql.len());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let context = session(&[Event::default()]);
        assert_eq!(context.sql(&sql).await.unwrap().count().await.unwrap(), 0);
        let frame = context.table("events").await.unwrap().filter(query.expression(now())).unwrap();
        assert_eq!(frame.count().await.unwrap(), 0);
    });
}
