//! `waybill serve`: the web console for people with a browser, and the HTTP API for programs with a token.
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
pub(crate) mod form;
mod headers;
mod listen;
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
use self::problem::Problem;
use crate::clock::Clock;
use crate::error::{Code, Error, Result, ResultExt};
use crate::http::Http;
use crate::lake::Lake;
use crate::limits;
use crate::search::Engine;
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
    url: String,
    stop: CancellationToken,
    listening: JoinHandle<()>,
    engine: Engine,
}

impl Running {
    /// Where it listens: `http://127.0.0.1:8080`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stops listening and lets the requests under way end.
    pub async fn stop(self) {
        self.stop.cancel();
        // The task ends by itself; one that failed has nothing left to stop.
        drop(self.listening.await);
        if let Err(error) = self.engine.close().await {
            tracing::error!(code = %error.code(), %error, "the last searches could not be recorded in the lake");
        }
    }
}

/// Starts to serve a lake at `address`; it answers as soon as this returns. `operator` is who changes things when nobody
/// has to sign in.
///
/// # Errors
/// `configuration` when the address cannot be listened on, the certificate cannot be used, or the lake would be open to
/// a network without sign-in or encryption.
pub async fn start(lake: Lake, clock: Clock, address: &str, config: Config, operator: &str) -> Result<Running> {
    let doing = || format!("cannot listen on `{address}`");
    let resolved: Vec<SocketAddr> =
        tokio::net::lookup_host(address).await.or_error(Code::Configuration, doing())?.collect();
    let first = *resolved.first().ok_or_else(|| Error::new(Code::Configuration, doing()))?;
    let site = Site::new(first, &config)?;
    let has_tokens = !Tokens::of(&lake).list().await?.is_empty();
    let auth = Auth::new(&site, &config, has_tokens, operator, Http::new()?, clock.clone())?;
    let acceptor = config.tls.as_ref().map(listen::acceptor).transpose()?;
    let listener = TcpListener::bind(first).await.or_error(Code::Configuration, doing())?;
    let bound = listener.local_addr().or_error(Code::Configuration, doing())?;
    let url = format!("{}://{bound}", if acceptor.is_some() { "https" } else { "http" });
    let engine = Engine::new(lake.clone(), clock.clone())?;
    let (consents, totals, policies, endpoints) =
        (Default::default(), Default::default(), config.policies, config.endpoints);
    let server =
        Arc::new(Server { lake, clock, site, consents, engine: engine.clone(), totals, policies, endpoints, auth });
    let stop = CancellationToken::new();
    let listening = tokio::spawn(listen::listen(
        listener,
        acceptor,
        router(server, console::routes().merge(api::routes())),
        stop.clone(),
    ));
    Ok(Running { url, stop, listening, engine })
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
