//! A store in memory that answers as slowly as one far away, and counts what it is asked.

#![allow(dead_code, reason = "benches and tests use their parts of it")]

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

/// Objects on a page of a listing, as S3 has it.
const PAGE: usize = 1_000;

/// Ranges of one object that are closer than this become one request, as the clients of `object_store` do it.
const COALESCED: u64 = 1024 * 1024;

/// The store; a clone is the same one.
#[derive(Clone, Debug)]
pub(crate) struct Remote(Arc<State>);

#[derive(Debug)]
struct State {
    inner: InMemory,
    latency_ms: AtomicU64,
    asked: [AtomicU64; KINDS.len()],
    read: AtomicU64,
    written: AtomicU64,
}

/// The kinds of requests, as S3 calls them.
pub(crate) const KINDS: [&str; 5] = ["GET", "HEAD", "LIST", "PUT", "DELETE"];

#[derive(Clone, Copy)]
enum Kind {
    Get,
    Head,
    List,
    Put,
    Delete,
}

/// What a store was asked.
#[derive(Clone, Copy, Default)]
pub(crate) struct Asked {
    /// Requests by kind, like [`KINDS`].
    pub(crate) requests: [u64; KINDS.len()],
    pub(crate) read: u64,
    pub(crate) written: u64,
}

impl Asked {
    pub(crate) fn all(&self) -> u64 {
        self.requests.iter().sum()
    }
}

impl Remote {
    /// An empty store without latency.
    pub(crate) fn new() -> Self {
        Self::holding(InMemory::new())
    }

    /// Another store with the same objects, without latency.
    pub(crate) fn copy(&self) -> Self {
        Self::holding(self.0.inner.fork())
    }

    fn holding(inner: InMemory) -> Self {
        Self(Arc::new(State {
            inner,
            latency_ms: AtomicU64::new(0),
            asked: Default::default(),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }))
    }

    /// From now on each request takes so long before it is served.
    pub(crate) fn set_latency(&self, latency: Duration) {
        self.0.latency_ms.store(u64::try_from(latency.as_millis()).expect("a short time"), Ordering::SeqCst);
    }

    /// What it was asked since the last time.
    pub(crate) fn take(&self) -> Asked {
        Asked {
            requests: std::array::from_fn(|kind| self.0.asked[kind].swap(0, Ordering::SeqCst)),
            read: self.0.read.swap(0, Ordering::SeqCst),
            written: self.0.written.swap(0, Ordering::SeqCst),
        }
    }

    async fn request(&self, kind: Kind, count: u64) {
        self.0.asked[kind as usize].fetch_add(count, Ordering::SeqCst);
        self.wait().await;
    }

    async fn wait(&self) {
        let latency = self.0.latency_ms.load(Ordering::SeqCst);
        if latency > 0 {
            tokio::time::sleep(Duration::from_millis(latency)).await;
        }
    }

    async fn listing(&self, objects: Vec<Result<ObjectMeta>>) -> Vec<Result<ObjectMeta>> {
        // A page names the next one, so they come one after the other.
        for _ in 0..objects.len().div_ceil(PAGE).max(1) {
            self.request(Kind::List, 1).await;
        }
        objects
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remote")
    }
}

#[async_trait]
impl ObjectStore for Remote {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.written.fetch_add(payload.content_length() as u64, Ordering::SeqCst);
        self.request(Kind::Put, 1).await;
        self.0.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        // To begin one and to complete it; its parts are not counted, since no file of these benches needs any.
        self.request(Kind::Put, 2).await;
        self.0.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let kind = if options.head { Kind::Head } else { Kind::Get };
        self.request(kind, 1).await;
        let is_read = !options.head;
        let answer = self.0.inner.get_opts(path, options).await?;
        if is_read {
            self.0.read.fetch_add(answer.range.end - answer.range.start, Ordering::SeqCst);
        }
        Ok(answer)
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let mut sorted = ranges.to_vec();
        sorted.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.start <= last.end + COALESCED => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        self.0.read.fetch_add(merged.iter().map(|range| range.end - range.start).sum(), Ordering::SeqCst);
        // Side by side.
        self.request(Kind::Get, merged.len() as u64).await;
        self.0.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let remote = self.clone();
        let deleted = paths.try_chunks(PAGE).map_err(|error| error.1).and_then(move |paths| {
            let remote = remote.clone();
            async move {
                remote.request(Kind::Delete, 1).await;
                let paths = futures::stream::iter(paths.into_iter().map(Ok)).boxed();
                let deleted: Vec<Result<Path>> = remote.0.inner.delete_stream(paths).collect().await;
                Ok::<_, object_store::Error>(futures::stream::iter(deleted))
            }
        });
        deleted.try_flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (remote, objects) = (self.clone(), self.0.inner.list(prefix));
        let pages = async move { futures::stream::iter(remote.listing(objects.collect().await).await) };
        futures::stream::once(pages).flatten().boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let (remote, objects) = (self.clone(), self.0.inner.list_with_offset(prefix, offset));
        let pages = async move { futures::stream::iter(remote.listing(objects.collect().await).await) };
        futures::stream::once(pages).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.request(Kind::List, 1).await;
        self.0.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.request(Kind::Put, 1).await;
        self.0.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        // Stores have no such thing: a copy and a deletion.
        self.request(Kind::Put, 1).await;
        self.request(Kind::Delete, 1).await;
        self.0.inner.rename_opts(from, to, options).await
    }
}
