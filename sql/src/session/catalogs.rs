//! The tables that one query sees: what the catalog store knows, opened when the query names it.
//!
//! DataFusion asks by catalog, schema and table. The catalog part says which version is meant ([`Pin`]); the schemas are
//! those of the datasets, and `system`. A version that was opened stays the same for the whole query.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use alluvium_catalog::store::CatalogStore;
use alluvium_catalog::{Dataset, DatasetKind, Error, Name, Result, TableName};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::datasource::MemTable;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::SessionState;
use datafusion::logical_expr::TableType;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as DfStatement;
use futures::future::BoxFuture;
use tokio::sync::OnceCell;

use super::keyed::KeyedTable;
use super::pin::{CATALOG, Pin};
use super::{Peek, failure};

use crate::diagnostic::nearest;
use crate::locate::Locate;
use crate::system::{self, SystemSchema};
use crate::tables::{OpenTable, TableReader, Version};

/// What a query can know.
pub(super) struct Known {
    /// The datasets; the first of a name counts.
    pub(super) datasets: Vec<Dataset>,
    /// The sources, where they can be read.
    pub(super) sources: Vec<Name>,
    /// The store behind `system`.
    pub(super) catalog: Arc<dyn CatalogStore>,
    /// What opens tables.
    pub(super) reader: Arc<TableReader>,
    /// What reads sources.
    pub(super) peek: Option<Arc<dyn Peek>>,
    /// What knows where rows are.
    pub(super) locate: Option<Arc<dyn Locate>>,
}

/// All catalogs that one query can name.
#[derive(Clone)]
pub(super) struct QueryCatalogs {
    shared: Arc<Shared>,
}

struct Shared {
    known: Known,
    /// The session, whose own catalog holds external tables.
    session: SessionContext,
    opened: Mutex<HashMap<(TableName, Version), OpenTable>>,
    /// Of tables with a key, what the first scan of the query has settled on.
    settled: Mutex<HashMap<TableName, Arc<OnceCell<OpenTable>>>>,
}

impl QueryCatalogs {
    /// Returns the catalogs of one query over what is `known`; external tables are `session`'s.
    pub(super) fn new(known: Known, session: SessionContext) -> Self {
        Self { shared: Arc::new(Shared { known, session, opened: Mutex::default(), settled: Mutex::default() }) }
    }

    /// Returns the dataset of this name.
    pub(super) fn dataset(&self, name: &TableName) -> Option<&Dataset> {
        self.shared.known.datasets.iter().find(|dataset| dataset.name == *name)
    }

