//! The activity feed: its subscription, what it lists, and its blobs.
//!
//! Content is listed by the time at which it became available, in windows of at most 24 hours and of whole seconds,
//! and only from the subscription's start. The feed keeps it for seven days. Its own documentation and its answers
//! differ in places; where they do, what was seen in the field counts, and both are accepted.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::{SecondsFormat, SubsecRound};
use futures::StreamExt;
use futures::stream::BoxStream;
use serde::Deserialize;
use tracing::{debug, info, warn};

use super::record::{Records, parse_time};
use super::throttle::{Class, Refusal, classify, describe, hinted_wait, is_permission_refusal};
use super::{Tenant, below, is_same_service};
use crate::clock::Time;
use crate::error::{Code, Error, Result};
use crate::http::header::HeaderMap;
use crate::http::{Answer, Request, Service, StatusCode, Url, Verdict, parse_json};
use crate::id::Id;
use crate::limits;
use crate::source::{ContentBlob, Feed, RecordChunk, UnreadableRecord, Window};

/// The content type in which Exchange's records come.
const CONTENT_TYPE: &str = "Audit.Exchange";

/// The header with the next page; one page of the documentation calls it NextPageUrl, no answer does.
const NEXT_PAGE: &str = "nextpageuri";

/// How long content is kept, for an item that does not tell:
/// <https://learn.microsoft.com/office/office-365-management-api/>.
const KEPT: chrono::Duration = chrono::Duration::days(7);

#[derive(Deserialize)]
struct Subscription {
    #[serde(rename = "contentType")]
    content_type: String,
    status: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    content_type: Option<String>,
    content_id: Option<String>,
    content_uri: String,
    content_created: String,
    content_expiration: Option<String>,
}

/// An answer that was read, or a refusal that the caller must understand.
enum Reply<T> {
    Good(T, HeaderMap),
    Refused(Answer),
}

impl Tenant {
    /// Looks whether the subscription is on, and starts it when it is off. Starting is limited to once in 15 minutes,
    /// so it is never done on suspicion.
    pub(super) async fn prepare(&self) -> Result<Feed> {
        if self.is_subscribed().await? { Ok(Feed::On) } else { self.start().await }
    }

    pub(super) async fn is_subscribed(&self) -> Result<bool> {
        let request = Request::get("subscriptions", self.feed_url("subscriptions/list", &[])?);
        match self.ask::<Vec<Subscription>>(&request).await? {
            Reply::Good(subscriptions, _) => Ok(subscriptions.iter().any(|subscription| {
                let is_on = subscription.status.as_deref().is_some_and(|status| status.eq_ignore_ascii_case("enabled"));
                subscription.content_type == CONTENT_TYPE && is_on
            })),
            Reply::Refused(answer) => {
                let error = self.refused(&request, &answer, None);
                // Some tenants without any subscription answer so.
                if error.code() == Code::SubscriptionDisabled { Ok(false) } else { Err(error) }
            }
        }
    }

    async fn start(&self) -> Result<Feed> {
        let request = Request::post(
            "start",
            self.feed_url("subscriptions/start", &[("contentType", CONTENT_TYPE)])?,
            bytes::Bytes::new(),
        );
        let mut has_waited = false;
        loop {
            // The body's shape is of no interest.
            let answer = match self.ask::<serde::de::IgnoredAny>(&request).await? {
                Reply::Good(..) => {
                    info!("the audit subscription was started");
                    return Ok(Feed::Started);
                }
                Reply::Refused(answer) => answer,
            };
            let refusal = Refusal::read(&answer);
            match refusal.code.as_str() {
                // Undocumented: `The subscription is already enabled. No property change.`
                "AF20024" => return Ok(Feed::On),
                _ if is_start_limit(&refusal) => match hinted_wait(&refusal.message) {
                    Some(wait) if wait <= limits::RETRY_AFTER_MAX && !has_waited => {
                        warn!(wait_s = wait.as_secs(), "the audit subscription may not be started yet");
                        has_waited = true;
                        tokio::time::sleep(wait + Duration::from_secs(1)).await;
                        self.http.add_throttled(wait);
                    }
                    _ => {
                        let message =
                            format!("the audit subscription is off and may not be started yet: {}", describe(&answer));
                        return Err(Error::new(Code::SubscriptionDisabled, message));
                    }
                },
                _ => return Err(self.refused(&request, &answer, None).context("cannot start the audit subscription")),
            }
        }
    }

