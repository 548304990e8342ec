//! Tables in object storage: what is promised to be there, and how it gets there.
//!
//! [`Lake`] is the root URL; `commit` is the only place that makes rows or state visible, `maintain` the only one that
//! rewrites or deletes. `table` drives the Delta library, with `delivery` for tables of others; `parquet` lays files out, and
//! `blooms` says where look-ups find what they need; `store` alone builds object stores, `paths` alone knows where things are.
//!
//! May use: `event`, and the base. Knows nothing of Microsoft, of what a run's state says, or of SQL.

mod blooms;
mod checkpoint;
mod commit;
mod delivery;
mod index;
mod known;
mod log_memory;
mod maintain;
mod outlet;
mod parquet;
mod paths;
mod shard;
mod store;
mod table;

use std::sync::Arc;

use futures::TryStreamExt as _;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload, UpdateVersion};
use serde::de::DeserializeOwned;
use url::Url;
use uuid::Uuid;

pub use self::blooms::BloomPlaces;
pub use self::checkpoint::{Checkpoint, Outbox};
pub use self::commit::{Commit, Committed, Writer};
pub use self::delivery::{Delivered, Delivery};
pub use self::maintain::{Maintained, Maintenance};
pub use self::outlet::Outlet;
pub use self::shard::Shard;
pub use self::table::{DataFile, Table};
use crate::error::{Code, Error, Result};
use crate::event::schema::TableName;
use crate::event::{Change, Searched};
use store::{Location, store_error};

/// The tables, registry and checkpoints below one URL.
#[derive(Clone, Debug)]
pub struct Lake {
    at: Location,
}

/// A document of the registry and the version that a change must build on.
#[derive(Clone, Debug)]
pub struct Versioned {
    /// The document, JSON.
    pub bytes: bytes::Bytes,
    version: UpdateVersion,
}

impl Lake {
    /// A lake at a URL (`file://`, `s3://`, `az://`, `gs://`) or path. Nothing is asked of the storage yet.
    ///
    /// # Errors
    /// `configuration` when the URL names no store.
    pub fn at(url: &str) -> Result<Self> {
        Ok(Self { at: store::open(store::parse_url(url)?)? })
    }

    /// A lake in a store that a test or program made by itself; `url` says how it is called.
    ///
    /// # Errors
    /// `configuration` when the URL cannot be used.
    pub fn with_store(url: &str, store: Arc<dyn ObjectStore>) -> Result<Self> {
        let mut at = store::open(store::parse_url(url)?)?;
        at.store = store;
        Ok(Self { at })
    }

    /// The root, with a slash at its end.
    pub fn url(&self) -> &Url {
        &self.at.url
    }

    /// Creates the tables that are missing, so that everything can be asked for from the first moment.
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-damaged`.
    pub async fn create(&self) -> Result<()> {
        for table in TableName::ALL {
            Table::open_or_create(&self.at.remembering_logs(), table).await?;
        }
        Ok(())
    }

    /// Opens a table for reading, at its newest version.
    ///
    /// # Errors
    /// `no-lake` when the table is not there.
    pub async fn table(&self, name: TableName) -> Result<Table> {
        self.table_if_there(name).await?.ok_or_else(|| {
            Error::new(Code::NoLake, format!("there is no lake at `{}`: it has no table `{name}`", self.url()))
        })
    }

    /// Opens a table for reading; nothing where the lake is older than the table.
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-damaged`.
    pub async fn table_if_there(&self, name: TableName) -> Result<Option<Table>> {
        Table::open(&self.at.remembering_logs(), name).await
    }

    /// Records changes that no run makes, once: `revision` numbers the changes of `subject`, and grows.
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-not-writable`, `lake-damaged`.
    pub async fn record(&self, changes: &[Change], subject: &str, revision: i64) -> Result<()> {
        commit::append_once(&self.at.remembering_logs(), &format!("changes/{subject}"), revision, changes).await
    }

    /// Records searches as evidence, in one commit. `search_id` tells rows apart that come twice because the storage's
    /// answer got lost.
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-not-writable`, `lake-damaged`.
    pub async fn record_searches(&self, searches: &[Searched]) -> Result<()> {
        commit::append_rows(&self.at.remembering_logs(), searches).await
    }

    /// Tries whether the storage lets Waybill write and delete, with an object of its own.
    ///
    /// # Errors
    /// `lake-not-writable`, `lake-unavailable`.
    pub async fn probe(&self) -> Result<()> {
        let path = paths::probe(&self.at.root, Uuid::new_v4());
        let doing = |what: &str| format!("cannot {what} `{path}` in the lake `{}`", self.url());
        let put = self.at.store.put(&path, PutPayload::from_static(b"probe")).await;
        put.map_err(|error| store_error(error, doing("write")))?;
        self.at.store.delete(&path).await.map_err(|error| store_error(error, doing("delete")))
    }

    /// Fails unless the lake is there.
    ///
    /// # Errors
    /// `no-lake`.
    pub async fn require(&self) -> Result<()> {
        self.table(TableName::FileEvents).await.map(drop)
    }

    /// Opens a state for a run that will commit; see [`Writer`].
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-damaged`.
    pub async fn writer<S: DeserializeOwned>(&self, state_id: Uuid, run_id: Uuid) -> Result<(Writer, Option<S>)> {
        Writer::open(&self.at.remembering_logs(), state_id, run_id).await
    }

    /// The effective state of a shard, for a person who asks; nothing before the first commit.
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-damaged`.
    pub async fn checkpoint<S: DeserializeOwned>(&self, state_id: Uuid) -> Result<Option<Checkpoint<S>>> {
        let Some(events) = self.table_if_there(TableName::FileEvents).await? else { return Ok(None) };
        match events.transaction(&state_id.to_string()).await? {
            0 => Ok(None),
            number => checkpoint::read(&self.at, state_id, number).await.map(Some),
        }
    }

