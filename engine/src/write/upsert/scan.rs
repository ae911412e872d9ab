//! Makes the key index out of the table and follows the log with it: one algorithm for start-up, recovery and rebase.

use std::collections::{HashMap, HashSet};
use std::mem::discriminant;
use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use alluvium_sql::{HIDDEN_OVER_ROW, HIDDEN_SEQUENCE};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use futures::{StreamExt, TryStreamExt};

use super::rows::FileRows;
use super::{UpsertColumns, UpsertWriter};
use crate::delta::action::{Action, Add};
use crate::delta::log::{LogEntry, Version};
use crate::delta::state::TableState;
use crate::key::Keys;
use crate::object_file::is_missing;
use crate::order::{OrderRef, Orders};
use crate::write::index::{Bounds, Double, FileOrdinal, RowPlace, ToldDelete};
use crate::write::tombstones::Remembered;
use crate::write::vectors::check_fit;

/// Files read at the same time while the index is made.
const FILES_IN_FLIGHT: usize = 4;

/// Rows put into the index from one look at its memory to the next: a look adds up the shards.
const ROWS_BETWEEN_LOOKS: u32 = 1 << 18;

impl UpsertWriter {
    /// Makes the index from the live files of `state`, then adds the deletes that are remembered.
    pub(super) async fn index_table(&mut self, state: &TableState) -> Result<()> {
        self.index_files(state.files.values().collect()).await?;
        self.remember_since(self.retained_since_ms()).await
    }

    /// Takes in a version of the log that somebody else wrote.
    pub(super) async fn follow_log(&mut self, entry: &LogEntry) -> Result<()> {
        let added: HashSet<&str> = adds(entry).map(|add| add.path.as_str()).collect();
        let mut takes_rows = false;
        for action in &entry.actions {
            if let Action::Remove(remove) = action
                && !added.contains(remove.path.as_str())
            {
                self.forget_file(&remove.path);
                takes_rows = true;
            }
        }
        // Vectors before rows: what a commit replaces must be gone before what it adds is looked at.
        let mut fresh = Vec::new();
        for add in adds(entry) {
            let Some(ordinal) = self.index.ordinal(&add.path) else {
                fresh.push(add);
                continue;
            };
            // A vector from which rows came back may name others that were live.
            takes_rows = true;
            if !self.take_vector(ordinal, add).await? {
                fresh.push(add);
            }
        }
        let unsettled = if takes_rows { self.forget_doubles() } else { Vec::new() };
        fresh.extend(&unsettled);
        self.index_files(fresh).await?;
        let remembered = self.tombstones.read_of_commit(&entry.info).await?;
        self.remember(remembered)
    }

    /// Returns the error of a version that could not be followed. Whoever is far behind finds files in it that later versions
    /// have replaced and a vacuum has removed: the newest version does not need them.
    pub(super) fn outpaced(&self, error: Error, version: Version) -> Error {
        if !is_missing(&error) {
            return error;
        }
        let at = &self.folder.location;
        Error::conflict(format!(
            "a file that version {version} of the table at {at} needs is gone, and the table has to be opened again"
        ))
        .with_source(error)
    }

    /// Takes the new deletion vector of a file that is known. Where rows came back, as after a RESTORE, the file is
    /// forgotten instead, to be read anew; tells whether it was taken.
    async fn take_vector(&mut self, ordinal: FileOrdinal, add: &Add) -> Result<bool> {
        let deleted = self.reader.read_vector(add).await?;
        let Some(file) = self.index.file(ordinal) else { return Ok(false) };
        check_fit(&deleted, (&add.path, file.n_rows), &self.folder.location)?;
        let grows = file.deleted().is_subset(&deleted);
        if grows {
            Arc::make_mut(&mut self.index).set_deleted(ordinal, deleted, add.deletion_vector.clone());
        } else {
            self.forget_file(&add.path);
        }
        Ok(grows)
    }

    fn forget_file(&mut self, path: &str) {
        if let Some(ordinal) = Arc::make_mut(&mut self.index).remove_file(path) {
            self.cache.forget(ordinal);
        }
    }

    /// Forgets the files with rows that wait to be deleted because their key has a newer row: that one may be gone by
    /// now. Returns them, to be read anew; nothing, most of the time.
    fn forget_doubles(&mut self) -> Vec<Add> {
        let adds: Vec<Add> = self
            .index
            .files_with_doubles()
            .map(|(_, file)| Add {
                path: file.path.clone(),
                size: file.size,
                partition_values: file.partition_values.clone(),
                deletion_vector: file.vector.clone(),
                ..Add::default()
            })
            .collect();
        for add in &adds {
            self.forget_file(&add.path);
        }
        adds
    }

