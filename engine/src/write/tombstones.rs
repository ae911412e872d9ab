//! Remembers deletes beside the table, so that a late older row does not bring a deleted key back after a restart.
//!
//! Each batch with deletes writes one file, `_alluvium/tombstones/<id>.parquet`, before its commit, which names it: the
//! key columns, the sequence and the position of each delete, and whether it took a live row. It says of which table
//! and which SEQUENCE BY it is. Other processes of the flow read it when they follow the commit. A file whose commit did
//! not land tells of records that come again, so it does no harm. Vacuum of other engines leaves folders alone whose
//! names begin with an underscore.

use std::sync::Arc;

use alluvium_catalog::{Clock, Error, Location, Result};
use arrow::array::RecordBatch;
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::parquet::encode;

/// Files read at the same time: they are small, and a week of batches leaves very many.
const FILES_IN_FLIGHT: usize = 16;

/// Where the deletes of a table are remembered.
#[derive(Debug, Clone)]
pub struct TombstoneFolder {
    /// The store rooted at the table.
    pub store: Arc<dyn ObjectStore>,
    /// The table, for messages.
    pub location: Location,
    /// Names files.
    pub clock: Arc<dyn Clock>,
}

/// The deletes of one batch.
#[derive(Debug)]
pub struct Remembered {
    /// Key columns, then sequence, partition, offset, and whether a live row was taken.
    pub rows: RecordBatch,
    /// When they were staged, epoch milliseconds.
    pub at_ms: i64,
    /// The file that tells of them.
    pub path: Path,
    /// The text of the SEQUENCE BY whose values they have; `None` in files of versions that did not say.
    pub sequence_by: Option<String>,
    /// The id of the table that they are of; `None` in files of versions that did not say.
    pub table: Option<String>,
    /// Whether they were read with the commit that names them, and not found beside the table.
    pub has_landed: bool,
}

impl TombstoneFolder {
    const PREFIX: &'static str = "_alluvium/tombstones";

    /// The key of commitInfo that names the file with the commit's deletes.
    pub const KEY: &'static str = "alluvium.tombstones";

    /// The key of a file's schema metadata that has the text of SEQUENCE BY.
    pub const SEQUENCE: &'static str = "alluvium.sequence";

    /// The key of a file's schema metadata that has the id of the table.
    pub const TABLE: &'static str = "alluvium.table";

    /// Writes the deletes of a batch and returns the file's path, which the batch's commit has to name.
    ///
    /// # Errors
    /// `Unavailable` when the store does not take the file.
    pub async fn write(&self, rows: &RecordBatch) -> Result<String> {
        let (bytes, _) = encode(rows)?;
        let path = Path::from(format!("{}/{:013}-{}.parquet", Self::PREFIX, self.clock.now().0, self.clock.new_id()));
        match self.store.put(&path, bytes.into()).await {
            Ok(_) => Ok(path.to_string()),
            Err(cause) => Err(self.unavailable("write", &path, cause)),
        }
    }

    /// Reads the deletes of the commit whose commitInfo is `info`: another process of the flow may have made it, and its
    /// deletes bind this one as well. A file that is gone was forgotten: its retention is over.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer; `Data` when the file is damaged.
    pub async fn read_of_commit(&self, info: &Value) -> Result<Vec<Remembered>> {
        let Some(path) = info.get(Self::KEY).and_then(Value::as_str).map(Path::from) else { return Ok(Vec::new()) };
        let Some(at_ms) = moment(&path) else { return Ok(Vec::new()) };
        let read = self.read_file(at_ms, &path).await?;
        Ok(read.into_iter().map(|remembered| Remembered { has_landed: true, ..remembered }).collect())
    }

    /// Returns the deletes staged at or after `since_ms`, file by file, oldest first; a few files are read ahead, however
    /// many there are.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer; in the stream also `Data` when a file is damaged.
    pub async fn read(&self, since_ms: i64) -> Result<impl Stream<Item = Result<Vec<Remembered>>> + Send + use<>> {
        let files: Vec<_> = self.list().await?.into_iter().filter(|(at_ms, _)| *at_ms >= since_ms).collect();
        let folder = self.clone();
        let reads = futures::stream::iter(files).map(move |(at_ms, path)| {
            let folder = folder.clone();
            async move { folder.read_file(at_ms, &path).await }
        });
        Ok(reads.buffered(FILES_IN_FLIGHT))
    }

