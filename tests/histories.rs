//! Random histories of an upsert table, whole: a flow reads a topic in memory and lands in a table in memory whose store
//! fails, while delta-rs writes to the same table and upkeep rewrites it; and a process dies between any two operations.
//!
//! After each step the table is read by Delta's rules alone (`protocol.rs`) and held against a map (`model.rs`). A second
//! table, which delta-rs merges the same records into, is held against it as well (`merge.rs`). Keys are of every type that
//! a table may have one of (`keys.rs`). A history is what its seed makes it: a failure names the seed that makes it again.
//!
//! `ALLUVIUM_TEST_HISTORIES=500 tests/run --test suite -- histories` runs as many of each kind; `ALLUVIUM_TEST_SEED` is
//! the first seed. `docs/TESTING.md` says more.

mod damage;
pub(crate) mod foreign;
pub(crate) mod history;
pub(crate) mod keys;
mod merge;
mod met;
pub(crate) mod model;
mod orphans;
pub(crate) mod place;
pub(crate) mod protocol;
pub(crate) mod steps;
mod stranger;
mod witness;

use std::io::Write;

use futures::StreamExt;

use crate::harness::{TestResult, number};
use foreign::VisitKind;
use history::History;
use merge::Merged;
use met::Met;
use place::Kind;
use steps::{Dice, Step};

/// Histories at once: most of their time they wait for a store that does not say what became of a commit.
const AT_ONCE: usize = 6;

/// Steps of a history.
const STEPS: usize = 9;

/// Steps of a history that is held against MERGE: fewer, since a merge takes longer than a batch.
const LONE_STEPS: usize = 6;

/// Seeds in a row that bring each kind of place: eight with a disk, of which six keep snapshots, and eight without.
const PLACES: usize = 16;

/// Seeds in a row of which three end with each kind of visit. As kinds of visits and of tables take turns, these are three
/// kinds of tables, and one of them is copy-on-write or clustered, where the other writer has the least to refuse. Visits
/// that are drawn in the histories come on top: about five of the rarest kind.
const VISITED: usize = 24;

/// Returns the seeds to be run, and the kind of table of each.
fn seeds(n_default: u64) -> TestResult<Vec<(u64, Kind)>> {
    let (first, n_seeds) = (number("ALLUVIUM_TEST_SEED", 1)?, number("ALLUVIUM_TEST_HISTORIES", n_default)?);
    let kind = |seed: u64| Kind::ALL[usize::try_from(seed).unwrap_or_default() % Kind::ALL.len()];
    Ok((first..first + n_seeds).map(|seed| (seed, kind(seed))).collect())
}

/// Returns what a failure says of its history, and how to see it again.
fn told(test: &str, (seed, kind): (u64, Kind), what: &str) -> String {
    format!(
        "history {seed} ({kind:?}, keys {:?}): {what}\n  again: ALLUVIUM_TEST_SEED={seed} ALLUVIUM_TEST_HISTORIES=1 \
         tests/run --test suite -- histories::{test}",
        keys::shape(seed)
    )
}

/// Lives through [`STEPS`] steps of any kind and returns what was met.
async fn live_through(test: &str, (seed, kind): (u64, Kind)) -> TestResult<Met> {
    let mut history = History::new(kind, seed).await?;
    let mut dice = Dice::new(seed, kind);
    let mut steps: Vec<Step> = (0..STEPS).map(|_| dice.step()).collect();
    // What the last visit has left behind is settled by one more batch, which every reader must then agree on. It starts
    // after damage, so that no run is without any.
    steps.extend([dice.visit_of(VisitKind::of_seed(seed)), dice.damage(), dice.quiet_life()]);
    for (place, step) in steps.iter().enumerate() {
        if let Err(error) = history.apply(step).await {
            let dump = history.dump(seed, &steps)?;
            let what = format!("step {place}: {error}\n  all of it: {}", dump.display());
            return Err(told(test, (seed, kind), &what).into());
        }
    }
    let agreed = merge::check_others(&history).await;
    agreed.map_err(|error| told(test, (seed, kind), &error.to_string()))?;
    Ok(history.met)
}

