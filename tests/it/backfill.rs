//! A backfill fills a past interval by the rules of a run, and leaves the checkpoint's way alone.

use std::path::PathBuf;
use std::sync::Arc;

use chrono::{Duration, SecondsFormat};
use object_store::memory::InMemory;
use serde_json::{Value, json};
use uuid::Uuid;
use waybill::clock::Clock;
use waybill::error::{Code, Result};
use waybill::lake::Lake;
use waybill::run::{self, Outcome, Past, Report, State};
use waybill::source::memory::{Call, Record};
use waybill::source::microsoft365::Exported;
use waybill::source::{Feed, SendRecord, UnreadableRecord, Window};

use crate::inner::simulated::{Simulated, now};
use crate::inner::store::{Failure, FaultyStore};
use crate::inner::{Tenant, actual, count, expected, mailbox, noon, query, record};
use crate::nothing_hidden::new_lake;
use crate::support::{self, ended, write};

impl Tenant {
    /// Fills the time between two minutes from the feed.
    pub(crate) async fn backfill(&self, lake: &Lake, from: i64, to: i64) -> Result<Report> {
        let past = Past::Feed(Window::new(self.at(from), self.at(to)).unwrap());
        run::backfill(self.job(false), past, Arc::clone(&self.source), lake).await
    }

    /// Fills from exported records.
    async fn backfill_from(&self, lake: &Lake, sends: &[SendRecord]) -> Report {
        let folder = tempfile::tempdir().unwrap();
        let lines: String = sends.iter().map(|send| format!("{}\n", audit_data(send))).collect();
        let path = write(&folder.path().join("audit.jsonl"), lines);
        let exported = Exported::open(Arc::clone(&self.source), Uuid::from_u128(0x7e), &[path], None, None).unwrap();
        let past = Past::Export { from: None, to: None };
        run::backfill(self.job(false), past, Arc::new(exported), lake).await.unwrap()
    }
}

/// A record as an export has it.
fn audit_data(send: &SendRecord) -> Value {
    let attachments: Vec<String> = send.attachments.iter().map(|named| format!("{} (5b)", named.name)).collect();
    json!({"CreationTime": send.created.format("%Y-%m-%dT%H:%M:%S").to_string(), "Id": send.id, "Operation": "Send",
        "UserId": send.actor, "Item": {"InternetMessageId": send.internet_message_id, "Attachments": attachments.join("; ")}})
}

async fn state(lake: &Lake, tenant: &Tenant) -> State {
    lake.checkpoint::<State>(tenant.job(false).connection_id).await.unwrap().unwrap().state
}

/// The part of a state that a backfill leaves alone.
fn way(state: &State) -> Value {
    json!([state.since, state.watermark, state.windows, state.newest_content])
}

async fn kinds(lake: &Lake) -> Vec<Value> {
    query(lake, "SELECT kind FROM runs ORDER BY kind").await.into_iter().map(|row| row["kind"].clone()).collect()
}

/// Danger: a backfill moves the checkpoint, reads nothing, doubles what a run brought, or says again what was told.
/// Provoked: a record from before `--since` and one that a run has read, with a damaged one between them; three times.
#[tokio::test]
async fn an_interval_before_since_is_filled_once_and_the_checkpoint_stays_where_it_is() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    tenant.source.publish(tenant.at(-300), tenant.send(1, &["early.txt", "early.txt"]));
    tenant.source.publish(tenant.at(-290), tenant.send(4, &[]));
    let unreadable = UnreadableRecord { raw: "{\"Operation\":\"Send\"}".to_owned(), reason: "it has no id".to_owned() };
    tenant.source.publish(tenant.at(-280), Record::Unreadable(unreadable));
    tenant.source.publish(tenant.at(-30), tenant.send(2, &["known.txt"]));
    assert_eq!(tenant.run(&lake).await.unwrap().exit_code, 0);
    assert_eq!(actual(&lake).await, expected(&[(2, vec!["known.txt"])]));
    let before = state(&lake, &tenant).await;

    let all = expected(&[(1, vec!["early.txt", "early.txt"]), (2, vec!["known.txt"])]);
    let report = tenant.backfill(&lake, -2000, -5).await.unwrap();
    assert_eq!((report.exit_code, report.events, report.quarantined, report.windows), (3, 2, 1, 2));
    assert_eq!((report.window_start, report.window_end), (Some(tenant.at(-2000)), Some(tenant.at(-5))));
    assert_eq!(actual(&lake).await, all);
    assert_eq!(way(&state(&lake, &tenant).await), way(&before));

    let finds = tenant.source.calls(Call::Find);
    for days in [0, 6] {
        // After some days the checkpoint has forgotten the records, and the lake has not.
        tenant.clock.set(noon() + Duration::days(days));
        let report = tenant.backfill(&lake, -600, -5).await.unwrap();
        assert_eq!((report.exit_code, report.events, report.quarantined), (3, 0, 1));
        assert_eq!(tenant.source.calls(Call::Find), finds, "what is known needs no request");
    }
    assert_eq!(actual(&lake).await, all);
    assert_eq!(count(&lake, "SELECT count(*) FROM quarantine").await, 1, "what was told once is not told again");
    assert_eq!(way(&state(&lake, &tenant).await), way(&before));
    assert_eq!(kinds(&lake).await, ["backfill", "backfill", "backfill", "run"]);
}

