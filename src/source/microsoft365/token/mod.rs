//! Access tokens: asked for once for everybody, and early.
//!
//! A token serves all requests to one resource. When four fifths of its life have passed, one request asks for the next
//! one while the others go on with the old; when it has ended, or the service does not accept it any more, all wait for
//! one request. Tokens that were issued before a consent lack its permissions until they end, so a permission error
//! makes one new token too, but only one: a mailbox that policy closes would otherwise cost a token per message.

use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use oauth2::basic::BasicClient;
use oauth2::{
    AsyncHttpClient, AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, RequestTokenError, Scope,
    TokenResponse, TokenUrl,
};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::warn;

use super::credential::{Credential, Proof};
use super::throttle::{Class, Refusal, classify, describe, locked};
use crate::clock::Clock;
use crate::error::{Code, Error, Result};
use crate::http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use crate::http::{Answer, Http, Method, Request, Service, Url, Verdict, one_line, parse_json};
use crate::limits;
use crate::secret::Secret;
use crate::source::Application;

/// The word under which token requests are counted.
const TOKEN: &str = "token";

/// The tokens of one resource.
pub(super) struct Tokens {
    http: Http,
    clock: Clock,
    application: Application,
    credential: Credential,
    token_url: Url,
    identity_url: Url,
    /// What the token is for, without a path: `https://graph.microsoft.com`.
    resource: String,
    state: Mutex<State>,
    /// One request at a time.
    asking: Semaphore,
    /// The generation of the newest token that the service accepted.
    worked: AtomicU64,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    generation: u64,
    /// Why the next token will be asked for.
    reason: Reason,
    last_failure: Option<(Instant, Code, String)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reason {
    #[default]
    Age,
    /// The service did not accept the one before.
    Rejected,
    /// The one before lacked a permission.
    Doubted,
}

struct Held {
    ticket: Ticket,
    reason: Reason,
    asked: Instant,
    refresh: Instant,
    ends: Instant,
}

/// A token, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    header: HeaderValue,
    pub(super) generation: u64,
}

impl Ticket {
    /// The headers that authorise a request.
    pub(super) fn headers(&self) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, self.header.clone())])
    }

    /// Whether the token names one of these permissions. For questions that can be left out, not for what has to work.
    pub(super) fn names_any(&self, permissions: &[&str]) -> bool {
        let token = self.header.to_str().ok().and_then(|header| header.strip_prefix("Bearer "));
        let roles = token.and_then(super::permissions::roles).unwrap_or_default();
        roles.iter().any(|role| permissions.contains(&role.as_str()))
    }
}

/// A token as an endpoint gives it.
struct Fresh {
    token: Secret<String>,
    life: Duration,
}

/// Where tokens come from and what they are for.
pub(super) struct TokenSettings<'a> {
    pub(super) application: Application,
    pub(super) credential: &'a Credential,
    pub(super) token_url: &'a Url,
    pub(super) identity_url: &'a Url,
    pub(super) resource: String,
}

impl Tokens {
    pub(super) fn new(http: Http, clock: Clock, settings: TokenSettings<'_>) -> Self {
        Self {
            http,
            clock,
            application: settings.application,
            credential: settings.credential.clone(),
            token_url: settings.token_url.clone(),
            identity_url: settings.identity_url.clone(),
            resource: settings.resource,
            state: Mutex::default(),
            asking: Semaphore::new(1),
            worked: AtomicU64::new(0),
        }
    }

