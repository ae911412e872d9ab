//! What a compiled SQL file means to the engine: flows with everything resolved, typed and checked.
//!
//! The compiler makes these values; the engine only reads them. Nothing here can fail, and nothing is a string that
//! still has to be understood, but for librdkafka's own settings, which the source hands on.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::{Definition, Offset, Partition, TableName, Timestamp};
use arrow::datatypes::SchemaRef;
use datafusion::sql::sqlparser::ast;

/// The hidden column of upsert tables that holds the partition a row came from, `INT`.
pub const HIDDEN_PARTITION: &str = "_alluvium_partition";
/// The hidden column of upsert tables that holds the offset a row came from, `BIGINT`.
pub const HIDDEN_OFFSET: &str = "_alluvium_offset";
/// The hidden column of upsert tables that holds the SEQUENCE BY value where the stored columns do not.
pub const HIDDEN_SEQUENCE: &str = "_alluvium_sequence";
/// The column of remembered deletes that tells whether the delete took a live row, `BOOLEAN`.
pub const HIDDEN_OVER_ROW: &str = "_alluvium_over_row";

/// The flows of one or more SQL files, in the order written.
#[derive(Debug, Clone, Default)]
pub struct Pipeline {
    /// The flows.
    pub flows: Vec<Arc<Flow>>,
}

/// One source through one SELECT into one table.
#[derive(Debug, Clone)]
pub struct Flow {
    /// Connection, source, table and flow as the catalog keeps them.
    pub definition: Definition,
    /// The columns that decoding delivers, in the order declared: value and metadata columns, without computed ones.
    /// A column is nullable exactly where the source does not say NOT NULL.
    pub source_schema: SchemaRef,
    /// The computed columns of the source: name and expression over `source_schema` and earlier computed columns.
    pub computed: Vec<(String, ast::Expr)>,
    /// The declared columns of the table in order, without hidden ones; NOT NULL as declared. Where the table was
    /// declared without columns, those of the query.
    pub table_schema: SchemaRef,
    /// How rows change the table.
    pub change: Change,
    /// The SELECT, reading `STREAM(source)` once.
    pub query: ast::Query,
    /// Tables that the query joins, each to be read at its current version.
    pub lookups: Vec<TableName>,
    /// Where reading begins in a partition that the table has no position for.
    pub startup: Startup,
    /// What becomes of rejects.
    pub errors: ErrorMode,
    /// Limits on single records.
    pub limits: RecordLimits,
    /// How the keys of Kafka tombstones are read.
    pub key_format: KeyFormat,
    /// When a batch closes.
    pub batch: BatchLimits,
    /// How long deletes are remembered against late rows.
    pub tombstone_retention: Duration,
    /// How superseded rows leave an upsert table.
    pub upsert: UpsertOptions,
}

/// How superseded rows leave an upsert table, and at what price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UpsertOptions {
    /// `alluvium.upsert`
    pub mode: UpsertMode,
    /// `alluvium.upsert.rewrite.max` and `alluvium.upsert.rewrite.policy`; `None` for no cap.
    pub cap: Option<RewriteCap>,
}

/// How superseded rows leave an upsert table: `alluvium.upsert`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpsertMode {
    /// They are marked in deletion vectors, and their files stay.
    #[default]
    MergeOnRead,
    /// Their files are written anew without them.
    CopyOnWrite,
}

/// The most that one commit may rewrite beside the rows of its batch: deletion vectors, or data files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RewriteCap {
    /// Bytes. `alluvium.upsert.rewrite.max`
    pub bytes_max: u64,
    /// What becomes of a batch that would rewrite more. `alluvium.upsert.rewrite.policy`
    pub policy: RewritePolicy,
}

/// What becomes of a batch that would rewrite more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RewritePolicy {
    /// It lands as several commits, each over a part of its records.
    Split,
    /// The flow halts before it lands.
    Halt,
}

impl RewritePolicy {
    /// Returns the name that the property has.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::Halt => "halt",
        }
    }
}

