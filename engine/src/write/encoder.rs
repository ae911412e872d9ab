//! Encodes one data file piece by piece, so that a file of any size costs its encoded bytes and no more.
//!
//! Batches are written whole by [`parquet`](super::parquet); this is for rows that come as a stream, as compaction reads
//! them.
//!
//! The first rows wait until there are enough of them to tell which columns are worth a dictionary, or until they take too
//! much memory to wait.
//!
//! Whether a column holds a NaN, and so gets no bounds, is not known before all rows have come. A file in which one comes
//! later than with the first rows is encoded a second time at its end, and takes twice its bytes for that while. So what holds
//! of files that are written at once holds of these: a column with a NaN has no bounds anywhere, all others have theirs.

use alluvium_catalog::{Error, Result};
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::{DEFAULT_DICTIONARY_PAGE_SIZE_LIMIT, DEFAULT_PAGE_SIZE};

use super::live::conform;
use super::parquet::{ColumnFacts, ROWS_SAMPLED, columns_with_nan, columns_without_dictionary};
use super::stats::file_stats;

/// Rows read at once from a file that is encoded a second time.
const BATCH_ROWS: usize = 8192;

/// Bytes of rows in memory that do not wait for more. Rows of half a kilobyte are not looked at; they are few.
const WAITING_BYTES_MAX: u64 = 8 << 20;

/// About what a column has at most that is not compressed yet: a page and a dictionary, as large as they get.
const OPEN_BYTES_MAX: u64 = (DEFAULT_PAGE_SIZE + DEFAULT_DICTIONARY_PAGE_SIZE_LIMIT) as u64;

/// What is known of a file before its first row. An estimate makes the file smaller, and nothing depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// About how many rows will come.
    pub rows: u64,
    /// The size at which the file may end.
    pub bytes: u64,
}

/// A parquet file in the making, in memory.
#[derive(Debug)]
pub struct FileEncoder {
    schema: SchemaRef,
    expected: Expected,
    /// The first rows, until there is a writer, and their bytes in memory.
    first: Vec<RecordBatch>,
    waiting_bytes: u64,
    writer: Option<ArrowWriter<Vec<u8>>>,
    /// NULLs of each column so far.
    nulls: Vec<usize>,
    rows: u64,
    facts: ColumnFacts,
    /// Whether a column that holds a NaN is written with bounds.
    is_late: bool,
}

/// A finished file.
#[derive(Debug)]
pub struct EncodedFile {
    /// The file.
    pub bytes: Bytes,
    /// What the Delta log says of it.
    pub stats: String,
    /// How many rows it has.
    pub rows: u64,
}

impl FileEncoder {
    /// Returns a file without rows.
    pub fn new(schema: SchemaRef, expected: Expected) -> Self {
        let nulls = vec![0; schema.fields().len()];
        Self {
            schema,
            expected,
            first: Vec::new(),
            waiting_bytes: 0,
            writer: None,
            nulls,
            rows: 0,
            facts: ColumnFacts::default(),
            is_late: false,
        }
    }

