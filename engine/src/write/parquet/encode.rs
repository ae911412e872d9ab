//! Rows to the bytes of one parquet file, on all cores that there are.
//!
//! A batch becomes one file whatever the number of cores, so that cores do not multiply small files. The columns of a
//! row group are independent until they are put together, so each is encoded by whichever thread is free, the largest
//! first. Before it: the rows of one part. After it: the upload.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use alluvium_catalog::{Error, Result};
use alluvium_sql::HIDDEN_OFFSET;
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::FieldRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::dictionary::columns_without_dictionary;
use super::nan::columns_with_nan;
use crate::commit::create::ENGINE_INFO;

/// Rows handed to a column's encoder at once: slices of this size encode faster than one large batch (measured: 62-80 ms
/// against 100-120 ms for 100,000 rows).
const SLICE_ROWS: usize = 8192;

/// Fewer rows are encoded on one thread: starting others would cost more than they save.
const PARALLEL_ROWS_MIN: usize = 2 * SLICE_ROWS;

/// Rows of one row group; readers skip and parallelise by row group.
pub(super) const GROUP_ROWS_MAX: usize = 1 << 20;

/// One column of a row group, until a thread takes it.
struct ColumnTask {
    field: FieldRef,
    column: ArrayRef,
    /// One a leaf: several for nested types.
    writers: Vec<ArrowColumnWriter>,
}

/// Encodes `rows` as one parquet file, zstd level 1, and returns its bytes and footer. Columns that hold a NaN have no
/// statistics in it, and those whose values hardly repeat no dictionary; offsets are stored as differences.
///
/// # Errors
/// `Internal` when a type cannot be stored.
pub fn encode(rows: &RecordBatch) -> Result<(Bytes, ParquetMetaData)> {
    let n_cores = || thread::available_parallelism().map_or(1, usize::from);
    let n_threads = n_threads(rows.num_rows(), rows.num_columns(), n_cores);
    let facts = ColumnFacts {
        with_nan: columns_with_nan(rows),
        unlike: columns_without_dictionary(rows, rows.num_rows() as u64)?,
    };
    encode_on(rows, n_threads, &facts)
        .map_err(|cause| Error::internal("cannot encode rows as parquet").with_source(cause))
}

/// Returns how many threads encode so much: one for few rows, else as many as there are cores, and columns for them.
fn n_threads(n_rows: usize, n_columns: usize, n_cores: impl FnOnce() -> usize) -> usize {
    if n_rows < PARALLEL_ROWS_MIN {
        // The system is not even asked for its cores, which takes it a while.
        return 1;
    }
    n_cores().min(n_columns)
}

/// What is known of the columns of a file when its rows are encoded.
#[derive(Debug, Default)]
pub(in crate::write) struct ColumnFacts {
    /// Those that hold a NaN: they get no statistics.
    pub(in crate::write) with_nan: HashSet<ColumnPath>,
    /// Those whose values hardly repeat, and offsets: they get no dictionary.
    pub(in crate::write) unlike: HashSet<ColumnPath>,
}

impl ColumnFacts {
    /// Returns how a data file with such columns is encoded. Any column that begins with a dictionary goes on without once
    /// that has grown too large.
    ///
    /// # Errors
    /// When the codec does not know the level.
    pub(in crate::write) fn properties(&self) -> Result<WriterProperties, ParquetError> {
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_created_by(ENGINE_INFO.to_owned());
        for column in &self.with_nan {
            properties = properties.set_column_statistics_enabled(column.clone(), EnabledStatistics::None);
        }
        for column in &self.unlike {
            properties = properties.set_column_dictionary_enabled(column.clone(), false);
            if is_offsets(column) {
                properties = properties.set_column_encoding(column.clone(), Encoding::DELTA_BINARY_PACKED);
            }
        }
        Ok(properties.build())
    }
}

/// Tells whether a column holds offsets. They rise by little within each partition, and as differences take a bit or two each.
pub(super) fn is_offsets(column: &ColumnPath) -> bool {
    column.parts() == [HIDDEN_OFFSET]
}

