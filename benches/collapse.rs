//! The transform stage over one decoded batch: every row is added, or the newest row of each key is left. What the
//! second takes over the first is the collapse.
//!
//! `cargo bench --workspace --bench collapse`

#[path = "end_to_end/batches.rs"]
mod batches;
#[path = "end_to_end/flow.rs"]
mod flow;

use std::hint::black_box;
use std::sync::Arc;

use alluvium::decode::Decoder;
use alluvium::hop::Decoded;
use alluvium::transform::TransformStage;
use alluvium_benches::Workload;
use alluvium_benches::report::{heading, show};
use alluvium_catalog::store::MemoryStore;
use alluvium_catalog::{Error, Location, Result, StorageSettings, Stores};
use alluvium_sql::{Flow, TableReader, Transform};
use criterion::{BatchSize, Criterion, Throughput};

use flow::{Batches, FlowKind};

/// The batch that the upsert figures of `docs/BENCHMARKS.md` are given for.
const RECORDS: u64 = 100_000;

fn decoded(flow: &Flow, workload: &Workload) -> Result<Decoded> {
    let batch = batches::fetched(workload, flow.batch.rows_max)?.pop();
    let batch = batch.ok_or_else(|| Error::invalid("the workload has no records"))?;
    Decoder::new(flow)?.decode(batch)
}

async fn stage(flow: &Arc<Flow>) -> Result<TransformStage> {
    let reader = TableReader::new(Stores::new(StorageSettings::default()), Arc::new(MemoryStore::default()));
    let transform = Transform::compile(flow, Arc::new(reader)).await?;
    TransformStage::try_new(Arc::clone(flow), transform)
}

async fn compiled(kind: FlowKind) -> Result<Arc<Flow>> {
    let failed = |cause| Error::unavailable("cannot write the SQL file").with_source(cause);
    let folder = tempfile::tempdir().map_err(failed)?;
    let file = folder.path().join("flow.sql");
    let limits = Batches { rows: Some(RECORDS), interval_ms: None };
    std::fs::write(&file, flow::sql(kind, "localhost:9092", "orders", limits)).map_err(failed)?;
    let warehouse: Location = folder.path().display().to_string().parse()?;
    flow::compile(&file, &warehouse).await
}

fn main() -> Result<()> {
    show(&heading())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(8 << 20).build();
    let runtime = runtime.map_err(|cause| Error::internal("cannot start a runtime").with_source(cause))?;
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    for name in ["uniform", "zipf", "append_mostly"] {
        let workload = Workload::open(name)?.with_records(RECORDS);
        let mut group = criterion.benchmark_group(format!("collapse/{name}"));
        group.throughput(Throughput::Elements(workload.records));
        for kind in [FlowKind::Append, FlowKind::Upsert] {
            let flow = runtime.block_on(compiled(kind))?;
            let mut stage = runtime.block_on(stage(&flow))?;
            group.bench_function(kind.as_str(), |bencher| {
                bencher.iter_batched(
                    || decoded(&flow, &workload),
                    |batch| black_box(runtime.block_on(async { stage.apply(batch?).await })),
                    BatchSize::LargeInput,
                );
            });
        }
        group.finish();
    }
    criterion.final_summary();
    Ok(())
}
