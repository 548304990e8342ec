//! Who asks, and what they may do.
//!
//! | who | how | role |
//! |---|---|---|
//! | a person | signed in with the organisation's account (`oidc`), remembered by a cookie (`session`) | from the account |
//! | a program | `Authorization: Bearer wb_…`, or Basic with the token's name (`token`) | the token's |
//! | whoever is at this machine | nothing, when the server listens on loopback and no sign-in is configured | `admin` |
//!
//! A cookie is sent by browsers whichever page makes them ask, so a change needs more than the cookie: [`guard`] looks at
//! where the request comes from, and [`Form`](super::form::Form) at the token that only our own pages know.

mod oidc;
mod session;
pub(crate) mod token;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Query, Request, State};
use axum::http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue, ORIGIN, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{Extensions, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use maud::html;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use self::oidc::Provider;
use self::session::{Attempts, Sessions};
use self::token::{ApiToken, Tokens};
use super::console::layout::{Page, page};
use super::form::Form;
use super::headers::Site;
use super::listen::Peer;
use super::problem::Problem;
use super::{Config, Server, Shared};
use crate::clock::Clock;
use crate::error::{Code, Error, Result};
use crate::http::{Http, one_line};
use crate::search::{Asker, Policy, Surface};
use crate::secret::Secret;

/// What somebody may do; each role includes the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees the connections and their state.
    Viewer,
    /// Searches what was recorded.
    Analyst,
    /// Changes what is monitored.
    Admin,
}

impl Role {
    /// Every role, the lowest first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Analyst, Self::Admin];

    /// The word for it, which is also the app role's value at the provider.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Analyst => "analyst",
            Self::Admin => "admin",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How somebody proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// By being at this machine.
    Local,
    /// By signing in.
    Session,
    /// By an API token.
    Token,
}

/// Who asks. As an argument of a page it means that nobody else gets it.
#[derive(Clone, Debug)]
pub(crate) struct Viewer {
    /// For the record: `ann@contoso.example`, `token:CI`, `local:root`.
    pub(crate) who: String,
    /// What they may do.
    pub(crate) role: Role,
    /// How we know.
    pub(crate) via: Via,
    /// The network address of the other side: of the proxy, where there is one, as nothing that it says is believed.
    pub(crate) address: Option<String>,
    /// What of the lake they may see.
    pub(crate) policy: Arc<Policy>,
    form_token: Secret<String>,
}

impl Viewer {
    /// Fails unless this role or a higher one is held.
    ///
    /// # Errors
    /// `not-allowed`.
    pub(crate) fn require(&self, role: Role) -> Result<()> {
        if self.role >= role {
            return Ok(());
        }
        let (who, held) = (&self.who, self.role);
        Err(Error::new(Code::NotAllowed, format!("this needs the role `{role}`, and `{who}` has `{held}`")))
    }

    /// Whether this role or a higher one is held; for what a page offers.
    pub(crate) fn may(&self, role: Role) -> bool {
        self.role >= role
    }

    /// Them as somebody who searches.
    ///
    /// # Errors
    /// `not-allowed` below the role `analyst`.
    pub(crate) fn asker(&self, surface: Surface) -> Result<Asker> {
        self.require(Role::Analyst)?;
        let (who, address, policy) = (self.who.clone(), self.address.clone(), Arc::clone(&self.policy));
        Ok(Asker { who, surface, address, policy })
    }

    /// What our own forms carry, and no other page knows.
    pub(crate) fn form_token(&self) -> &Secret<String> {
        &self.form_token
    }

    pub(super) fn of(extensions: &Extensions) -> Result<Self> {
        extensions.get::<Self>().cloned().ok_or_else(|| Error::new(Code::NotSignedIn, "nobody is signed in"))
    }
}

impl FromRequestParts<Shared> for Viewer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _server: &Shared) -> Result<Self, Problem> {
        Ok(Self::of(&parts.extensions)?)
    }
}

/// 256 bits that nobody can guess, as text.
///
/// # Errors
/// `internal` when the machine has no randomness to give.
fn random_text() -> Result<Secret<String>> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(Code::Internal, format!("the machine gives no random bytes: {error}")))?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
}

/// What the server knows about people.
pub(super) struct Auth {
    sessions: Sessions,
    attempts: Attempts,
    provider: Option<Provider>,
    /// Whoever is at this machine, when that suffices.
    local: Option<Viewer>,
    session_cookie: &'static str,
    attempt_cookie: &'static str,
    is_secure: bool,
}

