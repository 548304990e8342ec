//! Past one machine: the shards of a connection run beside each other, and together they are one run.

use std::sync::Arc;

use object_store::memory::InMemory;
use serde_json::Value;
use uuid::Uuid;
use waybill::connection::Layout;
use waybill::error::Code;
use waybill::lake::{Lake as Tables, Shard};
use waybill::run;
use waybill::source::UnreadableRecord;
use waybill::source::memory::{Call, Record};

use crate::inner::{Tenant as Inner, actual, count, expected, mailbox};
use crate::support::{Lake, Tenant, ended, repository};

const CONNECTION: Uuid = Uuid::from_u128(0xc0);

async fn tables() -> Tables {
    let lake = Tables::with_store("memory:///lake/", Arc::new(InMemory::new())).unwrap();
    lake.create().await.unwrap();
    lake
}

fn split(shards: u32) -> Layout {
    Layout::default().split(shards)
}

/// The shard that has message `number`.
fn shard_of(number: u32, shards: &[Shard]) -> &Shard {
    shards.iter().find(|shard| shard.has(&mailbox(number))).unwrap()
}

/// Danger: of many shards that commit at once, one loses each version to another and gives up. Provoked: 16 runs at
/// once, each of which commits to every table, several times over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_shards_at_once_all_commit() {
    let (tenant, lake) = (Inner::new(), tables().await);
    let sends: Vec<(u32, Vec<&str>)> = (0..16).map(|number| (number, vec!["a.txt"])).collect();
    let shards = split(16).shards(CONNECTION);
    for part in sends.chunks(8) {
        for (number, names) in part {
            tenant.source.publish(tenant.clock.now(), tenant.send(*number, names));
        }
        tenant.clock.set(tenant.clock.now() + chrono::Duration::minutes(61));
        let runs = shards.iter().map(|shard| {
            let (tenant, lake) = (tenant.of(shard), lake.clone());
            tokio::spawn(async move { tenant.run(&lake).await })
        });
        for run in futures::future::join_all(runs).await {
            assert_eq!(run.unwrap().unwrap().exit_code, 0);
        }
    }
    assert_eq!(actual(&lake).await, expected(&sends));
    assert_eq!(count(&lake, "SELECT count(DISTINCT shard) FROM runs").await, 16);
    assert_eq!(count(&lake, "SELECT sum(sends) FROM runs").await, 16);
    assert_eq!(tenant.source.calls(Call::Find), 16, "a message is asked for once, and not by each shard");
}

/// Danger: what was owed before a split is owed by nobody afterwards, or by two. Provoked: a message, a hash and a blob
/// are owed; then the connection is split, and joined again before everything heals.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_owed_goes_over_to_the_shard_of_its_mailbox() {
    let (tenant, lake) = (Inner::new(), tables().await);
    let sends: Vec<(u32, Vec<&str>)> = (0..6).map(|number| (number, vec!["a.txt", "b.pdf"])).collect();
    for (number, names) in &sends {
        tenant.source.publish(tenant.at(i64::from(*number) - 10), tenant.send(*number, names));
    }
    tenant.source.fail(Call::Find, 1, Code::ServiceUnavailable);
    tenant.source.fail(Call::Open, 2, Code::ServiceUnavailable);
    tenant.source.fail(Call::Read, 4, Code::ServiceUnavailable);
    let report = tenant.run(&lake).await.unwrap();
    let owed = report.owed;
    assert_eq!((owed.messages, owed.hashes, owed.blobs), (1, 1, 1), "the script owes one of each");

    let shards = split(3).shards(CONNECTION);
    let mut sums = (0, 0);
    for shard in &shards {
        let (number, state) = run::standing(&lake, shard).await.unwrap().unwrap();
        assert_eq!((number, state.owed.blobs.len()), (None, 1), "each shard reads the blob for its own mailboxes");
        sums = (sums.0 + state.owed.messages.len(), sums.1 + state.owed.hashes.len());
    }
    assert_eq!(sums, (1, 1), "the others are owed once");
    for shard in &shards {
        assert_eq!(tenant.of(shard).run(&lake).await.unwrap().exit_code, 0);
    }
    let joined = split(3).split(1).shards(CONNECTION);
    assert_eq!(tenant.of(&joined[0]).run(&lake).await.unwrap().exit_code, 0);
    assert_eq!(actual(&lake).await, expected(&sends));
    assert_eq!(count(&lake, "SELECT count(*) FROM file_events WHERE hash_status <> 'hashed'").await, 0);
}