    /// A token that works now.
    ///
    /// # Errors
    /// `secret-refused`, `secret-expired`, `application-missing`, `tenant-unknown`, `permission-missing`, `clock-skew`,
    /// `configuration`, or the service's failure.
    pub(super) async fn get(&self) -> Result<Ticket> {
        let came = Instant::now();
        let _turn = match self.held() {
            Some((ticket, true)) => return Ok(ticket),
            Some((ticket, false)) => match self.asking.try_acquire() {
                Ok(turn) => turn,
                Err(_) => return Ok(ticket),
            },
            None => {
                self.asking.acquire().await.map_err(|_| Error::new(Code::Internal, "the token's turn was closed"))?
            }
        };
        // While we waited, somebody else may have got a token, or an answer that is ours too.
        if let Some((ticket, true)) = self.held() {
            return Ok(ticket);
        }
        if let Some((_, code, message)) = locked(&self.state).last_failure.as_ref().filter(|(at, ..)| *at >= came) {
            return Err(Error::new(*code, message.clone()));
        }
        // A token's life begins before its answer comes.
        let asked = Instant::now();
        match self.ask().await {
            Ok(fresh) => self.keep(fresh, asked),
            Err(error) => match self.held() {
                Some((ticket, _)) => {
                    warn!(resource = %self.resource, error = %error, "cannot renew the token early, the old one still works");
                    Ok(ticket)
                }
                None => {
                    locked(&self.state).last_failure = Some((Instant::now(), error.code(), error.message().to_owned()));
                    Err(error)
                }
            },
        }
    }

    /// The permissions that a new token names; nothing when it does not tell. The token is used from here on.
    ///
    /// # Errors
    /// Like [`Tokens::get`].
    pub(super) async fn roles(&self) -> Result<Option<Vec<String>>> {
        let asked = Instant::now();
        let fresh = self.ask().await?;
        let roles = super::permissions::roles(fresh.token.expose());
        self.keep(fresh, asked)?;
        Ok(roles)
    }

    /// Says that the service accepts a token.
    pub(super) fn accept(&self, generation: u64) {
        self.worked.fetch_max(generation, Ordering::Relaxed);
    }

    /// Says that the service does not accept a token. Gives whether asking again with a new one is worth it.
    pub(super) fn reject(&self, generation: u64) -> bool {
        let mut state = locked(&self.state);
        match &state.held {
            Some(held) if held.ticket.generation == generation => {
                // A token that was made because the one before was rejected, and is rejected as well. One that was
                // accepted before is another matter: it was revoked.
                let has_worked = self.worked.load(Ordering::Relaxed) >= generation;
                if held.reason == Reason::Rejected && !has_worked && held.asked.elapsed() < Duration::from_secs(60) {
                    return false;
                }
                state.held = None;
                state.reason = Reason::Rejected;
                true
            }
            _ => true,
        }
    }

    /// Says that a token lacks a permission. Gives whether asking again with a new one is worth it.
    pub(super) fn doubt(&self, generation: u64) -> bool {
        let mut state = locked(&self.state);
        match &state.held {
            Some(held) if held.ticket.generation == generation => {
                if held.reason == Reason::Doubted {
                    return false;
                }
                state.held = None;
                state.reason = Reason::Doubted;
                true
            }
            _ => true,
        }
    }

    /// The token in hand, and whether it is young.
    fn held(&self) -> Option<(Ticket, bool)> {
        let state = locked(&self.state);
        let held = state.held.as_ref()?;
        let now = Instant::now();
        (now < held.ends).then(|| (held.ticket.clone(), now < held.refresh))
    }

    fn keep(&self, fresh: Fresh, asked: Instant) -> Result<Ticket> {
        let mut header = HeaderValue::from_str(&format!("Bearer {}", fresh.token.expose())).map_err(|_| {
            Error::new(Code::ServiceProtocol, "the token endpoint gave a token that no header can carry")
        })?;
        header.set_sensitive(true);
        let mut state = locked(&self.state);
        state.generation += 1;
        let ticket = Ticket { header, generation: state.generation };
        state.held = Some(Held {
            ticket: ticket.clone(),
            reason: std::mem::take(&mut state.reason),
            asked,
            refresh: asked + fresh.life * limits::TOKEN_REFRESH_PERCENT / 100,
            ends: asked + fresh.life,
        });
        Ok(ticket)
    }

    async fn ask(&self) -> Result<Fresh> {
        match self.credential.proof(self.application.client_id, self.token_url.as_str(), &self.clock)? {
            Proof::Machine => self.ask_machine().await,
            proof => self.ask_entra(proof).await,
        }
    }

