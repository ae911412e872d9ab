//! What one commit consumed and produced: the record that is written inside the Delta commit and shown by the catalog.
//!
//! The Delta log holds the record under the key `alluvium.lineage` of commitInfo; the catalog holds a copy that can be
//! made again from the log. The JSON form is a stored format (`docs/FORMATS.md`): fields are only ever added.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    Connection, FlowVersion, Location, Misfit, Name, Offset, Source, Span, Table, TableName, Timestamp, Topic,
};

/// The range of one partition in a stored record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRange {
    /// The partition.
    pub partition: i32,
    /// The first position covered.
    pub first: i64,
    /// One past the last position covered.
    pub next: i64,
    /// Records delivered.
    pub records: u64,
}

/// Something that a commit read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Input {
    /// Ranges of a topic.
    Kafka {
        /// The cluster's own id, where the broker tells it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cluster: Option<String>,
        /// The topic.
        topic: Topic,
        /// The topic's id, where the broker tells it: a re-created topic has another.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topic_id: Option<String>,
        /// The ranges, by partition.
        ranges: Vec<PartitionRange>,
    },
    /// A table that was looked up, at a version.
    Table {
        /// The table.
        table: TableName,
        /// The Delta version that was read.
        version: u64,
    },
    /// Files that were looked up, as they were: a folder of files has no versions.
    Files {
        /// The dataset.
        dataset: TableName,
    },
}

impl fmt::Display for Input {
    /// Shows `shop.orders 0@[12,40) 1@[7,9)` or `silver.customers version 4`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kafka { topic, ranges, .. } => {
                write!(formatter, "{topic}")?;
                for range in ranges {
                    write!(formatter, " {}@[{},{})", range.partition, range.first, range.next)?;
                }
                Ok(())
            }
            Self::Table { table, version } => write!(formatter, "{table} version {version}"),
            Self::Files { dataset } => write!(formatter, "{dataset} as it was"),
        }
    }
}

/// What became of the records of a batch. Every record has exactly one fate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fate {
    /// Records consumed.
    pub records_in: u64,
    /// Records whose rows or deletes the table shows as of this commit.
    pub applied: u64,
    /// Records that lost against a newer record of the same key, in this batch or an earlier one.
    pub merged: u64,
    /// Records that the flow's SELECT left out.
    pub filtered: u64,
    /// Rejects that were dropped because the source says `error-handling.mode = 'ignore'`.
    pub dropped: u64,
    /// Records set aside by an expectation.
    pub quarantined: u64,
    /// Rejects written to the dead-letter table.
    pub dead_lettered: u64,
}

impl Fate {
    /// Tells whether every record consumed has exactly one fate (promise 4: nothing vanishes).
    pub fn is_balanced(&self) -> bool {
        let fates = [self.applied, self.merged, self.filtered, self.dropped, self.quarantined, self.dead_lettered];
        self.records_in == fates.iter().sum::<u64>()
    }
}

/// How long each stage before the commit took, milliseconds; the record is written before the commit ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StageMillis {
    /// From the first record's arrival until the batch closed.
    pub fetch: u64,
    /// Bytes to Arrow.
    pub decode: u64,
    /// The flow's SQL.
    pub transform: u64,
    /// Finding what is superseded, encoding and uploading.
    pub write: u64,
}

/// What a commit cost the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Effort {
    /// Live data files of which rows were superseded.
    pub files_touched: u64,
    /// Bytes of the new data files that hold the batch's own rows, as they were written first.
    pub batch_bytes: u64,
    /// Bytes of data files that are in no version, since they were written once more without late rows, which removes them
    /// as a rule, or since a conflict has made all of their rows late, which leaves them to vacuum.
    pub discarded_bytes: u64,
    /// All bytes written for the commit as it was drawn up last: new data files, those discarded, rewritten ones and deletion
    /// vectors, but neither its JSON nor a sidecar of deletes.
    pub bytes_written: u64,
}

impl Effort {
    /// Returns how many bytes were written for each byte of the batch's own rows; `None` for a batch without rows.
    pub fn amplification(&self) -> Option<f64> {
        (self.batch_bytes > 0).then(|| self.bytes_written as f64 / self.batch_bytes as f64)
    }
}