#[tokio::test]
async fn a_run_after_a_backfill_of_its_own_time_adds_nothing_and_the_reverse() {
    for backfill_first in [true, false] {
        let (tenant, lake) = (Tenant::new(), new_lake().await);
        tenant.source.publish(tenant.at(-50), tenant.send(1, &["a.txt"]));
        tenant.source.publish(tenant.at(-20), tenant.send(2, &["b.txt", "c.txt"]));
        let (mut first, mut second) = (0, 0);
        for (step, events) in [&mut first, &mut second].into_iter().enumerate() {
            let report = match (step == 0) == backfill_first {
                true => tenant.backfill(&lake, -600, 0).await.unwrap(),
                false => tenant.run(&lake).await.unwrap(),
            };
            assert_eq!((report.exit_code, report.events_doubled), (0, 0), "{backfill_first}");
            *events = report.events;
        }
        assert_eq!((first, second), (3, 0), "{backfill_first}");
        assert_eq!(actual(&lake).await, expected(&[(1, vec!["a.txt"]), (2, vec!["b.txt", "c.txt"])]));
        let state = state(&lake, &tenant).await;
        assert_eq!(state.watermark, noon());
        assert!(!state.windows.is_empty());
    }
}

/// Danger: what the feed no longer holds looks filled.
#[tokio::test]
async fn what_the_feed_has_forgotten_is_a_gap_and_the_rest_is_filled() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    tenant.source.publish(tenant.at(-8 * 24 * 60), tenant.send(1, &["forgotten.txt"]));
    tenant.source.publish(tenant.at(-6 * 24 * 60), tenant.send(2, &["held.txt"]));
    let oldest = noon() - waybill::limits::FEED_MEMORY;
    for _ in 0..2 {
        let report = tenant.backfill(&lake, -9 * 24 * 60, -60).await.unwrap();
        assert_eq!((report.exit_code, report.gaps, report.failures.get("gap-too-old")), (3, 1, Some(&1)));
        assert_eq!(report.window_start, Some(oldest), "the run's row tells what was read");
    }
    assert_eq!(actual(&lake).await, expected(&[(2, vec!["held.txt"])]));
    let text = |time: waybill::clock::Time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let rows = query(&lake, "SELECT kind, window_start, window_end, remedy FROM gaps").await;
    let [row] = &rows[..] else { panic!("one gap: {rows:?}") };
    assert_eq!((&row["kind"], &row["window_start"]), (&json!("feed_memory"), &json!(text(tenant.at(-9 * 24 * 60)))));
    assert_eq!(row["window_end"], json!(text(oldest)));
    assert!(row["remedy"].as_str().unwrap().ends_with("--export AUDIT.csv`"), "{row}");
}

/// Danger: nobody comes back to a window of a backfill that could not be listed, and it looks done.
#[tokio::test]
async fn a_window_that_cannot_be_listed_fails_the_backfill_and_a_repeat_fills_it() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    tenant.source.publish(tenant.at(-3000), tenant.send(1, &["a.txt"]));
    tenant.source.publish(tenant.at(-1000), tenant.send(2, &["b.txt"]));
    tenant.source.fail(Call::List, 1, Code::ServiceUnavailable);
    let report = tenant.backfill(&lake, -3100, -900).await.unwrap();
    assert_eq!((report.exit_code, report.outcome, report.windows_failed), (1, Outcome::Failed, 1));
    assert_eq!(actual(&lake).await, expected(&[(2, vec!["b.txt"])]), "the other window was read");
    let report = tenant.backfill(&lake, -3100, -900).await.unwrap();
    assert_eq!((report.exit_code, report.events), (0, 1));
    assert_eq!(actual(&lake).await, expected(&[(1, vec!["a.txt"]), (2, vec!["b.txt"])]));
}

