//! What the rules say of rows, asked in SQL as everybody asks.

use datafusion::physical_plan::displayable;
use datafusion::prelude::SessionContext;
use serde_json::{Value, json};

use super::*;
use crate::clock::Clock;
use crate::event::{FileEvent, HashStatus};
use crate::search::engine;

/// One row: sent by Ada, on a Wednesday at noon, a document.
fn event(id: &str, at: &str, domains: &[&str]) -> FileEvent {
    let owned = |domains: &[&str]| domains.iter().map(|domain| (*domain).to_owned()).collect::<Vec<_>>();
    let row = json!({
        "event_id": id, "observed_at": at, "inserted_at": at, "hash_status": HashStatus::Hashed,
        "sender": "ada@contoso.example", "recipients": [], "recipient_domains": owned(domains),
        "connection_id": "c", "connection_name": "C", "to_recipients": [], "cc_recipients": [], "bcc_recipients": [],
        "file_category": "Document", "file_size_bytes": 10, "audit_record_ids": [], "run_id": "r",
    });
    serde_json::from_value(row).unwrap()
}

async fn lake(rules: &str) -> Lake {
    let store = Arc::new(object_store::memory::InMemory::new());
    let lake = Lake::with_store("memory:///lake/", store).unwrap();
    lake.create().await.unwrap();
    if !rules.is_empty() {
        RiskRules::of(&lake).set(rules, "local:ann", Clock::System.now()).await.unwrap();
    }
    lake
}

fn session(rows: &[FileEvent], lake: &Lake) -> SessionContext {
    let batch = crate::event::to_batch(rows).unwrap();
    let table = datafusion::datasource::MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
    let base: Arc<dyn datafusion::catalog::TableProvider> = Arc::new(table);
    let events = events_table(Arc::clone(&base), Arc::new(LakeRules::of(lake.clone())));
    let config = datafusion::prelude::SessionConfig::new().with_target_partitions(2);
    let state = datafusion::execution::session_state::SessionStateBuilder::new_from_existing(engine::state())
        .with_config(config)
        .build();
    let context = SessionContext::new_with_state(state);
    context.register_table("file_events", base).unwrap();
    context.register_table("events", events).unwrap();
    context
}

async fn ask(rows: &[FileEvent], rules: &str, question: &str) -> Vec<Value> {
    let context = session(rows, &lake(rules).await);
    let batches = context.sql(question).await.unwrap().collect().await.unwrap();
    let mut writer = arrow::json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow::json::writer::JsonArray>(Vec::new());
    for batch in &batches {
        writer.write(batch).unwrap();
    }
    writer.finish().unwrap();
    serde_json::from_slice(&writer.into_inner()).unwrap_or_default()
}

const TRUST: &str = "[[trusted]]\ndomain = \"contoso.example\"\nfrom = 2026-03-01\n\
    [[trusted]]\ndomain = \"group.example\"\nfrom = 2026-03-01\ninclude_subdomains = true\n";
const WEDNESDAY: &str = "2026-03-04T12:00:00Z";

