//! Where the live row of each key is: the state that makes an upsert cost what the batch is, not what the table is.
//!
//! The index is derived: it is made from the key columns of the live files and their deletion vectors, and follows the
//! log. A hit counts only while its file is alive and its row is not deleted, so that a foreign commit which removes
//! files or rows needs no search for their keys.

mod relocate;

use std::collections::HashMap;

use hashbrown::hash_map::EntryRef;
use roaring::RoaringTreemap;

use crate::order::Order;

/// Names a data file within the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileOrdinal(u32);

/// The place of a row: the file, and the row's number in it from 0.
pub type RowPlace = (FileOrdinal, u32);

/// What the index knows of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A row of a file.
    Row(RowPlace),
    /// The key was deleted, at this moment by the host's clock (epoch milliseconds).
    Deleted {
        /// When the delete was staged.
        at_ms: i64,
    },
}

/// The newest change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the order of the key.
    pub order: Order,
    /// Where its row is.
    pub place: Place,
}

/// A data file and which of its rows are gone.
#[derive(Debug)]
struct File {
    path: String,
    alive: bool,
    rows: u64,
    deleted: RoaringTreemap,
}

/// The index of one table.
#[derive(Debug, Default)]
pub struct KeyIndex {
    entries: hashbrown::HashMap<Box<[u8]>, Entry>,
    files: Vec<File>,
    ordinals: HashMap<String, FileOrdinal>,
    /// Live rows whose key has a newer live row in another file: foreign writers can add them. The next commit deletes
    /// them.
    doubles: Vec<RowPlace>,
}

impl KeyIndex {
    /// Adds a file, or takes its new deletion vector when it is known.
    pub fn put_file(&mut self, path: &str, rows: u64, deleted: RoaringTreemap) -> FileOrdinal {
        if let Some(&ordinal) = self.ordinals.get(path) {
            if let Some(file) = self.files.get_mut(ordinal.0 as usize) {
                file.alive = true;
                file.deleted = deleted;
            }
            return ordinal;
        }
        let ordinal = FileOrdinal(u32::try_from(self.files.len()).unwrap_or(u32::MAX));
        self.files.push(File { path: path.to_owned(), alive: true, rows, deleted });
        self.ordinals.insert(path.to_owned(), ordinal);
        ordinal
    }

    /// Forgets a file: hits in it no longer count.
    pub fn remove_file(&mut self, path: &str) {
        if let Some(ordinal) = self.ordinals.remove(path)
            && let Some(file) = self.files.get_mut(ordinal.0 as usize)
        {
            file.alive = false;
            file.deleted = RoaringTreemap::new();
        }
    }

    /// Returns the ordinal of a live file.
    pub fn ordinal(&self, path: &str) -> Option<FileOrdinal> {
        self.ordinals.get(path).copied()
    }

    /// Returns the path, the number of rows (deleted ones included) and the deleted rows of a live file.
    pub fn file(&self, ordinal: FileOrdinal) -> Option<(&str, u64, &RoaringTreemap)> {
        let file = self.files.get(ordinal.0 as usize).filter(|file| file.alive)?;
        Some((&file.path, file.rows, &file.deleted))
    }

