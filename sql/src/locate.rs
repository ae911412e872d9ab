//! The seam to a running engine's key index: where the row of a key is, so that a query need not look for it.
//!
//! An answer is a shortcut and never the truth: it is of one version of one table, and the [session](crate::session) takes
//! it only where that is the version it reads. Whoever implements this says nothing rather than something that might be
//! wrong, and soon rather than late; the query then scans the table.

use std::collections::HashMap;
use std::fmt;

use alluvium_catalog::TableName;
use arrow::array::RecordBatch;
use async_trait::async_trait;

/// Keys of a table.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The table.
    pub table: TableName,
    /// The version of it that the query has seen: an index of an older one is of no use.
    pub seen: u64,
    /// The keys, a row each: the key columns by name, in the table's own types, without NULL.
    pub keys: RecordBatch,
}

/// Where rows are, as of one version of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The id of the table, as its log has it: another table may have been made at its place.
    pub table_id: String,
    /// The version.
    pub version: u64,
    /// For each key its only live row; `None` where the table has no row of the key.
    pub rows: Vec<Option<LocatedRow>>,
}

/// Where a row is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocatedRow {
    /// The path of its data file, as the log has it.
    pub path: String,
    /// The file's size in bytes.
    pub size: u64,
    /// The file's rows, deleted ones included.
    pub n_rows: u64,
    /// The file's partition values.
    pub partition_values: HashMap<String, Option<String>>,
    /// The row's number in the file, from 0.
    pub row: u64,
}

/// Knows where rows are. The engine has the implementations: for its own process, and for others on this machine.
#[async_trait]
pub trait Locate: fmt::Debug + Send + Sync {
    /// Returns where the live rows of `wanted` are; `None` when nobody can say.
    async fn locate(&self, wanted: &Wanted) -> Option<Located>;
}
