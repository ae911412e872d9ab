//! Writes data files anew without rows that are gone: copy-on-write does it to the files that a batch touches, and a swap
//! to compacted files of which rows have left meanwhile.
//!
//! Rows keep their order and all their columns, the hidden ones too. Several files are written at the same time, each on
//! a thread of its own; a file costs the memory of one row group that is read and of its encoded bytes, and all together
//! take no more at once than [`ROOM_MIB`] allows. What is written is in no version yet, and an orphan for vacuum if none
//! takes it.

use std::sync::Arc;
use std::thread::available_parallelism;

use alluvium_catalog::{Error, Result};
use arrow::datatypes::{Schema, SchemaRef};
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryIntoArrow;
use futures::{StreamExt, TryStreamExt};
use roaring::RoaringTreemap;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::compaction::{Input, Output, Run, Way};
use super::encoder::{Expected, FileEncoder};
use super::parquet::DataFolder;
use super::reading::Reading;
use crate::delta::action::{Add, Metadata, live_records};

/// The encoded files that are under way at the same time, in MiB: each takes about twice its size. A larger one is
/// written alone.
const ROOM_MIB: u32 = 128;

/// A file, and the rows of it that its successor does not have.
#[derive(Debug, Clone)]
pub struct Worn {
    /// The file.
    pub add: Add,
    /// All rows that are gone, those of its deletion vector included; never all that it has.
    pub gone: RoaringTreemap,
}

/// A file that has the rows of others which are not gone.
#[derive(Debug)]
pub struct Rewrite {
    /// The files that were read. Their runs lead to output 0.
    pub inputs: Vec<Input>,
    /// The file that was written.
    pub output: Output,
}

impl Worn {
    /// Returns the bytes of the file.
    pub fn size(&self) -> u64 {
        u64::try_from(self.add.size).unwrap_or(0)
    }
}

impl Rewrite {
    /// Tells whether this is what becomes of `job`.
    pub fn is_of(&self, job: &[Worn]) -> bool {
        let is_same = |(input, worn): (&Input, &Worn)| input.add.path == worn.add.path && input.deleted == worn.gone;
        self.inputs.len() == job.len() && self.inputs.iter().zip(job).all(is_same)
    }
}

/// Writes files of one table anew.
#[derive(Debug, Clone)]
pub struct Rewriter {
    folder: DataFolder,
    /// The stored columns: those of the table without the partition columns.
    schema: SchemaRef,
}

impl Rewriter {
    /// Returns a rewriter of files in `folder`, whose table has the columns of `metadata`.
    ///
    /// # Errors
    /// `Data` when the table's schema cannot be read.
    pub fn try_new(folder: DataFolder, metadata: &Metadata) -> Result<Self> {
        let damaged = || Error::data(format!("cannot read the schema of the table at {}", folder.location));
        let table: StructType =
            serde_json::from_str(&metadata.schema_string).map_err(|cause| damaged().with_source(cause))?;
        let table: Schema =
            (&table).try_into_arrow().map_err(|cause: arrow::error::ArrowError| damaged().with_source(cause))?;
        let partitions = &metadata.partition_columns;
        let stored = table.fields().iter().filter(|field| !partitions.contains(field.name())).cloned();
        let schema = Arc::new(Schema::new(stored.collect::<Vec<_>>()));
        Ok(Self { folder, schema })
    }

    /// Makes one file of the files of each job, which are of one partition, and returns them in order of the jobs.
    /// Dropping the future ends the work between two pieces.
    ///
    /// # Errors
    /// `Unavailable` or `Data` when a file cannot be read or written.
    pub async fn rewrite(&self, jobs: Vec<Vec<Worn>>) -> Result<Vec<Rewrite>> {
        let room = Arc::new(Semaphore::new(ROOM_MIB as usize));
        let works = jobs.into_iter().map(|job| self.rewrite_one(job, Arc::clone(&room)));
        let n_threads = available_parallelism().map_or(2, usize::from);
        futures::stream::iter(works).buffered(n_threads).try_collect().await
    }

    async fn rewrite_one(&self, job: Vec<Worn>, room: Arc<Semaphore>) -> Result<Rewrite> {
        let stopped = || Error::internal("the rewriting of a data file stopped");
        let bytes: u64 = job.iter().map(Worn::size).sum();
        let mib = u32::try_from(bytes >> 20).unwrap_or(ROOM_MIB).clamp(1, ROOM_MIB);
        let permit = room.acquire_many_owned(mib).await.map_err(|cause| stopped().with_source(cause))?;
        let stop = CancellationToken::new();
        let _stops = stop.clone().drop_guard();
        let (runtime, rewriter) = (Handle::current(), self.clone());
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            runtime.block_on(rewriter.write(job, stop))
        });
        work.await.map_err(|cause| stopped().with_source(cause))?
    }

    async fn write(self, job: Vec<Worn>, stop: CancellationToken) -> Result<Rewrite> {
        let values = job.first().map(|worn| worn.add.partition_values.clone()).unwrap_or_default();
        let rows = job.iter().filter_map(|worn| live_records(&worn.add)).fold(0, u64::saturating_add);
        let mut encoder = FileEncoder::new(Arc::clone(&self.schema), Expected { rows, bytes: u64::MAX });
        let DataFolder { store, location, .. } = &self.folder;
        let (store, location) = (Arc::clone(store), location.clone());
        let reading = Reading { store, location, schema: Arc::clone(&self.schema), stop };
        let mut inputs = Vec::with_capacity(job.len());
        for worn in job {
            let first_row = encoder.rows();
            let mut live = reading.open(&worn.add, &worn.gone).await?;
            while let Some(rows) = live.next().await? {
                encoder.write(&rows)?;
            }
            let live_rows = encoder.rows() - first_row;
            let runs = match live_rows {
                0 => Vec::new(),
                _ => vec![Run { first_rank: 0, output: 0, first_row }],
            };
            inputs.push(Input { add: worn.add, deleted: worn.gone, live_rows, way: Way::Runs(runs) });
        }
        let file = encoder.finish()?;
        let add = self.folder.upload(file.bytes, file.stats, values).await?;
        Ok(Rewrite { inputs, output: Output { add, rows: file.rows } })
    }
}
