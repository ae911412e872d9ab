//! JSON to Arrow: our decoder beside arrow-json alone, on the same records in the same run.
//!
//! `cargo bench --workspace --bench decode`
//!
//! Our decoder gets records one by one, as Kafka has them, and says of each what is wrong with it. arrow-json gets them one
//! by one, too, and all in one text, which it is made for. A table with ratios comes first, by turns and best of several
//! rounds, then what Criterion measures.

use std::hint::black_box;
use std::time::Instant;

use alluvium::decode::JsonReader;
use alluvium_benches::report::{TextTable, grouped, heading, show};
use alluvium_benches::{Workload, orders_schema};
use alluvium_catalog::{Error, Result};
use alluvium_sql::RecordLimits;
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;
use criterion::{Criterion, Throughput};

/// The batch that arrow-json's own figures are given for.
const BATCH_ROWS: usize = 8192;

/// Rounds of which the fastest counts.
const ROUNDS: usize = 20;

fn failed(cause: ArrowError) -> Error {
    Error::data("cannot decode the workload").with_source(cause)
}

fn decoder() -> Result<Decoder> {
    ReaderBuilder::new(orders_schema()).with_batch_size(BATCH_ROWS).build_decoder().map_err(failed)
}

fn flush(decoder: &mut Decoder) -> Result<usize> {
    Ok(decoder.flush().map_err(failed)?.map_or(0, |rows| black_box(rows).num_rows()))
}

/// Lets arrow-json decode records one by one.
fn arrow_json(values: &[Vec<u8>]) -> Result<usize> {
    let mut decoder = decoder()?;
    let mut n_rows = 0;
    for chunk in values.chunks(BATCH_ROWS) {
        for value in chunk {
            decoder.decode(value).map_err(failed)?;
        }
        n_rows += flush(&mut decoder)?;
    }
    Ok(n_rows)
}

/// Lets arrow-json decode a text with a record a line.
fn arrow_json_text(text: &[u8]) -> Result<usize> {
    let mut decoder = decoder()?;
    let (mut rest, mut n_rows) = (text, 0);
    while !rest.is_empty() {
        let n_read = decoder.decode(rest).map_err(failed)?;
        rest = &rest[n_read..];
        n_rows += flush(&mut decoder)?;
    }
    Ok(n_rows)
}

/// Returns the nanoseconds a row that each way of decoding takes at best; the ways take turns.
fn best_nanos<const N: usize>(n_rows: usize, mut ways: [&mut dyn FnMut() -> Result<usize>; N]) -> Result<[f64; N]> {
    let mut best = [f64::INFINITY; N];
    for _ in 0..ROUNDS {
        for (way, best) in ways.iter_mut().zip(&mut best) {
            let begun = Instant::now();
            let n_decoded = way()?;
            *best = best.min(begun.elapsed().as_nanos() as f64 / n_rows as f64);
            if n_decoded != n_rows {
                return Err(Error::internal(format!("{n_decoded} of {n_rows} rows were decoded")));
            }
        }
    }
    Ok(best)
}

/// Shows what a row costs each side. The goal is 1.5 times as fast as arrow-json.
fn ratios(workload: &Workload) -> Result<()> {
    let values = workload.values();
    let text = values.join(&b'\n');
    let documents: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
    let mut reader = JsonReader::new(orders_schema(), RecordLimits::default())?;
    let [ours, one_by_one, as_text] = best_nanos(
        values.len(),
        [
            &mut || reader.read(&documents).map(|read| black_box(read).rows.num_rows()),
            &mut || arrow_json(&values),
            &mut || arrow_json_text(&text),
        ],
    )?;
    let mut table = TextTable::new(&["decode", "ns/row", "rows/s", "ours is so many times as fast"]);
    for (name, nanos) in [
        ("alluvium", ours),
        ("arrow-json, records one by one", one_by_one),
        ("arrow-json, all records in one text", as_text),
    ] {
        table.row([name.to_owned(), format!("{nanos:.1}"), grouped(1e9 / nanos), format!("{:.2}", nanos / ours)]);
    }
    show(&format!("{}\n", table.render()))
}

fn main() -> Result<()> {
    show(&heading())?;
    ratios(&Workload::open("orders")?)?;
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
