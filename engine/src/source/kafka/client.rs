//! How librdkafka is set up and what it tells us: settings, logs, statistics and events.
//!
//! Settings stand in three layers: what suits a bulk reader, what the connection says, and on top what exactly-once
//! hangs on. Values of secrets go to librdkafka and nowhere else: no error, log or `Debug` in this file shows one.
//!
//! Nothing is decided in a callback. It leaves a note here, and the poll thread, which librdkafka calls back on, reads
//! it as soon as `poll` returns.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use alluvium_catalog::{Connection, Error, Offset, OptionValue, Partition, Result};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use serde::Deserialize;

use super::reach::Reach;
use super::refusal::Refusal;

/// What suits a bulk reader; a connection may say otherwise.
const DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "alluvium"),
    // The queue between librdkafka and a batch: the one part of memory in flight that batch limits do not cover.
    ("queued.max.messages.kbytes", "8192"),
    ("queued.min.messages", "100000"),
    // The pause when that queue is full. The default of 1 s holds a reader down to one queue a second.
    ("fetch.queue.backoff.ms", "5"),
    ("fetch.max.bytes", "16777216"),
    ("session.timeout.ms", "45000"),
    ("socket.keepalive.enable", "true"),
    // New partitions are picked up after this long.
    ("topic.metadata.refresh.interval.ms", "10000"),
];

/// What exactly-once hangs on; a connection cannot change it.
const FIXED: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("check.crcs", "true"),
    ("isolation.level", "read_committed"),
    ("enable.partition.eof", "true"),
    ("allow.auto.create.topics", "false"),
    ("group.protocol", "classic"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    // The ends of partitions, for lag.
    ("statistics.interval.ms", "2000"),
];

