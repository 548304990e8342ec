//! Audit records without sends should cost next to nothing: the reader of content blobs against what JSON costs.
//!
//! See `benches/README.md`. The content is what the simulated tenant's feed serves, one record in a hundred a send, in one blob
//! and already in memory; everything runs on one core.

mod support;

use std::hint::black_box;
use std::time::Instant;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use support::peer::Python;
use support::{Tenant, json as body_of, machine, number, spread, table};
use waybill::source::microsoft365::Records;

/// What the program uses too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sends of the tenant; there are a hundred times as many records.
const SENDS: usize = 2_000;

/// Bytes that the network gives at once, about.
const CHUNK_BYTES: usize = 64 * 1024;

/// How the content is read: gives the number of records.
type Reader = fn(&[u8]) -> usize;

const READERS: [(&str, Reader); 4] = [
    ("Waybill: records split, checked, sends read", waybill),
    ("serde_json: looked at, nothing kept", |content| {
        serde_json::from_slice::<Vec<IgnoredAny>>(content).expect("JSON").len()
    }),
    ("serde_json: split into texts", |content| serde_json::from_slice::<Vec<&RawValue>>(content).expect("JSON").len()),
    ("serde_json: values of everything", |content| serde_json::from_slice::<Vec<Value>>(content).expect("JSON").len()),
];

fn main() {
    let rounds = number("WAYBILL_BENCH_ROUNDS", 5);
    let content = content();
    let mut simdjson = Peer::start(&content);
    let count = serde_json::from_slice::<Vec<IgnoredAny>>(&content).expect("the feed serves JSON").len();
    let mut seconds = vec![Vec::new(); READERS.len() + 1];
    for _ in 0..rounds {
        for ((_, reader), seconds) in READERS.iter().zip(&mut seconds) {
            let began = Instant::now();
            let read = reader(black_box(&content));
            seconds.push(began.elapsed().as_secs_f64());
            assert_eq!(read, count, "each reader sees all records");
        }
        seconds[READERS.len()].push(simdjson.parse(count));
    }
    let own = seconds[0].clone();
    let mut rows = vec![["reader", "records/s", "MB/s", "time / Waybill's"].map(str::to_owned).to_vec()];
    let names = READERS.iter().map(|(name, _)| *name).chain(["simdjson: where everything is, nothing read"]);
    for (name, seconds) in names.zip(&seconds) {
        let rate = |amount: f64| spread(seconds.iter().map(move |seconds| amount / seconds)).text(0);
        let ratios = spread(seconds.iter().zip(&own).map(|(seconds, own)| seconds / own)).text(2);
        rows.push(vec![name.to_owned(), rate(count as f64), rate(content.len() as f64 / 1e6), ratios]);
    }
    let megabytes = content.len() / 1_000_000;
    table(&format!("{count} records, 1 % sends, {megabytes} MB, one core; {}", machine()), &rows);
}

fn waybill(content: &[u8]) -> usize {
    let mut records = Records::new();
    let (mut count, mut sends) = (0, 0);
    for chunk in content.chunks(CHUNK_BYTES) {
        let read = records.split(chunk).expect("a blob");
        count += read.records;
        sends += read.sends.len();
    }
    let rest = records.finish().expect("a whole blob");
    assert_eq!(sends + rest.sends.len(), SENDS);
    usize::try_from(count + rest.records).expect("a count of records")
}

/// `simdjson` in a process of its own (`benches/simdjson_peer.py`).
struct Peer {
    python: Python,
    _content: tempfile::NamedTempFile,
}

impl Peer {
    fn start(content: &[u8]) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a scratch file");
        std::fs::write(file.path(), content).expect("a scratch file is written");
        let python = Python::start("simdjson_peer.py", &[file.path().to_str().expect("a path in UTF-8")]);
        Self { python, _content: file }
    }

    /// Seconds of one reading.
    fn parse(&mut self, count: usize) -> f64 {
        let told = self.python.ask(&json!({}));
        assert_eq!(told["records"], count, "the peer sees all records");
        told["seconds"].as_f64().expect("it tells its time")
    }
}

/// The tenant's one blob, as the feed serves it.
fn content() -> Vec<u8> {
    let generate = format!("users=64,messages={SENDS},days=1,seed=1,attachments=1,size=1k,sends=0.01");
    let tenant = Tenant::start(&generate, &["--blob-records", "1000000000"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let token = tenant.sign_in(&client, "https://manage.office.com").await;
        let get = async |url: &str| client.get(url).bearer_auth(&token).send().await.expect("the tenant answers");
        let feed = format!("{}/api/v1.0/{}/activity/feed", tenant.told("activity"), tenant.told("tenant_id"));
        let now = waybill::clock::Clock::default().now();
        let mut content = Vec::new();
        for days in 0..3 {
            let hour = |hours| (now - chrono::Duration::hours(hours)).format("%Y-%m-%dT%H:%M:%S").to_string();
            let (start, end) = (hour(24 * (days + 1)), hour(24 * days));
            let url =
                format!("{feed}/subscriptions/content?contentType=Audit.Exchange&startTime={start}&endTime={end}");
            for blob in body_of(get(&url).await).await.as_array().expect("a list of blobs") {
                let uri = blob["contentUri"].as_str().expect("an address");
                let body = get(uri).await.bytes().await.expect("a body");
                if body.len() > content.len() {
                    content = body.to_vec();
                }
            }
        }
        content
    })
}
