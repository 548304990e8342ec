//! The one HTTP client: how Waybill talks to a mail service.
//!
//! A [`Request`] is sent until it is answered, refused for good, or a limit is reached. What an answer means is the
//! [`Service`]'s to say, in a [`Verdict`]; how often and how long to try again is decided here, the same for all.
//! Nothing here knows Microsoft. No redirect is followed and nothing is decompressed, so that bytes that are hashed
//! are the bytes that were sent. Messages name method, host and path, and never the query, the headers or the body
//! that were sent.
//!
//! May use: `clock`, `error`, `limits`.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use serde::Serialize;
use tokio::time::Instant;
use tracing::{debug, warn};
use uuid::Uuid;

pub use reqwest::{Method, StatusCode, header};
pub use url::Url;

use crate::clock::{Clock, Time};
use crate::error::{Code, Error, Result};
use crate::limits;

/// How Waybill names itself, so that an administrator finds it in the service's own logs.
const USER_AGENT: &str = concat!("Waybill/", env!("CARGO_PKG_VERSION"), " (attachment hashing; audit collection)");

/// The address at which Azure machines ask for their own identity; link-local, and plain by design.
const INSTANCE_METADATA_HOST: &str = "169.254.169.254";

/// Names each request in the service's logs and in ours.
const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("client-request-id");

/// What was asked of a service, for the run's report and for tests that assert the cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Requests by kind (`token`, `list`, `blob`, `find`, `attachment` …), retries included.
    pub requests: BTreeMap<&'static str, u64>,
    /// Requests that were repeats of a failed one.
    pub retries: u64,
    /// Answers that asked to slow down.
    pub throttled: u64,
    /// Time spent waiting because the service asked for it, summed over all tasks, milliseconds.
    pub throttled_ms: u64,
    /// Bytes received in bodies.
    pub bytes_received: u64,
}

/// One request, without what its service adds (authorisation).
#[derive(Clone)]
pub struct Request {
    kind: &'static str,
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Bytes,
}

impl Request {
    /// A `GET`; `kind` is the word under which it is counted.
    pub fn get(kind: &'static str, url: Url) -> Self {
        Self { kind, method: Method::GET, url, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// A `POST`; an empty body is sent as one of length 0.
    pub fn post(kind: &'static str, url: Url, body: Bytes) -> Self {
        Self { kind, method: Method::POST, url, headers: HeaderMap::new(), body }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// The URL.
    pub fn url(&self) -> &Url {
        &self.url
    }
}

impl std::fmt::Display for Request {
    /// Method, host and path: the query may hold what is nobody's business, and the rest may hold secrets. Ids of 150
    /// letters are cut: rows of the lake keep this text.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const PART_CHARS: usize = 48;
        write!(f, "{} {}", self.method, self.url.host_str().unwrap_or_default())?;
        for part in self.url.path().split('/').skip(1) {
            match part.char_indices().nth(PART_CHARS) {
                Some((end, _)) => write!(f, "/{}…", &part[..end])?,
                None => write!(f, "/{part}")?,
            }
        }
        Ok(())
    }
}

/// What came back, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, up to a limit.
    pub body: Bytes,
}

impl Answer {
    /// What the service's clock said.
    pub fn date(&self) -> Option<Time> {
        http_date(self.headers.get(DATE)?)
    }

    /// How long the service asks to wait: seconds, or until a date (measured on the service's own clock where it
    /// tells).
    pub fn retry_after(&self, clock: &Clock) -> Option<Duration> {
        let value = self.headers.get(RETRY_AFTER)?;
        let text = value.to_str().ok()?.trim();
        if let Ok(seconds) = text.parse::<f64>() {
            return Duration::try_from_secs_f64(seconds.max(0.0)).ok();
        }
        let wait = http_date(value)? - self.date().unwrap_or_else(|| clock.now());
        Some(wait.to_std().unwrap_or_default())
    }