/// Danger: what a backfill could not have is forgotten with it.
/// Provoked: a blob that fails, a message that comes later, bytes that fail; then one scheduled run.
#[tokio::test]
async fn what_a_backfill_owes_a_later_run_brings() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    tenant.source.publish(tenant.at(-500), tenant.send(1, &["blob.txt"]));
    let late = tenant.message(2, &["message.txt"]);
    tenant.source.publish(tenant.at(-400), record(2, &["message.txt"]));
    tenant.source.add_message(tenant.at(30), late);
    tenant.source.publish(tenant.at(-300), tenant.send(3, &["bytes.txt"]));
    tenant.source.fail(Call::Read, 1, Code::ServiceUnavailable);
    tenant.source.fail_always(Call::Open, Some(Code::ServiceUnavailable));
    let report = tenant.backfill(&lake, -600, -200).await.unwrap();
    assert_eq!((report.exit_code, report.owed.blobs, report.owed.messages, report.owed.hashes), (3, 1, 1, 1));

    tenant.source.fail_always(Call::Open, None);
    tenant.clock.set(tenant.at(60));
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.exit_code, report.events, report.events_upgraded), (0, 1, 2));
    let sends = [(1, vec!["blob.txt"]), (2, vec!["message.txt"]), (3, vec!["bytes.txt"])];
    assert_eq!(actual(&lake).await, expected(&sends));
}

/// Danger: a backfill and a scheduled run at once double a row, or the loser's work is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_backfill_meets_a_run_the_loser_says_so_and_nothing_is_lost() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    let sends: Vec<(u32, Vec<&str>)> = (0..20).map(|number| (number, vec!["a.txt"])).collect();
    for (number, names) in &sends {
        tenant.source.publish(tenant.at(-i64::from(*number) * 10 - 5), tenant.send(*number, names));
    }
    let (filled, ran) = tokio::join!(tenant.backfill(&lake, -600, -20), tenant.run(&lake));
    for lost in [filled.err(), ran.err()].into_iter().flatten() {
        assert_eq!(lost.code(), Code::RunInProgress);
    }
    assert_eq!(tenant.backfill(&lake, -600, -20).await.unwrap().exit_code, 0);
    assert_eq!(tenant.run(&lake).await.unwrap().exit_code, 0);
    assert_eq!(actual(&lake).await, expected(&sends));
}

/// Danger: a backfill that is killed in the middle leaves rows doubled or lost when it is repeated.
/// Provoked: each of its writes in turn hangs, before it took effect and after; then it is repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_that_was_killed_goes_on_when_it_is_repeated() {
    for failure in [Failure::HangBefore, Failure::HangAfter, Failure::After] {
        for nth in 1.. {
            let tenant = Tenant::new();
            let unreadable = UnreadableRecord { raw: "{}".to_owned(), reason: "it has no id".to_owned() };
            tenant.source.publish(tenant.at(-300), Record::Unreadable(unreadable));
            tenant.source.publish(tenant.at(-300), tenant.send(1, &["a.txt", "b.txt"]));
            let memory = Arc::new(InMemory::new());
            let lake = Lake::with_store("memory:///lake/", Arc::<InMemory>::clone(&memory)).unwrap();
            lake.create().await.unwrap();
            let store = FaultyStore::new(memory, nth, failure);
            let disturbed = Lake::with_store("memory:///lake/", Arc::<FaultyStore>::clone(&store)).unwrap();
            tokio::select! {
                _ = tenant.backfill(&disturbed, -600, -100) => {}
                () = store.hung.notified() => {}
            }
            let case = format!("{failure:?} at write {nth}");
            tenant.backfill(&lake, -600, -100).await.unwrap();
            assert_eq!(actual(&lake).await, expected(&[(1, vec!["a.txt", "b.txt"])]), "{case}");
            assert_eq!(count(&lake, "SELECT count(*) FROM quarantine").await, 1, "{case}");
            assert_eq!(count(&lake, "SELECT sum(events) FROM runs").await, 2, "{case}");
            assert_eq!(count(&lake, "SELECT count(*) - count(DISTINCT run_id) FROM runs").await, 0, "{case}");
            if store.writes() < nth {
                assert!(nth > 5, "a backfill writes more than {nth} objects");
                break;
            }
        }
    }
}

