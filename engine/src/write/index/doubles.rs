//! Live rows whose key has a newer live row: foreign writers can add them, and the next commit deletes them.
//!
//! They are kept by file: what changes in a file settles those of that file, and however many there are elsewhere costs
//! nothing then.

use std::collections::BTreeMap;

use super::place::{FileOrdinal, RowPlace};

/// Rows that wait to be deleted.
#[derive(Debug, Clone, Default)]
pub(super) struct Doubles {
    /// The rows of each file that has any.
    by_file: BTreeMap<FileOrdinal, Vec<u32>>,
    n_rows: usize,
}

impl Doubles {
    /// Adds a row, which must not be among them.
    pub(super) fn push(&mut self, place: RowPlace) {
        self.by_file.entry(place.file()).or_default().push(place.row());
        self.n_rows += 1;
    }

    /// Keeps of the rows of a file those that `lives` names, and returns how many go.
    pub(super) fn settle(&mut self, file: FileOrdinal, lives: impl Fn(RowPlace) -> bool) -> u64 {
        let Some(rows) = self.by_file.get_mut(&file) else { return 0 };
        let n_before = rows.len();
        rows.retain(|row| lives(RowPlace::new(file, *row)));
        let n_left = rows.len();
        if n_left == 0 {
            self.by_file.remove(&file);
        }
        self.n_rows -= n_before - n_left;
        (n_before - n_left) as u64
    }

    /// Returns all of them, file by file.
    pub(super) fn iter(&self) -> impl Iterator<Item = RowPlace> + '_ {
        self.by_file.iter().flat_map(|(file, rows)| rows.iter().map(move |row| RowPlace::new(*file, *row)))
    }

    /// Returns the files that have any.
    pub(super) fn files(&self) -> impl Iterator<Item = FileOrdinal> + '_ {
        self.by_file.keys().copied()
    }

    /// Returns at most how many bytes they take in memory: a list has up to twice the room that it needs.
    pub(super) fn bytes(&self) -> usize {
        2 * self.n_rows * size_of::<u32>() + self.by_file.len() * size_of::<(FileOrdinal, Vec<u32>)>()
    }
}
