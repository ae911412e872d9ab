//! Reads a Delta table through deltalake's scan: deletion vectors, column mapping and file skipping are its work.
//!
//! This file is all that knows how rows of a Delta table are read; another provider can take its place. It differs from
//! deltalake's own provider in three points: it uses the program's stores, shows the types that were declared, and can
//! leave out hidden columns.

use std::sync::Arc;

use alluvium_catalog::{Error, Location, Result, Stores};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use deltalake::DeltaTableError;
use deltalake::delta_datafusion::{DeltaScanConfig, DeltaScanNext};
use deltalake::kernel::Snapshot;
use deltalake::logstore::{LogStoreRef, StorageConfig, default_logstore};
use object_store::ObjectStore;
use url::Url;

use super::HIDDEN_PREFIX;

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

/// deltalake finds stores by its own registry of URL schemes, which knows S3 only with the AWS SDK built in; so the log
/// store is put together here.
pub(super) fn log_store(stores: &Stores, location: &Location) -> Result<LogStoreRef> {
    let (root, prefixed) = (stores.root(location)?, stores.open(location)?);
    Ok(default_logstore(prefixed, root, &location.url()?, &StorageConfig::default()))
}

/// The rows of one version of a Delta table.
#[derive(Debug, Clone)]
pub(super) struct DeltaProvider {
    scan: DeltaScanNext,
    root: Arc<dyn ObjectStore>,
    url: Url,
    /// The columns shown, as indices into the scan's.
    shown: Vec<usize>,
    schema: SchemaRef,
}

impl DeltaProvider {
    /// Returns a provider of all columns of `snapshot`.
    ///
    /// # Errors
    /// `Invalid` when the table uses features that cannot be read.
    pub(super) fn try_new(stores: &Stores, location: &Location, snapshot: &Arc<Snapshot>) -> Result<Self> {
        let config = DeltaScanConfig {
            file_column_name: None,
            wrap_partition_values: false,
            enable_parquet_pushdown: true,
            schema_force_view_types: false,
            schema: None,
        };
        let scan = DeltaScanNext::new(Arc::clone(snapshot), config).map_err(|cause| {
            // What DataFusion calls its own is external here, so the kind is not to be read from it.
            Error::invalid(format!("the Delta table at {location} uses what this program cannot read"))
                .with_source(cause)
                .with_hint(format!("its protocol is {:?}", snapshot.protocol()))
        })?;
        let schema = scan.schema();
        let shown = (0..schema.fields().len()).collect();
        Ok(Self { scan, root: stores.root(location)?, url: location.url()?, shown, schema })
    }

    /// Returns the same rows without hidden columns.
    pub(super) fn without_hidden(&self) -> Self {
        let is_shown = |index: &usize| !self.scan.schema().field(*index).name().starts_with(HIDDEN_PREFIX);
        let shown: Vec<usize> = self.shown.iter().copied().filter(is_shown).collect();
        let fields: Vec<_> = shown.iter().map(|&index| Arc::clone(&self.scan.schema().fields()[index])).collect();
        let schema = arrow::datatypes::Schema::new_with_metadata(fields, self.schema.metadata().clone());
        Self { shown, schema: Arc::new(schema), ..self.clone() }
    }
}

#[async_trait]
impl TableProvider for DeltaProvider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        session.runtime_env().register_object_store(&self.url, Arc::clone(&self.root));
        let columns = match projection {
            Some(wanted) => wanted.iter().map(|&index| self.shown[index]).collect(),
            None => self.shown.clone(),
        };
        self.scan.scan(session, Some(&columns), filters, limit).await
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        self.scan.supports_filters_pushdown(filters)
    }
}
