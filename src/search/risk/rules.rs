//! The rules' document → rules that cannot be wrong.
//!
//! A document is TOML. Each section that it has replaces that section of `schemas/risk.toml`; so an empty one means the
//! defaults, and one that only trusts domains keeps following the defaults of newer versions of Waybill.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use chrono::{NaiveDate, NaiveTime, Weekday};
use chrono_tz::Tz;
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, Volatility};
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::event::schema::{TableName, table};
use crate::limits;
use crate::search::{engine, functions};

/// The default rules.
pub(super) const DEFAULT: &str = include_str!("../../../schemas/risk.toml");

/// Rules in force.
#[derive(Debug)]
pub(in crate::search) struct Rules {
    pub(super) severity: Severity,
    pub(super) history_days: u32,
    pub(super) hours: WorkingHours,
    pub(super) trust: Arc<Trust>,
    pub(super) indicators: Vec<Indicator>,
}

/// Something that makes an event riskier.
#[derive(Clone, Debug)]
pub(super) struct Indicator {
    pub(super) label: Label,
    /// Over the columns of `file_events` and [`Helper`]s; settings are values in it already.
    pub(super) when: Expr,
}

/// What an indicator is called and how much it counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Label {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) weight: i64,
}

/// The points from which on a severity is reached, from the highest down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Severity {
    critical: i64,
    high: i64,
    moderate: i64,
    low: i64,
}

impl Severity {
    pub(super) fn of(self, score: i64) -> &'static str {
        match score {
            _ if score >= self.critical => "CRITICAL",
            _ if score >= self.high => "HIGH",
            _ if score >= self.moderate => "MODERATE",
            _ if score >= self.low => "LOW",
            _ => "NO_RISK_INDICATED",
        }
    }
}

/// The days and hours at which people work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct WorkingHours {
    pub(super) zone: Tz,
    pub(super) days: Vec<Weekday>,
    pub(super) hours: Range<NaiveTime>,
}

/// A domain that is trusted from a day on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Trusted {
    /// Lower-case.
    pub domain: String,
    /// Its first instant (UTC) is when trust begins; earlier events stay as they were.
    pub from: NaiveDate,
    /// Whether domains below it are trusted, too.
    pub include_subdomains: bool,
}

/// All that are trusted.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Trust(Vec<Trusted>);

impl Trust {
    pub(super) fn all(&self) -> &[Trusted] {
        &self.0
    }

    /// Whether a domain was trusted on a day (UTC).
    pub(super) fn covers(&self, domain: &str, day: NaiveDate) -> bool {
        // Sorted by name: the domain itself, then each one above it.
        let mut name = domain;
        loop {
            let first = self.0.partition_point(|trusted| trusted.domain.as_str() < name);
            let same = self.0[first..].iter().take_while(|trusted| trusted.domain == name);
            let mut same = same.filter(|trusted| trusted.from <= day);
            if same.any(|trusted| trusted.include_subdomains || name.len() == domain.len()) {
                return true;
            }
            match name.split_once('.') {
                Some((_, above)) => name = above,
                None => return false,
            }
        }
    }
}

/// Columns that conditions have beside those of `file_events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Helper {
    UntrustedDomains,
    Trusted,
    HasPersonalDomain,
    IsOffHours,
    DestinationUses,
    BytesThatDay,
    FilesThatDay,
}

impl Helper {
    const ALL: [Self; 7] = [
        Self::UntrustedDomains,
        Self::Trusted,
        Self::HasPersonalDomain,
        Self::IsOffHours,
        Self::DestinationUses,
        Self::BytesThatDay,
        Self::FilesThatDay,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::UntrustedDomains => "untrusted_domains",
            Self::Trusted => "trusted",
            Self::HasPersonalDomain => "has_personal_domain",
            Self::IsOffHours => "is_off_hours",
            Self::DestinationUses => "destination_uses",
            Self::BytesThatDay => "bytes_that_day",
            Self::FilesThatDay => "files_that_day",
        }
    }

    fn kind(self) -> DataType {
        match self {
            Self::UntrustedDomains => texts(),
            Self::Trusted | Self::HasPersonalDomain | Self::IsOffHours => DataType::Boolean,
            Self::DestinationUses | Self::BytesThatDay | Self::FilesThatDay => DataType::Int64,
        }
    }
}

