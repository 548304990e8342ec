//! A search as the query of its address: what a form sends, what a person shares, and what *back* leads to.
//!
//! ```text
//! range=7d                                     last 7 days; or 24h 30d 90d all, or on=2026-11-24&…
//! range=custom&from=2026-11-01&to=2026-11-24   UTC; a day or a minute, both included
//! match=AND                                    how the filters of the outermost group are joined
//! f=file.name&o=IS&v=*.docx                    a filter: term, operator, value
//! f=file.hash.md5&o=IS_ANY&vs=…%0A…            several values, one a line
//! g=OR&f=…&o=…&v=…&e=1                         a group within a group
//! c=file.name&c=…                              columns; without, the usual ones
//! s=@timestamp&d=desc                          order
//! after=…                                      the place in the pages
//! ```
//!
//! The order of the fields says which filter is in which group: browsers send the fields of a form in its order. An
//! address has one form ([`Address::to_query`]), and every other form of it leads there, so that what is shared is short
//! and says nothing that is not searched.

use chrono::{Duration, NaiveDate, NaiveDateTime};
use serde_json::{Value, json};

use super::fields::{self, Field, SHOWN_AT_FIRST, Visible};
use crate::clock::Time;
use crate::error::{Code, Error, Result};
use crate::limits;

/// A search, as its page has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) range: Range,
    pub(super) root: Group,
    /// Terms of the columns; empty for the usual ones.
    pub(super) columns: Vec<String>,
    /// The term of the order.
    pub(super) sort: String,
    pub(super) is_ascending: bool,
    pub(super) place: Place,
    /// Whether somebody still changes it, so that nothing is searched yet.
    pub(super) is_draft: bool,
}

/// When the events were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// A span that ends now; one of [`SPANS`].
    Last(&'static Span),
    /// Everything that the lake has.
    All,
    /// Between two texts that stand for times; either may be missing.
    Custom { from: String, to: String },
}

/// A span that the page offers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    pub(super) days: i64,
}

/// The spans that the page offers.
pub(super) static SPANS: [Span; 4] = [
    Span { name: "24h", label: "Last 24 hours", days: 1 },
    Span { name: "7d", label: "Last 7 days", days: 7 },
    Span { name: "30d", label: "Last 30 days", days: 30 },
    Span { name: "90d", label: "Last 90 days", days: 90 },
];

/// Filters and groups that are joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    /// Whether one of them suffices.
    pub(super) is_any: bool,
    pub(super) members: Vec<Member>,
}

/// A part of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Member {
    Filter(Filter),
    Group(Group),
}

/// A filter as it was written; whether it means something, the search model says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) term: String,
    pub(super) operator: String,
    pub(super) values: Vec<String>,
}

/// Which page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// The first.
    #[default]
    Start,
    /// The one that follows an event.
    After(String),
    /// The one that ends before an event.
    Before(String),
}

/// A change that a button of the builder asks for, at a path such as `0.2`.
enum Edit {
    AddFilter(Vec<usize>),
    AddGroup(Vec<usize>),
    Drop(Vec<usize>),
}

impl Default for Address {
    fn default() -> Self {
        Self {
            range: Range::Last(&SPANS[1]),
            root: Group::default(),
            columns: Vec::new(),
            sort: "@timestamp".to_owned(),
            is_ascending: false,
            place: Place::Start,
            is_draft: false,
        }
    }
}

