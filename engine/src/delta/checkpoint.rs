//! Reads checkpoints of a Delta log: version 1 in one file or in parts, version 2 with its top file and sidecars.
//!
//! Of several checkpoints of one version one is read. Only what a writer needs is taken out of the files: Removes, and
//! statistics in struct form, stay where they are. Source: Delta transaction log protocol, section "Checkpoints".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alluvium_catalog::{Error, Location, Result};
use arrow::array::RecordBatch;
use arrow::json::writer::{LineDelimited, WriterBuilder};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use serde_json::{Map, Value};

use super::action::Action;
use super::log::{DeltaLog, Version, unread};
use crate::object_file::{ObjectFile, read_error};

/// Files of one checkpoint read at the same time.
const FILES_IN_FLIGHT: usize = 4;

/// The actions that are read.
const WANTED: [&str; 6] = ["txn", "add", "metaData", "protocol", "domainMetadata", "sidecar"];

/// One whole checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Checkpoint {
    /// Parquet files that hold all rows between them, and perhaps name sidecars.
    Parquet(Vec<ObjectMeta>),
    /// A version 2 checkpoint whose top file is JSON.
    Json(ObjectMeta),
}

/// The rows of a checkpoint's file.
#[derive(Debug, Default)]
struct Rows {
    actions: Vec<Action>,
    /// The files that hold the other actions, by their names in the folder of sidecars.
    sidecars: Vec<Sidecar>,
}

/// A file of actions that a version 2 checkpoint names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// Its path from the table's root.
    pub path: Path,
    size: u64,
}

impl DeltaLog {
    /// Reads the newest checkpoint: its version and its protocol, metadata, files and transactions; `None` when there is
    /// none. The log's hint only says from where on to look: a newer one may have lost its hint, and whoever has cleaned up
    /// to it may have left the one before and none of the versions between. Without the hint all is looked through, whatever
    /// versions there are: clean-up that was stopped half way may have left the first one, and not those behind it.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer, `Data` when the checkpoint cannot be read.
    pub async fn read_checkpoint(&self) -> Result<Option<(Version, Vec<Action>)>> {
        let Some(hinted) = self.last_checkpoint().await? else { return self.find_checkpoint().await };
        let reader = Reader { store: self.store(), location: self.location() };
        match choose_newest(reader.list_from(hinted).await?) {
            Some((version, checkpoint)) => reader.whole(&checkpoint).await.map(|actions| Some((version, actions))),
            None => match self.find_checkpoint().await? {
                Some(found) => Ok(Some(found)),
                None => Err(self.no_checkpoint(hinted)),
            },
        }
    }

    /// Returns the version of the newest checkpoint that a LIST finds; `None` when there is none.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer.
    pub(super) async fn listed_checkpoint(&self) -> Result<Option<Version>> {
        let reader = Reader { store: self.store(), location: self.location() };
        Ok(choose_newest(reader.list_all().await?).map(|(version, _)| version))
    }

    /// Reads the newest checkpoint that a LIST finds, whatever the log's hint says; `None` when there is none.
    async fn find_checkpoint(&self) -> Result<Option<(Version, Vec<Action>)>> {
        let reader = Reader { store: self.store(), location: self.location() };
        match choose_newest(reader.list_all().await?) {
            Some((version, checkpoint)) => reader.whole(&checkpoint).await.map(|actions| Some((version, actions))),
            None => Ok(None),
        }
    }

    /// Reads the checkpoint of `version`.
    ///
    /// # Errors
    /// As of [`read_checkpoint`](Self::read_checkpoint); `Data` when there is no whole one.
    pub async fn read_checkpoint_of(&self, version: Version) -> Result<Vec<Action>> {
        let reader = Reader { store: self.store(), location: self.location() };
        let checkpoint = choose(version, reader.list(version).await?).ok_or_else(|| self.no_checkpoint(version))?;
        reader.whole(&checkpoint).await
    }

