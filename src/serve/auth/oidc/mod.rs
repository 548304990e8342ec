//! Signing in with the organisation's account: OpenID Connect's authorization code flow with PKCE, `state` and `nonce`.
//!
//! ```text
//!   browser ─▶ /sign-in ─────────────▶ provider: state, nonce, challenge
//!   browser ─▶ /sign-in/callback ◀──── provider: code, state
//!              code + verifier + secret ─▶ provider's token endpoint ─▶ ID token ─▶ checked ─▶ who, and which role
//! ```
//!
//! <https://learn.microsoft.com/entra/identity-platform/v2-protocols-oidc>,
//! <https://openid.net/specs/openid-connect-core-1_0.html#IDTokenValidation>. The provider's keys are fetched when they
//! are needed, and again when a token names one that is not known, but not at the pace of whoever invents names.

use futures::future::BoxFuture;
use jsonwebtoken::jwk::{JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use oauth2::basic::{
    BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::{
    AsyncHttpClient, AuthType, AuthUrl, AuthorizationCode, Client, ClientId, ClientSecret, CsrfToken, ExtraTokenFields,
    HttpRequest, HttpResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RequestTokenError, Scope,
    StandardRevocableToken, StandardTokenResponse, TokenUrl,
};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{Role, random_text};
use crate::clock::{Clock, Time};
use crate::error::{Code, Error, Result};
use crate::http::header::HeaderMap;
use crate::http::{Answer, Http, Method, Request, Service, StatusCode, Url, Verdict, ensure_private, one_line};
use crate::limits;
use crate::secret::{Secret, SecretPlace};
use crate::serve::{Roles, SignIn};

/// The word under which requests to the provider are counted.
const SIGN_IN: &str = "sign-in";

/// How ID tokens may be signed: with the provider's private key. Never with a shared secret, and never not at all.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256];

/// Where people's accounts are.
pub(super) struct Provider {
    http: Http,
    clock: Clock,
    issuer: Url,
    client_id: String,
    client_secret: SecretPlace,
    roles: Roles,
    known: Mutex<Option<Known>>,
}

#[derive(Clone)]
struct Known {
    endpoints: Endpoints,
    keys: JwkSet,
    fetched: Time,
}

/// The part of the discovery document that we use.
/// <https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderMetadata>
#[derive(Clone, Debug, Deserialize)]
struct Endpoints {
    issuer: String,
    authorization_endpoint: Endpoint,
    token_endpoint: Endpoint,
    jwks_uri: Endpoint,
}

/// A URL in a document.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Endpoint(Url);

impl TryFrom<String> for Endpoint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let url = text.parse::<Url>().map_err(|error| error.to_string())?;
        ensure_private(&url).map_err(|error| error.to_string())?;
        Ok(Self(url))
    }
}

/// A sign-in that was begun.
pub(super) struct Attempt {
    /// Where the browser goes.
    pub(super) url: Url,
    pub(super) state: Secret<String>,
    nonce: Secret<String>,
    verifier: Secret<String>,
    /// Where it leads in the end.
    pub(super) to: String,
}

/// Whom the provider vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) who: String,
    pub(super) role: Option<Role>,
}

#[derive(Debug, Deserialize, Serialize)]
struct IdToken {
    id_token: Option<String>,
}

impl ExtraTokenFields for IdToken {}

type OidcClient<A, T> = Client<
    BasicErrorResponse,
    StandardTokenResponse<IdToken, BasicTokenType>,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    A,
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    T,
>;

impl Provider {
    /// Nothing is asked of the provider yet.
    ///
    /// # Errors
    /// `configuration` when the issuer cannot be one, or the secret is not there.
    pub(super) fn new(sign_in: &SignIn, roles: Roles, http: Http, clock: Clock) -> Result<Self> {
        let issuer: Url = sign_in
            .issuer
            .parse()
            .map_err(|_| Error::new(Code::Configuration, format!("the issuer `{}` is no URL", sign_in.issuer)))?;
        ensure_private(&issuer)?;
        // It is read anew for each sign-in; that it is not there at all is better known now.
        sign_in.client_secret.read()?;
        Ok(Self {
            http,
            clock,
            issuer,
            client_id: sign_in.client_id.clone(),
            client_secret: sign_in.client_secret.clone(),
            roles,
            known: Mutex::default(),
        })
    }

