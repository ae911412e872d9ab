//! Opens a Delta table and decides who reads its rows: this program's [scan](super::scan), or deltalake's.
//!
//! Loading a snapshot, which replays the log, is deltalake's work. Rows are read by our own scan, but for tables with
//! features that it does not know (column mapping, say) and for columns that it could not cast: those are read by
//! deltalake's, slower and alike. Either way a provider uses the program's stores, shows the types that were declared, and
//! can leave out hidden columns.

use std::sync::Arc;

use alluvium_catalog::{Error, Location, Result, Stores};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Statistics;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use deltalake::DeltaTableError;
use deltalake::delta_datafusion::{DeltaScanConfig, DeltaScanNext};
use deltalake::kernel::Snapshot;
use deltalake::logstore::{LogStoreRef, StorageConfig, default_logstore};
use object_store::ObjectStore;
use url::Url;

use super::columns::Columns;
use super::scan::{LiveScan, ScanStores};
use super::tail::TailStore;
use super::vectors::{VectorCache, VectorSource};
use super::{Asked, HIDDEN_PREFIX};
use crate::locate::Located;
use crate::scan_by::scan_by;

/// The property of a table that says how its columns are found in files.
const COLUMN_MAPPING: &str = "delta.columnMapping.mode";

/// The features of readers that our own scan knows. Column mapping may be listed without being in use.
const PLAIN_FEATURES: [&str; 5] =
    ["columnMapping", "deletionVectors", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"];

/// Why a snapshot could not be loaded.
pub(super) enum LoadFailure {
    /// Our own settings or names.
    Ours(Error),
    /// What deltalake says.
    Delta(DeltaTableError),
}

/// Loads the snapshot of `version`, or the newest.
pub(super) async fn load(
    stores: &Stores,
    location: &Location,
    version: Option<u64>,
) -> std::result::Result<Arc<Snapshot>, LoadFailure> {
    let logs = log_store(stores, location).map_err(LoadFailure::Ours)?;
    Snapshot::try_new(logs.as_ref(), version).await.map(Arc::new).map_err(LoadFailure::Delta)
}

/// Brings `snapshot` to the newest version.
pub(super) async fn update(
    stores: &Stores,
    location: &Location,
    snapshot: &Arc<Snapshot>,
) -> std::result::Result<Arc<Snapshot>, LoadFailure> {
    let logs = log_store(stores, location).map_err(LoadFailure::Ours)?;
    Arc::clone(snapshot).update(logs.engine(None), None).await.map_err(LoadFailure::Delta)
}

/// Brings `snapshot` to the newest version, which is few versions away, without listing the log.
pub(super) async fn follow(
    stores: &Stores,
    location: &Location,
    snapshot: &Arc<Snapshot>,
) -> std::result::Result<Arc<Snapshot>, LoadFailure> {
    let logs = tail_store(stores, location, snapshot.version() + 1).map_err(LoadFailure::Ours)?;
    Arc::clone(snapshot).update(logs.engine(None), None).await.map_err(LoadFailure::Delta)
}

/// Returns a log store that shows the log from version `first` on.
fn tail_store(stores: &Stores, location: &Location, first: u64) -> Result<LogStoreRef> {
    let tail = TailStore::new(stores.root(location)?, location, first);
    Ok(default_logstore(stores.open(location)?, Arc::new(tail), &location.url()?, &StorageConfig::default()))
}

/// deltalake finds stores by its own registry of URL schemes, which knows S3 only with the AWS SDK built in; so the log
/// store is put together here.
pub(super) fn log_store(stores: &Stores, location: &Location) -> Result<LogStoreRef> {
    let (root, prefixed) = (stores.root(location)?, stores.open(location)?);
    Ok(default_logstore(prefixed, root, &location.url()?, &StorageConfig::default()))
}

/// The rows of one version of a Delta table.
#[derive(Debug, Clone)]
pub(super) struct DeltaProvider {
    /// All columns.
    rows: Arc<dyn TableProvider>,
    /// The same, where our own scan reads them.
    ours: Option<Arc<LiveScan>>,
    root: Arc<dyn ObjectStore>,
    url: Url,
    /// The columns shown, as indices into those of `rows`.
    shown: Vec<usize>,
    schema: SchemaRef,
}

impl DeltaProvider {
    /// Returns a provider of all columns of `snapshot`; vectors that it reads are kept in `vectors`.
    ///
    /// # Errors
    /// `Invalid` when the table uses features that cannot be read.
    pub(super) fn try_new(
        stores: &Stores,
        location: &Location,
        snapshot: &Arc<Snapshot>,
        vectors: &Arc<VectorCache>,
    ) -> Result<Self> {
        let root = stores.root(location)?;
        let theirs = deltalake_scan(location, snapshot)?;
        let schema = theirs.schema();
        let columns = Columns::new(Arc::clone(&schema), snapshot.metadata().partition_columns());
        let ours = if is_plain(snapshot) && !columns.have_required_members() {
            let source = VectorSource { store: Arc::clone(&root), location: location.clone() };
            let stores = ScanStores { logs: log_store(stores, location)?, source, vectors: Arc::clone(vectors) };
            Some(Arc::new(LiveScan::try_new(snapshot, columns, stores)?))
        } else {
            None
        };
        let rows: Arc<dyn TableProvider> = match &ours {
            Some(ours) => Arc::clone(ours) as _,
            None => Arc::new(theirs),
        };
        let shown = (0..schema.fields().len()).collect();
        Ok(Self { rows, ours, root, url: location.url()?, shown, schema })
    }

    /// Returns about how many bytes the list of its files takes, once there is one.
    pub(super) fn bytes(&self) -> usize {
        self.ours.as_ref().map_or(0, |ours| ours.bytes())
    }

    /// Returns a plan that reads the rows of `located`; `None` where our own scan cannot.
    pub(super) fn rows_at(&self, located: &Located, asked: Asked<'_>) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
        let Some(ours) = &self.ours else { return Ok(None) };
        asked.session.runtime_env().register_object_store(&self.url, Arc::clone(&self.root));
        let columns = self.columns(asked.projection);
        ours.rows_at(located, Asked { projection: Some(&columns), ..asked })
    }

    /// Returns what `projection` of the columns shown means among all columns.
    fn columns(&self, projection: Option<&Vec<usize>>) -> Vec<usize> {
        match projection {
            Some(wanted) => wanted.iter().map(|&index| self.shown[index]).collect(),
            None => self.shown.clone(),
        }
    }

    /// Returns the same rows without hidden columns.
    pub(super) fn without_hidden(&self) -> Self {
        let all = self.rows.schema();
        let is_shown = |index: &usize| !all.field(*index).name().starts_with(HIDDEN_PREFIX);
        let shown: Vec<usize> = self.shown.iter().copied().filter(is_shown).collect();
        let fields: Vec<_> = shown.iter().map(|&index| Arc::clone(&all.fields()[index])).collect();
        let schema = Schema::new_with_metadata(fields, self.schema.metadata().clone());
        Self { shown, schema: Arc::new(schema), ..self.clone() }
    }
}

/// Returns deltalake's own scan. It is made for every table, because making it refuses what the kernel cannot read.
pub(super) fn deltalake_scan(location: &Location, snapshot: &Arc<Snapshot>) -> Result<DeltaScanNext> {
    let config = DeltaScanConfig {
        file_column_name: None,
        wrap_partition_values: false,
        // Where columns are mapped it keeps filters above it. Elsewhere it would leave them to the reader, which takes NaN for
        // a match of filters that it does not match (see `scan`).
        enable_parquet_pushdown: is_mapped(snapshot),
        schema_force_view_types: false,
        schema: None,
    };
    DeltaScanNext::new(Arc::clone(snapshot), config).map_err(|cause| {
        // What DataFusion calls its own is external here, so the kind is not to be read from it.
        Error::invalid(format!("the Delta table at {location} uses what this program cannot read"))
            .with_source(cause)
            .with_hint(format!("its protocol is {:?}", snapshot.protocol()))
    })
}

/// Tells whether the columns of a data file are those of the table, by name, and nothing else decides which rows are live.
fn is_plain(snapshot: &Snapshot) -> bool {
    let features = snapshot.protocol().reader_features().unwrap_or_default();
    !is_mapped(snapshot) && features.iter().all(|feature| PLAIN_FEATURES.contains(&feature.as_ref()))
}

fn is_mapped(snapshot: &Snapshot) -> bool {
    snapshot.metadata().configuration().get(COLUMN_MAPPING).is_some_and(|mode| mode != "none")
}

impl DeltaProvider {
    async fn plan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        session.runtime_env().register_object_store(&self.url, Arc::clone(&self.root));
        let columns = self.columns(projection);
        self.rows.scan(session, Some(&columns), filters, limit).await
    }
}

impl TableProvider for DeltaProvider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    scan_by!(DeltaProvider::plan);

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        self.rows.supports_filters_pushdown(filters)
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(self.rows.statistics()?.project(Some(&self.shown)))
    }
}