/// Danger: the first run after a backfill of a new connection takes the feed's start for an outage, or the backfill
/// itself asks the feed.
#[tokio::test]
async fn a_new_connection_may_be_filled_from_an_export_before_its_first_run() {
    let (mut tenant, lake) = (Tenant::new(), new_lake().await);
    tenant.since = noon();
    tenant.source.set_feed(Feed::Started);
    let old = noon() - Duration::days(90);
    let found = SendRecord { created: old, ..tenant.send(1, &["found.txt"]) };
    let gone = SendRecord { created: old, ..record(2, &["gone.txt"]) };
    let recent = record(3, &["recent.txt"]);
    let mut message = tenant.message(1, &["found.txt"]);
    message.sent = old;
    tenant.source.add_message(old, message);
    let report = tenant.backfill_from(&lake, &[found, gone, recent]).await;
    assert_eq!((report.exit_code, report.owed.messages, report.gaps), (3, 1, 0));
    assert_eq!((tenant.source.calls(Call::Prepare), tenant.source.calls(Call::List)), (0, 0));
    let rows = query(&lake, "SELECT file_name, hash_status FROM file_events ORDER BY file_name").await;
    let statuses: Vec<&str> = rows.iter().map(|row| row["hash_status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["hashed", "unavailable", "owed"], "{rows:?}");

    tenant.clock.set(tenant.at(1));
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!(report.gaps, 0, "{:?}", query(&lake, "SELECT * FROM gaps").await);
    assert_eq!(report.window_start, Some(noon()));
}

/// Danger: the feed was off, and the backfill that starts it hides that from the runs that follow.
#[tokio::test]
async fn a_backfill_that_finds_the_feed_off_says_what_is_lost() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    tenant.run(&lake).await.unwrap();
    tenant.clock.set(tenant.at(300));
    tenant.source.set_feed(Feed::Started);
    let report = tenant.backfill(&lake, -600, -60).await.unwrap();
    assert_eq!((report.exit_code, report.gaps), (3, 2));
    let text = |minutes| json!(tenant.at(minutes).to_rfc3339_opts(SecondsFormat::AutoSi, true));
    let rows = query(&lake, "SELECT window_start, window_end FROM gaps ORDER BY window_start").await;
    let intervals: Vec<[&Value; 2]> = rows.iter().map(|row| [&row["window_start"], &row["window_end"]]).collect();
    assert_eq!(intervals, [[&text(-600), &text(-60)], [&text(0), &text(300)]]);
}

#[tokio::test]
async fn a_refusal_by_every_mailbox_is_told_of_a_backfill_too() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    for number in 0..3 {
        tenant.source.publish(tenant.at(-300), tenant.send(number, &["a.txt"]));
        tenant.source.close_mailbox(&mailbox(number), Some(Code::MailboxDenied));
    }
    let report = tenant.backfill(&lake, -600, -60).await.unwrap();
    assert_eq!(report.exit_code, 12);
}

/// What the tenant's feed holds, read as any client would.
async fn records(tenant: &Simulated) -> Vec<Value> {
    let announcement = tenant.simulator.announcement();
    let client = reqwest::Client::new();
    let id = &announcement.tenant_id;
    let form = format!(
        "grant_type=client_credentials&client_id={}&client_secret={}&scope=https%3A%2F%2Fmanage.office.com%2F.default",
        announcement.client_id,
        announcement.client_secret.replace('~', "%7E")
    );
    let token = client
        .post(format!("{}/{id}/oauth2/v2.0/token", announcement.login))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form);
    let token: Value = serde_json::from_str(&token.send().await.unwrap().text().await.unwrap()).unwrap();
    let token = token["access_token"].as_str().unwrap_or_else(|| panic!("{token}")).to_owned();
    let get = async |url: String| -> Vec<Value> {
        let answer = client.get(&url).bearer_auth(&token).send().await.unwrap();
        assert!(answer.status().is_success(), "{url}");
        assert!(!answer.headers().contains_key("nextpageuri"), "one page is enough here");
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    };
    let second = |time: waybill::clock::Time| time.format("%Y-%m-%dT%H:%M:%S").to_string();
    let (start, end) = (second(now() - Duration::hours(20)), second(now() + Duration::minutes(1)));
    let feed = format!("{}/api/v1.0/{id}/activity/feed", announcement.activity);
    let blobs = get(format!("{feed}/subscriptions/content?contentType=Audit.Exchange&startTime={start}&endTime={end}"));
    let mut records = Vec::new();
    for blob in blobs.await {
        records.extend(get(blob["contentUri"].as_str().unwrap().to_owned()).await);
    }
    records
}

