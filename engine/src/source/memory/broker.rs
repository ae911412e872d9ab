//! Topics in memory, with everything that a log can do to its readers: gaps, retention, truncation, re-creation.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alluvium_catalog::{Error, Offset, Partition, Result, Timestamp, Topic};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::hop::{Headers, Record};
use crate::source::SourceIdentity;
use crate::source::start::Bounds;

/// A broker in memory. Clones share their topics.
#[derive(Clone, Default)]
pub struct MemoryBroker {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: String,
    topics: Mutex<BTreeMap<Topic, Log>>,
    grown: Notify,
}

impl Default for Shared {
    fn default() -> Self {
        Self { cluster: "memory".to_owned(), topics: Mutex::default(), grown: Notify::default() }
    }
}

struct Log {
    generation: u64,
    partitions: Vec<Segment>,
}

#[derive(Clone, Default)]
struct Segment {
    low: i64,
    high: i64,
    records: BTreeMap<i64, MemoryRecord>,
}

/// A record to append.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryRecord {
    /// The timestamp, epoch milliseconds.
    pub timestamp_ms: Option<i64>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; without one, the record is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers.
    pub headers: Headers,
}

impl MemoryRecord {
    /// Returns a record with a value alone.
    pub fn of(value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }
}

impl MemoryBroker {
    /// Returns a broker without topics that is another cluster than the default one.
    pub fn of_cluster(cluster: impl Into<String>) -> Self {
        Self { shared: Arc::new(Shared { cluster: cluster.into(), ..Shared::default() }) }
    }

    /// Creates a topic, or creates it anew: its records are gone and its id is another.
    pub fn create_topic(&self, topic: &Topic, n_partitions: usize) {
        let mut topics = self.topics();
        let generation = topics.get(topic).map_or(1, |log| log.generation + 1);
        topics.insert(topic.clone(), Log { generation, partitions: vec![Segment::default(); n_partitions] });
        drop(topics);
        self.shared.grown.notify_waiters();
    }

    /// Adds a partition and returns it.
    ///
    /// # Errors
    /// `Invalid` when there is no such topic.
    pub fn add_partition(&self, topic: &Topic) -> Result<Partition> {
        let mut topics = self.topics();
        let log = topics.get_mut(topic).ok_or_else(|| unknown(topic))?;
        log.partitions.push(Segment::default());
        Ok(partition_at(log.partitions.len() - 1))
    }

    /// Appends a record and returns its offset.
    ///
    /// # Errors
    /// `Invalid` when there is no such partition.
    pub fn append(&self, topic: &Topic, partition: Partition, record: MemoryRecord) -> Result<Offset> {
        let offset = self.change(topic, partition, |segment| {
            let offset = segment.high;
            segment.records.insert(offset, record);
            segment.high += 1;
            offset
        });
        self.shared.grown.notify_waiters();
        offset.map(Offset)
    }

    /// Lets the end of a partition grow without records, as transaction markers and aborted transactions do.
    ///
    /// # Errors
    /// `Invalid` when there is no such partition.
    pub fn skip(&self, topic: &Topic, partition: Partition, n_offsets: i64) -> Result<()> {
        self.change(topic, partition, |segment| segment.high += n_offsets)?;
        self.shared.grown.notify_waiters();
        Ok(())
    }

    /// Takes a record out of the middle, as compaction does.
    ///
    /// # Errors
    /// `Invalid` when there is no such partition.
    pub fn compact(&self, topic: &Topic, partition: Partition, offset: Offset) -> Result<()> {
        self.change(topic, partition, |segment| drop(segment.records.remove(&offset.0)))
    }

    /// Deletes everything below `low`, as retention does.
    ///
    /// # Errors
    /// `Invalid` when there is no such partition.
    pub fn retain_from(&self, topic: &Topic, partition: Partition, low: Offset) -> Result<()> {
        self.change(topic, partition, |segment| {
            segment.low = low.0.clamp(segment.low, segment.high);
            segment.records = segment.records.split_off(&segment.low);
        })
    }

    /// Deletes everything from `high` on, as an unclean election does.
    ///
    /// # Errors
    /// `Invalid` when there is no such partition.
    pub fn truncate(&self, topic: &Topic, partition: Partition, high: Offset) -> Result<()> {
        self.change(topic, partition, |segment| {
            segment.high = high.0.clamp(segment.low, segment.high);
            drop(segment.records.split_off(&segment.high));
        })
    }

    /// Returns the partitions of `topic`.
    pub(super) fn partitions(&self, topic: &Topic) -> Result<Vec<Partition>> {
        let topics = self.topics();
        let log = topics.get(topic).ok_or_else(|| unknown(topic))?;
        Ok((0..log.partitions.len()).map(partition_at).collect())
    }

    /// Returns what a partition holds.
    pub(super) fn bounds(&self, topic: &Topic, partition: Partition) -> Result<Bounds> {
        self.change(topic, partition, |segment| Bounds { low: Offset(segment.low), high: Offset(segment.high) })
    }

    /// Returns the first record at or after `time`.
    pub(super) fn stamped(&self, topic: &Topic, partition: Partition, time: Timestamp) -> Result<Option<Offset>> {
        self.change(topic, partition, |segment| {
            let mut records = segment.records.iter();
            let found = records.find(|(_, record)| record.timestamp_ms.is_some_and(|millis| millis >= time.0));
            found.map(|(offset, _)| Offset(*offset))
        })
    }

    /// Shows the records from `position` on until `visit` says stop; tells whether it came to the end.
    pub(super) fn read(
        &self,
        topic: &Topic,
        partition: Partition,
        position: Offset,
        mut visit: impl FnMut(Record<'_>, &Headers) -> bool,
    ) -> Result<bool> {
        self.change(topic, partition, |segment| {
            segment.records.range(position.0..).all(|(offset, record)| {
                let MemoryRecord { timestamp_ms, key, value, headers } = record;
                let (key, value) = (key.as_deref(), value.as_deref());
                visit(Record { partition, offset: Offset(*offset), timestamp_ms: *timestamp_ms, key, value }, headers)
            })
        })
    }

    /// Returns a future that ends when a topic grows.
    pub(super) fn grown(&self) -> Notified<'_> {
        self.shared.grown.notified()
    }

    /// Returns the broker's id and the topic's.
    pub(super) fn identity(&self, topic: &Topic) -> SourceIdentity {
        let topic_id = self.topics().get(topic).map(|log| format!("{topic}-{}", log.generation));
        SourceIdentity { cluster: Some(self.shared.cluster.clone()), topic_id }
    }

    fn change<T>(&self, topic: &Topic, partition: Partition, change: impl FnOnce(&mut Segment) -> T) -> Result<T> {
        let mut topics = self.topics();
        let log = topics.get_mut(topic).ok_or_else(|| unknown(topic))?;
        let segment = usize::try_from(partition.0).ok().and_then(|index| log.partitions.get_mut(index));
        segment.map(change).ok_or_else(|| Error::invalid(format!("there is no partition {topic}/{partition}")))
    }

    fn topics(&self) -> MutexGuard<'_, BTreeMap<Topic, Log>> {
        self.shared.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MemoryBroker").finish_non_exhaustive()
    }
}

fn partition_at(index: usize) -> Partition {
    Partition(i32::try_from(index).unwrap_or(i32::MAX))
}

fn unknown(topic: &Topic) -> Error {
    Error::invalid(format!("there is no topic {topic}")).with_hint("create it first")
}
