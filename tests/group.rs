//! Processes that share a consumer group hand partitions over without losing or repeating a record.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::harness::lake::Lake;
use crate::harness::ledger::{Ledger, Workload};
use crate::harness::pipeline::{self, JOURNAL, STATE, Variant};
use crate::harness::program::Program;
use crate::harness::topic::Topic;
use crate::harness::{TestResult, audit, reader, services};

/// How long a group may take to settle: longer than its sessions, and than the time after which new partitions are seen.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// A topic that grows, with what is produced to it.
struct Stream {
    topic: Topic,
    workload: Workload,
    ledger: Ledger,
}

impl Stream {
    /// Produces a little at a time until `holds` says that it has seen enough.
    async fn flow_until(&mut self, what: &str, holds: impl AsyncFn() -> TestResult<bool>) -> TestResult {
        let begun = Instant::now();
        while !holds().await? {
            if begun.elapsed() > SETTLED_WITHIN {
                return Err(format!("after {SETTLED_WITHIN:?} it did not come about that {what}").into());
            }
            for _ in 0..5 {
                self.topic.produce(self.workload.take(40), &mut self.ledger)?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }
}

/// Returns the partitions that versions after `after` of a table have read, and by which runs.
async fn read_since(lake: &Lake, table: &str, after: u64) -> TestResult<(BTreeSet<i64>, BTreeSet<String>)> {
    let (mut partitions, mut runs) = (BTreeSet::new(), BTreeSet::new());
    for entry in reader::log(lake, &lake.table(table)?).await?.iter().filter(|entry| entry.version > after) {
        let Some(lineage) = entry.lineage() else { continue };
        runs.insert(lineage["run"].to_string());
        let ranges = lineage["inputs"].as_array().into_iter().flatten().filter_map(|input| input["ranges"].as_array());
        partitions.extend(ranges.flatten().filter_map(|range| range["partition"].as_i64()));
    }
    Ok((partitions, runs))
}

async fn newest(lake: &Lake, table: &str) -> TestResult<u64> {
    let versions = reader::log(lake, &lake.table(table)?).await?;
    Ok(versions.last().map_or(0, |entry| entry.version))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_joins_late_partitions_are_added_and_one_is_killed() -> TestResult {
    let (Some(kafka), Some(bucket)) = (services::kafka()?, services::minio()?) else { return Ok(()) };
    a_group_changes(&Lake::in_bucket(&bucket)?, &kafka).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_joins_late_partitions_are_added_and_one_is_killed_on_versity() -> TestResult {
    let (Some(kafka), Some(bucket)) = (services::kafka()?, services::versity()?) else { return Ok(()) };
    a_group_changes(&Lake::in_bucket(&bucket)?, &kafka).await
}

/// Lets a second process join the first, adds partitions, kills the first, and holds the tables against the ledger.
async fn a_group_changes(lake: &Lake, kafka: &str) -> TestResult {
    let topic = Topic::create(kafka, 2).await?;
    let connection = ", 'session.timeout.ms' = '6000', 'heartbeat.interval.ms' = '500', \
                      'topic.metadata.refresh.interval.ms' = '1000'";
    let variant =
        Variant { connection: connection.to_owned(), interval: Some("300 ms"), rows: Some(500), ..Variant::default() };
    let program = Program::on(lake);
    let file = program.write("pipeline.sql", &pipeline::both_flows(kafka, &topic, &variant))?;
    let workload = Workload::new(7, 150, 2);
    let mut stream = Stream { topic, workload, ledger: Ledger::default() };

    let first = program.start(&["run", &file])?;
    stream.flow_until("the first process lands", async || Ok(newest(lake, STATE).await? > 1)).await?;
    let second = program.start(&["run", &file])?;
    let both =
        async |table| Ok::<_, Box<dyn std::error::Error + Send + Sync>>(read_since(lake, table, 0).await?.1.len() == 2);
    stream.flow_until("both processes land", async || Ok(both(STATE).await? && both(JOURNAL).await?)).await?;

    stream.topic.grow(4).await?;
    stream.workload = Workload::new(8, 150, 4).with_first_key(1_000);
    let all = BTreeSet::from([0, 1, 2, 3]);
    let has_all = async |after| Ok(read_since(lake, STATE, after).await?.0 == all);
    stream.flow_until("the new partitions are read", async || has_all(0).await).await?;

    let ended = first.kill()?;
    assert!(ended.status.code().is_none(), "the first process ended by itself:\n{}", ended.err);
    let at_kill = newest(lake, STATE).await?;
    // Versions that were under way count for the killed process, so its partitions have to be seen a while later.
    stream
        .flow_until("the second reads all partitions alone", async || {
            let (partitions, runs) = read_since(lake, STATE, at_kill + 1).await?;
            Ok(partitions == all && runs.len() == 1)
        })
        .await?;
    second.terminate()?;
    second.wait(Duration::from_secs(40))?.check(0)?;
    program.start(&["run", "--once", &file])?.wait(Duration::from_secs(120))?.check(0)?;
    audit::both_flows(lake, &stream.ledger, stream.topic.name()).await
}
