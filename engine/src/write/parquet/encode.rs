//! Rows to the bytes of one parquet file, on all cores that there are.
//!
//! A batch becomes one file whatever the number of cores, so that cores do not multiply small files. The columns of a
//! row group are independent until they are put together, so each is encoded by whichever thread is free, the largest
//! first. Before it: the rows of one part. After it: the upload.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use alluvium_catalog::{Error, Result};
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::FieldRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, compute_leaves};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::commit::create::ENGINE_INFO;

/// Rows handed to a column's encoder at once: slices of this size encode faster than one large batch (measured: 62-80 ms
/// against 100-120 ms for 100,000 rows).
const SLICE_ROWS: usize = 8192;

/// Fewer rows are encoded on one thread: starting others would cost more than they save.
const PARALLEL_ROWS_MIN: usize = 2 * SLICE_ROWS;

/// Rows of one row group; readers skip and parallelise by row group.
const GROUP_ROWS_MAX: usize = 1 << 20;

/// One column of a row group, until a thread takes it.
struct ColumnTask {
    field: FieldRef,
    column: ArrayRef,
    /// One a leaf: several for nested types.
    writers: Vec<ArrowColumnWriter>,
}

/// Encodes `rows` as one parquet file, zstd level 1, and returns its bytes and footer.
///
/// # Errors
/// `Internal` when a type cannot be stored.
pub fn encode(rows: &RecordBatch) -> Result<(Bytes, ParquetMetaData)> {
    let n_threads = if rows.num_rows() < PARALLEL_ROWS_MIN {
        1
    } else {
        thread::available_parallelism().map_or(1, usize::from).min(rows.num_columns())
    };
    encode_on(rows, n_threads).map_err(failed)
}

/// Returns how every data file is encoded.
///
/// # Errors
/// `Internal` when the codec does not know the level.
pub(in crate::write) fn writer_properties() -> Result<WriterProperties> {
    properties().map_err(failed)
}

fn failed(cause: ParquetError) -> Error {
    Error::internal("cannot encode rows as parquet").with_source(cause)
}

fn properties() -> Result<WriterProperties, ParquetError> {
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_created_by(ENGINE_INFO.to_owned())
        .build())
}

fn encode_on(rows: &RecordBatch, n_threads: usize) -> Result<(Bytes, ParquetMetaData), ParquetError> {
    let mut bytes = Vec::new();
    let writer = ArrowWriter::try_new(&mut bytes, rows.schema(), Some(properties()?))?;
    let (mut file, groups) = writer.into_serialized_writer()?;
    for (index, start) in (0..rows.num_rows()).step_by(GROUP_ROWS_MAX).enumerate() {
        let group = rows.slice(start, GROUP_ROWS_MAX.min(rows.num_rows() - start));
        let tasks = column_tasks(&group, groups.create_column_writers(index)?)?;
        let mut row_group = file.next_row_group()?;
        for chunk in encode_columns(tasks, n_threads)? {
            chunk.append_to_row_group(&mut row_group)?;
        }
        row_group.close()?;
    }
    let footer = file.close()?;
    Ok((bytes.into(), footer))
}

/// Deals the writers of the leaves out to their columns.
fn column_tasks(group: &RecordBatch, writers: Vec<ArrowColumnWriter>) -> Result<Vec<ColumnTask>, ParquetError> {
    let mut writers = writers.into_iter();
    group
        .schema_ref()
        .fields()
        .iter()
        .zip(group.columns())
        .map(|(field, column)| {
            let n_leaves = compute_leaves(field, &column.slice(0, 0))?.len();
            let writers = writers.by_ref().take(n_leaves).collect();
            Ok(ColumnTask { field: FieldRef::clone(field), column: ArrayRef::clone(column), writers })
        })
        .collect()
}

