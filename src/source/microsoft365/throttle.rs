//! Which answers mean "wait", and the limits that Waybill keeps so that there are few of them.
//!
//! Microsoft throttles in many forms: 429 with and without `Retry-After`, 503 with it, and, in the activity feed, 403
//! with a code `AF429` in the body. So the error's code is looked at before the status. Three things keep us below
//! the limits: at most four requests at once on a mailbox, a pause of a mailbox or service that asked for one, and a
//! number of requests at once over all mailboxes that grows slowly and is halved by each refusal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::error::{Code, Error, Result};
use crate::http::{Answer, StatusCode, one_line};
use crate::limits;

/// An error document: a code that may be a whole sentence, and a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: String,
    pub(super) message: String,
}

impl Refusal {
    /// Reads the error documents of the feed, of Graph, of Entra and of ASP.NET; anything else becomes the message.
    pub(super) fn read(answer: &Answer) -> Self {
        let body = answer.body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&answer.body);
        let document: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |value: Option<&Value>| match value {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let refusal = match document.get("error") {
            Some(Value::Object(error)) => Self { code: text(error.get("code")), message: text(error.get("message")) },
            Some(Value::String(error)) => {
                Self { code: error.clone(), message: text(document.get("error_description")) }
            }
            _ => {
                Self { code: String::new(), message: text(document.get("Message").or_else(|| document.get("message"))) }
            }
        };
        if !refusal.code.is_empty() || !refusal.message.is_empty() {
            return refusal;
        }
        // Some of the feed's documents are quoted with `'` and are no JSON.
        let raw = String::from_utf8_lossy(body);
        let code = raw.find("'AF").map(|at| raw[at + 1..].split('\'').next().unwrap_or_default().to_owned());
        Self { code: code.unwrap_or_default(), message: one_line(&raw) }
    }

    /// Whether any part of the document holds a text; the feed cuts its own sentences between code and message.
    pub(super) fn mentions(&self, text: &str) -> bool {
        self.code.contains(text) || self.message.contains(text)
    }
}

/// One line about an answer for messages: status, code, message.
pub(super) fn describe(answer: &Answer) -> String {
    let Refusal { code, message } = Refusal::read(answer);
    one_line(&format!("{} {code} {message}", answer.status.as_u16()))
}

/// What an answer means for the request, whatever the service.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Wait, then ask again.
    SlowDown(Option<Duration>),
    /// A fault that may pass.
    Fault,
    /// The token is not accepted.
    Unauthorized,
    /// Depends on what was asked.
    Other,
}

/// Sorts an answer, by its code before its status.
pub(super) fn classify(answer: &Answer, refusal: &Refusal, clock: &Clock) -> Class {
    let wait = answer.retry_after(clock);
    match (refusal.code.as_str(), answer.status.as_u16()) {
        ("AF429" | "TooManyRequests" | "ApplicationThrottled" | "activityLimitReached" | "throttledRequest", _)
        | (_, 429 | 509) => Class::SlowDown(wait.or_else(|| hinted_wait(&refusal.message))),
        (_, 503) if wait.is_some() => Class::SlowDown(wait),
        ("AF50000" | "AF50005" | "AF50006" | "temporarily_unavailable", _) => Class::Fault,
        (_, 408 | 500 | 502 | 503 | 504 | 507) => Class::Fault,
        (_, 401) => Class::Unauthorized,
        _ => Class::Other,
    }
}

/// Reads `Please retry again after 8m 46s.`
pub(super) fn hinted_wait(message: &str) -> Option<Duration> {
    let (_, hint) = message.split_once("after ")?;
    let mut wait = 0;
    for word in hint.split_whitespace().map(|word| word.trim_end_matches('.')) {
        wait += match (word.strip_suffix('m'), word.strip_suffix('s')) {
            (Some(minutes), _) => minutes.parse::<u64>().ok()?.checked_mul(60)?,
            (_, Some(seconds)) => seconds.parse::<u64>().ok()?,
            _ => break,
        };
    }
    (wait > 0).then(|| Duration::from_secs(wait))
}

/// A time until which nobody asks.
#[derive(Debug, Default)]
pub(super) struct Pause {
    until: Mutex<Option<Instant>>,
}

impl Pause {
    pub(super) fn extend(&self, wait: Duration) {
        let until = Instant::now() + wait.min(limits::RETRY_AFTER_MAX);
        let mut held = locked(&self.until);
        *held = Some(held.map_or(until, |held| held.max(until)));
    }

    /// Waits it out, and tells how long that took.
    pub(super) async fn wait(&self) -> Duration {
        let began = Instant::now();
        loop {
            let until = *locked(&self.until);
            match until {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                _ => return began.elapsed(),
            }
        }
    }

