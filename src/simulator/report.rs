//! What the simulator was asked: counted, so that a test can assert what a client cost and what it never did.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// An access token.
    Token,
    /// OpenID configuration, keys, instance discovery.
    Discovery,
    /// Admin consent pages.
    Consent,
    /// Sign-in pages.
    SignIn,
    /// Start of a subscription.
    Start,
    Stop,
    /// Which subscriptions there are.
    Subscriptions,
    /// Listing of content, and its further pages.
    List,
    Blob,
    Notifications,
    /// Messages by a filter.
    Find,
    /// Messages without a filter.
    Messages,
    /// One message.
    Message,
    /// One message as MIME.
    MessageMime,
    /// Attachments of a message.
    Attachments,
    /// One attachment's properties.
    Attachment,
    /// One attachment's bytes.
    AttachmentValue,
    Folder,
    Translate,
    Users,
    User,
    Groups,
    Group,
    Members,
    Batch,
    /// The simulator's own control requests.
    Control,
    Unknown,
}

impl Kind {
    const COUNT: usize = Self::Unknown as usize + 1;

    /// The name in reports and in fault files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Discovery => "discovery",
            Self::Consent => "consent",
            Self::SignIn => "sign_in",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Subscriptions => "subscriptions",
            Self::List => "list",
            Self::Blob => "blob",
            Self::Notifications => "notifications",
            Self::Find => "find",
            Self::Messages => "messages",
            Self::Message => "message",
            Self::MessageMime => "message_mime",
            Self::Attachments => "attachments",
            Self::Attachment => "attachment",
            Self::AttachmentValue => "attachment_value",
            Self::Folder => "folder",
            Self::Translate => "translate",
            Self::Users => "users",
            Self::User => "user",
            Self::Groups => "groups",
            Self::Group => "group",
            Self::Members => "members",
            Self::Batch => "batch",
            Self::Control => "control",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the request reads a mailbox, and so counts for its concurrency.
    pub(crate) fn is_mail(self) -> bool {
        matches!(
            self,
            Self::Find
                | Self::Messages
                | Self::Message
                | Self::MessageMime
                | Self::Attachments
                | Self::Attachment
                | Self::AttachmentValue
                | Self::Folder
        )
    }

    pub(crate) fn is_directory(self) -> bool {
        matches!(self, Self::Users | Self::User | Self::Groups | Self::Group | Self::Members | Self::Translate)
    }

    pub(crate) fn is_feed(self) -> bool {
        matches!(self, Self::Start | Self::Stop | Self::Subscriptions | Self::List | Self::Blob | Self::Notifications)
    }
}

/// The counters of a running simulator.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    state: Mutex<State>,
    /// Bytes of bodies sent, by kind.
    bytes: [AtomicU64; Kind::COUNT],
    body_requests: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    requests: BTreeMap<&'static str, BTreeMap<u16, u64>>,
    in_mailboxes: HashMap<usize, (u32, u32)>,
    in_all_mailboxes: (u32, u32),
    user_agents: BTreeSet<String>,
    publisher_identifiers: BTreeSet<String>,
    feed_without_publisher: u64,
    feed_minutes: BTreeMap<i64, u64>,
    faults: BTreeMap<String, u64>,
    throttled: u64,
}

/// What was asked of the simulator so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// Requests by kind and by the status of their answer.
    pub requests: BTreeMap<String, BTreeMap<u16, u64>>,
    /// Sum of all requests but those of the control interface.
    pub requests_total: u64,
    /// Bytes of answers' bodies by kind.
    pub bytes: BTreeMap<String, u64>,
    /// Requests that asked for the body of a message, or for all its properties, which include it.
    pub body_requests: u64,
    /// Most requests at once on each mailbox, by user principal name.
    pub mailbox_concurrency: BTreeMap<String, u32>,
    /// The largest of them.
    pub mailbox_concurrency_max: u32,
    /// Most requests at once on all mailboxes together.
    pub mail_concurrency_max: u32,
    /// Answers that asked to slow down: 429, and 403 with the code `AF429`.
    pub throttled: u64,
    /// How often each fault was used.
    pub faults: BTreeMap<String, u64>,
    /// Distinct `User-Agent` headers; an empty one when a request came without.
    pub user_agents: BTreeSet<String>,
    /// Distinct `PublisherIdentifier` parameters.
    pub publisher_identifiers: BTreeSet<String>,
    /// Requests to the activity feed without `PublisherIdentifier`.
    pub feed_without_publisher: u64,
    /// Most requests to the activity feed in one clock minute; the documented quota is 2,000.
    pub feed_requests_per_minute_max: u64,
}

impl Report {
    /// Requests of a kind, whatever the answer.
    pub fn count(&self, kind: &str) -> u64 {
        self.requests.get(kind).map_or(0, |statuses| statuses.values().sum())
    }
}

/// A request in progress on a mailbox; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct MailboxSlot {
    counters: Arc<Counters>,
    mailbox: usize,
}

impl Drop for MailboxSlot {
    fn drop(&mut self) {
        let mut state = self.counters.state();
        if let Some((now, _)) = state.in_mailboxes.get_mut(&self.mailbox) {
            *now = now.saturating_sub(1);
        }
        state.in_all_mailboxes.0 = state.in_all_mailboxes.0.saturating_sub(1);
    }
}

