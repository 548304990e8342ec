//! Where other collectors were seen to lose or double data, or to stop: each fault is a test.
//!
//! The sources are in their code and their issue trackers: Elastic's o365 integration, ddbnl's collector, Matano's puller,
//! Sentinel's function app, and the threads that their users opened.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use chrono::{Duration, SubsecRound as _};
use futures::TryStreamExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use waybill::clock::Clock;
use waybill::error::Code;
use waybill::source::memory::Call;
use waybill::source::{ContentBlob, Source as _, Window};

use crate::inner::simulated::{Simulated, fault, mail, now};
use crate::inner::{Tenant, count, expected, query, record};
use crate::nothing_hidden::new_lake;
use crate::support;

/// A tenant with enough blobs that some of them can fail.
async fn tenant() -> Simulated {
    Simulated::generated("users=4,messages=40,attachments=1,size=300").await
}

/// What the feed lists now.
async fn blobs(tenant: &Simulated) -> Vec<ContentBlob> {
    let end = now().trunc_subsecs(0);
    let window = Window::new(end - Duration::hours(24), end).unwrap();
    tenant.source(Clock::System).list(window).await.unwrap()
}

/// A fault for one blob, for every window that holds its last record.
fn of_blob(blob: &ContentBlob, action: impl Into<Value>) -> Value {
    json!({"on": "blob", "match": blob.id.split('$').nth(1).unwrap(), "do": action.into()})
}

fn statuses(tenant: &Simulated, kind: &str) -> BTreeSet<u16> {
    tenant.simulator.report().requests.get(kind).into_iter().flat_map(|statuses| statuses.keys().copied()).collect()
}

// ---- What loses data -----------------------------------------------------------------------------------------------

/// Elastic: when a blob answered with an error, the cursor still moved to the newest blob of the list.
/// Provoked: the first of the blobs cannot be had, its neighbours can; then it heals.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_fails_while_its_neighbours_succeed_is_read_by_a_later_run() {
    let actions = [json!({"error": "AF20052"}), json!("truncated_json"), json!({"content_type": "text/html"})];
    futures::future::join_all(actions.map(|action| async move {
        let tenant = tenant().await;
        let blobs = blobs(&tenant).await;
        assert!(blobs.len() > 5);
        tenant.faults(json!([of_blob(&blobs[1], action.clone())]));
        let report = tenant.run().await;
        let is_harmless = action == json!({"content_type": "text/html"});
        let (exit, failed) = if is_harmless { (0, 0) } else { (3, 1) };
        assert_eq!(report["exit_code"], exit, "{action}: {report:#}");
        assert_eq!(
            (report["blobs_failed"].as_i64(), report["owed"]["blobs"].as_i64()),
            (Some(failed), Some(failed)),
            "{action}"
        );
        // Still broken: still owed, and nothing new is lost or doubled.
        let report = tenant.run().await;
        assert_eq!(report["owed"]["blobs"], failed, "{action}: {report:#}");
        tenant.faults(json!([]));
        tenant.run_done().await;
        tenant.assert_complete().await;
    }))
    .await;
}

/// ddbnl: a blob is written down as known before it is parsed, and one that cannot be parsed is never read again.
/// Provoked: the body breaks off in each of several ways, at every blob's first read in a run, and in the next run not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_is_known_only_once_it_was_read_to_its_end() {
    let actions =
        [json!("truncated_json"), json!({"truncate": 700}), json!({"reset": 900}), json!({"short_body": 1200})];
    futures::future::join_all(actions.map(|action| async move {
        let tenant = tenant().await;
        let blobs = blobs(&tenant).await;
        tenant.faults(json!([of_blob(&blobs[0], action.clone()), of_blob(&blobs[3], action.clone())]));
        let report = tenant.run().await;
        assert_eq!(
            (report["exit_code"].as_i64(), report["owed"]["blobs"].as_i64()),
            (Some(3), Some(2)),
            "{action}: {report:#}"
        );
        tenant.faults(json!([]));
        tenant.run_done().await;
        tenant.assert_complete().await;
    }))
    .await;
}

