//! What somebody has read or written of the tables' logs, kept in memory.
//!
//! The version that a commit follows is read from the log: up to twenty versions since its last checkpoint, for each question
//! anew. An entry of the log never changes once it is there, which is what Delta builds on, so each is asked for once. Only
//! they are kept: what may change (`_last_checkpoint`, documents) and what is large (data files) passes through. It lives as
//! long as one run or one open table, so that a lake that is made anew at the same place has no past here.
//!
//! A listing of a log comes before its newest entries are read, the checkpoint in four parts and twice over, one after the other.
//! So they are read at once, side by side, as soon as the listing names them: to a storage that takes 30 ms for an answer, a table
//! opens after three of them instead of sixteen.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use crate::clock::Clock;
use crate::limits;

/// A store in front of another one, which remembers the entries of logs. A clone is the same one.
#[derive(Clone, Debug)]
pub(super) struct LogMemory {
    inner: Arc<dyn ObjectStore>,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    entries: HashMap<Path, (ObjectMeta, Bytes)>,
    /// The oldest first.
    order: VecDeque<Path>,
    bytes: usize,
}

impl LogMemory {
    /// One that has read nothing yet.
    pub(super) fn over(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, held: Arc::default() }
    }

    /// An entry, asked for if it is not known; nothing when it is none, or too large to be kept.
    async fn entry(&self, path: &Path) -> Result<Option<(ObjectMeta, Bytes)>> {
        if !is_entry(path) {
            return Ok(None);
        }
        let known = self.held().entries.get(path).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let answer = self.inner.get_opts(path, GetOptions::default()).await?;
        if answer.meta.size > limits::LOG_ENTRY_BYTES {
            return Ok(None);
        }
        let meta = answer.meta.clone();
        let bytes = answer.bytes().await?;
        self.keep(meta.clone(), bytes.clone());
        Ok(Some((meta, bytes)))
    }

    fn keep(&self, meta: ObjectMeta, bytes: Bytes) {
        let mut held = self.held();
        let path = meta.location.clone();
        held.bytes += bytes.len();
        match held.entries.insert(path.clone(), (meta, bytes)) {
            Some((_, before)) => held.bytes -= before.len(),
            None => held.order.push_back(path),
        }
        while held.bytes > limits::LOG_BYTES {
            let Some(oldest) = held.order.pop_front() else { break };
            let forgotten = held.entries.remove(&oldest).map_or(0, |(_, bytes)| bytes.len());
            held.bytes -= forgotten;
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A listing, after what it says of the newest state of a log has been read. What fails is asked for again by who needs it,
    /// and fails there.
    fn ahead(&self, listing: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        let memory = self.clone();
        let listed = async move {
            let listed: Vec<Result<ObjectMeta>> = listing.collect().await;
            let newest = newest_state(listed.iter().flatten());
            stream::iter(newest)
                .for_each_concurrent(limits::LOG_ENTRIES_AT_ONCE, async |path| {
                    let _ = memory.entry(&path).await;
                })
                .await;
            stream::iter(listed)
        };
        stream::once(listed).flatten().boxed()
    }
}

/// An entry of a log: a version, or a checkpoint of it. The name begins with the version in 20 digits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    Version(u64),
    Checkpoint(u64),
}

/// What a path is an entry of, if it is one.
fn entry(path: &Path) -> Option<Entry> {
    let parts: Vec<_> = path.parts().collect();
    let [.., folder, name] = parts.as_slice() else { return None };
    let (version, kind) = name.as_ref().split_once('.')?;
    let is_version = version.len() == 20 && version.bytes().all(|byte| byte.is_ascii_digit());
    let version = version.parse().ok().filter(|_| is_version && folder.as_ref() == "_delta_log")?;
    match kind {
        "json" => Some(Entry::Version(version)),
        _ if kind.starts_with("checkpoint") && kind.ends_with(".parquet") => Some(Entry::Checkpoint(version)),
        _ => None,
    }
}

fn is_entry(path: &Path) -> bool {
    entry(path).is_some()
}

