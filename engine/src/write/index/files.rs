//! The data files of the table as the index knows them: where each is, which of its rows are gone, and the bounds of the
//! orders of its rows. A file that left the table keeps its number for ever, so that hits in it never count again.
//!
//! What the files take in memory is added up as they change: a walk over all of them would make each batch cost what the
//! table has files.

use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringTreemap;

use super::bounds::Bounds;
use super::place::{FileOrdinal, RowPlace};
use crate::delta::action::{Add, DeletionVectorDescriptor};
use crate::write::row_bits::RowBits;

/// A live data file.
#[derive(Debug, Clone)]
pub struct IndexedFile {
    /// Its path in the log.
    pub path: String,
    /// Its size in bytes.
    pub size: i64,
    /// Its partition values.
    pub partition_values: HashMap<String, Option<String>>,
    /// Its rows, deleted ones included.
    pub n_rows: u64,
    /// The rows that are deleted, and the same as bits.
    deleted: Arc<RoaringTreemap>,
    gone: RowBits,
    /// The descriptor of the vector that says so, where the log has one.
    pub vector: Option<DeletionVectorDescriptor>,
    /// The bounds of the orders of its rows.
    pub bounds: Bounds,
}

impl IndexedFile {
    /// Returns the file of `add`, of whose `n_rows` rows `deleted` are gone.
    pub fn new(add: &Add, n_rows: u64, deleted: RoaringTreemap, bounds: Bounds) -> Self {
        Self {
            path: add.path.clone(),
            size: add.size,
            partition_values: add.partition_values.clone(),
            n_rows,
            gone: RowBits::of(&deleted, n_rows),
            deleted: Arc::new(deleted),
            vector: add.deletion_vector.clone(),
            bounds,
        }
    }

    /// Returns the rows that are deleted.
    pub fn deleted(&self) -> &Arc<RoaringTreemap> {
        &self.deleted
    }

    /// Tells whether `row` is deleted.
    #[inline]
    pub fn is_deleted(&self, row: u64) -> bool {
        self.gone.contains(row)
    }

    /// Deletes `rows` more.
    pub(super) fn delete(&mut self, rows: &RoaringTreemap) {
        *Arc::make_mut(&mut self.deleted) |= rows;
        self.gone.insert(rows, self.n_rows);
    }

    /// Takes `deleted`, which names all rows that were deleted before, and returns how many it deletes more.
    pub(super) fn set_deleted(&mut self, deleted: RoaringTreemap) -> u64 {
        debug_assert!(self.deleted.is_subset(&deleted), "rows of {} came back", self.path);
        let n_gone = deleted.len().saturating_sub(self.deleted.len());
        self.gone.insert(&deleted, self.n_rows);
        self.deleted = Arc::new(deleted);
        n_gone
    }

    /// Returns the number of rows that are not deleted.
    pub fn n_live(&self) -> u64 {
        self.n_rows.saturating_sub(self.deleted.len())
    }

    /// Returns about how many bytes the file takes in memory.
    fn bytes(&self) -> usize {
        let bitmaps = self.deleted.bitmaps().map(|(_, bitmap)| {
            let statistics = bitmap.statistics();
            statistics.n_bytes_array_containers
                + statistics.n_bytes_run_containers
                + statistics.n_bytes_bitset_containers
        });
        size_of::<Self>() + 3 * self.path.len() + bitmaps.sum::<u64>() as usize + self.gone.bytes()
    }
}

/// All files, by ordinal and by path.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    /// `None` for files that left the table.
    files: Vec<Option<Arc<IndexedFile>>>,
    ordinals: HashMap<String, FileOrdinal>,
    /// The sum of the bytes of all live files.
    file_bytes: usize,
}

impl Files {
    /// Adds a file that is not known.
    pub(super) fn insert(&mut self, file: IndexedFile) -> FileOrdinal {
        // Four thousand million files exceed what a log can carry.
        let ordinal = FileOrdinal(u32::try_from(self.files.len()).unwrap_or(u32::MAX - 1));
        self.ordinals.insert(file.path.clone(), ordinal);
        self.file_bytes += file.bytes();
        self.files.push(Some(Arc::new(file)));
        ordinal
    }

    pub(super) fn remove(&mut self, path: &str) -> Option<(FileOrdinal, Arc<IndexedFile>)> {
        let ordinal = self.ordinals.remove(path)?;
        let file = self.files.get_mut(ordinal.0 as usize)?.take()?;
        self.file_bytes -= file.bytes();
        Some((ordinal, file))
    }

    pub(super) fn ordinal(&self, path: &str) -> Option<FileOrdinal> {
        self.ordinals.get(path).copied()
    }

    pub(super) fn get(&self, ordinal: FileOrdinal) -> Option<&IndexedFile> {
        self.files.get(ordinal.0 as usize)?.as_deref()
    }

    /// Changes a live file, and returns what `change` returns; `None` where there is no such file.
    pub(super) fn change<T>(&mut self, ordinal: FileOrdinal, change: impl FnOnce(&mut IndexedFile) -> T) -> Option<T> {
        let file = self.files.get_mut(ordinal.0 as usize)?.as_mut().map(Arc::make_mut)?;
        let before = file.bytes();
        let changed = change(file);
        self.file_bytes = self.file_bytes - before + file.bytes();
        Some(changed)
    }

    /// Tells whether the row at `place` is in the table.
    #[inline]
    pub(super) fn is_live(&self, place: RowPlace) -> bool {
        match self.files.get(place.file().0 as usize) {
            Some(Some(file)) => !file.is_deleted(u64::from(place.row())),
            _ => false,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (FileOrdinal, &Arc<IndexedFile>)> {
        (0_u32..).zip(&self.files).filter_map(|(ordinal, file)| Some((FileOrdinal(ordinal), file.as_ref()?)))
    }

    /// Returns about how many bytes the files take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.files.capacity() * size_of::<usize>() + self.file_bytes
    }

    /// Returns the same by a walk over all files, to hold [`bytes`](Self::bytes) against.
    #[cfg(test)]
    pub(super) fn count_bytes(&self) -> usize {
        self.files.capacity() * size_of::<usize>() + self.iter().map(|(_, file)| file.bytes()).sum::<usize>()
    }
}