/// Returns librdkafka's settings for a consumer of `group`.
///
/// # Errors
/// `Invalid` when the connection is not one to Kafka, names no broker, or a secret cannot be read.
pub(super) fn client_config(connection: &Connection, group: &str) -> Result<ClientConfig> {
    let name = &connection.name;
    if connection.kind != "kafka" {
        return Err(Error::invalid(format!("connection {name} is of type {}, not kafka", connection.kind)));
    }
    if !connection.options.contains_key("bootstrap.servers") {
        return Err(Error::invalid(format!("connection {name} does not say where the brokers are"))
            .with_hint("add 'bootstrap.servers' = 'host:9092' to CREATE CONNECTION"));
    }
    let mut config = ClientConfig::new();
    for (key, value) in DEFAULTS {
        config.set(*key, *value);
    }
    for (key, value) in &connection.options {
        match value {
            OptionValue::Text(text) => config.set(key, text),
            OptionValue::Secret(secret) => config.set(key, secret.resolve()?.expose()),
        };
    }
    for (key, value) in FIXED.iter().chain([&("group.id", group)]) {
        if connection.options.contains_key(*key) && config.get(key) != Some(value) {
            tracing::warn!(connection = %name, option = key, value, "option of the connection is overridden");
        }
        config.set(*key, *value);
    }
    let is_verbose = tracing::enabled!(target: "librdkafka", tracing::Level::DEBUG);
    config.set_log_level(if is_verbose { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
    Ok(config)
}

/// Creates a consumer.
///
/// # Errors
/// `Invalid` when librdkafka refuses a setting; the message names the setting, and never a secret's value.
pub(super) fn consumer(connection: &Connection, config: &ClientConfig) -> Result<BaseConsumer<Context>> {
    let context = Context::default();
    config.create_with_context(context).map_err(|error| refused(connection, error))
}

fn refused(connection: &Connection, error: KafkaError) -> Error {
    let name = &connection.name;
    match error {
        // The description repeats the value.
        KafkaError::ClientConfig(_, described, key, _) => {
            let is_secret = matches!(connection.options.get(&key), Some(OptionValue::Secret(_)));
            let why = if is_secret { "its value is refused".to_owned() } else { described };
            Error::invalid(format!("librdkafka does not take option '{key}' of connection {name}: {why}"))
                .with_hint("options are named as in librdkafka's CONFIGURATION.md")
        }
        KafkaError::ClientCreation(why) => {
            let is_tls = why.contains("ssl.");
            let error = Error::invalid(format!("librdkafka does not take the options of connection {name}: {why}"));
            if !is_tls {
                return error;
            }
            error.with_hint(
                "the files of 'ssl.*' options must be PEM, and 'ssl.key.password' that of 'ssl.key.location'",
            )
        }
        other => Error::internal(format!("cannot create a Kafka client for connection {name}")).with_source(other),
    }
}

/// What librdkafka told since it was last asked.
#[derive(Default)]
pub(super) struct Context {
    notes: Mutex<Notes>,
    has_rebalances: AtomicBool,
    is_leaving: AtomicBool,
}

#[derive(Default)]
struct Notes {
    rebalances: VecDeque<Rebalance>,
    ends: BTreeMap<Partition, Offset>,
    end_reached: Option<Offset>,
    refusal: Option<Refusal>,
    reason: Option<String>,
    trouble: Option<String>,
    reach: Reach,
    is_cut_off: bool,
}

/// A change of the assignment that the group coordinator asks for.
#[derive(Debug)]
pub(super) enum Rebalance {
    /// Partitions come.
    Assign(Vec<Partition>),
    /// Partitions go.
    Revoke(Vec<Partition>),
}

impl Context {
    /// Returns the oldest change of the assignment that was not looked at yet.
    pub(super) fn next_rebalance(&self) -> Option<Rebalance> {
        if !self.has_rebalances() {
            return None;
        }
        let mut notes = self.notes();
        let next = notes.rebalances.pop_front();
        self.has_rebalances.store(!notes.rebalances.is_empty(), Ordering::Release);
        next
    }

    /// Tells whether a change of the assignment waits.
    pub(super) fn has_rebalances(&self) -> bool {
        self.has_rebalances.load(Ordering::Acquire)
    }

    /// Answers every change of the assignment at once from now on, so that the group can be left.
    pub(super) fn leave(&self) {
        self.is_leaving.store(true, Ordering::Release);
    }

    /// Returns the position of the end that was reached last: the one that a `PartitionEOF` just polled speaks of.
    pub(super) fn take_end_reached(&self) -> Option<Offset> {
        self.notes().end_reached.take()
    }

    /// Returns the ends of partitions that statistics told since this was last asked.
    pub(super) fn take_ends(&self) -> BTreeMap<Partition, Offset> {
        std::mem::take(&mut self.notes().ends)
    }

    /// Tells whether no broker was connected when statistics were last taken.
    pub(super) fn is_cut_off(&self) -> bool {
        self.notes().is_cut_off
    }

    /// Returns why the brokers refused us, if one ever did. That one lets us in again is not noted: only a client that is
    /// new may be judged by it.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.notes().refusal.clone()
    }

    /// Returns librdkafka's words for the newest error.
    pub(super) fn reason(&self) -> String {
        self.notes().reason.clone().unwrap_or_default()
    }

    /// Returns why a broker could not be reached, the newest reason that says more than that.
    pub(super) fn trouble(&self) -> Option<String> {
        self.notes().trouble.clone()
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Notes are whole between any two statements, so a panic elsewhere leaves nothing half done.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        if facility == "FAIL" {
            // Some reasons come as a log line alone. It begins with the thread that wrote it.
            let reason = text.split_once("]: ").map_or(text, |(_, reason)| reason);
            let mut notes = self.notes();
            notes.trouble = Some(reason.to_owned());
            // It is said at every try to connect.
            if matches!(level, RDKafkaLogLevel::Error) && !notes.reach.lose(reason) {
                tracing::debug!(target: "librdkafka", facility, text, "librdkafka says again");
                return;
            }
        }
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", facility, text, "librdkafka says");
            }
            // librdkafka mends by itself what it calls an error: it reconnects for ever.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", facility, text, "librdkafka says");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", facility, text, "librdkafka says");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, text, "librdkafka says"),
        }
    }

    fn stats_raw(&self, json: &[u8]) {
        match serde_json::from_slice::<Statistics>(json) {
            Ok(statistics) => {
                let mut notes = self.notes();
                notes.ends.extend(statistics.ends());
                notes.is_cut_off = statistics.brokers_up().next().is_none();
                for broker in statistics.brokers_up().filter(|broker| notes.reach.find(broker)) {
                    tracing::info!(broker, "broker is reached again");
                }
            }
            Err(error) => tracing::debug!(%error, "librdkafka's statistics cannot be read"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::PartitionEOF) {
            self.notes().end_reached = end_in(reason);
            return;
        }
        let is_of_broker = matches!(
            code,
            Some(
                RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::Resolve | RDKafkaErrorCode::AllBrokersDown
            )
        );
        if is_of_broker && !self.notes().reach.lose(reason) {
            tracing::debug!(code = %error, reason, "kafka client is still in trouble");
        } else {
            tracing::warn!(code = %error, reason, "kafka client is in trouble");
        }
        let refusal = Refusal::of(code, reason);
        let mut notes = self.notes();
        notes.reason = Some(reason.to_owned());
        if refusal.is_some() {
            notes.refusal = refusal;
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let is_assign = matches!(code, RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS);
        if self.is_leaving.load(Ordering::Acquire) {
            let answered = if is_assign {
                consumer.incremental_assign(&TopicPartitionList::new())
            } else {
                consumer.incremental_unassign(partitions)
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "assignment was not answered while leaving the group");
            }
            return;
        }
        let list = partitions.elements().iter().map(|element| Partition(element.partition())).collect();
        let rebalance = if is_assign { Rebalance::Assign(list) } else { Rebalance::Revoke(list) };
        self.notes().rebalances.push_back(rebalance);
        self.has_rebalances.store(true, Ordering::Release);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            // The table holds the positions; the group's offsets only tell lag tools.
            tracing::debug!(%error, "offsets were not committed to the group");
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Context").finish_non_exhaustive()
    }
}

