//! Microsoft 365: the Management Activity API says that something was sent, Graph holds what was sent.
//!
//! [`Microsoft365`] is the [`Source`]. `feed` and `record` read the audit feed, `export` a log that a person exported;
//! `message`, `attachment` and `directory` ask Graph, all through `graph`. `credential` and `token` prove who we are,
//! `throttle` keeps the limits. The endpoints of a cloud, or those that replace them, are the only thing that tells one
//! tenant's service from another's.
//!
//! May use: `clock`, `error`, `http`, `id`, `limits`, `secret` and the trait's own types.

mod attachment;
mod credential;
mod directory;
mod export;
mod feed;
mod graph;
mod message;
mod permissions;
mod record;
mod throttle;
mod token;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use chrono::SubsecRound as _;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

pub use self::credential::Credential;
pub use self::export::Exported;
pub use self::message::SentMessage;
pub use self::permissions::{Granted, Permission, needed};
pub use self::record::Records;
use self::throttle::{Limiter, Mailboxes, Pause};
use self::token::{TokenSettings, Tokens};
use crate::clock::{Clock, Time};
use crate::error::{Code, Error, Result};
use crate::http::{Http, Url, ensure_private};
use crate::limits;
use crate::source::{
    Application, AttachmentBody, AttachmentRef, ContentBlob, Feed, Message, RecordChunk, ResolvedScope, Scope,
    SendRecord, Source, Usage, Window,
};

/// What a connection to a tenant needs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who asks whom.
    pub application: Application,
    /// The proof of it.
    pub credential: Credential,
    /// In which of Microsoft's clouds the tenant lives.
    pub cloud: Cloud,
    /// Addresses that replace the cloud's.
    pub overrides: Overrides,
    /// What time it is.
    pub clock: Clock,
}

/// Microsoft's clouds; a tenant lives in one of them, and tokens of one are worth nothing in another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cloud {
    /// The public cloud.
    #[default]
    #[serde(rename = "worldwide")]
    Worldwide,
    /// The United States' government community cloud.
    #[serde(rename = "gcc")]
    Gcc,
    /// Its variant for controlled information.
    #[serde(rename = "gcc_high")]
    GccHigh,
    /// The United States' department of defense.
    #[serde(rename = "dod")]
    DoD,
    /// China, operated by 21Vianet. Its feed is not documented, so the `activity` endpoint must be given.
    #[serde(rename = "china_21vianet")]
    China21Vianet,
}

impl Cloud {
    /// Every cloud.
    pub const ALL: [Self; 5] = [Self::Worldwide, Self::Gcc, Self::GccHigh, Self::DoD, Self::China21Vianet];

    /// The word in commands and in the registry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worldwide => "worldwide",
            Self::Gcc => "gcc",
            Self::GccHigh => "gcc_high",
            Self::DoD => "dod",
            Self::China21Vianet => "china_21vianet",
        }
    }

    /// The root of sign-in.
    pub fn login_root(self) -> &'static str {
        self.roots().0
    }

    /// Roots of sign-in, Graph and feed: <https://learn.microsoft.com/graph/deployments> and the feed's reference.
    fn roots(self) -> (&'static str, &'static str, Option<&'static str>) {
        match self {
            Self::Worldwide => {
                ("https://login.microsoftonline.com", "https://graph.microsoft.com", Some("https://manage.office.com"))
            }
            Self::Gcc => (
                "https://login.microsoftonline.com",
                "https://graph.microsoft.com",
                Some("https://manage-gcc.office.com"),
            ),
            Self::GccHigh => {
                ("https://login.microsoftonline.us", "https://graph.microsoft.us", Some("https://manage.office365.us"))
            }
            Self::DoD => (
                "https://login.microsoftonline.us",
                "https://dod-graph.microsoft.us",
                Some("https://manage.protection.apps.mil"),
            ),
            Self::China21Vianet => {
                ("https://login.partner.microsoftonline.cn", "https://microsoftgraph.chinacloudapi.cn", None)
            }
        }
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Cloud {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|cloud| cloud.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join("`, `");
            Error::new(Code::Usage, format!("`{text}` is no cloud; there are `{known}`"))
        })
    }
}

/// Root URLs that replace the cloud's, for a proxy or a simulated tenant. What a token is asked for stays the cloud's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    /// Sign-in; `/{tenant}/oauth2/v2.0/token` is appended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Graph; `/v1.0/…` is appended unless it ends with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<String>,
    /// The feed; `/api/v1.0/{tenant}/activity/feed/…` is appended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
    /// The metadata service of an Azure machine, whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
}

