//! Opens tables for reading: Delta tables at a version, and folders of parquet, CSV or JSON files.
//!
//! A [`TableReader`] reaches data through the stores of the catalog crate only and never writes. What it opens is one
//! version of a table: it stays the same however the table moves on, until it is [refreshed](TableReader::refresh). The
//! newest versions that were opened lately are kept, and followed by the next who opens them.
//! Before it: the catalog, which knows where tables are. After it: the [session](crate::session) and the
//! [transform](crate::transform), which query them.

mod columns;
mod delta;
mod files;
mod head;
mod history;
mod kept;
mod live;
mod live_rows;
mod log;
mod point;
mod prune;
mod scan;
mod statistics;
mod tail;
mod vectors;

use std::sync::Arc;

use alluvium_catalog::store::CatalogStore;
use alluvium_catalog::{Dataset, DatasetKind, Error, Location, Result, Stores, TableName, Timestamp};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use deltalake::kernel::Snapshot;

pub use history::HistoryEntry;

use crate::diagnostic::nearest;
use crate::locate::Located;
use delta::DeltaProvider;
use head::{Head, News};
use kept::KeptTables;
use log::Log;
use vectors::VectorCache;

/// What the names of the columns begin with that `SELECT *` leaves out.
pub(crate) const HIDDEN_PREFIX: &str = "_alluvium_";

/// How many versions a log is followed by looking for each, before it is listed again: for more, one LIST costs less, and
/// checkpoints that were written meanwhile are found.
pub(crate) const VERSIONS_MAX: u64 = 32;

/// Which version of a table is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// The newest.
    Latest,
    /// This one: `VERSION AS OF`.
    At(u64),
    /// The newest that was committed at or before this time, by the times of its log: `TIMESTAMP AS OF`.
    AsOf(Timestamp),
}

/// Opens tables and files for reading.
#[derive(Debug)]
pub struct TableReader {
    stores: Stores,
    catalog: Arc<dyn CatalogStore>,
    vectors: Arc<VectorCache>,
    kept: KeptTables,
}

impl TableReader {
    /// Returns a reader that reaches data through `stores` and learns from `catalog` where named tables are.
    pub fn new(stores: Stores, catalog: Arc<dyn CatalogStore>) -> Self {
        Self { stores, catalog, vectors: Arc::new(VectorCache::new()), kept: KeptTables::default() }
    }

    /// Returns the dataset of this name.
    ///
    /// # Errors
    /// `Invalid` when the catalog has none, with the nearest name as hint.
    pub async fn dataset(&self, name: &TableName) -> Result<Dataset> {
        if let Some(dataset) = self.catalog.dataset(name).await? {
            return Ok(dataset);
        }
        let known: Vec<String> =
            self.catalog.datasets().await?.iter().map(|dataset| dataset.name.to_string()).collect();
        let error = Error::invalid(format!("the catalog has no table {name}"));
        Err(match nearest(&name.to_string(), known.iter().map(String::as_str)) {
            Some(hint) => error.with_hint(hint),
            None => error,
        })
    }

    /// Opens the Delta table at `location` at `version`.
    ///
    /// # Errors
    /// `Invalid` when there is no Delta table, the version does not exist (the hint names those that do), or the table
    /// uses features that cannot be read; `Unavailable` when the store does not answer; `Data` when the log is damaged.
    pub async fn open(&self, location: &Location, version: Version) -> Result<OpenTable> {
        match version {
            Version::Latest => match self.kept.get(location) {
                Some(kept) => self.refresh(&kept).await,
                None => self.load_newest(location).await,
            },
            Version::At(number) => self.load(location, Some(number)).await,
            Version::AsOf(time) => {
                let number = Log::new(self.stores.open(location)?, location).version_at(time).await?;
                self.load(location, Some(number)).await
            }
        }
    }

    /// Returns `table` at the newest version. It reads only what the log gained since: where that is nothing, two requests
    /// say so. A table that was made anew at its place, or whose log no longer reaches back to it, is opened again.
    ///
    /// # Errors
    /// As [`TableReader::open`].
    pub async fn refresh(&self, table: &OpenTable) -> Result<OpenTable> {
        let news = match &table.head {
            Some(head) => head.news(self.stores.open(&table.location)?.as_ref(), &table.location).await?,
            None => News::Replaced,
        };
        match news {
            News::Unchanged => return Ok(table.clone()),
            News::Grown => {
                if let Some(grown) = self.follow(table).await? {
                    return self.keep(grown).await;
                }
            }
            News::Replaced => {}
        }
        self.load_newest(&table.location).await
    }

    /// Returns `table`, whose log has grown, at its newest version; `None` where it has to be loaded.
    async fn follow(&self, table: &OpenTable) -> Result<Option<OpenTable>> {
        let (stores, location, version) = (&self.stores, &table.location, table.version());
        let is_listed_lately = version < table.listed + VERSIONS_MAX;
        if is_listed_lately
            && !head::holds(stores.open(location)?.as_ref(), location, version + VERSIONS_MAX).await?
            && let Ok(snapshot) = delta::follow(stores, location, &table.snapshot).await
        {
            return Ok(Some(OpenTable { listed: table.listed, ..self.opened(location, snapshot)? }));
        }
        match delta::update(stores, location, &table.snapshot).await {
            Ok(snapshot) => self.opened(location, snapshot).map(Some),
            Err(_) => Ok(None),
        }
    }

