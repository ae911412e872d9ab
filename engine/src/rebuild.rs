//! Writes the catalog again from what is stored beside the data: the tables' logs and the warehouse's registry.
//!
//! It reads tables and writes none. Commits, flows and their versions, connections, sources and datasets come back as they
//! were; a run comes back as long as its commits tell, from the first to the last of them. What only the catalog knew
//! does not: runs that landed nothing, how a run ended, texts of flows that never wrote. Tables of a warehouse that was
//! moved or copied are where they are found, whatever their logs say. The new file is made beside the old one, which is
//! kept until the next rebuild; a crash on the way leaves the old one or none, never half of one. No other process may
//! have the old one open: it would go on writing there, and what it wrote would be lost.

mod find;
pub mod log;
mod place;
mod read;
mod swap;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use alluvium_catalog::store::{CatalogStore, Hold, Run, SqliteStore};
use alluvium_catalog::{
    Commit, Connection, Dataset, DatasetKind, Definition, Error, Location, Name, Registry, Result, Source, Stores,
    TableName, Timestamp,
};
use uuid::Uuid;

use self::swap::{beside, remove_database, swap};
use crate::delta::log::Version;

/// What is read, and which file is written.
#[derive(Debug)]
pub struct Rebuild<'a> {
    /// How tables are reached.
    pub stores: &'a Stores,
    /// The folder whose tables are found by themselves.
    pub warehouse: &'a Location,
    /// Further tables.
    pub locations: &'a [Location],
    /// The catalog's file.
    pub catalog: &'a Path,
}

/// What was brought back.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Restored {
    /// The tables, by name.
    pub tables: Vec<RestoredTable>,
    /// Datasets of the registry that are no tables of flows.
    pub n_datasets: usize,
    /// Tables that were found and left out, with the reason.
    pub skipped: Vec<Skipped>,
}

/// One table that was brought back.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RestoredTable {
    /// Its name.
    pub table: TableName,
    /// Where it is.
    pub location: Location,
    /// Commits brought back.
    pub commits: usize,
    /// The oldest version that its log still tells of.
    pub first_version: Option<u64>,
}

/// A table that was left out.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Skipped {
    /// Where it is.
    pub location: Location,
    /// Why.
    pub reason: String,
}

/// What the warehouse's registry says.
#[derive(Debug)]
struct Registered {
    datasets: Vec<Dataset>,
    connections: Vec<Connection>,
    sources: Vec<Source>,
}

/// What the log of one table says.
#[derive(Debug)]
struct TableStory {
    name: TableName,
    location: Location,
    /// Definitions with the time they were put to work, oldest first.
    definitions: Vec<(i64, Definition)>,
    commits: Vec<Commit>,
    /// The newest version that was read.
    version: Option<Version>,
}

impl Rebuild<'_> {
    /// Reads everything, writes a new catalog and puts it in the old one's place. Where the path is a link, that is the
    /// place that it leads to.
    ///
    /// # Errors
    /// `Unavailable` when a store does not answer or the disk does not take all of the new catalog, `Data` when a log is
    /// damaged, `Invalid` when a location that was given holds no table of a flow, the catalog's file cannot be written,
    /// or another process has it open.
    pub async fn run(&self) -> Result<Restored> {
        let alone = Hold::alone(self.catalog)?;
        let fresh = beside(alone.path(), ".rebuild");
        remove_database(&fresh)?;
        let store = SqliteStore::open(&fresh).await?;
        let restored = match self.restore_into(&store).await {
            // Only the file is put in place, not the log beside it.
            Ok(restored) => store.flush().await.map(|()| restored),
            Err(error) => Err(error),
        };
        store.close().await;
        let restored = match restored {
            Ok(restored) => restored,
            Err(error) => {
                remove_database(&fresh)?;
                return Err(error);
            }
        };
        swap(&fresh, alone.path())?;
        Ok(restored)
    }

    /// Reads everything and writes it into an empty `store`.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn restore_into(&self, store: &dyn CatalogStore) -> Result<Restored> {
        let mut registered = Registered::read(&Registry::new(self.stores.open(self.warehouse)?)).await?;
        let found = self.find(&registered.datasets).await?;
        let mut stories = Vec::new();
        let mut skipped = Vec::new();
        let mut present = BTreeSet::new();
        for table in found {
            let story = read::story(self.stores, &table).await?;
            if story.version.is_some() {
                present.insert(table.location.clone());
            }
            if !story.commits.is_empty() || !story.definitions.is_empty() {
                stories.push(story);
            } else if table.is_given {
                return Err(Error::invalid(format!("no flow has written a table at {}", table.location))
                    .with_hint("register it by: alluvium catalog register NAME LOCATION"));
            } else if !registered.datasets.iter().any(|dataset| dataset.location == table.location) {
                let reason = String::from("no flow has written it, and it is not registered");
                skipped.push(Skipped { location: table.location, reason });
            }
        }
        let originals = place::take_originals(&mut stories, self.warehouse);
        for original in &originals {
            present.remove(&original.location);
        }
        skipped.extend(originals);
        stories.sort_by(|left, right| left.name.cmp(&right.name));
        place::follow_moves(&mut stories, &mut registered.datasets, &present);
        let n_datasets = write(store, &registered, &stories).await?;
        let tables = stories.iter().map(RestoredTable::of).collect();
        Ok(Restored { tables, n_datasets, skipped })
    }

    async fn find(&self, registered: &[Dataset]) -> Result<Vec<find::Found>> {
        let mut found = find::below(self.stores, self.warehouse).await?;
        let given = self.locations.iter().map(|location| find::Found::given(location.clone()));
        let delta = registered.iter().filter(|dataset| is_delta(dataset.kind));
        found.extend(delta.map(|dataset| find::Found::named(dataset.name.clone(), dataset.location.clone())));
        found.extend(given.collect::<Result<Vec<_>>>()?);
        let mut unique: Vec<find::Found> = Vec::new();
        for table in found {
            match unique.iter_mut().find(|known| known.location == table.location) {
                Some(known) => known.merge(table),
                None => unique.push(table),
            }
        }
        Ok(unique)
    }
}

