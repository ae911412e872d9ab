//! Another writer: delta-rs, which knows nothing of keys, positions or hidden columns but that they are columns.

use std::sync::Arc;

use alluvium_catalog::Location;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use deltalake::DeltaTable;
use deltalake::datafusion::prelude::{SessionContext, col, lit};
use deltalake::kernel::transaction::CommitProperties;
use deltalake::logstore::{StorageConfig, default_logstore};
use futures::future::BoxFuture;
use object_store::ObjectStore;
use object_store::prefix::PrefixStore;

use super::keys::Keys;
use super::protocol::Row;
use super::witness::TABLE;
use crate::harness::TestResult;

/// What another writer does.
#[derive(Debug, Clone)]
pub(crate) enum Visit {
    /// Adds rows, which may be of keys that have one.
    Append(Vec<Row>),
    /// Deletes the rows of keys up to this one.
    Delete { up_to: i64 },
    /// Deletes the row with this note.
    DeleteNote(&'static str),
    /// Changes a column of the rows of keys up to this one.
    Update { up_to: i64, column: &'static str, value: Value },
    /// Merges rows by key.
    Merge(Vec<Row>),
    /// Rewrites small files into large ones, with or without vectors.
    Optimize,
    /// Brings back the table as it was some versions ago, rows and vectors.
    Restore { back: u64 },
    /// Writes a checkpoint.
    Checkpoint,
    /// Does one thing after the other.
    Each(Vec<Self>),
}

/// What a visit comes to, of those that histories draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum VisitKind {
    Append,
    Delete,
    Update,
    Merge,
    Optimize,
    Restore,
    Checkpoint,
}

impl VisitKind {
    pub(crate) const ALL: [Self; 7] =
        [Self::Append, Self::Delete, Self::Update, Self::Merge, Self::Optimize, Self::Restore, Self::Checkpoint];

    /// Returns the kind of the visit that ends the history of `seed`: seeds in a row bring each.
    pub(crate) fn of_seed(seed: u64) -> Self {
        Self::ALL[usize::try_from(seed).unwrap_or_default() % Self::ALL.len()]
    }
}

impl Visit {
    /// Returns what the visit comes to; nothing where that is more than one thing.
    pub(crate) fn kind(&self) -> Option<VisitKind> {
        Some(match self {
            Self::Append(_) => VisitKind::Append,
            Self::Delete { .. } | Self::DeleteNote(_) => VisitKind::Delete,
            Self::Update { .. } => VisitKind::Update,
            Self::Merge(_) => VisitKind::Merge,
            Self::Optimize => VisitKind::Optimize,
            Self::Restore { .. } => VisitKind::Restore,
            Self::Checkpoint => VisitKind::Checkpoint,
            Self::Each(_) => return None,
        })
    }
}

/// What a column is set to.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Integer(i64),
    Text(String),
}

/// Returns the table in `folder`, which need not be there yet.
pub(crate) fn table(store: Arc<dyn ObjectStore>, folder: &str) -> TestResult<DeltaTable> {
    let prefixed: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&store), folder));
    let location: Location = format!("memory:///{folder}").parse()?;
    Ok(DeltaTable::new(default_logstore(prefixed, store, &location.url()?, &StorageConfig::default())))
}

/// Opens the table in `folder`.
pub(crate) async fn open(store: Arc<dyn ObjectStore>, folder: &str) -> TestResult<DeltaTable> {
    let mut table = table(store, folder)?;
    table.load().await?;
    Ok(table)
}

/// Returns what `sql` gives of the table in `folder`, called `t`, by delta-rs.
pub(crate) async fn query(store: Arc<dyn ObjectStore>, folder: &str, sql: &str) -> TestResult<Vec<RecordBatch>> {
    let context = SessionContext::new();
    context.register_table("t", open(store, folder).await?.table_provider().await?)?;
    Ok(context.sql(sql).await?.collect().await?)
}

