//! What every [`CatalogStore`] must do, as cases that can be run against any of them.
//!
//! A case returns an error that says what it expected and what it found; it never panics. Each uses names of its own,
//! so that they run one after the other on one store, in any order but for the first, which wants it empty.

mod samples;

use std::fmt;

use super::{CatalogStore, FlowEntry, LISTENING_MAX, Run, places};
use crate::lineage::Definition;
use crate::{Commit, Dataset, DatasetKind, Edge, Error, Input, Name, Node, Result, Seen, TableName, Timestamp};

/// Runs every case against an empty store.
///
/// # Errors
/// `Internal` with the case that does not hold, or what the store itself said.
pub async fn all(store: &dyn CatalogStore) -> Result<()> {
    an_empty_store_answers(store).await?;
    a_definition_comes_back_whole(store).await?;
    connections_and_sources_stand_alone_and_are_replaced(store).await?;
    a_text_adds_a_version_only_when_it_changes(store).await?;
    one_version_is_added_when_many_say_the_same(store).await?;
    a_definition_keeps_what_people_said_of_the_table(store).await?;
    a_registration_keeps_the_declared_table(store).await?;
    a_dropped_dataset_keeps_its_commits(store).await?;
    datasets_come_in_order_of_their_names(store).await?;
    a_run_ends_once(store).await?;
    runs_come_newest_first_up_to_the_limit(store).await?;
    a_run_listens_until_it_has_ended(store).await?;
    a_commit_comes_back_whole(store).await?;
    a_commit_is_recorded_once(store).await?;
    commits_come_newest_first_up_to_the_limit(store).await?;
    commits_of_a_flow_come_newest_first_up_to_the_limit(store).await?;
    traffic_adds_up_what_commits_read(store).await?;
    what_is_recorded_never_goes_back(store).await?;
    the_last_version_is_that_of_the_registered_place(store).await
}

/// An empty store has nothing, and says so without an error.
///
/// # Errors
/// As [`all`].
pub async fn an_empty_store_answers(store: &dyn CatalogStore) -> Result<()> {
    let name: TableName = "empty.table".parse()?;
    ensure_eq("connections", &store.connections().await?, &Vec::new())?;
    ensure_eq("sources", &store.sources().await?, &Vec::new())?;
    ensure_eq("datasets", &store.datasets().await?, &Vec::new())?;
    ensure_eq("dataset", &store.dataset(&name).await?, &None)?;
    ensure_eq("flows", &store.flows().await?, &Vec::new())?;
    ensure_eq("flow", &store.flow(&"empty".parse()?).await?, &Vec::new())?;
    ensure_eq("runs", &store.runs(9).await?, &Vec::new())?;
    ensure_eq("commits", &store.commits(None, 9).await?, &Vec::new())?;
    ensure_eq("last version", &store.last_version(&name).await?, &None)?;
    ensure_eq("dropped", &store.drop_dataset(&name).await?, &false)
}

/// Connection, source, table and flow are found as they were put.
///
/// # Errors
/// As [`all`].
pub async fn a_definition_comes_back_whole(store: &dyn CatalogStore) -> Result<()> {
    let definition = samples::definition("whole")?;
    ensure_eq("place", &store.put_definition(&definition).await?, &1)?;
    ensure("connection", store.connections().await?.contains(&definition.connection))?;
    ensure("source", store.sources().await?.contains(&definition.source))?;
    let expected = samples::dataset_of(&definition.table);
    ensure_eq("dataset", &store.dataset(&definition.table.name).await?, &Some(expected))?;
    let expected = FlowEntry { seq: 1, version: definition.flow.clone() };
    ensure_eq("flow", &store.flow(&definition.flow.flow).await?, &vec![expected.clone()])?;
    ensure("flows", store.flows().await?.contains(&expected))
}

/// A connection and a source need no flow; the newest of a name counts.
///
/// # Errors
/// As [`all`].
pub async fn connections_and_sources_stand_alone_and_are_replaced(store: &dyn CatalogStore) -> Result<()> {
    let Definition { mut connection, mut source, .. } = samples::definition("alone")?;
    for _again in 0..2 {
        store.put_connection(&connection).await?;
        store.put_source(&source).await?;
        let same = store.connections().await?.into_iter().filter(|known| known.name == connection.name);
        ensure_eq("connection", &same.collect::<Vec<_>>(), &vec![connection.clone()])?;
        let same = store.sources().await?.into_iter().filter(|known| known.name == source.name);
        ensure_eq("source", &same.collect::<Vec<_>>(), &vec![source.clone()])?;
        connection.options.clear();
        source.comment = Some("another".to_owned());
    }
    Ok(())
}

/// The newest hash again adds nothing; another one does, also one that was there before the newest.
///
/// # Errors
/// As [`all`].
pub async fn a_text_adds_a_version_only_when_it_changes(store: &dyn CatalogStore) -> Result<()> {
    let mut definition = samples::definition("versions")?;
    let mut seqs = Vec::new();
    for hash in ["h1", "h1", "h2", "h2", "h1"] {
        definition.flow.sql_hash = hash.to_owned();
        seqs.push(store.put_definition(&definition).await?);
    }
    ensure_eq("places", &seqs, &vec![1, 1, 2, 2, 3])?;
    let versions = store.flow(&definition.flow.flow).await?;
    let found: Vec<_> = versions.iter().map(|entry| (entry.seq, entry.version.sql_hash.as_str())).collect();
    ensure_eq("versions", &found, &vec![(1, "h1"), (2, "h2"), (3, "h1")])?;
    let flow = &definition.flow.flow;
    let places = places(&versions);
    let place = |hash: &str| places.get(&(flow, hash)).copied();
    ensure_eq("places of texts", &[place("h1"), place("h2"), place("h3")], &[Some(3), Some(2), None])
}

