//! The in-memory twin of Kafka: a broker that tests can bend, and a source that keeps the same promises.
//!
//! Starts, batches, dedupe and fencing are the same code as the Kafka source's ([`start`](super::start),
//! [`intake`](super::intake), [`assignment`](super::assignment)). What differs is who decides about the assignment:
//! here a [`MemoryMember`] does, which the test holds.

mod broker;

pub use broker::{MemoryBroker, MemoryRecord};

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alluvium_catalog::{Offset, Partition, Result, Span, Topic};
use alluvium_sql::pipeline::{BatchLimits, Startup};
use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::source::assignment::Assignment;
use crate::source::intake::{Intake, Reading};
use crate::source::start::{Facts, check_range, start};
use crate::source::{Fetch, Lag, Source, SourceIdentity, TablePositions};

/// What to read, and how.
#[derive(Debug, Clone)]
pub struct MemorySettings {
    /// What is read.
    pub topic: Topic,
    /// Where partitions begin that the table has no position for.
    pub startup: Startup,
    /// When a batch closes.
    pub limits: BatchLimits,
    /// Whether to stop at the ends that the partitions have when the source is opened.
    pub once: bool,
    /// Asks the source to hand out what it has and stop.
    pub stop: CancellationToken,
}

impl MemorySettings {
    /// Returns settings that read from the earliest offset on, with the default limits, until stopped.
    pub fn new(topic: Topic) -> Self {
        let (limits, stop) = (BatchLimits::default(), CancellationToken::new());
        Self { topic, startup: Startup::Earliest, limits, once: false, stop }
    }
}

/// A topic of a [`MemoryBroker`], read batch by batch.
#[derive(Debug)]
pub struct MemorySource {
    broker: MemoryBroker,
    settings: MemorySettings,
    positions: Arc<dyn TablePositions>,
    member: MemoryMember,
    intake: Intake,
    origin: Origin,
    is_stopped: bool,
    /// Whether [`Fetch::Stopped`] is still to be told: once, and once more after each resync.
    owes_stopped: bool,
}

#[derive(Debug)]
struct Origin {
    n_partitions: usize,
    ends: Option<BTreeMap<Partition, Offset>>,
    begun: BTreeMap<Partition, Offset>,
}

/// The assignment of a [`MemorySource`], in the hands of a test.
#[derive(Clone, Default)]
pub struct MemoryMember {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    assignment: Mutex<Assignment>,
    changes: Mutex<VecDeque<Change>>,
    landed: Mutex<BTreeMap<Partition, Offset>>,
    changed: Notify,
}

#[derive(Clone)]
enum Change {
    Assign(Vec<Partition>),
    Revoke(Vec<Partition>),
}

impl MemoryMember {
    /// Assigns partitions; the source asks the table for their positions when it next fetches.
    pub fn assign(&self, partitions: &[Partition]) {
        self.change(Change::Assign(partitions.to_vec()));
    }

    /// Revokes partitions: batches that were handed out stop to hold at once.
    pub fn revoke(&self, partitions: &[Partition]) {
        {
            let mut assignment = lock(&self.shared.assignment);
            partitions.iter().for_each(|partition| assignment.revoke(*partition));
        }
        self.change(Change::Revoke(partitions.to_vec()));
    }

    /// Returns the positions that were acknowledged: what lag tools would see.
    pub fn acknowledged(&self) -> BTreeMap<Partition, Offset> {
        lock(&self.shared.landed).clone()
    }

    fn change(&self, change: Change) {
        lock(&self.shared.changes).push_back(change);
        self.shared.changed.notify_one();
    }
}

impl fmt::Debug for MemoryMember {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MemoryMember").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemorySource {
    /// Opens a source with every partition of the topic assigned.
    ///
    /// # Errors
    /// `Invalid` when there is no such topic.
    pub fn open(broker: &MemoryBroker, settings: MemorySettings, positions: Arc<dyn TablePositions>) -> Result<Self> {
        let source = Self::open_unassigned(broker, settings, positions)?;
        let partitions = source.broker.partitions(&source.settings.topic)?;
        source.member.assign(&partitions);
        Ok(source)
    }

    /// Opens a source that waits for its [`member`](Self::member) to be assigned partitions.
    ///
    /// # Errors
    /// `Invalid` when there is no such topic.
    pub fn open_unassigned(
        broker: &MemoryBroker,
        settings: MemorySettings,
        positions: Arc<dyn TablePositions>,
    ) -> Result<Self> {
        let partitions = broker.partitions(&settings.topic)?;
        let end = |partition: &Partition| Ok((*partition, broker.bounds(&settings.topic, *partition)?.high));
        let ends = if settings.once { Some(partitions.iter().map(end).collect::<Result<_>>()?) } else { None };
        Ok(Self {
            broker: broker.clone(),
            intake: Intake::new(settings.limits),
            origin: Origin { n_partitions: partitions.len(), ends, begun: BTreeMap::new() },
            member: MemoryMember::default(),
            is_stopped: false,
            owes_stopped: false,
            settings,
            positions,
        })
    }

    /// Returns the handle that assigns and revokes partitions.
    pub fn member(&self) -> MemoryMember {
        self.member.clone()
    }

    /// A change stays in the queue until it is done, so that a wait that is given up loses none.
    async fn serve_changes(&mut self) -> Result<()> {
        loop {
            let change = lock(&self.member.shared.changes).front().cloned();
            match change {
                None => return Ok(()),
                Some(Change::Assign(partitions)) => self.begin(&partitions).await?,
                Some(Change::Revoke(partitions)) => {
                    partitions.iter().for_each(|partition| self.intake.stop(*partition))
                }
            }
            lock(&self.member.shared.changes).pop_front();
        }
    }