/// Sentinel's function app: the checkpoint is overwritten before anything is fetched.
/// Provoked: the run ends in the middle of the first blob, by an error that ends runs; then it heals.
#[tokio::test]
async fn a_checkpoint_never_says_more_than_was_read() {
    for call in [Call::List, Call::Read, Call::ReadHalf, Call::Find, Call::Open] {
        let (tenant, lake) = (Tenant::new(), new_lake().await);
        let sends: Vec<(u32, Vec<&str>)> = (1..9).map(|number| (number, vec!["a.txt"])).collect();
        for (number, names) in &sends {
            tenant
                .source
                .publish(tenant.at(-20) + Duration::seconds(i64::from(*number) * 20), tenant.send(*number, names));
        }
        tenant.source.fail_always(call, Some(Code::PermissionMissing));
        let report = tenant.run(&lake).await.unwrap();
        assert_eq!(
            (report.exit_code, report.error.as_ref().map(|error| error.code)),
            (12, Some("permission-missing")),
            "{call:?}"
        );
        tenant.source.fail_always(call, None);
        tenant.clock.set(tenant.at(60));
        assert_eq!(tenant.run(&lake).await.unwrap().exit_code, 0, "{call:?}");
        assert_eq!(crate::inner::actual(&lake).await, expected(&sends), "{call:?}");
    }
}

/// Sentinel's function app reads the header `NextPageUrl`, which the API does not send: page two was never read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_of_a_listing_is_read_empty_ones_too() {
    let tenant =
        Simulated::start(&["users=4,messages=40,attachments=1,size=300"], |options| options.page_blobs = 1).await;
    tenant.faults(json!([{"on": "list", "after": 2, "times": 2, "do": "empty_page"}]));
    let report = tenant.run_done().await;
    assert!(tenant.simulator.report().count("list") > report["blobs"].as_u64().unwrap(), "a page for each blob");
    tenant.assert_complete().await;
}

/// HTTP does not care for the case of a header's name, and the API was seen to write this one in several.
/// Provoked: a gateway before the feed that writes it as nobody does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_page_is_found_however_its_header_is_written() {
    let tenant =
        Simulated::start(&["users=4,messages=40,attachments=1,size=300"], |options| options.page_blobs = 1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(rewrite_next_page(listener, tenant.simulator.address()));
    let end = now().trunc_subsecs(0);
    let window = Window::new(end - Duration::hours(24), end).unwrap();
    let blobs = tenant.source_behind(Clock::System, &gateway).list(window).await.unwrap();
    let mut wanted = tenant.source(Clock::System).list(window).await.unwrap();
    assert!(wanted.len() > 5);
    wanted.iter_mut().for_each(|blob| blob.uri = blob.uri.replace(&tenant.simulator.announcement().activity, &gateway));
    assert_eq!(blobs, wanted);
}

/// A gateway that passes everything on and writes one header's name in its own way.
async fn rewrite_next_page(listener: TcpListener, to: SocketAddr) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut requests, mut to_client) = client.into_split();
            let (mut answers, mut to_service) = TcpStream::connect(to).await.unwrap().into_split();
            tokio::spawn(async move { tokio::io::copy(&mut requests, &mut to_service).await });
            let mut piece = vec![0; 1 << 20];
            while let Ok(read @ 1..) = answers.read(&mut piece).await {
                // The head of an answer comes in one piece.
                if let Some(at) = memchr::memmem::find(&piece[..read], b"nextpageuri") {
                    piece[at..at + 11].copy_from_slice(b"nEXTpAGEuRI");
                }
                to_client.write_all(&piece[..read]).await.unwrap();
            }
        });
    }
}

