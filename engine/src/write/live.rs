//! The rows of a data file that are still part of the table, in the columns that the table has now: what a file that is
//! written anew takes over.

use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use roaring::RoaringTreemap;

/// Returns the rows of `batch`, whose first has number `first` in its file, that are not deleted.
///
/// # Errors
/// `Internal` when they cannot be picked.
pub(crate) fn live_rows(batch: &RecordBatch, first: u64, deleted: &RoaringTreemap) -> Result<RecordBatch> {
    let next = first + batch.num_rows() as u64;
    if deleted.range_cardinality(first..next) == 0 {
        return Ok(batch.clone());
    }
    let live: BooleanArray = (first..next).map(|row| Some(!deleted.contains(row))).collect();
    filter_record_batch(batch, &live)
        .map_err(|cause| Error::internal("cannot leave out deleted rows").with_source(cause))
}

/// Returns `rows` in the columns of `schema`: one that the file lacks is NULL, one of another layout is cast.
///
/// # Errors
/// When a column cannot be cast, or is NULL where it must not be.
pub(crate) fn conform(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| match rows.column_by_name(field.name()) {
        Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
        Some(column) => cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), rows.num_rows())),
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<Vec<ArrayRef>, _>>()?)
}
