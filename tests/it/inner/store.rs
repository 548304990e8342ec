//! A store in memory whose writes fail on demand: before they take effect, after it (the answer is lost), or by never
//! returning, so that the test can kill whoever waits. It counts what is read, too.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use tokio::sync::Notify;

/// How a write fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// With an error, and nothing was written.
    Before,
    /// With the refusal of a storage that lets nobody write.
    Denied,
    /// With an error, although it was written.
    After,
    /// It never returns, and nothing was written.
    HangBefore,
    /// It never returns, although it was written.
    HangAfter,
}

/// The store.
#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: Arc<InMemory>,
    writes: AtomicU64,
    bytes_read: AtomicU64,
    fails_at: u64,
    failure: Failure,
    /// Told when a write hangs.
    pub(crate) hung: Notify,
}

impl FaultyStore {
    /// The nth write from now on fails; 0: none.
    pub(crate) fn new(inner: Arc<InMemory>, fails_at: u64, failure: Failure) -> Arc<Self> {
        Arc::new(Self {
            inner,
            writes: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            fails_at,
            failure,
            hung: Notify::new(),
        })
    }

    /// How many writes there were.
    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    /// How many bytes were asked for since the last time.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read.swap(0, Ordering::SeqCst)
    }

    async fn fail(&self, path: &Path) -> object_store::Error {
        if matches!(self.failure, Failure::HangBefore | Failure::HangAfter) {
            self.hung.notify_one();
            std::future::pending::<()>().await;
        }
        if self.failure == Failure::Denied {
            return object_store::Error::PermissionDenied { path: path.to_string(), source: "read only".into() };
        }
        object_store::Error::Generic {
            store: "faulty",
            source: format!("the write of `{path}` was made to fail").into(),
        }
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({:?} at {})", self.failure, self.fails_at)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if self.writes.fetch_add(1, Ordering::SeqCst) + 1 != self.fails_at {
            return self.inner.put_opts(path, payload, options).await;
        }
        if matches!(self.failure, Failure::After | Failure::HangAfter) {
            self.inner.put_opts(path, payload, options).await?;
        }
        Err(self.fail(path).await)
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let answer = self.inner.get_opts(path, options).await?;
        self.bytes_read.fetch_add(answer.range.end - answer.range.start, Ordering::SeqCst);
        Ok(answer)
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.bytes_read.fetch_add(ranges.iter().map(|range| range.end - range.start).sum(), Ordering::SeqCst);
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}
