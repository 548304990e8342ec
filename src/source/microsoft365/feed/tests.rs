use super::*;

fn time(text: &str) -> Time {
    parse_time(text).unwrap()
}

#[test]
fn windows_are_rounded_outward_to_whole_seconds() {
    let window = |start, end| whole_seconds(Window::new(time(start), time(end)).unwrap());
    let whole = (time("2026-11-23T10:00:00Z"), time("2026-11-23T10:00:05Z"));
    assert_eq!(window("2026-11-23T10:00:00Z", "2026-11-23T10:00:05Z"), whole);
    assert_eq!(window("2026-11-23T10:00:00.999Z", "2026-11-23T10:00:04.000001Z"), whole);
}

#[test]
fn an_item_may_lack_what_follows_from_the_rest() {
    let item = |text: &str| serde_json::from_str::<Item>(text).unwrap().into_blob();
    let bare = item(r#"{"contentUri":"https://x/activity/feed/audit/1$2$audit_exchange","contentCreated":"2026-11-23T15:00:51.748"}"#).unwrap();
    assert_eq!(bare.id, "1$2$audit_exchange");
    assert_eq!((bare.created, bare.expires), (time("2026-11-23T15:00:51.748Z"), time("2026-11-30T15:00:51.748Z")));
    let error = item(r#"{"contentUri":"https://x/1","contentCreated":"today"}"#).unwrap_err();
    assert_eq!(error.code(), Code::ServiceProtocol);
}

#[test]
fn a_second_read_gives_only_what_the_first_did_not() {
    let unreadable = |raw: &str| UnreadableRecord { raw: raw.to_owned(), reason: String::new() };
    let chunk = |records, raws: &[&str]| RecordChunk {
        records,
        unreadable: raws.iter().map(|raw| unreadable(raw)).collect(),
        ..RecordChunk::default()
    };
    let mut given = Given::default();
    assert_eq!(given.leave_out(chunk(3, &["a", "a"])).unwrap().records, 3);
    assert_eq!(given.leave_out(chunk(2, &["b"])).unwrap().records, 2);
    given.begin_again();
    let first = given.leave_out(chunk(4, &["c", "b"])).unwrap();
    assert_eq!((first.records, first.unreadable), (0, vec![unreadable("c")]));
    given.begin_again();
    assert!(given.leave_out(chunk(4, &["c"])).is_none());
    let last = given.leave_out(chunk(4, &["a", "d"])).unwrap();
    assert_eq!((last.records, last.unreadable), (3, vec![unreadable("d")]));
}