impl Overrides {
    /// Sets one by name, as `--endpoint login=URL` does, after a check of the URL.
    ///
    /// # Errors
    /// `usage` for another name, `configuration` for a URL that may not be used.
    pub fn set(&mut self, name: &str, url: &str) -> Result<()> {
        let place = match name {
            "login" => &mut self.login,
            "graph" => &mut self.graph,
            "activity" => &mut self.activity,
            "identity" => &mut self.identity,
            _ => {
                let message = format!("`{name}` is no endpoint; there are `login`, `graph`, `activity`, `identity`");
                return Err(Error::new(Code::Usage, message));
            }
        };
        root(url)?;
        *place = Some(url.to_owned());
        Ok(())
    }
}

/// The addresses in use; without a slash at their ends.
#[derive(Debug)]
struct Endpoints {
    token: Url,
    /// With `/v1.0`.
    graph: Url,
    /// With `/activity/feed`.
    feed: Url,
    identity: Url,
    graph_resource: String,
    feed_resource: String,
}

impl Endpoints {
    fn new(settings: &Settings) -> Result<Self> {
        let (login, graph, feed) = settings.cloud.roots();
        let overrides = &settings.overrides;
        let tenant = settings.application.tenant_id;
        let login_root = root(overrides.login.as_deref().unwrap_or(login))?;
        let graph_root = root(overrides.graph.as_deref().unwrap_or(graph))?;
        let feed_root = overrides.activity.as_deref().or(feed).ok_or_else(|| {
            let message = format!(
                "the feed of the cloud `{}` is not documented; give its address as `activity` endpoint",
                settings.cloud
            );
            Error::new(Code::Configuration, message)
        })?;
        let feed_root = root(feed_root)?;
        let graph_root = if graph_root.path().ends_with("/v1.0") { graph_root } else { below(&graph_root, "v1.0")? };
        Ok(Self {
            token: below(&login_root, &format!("{tenant}/oauth2/v2.0/token"))?,
            graph: graph_root,
            feed_resource: feed.map_or_else(|| feed_root.origin().ascii_serialization(), str::to_owned),
            feed: below(&feed_root, &format!("api/v1.0/{tenant}/activity/feed"))?,
            identity: root(
                overrides.identity.as_deref().unwrap_or("http://169.254.169.254/metadata/identity/oauth2/token"),
            )?,
            graph_resource: graph.to_owned(),
        })
    }
}

/// Parses a root URL and takes the slashes from its end.
fn root(text: &str) -> Result<Url> {
    let url = Url::parse(text.trim().trim_end_matches('/'))
        .map_err(|error| Error::new(Code::Configuration, format!("`{text}` is no URL: {error}")))?;
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(Error::new(
            Code::Configuration,
            "an endpoint's URL may hold neither a user, nor a query, nor a fragment",
        ));
    }
    ensure_private(&url)?;
    Ok(url)
}

/// Appends a path to a root.
fn below(root: &Url, path: &str) -> Result<Url> {
    let text = format!("{}/{path}", root.as_str().trim_end_matches('/'));
    Url::parse(&text).map_err(|error| Error::new(Code::Internal, format!("`{text}` is no URL: {error}")))
}

/// Whether a URL that the service gave us may get our token: it leads to where we asked, or stays on this machine as
/// that does.
fn is_same_service(given: &Url, asked: &Url) -> bool {
    given.origin() == asked.origin() || (crate::http::is_local(given) && crate::http::is_local(asked))
}

/// A tenant of Microsoft 365. Cheap to clone; clones share tokens, limits and counters.
#[derive(Clone)]
pub struct Microsoft365 {
    tenant: Arc<Tenant>,
}

/// What all requests to a tenant share.
struct Tenant {
    http: Http,
    clock: Clock,
    application: Application,
    cloud: Cloud,
    endpoints: Endpoints,
    feed_tokens: Tokens,
    graph_tokens: Tokens,
    feed_pause: Pause,
    /// Whether the feed was found off after `prepare`.
    feed_restarted: AtomicBool,
    graph_limiter: Arc<Limiter>,
    mailboxes: Mailboxes,
    /// The id of each mailbox's Sent Items folder, where it was needed.
    sent_items: Mutex<HashMap<String, Arc<OnceCell<Option<String>>>>>,
}

