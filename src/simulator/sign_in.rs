//! Signing people in: Entra as an OpenID Connect provider, with a page on which a test picks who signs in.
//!
//! The authorization code flow with PKCE. A code serves once, for ten minutes, for the application, redirect address and
//! challenge with which it was asked for.
//! <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow>,
//! <https://learn.microsoft.com/entra/identity-platform/id-token-claims-reference>

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Duration, Utc};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Simulator;
use super::answer::{Reply, Request};
use super::entra::{check_tenant, error, error_with};

/// How long a code is good.
const CODE_LIFE: Duration = Duration::minutes(10);

/// How long an ID token is good, in seconds.
const LIFE_SECONDS: i64 = 3600;

/// Codes that are remembered; beyond it, those that have expired are forgotten.
const CODES_MAX: usize = 10_000;

/// Users whom the page offers.
const OFFERED: usize = 20;

/// The values of the application's roles that the page offers.
const ROLES: [&str; 4] = ["admin", "analyst", "viewer", ""];

/// What a code stands for.
#[derive(Debug, Clone)]
struct Grant {
    user: String,
    roles: Vec<String>,
    client_id: String,
    redirect_uri: String,
    scope: String,
    nonce: Option<String>,
    /// The challenge, and whether it is the verifier's hash or the verifier itself.
    challenge: Option<(String, bool)>,
    expires: DateTime<Utc>,
}

/// Every code that was given; nothing in the place of one that was redeemed.
#[derive(Debug, Default)]
pub(crate) struct Codes {
    given: Mutex<HashMap<String, Option<Grant>>>,
}

impl Codes {
    fn add(&self, grant: Grant, now: DateTime<Utc>) -> String {
        let code = format!("1.{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.len() >= CODES_MAX {
            given.retain(|_, grant| grant.as_ref().is_some_and(|grant| grant.expires > now));
        }
        given.insert(code.clone(), Some(grant));
        code
    }

    /// `None` for a code that was never given, `Some(None)` for one that was redeemed.
    fn redeem(&self, code: &str) -> Option<Option<Grant>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).get_mut(code).map(Option::take)
    }
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
}

/// `GET /{tenant}/oauth2/v2.0/authorize`: the page, or what it leads to when `simulate=<user>:<role>` is there.
/// `simulate=cancel` is somebody who thinks better of it.
pub(crate) fn authorize(simulator: &Simulator, request: &Request, tenant: &str) -> Reply {
    match begin(simulator, request, tenant) {
        Ok(reply) | Err(reply) => reply.custom("cache-control", "no-store, no-cache").custom("pragma", "no-cache"),
    }
}

fn begin(simulator: &Simulator, request: &Request, tenant: &str) -> Result<Reply, Reply> {
    // Until application and redirect address are known to be right, nothing is sent to the address.
    if !matches!(tenant, "common" | "organizations") {
        check_tenant(simulator, request, tenant)?;
    }
    let needed = |name: &str| {
        request.query(name).filter(|value| !value.is_empty()).ok_or_else(|| {
            error_with(request, 900_144, &format!("The request body must contain the following parameter: '{name}'."))
        })
    };
    let (client_id, redirect_uri) = (needed("client_id")?, needed("redirect_uri")?);
    if !client_id.eq_ignore_ascii_case(&simulator.tenant.client_id) {
        return Err(error(request, 700_016));
    }
    if !may_lead_to(redirect_uri) {
        let message = format!(
            "The redirect URI '{redirect_uri}' specified in the request does not match the redirect URIs configured for the application \
             '{client_id}'."
        );
        return Err(error_with(request, 50011, &message));
    }
    let back = Back { redirect_uri, mode: request.query("response_mode").unwrap_or("query"), request };
    if needed("response_type")? != "code" {
        return Ok(back.refuse(
            "unsupported_response_type",
            700_054,
            "response_type is not enabled for the application.",
        ));
    }
    let scope = request.query("scope").unwrap_or_default();
    if !scope.split_whitespace().any(|scope| scope == "openid") {
        return Ok(back.refuse(
            "invalid_scope",
            70011,
            "The provided value for the input parameter 'scope' is not valid.",
        ));
    }
    let challenge = match (request.query("code_challenge"), request.query("code_challenge_method")) {
        (None, _) => None,
        (Some(challenge), Some("S256")) => Some((challenge.to_owned(), true)),
        (Some(challenge), None | Some("plain")) => Some((challenge.to_owned(), false)),
        (Some(_), Some(_)) => {
            return Ok(back.refuse("invalid_request", 9_002_313, "Invalid request. Request is malformed or invalid."));
        }
    };
    match request.query("simulate") {
        None => Ok(page(simulator, request, client_id)),
        Some("cancel") => Ok(back.refuse("access_denied", 65004, "User declined to consent to access the app.")),
        Some(choice) => {
            let (user, roles) = choice.split_once(':').unwrap_or((choice, ""));
            let Some(user) = simulator.tenant.user(user) else { return Err(error(request, 50034)) };
            let grant = Grant {
                user: user.id.clone(),
                roles: roles.split(',').filter(|role| !role.is_empty()).map(str::to_owned).collect(),
                client_id: client_id.to_owned(),
                redirect_uri: redirect_uri.to_owned(),
                scope: scope.to_owned(),
                nonce: request.query("nonce").map(str::to_owned),
                challenge,
                expires: request.now + CODE_LIFE,
            };
            let code = simulator.codes.add(grant, request.now);
            Ok(back.send(&[("code", code), ("session_state", Uuid::new_v4().to_string())]))
        }
    }
}