impl UpsertMode {
    /// Returns the name that the property has.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MergeOnRead => "merge-on-read",
            Self::CopyOnWrite => "copy-on-write",
        }
    }
}

/// How rows change the table.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one value a flow, and boxing it would only hide its fields")]
pub enum Change {
    /// Every row is added.
    Append,
    /// The newest row of each key stands.
    Upsert {
        /// The key columns: names of columns of `table_schema`, NOT NULL.
        keys: Vec<String>,
        /// The fields of SEQUENCE BY, most significant first, over the columns of the query's output.
        sequence: Vec<ast::Expr>,
        /// `APPLY AS DELETE WHEN`, over the columns of the query's output.
        delete_when: Option<ast::Expr>,
        /// The stored columns that hold `sequence`, one a field, if all fields are stored columns; then the table has no
        /// [`HIDDEN_SEQUENCE`] column.
        stored_sequence: Option<Vec<String>>,
    },
}

/// Where reading begins in a partition that the table has no position for: `scan.startup.mode`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Startup {
    /// `earliest-offset`
    Earliest,
    /// `latest-offset`
    Latest,
    /// `timestamp`: the first record at or after.
    Timestamp(Timestamp),
    /// `specific-offsets`; a partition that is not named begins at the earliest.
    Offsets(BTreeMap<Partition, Offset>),
}

/// What becomes of a record that cannot become a row: `error-handling.mode`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorMode {
    /// The flow stops before the batch lands.
    Fail,
    /// The record is dropped and counted.
    Ignore,
    /// The record goes to this dead-letter table.
    Log(TableName),
}

/// Limits on single records and on rejects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordLimits {
    /// The longest value in bytes; a longer one is a reject. `record.max.bytes`, default 16 MiB.
    pub record_bytes_max: usize,
    /// The deepest JSON nesting; a deeper value is a reject. `json.max.depth`, default 64.
    pub json_depth_max: usize,
    /// The most rejects in a batch before the flow stops. `error-handling.max.rejects`, default 100,000.
    pub rejects_max: usize,
}

impl Default for RecordLimits {
    fn default() -> Self {
        Self { record_bytes_max: 16 << 20, json_depth_max: 64, rejects_max: 100_000 }
    }
}

/// How the key of a tombstone (a record without value) gives the values of the flow's key columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFormat {
    /// `key.format = 'json'`: an object with the source columns of `key.fields`, or a scalar where that is one column.
    Json {
        /// The source columns that the key carries.
        fields: Vec<String>,
    },
    /// `key.format = 'raw'`: the bytes are the UTF-8 text of one source column.
    Raw {
        /// The source column.
        field: String,
    },
}

/// When a batch closes: whichever limit is reached first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Records.
    pub rows_max: usize,
    /// Bytes of keys, values and headers.
    pub bytes_max: usize,
    /// Time since the batch's first record.
    pub interval: Duration,
}

impl BatchLimits {
    /// How many rows a batch may be allowed. An index into its records is a `u32`; ten million are far beyond what pays.
    pub const ROWS: RangeInclusive<u64> = 1..=10_000_000;

    /// How many bytes. Arrow's offsets end at 2 GiB, and one batch becomes one array of strings.
    pub const BYTES: RangeInclusive<u64> = 1_024..=1 << 30;

    /// How long it may be open. A shorter interval makes more versions than a log can carry.
    pub const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3_600);
}

impl Default for BatchLimits {
    /// Four batches of 125,000 rows in all their forms fit into 512 MiB with all that a flow holds beside, an index aside, where a
    /// record has 200 bytes; 10 s keeps files few.
    fn default() -> Self {
        Self { rows_max: 125_000, bytes_max: 256 << 20, interval: Duration::from_secs(10) }
    }
}

impl Flow {
    /// Returns the flow's name.
    pub fn name(&self) -> &alluvium_catalog::Name {
        &self.definition.flow.flow
    }

    /// Tells whether the table keeps one row a key.
    pub fn is_upsert(&self) -> bool {
        matches!(self.change, Change::Upsert { .. })
    }
}
