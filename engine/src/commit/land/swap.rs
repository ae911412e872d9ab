//! Puts compacted files in the place of those they were made of, between two batches: one version that changes no data.
//!
//! The version is created by the same conditional PUT as a batch's. A swap follows the log only where that
//! was last done a while ago: a commit that came first is followed by the next batch, whose errors end the flow as they should,
//! and the exchange is drawn up again after it. When a commit changed what the compaction stands on, the compaction is given up, and its files are orphans
//! for vacuum. A batch never loses to a swap: both land through the same [`Landing`], one after the other.

use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::{Error, Result};
use roaring::RoaringTreemap;
use serde_json::{Value, json};

use super::Landing;
use super::look::Look;
use crate::commit::create::{ENGINE_INFO, encode_spelled};
use crate::delta::action::Action;
use crate::delta::clustering::{Clustered, clustered};
use crate::delta::log::{PutOutcome, Version};
use crate::write::compaction::{Compaction, Drawn, Exchange, draw_up, shrink};
use crate::write::parquet::DataFolder;
use crate::write::vectors::VectorFolder;

/// Puts of one version without an answer before a swap is given up; each has settled by reading back.
const PUTS_MAX: u32 = 2;

/// How long files may wait for their swap: a machine may sleep, and a table may be busy for others. Vacuum, whoever runs it, takes
/// old files that no version names, in some tables after a day. The rest of it is for clocks that differ.
const WAIT_MAX: Duration = Duration::from_secs(12 * 3_600);

/// How a swap ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Swapped {
    /// The new files are part of the table.
    Landed {
        /// The version that made them so.
        version: Version,
        /// Rows that batches deleted while the compaction ran.
        remapped: u64,
    },
    /// Nothing has changed: another commit came first. Follow it ([`Landing::catch_up`]), then try again.
    Overtaken,
    /// Nothing has changed and the compaction is of no use any more, for this reason.
    GivenUp(String),
}

impl Landing {
    /// Swaps the outputs of `compaction` in for its inputs.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer. The swap may have landed then; whoever lands next follows it.
    /// `Conflict` after a failed [`catch_up`](Self::catch_up): what the writer says of deleted rows would be old.
    pub async fn swap(&mut self, compaction: &Compaction) -> Result<Swapped> {
        self.check_whole()?;
        if self.has_waited(compaction) {
            return Ok(Swapped::GivenUp("its files are so old that a vacuum may have removed them".to_owned()));
        }
        let vectors = VectorFolder {
            store: Arc::clone(self.log.store()),
            location: self.log.location().clone(),
            clock: Arc::clone(&self.clock),
            inline_bytes_max: self.limits.inline_bytes_max,
        };
        match draw_up(compaction, &self.state, self.writer.as_ref(), &vectors).await? {
            Drawn::Fits(exchange) => self.exchange(compaction, &exchange).await,
            Drawn::Shrinks(gone) => self.swap_rest(compaction, &gone, &vectors).await,
            Drawn::Stale(why) => Ok(Swapped::GivenUp(why)),
        }
    }

    /// Tells whether files of `compaction` may be gone by now.
    fn has_waited(&self, compaction: &Compaction) -> bool {
        let written_ms = compaction.outputs.iter().map(|output| output.add.modification_time).min();
        let waited_ms = written_ms.and_then(|at_ms| u128::try_from(self.clock.now().0.saturating_sub(at_ms)).ok());
        waited_ms.is_some_and(|waited_ms| waited_ms > WAIT_MAX.as_millis())
    }

    /// Swaps in what is left of `compaction` without the rows that are `gone` from each output.
    async fn swap_rest(
        &mut self,
        compaction: &Compaction,
        gone: &[RoaringTreemap],
        vectors: &VectorFolder,
    ) -> Result<Swapped> {
        let folder = DataFolder {
            store: Arc::clone(&vectors.store),
            location: vectors.location.clone(),
            partitioned_by: compaction.metadata.partition_columns.clone(),
            clock: Arc::clone(&self.clock),
        };
        let no_vectors = || "rows were deleted meanwhile, and no vector is to say so".to_owned();
        let Some(rest) = shrink(compaction, gone, &self.state, folder).await? else {
            return Ok(Swapped::GivenUp(no_vectors()));
        };
        let n_gone: u64 = gone.iter().map(RoaringTreemap::len).sum();
        match draw_up(&rest, &self.state, self.writer.as_ref(), vectors).await? {
            Drawn::Fits(exchange) => match self.exchange(&rest, &exchange).await? {
                Swapped::Landed { version, .. } => Ok(Swapped::Landed { version, remapped: n_gone }),
                other => Ok(other),
            },
            Drawn::Shrinks(_) => Ok(Swapped::GivenUp(no_vectors())),
            Drawn::Stale(why) => Ok(Swapped::GivenUp(why)),
        }
    }

    async fn exchange(&mut self, compaction: &Compaction, exchange: &Exchange) -> Result<Swapped> {
        let Some(version) = self.put_swap(compaction, exchange).await? else { return Ok(Swapped::Overtaken) };
        self.writer.compacted(compaction, exchange, version);
        self.state.apply(version, &exchange.actions);
        self.check_rows();
        let remapped = exchange.deleted.iter().map(|deleted| deleted.len()).sum();
        Ok(Swapped::Landed { version, remapped })
    }

    /// Puts the next version; `None` when it is somebody else's.
    async fn put_swap(&mut self, compaction: &Compaction, exchange: &Exchange) -> Result<Option<Version>> {
        let write_id = self.clock.new_id();
        let mut info = swap_info(compaction, &exchange.actions);
        info["timestamp"] = json!(self.clock.now().0);
        info["readVersion"] = json!(self.state.version);
        info["txnId"] = json!(write_id);
        let bytes = encode_spelled(&info, &exchange.actions, &self.state.spellings)?;
        let version = self.state.version + 1;
        if !self.is_newest().await? {
            return Ok(None);
        }
        let look = Look::now(self.clock.as_ref());
        for _put in 0..PUTS_MAX {
            match self.log.put(version, bytes.clone(), write_id).await {
                PutOutcome::Landed => {
                    self.looked = look;
                    return Ok(Some(version));
                }
                PutOutcome::Taken => return Ok(None),
                PutOutcome::Unknown => tracing::warn!(version, "the store did not say whether the swap landed"),
            }
        }
        Err(Error::unavailable(format!("cannot swap compacted files into the table at {}", self.log.location())))
    }
}

fn swap_info(compaction: &Compaction, actions: &[Action]) -> Value {
    let clustered_by = compaction.outputs.first().and_then(|output| match clustered(&output.add) {
        Clustered::Ours(mark) => Some(mark.by),
        Clustered::No | Clustered::Theirs => None,
    });
    let added = actions.iter().filter(|action| matches!(action, Action::Add(_))).count();
    json!({
        "operation": "OPTIMIZE",
        "operationParameters": {
            "predicate": "[]", "zOrderBy": "[]", "clusterBy": json!(clustered_by.unwrap_or_default()).to_string(), "auto": "true",
        },
        "operationMetrics": {
            "numRemovedFiles": compaction.inputs.len().to_string(),
            "numRemovedBytes": compaction.bytes_read().to_string(),
            "numAddedFiles": added.to_string(),
            "numAddedBytes": compaction.bytes_written().to_string(),
        },
        "isolationLevel": "SnapshotIsolation",
        "isBlindAppend": false,
        "engineInfo": ENGINE_INFO,
    })
}
