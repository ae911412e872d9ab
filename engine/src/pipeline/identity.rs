//! Whether a flow's positions are positions of the topic that it is about to read: the table's log against the brokers.

use alluvium_catalog::{Name, Result, Topic};
use futures::{StreamExt, TryStreamExt};

use crate::commit::land::Landing;
use crate::delta::log::{DeltaLog, Version};
use crate::rebuild::log::lineage_of;
use crate::source::SourceIdentity;

/// Versions looked through, backwards, for the flow's newest commit: a minute of S3 at worst, and far more than others
/// commit between two batches of one flow.
const VERSIONS_MAX: usize = 1_000;

/// Log files fetched at the same time.
const FETCHES: usize = 8;

/// Checks that `found` is what the flow's newest commit has read. A flow without positions may read anything.
///
/// # Errors
/// `Data` when the cluster or the topic is another; otherwise as of [`DeltaLog::read`].
pub(super) async fn check(landing: &Landing, found: &SourceIdentity, flow: &Name, topic: &Topic) -> Result<()> {
    if landing.positions().is_empty() {
        return Ok(());
    }
    match last_read(landing.log(), landing.state().version, flow, topic).await? {
        Some(before) => found.check_follows(&before, flow, topic),
        None => {
            tracing::warn!(%flow, %topic, "the log no longer tells which cluster and topic the flow's positions are of");
            Ok(())
        }
    }
}

/// Returns which cluster and topic the newest commit of `flow` up to `version` has read, if the log still tells.
async fn last_read(log: &DeltaLog, version: Version, flow: &Name, topic: &Topic) -> Result<Option<SourceIdentity>> {
    let reads = (0..=version).rev().take(VERSIONS_MAX).map(|version| log.read(version));
    let mut entries = futures::stream::iter(reads).buffered(FETCHES);
    while let Some(Some(entry)) = entries.try_next().await? {
        let lineage = lineage_of(&entry, log.location())?.filter(|lineage| lineage.flow == *flow);
        if let Some(read) = lineage.and_then(|lineage| SourceIdentity::of_inputs(&lineage.inputs, topic)) {
            return Ok(Some(read));
        }
    }
    Ok(None)
}
