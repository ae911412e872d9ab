//! Leaves the newest change of each key of a batch, in the order that the winners came in.
//!
//! Keys and orders are compared as columns, and the winners' go on to the writer: nothing is allocated a row, and
//! nothing is computed twice.

use std::collections::HashMap;
use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use alluvium_sql::Shaped;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, Int64Array, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{FilterBuilder, take};
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
    /// The offset of the last such tombstone of the key that came before the row, if one did; nothing where none did at all.
    pub(crate) after_delete: Option<Int64Array>,
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
        let left = Left::of(&keys, &orders);
        let inherited = |row: usize| orders.get(row).inherited;
        if left.n_rows == keys.len() {
            // Nothing stands over anything.
            let inherited = BooleanBuffer::collect_bool(keys.len(), inherited).into();
            let keyed = Keyed { keys, orders };
            return Ok((shaped, Standing { inherited, after_delete: None, keyed }));
        }
        let rows = left.rows();
        let inherited = BooleanBuffer::collect_bool(rows.len(), |at| inherited(rows.value(at) as usize)).into();
        let (sequence_rows, after_delete) = (left.sequence_rows(&rows), left.after_delete(&rows));
        let sequence_of = sequence_rows.as_ref().unwrap_or(&rows);
        let keyed = Keyed { keys: keys.take(rows.values()), orders: orders.take(&rows, sequence_of)? };
        Ok((left.pick(&shaped, sequence_rows.as_ref())?, Standing { inherited, after_delete, keyed }))
    }
}

/// The rows of a batch that are left: the newest change of each key.
struct Left {
    is_left: BooleanBuffer,
    n_rows: usize,
    /// Those that have taken something over, by row: few, since it takes a tombstone.
    heirs: HashMap<u32, Winner>,
}

impl Left {
    /// Finds them.
    fn of(keys: &Keys, orders: &Orders) -> Self {
        let mut is_left = BooleanBufferBuilder::new(keys.len());
        is_left.append_n(keys.len(), true);
        let mut heirs: HashMap<u32, Winner> = HashMap::new();
        // The row that stands of each key.
        let mut standing: HashTable<u32> = HashTable::with_capacity(keys.len());
        for (row, hash) in (0_u32..).zip(keys.hashes()) {
            let key = keys.get(row as usize);
            let entry = standing.entry(
                *hash,
                |held| keys.get(*held as usize) == key,
                |held| keys.hashes().get(*held as usize).copied().unwrap_or_default(),
            );
            let mut occupied = match entry {
                Entry::Vacant(vacant) => {
                    vacant.insert(row);
                    continue;
                }
                Entry::Occupied(occupied) => occupied,
            };
            let (challenger, held) = (Winner::new(row), *occupied.get());
            // Asked before it is hashed: batches without tombstones have none.
            let heir = if heirs.is_empty() { None } else { heirs.remove(&held) };
            let holder = heir.unwrap_or(Winner::new(held));
            let (mine, theirs) = (challenger.order(orders), holder.order(orders));
            // Of rows of one record with one sequence the later stands.
            let (mut stands, falls) = match mine.supersedes(&theirs) || mine == theirs {
                true => (challenger, holder),
                false => (holder, challenger),
            };
            stands.take_over(&falls, orders);
            if stands.is_heir() {
                heirs.insert(stands.row, stands);
            }
            is_left.set_bit(falls.row as usize, false);
            *occupied.get_mut() = stands.row;
        }
        Self { is_left: is_left.finish(), n_rows: standing.len(), heirs }
    }

    fn rows(&self) -> UInt32Array {
        UInt32Array::from_iter_values(self.is_left.set_indices_u32())
    }

    /// Returns the rows whose sequences `rows` have, unless all have their own.
    fn sequence_rows(&self, rows: &UInt32Array) -> Option<UInt32Array> {
        let is_own = |heir: &Winner| heir.sequence_row == heir.row;
        if self.heirs.values().all(is_own) {
            return None;
        }
        let mut sequence_rows = rows.values().to_vec();
        for (at, heir) in self.heirs_in(rows) {
            sequence_rows[at] = heir.sequence_row;
        }
        Some(sequence_rows.into())
    }

    /// Returns the offset of the last tombstone without sequence that came before each of `rows`, unless none did.
    fn after_delete(&self, rows: &UInt32Array) -> Option<Int64Array> {
        if self.heirs.values().all(|heir| heir.after_delete.is_none()) {
            return None;
        }
        let mut after_delete = vec![None; rows.len()];
        for (at, heir) in self.heirs_in(rows) {
            after_delete[at] = heir.after_delete;
        }
        Some(after_delete.into())
    }

    /// Returns the heirs, each with its place in `rows`, which are all that are left.
    fn heirs_in<'a>(&'a self, rows: &'a UInt32Array) -> impl Iterator<Item = (usize, &'a Winner)> {
        self.heirs.values().filter_map(|heir| Some((rows.values().binary_search(&heir.row).ok()?, heir)))
    }

    /// Copies the rows run by run: as a rule few rows of a batch are superseded within it.
    fn pick(&self, shaped: &Shaped, sequence_rows: Option<&UInt32Array>) -> Result<Shaped> {
        let copy = FilterBuilder::new(&BooleanArray::new(self.is_left.clone(), None)).optimize().build();
        let internal = |cause| Error::internal("cannot collapse a batch by key").with_source(cause);
        let copied = |column: &dyn Array| copy.filter(column).map_err(internal);
        let sequence = |column: &ArrayRef| match sequence_rows {
            Some(rows) => take(column, rows, None).map_err(internal),
            None => copied(column),
        };
        Ok(Shaped {
            rows: copy.filter_record_batch(&shaped.rows).map_err(internal)?,
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
    fn new(row: u32) -> Self {
        Self { row, sequence_row: row, after_delete: None }
    }

    /// Tells whether it has taken anything over.
    fn is_heir(&self) -> bool {
        self.sequence_row != self.row || self.after_delete.is_some()
    }

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

    /// Rows as (key, sequence, offset, deletes); checks the offsets that are left, none of which follows a tombstone.
    fn check(rows: &[(i64, Option<i64>, i64, bool)], left: &[i64]) -> Result<()> {
        check_after(rows, left, None)
    }

    /// Does as [`check`], and compares the tombstones that the rows follow.
    fn check_after(rows: &[(i64, Option<i64>, i64, bool)], left: &[i64], after: Option<&[Option<i64>]>) -> Result<()> {
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
        assert_eq!(standing.after_delete, after.map(|after| Int64Array::from(after.to_vec())), "{rows:?}");
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
        let renewed = [(1, Some(5), 0, false), (1, None, 1, true), (1, Some(6), 2, false)];
        check_after(&renewed, &[2], Some(&[Some(1)]))?;
        let among_others = [&[(7, Some(1), 10, false)], &renewed[..], &[(8, Some(1), 11, false)]].concat();
        check_after(&among_others, &[10, 2, 11], Some(&[None, Some(1), None]))?;
        check(&[(1, Some(5), 0, false), (1, Some(3), 1, false), (1, None, 2, true)], &[2])
    }
}
