//! An administrator sees whether each connection works, and if not, why and what to do.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use waybill::error::Code;
use waybill::event::Status;
use waybill::lake::Lake;
use waybill::run::{self, Health, State};
use waybill::source::memory::Call;

use crate::inner::Tenant;
use crate::inner::store::{Failure, FaultyStore};
use crate::nothing_hidden::new_lake;
use crate::support;

fn standing(lake: &support::Lake) -> Value {
    let listed: Value = serde_json::from_str(&lake.text(&["connection", "list", "--output", "json"])).unwrap();
    listed[0]["standing"].clone()
}

/// Danger: a failure is shown as something else, without a way out, or for ever.
/// Provoked: the tenant fails in each way that it can, is healed, and fails in the next one.
#[test]
fn each_failure_is_listed_with_its_one_remedy_and_clears_by_itself() {
    let tenant = support::Tenant::start(&["--generate", "users=3,messages=6,days=1,seed=3"]);
    let lake = support::Lake::temp();
    lake.add(&tenant, "Contoso", &[]);
    let expired = json!({"error": "700027", "message": "The key used has expired."});
    let on = |kind: &str, what: Value| json!([{"on": kind, "do": what}]);
    let cases = [
        // Before any mail was read: later on, a few mailboxes that refuse are a policy about them.
        (on("mail", json!("mailbox_denied")), Code::MailboxesDenied, "each of the"),
        (on("token", json!({"error": "7000215"})), Code::SecretRefused, "AADSTS7000215"),
        (on("token", json!({"error": "7000222"})), Code::SecretExpired, "the client secret has expired"),
        (on("token", expired), Code::CertificateExpired, "the certificate has expired"),
        (on("token", json!({"error": "700016"})), Code::ApplicationMissing, "does not exist in the tenant"),
        (on("token", json!({"error": "90002"})), Code::TenantUnknown, "does not exist in this cloud"),
        (on("token", json!({"error": "65001"})), Code::ConsentMissing, "nobody consented"),
        (on("token", json!("no_roles")), Code::ConsentMissing, "carries no permission"),
        (on("token", json!({"roles": ["Mail.Read", "ActivityFeed.ReadDlp"]})), Code::PermissionMissing, "AF10001"),
        (on("subscriptions", json!("auditing_disabled")), Code::AuditingDisabled, "records no audit log"),
        (
            json!([{"on": "subscriptions", "do": "subscription_disabled"}, {"on": "start", "do": {"error": "AF20023"}}]),
            Code::SubscriptionDisabled,
            "AF20023",
        ),
    ];
    for (faults, code, text) in cases {
        tenant.faults(&faults);
        let output = lake.run_command("Contoso").output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code.exit_code().into()), "{code}: {errors}");
        assert!(errors.contains(code.hint().unwrap()), "{code}: {errors}");
        let found = standing(&lake);
        assert_eq!(
            (found["status"].as_str(), found["finding"]["code"].as_str()),
            (Some("error"), Some(code.as_str())),
            "{found}"
        );
        assert_eq!(found["finding"]["hint"].as_str(), code.hint());
        assert!(found["finding"]["message"].as_str().unwrap().contains(text), "{found}");
        // The doctor names the same failure, or the cause of it.
        let doctor = lake.output(&["doctor", "--connection", "Contoso"]);
        let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert_ne!(doctor.status.code(), Some(0), "{told}");
        assert!(told.contains(code.as_str()) && told.contains("What to do:"), "{code}: {told}");
        tenant.faults(&json!([]));
        lake.run("Contoso");
        assert_eq!(standing(&lake)["status"], "monitoring", "{code}");
    }
    let codes: BTreeSet<String> = lake
        .sql("SELECT DISTINCT code FROM changes WHERE action = 'status' AND code IS NOT NULL")
        .iter()
        .map(|row| row["code"].as_str().unwrap().to_owned())
        .collect();
    assert!(codes.contains("secret-expired") && codes.contains("mailboxes-denied"), "{codes:?}");
}

async fn health(lake: &Lake) -> Health {
    lake.checkpoint::<State>(uuid::Uuid::from_u128(0xc0)).await.unwrap().unwrap().state.health.unwrap()
}

