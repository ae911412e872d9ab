//! The named laws of the engine (`docs/INVARIANTS.md`): checked while it runs, counted as a metric, and used by tests.
//!
//! A broken law is a defect in this program. It is logged with what was seen and counted; debug builds stop, and others go on
//! only where nothing is lost by it.

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
    stops: bool,
}

impl Watch {
    /// Returns a watch that counts into `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, stops: cfg!(debug_assertions) }
    }

    /// Returns the same watch as release builds have it, also in a debug build.
    #[cfg(test)]
    pub(crate) fn that_goes_on(&self) -> Self {
        Self { stops: false, ..self.clone() }
    }

    /// Checks that `law` holds and returns whether it does; `seen` says what was seen when it does not.
    ///
    /// # Panics
    /// In a debug build, when it does not.
    pub fn check(&self, law: Law, holds: bool, seen: impl FnOnce() -> String) -> bool {
        if !holds {
            let seen = seen();
            tracing::error!(law = law.as_str(), seen, "a law of the engine is broken");
            self.metrics.law_broken(law.as_str());
            assert!(!self.stops, "{}: {seen}", law.as_str());
        }
        holds
    }
}
