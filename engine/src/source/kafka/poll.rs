//! The thread that owns the consumer: it polls, fills batches and hands them over.
//!
//! It never stops to poll for longer than [`GRACE`]: when the engine is slow, a second batch is filled beside the one
//! that waits; when that is full too, the partitions are paused and polling goes on, so that the group never takes a
//! slow commit for a dead member. In flight are at most two batches, the one that waits and the one that is open, and
//! librdkafka's bounded queue.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use alluvium_catalog::{Error, ErrorKind, Offset, Partition, Result};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset as Position, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::client::Context;
use super::connect::TopicView;
use super::fault::{Verdict, judge};
use super::headers::headers;
use super::{KafkaSettings, Shared};
use crate::hop::Record;
use crate::source::TablePositions;
use crate::source::assignment::Epoch;
use crate::source::intake::{Closed, Intake};
use crate::source::start::check_range;

/// The longest wait for a message: how late a command, a stop or a due batch may be noticed.
const WAIT: Duration = Duration::from_millis(50);
/// Records taken before commands and clocks are looked at again.
const BURST: usize = 10_000;
/// How long a full batch waits for the engine without polling. Pausing throws away what librdkafka has fetched ahead,
/// so a wait that is short beside `max.poll.interval.ms` (300 s) is cheaper.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// How often a waiting batch is offered.
const OFFER_INTERVAL: Duration = Duration::from_millis(5);
/// How long a topic that seems gone is looked for before it is believed.
const GONE_LIMIT: Duration = Duration::from_secs(15);

/// What the thread hands to the engine.
pub(super) enum Delivery {
    /// A batch.
    Batch(Box<Closed>),
    /// Everything up to the ends at start was handed out, as the assignment stood then.
    Drained(Epoch),
    /// The source was asked to stop; nothing follows. Told again each time the source begins again, since the engine
    /// then waits anew for what comes; twice where it had not come yet.
    Stopped,
}

/// What the engine asks of the thread.
pub(super) enum Command {
    /// Go on from the table's positions.
    Resync(oneshot::Sender<Result<()>>),
    /// Tell the group what has landed.
    Commit(Vec<(Partition, Offset)>),
}

/// What is known since the source was opened, and decides where partitions begin and end.
#[derive(Debug)]
pub(super) struct Origin {
    /// Partitions below this number existed when the flow first looked.
    pub(super) n_partitions: usize,
    /// The ends when the source was opened, for `--once`.
    pub(super) ends: Option<BTreeMap<Partition, Offset>>,
    /// The topic's id when the source was opened.
    pub(super) topic_id: Option<String>,
}

/// The state of the thread.
pub(super) struct Poller {
    pub(super) consumer: BaseConsumer<Context>,
    pub(super) settings: Arc<KafkaSettings>,
    pub(super) shared: Arc<Shared>,
    pub(super) runtime: Handle,
    pub(super) positions: Arc<dyn TablePositions>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) deliveries: mpsc::Sender<Delivery>,
    pub(super) origin: Origin,
    pub(super) intake: Intake,
    pub(super) flow: FlowControl,
}

/// How batches leave the thread.
#[derive(Default)]
pub(super) struct FlowControl {
    outbox: VecDeque<Delivery>,
    full_since: Option<Instant>,
    pub(super) is_paused: bool,
    pub(super) is_assigned: bool,
    is_stopped: bool,
    drained: Option<Epoch>,
}

impl FlowControl {
    /// Forgets what waits to be handed out, since all of it is read again. That the source is drained has to be found out
    /// anew; that it was asked to stop holds for ever, and is told again whether or not the engine took it before.
    pub(super) fn begin_again(&mut self) {
        self.outbox.clear();
        self.drained = None;
        if self.is_stopped {
            self.outbox.push_back(Delivery::Stopped);
        }
    }
}

impl Poller {
    /// Reads until the source is closed or cannot go on, then leaves the group.
    pub(super) fn run(mut self) {
        let outcome = self.read();
        // The engine learns of the end before the group does: leaving may take a while.
        let Self { consumer, deliveries, shared, settings, .. } = self;
        if let Err(error) = outcome {
            tracing::error!(topic = %settings.topic, error = %error.chain(), "source cannot go on");
            shared.fail(error);
        }
        drop(deliveries);
        leave(&consumer, settings.topic.as_str());
        drop(consumer);
    }

    fn read(&mut self) -> Result<()> {
        let topic = self.settings.topic.clone();
        self.consumer
            .subscribe(&[topic.as_str()])
            .map_err(|error| Error::unavailable(format!("cannot subscribe to {topic}")).with_source(error))?;
        while !self.shared.is_closing.load(Ordering::Acquire) {
            self.serve_rebalances()?;
            self.serve_commands()?;
            self.note_statistics();
            if self.is_backed_up() {
                self.wait_for_room()?;
            } else {
                self.poll_burst(WAIT)?;
            }
            self.close_batches()?;
            self.deliver()?;
            // Once stopped, what is open is never closed, and nobody waits for it.
            let is_filling = (self.intake.is_open() && !self.flow.is_stopped) || !self.flow.outbox.is_empty();
            self.shared.is_filling.store(is_filling, Ordering::Release);
        }
        // What has landed is still told to the group.
        self.serve_commands()
    }