/// Returns the chunks of all leaves, in the order of the tasks.
fn encode_columns(tasks: Vec<ColumnTask>, n_threads: usize) -> Result<Vec<ArrowColumnChunk>, ParquetError> {
    let mut order: Vec<usize> = (0..tasks.len()).collect();
    order.sort_by_key(|place| tasks.get(*place).map(|task| std::cmp::Reverse(task.column.get_array_memory_size())));
    let tasks: Vec<Mutex<Option<ColumnTask>>> = tasks.into_iter().map(|task| Mutex::new(Some(task))).collect();
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Vec<ArrowColumnChunk>)>, ParquetError> {
        let mut encoded = Vec::new();
        while let Some(&place) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let task = tasks.get(place).and_then(|task| task.lock().unwrap_or_else(PoisonError::into_inner).take());
            if let Some(task) = task {
                encoded.push((place, encode_column(task)?));
            }
        }
        Ok(encoded)
    };
    let mut encoded = thread::scope(|scope| {
        let others: Vec<_> = (1..n_threads).map(|_| scope.spawn(work)).collect();
        let mut encoded = work()?;
        for other in others {
            let joined =
                other.join().map_err(|_| ParquetError::General("a thread of the encoder panicked".to_owned()))?;
            encoded.extend(joined?);
        }
        Ok::<_, ParquetError>(encoded)
    })?;
    encoded.sort_by_key(|(place, _)| *place);
    Ok(encoded.into_iter().flat_map(|(_, chunks)| chunks).collect())
}

fn encode_column(task: ColumnTask) -> Result<Vec<ArrowColumnChunk>, ParquetError> {
    let ColumnTask { field, column, mut writers } = task;
    for start in (0..column.len()).step_by(SLICE_ROWS) {
        let slice = column.slice(start, SLICE_ROWS.min(column.len() - start));
        for (writer, leaf) in writers.iter_mut().zip(compute_leaves(&field, &slice)?) {
            writer.write(&leaf)?;
        }
    }
    writers.into_iter().map(ArrowColumnWriter::close).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray, StructArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    fn failed(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::internal("test").with_source(cause)
    }

    fn rows(n_rows: i64) -> Result<RecordBatch> {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n_rows));
        let names: ArrayRef =
            Arc::new((0..n_rows).map(|id| (id % 3 > 0).then(|| format!("n{id}"))).collect::<StringArray>());
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(
            (0..n_rows).map(|id| (id % 5 > 0).then(|| (0..id % 4).map(Some).collect::<Vec<_>>())),
        ));
        let pair = StructArray::try_from(vec![("a", Arc::clone(&ids)), ("b", Arc::clone(&names))]).map_err(failed)?;
        let fields = vec![
            Field::new("id", DataType::Int64, false),
            Field::new("pair", pair.data_type().clone(), false),
            Field::new("name", DataType::Utf8, true),
            Field::new("list", lists.data_type().clone(), true),
        ];
        RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![ids, Arc::new(pair), names, lists]).map_err(failed)
    }

    fn decode(bytes: Bytes) -> Result<RecordBatch> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(failed)?;
        let schema = Arc::clone(builder.schema());
        let batches: Vec<_> =
            builder.build().map_err(failed)?.collect::<std::result::Result<_, _>>().map_err(failed)?;
        arrow::compute::concat_batches(&schema, &batches).map_err(failed)
    }

    #[test]
    fn rows_come_back_however_many_threads_encode_them() -> Result<()> {
        for n_rows in [0, 1, 100, 20_000] {
            let rows = rows(n_rows)?;
            let (alone, _) = encode_on(&rows, 1).map_err(failed)?;
            for n_threads in [2, 3, 9] {
                let (bytes, footer) = encode_on(&rows, n_threads).map_err(failed)?;
                assert_eq!(footer.file_metadata().num_rows(), n_rows);
                assert_eq!(bytes, alone, "{n_rows} rows, {n_threads} threads");
            }
            assert_eq!(decode(alone)?.columns(), rows.columns());
        }
        Ok(())
    }
}
