//! Reads tables as others would: deltalake with DataFusion in this process, DuckDB in another; and the log as text.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use alluvium_catalog::Location;
use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::json::ArrayWriter;
use datafusion::prelude::{SessionConfig, SessionContext};
use deltalake::DeltaTable;
use deltalake::logstore::{StorageConfig, default_logstore};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use serde_json::Value;

use super::TestResult;
use super::lake::Lake;
use super::services;

/// Opens a table with deltalake at its newest version.
pub(crate) async fn open(lake: &Lake, table: &Location) -> TestResult<DeltaTable> {
    let stores = lake.stores();
    let (root, prefixed) = (stores.root(table)?, stores.open(table)?);
    let logs = default_logstore(prefixed, root, &table.url()?, &StorageConfig::default());
    let mut opened = DeltaTable::new(logs);
    opened.load().await?;
    Ok(opened)
}

/// Returns the rows that `sql` has over the table `t`, each as a JSON object, by deltalake's own provider.
pub(crate) async fn deltalake_rows(lake: &Lake, table: &Location, sql: &str) -> TestResult<Vec<Value>> {
    let opened = open(lake, table).await?;
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    context.register_table("t", opened.table_provider().await?)?;
    let rows = context.sql(sql).await?.collect().await?;
    let rows = rows.iter().map(exact).collect::<TestResult<Vec<_>>>()?;
    let mut writer = ArrayWriter::new(Vec::new());
    writer.write_batches(&rows.iter().collect::<Vec<_>>())?;
    writer.finish()?;
    let text = writer.into_inner();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    Ok(serde_json::from_slice(&text)?)
}

/// Turns decimals into text, as JSON's numbers are not exact.
fn exact(batch: &RecordBatch) -> TestResult<RecordBatch> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        let is_decimal = matches!(field.data_type(), DataType::Decimal128(..) | DataType::Decimal256(..));
        let column = if is_decimal { cast(column, &DataType::Utf8)? } else { Arc::clone(column) };
        Ok((field.name().clone(), column, true))
    });
    Ok(RecordBatch::try_from_iter_with_nullable(columns.collect::<TestResult<Vec<_>>>()?)?)
}

/// Returns the rows that `sql` has over the table `t` by DuckDB; nothing where there is no DuckDB.
pub(crate) fn duckdb_rows(lake: &Lake, table: &Location, sql: &str) -> TestResult<Option<Vec<Value>>> {
    let Some(python) = services::duckdb()? else { return Ok(None) };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("readers/query_duckdb.py");
    let asked = Command::new(python)
        .arg(script)
        .arg(table.to_string())
        .arg(sql)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(lake.variables())
        .output()?;
    if !asked.status.success() {
        return Err(String::from_utf8_lossy(&asked.stderr).into_owned().into());
    }
    let lines = asked.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok(Some(lines.map(serde_json::from_slice).collect::<Result<_, _>>()?))
}

/// Returns the rows that `sql` has, on which all readers agree. The query must say the order, and select integers and
/// strings only: that is what both write alike.
pub(crate) async fn rows(lake: &Lake, table: &Location, sql: &str) -> TestResult<Vec<Value>> {
    let rows: Vec<Value> = deltalake_rows(lake, table, sql).await?.into_iter().map(without_nulls).collect();
    if let Some(others) = duckdb_rows(lake, table, sql)? {
        let others: Vec<Value> = others.into_iter().map(without_nulls).collect();
        if let Some((row, other)) = rows.iter().zip(&others).find(|(row, other)| row != other) {
            return Err(format!("{sql} on {table}: deltalake reads {row}, DuckDB {other}").into());
        }
        if rows.len() != others.len() {
            return Err(format!("{sql} on {table}: deltalake has {} rows, DuckDB {}", rows.len(), others.len()).into());
        }
    }
    Ok(rows)
}

/// Leaves out null fields, which some writers of JSON do and some do not.
pub(crate) fn without_nulls(row: Value) -> Value {
    match row {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// One version of a table's log: its lines by the kind of action.
#[derive(Debug)]
pub(crate) struct LogVersion {
    pub(crate) version: u64,
    lines: Vec<Value>,
}

impl LogVersion {
    /// Returns the actions of a kind, such as `txn`.
    pub(crate) fn actions<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.lines.iter().filter_map(move |line| line.get(kind))
    }

    /// Returns the lineage record.
    pub(crate) fn lineage(&self) -> Option<&Value> {
        self.actions("commitInfo").next()?.get("alluvium.lineage")
    }
}

/// Reads the log of a table: the JSON of every version, in order.
pub(crate) async fn log(lake: &Lake, table: &Location) -> TestResult<Vec<LogVersion>> {
    let store = lake.stores().open(table)?;
    let folder = object_store::path::Path::from("_delta_log");
    let files: Vec<_> = store.list(Some(&folder)).try_collect().await?;
    let mut versions = Vec::new();
    for file in files {
        let stem = file.location.filename().and_then(|name| name.strip_suffix(".json"));
        let Some(version) = stem.and_then(|stem| stem.parse().ok()) else { continue };
        let bytes = Arc::clone(&store).get(&file.location).await?.bytes().await?;
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        versions.push(LogVersion { version, lines: lines.map(serde_json::from_slice).collect::<Result<_, _>>()? });
    }
    versions.sort_by_key(|entry| entry.version);
    Ok(versions)
}