    /// Reads one file. One that is gone was forgotten by another process, perhaps a moment ago: its retention is over.
    async fn read_file(&self, at_ms: i64, path: &Path) -> Result<Vec<Remembered>> {
        let damaged = |cause: Box<dyn std::error::Error + Send + Sync>| {
            Error::data(format!("{path} of the table at {} is damaged", self.location)).with_source(cause)
        };
        let result = match self.store.get(path).await {
            Ok(result) => result,
            Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
            Err(cause) => return Err(self.unavailable("read", path, cause)),
        };
        let bytes = result.bytes().await.map_err(|cause| self.unavailable("read", path, cause))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|cause| damaged(cause.into()))?;
        // The batches come without it.
        let metadata = builder.schema().metadata();
        let (sequence_by, table) = (metadata.get(Self::SEQUENCE).cloned(), metadata.get(Self::TABLE).cloned());
        let reader = builder.build().map_err(|cause| damaged(cause.into()))?;
        let remember = |rows| match rows {
            Ok(rows) => Ok(Remembered {
                rows,
                at_ms,
                path: path.clone(),
                sequence_by: sequence_by.clone(),
                table: table.clone(),
                has_landed: false,
            }),
            Err(cause) => Err(damaged(Box::new(cause))),
        };
        reader.map(remember).collect()
    }

    /// Removes the files of deletes staged before `before_ms` and returns how many there were.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer.
    pub async fn forget(&self, before_ms: i64) -> Result<usize> {
        let old = self.list().await?.into_iter().filter(|(at_ms, _)| *at_ms < before_ms);
        let old: Vec<_> = old.map(|(_, path)| Ok(path)).collect();
        // A commit with deletes leaves one, so that a day has very many: the store removes many in one request.
        let mut removed = self.store.delete_stream(futures::stream::iter(old).boxed());
        let mut n_files = 0;
        while let Some(file) = removed.next().await {
            match file {
                Ok(_) => n_files += 1,
                // Another process forgets at the same time.
                Err(object_store::Error::NotFound { .. }) => {}
                Err(cause) => return Err(self.unavailable("remove files of", &Path::from(Self::PREFIX), cause)),
            }
        }
        Ok(n_files)
    }

    /// Returns the files with the moment in their names, oldest first.
    async fn list(&self) -> Result<Vec<(i64, Path)>> {
        let prefix = Path::from(Self::PREFIX);
        let files: Vec<_> = self
            .store
            .list(Some(&prefix))
            .try_collect()
            .await
            .map_err(|cause| self.unavailable("list", &prefix, cause))?;
        let mut dated: Vec<(i64, Path)> = files
            .into_iter()
            .filter_map(|file| {
                let at_ms = moment(&file.location)?;
                Some((at_ms, file.location))
            })
            .collect();
        dated.sort();
        Ok(dated)
    }

    fn unavailable(&self, verb: &str, path: &Path, cause: object_store::Error) -> Error {
        Error::unavailable(format!("cannot {verb} {path} of the table at {}", self.location)).with_source(cause)
    }
}