/// Of the entries that a listing names those that tell a table's newest state: the last checkpoint and the versions after it.
/// Nothing where that is more than is kept.
fn newest_state<'a>(listed: impl Iterator<Item = &'a ObjectMeta>) -> Vec<Path> {
    let entries: Vec<_> = listed.filter_map(|object| Some((entry(&object.location)?, object))).collect();
    let checkpoint = entries.iter().filter_map(|(entry, _)| match entry {
        Entry::Checkpoint(version) => Some(*version),
        Entry::Version(_) => None,
    });
    let checkpoint = checkpoint.max();
    let is_newest = |entry: Entry| match entry {
        Entry::Checkpoint(version) => Some(version) == checkpoint,
        Entry::Version(version) => checkpoint.is_none_or(|checkpoint| version > checkpoint),
    };
    let newest: Vec<_> = entries.iter().filter(|(entry, _)| is_newest(*entry)).map(|(_, object)| *object).collect();
    let bytes: u64 = newest.iter().map(|object| object.size).sum();
    if bytes > limits::LOG_BYTES as u64 {
        return Vec::new();
    }
    let small = newest.iter().filter(|object| object.size <= limits::LOG_ENTRY_BYTES);
    small.map(|object| object.location.clone()).collect()
}

impl fmt::Display for LogMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for LogMemory {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let is_new_entry = options.mode == PutMode::Create && is_entry(path);
        let written = is_new_entry.then(|| payload.clone());
        let put = self.inner.put_opts(path, payload, options).await?;
        if let Some(payload) = written {
            let bytes = Bytes::from(payload);
            let (size, last_modified) = (bytes.len() as u64, Clock::default().now());
            let (e_tag, version) = (put.e_tag.clone(), put.version.clone());
            self.keep(ObjectMeta { location: path.clone(), last_modified, size, e_tag, version }, bytes);
        }
        Ok(put)
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let GetOptions { if_match, if_none_match, if_modified_since, if_unmodified_since, version, .. } = &options;
        let is_plain = if_match.is_none()
            && if_none_match.is_none()
            && if_modified_since.is_none()
            && if_unmodified_since.is_none()
            && version.is_none()
            && !options.head;
        let entry = if is_plain { self.entry(path).await? } else { None };
        let Some((meta, bytes)) = entry else { return self.inner.get_opts(path, options).await };
        let range = match &options.range {
            None => 0..meta.size,
            Some(range) => match range.as_range(meta.size) {
                Ok(range) => range,
                // The store says it in its own words.
                Err(_) => return self.inner.get_opts(path, options).await,
            },
        };
        let bytes = slice(&bytes, &range);
        let payload = GetResultPayload::Stream(stream::once(std::future::ready(Ok(bytes))).boxed());
        Ok(GetResult { payload, meta, range, attributes: Attributes::default() })
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match self.entry(path).await? {
            Some((meta, bytes)) if ranges.iter().all(|range| range.start <= range.end && range.end <= meta.size) => {
                Ok(ranges.iter().map(|range| slice(&bytes, range)).collect())
            }
            _ => self.inner.get_ranges(path, ranges).await,
        }
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.ahead(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.ahead(self.inner.list_with_offset(prefix, offset))
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

/// A part of an entry, which is short enough to be counted in `usize`.
fn slice(bytes: &Bytes, range: &Range<u64>) -> Bytes {
    let place = |place: u64| usize::try_from(place).unwrap_or(bytes.len());
    bytes.slice(place(range.start)..place(range.end))
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use object_store::{GetRange, ObjectStoreExt as _};

    use super::*;

    const ENTRY: &str = "lake/runs/_delta_log/00000000000000000007.json";

    async fn text(store: &dyn ObjectStore, path: &str) -> String {
        let bytes = store.get_opts(&Path::from(path), GetOptions::default()).await.unwrap().bytes().await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// What lies below changes behind its back, which entries of a log never do: so it shows who was asked.
    #[tokio::test]
    async fn entries_of_a_log_are_asked_for_once_and_everything_else_each_time() {
        let below = Arc::new(InMemory::new());
        let store = LogMemory::over(Arc::<InMemory>::clone(&below));
        let kept = [ENTRY, "_delta_log/00000000000000000020.checkpoint.parquet"];
        let passing = [
            "lake/runs/_delta_log/_last_checkpoint",
            "lake/runs/00000000000000000007.json",
            "lake/checkpoints/c/_delta_log.json",
            "lake/runs/_delta_log/7.json",
            "lake/runs/_delta_log/00000000000000000007.json.tmp",
        ];
        for path in kept.into_iter().chain(passing) {
            below.put(&Path::from(path), PutPayload::from_static(b"before")).await.unwrap();
            assert_eq!(text(&store, path).await, "before");
            below.put(&Path::from(path), PutPayload::from_static(b"after!")).await.unwrap();
        }
        for path in kept {
            assert_eq!(text(&store, path).await, "before", "{path}");
        }
        for path in passing {
            assert_eq!(text(&store, path).await, "after!", "{path}");
        }
        let path = Path::from(ENTRY);
        assert_eq!(store.get_ranges(&path, &[1..3, 0..6]).await.unwrap(), ["ef", "before"]);
        for (range, part) in [(GetRange::Bounded(2..4), "fo"), (GetRange::Suffix(3), "ore"), (GetRange::Offset(5), "e")]
        {
            let options = GetOptions { range: Some(range), ..Default::default() };
            assert_eq!(store.get_opts(&path, options).await.unwrap().bytes().await.unwrap(), part);
        }
        let options = GetOptions { range: Some(GetRange::Bounded(9..12)), ..Default::default() };
        assert!(store.get_opts(&path, options).await.is_err(), "the store refuses what is beyond the end");
    }

    #[tokio::test]
    async fn what_a_writer_put_is_known_and_what_it_could_not_put_is_not() {
        let below = Arc::new(InMemory::new());
        let store = LogMemory::over(Arc::<InMemory>::clone(&below));
        let path = Path::from(ENTRY);
        let create = || PutOptions { mode: PutMode::Create, ..Default::default() };
        store.put_opts(&path, PutPayload::from_static(b"mine"), create()).await.unwrap();
        below.delete(&path).await.unwrap();
        assert_eq!(text(&store, ENTRY).await, "mine");

        let other = ENTRY.replace('7', "8");
        below.put(&Path::from(other.as_str()), PutPayload::from_static(b"theirs")).await.unwrap();
        store.put_opts(&Path::from(other.as_str()), PutPayload::from_static(b"mine"), create()).await.unwrap_err();
        assert_eq!(text(&store, &other).await, "theirs");
    }

    #[tokio::test]
    async fn a_listing_reads_the_newest_state_ahead_and_nothing_else() {
        let below = Arc::new(InMemory::new());
        let store = LogMemory::over(Arc::<InMemory>::clone(&below));
        let ahead = [
            "a/_delta_log/00000000000000000020.checkpoint.parquet",
            "a/_delta_log/00000000000000000021.json",
            "a/_delta_log/00000000000000000022.json",
        ];
        let not_ahead = [
            "a/_delta_log/00000000000000000010.checkpoint.parquet",
            "a/_delta_log/00000000000000000019.json",
            "a/_delta_log/00000000000000000020.json",
            "a/_delta_log/_last_checkpoint",
        ];
        for path in ahead.into_iter().chain(not_ahead) {
            below.put(&Path::from(path), PutPayload::from_static(b"before")).await.unwrap();
        }
        let folder = Path::from("a/_delta_log");
        assert_eq!(store.list(Some(&folder)).collect::<Vec<_>>().await.len(), ahead.len() + not_ahead.len());
        for path in ahead.into_iter().chain(not_ahead) {
            below.put(&Path::from(path), PutPayload::from_static(b"after!")).await.unwrap();
        }
        for path in ahead {
            assert_eq!(text(&store, path).await, "before", "{path}");
        }
        for path in not_ahead {
            assert_eq!(text(&store, path).await, "after!", "{path}");
        }
    }

    #[tokio::test]
    async fn the_oldest_entries_give_way_and_large_ones_are_not_kept() {
        let below = Arc::new(InMemory::new());
        let store = LogMemory::over(Arc::<InMemory>::clone(&below));
        let large = usize::try_from(limits::LOG_ENTRY_BYTES).unwrap();
        for number in 0..6 {
            let path = Path::from(format!("_delta_log/{number:020}.json"));
            below.put(&path, vec![0; large].into()).await.unwrap();
            text(&store, path.as_ref()).await;
        }
        let path = Path::from(format!("_delta_log/{:020}.json", 9));
        below.put(&path, vec![0; large + 1].into()).await.unwrap();
        assert_eq!(text(&store, path.as_ref()).await.len(), large + 1);
        let held = store.held.lock().unwrap();
        assert!(held.bytes <= limits::LOG_BYTES, "{} bytes", held.bytes);
        assert_eq!((held.entries.len(), held.order.len()), (4, 4));
        assert!(held.entries.contains_key(&Path::from(format!("_delta_log/{:020}.json", 5))));
    }
}