    /// The status and the beginning of the body, on one line.
    pub fn summary(&self) -> String {
        let text = one_line(&String::from_utf8_lossy(&self.body));
        match text.is_empty() {
            true => self.status.as_u16().to_string(),
            false => format!("{} {text}", self.status.as_u16()),
        }
    }
}

/// Puts a service's text on one line of bearable length.
pub fn one_line(text: &str) -> String {
    const CHARS: usize = 300;
    let text = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let text = text.collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn http_date(value: &HeaderValue) -> Option<Time> {
    // HTTP's own form (`Sun, 06 Nov 1994 08:49:37 GMT`) is one of RFC 2822.
    Some(chrono::DateTime::parse_from_rfc2822(value.to_str().ok()?.trim()).ok()?.to_utc())
}

/// What an answer that is no success means for its request.
#[derive(Debug)]
pub enum Verdict {
    /// The service wants fewer requests: wait as long as it says, or longer each time.
    SlowDown(Option<Duration>),
    /// A fault that may pass.
    Again,
    /// The authorisation was renewed: ask once more, at once.
    Renewed,
    /// It is an answer that the caller understands.
    Answer,
    /// Trying again does not help.
    Final(Error),
}

/// What a service adds to a request: who asks, whose turn it is, and what its refusals mean.
pub trait Service: Sync {
    /// What is held while the request runs and its body flows.
    type Turn: Send + 'static;

    /// Waits until a request may be sent; the headers (authorisation) are added to it.
    fn turn(&self) -> impl Future<Output = Result<(HeaderMap, Self::Turn)>> + Send;

    /// Notes that the request of this turn succeeded.
    fn succeeded(&self, _turn: &Self::Turn) {}

    /// Says what an answer that is no success means.
    fn judge(&self, request: &Request, answer: &Answer, turn: &Self::Turn) -> Verdict;

    /// One line about an answer for messages.
    fn describe(&self, answer: &Answer) -> String {
        answer.summary()
    }

    /// How often a request is sent when it meets faults.
    fn attempts(&self) -> u32 {
        limits::ATTEMPTS
    }
}

/// A body on its way.
pub struct Body {
    /// The length that was announced.
    pub announced_bytes: Option<u64>,
    /// The bytes; ends with `content-unreadable` when fewer came than were announced. Holds the service's turn.
    pub bytes: BoxStream<'static, Result<Bytes>>,
}

/// The client, to be cloned and shared.
#[derive(Clone)]
pub struct Http {
    inner: Arc<Inner>,
}

struct Inner {
    /// For services on the network: uses the proxy that the environment names.
    remote: reqwest::Client,
    /// For this machine: no proxy could reach it.
    local: reqwest::Client,
    usage: Mutex<Usage>,
    bytes_received: AtomicU64,
}

impl Http {
    /// A client with its own connections and counters.
    ///
    /// # Errors
    /// `configuration` when the machine's root certificates or proxy settings cannot be used.
    pub fn new() -> Result<Self> {
        let build = |builder: reqwest::ClientBuilder| {
            builder
                .user_agent(USER_AGENT)
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(limits::CONNECT_TIMEOUT)
                .read_timeout(limits::READ_TIMEOUT)
                .tcp_keepalive(Duration::from_secs(60))
                // The default window of 64 KB would bound one stream to 64 KB per round trip.
                .http2_adaptive_window(true)
                .build()
                .map_err(|error| {
                    Error::new(Code::Configuration, format!("cannot set up the HTTP client: {}", root_cause(&error)))
                        .caused_by(error)
                })
        };
        let remote = build(reqwest::Client::builder())?;
        let local = build(reqwest::Client::builder().no_proxy())?;
        Ok(Self {
            inner: Arc::new(Inner { remote, local, usage: Mutex::default(), bytes_received: AtomicU64::new(0) }),
        })
    }

    /// What was asked so far.
    pub fn usage(&self) -> Usage {
        let mut usage = self.inner.usage.lock().unwrap_or_else(PoisonError::into_inner).clone();
        usage.bytes_received = self.inner.bytes_received.load(Ordering::Relaxed);
        usage
    }

    /// Adds time that was spent waiting because a service asked for it.
    pub fn add_throttled(&self, waited: Duration) {
        self.count(|usage| usage.throttled_ms += u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
    }

    /// Sends a request and reads its answer whole with `read`, whose failure counts as a fault of the service.
    ///
    /// # Errors
    /// The verdict's, or `throttled`, `service-unavailable`, `service-protocol` after the last attempt.
    pub async fn read<S: Service, T>(
        &self,
        request: &Request,
        service: &S,
        read: impl Fn(&Answer) -> Result<T, String> + Send,
    ) -> Result<T> {
        let mut attempts = Attempts::new(service.attempts());
        loop {
            let (answer, turn) = match self.accepted(request, service, &mut attempts).await? {
                Accepted::Refused(answer) => (Ok(answer), None),
                Accepted::Good(response, turn) => (self.whole(response, limits::ANSWER_BYTES).await, Some(turn)),
            };
            drop(turn);
            let (fault, code) = match answer {
                Ok(answer) => match read(&answer) {
                    Ok(value) => return Ok(value),
                    Err(problem) => (format!("{} {problem}", answer.status.as_u16()), Code::ServiceProtocol),
                },
                Err(problem) => (problem, Code::ServiceUnavailable),
            };
            attempts.pause_after_fault(request, &fault, code).await?;
        }
    }

    /// Sends a request and reads its answer as JSON.
    ///
    /// # Errors
    /// Like [`Self::read`].
    pub async fn json<S: Service, T: serde::de::DeserializeOwned>(&self, request: &Request, service: &S) -> Result<T> {
        self.read(request, service, parse_json).await
    }

    /// Sends a request and hands its body over as it comes. Only what happens before the body begins is tried again.
    ///
    /// # Errors
    /// Like [`Self::read`].
    pub async fn stream<S: Service>(&self, request: &Request, service: &S) -> Result<Body> {
        let mut attempts = Attempts::new(service.attempts());
        match self.accepted(request, service, &mut attempts).await? {
            Accepted::Good(response, turn) => Ok(self.body(response, turn)),
            Accepted::Refused(answer) => {
                let message = format!("{request} answered {}", service.describe(&answer));
                Err(Error::new(Code::ServiceProtocol, message))
            }
        }
    }

    /// Sends until there is an answer that the caller wants.
    async fn accepted<S: Service>(
        &self,
        request: &Request,
        service: &S,
        attempts: &mut Attempts,
    ) -> Result<Accepted<S::Turn>> {
        ensure_private(&request.url)?;
        loop {
            let (headers, turn) = service.turn().await?;
            attempts.sent += 1;
            let response = match self.send(request, headers, attempts.sent > 1).await {
                Ok(response) => response,
                Err(error) => {
                    drop(turn);
                    let fault = root_cause(&error);
                    attempts.pause_after_fault(request, &fault, Code::ServiceUnavailable).await?;
                    continue;
                }
            };
            if response.status().is_success() {
                service.succeeded(&turn);
                if let Some(encoding) = foreign_encoding(response.headers()) {
                    let message = format!("{request} answered in `{encoding}` although plain bytes were asked for");
                    return Err(Error::new(Code::ServiceProtocol, message));
                }
                return Ok(Accepted::Good(response, turn));
            }
            let answer = match self.whole(response, limits::REFUSAL_BYTES).await {
                Ok(answer) => answer,
                Err(fault) => {
                    drop(turn);
                    attempts.pause_after_fault(request, &fault, Code::ServiceUnavailable).await?;
                    continue;
                }
            };
            let verdict = service.judge(request, &answer, &turn);
            drop(turn);
            let last = service.describe(&answer);
            debug!(%request, answer = %last, ?verdict, "the service refused");
            match verdict {
                Verdict::Answer => return Ok(Accepted::Refused(answer)),
                Verdict::Final(error) => return Err(error),
                Verdict::Again => attempts.pause_after_fault(request, &last, Code::ServiceUnavailable).await?,
                Verdict::SlowDown(wait) => attempts.pause_as_asked(self, request, &last, wait).await?,
                Verdict::Renewed => attempts.renewed(request, &last)?,
            }
        }
    }

    async fn send(
        &self,
        request: &Request,
        headers: HeaderMap,
        is_repeat: bool,
    ) -> Result<reqwest::Response, reqwest::Error> {
        self.count(|usage| {
            *usage.requests.entry(request.kind).or_default() += 1;
            usage.retries += u64::from(is_repeat);
        });
        let client = if is_local(&request.url) { &self.inner.local } else { &self.inner.remote };
        let mut builder = client
            .request(request.method.clone(), request.url.clone())
            .headers(request.headers.clone())
            .headers(headers)
            .header(ACCEPT_ENCODING, "identity")
            .header(CLIENT_REQUEST_ID, Uuid::new_v4().to_string());
        if request.method != Method::GET {
            builder = builder.header(CONTENT_LENGTH, request.body.len()).body(request.body.clone());
        }
        // The URL would bring the query into the error's text.
        builder.send().await.map_err(reqwest::Error::without_url)
    }

    /// Reads a body up to a limit.
    async fn whole(&self, mut response: reqwest::Response, bytes_max: usize) -> Result<Answer, String> {
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = BytesMut::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    self.inner.bytes_received.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                    body.extend_from_slice(&chunk);
                }
                Ok(None) => return Ok(Answer { status, headers, body: body.freeze() }),
                Err(error) => {
                    let cause = root_cause(&error.without_url());
                    return Err(format!(
                        "{} whose body broke off after {} bytes: {cause}",
                        status.as_u16(),
                        body.len()
                    ));
                }
            }
            if body.len() > bytes_max {
                if !status.is_success() {
                    // Only the beginning of a refusal is of interest.
                    body.truncate(bytes_max);
                    return Ok(Answer { status, headers, body: body.freeze() });
                }
                return Err(format!("{} with a body of more than {bytes_max} bytes", status.as_u16()));
            }
        }
    }

