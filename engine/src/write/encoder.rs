//! Encodes one data file piece by piece, so that a file of any size costs its encoded bytes and no more.
//!
//! Batches are written whole by [`parquet`](super::parquet); this is for rows that come as a stream, as compaction reads
//! them.

use alluvium_catalog::{Error, Result};
use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;

use super::parquet::writer_properties;
use super::stats::file_stats;

/// A parquet file in the making, in memory.
#[derive(Debug)]
pub struct FileEncoder {
    schema: SchemaRef,
    writer: ArrowWriter<Vec<u8>>,
    /// NULLs of each column so far.
    nulls: Vec<usize>,
    rows: u64,
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
        let writer = ArrowWriter::try_new(Vec::new(), SchemaRef::clone(&schema), Some(writer_properties()?))
            .map_err(|cause| Error::internal("cannot encode rows as parquet").with_source(cause))?;
        let nulls = vec![0; schema.fields().len()];
        Ok(Self { schema, writer, nulls, rows: 0 })
    }

    /// Adds `rows`, which have the schema of the file.
    ///
    /// # Errors
    /// `Internal` when they do not.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.writer.write(rows).map_err(|cause| Error::internal("cannot encode rows as parquet").with_source(cause))?;
        for (nulls, column) in self.nulls.iter_mut().zip(rows.columns()) {
            *nulls += column.null_count();
        }
        self.rows += rows.num_rows() as u64;
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
    pub fn finish(mut self) -> Result<EncodedFile> {
        let footer =
            self.writer.finish().map_err(|cause| Error::internal("cannot end a parquet file").with_source(cause))?;
        let bytes = std::mem::take(self.writer.inner_mut());
        let stats = file_stats(&self.schema, self.rows, &self.nulls, &footer)?;
        Ok(EncodedFile { bytes: bytes.into(), stats, rows: self.rows })
    }
}
