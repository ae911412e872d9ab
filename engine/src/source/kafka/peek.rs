//! A bounded look at the newest records of a topic, for people: joins no group, commits nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use alluvium_catalog::{Connection, Error, Offset, Partition, Result, Topic};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::Offset as Position;

use super::UNKNOWN_LIMIT;
use super::client::Context;
use super::connect::Unassigned;
use super::fault::{Verdict, judge};
use super::headers::headers;
use super::poll::list;
use crate::hop::{Record, Records, header_bytes};

/// librdkafka wants a group's name to assign partitions by hand; the group is never joined and has no offsets.
const GROUP: &str = "alluvium-peek";
/// The longest wait for one message.
const WAIT: Duration = Duration::from_millis(50);

/// How much is looked at.
#[derive(Debug, Clone, Copy)]
pub struct PeekLimits {
    /// The newest records of each partition.
    pub records_max: usize,
    /// Bytes of keys, values and headers in all; the record that reaches it is the last.
    pub bytes_max: usize,
    /// Time in all. What came until then is returned, unless no broker answered.
    pub timeout: Duration,
}

impl Default for PeekLimits {
    /// What fills some screens and arrives before one gets impatient.
    fn default() -> Self {
        Self { records_max: 1_000, bytes_max: 16 << 20, timeout: Duration::from_secs(10) }
    }
}

/// Returns the newest records of `topic`, newest first, a record of each partition in turn.
///
/// # Errors
/// `Invalid` when the connection's options, its credentials or the topic are wrong, `Unavailable` when no broker
/// answers in time.
pub async fn peek(connection: &Connection, topic: &Topic, limits: PeekLimits) -> Result<Records> {
    let (connection, topic) = (connection.clone(), topic.clone());
    let looked = tokio::task::spawn_blocking(move || look(&connection, &topic, limits)).await;
    looked.unwrap_or_else(|error| Err(Error::internal("the look at a topic was broken off").with_source(error)))
}

fn look(connection: &Connection, topic: &Topic, limits: PeekLimits) -> Result<Records> {
    let deadline = Instant::now() + limits.timeout;
    let unassigned = Unassigned::create(connection, topic, GROUP)?;
    let mut windows = BTreeMap::new();
    for partition in unassigned.partitions(UNKNOWN_LIMIT, limits.timeout)? {
        let bounds = unassigned.view().bounds(partition)?;
        let n_records = i64::try_from(limits.records_max).unwrap_or(i64::MAX);
        let first = bounds.low.max(Offset(bounds.high.0.saturating_sub(n_records)));
        if first < bounds.high {
            windows.insert(partition, Window { first, next: first, end: bounds.high });
        }
    }
    let consumer = unassigned.into_consumer();
    let starts = windows.iter().map(|(partition, window)| (*partition, Position::Offset(window.first.0)));
    let assigned = consumer.assign(&list(topic.as_str(), starts)?);
    assigned.map_err(|error| Error::unavailable(format!("cannot read {topic}")).with_source(error))?;
    let mut collected = Collected { windows, by_partition: BTreeMap::new(), n_bytes: 0 };
    while !collected.is_done(limits) && Instant::now() < deadline {
        collected.poll(&consumer, topic)?;
    }
    Ok(collected.into_records())
}

struct Window {
    first: Offset,
    next: Offset,
    end: Offset,
}

struct Collected {
    windows: BTreeMap<Partition, Window>,
    by_partition: BTreeMap<Partition, Records>,
    n_bytes: usize,
}

impl Collected {
    fn is_done(&self, limits: PeekLimits) -> bool {
        self.n_bytes >= limits.bytes_max || self.windows.values().all(|window| window.next >= window.end)
    }

    fn poll(&mut self, consumer: &BaseConsumer<Context>, topic: &Topic) -> Result<()> {
        match consumer.poll(WAIT) {
            None => {}
            Some(Ok(message)) => self.take(&message),
            Some(Err(KafkaError::PartitionEOF(partition))) => self.finish(Partition(partition)),
            Some(Err(error)) => {
                let reason = consumer.context().reason();
                match judge(topic, &error, &reason) {
                    Verdict::GoOn => {}
                    Verdict::Fail(error) => return Err(error),
                    Verdict::OutOfRange | Verdict::TopicGone => {
                        return Err(Error::unavailable(format!("{topic} changed while it was looked at: {reason}")));
                    }
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self, partition: Partition) {
        if let Some(window) = self.windows.get_mut(&partition) {
            window.next = window.end;
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let (partition, offset) = (Partition(message.partition()), Offset(message.offset()));
        let Some(window) = self.windows.get_mut(&partition) else { return };
        let is_wanted = window.next <= offset && offset < window.end;
        window.next = window.next.max(offset.succ());
        if is_wanted {
            let (key, value, headers) = (message.key(), message.payload(), headers(message));
            self.n_bytes += key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + header_bytes(&headers);
            let record = Record { partition, offset, timestamp_ms: message.timestamp().to_millis(), key, value };
            self.by_partition.entry(partition).or_default().push(record, headers);
        }
    }

    /// Returns the newest record of each partition, then the one before it of each, and so on: a LIMIT that takes the
    /// first of them sees the newest of all partitions.
    fn into_records(self) -> Records {
        let mut turns = Vec::new();
        for records in self.by_partition.values() {
            let n_records = records.len();
            turns.extend(records.iter().enumerate().map(|(index, record)| (n_records - index, index, records, record)));
        }
        // Within a turn the partitions stay in their order.
        turns.sort_by_key(|(age, ..)| *age);
        let mut all = Records::default();
        for (_, index, records, record) in turns {
            all.push(record, records.headers(index).to_vec());
        }
        all
    }
}
