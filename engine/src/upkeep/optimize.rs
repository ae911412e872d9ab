//! Compacts a table at once, because somebody asked for it: all small files of all partitions, and all worn ones. Of a
//! clustered table, all that is not clustered, or all there is.
//!
//! It may run while another process writes the table: each swap is one version by a conditional PUT, what others commit
//! is followed, and they follow it. It needs no key index, since it lands no records.

use std::collections::HashSet;
use std::sync::Arc;

use alluvium_catalog::{Clock, Error, Location, Result};

use super::compact::Job;
use super::outputs::discard;
use super::plan::{Aims, Choice, choose, choose_among, gains_nothing};
use crate::commit::create::check_features;
use crate::commit::land::{LandLimits, Landing, LandingParts, Swapped};
use crate::commit::positions::AppIds;
use crate::delta::log::{DeltaLog, Version};
use crate::delta::state::TableState;
use crate::invariant::Watch;
use crate::metrics::Metrics;
use crate::write::append::AppendWriter;
use crate::write::compaction::Compaction;
use crate::write::parquet::DataFolder;

/// Swaps in a row that may come to nothing before the whole is given up: somebody else commits all the time, or
/// compacts, too.
const FRUITLESS_MAX: u32 = 20;

/// How much of a table is rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// What is worth it.
    Worthwhile,
    /// Every file of a clustered table, the clustered ones too.
    Full,
}

/// What a table was made into.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Optimized {
    /// Versions that were committed.
    pub commits: u64,
    /// Files that were rewritten.
    pub files_before: u64,
    /// Their bytes.
    pub bytes_before: u64,
    /// Files that they became.
    pub files_after: u64,
    /// Their bytes.
    pub bytes_after: u64,
    /// The newest version of the table that was seen.
    pub version: Version,
    /// Files that are being rewritten.
    pub under_way: u64,
}

impl Optimized {
    fn count(&mut self, version: Version, compaction: &Compaction) {
        self.commits += 1;
        self.under_way = 0;
        self.version = version;
        self.files_before += compaction.inputs.len() as u64;
        self.bytes_before += compaction.bytes_read();
        self.files_after += compaction.outputs.len() as u64;
        self.bytes_after += compaction.bytes_written();
    }
}

/// Compacts the table of `log` until nothing is worth it. `tell` hears of each compaction that begins, and of each swap.
///
/// # Errors
/// `Invalid` when there is no table, writing it takes what this program does not know, or all of a table without clustering
/// columns is to be rewritten; `Conflict` when others change the same files again and again; otherwise as of the store.
pub async fn optimize(
    log: DeltaLog,
    aims: &Aims,
    extent: Extent,
    clock: &Arc<dyn Clock>,
    mut tell: impl FnMut(&Optimized),
) -> Result<Optimized> {
    let at = log.location().clone();
    let state =
        TableState::load(&log).await?.ok_or_else(|| Error::invalid(format!("there is no Delta table at {at}")))?;
    check_features(&log, &state)?;
    let mut landing = visit(log, state, clock)?;
    let mut again = to_cluster_again(landing.state(), &at, extent)?;
    let mut optimized = Optimized { version: landing.state().version, ..Optimized::default() };
    let mut fruitless = 0;
    let mut settled = HashSet::new();
    while let Some(choice) = next(landing.state(), aims, &again, &settled) {
        let paths: Vec<String> = choice.files.iter().map(|add| add.path.clone()).collect();
        let job = Job::new(landing.log(), landing.state(), choice, aims, clock)?;
        optimized.under_way = job.n_files() as u64;
        tell(&optimized);
        let compaction = job.run().await?;
        if gains_nothing(&compaction, aims) {
            // Swapped in, they would be chosen again, and so without end.
            discard(landing.log(), &compaction).await;
            settled.extend(paths);
            optimized.under_way = 0;
            tell(&optimized);
            continue;
        }
        loop {
            let why = match landing.swap(&compaction).await? {
                Swapped::Landed { version, .. } => {
                    fruitless = 0;
                    optimized.count(version, &compaction);
                    again.retain(|path| !paths.contains(path));
                    tell(&optimized);
                    break;
                }
                Swapped::Overtaken => None,
                Swapped::GivenUp(why) => Some(why),
            };
            fruitless += 1;
            if fruitless > FRUITLESS_MAX {
                let why = why.unwrap_or_else(|| "other commits come first again and again".to_owned());
                return Err(Error::conflict(format!("cannot compact the table at {at}: {why}"))
                    .with_hint("another process changes the same files; try again when it is done"));
            }
            landing.catch_up().await?;
            if why.is_some() {
                break;
            }
        }
    }
    Ok(optimized)
}

/// Returns the files that are rewritten whatever they are.
fn to_cluster_again(state: &TableState, at: &Location, extent: Extent) -> Result<HashSet<String>> {
    match extent {
        Extent::Worthwhile => Ok(HashSet::new()),
        Extent::Full if state.clustering().is_empty() => {
            Err(Error::invalid(format!("the table at {at} has no clustering columns to rewrite all of it by"))
                .with_hint("declare them (CREATE STREAMING TABLE .. CLUSTER BY), or leave FULL out"))
        }
        // Rows of two partitions would become rows of one.
        Extent::Full if !state.metadata.partition_columns.is_empty() => {
            Err(Error::invalid(format!("the table at {at} is both partitioned and clustered"))
                .with_hint("leave FULL out: its files are compacted partition by partition then"))
        }
        Extent::Full => Ok(state.files.keys().cloned().collect()),
    }
}

fn next(state: &TableState, aims: &Aims, again: &HashSet<String>, settled: &HashSet<String>) -> Option<Choice> {
    choose_among(state, aims, again).or_else(|| choose(state, aims, settled))
}

/// Returns a table as one who lands no records sees it.
///
/// # Errors
/// `Internal` when the metrics cannot be made.
pub fn visit(log: DeltaLog, state: TableState, clock: &Arc<dyn Clock>) -> Result<Landing> {
    let folder = DataFolder {
        store: Arc::clone(log.store()),
        location: log.location().clone(),
        partitioned_by: state.metadata.partition_columns.clone(),
        clock: Arc::clone(clock),
    };
    let parts = LandingParts {
        log,
        state,
        writer: Box::new(AppendWriter::new(folder)),
        ids: AppIds::of_nobody(),
        known_at: clock.now(),
    };
    let watch = Watch::new(Arc::new(Metrics::try_new()?));
    Ok(Landing::new(parts, Arc::clone(clock), LandLimits::default(), watch))
}

#[cfg(test)]
mod tests;
