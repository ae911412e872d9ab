//! Leaves the newest change of each key of a batch, in the order that the winners came in.

use alluvium_catalog::{Error, Result};
use alluvium_sql::Shaped;
use arrow::array::{Array, AsArray, UInt32Array};
use arrow::compute::{take, take_record_batch};
use arrow::datatypes::{DataType, Int32Type, Int64Type, SchemaRef};
use arrow::row::{RowConverter, SortField};
use hashbrown::HashMap;

use crate::write::order::{Order, Orders};

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

    /// Returns one row a key: the newest. Of rows of one record the last stands.
    pub(super) fn newest(&self, shaped: Shaped) -> Result<Shaped> {
        let internal = |cause| Error::internal("cannot collapse a batch by key").with_source(cause);
        let keys: Vec<_> = self.keys.iter().map(|place| shaped.rows.column(*place).clone()).collect();
        let keys = self.converter.convert_columns(&keys).map_err(internal)?;
        let orders = self.orders.of(&shaped.sequence, &shaped.offsets, &shaped.partitions)?;
        let mut winners: HashMap<&[u8], Winner> = HashMap::with_capacity(orders.len());
        for ((row, key), order) in (0_u32..).zip(keys.iter()).zip(orders) {
            let challenger = Winner { row, order, sequence_row: row };
            match winners.entry(key.data()) {
                hashbrown::hash_map::Entry::Vacant(vacant) => {
                    vacant.insert(challenger);
                }
                hashbrown::hash_map::Entry::Occupied(mut holder) => {
                    let holder = holder.get_mut();
                    if !holder.order.is_newer_than(&challenger.order) {
                        *holder = challenger.over(holder);
                    } else if holder.order.sequence.is_none() {
                        holder.sequence_row = challenger.sequence_row;
                        holder.order = holder.order.clone().over(&challenger.order);
                    }
                }
            }
        }
        if winners.len() == shaped.rows.num_rows() {
            return Ok(shaped);
        }
        let mut kept: Vec<(u32, u32)> = winners.into_values().map(|winner| (winner.row, winner.sequence_row)).collect();
        kept.sort_unstable();
        let (rows, sequence_rows): (Vec<u32>, Vec<u32>) = kept.into_iter().unzip();
        let (rows, sequence_rows) = (UInt32Array::from(rows), UInt32Array::from(sequence_rows));
        let one = |column: &dyn Array, rows: &UInt32Array| take(column, rows, None).map_err(internal);
        Ok(Shaped {
            rows: take_record_batch(&shaped.rows, &rows).map_err(internal)?,
            partitions: one(&shaped.partitions, &rows)?.as_primitive::<Int32Type>().clone(),
            offsets: one(&shaped.offsets, &rows)?.as_primitive::<Int64Type>().clone(),
            sequence: shaped.sequence.iter().map(|column| one(column, &sequence_rows)).collect::<Result<_>>()?,
            deletes: shaped.deletes.as_ref().map(|deletes| one(deletes, &rows).map(|kept| kept.as_boolean().clone())).transpose()?,
        })
    }
}

impl Winner {
    /// Takes over the sequence of `replaced` where there is none of its own.
    fn over(self, replaced: &Self) -> Self {
        if self.order.sequence.is_some() {
            return self;
        }
        Self { row: self.row, order: self.order.over(&replaced.order), sequence_row: replaced.sequence_row }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Int32Array, Int64Array, RecordBatch};
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
        assert_eq!(collapse.newest(shaped)?.offsets.values(), left, "{rows:?}");
        Ok(())
    }

    #[test]
    fn the_newest_change_of_each_key_is_left() -> Result<()> {
        check(&[(1, Some(1), 0, false), (2, Some(1), 1, false), (1, Some(2), 2, false)], &[1, 2])?;
        check(&[(1, Some(5), 0, false), (1, Some(2), 1, false)], &[0])?;
        check(&[(1, Some(5), 0, false), (1, Some(5), 1, true)], &[1])?;
        check(&[(1, Some(5), 0, false), (1, None, 1, true)], &[1])?;
        check(&[(1, Some(5), 0, false), (1, None, 1, true), (1, Some(4), 2, false)], &[1])?;
        check(&[(1, Some(5), 0, false), (1, None, 1, true), (1, Some(6), 2, false)], &[2])
    }
}