impl Address {
    /// Reads what came after the `?`, and carries out the button that was pressed.
    ///
    /// # Errors
    /// `request-refused` when it is larger than a search may be.
    pub(super) fn parse(query: &str) -> Result<Self> {
        if query.len() > limits::CONSOLE_ADDRESS_BYTES {
            let most = limits::CONSOLE_ADDRESS_BYTES;
            let message = format!("the search is longer than the {most} bytes that an address may have");
            return Err(Error::new(Code::RequestRefused, message));
        }
        let mut address = Self::default();
        let (mut from, mut to, mut range, mut edit) = (String::new(), String::new(), String::new(), None);
        let (mut was, mut filters) = (String::new(), 0);
        let mut groups = vec![Group::default()];
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let text = value.trim().to_owned();
            match name.as_ref() {
                "range" => range = text,
                "was" => was = text,
                "from" => from = text,
                "to" => to = text,
                "match" => groups[0].is_any = text == "OR",
                "g" if groups.len() > limits::CONSOLE_GROUP_DEPTH => return Err(too_deep()),
                "g" => groups.push(Group { is_any: text == "OR", members: Vec::new() }),
                "e" => close(&mut groups),
                "f" => {
                    filters += 1;
                    if filters > limits::CONSOLE_FILTERS {
                        return Err(too_many());
                    }
                    if let Some(group) = groups.last_mut() {
                        let filter = Filter { term: text, operator: "IS".to_owned(), values: Vec::new() };
                        group.members.push(Member::Filter(filter));
                    }
                }
                "o" | "v" | "vs" => {
                    if let Some(Member::Filter(filter)) = groups.last_mut().and_then(|group| group.members.last_mut()) {
                        filter.take(&name, &text);
                    }
                }
                "c" if fields::of_term(&text).is_some() && !address.columns.contains(&text) => {
                    address.columns.push(text)
                }
                "s" if fields::of_term(&text).is_some_and(|field| field.is_sortable) => address.sort = text,
                "d" => address.is_ascending = text == "asc",
                "after" if !text.is_empty() => address.place = Place::After(text),
                "before" if !text.is_empty() => address.place = Place::Before(text),
                "edit" => address.is_draft = true,
                "do" => edit = Edit::parse(&text),
                _ => {}
            }
        }
        while groups.len() > 1 {
            close(&mut groups);
        }
        address.root = groups.pop().unwrap_or_default();
        // Who wrote a day and left the choice of spans as it was means the day.
        let is_overwritten = was == range && !(from.is_empty() && to.is_empty());
        address.range = Range::parse(if is_overwritten { "custom" } else { &range }, from, to);
        if let Some(edit) = edit {
            address.root.apply(&edit);
            address.is_draft = true;
        }
        if address.is_draft {
            address.place = Place::Start;
        } else {
            address.root.drop_empty();
        }
        if address.columns == SHOWN_AT_FIRST {
            address.columns.clear();
        }
        Ok(address)
    }

    /// The one form of it.
    pub(super) fn to_query(&self) -> String {
        let mut text = url::form_urlencoded::Serializer::new(String::new());
        match &self.range {
            Range::Last(span) => drop(text.append_pair("range", span.name)),
            Range::All => drop(text.append_pair("range", "all")),
            Range::Custom { from, to } => {
                text.append_pair("range", "custom");
                for (name, value) in [("from", from), ("to", to)] {
                    if !value.is_empty() {
                        text.append_pair(name, value);
                    }
                }
            }
        }
        if self.root.is_any {
            text.append_pair("match", "OR");
        }
        self.root.write_members(&mut text);
        for column in &self.columns {
            text.append_pair("c", column);
        }
        let usual = Self::default();
        if self.sort != usual.sort || self.is_ascending {
            text.append_pair("s", &self.sort).append_pair("d", if self.is_ascending { "asc" } else { "desc" });
        }
        match &self.place {
            Place::Start => {}
            Place::After(token) => drop(text.append_pair("after", token)),
            Place::Before(token) => drop(text.append_pair("before", token)),
        }
        if self.is_draft {
            text.append_pair("edit", "1");
        }
        text.finish()
    }

    /// Its page.
    pub(super) fn link(&self) -> String {
        format!("/search?{}", self.to_query())
    }

    /// The same search from its first page on.
    pub(super) fn at_start(&self) -> Self {
        Self { place: Place::Start, is_draft: false, ..self.clone() }
    }

    /// The same search in another order, from its first page on.
    pub(super) fn sorted(&self, term: &str, is_ascending: bool) -> Self {
        Self { sort: term.to_owned(), is_ascending, ..self.at_start() }
    }

    /// The same search of another time, from its first page on.
    pub(super) fn within(&self, range: Range) -> Self {
        Self { range, ..self.at_start() }
    }

    /// The same search at another place.
    pub(super) fn at(&self, place: Place) -> Self {
        Self { place, is_draft: false, ..self.clone() }
    }

    /// The same search with one more criterion, which all events meet.
    pub(super) fn with(&self, term: &str, operator: &str, value: &str) -> Self {
        let mut address = self.at_start();
        let filter = Member::Filter(Filter::new(term, operator, value));
        if address.root.is_any && !address.root.members.is_empty() {
            // What was any of these becomes one criterion beside the new one.
            let before = std::mem::take(&mut address.root);
            address.root.members.push(Member::Group(before));
        }
        address.root.is_any = false;
        address.root.members.push(filter);
        address
    }

    /// A search for one thing, in all time.
    pub(super) fn of(term: &str, value: &str) -> Self {
        let members = vec![Member::Filter(Filter::new(term, "IS", value))];
        Self { range: Range::All, root: Group { is_any: false, members }, ..Self::default() }
    }

    /// The columns that the table shows, of those that somebody may see.
    pub(super) fn shown(&self, visible: &Visible) -> Vec<&'static Field> {
        let of = |terms: &[&str]| -> Vec<_> {
            terms.iter().filter_map(|term| fields::of_term(term)).filter(|field| visible.has(field)).collect()
        };
        let chosen = of(&self.columns.iter().map(String::as_str).collect::<Vec<_>>());
        if chosen.is_empty() { of(&SHOWN_AT_FIRST) } else { chosen }
    }

    /// The field by which the events are sorted, and whether the greatest comes first. Who may not see the values does not
    /// see their order either.
    pub(super) fn order(&self, visible: &Visible) -> (&'static Field, bool) {
        let chosen = fields::of_term(&self.sort).filter(|field| field.is_sortable && visible.has(field));
        chosen.map_or((&fields::FIELDS[0], true), |field| (field, !self.is_ascending))
    }

    /// The search in the form of `POST /v2/file-events`.
    ///
    /// # Errors
    /// `request-refused` when the range holds no times.
    pub(super) fn groups(&self) -> Result<Value> {
        let mut groups = Vec::new();
        let times = self.range.filters()?;
        if !times.is_empty() {
            groups.push(json!({"filterClause": "AND", "filters": times}));
        }
        if !self.root.members.is_empty() {
            groups.push(self.root.to_json());
        }
        if groups.is_empty() {
            // The model wants a criterion, and every event has an id.
            let all = json!({"term": "event.id", "operator": "EXISTS", "value": null});
            groups.push(json!({"filterClause": "AND", "filters": [all]}));
        }
        Ok(json!({"groupClause": "AND", "groups": groups}))
    }

    /// Every filter, wherever it stands.
    pub(super) fn filters(&self) -> Vec<&Filter> {
        let mut left = vec![&self.root];
        let mut filters = Vec::new();
        while let Some(group) = left.pop() {
            for member in &group.members {
                match member {
                    Member::Filter(filter) => filters.push(filter),
                    Member::Group(group) => left.push(group),
                }
            }
        }
        filters
    }

    /// The search of a query in that form, as good as the builder can show it.
    pub(super) fn of_groups(query: &Value) -> Self {
        let root = Group::of_json(query, "groupClause", "groups");
        let mut address = Self { range: Range::All, root, ..Self::default() };
        address.root.drop_empty();
        if !address.root.is_any
            && let Some(Member::Group(first)) = address.root.members.first()
            && let Some(range) = Range::of_group(first)
        {
            address.range = range;
            address.root.members.remove(0);
        }
        address.root.members.retain(|member| !matches!(member, Member::Filter(filter) if filter.is_everything()));
        address.root.flatten();
        address
    }
}