/// Of many that put one definition at once, one adds the version and all learn its place.
///
/// # Errors
/// As [`all`].
pub async fn one_version_is_added_when_many_say_the_same(store: &dyn CatalogStore) -> Result<()> {
    let definition = samples::definition("crowd")?;
    let seqs = futures::future::try_join_all((0..8).map(|_| store.put_definition(&definition))).await?;
    ensure_eq("places", &seqs, &vec![1; 8])?;
    ensure_eq("versions", &store.flow(&definition.flow.flow).await?.len(), &1)
}

/// Putting a definition again changes the table, and neither owner nor tags nor a description it is silent about.
///
/// # Errors
/// As [`all`].
pub async fn a_definition_keeps_what_people_said_of_the_table(store: &dyn CatalogStore) -> Result<()> {
    let mut definition = samples::definition("said")?;
    definition.table.comment = None;
    store.put_definition(&definition).await?;
    let said = Dataset {
        owner: Some("shop-team".to_owned()),
        description: Some("by hand".to_owned()),
        tags: vec!["gold".to_owned(), "pii".to_owned()],
        ..samples::dataset_of(&definition.table)
    };
    store.put_dataset(&said).await?;

    definition.table.location = definition.table.location.join("moved")?;
    store.put_definition(&definition).await?;
    let table = definition.table.clone();
    let moved = Dataset { location: table.location.clone(), table: Some(table), ..said };
    ensure_eq("after a change", &store.dataset(&definition.table.name).await?, &Some(moved.clone()))?;

    definition.table.comment = Some("by the file".to_owned());
    store.put_definition(&definition).await?;
    let commented =
        Dataset { description: definition.table.comment.clone(), table: Some(definition.table.clone()), ..moved };
    ensure_eq("after a comment", &store.dataset(&definition.table.name).await?, &Some(commented))
}

/// A registration without a definition keeps the one that is known, and replaces all else.
///
/// # Errors
/// As [`all`].
pub async fn a_registration_keeps_the_declared_table(store: &dyn CatalogStore) -> Result<()> {
    let definition = samples::definition("declared")?;
    store.put_definition(&definition).await?;
    let silent = Dataset { owner: Some("me".to_owned()), table: None, ..samples::dataset_of(&definition.table) };
    store.put_dataset(&silent).await?;
    let expected = Dataset { table: Some(definition.table.clone()), ..silent.clone() };
    ensure_eq("with definition", &store.dataset(&silent.name).await?, &Some(expected))?;

    let files = samples::dataset("declared.files", DatasetKind::Csv)?;
    store.put_dataset(&files).await?;
    store.put_dataset(&files).await?;
    ensure_eq("files", &store.dataset(&files.name).await?, &Some(files.clone()))?;
    let bare = Dataset { owner: None, description: None, tags: Vec::new(), kind: DatasetKind::Json, ..files };
    store.put_dataset(&bare).await?;
    ensure_eq("replaced", &store.dataset(&bare.name).await?, &Some(bare))
}

/// Dropping forgets the registration once; what was committed stays.
///
/// # Errors
/// As [`all`].
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

/// Datasets are ordered by schema, then table, byte by byte.
///
/// # Errors
/// As [`all`].
pub async fn datasets_come_in_order_of_their_names(store: &dyn CatalogStore) -> Result<()> {
    // '-' comes before '.', and upper before lower case: an order of the joined or folded texts would differ.
    let expected = ["order.B", "order.a", "order.a-b", "order.a_b", "order-2.a"].map(str::parse::<TableName>);
    let mut expected = expected.into_iter().collect::<Result<Vec<_>>>()?;
    for name in expected.iter().rev() {
        store.put_dataset(&samples::dataset(&name.to_string(), DatasetKind::Parquet)?).await?;
    }
    expected.sort();
    let found = store.datasets().await?.into_iter().map(|dataset| dataset.name);
    let found: Vec<TableName> = found.filter(|name| name.schema().starts_with("order")).collect();
    ensure_eq("order", &found, &expected)
}

/// A run's begin, put again after its end, takes nothing back.
///
/// # Errors
/// As [`all`].
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
/// As [`all`].
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
/// As [`all`].
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

/// Every field of a commit is found as it was put.
///
/// # Errors
/// As [`all`].
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

/// A commit of the same place and version changes nothing.
///
/// # Errors
/// As [`all`].
pub async fn a_commit_is_recorded_once(store: &dyn CatalogStore) -> Result<()> {
    let commit = samples::commit("once", 3)?;
    let mut other = commit.clone();
    other.lineage.write_id = samples::id(99);
    other.lineage.inputs.pop();
    other.files_added += 1;
    for put in [&commit, &commit, &other] {
        store.put_commit(put).await?;
    }
    ensure_eq("commits", &store.commits(Some(&commit.table), 9).await?, &vec![commit])
}

/// Commits come by time, then version, newest first, of one table or of all.
///
/// # Errors
/// As [`all`].
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
/// As [`all`].
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
/// As [`all`].
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

/// Up to where commits are recorded is kept by place, and only grows.
///
/// # Errors
/// As [`all`].
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
/// As [`all`].
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

fn ensure(what: &str, holds: bool) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::internal(format!("{what}: not as it was put"))) }
}

#[track_caller]
fn ensure_eq<T: PartialEq + fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let line = std::panic::Location::caller().line();
    Err(Error::internal(format!("{what} (case at line {line}): expected {expected:?}, found {found:?}")))
}
