//! What the object store is asked: each request costs its way there, and money.

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;
use waybill::event::FileEvent;
use waybill::lake::{Commit, Lake, Outbox, Writer};

use crate::remote::{Asked, Remote};

const CONNECTION: Uuid = Uuid::from_u128(0xc0);

fn lake(store: &Remote) -> Lake {
    Lake::with_store("memory:///lake/", Arc::new(store.clone())).unwrap()
}

fn event(number: u128) -> FileEvent {
    let at = "2026-11-04T12:00:00Z";
    let row = json!({
        "event_id": Uuid::from_u128(number), "observed_at": at, "inserted_at": at, "hash_status": "hashed",
        "recipients": [], "recipient_domains": [], "connection_id": CONNECTION, "connection_name": "C", "to_recipients": [],
        "cc_recipients": [], "bcc_recipients": [], "file_category": "Document", "audit_record_ids": [], "run_id": "r",
    });
    serde_json::from_value(row).unwrap()
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
    assert_eq!(slices, [[1, 0, 3, 3, 0]; 5], "GET, HEAD, LIST, PUT, DELETE");
}
