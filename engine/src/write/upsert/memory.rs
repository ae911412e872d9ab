//! Holds the index to the memory that it may take.

use alluvium_catalog::Result;

use super::UpsertWriter;

impl UpsertWriter {
    /// Checks that the index may take what it takes, by itself and beside those of other flows.
    ///
    /// # Errors
    /// `Invalid`, naming the setting, when it may not.
    pub(super) fn check_memory(&mut self) -> Result<()> {
        self.index.check_memory(self.settings.memory_bytes_max)?;
        let fits = self.take_share();
        if fits.is_err() {
            // Its flow halts. Until the index is gone, nobody else is refused for it.
            self.share.give_back();
        }
        fits
    }

    /// Takes in what the index takes now, where there is room for it.
    pub(super) fn take_share(&mut self) -> Result<()> {
        let bytes = self.index.footprint().bytes;
        self.share.resize(bytes, || format!("{bytes} bytes"))
    }
}