    /// Returns the error for a name that stands for nothing.
    pub(super) fn unknown(&self, name: &TableName) -> Error {
        let error = Error::invalid(format!("there is no table {name}"));
        match self.nearest(name) {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }

    /// Returns the table `name` at `version`; within a query the same each time.
    pub(super) async fn open(&self, dataset: &Dataset, version: Version) -> Result<OpenTable> {
        let key = (dataset.name.clone(), version);
        let opened = || self.shared.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = opened().get(&key) {
            return Ok(table.clone());
        }
        let table = self.shared.known.reader.open(&dataset.location, version).await?;
        // Whoever came first decides the version, so that one query never sees two.
        Ok(opened().entry(key).or_insert(table).clone())
    }

    /// Turns the failure to plan `statement` into this program's error, with the nearest name where a table is unknown.
    pub(super) fn explain(&self, state: &SessionState, statement: &DfStatement, cause: DataFusionError) -> Error {
        let error = failure::from_datafusion(failure::PLANNING, cause);
        if error.hint().is_some() {
            return error;
        }
        let Ok(references) = state.resolve_table_references(statement) else {
            return error;
        };
        let missing = references.into_iter().find_map(|reference| {
            let schema = reference.schema().unwrap_or(TableName::DEFAULT_SCHEMA);
            let name = TableName::try_new(schema, reference.table()).ok()?;
            let exists = DatasetSchema { catalogs: self.clone(), pin: Pin::NEWEST, schema: schema.to_owned() }
                .table_exist(reference.table());
            (!exists && schema != "information_schema" && schema != system::SCHEMA).then_some(name)
        });
        match missing.and_then(|name| self.nearest(&name)) {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }

    fn nearest(&self, name: &TableName) -> Option<String> {
        let known: Vec<String> = self.shared.known.datasets.iter().map(|dataset| dataset.name.to_string()).collect();
        nearest(&name.to_string(), known.iter().map(String::as_str))
    }

    async fn provider(&self, name: &TableName, pin: Pin) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(dataset) = self.dataset(name) {
            return self.dataset_provider(dataset, pin).await.map(Some);
        }
        if pin == Pin::NEWEST {
            if let Some(external) = self.external(name).await? {
                return Ok(Some(external));
            }
            return self.peeked(name).await;
        }
        Ok(None)
    }

    async fn dataset_provider(&self, dataset: &Dataset, pin: Pin) -> Result<Arc<dyn TableProvider>> {
        match dataset.kind {
            DatasetKind::Delta | DatasetKind::DeadLetter => {
                let table = self.open(dataset, pin.version).await?;
                if let Some(keyed) = self.keyed(dataset, pin, &table) {
                    return Ok(Arc::new(keyed));
                }
                Ok(if pin.hidden { table.provider_with_hidden() } else { table.provider() })
            }
            DatasetKind::Parquet | DatasetKind::Csv | DatasetKind::Json if pin.version == Version::Latest => {
                let state = self.shared.session.state();
                self.shared.known.reader.open_files(dataset.kind, &dataset.location, &state).await
            }
            _ => Err(Error::invalid(format!("{} is not a Delta table and has no versions", dataset.name))),
        }
    }

    /// Returns `table` with a way to look rows up by the key that was declared for it.
    fn keyed(&self, dataset: &Dataset, pin: Pin, table: &OpenTable) -> Option<KeyedTable> {
        let locate = self.shared.known.locate.as_ref()?;
        let keys = &dataset.table.as_ref()?.primary_key;
        if keys.is_empty() || pin.version != Version::Latest {
            return None;
        }
        let mut settled = self.shared.settled.lock().unwrap_or_else(PoisonError::into_inner);
        Some(KeyedTable {
            name: dataset.name.clone(),
            keys: keys.clone(),
            opened: table.clone(),
            settled: Arc::clone(settled.entry(dataset.name.clone()).or_default()),
            shows_hidden: pin.hidden,
            reader: Arc::clone(&self.shared.known.reader),
            locate: Arc::clone(locate),
        })
    }

    async fn external(&self, name: &TableName) -> Result<Option<Arc<dyn TableProvider>>> {
        let schema = self.shared.session.catalog(CATALOG).and_then(|catalog| catalog.schema(name.schema()));
        let Some(schema) = schema else {
            return Ok(None);
        };
        let found = schema.table(name.table()).await;
        found.map_err(|cause| failure::from_datafusion(format!("cannot open {name}"), cause))
    }

    async fn peeked(&self, name: &TableName) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some((peek, source)) = self.source(name) else {
            return Ok(None);
        };
        let rows = peek.peek(source).await?;
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]])
            .map_err(|cause| failure::from_datafusion(format!("cannot show records of {source}"), cause))?;
        Ok(Some(Arc::new(table)))
    }

    /// A source has no schema; its name stands where a table of `default` would.
    fn source(&self, name: &TableName) -> Option<(&Arc<dyn Peek>, &Name)> {
        let source = self.shared.known.sources.iter().find(|source| source.as_str() == name.table())?;
        (name.schema() == TableName::DEFAULT_SCHEMA).then_some((self.shared.known.peek.as_ref()?, source))
    }

    fn schemas(&self) -> BTreeSet<String> {
        let mut schemas: BTreeSet<String> =
            self.shared.known.datasets.iter().map(|dataset| dataset.name.schema().to_owned()).collect();
        if let Some(external) = self.shared.session.catalog(CATALOG) {
            schemas.extend(external.schema_names());
        }
        schemas.insert(TableName::DEFAULT_SCHEMA.to_owned());
        schemas
    }
}

