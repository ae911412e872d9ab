//! A process that is killed at any moment while records flow loses nothing and lands nothing twice.
//!
//! Three kills of four come at random moments, of a life or of a start. Beside them, others come right after the program
//! said that it begins what a kill should meet: a compaction, a batch that is due for a snapshot of the index, one that is
//! due for a checkpoint. Batches come so thick that they leave deletion vectors too large for the log, which stand in files
//! of their own. In the end the tables are held against the ledger of what was produced.
//!
//! A campaign is the same with more kills: `ALLUVIUM_TEST_KILLS=110 tests/run --test suite -- kill::`. The variable
//! `ALLUVIUM_TEST_SEED` makes the same records and moments again; `docs/TESTING.md` says more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::harness::lake::Lake;
use crate::harness::ledger::{Ledger, Workload};
use crate::harness::pipeline::{self, JOURNAL, REJECTS, STATE, Variant};
use crate::harness::program::{Program, Running};
use crate::harness::topic::Topic;
use crate::harness::{TestResult, audit, number, reader, services};

/// How often the process is killed, unless the environment says otherwise.
const KILLS: u64 = 26;

/// How many of as many kills wait for something; all others come at random moments.
const AWAITING_SHARE: u64 = 4;

/// How many kills at random moments the default is good for, and at how many kills all that is waited for must be met.
const RANDOM_MIN: u64 = 20;

/// How often more a kill waits for what none has met.
const MORE_ATTEMPTS: usize = 3;

/// How many of as many kills processes on the local disk and on the other S3 server get, each.
const OTHERS_SHARE: u64 = 4;

/// How long a kill may take, start and records included; a machine that is too slow for it fails the test.
const KILL_LIMIT: Duration = Duration::from_secs(8);

/// How long the program may take to begin what a kill waits for, before it is killed all the same.
const AIM_LIMIT: Duration = Duration::from_secs(6);

/// Compactions, index snapshots and checkpoints often enough that kills meet them.
const SETTINGS: &str = "[upkeep]
files_min = 3
wall_share = 100

[index]
snapshot_interval = 5
";

/// Versions between two checkpoints.
const CHECKPOINT_INTERVAL: u64 = 10;

/// Superseded rows are written anew, without vectors. The cap is below what many batches rewrite, so kills meet parts of
/// batches, too.
const COPY_ON_WRITE: &str =
    "TBLPROPERTIES ('alluvium.upsert' = 'copy-on-write', 'alluvium.upsert.rewrite.max' = '16 KB')";

/// What a kill is to meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Aim {
    Anything,
    StartUp,
    Compaction,
    Snapshot,
    Checkpoint,
}

impl Aim {
    /// What kills at random moments come into, in turn.
    const RANDOM: [Self; 5] = [Self::Anything, Self::Anything, Self::StartUp, Self::Anything, Self::StartUp];

    /// What kills wait for, in turn.
    const AWAITED: [Self; 3] = [Self::Compaction, Self::Snapshot, Self::Checkpoint];

    /// Returns what each of so many kills is to meet, in an order that chance decides.
    fn plan(n_kills: u64, random: &mut StdRng) -> TestResult<Vec<Self>> {
        let n_awaiting = n_kills / AWAITING_SHARE;
        let awaiting = Self::AWAITED.into_iter().cycle().take(usize::try_from(n_awaiting)?);
        let others = Self::RANDOM.into_iter().cycle().take(usize::try_from(n_kills - n_awaiting)?);
        let mut plan: Vec<Self> = awaiting.chain(others).collect();
        plan.shuffle(random);
        Ok(plan)
    }

    /// Tells whether the program has begun it, by what it has said.
    fn is_met(self, said: &str) -> bool {
        let landed = || said.lines().filter(|line| line.contains("batch landed") && line.contains("state"));
        match self {
            Self::Anything | Self::StartUp => false,
            Self::Compaction => said.contains("compaction begins"),
            // The first one of a process is due that many versions after it started.
            Self::Snapshot => landed().count() >= 5,
            Self::Checkpoint => landed().filter_map(version).any(|version| version % CHECKPOINT_INTERVAL == 0),
        }
    }
}

/// Returns the version that a line of the log names.
fn version(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("version=")?;
    rest.split(|char: char| !char.is_ascii_digit()).next()?.parse().ok()
}