/// The CSV of Purview.
fn csv(records: &[Value]) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let row = |record: &Value| {
        let user = record["UserId"].as_str().unwrap_or_default();
        format!("{},{},{}\r\n", record["CreationTime"].as_str().unwrap(), quoted(user), quoted(&record.to_string()))
    };
    format!("CreationDate,UserIds,AuditData\r\n{}", records.iter().map(row).collect::<String>())
}

/// The JSON of `Search-UnifiedAuditLog`.
fn objects(records: &[Value]) -> String {
    let row = |record: &Value| json!({"Identity": record["Id"], "UserIds": record["UserId"], "AuditData": record.to_string()});
    serde_json::to_string_pretty(&records.iter().map(row).collect::<Vec<_>>()).unwrap()
}

impl Simulated {
    fn exported(&self, files: &[PathBuf]) -> Exported<waybill::source::microsoft365::Microsoft365> {
        let service = Arc::new(self.source(Clock::System));
        Exported::open(service, self.job().tenant_id, files, None, None).unwrap()
    }

    async fn backfill_from(&self, lake: &Lake, files: &[PathBuf]) -> Report {
        let past = Past::Export { from: None, to: None };
        run::backfill(self.job(), past, Arc::new(self.exported(files)), lake).await.unwrap()
    }
}

/// All rows, without what says how they came.
async fn rows(lake: &Lake) -> Vec<Value> {
    let mut rows = query(lake, "SELECT * FROM file_events ORDER BY event_id").await;
    for row in &mut rows {
        for column in ["inserted_at", "run_id", "content_blob_id"] {
            row.as_object_mut().unwrap().remove(column);
        }
    }
    rows
}

/// Danger: an export gives other rows than the feed, or a repeat asks for every message again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_gives_the_rows_that_the_feed_gives() {
    let tenant = Simulated::generated("users=4,messages=40,attachments=2,size=800,days=2").await;
    tenant.run_done().await;
    let from_feed = rows(&tenant.lake).await;
    assert!(from_feed.len() > 20);
    let records = records(&tenant).await;
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = records.split_at(records.len() / 3);
    let lines = |records: &[Value]| records.iter().map(|record| format!("{record}\n")).collect::<String>();
    let utf16 = |text: &str| -> Vec<u8> {
        std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
    };
    let cases = [
        vec![write(&folder.path().join("audit.csv"), csv(&records))],
        vec![write(&folder.path().join("audit.json"), utf16(&objects(&records)))],
        // Two files that overlap.
        vec![
            write(&folder.path().join("1.jsonl"), lines(&records[..30])),
            write(&folder.path().join("2.csv"), csv(second)),
        ],
        vec![write(&folder.path().join("array.json"), json!([second, first].concat()).to_string())],
    ];
    let exact = cases.len() - 1;
    for (number, files) in cases.iter().enumerate() {
        let lake = new_lake().await;
        let report = tenant.backfill_from(&lake, files).await;
        assert_eq!(report.exit_code, 0, "{report:#?}");
        assert_eq!(rows(&lake).await, from_feed, "{files:?}");
        let asked = tenant.simulator.report();
        let report = tenant.backfill_from(&lake, &cases[exact - number]).await;
        assert_eq!((report.exit_code, report.events, report.events_doubled), (0, 0, 0));
        assert_eq!(tenant.simulator.report().count("find"), asked.count("find"), "what is known needs no request");
        assert_eq!(rows(&lake).await, from_feed, "{files:?}");
        tenant.run_into(&lake).await.unwrap();
        assert_eq!(rows(&lake).await, from_feed, "the feed adds nothing");
        let blobs = query(&lake, "SELECT DISTINCT content_blob_id AS id FROM file_events").await;
        assert!(blobs.iter().all(|row| row["id"].as_str().unwrap().starts_with("export:")), "{blobs:?}");
    }
}

