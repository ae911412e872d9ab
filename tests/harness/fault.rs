//! A store that fails when it is told to, and lies about it.
//!
//! Operations are counted; the script says which of them fail and how. Every method is written out, so that none slips
//! past the count when the trait grows one.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use tokio::sync::{Notify, RwLock, RwLockReadGuard};

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing happens, and an error says so.
    Refused,
    /// It happens, and the answer is lost.
    AnswerLost,
    /// It happens, and the answer is that somebody else was first: what a client hears that tried twice by itself.
    SaysExists,
    /// Nothing happens, and the answer is that somebody else was first.
    LiesExists,
    /// The answer is a timeout, and it happens later, when nobody waits for it any more.
    Late,
}

impl Fault {
    /// Every fault.
    pub(crate) const ALL: [Self; 5] = [Self::Refused, Self::AnswerLost, Self::SaysExists, Self::LiesExists, Self::Late];

    /// After how many more operations a late request happens: enough for its sender to have looked for it and gone on.
    const DELAY: usize = 5;

    fn happens(self) -> bool {
        matches!(self, Self::AnswerLost | Self::SaysExists)
    }

    fn error(self, path: &Path) -> Error {
        match self {
            Self::Refused => Error::Generic { store: "faulty", source: "connection refused".into() },
            Self::AnswerLost | Self::Late => Error::Generic { store: "faulty", source: "the request timed out".into() },
            Self::SaysExists | Self::LiesExists => {
                Error::AlreadyExists { path: path.to_string(), source: "the object exists".into() }
            }
        }
    }
}

/// Which operations fail: `n_faults` in a row from operation `first` on, counted from 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Script {
    pub(crate) first: usize,
    pub(crate) n_faults: usize,
    pub(crate) fault: Fault,
}

impl Script {
    /// Returns the script of a process that dies: from operation `first` on it reaches nothing.
    pub(crate) fn death(first: usize) -> Self {
        Self { first, n_faults: usize::MAX, fault: Fault::Refused }
    }

    fn covers(&self, operation: usize) -> bool {
        (self.first..self.first.saturating_add(self.n_faults)).contains(&operation)
    }
}

/// A store with scripts.
#[derive(Debug, Clone)]
pub(crate) struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    scripts: Vec<Script>,
    counted: Arc<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    n_operations: AtomicUsize,
    n_fired: AtomicUsize,
    fired: Notify,
    late: Mutex<Vec<Late>>,
    is_cut: AtomicBool,
    /// Read by operations under way, and written by the cut that waits for their end.
    under_way: RwLock<()>,
}

/// A request whose time has not come.
#[derive(Debug)]
struct Late {
    due: usize,
    path: Path,
    payload: PutPayload,
    options: PutOptions,
}

