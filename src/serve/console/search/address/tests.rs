use proptest::prelude::*;

use super::*;
use crate::search::query::Query;

fn read(query: &str) -> Address {
    Address::parse(query).unwrap()
}

fn some_filter() -> impl Strategy<Value = Member> {
    let terms = prop::sample::select(vec!["file.name", "file.sizeInBytes", "sender", "<b>", "risk.score", "'; --"]);
    let operators = prop::sample::select(vec!["IS", "IS_NONE", "IS_ANY", "EXISTS", "WITHIN_THE_LAST", "NO SUCH"]);
    (terms, operators, prop::collection::vec("[ -~äß€]{0,12}", 1..4)).prop_map(|(term, operator, values)| {
        let trim = |value: &String| value.trim().to_owned();
        let values = values.iter().map(trim).filter(|value| !value.is_empty()).collect();
        let mut filter = Filter { term: term.to_owned(), operator: operator.to_owned(), values };
        match filter.takes() {
            Takes::Nothing => filter.values.clear(),
            _ if filter.values.is_empty() => filter.values.push("x".to_owned()),
            _ => {}
        }
        Member::Filter(filter)
    })
}

fn some_group() -> impl Strategy<Value = Group> {
    let leaf = prop::collection::vec(some_filter(), 1..4);
    let leaf = (any::<bool>(), leaf).prop_map(|(is_any, members)| Group { is_any, members });
    leaf.prop_recursive(3, 20, 3, |inner| {
        let member = prop_oneof![some_filter(), inner.prop_map(Member::Group)];
        let members = prop::collection::vec(member, 1..4);
        (any::<bool>(), members).prop_map(|(is_any, members)| Group { is_any, members })
    })
}

proptest! {
    /// What is shared is what was asked, whatever is in it.
    #[test]
    fn an_address_leads_to_the_search_that_wrote_it(root in some_group(), is_ascending: bool, draft: bool) {
        let range = Range::Custom { from: "2026-11-01".to_owned(), to: String::new() };
        let address = Address {
            range, root, is_ascending, is_draft: draft, columns: vec!["file.name".to_owned()], ..Address::default()
        };
        prop_assert_eq!(read(&address.to_query()), address);
    }

    /// Whatever somebody writes there: it is read or refused, and what was read has one form.
    #[test]
    fn no_address_is_too_strange(text in "([a-z]{1,6}=[ -~]{0,9}&?){0,30}") {
        if let Ok(address) = Address::parse(&text) {
            prop_assert_eq!(read(&address.to_query()), address);
        }
    }

    /// A search that was saved and opened again asks the same.
    #[test]
    fn a_saved_search_asks_what_was_asked(root in some_group()) {
        let address = Address { root, ..Address::default() };
        let opened = Address::of_groups(&address.groups().unwrap());
        prop_assert_eq!(&opened.range, &address.range);
        prop_assert_eq!(opened.filters().len(), address.filters().len());
    }
}

#[test]
fn an_end_date_includes_its_day_and_a_minute_its_minute() {
    let bounds = |query: &str| read(query).range.bounds(Time::UNIX_EPOCH);
    let (from, to) = bounds("range=custom&from=2026-11-01&to=2026-11-24").unwrap();
    assert_eq!(from.unwrap().to_rfc3339(), "2026-11-01T00:00:00+00:00");
    assert_eq!(to.unwrap().to_rfc3339(), "2026-11-24T23:59:59.999+00:00");
    let (_, to) = bounds("range=custom&to=2026-11-24T13:30").unwrap();
    assert_eq!(to.unwrap().to_rfc3339(), "2026-11-24T13:30:59.999+00:00");
    for wrong in ["from=x", "from=2026-13-01", "from=2026-11-02&to=2026-11-01", "to=%00", "", "from=99999999999-01-01"]
    {
        assert!(bounds(&format!("range=custom&{wrong}")).is_err(), "{wrong}");
    }
}

#[test]
fn without_a_range_it_is_the_last_week_and_a_written_day_wins_over_an_untouched_span() {
    assert_eq!(read("").range.name(), "7d");
    assert_eq!(read("range=nonsense").range.name(), "7d");
    assert_eq!(read("range=7d&was=7d&from=2026-11-01").range.name(), "custom");
    assert_eq!(read("range=30d&was=custom&from=2026-11-01").range.name(), "30d");
}

#[test]
fn buttons_change_the_form_and_ask_nothing_yet() {
    let address = read("f=file.name&o=IS&v=a&do=filter:");
    assert!(address.is_draft);
    assert_eq!(address.root.members.len(), 2);
    let address = read(&format!("{}&do=group:", address.to_query()));
    let Member::Group(inner) = &address.root.members[2] else { panic!("{address:?}") };
    assert!(inner.is_any && inner.members.len() == 2);
    let address = read(&format!("{}&do=drop:2.0", address.to_query()));
    let Member::Group(inner) = &address.root.members[2] else { panic!("{address:?}") };
    assert_eq!(inner.members.len(), 1);
    for nowhere in ["drop:9", "drop:", "drop:0.0.0", "filter:7.7", "filter:x", "group:-1", "drop:99999999999999999999"]
    {
        assert_eq!(read(&format!("f=file.name&o=IS&v=a&do={nowhere}")).filters()[0].values, ["a"], "{nowhere}");
    }
}

#[test]
fn what_is_too_much_is_refused() {
    let refused = |query: &str| Address::parse(query).unwrap_err().code();
    assert_eq!(refused(&"x".repeat(limits::CONSOLE_ADDRESS_BYTES + 1)), Code::RequestRefused);
    assert_eq!(refused(&"g=AND&".repeat(limits::CONSOLE_GROUP_DEPTH + 1)), Code::RequestRefused);
    assert_eq!(refused(&"f=a&".repeat(limits::CONSOLE_FILTERS + 1)), Code::RequestRefused);
    // More ends than beginnings close nothing.
    assert_eq!(read("e=1&e=1&f=file.name&v=a&e=1").filters().len(), 1);
}

#[test]
fn an_operator_that_takes_one_value_never_drops_the_others() {
    let address = read("f=file.name&o=IS&vs=a%0Ab");
    assert!(Query::from_json(&address.groups().unwrap()).is_err());
    let address = read("f=file.name&o=IS_ANY&v=a,b");
    assert_eq!(address.filters()[0].values, ["a", "b"]);
}