    /// Adds `rows`, which have the schema of the file.
    ///
    /// # Errors
    /// `Internal` when they do not, now or once they have waited, or when a type cannot be stored.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        for (nulls, column) in self.nulls.iter_mut().zip(rows.columns()) {
            *nulls += column.null_count();
        }
        self.rows += rows.num_rows() as u64;
        let with_nan = columns_with_nan(rows);
        self.is_late |= self.writer.is_some() && !with_nan.is_subset(&self.facts.with_nan);
        self.facts.with_nan.extend(with_nan);
        if let Some(writer) = &mut self.writer {
            return writer.write(rows).map_err(failed);
        }
        self.first.push(rows.clone());
        self.waiting_bytes += slice_bytes(rows);
        if self.waiting_bytes >= self.expected.bytes.min(WAITING_BYTES_MAX) {
            self.begin()?;
        } else if self.rows >= ROWS_SAMPLED {
            let first = concat_batches(&self.schema, &self.first).map_err(|cause| failed(cause.into()))?;
            self.facts.unlike = columns_without_dictionary(&first, self.expected.rows.max(self.rows))?;
            self.begin()?;
        }
        Ok(())
    }

    /// Writes the first rows.
    fn begin(&mut self) -> Result<()> {
        let mut writer = new_writer(&self.schema, &self.facts)?;
        for rows in std::mem::take(&mut self.first) {
            writer.write(&rows).map_err(failed)?;
        }
        self.writer = Some(writer);
        Ok(())
    }

    /// Returns how many rows the file has so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns about how many bytes the file would have at most if it ended here: open pages and dictionaries count as they
    /// are, and are compressed at their end only. 0 while the first rows wait, which are less than a file that may end.
    pub fn bytes_max(&self) -> u64 {
        self.writer.as_ref().map_or(0, |writer| (writer.bytes_written() + writer.in_progress_size()) as u64)
    }

    /// Returns about how many bytes it would have at least: as [`bytes_max`](Self::bytes_max), without what may be open.
    pub fn bytes_min(&self) -> u64 {
        let n_columns = self.schema.flattened_fields().len() as u64;
        self.bytes_max().saturating_sub(n_columns.saturating_mul(OPEN_BYTES_MAX))
    }

    /// Ends the file.
    ///
    /// # Errors
    /// `Internal` when the footer cannot be written.
    pub fn finish(mut self) -> Result<EncodedFile> {
        if self.writer.is_none() {
            self.begin()?;
        }
        let ended = self.writer.take().ok_or_else(|| Error::internal("a parquet file has no writer"))?;
        let (mut bytes, mut footer) = end(ended)?;
        if self.is_late {
            (bytes, footer) = encode_again(bytes, &self.schema, &self.facts)?;
        }
        let stats = file_stats(&self.schema, self.rows, &self.nulls, &footer)?;
        Ok(EncodedFile { bytes, stats, rows: self.rows })
    }
}

/// Returns about how many bytes `rows` take in memory, which may be a slice of more. Of views only the heads are counted.
fn slice_bytes(rows: &RecordBatch) -> u64 {
    let bytes = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(0) as u64;
    rows.columns().iter().map(bytes).sum()
}

fn failed(cause: ParquetError) -> Error {
    Error::internal("cannot encode rows as parquet").with_source(cause)
}

fn new_writer(schema: &SchemaRef, facts: &ColumnFacts) -> Result<ArrowWriter<Vec<u8>>> {
    let properties = facts.properties().map_err(failed)?;
    ArrowWriter::try_new(Vec::new(), SchemaRef::clone(schema), Some(properties)).map_err(failed)
}

fn end(mut writer: ArrowWriter<Vec<u8>>) -> Result<(Bytes, ParquetMetaData)> {
    let footer = writer.finish().map_err(|cause| Error::internal("cannot end a parquet file").with_source(cause))?;
    let bytes = std::mem::take(writer.inner_mut());
    Ok((bytes.into(), footer))
}

