//! Snapshots of an index: a start that reads one and what has changed since, instead of every key.
//!
//! They lie beside the table and, where that is not on the local disk, there as well. They are written beside the commits,
//! never in them: a failure is logged and costs the next start its shortcut. One task a table at a time.

mod save;
mod shelf;

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::{Error, ErrorKind, Location, Result};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::ObjectStore;

use self::save::Turn;
pub use self::shelf::SnapshotDisk;
use self::shelf::{Pieces, Shelf, Shelved};
use super::UpsertWriter;
use crate::delta::action::{Action, Remove};
use crate::delta::log::{LogEntry, Version};
use crate::delta::state::TableState;
use crate::write::index::{IndexShare, KeyIndex, SnapshotOf, SnapshotReader, over_memory, read_of};

/// Enough of a snapshot to say what it is of: ids, and the names and types of a few columns.
const HEAD_BYTES: u64 = 64 << 10;

/// How far back deletes are read from sidecars beside a snapshot: far more than a batch takes from staging its deletes to
/// landing, by the clocks of all processes that land in the table.
const MARGIN_MS: i64 = 3_600_000;

/// A snapshot that was read.
#[derive(Debug)]
struct Found {
    of: SnapshotOf,
    index: KeyIndex,
    /// On how many shelves one of its version lies.
    n_shelves: usize,
}

/// The snapshots of one table.
#[derive(Debug)]
pub(super) struct Snapshots {
    /// Where they lie; what a start finds on several, it takes from the first.
    shelves: Vec<Shelf>,
    location: Location,
    /// Versions from one to the next; 0 for none.
    interval: u64,
    /// The version at which the last one was begun, or the table was opened.
    since: Version,
    /// The version of the newest one that is known to be stored, and on how many shelves.
    saved: Option<(Version, usize)>,
    /// The one under way.
    turn: Option<Turn>,
}

impl Snapshots {
    /// Returns the snapshots of a table that lies at the root of `store`, to be taken every `interval` versions; 0 for none.
    pub(super) fn new(store: Arc<dyn ObjectStore>, location: Location, interval: u64, version: Version) -> Self {
        Self { shelves: vec![Shelf::beside_table(store)], location, interval, since: version, saved: None, turn: None }
    }

    /// Keeps them on `disk` as well, unless the table lies on it itself.
    pub(super) async fn also_on(mut self, disk: Option<SnapshotDisk>, table_id: &str) -> Self {
        let Some(disk) = disk.filter(|_| self.interval > 0 && self.location.local_path().is_none()) else {
            return self;
        };
        match Shelf::on_disk(disk, table_id).await {
            Ok(shelf) => self.shelves.insert(0, shelf),
            Err(error) => tracing::warn!(
                table = %self.location, error = %error.chain(), "snapshots of the key index are kept beside the table only"
            ),
        }
        self
    }

    /// Returns the version of the newest snapshot that is known.
    #[cfg(test)]
    pub(super) fn saved(&self) -> Option<Version> {
        self.saved.map(|(version, _)| version)
    }

    /// Tells whether all shelves have the snapshot of `version`.
    fn has(&self, version: Version) -> bool {
        self.saved == Some((version, self.shelves.len()))
    }

    /// Tells whether a snapshot of `version` should be begun.
    fn is_due(&self, version: Version) -> bool {
        let is_busy = self.turn.as_ref().is_some_and(|turn| !turn.is_finished());
        self.interval > 0 && !is_busy && version >= self.since.saturating_add(self.interval)
    }

    /// Begins to write a snapshot.
    fn begin(&mut self, index: KeyIndex, of: SnapshotOf) {
        self.since = of.version;
        self.turn = Some(Turn::begin(self.shelves.clone(), self.location.clone(), index, of));
    }

    /// Waits for the snapshot under way, at most `limit`, then drops it, and what it holds of the index.
    pub(super) async fn wait(&mut self, limit: Duration) {
        let Some(turn) = self.turn.take() else { return };
        if let Some(saved) = turn.end(limit, &self.location).await {
            self.saved = Some(saved);
        }
    }

