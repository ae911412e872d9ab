//! What the compiler asks of the catalog: definitions, and the columns of tables that are looked up.

use std::fmt;
use std::sync::Arc;

use alluvium_catalog::store::CatalogStore;
use alluvium_catalog::{Connection, Dataset, DatasetKind, ErrorKind, Name, Result, Source, Table, TableName};
use alluvium_sql::tables::Version;
use alluvium_sql::{Names, TableReader};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::future::BoxFuture;

/// The catalog as the compiler sees it.
pub(crate) struct CatalogNames {
    catalog: Arc<dyn CatalogStore>,
    reader: TableReader,
}

impl CatalogNames {
    /// Returns the names of `catalog`, whose tables `reader` opens.
    pub(crate) fn new(catalog: Arc<dyn CatalogStore>, reader: TableReader) -> Self {
        Self { catalog, reader }
    }

    /// Boxed for the compiler's sake, as [`Backend`](alluvium_sql::repl::Backend) tells.
    fn columns<'a>(&'a self, dataset: &'a Dataset) -> BoxFuture<'a, Result<Option<SchemaRef>>> {
        Box::pin(async move {
            if !matches!(dataset.kind, DatasetKind::Delta | DatasetKind::DeadLetter) {
                return self.reader.columns_of_files(dataset.kind, &dataset.location).await.map(Some);
            }
            match self.reader.open(&dataset.location, Version::Latest).await {
                Ok(table) => Ok(Some(table.provider().schema())),
                // It is registered and was never written; a flow that looks it up cannot start either.
                Err(error) if error.kind() == ErrorKind::Invalid => Ok(None),
                Err(error) => Err(error),
            }
        })
    }
}

impl fmt::Debug for CatalogNames {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CatalogNames").finish_non_exhaustive()
    }
}

#[async_trait]
impl Names for CatalogNames {
    async fn connection(&self, name: &Name) -> Result<Option<Connection>> {
        Ok(self.catalog.connections().await?.into_iter().find(|connection| connection.name == *name))
    }

    async fn source(&self, name: &Name) -> Result<Option<Source>> {
        Ok(self.catalog.sources().await?.into_iter().find(|source| source.name == *name))
    }

    async fn table(&self, name: &TableName) -> Result<Option<Table>> {
        Ok(self.catalog.dataset(name).await?.and_then(|dataset| dataset.table))
    }

    async fn table_schema(&self, name: &TableName) -> Result<Option<SchemaRef>> {
        match self.catalog.dataset(name).await? {
            Some(dataset) => self.columns(&dataset).await,
            None => Ok(None),
        }
    }

    async fn datasets(&self) -> Result<Vec<Dataset>> {
        self.catalog.datasets().await
    }
}
