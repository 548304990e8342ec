//! The search model: filters in the words that analysts know, joined by AND and OR in groups.
//!
//! A query comes from JSON (`json`), from the short text of the command line (`text`) or from options (`criteria`), and
//! its filters are checked when they are made. It is compiled once into conditions (`compile`), which decide what each
//! operator means; these are written as an expression of the engine (`plan`) and as SQL (`sql`), so that the two cannot
//! mean different things. No value ever becomes part of a statement that runs: what runs is the expression.
//!
//! What the operators mean is in `docs/search.md`; the property test in `tests.rs` compares all three with a
//! naive reading of it.

mod compile;
mod criteria;
mod finding;
mod json;
mod place;
mod plan;
mod sql;
mod term;
#[cfg(test)]
mod tests;
mod text;
mod value;

use datafusion::logical_expr::Expr;

pub use self::criteria::Criteria;
pub use self::finding::{Finding, FindingKind};
pub use self::place::Place;
pub use self::sql::{Selection, Sort};
pub use self::term::{Kind, Term};
use self::value::Given;
pub use self::value::{Moment, Span, Value};
use crate::clock::Time;
use crate::limits;

/// Which events: those that meet all members, or any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// How the members are joined.
    pub clause: Clause,
    /// Filters and groups. AND of nothing is met by every event, OR of nothing by none.
    pub members: Vec<Member>,
}

/// How members are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clause {
    /// All must be met.
    #[default]
    And,
    /// One must be met.
    Or,
}

/// A part of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// One criterion.
    Filter(Filter),
    /// A query of its own.
    Group(Query),
}

/// One criterion; checked when it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    term: Term,
    operator: Operator,
    value: Value,
}

macro_rules! operators {
    ($($(#[$doc:meta])* $name:ident = $wire:literal, $words:literal;)*) => {
        /// How a term is compared.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Operator { $($(#[$doc])* $name,)* }

        impl Operator {
            /// All twelve.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name in the API.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $wire,)* }
            }

            /// Its words in the text form and in the console.
            pub fn words(self) -> &'static str {
                match self { $(Self::$name => $words,)* }
            }
        }
    };
}

operators! {
    /// Equal to the value, or like its pattern; of a list, one element is.
    Is = "IS", "is";
    /// Not so; an event without a value is not so either.
    IsNot = "IS_NOT", "is not";
    /// IS for one of the values.
    IsAny = "IS_ANY", "is any";
    /// IS_NOT for all of the values.
    IsNone = "IS_NONE", "is none";
    /// Has a value; of a list, at least one.
    Exists = "EXISTS", "exists";
    /// Has none.
    DoesNotExist = "DOES_NOT_EXIST", "does not exist";
    /// Greater, or later.
    GreaterThan = "GREATER_THAN", "is greater than";
    /// Less, or earlier.
    LessThan = "LESS_THAN", "is less than";
    /// On that day of UTC.
    On = "ON", "on";
    /// Then or later.
    OnOrAfter = "ON_OR_AFTER", "on or after";
    /// Then or earlier; a bare date includes its day.
    OnOrBefore = "ON_OR_BEFORE", "on or before";
    /// Since that long ago.
    WithinTheLast = "WITHIN_THE_LAST", "within the last";
}

impl Operator {
    /// The operator of that name in the API.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|operator| operator.as_str() == name)
    }

    /// Whether it takes several values.
    pub fn takes_list(self) -> bool {
        matches!(self, Self::IsAny | Self::IsNone)
    }
}

impl Filter {
    /// A filter whose operator takes one value, or none (`""`).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(term: Term, operator: Operator, value: impl Into<String>) -> Result<Self, Finding> {
        Self::of(term, operator, Given::One(value.into()))
    }

    /// A filter whose operator takes a list.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn list(term: Term, operator: Operator, values: Vec<String>) -> Result<Self, Finding> {
        Self::of(term, operator, Given::Many(values))
    }

    fn of(term: Term, operator: Operator, given: Given) -> Result<Self, Finding> {
        value::check(term, operator, given).map(|value| Self { term, operator, value })
    }

    /// What is compared.
    pub fn term(&self) -> Term {
        self.term
    }

    /// How.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// With what.
    pub fn value(&self) -> &Value {
        &self.value
    }
}

impl Query {
    /// What every event meets.
    pub fn everything() -> Self {
        Self { clause: Clause::And, members: Vec::new() }
    }

    /// Both this query and another; one that has no members changes nothing.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let mut members = Vec::new();
        for query in [self, other] {
            match query.clause {
                Clause::And => members.extend(query.members),
                Clause::Or if query.members.len() <= 1 => members.extend(query.members),
                Clause::Or => members.push(Member::Group(query)),
            }
        }
        Self { clause: Clause::And, members }
    }

    /// The query as an expression over the columns of the view `events` (of `file_events` when no filter asks for risk).
    /// `now` is what "within the last" counts back from.
    pub fn expression(&self, now: Time) -> Expr {
        plan::expression(&compile::query(self, now))
    }

    /// The equivalent SELECT, which gives the same rows in Waybill, through psql and in Spark SQL.
    pub fn sql(&self, selection: &Selection, now: Time) -> String {
        sql::select(&compile::query(self, now), selection)
    }

    /// Whether a filter or group of it asks for a column that only the view `events` has.
    pub fn asks_for_risk(&self) -> bool {
        self.filters().any(|filter| filter.term.column().is_some_and(term::is_risk_column))
    }

    /// Every filter, wherever it stands.
    pub fn filters(&self) -> impl Iterator<Item = &Filter> {
        let mut left: Vec<&Member> = self.members.iter().rev().collect();
        std::iter::from_fn(move || {
            loop {
                match left.pop()? {
                    Member::Filter(filter) => return Some(filter),
                    Member::Group(group) => left.extend(group.members.iter().rev()),
                }
            }
        })
    }

    /// What is too much in it, for queries that come from outside.
    fn check_size(&self) -> Vec<Finding> {
        let (mut filters, mut values, mut patterns) = (0, 0, 0);
        for filter in self.filters() {
            let (some, with_wildcards) = filter.value.count();
            filters += 1;
            values += some;
            patterns += with_wildcards;
        }
        let mut findings = Vec::new();
        let mut limit = |count: usize, most: usize, what: &str, kind| {
            if count > most {
                findings.push(Finding::of(kind, format!("a search has at most {most} {what}, this one has {count}")));
            }
        };
        limit(filters, limits::SEARCH_FILTERS, "filters", FindingKind::MaxFiltersExceeded);
        limit(values, limits::SEARCH_VALUES, "values", FindingKind::MaxValuesForFilterExceeded);
        limit(patterns, limits::SEARCH_PATTERNS, "values with wildcards", FindingKind::MaxValuesForFilterExceeded);
        findings
    }
}
