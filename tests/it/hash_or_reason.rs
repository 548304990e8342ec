//! Promise 6: a hash, or the reason why not; what can still succeed is tried again, and the row is upgraded in place.

use serde_json::{Value, json};
use waybill::error::Code;
use waybill::lake::Lake;
use waybill::limits;
use waybill::source::AttachmentKind;
use waybill::source::memory::Call;

use crate::inner::simulated::{Simulated, fault, mail};
use crate::inner::{Tenant, actual, count, expected, mailbox, query, record};
use crate::nothing_hidden::new_lake;
use crate::support;

/// The one row of a lake.
async fn row(lake: &Lake) -> Value {
    let rows = query(lake, "SELECT * FROM file_events").await;
    assert_eq!(rows.len(), 1, "{rows:#?}");
    rows.into_iter().next().unwrap()
}

fn why(row: &Value) -> (&str, Option<&str>) {
    let code = row["hash_error"].as_str().and_then(|error| error.split(':').next());
    (row["hash_status"].as_str().unwrap(), code)
}

/// Danger: the copy reaches Sent Items after its record was read, and the row stays without a hash, or comes twice.
/// Provoked: the copy appears an hour after the first run.
#[tokio::test]
async fn a_message_that_was_not_there_yet_upgrades_its_rows_in_place() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    let names = ["a.txt", "a.txt", "b.pdf"];
    tenant.source.add_message(tenant.at(60), tenant.message(1, &names));
    tenant.source.publish(tenant.at(-10), record(1, &names));
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.exit_code, report.owed.messages, report.events, report.hashed), (3, 1, 3, 0));
    let before = query(&lake, "SELECT event_id, inserted_at, run_id FROM file_events ORDER BY event_id").await;
    let status =
        "SELECT DISTINCT hash_status, split_part(hash_error, ':', 1) AS why, sha256, file_size_bytes FROM file_events";
    assert_eq!(query(&lake, status).await, [json!({"hash_status": "owed", "why": "message-missing"})]);

    tenant.clock.set(tenant.at(30));
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.exit_code, report.owed.messages, report.events, report.events_upgraded), (3, 1, 0, 0));
    assert_eq!(query(&lake, "SELECT event_id, inserted_at, run_id FROM file_events ORDER BY event_id").await, before);

    tenant.clock.set(tenant.at(90));
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.exit_code, report.events, report.events_upgraded, report.owed.messages), (0, 0, 3, 0));
    assert_eq!(actual(&lake).await, expected(&[(1, names.to_vec())]));
    let after = query(&lake, "SELECT event_id, inserted_at, run_id FROM file_events ORDER BY event_id").await;
    let ids = |rows: &[Value]| rows.iter().map(|row| row["event_id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&after), ids(&before), "the same rows");
    for (after, before) in after.iter().zip(&before) {
        assert!(after["inserted_at"].as_str() > before["inserted_at"].as_str(), "it became searchable as it is now");
        assert_ne!(after["run_id"], before["run_id"]);
    }
    assert_eq!(tenant.run(&lake).await.unwrap().exit_code, 0);
    assert_eq!(count(&lake, "SELECT count(*) FROM file_events").await, 3);
}

/// Danger: the message says another second than the record, so that the row that stood for it stays beside the real one.
/// Provoked: record at the last second of a day, message at the first of the next.
#[tokio::test]
async fn an_upgraded_row_may_move_to_another_day_but_stays_one_row() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    let mut message = tenant.message(1, &["a.txt"]);
    message.sent = "2026-11-02T00:00:00Z".parse().unwrap();
    let mut record = record(1, &["a.txt"]);
    record.created = "2026-11-01T23:59:59Z".parse().unwrap();
    tenant.source.publish(tenant.at(-10), record);
    tenant.run(&lake).await.unwrap();
    assert_eq!(row(&lake).await["event_date"], "2026-11-01");
    tenant.source.add_message(tenant.at(0), message);
    tenant.clock.set(tenant.at(60));
    let report = tenant.run(&lake).await.unwrap();
    let row = row(&lake).await;
    assert_eq!((row["event_date"].as_str(), row["hash_status"].as_str()), (Some("2026-11-02"), Some("hashed")));
    assert_eq!(report.exit_code, 0);
}

