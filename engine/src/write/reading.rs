//! Reads the rows of data files that are not deleted, in the columns of the table.
//!
//! What is read is one row group at most, piece by piece, in the order of the file.

use std::sync::Arc;

use alluvium_catalog::{Error, Location, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use roaring::RoaringTreemap;
use tokio_util::sync::CancellationToken;

use crate::delta::action::{Add, num_records};
use crate::object_file::{ObjectFile, read_error};
use crate::write::live::{conform, live_rows};
use crate::write::vectors::check_fit;

/// Rows read, filtered and encoded at once: slices of this size encode fastest (see `write/parquet.rs`).
const BATCH_ROWS: usize = 8192;

/// Reads files of one table.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    /// The store rooted at the table.
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The table, for messages.
    pub(crate) location: Location,
    /// The columns to read.
    pub(crate) schema: SchemaRef,
    /// Whoever cancels it ends the reading, between two pieces.
    pub(crate) stop: CancellationToken,
}

/// The live rows of one file.
pub(crate) struct LiveRows {
    reading: Reading,
    add: Add,
    deleted: RoaringTreemap,
    batches: ParquetRecordBatchStream<ObjectFile>,
    /// How many rows were read, deleted ones counted.
    n_read: u64,
    /// How many rows the file has by its own account.
    n_rows: u64,
}

impl Reading {
    /// Opens the file of `add`, of which the rows `deleted` are no longer part of the table.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer; `Data` when the file cannot be read, has another number of rows than the
    /// log tells, or does not have all of `deleted`.
    pub(crate) async fn open(&self, add: &Add, deleted: &RoaringTreemap) -> Result<LiveRows> {
        let failed = |cause: ParquetError| read_error(self.unreadable(add), cause);
        let path = Path::parse(&add.path).map_err(|cause| self.damaged(add).with_source(cause))?;
        let size = u64::try_from(add.size).map_err(|cause| self.damaged(add).with_source(cause))?;
        let reader = ObjectFile::new(Arc::clone(&self.store), path, size);
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(failed)?;
        let n_rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        if num_records(add).is_some_and(|told| told != n_rows) {
            return Err(Error::data(format!(
                "{} of the table at {} has {n_rows} rows, and its log tells another number",
                add.path, self.location
            )));
        }
        check_fit(deleted, (&add.path, n_rows), &self.location)?;
        let columns = builder.parquet_schema().root_schema().get_fields();
        let is_wanted = |place: &usize| self.schema.index_of(columns[*place].name()).is_ok();
        let mask = ProjectionMask::roots(builder.parquet_schema(), (0..columns.len()).filter(is_wanted));
        let batches = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(failed)?;
        let (add, deleted) = (add.clone(), deleted.clone());
        Ok(LiveRows { reading: self.clone(), add, deleted, batches, n_read: 0, n_rows })
    }

    /// Returns the error where the reading is to stop.
    pub(crate) fn check_stop(&self) -> Result<()> {
        if self.stop.is_cancelled() { Err(Error::closed("the reading of data files was stopped")) } else { Ok(()) }
    }

    fn damaged(&self, add: &Add) -> Error {
        Error::data(self.unreadable(add))
    }

    fn unreadable(&self, add: &Add) -> String {
        format!("cannot read {} of the table at {}", add.path, self.location)
    }
}

impl LiveRows {
    /// Returns how many rows there are in all.
    pub(crate) fn n_live(&self) -> u64 {
        self.n_rows.saturating_sub(self.deleted.len())
    }

    /// Returns the next rows, at least one; `None` after the last.
    ///
    /// # Errors
    /// `Unavailable` or `Data` when the file cannot be read on, or ends elsewhere than where its footer says; `Closed` when it
    /// is to stop.
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let failed = |cause: ParquetError| read_error(self.reading.unreadable(&self.add), cause);
        while let Some(batch) = self.batches.try_next().await.map_err(failed)? {
            self.reading.check_stop()?;
            let live = live_rows(&batch, self.n_read, &self.deleted)?;
            self.n_read += batch.num_rows() as u64;
            if live.num_rows() > 0 {
                let rows = conform(&live, &self.reading.schema);
                return rows.map(Some).map_err(|cause| self.reading.damaged(&self.add).with_source(cause));
            }
        }
        if self.n_read != self.n_rows {
            let Self { n_read, n_rows, .. } = self;
            let unreadable = self.reading.unreadable(&self.add);
            return Err(Error::data(format!("{unreadable}: it has {n_read} rows, and its footer tells of {n_rows}")));
        }
        Ok(None)
    }
}