/// Danger: a dry run asks for messages, writes, or is far from what follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_tells_the_cost_without_a_message_request_and_without_a_trace() {
    let tenant = Simulated::generated("users=4,messages=30,attachments=2,size=800").await;
    let folder = tempfile::tempdir().unwrap();
    let files = [write(&folder.path().join("audit.csv"), csv(&records(&tenant).await))];
    let window = Window::new(now() - Duration::hours(30), now()).unwrap();
    let shards = [tenant.job().shard];
    let feed = || {
        let source = Arc::new(tenant.source(Clock::System));
        run::estimate(tenant.job(), &shards, Past::Feed(window), source, &tenant.lake)
    };
    let export = || {
        let past = Past::Export { from: None, to: None };
        run::estimate(tenant.job(), &shards, past, Arc::new(tenant.exported(&files)), &tenant.lake)
    };
    let (by_feed, by_export) = (feed().await.unwrap(), export().await.unwrap());
    let asked = tenant.simulator.report();
    for kind in ["find", "attachments", "attachment_value", "folder", "start"] {
        assert_eq!(asked.count(kind), 0, "{kind}");
    }
    assert_eq!(count(&tenant.lake, "SELECT count(*) FROM runs").await, 0);
    assert!(tenant.lake.checkpoint::<State>(tenant.job().connection_id).await.unwrap().is_none());
    for estimate in [&by_feed, &by_export] {
        assert_eq!((estimate.sends, estimate.new, estimate.known, estimate.lost), (30, 30, 0, None));
        assert_eq!(estimate.requests, estimate.new + estimate.attachments);
        assert!(estimate.attachments > 0 && estimate.bytes > 0 && estimate.seconds > 0, "{estimate:?}");
    }
    assert_eq!((by_feed.windows, by_export.blobs), (2, 1));

    let report = tenant.backfill_from(&tenant.lake, &files).await;
    assert_eq!(report.hashed, by_export.attachments, "the records name what the messages hold");
    let after = feed().await.unwrap();
    assert_eq!((after.sends, after.new, after.known, after.requests), (30, 0, 30, 0));
}

/// Danger: a damaged line of an export is passed over, or costs its neighbours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_line_of_an_export_is_quarantined_with_its_number() {
    let tenant = Simulated::generated("users=3,messages=12,size=500").await;
    tenant.run_done().await;
    let records = records(&tenant).await;
    let good = csv(&records);
    let lines: Vec<&str> = good.split_inclusive("\r\n").collect();
    let half = format!("{}\r\n", &lines[3][..lines[3].len() / 2]);
    let damaged = [&lines[..3].concat(), &half, &lines[4..].concat(), "nothing\r\n"].concat();
    let folder = tempfile::tempdir().unwrap();
    let files = [write(&folder.path().join("damaged.csv"), damaged)];
    let lake = new_lake().await;
    for _ in 0..2 {
        let report = tenant.backfill_from(&lake, &files).await;
        assert_eq!((report.exit_code, report.quarantined), (3, 2));
        let rows = query(&lake, "SELECT reason, content_blob_id FROM quarantine ORDER BY reason").await;
        let reasons: Vec<&str> = rows.iter().map(|row| row["reason"].as_str().unwrap()).collect();
        let last = format!("line {}: the record has no `AuditData`", lines.len() + 1);
        assert!(
            reasons.contains(&&*last) && reasons.iter().any(|reason| reason.starts_with("line 4: ")),
            "{reasons:?}"
        );
        assert_eq!((reasons.len(), &rows[0]["content_blob_id"]), (2, &json!("export:damaged.csv")));
    }
    let good = tenant.backfill_from(&lake, &[write(&folder.path().join("good.csv"), good)]).await;
    assert_eq!(good.exit_code, 0);
    assert_eq!(rows(&lake).await, rows(&tenant.lake).await, "the mended file brings the rest");
}

