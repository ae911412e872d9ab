//! Work of one kind in the background: one task at a time, within a budget, ended with its owner.

use std::future::Future;
use std::time::Duration;

use alluvium_catalog::{Clock, Error, Result};
use tokio_util::task::AbortOnDropHandle;

use super::budget::{Budget, BytesRead};

/// One kind of work.
#[derive(Debug)]
pub(super) struct Turns<T> {
    under_way: Option<Turn<T>>,
    budget: Budget,
}

#[derive(Debug)]
struct Turn<T> {
    task: AbortOnDropHandle<Result<T>>,
    begun_ms: i64,
    read: BytesRead,
    /// What was known before that it would read.
    taken: u64,
}

/// A turn that has come to its end.
#[derive(Debug)]
pub(super) struct Ended<T> {
    /// What came of it.
    pub(super) result: Result<T>,
    /// How long it took.
    pub(super) took: Duration,
}

impl<T: Send + 'static> Turns<T> {
    /// Returns work that has `budget` and has not begun.
    pub(super) fn new(budget: Budget) -> Self {
        Self { under_way: None, budget }
    }

    /// Tells whether a turn is under way, or has ended and was not taken.
    pub(super) fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// Tells whether a turn has ended and was not taken.
    pub(super) fn has_ended(&self) -> bool {
        self.under_way.as_ref().is_some_and(|turn| turn.task.is_finished())
    }

    /// Returns the bytes that a turn which begins now may read; `None` when none may begin.
    pub(super) fn allowance(&mut self, clock: &dyn Clock) -> Option<u64> {
        self.budget.allowance(clock.now().0)
    }

    /// Tells whether the rest after the last turn is over.
    pub(super) fn has_rested(&mut self, clock: &dyn Clock) -> bool {
        self.budget.has_rested(clock.now().0)
    }

    /// Begins a turn that counts what it reads in `read`, from what is known before on; one that is under way is dropped.
    pub(super) fn begin(
        &mut self,
        clock: &dyn Clock,
        read: &BytesRead,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) {
        let task = AbortOnDropHandle::new(tokio::spawn(work));
        let (begun_ms, taken) = (clock.now().0, read.get());
        self.budget.take(begun_ms, taken);
        self.under_way = Some(Turn { task, begun_ms, read: read.clone(), taken });
    }

    /// Returns the turn that has ended, if one has; waits for nothing.
    pub(super) async fn take_ended(&mut self, clock: &dyn Clock) -> Option<Ended<T>> {
        if !self.has_ended() {
            return None;
        }
        self.finish(clock, Duration::MAX).await
    }

    /// Waits for the turn under way, at most `limit`, then drops it.
    pub(super) async fn finish(&mut self, clock: &dyn Clock, limit: Duration) -> Option<Ended<T>> {
        let Turn { task, begun_ms, read, taken } = self.under_way.take()?;
        let joined = tokio::time::timeout(limit, task).await;
        let ended_ms = clock.now().0;
        self.budget.spend(begun_ms, ended_ms, read.get() - taken);
        let stopped = |cause| Error::internal("a task of upkeep stopped").with_source(cause);
        let result = joined.ok()?.map_err(stopped).and_then(|result| result);
        let took = Duration::from_millis(u64::try_from(ended_ms - begun_ms).unwrap_or(0));
        Some(Ended { result, took })
    }
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::{ManualClock, Timestamp};

    use super::super::budget::HourlyBytes;
    use super::*;

    #[tokio::test]
    async fn a_turn_is_taken_once_and_its_rest_follows_its_length() -> Result<()> {
        let clock = ManualClock::new(1, Timestamp(0));
        let mut turns = Turns::new(Budget::new(50, HourlyBytes::new(1_000)));
        assert!(turns.take_ended(&clock).await.is_none());
        let read = BytesRead::of(300);
        turns.begin(&clock, &read, async { Ok(7) });
        assert_eq!((turns.is_busy(), turns.allowance(&clock)), (true, Some(700)));
        read.add(100);
        clock.advance(Duration::from_millis(30));
        let ended = turns.finish(&clock, Duration::from_secs(5)).await.ok_or_else(|| Error::internal("no end"))?;
        assert_eq!((ended.result?, ended.took), (7, Duration::from_millis(30)));
        assert!(!turns.is_busy());
        assert_eq!(turns.allowance(&clock), None);
        clock.advance(Duration::from_millis(30));
        assert_eq!(turns.allowance(&clock), Some(600));
        Ok(())
    }

    #[tokio::test]
    async fn a_turn_that_does_not_end_is_dropped_at_the_limit() {
        let clock = ManualClock::new(1, Timestamp(0));
        let mut turns: Turns<()> = Turns::new(Budget::new(50, HourlyBytes::new(1_000)));
        turns.begin(&clock, &BytesRead::of(1), std::future::pending());
        assert!(turns.take_ended(&clock).await.is_none());
        assert!(turns.finish(&clock, Duration::from_millis(1)).await.is_none());
        assert_eq!((turns.is_busy(), turns.allowance(&clock)), (false, Some(999)), "what it read counts");
    }
}