    /// Starts a subscription that was on when the run began. What became available in between is lost, which the run
    /// must say.
    async fn restart(&self) -> Result<()> {
        warn!("the audit subscription was found off, starting it again");
        // Also when another run started it meanwhile: it was off.
        self.feed_restarted.store(true, Ordering::Relaxed);
        self.start().await.map(|_| ())
    }

    /// Lists a window, all pages.
    pub(super) async fn list(&self, window: Window) -> Result<Vec<ContentBlob>> {
        let (start, end) = whole_seconds(window);
        if end - start > limits::WINDOW_MAX {
            return Err(Error::new(Code::Internal, format!("the window {window} is longer than the feed's 24 hours")));
        }
        let mut has_restarted = false;
        let mut restarts = 0;
        loop {
            let answer = match self.list_from(window, start, end).await? {
                Reply::Good(blobs, _) => return Ok(blobs),
                Reply::Refused(answer) => answer,
            };
            let refusal = Refusal::read(&answer);
            let error = self.refused_listing(&answer, window);
            match (error.code(), refusal.code.as_str()) {
                (Code::SubscriptionDisabled, _) if !has_restarted => {
                    has_restarted = true;
                    self.restart().await?;
                }
                // The service lost its place between two pages.
                (_, "AF20031") if restarts < limits::LISTING_RESTARTS => {
                    restarts += 1;
                    tokio::time::sleep(limits::BACKOFF_START).await;
                }
                _ => return Err(error.context(format_args!("cannot list the window {window}"))),
            }
        }
    }

    async fn list_from(&self, window: Window, start: Time, end: Time) -> Result<Reply<Vec<ContentBlob>>> {
        let seconds = |time: Time| time.format("%Y-%m-%dT%H:%M:%S").to_string();
        let query = [("contentType", CONTENT_TYPE), ("startTime", &seconds(start)), ("endTime", &seconds(end))];
        let mut url = self.feed_url("subscriptions/content", &query)?;
        let (mut blobs, mut ids, mut pages) = (Vec::new(), HashSet::new(), HashSet::new());
        let mut repeats = 0;
        for _ in 0..limits::PAGES {
            let request = Request::get("list", url);
            let (items, headers) = match self.ask::<Vec<Item>>(&request).await? {
                Reply::Good(items, headers) => (items, headers),
                Reply::Refused(answer) => return Ok(Reply::Refused(answer)),
            };
            for item in items {
                if item.content_type.as_deref().is_some_and(|content_type| content_type != CONTENT_TYPE) {
                    continue;
                }
                let blob = item.into_blob()?;
                // Rounding outward may bring neighbours of a window that does not begin and end with a second.
                let is_inside = (window.start() == start || blob.created >= window.start())
                    && (window.end() == end || blob.created < window.end());
                if is_inside && ids.insert(Id::of(&blob.id)) {
                    blobs.push(blob);
                }
            }
            let Some(next) = headers.get(NEXT_PAGE) else { return Ok(Reply::Good(blobs, headers)) };
            let next =
                next.to_str().map_err(|_| Error::new(Code::ServiceProtocol, "the feed's next page is no text"))?;
            // An empty page may be its own successor for a while.
            repeats += usize::from(!pages.insert(next.to_owned()));
            if repeats > limits::PAGE_REPEATS {
                break;
            }
            url = self.feed_link(next)?;
        }
        Err(Error::new(Code::ServiceProtocol, format!("the feed's pages of the window {window} never end")))
    }

    /// Asks the feed for JSON. Refusals that are neither a fault nor about the token come back to be understood.
    async fn ask<T: serde::de::DeserializeOwned>(&self, request: &Request) -> Result<Reply<T>> {
        let service = FeedService { tenant: self, is_blob: false };
        let read = |answer: &Answer| match answer.status.is_success() {
            true => parse_json(answer).map(|value| Reply::Good(value, answer.headers.clone())),
            false => Ok(Reply::Refused(answer.clone())),
        };
        self.http.read(request, &service, read).await
    }

