//! The JSON form: `{"groupClause": …, "groups": […]}` of the replaced product's `/v2/file-events`.
//!
//! A group is `{"filterClause": …, "filters": […]}` or `{"subgroupClause": …, "subgroups": […]}`. The official client
//! turns sub-groups that it does not understand into `{}` and `{"filters": null}`; a group without filters is refused,
//! since to pass over it would answer a wider question than was asked.

use serde_json::{Map, Value as Json, json};

use super::finding::{Finding, FindingKind};
use super::value::Given;
use super::{Clause, Filter, Member, Operator, Query, Term};
use crate::limits;

impl Query {
    /// Reads the JSON form; members of the object that say nothing about which events are meant are left to the caller.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_json(value: &Json) -> Result<Self, Vec<Finding>> {
        let mut reader = Reader::default();
        let query = reader.query(value);
        if reader.findings.is_empty() {
            reader.findings = query.check_size();
        }
        if reader.findings.is_empty() { Ok(query) } else { Err(reader.findings) }
    }

    /// Writes the JSON form, which [`Query::from_json`] reads to an equal query, but for groups that hold nothing else than
    /// one group.
    pub fn to_json(&self) -> Json {
        let groups = match self.members.as_slice() {
            members if members.iter().all(|member| matches!(member, Member::Filter(_))) => {
                // Filters stand in groups; AND of groups of one group is that group.
                return json!({"groupClause": "AND", "groups": [group(self)]});
            }
            members => members.iter().map(member_group).collect::<Vec<_>>(),
        };
        json!({"groupClause": clause(self.clause), "groups": groups})
    }
}

fn clause(clause: Clause) -> &'static str {
    match clause {
        Clause::And => "AND",
        Clause::Or => "OR",
    }
}

fn group(query: &Query) -> Json {
    let filters: Vec<Json> = query.members.iter().filter_map(filter_json).collect();
    if filters.len() == query.members.len() {
        return json!({"filterClause": clause(query.clause), "filters": filters});
    }
    let groups: Vec<Json> = query.members.iter().map(member_group).collect();
    json!({"subgroupClause": clause(query.clause), "subgroups": groups})
}

fn member_group(member: &Member) -> Json {
    match member {
        Member::Group(query) => group(query),
        Member::Filter(_) => json!({"filterClause": "AND", "filters": [filter_json(member)]}),
    }
}

fn filter_json(member: &Member) -> Option<Json> {
    let Member::Filter(filter) = member else { return None };
    let (term, operator) = (filter.term, filter.operator);
    Some(json!({"term": term.name(), "operator": operator.as_str(), "value": filter.value.to_json(operator)}))
}

#[derive(Default)]
struct Reader {
    findings: Vec<Finding>,
}

impl Reader {
    fn find(&mut self, kind: FindingKind, description: impl Into<String>) {
        // A thousand times the same says no more than once; whoever sent it reads the first ones.
        if self.findings.len() < 100 {
            self.findings.push(Finding::of(kind, description));
        }
    }

    fn query(&mut self, value: &Json) -> Query {
        let nothing = Map::new();
        let object = value.as_object().unwrap_or(&nothing);
        let clause = self.clause(object, "groupClause");
        let groups = match object.get("groups") {
            None | Some(Json::Null) => &[],
            Some(Json::Array(groups)) => groups.as_slice(),
            Some(_) => {
                self.find(FindingKind::IllegalValue, "`groups` must be a list of groups");
                return Query::everything();
            }
        };
        if groups.is_empty() {
            self.find(FindingKind::MissingGroups, "a search needs `groups` with at least one group");
        }
        self.members(clause, groups, 1)
    }

    fn members(&mut self, clause: Clause, groups: &[Json], depth: usize) -> Query {
        if groups.len() > limits::SEARCH_FILTERS {
            let most = limits::SEARCH_FILTERS;
            self.find(FindingKind::MaxGroupsExceeded, format!("a search has at most {most} groups"));
            return Query::everything();
        }
        let mut groups: Vec<Query> = groups.iter().map(|group| self.group(group, depth)).collect();
        // One group is what it holds, however it would be joined.
        match groups.len() {
            1 => groups.remove(0),
            _ => Query { clause, members: groups.into_iter().map(Member::Group).collect() },
        }
    }

