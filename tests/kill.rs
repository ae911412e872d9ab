//! A process that is killed at random moments while records flow loses nothing and lands nothing twice.
//!
//! Most kills are on MinIO, some on the Versity gateway. A campaign is the same test with more of them:
//! `ALLUVIUM_TEST_KILLS=100 tests/run killed_at_random`.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::harness::lake::Lake;
use crate::harness::ledger::{Ledger, Workload};
use crate::harness::pipeline::{self, JOURNAL, REJECTS, STATE, Variant};
use crate::harness::program::Program;
use crate::harness::services::Bucket;
use crate::harness::topic::Topic;
use crate::harness::{TestResult, audit, reader, services};

/// How often the process is killed on MinIO, unless the environment says otherwise; on Versity a third as often.
const KILLS: usize = 22;

/// How long a kill may take, start and records included; a machine that is too slow for it fails the test.
const KILL_LIMIT: Duration = Duration::from_secs(8);

/// Compactions and index snapshots often enough that kills meet them.
const SETTINGS: &str = "[upkeep]
files_min = 3
wall_share = 100

[index]
snapshot_interval = 5
";

fn kills() -> TestResult<usize> {
    match std::env::var("ALLUVIUM_TEST_KILLS") {
        Ok(text) => Ok(text.parse()?),
        Err(_) => Ok(KILLS),
    }
}

/// Returns the seed: the one of the environment, or another one each time.
fn seed(bucket: &Bucket) -> TestResult<u64> {
    let seed = match std::env::var("ALLUVIUM_TEST_SEED") {
        Ok(text) => text.parse()?,
        Err(_) => rand::rng().random(),
    };
    writeln!(std::io::stderr(), "kill on {}: ALLUVIUM_TEST_SEED={seed}", bucket.endpoint)?;
    Ok(seed)
}

/// Runs of the program that have landed a version of either table.
async fn runs_that_landed(lake: &Lake) -> TestResult<BTreeSet<String>> {
    let mut runs = BTreeSet::new();
    for table in [JOURNAL, STATE] {
        let versions = reader::log(lake, &lake.table(table)?).await?;
        runs.extend(versions.iter().filter_map(|entry| Some(entry.lineage()?["run"].to_string())));
    }
    Ok(runs)
}

/// Versions of either table that compacted files.
async fn compactions(lake: &Lake) -> TestResult<usize> {
    let mut n_compactions = 0;
    for table in [JOURNAL, STATE] {
        let versions = reader::log(lake, &lake.table(table)?).await?;
        let infos = versions.iter().flat_map(|entry| entry.actions("commitInfo"));
        n_compactions += infos.filter(|info| info["operation"] == "OPTIMIZE").count();
    }
    Ok(n_compactions)
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_every_record_still_lands_once_on_minio() -> TestResult {
    let (Some(kafka), Some(bucket)) = (services::kafka()?, services::minio()?) else { return Ok(()) };
    land_through_kills(&kafka, &bucket, kills()?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_every_record_still_lands_once_on_versity() -> TestResult {
    let (Some(kafka), Some(bucket)) = (services::kafka()?, services::versity()?) else { return Ok(()) };
    land_through_kills(&kafka, &bucket, kills()?.div_ceil(3)).await
}

async fn land_through_kills(kafka: &str, bucket: &Bucket, kills: usize) -> TestResult {
    let (lake, begun, seed) = (Lake::in_bucket(bucket)?, Instant::now(), seed(bucket)?);
    let limit = KILL_LIMIT * u32::try_from(kills)?;
    let mut random = StdRng::seed_from_u64(seed);
    let topic = Topic::create(kafka, 3).await?;
    // A static member comes back under its name; the group would wait for a killed one until its session ends.
    let connection = ", 'group.instance.id' = 'worker-1'".to_owned();
    let variant = Variant { connection, interval: Some("300 ms"), rows: Some(400) };
    let program = Program::on(&lake).with("ALLUVIUM_CHECKPOINT_INTERVAL", "10");
    program.write("alluvium.toml", SETTINGS)?;
    let file = program.write("pipeline.sql", &pipeline::both_flows(kafka, &topic, &variant))?;
    let (mut workload, mut ledger) = (Workload::new(seed, 200, 3), Ledger::default());
    for n_kills in 0..kills {
        assert!(begun.elapsed() < limit, "only {n_kills} kills within {limit:?}");
        let running = program.start(&["run", &file])?;
        let moment = Instant::now() + Duration::from_millis(random.random_range(400..6_000));
        while Instant::now() < moment {
            topic.produce(workload.take(random.random_range(1..200)), &mut ledger)?;
            tokio::time::sleep(Duration::from_millis(random.random_range(10..150))).await;
        }
        let killed = running.kill()?;
        assert!(killed.status.code().is_none(), "it ended by itself before it was killed:\n{}", killed.err);
    }
    program.start(&["run", "--once", &file])?.wait(Duration::from_secs(120))?.check(0)?;
    audit::both_flows(&lake, &ledger, topic.name()).await?;
    check_history(&program)?;
    let n_compactions = compactions(&lake).await?;
    writeln!(std::io::stderr(), "kill on {}: {kills} kills, {n_compactions} compactions", bucket.endpoint)?;
    assert!(n_compactions > 0, "nothing was compacted meanwhile");
    // Without this a program that lands nothing before it is killed would pass.
    let n_runs = runs_that_landed(&lake).await?.len();
    assert!(n_runs > kills / 3, "only {n_runs} of {kills} runs landed anything before they were killed");
    Ok(())
}
