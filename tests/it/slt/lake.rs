//! The lake that all cases ask: the events of `tests/slt/lake.json`.

use serde_json::{Map, Value, json};
use uuid::Uuid;
use waybill::clock::Time;
use waybill::digest::content_type::{ContentType, by_name};
use waybill::event::FileEvent;
use waybill::event::names::{FileName, addresses, recipient_domains, recipients};
use waybill::lake::Lake;
use waybill::search::RiskRules;

use crate::risk;

/// From when on domains are trusted, and whether those below them are.
const TRUSTED: [(&str, &str, bool); 3] = [
    ("contoso.example", "2026-01-01", false),
    ("partner.example", "2026-11-05", false),
    ("group.example", "2026-11-01", true),
];

pub(super) async fn lake(now: Time) -> Lake {
    let events: Vec<Map<String, Value>> = serde_json::from_str(include_str!("../../slt/lake.json")).unwrap();
    let lake = risk::lake(events.iter().map(event).collect()).await;
    for (domain, from, include_subdomains) in TRUSTED {
        let rules = RiskRules::of(&lake);
        rules.trust(domain, from.parse().unwrap(), include_subdomains, "local:test", now).await.unwrap();
    }
    lake
}

/// A row as a run would have written it: what follows from what is told is not told.
fn event(told: &Map<String, Value>) -> FileEvent {
    let number = told["number"].as_u64().unwrap();
    let text = |name: &str| told.get(name).and_then(Value::as_str).map(str::to_owned);
    let list = |name: &str| {
        let list = told.get(name).and_then(Value::as_array).into_iter().flatten();
        addresses(list.map(|address| address.as_str().unwrap()))
    };
    // What is told as null is none; what is not told has a usual value.
    let or = |name: &str, usual: Value| told.get(name).cloned().unwrap_or(usual);
    let columns = told.get("columns").and_then(Value::as_object).cloned().unwrap_or_default();

    let raw = text("name").unwrap_or_default();
    let name = match columns.get("attachment_kind").and_then(Value::as_str) {
        Some("item") => FileName::of_item(&raw),
        _ => FileName::of_file(&raw),
    };
    let bytes = text("holds").map(|extension| by_name(&format!("x.{extension}")).unwrap());
    let types = ContentType::of(bytes, name.name.as_deref().unwrap_or_default());
    let (to, cc, bcc) = (list("to"), list("cc"), list("bcc"));
    let all = recipients([to.as_slice(), &cc, &bcc]);
    let digits = |width: usize| or("file", json!(number)).as_u64().map(|of| format!("{of:0width$x}"));
    let observed_at = text("at").unwrap().parse().unwrap();
    let usual = risk::event(number.into(), "", &[], observed_at);
    let event = json!({
        "file_name": name.name, "file_extension": name.extension, "file_path": name.path,
        "file_size_bytes": or("size", json!(1_000)), "sha256": digits(64), "md5": digits(32),
        "sender": told["sender"], "from_address": or("from", told["sender"].clone()),
        "mailbox": or("mailbox", told["sender"].clone()),
        "recipient_domains": recipient_domains(&all), "recipients": all,
        "to_recipients": to, "cc_recipients": cc, "bcc_recipients": bcc,
        "internet_message_id": format!("<{}@contoso.example>", or("message", json!(number))),
        "connection_name": "Contoso", "connection_id": Uuid::from_u128(1), "tenant_id": Uuid::from_u128(0xc0),
        "file_category": types.category.as_str(), "mime_type": types.most_likely, "mime_type_by_bytes": types.by_bytes,
        "mime_type_by_extension": types.by_name,
    });
    let mut row = serde_json::to_value(usual).unwrap();
    for (column, value) in event.as_object().unwrap().iter().chain(&columns) {
        assert!(row.get(column).is_some(), "event {number}: file events have no column `{column}`");
        row[column] = value.clone();
    }
    serde_json::from_value(row).unwrap_or_else(|error| panic!("event {number}: {error}"))
}
