//! Tells the catalog what has landed: a mirror of the table's log that may lag and never decides.
//!
//! What it records is read off the log entry itself, so that a record made now and one made by a rebuild are the same.
//! A failure here is logged and does not touch the batch. The catalog keeps up to which version of a table everything is
//! recorded; what a failure, a crash or another process has left out beyond that is made up for behind the next commit
//! and at the next start. A start also finds out whether the catalog tells of another table, which was at this place
//! before: removed and made anew, or put back as it was once. What it tells of that one is forgotten.
//!
//! Several processes may do so at once. Each forgets only while what it has seen is there still, and notes only on top of
//! what it has noted before; where another has come between, it looks again.
//!
//! Before it: [`commit`](crate::commit). After it: nothing; the span is acknowledged.

use std::ops::RangeInclusive;
use std::sync::Arc;

use alluvium_catalog::store::{CatalogStore, Witness, Written};
use alluvium_catalog::{Dataset, DatasetKind, Definition, ErrorKind, Location, Registry, Result, TableName};

use crate::delta::log::{DeltaLog, LogEntry, Version};
use crate::rebuild::log::{commit_of, lineage_of};

/// Versions of the log that are in memory at once while the catalog catches up.
const CHUNK: usize = 128;

/// Versions made up for behind one commit: no batch waits longer than that many reads for the catalog.
const GAP_MAX: u64 = 64;

