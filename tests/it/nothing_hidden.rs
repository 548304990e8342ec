//! Promise 4: what could not be read is a row that says so, and the exit code says so too.

use std::sync::Arc;

use chrono::{Duration, SecondsFormat};
use object_store::memory::InMemory;
use serde_json::{Value, json};
use waybill::clock::Time;
use waybill::error::Code;
use waybill::lake::Lake;
use waybill::source::memory::{Call, Record};
use waybill::source::{Feed, Operation, UnreadableRecord};

use crate::inner::simulated::{Simulated, fault};
use crate::inner::{Tenant, actual, count, expected, mailbox, noon, query, record};

pub(crate) async fn new_lake() -> Lake {
    let lake = Lake::with_store("memory:///lake/", Arc::new(InMemory::new())).unwrap();
    lake.create().await.unwrap();
    lake
}

/// A time as SQL gives it.
fn text(time: Time) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

async fn gaps(lake: &Lake) -> Vec<Value> {
    query(
        lake,
        "SELECT kind, window_start, window_end, content_blob_id, subject, reason, remedy FROM gaps ORDER BY gap_id",
    )
    .await
}

/// Danger: a blob that fails until it expires is dropped in silence.
/// Provoked: it fails for a week, then the feed has forgotten it; its neighbour is read at once.
#[tokio::test]
async fn a_blob_that_expired_is_a_gap_and_the_exit_code_tells() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    tenant.source.publish(tenant.at(-20), tenant.send(1, &["lost.txt"]));
    tenant.source.publish(tenant.at(-10), tenant.send(2, &["kept.txt"]));
    tenant.source.fail(Call::Read, 1, Code::ServiceUnavailable);
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.exit_code, report.owed.blobs, report.gaps), (3, 1, 0));
    assert_eq!(actual(&lake).await.len(), 1);

    tenant.clock.set(tenant.at(7 * 24 * 60 - 10));
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.exit_code, report.owed.blobs, report.gaps), (3, 0, 1));
    let [row] = &gaps(&lake).await[..] else { panic!("one gap") };
    assert_eq!(row["kind"], "blob");
    assert!(row["reason"].as_str().unwrap().starts_with("content-expired: "), "{row}");
    assert!(row["content_blob_id"].as_str().is_some_and(|id| !id.is_empty()), "{row}");
    assert!(row["remedy"].as_str().is_some_and(|remedy| remedy.contains("--to 2026-11-02T11:40:01Z")), "{row}");

    tenant.clock.set(tenant.at(7 * 24 * 60 + 60));
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!(
        (report.exit_code, report.gaps),
        (0, 0),
        "what was told once is not told again: {:?}",
        gaps(&lake).await
    );
    assert_eq!(count(&lake, "SELECT count(*) - count(DISTINCT gap_id) FROM gaps").await, 0);
}

/// Danger: one malformed record costs its blob, or is skipped in silence.
/// Provoked: every blob carries one that is no record, and one without an id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_record_is_quarantined_raw_and_the_run_goes_on() {
    let tenant = Simulated::generated("users=3,messages=20,size=500").await;
    tenant.faults(json!([fault("blob", "malformed_record")]));
    let report = tenant.run().await;
    assert_eq!(report["exit_code"], 3, "{report:#}");
    tenant.assert_complete().await;
    let rows = query(&tenant.lake, "SELECT raw, reason, content_blob_id FROM quarantine").await;
    assert_eq!(report["quarantined"].as_u64().unwrap(), rows.len() as u64);
    for row in &rows {
        assert_eq!(row["raw"], r#"{"Id":42,"CreationTime":"not a time","Operation":["Send"],"Item":"none"}"#);
        assert!(!row["reason"].as_str().unwrap().is_empty());
    }
    tenant.faults(json!([]));
    let report = tenant.run_done().await;
    assert_eq!(report["quarantined"], 0);
    assert_eq!(count(&tenant.lake, "SELECT count(*) FROM quarantine").await, rows.len() as i64);
}

/// Danger: a send that names no id is dropped, since nothing can be remembered of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_without_an_id_is_quarantined() {
    let tenant = Simulated::generated("users=3,messages=5,size=500").await;
    tenant.faults(json!([fault("blob", "record_without_id")]));
    let report = tenant.run().await;
    assert_eq!((report["exit_code"].as_i64(), report["quarantined"].as_u64()), (Some(3), Some(1)), "{report:#}");
    let raw = query(&tenant.lake, "SELECT raw FROM quarantine").await[0]["raw"].as_str().unwrap().to_owned();
    let raw: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!((raw["Operation"].as_str(), raw.get("Id")), (Some("Send"), None));
    tenant.assert_complete().await;
}

