//! `waybill simulate`: a Microsoft 365 tenant on this machine, for the demo and for tests, as there is no public test
//! tenant.
//!
//! It is the Entra token and consent endpoints, the Management Activity API and the parts of Microsoft Graph that a
//! reader of sent mail calls, with their limits, quirks and errors. All of them listen on one port and are told apart
//! by the path. It knows nothing of who asks: it shares no type with the rest of the crate.
//!
//! ```text
//!   .eml files ─┐             ┌─ entra.rs   tokens, consent
//!   audit export ├▶ tenant.rs ─┼─ feed/      subscriptions, listings, content blobs
//!   generator  ─┘             └─ graph/     users, groups, messages, attachments
//!        faults.rs: what goes wrong          report.rs: what was asked
//! ```

mod answer;
mod audit_log;
mod clock;
mod control;
mod corpus;
mod entra;
mod faults;
mod feed;
mod generate;
mod graph;
mod ids;
mod mime;
mod records;
mod report;
mod sha1;
mod sign_in;
mod tenant;
mod tls;
mod wire;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use faults::Faults;
pub use generate::Generate;
pub use report::Report;

use answer::{Reply, Request, graph_error};
use faults::{Action, Rules, SharedRules};
use feed::Subscriptions;
use feed::timeline::{MessageEntry, Piece, Timeline};
use generate::Generated;
use ids::mix;
use report::{Counters, Kind, MailboxSlot};
use tenant::Tenant;

/// Requests at once on one mailbox. <https://learn.microsoft.com/graph/throttling-limits#outlook-service-limits>
const MAILBOX_CONCURRENCY: u32 = 4;

/// What to simulate, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// What is in the tenant; several may be combined.
    pub content: Vec<Content>,
    /// Moves the dates of a corpus by one offset, so that its newest mail was sent just now.
    pub shift_dates_now: bool,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What goes wrong.
    pub faults: Option<Faults>,
    /// Whether the subscription to audit content is on when the simulator starts.
    pub subscription: Subscription,
    /// The time before the start over which the records became available.
    pub content_over: Duration,
    /// Records of a content blob, unless a window cuts it.
    pub blob_records: usize,
    /// Blobs on a page of a listing.
    pub page_blobs: usize,
    /// Whether to speak `https`, with a certificate of an authority made at the start.
    pub tls: bool,
    /// Where to write the authority's certificate, for programs that want a file.
    pub ca_file: Option<PathBuf>,
    /// A certificate (PEM) that the application has registered for signed assertions.
    pub client_certificate: Option<PathBuf>,
    /// Whether the tenant's administrator has consented to the application before the start.
    pub is_consented: bool,
    /// How long consent that is given on the page takes until tokens carry its permissions.
    pub consent_spreads: Duration,
    /// The ids of the tenant follow from it, and everything else that looks random.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            content: Vec::new(),
            shift_dates_now: false,
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            faults: None,
            subscription: Subscription::StartedLongAgo,
            content_over: Duration::from_secs(3600),
            blob_records: 50,
            page_blobs: 200,
            tls: false,
            ca_file: None,
            client_certificate: None,
            is_consented: true,
            consent_spreads: Duration::ZERO,
            seed: 1,
        }
    }
}

/// Something that fills the tenant.
#[derive(Debug, Clone)]
pub enum Content {
    /// A directory of `.eml` files: mailboxes with sent messages, and the audit records of their sends.
    Corpus(PathBuf),
    /// An exported audit log: its records as they are, and empty mailboxes of those whom it names.
    Audit(PathBuf),
    /// A generated tenant; at most one.
    Generate(Generate),
}

/// Whether audit content is subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Subscription {
    /// For so long that all content is there.
    #[default]
    StartedLongAgo,
    /// Not yet: what became available before the first start is never listed.
    Off,
}

/// Why the simulator cannot be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulatorError {
    /// A file or directory cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write `{path}`: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("cannot understand `{path}`: {reason}")]
    Understand {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A part of the words for the generator.
    #[error(
        "cannot generate with `{part}`: it takes `users`, `aliases`, `messages`, `days`, `seed`, `attachments`, `size` and `sends`, each with `=` and a number"
    )]
    Generate {
        /// The part.
        part: String,
    },
    /// More than one generated tenant was asked for.
    #[error("cannot generate two tenants at once")]
    Generators,
    /// The address cannot be listened on.
    #[error("cannot listen on `{address}`: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A key or certificate cannot be made.
    #[error("cannot make a key: {0}")]
    Key(rcgen::Error),
    /// A key cannot be used for tokens.
    #[error("cannot sign tokens: {0}")]
    Token(jsonwebtoken::errors::Error),
    /// A certificate cannot be used.
    #[error("cannot use the certificate: {0}")]
    Certificate(String),
}

