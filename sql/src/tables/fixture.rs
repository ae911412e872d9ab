//! Delta tables in a temporary folder, written by deltalake's own operations, for the tests of this crate.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use alluvium_catalog::store::{CatalogStore, MemoryStore};
use alluvium_catalog::{Dataset, DatasetKind, Location, StorageSettings, Stores};
use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Schema;
use arrow::util::pretty::pretty_format_batches;
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryFromArrow;
use deltalake::kernel::transaction::CommitProperties;
use deltalake::{DeltaTable, DeltaTableBuilder};
use roaring::RoaringTreemap;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use super::TableReader;

pub(crate) type TestResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// A folder with tables, and a catalog that knows them.
pub(crate) struct Lake {
    folder: TempDir,
    pub(crate) catalog: Arc<MemoryStore>,
    pub(crate) reader: Arc<TableReader>,
}

impl Lake {
    pub(crate) fn new() -> TestResult<Self> {
        let catalog = Arc::new(MemoryStore::default());
        let stores = Stores::new(StorageSettings { local_fsync: false, ..StorageSettings::default() });
        let reader = Arc::new(TableReader::new(stores, Arc::clone(&catalog) as Arc<dyn CatalogStore>));
        Ok(Self { folder: TempDir::new()?, catalog, reader })
    }

    pub(crate) fn location(&self, name: &str) -> TestResult<Location> {
        Ok(self.folder.path().join(name).to_str().ok_or("the folder is not UTF-8")?.parse()?)
    }

    /// Writes a table of these versions and registers it. Version 0 has no rows, version n those of the first n batches.
    pub(crate) async fn table(&self, name: &str, batches: &[RecordBatch]) -> TestResult<Location> {
        let location = self.location(name)?;
        let schema = batches.first().ok_or("a table needs a batch")?.schema();
        create(&location, &schema, &[]).await?;
        for batch in batches {
            append(&location, batch.clone()).await?;
        }
        self.register(name, DatasetKind::Delta, &location).await?;
        Ok(location)
    }

    pub(crate) async fn register(&self, name: &str, kind: DatasetKind, location: &Location) -> TestResult {
        let dataset = Dataset {
            name: name.parse()?,
            kind,
            location: location.clone(),
            owner: None,
            description: None,
            tags: Vec::new(),
            table: None,
        };
        Ok(self.catalog.put_dataset(&dataset).await?)
    }
}

/// Creates an empty table.
pub(crate) async fn create(location: &Location, schema: &Schema, partitioned_by: &[&str]) -> TestResult<DeltaTable> {
    std::fs::create_dir_all(location.local_path().ok_or("not on disk")?)?;
    let columns = StructType::try_from_arrow(schema)?;
    let table = DeltaTableBuilder::from_url(location.url()?)?.build()?;
    Ok(table.create().with_columns(columns.fields().cloned()).with_partition_columns(partitioned_by.to_vec()).await?)
}

/// Appends one commit.
pub(crate) async fn append(location: &Location, batch: RecordBatch) -> TestResult {
    append_with(location, batch, CommitProperties::default()).await
}

/// Appends one commit with these properties.
pub(crate) async fn append_with(location: &Location, batch: RecordBatch, properties: CommitProperties) -> TestResult {
    let table = DeltaTableBuilder::from_url(location.url()?)?.load().await?;
    table.write([batch]).with_commit_properties(properties).await?;
    Ok(())
}

/// Rows of `id BIGINT, name STRING`.
pub(crate) fn people(rows: &[(i64, &str)]) -> TestResult<RecordBatch> {
    let ids: ArrayRef = Arc::new(rows.iter().map(|(id, _)| Some(*id)).collect::<Int64Array>());
    let names: ArrayRef = Arc::new(rows.iter().map(|(_, name)| Some(*name)).collect::<StringArray>());
    Ok(RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("name", names, true)])?)
}

/// Adds the hidden columns of upsert tables to `batch`: partition 0, and offsets from 100 on.
pub(crate) fn with_hidden(batch: &RecordBatch) -> TestResult<RecordBatch> {
    let n_rows = i64::try_from(batch.num_rows())?;
    let schema = batch.schema();
    let mut columns: Vec<(&str, ArrayRef, bool)> = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, values)| (field.name().as_str(), Arc::clone(values), field.is_nullable()))
        .collect();
    columns.push(("_alluvium_partition", Arc::new(Int32Array::from(vec![0; batch.num_rows()])), true));
    columns.push(("_alluvium_offset", Arc::new(Int64Array::from_iter_values(100..100 + n_rows)), true));
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

