//! The key index: random keys looked up in tables of one and ten million keys, bytes a key, and a snapshot beside a
//! rebuild from the keys.
//!
//! `cargo bench --workspace --bench index`

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;

use alluvium::delta::action::Add;
use alluvium::key::{KeyForm, Keys};
use alluvium::write::index::{Bounds, IndexedFile, KeyIndex, RowPlace, SnapshotOf, SnapshotWriter, read_snapshot};
use alluvium_catalog::{Error, Result};
use arrow::array::{ArrayRef, Decimal128Array, Int64Array};
use arrow::datatypes::DataType;
use criterion::{Criterion, Throughput};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Keys looked up at once: the batch that the goals are given for.
const BATCH_KEYS: usize = 100_000;

/// Rows of each file.
const FILE_ROWS: u32 = 1_000_000;

/// Spreads numbers over 64 bits, each to another.
fn spread(number: u64) -> i64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).cast_signed()
}

fn narrow(numbers: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(numbers.map(spread)))
}

fn wide(numbers: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(Decimal128Array::from_iter_values(numbers.map(|number| i128::from(spread(number)) << 32)))
}

/// Returns an index of `n_files` files of keys that `column` makes.
fn index_of(form: &KeyForm, n_files: u64, column: &dyn Fn(u64) -> ArrayRef) -> Result<KeyIndex> {
    let mut index = KeyIndex::default();
    for file in 0..n_files {
        let keys = form.pack(&[column(file * u64::from(FILE_ROWS))])?;
        let add = Add { path: format!("part-{file}.parquet"), ..Add::default() };
        let known = IndexedFile::new(&add, u64::from(FILE_ROWS), Default::default(), Bounds::default());
        let ordinal = index.insert_file(known);
        let places: Vec<RowPlace> = (0..FILE_ROWS).map(|row| RowPlace::new(ordinal, row)).collect();
        index.put_rows(&keys, &places);
    }
    Ok(index)
}

fn look_up(criterion: &mut Criterion, name: &str, index: &KeyIndex, batches: &[Keys]) {
    let mut group = criterion.benchmark_group("index/look_up");
    group.throughput(Throughput::Elements(BATCH_KEYS as u64));
    let mut batches = batches.iter().cycle();
    group.bench_function(name, |bencher| {
        bencher.iter(|| batches.next().map(|keys| black_box(index.find(keys)).len()));
    });
    group.finish();
}

fn recover(
    criterion: &mut Criterion,
    name: &str,
    index: &KeyIndex,
    build: &dyn Fn() -> Result<KeyIndex>,
) -> Result<()> {
    let of = SnapshotOf { table: "bench".to_owned(), version: 1, at_ms: 0, layout: String::new() };
    let bytes: Vec<u8> = SnapshotWriter::try_new(index.clone(), of)?.flatten().collect();
    let mut group = criterion.benchmark_group("index/recover");
    group.sample_size(10);
    group.bench_function(format!("snapshot/{name}"), |bencher| {
        bencher.iter(|| black_box(read_snapshot(&bytes)).map(|(_, index)| index.n_rows()))
    });
    group.bench_function(format!("keys/{name}"), |bencher| bencher.iter(|| build().map(|index| index.n_rows())));
    group.finish();
    Ok(())
}

/// Makes the keys of a file from the first on.
type Column = fn(u64) -> ArrayRef;

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    let mut random = StdRng::seed_from_u64(7);
    let columns: [(&str, Column); 2] = [
        ("i64", |first| narrow(first..first + u64::from(FILE_ROWS))),
        ("128bit", |first| wide(first..first + u64::from(FILE_ROWS))),
    ];
    let told = |cause| Error::internal("cannot show a figure").with_source(cause);
    for (kind, column) in columns {
        let form = KeyForm::try_new(vec![column(0).data_type().clone()])?;
        for n_files in [1_u64, 10] {
            let build = || index_of(&form, n_files, &column);
            let index = build()?;
            let name = format!("{kind}/{n_files}M");
            let footprint = index.footprint();
            let per_key = footprint.bytes as f64 / footprint.n_keys as f64;
            writeln!(std::io::stdout(), "index/bytes_per_key/{name}: {per_key:.1}").map_err(told)?;
            let n_keys = n_files * u64::from(FILE_ROWS);
            let is_narrow = form.types() == [DataType::Int64];
            let mut batch = || {
                let numbers: Vec<u64> = (0..BATCH_KEYS).map(|_| random.random_range(0..n_keys)).collect();
                form.pack(&[if is_narrow { narrow(numbers.into_iter()) } else { wide(numbers.into_iter()) }])
            };
            let batches = (0..8).map(|_| batch()).collect::<Result<Vec<_>>>()?;
            look_up(&mut criterion, &name, &index, &batches);
            recover(&mut criterion, &name, &index, &build)?;
        }
    }
    criterion.final_summary();
    Ok(())
}
