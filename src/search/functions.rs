//! Functions of SQL: what analysts have beside DataFusion's own, and what nobody has.
//!
//! | function | gives |
//! |---|---|
//! | `domain_of(address)` | the domain of an address, lower-case; null when it has none |
//! | `is_free_mail(address_or_domain)` | whether it is of a service where anybody gets a mailbox |
//! | `is_subdomain_of(domain, parent)` | whether it is that domain or below it |
//! | `day_in_zone(time, zone)` | the calendar day that it was there, `Europe/Berlin` |
//! | `hour_in_zone(time, zone)` | the hour, 0 to 23, that it was there |
//! | `is_file_mismatch(by_bytes, by_extension)` | whether two content types contradict each other as honest ones do not |
//!
//! Each is null where an argument is null, and is computed for whole columns.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use arrow::array::{Array as _, ArrayRef, AsArray as _, BooleanArray, Date32Array, Int64Array, StringArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Datelike as _, NaiveDate, NaiveDateTime, Offset as _, TimeZone as _, Timelike as _};
use chrono_tz::Tz;
use datafusion::common::Result as PlanResult;
use datafusion::common::hash_utils::RandomState;
use datafusion::error::DataFusionError;
use datafusion::execution::FunctionRegistry as _;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::scalar_doc_sections::DOC_SECTION_OTHER;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::lists::Cardinality;
use crate::digest::content_type;
use crate::event::names;

/// Scalar functions that make a value as large as a number says. Their memory is not counted by the memory pool, so
/// that a single call could take all of the machine's. (The table functions `generate_series` and `range` stay: they bring
/// their rows one batch at a time.)
const UNBOUNDED: [&str; 8] =
    ["repeat", "lpad", "rpad", "array_repeat", "array_resize", "range", "generate_series", "space"];

/// Takes away what no query may call.
pub(super) fn restrict(state: &mut SessionState) {
    for name in UNBOUNDED {
        // One that this version of DataFusion does not have needs no removal.
        drop(state.deregister_udf(name));
    }
}

/// Adds Waybill's own, and those that are DataFusion's but quicker.
///
/// # Errors
/// When DataFusion does not take a function.
pub(super) fn register(state: &mut SessionState) -> PlanResult<()> {
    for what in What::ALL {
        state.register_udf(Arc::new(ScalarUDF::from(Function::new(what))))?;
    }
    state.register_udf(Arc::new(ScalarUDF::from(Cardinality::default())))?;
    Ok(())
}

/// One line a domain; `#` begins a comment.
const FREE_MAIL: &str = include_str!("../../schemas/personal-mail-domains.txt");

/// Whether an address or domain is of a service where anybody gets a mailbox.
pub(super) fn is_free_mail(text: &str) -> bool {
    static DOMAINS: LazyLock<HashSet<&str, RandomState>> = LazyLock::new(|| {
        let lines = FREE_MAIL.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        lines.filter(|line| !line.is_empty()).collect()
    });
    let domain = text.rsplit('@').next().unwrap_or(text).trim().trim_end_matches(['>', '.']);
    // Nearly all are in lower case, and need no copy.
    match domain.bytes().all(|letter| letter.is_ascii() && !letter.is_ascii_uppercase()) {
        true => DOMAINS.contains(domain),
        false => DOMAINS.contains(domain.to_lowercase().as_str()),
    }
}