impl SimulatorError {
    fn read(path: &Path, source: std::io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    fn understand(path: &Path, reason: &dyn std::error::Error) -> Self {
        Self::Understand { path: path.to_owned(), reason: reason.to_string() }
    }
}

pub(crate) type Result<T, E = SimulatorError> = std::result::Result<T, E>;

/// Where the simulated tenant is and how to get in: printed as one line of JSON once it listens.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Announcement {
    /// Base of the login service's URLs.
    pub login: String,
    /// Base of Microsoft Graph's URLs, without the version.
    pub graph: String,
    /// Base of the Management Activity API's URLs, without the version.
    pub activity: String,
    /// The tenant's id.
    pub tenant_id: String,
    /// The application's id.
    pub client_id: String,
    /// The application's secret.
    pub client_secret: String,
    /// User principal names of all users.
    pub users: Vec<String>,
    /// The certificate to trust (PEM), when it speaks `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_certificate: Option<String>,
    /// The file that holds this certificate, if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_certificate_path: Option<PathBuf>,
}

/// A simulator that listens; it ends when this is stopped or dropped.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    announcement: Announcement,
    simulator: Arc<Simulator>,
    stop: watch::Sender<bool>,
    listening: JoinHandle<()>,
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it is and how to get in.
    pub fn announcement(&self) -> &Announcement {
        &self.announcement
    }

    /// What it was asked so far.
    pub fn report(&self) -> Report {
        self.simulator.report()
    }

    /// Replaces the faults.
    pub fn set_faults(&self, faults: &Faults) {
        self.simulator.set_faults(faults);
    }

    /// Stops listening and ends all connections, also those in the middle of an answer.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // The task ends by itself; whether it was cancelled makes no difference any more.
        let _ = self.listening.await;
    }
}

/// Starts a simulator; it answers as soon as this returns.
pub async fn start(options: Options) -> Result<Running> {
    let address = options.listen;
    let failed = |source| SimulatorError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (acceptor, ca_certificate) = match options.tls.then(|| tls::acceptor(address.ip())).transpose()? {
        Some((acceptor, pem)) => (Some(acceptor), Some(pem)),
        None => (None, None),
    };
    if let (Some(path), Some(pem)) = (&options.ca_file, &ca_certificate) {
        std::fs::write(path, pem).map_err(|source| SimulatorError::Write { path: path.clone(), source })?;
    }
    let ca_certificate_path = options.ca_file.clone().filter(|_| options.tls);
    let scheme = if options.tls { "https" } else { "http" };
    // Reading a corpus takes a while.
    let built = tokio::task::spawn_blocking(move || Simulator::build(&options)).await;
    let simulator = Arc::new(built.map_err(|error| SimulatorError::Certificate(error.to_string()))??);
    let base = format!("{scheme}://{address}");
    let announcement = Announcement {
        login: base.clone(),
        graph: base.clone(),
        activity: base,
        tenant_id: simulator.tenant.id.clone(),
        client_id: simulator.tenant.client_id.clone(),
        client_secret: simulator.tenant.client_secret.clone(),
        users: simulator.tenant.read().users.iter().map(|user| user.user_principal_name.clone()).collect(),
        ca_certificate,
        ca_certificate_path,
    };
    let (stop, stopped) = watch::channel(false);
    let listening = tokio::spawn(wire::listen(Arc::clone(&simulator), listener, acceptor, stopped));
    Ok(Running { address, announcement, simulator, stop, listening })
}

/// The whole state of a running simulator.
pub(crate) struct Simulator {
    pub(crate) tenant: Tenant,
    pub(crate) timeline: Timeline,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) tokens: entra::Tokens,
    pub(crate) signer: entra::Signer,
    pub(crate) certificate: Option<entra::Certificate>,
    pub(crate) consent: entra::Consent,
    pub(crate) codes: sign_in::Codes,
    pub(crate) counters: Arc<Counters>,
    pub(crate) page_blobs: usize,
    rules: SharedRules,
    makes_copies: AtomicBool,
}

impl std::fmt::Debug for Simulator {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Simulator").field("tenant", &self.tenant.id).finish_non_exhaustive()
    }
}

