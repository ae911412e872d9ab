//! A store in memory that keeps every version of one table's log for good, and can let another writer in right before a
//! commit is put: the moment that every commit protocol is made for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use serde_json::Value;
use tokio::sync::Notify;

use super::protocol::lines;

/// Where the table of a history lies in its store.
pub(crate) const TABLE: &str = "lake/t";

/// Another writer.
pub(crate) type Visitor = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// A store that remembers the log.
pub(crate) struct Witness {
    inner: InMemory,
    versions: Mutex<BTreeMap<u64, Bytes>>,
    /// After how many more commits the visitor comes, and the visitor.
    visit: Mutex<Option<(usize, Visitor)>>,
    /// A visitor is in. What it cleans up stays: it would be the version that the commit is about to be put as, since the
    /// tables of histories keep no version longer than they must, and delta-rs always cleans up after an optimise.
    is_visited: AtomicBool,
    /// Compactions wait before they are committed, for good.
    holds_compactions: AtomicBool,
    /// Tells that one waits.
    held: Notify,
    /// How long a commit takes, so that what runs beside it comes about.
    pace: Duration,
}

impl Witness {
    /// Returns an empty store whose commits take `pace`.
    pub(crate) fn new(pace: Duration) -> Self {
        Self {
            inner: InMemory::new(),
            versions: Mutex::default(),
            visit: Mutex::default(),
            is_visited: AtomicBool::new(false),
            holds_compactions: AtomicBool::new(false),
            held: Notify::new(),
            pace,
        }
    }

    /// Returns a store with the same content, which goes its own way.
    pub(crate) fn fork(&self) -> Self {
        Self {
            inner: self.inner.fork(),
            versions: Mutex::new(self.versions()),
            visit: Mutex::default(),
            is_visited: AtomicBool::new(false),
            holds_compactions: AtomicBool::new(false),
            held: Notify::new(),
            pace: self.pace,
        }
    }

    /// Returns every version of the table that was ever created.
    pub(crate) fn versions(&self) -> BTreeMap<u64, Bytes> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets `visitor` in right before the commit after the next `n_commits`.
    pub(crate) fn expect(&self, n_commits: usize, visitor: Visitor) {
        *self.visit.lock().unwrap_or_else(PoisonError::into_inner) = Some((n_commits, visitor));
    }

    /// Sends the visitor away who has not come; tells whether there was one.
    pub(crate) fn dismiss(&self) -> bool {
        self.visit.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }

    /// Lets compactions of the table wait before they are committed, for as long as their process lives.
    pub(crate) fn hold_compactions(&self) {
        self.holds_compactions.store(true, Ordering::Release);
    }

    /// Lets compactions pass that come from now on.
    pub(crate) fn let_compactions_pass(&self) {
        self.holds_compactions.store(false, Ordering::Release);
    }

    /// Waits until a compaction waits.
    pub(crate) async fn compaction_held(&self) {
        self.held.notified().await;
    }

    fn due(&self) -> Option<Visitor> {
        let mut visit = self.visit.lock().unwrap_or_else(PoisonError::into_inner);
        match visit.take() {
            Some((0, visitor)) => Some(visitor),
            Some((n_commits, visitor)) => {
                *visit = Some((n_commits - 1, visitor));
                None
            }
            None => None,
        }
    }
}

/// Returns the version that `path` creates in the table's log.
fn version_of(path: &Path) -> Option<u64> {
    let name = path.as_ref().strip_prefix(TABLE)?.strip_prefix("/_delta_log/")?;
    name.strip_suffix(".json").filter(|stem| stem.len() == 20)?.parse().ok()
}

/// Tells whether a version's bytes make outputs of a compaction part of the table.
fn has_outputs(bytes: &[u8]) -> bool {
    let Ok(actions) = lines(bytes) else { return false };
    let is_compaction = |action: &Value| action["commitInfo"]["operation"] == "OPTIMIZE";
    actions.iter().any(is_compaction) && actions.iter().any(|action| action.get("add").is_some())
}

impl fmt::Display for Witness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Witness({})", self.inner)
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Witness").finish_non_exhaustive()
    }
}

#[async_trait]
impl ObjectStore for Witness {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let version = version_of(location).filter(|_| options.mode == PutMode::Create);
        let Some(version) = version else { return self.inner.put_opts(location, payload, options).await };
        let bytes: Bytes = payload.clone().into();
        if self.holds_compactions.load(Ordering::Acquire) && has_outputs(&bytes) {
            self.held.notify_one();
            return std::future::pending().await;
        }
        if let Some(visitor) = self.due() {
            self.is_visited.store(true, Ordering::Release);
            visitor().await;
            self.is_visited.store(false, Ordering::Release);
        }
        tokio::time::sleep(self.pace).await;
        let put = self.inner.put_opts(location, payload, options).await?;
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).insert(version, bytes);
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        if self.is_visited.load(Ordering::Acquire) {
            return locations;
        }
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
