//! Turns changes into staged files: everything a commit needs is uploaded here, and nothing is visible yet.
//!
//! One trait with two implementations: [`append`] adds rows, [`upsert`] keeps the newest row of each key by marking
//! superseded rows in deletion vectors. A writer follows the table's log, so that what it stages fits the version that
//! the commit is tried against; it never commits.
//!
//! Before it: [`transform`](crate::transform). After it: [`commit`](crate::commit).

pub mod append;
pub mod compaction;
pub(crate) mod discard;
pub mod encoder;
pub mod index;
pub(crate) mod live;
pub mod parquet;
pub mod partition;
pub(crate) mod reading;
pub mod rewrite;
mod row_bits;
pub mod stats;
pub mod tombstones;
pub mod upsert;
pub mod vectors;

use std::fmt;
use std::sync::Arc;

use alluvium_catalog::{Effort, Fate, Input, Result, Span};
use async_trait::async_trait;
use roaring::RoaringTreemap;
use serde_json::Value;

use crate::delta::action::Action;
use crate::delta::log::{LogEntry, Version};
use crate::delta::state::TableState;
use crate::hop::{Changes, Spent};
use crate::write::compaction::{Compaction, Exchange};
use crate::write::index::Footprint;
use crate::write::parquet::DataFile;
use crate::write::upsert::{Decision, KeyChanges};

/// Out of write: uploaded files that wait for their commit.
#[derive(Debug)]
pub struct Staged {
    /// New data files.
    pub files: Vec<DataFile>,
    /// Bytes of data files that were written in vain and removed.
    pub discarded_bytes: u64,
    /// Upserts: one change a key, in the order of the batch.
    pub changes: KeyChanges,
    /// Upserts: the file that remembers the batch's deletes, if it has any.
    pub tombstones: Option<String>,
    /// Tables that were looked up.
    pub lookups: Vec<Input>,
    /// Fates decided so far; late rows move from `applied` to `merged` when the commit is drawn up.
    pub fate: Fate,
    /// What the batch covers.
    pub span: Span,
    /// Time spent so far.
    pub spent: Spent,
    /// Set where nothing was written, since the batch would make the table's writer rewrite more than it may.
    pub excess: Option<Excess>,
}

/// By how much a batch is above the cap on what one commit rewrites. It lands in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excess {
    /// The bytes that it would rewrite beside its own rows.
    pub bytes: u64,
    /// The bytes that it may.
    pub bytes_max: u64,
    /// Its records.
    pub records: u64,
}

impl Staged {
    /// Returns a batch of which nothing was written.
    pub fn exceeding(excess: Excess, changes: Changes) -> Self {
        let Changes { lookups, fate, span, spent, .. } = changes;
        let (files, changes) = (Vec::new(), KeyChanges::default());
        let (tombstones, discarded_bytes) = (None, 0);
        Self { files, discarded_bytes, changes, tombstones, lookups, fate, span, spent, excess: Some(excess) }
    }

    /// Returns the bytes of the new data files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(DataFile::bytes).sum()
    }
}

/// What a commit changes, drawn up against one version of the table.
#[derive(Debug, Default)]
pub struct Draft {
    /// Removes and Adds; the committer puts positions and lineage beside them.
    pub actions: Vec<Action>,
    /// The fates of the batch against that version.
    pub fate: Fate,
    /// Rows that are new under their key, or all rows for appends.
    pub rows_inserted: u64,
    /// Rows that replace an older row of their key.
    pub rows_updated: u64,
    /// Rows that a delete takes out.
    pub rows_deleted: u64,
    /// Deletion vectors written.
    pub vectors_written: u64,
    /// What the commit costs the table.
    pub effort: Effort,
    /// What commitInfo says beside the lineage, for writers that follow the commit.
    pub notes: Vec<(&'static str, Value)>,
    /// Upserts: what the actions were drawn up from, to be applied when they have landed.
    pub decision: Option<Arc<Decision>>,
    /// Set where there is nothing to commit, since it would rewrite more than it may.
    pub excess: Option<Excess>,
}

/// Stages batches for one table.
#[async_trait]
pub trait Writer: Send + Sync + fmt::Debug {
    /// Uploads the new rows of `changes`, unless that would exceed what a commit may rewrite.
    ///
    /// # Errors
    /// `Unavailable` when the store does not take a file; `Invalid` when the commit would rewrite more than it may and the
    /// table says to halt then. The files of a failed attempt are orphans for vacuum.
    async fn stage(&mut self, changes: Changes) -> Result<Staged>;

    /// Draws up the commit against `state`, the newest version known. Called again after each conflict, once
    /// [`follow`](Self::follow) has been given the versions that came between.
    ///
    /// # Errors
    /// `Unavailable` when the store does not take a deletion vector or a file that is written anew; otherwise as of
    /// [`stage`](Self::stage).
    async fn draft(&mut self, staged: &Staged, state: &TableState) -> Result<Draft>;

    /// Tells whether its commits mark rows in deletion vectors; `None` where it takes no rows away, and so cannot tell for the
    /// table.
    fn marks_rows(&self) -> Option<bool> {
        None
    }

    /// Takes in versions that others committed, in their order. What they add may be as it is in the last of them already, so
    /// that only after all of them the writer is of a version again.
    ///
    /// # Errors
    /// `Unavailable` or `Data` when a file of theirs cannot be read; `Conflict` when it is gone by now, so that the table
    /// has to be opened again.
    async fn follow(&mut self, tail: &[LogEntry]) -> Result<()>;

    /// Takes in that `staged` has landed by `draft`.
    fn landed(&mut self, staged: &Staged, draft: &Draft);

    /// Returns the rows of a live file that are deleted as of the version that was followed last; `None` where the
    /// writer does not keep them, and the file's vector has to be read.
    fn deleted_rows(&self, _path: &str) -> Option<RoaringTreemap> {
        None
    }

    /// Takes in that `compaction` has landed as `exchange` in `version`: its rows have other places now. A writer that
    /// remembers no places has nothing to do.
    fn compacted(&mut self, _compaction: &Compaction, _exchange: &Exchange, _version: Version) {}

    /// Keeps what the next start of this writer can use. Nothing depends on it.
    async fn close(&mut self) {}

    /// Returns how many rows the table has to the knowledge of this writer; `None` when it knows none.
    fn n_rows(&self) -> Option<u64> {
        None
    }

    /// Returns how many rows the live file at a path holds, deleted ones included; `None` when this writer has not read it.
    fn n_records(&self, _path: &str) -> Option<u64> {
        None
    }

    /// Returns what the writer's knowledge of the table takes; `None` when it has none.
    fn footprint(&self) -> Option<Footprint> {
        None
    }
}
