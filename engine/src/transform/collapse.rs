//! Leaves the newest change of each key of a batch, in the order that the winners came in.
//!
//! Keys and orders are compared as columns, and the winners' go on to the writer: nothing is allocated a row, and
//! nothing is computed twice.

use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use alluvium_sql::Shaped;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, Int64Array, UInt32Array};
use arrow::compute::{FilterBuilder, FilterPredicate, take};
use arrow::datatypes::{DataType, Int32Type, Int64Type, SchemaRef};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::hop::Keyed;
use crate::key::{KeyForm, Keys};
use crate::order::{OrderForm, OrderRef, Orders};

/// Collapses batches of one flow.
#[derive(Debug)]
pub(crate) struct Collapse {
    places: Vec<usize>,
    keys: KeyForm,
    orders: OrderForm,
}

/// The newest change of a key so far.
#[derive(Debug, Clone, Copy)]
struct Winner {
    /// Its row.
    row: u32,
    /// The row whose sequence it has: its own, or that of a row that it replaced where it had none.
    sequence_row: u32,
    /// The offset of a tombstone without sequence that came before it.
    after_delete: Option<i64>,
}

/// What the values of the rows that are left do not tell.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Whether the row is a tombstone without a sequence of its own.
    pub(crate) inherited: BooleanArray,
    /// The offset of the last such tombstone of the key that came before the row, if one did.
    pub(crate) after_delete: Int64Array,
    /// The keys and orders of the rows.
    pub(crate) keyed: Keyed,
}

impl Collapse {
    pub(crate) fn try_new(schema: &SchemaRef, keys: &[String], sequence: Vec<DataType>) -> Result<Self> {
        let places = keys
            .iter()
            .map(|key| schema.index_of(key))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|cause| Error::internal("a key column is not declared").with_source(cause))?;
        let types = places.iter().map(|place| schema.field(*place).data_type().clone()).collect();
        Ok(Self { places, keys: KeyForm::try_new(types)?, orders: OrderForm::try_new(sequence)? })
    }

    /// Returns one row a key: the newest. Of rows of one record the last stands. Rows come in order of offset, so that a
    /// tombstone meets what it deletes before what comes after it.
    pub(crate) fn newest(&self, shaped: Shaped) -> Result<(Shaped, Standing)> {
        let columns: Vec<_> = self.places.iter().map(|place| Arc::clone(shaped.rows.column(*place))).collect();
        let keys = self.keys.pack(&columns)?;
        let orders = self.orders.of(&shaped.sequence, None, &shaped.offsets, &shaped.partitions)?;
        let winners = in_order(&winners(&keys, &orders), keys.len());
        let is_whole = winners.len() == keys.len();
        let inherited = winners.iter().map(|winner| Some(orders.get(winner.row as usize).inherited)).collect();
        let after_delete = winners.iter().map(|winner| winner.after_delete).collect();
        if is_whole {
            let keyed = Keyed { keys, orders };
            return Ok((shaped, Standing { inherited, after_delete, keyed }));
        }
        let left = Left::new(&winners, keys.len());
        let keyed =
            Keyed { keys: keys.take(left.rows.values()), orders: orders.take(&left.rows, left.sequence_rows())? };
        Ok((left.pick(&shaped)?, Standing { inherited, after_delete, keyed }))
    }
}

/// Returns the newest change of each key, in no order.
fn winners(keys: &Keys, orders: &Orders) -> Vec<Winner> {
    let mut winners: Vec<Winner> = Vec::with_capacity(keys.len());
    let mut places: HashTable<u32> = HashTable::with_capacity(keys.len());
    for (row, hash) in (0_u32..).zip(keys.hashes()) {
        let key = keys.get(row as usize);
        let row_of = |place: u32| winners.get(place as usize).map_or(0, |winner: &Winner| winner.row as usize);
        let challenger = Winner { row, sequence_row: row, after_delete: None };
        let entry = places.entry(
            *hash,
            |place| keys.get(row_of(*place)) == key,
            |place| keys.hashes().get(row_of(*place)).copied().unwrap_or_default(),
        );
        match entry {
            Entry::Vacant(vacant) => {
                vacant.insert(u32::try_from(winners.len()).unwrap_or(u32::MAX));
                winners.push(challenger);
            }
            Entry::Occupied(occupied) => {
                let Some(holder) = winners.get_mut(*occupied.get() as usize) else { continue };
                let (mine, theirs) = (challenger.order(orders), holder.order(orders));
                // Of rows of one record with one sequence the later stands.
                if mine.supersedes(&theirs) || mine == theirs {
                    let replaced = std::mem::replace(holder, challenger);
                    holder.take_over(&replaced, orders);
                } else {
                    holder.take_over(&challenger, orders);
                }
            }
        }
    }
    winners
}

/// Returns `winners`, which are among `n_rows`, in the order of their rows.
fn in_order(winners: &[Winner], n_rows: usize) -> Vec<Winner> {
    let mut places = vec![u32::MAX; n_rows];
    for (place, winner) in (0_u32..).zip(winners) {
        places[winner.row as usize] = place;
    }
    places.iter().filter_map(|place| winners.get(*place as usize)).copied().collect()
}

/// The rows that are left of a batch, in its order.
struct Left {
    rows: UInt32Array,
    /// The rows whose sequences they have, where these are not their own.
    sequence_rows: Option<UInt32Array>,
    /// Copies them run by run: as a rule few rows of a batch are superseded within it.
    copy: FilterPredicate,
}