/// Reads the position out of librdkafka's words for the end of a partition. rust-rdkafka 0.39 hands on the words and
/// drops the number. If a later version words it differently, positions stop to move over gaps at the end of a
/// partition and nothing else changes; a test of the consumer notices.
fn end_in(reason: &str) -> Option<Offset> {
    let (_, after) = reason.split_once("end of partition at offset ")?;
    let digits = after.split(|other: char| !other.is_ascii_digit()).next()?;
    digits.parse().ok().map(Offset)
}

#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    brokers: BTreeMap<String, BrokerStatistics>,
    #[serde(default)]
    topics: BTreeMap<String, TopicStatistics>,
}

#[derive(Deserialize)]
struct BrokerStatistics {
    #[serde(default)]
    state: String,
}

#[derive(Deserialize)]
struct TopicStatistics {
    #[serde(default)]
    partitions: BTreeMap<String, PartitionStatistics>,
}

#[derive(Deserialize)]
struct PartitionStatistics {
    partition: i32,
    #[serde(default)]
    ls_offset: i64,
}

impl Statistics {
    /// Returns the brokers that a connection stands to.
    fn brokers_up(&self) -> impl Iterator<Item = &str> {
        self.brokers.iter().filter(|(_, broker)| broker.state == "UP").map(|(name, _)| name.as_str())
    }

    /// Returns the last stable offsets that are known. A consumer has one topic.
    fn ends(&self) -> impl Iterator<Item = (Partition, Offset)> + '_ {
        let partitions = self.topics.values().flat_map(|topic| topic.partitions.values());
        partitions
            .filter(|partition| partition.partition >= 0 && partition.ls_offset >= 0)
            .map(|partition| (Partition(partition.partition), Offset(partition.ls_offset)))
    }
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::{ErrorKind, SecretRef};

    use super::*;

    fn connection(options: &[(&str, OptionValue)]) -> Result<Connection> {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        Ok(Connection { name: "shop".parse()?, kind: "kafka".to_owned(), options })
    }

    fn text(value: &str) -> OptionValue {
        OptionValue::Text(value.to_owned())
    }

    #[test]
    fn connection_goes_over_defaults_and_under_what_is_fixed() -> Result<()> {
        let connection = connection(&[
            ("bootstrap.servers", text("localhost:1")),
            ("client.id", text("mine")),
            ("enable.auto.commit", text("true")),
        ])?;
        let config = client_config(&connection, "alluvium-orders")?;
        let expected = [
            ("client.id", "mine"),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "error"),
            ("group.id", "alluvium-orders"),
        ];
        for (key, value) in expected {
            assert_eq!(config.get(key), Some(value), "{key}");
        }
        consumer(&connection, &config).map(|_| ())
    }

    #[test]
    fn refused_options_are_named_and_secrets_are_not_shown() -> Result<()> {
        let secret = OptionValue::Secret(SecretRef { provider: "env".parse()?, name: "CARGO_PKG_NAME".to_owned() });
        for (key, value, shown) in [
            ("bootstrap.server", text("x"), true),
            ("socket.timeout.ms", text("soon"), true),
            ("linger.ms", secret, false),
        ] {
            let connection = connection(&[("bootstrap.servers", text("localhost:1")), (key, value)])?;
            let error = client_config(&connection, "g").and_then(|config| consumer(&connection, &config).map(|_| ()));
            let message = error.as_ref().err().map(Error::chain).unwrap_or_default();
            assert_eq!(error.err().map(|error| error.kind()), Some(ErrorKind::Invalid), "{key}");
            assert!(message.contains(key), "{message}");
            assert!(shown || !message.contains("alluvium'") && !message.contains("\"alluvium\""), "{message}");
        }
        Ok(())
    }

    #[test]
    fn connection_without_brokers_is_refused_with_a_hint() -> Result<()> {
        let error = client_config(&connection(&[])?, "g").err();
        assert!(error.is_some_and(|error| error.hint().is_some_and(|hint| hint.contains("bootstrap.servers"))));
        Ok(())
    }

    #[test]
    fn ends_are_read_from_words_and_statistics() -> Result<()> {
        let words = "Fetch from broker 1 reached end of partition at offset 42 (HighwaterMark 43)";
        assert_eq!(end_in(words), Some(Offset(42)));
        assert_eq!(end_in("Fetch from broker 1 failed"), None);
        let json = br#"{"name":"c","topics":{"t":{"topic":"t","partitions":{
            "0":{"partition":0,"ls_offset":7,"hi_offset":9},"-1":{"partition":-1,"ls_offset":0},
            "1":{"partition":1,"ls_offset":-1001}}}}}"#;
        let context = Context::default();
        context.stats_raw(json);
        assert_eq!(context.take_ends(), BTreeMap::from([(Partition(0), Offset(7))]));
        Ok(())
    }
}
