//! Entra ID: access tokens for the two services, the documents that clients read before, and the pages of admin consent.
//!
//! <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow>

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, Duration, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rcgen::PublicKeyData;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use sha2::Digest;
use uuid::Uuid;

use super::answer::{Reply, Request, entra_error, form};
use super::faults::{Action, entra_code};
use super::sha1::sha1;
use super::tenant::TENANT_DOMAIN;
use super::{Result, Simulator, SimulatorError};

/// How long a token lives unless a fault says otherwise, in seconds.
const LIFE_SECONDS: u64 = 3599;

/// Issued tokens that are remembered; beyond it, expired ones are forgotten.
const TOKENS_MAX: usize = 10_000;

/// Which service a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    Feed,
    Graph,
    /// Asked for by the simulator's own address, which is both services.
    Both,
}

/// What a token that was issued stands for.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    audience: Audience,
    expires: DateTime<Utc>,
    roles: Vec<String>,
}

impl Token {
    /// Whether it carries an application permission.
    pub(crate) fn has(&self, role: &str) -> bool {
        self.roles.iter().any(|held| held == role)
    }

    /// Whether it carries none at all.
    pub(crate) fn is_bare(&self) -> bool {
        self.roles.is_empty()
    }
}

/// Whether the tenant's administrator consented to the application, and when.
#[derive(Debug)]
pub(crate) struct Consent {
    given: Mutex<Option<DateTime<Utc>>>,
    spreads: Duration,
}

impl Consent {
    pub(crate) fn new(is_given: bool, spreads: Duration) -> Self {
        Self { given: Mutex::new(is_given.then_some(DateTime::UNIX_EPOCH)), spreads }
    }

    fn give(&self, now: DateTime<Utc>) {
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Consent takes its time until tokens carry what it grants.
    fn is_in_force(&self, now: DateTime<Utc>) -> bool {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|given| given + self.spreads <= now)
    }
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenFault {
    Missing,
    Unknown,
    Expired,
    Audience,
}

/// All tokens that were issued.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    issued: Mutex<HashMap<String, Token>>,
}

impl Tokens {
    /// The token that a request carries, if it opens this service.
    pub(crate) fn check(&self, request: &Request, audience: Audience) -> std::result::Result<Token, TokenFault> {
        let text = bearer(request).ok_or(TokenFault::Missing)?;
        let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let token = issued.get(text).ok_or(TokenFault::Unknown)?;
        if token.expires <= request.now {
            return Err(TokenFault::Expired);
        }
        if token.audience != audience && token.audience != Audience::Both {
            return Err(TokenFault::Audience);
        }
        Ok(token.clone())
    }

    /// Makes the token of a request void.
    pub(crate) fn expire(&self, request: &Request) {
        if let Some(text) = bearer(request)
            && let Some(token) = self.issued.lock().unwrap_or_else(PoisonError::into_inner).get_mut(text)
        {
            token.expires = DateTime::UNIX_EPOCH;
        }
    }

    fn add(&self, text: String, token: Token, now: DateTime<Utc>) {
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        if issued.len() >= TOKENS_MAX {
            issued.retain(|_, token| token.expires > now);
        }
        issued.insert(text, token);
    }
}

fn bearer(request: &Request) -> Option<&str> {
    let (scheme, token) = request.header("authorization")?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// The key that signs tokens. Entra signs with RSA; an elliptic key can be made here in no time, and clients treat
/// tokens as opaque.
pub(crate) struct Signer {
    key: EncodingKey,
    key_id: String,
    /// The uncompressed point: 0x04, x, y.
    public: Vec<u8>,
}

impl Signer {
    pub(crate) fn new() -> Result<Self> {
        let pair = rcgen::KeyPair::generate().map_err(SimulatorError::Key)?;
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).map_err(SimulatorError::Token)?;
        let public = pair.der_bytes().to_vec();
        let key_id = URL_SAFE_NO_PAD.encode(&sha2::Sha256::digest(&public)[..20]);
        Ok(Self { key, key_id, public })
    }

    pub(super) fn sign(&self, claims: &Value) -> Option<String> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key_id.clone());
        jsonwebtoken::encode(&header, claims, &self.key).ok()
    }

    fn jwk(&self) -> Value {
        let coordinate =
            |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(self.public.get(range).unwrap_or_default());
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.key_id,
            "x": coordinate(1..33), "y": coordinate(33..65)})
    }
}