/// Lives through [`LONE_STEPS`] steps without another writer, merges the same records, compares after each step, and
/// returns what was met.
async fn live_beside_merge(test: &str, (seed, kind): (u64, Kind)) -> TestResult<Met> {
    let mut history = History::new(kind, seed).await?;
    let (mut dice, mut merged) = (Dice::new(seed, kind), Merged::new(&history.place.keys).await?);
    let mut steps: Vec<Step> = (0..LONE_STEPS).map(|_| dice.lone_step()).collect();
    steps.extend([dice.damage(), dice.quiet_life()]);
    for (place, step) in steps.iter().enumerate() {
        if let Err(error) = apply_beside_merge(&mut history, &mut merged, step).await {
            let dump = history.dump(seed, &steps)?;
            let what = format!("step {place}: {error}\n  all of it: {}", dump.display());
            return Err(told(test, (seed, kind), &what).into());
        }
    }
    Ok(history.met)
}

async fn apply_beside_merge(history: &mut History, merged: &mut Merged, step: &Step) -> TestResult {
    history.apply(step).await?;
    merged.merge(&history.ledger).await?;
    merged.check(history).await
}

/// Lives through histories, some at once, and returns what they met together.
async fn live_all<L>(test: &str, lives: impl Iterator<Item = L>) -> TestResult<Met>
where
    L: Future<Output = TestResult<Met>>,
{
    let mut lived = futures::stream::iter(lives).buffer_unordered(AT_ONCE);
    let (mut met, mut failures) = (Met::default(), Vec::new());
    while let Some(outcome) = lived.next().await {
        match outcome {
            Ok(one) => met.add(&one),
            Err(error) => failures.push(error.to_string()),
        }
    }
    writeln!(std::io::stderr(), "{test}: {met:?}")?;
    if failures.is_empty() { Ok(met) } else { Err(failures.join("\n\n").into()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_history_leaves_what_a_map_has() -> TestResult {
    let test = "any_history_leaves_what_a_map_has";
    let seeds = seeds(24)?;
    let met = live_all(test, seeds.iter().map(|seed| Box::pin(live_through(test, *seed)))).await?;
    // One history meets what it meets.
    let upkeep = [met.compactions, met.checkpoints];
    let troubles = [met.visits, met.faults, met.deaths, met.damaged_beside];
    let vectors = [met.inline_vectors, met.filed_vectors];
    let has_none = upkeep.contains(&0) || troubles.contains(&0) || vectors.contains(&0);
    let is_refused = met.refused * 3 > met.visits;
    assert!(seeds.len() < 12 || !(has_none || is_refused), "some of it did not come about: {met:?}");
    assert!(seeds.len() < PLACES || met.damaged_on_disk > 0, "no snapshot on a disk was damaged: {met:?}");
    assert!(seeds.len() < VISITED || met.undone().is_empty(), "nobody did {:?}: {met:?}", met.undone());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_between_any_two_operations_loses_nothing() -> TestResult {
    let test = "a_death_between_any_two_operations_loses_nothing";
    let (seeds, mut met) = (seeds(5)?, Met::default());
    for &(seed, kind) in &seeds {
        let mut history = History::new(kind, seed).await?;
        let mut dice = Dice::new(seed, kind);
        let steps = [dice.quiet_life(), dice.quiet_life(), dice.deaths(), dice.swap()];
        for (place, step) in steps.iter().enumerate() {
            let done = history.apply(step).await;
            done.map_err(|error| told(test, (seed, kind), &format!("step {place}: {error}\n  {step:?}")))?;
        }
        met.add(&history.met);
    }
    writeln!(std::io::stderr(), "deaths: {met:?}")?;
    assert!(met.deaths > 30, "only {} deaths", met.deaths);
    // One process of each history is killed right before it commits a compaction. Threads may keep one from coming to
    // that, and none is counted of a copy-on-write table, so that this holds for all kinds together.
    let has_every_kind = seeds.len() >= Kind::ALL.len();
    assert!(!has_every_kind || met.orphaned > 0, "no death left an output of a compaction that no version names");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_leave_what_delta_rs_merge_leaves_whatever_goes_wrong() -> TestResult {
    let test = "batches_leave_what_delta_rs_merge_leaves_whatever_goes_wrong";
    let seeds = seeds(16)?;
    let met = live_all(test, seeds.iter().map(|seed| Box::pin(live_beside_merge(test, *seed)))).await?;
    let troubles = [met.faults, met.deaths, met.damaged_beside];
    let has_none = troubles.contains(&0) || [met.compactions, met.inline_vectors, met.filed_vectors].contains(&0);
    assert!(seeds.len() < 12 || !has_none, "some of it did not come about: {met:?}");
    assert!(seeds.len() < PLACES || met.damaged_on_disk > 0, "no snapshot on a disk was damaged: {met:?}");
    Ok(())
}
