//! A store in memory that lets a test in on what is asked of it.

use std::fmt;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryFutureExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

/// What a test does when its store is asked for something; nothing, where it does not say.
#[async_trait]
pub(crate) trait Hook: fmt::Debug + Default + Send + Sync + 'static {
    /// Before a file gets its content, in whatever way; an error is the answer then.
    async fn before_write(&self, _location: &Path) -> Result<()> {
        Ok(())
    }

    /// Before a file is read.
    async fn before_read(&self) {}

    /// After a file was read.
    fn after_read(&self) {}

    /// Before files are removed; an error is the answer then.
    fn before_delete(&self) -> BoxFuture<'static, Result<()>> {
        futures::future::ready(Ok(())).boxed()
    }
}

/// A store in memory with a hook.
#[derive(Debug, Default)]
pub(crate) struct HookedStore<H> {
    pub(crate) inner: InMemory,
    /// The hook, and what it has seen.
    pub(crate) hook: H,
}

impl<H: Hook> fmt::Display for HookedStore<H> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "HookedStore({:?})", self.hook)
    }
}

#[async_trait]
impl<H: Hook> ObjectStore for HookedStore<H> {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.hook.before_write(location).await?;
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.hook.before_write(location).await?;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.hook.before_read().await;
        let read = self.inner.get_opts(location, options).await;
        self.hook.after_read();
        read
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let removed = self.inner.delete_stream(locations);
        self.hook.before_delete().map_ok(move |()| removed).try_flatten_stream().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.hook.before_write(to).await?;
        self.inner.copy_opts(from, to, options).await
    }
}