/// What a campaign met.
#[derive(Debug, Default)]
struct Summary {
    kills: BTreeMap<Aim, u64>,
    /// Those of them that met what they waited for.
    met: BTreeMap<Aim, u64>,
    compactions: usize,
    /// Starts that took a snapshot of the index.
    restored: usize,
    records: usize,
    /// Records that were merged into newer ones: late ones, repeated ones, older ones of a batch.
    merged: u64,
    runs_that_landed: usize,
    /// Files that were added with a deletion vector in a file of its own.
    filed_vectors: usize,
    /// Files that were added with a deletion vector in the log.
    inline_vectors: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, met, compactions, restored, records, merged, runs_that_landed, .. } = self;
        let Self { filed_vectors, inline_vectors, .. } = self;
        let n_kills: u64 = kills.values().sum();
        write!(
            formatter,
            "{n_kills} kills {kills:?}, met was {met:?}; {runs_that_landed} runs landed something; \
             {compactions} compactions, {restored} starts from a snapshot; {filed_vectors} deletion vectors in files of \
             their own, {inline_vectors} in the log; {records} records, {merged} merged as late, repeated or older"
        )
    }
}

impl Summary {
    /// Checks that the campaign was one: a program that does nothing before it is killed would pass otherwise.
    fn check(&self, n_kills: u64, clauses: &str) {
        let n_random: u64 = [Aim::Anything, Aim::StartUp].iter().filter_map(|aim| self.kills.get(aim)).sum();
        assert!(n_kills < KILLS || n_random >= RANDOM_MIN, "only {n_random} kills came at random moments");
        for aim in Aim::AWAITED {
            assert!(n_kills < RANDOM_MIN || self.met.contains_key(&aim), "no kill met what {aim:?} stands for");
        }
        assert!(self.compactions > 0, "nothing was compacted meanwhile");
        assert!(self.runs_that_landed as u64 > n_kills / 4, "too few runs landed anything before they were killed");
        assert!(n_kills < 10 || self.restored > 0, "no start took a snapshot of the index");
        if clauses == COPY_ON_WRITE {
            assert_eq!(
                (self.filed_vectors, self.inline_vectors),
                (0, 0),
                "deletion vectors of rows that are rewritten"
            );
        } else {
            // Few kills leave few batches, of which none may supersede enough rows of one file.
            assert!(n_kills < 20 || self.filed_vectors > 0, "no deletion vector stood in a file of its own");
        }
    }
}

/// Returns the seed: the one of the environment, or another one each time.
fn seed() -> TestResult<u64> {
    let seed = number("ALLUVIUM_TEST_SEED", rand::rng().random())?;
    writeln!(std::io::stderr(), "kill: ALLUVIUM_TEST_SEED={seed}")?;
    Ok(seed)
}

/// Notes what the logs of both tables tell.
async fn read_logs(lake: &Lake, summary: &mut Summary) -> TestResult {
    let mut runs = BTreeSet::new();
    for table in [JOURNAL, STATE] {
        for entry in reader::log(lake, &lake.table(table)?).await? {
            let is_compaction = |info: &&serde_json::Value| info["operation"] == "OPTIMIZE";
            summary.compactions += entry.actions("commitInfo").filter(is_compaction).count();
            for add in entry.actions("add") {
                match add["deletionVector"]["storageType"].as_str() {
                    Some("i") => summary.inline_vectors += 1,
                    Some(_) => summary.filed_vectors += 1,
                    None => {}
                }
            }
            if let Some(lineage) = entry.lineage() {
                runs.insert(lineage["run"].to_string());
                summary.merged += lineage["fate"]["merged"].as_u64().unwrap_or_default();
            }
        }
    }
    summary.runs_that_landed = runs.len();
    Ok(())
}

/// Checks that the catalog has lost no commit over the kills: what it tells is what the logs tell.
fn check_history(program: &Program) -> TestResult {
    let history = |table: &str| program.json(&["catalog", "history", table, "--limit", "100000", "--json"]);
    let tables = [JOURNAL, STATE, REJECTS];
    let before = tables.map(history).into_iter().collect::<TestResult<Vec<_>>>()?;
    program.done(&["catalog", "rebuild"])?;
    for (table, before) in tables.into_iter().zip(before) {
        let versions = |commits: &serde_json::Value| -> Vec<u64> {
            commits.as_array().into_iter().flatten().filter_map(|commit| commit["version"].as_u64()).collect()
        };
        let after = history(table)?;
        assert_eq!(versions(&before), versions(&after), "commits of {table} before and after a rebuild");
        assert_eq!(before, after, "what is told of the commits of {table}");
        assert!(!versions(&after).is_empty(), "nothing landed in {table}");
    }
    Ok(())
}

/// A campaign against one lake.
struct Campaign<'a> {
    topic: &'a Topic,
    random: StdRng,
    workload: Workload,
    ledger: Ledger,
    summary: Summary,
}

