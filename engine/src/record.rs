//! Tells the catalog what has landed: a mirror of the table's log that may lag and never decides.
//!
//! What it records is read off the log entry itself, so that a record made now and one made by a rebuild are the same.
//! A failure here is logged and does not touch the batch. The catalog keeps up to which version of a table everything is
//! recorded; what a failure, a crash or another process has left out beyond that is made up for behind the next commit
//! and at the next start.
//!
//! Before it: [`commit`](crate::commit). After it: nothing; the span is acknowledged.

use std::sync::Arc;

use alluvium_catalog::store::CatalogStore;
use alluvium_catalog::{Dataset, DatasetKind, Definition, ErrorKind, Location, Registry, Result, TableName};

use crate::delta::log::{DeltaLog, LogEntry, Version};
use crate::rebuild::log::commit_of;

/// Versions of the log that are in memory at once while the catalog catches up.
const CHUNK: usize = 128;

/// Versions made up for behind one commit: no batch waits longer than that many reads for the catalog.
const GAP_MAX: u64 = 64;

/// Writes to the catalog for one table.
#[derive(Debug)]
pub struct Recorder {
    catalog: Arc<dyn CatalogStore>,
    table: TableName,
    log: DeltaLog,
    /// All commits of flows before this version are recorded; `None` until the catalog has said so.
    open: Option<Version>,
}

impl Recorder {
    /// Returns a recorder for the table of `log`.
    pub fn new(catalog: Arc<dyn CatalogStore>, table: TableName, log: DeltaLog) -> Self {
        Self { catalog, table, log, open: None }
    }

    /// Records a version that has landed, and some of what is missing before it. Errors are logged.
    pub async fn record(&mut self, entry: &LogEntry) {
        if let Err(error) = self.try_record(entry).await {
            tracing::warn!(
                table = %self.table, version = entry.version, error = %error.chain(),
                "the catalog did not take a commit; it is written behind a later one, or at the next start"
            );
        }
    }

    /// Records what is missing of the versions up to `version`. Errors are logged.
    pub async fn repair(&mut self, version: Version) {
        if let Err(error) = self.try_repair(version).await {
            tracing::warn!(table = %self.table, error = %error.chain(), "the catalog could not be brought up to the table");
        }
    }

    async fn try_record(&mut self, entry: &LogEntry) -> Result<()> {
        self.put(entry).await?;
        let open = self.open().await?;
        let end = entry.version.min(open.saturating_add(GAP_MAX));
        let reached = self.fill(open, end).await?;
        let is_whole = reached == entry.version;
        self.note(if is_whole { reached + 1 } else { reached }).await
    }

    async fn try_repair(&mut self, version: Version) -> Result<()> {
        let open = self.open().await?;
        let reached = self.fill(open, version + 1).await?;
        self.note(reached).await
    }

    /// Returns the first version that may lack.
    async fn open(&mut self) -> Result<Version> {
        if let Some(open) = self.open {
            return Ok(open);
        }
        let recorded = self.catalog.recorded(self.log.location()).await?;
        Ok(*self.open.insert(recorded.map_or(0, |version| version + 1)))
    }

    /// Records the versions from `next` to before `end`, and returns the first one that it has not reached.
    async fn fill(&self, mut next: Version, end: Version) -> Result<Version> {
        while next < end {
            let n_max = usize::try_from(end - next).unwrap_or(CHUNK).min(CHUNK);
            let chunk = self.log.read_some(next, n_max).await?;
            for entry in &chunk {
                self.put(entry).await?;
            }
            next += chunk.len() as u64;
            if chunk.is_empty() {
                // The beginning of the log may be cleaned up by now; what is left of it starts at the oldest version.
                match self.log.version_range().await? {
                    Some((oldest, _)) if oldest > next => next = oldest.min(end),
                    _ => break,
                }
            }
        }
        Ok(next)
    }

    /// Notes that all before `open` is recorded.
    async fn note(&mut self, open: Version) -> Result<()> {
        if open == 0 || self.open.is_some_and(|before| before >= open) {
            return Ok(());
        }
        self.catalog.put_recorded(self.log.location(), open - 1).await?;
        self.open = Some(open);
        Ok(())
    }

