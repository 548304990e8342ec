//! What must stay flat while a lake grows: opening it, committing to it, and looking a hash up.
//!
//! See `benches/README.md`.

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use support::counted::{Asked, Counted};
use support::duckdb::DuckDb;
use support::events::{Events, data_files, hash};
use support::{is_full, machine, number, spread, table};
use uuid::Uuid;
use waybill::clock::Clock;
use waybill::event::schema::TableName;
use waybill::event::{Outcome, Run, RunKind};
use waybill::lake::{Commit, Lake, Maintenance, Outbox};
use waybill::search::{Asker, Engine, Surface};

/// The program's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Days of a year of runs.
const YEAR: usize = 365;

/// Commits of a day: one each hour.
const HOURS: usize = 24;

/// The days of which the curve has a line.
const SHOWN: [usize; 7] = [1, 7, 30, 90, 180, 270, YEAR];

/// Rows of one commit while the lake for look-ups is made: a day of 100 million a year, which needs no merging.
const ROWS_AT_ONCE: usize = 300_000;

const CONNECTION: Uuid = Uuid::from_u128(1);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn main() {
    let only = std::env::var("WAYBILL_BENCH_ONLY").unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let kept = std::env::var_os("WAYBILL_BENCH_LAKE").map(PathBuf::from);
    let folder = kept.unwrap_or_else(|| scratch.path().to_owned());
    if "hourly runs".contains(&only) {
        runtime.block_on(hourly_runs(&scratch.path().join("hourly")));
    }
    if "look-ups".contains(&only) {
        look_ups(&runtime, &folder);
    }
}

/// A year of hourly runs with maintenance once a day.
async fn hourly_runs(folder: &Path) {
    let days = number("WAYBILL_BENCH_DAYS", if is_full() { YEAR } else { 30 });
    let rows = number("WAYBILL_BENCH_COMMIT_ROWS", 100);
    let title = format!("{days} days of hourly runs, {rows} rows each; {}", machine());
    let events = Events { rows: days * HOURS * rows, days };
    let lake = Lake::at(folder.to_str().expect("a path in UTF-8")).expect("a path is a lake");
    lake.create().await.expect("the lake is made");
    shorten_a_week(folder);
    let mut lines = vec![
        ["day", "commits", "writer opens ms", "commit ms", "maintenance ms", "lake opens ms", "first query ms"]
            .map(str::to_owned)
            .to_vec(),
    ];
    lines[0].extend(["files", "log entries", "log checkpoint KB"].map(str::to_owned));
    for day in 1..=days {
        let (mut opening, mut committing) = (Vec::new(), Vec::new());
        for hour in 0..HOURS {
            let first = ((day - 1) * HOURS + hour) * rows;
            let rows = (first..first + rows).map(|index| events.event(index)).collect();
            // Each run is a process of its own, and opens the lake anew.
            let began = Instant::now();
            let (mut writer, _) = lake.writer::<Value>(CONNECTION, Uuid::new_v4()).await.expect("a writer");
            opening.push(milliseconds(began.elapsed()));
            let began = Instant::now();
            let outbox = Outbox { runs: vec![run()], ..Outbox::default() };
            let commit = Commit { rows, replaces: Vec::new(), outbox, state: json!({}) };
            writer.commit(commit).await.expect("the commit lands");
            committing.push(milliseconds(began.elapsed()));
        }
        // Before maintenance, when there are the most files.
        let opened = if SHOWN.contains(&day) { Some(open(&lake, events, day).await) } else { None };
        let began = Instant::now();
        lake.maintain(&[CONNECTION], Maintenance::default()).await.expect("the lake is maintained");
        let maintaining = began.elapsed();
        if let Some([opens, query]) = opened {
            let files = lake.table(TableName::FileEvents).await.expect("the table opens").files().await;
            let log = folder.join("file_events/_delta_log");
            lines.push(vec![
                day.to_string(),
                (day * HOURS).to_string(),
                spread(opening).text(1),
                spread(committing).text(1),
                format!("{:.0}", milliseconds(maintaining)),
                spread(opens).text(1),
                spread(query).text(1),
                files.expect("the log can be read").len().to_string(),
                entries(&log).filter(|path| path.extension().is_some_and(|end| end == "json")).count().to_string(),
                (checkpoint_bytes(&log) / 1024).to_string(),
            ]);
        }
        age(folder);
    }
    table(&title, &lines);
}

