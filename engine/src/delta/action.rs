//! The actions of the Delta log that a writer has to understand, in the JSON form of the protocol.
//!
//! Data files come as deltalake's own types; protocol and metadata have public fields here, because a writer must read
//! and write them. Source: Delta transaction log protocol, section "Actions".

use std::collections::{BTreeMap, BTreeSet};

pub use deltalake::kernel::{Add, DeletionVectorDescriptor, Remove, StorageType, Transaction};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::spelling::Spelling;

/// Columns that files have bounds for, by position: Delta's own default.
pub const INDEXED_COLUMNS: usize = 32;

/// One line of a commit.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// A data file is part of the table.
    Add(Add),
    /// A data file, with its deletion vector, is no longer part of the table.
    Remove(Remove),
    /// An application's progress.
    Txn(Transaction),
    /// The table's schema, partitioning and properties.
    MetaData(Metadata),
    /// What readers and writers must understand.
    Protocol(Protocol),
    /// What a feature keeps in the log under a name of its own.
    DomainMetadata(DomainMetadata),
    /// How the log spells the path of the data file that follows; never written.
    #[serde(skip)]
    Spelling(Spelling),
}

impl Action {
    /// Reads an action out of a line's JSON, behind the spelling of its file's path where there are several; nothing for kinds
    /// that a writer need not understand.
    ///
    /// # Errors
    /// When an action of a known kind does not have its form.
    pub fn parse(kind: &str, body: Value) -> Result<Vec<Self>, serde_json::Error> {
        Ok(vec![match kind {
            "add" => return Self::parse_add(body),
            "remove" => Self::Remove(serde_json::from_value(body)?),
            "txn" => Self::Txn(serde_json::from_value(body)?),
            "metaData" => Self::MetaData(serde_json::from_value(body)?),
            "protocol" => Self::Protocol(serde_json::from_value(body)?),
            "domainMetadata" => Self::DomainMetadata(serde_json::from_value(body)?),
            _ => return Ok(Vec::new()),
        }])
    }

    fn parse_add(body: Value) -> Result<Vec<Self>, serde_json::Error> {
        let spelled = body.get("path").and_then(Value::as_str).unwrap_or_default().to_owned();
        let add: Add = serde_json::from_value(body)?;
        let spelling = Spelling::of(&spelled, &add)?;
        Ok(spelling.map(Self::Spelling).into_iter().chain([Self::Add(add)]).collect())
    }
}

/// `metaData`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// The table's id, a UUID.
    pub id: String,
    /// The table's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the table holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The format of its files.
    pub format: Format,
    /// The schema as JSON text.
    pub schema_string: String,
    /// The partition columns.
    pub partition_columns: Vec<String>,
    /// Table properties.
    pub configuration: BTreeMap<String, String>,
    /// When the table was created, epoch milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_time: Option<i64>,
}

impl Metadata {
    /// Returns what a property says that is true or false, in whatever letters, as Spark takes and keeps it; `None` where it
    /// says neither.
    pub fn flag(&self, property: &str) -> Option<bool> {
        self.configuration.get(property)?.to_ascii_lowercase().parse().ok()
    }
}

/// The format of a table's data files; Delta knows only parquet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Format {
    /// `parquet`
    pub provider: String,
    /// Empty.
    pub options: BTreeMap<String, String>,
}

impl Default for Format {
    fn default() -> Self {
        Self { provider: "parquet".to_owned(), options: BTreeMap::new() }
    }
}

/// `protocol`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Protocol {
    /// The least reader version; 3 means that features are listed.
    pub min_reader_version: i32,
    /// The least writer version; 7 means that features are listed.
    pub min_writer_version: i32,
    /// What readers must understand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reader_features: Option<Vec<String>>,
    /// What writers must understand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writer_features: Option<Vec<String>>,
}

impl Protocol {
    /// Tells whether both ask the same of readers and writers. Writers list features in any order.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        let asked = |protocol: &Self| {
            let listed = |features: &Option<Vec<String>>| features.iter().flatten().cloned().collect::<BTreeSet<_>>();
            let versions = (protocol.min_reader_version, protocol.min_writer_version);
            (versions, listed(&protocol.reader_features), listed(&protocol.writer_features))
        };
        asked(self) == asked(other)
    }
}

/// `domainMetadata`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DomainMetadata {
    /// Whose it is.
    pub domain: String,
    /// What it says, in a form of its own.
    pub configuration: String,
    /// Whether it is gone.
    pub removed: bool,
}

/// Returns the number of rows that the log tells of a file, deleted ones included.
pub fn num_records(add: &Add) -> Option<u64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Stats {
        num_records: Option<u64>,
    }
    serde_json::from_str::<Stats>(add.stats.as_ref()?).ok()?.num_records
}

/// Returns the number of rows of a file that are not deleted, where the log tells.
pub fn live_records(add: &Add) -> Option<u64> {
    num_records(add).map(|n_rows| n_rows.saturating_sub(deleted_records(add)))
}

/// Returns the number of rows of a file that its deletion vector hides.
pub fn deleted_records(add: &Add) -> u64 {
    add.deletion_vector.as_ref().map_or(0, |vector| u64::try_from(vector.cardinality).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_read_in_whatever_letters_it_is_kept() {
        let flag = |said: &str| {
            let configuration = BTreeMap::from([("delta.appendOnly".to_owned(), said.to_owned())]);
            Metadata { configuration, ..Metadata::default() }.flag("delta.appendOnly")
        };
        let said = ["true", "True", "TRUE", "false", "FALSE", "yes", ""].map(flag);
        assert_eq!(said, [Some(true), Some(true), Some(true), Some(false), Some(false), None, None]);
        assert_eq!(Metadata::default().flag("delta.appendOnly"), None);
    }

    #[test]
    fn features_ask_the_same_in_any_order() {
        let protocol = |features: &[&str]| Protocol {
            min_reader_version: 3,
            min_writer_version: 7,
            reader_features: Some(vec!["deletionVectors".to_owned()]),
            writer_features: Some(features.iter().map(|feature| (*feature).to_owned()).collect()),
        };
        let ours = protocol(&["deletionVectors", "invariants"]);
        assert!(ours.asks_the_same(&protocol(&["invariants", "deletionVectors"])));
        assert!(!ours.asks_the_same(&protocol(&["deletionVectors"])));
        assert!(!ours.asks_the_same(&Protocol { min_writer_version: 8, ..ours.clone() }));
    }
}
