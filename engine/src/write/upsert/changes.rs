//! The changes of a staged batch as columns, and what they mean to the table as the index knows it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};
use deltalake::kernel::DeletionVectorDescriptor;
use roaring::RoaringTreemap;

use crate::hop::Keyed;
use crate::order::Order;
use crate::write::index::{FileOrdinal, FoundKeys, RowPlace};
use crate::write::parquet::DataFile;
use crate::write::rewrite::Rewrite;

/// Rows of a file by their numbers.
pub(super) type RowsOfFile = (FileOrdinal, RoaringTreemap);

/// The changes of a batch, one a key, in the order of the batch. Appends have none.
#[derive(Debug, Clone, Default)]
pub struct KeyChanges {
    pub(super) columns: Option<Columns>,
}

/// What each change is.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    pub(super) keyed: Arc<Keyed>,
    /// The key columns, for deletes that are to be remembered.
    pub(super) key_columns: Vec<ArrayRef>,
    /// The offset of a tombstone without sequence that came before the change in the batch, if one did.
    pub(super) after_delete: Option<Int64Array>,
    /// Where the row of each change was written.
    pub(super) stored: Vec<Stored>,
    /// What the changes meant when they were staged.
    pub(super) verdicts: Arc<Verdicts>,
    /// The vectors that were written then, by file.
    pub(super) marks: Vec<Mark>,
}

/// A deletion vector of a file, uploaded before its commit is drawn up. It is the commit's if the file has lost no other
/// rows by then.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub(super) file: FileOrdinal,
    pub(super) gone: RoaringTreemap,
    pub(super) vector: DeletionVectorDescriptor,
}

/// The row of a change: the file among those staged, and the row in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// Nothing is stored of a delete, nor of a row that a tombstone before it turned into one.
    Nowhere,
    /// The row was late when it was staged, and stays so: what it was late for may be gone by now, but the row is, too.
    Dropped,
    At {
        file: u32,
        row: u32,
    },
}

/// What a change means to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The key has a newer change already.
    Late,
    /// The key has no live row.
    New,
    /// The key's row is superseded.
    Supersedes(RowPlace),
    /// The change is late, but a tombstone before it deletes the key's row.
    OnlyDeletes(RowPlace),
}

/// A change that leaves its key deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delete {
    /// The change among those of the batch.
    pub(super) change: u32,
    /// The order that it has over what it deletes.
    pub(super) order: Order,
    /// Whether it takes a live row. What was deleted before that one came binds no more.
    pub(super) over_row: bool,
}

/// What all changes mean at one state of the index; by default, what none do.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    /// The index's [`epoch`](crate::write::index::KeyIndex::epoch) then.
    pub(super) epoch: u64,
    pub(super) each: Vec<Verdict>,
    /// What the index had of the keys.
    pub(super) found: FoundKeys,
    /// The changes that leave their key deleted.
    pub(super) deletes: Vec<Delete>,
    /// Rows of live files that are gone after the commit, those included that it takes out beside; by file.
    pub(super) superseded: Vec<RowsOfFile>,
}

/// What a batch does to the table: drawn up for one commit, applied when it has landed.
#[derive(Debug)]
pub struct Decision {
    pub(super) verdicts: Arc<Verdicts>,
    pub(super) n_inserted: u64,
    pub(super) n_updated: u64,
    pub(super) n_deleted: u64,
    /// Records that have no effect at all.
    pub(super) n_merged: u64,
    /// Rows of staged files that never count, by the file's place.
    pub(super) late_rows: HashMap<u32, RoaringTreemap>,
    /// Copy-on-write: the files that were written anew, without rows that are gone.
    pub(super) rewrites: Vec<Arc<Rewrite>>,
}

impl Columns {
    pub(super) fn after_delete(&self, index: usize) -> Option<i64> {
        self.after_delete.as_ref().filter(|after| after.is_valid(index)).map(|after| after.value(index))
    }

    /// Takes down where the rows of the changes `kept` stand, which are the rows of `files` in their order.
    pub(super) fn stand_in(&mut self, files: &[DataFile], kept: &[u32]) {
        for (file, written) in (0_u32..).zip(files) {
            for (row, index) in (0_u32..).zip(&written.indices) {
                let change = kept.get(*index as usize).copied().unwrap_or_default();
                if let Some(stored) = self.stored.get_mut(change as usize) {
                    *stored = Stored::At { file, row };
                }
            }
        }
    }

