//! Offset algebra: which records a batch covers, and whether one batch follows another. Pure.
//!
//! Offsets are sparse (compaction and transaction markers leave gaps), so ranges speak of positions, not of counts:
//! `next` is the position to read from, one past the last record covered.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Partition(pub i32);

impl fmt::Display for Partition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// A position in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Offset(pub i64);

impl Offset {
    /// Returns the position after this one.
    #[must_use]
    pub fn succ(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// The half-open range `[first, next)` of one partition, with the number of records it delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetRange {
    /// The position that reading began at.
    pub first: Offset,
    /// The position to go on from.
    pub next: Offset,
    /// Records delivered; at most `next - first`, fewer where offsets have gaps.
    pub records: u64,
}

/// The ranges that a batch covers, by partition of one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    ranges: BTreeMap<Partition, OffsetRange>,
}

impl Span {
    /// Returns a span that covers nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Extends the span by `range` of `partition`.
    ///
    /// | have | add | then |
    /// |---|---|---|
    /// | nothing | `[a, b)` | `[a, b)` |
    /// | `[a, b)` | `[b, c)` | `[a, c)`, records added |
    /// | `[a, b)` | `[x, c)`, `x != b` | [`Misfit`], span unchanged |
    ///
    /// # Errors
    /// [`Misfit`] with both ends when the range does not begin where the span ends, or ends before it begins.
    pub fn extend(&mut self, partition: Partition, range: OffsetRange) -> Result<(), Misfit> {
        let misfit = |have: Offset| Misfit { partition, have, got: range.first };
        if range.next < range.first {
            return Err(misfit(range.next));
        }
        match self.ranges.entry(partition) {
            Entry::Vacant(entry) => {
                entry.insert(range);
            }
            Entry::Occupied(mut entry) => {
                let covered = entry.get_mut();
                if covered.next != range.first {
                    return Err(misfit(covered.next));
                }
                covered.next = range.next;
                covered.records += range.records;
            }
        }
        Ok(())
    }

    /// Takes `partition` out of the span and returns its range.
    pub fn remove(&mut self, partition: Partition) -> Option<OffsetRange> {
        self.ranges.remove(&partition)
    }

    /// Returns the range of `partition`.
    pub fn get(&self, partition: Partition) -> Option<OffsetRange> {
        self.ranges.get(&partition).copied()
    }

    /// Returns the ranges in order of partition.
    pub fn iter(&self) -> impl Iterator<Item = (Partition, OffsetRange)> + '_ {
        self.ranges.iter().map(|(partition, range)| (*partition, *range))
    }

    /// Returns the number of records delivered.
    pub fn records(&self) -> u64 {
        self.ranges.values().map(|range| range.records).sum()
    }

    /// Tells whether no position moves.
    pub fn is_empty(&self) -> bool {
        self.ranges.values().all(|range| range.first == range.next)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (partition, range)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { " " };
            write!(formatter, "{comma}{partition}@[{},{})", range.first, range.next)?;
        }
        Ok(())
    }
}

/// Two ranges that should touch, and do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("partition {partition} stands at offset {have}, but the range begins at {got}")]
pub struct Misfit {
    /// The partition.
    pub partition: Partition,
    /// Where the covered range ends.
    pub have: Offset,
    /// Where the new one begins.
    pub got: Offset,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(first: i64, next: i64, records: u64) -> OffsetRange {
        OffsetRange { first: Offset(first), next: Offset(next), records }
    }

    #[test]
    fn gap_and_overlap_are_misfits_that_change_nothing() {
        let mut span = Span::new();
        assert_eq!(span.extend(Partition(0), range(5, 9, 4)), Ok(()));
        for first in [8, 10] {
            let misfit = Misfit { partition: Partition(0), have: Offset(9), got: Offset(first) };
            assert_eq!(span.extend(Partition(0), range(first, 12, 1)), Err(misfit));
        }
        assert_eq!(span.get(Partition(0)), Some(range(5, 9, 4)));
    }

    proptest! {
        #[test]
        fn touching_ranges_add_up(steps in prop::collection::vec((0_i64..50, 0_u64..50), 1..20)) {
            let mut span = Span::new();
            let mut position = 0;
            let mut records = 0;
            for (length, count) in &steps {
                let piece = range(position, position + length, *count);
                prop_assert_eq!(span.extend(Partition(3), piece), Ok(()));
                position += length;
                records += count;
            }
            prop_assert_eq!(span.get(Partition(3)), Some(range(0, position, records)));
            prop_assert_eq!(span.records(), records);
        }
    }
}
