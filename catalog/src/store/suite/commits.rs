//! Commits: kept whole and once, found by table, flow and time, summed up as traffic, and up to where they are recorded.

use super::{ensure, ensure_eq, samples};
use crate::store::CatalogStore;
use crate::{Commit, Edge, Input, Name, Node, Result, Seen, Timestamp};

/// Every field of a commit is found as it was put.
///
/// # Errors
/// As [`all`](super::all).
pub async fn a_commit_comes_back_whole(store: &dyn CatalogStore) -> Result<()> {
    let mut commit = samples::commit("whole", 7)?;
    commit.lineage.definition = Some(samples::definition("whole")?);
    commit.lineage.fate.records_in = i64::MAX.unsigned_abs();
    store.put_commit(&commit).await?;
    ensure_eq("commit", &store.commits(Some(&commit.table), 9).await?, &vec![commit.clone()])?;
    let mut bare = samples::commit("bare", 0)?;
    bare.lineage.inputs.clear();
    store.put_commit(&bare).await?;
    ensure_eq("without inputs", &store.commits(Some(&bare.table), 9).await?, &vec![bare.clone()])
}

/// A commit of the same place, version and write changes nothing.
///
/// # Errors
/// As [`all`](super::all).
pub async fn a_commit_is_recorded_once(store: &dyn CatalogStore) -> Result<()> {
    let commit = samples::commit("once", 3)?;
    let mut other = commit.clone();
    other.lineage.inputs.pop();
    other.files_added += 1;
    for put in [&commit, &commit, &other] {
        store.put_commit(put).await?;
    }
    ensure_eq("commits", &store.commits(Some(&commit.table), 9).await?, &vec![commit])
}

/// A commit of another write takes the place of the one that is recorded of the same place and version, all of it.
///
/// # Errors
/// As [`all`](super::all).
pub async fn a_commit_of_another_write_replaces_the_former(store: &dyn CatalogStore) -> Result<()> {
    let former = samples::commit("replaced", 3)?;
    let mut anew = former.clone();
    anew.lineage.write_id = samples::id(99);
    anew.lineage.inputs.pop();
    anew.files_added += 1;
    for put in [&former, &anew] {
        store.put_commit(put).await?;
    }
    ensure_eq("commits", &store.commits(Some(&former.table), 9).await?, &vec![anew])
}

/// What is forgotten of a place is that from a version on; it is recorded anew like any other.
///
/// # Errors
/// As [`all`](super::all).
pub async fn commits_are_forgotten_from_a_version_on(store: &dyn CatalogStore) -> Result<()> {
    let (table, here) = (samples::commit("forgotten", 1)?.table, samples::commit("forgotten", 1)?.location);
    let kept = samples::commit("not-forgotten", 5)?;
    store.put_commit(&kept).await?;
    store.put_recorded(&kept.location, 5).await?;
    for version in 1..=5 {
        store.put_commit(&samples::commit("forgotten", version)?).await?;
    }
    store.put_recorded(&here, 5).await?;

    for (first, left, recorded) in [(6, 5, Some(5)), (4, 3, Some(3)), (9, 3, Some(3)), (0, 0, None), (0, 0, None)] {
        store.forget_commits(&here, first).await?;
        let versions: Vec<u64> = store.commits(Some(&table), 9).await?.iter().map(|commit| commit.version).collect();
        ensure_eq("left", &versions, &(1..=left).rev().collect())?;
        ensure_eq("recorded", &store.recorded(&here).await?, &recorded)?;
    }
    ensure_eq("elsewhere", &store.commits(Some(&kept.table), 9).await?, &vec![kept.clone()])?;
    ensure_eq("recorded elsewhere", &store.recorded(&kept.location).await?, &Some(5))?;

    let anew = samples::commit("forgotten", 2)?;
    store.put_commit(&anew).await?;
    store.put_recorded(&here, 2).await?;
    ensure_eq("anew", &store.commits(Some(&table), 9).await?, &vec![anew])?;
    ensure_eq("recorded anew", &store.recorded(&here).await?, &Some(2))
}

/// Commits come by time, then version, newest first, of one table or of all.
///
/// # Errors
/// As [`all`](super::all).
pub async fn commits_come_newest_first_up_to_the_limit(store: &dyn CatalogStore) -> Result<()> {
    let late = i64::MAX - 10;
    let at = |flow: &str, version, time| -> Result<Commit> {
        Ok(Commit { committed_at: Timestamp(time), ..samples::commit(flow, version)? })
    };
    let expected = vec![
        at("newest", 1, late + 2)?,
        at("newest", 3, late + 1)?,
        at("newest", 2, late + 1)?,
        at("newest", 4, late)?,
    ];
    for index in [2, 0, 3, 1] {
        store.put_commit(&expected[index]).await?;
    }
    let other = at("newest-too", 9, late + 3)?;
    store.put_commit(&other).await?;

    let table = &expected[0].table;
    ensure_eq("of one", &store.commits(Some(table), 9).await?, &expected)?;
    ensure_eq("of one, two", &store.commits(Some(table), 2).await?, &expected[..2].to_vec())?;
    let of_all = vec![other, expected[0].clone(), expected[1].clone()];
    ensure_eq("of all, three", &store.commits(None, 3).await?, &of_all)?;
    ensure_eq("none", &store.commits(None, 0).await?, &Vec::new())
}

