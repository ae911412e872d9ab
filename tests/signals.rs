//! How the program stops: drained, or asked to; within its bounds, with its exit code, and with nothing half done.

use std::time::{Duration, Instant};

use crate::harness::lake::Lake;
use crate::harness::ledger::{Ledger, Workload};
use crate::harness::pipeline::{self, Variant};
use crate::harness::program::{Program, Running};
use crate::harness::proxy::Hung;
use crate::harness::topic::Topic;
use crate::harness::{TestResult, audit, services};

/// The drain timeout that the tests set, and what a process needs beside it to leave its groups and end.
const DRAIN: (&str, Duration) = ("20s", Duration::from_secs(30));

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lands_the_open_batch_and_exits_with_zero() -> TestResult {
    let Some(kafka) = services::kafka()? else { return Ok(()) };
    let lake = Lake::on_disk()?;
    let topic = Topic::create(&kafka, 2).await?;
    let program = Program::on(&lake).with("ALLUVIUM_DRAIN_TIMEOUT", DRAIN.0);
    // The first 500 records fill a batch; those after them would wait ten minutes.
    let variant = Variant { interval: Some("10 minutes"), rows: Some(500), ..Variant::default() };
    let file = program.write("pipeline.sql", &pipeline::both_flows(&kafka, &topic, &variant))?;
    let (mut workload, mut ledger) = (Workload::new(4, 60, 2), Ledger::default());
    topic.produce(workload.take(500), &mut ledger)?;
    let mut running = program.start(&["run", &file])?;
    running.wait_for("batch landed", 2, Duration::from_secs(60))?;
    topic.produce(workload.take(120), &mut ledger)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(running.is_running()?);
    let asked = Instant::now();
    running.terminate()?;
    running.wait(DRAIN.1)?.check(0)?;
    assert!(asked.elapsed() < DRAIN.1);
    audit::both_flows(&lake, &ledger, topic.name()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigint_without_records_exits_with_zero_at_once() -> TestResult {
    let Some(kafka) = services::kafka()? else { return Ok(()) };
    let lake = Lake::on_disk()?;
    let topic = Topic::create(&kafka, 1).await?;
    let program = Program::on(&lake);
    let file = program.write("pipeline.sql", &pipeline::both_flows(&kafka, &topic, &Variant::default()))?;
    let running = program.start(&["run", &file])?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    running.signal("INT")?;
    running.wait(DRAIN.1)?.check(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_on_an_empty_topic_makes_empty_tables_and_exits_with_zero() -> TestResult {
    let Some(kafka) = services::kafka()? else { return Ok(()) };
    let lake = Lake::on_disk()?;
    let topic = Topic::create(&kafka, 3).await?;
    let program = Program::on(&lake);
    let file = program.write("pipeline.sql", &pipeline::both_flows(&kafka, &topic, &Variant::default()))?;
    let summary = program.json(&["run", "--once", "--json", &file])?;
    let flows = summary["flows"].as_array().cloned().unwrap_or_default();
    assert_eq!(flows.len(), 2, "{summary}");
    assert!(flows.iter().all(|flow| flow["fate"]["records_in"] == 0 && flow["halted"].is_null()), "{summary}");
    audit::both_flows(&lake, &Ledger::default(), topic.name()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_again_lands_nothing_again() -> TestResult {
    let Some(kafka) = services::kafka()? else { return Ok(()) };
    let lake = Lake::on_disk()?;
    let topic = Topic::create(&kafka, 2).await?;
    let program = Program::on(&lake);
    let file = program.write("pipeline.sql", &pipeline::both_flows(&kafka, &topic, &Variant::default()))?;
    let mut ledger = Ledger::default();
    topic.produce(Workload::new(5, 40, 2).take(300), &mut ledger)?;
    program.done(&["run", "--once", &file])?;
    let summary = program.json(&["run", "--once", "--json", &file])?;
    let flows = summary["flows"].as_array().cloned().unwrap_or_default();
    assert!(flows.iter().all(|flow| flow["fate"]["records_in"] == 0), "{summary}");
    audit::both_flows(&lake, &ledger, topic.name()).await
}

#[test]
fn a_broker_that_is_not_there_is_named_and_keeps_nobody_from_stopping() -> TestResult {
    let lake = Lake::on_disk()?;
    let program = Program::on(&lake);
    let sql = "CREATE CONNECTION nobody TYPE kafka WITH ('bootstrap.servers' = '127.0.0.1:1');
CREATE SOURCE events (id BIGINT) WITH ('connection' = 'nobody', 'topic' = 'events');
CREATE STREAMING TABLE lake.events (id BIGINT);
CREATE FLOW events_flow AS INSERT INTO lake.events BY NAME SELECT id FROM STREAM(events);
";
    let file = program.write("pipeline.sql", sql)?;
    let mut running = program.start(&["run", &file])?;
    running.wait_for("127.0.0.1:1", 1, Duration::from_secs(60))?;
    running.terminate()?;
    let ended = running.wait(Duration::from_secs(60))?;
    assert_eq!(ended.status.code(), Some(0), "nothing was under way:\n{}", ended.err);
    Ok(())
}

/// How long a process may take to end once it drops what is under way.
const ABORT: Duration = Duration::from_secs(20);

impl Hung {
    /// Lets `stop` stop a program whose batches hang, then lands what it dropped and holds it all against the ledger.
    async fn stop_while_landing(&self, kafka: &str, stop: impl FnOnce(Running) -> TestResult<Running>) -> TestResult {
        let topic = Topic::create(kafka, 2).await?;
        let file = self.program.write("pipeline.sql", &pipeline::both_flows(kafka, &topic, &Variant::default()))?;
        let (mut workload, mut ledger) = (Workload::new(6, 60, 2), Ledger::default());
        topic.produce(workload.take(300), &mut ledger)?;
        let mut running = self.program.start(&["run", &file])?;
        running.wait_for("batch landed", 2, Duration::from_secs(60))?;
        self.proxy.stall();
        topic.produce(workload.take(300), &mut ledger)?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let ended = stop(running)?.wait(ABORT)?;
        ended.check(130)?;
        assert!(ended.err.contains("batches under way are dropped"), "{}", ended.err);
        self.proxy.resume();
        self.program.done(&["run", "--once", &file])?;
        audit::both_flows(&self.lake, &ledger, topic.name()).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_hangs_keeps_nobody_longer_than_the_drain_timeout() -> TestResult {
    let (Some(kafka), Some(bucket)) = (services::kafka()?, services::minio()?) else { return Ok(()) };
    let hung = Hung::on(&bucket, "3s")?;
    let stop = |mut running: Running| -> TestResult<Running> {
        running.terminate()?;
        running.wait_for("not drained within the drain timeout", 1, Duration::from_secs(10))?;
        Ok(running)
    };
    hung.stop_while_landing(&kafka, stop).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_a_drain_that_hangs() -> TestResult {
    let (Some(kafka), Some(bucket)) = (services::kafka()?, services::minio()?) else { return Ok(()) };
    let hung = Hung::on(&bucket, "60m")?;
    let stop = |mut running: Running| -> TestResult<Running> {
        running.terminate()?;
        running.wait_for("draining", 1, Duration::from_secs(10))?;
        std::thread::sleep(Duration::from_secs(2));
        assert!(running.is_running()?, "the first signal waits for the batch that is open");
        running.terminate()?;
        Ok(running)
    };
    hung.stop_while_landing(&kafka, stop).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_hangs_at_the_start_keeps_nobody_from_stopping() -> TestResult {
    let (Some(kafka), Some(bucket)) = (services::kafka()?, services::minio()?) else { return Ok(()) };
    let hung = Hung::on(&bucket, "60m")?;
    let topic = Topic::create(&kafka, 1).await?;
    let file = hung.program.write("pipeline.sql", &pipeline::both_flows(&kafka, &topic, &Variant::default()))?;
    hung.proxy.stall();
    let mut running = hung.program.start(&["run", &file])?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(running.is_running()?);
    running.terminate()?;
    running.wait(ABORT)?.check(0)
}
