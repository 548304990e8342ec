//! `connections/<id>.json`: the connections of a lake.

use uuid::Uuid;

use super::{Authorization, Connection, Intent};
use crate::clock::Time;
use crate::error::{Code, Error, Result, ResultExt};
use crate::event::{Action, Change, Status};
use crate::lake::{Lake, Versioned};
use crate::limits;
use crate::source::Scope;

/// The connections of a lake.
pub struct Registry<'a> {
    lake: &'a Lake,
}

impl<'a> Registry<'a> {
    /// The registry of a lake.
    pub fn of(lake: &'a Lake) -> Self {
        Self { lake }
    }

    /// Every connection, by name.
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-damaged`.
    pub async fn list(&self) -> Result<Vec<Connection>> {
        let mut connections = self.lake.connections().await?.iter().map(parse).collect::<Result<Vec<Connection>>>()?;
        connections.sort_by_key(|connection| connection.name.to_lowercase());
        Ok(connections)
    }

    /// The connection of a display name or id.
    ///
    /// # Errors
    /// `connection-unknown`, naming those that there are.
    pub async fn get(&self, name: &str) -> Result<Connection> {
        if let Ok(id) = name.parse::<Uuid>()
            && let Some(document) = self.lake.connection(id).await?
        {
            return parse(&document);
        }
        let mut known = self.list().await?;
        match known.iter().position(|connection| is_called(connection, name)) {
            Some(index) => Ok(known.swap_remove(index)),
            None if known.is_empty() => {
                self.lake.require().await?;
                Err(Error::new(
                    Code::ConnectionUnknown,
                    format!("there is no connection `{name}`, and no other one either"),
                ))
            }
            None => {
                let names: Vec<String> = known.iter().map(|connection| format!("`{}`", connection.name)).collect();
                Err(Error::new(
                    Code::ConnectionUnknown,
                    format!("there is no connection `{name}`; there is {}", names.join(", ")),
                ))
            }
        }
    }

    /// Adds a connection; begins the lake when there is none. `by` says who did it.
    ///
    /// # Errors
    /// `connection-conflict` when the name is taken; `lake-not-writable`, `lake-unavailable`.
    pub async fn add(&self, connection: &Connection, by: &str) -> Result<()> {
        self.lake.create().await?;
        let taken = || Error::new(Code::ConnectionConflict, format!("the display name `{}` is taken", connection.name));
        let rival = |others: &[Connection]| {
            others.iter().any(|other| {
                other.id != connection.id
                    && is_called(other, &connection.name)
                    && (other.created, other.id) < (connection.created, connection.id)
            })
        };
        if self.list().await?.iter().any(|other| is_called(other, &connection.name)) {
            return Err(taken());
        }
        let mut connection = connection.clone();
        let detail = format!("scope {}", described(&connection.scope));
        let added = change(&connection, Action::Added, by, connection.created, detail);
        note(&mut connection, Change { status: Some(Status::Initializing), ..added });
        self.lake.put_connection(connection.id, json(&connection)?, None).await?;
        // Two may have added the same name at the same moment; the older one stays.
        if rival(&self.list().await?) {
            self.lake.delete_connection(connection.id).await?;
            return Err(taken());
        }
        self.record(&connection).await
    }

    /// Changes a connection, and records who changed what and when.
    ///
    /// # Errors
    /// `usage`, `connection-unknown`; `connection-conflict` when the order makes no sense in the present state, or when
    /// somebody else changed the connection meanwhile.
    pub async fn change(&self, name: &str, order: Order, by: &str, at: Time) -> Result<Connection> {
        let id = self.get(name).await?.id;
        let document = self.lake.connection(id).await?.ok_or_else(|| unknown(name))?;
        let mut connection = parse(&document)?;
        let before = connection.intent.status();
        if matches!(order, Order::Split(_)) {
            self.require_states(&connection).await?;
        }
        let (action, detail) = order.apply(&mut connection, by, at)?;
        let status = connection.intent.status();
        let change = change(&connection, action, by, at, detail);
        note(&mut connection, Change { status, status_before: before, ..change });
        self.lake.put_connection(id, json(&connection)?, Some(&document)).await?;
        self.record(&connection).await?;
        Ok(connection)
    }

    /// Fails while a shard of a connection has not taken over what the layout before knew: the next one would not find it.
    async fn require_states(&self, connection: &Connection) -> Result<()> {
        let states: Vec<Uuid> = connection.shards().iter().map(|shard| shard.state_id).collect();
        if connection.layout.generation == 0 || self.lake.has_states(&states).await? {
            return Ok(());
        }
        Err(Error::new(
            Code::ConnectionConflict,
            format!(
                "not every shard of the connection `{name}` has run since it was split the last time; \
                 `waybill run --connection '{name}'` runs them all",
                name = connection.name
            ),
        ))
    }

    /// Removes a connection. What it recorded stays, and so do its checkpoints.
    ///
    /// # Errors
    /// `connection-unknown`.
    pub async fn remove(&self, name: &str, by: &str, at: Time) -> Result<Connection> {
        let mut connection = self.get(name).await?;
        let removed = change(&connection, Action::Removed, by, at, String::new());
        let status_before = connection.intent.status();
        note(&mut connection, Change { status: Some(Status::Removed), status_before, detail: None, ..removed });
        // Recorded first: after the document is gone, nobody would know what is missing.
        self.record(&connection).await?;
        self.lake.delete_connection(connection.id).await?;
        Ok(connection)
    }

    /// Brings the document's changes into the lake's table, once each. Those of a change whose recording failed ride in
    /// the document until the next change.
    async fn record(&self, connection: &Connection) -> Result<()> {
        for (revision, change) in &connection.unrecorded {
            self.lake.record(std::slice::from_ref(change), &connection.id.to_string(), *revision).await?;
        }
        Ok(())
    }
}

/// What an administrator may order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// The tenant's administrator consented: monitor.
    Authorize,
    /// Monitor other people from now on; what was recorded stays.
    Rescope(Scope),
    /// Divide its mailboxes into so many shards, each with runs of its own.
    Split(u32),
    /// Leave it alone until it is resumed.
    Pause,
    /// Read it again, from where the last run stopped.
    Resume,
    /// Leave it alone until it is authorised anew.
    Deauthorize,
}

impl Order {
    fn apply(self, connection: &mut Connection, by: &str, at: Time) -> Result<(Action, String)> {
        let name = connection.name.clone();
        let refuse = |why: &str| Err(Error::new(Code::ConnectionConflict, format!("the connection `{name}` {why}")));
        Ok(match (self, connection.intent) {
            (Self::Authorize, intent) => {
                if intent == Intent::Deauthorize {
                    // Nobody wanted what was sent meanwhile to be read.
                    connection.since = connection.since.max(at);
                }
                connection.intent = if intent == Intent::Pause { Intent::Pause } else { Intent::Monitor };
                connection.authorized = Some(Authorization { at, by: by.to_owned() });
                (Action::Authorized, "an administrator of the tenant consented".to_owned())
            }
            (Self::Rescope(scope), _) => {
                let detail = format!("scope {} instead of {}", described(&scope), described(&connection.scope));
                connection.scope = scope;
                (Action::Rescoped, detail)
            }
            (Self::Split(shards), _) if !(1..=limits::SHARDS_MAX).contains(&shards) => {
                let most = limits::SHARDS_MAX;
                return Err(Error::new(Code::Usage, format!("a connection has from 1 to {most} shards, not {shards}")));
            }
            (Self::Split(shards), _) if shards == connection.layout.shards => {
                return refuse(&format!("has {} already", counted(shards)));
            }
            (Self::Split(shards), _) => {
                let detail = format!("{} instead of {}", counted(shards), connection.layout.shards);
                connection.layout = connection.layout.split(shards);
                (Action::Split, detail)
            }
            (Self::Pause, Intent::Monitor) => {
                connection.intent = Intent::Pause;
                (Action::Paused, "runs leave the connection alone".to_owned())
            }
            (Self::Pause, Intent::Pause) => return refuse("is paused already"),
            (Self::Resume, Intent::Pause) => {
                connection.intent = Intent::Monitor;
                (Action::Resumed, "the next run catches up with what the feed still holds".to_owned())
            }
            (Self::Resume, Intent::Monitor) => return refuse("is not paused"),
            (Self::Deauthorize, Intent::Monitor | Intent::Pause) => {
                connection.intent = Intent::Deauthorize;
                connection.authorized = None;
                (Action::Deauthorized, "runs no longer read the tenant".to_owned())
            }
            (Self::Deauthorize, Intent::Deauthorize) => return refuse("is deauthorised already"),
            (Self::Pause | Self::Resume, Intent::Deauthorize) => {
                return refuse("is deauthorised; `waybill connection authorize` starts it again");
            }
        })
    }
}

/// A number of shards for a person.
fn counted(shards: u32) -> String {
    format!("{shards} shard{}", if shards == 1 { "" } else { "s" })
}

/// A scope for a person.
fn described(scope: &Scope) -> String {
    match scope {
        Scope::All => "`all`".to_owned(),
        Scope::Users(entries) => format!("`users` ({} entries)", entries.len()),
        Scope::Groups(entries) => format!("`groups` ({} entries)", entries.len()),
    }
}

fn change(connection: &Connection, action: Action, by: &str, at: Time, detail: String) -> Change {
    Change {
        change_id: Uuid::new_v4().to_string(),
        changed_at: at,
        actor: by.to_owned(),
        action,
        connection_id: Some(connection.id.to_string()),
        connection_name: Some(connection.name.clone()),
        status: None,
        status_before: None,
        code: None,
        detail: Some(detail),
        run_id: None,
    }
}

/// Puts a change into the document. Older ones stay for as long as nobody can be sure that they were recorded: the last
/// few suffice, since each change records them all.
fn note(connection: &mut Connection, change: Change) {
    const KEPT: usize = 5;
    connection.revision += 1;
    connection.unrecorded.push((connection.revision, change));
    let surplus = connection.unrecorded.len().saturating_sub(KEPT);
    connection.unrecorded.drain(..surplus);
}

fn json(connection: &Connection) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(connection).or_error(Code::Internal, "cannot write a connection as JSON")
}

fn unknown(name: &str) -> Error {
    Error::new(Code::ConnectionUnknown, format!("there is no connection `{name}` any more"))
}

fn is_called(connection: &Connection, name: &str) -> bool {
    connection.name.to_lowercase() == name.trim().to_lowercase()
}

fn parse(document: &Versioned) -> Result<Connection> {
    serde_json::from_slice(&document.bytes)
        .or_error(Code::LakeDamaged, "a document of the connections' registry cannot be read")
}
