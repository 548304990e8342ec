//! Flat memory: what a run holds at most, whatever the size of attachments and of content blobs.
//!
//! See `benches/README.md`.

mod support;

use support::{Ran, Tenant, machine, number, table};

/// The goal: a run stays below this.
const PEAK_MAX: u64 = 256 << 20;

/// The goal: large things cost at most this much more than small ones.
const MORE_MAX: u64 = 32 << 20;

/// About the size of a generated audit record.
const RECORD_BYTES: usize = 850;

struct Case {
    name: String,
    ran: Ran,
}

fn main() {
    let at_once = number("WAYBILL_BENCH_AT_ONCE", 64);
    let large_mb = number("WAYBILL_BENCH_LARGE_MB", 150);
    let blob_mb = number("WAYBILL_BENCH_BLOB_MB", 200);

    // A run begins with 32 requests at once and adds one after each round without refusal. So that as many as are wanted
    // may flow at once, most messages have no attachment, and there are twice as many attachments as are wanted.
    let messages = 4000;
    let attachments = 2 * at_once;
    let share = attachments as f64 / messages as f64;
    let attachments_of = |size: &str| {
        format!("users={at_once},messages={messages},days=1,seed=1,sends=1,attachments={share},size={size}")
    };
    let large = measure(
        format!("about {attachments} attachments of {large_mb} MB"),
        &attachments_of(&format!("{large_mb}m")),
        "1000",
    );
    let small = measure(format!("about {attachments} attachments of 20 KB"), &attachments_of("20k"), "1000");

    let records = blob_mb * 1_000_000 / RECORD_BYTES;
    let sends = 1000;
    let feed = format!(
        "users=64,messages={sends},days=1,seed=1,attachments=1,size=20k,sends={}",
        sends as f64 / records as f64
    );
    let whole = measure(format!("{records} records in one blob"), &feed, "1000000000");
    let split = measure(format!("{records} records in blobs of 50"), &feed, "50");

    let mut rows = vec![row(&[
        "",
        "attachments",
        "MB hashed",
        "feed MB",
        "connections",
        "s",
        "peak MB",
        "goal",
        "more MB",
        "goal",
    ])];
    for (case, than) in [(&large, Some(&small)), (&small, None), (&whole, Some(&split)), (&split, None)] {
        let Ran { peak_bytes, connections, wall, .. } = case.ran;
        let more = than.map(|than| peak_bytes as i64 - than.ran.peak_bytes as i64);
        rows.push(vec![
            case.name.clone(),
            case.ran.count("events").to_string(),
            (case.ran.count("bytes_hashed") / 1_000_000).to_string(),
            (case.ran.count("feed_bytes") / 1_000_000).to_string(),
            connections.to_string(),
            format!("{:.1}", wall.as_secs_f64()),
            mib(peak_bytes as i64),
            verdict(peak_bytes < PEAK_MAX, "256"),
            more.map(mib).unwrap_or_default(),
            more.map(|more| verdict(more < MORE_MAX as i64, "32")).unwrap_or_default(),
        ]);
    }
    table(&format!("Flat memory of `waybill run` ({})", machine()), &rows);
}

fn measure(name: String, generate: &str, blob_records: &str) -> Case {
    let tenant = Tenant::start(generate, &["--blob-records", blob_records]);
    Case { name, ran: tenant.run() }
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

/// Memory is counted in units of 1,048,576 bytes, as the goals are.
fn mib(bytes: i64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

fn verdict(is_reached: bool, goal: &str) -> String {
    format!("< {goal}: {}", if is_reached { "reached" } else { "MISSED" })
}
