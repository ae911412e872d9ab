//! Looks up rows by key beside the writer, in the index that it lends between batches.
//!
//! An answer is of one version of the table, and says all that a reader needs to fetch the row without the log: the file,
//! its size and partition values, and the row's number. It reads no file, and never waits for a batch to be uploaded.

use std::collections::HashMap;
use std::sync::Arc;

use alluvium_catalog::Result;
use arrow::array::ArrayRef;
use arrow::datatypes::DataType;

use super::UpsertWriter;
use super::rows::RowReader;
use crate::delta::log::Version;
use crate::key::Keys;
use crate::write::index::{KeyIndex, LentIndex};

/// Looks up the rows of one upsert table.
#[derive(Debug, Clone)]
pub struct KeyLookup {
    reader: Arc<RowReader>,
    index: LentIndex,
    table_id: String,
}

/// The live rows of some keys, as of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRows {
    /// The version.
    pub version: Version,
    /// For each key its row; `None` where the key has no live row.
    pub rows: Vec<Option<FoundRow>>,
}

/// Where a row is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRow {
    /// The path of its file in the log.
    pub path: String,
    /// The file's size in bytes.
    pub size: u64,
    /// The file's rows, deleted ones included.
    pub n_rows: u64,
    /// The file's partition values.
    pub partition_values: HashMap<String, Option<String>>,
    /// The row's number in the file, from 0.
    pub row: u32,
}

impl UpsertWriter {
    /// Returns what looks up rows in this writer's index, as long as the writer is there.
    pub fn lookup(&self) -> KeyLookup {
        KeyLookup { reader: Arc::clone(&self.reader), index: self.lender.borrower(), table_id: self.table_id.clone() }
    }

    /// Takes in that the index is that of `version`, whole, and that this is the newest; lends it.
    pub(super) fn stand_at(&mut self, version: Version) {
        self.version = version;
        self.stood_ms = self.folder.clock.now().0;
        self.is_whole = true;
        self.lend();
    }

    /// Lends the index until the next change, unless it is half on its way.
    pub(super) fn lend(&self) {
        if self.is_whole {
            self.lender.lend(&self.index, self.version);
        }
    }
}

impl KeyLookup {
    /// Returns the id of the table.
    pub fn table_id(&self) -> &str {
        &self.table_id
    }

    /// Returns the key columns with their types.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = (&str, &DataType)> {
        self.reader.columns.keys.iter().map(String::as_str).zip(self.reader.keys.types())
    }

    /// Returns the live rows of the keys in `columns`, which are those of [`keys`](Self::keys) in their order, by who has
    /// seen version `seen` of the table. `None` when nothing can be said at the moment: the index is on its way from one
    /// version to another, or another writer has put a second row under some key, which only a scan finds.
    ///
    /// # Errors
    /// As of [`KeyForm::pack`](crate::key::KeyForm::pack).
    pub async fn find(&self, columns: &[ArrayRef], seen: Version) -> Result<Option<FoundRows>> {
        let keys = self.reader.keys.pack(columns)?;
        let mut index = self.index.clone();
        let found = index.look(seen, |index, version| {
            let is_one_row_a_key = index.doubles().next().is_none();
            is_one_row_a_key.then(|| FoundRows { version, rows: rows_of(index, &keys) })
        });
        Ok(found.await.flatten())
    }
}

fn rows_of(index: &KeyIndex, keys: &Keys) -> Vec<Option<FoundRow>> {
    let row = |key: usize| {
        let place = index.find_one(keys.get(key), keys.hashes()[key])?;
        let file = index.file(place.file())?;
        Some(FoundRow {
            path: file.path.clone(),
            size: u64::try_from(file.size).ok()?,
            n_rows: file.n_rows,
            partition_values: file.partition_values.clone(),
            row: place.row(),
        })
    };
    (0..keys.len()).map(row).collect()
}