    /// Begins a sign-in that comes back to `origin` and leads to the path `to` there.
    ///
    /// # Errors
    /// `service-unavailable`, `service-protocol` when the provider cannot be asked where it is.
    pub(super) async fn begin(&self, origin: &str, to: String) -> Result<Attempt> {
        let endpoints = self.known(None).await?.endpoints;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let (state, nonce) = (random_text()?, random_text()?);
        let client = self.client(&endpoints, origin)?;
        let (url, _) = client
            .authorize_url(|| CsrfToken::new(state.expose().clone()))
            .add_scopes(["openid", "profile"].map(|scope| Scope::new(scope.to_owned())))
            .add_extra_param("nonce", nonce.expose())
            .add_extra_param("response_mode", "query")
            .set_pkce_challenge(challenge)
            .url();
        Ok(Attempt { url, state, nonce, verifier: Secret::new(verifier.into_secret()), to })
    }

    /// Exchanges the code that the browser brought for an ID token, and believes it if everything about it is right.
    ///
    /// # Errors
    /// `not-signed-in` when the code or the token is not good; `secret-refused`, `service-unavailable`,
    /// `service-protocol`, `configuration`.
    pub(super) async fn finish(&self, origin: &str, code: Secret<String>, attempt: &Attempt) -> Result<Person> {
        let endpoints = self.known(None).await?.endpoints;
        let client = self.client(&endpoints, origin)?;
        let answer = client
            .set_client_secret(ClientSecret::new(self.client_secret.read()?.expose().clone()))
            .exchange_code(AuthorizationCode::new(code.expose().clone()))
            .set_pkce_verifier(PkceCodeVerifier::new(attempt.verifier.expose().clone()))
            .request_async(&Exchange { http: &self.http, clock: &self.clock })
            .await
            .map_err(refused)?;
        let token = answer.extra_fields().id_token.as_deref();
        let token = token.ok_or_else(|| Error::new(Code::ServiceProtocol, "the sign-in service gave no ID token"))?;
        let keys = self.known(key_id(token)?.as_deref()).await?.keys;
        let claims = verify(token, &keys, &self.expected(attempt.nonce.expose()), self.clock.now())?;
        let address = claims.preferred_username.as_deref().unwrap_or_default();
        Ok(Person { role: self.roles.role(&claims.roles, &claims.groups, address), who: claims.who() })
    }

    fn expected<'a>(&'a self, nonce: &'a str) -> Expected<'a> {
        Expected { issuer: &self.issuer, client_id: &self.client_id, tenant: tenant_of(&self.issuer), nonce }
    }

    fn client(
        &self,
        endpoints: &Endpoints,
        origin: &str,
    ) -> Result<OidcClient<oauth2::EndpointSet, oauth2::EndpointSet>> {
        let bad = |error: url::ParseError| Error::new(Code::Internal, format!("a URL of the sign-in: {error}"));
        Ok(Client::new(ClientId::new(self.client_id.clone()))
            .set_auth_type(AuthType::RequestBody)
            .set_auth_uri(AuthUrl::new(endpoints.authorization_endpoint.0.to_string()).map_err(bad)?)
            .set_token_uri(TokenUrl::new(endpoints.token_endpoint.0.to_string()).map_err(bad)?)
            .set_redirect_uri(RedirectUrl::new(format!("{origin}/sign-in/callback")).map_err(bad)?))
    }

    /// What the provider says about itself: fetched once a day, or when it should know a key that we do not.
    async fn known(&self, key_id: Option<&str>) -> Result<Known> {
        let mut known = self.known.lock().await;
        let now = self.clock.now();
        if let Some(known) = &*known {
            let age = now - known.fetched;
            let is_missing = key_id.is_some_and(|id| known.keys.find(id).is_none());
            let is_good = age < limits::PROVIDER_KEYS_LIFE && (!is_missing || age < limits::PROVIDER_KEYS_PAUSE);
            if is_good {
                return Ok(known.clone());
            }
        }
        let fresh = self.fetch(now).await?;
        *known = Some(fresh.clone());
        Ok(fresh)
    }

