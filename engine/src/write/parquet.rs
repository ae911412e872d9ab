//! Encodes rows as parquet and uploads them: one file a partition, in the order of the rows.
//!
//! A row's place in its file is its place in the part, which is what deletion vectors and the key index count by. A
//! file that is uploaded is not part of the table until a commit says so; one that no commit names is an orphan for
//! vacuum.

mod dictionary;
mod encode;
mod nan;

use std::sync::Arc;
use std::thread;

use alluvium_catalog::{Clock, Error, Location, Result};
use arrow::array::RecordBatch;
use bytes::Bytes;
use deltalake::kernel::Add;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

pub(super) use dictionary::{ROWS_SAMPLED, columns_without_dictionary};
pub(super) use encode::ColumnFacts;
pub use encode::encode;
pub(super) use nan::columns_with_nan;

use super::partition::{self, Part, PartitionValues};
use super::stats::stats_json;

/// Files encoded and uploaded at the same time, where there are not more cores than that.
const FILES_IN_FLIGHT: usize = 4;

/// Where data files go.
#[derive(Debug, Clone)]
pub struct DataFolder {
    /// The store rooted at the table.
    pub store: Arc<dyn ObjectStore>,
    /// The table, for messages.
    pub location: Location,
    /// The partition columns.
    pub partitioned_by: Vec<String>,
    /// Names and dates files.
    pub clock: Arc<dyn Clock>,
}

/// A file that was uploaded and waits for its commit.
#[derive(Debug, Clone)]
pub struct DataFile {
    /// The action that makes it part of the table.
    pub add: Add,
    /// The index, in the batch that was written, of each of its rows.
    pub indices: Vec<u32>,
}

impl DataFile {
    /// Returns its bytes.
    pub fn bytes(&self) -> u64 {
        u64::try_from(self.add.size).unwrap_or_default()
    }
}

impl DataFolder {
    /// Writes `rows` and returns the files, one a partition that occurs.
    ///
    /// # Errors
    /// `Unavailable` when the store does not take a file; `Internal` when rows cannot be encoded.
    pub async fn write(&self, rows: &RecordBatch) -> Result<Vec<DataFile>> {
        if rows.num_rows() == 0 {
            return Ok(Vec::new());
        }
        let parts = partition::split(rows, &self.partitioned_by)?;
        let n_in_flight = match parts.len() {
            ..=FILES_IN_FLIGHT => FILES_IN_FLIGHT,
            _ => thread::available_parallelism().map_or(FILES_IN_FLIGHT, |cores| cores.get().max(FILES_IN_FLIGHT)),
        };
        let writes: Vec<_> = parts.into_iter().map(|part| self.write_part(part)).collect();
        futures::stream::iter(writes).buffered(n_in_flight).try_collect().await
    }

    async fn write_part(&self, part: Part) -> Result<DataFile> {
        let Part { values, rows, indices } = part;
        let (bytes, stats) = tokio::task::spawn_blocking(move || -> Result<_> {
            let (bytes, footer) = encode(&rows)?;
            let stats = stats_json(&rows, &footer)?;
            Ok((bytes, stats))
        })
        .await
        .map_err(|cause| Error::internal("the encoder stopped").with_source(cause))??;
        let add = self.upload(bytes, stats, values).await?;
        Ok(DataFile { add, indices })
    }

    /// Uploads one file of a partition and returns the action that would make it part of the table.
    ///
    /// # Errors
    /// `Unavailable` when the store does not take it.
    pub(crate) async fn upload(&self, bytes: Bytes, stats: String, values: PartitionValues) -> Result<Add> {
        let folder = partition::folder(&self.partitioned_by, &values);
        let path = format!("{folder}part-{}.zstd.parquet", self.clock.new_id());
        let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        // Parsed, as Path::from would escape a folder's escapes again.
        let place =
            Path::parse(&path).map_err(|cause| Error::internal("a data file has no path").with_source(cause))?;
        self.store.put(&place, bytes.into()).await.map_err(|cause| {
            Error::unavailable(format!("cannot write {path} of the table at {}", self.location)).with_source(cause)
        })?;
        Ok(Add {
            path,
            partition_values: values,
            size,
            modification_time: self.clock.now().0,
            data_change: true,
            stats: Some(stats),
            ..Add::default()
        })
    }
}

#[cfg(test)]
mod tests;