/// Danger: a feed that is silent for days looks like a quiet office.
#[tokio::test]
async fn a_feed_without_content_is_awaited_for_half_a_day_and_then_an_error() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    let mut seen = Vec::new();
    for hours in [0, 11, 13, 60] {
        tenant.clock.set(tenant.at(hours * 60));
        tenant.run(&lake).await.unwrap();
        let health = health(&lake).await;
        seen.push((health.status, health.code));
    }
    let code = |code: Code| Some(code.to_string());
    assert_eq!(
        seen,
        [
            (Status::Initializing, code(Code::ContentAwaited)),
            (Status::Initializing, code(Code::ContentAwaited)),
            (Status::Error, code(Code::ContentSilent)),
            (Status::Error, code(Code::ContentSilent)),
        ]
    );
    let send = tenant.send(1, &["a.txt"]);
    tenant.source.publish(tenant.at(60 * 60 + 1), send);
    tenant.clock.set(tenant.at(61 * 60));
    tenant.run(&lake).await.unwrap();
    assert_eq!(health(&lake).await.status, Status::Monitoring);
    tenant.clock.set(tenant.at(110 * 60));
    tenant.run(&lake).await.unwrap();
    assert_eq!(health(&lake).await.code, code(Code::ContentSilent));
}

#[tokio::test]
async fn a_feed_that_throttles_a_machine_with_a_wrong_clock_or_a_lost_week_is_an_error_until_the_next_good_run() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    tenant.source.publish(tenant.at(-5), tenant.send(1, &["a.txt"]));
    tenant.run(&lake).await.unwrap();
    for (minutes, code) in [(60, Code::Throttled), (120, Code::ServiceUnavailable)] {
        tenant.clock.set(tenant.at(minutes));
        tenant.source.fail_always(Call::List, Some(code));
        tenant.run(&lake).await.unwrap();
        assert_eq!(health(&lake).await.code, Some(code.to_string()));
    }
    tenant.source.fail_always(Call::List, None);
    tenant.source.fail_always(Call::Prepare, Some(Code::ClockSkew));
    tenant.clock.set(tenant.at(130));
    assert_eq!(tenant.run(&lake).await.unwrap().exit_code, 1);
    assert_eq!(health(&lake).await.code, Some(Code::ClockSkew.to_string()));
    tenant.source.fail_always(Call::Prepare, None);
    let later = 60 * 24 * 9;
    tenant.source.publish(tenant.at(later - 5), tenant.send(2, &["b.txt"]));
    tenant.clock.set(tenant.at(later));
    assert_eq!(tenant.run(&lake).await.unwrap().exit_code, 3);
    assert_eq!(health(&lake).await.code, Some(Code::GapTooOld.to_string()));
    tenant.clock.set(tenant.at(later + 60));
    tenant.run(&lake).await.unwrap();
    assert_eq!(health(&lake).await.status, Status::Monitoring);
}

/// Danger: an administrator who has just consented is told to consent.
#[tokio::test]
async fn a_permission_that_lacks_shortly_after_consent_is_pending_and_an_hour_later_missing() {
    let (tenant, lake) = (Tenant::new(), new_lake().await);
    for missing in [Code::ConsentMissing, Code::PermissionMissing] {
        tenant.source.fail_always(Call::Prepare, Some(missing));
        for (minutes, code) in [(0, Code::ConsentPending), (59, Code::ConsentPending), (61, missing)] {
            tenant.clock.set(tenant.at(minutes));
            let job = run::Job { authorized: Some(tenant.at(0)), ..tenant.job(false) };
            let report = run::run(job, Arc::clone(&tenant.source), &lake).await.unwrap();
            assert_eq!((report.exit_code, report.error.unwrap().code), (12, code.as_str()), "{minutes}");
        }
    }
    tenant.source.fail_always(Call::Prepare, None);
    tenant.clock.set(tenant.at(70));
    tenant.source.publish(tenant.at(65), tenant.send(1, &["a.txt"]));
    tenant.run(&lake).await.unwrap();
    assert_eq!(health(&lake).await.status, Status::Monitoring);
}

/// Danger: what was sent while nobody wanted to know is read when the connection is authorised anew.
#[tokio::test]
async fn the_time_in_which_a_connection_was_deauthorised_is_a_gap_and_is_not_read() {
    let (mut tenant, lake) = (Tenant::new(), new_lake().await);
    tenant.source.publish(tenant.at(-5), tenant.send(1, &["before.txt"]));
    tenant.run(&lake).await.unwrap();
    tenant.source.publish(tenant.at(30), tenant.send(2, &["meanwhile.txt"]));
    tenant.source.publish(tenant.at(90), tenant.send(3, &["after.txt"]));
    tenant.since = tenant.at(60);
    tenant.clock.set(tenant.at(120));
    let report = tenant.run(&lake).await.unwrap();
    assert_eq!((report.events, report.gaps), (1, 1));
    let names: Vec<Value> = crate::inner::query(&lake, "SELECT file_name FROM file_events ORDER BY 1").await;
    assert_eq!(names, [json!({"file_name": "after.txt"}), json!({"file_name": "before.txt"})]);
    let gaps = crate::inner::query(&lake, "SELECT kind, window_start, window_end FROM gaps").await;
    assert_eq!(gaps[0]["kind"], "deauthorized");
    assert_eq!(gaps[0]["window_end"].as_str().unwrap()[..16], tenant.at(60).to_rfc3339()[..16]);
}

