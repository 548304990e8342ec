//! Where sent mail comes from: the audit feed that says that something was sent, and the mailboxes that hold it.
//!
//! [`Source`] is what a run needs of a mail service, in words that fit any of them; [`microsoft365`] is the first
//! service, [`memory`] the second implementation, for tests of everything behind it. A source keeps its service's
//! limits by itself (requests at once, tokens, throttling), and retries what a retry can heal; what it returns as an
//! error is final for this run.
//!
//! May use: `clock`, `error`, `http`, `id`, `limits`, `secret`. Knows nothing of Arrow, Delta, SQL or of a connection's registry.

pub mod memory;
pub mod microsoft365;

use std::borrow::Cow;
use std::collections::HashSet;
use std::future::Future;

use bytes::Bytes;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Time;
use crate::error::{Code, Error, Result};
pub use crate::http::Usage;
use crate::limits;

/// A mail service with an audit feed. All methods may be called at once from many tasks.
pub trait Source: Send + Sync + 'static {
    /// Makes sure that the feed is switched on; asked once per run, before anything is listed.
    ///
    /// # Errors
    /// Whatever keeps the whole run from reading: authorisation, auditing disabled, service down for long.
    fn prepare(&self) -> impl Future<Output = Result<Feed>> + Send;

    /// Lists what became available in a window, all pages, in the feed's order. At most 24 hours at a time.
    ///
    /// # Errors
    /// `gap-too-old` when the window starts before the feed's memory; otherwise the service's failure.
    fn list(&self, window: Window) -> impl Future<Output = Result<Vec<ContentBlob>>> + Send;

    /// Reads one blob as it arrives. Ends with an error when the blob was not read whole; chunks before the error are
    /// good. A second read may repeat records, and may come in another order.
    fn read(&self, blob: &ContentBlob) -> BoxStream<'static, Result<RecordChunk>>;

    /// Finds the sent message of a send with its attachments' metadata, never its body. Several messages when the
    /// mailbox holds several of one internet message id that were sent at the time of this send; none when it holds none.
    ///
    /// # Errors
    /// `mailbox-denied`, `mailbox-missing`, or the service's failure.
    fn find(&self, send: &SendRecord) -> impl Future<Output = Result<Vec<Message>>> + Send;

    /// Opens an attachment's bytes. The stream ends with an error when it was cut short.
    ///
    /// # Errors
    /// `attachment-has-no-bytes`, `attachment-unreadable`, `message-missing`, or the service's failure.
    fn open(&self, attachment: &AttachmentRef) -> impl Future<Output = Result<AttachmentBody>> + Send;

    /// Resolves whom to monitor against the directory, now.
    ///
    /// # Errors
    /// The service's failure; an entry that does not exist is a finding and not an error.
    fn resolve_scope(&self, scope: &Scope) -> impl Future<Output = Result<ResolvedScope>> + Send;

    /// Whether the feed was found off after `prepare` had found it on, and was started again: what became available
    /// while it was off is lost.
    fn was_restarted(&self) -> bool {
        false
    }

    /// What was asked of the service so far.
    fn usage(&self) -> Usage;
}

/// A half-open interval `[start, end)` of the time at which audit content became available; never empty or backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(Time, Time)", into = "(Time, Time)")]
pub struct Window {
    start: Time,
    end: Time,
}

impl Window {
    /// A window, or nothing when `start` is not before `end`.
    pub fn new(start: Time, end: Time) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// The first instant inside.
    pub fn start(&self) -> Time {
        self.start
    }

    /// The first instant after.
    pub fn end(&self) -> Time {
        self.end
    }
}

impl TryFrom<(Time, Time)> for Window {
    type Error = String;

    fn try_from((start, end): (Time, Time)) -> std::result::Result<Self, String> {
        Self::new(start, end).ok_or_else(|| format!("a window must start before it ends: {start} is not before {end}"))
    }
}

impl From<Window> for (Time, Time) {
    fn from(window: Window) -> Self {
        (window.start, window.end)
    }
}

impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = chrono::SecondsFormat::AutoSi;
        write!(f, "{}..{}", self.start.to_rfc3339_opts(seconds, true), self.end.to_rfc3339_opts(seconds, true))
    }
}