    fn body<T: Send + 'static>(&self, response: reqwest::Response, turn: T) -> Body {
        let announced =
            response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let http = self.clone();
        let bytes = async_stream::stream! {
            let _turn = turn;
            let mut received = 0u64;
            let mut chunks = response.bytes_stream();
            let of = announced.map(|all: u64| format!(" of {all}")).unwrap_or_default();
            while let Some(chunk) = chunks.next().await {
                match chunk {
                    Ok(chunk) => {
                        received += chunk.len() as u64;
                        http.inner.bytes_received.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                        yield Ok(chunk);
                    }
                    Err(error) => {
                        let error = error.without_url();
                        let message = format!("the connection broke off after {received}{of} bytes: {}", root_cause(&error));
                        yield Err(Error::new(Code::ContentUnreadable, message).caused_by(error));
                        return;
                    }
                }
            }
            if announced.is_some_and(|announced| announced != received) {
                yield Err(Error::new(Code::ContentUnreadable, format!("the body ended early, after {received}{of} bytes")));
            }
        };
        Body { announced_bytes: announced, bytes: bytes.boxed() }
    }

    fn count(&self, change: impl FnOnce(&mut Usage)) {
        change(&mut self.inner.usage.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Reads a JSON body; a byte order mark before it is no fault.
pub fn parse_json<T: serde::de::DeserializeOwned>(answer: &Answer) -> Result<T, String> {
    let body = answer.body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&answer.body);
    serde_json::from_slice(body).map_err(|error| format!("with a body that is not the expected JSON: {error}"))
}

enum Accepted<T> {
    Good(reqwest::Response, T),
    Refused(Answer),
}

/// How often one request was sent, and why again.
struct Attempts {
    began: Instant,
    sent: u32,
    faults: u32,
    faults_max: u32,
    throttles: u32,
    renewals: u32,
}

impl Attempts {
    fn new(faults_max: u32) -> Self {
        Self { began: Instant::now(), sent: 0, faults: 0, faults_max, throttles: 0, renewals: 0 }
    }

    async fn pause_after_fault(&mut self, request: &Request, last: &str, code: Code) -> Result<()> {
        self.faults += 1;
        if self.faults >= self.faults_max {
            return Err(self.gave_up(request, last, code));
        }
        let pause = backoff(self.faults);
        debug!(%request, last, pause_ms = pause.as_millis() as u64, attempt = self.sent, kind = request.kind, "trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    async fn pause_as_asked(
        &mut self,
        http: &Http,
        request: &Request,
        last: &str,
        wait: Option<Duration>,
    ) -> Result<()> {
        self.throttles += 1;
        http.count(|usage| usage.throttled += 1);
        if self.throttles >= limits::THROTTLED_ATTEMPTS {
            return Err(self.gave_up(request, last, Code::Throttled));
        }
        let own = backoff(self.throttles);
        let pause = match wait {
            // A little later than asked, so that not everybody comes back at the same moment; never earlier.
            Some(asked) => {
                asked.min(limits::RETRY_AFTER_MAX).max(limits::BACKOFF_START) + jitter(own.min(Duration::from_secs(1)))
            }
            None => own,
        };
        warn!(%request, last, pause_ms = pause.as_millis() as u64, "the service asks us to wait");
        tokio::time::sleep(pause).await;
        http.add_throttled(pause);
        Ok(())
    }

    /// New credentials may be tried twice: once because the old ones ended, once because they lacked a permission.
    fn renewed(&mut self, request: &Request, last: &str) -> Result<()> {
        self.renewals += 1;
        if self.renewals > 2 { Err(self.gave_up(request, last, Code::PermissionMissing)) } else { Ok(()) }
    }

    fn gave_up(&self, request: &Request, last: &str, code: Code) -> Error {
        let (sent, seconds) = (self.sent, self.began.elapsed().as_secs_f64());
        let times = if sent == 1 { "once".to_owned() } else { format!("{sent} times in {seconds:.1} s") };
        Error::new(code, format!("{request} failed {times}, last answer: {last}"))
    }
}

/// The n-th pause that we choose by ourselves: doubling, the upper half of it at random.
fn backoff(nth: u32) -> Duration {
    let doubled = limits::BACKOFF_START.saturating_mul(1u32.checked_shl(nth.saturating_sub(1)).unwrap_or(u32::MAX));
    let pause = doubled.min(limits::BACKOFF_MAX);
    pause / 2 + jitter(pause / 2)
}

/// A random part of a duration. The dice are those of a random id: nothing depends on them but politeness.
fn jitter(most: Duration) -> Duration {
    let (dice, _) = Uuid::new_v4().as_u64_pair();
    most.mul_f64((dice >> 32) as f64 / f64::from(u32::MAX))
}

/// Refuses to send anything unencrypted over a network.
///
/// # Errors
/// `configuration` for a URL that is neither `https` nor on this machine.
pub fn ensure_private(url: &Url) -> Result<()> {
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_local(url) => Ok(()),
        _ => {
            let origin = url.origin().ascii_serialization();
            Err(Error::new(
                Code::Configuration,
                format!("`{origin}` must be https (plain http is for this machine only)"),
            ))
        }
    }
}

/// Whether a URL stays on this machine (or is its own metadata service).
pub fn is_local(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host == INSTANCE_METADATA_HOST
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn foreign_encoding(headers: &HeaderMap) -> Option<String> {
    let encoding = headers.get(CONTENT_ENCODING)?.to_str().unwrap_or("?").trim().to_lowercase();
    (!encoding.is_empty() && encoding != "identity").then_some(encoding)
}

/// The innermost message of an error chain, which tells a person most: `connection refused`, not `error sending
/// request`.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    one_line(&innermost.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use axum::response::{IntoResponse, Response};

    use super::*;

    /// A service that takes every refusal for a fault, but 429.
    struct Plain;

    impl Service for Plain {
        type Turn = ();

        async fn turn(&self) -> Result<(HeaderMap, ())> {
            Ok((HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Bearer hunter2"))]), ()))
        }

        fn judge(&self, request: &Request, answer: &Answer, (): &()) -> Verdict {
            match answer.status.as_u16() {
                429 => Verdict::SlowDown(answer.retry_after(&Clock::System)),
                401 => Verdict::Renewed,
                404 => Verdict::Answer,
                400 => Verdict::Final(Error::new(Code::ServiceProtocol, format!("{request}: {}", answer.summary()))),
                _ => Verdict::Again,
            }
        }
    }

    /// A server that gives its answers in turn, the last one for ever.
    async fn serve(answers: Vec<Box<dyn Fn() -> Response + Send + Sync>>) -> (Url, Arc<AtomicU32>) {
        let count = Arc::new(AtomicU32::new(0));
        let asked = Arc::clone(&count);
        let answers = Arc::new(answers);
        let router = axum::Router::new().fallback(move || {
            let nth = asked.fetch_add(1, Ordering::SeqCst) as usize;
            let answer = answers[nth.min(answers.len() - 1)]();
            async move { answer }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/a/b?secret=hunter2", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (url, count)
    }

    fn status(status: u16, body: &'static str) -> Box<dyn Fn() -> Response + Send + Sync> {
        Box::new(move || (StatusCode::from_u16(status).unwrap(), body).into_response())
    }

    async fn get(url: Url) -> (Result<serde_json::Value>, Usage) {
        let http = Http::new().unwrap();
        let answer = http.json(&Request::get("test", url), &Plain).await;
        (answer, http.usage())
    }

    #[tokio::test]
    async fn faults_are_tried_again_with_growing_pauses() {
        let (url, count) =
            serve(vec![status(500, "busy"), status(200, "{\"cut\":"), status(200, "\u{feff}{\"a\":1}")]).await;
        let began = Instant::now();
        let (answer, usage) = get(url).await;
        assert_eq!(answer.unwrap(), serde_json::json!({"a": 1}));
        assert_eq!(
            (count.load(Ordering::SeqCst), usage.requests["test"], usage.retries, usage.throttled),
            (3, 3, 2, 0)
        );
        assert!(began.elapsed() >= limits::BACKOFF_START / 2 + limits::BACKOFF_START);
    }

    #[tokio::test]
    async fn a_wait_that_is_asked_for_is_kept_and_counted() {
        let wait: Box<dyn Fn() -> Response + Send + Sync> =
            Box::new(|| (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")], "slow").into_response());
        let (url, _) = serve(vec![wait, status(200, "1")]).await;
        let began = Instant::now();
        let (answer, usage) = get(url).await;
        assert_eq!(answer.unwrap(), 1);
        assert!(began.elapsed() >= Duration::from_secs(1));
        assert_eq!(usage.throttled, 1);
        assert!((1000..=2100).contains(&usage.throttled_ms), "{usage:?}");
    }

    #[tokio::test]
    async fn what_is_given_up_says_how_often_how_long_and_the_last_answer_and_no_secret() {
        let (url, count) = serve(vec![status(500, "line one\r\nline two")]).await;
        let host = format!("GET {}", url.host_str().unwrap());
        let (answer, _) = get(url).await;
        let error = answer.unwrap_err();
        let (first, last) = error.message().split_once(" failed 6 times in ").unwrap();
        assert_eq!(first, format!("{host}/a/b"));
        assert!(last.ends_with(" s, last answer: 500 line one line two"), "{last}");
        assert_eq!(error.code(), Code::ServiceUnavailable);
        assert!(!format!("{error:?}").contains("hunter2"));
        assert_eq!(count.load(Ordering::SeqCst), limits::ATTEMPTS);
    }

    #[tokio::test]
    async fn a_service_that_is_not_there_is_unavailable() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/a?secret=hunter2", listener.local_addr().unwrap())).unwrap();
        drop(listener);
        let error = get(url).await.0.unwrap_err();
        assert_eq!(error.code(), Code::ServiceUnavailable);
        assert!(error.message().to_lowercase().contains("connection refused"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn final_answers_are_not_asked_for_twice() {
        let (url, count) = serve(vec![status(400, "no")]).await;
        assert!(get(url).await.0.unwrap_err().message().ends_with("/a/b: 400 no"));
        assert_eq!(count.load(Ordering::SeqCst), 1);
        // Renewed credentials that never help.
        let (url, count) = serve(vec![status(401, "no")]).await;
        assert_eq!(get(url).await.0.unwrap_err().code(), Code::PermissionMissing);
        assert_eq!(count.load(Ordering::SeqCst), 3);
        // Nothing is followed, nothing is decompressed.
        let elsewhere: Box<dyn Fn() -> Response + Send + Sync> =
            Box::new(|| axum::response::Redirect::to("/c").into_response());
        let (url, _) = serve(vec![elsewhere, status(404, "1")]).await;
        assert_eq!(get(url).await.0.unwrap(), 1);
        let zipped: Box<dyn Fn() -> Response + Send + Sync> =
            Box::new(|| ([("content-encoding", "gzip")], "x").into_response());
        let (url, _) = serve(vec![zipped]).await;
        assert!(get(url).await.0.unwrap_err().message().contains("`gzip`"));
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        let ok = |text: &str| ensure_private(&Url::parse(text).unwrap()).is_ok();
        for url in [
            "https://x.example",
            "http://localhost:1",
            "http://127.0.0.9",
            "http://[::1]:2",
            "http://169.254.169.254/metadata",
        ] {
            assert!(ok(url), "{url}");
        }
        for url in [
            "http://x.example",
            "http://localhost.x.example",
            "http://10.0.0.1",
            "ftp://127.0.0.1",
            "file:///etc/passwd",
        ] {
            assert!(!ok(url), "{url}");
        }
    }
}
