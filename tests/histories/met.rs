//! What histories have met: a test whose histories meet no trouble shows nothing.

use std::collections::BTreeMap;

use super::foreign::VisitKind;

/// What has come about, to tell a history that met nothing from one that met all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Met {
    pub(crate) versions: usize,
    pub(crate) compactions: usize,
    pub(crate) visits: usize,
    /// Of these, visits that made a version or a checkpoint, by what they come to.
    pub(crate) done: BTreeMap<VisitKind, usize>,
    /// Visits that delta-rs refused to do.
    pub(crate) refused: usize,
    pub(crate) faults: usize,
    /// Processes that died in the middle of their work.
    pub(crate) deaths: usize,
    /// Deaths after which an output of a compaction lay in the store, and no version named it.
    pub(crate) orphaned: usize,
    /// Vectors of live files that stand in the log, and those that stand in files of their own.
    pub(crate) inline_vectors: usize,
    pub(crate) filed_vectors: usize,
    pub(crate) checkpoints: usize,
    /// Snapshots of the index that were changed or removed between two processes: beside the table, and on a machine's disk.
    pub(crate) damaged_beside: usize,
    pub(crate) damaged_on_disk: usize,
}

impl Met {
    pub(crate) fn add(&mut self, other: &Self) {
        self.versions += other.versions;
        self.compactions += other.compactions;
        self.visits += other.visits;
        for (kind, n_visits) in &other.done {
            *self.done.entry(*kind).or_default() += n_visits;
        }
        self.refused += other.refused;
        self.faults += other.faults;
        self.deaths += other.deaths;
        self.orphaned += other.orphaned;
        self.inline_vectors += other.inline_vectors;
        self.filed_vectors += other.filed_vectors;
        self.checkpoints += other.checkpoints;
        self.damaged_beside += other.damaged_beside;
        self.damaged_on_disk += other.damaged_on_disk;
    }

    /// Returns the kinds of visits of which none made a version or a checkpoint.
    pub(crate) fn undone(&self) -> Vec<VisitKind> {
        VisitKind::ALL.into_iter().filter(|kind| !self.done.contains_key(kind)).collect()
    }
}
