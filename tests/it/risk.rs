//! Risk: rules that people change, and what becomes of an event under them.

use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};
use object_store::memory::InMemory;
use serde_json::{Value, json};
use uuid::Uuid;
use waybill::clock::Time;
use waybill::error::Code;
use waybill::event::{FileEvent, HashStatus};
use waybill::lake::{Commit, Lake};
use waybill::search::RiskRules;

use crate::inner::query;

/// A Wednesday, within working hours.
pub(crate) fn noon() -> Time {
    DateTime::parse_from_rfc3339("2026-11-04T12:00:00Z").unwrap().with_timezone(&Utc)
}

pub(crate) fn event(number: u128, sender: &str, to: &[&str], at: Time) -> FileEvent {
    let recipients: Vec<String> = to.iter().map(|to| (*to).to_owned()).collect();
    let mut domains: Vec<String> =
        to.iter().filter_map(|to| to.split_once('@')).map(|(_, domain)| domain.to_owned()).collect();
    domains.dedup();
    let text = |text: &str| Some(text.to_owned());
    FileEvent {
        event_id: Uuid::from_u128(number).to_string(),
        observed_at: at,
        inserted_at: at + Duration::hours(1),
        file_name: text("plan.pdf"),
        file_extension: text("pdf"),
        file_size_bytes: Some(1_000),
        sha256: text(&format!("{number:064x}")),
        md5: text(&format!("{number:032x}")),
        hash_status: HashStatus::Hashed,
        hash_error: None,
        sender: text(sender),
        from_address: text(sender),
        to_recipients: recipients.clone(),
        recipients,
        recipient_domains: domains,
        subject: None,
        internet_message_id: text(&format!("<{number}@contoso.example>")),
        mailbox: text(sender),
        connection_id: Uuid::from_u128(1).to_string(),
        connection_name: "c".to_owned(),
        cc_recipients: vec![],
        bcc_recipients: vec![],
        file_category: "Pdf".to_owned(),
        mime_type: text("application/pdf"),
        mime_type_by_bytes: text("application/pdf"),
        mime_type_by_extension: text("application/pdf"),
        attachment_kind: text("file"),
        is_inline: Some(false),
        source_url: None,
        attachment_id: None,
        store_size_bytes: None,
        file_path: None,
        audit_record_ids: vec![],
        audit_operation: None,
        actor: None,
        client_ip: None,
        client_info: None,
        app_id: None,
        tenant_id: None,
        mailbox_guid: None,
        content_blob_id: None,
        run_id: Uuid::from_u128(4).to_string(),
    }
}

pub(crate) async fn lake(rows: Vec<FileEvent>) -> Lake {
    let lake = Lake::with_store("memory:///lake/", Arc::new(InMemory::new())).unwrap();
    fill(&lake, rows).await;
    lake
}

/// Makes the lake and commits the rows.
pub(crate) async fn fill(lake: &Lake, rows: Vec<FileEvent>) {
    lake.create().await.unwrap();
    let (mut writer, _) = lake.writer::<Value>(Uuid::from_u128(1), Uuid::from_u128(4)).await.unwrap();
    let commit = Commit { rows, replaces: Vec::new(), outbox: Default::default(), state: json!({}) };
    writer.commit(commit).await.unwrap();
}

/// Score, severity, trust and indicators of each event, in the order of their numbers.
async fn risks(lake: &Lake) -> Vec<(i64, String, bool, Vec<String>)> {
    let rows =
        query(lake, "SELECT risk_score, risk_severity, trusted, risk_indicators FROM events ORDER BY event_id").await;
    let texts = |value: &Value| {
        let mut texts: Vec<String> =
            value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect();
        texts.sort();
        texts
    };
    rows.iter()
        .map(|row| {
            let severity = row["risk_severity"].as_str().unwrap().to_owned();
            (row["risk_score"].as_i64().unwrap(), severity, row["trusted"] == true, texts(&row["risk_indicators"]))
        })
        .collect()
}