    /// Returns the vector that was written ahead for a file.
    pub(super) fn marked(&self, file: FileOrdinal) -> Option<&Mark> {
        let at = self.marks.binary_search_by_key(&file, |mark| mark.file).ok()?;
        self.marks.get(at)
    }
}

impl Stored {
    pub(super) fn is_nowhere(self) -> bool {
        self == Self::Nowhere
    }
}

impl Verdicts {
    /// Takes down which rows go: those that the verdicts take out, and `doubles`, which the next commit takes out beside.
    pub(super) fn take_out(&mut self, doubles: impl Iterator<Item = RowPlace>) {
        let superseded = self.each.iter().filter_map(|verdict| match verdict {
            Verdict::Supersedes(place) | Verdict::OnlyDeletes(place) => Some(*place),
            Verdict::New | Verdict::Late => None,
        });
        self.superseded = by_file(superseded.chain(doubles).collect());
    }
}

impl Decision {
    /// Draws up what `columns` do by `verdicts`.
    pub(super) fn new(columns: &Columns, verdicts: Arc<Verdicts>) -> Self {
        let (mut n_inserted, mut n_updated, mut n_deleted) = (0, 0, 0);
        let mut late_rows: HashMap<u32, RoaringTreemap> = HashMap::new();
        let mut late_records: HashSet<(i64, i32)> = HashSet::new();
        let orders = &columns.keyed.orders;
        for (index, (verdict, stored)) in verdicts.each.iter().zip(&columns.stored).enumerate() {
            if let (Verdict::Late | Verdict::OnlyDeletes(_), Stored::At { file, row }) = (verdict, stored) {
                late_rows.entry(*file).or_default().insert(u64::from(*row));
            }
            match verdict {
                Verdict::Late => {
                    late_records.insert(orders.get(index).position());
                }
                Verdict::OnlyDeletes(_) => n_deleted += 1,
                Verdict::New => n_inserted += u64::from(!stored.is_nowhere()),
                Verdict::Supersedes(_) => {
                    let counter = if stored.is_nowhere() { &mut n_deleted } else { &mut n_updated };
                    *counter += 1;
                }
            }
        }
        if !late_records.is_empty() {
            // A record with several rows may be late in one and not in another.
            let applied = verdicts.each.iter().enumerate().filter(|(_, verdict)| **verdict != Verdict::Late);
            for (index, _) in applied {
                late_records.remove(&orders.get(index).position());
            }
        }
        let n_merged = late_records.len() as u64;
        let rewrites = Vec::new();
        Self { verdicts, n_inserted, n_updated, n_deleted, n_merged, late_rows, rewrites }
    }

    /// Tells whether every row of the staged file at `place` is late, so that no version has it.
    pub(super) fn leaves_out(&self, place: u32, file: &DataFile) -> bool {
        self.late_rows.get(&place).is_some_and(|late| late.len() == file.indices.len() as u64)
    }

    /// Returns the bytes of the staged files that it leaves out.
    pub(super) fn late_bytes(&self, files: &[DataFile]) -> u64 {
        let left_out = (0_u32..).zip(files).filter(|(place, file)| self.leaves_out(*place, file));
        left_out.map(|(_, file)| file.bytes()).sum()
    }

    /// Returns the rows of live files that are gone after the commit, by file.
    pub(super) fn superseded(&self) -> &[RowsOfFile] {
        &self.verdicts.superseded
    }
}

/// Returns the rows of each file.
fn by_file(mut places: Vec<RowPlace>) -> Vec<RowsOfFile> {
    places.sort_unstable();
    places.dedup();
    places
        .chunk_by(|one, other| one.file() == other.file())
        .filter_map(|chunk| {
            let rows = chunk.iter().map(|place| u64::from(place.row()));
            // Sorted and distinct, so nothing is refused.
            RoaringTreemap::from_sorted_iter(rows).ok().map(|rows| (chunk[0].file(), rows))
        })
        .collect()
}