    fn group(&mut self, value: &Json, depth: usize) -> Query {
        if depth > limits::SEARCH_DEPTH {
            let most = limits::SEARCH_DEPTH;
            self.find(FindingKind::MaxGroupsExceeded, format!("groups are at most {most} levels deep"));
            return Query::everything();
        }
        let Some(object) = value.as_object() else {
            self.find(FindingKind::MissingFilters, "a group is an object with `filters` or `subgroups`");
            return Query::everything();
        };
        let list = |name: &str| object.get(name).filter(|value| !value.is_null());
        match (list("filters"), list("subgroups")) {
            (Some(_), Some(_)) => {
                self.find(FindingKind::UnexpectedValue, "a group has `filters` or `subgroups`, not both");
            }
            (Some(Json::Array(filters)), None) if !filters.is_empty() => {
                let clause = self.clause(object, "filterClause");
                let members = filters.iter().take(limits::SEARCH_FILTERS + 1).filter_map(|filter| self.filter(filter));
                return Query { clause, members: members.map(Member::Filter).collect() };
            }
            (None, Some(Json::Array(groups))) if !groups.is_empty() => {
                let clause = self.clause(object, "subgroupClause");
                return self.members(clause, groups, depth + 1);
            }
            (Some(filters), None) if !filters.is_array() => {
                self.find(FindingKind::IllegalValue, "`filters` must be a list of filters");
            }
            (None, Some(groups)) if !groups.is_array() => {
                self.find(FindingKind::IllegalValue, "`subgroups` must be a list of groups");
            }
            _ => self.find(FindingKind::MissingFilters, "a group has no filters"),
        }
        Query::everything()
    }

    fn clause(&mut self, object: &Map<String, Json>, name: &str) -> Clause {
        match object.get(name) {
            None | Some(Json::Null) => Clause::And,
            Some(Json::String(text)) if text == "AND" => Clause::And,
            Some(Json::String(text)) if text == "OR" => Clause::Or,
            Some(other) => {
                let mut finding = Finding::of(FindingKind::IllegalValue, format!("`{name}` must be AND or OR"));
                finding.value = Some(other.clone());
                self.findings.push(finding);
                Clause::And
            }
        }
    }

    fn filter(&mut self, value: &Json) -> Option<Filter> {
        match filter(value) {
            Ok(filter) => Some(filter),
            Err(finding) => {
                if self.findings.len() < 100 {
                    self.findings.push(*finding);
                }
                None
            }
        }
    }
}

