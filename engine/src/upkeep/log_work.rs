//! Keeps the log of one table short and quick to load: checkpoints, what they make superfluous, version checksums.
//!
//! A checkpoint is due by versions or by bytes of log, whichever comes first, and written as soon as the budget allows. Since
//! without it every start replays more, it waits for none once three are due, nor after one that failed, nor at the end of a
//! run. A checksum is written for the newest version whenever the budget allows; under load that is not each one, and the
//! next covers those between. What both read is known afterwards, so that each may read more than was left.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::{Error, Result};
use tokio::time::Instant;

use super::budget::{Budget, BytesRead, HourlyBytes};
use super::metered::metered;
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

/// Checkpoints that may come due before one is written whatever the budget says. With ten, a flow that committed 600 times a
/// second had a log of up to 1,758 versions, which took 0.5 s to load where it was 0.1 s.
const HELD_UP_MAX: u64 = 3;

/// Work on the log of one table.
#[derive(Debug)]
pub(super) struct LogWork {
    parts: UpkeepParts,
    turns: Turns<()>,
    /// The version that the last checkpoint was due at, and how much log there was then.
    last: (Version, u64),
    /// Whether the last turn failed. The next is a checkpoint then, and comes when one is due.
    has_failed: bool,
}

impl LogWork {
    /// Returns the work on a log that ends with `version`, which reads of `hourly`; does nothing yet.
    pub(super) fn new(parts: &UpkeepParts, hourly: &HourlyBytes, version: Version) -> Self {
        let interval = parts.checkpoint_interval.max(1);
        Self {
            parts: parts.clone(),
            turns: Turns::new(Budget::new(parts.settings.wall_percent, hourly.clone())),
            last: (version - version % interval, 0),
            has_failed: false,
        }
    }

    /// Begins what is due, when nothing is under way.
    pub(super) async fn landed(&mut self, landing: &Landing) {
        let clock = Arc::clone(&self.parts.clock);
        // What came of a turn is told by the turn itself.
        if let Some(ended) = self.turns.take_ended(clock.as_ref()).await {
            self.has_failed = ended.result.is_err();
        }
        if self.turns.is_busy() {
            return;
        }
        let may_begin = self.turns.allowance(clock.as_ref()).is_some();
        if self.is_due(landing, if may_begin || self.has_failed { 1 } else { HELD_UP_MAX }) {
            self.shorten(landing);
        } else if may_begin && !self.has_failed && self.parts.settings.checksums {
            let (parts, read) = (self.parts.clone(), BytesRead::default());
            self.turns.begin(clock.as_ref(), &read.clone(), async move { write_checksum(&parts, &read).await });
        }
    }

    /// Waits for what is under way, and for a checkpoint that came due meanwhile, at most `limit` for each, then drops it.
    /// Short runs would else leave checkpoint after checkpoint to the next.
    pub(super) async fn close(&mut self, landing: &Landing, limit: Duration) {
        let clock = Arc::clone(&self.parts.clock);
        drop(self.turns.finish(clock.as_ref(), limit).await);
        if self.is_due(landing, 1) {
            self.shorten(landing);
            drop(self.turns.finish(clock.as_ref(), limit).await);
        }
    }

    /// Tells whether so many checkpoints are due.
    fn is_due(&self, landing: &Landing, n_checkpoints: u64) -> bool {
        let interval = interval(landing.state(), self.parts.checkpoint_interval);
        landing.state().version >= self.last.0.saturating_add(interval.saturating_mul(n_checkpoints))
            || landing.log_bytes()
                >= self.last.1.saturating_add(self.parts.settings.checkpoint_bytes.saturating_mul(n_checkpoints))
    }

    /// Begins a checkpoint and what follows it.
    fn shorten(&mut self, landing: &Landing) {
        self.last = (landing.state().version, landing.log_bytes());
        let (parts, read) = (self.parts.clone(), BytesRead::default());
        let (state, log) = (landing.state().head(), metered(landing.log(), &read));
        let clock = Arc::clone(&parts.clock);
        self.turns.begin(clock.as_ref(), &read.clone(), async move { shorten(&parts, &log, &state, &read).await });
    }
}

/// Returns how many versions lie between two checkpoints: what the table says, else `setting`.
fn interval(state: &TableState, setting: u64) -> u64 {
    let said = state.metadata.configuration.get(CHECKPOINT_INTERVAL).and_then(|text| text.trim().parse().ok());
    said.unwrap_or(setting).max(1)
}

/// Writes a checkpoint, then removes what it makes superfluous.
async fn shorten(parts: &UpkeepParts, log: &DeltaLog, state: &TableState, read: &BytesRead) -> Result<()> {
    if parts.settings.checksums {
        // A checkpoint that lacks its checksum is as good; the failure is told where it happens.
        drop(write_checksum(parts, read).await);
    }
    let write = kernel::write_checkpoint(&parts.stores, &parts.location, kernel::has_v2(state), read);
    turn(parts, (Work::Checkpoint, read), write).await?;
    let clean = clean::clean_log(log, state, parts.clock.as_ref());
    let n_files = turn(parts, (Work::CleanUp, read), clean).await?;
    parts.metrics.upkeep_spent(&parts.flow, Work::CleanUp, n_files, 0);
    // A replay of the whole log leaves more behind than batches do.
    drop(tokio::task::spawn_blocking(heap::give_back).await);
    Ok(())
}

async fn write_checksum(parts: &UpkeepParts, read: &BytesRead) -> Result<()> {
    let write = kernel::write_checksum(&parts.stores, &parts.location, read);
    turn(parts, (Work::Checksum, read), write).await.map(drop)
}

