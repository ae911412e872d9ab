//! Writes the rows of a batch while its keys are looked up.
//!
//! Which rows are late is known only after the look-up. As a rule none is, and what was written meanwhile is what the batch
//! stores. Where one is, the rows that stand are written once more, since a file is not to have rows that no query ever
//! returns, and the first files are removed: no commit was ever tried with them. A topic that is read again from its beginning
//! has nothing but late rows, so after a batch with late rows the next one is looked up first; and so is every batch of a
//! table with a cap, where a batch above it must not write a byte.

use alluvium_catalog::{Error, Result};
use arrow::buffer::BooleanBuffer;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::UpsertWriter;
use crate::hop::Changes;
use crate::write::parquet::DataFile;

/// Files on their way that hold all rows of a batch.
#[derive(Debug)]
pub(super) struct WrittenAhead(AbortOnDropHandle<Result<Vec<DataFile>>>);

/// The files of a batch.
#[derive(Debug)]
pub(super) struct Written {
    /// Those of the rows that stand.
    pub(super) files: Vec<DataFile>,
    /// The bytes of those that were written in vain.
    pub(super) discarded_bytes: u64,
}

impl WrittenAhead {
    async fn files(self) -> Result<Vec<DataFile>> {
        self.0.await.map_err(|cause| Error::internal("the writer of a batch stopped").with_source(cause))?
    }
}

impl UpsertWriter {
    /// Begins to write `rows` of a batch, which are those that it stores if none is late; nothing where the look-up comes
    /// first.
    pub(super) fn write_ahead(&self, changes: &Changes, rows: &BooleanBuffer) -> Result<Option<WrittenAhead>> {
        if self.met_late || self.settings.options.cap.is_some() {
            return Ok(None);
        }
        let (folder, rows) = (self.folder.clone(), self.stored_rows(changes, rows)?);
        let write = tokio::spawn(async move { folder.write(&rows).await }.in_current_span());
        Ok(Some(WrittenAhead(AbortOnDropHandle::new(write))))
    }

    /// Returns the files of the rows that stand, `is_kept` of `rows`: those that were written ahead if they are all of them.
    ///
    /// # Errors
    /// As of [`DataFolder::write`](crate::write::parquet::DataFolder::write), of the files written in vain, too.
    pub(super) async fn write_kept(
        &self,
        changes: &Changes,
        (is_kept, rows): (&BooleanBuffer, &BooleanBuffer),
        ahead: Option<WrittenAhead>,
    ) -> Result<Written> {
        let mut discarded = Vec::new();
        if let Some(ahead) = ahead {
            // Waited for in either case: an encoder cannot be stopped, and an upload that is cut off may arrive all the same.
            let files = ahead.files().await?;
            if is_kept == rows {
                return Ok(Written { files, discarded_bytes: 0 });
            }
            discarded = files;
        }
        let kept = self.stored_rows(changes, is_kept)?;
        let (files, ()) = tokio::join!(self.folder.write(&kept), self.folder.discard(&discarded));
        Ok(Written { files: files?, discarded_bytes: discarded.iter().map(DataFile::bytes).sum() })
    }
}
