//! Promise 1: every attachment that a monitored user sent is one row, whatever is killed, throttled, repeated, late or
//! out of order.

use std::sync::Arc;

use chrono::Duration;
use object_store::memory::InMemory;
use proptest::prelude::*;
use waybill::connection::Layout;
use waybill::error::Code;
use waybill::lake::{Lake, Maintenance, Shard};
use waybill::source::memory::Call;

use crate::inner::store::{Failure, FaultyStore};
use crate::inner::{Tenant, actual, expected, noon};

const NAMES: [&str; 4] = ["a.txt", "b.pdf", "a.txt", "image001.png"];

/// What happens to the tenant and to the runs over it.
#[derive(Clone, Debug)]
enum Event {
    /// A message with so many attachments is sent; its record becomes available now and is listed so many minutes later.
    Sent { attachments: usize, listed_after: i64 },
    /// The feed repeats the record of an earlier message, under the same id or under another one.
    Repeated { which: prop::sample::Index, other_id: bool },
    /// From now on blobs are cut otherwise.
    Cut { minutes: i64 },
    /// The next calls of a kind fail.
    Faults { call: Call, code: Code, calls: u64 },
    /// Time goes on.
    Minutes(i64),
    /// A run.
    Run,
    /// A run whose nth write fails.
    Disturbed { nth: u64, failure: Failure, shard: prop::sample::Index },
    /// Two runs at once.
    Two,
    /// Maintenance while a run goes on.
    Maintain,
    /// A run of one shard alone.
    Shard(prop::sample::Index),
    /// Every shard at once.
    Together,
    /// Another number of shards, where that is allowed.
    Split { shards: u32 },
    /// A run that knows the connection as it was before it was split the last time.
    Stale(prop::sample::Index),
    /// A backfill of the last so many minutes, beside a run or alone.
    Backfill { minutes: i64, beside_run: bool },
}

fn event() -> impl Strategy<Value = Event> {
    let call = prop::sample::select(vec![Call::List, Call::Read, Call::ReadHalf, Call::Find, Call::Open]);
    let code = prop::sample::select(vec![
        Code::ServiceUnavailable,
        Code::Throttled,
        Code::MailboxDenied,
        Code::PermissionMissing,
    ]);
    let failure = prop::sample::select(vec![Failure::Before, Failure::After, Failure::HangBefore, Failure::HangAfter]);
    prop_oneof![
        4 => (0_usize..4, prop::sample::select(vec![0_i64, 0, 0, 45, 600]))
            .prop_map(|(attachments, listed_after)| Event::Sent { attachments, listed_after }),
        2 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(which, other_id)| Event::Repeated { which, other_id }),
        1 => (1_i64..90).prop_map(|minutes| Event::Cut { minutes }),
        2 => (call, code, 1_u64..4).prop_map(|(call, code, calls)| Event::Faults { call, code, calls }),
        2 => (1_i64..300).prop_map(Event::Minutes),
        2 => Just(Event::Run),
        2 => (1_u64..14, failure, any::<prop::sample::Index>())
            .prop_map(|(nth, failure, shard)| Event::Disturbed { nth, failure, shard }),
        1 => any::<prop::sample::Index>().prop_map(Event::Shard),
        1 => Just(Event::Together),
        2 => (1_u32..5).prop_map(|shards| Event::Split { shards }),
        1 => any::<prop::sample::Index>().prop_map(Event::Stale),
        1 => Just(Event::Two),
        1 => Just(Event::Maintain),
        2 => (1_i64..900, any::<bool>()).prop_map(|(minutes, beside_run)| Event::Backfill { minutes, beside_run }),
    ]
}

/// Danger: some order of repeats, delays, faults, kills and overlapping runs loses or doubles a row.
/// Provoked: scripts at random; at the end a healed tenant is read until nothing is owed, and the lake is compared with
/// what was sent.
#[test]
fn whatever_happens_in_between_the_lake_ends_with_one_row_per_attachment() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let config =
        ProptestConfig { cases: 16, max_shrink_iters: 40, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let scripts = proptest::collection::vec(event(), 4..24);
    runner
        .run(&scripts, |script| {
            runtime.block_on(play(&script));
            Ok(())
        })
        .unwrap();
}

