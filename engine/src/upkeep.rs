//! Keeps a table in shape beside its batches: compaction, checkpoints, version checksums, log clean-up, vacuum.
//!
//! Never part of a commit: a failure here is logged, and a later turn does the work. Files are rewritten in a task of
//! their own while batches land; a batch waits only for the swap, which is one small commit
//! ([`Landing::swap`](crate::commit::land::Landing::swap)). Each kind of work has a budget. One [`Upkeep`] a table and
//! process; what it begins it ends. `alluvium optimize` and `alluvium vacuum` use the same parts.

pub mod budget;
mod checkpoints;
pub mod clean;
mod cluster;
pub mod compact;
mod curve;
pub mod kernel;
mod log_work;
mod metered;
pub mod optimize;
mod outputs;
pub mod plan;
mod turn;
pub mod vacuum;
mod vacuum_work;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::{Clock, Error, Location, Name, Result, Stores};

use crate::commit::land::{Landing, Swapped};
use crate::config::UpkeepSettings;
use crate::delta::log::Version;
use crate::heap;
use crate::metrics::{Metrics, Work, WorkOutcome};
use crate::write::compaction::Compaction;
use budget::{Budget, BytesRead, HourlyBytes};
use compact::Job;
use log_work::LogWork;
use outputs::discard;
use plan::{Aims, choose, gains_nothing};
use turn::{Ended, Turns};
use vacuum_work::VacuumWork;

/// How long a compaction may take before it is given up: much of what it read is stale by then.
const COMPACTION_LIMIT: Duration = Duration::from_secs(1800);

/// Commits of others that may come first before a compaction is given up.
const OVERTAKEN_MAX: u32 = 5;

/// What upkeep needs to know of its table.
#[derive(Debug, Clone)]
pub struct UpkeepParts {
    /// How the table is reached.
    pub stores: Stores,
    /// The table.
    pub location: Location,
    /// The flow that writes it, for metrics.
    pub flow: Name,
    /// A checkpoint is due after so many versions.
    pub checkpoint_interval: u64,
    /// What may be done.
    pub settings: UpkeepSettings,
    /// Time and ids.
    pub clock: Arc<dyn Clock>,
    /// Where work is counted.
    pub metrics: Arc<Metrics>,
}

/// Upkeep of one table.
#[derive(Debug)]
pub struct Upkeep {
    parts: UpkeepParts,
    compactions: Turns<Compaction>,
    /// A compaction that has ended and that other commits have overtaken so many times.
    overtaken: Option<(Ended<Compaction>, u32)>,
    log_work: LogWork,
    vacuums: VacuumWork,
    /// Whether it was said that compactions wait for bytes.
    has_told_spent: bool,
    /// Batches since the files were looked over.
    unplanned: usize,
    /// Files that no compaction makes fewer of.
    settled: HashSet<String>,
}

impl Upkeep {
    /// Returns the upkeep of a table that stands at `version`; does nothing yet.
    pub fn new(parts: UpkeepParts, version: Version) -> Self {
        let settings = &parts.settings;
        let hourly = HourlyBytes::new(settings.hourly_bytes);
        Self {
            compactions: Turns::new(Budget::new(settings.wall_percent, hourly.clone())),
            overtaken: None,
            log_work: LogWork::new(&parts, &hourly, version),
            vacuums: VacuumWork::new(&parts, &hourly),
            has_told_spent: false,
            unplanned: settings.files_min,
            settled: HashSet::new(),
            parts,
        }
    }

    /// Does what is due after a batch has landed: swaps a compaction in that has ended, and begins work that the budgets
    /// allow.
    pub async fn landed(&mut self, landing: &mut Landing) {
        self.unplanned += 1;
        if let Some((ended, tries)) = self.overtaken.take() {
            self.swap_in(ended, tries, landing).await;
        } else if let Some(ended) = self.compactions.take_ended(self.parts.clock.as_ref()).await {
            self.swap_in(ended, 0, landing).await;
        }
        if let Err(error) = self.begin_compaction(landing) {
            tracing::warn!(table = %self.parts.location, error = %error.chain(), "no compaction");
        }
        self.log_work.landed(landing).await;
        if let Err(error) = self.vacuums.landed(landing).await {
            tracing::warn!(table = %self.parts.location, error = %error.chain(), "no vacuum");
        }
    }

    /// Tells whether there is something to do for [`tend`](Self::tend).
    pub fn has_ended(&self) -> bool {
        self.overtaken.is_some() || self.compactions.has_ended()
    }

    /// Swaps a compaction in that has ended, where no batch comes after which to do it: its files would grow old, and
    /// vacuum takes old files that no version names.
    ///
    /// # Errors
    /// As of [`Landing::catch_up`], where other commits came first.
    pub async fn tend(&mut self, landing: &mut Landing) -> Result<()> {
        if let Some((ended, tries)) = self.overtaken.take() {
            // No batch has followed the others.
            landing.catch_up().await?;
            self.swap_in(ended, tries, landing).await;
        } else if let Some(ended) = self.compactions.take_ended(self.parts.clock.as_ref()).await {
            self.swap_in(ended, 0, landing).await;
        }
        Ok(())
    }