#[tokio::test]
async fn a_quarantined_record_keeps_its_text() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    let raw = "{\"Operation\":\"Send\",\"Id\":\"\u{fffd}\u{202e}… ,\n".to_owned();
    let unreadable = UnreadableRecord { raw: raw.clone(), reason: "it is not JSON".to_owned() };
    tenant.source.publish(tenant.at(-10), Record::Unreadable(unreadable));
    tenant.source.publish(tenant.at(-10), tenant.send(1, &["a.txt"]));
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.exit_code, report.quarantined), (3, 1));
    assert_eq!(actual(&lake).await, expected(&[(1, vec!["a.txt"])]));
    let rows = query(&lake, "SELECT raw, reason, connection_name FROM quarantine").await;
    assert_eq!(rows, [json!({"raw": raw, "reason": "it is not JSON", "connection_name": "memory"})]);
}

/// Danger: sends from a mailbox that cannot be read leave no trace.
/// Provoked: one mailbox is denied by policy, one is on-premises, one is open; the records name files and recipients.
#[tokio::test]
async fn a_closed_mailbox_gives_rows_with_the_names_and_recipients_that_the_audit_record_tells() {
    for (code, word) in [(Code::MailboxDenied, "mailbox-denied"), (Code::MailboxMissing, "mailbox-missing")] {
        let (tenant, lake) = (Tenant::new(), new_lake().await);
        let mut closed = tenant.send(1, &["plan.docx", "plan.docx", "C:\\Users\\ann\\b.pdf"]);
        closed.recipients = vec!["Bob@Fabrikam.Example".to_owned(), "eve@elsewhere.example".to_owned()];
        closed.operation = Operation::SendAs;
        closed.client_ip = Some("203.0.113.7".to_owned());
        tenant.source.publish(tenant.at(-10), closed);
        tenant.source.publish(tenant.at(-10), tenant.send(2, &["open.txt"]));
        tenant.source.close_mailbox(&mailbox(1), Some(code));
        let report = tenant.run(&lake).await.unwrap();
        assert_eq!((report.exit_code, report.owed.messages, report.hashed), (3, 1, 1));
        let rows = query(
            &lake,
            "SELECT file_name, file_path, recipients, recipient_domains, mailbox, audit_operation, client_ip, hash_status, sha256, \
             split_part(hash_error, ':', 1) AS why FROM file_events WHERE internet_message_id = '<1@contoso.example>' ORDER BY file_name DESC",
        )
        .await;
        assert_eq!(rows.len(), 3, "{rows:#?}");
        for row in &rows {
            assert_eq!(row["recipients"], json!(["bob@fabrikam.example", "eve@elsewhere.example"]), "{row}");
            assert_eq!(row["recipient_domains"], json!(["fabrikam.example", "elsewhere.example"]), "{row}");
            assert_eq!(
                (row["mailbox"].as_str(), row["audit_operation"].as_str()),
                (Some("user1@contoso.example"), Some("SendAs"))
            );
            assert_eq!((row["client_ip"].as_str(), row["hash_status"].as_str()), (Some("203.0.113.7"), Some("owed")));
            assert_eq!((row["why"].as_str(), row["sha256"].as_str()), (Some(word), None));
        }
        let names: Vec<&str> = rows.iter().map(|row| row["file_name"].as_str().unwrap()).collect();
        assert_eq!(names, ["plan.docx", "plan.docx", "b.pdf"]);
        assert_eq!(rows[2]["file_path"], "C:\\Users\\ann\\b.pdf");
    }
}

