//! Snapshots of the index beside its table: a start that reads one and what has changed since, instead of every key.
//!
//! They are written beside the commits, never in them: a failure is logged and costs the next start its shortcut. One
//! task a table at a time; two snapshots are kept, so that one is whole while the other is written.

use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::{Error, ErrorKind, Location, Result};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, WriteMultipart};
use tokio::task::JoinHandle;

use super::UpsertWriter;
use crate::delta::action::{Action, Remove};
use crate::delta::log::{LogEntry, Version};
use crate::delta::state::TableState;
use crate::write::index::{KeyIndex, SnapshotOf, SnapshotWriter, over_memory, read_of, read_snapshot};

/// Where snapshots lie; vacuum of other engines leaves folders alone whose names begin with an underscore.
const FOLDER: &str = "_alluvium/index";

/// Snapshots that are kept.
const KEPT: usize = 2;

/// Parts of an upload under way at once.
const PARTS_IN_FLIGHT: usize = 4;

/// Enough of a snapshot to say what it is of: ids, and the names and types of a few columns.
const HEAD_BYTES: u64 = 64 << 10;

/// How far back deletes are read from sidecars beside a snapshot: far more than a batch takes from staging its deletes to
/// landing, by the clocks of all processes that land in the table.
const MARGIN_MS: i64 = 3_600_000;

/// The snapshots of one table.
#[derive(Debug)]
pub(super) struct Snapshots {
    store: Arc<dyn ObjectStore>,
    location: Location,
    /// Versions from one to the next; 0 for none.
    interval: u64,
    /// The version at which the last one was begun, or the table was opened.
    since: Version,
    /// The version of the last one that is known to be stored or on its way.
    saved: Option<Version>,
    turn: Option<JoinHandle<()>>,
}

impl Snapshots {
    pub(super) fn new(store: Arc<dyn ObjectStore>, location: Location, interval: u64, version: Version) -> Self {
        Self { store, location, interval, since: version, saved: None, turn: None }
    }

    /// Returns the version of the newest snapshot that is known.
    #[cfg(test)]
    pub(super) fn saved(&self) -> Option<Version> {
        self.saved
    }

    /// Tells whether a snapshot of `version` should be begun.
    fn is_due(&self, version: Version) -> bool {
        let is_busy = self.turn.as_ref().is_some_and(|turn| !turn.is_finished());
        self.interval > 0 && !is_busy && version >= self.since.saturating_add(self.interval)
    }

    /// Begins to write a snapshot.
    fn begin(&mut self, index: KeyIndex, of: SnapshotOf) {
        (self.since, self.saved) = (of.version, Some(of.version));
        let (store, location) = (Arc::clone(&self.store), self.location.clone());
        self.turn = Some(tokio::spawn(async move {
            let version = of.version;
            match save(store.as_ref(), index, of).await {
                Ok(n_bytes) => tracing::debug!(table = %location, version, n_bytes, "key index saved"),
                Err(error) => tracing::warn!(
                    table = %location, version, error = %error.chain(), "key index not saved; the next start takes longer"
                ),
            }
        }));
    }

    /// Waits for the snapshot under way, at most `limit`, then drops it.
    async fn wait(&mut self, limit: Duration) {
        if let Some(mut turn) = self.turn.take()
            && tokio::time::timeout(limit, &mut turn).await.is_err()
        {
            turn.abort();
        }
    }

