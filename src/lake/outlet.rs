//! A place outside of the lake where files are put: what an export writes to.
//!
//! Each file is one put, which every store makes visible at once or not at all.

use std::fs::File;

use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutPayload};

use super::Versioned;
use super::store::{self, Location, store_error};
use crate::error::{Code, Error, Result, ResultExt};

/// Where files are put, below a URL.
#[derive(Clone, Debug)]
pub struct Outlet {
    at: Location,
}

impl Outlet {
    /// A place at a URL like a lake's, or a path. Nothing is asked of the storage yet.
    ///
    /// # Errors
    /// `configuration` when the URL names no store.
    pub fn at(url: &str) -> Result<Self> {
        Ok(Self { at: store::open(store::parse_url(url)?)? })
    }

    pub(super) fn location(&self) -> &Location {
        &self.at
    }

    /// Holds a folder of this machine for one process, until what is returned is dropped; other storage compares the
    /// versions of documents and needs nothing to hold.
    ///
    /// # Errors
    /// `run-in-progress` when another process holds it; `lake-not-writable`.
    pub async fn hold(&self, name: &str) -> Result<Option<File>> {
        if self.at.url.scheme() != "file" {
            return Ok(None);
        }
        self.put(name, Vec::new()).await?;
        let doing = || format!("cannot hold `{}`", self.at.url);
        let folder = self.at.url.to_file_path().map_err(|()| Error::new(Code::Configuration, doing()))?;
        let file = File::open(folder.join(name)).or_error(Code::LakeNotWritable, doing())?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(std::fs::TryLockError::WouldBlock) => Err(self.busy()),
            Err(std::fs::TryLockError::Error(error)) => Err(error).or_error(Code::LakeNotWritable, doing()),
        }
    }

    /// A document and its version; nothing when it is not there. `name` has slashes between its folders.
    ///
    /// # Errors
    /// `lake-unavailable`.
    pub async fn document(&self, name: &str) -> Result<Option<Versioned>> {
        store::document(&self.at, &self.path(name)).await
    }

    /// Writes a document: as a new one, or over the version that was read; returns the one that it is now.
    ///
    /// # Errors
    /// `run-in-progress` when somebody else was faster; `lake-unavailable`, `lake-not-writable`.
    pub async fn put_document(&self, name: &str, bytes: Vec<u8>, over: Option<&Versioned>) -> Result<Versioned> {
        let path = self.path(name);
        let doing = format!("cannot write `{path}` below `{}`", self.at.url);
        match store::put_document(&self.at, &path, bytes, over, doing).await {
            Err(error) if error.code() == Code::ConnectionConflict => Err(self.busy()),
            put => put,
        }
    }

    fn busy(&self) -> Error {
        Error::new(Code::RunInProgress, format!("another export to `{}` is at work", self.at.url))
    }

    /// Writes a file, whole, over what was there.
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-not-writable`.
    pub async fn put(&self, name: &str, bytes: impl Into<PutPayload>) -> Result<()> {
        let path = self.path(name);
        let put = self.at.store.put(&path, bytes.into()).await;
        put.map(drop).map_err(|error| store_error(error, format!("cannot write `{path}` below `{}`", self.at.url)))
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.at.root.clone(), |path, part| path.join(part))
    }
}
