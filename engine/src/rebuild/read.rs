//! Reads the log of one table from its oldest version that is left to its newest.

use std::collections::BTreeMap;

use alluvium_catalog::{Definition, Location, Name, Result, Stores, TableName};

use super::TableStory;
use super::find::Found;
use super::log::{commit_of, committed_at, definitions_of, lineage_of};
use crate::commit::definitions::{held, same};
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
    if starts_late {
        // Versions that wrote definitions have been cleaned up; a checkpoint still carries them.
        let state = TableState::load(&log).await?.unwrap_or_default();
        let mut carried = held(&state.metadata.configuration, &table.location)?;
        let is_told = |flow: &Name| definitions.iter().any(|(_, told)| told.flow.flow == *flow);
        carried.retain(|definition| !is_told(&definition.flow.flow));
        let carried = carried.into_iter().map(|definition| (i64::MIN, definition));
        definitions = carried.chain(definitions).collect();
    }
    let name = name_of(table, &definitions);
    let mut commits = Vec::new();
    for entry in &entries {
        commits.extend(commit_of(entry, &name, &table.location)?);
    }
    let version = entries.last().map(|entry| entry.version);
    Ok(TableStory { name, location: table.location.clone(), definitions, commits, version })
}

/// Returns the definitions in a log with the times they were put to work. A version that writes the properties repeats
/// those of all flows; only what differs from the flow's last one was put to work by it.
fn definitions(entries: &[LogEntry], location: &Location) -> Result<Vec<(i64, Definition)>> {
    let mut definitions: Vec<(i64, Definition)> = Vec::new();
    let mut last: BTreeMap<Name, Definition> = BTreeMap::new();
    for entry in entries {
        let in_lineage = lineage_of(entry, location)?.and_then(|lineage| lineage.definition);
        for definition in definitions_of(entry, location)?.into_iter().chain(in_lineage) {
            let flow = definition.flow.flow.clone();
            if last.get(&flow).is_none_or(|last| !same(last, &definition)) {
                last.insert(flow, definition.clone());
                definitions.push((committed_at(entry).0, definition));
            }
        }
    }
    Ok(definitions)
}

/// A table is called what the newest definition of this very place calls it, else what its place calls it.
fn name_of(table: &Found, definitions: &[(i64, Definition)]) -> TableName {
    let here = definitions.iter().rev().find(|(_, definition)| definition.table.location == table.location);
    here.map_or(&table.name, |(_, definition)| &definition.table.name).clone()
}
