//! How much upkeep may do: a share of wall time, and bytes per hour.
//!
//! Each kind of work has its own share of the time; the bytes are those of the table, whatever work reads them. Pure: it is
//! told the time. After work of some length comes a rest in proportion, so that on a slow store the pauses grow with the
//! work.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The window that bytes are counted over.
const HOUR_MS: i64 = 3_600_000;

/// What one kind of upkeep of one table may still do.
#[derive(Debug)]
pub struct Budget {
    wall_percent: u64,
    hourly: HourlyBytes,
    /// No work begins before this moment, epoch milliseconds.
    rests_until_ms: i64,
    /// When the last work ended, epoch milliseconds.
    ended_ms: i64,
}

/// The bytes that all work on one table may read within an hour. A clone is the same.
#[derive(Debug, Clone)]
pub struct HourlyBytes {
    bytes_max: u64,
    /// Work of the last hour: when it ended and what it read.
    spent: Arc<Mutex<VecDeque<(i64, u64)>>>,
}

/// The bytes that work has read so far. A clone is the same.
#[derive(Debug, Clone, Default)]
pub struct BytesRead(Arc<AtomicU64>);

impl Budget {
    /// Returns a budget of `wall_percent` of the time and of the bytes of `hourly`.
    pub fn new(wall_percent: u64, hourly: HourlyBytes) -> Self {
        let wall_percent = wall_percent.clamp(1, 100);
        Self { wall_percent, hourly, rests_until_ms: i64::MIN, ended_ms: i64::MIN }
    }

    /// Tells whether work that reads no bytes of files may begin now.
    pub fn has_rested(&mut self, now_ms: i64) -> bool {
        if now_ms < self.ended_ms {
            // The clock was set back: what was so by the former one would be so until it is there again.
            (self.ended_ms, self.rests_until_ms) = (now_ms, now_ms);
        }
        now_ms >= self.rests_until_ms
    }

    /// Returns the bytes that work which begins now may read; `None` when no work may begin.
    pub fn allowance(&mut self, now_ms: i64) -> Option<u64> {
        if !self.has_rested(now_ms) {
            return None;
        }
        Some(self.hourly.left(now_ms)).filter(|left| *left > 0)
    }

    /// Counts work that began and ended at these moments and read `bytes`.
    pub fn spend(&mut self, begun_ms: i64, ended_ms: i64, bytes: u64) {
        let took_ms = u64::try_from(ended_ms.saturating_sub(begun_ms)).unwrap_or(0);
        let rest_ms = took_ms.saturating_mul(100 - self.wall_percent) / self.wall_percent;
        self.ended_ms = ended_ms;
        self.rests_until_ms = ended_ms.saturating_add(i64::try_from(rest_ms).unwrap_or(i64::MAX));
        if bytes > 0 {
            self.hourly.spent().push_back((ended_ms, bytes));
        }
    }
}

impl HourlyBytes {
    /// Returns `bytes_max` an hour, of which nothing is spent.
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes_max, spent: Arc::default() }
    }

    fn left(&self, now_ms: i64) -> u64 {
        let mut spent = self.spent();
        if spent.iter().any(|(at_ms, _)| *at_ms > now_ms) {
            // The clock was set back.
            spent.clear();
        }
        while spent.front().is_some_and(|(at_ms, _)| *at_ms <= now_ms - HOUR_MS) {
            spent.pop_front();
        }
        self.bytes_max.saturating_sub(spent.iter().map(|(_, bytes)| bytes).sum())
    }

    fn spent(&self) -> MutexGuard<'_, VecDeque<(i64, u64)>> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BytesRead {
    /// Returns a count that stands at `bytes`.
    pub fn of(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    /// Counts `bytes` more.
    pub fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns how many there are.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_time_is_three_times_the_work_in_rest() {
        let mut budget = Budget::new(25, HourlyBytes::new(1_000));
        assert_eq!(budget.allowance(0), Some(1_000));
        budget.spend(0, 100, 0);
        assert_eq!((budget.allowance(399), budget.has_rested(399)), (None, false));
        assert_eq!((budget.allowance(400), budget.has_rested(400)), (Some(1_000), true));
    }

    #[test]
    fn a_clock_that_is_set_back_ends_the_rest() {
        let mut budget = Budget::new(25, HourlyBytes::new(1_000));
        budget.spend(10_000_000, 20_000_000, 1_000);
        assert_eq!(budget.allowance(20_000_000), None);
        assert_eq!(budget.allowance(19_999_999), Some(1_000));
        budget.spend(19_999_999, 20_000_099, 400);
        assert_eq!(budget.allowance(20_000_398), None);
        assert_eq!(budget.allowance(20_000_399), Some(600));
    }

    #[test]
    fn bytes_come_back_after_an_hour() {
        let mut budget = Budget::new(100, HourlyBytes::new(1_000));
        budget.spend(0, 10, 700);
        assert_eq!(budget.allowance(10), Some(300));
        budget.spend(10, 20, 300);
        assert_eq!((budget.allowance(20), budget.has_rested(20)), (None, true));
        assert_eq!(budget.allowance(10 + HOUR_MS), Some(700));
        assert_eq!(budget.allowance(20 + HOUR_MS), Some(1_000));
    }

    #[test]
    fn work_of_one_kind_takes_bytes_from_another_and_no_time() {
        let hourly = HourlyBytes::new(1_000);
        let (mut one, mut other) = (Budget::new(25, hourly.clone()), Budget::new(25, hourly));
        one.spend(0, 100, 400);
        assert_eq!((one.allowance(100), other.allowance(100)), (None, Some(600)));
        // More than there was: what is read is known only afterwards.
        other.spend(100, 200, 900);
        assert_eq!((one.allowance(400), other.allowance(500)), (None, None));
        assert_eq!((one.allowance(100 + HOUR_MS), one.allowance(200 + HOUR_MS)), (Some(100), Some(1_000)));
    }

    #[test]
    fn a_clock_that_goes_back_makes_no_endless_rest() {
        let mut budget = Budget::new(25, HourlyBytes::new(1_000));
        budget.spend(5_000, 1_000, 1);
        assert_eq!(budget.allowance(1_000), Some(999));
    }
}
