//! Both digests of many attachments on one core: side by side as a run takes them, against OpenSSL and against the crates
//! `md-5` and `sha2`, which take one digest after the other.
//!
//! See `benches/README.md`. The peers are OpenSSL (`benches/openssl_peer.py`) and, where it is installed, rclone
//! (`benches/rclone_peer.py`) in processes of their own, and all take turns. Times are CPU times: what else the machine does at
//! the same time is no part of what a core can hash.

mod support;

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use md5::{Digest as _, Md5};
use serde_json::{Value, json};
use sha2::Sha256;
use support::events::mixed;
use support::peer::Python;
use support::{machine, number, own_cpu_exactly, spread, table};
use waybill::digest::{HashPool, Hasher, Instructions};
use waybill::limits;

/// Attachments that are under way at once.
const ATTACHMENTS: usize = 64;

/// The least and the greatest size: a picture in a signature, and the most that a mail usually carries.
const SIZES: (f64, f64) = (20e3, 25e6);

/// Bytes that the crates take through the one digest before the other.
const STEP_BYTES: usize = 16 * 1024;

/// Both digests of an attachment, in hexadecimal digits.
type Pair = (String, String);

fn main() {
    let rounds = number("WAYBILL_BENCH_ROUNDS", 5);
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let attachments = attachments();
    let mut peers = Peers::start(&attachments, scratch.path());
    let pool = |choice| (choice, Arc::new(HashPool::with(1, choice).expect("a thread")));
    let pools: Vec<_> = Instructions::all().into_iter().map(pool).collect();
    // The first one is the largest, so that a stream alone is a long one.
    for (title, count) in [("64 attachments of mixed sizes", ATTACHMENTS), ("one attachment", 1)] {
        measure(title, &attachments[..count], rounds, &pools, &mut peers);
    }
}

type Pool = (Instructions, Arc<HashPool>);

fn measure(title: &str, attachments: &[Bytes], rounds: usize, pools: &[Pool], peers: &mut Peers) {
    let bytes: usize = attachments.iter().map(Bytes::len).sum();
    let speed = |time: Duration| bytes as f64 / time.as_secs_f64() / 1e9;
    let mut ours = vec![Vec::new(); pools.len()];
    let (mut crates, mut openssl, mut rclone) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let (time, expected) = peers.openssl.hash(attachments.len());
        let take = |speeds: &mut Vec<f64>, (time, pairs): (Duration, Vec<Pair>)| {
            assert!(pairs == expected, "the digests are not those of OpenSSL");
            // The first round warms all.
            if round > 0 {
                speeds.push(speed(time));
            }
        };
        take(&mut openssl, (time, expected.clone()));
        take(&mut crates, in_turn(attachments));
        if let Some(peer) = &mut peers.rclone {
            take(&mut rclone, peer.hash(attachments.len()));
        }
        for (speeds, (_, pool)) in ours.iter_mut().zip(pools) {
            take(speeds, side_by_side(pool, attachments));
        }
    }
    let ratio = |own: &[f64], other: &[f64]| spread(own.iter().zip(other).map(|(own, other)| own / other)).text(2);
    let row = |name: String, speeds: &[f64]| {
        vec![name, spread(speeds.iter().copied()).text(2), ratio(speeds, &openssl), ratio(speeds, &crates)]
    };
    let mut lines = vec![["", "GB/s", "/ OpenSSL", "/ crates"].map(str::to_owned).to_vec()];
    let names = pools.iter().map(|(instructions, _)| format!("waybill: {}", instructions.name()));
    lines.extend(names.zip(&ours).map(|(name, speeds)| row(name, speeds)));
    lines.push(row("crates md-5, sha2 in turn".to_owned(), &crates));
    lines.push(row(format!("{} in turn", peers.openssl.version), &openssl));
    if let Some(peer) = &peers.rclone {
        lines.push(row(format!("{} hashsum --download, twice", peer.version), &rclone));
    }
    table(&format!("{title}, {} MB, on one core; {}", bytes >> 20, machine()), &lines);
}

