//! Positions are of one cluster and one topic: a flow halts when either is another, and goes on only when told to.

use std::sync::Arc;
use std::time::Duration;

use alluvium::config::Limits;
use alluvium::metrics::Metrics;
use alluvium::pipeline::FlowRun;
use alluvium::shutdown::Shutdown;
use alluvium::source::memory::{MemoryBroker, MemoryRecord, MemorySettings, MemorySource};
use alluvium::supervise::World;
use alluvium::write::vectors::VectorFolder;
use alluvium_catalog::store::{CatalogStore, MemoryStore};
use alluvium_catalog::{Clock, Partition, Result, StorageSettings, Stores, SystemClock, Topic};
use alluvium_sql::{Compiler, Flow, SourceText};

use crate::harness::lake::Lake;
use crate::harness::ledger::{Ledger, Workload};
use crate::harness::names::NoNames;
use crate::harness::pipeline::{self, JOURNAL, Variant};
use crate::harness::program::Program;
use crate::harness::{TestResult, reader, services, topic};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_created_anew_halts_its_flows_until_it_is_accepted() -> TestResult {
    let Some(kafka) = services::kafka()? else { return Ok(()) };
    let lake = Lake::on_disk()?;
    let topic = topic::Topic::create(&kafka, 1).await?;
    let program = Program::on(&lake);
    let file = program.write("pipeline.sql", &pipeline::both_flows(&kafka, &topic, &Variant::default()))?;
    topic.produce(Workload::new(1, 20, 1).take(50), &mut Ledger::default())?;
    program.done(&["run", "--once", &file])?;
    let rows = async || reader::deltalake_rows(&lake, &lake.table(JOURNAL)?, "SELECT id FROM t").await;
    let before = rows().await?.len();

    // Longer than the position: nothing but its id tells this topic from the old one.
    topic.recreate(1).await?;
    topic.produce(Workload::new(2, 20, 1).take(90), &mut Ledger::default())?;
    let ended = program.run(&["run", "--once", &file])?;
    ended.check(1)?;
    for said in ["was created anew", "--accept-source journal", "--accept-source state"] {
        assert!(ended.out.contains(said), "{said} is not in\n{}", ended.out);
    }
    assert_eq!(rows().await?.len(), before, "records of the new topic landed");

    let ended = program.run(&["run", "--once", "--accept-source", "nobody", &file])?;
    ended.check(1)?;
    assert!(ended.err.contains("they define journal, state"), "{}", ended.err);

    let accepted = ["run", "--once", "--accept-source", "journal", "--accept-source", "state", &file];
    program.done(&accepted)?;
    assert!(rows().await?.len() > before, "the flow did not go on");
    // What was accepted stands in the table now.
    program.done(&["run", "--once", &file]).map(drop)
}

async fn flow() -> TestResult<Arc<Flow>> {
    let text = "CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = 'nowhere:9092');
        CREATE SOURCE things (id BIGINT NOT NULL) WITH ('connection' = 'shop', 'topic' = 'things');
        CREATE STREAMING TABLE lake.things (id BIGINT NOT NULL);
        CREATE FLOW things AS INSERT INTO lake.things BY NAME SELECT id FROM STREAM(things);";
    let compiler = Compiler::new("memory:///lake".parse()?, Arc::new(NoNames));
    let pipeline = compiler.compile(&[Arc::new(SourceText::new("things.sql", text))]).await?;
    Ok(pipeline.flows.into_iter().next().ok_or("no flow")?)
}

fn world() -> TestResult<World> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Ok(World {
        stores: Stores::new(StorageSettings::default()),
        warehouse: "memory:///lake".parse()?,
        catalog: Arc::new(MemoryStore::default()) as Arc<dyn CatalogStore>,
        registry: None,
        metrics: Arc::new(Metrics::try_new()?),
        index_budget: Arc::default(),
        lookups: Arc::default(),
        run: clock.new_id(),
        clock,
        settings: Limits::default(),
        inline_bytes_max: VectorFolder::INLINE_BYTES_MAX,
    })
}

/// Lands what `broker` has and returns the number of records.
async fn land(flow: &Arc<Flow>, broker: &MemoryBroker, world: &World, accepts: bool) -> Result<u64> {
    let prepared = Box::pin(FlowRun::prepare(Arc::clone(flow), world)).await?;
    let prepared = if accepts { prepared.accepting_source() } else { prepared };
    let mut settings = MemorySettings { once: true, ..MemorySettings::new("things".parse()?) };
    settings.limits.interval = Duration::from_millis(50);
    let source = MemorySource::open(broker, settings, prepared.positions())?;
    let mut run = Box::pin(prepared.start(Box::new(source), world)).await?;
    run.run(&Shutdown::new()).await?;
    run.close(&Shutdown::new()).await?;
    Ok(run.tally().fate.records_in)
}

fn broker(cluster: &str, topic: &Topic, n_records: usize) -> Result<MemoryBroker> {
    let broker = MemoryBroker::of_cluster(cluster);
    broker.create_topic(topic, 1);
    for _record in 0..n_records {
        broker.append(topic, Partition(0), MemoryRecord::of(r#"{"id": 1}"#))?;
    }
    Ok(broker)
}

#[tokio::test]
async fn another_cluster_halts_the_flow_until_it_is_accepted() -> TestResult {
    let (flow, world, topic) = (flow().await?, world()?, "things".parse()?);
    let (old, moved) = (broker("old", &topic, 3)?, broker("new", &topic, 5)?);
    assert_eq!(land(&flow, &old, &world, false).await?, 3);
    assert_eq!(land(&flow, &old, &world, false).await?, 0, "the same cluster goes on");
    let error = land(&flow, &moved, &world, false).await.err().ok_or("another cluster was read")?;
    assert!(error.message().contains("cluster new, but the table's positions are of cluster old"), "{error}");
    assert_eq!(land(&flow, &moved, &world, true).await?, 2);
    assert_eq!(land(&flow, &moved, &world, false).await?, 0, "what was accepted stands in the table");
    old.create_topic(&topic, 1);
    assert!(land(&flow, &old, &world, false).await.is_err());
    Ok(())
}