impl Left {
    /// Returns what `winners`, in the order of their rows, leave of `n_rows`.
    fn new(winners: &[Winner], n_rows: usize) -> Self {
        let rows = UInt32Array::from_iter_values(winners.iter().map(|winner| winner.row));
        let sequence_rows = winners
            .iter()
            .any(|winner| winner.sequence_row != winner.row)
            .then(|| UInt32Array::from_iter_values(winners.iter().map(|winner| winner.sequence_row)));
        let mut is_left = BooleanBufferBuilder::new(n_rows);
        is_left.append_n(n_rows, false);
        rows.values().iter().for_each(|row| is_left.set_bit(*row as usize, true));
        let copy = FilterBuilder::new(&BooleanArray::new(is_left.finish(), None)).optimize().build();
        Self { rows, sequence_rows, copy }
    }

    fn sequence_rows(&self) -> &UInt32Array {
        self.sequence_rows.as_ref().unwrap_or(&self.rows)
    }

    fn pick(&self, shaped: &Shaped) -> Result<Shaped> {
        let internal = |cause| Error::internal("cannot collapse a batch by key").with_source(cause);
        let copied = |column: &dyn Array| self.copy.filter(column).map_err(internal);
        let sequence = |column: &ArrayRef| match &self.sequence_rows {
            Some(rows) => take(column, rows, None).map_err(internal),
            None => copied(column),
        };
        Ok(Shaped {
            rows: self.copy.filter_record_batch(&shaped.rows).map_err(internal)?,
            partitions: copied(&shaped.partitions)?.as_primitive::<Int32Type>().clone(),
            offsets: copied(&shaped.offsets)?.as_primitive::<Int64Type>().clone(),
            sequence: shaped.sequence.iter().map(sequence).collect::<Result<_>>()?,
            deletes: shaped
                .deletes
                .as_ref()
                .map(|deletes| copied(deletes).map(|kept| kept.as_boolean().clone()))
                .transpose()?,
        })
    }
}

impl Winner {
    /// Returns its order, with the sequence that it took over where it had none of its own.
    #[inline]
    fn order<'a>(&self, orders: &'a Orders) -> OrderRef<'a> {
        let own = orders.get(self.row as usize);
        OrderRef { sequence: orders.sequence(self.sequence_row as usize), ..own }
    }

    /// Keeps what must be known of a change that this one stands over.
    fn take_over(&mut self, other: &Self, orders: &Orders) {
        let (mine, theirs) = (self.order(orders), other.order(orders));
        let is_tombstone = theirs.inherited && theirs.offset < mine.offset;
        let deleted = is_tombstone.then_some(theirs.offset);
        self.after_delete = self.after_delete.max(other.after_delete).max(deleted);
        if mine.inherited && mine.sequence < theirs.sequence {
            self.sequence_row = other.sequence_row;
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, RecordBatch};
    use arrow::datatypes::{Field, Schema};

    use super::*;

    /// Rows as (key, sequence, offset, deletes); returns the offsets that are left.
    fn check(rows: &[(i64, Option<i64>, i64, bool)], left: &[i64]) -> Result<()> {
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, false)]));
        let keys = Int64Array::from_iter_values(rows.iter().map(|row| row.0));
        let failed = |cause| Error::internal("rows").with_source(cause);
        let shaped = Shaped {
            rows: RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(keys)]).map_err(failed)?,
            partitions: Int32Array::from(vec![0; rows.len()]),
            offsets: rows.iter().map(|row| Some(row.2)).collect(),
            sequence: vec![Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>())],
            deletes: Some(rows.iter().map(|row| Some(row.3)).collect::<BooleanArray>()),
        };
        let collapse = Collapse::try_new(&schema, &["k".to_owned()], vec![DataType::Int64])?;
        let (newest, standing) = collapse.newest(shaped)?;
        assert_eq!(newest.offsets.values(), left, "{rows:?}");
        let Keyed { keys, orders } = standing.keyed;
        let again = KeyForm::try_new(vec![DataType::Int64])?.pack(&[Arc::clone(newest.rows.column(0))])?;
        let inherited = Some(&standing.inherited);
        let again_orders = collapse.orders.of(&newest.sequence, inherited, &newest.offsets, &newest.partitions)?;
        for index in 0..left.len() {
            assert_eq!((keys.get(index), keys.hashes()[index]), (again.get(index), again.hashes()[index]));
            assert_eq!(orders.get(index), again_orders.get(index), "{rows:?}");
        }
        Ok(())
    }

    #[test]
    fn the_newest_change_of_each_key_is_left() -> Result<()> {
        check(&[(1, Some(1), 0, false), (2, Some(1), 1, false), (1, Some(2), 2, false)], &[1, 2])?;
        check(&[(1, Some(5), 0, false), (1, Some(2), 1, false)], &[0])?;
        check(&[(1, Some(5), 0, false), (1, Some(5), 1, true)], &[1])?;
        check(&[(1, Some(5), 0, false), (1, None, 1, true)], &[1])?;
        check(&[(1, Some(5), 0, false), (1, None, 1, true), (1, Some(4), 2, false)], &[1])?;
        check(&[(1, Some(5), 0, false), (1, None, 1, true), (1, Some(6), 2, false)], &[2])?;
        check(&[(1, Some(5), 0, false), (1, Some(3), 1, false), (1, None, 2, true)], &[2])
    }
}
