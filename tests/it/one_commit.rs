//! Promise 2: rows and checkpoint become visible together or not at all, whichever write of a run fails.

use std::sync::Arc;

use object_store::memory::InMemory;
use waybill::lake::Lake;
use waybill::run::State;
use waybill::source::UnreadableRecord;
use waybill::source::memory::Record;

use crate::inner::store::{Failure, FaultyStore};
use crate::inner::{Tenant, actual, count, expected};

const URL: &str = "memory:///lake/";

fn scripted() -> (Tenant, Vec<(u32, Vec<&'static str>)>) {
    let tenant = Tenant::new();
    let sends = vec![(1, vec!["a.txt", "a.txt"]), (2, vec!["b.pdf"]), (3, vec![])];
    for (number, names) in &sends {
        tenant.source.publish(tenant.at(-10), tenant.send(*number, names));
    }
    let unreadable = UnreadableRecord { raw: "{\"Operation\":\"Send\"}".to_owned(), reason: "it has no id".to_owned() };
    tenant.source.publish(tenant.at(-9), Record::Unreadable(unreadable));
    (tenant, sends)
}

/// Danger: a crash or a lost answer between any two writes of a run loses rows, doubles them, or moves the checkpoint
/// past them. Provoked: each write of a run in turn fails in each way; then undisturbed runs follow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_write_fails_the_next_run_makes_it_good() {
    for failure in [Failure::Before, Failure::After, Failure::HangBefore, Failure::HangAfter] {
        for nth in 1.. {
            let (tenant, sends) = scripted();
            let memory = Arc::new(InMemory::new());
            Lake::with_store(URL, Arc::<InMemory>::clone(&memory)).unwrap().create().await.unwrap();
            let store = FaultyStore::new(Arc::clone(&memory), nth, failure);
            let disturbed = Lake::with_store(URL, Arc::<FaultyStore>::clone(&store)).unwrap();
            tokio::select! {
                _ = tenant.run(&disturbed) => {}
                () = store.hung.notified() => {}
            }
            let was_disturbed = store.writes() >= nth;
            let lake = Lake::with_store(URL, memory).unwrap();
            assert_visible_together(&lake, &sends, nth, failure).await;
            for _ in 0..2 {
                tenant.run(&lake).await.unwrap();
            }
            let case = format!("{failure:?} at write {nth}");
            assert_eq!(actual(&lake).await, expected(&sends), "{case}");
            assert_eq!(count(&lake, "SELECT count(*) FROM quarantine").await, 1, "{case}");
            assert_eq!(
                count(&lake, "SELECT count(*) - count(DISTINCT run_id) FROM runs").await,
                0,
                "a run is one row: {case}"
            );
            assert_eq!(count(&lake, "SELECT sum(events) FROM runs").await, 3, "{case}");
            if !was_disturbed {
                assert!(nth > 5, "a run writes more than {nth} objects");
                break;
            }
        }
    }
}

/// Either nothing of the first commit is there, or all of it is.
async fn assert_visible_together(lake: &Lake, sends: &[(u32, Vec<&str>)], nth: u64, failure: Failure) {
    let connection = Tenant::new().job(false).connection_id;
    let rows = actual(lake).await;
    match lake.checkpoint::<State>(connection).await.unwrap() {
        None => assert!(rows.is_empty(), "{failure:?} at write {nth}: rows without their checkpoint"),
        Some(checkpoint) => {
            assert_eq!(rows, expected(sends), "{failure:?} at write {nth}: a checkpoint without its rows");
            assert!(checkpoint.state.windows.iter().all(|open| open.listed));
        }
    }
}

/// Danger: two runs of one connection both commit, and one checkpoint overwrites the other's.
/// Provoked: the first hangs in its commit to `file_events`; the second runs through; the first is let go by a retry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_runs_at_once_one_commits_and_the_other_changes_nothing() {
    let (tenant, sends) = scripted();
    let memory = Arc::new(InMemory::new());
    let lake = Lake::with_store(URL, Arc::<InMemory>::clone(&memory)).unwrap();
    lake.create().await.unwrap();
    let (one, other) = tokio::join!(tenant.run(&lake), tenant.run(&lake));
    let codes: Vec<_> = [&one, &other].iter().filter_map(|run| run.as_ref().err().map(|error| error.code())).collect();
    assert!(codes.len() <= 1 && codes.iter().all(|code| code.as_str() == "run-in-progress"), "{codes:?}");
    tenant.run(&lake).await.unwrap();
    assert_eq!(actual(&lake).await, expected(&sends));
    assert_eq!(count(&lake, "SELECT count(*) FROM quarantine").await, 1);
}