/// Danger: a stream that broke gives the digest of half a file, or a row that never heals.
#[tokio::test]
async fn attachments_whose_bytes_fail_are_owed_and_healed_by_a_later_run() {
    let cases = [
        (Call::Open, Code::ServiceUnavailable),
        (Call::Open, Code::AttachmentUnreadable),
        (Call::Open, Code::Throttled),
        (Call::OpenHalf, Code::ServiceUnavailable),
        (Call::OpenHalf, Code::ContentUnreadable),
    ];
    futures::future::join_all(cases.map(|(call, code)| async move {
        let (tenant, lake) = (Tenant::new(), new_lake().await);
        tenant.source.publish(tenant.at(-10), tenant.send(1, &["a.txt"]));
        tenant.source.fail_always(call, Some(code));
        let report = tenant.run(&lake).await.unwrap();
        assert_eq!((report.exit_code, report.owed.hashes, report.hashed), (3, 1, 0), "{code}");
        let before = row(&lake).await;
        assert_eq!(why(&before), ("owed", Some(code.as_str())));
        assert_eq!((before.get("sha256"), before.get("md5"), before.get("file_size_bytes")), (None, None, None));
        assert_eq!(before["attachment_kind"], "file", "what the message says is there already");

        tenant.source.fail_always(call, None);
        tenant.clock.set(tenant.at(60));
        let report = tenant.run(&lake).await.unwrap();
        assert_eq!(
            (report.exit_code, report.events, report.events_upgraded, report.owed.hashes),
            (0, 0, 1, 0),
            "{code}"
        );
        let after = row(&lake).await;
        assert_eq!((&after["event_id"], why(&after)), (&before["event_id"], ("hashed", None)));
        assert!(after["inserted_at"].as_str() > before["inserted_at"].as_str());
        assert_eq!(actual(&lake).await, expected(&[(1, vec!["a.txt"])]));
    }))
    .await;
}

/// The same over HTTP: a gateway's 504, a reset in the middle, and a body shorter than announced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attachments_that_break_off_on_the_wire_are_read_again_until_they_are_whole() {
    let tenant = Simulated::generated("users=4,messages=12,attachments=1,size=200k").await;
    tenant.faults(json!([
        {"on": "attachment_value", "each": true, "times": 1, "do": "gateway_504"},
        {"on": "attachment_value", "each": true, "after": 1, "times": 1, "do": {"reset": 70_000}},
        {"on": "attachment_value", "each": true, "after": 2, "times": 1, "do": {"short_body": 150_000}},
    ]));
    let report = tenant.run_done().await;
    tenant.assert_complete().await;
    let faults = tenant.simulator.report().faults;
    let attachments = report["hashed"].as_u64().unwrap();
    assert!(
        ["gateway504", "reset", "short_body"].iter().all(|name| faults.get(*name) == Some(&attachments)),
        "{faults:?}"
    );
}

/// Danger: Graph announces no length, so a body that a proxy ends early looks whole.
/// Provoked: every body ends early, well-formed, at its first read; the store's size tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_ends_early_without_an_announced_length_is_read_again() {
    let tenant = Simulated::generated("users=4,messages=8,attachments=1,size=40k").await;
    tenant.faults(json!([{"on": "attachment_value", "each": true, "times": 1, "do": {"truncate": 30_000}}]));
    let report = tenant.run_done().await;
    assert_eq!(tenant.simulator.report().faults.get("truncate"), report["hashed"].as_u64().as_ref());
    tenant.assert_complete().await;
}

/// A store that counts more than the file has, for reasons of its own, costs one more read and no hash.
#[tokio::test]
async fn a_file_that_is_twice_as_short_as_its_store_says_is_believed() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    let mut message = tenant.message(1, &["a.txt"]);
    message.attachments[0].store_size_bytes = Some(1_000_000);
    tenant.source.add_message(message.sent, message);
    tenant.source.publish(tenant.at(-10), record(1, &["a.txt"]));
    assert_eq!(tenant.run(&lake).await.unwrap().exit_code, 0);
    assert_eq!(actual(&lake).await, expected(&[(1, vec!["a.txt"])]));
    assert_eq!(tenant.source.calls(Call::Open), 2);
}

