//! A catalog in memory: for tests, demos and `alluvium check`. It behaves as [`super::SqliteStore`] does.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use uuid::Uuid;

use super::{CatalogStore, FlowEntry, LISTENING_MAX, Run, Witness, Written};
use crate::lineage::Definition;
use crate::{Commit, Connection, Dataset, Edge, Input, Location, Name, Node, Result, Seen, Source, TableName};

/// Keeps the catalog until it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    connections: BTreeMap<Name, Connection>,
    sources: BTreeMap<Name, Source>,
    datasets: BTreeMap<TableName, Dataset>,
    flows: BTreeMap<Name, Vec<FlowEntry>>,
    runs: BTreeMap<Uuid, Run>,
    commits: BTreeMap<(Location, u64), Commit>,
    recorded: BTreeMap<Location, u64>,
}

impl MemoryStore {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        // No method leaves the tables half changed, so they are whole even where a holder of the lock panicked.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CatalogStore for MemoryStore {
    async fn put_definition(&self, definition: &Definition) -> Result<u64> {
        let Definition { connection, source, table, flow } = definition;
        let mut tables = self.tables();
        tables.connections.insert(connection.name.clone(), connection.clone());
        tables.sources.insert(source.name.clone(), source.clone());
        let dataset = Dataset::declared(table, tables.datasets.get(&table.name));
        tables.datasets.insert(table.name.clone(), dataset);

        let versions = tables.flows.entry(flow.flow.clone()).or_default();
        match versions.last() {
            Some(newest) if newest.version.sql_hash == flow.sql_hash => Ok(newest.seq),
            newest => {
                let seq = newest.map_or(1, |newest| newest.seq + 1);
                versions.push(FlowEntry { seq, version: flow.clone() });
                Ok(seq)
            }
        }
    }

    async fn put_connection(&self, connection: &Connection) -> Result<()> {
        self.tables().connections.insert(connection.name.clone(), connection.clone());
        Ok(())
    }

    async fn put_source(&self, source: &Source) -> Result<()> {
        self.tables().sources.insert(source.name.clone(), source.clone());
        Ok(())
    }

    async fn put_dataset(&self, dataset: &Dataset) -> Result<()> {
        let mut dataset = dataset.clone();
        let mut tables = self.tables();
        if dataset.table.is_none() {
            dataset.table = tables.datasets.get(&dataset.name).and_then(|known| known.table.clone());
        }
        tables.datasets.insert(dataset.name.clone(), dataset);
        Ok(())
    }

    async fn drop_dataset(&self, name: &TableName) -> Result<bool> {
        Ok(self.tables().datasets.remove(name).is_some())
    }

    async fn put_run(&self, run: &Run) -> Result<()> {
        let mut tables = self.tables();
        let mut run = run.clone();
        if let Some(known) = tables.runs.get(&run.id) {
            run.ended_at = run.ended_at.or(known.ended_at);
            run.error = run.error.or_else(|| known.error.clone());
            run.address = run.address.or(known.address);
        }
        tables.runs.insert(run.id, run);
        Ok(())
    }

    async fn put_commit(&self, commit: &Commit) -> Result<()> {
        let key = (commit.location.clone(), commit.version);
        let mut tables = self.tables();
        let is_known = tables.commits.get(&key).is_some_and(|known| known.lineage.write_id == commit.lineage.write_id);
        if !is_known {
            tables.commits.insert(key, commit.clone());
        }
        Ok(())
    }

    async fn put_recorded(&self, location: &Location, version: u64) -> Result<()> {
        let mut tables = self.tables();
        let recorded = tables.recorded.entry(location.clone()).or_insert(version);
        *recorded = version.max(*recorded);
        Ok(())
    }

