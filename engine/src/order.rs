//! Which of two changes to a key is the newer one (promise 3: in order by key).
//!
//! | a change comes | it is newer when it has |
//! |---|---|
//! | with a sequence, over one with another sequence | the higher SEQUENCE BY |
//! | with a sequence, over one with the same or none | the higher offset, then partition |
//! | without a sequence | the higher offset, then partition |
//!
//! Only Kafka tombstones come without a sequence, since their value is empty. Such a delete takes over the highest
//! sequence of the rows that it deletes: not to win by it, but so that a row older than those stays out.

use alluvium_catalog::{Error, Result};
use arrow::array::{Array, ArrayRef, BooleanArray, Int32Array, Int64Array, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};

/// The place of a change in the order of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// SEQUENCE BY in a form that compares as bytes; `None` when unknown.
    pub sequence: Option<Box<[u8]>>,
    /// Whether the change came without a sequence, so that `sequence` is taken over.
    pub inherited: bool,
    /// The record's offset; the least for rows that other writers added.
    pub offset: i64,
    /// The record's partition.
    pub partition: i32,
}

impl Order {
    /// Tells whether `self`, coming after `standing` became known, is the newer change.
    pub fn supersedes(&self, standing: &Self) -> bool {
        match (&self.sequence, &standing.sequence) {
            (Some(mine), Some(theirs)) if !self.inherited && mine != theirs => mine > theirs,
            _ => (self.offset, self.partition) > (standing.offset, standing.partition),
        }
    }

    /// Takes over the sequence of `replaced` when there is none of its own and no higher one was taken over.
    #[must_use]
    pub fn over(mut self, replaced: &Self) -> Self {
        if self.inherited && self.sequence < replaced.sequence {
            self.sequence.clone_from(&replaced.sequence);
        }
        self
    }
}

/// Makes [`Order`]s out of columns.
#[derive(Debug)]
pub struct Orders {
    converter: RowConverter,
    types: Vec<DataType>,
}

impl Orders {
    /// Returns a maker for sequences of `types`.
    ///
    /// # Errors
    /// `Invalid` when a type has no order.
    pub fn try_new(types: Vec<DataType>) -> Result<Self> {
        let fields = types.iter().map(|data_type| SortField::new(data_type.clone())).collect();
        let converter = RowConverter::new(fields)
            .map_err(|cause| Error::invalid("SEQUENCE BY has a type without an order").with_source(cause))?;
        Ok(Self { converter, types })
    }

    /// Returns the order of each row; a sequence with a NULL field counts as unknown, and one of a row that `inherited`
    /// names as taken over.
    ///
    /// # Errors
    /// `Internal` when the columns do not have the types of this maker.
    pub fn of(
        &self,
        sequence: &[ArrayRef],
        inherited: Option<&BooleanArray>,
        offsets: &Int64Array,
        partitions: &Int32Array,
    ) -> Result<Vec<Order>> {
        let failed = |cause| Error::internal("cannot compare SEQUENCE BY").with_source(cause);
        let columns = sequence
            .iter()
            .zip(&self.types)
            .map(|(column, wanted)| arrow::compute::cast(column, wanted))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(failed)?;
        let rows = self.converter.convert_columns(&columns).map_err(failed)?;
        Ok((0..offsets.len())
            .map(|index| {
                let known = !columns.is_empty() && columns.iter().all(|column| column.is_valid(index));
                Order {
                    sequence: known.then(|| rows.row(index).data().into()),
                    inherited: !known || inherited.is_some_and(|inherited| inherited.value(index)),
                    offset: if offsets.is_valid(index) { offsets.value(index) } else { i64::MIN },
                    partition: if partitions.is_valid(index) { partitions.value(index) } else { -1 },
                }
            })
            .collect())
    }

    /// Returns the sequences of `orders` as columns again, NULL where unknown.
    ///
    /// # Errors
    /// `Internal` when an order is not of this maker.
    pub fn columns(&self, orders: &[Order]) -> Result<Vec<ArrayRef>> {
        let failed = |cause| Error::internal("cannot read SEQUENCE BY back").with_source(cause);
        let parser = self.converter.parser();
        let known = orders.iter().filter_map(|order| order.sequence.as_deref()).map(|bytes| parser.parse(bytes));
        let columns = self.converter.convert_rows(known).map_err(failed)?;
        let mut next = 0_u32;
        let places: UInt32Array = orders
            .iter()
            .map(|order| {
                order.sequence.as_ref().map(|_| {
                    next += 1;
                    next - 1
                })
            })
            .collect();
        columns.iter().map(|column| take(column, &places, None).map_err(failed)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn order(sequence: Option<u8>, offset: i64, partition: i32) -> Order {
        let inherited = sequence.is_none();
        Order { sequence: sequence.map(|byte| vec![byte].into()), inherited, offset, partition }
    }

    #[test]
    fn the_table_of_the_module_doc_holds() {
        let cases = [
            (order(Some(2), 1, 0), order(Some(1), 9, 9)),
            (order(Some(1), 2, 0), order(Some(1), 1, 9)),
            (order(Some(1), 1, 1), order(Some(1), 1, 0)),
            (order(None, 2, 0), order(Some(9), 1, 0)),
            (order(Some(0), 2, 0), order(None, 1, 0)),
        ];
        for (newer, older) in cases {
            assert!(newer.supersedes(&older), "{newer:?} over {older:?}");
            assert!(!older.supersedes(&newer), "{older:?} over {newer:?}");
            assert!(!newer.supersedes(&newer));
        }
    }

    #[test]
    fn a_tombstone_keeps_rows_out_that_are_older_than_what_it_deletes() {
        let deleted = order(None, 7, 0).over(&order(Some(5), 3, 0));
        assert!(!order(Some(4), 8, 0).supersedes(&deleted), "a late older row must stay out");
        assert!(order(Some(5), 8, 0).supersedes(&deleted), "a re-insert after the delete must come in");
    }

    #[test]
    fn a_tombstone_does_not_lose_by_the_sequence_it_took_over() {
        let late_then_deleted = order(None, 7, 0).over(&order(Some(3), 6, 0));
        let standing = order(Some(5), 2, 0);
        assert!(late_then_deleted.supersedes(&standing));
        assert_eq!(late_then_deleted.over(&standing).sequence.as_deref(), Some(&[5][..]));
    }

    #[test]
    fn sequences_come_back_as_columns() -> Result<()> {
        let orders = Orders::try_new(vec![DataType::Int64])?;
        let sequence: ArrayRef = Arc::new(Int64Array::from(vec![Some(3), None, Some(-4)]));
        let (offsets, partitions) = (Int64Array::from(vec![0, 1, 2]), Int32Array::from(vec![0, 0, 0]));
        let made = orders.of(&[Arc::clone(&sequence)], None, &offsets, &partitions)?;
        assert_eq!(&orders.columns(&made)?[0], &sequence);
        Ok(())
    }
}
