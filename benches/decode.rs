//! JSON to Arrow: our decoder beside arrow-json alone, on the same records in the same run.
//!
//! `cargo bench --workspace --bench decode`

use std::hint::black_box;

use alluvium::decode::JsonReader;
use alluvium_benches::{Workload, orders_schema};
use alluvium_catalog::{Error, Result};
use alluvium_sql::RecordLimits;
use arrow::json::ReaderBuilder;
use criterion::{Criterion, Throughput};

/// The batch that arrow-json's own figures are given for.
const BATCH_ROWS: usize = 8192;

fn arrow_json(values: &[Vec<u8>]) -> Result<usize> {
    let failed = |cause| Error::data("cannot decode the workload").with_source(cause);
    let mut decoder =
        ReaderBuilder::new(orders_schema()).with_batch_size(BATCH_ROWS).build_decoder().map_err(failed)?;
    let mut n_rows = 0;
    for chunk in values.chunks(BATCH_ROWS) {
        for value in chunk {
            decoder.decode(value).map_err(failed)?;
        }
        n_rows += decoder.flush().map_err(failed)?.map_or(0, |rows| rows.num_rows());
    }
    Ok(n_rows)
}

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    for name in ["orders", "orders_malformed"] {
        let workload = Workload::open(name)?;
        let values = workload.values();
        let documents: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let mut group = criterion.benchmark_group(format!("decode/{name}"));
        group.throughput(Throughput::Elements(workload.records));
        let mut reader = JsonReader::new(orders_schema(), RecordLimits::default())?;
        group.bench_function("alluvium", |bencher| {
            bencher.iter(|| black_box(reader.read(&documents).map(|read| read.rows.num_rows())))
        });
        if workload.malformed_every == 0 {
            group.bench_function("arrow-json", |bencher| bencher.iter(|| black_box(arrow_json(&values))));
        }
        group.finish();
    }
    criterion.final_summary();
    Ok(())
}