impl FaultyStore {
    /// Returns `inner` with a script, or one that only counts.
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, script: Option<Script>) -> Self {
        Self::with_scripts(inner, script.into_iter().collect())
    }

    /// Returns `inner` with scripts, of which the first that covers an operation counts.
    pub(crate) fn with_scripts(inner: Arc<dyn ObjectStore>, scripts: Vec<Script>) -> Self {
        Self { inner, scripts, counted: Arc::default() }
    }

    /// Lets nothing through any more, and waits for what is under way: whatever a process has left running is gone with it.
    pub(crate) async fn cut(&self) {
        self.counted.is_cut.store(true, Ordering::SeqCst);
        drop(self.counted.under_way.write().await);
    }

    /// Waits until an operation has failed.
    pub(crate) async fn fired(&self) {
        self.counted.fired.notified().await;
    }

    /// Returns how many operations there were.
    pub(crate) fn n_operations(&self) -> usize {
        self.counted.n_operations.load(Ordering::SeqCst)
    }

    /// Returns how many of them failed by the script.
    pub(crate) fn n_fired(&self) -> usize {
        self.counted.n_fired.load(Ordering::SeqCst)
    }

    /// Counts an operation and returns its fault.
    fn fault(&self) -> Option<Fault> {
        let index = self.counted.n_operations.fetch_add(1, Ordering::SeqCst);
        if self.is_cut() {
            return Some(Fault::Refused);
        }
        let script = self.scripts.iter().find(|script| script.covers(index))?;
        self.counted.n_fired.fetch_add(1, Ordering::SeqCst);
        self.counted.fired.notify_one();
        Some(script.fault)
    }

    fn is_cut(&self) -> bool {
        self.counted.is_cut.load(Ordering::SeqCst)
    }

    /// Begins an operation, which is under way for as long as what is returned lives.
    async fn begin(&self) -> RwLockReadGuard<'_, ()> {
        self.counted.under_way.read().await
    }

    /// Lets late requests happen that are due, whatever comes of them.
    async fn let_late_ones_happen(&self) {
        if self.is_cut() {
            return;
        }
        let n_operations = self.n_operations();
        let due: Vec<Late> = {
            let mut late = self.counted.late.lock().unwrap_or_else(PoisonError::into_inner);
            let (due, rest) = std::mem::take(&mut *late).into_iter().partition(|late| late.due <= n_operations);
            *late = rest;
            due
        };
        for Late { path, payload, options, .. } in due {
            drop(self.inner.put_opts(&path, payload, options).await);
        }
    }

    /// Returns the fault of a read, which has no effect that could be kept, and nothing that could exist.
    fn read_fault(&self) -> Result<()> {
        match self.fault() {
            Some(_) => Err(Fault::Refused.error(&Path::default())),
            None => Ok(()),
        }
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "FaultyStore({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let _under_way = self.begin().await;
        self.let_late_ones_happen().await;
        let Some(mut fault) = self.fault() else { return self.inner.put_opts(location, payload, options).await };
        if fault == Fault::Late {
            let (due, path) = (self.n_operations() + Fault::DELAY, location.clone());
            let late = Late { due, path, payload, options };
            self.counted.late.lock().unwrap_or_else(PoisonError::into_inner).push(late);
            return Err(fault.error(location));
        }
        // Only a conditional PUT can be told that the object exists.
        if options.mode != PutMode::Create && fault == Fault::LiesExists {
            fault = Fault::Refused;
        }
        if fault.happens() {
            self.inner.put_opts(location, payload, options).await?;
        }
        Err(fault.error(location))
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let _under_way = self.begin().await;
        self.read_fault()?;
        let inner = self.inner.put_multipart_opts(location, options).await?;
        Ok(Box::new(FaultyUpload { inner, store: self.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let _under_way = self.begin().await;
        self.let_late_ones_happen().await;
        self.read_fault()?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.read_fault()?;
        self.inner.get_ranges(location, ranges).await
    }

    /// Each deletion is an operation: a process may die between any two.
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |location: Result<Path>| {
            let store = store.clone();
            async move {
                let location = location?;
                let _under_way = store.begin().await;
                store.read_fault()?;
                store.inner.delete(&location).await.map(|()| location)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.read_fault() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.read_fault() {
            Ok(()) => self.inner.list_with_offset(prefix, offset),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.read_fault()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let _under_way = self.begin().await;
        self.read_fault()?;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let _under_way = self.begin().await;
        self.read_fault()?;
        self.inner.rename_opts(from, to, options).await
    }
}

/// An upload in parts, whose end is an operation of its own: what is not completed is not there.
#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    store: FaultyStore,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let _under_way = self.store.begin().await;
        self.store.read_fault()?;
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

/// A store that forgets the condition of conditional creates, as some do that call themselves S3-compatible.
#[derive(Debug)]
pub(crate) struct Careless {
    inner: Arc<dyn ObjectStore>,
}

impl Careless {
    /// Returns `inner` without its conditions.
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner }
    }
}

impl fmt::Display for Careless {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Careless({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Careless {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let options = PutOptions { mode: PutMode::Overwrite, ..options };
        self.inner.put_opts(location, payload, options).await
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
