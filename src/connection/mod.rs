//! Who is monitored, and with what right: one authorised tenant, a display name and a scope.
//!
//! A [`Connection`] is what an administrator adds; `registry` keeps it in the lake, without any secret: only the place
//! where the secret is kept. `layout` divides its mailboxes into shards. `scope_csv` reads the lists that people have, `consent` is how an administrator of the tenant
//! lets us in.
//!
//! May use: `source`, `lake`, `event`, and the base.

pub mod consent;
mod layout;
pub mod preview;
mod registry;
pub mod scope_csv;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::layout::Layout;
pub use self::registry::{Order, Registry};
use crate::clock::{Clock, Time};
use crate::error::{Code, Error, Result};
use crate::event::{Change, Status};
use crate::lake::Shard;
use crate::source::microsoft365::{Cloud, Credential, Microsoft365, Overrides, Settings};
use crate::source::{Application, Scope};

/// Longest display name, characters: it has to fit into a table's column.
const NAME_CHARS: usize = 100;

/// One authorised tenant, as the lake remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Names the connection in checkpoints and rows, for ever.
    pub id: Uuid,
    /// The display name; unique in the lake, whatever its case.
    pub name: String,
    /// Which mail service.
    pub service: Service,
    /// Whose application in which tenant.
    pub application: Application,
    /// How the application proves who it is.
    pub credential: Credential,
    /// In which cloud the tenant lives.
    pub cloud: Cloud,
    /// Other endpoints than the cloud's own: a test tenant, a gateway.
    #[serde(default)]
    pub endpoints: Overrides,
    /// Whose mailboxes are monitored.
    pub scope: Scope,
    /// From when on.
    pub since: Time,
    /// When it was added.
    pub created: Time,
    /// What an administrator wants of it.
    #[serde(default)]
    pub intent: Intent,
    /// Into how many shards it is split.
    #[serde(default, skip_serializing_if = "Layout::is_default")]
    pub layout: Layout,
    /// When and by whom it was last authorised through Waybill; a consent that was given in a portal is not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorized: Option<Authorization>,
    /// Counts the changes of this document.
    #[serde(default)]
    pub revision: i64,
    /// Changes that are not in the lake's `changes` table yet; each revision has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unrecorded: Vec<(i64, Change)>,
}

/// What an administrator wants of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// Runs read it.
    #[default]
    Monitor,
    /// Runs leave it alone; when it is resumed, they catch up.
    Pause,
    /// Runs leave it alone; when it is authorised anew, monitoring starts then.
    Deauthorize,
}

impl Intent {
    /// The status that it alone decides; nothing when runs do.
    pub fn status(self) -> Option<Status> {
        match self {
            Self::Monitor => None,
            Self::Pause => Some(Status::Paused),
            Self::Deauthorize => Some(Status::Deauthorized),
        }
    }
}

/// An administrator of the tenant has consented.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorization {
    /// When.
    pub at: Time,
    /// Who started it in Waybill; the tenant's own log knows who consented.
    pub by: String,
}

/// The mail services that Waybill reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// Microsoft 365 (Exchange Online).
    Microsoft365,
}

impl Service {
    /// The service's name for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Microsoft365 => "Microsoft 365",
        }
    }
}

impl Connection {
    /// When the tenant's administrator last consented through Waybill.
    pub fn authorized_at(&self) -> Option<Time> {
        self.authorized.as_ref().map(|authorization| authorization.at)
    }

    /// Its shards; a single one where it is not split.
    pub fn shards(&self) -> Vec<Shard> {
        self.layout.shards(self.id)
    }

    /// The states of its shards, and those that these take over.
    pub fn state_ids(&self) -> Vec<Uuid> {
        let shards = self.shards();
        let before = shards[0].inherits.clone();
        shards.iter().map(|shard| shard.state_id).chain(before).collect()
    }

    /// The root of the sign-in service's addresses.
    pub fn login_root(&self) -> &str {
        self.endpoints.login.as_deref().unwrap_or_else(|| self.cloud.login_root())
    }

    /// Opens the mail service; nothing is asked of it yet.
    ///
    /// # Errors
    /// `configuration` when an endpoint cannot be used.
    pub fn source(&self, clock: Clock) -> Result<Microsoft365> {
        let Service::Microsoft365 = self.service;
        Microsoft365::new(Settings {
            application: self.application,
            credential: self.credential.clone(),
            cloud: self.cloud,
            overrides: self.endpoints.clone(),
            clock,
        })
    }
}

/// A display name that can be used: trimmed, not empty, one line, not too long.
///
/// # Errors
/// `usage`.
pub fn display_name(name: &str) -> Result<String> {
    let name = name.trim();
    let refuse = |why: &str| Err(Error::new(Code::Usage, format!("`{name}` cannot be a display name: {why}")));
    if name.is_empty() {
        return refuse("it is empty");
    }
    if name.chars().count() > NAME_CHARS {
        return refuse("it is longer than 100 characters");
    }
    if name.chars().any(char::is_control) {
        return refuse("it holds control characters");
    }
    Ok(name.to_owned())
}