    /// Reads the newest snapshot that fits `wanted`: of this table and layout, not newer than its version.
    ///
    /// # Errors
    /// `Invalid`, naming the setting, when it is larger than `bytes_max`: before it is read.
    async fn read_newest(&self, wanted: &SnapshotOf, bytes_max: u64) -> Result<Option<(SnapshotOf, KeyIndex)>> {
        let listed = match list(self.store.as_ref()).await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::warn!(table = %self.location, error = %error.chain(), "snapshots cannot be listed");
                return Ok(None);
            }
        };
        for (version, file) in listed.into_iter().rev() {
            let read = async {
                self.check_memory(&file, wanted, bytes_max).await?;
                self.read(&file.location, wanted).await
            };
            match read.await {
                Ok(found) => return Ok(Some(found)),
                Err(error) if error.kind() == ErrorKind::Invalid => return Err(error),
                Err(error) => tracing::warn!(
                    table = %self.location, version, error = %error.chain(), "a snapshot of the key index is of no use"
                ),
            }
        }
        Ok(None)
    }

    /// Checks that the index of a snapshot may fit into memory: it takes about the bytes of the file, and rather more. A
    /// large one of another table is of no use, and says nothing of this one.
    async fn check_memory(&self, file: &ObjectMeta, wanted: &SnapshotOf, bytes_max: u64) -> Result<()> {
        if file.size <= bytes_max {
            return Ok(());
        }
        let path = &file.location;
        let head = self.store.get_range(path, 0..file.size.min(HEAD_BYTES)).await;
        let head = head.map_err(|cause| Error::unavailable(format!("cannot read {path}")).with_source(cause))?;
        check_is_of(&read_of(&head)?, wanted, path)?;
        Err(over_memory(&format!("the {} bytes of {path}, or more", file.size), bytes_max))
    }

    async fn read(&self, path: &Path, wanted: &SnapshotOf) -> Result<(SnapshotOf, KeyIndex)> {
        let unavailable = |cause| Error::unavailable(format!("cannot read {path}")).with_source(cause);
        let bytes = self.store.get(path).await.map_err(unavailable)?.bytes().await.map_err(unavailable)?;
        let read = tokio::task::spawn_blocking(move || read_snapshot(&bytes)).await;
        let (of, index) = read.map_err(|cause| Error::internal("reading a snapshot stopped").with_source(cause))??;
        check_is_of(&of, wanted, path)?;
        Ok((of, index))
    }
}

/// Checks that a snapshot is of the table that is `wanted`, and not newer.
fn check_is_of(of: &SnapshotOf, wanted: &SnapshotOf, path: &Path) -> Result<()> {
    if of.table != wanted.table || of.layout != wanted.layout {
        return Err(Error::data(format!("{path} is of another table, or of other keys: {}", of.layout)));
    }
    if of.version > wanted.version {
        return Err(Error::data(format!("{path} is of a version that the table does not have")));
    }
    Ok(())
}

impl UpsertWriter {
    /// Takes the newest usable snapshot and what has changed since; tells whether there was one.
    pub(super) async fn restore(&mut self, state: &TableState) -> Result<bool> {
        if self.settings.snapshot_interval == 0 {
            return Ok(false);
        }
        let found = self.snapshots.read_newest(&self.snapshot_of(), self.settings.memory_bytes_max).await?;
        let Some((of, index)) = found else { return Ok(false) };
        self.index = Arc::new(index);
        self.index.check_memory(self.settings.memory_bytes_max)?;
        let changed = difference(&self.index, state);
        let n_changed = changed.actions.len();
        self.follow_log(&changed).await?;
        // What is over goes first: a delete that came after it may be of a lower sequence, and must not lose to it.
        let since_ms = self.retained_since_ms();
        Arc::make_mut(&mut self.index).forget(since_ms);
        self.remember_since(since_ms.max(of.at_ms - MARGIN_MS)).await?;
        let known = self.index.n_rows();
        if state.n_rows_with(|path| self.index.n_records(path)).is_some_and(|told| told != known) {
            tracing::warn!(table = %self.folder.location, version = of.version, known, "a snapshot does not fit its table");
            self.index = Arc::default();
            return Ok(false);
        }
        tracing::debug!(table = %self.folder.location, version = of.version, n_changed, known, "key index restored");
        self.snapshots.since = of.version;
        self.snapshots.saved = Some(of.version);
        Ok(true)
    }

    /// Begins a snapshot when one is due.
    pub(super) fn save_when_due(&mut self) {
        if self.is_whole && self.snapshots.is_due(self.version) {
            let of = self.snapshot_of();
            self.snapshots.begin(KeyIndex::clone(&self.index), of);
        }
    }

