//! The named laws of the engine (`docs/INVARIANTS.md`): checked while it runs, counted as a metric, and used by tests.
//!
//! A broken law is a defect in this program. It is logged with what was seen and counted; debug builds stop.

use std::sync::Arc;

use crate::metrics::Metrics;

/// A promise that the code checks of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Law {
    /// Promise 4: records in = applied + merged + filtered + dropped + quarantined + dead-lettered.
    EveryRecordHasOneFate,
    /// Decode hands on every record exactly once, as row, tombstone or reject.
    DecodeKeepsEveryRecord,
    /// The rows that a writer knows by key are those of the live files: sum(numRecords - cardinality).
    IndexMatchesTable,
}

impl Law {
    /// Returns the name that metrics and logs use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EveryRecordHasOneFate => "every_record_has_one_fate",
            Self::DecodeKeepsEveryRecord => "decode_keeps_every_record",
            Self::IndexMatchesTable => "index_matches_table",
        }
    }
}

/// Checks laws and counts those that are broken.
#[derive(Debug, Clone)]
pub struct Watch {
    metrics: Arc<Metrics>,
}

impl Watch {
    /// Returns a watch that counts into `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }

    /// Checks that `law` holds; `seen` says what was seen when it does not.
    pub fn check(&self, law: Law, holds: bool, seen: impl FnOnce() -> String) {
        if holds {
            return;
        }
        let seen = seen();
        tracing::error!(law = law.as_str(), seen, "a law of the engine is broken");
        self.metrics.law_broken(law.as_str());
        debug_assert!(holds, "{}: {seen}", law.as_str());
    }
}