    /// The client-credentials grant of OAuth 2.
    async fn ask_entra(&self, proof: Proof) -> Result<Fresh> {
        let token_url = TokenUrl::new(self.token_url.to_string()).map_err(|error| {
            Error::new(Code::Configuration, format!("`{}` is no token endpoint: {error}", self.token_url))
        })?;
        let mut client = BasicClient::new(ClientId::new(self.application.client_id.to_string()))
            .set_auth_type(AuthType::RequestBody)
            .set_token_uri(token_url);
        if let Proof::Secret(secret) = &proof {
            client = client.set_client_secret(ClientSecret::new(secret.expose().clone()));
        }
        let mut grant =
            client.exchange_client_credentials().add_scope(Scope::new(format!("{}/.default", self.resource)));
        if let Proof::Assertion(assertion) = proof {
            grant = grant
                .add_extra_param("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
                .add_extra_param("client_assertion", assertion.expose().clone());
        }
        let answer = grant.request_async(self).await;
        let answer = answer.map_err(|failure| match failure {
            RequestTokenError::Request(error) => error,
            RequestTokenError::ServerResponse(refusal) => {
                let description = refusal.error_description().map_or("", String::as_str);
                refused(refusal.error().as_ref(), description)
            }
            RequestTokenError::Parse(error, _) => {
                Error::new(Code::ServiceProtocol, format!("the token endpoint's answer cannot be read: {error}"))
            }
            RequestTokenError::Other(problem) => {
                Error::new(Code::ServiceProtocol, format!("the token endpoint: {problem}"))
            }
        })?;
        Ok(Fresh {
            token: Secret::new(answer.access_token().secret().clone()),
            life: answer.expires_in().unwrap_or(limits::TOKEN_LIFE),
        })
    }

    /// Carries a request of the `oauth2` crate over our client, with its retries and counters.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse> {
        let (parts, body) = request.into_parts();
        if parts.method != Method::POST {
            return Err(Error::new(Code::Internal, "a token is asked for by POST"));
        }
        let mut own = Request::post(TOKEN, self.token_url.clone(), body.into());
        for (name, value) in &parts.headers {
            own = own.header(name.clone(), value.clone());
        }
        let answer = self.http.read(&own, &TokenService { clock: &self.clock }, whole).await?;
        // Without its headers: a content type that is not quite right is no reason to refuse a token.
        let mut response = HttpResponse::new(answer.body.to_vec());
        *response.status_mut() = answer.status;
        Ok(response)
    }

    /// The metadata service of the Azure machine on which we run.
    async fn ask_machine(&self) -> Result<Fresh> {
        #[derive(Deserialize)]
        struct MachineToken {
            access_token: String,
            expires_in: serde_json::Value,
        }
        let mut url = self.identity_url.clone();
        url.query_pairs_mut()
            .append_pair("api-version", "2018-02-01")
            .append_pair("resource", &self.resource)
            .append_pair("client_id", &self.application.client_id.to_string());
        let request =
            Request::get(TOKEN, url).header(HeaderName::from_static("metadata"), HeaderValue::from_static("true"));
        let answer = self.http.read(&request, &TokenService { clock: &self.clock }, whole).await?;
        if !answer.status.is_success() {
            let last = describe(&answer);
            return Err(Error::new(
                Code::SecretRefused,
                format!("the machine's metadata service gives no token: {last}"),
            ));
        }
        let token: MachineToken = serde_json::from_slice(&answer.body).map_err(|error| {
            Error::new(Code::ServiceProtocol, format!("the metadata service's answer cannot be read: {error}"))
        })?;
        // A number in a string, as version 1 of the endpoint gives it.
        let life =
            token.expires_in.as_u64().or_else(|| token.expires_in.as_str().and_then(|text| u64::from_str(text).ok()));
        Ok(Fresh { token: Secret::new(token.access_token), life: life.map_or(limits::TOKEN_LIFE, Duration::from_secs) })
    }
}

impl<'c> AsyncHttpClient<'c> for Tokens {
    type Error = Error;
    type Future = BoxFuture<'c, Result<HttpResponse>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

struct TokenService<'a> {
    clock: &'a Clock,
}

