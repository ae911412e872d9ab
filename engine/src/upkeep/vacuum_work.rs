//! Vacuum beside batches: off unless set, once an interval, and one at a time.

use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::Result;

use super::budget::{Budget, BytesRead, HourlyBytes};
use super::metered::metered;
use super::turn::Turns;
use super::vacuum::{Mode, Vacuumed, retention, vacuum};
use super::{UpkeepParts, WorkOutcome};
use crate::commit::land::Landing;
use crate::metrics::Work;

/// The vacuums of one table.
#[derive(Debug)]
pub(super) struct VacuumWork {
    parts: UpkeepParts,
    turns: Turns<Vacuumed>,
    /// The next vacuum is due at this moment, epoch milliseconds.
    due_ms: i64,
}

impl VacuumWork {
    /// Returns the vacuums of a table; the first is due at once, since a process may not live for an interval.
    pub(super) fn new(parts: &UpkeepParts, hourly: &HourlyBytes) -> Self {
        let turns = Turns::new(Budget::new(parts.settings.wall_percent, hourly.clone()));
        Self { parts: parts.clone(), turns, due_ms: i64::MIN }
    }

    /// Tells what came of the last turn, and begins one that is due.
    pub(super) async fn landed(&mut self, landing: &Landing) -> Result<()> {
        let clock = self.parts.clock.as_ref();
        if let Some(ended) = self.turns.take_ended(clock).await {
            self.tell(ended.result, ended.took);
        }
        let clock = self.parts.clock.as_ref();
        let now_ms = clock.now().0;
        let interval_ms = i64::try_from(self.parts.settings.vacuum_interval.as_millis()).unwrap_or(i64::MAX);
        // One that is further ahead than an interval was due by a clock that has been set back since.
        let is_due = now_ms >= self.due_ms || self.due_ms.saturating_sub(now_ms) > interval_ms;
        if !self.parts.settings.vacuum || self.turns.is_busy() || !is_due {
            return Ok(());
        }
        if self.turns.allowance(clock).is_none() {
            return Ok(());
        }
        self.due_ms = now_ms.saturating_add(interval_ms);
        let own = retention(landing.state(), landing.log().location(), None, false)?
            .max(self.parts.settings.vacuum_retention);
        let (read, host) = (BytesRead::default(), Arc::clone(&self.parts.clock));
        let log = metered(landing.log(), &read);
        self.turns.begin(clock, &read, async move { vacuum(&log, own, Mode::Remove, host.as_ref(), |_| ()).await });
        Ok(())
    }

    /// Waits for what is under way, at most `limit`, then drops it.
    pub(super) async fn close(&mut self, limit: Duration) {
        if let Some(ended) = self.turns.finish(self.parts.clock.as_ref(), limit).await {
            self.tell(ended.result, ended.took);
        }
    }

    fn tell(&self, result: Result<Vacuumed>, took: Duration) {
        let (flow, metrics, location) = (&self.parts.flow, &self.parts.metrics, &self.parts.location);
        let outcome = match result {
            Ok(vacuumed) => {
                metrics.upkeep_spent(flow, Work::Vacuum, vacuumed.removed, vacuumed.bytes);
                tracing::info!(table = %location, files = vacuumed.removed, bytes = vacuumed.bytes, "table vacuumed");
                WorkOutcome::Done
            }
            Err(error) => {
                tracing::warn!(table = %location, error = %error.chain(), "a vacuum failed; trying again later");
                WorkOutcome::Failed
            }
        };
        metrics.upkeep(flow, Work::Vacuum, outcome, took);
    }
}
