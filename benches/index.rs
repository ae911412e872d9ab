//! The key index: bytes a key while a table grows, what a key costs to pack, to put (also where its look-up has ended) and
//! to look up, and a snapshot beside a rebuild from the keys.
//!
//! `cargo bench --workspace --bench index`
//!
//! Keys are numbers of 64 bits, decimals of 128 bits, and UUIDs as text, which are kept in 128 bits, too. A table with all
//! kinds comes first, then what Criterion measures. Batches of 100,000 keys are worked on by all cores: times are of the
//! wall.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alluvium::delta::action::Add;
use alluvium::key::{KeyForm, Keys};
use alluvium::write::index::{
    Bounds, Footprint, IndexedFile, KeyIndex, RowPlace, SnapshotOf, SnapshotWriter, read_snapshot,
};
use alluvium_benches::report::{TextTable, heading, percentile, show};
use alluvium_catalog::{Error, Result};
use arrow::array::{ArrayRef, Decimal128Array, Int64Array, StringArray};
use criterion::{Criterion, Throughput};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Keys worked on at once: the batch that the goals are given for.
const BATCH_KEYS: u32 = 100_000;

/// Batches of random keys, taken by turns, so that none is in the caches when it comes again.
const BATCHES: usize = 8;

/// How often a batch is worked on; the median counts.
const ROUNDS: usize = 24;

/// Rows of each file.
const FILE_ROWS: u32 = 1_000_000;

/// Sizes of the tables, in files.
const SIZES: [u64; 2] = [1, 10];

/// From so many keys on bytes a key are looked at: below, what does not grow with keys counts, too.
const KEYS_MIN: u64 = 500_000;

/// Keys of one type.
struct Kind {
    name: &'static str,
    /// Makes the keys of numbers, each another.
    column: fn(&[u64]) -> ArrayRef,
    /// Bytes that a key may take.
    bytes_max: f64,
    /// Whether keys cost less to make than to put: only then a rebuild says what the index costs.
    is_cheap: bool,
}

const KINDS: [Kind; 3] = [
    Kind { name: "i64", column: narrow, bytes_max: 24.0, is_cheap: true },
    Kind { name: "128bit", column: wide, bytes_max: 36.0, is_cheap: true },
    Kind { name: "uuid", column: uuids, bytes_max: 36.0, is_cheap: false },
];

/// Spreads numbers over 64 bits, each to another.
fn spread(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn narrow(numbers: &[u64]) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(numbers.iter().map(|number| spread(*number).cast_signed())))
}

fn wide(numbers: &[u64]) -> ArrayRef {
    let values = numbers.iter().map(|number| i128::from(spread(*number).cast_signed()) << 32);
    Arc::new(Decimal128Array::from_iter_values(values))
}

fn uuids(numbers: &[u64]) -> ArrayRef {
    let text = |number: &u64| {
        let (high, low) = (spread(*number), spread(*number).rotate_left(29));
        let (time, version) = ((high >> 16) & 0xffff, high & 0xffff);
        format!("{:08x}-{time:04x}-{version:04x}-{:04x}-{:012x}", high >> 32, low >> 48, low & 0xffff_ffff_ffff)
    };
    Arc::new(StringArray::from_iter_values(numbers.iter().map(text)))
}

impl Kind {
    fn form(&self) -> Result<KeyForm> {
        KeyForm::try_new(vec![(self.column)(&[]).data_type().clone()])
    }

    /// Returns batches of keys drawn from `numbers`.
    fn batches(&self, form: &KeyForm, numbers: Range<u64>) -> Result<Vec<Keys>> {
        let mut chance = StdRng::seed_from_u64(7);
        let mut batch = || {
            let drawn: Vec<u64> = (0..BATCH_KEYS).map(|_| chance.random_range(numbers.clone())).collect();
            form.pack(&[(self.column)(&drawn)])
        };
        (0..BATCHES).map(|_| batch()).collect()
    }

    /// Returns an index of `n_files` files.
    fn index(&self, form: &KeyForm, n_files: u64) -> Result<KeyIndex> {
        let mut index = KeyIndex::default();
        for file in 0..n_files {
            let keys = form.pack(&[(self.column)(&numbers(file, 0..FILE_ROWS))])?;
            let ordinal = index.insert_file(indexed(file));
            let places: Vec<RowPlace> = (0..FILE_ROWS).map(|row| RowPlace::new(ordinal, row)).collect();
            index.put_rows(&keys, &places);
        }
        Ok(index)
    }
}

/// Returns the numbers that the keys of some rows of a file are made of.
fn numbers(file: u64, rows: Range<u32>) -> Vec<u64> {
    rows.map(|row| file * u64::from(FILE_ROWS) + u64::from(row)).collect()
}

fn indexed(file: u64) -> IndexedFile {
    let add = Add { path: format!("part-{file}.parquet"), ..Add::default() };
    IndexedFile::new(&add, u64::from(FILE_ROWS), Default::default(), Bounds::default())
}

/// What the keys of one kind cost in a table of one size.
struct Figures {
    /// Bytes a key once the table is full, and the least and the most while it grew, batch by batch.
    bytes: f64,
    bytes_least: f64,
    bytes_most: f64,
    /// Nanoseconds a key.
    pack: f64,
    put_new: f64,
    put_known: f64,
    put_found: f64,
    find_known: f64,
    find_absent: f64,
}