/// Elastic: the next window starts a second after the newest blob, so a second blob of that second is never listed.
/// Provoked: dozens of blobs in one second, or in one millisecond, read by one run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_of_one_second_and_of_one_millisecond_are_all_read() {
    for span in [std::time::Duration::from_millis(900), std::time::Duration::from_micros(500)] {
        let tenant = Simulated::start(&["users=4,messages=40,attachments=1,size=300"], |options| {
            options.content_over = span;
            options.blob_records = 1;
        })
        .await;
        // Until the second in which they became available is over.
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        let blobs = blobs(&tenant).await;
        assert_eq!(blobs.len(), 40);
        let times: BTreeSet<_> = blobs.iter().map(|blob| blob.created).collect();
        assert!(span.as_millis() > 0 || times.len() <= 2, "{times:?}");
        tenant.run_done().await;
        tenant.assert_complete().await;
    }
}

/// The same across windows: runs follow each other within seconds while mail is sent all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_becomes_available_between_two_runs_is_in_one_of_them() {
    let tenant = Simulated::generated("users=2,messages=4,attachments=1,size=300").await;
    let sending = async {
        for number in 0..24 {
            tenant
                .send(mail(
                    "ann@contoso.example",
                    &format!("<{number}@contoso.example>"),
                    "a.txt",
                    &format!("file {number}"),
                ))
                .await;
            tokio::time::sleep(std::time::Duration::from_millis(90)).await;
        }
    };
    let running = async {
        for _ in 0..6 {
            tenant.run_done().await;
            tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        }
    };
    tokio::join!(sending, running);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    tenant.run_done().await;
    tenant.assert_complete().await;
}

/// The end of a window is not part of it: what became available in that very instant belongs to the next one.
#[tokio::test]
async fn a_blob_created_exactly_at_the_end_of_a_window_belongs_to_the_next() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    tenant.source.publish(tenant.at(0), tenant.send(1, &["edge.txt"]));
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.exit_code, report.blobs, report.events), (0, 0, 0));
    tenant.clock.set(tenant.at(1));
    assert_eq!(tenant.run(&lake).await.unwrap().events, 1);
    tenant.clock.set(tenant.at(2));
    assert_eq!(tenant.run(&lake).await.unwrap().events, 0);
    assert_eq!(crate::inner::actual(&lake).await, expected(&[(1, vec!["edge.txt"])]));
}

/// Microsoft: content may be listed long after it was created, with its old time; a cursor has passed it by then.
/// Provoked: a third of the records is listed two seconds after the first run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_that_are_listed_late_are_read_by_a_later_run() {
    let tenant = tenant().await;
    tenant.faults(json!([{"do": {"late": {"share": 0.4, "seconds": 3}}}]));
    tenant.run_done().await;
    let early: usize = tenant.actual().await.values().map(Vec::len).sum();
    let all: usize = tenant.expected().await.values().map(Vec::len).sum();
    assert!(early < all, "{early} of {all}");
    tokio::time::sleep(std::time::Duration::from_millis(3100)).await;
    tenant.run_done().await;
    tenant.assert_complete().await;
}

/// Elastic: a first start more than 168 hours back fails for ever; a window of more than 24 hours is refused.
/// Provoked: a tenant with content of six days, and a connection that starts nine days back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_are_at_most_a_day_and_never_start_before_the_feeds_memory() {
    let mut tenant = Simulated::start(&["users=4,messages=60,days=6,attachments=1,size=300"], |options| {
        options.content_over = std::time::Duration::from_secs(6 * 24 * 3600);
    })
    .await;
    tenant.since = now() - Duration::days(9);
    let report = tenant.run().await;
    assert_eq!((report["exit_code"].as_i64(), report["gaps"].as_i64()), (Some(3), Some(1)), "{report:#}");
    assert_eq!(report["windows"], 7, "{report:#}");
    assert_eq!(statuses(&tenant, "list"), BTreeSet::from([200]), "no listing was refused");
    assert_eq!(query(&tenant.lake, "SELECT kind FROM gaps").await, [json!({"kind": "feed_memory"})]);
    tenant.assert_complete().await;
    assert_eq!(tenant.run_done().await["gaps"], 0);
}

