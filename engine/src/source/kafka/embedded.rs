//! A Kafka broker inside the process, for the demo and for tests: librdkafka's mock cluster and a producer.
//!
//! It speaks the real protocol on a loopback port, groups and rebalances included, and keeps records in memory: the
//! newest 5 MiB of each partition. It has no transactions, no compaction, no lookup by timestamp and no access control;
//! what hangs on those is proven on a real broker (`tests/startup.rs`, `tests/sasl.rs`).

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use alluvium_catalog::{Connection, Error, Name, OptionValue, Partition, Result};
use bytes::Bytes;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use tokio::time::{Instant, sleep};

/// How long a full queue or a flush may take: the broker is in this process.
const PRODUCE_LIMIT: Duration = Duration::from_secs(30);
/// How often a full queue or a flush is looked at.
const PRODUCE_PAUSE: Duration = Duration::from_millis(2);

/// A running broker. It ends when it is dropped.
pub struct EmbeddedBroker {
    producer: BaseProducer<Deliveries>,
    bootstrap: String,
}

/// A record to produce.
#[derive(Debug, Clone, Default)]
pub struct Message<'a> {
    /// The partition; without one, the key decides.
    pub partition: Option<Partition>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; without one, the record is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// The timestamp, epoch milliseconds; without one, the time at which it is produced.
    pub timestamp_ms: Option<i64>,
}

impl EmbeddedBroker {
    /// Starts a broker with `topics`, each with its number of partitions.
    ///
    /// # Errors
    /// `Unavailable` when no loopback port can be had, `Invalid` when a topic cannot be created.
    pub fn start(topics: &[(&str, i32)]) -> Result<Self> {
        let failed = |error| Error::unavailable("cannot start the embedded broker").with_source(error);
        let mut config = ClientConfig::new();
        config.set("client.id", "alluvium-embedded").set("test.mock.num.brokers", "1").set("linger.ms", "5");
        let producer: BaseProducer<Deliveries> = config.create_with_context(Deliveries::default()).map_err(failed)?;
        let cluster =
            producer.client().mock_cluster().ok_or_else(|| Error::internal("the embedded broker has no cluster"))?;
        for (topic, n_partitions) in topics {
            let created = cluster.create_topic(topic, *n_partitions, 1);
            created.map_err(|error| Error::invalid(format!("cannot create topic {topic}")).with_source(error))?;
        }
        let bootstrap = cluster.bootstrap_servers();
        drop(cluster);
        Ok(Self { producer, bootstrap })
    }

    /// Returns what `bootstrap.servers` has to say.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Returns a connection to the broker.
    pub fn connection(&self, name: Name) -> Connection {
        let options = [("bootstrap.servers".to_owned(), OptionValue::Text(self.bootstrap.clone()))].into();
        Connection { name, kind: "kafka".to_owned(), options }
    }

    /// Queues a record; [`flush`](Self::flush) waits until the broker has it.
    ///
    /// # Errors
    /// `Invalid` when the broker cannot take the record, `Unavailable` when the queue stays full.
    pub async fn produce(&self, topic: &str, message: Message<'_>) -> Result<()> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
        record.partition = message.partition.map(|partition| partition.0);
        record.key = message.key;
        record.payload = message.value;
        record.timestamp = message.timestamp_ms;
        if !message.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(message.headers.len());
            record.headers = Some(
                message
                    .headers
                    .iter()
                    .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: value.as_deref() })),
            );
        }
        let begun = Instant::now();
        while let Err((error, back)) = self.producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(Error::invalid(format!("cannot produce to {topic}")).with_source(error));
            }
            if begun.elapsed() > PRODUCE_LIMIT {
                return Err(Error::unavailable(format!("the queue to {topic} stays full")).with_source(error));
            }
            record = back;
            self.producer.poll(Duration::ZERO);
            sleep(PRODUCE_PAUSE).await;
        }
        Ok(())
    }

    /// Waits until the broker has everything that was produced.
    ///
    /// # Errors
    /// `Unavailable` when that takes too long, `Invalid` when the broker refused a record.
    pub async fn flush(&self) -> Result<()> {
        let begun = Instant::now();
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(Duration::ZERO);
            if begun.elapsed() > PRODUCE_LIMIT {
                return Err(Error::unavailable("the embedded broker does not take what was produced"));
            }
            sleep(PRODUCE_PAUSE).await;
        }
        match self.producer.context().take_failure() {
            Some(error) => Err(Error::invalid("the embedded broker refused a record").with_source(error)),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for EmbeddedBroker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EmbeddedBroker").field("bootstrap", &self.bootstrap).finish_non_exhaustive()
    }
}

/// Remembers the first record that was refused.
#[derive(Default)]
struct Deliveries {
    failure: Mutex<Option<KafkaError>>,
}

impl Deliveries {
    fn take_failure(&self) -> Option<KafkaError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {
        if let Err((error, _)) = result {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.clone());
        }
    }
}