    async fn load_newest(&self, location: &Location) -> Result<OpenTable> {
        let table = self.load(location, None).await?;
        self.keep(table).await
    }

    async fn load(&self, location: &Location, version: Option<u64>) -> Result<OpenTable> {
        match delta::load(&self.stores, location, version).await {
            Ok(snapshot) => self.opened(location, snapshot),
            Err(cause) => Err(Log::new(self.stores.open(location)?, location).explain(version, cause).await),
        }
    }

    fn opened(&self, location: &Location, snapshot: Arc<Snapshot>) -> Result<OpenTable> {
        let provider = Arc::new(DeltaProvider::try_new(&self.stores, location, &snapshot, &self.vectors)?);
        Ok(OpenTable { location: location.clone(), listed: snapshot.version(), snapshot, provider, head: None })
    }

    /// Keeps a table that was opened at its newest version, if it can be told later whether it still is.
    async fn keep(&self, mut table: OpenTable) -> Result<OpenTable> {
        let store = self.stores.open(&table.location)?;
        table.head = Head::read(store.as_ref(), &table.location, table.version()).await?;
        if table.head.is_some() {
            self.kept.put(&table);
        }
        Ok(table)
    }

    /// Opens the parquet, CSV or JSON files below `location`. Their columns are found by looking into the files, with
    /// `session`'s limits; the files are listed again by each query.
    ///
    /// # Errors
    /// `Invalid` when there are no such files, `Unavailable` when the store does not answer, `Data` when they cannot be
    /// understood.
    pub async fn open_files(
        &self,
        kind: DatasetKind,
        location: &Location,
        session: &dyn Session,
    ) -> Result<Arc<dyn TableProvider>> {
        self.register_store(location, session)?;
        files::open(kind, location, session).await
    }

    /// Returns the columns of the files of `kind` below `location`, as a query sees them now.
    ///
    /// # Errors
    /// As [`TableReader::open_files`].
    pub async fn columns_of_files(&self, kind: DatasetKind, location: &Location) -> Result<SchemaRef> {
        let session = SessionContext::new();
        Ok(self.open_files(kind, location, &session.state()).await?.schema())
    }

    /// Makes the store of `location` known to the queries of `session`.
    ///
    /// # Errors
    /// `Invalid` when the settings do not suffice to reach it.
    pub fn register_store(&self, location: &Location, session: &dyn Session) -> Result<()> {
        let root = self.stores.root(location)?;
        session.runtime_env().register_object_store(&location.url()?, root);
        Ok(())
    }

    /// Returns the newest `limit` versions of the Delta table at `location`, newest first, as its log tells them.
    ///
    /// # Errors
    /// As [`TableReader::open`].
    pub async fn history(&self, location: &Location, limit: usize) -> Result<Vec<HistoryEntry>> {
        Log::new(self.stores.open(location)?, location).history(limit).await
    }
}

/// One version of a Delta table.
#[derive(Debug, Clone)]
pub struct OpenTable {
    location: Location,
    snapshot: Arc<Snapshot>,
    provider: Arc<DeltaProvider>,
    /// By which it is seen that the table has moved on; none for a version that was asked for by number or time.
    head: Option<Head>,
    /// The version up to which the log was listed, not only followed.
    listed: u64,
}

/// What DataFusion asks a table for.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The session of the query.
    pub(crate) session: &'a dyn Session,
    /// The columns, of those that are shown.
    pub(crate) projection: Option<&'a Vec<usize>>,
    /// What rows have to match.
    pub(crate) filters: &'a [Expr],
}

impl OpenTable {
    /// Returns where the table is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Returns the Delta version.
    pub fn version(&self) -> u64 {
        self.snapshot.version()
    }

    /// Returns all columns, hidden ones included, in the types that columns are declared in: text is `Utf8`, never a view
    /// or a dictionary.
    pub fn schema(&self) -> SchemaRef {
        self.provider.schema()
    }

    /// Returns a provider of all columns, hidden ones included.
    pub fn provider_with_hidden(&self) -> Arc<dyn TableProvider> {
        Arc::clone(&self.provider) as Arc<dyn TableProvider>
    }

    /// Returns a provider without the hidden columns, so that no `*` shows them.
    pub fn provider(&self) -> Arc<dyn TableProvider> {
        Arc::new(self.provider.without_hidden())
    }

    /// Returns a plan that reads the rows of `located` that may match what is `asked`, and no others; `None` where that is
    /// of another table or version than this, or names files that cannot be read without the log.
    pub(crate) fn rows_at(
        &self,
        located: &Located,
        shows_hidden: bool,
        asked: Asked<'_>,
    ) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
        if located.version != self.version() || located.table_id != self.snapshot.metadata().id() {
            return Ok(None);
        }
        match shows_hidden {
            true => self.provider.rows_at(located, asked),
            false => self.provider.without_hidden().rows_at(located, asked),
        }
    }
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