    /// Reads the newest snapshot that fits `wanted`: of this table and layout, not newer than its version.
    ///
    /// # Errors
    /// `Invalid`, naming the setting, when it is larger than `bytes_max` or than `share` has room for: before it is read.
    async fn read_newest(
        &self,
        wanted: &SnapshotOf,
        (bytes_max, share): (u64, &mut IndexShare),
    ) -> Result<Option<Found>> {
        let listed = self.listed().await;
        for (shelf, snapshot) in &listed {
            if shelf.is_on_disk() && snapshot.version > wanted.version {
                self.discard(shelf, snapshot, wanted.at_ms).await;
                continue;
            }
            let read = async {
                check_memory(shelf, snapshot, wanted, (bytes_max, &mut *share)).await?;
                read(shelf, snapshot, wanted).await
            };
            match read.await {
                Ok((of, index)) => {
                    tracing::debug!(table = %self.location, snapshot = shelf.name(snapshot), "a snapshot was read");
                    let n_shelves = listed.iter().filter(|(_, other)| other.version == snapshot.version).count();
                    return Ok(Some(Found { of, index, n_shelves }));
                }
                Err(error) if error.kind() == ErrorKind::Invalid => return Err(error),
                Err(error) => {
                    share.give_back();
                    tracing::warn!(
                        table = %self.location, version = snapshot.version, error = %error.chain(),
                        "a snapshot of the key index is of no use"
                    );
                }
            }
        }
        Ok(None)
    }

    /// Returns the snapshots of all shelves, newest first.
    async fn listed(&self) -> Vec<(&Shelf, Shelved)> {
        let mut all = Vec::new();
        for shelf in &self.shelves {
            match shelf.list().await {
                Ok(listed) => all.extend(listed.into_iter().map(|snapshot| (shelf, snapshot))),
                Err(error) => {
                    tracing::warn!(table = %self.location, error = %error.chain(), "snapshots cannot be listed");
                }
            }
        }
        all.sort_by_key(|(_, snapshot)| Reverse(snapshot.version));
        all
    }

    /// Removes a snapshot of a version that the table does not have: an older state of it was put back, beside which the disk
    /// of this machine still knows of the other one. When the table has come that far again, it would be taken for its own.
    /// One of just now is of another process, which has written since this one looked.
    async fn discard(&self, shelf: &Shelf, snapshot: &Shelved, now_ms: i64) {
        /// Far longer than a start takes from looking at the log to looking at snapshots.
        const SETTLED_MS: i64 = 600_000;
        let name = shelf.name(snapshot);
        if snapshot.written_ms.saturating_add(SETTLED_MS) > now_ms {
            tracing::debug!(table = %self.location, snapshot = name, "a snapshot is newer than the table was");
            return;
        }
        match shelf.remove(snapshot).await {
            Ok(()) => tracing::warn!(
                table = %self.location, snapshot = name, "a snapshot of a version that the table does not have is removed"
            ),
            Err(error) => tracing::warn!(table = %self.location, error = %error.chain(), "a snapshot stays"),
        }
    }
}

/// Checks that the index of a snapshot may fit into memory: it takes about the bytes of the file, and rather more. A
/// large one of another table is of no use, and says nothing of this one.
async fn check_memory(
    shelf: &Shelf,
    snapshot: &Shelved,
    wanted: &SnapshotOf,
    (bytes_max, share): (u64, &mut IndexShare),
) -> Result<()> {
    let (name, n_bytes) = (shelf.name(snapshot), snapshot.n_bytes);
    let told = || format!("the {n_bytes} bytes of {name}, or more");
    // Flows that start at the same time must not read what they have no room for together.
    let fits = if n_bytes > bytes_max { Err(over_memory(&told(), bytes_max)) } else { share.resize(n_bytes, told) };
    if fits.is_err() {
        check_is_of(&read_of(&shelf.head(snapshot, HEAD_BYTES).await?)?, wanted, &name)?;
    }
    fits
}

/// Reads a snapshot, of which no more than a piece and what is on its way is in memory beside the index; a damaged length
/// may make that piece all that is left.
async fn read(shelf: &Shelf, snapshot: &Shelved, wanted: &SnapshotOf) -> Result<(SnapshotOf, KeyIndex)> {
    let name = shelf.name(snapshot);
    let mut bytes = Exactly { pieces: shelf.read(snapshot), piece: Bytes::new(), n_left: snapshot.n_bytes };
    let mut reader = SnapshotReader::new();
    while reader.wants() > 0 {
        let taken = bytes.take(reader.wants(), &name).await?;
        let turn = tokio::task::spawn_blocking(move || reader.take(&taken).map(|()| reader)).await;
        reader = turn.map_err(|cause| Error::internal("reading a snapshot stopped").with_source(cause))??;
        if let Some(of) = reader.of() {
            check_is_of(of, wanted, &name)?;
        }
    }
    if bytes.n_left > 0 {
        return Err(Error::data(format!("{name} goes on after its end")));
    }
    reader.finish()
}