impl Registered {
    async fn read(registry: &Registry) -> Result<Self> {
        Ok(Self {
            datasets: registry.list().await?,
            connections: registry.connections().await?,
            sources: registry.sources().await?,
        })
    }

    /// Writes connections and sources over what flows have said of them: each was registered whenever it changed.
    async fn write_definitions(&self, store: &dyn CatalogStore) -> Result<()> {
        for connection in &self.connections {
            store.put_connection(connection).await?;
        }
        let known: BTreeSet<Name> = store.connections().await?.into_iter().map(|connection| connection.name).collect();
        for source in &self.sources {
            if known.contains(&source.connection) {
                store.put_source(source).await?;
                continue;
            }
            let Source { name, connection, .. } = source;
            tracing::warn!(source = %name, %connection, "a source is left out, for nothing tells of its connection");
        }
        Ok(())
    }
}

impl RestoredTable {
    fn of(story: &TableStory) -> Self {
        Self {
            table: story.name.clone(),
            location: story.location.clone(),
            commits: story.commits.len(),
            first_version: story.commits.first().map(|commit| commit.version),
        }
    }
}

/// Returns the runs that the commits tell of, from the first commit of each to its last.
fn runs(stories: &[TableStory]) -> impl Iterator<Item = Run> {
    let mut times: BTreeMap<Uuid, (Timestamp, Timestamp)> = BTreeMap::new();
    for commit in stories.iter().flat_map(|story| &story.commits) {
        let at = commit.committed_at;
        let (first, last) = times.entry(commit.lineage.run).or_insert((at, at));
        (*first, *last) = ((*first).min(at), (*last).max(at));
    }
    times.into_iter().map(|(id, (first, last))| Run {
        id,
        started_at: first,
        ended_at: Some(last),
        error: None,
        address: None,
    })
}

/// Writes definitions in the order they were put to work, then the tables that none declares, then registrations, then
/// commits and runs. Returns the number of registered datasets that no flow writes.
async fn write(store: &dyn CatalogStore, registered: &Registered, stories: &[TableStory]) -> Result<usize> {
    let mut definitions: Vec<&(i64, Definition)> = stories.iter().flat_map(|story| &story.definitions).collect();
    definitions.sort_by_key(|(put_to_work, _)| *put_to_work);
    for (_, definition) in &definitions {
        store.put_definition(definition).await?;
    }
    let declared: BTreeSet<&TableName> = definitions.iter().map(|(_, definition)| &definition.table.name).collect();
    for story in stories.iter().filter(|story| !declared.contains(&story.name)) {
        let takes_rejects = definitions.iter().any(|(_, definition)| is_dead_letter_table(definition, &story.name));
        let kind = if takes_rejects { DatasetKind::DeadLetter } else { DatasetKind::Delta };
        store.put_dataset(&undeclared(story, kind)).await?;
    }
    registered.write_definitions(store).await?;
    for dataset in &registered.datasets {
        store.put_dataset(dataset).await?;
    }
    for commit in stories.iter().flat_map(|story| &story.commits) {
        store.put_commit(commit).await?;
    }
    for story in stories {
        if let Some(version) = story.version {
            store.put_recorded(&story.location, version).await?;
        }
    }
    for run in runs(stories) {
        store.put_run(&run).await?;
    }
    let written: BTreeSet<&TableName> = stories.iter().map(|story| &story.name).collect();
    Ok(registered.datasets.iter().filter(|dataset| !written.contains(&dataset.name)).count())
}

fn is_dead_letter_table(definition: &Definition, name: &TableName) -> bool {
    let target = definition.source.options.get("error-handling.log.target");
    target.and_then(|target| target.parse::<TableName>().ok()).is_some_and(|target| target == *name)
}

fn undeclared(story: &TableStory, kind: DatasetKind) -> Dataset {
    Dataset {
        name: story.name.clone(),
        kind,
        location: story.location.clone(),
        owner: None,
        description: None,
        tags: Vec::new(),
        table: None,
    }
}

fn is_delta(kind: DatasetKind) -> bool {
    matches!(kind, DatasetKind::Delta | DatasetKind::DeadLetter)
}

#[cfg(test)]
mod tests;