/// The state in which `prepare` found or left the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// It was on.
    On,
    /// It was off and is on now: what became available while it was off is lost, and the first content may take 12 hours.
    Started,
}

/// The unit in which the feed hands out audit records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentBlob {
    /// Names a range of the feed, cut by the window that was asked for: equal ids mean equal content only within one window.
    pub id: String,
    /// Where its content is read.
    pub uri: String,
    /// When it became available.
    pub created: Time,
    /// When it will no longer be readable.
    pub expires: Time,
}

/// A piece of a blob, as it came over the network.
#[derive(Debug, Default)]
pub struct RecordChunk {
    /// All records in this piece, whatever they report.
    pub records: u64,
    /// Bytes of the piece, decoded.
    pub bytes: u64,
    /// The records that report a send.
    pub sends: Vec<SendRecord>,
    /// The records that cannot be understood.
    pub unreadable: Vec<UnreadableRecord>,
}

/// A record that cannot be understood, raw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadableRecord {
    /// The text as it came, cut at a limit; bytes that are not UTF-8 are replaced.
    pub raw: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Which audit operation reported a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operation {
    /// The owner, or an application as the owner, sent.
    Send,
    /// Somebody with the right to sent as the owner.
    SendAs,
    /// Somebody sent on behalf of the owner.
    SendOnBehalf,
}

impl Operation {
    /// The feed's own word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Send => "Send",
            Self::SendAs => "SendAs",
            Self::SendOnBehalf => "SendOnBehalf",
        }
    }
}

/// What an audit record says about a send. Everything that later steps need when the message itself cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendRecord {
    /// The record's identity: equal ids are one record, however often the feed repeats it.
    pub id: String,
    /// Which operation it reports.
    pub operation: Operation,
    /// When the send happened, whole seconds.
    pub created: Time,
    /// Who acted (UPN; an SID for the system).
    pub actor: String,
    /// The mailbox from which it was sent (UPN of its owner); the actor's where the record names none.
    pub mailbox: String,
    /// Exchange's id of that mailbox.
    pub mailbox_guid: Option<String>,
    /// The tenant, as the record names it.
    pub tenant_id: Option<String>,
    /// The message's `Message-ID` with its angle brackets.
    pub internet_message_id: Option<String>,
    /// The subject.
    pub subject: Option<String>,
    /// The attachments that the record names, in its order.
    pub attachments: Vec<NamedAttachment>,
    /// The record's own list of recipients, where the service fills it.
    pub recipients: Vec<String>,
    /// The address that was impersonated, or on whose behalf it was sent.
    pub sent_as: Option<String>,
    /// From where the actor was connected.
    pub client_ip: Option<String>,
    /// With which program, in the service's words.
    pub client_info: Option<String>,
    /// The application's id.
    pub app_id: Option<String>,
    /// Whether the sender let the service keep a copy; `None` when the record does not say.
    pub saved_to_sent_items: Option<bool>,
}

/// An attachment as an audit record names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedAttachment {
    /// Its display name, which need not be a file name and need not be unique.
    pub name: String,
    /// Bytes that it takes in the store; more than the file has.
    pub store_size_bytes: Option<u64>,
}

/// An address with the name that stands beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    /// The address as the service gives it.
    pub address: String,
    /// The display name.
    pub name: Option<String>,
}

/// A sent message without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The mailbox in which it was found, as it must be asked for.
    pub mailbox: String,
    /// The service's immutable id.
    pub id: String,
    /// The `Message-ID` with its angle brackets.
    pub internet_message_id: String,
    /// The subject.
    pub subject: Option<String>,
    /// The account that really sent.
    pub sender: Option<Mailbox>,
    /// The address that the message shows as its author.
    pub from: Option<Mailbox>,
    /// Recipients; groups are not expanded.
    pub to: Vec<Mailbox>,
    /// Recipients of copies.
    pub cc: Vec<Mailbox>,
    /// Recipients that the others do not see.
    pub bcc: Vec<Mailbox>,
    /// When it was sent.
    pub sent: Time,
    /// Its attachments, inline ones included, in the service's order.
    pub attachments: Vec<Attachment>,
}

