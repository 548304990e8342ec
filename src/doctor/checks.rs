//! The examination: each check in the order in which a failure would hide the ones after it.

use std::collections::BTreeSet;

use serde::Serialize;

use super::standing::{Standing, standing};
use super::{Check, Verdict};
use crate::clock::Clock;
use crate::connection::{Connection, Intent};
use crate::error::{Code, Error, Result};
use crate::event::schema::TableName;
use crate::lake::Lake;
use crate::limits;
use crate::search::Search;
use crate::search::query::{Criteria, Selection};
use crate::source::microsoft365::{Credential, Microsoft365};
use crate::source::{ResolvedScope, Source as _};

/// Mailboxes that are looked into: enough to tell a policy about some from a missing permission.
const MAILBOXES_PROBED: usize = 5;

/// Age of a last run from which the schedule is doubted: a nightly job and two hours.
const RUN_OVERDUE: chrono::Duration = chrono::Duration::hours(26);

/// All that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Examination {
    /// The connection's display name.
    pub connection: String,
    /// In order.
    pub checks: Vec<Check>,
}

impl Examination {
    /// The first finding that needs a person, bad ones first.
    pub fn to_do(&self) -> Option<&Check> {
        let first = |verdict| self.checks.iter().find(move |check| check.verdict == verdict);
        first(Verdict::Bad).or_else(|| first(Verdict::Warning))
    }
}

/// Looks at the lake: whether it can be read and written.
///
/// # Errors
/// Only defects; what is wrong with the lake is a check.
pub async fn examine_lake(lake: &Lake) -> Result<Vec<Check>> {
    let mut checks = vec![judged("lake", lake.require().await, |()| format!("`{}` can be read", lake.url()))];
    if checks[0].verdict == Verdict::Good {
        checks.push(judged("lake, writing", lake.probe().await, |()| "objects can be written and deleted".to_owned()));
    }
    Ok(checks)
}

/// Looks at a connection: state, schedule, sign-in, permissions, feed, scope, mailboxes, what is owed and lost.
///
/// # Errors
/// `lake-unavailable`, `lake-damaged`; whatever is wrong with the tenant is a check.
pub async fn examine(lake: &Lake, connection: &Connection, clock: &Clock) -> Result<Examination> {
    let now = clock.now();
    let standing = standing(lake, connection, now).await?;
    let mut checks = vec![state(connection, &standing), schedule(connection, &standing, clock)];
    let source = connection.source(clock.clone());
    match &source {
        Err(error) => checks.push(Check::bad("endpoints", error)),
        Ok(source) => tenant(lake, connection, &standing, source, clock, &mut checks).await?,
    }
    checks.extend(remains(lake, connection, &standing).await?);
    Ok(Examination { connection: connection.name.clone(), checks })
}

fn judged<T>(name: &'static str, result: Result<T>, good: impl FnOnce(T) -> String) -> Check {
    match result {
        Ok(value) => Check::good(name, good(value)),
        Err(error) => Check::bad(name, &error),
    }
}

fn state(connection: &Connection, standing: &Standing) -> Check {
    match connection.intent {
        Intent::Pause => Check { verdict: Verdict::Warning, ..Check::good("status", "paused: runs leave it alone") },
        Intent::Deauthorize => Check::bad(
            "status",
            &Error::new(
                Code::ConnectionDeauthorized,
                format!("the connection `{}` is deauthorised: runs leave it alone", connection.name),
            ),
        ),
        Intent::Monitor => match &standing.finding {
            None => Check::good("status", standing.status.as_str()),
            Some(finding) => Check {
                name: "status",
                verdict: match standing.status {
                    crate::event::Status::Error => Verdict::Bad,
                    _ => Verdict::Warning,
                },
                finding: format!("{}: {}", standing.status.as_str(), finding.message),
                code: Some(finding.code),
                hint: finding.hint,
            },
        },
    }
}

fn schedule(connection: &Connection, standing: &Standing, clock: &Clock) -> Check {
    if connection.intent != Intent::Monitor {
        return Check::skipped("schedule", "runs leave it alone");
    }
    let now = clock.now();
    match standing.last_run {
        None if now - connection.created > RUN_OVERDUE => {
            Check::warning("schedule", Code::RunOverdue, "no run has ever finished; is one scheduled?")
        }
        None => Check::good("schedule", "no run has finished yet"),
        Some(last) if now - last > RUN_OVERDUE => {
            let hours = (now - last).num_hours();
            Check::warning("schedule", Code::RunOverdue, format!("the last run finished {hours} hours ago"))
        }
        Some(last) => {
            Check::good("schedule", format!("the last run finished {} minutes ago", (now - last).num_minutes()))
        }
    }
}

