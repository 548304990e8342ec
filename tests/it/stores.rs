//! The same lake on every kind of store: a folder, an S3 server (`moto`), and the emulator of Azure Storage (`azurite`).

use std::process::Stdio;

use serde_json::json;

use crate::support::tools::{Server, is_offline, python};
use crate::support::{Lake, Tenant, ended};

/// What a run writes that follows from the mails alone, and is the same in every lake.
const FACTS: &str = "SELECT event_id, file_name, file_size_bytes, sha256, md5, hash_status, sender, recipients, subject, \
    internet_message_id, mailbox, observed_at, event_date FROM file_events ORDER BY event_id";

/// Everything that is in the lake about files.
const ROWS: &str = "SELECT * FROM file_events ORDER BY event_id";

/// A bucket, and what reaches it.
struct Store {
    url: String,
    environment: Vec<(&'static str, String)>,
    _server: Server,
}

impl Store {
    fn s3() -> Self {
        let server = Server::start("moto_server", &["--host", "127.0.0.1", "--port", "0"]);
        python("make_container.py", &["s3", &server.url, "lakes"]);
        let environment = vec![
            ("AWS_ENDPOINT_URL", server.url.clone()),
            ("AWS_ACCESS_KEY_ID", "anybody".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "anything".to_owned()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ];
        Self { url: "s3://lakes".to_owned(), environment, _server: server }
    }

    fn azure() -> Self {
        let arguments =
            ["--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence", "--skipApiVersionCheck"];
        let server = Server::start("azurite_blob", &arguments);
        python("make_container.py", &["azure", &server.url, "lakes"]);
        let environment =
            vec![("AZURE_STORAGE_USE_EMULATOR", "true".to_owned()), ("AZURITE_BLOB_STORAGE_URL", server.url.clone())];
        Self { url: "az://lakes".to_owned(), environment, _server: server }
    }

    fn lake(&self, name: &str) -> Lake {
        let environment: Vec<_> = self.environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Lake::at(&format!("{}/{name}", self.url), &environment)
    }
}

/// Read twice, added to, merged, and asked: nothing lost, nothing doubled, and the same answers as anywhere else.
fn holds_a_lake(lake: &Lake) {
    let tenant = Tenant::corpus();
    lake.add(&tenant, "Test", &[]);
    let report = lake.run_done("Test");
    assert_eq!((&report["events"], &report["hashed"]), (&json!(35), &json!(35)), "{report:#}");
    let rows = lake.sql(ROWS);
    assert_eq!(rows.len(), 35);

    let report = lake.run_done("Test");
    assert_eq!((&report["events"], &report["gaps"]), (&json!(0), &json!(0)), "{report:#}");
    assert_eq!(lake.sql(ROWS), rows, "a second run changes nothing");

    for number in 1..=2 {
        tenant.send(&format!("From: a@corpus.example\nMessage-ID: <{number}@x>\nContent-Type: image/png\n\n{number}"));
        // A window ends with the last whole second.
        std::thread::sleep(std::time::Duration::from_secs(1));
        assert_eq!(lake.run_done("Test")["events"], 1);
    }
    let rows = lake.sql(ROWS);
    assert_eq!(rows.len(), 37);

    let report = lake.maintain();
    let merged = &report["tables"][0];
    let files = |when: &str| merged[when].as_u64().unwrap();
    assert_eq!(merged["table"], "file_events");
    assert!(files("files_after") < files("files_before"), "{report:#}");
    assert_eq!(lake.sql(ROWS), rows, "maintenance changes no row");
    assert_eq!(lake.run_done("Test")["events"], 0);
    assert_eq!(lake.sql(ROWS), rows);
    assert_eq!(lake.count("SELECT count(*) FROM runs"), 5);

    let folder = Lake::temp();
    folder.add(&tenant, "Test", &[]);
    folder.run_done("Test");
    assert_eq!(lake.sql(FACTS), folder.sql(FACTS), "a lake in a folder says the same");
}

/// Danger: runs that begin with the same state all commit. Provoked: each takes so long that the others begin before it
/// commits.
fn fences_runs(lake: &Lake) {
    let tenant = Tenant::corpus();
    lake.add(&tenant, "Test", &[]);
    tenant.faults(&json!([{"on": "attachment_value", "do": {"latency_ms": 1500}}]));
    let run = |_| lake.run_command("Test").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let outputs = [1, 2, 3].map(run).map(|child| child.wait_with_output().unwrap());
    let mut exits = outputs.each_ref().map(|output| ended(output).0);
    exits.sort_unstable();
    let told = outputs.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
    assert_eq!(exits, [0, 11, 11], "{told:#?}");
    let rows = lake.sql(ROWS);
    assert_eq!(rows.len(), 35);

    tenant.faults(&json!([]));
    assert_eq!(lake.run_done("Test")["events"], 0);
    assert_eq!(lake.sql(ROWS), rows, "what the others left behind means nothing");
    assert_eq!(lake.count("SELECT count(DISTINCT event_id) FROM file_events"), 35);
}

#[test]
fn a_folder_holds_a_lake() {
    holds_a_lake(&Lake::temp());
}

#[test]
fn an_s3_bucket_holds_a_lake() {
    if !is_offline() {
        holds_a_lake(&Store::s3().lake("a/lake"));
    }
}

#[test]
fn an_azure_container_holds_a_lake() {
    if !is_offline() {
        holds_a_lake(&Store::azure().lake("a/lake"));
    }
}

#[test]
fn of_several_runs_at_once_in_a_folder_one_commits() {
    fences_runs(&Lake::temp());
}

#[test]
fn of_several_runs_at_once_in_an_s3_bucket_one_commits() {
    if !is_offline() {
        fences_runs(&Store::s3().lake("lake"));
    }
}

#[test]
fn of_several_runs_at_once_in_an_azure_container_one_commits() {
    if !is_offline() {
        fences_runs(&Store::azure().lake("lake"));
    }
}

/// Danger: a store that overwrites whatever was there is taken for one that keeps writers apart.
#[test]
fn a_store_that_does_not_put_conditionally_is_refused() {
    if is_offline() {
        return;
    }
    let (store, tenant) = (Store::s3(), Tenant::corpus());
    let lake = store.lake("lake");
    lake.add(&tenant, "Test", &[]);
    let output = lake.run_command("Test").env("AWS_CONDITIONAL_PUT", "disabled").output().unwrap();
    let (exit, report) = ended(&output);
    assert_eq!((exit, &report["error"]["code"]), (1, &json!("lake-unavailable")), "{report:#}");
    assert_eq!(lake.count("SELECT count(*) FROM file_events"), 0);
    assert_eq!(lake.run_done("Test")["events"], 35);
}
