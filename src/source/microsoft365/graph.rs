//! Graph: how a request is built, whose turn it is, and what a refusal means.

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::OwnedSemaphorePermit;

use super::throttle::{Class, LimiterTurn, MailboxGate, Refusal, classify, describe, is_permission_refusal};
use super::{Tenant, is_same_service};
use crate::error::{Code, Error, Result};
use crate::http::header::{HeaderMap, HeaderName, HeaderValue};
use crate::http::{Answer, Request, Service, StatusCode, Url, Verdict};
use crate::limits;

/// Everything but what RFC 3986 lets stand anywhere: a `+` that is not encoded finds nothing
/// (microsoft-graph-docs#4101).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Graph's word for the bytes of a thing.
pub(super) const VALUE: &str = "$value";

/// What was asked for, which decides what "not found" means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Something of a mailbox as a whole.
    Mailbox,
    /// A message that was there a moment ago.
    Message,
    /// The bytes of an attachment.
    Attachment,
    /// Something of the directory.
    Directory,
}

/// Graph as seen by one request.
pub(super) struct Graph<'a> {
    tenant: &'a Tenant,
    asked: Asked,
    mailbox: Option<(&'a str, Arc<MailboxGate>)>,
}

/// What a Graph request holds while it runs and its body flows.
pub(super) struct GraphTurn {
    generation: u64,
    limiter: LimiterTurn,
    _mailbox: Option<OwnedSemaphorePermit>,
}

impl Tenant {
    pub(super) fn graph_mail<'a>(&'a self, asked: Asked, mailbox: &'a str) -> Graph<'a> {
        Graph { tenant: self, asked, mailbox: Some((mailbox, self.mailboxes.gate(mailbox))) }
    }

    pub(super) fn graph_directory(&self) -> Graph<'_> {
        Graph { tenant: self, asked: Asked::Directory, mailbox: None }
    }

    /// Builds a URL from unencoded parts.
    pub(super) fn graph_url(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Url> {
        let mut text = self.endpoints.graph.to_string();
        for part in path {
            if part.is_empty() || part.chars().all(|c| c == '.') {
                // A URL parser would take `..` for a step up, encoded or not.
                return Err(Error::new(
                    Code::MailboxMissing,
                    format!("`{part}` cannot be the name of a mailbox or of anything in it"),
                ));
            }
            text.push('/');
            // `$value` is Graph's word and arrives as it is; a mailbox's name that begins with `$` must be encoded.
            match *part {
                VALUE => text.push_str(VALUE),
                name => text.extend(utf8_percent_encode(name, ENCODED)),
            }
        }
        for (index, (name, value)) in query.iter().enumerate() {
            text.push(if index == 0 { '?' } else { '&' });
            text.push_str(name);
            text.push('=');
            text.extend(utf8_percent_encode(value, ENCODED));
        }
        Url::parse(&text).map_err(|error| Error::new(Code::Internal, format!("`{text}` is no URL: {error}")))
    }

    /// Checks a link of the service to a further page.
    pub(super) fn graph_link(&self, link: &str) -> Result<Url> {
        let url = Url::parse(link).map_err(|error| {
            Error::new(Code::ServiceProtocol, format!("graph gives a link to a further page that is no URL: {error}"))
        })?;
        if is_same_service(&url, &self.endpoints.graph) {
            return Ok(url);
        }
        let (given, asked) = (url.origin().ascii_serialization(), self.endpoints.graph.origin().ascii_serialization());
        let message = format!("graph at `{asked}` gives a link to `{given}`, which must not get the token");
        Err(Error::new(Code::ServiceProtocol, message))
    }
}

/// Doubles the quotes of a text inside a filter.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Asks for ids that survive a move inside the mailbox; it must stand on every request of a chain.
pub(super) fn with_immutable_ids(request: Request) -> Request {
    request.header(HeaderName::from_static("prefer"), HeaderValue::from_static("IdType=\"ImmutableId\""))
}

