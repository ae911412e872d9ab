//! Which partitions this process holds, since when, and how far they were handed out. Pure.
//!
//! Every assignment of a partition has an epoch of its own. A batch carries the epochs that it was read under, so that
//! what was read before a revoke, a reassignment or a resync can be told from what was read after it.
//!
//! | event | epoch | what was handed out before |
//! |---|---|---|
//! | assign, restart | a new one | no longer holds |
//! | revoke | none | no longer holds |
//! | hand out | stays | holds |
//!
//! A span is known by its ranges. Where the same range is handed out again, it is the same records.

use std::collections::{BTreeMap, VecDeque};

use alluvium_catalog::{Offset, Partition, Span};

use crate::source::Lag;

/// The newest ranges of a partition that are remembered: the engine has a few batches under way, and what landed is of
/// no interest.
const RANGES_MAX: usize = 64;

/// One uninterrupted assignment of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(u64);

/// The partitions that this process holds.
#[derive(Debug, Default)]
pub(crate) struct Assignment {
    held: BTreeMap<Partition, Held>,
    last: u64,
}

#[derive(Debug)]
struct Held {
    epoch: Epoch,
    next: Offset,
    ranges: VecDeque<(Offset, Offset)>,
    end: Option<Offset>,
}

impl Assignment {
    /// Notes that `partition` is read from `at` on, whether it was held before or not, and returns its new epoch.
    pub(crate) fn assign(&mut self, partition: Partition, at: Offset) -> Epoch {
        let epoch = self.turn();
        let end = self.held.get(&partition).and_then(|held| held.end);
        self.held.insert(partition, Held { epoch, next: at, ranges: VecDeque::new(), end });
        epoch
    }

    /// Notes that `partition` is no longer held.
    pub(crate) fn revoke(&mut self, partition: Partition) {
        self.turn();
        self.held.remove(&partition);
    }

    /// Returns the time of the last change: it differs after every assign and revoke.
    pub(crate) fn last(&self) -> Epoch {
        Epoch(self.last)
    }

    /// Returns the partitions held.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = Partition> + '_ {
        self.held.keys().copied()
    }

    /// Tells whether `partition` is held under `epoch`.
    pub(crate) fn is_current(&self, partition: Partition, epoch: Epoch) -> bool {
        self.held.get(&partition).is_some_and(|held| held.epoch == epoch)
    }

    /// Notes that `span`, all of whose partitions are held, goes out to the engine.
    pub(crate) fn hand_out(&mut self, span: &Span) {
        for (partition, range) in span.iter() {
            if let Some(held) = self.held.get_mut(&partition) {
                held.next = range.next;
                held.ranges.push_back((range.first, range.next));
                if held.ranges.len() > RANGES_MAX {
                    held.ranges.pop_front();
                }
            }
        }
    }

    /// Tells whether every range of `span` was handed out under the epoch that its partition still has.
    pub(crate) fn holds(&self, span: &Span) -> bool {
        span.iter().all(|(partition, range)| {
            self.held.get(&partition).is_some_and(|held| held.ranges.contains(&(range.first, range.next)))
        })
    }

    /// Notes that `partition` reaches to `end` at least.
    pub(crate) fn note_end(&mut self, partition: Partition, end: Offset) {
        if let Some(held) = self.held.get_mut(&partition) {
            held.end = held.end.max(Some(end));
        }
    }

    /// Returns the lag of every partition whose end is known.
    pub(crate) fn lag(&self) -> Vec<Lag> {
        let lag = |(partition, held): (&Partition, &Held)| {
            let records = held.end?.0.saturating_sub(held.next.0).max(0);
            Some(Lag { partition: *partition, records })
        };
        self.held.iter().filter_map(lag).collect()
    }

    fn turn(&mut self) -> Epoch {
        self.last += 1;
        Epoch(self.last)
    }
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::{Misfit, OffsetRange};

    use super::*;

    const P: Partition = Partition(0);

    fn span(ranges: &[(i32, i64, i64)]) -> Result<Span, Misfit> {
        let mut span = Span::new();
        for &(partition, first, next) in ranges {
            let range = OffsetRange { first: Offset(first), next: Offset(next), records: 0 };
            span.extend(Partition(partition), range)?;
        }
        Ok(span)
    }

    #[test]
    fn what_was_handed_out_holds_until_revoke() -> Result<(), Misfit> {
        let mut assignment = Assignment::default();
        assignment.assign(P, Offset(5));
        let (first, second) = (span(&[(0, 5, 9)])?, span(&[(0, 9, 12)])?);
        assert!(!assignment.holds(&first), "nothing was handed out yet");
        assignment.hand_out(&first);
        assignment.hand_out(&second);
        assert!(assignment.holds(&first) && assignment.holds(&second));
        assignment.revoke(P);
        assert!(!assignment.holds(&first) && !assignment.holds(&second));
        Ok(())
    }

    #[test]
    fn a_partition_that_left_and_came_back_holds_nothing_of_before() -> Result<(), Misfit> {
        let mut assignment = Assignment::default();
        let before = assignment.assign(P, Offset(5));
        assignment.hand_out(&span(&[(0, 5, 9)])?);
        assignment.revoke(P);
        let after = assignment.assign(P, Offset(5));
        assert_ne!(before, after);
        assert!(!assignment.is_current(P, before) && assignment.is_current(P, after));
        assert!(!assignment.holds(&span(&[(0, 5, 9)])?));
        Ok(())
    }

    #[test]
    fn one_lost_partition_spoils_the_span() -> Result<(), Misfit> {
        let mut assignment = Assignment::default();
        assignment.assign(P, Offset(0));
        assignment.assign(Partition(1), Offset(0));
        let both = span(&[(0, 0, 3), (1, 0, 4)])?;
        assignment.hand_out(&both);
        assert!(assignment.holds(&both));
        assignment.revoke(Partition(1));
        assert!(!assignment.holds(&both));
        assert!(assignment.holds(&span(&[(0, 0, 3)])?));
        Ok(())
    }

    #[test]
    fn lag_counts_from_what_was_handed_out() -> Result<(), Misfit> {
        let mut assignment = Assignment::default();
        assignment.assign(P, Offset(0));
        assert_eq!(assignment.lag(), []);
        assignment.note_end(P, Offset(10));
        assignment.note_end(P, Offset(8));
        assignment.hand_out(&span(&[(0, 0, 4)])?);
        assert_eq!(assignment.lag(), [Lag { partition: P, records: 6 }]);
        Ok(())
    }

    #[test]
    fn every_change_moves_the_time() {
        let mut assignment = Assignment::default();
        let start = assignment.last();
        assignment.assign(P, Offset(0));
        let assigned = assignment.last();
        assignment.revoke(P);
        assert!(start < assigned && assigned < assignment.last());
        assert_eq!(assignment.partitions().count(), 0);
    }
}
