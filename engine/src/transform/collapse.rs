//! Leaves the newest change of each key of a batch, in the order that the winners came in.

use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use alluvium_sql::Shaped;
use arrow::array::{Array, AsArray, BooleanArray, Int64Array, UInt32Array};
use arrow::compute::{take, take_record_batch};
use arrow::datatypes::{DataType, Int32Type, Int64Type, SchemaRef};
use arrow::row::{RowConverter, SortField};
use hashbrown::HashMap;

use crate::order::{Order, Orders};

/// Collapses batches of one flow.
#[derive(Debug)]
pub(super) struct Collapse {
    keys: Vec<usize>,
    converter: RowConverter,
    orders: Orders,
}

/// The newest change of a key so far.
struct Winner {
    /// Its row.
    row: u32,
    /// Its order; with the sequence of the row that it replaced where it had none of its own.
    order: Order,
    /// The row whose sequence that is.
    sequence_row: u32,
    /// The offset of a tombstone without sequence that came before it.
    after_delete: Option<i64>,
}

/// What the values of the rows that are left do not tell.
#[derive(Debug)]
pub(super) struct Standing {
    /// Whether the row is a tombstone without a sequence of its own.
    pub(super) inherited: BooleanArray,
    /// The offset of the last such tombstone of the key that came before the row, if one did.
    pub(super) after_delete: Int64Array,
}

impl Collapse {
    pub(super) fn try_new(schema: &SchemaRef, keys: &[String], sequence: Vec<DataType>) -> Result<Self> {
        let places = keys
            .iter()
            .map(|key| schema.index_of(key))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|cause| Error::internal("a key column is not declared").with_source(cause))?;
        let fields = places.iter().map(|place| SortField::new(schema.field(*place).data_type().clone())).collect();
        let converter = RowConverter::new(fields)
            .map_err(|cause| Error::invalid("a key column has a type that cannot be compared").with_source(cause))?;
        Ok(Self { keys: places, converter, orders: Orders::try_new(sequence)? })
    }

    /// Returns one row a key: the newest. Of rows of one record the last stands. Rows come in order of offset, so that a
    /// tombstone meets what it deletes before what comes after it.
    pub(super) fn newest(&self, shaped: Shaped) -> Result<(Shaped, Standing)> {
        let internal = |cause| Error::internal("cannot collapse a batch by key").with_source(cause);
        let keys: Vec<_> = self.keys.iter().map(|place| Arc::clone(shaped.rows.column(*place))).collect();
        let keys = self.converter.convert_columns(&keys).map_err(internal)?;
        let orders = self.orders.of(&shaped.sequence, None, &shaped.offsets, &shaped.partitions)?;
        let mut winners: HashMap<&[u8], Winner> = HashMap::with_capacity(orders.len());
        for ((row, key), order) in (0_u32..).zip(keys.iter()).zip(orders) {
            let challenger = Winner { row, order, sequence_row: row, after_delete: None };
            match winners.entry(key.data()) {
                hashbrown::hash_map::Entry::Vacant(vacant) => {
                    vacant.insert(challenger);
                }
                hashbrown::hash_map::Entry::Occupied(mut holder) => {
                    let holder = holder.get_mut();
                    if challenger.order.supersedes(&holder.order) || challenger.is_of_record(holder) {
                        let replaced = std::mem::replace(holder, challenger);
                        holder.take_over(&replaced);
                    } else {
                        holder.take_over(&challenger);
                    }
                }
            }
        }
        let mut kept: Vec<Winner> = winners.into_values().collect();
        kept.sort_unstable_by_key(|winner| winner.row);
        let standing = Standing {
            inherited: kept.iter().map(|winner| Some(winner.order.inherited)).collect(),
            after_delete: kept.iter().map(|winner| winner.after_delete).collect(),
        };
        if kept.len() == shaped.rows.num_rows() {
            return Ok((shaped, standing));
        }
        let rows: UInt32Array = kept.iter().map(|winner| Some(winner.row)).collect();
        let sequence_rows: UInt32Array = kept.iter().map(|winner| Some(winner.sequence_row)).collect();
        let one = |column: &dyn Array, rows: &UInt32Array| take(column, rows, None).map_err(internal);
        let newest = Shaped {
            rows: take_record_batch(&shaped.rows, &rows).map_err(internal)?,
            partitions: one(&shaped.partitions, &rows)?.as_primitive::<Int32Type>().clone(),
            offsets: one(&shaped.offsets, &rows)?.as_primitive::<Int64Type>().clone(),
            sequence: shaped.sequence.iter().map(|column| one(column, &sequence_rows)).collect::<Result<_>>()?,
            deletes: shaped
                .deletes
                .as_ref()
                .map(|deletes| one(deletes, &rows).map(|kept| kept.as_boolean().clone()))
                .transpose()?,
        };
        Ok((newest, standing))
    }
}

impl Winner {
    /// Tells whether both are rows of one record with one sequence, of which the later stands.
    fn is_of_record(&self, other: &Self) -> bool {
        self.order == other.order
    }

    /// Keeps what must be known of a change that this one stands over.
    fn take_over(&mut self, other: &Self) {
        let is_tombstone = other.order.inherited && other.order.offset < self.order.offset;
        let deleted = is_tombstone.then_some(other.order.offset);
        self.after_delete = self.after_delete.max(other.after_delete).max(deleted);
        if self.order.inherited && self.order.sequence < other.order.sequence {
            self.order.sequence.clone_from(&other.order.sequence);
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
        assert_eq!(collapse.newest(shaped)?.0.offsets.values(), left, "{rows:?}");
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
