//! What the poll thread does when partitions come and go, and when the engine asks to begin again.
//!
//! Where a partition begins is asked of the table each time, never of the group. The rebalance waits for the answer.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use alluvium_catalog::{Error, Offset, Partition, Result};
use alluvium_sql::pipeline::Startup;
use rdkafka::consumer::Consumer;
use rdkafka::topic_partition_list::{Offset as Position, TopicPartitionList};

use super::client::Rebalance;
use super::poll::Poller;
use crate::source::intake::Reading;
use crate::source::start::{Facts, Start, start};

/// How long the table may take to tell its positions: well below `max.poll.interval.ms` (300 s).
const POSITIONS_LIMIT: Duration = Duration::from_secs(60);
/// How long librdkafka may take to seek.
const SEEK_LIMIT: Duration = Duration::from_secs(20);
/// The pause between tries to seek; a partition that was just assigned cannot seek yet.
const SEEK_PAUSE: Duration = Duration::from_millis(50);

impl Poller {
    /// Takes note of every change of the assignment that waits.
    pub(super) fn serve_rebalances(&mut self) -> Result<()> {
        while let Some(rebalance) = self.consumer.context().next_rebalance() {
            match rebalance {
                Rebalance::Assign(partitions) => self.assign(&partitions)?,
                Rebalance::Revoke(partitions) => self.revoke(&partitions)?,
            }
        }
        Ok(())
    }

    fn assign(&mut self, partitions: &[Partition]) -> Result<()> {
        let starts = match self.starts(partitions) {
            Ok(starts) => starts,
            Err(error) => {
                // An unanswered assignment would keep the consumer from ever leaving the group.
                if let Err(error) = self.consumer.incremental_assign(&TopicPartitionList::new()) {
                    tracing::debug!(%error, "failed assignment was not answered");
                }
                return Err(error);
            }
        };
        let list = self.list(offsets(&starts))?;
        self.consumer.incremental_assign(&list).map_err(|error| self.unruly("assign", error))?;
        if self.flow.is_paused {
            self.consumer.pause(&list).map_err(|error| self.unruly("pause", error))?;
        }
        self.begin(&starts);
        self.flow.is_assigned = true;
        self.shared.is_assigned.store(true, Ordering::Release);
        for (partition, start) in &starts {
            tracing::info!(topic = %self.settings.topic, %partition, offset = start.at.0, "partition assigned");
        }
        Ok(())
    }

    fn revoke(&mut self, partitions: &[Partition]) -> Result<()> {
        let is_lost = self.consumer.assignment_lost();
        if is_lost {
            self.shared.is_assigned.store(false, Ordering::Release);
        }
        {
            let mut assignment = self.shared.assignment();
            partitions.iter().for_each(|partition| assignment.revoke(*partition));
        }
        for partition in partitions {
            self.intake.stop(*partition);
            tracing::info!(topic = %self.settings.topic, %partition, is_lost, "partition revoked");
        }
        let list = self.list(partitions.iter().map(|partition| (*partition, Position::Invalid)))?;
        self.consumer.incremental_unassign(&list).map_err(|error| self.unruly("unassign", error))
    }

    /// Forgets what was read and goes on from the table's positions.
    pub(super) fn resync(&mut self) -> Result<()> {
        let partitions: Vec<_> = self.shared.assignment().partitions().collect();
        let starts = self.starts(&partitions)?;
        self.flow.begin_again();
        self.seek(&starts)?;
        self.begin(&starts);
        tracing::info!(topic = %self.settings.topic, n_partitions = starts.len(), "source begins again from the table");
        Ok(())
    }

    fn begin(&mut self, starts: &BTreeMap<Partition, Start>) {
        let mut assignment = self.shared.assignment();
        for (&partition, start) in starts {
            let epoch = assignment.assign(partition, start.at);
            // A partition that came into being after the start has nothing that was there at the start.
            let end = self.origin.ends.as_ref().map(|ends| ends.get(&partition).copied().unwrap_or(start.at));
            self.intake.start(partition, Reading { epoch, at: start.at, end, announce: start.is_fleeting });
        }
    }

    fn starts(&self, partitions: &[Partition]) -> Result<BTreeMap<Partition, Start>> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let landed = self.landed()?;
        self.check_topic()?;
        let mut starts = BTreeMap::new();
        for &partition in partitions {
            let start = self.start_of(partition, landed.get(&partition).copied())?;
            starts.insert(partition, start);
        }
        for (partition, start) in starts.iter().filter(|(partition, _)| !landed.contains_key(partition)) {
            self.settings.outset.begin(*partition, start.at);
        }
        Ok(starts)
    }

    /// Checks that the topic is still the one that was opened: positions read since then would mean other records.
    fn check_topic(&self) -> Result<()> {
        let topic = &self.settings.topic;
        match (&self.origin.topic_id, self.view().id()?) {
            (Some(opened), Some(now)) if *opened != now => Err(Error::data(format!(
                "topic {topic} was created anew while it was read: its id is {now}, and it was {opened}"
            ))
            .with_hint("nothing of the new topic was read; give the flow a new name or table to read it")),
            _ => Ok(()),
        }
    }

    fn start_of(&self, partition: Partition, landed: Option<Offset>) -> Result<Start> {
        let begun = self.settings.outset.begun(partition);
        let startup = &self.settings.startup;
        let stamped = match startup {
            Startup::Timestamp(time) if landed.or(begun).is_none() => self.view().stamped(partition, *time)?,
            _ => None,
        };
        let is_young = usize::try_from(partition.0).is_ok_and(|index| index >= self.origin.n_partitions);
        let bounds = self.view().bounds(partition)?;
        start(&self.settings.topic, partition, startup, Facts { landed, begun, stamped, is_young, bounds })
    }

    fn landed(&self) -> Result<BTreeMap<Partition, Offset>> {
        let answer =
            self.runtime.block_on(async { tokio::time::timeout(POSITIONS_LIMIT, self.positions.positions()).await });
        answer.unwrap_or_else(|_| {
            let limit = POSITIONS_LIMIT.as_secs();
            Err(Error::unavailable(format!(
                "the table of {} did not tell its positions within {limit} s",
                self.settings.topic
            )))
        })
    }

    fn seek(&self, starts: &BTreeMap<Partition, Start>) -> Result<()> {
        let begun = Instant::now();
        loop {
            let list = self.list(offsets(starts))?;
            let answer = self.consumer.seek_partitions(list, SEEK_LIMIT);
            let outcome = answer.and_then(|list| list.elements().iter().try_for_each(|element| element.error()));
            match outcome {
                Ok(()) => return Ok(()),
                Err(error) if begun.elapsed() >= SEEK_LIMIT => return Err(self.unruly("seek", error)),
                Err(error) => tracing::debug!(%error, "partitions cannot seek yet"),
            }
            thread::sleep(SEEK_PAUSE);
        }
    }
}

fn offsets(starts: &BTreeMap<Partition, Start>) -> impl Iterator<Item = (Partition, Position)> + '_ {
    starts.iter().map(|(partition, start)| (*partition, Position::Offset(start.at.0)))
}
