//! A flow's table as queries see it: rows that a query names by their key are looked up through the index of a running
//! engine, and everything else is scanned.
//!
//! Both read the same version, and a query reads one version of a table however often it names it: the first scan settles
//! it. Where the engine is a commit ahead of what was opened, the table is refreshed for that, once.

use std::fmt;
use std::sync::Arc;

use alluvium_catalog::TableName;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Statistics;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use tokio::sync::OnceCell;

use super::key_filter::keys_of;
use crate::locate::{Locate, Located, Wanted};
use crate::scan_by::scan_by;
use crate::tables::{Asked, OpenTable, TableReader};

/// A table at the newest version, with a primary key.
pub(super) struct KeyedTable {
    pub(super) name: TableName,
    /// The columns of its primary key.
    pub(super) keys: Vec<String>,
    /// The table as it was when the query was planned.
    pub(super) opened: OpenTable,
    /// What all scans of one query read, once the first has settled it.
    pub(super) settled: Arc<OnceCell<OpenTable>>,
    /// Whether hidden columns are seen.
    pub(super) shows_hidden: bool,
    pub(super) reader: Arc<TableReader>,
    pub(super) locate: Arc<dyn Locate>,
}

impl KeyedTable {
    /// Returns the table that this query reads.
    async fn table(&self, located: Option<&Located>) -> &OpenTable {
        self.settled
            .get_or_init(|| async {
                let is_ahead = |located: &&Located| located.version > self.opened.version();
                if located.filter(is_ahead).is_none() {
                    return self.opened.clone();
                }
                match self.reader.refresh(&self.opened).await {
                    // The query was planned with these columns.
                    Ok(table) if table.schema() == self.opened.schema() => table,
                    _ => self.opened.clone(),
                }
            })
            .await
    }

    /// Returns what reads `table` without the index.
    fn scanned(&self, table: &OpenTable) -> Arc<dyn TableProvider> {
        if self.shows_hidden { table.provider_with_hidden() } else { table.provider() }
    }

    /// Returns where the rows are that `filters` name by their keys, if they do and somebody knows.
    async fn located(&self, filters: &[Expr]) -> Option<Located> {
        let keys = keys_of(filters, &self.keys, &self.opened.schema())?;
        let n_keys = keys.num_rows();
        let wanted = Wanted { table: self.name.clone(), seen: self.opened.version(), keys };
        let located = self.locate.locate(&wanted).await?;
        (located.rows.len() == n_keys).then_some(located)
    }
}

impl fmt::Debug for KeyedTable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, keys, opened, .. } = self;
        let version = opened.version();
        formatter.debug_struct("KeyedTable").field("name", name).field("keys", keys).field("version", &version).finish()
    }
}

impl KeyedTable {
    async fn plan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let located = self.located(filters).await;
        let table = self.table(located.as_ref()).await;
        if let Some(located) = &located {
            let asked = Asked { session, projection, filters };
            if let Some(plan) = table.rows_at(located, self.shows_hidden, asked)? {
                return Ok(plan);
            }
        }
        self.scanned(table).scan(session, projection, filters, limit).await
    }
}

impl TableProvider for KeyedTable {
    fn schema(&self) -> SchemaRef {
        self.scanned(&self.opened).schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    scan_by!(KeyedTable::plan);

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        self.scanned(&self.opened).supports_filters_pushdown(filters)
    }

    fn statistics(&self) -> Option<Statistics> {
        self.scanned(&self.opened).statistics()
    }
}

#[cfg(test)]
mod tests;