/// Every version that there can be.
const ALL: [RangeInclusive<Version>; 1] = [0..=Version::MAX];

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
        self.is_settled = match self.witness(version).await? {
            // Where another process has come first, the next commit finds out whether all is well now.
            Some(witness) => self.forget(version, witness).await?,
            None => true,
        };
        Ok(())
    }

    /// Returns what shows that the catalog tells of another table, if something does.
    ///
    /// Looked at are the oldest and the newest commit that are recorded of this place: whether the log has them, or
    /// another write at their versions, or never came that far; and whether the note is above the log's last version.
    /// Where the log has been cleaned of one of them, so are the oldest and the newest of the versions that it has.
    /// What lies between is not looked at: tables are recorded in order, so that what is left of a former one reaches to
    /// one of the ends.
    async fn witness(&self, version: Version) -> Result<Option<Witness>> {
        let location = self.log.location();
        // The catalog is asked before the log: what another process records meanwhile has landed by then.
        let recorded = self.catalog.recorded(location).await?;
        let ends = self.catalog.written(location, &ALL).await?;
        let mut is_within = recorded.is_none_or(|recorded| recorded <= version);
        for commit in &ends {
            match self.look_up(*commit).await? {
                Found::Same => {}
                Found::Other => return Ok(Some(Witness::Commit(*commit))),
                Found::Nothing => is_within = false,
            }
        }
        if is_within {
            return Ok(None);
        }
        let versions = self.log.versions().await?;
        let last = last_of(&versions, version);
        if let Some(commit) = ends.last().filter(|commit| commit.version > last) {
            return Ok(Some(Witness::Commit(*commit)));
        }
        if let Some(recorded) = recorded.filter(|recorded| *recorded > last) {
            return Ok(Some(Witness::Recorded(recorded)));
        }
        for commit in self.catalog.written(location, &ranges(&versions)).await? {
            if self.look_up(commit).await? == Found::Other {
                return Ok(Some(Witness::Commit(commit)));
            }
        }
        Ok(None)
    }

    /// Makes the catalog forget the versions that the log has, for they can be recorded again, and those above its last,
    /// for it never had them. What the log has been cleaned of, only the catalog still tells. Returns whether `witness`
    /// was there still; nothing is forgotten where it was not.
    async fn forget(&mut self, version: Version, witness: Witness) -> Result<bool> {
        let versions = self.log.versions().await?;
        let last = last_of(&versions, version);
        let mut forgotten = ranges(&versions);
        forgotten.push(last.saturating_add(1)..=Version::MAX);
        // The note goes back, and what lacks is counted from there.
        self.open = None;
        let is_forgotten = self.catalog.forget_commits(self.log.location(), &forgotten, witness).await?;
        if is_forgotten {
            tracing::warn!(
                table = %self.table, location = %self.log.location(), last, ?witness,
                "the catalog told of another table at this place; its commits are forgotten, and this one's are recorded"
            );
        }
        Ok(is_forgotten)
    }

    /// Looks for a commit that is recorded in the log.
    async fn look_up(&self, commit: Written) -> Result<Found> {
        let lineage = match self.log.read(commit.version).await {
            Ok(Some(entry)) => lineage_of(&entry, self.log.location()),
            Ok(None) => return Ok(Found::Nothing),
            Err(error) => Err(error),
        };
        match lineage {
            Ok(Some(lineage)) if lineage.write_id == commit.write_id => Ok(Found::Same),
            Ok(_) => Ok(Found::Other),
            // What nobody can read any more speaks against nothing.
            Err(error) if error.kind() == ErrorKind::Data => Ok(Found::Same),
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

    /// Notes that all before `open` is recorded. That counts on what was noted before: where it has been taken back,
    /// commits were forgotten that are not made up for yet, and the next record looks and fills again.
    async fn note(&mut self, open: Version) -> Result<()> {
        let before = self.open.unwrap_or(0);
        if open <= before {
            return Ok(());
        }
        let location = self.log.location();
        let is_noted = match before.checked_sub(1) {
            Some(former) => self.catalog.raise_recorded(location, former, open - 1).await?,
            None => {
                self.catalog.put_recorded(location, open - 1).await?;
                true
            }
        };
        self.open = is_noted.then_some(open);
        self.is_settled &= is_noted;
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

/// What the log has at the version of a commit that is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// That commit, as far as it can be read.
    Same,
    /// Another one.
    Other,
    /// Nothing: it has been cleaned of it, or never came that far.
    Nothing,
}

/// Returns the last version of a log that has `versions` by a LIST, and has come to `version` for certain.
fn last_of(versions: &[Version], version: Version) -> Version {
    versions.last().map_or(version, |last| version.max(*last))
}

/// Returns `versions`, which are in order, as ranges.
fn ranges(versions: &[Version]) -> Vec<RangeInclusive<Version>> {
    let runs = versions.chunk_by(|version, next| next - version == 1);
    runs.filter_map(|run| Some(*run.first()?..=*run.last()?)).collect()
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
    async fn what_another_process_has_recorded_anew_is_not_forgotten() -> Result<()> {
        let catalog = Arc::new(MemoryStore::default());
        repaired(&catalog, &log(0..10, &[]).await?, 9).await?;
        let anew = log_by(OTHER_WRITE_ID, 0..7, &[]).await?;
        let recorder =
            || -> Result<Recorder> { Ok(Recorder::new(Arc::clone(&catalog) as _, TABLE.parse()?, anew.clone())) };
        // Both see the table before; one forgets it and goes on before the other forgets.
        let (mut late, mut early) = (recorder()?, recorder()?);
        let witness = late.witness(3).await?.ok_or_else(|| Error::internal("the former table was not found out"))?;
        early.repair(3).await;
        for version in [4, 5] {
            early.record(&entry(&anew, version).await?).await;
        }
        assert!(!late.forget(3, witness).await?);
        late.repair(3).await;
        early.record(&entry(&anew, 6).await?).await;
        assert_eq!(writes(&catalog).await?, by(OTHER_WRITE_ID, &[1, 2, 3, 4, 5, 6]));
        assert_eq!(catalog.recorded(anew.location()).await?, Some(6));
        Ok(())
    }

    #[tokio::test]
    async fn what_another_process_has_forgotten_is_recorded_again() -> Result<()> {
        let (catalog, log) = (Arc::new(MemoryStore::default()), log(0..8, &[]).await?);
        let mut recorder = Recorder::new(Arc::clone(&catalog) as _, TABLE.parse()?, log.clone());
        recorder.repair(5).await;
        assert!(catalog.forget_commits(log.location(), &ALL, Witness::Recorded(5)).await?);
        // The other one knows of less than this one has recorded.
        repaired(&catalog, &log, 3).await?;
        recorder.record(&entry(&log, 6).await?).await;
        assert_eq!(catalog.recorded(log.location()).await?, Some(3));
        recorder.record(&entry(&log, 7).await?).await;
        assert_eq!(recorded(&catalog).await?, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(catalog.recorded(log.location()).await?, Some(7));
        Ok(())
    }

    #[tokio::test]
    async fn a_former_table_below_what_is_recorded_of_this_one_is_found_out() -> Result<()> {
        // Clean-up has left the log whole, with holes, or without a version of the former table.
        for (cleaned, former) in
            [(vec![], vec![]), (vec![0, 1, 2, 6], vec![1, 2]), (vec![0, 1, 2, 3, 4], vec![1, 2, 3, 4])]
        {
            let catalog = Arc::new(MemoryStore::default());
            repaired(&catalog, &log(0..5, &[]).await?, 4).await?;
            let anew = log_by(OTHER_WRITE_ID, 0..9, &[]).await?;
            let recorder = Recorder::new(Arc::clone(&catalog) as _, TABLE.parse()?, anew.clone());
            for version in 5..9 {
                recorder.put(&entry(&anew, version).await?).await?;
            }
            catalog.put_recorded(anew.location(), 8).await?;
            for version in cleaned {
                let deleted = anew.store().delete(&commit_path(version)).await;
                deleted.map_err(|source| Error::internal("test delete").with_source(source))?;
            }
            repaired(&catalog, &anew, 8).await?;
            let own: Vec<Version> = (1..9).filter(|version| !former.contains(version)).collect();
            assert_eq!(writes(&catalog).await?, [by(WRITE_ID, &former), by(OTHER_WRITE_ID, &own)].concat());
            assert_eq!(catalog.recorded(anew.location()).await?, Some(8));
        }
        Ok(())
    }

    #[test]
    fn versions_are_ranges_between_holes() {
        assert_eq!(ranges(&[]), []);
        assert_eq!(ranges(&[3, 4, 5, 7, 9, 10]), [3..=5, 7..=7, 9..=10]);
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
