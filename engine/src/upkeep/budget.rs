//! How much upkeep may do: a share of wall time, and bytes per hour.
//!
//! Each kind of work has its own share of the time; the bytes are those of the table, whatever work reads them. Pure: it is
//! told the time. After work of some length comes a rest in proportion, so that on a slow store the pauses grow with the
//! work.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes are counted by the minute: a batch may cost no walk over all work of an hour.
const MINUTE_MS: i64 = 60_000;

/// Bytes come back once they are more than so many minutes old.
const HOUR_MINUTES: i64 = 60;

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
    spent: Arc<Mutex<Spent>>,
}

/// What was read in the last hour.
#[derive(Debug, Default)]
struct Spent {
    /// Minutes since the epoch, and the bytes of each, oldest first.
    minutes: VecDeque<(i64, u64)>,
    sum: u64,
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

    /// Tells whether the rest after the last work is over.
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

    /// Takes the bytes of work that begins now and will read so many.
    pub fn take(&self, now_ms: i64, bytes: u64) {
        self.hourly.spend(now_ms, bytes);
    }

    /// Counts work that began and ended at these moments and read `bytes` that were not [taken](Self::take) before.
    pub fn spend(&mut self, begun_ms: i64, ended_ms: i64, bytes: u64) {
        let took_ms = u64::try_from(ended_ms.saturating_sub(begun_ms)).unwrap_or(0);
        let rest_ms = took_ms.saturating_mul(100 - self.wall_percent) / self.wall_percent;
        self.ended_ms = ended_ms;
        self.rests_until_ms = ended_ms.saturating_add(i64::try_from(rest_ms).unwrap_or(i64::MAX));
        self.hourly.spend(ended_ms, bytes);
    }
}

impl HourlyBytes {
    /// Returns `bytes_max` an hour, of which nothing is spent.
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes_max, spent: Arc::default() }
    }

    fn left(&self, now_ms: i64) -> u64 {
        let mut spent = self.spent();
        spent.forget(now_ms.div_euclid(MINUTE_MS));
        self.bytes_max.saturating_sub(spent.sum)
    }

    fn spend(&self, now_ms: i64, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let (mut spent, minute) = (self.spent(), now_ms.div_euclid(MINUTE_MS));
        spent.forget(minute);
        spent.sum = spent.sum.saturating_add(bytes);
        match spent.minutes.back_mut() {
            Some((newest, of_it)) if *newest == minute => *of_it = of_it.saturating_add(bytes),
            _ => spent.minutes.push_back((minute, bytes)),
        }
    }

    fn spent(&self) -> MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spent {
    /// Forgets what is more than an hour before `minute`. What is after it, as a clock that was set back has it, is of that
    /// minute from now on: it stays spent for an hour, and no longer.
    fn forget(&mut self, minute: i64) {
        for (at, _) in self.minutes.iter_mut().rev().take_while(|(at, _)| *at > minute) {
            *at = minute;
        }
        while let Some((_, bytes)) = self.minutes.pop_front_if(|(at, _)| *at < minute - HOUR_MINUTES) {
            self.sum -= bytes;
        }
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

    const HOUR_MS: i64 = (HOUR_MINUTES + 1) * MINUTE_MS;

    #[test]
    fn a_clock_that_is_set_back_ends_the_rest_and_gives_no_bytes_back() {
        let mut budget = Budget::new(25, HourlyBytes::new(1_000));
        budget.spend(10_000_000, 20_000_000, 600);
        assert_eq!(budget.allowance(20_000_000), None);
        assert_eq!(budget.allowance(19_999_999), Some(400));
        budget.spend(19_999_999, 20_000_099, 400);
        assert!(!budget.has_rested(20_000_398) && budget.has_rested(20_000_399));
        assert_eq!(budget.allowance(20_000_399), None, "all is spent");
        assert_eq!((budget.allowance(0), budget.allowance(HOUR_MS - 1)), (None, None), "hours before, and then");
        assert_eq!(budget.allowance(HOUR_MS), Some(1_000));
    }

    #[test]
    fn bytes_come_back_after_an_hour() {
        let mut budget = Budget::new(100, HourlyBytes::new(1_000));
        budget.take(0, 500);
        assert_eq!(budget.allowance(0), Some(500), "what is under way is not free");
        budget.spend(0, 10, 200);
        assert_eq!(budget.allowance(10), Some(300));
        budget.spend(10, MINUTE_MS, 300);
        assert_eq!((budget.allowance(MINUTE_MS), budget.has_rested(MINUTE_MS)), (None, true));
        assert_eq!(budget.allowance(HOUR_MS - 1), None);
        assert_eq!(budget.allowance(HOUR_MS), Some(700));
        assert_eq!(budget.allowance(HOUR_MS + MINUTE_MS), Some(1_000));
        assert!((0..100_000).all(|at| {
            budget.spend(at, at, 1);
            budget.hourly.spent().minutes.len() <= 3
        }));
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
        assert_eq!((one.allowance(HOUR_MS), other.allowance(HOUR_MS)), (Some(1_000), Some(1_000)));
    }

    #[test]
    fn a_clock_that_goes_back_makes_no_endless_rest() {
        let mut budget = Budget::new(25, HourlyBytes::new(1_000));
        budget.spend(5_000, 1_000, 1);
        assert_eq!(budget.allowance(1_000), Some(999));
    }
}