fn too_deep() -> Error {
    let most = limits::CONSOLE_GROUP_DEPTH;
    Error::new(Code::RequestRefused, format!("groups may be nested {most} deep"))
}

fn too_many() -> Error {
    let most = limits::CONSOLE_FILTERS;
    let message = format!("the console shows searches of at most {most} filters; longer ones can be asked by the API");
    Error::new(Code::RequestRefused, message)
}

fn close(groups: &mut Vec<Group>) {
    if groups.len() > 1
        && let Some(group) = groups.pop()
        && let Some(parent) = groups.last_mut()
    {
        parent.members.push(Member::Group(group));
    }
}

impl Range {
    fn parse(name: &str, from: String, to: String) -> Self {
        match name {
            "all" => Self::All,
            "custom" => Self::Custom { from, to },
            name => Self::Last(SPANS.iter().find(|span| span.name == name).unwrap_or(&SPANS[1])),
        }
    }

    /// Its name in addresses.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Last(span) => span.name,
            Self::All => "all",
            Self::Custom { .. } => "custom",
        }
    }

    /// First and last moment; nothing where it is open.
    ///
    /// # Errors
    /// `request-refused` when a text is no time, or the end is before the beginning.
    pub(super) fn bounds(&self, now: Time) -> Result<(Option<Time>, Option<Time>)> {
        match self {
            Self::Last(span) => Ok((Some(now - Duration::days(span.days)), Some(now))),
            Self::All => Ok((None, None)),
            Self::Custom { from, to } => {
                let refuse = |text: &str| {
                    let message = format!("`{text}` is no time: write `2026-11-24` or `2026-11-24 13:30`, in UTC");
                    Error::new(Code::RequestRefused, message)
                };
                let read = |text: &str, is_end: bool| match text {
                    "" => Ok(None),
                    text => moment(text, is_end).ok_or_else(|| refuse(text)).map(Some),
                };
                let (from, to) = (read(from, false)?, read(to, true)?);
                if let (Some(from), Some(to)) = (from, to)
                    && from > to
                {
                    return Err(Error::new(Code::RequestRefused, "the range ends before it begins"));
                }
                if from.is_none() && to.is_none() {
                    return Err(Error::new(
                        Code::RequestRefused,
                        "a range needs a time from which or up to which it goes",
                    ));
                }
                Ok((from, to))
            }
        }
    }

    fn filters(&self) -> Result<Vec<Value>> {
        let filter =
            |operator: &str, value: String| json!({"term": "@timestamp", "operator": operator, "value": value});
        if let Self::Last(span) = self {
            return Ok(vec![filter("WITHIN_THE_LAST", format!("P{}D", span.days))]);
        }
        // The bounds of the others do not depend on what time it is.
        let (from, to) = self.bounds(Time::UNIX_EPOCH)?;
        let exact = |time: Time| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        Ok(from
            .map(|from| filter("ON_OR_AFTER", exact(from)))
            .into_iter()
            .chain(to.map(|to| filter("ON_OR_BEFORE", exact(to))))
            .collect())
    }

    /// The range that a group of nothing but times means.
    fn of_group(group: &Group) -> Option<Self> {
        let (mut from, mut to) = (String::new(), String::new());
        if group.is_any || group.members.is_empty() {
            return None;
        }
        for member in &group.members {
            let Member::Filter(Filter { term, operator, values }) = member else { return None };
            let [value] = values.as_slice() else { return None };
            match (term.as_str(), operator.as_str()) {
                ("@timestamp", "WITHIN_THE_LAST") if group.members.len() == 1 => {
                    let is_it = |span: &&Span| *value == format!("P{}D", span.days);
                    return SPANS.iter().find(is_it).map(Self::Last);
                }
                ("@timestamp", "ON_OR_AFTER") => from = shortest(value, false)?,
                ("@timestamp", "ON_OR_BEFORE") => to = shortest(value, true)?,
                _ => return None,
            }
        }
        Some(Self::Custom { from, to })
    }
}

