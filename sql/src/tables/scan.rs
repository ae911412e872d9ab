//! Reads the live rows of one version of a Delta table by DataFusion's parquet source.
//!
//! ```text
//! files of the version --prune--> files that may match --group--> one parquet scan --vectors--> live rows
//! ```
//! Filters and projections reach the parquet reader as they do for a table without deletion vectors, and so do ranges of a
//! file: selections and numbers of rows are those of the whole file, whichever of its row groups a partition reads. Only
//! the vectors of files that are left after pruning are read, and their bits count against the memory of the session. Filters
//! on floating columns are asked again above the reader. Nothing here knows how a log
//! is written, and tables whose features need more (column mapping) are not for it: [`delta`](super::delta) decides.

mod places;

use std::sync::Arc;

use alluvium_catalog::{Error, Location, Result};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{ColumnStatistics, DataFusionError, ScalarValue, Statistics};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result as DfResult;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use deltalake::kernel::Snapshot;
use deltalake::logstore::LogStoreRef;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::OnceCell;
use url::Position;

use super::columns::Columns;
use super::live::{LiveFile, LiveFiles};
use super::live_rows::{HeldBits, LiveRowsExec};
use super::prune;
use super::vectors::{Deleted, VectorCache, VectorSource};
use crate::compile::plan::INT96_UNIT;
use crate::scan_by::scan_by;

/// How many deletion vectors are read at once: enough to hide the way to S3, few enough for any store.
const VECTORS_AT_ONCE: usize = 16;

/// The rows of one version of a table.
#[derive(Debug, Clone)]
pub(super) struct LiveScan {
    snapshot: Arc<Snapshot>,
    logs: LogStoreRef,
    source: VectorSource,
    url: ObjectStoreUrl,
    columns: Columns,
    vectors: Arc<VectorCache>,
    /// Listed by the first query that wants rows.
    live: Arc<OnceCell<LiveFiles>>,
}

/// What a scan reads through.
#[derive(Debug)]
pub(super) struct ScanStores {
    /// The log.
    pub(super) logs: LogStoreRef,
    /// Data files and vectors.
    pub(super) source: VectorSource,
    /// The vectors that were read last.
    pub(super) vectors: Arc<VectorCache>,
}

impl LiveScan {
    /// Returns a scan of the rows of `snapshot`, whose columns are these.
    ///
    /// # Errors
    /// `Internal` when the location of the table is not a URL.
    pub(super) fn try_new(snapshot: &Arc<Snapshot>, columns: Columns, stores: ScanStores) -> Result<Self> {
        let ScanStores { logs, source, vectors } = stores;
        let url = source.location.url()?;
        let url = ObjectStoreUrl::parse(&url[..Position::BeforePath])
            .map_err(|cause| Error::internal(format!("{} has no store", source.location)).with_source(cause))?;
        Ok(Self { snapshot: Arc::clone(snapshot), logs, source, url, columns, vectors, live: Arc::default() })
    }

    fn location(&self) -> &Location {
        &self.source.location
    }

    async fn live(&self) -> Result<&LiveFiles> {
        self.live.get_or_try_init(|| self.list()).await
    }

    /// Lists the files of the version. The log may have been cleaned up since the snapshot was loaded; it is loaded again
    /// then, since the version may still be read from a checkpoint.
    async fn list(&self) -> Result<LiveFiles> {
        let refused = match self.list_by(&self.snapshot).await {
            Ok(live) => return Ok(live),
            Err(error) => error,
        };
        match Snapshot::try_new(self.logs.as_ref(), Some(self.snapshot.version())).await {
            Ok(again) => self.list_by(&again).await,
            Err(_) => Err(refused),
        }
    }

    async fn list_by(&self, snapshot: &Snapshot) -> Result<LiveFiles> {
        LiveFiles::list(snapshot, self.logs.as_ref(), self.location(), &self.columns).await
    }

    /// Returns about how many bytes the list of its files takes, once there is one.
    pub(super) fn bytes(&self) -> usize {
        self.live.get().map_or(0, LiveFiles::bytes)
    }