/// A flow's commits are those into all tables that it ever wrote.
///
/// # Errors
/// As [`all`](super::all).
pub async fn commits_of_a_flow_come_newest_first_up_to_the_limit(store: &dyn CatalogStore) -> Result<()> {
    let mut expected = vec![samples::commit("by-flow", 3)?, samples::commit("by-flow", 2)?];
    let elsewhere = samples::commit("by-flow-elsewhere", 9)?;
    expected.push(Commit {
        table: elsewhere.table.clone(),
        location: elsewhere.location,
        ..samples::commit("by-flow", 1)?
    });
    for (age, commit) in (0..).zip(&mut expected) {
        commit.committed_at = Timestamp(1_000 - age);
    }
    for commit in expected.iter().rev() {
        store.put_commit(commit).await?;
    }
    store.put_commit(&samples::commit("by-flow-elsewhere", 2)?).await?;
    let flow = "by-flow".parse()?;
    ensure_eq("of the flow", &store.flow_commits(&flow, 9).await?, &expected)?;
    ensure_eq("of the flow, two", &store.flow_commits(&flow, 2).await?, &expected[..2].to_vec())
}

/// What commits read is added up by input, flow and table.
///
/// # Errors
/// As [`all`](super::all).
pub async fn traffic_adds_up_what_commits_read(store: &dyn CatalogStore) -> Result<()> {
    for version in [1, 2] {
        let mut commit = samples::commit("traffic", version)?;
        for input in &mut commit.lineage.inputs {
            if let Input::Table { version: seen, .. } = input {
                *seen = 10 * version;
            }
        }
        store.put_commit(&commit).await?;
    }
    let flow: Name = "traffic".parse()?;
    let mut found = store.traffic().await?;
    ensure("order", found.is_sorted_by(|left, right| left.0 < right.0))?;
    found.retain(|(edge, _)| edge.flow == flow);
    let edge = |from| -> Result<Edge> { Ok(Edge { from, to: "silver.traffic".parse()?, flow: flow.clone() }) };
    let streamed = Seen { commits: 2, records: 42, version: None };
    let expected = [
        (edge(Node::Topic("shop.orders".parse()?))?, streamed),
        (edge(Node::Topic("shop.orders-2".parse()?))?, streamed),
        (edge(Node::Table("silver.zones".parse()?))?, Seen { commits: 2, records: 0, version: Some(20) }),
    ];
    for expected in expected {
        let one: Vec<_> = found.iter().filter(|(edge, _)| *edge == expected.0).cloned().collect();
        ensure_eq("traffic", &one, &vec![expected])?;
    }
    Ok(())
}

/// Up to where commits are recorded is kept by place, and only grows until commits are forgotten.
///
/// # Errors
/// As [`all`](super::all).
pub async fn what_is_recorded_never_goes_back(store: &dyn CatalogStore) -> Result<()> {
    let (here, there) = (samples::commit("recorded", 1)?.location, samples::commit("elsewhere", 1)?.location);
    ensure_eq("before", &store.recorded(&here).await?, &None)?;
    for (version, expected) in [(0, 0), (7, 7), (3, 7), (7, 7), (8, 8)] {
        store.put_recorded(&here, version).await?;
        ensure_eq("recorded", &store.recorded(&here).await?, &Some(expected))?;
    }
    ensure_eq("elsewhere", &store.recorded(&there).await?, &None)
}

/// A table that was made anew elsewhere begins anew; commits of the former place remain to be seen.
///
/// # Errors
/// As [`all`](super::all).
pub async fn the_last_version_is_that_of_the_registered_place(store: &dyn CatalogStore) -> Result<()> {
    let former = samples::commit("place", 12)?;
    store.put_commit(&former).await?;
    ensure_eq("unregistered", &store.last_version(&former.table).await?, &Some(12))?;

    let mut definition = samples::definition("place")?;
    store.put_definition(&definition).await?;
    ensure_eq("registered", &store.last_version(&former.table).await?, &Some(12))?;

    definition.table.location = former.location.join("anew")?;
    store.put_definition(&definition).await?;
    ensure_eq("moved", &store.last_version(&former.table).await?, &None)?;

    let anew = Commit { location: definition.table.location.clone(), ..samples::commit("place", 0)? };
    store.put_commit(&anew).await?;
    ensure_eq("begun anew", &store.last_version(&former.table).await?, &Some(0))?;
    ensure_eq("commits", &store.commits(Some(&former.table), 9).await?.len(), &2)?;
    let nobody: Name = "nobody".parse()?;
    ensure_eq("unknown flow", &store.flow(&nobody).await?, &Vec::new())
}

/// Dropping forgets the registration once; what was committed stays.
///
/// # Errors
/// As [`all`](super::all).
pub async fn a_dropped_dataset_keeps_its_commits(store: &dyn CatalogStore) -> Result<()> {
    let definition = samples::definition("dropped")?;
    let commit = samples::commit("dropped", 4)?;
    store.put_definition(&definition).await?;
    store.put_commit(&commit).await?;
    ensure_eq("first drop", &store.drop_dataset(&commit.table).await?, &true)?;
    ensure_eq("second drop", &store.drop_dataset(&commit.table).await?, &false)?;
    ensure_eq("dataset", &store.dataset(&commit.table).await?, &None)?;
    ensure_eq("commits", &store.commits(Some(&commit.table), 9).await?, &vec![commit.clone()])?;
    ensure_eq("last version", &store.last_version(&commit.table).await?, &Some(4))?;
    ensure_eq("versions", &store.flow(&definition.flow.flow).await?.len(), &1)
}
