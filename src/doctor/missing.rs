//! "Why is this message not there?" Each possible reason in the order in which a person would rule it out.

use serde::Serialize;

use super::Check;
use super::standing::standing;
use crate::clock::{Clock, Time};
use crate::connection::{Connection, Intent};
use crate::error::{Code, Error, Result};
use crate::event::schema::TableName;
use crate::lake::Lake;
use crate::limits;
use crate::run::{self, OwedMessage};
use crate::search::Search;
use crate::search::query::{Criteria, Selection};
use crate::source::{Operation, SendRecord, Source as _};

/// What is known of the message that is looked for.
#[derive(Clone, Debug, Default)]
pub struct Inquiry {
    /// Its `Message-ID`.
    pub message_id: Option<String>,
    /// Who sent it: an address.
    pub user: Option<String>,
    /// About when.
    pub at: Option<Time>,
}

/// What was found out, and the conclusion.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// Step by step.
    pub checks: Vec<Check>,
    /// The reason in a sentence.
    pub conclusion: String,
}

/// Follows a message's way from the mailbox to the lake, until the place where it stopped.
///
/// # Errors
/// `usage` when nothing is known of the message; `lake-unavailable`, `lake-damaged`.
pub async fn inquire(lake: &Lake, connection: &Connection, inquiry: &Inquiry, clock: &Clock) -> Result<Answer> {
    let mut steps = Steps(Vec::new());
    let conclusion = follow(lake, connection, inquiry, clock, &mut steps).await?;
    Ok(Answer { checks: steps.0, conclusion })
}

struct Steps(Vec<Check>);

impl Steps {
    fn good(&mut self, name: &'static str, finding: impl Into<String>) {
        self.0.push(Check::good(name, finding));
    }

    /// Notes where the way ends, and gives the conclusion.
    fn ends(&mut self, name: &'static str, code: Code, finding: String) -> String {
        self.0.push(Check::bad(name, &Error::new(code, finding.clone())));
        finding
    }
}

async fn follow(
    lake: &Lake,
    connection: &Connection,
    inquiry: &Inquiry,
    clock: &Clock,
    steps: &mut Steps,
) -> Result<String> {
    if inquiry.message_id.is_none() && inquiry.user.is_none() {
        return Err(Error::new(Code::Usage, "tell which message: its `--message-id`, or `--user` and `--at`"));
    }
    let search = Search::open(lake).await?;
    if let Some(conclusion) = in_lake(&search, inquiry, clock, steps).await? {
        return Ok(conclusion);
    }
    if let Some(id) = &inquiry.message_id
        && let Some(owed) = owed(lake, connection, id.trim()).await?
    {
        let finding = format!("the audit log reported it, and it is owed: {}", owed.reason);
        return Ok(steps.ends("owed work", Code::MessageMissing, finding));
    }
    if let Some(id) = &inquiry.message_id {
        let gaps = search.rows(TableName::Gaps, &[("subject", id.trim())], "found_at", 1).await?;
        if let Some(reason) = gaps.first().and_then(|gap| gap.get("reason")?.as_str()) {
            let finding = format!("the audit log reported it, and it was given up: {reason}");
            return Ok(steps.ends("gaps", Code::MessageMissing, finding));
        }
    }
    match connection.intent {
        Intent::Monitor => steps.good("status", "the connection is monitored"),
        Intent::Pause | Intent::Deauthorize => {
            let finding = "the connection is paused or deauthorised, so runs leave it alone".to_owned();
            return Ok(steps.ends("status", Code::ConnectionDeauthorized, finding));
        }
    }
    let source = connection.source(clock.clone())?;
    if let Some(user) = &inquiry.user {
        let scope = source.resolve_scope(&connection.scope).await?;
        if !scope.contains(&send(user, inquiry, clock)) {
            let finding = format!("`{user}` is not in the scope of the connection, so nothing is recorded of it");
            return Ok(steps.ends("scope", Code::MailboxMissing, finding));
        }
        steps.good("scope", format!("`{user}` is monitored now"));
    }
    let mut sent = inquiry.at;
    let mut is_in_mailbox = None;
    if let (Some(user), Some(_)) = (&inquiry.user, &inquiry.message_id) {
        match source.find(&send(user, inquiry, clock)).await {
            Err(error) => {
                let finding = format!("the mailbox cannot be read: {error}");
                return Ok(steps.ends("mailbox", error.code(), finding));
            }
            Ok(messages) if messages.is_empty() => {
                is_in_mailbox = Some(false);
                steps.0.push(Check::warning(
                    "mailbox",
                    Code::MessageMissing,
                    format!("the mailbox of `{user}` does not hold the message (any more)"),
                ));
            }
            Ok(messages) => {
                let attachments: usize = messages.iter().map(|message| message.attachments.len()).sum();
                sent = messages.first().map(|message| message.sent).or(sent);
                if attachments == 0 {
                    let finding = "the message is there and has no attachment, so it has no row".to_owned();
                    steps.good("mailbox", finding.clone());
                    return Ok(finding);
                }
                steps.good("mailbox", format!("the message is there, with {attachments} attachments"));
            }
        }
    }
    let standing = standing(lake, connection, clock.now()).await?;
    if let Some(sent) = sent {
        if sent + limits::CONTENT_AWAITED < connection.since {
            let finding = format!(
                "it was sent before the connection started ({}); `waybill backfill` can add it",
                connection.since
            );
            return Ok(steps.ends("time", Code::GapTooOld, finding));
        }
        let gaps =
            search.rows(TableName::Gaps, &[("connection_id", &connection.id.to_string())], "found_at", 1000).await?;
        // A send is reported within a day of it, as a rule.
        let covers = |gap: &serde_json::Map<String, serde_json::Value>| {
            let time = |name: &str| gap.get(name)?.as_str()?.parse::<Time>().ok();
            Some(time("window_start")? <= sent + chrono::Duration::days(1) && sent < time("window_end")?)
        };
        if let Some(gap) = gaps.iter().find(|gap| covers(gap) == Some(true)) {
            let reason = gap.get("reason").and_then(|reason| reason.as_str()).unwrap_or_default();
            let finding = format!("the audit content of that time is lost: {reason}");
            return Ok(steps.ends("gaps", Code::GapTooOld, finding));
        }
        let read_up_to = standing.read_up_to.unwrap_or(connection.since);
        if read_up_to < sent + limits::FEED_LATENCY {
            let finding = format!(
                "the audit log was read up to {read_up_to}, and reports a send an hour or more after it: wait for the next runs"
            );
            return Ok(steps.ends("runs", Code::ContentAwaited, finding));
        }
        steps.good("runs", format!("the audit log was read up to {read_up_to}"));
        if clock.now() - sent < chrono::Duration::hours(24) {
            let finding = "the audit log has not reported it yet; it usually does within 24 hours".to_owned();
            return Ok(steps.ends("audit log", Code::ContentAwaited, finding));
        }
    }
    if is_in_mailbox == Some(false) {
        let finding =
            "neither the mailbox nor the audit log knows of it: check the address and the Message-ID".to_owned();
        return Ok(steps.ends("audit log", Code::MessageMissing, finding));
    }
    let finding = "the audit log was read and did not report the send".to_owned();
    Ok(steps.ends("audit log", Code::SendNotAudited, finding))
}

