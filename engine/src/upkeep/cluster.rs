//! Sorts the rows of a compaction by the clustering columns of its table.
//!
//! By one column: in its order. By several: along a [curve](super::curve) through all of them, whose ranges are found in a
//! first pass over those columns alone. Sorting is DataFusion's, within a bound on memory; the rest is on local disk until
//! it is merged. A file ends where the value changes, so that the bounds of two files in a single column do not meet.
//! Where each row went is kept in four bytes. Before it: [`compact`](super::compact), which says what is read.

use std::fmt;
use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::TryStreamExt;
use roaring::RoaringTreemap;

use super::curve::{Curve, Sample};
use super::outputs::Outputs;
use crate::delta::action::{Add, num_records};
use crate::write::compaction::{Input, Output, Scattered, Way};
use crate::write::reading::{LiveRows, Reading};

/// The column that says where on the curve a row is. No column of a table begins like this.
const CURVE: &str = "_alluvium_curve";

/// The column that says which file a row comes from, in the high half, and its rank there.
const ORIGIN: &str = "_alluvium_origin";

/// How many times larger than asked for a file may grow for rows of one value.
const GROWTH_MAX: u64 = 2;

/// What is sorted, and how.
#[derive(Debug)]
pub(super) struct Clustering {
    /// Reads the stored columns.
    pub(super) reading: Reading,
    /// The clustering columns.
    pub(super) by: Vec<String>,
    /// What sorting may take in memory.
    pub(super) sort_bytes: usize,
}

/// Writes the live rows of `files` to `outputs`, sorted, and tells where they went.
///
/// # Errors
/// `Unavailable` when a store or the local disk does not take or give rows; `Data` when a file is damaged.
pub(super) async fn cluster(
    clustering: Clustering,
    files: Vec<(Add, RoaringTreemap)>,
    mut outputs: Outputs,
) -> Result<(Vec<Input>, Vec<Output>)> {
    let n_files = files.len();
    for (add, deleted) in &files {
        if let Some(n_rows) = num_records(add) {
            outputs.announce(add, n_rows, n_rows.saturating_sub(deleted.len()));
        }
    }
    let curve = match clustering.by.len() {
        0 | 1 => None,
        _ => Some(find_curve(&clustering, &files).await?),
    };
    let unsorted = Arc::new(Unsorted::new(clustering, files, curve));
    let mut sorted = sort(&unsorted)?;
    let mut spread = Spread { outputs, positions: vec![Vec::new(); n_files], next: 0, last_key: None };
    while let Some(rows) = sorted.try_next().await.map_err(cause_of)? {
        unsorted.clustering.reading.check_stop()?;
        spread.take_in(&unsorted, &rows).await?;
    }
    // The stream holds what it was made of.
    drop(sorted);
    let (positions, starts, outputs) = spread.close().await?;
    let files = unsorted.files.iter().zip(positions).map(|((add, deleted), positions)| Input {
        add: add.clone(),
        deleted: deleted.clone(),
        live_rows: positions.len() as u64,
        way: Way::Scattered(Scattered { positions, starts: Arc::clone(&starts) }),
    });
    Ok((files.collect(), outputs))
}

/// Looks at the clustering columns of all files.
async fn find_curve(clustering: &Clustering, files: &[(Add, RoaringTreemap)]) -> Result<Curve> {
    let whole = &clustering.reading.schema;
    let fields = whole.fields().iter().filter(|field| clustering.by.contains(field.name())).cloned();
    let reading = Reading { schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())), ..clustering.reading.clone() };
    let n_rows = files.iter().filter_map(|(add, _)| num_records(add)).fold(0, u64::saturating_add);
    let mut sample = Sample::new(&clustering.by, n_rows);
    for (add, deleted) in files {
        let mut rows = reading.open(add, deleted).await?;
        while let Some(rows) = rows.next().await? {
            sample.see(&rows)?;
        }
    }
    Ok(sample.into_curve())
}

/// The rows of all files, one after the other, each with its origin and, where there is one, its place on the curve.
struct Unsorted {
    clustering: Clustering,
    files: Vec<(Add, RoaringTreemap)>,
    curve: Option<Curve>,
    schema: SchemaRef,
}