/// Danger: a run that began before the split commits after it, and what it owes is owed by nobody. Provoked: a run of
/// the old layout after the first run of the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_from_before_the_split_changes_nothing() {
    let (tenant, lake) = (Inner::new(), tables().await);
    tenant.source.publish(tenant.at(-5), tenant.send(1, &["a.txt"]));
    // Nobody has run, so there is no state to take over; the one that might come is sealed all the same.
    let shards = split(2).shards(CONNECTION);
    tenant.of(shard_of(0, &shards)).run(&lake).await.unwrap();
    let runs = count(&lake, "SELECT count(*) FROM runs").await;
    assert_eq!(tenant.run(&lake).await.unwrap_err().code(), Code::RunInProgress);
    assert_eq!(count(&lake, "SELECT count(*) FROM runs").await, runs);
    for shard in &shards {
        tenant.of(shard).run(&lake).await.unwrap();
    }
    assert_eq!(actual(&lake).await, expected(&[(1, vec!["a.txt"])]));
}

/// Danger: what belongs to no mailbox is told by each shard, or by none. Provoked: a record that cannot be read, and a
/// time that the feed has forgotten for one shard only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_record_is_told_once_and_a_gap_by_the_shard_that_has_it() {
    let (tenant, lake) = (Inner::new(), tables().await);
    let unreadable = UnreadableRecord { raw: "{}".to_owned(), reason: "it has no id".to_owned() };
    tenant.source.publish(tenant.at(-5), Record::Unreadable(unreadable));
    let shards = split(3).shards(CONNECTION);
    for shard in &shards {
        let exit = if shard.is_first() { 3 } else { 0 };
        assert_eq!(tenant.of(shard).run(&lake).await.unwrap().exit_code, exit);
    }
    assert_eq!(count(&lake, "SELECT count(*) FROM quarantine").await, 1);
    for days in [4, 8] {
        tenant.clock.set(tenant.at(days * 24 * 60));
        for shard in shards.iter().filter(|shard| shard.number != 2) {
            tenant.of(shard).run(&lake).await.unwrap();
        }
    }
    assert_eq!(count(&lake, "SELECT count(*) FROM gaps").await, 0);
    assert_eq!(tenant.of(&shards[1]).run(&lake).await.unwrap().exit_code, 3);
    assert_eq!(count(&lake, "SELECT count(*) FROM gaps WHERE subject = 'shard 2/3'").await, 1);
    let by_others = "SELECT count(*) FROM changes c JOIN runs r ON c.run_id = r.run_id WHERE r.shard <> '1/3'";
    assert_eq!(count(&lake, by_others).await, 0, "one shard speaks for the connection");
}

const COLUMNS: &str = "event_id, observed_at, file_name, file_size_bytes, sha256, md5, hash_status, sender, from_address, \
     recipients, subject, internet_message_id, mailbox, attachment_kind, audit_operation, event_date";

