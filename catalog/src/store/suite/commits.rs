//! Commits: kept whole and once, found by table, flow and time, summed up as traffic, and up to where they are recorded.

use super::{ensure, ensure_eq, samples};
use crate::store::{CatalogStore, Witness, Written};
use crate::{Commit, Edge, Input, Name, Node, Result, Seen, TableName, Timestamp};

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

/// What is forgotten of a place is the versions that are named, and the note from the first of them on; it is recorded
/// anew like any other.
///
/// # Errors
/// As [`all`](super::all).
pub async fn commits_are_forgotten_by_version(store: &dyn CatalogStore) -> Result<()> {
    let (table, here) = (samples::commit("forgotten", 1)?.table, samples::commit("forgotten", 1)?.location);
    let kept = samples::commit("not-forgotten", 5)?;
    store.put_commit(&kept).await?;
    store.put_recorded(&kept.location, 5).await?;
    for version in 1..=7 {
        store.put_commit(&samples::commit("forgotten", version)?).await?;
    }
    store.put_recorded(&here, 7).await?;

    let steps = [
        (vec![], vec![7, 6, 5, 4, 3, 2, 1], Some(7)),
        (vec![8..=u64::MAX], vec![7, 6, 5, 4, 3, 2, 1], Some(7)),
        (vec![4..=4, 6..=6, 8..=u64::MAX], vec![7, 5, 3, 2, 1], Some(3)),
        (vec![5..=9], vec![3, 2, 1], Some(3)),
        (vec![0..=0, 2..=2], vec![3, 1], None),
        (vec![0..=u64::MAX], vec![], None),
    ];
    let witness = Witness::Commit(Written { version: 1, write_id: samples::id(21) });
    for (forgotten, left, recorded) in steps {
        ensure("the witness is there", store.forget_commits(&here, &forgotten, witness).await?)?;
        ensure_eq("left", &versions_of(store, &table).await?, &left)?;
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

/// What another has forgotten and recorded anew stays.
///
/// # Errors
/// As [`all`](super::all).
pub async fn nothing_is_forgotten_where_the_witness_is_gone(store: &dyn CatalogStore) -> Result<()> {
    let commit = samples::commit("witness", 3)?;
    let (table, here, write_id) = (commit.table.clone(), commit.location.clone(), commit.lineage.write_id);
    let all = [0..=u64::MAX];
    store.put_commit(&commit).await?;
    store.put_recorded(&here, 3).await?;
    for gone in [
        Witness::Commit(Written { version: 3, write_id: samples::id(99) }),
        Witness::Commit(Written { version: 2, write_id }),
        Witness::Recorded(2),
        Witness::Recorded(4),
    ] {
        ensure("the witness is gone", !store.forget_commits(&here, &all, gone).await?)?;
        ensure_eq("left", &versions_of(store, &table).await?, &vec![3])?;
        ensure_eq("recorded", &store.recorded(&here).await?, &Some(3))?;
    }
    ensure("the note is there", store.forget_commits(&here, &all, Witness::Recorded(3)).await?)?;
    ensure_eq("left of it", &versions_of(store, &table).await?, &Vec::new())?;
    ensure_eq("recorded then", &store.recorded(&here).await?, &None)?;
    ensure("it is gone now", !store.forget_commits(&here, &all, Witness::Recorded(3)).await?)
}

/// The oldest and the newest are so by version, whatever their times, of one place and of the versions asked for.
///
/// # Errors
/// As [`all`](super::all).
pub async fn the_ends_of_what_is_recorded_are_among_the_versions(store: &dyn CatalogStore) -> Result<()> {
    let here = samples::commit("ends", 1)?.location;
    let written = |version: u64| Written { version, write_id: samples::id(100 + version.cast_signed()) };
    for version in [2_u64, 3, 5, 8] {
        let mut commit = samples::commit("ends", version)?;
        commit.committed_at = Timestamp(1_000 - version.cast_signed());
        commit.lineage.write_id = written(version).write_id;
        store.put_commit(&commit).await?;
    }
    let moved = Commit { location: here.join("moved")?, ..samples::commit("ends", 9)? };
    store.put_commit(&moved).await?;
    for (versions, expected) in [
        (vec![0..=u64::MAX], vec![2, 8]),
        (vec![3..=7], vec![3, 5]),
        (vec![0..=1, 3..=3, 5..=6, 9..=u64::MAX], vec![3, 5]),
        (vec![4..=6], vec![5]),
        (vec![6..=7, 9..=9], vec![]),
        (vec![], vec![]),
    ] {
        let expected = expected.into_iter().map(written).collect();
        ensure_eq("ends", &store.written(&here, &versions).await?, &expected)?;
    }
    Ok(())
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

/// A note is raised by one who counts on what was noted; where that was taken back, it stays as it is.
///
/// # Errors
/// As [`all`](super::all).
pub async fn a_note_is_raised_from_where_it_was_left(store: &dyn CatalogStore) -> Result<()> {
    let here = samples::commit("raised", 1)?.location;
    ensure("nothing is noted", !store.raise_recorded(&here, 0, 3).await?)?;
    ensure_eq("before", &store.recorded(&here).await?, &None)?;
    store.put_recorded(&here, 3).await?;
    for (former, version, is_raised, expected) in
        [(4, 5, false, 3), (3, 5, true, 5), (2, 4, true, 5), (0, 6, true, 6), (7, 8, false, 6)]
    {
        ensure_eq("raised", &store.raise_recorded(&here, former, version).await?, &is_raised)?;
        ensure_eq("recorded", &store.recorded(&here).await?, &Some(expected))?;
    }
    Ok(())
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

async fn versions_of(store: &dyn CatalogStore, table: &TableName) -> Result<Vec<u64>> {
    Ok(store.commits(Some(table), 9).await?.iter().map(|commit| commit.version).collect())
}