/// How far the files are read.
#[derive(Default)]
struct Place {
    file: usize,
    open: Option<LiveRows>,
    rank: u64,
}

impl Unsorted {
    fn new(clustering: Clustering, files: Vec<(Add, RoaringTreemap)>, curve: Option<Curve>) -> Self {
        let mut fields: Vec<_> = clustering.reading.schema.fields().iter().cloned().collect();
        if curve.is_some() {
            fields.push(Arc::new(Field::new(CURVE, DataType::UInt64, false)));
        }
        fields.push(Arc::new(Field::new(ORIGIN, DataType::UInt64, false)));
        Self { clustering, files, curve, schema: Arc::new(Schema::new(fields)) }
    }

    /// Returns the name of the column that rows are sorted by.
    fn key(&self) -> &str {
        match (&self.curve, self.clustering.by.first()) {
            (None, Some(column)) => column,
            _ => CURVE,
        }
    }

    async fn next(&self, mut place: Place) -> Result<Option<(RecordBatch, Place)>> {
        while let Some((add, deleted)) = self.files.get(place.file) {
            let mut open = match place.open.take() {
                Some(open) => open,
                None => self.clustering.reading.open(add, deleted).await?,
            };
            if let Some(rows) = open.next().await? {
                let told = self.with_origin(&rows, &place)?;
                place.rank += rows.num_rows() as u64;
                place.open = Some(open);
                return Ok(Some((told, place)));
            }
            place = Place { file: place.file + 1, ..Place::default() };
        }
        Ok(None)
    }

    fn with_origin(&self, rows: &RecordBatch, place: &Place) -> Result<RecordBatch> {
        let mut columns = rows.columns().to_vec();
        if let Some(curve) = &self.curve {
            columns.push(Arc::new(curve.places(rows)?));
        }
        let first = (place.file as u64) << 32 | place.rank;
        columns.push(Arc::new(UInt64Array::from_iter_values(first..first + rows.num_rows() as u64)));
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .map_err(|cause| Error::internal("cannot put rows beside their origin").with_source(cause))
    }
}

impl fmt::Debug for Unsorted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Unsorted").field("clustering", &self.clustering).finish_non_exhaustive()
    }
}

/// What DataFusion reads the rows by.
#[derive(Debug)]
struct Source(Arc<Unsorted>);

impl PartitionStream for Source {
    fn schema(&self) -> &SchemaRef {
        &self.0.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let unsorted = Arc::clone(&self.0);
        let rows = futures::stream::try_unfold(Place::default(), move |place| {
            let unsorted = Arc::clone(&unsorted);
            async move { unsorted.next(place).await.map_err(|error| DataFusionError::External(Box::new(error))) }
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.0.schema), rows))
    }
}

/// Begins to sort; rows of one key keep the order of their files, and within those their own.
fn sort(unsorted: &Arc<Unsorted>) -> Result<SendableRecordBatchStream> {
    let started = || -> DfResult<SendableRecordBatchStream> {
        let column = |name: &str| Column::new_with_schema(name, &unsorted.schema).map(Arc::new);
        let keys = [column(unsorted.key())?, column(ORIGIN)?];
        let ordering = LexOrdering::new(keys.map(|key| PhysicalSortExpr::new_default(key)))
            .ok_or_else(|| DataFusionError::Internal("no order".to_owned()))?;
        let source: Arc<dyn PartitionStream> = Arc::new(Source(Arc::clone(unsorted)));
        let rows = StreamingTableExec::try_new(Arc::clone(&unsorted.schema), vec![source], None, [], false, None)?;
        let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::OsTmpDirectory);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(unsorted.clustering.sort_bytes)))
            .with_disk_manager_builder(disk)
            .build_arc()?;
        let context = TaskContext::default().with_runtime(runtime);
        SortExec::new(ordering, Arc::new(rows)).execute(0, Arc::new(context))
    };
    started().map_err(cause_of)
}

