//! The object store: how often it is asked by a run, by maintenance and by a query, and what 30 ms for each request cost.
//!
//! See `benches/README.md`. The store is one in this process, so that latency is all that tells the two halves of a line apart.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use support::remote::{Asked, KINDS, Remote};
use support::{Tenant, machine, number, spread, table};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use waybill::clock::Clock;
use waybill::event::FileEvent;
use waybill::lake::{Commit, Lake, Maintenance, Outbox, Shard};
use waybill::monitor::Progress;
use waybill::run::{self, Job};
use waybill::search::{Asker, Engine, Surface};
use waybill::secret::SecretPlace;
use waybill::source::memory::Memory;
use waybill::source::microsoft365::{Cloud, Credential, Microsoft365, Overrides, Settings};
use waybill::source::{Application, Scope, Source};

/// What the program uses too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Time that a request to the store takes.
const LATENCY: Duration = Duration::from_millis(30);

/// The goal: a run takes at most so much longer.
const RUN_MAX: f64 = 1.1;

/// The goal: the first look-up of a hash takes at most this.
const LOOK_UP_MAX_MS: f64 = 300.0;

const URL: &str = "memory:///lake/";

/// The connection whose hourly runs made the lake.
const CONNECTION: Uuid = Uuid::from_u128(0xc0);

/// Hourly commits of the lake.
const HOURS: usize = 7 * 24;

/// Rows of each.
const ROWS: usize = 200;

/// A step without and with latency.
struct Step {
    name: String,
    near: Measured,
    far: Measured,
}

struct Measured {
    asked: Asked,
    ms: f64,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let base = Remote::new();
    runtime.block_on(fill(&base));
    let near = runtime.block_on(steps(&base.copy()));
    let far = base.copy();
    far.set_latency(LATENCY);
    let far = runtime.block_on(steps(&far));
    let steps: Vec<Step> = near.into_iter().zip(far).map(|((name, near), (_, far))| Step { name, near, far }).collect();
    let mut head = vec![String::new(), "requests".to_owned()];
    head.extend(KINDS.map(str::to_owned));
    head.extend(["KB read", "KB written", "ms", "ms far away", "one after the other", "goal"].map(str::to_owned));
    let mut rows = vec![head];
    for Step { name, near, far } in &steps {
        let Asked { requests, read, written } = far.asked;
        let mut row = vec![name.clone(), far.asked.all().to_string()];
        row.extend(requests.map(|count| count.to_string()));
        row.extend([(read / 1024).to_string(), (written / 1024).to_string()]);
        row.extend([format!("{:.0}", near.ms), format!("{:.0}", far.ms)]);
        row.push(format!("{:.1}", (far.ms - near.ms).max(0.0) / LATENCY.as_secs_f64() / 1e3));
        row.push(if name.starts_with("a hash, cold") {
            verdict(far.ms < LOOK_UP_MAX_MS, "300 ms")
        } else {
            String::new()
        });
        rows.push(row);
    }
    let title = format!(
        "Requests to the store, and {LATENCY:?} for each; {HOURS} hourly commits of {ROWS} rows; {}",
        machine()
    );
    table(&title, &rows);
    whole_runs(&runtime);
}

/// A lake as a week of hourly runs leaves it.
async fn fill(store: &Remote) {
    let lake = lake(store);
    lake.create().await.expect("the lake is made");
    for hour in 0..HOURS {
        let (mut writer, _) =
            lake.writer::<()>(CONNECTION, Uuid::from_u128(hour as u128)).await.expect("the lake opens");
        let rows = (0..ROWS).map(|row| event(hour * ROWS + row)).collect();
        let commit = Commit { rows, replaces: Vec::new(), outbox: Outbox::default(), state: () };
        writer.commit(commit).await.expect("it is committed");
    }
}

fn lake(store: &Remote) -> Lake {
    Lake::with_store(URL, Arc::new(store.clone())).expect("a lake's URL")
}