    /// Opens files, several at the same time, and puts their keys into the index one after the other. Beside the index,
    /// memory holds of each open file what the store has of the columns of one row group, and one piece.
    pub(super) async fn index_files(&mut self, files: Vec<&Add>) -> Result<()> {
        let reader = Arc::clone(&self.reader);
        let reads: Vec<_> = files.into_iter().map(|add| Arc::clone(&reader).read(add)).collect();
        let mut reads = futures::stream::iter(reads).buffered(FILES_IN_FLIGHT);
        while let Some(rows) = reads.try_next().await? {
            self.index_file(rows).await?;
        }
        Ok(())
    }

    async fn index_file(&mut self, rows: FileRows) -> Result<()> {
        let FileRows { file, mut pieces } = rows;
        let (n_rows_told, path) = (file.n_rows, file.path.clone());
        let ordinal = Arc::make_mut(&mut self.index).insert_file(file);
        let (mut first, mut looked_at, mut bounds) = (0_u32, 0_u32, Bounds::default());
        while let Some(piece) = pieces.try_next().await? {
            bounds.widen(&Bounds::of(&piece.orders));
            let n_rows = u32::try_from(piece.keys.len()).map_err(|_| Error::data("a data file has too many rows"))?;
            let file = self.index.file(ordinal);
            let is_live = |index: &u32| file.is_some_and(|file| !file.is_deleted(u64::from(first + index)));
            let indices: Vec<u32> = (0..n_rows).filter(is_live).collect();
            let places: Vec<RowPlace> = indices.iter().map(|index| RowPlace::new(ordinal, first + index)).collect();
            let keys = if indices.len() == piece.keys.len() { piece.keys } else { piece.keys.take(&indices) };
            let doubles = Arc::make_mut(&mut self.index).put_found(&keys, &places);
            if !doubles.is_empty() {
                let put = Piece { file: ordinal, first, keys: &keys, places: &places, orders: &piece.orders };
                self.settle_doubles(&doubles, &put).await?;
            }
            first += n_rows;
            if first - looked_at >= ROWS_BETWEEN_LOOKS {
                looked_at = first;
                self.check_memory().await?;
            }
        }
        if u64::from(first) != n_rows_told {
            let at = &self.folder.location;
            return Err(Error::data(format!(
                "{path} of the table at {at} has {first} rows, and its footer tells of {n_rows_told}"
            )));
        }
        Arc::make_mut(&mut self.index).set_bounds(ordinal, bounds);
        self.check_memory().await
    }

    /// Lets the newer of two live rows of each key stand; the next commit deletes the other. Foreign writers can add such
    /// rows: Delta knows no keys. Which one stands depends on the two alone, so that a process that followed them and one
    /// that starts say the same.
    async fn settle_doubles(&mut self, doubles: &[Double], piece: &Piece<'_>) -> Result<()> {
        // In one go: another writer may add rows of all keys there are, and each read waits for the store.
        let known = doubles.iter().map(|double| double.known);
        let elsewhere: Vec<RowPlace> = known.filter(|known| piece.order(*known).is_none()).collect();
        let stored = self.orders_of_rows(&elsewhere).await?;
        let mut next = 0;
        for double in doubles {
            let mut order = piece.order(double.known);
            if order.is_none() {
                order = stored.get(next);
                next += 1;
            }
            let index = double.index as usize;
            let (key, place) = ((piece.keys.get(index), piece.keys.hashes()[index]), piece.places[index]);
            // Of three rows of one key, one of this piece may stand since the double was found.
            let known = self.index.find_one(key.0, key.1).unwrap_or(double.known);
            if known == place {
                continue;
            }
            if known != double.known {
                order = piece.order(known);
            }
            let (Some(known_order), Some(order)) = (order, piece.order(place)) else {
                return Err(Error::internal("the order of a row was not read"));
            };
            let known_stands = self.stands((known, known_order), (place, order));
            let (stands, falls) = if known_stands { (known, place) } else { (place, known) };
            Arc::make_mut(&mut self.index).settle(key, stands, falls);
        }
        Ok(())
    }

    /// Tells whether `one` is the newer of two rows: by sequence, of which none is the least, then by position. Of two
    /// rows that are equal in both, the one stands whose path is the higher.
    fn stands(&self, one: (RowPlace, OrderRef<'_>), other: (RowPlace, OrderRef<'_>)) -> bool {
        let path = |place: RowPlace| self.index.file(place.file()).map(|file| file.path.as_str());
        let orders = (one.1.sequence, one.1.position()).cmp(&(other.1.sequence, other.1.position()));
        let ranks = orders.then_with(|| path(one.0).cmp(&path(other.0))).then(one.0.row().cmp(&other.0.row()));
        ranks.is_gt()
    }