/// Elastic since 2.3.1: what has expired is not asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_has_expired_is_not_even_asked_for() {
    let tenant = tenant().await;
    let blob = blobs(&tenant).await.remove(0);
    let asked = tenant.simulator.report().count("blob");
    let late = tenant.source(Clock::manual(blob.expires));
    let error = late.read(&blob).try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.code(), Code::ContentExpired);
    assert_eq!(tenant.simulator.report().count("blob"), asked);
}

/// A blob expires between its listing and its fetch: one gap, and its neighbours are read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_expires_between_listing_and_fetch_is_a_gap_and_its_neighbours_are_read() {
    let tenant = tenant().await;
    let blobs = blobs(&tenant).await;
    tenant.faults(json!([of_blob(&blobs[2], "expire_blob")]));
    let report = tenant.run().await;
    assert_eq!(
        (report["exit_code"].as_i64(), report["gaps"].as_i64(), report["owed"]["blobs"].as_i64()),
        (Some(3), Some(1), Some(0))
    );
    let gaps = query(&tenant.lake, "SELECT kind, content_blob_id FROM gaps").await;
    assert_eq!(gaps.len(), 1);
    assert_eq!(
        (gaps[0]["kind"].as_str(), gaps[0]["content_blob_id"].as_str()),
        (Some("blob"), Some(blobs[2].id.as_str()))
    );
    let (actual, expected) = (tenant.actual().await, tenant.expected().await);
    assert!(actual.len() < expected.len() && actual.iter().all(|(key, hashes)| expected.get(key) == Some(hashes)));
    assert!(expected.len() - actual.len() <= 5, "no more than its own records");
    assert_eq!(tenant.run_done().await["events"], 0);
}

// ---- What doubles data ---------------------------------------------------------------------------------------------

/// Microsoft's FAQ: the API does not remove duplicates, the consumer must. Peers do so within one window, or not at all.
/// Provoked: records repeated inside a blob, in other blobs of the same window, in a later window, and in a later run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_repeated_in_a_blob_across_blobs_windows_and_runs_are_one_row() {
    let mut tenant = Simulated::start(&["users=4,messages=40,days=2,attachments=2,size=300"], |options| {
        options.content_over = std::time::Duration::from_secs(36 * 3600);
    })
    .await;
    tenant.since = now() - Duration::hours(40);
    for (index, seconds) in [-600, 3600, 26 * 3600, 1].into_iter().enumerate() {
        tenant.faults(json!([fault("blob", "duplicates"), fault("blob", "shuffle"), {"do": {"repeated": {"share": 0.6, "seconds": seconds}}}]));
        let report = tenant.run_done().await;
        if index == 0 {
            assert!(report["duplicates"].as_u64() > Some(20), "{report:#}");
        } else {
            assert_eq!(report["events"], 0, "{report:#}");
        }
    }
    tenant.assert_complete().await;
    assert_eq!(count(&tenant.lake, "SELECT count(*) - count(DISTINCT event_id) FROM file_events").await, 0);
}

