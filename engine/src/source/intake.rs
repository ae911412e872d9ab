//! The open batch: what was read and not yet handed out, and where each partition goes on. Pure but for the time given.
//!
//! A record is taken only if its partition is read and its offset is not below the position: librdkafka may deliver a
//! record twice after a seek or a resume. Positions also move over gaps, which transaction markers and compaction leave.

use std::collections::BTreeMap;

use alluvium_catalog::{Error, Offset, OffsetRange, Partition, Result, Span};
use alluvium_sql::pipeline::BatchLimits;
use tokio::time::Instant;

use crate::hop::{Fetched, Headers, Record, Records};
use crate::source::assignment::{Assignment, Epoch};

/// Collects records into batches.
#[derive(Debug)]
pub(crate) struct Intake {
    limits: BatchLimits,
    cursors: BTreeMap<Partition, Cursor>,
    records: Records,
    /// Records of the last batch, and the bytes of their keys and values.
    last: (usize, usize),
    opened: Option<Instant>,
}

/// Where a partition is read from, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    /// The assignment that it is read under.
    pub(crate) epoch: Epoch,
    /// The first position.
    pub(crate) at: Offset,
    /// The position to stop at, for `--once`.
    pub(crate) end: Option<Offset>,
    /// Whether the first batch covers the partition even when it has no records, so that the start is not forgotten.
    pub(crate) announce: bool,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is in the open batch.
    Kept,
    /// It was read before.
    Stale,
    /// It lies at or behind the position to stop at.
    Beyond,
    /// Its partition is not read.
    Unassigned,
}

/// A batch with the epochs of its partitions.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) fetched: Fetched,
    pub(crate) epochs: BTreeMap<Partition, Epoch>,
}

impl Closed {
    /// Takes out what was revoked or begun again since it was read, and notes the rest as handed out. Returns nothing
    /// when nothing is left.
    pub(crate) fn hand_out(self, assignment: &mut Assignment) -> Option<Fetched> {
        let Self { mut fetched, epochs } = self;
        let is_stale = |(partition, epoch): &(Partition, Epoch)| !assignment.is_current(*partition, *epoch);
        let stale: Vec<_> = epochs.into_iter().filter(is_stale).map(|(partition, _)| partition).collect();
        if !stale.is_empty() {
            fetched.records.retain_partitions(|partition| !stale.contains(&partition));
            for partition in stale {
                fetched.span.remove(partition);
            }
        }
        fetched.span.iter().next()?;
        assignment.hand_out(&fetched.span);
        Some(fetched)
    }
}

#[derive(Debug)]
struct Cursor {
    epoch: Epoch,
    first: Offset,
    next: Offset,
    records: u64,
    end: Option<Offset>,
    announce: bool,
}

impl Cursor {
    fn is_touched(&self) -> bool {
        self.announce || self.next != self.first
    }

    fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.next >= end)
    }
}

impl Intake {
    /// Returns an intake that reads nothing yet.
    pub(crate) fn new(limits: BatchLimits) -> Self {
        Self { limits, cursors: BTreeMap::new(), records: Records::default(), last: (0, 0), opened: None }
    }

    /// Begins to read `partition`; what the open batch has of it is dropped.
    pub(crate) fn start(&mut self, partition: Partition, reading: Reading) {
        self.stop(partition);
        let Reading { epoch, at, end, announce } = reading;
        self.cursors.insert(partition, Cursor { epoch, first: at, next: at, records: 0, end, announce });
        if announce {
            self.open();
        }
    }

    /// Stops to read `partition`; what the open batch has of it is dropped.
    pub(crate) fn stop(&mut self, partition: Partition) {
        let dropped = self.cursors.remove(&partition);
        if dropped.is_some_and(|cursor| cursor.records > 0) {
            self.records.retain_partitions(|other| other != partition);
        }
        if !self.cursors.values().any(Cursor::is_touched) {
            self.records = Records::default();
            self.opened = None;
        }
    }

    /// Takes `record` into the open batch if it is the next of its partition.
    pub(crate) fn take(&mut self, record: Record<'_>, headers: impl FnOnce() -> Headers) -> Taken {
        let Some(cursor) = self.cursors.get_mut(&record.partition) else { return Taken::Unassigned };
        if record.offset < cursor.next {
            return Taken::Stale;
        }
        if let Some(end) = cursor.end
            && record.offset >= end
        {
            self.reach(record.partition, end);
            return Taken::Beyond;
        }
        cursor.next = record.offset.succ();
        cursor.records += 1;
        self.records.push(record, headers());
        self.open();
        Taken::Kept
    }

