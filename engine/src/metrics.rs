//! The numbers that the program shows of itself: every name, label and unit is in this file and in [`families`].
//!
//! Labels take their values from what SQL files declare (flow, topic), from closed enums and from the partitions that
//! are assigned now; never from keys, offsets, file names or error texts. A series per partition exists only while the
//! partition is assigned. `docs/guide/metrics.md` explains each family, and a test holds the page to this file.

mod families;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alluvium_catalog::{Error, Fate, Name, Partition, Result, Timestamp, Topic};
use prometheus::{Encoder, TextEncoder};

use crate::commit::Attempts;
use crate::hop::RejectClass;
use crate::source::Lag;

pub use families::FAMILIES;
use families::Families;
pub(crate) use process::memory_bytes;

/// Counts, gauges and timings of all flows in this process.
pub struct Metrics {
    registry: prometheus::Registry,
    families: Families,
    flows: Mutex<BTreeMap<Name, Card>>,
}

/// What is known of one flow now, for progress displays and readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowProgress {
    /// The flow.
    pub flow: Name,
    /// What it is doing.
    pub state: FlowState,
    /// Records landed since the process began, whatever their fate.
    pub records: u64,
    /// Rejects since the process began.
    pub rejects: u64,
    /// Records still to be read in the assigned partitions, where the broker has told.
    pub lag: Option<u64>,
    /// The table's version that the flow landed last.
    pub version: Option<u64>,
}

/// What a flow is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum FlowState {
    /// It waits for its table, its partitions or its brokers: at the start, after a failure, and while no broker answers.
    #[default]
    Starting,
    /// It has its table and its partitions, and brokers answer.
    Running,
    /// It has drained or was asked to stop, and has stopped.
    Stopped,
    /// It stopped by itself and a human must act.
    Halted,
}

/// How a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchOutcome {
    /// It is in the table.
    Landed,
    /// Its partitions moved to another process before it could land; the other process lands the records.
    Dropped,
    /// An error stopped it.
    Failed,
}

/// A kind of upkeep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Files rewritten into fewer.
    Compaction,
    /// A checkpoint of the log.
    Checkpoint,
    /// A version checksum.
    Checksum,
    /// Log files removed that no retained version needs.
    CleanUp,
    /// Data files removed that no retained version needs.
    Vacuum,
}

/// How a piece of upkeep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkOutcome {
    /// It was done.
    Done,
    /// Somebody else changed what it stood on; nothing has changed.
    GivenUp,
    /// An error stopped it.
    Failed,
}

/// A stage that a batch passes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// From the first record's arrival until the batch closes.
    Fetch,
    /// Bytes to Arrow.
    Decode,
    /// The flow's SQL.
    Transform,
    /// Finding what is superseded, encoding and uploading.
    Write,
    /// The conditional PUT, conflicts included.
    Commit,
    /// The catalog's copy and Kafka's group offsets.
    Record,
}

#[derive(Debug, Default)]
struct Card {
    state: FlowState,
    newest: Option<Timestamp>,
    version: Option<u64>,
    records: u64,
    rejects: u64,
    lag: Option<(Topic, BTreeSet<Partition>, u64)>,
}

impl Metrics {
    /// Returns metrics that have counted nothing.
    ///
    /// # Errors
    /// `Internal` when two families have one name.
    pub fn try_new() -> Result<Self> {
        let registry = prometheus::Registry::new();
        let families = Families::register(&registry)
            .map_err(|source| Error::internal("cannot register the metrics").with_source(source))?;
        Ok(Self { registry, families, flows: Mutex::default() })
    }

    /// Makes a flow known as starting, so that readiness waits for it.
    pub fn expect(&self, flow: &Name) {
        self.card(flow, |_| ());
    }

    /// Shows what a flow is doing.
    pub fn set_state(&self, flow: &Name, state: FlowState) {
        self.card(flow, |card| card.state = state);
    }

    /// Counts a batch and how it ended.
    pub fn batch(&self, flow: &Name, outcome: BatchOutcome) {
        self.families.batches.with_label_values(&[flow.as_str(), outcome.as_str()]).inc();
    }