/// Other windows cut the same records into other blobs with other ids.
/// Provoked: one lake is filled by one run over the day, another by a run per window; a third forgets what it has seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_that_are_cut_otherwise_give_the_same_rows() {
    let mut tenant = tenant().await;
    let whole = blobs(&tenant).await;
    // A blob holds five records, a minute and a half apart.
    let middle = whole[whole.len() / 2].created.trunc_subsecs(0) - Duration::seconds(200);
    let end = now().trunc_subsecs(0);
    let source = tenant.source(Clock::System);
    let mut parts = source.list(Window::new(end - Duration::hours(24), middle).unwrap()).await.unwrap();
    parts.extend(source.list(Window::new(middle, end).unwrap()).await.unwrap());
    let ids = |blobs: &[ContentBlob]| blobs.iter().map(|blob| blob.id.clone()).collect::<BTreeSet<_>>();
    assert_ne!(ids(&parts), ids(&whole), "the windows cut otherwise");
    tenant.run_done().await;
    // Another connection's state on the same rows: every record comes again, in blobs with other ids.
    tenant.since = middle;
    tenant.forget();
    let report = tenant.run_done().await;
    assert!(report["sends_met"].as_u64() > Some(0), "{report:#}");
    assert_eq!(report["events"], 0, "{report:#}");
    assert_eq!(report["events_doubled"], report["hashed"]);
    tenant.assert_complete().await;
}

// ---- What stops the run, or accuses wrongly --------------------------------------------------------------------------

/// ddbnl and Matano: one token per run; a run longer than its life fails in the middle.
/// Provoked: tokens become void at listings, blobs, look-ups and downloads, and live for two seconds only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_expires_in_the_middle_of_a_run_is_renewed() {
    let tenant = tenant().await;
    tenant.faults(json!([
        {"on": "token", "do": {"expires_in": 2}},
        {"on": "list", "times": 1, "do": "expire_token"},
        {"on": "blob", "after": 3, "times": 1, "do": "expire_token"},
        {"on": "find", "after": 5, "times": 1, "do": "expire_token"},
        {"on": "attachment_value", "after": 15, "times": 1, "do": "expire_token"},
    ]));
    tenant.run_done().await;
    tenant.assert_complete().await;
    for kind in ["list", "blob", "find", "attachment_value"] {
        assert!(statuses(&tenant, kind).contains(&401), "{kind}");
    }
    assert!(tenant.simulator.report().count("token") > 4);
}

/// The feed throttles with 403 and the code AF429, which peers take for missing consent and stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttling_in_the_clothes_of_a_403_is_waited_for_and_not_taken_for_missing_consent() {
    let tenant = tenant().await;
    tenant.faults(json!([
        {"on": "subscriptions", "times": 1, "do": "af429"},
        {"on": "list", "times": 2, "do": "af429"},
        {"on": "blob", "after": 1, "times": 3, "do": "af429"},
    ]));
    let report = tenant.run_done().await;
    assert!(report["throttled"].as_u64() >= Some(5), "{report:#}");
    assert!(report["throttled_ms"].as_u64() > Some(0), "{report:#}");
    tenant.assert_complete().await;
}

/// Throttling and failures of every service, with a time to wait, with a date, without either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttling_and_faults_with_and_without_a_time_to_wait_slow_down_and_lose_nothing() {
    let tenant = tenant().await;
    tenant.faults(json!([
        {"on": "token", "times": 1, "do": {"status": 503}},
        {"on": "list", "times": 1, "do": {"status": 429, "retry_after": 1}},
        {"on": "blob", "times": 1, "do": {"status": 503, "retry_after": 1}},
        {"on": "blob", "after": 3, "times": 1, "do": {"status": 429}},
        {"on": "blob", "after": 5, "times": 1, "do": {"error": "AF50000"}},
        {"on": "find", "times": 2, "do": {"status": 429, "retry_after": 1}},
        {"on": "find", "after": 6, "times": 2, "do": {"status": 429}},
        {"on": "find", "after": 12, "times": 1, "do": "mailbox_moving"},
        {"on": "attachment_value", "times": 2, "do": {"status": 503}},
        {"on": "attachment_value", "after": 4, "times": 1, "do": {"status": 429, "retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"}},
        {"on": "attachment_value", "after": 6, "times": 1, "do": {"reset": 10}},
    ]));
    tenant.run_done().await;
    tenant.assert_complete().await;
    let faults = tenant.simulator.report().faults;
    assert!(faults["status 429"] >= 6 && faults["status 503"] >= 3, "{faults:?}");
}

