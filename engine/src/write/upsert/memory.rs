//! Holds the index to the memory that it may take.

use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::Result;

use super::UpsertWriter;
use crate::heap;

impl UpsertWriter {
    /// Checks that the index may take what it takes, by itself and beside those of other flows. What it takes only because
    /// a snapshot shares its tables halts no flow: the batch waits for the snapshot instead.
    ///
    /// # Errors
    /// `Invalid`, naming the setting, when it may not.
    pub(super) async fn check_memory(&mut self) -> Result<()> {
        /// A snapshot of the largest index is on a local disk by then. One that a slow store holds up longer is given up.
        const SNAPSHOT_LIMIT: Duration = Duration::from_secs(60);
        self.give_back_growth();
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

    /// Gives what the allocator keeps back to the system whenever the index has grown by as much: an index that grows fast
    /// stands beside batches at full speed, and what these leave free is not to be held beside it.
    fn give_back_growth(&mut self) {
        /// Rare enough to cost nothing that shows.
        const GROWTH_BYTES: u64 = 32 << 20;
        let bytes = self.index.footprint().bytes;
        if bytes >= self.gave_back_bytes + GROWTH_BYTES {
            self.gave_back_bytes = bytes;
            // Beside the batch, which need not wait for it.
            drop(tokio::task::spawn_blocking(heap::give_back));
        }
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