    /// Counts the records of a landed batch by fate, and `bytes` of keys and values.
    pub fn landed(&self, flow: &Name, version: u64, fate: &Fate, bytes: u64) {
        let fates = [
            ("applied", fate.applied),
            ("merged", fate.merged),
            ("filtered", fate.filtered),
            ("dropped", fate.dropped),
            ("quarantined", fate.quarantined),
            ("dead_lettered", fate.dead_lettered),
        ];
        for (word, records) in fates {
            self.families.records.with_label_values(&[flow.as_str(), word]).inc_by(records);
        }
        self.families.bytes.with_label_values(&[flow.as_str()]).inc_by(bytes);
        self.card(flow, |card| {
            card.records += fate.records_in;
            card.version = Some(version);
        });
    }

    /// Remembers the timestamp of the newest record that has landed; an older one than is known changes nothing.
    pub fn newest(&self, flow: &Name, newest: Timestamp) {
        self.card(flow, |card| card.newest = card.newest.max(Some(newest)));
    }

    /// Counts rejects of a landed batch.
    pub fn rejects(&self, flow: &Name, class: RejectClass, records: u64) {
        self.families.rejects.with_label_values(&[flow.as_str(), class.as_str()]).inc_by(records);
        self.card(flow, |card| card.rejects += records);
    }

    /// Shows the lag of the partitions assigned now; those of an earlier call that are not among them are forgotten.
    pub fn lag(&self, flow: &Name, topic: &Topic, lags: &[Lag]) {
        let assigned: BTreeSet<Partition> = lags.iter().map(|lag| lag.partition).collect();
        let total = lags.iter().map(|lag| u64::try_from(lag.records).unwrap_or(0)).sum();
        let gone = self.card(flow, |card| {
            let before = card.lag.replace((topic.clone(), assigned.clone(), total));
            before.map(|(topic, partitions, _)| (topic, partitions.difference(&assigned).copied().collect::<Vec<_>>()))
        });
        if let Some((topic, partitions)) = gone {
            self.forget_lag(flow, &topic, partitions);
        }
        for lag in lags {
            let labels = [flow.as_str(), topic.as_str(), &lag.partition.to_string()];
            self.families.lag.with_label_values(&labels).set(lag.records);
        }
    }

    /// Takes down that a flow reads no partition: it is not at work, or others have all of them.
    pub fn unassigned(&self, flow: &Name) {
        if let Some((topic, partitions, _)) = self.card(flow, |card| card.lag.take()) {
            self.forget_lag(flow, &topic, partitions);
        }
    }

    fn forget_lag(&self, flow: &Name, topic: &Topic, partitions: impl IntoIterator<Item = Partition>) {
        for partition in partitions {
            let labels = [flow.as_str(), topic.as_str(), &partition.to_string()];
            // A series that is not there needs no removal.
            drop(self.families.lag.remove_label_values(&labels));
        }
    }

    /// Adds the time that one batch spent in one stage.
    pub fn stage(&self, flow: &Name, stage: Stage, took: Duration) {
        self.families.stages.with_label_values(&[flow.as_str(), stage.as_str()]).observe(took.as_secs_f64());
    }

    /// Counts attempts to commit by how they ended.
    pub fn attempts(&self, flow: &Name, attempts: &Attempts) {
        let Attempts { landed, conflicts, indeterminate, fenced } = *attempts;
        let outcomes =
            [("landed", landed), ("conflict", conflicts), ("indeterminate", indeterminate), ("fenced", fenced)];
        for (word, n_attempts) in outcomes {
            self.families.commits.with_label_values(&[flow.as_str(), word]).inc_by(n_attempts);
        }
    }

    /// Counts a piece of upkeep, how it ended and how long it took.
    pub fn upkeep(&self, flow: &Name, work: Work, outcome: WorkOutcome, took: Duration) {
        self.families.upkeep.with_label_values(&[flow.as_str(), work.as_str(), outcome.as_str()]).inc();
        self.families.upkeep_seconds.with_label_values(&[flow.as_str(), work.as_str()]).inc_by(took.as_secs_f64());
    }

