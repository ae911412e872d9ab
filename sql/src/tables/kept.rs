//! Tables that were opened lately, each at the newest version that was seen, so that the next query reads only what their
//! logs have gained.
//!
//! Bounded in number and in what the lists of their files take; what was used longest ago goes first. Nothing here knows
//! whether a table has moved on: who takes one out asks its [head](super::head).

use std::sync::{Mutex, MutexGuard, PoisonError};

use alluvium_catalog::Location;

use super::OpenTable;

/// How many tables are kept: more than a session's queries name, few enough to look through.
const TABLES_MAX: usize = 64;

/// How many bytes the lists of their files may take, about: those of some 100,000 files.
const BYTES_MAX: usize = 128 << 20;

/// The tables, the one used last at the end.
#[derive(Debug, Default)]
pub(super) struct KeptTables {
    tables: Mutex<Vec<OpenTable>>,
}

impl KeptTables {
    /// Returns the table at `location`, if it is kept.
    pub(super) fn get(&self, location: &Location) -> Option<OpenTable> {
        let mut tables = self.tables();
        let place = tables.iter().position(|table| table.location == *location)?;
        let table = tables.remove(place);
        tables.push(table.clone());
        // Files are listed after a table was put, so this is when their size is known.
        shrink(&mut tables);
        Some(table)
    }

    /// Keeps `table` in the place of what was kept of its location.
    pub(super) fn put(&self, table: &OpenTable) {
        let mut tables = self.tables();
        tables.retain(|kept| kept.location != table.location);
        tables.push(table.clone());
        shrink(&mut tables);
    }

    fn tables(&self) -> MutexGuard<'_, Vec<OpenTable>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets go of the tables used longest ago, but never of the last one used.
fn shrink(tables: &mut Vec<OpenTable>) {
    let mut n_bytes: usize = tables.iter().map(|table| table.provider.bytes()).sum();
    let mut n_gone = 0;
    while tables.len() - n_gone > 1 && (tables.len() - n_gone > TABLES_MAX || n_bytes > BYTES_MAX) {
        n_bytes = n_bytes.saturating_sub(tables[n_gone].provider.bytes());
        n_gone += 1;
    }
    tables.drain(..n_gone);
}
