//! Runs inside this process: a mail service in memory, a store that can fail, and a clock that stands still.

pub(crate) mod simulated;
pub(crate) mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use waybill::clock::{Clock, Time};
use waybill::error::Result;
use waybill::lake::{Lake, Shard};
use waybill::monitor::Progress;
use waybill::run::{self, Job, Report};
use waybill::search::Search;
use waybill::source::memory::Memory;
use waybill::source::{Attachment, AttachmentKind, Message, NamedAttachment, Operation, Scope, SendRecord};

/// When the scripts begin.
pub(crate) fn noon() -> Time {
    DateTime::parse_from_rfc3339("2026-11-02T12:00:00Z").unwrap().with_timezone(&Utc)
}

/// A connection to a mail service in memory.
pub(crate) struct Tenant {
    pub(crate) source: Arc<Memory>,
    pub(crate) clock: Clock,
    pub(crate) scope: Scope,
    pub(crate) since: Time,
    pub(crate) interrupt: CancellationToken,
    pub(crate) shard: Shard,
    id: Uuid,
}

impl Tenant {
    pub(crate) fn new() -> Self {
        let clock = Clock::manual(noon());
        Self {
            source: Arc::new(Memory::new(clock.clone())),
            clock,
            scope: Scope::All,
            since: noon() - Duration::hours(1),
            interrupt: CancellationToken::new(),
            shard: Shard::whole(Uuid::from_u128(0xc0)),
            id: Uuid::from_u128(0xc0),
        }
    }

    pub(crate) fn at(&self, minutes: i64) -> Time {
        noon() + Duration::minutes(minutes)
    }

    pub(crate) fn job(&self, owed_only: bool) -> Job {
        Job {
            connection_id: self.id,
            connection_name: "memory".to_owned(),
            tenant_id: Uuid::from_u128(0x7e),
            shard: self.shard.clone(),
            scope: self.scope.clone(),
            since: self.since,
            authorized: None,
            owed_only,
            clock: self.clock.clone(),
            interrupt: self.interrupt.clone(),
            progress: Arc::new(Progress::default()),
        }
    }

    /// The same tenant for runs of one of its shards.
    pub(crate) fn of(&self, shard: &Shard) -> Self {
        Self {
            source: Arc::clone(&self.source),
            clock: self.clock.clone(),
            scope: self.scope.clone(),
            since: self.since,
            interrupt: self.interrupt.clone(),
            shard: shard.clone(),
            id: self.id,
        }
    }

    pub(crate) async fn run(&self, lake: &Lake) -> Result<Report> {
        run::run(self.job(false), Arc::clone(&self.source), lake).await
    }

    /// Sends message `number` with attachments of these names; its copy can be found from the time that it was sent.
    /// Returns the record, which nobody has published yet.
    pub(crate) fn send(&self, number: u32, names: &[&str]) -> SendRecord {
        let message = self.message(number, names);
        self.source.add_message(message.sent, message);
        record(number, names)
    }

    /// Message `number`, whose attachments have their bytes, and which is in no mailbox yet.
    pub(crate) fn message(&self, number: u32, names: &[&str]) -> Message {
        let attachments = names.iter().enumerate().map(|(index, name)| {
            let id = format!("attachment-{number}-{index}");
            self.source.set_bytes(&id, content(number, index));
            Attachment {
                id,
                name: (*name).to_owned(),
                kind: AttachmentKind::File,
                content_type: None,
                store_size_bytes: Some(1),
                is_inline: false,
                source_url: None,
            }
        });
        Message {
            mailbox: mailbox(number),
            id: format!("message-{number}"),
            internet_message_id: format!("<{number}@contoso.example>"),
            subject: Some(format!("subject {number}")),
            sender: None,
            from: None,
            to: Vec::new(),
            cc: Vec::new(),
            bcc: Vec::new(),
            sent: sent(number),
            attachments: attachments.collect(),
        }
    }
}

/// Whose message `number` is.
pub(crate) fn mailbox(number: u32) -> String {
    format!("user{}@contoso.example", number % 3)
}

/// When message `number` was sent.
pub(crate) fn sent(number: u32) -> Time {
    noon() - Duration::minutes(30) + Duration::seconds(i64::from(number))
}

/// The audit record of message `number`.
pub(crate) fn record(number: u32, names: &[&str]) -> SendRecord {
    SendRecord {
        id: Uuid::from_u128(0x1000 + u128::from(number)).to_string(),
        operation: Operation::Send,
        created: sent(number),
        actor: mailbox(number),
        mailbox: mailbox(number),
        mailbox_guid: None,
        tenant_id: None,
        internet_message_id: Some(format!("<{number}@contoso.example>")),
        subject: None,
        attachments: names
            .iter()
            .map(|name| NamedAttachment { name: (*name).to_owned(), store_size_bytes: None })
            .collect(),
        recipients: Vec::new(),
        sent_as: None,
        client_ip: None,
        client_info: None,
        app_id: None,
        saved_to_sent_items: None,
    }
}

/// The bytes of an attachment.
pub(crate) fn content(number: u32, index: usize) -> Vec<u8> {
    format!("attachment {index} of message {number}\n").repeat(3 + number as usize % 5).into_bytes()
}

/// What an undisturbed lake holds for a row: `message/name` → MD5.
pub(crate) fn expected(sends: &[(u32, Vec<&str>)]) -> BTreeMap<String, Vec<String>> {
    let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (number, names) in sends {
        for (index, name) in names.iter().enumerate() {
            let mut hasher = waybill::digest::Hasher::new();
            hasher.update(&content(*number, index));
            let md5 = hasher.finish().0.md5_hex();
            rows.entry(format!("<{number}@contoso.example>/{name}")).or_default().push(md5);
        }
    }
    rows.values_mut().for_each(|hashes| hashes.sort());
    rows
}

/// What a lake holds, in the same form; a row without a hash has its status there.
pub(crate) async fn actual(lake: &Lake) -> BTreeMap<String, Vec<String>> {
    let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in
        query(lake, "SELECT internet_message_id, file_name, coalesce(md5, hash_status) AS md5 FROM file_events").await
    {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        rows.entry(format!("{}/{}", text("internet_message_id"), text("file_name"))).or_default().push(text("md5"));
    }
    rows.values_mut().for_each(|hashes| hashes.sort());
    rows
}

/// Asks a lake in SQL; rows as JSON objects.
pub(crate) async fn query(lake: &Lake, statement: &str) -> Vec<serde_json::Value> {
    let batches = Search::open(lake).await.unwrap().sql(statement).await.unwrap().collect().await.unwrap();
    let mut writer = arrow::json::ArrayWriter::new(Vec::new());
    writer.write_batches(&batches.iter().collect::<Vec<_>>()).unwrap();
    writer.finish().unwrap();
    let json = writer.into_inner();
    if json.is_empty() { Vec::new() } else { serde_json::from_slice(&json).unwrap() }
}

/// The one number that a query gives.
pub(crate) async fn count(lake: &Lake, statement: &str) -> i64 {
    query(lake, statement).await[0].as_object().unwrap().values().next().unwrap().as_i64().unwrap()
}
