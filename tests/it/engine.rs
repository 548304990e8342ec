//! What everybody who asks shares: the record of searches, policies, limits, and what nobody may ask.

use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use waybill::clock::Clock;
use waybill::error::Code;
use waybill::lake::Lake;
use waybill::search::{Asker, Engine, Policy, QueryMemory, Surface};

use crate::inner::store::{Failure, FaultyStore};
use crate::inner::{Tenant, count, noon, query};

async fn lake() -> Lake {
    let lake = Lake::with_store("memory:///lake/", Arc::new(InMemory::new())).unwrap();
    lake.create().await.unwrap();
    let tenant = Tenant::new();
    for number in 1..=3 {
        tenant.source.publish(tenant.at(-10), tenant.send(number, &["a.txt", "b.txt"]));
    }
    tenant.run(&lake).await.unwrap();
    lake
}

fn engine(lake: &Lake) -> Engine {
    with_memory(lake, 256)
}

/// An engine whose queries get so many megabytes, whatever machine this is.
fn with_memory(lake: &Lake, megabytes: u64) -> Engine {
    Engine::with_memory(lake.clone(), Clock::manual(noon()), QueryMemory::of_mb(megabytes)).unwrap()
}

fn asker(surface: Surface) -> Asker {
    let address = Some("192.0.2.7".to_owned());
    Asker { who: "ann@contoso.example".to_owned(), surface, address, policy: Arc::default() }
}