    fn no_checkpoint(&self, version: Version) -> Error {
        Error::data(format!("the log of {} names checkpoint {version}, but no such file exists", self.location()))
    }

    /// Returns the sidecars that the checkpoint in `file` names.
    ///
    /// # Errors
    /// As of [`read_checkpoint`](Self::read_checkpoint).
    pub async fn sidecars_of(&self, file: &ObjectMeta) -> Result<Vec<Sidecar>> {
        let reader = Reader { store: self.store(), location: self.location() };
        let is_json = file.location.as_ref().ends_with(".json");
        let checkpoint = if is_json { Checkpoint::Json(file.clone()) } else { Checkpoint::Parquet(vec![file.clone()]) };
        reader.rows(&checkpoint, &["sidecar"]).await.map(|rows| rows.sidecars)
    }
}

/// Reads the files of one log.
#[derive(Debug, Clone, Copy)]
struct Reader<'a> {
    store: &'a Arc<dyn ObjectStore>,
    location: &'a Location,
}

impl Reader<'_> {
    /// Lists the files of the checkpoints of `version`.
    async fn list(&self, version: Version) -> Result<Vec<ObjectMeta>> {
        let prefix = format!("{version:020}.checkpoint");
        self.outside_of_sidecars(self.listed_from(version), |name| name.starts_with(&prefix)).await
    }

    /// Lists the files of the checkpoints from `version` on.
    async fn list_from(&self, version: Version) -> Result<Vec<ObjectMeta>> {
        self.outside_of_sidecars(self.listed_from(version), is_of_checkpoint).await
    }

    /// Lists the files of all checkpoints.
    async fn list_all(&self) -> Result<Vec<ObjectMeta>> {
        let listed = self.store.list(Some(&Path::from("_delta_log")));
        self.outside_of_sidecars(listed, is_of_checkpoint).await
    }

    fn listed_from(&self, version: Version) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let (folder, before) = (Path::from("_delta_log"), Path::from(format!("_delta_log/{version:020}")));
        self.store.list_with_offset(Some(&folder), &before)
    }

    async fn outside_of_sidecars(
        &self,
        mut listed: BoxStream<'static, object_store::Result<ObjectMeta>>,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<ObjectMeta>> {
        let mut files = Vec::new();
        while let Some(file) =
            listed.try_next().await.map_err(|cause| unread(self.location, ("read", "_delta_log"), cause))?
        {
            if file.location.filename().is_some_and(&is_wanted) && !is_sidecar(&file.location) {
                files.push(file);
            }
        }
        Ok(files)
    }

    /// Reads a checkpoint with its sidecars.
    async fn whole(&self, checkpoint: &Checkpoint) -> Result<Vec<Action>> {
        let Rows { mut actions, sidecars } = self.top(checkpoint).await?;
        let reads: Vec<_> = sidecars.into_iter().map(|sidecar| self.sidecar(sidecar)).collect();
        let mut files = futures::stream::iter(reads).buffered(FILES_IN_FLIGHT);
        while let Some(rows) = files.try_next().await? {
            actions.extend(rows.actions);
        }
        Ok(actions)
    }

    async fn top(&self, checkpoint: &Checkpoint) -> Result<Rows> {
        self.rows(checkpoint, &WANTED).await
    }

    async fn rows(&self, checkpoint: &Checkpoint, wanted: &[&str]) -> Result<Rows> {
        let mut rows = Rows::default();
        match checkpoint {
            Checkpoint::Json(file) => {
                let result = self.store.get(&file.location).await;
                let bytes = match result {
                    Ok(result) => result.bytes().await,
                    Err(cause) => Err(cause),
                };
                let bytes = bytes.map_err(|cause| unread(self.location, ("read", file.location.as_ref()), cause))?;
                self.read_lines(&bytes, wanted, &mut rows)?;
            }
            Checkpoint::Parquet(files) => {
                let reads: Vec<_> = files.iter().map(|file| self.parquet(&file.location, file.size, wanted)).collect();
                let mut files = futures::stream::iter(reads).buffered(FILES_IN_FLIGHT);
                while let Some(part) = files.try_next().await? {
                    rows.actions.extend(part.actions);
                    rows.sidecars.extend(part.sidecars);
                }
            }
        }
        Ok(rows)
    }

    async fn sidecar(&self, sidecar: Sidecar) -> Result<Rows> {
        self.parquet(&sidecar.path, sidecar.size, &WANTED).await
    }

    async fn parquet(&self, path: &Path, size: u64, wanted: &[&str]) -> Result<Rows> {
        let failed = |cause: parquet::errors::ParquetError| {
            read_error(format!("cannot read checkpoint {path} of {}", self.location), cause)
        };
        let reader = ObjectFile::new(Arc::clone(self.store), path.clone(), size);
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(failed)?;
        let columns = builder.parquet_schema().root_schema().get_fields();
        let kept =
            (0..columns.len()).filter(|index| columns.get(*index).is_some_and(|own| wanted.contains(&own.name())));
        let mask = ProjectionMask::roots(builder.parquet_schema(), kept);
        let mut batches = builder.with_projection(mask).build().map_err(failed)?;
        let mut rows = Rows::default();
        while let Some(batch) = batches.try_next().await.map_err(failed)? {
            self.read_lines(&self.lines(&batch)?, wanted, &mut rows)?;
        }
        Ok(rows)
    }

    fn lines(&self, batch: &RecordBatch) -> Result<Vec<u8>> {
        let mut lines = Vec::new();
        let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut lines);
        writer.write(batch).map_err(|cause| self.damaged(cause))?;
        writer.finish().map_err(|cause| self.damaged(cause))?;
        drop(writer);
        Ok(lines)
    }

    fn read_lines(&self, lines: &[u8], wanted: &[&str], rows: &mut Rows) -> Result<()> {
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.iter().all(u8::is_ascii_whitespace)) {
            let row: Map<String, Value> = serde_json::from_slice(line).map_err(|cause| self.damaged(cause))?;
            for (kind, body) in
                row.into_iter().filter(|(kind, body)| wanted.contains(&kind.as_str()) && !body.is_null())
            {
                if kind == "sidecar" {
                    rows.sidecars.push(self.sidecar_of(&body)?);
                    continue;
                }
                let action = Action::parse(&kind, without_nulls(body)).map_err(|cause| self.damaged(cause))?;
                rows.actions.extend(action);
            }
        }
        Ok(())
    }

    fn sidecar_of(&self, body: &Value) -> Result<Sidecar> {
        let refused = |why: &str| Error::data(format!("a checkpoint of {} names a sidecar {why}", self.location));
        let name = body.get("path").and_then(Value::as_str).ok_or_else(|| refused("without a path"))?;
        if name.contains("://") || name.contains("..") {
            return Err(refused("outside of the table"));
        }
        let name = name.trim_start_matches("_delta_log/_sidecars/").trim_start_matches("_sidecars/");
        let path = Path::parse(format!("_delta_log/_sidecars/{name}"))
            .map_err(|cause| refused("whose path cannot be read").with_source(cause))?;
        let size = body.get("sizeInBytes").and_then(Value::as_u64).ok_or_else(|| refused("without a size"))?;
        Ok(Sidecar { path, size })
    }

    fn damaged(&self, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::data(format!("cannot read a checkpoint of {}", self.location)).with_source(cause)
    }
}

