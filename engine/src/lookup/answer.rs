//! What `GET /v1/lookup` answers, as JSON. Fields are only ever added.

use std::collections::HashMap;

use alluvium_sql::locate::{Located, LocatedRow};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where rows are.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// The run that answers: another process may have its port by now.
    pub(super) run: String,
    /// The id of the table.
    pub(super) table_id: String,
    /// The Delta version that this holds for.
    pub(super) version: u64,
    /// For each key its row, or null.
    pub(super) rows: Vec<Option<AnsweredRow>>,
}

/// Where a row is.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AnsweredRow {
    /// The data file, as the log has it.
    pub(super) path: String,
    /// The row's number in the file, from 0.
    pub(super) row: u64,
    /// The file's rows, deleted ones included.
    pub(super) file_rows: u64,
    /// The file's size.
    pub(super) file_bytes: u64,
    /// The file's partition values.
    #[serde(default)]
    pub(super) partition_values: HashMap<String, Option<String>>,
}

impl Answer {
    /// Returns the answer of `run`.
    pub(super) fn new(run: Uuid, located: Located) -> Self {
        let row = |row: LocatedRow| AnsweredRow {
            path: row.path,
            row: row.row,
            file_rows: row.n_rows,
            file_bytes: row.size,
            partition_values: row.partition_values,
        };
        Self {
            run: run.to_string(),
            table_id: located.table_id,
            version: located.version,
            rows: located.rows.into_iter().map(|found| found.map(row)).collect(),
        }
    }

    /// Returns where the rows are.
    pub(super) fn into_located(self) -> Located {
        let row = |row: AnsweredRow| LocatedRow {
            path: row.path,
            size: row.file_bytes,
            n_rows: row.file_rows,
            partition_values: row.partition_values,
            row: row.row,
        };
        let rows = self.rows.into_iter().map(|found| found.map(row)).collect();
        Located { table_id: self.table_id, version: self.version, rows }
    }
}
