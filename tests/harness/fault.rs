//! A store that fails when it is told to, and lies about it.
//!
//! Operations are counted; the script says which of them fail and how. Every method is written out, so that none slips
//! past the count when the trait grows one.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

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
}

impl Fault {
    /// Every fault.
    pub(crate) const ALL: [Self; 4] = [Self::Refused, Self::AnswerLost, Self::SaysExists, Self::LiesExists];

    fn happens(self) -> bool {
        matches!(self, Self::AnswerLost | Self::SaysExists)
    }

    fn error(self, path: &Path) -> Error {
        match self {
            Self::Refused => Error::Generic { store: "faulty", source: "connection refused".into() },
            Self::AnswerLost => Error::Generic { store: "faulty", source: "the request timed out".into() },
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

/// A store with a script.
#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    script: Option<Script>,
    n_operations: AtomicUsize,
    n_fired: AtomicUsize,
}

impl FaultyStore {
    /// Returns `inner` with a script, or one that only counts.
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, script: Option<Script>) -> Self {
        Self { inner, script, n_operations: AtomicUsize::new(0), n_fired: AtomicUsize::new(0) }
    }

    /// Returns how many operations there were.
    pub(crate) fn n_operations(&self) -> usize {
        self.n_operations.load(Ordering::SeqCst)
    }

    /// Returns how many of them failed by the script.
    pub(crate) fn n_fired(&self) -> usize {
        self.n_fired.load(Ordering::SeqCst)
    }

    /// Counts an operation and returns its fault.
    fn fault(&self) -> Option<Fault> {
        let index = self.n_operations.fetch_add(1, Ordering::SeqCst);
        let script = self.script.filter(|script| (script.first..script.first + script.n_faults).contains(&index))?;
        self.n_fired.fetch_add(1, Ordering::SeqCst);
        Some(script.fault)
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
        let Some(mut fault) = self.fault() else { return self.inner.put_opts(location, payload, options).await };
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
        self.read_fault()?;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.read_fault()?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.read_fault()?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.read_fault() {
            Ok(()) => self.inner.delete_stream(locations),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
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
        self.read_fault()?;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.read_fault()?;
        self.inner.rename_opts(from, to, options).await
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