    /// Returns the deleted rows of `file`, if it has any.
    async fn deleted(&self, file: &LiveFile, session: &dyn Session) -> DfResult<Option<Deleted>> {
        let Some(vector) = &file.vector else { return Ok(None) };
        let n_rows = match file.n_rows {
            Some(n_rows) => n_rows,
            None => self.count_rows(file, session).await?,
        };
        self.vectors.deleted(&self.source, vector, n_rows).await.map(Some).map_err(external)
    }

    /// Asks a file itself how many rows it has, where the log does not tell.
    async fn count_rows(&self, file: &LiveFile, session: &dyn Session) -> DfResult<u64> {
        let cache = session.runtime_env().cache_manager.get_file_metadata_cache();
        let footer = DFParquetMetadata::new(self.source.store.as_ref(), &file.meta)
            .with_file_metadata_cache(Some(cache))
            .fetch_metadata()
            .await?;
        u64::try_from(footer.file_metadata().num_rows())
            .map_err(|_| DataFusionError::Execution(format!("{} has less than no row", file.meta.location)))
    }

    fn parquet(&self, columns: &TableSchema, session: &dyn Session) -> ParquetSource {
        let mut options =
            TableParquetOptions { global: session.config_options().execution.parquet.clone(), ..Default::default() };
        options.global.pruning = true;
        options.global.enable_page_index = true;
        options.global.bloom_filter_on_read = true;
        options.global.pushdown_filters = true;
        // Whatever the session was SET to.
        options.global.coerce_int96 = Some(INT96_UNIT.to_owned());
        options.global.coerce_int96_tz = None;
        let footers = session.runtime_env().cache_manager.get_file_metadata_cache();
        let reader = CachedParquetFileReaderFactory::new(Arc::clone(&self.source.store), footers);
        ParquetSource::new(columns.clone())
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(reader))
    }
}

impl LiveScan {
    async fn plan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let live = self.live().await.map_err(external)?;
        let mut chosen = prune::choose(live, &self.columns, filters, session)?;
        // Where rows are filtered after they were read, how many are wanted says nothing of how many to read.
        let limit = limit.filter(|_| filters.iter().all(|filter| prune::is_on_partitions(filter, &self.columns)));
        if let Some(limit) = limit {
            prune::first_rows(live, &mut chosen, limit);
        }
        if chosen.is_empty() {
            let schema = self.columns.scanned.table_schema().project(&self.columns.places(projection))?;
            return Ok(Arc::new(EmptyExec::new(Arc::new(schema))));
        }
        let summary = live.summary(&chosen)?;
        let files: Vec<&LiveFile> = chosen.iter().map(|&index| &live.files[index]).collect();
        let vectors: Vec<_> = files.iter().map(|file| self.deleted(file, session)).collect();
        // The plan holds the bits of all files for as long as it runs, also those that the cache of vectors lets go.
        let granted = MemoryConsumer::new("deletion vectors").register(&session.runtime_env().memory_pool);
        let held = |deleted: DfResult<Option<Deleted>>| {
            if let Ok(Some(Deleted::Scattered(live))) = &deleted {
                granted.try_grow(live.inner().len())?;
            }
            deleted
        };
        let read = futures::stream::iter(vectors).buffered(VECTORS_AT_ONCE).map(held);
        let deleted: Vec<Option<Deleted>> = read.try_collect().await?;
        let mut files: Vec<PartitionedFile> = files.into_iter().map(partitioned).collect();
        let mut scattered = Vec::with_capacity(files.len());
        for (file, deleted) in files.iter_mut().zip(deleted) {
            scattered.push(match deleted {
                Some(Deleted::Scattered(live)) => Some(live),
                Some(Deleted::Between(runs, _)) => {
                    file.extensions.insert_arc(runs);
                    None
                }
                None => None,
            });
        }
        let wanted = Wanted {
            files,
            // A limit takes some of the rows, so what is known of all is not exact for them.
            statistics: if limit.is_some() { summary.to_inexact() } else { summary },
            projection,
            limit,
        };
        // Where a filter names a floating column it is asked again above the reader, which the plan of live rows sees to.
        match scattered.iter().any(Option::is_some) || prune::name_floats(filters, &self.columns) {
            true => self.live_rows(wanted, HeldBits::new(scattered.into(), granted), session),
            false => self.all_rows(wanted, session),
        }
    }

    /// Reads the rows that the reader itself can tell to be live.
    fn all_rows(&self, wanted: Wanted<'_>, session: &dyn Session) -> DfResult<Arc<dyn ExecutionPlan>> {
        let Wanted { files, statistics, projection, limit } = wanted;
        let source = self.parquet(&self.columns.scanned, session);
        let config = FileScanConfigBuilder::new(self.url.clone(), Arc::new(source))
            .with_file_groups(groups(files, session.config().target_partitions()))
            .with_statistics(statistics)
            .with_projection_indices(Some(self.columns.places(projection)))?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    /// Reads all rows of files that have lost some, and leaves these out. Where a limit stands above, it ends the scan: how
    /// many rows have to be read for it is not known before.
    fn live_rows(&self, wanted: Wanted<'_>, live: HeldBits, session: &dyn Session) -> DfResult<Arc<dyn ExecutionPlan>> {
        let Wanted { mut files, mut statistics, projection, limit: _ } = wanted;
        for (number, file) in (0_u32..).zip(&mut files) {
            file.partition_values.push(ScalarValue::UInt32(Some(number)));
        }
        let n_columns = self.columns.placed.table_schema().fields().len();
        statistics.column_statistics.resize_with(n_columns, ColumnStatistics::new_unknown);
        let source = self.parquet(&self.columns.placed, session);
        let config = FileScanConfigBuilder::new(self.url.clone(), Arc::new(source))
            .with_file_groups(groups(files, session.config().target_partitions()))
            .with_statistics(statistics)
            .with_projection_indices(Some(self.columns.places_and_rows(projection)))?
            .build();
        Ok(Arc::new(LiveRowsExec::try_new(DataSourceExec::from_data_source(config), live)?))
    }
}