async fn play(script: &[Event]) {
    const URL: &str = "memory:///lake/";
    let tenant = Tenant::new();
    let memory = Arc::new(InMemory::new());
    let lake = Lake::with_store(URL, Arc::<InMemory>::clone(&memory)).unwrap();
    lake.create().await.unwrap();
    let mut sends: Vec<(u32, Vec<&str>)> = Vec::new();
    let mut records = Vec::new();
    let mut repeats = 0;
    let connection = tenant.job(false).connection_id;
    let mut layout = Layout::default();
    let mut stale = layout;
    let mut all_listed = tenant.clock.now();
    for event in script {
        let now = tenant.clock.now();
        let shards = layout.shards(connection);
        let some = |which: &prop::sample::Index, layout: Layout| tenant.of(which.get(&layout.shards(connection)));
        match event {
            Event::Sent { attachments, listed_after } => {
                let number = u32::try_from(sends.len()).unwrap();
                let names = NAMES[..*attachments].to_vec();
                let record = tenant.send(number, &names);
                let listed = now + Duration::minutes(*listed_after);
                all_listed = all_listed.max(listed);
                tenant.source.publish_late(now, listed, record.clone());
                sends.push((number, names));
                records.push(record);
            }
            Event::Repeated { which, other_id } => {
                if !records.is_empty() {
                    let mut record = which.get(&records).clone();
                    if *other_id {
                        repeats += 1;
                        record.id = uuid::Uuid::from_u128(0x9000 + repeats).to_string();
                    }
                    tenant.source.publish(now, record);
                }
            }
            Event::Cut { minutes } => tenant.source.cut_every(Duration::minutes(*minutes)),
            Event::Faults { call, code, calls } => {
                let done = tenant.source.calls(*call);
                (1..=*calls).for_each(|nth| tenant.source.fail(*call, done + nth, *code));
            }
            Event::Minutes(minutes) => tenant.clock.set(now + Duration::minutes(*minutes)),
            Event::Run => drop(run_all(&tenant, &shards, &lake).await),
            Event::Disturbed { nth, failure, shard } => {
                let tenant = some(shard, layout);
                let store = FaultyStore::new(Arc::clone(&memory), *nth, *failure);
                let disturbed = Lake::with_store(URL, Arc::<FaultyStore>::clone(&store)).unwrap();
                tokio::select! {
                    run = tenant.run(&disturbed) => drop(run),
                    () = store.hung.notified() => {}
                }
            }
            Event::Shard(which) => drop(some(which, layout).run(&lake).await),
            Event::Together => {
                let tenants: Vec<Tenant> = shards.iter().map(|shard| tenant.of(shard)).collect();
                futures::future::join_all(tenants.iter().map(|tenant| tenant.run(&lake))).await;
            }
            Event::Split { shards: count } => {
                let states: Vec<_> = shards.iter().map(|shard| shard.state_id).collect();
                if layout == Layout::default() || lake.has_states(&states).await.unwrap() {
                    (stale, layout) = (layout, layout.split(*count));
                }
            }
            Event::Stale(which) => drop(some(which, stale).run(&lake).await),
            Event::Two => {
                let tenant = tenant.of(&shards[0]);
                let (one, other) = tokio::join!(tenant.run(&lake), tenant.run(&lake));
                assert!(one.is_ok() || other.is_ok() || one.is_err(), "at least one says what became of it");
            }
            Event::Maintain => {
                let states: Vec<_> =
                    shards.iter().flat_map(|shard| [&[shard.state_id], shard.inherits.as_slice()].concat()).collect();
                let (_, maintained) =
                    tokio::join!(run_all(&tenant, &shards, &lake), lake.maintain(&states, Maintenance::default()));
                maintained.unwrap();
            }
            Event::Backfill { minutes, beside_run } => {
                let tenant = tenant.of(&shards[0]);
                let to = (now - noon()).num_minutes();
                let backfill = tenant.backfill(&lake, to - minutes, to);
                if *beside_run {
                    drop(tokio::join!(backfill, tenant.run(&lake)));
                } else {
                    drop(backfill.await);
                }
            }
        }
        assert_no_doubles(&lake).await;
    }
    // Everything heals: pending faults are used up, and late records are listed.
    for call in [Call::List, Call::Read, Call::ReadHalf, Call::Find, Call::Open] {
        tenant.source.fail_always(call, None);
    }
    for _ in 0..40 {
        tenant.clock.set(tenant.clock.now() + Duration::minutes(61));
        if run_all(&tenant, &layout.shards(connection), &lake).await && tenant.clock.now() > all_listed {
            break;
        }
    }
    assert_eq!(actual(&lake).await, expected(&sends));
}

