//! The files that a compaction writes: one at a time, each uploaded when it is as large as it should be.
//!
//! How large the open file is shows at its end only, when the last of it is compressed. So what its rows take is taken from
//! the files that are done, and before the first of them from the files that the rows come from.

use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::delta::action::Add;
use crate::delta::clustering::Mark;
use crate::delta::log::DeltaLog;
use crate::write::compaction::{Compaction, Output};
use crate::write::discard;
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
    /// What the files that are done hold.
    written: Volume,
    /// What the rows take in the files that they come from.
    expected: Volume,
}

/// Rows, and the bytes that they take in files.
#[derive(Debug, Clone, Copy, Default)]
struct Volume {
    rows: u64,
    bytes: u64,
}

impl Volume {
    /// Returns how many bytes so many rows like these take; `None` where there is none to tell by.
    fn bytes_of(self, rows: u64) -> Option<u64> {
        let bytes = (u128::from(self.bytes) * u128::from(rows)).checked_div(u128::from(self.rows))?;
        Some(u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    fn take_in(&mut self, other: Self) {
        self.rows = self.rows.saturating_add(other.rows);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

impl Outputs {
    /// Returns no files.
    pub(super) fn new(shape: OutputShape) -> Self {
        Self { shape, done: Vec::new(), open: None, written: Volume::default(), expected: Volume::default() }
    }

    /// Takes in that `n_live` of the `n_rows` rows of a file are going to come.
    pub(super) fn announce(&mut self, add: &Add, n_rows: u64, n_live: u64) {
        let whole = Volume { rows: n_rows, bytes: u64::try_from(add.size).unwrap_or(0) };
        if let Some(bytes) = whole.bytes_of(n_live) {
            self.expected.take_in(Volume { rows: n_live, bytes });
        }
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

    /// Returns how many times over the open file is as large as it should be, by what its rows are likely to take and within
    /// what its encoder knows. By the encoder alone, which counts open pages before they are compressed, a file would end at a
    /// fraction of its size, and be small enough to be rewritten with its like again and again.
    pub(super) fn fullness(&self) -> u64 {
        let Some(encoder) = &self.open else { return 0 };
        let known = if self.written.rows > 0 { self.written } else { self.expected };
        let most = encoder.bytes_max();
        let likely = known.bytes_of(encoder.rows()).unwrap_or(most);
        likely.clamp(encoder.bytes_min(), most) / self.shape.target_bytes.max(1)
    }

    /// Ends the open file, if there is one: rows that follow go to another.
    ///
    /// # Errors
    /// `Unavailable` when the store does not take it.
    pub(super) async fn cut(&mut self) -> Result<()> {
        let Some(encoder) = self.open.take() else { return Ok(()) };
        let file = encoder.finish()?;
        self.written.take_in(Volume { rows: file.rows, bytes: file.bytes.len() as u64 });
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

/// Removes the files of a compaction that is not swapped in. No log names them; one that stays is vacuum's.
pub(super) async fn discard(log: &DeltaLog, compaction: &Compaction) {
    let paths = compaction.outputs.iter().map(|output| output.add.path.as_str());
    discard::discard(log.store(), log.location(), paths).await;
}