/// A certificate that the application has registered for its assertions.
pub(crate) struct Certificate {
    key: DecodingKey,
    sha1: String,
    sha256: String,
}

impl Certificate {
    /// Reads the first certificate of a PEM text.
    pub(crate) fn parse(pem: &[u8]) -> Result<Self> {
        let der =
            CertificateDer::from_pem_slice(pem).map_err(|error| SimulatorError::Certificate(error.to_string()))?;
        // Only the certificate's own block: a file may hold the private key as well.
        let block =
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", wrapped(&STANDARD.encode(&der)));
        let key = DecodingKey::from_rsa_pem(block.as_bytes())
            .map_err(|error| SimulatorError::Certificate(error.to_string()))?;
        Ok(Self {
            key,
            sha1: URL_SAFE_NO_PAD.encode(sha1(&der)),
            sha256: URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(&der)),
        })
    }
}

fn wrapped(base64: &str) -> String {
    let lines: Vec<&str> =
        (0..base64.len()).step_by(64).filter_map(|start| base64.get(start..(start + 64).min(base64.len()))).collect();
    lines.join("\n")
}

/// An error by its number, with the usual text.
pub(super) fn error(request: &Request, number: u32) -> Reply {
    let (status, error, message) = entra_code(number);
    entra_error(status, error, number, message, request.now)
}

pub(super) fn error_with(request: &Request, number: u32, message: &str) -> Reply {
    let (status, error, _) = entra_code(number);
    entra_error(status, error, number, message, request.now)
}

/// Checks the tenant of a path: its id or its domain.
pub(super) fn check_tenant(simulator: &Simulator, request: &Request, tenant: &str) -> std::result::Result<(), Reply> {
    if tenant.eq_ignore_ascii_case(&simulator.tenant.id) || tenant.eq_ignore_ascii_case(TENANT_DOMAIN) {
        return Ok(());
    }
    Err(match tenant {
        "common" | "consumers" | "organizations" => error(request, 9_001_023),
        tenant if Uuid::parse_str(tenant).is_ok() || tenant.contains('.') => error_with(
            request,
            90002,
            &format!(
                "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. \
             Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant."
            ),
        ),
        tenant => error_with(
            request,
            900_023,
            &format!(
                "Specified tenant identifier '{tenant}' is neither a valid DNS name, nor a valid external domain."
            ),
        ),
    })
}

/// `POST /{tenant}/oauth2/v2.0/token`, and its first version `POST /{tenant}/oauth2/token`.
pub(crate) fn token(simulator: &Simulator, request: &Request, tenant: &str, is_first_version: bool) -> Reply {
    match issue(simulator, request, tenant, is_first_version) {
        Ok(reply) | Err(reply) => reply.custom("cache-control", "no-store, no-cache").custom("pragma", "no-cache"),
    }
}

