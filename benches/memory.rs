//! Flat memory: what a run holds at most, whatever the size of attachments and of content blobs, and however many mailboxes,
//! sends and days there are.
//!
//! See `benches/README.md`.

mod support;

use support::{Ran, Tenant, is_full, machine, number, table};

/// The goal: a run stays below this.
const PEAK_MAX: u64 = 256 << 20;

/// The goal: large things cost at most this much more than small ones.
const MORE_MAX: u64 = 32 << 20;

/// About the size of a generated audit record.
const RECORD_BYTES: usize = 850;

struct Case {
    name: String,
    ran: Ran,
    /// The case that needs less, with the same goal for what is more.
    than: Option<u64>,
}

fn main() {
    let mut cases = Vec::new();
    if wanted("large") {
        large_things(&mut cases);
    }
    if wanted("sends") {
        many_sends(&mut cases);
    }
    if wanted("mailboxes") {
        many_mailboxes(&mut cases);
    }
    if wanted("week") {
        a_week(&mut cases);
    }
    let head = [
        "",
        "attachments",
        "MB hashed",
        "feed MB",
        "blobs",
        "commits",
        "connections",
        "s",
        "peak MB",
        "goal",
        "more MB",
        "goal",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for Case { name, ran, than } in &cases {
        let Ran { peak_bytes, connections, wall, .. } = ran;
        let more = than.map(|than| *peak_bytes as i64 - than as i64);
        rows.push(vec![
            name.clone(),
            ran.count("events").to_string(),
            (ran.count("bytes_hashed") / 1_000_000).to_string(),
            (ran.count("feed_bytes") / 1_000_000).to_string(),
            ran.count("blobs").to_string(),
            ran.count("commits").to_string(),
            connections.to_string(),
            format!("{:.1}", wall.as_secs_f64()),
            mib(*peak_bytes as i64),
            verdict(*peak_bytes < PEAK_MAX, "256"),
            more.map(mib).unwrap_or_default(),
            more.map(|more| verdict(more < MORE_MAX as i64, "32")).unwrap_or_default(),
        ]);
    }
    table(&format!("Flat memory of `waybill run` ({})", machine()), &rows);
}

/// Whether a group of cases was asked for.
fn wanted(name: &str) -> bool {
    std::env::var("WAYBILL_BENCH_ONLY").map_or(true, |only| name.contains(&only))
}

fn large_things(cases: &mut Vec<Case>) {
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
    let small = measure(&attachments_of("20k"), "1000");
    let large = measure(&attachments_of(&format!("{large_mb}m")), "1000");
    let than = Some(small.peak_bytes);
    cases.push(Case { name: format!("about {attachments} attachments of {large_mb} MB"), ran: large, than });
    cases.push(Case { name: format!("about {attachments} attachments of 20 KB"), ran: small, than: None });

    let records = blob_mb * 1_000_000 / RECORD_BYTES;
    let sends = 1000;
    let share = sends as f64 / records as f64;
    let feed = format!("users=64,messages={sends},days=1,seed=1,attachments=1,size=20k,sends={share}");
    let split = measure(&feed, "50");
    let whole = measure(&feed, "1000000000");
    let than = Some(split.peak_bytes);
    cases.push(Case { name: format!("{records} records in one blob"), ran: whole, than });
    cases.push(Case { name: format!("{records} records in blobs of 50"), ran: split, than: None });
}

/// Sends in one run, each with an attachment: what is remembered so that each becomes a row once.
fn many_sends(cases: &mut Vec<Case>) {
    let mut counts = vec![10_000, 50_000, 200_000];
    counts.extend(is_full().then_some(1_000_000));
    for sends in counts {
        let ran = measure(&format!("users=64,messages={sends},days=1,seed=1,sends=1,attachments=1,size=1k"), "50");
        cases.push(Case { name: format!("{sends} sends"), ran, than: None });
    }
}

/// A list of mailboxes, each with a send.
fn many_mailboxes(cases: &mut Vec<Case>) {
    let mailboxes = number("WAYBILL_BENCH_MAILBOXES", 100_000);
    let generate = format!("users={mailboxes},messages={mailboxes},days=1,seed=1,sends=1,attachments=0.2,size=1k");
    let tenant = Tenant::start(&generate, &[]);
    let ran = tenant.run_since("2d", Some(&tenant.users()));
    cases.push(Case { name: format!("{mailboxes} mailboxes, by a list"), ran, than: None });
}

/// The longest window that the feed holds, in many small blobs.
fn a_week(cases: &mut Vec<Case>) {
    let blobs = number("WAYBILL_BENCH_BLOBS", 200_000);
    let generate = format!("users=64,messages={},days=7,seed=1,sends=0.01,attachments=1,size=1k", blobs / 50);
    let tenant = Tenant::start(&generate, &["--blob-records", "2", "--content-over", "167h"]);
    let ran = tenant.run_since("167h", None);
    cases.push(Case { name: format!("7 days, {blobs} blobs"), ran, than: None });
}

fn measure(generate: &str, blob_records: &str) -> Ran {
    Tenant::start(generate, &["--blob-records", blob_records]).run()
}

/// Memory is counted in units of 1,048,576 bytes, as the goals are.
fn mib(bytes: i64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

fn verdict(is_reached: bool, goal: &str) -> String {
    format!("< {goal}: {}", if is_reached { "reached" } else { "MISSED" })
}
