//! Where the live row of each key is: the state that makes an upsert cost what the batch is, not what the table is.
//!
//! The index is derived: it is made from the key columns of the live files and their deletion vectors, and follows the
//! log. It is exact, and holds of a key its form and the place of its row, nothing else: the order of rows is known by
//! the [`Bounds`] of their files, and where those do not decide, by the file. A hit counts only while its file is alive
//! and its row is not deleted, so that a foreign commit which removes files or rows needs no search for their keys.
//!
//! What it never does: read a file, decide which of two rows is newer, or forget a key whose row lives.

mod bounds;
mod budget;
mod bulk;
mod deletes;
mod doubles;
mod files;
mod layers;
mod lent;
mod place;
mod relocate;
mod shard;
mod snapshot;

use std::sync::{Mutex, PoisonError};

use alluvium_catalog::{Error, Result};
use roaring::RoaringTreemap;

pub use bounds::{Bounds, Standing};
pub use budget::IndexBudget;
pub(super) use budget::IndexShare;
pub use bulk::FoundKeys;
pub use deletes::{RememberedDelete, ToldDelete};
pub use files::IndexedFile;
pub(super) use lent::{IndexLender, LentIndex};
pub use place::{FileOrdinal, RowPlace};
pub use snapshot::{SnapshotOf, SnapshotReader, SnapshotWriter, read_of, read_snapshot};

use crate::delta::action::DeletionVectorDescriptor;
use crate::key::{KeyRef, Keys};
use crate::order::Order;
use bulk::ByShard;
use deletes::Deletes;
use doubles::Doubles;
use files::Files;
use shard::{N_SHARDS, OpenShard, ProbeEnd, Shard, shard_of};

/// The index of one table. A clone shares what neither changes.
#[derive(Debug, Clone)]
pub struct KeyIndex {
    shards: Vec<Shard>,
    files: Files,
    deletes: Deletes,
    /// Live rows whose key has a newer live row: foreign writers can add them. The next commit deletes them.
    doubles: Doubles,
    /// Keys whose row is live.
    n_entries: u64,
    /// Counts changes, so that what was looked up before one is not taken for what holds after it.
    epoch: u64,
}

/// A row that a file brings under a key that has a live row already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Double {
    /// The index of the key among those that were put.
    pub index: u32,
    /// The row that the key had at that moment.
    pub known: RowPlace,
}

/// What an index takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Footprint {
    /// Keys with a live row.
    pub n_keys: u64,
    /// Deletes that are remembered.
    pub n_deletes: u64,
    /// Bytes of memory.
    pub bytes: u64,
}

impl Default for KeyIndex {
    fn default() -> Self {
        Self {
            // Each has tables of its own: clones of one would share them.
            shards: std::iter::repeat_with(Shard::default).take(N_SHARDS).collect(),
            files: Files::default(),
            deletes: Deletes::default(),
            doubles: Doubles::default(),
            n_entries: 0,
            epoch: 0,
        }
    }
}

/// Files and which of their rows are gone.
impl KeyIndex {
    /// Adds a file whose path is not known; its rows are put separately.
    pub fn insert_file(&mut self, file: IndexedFile) -> FileOrdinal {
        self.epoch += 1;
        self.files.insert(file)
    }

    /// Says between which orders the rows of a file lie; until then, a row has to be looked at to be told from another.
    pub fn set_bounds(&mut self, ordinal: FileOrdinal, bounds: Bounds) {
        self.files.change(ordinal, |file| file.bounds = bounds);
        self.epoch += 1;
    }

    /// Forgets a file: hits in it no longer count.
    pub fn remove_file(&mut self, path: &str) -> Option<FileOrdinal> {
        let (ordinal, file) = self.files.remove(path)?;
        let n_doubles = self.settle_doubles(ordinal);
        self.n_entries = self.n_entries.saturating_sub(file.n_live().saturating_sub(n_doubles));
        self.epoch += 1;
        Some(ordinal)
    }

