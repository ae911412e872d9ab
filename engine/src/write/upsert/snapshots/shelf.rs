//! Where snapshots of an index lie: beside the table, where every machine finds them, and on the disk of this one.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use alluvium_catalog::{Error, Location, Result, Stores, Timestamp};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryFutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, WriteMultipart};
use tokio::fs::DirBuilder;
use uuid::Uuid;

use crate::delta::log::Version;

/// Where snapshots lie in a table; vacuum of other engines leaves folders alone whose names begin with an underscore.
const BESIDE: &str = "_alluvium/index";

const SUFFIX: &str = ".snapshot";

/// The digits of a version in a name, which sort as the versions do.
const DIGITS: usize = 20;

/// Snapshots that are kept, so that one is whole while the other is written.
const KEPT: usize = 2;

/// What is asked of a store at once, and how often at the same time.
const READ_BYTES: u64 = 8 << 20;
const READS_IN_FLIGHT: usize = 3;

/// Parts of an upload under way at once.
const PARTS_IN_FLIGHT: usize = 4;

/// How long a snapshot stays on the disk that nobody has replaced: its table has moved on to another machine, or is no more.
const LEFT_ALONE: Duration = Duration::from_secs(7 * 24 * 3_600);

/// A folder on the local disk where the snapshots of tables lie that are not on it themselves.
#[derive(Debug, Clone)]
pub struct SnapshotDisk {
    store: Arc<dyn ObjectStore>,
    folder: PathBuf,
}

/// A place where the snapshots of one table lie.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    /// The folder of all tables' snapshots, for a shelf on the local disk.
    disk: Option<PathBuf>,
}

/// A snapshot that lies on a shelf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shelved {
    pub(super) version: Version,
    pub(super) n_bytes: u64,
    /// When it was written, epoch milliseconds by the store's clock.
    pub(super) written_ms: i64,
    path: Path,
    /// What the store calls this one, and nothing that is put in its place.
    e_tag: Option<String>,
}

/// A snapshot as it is written or read.
pub(super) type Pieces = BoxStream<'static, Result<Bytes>>;

impl SnapshotDisk {
    /// Returns the folder at `location`, which is made when it is needed.
    ///
    /// # Errors
    /// `Invalid` when it is not on the local disk.
    pub fn open(stores: &Stores, location: &Location) -> Result<Self> {
        match location.local_path() {
            Some(folder) => Ok(Self { store: stores.open(location)?, folder }),
            None => Err(Error::invalid(format!("{location} is not on the local disk"))),
        }
    }
}