    /// Moves the position of `partition` to `offset`: there are no records before it.
    pub(crate) fn reach(&mut self, partition: Partition, offset: Offset) {
        let Some(cursor) = self.cursors.get_mut(&partition) else { return };
        let offset = cursor.end.map_or(offset, |end| offset.min(end));
        if offset > cursor.next {
            cursor.next = offset;
            self.open();
        }
    }

    /// Returns the next position of every partition that is read.
    pub(crate) fn positions(&self) -> BTreeMap<Partition, Offset> {
        self.cursors.iter().map(|(partition, cursor)| (*partition, cursor.next)).collect()
    }

    /// Tells whether a batch is open.
    pub(crate) fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    /// Tells whether the batch has reached its rows or bytes.
    pub(crate) fn is_full(&self) -> bool {
        self.records.len() >= self.limits.rows_max || self.records.bytes_held() >= self.limits.bytes_max
    }

    /// Returns when the batch has to be closed, if one is open.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.opened.map(|opened| opened + self.limits.interval)
    }

    /// Tells whether every partition that is read has reached the position to stop at.
    pub(crate) fn is_drained(&self) -> bool {
        self.cursors.values().all(Cursor::is_done)
    }

    /// Closes the open batch, if there is one.
    ///
    /// # Errors
    /// `Internal` when a range ends before it begins, which the cursors cannot bring about.
    pub(crate) fn close(&mut self) -> Result<Option<Closed>> {
        let Some(opened) = self.opened.take() else { return Ok(None) };
        let mut span = Span::new();
        let mut epochs = BTreeMap::new();
        for (partition, cursor) in self.cursors.iter_mut().filter(|(_, cursor)| cursor.is_touched()) {
            let range = OffsetRange { first: cursor.first, next: cursor.next, records: cursor.records };
            span.extend(*partition, range)
                .map_err(|misfit| Error::internal("a position moved back").with_source(misfit))?;
            epochs.insert(*partition, cursor.epoch);
            (cursor.first, cursor.records, cursor.announce) = (cursor.next, 0, false);
        }
        let records = std::mem::take(&mut self.records);
        self.last = (records.len(), records.bytes());
        Ok(Some(Closed { fetched: Fetched { records, span, took: opened.elapsed() }, epochs }))
    }

    fn open(&mut self) {
        if self.opened.is_none() {
            self.opened = Some(Instant::now());
            // A batch is about as large as the one before it.
            let (n_records, bytes) = self.last;
            self.records.reserve(n_records + n_records / 16, bytes + bytes / 16);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;

    const P: Partition = Partition(0);

    fn intake(partitions: &[(i32, i64)], end: Option<i64>) -> Intake {
        let limits = BatchLimits { rows_max: 3, bytes_max: 100, interval: Duration::from_secs(1) };
        let mut intake = Intake::new(limits);
        let mut assignment = Assignment::default();
        for &(partition, at) in partitions {
            let epoch = assignment.assign(Partition(partition), Offset(at));
            let reading = Reading { epoch, at: Offset(at), end: end.map(Offset), announce: false };
            intake.start(Partition(partition), reading);
        }
        intake
    }

    fn take(intake: &mut Intake, partition: i32, offset: i64) -> Taken {
        let (partition, offset) = (Partition(partition), Offset(offset));
        let record = Record { partition, offset, timestamp_ms: None, key: None, value: Some(b"0123456789") };
        intake.take(record, Headers::new)
    }

    fn close(intake: &mut Intake) -> Result<String> {
        Ok(intake
            .close()?
            .map_or("none".to_owned(), |closed| format!("{} {}", closed.fetched.records.len(), closed.fetched.span)))
    }

    #[test]
    fn delivered_twice_is_taken_once() -> Result<()> {
        let mut intake = intake(&[(0, 5)], None);
        let taken = [4, 5, 5, 6].map(|offset| take(&mut intake, 0, offset));
        assert_eq!(taken, [Taken::Stale, Taken::Kept, Taken::Stale, Taken::Kept]);
        assert_eq!(take(&mut intake, 1, 0), Taken::Unassigned);
        assert_eq!(close(&mut intake)?, "2 0@[5,7)");
        Ok(())
    }

    #[test]
    fn batches_touch_across_gaps() -> Result<()> {
        let mut intake = intake(&[(0, 5)], None);
        take(&mut intake, 0, 8);
        assert_eq!(close(&mut intake)?, "1 0@[5,9)");
        intake.reach(P, Offset(12));
        intake.reach(P, Offset(11));
        assert_eq!(close(&mut intake)?, "0 0@[9,12)");
        assert_eq!(close(&mut intake)?, "none");
        Ok(())
    }

    #[test]
    fn rows_or_bytes_fill_a_batch() {
        let mut by_rows = intake(&[(0, 0)], None);
        let full: Vec<bool> = (0..3).map(|offset| (take(&mut by_rows, 0, offset), by_rows.is_full()).1).collect();
        assert_eq!(full, [false, false, true]);
        let mut by_bytes = intake(&[(0, 0)], None);
        let value = [0; 100];
        let record = Record { partition: P, offset: Offset(0), timestamp_ms: None, key: None, value: Some(&value) };
        by_bytes.take(record, Headers::new);
        assert!(by_bytes.is_full());
    }

    #[test]
    fn headers_fill_a_batch_and_leave_it_with_their_partition() {
        let mut intake = intake(&[(0, 0), (1, 0)], None);
        for (partition, length) in [(Partition(1), 1), (P, 90)] {
            let record = Record { partition, offset: Offset(0), timestamp_ms: None, key: None, value: None };
            let taken = intake.take(record, || vec![("h".to_owned(), Some(Bytes::from(vec![0; length])))]);
            assert_eq!((taken, intake.is_full()), (Taken::Kept, partition == P));
        }
        intake.stop(P);
        assert!(intake.is_open() && !intake.is_full());
    }

    #[test]
    fn revoked_rows_leave_the_batch_and_the_others_stay() -> Result<()> {
        let mut intake = intake(&[(0, 0), (1, 0)], None);
        take(&mut intake, 0, 0);
        take(&mut intake, 1, 0);
        intake.stop(P);
        assert_eq!(close(&mut intake)?, "1 1@[0,1)");
        Ok(())
    }

    #[test]
    fn batch_of_revoked_rows_alone_is_no_batch() -> Result<()> {
        let mut intake = intake(&[(0, 0), (1, 0)], None);
        take(&mut intake, 0, 0);
        intake.stop(P);
        assert!(!intake.is_open());
        assert_eq!(close(&mut intake)?, "none");
        Ok(())
    }

    #[test]
    fn what_was_revoked_while_it_waited_is_taken_out() -> Result<()> {
        let (mut assignment, mut intake) = (Assignment::default(), intake(&[], None));
        for partition in [P, Partition(1)] {
            let epoch = assignment.assign(partition, Offset(0));
            intake.start(partition, Reading { epoch, at: Offset(0), end: None, announce: false });
        }
        take(&mut intake, 0, 0);
        take(&mut intake, 1, 0);
        let closed = intake.close()?;
        assignment.revoke(P);
        let fetched = closed.and_then(|closed| closed.hand_out(&mut assignment));
        let fetched = fetched.ok_or_else(|| Error::internal("nothing is left"))?;
        assert_eq!((fetched.span.to_string(), fetched.records.len()), ("1@[0,1)".to_owned(), 1));
        assert!(assignment.holds(&fetched.span));
        take(&mut intake, 1, 1);
        let closed = intake.close()?;
        assignment.assign(Partition(1), Offset(1));
        assert!(closed.and_then(|closed| closed.hand_out(&mut assignment)).is_none());
        Ok(())
    }

    #[test]
    fn start_of_a_silent_partition_is_announced_once() -> Result<()> {
        let mut intake = intake(&[], None);
        let epoch = Assignment::default().assign(P, Offset(7));
        intake.start(P, Reading { epoch, at: Offset(7), end: None, announce: true });
        assert!(intake.is_open());
        assert_eq!(close(&mut intake)?, "0 0@[7,7)");
        assert_eq!(close(&mut intake)?, "none");
        Ok(())
    }

    #[test]
    fn nothing_behind_the_end_is_taken() -> Result<()> {
        let mut intake = intake(&[(0, 0), (1, 4)], Some(4));
        assert_eq!(take(&mut intake, 0, 1), Taken::Kept);
        assert!(!intake.is_drained());
        assert_eq!(take(&mut intake, 0, 6), Taken::Beyond, "3 and 4 are a gap");
        assert!(intake.is_drained());
        assert_eq!(close(&mut intake)?, "1 0@[0,4)");
        Ok(())
    }

    #[test]
    fn without_partitions_it_is_drained() {
        assert!(intake(&[], None).is_drained());
        assert!(!intake(&[(0, 0)], None).is_drained(), "without an end it never is");
    }
}