/// What kind of thing is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachmentKind {
    /// A file with bytes of its own.
    File,
    /// A message, event or contact; its bytes are made when it is read, and may differ between two reads.
    Item,
    /// A link to a file in a cloud store; it has no bytes of its own.
    Reference,
}

impl AttachmentKind {
    /// The word in the lake.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Item => "item",
            Self::Reference => "reference",
        }
    }
}

/// An attachment's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The service's immutable id.
    pub id: String,
    /// The display name; hostile input.
    pub name: String,
    /// What kind of thing it is.
    pub kind: AttachmentKind,
    /// The content type that the sender's program gave.
    pub content_type: Option<String>,
    /// Bytes that it takes in the store; more than the file has.
    pub store_size_bytes: Option<u64>,
    /// Shown inside the body rather than beside it.
    pub is_inline: bool,
    /// For a reference: where the file is.
    pub source_url: Option<String>,
}

/// All that is needed to read an attachment again later.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AttachmentRef {
    /// The mailbox in which its message lies.
    pub mailbox: String,
    /// The message's id.
    pub message_id: String,
    /// The attachment's id.
    pub attachment_id: String,
    /// What kind of thing it is.
    pub kind: AttachmentKind,
}

/// An attachment's bytes on their way.
pub struct AttachmentBody {
    /// The length that the service announced, where it did; the source has checked it when the stream ends without error.
    pub announced_bytes: Option<u64>,
    /// The bytes. Whatever the service's limits need held while they flow is held by the stream.
    pub bytes: BoxStream<'static, Result<Bytes>>,
}

/// Whose mailboxes are monitored, as the administrator said it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "entries")]
pub enum Scope {
    /// Every mailbox of the tenant.
    All,
    /// These users, by address, user principal name or object id.
    Users(Vec<String>),
    /// The members of these groups, nested ones included; groups by address or object id.
    Groups(Vec<String>),
}

impl Scope {
    /// How many entries the list has; nothing when everybody is monitored.
    #[expect(clippy::len_without_is_empty, reason = "an empty list is refused before it becomes a scope")]
    pub fn len(&self) -> Option<usize> {
        match self {
            Self::All => None,
            Self::Users(entries) | Self::Groups(entries) => Some(entries.len()),
        }
    }

    /// The word in commands and in the lake.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Users(_) => "users",
            Self::Groups(_) => "groups",
        }
    }
}

/// A scope as the directory understands it at one moment. 100,000 people with three more addresses each take 75 MB.
#[derive(Clone, Debug, Default)]
pub struct ResolvedScope {
    /// The monitored people, each once, by object id. `None`: everybody.
    members: Option<Vec<Member>>,
    /// All names by which a record may mean one of them, lower case: principal name, mail, every proxy address, object id.
    names: HashSet<Box<str>>,
    /// What is odd about the entries, in their order; the first of them in full when there are very many.
    pub findings: Vec<ScopeFinding>,
}

/// A monitored person.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Member {
    /// The directory's id.
    pub object_id: String,
    /// The user principal name, lower case; the object id where the directory gives none.
    pub address: String,
    /// The primary address, lower case.
    pub mail: Option<String>,
    /// The display name.
    pub name: Option<String>,
}

/// Something odd about an entry of a scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScopeFinding {
    /// The entry, as it was given; empty when it is about many.
    pub entry: String,
    /// What is odd, one sentence that names the entry.
    pub what: String,
}

impl std::fmt::Display for ScopeFinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl ResolvedScope {
    /// Everybody.
    pub fn all() -> Self {
        Self::default()
    }

