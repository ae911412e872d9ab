//! Batches in parts, for tables that may not rewrite more than so much in one commit.
//!
//! A batch that is above the cap comes again from the source and is cut into halves, quarters and so on, until each part
//! fits. A part is a batch like any other: it has the records of its span, which begins where the one before ends, and
//! lands with positions, fates and lineage of its own. Once commits cost little, batches grow again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use alluvium_catalog::{Error, Offset, OffsetRange, Partition, Result, Span};

use crate::hop::{Fetched, Records};
use crate::write::Excess;

/// Cuts batches, and keeps the parts that wait.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// The records that a batch may have; `None` for as many as the source gives.
    records_max: Option<u64>,
    parts: VecDeque<Part>,
}

/// A batch as it lands: whole, or a part of what the source handed out.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) fetched: Fetched,
    /// What the source handed out, which it must still hold when the part lands.
    pub(super) handed_out: Span,
}

/// What a commit rewrote, and what it might have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spending {
    pub(super) bytes: u64,
    pub(super) bytes_max: u64,
}

impl Splitter {
    /// Returns the next part of a batch that was cut.
    pub(super) fn next(&mut self) -> Option<Part> {
        self.parts.pop_front()
    }

    /// Takes a batch from the source and returns what of it is to land first.
    ///
    /// # Errors
    /// `Internal` when the parts do not cover the batch.
    pub(super) fn take(&mut self, fetched: Fetched) -> Result<Option<Part>> {
        let handed_out = fetched.span.clone();
        let Some(records_max) = self.records_max.filter(|records_max| handed_out.records() > *records_max) else {
            return Ok(Some(Part { fetched, handed_out }));
        };
        let parts = cut(fetched, records_max)?.into_iter();
        self.parts = parts.map(|fetched| Part { fetched, handed_out: handed_out.clone() }).collect();
        Ok(self.next())
    }

    /// Forgets the parts that wait, since the source begins again or the process ends; tells whether there were any.
    pub(super) fn forget(&mut self) -> bool {
        let had_parts = !self.parts.is_empty();
        self.parts.clear();
        had_parts
    }

    /// Takes in that a batch was above the cap: what comes has half as many records.
    pub(super) fn exceeded(&mut self, excess: &Excess) {
        self.records_max = Some((excess.records / 2).max(1));
    }

    /// Takes in what a commit of `n_records` has rewritten. Where twice as much would have fitted, batches may have twice
    /// as many records.
    pub(super) fn landed(&mut self, n_records: u64, spending: Option<Spending>) {
        let (Some(records_max), Some(spending)) = (self.records_max, spending) else { return };
        let was_full = n_records >= records_max;
        if was_full && spending.bytes.saturating_mul(2) <= spending.bytes_max {
            self.records_max = records_max.checked_mul(2);
        }
    }
}

/// Cuts a batch into parts of at most `records_max` records, in order of arrival. The last part covers what has no
/// records, and the gaps at the ends of partitions.
fn cut(fetched: Fetched, records_max: u64) -> Result<Vec<Fetched>> {
    let Fetched { records, span, took } = fetched;
    let mut rest: BTreeMap<Partition, OffsetRange> = span.iter().collect();
    let (mut parts, mut index) = (Vec::new(), 0);
    while index < records.len() {
        let mut part = Records::default();
        // Where each partition of the part ends, and how many records it has of it.
        let mut ends: BTreeMap<Partition, (Offset, u64)> = BTreeMap::new();
        while (part.len() as u64) < records_max
            && let Some(record) = records.get(index)
        {
            let end = ends.entry(record.partition).or_insert((record.offset, 0));
            *end = (record.offset.succ(), end.1 + 1);
            part.push(record, records.headers(index).to_vec());
            index += 1;
        }
        let is_last = index == records.len();
        let covered = if is_last { std::mem::take(&mut rest) } else { take_front(&mut rest, &ends)? };
        let took = if parts.is_empty() { took } else { Duration::ZERO };
        parts.push(Fetched { records: part, span: span_of(covered)?, took });
    }
    Ok(parts)
}

/// Takes the front of each range, up to its end, out of `rest`.
fn take_front(
    rest: &mut BTreeMap<Partition, OffsetRange>,
    ends: &BTreeMap<Partition, (Offset, u64)>,
) -> Result<BTreeMap<Partition, OffsetRange>> {
    let mut fronts = BTreeMap::new();
    for (partition, (next, n_records)) in ends {
        let Some(range) = rest.get_mut(partition) else {
            return Err(Error::internal("a batch has a record that its span does not cover"));
        };
        fronts.insert(*partition, OffsetRange { first: range.first, next: *next, records: *n_records });
        (range.first, range.records) = (*next, range.records.saturating_sub(*n_records));
        if range.first == range.next {
            rest.remove(partition);
        }
    }
    Ok(fronts)
}