    /// Counts the files that upkeep has replaced or removed, and their bytes.
    pub fn upkeep_spent(&self, flow: &Name, work: Work, files: u64, bytes: u64) {
        self.families.upkeep_files.with_label_values(&[flow.as_str(), work.as_str()]).inc_by(files);
        self.families.upkeep_bytes.with_label_values(&[flow.as_str(), work.as_str()]).inc_by(bytes);
    }

    /// Shows what the key index of a flow takes.
    pub fn index(&self, flow: &Name, n_keys: u64, bytes: u64) {
        let shown = [(&self.families.index_keys, n_keys), (&self.families.index_bytes, bytes)];
        for (family, value) in shown {
            family.with_label_values(&[flow.as_str()]).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    /// Counts a broken law; `law` is the name of one of the named laws.
    pub fn law_broken(&self, law: &'static str) {
        self.families.violations.with_label_values(&[law]).inc();
    }

    /// Returns what is known of every flow, by name.
    pub fn progress(&self) -> Vec<FlowProgress> {
        let show = |(flow, card): (&Name, &Card)| FlowProgress {
            flow: flow.clone(),
            state: card.state,
            records: card.records,
            rejects: card.rejects,
            lag: card.lag.as_ref().map(|(_, _, total)| *total),
            version: card.version,
        };
        self.flows().iter().map(show).collect()
    }

    /// Returns all families in Prometheus' text format, as of `now`.
    ///
    /// # Errors
    /// `Internal` when the text cannot be written.
    pub fn render(&self, now: Timestamp) -> Result<String> {
        self.refresh(now);
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .map_err(|source| Error::internal("cannot encode the metrics").with_source(source))?;
        String::from_utf8(text).map_err(|source| Error::internal("metrics are not UTF-8").with_source(source))
    }

    /// Brings the gauges up to `now` that depend on the time or are kept in cards.
    fn refresh(&self, now: Timestamp) {
        for (flow, card) in self.flows().iter() {
            for state in FlowState::ALL {
                let here = i64::from(state == card.state);
                self.families.states.with_label_values(&[flow.as_str(), state.as_str()]).set(here);
            }
            if let Some(newest) = card.newest {
                let age = Duration::from_millis(u64::try_from(now.0.saturating_sub(newest.0)).unwrap_or(0));
                self.families.freshness.with_label_values(&[flow.as_str()]).set(age.as_secs_f64());
            }
            if let Some(version) = card.version.and_then(|version| i64::try_from(version).ok()) {
                self.families.version.with_label_values(&[flow.as_str()]).set(version);
            }
        }
        if let Some(bytes) = process::resident_bytes() {
            self.families.resident.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    fn card<T>(&self, flow: &Name, change: impl FnOnce(&mut Card) -> T) -> T {
        change(self.flows().entry(flow.clone()).or_default())
    }

    fn flows(&self) -> MutexGuard<'_, BTreeMap<Name, Card>> {
        // A card is whole between any two statements above, so a panic elsewhere leaves nothing half-done here.
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").field("flows", &self.progress()).finish_non_exhaustive()
    }
}

impl FlowState {
    /// Every state, in the order that a flow passes through them.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Running, Self::Stopped, Self::Halted];

    /// Returns the word that metrics and displays use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Halted => "halted",
        }
    }
}

impl BatchOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Landed => "landed",
            Self::Dropped => "dropped",
            Self::Failed => "failed",
        }
    }
}

impl Work {
    /// Returns the word that metrics and logs use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compaction => "compaction",
            Self::Checkpoint => "checkpoint",
            Self::Checksum => "checksum",
            Self::CleanUp => "clean_up",
            Self::Vacuum => "vacuum",
        }
    }
}

impl WorkOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::GivenUp => "given_up",
            Self::Failed => "failed",
        }
    }
}

impl Stage {
    fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Decode => "decode",
            Self::Transform => "transform",
            Self::Write => "write",
            Self::Commit => "commit",
            Self::Record => "record",
        }
    }
}

#[cfg(test)]
mod tests;
