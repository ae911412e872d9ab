//! Records from Kafka, through librdkafka. `rdkafka` is named in this file's folder and nowhere else.
//!
//! ```text
//! brokers -> librdkafka -> poll thread (poll.rs) -batches, at most one waits-> KafkaSource::fetch -> engine
//!                              ^ rebalance.rs: where partitions begin             |
//!                              +------------- resync, landed offsets -------------+
//! ```
//! One thread a source owns the consumer. It never commits an offset that has not landed, never reads one from the
//! group, and never resets a position: what is out of range ends reading with what is lost in the message.
//!
//! **`--once`** ([`KafkaSettings::once`]): the ends of all partitions are read when the source is first opened, and kept
//! where it is opened again ([`Goal`]); it is drained when every partition *assigned to this process* has come that far. Where other processes of the group hold the rest,
//! each answers for its own; a partition that moves to this process counts from then on.

mod client;
mod connect;
mod describe;
mod fault;
mod headers;
mod peek;
mod poll;
mod reach;
mod rebalance;
mod refusal;
pub mod embedded;

pub use peek::{PeekLimits, peek};

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use alluvium_catalog::{Connection, Error, Result, Span, Topic};
use alluvium_sql::pipeline::{BatchLimits, Startup};
use async_trait::async_trait;
use rdkafka::consumer::Consumer;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::connect::Unassigned;
use self::poll::{Command, Delivery, FlowControl, Origin, Poller};
use crate::source::assignment::Assignment;
use crate::source::intake::Intake;
use crate::source::{Fetch, Goal, Lag, Outset, Source, SourceIdentity, TablePositions};

/// Batches that wait between the poll thread and the engine.
const BATCHES_WAITING_MAX: usize = 1;
/// Commands that wait for the poll thread; offsets to commit are dropped when it is that far behind.
const COMMANDS_MAX: usize = 16;
/// How long a topic may be unknown: one that was created a moment ago is not yet known to every broker.
const UNKNOWN_LIMIT: Duration = Duration::from_secs(3);
/// How long a resync may take: asking the table (60 s), the brokers (30 s) and seeking (20 s).
const RESYNC_LIMIT: Duration = Duration::from_secs(120);
/// How long leaving the group may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(15);
/// How long the brokers may take to tell the cluster's id; it came with the metadata.
const CLUSTER_ID_LIMIT: Duration = Duration::from_secs(5);

/// What to read, and how.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// How the cluster is reached.
    pub connection: Connection,
    /// What is read.
    pub topic: Topic,
    /// The consumer group; processes of one group share the partitions.
    pub group_id: String,
    /// Where partitions begin that the table has no position for.
    pub startup: Startup,
    /// When a batch closes.
    pub limits: BatchLimits,
    /// Whether to stop at the ends of [`goal`](Self::goal).
    pub once: bool,
    /// The ends that the partitions had when a source with this goal was first opened.
    pub goal: Goal,
    /// Where partitions were begun, by this source or by those that were opened with this before.
    pub outset: Outset,
    /// Asks the source to hand out what it has and stop.
    pub stop: CancellationToken,
    /// How long the brokers may take to answer when the source is opened.
    pub connect_limit: Duration,
}

impl KafkaSettings {
    /// Returns settings that read from the earliest offset on, with the default limits, until stopped.
    pub fn new(connection: Connection, topic: Topic, group_id: impl Into<String>) -> Self {
        Self {
            connection,
            topic,
            group_id: group_id.into(),
            startup: Startup::Earliest,
            limits: BatchLimits::default(),
            once: false,
            goal: Goal::default(),
            outset: Outset::default(),
            stop: CancellationToken::new(),
            connect_limit: Duration::from_secs(30),
        }
    }
}

