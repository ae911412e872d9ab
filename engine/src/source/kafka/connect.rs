//! What is asked of the brokers before and between polls: is the topic there, which records does it hold.
//!
//! Every question blocks the calling thread, and every one has a limit. None takes a record from a consumer that reads:
//! what `poll` returns here is thrown away, and only an [`Unassigned`] consumer, which has no records, is polled here.

use std::thread;
use std::time::{Duration, Instant};

use alluvium_catalog::{Connection, Error, Offset, OptionValue, Partition, Result, Timestamp, Topic};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataPartition, MetadataTopic};
use rdkafka::topic_partition_list::{Offset as Position, TopicPartitionList};

use super::client::{Context, client_config, consumer};
use super::describe::topic_id;
use super::refusal::LOGIN;
use crate::source::start::Bounds;

/// One try to fetch metadata.
const TRY_LIMIT: Duration = Duration::from_secs(2);
/// The pause between tries.
const PAUSE: Duration = Duration::from_millis(100);
/// How long ends and positions of one partition may take; elections last seconds.
const PARTITION_LIMIT: Duration = Duration::from_secs(30);

/// A consumer that has asked for no records yet: it has joined no group and was assigned no partition.
///
/// It alone may be polled for the client's events and nothing else; what comes out of any other would be lost to the
/// table. So there is no way back: [`into_consumer`](Self::into_consumer) gives the consumer away, and no call makes one
/// of these from a consumer that exists.
pub(super) struct Unassigned<'a> {
    consumer: BaseConsumer<Context>,
    connection: &'a Connection,
    topic: &'a Topic,
}

impl<'a> Unassigned<'a> {
    /// Creates a consumer of `topic` in `group`, which is not joined yet.
    ///
    /// # Errors
    /// `Invalid` when the connection's options are wrong.
    pub(super) fn create(connection: &'a Connection, topic: &'a Topic, group: &str) -> Result<Self> {
        let consumer = consumer(connection, &client_config(connection, group)?)?;
        Ok(Self { consumer, connection, topic })
    }

    /// Waits until a broker answers and returns the topic's partitions.
    ///
    /// # Errors
    /// `Invalid` when the topic stays unknown for `unknown_limit` or the brokers refuse us, `Unavailable` when no broker
    /// answers in `limit`.
    pub(super) fn partitions(&self, unknown_limit: Duration, limit: Duration) -> Result<Vec<Partition>> {
        self.view().wait(unknown_limit, limit, || self.serve())
    }

    /// Returns the topic as this consumer sees it.
    pub(super) fn view(&self) -> TopicView<'_> {
        TopicView { consumer: &self.consumer, connection: self.connection, topic: self.topic }
    }

    /// Gives the consumer away, to be assigned partitions.
    pub(super) fn into_consumer(self) -> BaseConsumer<Context> {
        self.consumer
    }

    /// Serves the client's events, among them refused credentials, which no answer to a question tells.
    ///
    /// A refusal is believed here alone: what was noted is as old as this consumer, which was never let in.
    fn serve(&self) -> Result<()> {
        let polled = self.consumer.poll(PAUSE);
        drop(polled);
        match self.consumer.context().refusal() {
            Some(refusal) => Err(self.view().refused(&refusal.reason, refusal.hint(self.connection))),
            None => Ok(()),
        }
    }
}

/// A topic as one consumer sees it. It asks the brokers and never polls, so that it may be used at any time.
pub(super) struct TopicView<'a> {
    pub(super) consumer: &'a BaseConsumer<Context>,
    pub(super) connection: &'a Connection,
    pub(super) topic: &'a Topic,
}

enum Look {
    Ready(Vec<Partition>),
    Unknown,
    NotYet(String),
}

