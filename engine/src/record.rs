//! Tells the catalog what has landed: a mirror of the table's log that may lag and never decides.
//!
//! What it records is read off the log entry itself, so that a record made now and one made by a rebuild are the same.
//! A failure here is logged and does not touch the batch. The catalog keeps up to which version of a table everything is
//! recorded; what a failure, a crash or another process has left out beyond that is made up for behind the next commit
//! and at the next start. A start also finds out whether the catalog tells of another table, which was at this place
//! before: removed and made anew, or put back as it was once. What it tells of that one is forgotten.
//!
//! Before it: [`commit`](crate::commit). After it: nothing; the span is acknowledged.

use std::sync::Arc;

use alluvium_catalog::store::CatalogStore;
use alluvium_catalog::{Commit, Dataset, DatasetKind, Definition, ErrorKind, Location, Registry, Result, TableName};

use crate::delta::log::{DeltaLog, LogEntry, Version};
use crate::rebuild::log::{commit_of, lineage_of};

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
    /// Whether the catalog is known to tell of this table, and of none that was at its place before.
    is_settled: bool,
}

impl Recorder {
    /// Returns a recorder for the table of `log`.
    pub fn new(catalog: Arc<dyn CatalogStore>, table: TableName, log: DeltaLog) -> Self {
        Self { catalog, table, log, open: None, is_settled: false }
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

    /// Forgets what is recorded of another table, which was at this place before, and records what is missing of the
    /// versions up to `version`. Errors are logged.
    pub async fn repair(&mut self, version: Version) {
        if let Err(error) = self.try_repair(version).await {
            tracing::warn!(table = %self.table, error = %error.chain(), "the catalog could not be brought up to the table");
        }
    }

    async fn try_record(&mut self, entry: &LogEntry) -> Result<()> {
        self.settle(entry.version).await?;
        self.put(entry).await?;
        let open = self.open().await?;
        let end = entry.version.min(open.saturating_add(GAP_MAX));
        let reached = self.fill(open, end).await?;
        let is_whole = reached == entry.version;
        self.note(if is_whole { reached + 1 } else { reached }).await
    }

    async fn try_repair(&mut self, version: Version) -> Result<()> {
        self.settle(version).await?;
        let open = self.open().await?;
        let reached = self.fill(open, version + 1).await?;
        self.note(reached).await
    }

    /// Makes the catalog forget what it tells of another table at this place, once. `version` has landed.
    async fn settle(&mut self, version: Version) -> Result<()> {
        if self.is_settled {
            return Ok(());
        }
        if self.tells_of_another(version).await? {
            let versions = self.log.versions().await?;
            // What the log has cleaned up, only the catalog still tells; all else is recorded again.
            let first = versions.first().map_or(version + 1, |oldest| (*oldest).min(version + 1));
            tracing::warn!(
                table = %self.table, location = %self.log.location(), first, version,
                "the catalog told of another table at this place; its commits are forgotten, and this one's are recorded"
            );
            self.catalog.forget_commits(self.log.location(), first).await?;
        }
        self.is_settled = true;
        Ok(())
    }

    /// Tells whether the catalog has versions that the log never had, or a commit that the log has not at its version.
    async fn tells_of_another(&self, version: Version) -> Result<bool> {
        let location = self.log.location();
        // The catalog is asked before the log: what another process records meanwhile has landed by then.
        let recorded = self.catalog.recorded(location).await?;
        let newest = self.catalog.commits(Some(&self.table), 1).await?.pop();
        let newest = newest.filter(|commit| commit.location == *location);
        let told = recorded.max(newest.as_ref().map(|commit| commit.version));
        if told > Some(version) && told > self.log.versions().await?.last().copied() {
            return Ok(true);
        }
        match newest {
            Some(commit) => Ok(!self.may_hold(&commit).await?),
            None => Ok(false),
        }
    }

    /// Tells whether nothing in the log speaks against `commit`: its version holds it, or cannot be read any more.
    async fn may_hold(&self, commit: &Commit) -> Result<bool> {
        let lineage = match self.log.read(commit.version).await {
            Ok(Some(entry)) => lineage_of(&entry, self.log.location()),
            Ok(None) => return Ok(true),
            Err(error) => Err(error),
        };
        match lineage {
            Ok(lineage) => Ok(lineage.is_some_and(|lineage| lineage.write_id == commit.lineage.write_id)),
            Err(error) if error.kind() == ErrorKind::Data => Ok(true),
            Err(error) => Err(error),
        }
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
                // Clean-up takes away the beginning of the log, and in no order of its own: there may be holes.
                match self.log.versions().await?.into_iter().find(|version| *version > next) {
                    Some(later) => next = later.min(end),
                    None => break,
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

    const WRITE_ID: &str = "0190a0a0-0000-7000-8000-000000000002";

    const OTHER_WRITE_ID: &str = "0190a0a0-0000-7000-8000-000000000003";

    fn lineage(version: Version, write_id: &str) -> Value {
        json!({
            "v": 1, "flow": "orders", "sql_hash": "ab", "engine": "0.1.0", "inputs": [], "fate": {}, "millis": {},
            "run": "0190a0a0-0000-7000-8000-000000000001", "write_id": write_id,
            "rows_inserted": version, "rows_updated": 0, "rows_deleted": 0,
        })
    }

    /// Returns a log in which a flow has made all versions but 0 and those of `others`.
    async fn log(versions: std::ops::Range<Version>, others: &[Version]) -> Result<DeltaLog> {
        log_by(WRITE_ID, versions, others).await
    }

    /// As [`log`], in a memory of its own: a table that was made anew at the same place.
    async fn log_by(write_id: &str, versions: std::ops::Range<Version>, others: &[Version]) -> Result<DeltaLog> {
        let log = DeltaLog::open(&Stores::new(StorageSettings::default()), &"memory:///lake/silver/orders".parse()?)?;
        for version in versions {
            let mut info = json!({"timestamp": version});
            if version > 0 && !others.contains(&version) {
                info["alluvium.lineage"] = lineage(version, write_id);
            }
            let line = json!({"commitInfo": info}).to_string();
            let put = log.store().put(&commit_path(version), line.into_bytes().into()).await;
            put.map_err(|source| Error::internal("test put").with_source(source))?;
        }
        Ok(log)
    }

    async fn repaired(catalog: &Arc<MemoryStore>, log: &DeltaLog, version: Version) -> Result<()> {
        Recorder::new(Arc::clone(catalog) as _, TABLE.parse()?, log.clone()).repair(version).await;
        Ok(())
    }

    /// Returns the recorded versions in order with what wrote them.
    async fn writes(catalog: &MemoryStore) -> Result<Vec<(Version, String)>> {
        let commits = catalog.commits(None, usize::MAX).await?;
        let mut writes: Vec<(Version, String)> =
            commits.iter().map(|commit| (commit.version, commit.lineage.write_id.to_string())).collect();
        writes.sort_unstable();
        Ok(writes)
    }

    fn by(write_id: &str, versions: &[Version]) -> Vec<(Version, String)> {
        versions.iter().map(|version| (*version, write_id.to_owned())).collect()
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
    async fn a_log_with_holes_is_recorded_behind_each_of_them() -> Result<()> {
        let (catalog, log) = (Arc::new(MemoryStore::default()), log(0..13, &[]).await?);
        for version in [0, 1, 2, 5, 6, 7, 8, 11] {
            let deleted = log.store().delete(&commit_path(version)).await;
            deleted.map_err(|source| Error::internal("test delete").with_source(source))?;
        }
        repaired(&catalog, &log, 12).await?;
        assert_eq!(recorded(&catalog).await?, [3, 4, 9, 10, 12]);
        assert_eq!(catalog.recorded(log.location()).await?, Some(12));
        Ok(())
    }

    #[tokio::test]
    async fn a_table_that_was_made_anew_takes_the_place_of_the_one_before() -> Result<()> {
        let catalog = Arc::new(MemoryStore::default());
        repaired(&catalog, &log(0..6, &[]).await?, 5).await?;
        assert_eq!(writes(&catalog).await?, by(WRITE_ID, &[1, 2, 3, 4, 5]));

        let anew = log_by(OTHER_WRITE_ID, 0..3, &[]).await?;
        repaired(&catalog, &anew, 2).await?;
        assert_eq!(writes(&catalog).await?, by(OTHER_WRITE_ID, &[1, 2]));
        assert_eq!(catalog.recorded(anew.location()).await?, Some(2));
        Ok(())
    }

    #[tokio::test]
    async fn a_table_that_was_made_anew_is_found_out_where_it_has_more_versions_too() -> Result<()> {
        let catalog = Arc::new(MemoryStore::default());
        repaired(&catalog, &log(0..4, &[]).await?, 3).await?;
        // A compaction is where the former table had a commit.
        let anew = log_by(OTHER_WRITE_ID, 0..6, &[2]).await?;
        repaired(&catalog, &anew, 5).await?;
        assert_eq!(writes(&catalog).await?, by(OTHER_WRITE_ID, &[1, 3, 4, 5]));
        assert_eq!(catalog.recorded(anew.location()).await?, Some(5));
        Ok(())
    }

    #[tokio::test]
    async fn a_table_that_was_put_back_as_it_was_is_recorded_up_to_there() -> Result<()> {
        let catalog = Arc::new(MemoryStore::default());
        repaired(&catalog, &log(0..6, &[]).await?, 5).await?;
        let back = log(0..4, &[]).await?;
        let mut recorder = Recorder::new(Arc::clone(&catalog) as _, TABLE.parse()?, back.clone());
        recorder.record(&entry(&back, 3).await?).await;
        assert_eq!(writes(&catalog).await?, by(WRITE_ID, &[1, 2, 3]));
        assert_eq!(catalog.recorded(back.location()).await?, Some(3));
        Ok(())
    }

    #[tokio::test]
    async fn what_another_process_has_landed_since_is_not_forgotten() -> Result<()> {
        let (catalog, log) = (Arc::new(MemoryStore::default()), log(40..46, &[]).await?);
        repaired(&catalog, &log, 45).await?;
        // This process has loaded the table before the other one's last commits.
        repaired(&catalog, &log, 42).await?;
        assert_eq!(recorded(&catalog).await?, [40, 41, 42, 43, 44, 45]);
        assert_eq!(catalog.recorded(log.location()).await?, Some(45));
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