#[test]
fn pause_resume_deauthorize_and_remove_are_recorded_with_who_and_when() {
    let tenant = support::Tenant::start(&["--generate", "users=2,messages=4,days=1,seed=5"]);
    let lake = support::Lake::temp();
    lake.add(&tenant, "Contoso", &[]);
    let order = |words: &[&str]| lake.command(&[&["connection"], words].concat()).env("USER", "ann").output().unwrap();
    let refused = |words: &[&str], text: &str| {
        let output = order(words);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(text), "{errors}");
    };
    refused(&["resume", "Contoso"], "is not paused");
    assert!(order(&["pause", "Contoso"]).status.success());
    refused(&["pause", "contoso"], "is paused already");
    let (exit, report) = lake.run("Contoso");
    assert_eq!((exit, report["outcome"].as_str(), report["status"].as_str()), (0, Some("skipped"), Some("paused")));
    assert_eq!(tenant.report()["requests"], json!({}), "a paused connection asks for nothing");
    assert_eq!(standing(&lake)["status"], "paused");
    assert!(order(&["resume", "Contoso"]).status.success());
    lake.run_done("Contoso");
    let events = lake.count("SELECT count(*) FROM file_events");
    assert!(events > 0);
    assert!(order(&["deauthorize", "Contoso"]).status.success());
    refused(&["resume", "Contoso"], "`waybill connection authorize` starts it again");
    assert_eq!(lake.run("Contoso").1["status"], "deauthorized");
    assert!(order(&["remove", "Contoso"]).status.success());
    assert_eq!(lake.count("SELECT count(*) FROM file_events"), events, "rows stay searchable");
    let changes: Vec<[String; 3]> = lake
        .sql("SELECT actor, action, status FROM changes ORDER BY changed_at")
        .iter()
        .map(|row| ["actor", "action", "status"].map(|name| row[name].as_str().unwrap_or_default().to_owned()))
        .collect();
    let changes: Vec<[&str; 3]> =
        changes.iter().map(|row| [row[0].as_str(), row[1].as_str(), row[2].as_str()]).collect();
    assert_eq!(
        changes[1..],
        [
            ["local:ann", "paused", "paused"],
            ["local:ann", "resumed", ""],
            ["run", "status", "monitoring"],
            ["local:ann", "deauthorized", "deauthorized"],
            ["local:ann", "removed", "removed"],
        ]
    );
}

/// Danger: a new list of people takes back what was recorded, or the old people stay monitored.
#[test]
fn a_new_scope_takes_the_place_of_the_old_one_and_what_was_recorded_stays() {
    let tenant = support::Tenant::start(&["--generate", "users=4,messages=8,attachments=1,days=1,seed=5"]);
    let lake = support::Lake::temp();
    let users: Vec<&str> =
        tenant.announcement["users"].as_array().unwrap().iter().map(|u| u.as_str().unwrap()).collect();
    let csv = |name: &str, text: &str| support::write(&lake.beside().join(name), text).to_str().unwrap().to_owned();
    lake.add(&tenant, "Contoso", &["--users", &csv("first.csv", users[0])]);
    lake.run_done("Contoso");
    let first = lake.count("SELECT count(*) FROM file_events");
    let second = csv("second.csv", users[1]);
    let output = lake.output(&["connection", "rescope", "Contoso", "--users", &second]);
    assert!(output.status.success(), "{output:?}");
    let mail = |user: &str| {
        format!(
            "From: {user}\r\nTo: x@y.example\r\nSubject: s\r\nMessage-ID: <{user}-new@t>\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhi\r\n--b\r\nContent-Disposition: attachment; filename=new.txt\r\n\r\ncontent\r\n--b--\r\n"
        )
    };
    tenant.send(&mail(users[0]));
    tenant.send(&mail(users[1]));
    // A window ends with a whole second.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    lake.run_done("Contoso");
    let new = lake.sql("SELECT mailbox FROM file_events WHERE file_name = 'new.txt'");
    assert_eq!(new, [json!({"mailbox": users[1]})]);
    assert_eq!(lake.count("SELECT count(*) FROM file_events WHERE file_name <> 'new.txt'"), first);
    let detail = &lake.sql("SELECT detail FROM changes WHERE action = 'rescoped'")[0]["detail"];
    assert_eq!(detail, "scope `users` (1 entries) instead of `users` (1 entries)");
    let none = csv("none.csv", "mail\n");
    assert_eq!(lake.output(&["connection", "rescope", "Contoso", "--users", &none]).status.code(), Some(2));
}

