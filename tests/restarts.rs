//! Starts that follow another: of a flow whose service fails for a while, which says so, begins again by itself, and ends
//! where it was to end; and of a process that takes the key index from where the one before has left it.

use std::fs;
use std::time::Duration;

use crate::harness::lake::Lake;
use crate::harness::ledger::{Ledger, Workload};
use crate::harness::pipeline::{self, Variant};
use crate::harness::program::Program;
use crate::harness::proxy::Hung;
use crate::harness::served::{Served, sum};
use crate::harness::topic::Topic;
use crate::harness::{TestResult, audit, services};

/// How long a process may take to land a batch, or all of them.
const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_that_begins_again_says_so_and_ends_at_the_first_ends() -> TestResult {
    let (Some(kafka), Some(bucket)) = (services::kafka()?, services::minio()?) else { return Ok(()) };
    let (hung, served) = (Hung::on(&bucket, "60m")?, Served::somewhere()?);
    let program = hung.program.clone().with("ALLUVIUM_LISTEN", &served.address);
    // A store that hangs is given up soon, and waited for as long as it takes.
    let patience = "[storage]\nrequest_timeout = \"1s\"\nretries = 0\n\
                    [limits]\ncommit_attempts = 2\nonce_timeout = \"10m\"\n";
    program.write("alluvium.toml", patience)?;
    let topic = Topic::create(&kafka, 2).await?;
    // Batches so small that the store is gone before the last has landed.
    let variant = Variant { rows: Some(10), ..Variant::default() };
    let file = program.write("pipeline.sql", &pipeline::both_flows(&kafka, &topic, &variant))?;
    let (mut workload, mut ledger) = (Workload::new(5, 60, 2), Ledger::default());
    topic.produce(workload.take(2_000), &mut ledger)?;

    let mut running = program.start(&["run", "--once", &file])?;
    running.wait_for("batch landed", 4, LIMIT)?;
    hung.proxy.stall();
    for flow in [r#"flow="journal""#, r#"flow="state""#] {
        let is_starting = [flow, r#"state="starting""#];
        served.wait("/metrics", |_, text| sum(text, "alluvium_flow_state", &is_starting) == Some(1.0))?;
    }
    let (status, text) = served.ask("/readyz")?;
    assert!(status == 503 && text.contains("journal waits for") && text.contains("state waits for"), "{status} {text}");
    // What comes now is for the next run, however long this one takes.
    topic.produce(workload.take(300), &mut Ledger::default())?;
    hung.proxy.resume();
    let ended = running.wait(LIMIT)?;
    ended.check(0)?;
    assert!(ended.err.contains("flow failed, starting it again"), "{}", ended.err);
    audit::both_flows(&hung.lake, &ledger, topic.name()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_takes_the_key_index_off_the_disk_and_where_that_is_another_from_beside_the_table() -> TestResult {
    let (Some(kafka), Some(bucket)) = (services::kafka()?, services::minio()?) else { return Ok(()) };
    let lake = Lake::in_bucket(&bucket)?;
    let program = Program::on(&lake).with("ALLUVIUM_LOG", "info,alluvium=debug");
    let topic = Topic::create(&kafka, 2).await?;
    let file = program.write("pipeline.sql", &pipeline::both_flows(&kafka, &topic, &Variant::default()))?;
    let (mut workload, mut ledger) = (Workload::new(6, 60, 2), Ledger::default());
    let (on_disk, beside) = (lake.folder().join("catalog.db.index"), r#"snapshot="_alluvium/index/"#);
    let disk = format!("snapshot=\"{}/", on_disk.display());
    // What the disk is lacking then, the process has written at its end.
    for (is_other_disk, expected) in
        [(false, None), (false, Some(disk.as_str())), (true, Some(beside)), (false, Some(&disk))]
    {
        if is_other_disk {
            fs::remove_dir_all(&on_disk)?;
        }
        topic.produce(workload.take(300), &mut ledger)?;
        let ended = program.run(&["run", "--once", &file])?;
        ended.check(0)?;
        let read: Vec<&str> = ended.err.lines().filter(|line| line.contains("a snapshot was read")).collect();
        let is_expected = match (read.as_slice(), expected) {
            ([], None) => true,
            ([line], Some(place)) => line.contains(place),
            _ => false,
        };
        assert!(is_expected, "{expected:?}: {read:?}");
    }
    audit::both_flows(&lake, &ledger, topic.name()).await
}
