//! Reads of data files what the index needs of them: the keys and orders of all rows, or the orders of a few.

use std::collections::HashMap;
use std::sync::Arc;

use alluvium_catalog::{Error, Location, Result};
use alluvium_sql::{HIDDEN_OFFSET, HIDDEN_PARTITION, HIDDEN_SEQUENCE};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, StructArray, new_null_array};
use arrow::compute::{CastOptions, cast, cast_with_options, concat_batches};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::RowSelection;
use parquet::errors::ParquetError;
use roaring::RoaringTreemap;

use super::UpsertColumns;
use crate::delta::action::{Add, num_records};
use crate::hop::Keyed;
use crate::key::{KeyForm, Keys};
use crate::object_file::{ObjectFile, is_missing, read_error};
use crate::order::{OrderForm, Orders};
use crate::write::index::{Bounds, IndexedFile};
use crate::write::live::open_file;
use crate::write::vectors::{VectorFolder, check_fit};

/// The partition values of a file.
type PartitionValues = HashMap<String, Option<String>>;

/// The most rows of a piece: what is read and not yet in the index is small, however long the keys are.
pub(super) const PIECE_ROWS_MAX: usize = 1 << 14;

/// Reads rows of one table.
#[derive(Debug)]
pub(super) struct RowReader {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) location: Location,
    pub(super) vectors: VectorFolder,
    pub(super) columns: UpsertColumns,
    pub(super) keys: KeyForm,
    pub(super) orders: OrderForm,
}

/// The keys and orders of a file's rows, deleted ones included, in pieces of at most [`PIECE_ROWS_MAX`] that follow each
/// other. A piece is decoded when it is asked for.
pub(super) struct FileRows {
    /// The file; the bounds of its orders are known when the last piece is.
    pub(super) file: IndexedFile,
    pub(super) pieces: BoxStream<'static, Result<Keyed>>,
}

impl RowReader {
    /// Opens the rows of `add`: reads its deletion vector, and of its first row group what the store has.
    pub(super) async fn read(self: Arc<Self>, add: &Add) -> Result<FileRows> {
        let deleted = self.read_vector(add).await?;
        let mut names = self.columns.keys.clone();
        names.extend(self.order_columns());
        let (n_rows, batches) = self.batches((&add.path, add.size), &names, None).await?;
        if n_rows > u64::from(u32::MAX) {
            return Err(Error::data(format!(
                "{} of the table at {} has {n_rows} rows, more than the {} that the key index can number",
                add.path,
                self.location,
                u32::MAX
            )));
        }
        if num_records(add).is_some_and(|told| told != n_rows) {
            return Err(Error::data(format!(
                "{} of the table at {} has {n_rows} rows, and the log says otherwise",
                add.path, self.location
            )));
        }
        check_fit(&deleted, (&add.path, n_rows), &self.location)?;
        let values = add.partition_values.clone();
        let mut pieces = batches.map(move |batch| self.keyed(&batch?, &values)).boxed();
        // So that files that are opened together come from the store together.
        let first = pieces.try_next().await?;
        let pieces = futures::stream::iter(first.map(Ok)).chain(pieces).boxed();
        Ok(FileRows { file: IndexedFile::new(add, n_rows, deleted, Bounds::default()), pieces })
    }

    fn keyed(&self, rows: &RecordBatch, values: &PartitionValues) -> Result<Keyed> {
        let keys = self.pack(rows, values)?;
        let orders = self.orders_of(rows, &self.stored_sequence(rows, values)?)?;
        Ok(Keyed { keys, orders })
    }

    /// Reads the orders of `rows`, which ascend.
    pub(super) async fn read_orders(&self, file: &IndexedFile, rows: &[u32]) -> Result<Orders> {
        let names = self.order_columns();
        let ranges = rows.iter().map(|row| *row as usize..*row as usize + 1);
        let selection = RowSelection::from_consecutive_ranges(ranges, file.n_rows as usize);
        let (_, batches) = self.batches((&file.path, file.size), &names, Some(selection)).await?;
        let batches: Vec<RecordBatch> = batches.try_collect().await?;
        let failed = |cause| Error::data(format!("cannot read the orders of {}", file.path)).with_source(cause);
        let Some(first) = batches.first() else {
            return Err(Error::data(format!("{} of the table at {} has no rows", file.path, self.location)));
        };
        let batch = concat_batches(&first.schema(), &batches).map_err(failed)?;
        if batch.num_rows() != rows.len() {
            return Err(Error::data(format!("{} lacks rows that the index knows", file.path)));
        }
        self.orders_of(&batch, &self.stored_sequence(&batch, &file.partition_values)?)
    }

    /// Reads the deletion vector of `add`; none deletes no row.
    pub(super) async fn read_vector(&self, add: &Add) -> Result<RoaringTreemap> {
        let Some(descriptor) = &add.deletion_vector else { return Ok(RoaringTreemap::new()) };
        self.vectors.read(descriptor).await.map_err(|error| {
            if !is_missing(&error) {
                return error;
            }
            // A store without the file has none later either: to ask again does not help.
            let (path, at) = (&add.path, &self.location);
            Error::data(format!("the deletion vector of {path} of the table at {at} is gone")).with_source(error)
        })
    }

    /// Returns the keys of `rows`.
    pub(super) fn pack(&self, rows: &RecordBatch, values: &PartitionValues) -> Result<Keys> {
        let types = self.keys.types().iter();
        let columns = self.columns.keys.iter().zip(types).map(|(key, wanted)| column_of(rows, values, key, wanted));
        self.keys.pack(&columns.collect::<Result<Vec<_>>>()?)
    }