/// How long a new process takes until it can ask, and for its first question, a few times.
async fn open(lake: &Lake, events: Events, day: usize) -> [Vec<f64>; 2] {
    let mut times = [Vec::new(), Vec::new()];
    let today = events.first_day() + chrono::Days::new(day as u64 - 1);
    for _ in 0..number("WAYBILL_BENCH_ROUNDS", 5) {
        let began = Instant::now();
        let engine = Engine::new(lake.clone(), Clock::default()).expect("an engine");
        let search = engine.search(&asker()).await.expect("the lake opens");
        times[0].push(milliseconds(began.elapsed()));
        let statement = format!(
            "SELECT sender, count(*) AS n FROM file_events WHERE event_date = DATE '{today}' GROUP BY sender ORDER BY n DESC LIMIT 10"
        );
        let answer = search.sql(&statement).await.expect("it is a query");
        answer.collect().await.expect("it has an answer");
        times[1].push(milliseconds(began.elapsed()));
    }
    times
}

/// Files that were merged stay for a week. Of the days of this bench some pass in a second.
fn shorten_a_week(lake: &Path) {
    let stays = |how_long: &str| format!("\"delta.deletedFileRetentionDuration\":\"interval {how_long}\"");
    for table in TableName::ALL {
        let first = lake.join(table.as_str()).join("_delta_log").join(format!("{:020}.json", 0));
        let text = std::fs::read_to_string(&first).expect("the log has a first version");
        assert!(text.contains(&stays("7 days")), "the table says how long such files stay");
        std::fs::write(&first, text.replace(&stays("7 days"), &stays("10 seconds"))).expect("the log can be written");
    }
}

/// Lets a day pass for the log, whose entries expire by the time of their files.
fn age(lake: &Path) {
    for table in TableName::ALL {
        for path in entries(&lake.join(table.as_str()).join("_delta_log")) {
            let file = std::fs::File::options().write(true).open(&path).expect("a file of the log");
            let time = file.metadata().and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            file.set_modified(time - DAY).expect("its time can be set");
        }
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_file())
}

/// Bytes of the newest checkpoint of a log.
fn checkpoint_bytes(log: &Path) -> u64 {
    let checkpoints = entries(log).filter(|path| path.extension().is_some_and(|end| end == "parquet"));
    checkpoints.max().and_then(|path| std::fs::metadata(path).ok()).map_or(0, |file| file.len())
}

/// One hash in a lake of a year.
fn look_ups(runtime: &tokio::runtime::Runtime, folder: &Path) {
    let rows = number("WAYBILL_BENCH_ROWS", 2_000_000);
    let rounds = number("WAYBILL_BENCH_ROUNDS", 5);
    let events = Events { rows, days: YEAR };
    let folder = folder.join(format!("year-{rows}"));
    let store = Counted::new();
    let url = folder.to_str().expect("a path in UTF-8");
    let lake = Lake::with_store(url, Arc::clone(&store) as _).expect("a path is a lake");
    if !folder.exists() {
        let began = Instant::now();
        runtime.block_on(events.fill(&lake, ROWS_AT_ONCE, 1));
        eprint(&format!("{rows} rows made in {:.0} s", began.elapsed().as_secs_f64()));
    }
    let files = runtime.block_on(data_files(&lake, &folder, TableName::FileEvents));
    let bytes: u64 = files.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|file| file.len()).sum();
    let title = format!("{rows} rows, {YEAR} days, {} files, {} MB; {}", files.len(), bytes >> 20, machine());
    let mut lines =
        vec![["look-up", "", "waybill ms", "requests", "MB read", "duckdb ms", "waybill / duckdb"].map(str::to_owned)];
    let mut present = 0;
    for (name, column, digits, is_there) in [
        ("sha256 that is there", "sha256", 64, true),
        ("sha256 that is not", "sha256", 64, false),
        ("md5 that is there", "md5", 32, true),
        ("md5 that is not", "md5", 32, false),
    ] {
        let mut statement = || {
            // Another value each time: none was asked before. Every tenth event repeats an earlier one's file.
            present += 1;
            let index = if is_there { rows / 7 * (present % 6) } else { rows * 2 } + 10 * present;
            let value = hash(index / 10 * 10, digits);
            format!("SELECT event_id, sender, recipients FROM file_events WHERE {column} = '{value}'")
        };
        let (mut cold, mut warm) = (Sample::default(), Sample::default());
        let engine = runtime.block_on(async { Engine::new(lake.clone(), Clock::default()) }).expect("an engine");
        let mut warm_peer = peer(&files);
        // What the first look-ups add to what is kept.
        for _ in 0..20 {
            let statement = statement();
            runtime.block_on(ask(&engine, &statement, &store));
            warm_peer.ask(&statement).expect("the peer answers");
        }
        for _ in 0..rounds {
            let question = statement();
            let own = runtime.block_on(async {
                let engine = Engine::new(lake.clone(), Clock::default()).expect("an engine");
                let began = Instant::now();
                // Opening the lake is measured apart.
                engine.search(&asker()).await.expect("the lake opens");
                cold.opens.push(milliseconds(began.elapsed()));
                ask(&engine, &question, &store).await
            });
            cold.add(own, peer(&files).ask(&question).expect("the peer answers"), is_there);
            let question = statement();
            let own = runtime.block_on(ask(&engine, &question, &store));
            warm.add(own, warm_peer.ask(&question).expect("the peer answers"), is_there);
        }
        lines.push(cold.line(name, "first"));
        lines.push(warm.line("", "later"));
    }
    let lines: Vec<Vec<String>> = lines.into_iter().map(|line| line.to_vec()).collect();
    table(&title, &lines);
}

