//! A table as Delta's protocol has it, read by nothing of the engine: versions replayed one by one, each held to the
//! rules for what a commit may say; checkpoints; deletion vectors; and the rows of the live files.

mod vectors;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use roaring::RoaringTreemap;
use serde_json::Value;

use super::keys::Keys;
use super::witness::TABLE;
use crate::harness::TestResult;

/// Begins every deletion vector.
pub(super) const MAGIC: [u8; 4] = 1_681_511_377_u32.to_le_bytes();

/// A table at a version.
#[derive(Debug, Clone, Default)]
pub(crate) struct Replay {
    /// The live files, by the path that the log has.
    pub(crate) files: BTreeMap<String, Value>,
    /// What was taken out, by path and vector, and when: other readers and writers learn from it what they may delete.
    tombstones: BTreeMap<(String, Option<String>), Option<i64>>,
    pub(crate) txns: BTreeMap<String, i64>,
    pub(crate) schema: Option<Value>,
    /// What features keep in the log, by domain.
    pub(crate) domains: BTreeMap<String, String>,
    /// The versions that gave a file a vector.
    pub(crate) marking: BTreeSet<u64>,
    /// The operation of each version, from the first that was replayed on.
    pub(crate) operations: BTreeMap<u64, String>,
    /// Compactions of ours: delta-rs calls its own by the same word.
    pub(crate) compactions: usize,
    /// Sidecars of deletes that the log names.
    pub(crate) sidecars: BTreeSet<String>,
    /// The run of the engine that has landed the newest version as a batch; none where that is anything else.
    landed_by: Option<String>,
    /// What breaks the protocol.
    pub(crate) faults: Vec<String>,
}

/// A row of the key that has this id, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) id: i64,
    pub(crate) sequence: Option<i64>,
    /// Offset and partition of its record; foreign rows have none.
    pub(crate) offset: Option<i64>,
    pub(crate) partition: Option<i32>,
    pub(crate) note: Option<String>,
}

/// Returns what tells a file with one vector from the same file with another.
fn vector_id(action: &Value) -> Option<String> {
    let vector = action.get("deletionVector").filter(|vector| !vector.is_null())?;
    let offset = vector["offset"].as_i64().map(|offset| format!("@{offset}")).unwrap_or_default();
    Some(format!("{}{}{offset}", vector["storageType"].as_str()?, vector["pathOrInlineDv"].as_str()?))
}

/// Tells whether a commit is the engine's own, by what it says of itself.
fn is_ours(info: &Value) -> bool {
    info["engineInfo"].as_str().is_some_and(|engine| engine.starts_with("alluvium/"))
}

/// Returns what a Remove does not say as it should of the file that `add` made part of the table. A commit that only moves
/// rows changes no data.
fn missaid(remove: &Value, add: &Value, moves_rows: bool) -> Vec<&'static str> {
    let said = [
        (remove["deletionTimestamp"].as_i64().is_some_and(|removed_ms| removed_ms > 0), "when"),
        (remove["extendedFileMetadata"] == true, "that it describes the file"),
        (remove["size"] == add["size"], "its size"),
        (remove["partitionValues"] == add["partitionValues"], "its partition"),
        (remove["deletionVector"] == add["deletionVector"], "its vector"),
        (remove["dataChange"] == !moves_rows, "whether data changes"),
    ];
    said.into_iter().filter(|(is_right, _)| !is_right).map(|(_, what)| what).collect()
}

/// Returns the actions that a version's bytes hold.
pub(crate) fn lines(bytes: &[u8]) -> TestResult<Vec<Value>> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.iter().all(u8::is_ascii_whitespace));
    Ok(lines.map(serde_json::from_slice).collect::<Result<_, _>>()?)
}

impl Replay {
    /// Replays versions, which must be all from 0 on.
    pub(crate) fn of(versions: &BTreeMap<u64, Bytes>) -> TestResult<Self> {
        let mut replay = Self::default();
        for (expected, (version, bytes)) in (0..).zip(versions) {
            if *version != expected {
                replay.faults.push(format!("version {expected} is missing"));
            }
            replay.apply(*version, &lines(bytes)?);
        }
        Ok(replay)
    }