impl fmt::Debug for QueryCatalogs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("QueryCatalogs").field("schemas", &self.schemas()).finish_non_exhaustive()
    }
}

impl CatalogProviderList for QueryCatalogs {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        let pin = Pin::read(name)?;
        Some(Arc::new(PinnedCatalog { catalogs: self.clone(), pin }))
    }
}

/// The catalog's tables at one version.
#[derive(Debug)]
struct PinnedCatalog {
    catalogs: QueryCatalogs,
    pin: Pin,
}

impl CatalogProvider for PinnedCatalog {
    fn schema_names(&self) -> Vec<String> {
        let mut schemas = self.catalogs.schemas();
        schemas.insert(system::SCHEMA.to_owned());
        schemas.into_iter().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if name == system::SCHEMA {
            // It shows what there is now, and is not to be found where another version is meant.
            let system = || SystemSchema::new(Arc::clone(&self.catalogs.shared.known.catalog));
            let is_now = self.pin.version == Version::Latest;
            return is_now.then(|| Arc::new(system()) as Arc<dyn SchemaProvider>);
        }
        let schema = DatasetSchema { catalogs: self.catalogs.clone(), pin: self.pin, schema: name.to_owned() };
        self.catalogs.schemas().contains(name).then(|| Arc::new(schema) as Arc<dyn SchemaProvider>)
    }
}

/// The tables of one schema at one version.
#[derive(Debug)]
struct DatasetSchema {
    catalogs: QueryCatalogs,
    pin: Pin,
    schema: String,
}

/// A table for DataFusion, if there is one.
type OpenedTable = DfResult<Option<Arc<dyn TableProvider>>>;

impl DatasetSchema {
    /// A text that cannot be a name is no table's.
    fn name(&self, table: &str) -> Option<TableName> {
        TableName::try_new(&self.schema, table).ok()
    }

    async fn open(&self, name: &str) -> OpenedTable {
        let Some(name) = self.name(name) else {
            return Ok(None);
        };
        let provider = self.catalogs.provider(&name, self.pin).await;
        provider.map_err(|error| DataFusionError::External(Box::new(error)))
    }
}

#[async_trait]
impl SchemaProvider for DatasetSchema {
    fn table_names(&self) -> Vec<String> {
        let datasets = self.catalogs.shared.known.datasets.iter().map(|dataset| &dataset.name);
        let mut names: BTreeSet<String> =
            datasets.filter(|name| name.schema() == self.schema).map(|name| name.table().to_owned()).collect();
        let external = self.catalogs.shared.session.catalog(CATALOG);
        if let Some(external) = external.and_then(|catalog| catalog.schema(&self.schema)) {
            names.extend(external.table_names());
        }
        names.into_iter().collect()
    }

    /// Written out for the compiler's sake, as `scan_by` is.
    fn table<'schema, 'name, 'table>(&'schema self, name: &'name str) -> BoxFuture<'table, OpenedTable>
    where
        'schema: 'table,
        'name: 'table,
        Self: 'table,
    {
        fn boxed<'table>(schema: &'table DatasetSchema, name: &'table str) -> BoxFuture<'table, OpenedTable> {
            Box::pin(schema.open(name))
        }
        boxed(self, name)
    }

    /// Lists of tables ask this of every table; it must not open any.
    async fn table_type(&self, name: &str) -> DfResult<Option<TableType>> {
        Ok(self.table_exist(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        let is_known = |name: &TableName| self.catalogs.dataset(name).is_some() || self.catalogs.source(name).is_some();
        self.name(name).is_some_and(|name| is_known(&name)) || self.table_names().iter().any(|table| table == name)
    }
}
