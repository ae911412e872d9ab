//! The codes of this dialect's errors. A code never changes its meaning, so that it can be searched for.
//!
//! The guide lists them (`docs/guide/errors.md`) in the words that stand above them here; a test compares the two.

/// The text cannot be cut into tokens: an open string, a stray character.
pub const TOKEN: &str = "AL0001";
/// A statement is not written as the grammar says.
pub const SYNTAX: &str = "AL0002";
/// A statement is nested too deeply or too long.
pub const TOO_DEEP: &str = "AL0003";
/// A clause of the grammar that this version cannot carry out.
pub const UNSUPPORTED: &str = "AL0004";
/// A statement that has no place in a pipeline file.
pub const MISPLACED: &str = "AL0005";

/// Text that cannot be a name.
pub const BAD_NAME: &str = "AL0101";
/// Two statements define the same name.
pub const DUPLICATE: &str = "AL0102";
/// A connection, source or table that nobody defined.
pub const UNKNOWN_NAME: &str = "AL0103";
/// Two columns of one name, or a column that is listed twice.
pub const DUPLICATE_COLUMN: &str = "AL0104";
/// A type that columns cannot have.
pub const BAD_TYPE: &str = "AL0105";
/// A column definition that contradicts itself.
pub const BAD_COLUMN: &str = "AL0106";
/// AUTO CDC without SEQUENCE BY.
pub const NO_SEQUENCE: &str = "AL0107";
/// KEYS and PRIMARY KEY do not agree, or one is missing.
pub const BAD_KEYS: &str = "AL0108";
/// A key column that may be NULL.
pub const NULLABLE_KEY: &str = "AL0109";
/// A column that a table cannot be partitioned by.
pub const BAD_PARTITION: &str = "AL0110";
/// Two flows that would overwrite each other's rows.
pub const SHARED_TABLE: &str = "AL0111";
/// Two tables in one folder, or one in the other's.
pub const SHARED_LOCATION: &str = "AL0113";
/// Two flows that would take each other's records away.
pub const SHARED_GROUP: &str = "AL0114";

/// A column that a table cannot be clustered by.
pub const BAD_CLUSTERING: &str = "AL0112";

/// An option that nobody reads.
pub const UNKNOWN_OPTION: &str = "AL0201";
/// A value that an option cannot have.
pub const BAD_OPTION: &str = "AL0202";
/// An option that must be given.
pub const MISSING_OPTION: &str = "AL0203";
/// A credential written into the file.
pub const LITERAL_SECRET: &str = "AL0204";
/// An option that is known but not the user's to set.
pub const OWNED_OPTION: &str = "AL0205";

/// A column that does not exist.
pub const UNKNOWN_COLUMN: &str = "AL0301";
/// A query that would mean "per batch" or "at start".
pub const PER_BATCH: &str = "AL0302";
/// A flow that reads no stream, or several.
pub const STREAM_COUNT: &str = "AL0303";
/// What DataFusion refuses.
pub const PLAN: &str = "AL0304";
/// A column of the table that the query does not deliver.
pub const MISSING_OUTPUT: &str = "AL0305";
/// A column of the query that the table does not have.
pub const EXTRA_OUTPUT: &str = "AL0306";
/// A column of the query whose type is not the table's.
pub const TYPE_MISMATCH: &str = "AL0307";
/// A stream whose rows a join could leave out or make up.
pub const STREAM_SIDE: &str = "AL0308";
/// A STRING that is compared with a number, a time or a BOOLEAN.
pub const UNLIKE: &str = "AL0309";
/// A constant that cannot be computed.
pub const NO_VALUE: &str = "AL0310";

/// A value that a query met while it ran, or a row that it cannot compute.
pub const BAD_VALUE: &str = "AL0401";
/// A query that wants more memory or disk than it may take.
pub const EXHAUSTED: &str = "AL0402";

/// The catalog could not be asked.
pub const CATALOG: &str = "AL0901";
/// A store, disk or service that failed while a statement ran.
pub const UNAVAILABLE: &str = "AL0902";
/// A defect of this program.
pub const DEFECT: &str = "AL0903";