/// Whether a domain is another one or below it; both lower-case.
pub(super) fn is_subdomain_of(domain: &str, parent: &str) -> bool {
    let above = domain.strip_suffix(parent);
    !parent.is_empty() && above.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Where flags are true, and neither false nor null.
pub(super) fn are_true(flags: &BooleanArray) -> BooleanBuffer {
    match flags.nulls() {
        Some(nulls) => flags.values() & nulls.inner(),
        None => flags.values().clone(),
    }
}

/// A moment as a clock on the wall of a zone showed it; nothing outside the calendar.
pub(super) fn in_zone(micros: i64, zone: Tz) -> Option<NaiveDateTime> {
    let utc = DateTime::from_timestamp_micros(micros)?.naive_utc();
    utc.checked_add_offset(zone.offset_from_utc_datetime(&utc).fix())
}

/// A zone of the IANA database.
pub(super) fn zone(name: &str) -> Option<Tz> {
    name.trim().parse().ok()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    DomainOf,
    IsFreeMail,
    IsSubdomainOf,
    DayInZone,
    HourInZone,
    IsFileMismatch,
}

impl What {
    const ALL: [Self; 6] = [
        Self::DomainOf,
        Self::IsFreeMail,
        Self::IsSubdomainOf,
        Self::DayInZone,
        Self::HourInZone,
        Self::IsFileMismatch,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::DomainOf => "domain_of",
            Self::IsFreeMail => "is_free_mail",
            Self::IsSubdomainOf => "is_subdomain_of",
            Self::DayInZone => "day_in_zone",
            Self::HourInZone => "hour_in_zone",
            Self::IsFileMismatch => "is_file_mismatch",
        }
    }

    /// How it is called, and what it gives.
    fn documentation(self) -> &'static Documentation {
        static ALL: LazyLock<HashMap<What, Documentation>> = LazyLock::new(|| {
            let about = |what: What| {
                let (syntax, gives) = match what {
                    What::DomainOf => {
                        ("domain_of(address)", "The domain of an address, lower-case; null when it has none.")
                    }
                    What::IsFreeMail => (
                        "is_free_mail(address_or_domain)",
                        "Whether an address or domain is of a service where anybody gets a mailbox.",
                    ),
                    What::IsSubdomainOf => {
                        ("is_subdomain_of(domain, parent)", "Whether a domain is another one or below it.")
                    }
                    What::DayInZone => ("day_in_zone(time, zone)", "The calendar day that it was in a time zone."),
                    What::HourInZone => ("hour_in_zone(time, zone)", "The hour, 0 to 23, that it was in a time zone."),
                    What::IsFileMismatch => (
                        "is_file_mismatch(by_bytes, by_extension)",
                        "Whether two content types contradict each other as honest ones do not.",
                    ),
                };
                (what, Documentation::builder(DOC_SECTION_OTHER, gives, syntax).build())
            };
            What::ALL.into_iter().map(about).collect()
        });
        &ALL[&self]
    }

    fn takes(self) -> Vec<DataType> {
        match self {
            Self::DomainOf | Self::IsFreeMail => vec![DataType::Utf8],
            Self::IsSubdomainOf | Self::IsFileMismatch => vec![DataType::Utf8, DataType::Utf8],
            Self::DayInZone | Self::HourInZone => {
                vec![DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), DataType::Utf8]
            }
        }
    }

    fn gives(self) -> DataType {
        match self {
            Self::DomainOf => DataType::Utf8,
            Self::IsFreeMail | Self::IsSubdomainOf | Self::IsFileMismatch => DataType::Boolean,
            Self::DayInZone => DataType::Date32,
            Self::HourInZone => DataType::Int64,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    what: What,
    signature: Signature,
}

impl Function {
    fn new(what: What) -> Self {
        Self { what, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.what.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(self.what.documentation())
    }

    fn coerce_types(&self, given: &[DataType]) -> PlanResult<Vec<DataType>> {
        let takes = self.what.takes();
        let fits = |(given, takes): (&DataType, &DataType)| match takes {
            DataType::Utf8 => given.is_null() || given.is_string(),
            _ => {
                given.is_null()
                    || given.is_string()
                    || matches!(given, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
            }
        };
        if given.len() != takes.len() || !given.iter().zip(&takes).all(fits) {
            let takes: Vec<&str> =
                takes.iter().map(|kind| if *kind == DataType::Utf8 { "a text" } else { "a time" }).collect();
            let name = self.name();
            return Err(DataFusionError::Plan(format!("the function `{name}` takes {}", takes.join(" and "))));
        }
        let as_given = |(given, takes): (&DataType, DataType)| match (given, &takes) {
            (DataType::Utf8View, DataType::Utf8) => DataType::Utf8View,
            _ => takes,
        };
        Ok(given.iter().zip(takes).map(as_given).collect())
    }

    fn return_type(&self, _: &[DataType]) -> PlanResult<DataType> {
        Ok(self.what.gives())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let columns: PlanResult<Vec<ArrayRef>> =
            arguments.args.iter().map(|argument| argument.to_array(rows)).collect();
        let columns = columns?;
        let text = |place: usize| texts(columns.get(place), self.name());
        let answer: ArrayRef = match self.what {
            What::DomainOf => {
                let domains = text(0)?.map(|address| address.and_then(names::domain_of));
                Arc::new(domains.collect::<StringArray>())
            }
            What::IsFreeMail => Arc::new(text(0)?.map(|t| t.map(is_free_mail)).collect::<BooleanArray>()),
            What::IsSubdomainOf => {
                let is_below = |domain: &str, parent: &str| {
                    let plain = |text: &str| text.trim().trim_matches('.').to_lowercase();
                    is_subdomain_of(&plain(domain), &plain(parent))
                };
                Arc::new(pairs(text(0)?, text(1)?, is_below))
            }
            What::IsFileMismatch => {
                let is_mismatch = |bytes: &str, name: &str| content_type::is_mismatch(Some(bytes), Some(name));
                Arc::new(pairs(text(0)?, text(1)?, is_mismatch))
            }
            What::DayInZone => {
                let days = local(&columns, self.name())?.into_iter().map(|time| Some(days_since_1970(time?.date())));
                Arc::new(days.collect::<Date32Array>())
            }
            What::HourInZone => {
                let hours = local(&columns, self.name())?.into_iter().map(|time| Some(i64::from(time?.hour())));
                Arc::new(hours.collect::<Int64Array>())
            }
        };
        Ok(ColumnarValue::Array(answer))
    }
}

/// The texts of a column, in either of the ways in which Arrow holds them.
fn texts<'a>(
    column: Option<&'a ArrayRef>,
    function: &str,
) -> PlanResult<Box<dyn Iterator<Item = Option<&'a str>> + 'a>> {
    let wrong = || DataFusionError::Internal(format!("`{function}` was given something else than a column of texts"));
    let column = column.ok_or_else(wrong)?;
    match column.data_type() {
        DataType::Utf8 => Ok(Box::new(column.as_string::<i32>().iter())),
        DataType::Utf8View => Ok(Box::new(column.as_string_view().iter())),
        _ => Err(wrong()),
    }
}

fn pairs<'a>(
    left: impl Iterator<Item = Option<&'a str>>,
    right: impl Iterator<Item = Option<&'a str>>,
    judge: impl Fn(&str, &str) -> bool,
) -> BooleanArray {
    left.zip(right).map(|(left, right)| Some(judge(left?, right?))).collect()
}

/// The local time of each row.
fn local(columns: &[ArrayRef], function: &str) -> PlanResult<Vec<Option<NaiveDateTime>>> {
    let times = columns.first().and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    let times = times.ok_or_else(|| DataFusionError::Internal(format!("`{function}` was given no column of times")))?;
    // The zone is nearly always the same for all rows.
    let mut last: Option<(&str, Tz)> = None;
    let rows = times.iter().zip(texts(columns.get(1), function)?);
    rows.map(|(time, name)| {
        let (Some(time), Some(name)) = (time, name) else { return Ok(None) };
        let found = match last {
            Some((known, zone)) if known == name => zone,
            _ => zone(name).ok_or_else(|| {
                DataFusionError::Execution(format!("`{name}` is no time zone: give one like `Europe/Berlin` or `UTC`"))
            })?,
        };
        last = Some((name, found));
        Ok(in_zone(time, found))
    })
    .collect()
}

fn days_since_1970(day: NaiveDate) -> i32 {
    day.num_days_from_ce() - NaiveDate::default().num_days_from_ce()
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

    async fn ask(expression: &str) -> Result<String, String> {
        let mut state = crate::search::engine::state();
        register(&mut state).unwrap();
        let context = SessionContext::new_with_state(state);
        let batches = async { context.sql(&format!("SELECT {expression} AS x")).await?.collect().await };
        let batches = batches.await.map_err(|error| error.strip_backtrace())?;
        Ok(arrow::util::display::array_value_to_string(batches[0].column(0), 0).unwrap())
    }

    #[tokio::test]
    async fn functions_answer_and_are_null_where_nothing_is_known() {
        for (expression, expected) in [
            ("domain_of('Ada <ADA@Mail.Example.COM.>')", "mail.example.com"),
            ("domain_of('\"a@b\"@c.example')", "c.example"),
            ("domain_of('/o=exchangelabs/ou=x/cn=recipients/cn=ada')", ""),
            ("domain_of('')", ""),
            ("domain_of(null)", ""),
            ("is_free_mail('Bob@GMail.com')", "true"),
            ("is_free_mail('gmx.de')", "true"),
            ("is_free_mail('contoso.example')", "false"),
            ("is_free_mail('notgmail.com')", "false"),
            ("is_free_mail('#')", "false"),
            ("is_free_mail('')", "false"),
            ("is_free_mail(null)", ""),
            ("is_subdomain_of('a.b.example', 'B.example')", "true"),
            ("is_subdomain_of('b.example', 'b.example')", "true"),
            ("is_subdomain_of('ab.example', 'b.example')", "false"),
            ("is_subdomain_of('b.example', '')", "false"),
            ("is_subdomain_of(null, 'b.example')", ""),
            // Summer time, and a day that begins in the evening before.
            ("day_in_zone('2026-07-01T22:30:00Z', 'Europe/Berlin')", "2026-07-02"),
            ("day_in_zone(timestamp '2026-01-01T22:30:00Z', 'Europe/Berlin')", "2026-01-01"),
            ("hour_in_zone('2026-07-01T22:30:00Z', 'Europe/Berlin')", "0"),
            ("hour_in_zone('2026-01-01T22:30:00Z', 'America/Los_Angeles')", "14"),
            ("hour_in_zone('1969-12-31T23:59:59.999999Z', 'UTC')", "23"),
            ("hour_in_zone(null, 'UTC')", ""),
            ("day_in_zone('2026-07-01T22:30:00Z', null)", ""),
            ("is_file_mismatch('application/pdf', 'text/plain')", "true"),
            ("is_file_mismatch('image/png', 'image/jpeg')", "false"),
            ("is_file_mismatch(null, 'image/jpeg')", ""),
        ] {
            assert_eq!(ask(expression).await.as_deref(), Ok(expected), "{expression}");
        }
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_said_clearly() {
        for (expression, expected) in [
            ("hour_in_zone(now(), 'Mars/Olympus')", "`Mars/Olympus` is no time zone"),
            ("day_in_zone(now(), '')", "`` is no time zone"),
            ("day_in_zone(now())", "the function `day_in_zone` takes a time and a text"),
            ("day_in_zone(1, 'UTC')", "the function `day_in_zone` takes a time and a text"),
            ("domain_of(1)", "the function `domain_of` takes a text"),
            ("domain_of()", "domain_of"),
        ] {
            let said = ask(expression).await.unwrap_err();
            assert!(said.contains(expected), "{expression}: {said}");
        }
    }

    #[test]
    fn the_list_of_free_mail_is_sorted_and_lower_case() {
        let lines: Vec<&str> = FREE_MAIL.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        assert!(lines.windows(2).all(|pair| pair[0] < pair[1]), "sorted, each once");
        assert!(lines.iter().all(|line| line.contains('.') && *line == line.trim().to_lowercase()));
    }
}
