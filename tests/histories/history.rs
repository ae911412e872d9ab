//! One history: a table, what happens to it, and what it has to be after each step.

mod deaths;

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alluvium::config::UpkeepSettings;
use alluvium::delta::log::DeltaLog;
use alluvium::upkeep::optimize::{Extent, optimize};
use alluvium::upkeep::plan::Aims;
use alluvium::upkeep::vacuum::{Mode, vacuum};
use alluvium_catalog::{Clock, SystemClock};
use object_store::ObjectStore;
use object_store::prefix::PrefixStore;

use super::damage::{damage_beside, damage_on_disk};
use super::foreign::{self, Visit, VisitKind};
use super::keys::{Keys, Spelling};
use super::met::Met;
use super::model::{Ledger, Model, Positions, Record};
use super::place::{Kind, Life, Place};
use super::protocol::{Reader, Replay, Row, lines};
use super::steps::{Damage, Step};
use super::stranger;
use super::witness::{TABLE, Witness};
use crate::harness::TestResult;
use crate::harness::fault::{FaultyStore, Script};

/// How long every checkpoint keeps what was removed at least: tables ask for a day, or for Delta's week.
const RETAINED: Duration = Duration::from_secs(12 * 3_600);

/// A visit as it was: what stood before and after it.
#[derive(Debug)]
struct Visited {
    at: Positions,
    before: Vec<Row>,
    after: Vec<Row>,
    /// The version that it left.
    version: u64,
    /// Whether a process lived, and may have staged a batch before it.
    is_beside: bool,
    /// What it came to, where it made a version or a checkpoint.
    done: Option<VisitKind>,
}

/// A table and what it has to be.
pub(crate) struct History {
    pub(crate) place: Place,
    pub(crate) witness: Arc<Witness>,
    pub(crate) ledger: Ledger,
    model: Model,
    pub(crate) met: Met,
}

impl History {
    pub(crate) async fn new(kind: Kind, seed: u64) -> TestResult<Self> {
        Ok(Self {
            place: Place::new(kind, seed).await?,
            witness: Arc::new(Witness::new(Duration::from_millis(seed % 8))),
            ledger: Ledger::new(),
            model: Model::default(),
            met: Met::default(),
        })
    }

    /// Does a step and checks what it leaves.
    pub(crate) async fn apply(&mut self, step: &Step) -> TestResult {
        self.place.clock.set(SystemClock.now());
        match step {
            Step::Life { records, life, scripts, visit } => {
                self.produce(records)?;
                self.live(*life, scripts.clone(), visit.clone()).await
            }
            Step::Crash { records, life, operation } => {
                self.produce(records)?;
                self.crash(*life, *operation).await?;
                self.live(*life, Vec::new(), None).await
            }
            Step::Deaths { records, life } => {
                self.produce(records)?;
                self.die_everywhere(*life).await?;
                self.live(*life, Vec::new(), None).await
            }
            Step::Swap { records, life } => {
                self.produce(records)?;
                self.die_before_swap(*life).await?;
                self.live(*life, Vec::new(), None).await
            }
            _ if self.witness.versions().is_empty() => Ok(()),
            Step::Visit(visit) => {
                let visited = visited(Arc::clone(&self.witness), &self.place.keys, visit, false).await?;
                self.take_in(visited)?;
                self.check_protocol(&Arc::clone(&self.witness)).await.map(drop)
            }
            Step::Damage { beside, on_disk } => self.damage(*beside, *on_disk).await,
            Step::Optimize => {
                let clock: Arc<dyn Clock> = Arc::clone(&self.place.clock) as Arc<dyn Clock>;
                let aims = Aims::all(&UpkeepSettings::default());
                let optimized = optimize(self.log()?, &aims, Extent::Worthwhile, &clock, |_| ()).await;
                optimized.map_err(|error| error.chain())?;
                self.check(&Arc::clone(&self.witness)).await
            }
            Step::Vacuum => {
                let clock = Arc::clone(&self.place.clock);
                let vacuumed = vacuum(&self.log()?, Duration::ZERO, Mode::Remove, clock.as_ref(), |_| ()).await;
                vacuumed.map_err(|error| error.chain())?;
                self.check(&Arc::clone(&self.witness)).await
            }
        }
    }

