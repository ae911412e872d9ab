//! Point look-ups through the key indexes of running flows: in this process, and over loopback HTTP from others.
//!
//! ```text
//! session -Wanted-> Engines -GET /v1/lookup-> route -> Lookups -> the writer's index, lent between batches
//! ```
//! A flow that upserts registers what looks into its index; whoever asks names the table and gives keys. An answer is of
//! one version and reads no data. Nothing here decides what is true: who asked compares the version, and scans where it
//! does not fit. Before it: [`write`](crate::write). After it: the session of `alluvium-sql`, through its seam
//! [`Locate`].

mod answer;
mod engines;
mod keys;
mod route;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use alluvium_catalog::{Name, TableName};
use alluvium_sql::locate::{Locate, Located, LocatedRow, Wanted};
use arrow::array::ArrayRef;
use async_trait::async_trait;

pub use engines::Engines;
pub(crate) use route::lookup;

use crate::write::upsert::{FoundRow, FoundRows, KeyLookup};

/// What looks up rows of the tables that this process upserts into, by flow.
#[derive(Debug, Default)]
pub struct Lookups {
    flows: RwLock<BTreeMap<Name, (TableName, KeyLookup)>>,
}

impl Lookups {
    /// Makes `lookup` known as that of `table`, over what `flow` had registered before it was started again.
    pub fn register(&self, flow: &Name, table: &TableName, lookup: KeyLookup) {
        let mut flows = self.flows.write().unwrap_or_else(PoisonError::into_inner);
        flows.insert(flow.clone(), (table.clone(), lookup));
    }

    /// Returns what looks up rows of `table`.
    pub fn of_table(&self, table: &TableName) -> Option<KeyLookup> {
        let flows = self.flows.read().unwrap_or_else(PoisonError::into_inner);
        flows.values().find(|(name, _)| name == table).map(|(_, lookup)| lookup.clone())
    }
}

#[async_trait]
impl Locate for Lookups {
    async fn locate(&self, wanted: &Wanted) -> Option<Located> {
        let lookup = self.of_table(&wanted.table)?;
        let n_columns = wanted.keys.num_columns();
        let column = |name: &str| wanted.keys.column_by_name(name).map(Arc::clone);
        let columns: Vec<ArrayRef> = lookup.keys().map(|(name, _)| column(name)).collect::<Option<_>>()?;
        let same_types = lookup.keys().zip(&columns).all(|((_, known), column)| known == column.data_type());
        if columns.len() != n_columns || !same_types {
            return None;
        }
        let found = lookup.find(&columns, wanted.seen).await.ok()??;
        Some(located(lookup.table_id(), found))
    }
}

/// Returns what was found, as sessions take it.
fn located(table_id: &str, found: FoundRows) -> Located {
    let row = |row: FoundRow| {
        let FoundRow { path, size, n_rows, partition_values, row } = row;
        LocatedRow { path, size, n_rows, partition_values, row: u64::from(row) }
    };
    let rows = found.rows.into_iter().map(|found| found.map(row)).collect();
    Located { table_id: table_id.to_owned(), version: found.version, rows }
}

#[cfg(test)]
mod tests;
