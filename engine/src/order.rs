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
//!
//! Orders of a batch are columns: a sequence of one integer, date or timestamp is compared as the number that it is,
//! any other as the bytes of its row encoding.

use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Int64Type};
use arrow::row::{RowConverter, Rows, SortField};
use serde::{Deserialize, Serialize};

/// A value of SEQUENCE BY. Values of one form are all numbers or all bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SequenceRef<'a> {
    /// A single integer, date or timestamp.
    Number(i64),
    /// Anything else, encoded so that it compares as bytes.
    Bytes(&'a [u8]),
}

/// A value of SEQUENCE BY that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sequence {
    /// See [`SequenceRef::Number`].
    Number(i64),
    /// See [`SequenceRef::Bytes`].
    Bytes(Box<[u8]>),
}

/// The place of a change in the order of its key, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderRef<'a> {
    /// SEQUENCE BY; `None` when unknown.
    pub sequence: Option<SequenceRef<'a>>,
    /// Whether the change came without a sequence, so that `sequence` is taken over.
    pub inherited: bool,
    /// The record's offset; the least for rows that other writers added.
    pub offset: i64,
    /// The record's partition.
    pub partition: i32,
}

/// The place of a change in the order of its key, kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// See [`OrderRef::sequence`].
    pub sequence: Option<Sequence>,
    /// See [`OrderRef::inherited`].
    pub inherited: bool,
    /// See [`OrderRef::offset`].
    pub offset: i64,
    /// See [`OrderRef::partition`].
    pub partition: i32,
}

impl OrderRef<'_> {
    /// Tells whether `self`, coming after `standing` became known, is the newer change.
    #[inline]
    pub fn supersedes(&self, standing: &Self) -> bool {
        match (self.sequence, standing.sequence) {
            (Some(mine), Some(theirs)) if !self.inherited && mine != theirs => mine > theirs,
            _ => self.position() > standing.position(),
        }
    }

    /// Takes over the sequence of `replaced` when there is none of its own and no higher one was taken over.
    #[must_use]
    pub fn over(mut self, replaced: &Self) -> Self {
        if self.inherited && self.sequence < replaced.sequence {
            self.sequence = replaced.sequence;
        }
        self
    }

    /// Returns offset and partition, by which changes compare where sequences do not decide.
    #[inline]
    pub fn position(&self) -> (i64, i32) {
        (self.offset, self.partition)
    }

    /// Returns the same order, kept.
    pub fn to_owned(self) -> Order {
        let Self { sequence, inherited, offset, partition } = self;
        Order { sequence: sequence.map(SequenceRef::to_owned), inherited, offset, partition }
    }
}

impl Order {
    /// Returns the same order, borrowed.
    pub fn borrow(&self) -> OrderRef<'_> {
        let sequence = self.sequence.as_ref().map(Sequence::borrow);
        OrderRef { sequence, inherited: self.inherited, offset: self.offset, partition: self.partition }
    }
}

impl SequenceRef<'_> {
    /// Returns the same value, kept.
    pub fn to_owned(self) -> Sequence {
        match self {
            Self::Number(number) => Sequence::Number(number),
            Self::Bytes(bytes) => Sequence::Bytes(bytes.into()),
        }
    }
}

impl Sequence {
    /// Returns the same value, borrowed.
    pub fn borrow(&self) -> SequenceRef<'_> {
        match self {
            Self::Number(number) => SequenceRef::Number(*number),
            Self::Bytes(bytes) => SequenceRef::Bytes(bytes),
        }
    }
}

/// The orders of a batch's rows, as columns.
#[derive(Debug, Clone)]
pub struct Orders {
    sequences: Sequences,
    inherited: BooleanBuffer,
    offsets: Int64Array,
    partitions: Int32Array,
}

#[derive(Debug, Clone)]
enum Sequences {
    /// No row has one.
    Unknown,
    /// NULL where unknown.
    Numbers(Int64Array),
    /// The place of each row's encoding; NULL where unknown.
    Encoded { rows: Arc<Rows>, places: UInt32Array },
}

impl Orders {
    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Returns the order of the row at `index`, which must be below [`len`](Self::len).
    #[inline]
    pub fn get(&self, index: usize) -> OrderRef<'_> {
        OrderRef {
            sequence: self.sequence(index),
            inherited: self.inherited.value(index),
            offset: if self.offsets.is_valid(index) { self.offsets.value(index) } else { i64::MIN },
            partition: if self.partitions.is_valid(index) { self.partitions.value(index) } else { -1 },
        }
    }

    /// Returns the sequence of the row at `index`.
    #[inline]
    pub fn sequence(&self, index: usize) -> Option<SequenceRef<'_>> {
        match &self.sequences {
            Sequences::Unknown => None,
            Sequences::Numbers(numbers) => numbers.is_valid(index).then(|| SequenceRef::Number(numbers.value(index))),
            Sequences::Encoded { rows, places } => {
                places.is_valid(index).then(|| SequenceRef::Bytes(rows.row(places.value(index) as usize).data()))
            }
        }
    }

    /// Returns the orders of `rows`, each with the sequence of the row that `sequence_rows` names instead of its own.
    ///
    /// # Errors
    /// `Internal` when a row does not exist.
    pub fn take(&self, rows: &UInt32Array, sequence_rows: &UInt32Array) -> Result<Self> {
        let failed = |cause| Error::internal("cannot rearrange orders").with_source(cause);
        let one = |column: &dyn Array, rows: &UInt32Array| take(column, rows, None).map_err(failed);
        let inherited = one(&BooleanArray::new(self.inherited.clone(), None), rows)?;
        Ok(Self {
            sequences: match &self.sequences {
                Sequences::Unknown => Sequences::Unknown,
                Sequences::Numbers(numbers) => {
                    Sequences::Numbers(one(numbers, sequence_rows)?.as_primitive::<Int64Type>().clone())
                }
                Sequences::Encoded { rows, places } => Sequences::Encoded {
                    rows: Arc::clone(rows),
                    places: one(places, sequence_rows)?.as_primitive().clone(),
                },
            },
            inherited: inherited.as_boolean().values().clone(),
            offsets: one(&self.offsets, rows)?.as_primitive().clone(),
            partitions: one(&self.partitions, rows)?.as_primitive().clone(),
        })
    }

    /// Returns the bytes that these orders take in memory.
    pub fn bytes(&self) -> usize {
        let sequences = match &self.sequences {
            Sequences::Unknown => 0,
            Sequences::Numbers(numbers) => numbers.get_array_memory_size(),
            Sequences::Encoded { rows, places } => rows.size() + places.get_array_memory_size(),
        };
        sequences
            + self.inherited.inner().capacity()
            + self.offsets.get_array_memory_size()
            + self.partitions.get_array_memory_size()
    }
}

