//! Thousands of small commits into one upsert table with upkeep beside them: do memory, commit time, log and load stay
//! flat?
//!
//! `cargo bench --workspace --bench long_run -- [COMMITS]` prints a line each 250 commits. The table is on the
//! local disk, below the folder for temporary files, and is removed at the end.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use alluvium::commit::create::Blueprint;
use alluvium::commit::land::{LandLimits, Landing, LandingParts, Signature};
use alluvium::commit::positions::AppIds;
use alluvium::config::UpkeepSettings;
use alluvium::delta::log::DeltaLog;
use alluvium::delta::state::TableState;
use alluvium::hop::{ChangeOrder, Changes, Spent};
use alluvium::invariant::Watch;
use alluvium::metrics::Metrics;
use alluvium::upkeep::{Upkeep, UpkeepParts};
use alluvium::write::parquet::DataFolder;
use alluvium::write::upsert::{UpsertColumns, UpsertSettings, UpsertWriter};
use alluvium_catalog::{
    Clock, Error, Fate, Lineage, Location, Offset, OffsetRange, Partition, Result, Span, StorageSettings, Stores,
    SystemClock,
};
use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Commits that are made when the command line does not say.
const COMMITS: usize = 5_000;

/// Commits from one line to the next.
const LINE_EVERY: usize = 250;

/// Records of a commit: few, as under a short interval.
const RECORDS: usize = 200;

/// Distinct keys: most commits meet rows of many files.
const KEYS: i64 = 50_000;

/// How long the log keeps versions, and checkpoints the files that are gone: under a thousand commits.
const LOG_RETENTION: (&str, &str) = ("delta.logRetentionDuration", "interval 1 second");
const FILE_RETENTION: (&str, &str) = ("delta.deletedFileRetentionDuration", "interval 1 second");

fn main() -> Result<()> {
    alluvium::heap::settle();
    let commits = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(COMMITS);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|cause| Error::internal("cannot start the runtime").with_source(cause))?;
    let folder = std::env::temp_dir().join(format!("alluvium-long-run-{}", SystemClock.new_id()));
    let done = runtime.block_on(Box::pin(long_run(&folder, commits)));
    if let Err(cause) = std::fs::remove_dir_all(&folder) {
        say(&format!("cannot remove {}: {cause}", folder.display()))?;
    }
    done
}

/// What a line tells of.
struct Line<'a> {
    commits: usize,
    /// How long each commit since the last line took.
    took: &'a mut Vec<Duration>,
}

async fn long_run(folder: &Path, commits: usize) -> Result<()> {
    let scene = Scene::new(folder)?;
    let mut landing = scene.open().await?;
    let mut upkeep = Upkeep::new(scene.upkeep()?, 0);
    let mut chance = StdRng::seed_from_u64(1);
    let mut took = Vec::new();
    say("commits   rss MiB   commit p50 ms   p99 ms   log files   log MiB   data files   data MiB   load ms")?;
    for commit in 1..=commits {
        let changes = changes(&mut chance, (commit - 1) as i64 * RECORDS as i64)?;
        let begun = Instant::now();
        let staged = landing.writer().stage(changes).await?;
        // An outcome other than landed shows as a file that is missing; nobody else writes here.
        drop(landing.land(&staged, &scene.signature()?).await?);
        upkeep.landed(&mut landing).await;
        took.push(begun.elapsed());
        if commit % LINE_EVERY == 0 {
            scene.report(&mut Line { commits: commit, took: &mut took }).await?;
        }
    }
    upkeep.close(&mut landing, Duration::from_secs(60)).await;
    Ok(())
}

/// The table and what it is reached by.
struct Scene {
    stores: Stores,
    folder: PathBuf,
    location: Location,
    clock: Arc<dyn Clock>,
}

impl Scene {
    fn new(folder: &Path) -> Result<Self> {
        // What is measured is this program, not the disk's flush.
        let stores = Stores::new(StorageSettings { local_fsync: false, ..StorageSettings::default() });
        let location = folder.display().to_string().parse()?;
        Ok(Self { stores, folder: folder.to_owned(), location, clock: Arc::new(SystemClock) })
    }

    async fn open(&self) -> Result<Landing> {
        let log = DeltaLog::open(&self.stores, &self.location)?;
        let folder = DataFolder {
            store: Arc::clone(log.store()),
            location: self.location.clone(),
            partitioned_by: Vec::new(),
            clock: Arc::clone(&self.clock),
        };
        let columns = UpsertColumns {
            declared: declared(),
            keys: vec!["id".to_owned()],
            sequence: vec![DataType::Int64],
            stored_sequence: Some(vec!["seq".to_owned()]),
        };
        let blueprint = Blueprint {
            schema: columns.stored(),
            partitioned_by: Vec::new(),
            clustered_by: None,
            deletion_vectors: true,
            comment: None,
            // In the log's clean-up minutes have to stand for weeks.
            properties: [LOG_RETENTION, FILE_RETENTION].map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        };
        let state = blueprint.open_or_create(&log, self.clock.as_ref()).await?;
        let writer = UpsertWriter::open(folder, columns, &state, UpsertSettings::default()).await?;
        let ids = AppIds::of_table(&"flow".parse()?, &"topic".parse()?);
        let watch = Watch::new(Arc::new(Metrics::try_new()?));
        let parts = LandingParts { log, state, writer: Box::new(writer), ids };
        Ok(Landing::new(parts, Arc::clone(&self.clock), LandLimits::default(), watch))
    }

