//! The promise on real services: appends and upserts with everything that a topic can hold, accounted for one by one.

use std::time::Duration;

use crate::harness::lake::Lake;
use crate::harness::ledger::{Ledger, Workload};
use crate::harness::pipeline::{self, Variant};
use crate::harness::program::Program;
use crate::harness::topic::Topic;
use crate::harness::{TestResult, audit, services};

/// Lands three waves, each drained by a process of its own, and audits after each.
async fn land_and_audit(bootstrap: &str, lake: &Lake, seed: u64) -> TestResult {
    const WAVES: [usize; 3] = [3_000, 1, 2_000];
    let n_partitions = 4;
    let topic = Topic::create(bootstrap, n_partitions).await?;
    let program = Program::on(lake);
    let variant = Variant { rows: Some(700), ..Variant::default() };
    let file = program.write("pipeline.sql", &pipeline::both_flows(bootstrap, &topic, &variant))?;
    let mut workload = Workload::new(seed, 300, n_partitions);
    let mut ledger = Ledger::default();
    for n_records in WAVES {
        topic.produce(workload.take(n_records), &mut ledger)?;
        program.start(&["run", "--once", &file])?.wait(Duration::from_secs(120))?.check(0)?;
        audit::both_flows(lake, &ledger, topic.name()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_is_accounted_for_once_on_minio() -> TestResult {
    let (Some(kafka), Some(bucket)) = (services::kafka()?, services::minio()?) else { return Ok(()) };
    land_and_audit(&kafka, &Lake::in_bucket(&bucket)?, 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_is_accounted_for_once_on_versity() -> TestResult {
    let (Some(kafka), Some(bucket)) = (services::kafka()?, services::versity()?) else { return Ok(()) };
    land_and_audit(&kafka, &Lake::in_bucket(&bucket)?, 2).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_is_accounted_for_once_on_local_disk() -> TestResult {
    let Some(kafka) = services::kafka()? else { return Ok(()) };
    land_and_audit(&kafka, &Lake::on_disk()?, 3).await
}