/// The first or last moment of a day or a minute.
fn moment(text: &str, is_end: bool) -> Option<Time> {
    let text = text.trim().trim_end_matches('Z').replace('T', " ");
    let (start, length) = match NaiveDate::parse_from_str(&text, "%Y-%m-%d") {
        Ok(day) => (day.and_hms_opt(0, 0, 0)?, Duration::days(1)),
        Err(_) => (NaiveDateTime::parse_from_str(&text, "%Y-%m-%d %H:%M").ok()?, Duration::minutes(1)),
    };
    let start = start.and_utc();
    Some(if is_end { start.checked_add_signed(length - Duration::milliseconds(1))? } else { start })
}

/// A time as a person writes it, when that says it exactly.
fn shortest(exact: &str, is_end: bool) -> Option<String> {
    let time: Time = exact.parse().ok()?;
    let forms = ["%Y-%m-%d", "%Y-%m-%d %H:%M"].map(|form| time.format(form).to_string());
    forms.into_iter().find(|form| moment(form, is_end) == Some(time))
}

impl Group {
    fn write_members(&self, text: &mut url::form_urlencoded::Serializer<'_, String>) {
        for member in &self.members {
            match member {
                Member::Filter(filter) => {
                    text.append_pair("f", &filter.term).append_pair("o", &filter.operator);
                    match (filter.takes(), filter.values.as_slice()) {
                        (Takes::Nothing, _) => {}
                        (Takes::One, []) => drop(text.append_pair("v", "")),
                        (Takes::One, [value]) => drop(text.append_pair("v", value)),
                        (_, values) => drop(text.append_pair("vs", &values.join("\n"))),
                    }
                }
                Member::Group(group) => {
                    text.append_pair("g", if group.is_any { "OR" } else { "AND" });
                    group.write_members(text);
                    text.append_pair("e", "1");
                }
            }
        }
    }

