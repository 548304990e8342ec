//! Promise 8: whoever may query reads the published tables and nothing else.

use std::sync::Arc;

use object_store::memory::InMemory;
use waybill::error::Code;
use waybill::lake::Lake;
use waybill::search::Search;

use crate::inner::{Tenant, query};

async fn lake() -> Lake {
    let lake = Lake::with_store("memory:///lake/", Arc::new(InMemory::new())).unwrap();
    lake.create().await.unwrap();
    let tenant = Tenant::new();
    tenant.source.publish(tenant.at(-10), tenant.send(1, &["a.txt"]));
    tenant.run(&lake).await.unwrap();
    lake
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_is_no_query_is_refused() {
    let search = Search::open(&lake().await).await.unwrap();
    for statement in [
        "CREATE TABLE stolen AS SELECT * FROM file_events",
        "CREATE VIEW v AS SELECT 1",
        "CREATE EXTERNAL TABLE passwd STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE SCHEMA s",
        "DROP TABLE file_events",
        "DROP VIEW IF EXISTS v",
        "INSERT INTO file_events SELECT * FROM file_events",
        "DELETE FROM file_events",
        "UPDATE file_events SET subject = ''",
        "COPY file_events TO '/tmp/stolen.parquet'",
        "COPY (SELECT 1) TO 's3://elsewhere/x.csv'",
        "SET datafusion.runtime.memory_limit = '100G'",
        "RESET datafusion.runtime.memory_limit",
        "PREPARE p AS SELECT 1",
        "BEGIN",
        "EXPLAIN COPY (SELECT 1) TO '/tmp/x.csv'",
        "EXPLAIN ANALYZE INSERT INTO file_events SELECT * FROM file_events",
    ] {
        let refused = search.sql(statement).await.err().unwrap_or_else(|| panic!("`{statement}` was let through"));
        assert!(matches!(refused.code(), Code::QueryRefused | Code::QueryInvalid), "`{statement}`: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_file_and_no_url_can_be_read() {
    let search = Search::open(&lake().await).await.unwrap();
    for statement in [
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM \"/etc/passwd\"",
        "SELECT * FROM 'file:///etc/passwd'",
        "SELECT * FROM 'https://example.com/x.csv'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_parquet('/tmp/x.parquet')",
        "SELECT * FROM parquet_metadata('/etc/passwd')",
        "SELECT 1; SELECT 2",
    ] {
        let refused = search.sql(statement).await.err().unwrap_or_else(|| panic!("`{statement}` was let through"));
        assert_eq!(refused.code(), Code::QueryInvalid, "`{statement}`: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_and_columns_tell_about_themselves() {
    let lake = lake().await;
    let tables =
        query(&lake, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1").await;
    let names: Vec<&str> = tables.iter().filter_map(|row| row["table_name"].as_str()).collect();
    let views = names.iter().filter(|name| crate::views::VIEWS.contains(name)).count();
    assert_eq!(views, crate::views::VIEWS.len());
    let tables: Vec<&str> = names.into_iter().filter(|name| !crate::views::VIEWS.contains(name)).collect();
    assert_eq!(tables, ["changes", "events", "file_events", "gaps", "quarantine", "runs", "scope_members", "searches"]);
    assert_eq!(query(&lake, "DESCRIBE file_events").await[0]["column_name"], "event_id");
    assert_eq!(query(&lake, "SELECT file_name FROM file_events WHERE event_date = date '2026-11-02'").await.len(), 1);
    assert_eq!(
        query(&lake, "SELECT file_name FROM file_events WHERE observed_at < '2026-11-01T00:00:00Z'").await.len(),
        0
    );
}