/// Does `visit` to the table.
pub(crate) fn visit_once<'a>(
    store: Arc<dyn ObjectStore>,
    keys: &'a Keys,
    visit: &'a Visit,
) -> BoxFuture<'a, TestResult> {
    Box::pin(async move {
        let table = open(Arc::clone(&store), TABLE).await?;
        match visit {
            Visit::Append(rows) => {
                let rows = batch(&table.snapshot()?.snapshot().arrow_schema(), rows, keys)?;
                table.write([rows]).with_commit_properties(quiet()).await?;
            }
            Visit::Delete { up_to } => {
                if let Some(is_meant) = keys.up_to(*up_to)? {
                    table.delete().with_commit_properties(quiet()).with_predicate(is_meant).await?;
                }
            }
            Visit::DeleteNote(note) => {
                let delete = table.delete().with_commit_properties(quiet());
                delete.with_predicate(col("note").eq(lit(*note))).await?;
            }
            Visit::Update { up_to, column, value } => {
                let value = match value {
                    Value::Integer(integer) => lit(*integer),
                    Value::Text(text) => lit(text.as_str()),
                };
                if let Some(is_meant) = keys.up_to(*up_to)? {
                    let update = table.update().with_commit_properties(quiet()).with_predicate(is_meant);
                    update.with_update(*column, value).await?;
                }
            }
            Visit::Merge(rows) => merge(table, rows, keys).await?,
            Visit::Optimize => drop(table.optimize().with_commit_properties(quiet()).await?),
            Visit::Restore { back } => {
                let version = table.version().unwrap_or(0);
                let wanted = version.saturating_sub(*back).max(1);
                if wanted < version {
                    table.restore().with_commit_properties(quiet()).with_version_to_restore(wanted).await?;
                }
            }
            Visit::Checkpoint => deltalake::checkpoints::create_checkpoint(&table, None).await?,
            Visit::Each(visits) => {
                for one in visits {
                    visit_once(Arc::clone(&store), keys, one).await?;
                }
            }
        }
        Ok(())
    })
}

/// Leaves the log as it is but for the commit. The tables of histories keep no version longer than they must, which is
/// sound for their flow alone: delta-rs would clean up a version that the flow is about to be put after.
fn quiet() -> CommitProperties {
    CommitProperties::default().with_create_checkpoint(false).with_cleanup_expired_logs(Some(false))
}

async fn merge(table: DeltaTable, rows: &[Row], keys: &Keys) -> TestResult {
    let rows = batch(&table.snapshot()?.snapshot().arrow_schema(), rows, keys)?;
    let names: Vec<String> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    let source = SessionContext::new().read_batch(rows)?;
    let from = |name: &String| col(format!("source.{name}"));
    table
        .merge(source, keys.same()?)
        .with_source_alias("source")
        .with_target_alias("target")
        .with_commit_properties(quiet())
        .when_matched_update(|update| update.update("note", col("source.note")))?
        .when_not_matched_insert(|insert| {
            names.iter().fold(insert, |insert, name| insert.set(name.as_str(), from(name)))
        })?
        .await?;
    Ok(())
}

/// Returns rows in the table's columns; what a row does not say is NULL.
pub(super) fn batch(schema: &Schema, rows: &[Row], keys: &Keys) -> TestResult<RecordBatch> {
    let integers =
        |value: &dyn Fn(&Row) -> Option<i64>| -> ArrayRef { Arc::new(rows.iter().map(value).collect::<Int64Array>()) };
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for field in schema.fields() {
        let column = match field.name().as_str() {
            "seq" | "_alluvium_sequence" => integers(&|row| row.sequence),
            "_alluvium_offset" => integers(&|row| row.offset),
            "_alluvium_partition" => integers(&|row| row.partition.map(i64::from)),
            "note" => Arc::new(rows.iter().map(|row| row.note.as_deref()).collect::<StringArray>()),
            name => keys.column(name, &ids)?.unwrap_or_else(|| new_null_array(field.data_type(), rows.len())),
        };
        let data_type = match field.data_type() {
            DataType::Utf8View | DataType::LargeUtf8 => &DataType::Utf8,
            DataType::BinaryView | DataType::LargeBinary => &DataType::Binary,
            other => other,
        };
        fields.push(Field::new(field.name(), data_type.clone(), field.is_nullable()));
        columns.push(cast(&column, data_type)?);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