    fn feed_url(&self, operation: &str, query: &[(&str, &str)]) -> Result<Url> {
        let mut url = below(&self.endpoints.feed, operation)?;
        url.query_pairs_mut().extend_pairs(query);
        Ok(self.as_publisher(url))
    }

    /// Checks a link of the service and says who asks. It comes without that, and a call without it counts against a
    /// pool that all tenants share.
    fn feed_link(&self, link: &str) -> Result<Url> {
        let url = Url::parse(link).map_err(|error| {
            Error::new(Code::ServiceProtocol, format!("the feed gives a link that is no URL: {error}"))
        })?;
        if !is_same_service(&url, &self.endpoints.feed) {
            let (given, asked) =
                (url.origin().ascii_serialization(), self.endpoints.feed.origin().ascii_serialization());
            let message = format!(
                "the feed at `{asked}` gives a link to `{given}`, which must not get the token; check the cloud"
            );
            return Err(Error::new(Code::ServiceProtocol, message));
        }
        Ok(self.as_publisher(url))
    }

    fn as_publisher(&self, mut url: Url) -> Url {
        const PUBLISHER: &str = "PublisherIdentifier";
        if !url.query_pairs().any(|(name, _)| name.eq_ignore_ascii_case(PUBLISHER)) {
            // Appended as text: the pairs of the service's own links must stay as they came.
            let query =
                url.query().filter(|query| !query.is_empty()).map(|query| format!("{query}&")).unwrap_or_default();
            url.set_query(Some(&format!("{query}{PUBLISHER}={}", self.application.tenant_id)));
        }
        url
    }

    fn refused_listing(&self, answer: &Answer, window: Window) -> Error {
        let refusal = Refusal::read(answer);
        if !matches!(refusal.code.as_str(), "AF20030" | "AF20055") {
            return self.refused(&Request::get("list", self.endpoints.feed.clone()), answer, None);
        }
        // One code for a window that is too old and for clocks that disagree: the answer's date tells which.
        let (ours, theirs) = (self.clock.now(), answer.date().unwrap_or_else(|| self.clock.now()));
        let last = describe(answer);
        if (ours - theirs).abs() > limits::CLOCK_SKEW {
            let (ours, theirs) =
                (ours.to_rfc3339_opts(SecondsFormat::Secs, true), theirs.to_rfc3339_opts(SecondsFormat::Secs, true));
            Error::new(Code::ClockSkew, format!("this machine's clock says {ours}, the feed's {theirs}: {last}"))
        } else if window.start() < theirs - limits::FEED_MEMORY {
            Error::new(Code::GapTooOld, format!("the feed no longer holds it: {last}"))
        } else {
            Error::new(Code::ServiceProtocol, format!("the feed does not accept the window: {last}"))
        }
    }

    /// What a refusal of the feed means. `blob`: which content was asked for.
    fn refused(&self, request: &Request, answer: &Answer, blob: Option<&str>) -> Error {
        let refusal = Refusal::read(answer);
        let last = describe(answer);
        let content = blob.unwrap_or("?");
        match refusal.code.as_str() {
            // A sentence that the service cuts at a fixed place, so code and message are its halves.
            _ if refusal.mentions("DataServiceException") && refusal.mentions("does not exist") => {
                Error::new(Code::AuditingDisabled, format!("the tenant records no audit log: {last}"))
            }
            // A token without any permission leaves the parentheses empty (O365-InvestigationTooling#34).
            "AF10001" if refusal.mentions("permission set ()") => {
                Error::new(Code::ConsentMissing, format!("the application's token carries no permission: {last}"))
            }
            "AF10001" => {
                Error::new(Code::PermissionMissing, format!("the feed finds no permission in the token: {last}"))
            }
            "AF20010" => Error::new(Code::TenantUnknown, format!("the feed's tenant is not the token's: {last}")),
            "AF20011" | "AF20012" | "AF20013" => {
                Error::new(Code::TenantUnknown, format!("the feed does not know the tenant: {last}"))
            }
            "AF20022" | "AF20023" => {
                Error::new(Code::SubscriptionDisabled, format!("the audit subscription is off: {last}"))
            }
            "AF20050" | "AF20051" => {
                Error::new(Code::ContentExpired, format!("the feed no longer holds the blob `{content}`: {last}"))
            }
            "AF20052" => {
                let message = format!(
                    "the feed does not know the blob that it listed; is `{}` the tenant's cloud: {last}",
                    self.cloud
                );
                Error::new(Code::ServiceProtocol, message)
            }
            _ if answer.status == StatusCode::UNAUTHORIZED || answer.status == StatusCode::FORBIDDEN => {
                Error::new(Code::PermissionMissing, format!("the feed refuses {request}: {last}"))
            }
            _ => Error::new(Code::ServiceProtocol, format!("the feed does not understand {request}: {last}")),
        }
    }
}

