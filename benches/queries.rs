//! Forensic Search against DuckDB on the same Parquet files: every query of the cookbook, and the looks-ups of an incident.
//!
//! See `benches/README.md`. The peer is DuckDB in a process of its own (`benches/duckdb_peer.py`), which reads the data files
//! that the table's present version names; both sides are warm, and take turns.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use support::duckdb::DuckDb;
use support::events::{Events, LAKE_DAYS, address, data_files, hash};
use support::peer::Python;
use support::{machine, number, own_cpu_exactly, spread, table};
use waybill::clock::Clock;
use waybill::error::Result;
use waybill::event::schema::TableName;
use waybill::search::{Asker, Engine, QueryMemory, Surface};

/// The program's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The questions of an incident, beside the cookbook's.
const QUESTIONS: [(&str, &str); 5] = [
    ("a hash", "SELECT event_id, sender, recipients FROM file_events WHERE sha256 = '{sha256}'"),
    (
        "twenty hashes",
        "SELECT sha256, count(*) AS n FROM file_events WHERE sha256 IN ({hashes}) GROUP BY sha256 ORDER BY sha256",
    ),
    (
        "a sender's week",
        "SELECT observed_at, file_name, recipients FROM file_events WHERE sender = '{sender}' \
         AND event_date BETWEEN DATE '{from}' AND DATE '{to}' ORDER BY observed_at",
    ),
    (
        "the newest 100",
        "SELECT event_id, observed_at, sender, file_name FROM file_events ORDER BY observed_at DESC LIMIT 100",
    ),
    (
        "per day",
        "SELECT event_date, count(*) AS n, sum(file_size_bytes) AS bytes FROM file_events GROUP BY event_date ORDER BY event_date",
    ),
];

fn main() {
    let rows = number("WAYBILL_BENCH_ROWS", 1_000_000);
    let rounds = number("WAYBILL_BENCH_ROUNDS", 5);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let (lake, folder) = support::events::lake(&runtime, rows, scratch.path());
    let files = runtime.block_on(data_files(&lake, &folder, TableName::FileEvents));
    let bytes: u64 = files.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|file| file.len()).sum();
    let mut peer = DuckDb::start();
    peer.table(TableName::FileEvents, &files);
    // As at a shell, unless something else is said.
    let memory = match number("WAYBILL_BENCH_MEMORY_MB", 0) {
        0 => QueryMemory::alone(),
        megabytes => QueryMemory::of_mb(megabytes as u64),
    };
    let engine = runtime.block_on(async { Engine::with_memory(lake.clone(), Clock::default(), memory) });
    let engine = engine.expect("an engine");

    let mut sail = (number("WAYBILL_BENCH_SAIL", 0) > 0).then(|| Sail::start(&folder));

    let head = ["query", "rows", "waybill ms", "duckdb ms", "waybill / duckdb", "cpu"].into_iter();
    let mut lines = vec![head.chain(sail.iter().map(|_| "sail ms")).map(str::to_owned).collect::<Vec<_>>()];
    let mut medians = Vec::new();
    for (name, statement) in questions(rows) {
        for table in [TableName::Gaps, TableName::Searches] {
            if statement.contains(&format!("FROM {table}")) {
                runtime.block_on(engine.close()).expect("the searches until now are written");
                peer.table(table, &runtime.block_on(data_files(&lake, &folder, table)));
            }
        }
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        let mut cpu = [Duration::ZERO; 2];
        let mut answer = 0;
        let mut failed = None;
        for round in 0..=rounds {
            let before = own_cpu_exactly();
            let (own, count) = match runtime.block_on(ask(&engine, &statement)) {
                Ok(answered) => answered,
                Err(error) => {
                    failed = Some(format!("waybill: {error}"));
                    break;
                }
            };
            let own_cpu = own_cpu_exactly().saturating_sub(before);
            // The first round warms both.
            if round > 0 {
                ours.push(own.as_secs_f64() * 1e3);
                cpu[0] += own_cpu;
            }
            match peer.ask(&statement) {
                Ok((other, other_cpu, others)) => {
                    if count != others {
                        failed = Some(format!("{count} rows, and the peer has {others}"));
                    }
                    if round > 0 {
                        theirs.push(other.as_secs_f64() * 1e3);
                        cpu[1] += other_cpu;
                    }
                }
                Err(error) => failed = Some(error),
            }
            answer = count;
        }
        if let Some(why) = failed {
            let own = if ours.is_empty() { String::new() } else { spread(ours).text(1) };
            lines.push(vec![name, answer.to_string(), own, String::new(), why]);
            continue;
        }
        let ratios = spread(ours.iter().zip(&theirs).map(|(own, other)| own / other));
        medians.push(ratios.median);
        let line = vec![
            name,
            answer.to_string(),
            spread(ours).text(1),
            spread(theirs).text(1),
            ratios.text(2),
            format!("{:.2}", cpu[0].as_secs_f64() / cpu[1].as_secs_f64()),
        ];
        lines.push(line.into_iter().chain(sail.as_mut().map(|sail| sail.ask(&statement))).collect());
    }
    let mean = (medians.iter().map(|ratio| ratio.ln()).sum::<f64>() / medians.len() as f64).exp();
    lines.push(vec![
        format!("geometric mean of {}", medians.len()),
        String::new(),
        String::new(),
        String::new(),
        format!("{mean:.2}"),
    ]);
    let title = format!("{rows} rows, {} files, {} MB; {}", files.len(), bytes >> 20, machine());
    table(&title, &lines);
}