fn issue(
    simulator: &Simulator,
    request: &Request,
    tenant: &str,
    is_first_version: bool,
) -> std::result::Result<Reply, Reply> {
    check_tenant(simulator, request, tenant)?;
    let fields = form(&String::from_utf8_lossy(&request.body));
    let field = |name: &str| {
        fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    };
    let missing = |name: &str| {
        error_with(request, 900_144, &format!("The request body must contain the following parameter: '{name}'."))
    };
    let grant_type = field("grant_type").ok_or_else(|| missing("grant_type"))?;
    if grant_type == "authorization_code" && !is_first_version {
        let (client_id, _) = authenticate(simulator, request, tenant, &fields)?;
        return super::sign_in::redeem(simulator, request, &client_id, |name| field(name).map(str::to_owned));
    }
    if grant_type != "client_credentials" {
        return Err(error_with(
            request,
            70003,
            &format!("The app requested an unsupported grant type '{grant_type}'."),
        ));
    }
    let audience = audience(request, is_first_version, field("scope"), field("resource"))?;
    let (_, by_certificate) = authenticate(simulator, request, tenant, &fields)?;
    let roles = roles(simulator, request, audience.0);
    let life = request.actions.iter().find_map(|action| match action {
        Action::ExpiresIn(seconds) => Some(*seconds),
        _ => None,
    });
    let life = life.unwrap_or(LIFE_SECONDS);
    let expires = request.now + Duration::seconds(life as i64);
    let claims = claims(simulator, request, audience, &roles, by_certificate, expires);
    let text = simulator.signer.sign(&claims).ok_or_else(|| error(request, 90033))?;
    simulator.tokens.add(text.clone(), Token { audience: audience.0, expires, roles }, request.now);
    Ok(Reply::json(
        200,
        &if is_first_version {
            // The first version writes its numbers as text.
            json!({"token_type": "Bearer", "expires_in": life.to_string(), "ext_expires_in": life.to_string(),
            "expires_on": expires.timestamp().to_string(), "not_before": request.now.timestamp().to_string(),
            "resource": audience.1, "access_token": text})
        } else {
            json!({"token_type": "Bearer", "expires_in": life, "ext_expires_in": life, "access_token": text})
        },
    ))
}

/// Which application asks, and whether it proved that by a certificate and not by its secret.
fn authenticate(
    simulator: &Simulator,
    request: &Request,
    tenant: &str,
    fields: &[(String, String)],
) -> std::result::Result<(String, bool), Reply> {
    let field = |name: &str| {
        fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    };
    let missing = |name: &str| {
        error_with(request, 900_144, &format!("The request body must contain the following parameter: '{name}'."))
    };
    let basic = basic_credentials(request);
    let (basic_id, basic_secret) =
        basic.as_ref().map_or((None, None), |(id, secret)| (Some(id.as_str()), Some(secret.as_str())));
    let client_id = field("client_id").or(basic_id).ok_or_else(|| missing("client_id"))?;
    if !client_id.eq_ignore_ascii_case(&simulator.tenant.client_id) {
        return Err(error_with(
            request,
            700_016,
            &format!(
                "Application with identifier '{client_id}' was not found in the directory '{tenant}'. This can happen if the application has \
             not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your \
             authentication request to the wrong tenant."
            ),
        ));
    }
    let by_certificate = match (field("client_assertion"), field("client_secret").or(basic_secret)) {
        (Some(assertion), _) => {
            if field("client_assertion_type") != Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer") {
                return Err(missing("client_assertion_type"));
            }
            check_assertion(simulator, request, assertion)?;
            true
        }
        (None, Some(secret)) if secret == simulator.tenant.client_secret => false,
        (None, Some(_)) => {
            return Err(error_with(
                request,
                7_000_215,
                &format!(
                    "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client \
             secret ID, for a secret added to app '{client_id}'."
                ),
            ));
        }
        (None, None) => return Err(error(request, 7_000_218)),
    };
    Ok((client_id.to_owned(), by_certificate))
}

fn claims(
    simulator: &Simulator,
    request: &Request,
    audience: (Audience, &str),
    roles: &[String],
    by_certificate: bool,
    expires: DateTime<Utc>,
) -> Value {
    let tenant = &simulator.tenant;
    let principal = super::ids::guid(tenant.seed, "service principal").to_string();
    let issuer = format!("https://sts.windows.net/{}/", tenant.id);
    let mut claims = json!({
        "aud": audience.1, "iss": issuer, "iat": request.now.timestamp(), "nbf": request.now.timestamp(), "exp": expires.timestamp(),
        "appid": tenant.client_id, "appidacr": if by_certificate { "2" } else { "1" }, "idp": issuer, "oid": principal, "sub": principal,
        "tid": tenant.id, "uti": Uuid::new_v4().simple().to_string(), "ver": "1.0",
    });
    // Without a permission the claim is absent, and the token comes all the same.
    if !roles.is_empty() {
        claims["roles"] = json!(roles);
    }
    claims
}