/// The same against the service's own words: `[RAOP]`, a mailbox on-premises, one whose two errors alternate, one on
/// the move.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_graph_says_of_a_closed_mailbox_its_sends_are_rows() {
    let tenant = Simulated::generated("users=4,messages=40,attachments=2,size=300").await;
    let users = tenant.simulator.announcement().users.clone();
    let closed = |user: usize, action: &str| json!({"on": "mail", "match": users[user], "do": action});
    tenant.faults(json!([closed(0, "mailbox_denied"), closed(1, "mailbox_missing"), closed(2, "mailbox_alternating")]));
    let report = tenant.run().await;
    assert_eq!(report["exit_code"], 3, "{report:#}");
    let rows = query(
        &tenant.lake,
        "SELECT mailbox, hash_status, split_part(hash_error, ':', 1) AS why, count(*) AS n FROM file_events GROUP BY 1, 2, 3 ORDER BY 1",
    )
    .await;
    let why: Vec<(&str, Option<&str>)> =
        rows.iter().map(|row| (row["hash_status"].as_str().unwrap(), row["why"].as_str())).collect();
    let mut wanted: Vec<_> = [
        (&users[0], ("owed", Some("mailbox-denied"))),
        (&users[1], ("owed", Some("mailbox-missing"))),
        (&users[2], ("owed", Some("mailbox-missing"))),
        (&users[3], ("hashed", None)),
    ]
    .into();
    wanted.sort();
    assert_eq!(why, wanted.iter().map(|(_, why)| *why).collect::<Vec<_>>(), "{rows:#?}");
    let attachments: usize = tenant.expected().await.values().map(Vec::len).sum();
    assert_eq!(count(&tenant.lake, "SELECT count(*) FROM file_events").await, attachments as i64);
    // Opened, they are made good.
    tenant.faults(json!([]));
    let report = tenant.run_done().await;
    assert_eq!(report["events"], 0, "{report:#}");
    tenant.assert_complete().await;
}

/// Danger: a send that names no attachment and whose message is gone for ever leaves neither row nor gap.
#[tokio::test]
async fn a_send_that_names_nothing_and_can_never_be_found_is_a_gap() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    let mut unsaved = record(1, &[]);
    unsaved.saved_to_sent_items = Some(false);
    tenant.source.publish(tenant.at(-10), unsaved);
    tenant.source.publish(tenant.at(-10), record(2, &[]));
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.exit_code, report.gaps, report.owed.messages), (3, 1, 1));
    tenant.clock.set(tenant.at(3 * 24 * 60));
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.exit_code, report.gaps, report.owed.messages), (3, 1, 0));
    let rows = gaps(&lake).await;
    let mut found: Vec<_> = rows
        .iter()
        .map(|row| {
            let reason = row["reason"].as_str().unwrap().split(':').next().unwrap();
            (row["kind"].as_str().unwrap(), row["subject"].as_str().unwrap(), reason)
        })
        .collect();
    found.sort_unstable();
    let wanted =
        [("message", "<1@contoso.example>", "message-missing"), ("message", "<2@contoso.example>", "message-missing")];
    assert_eq!(found, wanted);
    assert_eq!(count(&lake, "SELECT count(*) FROM file_events").await, 0);
}

/// Danger: after an outage longer than the feed remembers, the run begins where the feed does, and nobody is told.
/// Provoked: nine days without a run.
#[tokio::test]
async fn an_outage_longer_than_the_feeds_memory_is_a_gap_with_its_remedy() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    tenant.run(&lake).await.unwrap();
    let back = tenant.at(9 * 24 * 60);
    tenant.source.publish(tenant.at(60), tenant.send(1, &["forgotten.txt"]));
    tenant.source.publish(back - Duration::days(6), tenant.send(2, &["kept.txt"]));
    tenant.clock.set(back);
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.exit_code, report.gaps), (3, 1));
    assert_eq!(actual(&lake).await, expected(&[(2, vec!["kept.txt"])]));
    let oldest = back - waybill::limits::FEED_MEMORY;
    let (begin, end) = (text(noon()), text(oldest));
    let [row] = &gaps(&lake).await[..] else { panic!("one gap") };
    assert_eq!(row["kind"], "feed_memory");
    assert_eq!((row["window_start"].as_str(), row["window_end"].as_str()), (Some(&*begin), Some(&*end)));
    assert!(row["reason"].as_str().unwrap().starts_with("gap-too-old: "), "{row}");
    let from = text(noon() - waybill::limits::CONTENT_LATE);
    let remedy = format!(
        "export the audit log from {from} to {end} in Purview, then `waybill backfill --connection 'memory' --from {from} --to {end} --export AUDIT.csv`"
    );
    assert_eq!(row["remedy"], remedy);
    assert_eq!(tenant.run(&lake).await.unwrap().exit_code, 0, "a gap is told once");
}

/// Danger: the subscription was switched off for days; the feed never kept what happened meanwhile.
#[tokio::test]
async fn a_subscription_that_was_found_off_is_a_gap() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    assert_eq!(tenant.run(&lake).await.unwrap().exit_code, 0);
    tenant.clock.set(tenant.at(90));
    tenant.source.set_feed(Feed::Started);
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.exit_code, report.gaps), (3, 1));
    let [row] = &gaps(&lake).await[..] else { panic!("one gap") };
    assert_eq!(row["kind"], "subscription");
    assert!(row["reason"].as_str().unwrap().starts_with("subscription-disabled: "), "{row}");
    let remedy = row["remedy"].as_str().unwrap();
    let from = text(noon() - waybill::limits::CONTENT_LATE);
    assert!(remedy.contains(&format!("--from {from} --to {}", text(tenant.at(90)))), "{remedy}");
}