    /// Returns the newest change of `key` that still counts.
    pub fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key).filter(|entry| self.counts(&entry.place))
    }

    /// Records a change that has landed, over whatever was known of its key.
    pub fn put(&mut self, key: &[u8], entry: Entry) {
        match self.entries.entry_ref(key) {
            EntryRef::Occupied(mut known) => {
                known.insert(entry);
            }
            EntryRef::Vacant(vacant) => {
                vacant.insert(entry);
            }
        }
    }

    /// Records a row that a file brings. Where the key has a live row already, the newer one stands and the other is
    /// deleted by the next commit.
    pub fn put_found(&mut self, key: &[u8], order: Order, place: RowPlace) {
        if let Some(known) = self.get(key)
            && let Place::Row(known_place) = known.place
            && known_place != place
        {
            if known.order.supersedes(&order) {
                self.doubles.push(place);
                return;
            }
            self.doubles.push(known_place);
        }
        self.put(key, Entry { order, place: Place::Row(place) });
    }

    /// Records a delete that a sidecar tells of. It never hides a live row: a sidecar may be of a commit that did not
    /// land, and then its record comes again.
    pub fn put_remembered_delete(&mut self, key: &[u8], order: Order, at_ms: i64) {
        let replaceable = self.get(key).is_none_or(|known| match known.place {
            Place::Row(_) => false,
            Place::Deleted { .. } => order.supersedes(&known.order),
        });
        if replaceable {
            self.put(key, Entry { order, place: Place::Deleted { at_ms } });
        }
    }

    /// Forgets deletes staged before `before_ms` and entries whose row no longer counts.
    pub fn forget(&mut self, before_ms: i64) {
        let files = std::mem::take(&mut self.files);
        self.entries.retain(|_, entry| match &entry.place {
            Place::Deleted { at_ms } => *at_ms >= before_ms,
            Place::Row(place) => is_live(&files, *place),
        });
        self.files = files;
    }

    /// Marks rows as deleted.
    pub fn delete_rows(&mut self, ordinal: FileOrdinal, rows: &RoaringTreemap) {
        if let Some(file) = self.files.get_mut(ordinal.0 as usize) {
            file.deleted |= rows;
        }
    }

    /// Returns the live rows that the next commit has to delete because their key has a newer one.
    pub fn doubles(&self) -> impl Iterator<Item = RowPlace> + '_ {
        self.doubles.iter().copied().filter(|place| is_live(&self.files, *place))
    }

    /// Forgets doubles that are deleted by now.
    pub fn settle_doubles(&mut self) {
        let files = std::mem::take(&mut self.files);
        self.doubles.retain(|place| is_live(&files, *place));
        self.files = files;
    }

    /// Returns the number of keys, remembered deletes included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tells whether no key is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn counts(&self, place: &Place) -> bool {
        match place {
            Place::Row(place) => is_live(&self.files, *place),
            Place::Deleted { .. } => true,
        }
    }
}

fn is_live(files: &[File], (ordinal, row): RowPlace) -> bool {
    files.get(ordinal.0 as usize).is_some_and(|file| file.alive && !file.deleted.contains(u64::from(row)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(offset: i64) -> Order {
        Order { sequence: None, inherited: true, offset, partition: 0 }
    }

    #[test]
    fn a_hit_counts_only_while_its_row_lives() {
        let mut index = KeyIndex::default();
        let file = index.put_file("a", 3, RoaringTreemap::new());
        index.put(b"k", Entry { order: order(1), place: Place::Row((file, 2)) });
        assert!(index.get(b"k").is_some());
        index.put_file("a", 3, RoaringTreemap::from_iter([2]));
        assert!(index.get(b"k").is_none(), "the row is deleted");
        index.put_file("a", 3, RoaringTreemap::new());
        index.remove_file("a");
        assert!(index.get(b"k").is_none(), "the file is gone");
    }

    #[test]
    fn of_two_live_rows_the_newer_stands() {
        let mut index = KeyIndex::default();
        let (old, new) =
            (index.put_file("old", 1, RoaringTreemap::new()), index.put_file("new", 1, RoaringTreemap::new()));
        index.put_found(b"k", order(9), (new, 0));
        index.put_found(b"k", order(3), (old, 0));
        assert_eq!(index.get(b"k").map(|entry| entry.place.clone()), Some(Place::Row((new, 0))));
        assert_eq!(index.doubles().collect::<Vec<_>>(), [(old, 0)]);
        index.delete_rows(old, &RoaringTreemap::from_iter([0]));
        index.settle_doubles();
        assert_eq!(index.doubles().count(), 0);
    }

    #[test]
    fn a_remembered_delete_never_hides_a_live_row() {
        let mut index = KeyIndex::default();
        let file = index.put_file("a", 1, RoaringTreemap::new());
        index.put_found(b"k", order(1), (file, 0));
        index.put_remembered_delete(b"k", order(5), 0);
        assert!(matches!(index.get(b"k").map(|entry| &entry.place), Some(Place::Row(_))));
        index.put_remembered_delete(b"gone", order(5), 0);
        index.forget(1);
        assert!(index.get(b"gone").is_none());
    }
}