impl Counters {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn user_agent(&self, user_agent: &str) {
        let mut state = self.state();
        if !state.user_agents.contains(user_agent) {
            state.user_agents.insert(user_agent.to_owned());
        }
    }

    pub(crate) fn feed_request(&self, publisher: Option<&str>, minute: i64) {
        /// Old minutes cannot become the busiest one any more, but the report must not grow for ever.
        const MINUTES_MAX: usize = 10_000;
        let mut state = self.state();
        match publisher {
            None => state.feed_without_publisher += 1,
            Some(publisher) => {
                state.publisher_identifiers.insert(publisher.to_owned());
            }
        }
        *state.feed_minutes.entry(minute).or_default() += 1;
        if state.feed_minutes.len() > MINUTES_MAX {
            state.feed_minutes.pop_first();
        }
    }

    pub(crate) fn body_request(&self) {
        self.body_requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fault(&self, name: &str) {
        *self.state().faults.entry(name.to_owned()).or_default() += 1;
    }

    pub(crate) fn answered(&self, kind: Kind, status: u16, is_throttled: bool) {
        let mut state = self.state();
        *state.requests.entry(kind.name()).or_default().entry(status).or_default() += 1;
        state.throttled += u64::from(is_throttled);
    }

    pub(crate) fn sent(&self, kind: Kind, bytes: usize) {
        self.bytes[kind as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Takes a place on a mailbox, and tells how many requests are now in progress on it and on all of them.
    pub(crate) fn enter(self: &Arc<Self>, mailbox: usize) -> (MailboxSlot, u32, u32) {
        let mut state = self.state();
        let (now, max) = state.in_mailboxes.entry(mailbox).or_default();
        *now += 1;
        *max = (*max).max(*now);
        let on_mailbox = *now;
        let (all, all_max) = &mut state.in_all_mailboxes;
        *all += 1;
        *all_max = (*all_max).max(*all);
        let on_all = *all;
        (MailboxSlot { counters: Arc::clone(self), mailbox }, on_mailbox, on_all)
    }

    /// A picture of the counters; `name` gives a mailbox its name.
    pub(crate) fn report(&self, name: impl Fn(usize) -> String) -> Report {
        let kinds: BTreeMap<usize, &'static str> = KINDS.iter().map(|kind| (*kind as usize, kind.name())).collect();
        let bytes = self.bytes.iter().enumerate().filter_map(|(index, bytes)| {
            let bytes = bytes.load(Ordering::Relaxed);
            (bytes > 0).then(|| (kinds.get(&index).copied().unwrap_or_default().to_owned(), bytes))
        });
        let state = self.state();
        let requests: BTreeMap<_, _> =
            state.requests.iter().map(|(kind, statuses)| ((*kind).to_owned(), statuses.clone())).collect();
        Report {
            requests_total: requests
                .iter()
                .filter(|(kind, _)| *kind != "control")
                .flat_map(|(_, statuses)| statuses.values())
                .sum(),
            requests,
            bytes: bytes.collect(),
            body_requests: self.body_requests.load(Ordering::Relaxed),
            mailbox_concurrency: state.in_mailboxes.iter().map(|(mailbox, (_, max))| (name(*mailbox), *max)).collect(),
            mailbox_concurrency_max: state.in_mailboxes.values().map(|(_, max)| *max).max().unwrap_or_default(),
            mail_concurrency_max: state.in_all_mailboxes.1,
            throttled: state.throttled,
            faults: state.faults.clone(),
            user_agents: state.user_agents.clone(),
            publisher_identifiers: state.publisher_identifiers.clone(),
            feed_without_publisher: state.feed_without_publisher,
            feed_requests_per_minute_max: state.feed_minutes.values().copied().max().unwrap_or_default(),
        }
    }

    /// Starts counting anew; requests in progress stay in progress.
    pub(crate) fn reset(&self) {
        let mut state = self.state();
        let in_mailboxes = state
            .in_mailboxes
            .iter()
            .filter(|(_, (now, _))| *now > 0)
            .map(|(mailbox, (now, _))| (*mailbox, (*now, *now)));
        let in_mailboxes = in_mailboxes.collect();
        let all = state.in_all_mailboxes.0;
        *state = State { in_mailboxes, in_all_mailboxes: (all, all), ..State::default() };
        self.bytes.iter().for_each(|bytes| bytes.store(0, Ordering::Relaxed));
        self.body_requests.store(0, Ordering::Relaxed);
    }
}

const KINDS: [Kind; Kind::COUNT] = [
    Kind::Token,
    Kind::Discovery,
    Kind::Consent,
    Kind::SignIn,
    Kind::Start,
    Kind::Stop,
    Kind::Subscriptions,
    Kind::List,
    Kind::Blob,
    Kind::Notifications,
    Kind::Find,
    Kind::Messages,
    Kind::Message,
    Kind::MessageMime,
    Kind::Attachments,
    Kind::Attachment,
    Kind::AttachmentValue,
    Kind::Folder,
    Kind::Translate,
    Kind::Users,
    Kind::User,
    Kind::Groups,
    Kind::Group,
    Kind::Members,
    Kind::Batch,
    Kind::Control,
    Kind::Unknown,
];