    /// Saves what has changed since the last snapshot, and waits for it, within a bound.
    pub(super) async fn save_and_wait(&mut self) {
        /// A start without a snapshot costs more than this only for tables that have older snapshots, too.
        const LIMIT: Duration = Duration::from_secs(10);
        self.snapshots.wait(LIMIT).await;
        if self.settings.snapshot_interval > 0 && self.is_whole && self.snapshots.saved != Some(self.version) {
            let of = self.snapshot_of();
            self.snapshots.begin(KeyIndex::clone(&self.index), of);
            self.snapshots.wait(LIMIT).await;
        }
    }

    /// Returns what a snapshot would be of now.
    fn snapshot_of(&self) -> SnapshotOf {
        let columns = &self.reader.columns;
        let layout = format!(
            "keys {:?} {:?}, sequence {:?} {:?}",
            columns.keys,
            self.reader.keys.types(),
            columns.stored_sequence,
            columns.sequence
        );
        let (table, version, at_ms) = (self.table_id.clone(), self.version, self.folder.clock.now().0);
        SnapshotOf { table, version, at_ms, layout }
    }
}

/// Returns what has to be followed from what `index` knows to `state`: the log's tail, added up, which is there also
/// when the log itself has been cleaned up in between.
fn difference(index: &KeyIndex, state: &TableState) -> LogEntry {
    let gone = index.files().filter(|(_, file)| !state.files.contains_key(&file.path));
    let removes = gone.map(|(_, file)| Action::Remove(Remove { path: file.path.clone(), ..Remove::default() }));
    let is_known = |path: &str, vector| {
        let file = index.ordinal(path).and_then(|ordinal| index.file(ordinal));
        file.is_some_and(|file| &file.vector == vector)
    };
    let news = state.files.values().filter(|add| !is_known(&add.path, &add.deletion_vector));
    let actions = removes.chain(news.cloned().map(Action::Add)).collect();
    LogEntry { version: state.version, actions, info: serde_json::Value::Null }
}

fn path_of(version: Version) -> Path {
    Path::from(format!("{FOLDER}/{version:020}.snapshot"))
}

/// Returns the snapshots that are there, oldest first.
async fn list(store: &dyn ObjectStore) -> Result<Vec<(Version, ObjectMeta)>> {
    let folder = Path::from(FOLDER);
    let files: Vec<_> = store
        .list(Some(&folder))
        .try_collect()
        .await
        .map_err(|cause| Error::unavailable(format!("cannot list {folder}")).with_source(cause))?;
    let version = |path: &Path| path.filename()?.strip_suffix(".snapshot")?.parse().ok();
    let mut listed: Vec<(Version, ObjectMeta)> =
        files.into_iter().filter_map(|file| Some((version(&file.location)?, file))).collect();
    listed.sort_by_key(|(version, _)| *version);
    Ok(listed)
}

/// Writes a snapshot, removes those that are not kept, and returns the number of bytes written.
async fn save(store: &dyn ObjectStore, index: KeyIndex, of: SnapshotOf) -> Result<usize> {
    let path = path_of(of.version);
    let refused = |cause| Error::unavailable(format!("cannot write {path}")).with_source(cause);
    let stopped = |cause| Error::internal("encoding a snapshot stopped").with_source(cause);
    let begun = tokio::task::spawn_blocking(move || SnapshotWriter::try_new(index, of)).await;
    let mut writer = begun.map_err(stopped)??;
    let mut upload = WriteMultipart::new(store.put_multipart(&path).await.map_err(refused)?);
    let mut n_bytes = 0;
    loop {
        let turn = tokio::task::spawn_blocking(move || {
            let piece = writer.next();
            (writer, piece)
        });
        let (rest, piece) = turn.await.map_err(stopped)?;
        writer = rest;
        let Some(piece) = piece else { break };
        n_bytes += piece.len();
        upload.wait_for_capacity(PARTS_IN_FLIGHT).await.map_err(refused)?;
        upload.put(piece.into());
    }
    upload.finish().await.map_err(refused)?;
    let listed = list(store).await?;
    let n_superfluous = listed.len().saturating_sub(KEPT);
    for (_, ObjectMeta { location: path, .. }) in listed.into_iter().take(n_superfluous) {
        store
            .delete(&path)
            .await
            .map_err(|cause| Error::unavailable(format!("cannot remove {path}")).with_source(cause))?;
    }
    Ok(n_bytes)
}
