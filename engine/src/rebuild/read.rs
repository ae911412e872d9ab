//! Reads the log of one table from its oldest version that is left to its newest.

use alluvium_catalog::{Definition, Location, Result, Stores, TableName};

use super::TableStory;
use super::find::Found;
use super::log::{commit_of, committed_at, definition_in, definition_of, lineage_of};
use crate::delta::log::{DeltaLog, LogEntry};
use crate::delta::state::TableState;

/// Returns what the table's log says: its name, its definitions and its commits, oldest first.
pub(super) async fn story(stores: &Stores, table: &Found) -> Result<TableStory> {
    let log = DeltaLog::open(stores, &table.location)?;
    let entries = match log.version_range().await? {
        Some((oldest, _)) => log.read_tail(oldest).await?,
        None => Vec::new(),
    };
    let mut definitions = definitions(&entries, &table.location)?;
    let starts_late = entries.first().is_some_and(|entry| entry.version > 0);
    if definitions.is_empty() && starts_late {
        // The version that wrote the definition has been cleaned up; a checkpoint still carries it.
        let state = TableState::load(&log).await?.unwrap_or_default();
        let carried = definition_in(&state.metadata.configuration, &table.location)?;
        definitions.extend(carried.map(|definition| (i64::MIN, definition)));
    }
    let name = name_of(table, &definitions);
    let mut commits = Vec::new();
    for entry in &entries {
        commits.extend(commit_of(entry, &name, &table.location)?);
    }
    Ok(TableStory { name, location: table.location.clone(), definitions, commits })
}

/// Returns the definitions in a log with the times they were put to work.
fn definitions(entries: &[LogEntry], location: &Location) -> Result<Vec<(i64, Definition)>> {
    let mut definitions: Vec<(i64, Definition)> = Vec::new();
    for entry in entries {
        let in_lineage = lineage_of(entry, location)?.and_then(|lineage| lineage.definition);
        for definition in [definition_of(entry, location)?, in_lineage].into_iter().flatten() {
            definitions.push((committed_at(entry).0, definition));
        }
    }
    Ok(definitions)
}

/// A table is called what the newest definition of this very place calls it, else what its place calls it.
fn name_of(table: &Found, definitions: &[(i64, Definition)]) -> TableName {
    let here = definitions.iter().rev().find(|(_, definition)| definition.table.location == table.location);
    here.map_or(&table.name, |(_, definition)| &definition.table.name).clone()
}