/// The indicators of one row beside those that every event to a well-known stranger has.
async fn indicators(change: impl FnOnce(&mut FileEvent)) -> (i64, String, Vec<String>) {
    let mut rows: Vec<FileEvent> =
        (0..5).map(|n| event(&n.to_string(), &format!("2026-03-0{}T12:00:00Z", n + 1), &["x.example"])).collect();
    let mut row = event("asked", "2026-03-11T12:00:00Z", &["x.example"]);
    row.file_category = "Uncategorized".to_owned();
    change(&mut row);
    rows.push(row);
    let question = "SELECT risk_score, risk_severity, risk_indicators, risk_indicator_ids, \
        risk_indicator_weights FROM events WHERE event_id = 'asked'";
    let answer = &ask(&rows, TRUST, question).await[0];
    let texts = |name: &str| {
        answer[name].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let weights: Vec<i64> =
        answer["risk_indicator_weights"].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect();
    let score = answer["risk_score"].as_i64().unwrap();
    assert_eq!(weights.iter().sum::<i64>(), score, "{answer}");
    assert_eq!(texts("risk_indicator_ids").len(), weights.len(), "{answer}");
    let known = ["Sent from corporate Microsoft Office 365", "External recipient"];
    let names = texts("risk_indicators").into_iter().filter(|name| !known.contains(&name.as_str())).collect();
    (score, answer["risk_severity"].as_str().unwrap().to_owned(), names)
}

#[tokio::test]
async fn each_indicator_is_found_and_weighs_what_the_rules_say() {
    let plain = indicators(|_| {}).await;
    assert_eq!(plain, (2, "LOW".to_owned(), Vec::new()), "mail to a stranger scores 2 at least");
    for (category, name, weight) in [
        ("Archive", "Zip", 2),
        ("Audio", "Audio", 0),
        ("Document", "Document", 0),
        ("Executable", "Executable", 2),
        ("Image", "Image", 0),
        ("Pdf", "PDF", 0),
        ("Presentation", "Presentation", 0),
        ("Script", "Script", 2),
        ("SourceCode", "Source code", 3),
        ("Spreadsheet", "Spreadsheet", 1),
        ("Video", "Video", 0),
        ("VirtualDiskImage", "Virtual Disk Image", 3),
    ] {
        let (score, _, names) = indicators(|row| row.file_category = category.to_owned()).await;
        assert_eq!((score, names), (2 + weight, vec![name.to_owned()]), "{category}");
    }
    let found = indicators(|row| {
        row.mime_type_by_bytes = Some("application/pdf".to_owned());
        row.mime_type_by_extension = Some("text/plain".to_owned());
    });
    assert_eq!(found.await, (11, "CRITICAL".to_owned(), vec!["File mismatch".to_owned()]));
    let found = indicators(|row| row.recipient_domains = vec!["gmail.com".to_owned()]);
    let names = ["Personal mail domain", "First use of destination"].map(str::to_owned).to_vec();
    assert_eq!(found.await, (8, "HIGH".to_owned(), names));
    // A Saturday, and an evening.
    for time in ["2026-03-07T12:00:00Z", "2026-03-11T20:00:00Z"] {
        let found = indicators(|row| row.observed_at = time.parse().unwrap());
        assert_eq!(found.await, (3, "LOW".to_owned(), vec!["Off hours".to_owned()]), "{time}");
    }
    let found = indicators(|row| row.file_size_bytes = Some(100_000_000));
    assert_eq!(found.await, (5, "MODERATE".to_owned(), vec!["Large volume".to_owned()]));
    // A sender whom nobody knows has no history, and the event is there all the same.
    assert_eq!(indicators(|row| row.sender = None).await.0, 2);
    // Within the company, without any domain: not trusted, since nothing says so, and not external either.
    assert_eq!(indicators(|row| row.recipient_domains = Vec::new()).await.0, 1);
}

#[tokio::test]
async fn an_event_is_trusted_when_every_domain_was_trusted_at_its_time() {
    let rows = [
        event("1 all", WEDNESDAY, &["contoso.example", "a.group.example"]),
        event("2 one is not", WEDNESDAY, &["contoso.example", "x.example"]),
        event("3 before", "2026-02-28T23:59:59Z", &["contoso.example"]),
        event("4 below", WEDNESDAY, &["mail.contoso.example"]),
        event("5 none", WEDNESDAY, &[]),
    ];
    let question = "SELECT trusted, trust_reason, untrusted_domains, risk_score > 0 AS scored, \
        cardinality(risk_indicators) > 0 AS said, risk_severity = 'NO_RISK_INDICATED' AS safe \
        FROM events ORDER BY event_id";
    let expected = |trusted: bool, domains: Value| {
        let reason = trusted.then_some("Trusted email recipient");
        json!({"trusted": trusted, "trust_reason": reason, "untrusted_domains": domains, "scored": !trusted,
            "said": !trusted, "safe": trusted})
    };
    let answer = ask(&rows, TRUST, question).await;
    assert_eq!(answer[0]["trusted"], true, "{answer:?}");
    let mut answer = answer;
    // The cardinality of an empty list is nothing in some versions.
    for row in &mut answer {
        if row["said"].is_null() {
            row["said"] = json!(false);
        }
    }
    assert_eq!(
        answer,
        [
            expected(true, json!([])),
            expected(false, json!(["x.example"])),
            expected(false, json!(["contoso.example"])),
            expected(false, json!(["mail.contoso.example"])),
            expected(false, json!([])),
        ]
    );
    assert_eq!(ask(&rows, TRUST, "SELECT event_id FROM events WHERE trusted").await.len(), 1);
    assert_eq!(ask(&rows, "", "SELECT event_id FROM events WHERE trusted").await.len(), 0, "other rules, other answer");
    assert_eq!(ask(&rows, TRUST, "SELECT count(*) AS n FROM events").await, [json!({"n": 5})]);
    assert_eq!(ask(&rows, TRUST, "SELECT * FROM events LIMIT 2").await.len(), 2);
}

#[tokio::test]
async fn the_first_and_the_rare_use_of_a_destination_follow_from_the_days_before() {
    let mut rows = vec![
        event("a1", "2026-01-01T12:00:00Z", &["x.example"]),
        event("a2", "2026-01-01T12:00:00Z", &["x.example"]),
        event("b", "2026-01-02T12:00:00Z", &["x.example"]),
        // A known and a new destination: the less used one counts.
        event("c", "2026-01-03T12:00:00Z", &["x.example", "y.example"]),
        event("d", "2026-01-04T12:00:00Z", &["x.example"]),
        // The same second, another message.
        event("d2", "2026-01-04T12:00:00Z", &["z.example"]),
        // 90 days after `d`, which still counts; and a day later, when nothing does.
        event("e", "2026-04-04T12:00:00Z", &["x.example"]),
        event("f", "2026-07-04T12:00:01Z", &["x.example"]),
    ];
    rows.push(FileEvent {
        sender: Some("bob@contoso.example".to_owned()),
        ..event("g", "2026-01-05T12:00:00Z", &["x.example"])
    });
    let rules = "[[indicator]]\nid = \"first\"\nname = \"F\"\nweight = 1\nwhen = \"destination_uses = 1\"\n\
        [[indicator]]\nid = \"rare\"\nname = \"R\"\nweight = 2\nwhen = \"destination_uses between 2 and rare_use_at_most\"\n";
    let question = |filter: &str| format!("SELECT event_id, risk_score AS n FROM events {filter} ORDER BY event_id");
    let all = ask(&rows, rules, &question("")).await;
    let found: Vec<(&str, i64)> =
        all.iter().map(|row| (row["event_id"].as_str().unwrap(), row["n"].as_i64().unwrap())).collect();
    assert_eq!(
        found,
        [("a1", 1), ("a2", 1), ("b", 2), ("c", 1), ("d", 0), ("d2", 1), ("e", 2), ("f", 1), ("g", 1)],
        "attachments of one message are the same use"
    );
    // Filters narrow the history that is read and never change the answer.
    for filter in [
        "WHERE observed_at >= '2026-04-01T00:00:00Z'",
        "WHERE event_date = date '2026-01-04'",
        "WHERE observed_at BETWEEN '2026-01-02T12:00:00Z' AND '2026-01-04T12:00:00Z'",
        "WHERE event_date > date '2026-01-01' AND event_date < date '2026-04-05' AND sender = 'ada@contoso.example'",
        "WHERE event_id IN ('b', 'e')",
        "WHERE sender = 'bob@contoso.example'",
        "WHERE risk_score = 2",
        "WHERE observed_at < '2026-01-02T00:00:00Z' OR event_id = 'f'",
    ] {
        let some = ask(&rows, rules, &question(filter)).await;
        assert!(!some.is_empty(), "{filter}");
        let ids: Vec<&Value> = some.iter().map(|row| &row["event_id"]).collect();
        let expected: Vec<&Value> = all.iter().filter(|row| ids.contains(&&row["event_id"])).collect();
        assert_eq!(some.iter().collect::<Vec<_>>(), expected, "{filter}");
    }
}

#[tokio::test]
async fn volume_is_what_a_sender_sends_on_a_day_to_whom_is_not_trusted() {
    let mut rows: Vec<FileEvent> = (0..3).map(|n| event(&n.to_string(), WEDNESDAY, &["x.example"])).collect();
    rows.push(event("3", WEDNESDAY, &["contoso.example"]));
    rows.push(event("4", "2026-03-05T12:00:00Z", &["x.example"]));
    let rules = format!(
        "{TRUST}[large_volume]\nbytes = 30\nfiles = 3\n[[indicator]]\nid = \"v\"\nname = \"V\"\nweight = 7\n\
        when = \"bytes_that_day >= large_volume_bytes and files_that_day = large_volume_files\"\n"
    );
    for filter in ["", "WHERE observed_at >= '2026-03-04T11:00:00Z'", "WHERE event_id >= '0'"] {
        let answer =
            ask(&rows, &rules, &format!("SELECT risk_score AS n FROM events {filter} ORDER BY event_id")).await;
        assert_eq!(answer, [7, 7, 7, 0, 0].map(|n| json!({"n": n})), "{filter}");
    }
}

async fn physical(context: &SessionContext, question: &str) -> String {
    let plan = context.sql(question).await.unwrap().create_physical_plan().await.unwrap();
    displayable(plan.as_ref()).indent(false).to_string()
}

#[tokio::test]
async fn who_asks_for_no_risk_pays_for_none() {
    let context = session(&[event("a", WEDNESDAY, &["x.example"])], &lake("").await);
    for question in [
        "SELECT count(*) FROM {}",
        "SELECT sender, file_name FROM {} WHERE sha256 = 'x' ORDER BY observed_at DESC LIMIT 10",
        "SELECT sender, count(*) FROM {} WHERE event_date > date '2026-01-01' GROUP BY sender",
    ] {
        let of = |table: &str| question.replace("{}", table);
        assert_eq!(physical(&context, &of("events")).await, physical(&context, &of("file_events")).await);
    }
    // Trust looks at the row alone.
    let plan = physical(&context, "SELECT trusted, untrusted_domains FROM events").await;
    assert!(!plan.contains("Join") && !plan.contains("History"), "{plan}");
    let plan = physical(&context, "SELECT risk_score FROM events").await;
    assert!(plan.contains("History") && plan.contains("Join"), "{plan}");
}

#[tokio::test]
async fn rules_are_shown_changed_and_forgotten_and_each_change_is_recorded() {
    let lake = lake("").await;
    let (rules, now) = (RiskRules::of(&lake), Clock::System.now());
    assert_eq!(rules.show().await.unwrap(), DEFAULT);
    let day: NaiveDate = "2026-03-01".parse().unwrap();
    rules.trust("https://www.Contoso.example", day, false, "local:ann", now).await.unwrap();
    rules.trust("group.example", day, true, "local:ann", now).await.unwrap();
    assert_eq!(rules.trust("contoso.example", day, false, "x", now).await.unwrap_err().code(), Code::Configuration);
    let shown = rules.show().await.unwrap();
    assert!(shown.starts_with("[[trusted]]\ndomain = \"contoso.example\"\nfrom = 2026-03-01\n"), "{shown}");
    assert_eq!(Rules::parse(&shown).unwrap().indicators.len(), 20, "what is shown is a whole document");
    rules.distrust("CONTOSO.example", "local:bob", now).await.unwrap();
    assert_eq!(rules.trusted().await.unwrap().len(), 1);
    assert_eq!(rules.distrust("contoso.example", "x", now).await.unwrap_err().code(), Code::Configuration);
    assert_eq!(rules.set("[history]\ndays = 0", "x", now).await.unwrap_err().code(), Code::Configuration);
    rules.set("# Ours.\n[history]\ndays = 30", "local:ann", now).await.unwrap();
    assert!(rules.show().await.unwrap().starts_with("# Ours.\n[history]\ndays = 30\n"));
    assert!(!rules.show().await.unwrap().contains("days = 90"));
    // A form in which lines do not show what is where.
    rules.set("trusted = [{ domain = \"x.example\", from = 2026-01-01 }]", "local:ann", now).await.unwrap();
    for error in
        [rules.trust("y.example", day, false, "x", now).await.err(), rules.distrust("x.example", "x", now).await.err()]
    {
        assert!(error.unwrap().to_string().contains("only a person can edit"));
    }
    rules.reset("local:ann", now).await.unwrap();
    assert_eq!(rules.show().await.unwrap(), DEFAULT);
    let search = crate::search::Search::open(&lake).await.unwrap();
    let changes = search.sql("SELECT actor, action FROM changes").await.unwrap().collect().await.unwrap();
    assert_eq!(changes.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 6);
}

#[test]
fn blocks_together_are_the_document() {
    for text in [DEFAULT, "", "a = 1", "[x]\n# about y\n\n# y\n[[y]]\nb = 2", "#\n[x]"] {
        assert_eq!(blocks(text).iter().map(|block| block.text).collect::<String>(), text);
    }
    let sections: Vec<Option<&str>> = blocks("# y\n[[y]]\n[ x ]").iter().map(|block| block.section).collect();
    assert_eq!(sections, [None, Some("y"), Some("x")]);
}