#[derive(Default)]
struct Sample {
    opens: Vec<f64>,
    ours: Vec<f64>,
    theirs: Vec<f64>,
    requests: Vec<f64>,
    megabytes: Vec<f64>,
}

impl Sample {
    fn add(
        &mut self,
        (own, rows, asked): (Duration, usize, Asked),
        (other, _, others): (Duration, Duration, usize),
        is_there: bool,
    ) {
        assert_eq!((rows, rows > 0), (others, is_there), "both find the same");
        self.ours.push(milliseconds(own));
        self.theirs.push(milliseconds(other));
        self.requests.push(asked.requests as f64);
        self.megabytes.push(asked.bytes as f64 / (1 << 20) as f64);
    }

    fn line(self, name: &str, when: &str) -> [String; 7] {
        let ratios: Vec<f64> = self.ours.iter().zip(&self.theirs).map(|(own, other)| own / other).collect();
        let when = match self.opens.is_empty() {
            true => when.to_owned(),
            false => format!("{when}; lake opens in {} ms", spread(self.opens).text(0)),
        };
        [
            name.to_owned(),
            when,
            spread(self.ours).text(1),
            spread(self.requests).text(0),
            spread(self.megabytes).text(2),
            spread(self.theirs).text(1),
            spread(ratios).text(2),
        ]
    }
}

fn peer(files: &[PathBuf]) -> DuckDb {
    let mut peer = DuckDb::start();
    peer.table(TableName::FileEvents, files);
    peer
}

async fn ask(engine: &Engine, statement: &str, store: &Counted) -> (Duration, usize, Asked) {
    store.take();
    let began = Instant::now();
    let search = engine.search(&asker()).await.expect("the lake opens");
    let answer = search.sql(statement).await.unwrap_or_else(|error| panic!("{error}: {statement}"));
    let batches = answer.collect().await.unwrap_or_else(|error| panic!("{error}: {statement}"));
    (began.elapsed(), batches.iter().map(arrow::array::RecordBatch::num_rows).sum(), store.take())
}

fn asker() -> Asker {
    Asker::local("bench".to_owned(), Surface::Shell)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[allow(clippy::print_stderr, reason = "it tells a person why nothing happens for so long")]
fn eprint(text: &str) {
    eprintln!("{text}");
}

/// What a run says about itself.
fn run() -> Run {
    let now = Clock::default().now();
    Run {
        run_id: Uuid::new_v4().to_string(),
        connection_id: CONNECTION.to_string(),
        connection_name: "bench".to_owned(),
        started_at: now,
        finished_at: now,
        outcome: Outcome::Done,
        exit_code: 0,
        window_start: Some(now),
        window_end: Some(now),
        windows: 1,
        blobs: 100,
        blobs_failed: 0,
        records: 10_000,
        sends: 100,
        sends_out_of_scope: 0,
        duplicates: 0,
        events: 100,
        events_upgraded: 0,
        bytes_hashed: 1 << 30,
        hashed: 100,
        hash_failed: vec![],
        quarantined: 0,
        gaps: 0,
        owed: 0,
        requests: vec!["graph=200".to_owned()],
        retries: 0,
        throttled: 0,
        throttled_ms: 0,
        lag_seconds: Some(60),
        scope_kind: "all".to_owned(),
        scope_people: None,
        scope_id: None,
        waybill_version: env!("CARGO_PKG_VERSION").to_owned(),
        error: None,
        kind: Some(RunKind::Run),
        shard: None,
    }
}
