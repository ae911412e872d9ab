//! Another writer that knows clustering and deletion vectors, by the rules of Delta alone: what Spark does to a table which
//! delta-rs reads and does not write. Rows leave by vectors in the log, and come in files of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{cast, concat_batches, filter_record_batch, sort_to_indices, take_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryIntoArrow;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use parquet::arrow::ArrowWriter;
use roaring::RoaringTreemap;
use serde_json::{Value as Json, json};

use super::foreign::{self, Value, Visit};
use super::keys::Keys;
use super::protocol::{MAGIC, Reader, Replay, Row, rows_of};
use super::witness::{TABLE, Witness};
use crate::harness::TestResult;

/// A table as it is before a visit, and what the visit commits.
struct Stay<'a> {
    keys: &'a Keys,
    reader: Reader,
    schema: SchemaRef,
    replay: Replay,
    actions: Vec<Json>,
    data_change: bool,
}

/// What is done to a live row.
type Matching<'a> = &'a (dyn Fn(&Row) -> bool + Sync);

/// Does `visit` to the table.
pub(super) fn visit_once<'a>(witness: &'a Arc<Witness>, keys: &'a Keys, visit: &'a Visit) -> BoxFuture<'a, TestResult> {
    Box::pin(async move {
        if let Visit::Each(visits) = visit {
            for one in visits {
                visit_once(witness, keys, one).await?;
            }
            return Ok(());
        }
        if let Visit::Checkpoint = visit {
            return foreign::visit_once(Arc::clone(witness) as Arc<dyn ObjectStore>, keys, visit).await;
        }
        let mut stay = Stay::begin(witness, keys)?;
        match visit {
            Visit::Append(rows) => stay.insert(&foreign::batch(&stay.schema, rows, keys)?, None).await?,
            Visit::Delete { up_to } => drop(stay.take(&|row: &Row| row.id <= *up_to).await?),
            Visit::DeleteNote(note) => drop(stay.take(&|row: &Row| row.note.as_deref() == Some(*note)).await?),
            Visit::Update { up_to, column, value } => stay.update(*up_to, column, value).await?,
            Visit::Merge(rows) => stay.merge(rows).await?,
            Visit::Optimize => stay.optimize().await?,
            Visit::Restore { back } => stay.restore(witness, *back).await?,
            Visit::Checkpoint | Visit::Each(_) => {}
        }
        stay.commit().await
    })
}

impl<'a> Stay<'a> {
    fn begin(witness: &Arc<Witness>, keys: &'a Keys) -> TestResult<Self> {
        let replay = Replay::of(&witness.versions())?;
        let text = replay.schema.as_ref().and_then(Json::as_str).ok_or("the table has no schema")?;
        let schema: Schema = (&serde_json::from_str::<StructType>(text)?).try_into_arrow()?;
        let reader = Reader { store: Arc::clone(witness) as Arc<dyn ObjectStore> };
        Ok(Self { keys, reader, schema: Arc::new(schema), replay, actions: Vec::new(), data_change: true })
    }

    /// Marks the live rows that match as deleted and returns them.
    async fn take(&mut self, is_wanted: Matching<'_>) -> TestResult<RecordBatch> {
        let mut taken = Vec::new();
        for add in self.replay.files.clone().into_values() {
            let (rows, deleted) = self.whole(&add).await?;
            let is_live = |(place, row): (u64, &Row)| !deleted.contains(place) && is_wanted(row);
            let chosen: Vec<bool> = (0..).zip(&rows_of(&rows, self.keys)?).map(is_live).collect();
            if !chosen.contains(&true) {
                continue;
            }
            let mut gone = deleted.clone();
            gone.extend((0..).zip(&chosen).filter(|(_, is_chosen)| **is_chosen).map(|(place, _)| place));
            self.remove(&add);
            if gone.len() < rows.num_rows() as u64 {
                let mut add = add;
                add["deletionVector"] = inline(&gone)?;
                add["dataChange"] = json!(true);
                self.actions.push(json!({"add": loosened(add)?}));
            }
            taken.push(filter_record_batch(&rows, &BooleanArray::from(chosen))?);
        }
        Ok(concat_batches(&self.schema, &taken)?)
    }

