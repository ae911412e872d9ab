//! A store that counts what is read out of it, for work of which nobody knows before how much it reads.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use super::budget::BytesRead;
use crate::delta::log::DeltaLog;

/// A store, and the bytes that were asked of its files.
#[derive(Debug)]
pub(super) struct Metered {
    inner: Arc<dyn ObjectStore>,
    read: BytesRead,
}

impl Metered {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, read: &BytesRead) -> Self {
        Self { inner, read: read.clone() }
    }
}

impl fmt::Display for Metered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Metered({})", self.inner)
    }
}

/// Returns `log` so that what is read of it counts in `read`. Nothing is committed to it.
pub(super) fn metered(log: &DeltaLog, read: &BytesRead) -> DeltaLog {
    let store: Arc<dyn ObjectStore> = Arc::new(Metered::new(Arc::clone(log.store()), read));
    DeltaLog::with_stores(log.location().clone(), Arc::clone(&store), store)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Metered {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
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
        let head = options.head;
        let got = self.inner.get_opts(location, options).await?;
        if !head {
            self.read.add(got.range.end - got.range.start);
        }
        Ok(got)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let got = self.inner.get_ranges(location, ranges).await?;
        self.read.add(got.iter().map(|bytes| bytes.len() as u64).sum());
        Ok(got)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
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

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn what_is_read_counts_and_what_is_written_listed_or_looked_at_does_not() -> Result<()> {
        let (read, path) = (BytesRead::of(5), Path::from("a"));
        let store = Metered::new(Arc::new(InMemory::new()), &read);
        store.put(&path, vec![0; 100].into()).await?;
        store.head(&path).await?;
        store.list_with_delimiter(None).await?;
        assert_eq!(read.get(), 5);
        store.get(&path).await?;
        store.get_range(&path, 10..30).await?;
        assert!(store.get(&Path::from("b")).await.is_err());
        assert_eq!(read.get(), 125);
        store.get_ranges(&path, &[0..10, 20..40]).await?;
        assert_eq!(read.get(), 155);
        Ok(())
    }
}