impl Service for Graph<'_> {
    type Turn = GraphTurn;

    async fn turn(&self) -> Result<(HeaderMap, GraphTurn)> {
        // The mailbox first: a turn of the application must not wait for a busy mailbox while others could use it.
        let mailbox = match &self.mailbox {
            Some((_, gate)) => {
                let (turn, waited) = gate.enter().await?;
                if !waited.is_zero() {
                    self.tenant.http.add_throttled(waited);
                }
                Some(turn)
            }
            None => None,
        };
        let limiter = self.tenant.graph_limiter.enter().await?;
        let ticket = self.tenant.graph_tokens.get().await?;
        Ok((ticket.headers(), GraphTurn { generation: ticket.generation, limiter, _mailbox: mailbox }))
    }

    fn succeeded(&self, turn: &GraphTurn) {
        turn.limiter.succeeded();
        self.tenant.graph_tokens.accept(turn.generation);
    }

    fn judge(&self, request: &Request, answer: &Answer, turn: &GraphTurn) -> Verdict {
        let refusal = Refusal::read(answer);
        match classify(answer, &refusal, &self.tenant.clock) {
            Class::SlowDown(wait) => {
                turn.limiter.was_refused();
                if let Some((_, gate)) = &self.mailbox {
                    gate.pause.extend(wait.unwrap_or(limits::BACKOFF_START));
                }
                Verdict::SlowDown(wait)
            }
            Class::Fault => Verdict::Again,
            Class::Unauthorized if self.tenant.graph_tokens.reject(turn.generation) => Verdict::Renewed,
            Class::Unauthorized => {
                let message = format!("{request}: graph does not accept a fresh token: {}", describe(answer));
                Verdict::Final(Error::new(Code::PermissionMissing, message))
            }
            Class::Other
                if is_permission_refusal(answer, &refusal) && self.tenant.graph_tokens.doubt(turn.generation) =>
            {
                Verdict::Renewed
            }
            Class::Other if self.asked == Asked::Directory && answer.status == StatusCode::NOT_FOUND => Verdict::Answer,
            Class::Other => Verdict::Final(self.refused(request, answer, &refusal)),
        }
    }

    fn describe(&self, answer: &Answer) -> String {
        describe(answer)
    }

    fn attempts(&self) -> u32 {
        match self.asked {
            // Rendering a large attachment takes the service up to 30 s before it fails: later is better than again.
            Asked::Attachment => limits::HASH_ATTEMPTS,
            Asked::Mailbox | Asked::Message | Asked::Directory => limits::ATTEMPTS,
        }
    }
}

impl Graph<'_> {
    fn refused(&self, request: &Request, answer: &Answer, refusal: &Refusal) -> Error {
        let mailbox = self.mailbox.as_ref().map_or("", |(name, _)| *name);
        let last = describe(answer);
        match (answer.status.as_u16(), refusal.code.as_str()) {
            (_, "Authorization_RequestDenied") => {
                Error::new(Code::PermissionMissing, format!("graph refuses {request} for lack of a permission: {last}"))
            }
            (403, _) if self.mailbox.is_some() => {
                Error::new(Code::MailboxDenied, format!("the application may not read the mailbox `{mailbox}`: {last}"))
            }
            (403, _) => Error::new(Code::PermissionMissing, format!("graph refuses {request}: {last}")),
            // One mailbox may alternate between the first two (microsoft-graph-docs#10481).
            (
                404,
                "MailboxNotEnabledForRESTAPI"
                | "ResourceNotFound"
                | "ErrorInvalidUser"
                | "Request_ResourceNotFound"
                | "ErrorNonExistentMailbox"
                | "MailboxNotFound",
            ) if self.mailbox.is_some() => {
                Error::new(Code::MailboxMissing, format!("there is no mailbox `{mailbox}` in the cloud: {last}"))
            }
            (404 | 410, _) => match self.asked {
                Asked::Message | Asked::Attachment => Error::new(
                    Code::MessageMissing,
                    format!("the message is no longer in the mailbox `{mailbox}`: {last}"),
                ),
                Asked::Mailbox => {
                    Error::new(Code::MailboxMissing, format!("the mailbox `{mailbox}` cannot be found: {last}"))
                }
                Asked::Directory => Error::new(Code::ServiceProtocol, format!("graph does not know {request}: {last}")),
            },
            (405, _) if self.asked == Asked::Attachment => {
                Error::new(Code::AttachmentHasNoBytes, format!("the attachment has no bytes of its own: {last}"))
            }
            _ if self.asked == Asked::Attachment => {
                Error::new(Code::AttachmentUnreadable, format!("graph does not give the attachment: {last}"))
            }
            _ => Error::new(Code::ServiceProtocol, format!("graph does not understand {request}: {last}")),
        }
    }
}
