//! What of a table a writer is made for: where another commit has changed it, the table has to be opened again.

use std::collections::{BTreeMap, BTreeSet};

use crate::delta::retention::LOG_RETENTION;
use crate::delta::state::TableState;

/// Returns what a table has now that a writer was not made for.
pub(super) fn changed_shape(before: &TableState, now: &TableState) -> Vec<String> {
    let (was, is) = (&before.metadata, &now.metadata);
    let parts = [
        (before.protocol.asks_the_same(&now.protocol), "another protocol"),
        (was.schema_string == is.schema_string, "other columns"),
        (was.partition_columns == is.partition_columns, "other partition columns"),
    ];
    let mut changed: Vec<String> =
        parts.iter().filter(|(is_same, _)| !is_same).map(|(_, what)| (*what).to_owned()).collect();
    let names: BTreeSet<&String> =
        rules(&was.configuration).chain(rules(&is.configuration)).map(|(name, _)| name).collect();
    for name in names {
        match (was.configuration.get(name), is.configuration.get(name)) {
            (old, new) if old == new => {}
            (_, Some(value)) => changed.push(format!("{name} = {value}")),
            (_, None) => changed.push(format!("no {name}")),
        }
    }
    changed
}

/// Returns the properties by which Delta says how a table is written. What only says how long something is kept is looked
/// up when it is needed.
fn rules(configuration: &BTreeMap<String, String>) -> impl Iterator<Item = (&String, &String)> {
    const LOOKED_UP: [&str; 4] = [
        "delta.checkpointInterval",
        "delta.deletedFileRetentionDuration",
        "delta.enableExpiredLogCleanup",
        LOG_RETENTION,
    ];
    configuration.iter().filter(|(key, _)| key.starts_with("delta.") && !LOOKED_UP.contains(&key.as_str()))
}
