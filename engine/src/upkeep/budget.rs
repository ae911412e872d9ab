//! How much upkeep may do: a share of wall time, and bytes per hour.
//!
//! Pure: it is told the time. After work of some length comes a rest in proportion, so that on a slow store the pauses
//! grow with the work.

use std::collections::VecDeque;

/// The window that bytes are counted over.
const HOUR_MS: i64 = 3_600_000;

/// What one kind of upkeep of one table may still do.
#[derive(Debug, Clone)]
pub struct Budget {
    wall_percent: u64,
    hourly_bytes: u64,
    /// No work begins before this moment, epoch milliseconds.
    rests_until_ms: i64,
    /// When the last work ended, epoch milliseconds.
    ended_ms: i64,
    /// Work of the last hour: when it ended and what it read.
    spent: VecDeque<(i64, u64)>,
}

impl Budget {
    /// Returns a budget of `wall_percent` of the time and of `hourly_bytes`, of which nothing is spent.
    pub fn new(wall_percent: u64, hourly_bytes: u64) -> Self {
        Self {
            wall_percent: wall_percent.clamp(1, 100),
            hourly_bytes,
            rests_until_ms: i64::MIN,
            ended_ms: i64::MIN,
            spent: VecDeque::new(),
        }
    }

    /// Returns the bytes that work which begins now may read; `None` when no work may begin.
    pub fn allowance(&mut self, now_ms: i64) -> Option<u64> {
        if now_ms < self.ended_ms {
            // The clock was set back: what was spent by the former one would be so until it is there again.
            self.spent.clear();
            (self.ended_ms, self.rests_until_ms) = (now_ms, now_ms);
        }
        while self.spent.front().is_some_and(|(at_ms, _)| *at_ms <= now_ms - HOUR_MS) {
            self.spent.pop_front();
        }
        if now_ms < self.rests_until_ms {
            return None;
        }
        let spent: u64 = self.spent.iter().map(|(_, bytes)| bytes).sum();
        self.hourly_bytes.checked_sub(spent).filter(|left| *left > 0)
    }

    /// Counts work that began and ended at these moments and read `bytes`.
    pub fn spend(&mut self, begun_ms: i64, ended_ms: i64, bytes: u64) {
        let took_ms = u64::try_from(ended_ms.saturating_sub(begun_ms)).unwrap_or(0);
        let rest_ms = took_ms.saturating_mul(100 - self.wall_percent) / self.wall_percent;
        self.ended_ms = ended_ms;
        self.rests_until_ms = ended_ms.saturating_add(i64::try_from(rest_ms).unwrap_or(i64::MAX));
        if bytes > 0 {
            self.spent.push_back((ended_ms, bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_time_is_three_times_the_work_in_rest() {
        let mut budget = Budget::new(25, 1_000);
        assert_eq!(budget.allowance(0), Some(1_000));
        budget.spend(0, 100, 0);
        assert_eq!(budget.allowance(399), None);
        assert_eq!(budget.allowance(400), Some(1_000));
    }

    #[test]
    fn a_clock_that_is_set_back_ends_the_rest() {
        let mut budget = Budget::new(25, 1_000);
        budget.spend(10_000_000, 20_000_000, 1_000);
        assert_eq!(budget.allowance(20_000_000), None);
        assert_eq!(budget.allowance(19_999_999), Some(1_000));
        budget.spend(19_999_999, 20_000_099, 400);
        assert_eq!(budget.allowance(20_000_398), None);
        assert_eq!(budget.allowance(20_000_399), Some(600));
    }

    #[test]
    fn bytes_come_back_after_an_hour() {
        let mut budget = Budget::new(100, 1_000);
        budget.spend(0, 10, 700);
        assert_eq!(budget.allowance(10), Some(300));
        budget.spend(10, 20, 300);
        assert_eq!(budget.allowance(20), None);
        assert_eq!(budget.allowance(10 + HOUR_MS), Some(700));
        assert_eq!(budget.allowance(20 + HOUR_MS), Some(1_000));
    }

    #[test]
    fn a_clock_that_goes_back_makes_no_endless_rest() {
        let mut budget = Budget::new(25, 1_000);
        budget.spend(5_000, 1_000, 1);
        assert_eq!(budget.allowance(1_000), Some(999));
    }
}
