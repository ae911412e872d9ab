//! Runs of the program: when they began and ended, and where they listen meanwhile.

use super::{ensure_eq, samples};
use crate::store::{CatalogStore, LISTENING_MAX, Run};
use crate::{Result, Timestamp};

/// A run's begin, put again after its end, takes nothing back.
///
/// # Errors
/// As [`all`](super::all).
pub async fn a_run_ends_once(store: &dyn CatalogStore) -> Result<()> {
    let ended = Run {
        id: samples::id(1),
        started_at: Timestamp(1_000),
        ended_at: Some(Timestamp(2_000)),
        error: Some("the broker went away".to_owned()),
        address: samples::address(9464),
    };
    let begun = Run { error: None, ended_at: None, address: None, ..ended.clone() };
    for run in [&begun, &ended, &begun] {
        store.put_run(run).await?;
    }
    let runs = store.runs(usize::MAX).await?;
    let found: Vec<&Run> = runs.iter().filter(|run| run.id == begun.id).collect();
    ensure_eq("run", &found, &vec![&ended])
}

/// Runs come newest first; the limit may be nothing.
///
/// # Errors
/// As [`all`](super::all).
pub async fn runs_come_newest_first_up_to_the_limit(store: &dyn CatalogStore) -> Result<()> {
    let late = i64::MAX - 10;
    let runs: Vec<Run> =
        [(2, late), (4, late + 1), (3, late + 1)].map(|(index, start)| samples::run(index, start)).to_vec();
    for run in &runs {
        store.put_run(run).await?;
    }
    let expected = vec![runs[1].clone(), runs[2].clone()];
    ensure_eq("two of three", &store.runs(2).await?, &expected)?;
    ensure_eq("none", &store.runs(0).await?, &Vec::new())
}

/// A run is among those that listen from when it says where until it says that it has ended.
///
/// # Errors
/// As [`all`](super::all).
pub async fn a_run_listens_until_it_has_ended(store: &dyn CatalogStore) -> Result<()> {
    let silent = samples::run(5, 5_000);
    let first = Run { address: samples::address(1), ..samples::run(6, 6_000) };
    let second = Run { address: samples::address(2), ..samples::run(7, 7_000) };
    let listening = async || -> Result<Vec<Run>> {
        let runs = store.listening().await?;
        Ok(runs.into_iter().filter(|run| [&silent, &first, &second].iter().any(|put| put.id == run.id)).collect())
    };
    for run in [&silent, &first, &second] {
        store.put_run(run).await?;
    }
    ensure_eq("listening", &listening().await?, &vec![second.clone(), first.clone()])?;
    store.put_run(&Run { ended_at: Some(Timestamp(8_000)), address: None, ..second.clone() }).await?;
    ensure_eq("after an end", &listening().await?, &vec![first.clone()])?;
    let kept = store.runs(usize::MAX).await?.into_iter().find(|run| run.id == second.id);
    ensure_eq("where it was", &kept.map(|run| run.address), &Some(second.address))?;
    for index in (100..).take(LISTENING_MAX) {
        store.put_run(&Run { address: samples::address(3), ..samples::run(index, 9_000) }).await?;
    }
    ensure_eq("at most", &store.listening().await?.len(), &LISTENING_MAX)
}
