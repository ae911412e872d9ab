//! A topic of a test's own on a real broker: created, grown, produced to; every record's place comes from the broker.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::ledger::{Ledger, Record};
use super::{TestResult, unique};

/// How long the broker may take for anything.
const LIMIT: Duration = Duration::from_secs(30);

/// A topic and its producer.
pub(crate) struct Topic {
    name: String,
    bootstrap: String,
    producer: ThreadedProducer<Places>,
}

/// What the broker said of a record: which one it was, and its partition and offset.
type Delivery = (usize, Result<(i32, i64), KafkaError>);

/// Where records went: for each that was sent, in order, its partition and offset.
#[derive(Default)]
struct Places {
    delivered: Mutex<Vec<Delivery>>,
}

impl Topic {
    /// Creates a topic.
    pub(crate) async fn create(bootstrap: &str, n_partitions: i32) -> TestResult<Self> {
        let name = unique("test");
        let topic = NewTopic::new(&name, n_partitions, TopicReplication::Fixed(1));
        for created in admin(bootstrap)?.create_topics([&topic], &options()).await? {
            created.map_err(|(topic, error)| format!("cannot create {topic}: {error}"))?;
        }
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("enable.idempotence", "true").set("linger.ms", "5");
        config.set("topic.metadata.refresh.interval.ms", "500");
        let producer = config.create_with_context(Places::default())?;
        Ok(Self { name, bootstrap: bootstrap.to_owned(), producer })
    }

    /// Returns the topic's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Deletes the topic and creates it again under its name, without records.
    pub(crate) async fn recreate(&self, n_partitions: i32) -> TestResult {
        let admin = admin(&self.bootstrap)?;
        for deleted in admin.delete_topics(&[&self.name], &options()).await? {
            deleted.map_err(|(topic, error)| format!("cannot delete {topic}: {error}"))?;
        }
        let topic = NewTopic::new(&self.name, n_partitions, TopicReplication::Fixed(1));
        let begun = Instant::now();
        loop {
            let created = admin.create_topics([&topic], &options()).await?;
            match created.into_iter().next() {
                Some(Ok(_)) => return Ok(()),
                // A broker deletes in the background.
                Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) if begun.elapsed() < LIMIT => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                other => return Err(format!("cannot create {} again: {other:?}", self.name).into()),
            }
        }
    }

    /// Adds partitions until there are `n_partitions`.
    pub(crate) async fn grow(&self, n_partitions: usize) -> TestResult {
        let grown = NewPartitions::new(&self.name, n_partitions);
        for result in admin(&self.bootstrap)?.create_partitions([&grown], &options()).await? {
            result.map_err(|(topic, error)| format!("cannot add partitions to {topic}: {error}"))?;
        }
        Ok(())
    }

    /// Deletes the records of `partition` before `offset`, as retention does.
    pub(crate) async fn delete_before(&self, partition: i32, offset: i64) -> TestResult {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&self.name, partition, Offset::Offset(offset))?;
        let deleted = admin(&self.bootstrap)?.delete_records(&offsets, &options()).await?;
        Ok(deleted.elements().iter().try_for_each(|element| element.error())?)
    }

    /// Produces `records`, each to its partition, waits until the broker has them all, and writes them in the ledger.
    pub(crate) fn produce(&self, records: Vec<(i32, Record)>, ledger: &mut Ledger) -> TestResult {
        for (index, (partition, record)) in records.iter().enumerate() {
            let (key, value) = (record.key(), record.value());
            self.send(index, *partition, (key.as_deref(), value.as_deref()))?;
        }
        self.producer.flush(LIMIT)?;
        let mut delivered = std::mem::take(&mut *self.producer.context().lock());
        delivered.sort_by_key(|(index, _)| *index);
        if delivered.len() != records.len() {
            return Err(format!("the broker took {} of {} records", delivered.len(), records.len()).into());
        }
        for ((_, record), (_, place)) in records.into_iter().zip(delivered) {
            let (partition, offset) = place?;
            ledger.add(partition, offset, record);
        }
        Ok(())
    }

    fn send(&self, index: usize, partition: i32, (key, value): (Option<&[u8]>, Option<&[u8]>)) -> TestResult {
        let mut record: BaseRecord<'_, [u8], [u8], usize> =
            BaseRecord::with_opaque_to(&self.name, index).partition(partition);
        record.key = key;
        record.payload = value;
        let begun = Instant::now();
        while let Err((error, back)) = self.producer.send(record) {
            // A partition that was added a moment ago is unknown until the producer asks again.
            let passes = [RDKafkaErrorCode::QueueFull, RDKafkaErrorCode::UnknownPartition];
            if !error.rdkafka_error_code().is_some_and(|code| passes.contains(&code)) || begun.elapsed() > LIMIT {
                return Err(error.into());
            }
            record = back;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Topic").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Places {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Delivery>> {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Places {}

impl ProducerContext for Places {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let place = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        self.lock().push((index, place));
    }
}

fn admin(bootstrap: &str) -> TestResult<AdminClient<DefaultClientContext>> {
    Ok(ClientConfig::new().set("bootstrap.servers", bootstrap).create()?)
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(LIMIT)).request_timeout(Some(LIMIT))
}