/// Any https address counts as registered; http leads to this machine only, as Entra has it.
/// <https://learn.microsoft.com/entra/identity-platform/reply-url>
fn may_lead_to(redirect_uri: &str) -> bool {
    let Some((scheme, rest)) = redirect_uri.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split(':').next().unwrap_or_default(),
    };
    match scheme {
        "https" => !host.is_empty(),
        "http" => host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
        _ => false,
    }
}

/// The way back to the application.
struct Back<'a> {
    redirect_uri: &'a str,
    mode: &'a str,
    request: &'a Request,
}

impl Back<'_> {
    fn refuse(&self, error: &str, number: u32, message: &str) -> Reply {
        let (now, trace) = (self.request.now.format("%Y-%m-%d %H:%M:%SZ"), Uuid::new_v4());
        let description =
            format!("AADSTS{number}: {message} Trace ID: {trace} Correlation ID: {trace} Timestamp: {now}");
        self.send(&[("error", error.to_owned()), ("error_description", description)])
    }

    fn send(&self, parameters: &[(&str, String)]) -> Reply {
        let mut all = parameters.to_vec();
        all.extend(self.request.query("state").map(|state| ("state", state.to_owned())));
        if self.mode == "form_post" {
            let fields: String = all
                .iter()
                .map(|(name, value)| format!("<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escape(value)))
                .collect();
            let page = format!(
                "<!doctype html>\n<html lang=\"en\"><head><title>Working...</title></head><body onload=\"document.forms[0].submit()\">\n\
                 <form method=\"POST\" action=\"{}\">{fields}<button id=\"continue\">Continue</button></form>\n</body></html>\n",
                escape(self.redirect_uri)
            );
            return Reply::new(200, "text/html; charset=utf-8", page);
        }
        let pairs: Vec<String> = all.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let join = match self.mode {
            "fragment" => '#',
            _ if self.redirect_uri.contains('?') => '&',
            _ => '?',
        };
        Reply::new(302, "", "").custom("location", &format!("{}{join}{}", self.redirect_uri, pairs.join("&")))
    }
}

/// A page with a link for each user and role: `user-0-admin`, `user-0-analyst`, `user-0-viewer`, `user-0-none`.
fn page(simulator: &Simulator, request: &Request, client_id: &str) -> Reply {
    let query: String =
        request.query.iter().map(|(name, value)| format!("{}={}&", encode(name), encode(value))).collect();
    let link = |id: &str, choice: &str, text: &str| {
        let target = escape(&format!("?{query}simulate={}", encode(choice)));
        format!("<a id=\"{id}\" href=\"{target}\">{}</a> ", escape(text))
    };
    let world = simulator.tenant.read();
    let rows: String = world
        .users
        .iter()
        .take(OFFERED)
        .enumerate()
        .map(|(index, user)| {
            let name = &user.user_principal_name;
            let links: String = ROLES
                .iter()
                .map(|role| {
                    let word = if role.is_empty() { "none" } else { role };
                    link(&format!("user-{index}-{word}"), &format!("{name}:{role}"), word)
                })
                .collect();
            format!("<li>{} {links}</li>\n", escape(name))
        })
        .collect();
    Reply::new(
        200,
        "text/html; charset=utf-8",
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><title>Sign in to your account</title></head><body>\n<h1>Pick an account and its role</h1>\n\
             <p>The application {} asks who you are.</p>\n<ul>\n{rows}</ul>\n<p>{}</p>\n</body></html>\n",
            escape(client_id),
            link("cancel", "cancel", "Cancel"),
        ),
    )
}

