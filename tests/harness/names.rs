//! A catalog that knows nothing, for SQL that names only what it makes.

use alluvium_catalog::{Connection, Dataset, Name, Result, Source, Table, TableName};
use alluvium_sql::Names;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

/// Knows no name.
pub(crate) struct NoNames;

#[async_trait]
impl Names for NoNames {
    async fn connection(&self, _: &Name) -> Result<Option<Connection>> {
        Ok(None)
    }
    async fn source(&self, _: &Name) -> Result<Option<Source>> {
        Ok(None)
    }
    async fn table(&self, _: &TableName) -> Result<Option<Table>> {
        Ok(None)
    }
    async fn table_schema(&self, _: &TableName) -> Result<Option<SchemaRef>> {
        Ok(None)
    }
    async fn datasets(&self) -> Result<Vec<Dataset>> {
        Ok(Vec::new())
    }
}
