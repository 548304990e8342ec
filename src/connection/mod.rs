//! Who is monitored, and with what right: one authorised tenant, a display name and a scope.
//!
//! A [`Connection`] is what an administrator adds; `registry` keeps it in the lake, without any secret: only the place
//! where the secret is kept. `scope_csv` reads the lists that people have.
//!
//! May use: `source`, `lake`, and the base.

mod registry;
pub mod scope_csv;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::registry::Registry;
use crate::clock::{Clock, Time};
use crate::error::{Code, Error, Result};
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