/// A run that is throttled for long goes on with what it can have, says what it owes, and does not fail.
#[tokio::test]
async fn throttling_that_outlasts_the_run_is_owed_and_no_failure() {
    for call in [Call::List, Call::Read, Call::ReadHalf, Call::Find, Call::Open, Call::OpenHalf] {
        let (tenant, lake) = (Tenant::new(), new_lake().await);
        tenant.source.publish(tenant.at(-10), tenant.send(1, &["a.txt"]));
        tenant.source.publish(tenant.at(-5), tenant.send(2, &["b.txt"]));
        tenant.source.fail_always(call, Some(Code::Throttled));
        let report = tenant.run(&lake).await.unwrap();
        assert_eq!((report.exit_code, report.error.is_none()), (3, true), "{call:?}");
        let owed = report.owed;
        assert!(owed.blobs + owed.messages + owed.hashes + owed.windows > 0, "{call:?}");
        tenant.source.fail_always(call, None);
        assert_eq!(tenant.run(&lake).await.unwrap().exit_code, 0, "{call:?}");
        assert_eq!(crate::inner::actual(&lake).await, expected(&[(1, vec!["a.txt"]), (2, vec!["b.txt"])]), "{call:?}");
    }
}

/// Graph allows four requests at once on one mailbox; users of twenty threads meet `MailboxConcurrency`.
/// Provoked: two mailboxes with many attachments each, and a service that takes its time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_mailbox_ever_sees_more_than_four_requests_at_once() {
    let tenant = Simulated::generated("users=2,messages=40,attachments=3,size=40k").await;
    tenant.faults(json!([
        {"on": "mail", "do": {"latency_ms": 15}},
        {"on": "attachment_value", "every": 4, "do": {"slow_body": {"bytes": 8192, "ms": 5}}},
        {"on": "attachment_value", "every": 13, "do": {"reset": 9000}},
    ]));
    let report = tenant.run_done().await;
    let simulator = tenant.simulator.report();
    assert_eq!(
        simulator.mailbox_concurrency_max, 4,
        "all four places are used, and never a fifth: {:?}",
        simulator.mailbox_concurrency
    );
    assert_eq!(simulator.throttled, 0);
    assert!(simulator.mail_concurrency_max > 4, "mailboxes are read side by side");
    assert_eq!(report["throttled"], 0);
    tenant.assert_complete().await;
}

/// Hawk, DFIR tools: auditing is off, and the answer is an empty result. The code is half of a sentence.
#[test]
fn auditing_that_is_switched_off_ends_with_12_and_the_hint_for_it() {
    let faults = support::Lake::temp();
    let file =
        support::write(&faults.beside().join("faults.json"), json!([fault("start", "auditing_disabled")]).to_string());
    let tenant = support::Tenant::start(&[
        "--generate",
        "users=2,messages=4",
        "--subscription",
        "off",
        "--faults",
        file.to_str().unwrap(),
    ]);
    let lake = support::Lake::temp();
    lake.add(&tenant, "Test", &[]);
    let output = lake.run_command("Test").output().unwrap();
    let (exit, report) = support::ended(&output);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(exit, 12, "{errors}");
    let hint = Code::AuditingDisabled.hint().unwrap();
    assert_eq!(
        (report["error"]["code"].as_str(), report["error"]["hint"].as_str()),
        (Some("auditing-disabled"), Some(hint))
    );
    assert!(errors.contains(hint), "{errors}");
    let run = &lake.sql("SELECT outcome, exit_code, error FROM runs")[0];
    assert_eq!((run["outcome"].as_str(), run["exit_code"].as_i64()), (Some("failed"), Some(12)), "{run}");
}

