//! Compiles a flow's SELECT once and applies it to batches.
//!
//! In: rows of the source. Out: rows of the table, each with the position it came from. It never aggregates, sorts,
//! limits or removes duplicates: those would silently mean "per batch", so the compiler refuses them.
//!
//! ```text
//! batch --StreamExec--> the query's plan, the position beside every row --> table columns, position, sequence, delete
//! ```
//! A query without lookups is planned once and executed for each batch. One with lookups is planned for each batch,
//! over the newest version of the tables that it joins, and over the files that are there now.
//! Before it: the [compiler](crate::compile), which has refused what cannot be applied. After it: the engine's transform.

mod carry;
mod outcome;
mod stream;
mod tombstone;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use alluvium_catalog::{Dataset, DatasetKind, Error, Result, TableName};
use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::catalog::{MemorySchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::compile::plan::{dialect_session, plan_query};
use crate::pipeline::{Change, Flow};
use crate::session::failure;
use crate::tables::{OpenTable, TableReader, Version};
use outcome::Outcome;
use stream::execute;
use tombstone::Tombstones;

/// The most rows that operators hand on at once: a whole batch of the engine, so that nothing is cut and glued.
const BATCH_ROWS_MAX: usize = 1 << 20;

/// The fewest; DataFusion's own default.
const BATCH_ROWS_MIN: usize = 8192;

/// The memory of a query whose flow is run without settings.
const MEMORY_BYTES_DEFAULT: usize = 1 << 30;

/// Rows of the table and where each came from. All parts have the same length.
#[derive(Debug, Clone)]
pub struct Shaped {
    /// The table's declared columns, cast to its types; nullable here even where the table is not.
    pub rows: RecordBatch,
    /// The partition of each row's record.
    pub partitions: Int32Array,
    /// The offset of each row's record.
    pub offsets: Int64Array,
    /// Upserts only: the values of SEQUENCE BY, one array a field.
    pub sequence: Vec<ArrayRef>,
    /// Upserts only: whether the row deletes its key.
    pub deletes: Option<BooleanArray>,
}

/// What a batch became.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The rows.
    pub shaped: Shaped,
    /// What was looked up: Delta tables with the version that was read, and files, which have none.
    pub lookups: Vec<(TableName, Option<u64>)>,
}

/// A compiled SELECT.
pub struct Transform {
    flow: Flow,
    reader: Arc<TableReader>,
    session: SessionContext,
    outcome: Outcome,
    lookups: Vec<Lookup>,
    /// The plan that every batch is led through; with lookups there is none, as each batch has its own.
    plan: Option<Arc<dyn ExecutionPlan>>,
    tombstones: Option<Tombstones>,
    sequence_types: Vec<DataType>,
}

/// A SELECT over one version of each table that it joins, and over the files that are there now.
#[derive(Debug)]
pub struct Pinned {
    plan: Arc<dyn ExecutionPlan>,
    lookups: Vec<(TableName, Option<u64>)>,
}

impl Pinned {
    /// Returns what is joined: Delta tables with their versions, and files, which have none.
    pub fn into_lookups(self) -> Vec<(TableName, Option<u64>)> {
        self.lookups
    }
}

/// A dataset that the query joins.
#[derive(Debug)]
struct Lookup {
    dataset: Dataset,
    /// The version of a Delta table that was read last: the next one is found from there.
    last: Mutex<Option<OpenTable>>,
}

impl Transform {
    /// Compiles the SELECT of `flow` as [`compile_within`](Self::compile_within) does, with 1 GiB of memory.
    ///
    /// # Errors
    /// As of [`compile_within`](Self::compile_within).
    pub async fn compile(flow: &Flow, reader: Arc<TableReader>) -> Result<Self> {
        Self::compile_within(flow, reader, MEMORY_BYTES_DEFAULT).await
    }

