//! A mail service in memory, for tests of everything behind a source.
//!
//! Records are published at a time and cut into blobs when they are listed: a blob is a stretch of time, clipped by
//! the window that is asked for, as the real feed's ids suggest. So the same records come in other blobs with other
//! ids when windows differ. Records may be published twice, may be listed later than they became available, and come
//! in the other order when a blob is read again. Any call can be made to fail. Everything is deterministic; time is
//! the [`Clock`]'s.
//!
//! May use: `clock`, `error` and the trait's own types.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, Duration, SecondsFormat};
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use crate::clock::{Clock, Time};
use crate::error::{Code, Error, Result};
use crate::source::{
    AttachmentBody, AttachmentRef, ContentBlob, Feed, Member, Message, RecordChunk, ResolvedScope, Scope, ScopeFinding,
    SendRecord, Source, UnreadableRecord, Usage, Window,
};

/// How long a record can be read after it became available.
const KEPT: Duration = Duration::days(7);

/// Records per chunk of a blob, so that every blob of some size comes in several.
const CHUNK_RECORDS: usize = 3;

/// A call that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// [`Source::prepare`].
    Prepare,
    /// [`Source::list`].
    List,
    /// [`Source::read`], before anything came.
    Read,
    /// [`Source::read`], after half of the records.
    ReadHalf,
    /// [`Source::find`].
    Find,
    /// [`Source::open`].
    Open,
    /// The bytes of [`Source::open`], after half of them.
    OpenHalf,
    /// [`Source::resolve_scope`].
    ResolveScope,
}

impl Call {
    /// The word under which it is counted.
    fn kind(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::List => "list",
            Self::Read | Self::ReadHalf => "blob",
            Self::Find => "find",
            Self::Open | Self::OpenHalf => "attachment",
            Self::ResolveScope => "directory",
        }
    }
}

/// What a record in the feed says.
#[derive(Clone, Debug)]
pub enum Record {
    /// A send.
    Send(Box<SendRecord>),
    /// Something else, which is only counted.
    Other,
    /// Something that cannot be understood.
    Unreadable(UnreadableRecord),
}

impl From<SendRecord> for Record {
    fn from(send: SendRecord) -> Self {
        Self::Send(Box::new(send))
    }
}

/// The service; clones share it.
#[derive(Clone)]
pub struct Memory {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

struct State {
    feed: Feed,
    cut: Duration,
    published: Vec<Published>,
    messages: Vec<(Time, Message)>,
    bytes: HashMap<String, Bytes>,
    chunk_bytes: usize,
    people: Vec<(String, Vec<String>)>,
    groups: HashMap<String, Vec<String>>,
    closed_mailboxes: HashMap<String, Code>,
    faults: BTreeMap<(Call, u64), Code>,
    broken: BTreeMap<Call, Code>,
    calls: BTreeMap<Call, u64>,
    reads: HashMap<String, u64>,
    usage: Usage,
}

struct Published {
    available: Time,
    listed: Time,
    record: Record,
}

impl Memory {
    /// A service without any record, whose blobs are cut at full minutes.
    pub fn new(clock: Clock) -> Self {
        let state = State {
            feed: Feed::On,
            cut: Duration::minutes(1),
            published: Vec::new(),
            messages: Vec::new(),
            bytes: HashMap::new(),
            chunk_bytes: 64 * 1024,
            people: Vec::new(),
            groups: HashMap::new(),
            closed_mailboxes: HashMap::new(),
            faults: BTreeMap::new(),
            broken: BTreeMap::new(),
            calls: BTreeMap::new(),
            reads: HashMap::new(),
            usage: Usage::default(),
        };
        Self { clock, state: Arc::new(Mutex::new(state)) }
    }

    /// Publishes a record; the same one may be published again.
    pub fn publish(&self, available: Time, record: impl Into<Record>) {
        self.publish_late(available, available, record);
    }

    /// Publishes a record that is listed only from a later time on, as one that was available before.
    pub fn publish_late(&self, available: Time, listed: Time, record: impl Into<Record>) {
        self.state().published.push(Published { available, listed, record: record.into() });
    }

