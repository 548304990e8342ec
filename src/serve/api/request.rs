//! What a request of the API asks: the members of its body beside the filters.

use serde_json::{Map, Value};

use super::Refusal;
use crate::limits;
use crate::search::browse::Order;
use crate::search::query::{Kind, Query, Term};

/// A body that asks about events.
pub(super) struct Body {
    members: Map<String, Value>,
    /// Which events.
    pub(super) query: Query,
}

/// Which page.
pub(super) struct Paging {
    /// Events of a page.
    pub(super) size: usize,
    /// The page's number, from 1 on; without tokens.
    pub(super) number: usize,
    /// With tokens: the text of the one that was given, which is empty for the first page.
    pub(super) token: Option<String>,
}

impl Body {
    /// Reads a body.
    ///
    /// # Errors
    /// Everything that is wrong with its filters.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let body: Value = serde_json::from_slice(bytes)
            .map_err(|error| Refusal::of("ILLEGAL_VALUE", format!("the body is no JSON: {error}")))?;
        let query = Query::from_json(&body)?;
        let Value::Object(members) = body else {
            return Err(Refusal::of("ILLEGAL_VALUE", "the body must be an object"));
        };
        Ok(Self { members, query })
    }

    fn member(&self, name: &str) -> Option<&Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        match self.member(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Refusal::of("ILLEGAL_VALUE", format!("`{name}` must be a text"))),
        }
    }

    /// A term that a member names.
    fn term(&self, name: &str, kind: &str) -> Result<Option<Term>, Refusal> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let term = Term::parse(text);
        term.map(Some).ok_or_else(|| Refusal::of(kind, format!("`{name}`: there is no term `{text}`")))
    }

    /// Which page.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn paging(&self) -> Result<Paging, Refusal> {
        let number = |name: &str, default: usize, most: usize, kind: &str| match self.member(name) {
            None => Ok(default),
            Some(value) => {
                let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
                number.filter(|number| (1..=most).contains(number)).ok_or_else(|| {
                    Refusal::of(kind, format!("`{name}` must be a whole number from 1 to {most}, and is {value}"))
                })
            }
        };
        Ok(Paging {
            size: number("pgSize", 100, limits::API_PAGE_EVENTS, "INVALID_PAGE_SIZE")?,
            number: number("pgNum", 1, limits::API_PAGES, "INVALID_PAGE_NUMBER")?,
            token: self.text("pgToken")?.map(str::to_owned),
        })
    }

    /// The order: by default that in which events became searchable, the newest first.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn order(&self) -> Result<Order<'static>, Refusal> {
        let is_descending = match self.text("srtDir")? {
            None | Some("desc") => true,
            Some("asc") => false,
            Some(other) => return Err(Refusal::of("ILLEGAL_SORT", format!("`srtDir` is asc or desc, not `{other}`"))),
        };
        let term = self.term("srtKey", "ILLEGAL_SORT")?;
        if let Some(term) = term.filter(|term| term.kind().is_list()) {
            return Err(Refusal::of("ILLEGAL_SORT", format!("`{term}` has several values per event")));
        }
        // Where all events are equal, the order of insertion is left.
        let column = match term.map(|term| (term.name(), term.column())) {
            None | Some(("event.id", _) | (_, None)) => "inserted_at",
            Some((_, Some(column))) => column,
        };
        Ok(Order { column, is_descending })
    }

    /// The term to group by, and how many groups.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn grouping(&self) -> Result<(Term, usize), Refusal> {
        let term = self.term("groupingTerm", "ILLEGAL_GROUP")?;
        let term = term.ok_or_else(|| Refusal::of("ILLEGAL_GROUP", "`groupingTerm` is missing"))?;
        if matches!(term.kind(), Kind::Numbers) {
            return Err(Refusal::of("ILLEGAL_GROUP", format!("events cannot be grouped by `{term}`")));
        }
        let size = match self.member("size") {
            None => limits::API_GROUPS_USUALLY,
            Some(size) => {
                let most = limits::API_GROUPS;
                let given = size.as_u64().and_then(|size| usize::try_from(size).ok());
                given.filter(|size| (1..=most).contains(size)).ok_or_else(|| {
                    Refusal::of(
                        "ILLEGAL_VALUE",
                        format!("`size` must be a whole number from 1 to {most}, and is {size}"),
                    )
                })?
            }
        };
        Ok((term, size))
    }

    /// The columns of an export.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn columns(&self) -> Result<Vec<Term>, Refusal> {
        let missing = || Refusal::of("MISSING_VALUE", "`columns` must be a list of terms, with at least one");
        let names = self.member("columns").ok_or_else(missing)?.as_array().ok_or_else(missing)?;
        if names.is_empty() {
            return Err(missing());
        }
        let mut terms: Vec<Term> = Vec::new();
        for name in names {
            let term = name.as_str().and_then(Term::parse);
            let term =
                term.ok_or_else(|| Refusal::of("ILLEGAL_VALUE", format!("`columns`: there is no term {name}")))?;
            if terms.contains(&term) {
                return Err(Refusal::of("ILLEGAL_VALUE", format!("`columns` names `{term}` twice")));
            }
            terms.push(term);
        }
        Ok(terms)
    }

    /// What is asked, whichever page is wanted: the same text for every page of one question.
    pub(super) fn question(&self) -> String {
        self.query.to_json().to_string()
    }
}