/// Event `index`, `ROWS` of them in each hour of November.
fn event(index: usize) -> FileEvent {
    let at = chrono::DateTime::from_timestamp(1_793_491_200 + (index / ROWS * 3_600 + index % ROWS) as i64, 0);
    let at = at.expect("a time of this century");
    let row = json!({
        "event_id": Uuid::from_u64_pair(0x77, index as u64 * 0x9E37_79B9), "observed_at": at, "inserted_at": at,
        "hash_status": "hashed", "sha256": format!("{index:064x}"), "md5": format!("{index:032x}"),
        "sender": format!("user{:04}@contoso.example", index % 500), "recipients": [format!("to{}@partner.example", index % 997)],
        "file_name": format!("Report {index}.pdf"), "file_size_bytes": index, "recipient_domains": ["partner.example"],
        "connection_id": CONNECTION, "connection_name": "bench", "to_recipients": [], "cc_recipients": [],
        "bcc_recipients": [], "file_category": "Pdf", "audit_record_ids": [Uuid::from_u128(index as u128)], "run_id": "bench",
    });
    serde_json::from_value(row).expect("a row")
}

/// Does everything once, and tells what each took.
async fn steps(store: &Remote) -> Vec<(String, Measured)> {
    let mut steps = Vec::new();
    let mut step = |name: &str, began: Instant| {
        let ms = began.elapsed().as_secs_f64() * 1e3;
        steps.push((name.to_owned(), Measured { asked: store.take(), ms }));
    };
    let hash = format!("{:064x}", HOURS * ROWS / 2);
    let look_up = format!("SELECT event_id, sender FROM file_events WHERE sha256 = '{hash}'");
    let per_day = "SELECT event_date, count(*), sum(file_size_bytes) FROM file_events GROUP BY event_date";
    for (state, look_up_name, per_day_name) in [
        ("before", "a hash, cold", "per day, cold"),
        ("after", "a hash, cold, after maintenance", "per day, cold, after maintenance"),
    ] {
        if state == "after" {
            store.take();
            let began = Instant::now();
            lake(store).maintain(&[CONNECTION], Maintenance::default()).await.expect("the lake is maintained");
            step("maintenance", began);
        }
        // The slices that are committed in between begin another day.
        let days = HOURS / 24 + usize::from(state == "after");
        for (name, statement, expected) in [(look_up_name, look_up.as_str(), 1), (per_day_name, per_day, days)] {
            store.take();
            let began = Instant::now();
            let engine = Engine::new(lake(store), Clock::default()).expect("an engine");
            assert_eq!(ask(&engine, statement).await, expected, "{statement}");
            step(name, began);
            let began = Instant::now();
            assert_eq!(ask(&engine, statement).await, expected, "{statement}");
            step(&name.replace("cold", "again"), began);
        }
        if state == "before" {
            let lake = lake(store);
            store.take();
            let began = Instant::now();
            let (mut writer, _) = lake.writer::<()>(CONNECTION, Uuid::from_u128(0xff)).await.expect("the lake opens");
            step("a run's state is opened", began);
            for name in ["a slice is committed", "the next slice is committed"] {
                let first = HOURS * ROWS + if name.starts_with("the next") { ROWS } else { 0 };
                let rows = (first..first + ROWS).map(event).collect();
                let commit = Commit { rows, replaces: Vec::new(), outbox: Outbox::default(), state: () };
                let began = Instant::now();
                writer.commit(commit).await.expect("it is committed");
                step(name, began);
            }
            for name in ["a first run that finds nothing", "a run that finds nothing"] {
                let began = Instant::now();
                let source = Memory::new(Clock::default());
                run::run(job(Uuid::from_u128(0x7e)), Arc::new(source), &lake).await.expect("it runs");
                step(name, began);
            }
        }
    }
    steps
}

