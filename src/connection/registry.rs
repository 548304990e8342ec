//! `connections/<id>.json`: the connections of a lake.

use uuid::Uuid;

use super::Connection;
use crate::error::{Code, Error, Result, ResultExt};
use crate::lake::{Lake, Versioned};

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

    /// Adds a connection; begins the lake when there is none.
    ///
    /// # Errors
    /// `connection-conflict` when the name is taken.
    pub async fn add(&self, connection: &Connection) -> Result<()> {
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
        let bytes =
            serde_json::to_vec_pretty(connection).or_error(Code::Internal, "cannot write a connection as JSON")?;
        self.lake.put_connection(connection.id, bytes, None).await?;
        // Two may have added the same name at the same moment; the older one stays.
        if rival(&self.list().await?) {
            self.lake.delete_connection(connection.id).await?;
            return Err(taken());
        }
        Ok(())
    }

    /// Removes a connection. What it recorded stays, and so do its checkpoints.
    ///
    /// # Errors
    /// `connection-unknown`.
    pub async fn remove(&self, name: &str) -> Result<Connection> {
        let connection = self.get(name).await?;
        self.lake.delete_connection(connection.id).await?;
        Ok(connection)
    }
}

fn is_called(connection: &Connection, name: &str) -> bool {
    connection.name.to_lowercase() == name.trim().to_lowercase()
}

fn parse(document: &Versioned) -> Result<Connection> {
    serde_json::from_slice(&document.bytes)
        .or_error(Code::LakeDamaged, "a document of the connections' registry cannot be read")
}