    /// Reads the sidecars of deletes staged since `since_ms`.
    pub(super) async fn remember_since(&mut self, since_ms: i64) -> Result<()> {
        let mut files = std::pin::pin!(self.tombstones.read(since_ms).await?);
        while let Some(deletes) = files.next().await {
            self.remember(deletes?)?;
            self.check_memory().await?;
        }
        Ok(())
    }

    fn remember(&mut self, deletes: Vec<Remembered>) -> Result<()> {
        let none = HashMap::new();
        for remembered in deletes {
            let (rows, path, at) = (&remembered.rows, &remembered.path, &self.folder.location);
            if !self.is_of_table(&remembered) {
                tracing::warn!(table = %at, %path, "deletes of another table, or of other keys, are passed over");
                continue;
            }
            let sequence = sequence_of(&remembered, &self.reader.columns);
            let read =
                self.reader.pack(rows, &none).and_then(|keys| Ok((keys, self.reader.orders_of(rows, &sequence)?)));
            let (keys, orders) = read.map_err(|cause| {
                Error::data(format!("cannot read the deletes in {path} of the table at {at}")).with_source(cause)
            })?;
            let over_row = rows.column_by_name(HIDDEN_OVER_ROW).and_then(|column| column.as_boolean_opt());
            let (at_ms, has_landed) = (remembered.at_ms, remembered.has_landed);
            let index = Arc::make_mut(&mut self.index);
            for place in 0..keys.len() {
                let key = (keys.get(place), keys.hashes()[place]);
                let over_row = over_row.is_some_and(|over_row| over_row.is_valid(place) && over_row.value(place));
                let order = orders.get(place).to_owned();
                index.put_remembered_delete(key, ToldDelete { order, at_ms, over_row, has_landed });
            }
        }
        Ok(())
    }

    /// Tells whether deletes are of this table, and not of one that was here before: of its id, unless its log names them
    /// or they do not say, and of its keys and no others.
    fn is_of_table(&self, deletes: &Remembered) -> bool {
        /// What names begin with that no key has.
        const HIDDEN: &str = "_alluvium_";
        if !deletes.has_landed && deletes.table.as_ref().is_some_and(|table| *table != self.table_id) {
            return false;
        }
        let (rows, keys) = (&deletes.rows, &self.reader.columns.keys);
        let n_told = rows.schema_ref().fields().iter().filter(|field| !field.name().starts_with(HIDDEN)).count();
        n_told == keys.len()
            && keys.iter().zip(self.reader.keys.types()).all(|(name, wanted)| {
                rows.column_by_name(name).is_some_and(|column| compares_as(column.data_type(), wanted))
            })
    }
}

/// Live rows of a file that are being put, and the orders of all rows from the file's row `first` on.
struct Piece<'a> {
    file: FileOrdinal,
    first: u32,
    keys: &'a Keys,
    places: &'a [RowPlace],
    orders: &'a Orders,
}

impl Piece<'_> {
    /// Returns the order of a row of this piece; `None` for any other row.
    fn order(&self, place: RowPlace) -> Option<OrderRef<'_>> {
        let at = place.row().checked_sub(self.first)? as usize;
        (place.file() == self.file && at < self.orders.len()).then(|| self.orders.get(at))
    }
}

fn adds(entry: &LogEntry) -> impl Iterator<Item = &Add> {
    entry.actions.iter().filter_map(|action| match action {
        Action::Add(add) => Some(add),
        _ => None,
    })
}

/// Returns the sequences that a sidecar tells. None where they are of another SEQUENCE BY, as it was before the flow was
/// changed: those say nothing beside sequences of now, and their deletes bind by position alone. A file that does not
/// say of which they are is judged by their types.
fn sequence_of(deletes: &Remembered, columns: &UpsertColumns) -> Vec<ArrayRef> {
    if deletes.sequence_by.as_ref().is_some_and(|told| *told != columns.sequence_by) {
        return Vec::new();
    }
    let (rows, types) = (&deletes.rows, &columns.sequence);
    // One more than are wanted, lest the first of several fields be taken for the only one.
    let told = (0..=types.len()).map_while(|index| rows.column_by_name(&format!("{HIDDEN_SEQUENCE}_{index}")));
    let told: Vec<ArrayRef> = told.cloned().collect();
    let is_of_now = told.len() == types.len()
        && told.iter().zip(types).all(|(column, wanted)| compares_as(column.data_type(), wanted));
    if is_of_now { told } else { Vec::new() }
}

/// Tells whether values of a type order alike once they are cast to the other: only width and layout differ.
fn compares_as(told: &DataType, wanted: &DataType) -> bool {
    discriminant(told) == discriminant(wanted)
        || (told.is_integer() && wanted.is_integer())
        || (told.is_string() && wanted.is_string())
        || (told.is_binary() && wanted.is_binary())
}
