//! Where the server is reached, and what browsers are told with every answer.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::middleware::Next;
use axum::response::Response;

use super::{Config, Shared};
use crate::error::{Code, Error, Result};
use crate::http::Url;

/// Where the server is reached.
#[derive(Debug)]
pub(crate) struct Site {
    /// Scheme, host and port that browsers use, when that is known.
    public: Option<String>,
    /// Whether only this machine reaches it.
    is_local: bool,
    is_tls: bool,
    /// Whether browsers reach it by https.
    is_secure: bool,
}

impl Site {
    /// Judges what was asked for.
    ///
    /// # Errors
    /// `configuration` when passwords and pages would cross a network in the clear, or the parts contradict each other.
    pub(super) fn new(address: SocketAddr, config: &Config) -> Result<Self> {
        let refuse = |why: String| Err(Error::new(Code::Configuration, why));
        let public = config.public_url.as_deref().map(public_url).transpose()?;
        let is_tls = config.tls.is_some();
        if is_tls && config.behind_proxy {
            return refuse(
                "`--behind-proxy` says that a proxy speaks TLS, so a certificate is of no use here".to_owned(),
            );
        }
        let is_public_local = public.as_ref().is_none_or(|url| url.host_str().is_some_and(is_loopback_name));
        let is_local = address.ip().is_loopback() && !config.behind_proxy && is_public_local;
        if !is_local && !is_tls && !config.behind_proxy {
            return refuse(format!(
                "serving `{address}` to a network needs TLS: give a certificate and its key, or `--behind-proxy` when a \
                 proxy in front speaks TLS"
            ));
        }
        let is_secure = is_tls || config.behind_proxy;
        if let Some(url) = public.as_ref().filter(|url| (url.scheme() == "https") != is_secure) {
            let origin = url.origin().ascii_serialization();
            return refuse(format!(
                "the public URL `{origin}` and the way of serving disagree on whether there is TLS"
            ));
        }
        Ok(Self { public: public.map(|url| url.origin().ascii_serialization()), is_local, is_tls, is_secure })
    }

    /// Whether only this machine reaches it.
    pub(crate) fn is_local(&self) -> bool {
        self.is_local
    }

    /// Whether cookies are for https only.
    pub(crate) fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// Whether a proxy in front speaks TLS.
    pub(crate) fn is_behind_proxy(&self) -> bool {
        self.is_secure && !self.is_tls
    }

    /// Whether it is known how browsers reach it from elsewhere.
    pub(crate) fn is_public(&self) -> bool {
        self.public.is_some()
    }

    /// Scheme, host and port under which a request came, to which answers may lead back.
    ///
    /// # Errors
    /// `request-refused` when the host is none of ours: a foreign name that was made to lead to this machine
    /// (DNS rebinding), or a proxy in front of what only this machine should reach.
    pub(crate) fn origin(&self, headers: &HeaderMap) -> Result<String> {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if self.is_local {
            if !is_loopback_host(host) {
                return Err(Error::new(Code::RequestRefused, "the request names a host that is not this machine"));
            }
            if FORWARDED.iter().any(|name| headers.contains_key(name)) {
                let message = "the request came through a proxy, and the server was started for this machine only";
                return Err(Error::new(Code::RequestRefused, message));
            }
        }
        Ok(match &self.public {
            Some(origin) => origin.clone(),
            None => format!("{}://{host}", if self.is_tls { "https" } else { "http" }),
        })
    }
}

/// What proxies add.
const FORWARDED: [HeaderName; 3] = [
    HeaderName::from_static("forwarded"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
];

fn public_url(text: &str) -> Result<Url> {
    let refuse = |why: &str| Error::new(Code::Configuration, format!("the public URL cannot be used: {why}"));
    let url: Url = text.parse().map_err(|_| refuse("it is no URL"))?;
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if !matches!(url.scheme(), "http" | "https") || !is_bare || url.password().is_some() {
        return Err(refuse("it has to be `https://`, a host and perhaps a port"));
    }
    Ok(url)
}

/// Whether a `Host` header, with or without a port, means this machine.
fn is_loopback_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    is_loopback_name(name)
}

fn is_loopback_name(name: &str) -> bool {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Another host to which a form of this page may lead, beside our own; travels in the answer's extensions.
#[derive(Clone, Debug)]
pub(crate) struct FormsMayLeadTo(pub(crate) String);

/// Features of browsers that no page uses.
const PERMISSIONS: &str = "accelerometer=(), camera=(), geolocation=(), gyroscope=(), magnetometer=(), microphone=(), \
                           midi=(), payment=(), usb=()";

/// Tells the browser with every answer what our pages never do, so that it refuses if one is made to.
pub(super) async fn secure(State(server): State<Shared>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let others = response.extensions().get::<FormsMayLeadTo>().map(|FormsMayLeadTo(origin)| format!(" {origin}"));
    let policy = format!(
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; form-action 'self'{}; \
         frame-ancestors 'none'; base-uri 'none'",
        others.unwrap_or_default()
    );
    let headers = response.headers_mut();
    // An origin comes from a URL, and cannot hold what a header cannot.
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    let mut set = |name: HeaderName, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(X_FRAME_OPTIONS, "DENY");
    // Not `no-referrer`: with it, browsers send `Origin: null` with our own forms too, and the check of where a form
    // comes from would have nothing to check. <https://fetch.spec.whatwg.org/#append-a-request-origin-header>
    set(REFERRER_POLICY, "same-origin");
    set(HeaderName::from_static("permissions-policy"), PERMISSIONS);
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    if server.site.is_secure() {
        set(STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_its_own() {
        for host in ["localhost", "LocalHost:8080", "127.0.0.1:1", "127.8.9.1", "[::1]:8080", "[::1]"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "[::2]:1"] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    #[test]
    fn a_network_is_served_with_tls_only() {
        let tls = super::super::TlsFiles { certificate: "c".into(), key: "k".into() };
        let plain = Config::default();
        let encrypted = Config { tls: Some(tls), ..Config::default() };
        let proxied = Config { behind_proxy: true, ..Config::default() };
        let at = |address: &str, config: &Config| Site::new(address.parse().unwrap(), config);
        assert!(at("127.0.0.1:1", &plain).unwrap().is_local());
        assert!(at("[::1]:1", &encrypted).unwrap().is_local());
        assert!(!at("127.0.0.1:1", &proxied).unwrap().is_local());
        assert!(!at("0.0.0.0:1", &encrypted).unwrap().is_local());
        assert_eq!(at("0.0.0.0:1", &plain).unwrap_err().code(), Code::Configuration);
        let named = Config { public_url: Some("https://waybill.example".to_owned()), ..Config::default() };
        assert_eq!(at("127.0.0.1:1", &named).unwrap_err().code(), Code::Configuration);
    }
}
