//! What one version of a Delta log says to the catalog. Pure.

use std::collections::BTreeMap;

use alluvium_catalog::{Commit, Definition, Error, Lineage, Location, Result, TableName, Timestamp};
use serde_json::Value;

use crate::commit::definitions::held;
use crate::delta::action::{Action, DeletionVectorDescriptor};
use crate::delta::log::LogEntry;

/// Returns the catalog's record of a version that a flow committed; `None` when somebody else did.
///
/// # Errors
/// `Data` when the version has a lineage record that cannot be read.
pub fn commit_of(entry: &LogEntry, table: &TableName, location: &Location) -> Result<Option<Commit>> {
    let Some(lineage) = lineage_of(entry, location)? else { return Ok(None) };
    let files = FileChanges::of(&entry.actions);
    Ok(Some(Commit {
        table: table.clone(),
        location: location.clone(),
        version: entry.version,
        committed_at: committed_at(entry),
        lineage,
        files_added: files.added,
        files_removed: files.removed,
        bytes_added: files.bytes_added,
        vectors_written: files.vectors_written,
    }))
}

/// Returns the lineage record of a version, if a flow committed it.
///
/// # Errors
/// `Data` when there is one that cannot be read.
pub fn lineage_of(entry: &LogEntry, location: &Location) -> Result<Option<Lineage>> {
    let Some(value) = entry.info.get(Lineage::KEY) else { return Ok(None) };
    let parsed = match value {
        // Engines that copy a log may have turned the record into a string.
        Value::String(text) => serde_json::from_str(text),
        object => serde_json::from_value(object.clone()),
    };
    parsed.map(Some).map_err(|source| {
        Error::data(format!("cannot read the lineage of version {} of the table at {location}", entry.version))
            .with_source(source)
    })
}

/// Returns the definitions that the table's properties hold as the version writes them; none where it does not.
///
/// # Errors
/// `Data` when there is one that cannot be read.
pub fn definitions_of(entry: &LogEntry, location: &Location) -> Result<Vec<Definition>> {
    let metadata = entry.actions.iter().rev().find_map(|action| match action {
        Action::MetaData(metadata) => Some(metadata),
        _ => None,
    });
    metadata.map_or(Ok(Vec::new()), |metadata| held(&metadata.configuration, location))
}

/// Returns when a version was committed, as it says itself.
pub fn committed_at(entry: &LogEntry) -> Timestamp {
    let millis = |key| entry.info.get(key).and_then(Value::as_i64);
    // In-commit timestamps are the protocol's own and go first where a table has them.
    Timestamp(millis("inCommitTimestamp").or_else(|| millis("timestamp")).unwrap_or(0))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct FileChanges {
    added: u64,
    removed: u64,
    bytes_added: u64,
    vectors_written: u64,
}

impl FileChanges {
    /// Counts files. One that is both removed and added has changed its deletion vector and stays the same file.
    fn of(actions: &[Action]) -> Self {
        let mut removed: BTreeMap<&str, Option<&DeletionVectorDescriptor>> = BTreeMap::new();
        for action in actions {
            if let Action::Remove(remove) = action {
                removed.insert(&remove.path, remove.deletion_vector.as_ref());
            }
        }
        let mut changes = Self::default();
        for action in actions {
            let Action::Add(add) = action else { continue };
            let vector = add.deletion_vector.as_ref();
            match removed.remove(add.path.as_str()) {
                Some(before) => changes.vectors_written += u64::from(vector.is_some() && vector != before),
                None => {
                    changes.added += 1;
                    changes.bytes_added += u64::try_from(add.size).unwrap_or(0);
                    changes.vectors_written += u64::from(vector.is_some());
                }
            }
        }
        changes.removed = removed.len() as u64;
        changes
    }
}

#[cfg(test)]
mod tests;
