//! Rules that a table's metadata sets and this program does not evaluate: constraints, invariants, computed columns and
//! change data feeds. A flow that wrote past them would break what the table's owner relies on, so it refuses.
//!
//! They are looked for where they are in use, not in the protocol: a writer version of 3 to 6 allows several of them, and
//! most tables that say so use none. Source: Delta transaction log protocol, "Writer Version Requirements", "Column
//! Invariants", "CHECK Constraints", "Generated Columns", "Identity Columns", "Change Data Files".
//!
//! Before it: [`create`](super::create) has loaded the table. After it: the flow writes.

use alluvium_catalog::{Error, Result};
use serde_json::Value;

use crate::delta::log::DeltaLog;
use crate::delta::state::TableState;

/// The newest versions of the protocol that are known: beyond them, features are not even listed as these are.
const VERSIONS_MAX: (i32, i32) = (3, 7);

/// How table properties begin that set a rule, and what it is.
const PROPERTIES: &[(&str, &str)] = &[("delta.constraints.", "the constraint")];

/// What a column's metadata may say, and what it is.
const OF_COLUMNS: &[(&str, &str)] = &[
    ("delta.invariants", "an invariant"),
    ("delta.generationExpression", "an expression that computes it"),
    ("delta.identity.start", "identity values"),
];

/// Checks that rows can be written without breaking a rule of the table.
///
/// # Errors
/// `Invalid`, naming the rule; `Data` when the schema is not JSON.
pub(super) fn check_rules(log: &DeltaLog, state: &TableState) -> Result<()> {
    let at = log.location();
    let protocol = (state.protocol.min_reader_version, state.protocol.min_writer_version);
    if protocol.0 > VERSIONS_MAX.0 || protocol.1 > VERSIONS_MAX.1 {
        return Err(Error::invalid(format!("the table at {at} has protocol {}/{}", protocol.0, protocol.1))
            .with_hint(format!("the newest that can be written is {}/{}", VERSIONS_MAX.0, VERSIONS_MAX.1)));
    }
    let configuration = &state.metadata.configuration;
    for (key, rule) in configuration {
        if let Some((prefix, what)) = PROPERTIES.iter().find(|(prefix, _)| key.starts_with(prefix)) {
            let name = &key[prefix.len()..];
            return Err(Error::invalid(format!("the table at {at} has {what} {name}: {rule}")).with_hint(
                "constraints are not evaluated; let the table's owner drop it, or write into another table",
            ));
        }
    }
    if state.metadata.flag("delta.enableChangeDataFeed") == Some(true) {
        return Err(Error::invalid(format!("the table at {at} keeps a change data feed")).with_hint(
            "change data files are not written; let the table's owner unset delta.enableChangeDataFeed, or write into \
             another table",
        ));
    }
    let schema: Value = serde_json::from_str(&state.metadata.schema_string)
        .map_err(|cause| Error::data(format!("the schema of the table at {at} is not JSON")).with_source(cause))?;
    match ruled_column(&schema) {
        None => Ok(()),
        Some((path, key, what)) => {
            Err(Error::invalid(format!("column '{path}' of the table at {at} has {what} ({key})"))
                .with_hint("rules of columns are not evaluated; write into another table"))
        }
    }
}

/// Returns the path of the first column of a schema that a rule is set for, with the rule's key and what it is.
fn ruled_column(schema: &Value) -> Option<(String, &'static str, &'static str)> {
    if let Some(fields) = schema.get("fields").and_then(Value::as_array) {
        return fields.iter().find_map(|field| {
            let name = field.get("name").and_then(Value::as_str).unwrap_or_default();
            let metadata = field.get("metadata");
            if let Some((key, what)) =
                OF_COLUMNS.iter().find(|(key, _)| metadata.is_some_and(|metadata| metadata.get(key).is_some()))
            {
                return Some((name.to_owned(), *key, *what));
            }
            ruled_column(field.get("type")?).map(|(path, key, what)| (format!("{name}.{path}"), key, what))
        });
    }
    ["elementType", "keyType", "valueType"].iter().find_map(|part| ruled_column(schema.get(part)?))
}
