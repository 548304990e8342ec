//! Speed: a run against what this machine can do at most, both measured in turn in one invocation.
//!
//! See `benches/README.md`.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use md5::Md5;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::peer::Python;
use support::{Ran, Spread, Tenant, encoded, is_full, json as body, machine, number, own_cpu, spread, table};
use waybill::digest::Hasher;

/// What the program uses too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The goal: this part of the lower limit.
const GOAL: f64 = 0.9;

/// Requests at once of the load generator: what a run begins with.
const AT_ONCE: usize = 32;

/// Users of the tenant, so that the limit of 4 requests at once per mailbox does not bind.
const USERS: usize = 64;

/// What a run asks a message for; the same here, so that the tenant's work is the same.
const FIND: &str = "$select=id,internetMessageId,subject,from,sender,toRecipients,ccRecipients,bccRecipients,sentDateTime,isDraft,parentFolderId&$expand=attachments($select=id,name,contentType,size,isInline,lastModifiedDateTime)&$top=25";

struct Shape {
    name: &'static str,
    /// What each attachment has; the generator's own mix without it.
    size: Option<u64>,
    messages: usize,
    /// Of a message, on average.
    attachments: f64,
}

/// One repetition of one shape.
struct Repetition {
    asked: Asked,
    asked_hashed: Asked,
    ran: Ran,
    ran_tenant: Duration,
    job: Job,
}

/// What the job in Python needed.
struct Job {
    wall: Duration,
    cpu: Duration,
}

impl Job {
    /// Lets it do what a run does, without what makes a run one that can be trusted (`benches/asyncio_job.py`).
    fn run(python: &mut Python, tenant: &Tenant, attachments: usize) -> Self {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let names = ["login", "graph", "activity", "tenant_id", "client_id", "client_secret"];
        let mut told: serde_json::Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), json!(tenant.told(name)))).collect();
        told.insert("folder".to_owned(), json!(scratch.path().join("table")));
        let told = python.ask(&Value::Object(told));
        assert_eq!(told["attachments"], json!(attachments), "{told}");
        let seconds = |name: &str| Duration::from_secs_f64(told[name].as_f64().expect("it tells its times"));
        Self { wall: seconds("seconds"), cpu: seconds("cpu") }
    }
}

