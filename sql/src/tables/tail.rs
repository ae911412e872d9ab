//! A store that says what a log has gained without listing it: for following a table that moves on by a few versions.
//!
//! The kernel follows a log by one LIST. On a local disk that reads the whole folder, however long the log has grown; for
//! the newest versions it is enough to look for each until one is not there. Everything but that LIST passes through. What
//! it hides is checkpoints, which shorten later replays: so a log is listed as it is now and then
//! ([`VERSIONS_MAX`](super::VERSIONS_MAX)).

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use alluvium_catalog::Location;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

/// A store in which one log seems to hold the versions from some version on, and nothing else.
#[derive(Debug, Clone)]
pub(super) struct TailStore {
    store: Arc<dyn ObjectStore>,
    log: Path,
    first: u64,
}

impl TailStore {
    /// Returns `store`, from whose root `location` is counted, with the log of that table from version `first` on.
    pub(super) fn new(store: Arc<dyn ObjectStore>, location: &Location, first: u64) -> Self {
        let log = location.path().parts().chain(Path::from("_delta_log").parts()).collect();
        Self { store, log, first }
    }

    fn tail(&self) -> BoxStream<'static, Result<ObjectMeta>> {
        let Self { store, log, first } = self.clone();
        let next = move |version: u64| {
            let store = Arc::clone(&store);
            let name = Path::from(format!("{version:020}.json"));
            let path: Path = log.parts().chain(name.parts()).collect();
            async move {
                match store.head(&path).await {
                    Ok(commit) => Ok(Some((commit, version + 1))),
                    Err(Error::NotFound { .. }) => Ok(None),
                    Err(cause) => Err(cause),
                }
            }
        };
        futures::stream::try_unfold(first, next).boxed()
    }
}

impl fmt::Display for TailStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} from version {} on, in {}", self.log, self.first, self.store)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for TailStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.store.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.store.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.store.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        if prefix == Some(&self.log) { self.tail() } else { self.store.list_with_offset(prefix, offset) }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.store.rename_opts(from, to, options).await
    }
}
