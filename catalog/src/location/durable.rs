//! The local disk, with the promise that S3 makes: what is written is still there after a power cut, and whole.
//!
//! `object_store` 0.13 leaves written files to the page cache; from 0.14 on it has `LocalFileSystem::with_fsync`, which
//! will take this file's place. A file is written under another name, flushed, and only then given its own: a commit
//! is never seen empty. Reading, listing and deleting are `LocalFileSystem`'s own.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::FutureExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

/// `bytes::Bytes`, by the name under which `object_store` hands it out.
type Bytes = <PutPayload as IntoIterator>::Item;

/// What a write answers. Whoever wants the tag of a file asks for its head: another look at each file that is written would
/// only cost time.
const UNTAGGED: PutResult = PutResult { e_tag: None, version: None };

/// Makes what was written outlive a power cut.
pub(super) trait Flush: fmt::Debug + Send + Sync {
    /// Flushes a file, or the entries of a folder, that is open and called `path`.
    fn flush(&self, file: &File, path: &FilePath) -> io::Result<()>;
}

/// The disk's own flush.
#[derive(Debug)]
pub(super) struct Fsync;

impl Flush for Fsync {
    fn flush(&self, file: &File, _path: &FilePath) -> io::Result<()> {
        file.sync_all()
    }
}

/// [`LocalFileSystem`] whose writes are flushed to the disk before they count.
#[derive(Debug, Clone)]
pub(super) struct DurableFiles {
    files: LocalFileSystem,
    disk: Arc<dyn Flush>,
}

impl DurableFiles {
    pub(super) fn new(files: LocalFileSystem, disk: Arc<dyn Flush>) -> Self {
        Self { files, disk }
    }

    async fn flush_folders(&self, path: PathBuf) -> Result<()> {
        let disk = Arc::clone(&self.disk);
        on_blocking_thread(move || flush_folders(disk.as_ref(), &path).map_err(|source| failure(&path, source))).await
    }
}

impl fmt::Display for DurableFiles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DurableFiles({})", self.files)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for DurableFiles {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let publish: fn(&FilePath, &FilePath) -> io::Result<()> = match opts.mode {
            PutMode::Overwrite => |staged, path| fs::rename(staged, path),
            PutMode::Create => |staged, path| {
                fs::hard_link(staged, path)?;
                fs::remove_file(staged)
            },
            // LocalFileSystem says better than we could that it cannot.
            PutMode::Update(_) => return self.files.put_opts(location, payload, opts).await,
        };
        let path = self.files.path_to_filesystem(location)?;
        let disk = Arc::clone(&self.disk);
        on_blocking_thread(move || {
            let written = Staged::create(path.clone(), disk).and_then(|mut staged| {
                payload.iter().try_for_each(|bytes| staged.file.write_all(bytes))?;
                staged.publish(publish)
            });
            written.map_err(|source| failure(&path, source))
        })
        .await?;
        Ok(UNTAGGED)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let path = self.files.path_to_filesystem(location)?;
        let (target, disk) = (path.clone(), Arc::clone(&self.disk));
        let create = move || Staged::create(path.clone(), disk).map_err(|source| failure(&path, source));
        let staged = on_blocking_thread(create).await?;
        let staged = Arc::new(Mutex::new(Some(staged)));
        Ok(Box::new(DurableUpload { path: target, next: 0, staged }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.files.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let path = self.files.path_to_filesystem(to)?;
        self.files.copy_opts(from, to, options).await?;
        self.flush_folders(path).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let path = self.files.path_to_filesystem(to)?;
        self.files.rename_opts(from, to, options).await?;
        self.flush_folders(path).await
    }
}

/// An upload in parts, into one staged file.
#[derive(Debug)]
struct DurableUpload {
    path: PathBuf,
    /// Where the next part begins.
    next: u64,
    /// Gone once the upload is completed or aborted.
    staged: Arc<Mutex<Option<Staged>>>,
}

impl DurableUpload {
    fn with_staged(
        &self,
        work: impl FnOnce(&mut Option<Staged>) -> io::Result<()> + Send + 'static,
    ) -> impl Future<Output = Result<()>> + Send + 'static {
        let (staged, path) = (Arc::clone(&self.staged), self.path.clone());
        on_blocking_thread(move || {
            let mut staged = staged.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut staged).map_err(|source| failure(&path, source))
        })
    }
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let start = self.next;
        self.next += data.content_length() as u64;
        self.with_staged(move |staged| {
            let file = &mut staged.as_mut().ok_or_else(ended)?.file;
            file.seek(SeekFrom::Start(start))?;
            data.iter().try_for_each(|bytes| file.write_all(bytes))
        })
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.with_staged(|staged| staged.take().ok_or_else(ended)?.publish(|from, to| fs::rename(from, to))).await?;
        Ok(UNTAGGED)
    }

    async fn abort(&mut self) -> Result<()> {
        self.with_staged(|staged| staged.take().map(drop).ok_or_else(ended)).await
    }
}

/// A file under a name that [`LocalFileSystem`] neither lists nor opens. Dropped before it is published, it is removed.
#[derive(Debug)]
struct Staged {
    file: File,
    disk: Arc<dyn Flush>,
    /// Where it is now.
    staged: PathBuf,
    /// Where it shall be.
    path: PathBuf,
    is_published: bool,
}

impl Staged {
    fn create(path: PathBuf, disk: Arc<dyn Flush>) -> io::Result<Self> {
        let mut index = 1_u32;
        loop {
            let mut staged = path.clone().into_os_string();
            staged.push(format!("#{index}"));
            let staged = PathBuf::from(staged);
            match OpenOptions::new().write(true).create_new(true).open(&staged) {
                Ok(file) => return Ok(Self { file, disk, staged, path, is_published: false }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => index += 1,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    fs::create_dir_all(path.parent().ok_or(error)?)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn publish(mut self, publish: impl Fn(&FilePath, &FilePath) -> io::Result<()>) -> io::Result<()> {
        self.disk.flush(&self.file, &self.staged)?;
        publish(&self.staged, &self.path)?;
        self.is_published = true;
        flush_folders(self.disk.as_ref(), &self.path)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.is_published {
            // What remains is never listed, and the next writer takes another name.
            let _ = fs::remove_file(&self.staged);
        }
    }
}

/// How many folders above a file may be new: `table/_delta_log/` and two partition columns' folders, and some.
const NEW_FOLDERS_MAX: usize = 6;

/// Flushes the entries of the folders above `path`, nearest first, as any of them may have been made for it.
fn flush_folders(disk: &dyn Flush, path: &FilePath) -> io::Result<()> {
    for folder in path.ancestors().skip(1).take(NEW_FOLDERS_MAX) {
        match File::open(folder).and_then(|file| disk.flush(&file, folder)) {
            // Not ours to flush: a folder that is not ours to read was not made by us.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => break,
            flushed => flushed?,
        }
    }
    Ok(())
}

fn ended() -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, "the upload is completed or aborted")
}

fn failure(path: &FilePath, source: io::Error) -> Error {
    let path = path.display().to_string();
    match source.kind() {
        ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: source.into() },
        ErrorKind::NotFound => Error::NotFound { path, source: source.into() },
        ErrorKind::PermissionDenied => Error::PermissionDenied { path, source: source.into() },
        _ => Error::Generic { store: "DurableFiles", source: format!("{path}: {source}").into() },
    }
}

async fn on_blocking_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}