/// The owed message of that id, in whichever shard.
async fn owed(lake: &Lake, connection: &Connection, message_id: &str) -> Result<Option<OwedMessage>> {
    for shard in connection.shards() {
        let Some((_, state)) = run::standing(lake, &shard).await? else { continue };
        let mut owed = state.owed.messages.into_iter();
        if let Some(found) = owed.find(|owed| owed.send.internet_message_id.as_deref() == Some(message_id)) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

async fn in_lake(search: &Search, inquiry: &Inquiry, clock: &Clock, steps: &mut Steps) -> Result<Option<String>> {
    let around = chrono::Duration::hours(1);
    let criteria = Criteria {
        message_id: inquiry.message_id.clone().into_iter().collect(),
        sender: inquiry.user.clone().filter(|_| inquiry.message_id.is_none()).into_iter().collect(),
        begin: inquiry.at.filter(|_| inquiry.message_id.is_none()).map(|at| at - around),
        end: inquiry.at.filter(|_| inquiry.message_id.is_none()).map(|at| at + around),
        ..Criteria::default()
    };
    let selection = Selection::new(&["event_id".to_owned()], &[])?.part(0, Some(100));
    let rows: usize = search
        .file_events(&criteria.query()?, &selection, clock.now())
        .await?
        .collect()
        .await?
        .iter()
        .map(|b| b.num_rows())
        .sum();
    Ok(if rows == 0 {
        steps.good("lake", "no row of it");
        None
    } else {
        let finding = format!("it is there: {rows} rows of `file_events`");
        steps.good("lake", finding.clone());
        Some(finding)
    })
}

/// A send as the audit log would report it, to ask the mailbox with.
fn send(user: &str, inquiry: &Inquiry, clock: &Clock) -> SendRecord {
    SendRecord {
        id: String::new(),
        operation: Operation::Send,
        created: inquiry.at.unwrap_or_else(|| clock.now()),
        actor: user.to_owned(),
        mailbox: user.to_owned(),
        mailbox_guid: None,
        tenant_id: None,
        internet_message_id: inquiry.message_id.as_deref().map(|id| id.trim().to_owned()),
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