fn limited(policy: Policy) -> Asker {
    Asker { policy: Arc::new(policy), ..asker(Surface::Postgres) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_search_is_on_record_however_it_ended() {
    let lake = lake().await;
    let engine = engine(&lake);
    let search = engine.search(&asker(Surface::Flight)).await.unwrap();
    search.sql("SELECT file_name FROM file_events").await.unwrap().collect().await.unwrap();
    search.sql("SELECT nothing FROM file_events").await.unwrap_err();
    search.sql("DROP TABLE file_events").await.unwrap_err();
    drop(search.sql("SELECT * FROM generate_series(1, 1000000)").await.unwrap());
    search
        .sql("SELECT 1 / (file_size_bytes - file_size_bytes) FROM file_events")
        .await
        .unwrap()
        .collect()
        .await
        .unwrap_err();
    engine.close().await.unwrap();
    let rows = query(
        &lake,
        "SELECT who, surface, address, statement, outcome, code, rows, policy FROM searches ORDER BY statement",
    )
    .await;
    let shown: Vec<String> = rows
        .iter()
        .map(|row| {
            assert_eq!((&row["who"], &row["surface"]), (&"ann@contoso.example".into(), &"flight".into()));
            assert_eq!(row["address"], "192.0.2.7");
            format!("{} {} {} {}", row["statement"], row["outcome"], row["code"], row["rows"])
        })
        .collect();
    assert_eq!(
        shown,
        [
            r#""DROP TABLE file_events" "refused" "query-refused" 0"#,
            r#""SELECT * FROM generate_series(1, 1000000)" "cancelled" null 0"#,
            r#""SELECT 1 / (file_size_bytes - file_size_bytes) FROM file_events" "failed" "query-invalid" 0"#,
            r#""SELECT file_name FROM file_events" "done" null 6"#,
            r#""SELECT nothing FROM file_events" "failed" "query-invalid" 0"#,
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_recorded_yet_is_recorded_later_and_once() {
    let memory = Arc::new(InMemory::new());
    Lake::with_store("memory:///lake/", Arc::clone(&memory) as _).unwrap().create().await.unwrap();
    let faulty = FaultyStore::new(Arc::clone(&memory), 1, Failure::Before);
    let lake = Lake::with_store("memory:///lake/", faulty).unwrap();
    let engine = engine(&lake);
    let search = engine.search(&asker(Surface::Shell)).await.unwrap();
    search.sql("SELECT 1").await.unwrap().collect().await.unwrap();
    engine.close().await.unwrap_err();
    assert_eq!(count(&lake, "SELECT count(*) FROM searches").await, 0);
    engine.close().await.unwrap();
    engine.close().await.unwrap();
    assert_eq!(count(&lake, "SELECT count(*) FROM searches").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_sees_one_version_and_the_next_one_what_came_since() {
    let lake = lake().await;
    let engine = engine(&lake);
    let rows = async |search: &waybill::search::Search| {
        let batches = search.sql("SELECT event_id FROM file_events").await.unwrap().collect().await.unwrap();
        batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>()
    };
    let before = engine.search(&asker(Surface::Shell)).await.unwrap();
    assert_eq!(rows(&before).await, 6);
    let tenant = Tenant::new();
    tenant.source.publish(tenant.at(-5), tenant.send(9, &["late.txt"]));
    tenant.run(&lake).await.unwrap();
    assert_eq!(rows(&before).await, 6);
    assert_eq!(rows(&engine.search(&asker(Surface::Shell)).await.unwrap()).await, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hidden_values_are_nothing_and_no_filter_finds_them() {
    let lake = lake().await;
    let engine = engine(&lake);
    let policy = Policy { hidden_columns: vec!["subject".to_owned(), "sha256".to_owned()], ..Policy::default() };
    let search = engine.search(&limited(policy)).await.unwrap();
    let ask = async |statement: &str| search.sql(statement).await.unwrap().objects().await.unwrap();
    for statement in [
        "SELECT count(*) AS n FROM file_events WHERE subject IS NOT NULL",
        "SELECT count(*) AS n FROM file_events WHERE subject LIKE 'subject%'",
        "SELECT count(*) AS n FROM file_events WHERE sha256 > '0'",
        "SELECT count(subject) AS n FROM file_events",
        "SELECT count(*) AS n FROM (SELECT * FROM file_events) e JOIN file_events f ON e.subject = f.subject",
    ] {
        assert_eq!(ask(statement).await[0]["n"], 0, "{statement}");
    }
    assert_eq!(ask("SELECT count(md5) AS n FROM file_events").await[0]["n"], 6);
    // Raw records and other people's searches would show what is hidden.
    for table in ["quarantine", "searches", "changes", "scope_members"] {
        let error = search.sql(&format!("SELECT * FROM {table}")).await.unwrap_err();
        assert_eq!(error.code(), Code::QueryInvalid, "{table}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_other_connections_are_not_there() {
    let lake = lake().await;
    let engine = engine(&lake);
    let count = async |connections: &[&str], statement: &str| {
        let connections = Some(connections.iter().map(|name| (*name).to_owned()).collect());
        let search = engine.search(&limited(Policy { connections, ..Policy::default() })).await.unwrap();
        search.sql(statement).await.unwrap().objects().await.unwrap()[0]["n"].as_i64().unwrap()
    };
    let all = "SELECT count(*) AS n FROM file_events";
    assert_eq!(count(&["memory"], all).await, 6);
    assert_eq!(count(&["00000000-0000-0000-0000-0000000000c0"], all).await, 6);
    assert_eq!(count(&["other"], all).await, 0);
    assert_eq!(count(&[], all).await, 0);
    assert_eq!(count(&["other"], "SELECT count(*) AS n FROM file_events WHERE connection_name = 'memory'").await, 0);
    assert_eq!(count(&["other"], "SELECT count(*) AS n FROM runs").await, 0);
}

/// Danger: a statement that takes the machine's memory or time. Each of these is refused or ends with a clear error, and
/// the engine answers the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_take_the_machine_is_stopped() {
    let lake = lake().await;
    let engine = engine(&lake);
    let search = engine.search(&asker(Surface::Postgres)).await.unwrap();
    let long = format!("SELECT '{}'", "x".repeat(2_000_000));
    let deep = format!("SELECT {}1{}", "(".repeat(20_000), ")".repeat(20_000));
    let memory = format!("SELECT array_agg('{}' || value) FROM generate_series(1, 10000000000)", "x".repeat(1_000));
    for (statement, code) in [
        ("SELECT repeat('x', 2000000000)", Code::QueryInvalid),
        ("SELECT lpad('x', 2000000000)", Code::QueryInvalid),
        ("SELECT rpad('x', 2000000000, 'y')", Code::QueryInvalid),
        ("SELECT range(1, 100000000000)", Code::QueryInvalid),
        ("SELECT array_repeat('x', 1000000000)", Code::QueryInvalid),
        (&long, Code::QueryRefused),
        (&deep, Code::QueryRefused),
        (&memory, Code::QueryTooLarge),
        ("SELECT * FROM generate_series(1, 10000000000)", Code::QueryTooLarge),
    ] {
        let answer = async { search.sql(statement).await?.collect().await };
        let error = tokio::time::timeout(Duration::from_secs(100), answer).await.expect("it ends").unwrap_err();
        let shown = &statement[..statement.len().min(60)];
        assert_eq!(error.code(), code, "{shown}: {error}");
        assert!(error.to_string().len() < 1000, "{shown}: the message is {} bytes long", error.to_string().len());
        search.sql("SELECT count(*) FROM file_events").await.unwrap().collect().await.unwrap();
    }
}

/// Danger: a query takes more than it was given, or less although there is more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_gets_the_memory_that_it_was_given() {
    let lake = lake().await;
    // Some 200 MB that cannot go to disk.
    let statement =
        format!("SELECT cardinality(array_agg('{}' || value)) AS n FROM generate_series(1, 200000)", "x".repeat(1_000));
    for (megabytes, is_enough) in [(128, false), (2_048, true)] {
        let search = with_memory(&lake, megabytes).search(&asker(Surface::Shell)).await.unwrap();
        let answered = search.sql(&statement).await.unwrap().collect().await;
        let code = answered.map(drop).map_err(|error| error.code());
        assert_eq!(code, if is_enough { Ok(()) } else { Err(Code::QueryTooLarge) }, "{megabytes} MB");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_waits_for_a_place_is_told_to_come_back() {
    let lake = lake().await;
    let engine = engine(&lake);
    let search = engine.search(&asker(Surface::Console)).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..waybill::limits::QUERIES_AT_ONCE {
        held.push(search.sql("SELECT * FROM generate_series(1, 1000000)").await.unwrap());
    }
    let error = search.sql("SELECT 1").await.unwrap_err();
    assert_eq!(error.code(), Code::QueriesBusy, "{error}");
    drop(held.pop());
    search.sql("SELECT 1").await.unwrap().collect().await.unwrap();
}

/// Danger: a look-up by hash that opens every file of the lake.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_up_by_hash_opens_only_files_that_may_hold_it() {
    let lake = lake().await;
    let tenant = Tenant::new();
    tenant.source.publish(tenant.at(-5), tenant.send(20, &["later.txt"]));
    tenant.run(&lake).await.unwrap();
    let hash = query(&lake, "SELECT sha256 FROM file_events WHERE file_name = 'later.txt' LIMIT 1").await;
    let hash = hash[0]["sha256"].as_str().unwrap().to_owned();
    let engine = engine(&lake);
    let files = async |filter: &str| {
        let search = engine.search(&asker(Surface::Shell)).await.unwrap();
        let plan = search.sql(&format!("EXPLAIN SELECT event_id FROM file_events WHERE {filter}")).await.unwrap();
        let rows = plan.objects().await.unwrap();
        rows.iter().map(|row| row["plan"].as_str().unwrap().matches(".parquet").count()).sum::<usize>()
    };
    assert_eq!(files("file_name IS NOT NULL").await, 2);
    assert_eq!(files(&format!("sha256 = '{hash}'")).await, 1);
    assert_eq!(files(&format!("sha256 IN ('{hash}', '{}')", "0".repeat(64))).await, 1);
    assert_eq!(files(&format!("sha256 = '{}'", "0".repeat(64))).await, 0);
    assert_eq!(files(&format!("md5 = '{}' AND sha256 = '{hash}'", "0".repeat(32))).await, 0);
    // What follows from no equality rules nothing out.
    assert_eq!(files(&format!("sha256 = '{hash}' OR file_name = 'a.txt'")).await, 2);
    assert_eq!(files(&format!("sha256 <> '{}'", "0".repeat(64))).await, 2);
}

/// Danger: an aggregate whose state grows with its rows, where nothing can be written to disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_by_day_are_made_file_by_file_where_their_states_are_small() {
    let lake = lake().await;
    let engine = engine(&lake);
    for (columns, group, is_by_day) in [
        ("count(*), sum(file_size_bytes)", "event_date", true),
        ("avg(file_size_bytes), min(observed_at)", "event_date", true),
        ("count(DISTINCT sender)", "event_date", false),
        // Groups by day and size, which are then counted.
        ("count(DISTINCT file_size_bytes)", "event_date", true),
        ("array_agg(file_name)", "event_date", false),
        ("count(*) FILTER (WHERE is_inline)", "event_date", false),
        ("count(*), sum(file_size_bytes)", "sender, event_date, mime_type", true),
        ("count(DISTINCT sender)", "event_date, mime_type", false),
        ("max(file_name)", "event_date, mime_type", false),
        ("count(*)", "sender", false),
        ("count(*)", "date_trunc('month', event_date)", false),
        ("count(*)", "ROLLUP (event_date)", false),
    ] {
        let search = engine.search(&asker(Surface::Shell)).await.unwrap();
        let statement = format!("EXPLAIN SELECT {columns} FROM file_events GROUP BY {group}");
        let rows = search.sql(&statement).await.unwrap().objects().await.unwrap();
        let plans: Vec<&str> = rows.iter().filter_map(|row| row["plan"].as_str()).collect();
        assert_eq!(plans.concat().contains("ByDayExec"), is_by_day, "{statement}: {plans:?}");
    }
}

/// Danger: a statement so deep that planning it ends the stack, which no process survives. Tried on a stack as the program
/// has it, just below the limit and far above.
#[test]
fn a_deep_statement_is_planned_or_refused_and_never_the_end() {
    let tried = std::thread::Builder::new().stack_size(waybill::limits::STACK_BYTES).spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let lake = lake().await;
            let engine = engine(&lake);
            let search = engine.search(&asker(Surface::Flight)).await.unwrap();
            let most = waybill::limits::STATEMENT_DEPTH;
            for (first, link) in [
                ("SELECT 1", " + 1"),
                ("SELECT true", " OR true"),
                ("SELECT 'x'", " || 'x'"),
                ("SELECT 1", " UNION ALL SELECT 1"),
                ("SELECT 1 AS n", "::text"),
                ("SELECT ", "- "),
                ("SELECT ", "NOT "),
                ("SELECT count(*) FROM file_events WHERE file_name = 'x'", " OR file_name IS NULL"),
            ] {
                let end = if link.ends_with(' ') { "1" } else { "" };
                for links in [most / 2 - 1, most - 1, 50 * most] {
                    let statement = format!("{first}{}{end}", link.repeat(links));
                    let answer = async { search.sql(&statement).await?.collect().await };
                    match answer.await {
                        Ok(_) => assert!(links < most, "{first}{link} x {links}"),
                        Err(error) => {
                            let code = error.code();
                            let is_clear = matches!(code, Code::QueryRefused | Code::QueryInvalid);
                            assert!(is_clear && error.to_string().len() < 2_000, "{first}{link} x {links}: {code}");
                        }
                    }
                }
            }
            search.sql("SELECT 1").await.unwrap().collect().await.unwrap();
        });
    });
    tried.unwrap().join().unwrap();
}