    async fn raise_recorded(&self, location: &Location, former: u64, version: u64) -> Result<bool> {
        let mut tables = self.tables();
        match tables.recorded.get_mut(location) {
            Some(recorded) if *recorded >= former => {
                *recorded = version.max(*recorded);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn forget_commits(
        &self,
        location: &Location,
        versions: &[RangeInclusive<u64>],
        witness: Witness,
    ) -> Result<bool> {
        let mut tables = self.tables();
        let is_there = match witness {
            Witness::Commit(Written { version, write_id }) => {
                let known = tables.commits.get(&(location.clone(), version));
                known.is_some_and(|commit| commit.lineage.write_id == write_id)
            }
            Witness::Recorded(version) => tables.recorded.get(location) == Some(&version),
        };
        if !is_there {
            return Ok(false);
        }
        tables.commits.retain(|(place, version), _| place != location || !is_among(*version, versions));
        let Some(first) = versions.iter().map(|range| *range.start()).min() else { return Ok(true) };
        let Some(last) = first.checked_sub(1) else {
            tables.recorded.remove(location);
            return Ok(true);
        };
        if let Some(recorded) = tables.recorded.get_mut(location) {
            *recorded = last.min(*recorded);
        }
        Ok(true)
    }

    async fn written(&self, location: &Location, versions: &[RangeInclusive<u64>]) -> Result<Vec<Written>> {
        let tables = self.tables();
        let mut there = tables
            .commits
            .values()
            .filter(|commit| commit.location == *location && is_among(commit.version, versions))
            .map(|commit| Written { version: commit.version, write_id: commit.lineage.write_id });
        let ends = [there.next(), there.next_back()];
        Ok(ends.into_iter().flatten().collect())
    }

    async fn recorded(&self, location: &Location) -> Result<Option<u64>> {
        Ok(self.tables().recorded.get(location).copied())
    }

    async fn connections(&self) -> Result<Vec<Connection>> {
        Ok(self.tables().connections.values().cloned().collect())
    }

    async fn sources(&self) -> Result<Vec<Source>> {
        Ok(self.tables().sources.values().cloned().collect())
    }

    async fn datasets(&self) -> Result<Vec<Dataset>> {
        Ok(self.tables().datasets.values().cloned().collect())
    }

    async fn dataset(&self, name: &TableName) -> Result<Option<Dataset>> {
        Ok(self.tables().datasets.get(name).cloned())
    }

    async fn flows(&self) -> Result<Vec<FlowEntry>> {
        Ok(self.tables().flows.values().flatten().cloned().collect())
    }

    async fn flow(&self, name: &Name) -> Result<Vec<FlowEntry>> {
        Ok(self.tables().flows.get(name).cloned().unwrap_or_default())
    }

    async fn runs(&self, limit: usize) -> Result<Vec<Run>> {
        let mut runs: Vec<Run> = self.tables().runs.values().cloned().collect();
        runs.sort_by_key(|run| std::cmp::Reverse((run.started_at, run.id)));
        runs.truncate(limit);
        Ok(runs)
    }

    async fn listening(&self) -> Result<Vec<Run>> {
        let mut runs = self.runs(usize::MAX).await?;
        runs.retain(|run| run.ended_at.is_none() && run.address.is_some());
        runs.truncate(LISTENING_MAX);
        Ok(runs)
    }

    async fn commits(&self, table: Option<&TableName>, limit: usize) -> Result<Vec<Commit>> {
        let tables = self.tables();
        let wanted = tables.commits.values().filter(|commit| table.is_none_or(|table| *table == commit.table));
        let mut commits: Vec<&Commit> = wanted.collect();
        commits.sort_by(|first, second| {
            let place = |commit: &Commit| (commit.committed_at, commit.version);
            place(second).cmp(&place(first)).then_with(|| first.location.to_string().cmp(&second.location.to_string()))
        });
        Ok(commits.into_iter().take(limit).cloned().collect())
    }

    async fn flow_commits(&self, flow: &Name, limit: usize) -> Result<Vec<Commit>> {
        let mut commits = self.commits(None, usize::MAX).await?;
        commits.retain(|commit| commit.lineage.flow == *flow);
        commits.truncate(limit);
        Ok(commits)
    }

    async fn traffic(&self) -> Result<Vec<(Edge, Seen)>> {
        let mut traffic: BTreeMap<Edge, Seen> = BTreeMap::new();
        for commit in self.tables().commits.values() {
            for input in &commit.lineage.inputs {
                let (from, records, version) = match input {
                    Input::Kafka { topic, .. } => (Node::Topic(topic.clone()), commit.lineage.fate.records_in, None),
                    Input::Table { table, version } => (Node::Table(table.clone()), 0, Some(*version)),
                    Input::Files { dataset } => (Node::Table(dataset.clone()), 0, None),
                };
                let edge = Edge { from, to: commit.table.clone(), flow: commit.lineage.flow.clone() };
                let seen = traffic.entry(edge).or_default();
                seen.commits += 1;
                seen.records += records;
                seen.version = seen.version.max(version);
            }
        }
        Ok(traffic.into_iter().collect())
    }

    async fn last_version(&self, table: &TableName) -> Result<Option<u64>> {
        let tables = self.tables();
        let place = tables.datasets.get(table).map(|dataset| &dataset.location);
        let there = tables
            .commits
            .values()
            .filter(|commit| commit.table == *table && place.is_none_or(|place| *place == commit.location));
        Ok(there.map(|commit| commit.version).max())
    }
}

fn is_among(version: u64, versions: &[RangeInclusive<u64>]) -> bool {
    versions.iter().any(|range| range.contains(&version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite;

    #[tokio::test]
    async fn suite_holds() -> Result<()> {
        suite::all(&MemoryStore::default()).await
    }
}