/// Returns the rows as one line each, cells divided by `|`, below the line of column names.
pub(crate) fn lines(batches: &[RecordBatch]) -> TestResult<Vec<String>> {
    let table = pretty_format_batches(batches)?.to_string();
    let rows = table.lines().filter(|line| line.starts_with('|'));
    Ok(rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join("|")).collect())
}

/// Where a deletion vector is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VectorPlace {
    /// Into the log.
    Inline,
    /// Into one file for all vectors of the commit.
    File,
}

/// Returns the Add of each live file, in the order of their paths, by the commits 0 to `version`.
pub(crate) fn live_adds(location: &Location, version: u64) -> TestResult<Vec<Value>> {
    let mut live = BTreeMap::new();
    for version in 0..=version {
        for action in actions(location, version)? {
            let path = |kind: &str| action[kind]["path"].as_str().map(str::to_owned);
            if let Some(path) = path("remove") {
                live.remove(&path);
            }
            if let Some(path) = path("add") {
                live.insert(path, action["add"].clone());
            }
        }
    }
    Ok(live.into_values().collect())
}

/// Returns the number of rows that an Add tells.
pub(crate) fn n_rows(add: &Value) -> TestResult<u64> {
    let stats: Value = serde_json::from_str(add["stats"].as_str().ok_or("no statistics")?)?;
    Ok(stats["numRecords"].as_u64().ok_or("no numRecords")?)
}

/// Commits `vectors`, by the path of their file, as the version after `version`: as the protocol lays it out, with bounds
/// that are loose from then on.
pub(crate) fn commit_vectors(
    location: &Location,
    version: u64,
    vectors: &BTreeMap<String, RoaringTreemap>,
    place: VectorPlace,
) -> TestResult {
    let created = actions(location, 0)?;
    let mut metadata = created.iter().find_map(|action| action.get("metaData")).ok_or("no metadata")?.clone();
    metadata["configuration"]["delta.enableDeletionVectors"] = json!("true");
    let features = json!(["deletionVectors"]);
    let mut lines = vec![
        json!({"protocol": {
            "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features
        }}),
        json!({"metaData": metadata}),
    ];
    let id = Uuid::from_u128(u128::from(version) + 1);
    let mut file = vec![1];
    for mut add in live_adds(location, version)? {
        let path = add["path"].as_str().ok_or("no path")?.to_owned();
        let Some(vector) = vectors.get(&path) else { continue };
        let mut bytes = 1_681_511_377_u32.to_le_bytes().to_vec();
        vector.serialize_into(&mut bytes)?;
        lines.push(json!({"remove": {
            "path": path, "deletionTimestamp": 0, "dataChange": true, "partitionValues": add["partitionValues"],
            "extendedFileMetadata": true, "size": add["size"], "deletionVector": add["deletionVector"]
        }}));
        add["deletionVector"] = match place {
            VectorPlace::Inline => {
                let size = bytes.len();
                bytes.resize(size.next_multiple_of(4), 0);
                json!({"storageType": "i", "pathOrInlineDv": z85::encode(&bytes), "sizeInBytes": size})
            }
            VectorPlace::File => {
                let offset = file.len();
                file.extend(u32::try_from(bytes.len())?.to_be_bytes());
                file.extend(&bytes);
                file.extend(crc32fast::hash(&bytes).to_be_bytes());
                json!({
                    "storageType": "u", "pathOrInlineDv": z85::encode(id.as_bytes()), "offset": offset,
                    "sizeInBytes": bytes.len()
                })
            }
        };
        add["deletionVector"]["cardinality"] = json!(vector.len());
        let mut stats: Value = serde_json::from_str(add["stats"].as_str().ok_or("no statistics")?)?;
        stats["tightBounds"] = json!(false);
        add["stats"] = json!(stats.to_string());
        lines.push(json!({"add": add}));
    }
    let folder = location.local_path().ok_or("not on disk")?;
    std::fs::write(folder.join(format!("deletion_vector_{id}.bin")), file)?;
    write_commit(location, version + 1, &lines)
}

/// Writes a commit of these actions.
pub(crate) fn write_commit(location: &Location, version: u64, actions: &[Value]) -> TestResult {
    let text: Vec<String> = actions.iter().map(Value::to_string).collect();
    Ok(std::fs::write(commit_path(location, version)?, text.join("\n"))?)
}

/// Returns the actions of a commit.
pub(crate) fn actions(location: &Location, version: u64) -> TestResult<Vec<Value>> {
    let text = std::fs::read_to_string(commit_path(location, version)?)?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn commit_path(location: &Location, version: u64) -> TestResult<PathBuf> {
    Ok(location.local_path().ok_or("not on disk")?.join(format!("_delta_log/{version:020}.json")))
}