/// The application permissions of a new token: what is registered, once consent is in force, unless a fault says else.
fn roles(simulator: &Simulator, request: &Request, audience: Audience) -> Vec<String> {
    const FEED: [&str; 1] = ["ActivityFeed.Read"];
    const GRAPH: [&str; 3] = ["Mail.Read", "User.Read.All", "GroupMember.Read.All"];
    if request.actions.contains(&Action::NoRoles) || !simulator.consent.is_in_force(request.now) {
        return Vec::new();
    }
    let given = request.actions.iter().find_map(|action| match action {
        Action::Roles(roles) => Some(roles),
        _ => None,
    });
    let registered = FEED.iter().chain(&GRAPH).map(|role| (*role).to_owned()).collect();
    let mut roles = given.cloned().unwrap_or(registered);
    match audience {
        Audience::Feed => roles.retain(|role| role.starts_with("ActivityFeed.")),
        Audience::Graph => roles.retain(|role| !role.starts_with("ActivityFeed.")),
        Audience::Both => {}
    }
    roles
}

/// HTTP Basic carries the id and the secret, each form-encoded (RFC 6749, 2.3.1).
fn basic_credentials(request: &Request) -> Option<(String, String)> {
    let (scheme, value) = request.header("authorization")?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decode = |text: &str| super::answer::percent_decoded(&text.replace('+', " "));
    Some((decode(id), decode(secret)))
}

/// The one resource that is asked for.
fn audience<'a>(
    request: &Request,
    is_first_version: bool,
    scope: Option<&'a str>,
    resource: Option<&'a str>,
) -> std::result::Result<(Audience, &'a str), Reply> {
    if is_first_version {
        let Some(resource) = resource else {
            return Err(error_with(
                request,
                900_144,
                "The request body must contain the following parameter: 'resource'.",
            ));
        };
        return known_audience(request, resource).ok_or_else(|| unknown_resource(request, resource));
    }
    if resource.is_some() {
        return Err(error(request, 901_002));
    }
    let Some(scope) = scope else {
        return Err(error_with(request, 900_144, "The request body must contain the following parameter: 'scope'."));
    };
    let mut found: Option<&'a str> = None;
    for part in scope.split_whitespace() {
        if matches!(part, "openid" | "profile" | "offline_access") {
            continue;
        }
        let Some(resource) = part.strip_suffix("/.default") else {
            let number = if part == ".default" { 700_023 } else { 70011 };
            return Err(error_with(
                request,
                number,
                &format!(
                    "The provided request must include a 'scope' input parameter. The provided value for the input parameter 'scope' is not \
                 valid. The scope {scope} is not valid."
                ),
            ));
        };
        if found.is_some_and(|other| other != resource) {
            return Err(error(request, 700_022));
        }
        found = Some(resource);
    }
    let resource = found.ok_or_else(|| error(request, 700_023))?;
    known_audience(request, resource).ok_or_else(|| unknown_resource(request, resource))
}

fn unknown_resource(request: &Request, resource: &str) -> Reply {
    error_with(
        request,
        500_011,
        &format!(
            "The resource principal named {resource} was not found in the tenant. This can happen if the application has not been installed by \
         the administrator of the tenant or consented to by any user in the tenant."
        ),
    )
}

/// The resources of all clouds, by address or by the id of their application.
fn known_audience<'a>(request: &Request, resource: &'a str) -> Option<(Audience, &'a str)> {
    let resource = resource.trim_end_matches('/');
    let audience = match resource.trim_start_matches("https://") {
        "manage.office.com"
        | "manage-gcc.office.com"
        | "manage.office365.us"
        | "manage.protection.apps.mil"
        | "c5393580-f805-4401-95e8-94b7a6ef2fc2" => Audience::Feed,
        "graph.microsoft.com"
        | "graph.microsoft.us"
        | "dod-graph.microsoft.us"
        | "microsoftgraph.chinacloudapi.cn"
        | "00000003-0000-0000-c000-000000000000" => Audience::Graph,
        _ if resource.eq_ignore_ascii_case(&request.base) => Audience::Both,
        _ => return None,
    };
    Some((audience, resource))
}

