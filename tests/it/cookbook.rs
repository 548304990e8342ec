//! Every query of `docs/cookbook.md` runs, and finds something in a lake that has something to find.

use std::collections::BTreeMap;

use chrono::Duration;
use uuid::Uuid;
use waybill::clock::Clock;
use waybill::event::{FileEvent, HashStatus};
use waybill::lake::Lake;
use waybill::search::{Asker, Engine, Surface};

use crate::inner::query;
use crate::risk::{event, fill, lake, noon};
use crate::support::tools::{is_offline, python};

/// Questions to which no row is the usual answer.
const MAY_BE_EMPTY: [&str; 1] = ["23. Is anything missing?"];

fn page() -> BTreeMap<String, String> {
    let page = include_str!("../../docs/cookbook.md");
    let sections = page.split("\n## ").skip(1);
    sections
        .map(|section| {
            let statement = section.split("```sql\n").nth(1).unwrap().split("```").next().unwrap();
            (section.lines().next().unwrap().to_owned(), statement.to_owned())
        })
        .collect()
}

/// Something to find for each question.
fn events() -> Vec<FileEvent> {
    let ann = "ann@contoso.example";
    let same = |number: u128, of: u128, event: FileEvent| FileEvent {
        event_id: Uuid::from_u128(number).to_string(),
        sha256: Some(format!("{of:064x}")),
        md5: Some(format!("{of:032x}")),
        ..event
    };
    let mut rows = vec![
        event(1, ann, &["bob@partner.example"], noon()),
        same(2, 1, event(2, "eve@contoso.example", &["eve@gmail.com"], noon() + Duration::hours(1))),
        FileEvent {
            file_name: Some("holiday.jpg".to_owned()),
            file_category: "Archive".to_owned(),
            mime_type_by_bytes: Some("application/zip".to_owned()),
            mime_type_by_extension: Some("image/jpeg".to_owned()),
            ..event(3, ann, &["bob@partner.example", "carl@other.example"], noon() + Duration::hours(9))
        },
        FileEvent {
            bcc_recipients: vec!["dora@other.example".to_owned()],
            from_address: Some("office@contoso.example".to_owned()),
            ..event(4, ann, &["bob@partner.example"], noon() - Duration::days(60))
        },
        FileEvent {
            hash_status: HashStatus::Unavailable,
            hash_error: Some("message-missing: it is gone".to_owned()),
            sha256: None,
            md5: None,
            ..event(5, ann, &["bob@partner.example"], noon())
        },
    ];
    rows.push(FileEvent { file_name: Some("other name.pdf".to_owned()), ..same(6, 1, rows[0].clone()) });
    // One day of much after many of little.
    rows.extend((10..20).map(|day: i64| {
        event(100 + day.unsigned_abs() as u128, ann, &["bob@partner.example"], noon() - Duration::days(day))
    }));
    rows.push(FileEvent {
        file_size_bytes: Some(9_000_000),
        ..event(200, ann, &["bob@partner.example"], noon() - Duration::days(5))
    });
    rows
}

/// Asks it something, so that somebody searched.
async fn asked(lake: &Lake) {
    let engine = Engine::new(lake.clone(), Clock::default()).unwrap();
    let search = engine.search(&Asker::local("local:test".to_owned(), Surface::Shell)).await.unwrap();
    search.sql("SELECT 1").await.unwrap().collect().await.unwrap();
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_of_the_cookbook_finds_what_it_is_for() {
    let lake = lake(events()).await;
    asked(&lake).await;

    let page = page();
    assert_eq!(page.len(), 25);
    for (name, statement) in page {
        let found = query(&lake, &statement).await;
        assert_eq!(found.is_empty(), MAY_BE_EMPTY.contains(&name.as_str()), "{name}: {found:?}");
    }
}

/// Danger: a statement that is called portable means something else elsewhere. Provoked: a distributed engine reads the same
/// tables (`tests/clients/spark.py`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_distributed_engine_answers_the_portable_questions_alike() {
    if is_offline() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().to_str().unwrap();
    let lake = Lake::at(url).unwrap();
    fill(&lake, events()).await;
    asked(&lake).await;
    python("spark.py", &[url]);
}