    fn drop_empty(&mut self) {
        for member in &mut self.members {
            if let Member::Group(group) = member {
                group.drop_empty();
            }
        }
        self.members.retain(|member| match member {
            Member::Filter(filter) => !filter.is_blank(),
            Member::Group(group) => !group.members.is_empty(),
        });
    }

    /// A group of one group is that group.
    fn flatten(&mut self) {
        for member in &mut self.members {
            if let Member::Group(group) = member {
                group.flatten();
                if let [only] = group.members.as_slice() {
                    *member = only.clone();
                }
            }
        }
        if let [Member::Group(only)] = self.members.as_mut_slice() {
            *self = std::mem::take(only);
        }
    }

    fn apply(&mut self, edit: &Edit) {
        match edit {
            Edit::AddFilter(path) => {
                if let Some(group) = self.find(path) {
                    group.members.push(Member::Filter(Filter::new("file.name", "IS", "")));
                }
            }
            Edit::AddGroup(path) => {
                let blank = Member::Filter(Filter::new("file.name", "IS", ""));
                if path.len() < limits::CONSOLE_GROUP_DEPTH
                    && let Some(group) = self.find(path)
                {
                    // Another way of joining than outside: else there would be no need for a group.
                    let inner = Self { is_any: !group.is_any, members: vec![blank.clone(), blank] };
                    group.members.push(Member::Group(inner));
                }
            }
            Edit::Drop(path) => {
                if let Some((last, parents)) = path.split_last()
                    && let Some(group) = self.find(parents)
                    && *last < group.members.len()
                {
                    group.members.remove(*last);
                }
            }
        }
    }

    fn find(&mut self, path: &[usize]) -> Option<&mut Self> {
        let Some((first, rest)) = path.split_first() else { return Some(self) };
        match self.members.get_mut(*first) {
            Some(Member::Group(group)) => group.find(rest),
            _ => None,
        }
    }

    fn to_json(&self) -> Value {
        let clause = if self.is_any { "OR" } else { "AND" };
        let filters: Vec<Value> = self
            .members
            .iter()
            .filter_map(|member| match member {
                Member::Filter(filter) => Some(filter.to_json()),
                Member::Group(_) => None,
            })
            .collect();
        let groups: Vec<Value> = self
            .members
            .iter()
            .filter_map(|member| match member {
                Member::Group(group) => Some(group.to_json()),
                Member::Filter(_) => None,
            })
            .collect();
        let own = json!({"filterClause": clause, "filters": filters});
        if groups.is_empty() {
            return own;
        }
        let groups: Vec<Value> = (!filters.is_empty()).then_some(own).into_iter().chain(groups).collect();
        json!({"subgroupClause": clause, "subgroups": groups})
    }

    fn of_json(value: &Value, clause: &str, members: &str) -> Self {
        let list = |name: &str| value.get(name).and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
        let is_any = |name: &str| value.get(name).and_then(Value::as_str) == Some("OR");
        if value.get("filters").is_some() {
            let members = list("filters").iter().map(|filter| Member::Filter(Filter::of_json(filter))).collect();
            return Self { is_any: is_any("filterClause"), members };
        }
        let groups =
            list(members).iter().map(|group| Member::Group(Self::of_json(group, "subgroupClause", "subgroups")));
        Self { is_any: is_any(clause), members: groups.collect() }
    }
}