/// Danger: a slice is committed beside the work on the next one, and rows of either are lost, doubled, or marked as read too
/// soon. Provoked: the clock runs so fast that a few sends make a slice, the feed repeats half of them, and each write of
/// the run in turn fails in each way; then undisturbed runs follow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slices_that_are_committed_beside_the_next_ones_keep_each_row_once() {
    const URL: &str = "memory:///lake/";
    let mut most_commits = 0;
    for (nth, failure) in
        (1..60).step_by(3).zip([Failure::Before, Failure::After, Failure::HangBefore].into_iter().cycle())
    {
        let tenant = Tenant::new();
        let sends: Vec<(u32, Vec<&str>)> =
            (0..60).map(|number| (number, NAMES[..number as usize % 4].to_vec())).collect();
        let records: Vec<_> = sends.iter().map(|(number, names)| tenant.send(*number, names)).collect();
        let repeated = records.iter().skip(1).step_by(2);
        for record in records.iter().chain(repeated) {
            tenant.source.publish(noon() - Duration::minutes(10), record.clone());
        }
        let memory = Arc::new(InMemory::new());
        let lake = Lake::with_store(URL, Arc::<InMemory>::clone(&memory)).unwrap();
        lake.create().await.unwrap();
        let store = FaultyStore::new(Arc::clone(&memory), nth, failure);
        let disturbed = Lake::with_store(URL, Arc::<FaultyStore>::clone(&store)).unwrap();
        let clock = tenant.clock.clone();
        let ticking = tokio::spawn(async move {
            loop {
                tokio::time::sleep(std::time::Duration::from_micros(100)).await;
                clock.set(clock.now() + Duration::minutes(1));
            }
        });
        tokio::select! {
            run = tenant.run(&disturbed) => most_commits = most_commits.max(run.map_or(0, |report| report.commits)),
            () = store.hung.notified() => {}
        }
        ticking.abort();
        assert_no_doubles(&lake).await;
        for _ in 0..2 {
            tenant.run(&lake).await.unwrap();
        }
        assert_eq!(actual(&lake).await, expected(&sends), "{failure:?} at write {nth}");
        assert_no_doubles(&lake).await;
    }
    assert!(most_commits > 2, "no run had more than {most_commits} commits");
}

/// Runs every shard, one after the other, as `waybill run` does; whether all of them were done.
async fn run_all(tenant: &Tenant, shards: &[Shard], lake: &Lake) -> bool {
    let mut is_done = true;
    for shard in shards {
        is_done &= tenant.of(shard).run(lake).await.is_ok_and(|report| report.exit_code == 0);
    }
    is_done
}

async fn assert_no_doubles(lake: &Lake) {
    let doubles = crate::inner::count(lake, "SELECT count(*) - count(DISTINCT event_id) FROM file_events").await;
    assert_eq!(doubles, 0, "an event has two rows");
}

/// What a row says, without what tells one run from another.
const COLUMNS: &str = "event_id, observed_at, file_name, file_size_bytes, sha256, md5, hash_status, hash_error, sender, \
     from_address, recipients, subject, internet_message_id, mailbox, mime_type, attachment_kind, is_inline, attachment_id, \
     audit_operation, event_date";