impl Service for TokenService<'_> {
    type Turn = ();

    async fn turn(&self) -> Result<(HeaderMap, ())> {
        Ok((HeaderMap::new(), ()))
    }

    fn judge(&self, _request: &Request, answer: &Answer, (): &()) -> Verdict {
        let refusal = Refusal::read(answer);
        match (aadsts(&refusal.message), classify(answer, &refusal, self.clock)) {
            (_, Class::SlowDown(wait)) => Verdict::SlowDown(wait),
            // Tenant throttled; the same request in a loop.
            (Some(90_055 | 50_196), _) => Verdict::SlowDown(answer.retry_after(self.clock)),
            (Some(90_006 | 90_012 | 90_024 | 90_033 | 90_090), _) => Verdict::Again,
            (_, Class::Fault) => Verdict::Again,
            (_, Class::Unauthorized | Class::Other) => Verdict::Answer,
        }
    }

    fn describe(&self, answer: &Answer) -> String {
        describe(answer)
    }
}

/// Takes an answer as it is; a token that was cut is a fault.
fn whole(answer: &Answer) -> Result<Answer, String> {
    if answer.status.is_success() {
        parse_json::<serde::de::IgnoredAny>(answer)?;
    }
    Ok(answer.clone())
}

/// The number of Entra's error: the only useful hint for a person, although Microsoft asks to branch on `error`.
fn aadsts(description: &str) -> Option<u32> {
    let (_, rest) = description.split_once("AADSTS")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

/// What a refusal of the token endpoint means.
fn refused(error: &str, description: &str) -> Error {
    let (code, what) = match aadsts(description) {
        Some(7_000_222) => (Code::SecretExpired, "the client secret has expired"),
        Some(700_027) if description.contains("expired") => (Code::CertificateExpired, "the certificate has expired"),
        Some(7_000_215) => (Code::SecretRefused, "Microsoft Entra does not accept the client secret"),
        Some(7_000_218) => {
            (Code::SecretRefused, "Microsoft Entra found neither a secret nor an assertion in the request")
        }
        Some(700_027 | 50_012) => (Code::SecretRefused, "Microsoft Entra does not accept the certificate"),
        Some(70_021 | 700_211 | 700_213) => {
            (Code::SecretRefused, "no federated credential of the application matches the identity")
        }
        Some(500_133 | 50_013 | 700_024) => {
            (Code::ClockSkew, "the assertion is outside of its time in the eyes of Microsoft Entra")
        }
        Some(700_016) => (Code::ApplicationMissing, "the application does not exist in the tenant"),
        Some(7_000_112) => (Code::ApplicationMissing, "the application is disabled in the tenant"),
        Some(90_002 | 900_023 | 90_038 | 900_382 | 900_432) => {
            (Code::TenantUnknown, "the tenant does not exist in this cloud")
        }
        Some(500_011) => (Code::ConsentMissing, "the tenant does not know the service for which a token was asked"),
        Some(65_001 | 65_004 | 650_051 | 90_094) => (Code::ConsentMissing, "nobody consented to the application"),
        Some(53_003) => (Code::PermissionMissing, "a Conditional Access policy blocks the application"),
        _ => match error {
            "invalid_client" => (Code::SecretRefused, "Microsoft Entra does not accept the credential"),
            "unauthorized_client" => (Code::ApplicationMissing, "Microsoft Entra does not accept the application"),
            "consent_required" | "interaction_required" => {
                (Code::ConsentMissing, "nobody consented to the application")
            }
            _ => (Code::ServiceProtocol, "Microsoft Entra refused the token request"),
        },
    };
    // Behind the sentence stand ids and the time, on lines of their own in older texts and after blanks in newer ones.
    let sentence =
        description.split(" Trace ID:").next().and_then(|text| text.split("\r\n").next()).unwrap_or_default();
    Error::new(code, format!("{what}: {}", one_line(&format!("{error} {sentence}"))))
}

#[cfg(test)]
mod tests;