impl Figures {
    /// Grows an index batch by batch, then works on random batches of its keys.
    fn measure(kind: &Kind, n_files: u64) -> Result<Self> {
        let form = kind.form()?;
        let mut index = KeyIndex::default();
        let (mut pack, mut put, mut bytes) = (Duration::ZERO, Duration::ZERO, Vec::new());
        for file in 0..n_files {
            let ordinal = index.insert_file(indexed(file));
            for first in (0..FILE_ROWS).step_by(BATCH_KEYS as usize) {
                let rows = first..FILE_ROWS.min(first + BATCH_KEYS);
                let column = (kind.column)(&numbers(file, rows.clone()));
                let places: Vec<RowPlace> = rows.map(|row| RowPlace::new(ordinal, row)).collect();
                let begun = Instant::now();
                let keys = form.pack(&[column])?;
                let packed = begun.elapsed();
                index.put_rows(&keys, &places);
                put += begun.elapsed() - packed;
                pack += packed;
                let Footprint { n_keys, bytes: all, .. } = index.footprint();
                if n_keys >= KEYS_MIN {
                    bytes.push(all as f64 / n_keys as f64);
                }
            }
        }
        let n_keys = n_files * u64::from(FILE_ROWS);
        let (known, absent) = (kind.batches(&form, 0..n_keys)?, kind.batches(&form, n_keys..2 * n_keys)?);
        check_found(&index, &known, BATCH_KEYS as usize)?;
        check_found(&index, &absent, 0)?;
        let find_known = nanos_a_key(&known, |keys| drop(black_box(index.find(keys))));
        let find_absent = nanos_a_key(&absent, |keys| drop(black_box(index.find(keys))));
        let ordinal = index.insert_file(indexed(n_files));
        let places: Vec<RowPlace> = (0..BATCH_KEYS).map(|row| RowPlace::new(ordinal, row)).collect();
        let put_known = nanos_a_key(&known, |keys| index.put_rows(keys, &places));
        let mut put_found = Vec::with_capacity(ROUNDS);
        for keys in known.iter().cycle().take(ROUNDS) {
            let found = index.look_up(keys);
            let begun = Instant::now();
            index.replace_rows(&found, &places);
            put_found.push(begun.elapsed().as_nanos() as f64 / keys.len() as f64);
        }
        Ok(Self {
            bytes: bytes.last().copied().unwrap_or(0.0),
            bytes_least: percentile(&mut bytes, 0.0).unwrap_or(0.0),
            bytes_most: percentile(&mut bytes, 1.0).unwrap_or(0.0),
            pack: pack.as_nanos() as f64 / n_keys as f64,
            put_new: put.as_nanos() as f64 / n_keys as f64,
            put_known,
            put_found: percentile(&mut put_found, 0.5).unwrap_or(0.0),
            find_known,
            find_absent,
        })
    }

    fn cells(&self, kind: &Kind, n_files: u64) -> [String; 11] {
        let tenths = |value: f64| format!("{value:.1}");
        [
            format!("{}/{n_files}M", kind.name),
            tenths(self.bytes),
            tenths(self.bytes_least),
            tenths(self.bytes_most),
            format!("{:.0}", kind.bytes_max),
            tenths(self.pack),
            tenths(self.put_new),
            tenths(self.put_known),
            tenths(self.put_found),
            tenths(self.find_known),
            tenths(self.find_absent),
        ]
    }
}

/// Checks that of each batch so many keys are found: what is not exact needs no measure of its speed.
fn check_found(index: &KeyIndex, batches: &[Keys], expected: usize) -> Result<()> {
    for keys in batches {
        let n_found = index.find(keys).iter().filter(|place| place.is_some()).count();
        if n_found != expected {
            return Err(Error::internal(format!("{n_found} keys were found where there are {expected}")));
        }
    }
    Ok(())
}

fn nanos_a_key(batches: &[Keys], mut work: impl FnMut(&Keys)) -> f64 {
    let mut nanos = Vec::with_capacity(ROUNDS);
    for keys in batches.iter().cycle().take(ROUNDS) {
        let begun = Instant::now();
        work(keys);
        nanos.push(begun.elapsed().as_nanos() as f64 / keys.len() as f64);
    }
    percentile(&mut nanos, 0.5).unwrap_or(0.0)
}

fn look_up(criterion: &mut Criterion, name: &str, index: &KeyIndex, batches: &[Keys]) {
    let mut group = criterion.benchmark_group("index/look_up");
    group.throughput(Throughput::Elements(u64::from(BATCH_KEYS)));
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

fn main() -> Result<()> {
    show(&heading())?;
    let mut table = TextTable::new(&[
        "keys",
        "bytes a key",
        "least",
        "most",
        "goal",
        "pack ns",
        "put new ns",
        "put known ns",
        "put found ns",
        "find ns",
        "find absent ns",
    ]);
    for (kind, n_files) in KINDS.iter().flat_map(|kind| SIZES.map(|n_files| (kind, n_files))) {
        table.row(Figures::measure(kind, n_files)?.cells(kind, n_files));
    }
    show(&format!("{}\n", table.render()))?;
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    for (kind, n_files) in KINDS.iter().flat_map(|kind| SIZES.map(|n_files| (kind, n_files))) {
        let form = kind.form()?;
        let index = kind.index(&form, n_files)?;
        let name = format!("{}/{n_files}M", kind.name);
        let batches = kind.batches(&form, 0..n_files * u64::from(FILE_ROWS))?;
        look_up(&mut criterion, &name, &index, &batches);
        if kind.is_cheap {
            recover(&mut criterion, &name, &index, &|| kind.index(&form, n_files))?;
        }
    }
    criterion.final_summary();
    Ok(())
}
