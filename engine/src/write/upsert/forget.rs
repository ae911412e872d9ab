//! Deletes are remembered for a set retention, and forgotten after it: in memory, and beside the table.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::UpsertWriter;
use crate::write::tombstones::TombstoneFolder;

impl UpsertWriter {
    /// Forgets deletes older than the retention in memory.
    pub(super) fn forget_in_memory(&mut self) {
        let before_ms = self.retained_since_ms();
        self.lender.take_back();
        Arc::make_mut(&mut self.index).forget(before_ms);
        self.lend();
    }

    /// Removes their sidecars beside the table. Those that are left when the time is over, another sweep removes.
    pub(super) async fn sweep_and_wait(&mut self) {
        /// Less than a process is given to stop.
        const LIMIT: Duration = Duration::from_secs(5);
        self.sweep = None;
        sweep(&self.tombstones, self.retained_since_ms(), LIMIT).await;
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
            let limit = Duration::from_millis(SWEEP_MS.unsigned_abs());
            let sweep = tokio::spawn(async move { sweep(&tombstones, before_ms, limit).await });
            self.sweep = Some(AbortOnDropHandle::new(sweep));
        }
    }
}

/// Removes the sidecars of deletes that are no longer remembered, for as long as `limit` allows.
async fn sweep(tombstones: &TombstoneFolder, before_ms: i64, limit: Duration) {
    match tokio::time::timeout(limit, tombstones.forget(before_ms)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(error = %error.chain(), "sidecars of old deletes stay a while"),
        Err(_) => tracing::info!(table = %tombstones.location, "some sidecars of old deletes stay for the next sweep"),
    }
}