impl Item {
    fn into_blob(self) -> Result<ContentBlob> {
        let problem = |what: &str| {
            Error::new(Code::ServiceProtocol, format!("the feed lists a blob whose {what} cannot be read"))
        };
        let created = parse_time(&self.content_created).ok_or_else(|| problem("`contentCreated`"))?;
        let expires = match self.content_expiration {
            Some(text) => parse_time(&text).ok_or_else(|| problem("`contentExpiration`"))?,
            None => created + KEPT,
        };
        let id = self.content_id.or_else(|| Some(self.content_uri.rsplit('/').next()?.to_owned()));
        let id = id.filter(|id| !id.is_empty()).ok_or_else(|| problem("`contentId`"))?;
        Ok(ContentBlob { id, uri: self.content_uri, created, expires })
    }
}

/// Whether the feed says that a subscription was started less than 15 minutes ago; seen as 403 and as 429.
fn is_start_limit(refusal: &Refusal) -> bool {
    refusal.code == "429" || refusal.mentions("subscription start requests")
}

/// The smallest window of whole seconds around a window: the feed takes no others.
fn whole_seconds(window: Window) -> (Time, Time) {
    let start = window.start().trunc_subsecs(0);
    let end = window.end().trunc_subsecs(0);
    let end = if end < window.end() { end + chrono::Duration::seconds(1) } else { end };
    (start, end)
}

/// The feed as seen by one request.
struct FeedService<'a> {
    tenant: &'a Tenant,
    /// Whether a blob is asked for: its refusals are final, the others are understood by the caller.
    is_blob: bool,
}

impl Service for FeedService<'_> {
    /// The token's generation.
    type Turn = u64;

    async fn turn(&self) -> Result<(HeaderMap, u64)> {
        let waited = self.tenant.feed_pause.wait().await;
        if !waited.is_zero() {
            self.tenant.http.add_throttled(waited);
        }
        let ticket = self.tenant.feed_tokens.get().await?;
        Ok((ticket.headers(), ticket.generation))
    }

    fn succeeded(&self, generation: &u64) {
        self.tenant.feed_tokens.accept(*generation);
    }

    fn judge(&self, request: &Request, answer: &Answer, generation: &u64) -> Verdict {
        let refusal = Refusal::read(answer);
        let tokens = &self.tenant.feed_tokens;
        match classify(answer, &refusal, &self.tenant.clock) {
            Class::SlowDown(_) if is_start_limit(&refusal) => Verdict::Answer,
            Class::SlowDown(wait) => {
                self.tenant.feed_pause.extend(wait.unwrap_or(limits::BACKOFF_START));
                Verdict::SlowDown(wait)
            }
            Class::Fault => Verdict::Again,
            Class::Unauthorized if refusal.code != "AF10001" && tokens.reject(*generation) => Verdict::Renewed,
            Class::Unauthorized | Class::Other
                if is_permission_refusal(answer, &refusal) && tokens.doubt(*generation) =>
            {
                Verdict::Renewed
            }
            Class::Unauthorized | Class::Other if self.is_blob => {
                Verdict::Final(self.tenant.refused(request, answer, request.url().path().rsplit('/').next()))
            }
            Class::Unauthorized | Class::Other => Verdict::Answer,
        }
    }

    fn describe(&self, answer: &Answer) -> String {
        describe(answer)
    }
}

