//! Exports: the rows of a view, as files that other programs read; nothing skipped, nothing doubled, wherever it stops.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::{AsArray as _, RecordBatch};
use chrono::Duration;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use uuid::Uuid;
use waybill::clock::Clock;
use waybill::error::{Code, Error};
use waybill::event::FileEvent;
use waybill::export::{Export, Exported, Format, SecurityLake};
use waybill::lake::{Commit, Lake, Outlet};
use waybill::search::query::Query;
use waybill::search::{Asker, Engine, Search, Surface};

use crate::inner::{count, query};
use crate::risk::{event, lake, noon};

const ANN: &str = "ann@contoso.example";

fn events(numbers: std::ops::Range<u128>) -> Vec<FileEvent> {
    numbers
        .map(|number| {
            let at = noon() + Duration::minutes(i64::try_from(number % 5_000).unwrap());
            let recipients: &[&str] =
                if number % 2 == 0 { &["bob@partner.example", "carl@other.example"] } else { &["bob@partner.example"] };
            event(number, ANN, recipients, at)
        })
        .collect()
}

async fn add(lake: &Lake, rows: Vec<FileEvent>, replaces: Vec<FileEvent>) {
    let (mut writer, _) = lake.writer::<Value>(Uuid::from_u128(1), Uuid::from_u128(4)).await.unwrap();
    let replaces = replaces.into_iter().map(|row| (row.event_id, row.observed_at.date_naive())).collect();
    writer.commit(Commit { rows, replaces, outbox: Default::default(), state: json!({}) }).await.unwrap();
}

fn export(view: &str, format: Format) -> Export {
    let query = Query::parse("file.sizeInBytes > 0").unwrap();
    Export { view: view.to_owned(), query, format, security_lake: None, file_bytes: 64 * 1024 }
}

async fn run(export: &Export, lake: &Lake, to: &Path) -> Result<Exported, Error> {
    let search = Search::open(lake).await?;
    export.run(&search, &Outlet::at(to.to_str().unwrap())?, noon() + Duration::days(30)).await
}

