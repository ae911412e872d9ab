//! Turns the statements of SQL files into a [`Pipeline`] in which everything is resolved, typed and checked.
//!
//! ```text
//! statements --scope--> definitions by name --source, table--> columns and settings --flow--> Flow
//! ```
//! All errors of all statements are reported at once; what hangs on a broken definition is left out in silence, so that
//! one slip is one error. The compiler touches no data: it asks the catalog for definitions and for the columns of
//! tables, nothing else.

mod clustering;
mod flow;
mod output;
pub(crate) mod places;
pub(crate) mod plan;
mod scope;
mod shape;
mod source;
mod streamed;
mod table;
mod typed;
mod upsert;

use std::sync::Arc;

use alluvium_catalog::{Connection, Dataset, Location, Name, Result, Source, Table, TableName};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use crate::diagnostic::{Diagnostics, SourceText};
use crate::parser::parse_file;
use crate::pipeline::{BatchLimits, Pipeline};
use scope::Scope;

/// What the catalog knows already: definitions that a file may name without making them.
#[async_trait]
pub trait Names: Send + Sync {
    /// Returns a connection.
    ///
    /// # Errors
    /// What the catalog says when it cannot be asked.
    async fn connection(&self, name: &Name) -> Result<Option<Connection>>;

    /// Returns a source.
    ///
    /// # Errors
    /// What the catalog says when it cannot be asked.
    async fn source(&self, name: &Name) -> Result<Option<Source>>;

    /// Returns a table that a pipeline declared.
    ///
    /// # Errors
    /// What the catalog says when it cannot be asked.
    async fn table(&self, name: &TableName) -> Result<Option<Table>>;

    /// Returns the columns of anything that can be looked up, without hidden ones.
    ///
    /// # Errors
    /// What the catalog or the store says when they cannot be asked.
    async fn table_schema(&self, name: &TableName) -> Result<Option<SchemaRef>>;

    /// Returns all that is registered.
    ///
    /// # Errors
    /// What the catalog says when it cannot be asked.
    async fn datasets(&self) -> Result<Vec<Dataset>>;
}

/// Compiles SQL files against a warehouse and a catalog.
#[derive(Clone)]
pub struct Compiler {
    warehouse: Location,
    names: Arc<dyn Names>,
    batch: BatchLimits,
}

impl std::fmt::Debug for Compiler {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Compiler").field("warehouse", &self.warehouse).finish_non_exhaustive()
    }
}

impl Compiler {
    /// Returns a compiler that puts tables without LOCATION at `<warehouse>/<schema>/<table>` and finds in `names` what
    /// the files do not define.
    pub fn new(warehouse: Location, names: Arc<dyn Names>) -> Self {
        Self { warehouse, names, batch: BatchLimits::default() }
    }

    /// Lets the batches of flows that do not say so themselves close by `batch`.
    #[must_use]
    pub fn with_batch(self, batch: BatchLimits) -> Self {
        Self { batch, ..self }
    }

    /// Returns the flows of `files`, which see each other's definitions.
    ///
    /// # Errors
    /// All errors of all statements that can be found: those of the grammar if there are any, else those of meaning.
    pub async fn compile(&self, files: &[Arc<SourceText>]) -> Result<Pipeline, Diagnostics> {
        let mut parsed = Vec::new();
        let mut unreadable = Vec::new();
        for file in files {
            match parse_file(file) {
                Ok(statements) => parsed.push((Arc::clone(file), statements)),
                Err(Diagnostics(mut diagnostics)) => unreadable.append(&mut diagnostics),
            }
        }
        if !unreadable.is_empty() {
            return Err(Diagnostics(unreadable));
        }
        let mut scope = Scope::new(&self.warehouse, self.names.as_ref(), self.batch);
        let flows = scope.define(parsed);
        scope.check_appended(&flows);
        let mut pipeline = Pipeline::default();
        for flow in flows {
            pipeline.flows.extend(flow::compile(&mut scope, &flow).await.map(Arc::new));
        }
        scope.check_tables();
        scope.check_locations().await;
        scope.check_sources().await;
        let diagnostics = scope.into_diagnostics();
        if diagnostics.is_empty() { Ok(pipeline) } else { Err(Diagnostics(diagnostics).sorted()) }
    }

    /// Returns the definitions that `files` make beside flows: connections, sources and tables in the order of their
    /// names.
    ///
    /// # Errors
    /// As [`Compiler::compile`].
    pub fn definitions(&self, files: &[Arc<SourceText>]) -> Result<Definitions, Diagnostics> {
        let mut parsed = Vec::new();
        for file in files {
            parsed.push((Arc::clone(file), parse_file(file)?));
        }
        let mut scope = Scope::new(&self.warehouse, self.names.as_ref(), self.batch);
        let _ = scope.define(parsed);
        scope.into_definitions()
    }
}

/// What files define beside flows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Definitions {
    /// Connections.
    pub connections: Vec<Connection>,
    /// Sources.
    pub sources: Vec<Source>,
    /// Tables; one that is declared without columns has them from the flow that fills it, and none here.
    pub tables: Vec<Table>,
}

#[cfg(test)]
mod tests;