/// Reads a blob as it arrives. When it breaks off it is asked for again, and what was given before is left out.
pub(super) fn read(tenant: Arc<Tenant>, blob: ContentBlob) -> BoxStream<'static, Result<RecordChunk>> {
    let stream = async_stream::stream! {
        let mut given = Given::default();
        let mut has_restarted = false;
        let mut reads = 1;
        loop {
            let mut error = None;
            {
                let mut chunks = read_once(&tenant, &blob);
                while let Some(chunk) = chunks.next().await {
                    match chunk {
                        Ok(chunk) => {
                            if let Some(chunk) = given.leave_out(chunk) {
                                yield Ok(chunk);
                            }
                        }
                        Err(failure) => {
                            error = Some(failure);
                            break;
                        }
                    }
                }
            }
            let Some(failure) = error else { return };
            match failure.code() {
                Code::SubscriptionDisabled if !has_restarted => {
                    has_restarted = true;
                    if let Err(failure) = tenant.restart().await {
                        yield Err(failure);
                        return;
                    }
                }
                Code::ContentUnreadable if reads < limits::BLOB_READS => {
                    debug!(blob = %blob.id, error = %failure, "reading a blob again");
                    reads += 1;
                    tokio::time::sleep(limits::BACKOFF_START * 4).await;
                }
                _ => {
                    let failure = failure.context(format!("cannot read the blob `{}`", blob.id));
                    yield Err(failure);
                    return;
                }
            }
            given.begin_again();
        }
    };
    stream.boxed()
}

fn read_once<'a>(tenant: &'a Tenant, blob: &'a ContentBlob) -> BoxStream<'a, Result<RecordChunk>> {
    let stream = async_stream::try_stream! {
        if blob.expires <= tenant.clock.now() {
            let expired = blob.expires.to_rfc3339_opts(SecondsFormat::Secs, true);
            Err(Error::new(Code::ContentExpired, format!("it expired at {expired}")))?;
        }
        let request = Request::get("blob", tenant.feed_link(&blob.uri)?);
        let service = FeedService { tenant, is_blob: true };
        let mut body = tenant.http.stream(&request, &service).await?;
        let mut records = Records::new();
        while let Some(chunk) = body.bytes.next().await {
            yield records.split(&chunk?)?;
        }
        yield records.finish()?;
    };
    stream.boxed()
}

/// What earlier, broken reads of a blob gave, so that a further read gives only the rest. A read may come in another
/// order, so sends are known by their ids and the others by their number.
#[derive(Default)]
struct Given {
    records_before: u64,
    ids_before: HashSet<Id>,
    unreadable_before: HashSet<String>,
    records: u64,
    ids: HashSet<Id>,
    unreadable: HashSet<String>,
}

impl Given {
    fn begin_again(&mut self) {
        self.records_before = self.records_before.max(self.records);
        self.records = 0;
        self.ids_before.extend(self.ids.drain());
        self.unreadable_before.extend(self.unreadable.drain());
    }

    /// `None`: nothing new, not even bytes.
    fn leave_out(&mut self, mut chunk: RecordChunk) -> Option<RecordChunk> {
        let known = self.records_before.saturating_sub(self.records).min(chunk.records);
        self.records += chunk.records;
        chunk.records -= known;
        chunk.sends.retain(|send| !self.ids_before.contains(&Id::of(&send.id)));
        self.ids.extend(chunk.sends.iter().map(|send| Id::of(&send.id)));
        let raw = |record: &UnreadableRecord| record.raw.clone();
        chunk.unreadable.retain(|record| !self.unreadable_before.contains(&record.raw));
        self.unreadable.extend(chunk.unreadable.iter().map(raw));
        let is_empty = chunk.bytes == 0 && chunk.records == 0 && chunk.sends.is_empty() && chunk.unreadable.is_empty();
        (!is_empty).then_some(chunk)
    }
}

#[cfg(test)]
mod tests;
