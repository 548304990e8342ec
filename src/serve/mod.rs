//! `waybill serve`: the web console for people with a browser, and for programs with a token the HTTP API (`api`) and
//! Arrow Flight SQL (`flight`) and the Postgres wire protocol (`postgres`).
//!
//! ```text
//!   listen ─▶ headers ─▶ problem ─▶ time limit ─▶ auth: who asks ─▶ auth: from where ─▶ a page of the console
//!   TLS       on every    errors as                session, token,    Host, Origin,
//!             answer      page or JSON             or this machine    Sec-Fetch-Site
//! ```
//!
//! A page takes a [`Viewer`](auth::Viewer), which exists only for somebody who may see it; a change takes a
//! [`Form`](form::Form), which exists only when it came from one of our own pages. What a page shows it gets from the
//! rooms below; nothing is decided here that the command line decides too.
//!
//! May use: `doctor`, `connection`, `lake`, `run`, `search`, `source`, `event`, `job`, and the base. Only it, the simulator and the health page of the schedule know
//! `axum`.

mod api;
pub(crate) mod auth;
mod config;
pub(crate) mod console;
mod flight;
pub(crate) mod form;
mod headers;
mod listen;
mod postgres;
pub(crate) mod problem;
pub(crate) mod saved;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::auth::Auth;
pub use self::auth::Role;
pub use self::auth::token::{ApiToken, Tokens};
pub use self::config::{Config, Names, Policies, Roles, SignIn, TlsFiles};
use self::headers::Site;
pub use self::postgres::Verifier;
use self::problem::Problem;
use crate::clock::Clock;
use crate::error::{Code, Error, Result, ResultExt};
use crate::http::Http;
use crate::lake::Lake;
use crate::limits;
use crate::search::{Engine, QueryMemory};
use crate::source::microsoft365::Overrides;

/// What every request may use.
pub(crate) struct Server {
    /// The lake that is served.
    pub(crate) lake: Lake,
    /// What time it is.
    pub(crate) clock: Clock,
    pub(crate) site: Site,
    /// Requests for consent that are under way.
    pub(crate) consents: console::connections::consent::Pending,
    /// What answers questions on the lake.
    pub(crate) engine: Engine,
    /// How many events the questions of the API have.
    pub(crate) totals: api::Totals,
    policies: Policies,
    /// Endpoints of connections that are added here, where they are not the cloud's own.
    pub(crate) endpoints: Overrides,
    auth: Auth,
}

/// The state of the routers.
pub(crate) type Shared = Arc<Server>;

/// A server that listens; stop it, or its connections end in the middle of an answer.
pub struct Running {
    urls: Urls,
    stop: CancellationToken,
    listening: Vec<JoinHandle<()>>,
    engine: Engine,
}

/// Where a server listens.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Urls {
    /// The console and the HTTP API: `http://127.0.0.1:8080`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// Arrow Flight SQL: `grpc://127.0.0.1:32010`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flight: Option<String>,
    /// The Postgres wire protocol: `postgresql://127.0.0.1:5432/waybill`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<String>,
}

impl Running {
    /// Where it listens.
    pub fn urls(&self) -> &Urls {
        &self.urls
    }

    /// Stops listening and lets the requests under way end.
    pub async fn stop(self) {
        self.stop.cancel();
        for listening in self.listening {
            // The task ends by itself; one that failed has nothing left to stop.
            drop(listening.await);
        }
        if let Err(error) = self.engine.close().await {
            tracing::error!(code = %error.code(), %error, "the last searches could not be recorded in the lake");
        }
    }
}

/// Where to listen, each as `host:port`; port 0 takes a free one.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// The console and the HTTP API.
    pub http: Option<String>,
    /// Arrow Flight SQL.
    pub flight: Option<String>,
    /// The Postgres wire protocol.
    pub postgres: Option<String>,
}

/// A port that is listened on.
struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

impl Bound {
    async fn at(address: &str) -> Result<Self> {
        let doing = || format!("cannot listen on `{address}`");
        let resolved: Vec<SocketAddr> =
            tokio::net::lookup_host(address).await.or_error(Code::Configuration, doing())?.collect();
        let first = *resolved.first().ok_or_else(|| Error::new(Code::Configuration, doing()))?;
        let listener = TcpListener::bind(first).await.or_error(Code::Configuration, doing())?;
        let address = listener.local_addr().or_error(Code::Configuration, doing())?;
        Ok(Self { listener, address })
    }

    /// Binds where it is wanted.
    async fn wanted(address: Option<&String>) -> Result<Option<Self>> {
        match address {
            Some(address) => Self::at(address).await.map(Some),
            None => Ok(None),
        }
    }
}