fn filter(value: &Json) -> Result<Filter, Box<Finding>> {
    let text = |name: &str| value.get(name).and_then(Json::as_str);
    let given = value.get("value").filter(|value| !value.is_null());
    let finding = |kind, description: String| {
        Box::new(Finding {
            kind,
            term: text("term").map(str::to_owned),
            operator: text("operator").map(str::to_owned),
            value: given.cloned(),
            description,
        })
    };
    let Some(name) = text("term") else {
        return Err(finding(FindingKind::IllegalValue, "a filter needs a `term`".to_owned()));
    };
    let Some(term) = Term::parse(name) else {
        return Err(finding(FindingKind::IllegalValue, format!("there is no term `{name}`")));
    };
    let operator = match value.get("operator") {
        None | Some(Json::Null) => Operator::Is,
        Some(name) => match name.as_str().and_then(Operator::parse) {
            Some(operator) => operator,
            None => return Err(finding(FindingKind::IllegalOperator, format!("there is no operator {name}"))),
        },
    };
    let one = |value: &Json| match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Bool(flag) => Some(flag.to_string()),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    };
    let given = match given {
        None => Some(Given::Nothing),
        Some(Json::Array(values)) => values.iter().map(one).collect::<Option<_>>().map(Given::Many),
        Some(value) => one(value).map(Given::One),
    };
    let Some(given) = given else {
        let description = "a value is a text, a number, true or false, or a list of such".to_owned();
        return Err(finding(FindingKind::IllegalValue, description));
    };
    Filter::of(term, operator, given).map_err(|found| {
        // Show the value as it came, and not as it was read.
        Box::new(Finding { value: value.get("value").cloned(), ..found })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(value: &Json) -> Vec<&'static str> {
        Query::from_json(value).unwrap_err().iter().map(|finding| finding.kind.as_str()).collect()
    }

    #[test]
    fn what_the_official_client_sends_is_read() {
        let query = Query::from_json(&json!({"groupClause": "AND", "groups": [
            {"filterClause": "AND", "filters": [{"term": "@timestamp", "operator": "WITHIN_THE_LAST", "value": "P7D"}]},
            {"filterClause": "AND", "filters": [
                {"term": "file.hash.md5", "operator": "IS", "value": "D41D8CD98F00B204E9800998ECF8427E"}]},
            {"filterClause": "AND", "filters": [{"term": "risk.score", "operator": "GREATER_THAN", "value": 1}]}],
            "pgNum": 1, "pgSize": 10000, "pgToken": "", "srtDir": "asc", "srtKey": "event.id"}))
        .unwrap();
        assert_eq!(query.filters().count(), 3);
        assert!(query.asks_for_risk());
    }

    #[test]
    fn a_group_without_filters_never_widens_the_question() {
        let known = json!({"filters": [{"term": "file.name", "operator": "IS", "value": "a"}]});
        for empty in [
            json!({}),
            json!({"filterClause": "AND", "filters": null}),
            json!({"filters": []}),
            json!(null),
            json!({"subgroups": []}),
        ] {
            assert_eq!(kinds(&json!({"groups": [known, empty]})), ["MISSING_FILTERS"], "{empty}");
        }
        for empty in [json!({}), json!({"groups": null}), json!({"groups": []}), json!([]), json!("x")] {
            assert_eq!(kinds(&empty), ["MISSING_GROUPS"], "{empty}");
        }
    }

    #[test]
    fn a_finding_says_which_filter() {
        let findings = Query::from_json(&json!({"groups": [{"filters": [
            {"term": "file.nam", "operator": "IS", "value": "a"},
            {"term": "file.name", "operator": "IS_LIKE", "value": "a"},
            {"term": "file.name", "operator": "GREATER_THAN", "value": 5},
            {"term": "file.name", "operator": "IS", "value": {"a": 1}},
            {"operator": "IS", "value": "a"},
        ]}]}))
        .unwrap_err();
        let kinds: Vec<_> = findings.iter().map(|finding| finding.kind.as_str()).collect();
        assert_eq!(kinds, ["ILLEGAL_VALUE", "ILLEGAL_OPERATOR", "ILLEGAL_OPERATOR", "ILLEGAL_VALUE", "ILLEGAL_VALUE"]);
        assert_eq!(findings[2].value, Some(json!(5)));
        assert_eq!(findings[0].term.as_deref(), Some("file.nam"));
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let filter = json!({"term": "file.name", "operator": "IS", "value": "a"});
        assert_eq!(kinds(&json!({"groups": [{"filters": vec![filter.clone(); 1025]}]})), ["MAX_FILTERS_EXCEEDED"]);
        let many = json!({"term": "file.name", "operator": "IS_ANY", "value": vec!["a"; 10_001]});
        assert_eq!(kinds(&json!({"groups": [{"filters": [many]}]})), ["MAX_VALUES_FOR_FILTER_EXCEEDED"]);
        let mut deep = json!({"filters": [filter]});
        for _ in 0..100 {
            deep = json!({"subgroups": [deep]});
        }
        assert_eq!(kinds(&json!({"groups": [deep]})), ["MAX_GROUPS_EXCEEDED"]);
        assert_eq!(
            kinds(&json!({"groupClause": "XOR", "groups": [{"filters": []}]})),
            ["ILLEGAL_VALUE", "MISSING_FILTERS"]
        );
    }
}
