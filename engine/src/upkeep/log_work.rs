//! Keeps the log of one table short and quick to load: checkpoints, what they make superfluous, version checksums.
//!
//! A checkpoint is due by versions or by bytes of log, whichever comes first, and waits for no budget, since without it
//! every start replays more. A checksum is written for the newest version whenever the budget allows; under load that is
//! not each one, and the next covers those between.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::{Error, Result};
use tokio::time::Instant;

use super::budget::Budget;
use super::turn::Turns;
use super::{UpkeepParts, clean, kernel};
use crate::commit::create::CHECKPOINT_INTERVAL;
use crate::commit::land::Landing;
use crate::delta::log::{DeltaLog, Version};
use crate::delta::state::TableState;
use crate::heap;
use crate::metrics::{Work, WorkOutcome};

/// How long one turn may take before it is given up.
const TURN_LIMIT: Duration = Duration::from_secs(600);

/// Work on the log of one table.
#[derive(Debug)]
pub(super) struct LogWork {
    parts: UpkeepParts,
    turns: Turns<()>,
    /// The version that the last checkpoint was due at, and how much log there was then.
    last: (Version, u64),
}

impl LogWork {
    /// Returns the work on a log that ends with `version`; does nothing yet.
    pub(super) fn new(parts: &UpkeepParts, version: Version) -> Self {
        let interval = parts.checkpoint_interval.max(1);
        Self {
            parts: parts.clone(),
            turns: Turns::new(Budget::new(parts.settings.wall_percent, u64::MAX)),
            last: (version - version % interval, 0),
        }
    }

    /// Begins what is due, when nothing is under way.
    pub(super) async fn landed(&mut self, landing: &Landing) {
        let clock = Arc::clone(&self.parts.clock);
        // What came of a turn is told by the turn itself.
        drop(self.turns.take_ended(clock.as_ref()).await);
        if self.turns.is_busy() || self.shorten_if_due(landing) {
            return;
        }
        let parts = self.parts.clone();
        if parts.settings.checksums && self.turns.allowance(clock.as_ref()).is_some() {
            self.turns.begin(clock.as_ref(), 0, async move {
                turn(&parts, Work::Checksum, kernel::write_checksum(&parts.stores, &parts.location)).await.map(drop)
            });
        }
    }

    /// Waits for what is under way, and for a checkpoint that came due meanwhile, at most `limit` for each, then drops it.
    /// Short runs would else leave checkpoint after checkpoint to the next.
    pub(super) async fn close(&mut self, landing: &Landing, limit: Duration) {
        let clock = Arc::clone(&self.parts.clock);
        drop(self.turns.finish(clock.as_ref(), limit).await);
        if self.shorten_if_due(landing) {
            drop(self.turns.finish(clock.as_ref(), limit).await);
        }
    }

    /// Begins a checkpoint and what follows it, if one is due; tells whether it was.
    fn shorten_if_due(&mut self, landing: &Landing) -> bool {
        let (version, bytes) = (landing.state().version, landing.log_bytes());
        let parts = self.parts.clone();
        let is_due = version >= self.last.0 + interval(landing.state(), parts.checkpoint_interval)
            || bytes >= self.last.1 + parts.settings.checkpoint_bytes;
        if is_due {
            self.last = (version, bytes);
            let state = landing.state().head();
            let log = landing.log().clone();
            let clock = Arc::clone(&parts.clock);
            self.turns.begin(clock.as_ref(), 0, async move { shorten(&parts, &log, &state).await });
        }
        is_due
    }
}

/// Returns how many versions lie between two checkpoints: what the table says, else `setting`.
fn interval(state: &TableState, setting: u64) -> u64 {
    let said = state.metadata.configuration.get(CHECKPOINT_INTERVAL).and_then(|text| text.trim().parse().ok());
    said.unwrap_or(setting).max(1)
}

/// Writes a checkpoint, then removes what it makes superfluous.
async fn shorten(parts: &UpkeepParts, log: &DeltaLog, state: &TableState) -> Result<()> {
    if parts.settings.checksums {
        // A checkpoint that lacks its checksum is as good; the failure is told where it happens.
        drop(turn(parts, Work::Checksum, kernel::write_checksum(&parts.stores, &parts.location)).await);
    }
    let write = kernel::write_checkpoint(&parts.stores, &parts.location, kernel::has_v2(state));
    turn(parts, Work::Checkpoint, write).await?;
    let n_files = turn(parts, Work::CleanUp, clean::clean_log(log, state, parts.clock.as_ref())).await?;
    parts.metrics.upkeep_spent(&parts.flow, Work::CleanUp, n_files, 0);
    // A replay of the whole log leaves more behind than batches do.
    drop(tokio::task::spawn_blocking(heap::give_back).await);
    Ok(())
}

/// Does one piece of work within the limit, and tells what came of it.
async fn turn<T>(parts: &UpkeepParts, work: Work, doing: impl Future<Output = Result<T>>) -> Result<T> {
    let begun = Instant::now();
    let done = match tokio::time::timeout(TURN_LIMIT, doing).await {
        Ok(done) => done,
        Err(_) => Err(Error::unavailable(format!("upkeep of {} took too long", parts.location))),
    };
    let outcome = if done.is_ok() { WorkOutcome::Done } else { WorkOutcome::Failed };
    parts.metrics.upkeep(&parts.flow, work, outcome, begun.elapsed());
    match &done {
        Ok(_) => tracing::debug!(table = %parts.location, work = work.as_str(), took = ?begun.elapsed(), "log tended"),
        Err(error) => tracing::warn!(
            table = %parts.location, work = work.as_str(), error = %error.chain(),
            "the log was not tended; trying again later"
        ),
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_own_interval_goes_over_the_setting() {
        let of = |text: Option<&str>| {
            let mut state = TableState::default();
            let configuration = &mut state.metadata.configuration;
            configuration.extend(text.map(|text| (CHECKPOINT_INTERVAL.to_owned(), text.to_owned())));
            interval(&state, 100)
        };
        assert_eq!((of(None), of(Some("10")), of(Some("0")), of(Some("soon"))), (100, 10, 1, 100));
    }
}