    /// Applies a version and notes what it must not say.
    pub(crate) fn apply(&mut self, version: u64, lines: &[Value]) {
        let actions = |kind: &'static str| lines.iter().filter_map(move |line| line.get(kind));
        let ours = actions("commitInfo").find(|info| is_ours(info));
        let moves_rows = ours.map(|info| info["operation"] == "OPTIMIZE");
        self.compactions += usize::from(moves_rows == Some(true));
        for remove in actions("remove") {
            let path = remove["path"].as_str().unwrap_or_default();
            match self.files.remove(path) {
                Some(add) if vector_id(&add) != vector_id(remove) => {
                    self.faults.push(format!("version {version} removes {path} with another vector than it has"));
                }
                Some(add) => {
                    let said = moves_rows.map(|moves_rows| missaid(remove, &add, moves_rows)).unwrap_or_default();
                    let fault = |what: &str| format!("version {version} removes {path} and says wrongly {what}");
                    self.faults.extend(said.into_iter().map(fault));
                }
                None => self.faults.push(format!("version {version} removes {path}, which is not live")),
            }
            self.tombstones.insert((path.to_owned(), vector_id(remove)), remove["deletionTimestamp"].as_i64());
        }
        for add in actions("add") {
            if vector_id(add).is_some() {
                self.marking.insert(version);
            }
            let path = add["path"].as_str().unwrap_or_default().to_owned();
            if moves_rows.is_some_and(|moves_rows| add["dataChange"] == moves_rows) {
                self.faults.push(format!("version {version} adds {path} and says wrongly whether data changes"));
            }
            self.tombstones.remove(&(path.clone(), vector_id(add)));
            if self.files.insert(path.clone(), add.clone()).is_some() {
                self.faults.push(format!("version {version} adds {path}, which is live"));
            }
        }
        self.check_vectors(version, lines);
        for txn in actions("txn") {
            let (id, next) = (txn["appId"].as_str().unwrap_or_default(), txn["version"].as_i64().unwrap_or(-1));
            if self.txns.insert(id.to_owned(), next).is_some_and(|before| before > next) {
                self.faults.push(format!("version {version} sets {id} back to {next}"));
            }
        }
        for metadata in actions("metaData") {
            self.schema = Some(metadata["schemaString"].clone());
        }
        for domain in actions("domainMetadata") {
            let name = domain["domain"].as_str().unwrap_or_default();
            match domain["removed"].as_bool() {
                Some(true) => drop(self.domains.remove(name)),
                _ => {
                    let configuration = domain["configuration"].as_str().unwrap_or_default();
                    self.domains.insert(name.to_owned(), configuration.to_owned());
                }
            }
        }
        for info in actions("commitInfo") {
            self.operations.insert(version, info["operation"].as_str().unwrap_or_default().to_owned());
            self.sidecars.extend(info["alluvium.tombstones"].as_str().map(str::to_owned));
        }
    }

    /// Returns the newest version.
    pub(crate) fn newest(&self) -> u64 {
        self.operations.keys().next_back().copied().unwrap_or_default()
    }

    /// Returns the next offset of each partition.
    pub(crate) fn positions(&self) -> BTreeMap<i32, i64> {
        let of_flow = |id: &String| id.strip_prefix("alluvium/f/t/")?.parse::<i32>().ok();
        self.txns.iter().filter_map(|(id, next)| Some((of_flow(id)?, *next))).collect()
    }

    /// Returns what is wrong with the tombstones that a start has found in this table: those since `retained_ms` must be
    /// there, and no others than this table has.
    pub(crate) fn faults_of_tombstones(&self, start: &Self, retained_ms: i64) -> Vec<String> {
        let is_retained = |removed_ms: &Option<i64>| removed_ms.is_some_and(|removed_ms| removed_ms > retained_ms);
        let lost = self
            .tombstones
            .iter()
            .filter(|(file, removed_ms)| is_retained(removed_ms) && start.tombstones.get(*file) != Some(*removed_ms));
        let made_up = start.tombstones.iter().filter(|(file, _)| !self.tombstones.contains_key(*file));
        let lost = lost.map(|(file, at)| format!("a start finds no removal of {file:?} at {at:?}"));
        lost.chain(made_up.map(|(file, at)| format!("a start finds a removal of {file:?} at {at:?}"))).collect()
    }

    /// Returns what two tables of one content have in common, whatever way they were read.
    pub(crate) fn essence(&self) -> Essence<'_> {
        let files = self.files.iter().map(|(path, add)| (path.as_str(), vector_id(add))).collect();
        Essence { files, txns: &self.txns, schema: self.schema.as_ref(), domains: &self.domains }
    }
}