fn main() {
    let times = number("WAYBILL_BENCH_TIMES", if is_full() { 7 } else { 3 });
    let more = if is_full() { 3 } else { 1 };
    let of_size = |name, size, messages| Shape { name, size: Some(size), messages: messages * more, attachments: 1.0 };
    let mut shapes = vec![
        of_size("20 KB", 20_000, 20_000),
        of_size("500 KB", 500_000, 4_000),
        of_size("25 MB", 25_000_000, 100),
        Shape { name: "a mix of 0 to 300 KB", size: None, messages: 8_000 * more, attachments: 1.5 },
    ];
    if let Ok(only) = std::env::var("WAYBILL_BENCH_ONLY") {
        shapes.retain(|shape| shape.name.contains(&only));
    }
    let before = machine();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut python = Python::start("asyncio_job.py", &[]);

    let empty = Tenant::start(&format!("users={USERS},messages=0,days=1,seed=1"), &[]);
    let fixed: Vec<Ran> = (0..times).map(|_| empty.run()).collect();
    drop(empty);
    let fixed_wall = spread(fixed.iter().map(|ran| ran.wall.as_secs_f64()));
    let fixed_cpu = spread(fixed.iter().map(|ran| ran.cpu.as_secs_f64()));

    let mut rows = vec![row(&[
        "attachments of",
        "run, 1/s",
        "run, MB/s",
        "load generator, 1/s",
        "run : load generator",
        "both digests, one core, MB/s",
        "run : digests",
        "of the lower limit",
        "load generator that hashes, 1/s",
        "run : it",
        "job in Python, 1/s",
        "run : job",
    ])];
    let mut costs = vec![row(&[
        "CPU per attachment",
        "run, µs",
        "load generator, µs",
        "one that hashes, µs",
        "job in Python, µs",
        "tenant under run, µs",
        "under generator, µs",
    ])];
    let mut hashing = Vec::new();
    for shape in &shapes {
        let Shape { name, size, messages, attachments } = *shape;
        let sized = size.map(|size| format!(",size={size}")).unwrap_or_default();
        let generate =
            format!("users={USERS},messages={messages},days=1,seed=1,sends=1,attachments={attachments}{sized}");
        let tenant = Tenant::start(&generate, &["--blob-records", "1000"]);
        let targets = Arc::new(runtime.block_on(Targets::of(&tenant)));
        assert_eq!(targets.messages.len(), messages, "the tenant's messages");
        let attachments: usize = targets.messages.iter().map(|message| message.values.len()).sum();
        let mut repetitions = Vec::new();
        for _ in 0..times {
            hashing.push(Hashing::measure());
            let asked = runtime.block_on(ask(&tenant, &targets, false));
            let tenant_before = tenant.cpu();
            let ran = tenant.run();
            let ran_tenant = tenant.cpu() - tenant_before;
            assert_eq!(ran.count("hashed"), attachments as u64, "{}", ran.report);
            if let Some(size) = size {
                assert_eq!(ran.count("events"), messages as u64, "{}", ran.report);
                assert_eq!(ran.count("bytes_hashed"), messages as u64 * size, "{}", ran.report);
            }
            let asked_hashed = runtime.block_on(ask(&tenant, &targets, true));
            let job = Job::run(&mut python, &tenant, attachments);
            repetitions.push(Repetition { asked, asked_hashed, ran, ran_tenant, job });
        }
        let count = attachments as f64;
        let total = repetitions[0].ran.count("bytes_hashed") as f64;
        let one_core = spread(hashing.iter().map(|hashing| hashing.both)).median;
        let net = |ran: &Ran| ran.wall.as_secs_f64() - fixed_wall.median;
        let of = |value: &dyn Fn(&Repetition) -> f64| spread(repetitions.iter().map(value));
        let run = of(&|one| count / net(&one.ran));
        let bytes = of(&|one| total / net(&one.ran) / 1e6);
        let asked = of(&|one| count / one.asked.wall.as_secs_f64());
        let to_asked = of(&|one| one.asked.wall.as_secs_f64() / net(&one.ran));
        let to_digests = of(&|one| total / net(&one.ran) / 1e6 / one_core);
        let hashed = of(&|one| count / one.asked_hashed.wall.as_secs_f64());
        let to_hashed = of(&|one| one.asked_hashed.wall.as_secs_f64() / net(&one.ran));
        let job = of(&|one| count / one.job.wall.as_secs_f64());
        // Both with what they need before and after, which the job's interpreter does not pay for.
        let to_job = of(&|one| one.job.wall.as_secs_f64() / one.ran.wall.as_secs_f64());
        let share = to_asked.median.max(to_digests.median);
        rows.push(vec![
            name.to_owned(),
            run.text(0),
            bytes.text(0),
            asked.text(0),
            to_asked.text(2),
            format!("{one_core:.0}"),
            to_digests.text(2),
            format!("{:.0} %: {}", share * 100.0, if share >= GOAL { "reached" } else { "MISSED" }),
            hashed.text(0),
            to_hashed.text(2),
            job.text(0),
            to_job.text(2),
        ]);
        let each = |value: &dyn Fn(&Repetition) -> f64| of(&|one| value(one) / count * 1e6).text(0);
        costs.push(vec![
            name.to_owned(),
            each(&|one| one.ran.cpu.as_secs_f64() - fixed_cpu.median),
            each(&|one| one.asked.cpu.as_secs_f64()),
            each(&|one| one.asked_hashed.cpu.as_secs_f64()),
            each(&|one| one.job.cpu.as_secs_f64()),
            each(&|one| one.ran_tenant.as_secs_f64()),
            each(&|one| one.asked.tenant.as_secs_f64()),
        ]);
    }

    let of = |value: fn(&Hashing) -> f64| -> Spread { spread(hashing.iter().map(value)) };
    table(
        &format!("This machine's digests, MB/s ({before})"),
        &[
            row(&["MD5, one core", "SHA-256, one core", "both, one core", "both, all cores"]),
            vec![
                of(|hashing| hashing.md5).text(0),
                of(|hashing| hashing.sha256).text(0),
                of(|hashing| hashing.both).text(0),
                of(|hashing| hashing.all_cores).text(0),
            ],
        ],
    );
    table(
        &format!(
            "`waybill run` against the lower limit, without its fixed costs ({times} times, median, least..greatest)"
        ),
        &rows,
    );
    table("Where the time goes", &costs);
    table(
        "Fixed costs of a run: start, token, listing, commit (an empty tenant)",
        &[row(&["s", "CPU s"]), vec![fixed_wall.text(2), fixed_cpu.text(2)]],
    );
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

/// What the digests reach on memory, MB/s.
struct Hashing {
    md5: f64,
    sha256: f64,
    both: f64,
    all_cores: f64,
}

impl Hashing {
    fn measure() -> Self {
        const BYTES: usize = 256 << 20;
        /// As the network brings them.
        const PIECE: usize = 256 << 10;
        let memory: Vec<u8> = (0..4_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let memory = memory.as_slice();
        let pieces = || memory.chunks(PIECE).cycle().take(BYTES / PIECE);
        let rate = |bytes: usize, began: Instant| bytes as f64 / began.elapsed().as_secs_f64() / 1e6;
        let both = || {
            let mut hasher = Hasher::new();
            pieces().for_each(|piece| hasher.update(piece));
            std::hint::black_box(hasher.finish());
        };
        let began = Instant::now();
        let mut md5 = Md5::new();
        pieces().for_each(|piece| md5.update(piece));
        std::hint::black_box(md5.finalize());
        let md5 = rate(BYTES, began);
        let began = Instant::now();
        let mut sha256 = Sha256::new();
        pieces().for_each(|piece| sha256.update(piece));
        std::hint::black_box(sha256.finalize());
        let sha256 = rate(BYTES, began);
        let began = Instant::now();
        both();
        let one_core = rate(BYTES, began);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let began = Instant::now();
        std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(both))));
        Self { md5, sha256, both: one_core, all_cores: rate(BYTES * cores, began) }
    }
}

