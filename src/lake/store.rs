//! A lake's URL → the object store behind it.
//!
//! The stores of the `object_store` package are taken as they are: they retry, and they put conditionally, which is
//! what a commit needs. Settings and credentials come from the environment variables that each cloud's own tools use
//! (`AWS_…`, `AZURE_…`, `GOOGLE_…`), never from the URL.

use std::path::Path as FilePath;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{
    ObjectStore, ObjectStoreExt as _, ObjectStoreScheme, PutMode, PutOptions, PutPayload, UpdateVersion,
};
use url::Url;

use super::Versioned;
use super::log_memory::LogMemory;
use crate::error::{Code, Error, Result, ResultExt};

/// An object store and the place of a lake in it.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    /// The store, rooted at the bucket, container or file system.
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The lake's root in the store.
    pub(crate) root: Path,
    /// The lake's root as a URL that ends with a slash.
    pub(crate) url: Url,
}

impl Location {
    /// The same place, for somebody who reads logs: each entry is asked for once.
    pub(super) fn remembering_logs(&self) -> Self {
        Self { store: Arc::new(LogMemory::over(Arc::clone(&self.store))), ..self.clone() }
    }
}

/// Parses a lake's URL; a plain path is one of this machine.
///
/// # Errors
/// `configuration` when the URL names no store, or carries a user or password.
pub(crate) fn parse_url(text: &str) -> Result<Url> {
    let url = match Url::parse(text) {
        // A single letter is a Windows drive and not a scheme.
        Ok(url) if url.scheme().len() > 1 => url,
        _ => {
            let path = std::path::absolute(FilePath::new(text))
                .or_error(Code::Configuration, format!("`{text}` is neither a URL nor a path"))?;
            Url::from_directory_path(&path)
                .map_err(|()| Error::new(Code::Configuration, format!("`{text}` is neither a URL nor a path")))?
        }
    };
    if url.password().is_some() || url.query().is_some() {
        return Err(Error::new(
            Code::Configuration,
            "the lake's URL must not carry a password or a query; credentials come from the environment",
        ));
    }
    let mut url = url;
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

/// Opens the store of a lake; asks nothing of it yet.
///
/// # Errors
/// `configuration` when the scheme is unknown or a setting of the environment cannot be used.
pub(crate) fn open(url: Url) -> Result<Location> {
    let describe = |error: object_store::Error| {
        Error::new(Code::Configuration, format!("cannot open the lake `{url}`: {error}")).caused_by(error)
    };
    let (scheme, root) = ObjectStoreScheme::parse(&url)
        .map_err(|error| Error::new(Code::Configuration, format!("`{url}` is not a lake's URL: {error}")))?;
    if matches!(scheme, ObjectStoreScheme::Http) {
        return Err(Error::new(
            Code::Configuration,
            format!("`{url}` is not a lake's URL: use file://, s3://, az:// or gs://"),
        ));
    }
    if scheme == ObjectStoreScheme::Local {
        let path = url
            .to_file_path()
            .map_err(|()| Error::new(Code::Configuration, format!("`{url}` is not a path of this machine")))?;
        let store = object_store::local::LocalFileSystem::new();
        let root =
            Path::from_absolute_path(&path).or_error(Code::Configuration, format!("cannot open the lake `{url}`"))?;
        return Ok(Location { store: Arc::new(store), root, url });
    }
    let settings = std::env::vars()
        .filter(|(name, _)| ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|cloud| name.starts_with(cloud)))
        .map(|(name, value)| (name.to_ascii_lowercase(), value));
    let (store, _) = object_store::parse_url_opts(&url, settings).map_err(describe)?;
    Ok(Location { store: Arc::from(store), root, url })
}

/// A document and its version; nothing when it is not there.
pub(super) async fn document(at: &Location, path: &Path) -> Result<Option<Versioned>> {
    let doing = || format!("cannot read `{path}` below `{}`", at.url);
    let answer = match at.store.get(path).await {
        Ok(answer) => answer,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(store_error(error, doing())),
    };
    let version = UpdateVersion { e_tag: answer.meta.e_tag.clone(), version: answer.meta.version.clone() };
    let bytes = answer.bytes().await.or_error(Code::LakeUnavailable, doing())?;
    Ok(Some(Versioned { bytes, version }))
}

/// Writes a document: as a new one, or over the version that was read. `connection-conflict` when somebody was faster.
pub(super) async fn put_document(
    at: &Location,
    path: &Path,
    bytes: Vec<u8>,
    over: Option<&Versioned>,
    doing: String,
) -> Result<Versioned> {
    let bytes = bytes::Bytes::from(bytes);
    let payload = PutPayload::from(bytes.clone());
    let mode = over.map_or(PutMode::Create, |document| PutMode::Update(document.version.clone()));
    let options = PutOptions { mode, ..Default::default() };
    let answer = match at.store.put_opts(path, payload.clone(), options).await {
        // A local file system cannot compare versions; there, the last writer wins.
        Err(object_store::Error::NotImplemented { .. }) => at.store.put(path, payload).await,
        answer => answer,
    };
    let put = answer.map_err(|error| store_error(error, doing))?;
    Ok(Versioned { bytes, version: UpdateVersion { e_tag: put.e_tag, version: put.version } })
}

/// What a failed request to the store means.
pub(crate) fn store_error(error: object_store::Error, doing: impl std::fmt::Display) -> Error {
    use object_store::Error as Store;
    let code = match &error {
        Store::AlreadyExists { .. } | Store::Precondition { .. } => Code::ConnectionConflict,
        Store::NotFound { .. } => Code::LakeDamaged,
        error => cause_in_store(error).unwrap_or(Code::LakeUnavailable),
    };
    Error::new(code, format!("{doing}: {error}")).caused_by(error)
}

/// What a failure of another library means when the store stands behind it; nothing when it does not.
pub(super) fn cause_in_store(error: &(dyn std::error::Error + 'static)) -> Option<Code> {
    use object_store::Error as Store;
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    let mut found = None;
    let mut cause = Some(error);
    while let Some(error) = cause {
        match error.downcast_ref() {
            // The store answers and says no: wrong rights or no credentials.
            Some(Store::PermissionDenied { .. } | Store::Unauthenticated { .. }) => return Some(Code::LakeNotWritable),
            Some(Store::NotFound { .. }) | None => {}
            Some(_) => found = Some(Code::LakeUnavailable),
        }
        let mut inner = None;
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            if matches!(io.kind(), PermissionDenied | ReadOnlyFilesystem) {
                return Some(Code::LakeNotWritable);
            }
            // Its `source` is that of what it wraps, and leaves the wrapped error out.
            inner = io.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static));
        }
        cause = inner.or_else(|| error.source());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_path_is_a_lake_of_this_machine() {
        assert_eq!(parse_url("/tmp/a lake").unwrap().as_str(), "file:///tmp/a%20lake/");
        assert_eq!(parse_url("s3://bucket/lake").unwrap().as_str(), "s3://bucket/lake/");
    }

    #[test]
    fn credentials_in_a_url_are_refused_and_not_repeated() {
        let error = parse_url("s3://user:hunter2@bucket/lake").unwrap_err();
        assert_eq!(error.code(), Code::Configuration);
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn a_url_without_a_store_is_refused() {
        assert_eq!(open(parse_url("ftp://host/lake").unwrap()).unwrap_err().code(), Code::Configuration);
        assert_eq!(open(parse_url("https://host/lake").unwrap()).unwrap_err().code(), Code::Configuration);
    }
}
