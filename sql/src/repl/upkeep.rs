//! `OPTIMIZE` and `VACUUM`: found in the catalog here, done by the engine, which writes tables.
//!
//! What they answer is rows, as every statement's answer is. A statement that is interrupted leaves the table as good as
//! it was: what it has written and not committed is for vacuum.

use std::fmt;
use std::time::Duration;

use alluvium_catalog::store::CatalogStore;
use alluvium_catalog::{DatasetKind, Error, Location, Result, TableName};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::sql::sqlparser::ast::ObjectName;
use futures::StreamExt;

use super::backend::Answer;
use crate::diagnostic::nearest;
use crate::session::{Session, table_name};
use crate::statement::{Optimize, Statement, Vacuum};
use crate::system;

/// A table that a statement names, and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tended {
    /// Its name.
    pub name: TableName,
    /// Where it is.
    pub location: Location,
}

/// Does the upkeep that statements ask for.
#[async_trait]
pub trait Upkeep: fmt::Debug + Send + Sync {
    /// Rewrites what is worth it, all of the table where `is_full`, and returns one row: what became of it.
    ///
    /// # Errors
    /// `Invalid` when there is no Delta table, it cannot be written, or `is_full` and it has no clustering columns;
    /// otherwise as of the store.
    async fn optimize(&self, table: &Tended, is_full: bool) -> Result<RecordBatch>;

    /// Removes the files that no version within the retention needs, or only counts them, and returns one row.
    ///
    /// # Errors
    /// `Invalid` when there is no Delta table, or `retention` is shorter than is safe; otherwise as of the store.
    async fn vacuum(&self, table: &Tended, retention: Option<Duration>, is_dry_run: bool) -> Result<RecordBatch>;
}

/// Does what `statement` asks for; `None` where it is no upkeep.
///
/// # Errors
/// `Invalid` when this session does no upkeep or the statement names no Delta table; otherwise as of [`Upkeep`].
pub(super) async fn tend(
    session: &Session,
    catalog: &dyn CatalogStore,
    upkeep: Option<&dyn Upkeep>,
    statement: &Statement,
) -> Result<Option<Answer>> {
    let (verb, table) = match statement {
        Statement::Optimize(Optimize { table, .. }) => ("OPTIMIZE", &table.value),
        Statement::Vacuum(Vacuum { table, .. }) => ("VACUUM", &table.value),
        _ => return Ok(None),
    };
    let Some(upkeep) = upkeep else {
        return Err(Error::invalid(format!("cannot {verb} {table}: this session only reads")));
    };
    let table = find(session, catalog, verb, table).await?;
    let rows = match statement {
        Statement::Vacuum(Vacuum { retain_hours, is_dry_run, .. }) => {
            let retention = match retain_hours {
                Some(hours) => Some(hours_long(*hours)?),
                None => None,
            };
            upkeep.vacuum(&table, retention, *is_dry_run).await?
        }
        Statement::Optimize(Optimize { is_full, .. }) => upkeep.optimize(&table, *is_full).await?,
        _ => return Ok(None),
    };
    Ok(Some(Answer { schema: rows.schema(), rows: futures::stream::iter([Ok(rows)]).boxed(), notes: Vec::new() }))
}

fn hours_long(hours: u64) -> Result<Duration> {
    let seconds = hours.checked_mul(3_600).ok_or_else(|| {
        Error::invalid(format!("nothing is as old as {hours} hours")).with_hint("RETAIN 168 HOURS is a week")
    })?;
    Ok(Duration::from_secs(seconds))
}

/// Returns the Delta table that `written` names.
async fn find(session: &Session, catalog: &dyn CatalogStore, verb: &str, written: &ObjectName) -> Result<Tended> {
    let name = table_name(written)?;
    if name.schema() == system::SCHEMA {
        return Err(Error::invalid(format!("cannot {verb} {name}: it is the catalog's, and has no files"))
            .with_hint("\\dt lists the tables that have"));
    }
    let datasets = session.datasets().await?;
    let Some(dataset) = datasets.iter().find(|dataset| dataset.name == name) else {
        if catalog.sources().await?.iter().any(|source| source.name.as_str() == name.table()) {
            return Err(Error::invalid(format!("cannot {verb} {}: it is a source, not a table", name.table()))
                .with_hint("name the table that a flow writes"));
        }
        let names: Vec<String> = datasets.iter().map(|dataset| dataset.name.to_string()).collect();
        let error = Error::invalid(format!("cannot {verb} {name}: there is no table of this name"));
        return Err(match nearest(&name.to_string(), names.iter().map(String::as_str)) {
            Some(hint) => error.with_hint(hint),
            None => error.with_hint("'\\d' lists what there is"),
        });
    };
    if !matches!(dataset.kind, DatasetKind::Delta | DatasetKind::DeadLetter) {
        return Err(Error::invalid(format!("cannot {verb} {name}: it is not a Delta table")));
    }
    Ok(Tended { name, location: dataset.location.clone() })
}