impl Campaign<'_> {
    /// Lets records flow until it is time to kill `running`, then kills it.
    async fn kill(&mut self, running: Running, aim: Aim) -> TestResult {
        let (begun, random) = (Instant::now(), &mut self.random);
        let moment = match aim {
            Aim::Anything => Duration::from_millis(random.random_range(400..5_000)),
            Aim::StartUp => Duration::from_millis(random.random_range(20..700)),
            Aim::Compaction | Aim::Snapshot | Aim::Checkpoint => AIM_LIMIT,
        };
        let (mut is_met, mut next) = (false, Instant::now());
        while begun.elapsed() < moment && !is_met {
            if next <= Instant::now() {
                self.topic.produce(self.workload.take(random.random_range(1..200)), &mut self.ledger)?;
                next = Instant::now() + Duration::from_millis(random.random_range(10..150));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            is_met = aim.is_met(&running.said()?);
        }
        if is_met {
            // Right away, or when it is well under way.
            tokio::time::sleep(Duration::from_millis(random.random_range(0..60))).await;
        }
        let killed = running.kill()?;
        assert!(killed.status.code().is_none(), "it ended by itself before it was killed:\n{}", killed.err);
        *self.summary.kills.entry(aim).or_default() += 1;
        if is_met {
            *self.summary.met.entry(aim).or_default() += 1;
        }
        self.summary.restored += killed.err.matches("key index restored").count();
        Ok(())
    }
}

/// Kills a process on `lake` so often; its table of upserts has `clauses`.
async fn campaign(lake: &Lake, kafka: &str, (n_kills, clauses): (u64, &'static str)) -> TestResult {
    let (begun, seed, limit) = (Instant::now(), seed()?, KILL_LIMIT * u32::try_from(n_kills)?);
    let topic = Topic::create(kafka, 3).await?;
    // A static member comes back under its name; the group would wait for a killed one until its session ends.
    let connection = ", 'group.instance.id' = 'worker-1'".to_owned();
    let variant = Variant { connection, interval: Some("300 ms"), rows: Some(400), clauses };
    let program = Program::on(lake)
        .with("ALLUVIUM_CHECKPOINT_INTERVAL", CHECKPOINT_INTERVAL.to_string())
        .with("ALLUVIUM_LOG", "info,alluvium=debug");
    program.write("alluvium.toml", SETTINGS)?;
    let file = program.write("pipeline.sql", &pipeline::both_flows(kafka, &topic, &variant))?;
    let mut campaign = Campaign {
        topic: &topic,
        random: StdRng::seed_from_u64(seed),
        workload: Workload::new(seed, 200, 3),
        ledger: Ledger::default(),
        summary: Summary::default(),
    };
    for (n_done, aim) in Aim::plan(n_kills, &mut campaign.random)?.into_iter().enumerate() {
        assert!(begun.elapsed() < limit, "only {n_done} kills within {limit:?}");
        campaign.kill(program.start(&["run", &file])?, aim).await?;
    }
    // What a kill waits for may take longer than it waits; in a campaign of this length none is done without.
    for aim in Aim::AWAITED.into_iter().cycle().take(MORE_ATTEMPTS * Aim::AWAITED.len()) {
        if n_kills >= RANDOM_MIN && !campaign.summary.met.contains_key(&aim) {
            campaign.kill(program.start(&["run", &file])?, aim).await?;
        }
    }
    program.start(&["run", "--once", &file])?.wait(Duration::from_secs(120))?.check(0)?;
    let Campaign { ledger, mut summary, .. } = campaign;
    audit::both_flows(lake, &ledger, topic.name()).await?;
    check_history(&program)?;
    read_logs(lake, &mut summary).await?;
    summary.records = ledger.len();
    writeln!(std::io::stderr(), "kill: {} in {:?}", summary, begun.elapsed())?;
    summary.check(n_kills, clauses);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_every_record_still_lands_once() -> TestResult {
    let (Some(kafka), Some(bucket)) = (services::kafka()?, services::minio()?) else { return Ok(()) };
    campaign(&Lake::in_bucket(&bucket)?, &kafka, (number("ALLUVIUM_TEST_KILLS", KILLS)?, "")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_on_the_local_disk_every_record_still_lands_once() -> TestResult {
    let Some(kafka) = services::kafka()? else { return Ok(()) };
    let n_kills = number("ALLUVIUM_TEST_KILLS", KILLS)?.div_ceil(OTHERS_SHARE);
    campaign(&Lake::on_disk()?, &kafka, (n_kills, "")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_on_versity_every_record_still_lands_once() -> TestResult {
    let (Some(kafka), Some(bucket)) = (services::kafka()?, services::versity()?) else { return Ok(()) };
    let n_kills = number("ALLUVIUM_TEST_KILLS", KILLS)?.div_ceil(OTHERS_SHARE);
    campaign(&Lake::in_bucket(&bucket)?, &kafka, (n_kills, "")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_while_files_are_written_anew_every_record_still_lands_once() -> TestResult {
    let (Some(kafka), Some(bucket)) = (services::kafka()?, services::minio()?) else { return Ok(()) };
    let n_kills = number("ALLUVIUM_TEST_KILLS", KILLS)?.div_ceil(OTHERS_SHARE);
    campaign(&Lake::in_bucket(&bucket)?, &kafka, (n_kills, COPY_ON_WRITE)).await
}