/// How many values an operator takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    One,
    Several,
}

impl Filter {
    pub(super) fn new(term: &str, operator: &str, value: &str) -> Self {
        let values = if value.is_empty() { Vec::new() } else { vec![value.to_owned()] };
        Self { term: term.to_owned(), operator: operator.to_owned(), values }
    }

    fn take(&mut self, name: &str, text: &str) {
        match name {
            // Whether there is such an operator, the model says.
            "o" => text.clone_into(&mut self.operator),
            _ if self.takes() == Takes::Nothing => {}
            // One line that was written for an operator that takes several: commas part them, as people write lists.
            "v" if self.takes() == Takes::Several => self.values.extend(parts(text, &[',', ';', '\n'])),
            "v" if !text.is_empty() => self.values = vec![text.to_owned()],
            "v" => {}
            _ => self.values.extend(parts(text, &['\n', '\r'])),
        }
    }

    pub(super) fn takes(&self) -> Takes {
        match self.operator.as_str() {
            "EXISTS" | "DOES_NOT_EXIST" => Takes::Nothing,
            "IS_ANY" | "IS_NONE" => Takes::Several,
            _ => Takes::One,
        }
    }

    fn is_blank(&self) -> bool {
        self.term.is_empty() || (self.takes() != Takes::Nothing && self.values.is_empty())
    }

    fn is_everything(&self) -> bool {
        self.term == "event.id" && self.operator == "EXISTS"
    }

    pub(super) fn to_json(&self) -> Value {
        let value = match self.takes() {
            Takes::Nothing => Value::Null,
            // Several for an operator that takes one are given as they are: the model says what is wrong, and drops none.
            Takes::One if self.values.len() < 2 => self.value_for_model(self.values.first().map_or("", String::as_str)),
            _ => self.values.iter().map(|value| self.value_for_model(value)).collect(),
        };
        json!({"term": self.term, "operator": self.operator, "value": value})
    }

    /// A value as the model wants it: sizes may be written with a unit, spans as people say them.
    fn value_for_model(&self, text: &str) -> Value {
        let looks = fields::of_term(&self.term).map(|field| field.looks);
        if looks == Some(fields::Looks::Size)
            && let Some(bytes) = bytes(text)
        {
            return json!(bytes);
        }
        if self.operator == "WITHIN_THE_LAST"
            && let Some(span) = iso_span(text)
        {
            return json!(span);
        }
        json!(text)
    }

    fn of_json(value: &Value) -> Self {
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
        let one = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let values = match value.get("value") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(values)) => values.iter().map(one).collect(),
            Some(value) => vec![one(value)],
        };
        let operator = if text("operator").is_empty() { "IS" } else { text("operator") };
        Self { term: text("term").to_owned(), operator: operator.to_owned(), values }
    }
}

fn parts(text: &str, separators: &[char]) -> Vec<String> {
    text.split(separators).map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// `10 MB` in bytes; units of 1,024 as file managers have them.
fn bytes(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let factor: i64 = match text[digits..].trim() {
        "" | "b" | "bytes" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    text[..digits].parse::<i64>().ok()?.checked_mul(factor)
}

/// `7d`, `12 h`, `90 min` as ISO 8601 spans.
fn iso_span(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let count: u32 = text[..digits].parse().ok()?;
    Some(match text[digits..].trim() {
        "d" | "day" | "days" => format!("P{count}D"),
        "h" | "hour" | "hours" => format!("PT{count}H"),
        "min" | "minute" | "minutes" => format!("PT{count}M"),
        _ => return None,
    })
}

impl Edit {
    fn parse(text: &str) -> Option<Self> {
        let (what, path) = text.split_once(':')?;
        let steps = path.split('.').filter(|step| !step.is_empty());
        let path = steps.map(str::parse).collect::<std::result::Result<Vec<usize>, _>>().ok()?;
        match what {
            "filter" => Some(Self::AddFilter(path)),
            "group" => Some(Self::AddGroup(path)),
            "drop" => Some(Self::Drop(path)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