/// A signed assertion: by the registered certificate, for this endpoint, within its time.
/// <https://learn.microsoft.com/entra/identity-platform/certificate-credentials>
fn check_assertion(simulator: &Simulator, request: &Request, assertion: &str) -> std::result::Result<(), Reply> {
    let unregistered = || error(request, 700_027);
    let certificate = simulator.certificate.as_ref().ok_or_else(unregistered)?;
    let header = jsonwebtoken::decode_header(assertion).map_err(|_| error(request, 50012))?;
    if !matches!(header.alg, Algorithm::PS256 | Algorithm::RS256) {
        return Err(error(request, 50012));
    }
    let same = |thumbprint: &str, expected: &str| thumbprint.trim_end_matches('=') == expected;
    let is_registered = match (&header.x5t_s256, &header.x5t) {
        (Some(thumbprint), _) => same(thumbprint, &certificate.sha256),
        (None, Some(thumbprint)) => same(thumbprint, &certificate.sha1),
        (None, None) => false,
    };
    if !is_registered {
        return Err(unregistered());
    }
    let mut validation = Validation::new(header.alg);
    validation.validate_aud = false;
    validation.validate_exp = false;
    validation.required_spec_claims.clear();
    let claims = jsonwebtoken::decode::<Value>(assertion, &certificate.key, &validation)
        .map_err(|_| error(request, 50012))?
        .claims;
    let client_id = simulator.tenant.client_id.as_str();
    if claims["iss"] != client_id || claims["sub"] != client_id {
        return Err(error(request, 700_016));
    }
    // The audience is the token endpoint; its older form and the issuer are accepted too.
    let path = format!("/{}", request.segments.join("/"));
    let audience = claims["aud"].as_str().unwrap_or_default();
    let accepted = [
        format!("{}{path}", request.base),
        format!("{}/{}/v2.0", request.base, request.segments.first().map_or("", String::as_str)),
    ];
    if !accepted.iter().any(|accepted| accepted.eq_ignore_ascii_case(audience)) {
        return Err(error_with(
            request,
            50012,
            "Authentication failed. The assertion's audience does not match the token endpoint.",
        ));
    }
    // Five minutes of skew are forgiven.
    let (now, skew) = (request.now.timestamp() as f64, 300.0);
    // MSAL for Python sends fractions of seconds, and no `nbf`.
    let expires = claims["exp"].as_f64().unwrap_or_default();
    let not_before = claims["nbf"].as_f64().unwrap_or_default();
    if expires + skew < now || not_before - skew > now {
        return Err(error(request, 700_024));
    }
    Ok(())
}