/// The lineage record of one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The version of this format: 1.
    pub v: u32,
    /// The flow.
    pub flow: Name,
    /// The hash of the flow version that made the commit.
    pub sql_hash: String,
    /// The process run that made the commit.
    #[serde(with = "crate::clock::id_text")]
    pub run: Uuid,
    /// The batch's own id: the proof that a commit found in the log is ours.
    #[serde(with = "crate::clock::id_text")]
    pub write_id: Uuid,
    /// The version of the program.
    pub engine: String,
    /// What was read.
    pub inputs: Vec<Input>,
    /// What became of it.
    pub fate: Fate,
    /// Rows that are new under their key, or all rows for appends.
    pub rows_inserted: u64,
    /// Rows that replaced an older row of their key.
    pub rows_updated: u64,
    /// Rows taken out by a delete.
    pub rows_deleted: u64,
    /// What it cost the table.
    #[serde(default)]
    pub effort: Effort,
    /// Stage timings.
    pub millis: StageMillis,
    /// The definition, in the first commit of a flow version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Definition>,
}

/// All that a flow hangs on: enough to write the catalog again from the table alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// How its source is reached; secrets as references.
    pub connection: Connection,
    /// What it reads.
    pub source: Source,
    /// What it writes.
    pub table: Table,
    /// What it does.
    pub flow: FlowVersion,
}

impl Lineage {
    /// The key of commitInfo that holds the record.
    pub const KEY: &'static str = "alluvium.lineage";

    /// Returns the record of a batch of which only the author is known.
    pub fn begin(flow: Name, sql_hash: &str, engine: &str, run: Uuid, write_id: Uuid) -> Self {
        Self {
            v: 1,
            flow,
            sql_hash: sql_hash.to_owned(),
            run,
            write_id,
            engine: engine.to_owned(),
            inputs: Vec::new(),
            fate: Fate::default(),
            rows_inserted: 0,
            rows_updated: 0,
            rows_deleted: 0,
            effort: Effort::default(),
            millis: StageMillis::default(),
            definition: None,
        }
    }

    /// Returns the inputs as one line.
    pub fn inputs_text(&self) -> String {
        self.inputs.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

/// One commit as the catalog shows it: the lineage record and what the Delta log says of the version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The table.
    pub table: TableName,
    /// Where the table is.
    pub location: Location,
    /// The Delta version.
    pub version: u64,
    /// When it was committed, by commitInfo.
    pub committed_at: Timestamp,
    /// The lineage record.
    pub lineage: Lineage,
    /// Data files added; a file whose deletion vector changed counts in neither this nor `files_removed`.
    pub files_added: u64,
    /// Data files removed.
    pub files_removed: u64,
    /// Bytes of the data files added.
    pub bytes_added: u64,
    /// Deletion vectors written.
    pub vectors_written: u64,
}

impl PartitionRange {
    /// Returns the ranges of `span` in the stored form.
    pub fn of(span: &Span) -> Vec<Self> {
        span.iter()
            .map(|(partition, range)| Self {
                partition: partition.0,
                first: range.first.0,
                next: range.next.0,
                records: range.records,
            })
            .collect()
    }
}

/// The positions that a table's commits have reached, by partition.
pub type Positions = BTreeMap<crate::Partition, Offset>;

/// Checks that `span` begins where `positions` stand; a partition without a position may begin anywhere.
///
/// # Errors
/// The first [`Misfit`] in order of partition.
pub fn follows(positions: &Positions, span: &Span) -> Result<(), Misfit> {
    for (partition, range) in span.iter() {
        if let Some(&have) = positions.get(&partition)
            && have != range.first
        {
            return Err(Misfit { partition, have, got: range.first });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amplification_is_of_batches_with_rows() {
        assert_eq!(Effort { batch_bytes: 200, bytes_written: 500, ..Effort::default() }.amplification(), Some(2.5));
        assert_eq!(Effort { bytes_written: 500, ..Effort::default() }.amplification(), None);
    }

    #[test]
    fn a_record_without_a_fate_unbalances() {
        let fate = Fate { records_in: 3, applied: 1, merged: 1, dead_lettered: 1, ..Fate::default() };
        assert!(fate.is_balanced());
        assert!(!Fate { records_in: 4, ..fate }.is_balanced());
    }
}
