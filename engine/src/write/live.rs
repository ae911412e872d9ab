//! The rows of a data file that are still part of the table, in the columns that the table has now: what a file that is
//! written anew takes over. Files of all writers are opened here, so that their times come whole.

use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, ListArray, MapArray, RecordBatch, StructArray,
    new_null_array,
};
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

/// Returns `rows` in the columns of `schema`: one that the file lacks is NULL, as is a member of a struct, one of another
/// layout is cast.
///
/// # Errors
/// When a column cannot be cast with all of its values, or is NULL where it must not be.
pub(crate) fn conform(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| match rows.column_by_name(field.name()) {
        Some(column) => conform_column(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), rows.num_rows())),
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<Vec<ArrayRef>, _>>()?)
}

/// Returns `column` as `wanted`. Members of structs go by their names, wherever the structs stand: an owner may add some to a
/// table, and files from before lack them. Arrow's own cast takes all members by their places where one is missing.
fn conform_column(column: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, ArrowError> {
    // A value that does not fit would be NULL, and lost for good: the file that it comes from is replaced.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    Ok(match (column.data_type(), wanted) {
        (found, wanted) if found == wanted => Arc::clone(column),
        (DataType::Struct(_), DataType::Struct(members)) => {
            let found = column.as_struct();
            let columns = members.iter().map(|member| match found.column_by_name(member.name()) {
                Some(column) => conform_column(column, member.data_type()),
                None => Ok(new_null_array(member.data_type(), found.len())),
            });
            let (columns, nulls) = (columns.collect::<Result<Vec<ArrayRef>, _>>()?, found.nulls().cloned());
            Arc::new(StructArray::try_new_with_length(members.clone(), columns, nulls, found.len())?)
        }
        (DataType::List(_), DataType::List(element)) => {
            let found = column.as_list::<i32>();
            let values = conform_column(found.values(), element.data_type())?;
            let (offsets, nulls) = (found.offsets().clone(), found.nulls().cloned());
            Arc::new(ListArray::try_new(Arc::clone(element), offsets, values, nulls)?)
        }
        (DataType::LargeList(element), DataType::List(_)) => {
            conform_column(&cast_with_options(column, &DataType::List(Arc::clone(element)), &options)?, wanted)?
        }
        (DataType::Map(..), DataType::Map(entries, is_sorted)) => {
            let found = column.as_map();
            let DataType::Struct(pair) = entries.data_type() else {
                return Err(ArrowError::SchemaError("a map has no entries".to_owned()));
            };
            // A key and a value, whatever they are called.
            let columns = found.entries().columns().iter().zip(pair);
            let columns = columns.map(|(column, member)| conform_column(column, member.data_type()));
            let pairs = StructArray::try_new(pair.clone(), columns.collect::<Result<Vec<ArrayRef>, _>>()?, None)?;
            let (offsets, nulls) = (found.offsets().clone(), found.nulls().cloned());
            Arc::new(MapArray::try_new(Arc::clone(entries), offsets, pairs, nulls, *is_sorted)?)
        }
        _ => cast_with_options(column, wanted, &options)?,
    })
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
    use arrow::array::{Int32Array, Int64Array};
    use arrow::buffer::{NullBuffer, OffsetBuffer};
    use arrow::datatypes::{Field, Fields, Int64Type, UInt64Type};

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
    fn members_that_a_file_lacks_are_null_and_the_others_go_by_their_names() -> TestResult {
        let old = Fields::from(vec![Field::new("b", DataType::Int32, true), Field::new("a", DataType::Int64, true)]);
        let members = vec![
            Field::new("a", DataType::Int64, true),
            Field::new("added", DataType::Utf8, true),
            Field::new("b", DataType::Int64, true),
        ];
        let members = Fields::from(members);
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int32Array::from(vec![1, 2])), Arc::new(Int64Array::from(vec![10, 20]))];
        // The second of them is NULL.
        let nulls = Some(NullBuffer::from(vec![true, false]));
        let homes: ArrayRef = Arc::new(StructArray::try_new(old.clone(), columns, nulls)?);
        let each = || OffsetBuffer::from_lengths([1, 1]);
        let list_of = |fields: &Fields| Arc::new(Field::new_list_field(DataType::Struct(fields.clone()), true));
        let lists: ArrayRef = Arc::new(ListArray::try_new(list_of(&old), each(), Arc::clone(&homes), None)?);
        let pair_of = |fields: &Fields| {
            Fields::from(vec![
                Field::new("key", DataType::Int32, false),
                Field::new("value", DataType::Struct(fields.clone()), true),
            ])
        };
        let map_of = |fields: &Fields| Arc::new(Field::new("entries", DataType::Struct(pair_of(fields)), false));
        let keys: ArrayRef = Arc::new(Int32Array::from(vec![7, 8]));
        let pairs = StructArray::try_new(pair_of(&old), vec![keys, Arc::clone(&homes)], None)?;
        let maps: ArrayRef = Arc::new(MapArray::try_new(map_of(&old), each(), pairs, None, false)?);
        let rows = RecordBatch::try_from_iter([("home", homes), ("all", lists), ("by_number", maps)])?;
        let schema: SchemaRef = Arc::new(Schema::new(vec![
            Field::new("home", DataType::Struct(members.clone()), true),
            Field::new("all", DataType::List(list_of(&members)), true),
            Field::new("by_number", DataType::Map(map_of(&members), false), true),
        ]));
        let conformed = conform(&rows, &schema)?;
        let all = conformed.column(1).as_list::<i32>().values();
        for homes in [conformed.column(0), all, conformed.column(2).as_map().values()] {
            let homes = homes.as_struct();
            assert_eq!((homes.is_valid(0), homes.is_valid(1)), (true, false));
            let number = |name: &str| Some(homes.column_by_name(name)?.as_primitive::<Int64Type>().value(0));
            assert_eq!((number("a"), number("b")), (Some(10), Some(1)));
            assert_eq!(homes.column_by_name("added").map(|column| column.null_count()), Some(2));
        }
        let must = members.iter().map(|member| member.as_ref().clone().with_nullable(member.name() != "added"));
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("home", DataType::Struct(must.collect()), true)]));
        assert!(conform(&rows, &schema).is_err(), "a member that must not be NULL is");
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