    fn upkeep(&self) -> Result<UpkeepParts> {
        Ok(UpkeepParts {
            stores: self.stores.clone(),
            location: self.location.clone(),
            flow: "flow".parse()?,
            checkpoint_interval: 100,
            settings: UpkeepSettings::default(),
            clock: Arc::clone(&self.clock),
            metrics: Arc::new(Metrics::try_new()?),
        })
    }

    fn signature(&self) -> Result<Signature> {
        let lineage = Lineage::begin("flow".parse()?, "bench", "bench", self.clock.new_id(), self.clock.new_id());
        Ok(Signature { lineage, operation: "MERGE", definition: None })
    }

    async fn report(&self, line: &mut Line<'_>) -> Result<()> {
        line.took.sort_unstable();
        let at = |share: usize| line.took.get(line.took.len() * share / 100).copied().unwrap_or_default();
        let (median, slowest) = (at(50).as_secs_f64() * 1e3, at(99).as_secs_f64() * 1e3);
        let begun = Instant::now();
        let state = TableState::load(&DeltaLog::open(&self.stores, &self.location)?).await?.unwrap_or_default();
        let load = begun.elapsed().as_secs_f64() * 1e3;
        let (log_files, log_bytes) = folder_size(&self.folder.join("_delta_log"));
        let data_bytes: i64 = state.files.values().map(|add| add.size).sum();
        say(&format!(
            "{:>7}   {:>7.0}   {median:>13.1}   {slowest:>6.1}   {log_files:>9}   {:>7.1}   {:>10}   {:>8.1}   {load:>7.1}",
            line.commits,
            mebibytes(resident_bytes()),
            mebibytes(log_bytes),
            state.files.len(),
            mebibytes(u64::try_from(data_bytes).unwrap_or(0)),
        ))?;
        line.took.clear();
        Ok(())
    }
}

fn declared() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("seq", DataType::Int64, true),
        Field::new("note", DataType::Utf8, true),
    ]))
}

/// Returns changes of distinct keys, whose offsets begin at `first`.
fn changes(chance: &mut StdRng, first: i64) -> Result<Changes> {
    let mut ids: Vec<i64> = (0..RECORDS).map(|_| chance.random_range(0..KEYS)).collect();
    ids.sort_unstable();
    ids.dedup();
    let n_rows = ids.len();
    let sequence: ArrayRef = Arc::new(Int64Array::from(vec![first; n_rows]));
    let notes: StringArray = ids.iter().map(|id| Some(format!("order {id} as of {first}"))).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(ids)), Arc::clone(&sequence), Arc::new(notes)];
    let rows = RecordBatch::try_new(declared(), columns)
        .map_err(|cause| Error::internal("cannot make rows").with_source(cause))?;
    let n_records = RECORDS as u64;
    let mut span = Span::new();
    let next = Offset(first + RECORDS as i64);
    span.extend(Partition(0), OffsetRange { first: Offset(first), next, records: n_records })
        .map_err(|misfit| Error::internal(misfit.to_string()))?;
    Ok(Changes {
        rows,
        order: ChangeOrder {
            partitions: Int32Array::from(vec![0; n_rows]),
            offsets: (first..first + n_rows as i64).map(Some).collect(),
            sequence: vec![sequence],
            inherited: None,
            after_delete: None,
        },
        keyed: None,
        deletes: Some(BooleanArray::from(vec![false; n_rows])),
        rejects: Vec::new(),
        lookups: Vec::new(),
        fate: Fate {
            records_in: n_records,
            applied: n_rows as u64,
            merged: n_records - n_rows as u64,
            ..Fate::default()
        },
        span,
        spent: Spent::default(),
    })
}

/// Returns how many files a folder holds, and their bytes.
fn folder_size(folder: &Path) -> (usize, u64) {
    let Ok(entries) = std::fs::read_dir(folder) else { return (0, 0) };
    let sizes = entries.filter_map(|entry| entry.ok()?.metadata().ok()).filter(|told| told.is_file());
    sizes.fold((0, 0), |(files, bytes), told| (files + 1, bytes + told.len()))
}

/// Returns the memory of this process that is in RAM; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    /// The size of a page wherever this runs.
    const PAGE: u64 = 4_096;
    let told = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    told.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn say(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").map_err(|cause| Error::closed("cannot write").with_source(cause))
}