    /// Waits for what is under way, at most `limit` for each, and swaps a compaction in that ends meanwhile. What takes
    /// longer is dropped, which costs its work and no more.
    pub async fn close(&mut self, landing: &mut Landing, limit: Duration) {
        if let Some(ended) = self.compactions.finish(self.parts.clock.as_ref(), limit).await {
            self.swap_in(ended, 0, landing).await;
        }
        while let Some((ended, tries)) = self.overtaken.take() {
            // No batch comes any more that would follow the others.
            if landing.catch_up().await.is_err() {
                break;
            }
            self.swap_in(ended, tries, landing).await;
        }
        self.log_work.close(landing, limit).await;
        self.vacuums.close(limit).await;
    }

    async fn swap_in(&mut self, ended: Ended<Compaction>, tries: u32, landing: &mut Landing) {
        let location = self.parts.location.clone();
        let compaction = match &ended.result {
            Ok(compaction) => compaction,
            Err(error) => {
                tracing::warn!(table = %location, error = %error.chain(), "a compaction failed; trying again later");
                return self.count(WorkOutcome::Failed, ended.took);
            }
        };
        let (n_files, n_outputs) = (compaction.inputs.len() as u64, compaction.outputs.len());
        let bytes = compaction.bytes_read();
        if gains_nothing(compaction, &Aims::beside_batches(&self.parts.settings)) {
            // Swapped in, they would be chosen again, and so without end.
            tracing::info!(table = %location, files = n_files, into = n_outputs, "a compaction made no fewer files");
            discard(landing.log(), compaction).await;
            self.settled.extend(compaction.inputs.iter().map(|input| input.add.path.clone()));
            self.unplanned = self.parts.settings.files_min;
            return self.count(WorkOutcome::GivenUp, ended.took);
        }
        let outcome = match landing.swap(compaction).await {
            Ok(Swapped::Landed { version, remapped }) => {
                self.parts.metrics.upkeep_spent(&self.parts.flow, Work::Compaction, n_files, bytes);
                // Another may be worth it at once: of the next tier, or of another partition.
                self.unplanned = self.parts.settings.files_min;
                tracing::info!(
                    table = %location, version, files = n_files, into = n_outputs, bytes, remapped,
                    took = ?ended.took, "files compacted"
                );
                WorkOutcome::Done
            }
            Ok(Swapped::Overtaken) if tries < OVERTAKEN_MAX => {
                self.overtaken = Some((ended, tries + 1));
                return;
            }
            Ok(Swapped::Overtaken) => {
                tracing::info!(table = %location, "a compaction was given up: other commits came first again and again");
                WorkOutcome::GivenUp
            }
            Ok(Swapped::GivenUp(why)) => {
                tracing::info!(table = %location, why, "a compaction was given up");
                WorkOutcome::GivenUp
            }
            Err(error) => {
                tracing::warn!(table = %location, error = %error.chain(), "compacted files could not be swapped in");
                WorkOutcome::Failed
            }
        };
        self.count(outcome, ended.took);
    }

    fn count(&self, outcome: WorkOutcome, took: Duration) {
        self.parts.metrics.upkeep(&self.parts.flow, Work::Compaction, outcome, took);
    }

    /// Begins a compaction where one is worth it. Files are looked over only once as many batches have landed as make
    /// one, since that takes a look at each of them.
    fn begin_compaction(&mut self, landing: &Landing) -> Result<()> {
        let settings = &self.parts.settings;
        if !settings.compaction
            || self.compactions.is_busy()
            || self.overtaken.is_some()
            || self.unplanned < settings.files_min
        {
            return Ok(());
        }
        let clock = self.parts.clock.as_ref();
        let Some(allowance) = self.compactions.allowance(clock) else {
            let is_spent = self.compactions.has_rested(clock);
            if is_spent && !self.has_told_spent {
                tracing::info!(table = %self.parts.location, "compactions wait: upkeep.hourly_size is used up");
            }
            self.has_told_spent = is_spent;
            return Ok(());
        };
        self.has_told_spent = false;
        self.unplanned = 0;
        let aims = Aims::beside_batches(settings);
        let aims = Aims { bytes_max: aims.bytes_max.min(allowance), ..aims };
        self.settled.retain(|path| landing.state().files.contains_key(path));
        let Some(choice) = choose(landing.state(), &aims, &self.settled) else { return Ok(()) };
        let bytes = choice.bytes();
        let job = Job::new(landing.log(), landing.state(), choice, &aims, &self.parts.clock)?;
        tracing::debug!(table = %self.parts.location, files = job.n_files(), bytes, "compaction begins");
        let location = self.parts.location.clone();
        let work = async move {
            let done = match tokio::time::timeout(COMPACTION_LIMIT, job.run()).await {
                Ok(done) => done,
                Err(_) => Err(Error::unavailable(format!("a compaction of {location} took too long"))),
            };
            drop(tokio::task::spawn_blocking(heap::give_back).await);
            done
        };
        self.compactions.begin(self.parts.clock.as_ref(), &BytesRead::of(bytes), work);
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