/// Danger: a process that dies at any moment, while the service throttles, fails, repeats itself and comes late, leaves a
/// lake that differs from an undisturbed one. Provoked: SIGKILL after random times (the seed is printed), some runs two
/// at a time; then the service heals.
#[test]
fn a_lake_that_was_killed_into_being_equals_an_undisturbed_one() {
    let corpus = crate::support::corpus();
    let tenant = crate::support::Tenant::start(&[
        "--corpus",
        corpus.to_str().unwrap(),
        "--shift-dates",
        "now",
        "--blob-records",
        "7",
        "--page-blobs",
        "3",
    ]);
    let undisturbed = crate::support::Lake::temp();
    undisturbed.add(&tenant, "mail", &[]);
    undisturbed.run_done("mail");
    let order = format!("SELECT {COLUMNS} FROM file_events ORDER BY event_id");
    let expected = undisturbed.sql(&order);
    assert!(expected.len() > 30);

    tenant.faults(&serde_json::json!([
        { "on": "list", "probability": 0.1, "do": "af429" },
        { "on": "feed", "probability": 0.05, "do": { "status": 503, "retry_after": 1 } },
        { "on": "blob", "probability": 0.1, "do": "truncated_json" },
        { "on": "blob", "probability": 0.1, "do": { "reset": 2000 } },
        { "on": "blob", "probability": 0.1, "do": "shuffle" },
        { "on": "blob", "probability": 0.2, "do": "duplicates" },
        { "on": "find", "probability": 0.05, "do": { "status": 429, "retry_after": 1 } },
        { "on": "find", "probability": 0.05, "do": { "status": 500 } },
        { "on": "mail", "probability": 0.01, "do": "expire_token" },
        { "on": "attachment_value", "probability": 0.1, "do": { "short_body": 10 } },
        { "on": "attachment_value", "probability": 0.05, "do": "gateway_504" },
    ]));
    let seed = std::env::var("WAYBILL_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand_seed);
    println!("WAYBILL_TEST_SEED={seed}");
    let lake = crate::support::Lake::temp();
    lake.add(&tenant, "mail", &[]);
    let mut random = seed;
    for _ in 0..14 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let milliseconds = 40 + (random >> 33) % 1_800;
        let start = || {
            lake.run_command("mail")
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap()
        };
        let mut runs = vec![start()];
        if random >> 60 == 0 || milliseconds.is_multiple_of(4) {
            runs.push(start());
        }
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        for run in &mut runs {
            run.kill().unwrap();
            run.wait().unwrap();
        }
        assert_eq!(lake.count("SELECT count(*) - count(DISTINCT event_id) FROM file_events"), 0, "seed {seed}");
    }
    tenant.faults(&serde_json::json!([]));
    let ended = (0..5).map(|_| lake.run("mail")).find(|(exit, _)| *exit == 0);
    assert!(ended.is_some(), "seed {seed}: something is still owed: {:?}", lake.run("mail"));
    assert_eq!(lake.sql(&order), expected, "seed {seed}");
    assert_eq!(lake.count("SELECT count(*) - count(DISTINCT run_id) FROM runs"), 0, "seed {seed}");
    assert_eq!(lake.count("SELECT count(*) FROM quarantine"), 0, "seed {seed}");
    assert_eq!(lake.count("SELECT count(*) FROM gaps"), 0, "seed {seed}");
}

fn rand_seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

/// Danger: programs and forwarded test mails give one Message-ID to several messages, and all but one of them lose their
/// rows. Provoked: two people send a file of one name in the same second under one id; a third mail repeats the first.
#[test]
fn messages_that_share_an_id_keep_their_rows() {
    let corpus = tempfile::tempdir().unwrap();
    for (file, sender, text) in [("1", "ann", "one"), ("2", "ben", "two"), ("3", "ann", "three")] {
        let mail = format!(
            "From: {sender}@contoso.example\nTo: x@elsewhere.example\nDate: Mon, 2 Nov 2026 10:00:00 +0000\n\
             Message-ID: <same@contoso.example>\nSubject: s\nMIME-Version: 1.0\n\
             Content-Type: text/csv; name=\"list.csv\"\nContent-Disposition: attachment; filename=\"list.csv\"\n\n{text}\n"
        );
        crate::support::write(&corpus.path().join(format!("{file}.eml")), mail);
    }
    let tenant = crate::support::Tenant::start(&["--corpus", corpus.path().to_str().unwrap(), "--shift-dates", "now"]);
    let lake = crate::support::Lake::temp();
    lake.add(&tenant, "mail", &[]);
    lake.run_done("mail");
    lake.run_done("mail");
    assert_eq!(lake.count("SELECT count(*) FROM file_events"), 3);
    assert_eq!(lake.count("SELECT count(DISTINCT sha256) FROM file_events"), 3);
}