    async fn fetch(&self, now: Time) -> Result<Known> {
        let mut url = self.issuer.clone();
        url.set_path(&format!("{}/.well-known/openid-configuration", self.issuer.path().trim_end_matches('/')));
        let asking = Asking { clock: &self.clock, takes_refusals: false };
        let endpoints: Endpoints = self.http.json(&Request::get(SIGN_IN, url), &asking).await?;
        if !is_same_issuer(&endpoints.issuer, &self.issuer) {
            return Err(Error::new(
                Code::Configuration,
                format!("the issuer `{}` calls itself `{}`: use that name", self.issuer, one_line(&endpoints.issuer)),
            ));
        }
        let keys: JwkSet = self.http.json(&Request::get(SIGN_IN, endpoints.jwks_uri.0.clone()), &asking).await?;
        Ok(Known { endpoints, keys, fetched: now })
    }
}

fn is_same_issuer(text: &str, issuer: &Url) -> bool {
    text.trim_end_matches('/') == issuer.as_str().trim_end_matches('/')
}

/// The tenant that Entra's issuer names: `https://login.microsoftonline.com/<tenant id>/v2.0`.
fn tenant_of(issuer: &Url) -> Option<Uuid> {
    issuer.path_segments()?.next()?.parse().ok()
}

/// What it means that the provider gives no token for a code.
fn refused(failure: RequestTokenError<Error, BasicErrorResponse>) -> Error {
    match failure {
        RequestTokenError::Request(error) => error,
        RequestTokenError::ServerResponse(refusal) => {
            let (code, what) = match refusal.error().as_ref() {
                "invalid_client" | "unauthorized_client" => {
                    (Code::SecretRefused, "the sign-in service does not accept this server's client id or secret")
                }
                _ => (Code::NotSignedIn, "the sign-in service refused the sign-in"),
            };
            let description = refusal.error_description().map_or("", String::as_str);
            let sentence = description.split(" Trace ID:").next().and_then(|text| text.split("\r\n").next());
            let said = format!("{} {}", refusal.error().as_ref(), sentence.unwrap_or_default());
            Error::new(code, format!("{what}: {}", one_line(&said)))
        }
        RequestTokenError::Parse(error, _) => {
            Error::new(Code::ServiceProtocol, format!("the sign-in service's answer cannot be read: {error}"))
        }
        RequestTokenError::Other(problem) => {
            Error::new(Code::ServiceProtocol, format!("the sign-in service: {problem}"))
        }
    }
}

/// Carries the requests of the `oauth2` crate over our client.
struct Exchange<'a> {
    http: &'a Http,
    clock: &'a Clock,
}

impl<'c> AsyncHttpClient<'c> for Exchange<'_> {
    type Error = Error;
    type Future = BoxFuture<'c, Result<HttpResponse>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            if parts.method != Method::POST {
                return Err(Error::new(Code::Internal, "a token is asked for by POST"));
            }
            let url = parts.uri.to_string().parse::<Url>();
            let url = url.map_err(|error| Error::new(Code::Internal, format!("a URL of the sign-in: {error}")))?;
            let mut own = Request::post(SIGN_IN, url, body.into());
            for (name, value) in &parts.headers {
                own = own.header(name.clone(), value.clone());
            }
            let asking = Asking { clock: self.clock, takes_refusals: true };
            let answer = self.http.read(&own, &asking, |answer| Ok(answer.clone())).await?;
            // Without its headers: a content type that is not quite right is no reason to refuse a token.
            let mut response = HttpResponse::new(answer.body.to_vec());
            *response.status_mut() = answer.status;
            Ok(response)
        })
    }
}

/// How the provider is asked: few times, since a person waits.
struct Asking<'a> {
    clock: &'a Clock,
    /// Whether a refusal is an answer that the caller understands.
    takes_refusals: bool,
}

impl Service for Asking<'_> {
    type Turn = ();

    async fn turn(&self) -> Result<(HeaderMap, ())> {
        Ok((HeaderMap::new(), ()))
    }

    fn judge(&self, request: &Request, answer: &Answer, (): &()) -> Verdict {
        match answer.status {
            StatusCode::TOO_MANY_REQUESTS => Verdict::SlowDown(answer.retry_after(self.clock)),
            status if status.is_server_error() => Verdict::Again,
            _ if self.takes_refusals => Verdict::Answer,
            _ => Verdict::Final(Error::new(
                Code::ServiceProtocol,
                format!("the sign-in service refused {request}: {}", answer.summary()),
            )),
        }
    }

    fn attempts(&self) -> u32 {
        limits::SIGN_IN_ATTEMPTS
    }
}

