//! The Microsoft 365 source against the simulated tenant, over HTTP: what it finds, what it costs, and what it makes of
//! faults.

#![expect(clippy::unwrap_used, reason = "what a test cannot set up fails it")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{SubsecRound, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use waybill::clock::{Clock, Time};
use waybill::error::{Code, Error};
use waybill::secret::SecretPlace;
use waybill::simulator::{Content, Faults, Options, Running, Subscription, start};
use waybill::source::microsoft365::{Cloud, Credential, Microsoft365, Overrides, Settings};
use waybill::source::{
    Application, AttachmentKind, AttachmentRef, ContentBlob, Feed, Message, Operation, RecordChunk, ResolvedScope,
    Scope, SendRecord, Source, Window,
};

/// A simulated tenant and a client of it.
struct Tenant {
    simulator: Running,
    source: Microsoft365,
    _files: tempfile::TempDir,
}

#[expect(clippy::disallowed_methods, reason = "the simulator lives in real time")]
fn now() -> Time {
    Utc::now()
}

fn settings(simulator: &Running, files: &tempfile::TempDir) -> Settings {
    let announcement = simulator.announcement();
    let secret = files.path().join("secret");
    std::fs::write(&secret, &announcement.client_secret).unwrap();
    let mut overrides = Overrides::default();
    overrides.set("login", &announcement.login).unwrap();
    overrides.set("graph", &announcement.graph).unwrap();
    overrides.set("activity", &announcement.activity).unwrap();
    Settings {
        application: Application {
            tenant_id: announcement.tenant_id.parse().unwrap(),
            client_id: announcement.client_id.parse().unwrap(),
        },
        credential: Credential::Secret(SecretPlace::File(secret)),
        cloud: Cloud::Worldwide,
        overrides,
        clock: Clock::System,
    }
}

async fn tenant_of(options: Options) -> Tenant {
    let files = tempfile::tempdir().unwrap();
    let simulator = start(options).await.unwrap();
    let source = Microsoft365::new(settings(&simulator, &files)).unwrap();
    Tenant { simulator, source, _files: files }
}

/// A generated tenant in which every record is a send.
async fn tenant(generate: &str, faults: Value) -> Tenant {
    let generate = format!("sends=1,{generate}").parse().unwrap();
    let mut options = Options::default();
    options.content = vec![Content::Generate(generate)];
    options.faults = Some(Faults::parse(faults).unwrap());
    options.blob_records = 10;
    tenant_of(options).await
}

fn recent() -> Window {
    let now = now().trunc_subsecs(0);
    Window::new(now - chrono::Duration::hours(3), now + chrono::Duration::seconds(1)).unwrap()
}

async fn read(source: &Microsoft365, blob: &ContentBlob) -> Result<RecordChunk, Error> {
    let mut all = RecordChunk::default();
    let mut chunks = source.read(blob);
    while let Some(chunk) = chunks.try_next().await? {
        all.records += chunk.records;
        all.bytes += chunk.bytes;
        all.sends.extend(chunk.sends);
        all.unreadable.extend(chunk.unreadable);
    }
    Ok(all)
}

async fn sends(source: &Microsoft365) -> Vec<SendRecord> {
    let mut sends = Vec::new();
    for blob in source.list(recent()).await.unwrap() {
        sends.extend(read(source, &blob).await.unwrap().sends);
    }
    sends
}

fn attachments(message: &Message) -> impl Iterator<Item = AttachmentRef> {
    message.attachments.iter().map(|attachment| AttachmentRef {
        mailbox: message.mailbox.clone(),
        message_id: message.id.clone(),
        attachment_id: attachment.id.clone(),
        kind: attachment.kind,
    })
}

async fn bytes(source: &Microsoft365, attachment: &AttachmentRef) -> Result<Vec<u8>, Error> {
    let body = source.open(attachment).await?;
    let bytes = body.bytes.try_fold(Vec::new(), |mut all, chunk| async move {
        all.extend_from_slice(&chunk);
        Ok(all)
    });
    bytes.await
}