/// A topic, read as a member of a consumer group.
pub struct KafkaSource {
    settings: Arc<KafkaSettings>,
    shared: Arc<Shared>,
    identity: SourceIdentity,
    deliveries: mpsc::Receiver<Delivery>,
    commands: mpsc::Sender<Command>,
    done: Option<oneshot::Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the source and its thread both see.
#[derive(Default)]
struct Shared {
    assignment: Mutex<Assignment>,
    failure: Mutex<Option<Error>>,
    is_filling: AtomicBool,
    /// The group has told what is read here, be it nothing, and has not taken it away since.
    is_assigned: AtomicBool,
    /// A connection stands to no broker.
    is_cut_off: AtomicBool,
    is_closing: AtomicBool,
}

impl Shared {
    fn assignment(&self) -> MutexGuard<'_, Assignment> {
        // The assignment is whole between any two calls, so a panic elsewhere leaves nothing half done.
        self.assignment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: Error) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// Returns why the thread ended, if it failed: the error itself the first time, and what it said from then on. A resync
    /// may follow a fetch that failed, and its error decides whether the flow is opened again.
    fn failure(&self) -> Option<Error> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let error = failure.take()?;
        *failure = Some(said_again(&error));
        Some(error)
    }
}

/// Returns an error of the same kind that says the same. The causes, which cannot be cloned, become one text.
fn said_again(error: &Error) -> Error {
    let (message, chain) = (error.message(), error.chain());
    let mut again = Error::new(error.kind(), message);
    if let Some(causes) = chain.strip_prefix(message).and_then(|rest| rest.strip_prefix(": ")) {
        again = again.with_source(causes.to_owned());
    }
    match error.hint() {
        Some(hint) => again.with_hint(hint),
        None => again,
    }
}

impl KafkaSource {
    /// Connects, finds the topic and joins the group. Partitions come later, while [`fetch`](Source::fetch) waits.
    ///
    /// # Errors
    /// `Invalid` when the connection's options, its credentials or the topic are wrong, `Unavailable` when no broker
    /// answers within [`KafkaSettings::connect_limit`].
    pub async fn open(settings: KafkaSettings, positions: Arc<dyn TablePositions>) -> Result<Self> {
        let settings = Arc::new(settings);
        let shared = Arc::new(Shared::default());
        let (deliver, deliveries) = mpsc::channel(BATCHES_WAITING_MAX);
        let (command, commands) = mpsc::channel(COMMANDS_MAX);
        let (tell_ready, ready) = oneshot::channel();
        let (tell_done, done) = oneshot::channel();
        let launch = Launch {
            settings: Arc::clone(&settings),
            shared: Arc::clone(&shared),
            runtime: Handle::current(),
            positions,
            commands,
            deliveries: deliver,
        };
        let thread = thread::Builder::new()
            .name(format!("kafka-{}", settings.topic))
            .spawn(move || {
                match launch.connect() {
                    Ok((poller, identity)) => {
                        // Nobody waits for the answer when opening was given up; the closing flag then ends the thread.
                        let _: Result<(), _> = tell_ready.send(Ok(identity));
                        poller.run();
                    }
                    Err(error) => drop(tell_ready.send(Err(error))),
                }
                let _: Result<(), _> = tell_done.send(());
            })
            .map_err(|error| Error::unavailable("cannot start the poll thread").with_source(error))?;
        let closed = Error::internal(format!("the poll thread of {} ended before it was ready", settings.topic));
        let mut source = Self {
            settings,
            shared,
            identity: SourceIdentity::default(),
            deliveries,
            commands: command,
            done: Some(done),
            thread: Some(thread),
        };
        source.identity = ready.await.unwrap_or(Err(closed))?;
        Ok(source)
    }

    fn accept(&self, delivery: Delivery) -> Option<Fetch> {
        match delivery {
            Delivery::Batch(closed) => {
                let fetched = closed.hand_out(&mut self.shared.assignment())?;
                Some(Fetch::Batch(Box::new(fetched)))
            }
            Delivery::Drained(at) => (self.shared.assignment().last() == at).then_some(Fetch::Drained),
            Delivery::Stopped => Some(Fetch::Stopped),
        }
    }

    fn ended(&self) -> Error {
        self.shared.failure().unwrap_or_else(|| Error::closed(format!("source of {} is closed", self.settings.topic)))
    }
}