    /// Takes the new deletion vector of a file, which must name all rows that the old one did.
    pub fn set_deleted(
        &mut self,
        ordinal: FileOrdinal,
        deleted: RoaringTreemap,
        vector: Option<DeletionVectorDescriptor>,
    ) {
        let changed = self.files.change(ordinal, |file| {
            file.vector = vector;
            file.set_deleted(deleted)
        });
        let Some(n_gone) = changed else { return };
        let n_doubles = self.settle_doubles(ordinal);
        self.n_entries = self.n_entries.saturating_sub(n_gone.saturating_sub(n_doubles));
        self.epoch += 1;
    }

    /// Marks rows as deleted whose keys have been put elsewhere or [deleted](Self::put_delete) already.
    pub fn delete_rows(&mut self, ordinal: FileOrdinal, rows: &RoaringTreemap) {
        self.files.change(ordinal, |file| file.delete(rows));
        self.settle_doubles(ordinal);
        self.epoch += 1;
    }

    /// Notes the descriptor under which the log has the deleted rows of a file.
    pub fn set_vector(&mut self, path: &str, vector: Option<DeletionVectorDescriptor>) {
        if let Some(ordinal) = self.files.ordinal(path) {
            self.files.change(ordinal, |file| file.vector = vector);
        }
    }

    /// Returns the ordinal of a live file.
    pub fn ordinal(&self, path: &str) -> Option<FileOrdinal> {
        self.files.ordinal(path)
    }

    /// Returns how many rows a live file holds, deleted ones included.
    pub fn n_records(&self, path: &str) -> Option<u64> {
        Some(self.file(self.ordinal(path)?)?.n_rows)
    }

    /// Returns a live file.
    pub fn file(&self, ordinal: FileOrdinal) -> Option<&IndexedFile> {
        self.files.get(ordinal)
    }

    /// Returns the rows of a live file that are deleted.
    pub fn deleted_rows(&self, path: &str) -> Option<&RoaringTreemap> {
        self.files.ordinal(path).and_then(|ordinal| self.files.get(ordinal)).map(|file| file.deleted().as_ref())
    }

    /// Returns all live files.
    pub fn files(&self) -> impl Iterator<Item = (FileOrdinal, &IndexedFile)> {
        self.files.iter().map(|(ordinal, file)| (ordinal, file.as_ref()))
    }
}

/// Rows and deletes of keys.
impl KeyIndex {
    /// Returns the live row of each key, or [`RowPlace::NONE`]. Large batches are looked up by several threads.
    pub fn find(&self, keys: &Keys) -> Vec<RowPlace> {
        self.look_up(keys).places()
    }

    /// Returns what is known of each key, for [`replace_rows`](Self::replace_rows) to go on from.
    pub fn look_up(&self, keys: &Keys) -> FoundKeys {
        bulk::find(&self.shards, keys, &|place| self.files.is_live(place))
    }

    /// Returns the live row of one key.
    pub fn find_one(&self, key: KeyRef<'_>, hash: u64) -> Option<RowPlace> {
        let place = self.shards.get(shard_of(hash))?.get(key, hash);
        (place.is_some() && self.files.is_live(place)).then_some(place)
    }

    /// Returns the remembered delete of a key that has no live row.
    pub fn deleted(&self, key: KeyRef<'_>, hash: u64) -> Option<&RememberedDelete> {
        self.deletes.get(key, hash)
    }

    /// Tells whether any delete is remembered.
    pub fn remembers_deletes(&self) -> bool {
        self.deletes.len() > 0
    }

    /// Records rows that have landed, over whatever was known of their keys; keys without a place are left alone.
    /// Rows that they supersede must be [deleted](Self::delete_rows) right after.
    pub fn put_rows(&mut self, keys: &Keys, places: &[RowPlace]) {
        self.put(&ByShard::new(keys), None, places);
    }

    /// Does as [`put_rows`](Self::put_rows) with the keys of `found`, and is faster: they are not put in order once more, nor
    /// looked up where their shard is as it was. What it has found must hold: no row was deleted since.
    pub fn replace_rows(&mut self, found: &FoundKeys, places: &[RowPlace]) {
        self.put(found.by_shard(), Some(found), places);
    }

