//! The views: the columns that their public definitions have, values where they belong, and no more cost than a table's.

use std::sync::Arc;

use arrow::datatypes::DataType;
use chrono::Duration;
use serde_json::{Value, json};
use waybill::clock::Clock;
use waybill::event::FileEvent;
use waybill::lake::Lake;
use waybill::search::{Asker, Engine, Policy, Search, Surface};

use crate::inner::query;
use crate::risk::{event, lake, noon};

pub(crate) const VIEWS: [&str; 6] = [
    "EmailAttachmentInfo",
    "EmailEvents",
    "code42_file_events",
    "ecs_email",
    "ocsf_email_activity",
    "ocsf_email_file_activity",
];

/// Name and type of each column, in Microsoft's order and words:
/// <https://learn.microsoft.com/defender-xdr/advanced-hunting-emailattachmentinfo-table>, as of 2023-12-29.
const ATTACHMENT_INFO: &str = "Timestamp datetime, NetworkMessageId string, SenderFromAddress string, \
    SenderDisplayName string, SenderObjectId string, RecipientEmailAddress string, RecipientObjectId string, \
    FileName string, FileType string, SHA256 string, FileSize long, ThreatTypes string, ThreatNames string, \
    DetectionMethods string, ReportId string";

/// <https://learn.microsoft.com/defender-xdr/advanced-hunting-emailevents-table>, as of 2024-01-16.
const EMAIL_EVENTS: &str = "Timestamp datetime, NetworkMessageId string, InternetMessageId string, \
    SenderMailFromAddress string, SenderFromAddress string, SenderDisplayName string, SenderObjectId string, \
    SenderMailFromDomain string, SenderFromDomain string, SenderIPv4 string, SenderIPv6 string, \
    RecipientEmailAddress string, RecipientObjectId string, Subject string, EmailClusterId long, \
    EmailDirection string, DeliveryAction string, DeliveryLocation string, ThreatTypes string, ThreatNames string, \
    DetectionMethods string, ConfidenceLevel string, BulkComplaintLevel int, EmailAction string, \
    EmailActionPolicy string, EmailActionPolicyGuid string, AuthenticationDetails string, AttachmentCount int, \
    UrlCount int, EmailLanguage string, Connectors string, OrgLevelAction string, OrgLevelPolicy string, \
    UserLevelAction string, UserLevelPolicy string, ReportId string, AdditionalFields string, \
    LatestDeliveryLocation string, LatestDeliveryAction string";

async fn small() -> Lake {
    let ann = "ann@contoso.example";
    let first = event(1, ann, &["bob@partner.example", "carl@contoso.example"], noon());
    let same_message = FileEvent {
        internet_message_id: first.internet_message_id.clone(),
        ..event(2, ann, &["bob@partner.example", "carl@contoso.example"], noon())
    };
    lake(vec![
        first,
        same_message,
        event(3, ann, &["dora@contoso.example"], noon() + Duration::days(1)),
        event(4, ann, &[], noon() + Duration::days(2)),
    ])
    .await
}

