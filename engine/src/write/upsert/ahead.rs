//! Writes the rows of a batch while its keys are looked up.
//!
//! Which rows are late is known only after the look-up. As a rule none is, and what was written meanwhile is what the batch
//! stores. Where one is, the rows that stand are written once more, since a file is not to have rows that no query ever
//! returns, and the first files are orphans for vacuum. A topic that is read again from its beginning has nothing but late
//! rows, so after a batch with late rows the next one is looked up first; and so is every batch of a table with a cap, where
//! a batch above it must not write a byte.

use alluvium_catalog::{Error, Result};
use arrow::buffer::BooleanBuffer;
use tokio_util::task::AbortOnDropHandle;

use super::UpsertWriter;
use crate::hop::Changes;
use crate::write::parquet::DataFile;

/// Files on their way that hold all rows of a batch.
#[derive(Debug)]
pub(super) struct WrittenAhead(AbortOnDropHandle<Result<Vec<DataFile>>>);

impl UpsertWriter {
    /// Begins to write `rows` of a batch, which are those that it stores if none is late; nothing where the look-up comes
    /// first.
    pub(super) fn write_ahead(&self, changes: &Changes, rows: &BooleanBuffer) -> Result<Option<WrittenAhead>> {
        if self.met_late || self.settings.options.cap.is_some() {
            return Ok(None);
        }
        let (folder, rows) = (self.folder.clone(), self.stored_rows(changes, rows)?);
        let write = tokio::spawn(async move { folder.write(&rows).await });
        Ok(Some(WrittenAhead(AbortOnDropHandle::new(write))))
    }

    /// Returns the files of the rows that stand, `is_kept` of `rows`: those that were written ahead if they are all of them.
    ///
    /// # Errors
    /// As of [`DataFolder::write`](crate::write::parquet::DataFolder::write).
    pub(super) async fn write_kept(
        &self,
        changes: &Changes,
        (is_kept, rows): (&BooleanBuffer, &BooleanBuffer),
        ahead: Option<WrittenAhead>,
    ) -> Result<Vec<DataFile>> {
        if let Some(WrittenAhead(files)) = ahead.filter(|_| is_kept == rows) {
            return files.await.map_err(|cause| Error::internal("the writer of a batch stopped").with_source(cause))?;
        }
        self.folder.write(&self.stored_rows(changes, is_kept)?).await
    }
}
