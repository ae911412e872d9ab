//! Topics that hold a workload. A topic is filled once: later runs find it by its name and its number of records.

use std::time::{Duration, Instant};

use alluvium_benches::Workload;
use alluvium_benches::report::{grouped, show};
use alluvium_catalog::{Error, Result};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

/// How long the broker may take for one answer.
const LIMIT: Duration = Duration::from_secs(30);
/// How long filling a topic may take; ten million records take two minutes.
const FLUSH_LIMIT: Duration = Duration::from_secs(600);

/// A topic that holds all records of a workload.
#[derive(Debug, Clone)]
pub(crate) struct FilledTopic {
    pub(crate) name: String,
    pub(crate) records: u64,
}

impl FilledTopic {
    /// Finds the topic of `workload`, or fills it. A topic that holds another number of records is made again.
    pub(crate) fn find_or_fill(bootstrap: &str, name: &str, workload: &Workload, n_partitions: i32) -> Result<Self> {
        let topic = format!("bench-{name}-{}-p{n_partitions}-{}", workload.records, workload.fingerprint());
        let filled = Self { name: topic, records: workload.records };
        match count(bootstrap, &filled.name)? {
            Some(held) if held == workload.records => return Ok(filled),
            Some(_) => remove(bootstrap, &filled.name)?,
            None => {}
        }
        show(&format!("filling {} with {} records\n", filled.name, grouped(workload.records as f64)))?;
        create(bootstrap, &filled.name, n_partitions)?;
        let producer = producer(bootstrap)?;
        for record in workload.records() {
            let partition = partition_of(record.key, n_partitions);
            let record: BaseRecord<'_, [u8], [u8]> =
                BaseRecord::to(&filled.name).partition(partition).payload(&record.value);
            send(&producer, record)?;
        }
        flush(&producer)?;
        match count(bootstrap, &filled.name)? {
            Some(held) if held == workload.records => Ok(filled),
            held => Err(Error::data(format!("{} holds {held:?} records after it was filled", filled.name))),
        }
    }
}

/// Returns a producer of large compressed batches.
pub(crate) fn producer(bootstrap: &str) -> Result<ThreadedProducer<DefaultProducerContext>> {
    config(bootstrap)
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .set("batch.size", "1000000")
        .set("enable.idempotence", "true")
        .create()
        .map_err(|cause| failed("make a producer", cause))
}

/// Returns a producer that holds records back for no longer than five milliseconds.
pub(crate) fn prompt_producer(bootstrap: &str) -> Result<ThreadedProducer<DefaultProducerContext>> {
    config(bootstrap)
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("enable.idempotence", "true")
        .create()
        .map_err(|cause| failed("make a producer", cause))
}

/// Queues a record, waiting while the queue is full.
pub(crate) fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    mut record: BaseRecord<'_, [u8], [u8]>,
) -> Result<()> {
    let begun = Instant::now();
    while let Err((cause, back)) = producer.send(record) {
        let passes = [RDKafkaErrorCode::QueueFull, RDKafkaErrorCode::UnknownPartition];
        let is_passing = cause.rdkafka_error_code().is_some_and(|code| passes.contains(&code));
        if !is_passing || begun.elapsed() > LIMIT {
            return Err(failed("produce", cause));
        }
        record = back;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Waits until the broker has all that was queued.
pub(crate) fn flush(producer: &ThreadedProducer<DefaultProducerContext>) -> Result<()> {
    producer.flush(FLUSH_LIMIT).map_err(|cause| failed("flush", cause))
}

/// Keys keep to a partition, as a producer that partitions by key has it.
pub(crate) fn partition_of(key: u64, n_partitions: i32) -> i32 {
    let n_partitions = u64::try_from(n_partitions).unwrap_or(1).max(1);
    i32::try_from(key % n_partitions).unwrap_or_default()
}

/// Creates a topic that keeps its records.
pub(crate) fn create(bootstrap: &str, topic: &str, n_partitions: i32) -> Result<()> {
    let new = NewTopic::new(topic, n_partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    let begun = Instant::now();
    loop {
        let created = block_on(admin(bootstrap)?.create_topics([&new], &options()))?;
        match created.map_err(|cause| failed("create a topic", cause))?.pop() {
            // A topic that was removed a moment ago is still in the way.
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) if begun.elapsed() < LIMIT => {
                std::thread::sleep(Duration::from_millis(200));
            }
            Some(Err((topic, code))) => return Err(Error::unavailable(format!("cannot create {topic}: {code}"))),
            _ => return Ok(()),
        }
    }
}

/// Removes a topic.
pub(crate) fn remove(bootstrap: &str, topic: &str) -> Result<()> {
    let removed = block_on(admin(bootstrap)?.delete_topics(&[topic], &options()))?;
    removed.map(drop).map_err(|cause| failed("remove a topic", cause))
}

/// Counts the records of a topic by its offsets; `None` when there is no such topic.
fn count(bootstrap: &str, topic: &str) -> Result<Option<u64>> {
    let consumer: BaseConsumer = config(bootstrap).create().map_err(|cause| failed("connect", cause))?;
    let metadata = consumer.fetch_metadata(None, LIMIT).map_err(|cause| failed("reach the broker", cause))?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
    let mut records = 0;
    for partition in found.partitions() {
        let bounds = consumer.fetch_watermarks(topic, partition.id(), LIMIT);
        let (low, high) = bounds.map_err(|cause| failed("ask for offsets", cause))?;
        records += u64::try_from(high - low).unwrap_or_default();
    }
    Ok(Some(records))
}

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("topic.metadata.refresh.interval.ms", "500");
    config
}

fn admin(bootstrap: &str) -> Result<AdminClient<DefaultClientContext>> {
    config(bootstrap).create().map_err(|cause| failed("make an admin client", cause))
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(LIMIT)).request_timeout(Some(LIMIT))
}

fn block_on<T>(work: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|cause| Error::internal("cannot start a runtime").with_source(cause))?.block_on(work))
}

fn failed(what: &str, cause: KafkaError) -> Error {
    Error::unavailable(format!("cannot {what}")).with_source(cause)
}