impl Simulator {
    fn build(options: &Options) -> Result<Self> {
        // Everything was there before the start, which is a whole second as dates of mails are.
        let started = clock::now();
        let mut generates = options.content.iter().filter_map(|content| match content {
            Content::Generate(generate) => Some(generate),
            Content::Corpus(_) | Content::Audit(_) => None,
        });
        let generated = generates.next().map(|generate| Generated::new(generate, started));
        if generates.next().is_some() {
            return Err(SimulatorError::Generators);
        }
        let tenant = Tenant::new(options.seed, started, generated);
        let faults = options.faults.clone().unwrap_or_default();
        tenant.add_directory(&faults.directory);
        let mut pieces = Vec::new();
        for content in &options.content {
            pieces.push(match content {
                Content::Corpus(path) => add_corpus(&tenant, path, options.shift_dates_now)?,
                Content::Audit(path) => {
                    let records = audit_log::read(path)?;
                    audit_log::users(&records).iter().for_each(|address| tenant.add_user(address));
                    Piece::Given(records)
                }
                Content::Generate(_) => Piece::Generated(tenant.generated.as_ref().map_or(0, Generated::records)),
            });
        }
        let certificate = match &options.client_certificate {
            None => None,
            Some(path) => {
                let pem = std::fs::read(path).map_err(|source| SimulatorError::read(path, source))?;
                Some(entra::Certificate::parse(&pem)?)
            }
        };
        let simulator = Self {
            timeline: Timeline::new(options.seed, started, options.content_over, pieces, options.blob_records),
            subscriptions: Subscriptions::new(options.subscription),
            tokens: entra::Tokens::default(),
            signer: entra::Signer::new()?,
            certificate,
            codes: sign_in::Codes::default(),
            consent: entra::Consent::new(
                options.is_consented,
                chrono::Duration::from_std(options.consent_spreads).unwrap_or_default(),
            ),
            counters: Arc::default(),
            page_blobs: options.page_blobs.max(1),
            rules: SharedRules::new(Arc::new(Rules::new(options.seed, &Faults::default()))),
            makes_copies: AtomicBool::new(false),
            tenant,
        };
        simulator.set_faults(&faults);
        Ok(simulator)
    }

    pub(crate) fn set_faults(&self, faults: &Faults) {
        let rules = Rules::new(self.tenant.seed, faults);
        self.tenant.add_directory(&faults.directory);
        self.timeline.set_lateness(rules.lateness());
        self.makes_copies.store(rules.makes_copies(), Ordering::Relaxed);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    /// Whether a fault makes drafts or received copies, so that their ids are known.
    pub(crate) fn makes_copies(&self) -> bool {
        self.makes_copies.load(Ordering::Relaxed)
    }

    pub(crate) fn report(&self) -> Report {
        let world = self.tenant.read();
        let name =
            |index: usize| world.users.get(index).map(|user| user.user_principal_name.clone()).unwrap_or_default();
        self.counters.report(name)
    }

    /// Answers a request; a place on a mailbox is held until the slot is dropped.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        mut request: Request,
    ) -> (Reply, Kind, Vec<Action>, Option<MailboxSlot>) {
        let owned = std::mem::take(&mut request.segments);
        let parts = graph::normalised(&owned);
        let (kind, mailbox) = kind(&parts, &request);
        request.segments.clone_from(&owned);
        if kind == Kind::Control {
            let reply = control::answer(self, &request, &parts).await;
            return (reply, kind, Vec::new(), None);
        }
        self.counters.user_agent(request.header("user-agent").unwrap_or_default());
        if kind.is_feed() {
            self.counters.feed_request(request.query("PublisherIdentifier"), request.now.timestamp() / 60);
        }
        self.apply_rules(&mut request, kind, mailbox);
        let mut slot = None;
        if kind.is_mail()
            && let Some(user) = mailbox.and_then(|name| self.tenant.user(name))
        {
            let (entered, on_mailbox, on_all) = self.counters.enter(user.index);
            slot = Some(entered);
            let app_wide = request.actions.iter().find_map(|action| match action {
                Action::AppWideConcurrency(limit) => Some(*limit),
                _ => None,
            });
            if on_mailbox > MAILBOX_CONCURRENCY || app_wide.is_some_and(|limit| on_all > limit) {
                let message = "Application is over its MailboxConcurrency limit.";
                let reply = graph_error(&request, 429, "ApplicationThrottled", message).custom("retry-after", "1");
                return (reply, kind, Vec::new(), None);
            }
        }
        for action in &request.actions {
            if let Action::LatencyMs(milliseconds) = action {
                tokio::time::sleep(Duration::from_millis(*milliseconds)).await;
            }
        }
        let reply = match request.actions.iter().find_map(|action| action.reply(&request, kind)) {
            Some(reply) => reply,
            None => self.dispatch(&request, kind, &parts).await,
        };
        (reply, kind, request.actions, slot)
    }