    /// Returns the orders of `rows`, whose sequences are `sequence`.
    pub(super) fn orders_of(&self, rows: &RecordBatch, sequence: &[ArrayRef]) -> Result<Orders> {
        let failed = |cause| Error::data("cannot read the positions of a data file").with_source(cause);
        let none = PartitionValues::new();
        let partitions = column_of(rows, &none, HIDDEN_PARTITION, &DataType::Int32)?;
        let offsets = column_of(rows, &none, HIDDEN_OFFSET, &DataType::Int64)?;
        let partitions = cast(&partitions, &DataType::Int32).map_err(failed)?;
        let offsets = cast(&offsets, &DataType::Int64).map_err(failed)?;
        self.orders.of(sequence, None, offsets.as_primitive::<Int64Type>(), partitions.as_primitive::<Int32Type>())
    }

    fn stored_sequence(&self, rows: &RecordBatch, values: &PartitionValues) -> Result<Vec<ArrayRef>> {
        if let Some(stored) = &self.columns.stored_sequence {
            let types = stored.iter().zip(&self.columns.sequence);
            return types.map(|(name, data_type)| column_of(rows, values, name, data_type)).collect();
        }
        let whole = column_of(rows, values, HIDDEN_SEQUENCE, &self.columns.hidden_sequence_type())?;
        match (&self.columns.sequence[..], whole.as_any().downcast_ref::<StructArray>()) {
            ([_, _, ..], Some(fields)) => Ok(fields.columns().to_vec()),
            _ => Ok(vec![whole]),
        }
    }

    /// Returns the columns that hold the order of rows.
    fn order_columns(&self) -> Vec<String> {
        let hidden = || vec![HIDDEN_SEQUENCE.to_owned()];
        let mut names = self.columns.stored_sequence.clone().unwrap_or_else(hidden);
        names.extend([HIDDEN_PARTITION.to_owned(), HIDDEN_OFFSET.to_owned()]);
        names
    }

    /// Opens the columns `names`, as far as the file has them, of all rows or of those selected; also returns the number of
    /// all rows.
    async fn batches(
        &self,
        (path, size): (&str, i64),
        names: &[String],
        selection: Option<RowSelection>,
    ) -> Result<(u64, impl Stream<Item = Result<RecordBatch>> + Send + use<>)> {
        let file = format!("{path} of the table at {}", self.location);
        let place =
            Path::parse(path).map_err(|cause| Error::data(format!("{file} is not a path")).with_source(cause))?;
        let size = u64::try_from(size).map_err(|_| Error::data(format!("{file} has a negative size")))?;
        let failed = move |cause: ParquetError| read_error(format!("cannot read {file}"), cause);
        let reader = ObjectFile::new(Arc::clone(&self.store), place, size);
        let builder = open_file(reader).await.map_err(&failed)?;
        let n_rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or_default();
        // By whole names: a dot in a name leads into no struct, and a column that is passed over would be read as NULL.
        let columns = builder.parquet_schema().root_schema().get_fields();
        let is_wanted = |place: &usize| names.iter().any(|name| name == columns[*place].name());
        let mask = ProjectionMask::roots(builder.parquet_schema(), (0..columns.len()).filter(is_wanted));
        let mut builder = builder.with_projection(mask).with_batch_size(PIECE_ROWS_MAX);
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        let batches = builder.build().map_err(&failed)?;
        Ok((n_rows, batches.map_err(failed)))
    }
}

/// Returns a column of a file: stored, or the value of its partition, or NULL where another writer left it out. An empty text
/// in the log is NULL for every type. Source: Delta transaction log protocol, section "Partition Value Serialization".
fn column_of(rows: &RecordBatch, values: &PartitionValues, name: &str, data_type: &DataType) -> Result<ArrayRef> {
    if let Some(column) = rows.column_by_name(name) {
        return Ok(Arc::clone(column));
    }
    let value = values.get(name).and_then(Option::as_deref).filter(|value| !value.is_empty());
    let Some(value) = value else { return Ok(new_null_array(data_type, rows.num_rows())) };
    let text: ArrayRef = Arc::new(StringArray::from(vec![value; rows.num_rows()]));
    // A value that is no such value would be NULL, and the key another.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(&text, data_type, &options).map_err(|cause| {
        Error::data(format!("partition value '{value}' of column '{name}' cannot be read")).with_source(cause)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_partition_value_is_null_for_every_type_and_one_that_is_no_value_is_an_error() -> Result<()> {
        let ids: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let rows = RecordBatch::try_from_iter([("id", ids)]);
        let rows = rows.map_err(|cause| Error::internal("rows").with_source(cause))?;
        let values = |value: &str| PartitionValues::from([("part".to_owned(), Some(value.to_owned()))]);
        for data_type in [DataType::Utf8, DataType::Binary, DataType::Int64, DataType::Date32, DataType::Boolean] {
            let column = column_of(&rows, &values(""), "part", &data_type)?;
            assert_eq!((column.data_type(), column.null_count()), (&data_type, 2));
        }
        assert_eq!(column_of(&rows, &values(" "), "part", &DataType::Utf8)?.null_count(), 0);
        assert!(column_of(&rows, &values("x"), "part", &DataType::Int64).is_err());
        Ok(())
    }
}