/// Tells whether a file lies in the folder of sidecars.
pub fn is_sidecar(path: &Path) -> bool {
    path.as_ref().contains("_delta_log/_sidecars/")
}

fn is_of_checkpoint(name: &str) -> bool {
    name.contains(".checkpoint.")
}

/// Returns the newest version among `files` of which there is a whole checkpoint, and the one to read.
fn choose_newest(files: Vec<ObjectMeta>) -> Option<(Version, Checkpoint)> {
    let mut by_version: BTreeMap<Version, Vec<ObjectMeta>> = BTreeMap::new();
    for file in files {
        let name = file.location.filename().unwrap_or_default();
        let version = name.split_once(".checkpoint.").and_then(|(version, _)| version.parse().ok());
        if let Some(version) = version {
            by_version.entry(version).or_default().push(file);
        }
    }
    by_version.into_iter().rev().find_map(|(version, files)| Some((version, choose(version, files)?)))
}

/// Returns the checkpoint of `version` to read among `files`: one file before parts, and parts only when all are there.
fn choose(version: Version, files: Vec<ObjectMeta>) -> Option<Checkpoint> {
    let stem = format!("{version:020}.checkpoint.");
    let mut named: Vec<(String, ObjectMeta)> = files
        .into_iter()
        .filter_map(|file| Some((file.location.filename()?.strip_prefix(&stem)?.to_owned(), file)))
        .collect();
    named.sort_by(|(one, _), (other, _)| one.cmp(other));
    if let Some((_, classic)) = named.iter().find(|(name, _)| name == "parquet") {
        return Some(Checkpoint::Parquet(vec![classic.clone()]));
    }
    let is_uuid = |name: &str| name.split('.').next().is_some_and(|part| part.len() == 36);
    if let Some((name, file)) = named.iter().find(|(name, _)| is_uuid(name)) {
        let is_json = name.ends_with(".json");
        return Some(if is_json { Checkpoint::Json(file.clone()) } else { Checkpoint::Parquet(vec![file.clone()]) });
    }
    let total_of = |name: &str| name.split('.').nth(1).and_then(|part| part.parse::<usize>().ok());
    let totals: BTreeSet<usize> = named.iter().filter_map(|(name, _)| total_of(name)).collect();
    let parts_of = |total: usize| {
        let parts = named.iter().filter(|(name, _)| total_of(name) == Some(total)).map(|(_, file)| file.clone());
        parts.collect::<Vec<ObjectMeta>>()
    };
    let whole = totals.into_iter().map(|total| (total, parts_of(total))).find(|(total, parts)| parts.len() == *total);
    whole.map(|(_, parts)| Checkpoint::Parquet(parts))
}