async fn tenant(
    lake: &Lake,
    connection: &Connection,
    standing: &Standing,
    source: &Microsoft365,
    clock: &Clock,
    checks: &mut Vec<Check>,
) -> Result<()> {
    if let Credential::Secret(place) | Credential::Certificate(place) = &connection.credential {
        checks.push(judged("credential", place.read(), |_| format!("there is something in {place}")));
    }
    let granted = source.permissions(&connection.scope).await;
    let Ok(granted) = granted.inspect_err(|error| checks.push(Check::bad("sign-in", error))) else {
        checks.push(Check::skipped("tenant", "nothing can be asked without signing in"));
        return Ok(());
    };
    checks.push(Check::good("sign-in", "tokens were issued for the audit feed and for Graph"));
    checks.push(match &granted.names {
        None => Check::good("permissions", "the tokens do not tell; the services do, below"),
        Some(_) if granted.is_bare() => {
            let error = Error::new(Code::ConsentMissing, "the tokens carry no permission");
            Check::bad("permissions", &crate::run::pending(error, connection.authorized_at(), clock.now()))
        }
        Some(_) if !granted.missing.is_empty() => {
            let missing = granted.missing.join("`, `");
            let error = Error::new(Code::PermissionMissing, format!("the tokens do not carry `{missing}`"));
            let error = crate::run::pending(error, connection.authorized_at(), clock.now());
            if granted.missing == ["Mail.Read"] {
                // Granted in Exchange, perhaps; the mailboxes tell.
                Check::warning("permissions", error.code(), format!("{error}; unless it is granted in Exchange"))
            } else {
                Check::bad("permissions", &error)
            }
        }
        Some(names) if !granted.surplus.is_empty() => Check::good(
            "permissions",
            format!("{}; not needed for this scope: {}", names.join(", "), granted.surplus.join(", ")),
        ),
        Some(names) => Check::good("permissions", names.join(", ")),
    });
    let feed = source.check_feed().await;
    let is_on = matches!(feed, Ok(true));
    checks.push(judged("audit feed", feed, |is_on| {
        if is_on { "the subscription is on".to_owned() } else { "off; the next run starts it".to_owned() }
    }));
    if is_on {
        checks.push(match source.newest_content().await {
            Err(error) => Check::bad("audit content", &error),
            Ok(Some(newest)) => {
                let age = (clock.now() - newest).num_minutes();
                Check::good("audit content", format!("the newest became available {age} minutes ago"))
            }
            Ok(None) if clock.now() - connection.created < limits::CONTENT_AWAITED => {
                Check::warning("audit content", Code::ContentAwaited, "none in the last 24 hours")
            }
            Ok(None) => Check::warning("audit content", Code::ContentSilent, "none in the last 24 hours"),
        });
    }
    match source.resolve_scope(&connection.scope).await {
        Err(error) => checks.push(Check::bad("scope", &error)),
        Ok(scope) => {
            let people = scope.people().map_or_else(|| "everybody".to_owned(), |people| format!("{people} people"));
            checks.push(if scope.findings.is_empty() {
                Check::good("scope", people)
            } else {
                let shown: Vec<String> = scope.findings.iter().take(10).map(ToString::to_string).collect();
                Check::warning("scope", Code::MailboxMissing, format!("{people}; {}", shown.join("; ")))
            });
            mailboxes(lake, connection, standing, source, &scope, clock, checks).await?;
        }
    }
    Ok(())
}

