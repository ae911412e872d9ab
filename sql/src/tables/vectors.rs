//! Deletion vectors: which rows of a data file are no longer part of the table.
//!
//! A vector is read once for all queries of a [`TableReader`](super::TableReader): it never changes, since another
//! vector has another id. Where few runs say which rows are left, the parquet reader is given them, and skips what lies
//! between without decoding it. Where deletes are scattered it would decode all rows and filter them, which
//! [`LiveRowsExec`](super::live_rows::LiveRowsExec) does at less cost.
//! Source: Delta transaction log protocol, sections "Deletion Vectors" and "Deletion Vector Format".

use std::fmt;
use std::sync::Arc;

use alluvium_catalog::{Error, Location, Result, storage_error};
use arrow::array::BooleanBufferBuilder;
use arrow::buffer::BooleanBuffer;
use datafusion::common::TableReference;
use datafusion::datasource::physical_plan::parquet::ParquetRowSelection;
use datafusion::execution::cache::default_cache::DefaultCache;
use datafusion::execution::cache::{Cache, CacheKey, CacheValue};
use datafusion::parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use deltalake::kernel::{DeletionVectorDescriptor, StorageType};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use roaring::RoaringTreemap;
use uuid::Uuid;

/// How many bytes of vectors are kept: at a bit per row, which is the most, those of 500 million rows.
const CACHE_BYTES_MAX: usize = 64 << 20;

/// Begins every serialised vector, little endian.
const MAGIC: u32 = 1_681_511_377;

/// The length of a UUID in base 85.
const UUID_CHARS: usize = 20;

/// A vector in a file has its size before it and its checksum behind it, four bytes each.
const FRAME_BYTES: u64 = 4;

/// Where a table is, for its vectors.
#[derive(Debug, Clone)]
pub(super) struct VectorSource {
    /// The store that holds the table, from its root.
    pub(super) store: Arc<dyn ObjectStore>,
    /// The table.
    pub(super) location: Location,
}

/// The vectors that were read last.
pub(super) struct VectorCache {
    kept: DefaultCache<VectorKey, Deleted>,
}

impl VectorCache {
    /// Returns a cache that holds nothing.
    pub(super) fn new() -> Self {
        Self { kept: DefaultCache::new(CACHE_BYTES_MAX) }
    }

    /// Returns the rows, of the `n_rows` of a data file, that the vector of `descriptor` marks.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer; `Data` when the vector is damaged, lies outside the table, or deletes
    /// rows that the file does not have.
    pub(super) async fn deleted(
        &self,
        source: &VectorSource,
        descriptor: &DeletionVectorDescriptor,
        n_rows: u64,
    ) -> Result<Deleted> {
        let key = VectorKey(format!(
            "{}\n{}{}@{}\n{n_rows}",
            source.location,
            descriptor.storage_type,
            descriptor.path_or_inline_dv,
            descriptor.offset.unwrap_or_default()
        ));
        if let Some(found) = self.kept.get(&key) {
            return Ok(found);
        }
        let deleted = source.read(descriptor).await?;
        if deleted.max().is_some_and(|last| last >= n_rows) {
            return Err(source.damaged(&format!("deletes row {:?} of a file of {n_rows} rows", deleted.max())));
        }
        let n_rows = usize::try_from(n_rows).map_err(|_| source.damaged("is for a file too large for this machine"))?;
        let deleted = Deleted::new(&deleted, n_rows);
        self.kept.put(&key, deleted.clone());
        Ok(deleted)
    }
}

impl fmt::Debug for VectorCache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("VectorCache").field("bytes", &self.kept.memory_used()).finish_non_exhaustive()
    }
}

/// Table, vector and number of rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct VectorKey(String);

impl CacheKey for VectorKey {
    fn size(&self) -> usize {
        self.0.len()
    }

    fn table_ref(&self) -> Option<&TableReference> {
        None
    }
}

/// The rows of a data file that are deleted, in the shape in which they are left out.
#[derive(Debug, Clone)]
pub(super) enum Deleted {
    /// The reader is to read the rows between them, in few runs.
    Between(Arc<ParquetRowSelection>, usize),
    /// They are left out after all were read: a bit for each row of the file, set where it lives.
    Scattered(BooleanBuffer),
}

