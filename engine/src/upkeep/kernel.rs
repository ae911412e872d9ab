//! The kernel over one table: a snapshot of its log, out of which checkpoints and version checksums are written.
//!
//! The kernel lists, reads and writes on blocking threads; nothing of it is kept between two calls.

use std::sync::Arc;

use alluvium_catalog::{Error, Location, Result, Stores};
use delta_kernel::checkpoint::{CheckpointSpec, V2CheckpointConfig};
use delta_kernel::snapshot::{CheckpointWriteResult, ChecksumWriteResult, IncrementalReplay, Snapshot, SnapshotRef};
use delta_kernel::{DeltaResult, Engine};
use deltalake::logstore::{LogStore, StorageConfig, default_logstore};
use url::Url;

use super::budget::BytesRead;
use super::metered::Metered;
use crate::delta::log::Version;
use crate::delta::state::TableState;

/// File actions in one sidecar of a version 2 checkpoint: the kernel's own number.
const SIDECAR_ACTIONS: usize = 50_000;

/// Writes a checkpoint of the newest version and returns that version: of the second kind, with its files in sidecars,
/// where the table has the feature, else of the first. One that exists already stands. What it reads counts in `read`.
///
/// # Errors
/// `Unavailable` when the table cannot be read or written.
pub async fn write_checkpoint(stores: &Stores, location: &Location, has_v2: bool, read: &BytesRead) -> Result<Version> {
    let failed =
        |cause| Error::unavailable(format!("cannot write a checkpoint of the table at {location}")).with_source(cause);
    with_snapshot((stores, location, read), move |snapshot, engine| {
        let sidecars = V2CheckpointConfig::WithSidecar { file_actions_per_sidecar_hint: Some(SIDECAR_ACTIONS) };
        let spec = if has_v2 { CheckpointSpec::V2(sidecars) } else { CheckpointSpec::V1 };
        let (CheckpointWriteResult::Written | CheckpointWriteResult::AlreadyExists, _) =
            snapshot.checkpoint(engine, Some(&spec))?;
        Ok(snapshot.version())
    })
    .await?
    .map_err(failed)
}

/// Writes the checksum of the newest version and returns that version. One that exists already stands. What it reads counts
/// in `read`.
///
/// # Errors
/// `Unavailable` when the table cannot be read or written, or a commit of another engine leaves the kernel without the
/// numbers.
pub async fn write_checksum(stores: &Stores, location: &Location, read: &BytesRead) -> Result<Version> {
    let failed = |cause| {
        Error::unavailable(format!("cannot write a version checksum of the table at {location}")).with_source(cause)
    };
    with_snapshot((stores, location, read), |snapshot, engine| {
        let (ChecksumWriteResult::Written | ChecksumWriteResult::AlreadyExists, _) = snapshot.write_checksum(engine)?;
        Ok(snapshot.version())
    })
    .await?
    .map_err(failed)
}

/// Tells whether a table has checkpoints of the second kind.
pub fn has_v2(state: &TableState) -> bool {
    state.protocol.writer_features.iter().flatten().any(|feature| feature == "v2Checkpoint")
}

/// Runs `work` on the newest snapshot, on a blocking thread.
async fn with_snapshot<T: Send + 'static>(
    (stores, location, read): (&Stores, &Location, &BytesRead),
    work: impl FnOnce(&SnapshotRef, &dyn Engine) -> DeltaResult<T> + Send + 'static,
) -> Result<DeltaResult<T>> {
    // deltalake's own builder finds log stores by their URL's scheme, and knows S3 only with the AWS SDK built in.
    let (prefixed, root) = (Metered::new(stores.open(location)?, read), Metered::new(stores.root(location)?, read));
    let url: Url = location.url()?;
    let logs = default_logstore(Arc::new(prefixed), Arc::new(root), &url, &StorageConfig::default());
    let engine = logs.engine(None);
    let task = tokio::task::spawn_blocking(move || {
        let engine: Arc<dyn Engine> = engine;
        let snapshot = Snapshot::builder_for(url.as_str())
            .with_incremental_crc_replay(IncrementalReplay::Unlimited)
            .build(engine.as_ref())?;
        work(&snapshot, engine.as_ref())
    });
    task.await.map_err(|cause| Error::internal("the kernel stopped").with_source(cause))
}
