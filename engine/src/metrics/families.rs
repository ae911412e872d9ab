//! The metric families: name, labels, unit and meaning of each, and the collectors behind them.
//!
//! Names follow Prometheus' conventions: the program's name first, base units, `_total` on counters. A name that has
//! been published keeps its meaning.

use prometheus::core::Collector;
use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// One family as the documentation lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels in order.
    pub labels: &'static [&'static str],
    /// What it counts, for people.
    pub help: &'static str,
}

const RECORDS: Family = Family {
    name: "alluvium_records_total",
    kind: "counter",
    labels: &["flow", "fate"],
    help: "Records landed, by what became of them; the sum over all fates is the number of records consumed.",
};
const BYTES: Family = Family {
    name: "alluvium_bytes_total",
    kind: "counter",
    labels: &["flow"],
    help: "Bytes of keys and values of the records landed.",
};
const BATCHES: Family = Family {
    name: "alluvium_batches_total",
    kind: "counter",
    labels: &["flow", "outcome"],
    help: "Batches, by how they ended: landed, dropped and read again, or failed.",
};
const REJECTS: Family = Family {
    name: "alluvium_rejects_total",
    kind: "counter",
    labels: &["flow", "class"],
    help: "Records that could not become rows, by kind of fault.",
};
const COMMITS: Family = Family {
    name: "alluvium_commits_total",
    kind: "counter",
    labels: &["flow", "outcome"],
    help: "Attempts to commit a version of the flow's table or of its dead letters, by how they ended.",
};
const STAGES: Family = Family {
    name: "alluvium_stage_seconds",
    kind: "histogram",
    labels: &["flow", "stage"],
    help: "Time that a batch spent in a stage.",
};
const LAG: Family = Family {
    name: "alluvium_lag_records",
    kind: "gauge",
    labels: &["flow", "topic", "partition"],
    help: "Records between the last position read and the end of the partition, for partitions assigned here; none once the flow has stopped or halted.",
};
const FRESHNESS: Family = Family {
    name: "alluvium_freshness_seconds",
    kind: "gauge",
    labels: &["flow"],
    help: "Age of the newest record that has landed, by its Kafka timestamp.",
};
const VERSION: Family = Family {
    name: "alluvium_table_version",
    kind: "gauge",
    labels: &["flow"],
    help: "The Delta version that the flow landed last.",
};
const STATES: Family = Family {
    name: "alluvium_flow_state",
    kind: "gauge",
    labels: &["flow", "state"],
    help: "1 for the state that the flow is in, 0 for the others.",
};
const VIOLATIONS: Family = Family {
    name: "alluvium_invariant_violations_total",
    kind: "counter",
    labels: &["law"],
    help: "Violations of the named laws; anything above 0 is a defect.",
};
const UPKEEP: Family = Family {
    name: "alluvium_upkeep_total",
    kind: "counter",
    labels: &["flow", "work", "outcome"],
    help: "Upkeep of tables beside the batches, by kind of work and how it ended.",
};
const UPKEEP_SECONDS: Family = Family {
    name: "alluvium_upkeep_seconds_total",
    kind: "counter",
    labels: &["flow", "work"],
    help: "Time that upkeep was at work.",
};
const UPKEEP_FILES: Family = Family {
    name: "alluvium_upkeep_files_total",
    kind: "counter",
    labels: &["flow", "work"],
    help: "Files that compaction replaced, or that clean-up and vacuum removed.",
};
const UPKEEP_BYTES: Family = Family {
    name: "alluvium_upkeep_bytes_total",
    kind: "counter",
    labels: &["flow", "work"],
    help: "Bytes that compaction and work on the log (checkpoints, checksums, clean-up) have read, or that vacuum has removed.",
};
const INDEX_KEYS: Family = Family {
    name: "alluvium_index_keys",
    kind: "gauge",
    labels: &["flow"],
    help: "Keys with a live row in the flow's key index.",
};
const INDEX_BYTES: Family = Family {
    name: "alluvium_index_bytes",
    kind: "gauge",
    labels: &["flow"],
    help: "Memory of the flow's key index, remembered deletes and vectors included.",
};
const RESIDENT: Family = Family {
    name: "alluvium_resident_memory_bytes",
    kind: "gauge",
    labels: &[],
    help: "Memory of the process that is in RAM.",
};

