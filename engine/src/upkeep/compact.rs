//! Rewrites the live rows of some files into few: reads them as of one version, and uploads the outputs.
//!
//! Rows keep their order and all their columns, the hidden ones too, so that provenance survives. Nothing is visible
//! until the outputs are swapped in ([`Landing::swap`](crate::commit::land::Landing::swap)); what is given up before is
//! orphans for vacuum. Memory is bounded by the footers and one row group of an input, and one output.
//!
//! Before it: [`plan`](super::plan). After it: [`compaction`](crate::write::compaction).

use std::sync::Arc;

use alluvium_catalog::{Clock, Error, Result};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use futures::TryStreamExt;
use object_store::path::Path;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use roaring::RoaringTreemap;
use tokio_util::sync::CancellationToken;

use super::plan::Choice;
use crate::commit::create::arrow_schema;
use crate::delta::action::{Add, Metadata, num_records};
use crate::delta::log::{DeltaLog, Version};
use crate::delta::state::TableState;
use crate::object_file::{ObjectFile, read_error};
use crate::write::compaction::{Compaction, Input, Output, Run};
use crate::write::encoder::FileEncoder;
use crate::write::parquet::DataFolder;
use crate::write::partition::PartitionValues;
use crate::write::vectors::VectorFolder;

/// Rows read, filtered and encoded at once: slices of this size encode fastest (see `write/parquet.rs`).
const BATCH_ROWS: usize = 8192;

/// A compaction to be done: what to read, and how to write it.
#[derive(Debug)]
pub struct Job {
    folder: DataFolder,
    vectors: VectorFolder,
    version: Version,
    metadata: Metadata,
    /// The stored columns: those of the table without the partition columns.
    schema: SchemaRef,
    choice: Choice,
    target_bytes: u64,
}

