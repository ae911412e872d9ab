//! Finds a flow's table, or creates it: schema, protocol and properties.
//!
//! The protocol lists every feature that the metadata implies; Spark refuses a table otherwise. An existing table is
//! taken only when a flow can keep its promises on it.

mod clustering;

use std::collections::BTreeMap;
use std::sync::Arc;

use alluvium_catalog::{Clock, Error, Result, Table};
use alluvium_sql::sql_type;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::{TryIntoArrow, TryIntoKernel};
use serde_json::json;

use super::rules::check_rules;
use crate::delta::action::{Action, Format, Metadata, Protocol};
use crate::delta::clustering::FEATURES;
use crate::delta::log::{DeltaLog, PutOutcome};
use crate::delta::spelling::Spellings;
use crate::delta::state::TableState;

/// The property that would make Delta forget positions: a flow could then land records twice.
const FORGETS_POSITIONS: &str = "delta.setTransactionRetentionDuration";

/// The property that says how many versions lie between two checkpoints.
pub const CHECKPOINT_INTERVAL: &str = "delta.checkpointInterval";

/// Writer features that this program honours when it writes.
const KNOWN_WRITER_FEATURES: &[&str] = &[
    "appendOnly",
    "checkConstraints",
    "clustering",
    "deletionVectors",
    "domainMetadata",
    "invariants",
    "timestampNtz",
    "v2Checkpoint",
];

/// What a table has to be like.
#[derive(Debug, Clone)]
pub struct Blueprint {
    /// The columns, hidden ones last.
    pub schema: SchemaRef,
    /// The partition columns.
    pub partitioned_by: Vec<String>,
    /// The clustering columns; `None` leaves those of a table that exists.
    pub clustered_by: Option<Vec<String>>,
    /// Whether rows are superseded in place by deletion vectors.
    pub deletion_vectors: bool,
    /// What the table holds.
    pub comment: Option<String>,
    /// Properties as declared; they go before our defaults.
    pub properties: BTreeMap<String, String>,
}

impl Blueprint {
    /// Returns the blueprint of a declared table with `schema`.
    pub fn new(table: &Table, schema: SchemaRef, deletion_vectors: bool) -> Self {
        Self {
            schema,
            partitioned_by: table.partitioned_by.clone(),
            clustered_by: table.clustered_by.clone(),
            deletion_vectors,
            comment: table.comment.clone(),
            properties: table.properties.clone(),
        }
    }

    /// Loads the table of `log`, or creates it.
    ///
    /// # Errors
    /// `Invalid` when the table that exists has other columns, partitioning or properties than the flow needs;
    /// otherwise as of [`TableState::load`].
    pub async fn open_or_create(&self, log: &DeltaLog, clock: &dyn Clock) -> Result<TableState> {
        if let Some(state) = TableState::load(log).await? {
            self.check(log, &state)?;
            return self.settle_clustering(log, state, clock).await;
        }
        let actions = self.first_actions(log, clock)?;
        let write_id = clock.new_id();
        let info = json!({
            "timestamp": clock.now().0,
            "operation": "CREATE TABLE",
            "operationParameters": {},
            "isBlindAppend": true,
            "engineInfo": ENGINE_INFO,
            "txnId": write_id,
        });
        let bytes = encode(&info, &actions)?;
        match log.put(0, bytes, write_id).await {
            PutOutcome::Landed | PutOutcome::Taken => {}
            PutOutcome::Unknown => {
                return Err(Error::unavailable(format!("cannot create the table at {}", log.location())));
            }
        }
        let state = TableState::load(log)
            .await?
            .ok_or_else(|| Error::data(format!("the table at {} vanished after it was created", log.location())))?;
        self.check(log, &state)?;
        self.settle_clustering(log, state, clock).await
    }

