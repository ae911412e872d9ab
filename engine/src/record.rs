//! Tells the catalog what has landed: a mirror of the table's log that may lag and never decides.
//!
//! What it records is read off the log entry itself, so that a record made now and one made by a rebuild are the same.
//! A failure here is logged and does not touch the batch; the next start writes what is missing.
//!
//! Before it: [`commit`](crate::commit). After it: nothing; the span is acknowledged.

use std::sync::Arc;

use alluvium_catalog::store::CatalogStore;
use alluvium_catalog::{Dataset, DatasetKind, Definition, Location, Registry, Result, TableName};

use crate::delta::log::{DeltaLog, LogEntry};
use crate::rebuild::log::commit_of;

/// Writes to the catalog for one table.
#[derive(Debug, Clone)]
pub struct Recorder {
    catalog: Arc<dyn CatalogStore>,
    table: TableName,
    location: Location,
}

impl Recorder {
    /// Returns a recorder for the table at `location`.
    pub fn new(catalog: Arc<dyn CatalogStore>, table: TableName, location: Location) -> Self {
        Self { catalog, table, location }
    }

    /// Records a version that has landed. Errors are logged.
    pub async fn record(&self, entry: &LogEntry) {
        if let Err(error) = self.try_record(entry).await {
            tracing::warn!(
                table = %self.table, version = entry.version, error = %error.chain(),
                "the catalog did not take a commit; it is written at the next start"
            );
        }
    }

    /// Records the versions of the log that the catalog lacks, up to `version`. Errors are logged.
    pub async fn repair(&self, log: &DeltaLog, version: u64) {
        if let Err(error) = self.try_repair(log, version).await {
            tracing::warn!(table = %self.table, error = %error.chain(), "the catalog could not be brought up to the table");
        }
    }

    async fn try_record(&self, entry: &LogEntry) -> Result<()> {
        match commit_of(entry, &self.table, &self.location)? {
            Some(commit) => self.catalog.put_commit(&commit).await,
            None => Ok(()),
        }
    }

    async fn try_repair(&self, log: &DeltaLog, version: u64) -> Result<()> {
        let first = self.catalog.last_version(&self.table).await?.map_or(0, |last| last + 1);
        if first > version {
            return Ok(());
        }
        // The beginning of the log may be cleaned up by now; what is left of it starts at the oldest version.
        let oldest = log.version_range().await?.map_or(first, |(oldest, _)| oldest);
        for entry in log.read_tail(first.max(oldest)).await? {
            self.try_record(&entry).await?;
        }
        Ok(())
    }
}

/// Registers a flow and all that it hangs on, in the catalog and, for the table, in the warehouse's registry.
///
/// # Errors
/// As of the catalog and the registry; a flow does not start with a catalog that cannot be written.
pub async fn register(
    catalog: &dyn CatalogStore,
    registry: Option<&Registry>,
    definition: &Definition,
    dead_letters: Option<(TableName, Location)>,
) -> Result<()> {
    let seq = catalog.put_definition(definition).await?;
    tracing::debug!(flow = %definition.flow.flow, seq, "flow registered");
    let mut datasets = vec![Dataset {
        name: definition.table.name.clone(),
        kind: DatasetKind::Delta,
        location: definition.table.location.clone(),
        owner: None,
        description: definition.table.comment.clone(),
        tags: Vec::new(),
        table: Some(definition.table.clone()),
    }];
    if let Some((name, location)) = dead_letters {
        let dataset = Dataset {
            name,
            kind: DatasetKind::DeadLetter,
            location,
            owner: None,
            description: Some("Records that could not become rows".to_owned()),
            tags: Vec::new(),
            table: None,
        };
        if catalog.dataset(&dataset.name).await?.is_none() {
            catalog.put_dataset(&dataset).await?;
        }
        datasets.push(dataset);
    }
    if let Some(registry) = registry {
        for dataset in datasets {
            // A registration may carry an owner and tags by now; it is never replaced by a bare one.
            if let Some(known) = catalog.dataset(&dataset.name).await? {
                registry.put(&known).await?;
            }
        }
    }
    Ok(())
}