    fn is_over(&self) -> bool {
        locked(&self.until).is_none_or(|until| until <= Instant::now())
    }
}

/// One mailbox: who may ask now.
#[derive(Debug)]
pub(super) struct MailboxGate {
    turns: Arc<Semaphore>,
    pub(super) pause: Pause,
}

/// The mailboxes that were asked, by name in lower case.
#[derive(Debug, Default)]
pub(super) struct Mailboxes {
    gates: Mutex<HashMap<String, Arc<MailboxGate>>>,
}

impl Mailboxes {
    pub(super) fn gate(&self, mailbox: &str) -> Arc<MailboxGate> {
        let mut gates = locked(&self.gates);
        if gates.len() >= limits::MAILBOXES_REMEMBERED {
            gates.retain(|_, gate| Arc::strong_count(gate) > 1 || !gate.pause.is_over());
        }
        let new = || {
            Arc::new(MailboxGate {
                turns: Arc::new(Semaphore::new(limits::REQUESTS_PER_MAILBOX)),
                pause: Pause::default(),
            })
        };
        Arc::clone(gates.entry(mailbox.to_lowercase()).or_insert_with(new))
    }
}

impl MailboxGate {
    /// One of the mailbox's turns, after its pause.
    pub(super) async fn enter(&self) -> Result<(OwnedSemaphorePermit, Duration)> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|_| Error::new(Code::Internal, "the mailbox's turns were closed"))?;
        Ok((turn, self.pause.wait().await))
    }
}

/// How many requests run at once over all mailboxes: one more after each round without refusal, half after a refusal.
///
/// Microsoft's pages disagree on whether the limit of four holds per mailbox or per application, and both have been
/// seen in force; so the service's own refusals decide.
#[derive(Debug)]
pub(super) struct Limiter {
    turns: Arc<Semaphore>,
    state: Mutex<LimiterState>,
}

#[derive(Debug)]
struct LimiterState {
    limit: usize,
    /// Turns that are still out although the limit was lowered below them; they do not come back.
    surplus: usize,
    /// Successes since the limit last changed.
    successes: usize,
    /// Requests that began before this do not lower the limit again: they ran under the old one.
    lowered: Option<Instant>,
}

/// A turn at the limiter.
#[derive(Debug)]
pub(super) struct LimiterTurn {
    limiter: Arc<Limiter>,
    turn: Option<OwnedSemaphorePermit>,
    began: Instant,
}

impl Limiter {
    pub(super) fn new() -> Self {
        let limit = limits::GRAPH_REQUESTS_START;
        let state = LimiterState { limit, surplus: 0, successes: 0, lowered: None };
        Self { turns: Arc::new(Semaphore::new(limit)), state: Mutex::new(state) }
    }

    pub(super) async fn enter(self: &Arc<Self>) -> Result<LimiterTurn> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|_| Error::new(Code::Internal, "the limiter was closed"))?;
        Ok(LimiterTurn { limiter: Arc::clone(self), turn: Some(turn), began: Instant::now() })
    }

    #[cfg(test)]
    pub(super) fn limit(&self) -> usize {
        locked(&self.state).limit
    }
}

impl LimiterTurn {
    pub(super) fn succeeded(&self) {
        let mut state = locked(&self.limiter.state);
        state.successes += 1;
        if state.successes < state.limit || state.limit >= limits::GRAPH_REQUESTS_MAX {
            return;
        }
        state.successes = 0;
        state.limit += 1;
        if state.surplus > 0 {
            state.surplus -= 1;
        } else {
            self.limiter.turns.add_permits(1);
        }
    }

    pub(super) fn was_refused(&self) {
        let mut state = locked(&self.limiter.state);
        state.successes = 0;
        if state.lowered.is_some_and(|lowered| self.began <= lowered) {
            return;
        }
        state.lowered = Some(Instant::now());
        let lower = (state.limit / 2).max(limits::GRAPH_REQUESTS_MIN);
        let fewer = state.limit - lower;
        state.limit = lower;
        state.surplus += fewer - self.limiter.turns.forget_permits(fewer);
    }
}

impl Drop for LimiterTurn {
    fn drop(&mut self) {
        let mut state = locked(&self.limiter.state);
        if state.surplus > 0 {
            state.surplus -= 1;
            if let Some(turn) = self.turn.take() {
                turn.forget();
            }
        }
    }
}