/// Bytes that come in pieces, taken by number.
struct Exactly {
    pieces: Pieces,
    /// What is left of the last one.
    piece: Bytes,
    n_left: u64,
}

impl Exactly {
    async fn take(&mut self, n_bytes: u64, name: &str) -> Result<Vec<u8>> {
        let short = || Error::data(format!("{name} ends too early"));
        self.n_left = self.n_left.checked_sub(n_bytes).ok_or_else(short)?;
        let n_bytes = usize::try_from(n_bytes).map_err(|_| short())?;
        let mut taken = Vec::with_capacity(n_bytes);
        while taken.len() < n_bytes {
            if self.piece.is_empty() {
                self.piece = self.pieces.try_next().await?.ok_or_else(short)?;
            }
            let next = self.piece.split_to((n_bytes - taken.len()).min(self.piece.len()));
            taken.extend_from_slice(&next);
        }
        Ok(taken)
    }
}

/// Checks that a snapshot is of the table that is `wanted`, and not newer.
fn check_is_of(of: &SnapshotOf, wanted: &SnapshotOf, name: &str) -> Result<()> {
    if of.table != wanted.table || of.layout != wanted.layout {
        return Err(Error::data(format!("{name} is of another table, or of other keys: {}", of.layout)));
    }
    if of.version > wanted.version {
        return Err(Error::data(format!("{name} is of a version that the table does not have")));
    }
    Ok(())
}

impl UpsertWriter {
    /// Takes the newest usable snapshot and what has changed since; tells whether there was one.
    pub(super) async fn restore(&mut self, state: &TableState) -> Result<bool> {
        if self.settings.snapshot_interval == 0 {
            return Ok(false);
        }
        let wanted = self.snapshot_of();
        let bounds = (self.settings.memory_bytes_max, &mut self.share);
        let found = self.snapshots.read_newest(&wanted, bounds).await?;
        let Some(Found { of, index, n_shelves }) = found else { return Ok(false) };
        self.index = Arc::new(index);
        self.check_memory().await?;
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
            self.share.give_back();
            return Ok(false);
        }
        tracing::debug!(table = %self.folder.location, version = of.version, n_changed, known, "key index restored");
        self.snapshots.since = of.version;
        self.snapshots.saved = Some((of.version, n_shelves));
        Ok(true)
    }

    /// Begins a snapshot when one is due.
    pub(super) fn save_when_due(&mut self) {
        if self.is_whole && self.snapshots.is_due(self.version) {
            // What gathers over a clone comes on top of what has gathered over the last one.
            self.merge_layers();
            let of = self.snapshot_of();
            self.snapshots.begin(KeyIndex::clone(&self.index), of);
        }
    }

    /// Saves what has changed since the last snapshot, and waits for it, within a bound.
    pub(super) async fn save_and_wait(&mut self) {
        /// A start without a snapshot costs more than this only for tables that have older snapshots, too.
        const LIMIT: Duration = Duration::from_secs(10);
        self.snapshots.wait(LIMIT).await;
        if self.settings.snapshot_interval > 0 && self.is_whole && !self.snapshots.has(self.version) {
            self.merge_layers();
            let of = self.snapshot_of();
            self.snapshots.begin(KeyIndex::clone(&self.index), of);
            self.snapshots.wait(LIMIT).await;
        }
    }

    /// Returns what a snapshot would be of. Its moment is not that of writing it: a process that has been idle knows nothing
    /// of what others have deleted meanwhile, and whoever starts from its snapshot has to read that.
    fn snapshot_of(&self) -> SnapshotOf {
        let columns = &self.reader.columns;
        let layout = format!(
            "keys {:?} {:?}, sequence {:?} {:?} {:?}",
            columns.keys,
            self.reader.keys.types(),
            columns.stored_sequence,
            columns.sequence,
            columns.sequence_by
        );
        let (table, version, at_ms) = (self.table_id.clone(), self.version, self.stood_ms);
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