/// Returns the moment in a file's name.
fn moment(path: &Path) -> Option<i64> {
    path.filename()?.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use alluvium_catalog::{ErrorKind, ManualClock, Timestamp};
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use async_trait::async_trait;

    use super::*;
    use crate::hooked_store::{Hook, HookedStore};

    const BEGIN_MS: i64 = 1_800_000_000_000;

    /// Counts reads, and how many are under way at once.
    #[derive(Debug, Default)]
    struct Counting {
        n_reads: AtomicUsize,
        n_reading: AtomicUsize,
        n_reading_max: AtomicUsize,
    }

    #[async_trait]
    impl Hook for Counting {
        async fn before_read(&self) {
            self.n_reads.fetch_add(1, Ordering::SeqCst);
            let n_reading = self.n_reading.fetch_add(1, Ordering::SeqCst) + 1;
            self.n_reading_max.fetch_max(n_reading, Ordering::SeqCst);
            // Whoever reads at the same time has begun by then.
            tokio::task::yield_now().await;
        }

        fn after_read(&self) {
            self.n_reading.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn folder(store: &Arc<HookedStore<Counting>>, clock: &Arc<ManualClock>) -> Result<TombstoneFolder> {
        Ok(TombstoneFolder {
            store: Arc::clone(store) as Arc<dyn ObjectStore>,
            location: "memory:///t".parse()?,
            clock: Arc::clone(clock) as Arc<dyn Clock>,
        })
    }

    /// Returns the delete of one key.
    fn delete_of(key: i64) -> Result<RecordBatch> {
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![key]));
        RecordBatch::try_from_iter([("id", keys)]).map_err(|cause| Error::internal("no batch").with_source(cause))
    }

    #[tokio::test]
    async fn very_many_sidecars_are_read_oldest_first_and_a_few_at_a_time() -> Result<()> {
        const N_FILES: i64 = 150;
        const N_OLD: i64 = 50;
        let (store, clock) =
            (Arc::<HookedStore<Counting>>::default(), Arc::new(ManualClock::new(1, Timestamp(BEGIN_MS))));
        let folder = folder(&store, &clock)?;
        for key in 0..N_FILES {
            folder.write(&delete_of(key)?).await?;
            clock.advance(Duration::from_millis(1));
        }
        let read: Vec<Vec<Remembered>> = folder.read(BEGIN_MS + N_OLD).await?.try_collect().await?;
        let key = |deletes: &Remembered| deletes.rows.column(0).as_primitive::<Int64Type>().value(0);
        let found: Vec<(i64, i64)> = read.iter().flatten().map(|deletes| (key(deletes), deletes.at_ms)).collect();
        assert_eq!(found, (N_OLD..N_FILES).map(|key| (key, BEGIN_MS + key)).collect::<Vec<_>>());
        assert_eq!(store.hook.n_reading_max.load(Ordering::SeqCst), FILES_IN_FLIGHT);
        Ok(())
    }

    #[tokio::test]
    async fn a_sidecar_that_another_process_removes_before_it_is_read_was_forgotten() -> Result<()> {
        let (store, clock) =
            (Arc::<HookedStore<Counting>>::default(), Arc::new(ManualClock::new(1, Timestamp(BEGIN_MS))));
        let folder = folder(&store, &clock)?;
        let mut paths = Vec::new();
        for key in 0..3 {
            paths.push(folder.write(&delete_of(key)?).await?);
            clock.advance(Duration::from_millis(1));
        }
        let listed = folder.read(0).await?;
        let removed = store.delete(&Path::from(paths[1].as_str())).await;
        removed.map_err(|cause| Error::internal("the file cannot be removed").with_source(cause))?;
        let read: Vec<Vec<Remembered>> = listed.try_collect().await?;
        let key = |deletes: &Remembered| deletes.rows.column(0).as_primitive::<Int64Type>().value(0);
        assert_eq!(read.iter().flatten().map(key).collect::<Vec<_>>(), [0, 2]);

        let info = |path: &String| serde_json::json!({(TombstoneFolder::KEY): path});
        assert!(folder.read_of_commit(&info(&paths[1])).await?.is_empty());
        let n_before = store.hook.n_reads.load(Ordering::SeqCst);
        assert_eq!(folder.read_of_commit(&info(&paths[2])).await?.len(), 1);
        let n_reads = store.hook.n_reads.load(Ordering::SeqCst) - n_before;
        assert_eq!(n_reads, 1, "between a first look and the read another process may remove the file");
        Ok(())
    }

    #[tokio::test]
    async fn a_damaged_sidecar_is_bad_data_and_named() -> Result<()> {
        let (store, clock) =
            (Arc::<HookedStore<Counting>>::default(), Arc::new(ManualClock::new(1, Timestamp(BEGIN_MS))));
        let folder = folder(&store, &clock)?;
        let path = folder.write(&delete_of(1)?).await?;
        let put = store.put(&Path::from(path.as_str()), "no parquet".into()).await;
        put.map_err(|cause| Error::internal("the file cannot be damaged").with_source(cause))?;
        let read = folder.read(0).await?.try_collect::<Vec<_>>().await;
        let refused = read.map(drop).map_err(|error| (error.kind(), error.to_string()));
        assert!(matches!(&refused, Err((ErrorKind::Data, text)) if text.contains(&path)), "{refused:?}");
        Ok(())
    }
}
