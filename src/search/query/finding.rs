//! What is wrong with a query.

use crate::error::{Code, Error};

/// One thing that is wrong, with the filter that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What sort of mistake.
    pub kind: FindingKind,
    /// The filter's term as it was given.
    pub term: Option<String>,
    /// Its operator as it was given.
    pub operator: Option<String>,
    /// Its value as it was given.
    pub value: Option<serde_json::Value>,
    /// What is wrong, in a sentence.
    pub description: String,
}

/// What sort of mistake, in the words of the replaced product's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// A value that the term cannot have, or a term that nobody knows.
    IllegalValue,
    /// An operator that nobody knows, or that the term does not take.
    IllegalOperator,
    /// A value is too long.
    MaxLengthExceeded,
    /// A filter lacks its value.
    MissingValue,
    /// A filter has a value that its operator does not take.
    UnexpectedValue,
    /// There is no group.
    MissingGroups,
    /// A group has no filters; to pass over it would widen the question.
    MissingFilters,
    /// Too many filters.
    MaxFiltersExceeded,
    /// Too many values.
    MaxValuesForFilterExceeded,
    /// Groups are too many, or too deep.
    MaxGroupsExceeded,
}

impl FindingKind {
    /// The type of the problem on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IllegalValue => "ILLEGAL_VALUE",
            Self::IllegalOperator => "ILLEGAL_OPERATOR",
            Self::MaxLengthExceeded => "MAX_LENGTH_EXCEEDED",
            Self::MissingValue => "MISSING_VALUE",
            Self::UnexpectedValue => "UNEXPECTED_VALUE",
            Self::MissingGroups => "MISSING_GROUPS",
            Self::MissingFilters => "MISSING_FILTERS",
            Self::MaxFiltersExceeded => "MAX_FILTERS_EXCEEDED",
            Self::MaxValuesForFilterExceeded => "MAX_VALUES_FOR_FILTER_EXCEEDED",
            Self::MaxGroupsExceeded => "MAX_GROUPS_EXCEEDED",
        }
    }
}

impl Finding {
    /// One that belongs to no filter.
    pub(super) fn of(kind: FindingKind, description: impl Into<String>) -> Self {
        Self { kind, term: None, operator: None, value: None, description: description.into() }
    }

    /// All of them as one error, for whoever typed the query.
    pub fn error(findings: &[Self]) -> Error {
        let texts: Vec<String> = findings.iter().map(ToString::to_string).collect();
        Error::new(Code::Usage, texts.join("; "))
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.description)?;
        if let Some(value) = &self.value {
            let text = value.to_string();
            let cut: String = text.chars().take(80).collect();
            write!(f, " (got {cut}{})", if cut.len() < text.len() { "…" } else { "" })?;
        }
        Ok(())
    }
}