    /// Only these people, each with further names by which a record may mean them, in any case; a person may come twice.
    pub fn only(people: impl IntoIterator<Item = (Member, Vec<String>)>, mut findings: Vec<ScopeFinding>) -> Self {
        let mut members = Vec::new();
        let mut names = HashSet::new();
        for (member, further) in people {
            let own = [Some(&member.object_id), Some(&member.address), member.mail.as_ref()];
            for name in own.into_iter().flatten().chain(&further) {
                let name = lower(name);
                if !names.contains(&*name) {
                    names.insert(Box::from(name));
                }
            }
            members.push(member);
        }
        members.sort_unstable();
        members.dedup_by(|second: &mut Member, first| second.object_id == first.object_id);
        members.shrink_to_fit();
        let more = findings.len().saturating_sub(limits::SCOPE_FINDINGS);
        if more > 0 {
            findings.truncate(limits::SCOPE_FINDINGS);
            let what = format!("{more} more entries name nobody, or nobody with a mailbox");
            findings.push(ScopeFinding { entry: String::new(), what });
        }
        Self { members: Some(members), names, findings }
    }

    /// Whether a send belongs here: its mailbox or its actor is monitored.
    pub fn contains(&self, send: &SendRecord) -> bool {
        let has = |name: &str| self.names.contains(&*lower(name));
        self.members.is_none() || has(&send.mailbox) || has(&send.actor)
    }

    /// How many people are monitored; `None` for everybody.
    pub fn people(&self) -> Option<usize> {
        self.members.as_ref().map(Vec::len)
    }

    /// The monitored people, by object id; `None` for everybody.
    pub fn members(&self) -> Option<&[Member]> {
        self.members.as_deref()
    }
}

/// Lower case, without a copy when it is already: names are written so, mostly.
fn lower(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(name.to_lowercase())
    }
}

/// An application's identity in a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// The tenant's id.
    pub tenant_id: Uuid,
    /// The application's (client) id.
    pub client_id: Uuid,
}

impl Error {
    /// Whether the failure is about one message or mailbox only, so that the run goes on with the others.
    pub fn is_about_one_item(&self) -> bool {
        matches!(
            self.code(),
            Code::MailboxDenied
                | Code::MailboxMissing
                | Code::MessageMissing
                | Code::AttachmentUnreadable
                | Code::AttachmentHasNoBytes
                | Code::ContentUnreadable
                | Code::ContentExpired
                | Code::Throttled
                | Code::ServiceUnavailable
                | Code::ServiceProtocol
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(object_id: &str, address: &str) -> Member {
        Member { object_id: object_id.to_owned(), address: address.to_owned(), mail: None, name: None }
    }

    fn send(mailbox: &str, actor: &str) -> SendRecord {
        SendRecord {
            id: String::new(),
            operation: Operation::Send,
            created: Time::UNIX_EPOCH,
            actor: actor.to_owned(),
            mailbox: mailbox.to_owned(),
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

    #[test]
    fn a_person_is_known_by_every_name_in_any_case_and_counted_once() {
        let scope = ResolvedScope::only(
            [
                (member("2", "b@x.com"), vec!["J\u{dc}RGEN@x.com".to_owned()]),
                (member("1", "a@x.com"), vec!["Old@x.com".to_owned(), "a@x.com".to_owned()]),
                (member("2", "b@x.com"), vec!["other@x.com".to_owned()]),
            ],
            Vec::new(),
        );
        assert_eq!(scope.members().unwrap(), [member("1", "a@x.com"), member("2", "b@x.com")]);
        for name in ["A@X.com", "old@x.com", "j\u{fc}rgen@X.com", "other@x.com", "1"] {
            assert!(scope.contains(&send(name, "nobody")) && scope.contains(&send("nobody", name)), "{name}");
        }
        assert!(!scope.contains(&send("c@x.com", "")));
        assert!(ResolvedScope::all().contains(&send("c@x.com", "")));
    }

    #[test]
    fn very_many_findings_are_counted_instead_of_kept() {
        let finding = |n: usize| ScopeFinding { entry: n.to_string(), what: format!("nobody is `{n}`") };
        let scope = ResolvedScope::only([], (0..limits::SCOPE_FINDINGS + 7).map(finding).collect());
        assert_eq!(scope.findings.len(), limits::SCOPE_FINDINGS + 1);
        assert_eq!(scope.findings[0].to_string(), "nobody is `0`");
        let last = scope.findings.last().unwrap();
        assert_eq!(
            (last.entry.as_str(), last.what.as_str()),
            ("", "7 more entries name nobody, or nobody with a mailbox")
        );
    }
}