/// What of which files a scan is to read.
struct Wanted<'a> {
    files: Vec<PartitionedFile>,
    statistics: Statistics,
    projection: Option<&'a Vec<usize>>,
    limit: Option<usize>,
}

/// Returns `file` as DataFusion reads it.
fn partitioned(file: &LiveFile) -> PartitionedFile {
    let mut partitioned = PartitionedFile::new_from_meta(file.meta.clone());
    partitioned.partition_values.clone_from(&file.partition);
    partitioned.statistics = Some(Arc::clone(&file.statistics));
    partitioned
}

impl TableProvider for LiveScan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.columns.declared)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    scan_by!(LiveScan::plan);

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match prune::is_on_partitions(filter, &self.columns) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(support).collect())
    }

    /// Known once a query has listed the files.
    fn statistics(&self) -> Option<Statistics> {
        let live = self.live.get()?;
        let chosen: Vec<usize> = (0..live.files.len()).collect();
        let summary = live.summary(&chosen).ok()?;
        Some(summary.project(Some(&self.columns.places(None))))
    }
}

/// Spreads `files` over at most `n_groups` groups of about the same size, so that a scan is parallel from the start.
///
/// DataFusion then cuts all of it anew into ranges of the same size, and reads a row group where its first byte is: a cut a
/// little behind the begin of a file leaves the whole of it to the range before. So the largest group comes first: a cut
/// then falls before the end of a group, and never into the first file of the next.
fn groups(mut files: Vec<PartitionedFile>, n_groups: usize) -> Vec<FileGroup> {
    let mut groups: Vec<(u64, Vec<PartitionedFile>)> = vec![(0, Vec::new()); n_groups.clamp(1, files.len().max(1))];
    files.sort_by_key(|file| std::cmp::Reverse(file.object_meta.size));
    for file in files {
        if let Some((size, group)) = groups.iter_mut().min_by_key(|(size, group)| (*size, group.len())) {
            *size += file.object_meta.size;
            group.push(file);
        }
    }
    groups.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    groups.into_iter().map(|(_, group)| FileGroup::new(group)).collect()
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

#[cfg(test)]
mod tests;