    async fn put(&self, entry: &LogEntry) -> Result<()> {
        match commit_of(entry, &self.table, self.log.location()) {
            Ok(Some(commit)) => self.catalog.put_commit(&commit).await,
            Ok(None) => Ok(()),
            // No other attempt would read it; what comes after it is recorded all the same.
            Err(error) if error.kind() == ErrorKind::Data => {
                tracing::warn!(table = %self.table, error = %error.chain(), "a commit is left out of the catalog");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Registers a flow and all that it hangs on, in the catalog and, but for the flow itself, in the warehouse's registry.
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
        registry.put_connection(&definition.connection).await?;
        registry.put_source(&definition.source).await?;
        for dataset in datasets {
            // A registration may carry an owner and tags by now; it is never replaced by a bare one.
            if let Some(known) = catalog.dataset(&dataset.name).await? {
                registry.put(&known).await?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::store::MemoryStore;
    use alluvium_catalog::{Error, StorageSettings, Stores};
    use object_store::ObjectStoreExt;
    use serde_json::{Value, json};

    use super::*;
    use crate::delta::log::commit_path;

    const TABLE: &str = "silver.orders";

    fn lineage(version: Version) -> Value {
        json!({
            "v": 1, "flow": "orders", "sql_hash": "ab", "engine": "0.1.0", "inputs": [], "fate": {}, "millis": {},
            "run": "0190a0a0-0000-7000-8000-000000000001", "write_id": "0190a0a0-0000-7000-8000-000000000002",
            "rows_inserted": version, "rows_updated": 0, "rows_deleted": 0,
        })
    }

    /// Returns a log in which a flow has made all versions but 0 and those of `others`.
    async fn log(versions: std::ops::Range<Version>, others: &[Version]) -> Result<DeltaLog> {
        let log = DeltaLog::open(&Stores::new(StorageSettings::default()), &"memory:///lake/silver/orders".parse()?)?;
        for version in versions {
            let mut info = json!({"timestamp": version});
            if version > 0 && !others.contains(&version) {
                info["alluvium.lineage"] = lineage(version);
            }
            let line = json!({"commitInfo": info}).to_string();
            let put = log.store().put(&commit_path(version), line.into_bytes().into()).await;
            put.map_err(|source| Error::internal("test put").with_source(source))?;
        }
        Ok(log)
    }

    async fn entry(log: &DeltaLog, version: Version) -> Result<LogEntry> {
        log.read(version).await?.ok_or_else(|| Error::internal(format!("version {version} is not there")))
    }

    async fn recorded(catalog: &MemoryStore) -> Result<Vec<Version>> {
        let table = TABLE.parse()?;
        let mut versions: Vec<Version> =
            catalog.commits(Some(&table), usize::MAX).await?.iter().map(|commit| commit.version).collect();
        versions.sort_unstable();
        Ok(versions)
    }

    #[tokio::test]
    async fn a_commit_that_was_not_taken_is_recorded_behind_the_next() -> Result<()> {
        let (catalog, log) = (Arc::new(MemoryStore::default()), log(0..7, &[3]).await?);
        let mut recorder = Recorder::new(Arc::clone(&catalog) as _, TABLE.parse()?, log.clone());
        recorder.repair(0).await;
        recorder.record(&entry(&log, 1).await?).await;
        // The catalog did not take 2 and 4, and 3 was a compaction.
        recorder.record(&entry(&log, 5).await?).await;
        assert_eq!(recorded(&catalog).await?, [1, 2, 4, 5]);
        assert_eq!(catalog.recorded(log.location()).await?, Some(5));
        Ok(())
    }

    #[tokio::test]
    async fn a_start_makes_up_for_holes_below_the_newest_commit() -> Result<()> {
        let (catalog, log) = (Arc::new(MemoryStore::default()), log(0..300, &[]).await?);
        let mut before = Recorder::new(Arc::clone(&catalog) as _, TABLE.parse()?, log.clone());
        before.repair(1).await;
        // Another process recorded its own commit, and died before it looked at what lies between.
        before.put(&entry(&log, 299).await?).await?;
        assert_eq!(recorded(&catalog).await?, [1, 299]);

        let mut again = Recorder::new(Arc::clone(&catalog) as _, TABLE.parse()?, log.clone());
        again.repair(299).await;
        assert_eq!(recorded(&catalog).await?, (1..300).collect::<Vec<_>>());
        assert_eq!(catalog.recorded(log.location()).await?, Some(299));
        Ok(())
    }

    #[tokio::test]
    async fn a_wide_gap_is_closed_over_several_commits() -> Result<()> {
        let last = 2 * GAP_MAX;
        let (catalog, log) = (Arc::new(MemoryStore::default()), log(0..last + 2, &[]).await?);
        let mut recorder = Recorder::new(Arc::clone(&catalog) as _, TABLE.parse()?, log.clone());
        recorder.record(&entry(&log, last).await?).await;
        assert_eq!(catalog.recorded(log.location()).await?, Some(GAP_MAX - 1));
        recorder.record(&entry(&log, last + 1).await?).await;
        recorder.record(&entry(&log, last + 1).await?).await;
        assert_eq!(recorded(&catalog).await?, (1..last + 2).collect::<Vec<_>>());
        Ok(())
    }

    #[tokio::test]
    async fn a_log_whose_beginning_is_gone_is_recorded_from_what_is_left() -> Result<()> {
        let (catalog, log) = (Arc::new(MemoryStore::default()), log(40..43, &[]).await?);
        Recorder::new(Arc::clone(&catalog) as _, TABLE.parse()?, log.clone()).repair(42).await;
        assert_eq!(recorded(&catalog).await?, [40, 41, 42]);
        assert_eq!(catalog.recorded(log.location()).await?, Some(42));
        Ok(())
    }
}