impl Job {
    /// Returns the job to rewrite `choice` of `state` into files of about `target_bytes`.
    ///
    /// # Errors
    /// `Data` when the table's schema cannot be read.
    pub fn new(
        log: &DeltaLog,
        state: &TableState,
        choice: Choice,
        target_bytes: u64,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self> {
        let (store, location) = (Arc::clone(log.store()), log.location().clone());
        let partitioned_by = state.metadata.partition_columns.clone();
        let table = arrow_schema(log, state)?;
        let stored = table.fields().iter().filter(|field| !partitioned_by.contains(field.name())).cloned();
        let schema = Arc::new(Schema::new(stored.collect::<Vec<_>>()));
        let vectors = VectorFolder { store: Arc::clone(&store), location: location.clone(), clock: Arc::clone(clock) };
        Ok(Self {
            folder: DataFolder { store, location, partitioned_by, clock: Arc::clone(clock) },
            vectors,
            version: state.version,
            metadata: state.metadata.clone(),
            schema,
            choice,
            target_bytes,
        })
    }

    /// Returns how many files are read.
    pub fn n_files(&self) -> usize {
        self.choice.files.len()
    }

    /// Does the job on a thread of its own, since it decodes and encodes all the time. Dropping the future ends it
    /// between two pieces.
    ///
    /// # Errors
    /// `Unavailable` or `Data` when a file cannot be read or written.
    pub async fn run(self) -> Result<Compaction> {
        let stop = CancellationToken::new();
        let _stops = stop.clone().drop_guard();
        let runtime = tokio::runtime::Handle::current();
        let work = tokio::task::spawn_blocking(move || runtime.block_on(self.rewrite(&stop)));
        work.await.map_err(|cause| Error::internal("a compaction stopped").with_source(cause))?
    }

    async fn rewrite(self, stop: &CancellationToken) -> Result<Compaction> {
        let mut outputs = Outputs {
            folder: &self.folder,
            schema: &self.schema,
            partition: &self.choice.partition,
            target_bytes: self.target_bytes,
            done: Vec::new(),
            open: None,
        };
        let mut inputs = Vec::with_capacity(self.choice.files.len());
        for add in &self.choice.files {
            let deleted = match &add.deletion_vector {
                Some(descriptor) => self.vectors.read(descriptor).await?,
                None => RoaringTreemap::new(),
            };
            let (runs, live_rows) = self.rewrite_file(add, &deleted, &mut outputs, stop).await?;
            inputs.push(Input { add: add.clone(), deleted, live_rows, runs });
        }
        let outputs = outputs.close().await?;
        Ok(Compaction { version: self.version, metadata: self.metadata, inputs, outputs })
    }

    /// Appends the live rows of one file to the outputs and tells where they went, and how many there were.
    async fn rewrite_file(
        &self,
        add: &Add,
        deleted: &RoaringTreemap,
        outputs: &mut Outputs<'_>,
        stop: &CancellationToken,
    ) -> Result<(Vec<Run>, u64)> {
        let failed = |cause: parquet::errors::ParquetError| read_error(self.unreadable(add), cause);
        let path = Path::parse(&add.path).map_err(|cause| self.damaged(add).with_source(cause))?;
        let size = u64::try_from(add.size).map_err(|cause| self.damaged(add).with_source(cause))?;
        let reader = ObjectFile::new(Arc::clone(&self.folder.store), path, size);
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(failed)?;
        let mut batches = builder.with_batch_size(BATCH_ROWS).build().map_err(failed)?;
        let mut runs = Vec::new();
        let (mut row, mut rank) = (0_u64, 0_u64);
        while let Some(batch) = batches.try_next().await.map_err(failed)? {
            if stop.is_cancelled() {
                return Err(Error::closed("the compaction was stopped"));
            }
            let live = live_rows(&batch, row, deleted)?;
            row += batch.num_rows() as u64;
            if live.num_rows() == 0 {
                continue;
            }
            let (output, first_row) = outputs.append(&self.conform(&live, add)?).await?;
            if runs.last().is_none_or(|run: &Run| run.output != output) {
                runs.push(Run { first_rank: rank, output, first_row });
            }
            rank += live.num_rows() as u64;
        }
        if num_records(add).is_some_and(|told| told != row) {
            return Err(Error::data(format!(
                "{} of the table at {} has {row} rows, and its log tells another number",
                add.path, self.folder.location
            )));
        }
        Ok((runs, rank))
    }

    /// Returns `rows` in the table's columns: one that the file lacks is NULL, one of another layout is cast.
    fn conform(&self, rows: &RecordBatch, add: &Add) -> Result<RecordBatch> {
        let failed = |cause| self.damaged(add).with_source(cause);
        let columns = self
            .schema
            .fields()
            .iter()
            .map(|field| match rows.column_by_name(field.name()) {
                Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
                Some(column) => cast(column, field.data_type()).map_err(failed),
                None => Ok(new_null_array(field.data_type(), rows.num_rows())),
            })
            .collect::<Result<Vec<ArrayRef>>>()?;
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(failed)
    }

    fn damaged(&self, add: &Add) -> Error {
        Error::data(self.unreadable(add))
    }

    fn unreadable(&self, add: &Add) -> String {
        format!("cannot read {} of the table at {}", add.path, self.folder.location)
    }
}

/// Returns the rows of `batch`, whose first has number `first` in its file, that are not deleted.
fn live_rows(batch: &RecordBatch, first: u64, deleted: &RoaringTreemap) -> Result<RecordBatch> {
    let next = first + batch.num_rows() as u64;
    if deleted.range_cardinality(first..next) == 0 {
        return Ok(batch.clone());
    }
    let live: BooleanArray = (first..next).map(|row| Some(!deleted.contains(row))).collect();
    filter_record_batch(batch, &live)
        .map_err(|cause| Error::internal("cannot leave out deleted rows").with_source(cause))
}

/// The files that are written, one at a time.
struct Outputs<'a> {
    folder: &'a DataFolder,
    schema: &'a SchemaRef,
    partition: &'a PartitionValues,
    target_bytes: u64,
    done: Vec<Output>,
    open: Option<FileEncoder>,
}

impl Outputs<'_> {
    /// Appends rows and returns the output that has them, and the number of the first of them in it.
    async fn append(&mut self, rows: &RecordBatch) -> Result<(usize, u64)> {
        let mut encoder = match self.open.take() {
            Some(encoder) => encoder,
            None => FileEncoder::try_new(Arc::clone(self.schema))?,
        };
        let place = (self.done.len(), encoder.rows());
        encoder.write(rows)?;
        if encoder.bytes() < self.target_bytes {
            self.open = Some(encoder);
        } else {
            self.upload(encoder).await?;
        }
        Ok(place)
    }

    async fn close(mut self) -> Result<Vec<Output>> {
        if let Some(encoder) = self.open.take() {
            self.upload(encoder).await?;
        }
        Ok(self.done)
    }

    async fn upload(&mut self, encoder: FileEncoder) -> Result<()> {
        let file = encoder.finish()?;
        let add = self.folder.upload(file.bytes, file.stats, self.partition.clone()).await?;
        self.done.push(Output { add: Add { data_change: false, ..add }, rows: file.rows });
        Ok(())
    }
}