/// What tables of one content have in common.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Essence<'a> {
    /// The live files, each with the vector that it has.
    files: BTreeMap<&'a str, Option<String>>,
    txns: &'a BTreeMap<String, i64>,
    schema: Option<&'a Value>,
    domains: &'a BTreeMap<String, String>,
}

/// Reads a table of a store.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) store: Arc<dyn ObjectStore>,
}

impl Reader {
    async fn bytes(&self, path: &str) -> TestResult<Bytes> {
        let got = self.store.get(&Path::parse(format!("{TABLE}/{path}"))?).await;
        Ok(got.map_err(|error| format!("{path}: {error}"))?.bytes().await?)
    }

    /// Tells whether the table has a file.
    pub(crate) async fn has(&self, path: &str) -> TestResult<bool> {
        Ok(self.store.head(&Path::parse(format!("{TABLE}/{path}"))?).await.is_ok())
    }

    /// Reads the table as one who starts: from the checkpoint that the hint names, or the newest where it names none that
    /// is there, and the versions after it.
    pub(crate) async fn start(&self) -> TestResult<Replay> {
        let mut replay = Replay::default();
        let mut next = 0;
        let checkpoints = self.checkpoints().await?;
        let hinted = if self.has("_delta_log/_last_checkpoint").await? {
            let hint: Value = serde_json::from_slice(&self.bytes("_delta_log/_last_checkpoint").await?)?;
            hint["version"].as_u64().filter(|version| checkpoints.contains_key(version))
        } else {
            None
        };
        if let Some((version, name)) =
            hinted.map_or(checkpoints.last_key_value(), |hint| checkpoints.get_key_value(&hint))
        {
            replay.apply(*version, &self.checkpoint(name).await?);
            next = version + 1;
        }
        while self.has(&format!("_delta_log/{next:020}.json")).await? {
            replay.apply(next, &lines(&self.bytes(&format!("_delta_log/{next:020}.json")).await?)?);
            next += 1;
        }
        replay.faults.clear();
        Ok(replay)
    }

    /// Returns the checkpoints by version, one of each.
    async fn checkpoints(&self) -> TestResult<BTreeMap<u64, String>> {
        let folder = Path::from(format!("{TABLE}/_delta_log"));
        let listed: Vec<_> = self.store.list(Some(&folder)).try_collect().await?;
        let files = listed.iter().filter(|file| !file.location.as_ref().contains("/_sidecars/"));
        let version = |name: &str| Some((name.split_once(".checkpoint.")?.0.parse().ok()?, name.to_owned()));
        Ok(files.filter_map(|file| version(file.location.filename()?)).collect())
    }

    async fn checkpoint(&self, name: &str) -> TestResult<Vec<Value>> {
        let mut actions = json_rows(self.bytes(&format!("_delta_log/{name}")).await?)?;
        let sidecars: Vec<String> =
            actions.iter().filter_map(|line| Some(line["sidecar"]["path"].as_str()?.to_owned())).collect();
        for sidecar in sidecars {
            actions.extend(json_rows(self.bytes(&format!("_delta_log/_sidecars/{sidecar}")).await?)?);
        }
        Ok(actions)
    }

    /// Reads the live rows of a file and holds them against what the log says of it.
    pub(crate) async fn rows(&self, add: &Value, keys: &Keys) -> TestResult<Vec<(Row, u64)>> {
        let (batches, deleted) = self.content(add).await?;
        let mut rows = Vec::new();
        for batch in &batches {
            rows.extend(rows_of(batch, keys)?);
        }
        let (n_rows, path) = (rows.len() as u64, &add["path"]);
        if deleted.max().is_some_and(|last| last >= n_rows) {
            return Err(format!("the vector of {path} is beyond its {n_rows} rows").into());
        }
        check_stats(add, &rows, keys).map_err(|error| format!("{path} {error}"))?;
        let live = rows.into_iter().zip(0_u64..).filter(|(_, row)| !deleted.contains(*row));
        Ok(live.collect())
    }

    /// Reads all that a file holds, and which rows of it are deleted.
    pub(crate) async fn content(&self, add: &Value) -> TestResult<(Vec<RecordBatch>, RoaringTreemap)> {
        let path = unescape(add["path"].as_str().ok_or("a file has no path")?)?;
        let bytes = self.bytes(&path).await?;
        if add["size"].as_u64() != Some(bytes.len() as u64) {
            return Err(format!("{path} has {} bytes, the log says {}", bytes.len(), add["size"]).into());
        }
        let batches = ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()?.collect::<Result<_, _>>()?;
        Ok((batches, self.vector(add).await?))
    }