/// Every exported file by its path; not what the export keeps for itself.
fn files(below: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![below.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("_waybill") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(below).unwrap().to_str().unwrap().to_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn rows_of(files: &BTreeMap<String, Vec<u8>>) -> Vec<Value> {
    let lines = files.values().flat_map(|bytes| std::str::from_utf8(bytes).unwrap().lines());
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn expected(lake: &Lake, statement: &str) -> Vec<Value> {
    let rows = Search::open(lake).await.unwrap().sql(statement).await.unwrap().objects().await.unwrap();
    rows.into_iter().map(Value::Object).collect()
}

fn parquet(bytes: &[u8]) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes.to_vec())).unwrap();
    reader.build().unwrap().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_holds_the_rows_of_the_view_in_files_of_some_size() {
    let lake = lake(events(1..3_000)).await;
    let to = tempfile::tempdir().unwrap();
    let exported = run(&export("code42_file_events", Format::Ndjson), &lake, to.path()).await.unwrap();
    let files = files(to.path());
    assert_eq!((exported.rows, exported.files), (2_999, files.len() as u64));
    assert!(files.len() > 3 && files.values().all(|bytes| bytes.len() < 2 * 1024 * 1024), "{}", files.len());
    let order = "SELECT * FROM code42_file_events ORDER BY \"@timestamp\", \"event.id\"";
    assert_eq!(rows_of(&files), expected(&lake, order).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_export_has_what_came_and_what_was_upgraded_and_nothing_else() {
    let lake = lake(events(1..100)).await;
    let to = tempfile::tempdir().unwrap();
    let export = export("file_events", Format::Ndjson);
    assert_eq!(run(&export, &lake, to.path()).await.unwrap().rows, 99);
    assert_eq!(run(&export, &lake, to.path()).await.unwrap(), Exported::default(), "nothing is new");
    let before = files(to.path());

    // One that was sent before all others becomes known late, and one of the first is upgraded.
    let upgraded = FileEvent { subject: Some("now known".to_owned()), ..events(5..6).remove(0) };
    let late = event(500, ANN, &["bob@partner.example"], noon() - Duration::days(3));
    add(&lake, vec![late.clone(), upgraded.clone()], vec![upgraded.clone()]).await;
    assert_eq!(run(&export, &lake, to.path()).await.unwrap().rows, 2);
    let mut after = files(to.path());
    after.retain(|name, _| !before.contains_key(name));
    let ids: Vec<Value> = rows_of(&after).iter().map(|row| row["event_id"].clone()).collect();
    assert_eq!(ids, [json!(late.event_id), json!(upgraded.event_id)]);
}

/// Danger: an export that was killed begins anew, or leaves out what it had not written. Provoked: a folder that cannot be
/// written to after so many files, wherever that is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_export_ends_as_if_nothing_had_happened() {
    let lake = lake(events(1..2_000)).await;
    let export = export("EmailAttachmentInfo", Format::Ndjson);
    let whole = tempfile::tempdir().unwrap();
    let all = run(&export, &lake, whole.path()).await.unwrap();
    let whole = files(whole.path());
    assert_eq!(all.rows, 1_999 + 999, "a row for each recipient");
    for name in whole.keys() {
        let to = tempfile::tempdir().unwrap();
        // In the place of one file is a folder.
        std::fs::create_dir_all(to.path().join(name).join("in the way")).unwrap();
        assert!(run(&export, &lake, to.path()).await.is_err());
        std::fs::remove_dir_all(to.path().join(name)).unwrap();
        let resumed = run(&export, &lake, to.path()).await.unwrap();
        assert!(resumed.files <= all.files);
        assert!(files(to.path()) == whole, "stopped before {name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spreadsheet_finds_no_formula() {
    let row = FileEvent {
        file_name: Some("=HYPERLINK(\"http://x\").pdf".to_owned()),
        subject: Some("@SUM(1+1)".to_owned()),
        ..event(1, ANN, &["bob@partner.example"], noon())
    };
    let lake = lake(vec![row]).await;
    let to = tempfile::tempdir().unwrap();
    run(&export("file_events", Format::Csv), &lake, to.path()).await.unwrap();
    let text = String::from_utf8(files(to.path()).into_values().next().unwrap()).unwrap();
    assert!(text.starts_with("event_id,event_action,observed_at,"), "{text}");
    assert!(text.contains("\"'=HYPERLINK(\"\"http://x\"\").pdf\"") && text.contains(",'@SUM(1+1),"), "{text}");
    assert!(!text.contains("waybill_"), "the order's columns are not exported: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_lake_gets_its_layout_a_day_a_folder() {
    let lake = lake(events(1..3_000)).await;
    let to = tempfile::tempdir().unwrap();
    let layout = SecurityLake {
        source: "waybill".to_owned(),
        region: "eu-central-1".to_owned(),
        account: "123456789012".to_owned(),
    };
    let export = Export { security_lake: Some(layout), ..export("ocsf_email_file_activity", Format::Parquet) };
    run(&export, &lake, to.path()).await.unwrap();
    let mut days = BTreeMap::<String, usize>::new();
    for (name, bytes) in files(to.path()) {
        let folder = "ext/waybill/region=eu-central-1/accountId=123456789012/eventDay=";
        let (day, file) = name.strip_prefix(folder).unwrap().split_once('/').unwrap();
        assert!(file.ends_with(".zst.parquet"), "{file}");
        let mut last = 0;
        for batch in parquet(&bytes) {
            *days.entry(day.to_owned()).or_default() += batch.num_rows();
            let times = batch.column_by_name("time").unwrap().as_primitive::<arrow::datatypes::Int64Type>();
            for row in 0..times.len() {
                assert!(times.value(row) >= last, "rows are in the order of their time");
                last = times.value(row);
                let time = chrono::DateTime::from_timestamp_millis(last).unwrap();
                assert_eq!(time.format("%Y%m%d").to_string(), day);
            }
        }
    }
    let in_lake = query(&lake, "SELECT event_date AS day, count(*) AS n FROM file_events GROUP BY 1").await;
    let in_lake: BTreeMap<String, usize> = in_lake
        .iter()
        .map(|row| {
            (row["day"].as_str().unwrap().replace('-', ""), usize::try_from(row["n"].as_u64().unwrap()).unwrap())
        })
        .collect();
    assert_eq!(days, in_lake);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_risk_included_hold_and_another_export_is_refused() {
    let lake = lake(events(1..50)).await;
    let to = tempfile::tempdir().unwrap();
    let of = |text: &str| Export { query: Query::parse(text).unwrap(), ..export("ecs_email", Format::Ndjson) };
    let personal = of("risk.trusted is false and email.recipientDomains is other.example");
    let exported = run(&personal, &lake, to.path()).await.unwrap();
    assert_eq!(exported.rows, 24);
    let error = run(&of("file.category is Archive"), &lake, to.path()).await.unwrap_err();
    assert_eq!(error.code(), Code::Configuration);
    let empty = tempfile::tempdir().unwrap();
    for view in ["EmailEvents", "searches", "nothing"] {
        let error = run(&export(view, Format::Csv), &lake, empty.path()).await.unwrap_err();
        assert_eq!(error.code(), Code::QueryInvalid, "{view}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_evidence() {
    let lake = lake(events(1..10)).await;
    let to = tempfile::tempdir().unwrap();
    let engine = Engine::new(lake.clone(), Clock::default()).unwrap();
    let search = engine.search(&Asker::local("local:ann".to_owned(), Surface::Export)).await.unwrap();
    let target = Outlet::at(to.path().to_str().unwrap()).unwrap();
    export("events", Format::Parquet).run(&search, &target, noon()).await.unwrap();
    engine.close().await.unwrap();
    let statement = "SELECT count(*) FROM searches WHERE surface = 'export' AND who = 'local:ann' AND rows = 9";
    assert_eq!(count(&lake, statement).await, 1);
}
