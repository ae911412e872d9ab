//! Where records come from: one trait, two honest implementations ([`kafka`] and its in-memory twin [`memory`]).
//!
//! A source delivers batches in order per partition and moves no position of its own: where to begin is asked of the
//! table ([`Positions`](TablePositions)) each time a partition is assigned. It never commits an offset that has not
//! landed, and Kafka's group offsets are never read.
//!
//! Before it: a broker. After it: [`decode`](crate::decode).

pub mod kafka;
pub mod memory;
mod assignment;
mod goal;
mod identity;
mod intake;
mod outset;
mod start;

use std::collections::BTreeMap;
use std::fmt;

use alluvium_catalog::{Offset, Partition, Result, Span};
use async_trait::async_trait;

pub use goal::Goal;
pub use identity::SourceIdentity;
pub use outset::Outset;

use crate::hop::Fetched;

/// What a source has for the engine.
#[derive(Debug)]
#[must_use]
pub enum Fetch {
    /// A batch closed by rows, bytes or interval.
    Batch(Box<Fetched>),
    /// Nothing came within the commit interval.
    Idle,
    /// `--once`: everything up to the ends at start has been delivered.
    Drained,
    /// The source was asked to stop and has handed out what it had. Said once, and once more after each
    /// [`resync`](Source::resync).
    Stopped,
}

/// Asks the table where to go on. Called when partitions are assigned; blocks the rebalance until it answers.
#[async_trait]
pub trait TablePositions: Send + Sync + fmt::Debug {
    /// Returns the next offset of every partition that the newest version of the table has a position for.
    async fn positions(&self) -> Result<BTreeMap<Partition, Offset>>;
}

/// How far the consumer is behind, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// The partition.
    pub partition: Partition,
    /// Records between the last position handed out and the end of the partition.
    pub records: i64,
}

/// Delivers batches of records.
#[async_trait]
pub trait Source: Send + fmt::Debug {
    /// Waits for the next batch: until a limit of the batch is reached, the interval ends, or the source stops.
    /// Cancel-safe: a wait that is given up loses nothing.
    ///
    /// # Errors
    /// `Data` when offsets are out of range or the topic was re-created: the lost range is in the message, and nothing
    /// is skipped. `Unavailable` when no broker answers within its limit, `Invalid` when topic or credentials are wrong.
    async fn fetch(&mut self) -> Result<Fetch>;

    /// Tells whether all partitions of `span` are still assigned, without a break since it was fetched.
    fn holds(&self, span: &Span) -> bool;

    /// Forgets what was fetched and not landed, and goes on from the table's positions in all assigned partitions.
    async fn resync(&mut self) -> Result<()>;

    /// Tells the outside world that `span` has landed; a courtesy to lag tools, errors are logged.
    fn acknowledge(&mut self, span: &Span);

    /// Tells whether partitions are assigned, be it none where others hold them all, and their brokers answer.
    fn is_ready(&self) -> bool;

    /// Returns the lag per assigned partition.
    fn lag(&self) -> Vec<Lag>;

    /// Returns the cluster's own id and the topic's id, where the broker tells them.
    fn identity(&self) -> SourceIdentity;

    /// Leaves the group and joins every task, within a bound.
    async fn close(&mut self) -> Result<()>;
}
