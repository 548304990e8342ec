//! What the object store is asked: each request costs its way there, and money.

use std::sync::Arc;

use object_store::memory::InMemory;
use serde_json::json;
use uuid::Uuid;
use waybill::clock::Clock;
use waybill::event::FileEvent;
use waybill::lake::{Commit, Lake, Maintenance, Outbox, Writer};
use waybill::search::{Asker, Engine, Surface};

use crate::inner::store::{Failure, FaultyStore};
use crate::inner::{Tenant, count};
use crate::remote::{Asked, Remote};

const CONNECTION: Uuid = Uuid::from_u128(0xc0);

fn lake(store: &Remote) -> Lake {
    Lake::with_store("memory:///lake/", Arc::new(store.clone())).unwrap()
}

fn event(number: u128) -> FileEvent {
    let at = "2026-11-04T12:00:00Z";
    let row = json!({
        "event_id": Uuid::from_u128(number), "observed_at": at, "inserted_at": at, "hash_status": "hashed", "sha256": hash(number),
        "recipients": [], "recipient_domains": [], "connection_id": CONNECTION, "connection_name": "C", "to_recipients": [],
        "cc_recipients": [], "bcc_recipients": [], "file_category": "Document", "audit_record_ids": [], "run_id": "r",
    });
    serde_json::from_value(row).unwrap()
}

fn hash(number: u128) -> String {
    format!("{number:064x}")
}

async fn open(lake: &Lake) -> Writer {
    lake.writer::<()>(CONNECTION, Uuid::from_u128(1)).await.unwrap().0
}

async fn commit(writer: &mut Writer, number: u128) {
    let rows = (number * 10..number * 10 + 10).map(event).collect();
    writer.commit(Commit { rows, replaces: Vec::new(), outbox: Outbox::default(), state: () }).await.unwrap();
}

/// Danger: a slice costs more the older the log and the longer the run, and a far store slows every run down.
/// Provoked: a writer commits slice after slice of one day to a lake with a past.
#[tokio::test]
async fn each_slice_costs_the_same_few_requests_and_reads_no_data_file() {
    let store = Remote::new();
    let lake = lake(&store);
    lake.create().await.unwrap();
    for number in 0..30 {
        commit(&mut open(&lake).await, number).await;
    }
    let mut writer = open(&lake).await;
    commit(&mut writer, 30).await;
    let mut slices = Vec::new();
    for number in 31..36 {
        store.take();
        commit(&mut writer, number).await;
        let Asked { requests, .. } = store.take();
        slices.push(requests);
    }
    // Read is the footer of the new file, for its tag; listed is the log; written are the file, the checkpoint and the log's
    // entry.
    assert_eq!(slices, [[1, 0, 1, 3, 0]; 5], "GET, HEAD, LIST, PUT, DELETE");
}

/// Danger: a run that finds nothing, as most of a night's are, opens its tables one after the other and more than once, and
/// waits for a far store longer than it works.
/// Provoked: a run after another one, whose row it looks for.
#[tokio::test]
async fn a_run_that_finds_nothing_opens_each_table_once() {
    let store = Remote::new();
    let lake = lake(&store);
    lake.create().await.unwrap();
    let tenant = Tenant::new();
    for hour in 1..4 {
        tenant.run(&lake).await.unwrap();
        tenant.clock.set(tenant.at(60 * hour));
    }
    store.take();
    tenant.run(&lake).await.unwrap();
    // Of `file_events` and of `runs` the last checkpoint's name, the log's listing and its four entries; the run's checkpoint.
    // Whether there is something new in `file_events`, before the run's row is made and before it is committed, and in `runs`.
    // Then the run's checkpoint, its row's file and an entry in either log.
    assert_eq!(store.take().requests, [11, 3, 2, 4, 0], "GET, HEAD, LIST, PUT, DELETE");
}

/// Danger: a commit that stands is called failed, since the checkpoint of the log that was due after it could not be written.
/// Provoked: the store fails at that write.
#[tokio::test]
async fn a_commit_stands_without_the_checkpoint_of_the_log_that_was_due() {
    let memory = Arc::new(InMemory::new());
    let undisturbed = Lake::with_store("memory:///lake/", Arc::<InMemory>::clone(&memory)).unwrap();
    undisturbed.create().await.unwrap();
    // The creation is version 0, and a checkpoint is due after version 19.
    for number in 0..18 {
        commit(&mut open(&undisturbed).await, number).await;
    }
    // After the run's checkpoint, the file and the log's entry.
    let store = FaultyStore::new(memory, 4, Failure::Before);
    let disturbed = Lake::with_store("memory:///lake/", Arc::<FaultyStore>::clone(&store)).unwrap();
    commit(&mut open(&disturbed).await, 18).await;
    assert!(store.writes() >= 4, "no checkpoint of the log was due");
    for number in 19..22 {
        commit(&mut open(&undisturbed).await, number).await;
    }
    assert_eq!(count(&undisturbed, "SELECT count(DISTINCT event_id) FROM file_events").await, 220);
}

/// Danger: a look-up asks a far store again and again: for the parts of the log's checkpoint, for a page index at each query, for
/// filters that were asked already.
/// Provoked: a look-up by a new engine, and the same once more.
#[tokio::test]
async fn a_look_up_asks_for_each_thing_once_and_for_less_the_second_time() {
    let store = Remote::new();
    let lake = lake(&store);
    lake.create().await.unwrap();
    for number in 0..30 {
        commit(&mut open(&lake).await, number).await;
    }
    lake.maintain(&[CONNECTION], Maintenance::default()).await.unwrap();
    let engine = Engine::new(lake, Clock::default()).unwrap();
    let asker = Asker::local("test".to_owned(), Surface::Shell);
    let statement = format!("SELECT event_id FROM file_events WHERE sha256 = '{}'", hash(155));
    let mut looks = Vec::new();
    for _ in 0..2 {
        store.take();
        let search = engine.search(&asker).await.unwrap();
        let batches = search.sql(&statement).await.unwrap().collect().await.unwrap();
        assert_eq!(batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 1);
        looks.push(store.take().requests);
    }
    // The last checkpoint's name, the log's listing, that checkpoint, the filter, the footer with the page index, the hashes and
    // the ids. Then: whether there is a newer version, the hashes and the ids.
    assert_eq!(looks, [[6, 0, 1, 0, 0], [2, 1, 0, 0, 0]], "GET, HEAD, LIST, PUT, DELETE");
}