fn microsofts(kind: &DataType) -> &'static str {
    match kind {
        DataType::Timestamp(..) => "datetime",
        DataType::Utf8 => "string",
        DataType::Int64 => "long",
        DataType::Int32 => "int",
        other => panic!("Microsoft has no {other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn microsofts_tables_have_microsofts_columns() {
    let lake = small().await;
    let search = Search::open(&lake).await.unwrap();
    for (name, columns) in [("EmailAttachmentInfo", ATTACHMENT_INFO), ("EmailEvents", EMAIL_EVENTS)] {
        for (statement, expected) in [
            (format!("SELECT * FROM \"{name}\""), columns.to_owned()),
            (format!("SELECT * FROM {name}"), columns.split(", ").map(lower_name).collect::<Vec<_>>().join(", ")),
        ] {
            let answer = search.sql(&statement).await.unwrap();
            let found: Vec<String> = answer
                .schema()
                .fields()
                .iter()
                .map(|field| format!("{} {}", field.name(), microsofts(field.data_type())))
                .collect();
            assert_eq!(found.join(", "), expected, "{statement}");
        }
    }
}

fn lower_name(column: &str) -> String {
    let (name, kind) = column.split_once(' ').unwrap();
    format!("{} {kind}", name.to_lowercase())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_view_is_listed_and_every_column_says_what_it_tells() {
    let lake = small().await;
    let search = Search::open(&lake).await.unwrap();
    let listed = query(&lake, "SELECT table_name FROM information_schema.tables WHERE table_type = 'VIEW'").await;
    let listed: Vec<&str> = listed.iter().map(|row| row["table_name"].as_str().unwrap()).collect();
    for view in VIEWS {
        let frame = search.table(&format!("\"{view}\"")).await.unwrap();
        assert!(listed.contains(&view), "{view} is not in {listed:?}");
        for field in frame.schema().fields() {
            assert!(field.metadata().get("comment").is_some_and(|text| !text.is_empty()), "{view}.{}", field.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_and_attachments_have_a_row_for_each_recipient() {
    let lake = small().await;
    let rows = query(
        &lake,
        "SELECT RecipientEmailAddress AS who, FileName AS name, SHA256 AS hash FROM EmailAttachmentInfo \
         WHERE Timestamp = TIMESTAMP '2026-11-04T12:00:00Z' ORDER BY 1, 3",
    )
    .await;
    let (bob, carl) = ("bob@partner.example", "carl@contoso.example");
    let row = |who, hash: u8| json!({"who": who, "name": "plan.pdf", "hash": format!("{hash:064x}")});
    assert_eq!(json!(rows), json!([row(bob, 1), row(bob, 2), row(carl, 1), row(carl, 2)]));

    let rows = query(
        &lake,
        "SELECT \"RecipientEmailAddress\" AS who, \"AttachmentCount\" AS files, \"EmailDirection\" AS direction \
         FROM \"EmailEvents\" ORDER BY \"Timestamp\", who",
    )
    .await;
    assert_eq!(
        json!(rows),
        json!([
            {"who": bob, "files": 2, "direction": "Outbound"},
            {"who": carl, "files": 2, "direction": "Outbound"},
            {"who": "dora@contoso.example", "files": 1, "direction": "Intra-org"},
            {"files": 1},
        ])
    );
}

/// The required attributes of the classes and of the objects in them, and the values of their enumerations:
/// <https://schema.ocsf.io/1.5.0/classes/email_activity>, <https://schema.ocsf.io/1.1.0/classes/email_file_activity>.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ocsf_events_have_what_their_class_requires() {
    let lake = small().await;
    for (view, class, version) in [("ocsf_email_activity", 4009, "1.5.0"), ("ocsf_email_file_activity", 4011, "1.1.0")]
    {
        let rows = query(&lake, &format!("SELECT * FROM {view} ORDER BY time, metadata['uid']")).await;
        assert_eq!(rows.len(), 4);
        for row in &rows {
            let event = json!(row);
            assert_eq!((&event["activity_id"], &event["category_uid"]), (&json!(1), &json!(4)));
            assert_eq!((&event["class_uid"], &event["type_uid"]), (&json!(class), &json!(class * 100 + 1)));
            assert_eq!((&event["severity_id"], &event["severity"]), (&json!(1), &json!("Informational")));
            assert_eq!(event["metadata"]["version"], version);
            assert_eq!(event["metadata"]["product"]["vendor_name"], "Waybill");
            let file = match class {
                4009 => {
                    assert!([0, 1, 2, 3, 99].map(|id| json!(id)).contains(&event["direction_id"]), "{event}");
                    assert!(event["email"]["from"].is_string() && event["email"]["to"].is_array(), "{event}");
                    assert_eq!(event["email"]["files"].as_array().unwrap().len(), 1);
                    &event["email"]["files"][0]
                }
                _ => {
                    assert!(event["email_uid"].is_string(), "{event}");
                    &event["file"]
                }
            };
            assert_eq!(
                (&file["name"], &file["type_id"], &file["size"]),
                (&json!("plan.pdf"), &json!(1), &json!(1_000))
            );
            let hashes: Vec<(&Value, usize)> = file["hashes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|hash| (&hash["algorithm_id"], hash["value"].as_str().unwrap().len()))
                .collect();
            assert_eq!(hashes, [(&json!(1), 32), (&json!(3), 64)]);
        }
        assert_eq!(rows[0]["time"], noon().timestamp_millis());
    }
    let directions =
        query(&lake, "SELECT direction_id AS d, count(*) AS n FROM ocsf_email_activity GROUP BY 1 ORDER BY 1");
    assert_eq!(json!(directions.await), json!([{"d": 0, "n": 1}, {"d": 2, "n": 2}, {"d": 3, "n": 1}]));
}

/// <https://github.com/elastic/ecs/blob/v8.17.0/schemas/email.yml>, `hash.yml`, `event.yml`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ecs_documents_have_the_fields_of_the_common_schema() {
    let lake = small().await;
    let rows = query(&lake, "SELECT * FROM ecs_email ORDER BY event['id'] LIMIT 1").await;
    let document = json!(rows[0]);
    let email = &document["email"];
    assert_eq!(email["from"]["address"], json!(["ann@contoso.example"]));
    assert_eq!(email["sender"]["address"], "ann@contoso.example");
    assert_eq!(email["to"]["address"], json!(["bob@partner.example", "carl@contoso.example"]));
    assert_eq!(email["message_id"], "1@contoso.example");
    assert_eq!(email["direction"], "outbound");
    let file = json!({
        "name": "plan.pdf", "extension": "pdf", "mime_type": "application/pdf", "size": 1_000,
        "hash": {"md5": format!("{:032x}", 1), "sha256": format!("{:064x}", 1)},
    });
    assert_eq!(email["attachments"], json!([{"file": file}]));
    assert_eq!(document["ecs"]["version"], "8.17.0");
    assert_eq!(document["event"]["action"], "file-emailed");
    assert_eq!(document["related"]["hash"], json!([format!("{:032x}", 1), format!("{:064x}", 1)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code42s_names_have_the_same_values() {
    let lake = small().await;
    let rows = query(
        &lake,
        "SELECT \"file.hash.md5\" AS md5, \"user.email\" AS who, \"destination.email.recipients\" AS whom, \
         \"risk.trusted\" AS trusted, \"event.observer\" AS observer FROM code42_file_events \
         WHERE \"file.hash.sha256\" = '0000000000000000000000000000000000000000000000000000000000000003'",
    )
    .await;
    assert_eq!(
        json!(rows),
        json!([{
            "md5": format!("{:032x}", 3), "who": "ann@contoso.example", "whom": ["dora@contoso.example"],
            "trusted": false, "observer": "Office365",
        }])
    );
}

/// A filter on a view's column is one on the table's: it reaches the list of files and the scan.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_on_views_reach_the_files() {
    let lake = small().await;
    let plan = async |statement: &str| {
        let rows = query(&lake, &format!("EXPLAIN {statement}")).await;
        rows.iter().find(|row| row["plan_type"] == "physical_plan").unwrap()["plan"].as_str().unwrap().to_owned()
    };
    let all = plan("SELECT event_id FROM file_events").await.matches(".parquet").count();
    assert_eq!(all, 3, "a file a day");
    let hash = format!("{:064x}", 3);
    for filter in [
        format!("code42_file_events WHERE \"file.hash.sha256\" = '{hash}'"),
        format!("EmailAttachmentInfo WHERE SHA256 = '{hash}'"),
        format!(
            "ecs_email WHERE related IS NOT NULL AND email['attachments'] IS NOT NULL AND event['id'] = '{}'",
            uuid::Uuid::from_u128(3)
        ),
        "code42_file_events WHERE \"@timestamp\" > TIMESTAMP '2026-11-06T00:00:00Z'".to_owned(),
        "EmailAttachmentInfo WHERE Timestamp > TIMESTAMP '2026-11-06T00:00:00Z'".to_owned(),
        "EmailEvents WHERE Timestamp > TIMESTAMP '2026-11-06T00:00:00Z'".to_owned(),
        "ocsf_email_activity WHERE time_dt > TIMESTAMP '2026-11-06T00:00:00Z'".to_owned(),
        "ocsf_email_file_activity WHERE time_dt > TIMESTAMP '2026-11-06T00:00:00Z'".to_owned(),
        "ecs_email WHERE \"@timestamp\" > TIMESTAMP '2026-11-06T00:00:00Z'".to_owned(),
    ] {
        let plan = plan(&format!("SELECT count(*) FROM {filter}")).await;
        assert_eq!(plan.matches(".parquet").count(), 1, "{filter}\n{plan}");
        assert!(plan.contains("predicate="), "{filter}\n{plan}");
    }
    let plan = plan("SELECT count(*) FROM ocsf_email_activity WHERE email['smtp_from'] = 'ann@contoso.example'").await;
    assert!(plan.contains("predicate=sender"), "a filter inside of an object reaches the scan, too\n{plan}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_policy_hides_is_hidden_in_every_view() {
    let lake = small().await;
    let engine = Engine::new(lake, Clock::default()).unwrap();
    let hidden = ["sender", "from_address", "mailbox", "sha256", "md5", "recipients", "to_recipients"];
    let policy = Policy { hidden_columns: hidden.map(str::to_owned).to_vec(), connections: None };
    let other = Policy { connections: Some(vec!["another".to_owned()]), ..Policy::default() };
    for view in VIEWS {
        for (policy, is_empty) in [(policy.clone(), false), (other.clone(), true)] {
            let asker = Asker { policy: Arc::new(policy), ..Asker::local("test".to_owned(), Surface::Shell) };
            let search = engine.search(&asker).await.unwrap();
            let rows = search.sql(&format!("SELECT * FROM \"{view}\"")).await.unwrap().objects().await.unwrap();
            assert_eq!(rows.is_empty(), is_empty, "{view}");
            let text = json!(rows).to_string();
            for secret in ["ann@", "bob@", "dora@", "0000000000000000000000000003"] {
                assert!(!text.contains(secret), "{view} shows {secret}: {text}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_hashes_has_those_that_are_not_hidden() {
    let engine = Engine::new(small().await, Clock::default()).unwrap();
    for (hidden, kept) in [("md5", "sha256"), ("sha256", "md5")] {
        let policy = Policy { hidden_columns: vec![hidden.to_owned()], connections: None };
        let asker = Asker { policy: Arc::new(policy), ..Asker::local("test".to_owned(), Surface::Shell) };
        let search = engine.search(&asker).await.unwrap();
        let statement = "SELECT related['hash'] AS hashes FROM ecs_email WHERE related['hash'] IS NOT NULL \
                         ORDER BY related['hash'][1]";
        let hashes = search.sql(statement).await.unwrap().objects().await.unwrap();
        let statement =
            format!("SELECT make_array({kept}) AS hashes FROM file_events WHERE {kept} IS NOT NULL ORDER BY {kept}");
        let expected = search.sql(&statement).await.unwrap().objects().await.unwrap();
        assert!(!expected.is_empty());
        assert_eq!(hashes, expected, "without {hidden}");
    }
}