/// Encodes the rows of the file `bytes` anew, in their order, as `facts` say.
fn encode_again(bytes: Bytes, schema: &SchemaRef, facts: &ColumnFacts) -> Result<(Bytes, ParquetMetaData)> {
    let mut writer = new_writer(schema, facts)?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(failed)?;
    for rows in reader.with_batch_size(BATCH_ROWS).build().map_err(failed)? {
        let rows = rows.and_then(|rows| conform(&rows, schema)).map_err(|cause| failed(cause.into()))?;
        writer.write(&rows).map_err(failed)?;
    }
    end(writer)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array};

    use super::*;

    /// Rows of `id`, each once, `kind`, one of nine, and `level`, which is `level` in all of them.
    fn rows(ids: std::ops::Range<i64>, level: f64) -> Result<RecordBatch> {
        let n_rows = ids.clone().count();
        let kinds: ArrayRef = Arc::new(ids.clone().map(|id| Some(id % 9)).collect::<Int64Array>());
        let columns: [(&str, ArrayRef, bool); 3] = [
            ("id", Arc::new(Int64Array::from_iter_values(ids)), false),
            ("kind", kinds, true),
            ("level", Arc::new(Float64Array::from(vec![level; n_rows])), true),
        ];
        RecordBatch::try_from_iter_with_nullable(columns).map_err(|cause| failed(cause.into()))
    }

    fn read(bytes: Bytes) -> Result<(Vec<bool>, RecordBatch)> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(failed)?;
        let group = builder.metadata().row_group(0);
        let has_dictionary = group.columns().iter().map(|column| column.dictionary_page_offset().is_some()).collect();
        let schema = Arc::clone(builder.schema());
        let batches = builder.build().map_err(failed)?.collect::<std::result::Result<Vec<_>, _>>();
        let batches = batches.map_err(|cause| failed(cause.into()))?;
        Ok((has_dictionary, concat_batches(&schema, &batches).map_err(|cause| failed(cause.into()))?))
    }

    #[test]
    fn columns_of_a_stream_whose_values_hardly_repeat_get_no_dictionary() -> Result<()> {
        // The second time a NaN comes late, and the file is encoded anew.
        for last in [1.0, f64::NAN] {
            let whole = rows(0..50_000, 1.0)?;
            let mut encoder = FileEncoder::new(whole.schema(), Expected { rows: 51_000, bytes: u64::MAX });
            for start in (0..50_000).step_by(5_000) {
                encoder.write(&whole.slice(start, 5_000))?;
                assert_eq!(encoder.rows(), start as u64 + 5_000);
            }
            assert!(encoder.bytes_max() > 0, "no row was written");
            encoder.write(&rows(50_000..51_000, last)?)?;
            let file = encoder.finish()?;
            let (has_dictionary, stored) = read(file.bytes)?;
            assert_eq!(has_dictionary, [false, true, true]);
            assert_eq!((file.rows, stored.num_rows()), (51_000, 51_000));
            assert_eq!(stored.slice(0, 50_000).columns(), whole.columns());
            assert_eq!(file.stats.contains(r#""level":1.0"#), !last.is_nan(), "{}", file.stats);
        }
        Ok(())
    }

    #[test]
    fn rows_do_not_wait_once_they_are_as_large_as_their_file_may_be() -> Result<()> {
        let first = rows(0..1_000, 1.0)?;
        let mut encoder = FileEncoder::new(first.schema(), Expected { rows: 50_000, bytes: 20_000 });
        encoder.write(&first.slice(0, 500))?;
        assert_eq!(encoder.bytes_max(), 0, "12 kB of rows were written");
        encoder.write(&first.slice(500, 500))?;
        assert!(encoder.bytes_max() > 0, "24 kB of rows wait");
        let (_, stored) = read(encoder.finish()?.bytes)?;
        assert_eq!(stored.columns(), first.columns());
        Ok(())
    }

    #[test]
    fn the_size_of_a_file_lies_between_what_is_told_while_rows_come() -> Result<()> {
        // Multiples of a large odd number look like chance, so that more is written than may be open.
        let chance = |ids: std::ops::Range<i64>| -> Result<RecordBatch> {
            let numbers = ids.map(|id| id.wrapping_mul(0x1E37_79B9_7F4A_7C15));
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
            RecordBatch::try_from_iter([("number", numbers)]).map_err(|cause| failed(cause.into()))
        };
        let mut encoder = FileEncoder::new(chance(0..0)?.schema(), Expected { rows: 500_000, bytes: u64::MAX });
        for start in (0..500_000).step_by(50_000) {
            encoder.write(&chance(start..start + 50_000)?)?;
        }
        let (least, most) = (encoder.bytes_min(), encoder.bytes_max());
        let size = encoder.finish()?.bytes.len() as u64;
        // The footer, which nothing tells of, takes some KiB.
        assert!(least > 0 && (least..most + (64 << 10)).contains(&size), "{size} bytes, told as {least} to {most}");
        Ok(())
    }

    #[test]
    fn a_stream_of_few_rows_or_none_makes_a_file() -> Result<()> {
        for n_rows in [0, 1, 100] {
            let whole = rows(0..n_rows, 1.0)?;
            let mut encoder = FileEncoder::new(whole.schema(), Expected { rows: 0, bytes: u64::MAX });
            encoder.write(&whole)?;
            let file = encoder.finish()?;
            assert_eq!(file.rows, n_rows as u64);
            let builder = ParquetRecordBatchReaderBuilder::try_new(file.bytes).map_err(failed)?;
            assert_eq!(builder.metadata().file_metadata().num_rows(), n_rows);
        }
        Ok(())
    }
}