    /// Cuts blobs after so much time; ids and boundaries change with it.
    pub fn cut_every(&self, cut: Duration) {
        self.state().cut = cut.max(Duration::seconds(1));
    }

    /// Puts a message into its mailbox, where it can be found from `visible` on.
    pub fn add_message(&self, visible: Time, message: Message) {
        self.state().messages.push((visible, message));
    }

    /// Takes a message out of its mailbox.
    pub fn remove_message(&self, id: &str) {
        self.state().messages.retain(|(_, message)| message.id != id);
    }

    /// Gives an attachment its bytes.
    pub fn set_bytes(&self, attachment_id: &str, bytes: impl Into<Bytes>) {
        self.state().bytes.insert(attachment_id.to_owned(), bytes.into());
    }

    /// Delivers attachments in pieces of this size.
    pub fn set_chunk_bytes(&self, bytes: usize) {
        self.state().chunk_bytes = bytes.max(1);
    }

    /// Adds a person with the names by which records may mean them.
    pub fn add_person(&self, object_id: &str, aliases: &[&str]) {
        self.state().people.push((object_id.to_owned(), aliases.iter().map(|alias| (*alias).to_owned()).collect()));
    }

    /// Adds a group of people, by object id.
    pub fn add_group(&self, name: &str, object_ids: &[&str]) {
        self.state().groups.insert(name.to_lowercase(), object_ids.iter().map(|id| (*id).to_owned()).collect());
    }

    /// Closes a mailbox with an error, or opens it again.
    pub fn close_mailbox(&self, mailbox: &str, code: Option<Code>) {
        let mut state = self.state();
        match code {
            Some(code) => state.closed_mailboxes.insert(mailbox.to_lowercase(), code),
            None => state.closed_mailboxes.remove(&mailbox.to_lowercase()),
        };
    }

    /// Makes `prepare` say that the feed was off.
    pub fn set_feed(&self, feed: Feed) {
        self.state().feed = feed;
    }

    /// Makes the nth call of a kind fail, counted from 1 and from the service's beginning.
    pub fn fail(&self, call: Call, nth: u64, code: Code) {
        self.state().faults.insert((call, nth), code);
    }

    /// Makes all further calls of a kind fail, or heals them.
    pub fn fail_always(&self, call: Call, code: Option<Code>) {
        let mut state = self.state();
        match code {
            Some(code) => state.broken.insert(call, code),
            None => state.broken.remove(&call),
        };
    }