/// ddbnl: a refused sign-in shows as "missing field `access_token`". The service says exactly what is wrong.
#[test]
fn a_refused_sign_in_is_shown_in_the_services_own_words_with_the_right_hint() {
    let tenant = support::Tenant::start(&["--generate", "users=2,messages=4"]);
    let lake = support::Lake::temp();
    lake.add(&tenant, "Test", &[]);
    for (number, code) in [
        (7000215, Code::SecretRefused),
        (7000222, Code::SecretExpired),
        (700016, Code::ApplicationMissing),
        (90002, Code::TenantUnknown),
        (53003, Code::PermissionMissing),
    ] {
        tenant.faults(&json!([fault("token", json!({"error": number}))]));
        let output = lake.run_command("Test").output().unwrap();
        let (exit, report) = support::ended(&output);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!((exit, report["error"]["code"].as_str()), (12, Some(code.as_str())), "{errors}");
        assert!(report["error"]["message"].as_str().unwrap().contains(&format!("AADSTS{number}")), "{report:#}");
        assert!(errors.contains(&format!("AADSTS{number}")) && errors.contains(code.hint().unwrap()), "{errors}");
        assert!(!errors.contains("missing field") && !errors.contains("panicked"), "{errors}");
    }
    tenant.faults(&json!([]));
    lake.run_done("Test");
}

/// Users' complaint: no logs at the first run. The first content may take twelve hours, and an empty feed is no error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_feed_is_no_error_and_what_comes_later_is_read() {
    let tenant = tenant().await;
    tenant.faults(json!([{"do": {"delayed": {"share": 1.0, "seconds": 2}}}]));
    let report = tenant.run_done().await;
    assert_eq!((report["blobs"].as_i64(), report["events"].as_i64()), (Some(0), Some(0)), "{report:#}");
    tokio::time::sleep(std::time::Duration::from_millis(3100)).await;
    tenant.run_done().await;
    tenant.assert_complete().await;
}

// ---- Odd records -------------------------------------------------------------------------------------------------

/// The `Attachments` strings that were seen in the field, and those that can be made up.
const ODD: &[(&str, &[&str])] = &[
    ("plain.pdf (123b); b.png (9b)", &["plain.pdf", "b.png"]),
    (
        "AttachedImage (3165b); AttachedImage (1642b); AttachedImage (2603b); AttachedImage (5423b)",
        &["AttachedImage"; 4],
    ),
    ("04bab714-753c-44dd-8e72-124bd16e077b (2242b)", &["04bab714-753c-44dd-8e72-124bd16e077b"]),
    (
        "Project Gamma - plan v2 (Draft 04_04_2024)(100112233.7).docx (73728b); tps (report) 1.docx (1024b)",
        &["Project Gamma - plan v2 (Draft 04_04_2024)(100112233.7).docx", "tps (report) 1.docx"],
    ),
    (
        r"C:\Users\ann\AppData\Local\Content.Outlook\ABCDEF\1.pdf (9731941b)",
        &[r"C:\Users\ann\AppData\Local\Content.Outlook\ABCDEF\1.pdf"],
    ),
    ("a; b.txt (10b); c.txt (20b)", &["a; b.txt", "c.txt"]),
    ("size (12b).txt (30b)", &["size (12b).txt"]),
    ("(12b) (40b)", &["(12b)"]),
    ("\u{202e}fdp.exe (50b); Übersicht ☃.xlsx (60b)", &["\u{202e}fdp.exe", "Übersicht ☃.xlsx"]),
    ("no size at all.txt", &["no size at all.txt"]),
];

fn odd_records() -> Vec<String> {
    ODD.iter()
        .enumerate()
        .map(|(number, (attachments, _))| {
            json!({
                "CreationTime": (now() - Duration::days(20) + Duration::seconds(number as i64)).format("%Y-%m-%dT%H:%M:%S").to_string(),
                "Id": format!("00000000-0000-0000-0000-{number:012}"), "Operation": "Send", "RecordType": "2", "Workload": "Exchange",
                "ResultStatus": "Succeeded", "UserId": "ann@contoso.example", "MailboxOwnerUPN": "ann@contoso.example", "LogonType": "0",
                "OriginatingServer": "AM0PR04MB1 (15.20.4200.000)\r\n",
                "Item": {"Id": "Unknown", "InternetMessageId": format!("<{number}@contoso.example>"), "Subject": "s", "Attachments": attachments},
            })
            .to_string()
        })
        .collect()
}