fn has(risk: &(i64, String, bool, Vec<String>), indicator: &str) -> bool {
    risk.3.iter().any(|name| name == indicator)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_rules_find_what_their_names_say() {
    let mut rows = vec![
        event(1, "ann@contoso.example", &["bob@partner.example"], noon()),
        event(2, "ann@contoso.example", &["ann@gmail.com"], noon() + Duration::minutes(1)),
        FileEvent {
            file_name: Some("holiday.jpg".to_owned()),
            file_extension: Some("jpg".to_owned()),
            file_category: "Archive".to_owned(),
            mime_type: Some("application/zip".to_owned()),
            mime_type_by_bytes: Some("application/zip".to_owned()),
            mime_type_by_extension: Some("image/jpeg".to_owned()),
            ..event(3, "ann@contoso.example", &["bob@partner.example"], noon() + Duration::minutes(2))
        },
        // A Sunday.
        event(4, "ann@contoso.example", &["bob@partner.example"], noon() + Duration::days(4)),
        FileEvent {
            file_size_bytes: Some(200_000_000),
            ..event(5, "eve@contoso.example", &["bob@partner.example"], noon())
        },
        // Nobody can say who sent it, and to whom.
        FileEvent { sender: None, from_address: None, mailbox: None, ..event(6, "x", &[], noon()) },
    ];
    // The second attachment of a message is as much a first use as the first one.
    rows.push(FileEvent {
        internet_message_id: rows[4].internet_message_id.clone(),
        event_id: Uuid::from_u128(7).to_string(),
        ..rows[4].clone()
    });
    let lake = lake(rows).await;
    let risks = risks(&lake).await;
    assert_eq!(risks.len(), 7);
    assert!(has(&risks[0], "External recipient") && has(&risks[0], "First use of destination"), "{:?}", risks[0]);
    assert!(has(&risks[1], "Personal mail domain"), "{:?}", risks[1]);
    assert!(!has(&risks[0], "Personal mail domain"), "{:?}", risks[0]);
    assert!(has(&risks[2], "File mismatch") && has(&risks[2], "Zip"), "{:?}", risks[2]);
    assert!(has(&risks[2], "Rare use of destination") && !has(&risks[2], "First use of destination"), "{:?}", risks[2]);
    assert!(!has(&risks[0], "File mismatch"), "{:?}", risks[0]);
    assert!(has(&risks[3], "Off hours") && !has(&risks[0], "Off hours"), "{:?} {:?}", risks[3], risks[0]);
    assert!(has(&risks[4], "Large volume") && !has(&risks[0], "Large volume"), "{:?}", risks[4]);
    assert!(has(&risks[4], "First use of destination") && has(&risks[6], "First use of destination"), "{risks:?}");
    assert!(!has(&risks[5], "External recipient"), "{:?}", risks[5]);
    // Scripts of the replaced product ask for a score greater than 1.
    assert!(risks[..5].iter().all(|risk| risk.0 > 1), "{risks:?}");
    for (score, severity, ..) in &risks {
        let expected = match score {
            9.. => "CRITICAL",
            7..9 => "HIGH",
            4..7 => "MODERATE",
            1..4 => "LOW",
            _ => "NO_RISK_INDICATED",
        };
        assert_eq!(severity, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_trusted_when_all_its_domains_are_and_from_their_day_on() {
    let day = |days| noon() + Duration::days(days);
    let lake = lake(vec![
        event(1, "ann@contoso.example", &["bob@partner.example"], day(0)),
        event(2, "ann@contoso.example", &["bob@partner.example"], day(1)),
        event(3, "ann@contoso.example", &["bob@partner.example", "eve@other.example"], day(1)),
        event(4, "ann@contoso.example", &["bob@mail.partner.example"], day(1)),
    ])
    .await;
    let trusted = async || risks(&lake).await.iter().map(|risk| risk.2).collect::<Vec<_>>();
    assert_eq!(trusted().await, [false; 4]);
    let rules = RiskRules::of(&lake);
    let from = day(1).date_naive();
    rules.trust("https://www.Partner.example/", from, false, "ann", noon()).await.unwrap();
    assert_eq!(trusted().await, [false, true, false, false]);
    let all = risks(&lake).await;
    assert_eq!((all[1].0, all[1].1.as_str()), (0, "NO_RISK_INDICATED"));
    assert!(all[0].0 > 0 && all[2].0 > 0);
    rules.distrust("partner.example", "ann", noon()).await.unwrap();
    rules.trust("partner.example", from, true, "ann", noon()).await.unwrap();
    assert_eq!(trusted().await, [false, true, false, true]);
    let again = rules.trust("partner.example", from, true, "ann", noon()).await.unwrap_err();
    assert_eq!(again.code(), Code::Configuration);
    let changes = query(&lake, "SELECT action, actor FROM changes ORDER BY action").await;
    let actions: Vec<&str> = changes.iter().map(|change| change["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["trust_added", "trust_added", "trust_removed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_rule_changes_the_answer_and_a_wrong_one_changes_nothing() {
    let lake = lake(vec![event(1, "ann@contoso.example", &["bob@partner.example"], noon())]).await;
    let rules = RiskRules::of(&lake);
    let own = "[[indicator]]\nid = 'plan'\nname = 'A plan'\nweight = 8\nwhen = \"file_name LIKE 'plan%'\"\n";
    rules.set(own, "ann", noon()).await.unwrap();
    assert_eq!(risks(&lake).await, [(8, "HIGH".to_owned(), false, vec!["A plan".to_owned()])]);
    for wrong in [
        own.replace("file_name LIKE", "file_nme LIKE"),
        own.replace("file_name LIKE 'plan%'", "file_name"),
        own.replace("file_name LIKE 'plan%'", "file_name IN (SELECT statement FROM searches)"),
        own.replace("file_name LIKE 'plan%'", "count(*) > 1"),
        own.replace("weight = 8", "weight = 'much'"),
        own.replace("weight", "wieght"),
        "not toml".to_owned(),
    ] {
        let error = rules.set(&wrong, "ann", noon()).await.unwrap_err();
        assert_eq!(error.code(), Code::Configuration, "{wrong}: {error}");
        assert_eq!(risks(&lake).await[0].0, 8, "{wrong}");
    }
    rules.reset("ann", noon()).await.unwrap();
    assert_ne!(risks(&lake).await[0].0, 8);
    let shown = rules.show().await.unwrap();
    rules.set(&shown, "ann", noon()).await.unwrap();
    assert_eq!(rules.show().await.unwrap(), shown);
}

/// Danger: a view that everybody uses and that pays for history even when nobody asks for risk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_no_risk_pays_for_none() {
    let lake = lake(vec![event(1, "ann@contoso.example", &["bob@partner.example"], noon())]).await;
    let plan = async |table: &str, columns: &str| {
        let statement = format!("EXPLAIN SELECT {columns} FROM {table} WHERE sha256 = '{:064x}'", 1);
        let rows = query(&lake, &statement).await;
        rows.iter().find(|row| row["plan_type"] == "physical_plan").unwrap()["plan"].as_str().unwrap().to_owned()
    };
    assert_eq!(plan("events", "event_id, sender").await, plan("file_events", "event_id, sender").await);
    assert!(plan("events", "trusted").await.matches("DataSourceExec").count() == 1);
    assert!(plan("events", "risk_score").await.matches("DataSourceExec").count() > 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_is_first_again_after_the_history_and_rare_for_a_while() {
    let days = [0, 10, 20, 30, 130];
    let rows = days.iter().zip(1..).map(|(day, number)| {
        event(number, "ann@contoso.example", &["bob@partner.example"], noon() + Duration::days(*day))
    });
    let lake = lake(rows.collect()).await;
    let risks = risks(&lake).await;
    let first: Vec<bool> = risks.iter().map(|risk| has(risk, "First use of destination")).collect();
    let rare: Vec<bool> = risks.iter().map(|risk| has(risk, "Rare use of destination")).collect();
    assert_eq!(first, [true, false, false, false, true]);
    assert_eq!(rare, [false, true, true, false, false]);
    // A filter on the day must not cut the history off.
    let day = (noon() + Duration::days(30)).date_naive();
    let late = query(&lake, &format!("SELECT risk_indicators FROM events WHERE event_date = DATE '{day}'")).await;
    assert!(!late[0]["risk_indicators"].to_string().contains("use of destination"), "{late:?}");
}