/// Makes [`Orders`] out of columns, and columns out of [`Order`]s.
#[derive(Debug)]
pub struct OrderForm {
    types: Vec<DataType>,
    /// `None` where sequences are numbers.
    converter: Option<RowConverter>,
}

impl OrderForm {
    /// Returns the form of sequences of `types`.
    ///
    /// # Errors
    /// `Invalid` when a type has no order.
    pub fn try_new(types: Vec<DataType>) -> Result<Self> {
        if let [single] = &types[..]
            && is_number(single)
        {
            return Ok(Self { types, converter: None });
        }
        let fields = types.iter().map(|data_type| SortField::new(data_type.clone())).collect();
        let converter = RowConverter::new(fields)
            .map_err(|cause| Error::invalid("SEQUENCE BY has a type without an order").with_source(cause))?;
        Ok(Self { types, converter: Some(converter) })
    }

    /// Returns the types of the fields of SEQUENCE BY.
    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    /// Returns the order of each row; a sequence with a NULL field counts as unknown, and one of a row that `inherited`
    /// names as taken over.
    ///
    /// # Errors
    /// `Internal` when the columns do not have the types of this form.
    pub fn of(
        &self,
        sequence: &[ArrayRef],
        inherited: Option<&BooleanArray>,
        offsets: &Int64Array,
        partitions: &Int32Array,
    ) -> Result<Orders> {
        let failed = |cause| Error::internal("cannot compare SEQUENCE BY").with_source(cause);
        let columns = sequence
            .iter()
            .zip(&self.types)
            .map(|(column, wanted)| cast(column, wanted))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(failed)?;
        let n_rows = offsets.len();
        let known = BooleanBuffer::collect_bool(n_rows, |index| {
            !columns.is_empty() && columns.iter().all(|column| column.is_valid(index))
        });
        let is_inherited = |index: usize| {
            !known.value(index)
                || inherited.is_some_and(|inherited| inherited.is_valid(index) && inherited.value(index))
        };
        let sequences = match (&columns[..], &self.converter) {
            ([], _) => Sequences::Unknown,
            ([single, ..], None) => {
                let numbers = cast(single, &DataType::Int64).map_err(failed)?;
                Sequences::Numbers(numbers.as_primitive::<Int64Type>().clone())
            }
            (_, Some(converter)) => {
                let rows = Arc::new(converter.convert_columns(&columns).map_err(failed)?);
                let places = (0_u32..).zip(known.iter()).map(|(place, known)| known.then_some(place)).collect();
                Sequences::Encoded { rows, places }
            }
        };
        Ok(Orders {
            sequences,
            inherited: BooleanBuffer::collect_bool(n_rows, is_inherited),
            offsets: offsets.clone(),
            partitions: partitions.clone(),
        })
    }

    /// Returns the sequences of `orders` as columns again, NULL where unknown.
    ///
    /// # Errors
    /// `Internal` when an order is not of this form.
    pub fn columns<'a>(&self, orders: impl IntoIterator<Item = OrderRef<'a>>) -> Result<Vec<ArrayRef>> {
        let failed = |cause| Error::internal("cannot read SEQUENCE BY back").with_source(cause);
        let sequences: Vec<Option<SequenceRef<'a>>> = orders.into_iter().map(|order| order.sequence).collect();
        let Some(converter) = &self.converter else {
            let numbers: Int64Array = sequences
                .iter()
                .map(|sequence| match sequence {
                    Some(SequenceRef::Number(number)) => Some(*number),
                    _ => None,
                })
                .collect();
            return self.types.iter().map(|wanted| cast(&numbers, wanted).map_err(failed)).collect();
        };
        let parser = converter.parser();
        let encoded = sequences.iter().filter_map(|sequence| match sequence {
            Some(SequenceRef::Bytes(bytes)) => Some(parser.parse(bytes)),
            _ => None,
        });
        let columns = converter.convert_rows(encoded).map_err(failed)?;
        let mut next = 0_u32;
        let places: UInt32Array = sequences
            .iter()
            .map(|sequence| {
                matches!(sequence, Some(SequenceRef::Bytes(_))).then(|| {
                    next += 1;
                    next - 1
                })
            })
            .collect();
        columns.iter().map(|column| take(column, &places, None).map_err(failed)).collect()
    }
}

/// Tells whether a sequence of this type compares as the 64-bit number behind it.
fn is_number(data_type: &DataType) -> bool {
    use DataType::{Date32, Date64, Int8, Int16, Int32, Int64, Timestamp, UInt8, UInt16, UInt32};
    matches!(data_type, Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | Date32 | Date64 | Timestamp(..))
}

#[cfg(test)]
mod tests;