impl Auth {
    /// Decides who gets in.
    ///
    /// # Errors
    /// `configuration` when that would be everybody on a network, or the provider cannot be used.
    pub(super) fn new(
        site: &Site,
        config: &Config,
        has_tokens: bool,
        operator: &str,
        http: Http,
        clock: Clock,
    ) -> Result<Self> {
        let provider = match &config.sign_in {
            Some(sign_in) => Some(Provider::new(sign_in, config.roles.clone(), http, clock.clone())?),
            None => None,
        };
        if !site.is_local() {
            if provider.is_none() && !has_tokens {
                return Err(Error::new(
                    Code::Configuration,
                    "serving a network needs sign-in: give an OpenID Connect issuer, or add an API token for programs",
                ));
            }
            if provider.is_some() && !site.is_public() {
                return Err(Error::new(
                    Code::Configuration,
                    "sign-in needs the address to which browsers come back: give `--public-url`",
                ));
            }
        }
        let local = match site.is_local() && provider.is_none() {
            true => Some(Viewer {
                who: operator.to_owned(),
                role: Role::Admin,
                via: Via::Local,
                address: None,
                policy: Arc::default(),
                form_token: random_text()?,
            }),
            false => None,
        };
        // The prefix makes browsers refuse the cookie from anybody but this very host over https:
        // <https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Set-Cookie#cookie_prefixes>
        let (session_cookie, attempt_cookie) = match site.is_secure() {
            true => ("__Host-waybill", "__Host-waybill-sign-in"),
            false => ("waybill", "waybill-sign-in"),
        };
        Ok(Self {
            sessions: Sessions::new(clock.clone()),
            attempts: Attempts::new(clock),
            provider,
            local,
            session_cookie,
            attempt_cookie,
            is_secure: site.is_secure(),
        })
    }

    fn set_cookie(&self, name: &str, value: &str) -> Result<HeaderValue> {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let end = if value.is_empty() { "; Max-Age=0" } else { "" };
        HeaderValue::from_str(&format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{end}"))
            .map_err(|_| Error::new(Code::Internal, "a cookie cannot be written"))
    }
}

/// What a program presents: an API token, perhaps with its name.
#[derive(Debug)]
pub(crate) enum Credentials {
    /// `Bearer`, RFC 6750.
    Bearer(Secret<String>),
    /// `Basic`, RFC 7617: the token's name and its text.
    Named(String, Secret<String>),
}

impl Credentials {
    /// Those of an `Authorization` header; nothing when it is of another form.
    pub(crate) fn of(header: &HeaderValue) -> Option<Self> {
        let (scheme, presented) = header.to_str().ok()?.split_once(' ')?;
        let presented = presented.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Bearer(Secret::new(presented.to_owned())));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let text = String::from_utf8(STANDARD.decode(presented).ok()?).ok()?;
        let (name, token) = text.split_once(':')?;
        Some(Self::Named(name.to_owned(), Secret::new(token.to_owned())))
    }

    fn token(&self) -> &str {
        let (Self::Bearer(token) | Self::Named(_, token)) = self;
        token.expose()
    }

    fn is_name(&self, token: &ApiToken) -> bool {
        match self {
            Self::Bearer(_) => true,
            Self::Named(name, _) => token.is_called(name),
        }
    }
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).find_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then_some(value)
    })
}

impl Server {
    /// Whether people can sign in here.
    pub(super) fn has_sign_in(&self) -> bool {
        self.auth.provider.is_some()
    }

    async fn admit(
        &self,
        method: &Method,
        headers: &HeaderMap,
        address: Option<&Peer>,
    ) -> Result<(Option<Viewer>, String)> {
        // Before a token is looked up: a foreign host gets nothing at all.
        self.site.origin(headers)?;
        let viewer = self.viewer(headers).await?.map(|viewer| Viewer {
            address: address.map(|peer| peer.0.ip().to_string()),
            policy: self.policies.of(&viewer.who, viewer.role),
            ..viewer
        });
        let origin = self.check_source(method, headers, viewer.as_ref())?;
        Ok((viewer, origin))
    }

    /// Whoever sent these headers; nothing when they do not say.
    async fn viewer(&self, headers: &HeaderMap) -> Result<Option<Viewer>> {
        if let Some(header) = headers.get(AUTHORIZATION) {
            let refused = || Error::new(Code::NotSignedIn, "the API token is not known, or has expired");
            let credentials = Credentials::of(header).ok_or_else(refused)?;
            let token = Tokens::of(&self.lake).find(credentials.token(), self.clock.now()).await?;
            let token = token.filter(|token| credentials.is_name(token)).ok_or_else(refused)?;
            let who = format!("token:{}", token.name);
            let (address, policy) = (None, Arc::default());
            let form_token = random_text()?;
            return Ok(Some(Viewer { who, role: token.role, via: Via::Token, address, policy, form_token }));
        }
        if let Some(local) = &self.auth.local {
            return Ok(Some(local.clone()));
        }
        let session = cookie(headers, self.auth.session_cookie).and_then(|id| self.auth.sessions.get(id));
        Ok(session.map(|session| Viewer {
            who: session.who,
            role: session.role,
            via: Via::Session,
            address: None,
            policy: Arc::default(),
            form_token: session.form_token,
        }))
    }