    fn put(&mut self, by_shard: &ByShard, found: Option<&FoundKeys>, places: &[RowPlace]) {
        let (files, has_dead) = (&self.files, self.has_dead());
        let lives = |place: RowPlace| !has_dead || files.is_live(place);
        let new = by_shard.arranged(|index| places[index]);
        let put = |shard: &mut OpenShard<'_>, at: usize, from: ProbeEnd| {
            if !new[at].is_some() {
                return 0;
            }
            let before = shard.put(by_shard.key(at), from, new[at], &lives);
            let is_known = found.is_some_and(|found| before == found.place(at));
            u64::from(!(before.is_some() && (is_known || lives(before))))
        };
        self.n_entries += bulk::change(&mut self.shards, (by_shard, found), &lives, &put);
        if self.remembers_deletes() {
            for at in (0..new.len()).filter(|at| new[*at].is_some()) {
                let (key, hash) = by_shard.key(at);
                self.deletes.remove(key, hash);
            }
        }
        self.epoch += 1;
    }

    /// Records the live rows that a file brings, and returns those whose key has another live row already: which of the
    /// two stands is for the caller to say, by [`settle`](Self::settle).
    pub fn put_found(&mut self, keys: &Keys, places: &[RowPlace]) -> Vec<Double> {
        let files = &self.files;
        let lives = |place: RowPlace| files.is_live(place);
        let doubles = Mutex::new(Vec::new());
        let by_shard = ByShard::new(keys);
        let new = by_shard.arranged(|index| places[index]);
        let put = |shard: &mut OpenShard<'_>, at: usize, from: ProbeEnd| {
            let (key, hash) = by_shard.key(at);
            let known = shard.get(key, hash);
            if known.is_some() && lives(known) {
                if known != new[at] {
                    let double = Double { index: by_shard.index(at), known };
                    doubles.lock().unwrap_or_else(PoisonError::into_inner).push(double);
                }
                return 0;
            }
            shard.put((key, hash), from, new[at], &lives);
            1
        };
        self.n_entries += bulk::change(&mut self.shards, (&by_shard, None), &lives, &put);
        if self.remembers_deletes() {
            for index in 0..keys.len() {
                self.deletes.remove(keys.get(index), keys.hashes()[index]);
            }
        }
        self.epoch += 1;
        let mut doubles = doubles.into_inner().unwrap_or_else(PoisonError::into_inner);
        doubles.sort_unstable_by_key(|double| double.index);
        doubles
    }

    /// Settles a double: `stands` is the row of the key from now on, and the next commit deletes `falls`.
    pub fn settle(&mut self, (key, hash): (KeyRef<'_>, u64), stands: RowPlace, falls: RowPlace) {
        let files = &self.files;
        if let Some(shard) = self.shards.get_mut(shard_of(hash)) {
            let lives = |place: RowPlace| files.is_live(place);
            shard.open(&lives).put((key, hash), ProbeEnd::NOWHERE, stands, &lives);
        }
        self.doubles.push(falls);
        self.epoch += 1;
    }

    /// Records a delete that has landed. Its row, where it had one, must be [deleted](Self::delete_rows) right after.
    pub fn put_delete(&mut self, (key, hash): (KeyRef<'_>, u64), order: Order, at_ms: i64) {
        if self.find_one(key, hash).is_some() {
            self.n_entries = self.n_entries.saturating_sub(1);
        }
        self.deletes.put((key, hash), order, at_ms);
        self.epoch += 1;
    }

    /// Records a delete that a sidecar tells of. It never hides a live row: a sidecar may be of a commit that did not
    /// land, and then its record comes again. One that has landed is the last word on a key without a row: what is
    /// known beside it may be over where it was made.
    pub fn put_remembered_delete(&mut self, (key, hash): (KeyRef<'_>, u64), told: ToldDelete) {
        let is_news = match self.deletes.get(key, hash) {
            Some(known) if !told.has_landed => told.replaces(&known.order),
            _ => self.find_one(key, hash).is_none(),
        };
        if is_news {
            self.deletes.put((key, hash), told.order, told.at_ms);
            self.epoch += 1;
        }
    }

    /// Forgets deletes staged before `before_ms`.
    pub fn forget(&mut self, before_ms: i64) {
        self.deletes.forget(before_ms);
        self.epoch += 1;
    }
}

/// What can be asked of the whole.
impl KeyIndex {
    /// Returns the live rows that the next commit has to delete because their key has a newer one.
    pub fn doubles(&self) -> impl Iterator<Item = RowPlace> + '_ {
        self.doubles.iter().filter(|place| self.files.is_live(*place))
    }

    /// Returns the files with such rows.
    pub fn files_with_doubles(&self) -> impl Iterator<Item = (FileOrdinal, &IndexedFile)> {
        self.doubles.files().filter_map(|ordinal| Some((ordinal, self.files.get(ordinal)?)))
    }

    /// Returns a number that differs after each change.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the number of live rows that the index knows, those that the next commit deletes included: the log must
    /// tell the same of the table.
    pub fn n_rows(&self) -> u64 {
        self.n_entries + self.live_doubles()
    }

    /// Debug builds: holds the running number of keys against the entries themselves. The log is compared with that number
    /// after every commit, so it must be that of the entries, and not only agree with the log.
    ///
    /// # Panics
    /// In a debug build, when there is an entry too many or too few.
    pub fn check_count(&self) {
        /// A count visits every slot: of so many that takes a debug build some milliseconds, which a commit may cost there.
        const COUNTED_MAX: u64 = 100_000;
        if cfg!(debug_assertions) && self.n_entries <= COUNTED_MAX {
            debug_assert_eq!(self.count_keys(), self.n_entries, "the key index has lost count of its entries");
        }
    }

    /// Counts the keys with a live row one by one, to hold [`footprint`](Self::footprint) against.
    pub fn count_keys(&self) -> u64 {
        let mut n_keys = 0;
        for shard in &self.shards {
            shard.for_each(|_, place| n_keys += u64::from(self.files.is_live(place)));
        }
        n_keys
    }

    /// Returns what the index takes. It costs the same however many keys and files there are.
    pub fn footprint(&self) -> Footprint {
        let shards: usize = self.shards.iter().map(|shard| shard.bytes()).sum();
        let bytes = shards + self.files.bytes() + self.deletes.bytes() + self.doubles.bytes();
        Footprint { n_keys: self.n_entries, n_deletes: self.deletes.len() as u64, bytes: bytes as u64 }
    }

    /// Checks that the index takes at most `bytes_max`.
    ///
    /// # Errors
    /// `Invalid`, naming the setting, when it takes more.
    pub fn check_memory(&self, bytes_max: u64) -> Result<()> {
        let Footprint { n_keys, n_deletes, bytes } = self.footprint();
        if bytes <= bytes_max {
            return Ok(());
        }
        Err(over_memory(&format!("{bytes} bytes for {n_keys} keys and {n_deletes} remembered deletes"), bytes_max))
    }

    /// Tells whether rows of some entries may be gone. Where none are, a table that grows need not ask of each.
    fn has_dead(&self) -> bool {
        let n_slots: usize = self.shards.iter().map(Shard::n_slots).map(|forms| forms.iter().sum::<usize>()).sum();
        n_slots as u64 > self.n_entries
    }

    fn live_doubles(&self) -> u64 {
        self.doubles().count() as u64
    }

    /// Forgets doubles of a file that are deleted by now, and returns how many those are.
    fn settle_doubles(&mut self, ordinal: FileOrdinal) -> u64 {
        let files = &self.files;
        self.doubles.settle(ordinal, |place| files.is_live(place))
    }
}

/// Returns the error of an index that takes `taken`, more than the setting allows.
pub fn over_memory(taken: &str, bytes_max: u64) -> Error {
    Error::invalid(format!("the key index takes {taken}, and index.memory allows {bytes_max}")).with_hint(
        "raise index.memory (ALLUVIUM_INDEX_MEMORY) if the machine has the memory, or split the table by key",
    )
}

#[cfg(test)]
mod tests;