    pub(super) fn view(&self) -> TopicView<'_> {
        let Self { consumer, settings, .. } = self;
        TopicView { consumer, connection: &settings.connection, topic: &settings.topic }
    }

    pub(super) fn list(
        &self,
        positions: impl IntoIterator<Item = (Partition, Position)>,
    ) -> Result<TopicPartitionList> {
        list(self.settings.topic.as_str(), positions)
    }

    fn serve_commands(&mut self) -> Result<()> {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Commit(landed) => self.commit(landed)?,
                Command::Resync(answer) => {
                    let outcome = self.resync();
                    // Nobody waits for the answer when the engine gave up.
                    let _: Result<(), _> = answer.send(outcome);
                }
            }
        }
        Ok(())
    }

    fn commit(&self, landed: Vec<(Partition, Offset)>) -> Result<()> {
        let landed = landed.into_iter().map(|(partition, next)| (partition, Position::Offset(next.0)));
        if let Err(error) = self.consumer.commit(&self.list(landed)?, CommitMode::Async) {
            tracing::debug!(%error, "offsets were not committed to the group");
        }
        Ok(())
    }

    fn note_statistics(&self) {
        self.shared.is_cut_off.store(self.consumer.context().is_cut_off(), Ordering::Release);
        let ends = self.consumer.context().take_ends();
        if !ends.is_empty() {
            let mut assignment = self.shared.assignment();
            ends.into_iter().for_each(|(partition, end)| assignment.note_end(partition, end));
        }
    }

    /// Takes what is there, up to a burst or a full batch; waits at most `wait` for the first message.
    fn poll_burst(&mut self, wait: Duration) -> Result<()> {
        let mut wait = wait;
        for _ in 0..BURST {
            // Asked before each message: a batch may be full already, and holds no more than it may.
            if self.intake.is_full() || !self.poll_once(wait)? || self.consumer.context().has_rebalances() {
                return Ok(());
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    /// Waits at most `wait` for whatever comes and takes it; tells whether something came.
    fn poll_once(&mut self, wait: Duration) -> Result<bool> {
        match self.consumer.poll(wait) {
            None => return Ok(false),
            // A stopped source is paused; what slips through is not handed out any more.
            Some(Ok(_)) if self.flow.is_stopped => {}
            Some(Ok(message)) => take(&mut self.intake, &message),
            Some(Err(KafkaError::PartitionEOF(partition))) => self.reach_end(Partition(partition)),
            Some(Err(error)) => self.judge(&error)?,
        }
        Ok(true)
    }

    fn reach_end(&mut self, partition: Partition) {
        if let Some(end) = self.consumer.context().take_end_reached() {
            self.shared.assignment().note_end(partition, end);
            self.intake.reach(partition, end);
        }
    }

    fn judge(&mut self, error: &KafkaError) -> Result<()> {
        let reason = self.consumer.context().reason();
        match judge(&self.settings.topic, error, &reason) {
            Verdict::GoOn => Ok(()),
            Verdict::Fail(error) => Err(error),
            Verdict::TopicGone => {
                let is_over = || self.settings.stop.is_cancelled() || self.shared.is_closing.load(Ordering::Acquire);
                match self.view().look_again(GONE_LIMIT, 2 * GONE_LIMIT, is_over) {
                    Err(error) if error.kind() == ErrorKind::Invalid => Err(error),
                    // Brokers that do not answer are librdkafka's to find again.
                    _ => Ok(()),
                }
            }
            Verdict::OutOfRange => {
                for (partition, wanted) in self.intake.positions() {
                    check_range(&self.settings.topic, partition, wanted, self.view().bounds(partition)?)?;
                }
                Err(Error::unavailable(format!("a broker refused a position of {}: {reason}", self.settings.topic))
                    .with_hint("every position is in the log by now; reading can begin again"))
            }
        }
    }

    fn close_batches(&mut self) -> Result<()> {
        if self.flow.is_stopped {
            return Ok(());
        }
        if self.settings.stop.is_cancelled() {
            self.flow.is_stopped = true;
            self.close_batch()?;
            self.flow.outbox.push_back(Delivery::Stopped);
            return self.pause();
        }
        if !self.has_room() {
            return Ok(());
        }
        if self.intake.is_full() || self.intake.due().is_some_and(|due| due <= Instant::now()) {
            self.close_batch()?;
        }
        if self.origin.ends.is_some() && self.flow.is_assigned && self.intake.is_drained() {
            let now = self.shared.assignment().last();
            if self.flow.drained != Some(now) {
                self.close_batch()?;
                self.flow.outbox.push_back(Delivery::Drained(now));
                self.flow.drained = Some(now);
            }
        }
        Ok(())
    }

    fn close_batch(&mut self) -> Result<()> {
        if let Some(closed) = self.intake.close()? {
            self.flow.outbox.push_back(Delivery::Batch(Box::new(closed)));
        }
        Ok(())
    }

    fn deliver(&mut self) -> Result<()> {
        while let Some(delivery) = self.flow.outbox.pop_front() {
            match self.deliveries.try_send(delivery) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(delivery)) => {
                    self.flow.outbox.push_front(delivery);
                    return Ok(());
                }
                // The source was dropped: the next turn notices.
                Err(mpsc::error::TrySendError::Closed(_)) => return Ok(()),
            }
        }
        if self.is_backed_up() {
            return Ok(());
        }
        self.flow.full_since = None;
        if self.flow.is_paused && !self.flow.is_stopped { self.resume() } else { Ok(()) }
    }

    /// Tells whether a batch that is closed now is taken at once. One that is not stays open, and grows to its limits.
    fn has_room(&self) -> bool {
        self.flow.outbox.is_empty() && self.deliveries.capacity() > 0
    }

    fn is_backed_up(&self) -> bool {
        !self.has_room() && self.intake.is_full()
    }

    fn wait_for_room(&mut self) -> Result<()> {
        let since = *self.flow.full_since.get_or_insert_with(Instant::now);
        if since.elapsed() < GRACE {
            thread::sleep(OFFER_INTERVAL);
            return Ok(());
        }
        if !self.flow.is_paused {
            tracing::debug!(topic = %self.settings.topic, "engine is slow: partitions are paused");
            self.pause()?;
        }
        // The batch is full, and the group is still answered. A record that slips through a pause is taken: the next would
        // leave a gap.
        self.poll_once(WAIT).map(drop)
    }

    fn pause(&mut self) -> Result<()> {
        self.flow.is_paused = true;
        let held = self.held()?;
        self.consumer.pause(&held).map_err(|error| self.unruly("pause", error))
    }

    fn resume(&mut self) -> Result<()> {
        self.flow.is_paused = false;
        let held = self.held()?;
        self.consumer.resume(&held).map_err(|error| self.unruly("resume", error))
    }

    fn held(&self) -> Result<TopicPartitionList> {
        self.list(self.intake.positions().into_keys().map(|partition| (partition, Position::Invalid)))
    }

    pub(super) fn unruly(&self, what: &str, error: KafkaError) -> Error {
        Error::unavailable(format!("librdkafka could not {what} partitions of {}", self.settings.topic))
            .with_source(error)
    }
}

