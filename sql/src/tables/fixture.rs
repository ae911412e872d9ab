//! Delta tables in a temporary folder, written by deltalake's own operations, for the tests of this crate.

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
use tempfile::TempDir;

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
