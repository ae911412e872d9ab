//! What an upsert writer is opened with.

use std::sync::Arc;
use std::time::Duration;

use alluvium_sql::UpsertOptions;

use super::snapshots::SnapshotDisk;
use crate::write::index::IndexBudget;
use crate::write::vectors::VectorFolder;

/// The bounds of an [`UpsertWriter`](super::UpsertWriter).
#[derive(Debug, Clone)]
pub struct UpsertSettings {
    /// How long deletes are remembered.
    pub retention: Duration,
    /// The memory that the key index may take.
    pub memory_bytes_max: u64,
    /// The memory that the key indexes of all writers with this budget may take together.
    pub budget: Arc<IndexBudget>,
    /// The memory for the orders of rows written lately.
    pub order_cache_bytes: u64,
    /// Versions from one snapshot of the index to the next; 0 for none.
    pub snapshot_interval: u64,
    /// Where snapshots are kept on this machine, too, unless the table lies on its disk itself.
    pub snapshot_disk: Option<SnapshotDisk>,
    /// How superseded rows leave the table, and how much a commit may rewrite for it.
    pub options: UpsertOptions,
    /// Deletion vectors of at most this many bytes stand in the log.
    pub inline_bytes_max: usize,
}

impl Default for UpsertSettings {
    /// A week of deletes, which is how long a late record may come; memory as of the settings' defaults, without others; no snapshots;
    /// deletion vectors without a cap.
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(7 * 24 * 3_600),
            memory_bytes_max: 2 << 30,
            budget: Arc::default(),
            order_cache_bytes: 32 << 20,
            snapshot_interval: 0,
            snapshot_disk: None,
            options: UpsertOptions::default(),
            inline_bytes_max: VectorFolder::INLINE_BYTES_MAX,
        }
    }
}
