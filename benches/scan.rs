//! Reading Delta tables: our provider beside deltalake's, with deletion vectors and without, as ratios within one run.
//!
//! `cargo bench --workspace --bench scan [-- [ROWS] [QUERY]]`, where `QUERY` is in the names of those to be asked.
//!
//! The same files make two tables: one has all rows, the other has 5 % of the rows of each file deleted by vectors,
//! scattered by chance. A third one has the live rows in files of their own, without vectors. Each query is asked of the
//! first two through both providers and of the third through ours, by turns, and the least time of all rounds counts, so
//! that what else the machine does falls on all alike. Snapshots and file lists are loaded before the first round, and
//! caches are warm, for both. Before its rounds, the answers to a query are held against each other, row by row.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use alluvium::write::parquet::DataFolder;
use alluvium::write::stats::loosen;
use alluvium::write::vectors::VectorFolder;
use alluvium_benches::report::{TextTable, heading, show};
use alluvium_catalog::store::{CatalogStore, MemoryStore};
use alluvium_catalog::{Clock, Location, StorageSettings, Stores, SystemClock};
use alluvium_sql::TableReader;
use alluvium_sql::tables::Version;
use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use datafusion::catalog::TableProvider;
use datafusion::prelude::{SessionConfig, SessionContext};
use deltalake::DeltaTableBuilder;
use deltalake::delta_datafusion::{DeltaScanConfig, DeltaScanNext};
use deltalake::kernel::Add;
use futures::TryStreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use roaring::RoaringTreemap;
use serde_json::{Value, json};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const FILES: u64 = 8;
const ROWS: u64 = 2_000_000;
const DELETED: f64 = 0.05;
const ROUNDS: usize = 14;

/// What is asked, with a name for it.
const QUERIES: [(&str, &str); 9] = [
    ("full scan, all columns", "SELECT * FROM t"),
    ("full scan, two columns", "SELECT sum(ref), sum(amount) FROM t"),
    ("the same, filtered", "SELECT sum(ref), sum(amount) FROM t WHERE ref >= 0"),
    ("group by", "SELECT name, count(*), sum(amount) FROM t GROUP BY name"),
    ("selective, 0.05 %", "SELECT * FROM t WHERE amount > 999.5"),
    ("range of keys", "SELECT * FROM t WHERE id BETWEEN 300000 AND 300099"),
    ("key, clustered", "SELECT * FROM t WHERE id = 314159"),
    ("key, scattered", "SELECT * FROM t WHERE ref = 314159"),
    ("count", "SELECT count(*) FROM t"),
];

/// A way to read a table.
struct Subject {
    name: &'static str,
    session: SessionContext,
}

impl Subject {
    fn new(name: &'static str, provider: Arc<dyn TableProvider>) -> Outcome<Self> {
        let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(threads()));
        session.register_table("t", provider)?;
        Ok(Self { name, session })
    }

    async fn ask(&self, query: &str) -> Outcome<(Duration, usize)> {
        let start = Instant::now();
        let mut batches = self.session.sql(query).await?.execute_stream().await?;
        let mut n_rows = 0;
        while let Some(batch) = batches.try_next().await? {
            n_rows += batch.num_rows();
        }
        Ok((start.elapsed(), n_rows))
    }

    /// Returns the checksum of all rows of an answer, in whatever order they come.
    async fn checksum(&self, query: &str) -> Outcome<u64> {
        let mut batches = self.session.sql(query).await?.execute_stream().await?;
        let mut sum = 0_u64;
        while let Some(batch) = batches.try_next().await? {
            sum = sum.wrapping_add(checksum(&batch)?);
        }
        Ok(sum)
    }
}

/// Returns the sum of the hashes of all rows: equal rows count as often as they are there.
fn checksum(batch: &RecordBatch) -> Outcome<u64> {
    let columns = batch.columns().iter().map(same_text).collect::<Outcome<Vec<_>>>()?;
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let rows = RowConverter::new(fields)?.convert_columns(&columns)?;
    let hash = |row: &[u8]| {
        // Its keys are fixed, so that one row has one hash.
        let mut hasher = DefaultHasher::new();
        hasher.write(row);
        hasher.finish()
    };
    Ok(rows.iter().map(|row| hash(row.as_ref())).fold(0, u64::wrapping_add))
}

/// Returns a column of text as one type of text, whichever its reader chose; any other as it is.
fn same_text(column: &ArrayRef) -> Outcome<ArrayRef> {
    match column.data_type() {
        DataType::Utf8View | DataType::LargeUtf8 | DataType::Dictionary(..) => Ok(cast(column, &DataType::Utf8)?),
        _ => Ok(Arc::clone(column)),
    }
}