impl Microsoft365 {
    /// A tenant; nothing is asked yet.
    ///
    /// # Errors
    /// `configuration` when an endpoint may not be used or the HTTP client cannot be set up.
    pub fn new(settings: Settings) -> Result<Self> {
        let endpoints = Endpoints::new(&settings)?;
        let http = Http::new()?;
        let tokens = |resource: &str| {
            let token_settings = TokenSettings {
                application: settings.application,
                credential: &settings.credential,
                token_url: &endpoints.token,
                identity_url: &endpoints.identity,
                resource: resource.to_owned(),
            };
            Tokens::new(http.clone(), settings.clock.clone(), token_settings)
        };
        let feed_tokens = tokens(&endpoints.feed_resource);
        let graph_tokens = tokens(&endpoints.graph_resource);
        let tenant = Tenant {
            http,
            clock: settings.clock,
            application: settings.application,
            cloud: settings.cloud,
            endpoints,
            feed_tokens,
            graph_tokens,
            feed_pause: Pause::default(),
            feed_restarted: AtomicBool::new(false),
            graph_limiter: Arc::new(Limiter::new()),
            mailboxes: Mailboxes::default(),
            sent_items: Mutex::default(),
        };
        Ok(Self { tenant: Arc::new(tenant) })
    }

    /// Asks both token endpoints, and nothing else. A token may come although no permission was granted.
    ///
    /// # Errors
    /// Like those of a run: `secret-refused`, `application-missing` and so on.
    pub async fn check_sign_in(&self) -> Result<()> {
        self.tenant.feed_tokens.get().await?;
        self.tenant.graph_tokens.get().await?;
        Ok(())
    }

    /// Which permissions fresh tokens carry, against those that a scope needs. For diagnosis: see [`Granted`].
    ///
    /// # Errors
    /// Like [`Microsoft365::check_sign_in`].
    pub async fn permissions(&self, scope: &Scope) -> Result<Granted> {
        self.tenant.granted(scope).await
    }

    /// Asks the feed for its subscriptions without starting one. Gives whether the one that Waybill needs is on.
    ///
    /// # Errors
    /// `permission-missing`, `auditing-disabled`, or the service's failure.
    pub async fn check_feed(&self) -> Result<bool> {
        self.tenant.is_subscribed().await
    }

    /// Asks whether a mailbox may be read. With access granted in Exchange the token does not tell, so a mailbox must.
    ///
    /// # Errors
    /// `mailbox-denied`, `mailbox-missing`, or the service's failure.
    pub async fn check_mailbox(&self, mailbox: &str) -> Result<()> {
        self.tenant.sent_items(mailbox).await.map(|_| ())
    }

    /// Messages with attachments in a mailbox's Sent Items, sent in `[from, to)`, the newest first, at most 25.
    ///
    /// # Errors
    /// `mailbox-denied`, `mailbox-missing`, or the service's failure.
    pub async fn sent_messages(&self, mailbox: &str, from: Time, to: Time) -> Result<Vec<SentMessage>> {
        self.tenant.sent_messages(mailbox, from, to).await
    }

    /// The newest blobs of the last 24 hours: whether the feed brings anything. Asks for listings, and no content.
    ///
    /// # Errors
    /// Like [`Source::list`].
    pub async fn newest_content(&self) -> Result<Option<Time>> {
        // Boundaries are whole seconds, and wider ones than 24 hours are refused.
        let now = self.tenant.clock.now().trunc_subsecs(0);
        let Some(window) = Window::new(now - limits::WINDOW_MAX, now) else { return Ok(None) };
        Ok(self.tenant.list(window).await?.iter().map(|blob| blob.created).max())
    }

    /// Asks for one user of the directory.
    ///
    /// # Errors
    /// `permission-missing`, or the service's failure.
    pub async fn check_directory(&self) -> Result<()> {
        self.tenant.check_directory().await
    }
}

impl Source for Microsoft365 {
    async fn prepare(&self) -> Result<Feed> {
        self.tenant.prepare().await
    }

    async fn list(&self, window: Window) -> Result<Vec<ContentBlob>> {
        self.tenant.list(window).await
    }

    fn read(&self, blob: &ContentBlob) -> BoxStream<'static, Result<RecordChunk>> {
        feed::read(Arc::clone(&self.tenant), blob.clone())
    }

    async fn find(&self, send: &SendRecord) -> Result<Vec<Message>> {
        self.tenant.find(send).await
    }

    async fn open(&self, attachment: &AttachmentRef) -> Result<AttachmentBody> {
        self.tenant.open(attachment).await
    }

    async fn resolve_scope(&self, scope: &Scope) -> Result<ResolvedScope> {
        self.tenant.resolve_scope(scope).await
    }

    fn was_restarted(&self) -> bool {
        self.tenant.feed_restarted.load(Ordering::Relaxed)
    }

    fn usage(&self) -> Usage {
        self.tenant.http.usage()
    }
}

#[cfg(test)]
mod tests;