/// What the load generator asks for.
struct Targets {
    client: reqwest::Client,
    token: String,
    messages: Vec<Target>,
}

struct Target {
    internet_message_id: String,
    find: String,
    values: Vec<String>,
}

impl Targets {
    /// Signs in and looks all messages up, before anything is timed.
    async fn of(tenant: &Tenant) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let token = tenant.sign_in(&client, "https://graph.microsoft.com").await;
        let mut targets = Self { client, token, messages: Vec::new() };
        for user in tenant.users() {
            let user = format!("{}/v1.0/users/{}/messages", tenant.told("graph"), encoded(&user));
            let mut next =
                Some(format!("{user}?$select=id,internetMessageId&$expand=attachments($select=id)&$top=100"));
            while let Some(url) = next {
                let page = body(targets.get(&url).await).await;
                for message in page["value"].as_array().expect("messages") {
                    targets.messages.push(Target::of(&user, message));
                }
                next = page["@odata.nextLink"].as_str().map(str::to_owned);
            }
        }
        // A run meets the users in turn.
        targets.messages.sort_by(|a, b| a.internet_message_id.cmp(&b.internet_message_id));
        targets
    }

    async fn get(&self, url: &str) -> reqwest::Response {
        let answer =
            self.client.get(url).bearer_auth(&self.token).header("prefer", "IdType=\"ImmutableId\"").send().await;
        let answer = answer.expect("the tenant answers");
        assert!(answer.status().is_success(), "{url}: {}", answer.status());
        answer
    }
}

impl Target {
    fn of(user: &str, message: &Value) -> Self {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let id = text(&message["id"]);
        let internet_message_id = text(&message["internetMessageId"]);
        let filter = encoded(&format!("internetMessageId eq '{internet_message_id}'"));
        let values = message["attachments"].as_array().expect("attachments").iter();
        let values = values.map(|one| format!("{user}/{id}/attachments/{}/$value", text(&one["id"]))).collect();
        Self { internet_message_id, find: format!("{user}?$filter={filter}&{FIND}"), values }
    }
}

/// What the load generator needed.
struct Asked {
    wall: Duration,
    cpu: Duration,
    tenant: Duration,
}

/// Asks for each message and for the bytes of its attachments, as a run has to, and drops what comes.
async fn ask(tenant: &Tenant, targets: &Arc<Targets>, hashes: bool) -> Asked {
    let (cpu, tenant_cpu, began) = (own_cpu(), tenant.cpu(), Instant::now());
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let workers: Vec<_> = (0..number("WAYBILL_BENCH_GENERATOR", AT_ONCE))
        .map(|_| {
            let (targets, next) = (Arc::clone(targets), Arc::clone(&next));
            tokio::spawn(async move {
                while let Some(target) = targets.messages.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    drop(targets.get(&target.find).await.bytes().await.expect("a message"));
                    for url in &target.values {
                        let mut answer = targets.get(url).await;
                        let mut hasher = Hasher::new();
                        while let Some(bytes) = answer.chunk().await.expect("an attachment") {
                            if hashes {
                                hasher.update(&bytes);
                            }
                        }
                        std::hint::black_box(hasher.finish());
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("a worker ends well");
    }
    Asked { wall: began.elapsed(), cpu: own_cpu() - cpu, tenant: tenant.cpu() - tenant_cpu }
}