impl Shelf {
    /// Returns the shelf in the table's own folder, whose root `store` is.
    pub(super) fn beside_table(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, folder: Path::from(BESIDE), disk: None }
    }

    /// Returns the shelf of `table` on `disk`. A folder that is not there is made for this user alone, since snapshots hold
    /// keys, and whoever can write one decides what counts as known.
    ///
    /// # Errors
    /// `Unavailable` when the folder cannot be made; `Data` when the table's id is none by which it could be told from others.
    pub(super) async fn on_disk(disk: SnapshotDisk, table: &str) -> Result<Self> {
        let SnapshotDisk { store, folder } = disk;
        let id = Uuid::try_parse(table).map_err(|cause| {
            Error::data(format!("the id of the table is '{table}', and not a UUID")).with_source(cause)
        })?;
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        builder.mode(0o700);
        builder.create(&folder).await.map_err(|cause| {
            Error::unavailable(format!("cannot make the folder {}", folder.display())).with_source(cause)
        })?;
        Ok(Self { store, folder: Path::from(id.to_string()), disk: Some(folder) })
    }

    /// Tells whether it is on the local disk, and not beside the table.
    pub(super) fn is_on_disk(&self) -> bool {
        self.disk.is_some()
    }

    /// Returns what people call a file of the shelf.
    pub(super) fn name(&self, snapshot: &Shelved) -> String {
        self.name_of(&snapshot.path)
    }

    fn name_of(&self, path: &Path) -> String {
        self.disk.as_ref().map_or_else(|| path.to_string(), |disk| disk.join(path.as_ref()).display().to_string())
    }

    fn path_of(&self, version: Version) -> Path {
        self.folder.clone().join(format!("{version:0DIGITS$}{SUFFIX}"))
    }

    /// Returns the snapshots that are there, oldest first.
    ///
    /// # Errors
    /// `Unavailable` when the store does not tell.
    pub(super) async fn list(&self) -> Result<Vec<Shelved>> {
        let listed = self.store.list_with_delimiter(Some(&self.folder)).await;
        let listed = listed.map_err(|cause| Error::unavailable(format!("cannot list {self}")).with_source(cause))?;
        let mut shelved: Vec<Shelved> = listed.objects.into_iter().filter_map(shelved).collect();
        shelved.sort_by_key(|snapshot| snapshot.version);
        Ok(shelved)
    }

    /// Reads the first `n_bytes` of a snapshot, or all of a smaller one.
    ///
    /// # Errors
    /// `Unavailable` when the store does not give them.
    pub(super) async fn head(&self, snapshot: &Shelved, n_bytes: u64) -> Result<Bytes> {
        let head = self.store.get_range(&snapshot.path, 0..snapshot.n_bytes.min(n_bytes)).await;
        head.map_err(|cause| unread(&self.name(snapshot)).with_source(cause))
    }

    /// Reads a snapshot piece by piece, a few ahead.
    ///
    /// # Errors
    /// From the pieces: `Unavailable` when the store does not give one, or has put another snapshot in its place.
    pub(super) fn read(&self, snapshot: &Shelved) -> Pieces {
        let (store, snapshot, name) = (Arc::clone(&self.store), snapshot.clone(), self.name(snapshot));
        let n_bytes = snapshot.n_bytes;
        let starts = (0..n_bytes).step_by(usize::try_from(READ_BYTES).unwrap_or(usize::MAX));
        let read = futures::stream::iter(starts).map(move |start| {
            let range = start..n_bytes.min(start + READ_BYTES);
            let options = GetOptions::new().with_range(Some(range)).with_if_match(snapshot.e_tag.clone());
            let (store, path, name) = (Arc::clone(&store), snapshot.path.clone(), name.clone());
            async move {
                let piece = store.get_opts(&path, options).and_then(GetResult::bytes).await;
                piece.map_err(|cause| unread(&name).with_source(cause))
            }
        });
        read.buffered(READS_IN_FLIGHT).boxed()
    }

    /// Writes the snapshot of a version, which is there when all of it is, and returns what is there then.
    ///
    /// # Errors
    /// That of the pieces; `Unavailable` when the store refuses.
    pub(super) async fn write(&self, version: Version, mut pieces: Pieces) -> Result<Shelved> {
        let path = self.path_of(version);
        let name = self.name_of(&path);
        let unwritten = |cause| Error::unavailable(format!("cannot write {name}")).with_source(cause);
        let mut upload = WriteMultipart::new(self.store.put_multipart(&path).await.map_err(unwritten)?);
        let taken = async {
            while let Some(piece) = pieces.try_next().await? {
                upload.wait_for_capacity(PARTS_IN_FLIGHT).await.map_err(unwritten)?;
                upload.put(piece);
            }
            upload.wait_for_capacity(0).await.map_err(unwritten)
        };
        if let Err(error) = taken.await {
            // Where not even this succeeds, the store has a rule for what was left half written.
            upload.abort().await.unwrap_or_default();
            return Err(error);
        }
        upload.finish().await.map_err(unwritten)?;
        let told = self.store.head(&path).await.map_err(unwritten)?;
        // Of a store within another the answer has the path of the outer one.
        shelved(ObjectMeta { location: path, ..told })
            .ok_or_else(|| Error::internal(format!("{name} is no name of a snapshot")))
    }

    /// Removes a snapshot, which may be gone already.
    ///
    /// # Errors
    /// `Unavailable` when the store refuses.
    pub(super) async fn remove(&self, snapshot: &Shelved) -> Result<()> {
        match self.store.delete(&snapshot.path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(cause) => Err(Error::unavailable(format!("cannot remove {}", self.name(snapshot))).with_source(cause)),
        }
    }

    /// Removes all but the newest snapshots; on the local disk also what other tables have left there long before `now`.
    ///
    /// # Errors
    /// `Unavailable` when the store refuses.
    pub(super) async fn tidy(&self, now: Timestamp) -> Result<()> {
        let listed = self.list().await?;
        for snapshot in &listed[..listed.len().saturating_sub(KEPT)] {
            self.remove(snapshot).await?;
        }
        let Some(disk) = self.disk.clone() else { return Ok(()) };
        let swept = tokio::task::spawn_blocking(move || sweep(&disk, now).map_err(|cause| (disk, cause))).await;
        let swept = swept.map_err(|cause| Error::internal("tidying snapshots stopped").with_source(cause))?;
        swept.map_err(|(disk, cause)| {
            Error::unavailable(format!("cannot remove old snapshots from {}", disk.display())).with_source(cause)
        })
    }
}

