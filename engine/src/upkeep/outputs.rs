//! The files that a compaction writes: one at a time, each uploaded when it is as large as it should be.

use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::delta::action::Add;
use crate::delta::clustering::Mark;
use crate::write::compaction::Output;
use crate::write::encoder::{Expected, FileEncoder};
use crate::write::parquet::DataFolder;
use crate::write::partition::PartitionValues;

/// Where the files go, and what they are like.
#[derive(Debug)]
pub(super) struct OutputShape {
    /// Where the files go.
    pub(super) folder: DataFolder,
    /// The stored columns.
    pub(super) schema: SchemaRef,
    /// The partition of all of them.
    pub(super) partition: PartitionValues,
    /// About how many rows there are for all of them.
    pub(super) rows_expected: u64,
    /// About how large a file should be.
    pub(super) target_bytes: u64,
    /// The run that they make up, in a clustered table.
    pub(super) mark: Option<Mark>,
}

/// The files so far, and the one that is open.
#[derive(Debug)]
pub(super) struct Outputs {
    shape: OutputShape,
    done: Vec<Output>,
    open: Option<FileEncoder>,
}

impl Outputs {
    /// Returns no files.
    pub(super) fn new(shape: OutputShape) -> Self {
        Self { shape, done: Vec::new(), open: None }
    }

    /// Appends rows to the open file, or to a new one, and returns the output that has them, and the number of the first of
    /// them in it.
    pub(super) fn append(&mut self, rows: &RecordBatch) -> Result<(usize, u64)> {
        let mut encoder = match self.open.take() {
            Some(encoder) => encoder,
            None => {
                let expected = Expected { rows: self.shape.rows_expected, bytes: self.shape.target_bytes };
                FileEncoder::new(Arc::clone(&self.shape.schema), expected)
            }
        };
        let place = (self.done.len(), encoder.rows());
        encoder.write(rows)?;
        self.open = Some(encoder);
        Ok(place)
    }

    /// Returns how many times over the open file is as large as it should be.
    pub(super) fn fullness(&self) -> u64 {
        self.open.as_ref().map_or(0, |encoder| encoder.bytes() / self.shape.target_bytes.max(1))
    }

    /// Ends the open file, if there is one: rows that follow go to another.
    ///
    /// # Errors
    /// `Unavailable` when the store does not take it.
    pub(super) async fn cut(&mut self) -> Result<()> {
        let Some(encoder) = self.open.take() else { return Ok(()) };
        let file = encoder.finish()?;
        let add = self.shape.folder.upload(file.bytes, file.stats, self.shape.partition.clone()).await?;
        let add = Add { data_change: false, ..add };
        let add = match &self.shape.mark {
            Some(mark) => {
                mark.put_on(add).map_err(|cause| Error::internal("cannot write a file's tags").with_source(cause))?
            }
            None => add,
        };
        self.done.push(Output { add, rows: file.rows });
        Ok(())
    }

    /// Ends the last file and returns all.
    ///
    /// # Errors
    /// As of [`cut`](Self::cut).
    pub(super) async fn close(mut self) -> Result<Vec<Output>> {
        self.cut().await?;
        Ok(self.done)
    }
}