/// Danger: gaps that were filled look open for ever. The statement is the one of docs/backfill.md.
#[tokio::test]
async fn a_gap_that_a_backfill_covers_is_no_longer_listed_as_open() {
    let page = std::fs::read_to_string(support::repository("docs/backfill.md")).unwrap();
    let statement = page.split("```sql").nth(1).unwrap().split("```").next().unwrap();
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    tenant.run(&lake).await.unwrap();
    tenant.clock.set(tenant.at(9 * 24 * 60));
    assert_eq!(tenant.run(&lake).await.unwrap().gaps, 1);
    let open = query(&lake, statement).await;
    assert_eq!(open.len(), 1, "{open:?}");

    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder.path().join("audit.csv"), "CreationDate,AuditData\n");
    let (from, to) = (Some(noon() - waybill::limits::CONTENT_LATE), Some(tenant.at(8 * 24 * 60)));
    for (from, expected) in [(None, 1), (from, 0)] {
        let exported =
            Exported::open(Arc::clone(&tenant.source), Uuid::from_u128(0x7e), std::slice::from_ref(&path), from, to)
                .unwrap();
        let past = Past::Export { from, to };
        run::backfill(tenant.job(false), past, Arc::new(exported), &lake).await.unwrap();
        assert_eq!(query(&lake, statement).await.len(), expected, "{from:?}");
    }
}

fn backfill<'a>(others: &[&'a str]) -> Vec<&'a str> {
    [&["backfill", "--connection", "Past", "--output", "json"], others].concat()
}

/// Danger: a signal loses what was read. Provoked: SIGTERM while the service is slow; then the same command again.
#[test]
fn a_backfill_that_was_stopped_ends_with_130_and_the_same_command_goes_on() {
    let tenant = support::Tenant::start(&["--generate", "users=4,messages=60,sends=1,days=1,size=500"]);
    let lake = support::Lake::temp();
    lake.add(&tenant, "Past", &["--since", "now"]);
    tenant.faults(&json!([{"on": "attachment_value", "do": {"latency_ms": 700}}]));
    let arguments = backfill(&["--from", "2d", "--to", "now"]);
    let command = lake.command(&arguments).stdout(std::process::Stdio::piped()).spawn().unwrap();
    while tenant.report()["requests"]["attachment_value"]["200"].as_u64().unwrap_or(0) < 8 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let stopped = std::process::Command::new("kill").args(["-TERM", &command.id().to_string()]).status().unwrap();
    assert!(stopped.success());
    let (exit, report) = ended(&command.wait_with_output().unwrap());
    assert_eq!((exit, &report["outcome"]), (130, &json!("interrupted")), "{report:#}");

    tenant.faults(&json!([]));
    let (exit, report) = ended(&lake.output(&arguments));
    assert_eq!((exit, &report["kind"]), (0, &json!("backfill")), "{report:#}");
    let sent = lake.count("SELECT count(*) FROM file_events");
    assert!(sent > 20);
    assert_eq!(lake.count("SELECT count(DISTINCT event_id) FROM file_events WHERE hash_status = 'hashed'"), sent);
    let (exit, report) = ended(&lake.output(&arguments));
    assert_eq!((exit, &report["events"]), (0, &json!(0)));
}

#[test]
fn the_command_explains_what_it_cannot_do() {
    let tenant = support::Tenant::start(&["--generate", "users=2,messages=4,sends=1,days=1,size=500"]);
    let lake = support::Lake::temp();
    lake.add(&tenant, "Past", &["--since", "now"]);
    let no_export = write(&lake.beside().join("names.csv"), "name,size\na,1\n");
    let no_export = no_export.to_str().unwrap();
    let cases: [(&[&str], i32, &str); 6] = [
        (&["--from", "2d"], 2, "--to"),
        (&["--from", "1d", "--to", "2d"], 2, "`--from` must be before `--to`"),
        (&["--from", "yesterday", "--to", "now"], 2, "is not a time"),
        (&["--export", no_export], 2, "no exported audit log"),
        (&["--export", "nowhere.csv"], 1, "cannot read `nowhere.csv`"),
        (&["--from", "9d", "--to", "now"], 3, "--export"),
    ];
    for (others, code, text) in cases {
        let output = lake.output(&backfill(others));
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{others:?}: {errors}");
        assert!(errors.contains(text), "{others:?}: {errors}");
    }
    let estimate: Value =
        serde_json::from_str(&lake.text(&backfill(&["--from", "2d", "--to", "now", "--dry-run"]))).unwrap();
    assert_eq!((&estimate["sends"], &estimate["new"]), (&json!(4), &json!(0)), "{estimate:#}");
}
