//! Holds the index to the memory that it may take.

use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::Result;

use super::UpsertWriter;

impl UpsertWriter {
    /// Checks that the index may take what it takes, by itself and beside those of other flows. What it takes only because
    /// a snapshot shares its tables halts no flow: the batch waits for the snapshot instead.
    ///
    /// # Errors
    /// `Invalid`, naming the setting, when it may not.
    pub(super) async fn check_memory(&mut self) -> Result<()> {
        /// A snapshot of the largest index is on a local disk by then. One that a slow store holds up longer is given up.
        const SNAPSHOT_LIMIT: Duration = Duration::from_secs(60);
        let fits = self.fits();
        if fits.is_ok() || !self.index.has_layers() {
            return fits;
        }
        self.snapshots.wait(SNAPSHOT_LIMIT).await;
        self.merge_layers();
        self.fits()
    }

    /// Merges what has gathered over tables of the index that nobody else has any more.
    pub(super) fn merge_layers(&mut self) {
        if self.index.has_layers() {
            self.lender.take_back();
            Arc::make_mut(&mut self.index).merge_layers();
            self.lend();
        }
    }

    /// Takes in what the index takes now, where there is room for it.
    pub(super) fn take_share(&mut self) -> Result<()> {
        let bytes = self.index.footprint().bytes;
        self.share.resize(bytes, || format!("{bytes} bytes"))
    }

    fn fits(&mut self) -> Result<()> {
        self.index.check_memory(self.settings.memory_bytes_max)?;
        let fits = self.take_share();
        if fits.is_err() {
            // Its flow halts. Until the index is gone, nobody else is refused for it.
            self.share.give_back();
        }
        fits
    }
}