    /// Refuses what a foreign page made a browser send.
    fn check_source(&self, method: &Method, headers: &HeaderMap, viewer: Option<&Viewer>) -> Result<String> {
        let origin = self.site.origin(headers)?;
        let is_safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        if is_safe || viewer.is_some_and(|viewer| viewer.via == Via::Token) {
            return Ok(origin);
        }
        const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
        let is_own_site = headers.get(SEC_FETCH_SITE).is_none_or(|site| site == "same-origin");
        let is_own_origin =
            headers.get(ORIGIN).is_none_or(|given| given.as_bytes().eq_ignore_ascii_case(origin.as_bytes()));
        if is_own_site && is_own_origin {
            return Ok(origin);
        }
        Err(Error::new(Code::RequestRefused, "the request was sent by a page of another site"))
    }
}

/// Scheme, host and port under which this request came; travels in the request's extensions.
#[derive(Clone, Debug)]
pub(crate) struct OwnOrigin(pub(crate) String);

impl FromRequestParts<Shared> for OwnOrigin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _server: &Shared) -> Result<Self, Problem> {
        let own = parts.extensions.get::<Self>().cloned();
        Ok(own.ok_or_else(|| Error::new(Code::Internal, "a route is outside of the guard"))?)
    }
}

/// Finds out who asks, and refuses what a foreign page made a browser send.
pub(super) async fn guard(State(server): State<Shared>, mut request: Request, next: Next) -> Response {
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let peer = request.extensions().get::<Peer>().copied();
    let (viewer, origin) = match server.admit(&method, &headers, peer.as_ref()).await {
        Ok(found) => found,
        Err(error) => {
            let problem = match error.code() {
                Code::RequestRefused => Problem::new(StatusCode::FORBIDDEN, error),
                _ => Problem::from(error),
            };
            return problem.into_response();
        }
    };
    request.extensions_mut().insert(OwnOrigin(origin));
    if let Some(viewer) = &viewer {
        request.extensions_mut().insert(viewer.clone());
    }
    let mut response = next.run(request).await;
    if let Some(viewer) = viewer {
        response.extensions_mut().insert(viewer);
    }
    response
}

/// Where somebody who is not signed in goes first, to come back to `path` afterwards.
pub(super) fn sign_in_path(path: &str) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("to", own_path(path)).finish();
    format!("/sign-in?{query}")
}

/// A path of this server and nothing else, so that nobody is led away; the start otherwise. Browsers read `//host` and
/// `/\host` as another host, and leave tabs and line breaks out before they look.
fn own_path(path: &str) -> &str {
    let mut letters = path.chars();
    let is_own = letters.next() == Some('/')
        && !matches!(letters.next(), Some('/' | '\\'))
        && !path.chars().any(|letter| letter.is_control() || letter == '\\')
        && !path.starts_with("/sign-");
    if is_own { path } else { "/" }
}

/// The pages of signing in and out.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/sign-in", get(sign_in))
        .route("/sign-in/callback", get(callback))
        .route("/sign-out", post(sign_out))
        .route("/signed-out", get(signed_out))
}

#[derive(Debug, Deserialize)]
struct SignInQuery {
    #[serde(default)]
    to: String,
}

async fn sign_in(
    State(server): State<Shared>,
    OwnOrigin(origin): OwnOrigin,
    Query(query): Query<SignInQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let to = own_path(&query.to);
    let Some(provider) = &server.auth.provider else {
        if server.auth.local.is_some() {
            return Ok(Redirect::to(to).into_response());
        }
        let message = "this server knows programs with an API token only: it has no sign-in for people";
        return Err(Error::new(Code::NotSignedIn, message).into());
    };
    let attempt = provider.begin(&origin, to.to_owned()).await?;
    let url = attempt.url.to_string();
    if let Some(old) = cookie(&headers, server.auth.attempt_cookie) {
        server.auth.attempts.take(old);
    }
    let id = server.auth.attempts.add(attempt)?;
    let mut response = Redirect::to(&url).into_response();
    response.headers_mut().append(SET_COOKIE, server.auth.set_cookie(server.auth.attempt_cookie, id.expose())?);
    Ok(response)
}