/// Removes null fields below the first level, but keeps nulls inside the maps of partition values, where they mean NULL.
fn without_nulls(body: Value) -> Value {
    let Value::Object(fields) = body else { return body };
    let kept = fields.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| {
        let value = if name == "partitionValues" { value } else { without_nulls(value) };
        (name, value)
    });
    Value::Object(kept.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str]) -> Option<Vec<String>> {
        let files = names.iter().map(|name| ObjectMeta {
            location: Path::from(format!("_delta_log/00000000000000000007.checkpoint.{name}")),
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size: 1,
            e_tag: None,
            version: None,
        });
        let files = match choose(7, files.collect())? {
            Checkpoint::Json(file) => vec![file],
            Checkpoint::Parquet(files) => files,
        };
        Some(files.iter().filter_map(|file| file.location.filename()?.get(32..)).map(str::to_owned).collect())
    }

    #[test]
    fn of_several_checkpoints_of_a_version_one_whole_is_read() {
        let uuid = "016ae953-37a9-438e-8683-9a9a4a79a395.json";
        let part = |index: usize| format!("000000000{index}.0000000002.parquet");
        assert_eq!(chosen(&[uuid, "parquet"]), Some(vec!["parquet".to_owned()]));
        assert_eq!(chosen(&[uuid, &part(1)]), Some(vec![uuid.to_owned()]));
        assert_eq!(chosen(&[&part(1), &part(2)]), Some(vec![part(1), part(2)]));
        assert_eq!(chosen(&[&part(1)]), None, "a part is missing");
        let of_a_dead_writer = "0000000001.0000000003.parquet";
        assert_eq!(chosen(&[of_a_dead_writer, &part(1), &part(2)]), Some(vec![part(1), part(2)]));
        assert_eq!(chosen(&[]), None);
    }
}