impl Deleted {
    /// Returns the shape for `deleted` rows of a file of `n_rows`: runs where they take no more bytes than a bit a row.
    fn new(deleted: &RoaringTreemap, n_rows: usize) -> Self {
        let n_runs_max = n_rows.div_ceil(8) / size_of::<RowSelector>();
        match runs(deleted.iter(), n_rows, n_runs_max) {
            Some(runs) => {
                let n_bytes = runs.len() * size_of::<RowSelector>();
                Self::Between(Arc::new(ParquetRowSelection::new(RowSelection::from(runs))), n_bytes)
            }
            None => Self::Scattered(live_bits(deleted, n_rows)),
        }
    }
}

impl CacheValue for Deleted {
    fn size(&self) -> usize {
        match self {
            Self::Between(_, n_bytes) => *n_bytes,
            Self::Scattered(live) => live.inner().len(),
        }
    }
}

/// Returns a bit for each of `n_rows` rows, set where it is not among `deleted`, of which none is behind them.
pub(super) fn live_bits(deleted: &RoaringTreemap, n_rows: usize) -> BooleanBuffer {
    let mut live = BooleanBufferBuilder::new(n_rows);
    live.append_n(n_rows, true);
    for row in deleted.iter().filter_map(|row| usize::try_from(row).ok()) {
        live.set_bit(row, false);
    }
    live.finish()
}

/// Returns the runs of rows to skip and to read around the `deleted` ones, which ascend; `None`, without looking
/// further, once there are more than `n_runs_max`.
fn runs(deleted: impl Iterator<Item = u64>, n_rows: usize, n_runs_max: usize) -> Option<Vec<RowSelector>> {
    let mut runs = Vec::new();
    let (mut begin, mut end) = (0, 0);
    // `begin..end` is the run of deleted rows that was seen last.
    for row in deleted.filter_map(|row| usize::try_from(row).ok()) {
        if row > end || end == begin {
            if end > begin {
                runs.push(RowSelector::skip(end - begin));
            }
            if row > end {
                runs.push(RowSelector::select(row - end));
            }
            if runs.len() > n_runs_max {
                return None;
            }
            begin = row;
        }
        end = row + 1;
    }
    if end > begin {
        runs.push(RowSelector::skip(end - begin));
    }
    if n_rows > end {
        runs.push(RowSelector::select(n_rows - end));
    }
    (runs.len() <= n_runs_max).then_some(runs)
}

impl VectorSource {
    /// Reads the vector of `descriptor`: the part of its file that holds it, or what the log holds inline.
    async fn read(&self, descriptor: &DeletionVectorDescriptor) -> Result<RoaringTreemap> {
        let size = u64::try_from(descriptor.size_in_bytes).map_err(|_| self.damaged("has a negative size"))?;
        let vector = match descriptor.storage_type {
            StorageType::Inline => {
                let bytes =
                    z85::decode(&descriptor.path_or_inline_dv).map_err(|_| self.damaged("is not in base 85"))?;
                // Base 85 pads to a multiple of four bytes.
                let end = usize::try_from(size).unwrap_or(usize::MAX).min(bytes.len());
                self.decode(&bytes[..end])?
            }
            StorageType::UuidRelativePath => {
                let path = relative_path(&descriptor.path_or_inline_dv)
                    .ok_or_else(|| self.damaged("has a path that cannot be read"))?;
                let path: Path = self.location.path().parts().chain(path.parts()).collect();
                let start =
                    u64::try_from(descriptor.offset.unwrap_or(1)).map_err(|_| self.damaged("has a negative offset"))?;
                let framed =
                    self.store.get_range(&path, start..start + size + 2 * FRAME_BYTES).await.map_err(|cause| {
                        storage_error(
                            format!("cannot read the deletion vector {path} of the table at {}", self.location),
                            cause,
                        )
                    })?;
                let body = unframe(&framed, descriptor.size_in_bytes);
                let body = body.map_err(|why| self.damaged_file(&path, why))?;
                self.decode(body)?
            }
            StorageType::AbsolutePath => return Err(self.damaged("lies outside the table, as in a shallow clone")),
        };
        if vector.len() == u64::try_from(descriptor.cardinality).unwrap_or(u64::MAX) {
            return Ok(vector);
        }
        Err(self.damaged(&format!("has {} rows where the log says {}", vector.len(), descriptor.cardinality)))
    }