    async fn update(&mut self, up_to: i64, column: &str, value: &Value) -> TestResult {
        let rows = self.take(&|row: &Row| row.id <= up_to).await?;
        let n_rows = rows.num_rows();
        let values: ArrayRef = match value {
            Value::Integer(integer) => Arc::new(Int64Array::from_value(*integer, n_rows)),
            Value::Text(text) => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, n_rows))),
        };
        let mut columns = rows.columns().to_vec();
        let place = self.schema.index_of(column)?;
        columns[place] = cast(&values, self.schema.field(place).data_type())?;
        self.insert(&RecordBatch::try_new(Arc::clone(&self.schema), columns)?, None).await
    }

    async fn merge(&mut self, rows: &[Row]) -> TestResult {
        let notes: BTreeMap<i64, Option<String>> = rows.iter().map(|row| (row.id, row.note.clone())).collect();
        let matched = self.take(&|row: &Row| notes.contains_key(&row.id)).await?;
        let standing = rows_of(&matched, self.keys)?;
        let mut columns = matched.columns().to_vec();
        let place = self.schema.index_of("note")?;
        let changed: StringArray = standing.iter().map(|row| notes.get(&row.id).cloned().flatten()).collect();
        columns[place] = cast(&changed, self.schema.field(place).data_type())?;
        self.insert(&RecordBatch::try_new(Arc::clone(&self.schema), columns)?, None).await?;
        let is_new = |row: &&Row| !standing.iter().any(|other| other.id == row.id);
        let fresh: Vec<Row> = rows.iter().filter(is_new).cloned().collect();
        self.insert(&foreign::batch(&self.schema, &fresh, self.keys)?, None).await
    }

    /// Makes one file of all, sorted.
    async fn optimize(&mut self) -> TestResult {
        self.data_change = false;
        let mut live = Vec::new();
        for add in self.replay.files.clone().into_values() {
            let (rows, deleted) = self.whole(&add).await?;
            let is_live: Vec<bool> = (0..rows.num_rows() as u64).map(|place| !deleted.contains(place)).collect();
            live.push(filter_record_batch(&rows, &BooleanArray::from(is_live))?);
            self.remove(&add);
        }
        let rows = concat_batches(&self.schema, &live)?;
        let clustering = rows.column(self.schema.index_of(self.keys.clustering())?);
        let order: UInt32Array = sort_to_indices(clustering, None, None)?;
        self.insert(&take_record_batch(&rows, &order)?, Some("liquid")).await
    }

    /// Brings back the files of an older version, which must all be there.
    async fn restore(&mut self, witness: &Arc<Witness>, back: u64) -> TestResult {
        let newest = self.version();
        let wanted = newest.saturating_sub(back).max(1);
        if wanted >= newest {
            return Ok(());
        }
        let older = witness.versions().range(..=wanted).map(|(version, bytes)| (*version, bytes.clone())).collect();
        let older = Replay::of(&older)?;
        let vector = |add: Option<&Json>| add.map(|add| add.get("deletionVector").cloned().unwrap_or_default());
        for (path, add) in self.replay.files.clone() {
            if vector(older.files.get(&path)) != vector(Some(&add)) {
                self.remove(&add);
            }
        }
        for (path, mut add) in older.files {
            if vector(self.replay.files.get(&path)) != vector(Some(&add)) {
                self.reader.content(&add).await?;
                add["dataChange"] = json!(true);
                self.actions.push(json!({"add": add}));
            }
        }
        Ok(())
    }

    /// Adds a file of rows, if there are any.
    async fn insert(&mut self, rows: &RecordBatch, clustered_by: Option<&str>) -> TestResult {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let rows = conform(rows, &self.schema)?;
        let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&self.schema), None)?;
        writer.write(&rows)?;
        let bytes = writer.into_inner()?;
        let ids: Vec<i64> = rows_of(&rows, self.keys)?.iter().map(|row| row.id).collect();
        let path = format!("part-{}-{}.parquet", self.version() + 1, self.actions.len());
        let mut add = json!({
            "path": path, "partitionValues": {}, "size": bytes.len(), "modificationTime": 1,
            "dataChange": self.data_change, "stats": self.keys.stats(&ids)?,
        });
        if let Some(provider) = clustered_by {
            add["clusteringProvider"] = json!(provider);
        }
        self.reader.store.put(&Path::from(format!("{TABLE}/{path}")), bytes.into()).await?;
        self.actions.push(json!({"add": add}));
        Ok(())
    }

    fn remove(&mut self, add: &Json) {
        let mut remove = json!({
            "path": add["path"], "deletionTimestamp": 1, "dataChange": self.data_change,
            "extendedFileMetadata": true, "partitionValues": {}, "size": add["size"],
        });
        if let Some(vector) = add.get("deletionVector") {
            remove["deletionVector"] = vector.clone();
        }
        self.actions.push(json!({"remove": remove}));
    }

    /// Returns all rows of a file in the table's columns, and which of them are deleted.
    async fn whole(&self, add: &Json) -> TestResult<(RecordBatch, RoaringTreemap)> {
        let (batches, deleted) = self.reader.content(add).await?;
        let conformed = batches.iter().map(|batch| conform(batch, &self.schema)).collect::<TestResult<Vec<_>>>()?;
        Ok((concat_batches(&self.schema, &conformed)?, deleted))
    }

    fn version(&self) -> u64 {
        self.replay.newest()
    }

    async fn commit(self) -> TestResult {
        if self.actions.is_empty() {
            return Ok(());
        }
        let info = json!({"commitInfo": {"operation": "STRANGER", "engineInfo": "stranger", "timestamp": 1}});
        let lines: Vec<String> = [info].iter().chain(&self.actions).map(Json::to_string).collect();
        let path = Path::from(format!("{TABLE}/_delta_log/{:020}.json", self.version() + 1));
        self.reader.store.put_opts(&path, lines.join("\n").into(), PutMode::Create.into()).await?;
        Ok(())
    }
}

/// Returns rows in the columns of the table.
fn conform(rows: &RecordBatch, schema: &SchemaRef) -> TestResult<RecordBatch> {
    let mut columns = Vec::new();
    for field in schema.fields() {
        let column = rows.column_by_name(field.name()).ok_or_else(|| format!("{} is missing", field.name()))?;
        columns.push(cast(column, field.data_type())?);
    }
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Returns `rows` as a vector in the log itself.
fn inline(rows: &RoaringTreemap) -> TestResult<Json> {
    let mut bytes = MAGIC.to_vec();
    rows.serialize_into(&mut bytes)?;
    let size = bytes.len();
    bytes.resize(size.next_multiple_of(4), 0);
    Ok(json!({
        "storageType": "i", "pathOrInlineDv": z85::encode(&bytes), "sizeInBytes": size, "cardinality": rows.len(),
    }))
}

/// Returns the file with bounds that need not be those of its live rows. Their digits stay as they are written: a number
/// that was read might have lost some.
fn loosened(mut add: Json) -> TestResult<Json> {
    let stats = add["stats"].as_str().ok_or("a file has no statistics")?;
    let stats = stats.replace(r#""tightBounds":true"#, r#""tightBounds":false"#);
    add["stats"] = json!(stats);
    Ok(add)
}
