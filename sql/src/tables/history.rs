//! One version of a table as its log tells it, for `DESCRIBE HISTORY`.

use alluvium_catalog::{Lineage, Result, Timestamp};
use arrow::array::RecordBatch;
use serde_json::Value;

use crate::system::Columns;

/// One version of a table.
#[derive(Debug, Clone)]
pub struct HistoryEntry {
    /// The Delta version.
    pub version: u64,
    /// When it was committed: by the commit itself in a table with in-commit timestamps, or else by the store.
    pub committed_at: Timestamp,
    /// What was done, in the words of whoever did it.
    pub operation: Option<String>,
    /// The program that did it.
    pub engine: Option<String>,
    /// What it consumed and produced, if a flow did it.
    pub lineage: Option<Lineage>,
}

impl HistoryEntry {
    /// Reads a commit's commitInfo.
    pub(super) fn read(version: u64, committed_at: Timestamp, info: &Value) -> Self {
        let text = |key: &str| info.get(key).and_then(Value::as_str).map(str::to_owned);
        Self {
            version,
            committed_at,
            operation: text("operation"),
            engine: text("engineInfo"),
            lineage: info.get(Lineage::KEY).and_then(lineage),
        }
    }

    /// Returns the entries as rows.
    ///
    /// # Errors
    /// `Internal` when Arrow refuses the columns.
    pub(crate) fn rows(entries: &[Self]) -> Result<RecordBatch> {
        let of = |get: fn(&Lineage) -> u64| entries.iter().map(move |entry| entry.lineage.as_ref().map(get));
        let text = |get: fn(&Lineage) -> String| entries.iter().map(move |entry| entry.lineage.as_ref().map(get));
        Columns::new()
            .count("version", entries.iter().map(|entry| Some(entry.version)))
            .time("committed_at", entries.iter().map(|entry| Some(entry.committed_at)))
            .text("operation", entries.iter().map(|entry| entry.operation.clone()))
            .text("flow", text(|lineage| lineage.flow.to_string()))
            .text("inputs", text(Lineage::inputs_text))
            .count("records_in", of(|lineage| lineage.fate.records_in))
            .count("applied", of(|lineage| lineage.fate.applied))
            .count("merged", of(|lineage| lineage.fate.merged))
            .count("filtered", of(|lineage| lineage.fate.filtered))
            .count("dropped", of(|lineage| lineage.fate.dropped))
            .count("quarantined", of(|lineage| lineage.fate.quarantined))
            .count("dead_lettered", of(|lineage| lineage.fate.dead_lettered))
            .text("sql_hash", text(|lineage| lineage.sql_hash.clone()))
            .text("run", text(|lineage| lineage.run.to_string()))
            .text("engine", entries.iter().map(|entry| entry.engine.clone()))
            .finish()
    }
}

/// Engines that copy a log may have turned the record into a string.
fn lineage(value: &Value) -> Option<Lineage> {
    match value {
        Value::String(text) => serde_json::from_str(text).ok(),
        object => serde_json::from_value(object.clone()).ok(),
    }
}