/// The refusals of a missing permission, which a token from before the consent gets too.
pub(super) fn is_permission_refusal(answer: &Answer, refusal: &Refusal) -> bool {
    refusal.code == "AF10001" || (answer.status == StatusCode::FORBIDDEN && refusal.code != "429")
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::header::{HeaderMap, HeaderValue};

    fn answer(status: u16, body: &str, headers: &[(&'static str, &str)]) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        Answer { status: StatusCode::from_u16(status).unwrap(), headers: map, body: body.to_owned().into() }
    }

    #[test]
    fn the_code_in_the_body_decides_before_the_status() {
        let clock = Clock::System;
        let class = |answer: &Answer| classify(answer, &Refusal::read(answer), &clock);
        let seconds = |s| Class::SlowDown(Some(Duration::from_secs(s)));
        assert_eq!(
            class(&answer(403, r#"{"error":{"code":"AF429","message":"Too many"}}"#, &[])),
            Class::SlowDown(None)
        );
        assert_eq!(
            class(&answer(403, r"{'error':{'code':'AF429','message':'Too many requests.'}}", &[])),
            Class::SlowDown(None)
        );
        assert_eq!(class(&answer(429, "", &[("retry-after", "7")])), seconds(7));
        assert_eq!(class(&answer(429, "<html>", &[])), Class::SlowDown(None));
        assert_eq!(class(&answer(503, "", &[("retry-after", "2")])), seconds(2));
        assert_eq!(class(&answer(503, "", &[])), Class::Fault);
        assert_eq!(class(&answer(400, r#"{"error":{"code":"AF50000","message":""}}"#, &[])), Class::Fault);
        assert_eq!(class(&answer(504, r#"{"error":{"code":"UnknownError","message":""}}"#, &[])), Class::Fault);
        assert_eq!(
            class(&answer(401, r#"{"Message":"Authorization has been denied for this request."}"#, &[])),
            Class::Unauthorized
        );
        assert_eq!(class(&answer(404, r#"{"error":{"code":"ErrorItemNotFound","message":""}}"#, &[])), Class::Other);
        let date = [("date", "Mon, 23 Nov 2026 15:00:00 GMT"), ("retry-after", "Mon, 23 Nov 2026 15:01:30 GMT")];
        assert_eq!(class(&answer(429, "", &date)), seconds(90));
    }

    #[test]
    fn a_wait_is_read_from_a_sentence() {
        let message = "Too many frequent subscription start requests. Please retry again after 8m 46s.";
        assert_eq!(hinted_wait(message), Some(Duration::from_secs(526)));
        assert_eq!(hinted_wait("Please retry after 12s."), Some(Duration::from_secs(12)));
        assert_eq!(hinted_wait("wait, after all"), None);
    }

    #[tokio::test]
    async fn a_refusal_halves_the_limit_once_per_round_and_success_raises_it_slowly() {
        let later = || tokio::time::sleep(Duration::from_millis(2));
        let limiter = Arc::new(Limiter::new());
        let mut turns = Vec::new();
        for _ in 0..limits::GRAPH_REQUESTS_START {
            turns.push(limiter.enter().await.unwrap());
        }
        later().await;
        turns.iter().for_each(LimiterTurn::was_refused);
        assert_eq!(limiter.limit(), limits::GRAPH_REQUESTS_START / 2);
        turns.clear();
        assert_eq!(limiter.turns.available_permits(), limiter.limit());
        for _ in 0..20 {
            later().await;
            limiter.enter().await.unwrap().was_refused();
        }
        assert_eq!(limiter.limit(), limits::GRAPH_REQUESTS_MIN);
        for _ in 0..2 + 3 {
            limiter.enter().await.unwrap().succeeded();
        }
        assert_eq!(limiter.limit(), limits::GRAPH_REQUESTS_MIN + 2);
        assert_eq!(limiter.turns.available_permits(), limiter.limit());
    }

    #[tokio::test]
    async fn a_mailbox_has_four_turns_whatever_the_case_of_its_name() {
        let soon = Duration::from_millis(30);
        let mailboxes = Mailboxes::default();
        let mut turns = Vec::new();
        for name in ["Ann@x.org", "ann@x.org", "ANN@X.ORG", "ann@X.org"] {
            turns.push(mailboxes.gate(name).enter().await.unwrap());
        }
        let gate = mailboxes.gate("ann@x.org");
        assert!(tokio::time::timeout(soon, gate.enter()).await.is_err());
        gate.pause.extend(soon * 4);
        turns.pop();
        assert!(tokio::time::timeout(soon, gate.enter()).await.is_err());
        assert!(gate.enter().await.unwrap().1 > Duration::ZERO);
        assert!(mailboxes.gate("bob@x.org").enter().await.unwrap().1 < soon);
    }
}