fn span_of(ranges: BTreeMap<Partition, OffsetRange>) -> Result<Span> {
    let mut span = Span::new();
    for (partition, range) in ranges {
        span.extend(partition, range).map_err(|misfit| Error::internal("a batch cannot be cut").with_source(misfit))?;
    }
    Ok(span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop::Record;

    /// Returns a batch of the records at `places`, which covers `ranges`.
    fn batch(places: &[(i32, i64)], ranges: &[(i32, i64, i64)]) -> Result<Fetched> {
        let mut records = Records::default();
        for (partition, offset) in places {
            let (partition, offset) = (Partition(*partition), Offset(*offset));
            let headers = vec![("offset".to_owned(), Some(offset.to_string().into_bytes().into()))];
            let value = Some(&b"{}"[..]);
            records.push(Record { partition, offset, timestamp_ms: None, key: None, value }, headers);
        }
        let ranges = ranges.iter().map(|(partition, first, next)| {
            let n_records = places.iter().filter(|place| place.0 == *partition).count() as u64;
            (Partition(*partition), OffsetRange { first: Offset(*first), next: Offset(*next), records: n_records })
        });
        Ok(Fetched { records, span: span_of(ranges.collect())?, took: Duration::ZERO })
    }

    fn shown(parts: impl IntoIterator<Item = Fetched>) -> Vec<String> {
        let shown = |part: Fetched| {
            assert_eq!(part.records.len() as u64, part.span.records());
            for (index, record) in part.records.iter().enumerate() {
                assert_eq!(part.records.headers(index)[0].1.as_deref(), Some(record.offset.to_string().as_bytes()));
            }
            part.span.to_string()
        };
        parts.into_iter().map(shown).collect()
    }

    #[test]
    fn parts_touch_and_cover_the_batch_with_its_gaps_and_silent_partitions() -> Result<()> {
        let places = [(0, 5), (0, 8), (1, 0), (0, 9), (1, 1)];
        let ranges = [(0, 3, 12), (1, 0, 2), (2, 7, 7), (3, 4, 6)];
        let cut_to = |records_max| Ok::<_, Error>(shown(cut(batch(&places, &ranges)?, records_max)?));
        assert_eq!(cut_to(2)?, ["0@[3,9)", "0@[9,10) 1@[0,1)", "0@[10,12) 1@[1,2) 2@[7,7) 3@[4,6)"]);
        assert_eq!(cut_to(4)?, ["0@[3,10) 1@[0,1)", "0@[10,12) 1@[1,2) 2@[7,7) 3@[4,6)"]);
        assert_eq!(cut_to(9)?, ["0@[3,12) 1@[0,2) 2@[7,7) 3@[4,6)"]);
        assert_eq!(cut_to(1)?.len(), 5);
        Ok(())
    }

    #[test]
    fn a_record_that_no_range_covers_is_an_error() -> Result<()> {
        assert!(cut(batch(&[(0, 1), (9, 1), (0, 2)], &[(0, 1, 3)])?, 2).is_err());
        Ok(())
    }

    #[test]
    fn batches_halve_until_they_fit_and_double_once_they_are_cheap() -> Result<()> {
        let mut splitter = Splitter::default();
        let fetched = |part: Option<Part>| part.map(|part| part.fetched);
        let whole = || batch(&[(0, 0), (0, 1), (0, 2), (0, 3), (0, 4)], &[(0, 0, 5)]);
        assert_eq!(shown(fetched(splitter.take(whole()?)?)), ["0@[0,5)"], "nothing was ever above the cap");
        splitter.exceeded(&Excess { bytes: 9, bytes_max: 4, records: 5 });
        assert_eq!(shown(fetched(splitter.take(whole()?)?)), ["0@[0,2)"]);
        assert_eq!(splitter.parts.len(), 2);
        assert!(splitter.forget());
        assert!(!splitter.forget(), "they are gone");
        splitter.exceeded(&Excess { bytes: 9, bytes_max: 4, records: 2 });
        assert_eq!(shown(fetched(splitter.take(whole()?)?)), ["0@[0,1)"]);
        assert_eq!(shown(fetched(splitter.next())), ["0@[1,2)"]);
        splitter.exceeded(&Excess { bytes: 9, bytes_max: 4, records: 1 });
        assert_eq!(splitter.records_max, Some(1), "a record is not cut");
        splitter.landed(1, Some(Spending { bytes: 3, bytes_max: 4 }));
        assert_eq!(splitter.records_max, Some(1));
        splitter.landed(1, Some(Spending { bytes: 2, bytes_max: 4 }));
        splitter.landed(1, Some(Spending { bytes: 0, bytes_max: 4 }));
        assert_eq!(splitter.records_max, Some(2), "a batch that was not full tells nothing");
        Ok(())
    }
}
