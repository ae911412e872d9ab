//! Plain documents to Arrow columns in one pass over their bytes: no tape, no tree, no second look.
//!
//! A document is plain when it is sound JSON and every value is written as values nearly always are: no member twice,
//! no exponent in an integer, no digits beyond a decimal's scale, and so on. What is not plain leaves no trace in the
//! columns; the [`judge`](super::judge) says whether it is a row after all, and if not, why. So this file need not take
//! every row, but **what it takes is just what the judge would have made of it**; `plain/tests.rs` holds it to that.
//! Before it: the documents. After it: json.rs, which puts both kinds of rows in order.

mod bytes;
mod cursor;
mod members;
mod nested;
mod number;
mod scalar;
mod time;
mod validity;

use std::fmt::Debug;

use alluvium_catalog::{Error, Result};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef, TimeUnit};
use arrow::error::ArrowError;

use bytes::{Hex, Texts};
use cursor::Cursor;
use members::{Members, Structs};
use nested::{Lists, Maps};
use scalar::{Booleans, Decimal, Double, Scalars, Single, Whole};
use time::{Day, Instant};
use validity::Validity;

/// The outcome for a document that the columns do not take; they are to be cut back to the rows before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotPlain;

/// The rows of plain documents, as far as they have come.
#[derive(Debug)]
pub(super) struct PlainRows {
    schema: SchemaRef,
    depth_max: usize,
    members: Members,
}

/// A column under construction: takes its values one after the other, straight from the text.
trait Column: Debug + Send {
    /// Appends the value that comes next, null included.
    ///
    /// # Errors
    /// `NotPlain` when the value is, or when it is null and must not be. The column may then hold part of it.
    fn take(&mut self, cursor: &mut Cursor<'_>) -> Result<(), NotPlain>;

    /// Appends a null.
    ///
    /// # Errors
    /// `NotPlain` when the column must not hold one.
    fn take_null(&mut self) -> Result<(), NotPlain>;

    /// Appends something to stand where the value around it is null.
    fn take_masked(&mut self);

    /// Drops all values, whole or in part, from the one at `n_values` on.
    fn truncate(&mut self, n_values: usize);

    /// Makes room for `n_values` more, where that is cheap to know.
    fn reserve(&mut self, n_values: usize);

    /// Returns the values and begins anew.
    fn finish(&mut self) -> Result<ArrayRef, ArrowError>;
}

impl PlainRows {
    /// Returns no rows yet of `schema`, or none where the columns cannot hold a type of it.
    pub(super) fn new(schema: SchemaRef, depth_max: usize) -> Option<Self> {
        let members = Members::new(schema.fields())?;
        Some(Self { schema, depth_max, members })
    }

    /// Makes room for `n_rows` more.
    pub(super) fn reserve(&mut self, n_rows: usize) {
        self.members.reserve(n_rows);
    }

    /// Appends the row that `document` is.
    ///
    /// # Errors
    /// `NotPlain` when it is not plain; then the rows are as they were.
    #[inline]
    pub(super) fn push(&mut self, document: &[u8]) -> Result<(), NotPlain> {
        let n_rows = self.members.len();
        let taken = self.take(document);
        if taken.is_err() {
            self.members.truncate(n_rows);
        }
        taken
    }

    #[inline]
    fn take(&mut self, document: &[u8]) -> Result<(), NotPlain> {
        let mut cursor = Cursor::new(document, self.depth_max);
        cursor.skip_space();
        self.members.take(&mut cursor)?;
        cursor.skip_space();
        if cursor.rest().is_empty() { Ok(()) } else { Err(NotPlain) }
    }

    /// Returns the rows and begins anew.
    ///
    /// # Errors
    /// `Internal` when the columns contradict the schema.
    pub(super) fn finish(&mut self) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(self.members.len()));
        let schema = SchemaRef::clone(&self.schema);
        let batch =
            self.members.finish().and_then(|arrays| RecordBatch::try_new_with_options(schema, arrays, &options));
        batch.map_err(|source| Error::internal("cannot put decoded rows together").with_source(source))
    }
}

/// Returns an empty column for the values of `field`, if there is one for its type.
fn column_for(field: &Field) -> Option<Box<dyn Column>> {
    let validity = Validity::new(field.is_nullable());
    let data_type = field.data_type().clone();
    Some(match field.data_type() {
        DataType::Boolean => Box::new(Booleans::new(validity)),
        DataType::Int8 => Box::new(Scalars::new(Whole::<Int8Type>::default(), data_type, validity)),
        DataType::Int16 => Box::new(Scalars::new(Whole::<Int16Type>::default(), data_type, validity)),
        DataType::Int32 => Box::new(Scalars::new(Whole::<Int32Type>::default(), data_type, validity)),
        DataType::Int64 => Box::new(Scalars::new(Whole::<Int64Type>::default(), data_type, validity)),
        DataType::Float32 => Box::new(Scalars::new(Single, data_type, validity)),
        DataType::Float64 => Box::new(Scalars::new(Double, data_type, validity)),
        DataType::Decimal128(precision, scale) => {
            Box::new(Scalars::new(Decimal::new(*precision, *scale)?, data_type, validity))
        }
        DataType::Date32 => Box::new(Scalars::new(Day, data_type, validity)),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            Box::new(Scalars::new(Instant::new(zone.as_deref())?, data_type, validity))
        }
        DataType::Utf8 => Box::new(Texts::new(validity)),
        DataType::Binary => Box::new(Hex::new(validity)),
        DataType::Struct(fields) => Box::new(Structs::new(fields, validity)?),
        DataType::List(element) => Box::new(Lists::new(element, validity)?),
        DataType::Map(entries, false) => Box::new(Maps::new(entries, validity)?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
