//! The rows of a data file that are still part of the table, in the columns that the table has now: what a file that is
//! written anew takes over. Files of all writers are opened here, so that their times come whole.

use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use arrow::array::{ArrayRef, BooleanArray, BooleanBufferBuilder, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::Type as PhysicalType;
use parquet::errors::ParquetError;
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor};
use roaring::RoaringTreemap;

use crate::object_file::ObjectFile;

/// Reads the footer of a data file, and returns what its rows can be read by. Times that it has as INT96, as Spark writes
/// them, come in microseconds: in nanoseconds those after the year 2262 would wrap around without a word.
///
/// # Errors
/// When the footer cannot be read.
pub(crate) async fn open_file(
    mut file: ObjectFile,
) -> std::result::Result<ParquetRecordBatchStreamBuilder<ObjectFile>, ParquetError> {
    let mut metadata = ArrowReaderMetadata::load_async(&mut file, ArrowReaderOptions::new()).await?;
    if let Some(schema) = in_micros(metadata.parquet_schema(), metadata.schema()) {
        let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
        metadata = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options)?;
    }
    Ok(ParquetRecordBatchStreamBuilder::new_with_metadata(file, metadata))
}

/// Returns the rows of `batch`, whose first has number `first` in its file, that are not deleted.
///
/// # Errors
/// `Internal` when they cannot be picked.
pub(crate) fn live_rows(batch: &RecordBatch, first: u64, deleted: &RoaringTreemap) -> Result<RecordBatch> {
    let n_rows = batch.num_rows();
    let mut marked = deleted.iter();
    marked.advance_to(first);
    let mut gone = marked.map_while(|row| usize::try_from(row - first).ok().filter(|place| *place < n_rows)).peekable();
    if gone.peek().is_none() {
        return Ok(batch.clone());
    }
    let mut live = BooleanBufferBuilder::new(n_rows);
    live.append_n(n_rows, true);
    gone.for_each(|place| live.set_bit(place, false));
    filter_record_batch(batch, &BooleanArray::new(live.finish(), None))
        .map_err(|cause| Error::internal("cannot leave out deleted rows").with_source(cause))
}

/// Returns `rows` in the columns of `schema`: one that the file lacks is NULL, one of another layout is cast.
///
/// # Errors
/// When a column cannot be cast with all of its values, or is NULL where it must not be.
pub(crate) fn conform(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    // A value that does not fit would be NULL, and lost for good: the file that it comes from is replaced.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let columns = schema.fields().iter().map(|field| match rows.column_by_name(field.name()) {
        Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
        Some(column) => cast_with_options(column, field.data_type(), &options),
        None => Ok(new_null_array(field.data_type(), rows.num_rows())),
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<Vec<ArrayRef>, _>>()?)
}

/// Returns `schema`, which the reader takes from `parquet`, with microseconds for INT96; `None` where there is no INT96.
fn in_micros(parquet: &SchemaDescriptor, schema: &Schema) -> Option<Schema> {
    let mut leaves = parquet.columns().iter();
    if leaves.clone().all(|leaf| leaf.physical_type() != PhysicalType::INT96) {
        return None;
    }
    let fields: Vec<FieldRef> = schema.fields().iter().map(|field| field_in_micros(field, &mut leaves)).collect();
    Some(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Takes from `leaves` those of `field`: a file has them in the order in which they stand in its columns.
fn field_in_micros(field: &FieldRef, leaves: &mut std::slice::Iter<'_, ColumnDescPtr>) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Struct(members) => {
            DataType::Struct(members.iter().map(|member| field_in_micros(member, leaves)).collect())
        }
        DataType::List(element) => DataType::List(field_in_micros(element, leaves)),
        DataType::LargeList(element) => DataType::LargeList(field_in_micros(element, leaves)),
        DataType::ListView(element) => DataType::ListView(field_in_micros(element, leaves)),
        DataType::LargeListView(element) => DataType::LargeListView(field_in_micros(element, leaves)),
        DataType::FixedSizeList(element, n_elements) => {
            DataType::FixedSizeList(field_in_micros(element, leaves), *n_elements)
        }
        DataType::Map(entries, is_sorted) => DataType::Map(field_in_micros(entries, leaves), *is_sorted),
        leaf => {
            let is_int96 = leaves.next().is_some_and(|column| column.physical_type() == PhysicalType::INT96);
            match leaf {
                DataType::Timestamp(TimeUnit::Nanosecond, zone) if is_int96 => {
                    DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
                }
                other => other.clone(),
            }
        }
    };
    Arc::new(field.as_ref().clone().with_data_type(data_type))
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{Field, UInt64Type};

    use super::*;

    type TestResult = std::result::Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn rows_that_are_deleted_are_left_out_wherever_the_batch_begins() -> TestResult {
        let deleted = RoaringTreemap::from_iter([0, 3, 63, 64, 99, 100, 1 << 40]);
        for (first, n_rows) in [(0, 100), (1, 2), (3, 1), (64, 36), (101, 50), (50, 0), ((1 << 40) - 1, 3)] {
            let numbers: ArrayRef = Arc::new(arrow::array::UInt64Array::from_iter_values(first..first + n_rows));
            let batch = RecordBatch::try_from_iter([("row", numbers)])?;
            let live = live_rows(&batch, first, &deleted)?;
            let expected: Vec<u64> = (first..first + n_rows).filter(|row| !deleted.contains(*row)).collect();
            assert_eq!(
                live.column(0).as_primitive::<UInt64Type>().values(),
                expected.as_slice(),
                "{n_rows} from {first}"
            );
        }
        Ok(())
    }

    #[test]
    fn a_value_that_its_column_cannot_hold_is_an_error_and_no_null() -> TestResult {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, true)]));
        for (number, fits) in [(i64::from(i32::MAX), true), (i64::from(i32::MAX) + 1, false)] {
            let numbers: ArrayRef = Arc::new(Int64Array::from(vec![number]));
            let conformed = conform(&RecordBatch::try_from_iter([("n", numbers)])?, &schema);
            assert_eq!(conformed.is_ok(), fits, "{conformed:?}");
        }
        Ok(())
    }
}
