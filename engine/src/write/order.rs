//! Which of two changes to a key is the newer one (promise 3: in order by key).
//!
//! | sequences | the newer change has |
//! |---|---|
//! | both known, different | the higher SEQUENCE BY |
//! | both known, equal | the higher offset, then partition |
//! | one unknown | the higher offset, then partition |
//!
//! A sequence is unknown only for Kafka tombstones, whose value is empty; such a delete takes over the sequence of the
//! row that it deletes, so that a row older than that one stays out.

use alluvium_catalog::{Error, Result};
use arrow::array::{Array, ArrayRef, Int32Array, Int64Array};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};

/// The place of a change in the order of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// SEQUENCE BY in a form that compares as bytes; `None` when unknown.
    pub sequence: Option<Box<[u8]>>,
    /// The record's offset; the least for rows that other writers added.
    pub offset: i64,
    /// The record's partition.
    pub partition: i32,
}

impl Order {
    /// Tells whether `self` is newer than `other`.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        match (&self.sequence, &other.sequence) {
            (Some(mine), Some(theirs)) if mine != theirs => mine > theirs,
            _ => (self.offset, self.partition) > (other.offset, other.partition),
        }
    }

    /// Takes over the sequence of `replaced` when there is none of its own.
    #[must_use]
    pub fn over(mut self, replaced: &Self) -> Self {
        if self.sequence.is_none() {
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

    /// Returns the order of each row; a sequence with a NULL field counts as unknown.
    ///
    /// # Errors
    /// `Internal` when the columns do not have the types of this maker.
    pub fn of(&self, sequence: &[ArrayRef], offsets: &Int64Array, partitions: &Int32Array) -> Result<Vec<Order>> {
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
                    offset: if offsets.is_valid(index) { offsets.value(index) } else { i64::MIN },
                    partition: if partitions.is_valid(index) { partitions.value(index) } else { -1 },
                }
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(sequence: Option<u8>, offset: i64, partition: i32) -> Order {
        Order { sequence: sequence.map(|byte| vec![byte].into()), offset, partition }
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
            assert!(newer.is_newer_than(&older), "{newer:?} over {older:?}");
            assert!(!older.is_newer_than(&newer), "{older:?} over {newer:?}");
            assert!(!newer.is_newer_than(&newer));
        }
    }

    #[test]
    fn a_tombstone_takes_over_the_sequence_it_deletes() {
        let deleted = order(None, 7, 0).over(&order(Some(5), 3, 0));
        assert!(!order(Some(4), 8, 0).is_newer_than(&deleted), "a late older row must stay out");
        assert!(order(Some(5), 8, 0).is_newer_than(&deleted), "a re-insert after the delete must come in");
    }
}