/// Danger: the whole length was announced and never comes; the digest of what came looks like any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_stays_short_is_owed_with_its_reason_and_never_hashed() {
    let tenant = Simulated::generated("users=4,messages=4,attachments=1,size=9000").await;
    tenant.faults(json!([fault("attachment_value", json!({"short_body": 8999}))]));
    let report = tenant.run().await;
    assert_eq!((report["exit_code"].as_i64(), report["hashed"].as_i64()), (Some(3), Some(0)), "{report:#}");
    let status = "SELECT DISTINCT hash_status, split_part(hash_error, ':', 1) AS why, sha256 FROM file_events";
    assert_eq!(query(&tenant.lake, status).await, [json!({"hash_status": "owed", "why": "content-unreadable"})]);
    tenant.faults(json!([]));
    let report = tenant.run_done().await;
    assert_eq!((report["events"].as_i64(), report["events_upgraded"].as_u64()), (Some(0), report["hashed"].as_u64()));
    tenant.assert_complete().await;
}

/// Danger: what is owed is tried for ever, or given up in silence.
/// Provoked: a message and a hash that never come; the clock passes both deadlines.
#[tokio::test]
async fn after_its_deadline_what_was_owed_is_unavailable_with_the_reason() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    tenant.source.publish(tenant.at(-10), record(1, &["gone.txt"]));
    tenant.source.publish(tenant.at(-10), tenant.send(2, &["broken.txt"]));
    tenant.source.publish(tenant.at(-10), tenant.send(3, &["closed.txt"]));
    tenant.source.close_mailbox(&mailbox(3), Some(Code::MailboxDenied));
    tenant.source.fail_always(Call::Open, Some(Code::ServiceUnavailable));
    let statuses = async |lake: &Lake| {
        let rows = query(lake, "SELECT file_name, hash_status, hash_error FROM file_events ORDER BY file_name").await;
        rows.iter()
            .map(|row| {
                (row["file_name"].as_str().unwrap().to_owned(), why(row).0.to_owned(), why(row).1.unwrap().to_owned())
            })
            .collect::<Vec<_>>()
    };
    let row = |name: &str, status: &str, why: &str| (name.to_owned(), status.to_owned(), why.to_owned());
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.exit_code, report.owed.messages, report.owed.hashes), (3, 2, 1));

    tenant.clock.set(tenant.at(0) + limits::MESSAGE_AWAITED);
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.exit_code, report.owed.messages, report.owed.hashes, report.unavailable), (3, 1, 1, 1));
    let wanted = [
        row("broken.txt", "owed", "service-unavailable"),
        row("closed.txt", "owed", "mailbox-denied"),
        row("gone.txt", "unavailable", "message-missing"),
    ];
    assert_eq!(statuses(&lake).await, wanted);

    for day in [6, 12, 14] {
        tenant.clock.set(tenant.at(day * 24 * 60));
        tenant.run(&lake).await.unwrap();
    }
    let wanted = [
        row("broken.txt", "unavailable", "service-unavailable"),
        row("closed.txt", "unavailable", "mailbox-denied"),
        row("gone.txt", "unavailable", "message-missing"),
    ];
    assert_eq!(statuses(&lake).await, wanted);
    let asked = (tenant.source.calls(Call::Find), tenant.source.calls(Call::Open));
    tenant.clock.set(tenant.at(15 * 24 * 60));
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.exit_code, report.owed.messages, report.owed.hashes), (0, 0, 0), "what is final is told once");
    assert_eq!((tenant.source.calls(Call::Find), tenant.source.calls(Call::Open)), asked, "and never asked for again");
}

#[tokio::test]
async fn a_link_to_a_cloud_file_has_no_hash_and_nothing_is_owed() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    let mut message = tenant.message(1, &["Budget.xlsx"]);
    message.attachments[0].kind = AttachmentKind::Reference;
    message.attachments[0].source_url = Some("https://contoso.sharepoint.example/Budget.xlsx".to_owned());
    tenant.source.add_message(tenant.at(-20), message);
    tenant.source.publish(tenant.at(-10), record(1, &["Budget.xlsx"]));
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.exit_code, report.owed.hashes), (0, 0));
    let row = row(&lake).await;
    assert_eq!(why(&row), ("not_applicable", Some("attachment-has-no-bytes")));
    assert_eq!(
        (row["attachment_kind"].as_str(), row["source_url"].as_str()),
        (Some("reference"), Some("https://contoso.sharepoint.example/Budget.xlsx"))
    );
    assert_eq!(tenant.source.calls(Call::Open), 0);
}