/// The cost is the promise: one request per send, one per attachment, and what the feed itself needs.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_run_costs_one_request_per_send_and_one_per_attachment() {
    let Tenant { simulator, source, _files } =
        tenant("users=5,messages=60,days=0.1,size=70000,attachments=1.2", json!([])).await;
    assert_eq!(source.prepare().await.unwrap(), Feed::On);
    let blobs = source.list(recent()).await.unwrap();
    let chunks: Vec<RecordChunk> = stream::iter(&blobs).then(|blob| read(&source, blob)).try_collect().await.unwrap();
    let sends: Vec<SendRecord> = chunks.into_iter().flat_map(|chunk| chunk.sends).collect();
    assert_eq!(sends.len(), 60);
    let source = Arc::new(source);
    let messages: Vec<Vec<Message>> =
        stream::iter(&sends).map(|send| source.find(send)).buffered(64).try_collect().await.unwrap();
    assert!(messages.iter().zip(&sends).all(|(found, send)| found.len() == 1
        && Some(&found[0].internet_message_id) == send.internet_message_id.as_ref()
        && (found[0].sent - send.created).abs() < chrono::Duration::minutes(10)
        && found[0].attachments.len() == send.attachments.len()));
    let wanted: Vec<AttachmentRef> = messages.iter().flatten().flat_map(attachments).collect();
    assert!(wanted.len() > 40);
    let sizes: Vec<usize> = stream::iter(&wanted)
        .map(|one| bytes(&source, one))
        .buffered(64)
        .map_ok(|bytes| bytes.len())
        .try_collect()
        .await
        .unwrap();
    assert!(sizes.iter().all(|size| *size == 70_000));
    let report = simulator.report();
    assert_eq!(report.count("find"), sends.len() as u64);
    assert_eq!(report.count("attachment_value"), wanted.len() as u64);
    assert_eq!(report.count("blob"), blobs.len() as u64);
    assert_eq!((report.count("token"), report.count("subscriptions"), report.count("list")), (2, 1, 1));
    assert_eq!(report.requests_total, (2 + 1 + 1 + blobs.len() + sends.len() + wanted.len()) as u64);
    assert_eq!((report.body_requests, report.feed_without_publisher, report.throttled), (0, 0, 0));
    assert!(report.mailbox_concurrency_max <= 4, "{report:?}");
    assert_eq!(
        report.user_agents,
        BTreeSet::from([format!("Waybill/{} (attachment hashing; audit collection)", env!("CARGO_PKG_VERSION"))])
    );
    assert_eq!(report.publisher_identifiers, BTreeSet::from([simulator.announcement().tenant_id.clone()]));
    let usage = source.usage();
    assert_eq!(usage.requests.values().sum::<u64>(), report.requests_total);
    assert_eq!((usage.retries, usage.throttled, usage.throttled_ms), (0, 0, 0));
    assert!(usage.bytes_received > 70_000 * wanted.len() as u64);
}