#[derive(Debug, Deserialize)]
struct CallbackQuery {
    #[serde(default)]
    state: String,
    code: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// The provider sends the browser back here.
async fn callback(
    State(server): State<Shared>,
    OwnOrigin(origin): OwnOrigin,
    Query(query): Query<CallbackQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let refuse = |why: String| Error::new(Code::NotSignedIn, format!("the sign-in did not work: {why}"));
    let auth = &server.auth;
    let Some(provider) = &auth.provider else { return Err(refuse("it is not configured here".to_owned()).into()) };
    // Taken, so that it serves once, whatever comes of it.
    let attempt = cookie(&headers, auth.attempt_cookie).and_then(|id| auth.attempts.take(id));
    let attempt = attempt.ok_or_else(|| refuse("it was not begun in this browser, or too long ago".to_owned()))?;
    if !bool::from(attempt.state.expose().as_bytes().ct_eq(query.state.as_bytes())) {
        return Err(refuse("it was begun somewhere else".to_owned()).into());
    }
    let Some(code) = query.code.filter(|_| query.error.is_none()) else {
        let said = format!("{} {}", query.error.unwrap_or_default(), query.error_description.unwrap_or_default());
        return Err(refuse(format!("the provider says `{}`", one_line(&said))).into());
    };
    let person = provider.finish(&origin, Secret::new(code), &attempt).await?;
    let Some(role) = person.role else {
        tracing::info!(who = %person.who, "signed in without a role");
        let message = format!("`{}` is signed in, and has no role here", person.who);
        return Err(Error::new(Code::NotAllowed, message).into());
    };
    // A session that the browser had before ends: nobody who knew its id shares the new one.
    if let Some(old) = cookie(&headers, auth.session_cookie) {
        auth.sessions.remove(old);
    }
    let id = auth.sessions.add(person.who.clone(), role)?;
    tracing::info!(who = %person.who, %role, "signed in");
    let mut response = Redirect::to(&attempt.to).into_response();
    response.headers_mut().append(SET_COOKIE, auth.set_cookie(auth.session_cookie, id.expose())?);
    response.headers_mut().append(SET_COOKIE, auth.set_cookie(auth.attempt_cookie, "")?);
    Ok(response)
}

async fn sign_out(State(server): State<Shared>, headers: HeaderMap, form: Form) -> Result<Response, Problem> {
    let auth = &server.auth;
    if let Some(id) = cookie(&headers, auth.session_cookie) {
        auth.sessions.remove(id);
    }
    tracing::info!(who = %form.viewer.who, "signed out");
    let mut response = Redirect::to("/signed-out").into_response();
    response.headers_mut().append(SET_COOKIE, auth.set_cookie(auth.session_cookie, "")?);
    Ok(response)
}

async fn signed_out() -> Page {
    let body = html! {
        p { "You are signed out of Waybill. Your account's sign-in in this browser goes on; on a computer that others \
             use, sign out there as well." }
        p { a.button href=(sign_in_path("/")) { "Sign in again" } }
    };
    page("Signed out", None, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_leads_back_to_this_server_only() {
        for path in ["/", "/connections", "/connections?status=error&x=//y"] {
            assert_eq!(own_path(path), path);
        }
        let foreign =
            ["", "//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil.example", "/a\\b", "/sign-in"];
        for path in foreign {
            assert_eq!(own_path(path), "/", "{path:?}");
        }
    }

    #[test]
    fn a_role_includes_the_ones_below() {
        let viewer = Viewer {
            who: "ann".to_owned(),
            role: Role::Analyst,
            via: Via::Session,
            address: None,
            policy: Arc::default(),
            form_token: Secret::new(String::new()),
        };
        assert!(viewer.require(Role::Viewer).is_ok() && viewer.require(Role::Analyst).is_ok());
        let error = viewer.require(Role::Admin).unwrap_err();
        assert_eq!(error.code(), Code::NotAllowed);
        assert_eq!(error.message(), "this needs the role `admin`, and `ann` has `analyst`");
    }

    #[test]
    fn only_an_analyst_searches_and_the_record_names_them() {
        let viewer = |role| Viewer {
            who: "ann".to_owned(),
            role,
            via: Via::Session,
            address: Some("192.0.2.1".to_owned()),
            policy: Arc::default(),
            form_token: Secret::new(String::new()),
        };
        assert_eq!(viewer(Role::Viewer).asker(Surface::Console).unwrap_err().code(), Code::NotAllowed);
        let asker = viewer(Role::Analyst).asker(Surface::Console).unwrap();
        assert_eq!((asker.who.as_str(), asker.address.as_deref()), ("ann", Some("192.0.2.1")));
        assert!(!asker.policy.is_limit());
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("xwaybill=1; waybill=2; waybill-sign-in=3"));
        assert_eq!(cookie(&headers, "waybill"), Some("2"));
        assert_eq!(cookie(&headers, "waybill-sign-in"), Some("3"));
        assert_eq!(cookie(&headers, "waybil"), None);
    }
}
