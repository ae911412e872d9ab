//! The pipeline that is measured: one topic into one table, by adding every row or by keeping the newest of each key.

use std::path::Path;
use std::sync::Arc;

use alluvium_catalog::{Connection, Dataset, Error, Location, Name, Result, Source, Table, TableName};
use alluvium_sql::{Compiler, Flow, Names, SourceText};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// What a flow does with its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FlowKind {
    Append,
    Upsert,
}

impl FlowKind {
    /// Returns the word that results go under.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Upsert => "upsert",
        }
    }

    /// Returns the flow's table.
    pub(crate) fn table(self) -> String {
        format!("bench.{}", self.as_str())
    }
}

/// When a flow's batches close, where that is not left to the engine.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Batches {
    pub(crate) rows: Option<u64>,
    pub(crate) interval_ms: Option<u64>,
}

/// Returns the SQL file of a flow over `topic`.
pub(crate) fn sql(kind: FlowKind, bootstrap: &str, topic: &str, batches: Batches) -> String {
    const COLUMNS: &str = "order_id, customer, amount, status, quantity, updated_at, note";
    const TYPES: &str = "order_id BIGINT NOT NULL, customer STRING, amount DECIMAL(18,2), status STRING, \
                         quantity BIGINT, updated_at TIMESTAMP, note STRING";
    let table = kind.table();
    let rows = batches.rows.map(|rows| format!("'commit.rows' = '{rows}'"));
    let interval = batches.interval_ms.map(|millis| format!("'commit.interval' = '{millis} ms'"));
    let options: Vec<String> = rows.into_iter().chain(interval).collect();
    let with = if options.is_empty() { String::new() } else { format!(" WITH ({})", options.join(", ")) };
    let (key, change) = match kind {
        FlowKind::Append => ("", format!("INSERT INTO {table} BY NAME SELECT {COLUMNS} FROM STREAM(orders)")),
        FlowKind::Upsert => (
            ", PRIMARY KEY (order_id) NOT ENFORCED",
            format!(
                "AUTO CDC INTO {table} FROM (SELECT {COLUMNS} FROM STREAM(orders)) \
                 KEYS (order_id) SEQUENCE BY updated_at STORED AS SCD TYPE 1"
            ),
        ),
    };
    format!(
        "CREATE CONNECTION broker TYPE kafka WITH ('bootstrap.servers' = '{bootstrap}');

CREATE SOURCE orders ({TYPES}) WITH (
  'connection' = 'broker', 'topic' = '{topic}', 'scan.startup.mode' = 'earliest-offset',
  'error-handling.mode' = 'ignore'
);

CREATE STREAMING TABLE {table} ({TYPES}{key});

CREATE FLOW {}{with} AS
{change};
",
        kind.as_str()
    )
}

/// Compiles a file with one flow, as `alluvium run` does over an empty catalog.
pub(crate) async fn compile(file: &Path, warehouse: &Location) -> Result<Arc<Flow>> {
    let text = std::fs::read_to_string(file)
        .map_err(|cause| Error::invalid(format!("cannot read {}", file.display())).with_source(cause))?;
    let text = Arc::new(SourceText::new(file.display().to_string(), text));
    let pipeline = Compiler::new(warehouse.clone(), Arc::new(NoNames)).compile(&[text]).await.map_err(Error::from)?;
    pipeline.flows.into_iter().next().ok_or_else(|| Error::invalid("the file defines no flow"))
}

/// A catalog that knows nothing.
#[derive(Debug)]
struct NoNames;

#[async_trait]
impl Names for NoNames {
    async fn connection(&self, _name: &Name) -> Result<Option<Connection>> {
        Ok(None)
    }

    async fn source(&self, _name: &Name) -> Result<Option<Source>> {
        Ok(None)
    }

    async fn table(&self, _name: &TableName) -> Result<Option<Table>> {
        Ok(None)
    }

    async fn table_schema(&self, _name: &TableName) -> Result<Option<SchemaRef>> {
        Ok(None)
    }

    async fn datasets(&self) -> Result<Vec<Dataset>> {
        Ok(Vec::new())
    }
}