/// Danger: a storage that refuses writing looks like one that is away. Provoked: each write of a run is refused in turn.
#[tokio::test]
async fn a_lake_that_may_not_be_written_is_said_to_be_so() {
    let tenant = Tenant::new();
    tenant.source.publish(tenant.at(-5), tenant.send(1, &["a.txt"]));
    let mut refused = 0;
    for write in 1.. {
        let inner = Arc::new(object_store::memory::InMemory::new());
        let url = "memory:///denied";
        Lake::with_store(url, Arc::clone(&inner) as _).unwrap().create().await.unwrap();
        let store = FaultyStore::new(inner, write, Failure::Denied);
        let lake = Lake::with_store(url, Arc::clone(&store) as _).unwrap();
        match tenant.run(&lake).await {
            Err(error) => {
                assert_eq!(error.code(), Code::LakeNotWritable, "write {write}: {error}");
                refused += 1;
            }
            Ok(_) => break,
        }
    }
    assert!(refused > 3, "a run writes a checkpoint, files and commits");
    let lake = Lake::with_store("memory:///denied", FaultyStore::new(Arc::default(), 1, Failure::Denied)).unwrap();
    assert_eq!(lake.probe().await.unwrap_err().code(), Code::LakeNotWritable);
}

/// Danger: a mailbox whose `Send` is not audited looks like somebody who sends nothing.
#[test]
fn the_doctor_finds_a_mailbox_whose_sends_are_not_audited() {
    let tenant = support::Tenant::start(&["--generate", "users=2,messages=4,days=1,seed=5"]);
    let lake = support::Lake::temp();
    let user = "quiet@contoso.onmicrosoft.com";
    let date = crate::inner::simulated::now() - chrono::TimeDelta::days(2);
    tenant.send_unaudited(&format!(
        "From: {user}\r\nTo: x@y.example\r\nSubject: s\r\nDate: {}\r\nMessage-ID: <q@t>\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhi\r\n--b\r\nContent-Disposition: attachment; filename=new.txt\r\n\r\ncontent\r\n--b--\r\n",
        date.to_rfc2822()
    ));
    let csv = support::write(&lake.beside().join("users.csv"), user);
    lake.add(&tenant, "Contoso", &["--users", csv.to_str().unwrap(), "--since", "3d"]);
    lake.run_done("Contoso");
    let output = lake.output(&["doctor", "--connection", "Contoso"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("send-not-audited") && told.contains("(1 messages with attachments)"), "{told}");
    assert!(told.contains(Code::SendNotAudited.hint().unwrap()), "{told}");
}

/// "Why is this message not there?" has an answer for each place where its way can end.
#[test]
fn the_doctor_tells_why_a_message_is_not_there() {
    let tenant = support::Tenant::start(&["--generate", "users=3,messages=12,attachments=1,days=1,seed=5"]);
    let lake = support::Lake::temp();
    let users: Vec<&str> =
        tenant.announcement["users"].as_array().unwrap().iter().map(|u| u.as_str().unwrap()).collect();
    let csv = support::write(&lake.beside().join("users.csv"), users[..2].join("\n"));
    lake.add(&tenant, "Contoso", &["--users", csv.to_str().unwrap()]);
    lake.run_done("Contoso");
    let ask = |words: &[&str]| {
        let mut all = vec!["doctor", "--connection", "Contoso", "--output", "json"];
        all.extend(words);
        let answer: Value = serde_json::from_str(&lake.text(&all)).unwrap();
        answer["conclusion"].as_str().unwrap().to_owned()
    };
    let row = &lake.sql("SELECT internet_message_id AS id, mailbox, observed_at FROM file_events LIMIT 1")[0];
    let text = |name: &str| row[name].as_str().unwrap();
    assert!(ask(&["--message-id", text("id")]).starts_with("it is there: "));
    assert!(
        ask(&["--user", text("mailbox"), "--at", &format!("{}Z", text("observed_at").trim_end_matches('Z'))])
            .starts_with("it is there: ")
    );
    assert!(ask(&["--message-id", "<x@y>", "--user", users[2]]).contains("is not in the scope"));
    assert!(ask(&["--message-id", "<x@y>", "--user", users[0]]).contains("neither the mailbox nor the audit log"));
    tenant.send(&format!("From: {}\r\nTo: x@y.example\r\nSubject: s\r\nMessage-ID: <plain@t>\r\n\r\nhi", users[0]));
    assert!(ask(&["--message-id", "<plain@t>", "--user", users[0]]).contains("has no attachment"));
    lake.text(&["connection", "pause", "Contoso"]);
    assert!(ask(&["--message-id", "<x@y>", "--user", users[0]]).contains("paused"));
    let output = lake.output(&["doctor", "--message-id", "<x@y>"]);
    assert_eq!(output.status.code(), Some(2));
}
