//! What a SQL file defines, as the catalog keeps it: connections, sources, tables, flows, datasets.
//!
//! These are plain values without SQL or Arrow types: a data type stands as the SQL text that was written. A credential
//! is never here; only a [`SecretRef`] is.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Location, Name, SecretRef, TableName, Topic};

/// The value of an option: text, or where to find a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptionValue {
    /// The value itself.
    Text(String),
    /// Where the value is read from when it is needed.
    Secret(SecretRef),
}

impl fmt::Display for OptionValue {
    /// Shows the value, or where a secret is found; never the secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => formatter.write_str(text),
            Self::Secret(secret) => fmt::Display::fmt(secret, formatter),
        }
    }
}

/// `CREATE CONNECTION`: how to reach a Kafka cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Its name.
    pub name: Name,
    /// What it speaks; `kafka` is the only kind.
    pub kind: String,
    /// librdkafka's settings by their names.
    pub options: BTreeMap<String, OptionValue>,
}

/// What Kafka tells about a record beside its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetadataKey {
    /// The record's key, bytes.
    Key,
    /// The topic's name.
    Topic,
    /// The partition.
    Partition,
    /// The offset.
    Offset,
    /// The record's timestamp.
    Timestamp,
    /// The value of the last header of this name.
    Header(String),
}

impl fmt::Display for MetadataKey {
    /// Shows the key as it stands in `METADATA FROM`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => formatter.write_str("key"),
            Self::Topic => formatter.write_str("topic"),
            Self::Partition => formatter.write_str("partition"),
            Self::Offset => formatter.write_str("offset"),
            Self::Timestamp => formatter.write_str("timestamp"),
            Self::Header(name) => write!(formatter, "headers.{name}"),
        }
    }
}

/// Where a source column's value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The record's value, under the column's name.
    Value,
    /// `METADATA FROM`.
    Metadata(MetadataKey),
    /// `name AS expression`: the expression's SQL.
    Computed(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value => formatter.write_str("value"),
            Self::Metadata(key) => write!(formatter, "metadata '{key}'"),
            Self::Computed(expression) => write!(formatter, "as {expression}"),
        }
    }
}

/// A column of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceColumn {
    /// Name, type and annotations; a computed column has the type of its expression, and an empty text here.
    pub column: Column,
    /// Where its value comes from.
    pub origin: Origin,
}

/// A column of a table or a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name, in the case it was written in.
    pub name: String,
    /// Its SQL type, in canonical form.
    pub data_type: String,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// `COMMENT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// `TAGS (..)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// `CREATE SOURCE`: a topic and its columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its name.
    pub name: Name,
    /// The connection that it is read over.
    pub connection: Name,
    /// The topic.
    pub topic: Topic,
    /// Its columns in the order written.
    pub columns: Vec<SourceColumn>,
    /// All options as written.
    pub options: BTreeMap<String, String>,
    /// `COMMENT`.
    pub comment: Option<String>,
}

/// `CREATE STREAMING TABLE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: TableName,
    /// Where it is.
    pub location: Location,
    /// Its columns in the order written.
    pub columns: Vec<Column>,
    /// `PRIMARY KEY`, or none.
    pub primary_key: Vec<String>,
    /// `PARTITIONED BY`, or none.
    pub partitioned_by: Vec<String>,
    /// `CLUSTER BY`: empty for `CLUSTER BY NONE`; none without the clause, which leaves the table as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clustered_by: Option<Vec<String>>,
    /// `COMMENT`.
    pub comment: Option<String>,
    /// `TBLPROPERTIES`.
    pub properties: BTreeMap<String, String>,
}

/// How a flow changes its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowKind {
    /// `INSERT INTO`: every row is added.
    Append,
    /// `AUTO CDC INTO`: the newest row of each key stands.
    AutoCdc,
}

impl fmt::Display for FlowKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Append => "append",
            Self::AutoCdc => "auto cdc",
        })
    }
}

/// One text of a flow: what its commits were made by. A changed text is a new version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowVersion {
    /// The flow's name.
    pub flow: Name,
    /// How it changes its table.
    pub kind: FlowKind,
    /// The source that it reads.
    pub source: Name,
    /// The table that it writes.
    pub table: TableName,
    /// The tables that it looks up.
    pub lookups: Vec<TableName>,
    /// The statement in canonical form.
    pub sql: String,
    /// The BLAKE3 hash of `sql` and of the statements it hangs on (source, table), hex.
    pub sql_hash: String,
    /// The file it was read from.
    pub file: String,
    /// The line it begins at, from 1.
    pub line: u64,
}

/// What kind of files a dataset is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatasetKind {
    /// A Delta table.
    Delta,
    /// A Delta table of dead letters.
    DeadLetter,
    /// Parquet files.
    Parquet,
    /// CSV files with a header.
    Csv,
    /// Newline-delimited JSON files.
    Json,
}

impl fmt::Display for DatasetKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Delta => "table",
            Self::DeadLetter => "dead letters",
            Self::Parquet => "parquet",
            Self::Csv => "csv",
            Self::Json => "json",
        })
    }
}

/// Anything that can be named and read in SQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataset {
    /// Its name.
    pub name: TableName,
    /// What it is made of.
    pub kind: DatasetKind,
    /// Where it is.
    pub location: Location,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Its definition, where a pipeline declared it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<Table>,
}

impl Dataset {
    /// Returns the registration of a declared table; what people said of it under its name stays.
    pub fn declared(table: &Table, known: Option<&Self>) -> Self {
        Self {
            name: table.name.clone(),
            kind: DatasetKind::Delta,
            location: table.location.clone(),
            owner: known.and_then(|known| known.owner.clone()),
            description: table.comment.clone().or_else(|| known.and_then(|known| known.description.clone())),
            tags: known.map(|known| known.tags.clone()).unwrap_or_default(),
            table: Some(table.clone()),
        }
    }

    /// Returns what it holds, as people said, or else as its declaration does.
    pub fn about(&self) -> Option<&str> {
        let comment = || self.table.as_ref()?.comment.as_deref();
        self.description.as_deref().or_else(comment)
    }
}

impl Connection {
    /// Returns where the cluster is, for people.
    pub fn address(&self) -> String {
        self.options.get("bootstrap.servers").map(ToString::to_string).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_shown_as_they_are_written() {
        let header = Origin::Metadata(MetadataKey::Header("Trace-Id".to_owned()));
        assert_eq!(header.to_string(), "metadata 'headers.Trace-Id'");
        assert_eq!(Origin::Metadata(MetadataKey::Offset).to_string(), "metadata 'offset'");
        assert_eq!(Origin::Computed("amount * 2".to_owned()).to_string(), "as amount * 2");
        assert_eq!(Origin::Value.to_string(), "value");
    }
}
