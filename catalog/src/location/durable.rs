//! The local disk, with the promise that S3 makes: what is written is still there after a power cut, and whole.
//!
//! `object_store` 0.13 leaves written files to the page cache; from 0.14 on it has `LocalFileSystem::with_fsync`, which
//! will take this file's place. A file is written under another name, flushed, and only then given its own: a commit
//! is never seen empty. Reading, listing and deleting are `LocalFileSystem`'s own.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

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
    disk: Arc<Disk>,
}

impl DurableFiles {
    pub(super) fn new(files: LocalFileSystem, flush: Arc<dyn Flush>) -> Self {
        Self { files, disk: Arc::new(Disk { flush, rooted: Mutex::default() }) }
    }

    async fn flush_folders(&self, path: PathBuf) -> Result<()> {
        let disk = Arc::clone(&self.disk);
        on_blocking_thread(move || disk.flush_folders(&path).map_err(|source| failure(&path, source))).await
    }
}

/// How many folders above a file may be new: `table/_delta_log/` and two partition columns' folders, and some. One that is
/// further up need not let itself be flushed.
const NEW_FOLDERS_MAX: usize = 6;

/// Folders that are remembered; with more partitions than that, some are flushed in vain.
const ROOTED_MAX: usize = 10_000;

/// A disk, and the folders on it that outlive a power cut.
#[derive(Debug)]
struct Disk {
    flush: Arc<dyn Flush>,
    /// Folders that were flushed into the ones above them: these need no flush for a file that comes into the folder.
    rooted: Mutex<HashMap<PathBuf, FolderId>>,
}

/// Tells a folder from another that has taken its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FolderId {
    device: u64,
    inode: u64,
    created: SystemTime,
}

impl Disk {
    /// Flushes the entries of the folder of `path`, and of those above, nearest first, as any of them may have been made for
    /// it, up to one that was flushed into its place before.
    fn flush_folders(&self, path: &FilePath) -> io::Result<()> {
        let mut rooted = Vec::new();
        let mut below = None;
        for (n_below, folder) in path.ancestors().skip(1).enumerate() {
            let flushed = File::open(folder).and_then(|file| self.flush.flush(&file, folder).map(|()| file));
            let file = match flushed {
                // Not ours to flush: a folder that is not ours to read was not made by us.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => break,
                Err(_) if n_below >= NEW_FOLDERS_MAX => break,
                flushed => flushed?,
            };
            rooted.extend(below.take());
            let Some(id) = folder_id(&file) else { if n_below + 1 >= NEW_FOLDERS_MAX { break } else { continue } };
            if self.rooted().get(folder) == Some(&id) {
                break;
            }
            below = Some((folder.to_owned(), id));
        }
        let mut known = self.rooted();
        if known.len() + rooted.len() > ROOTED_MAX {
            known.clear();
        }
        known.extend(rooted);
        Ok(())
    }

    /// Makes the folder of `path`, and those above it that are missing.
    fn make_folder(&self, path: &FilePath) -> io::Result<()> {
        let Some(folder) = path.parent() else { return Err(ErrorKind::NotFound.into()) };
        // Others of these names are gone, and their ids may come again.
        for missing in folder.ancestors().take_while(|folder| !folder.exists()) {
            self.rooted().remove(missing);
        }
        fs::create_dir_all(folder)
    }

    fn rooted(&self) -> MutexGuard<'_, HashMap<PathBuf, FolderId>> {
        self.rooted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the id of a folder; `None` where the system has none that will do, and then every flush is a long one.
#[cfg(unix)]
fn folder_id(folder: &File) -> Option<FolderId> {
    use std::os::unix::fs::MetadataExt;
    let metadata = folder.metadata().ok()?;
    Some(FolderId { device: metadata.dev(), inode: metadata.ino(), created: metadata.created().ok()? })
}

#[cfg(not(unix))]
fn folder_id(_folder: &File) -> Option<FolderId> {
    None
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
    disk: Arc<Disk>,
    /// Where it is now.
    staged: PathBuf,
    /// Where it shall be.
    path: PathBuf,
    is_published: bool,
}

impl Staged {
    fn create(path: PathBuf, disk: Arc<Disk>) -> io::Result<Self> {
        let mut index = 1_u32;
        loop {
            let mut staged = path.clone().into_os_string();
            staged.push(format!("#{index}"));
            let staged = PathBuf::from(staged);
            match OpenOptions::new().write(true).create_new(true).open(&staged) {
                Ok(file) => return Ok(Self { file, disk, staged, path, is_published: false }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => index += 1,
                Err(error) if error.kind() == ErrorKind::NotFound => disk.make_folder(&path)?,
                Err(error) => return Err(error),
            }
        }
    }

    fn publish(mut self, publish: impl Fn(&FilePath, &FilePath) -> io::Result<()>) -> io::Result<()> {
        self.disk.flush.flush(&self.file, &self.staged)?;
        publish(&self.staged, &self.path)?;
        self.is_published = true;
        self.disk.flush_folders(&self.path)
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