/// Returns `query` with sums that do not depend on the order of the rows, as those of doubles do in their last digits.
fn with_exact_sums(query: &str) -> String {
    query.replace("sum(amount)", "sum(CAST(amount AS DECIMAL(20, 9)))")
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn main() -> Outcome {
    alluvium::heap::settle();
    // Cargo adds one of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let n_rows = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(ROWS);
    let asked = arguments.iter().find(|argument| argument.parse::<u64>().is_err());
    let asked = asked.map(String::as_str).unwrap_or_default();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(n_rows, asked))
}

async fn run(n_rows: u64, asked: &str) -> Outcome {
    let folder = tempfile::tempdir()?;
    let stores = Stores::new(StorageSettings { local_fsync: false, ..StorageSettings::default() });
    let location: Location = folder.path().to_str().ok_or("the folder is not UTF-8")?.parse()?;
    write_table(&stores, &location, n_rows).await?;
    let catalog: Arc<dyn CatalogStore> = Arc::new(MemoryStore::default());
    let reader = TableReader::new(stores, catalog);
    let mut subjects = Vec::new();
    for (name, version) in [("ours, whole", 1), ("ours, vectors", 2), ("ours, rewritten", 3)] {
        subjects.push(Subject::new(name, reader.open(&location, Version::At(version)).await?.provider())?);
    }
    for (name, version) in [("deltalake, whole", 1), ("deltalake, vectors", 2)] {
        subjects.push(Subject::new(name, deltalake_provider(&location, version).await?)?);
    }
    let mut headings = vec!["query, ms"];
    headings.extend(subjects.iter().map(|subject| subject.name));
    headings.extend(["vectors/whole", "vectors/rewritten", "ours/theirs", "vectors/theirs whole"]);
    let mut table = TextTable::new(&headings);
    for (name, query) in QUERIES.into_iter().filter(|(name, _)| name.contains(asked)) {
        check_contents(&subjects, query).await?;
        let [whole, vectors, rewritten, their_whole, their_vectors] = best_of_rounds(&subjects, query).await?;
        let cell = |value: f64| format!("{value:.2}");
        table.row([
            name.to_owned(),
            cell(whole),
            cell(vectors),
            cell(rewritten),
            cell(their_whole),
            cell(their_vectors),
            cell(vectors / whole),
            cell(vectors / rewritten),
            cell(vectors / their_vectors),
            cell(vectors / their_whole),
        ]);
    }
    let of = format!("{n_rows} rows in {FILES} files, {} threads, best of {ROUNDS}\n", threads());
    show(&format!("{}{of}{}", heading(), table.render()))?;
    Ok(())
}

/// Checks that ours and theirs answer `query` with the same rows, with vectors and without.
async fn check_contents(subjects: &[Subject], query: &str) -> Outcome {
    let mut sums = [0; 5];
    for (sum, subject) in sums.iter_mut().zip(subjects) {
        *sum = subject.checksum(&with_exact_sums(query)).await?;
    }
    let [whole, vectors, rewritten, their_whole, their_vectors] = sums;
    if whole != their_whole || vectors != their_vectors || vectors != rewritten {
        let names: Vec<&str> = subjects.iter().map(|subject| subject.name).collect();
        return Err(format!("{query} has other rows for some of {names:?}: their checksums are {sums:x?}").into());
    }
    Ok(())
}

/// Returns the least milliseconds of each subject, which must have as many answers as the others with the same rows.
async fn best_of_rounds(subjects: &[Subject], query: &str) -> Outcome<[f64; 5]> {
    let mut best = [Duration::MAX; 5];
    for round in 0..=ROUNDS {
        let mut answers = [0; 5];
        // Each has its turn to begin: what ran before leaves its traces in caches and in the allocator.
        for turn in 0..best.len() {
            let place = (round + turn) % best.len();
            let subject = subjects.get(place).ok_or("a subject is missing")?;
            let (took, n_answers) = subject.ask(query).await?;
            best[place] = took.min(best[place]);
            answers[place] = n_answers;
        }
        let [whole, vectors, rewritten, their_whole, their_vectors] = answers;
        if whole != their_whole || vectors != their_vectors || vectors != rewritten {
            return Err(format!("{query} has {answers:?} rows").into());
        }
    }
    Ok(best.map(|best| best.as_secs_f64() * 1e3))
}

async fn deltalake_provider(location: &Location, version: u64) -> Outcome<Arc<dyn TableProvider>> {
    let table = DeltaTableBuilder::from_url(location.url()?)?.with_version(version).load().await?;
    let config = DeltaScanConfig {
        file_column_name: None,
        wrap_partition_values: false,
        enable_parquet_pushdown: true,
        schema_force_view_types: false,
        schema: None,
    };
    Ok(Arc::new(DeltaScanNext::new(table.snapshot()?.snapshot().clone(), config)?))
}

