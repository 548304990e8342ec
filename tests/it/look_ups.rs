//! A look-up by hash reads little, however many days the lake has, and finds what is there, whoever wrote the file.

use std::sync::Arc;

use chrono::Duration;
use futures::TryStreamExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use serde_json::{Value, json};
use uuid::Uuid;
use waybill::event::FileEvent;
use waybill::event::schema::TableName;
use waybill::lake::{Commit, Lake, Maintenance};
use waybill::search::Search;

use crate::inner::store::{Failure, FaultyStore};
use crate::risk::{event, noon};

const URL: &str = "memory:///lake/";

const LOG: &str = "lake/file_events/_delta_log";

/// Events, one for each number; five on each day.
fn events(numbers: std::ops::Range<u128>) -> Vec<FileEvent> {
    let at = |number| noon() - Duration::days(i64::try_from(number / 5).unwrap());
    numbers.map(|number| event(number, "ann@contoso.example", &["bob@partner.example"], at(number))).collect()
}

async fn lake(store: &Arc<InMemory>, commits: &[std::ops::Range<u128>]) -> Lake {
    let lake = Lake::with_store(URL, Arc::clone(store) as _).unwrap();
    lake.create().await.unwrap();
    for numbers in commits {
        let (mut writer, _) = lake.writer::<Value>(Uuid::from_u128(1), Uuid::from_u128(4)).await.unwrap();
        let rows = events(numbers.clone());
        let commit = Commit { rows, replaces: Vec::new(), outbox: Default::default(), state: json!({}) };
        writer.commit(commit).await.unwrap();
    }
    lake
}

async fn found(search: &Search, column: &str, value: &str) -> usize {
    let statement = format!("SELECT event_id FROM file_events WHERE {column} = '{value}'");
    search.sql(&statement).await.unwrap().objects().await.unwrap().len()
}

/// Which of the events are found by their hashes; all of them, one by one.
async fn assert_found(lake: &Lake, numbers: std::ops::Range<u128>) {
    let search = Search::open(lake).await.unwrap();
    for number in numbers {
        assert_eq!(found(&search, "sha256", &format!("{number:064x}")).await, 1, "sha256 of {number}");
        assert_eq!(found(&search, "md5", &format!("{number:032x}")).await, 1, "md5 of {number}");
        assert_eq!(found(&search, "sha256", &format!("f{number:063x}")).await, 0, "no event has it");
    }
}

async fn have_places(lake: &Lake) -> Vec<bool> {
    let files = lake.table(TableName::FileEvents).await.unwrap().files().await.unwrap();
    files.iter().map(|file| file.bloom_places.is_some()).collect()
}

async fn log(store: &InMemory) -> Vec<Path> {
    let listing: Vec<_> = store.list(Some(&Path::from(LOG))).try_collect().await.unwrap();
    listing.into_iter().map(|object| object.location).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_up_reads_few_bytes_however_many_days_there_are() {
    let mut read = Vec::new();
    for days in [10, 100] {
        let memory = Arc::new(InMemory::new());
        lake(&memory, &[0..days * 4, days * 4..days * 5]).await;
        let store = FaultyStore::new(memory, 0, Failure::Before);
        let lake = Lake::with_store(URL, Arc::clone(&store) as _).unwrap();
        for value in [format!("{:064x}", days * 3), "f".repeat(64)] {
            let search = Search::open(&lake).await.unwrap();
            store.bytes_read();
            assert_eq!(found(&search, "sha256", &value).await, usize::from(value.starts_with('0')));
            read.push(store.bytes_read());
            // What was read of the filters is kept.
            assert_eq!(found(&search, "sha256", &"e".repeat(64)).await, 0);
            assert_eq!(store.bytes_read(), 0);
        }
    }
    let [present, absent, present_in_more, absent_in_more] = read[..] else { panic!("four look-ups: {read:?}") };
    // 90 files more, with a filter of 64 rows at most.
    assert!(present_in_more < present + 90 * 256 && absent_in_more < absent + 90 * 256, "{read:?}");
    assert!(absent_in_more <= 100 * 256, "{read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_says_where_the_filters_are_after_merges_and_from_its_checkpoint() {
    let store = Arc::new(InMemory::new());
    let lake = lake(&store, &[0..8, 8..13, 13..20]).await;
    assert_eq!(have_places(&lake).await, [true; 6]);
    lake.maintain(&[], Maintenance::default()).await.unwrap();
    assert_eq!(have_places(&lake).await, [true; 4]);
    for path in log(&store).await {
        if path.extension() == Some("json") && path.filename() < Some("00000000000000000005.json") {
            store.delete(&path).await.unwrap();
        }
    }
    assert!(log(&store).await.iter().any(|path| path.as_ref().ends_with("checkpoint.parquet")));
    assert_eq!(have_places(&lake).await, [true; 4]);
    assert_found(&lake, 0..20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_which_the_log_does_not_say_it_are_searched_all_the_same() {
    let store = Arc::new(InMemory::new());
    let lake = lake(&store, &[0..8, 8..13]).await;
    for path in log(&store).await {
        let text = store.get(&path).await.unwrap().bytes().await.unwrap();
        let lines = std::str::from_utf8(&text).unwrap().lines().map(|line| {
            let mut action: Value = serde_json::from_str(line).unwrap();
            if let Some(add) = action.get_mut("add") {
                add.as_object_mut().unwrap().remove("tags").unwrap();
            }
            action.to_string() + "\n"
        });
        store.put(&path, lines.collect::<String>().into()).await.unwrap();
    }
    assert_eq!(have_places(&lake).await, [false; 4]);
    assert_found(&lake, 0..13).await;
    // Some with and some without.
    let (mut writer, _) = lake.writer::<Value>(Uuid::from_u128(1), Uuid::from_u128(4)).await.unwrap();
    let commit = Commit { rows: events(13..17), replaces: Vec::new(), outbox: Default::default(), state: json!({}) };
    writer.commit(commit).await.unwrap();
    assert_found(&lake, 0..17).await;
    lake.maintain(&[], Maintenance::default()).await.unwrap();
    assert_found(&lake, 0..17).await;
}