fn take(intake: &mut Intake, message: &BorrowedMessage<'_>) {
    let record = Record {
        partition: Partition(message.partition()),
        offset: Offset(message.offset()),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key(),
        value: message.payload(),
    };
    intake.take(record, || headers(message));
}

pub(super) fn list(
    topic: &str,
    positions: impl IntoIterator<Item = (Partition, Position)>,
) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, position) in positions {
        list.add_partition_offset(topic, partition.0, position)
            .map_err(|error| Error::internal(format!("{topic}/{partition} has no position")).with_source(error))?;
    }
    Ok(list)
}

/// Answers what the group still asks, so that closing the consumer, which waits for answers, comes to an end.
fn leave(consumer: &BaseConsumer<Context>, topic: &str) {
    consumer.context().leave();
    while let Some(rebalance) = consumer.context().next_rebalance() {
        let answered = match rebalance {
            super::client::Rebalance::Assign(_) => consumer.incremental_assign(&TopicPartitionList::new()),
            super::client::Rebalance::Revoke(partitions) => {
                let positions = partitions.into_iter().map(|partition| (partition, Position::Invalid));
                list(topic, positions).map_or(Ok(()), |list| consumer.incremental_unassign(&list))
            }
        };
        if let Err(error) = answered {
            tracing::debug!(%error, "assignment was not answered while leaving the group");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::assignment::Assignment;

    #[test]
    fn beginning_again_forgets_all_but_a_stop() {
        let mut flow = FlowControl { drained: Some(Assignment::default().last()), ..FlowControl::default() };
        flow.outbox.extend(flow.drained.map(Delivery::Drained));
        flow.begin_again();
        assert!(flow.outbox.is_empty() && flow.drained.is_none());
        flow.is_stopped = true;
        // It waits still when the source begins again, and then the engine has taken it.
        for is_taken in [false, false, true, true] {
            flow.begin_again();
            assert!(matches!(flow.outbox.make_contiguous(), [Delivery::Stopped]));
            if is_taken {
                flow.outbox.clear();
            }
        }
    }
}