    /// Whether each of these states was ever committed.
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-damaged`.
    pub async fn has_states(&self, state_ids: &[Uuid]) -> Result<bool> {
        let Some(events) = self.table_if_there(TableName::FileEvents).await? else { return Ok(false) };
        for id in state_ids {
            if events.transaction(&id.to_string()).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Maintains every table and the checkpoints of the given states.
    ///
    /// # Errors
    /// `no-lake`, `lake-unavailable`, `lake-damaged`.
    pub async fn maintain(&self, state_ids: &[Uuid], maintenance: Maintenance) -> Result<Vec<Maintained>> {
        self.require().await?;
        let mut reports = Vec::new();
        for table in TableName::ALL {
            reports.extend(maintain::table(&self.at.remembering_logs(), table, maintenance).await?);
        }
        let events = self.table(TableName::FileEvents).await?;
        for id in state_ids {
            let effective = events.transaction(&id.to_string()).await?;
            checkpoint::expire(&self.at, *id, effective).await?;
        }
        Ok(reports)
    }

    /// Every document of the connections' registry.
    ///
    /// # Errors
    /// `lake-unavailable`.
    pub async fn connections(&self) -> Result<Vec<Versioned>> {
        let folder = paths::connections(&self.at.root);
        let doing = || format!("cannot read the connections of `{}`", self.url());
        let mut listing = self.at.store.list(Some(&folder));
        let mut documents = Vec::new();
        while let Some(object) = listing.try_next().await.map_err(|error| store_error(error, doing()))? {
            if object.location.extension() == Some("json") {
                documents.extend(self.document(&object.location).await?);
            }
        }
        Ok(documents)
    }

    /// One document of the registry; nothing when there is none.
    ///
    /// # Errors
    /// `lake-unavailable`.
    pub async fn connection(&self, id: Uuid) -> Result<Option<Versioned>> {
        self.document(&paths::connection(&self.at.root, id)).await
    }

    /// Writes a document of the registry: as a new one, or over the version that was read.
    ///
    /// # Errors
    /// `connection-conflict` when somebody else was faster; `lake-unavailable`.
    pub async fn put_connection(&self, id: Uuid, bytes: Vec<u8>, over: Option<&Versioned>) -> Result<()> {
        self.put(paths::connection(&self.at.root, id), bytes, over, format!("cannot write the connection `{id}`")).await
    }

    /// The document of the server's API tokens; nothing when there never was one.
    ///
    /// # Errors
    /// `lake-unavailable`.
    pub async fn tokens(&self) -> Result<Option<Versioned>> {
        self.document(&paths::tokens(&self.at.root)).await
    }

    /// Writes the document of the server's API tokens: as a new one, or over the version that was read.
    ///
    /// # Errors
    /// `connection-conflict` when somebody else was faster; `lake-unavailable`.
    pub async fn put_tokens(&self, bytes: Vec<u8>, over: Option<&Versioned>) -> Result<()> {
        self.put(paths::tokens(&self.at.root), bytes, over, "cannot write the API tokens".to_owned()).await
    }

    /// The document of the saved searches; nothing when there never was one.
    ///
    /// # Errors
    /// `lake-unavailable`.
    pub async fn saved_searches(&self) -> Result<Option<Versioned>> {
        self.document(&paths::saved_searches(&self.at.root)).await
    }

    /// Writes the document of the saved searches: as a new one, or over the version that was read.
    ///
    /// # Errors
    /// `connection-conflict` when somebody else was faster; `lake-unavailable`.
    pub async fn put_saved_searches(&self, bytes: Vec<u8>, over: Option<&Versioned>) -> Result<()> {
        self.put(paths::saved_searches(&self.at.root), bytes, over, "cannot write the saved searches".to_owned()).await
    }

    /// The lake's own rules of risk; nothing where the default ones apply.
    ///
    /// # Errors
    /// `lake-unavailable`.
    pub async fn risk_rules(&self) -> Result<Option<Versioned>> {
        self.document(&paths::risk_rules(&self.at.root)).await
    }

    /// Writes the lake's own rules of risk: as new ones, or over the version that was read.
    ///
    /// # Errors
    /// `connection-conflict` when somebody else was faster; `lake-unavailable`.
    pub async fn put_risk_rules(&self, bytes: Vec<u8>, over: Option<&Versioned>) -> Result<()> {
        self.put(paths::risk_rules(&self.at.root), bytes, over, "cannot write the rules of risk".to_owned()).await
    }

    async fn put(
        &self,
        path: object_store::path::Path,
        bytes: Vec<u8>,
        over: Option<&Versioned>,
        doing: String,
    ) -> Result<()> {
        store::put_document(&self.at, &path, bytes, over, doing).await.map(drop)
    }

    /// Removes a document of the registry; the rows that its connection wrote stay.
    ///
    /// # Errors
    /// `lake-unavailable`.
    pub async fn delete_connection(&self, id: Uuid) -> Result<()> {
        let path = paths::connection(&self.at.root, id);
        match self.at.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(store_error(error, format!("cannot remove the connection `{id}`"))),
        }
    }

    async fn document(&self, path: &object_store::path::Path) -> Result<Option<Versioned>> {
        store::document(&self.at, path).await
    }
}