    /// Writes all that was produced and committed to a file, for whoever looks into a failure, and returns its path.
    pub(crate) fn dump(&self, seed: u64, steps: &[Step]) -> TestResult<PathBuf> {
        let path = std::env::temp_dir().join(format!("alluvium-history-{seed}.txt"));
        let mut text = String::new();
        for (place, step) in (0..).zip(steps) {
            writeln!(text, "step {place}: {step:?}")?;
        }
        for (partition, records) in &self.ledger {
            for (offset, record) in (0..).zip(records) {
                writeln!(text, "record {partition}@{offset}: {record:?}")?;
            }
        }
        for (version, bytes) in self.witness.versions() {
            writeln!(text, "version {version}:\n{}", String::from_utf8_lossy(&bytes))?;
        }
        writeln!(text, "{:#?}", self.model)?;
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Returns the live rows, read by the rules alone.
    pub(crate) async fn rows(&self) -> TestResult<Vec<Row>> {
        let (_, mut rows) = read(&self.witness, &self.place.keys).await?;
        rows.sort();
        Ok(rows)
    }

    fn log(&self) -> TestResult<DeltaLog> {
        let store: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(self.store(), TABLE));
        Ok(DeltaLog::with_stores(format!("memory:///{TABLE}").parse()?, Arc::clone(&store), store))
    }

    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.witness) as Arc<dyn ObjectStore>
    }

    pub(crate) fn produce(&mut self, records: &[(i32, Record)]) -> TestResult {
        for (partition, record) in records {
            let produced = self.ledger.entry(*partition).or_default();
            self.place.produce(*partition, record, Spelling::after(produced.len()))?;
            produced.push(record.clone());
        }
        Ok(())
    }

    /// Lets a process live, with trouble, and checks that all records have landed.
    async fn live(&mut self, life: Life, scripts: Vec<Script>, visit: Option<(usize, Visit)>) -> TestResult {
        let visits: Arc<Mutex<Vec<TestResult<Option<Visited>>>>> = Arc::default();
        if let Some((n_commits, visit)) = visit {
            let (witness, keys) = (Arc::clone(&self.witness), Arc::clone(&self.place.keys));
            let visits = Arc::clone(&visits);
            let visitor = move || -> futures::future::BoxFuture<'static, ()> {
                Box::pin(async move {
                    let outcome = visited(witness, &keys, &visit, true).await;
                    visits.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
                })
            };
            self.witness.expect(n_commits, Box::new(visitor));
        }
        let store = Arc::new(FaultyStore::with_scripts(self.store(), scripts));
        let lived = self.place.live(&store, life).await;
        store.cut().await;
        self.witness.dismiss();
        self.met.faults += store.n_fired();
        let outcomes = std::mem::take(&mut *visits.lock().unwrap_or_else(PoisonError::into_inner));
        for outcome in outcomes {
            self.take_in(outcome?)?;
        }
        lived?;
        let witness = Arc::clone(&self.witness);
        self.check(&witness).await?;
        let (replay, _) = self.check_protocol(&witness).await?;
        self.check_drained(&replay)
    }

    fn take_in(&mut self, visited: Option<Visited>) -> TestResult {
        let Some(Visited { at, before, after, version, is_beside, done }) = visited else {
            self.met.refused += 1;
            return Ok(());
        };
        self.met.visits += 1;
        if let Some(kind) = done {
            *self.met.done.entry(kind).or_default() += 1;
        }
        self.model.advance(&self.ledger, &at);
        // The batch that landed next may have been staged before, also where the visitor came before a compaction.
        let next = if is_beside { self.next_positions(version)? } else { None };
        self.model.foreign(&before, &after, next);
        Ok(())
    }

    /// Returns where the first batch after `version` has taken the flow.
    fn next_positions(&self, version: u64) -> TestResult<Option<Positions>> {
        let mut replay = Replay::default();
        let mut at = Positions::new();
        for (number, bytes) in self.witness.versions() {
            let txns: Vec<_> = lines(&bytes)?.into_iter().filter(|line| line.get("txn").is_some()).collect();
            replay.apply(number, &txns);
            if number <= version {
                at = replay.positions();
            } else if replay.positions() != at {
                return Ok(Some(replay.positions()));
            }
        }
        Ok(None)
    }

    /// Damages snapshots of the index, each copy of them in its own way.
    async fn damage(&mut self, beside: Option<Damage>, on_disk: Option<Damage>) -> TestResult {
        if let Some(damage) = beside {
            self.met.damaged_beside += damage_beside(&self.witness, damage).await?;
        }
        if let Some((damage, disk)) = on_disk.zip(self.place.disk()) {
            self.met.damaged_on_disk += damage_on_disk(&disk, damage)?;
        }
        Ok(())
    }

    /// Checks the table against the protocol and against the model.
    async fn check(&mut self, witness: &Arc<Witness>) -> TestResult {
        let (replay, rows) = self.check_protocol(witness).await?;
        self.model.advance(&self.ledger, &replay.positions());
        self.model.check(&rows)?;
        self.met.versions = replay.operations.len();
        self.met.compactions = replay.compactions;
        let stored_as =
            |wanted: &str| replay.files.values().filter(|add| add["deletionVector"]["storageType"] == wanted).count();
        self.met.inline_vectors += stored_as("i");
        self.met.filed_vectors += stored_as("u");
        self.met.checkpoints += usize::from(Reader { store: self.store() }.has("_delta_log/_last_checkpoint").await?);
        Ok(())
    }

    /// Checks the table by Delta's rules alone, and returns it with its live rows.
    async fn check_protocol(&self, witness: &Arc<Witness>) -> TestResult<(Replay, Vec<Row>)> {
        let (replay, rows) = read(witness, &self.place.keys).await?;
        let mut faults = replay.faults.clone();
        let reader = Reader { store: Arc::clone(witness) as Arc<dyn ObjectStore> };
        let start = reader.start().await?;
        if start.essence() != replay.essence() {
            let (found, made) = (start.essence(), replay.essence());
            faults.push(format!("a start from the checkpoint finds {found:?}, the versions make {made:?}"));
        }
        let retained_ms = SystemClock.now().0 - i64::try_from(RETAINED.as_millis())?;
        faults.extend(replay.faults_of_tombstones(&start, retained_ms));
        for sidecar in &replay.sidecars {
            if !reader.has(sidecar).await? {
                faults.push(format!("{sidecar} is named by the log and gone"));
            }
        }
        faults.extend(faults_of_kind(&self.place, &replay));
        if faults.is_empty() { Ok((replay, rows)) } else { Err(faults.join("\n").into()) }
    }

    fn check_drained(&self, replay: &Replay) -> TestResult {
        let reached = replay.positions();
        for (partition, records) in &self.ledger {
            let end = i64::try_from(records.len())?;
            if reached.get(partition) != Some(&end) {
                return Err(format!("partition {partition} ends at {end}, and the table is at {reached:?}").into());
            }
        }
        Ok(())
    }
}