    fn decode(&self, bytes: &[u8]) -> Result<RoaringTreemap> {
        let body =
            bytes.strip_prefix(&MAGIC.to_le_bytes()).ok_or_else(|| self.damaged("does not begin with its mark"))?;
        RoaringTreemap::deserialize_from(body).map_err(|cause| self.damaged("is damaged").with_source(cause))
    }

    fn damaged(&self, why: &str) -> Error {
        Error::data(format!("a deletion vector of the table at {} {why}", self.location))
    }

    fn damaged_file(&self, path: &Path, why: &str) -> Error {
        Error::data(format!("a deletion vector in {path} of the table at {} {why}", self.location))
    }
}

/// Checks size and checksum of a vector from a file, and returns what lies between; else what is wrong.
fn unframe(framed: &[u8], size: i32) -> std::result::Result<&[u8], &'static str> {
    let (head, rest) = framed.split_first_chunk().ok_or("is cut off")?;
    let (body, tail) = rest.split_last_chunk().ok_or("is cut off")?;
    if i32::from_be_bytes(*head) != size {
        return Err("has another size than the log says");
    }
    if u32::from_be_bytes(*tail) != crc32fast::hash(body) {
        return Err("does not have its checksum");
    }
    Ok(body)
}

/// Returns the file that the base 85 text of a prefix and a UUID stands for.
fn relative_path(encoded: &str) -> Option<Path> {
    let (prefix, id) = encoded.split_at_checked(encoded.len().checked_sub(UUID_CHARS)?)?;
    let id = Uuid::from_slice(&z85::decode(id).ok()?).ok()?;
    let folder = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    Some(Path::from(format!("{folder}deletion_vector_{id}.bin")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_leave_the_rows_that_are_not_deleted() {
        let check = |deleted: &[u64], n_rows: usize| {
            let deleted = RoaringTreemap::from_iter(deleted.iter().copied());
            let expected: Vec<bool> = (0..n_rows).map(|row| !deleted.contains(row as u64)).collect();
            let runs = runs(deleted.iter(), n_rows, n_rows);
            let flat: Vec<bool> =
                runs.iter().flatten().flat_map(|run| std::iter::repeat_n(!run.skip, run.row_count)).collect();
            assert_eq!(flat, expected);
        };
        check(&[], 3);
        check(&[0], 1);
        check(&[0, 1, 2], 3);
        check(&[0, 1, 4], 6);
        check(&[2], 6);
        check(&[1, 3, 5], 6);
        check(&[5], 6);
    }

    #[test]
    fn runs_are_no_longer_looked_for_once_they_are_too_many() {
        // Two runs for each deleted row, one to read and one to skip.
        let odd = || (0..1_000).map(|number| number * 2 + 1);
        assert_eq!(runs(odd(), 2_000, 2_000).map(|runs| runs.len()), Some(2_000));
        assert_eq!(runs(odd(), 2_000, 1_999), None);
        let mut n_seen = 0;
        assert_eq!(runs(odd().inspect(|_| n_seen += 1), 2_000, 10), None);
        assert_eq!(n_seen, 6, "more rows were looked at than it takes to find eleven runs");
    }

    #[test]
    fn few_runs_are_skipped_by_the_reader_and_scattered_rows_left_out_after_it() {
        let scattered = Deleted::new(&RoaringTreemap::from_iter((0..1_000).map(|row| row * 3)), 3_000);
        assert!(matches!(&scattered, Deleted::Scattered(live) if live.count_set_bits() == 2_000));
        let one_run = Deleted::new(&RoaringTreemap::from_iter(10..900), 3_000);
        assert!(matches!(one_run, Deleted::Between(_, n_bytes) if n_bytes == 3 * size_of::<RowSelector>()));
    }
}
