//! Writes the rows of a batch while its keys are looked up.
//!
//! Which rows are late is known only after the look-up. As a rule none is, and what was written meanwhile is what the batch
//! stores. Where one is, the rows that stand are written once more, since a file is not to have rows that no query ever
//! returns, and the first files are removed: no commit was ever tried with them. A topic that is read again from its beginning
//! has nothing but late rows, and one whose records of a key lie in several partitions has some wherever one of these is
//! read ahead of the others: so [`Foresight`] has batches looked up first that come after one with late rows. So is every
//! batch of a table with a cap, where a batch above it must not write a byte.

use alluvium_catalog::{Error, Result};
use arrow::buffer::BooleanBuffer;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::UpsertWriter;
use crate::hop::Changes;
use crate::write::discard::discard;
use crate::write::parquet::{DataFile, DataFolder};

/// Files on their way that hold all rows of a batch.
#[derive(Debug)]
pub(super) struct WrittenAhead(AbortOnDropHandle<Result<Vec<DataFile>>>);

/// The files of a batch.
#[derive(Debug)]
pub(super) struct Written {
    /// Those of the rows that stand.
    pub(super) files: Vec<DataFile>,
    /// The bytes of those that were written in vain, whether the store has removed them or not.
    pub(super) discarded_bytes: u64,
}

/// Whether batches are written ahead, by what came of those before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Foresight {
    /// Batches that are to be looked up first.
    n_first: u32,
    /// As many come after the next one that is written in vain.
    n_next: u32,
}

impl Foresight {
    /// Where late rows come and go, one batch in so many is written in vain.
    const FIRST_MAX: u32 = 64;

    pub(super) const fn new() -> Self {
        Self { n_first: 0, n_next: 1 }
    }

    fn is_ahead(self) -> bool {
        self.n_first == 0
    }

    /// Takes in whether a batch had late rows.
    pub(super) fn learn(&mut self, has_late: bool) {
        match (self.is_ahead(), has_late) {
            (true, true) => {
                self.n_first = self.n_next;
                self.n_next = (2 * self.n_next).min(Self::FIRST_MAX);
            }
            (true, false) => self.n_next = (self.n_next / 2).max(1),
            (false, true) => {}
            (false, false) => self.n_first -= 1,
        }
    }
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
        if !self.foresight.is_ahead() || self.settings.options.cap.is_some() {
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
        let DataFolder { store, location, .. } = &self.folder;
        let paths = discarded.iter().map(|file| file.add.path.as_str());
        let (files, ()) = tokio::join!(self.folder.write(&kept), discard(store.as_ref(), location, paths));
        Ok(Written { files: files?, discarded_bytes: discarded.iter().map(DataFile::bytes).sum() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns how many of `n_batches` are written ahead, and how many of these in vain.
    fn written(n_batches: u32, has_late: impl Fn(u32) -> bool) -> (usize, usize) {
        let mut foresight = Foresight::new();
        let mut ahead = Vec::new();
        for batch in 0..n_batches {
            if foresight.is_ahead() {
                ahead.push(has_late(batch));
            }
            foresight.learn(has_late(batch));
        }
        (ahead.len(), ahead.into_iter().filter(|in_vain| *in_vain).count())
    }

    #[test]
    fn few_batches_are_written_in_vain_however_late_rows_come() {
        assert_eq!(written(1_000, |_| false), (1_000, 0));
        assert_eq!(written(1_000, |_| true), (1, 1), "as long as they have late rows, they are looked up first");
        let (_, in_vain) = written(1_000, |batch| batch.is_multiple_of(2));
        assert!((2..20).contains(&in_vain), "{in_vain}");
        assert_eq!(written(1_000, |batch| batch.is_multiple_of(100)), (990, 10), "a rare one costs the next one alone");
        assert_eq!(written(1_000, |batch| batch < 500), (500, 1));
    }
}