/// The incident's questions with values that the lake holds, then the cookbook's queries.
fn questions(rows: usize) -> Vec<(String, String)> {
    let value = |index: usize| hash(index % rows, 64);
    let hashes: Vec<String> = (0..20).map(|index| format!("'{}'", value(index * 7919))).collect();
    let day = |back: usize| Events { rows, days: LAKE_DAYS }.first_day() + chrono::Days::new((LAKE_DAYS - back) as u64);
    let fill = |text: &str| {
        text.replace("{sha256}", &value(rows / 2))
            .replace("{hashes}", &hashes.join(", "))
            .replace("{sender}", &address(17))
            .replace("{from}", &day(27).to_string())
            .replace("{to}", &day(20).to_string())
    };
    let mut questions: Vec<_> = QUESTIONS.iter().map(|(name, text)| ((*name).to_owned(), fill(text))).collect();
    let only = std::env::var("WAYBILL_BENCH_ONLY").ok();
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cookbook.md"));
    for section in page.unwrap_or_default().split("\n## ").skip(1) {
        let name = section.lines().next().unwrap_or_default().to_owned();
        for block in section.split("```sql\n").skip(1) {
            let statement = block.split("```").next().unwrap_or_default().trim().trim_end_matches(';');
            questions.push((name.clone(), with_values(statement, rows)));
        }
    }
    questions.retain(|(name, _)| only.as_ref().is_none_or(|only| name.contains(only.as_str())));
    questions
}

/// The cookbook's examples of values, replaced by some that the lake holds.
fn with_values(statement: &str, rows: usize) -> String {
    let example = |digits: usize, number: usize| format!("{number:0digits$}");
    let mut statement =
        statement.replace("ann@contoso.example", &address(17)).replace("eve@contoso.example", &address(4));
    for number in 1..=2 {
        for digits in [64, 32] {
            statement = statement.replace(&example(digits, number), &hash(rows / 3 * number, digits));
        }
    }
    statement
}

async fn ask(engine: &Engine, statement: &str) -> Result<(Duration, usize)> {
    let began = Instant::now();
    let search = engine.search(&Asker::local("bench".to_owned(), Surface::Shell)).await?;
    let batches = search.sql(statement).await?.collect().await?;
    Ok((began.elapsed(), batches.iter().map(arrow::array::RecordBatch::num_rows).sum()))
}

/// Sail in processes of its own (`benches/sail_peer.py`), which reads the table's log itself.
struct Sail(Python);

impl Sail {
    fn start(lake: &Path) -> Self {
        let mut python = Python::start("sail_peer.py", &[]);
        let folder = lake.join(TableName::FileEvents.as_str());
        let told = python.ask(&json!({"table": TableName::FileEvents.as_str(), "folder": folder}));
        assert!(told["error"].is_null(), "{told}");
        Self(python)
    }

    /// The time of the second answer in milliseconds, or why there is none.
    fn ask(&mut self, statement: &str) -> String {
        self.0.ask(&json!({"statement": statement}));
        let told = self.0.ask(&json!({"statement": statement}));
        match told["seconds"].as_f64() {
            Some(seconds) => format!("{:.0}", seconds * 1e3),
            None => told["error"].as_str().unwrap_or_default().chars().take(30).collect(),
        }
    }
}
