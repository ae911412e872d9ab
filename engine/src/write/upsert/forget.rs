//! Deletes are remembered for a set retention, and forgotten after it: in memory, and beside the table.

use std::sync::Arc;

use alluvium_catalog::Result;
use tokio_util::task::AbortOnDropHandle;

use super::UpsertWriter;

impl UpsertWriter {
    /// Forgets deletes older than the retention, in memory and beside the table.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer.
    pub async fn forget(&mut self) -> Result<()> {
        let before_ms = self.retained_since_ms();
        self.lender.take_back();
        Arc::make_mut(&mut self.index).forget(before_ms);
        self.lend();
        self.tombstones.forget(before_ms).await.map(drop)
    }

    /// Returns the moment before which deletes are no longer remembered.
    pub(super) fn retained_since_ms(&self) -> i64 {
        self.folder.clock.now().0 - i64::try_from(self.settings.retention.as_millis()).unwrap_or(i64::MAX)
    }

    /// Forgets old deletes now and then: each turn in memory looks at all of them, each beside the table lists a folder.
    pub(super) fn forget_sometimes(&mut self) {
        const TURN_MS: i64 = 60_000;
        const SWEEP_MS: i64 = 3_600_000;
        let (now_ms, before_ms) = (self.folder.clock.now().0, self.retained_since_ms());
        if now_ms - self.forgot_ms >= TURN_MS {
            self.forgot_ms = now_ms;
            Arc::make_mut(&mut self.index).forget(before_ms);
        }
        if now_ms - self.swept_ms >= SWEEP_MS {
            self.swept_ms = now_ms;
            let tombstones = self.tombstones.clone();
            let sweep = tokio::spawn(async move {
                if let Err(error) = tombstones.forget(before_ms).await {
                    tracing::warn!(error = %error.chain(), "sidecars of old deletes stay a while");
                }
            });
            self.sweep = Some(AbortOnDropHandle::new(sweep));
        }
    }
}