/// Graph answers 405 to the bytes of a reference attachment; nobody may ask for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_asks_graph_for_the_bytes_of_a_link() {
    let tenant = Simulated::generated("users=2,messages=6,attachments=2,size=300").await;
    tenant.faults(json!([{"do": "reference"}]));
    tenant.run_done().await;
    assert_eq!(tenant.simulator.report().count("attachment_value"), 0);
    let statuses = query(&tenant.lake, "SELECT DISTINCT hash_status FROM file_events").await;
    assert_eq!(statuses, [json!({"hash_status": "not_applicable"})]);
}

/// Danger: an attached message has no bytes of its own; it is skipped, or hashed as something that is never the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attached_message_and_an_empty_file_are_hashed() {
    let tenant = Simulated::start(&[], |options| {
        options.content = vec![waybill::simulator::Content::Corpus(support::corpus())];
        options.shift_dates_now = true;
    })
    .await;
    tenant.send(mail("ann@contoso.example", "<empty@contoso.example>", "empty.bin", "")).await;
    // What was added became available in this second, which the window does not hold yet.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    tenant.run_done().await;
    tenant.assert_complete().await;
    let items = query(&tenant.lake, "SELECT hash_status, length(sha256) AS digits, file_size_bytes > 0 AS has_bytes FROM file_events WHERE attachment_kind = 'item'").await;
    assert!(!items.is_empty());
    assert!(
        items.iter().all(|row| *row == json!({"hash_status": "hashed", "digits": 64, "has_bytes": true})),
        "{items:#?}"
    );
    let empty = query(&tenant.lake, "SELECT file_size_bytes, md5, sha256, hash_status FROM file_events WHERE internet_message_id = '<empty@contoso.example>'").await;
    let wanted = json!({
        "file_size_bytes": 0, "hash_status": "hashed", "md5": "d41d8cd98f00b204e9800998ecf8427e",
        "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    });
    assert_eq!(empty, [wanted]);
}

/// Danger: a copy that was never kept is looked for over two days.
#[tokio::test]
async fn a_send_without_a_kept_copy_is_final_at_once_and_nobody_looks_for_it() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    let mut unsaved = record(1, &["leak.zip"]);
    unsaved.saved_to_sent_items = Some(false);
    tenant.source.publish(tenant.at(-10), unsaved);
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.exit_code, report.owed.messages, report.unavailable), (3, 0, 1));
    assert_eq!(why(&row(&lake).await), ("unavailable", Some("message-missing")));
    assert_eq!(tenant.source.calls(Call::Find), 0);
    assert_eq!(tenant.run(&lake).await.unwrap().exit_code, 0);
}

/// Danger: the nightly job is the only one that has time for what is owed, and does not try.
#[test]
fn maintain_tries_again_what_is_owed() {
    let tenant = support::Tenant::start(&["--generate", "users=3,messages=9,attachments=1,size=400,sends=1"]);
    let lake = support::Lake::temp();
    lake.add(&tenant, "Test", &[]);
    tenant.faults(&json!([{"on": "find", "match": tenant.announcement["users"][0], "do": "message_missing"},
        {"on": "attachment_value", "match": tenant.announcement["users"][1], "do": {"error": "ErrorItemNotFound"}}]));
    let (exit, report) = lake.run("Test");
    assert_eq!(exit, 3, "{report:#}");
    let events = lake.count("SELECT count(*) FROM file_events");
    let owed = lake.count("SELECT count(*) FROM file_events WHERE hash_status = 'owed'");
    assert!(report["owed"]["messages"].as_u64() > Some(0) && report["owed"]["hashes"].as_u64() > Some(0), "{report:#}");
    tenant.faults(&json!([]));
    let lists = tenant.report()["requests"]["list"].clone();
    let maintained = lake.maintain();
    assert_eq!(maintained["retried"][0]["events_upgraded"].as_i64(), Some(owed), "{maintained:#}");
    assert_eq!(tenant.report()["requests"]["list"], lists, "nothing new was asked for");
    assert_eq!(lake.count("SELECT count(*) FROM file_events WHERE hash_status = 'hashed'"), events);
    assert_eq!(lake.count("SELECT count(*) FROM file_events"), events);
    lake.run_done("Test");
}