    /// Compiles the SELECT of `flow`; tables that it joins are found in `reader`'s catalog. What the query holds beside
    /// the batch, such as the side of a join that is built, takes `memory_bytes_max` at most.
    ///
    /// # Errors
    /// `Invalid` when the query cannot be planned or asks for what only makes sense over all rows; what opening the tables
    /// that it joins says.
    pub async fn compile_within(flow: &Flow, reader: Arc<TableReader>, memory_bytes_max: usize) -> Result<Self> {
        let rows_max = flow.batch.rows_max.clamp(BATCH_ROWS_MIN, BATCH_ROWS_MAX);
        let batch_rows = if flow.lookups.is_empty() { rows_max } else { BATCH_ROWS_MIN };
        let config = SessionConfig::new().with_target_partitions(1).with_batch_size(batch_rows);
        let session = dialect_session(config, forgetful_runtime(memory_bytes_max)?);
        let mut lookups = Vec::new();
        for name in &flow.lookups {
            lookups.push(Lookup { dataset: reader.dataset(name).await?, last: Mutex::default() });
        }
        let mut transform = Self {
            outcome: Outcome::new(flow),
            flow: flow.clone(),
            reader,
            session,
            lookups,
            plan: None,
            tombstones: None,
            sequence_types: Vec::new(),
        };
        transform.open_lookups().await?;
        let query = transform.query().await?;
        if let Change::Upsert { .. } = &flow.change {
            let tombstones = Tombstones::plan(flow, &transform.outcome, &query, &transform.session).await;
            transform.tombstones = Some(tombstones.map_err(|cause| transform.uncompiled(cause))?);
        }
        let plan = transform.physical(query, None).await.map_err(|cause| transform.uncompiled(cause))?;
        transform.sequence_types = transform.outcome.sequence_types(&plan.schema());
        if transform.lookups.is_empty() {
            transform.plan = Some(plan);
        }
        Ok(transform)
    }

    /// Returns the types of the fields of SEQUENCE BY; none for appends.
    pub fn sequence_types(&self) -> Vec<DataType> {
        self.sequence_types.clone()
    }

    /// Applies the SELECT to `rows`: the source's columns, then `_alluvium_partition` and `_alluvium_offset`. Rows keep
    /// their order unless the query joins. A flow that looks up tables applies one batch at a time.
    ///
    /// # Errors
    /// `Data` when an expression fails on a row, with the flow's name; `Unavailable` when a table that the query joins
    /// cannot be reached; `Invalid` when the query takes more memory than it may.
    pub async fn apply(&self, rows: RecordBatch) -> Result<Applied> {
        let pinned = self.pin(rows.num_rows()).await?;
        Ok(Applied { shaped: self.apply_pinned(&pinned, rows).await?, lookups: pinned.lookups })
    }

    /// Plans the SELECT over the newest versions of the tables that it joins, for a batch of `n_rows` and all parts of it.
    ///
    /// # Errors
    /// `Unavailable` when a table that the query joins cannot be reached.
    pub async fn pin(&self, n_rows: usize) -> Result<Pinned> {
        let lookups = self.open_lookups().await?;
        let plan = match &self.plan {
            Some(plan) => Arc::clone(plan),
            None => {
                let planned = self.physical(self.query().await?, Some(n_rows)).await;
                planned.map_err(|cause| self.failed(cause))?
            }
        };
        Ok(Pinned { plan, lookups })
    }

    /// Applies the SELECT as [`apply`](Self::apply) does, over the versions that are pinned.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply).
    pub async fn apply_pinned(&self, pinned: &Pinned, rows: RecordBatch) -> Result<Shaped> {
        let plan = Arc::clone(&pinned.plan);
        let shown = execute(plan, rows, &self.session).await.map_err(|cause| self.failed(cause))?;
        self.outcome.shape(&shown)
    }

    /// Turns Kafka tombstones into deletes. `rows` has the columns that [`Transform::apply`] takes, all nullable, filled
    /// from the records' keys and metadata only. The SELECT is evaluated without its filters and joins: key columns and
    /// SEQUENCE BY get what can be computed, everything else is NULL. There is a row for each of `rows`, in their order; a
    /// key that came out NULL is the caller's to reject.
    ///
    /// # Errors
    /// `Internal` for a flow that appends, `Data` when an expression fails on a row.
    pub async fn apply_tombstones(&self, rows: RecordBatch) -> Result<Shaped> {
        self.apply_pinned(&self.pin_tombstones()?, rows).await
    }