/// Does one piece of work within the limit, and tells what came of it and what it has read.
async fn turn<T>(
    parts: &UpkeepParts,
    (work, read): (Work, &BytesRead),
    doing: impl Future<Output = Result<T>>,
) -> Result<T> {
    let (begun, read_before) = (Instant::now(), read.get());
    let done = match tokio::time::timeout(TURN_LIMIT, doing).await {
        Ok(done) => done,
        Err(_) => Err(Error::unavailable(format!("upkeep of {} took too long", parts.location))),
    };
    let outcome = if done.is_ok() { WorkOutcome::Done } else { WorkOutcome::Failed };
    parts.metrics.upkeep(&parts.flow, work, outcome, begun.elapsed());
    parts.metrics.upkeep_spent(&parts.flow, work, 0, read.get() - read_before);
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
    use alluvium_catalog::{Clock, ManualClock, SystemClock};

    use super::super::fixture::Scene;
    use super::*;
    use crate::config::UpkeepSettings;

    /// A table whose every version has a checkpoint come due, and a clock that stands.
    async fn scene() -> Result<(Scene, Landing, Arc<ManualClock>)> {
        let clock = Arc::new(ManualClock::new(1, SystemClock.now()));
        let mut scene = Scene { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..Scene::appends()? };
        scene.properties.insert(CHECKPOINT_INTERVAL.to_owned(), "1".to_owned());
        let landing = scene.open().await?;
        Ok((scene, landing, clock))
    }

    fn settings() -> UpkeepSettings {
        UpkeepSettings { wall_percent: 25, checksums: false, ..UpkeepSettings::default() }
    }

    impl LogWork {
        /// Does what is due, waits for its end while `clock` goes on by `took`, and returns the version of the last
        /// checkpoint.
        async fn last_checkpoint(
            &mut self,
            landing: &Landing,
            (clock, took): (&ManualClock, Duration),
        ) -> Result<Option<Version>> {
            self.landed(landing).await;
            clock.advance(took);
            if let Some(ended) = self.turns.finish(clock, Duration::from_secs(20)).await {
                self.has_failed = ended.result.is_err();
                ended.result?;
            }
            landing.log().last_checkpoint().await
        }
    }

    #[tokio::test]
    async fn a_checkpoint_waits_for_the_bytes_of_an_hour_until_three_are_due() -> Result<()> {
        let (scene, mut landing, clock) = scene().await?;
        let hourly = HourlyBytes::new(100);
        let mut work = LogWork::new(&scene.parts(settings(), 1)?, &hourly, 0);
        for version in 1..=12 {
            // All bytes are spent at 1, and there are others at 8.
            let expected = match version {
                1..=3 => 1,
                4..=6 => 4,
                7 => 7,
                8..=10 => 8,
                _ => 11,
            };
            if version == 8 {
                clock.advance(Duration::from_secs(61 * 60));
            }
            scene.land(&mut landing, &[(0, 1, Some("a"))]).await?;
            let written = work.last_checkpoint(&landing, (&clock, Duration::ZERO)).await?;
            assert_eq!((landing.state().version, written), (version, Some(expected)));
            assert_eq!(Budget::new(100, hourly.clone()).allowance(clock.now().0), None, "compactions have none left");
        }
        work.close(&landing, Duration::from_secs(20)).await;
        assert_eq!(landing.log().last_checkpoint().await?, Some(12), "the end of a run waits for no budget");
        Ok(())
    }

    #[tokio::test]
    async fn a_checkpoint_that_failed_comes_again_after_an_interval_whatever_is_left() -> Result<()> {
        let (scene, mut landing, clock) = scene().await?;
        let mut work = LogWork::new(&scene.parts(settings(), 1)?, &HourlyBytes::new(1), 0);
        // No bytes are left.
        work.turns.begin(clock.as_ref(), &BytesRead::of(1), async { Err(Error::unavailable("no store")) });
        while !work.turns.has_ended() {
            tokio::task::yield_now().await;
        }
        for version in 1..=2 {
            scene.land(&mut landing, &[(0, 1, Some("a"))]).await?;
            let written = work.last_checkpoint(&landing, (&clock, Duration::ZERO)).await?;
            assert_eq!((landing.state().version, written), (version, Some(1)), "one that has succeeded waits again");
        }
        Ok(())
    }

    #[tokio::test]
    async fn checkpoints_are_held_up_by_bytes_of_log_as_well() -> Result<()> {
        let (scene, mut landing, clock) = scene().await?;
        let settings = UpkeepSettings { checkpoint_bytes: 1, ..settings() };
        let mut work = LogWork::new(&scene.parts(settings, 1)?, &HourlyBytes::new(0), 0);
        scene.land(&mut landing, &[(0, 1, Some("a"))]).await?;
        assert!(landing.log_bytes() >= HELD_UP_MAX);
        assert_eq!(work.last_checkpoint(&landing, (&clock, Duration::ZERO)).await?, Some(1));
        Ok(())
    }

    #[tokio::test]
    async fn checkpoints_rest_in_proportion_to_their_length() -> Result<()> {
        let (scene, mut landing, clock) = scene().await?;
        let mut work = LogWork::new(&scene.parts(settings(), 1)?, &HourlyBytes::new(u64::MAX), 0);
        // One of 40 s rests for 120 s.
        for (waits, expected) in [(0, 1), (119, 1), (1, 3)] {
            clock.advance(Duration::from_secs(waits));
            scene.land(&mut landing, &[(0, 1, Some("a"))]).await?;
            let took = Duration::from_secs(if expected == landing.state().version { 40 } else { 0 });
            assert_eq!(work.last_checkpoint(&landing, (&clock, took)).await?, Some(expected));
        }
        Ok(())
    }

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