    /// How often a call was made.
    pub fn calls(&self, call: Call) -> u64 {
        self.state().calls.get(&call).copied().unwrap_or(0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts a call, and fails it when it is meant to.
    fn enter(&mut self, call: Call) -> Result<()> {
        let nth = self.calls.entry(call).and_modify(|count| *count += 1).or_insert(1);
        if !matches!(call, Call::ReadHalf | Call::OpenHalf) {
            *self.usage.requests.entry(call.kind()).or_default() += 1;
        }
        match self.faults.get(&(call, *nth)).or_else(|| self.broken.get(&call)) {
            Some(code) => Err(Error::new(*code, format!("call {nth} of `{}` was made to fail", call.kind()))),
            None => Ok(()),
        }
    }

    fn blobs(&self, window: Window, now: Time) -> Vec<ContentBlob> {
        let cut = self.cut.num_seconds();
        // Late records are blobs of their own: what was listed once does not change.
        let mut cells: BTreeMap<(Time, Time, Time), Time> = BTreeMap::new();
        for published in &self.published {
            if published.available < window.start() || published.available >= window.end() || published.listed > now {
                continue;
            }
            let cell = published.available.timestamp().div_euclid(cut) * cut;
            let second = |seconds| DateTime::from_timestamp(seconds, 0).unwrap_or(published.available);
            let (start, end) = (second(cell).max(window.start()), second(cell + cut).min(window.end()));
            let late = if published.listed > published.available { published.listed } else { DateTime::UNIX_EPOCH };
            let created = cells.entry((late, start, end)).or_insert(published.available);
            *created = (*created).min(published.available);
        }
        let text = |time: &Time| time.to_rfc3339_opts(SecondsFormat::Micros, true);
        let blob = |((late, start, end), created): ((Time, Time, Time), Time)| {
            let id = format!("{}${}${}", text(&start), text(&end), text(&late));
            ContentBlob { uri: format!("memory:{id}"), id, created, expires: created + KEPT }
        };
        let mut blobs: Vec<ContentBlob> = cells.into_iter().map(blob).collect();
        blobs.sort_by(|one, other| (one.created, &one.id).cmp(&(other.created, &other.id)));
        blobs
    }

    fn records(&self, blob: &ContentBlob) -> Option<Vec<Record>> {
        let mut parts =
            blob.id.split('$').map(|part| DateTime::parse_from_rfc3339(part).ok().map(|time| time.to_utc()));
        let (start, end, late) = (parts.next()??, parts.next()??, parts.next()??);
        let is_in = |published: &&Published| {
            let own = if published.listed > published.available { published.listed } else { DateTime::UNIX_EPOCH };
            published.available >= start && published.available < end && own == late
        };
        Some(self.published.iter().filter(is_in).map(|published| published.record.clone()).collect())
    }

    fn read(&mut self, blob: &ContentBlob, now: Time) -> Vec<Result<RecordChunk>> {
        let begun = self.enter(Call::Read).and_then(|()| {
            if blob.expires <= now {
                return Err(Error::new(Code::ContentExpired, format!("the blob `{}` expired", blob.id)));
            }
            self.records(blob)
                .ok_or_else(|| Error::new(Code::ContentExpired, format!("there is no blob `{}`", blob.id)))
        });
        let mut records = match begun {
            Ok(records) => records,
            Err(error) => return vec![Err(error)],
        };
        let reads = self.reads.entry(blob.id.clone()).or_default();
        *reads += 1;
        if reads.is_multiple_of(2) {
            records.reverse();
        }
        let half = self.enter(Call::ReadHalf);
        if half.is_err() {
            records.truncate(records.len() / 2);
        }
        let chunk = |records: &[Record]| {
            let mut chunk = RecordChunk {
                records: records.len() as u64,
                bytes: records.len() as u64 * 1000,
                ..RecordChunk::default()
            };
            for record in records {
                match record {
                    Record::Send(send) => chunk.sends.push((**send).clone()),
                    Record::Unreadable(record) => chunk.unreadable.push(record.clone()),
                    Record::Other => {}
                }
            }
            chunk
        };
        let chunks: Vec<RecordChunk> = records.chunks(CHUNK_RECORDS).map(chunk).collect();
        self.usage.bytes_received += chunks.iter().map(|chunk| chunk.bytes).sum::<u64>();
        chunks.into_iter().map(Ok).chain(half.err().map(Err)).collect()
    }

    fn find(&mut self, send: &SendRecord, now: Time) -> Result<Vec<Message>> {
        self.enter(Call::Find)?;
        let mut found: Vec<Message> = Vec::new();
        for mailbox in [&send.mailbox, &send.actor] {
            let mailbox = mailbox.to_lowercase();
            if let Some(code) = self.closed_mailboxes.get(&mailbox) {
                return Err(Error::new(*code, format!("the mailbox `{mailbox}` is closed")));
            }
            let is_meant = |(visible, message): &&(Time, Message)| {
                *visible <= now
                    && message.mailbox.to_lowercase() == mailbox
                    && Some(&message.internet_message_id) == send.internet_message_id.as_ref()
            };
            found.extend(self.messages.iter().filter(is_meant).map(|(_, message)| message.clone()));
            if !found.is_empty() {
                break;
            }
        }
        let distance = |message: &Message| ((message.sent - send.created).abs(), message.sent);
        if let Some(nearest) = found.iter().map(distance).min() {
            found.retain(|message| distance(message) == nearest);
        }
        found.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(found)
    }

    fn open(&mut self, attachment: &AttachmentRef) -> Result<AttachmentBody> {
        self.enter(Call::Open)?;
        if let Some(code) = self.closed_mailboxes.get(&attachment.mailbox.to_lowercase()) {
            return Err(Error::new(*code, format!("the mailbox `{}` is closed", attachment.mailbox)));
        }
        if attachment.kind == super::AttachmentKind::Reference {
            return Err(Error::new(Code::AttachmentHasNoBytes, "the attachment is a link"));
        }
        if !self.messages.iter().any(|(_, message)| message.id == attachment.message_id) {
            return Err(Error::new(Code::MessageMissing, format!("there is no message `{}`", attachment.message_id)));
        }
        let bytes = self.bytes.get(&attachment.attachment_id).cloned().ok_or_else(|| {
            Error::new(
                Code::AttachmentUnreadable,
                format!("the attachment `{}` has no bytes", attachment.attachment_id),
            )
        })?;
        let announced_bytes = Some(bytes.len() as u64);
        let half = self.enter(Call::OpenHalf);
        let sent = if half.is_err() { bytes.slice(..bytes.len() / 2) } else { bytes };
        self.usage.bytes_received += sent.len() as u64;
        let size = self.chunk_bytes;
        let pieces: Vec<Result<Bytes>> = (0..sent.len())
            .step_by(size)
            .map(|at| Ok(sent.slice(at..(at + size).min(sent.len()))))
            .chain(half.err().map(Err))
            .collect();
        Ok(AttachmentBody { announced_bytes, bytes: stream::iter(pieces).boxed() })
    }

    fn resolve(&mut self, scope: &Scope) -> Result<ResolvedScope> {
        self.enter(Call::ResolveScope)?;
        let mut findings = Vec::new();
        let mut people = Vec::new();
        let mut add = |(id, names): &(String, Vec<String>)| {
            let address = names.first().unwrap_or(id).to_lowercase();
            people.push((Member { object_id: id.clone(), address, mail: None, name: None }, names.clone()));
        };
        let finding = |entry: &str, what: &str| ScopeFinding {
            entry: entry.to_owned(),
            what: format!("the directory has no {what} `{entry}`"),
        };
        match scope {
            Scope::All => return Ok(ResolvedScope::all()),
            Scope::Users(entries) => {
                for entry in entries {
                    let is_meant = |name: &String| name.eq_ignore_ascii_case(entry.trim());
                    match self.people.iter().find(|(id, names)| is_meant(id) || names.iter().any(is_meant)) {
                        Some(person) => add(person),
                        None => findings.push(finding(entry, "user")),
                    }
                }
            }
            Scope::Groups(entries) => {
                for entry in entries {
                    match self.groups.get(&entry.trim().to_lowercase()) {
                        Some(members) => self.people.iter().filter(|(id, _)| members.contains(id)).for_each(&mut add),
                        None => findings.push(finding(entry, "group")),
                    }
                }
            }
        }
        Ok(ResolvedScope::only(people, findings))
    }
}

impl Source for Memory {
    async fn prepare(&self) -> Result<Feed> {
        let mut state = self.state();
        state.enter(Call::Prepare)?;
        Ok(std::mem::replace(&mut state.feed, Feed::On))
    }

    async fn list(&self, window: Window) -> Result<Vec<ContentBlob>> {
        let now = self.clock.now();
        let mut state = self.state();
        state.enter(Call::List)?;
        if window.start() < now - KEPT {
            return Err(Error::new(Code::GapTooOld, format!("the window {window} starts before the feed's memory")));
        }
        if window.end() - window.start() > crate::limits::WINDOW_MAX {
            return Err(Error::new(Code::Internal, format!("the window {window} is longer than the feed's 24 hours")));
        }
        Ok(state.blobs(window, now))
    }

    fn read(&self, blob: &ContentBlob) -> BoxStream<'static, Result<RecordChunk>> {
        let (memory, blob) = (self.clone(), blob.clone());
        // Nothing happens before the stream is polled, like on a network.
        let chunks = stream::once(async move { stream::iter(memory.state().read(&blob, memory.clock.now())) });
        chunks.flatten().boxed()
    }

    async fn find(&self, send: &SendRecord) -> Result<Vec<Message>> {
        self.state().find(send, self.clock.now())
    }

    async fn open(&self, attachment: &AttachmentRef) -> Result<AttachmentBody> {
        self.state().open(attachment)
    }

    async fn resolve_scope(&self, scope: &Scope) -> Result<ResolvedScope> {
        self.state().resolve(scope)
    }

    fn usage(&self) -> Usage {
        self.state().usage.clone()
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;
    use crate::source::Operation;

    fn time(text: &str) -> Time {
        DateTime::parse_from_rfc3339(text).unwrap().to_utc()
    }

    fn send(id: &str) -> SendRecord {
        SendRecord {
            id: id.to_owned(),
            operation: Operation::Send,
            created: time("2026-11-23T10:00:00Z"),
            actor: "ann@x.org".into(),
            mailbox: "ann@x.org".into(),
            mailbox_guid: None,
            tenant_id: None,
            internet_message_id: Some("<1@x.org>".into()),
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

    async fn ids(memory: &Memory, blob: &ContentBlob) -> Result<Vec<String>> {
        let chunks: Vec<RecordChunk> = memory.read(blob).try_collect().await?;
        Ok(chunks.into_iter().flat_map(|chunk| chunk.sends).map(|send| send.id).collect())
    }

    #[tokio::test]
    async fn blobs_are_cut_by_the_window_and_a_second_read_turns_the_order() {
        let clock = Clock::manual(time("2026-11-23T12:00:00Z"));
        let memory = Memory::new(clock.clone());
        for second in 0..9 {
            memory.publish(time("2026-11-23T10:00:30Z") + Duration::seconds(second * 10), send(&second.to_string()));
        }
        memory.publish_late(time("2026-11-23T10:00:45Z"), time("2026-11-23T13:00:00Z"), send("late"));
        let hour = Window::new(time("2026-11-23T10:00:00Z"), time("2026-11-23T11:00:00Z")).unwrap();
        let blobs = memory.list(hour).await.unwrap();
        assert_eq!(blobs.len(), 2);
        assert_eq!(ids(&memory, &blobs[0]).await.unwrap(), ["0", "1", "2"]);
        assert_eq!(ids(&memory, &blobs[0]).await.unwrap(), ["2", "1", "0"]);
        let odd = Window::new(time("2026-11-23T10:00:45Z"), time("2026-11-23T11:00:00Z")).unwrap();
        assert_ne!(memory.list(odd).await.unwrap()[0].id, blobs[0].id);
        clock.set(time("2026-11-23T13:00:00Z"));
        let again = memory.list(hour).await.unwrap();
        assert_eq!(again.len(), 3);
        assert!(blobs.iter().all(|blob| again.contains(blob)));
        clock.set(time("2026-12-01T13:00:00Z"));
        assert_eq!(memory.list(hour).await.unwrap_err().code(), Code::GapTooOld);
        assert_eq!(ids(&memory, &blobs[0]).await.unwrap_err().code(), Code::ContentExpired);
    }

    #[tokio::test]
    async fn a_fault_hits_the_call_that_it_names() {
        let memory = Memory::new(Clock::manual(time("2026-11-23T12:00:00Z")));
        for nth in 0..4 {
            memory.publish(time("2026-11-23T10:00:00Z"), send(&nth.to_string()));
        }
        memory.fail(Call::List, 2, Code::ServiceUnavailable);
        memory.fail(Call::ReadHalf, 1, Code::ContentUnreadable);
        let window = Window::new(time("2026-11-23T10:00:00Z"), time("2026-11-23T11:00:00Z")).unwrap();
        let blobs = memory.list(window).await.unwrap();
        assert_eq!(memory.list(window).await.unwrap_err().code(), Code::ServiceUnavailable);
        assert_eq!(memory.list(window).await.unwrap(), blobs);
        let first: Vec<Result<RecordChunk>> = memory.read(&blobs[0]).collect().await;
        assert_eq!(first.len(), 2);
        assert_eq!(first[0].as_ref().unwrap().sends.len(), 2);
        assert_eq!(ids(&memory, &blobs[0]).await.unwrap().len(), 4);
        assert_eq!(memory.calls(Call::Read), 2);
    }
}