    /// Returns the SELECT as [`apply_tombstones`](Self::apply_tombstones) evaluates it, for a batch and all parts of it.
    /// It looks nothing up.
    ///
    /// # Errors
    /// `Internal` for a flow that appends.
    pub fn pin_tombstones(&self) -> Result<Pinned> {
        let Some(tombstones) = &self.tombstones else {
            return Err(Error::internal(format!("flow {} appends and has no use for tombstones", self.flow.name())));
        };
        Ok(Pinned { plan: tombstones.planned(), lookups: Vec::new() })
    }

    async fn query(&self) -> Result<LogicalPlan> {
        let query = plan_query((&self.flow).into(), &self.session).await;
        query.map_err(|cause| self.uncompiled(cause))
    }

    /// Plans `query` with the position and the outcome's columns on top; `n_rows` is the size of the batch, if known.
    async fn physical(
        &self,
        query: LogicalPlan,
        n_rows: Option<usize>,
    ) -> std::result::Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let carried = carry::carry(query, &stream::source(&self.flow.source_schema, n_rows))?;
        let state = self.session.state();
        let plan = self.outcome.project(&self.flow, carried, &state)?;
        state.create_physical_plan(&plan).await
    }

    /// Puts the newest state of each lookup into the session.
    async fn open_lookups(&self) -> Result<Vec<(TableName, Option<u64>)>> {
        let mut read = Vec::with_capacity(self.lookups.len());
        for lookup in &self.lookups {
            let version = match lookup.dataset.kind {
                DatasetKind::Delta | DatasetKind::DeadLetter => Some(self.open_table(lookup).await?),
                DatasetKind::Parquet | DatasetKind::Csv | DatasetKind::Json => {
                    self.open_files(&lookup.dataset).await?;
                    None
                }
            };
            read.push((lookup.dataset.name.clone(), version));
        }
        Ok(read)
    }

    async fn open_table(&self, lookup: &Lookup) -> Result<u64> {
        let last = lookup.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let table = match &last {
            Some(table) => self.reader.refresh(table).await?,
            None => self.reader.open(&lookup.dataset.location, Version::Latest).await?,
        };
        if last.is_none_or(|last| last.version() != table.version()) {
            self.register(&lookup.dataset.name, table.provider()).map_err(|cause| self.uncompiled(cause))?;
        }
        let version = table.version();
        *lookup.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(table);
        Ok(version)
    }

    /// Nothing tells whether files have changed, so they are looked at anew.
    async fn open_files(&self, dataset: &Dataset) -> Result<()> {
        let state = self.session.state();
        let files = self.reader.open_files(dataset.kind, &dataset.location, &state).await?;
        self.register(&dataset.name, files).map_err(|cause| self.uncompiled(cause))
    }

    fn register(&self, name: &TableName, table: Arc<dyn TableProvider>) -> std::result::Result<(), DataFusionError> {
        for catalog in self.session.catalog_names() {
            if let Some(catalog) = self.session.catalog(&catalog)
                && catalog.schema(name.schema()).is_none()
            {
                catalog.register_schema(name.schema(), Arc::new(MemorySchemaProvider::new()))?;
            }
        }
        let reference = TableReference::partial(name.schema(), name.table());
        self.session.deregister_table(reference.clone())?;
        self.session.register_table(reference, table)?;
        Ok(())
    }

    fn uncompiled(&self, cause: DataFusionError) -> Error {
        failure::from_datafusion(format!("cannot compile the query of flow {}", self.flow.name()), cause)
    }

    fn failed(&self, cause: DataFusionError) -> Error {
        failure::from_datafusion(format!("cannot apply the query of flow {}", self.flow.name()), cause)
    }
}

/// Returns a runtime that remembers nothing about files: DataFusion's own keeps the list of a folder for ever, and knows
/// a changed file by its time and size only.
fn forgetful_runtime(memory_bytes_max: usize) -> Result<Arc<RuntimeEnv>> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(memory_bytes_max)))
        .with_object_list_cache_limit(0)
        .with_file_statistics_cache_limit(0)
        .with_metadata_cache_limit(0)
        .build_arc();
    runtime.map_err(|cause| failure::from_datafusion("cannot set up the runtime of a flow's query", cause))
}

impl fmt::Debug for Transform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flow, lookups, plan, .. } = self;
        formatter
            .debug_struct("Transform")
            .field("flow", flow.name())
            .field("lookups", lookups)
            .field("plan", plan)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