#[async_trait]
impl Source for KafkaSource {
    async fn fetch(&mut self) -> Result<Fetch> {
        loop {
            match timeout(self.settings.limits.interval, self.deliveries.recv()).await {
                Ok(Some(delivery)) => {
                    if let Some(fetch) = self.accept(delivery) {
                        return Ok(fetch);
                    }
                }
                Ok(None) => return Err(self.ended()),
                // An open batch closes within the interval.
                Err(_) if self.shared.is_filling.load(Ordering::Acquire) => {}
                Err(_) => return Ok(Fetch::Idle),
            }
        }
    }

    fn holds(&self, span: &Span) -> bool {
        self.shared.assignment().holds(span)
    }

    async fn resync(&mut self) -> Result<()> {
        let (answer, outcome) = oneshot::channel();
        if self.commands.send(Command::Resync(answer)).await.is_err() {
            return Err(self.ended());
        }
        match timeout(RESYNC_LIMIT, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(self.ended()),
            Err(_) => {
                let limit = RESYNC_LIMIT.as_secs();
                Err(Error::unavailable(format!(
                    "source of {} did not begin again within {limit} s",
                    self.settings.topic
                )))
            }
        }
    }

    fn acknowledge(&mut self, span: &Span) {
        let landed = span.iter().map(|(partition, range)| (partition, range.next)).collect();
        if self.commands.try_send(Command::Commit(landed)).is_err() {
            tracing::debug!(topic = %self.settings.topic, %span, "landed offsets were not told to the group");
        }
    }

    fn is_ready(&self) -> bool {
        self.shared.is_assigned.load(Ordering::Acquire) && !self.shared.is_cut_off.load(Ordering::Acquire)
    }

    fn lag(&self) -> Vec<Lag> {
        self.shared.assignment().lag()
    }

    fn identity(&self) -> SourceIdentity {
        self.identity.clone()
    }

    async fn close(&mut self) -> Result<()> {
        self.shared.is_closing.store(true, Ordering::Release);
        let Some(done) = self.done.take() else { return Ok(()) };
        // Either the thread says that it is done, or it panicked and dropped the sender; both end the wait.
        if timeout(CLOSE_LIMIT, done).await.is_err() {
            let limit = CLOSE_LIMIT.as_secs();
            return Err(Error::unavailable(format!(
                "source of {} did not leave its group in {limit} s",
                self.settings.topic
            )));
        }
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => Err(Error::internal(format!("the poll thread of {} panicked", self.settings.topic))),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for KafkaSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { settings, identity, .. } = self;
        formatter
            .debug_struct("KafkaSource")
            .field("topic", &settings.topic)
            .field("identity", identity)
            .finish_non_exhaustive()
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.shared.is_closing.store(true, Ordering::Release);
    }
}

/// What the poll thread begins with.
struct Launch {
    settings: Arc<KafkaSettings>,
    shared: Arc<Shared>,
    runtime: Handle,
    positions: Arc<dyn TablePositions>,
    commands: mpsc::Receiver<Command>,
    deliveries: mpsc::Sender<Delivery>,
}

impl Launch {
    fn connect(self) -> Result<(Poller, SourceIdentity)> {
        let Self { settings, shared, runtime, positions, commands, deliveries } = self;
        let unassigned = Unassigned::create(&settings.connection, &settings.topic, &settings.group_id)?;
        let partitions = unassigned.partitions(UNKNOWN_LIMIT, settings.connect_limit)?;
        let view = unassigned.view();
        let ends = |partition| Ok((partition, view.bounds(partition)?.high));
        let look = || partitions.iter().copied().map(ends).collect();
        let ends = if settings.once { Some(settings.goal.ends(look)?) } else { None };
        let topic_id = view.id()?;
        let consumer = unassigned.into_consumer();
        let cluster = consumer.client().fetch_cluster_id(CLUSTER_ID_LIMIT);
        let identity = SourceIdentity { cluster, topic_id: topic_id.clone() };
        let n_partitions = settings.outset.enter(topic_id.as_deref(), partitions.len());
        let origin = Origin { n_partitions, ends, topic_id };
        let (intake, flow) = (Intake::new(settings.limits), FlowControl::default());
        let poller =
            Poller { consumer, settings, shared, runtime, positions, commands, deliveries, origin, intake, flow };
        Ok((poller, identity))
    }
}

#[cfg(test)]
mod tests;