/// Returns the error of this program that went through DataFusion, or what DataFusion says as one.
fn cause_of(cause: DataFusionError) -> Error {
    let kind = cause.find_root();
    if matches!(kind, DataFusionError::ResourcesExhausted(_) | DataFusionError::IoError(_)) {
        return Error::unavailable("cannot sort the rows of a compaction")
            .with_hint("raise upkeep.sort_memory, or make room in the folder for temporary files (TMPDIR)")
            .with_source(cause);
    }
    match cause {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(error) => *error,
            Err(inner) => {
                Error::internal("cannot sort the rows of a compaction").with_source(DataFusionError::External(inner))
            }
        },
        cause => Error::internal("cannot sort the rows of a compaction").with_source(cause),
    }
}

/// Sorted rows on their way to the outputs.
struct Spread {
    outputs: Outputs,
    /// Of each file, the position of each row, by rank.
    positions: Vec<Vec<u32>>,
    /// The position of the next row.
    next: u32,
    /// The key of the last row.
    last_key: Option<ArrayRef>,
}

impl Spread {
    /// Writes the next rows, and ends the open file within them where it is full and the key changes.
    async fn take_in(&mut self, unsorted: &Unsorted, rows: &RecordBatch) -> Result<()> {
        let failed = |cause| Error::internal("cannot take sorted rows apart").with_source(cause);
        let schema = &unsorted.schema;
        let key = rows.column(schema.index_of(unsorted.key()).map_err(failed)?);
        self.remember(rows.column(schema.index_of(ORIGIN).map_err(failed)?))?;
        let stored: Vec<usize> = (0..unsorted.clustering.reading.schema.fields().len()).collect();
        let stored = rows.project(&stored).map_err(failed)?;
        let mut written = 0;
        match self.outputs.fullness() {
            0 => {}
            full if full >= GROWTH_MAX => self.outputs.cut().await?,
            _ => {
                written = self.n_of_last_key(key)?;
                if written > 0 {
                    self.outputs.append(&stored.slice(0, written))?;
                }
                if written < stored.num_rows() {
                    self.outputs.cut().await?;
                }
            }
        }
        if written < stored.num_rows() {
            self.outputs.append(&stored.slice(written, stored.num_rows() - written))?;
        }
        self.last_key = Some(key.slice(key.len().saturating_sub(1), key.len().min(1)));
        Ok(())
    }

    /// Notes the position of each row, by where it comes from.
    fn remember(&mut self, origins: &ArrayRef) -> Result<()> {
        let too_many =
            || Error::data("a compaction has more than 4 billion rows").with_hint("lower upkeep.compaction_size");
        for origin in origins.as_primitive::<UInt64Type>().values() {
            let (file, rank) = ((origin >> 32) as usize, (origin & u64::from(u32::MAX)) as usize);
            let positions = self.positions.get_mut(file).ok_or_else(|| Error::internal("a row comes from no file"))?;
            if positions.len() <= rank {
                positions.resize(rank + 1, 0);
            }
            positions[rank] = self.next;
            self.next = self.next.checked_add(1).ok_or_else(too_many)?;
        }
        Ok(())
    }

    /// Returns how many of the first rows have the key of the last row written.
    fn n_of_last_key(&self, key: &ArrayRef) -> Result<usize> {
        let Some(last) = &self.last_key else { return Ok(0) };
        let failed = |cause| Error::internal("cannot compare the keys of rows").with_source(cause);
        let converter = RowConverter::new(vec![SortField::new(key.data_type().clone())]).map_err(failed)?;
        let last = converter.convert_columns(std::slice::from_ref(last)).map_err(failed)?;
        let keys = converter.convert_columns(std::slice::from_ref(key)).map_err(failed)?;
        let Some(last) = last.iter().next() else { return Ok(0) };
        Ok(keys.iter().take_while(|key| *key == last).count())
    }

    /// Ends the last file and returns the positions of all rows, those that outputs begin at, and the outputs.
    async fn close(self) -> Result<(Vec<Vec<u32>>, Arc<[u64]>, Vec<Output>)> {
        let outputs = self.outputs.close().await?;
        let mut before = 0;
        let starts = outputs.iter().map(|output| {
            let start = before;
            before += output.rows;
            start
        });
        let starts: Arc<[u64]> = starts.collect();
        Ok((self.positions, starts, outputs))
    }
}

#[cfg(test)]
mod tests;
