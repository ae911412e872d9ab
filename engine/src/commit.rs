//! Makes a batch part of the table: one Delta version with its files, its positions and its lineage, or nothing.
//!
//! The commit protocol is DESIGN's promise 1: the start of the span must equal the table's position on the very version
//! that is committed against, and the version is created by one conditional PUT. The store's answer is settled by
//! reading back ([`DeltaLog::put`](crate::delta::log::DeltaLog::put)); a conflict is an outcome and its loop lives here
//! ([`land`]). Checkpoints and log clean-up are never part of a commit ([`upkeep`](crate::upkeep)).
//!
//! Before it: [`write`](crate::write). After it: [`record`](crate::record).

pub mod create;
pub mod definitions;
pub mod land;
pub mod positions;
pub mod probe;
mod rules;

use alluvium_catalog::{Fate, Lineage, Misfit, Span};

use crate::delta::log::LogEntry;
use crate::write::Excess;

/// How landing a batch ended.
#[derive(Debug)]
#[must_use]
pub enum Outcome {
    /// The batch is part of the table.
    Landed(Box<Landed>),
    /// Somebody else has moved this flow's positions: the batch is theirs. Nothing of it is visible; go on from the
    /// table's positions.
    Fenced(Misfit),
    /// The batch would rewrite more of the table than one commit may. Nothing of it is visible; it may land in parts.
    Exceeds(Excess),
}

/// How attempts to create a version have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attempts {
    /// The version is ours.
    pub landed: u64,
    /// Somebody else's version came first.
    pub conflicts: u64,
    /// The store did not tell, also when the version was read back; the same bytes were put again.
    pub indeterminate: u64,
    /// The table's positions had moved: nothing was put.
    pub fenced: u64,
}

/// Out of commit: what landed, where.
#[derive(Debug, Clone)]
pub struct Landed {
    /// What the batch covered.
    pub span: Span,
    /// What became of its records.
    pub fate: Fate,
    /// The lineage record as it stands in the log.
    pub lineage: Lineage,
    /// The version as it stands in the log.
    pub entry: LogEntry,
    /// Versions of others that came between.
    pub conflicts: u32,
}