    async fn begin(&mut self, partitions: &[Partition]) -> Result<()> {
        let landed = self.positions.positions().await?;
        for &partition in partitions {
            let facts = self.facts(partition, landed.get(&partition).copied())?;
            let start = start(&self.settings.topic, partition, &self.settings.startup, facts)?;
            if facts.landed.is_none() {
                self.origin.begun.insert(partition, start.at);
            }
            let epoch = lock(&self.member.shared.assignment).assign(partition, start.at);
            let end = self.origin.ends.as_ref().map(|ends| ends.get(&partition).copied().unwrap_or(start.at));
            self.intake.start(partition, Reading { epoch, at: start.at, end, announce: start.is_fleeting });
        }
        Ok(())
    }

    fn facts(&self, partition: Partition, landed: Option<Offset>) -> Result<Facts> {
        let topic = &self.settings.topic;
        let stamped = match &self.settings.startup {
            Startup::Timestamp(time) => self.broker.stamped(topic, partition, *time)?,
            _ => None,
        };
        Ok(Facts {
            landed,
            begun: self.origin.begun.get(&partition).copied(),
            stamped,
            is_young: usize::try_from(partition.0).is_ok_and(|index| index >= self.origin.n_partitions),
            bounds: self.broker.bounds(topic, partition)?,
        })
    }

    /// Reads what is there, until the batch is full.
    fn read(&mut self) -> Result<()> {
        let topic = &self.settings.topic;
        for (partition, position) in self.intake.positions() {
            let bounds = self.broker.bounds(topic, partition)?;
            check_range(topic, partition, position, bounds)?;
            lock(&self.member.shared.assignment).note_end(partition, bounds.high);
            if self.intake.is_full() {
                break;
            }
            let intake = &mut self.intake;
            let is_through = self.broker.read(topic, partition, position, |record, headers| {
                intake.take(record, || headers.clone());
                !intake.is_full()
            })?;
            if is_through {
                self.intake.reach(partition, bounds.high);
            }
        }
        Ok(())
    }

    fn close_batch(&mut self) -> Result<Option<Fetch>> {
        let Some(closed) = self.intake.close()? else { return Ok(None) };
        // A revoke may have come since changes were last served.
        let fetched = closed.hand_out(&mut lock(&self.member.shared.assignment));
        Ok(fetched.map(|fetched| Fetch::Batch(Box::new(fetched))))
    }

    /// Returns what there is to hand out now, if anything.
    async fn next(&mut self) -> Result<Option<Fetch>> {
        self.serve_changes().await?;
        if !self.is_stopped && self.settings.stop.is_cancelled() {
            (self.is_stopped, self.owes_stopped) = (true, true);
            if let Some(batch) = self.close_batch()? {
                return Ok(Some(batch));
            }
        }
        if self.is_stopped {
            return Ok(std::mem::take(&mut self.owes_stopped).then_some(Fetch::Stopped));
        }
        self.read()?;
        let is_drained = self.origin.ends.is_some() && self.intake.is_drained();
        let is_due = is_drained || self.intake.is_full() || self.intake.due().is_some_and(|due| due <= Instant::now());
        if is_due && let Some(batch) = self.close_batch()? {
            return Ok(Some(batch));
        }
        Ok(is_drained.then_some(Fetch::Drained))
    }
}

#[async_trait]
impl Source for MemorySource {
    async fn fetch(&mut self) -> Result<Fetch> {
        let idle_at = Instant::now() + self.settings.limits.interval;
        loop {
            // Registered before looking, so that what comes while we look wakes us.
            let (broker, member) = (self.broker.clone(), self.member.clone());
            let grown = broker.grown();
            let mut grown = std::pin::pin!(grown);
            grown.as_mut().enable();
            if let Some(fetch) = self.next().await? {
                return Ok(fetch);
            }
            // Once stopped, what is open is never closed, and the stop wakes nobody again.
            let is_stopped = self.is_stopped;
            let due = self.intake.due().filter(|_| !is_stopped);
            let stop = self.settings.stop.clone();
            let woken = async {
                tokio::select! {
                    () = grown => {}
                    () = member.shared.changed.notified() => {}
                    () = stop.cancelled(), if !is_stopped => {}
                }
            };
            if timeout_at(due.unwrap_or(idle_at), woken).await.is_err() && due.is_none() {
                return Ok(Fetch::Idle);
            }
        }
    }

    fn holds(&self, span: &Span) -> bool {
        lock(&self.member.shared.assignment).holds(span)
    }

    async fn resync(&mut self) -> Result<()> {
        self.serve_changes().await?;
        let partitions: Vec<_> = lock(&self.member.shared.assignment).partitions().collect();
        self.begin(&partitions).await?;
        self.owes_stopped = self.is_stopped;
        Ok(())
    }

    fn acknowledge(&mut self, span: &Span) {
        let mut landed = lock(&self.member.shared.landed);
        landed.extend(span.iter().map(|(partition, range)| (partition, range.next)));
    }

    fn is_ready(&self) -> bool {
        lock(&self.member.shared.assignment).partitions().next().is_some()
    }

    fn lag(&self) -> Vec<Lag> {
        lock(&self.member.shared.assignment).lag()
    }

    fn identity(&self) -> SourceIdentity {
        self.broker.identity(&self.settings.topic)
    }

    async fn close(&mut self) -> Result<()> {
        let partitions = self.intake.positions();
        let mut assignment = lock(&self.member.shared.assignment);
        for partition in partitions.into_keys() {
            self.intake.stop(partition);
            assignment.revoke(partition);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