/// What an ID token says. <https://learn.microsoft.com/entra/identity-platform/id-token-claims-reference>
#[derive(Debug, Deserialize)]
struct Claims {
    aud: OneOrMany,
    azp: Option<String>,
    sub: String,
    exp: i64,
    iat: i64,
    nbf: Option<i64>,
    nonce: Option<String>,
    tid: Option<String>,
    oid: Option<String>,
    preferred_username: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Claims {
    /// Whom the record names: the address, or else the account's id, which says less to a person.
    fn who(&self) -> String {
        const CHARS: usize = 200;
        let name = [&self.preferred_username, &self.oid].into_iter().flatten().find(|name| !name.trim().is_empty());
        let name = one_line(name.unwrap_or(&self.sub));
        name.chars().take(CHARS).collect()
    }
}

/// What an ID token has to say to be for us, and for this attempt.
struct Expected<'a> {
    issuer: &'a Url,
    client_id: &'a str,
    tenant: Option<Uuid>,
    nonce: &'a str,
}

/// The id of the key that a token says it was signed with.
fn key_id(token: &str) -> Result<Option<String>> {
    let header = jsonwebtoken::decode_header(token).map_err(|error| bad_token(&error.to_string()))?;
    Ok(header.kid)
}

fn bad_token(why: &str) -> Error {
    Error::new(Code::NotSignedIn, format!("the ID token of the sign-in is not good: {why}"))
}

/// Believes an ID token, or not.
fn verify(token: &str, keys: &JwkSet, expected: &Expected<'_>, now: Time) -> Result<Claims> {
    let header = jsonwebtoken::decode_header(token).map_err(|error| bad_token(&error.to_string()))?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(bad_token("it is signed in a way that is not accepted"));
    }
    let key = header.kid.as_deref().and_then(|id| keys.find(id)).ok_or_else(|| bad_token("nobody knows its key"))?;
    let is_for_signatures = matches!(key.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let is_for_this = key.common.key_algorithm.is_none_or(|one| one.to_string() == format!("{:?}", header.alg));
    if !is_for_signatures || !is_for_this {
        return Err(bad_token("its key is for something else"));
    }
    let key = DecodingKey::from_jwk(key).map_err(|error| bad_token(&error.to_string()))?;
    let mut validation = Validation::new(header.alg);
    let issuer = expected.issuer.as_str().trim_end_matches('/');
    validation.set_issuer(&[issuer, &format!("{issuer}/")]);
    validation.set_audience(&[expected.client_id]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    // Times are checked below, by our clock.
    validation.validate_exp = false;
    let claims =
        jsonwebtoken::decode::<Claims>(token, &key, &validation).map_err(|error| bad_token(&error.to_string()))?.claims;
    let skew = limits::CLOCK_SKEW.num_seconds();
    let now = now.timestamp();
    if claims.exp.saturating_add(skew) < now {
        return Err(bad_token("it has expired"));
    }
    if claims.iat.saturating_sub(skew) > now || claims.nbf.is_some_and(|from| from.saturating_sub(skew) > now) {
        return Err(bad_token("it is from the future"));
    }
    // One of several audiences may be anybody; then the token says for whom it was made.
    let is_for_us_alone = matches!(&claims.aud, OneOrMany::One(audience) if audience == expected.client_id)
        || matches!(&claims.aud, OneOrMany::Many(all) if all.iter().all(|audience| audience == expected.client_id));
    let party = claims.azp.as_deref();
    if party.map_or(!is_for_us_alone, |party| party != expected.client_id) {
        return Err(bad_token("it is for another application"));
    }
    let nonce = claims.nonce.as_deref().unwrap_or_default();
    if !bool::from(nonce.as_bytes().ct_eq(expected.nonce.as_bytes())) {
        return Err(bad_token("it is from another sign-in"));
    }
    if let Some(tenant) = expected.tenant
        && claims.tid.as_deref().and_then(|tid| tid.parse().ok()) != Some(tenant)
    {
        return Err(bad_token("it is from another tenant"));
    }
    Ok(claims)
}

#[cfg(test)]
mod tests;