    async fn vector(&self, add: &Value) -> TestResult<RoaringTreemap> {
        let Some(vector) = add.get("deletionVector").filter(|vector| !vector.is_null()) else {
            return Ok(RoaringTreemap::new());
        };
        let encoded = vector["pathOrInlineDv"].as_str().unwrap_or_default();
        let bytes: Bytes = match vector["storageType"].as_str() {
            Some("i") => z85::decode(encoded)?.into(),
            Some("u") => {
                let (prefix, id) = encoded.split_at(encoded.len() - 20);
                let id = uuid::Uuid::from_slice(&z85::decode(id)?)?;
                let folder = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
                let file = self.bytes(&format!("{folder}deletion_vector_{id}.bin")).await?;
                let start = usize::try_from(vector["offset"].as_u64().unwrap_or(0))?;
                let told = u32::from_be_bytes(file.slice(start..start + 4).as_ref().try_into()?);
                if vector["sizeInBytes"].as_u64() != Some(u64::from(told)) {
                    return Err(format!("a vector has {told} bytes, the log says {}", vector["sizeInBytes"]).into());
                }
                file.slice(start + 4..)
            }
            other => return Err(format!("a vector is stored as {other:?}").into()),
        };
        let deleted = vectors::decoded(vector, &bytes)?;
        match vectors::row_behind(add, &deleted) {
            Some(fault) => Err(format!("{} has a vector {fault}", add["path"]).into()),
            None => Ok(deleted),
        }
    }
}

/// Returns the rows of a parquet file as JSON, without nulls.
fn json_rows(bytes: Bytes) -> TestResult<Vec<Value>> {
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()? {
        writer.write(&batch?)?;
    }
    writer.finish()?;
    lines(&writer.into_inner())
}

/// Checks the number of rows that the log tells of a file, and the bounds of its keys.
fn check_stats(add: &Value, rows: &[Row], keys: &Keys) -> TestResult {
    let Some(stats) = add["stats"].as_str() else { return Ok(()) };
    let stats: Value = serde_json::from_str(stats)?;
    if stats["numRecords"].as_u64() != Some(rows.len() as u64) {
        return Err(format!("has {} rows, the log says {}", rows.len(), stats["numRecords"]).into());
    }
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    keys.check_bounds(&stats, &ids)
}

pub(super) fn rows_of(batch: &RecordBatch, keys: &Keys) -> TestResult<Vec<Row>> {
    let integers = |name: &str| -> TestResult<Vec<Option<i64>>> {
        let Some(column) = batch.column_by_name(name) else { return Ok(vec![None; batch.num_rows()]) };
        Ok(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().iter().collect())
    };
    let sequence_name = if batch.column_by_name("seq").is_some() { "seq" } else { "_alluvium_sequence" };
    let (ids, sequences, offsets) = (keys.ids(batch)?, integers(sequence_name)?, integers("_alluvium_offset")?);
    let partitions: Vec<Option<i32>> = match batch.column_by_name("_alluvium_partition") {
        Some(column) => cast(column, &DataType::Int32)?.as_primitive::<Int32Type>().iter().collect(),
        None => vec![None; batch.num_rows()],
    };
    let notes = cast(batch.column_by_name("note").ok_or("a file has no note")?, &DataType::Utf8)?;
    let notes = notes.as_string::<i32>();
    let row = |index: usize| Row {
        id: ids[index],
        sequence: sequences[index],
        offset: offsets[index],
        partition: partitions[index],
        note: notes.is_valid(index).then(|| notes.value(index).to_owned()),
    };
    Ok((0..batch.num_rows()).map(row).collect())
}

/// Returns the path that the log writes as `logged`, which is a relative URL.
pub(super) fn unescape(logged: &str) -> TestResult<String> {
    let mut bytes = Vec::with_capacity(logged.len());
    let mut rest = logged.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        rest = others;
        if *first == b'%' {
            let (digits, others) = rest.split_at(2);
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits)?, 16)?);
            rest = others;
        } else {
            bytes.push(*first);
        }
    }
    Ok(String::from_utf8(bytes)?)
}
