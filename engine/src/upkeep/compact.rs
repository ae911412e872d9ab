//! Rewrites the live rows of some files into few: reads them as of one version, and uploads the outputs.
//!
//! Rows keep all their columns, the hidden ones too, so that provenance survives. They keep their order, or are
//! [sorted](super::cluster) in a table with clustering columns. Nothing is visible until the outputs are swapped in
//! ([`Landing::swap`](crate::commit::land::Landing::swap)); what is given up before is orphans for vacuum. Memory is bounded
//! by the footers and one row group of an input, and one output; when rows are sorted, by what that may take, too.
//!
//! Before it: [`plan`](super::plan). After it: [`compaction`](crate::write::compaction).

use std::sync::Arc;

use alluvium_catalog::{Clock, Error, Result};
use arrow::datatypes::Schema;
use roaring::RoaringTreemap;
use tokio_util::sync::CancellationToken;

use super::cluster::{Clustering, cluster};
use super::outputs::{OutputShape, Outputs};
use super::plan::{Aims, Choice, Order};
use crate::commit::create::arrow_schema;
use crate::delta::action::{Add, Metadata, live_records};
use crate::delta::clustering::Mark;
use crate::delta::log::{DeltaLog, Version};
use crate::delta::state::TableState;
use crate::write::compaction::{Compaction, Input, Output, Run, Way};
use crate::write::parquet::DataFolder;
use crate::write::reading::{LiveRows, Reading};
use crate::write::vectors::VectorFolder;

/// A compaction to be done: what to read, and how to write it.
#[derive(Debug)]
pub struct Job {
    vectors: VectorFolder,
    version: Version,
    metadata: Metadata,
    reading: Reading,
    files: Vec<Add>,
    order: Order,
    shape: OutputShape,
    sort_bytes: usize,
}

impl Job {
    /// Returns the job to rewrite `choice` of `state` as `aims` say.
    ///
    /// # Errors
    /// `Data` when the table's schema cannot be read.
    pub fn new(
        log: &DeltaLog,
        state: &TableState,
        choice: Choice,
        aims: &Aims,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self> {
        let (store, location) = (Arc::clone(log.store()), log.location().clone());
        let partitioned_by = state.metadata.partition_columns.clone();
        let table = arrow_schema(log, state)?;
        // The stored columns: those of the table without the partition columns.
        let stored = table.fields().iter().filter(|field| !partitioned_by.contains(field.name())).cloned();
        let schema = Arc::new(Schema::new(stored.collect::<Vec<_>>()));
        let Choice { order, partition, files } = choice;
        let mark = match &order {
            Order::Kept => None,
            Order::KeptApart(mark) => Some(mark.clone()),
            Order::Clustered(by) => Some(Mark { by: by.clone(), run: clock.new_id().to_string() }),
        };
        let vectors = VectorFolder {
            store: Arc::clone(&store),
            location: location.clone(),
            clock: Arc::clone(clock),
            inline_bytes_max: VectorFolder::INLINE_BYTES_MAX,
        };
        let reading = Reading {
            store: Arc::clone(&store),
            location: location.clone(),
            schema: Arc::clone(&schema),
            stop: CancellationToken::new(),
        };
        let rows_expected = files.iter().filter_map(live_records).fold(0, u64::saturating_add);
        let folder = DataFolder { store, location, partitioned_by, clock: Arc::clone(clock) };
        Ok(Self {
            vectors,
            version: state.version,
            metadata: state.metadata.clone(),
            reading,
            files,
            order,
            shape: OutputShape { folder, schema, partition, rows_expected, target_bytes: aims.target_bytes, mark },
            sort_bytes: aims.sort_bytes,
        })
    }

    /// Returns how many files are read.
    pub fn n_files(&self) -> usize {
        self.files.len()
    }

    /// Does the job on a thread of its own, since it decodes and encodes all the time. Dropping the future ends it
    /// between two pieces.
    ///
    /// # Errors
    /// `Unavailable` or `Data` when a file cannot be read or written.
    pub async fn run(self) -> Result<Compaction> {
        let _stops = self.reading.stop.clone().drop_guard();
        let runtime = tokio::runtime::Handle::current();
        let work = tokio::task::spawn_blocking(move || runtime.block_on(self.rewrite()));
        work.await.map_err(|cause| Error::internal("a compaction stopped").with_source(cause))?
    }

    async fn rewrite(self) -> Result<Compaction> {
        let mut files = Vec::with_capacity(self.files.len());
        for add in self.files {
            let deleted = match &add.deletion_vector {
                Some(descriptor) => self.vectors.read(descriptor).await?,
                None => RoaringTreemap::new(),
            };
            files.push((add, deleted));
        }
        let outputs = Outputs::new(self.shape);
        let copying = |stays_apart| Copying { reading: &self.reading, stays_apart };
        let (inputs, outputs) = match self.order {
            Order::Kept => copying(false).append(files, outputs).await?,
            Order::KeptApart(_) => copying(true).append(files, outputs).await?,
            Order::Clustered(by) => {
                let clustering = Clustering { reading: self.reading, by, sort_bytes: self.sort_bytes };
                cluster(clustering, files, outputs).await?
            }
        };
        Ok(Compaction { version: self.version, metadata: self.metadata, inputs, outputs })
    }
}

/// Copies rows without sorting them.
#[derive(Debug)]
struct Copying<'a> {
    reading: &'a Reading,
    /// Whether no output holds rows of two files.
    stays_apart: bool,
}

impl Copying<'_> {
    /// Appends the live rows of files to the outputs, file after file.
    async fn append(
        &self,
        files: Vec<(Add, RoaringTreemap)>,
        mut outputs: Outputs,
    ) -> Result<(Vec<Input>, Vec<Output>)> {
        let mut inputs = Vec::with_capacity(files.len());
        for (add, deleted) in files {
            let rows = self.reading.open(&add, &deleted).await?;
            let live_rows = rows.n_live();
            outputs.announce(&add, live_rows + deleted.len(), live_rows);
            let runs = self.append_file(rows, &mut outputs).await?;
            if self.stays_apart {
                outputs.cut().await?;
            }
            inputs.push(Input { add, deleted, live_rows, way: Way::Runs(runs) });
        }
        Ok((inputs, outputs.close().await?))
    }

    /// Appends the live rows of one file to the outputs and tells where they went.
    async fn append_file(&self, mut rows: LiveRows, outputs: &mut Outputs) -> Result<Vec<Run>> {
        let mut runs: Vec<Run> = Vec::new();
        let mut rank = 0_u64;
        while let Some(live) = rows.next().await? {
            let (output, first_row) = outputs.append(&live)?;
            if runs.last().is_none_or(|run| run.output != output) {
                runs.push(Run { first_rank: rank, output, first_row });
            }
            rank += live.num_rows() as u64;
            if outputs.fullness() > 0 {
                outputs.cut().await?;
            }
        }
        Ok(runs)
    }
}
