//! Encodes one data file piece by piece, so that a file of any size costs its encoded bytes and no more.
//!
//! Batches are written whole by [`parquet`](super::parquet); this is for rows that come as a stream, as compaction reads
//! them.
//!
//! Whether a column holds a NaN, and so gets no bounds, is not known before all rows have come. A file in which one comes
//! later than with the first rows is encoded a second time at its end, and takes twice its bytes for that while. So what holds
//! of files that are written at once holds of these: a column with a NaN has no bounds anywhere, all others have theirs.

use std::collections::HashSet;

use alluvium_catalog::{Error, Result};
use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::schema::types::ColumnPath;

use super::live::conform;
use super::parquet::{columns_with_nan, writer_properties};
use super::stats::file_stats;

/// Rows read at once from a file that is encoded a second time.
const BATCH_ROWS: usize = 8192;

/// A parquet file in the making, in memory.
#[derive(Debug)]
pub struct FileEncoder {
    schema: SchemaRef,
    writer: ArrowWriter<Vec<u8>>,
    /// NULLs of each column so far.
    nulls: Vec<usize>,
    rows: u64,
    /// The columns that hold a NaN so far.
    with_nan: HashSet<ColumnPath>,
    /// Whether one of them is written with bounds.
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
    ///
    /// # Errors
    /// `Internal` when a type cannot be stored.
    pub fn try_new(schema: SchemaRef) -> Result<Self> {
        let with_nan = HashSet::new();
        let writer = new_writer(&schema, &with_nan)?;
        let nulls = vec![0; schema.fields().len()];
        Ok(Self { schema, writer, nulls, rows: 0, with_nan, is_late: false })
    }

    /// Adds `rows`, which have the schema of the file.
    ///
    /// # Errors
    /// `Internal` when they do not.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.note_nan(rows)?;
        self.writer.write(rows).map_err(failed)?;
        for (nulls, column) in self.nulls.iter_mut().zip(rows.columns()) {
            *nulls += column.null_count();
        }
        self.rows += rows.num_rows() as u64;
        Ok(())
    }

    /// Takes the bounds off columns that hold a NaN in the first rows, and notes those in which one comes later.
    fn note_nan(&mut self, rows: &RecordBatch) -> Result<()> {
        let with_nan = columns_with_nan(rows);
        if self.rows > 0 {
            self.is_late |= !with_nan.is_subset(&self.with_nan);
        } else if !with_nan.is_empty() {
            self.writer = new_writer(&self.schema, &with_nan)?;
        }
        self.with_nan.extend(with_nan);
        Ok(())
    }

    /// Returns how many rows the file has so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns about how many bytes the file would have if it ended here.
    pub fn bytes(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.in_progress_size()) as u64
    }

    /// Ends the file.
    ///
    /// # Errors
    /// `Internal` when the footer cannot be written.
    pub fn finish(self) -> Result<EncodedFile> {
        let (mut bytes, mut footer) = end(self.writer)?;
        if self.is_late {
            (bytes, footer) = encode_again(bytes, &self.schema, &self.with_nan)?;
        }
        let stats = file_stats(&self.schema, self.rows, &self.nulls, &footer)?;
        Ok(EncodedFile { bytes, stats, rows: self.rows })
    }
}

fn failed(cause: ParquetError) -> Error {
    Error::internal("cannot encode rows as parquet").with_source(cause)
}

fn new_writer(schema: &SchemaRef, with_nan: &HashSet<ColumnPath>) -> Result<ArrowWriter<Vec<u8>>> {
    let properties = writer_properties(with_nan)?;
    ArrowWriter::try_new(Vec::new(), SchemaRef::clone(schema), Some(properties)).map_err(failed)
}

fn end(mut writer: ArrowWriter<Vec<u8>>) -> Result<(Bytes, ParquetMetaData)> {
    let footer = writer.finish().map_err(|cause| Error::internal("cannot end a parquet file").with_source(cause))?;
    let bytes = std::mem::take(writer.inner_mut());
    Ok((bytes.into(), footer))
}

/// Encodes the rows of the file `bytes` anew, in their order, without bounds of the columns `with_nan`.
fn encode_again(bytes: Bytes, schema: &SchemaRef, with_nan: &HashSet<ColumnPath>) -> Result<(Bytes, ParquetMetaData)> {
    let mut writer = new_writer(schema, with_nan)?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(failed)?;
    for rows in reader.with_batch_size(BATCH_ROWS).build().map_err(failed)? {
        let rows = rows.and_then(|rows| conform(&rows, schema)).map_err(|cause| failed(cause.into()))?;
        writer.write(&rows).map_err(failed)?;
    }
    end(writer)
}