async fn ask(engine: &Engine, statement: &str) -> usize {
    let asker = Asker::local("bench".to_owned(), Surface::Shell);
    let search = engine.search(&asker).await.expect("a search");
    let batches = search.sql(statement).await.expect("it can be asked").collect().await.expect("it is answered");
    batches.iter().map(arrow::array::RecordBatch::num_rows).sum()
}

/// A run of another connection than the one that made the lake.
fn job(tenant_id: Uuid) -> Job {
    let connection_id = Uuid::from_u128(0xc1);
    Job {
        connection_id,
        connection_name: "bench".to_owned(),
        tenant_id,
        shard: Shard::whole(connection_id),
        scope: Scope::All,
        since: Clock::default().now() - chrono::Duration::days(2),
        authorized: None,
        owed_only: false,
        clock: Clock::default(),
        interrupt: CancellationToken::new(),
        progress: Arc::new(Progress::default()),
    }
}

/// Whole runs over a tenant, with a near and with a far store in turn.
fn whole_runs(runtime: &tokio::runtime::Runtime) {
    let messages = number("WAYBILL_BENCH_STORED", 30_000);
    let tenant =
        Tenant::start(&format!("users=64,messages={messages},days=1,seed=1,sends=1,attachments=1,size=20k"), &[]);
    // Its newest record is of this second, which is not over when a run begins in it: it would be the next run's.
    std::thread::sleep(Duration::from_secs(2));
    let scratch = TempDir::new().expect("a scratch directory");
    let secret = scratch.path().join("secret");
    std::fs::write(&secret, tenant.told("client_secret")).expect("a file in the scratch directory");
    let (mut near, mut far, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut asked = Asked::default();
    let mut commits = 0;
    for _ in 0..number("WAYBILL_BENCH_TIMES", 3) {
        let mut seconds = [Duration::ZERO, LATENCY].into_iter().map(|latency| {
            let store = Remote::new();
            let lake = lake(&store);
            runtime.block_on(lake.create()).expect("the lake is made");
            store.set_latency(latency);
            store.take();
            let source = Arc::new(source(&tenant, SecretPlace::File(secret.clone())));
            let tenant_id = tenant.told("tenant_id").parse().expect("an id");
            let began = Instant::now();
            let report = runtime.block_on(run::run(job(tenant_id), source, &lake)).expect("it runs");
            let seconds = began.elapsed().as_secs_f64();
            assert_eq!(report.events, messages as u64, "{report:?}");
            (asked, commits) = (store.take(), report.commits);
            seconds
        });
        let (one, other) = (seconds.next().expect("two"), seconds.next().expect("two"));
        near.push(one);
        far.push(other);
        ratios.push(other / one);
    }
    let ratio = spread(ratios);
    let rows = [
        ["", "s", "s far away", "far : near", "goal", "requests", "commits", "MB read", "MB written"]
            .map(str::to_owned)
            .to_vec(),
        vec![
            format!("a run of {messages} attachments of 20 KB"),
            spread(near).text(2),
            spread(far).text(2),
            ratio.text(2),
            verdict(ratio.median < RUN_MAX, "1.10"),
            asked.all().to_string(),
            commits.to_string(),
            format!("{:.1}", asked.read as f64 / 1e6),
            format!("{:.1}", asked.written as f64 / 1e6),
        ],
    ];
    table("Whole runs", &rows);
}

fn source(tenant: &Tenant, secret: SecretPlace) -> impl Source {
    let mut overrides = Overrides::default();
    for name in ["login", "graph", "activity"] {
        overrides.set(name, tenant.told(name)).expect("an endpoint");
    }
    let id = |name: &str| tenant.told(name).parse().expect("an id");
    Microsoft365::new(Settings {
        application: Application { tenant_id: id("tenant_id"), client_id: id("client_id") },
        credential: Credential::Secret(secret),
        cloud: Cloud::Worldwide,
        overrides,
        clock: Clock::default(),
    })
    .expect("a client")
}

fn verdict(is_reached: bool, goal: &str) -> String {
    format!("< {goal}: {}", if is_reached { "reached" } else { "MISSED" })
}
