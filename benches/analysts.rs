//! Many analysts at once: clients of the Postgres port, each with one question after the other, look-ups and scans mixed.
//!
//! See `benches/README.md`. The clients (`benches/analysts_peer.py`) and the server are processes of their own on the same cores.

mod support;

use serde_json::{Value, json};
use support::events::{address, hash};
use support::peer::Python;
use support::{Server, machine, number, spread, table};

/// The program's own, for making the lake.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Look-ups for each scan.
const LOOK_UPS: usize = 4;

/// Questions in the list that every client goes through.
const QUESTIONS: usize = 200;

fn main() {
    let rows = number("WAYBILL_BENCH_ROWS", 1_000_000);
    let clients = number("WAYBILL_BENCH_CLIENTS", 32);
    let seconds = number("WAYBILL_BENCH_SECONDS", 20);
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (_, folder) = support::events::lake(&runtime, rows, scratch.path());
    let statements: Vec<(&str, String)> = (0..QUESTIONS).map(|place| question(place, rows)).collect();
    let server = Server::start(&folder);
    let mut peer = Python::start("analysts_peer.py", &[]);
    let told = json!({ "host": "127.0.0.1", "port": server.port, "statements": statements });
    let ask = |peer: &mut Python, clients: usize, seconds: usize| {
        let mut told = told.clone();
        told["clients"] = json!(clients);
        told["seconds"] = json!(seconds);
        peer.ask(&told)
    };
    // Alone first, which warms the server too, and tells what a question costs without neighbours.
    ask(&mut peer, 1, seconds.min(5));
    let mut lines =
        vec![["clients", "questions", "answers", "failures", "median ms", "p99 ms"].map(str::to_owned).to_vec()];
    for clients in [1, clients] {
        let answer = ask(&mut peer, clients, seconds);
        for kind in ["look-up", "scan"] {
            lines.push(line(&answer, clients, kind));
        }
    }
    let title = format!(
        "{rows} rows, {seconds} s each, {LOOK_UPS} look-ups for each scan; the server's peak: {} MB; {}",
        server.peak_bytes() >> 20,
        machine()
    );
    table(&title, &lines);
}

fn question(place: usize, rows: usize) -> (&'static str, String) {
    let row = place * rows / QUESTIONS;
    match place % (LOOK_UPS + 1) {
        0 => {
            let scan = [
                "SELECT file_category, count(*) AS files, sum(file_size_bytes) AS bytes FROM file_events GROUP BY file_category",
                "SELECT event_date, count(DISTINCT sender) AS senders FROM file_events GROUP BY event_date ORDER BY event_date",
                "SELECT sender, count(*) AS files FROM file_events GROUP BY sender ORDER BY files DESC LIMIT 20",
            ];
            ("scan", scan[place / (LOOK_UPS + 1) % scan.len()].to_owned())
        }
        1 => (
            "look-up",
            format!("SELECT observed_at, sender, recipients FROM file_events WHERE md5 = '{}'", hash(row, 32)),
        ),
        2 => (
            "look-up",
            format!(
                "SELECT observed_at, file_name FROM file_events WHERE sender = '{}' ORDER BY observed_at DESC LIMIT 50",
                address(place)
            ),
        ),
        3 => (
            "look-up",
            "SELECT observed_at, sender, file_name FROM file_events ORDER BY observed_at DESC LIMIT 100".to_owned(),
        ),
        _ => (
            "look-up",
            format!("SELECT observed_at, sender, recipients FROM file_events WHERE sha256 = '{}'", hash(row, 64)),
        ),
    }
}

fn line(answer: &Value, clients: usize, kind: &str) -> Vec<String> {
    let times = answer["times"][kind].as_array().into_iter().flatten().filter_map(Value::as_f64);
    let mut times: Vec<f64> = times.map(|seconds| seconds * 1e3).collect();
    times.sort_by(f64::total_cmp);
    assert!(!times.is_empty(), "nobody asked a {kind}: {answer}");
    let p99 = times[(times.len() * 99 / 100).min(times.len() - 1)];
    let failures = answer["failures"].as_array().map_or(0, Vec::len);
    vec![
        clients.to_string(),
        kind.to_owned(),
        times.len().to_string(),
        failures.to_string(),
        format!("{:.0}", spread(times).median),
        format!("{p99:.0}"),
    ]
}