/// Returns what a table of this kind must not be.
fn faults_of_kind(place: &Place, replay: &Replay) -> Vec<String> {
    let mut faults = Vec::new();
    // Nobody writes vectors there but we.
    if place.kind == Kind::Rewritten && !replay.marking.is_empty() {
        faults.push(format!("versions {:?} have vectors, and files are to be written anew", replay.marking));
    }
    let clustering = replay.domains.get("delta.clustering").map(String::as_str);
    let wanted = format!(r#"{{"clusteringColumns":[["{}"]]}}"#, place.keys.clustering());
    let wanted = (place.kind == Kind::Clustered).then_some(wanted.as_str());
    if clustering != wanted {
        faults.push(format!("the table is clustered by {clustering:?}, and declared with {wanted:?}"));
    }
    faults
}

/// Reads the table of a store by its versions, and the live rows.
async fn read(witness: &Arc<Witness>, keys: &Keys) -> TestResult<(Replay, Vec<Row>)> {
    let replay = Replay::of(&witness.versions())?;
    let reader = Reader { store: Arc::clone(witness) as Arc<dyn ObjectStore> };
    let mut rows = Vec::new();
    for add in replay.files.values() {
        rows.extend(reader.rows(add, keys).await?.into_iter().map(|(row, _)| row));
    }
    Ok((replay, rows))
}

/// Tells whether all that the table was made of at `version` is still there.
async fn is_whole(witness: &Arc<Witness>, version: u64) -> TestResult<bool> {
    let older = witness.versions().into_iter().take_while(|(number, _)| *number <= version).collect();
    let reader = Reader { store: Arc::clone(witness) as Arc<dyn ObjectStore> };
    for add in Replay::of(&older)?.files.values() {
        if reader.content(add).await.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Lets another writer in and returns what it did; nothing where it did not.
async fn visited(witness: Arc<Witness>, keys: &Keys, visit: &Visit, is_beside: bool) -> TestResult<Option<Visited>> {
    if witness.versions().is_empty() {
        return Ok(None);
    }
    let (replay, before) = read(&witness, keys).await?;
    let n_versions = replay.operations.len();
    // delta-rs looks for the data files of what it restores, and not for their vectors.
    if let Visit::Restore { back } = visit
        && !is_whole(&witness, replay.newest().saturating_sub(*back).max(1)).await?
    {
        return Ok(None);
    }
    let is_clustered = !replay.domains.is_empty();
    // delta-rs does not write clustered tables.
    let outcome = if is_clustered {
        stranger::visit_once(&witness, keys, visit).await
    } else {
        foreign::visit_once(Arc::clone(&witness) as Arc<dyn ObjectStore>, keys, visit).await
    };
    let (after, rows) = read(&witness, keys).await?;
    if after.operations.len() == n_versions && outcome.is_err() {
        return Ok(None);
    }
    let version = after.newest();
    let is_done = |kind: &VisitKind| match kind {
        VisitKind::Checkpoint => outcome.is_ok(),
        _ => after.operations.len() > n_versions,
    };
    let done = visit.kind().filter(is_done);
    Ok(Some(Visited { at: replay.positions(), before, after: rows, version, is_beside, done }))
}
