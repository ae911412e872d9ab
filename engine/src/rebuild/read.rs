//! Reads the log of one table: all versions that are left of it, from its oldest to its newest.

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
    let entries = entries(&log).await?;
    let version = entries.last().map(|entry| entry.version);
    let mut definitions = definitions(&entries, &table.location)?;
    if version.is_some_and(|newest| entries.len() as u64 <= newest) {
        // Versions that wrote definitions have been cleaned up; a checkpoint still carries them.
        let state = TableState::load(&log).await?.unwrap_or_default();
        let carried = held(&state.metadata.configuration, &table.location)?;
        add_carried(&mut definitions, carried, has_holes(&entries));
    }
    let name = name_of(table, &definitions);
    let mut commits = Vec::new();
    for entry in &entries {
        commits.extend(commit_of(entry, &name, &table.location)?);
    }
    Ok(TableStory { name, location: table.location.clone(), definitions, commits, version })
}

/// Reads all versions that the log holds. Clean-up that was interrupted leaves holes, and each run of versions between
/// them is read to its end.
async fn entries(log: &DeltaLog) -> Result<Vec<LogEntry>> {
    let mut entries: Vec<LogEntry> = Vec::new();
    for version in log.versions().await? {
        if entries.last().is_none_or(|last| last.version < version) {
            entries.extend(log.read_tail(version).await?);
        }
    }
    Ok(entries)
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

/// Adds what the newest state of the table carries: definitions of flows that no version tells of come before all
/// others; one that differs from the last that is told was put to work in a hole behind it.
fn add_carried(definitions: &mut Vec<(i64, Definition)>, carried: Vec<Definition>, has_holes: bool) {
    for definition in carried {
        let told = definitions.iter().rev().find(|(_, told)| told.flow.flow == definition.flow.flow);
        let put_to_work = match told {
            None => i64::MIN,
            Some((put_to_work, told)) if has_holes && !same(told, &definition) => *put_to_work,
            Some(_) => continue,
        };
        definitions.push((put_to_work, definition));
    }
    // Of two times that are equal, the one that was added stays behind the one that was told.
    definitions.sort_by_key(|(put_to_work, _)| *put_to_work);
}

fn has_holes(entries: &[LogEntry]) -> bool {
    entries.windows(2).any(|pair| pair[0].version + 1 < pair[1].version)
}

/// A table is called what the newest definition of this very place calls it, else what its place calls it.
fn name_of(table: &Found, definitions: &[(i64, Definition)]) -> TableName {
    let here = definitions.iter().rev().find(|(_, definition)| definition.table.location == table.location);
    here.map_or(&table.name, |(_, definition)| &definition.table.name).clone()
}
