//! The catalog in SQL: `system.datasets`, `system.flows`, `system.commits` and the like, read-only.
//!
//! A table here holds nothing: each scan asks the catalog store and lays its answer out as rows. JSON stands in columns
//! where a value has no fixed shape, so that nothing the catalog knows is left out.

mod columns;
mod rows;

use std::sync::Arc;

use alluvium_catalog::Result;
use alluvium_catalog::store::CatalogStore;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, Session, TableProvider};
use datafusion::common::exec_err;
use datafusion::datasource::MemTable;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

pub(crate) use columns::Columns;

use crate::scan_by::scan_by;

/// The schema that holds these tables.
pub(crate) const SCHEMA: &str = "system";

/// More rows than any catalog holds, and still a number that SQLite takes.
const ALL: usize = i64::MAX as usize;

/// The tables of [`SCHEMA`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SystemTable {
    Connections,
    Sources,
    Datasets,
    Flows,
    Runs,
    Commits,
    CommitInputs,
}

impl SystemTable {
    const EVERY: [Self; 7] =
        [Self::Connections, Self::Sources, Self::Datasets, Self::Flows, Self::Runs, Self::Commits, Self::CommitInputs];

    fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Sources => "sources",
            Self::Datasets => "datasets",
            Self::Flows => "flows",
            Self::Runs => "runs",
            Self::Commits => "commits",
            Self::CommitInputs => "commit_inputs",
        }
    }

    /// Returns the columns: those of no rows.
    fn schema(self) -> Result<SchemaRef> {
        let empty = match self {
            Self::Connections => rows::connections(&[]),
            Self::Sources => rows::sources(&[]),
            Self::Datasets => rows::datasets(&[]),
            Self::Flows => rows::flows(&[]),
            Self::Runs => rows::runs(&[]),
            Self::Commits => rows::commits(&[], &[]),
            Self::CommitInputs => rows::commit_inputs(&[]),
        };
        Ok(empty?.schema())
    }

    /// Asks the catalog for at least the first `limit` rows.
    async fn rows(self, catalog: &dyn CatalogStore, limit: usize) -> Result<RecordBatch> {
        match self {
            Self::Connections => rows::connections(&catalog.connections().await?),
            Self::Sources => rows::sources(&catalog.sources().await?),
            Self::Datasets => rows::datasets(&catalog.datasets().await?),
            Self::Flows => rows::flows(&catalog.flows().await?),
            Self::Runs => rows::runs(&catalog.runs(limit).await?),
            Self::Commits => rows::commits(&catalog.commits(None, limit).await?, &catalog.flows().await?),
            // Every commit has an input, so as many commits have at least as many rows.
            Self::CommitInputs => rows::commit_inputs(&catalog.commits(None, limit).await?),
        }
    }
}

/// The schema `system`.
#[derive(Debug)]
pub(crate) struct SystemSchema {
    catalog: Arc<dyn CatalogStore>,
}

impl SystemSchema {
    /// Returns the schema over `catalog`.
    pub(crate) fn new(catalog: Arc<dyn CatalogStore>) -> Self {
        Self { catalog }
    }
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        SystemTable::EVERY.iter().map(|table| table.name().to_owned()).collect()
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let Some(&table) = SystemTable::EVERY.iter().find(|table| table.name() == name) else {
            return Ok(None);
        };
        let schema = table.schema().map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(Some(Arc::new(SystemProvider { table, schema, catalog: Arc::clone(&self.catalog) })))
    }

    async fn table_type(&self, name: &str) -> DfResult<Option<TableType>> {
        Ok(self.table_exist(name).then_some(TableType::View))
    }

    fn register_table(&self, name: String, _: Arc<dyn TableProvider>) -> DfResult<Option<Arc<dyn TableProvider>>> {
        exec_err!("cannot create {SCHEMA}.{name}: the schema {SCHEMA} is the catalog's own")
    }

    fn table_exist(&self, name: &str) -> bool {
        SystemTable::EVERY.iter().any(|table| table.name() == name)
    }
}

#[derive(Debug)]
struct SystemProvider {
    table: SystemTable,
    schema: SchemaRef,
    catalog: Arc<dyn CatalogStore>,
}

impl SystemProvider {
    async fn plan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let rows = self
            .table
            .rows(self.catalog.as_ref(), limit.unwrap_or(ALL))
            .await
            .map_err(|error| DataFusionError::External(Box::new(error)))?;
        let memory = MemTable::try_new(self.schema(), vec![vec![rows]])?;
        memory.scan(session, projection, filters, limit).await
    }
}

impl TableProvider for SystemProvider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    scan_by!(SystemProvider::plan);
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