impl TopicView<'_> {
    /// Looks whether a topic that is read and seems gone is there: waits until a broker shows it.
    ///
    /// The consumer is assigned, so records wait in its queue, and errors of partitions among them. They stay there until
    /// the poll thread takes them: this only asks, and sleeps between tries. Meanwhile no change of the assignment is
    /// answered, and the group must bear that for `limit` and one try more: heartbeats go on by themselves, and a rebalance
    /// waits for `max.poll.interval.ms` (300 s).
    ///
    /// A refusal that was noted while reading is not asked for: since then the brokers may have let us in again, and those
    /// that refuse us now give no answer.
    ///
    /// # Errors
    /// `Invalid` when the topic stays unknown for `unknown_limit` or the answer refuses us, `Unavailable` when no broker
    /// answers in `limit`, `Closed` when `is_over` ends the look.
    pub(super) fn look_again(
        &self,
        unknown_limit: Duration,
        limit: Duration,
        is_over: impl Fn() -> bool,
    ) -> Result<()> {
        let go_on = || match is_over() {
            true => Err(Error::closed(format!("the look for {} was stopped", self.topic))),
            false => Ok(()),
        };
        self.wait(unknown_limit, limit, go_on).map(drop)
    }

    /// Asks for the topic's partitions until a broker shows them, and does `between` after each try that was in vain.
    fn wait(
        &self,
        unknown_limit: Duration,
        limit: Duration,
        between: impl Fn() -> Result<()>,
    ) -> Result<Vec<Partition>> {
        let begun = Instant::now();
        // Brokers that have just come up may not know it yet, and those that do not answer say nothing.
        let mut unknown_since = None;
        loop {
            let trouble = match self.look()? {
                Look::Ready(partitions) => return Ok(partitions),
                Look::Unknown => {
                    if unknown_since.get_or_insert_with(Instant::now).elapsed() >= unknown_limit.min(limit) {
                        return Err(self.unknown());
                    }
                    "the topic is unknown".to_owned()
                }
                Look::NotYet(trouble) => trouble,
            };
            between()?;
            if begun.elapsed() >= limit {
                if limit <= unknown_limit && unknown_since.is_some() {
                    return Err(self.unknown());
                }
                let trouble = self.consumer.context().trouble().unwrap_or(trouble);
                return Err(self.unreachable(&trouble, limit));
            }
            thread::sleep(PAUSE);
        }
    }

    /// Returns the topic's id; `None` where the brokers know none.
    pub(super) fn id(&self) -> Result<Option<String>> {
        let topic = self.topic;
        self.retry(&format!("the id of {topic}"), || {
            // A leader has to answer for reading anyway; the controller, which would be asked, may be out of our reach.
            let metadata = self.consumer.fetch_metadata(Some(topic.as_str()), TRY_LIMIT)?;
            let partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
            let leader = partitions.map(MetadataPartition::leader).find(|leader| *leader >= 0);
            let leader = leader.ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable))?;
            topic_id(self.consumer.client(), topic, leader, TRY_LIMIT)
        })
    }

    /// Returns what the partition holds; the end is the last stable offset.
    pub(super) fn bounds(&self, partition: Partition) -> Result<Bounds> {
        let topic = self.topic.as_str();
        let (low, high) = self.retry(&format!("the ends of {topic}/{partition}"), || {
            self.consumer.fetch_watermarks(topic, partition.0, TRY_LIMIT)
        })?;
        Ok(Bounds { low: Offset(low), high: Offset(high) })
    }

    /// Returns the offset of the first record at or after `time`, if there is one.
    pub(super) fn stamped(&self, partition: Partition, time: Timestamp) -> Result<Option<Offset>> {
        let topic = self.topic.as_str();
        let found = self.retry(&format!("the offset of {topic}/{partition} at {time}"), || {
            let mut times = TopicPartitionList::new();
            times.add_partition_offset(topic, partition.0, Position::Offset(time.0.max(0)))?;
            let answer = self.consumer.offsets_for_times(times, TRY_LIMIT)?;
            let found = answer.elements().first().map(|element| element.error().map(|()| element.offset()));
            found.unwrap_or(Ok(Position::End))
        })?;
        Ok(match found {
            Position::Offset(offset) => Some(Offset(offset)),
            _ => None,
        })
    }

    fn look(&self) -> Result<Look> {
        match self.consumer.fetch_metadata(Some(self.topic.as_str()), TRY_LIMIT) {
            Ok(metadata) => self.judge(&metadata),
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Authentication) => {
                Err(self.refused(&error.to_string(), LOGIN))
            }
            Err(error) => Ok(Look::NotYet(error.to_string())),
        }
    }

    fn judge(&self, metadata: &Metadata) -> Result<Look> {
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == self.topic.as_str()) else {
            return Ok(Look::Unknown);
        };
        match topic.error().map(RDKafkaErrorCode::from) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                return Ok(Look::Unknown);
            }
            Some(code @ (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::InvalidTopic)) => {
                return Err(self.refused(&code.to_string(), LOGIN));
            }
            Some(code) => return Ok(Look::NotYet(code.to_string())),
        }
        if topic.partitions().is_empty() {
            return Ok(Look::NotYet("the topic has no partitions".to_owned()));
        }
        let mut partitions: Vec<_> = topic.partitions().iter().map(|partition| Partition(partition.id())).collect();
        partitions.sort_unstable();
        Ok(Look::Ready(partitions))
    }

    fn retry<T>(&self, what: &str, ask: impl Fn() -> Result<T, KafkaError>) -> Result<T> {
        let begun = Instant::now();
        loop {
            let error = match ask() {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if let Some(RDKafkaErrorCode::TopicAuthorizationFailed) = error.rdkafka_error_code() {
                return Err(self.refused(&error.to_string(), LOGIN));
            }
            if begun.elapsed() >= PARTITION_LIMIT {
                return Err(Error::unavailable(format!("cannot learn {what} within {} s", PARTITION_LIMIT.as_secs()))
                    .with_source(error));
            }
            tracing::debug!(what, %error, "brokers are asked again");
            thread::sleep(PAUSE);
        }
    }

    fn unknown(&self) -> Error {
        let Self { topic, connection, .. } = self;
        Error::invalid(format!("there is no topic {topic} at {}", self.brokers())).with_hint(format!(
            "create it, or check 'topic' of the source and 'bootstrap.servers' of {}",
            connection.name
        ))
    }

    fn refused(&self, why: &str, hint: &str) -> Error {
        let Self { topic, connection, .. } = self;
        let brokers = self.brokers();
        Error::invalid(format!(
            "the brokers at {brokers} do not let connection {} read {topic}: {why}",
            connection.name
        ))
        .with_hint(hint)
    }

    fn unreachable(&self, trouble: &str, limit: Duration) -> Error {
        let (brokers, name) = (self.brokers(), &self.connection.name);
        Error::unavailable(format!(
            "no broker of connection {name} at {brokers} told about topic {} within {} s: {trouble}",
            self.topic,
            limit.as_secs()
        ))
        .with_hint("is the broker running, and does 'security.protocol' fit its listener?")
    }

    fn brokers(&self) -> &str {
        match self.connection.options.get("bootstrap.servers") {
            Some(OptionValue::Text(brokers)) => brokers,
            _ => "its bootstrap servers",
        }
    }
}