    fn first_actions(&self, log: &DeltaLog, clock: &dyn Clock) -> Result<Vec<Action>> {
        let schema = kernel_schema(log, &self.schema)?;
        let schema_string = serde_json::to_string(&schema)
            .map_err(|cause| Error::internal("cannot write the table's schema as JSON").with_source(cause))?;
        let metadata = Metadata {
            id: clock.new_id().to_string(),
            name: None,
            description: self.comment.clone(),
            format: Format::default(),
            schema_string,
            partition_columns: self.partitioned_by.clone(),
            configuration: self.configuration(),
            created_time: Some(clock.now().0),
        };
        let mut actions = vec![Action::Protocol(self.protocol()), Action::MetaData(metadata)];
        actions.extend(self.first_clustering()?);
        Ok(actions)
    }

    /// Properties fit for streaming: many small commits, so checkpoints by count, and a log that does not grow for ever.
    fn configuration(&self) -> BTreeMap<String, String> {
        let mut configuration: BTreeMap<String, String> = [
            (CHECKPOINT_INTERVAL, "100"),
            ("delta.logRetentionDuration", "interval 7 days"),
            ("delta.dataSkippingNumIndexedCols", "32"),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
        if self.deletion_vectors {
            configuration.insert("delta.enableDeletionVectors".to_owned(), "true".to_owned());
            // Every changed vector leaves a tombstone in each checkpoint until this has passed.
            configuration.insert("delta.deletedFileRetentionDuration".to_owned(), "interval 1 days".to_owned());
        }
        configuration.extend(self.properties.clone());
        configuration
    }

    fn protocol(&self) -> Protocol {
        let ntz = self.schema.fields().iter().any(|field| contains_ntz(field.data_type()));
        let not_null = self.schema.fields().iter().any(|field| has_not_null(field));
        let append_only = self.properties.get("delta.appendOnly").is_some_and(|value| value == "true");
        let v2 = self.properties.get("delta.checkpointPolicy").is_some_and(|policy| policy == "v2");
        let asked_for = self.properties.get("delta.enableDeletionVectors").is_some_and(|value| value == "true");
        let vectors = self.deletion_vectors || asked_for;
        let (clustered, [clustering_feature, domain_feature]) = (self.is_clustered(), FEATURES);
        if !ntz && !vectors && !v2 && !clustered {
            return Protocol { min_reader_version: 1, min_writer_version: 2, ..Protocol::default() };
        }
        let features = |listed: &[(bool, &str)]| {
            listed.iter().filter(|(implied, _)| *implied).map(|(_, name)| (*name).to_owned()).collect()
        };
        let both = [(vectors, "deletionVectors"), (ntz, "timestampNtz"), (v2, "v2Checkpoint")];
        let writers = [
            both[0],
            both[1],
            both[2],
            (not_null, "invariants"),
            (append_only, "appendOnly"),
            (clustered, clustering_feature),
            (clustered, domain_feature),
        ];
        // Readers need not know of clustering, and list no features where no other asks for it.
        let readers: Vec<String> = features(&both);
        Protocol {
            min_reader_version: if readers.is_empty() { 1 } else { 3 },
            min_writer_version: 7,
            reader_features: (!readers.is_empty()).then_some(readers),
            writer_features: Some(features(&writers)),
        }
    }

    /// Checks that a flow can write the table that exists.
    fn check(&self, log: &DeltaLog, state: &TableState) -> Result<()> {
        let at = log.location();
        let metadata = &state.metadata;
        if metadata.configuration.contains_key(FORGETS_POSITIONS) {
            return Err(Error::invalid(format!("the table at {at} sets {FORGETS_POSITIONS}"))
                .with_hint("Delta would forget how far the flow has read, and records could land twice: unset it"));
        }
        check_features(log, state)?;
        check_rules(log, state)?;
        if metadata.partition_columns != self.partitioned_by {
            return Err(Error::invalid(format!(
                "the table at {at} is partitioned by ({}), the flow's table by ({})",
                metadata.partition_columns.join(", "),
                self.partitioned_by.join(", ")
            )));
        }
        if self.deletion_vectors {
            check_takes_changes(log, state)?;
        }
        let vectors = metadata.configuration.get("delta.enableDeletionVectors").is_some_and(|value| value == "true")
            && state.protocol.writer_features.iter().flatten().any(|feature| feature == "deletionVectors");
        if self.deletion_vectors && !vectors {
            return Err(Error::invalid(format!("the table at {at} does not allow deletion vectors")).with_hint(
                "upsert into it with TBLPROPERTIES ('alluvium.upsert' = 'copy-on-write'), or ALTER TABLE .. SET \
                 TBLPROPERTIES ('delta.enableDeletionVectors' = 'true') with its owner's tool",
            ));
        }
        self.check_columns(log, state)
    }

    fn check_columns(&self, log: &DeltaLog, state: &TableState) -> Result<()> {
        let at = log.location();
        let existing = arrow_schema(log, state)?;
        for wanted in self.schema.fields() {
            let Ok(found) = existing.field_with_name(wanted.name()) else {
                return Err(Error::invalid(format!("the table at {at} has no column '{}'", wanted.name()))
                    .with_hint("declare the columns that the table has, or give the flow's table another LOCATION"));
            };
            if !same_type(found.data_type(), wanted.data_type()) {
                return Err(Error::invalid(format!(
                    "column '{}' of the table at {at} is {}, not {}",
                    wanted.name(),
                    sql_type(found.data_type()),
                    sql_type(wanted.data_type())
                )));
            }
            if let Some(column) = loosened(found, wanted) {
                return Err(Error::invalid(format!("column '{column}' of the table at {at} is NOT NULL"))
                    .with_hint(format!("declare '{column}' NOT NULL, so that records without a value are rejected")));
            }
        }
        for found in existing.fields().iter().filter(|found| !found.is_nullable()) {
            if self.schema.field_with_name(found.name()).is_err() {
                return Err(Error::invalid(format!(
                    "the flow's table does not declare column '{}', which is NOT NULL in the table at {at}",
                    found.name()
                )));
            }
        }
        Ok(())
    }
}

/// Checks that rows may leave the table.
///
/// # Errors
/// `Invalid` when the table only takes new rows.
pub fn check_takes_changes(log: &DeltaLog, state: &TableState) -> Result<()> {
    if state.metadata.flag("delta.appendOnly") != Some(true) {
        return Ok(());
    }
    Err(Error::invalid(format!("the table at {} only takes new rows (delta.appendOnly)", log.location()))
        .with_hint("upsert into another table, or let its owner unset the property"))
}

/// Checks that this program knows all that writing the table takes.
///
/// # Errors
/// `Invalid`, naming what it does not know.
pub fn check_features(log: &DeltaLog, state: &TableState) -> Result<()> {
    let at = log.location();
    for feature in state.protocol.writer_features.iter().flatten() {
        if !KNOWN_WRITER_FEATURES.contains(&feature.as_str()) {
            return Err(Error::invalid(format!("the table at {at} needs the writer feature '{feature}'"))
                .with_hint(format!("features that can be written: {}", KNOWN_WRITER_FEATURES.join(", "))));
        }
    }
    let mode = state.metadata.configuration.get("delta.columnMapping.mode");
    if mode.is_some_and(|mode| mode != "none") {
        return Err(Error::invalid(format!("the table at {at} maps its columns to other names")));
    }
    Ok(())
}

/// How commits name the program.
pub const ENGINE_INFO: &str = concat!("alluvium/", env!("CARGO_PKG_VERSION"));

/// Returns the bytes of a commit: `info` as commitInfo first, then one action a line.
///
/// # Errors
/// `Internal` when an action cannot be written as JSON.
pub fn encode(info: &serde_json::Value, actions: &[Action]) -> Result<Bytes> {
    encode_spelled(info, actions, &Spellings::default())
}

/// As [`encode`], for a table whose log spells the paths of files like this.
///
/// # Errors
/// As of [`encode`].
pub fn encode_spelled(info: &serde_json::Value, actions: &[Action], spellings: &Spellings) -> Result<Bytes> {
    let failed = |cause| Error::internal("cannot write a commit as JSON").with_source(cause);
    let mut bytes = br#"{"commitInfo":"#.to_vec();
    serde_json::to_writer(&mut bytes, info).map_err(failed)?;
    bytes.push(b'}');
    for action in actions {
        bytes.push(b'\n');
        bytes.extend(spellings.line(action).map_err(failed)?);
    }
    bytes.push(b'\n');
    Ok(bytes.into())
}

/// Returns the Arrow schema of the table that exists.
///
/// # Errors
/// `Data` when its schema cannot be read.
pub fn arrow_schema(log: &DeltaLog, state: &TableState) -> Result<SchemaRef> {
    let damaged = |cause: Box<dyn std::error::Error + Send + Sync>| {
        Error::data(format!("cannot read the schema of the table at {}", log.location())).with_source(cause)
    };
    let schema: StructType =
        serde_json::from_str(&state.metadata.schema_string).map_err(|cause| damaged(cause.into()))?;
    let schema: Schema = (&schema).try_into_arrow().map_err(|cause: arrow::error::ArrowError| damaged(cause.into()))?;
    Ok(Arc::new(schema))
}

fn kernel_schema(log: &DeltaLog, schema: &Schema) -> Result<StructType> {
    schema.try_into_kernel().map_err(|cause: arrow::error::ArrowError| {
        Error::invalid(format!("Delta cannot store the columns of the table at {}", log.location())).with_source(cause)
    })
}

fn contains_ntz(data_type: &DataType) -> bool {
    match data_type {
        DataType::Timestamp(_, None) => true,
        DataType::Struct(fields) => fields.iter().any(|field| contains_ntz(field.data_type())),
        DataType::List(field) | DataType::Map(field, _) => contains_ntz(field.data_type()),
        _ => false,
    }
}

/// Delta speaks of an invariant where a column, or a field of a struct column, is NOT NULL.
fn has_not_null(field: &Field) -> bool {
    !field.is_nullable()
        || matches!(field.data_type(), DataType::Struct(fields) if fields.iter().any(|field| has_not_null(field)))
}

/// Returns the path of the first part of a column that may not be NULL in the table, but may be in what is written.
fn loosened(found: &Field, wanted: &Field) -> Option<String> {
    if !found.is_nullable() && wanted.is_nullable() {
        return Some(wanted.name().clone());
    }
    let parts: Vec<(&Arc<Field>, &Arc<Field>)> = match (found.data_type(), wanted.data_type()) {
        (DataType::Struct(found), DataType::Struct(wanted)) => found.iter().zip(wanted).collect(),
        (DataType::List(found), DataType::List(wanted)) | (DataType::Map(found, _), DataType::Map(wanted, _)) => {
            vec![(found, wanted)]
        }
        _ => Vec::new(),
    };
    let part = parts.into_iter().find_map(|(found, wanted)| loosened(found, wanted))?;
    Some(format!("{}.{part}", wanted.name()))
}

/// Types that Delta stores alike are the same: names of list and map entries, and string layouts, do not count.
fn same_type(one: &DataType, other: &DataType) -> bool {
    match (one, other) {
        (DataType::List(one), DataType::List(other)) => same_type(one.data_type(), other.data_type()),
        (DataType::Map(one, _), DataType::Map(other, _)) => same_entries(one.data_type(), other.data_type()),
        (DataType::Struct(one), DataType::Struct(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| one.name() == other.name() && same_type(one.data_type(), other.data_type()))
        }
        (DataType::Timestamp(TimeUnit::Microsecond, one), DataType::Timestamp(TimeUnit::Microsecond, other)) => {
            one.is_some() == other.is_some()
        }
        (
            DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8,
            DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8,
        )
        | (
            DataType::Binary | DataType::BinaryView | DataType::LargeBinary,
            DataType::Binary | DataType::BinaryView | DataType::LargeBinary,
        ) => true,
        _ => one == other,
    }
}

/// The entries of two maps: a key and a value, whatever they are called.
fn same_entries(one: &DataType, other: &DataType) -> bool {
    match (one, other) {
        (DataType::Struct(one), DataType::Struct(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| same_type(one.data_type(), other.data_type()))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