/// Writes version 0 without files, version 1 with all rows, version 2 with vectors, and version 3 with the live rows in
/// files of their own.
async fn write_table(stores: &Stores, location: &Location, n_rows: u64) -> Outcome {
    let store = stores.open(location)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let data = DataFolder {
        store: Arc::clone(&store),
        location: location.clone(),
        partitioned_by: Vec::new(),
        clock: Arc::clone(&clock),
    };
    let inline_bytes_max = VectorFolder::INLINE_BYTES_MAX;
    let vectors = VectorFolder { store, location: location.clone(), clock, inline_bytes_max };
    let mut chance = StdRng::seed_from_u64(1);
    let rows_a_file = n_rows / FILES;
    let (mut adds, mut live_adds) = (Vec::new(), Vec::new());
    let mut deleted = Vec::new();
    for file in 0..FILES {
        let rows = rows(&mut chance, file * rows_a_file, rows_a_file)?;
        adds.extend(data.write(&rows).await?.into_iter().map(|file| file.add));
        let gone = RoaringTreemap::from_iter((0..rows_a_file).filter(|_| chance.random_bool(DELETED)));
        let is_live: BooleanArray = (0..rows_a_file).map(|row| Some(!gone.contains(row))).collect();
        let live_rows = filter_record_batch(&rows, &is_live)?;
        live_adds.extend(data.write(&live_rows).await?.into_iter().map(|file| file.add));
        deleted.push(gone);
    }
    let descriptors = vectors.write(&deleted).await?;
    let features = json!(["deletionVectors"]);
    let protocol = json!({"protocol": {
        "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features
    }});
    commit(location, 0, &[protocol, metadata()])?;
    let whole: Vec<Value> = adds.iter().map(|add| json!({"add": add})).collect();
    commit(location, 1, &whole)?;
    let (mut marked, mut rewritten) = (Vec::new(), Vec::new());
    for (add, descriptor) in adds.into_iter().zip(descriptors) {
        marked.push(remove(&add));
        let stats = add.stats.as_deref().map(loosen);
        let add = Add { deletion_vector: Some(descriptor), stats, ..add };
        rewritten.push(remove(&add));
        marked.push(json!({"add": add}));
    }
    rewritten.extend(live_adds.iter().map(|add| json!({"add": add})));
    commit(location, 2, &marked)?;
    commit(location, 3, &rewritten)
}

/// Returns the action that takes a file out of the table. With another vector it would be another file.
fn remove(add: &Add) -> Value {
    let mut remove = json!({
        "path": add.path, "deletionTimestamp": 0, "dataChange": true, "extendedFileMetadata": true,
        "partitionValues": add.partition_values, "size": add.size
    });
    if let Some(vector) = &add.deletion_vector {
        remove["deletionVector"] = json!(vector);
    }
    json!({"remove": remove})
}

fn metadata() -> Value {
    let field =
        |name: &str, data_type: &str| json!({"name": name, "type": data_type, "nullable": true, "metadata": {}});
    let fields = [
        field("id", "long"),
        field("ref", "long"),
        field("amount", "double"),
        field("name", "string"),
        field("note", "string"),
    ];
    json!({"metaData": {
        "id": "bench", "format": {"provider": "parquet", "options": {}}, "partitionColumns": [],
        "schemaString": json!({"type": "struct", "fields": fields}).to_string(),
        "configuration": {"delta.enableDeletionVectors": "true"}, "createdTime": 0
    }})
}

fn commit(location: &Location, version: u64, actions: &[Value]) -> Outcome {
    let log = location.local_path().ok_or("not on disk")?.join("_delta_log");
    std::fs::create_dir_all(&log)?;
    let text: Vec<String> = actions.iter().map(Value::to_string).collect();
    Ok(std::fs::write(log.join(format!("{version:020}.json")), text.join("\n"))?)
}

/// Returns rows with ids in order, references and amounts by chance, few names and a note that is long.
fn rows(chance: &mut StdRng, first: u64, n_rows: u64) -> Outcome<RecordBatch> {
    let ids = i64::try_from(first)?..i64::try_from(first + n_rows)?;
    let references: Int64Array = ids.clone().map(|_| Some(chance.random_range(0..10_000_000))).collect();
    let amounts: Float64Array = ids.clone().map(|_| Some(chance.random_range(0.0..1000.0))).collect();
    let names: StringArray = ids.clone().map(|id| Some(format!("name {}", id % 1000))).collect();
    let notes: StringArray = ids.clone().map(|_| Some(format!("{:032x}", chance.random::<u128>()))).collect();
    let columns: [(&str, ArrayRef, bool); 5] = [
        ("id", Arc::new(Int64Array::from_iter_values(ids)), true),
        ("ref", Arc::new(references), true),
        ("amount", Arc::new(amounts), true),
        ("name", Arc::new(names), true),
        ("note", Arc::new(notes), true),
    ];
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}