/// Encodes on so many threads.
fn encode_on(
    rows: &RecordBatch,
    n_threads: usize,
    facts: &ColumnFacts,
) -> Result<(Bytes, ParquetMetaData), ParquetError> {
    let mut bytes = Vec::new();
    let writer = ArrowWriter::try_new(&mut bytes, rows.schema(), Some(facts.properties()?))?;
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

    use arrow::array::{ArrayRef, Float32Array, Float64Array, Int64Array, ListArray, StringArray, StructArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, ParquetMetaDataReader};
    use parquet::file::page_index::column_index::ColumnIndexMetaData;

    use super::*;
    use crate::write::encoder::{Expected, FileEncoder};
    use crate::write::stats::stats_json;

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
    fn few_rows_have_one_thread_and_many_have_all_cores_but_no_more_than_columns() {
        let check = |n_rows: usize, n_columns: usize, n_cores: usize, expected: usize| {
            let told = format!("{n_rows} rows, {n_columns} columns, {n_cores} cores");
            assert_eq!(n_threads(n_rows, n_columns, || n_cores), expected, "{told}");
        };
        check(0, 8, 4, 1);
        check(PARALLEL_ROWS_MIN - 1, 8, 4, 1);
        check(PARALLEL_ROWS_MIN, 8, 4, 4);
        check(PARALLEL_ROWS_MIN, 3, 4, 3);
        check(100 * PARALLEL_ROWS_MIN, 8, 4, 4);
        check(100 * PARALLEL_ROWS_MIN, 8, 1, 1);
    }

    #[test]
    fn rows_come_back_however_many_threads_encode_them() -> Result<()> {
        for n_rows in [0, 1, 100, 20_000] {
            let rows = rows(n_rows)?;
            let (alone, _) = encode_on(&rows, 1, &ColumnFacts::default()).map_err(failed)?;
            for n_threads in [2, 3, 9] {
                let (bytes, footer) = encode_on(&rows, n_threads, &ColumnFacts::default()).map_err(failed)?;
                assert_eq!(footer.file_metadata().num_rows(), n_rows);
                assert_eq!(bytes, alone, "{n_rows} rows, {n_threads} threads");
            }
            assert_eq!(decode(alone)?.columns(), rows.columns());
        }
        Ok(())
    }

    #[test]
    fn a_column_without_a_dictionary_comes_back_as_it_was() -> Result<()> {
        let n_rows = 20_000_i64;
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n_rows));
        let names: ArrayRef =
            Arc::new((0..n_rows).map(|id| (id % 7 > 0).then(|| format!("n{id}"))).collect::<StringArray>());
        let kinds: ArrayRef = Arc::new((0..n_rows).map(|id| Some(id % 9)).collect::<Int64Array>());
        let rows = RecordBatch::try_from_iter_with_nullable([
            ("id", ids, false),
            ("name", names, true),
            ("kind", kinds, true),
        ])
        .map_err(failed)?;
        let (bytes, footer) = encode(&rows)?;
        let has_dictionary = |place: usize| footer.row_group(0).column(place).dictionary_page_offset().is_some();
        assert_eq!([0, 1, 2].map(has_dictionary), [false, false, true]);
        assert_eq!(decode(bytes)?.columns(), rows.columns());
        Ok(())
    }

    #[test]
    fn offsets_of_many_rows_are_stored_as_differences_and_come_back() -> Result<()> {
        let check = |n_rows: i64, is_packed: bool| {
            // Of four partitions in turn, a hundred records each, of which every other one is left.
            let offset = |row: i64| 2 * (row / 400 * 100 + row % 100);
            let offsets: ArrayRef = Arc::new((0..n_rows).map(offset).collect::<Int64Array>());
            let rows = RecordBatch::try_from_iter([(HIDDEN_OFFSET, Arc::clone(&offsets)), ("offset", offsets)]);
            let (bytes, footer) = encode(&rows.map_err(failed)?)?;
            let [hidden, other] = [0, 1].map(|place| footer.row_group(0).column(place));
            let is_delta =
                |column: &ColumnChunkMetaData| column.encodings().any(|e| e == Encoding::DELTA_BINARY_PACKED);
            assert_eq!([hidden, other].map(is_delta), [is_packed, false], "{n_rows} rows");
            assert!(!is_packed || hidden.dictionary_page_offset().is_none());
            if is_packed {
                assert!(hidden.compressed_size() < n_rows, "{} bytes of {n_rows} rows", hidden.compressed_size());
            }
            let read = decode(bytes)?;
            assert_eq!(read.column(0), read.column(1), "{n_rows} rows");
            Ok::<_, Error>(())
        };
        check(100, false)?;
        check(100_000, true)
    }

    /// Rows of `high DOUBLE, pair STRUCT<low FLOAT, high FLOAT>, behind DOUBLE`: the first two columns hold `high`, `behind`
    /// has NaN where it is NULL and nowhere else.
    fn floats(high: f64) -> Result<RecordBatch> {
        let wide: ArrayRef = Arc::new(Float64Array::from(vec![1.0, high]));
        let low: ArrayRef = Arc::new(Float32Array::from(vec![1.0, 2.0]));
        let narrow: ArrayRef = Arc::new(Float32Array::from(vec![1.0, high as f32]));
        let pair = StructArray::try_from(vec![("low", low), ("high", narrow)]).map_err(failed)?;
        let behind = Float64Array::new(vec![5.0, f64::NAN].into(), Some(vec![true, false].into()));
        let columns: [(&str, ArrayRef, bool); 3] =
            [("high", wide, true), ("pair", Arc::new(pair), true), ("behind", Arc::new(behind), true)];
        RecordBatch::try_from_iter_with_nullable(columns).map_err(failed)
    }

    /// Returns the columns that have bounds in the footer of a file, and those that have some in its page index.
    fn bounded(bytes: &Bytes) -> Result<(Vec<String>, Vec<String>)> {
        let mut reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
        reader.try_parse(bytes).map_err(failed)?;
        let file = reader.finish().map_err(failed)?;
        let (mut in_footer, mut in_pages) = (Vec::new(), Vec::new());
        for (place, column) in file.row_group(0).columns().iter().enumerate() {
            if column.statistics().is_some_and(|known| known.max_bytes_opt().is_some()) {
                in_footer.push(column.column_path().string());
            }
            let index = file.column_index().and_then(|groups| groups.first()?.get(place));
            if index.is_some_and(|index| !matches!(index, ColumnIndexMetaData::NONE)) {
                in_pages.push(column.column_path().string());
            }
        }
        Ok((in_footer, in_pages))
    }

    #[test]
    fn a_column_with_a_nan_has_no_bounds_and_all_others_have() -> Result<()> {
        let without =
            (vec!["pair.low".to_owned(), "behind".to_owned()], r#"{"behind":5.0}"#, r#"{"high":0,"behind":1}"#);
        let columns = ["high", "pair.low", "pair.high", "behind"].map(str::to_owned).to_vec();
        let with = (columns, r#"{"high":20.0,"behind":5.0}"#, r#"{"high":0,"behind":1}"#);
        for (high, (columns, greatest, nulls)) in [(f64::NAN, without), (20.0, with)] {
            let rows = floats(high)?;
            let (bytes, footer) = encode(&rows)?;
            assert_eq!(bounded(&bytes)?, (columns.clone(), columns), "{high}");
            let stats = stats_json(&rows, &footer)?;
            assert!(stats.contains(&format!(r#""maxValues":{greatest},"nullCount":{nulls}"#)), "{high}: {stats}");
        }
        Ok(())
    }

    #[test]
    fn a_stream_with_a_nan_anywhere_makes_the_file_that_its_rows_make_at_once() -> Result<()> {
        for highs in [[20.0, 30.0, 40.0], [f64::NAN, 20.0, 30.0], [20.0, 30.0, f64::NAN]] {
            let batches = highs.into_iter().map(floats).collect::<Result<Vec<_>>>()?;
            let rows = arrow::compute::concat_batches(batches[0].schema_ref(), &batches).map_err(failed)?;
            let (whole, footer) = encode(&rows)?;
            // Whether all rows wait for each other or none does.
            for bytes in [1, u64::MAX] {
                let mut encoder = FileEncoder::new(rows.schema(), Expected { rows: 6, bytes });
                for batch in &batches {
                    encoder.write(batch)?;
                }
                let file = encoder.finish()?;
                assert_eq!(bounded(&file.bytes)?, bounded(&whole)?, "{highs:?}");
                assert_eq!(file.stats, stats_json(&rows, &footer)?, "{highs:?}");
                let (stored, given) = (decode(file.bytes)?, &rows);
                assert_eq!(format!("{:?}", stored.columns()), format!("{:?}", given.columns()), "{highs:?}");
            }
        }
        Ok(())
    }
}