/// Exports hold exact duplicates, names hold their own separators, and the messages are long gone.
/// Provoked: the same records as JSON lines, as a JSON array and as Purview's CSV, each with duplicates.
#[test]
fn odd_attachment_strings_of_exports_are_one_row_per_named_attachment() {
    let records = odd_records();
    let cell = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let twice = || records.iter().chain(records.iter().step_by(2));
    let table = twice()
        .map(|record| format!("{},2026-01-01T00:00:00Z,2,Send,ann@contoso.example,{},,", cell("id"), cell(record)));
    let header =
        "RecordId,CreationDate,RecordType,Operation,UserId,AuditData,AssociatedAdminUnits,AssociatedAdminUnitsNames";
    let formats = [
        ("lines.json", twice().cloned().collect::<Vec<_>>().join("\n")),
        ("array.json", format!("[{}]", twice().cloned().collect::<Vec<_>>().join(",\n"))),
        ("purview.csv", format!("\u{feff}{header}\r\n{}\r\n", table.collect::<Vec<_>>().join("\r\n"))),
    ];
    let mut wanted: Vec<(String, String)> = Vec::new();
    for (number, (_, names)) in ODD.iter().enumerate() {
        wanted.extend(names.iter().map(|name| (format!("<{number}@contoso.example>"), (*name).to_owned())));
    }
    wanted.sort();
    for (name, text) in formats {
        let lake = support::Lake::temp();
        let file = support::write(&lake.beside().join(name), text);
        let tenant = support::Tenant::start(&["--audit", file.to_str().unwrap()]);
        lake.add(&tenant, "Test", &[]);
        let (exit, report) = lake.run("Test");
        assert_eq!((exit, report["duplicates"].as_u64()), (3, Some(5)), "{name}: {report:#}");
        let rows = lake.sql("SELECT internet_message_id, coalesce(file_path, file_name) AS name, file_name, hash_status, hash_error FROM file_events");
        let mut found: Vec<(String, String)> = rows
            .iter()
            .map(|row| {
                (row["internet_message_id"].as_str().unwrap().to_owned(), row["name"].as_str().unwrap().to_owned())
            })
            .collect();
        found.sort();
        assert_eq!(found, wanted, "{name}");
        assert!(rows.iter().all(|row| row["hash_status"] == "unavailable"
            && row["hash_error"].as_str().unwrap().starts_with("message-missing: ")));
        assert!(rows.iter().any(|row| row["file_name"] == "1.pdf"), "a path's last part is the file's name");
        lake.run_done("Test");
        assert_eq!(lake.count("SELECT count(*) FROM file_events"), wanted.len() as i64);
    }
}

/// One row for each attachment, and the same rows whatever the order in which the records come.
#[tokio::test]
async fn a_send_that_several_records_report_is_one_row_that_names_them() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    let first = tenant.send(1, &["a.txt"]);
    let mut second = record(1, &["a.txt"]);
    second.id = "another-record-of-the-same-send".to_owned();
    tenant.source.publish(tenant.at(-10), first.clone());
    tenant.source.publish(tenant.at(-10), second.clone());
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.exit_code, report.events, report.sends_met, report.sends_claimed), (0, 1, 2, 1));
    let row = &query(&lake, "SELECT audit_record_ids FROM file_events").await[0];
    let ids: BTreeSet<&str> =
        row["audit_record_ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!(ids, BTreeSet::from([first.id.as_str(), second.id.as_str()]));
}