impl fmt::Display for Shelf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name_of(&self.folder))
    }
}

fn unread(name: &str) -> Error {
    Error::unavailable(format!("cannot read {name}"))
}

/// Returns what a file of a shelf is, if it is a snapshot.
fn shelved(file: ObjectMeta) -> Option<Shelved> {
    let ObjectMeta { location: path, last_modified, size: n_bytes, e_tag, .. } = file;
    let version = version_of(path.filename()?)?;
    Some(Shelved { version, n_bytes, written_ms: last_modified.timestamp_millis(), path, e_tag })
}

/// Returns the version that the name of a snapshot says.
fn version_of(name: &str) -> Option<Version> {
    let digits = name.strip_suffix(SUFFIX)?;
    let is_one = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_one.then(|| digits.parse().ok()).flatten()
}

/// Removes snapshots, whole or half written, that were written long before `now`, and tables' folders that are empty then.
/// Whatever else lies there stays; what somebody else removes at the same time is as good as removed. All is looked at,
/// and the first failure told.
fn sweep(disk: &FilePath, now: Timestamp) -> io::Result<()> {
    let mut first = Ok(());
    for table in fs::read_dir(disk)?.filter_map(io::Result::ok) {
        if table.file_name().to_str().is_some_and(|name| Uuid::try_parse(name).is_ok())
            && let Err(failure) = sweep_table(&table.path(), now)
            && first.is_ok()
        {
            first = Err(failure);
        }
    }
    first
}

fn sweep_table(folder: &FilePath, now: Timestamp) -> io::Result<()> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(now.0).unwrap_or_default());
    let is_old = |written: SystemTime| now.duration_since(written).is_ok_and(|age| age > LEFT_ALONE);
    let entries = match fs::read_dir(folder) {
        Err(failure) if matches!(failure.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
        entries => entries?,
    };
    let (mut has_removed, mut first) = (false, Ok(()));
    for file in entries.filter_map(io::Result::ok) {
        if !is_snapshot(&file.file_name().to_string_lossy()) {
            continue;
        }
        let removed = file.metadata().and_then(|told| match told.is_file() && is_old(told.modified()?) {
            true => fs::remove_file(file.path()).map(|()| true),
            false => Ok(false),
        });
        match removed {
            Ok(is_removed) => has_removed |= is_removed,
            Err(failure) if failure.kind() == ErrorKind::NotFound || first.is_err() => {}
            Err(failure) => first = Err(failure),
        }
    }
    match has_removed.then(|| fs::remove_dir(folder)) {
        Some(Err(failure)) if !matches!(failure.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
            first.and(Err(failure))
        }
        _ => first,
    }
}

/// Tells whether a file is a snapshot, or the beginning of one that somebody was killed over: it has a number behind its name.
fn is_snapshot(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let whole = name.split_once('#').map_or(Some(name), |(whole, number)| is_number(number).then_some(whole));
    whole.is_some_and(|whole| version_of(whole).is_some())
}