/// Bytes that look random, in sizes of which each order of magnitude has as many.
fn attachments() -> Vec<Bytes> {
    let (least, greatest) = SIZES;
    let attachment = |index: usize| {
        let share = if index == 0 { 1.0 } else { (mixed(index as u64) >> 11) as f64 / (1_u64 << 53) as f64 };
        let size = (least * (greatest / least).powf(share)) as usize;
        let words = (0..size as u64 / 8 + 1).flat_map(|word| mixed((index as u64) << 32 | word).to_le_bytes());
        words.take(size).collect()
    };
    (0..ATTACHMENTS).map(attachment).collect()
}

/// As a run does: all attachments are under way at once, and each gives its next piece when the one before it is done.
fn side_by_side(pool: &Arc<HashPool>, attachments: &[Bytes]) -> (Duration, Vec<Pair>) {
    let (done, hashed) = mpsc::channel();
    let began = own_cpu_exactly();
    for (number, attachment) in attachments.iter().enumerate() {
        let done = done.clone();
        next_piece(pool, Hasher::new(), attachment.clone(), move |hasher| {
            done.send((number, hasher)).expect("somebody waits");
        });
    }
    drop(done);
    let mut pairs = vec![Pair::default(); attachments.len()];
    for (number, hasher) in hashed {
        let (digests, _) = hasher.finish();
        pairs[number] = (digests.md5_hex(), digests.sha256_hex());
    }
    (own_cpu_exactly() - began, pairs)
}

fn next_piece(pool: &Arc<HashPool>, hasher: Hasher, mut rest: Bytes, on_done: impl FnOnce(Hasher) + Send + 'static) {
    if rest.is_empty() {
        return on_done(hasher);
    }
    let piece = rest.split_to(rest.len().min(limits::HASH_PIECE_BYTES));
    let next = Arc::clone(pool);
    let on_done: Box<dyn FnOnce(Hasher) + Send> = Box::new(on_done);
    pool.hash(hasher, vec![piece], move |hasher| next_piece(&next, hasher, rest, on_done));
}

/// One attachment after the other, one digest after the other.
fn in_turn(attachments: &[Bytes]) -> (Duration, Vec<Pair>) {
    let began = own_cpu_exactly();
    let pair = |attachment: &Bytes| {
        let (mut md5, mut sha256) = (Md5::new(), Sha256::new());
        for step in attachment.chunks(STEP_BYTES) {
            md5.update(step);
            sha256.update(step);
        }
        (hex(&md5.finalize()), hex(&sha256.finalize()))
    };
    let pairs = attachments.iter().map(pair).collect();
    (own_cpu_exactly() - began, pairs)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Other people's programs, each in a process of its own.
struct Peers {
    openssl: Peer,
    rclone: Option<Peer>,
}

impl Peers {
    /// Starts them and lets them read the attachments from files.
    fn start(attachments: &[Bytes], scratch: &Path) -> Self {
        let (file, folder) = (scratch.join("attachments"), scratch.join("files"));
        std::fs::write(&file, attachments.concat()).expect("room for the attachments");
        std::fs::create_dir(&folder).expect("a folder for the attachments");
        for (number, attachment) in attachments.iter().enumerate() {
            std::fs::write(folder.join(format!("{number:02}")), attachment).expect("room for an attachment");
        }
        let sizes: Vec<usize> = attachments.iter().map(Bytes::len).collect();
        let openssl = Peer::start("openssl_peer.py", &json!({ "file": file, "sizes": sizes }));
        Self {
            openssl: openssl.expect("Python has OpenSSL"),
            rclone: Peer::start("rclone_peer.py", &json!({ "folder": folder })),
        }
    }
}

struct Peer {
    python: Python,
    version: String,
}

impl Peer {
    /// Starts one; nothing when what it drives is not installed.
    fn start(script: &str, told: &Value) -> Option<Self> {
        let mut python = Python::start(script, &[]);
        let version = python.ask(told)["version"].as_str()?.to_owned();
        Some(Self { python, version })
    }

    /// Hashes the first so many attachments.
    fn hash(&mut self, attachments: usize) -> (Duration, Vec<Pair>) {
        let told = self.python.ask(&json!({ "attachments": attachments }));
        let seconds = told["seconds"].as_f64().expect("it tells its time");
        let pairs = serde_json::from_value(told["digests"].clone()).expect("pairs of digests");
        (Duration::from_secs_f64(seconds), pairs)
    }
}