    fn apply_rules(&self, request: &mut Request, kind: Kind, mailbox: Option<&str>) {
        let rules = Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner));
        if rules.is_empty() {
            return;
        }
        let mailbox = mailbox.and_then(|name| self.tenant.user(name)).map(|user| user.user_principal_name.clone());
        for (action, name) in rules.fire(kind, &request.subject(), &mailbox.unwrap_or_default()) {
            self.counters.fault(&name);
            if action == Action::ExpireToken {
                self.tokens.expire(request);
            }
            request.actions.push(action);
        }
    }

    async fn dispatch(self: &Arc<Self>, request: &Request, kind: Kind, parts: &[&str]) -> Reply {
        match (request.method.as_str(), parts) {
            (_, ["v1.0" | "beta", rest @ ..]) => graph::answer(self, request, kind, rest).await,
            (_, ["api", "v1.0" | "v1", tenant, "activity", "feed", rest @ ..]) => {
                feed::answer(self, request, tenant, rest)
            }
            ("POST", [tenant, "oauth2", "v2.0", "token"]) => entra::token(self, request, tenant, false),
            ("POST", [tenant, "oauth2", "token"]) => entra::token(self, request, tenant, true),
            ("GET", [tenant, "v2.0", ".well-known", "openid-configuration"]) => {
                entra::openid_configuration(self, request, tenant, false)
            }
            ("GET", [tenant, ".well-known", "openid-configuration"]) => {
                entra::openid_configuration(self, request, tenant, true)
            }
            ("GET", [_, "discovery", "instance"]) => entra::instance_discovery(self, request),
            ("GET", [_, "discovery", "keys"] | [_, "discovery", "v2.0", "keys"]) => entra::keys(self),
            ("GET", [tenant, "oauth2", "v2.0", "authorize"]) => sign_in::authorize(self, request, tenant),
            ("GET", [tenant, "v2.0", "adminconsent"]) => entra::admin_consent(self, request, tenant, false),
            ("GET", [tenant, "adminconsent"]) => entra::admin_consent(self, request, tenant, true),
            _ => Reply::new(404, "text/plain", "Not Found"),
        }
    }

    /// A request to Graph inside of another one.
    pub(crate) fn graph(self: &Arc<Self>, request: Request) -> BoxFuture<'static, Reply> {
        let simulator = Arc::clone(self);
        Box::pin(async move {
            let (reply, kind, _, _slot) = simulator.answer(request).await;
            simulator.counters.answered(kind, reply.status.as_u16(), reply.status.as_u16() == 429);
            reply
        })
    }
}

/// What a path asks for, and the user whose mailbox it names.
fn kind<'a>(parts: &[&'a str], request: &Request) -> (Kind, Option<&'a str>) {
    let kind = match parts {
        ["_simulator", ..] => Kind::Control,
        ["v1.0" | "beta", rest @ ..] => return graph::kind(rest, request),
        ["api", _, _, "activity", "feed", "subscriptions", "start"] => Kind::Start,
        ["api", _, _, "activity", "feed", "subscriptions", "stop"] => Kind::Stop,
        ["api", _, _, "activity", "feed", "subscriptions", "list"] => Kind::Subscriptions,
        ["api", _, _, "activity", "feed", "subscriptions", "content"] => Kind::List,
        ["api", _, _, "activity", "feed", "subscriptions", "notifications"] => Kind::Notifications,
        ["api", _, _, "activity", "feed", "audit", _] => Kind::Blob,
        [_, "oauth2", "v2.0", "token"] | [_, "oauth2", "token"] => Kind::Token,
        [_, "oauth2", "v2.0", "authorize"] => Kind::SignIn,
        [_, "v2.0", "adminconsent"] | [_, "adminconsent"] => Kind::Consent,
        [_, "discovery", ..] | [_, "v2.0", ".well-known", _] | [_, ".well-known", _] => Kind::Discovery,
        _ => Kind::Unknown,
    };
    (kind, None)
}

/// Fills mailboxes from a corpus, and makes its part of the audit log: the sends in the order of their time, and some
/// records of others between them.
fn add_corpus(tenant: &Tenant, path: &Path, shift_dates_now: bool) -> Result<Piece> {
    let (mails, directory) = corpus::read(path)?;
    tenant.add_directory(&directory);
    let mut entries = Vec::with_capacity(mails.len() * 2);
    for number in tenant.add_mails(mails, shift_dates_now.then_some(tenant.started)) {
        entries.push(MessageEntry::Send(number));
        // None, one or two others after each send: a modest number, where a real tenant has hundreds.
        let others = mix(tenant.seed ^ 0x00f1_11e4, number) % 3;
        entries.extend((0..others).map(|_| MessageEntry::Near(number)));
    }
    Ok(Piece::Messages(entries))
}