/// What `schedule render` writes for four shards.
fn rendered(target: &str) -> String {
    let job = repository("jobs/hourly.toml");
    let mut words = vec!["schedule", "render", target, "--job", job.to_str().unwrap(), "--shards", "4"];
    words.extend(["--image", "registry.example/waybill:0.1.0"]);
    let output = crate::support::waybill().args(["--lake", "s3://bucket/lake"]).args(&words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Danger: processes beside each other lose, double or repeat each other's work. Provoked: the command line of the
/// rendered Kubernetes job and of the Airflow task, in four processes at once; two of them are killed and start again.
#[test]
fn four_processes_are_together_one_run() {
    let words = ["--generate", "users=12,messages=90,days=1,seed=5,sends=1", "--blob-records", "9"];
    let (tenant, whole, parts) = (Tenant::start(&words), Lake::temp(), Lake::temp());
    whole.add(&tenant, "mail", &[]);
    whole.run_done("mail");
    let finds = |report: &Value| report["requests"]["find"]["200"].as_u64().unwrap();
    let asked_by_one = finds(&tenant.report());

    parts.add(&tenant, "mail", &[]);
    parts.text(&["connection", "split", "mail", "--shards", "4"]);
    let manifest = rendered("kubernetes");
    assert!(manifest.contains("completionMode: Indexed") && manifest.contains("completions: 4"), "{manifest}");
    assert!(manifest.contains("\"$(JOB_COMPLETION_INDEX)/4\""), "{manifest}");
    let dag = rendered("airflow");
    assert!((1..=4).all(|shard| dag.contains(&format!("--shard {shard}/4 --output json"))), "{dag}");
    let job = repository("jobs/hourly.toml");
    let start = |index: u32| {
        let shard = format!("{index}/4");
        parts
            .command(&["run", "--job", job.to_str().unwrap(), "--output", "json", "--shard-index", &shard])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let runs: Vec<_> = (0..4).map(start).collect();
    let mut sends = 0;
    for run in runs {
        let (exit, report) = ended(&run.wait_with_output().unwrap());
        assert_eq!(exit, 0, "{report:#}");
        sends += report["runs"][0]["sends_met"].as_u64().unwrap();
        assert_eq!(report["maintained"], serde_json::json!([]));
    }
    assert_eq!(sends, 90);
    assert_eq!(finds(&tenant.report()) - asked_by_one, asked_by_one, "no message is asked for by two shards");
    let rows = |lake: &Lake| lake.sql(&format!("SELECT {COLUMNS} FROM file_events ORDER BY event_id"));
    assert!(!rows(&whole).is_empty());
    assert_eq!(rows(&parts), rows(&whole));
    assert_eq!(parts.count("SELECT count(DISTINCT shard) FROM runs"), 4);

    // Killed at any time, and the next processes make it good; without `--shard` one process does all.
    tenant.send(
        "From: u@contoso.example\nTo: x@elsewhere.example\nMessage-ID: <late@contoso.example>\nSubject: s\n\nx\n",
    );
    for milliseconds in [30, 150, 400] {
        let mut runs: Vec<_> = (0..4).map(start).collect();
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        for run in &mut runs {
            let _ = run.kill();
            run.wait().unwrap();
        }
    }
    let (exit, report) = parts.run("mail");
    assert_eq!((exit, report["runs"].as_array().unwrap().len()), (0, 4), "{report:#}");
    assert_eq!(parts.count("SELECT count(*) - count(DISTINCT event_id) FROM file_events"), 0);
    assert_eq!(parts.count("SELECT count(*) - count(DISTINCT run_id) FROM runs"), 0);
}

#[test]
fn a_shard_that_the_connection_does_not_have_is_refused() {
    let (tenant, lake) = (Tenant::corpus(), Lake::temp());
    lake.add(&tenant, "mail", &[]);
    let refused = |words: &[&str]| {
        let output = lake.output(words);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for shard in ["1/4", "0/1", "2/1", "x", "1/0"] {
        let (exit, text) = refused(&["run", "--connection", "mail", "--shard", shard]);
        assert_eq!(exit, Some(2), "{shard}: {text}");
    }
    let (_, text) = refused(&["run", "--connection", "mail", "--shard", "1/4"]);
    assert!(text.contains("is not split") && text.contains("connection split 'mail' --shards 4"), "{text}");
    for shards in ["0", "1", "33"] {
        assert_ne!(refused(&["connection", "split", "mail", "--shards", shards]).0, Some(0), "{shards}");
    }
    lake.text(&["connection", "split", "mail", "--shards", "4"]);
    let (exit, text) = refused(&["connection", "split", "mail", "--shards", "2"]);
    assert!(exit != Some(0) && text.contains("`waybill run --connection 'mail'` runs them all"), "{text}");

    // One shard that stands still is where the connection stands.
    assert_eq!(lake.output(&["run", "--connection", "mail", "--shard", "2/4"]).status.code(), Some(0));
    let shown: Value = serde_json::from_str(&lake.text(&["connection", "show", "mail", "--output", "json"])).unwrap();
    assert_eq!(shown["standing"]["last_run"], Value::Null);
    let shards = shown["standing"]["shards"].as_array().unwrap();
    assert_eq!(shards.iter().filter(|shard| !shard["last_run"].is_null()).count(), 1);
    let (exit, report) = lake.run("mail");
    assert_eq!((exit, report["exit_code"].as_i64()), (0, Some(0)), "{report:#}");
    let shown: Value = serde_json::from_str(&lake.text(&["connection", "show", "mail", "--output", "json"])).unwrap();
    assert_ne!(shown["standing"]["last_run"], Value::Null);
    lake.text(&["connection", "split", "mail", "--shards", "2"]);
    assert_eq!(lake.count("SELECT count(*) FROM changes WHERE action = 'split'"), 2);
    lake.text(&["maintain"]);
}
