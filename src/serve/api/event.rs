//! A row of the lake as an event of the replaced product's model v2.
//!
//! Every term of the search model stands at its dotted name: what an event lacks is null, lists are empty, objects are
//! there with null members. Waybill's own terms (`email.to`, `connection.name`) stand beside the product's.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::search::browse::JsonRow;
use crate::search::query::{Place, Term};

/// Members that are lists of objects; no mail has any but the indicators of risk.
const LISTS: [&str; 6] = [
    "event.relatedEvents",
    "file.acquiredFrom",
    "file.classifications",
    "risk.indicators",
    "source.tabs",
    "destination.tabs",
];

/// An event as JSON.
pub(super) fn of_row(row: &JsonRow) -> Value {
    let mut event = Map::new();
    for (path, term) in LAYOUT.iter() {
        let value = match term {
            None if path.join(".") == "risk.indicators" => indicators(row),
            None => json!([]),
            Some(term) if term.name() == "event.id" => match Place::of_row(row) {
                Some(place) => json!(place.to_string()),
                None => term.of_row(row),
            },
            Some(term) => term.of_row(row),
        };
        set(&mut event, path, value);
    }
    Value::Object(event)
}

/// Where each value stands, and the term that it is of; none for lists of objects.
static LAYOUT: LazyLock<Vec<(Vec<&'static str>, Option<Term>)>> = LazyLock::new(|| {
    let is_in_list = |term: &Term| LISTS.iter().any(|list| term.name().starts_with(&format!("{list}.")));
    let lists = LISTS.iter().map(|list| (list.split('.').collect(), None));
    let terms = Term::all().filter(|term| !is_in_list(term)).map(|term| (term.name().split('.').collect(), Some(term)));
    lists.chain(terms).collect()
});

fn set(object: &mut Map<String, Value>, path: &[&str], value: Value) {
    match path {
        [] => {}
        [name] => drop(object.insert((*name).to_owned(), value)),
        [name, rest @ ..] => {
            let inner = object.entry((*name).to_owned()).or_insert_with(|| json!({}));
            if let Value::Object(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}

/// Three lists of equal length as a list of objects.
fn indicators(row: &JsonRow) -> Value {
    let list = |name: &str| row.get(name).and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
    let (names, ids, weights) = (list("risk_indicators"), list("risk_indicator_ids"), list("risk_indicator_weights"));
    let indicators = names.iter().zip(ids).zip(weights);
    indicators.map(|((name, id), weight)| json!({"name": name, "id": id, "weight": weight})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_an_event_with_every_member() {
        let row = json!({
            "event_id": "00000000-0000-0000-0000-000000000005", "inserted_at": "2025-11-24T16:00:00Z",
            "observed_at": "2025-11-24T15:00:00Z", "file_name": "plan.pdf", "sender": "ann@x.example", "mailbox": null,
            "recipients": ["bob@y.example"], "risk_score": 3, "risk_indicators": ["PDF"], "risk_indicator_ids": ["pdf"],
            "risk_indicator_weights": [3],
        });
        let event = of_row(row.as_object().unwrap());
        let at = |pointer: &str| event.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {event}"));
        assert_eq!(at("/event/id"), "1764000000000000_00000000-0000-0000-0000-000000000005");
        assert_eq!(at("/@timestamp"), "2025-11-24T15:00:00Z");
        assert_eq!(at("/event/observer"), "Office365");
        assert_eq!(at("/user/email"), "ann@x.example", "the sender where the mailbox is not known");
        assert_eq!(at("/destination/email/recipients"), &json!(["bob@y.example"]));
        assert_eq!(at("/risk/indicators"), &json!([{"name": "PDF", "id": "pdf", "weight": 3}]));
        // The official client fails without this member.
        assert_eq!(at("/file/url"), &Value::Null);
        assert_eq!(at("/file/classifications"), &json!([]));
        assert_eq!(at("/source/tabs"), &json!([]));
        assert_eq!(at("/source/removableMedia/vendor"), &Value::Null);
        assert_eq!(at("/email/to"), &json!([]));
    }
}