/// Looks into some mailboxes: whether they may be read, and whether the log reports what they sent.
async fn mailboxes(
    lake: &Lake,
    connection: &Connection,
    standing: &Standing,
    source: &Microsoft365,
    scope: &ResolvedScope,
    clock: &Clock,
    checks: &mut Vec<Check>,
) -> Result<()> {
    let search = Search::open(lake).await?;
    let mut probed: BTreeSet<String> = BTreeSet::new();
    let id = connection.id.to_string();
    // Those that sent last, since they are the ones that matter; then any other monitored ones.
    for row in search.rows(TableName::FileEvents, &[("connection_id", &id)], "observed_at", 200).await? {
        probed.extend(row.get("mailbox").and_then(|mailbox| mailbox.as_str()).map(str::to_owned));
    }
    let members = scope.members().unwrap_or_default().iter().map(|member| member.address.clone());
    let others: Vec<String> = members.filter(|member| !probed.contains(member)).take(MAILBOXES_PROBED).collect();
    let mailboxes: Vec<String> = probed.into_iter().chain(others).take(MAILBOXES_PROBED).collect();
    if mailboxes.is_empty() {
        checks.push(Check::skipped("mailboxes", "no monitored mailbox is known yet"));
        return Ok(());
    }
    let mut refused = Vec::new();
    let mut open = Vec::new();
    for mailbox in &mailboxes {
        match source.check_mailbox(mailbox).await {
            Ok(()) => open.push(mailbox.as_str()),
            Err(error) => refused.push(error),
        }
    }
    let count = mailboxes.len();
    checks.push(match (refused.first(), refused.len()) {
        (None, _) => Check::good("mailboxes", format!("{count} were tried, and all can be read")),
        (Some(error), all) if all == count && count > 1 && error.code() == Code::MailboxDenied => Check::bad(
            "mailboxes",
            &Error::new(
                Code::MailboxesDenied,
                format!("each of the {count} mailboxes that were tried refused: {error}"),
            ),
        ),
        (Some(error), some) => Check::warning(
            "mailboxes",
            error.code(),
            format!("{some} of {count} that were tried cannot be read: {error}"),
        ),
    });
    checks.push(audited(&search, connection, standing, source, &open, clock).await?);
    Ok(())
}

/// Compares Sent Items with the lake, for a time that every run has behind it.
async fn audited(
    search: &Search,
    connection: &Connection,
    standing: &Standing,
    source: &Microsoft365,
    mailboxes: &[&str],
    clock: &Clock,
) -> Result<Check> {
    const NAME: &str = "sends are audited";
    let to = standing.read_up_to.unwrap_or(connection.since).min(clock.now()) - limits::WINDOW_SETTLES;
    let from = connection.since.max(to - chrono::Duration::days(7));
    if from >= to {
        return Ok(Check::skipped(NAME, "the connection has not been read for half a day yet"));
    }
    let mut silent = Vec::new();
    for mailbox in mailboxes {
        let Ok(sent) = source.sent_messages(mailbox, from, to).await else { continue };
        let ids = sent.into_iter().filter_map(|message| message.internet_message_id);
        let ids: Vec<String> = ids.filter(|id| !id.trim().is_empty()).collect();
        if ids.is_empty() {
            continue;
        }
        let query = Criteria { message_id: ids.clone(), ..Criteria::default() }.query()?;
        let selection = Selection::new(&["event_id".to_owned()], &[])?.part(0, Some(1));
        let known = search.file_events(&query, &selection, clock.now()).await?.collect().await?;
        if known.iter().all(|batch| batch.num_rows() == 0) {
            silent.push(format!("`{mailbox}` ({} messages with attachments)", ids.len()));
        }
    }
    Ok(if silent.is_empty() {
        Check::good(NAME, "what the mailboxes sent is in the lake")
    } else {
        let error = Error::new(
            Code::SendNotAudited,
            format!("the audit log reported nothing of what was sent by {}", silent.join(", ")),
        );
        Check::bad(NAME, &error)
    })
}

/// What is owed and what is lost.
async fn remains(lake: &Lake, connection: &Connection, standing: &Standing) -> Result<Vec<Check>> {
    let super::Owed { blobs, messages, hashes } = standing.owed;
    let owed = format!("{blobs} blobs, {messages} messages, {hashes} hashes");
    let mut checks = vec![if blobs + messages + hashes == 0 {
        Check::good("owed work", "nothing")
    } else {
        Check { verdict: Verdict::Warning, ..Check::good("owed work", format!("{owed}; later runs try again")) }
    }];
    let search = Search::open(lake).await?;
    let id = connection.id.to_string();
    let gaps = search.rows(TableName::Gaps, &[("connection_id", &id)], "found_at", 100).await?;
    checks.push(match gaps.first() {
        None => Check::good("gaps", "none"),
        Some(newest) => {
            let text = |name: &str| newest.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
            Check::warning(
                "gaps",
                Code::GapTooOld,
                format!("{} rows in `gaps`; the newest: {} {}", gaps.len(), text("reason"), text("remedy"))
                    .trim()
                    .to_owned(),
            )
        }
    });
    let quarantined = search.rows(TableName::Quarantine, &[("connection_id", &id)], "found_at", 100).await?;
    checks.push(match quarantined.len() {
        0 => Check::good("quarantine", "empty"),
        count => {
            Check::warning("quarantine", Code::RecordUnreadable, format!("{count} records could not be understood"))
        }
    });
    Ok(checks)
}
