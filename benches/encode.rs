//! Arrow to parquet as the writer does it: one file of 100,000 rows.
//!
//! `cargo bench --workspace --bench encode`

use std::hint::black_box;

use alluvium::decode::JsonReader;
use alluvium::write::parquet::encode;
use alluvium_benches::report::{heading, show};
use alluvium_benches::{Workload, orders_schema};
use alluvium_catalog::Result;
use alluvium_sql::RecordLimits;
use criterion::{Criterion, Throughput};

fn main() -> Result<()> {
    show(&heading())?;
    let workload = Workload::open("orders")?;
    let values = workload.values();
    let documents: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
    let rows = JsonReader::new(orders_schema(), RecordLimits::default())?.read(&documents)?.rows;
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(workload.records));
    group.bench_function("parquet zstd-1", |bencher| {
        bencher.iter(|| black_box(encode(&rows).map(|(bytes, _)| bytes.len())))
    });
    group.finish();
    criterion.final_summary();
    Ok(())
}