/// Danger: somebody switches the subscription off while a run reads; the source starts it again, and the hole is not told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_went_off_during_a_run_is_a_gap() {
    let tenant = Simulated::generated("users=2,messages=10,size=300").await;
    tenant.faults(json!([{"on": "list", "times": 1, "do": "subscription_disabled"}]));
    let report = tenant.run().await;
    assert_eq!((report["exit_code"].as_i64(), report["gaps"].as_i64()), (Some(3), Some(1)), "{report:#}");
    assert_eq!(gaps(&tenant.lake).await[0]["kind"], "subscription");
    tenant.assert_complete().await;
    tenant.run_done().await;
}

/// Danger: a window whose listing fails is passed over.
#[tokio::test]
async fn a_window_that_cannot_be_listed_stays_open_and_is_told() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    tenant.source.publish(tenant.at(-10), tenant.send(1, &["a.txt"]));
    tenant.source.fail_always(Call::List, Some(Code::ServiceUnavailable));
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.exit_code, report.owed.windows, report.windows_failed), (3, 1, 1));
    tenant.clock.set(tenant.at(60));
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.exit_code, report.owed.windows), (3, 2));
    tenant.source.fail_always(Call::List, None);
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.exit_code, report.owed.windows), (0, 0));
    assert_eq!(actual(&lake).await, expected(&[(1, vec!["a.txt"])]));
}

/// Danger: a record falls out of the pipeline between two stages.
/// Provoked: repeats, a scope, closed mailboxes, broken blobs and malformed records at once; then everything is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_send_that_was_read_has_one_fate() {
    let mut tenant = Simulated::generated("users=5,messages=60,attachments=1.5,size=400").await;
    let users = tenant.simulator.announcement().users.clone();
    tenant.scope = waybill::source::Scope::Users(users[..4].to_vec());
    tenant.faults(json!([
        fault("blob", "duplicates"),
        {"on": "blob", "every": 3, "do": "malformed_record"},
        {"on": "blob", "every": 5, "do": "truncated_json"},
        {"on": "mail", "match": users[0], "do": "mailbox_denied"},
        {"on": "find", "match": users[1], "do": "message_missing"},
        {"on": "attachment_value", "match": users[2], "every": 2, "do": {"error": "ErrorItemNotFound"}},
        {"do": {"repeated": {"share": 0.3, "seconds": -300}}},
    ]));
    for is_healed in [false, true] {
        if is_healed {
            tenant.faults(json!([]));
        }
        let report = tenant.run().await;
        let number = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("no `{name}` in {report:#}"));
        assert_eq!(number("sends"), number("sends_met") + number("duplicates") + number("out_of_scope"), "{report:#}");
        assert_eq!(number("exit_code"), if is_healed { 0 } else { 3 }, "{report:#}");
        let run = &query(&tenant.lake, "SELECT * FROM runs ORDER BY started_at DESC LIMIT 1").await[0];
        for (column, name) in [
            ("records", "records"),
            ("sends", "sends"),
            ("sends_out_of_scope", "out_of_scope"),
            ("duplicates", "duplicates"),
            ("events", "events"),
            ("events_upgraded", "events_upgraded"),
            ("hashed", "hashed"),
            ("quarantined", "quarantined"),
            ("gaps", "gaps"),
            ("exit_code", "exit_code"),
        ] {
            assert_eq!(run[column], report[name], "{column}");
        }
    }
    let in_scope: usize = tenant
        .messages()
        .await
        .iter()
        .filter(|message| users[..4].iter().any(|user| message["mailbox"] == **user))
        .map(|message| message["attachments"].as_array().unwrap().len())
        .sum();
    assert_eq!(
        count(&tenant.lake, "SELECT count(*) FROM file_events WHERE hash_status = 'hashed'").await,
        in_scope as i64
    );
    assert_eq!(count(&tenant.lake, "SELECT count(*) FROM file_events").await, in_scope as i64);
    let events = count(&tenant.lake, "SELECT sum(events) FROM runs").await;
    assert_eq!(events, in_scope as i64, "rows that runs say they added");
}