/// Starts to serve a lake; it answers as soon as this returns. `operator` is who changes things when nobody has to sign
/// in.
///
/// # Errors
/// `usage` without any address; `configuration` when one cannot be listened on, the certificate cannot be used, or the lake
/// would be open to a network without sign-in or encryption.
pub async fn start(lake: Lake, clock: Clock, addresses: &Addresses, config: Config, operator: &str) -> Result<Running> {
    let http = Bound::wanted(addresses.http.as_ref()).await?;
    let flight = Bound::wanted(addresses.flight.as_ref()).await?;
    let postgres = Bound::wanted(addresses.postgres.as_ref()).await?;
    let ports: Vec<SocketAddr> = [&http, &flight, &postgres].into_iter().flatten().map(|bound| bound.address).collect();
    // Every port must be fit for who reaches it; the first decides what the pages say of themselves.
    let sites = ports.iter().map(|port| Site::new(*port, &config)).collect::<Result<Vec<_>>>()?;
    let is_local = sites.iter().all(Site::is_local);
    let site = sites.into_iter().next().ok_or_else(|| {
        Error::new(Code::Usage, "give at least one address: `--http`, `--postgres` or `--flight` with HOST:PORT")
    })?;
    let has_tokens = !Tokens::of(&lake).list().await?.is_empty();
    let auth = Auth::new(&site, &config, has_tokens, operator, Http::new()?, clock.clone())?;
    if !is_local && auth.admits_anybody() && !has_tokens {
        return Err(Error::new(Code::Configuration, "a port that a network reaches needs an API token for programs"));
    }
    let acceptor = |protocol| config.tls.as_ref().map(|files| listen::acceptor(files, protocol)).transpose();
    let (http_tls, flight_tls, postgres_tls) = (acceptor("http/1.1")?, acceptor("h2")?, acceptor("postgresql")?);
    let memory = config.query_memory_mb.map_or_else(QueryMemory::shared, QueryMemory::of_mb);
    let engine = Engine::with_memory(lake.clone(), clock.clone(), memory)?;
    let server = Arc::new(Server {
        lake,
        clock,
        site,
        consents: Default::default(),
        engine: engine.clone(),
        totals: Default::default(),
        policies: config.policies,
        endpoints: config.endpoints,
        auth,
    });
    let stop = CancellationToken::new();
    let is_own = |address: SocketAddr| address.ip().is_loopback() && !config.behind_proxy;
    let mut running = Running { urls: Urls::default(), stop: stop.clone(), listening: Vec::new(), engine };
    if let Some(Bound { listener, address }) = http {
        running.urls.http = Some(format!("http{}://{address}", if http_tls.is_some() { "s" } else { "" }));
        let router = router(Arc::clone(&server), console::routes().merge(api::routes()));
        running.listening.push(tokio::spawn(listen::listen(listener, http_tls, router, stop.clone())));
    }
    if let Some(Bound { listener, address }) = flight {
        running.urls.flight = Some(format!("grpc{}://{address}", if flight_tls.is_some() { "+tls" } else { "" }));
        let flight = flight::serve(listener, flight_tls, Arc::clone(&server), is_own(address), stop.clone());
        running.listening.push(tokio::spawn(flight));
    }
    if let Some(Bound { listener, address }) = postgres {
        running.urls.postgres = Some(format!("postgresql://{address}/{}", crate::search::CATALOG));
        let postgres = postgres::serve(listener, postgres_tls, server, is_own(address), stop);
        running.listening.push(tokio::spawn(postgres));
    }
    Ok(running)
}

fn router(server: Shared, pages: Router<Shared>) -> Router {
    // Outside of this come the parts that everybody may have: the style sheet.
    let pages =
        pages.merge(auth::routes()).fallback(nothing_here).layer(from_fn_with_state(Arc::clone(&server), auth::guard));
    console::layout::assets()
        .merge(pages)
        .layer(DefaultBodyLimit::max(limits::SERVE_BODY_BYTES))
        .layer(from_fn(heard_out))
        .layer(from_fn(in_time))
        .layer(from_fn_with_state(Arc::clone(&server), problem::render))
        .layer(from_fn_with_state(Arc::clone(&server), headers::secure))
        .with_state(server)
}

async fn nothing_here() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, Error::new(Code::RequestRefused, "there is no such page"))
}

/// Takes the rest of a body that is too large, up to a limit, before its refusal is sent: a browser that still sends when
/// the connection is closed shows a broken connection, and not the page that says why.
async fn heard_out(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = Arc::new(Mutex::new(body.into_data_stream()));
    let pieces = Arc::clone(&body);
    let shared = Body::from_stream(async_stream::stream! {
        loop {
            // The handler alone reads until it has answered; the lock is held for one piece at a time.
            let piece = pieces.lock().await.next().await;
            match piece {
                Some(piece) => yield piece,
                None => break,
            }
        }
    });
    let response = next.run(Request::from_parts(parts, shared)).await;
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let mut rest = body.lock().await;
        let mut left = limits::SERVE_DISCARD_BYTES;
        while let Some(Ok(piece)) = rest.next().await
            && piece.len() < left
        {
            left -= piece.len();
        }
    }
    response
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(limits::SERVE_REQUEST_TIME, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let seconds = limits::SERVE_REQUEST_TIME.as_secs();
            let error = Error::new(Code::RequestRefused, format!("the request was not done after {seconds} s"));
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, error).into_response()
        }
    }
}

#[cfg(test)]
mod tests;