#[cfg(test)]
mod tests {
    use std::fs::{FileTimes, OpenOptions};
    use std::os::unix::fs::PermissionsExt;

    use alluvium_catalog::StorageSettings;
    use object_store::memory::InMemory;

    use super::*;

    const OURS: &str = "11111111-1111-4111-8111-111111111111";
    const LEFT: &str = "22222222-2222-4222-8222-222222222222";

    fn failed(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::internal("a shelf's test").with_source(cause)
    }

    async fn shelf(folder: &FilePath, table: &str) -> Result<Shelf> {
        let location = folder.display().to_string().parse()?;
        Shelf::on_disk(SnapshotDisk::open(&Stores::new(StorageSettings::default()), &location)?, table).await
    }

    async fn put(shelf: &Shelf, version: Version) -> Result<Shelved> {
        let pieces = [Bytes::from_static(b"first, "), Bytes::from_static(b"second")];
        shelf.write(version, futures::stream::iter(pieces.map(Ok)).boxed()).await
    }

    fn versions(listed: &[Shelved]) -> Vec<Version> {
        listed.iter().map(|snapshot| snapshot.version).collect()
    }

    #[tokio::test]
    async fn two_snapshots_of_each_table_are_kept_and_read_back() -> Result<()> {
        let place = tempfile::tempdir().map_err(failed)?;
        let disk = place.path().join("new/folder");
        let (ours, other) = (shelf(&disk, OURS).await?, shelf(&disk, LEFT).await?);
        for version in [9, 10, 11] {
            assert_eq!(put(&ours, version).await?.n_bytes, 13);
            put(&other, version + 100).await?;
        }
        ours.tidy(Timestamp(0)).await?;
        let listed = ours.list().await?;
        assert_eq!(versions(&listed), [10, 11]);
        assert_eq!(versions(&other.list().await?), [109, 110, 111], "another table's are its own");
        assert_eq!(ours.read(&listed[0]).try_collect::<Vec<_>>().await?.concat(), b"first, second");
        assert_eq!(ours.head(&listed[0], 5).await?, Bytes::from_static(b"first"));
        ours.remove(&listed[0]).await?;
        ours.remove(&listed[0]).await?;
        assert_eq!(versions(&ours.list().await?), [11], "one that is gone can be removed");
        let mode = fs::metadata(&disk).map_err(failed)?.permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "keys are nobody else's");
        Ok(())
    }

    #[tokio::test]
    async fn a_large_snapshot_comes_back_in_order() -> Result<()> {
        let place = tempfile::tempdir().map_err(failed)?;
        let shelf = shelf(place.path(), OURS).await?;
        let bytes: Vec<u8> = (0..READ_BYTES * 4 + 5).map(|at| (at >> 13) as u8 ^ at as u8).collect();
        let pieces = bytes.chunks(3 << 20).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect::<Vec<_>>();
        let written = shelf.write(7, futures::stream::iter(pieces).boxed()).await?;
        let [listed] = shelf.list().await?.try_into().map_err(|_| Error::internal("not one snapshot"))?;
        assert_eq!((written.n_bytes, &written), (bytes.len() as u64, &listed));
        assert!(shelf.read(&listed).try_collect::<Vec<_>>().await?.concat() == bytes);
        Ok(())
    }

    #[tokio::test]
    async fn what_is_put_in_the_place_of_a_snapshot_is_not_read_for_the_rest_of_it() -> Result<()> {
        let place = tempfile::tempdir().map_err(failed)?;
        let disk = shelf(place.path(), OURS).await?;
        for shelf in [disk, Shelf::beside_table(Arc::new(InMemory::new()))] {
            let n_bytes = READ_BYTES as usize * (READS_IN_FLIGHT + 2);
            let of = |byte: u8| futures::stream::iter([Ok(Bytes::from(vec![byte; n_bytes]))]).boxed();
            let first = shelf.write(7, of(1)).await?;
            let mut pieces = shelf.read(&first);
            assert_eq!(pieces.try_next().await?.map(|piece| piece[0]), Some(1));
            shelf.write(7, of(2)).await?;
            let rest =
                pieces.try_collect::<Vec<_>>().await.map(drop).map_err(|error| (error.kind(), error.to_string()));
            let named = |text: &String| text.contains(&shelf.name(&first));
            assert!(matches!(&rest, Err((alluvium_catalog::ErrorKind::Unavailable, text)) if named(text)), "{rest:?}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_snapshot_that_does_not_come_to_its_end_is_not_there() -> Result<()> {
        let place = tempfile::tempdir().map_err(failed)?;
        let shelf = shelf(place.path(), OURS).await?;
        let large = Bytes::from(vec![0; 12 << 20]);
        let pieces = [Ok(large.clone()), Ok(large), Err(Error::internal("encoding stopped"))];
        let ended = shelf.write(7, futures::stream::iter(pieces).boxed()).await;
        assert!(ended.is_err_and(|error| error.message() == "encoding stopped"));
        assert_eq!(shelf.list().await?, []);
        let left: Vec<_> = fs::read_dir(place.path().join(OURS)).map_err(failed)?.collect();
        assert!(left.is_empty(), "{left:?}");
        Ok(())
    }

    #[tokio::test]
    async fn snapshots_that_nobody_has_replaced_for_long_go_and_nothing_else_does() -> Result<()> {
        let place = tempfile::tempdir().map_err(failed)?;
        let (ours, left) = (shelf(place.path(), OURS).await?, shelf(place.path(), LEFT).await?);
        put(&ours, 7).await?;
        put(&left, 8).await?;
        let [whole, half] = [format!("{OURS}/{:020}.snapshot", 7), format!("{OURS}/{:020}.snapshot#1", 6)];
        let left = [format!("{LEFT}/{:020}.snapshot", 8), half];
        let strangers = [
            "left.txt".to_owned(),
            format!("mine/{:020}.snapshot", 1),
            format!("{OURS}/notes.snapshot"),
            format!("{OURS}/6.snapshot"),
            format!("{OURS}/{:020}.snapshot#x", 6),
        ];
        fs::create_dir(place.path().join("mine")).map_err(failed)?;
        fs::create_dir(place.path().join(format!("{OURS}/{:020}.snapshot", 5))).map_err(failed)?;
        let written = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for name in strangers.iter().chain(&left).chain([&whole]) {
            let late = if *name == whole { LEFT_ALONE } else { Duration::ZERO };
            let file = OpenOptions::new().create(true).append(true).open(place.path().join(name)).map_err(failed)?;
            file.set_times(FileTimes::new().set_modified(written + late)).map_err(failed)?;
        }
        let after = |wait: Duration| Timestamp(1_800_000_000_000 + i64::try_from(wait.as_millis()).unwrap_or_default());
        ours.tidy(after(LEFT_ALONE)).await?;
        assert!(left.iter().all(|name| place.path().join(name).exists()), "not yet");
        ours.tidy(after(LEFT_ALONE + Duration::from_millis(1))).await?;
        assert!(left.iter().all(|name| !place.path().join(name).exists()), "what was left has gone");
        assert!(!place.path().join(LEFT).exists(), "and its folder");
        assert!(strangers.iter().all(|name| place.path().join(name).exists()), "what is not ours stays");
        assert_eq!(versions(&ours.list().await?), [7]);
        Ok(())
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_made_is_named_and_so_is_an_id_that_is_none() -> Result<()> {
        let place = tempfile::tempdir().map_err(failed)?;
        let file = place.path().join("file");
        fs::write(&file, "x").map_err(failed)?;
        for (folder, id, expected) in [
            (file.join("below"), OURS, "file/below"),
            (place.path().join("new"), "../../up", "'../../up', and not a UUID"),
            (place.path().join("new"), "", "'', and not a UUID"),
        ] {
            let refused = shelf(&folder, id).await.map(drop).map_err(|error| error.to_string());
            assert!(matches!(&refused, Err(text) if text.contains(expected)), "{refused:?}");
        }
        Ok(())
    }
}