/// Every fault that a retry can heal, all at once: the same sends, messages and bytes come out.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_retry_can_heal_is_healed() {
    let faults = json!([
        {"on": "token", "times": 1, "do": {"status": 503, "retry_after": 1}},
        {"on": "subscriptions", "times": 1, "do": "af429"},
        {"on": "list", "times": 1, "do": "af429"},
        {"on": "list", "after": 1, "times": 1, "do": {"status": 500}},
        {"on": "blob", "times": 1, "do": {"status": 503, "retry_after": 1}},
        {"on": "blob", "after": 1, "times": 1, "do": {"reset": 2000}},
        {"on": "blob", "after": 3, "times": 1, "do": "truncated_json"},
        {"on": "blob", "after": 5, "times": 1, "do": "expire_token"},
        {"on": "blob", "after": 6, "times": 1, "do": {"short_body": 3000}},
        {"on": "blob", "every": 3, "do": "bom"},
        {"on": "blob", "every": 2, "do": "shuffle"},
        {"on": "find", "times": 1, "do": {"status": 429, "retry_after": 1}},
        {"on": "find", "after": 2, "times": 1, "do": {"status": 429}},
        {"on": "find", "after": 4, "times": 1, "do": "expire_token"},
        {"on": "find", "after": 6, "times": 1, "do": {"reset": 100}},
        {"on": "find", "after": 8, "times": 1, "do": "truncated_json"},
        {"on": "find", "after": 9, "times": 1, "do": "mailbox_moving"},
        {"on": "attachment_value", "times": 2, "do": "gateway_504"},
    ]);
    let Tenant { simulator, source, _files } = tenant("users=5,messages=40,days=0.1,size=30000", faults).await;
    assert_eq!(source.prepare().await.unwrap(), Feed::On);
    let blobs = source.list(recent()).await.unwrap();
    let mut ids = BTreeSet::new();
    let mut found = Vec::new();
    for blob in &blobs {
        let all = read(&source, blob).await.unwrap();
        // What a broken read gave is not counted twice.
        assert_eq!(all.records, all.sends.len() as u64);
        for send in all.sends {
            assert!(ids.insert(send.id.clone()), "a record came twice");
            found.extend(source.find(&send).await.unwrap());
        }
    }
    assert_eq!((ids.len(), found.len()), (40, 40));
    for attachment in found.iter().flat_map(attachments) {
        assert_eq!(bytes(&source, &attachment).await.unwrap().len(), 30_000);
    }
    let usage = source.usage();
    assert!(usage.throttled >= 6 && usage.throttled_ms >= 3000, "{usage:?}");
    assert!(usage.retries >= 12, "{usage:?}");
    assert_eq!(simulator.report().count("token"), 5, "two at first, one refused, two after the old ones were voided");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_holds_for_the_whole_application_is_found_and_kept() {
    let faults = json!([{"do": {"app_wide_concurrency": 4}}, {"on": "find", "do": {"latency_ms": 20}}]);
    let Tenant { simulator, source, _files } = tenant("users=40,messages=200,days=0.1,attachments=0", faults).await;
    let sends = sends(&source).await;
    let source = Arc::new(source);
    let found: Vec<Vec<Message>> =
        stream::iter(&sends).map(|send| source.find(send)).buffer_unordered(128).try_collect().await.unwrap();
    assert_eq!(found.into_iter().flatten().count(), 200);
    let report = simulator.report();
    assert!(report.throttled < 100, "{} of {} requests were refused", report.throttled, report.count("find"));
    assert_eq!(report.mailbox_concurrency_max.max(4), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_stays_broken_is_an_error_after_its_good_records() {
    let Tenant { source, simulator, _files } =
        tenant("messages=10,days=0.1", json!([{"on": "blob", "do": "truncated_json"}])).await;
    let blob = source.list(recent()).await.unwrap().remove(0);
    let chunks: Vec<Result<RecordChunk, Error>> = source.read(&blob).collect().await;
    let (good, bad): (Vec<_>, Vec<_>) = chunks.into_iter().partition(Result::is_ok);
    assert!(good.into_iter().map(|chunk| chunk.unwrap().sends.len()).sum::<usize>() > 3);
    assert_eq!(bad.len(), 1);
    assert_eq!(bad[0].as_ref().unwrap_err().code(), Code::ContentUnreadable);
    assert_eq!(simulator.report().count("blob"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_cannot_be_understood_are_handed_over_raw() {
    let faults = json!([{"on": "blob", "times": 1, "do": "malformed_record"}, {"on": "blob", "times": 1, "do": "record_without_id"},
        {"on": "blob", "times": 1, "do": "duplicates"}, {"on": "blob", "times": 1, "do": {"big_record": 3_000_000}}]);
    let Tenant { source, simulator: _simulator, _files } = tenant("messages=10,days=0.1", faults).await;
    let blobs = source.list(recent()).await.unwrap();
    let all = read(&source, &blobs[0]).await.unwrap();
    let reasons: BTreeSet<&str> = all.unreadable.iter().map(|record| record.reason.as_str()).collect();
    assert_eq!(reasons, BTreeSet::from(["the record names no operation", "the record has no `Id`"]));
    assert!(all.unreadable.iter().any(|record| record.raw.contains("not a time")));
    let ids: BTreeSet<&str> = all.sends.iter().map(|send| send.id.as_str()).collect();
    assert!(all.sends.len() > ids.len(), "the feed repeats itself and the source says so");
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_have_pages_and_windows_tile() {
    let mut options = Options::default();
    options.content = vec![Content::Generate("sends=1,messages=200,days=0.1".parse().unwrap())];
    options.blob_records = 5;
    options.page_blobs = 3;
    options.faults = Some(Faults::parse(json!([{"on": "list", "every": 4, "do": "empty_page"}])).unwrap());
    let Tenant { source, simulator, _files } = tenant_of(options).await;
    let window = recent();
    let whole = source.list(window).await.unwrap();
    assert!(whole.len() >= 40);
    assert!(whole.is_sorted_by_key(|blob| blob.created));
    assert!(simulator.report().count("list") >= 13);
    assert_eq!(source.list(window).await.unwrap(), whole, "equal boundaries give equal blobs");
    // Another cut gives other blobs over the same records. The middle is no whole second, which the feed cannot say.
    let middle = whole[whole.len() / 2].created + chrono::Duration::milliseconds(1);
    let mut ids = Vec::new();
    for part in [Window::new(window.start(), middle).unwrap(), Window::new(middle, window.end()).unwrap()] {
        for blob in source.list(part).await.unwrap() {
            assert!(part.start() <= blob.created && blob.created < part.end());
            ids.extend(read(&source, &blob).await.unwrap().sends.into_iter().map(|send| send.id));
        }
    }
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 200);
    // The service loses its place between two pages, and is asked from the beginning.
    simulator.set_faults(
        &Faults::parse(json!([{"on": "list", "after": 2, "times": 1, "do": {"error": "AF20031"}}])).unwrap(),
    );
    assert_eq!(source.list(window).await.unwrap(), whole);
    let long = Window::new(window.start() - chrono::Duration::hours(25), window.end()).unwrap();
    assert_eq!(source.list(long).await.unwrap_err().code(), Code::Internal);
    assert_eq!(simulator.report().feed_without_publisher, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_is_too_old_and_a_clock_that_is_wrong_are_told_apart() {
    let Tenant { source, simulator, _files } = tenant("messages=1", json!([])).await;
    let start = now().trunc_subsecs(0) - chrono::Duration::days(8);
    let old = Window::new(start, start + chrono::Duration::hours(1)).unwrap();
    let error = source.list(old).await.unwrap_err();
    assert_eq!(error.code(), Code::GapTooOld, "{error}");
    let mut settings = settings(&simulator, &_files);
    settings.clock = Clock::manual(now() - chrono::Duration::days(2));
    let skewed = Microsoft365::new(settings).unwrap();
    let error = skewed.list(old).await.unwrap_err();
    assert_eq!(error.code(), Code::ClockSkew, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_subscription_is_started_once_and_only_when_it_is_off() {
    let mut options = Options::default();
    options.content = vec![Content::Generate("sends=1,messages=5,days=0.1".parse().unwrap())];
    options.subscription = Subscription::Off;
    let Tenant { source, simulator, _files } = tenant_of(options).await;
    assert_eq!(source.prepare().await.unwrap(), Feed::Started);
    assert_eq!(source.prepare().await.unwrap(), Feed::On);
    assert_eq!(simulator.report().count("start"), 1);
    assert!(source.list(recent()).await.unwrap().is_empty(), "nothing from before the start is ever listed");
    assert!(!source.was_restarted());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_found_off_is_started_and_said() {
    for action in ["subscription_off", "subscription_disabled"] {
        let Tenant { source, simulator, _files } =
            tenant("messages=20,days=0.1", json!([{"on": "list", "times": 1, "do": action}])).await;
        assert_eq!(source.prepare().await.unwrap(), Feed::On);
        source.list(recent()).await.unwrap();
        assert!(source.was_restarted(), "{action}");
        assert_eq!(simulator.report().count("start"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_subscription_from_starting_is_named() {
    let cases = [
        (json!({"on": "start", "do": "auditing_disabled"}), Code::AuditingDisabled),
        (json!({"on": "start", "do": "start_429"}), Code::SubscriptionDisabled),
        (json!({"on": "start", "do": {"error": "AF10001"}}), Code::ConsentMissing),
        (json!({"on": "start", "do": {"error": "AF20010"}}), Code::TenantUnknown),
    ];
    for (fault, code) in cases {
        let mut options = Options::default();
        options.subscription = Subscription::Off;
        options.faults = Some(Faults::parse(json!([fault])).unwrap());
        let Tenant { source, simulator: _simulator, _files } = tenant_of(options).await;
        let error = source.prepare().await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_refuses_for_good_is_named() {
    let sends_of = async |faults: Value| {
        let tenant = tenant("users=2,messages=4,days=0.1,attachments=1", faults).await;
        let send = sends(&tenant.source).await.into_iter().find(|send| !send.attachments.is_empty()).unwrap();
        (tenant, send)
    };
    for (action, code) in [
        ("mailbox_denied", Code::MailboxDenied),
        ("mailbox_missing", Code::MailboxMissing),
        ("mailbox_alternating", Code::MailboxMissing),
    ] {
        let (tenant, send) = sends_of(json!([{"on": "mail", "do": action}])).await;
        let error = tenant.source.find(&send).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(&send.mailbox), "{error}");
        // A mailbox that is closed does not cost a token per message.
        tenant.source.find(&send).await.unwrap_err();
        assert!(tenant.simulator.report().count("token") <= 3);
    }
    for (action, code) in [
        (json!("reference"), Code::AttachmentHasNoBytes),
        (json!({"status": 405}), Code::AttachmentHasNoBytes),
        (json!({"status": 404}), Code::MessageMissing),
        (json!({"status": 403}), Code::MailboxDenied),
        (json!({"error": "ErrorInvalidIdMalformed"}), Code::AttachmentUnreadable),
        (json!({"reset": 10}), Code::ContentUnreadable),
        (json!({"short_body": 10}), Code::ContentUnreadable),
    ] {
        let (tenant, send) = sends_of(json!([{"on": "attachment_value", "do": action}])).await;
        let message = tenant.source.find(&send).await.unwrap().remove(0);
        let attachment = attachments(&message).next().unwrap();
        let error = bytes(&tenant.source, &attachment).await.unwrap_err();
        assert_eq!(error.code(), code, "{action}: {error}");
    }
    for (action, code) in [("expire_blob", Code::ContentExpired), ("missing_blob", Code::ContentExpired)] {
        let Tenant { source, simulator: _simulator, _files } =
            tenant("messages=4", json!([{"on": "blob", "do": action}])).await;
        let blob = source.list(recent()).await.unwrap().remove(0);
        let error = read(&source, &blob).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_expired_is_not_asked_for() {
    let Tenant { source, simulator, _files } = tenant("messages=4", json!([])).await;
    let mut blob = source.list(recent()).await.unwrap().remove(0);
    blob.expires = now() - chrono::Duration::seconds(1);
    assert_eq!(read(&source, &blob).await.unwrap_err().code(), Code::ContentExpired);
    assert_eq!(simulator.report().count("blob"), 0);
    // Nor does anybody else get the token.
    blob.expires = now() + chrono::Duration::days(1);
    blob.uri = blob.uri.replace("http://127.0.0.1", "https://evil.example");
    let error = read(&source, &blob).await.unwrap_err();
    assert_eq!(error.code(), Code::ServiceProtocol);
    assert!(error.message().contains("`https://evil.example"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_chosen_among_its_copies_and_looked_for_where_it_may_be() {
    let generate = "users=3,messages=6,days=0.5,attachments=1";
    // A draft and a received copy have the same internet message id.
    let Tenant { source, simulator, _files } =
        tenant(generate, json!([{"do": "draft_copy"}, {"do": "self_copy"}])).await;
    for send in sends(&source).await {
        let found = source.find(&send).await.unwrap();
        assert_eq!(found.len(), 1);
        assert!((found[0].sent - send.created).abs() < chrono::Duration::minutes(1));
    }
    let report = simulator.report();
    assert!(report.count("folder") <= 3, "once per mailbox");
    assert_eq!(report.count("find"), 6);
    // Deleted twice.
    let fault = json!([{"do": {"message_in": "recoverableitemsdeletions"}}]);
    let Tenant { source, simulator: _simulator, _files } = tenant(generate, fault).await;
    let mut send = sends(&source).await.remove(0);
    assert_eq!(source.find(&send).await.unwrap().len(), 1);
    // Gone, or not there yet.
    let Tenant { source, simulator, _files } = tenant(generate, json!([{"do": "message_missing"}])).await;
    assert_eq!(source.find(&send).await.unwrap(), []);
    assert_eq!(simulator.report().count("find"), 2);
    send.created = now();
    assert_eq!(source.find(&send).await.unwrap(), []);
    assert_eq!(simulator.report().count("find"), 3, "a fresh send is not looked for among the deleted");
    // Nothing to look for.
    send.internet_message_id = None;
    assert_eq!(source.find(&send).await.unwrap_err().code(), Code::MessageMissing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delegated_send_is_looked_for_with_its_actor_first() {
    let Tenant { source, simulator, _files } = tenant("users=3,messages=6,days=0.5", json!([])).await;
    let sends = sends(&source).await;
    let other = sends.iter().find(|send| send.mailbox != sends[0].mailbox).unwrap().mailbox.clone();
    let mut send = sends[0].clone();
    send.operation = Operation::SendAs;
    // The copy lies with the owner; the actor has a mailbox without it, none at all, or is the system.
    for (actor, finds) in [
        (other.as_str(), 2),
        ("nobody@nowhere.example", 2),
        ("S-1-5-18", 1),
        (send.mailbox.clone().to_uppercase().as_str(), 1),
    ] {
        send.actor = actor.to_owned();
        let before = simulator.report().count("find");
        let found = source.find(&send).await.unwrap();
        assert_eq!(found.len(), 1, "{actor}");
        assert_eq!(simulator.report().count("find") - before, finds, "{actor}");
    }
    // And the other way round.
    send.mailbox = other;
    send.actor = sends[0].mailbox.clone();
    assert_eq!(source.find(&send).await.unwrap()[0].mailbox, send.actor);
}

/// Mail with what Graph has kinds and oddities for: a corpus, with the same mail sent twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_corpus_gives_its_exact_bytes_and_messages_sent_twice_stay_two() {
    let corpus = tempfile::tempdir().unwrap();
    let mail = |date: &str, subject: &str, name: &str, payload: &str| {
        format!(
            "From: Ann <ann@corpus.example>\r\nTo: b@x.example\r\nCc: c@x.example\r\nBcc: d@x.example\r\nSubject: {subject}\r\nDate: {date}\r\nMessage-ID: <a+b=c/d'e@corpus.example>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"x\"\r\n\r\n--x\r\nContent-Type: text/plain\r\n\r\nbody\r\n--x\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\"{name}\"\r\nContent-Transfer-Encoding: base64\r\n\r\n{payload}\r\n--x\r\nContent-Type: message/rfc822\r\nContent-Disposition: attachment\r\n\r\nSubject: inner\r\n\r\ntext\r\n--x--\r\n"
        )
    };
    let day = (now() - chrono::Duration::hours(5)).format("%a, %d %b %Y");
    std::fs::write(
        corpus.path().join("1.eml"),
        mail(&format!("{day} 10:00:00 +0000"), "one", "a; b (12b).bin", "AAECAw=="),
    )
    .unwrap();
    std::fs::write(corpus.path().join("2.eml"), mail(&format!("{day} 11:30:00 +0000"), "two", "b.bin", "BAUG"))
        .unwrap();
    let mut options = Options::default();
    options.content = vec![Content::Corpus(corpus.path().to_owned())];
    let Tenant { source, simulator, _files } = tenant_of(options).await;
    let sends = sends(&source).await;
    assert_eq!(sends.len(), 2);
    let mut subjects = BTreeMap::new();
    for send in &sends {
        assert_eq!(send.internet_message_id.as_deref(), Some("<a+b=c/d'e@corpus.example>"));
        let found = source.find(send).await.unwrap();
        assert_eq!(found.len(), 1, "each record has its own message: {found:#?}");
        let message = &found[0];
        assert_eq!(message.subject, send.subject);
        assert_eq!(message.from.as_ref().unwrap().address, "ann@corpus.example");
        assert_eq!((message.to.len(), message.cc.len(), message.bcc.len()), (1, 1, 1));
        let kinds: Vec<AttachmentKind> = message.attachments.iter().map(|attachment| attachment.kind).collect();
        assert_eq!(kinds, [AttachmentKind::File, AttachmentKind::Item]);
        assert_eq!(send.attachments[0].name, message.attachments[0].name);
        let first = attachments(message).next().unwrap();
        subjects.insert(message.subject.clone().unwrap(), bytes(&source, &first).await.unwrap());
        let item = attachments(message).nth(1).unwrap();
        assert!(String::from_utf8(bytes(&source, &item).await.unwrap()).unwrap().contains("inner"));
    }
    assert_eq!(subjects, BTreeMap::from([("one".to_owned(), vec![0, 1, 2, 3]), ("two".to_owned(), vec![4, 5, 6])]));
    assert_eq!(simulator.report().count("folder"), 1);
    assert_eq!(simulator.report().body_requests, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_sign_in_says_what_to_mend() {
    let cases = [
        ("7000215", Code::SecretRefused),
        ("7000222", Code::SecretExpired),
        ("700016", Code::ApplicationMissing),
        ("7000112", Code::ApplicationMissing),
        ("90002", Code::TenantUnknown),
        ("500011", Code::ConsentMissing),
        ("65001", Code::ConsentMissing),
        ("53003", Code::PermissionMissing),
        ("700027", Code::SecretRefused),
    ];
    for (number, code) in cases {
        let Tenant { source, simulator, _files } =
            tenant("messages=1", json!([{"on": "token", "do": {"error": number}}])).await;
        let error = source.prepare().await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(number), "{error}");
        assert!(!error.message().contains("Trace ID"), "{error}");
        assert!(!format!("{error:?}").contains(&simulator.announcement().client_secret));
        assert_eq!(simulator.report().count("token"), 1);
    }
    // What the endpoint means itself, not a fault.
    let Tenant { source: _source, simulator, _files } = tenant("messages=1", json!([])).await;
    let mut wrong = settings(&simulator, &_files);
    let place = _files.path().join("wrong");
    std::fs::write(&place, "not the secret").unwrap();
    wrong.credential = Credential::Secret(SecretPlace::File(place));
    assert_eq!(Microsoft365::new(wrong.clone()).unwrap().prepare().await.unwrap_err().code(), Code::SecretRefused);
    let mut other = settings(&simulator, &_files);
    other.application.client_id = uuid::Uuid::from_u128(7);
    assert_eq!(Microsoft365::new(other).unwrap().prepare().await.unwrap_err().code(), Code::ApplicationMissing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_the_permission_is_asked_for_anew_once() {
    // The first token of each resource was issued before the consent.
    let Tenant { source, simulator, _files } =
        tenant("messages=2,days=0.1", json!([{"on": "token", "times": 2, "each": false, "do": "no_roles"}])).await;
    assert_eq!(source.prepare().await.unwrap_err().code(), Code::ConsentMissing);
    assert_eq!(source.prepare().await.unwrap_err().code(), Code::ConsentMissing);
    assert_eq!(simulator.report().count("token"), 2, "not one per refusal");
    let Tenant { source, simulator, _files } =
        tenant("messages=2,days=0.1", json!([{"on": "token", "times": 1, "do": "no_roles"}])).await;
    assert_eq!(source.prepare().await.unwrap(), Feed::On);
    assert_eq!(simulator.report().count("token"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_waits_for_one_token_and_gets_the_next_one_early() {
    let faults = json!([{"on": "token", "do": {"expires_in": 5}}, {"on": "token", "do": {"latency_ms": 200}}]);
    let Tenant { source, simulator, _files } = tenant("users=30,messages=100,days=0.1", faults).await;
    let sends = sends(&source).await;
    let tokens = simulator.report().count("token");
    let find_all = || stream::iter(&sends).map(|send| source.find(send)).buffer_unordered(50).try_collect::<Vec<_>>();
    find_all().await.unwrap();
    assert_eq!(simulator.report().count("token") - tokens, 1);
    // Four fifths of its life are over: one asks, the others go on with the old one.
    tokio::time::sleep(Duration::from_millis(4100)).await;
    find_all().await.unwrap();
    assert_eq!(simulator.report().count("token") - tokens, 2);
    assert_eq!(source.usage().retries, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_proves_who_we_are() {
    let files = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::from_pem(RSA_KEY).unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["waybill.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let public = files.path().join("public.pem");
    std::fs::write(&public, certificate.pem()).unwrap();
    let both = files.path().join("both.pem");
    std::fs::write(&both, format!("{}{RSA_KEY}", certificate.pem())).unwrap();
    let mut options = Options::default();
    options.client_certificate = Some(public.clone());
    let simulator = start(options).await.unwrap();
    let mut settings = settings(&simulator, &files);
    settings.credential = Credential::Certificate(SecretPlace::File(both.clone()));
    Microsoft365::new(settings.clone()).unwrap().check_sign_in().await.unwrap();
    // Without its key it proves nothing.
    settings.credential = Credential::Certificate(SecretPlace::File(public));
    let error = Microsoft365::new(settings.clone()).unwrap().check_sign_in().await.unwrap_err();
    assert_eq!(error.code(), Code::Configuration, "{error}");
    // A clock that is off makes assertions that are not valid yet.
    settings.credential = Credential::Certificate(SecretPlace::File(both));
    settings.clock = Clock::manual(now() - chrono::Duration::hours(2));
    let error = Microsoft365::new(settings).unwrap().check_sign_in().await.unwrap_err();
    assert_eq!(error.code(), Code::ClockSkew, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_is_resolved_to_people_with_all_their_names() {
    let directory = json!({"faults": [], "directory": {
        "users": [
            {"mail": "office@contoso.example", "kind": "shared", "aliases": ["desk@contoso.example"]},
            {"mail": "ann@contoso.example"}, {"mail": "bob@contoso.example"}, {"mail": "cy@contoso.example"},
        ],
        "groups": [
            {"mail": "inner@contoso.example", "displayName": "Inner", "members": ["bob@contoso.example", "all@contoso.example"]},
            {"mail": "all@contoso.example", "displayName": "All", "members": ["ann@contoso.example", "inner@contoso.example"]},
            {"mail": "empty@contoso.example", "displayName": "Empty", "members": []},
        ],
    }});
    let Tenant { source, simulator, _files } = tenant("users=2,messages=1", directory).await;
    assert_eq!(source.resolve_scope(&Scope::All).await.unwrap().people(), None);
    let send = |mailbox: &str| SendRecord { mailbox: mailbox.to_owned(), actor: mailbox.to_owned(), ..template() };
    let users = |names: &[&str]| Scope::Users(names.iter().map(|name| (*name).to_owned()).collect());

    let scope = source
        .resolve_scope(&users(&["DESK@contoso.example", " ann@Contoso.example", "nobody@contoso.example"]))
        .await
        .unwrap();
    let told = |scope: &ResolvedScope| scope.findings.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(told(&scope), ["the directory has no user `nobody@contoso.example`"]);
    assert_eq!(scope.findings[0].entry, "nobody@contoso.example");
    assert_eq!(scope.people(), Some(2));
    for name in ["Office@contoso.example", "desk@contoso.example", "ANN@contoso.example"] {
        assert!(scope.contains(&send(name)), "{name}");
    }
    assert!(!scope.contains(&send("bob@contoso.example")));

    // By object id, and the same by the whole directory when there are many.
    let id = scope.members().unwrap()[0].object_id.clone();
    let by_id = source.resolve_scope(&users(&[&id])).await.unwrap();
    assert_eq!(
        by_id.members().unwrap().iter().map(|member| member.object_id.as_str()).collect::<Vec<_>>(),
        [id.as_str()]
    );
    let mut many: Vec<String> = (0..30).map(|n| format!("nobody{n}@contoso.example")).collect();
    many.extend(["desk@contoso.example".to_owned(), "ann@contoso.example".to_owned()]);
    let before = source.usage().requests["directory"];
    let whole = source.resolve_scope(&Scope::Users(many)).await.unwrap();
    assert_eq!((whole.people(), whole.findings.len()), (Some(2), 30));
    assert!(source.usage().requests["directory"] - before <= 2);

    let groups = ["ALL@contoso.example", "empty@contoso.example", "none@contoso.example"].map(str::to_owned).to_vec();
    let scope = source.resolve_scope(&Scope::Groups(groups)).await.unwrap();
    assert!(scope.contains(&send("ann@contoso.example")) && scope.contains(&send("bob@contoso.example")));
    assert!(!scope.contains(&send("cy@contoso.example")));
    assert_eq!(
        told(&scope),
        [
            "the group `empty@contoso.example` has no members that can be seen",
            "the directory has no group `none@contoso.example` (dynamic distribution groups are not in it)"
        ]
    );
    drop(simulator);
}

fn template() -> SendRecord {
    SendRecord {
        id: "1".into(),
        operation: Operation::Send,
        created: now(),
        actor: String::new(),
        mailbox: String::new(),
        mailbox_guid: None,
        tenant_id: None,
        internet_message_id: None,
        subject: None,
        attachments: Vec::new(),
        recipients: Vec::new(),
        sent_as: None,
        client_ip: None,
        client_info: None,
        app_id: None,
        saved_to_sent_items: None,
    }
}

/// A key for this test and nothing else, as making one takes seconds.
const RSA_KEY: &str = "-----BEGIN PRIVATE KEY-----
MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQDM8mlkshmSLgqC
ZlozAotsbCO4BWAalZT7hHugeSw48X1re1hQPE46JF+XX+IwdQiPxct7ep9NQfQQ
VNWromuT53WukHkMq1x2XUsvp/CjXP/8RGCeW5ht3mc/LE2PBBZf+tUg6VVFb0vb
elCM/LcdzYoR04ODbqxrtLenfhPKuydIxxLE3kMCYfUMf44MeZAhYLbSbhtMky58
p2ug75CwPH/Dwgks4RIvdTreJe4wgu52ryVxsjs+pQRLlxl9tDkxhOc4QGi9YXgm
9Pqaw8eGTvInk/zisIeppIDqGsqHbeCfTGrCaqnTHYgfC7m50KDcN5pptcmSLdeR
dj89qx8bAgMBAAECggEAJtL5MjEm9PEx3ngDOEyQGu71aUPja8XQXkE/piuuO+9L
YhQQq8pwy0Tesu9gCuvwvkOrA248RUdsM7fObmArXu5m9bW6qLLBpk6QEqwOwvO4
LpLJdtZFLvMFvgrnemM81dvPiheJpsippx8pqTuqeMPaFvxpmnlZwmGOtPUGTM4G
jlGwiPnru+xlN/ZycVSRhgl1LMS717C89XVsUphpLbQ+nlIq/+8hyanH7M7uLJwe
0XxadVhtGAWiCNNrukB6TjLdyVthbXTg1/xX+TjZDaPg0R10n/KKC7gpbYHjNWNU
TsS2RFZ6IWmCYVYCQeH2UtIMjxhIaYNj5ZAiX0awOQKBgQDuP0vSZi5D1V1Cqr4k
zDNNtHWMCl8OwYUdaUFmuQaXXNviohAm9YMB/9WQJ1MQSC7cbBS0lTw+1426CSiM
+cKDSYqJxtBOi3WULMTxnOMEsQK7lNyAJw2gtkhzcy6glTpVJPmnKUv8znetN7Xd
VYB2n/oizdV7zJJoPqfZkj2IBwKBgQDcN+R6u2L3MvRNAWd1F3eA6bEjMEZ2qqyk
tmS5f1RuOCZlcgPXqBhvOpT5NAMTxurmBn8O8SU1HqMdVtYiKb9DFC8nL8zgi1MM
G2cnX86cDp+SQDBjkWcaiX247bA/UtZTvUbYR3gTUT0hGRrFkUgEB9DaS1Y9sT0M
M/p2wV3jTQKBgQCIoSQKdS7zF9lz8hc5YyHI3kTLGueIvtJoG4S2NEXjaA1x2x8I
OKP48Y64LNUl8T9uiU0Wgr8aCuPsXHQ05Mb4I6SffrTXVoMHhuUq6p4GgrzednA9
zieyktbZ3qRO00WwrpO9maFKSd24KMrTM8WIQhZg/0n+xULxJX18+LDw4QKBgDkW
MB90xiHozpXLwGMFM1ByxB2oHQwUEG8ebRv9Gwj7e1Ce7soP5E2pNQco6YdN8ISy
uGtKLegISiaH5Tiz88XSzKpu5MBsvZmM3P/DAU9JJyqFg0W8Yqrpa3LuAttXgQHy
NhRI6qKvU5Zp6JvAnpeU4xpDn1acxIOOUeZJGCqdAoGAZ52nhOv8qWMsiDLOlcyi
/Ba7ecp/BtN/PRrkBA+8dpyz++8mSbU4qESQzCXhLEjLwkHoPutm9jtaVgA4TT4u
Rs6ToPmxYQDHidcZYsJrDprCVKUlFidLrzcOIJ6fDvBOc+8NjllY1Q1JLS1MC4Xl
FUduuQogWhjHuy4ULVU/QSE=
-----END PRIVATE KEY-----
";