/// A list of texts.
pub(super) fn texts() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

// ------------------------------------------------------------------------------------------------------------------
// As written.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    severity: Option<Severity>,
    history: Option<History>,
    rare_use: Option<RareUse>,
    large_volume: Option<LargeVolume>,
    off_hours: Option<OffHours>,
    #[serde(default)]
    trusted: Vec<TrustedAsWritten>,
    indicator: Option<Vec<IndicatorAsWritten>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct History {
    days: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RareUse {
    at_most: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LargeVolume {
    bytes: i64,
    files: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OffHours {
    time_zone: String,
    working_days: Vec<String>,
    working_hours: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrustedAsWritten {
    domain: String,
    from: toml::value::Datetime,
    #[serde(default)]
    include_subdomains: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IndicatorAsWritten {
    id: String,
    name: String,
    weight: i64,
    when: String,
}

fn wrong(what: impl std::fmt::Display) -> Error {
    Error::new(Code::Configuration, format!("the rules of risk: {what}"))
}

fn read(text: &str) -> Result<Document> {
    if text.len() > limits::RISK_RULES_BYTES {
        return Err(wrong(format!("{} bytes are more than {}", text.len(), limits::RISK_RULES_BYTES)));
    }
    toml::from_str(text).map_err(|error| wrong(error.to_string().trim_end()))
}

impl Rules {
    /// Reads a document; what it lacks is as in the default.
    ///
    /// # Errors
    /// `configuration`, naming the section or indicator and why.
    pub(in crate::search) fn parse(text: &str) -> Result<Self> {
        let (own, default) = (read(text)?, read(DEFAULT)?);
        let lacks = |section: &str| wrong(format!("there is no section `{section}`"));
        let severity = own.severity.or(default.severity).ok_or_else(|| lacks("severity"))?;
        let Severity { critical, high, moderate, low } = severity;
        if !(critical > high && high > moderate && moderate > low && low > 0) {
            return Err(wrong("`[severity]`: the numbers go down from `critical` to `low`, which is at least 1"));
        }
        let history_days = own.history.or(default.history).ok_or_else(|| lacks("history"))?.days;
        if !(1..=limits::RISK_HISTORY_DAYS).contains(&history_days) {
            return Err(wrong(format!("`[history]`: `days` is from 1 to {}", limits::RISK_HISTORY_DAYS)));
        }
        let rare = own.rare_use.or(default.rare_use).ok_or_else(|| lacks("rare_use"))?;
        let large = own.large_volume.or(default.large_volume).ok_or_else(|| lacks("large_volume"))?;
        let hours = working_hours(own.off_hours.or(default.off_hours).ok_or_else(|| lacks("off_hours"))?)?;
        let mut trusted: Vec<Trusted> = own.trusted.into_iter().map(trusted).collect::<Result<_>>()?;
        trusted.sort_by(|a, b| a.domain.cmp(&b.domain).then(a.from.cmp(&b.from)));
        let settings = [
            ("rare_use_at_most", rare.at_most),
            ("large_volume_bytes", large.bytes),
            ("large_volume_files", large.files),
        ];
        let indicators = own.indicator.or(default.indicator).ok_or_else(|| lacks("indicator"))?;
        let indicators = conditions(indicators, settings)?;
        Ok(Self { severity, history_days, hours, trust: Arc::new(Trust(trusted)), indicators })
    }

    /// The rules of a lake that has none of its own.
    ///
    /// # Errors
    /// None that a released Waybill has: a test reads them.
    #[cfg(test)]
    pub(in crate::search) fn default_rules() -> Result<Self> {
        Self::parse("")
    }

    /// The helpers that these indicators look at.
    pub(super) fn helpers(&self) -> BTreeSet<Helper> {
        let columns = self.indicators.iter().flat_map(|indicator| {
            let columns = indicator.when.column_refs();
            columns.into_iter().map(|column| column.name.clone()).collect::<Vec<_>>()
        });
        let columns: BTreeSet<String> = columns.collect();
        Helper::ALL.into_iter().filter(|helper| columns.contains(helper.name())).collect()
    }
}

/// A domain as people type it: with a scheme, `www.`, a path, capital letters.
pub(super) fn domain(text: &str) -> Result<String> {
    let lower = text.trim().to_lowercase();
    let rest = lower.split_once("://").map_or(lower.as_str(), |(_, rest)| rest);
    let rest = rest.rsplit('@').next().unwrap_or(rest);
    let rest = rest.split(['/', ':', '?', '#']).next().unwrap_or_default().trim_matches('.');
    let name = rest.strip_prefix("www.").filter(|name| name.contains('.')).unwrap_or(rest);
    let is_label = |label: &str| {
        !label.is_empty() && label.len() <= 63 && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
    };
    if name.len() > 253 || !name.contains('.') || !name.split('.').all(is_label) {
        return Err(Error::new(Code::Configuration, format!("`{text}` is not a domain, like `contoso.example`")));
    }
    Ok(name.to_owned())
}

fn trusted(written: TrustedAsWritten) -> Result<Trusted> {
    let domain = domain(&written.domain).map_err(|error| error.context("the rules of risk: `[[trusted]]`"))?;
    let is_day = written.from.time.is_none() && written.from.offset.is_none();
    let day = written.from.date.filter(|_| is_day);
    let day = day.and_then(|day| NaiveDate::from_ymd_opt(day.year.into(), day.month.into(), day.day.into()));
    let from = day.ok_or_else(|| wrong(format!("`[[trusted]]` `{domain}`: `from` is a day, like 2026-01-01")))?;
    Ok(Trusted { domain, from, include_subdomains: written.include_subdomains })
}

fn working_hours(written: OffHours) -> Result<WorkingHours> {
    let wrong = |what: String| wrong(format!("`[off_hours]`: {what}"));
    let name = &written.time_zone;
    let zone = functions::zone(name)
        .ok_or_else(|| wrong(format!("`{name}` is no time zone: give one like `Europe/Berlin` or `UTC`")))?;
    let day = |day: &String| day.parse::<Weekday>().map_err(|_| wrong(format!("`{day}` is no day of the week")));
    let days = written.working_days.iter().map(day).collect::<Result<Vec<_>>>()?;
    let text = &written.working_hours;
    let time = |text: &str| match text.trim() {
        // The end of a day is written like that, and is no time of the day.
        "24:00" => NaiveTime::from_hms_micro_opt(23, 59, 59, 999_999),
        text => NaiveTime::parse_from_str(text, "%H:%M").ok(),
    };
    let hours = text.split_once('-').and_then(|(from, to)| Some(time(from)?..time(to)?));
    let hours = hours.filter(|hours| !hours.is_empty());
    let hours = hours.ok_or_else(|| wrong(format!("`{text}` are no hours of one day, like `08:00-18:00`")))?;
    Ok(WorkingHours { zone, days, hours })
}

// ------------------------------------------------------------------------------------------------------------------
// Conditions.

/// What conditions may name.
fn columns() -> &'static SchemaRef {
    static COLUMNS: LazyLock<SchemaRef> = LazyLock::new(|| {
        let mut fields = table(TableName::FileEvents).arrow_schema().fields().to_vec();
        fields.extend(Helper::ALL.map(|helper| Arc::new(Field::new(helper.name(), helper.kind(), true))));
        fields.extend(SETTINGS.map(|name| Arc::new(Field::new(name, DataType::Int64, true))));
        Arc::new(Schema::new(fields))
    });
    &COLUMNS
}

const SETTINGS: [&str; 3] = ["rare_use_at_most", "large_volume_bytes", "large_volume_files"];

fn conditions(written: Vec<IndicatorAsWritten>, settings: [(&str, i64); 3]) -> Result<Vec<Indicator>> {
    if written.len() > limits::RISK_INDICATORS {
        return Err(wrong(format!("{} indicators are more than {}", written.len(), limits::RISK_INDICATORS)));
    }
    let state = engine::state();
    let schema = DFSchema::try_from(Arc::clone(columns())).map_err(|error| wrong(error.strip_backtrace()))?;
    let (mut ids, mut indicators) = (BTreeSet::new(), Vec::new());
    for IndicatorAsWritten { id, name, weight, when } in written {
        let wrong = |what: String| wrong(format!("`[[indicator]]` `{id}`: {what}"));
        if id.trim().is_empty() || name.trim().is_empty() {
            return Err(wrong("`id` and `name` are not empty".to_owned()));
        }
        if !(0..=limits::RISK_WEIGHT).contains(&weight) {
            return Err(wrong(format!("`weight` is from 0 to {}", limits::RISK_WEIGHT)));
        }
        if !ids.insert(id.clone()) {
            return Err(wrong("another indicator has this id".to_owned()));
        }
        let when = condition(&when, &state, &schema, settings)
            .map_err(|why| wrong(format!("`when` cannot be used: {why}")))?;
        indicators.push(Indicator { label: Label { id, name, weight }, when });
    }
    Ok(indicators)
}

fn condition(
    text: &str,
    state: &SessionState,
    schema: &DFSchema,
    settings: [(&str, i64); 3],
) -> std::result::Result<Expr, String> {
    let plain = |error: datafusion::error::DataFusionError| error.strip_backtrace();
    let expression = state.create_logical_expr(text, schema).map_err(plain)?;
    let mut refused = None;
    let look = expression.apply(|part| {
        refused = match part {
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => {
                Some("a condition looks at one event, and not into a subquery")
            }
            Expr::AggregateFunction(_) | Expr::WindowFunction(_) | Expr::GroupingSet(_) | Expr::Unnest(_) => {
                Some("a condition looks at one event, so it has no aggregate or window function and no `unnest`")
            }
            // DataFusion names `count(*)` by itself.
            Expr::Alias(alias) if matches!(*alias.expr, Expr::AggregateFunction(_)) => None,
            Expr::Alias(_) => Some("a condition has no name; give the indicator one"),
            Expr::Placeholder(_) | Expr::OuterReferenceColumn(..) | Expr::ScalarVariable(..) => {
                Some("a condition has no parameters")
            }
            Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
                Some("its answer must follow from the event, and not from when it is asked")
            }
            _ => None,
        };
        Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    look.map_err(plain)?;
    if let Some(refused) = refused {
        return Err(refused.to_owned());
    }
    let physical = state.create_physical_expr(expression.clone(), schema).map_err(plain)?;
    let kind = physical.data_type(columns()).map_err(plain)?;
    if kind != DataType::Boolean {
        return Err(format!("it is {kind}, and neither true nor false"));
    }
    let with_values = expression.transform(|part| {
        let value = match &part {
            Expr::Column(column) => settings.iter().find(|(name, _)| *name == column.name),
            _ => None,
        };
        Ok(match value {
            Some((_, value)) => {
                datafusion::common::tree_node::Transformed::yes(Expr::Literal(ScalarValue::Int64(Some(*value)), None))
            }
            None => datafusion::common::tree_node::Transformed::no(part),
        })
    });
    with_values.map(|transformed| transformed.data).map_err(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_rules_are_sound_and_an_empty_document_means_them() {
        let rules = Rules::default_rules().unwrap();
        assert_eq!(rules.indicators.len(), 20);
        assert_eq!(rules.history_days, 90);
        assert!(rules.trust.all().is_empty());
        assert_eq!(rules.helpers().len(), 6, "all but `trusted`");
        let severities = [0, 1, 3, 4, 6, 7, 8, 9, 99].map(|score| rules.severity.of(score));
        assert_eq!(
            severities,
            ["NO_RISK_INDICATED", "LOW", "LOW", "MODERATE", "MODERATE", "HIGH", "HIGH", "CRITICAL", "CRITICAL"]
        );
    }

    #[test]
    fn domains_are_understood_as_people_type_them() {
        for (text, expected) in [
            ("Contoso.Example", "contoso.example"),
            (" https://www.contoso.example/about?x ", "contoso.example"),
            ("www.contoso.example.", "contoso.example"),
            ("www.example", "www.example"),
            ("ada@contoso.example", "contoso.example"),
            ("contoso.example:443", "contoso.example"),
            ("bücher.example", "bücher.example"),
        ] {
            assert_eq!(domain(text).unwrap(), expected, "{text}");
        }
        for text in ["", "contoso", "*.contoso.example", "a b.example", "a..example", "x' or 1=1.example"] {
            assert_eq!(domain(text).unwrap_err().code(), Code::Configuration, "{text}");
        }
    }

    #[test]
    fn trust_is_of_a_domain_from_a_day_on_and_of_those_below_when_told_so() {
        let rules = Rules::parse(
            r#"
            [[trusted]]
            domain = "https://www.Partner.example"
            from = 2026-02-01
            [[trusted]]
            domain = "group.example"
            from = 2026-01-01
            include_subdomains = true
            "#,
        )
        .unwrap();
        let covers = |domain: &str, day: &str| rules.trust.covers(domain, day.parse().unwrap());
        assert!(covers("partner.example", "2026-02-01"));
        assert!(!covers("partner.example", "2026-01-31"));
        assert!(!covers("mail.partner.example", "2026-02-01"));
        assert!(covers("group.example", "2026-01-01") && covers("a.b.group.example", "2026-01-01"));
        assert!(!covers("a.group.example", "2025-12-31") && !covers("notgroup.example", "2026-01-01"));
        assert!(!covers("example", "2026-02-01") && !covers("", "2026-02-01"));
    }

    #[test]
    fn bad_rules_name_the_place_and_the_reason() {
        let indicator =
            |when: &str| format!("[[indicator]]\nid = \"mine\"\nname = \"Mine\"\nweight = 1\nwhen = \"{when}\"");
        for (document, expected) in [
            (indicator("no_such > 1"), "`mine`: `when` cannot be used: "),
            (indicator("sender"), "it is Utf8, and neither true nor false"),
            (indicator("exists (select 1)"), "not into a subquery"),
            (indicator("sender in (select sender from file_events)"), "`mine`"),
            (indicator("count(*) > 1"), "no aggregate or window function"),
            (indicator("row_number() over () = 1"), "no aggregate or window function"),
            (indicator("observed_at < now()"), "not from when it is asked"),
            (indicator("random() < 0.5"), "not from when it is asked"),
            (indicator("repeat(sender, 1000000000) = ''"), "`mine`"),
            (indicator("true; drop table file_events"), "`mine`"),
            (indicator("sender = $1"), "`mine`"),
            (indicator("file_size_bytes = 'x' and"), "`mine`"),
            (indicator("true").replace("weight = 1", "weight = -1"), "`weight` is from 0"),
            (indicator("true").replace("weight", "wieght"), "unknown field `wieght`"),
            (format!("{0}\n{0}", indicator("true")), "another indicator has this id"),
            ("[severity]\ncritical = 1\nhigh = 2\nmoderate = 3\nlow = 4".to_owned(), "go down"),
            ("[history]\ndays = 0".to_owned(), "`[history]`"),
            (
                "[off_hours]\ntime_zone = \"Mars\"\nworking_days = []\nworking_hours = \"08:00-18:00\"".to_owned(),
                "`Mars`",
            ),
            (
                "[off_hours]\ntime_zone = \"UTC\"\nworking_days = [\"Caturday\"]\nworking_hours = \"\"".to_owned(),
                "Caturday",
            ),
            ("[off_hours]\ntime_zone = \"UTC\"\nworking_days = []\nworking_hours = \"22-06\"".to_owned(), "22-06"),
            ("[[trusted]]\ndomain = \"x\"\nfrom = 2026-01-01".to_owned(), "`x` is not a domain"),
            ("[[trusted]]\ndomain = \"x.example\"\nfrom = 2026-01-01T00:00:00Z".to_owned(), "`from` is a day"),
            ("[[trusted]]\ndomain = \"x.example\"".to_owned(), "missing field `from`"),
            ("nonsense".to_owned(), "the rules of risk"),
            (format!("#{}", "x".repeat(limits::RISK_RULES_BYTES)), "bytes are more than"),
        ] {
            let error = Rules::parse(&document).unwrap_err();
            assert_eq!(error.code(), Code::Configuration, "{document}");
            assert!(error.to_string().contains(expected), "{document}: {error}");
        }
    }
}