/// `/{tenant}/v2.0/.well-known/openid-configuration`.
pub(crate) fn openid_configuration(
    simulator: &Simulator,
    request: &Request,
    tenant: &str,
    is_first_version: bool,
) -> Reply {
    let is_shared = matches!(tenant, "common" | "organizations");
    if !is_shared && let Err(reply) = check_tenant(simulator, request, tenant) {
        return reply;
    }
    let base = format!("{}/{tenant}", request.base);
    let (path, suffix) = if is_first_version { ("oauth2", "") } else { ("oauth2/v2.0", "/v2.0") };
    Reply::json(
        200,
        &json!({
            "token_endpoint": format!("{base}/{path}/token"),
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "jwks_uri": format!("{base}/discovery{suffix}/keys"),
            "response_modes_supported": ["query", "fragment", "form_post"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256", "plain"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "issuer": format!("{base}{suffix}"),
            "request_uri_parameter_supported": false,
            "authorization_endpoint": format!("{base}/{path}/authorize"),
            "device_authorization_endpoint": format!("{base}/{path}/devicecode"),
            "userinfo_endpoint": "https://graph.microsoft.com/oidc/userinfo",
            "end_session_endpoint": format!("{base}/{path}/logout"),
            "claims_supported": ["sub", "iss", "aud", "exp", "iat", "nonce", "preferred_username", "name", "tid", "ver", "oid"],
            "tenant_region_scope": "EU",
            "cloud_instance_name": "microsoftonline.com",
            "cloud_graph_host_name": "graph.windows.net",
            "msgraph_host": "graph.microsoft.com",
        }),
    )
}

/// The keys that verify tokens.
pub(crate) fn keys(simulator: &Simulator) -> Reply {
    Reply::json(200, &json!({"keys": [simulator.signer.jwk()]}))
}

/// `/common/discovery/instance`.
pub(crate) fn instance_discovery(simulator: &Simulator, request: &Request) -> Reply {
    let host = request.base.split("://").nth(1).unwrap_or_default();
    Reply::json(
        200,
        &json!({
            "tenant_discovery_endpoint": format!("{}/{}/v2.0/.well-known/openid-configuration", request.base, simulator.tenant.id),
            "api-version": "1.1",
            "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
        }),
    )
}

/// Admin consent: a page with two links, which go back to the application as Entra does.
/// <https://learn.microsoft.com/entra/identity-platform/v2-admin-consent>
pub(crate) fn admin_consent(simulator: &Simulator, request: &Request, tenant: &str, is_first_version: bool) -> Reply {
    let is_shared = tenant == "organizations" || (is_first_version && tenant == "common");
    if !is_shared && let Err(reply) = check_tenant(simulator, request, tenant) {
        return reply;
    }
    let (Some(client_id), Some(redirect_uri)) = (request.query("client_id"), request.query("redirect_uri")) else {
        return error_with(
            request,
            900_144,
            "The request must contain the following parameters: 'client_id', 'redirect_uri'.",
        );
    };
    if !client_id.eq_ignore_ascii_case(&simulator.tenant.client_id) {
        return error(request, 700_016);
    }
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let state = request.query("state").map_or_else(String::new, |state| format!("&state={}", encode(state)));
    let join = if redirect_uri.contains('?') { '&' } else { '?' };
    let id = &simulator.tenant.id;
    let (accepted, cancelled) = if is_first_version {
        (
            format!("{redirect_uri}{join}tenant={id}{state}&admin_consent=True"),
            format!(
                "{redirect_uri}{join}error=permission_denied&error_description={}{state}",
                encode("The admin canceled the request")
            ),
        )
    } else {
        let scope = encode(request.query("scope").unwrap_or_default());
        (
            format!("{redirect_uri}{join}admin_consent=True&tenant={id}&scope={scope}{state}"),
            // A refusal says `admin_consent=True` as well.
            format!(
                "{redirect_uri}{join}admin_consent=True&error=consent_required&error_description={}{state}",
                encode("AADSTS65004: User declined to consent to access the app.")
            ),
        )
    };
    match request.query("simulate") {
        Some("accept") => {
            simulator.consent.give(request.now);
            return Reply::new(302, "", "").custom("location", &accepted);
        }
        Some("cancel") => return Reply::new(302, "", "").custom("location", &cancelled),
        _ => {}
    }
    let query: String =
        request.query.iter().map(|(key, value)| format!("{}={}&", encode(key), encode(value))).collect();
    let escape =
        |text: &str| text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;");
    Reply::new(
        200,
        "text/html; charset=utf-8",
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><title>Permissions requested</title></head><body>\n<h1>Permissions requested</h1>\n\
         <p>The application {} asks for permissions in your organisation:</p>\n<pre>{}</pre>\n\
         <p><a id=\"accept\" href=\"{}\">Accept</a> <a id=\"cancel\" href=\"{}\">Cancel</a></p>\n</body></html>\n",
            escape(client_id),
            escape(request.query("scope").unwrap_or("all that are registered")),
            escape(&format!("?{query}simulate=accept")),
            escape(&format!("?{query}simulate=cancel")),
        ),
    )
}