/// The grant `authorization_code` of the token endpoint, once the application has proved who it is.
pub(crate) fn redeem(
    simulator: &Simulator,
    request: &Request,
    client_id: &str,
    field: impl Fn(&str) -> Option<String>,
) -> Result<Reply, Reply> {
    let needed = |name: &str| {
        field(name).ok_or_else(|| {
            error_with(request, 900_144, &format!("The request body must contain the following parameter: '{name}'."))
        })
    };
    let (code, redirect_uri) = (needed("code")?, needed("redirect_uri")?);
    let grant = match simulator.codes.redeem(&code) {
        None => return Err(error(request, 9_002_313)),
        Some(None) => return Err(error(request, 54005)),
        Some(Some(grant)) => grant,
    };
    if grant.expires <= request.now {
        return Err(error(request, 70008));
    }
    if !grant.client_id.eq_ignore_ascii_case(client_id) {
        return Err(error(request, 70000));
    }
    if grant.redirect_uri != redirect_uri {
        let message = format!(
            "The reply address '{redirect_uri}' does not match the reply address '{}' provided when requesting Authorization code.",
            grant.redirect_uri
        );
        return Err(error_with(request, 500_112, &message));
    }
    let verifier = field("code_verifier");
    let is_proved = match (&grant.challenge, verifier) {
        (None, None) => true,
        (None, Some(_)) | (Some(_), None) => false,
        (Some((challenge, true)), Some(verifier)) => {
            *challenge == URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
        }
        (Some((challenge, false)), Some(verifier)) => *challenge == verifier,
    };
    if !is_proved {
        return Err(error(request, 50148));
    }
    let claims = claims(simulator, request, &grant).ok_or_else(|| error(request, 50034))?;
    let id_token = simulator.signer.sign(&claims).ok_or_else(|| error(request, 90033))?;
    // Clients must treat it as opaque: <https://learn.microsoft.com/entra/identity-platform/access-tokens>.
    let access_token = format!("simulated-{}", Uuid::new_v4().simple());
    Ok(Reply::json(
        200,
        &json!({"token_type": "Bearer", "scope": grant.scope, "expires_in": LIFE_SECONDS, "ext_expires_in": LIFE_SECONDS,
            "access_token": access_token, "id_token": id_token}),
    ))
}

fn claims(simulator: &Simulator, request: &Request, grant: &Grant) -> Option<Value> {
    let tenant = &simulator.tenant;
    let user = tenant.user(&grant.user)?;
    let now = request.now.timestamp();
    let groups: Vec<_> = tenant.read().groups.clone();
    let groups: Vec<&str> = groups
        .iter()
        .filter(|group| tenant.members(group).0.iter().any(|member| member.id == user.id))
        .map(|group| group.id.as_str())
        .collect();
    let mut claims = json!({
        "ver": "2.0", "iss": format!("{}/{}/v2.0", request.base, tenant.id), "aud": tenant.client_id, "tid": tenant.id,
        "iat": now, "nbf": now, "exp": now + LIFE_SECONDS, "oid": user.id, "name": user.display_name,
        "preferred_username": user.user_principal_name, "uti": Uuid::new_v4().simple().to_string(),
        // The subject is another one for each application.
        "sub": URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{} {}", tenant.client_id, user.id))),
    });
    if let Some(nonce) = &grant.nonce {
        claims["nonce"] = json!(nonce);
    }
    // Without a role the claim is absent.
    if !grant.roles.is_empty() {
        claims["roles"] = json!(grant.roles);
    }
    if !groups.is_empty() {
        claims["groups"] = json!(groups);
    }
    Some(claims)
}