/// Every family, in the order of the documentation.
pub const FAMILIES: [Family; 18] = [
    RECORDS,
    BYTES,
    BATCHES,
    REJECTS,
    COMMITS,
    STAGES,
    LAG,
    FRESHNESS,
    VERSION,
    STATES,
    VIOLATIONS,
    UPKEEP,
    UPKEEP_SECONDS,
    UPKEEP_FILES,
    UPKEEP_BYTES,
    INDEX_KEYS,
    INDEX_BYTES,
    RESIDENT,
];

/// From a catalog write in milliseconds to a batch interval of minutes; classic buckets, which every Prometheus reads.
const STAGE_BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// The collectors behind the families.
pub(super) struct Families {
    pub(super) records: IntCounterVec,
    pub(super) bytes: IntCounterVec,
    pub(super) batches: IntCounterVec,
    pub(super) rejects: IntCounterVec,
    pub(super) commits: IntCounterVec,
    pub(super) stages: HistogramVec,
    pub(super) lag: IntGaugeVec,
    pub(super) freshness: GaugeVec,
    pub(super) version: IntGaugeVec,
    pub(super) states: IntGaugeVec,
    pub(super) violations: IntCounterVec,
    pub(super) upkeep: IntCounterVec,
    pub(super) upkeep_seconds: CounterVec,
    pub(super) upkeep_files: IntCounterVec,
    pub(super) upkeep_bytes: IntCounterVec,
    pub(super) index_keys: IntGaugeVec,
    pub(super) index_bytes: IntGaugeVec,
    pub(super) resident: IntGauge,
}

impl Families {
    /// Makes the collectors and registers each with `registry`.
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let buckets = HistogramOpts::from(STAGES.opts()).buckets(STAGE_BUCKETS.to_vec());
        Ok(Self {
            records: keep(registry, IntCounterVec::new(RECORDS.opts(), RECORDS.labels)?)?,
            bytes: keep(registry, IntCounterVec::new(BYTES.opts(), BYTES.labels)?)?,
            batches: keep(registry, IntCounterVec::new(BATCHES.opts(), BATCHES.labels)?)?,
            rejects: keep(registry, IntCounterVec::new(REJECTS.opts(), REJECTS.labels)?)?,
            commits: keep(registry, IntCounterVec::new(COMMITS.opts(), COMMITS.labels)?)?,
            stages: keep(registry, HistogramVec::new(buckets, STAGES.labels)?)?,
            lag: keep(registry, IntGaugeVec::new(LAG.opts(), LAG.labels)?)?,
            freshness: keep(registry, GaugeVec::new(FRESHNESS.opts(), FRESHNESS.labels)?)?,
            version: keep(registry, IntGaugeVec::new(VERSION.opts(), VERSION.labels)?)?,
            states: keep(registry, IntGaugeVec::new(STATES.opts(), STATES.labels)?)?,
            violations: keep(registry, IntCounterVec::new(VIOLATIONS.opts(), VIOLATIONS.labels)?)?,
            upkeep: keep(registry, IntCounterVec::new(UPKEEP.opts(), UPKEEP.labels)?)?,
            upkeep_seconds: keep(registry, CounterVec::new(UPKEEP_SECONDS.opts(), UPKEEP_SECONDS.labels)?)?,
            upkeep_files: keep(registry, IntCounterVec::new(UPKEEP_FILES.opts(), UPKEEP_FILES.labels)?)?,
            upkeep_bytes: keep(registry, IntCounterVec::new(UPKEEP_BYTES.opts(), UPKEEP_BYTES.labels)?)?,
            index_keys: keep(registry, IntGaugeVec::new(INDEX_KEYS.opts(), INDEX_KEYS.labels)?)?,
            index_bytes: keep(registry, IntGaugeVec::new(INDEX_BYTES.opts(), INDEX_BYTES.labels)?)?,
            resident: keep(registry, IntGauge::with_opts(RESIDENT.opts())?)?,
        })
    }
}

impl Family {
    fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }
}

fn keep<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
