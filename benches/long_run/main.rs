//! Thousands of small commits into one table with upkeep beside them: do memory, commit time, log and load stay flat?
//!
//! `cargo bench --workspace --bench long_run -- --commits 5000 --rows 200`
//!
//! prints a line each 250 commits, and at the end each column's last quarter over its second one: 1.00 is flat. From
//! 4,000 commits on it then ends with an error where commit time, memory or log grew by more than they may. A load is
//! that of the table's newest version by a process that has just started. Resident memory is told with the part that no
//! file stands behind, of which the key index tells its own, and at the end with what is left of it when free memory has
//! been given back. The table is on the local disk, its files are not flushed, and it is removed at the end. `--mode
//! append` adds rows instead of upserting them; `--keys`, `--every`, `--interval-ms`, `--folder` and `--json` are known,
//! too.

mod curves;
mod log_size;
mod mode;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alluvium::commit::Outcome;
use alluvium::commit::create::Blueprint;
use alluvium::commit::land::{LandLimits, Landing, LandingParts, Signature};
use alluvium::commit::positions::AppIds;
use alluvium::config::UpkeepSettings;
use alluvium::delta::log::DeltaLog;
use alluvium::delta::state::TableState;
use alluvium::invariant::Watch;
use alluvium::metrics::Metrics;
use alluvium::upkeep::{Upkeep, UpkeepParts};
use alluvium::write::Writer;
use alluvium::write::append::AppendWriter;
use alluvium::write::parquet::DataFolder;
use alluvium::write::upsert::{UpsertColumns, UpsertSettings, UpsertWriter};
use alluvium_benches::arguments::Arguments;
use alluvium_benches::child::{self, Nursery};
use alluvium_benches::meter::{rss_anonymous_bytes, rss_bytes};
use alluvium_benches::report::{end, grouped, heading, keep, percentile, show};
use alluvium_catalog::{Clock, Error, Lineage, Location, Result, StorageSettings, Stores, SystemClock};
use arrow::datatypes::DataType;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use curves::{COLUMNS, Curves, End};
use log_size::LogSize;
use mode::{Mode, changes, declared};

/// How long the log keeps versions, and checkpoints the files that are gone: under a thousand commits.
const LOG_RETENTION: (&str, &str) = ("delta.logRetentionDuration", "interval 1 second");
const FILE_RETENTION: (&str, &str) = ("delta.deletedFileRetentionDuration", "interval 1 second");

/// Versions from one checkpoint to the next.
const CHECKPOINT_INTERVAL: u64 = 100;

/// Versions from one snapshot of the key index to the next, as the engine's settings have it by default.
const SNAPSHOT_INTERVAL: u64 = 500;

/// Loads of which a line tells the median; each is a process of its own.
const LOADS: usize = 5;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) mode: Mode,
    pub(crate) commits: usize,
    /// Rows of a commit: few by default, as under a short interval.
    pub(crate) rows: usize,
    /// Distinct keys: most commits meet rows of many files.
    pub(crate) keys: i64,
    /// Commits from one line to the next.
    every: usize,
    /// From the begin of one commit to that of the next; none waits by default.
    interval: Duration,
    folder: PathBuf,
    json: Option<PathBuf>,
}

impl Asked {
    fn read() -> Result<Self> {
        let known = ["mode", "commits", "rows", "keys", "every", "interval-ms", "folder", "json"];
        let arguments = Arguments::read(&known)?;
        let mode = arguments.get("mode").map_err(|error| error.with_hint("append or upsert"))?;
        let asked = Self {
            mode: mode.unwrap_or(Mode::Upsert),
            commits: arguments.get("commits")?.unwrap_or(5_000),
            rows: arguments.get("rows")?.unwrap_or(200),
            keys: arguments.get("keys")?.unwrap_or(50_000),
            every: arguments.get("every")?.unwrap_or(250),
            interval: Duration::from_millis(arguments.get("interval-ms")?.unwrap_or(0)),
            folder: arguments.get("folder")?.unwrap_or_else(std::env::temp_dir),
            json: arguments.get("json")?,
        };
        if asked.rows == 0 || asked.every == 0 || asked.keys < 1 {
            return Err(Error::invalid("--rows, --every and --keys cannot be 0"));
        }
        Ok(asked)
    }
}

/// What a child is to load.
#[derive(Debug, Serialize, Deserialize)]
struct Load {
    table: PathBuf,
    /// Where the milliseconds that it took go.
    answer: PathBuf,
}

fn main() -> ExitCode {
    alluvium::heap::settle();
    end(match child::task() {
        Some((_, plan)) => load(&plan),
        None => Asked::read().and_then(|asked| measure(&asked)),
    })
}

fn runtime() -> Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|cause| Error::internal("cannot start the runtime").with_source(cause))
}

/// Loads the newest version of a table once, in a process that has loaded nothing before.
fn load(plan: &Path) -> Result<()> {
    let load: Load = child::read_json(plan)?;
    let runtime = runtime()?;
    let begun = Instant::now();
    let location: Location = load.table.display().to_string().parse()?;
    let log = DeltaLog::open(&Stores::new(StorageSettings::default()), &location)?;
    let state = runtime.block_on(TableState::load(&log))?;
    let took_ms = begun.elapsed().as_secs_f64() * 1e3;
    if state.is_none_or(|state| state.files.is_empty()) {
        return Err(Error::data(format!("there is no table in {}", load.table.display())));
    }
    child::write_json(&load.answer, &took_ms)
}

fn measure(asked: &Asked) -> Result<()> {
    let folder = tempfile::TempDir::new_in(&asked.folder)
        .map_err(|cause| Error::unavailable("cannot make a folder for the table").with_source(cause))?;
    let [commits, rows, keys] = [asked.commits as f64, asked.rows as f64, asked.keys as f64].map(grouped);
    let what = asked.mode.heading(&commits, &rows, &keys);
    show(&format!("{}{what}, upkeep beside them\n{}", heading(), Curves::heading()))?;
    let mut curves = Curves::default();
    let done = runtime()?.block_on(Box::pin(long_run(asked, folder.path(), &mut curves)));
    // What there is of the curves is shown even where the run has failed.
    show(&curves.foot())?;
    keep(asked.json.as_deref(), &curves.to_json(asked))?;
    done?;
    curves.check_flat()
}

async fn long_run(asked: &Asked, folder: &Path, curves: &mut Curves) -> Result<()> {
    let scene = Scene::new(folder, asked.mode)?;
    let mut landing = scene.open().await?;
    let mut upkeep = Upkeep::new(scene.upkeep()?, 0);
    let mut chance = StdRng::seed_from_u64(1);
    let mut took_ms = Vec::new();
    for commit in 1..=asked.commits {
        let changes = changes(asked, &mut chance, (commit - 1) * asked.rows)?;
        let begun = Instant::now();
        let staged = landing.writer().stage(changes).await?;
        let outcome = landing.land(&staged, &scene.signature()?).await?;
        upkeep.landed(&mut landing).await;
        let took = begun.elapsed();
        if !matches!(outcome, Outcome::Landed(_)) {
            return Err(Error::internal(format!("commit {commit} did not land: {outcome:?}")));
        }
        took_ms.push(took.as_secs_f64() * 1e3);
        if commit % asked.every == 0 {
            let values = scene.look(&mut landing, &mut took_ms)?;
            show(&curves.add(commit, values))?;
        }
        if took < asked.interval {
            tokio::time::sleep(asked.interval - took).await;
        }
    }
    let held = rss_bytes()?;
    alluvium::heap::give_back();
    curves.end = Some(End { rss_bytes: held, rss_in_use_bytes: rss_bytes()? });
    upkeep.close(&mut landing, Duration::from_secs(60)).await;
    landing.writer().close().await;
    Ok(())
}

/// The table and what it is reached by.
struct Scene {
    mode: Mode,
    stores: Stores,
    folder: PathBuf,
    table: PathBuf,
    location: Location,
    clock: Arc<dyn Clock>,
}

impl Scene {
    fn new(folder: &Path, mode: Mode) -> Result<Self> {
        // What is measured is this program, not the disk's flush.
        let stores = Stores::new(StorageSettings { local_fsync: false, ..StorageSettings::default() });
        let table = folder.join("table");
        let location = table.display().to_string().parse()?;
        Ok(Self { mode, stores, folder: folder.to_owned(), table, location, clock: Arc::new(SystemClock) })
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
            sequence_by: "seq".to_owned(),
            stored_sequence: Some(vec!["seq".to_owned()]),
        };
        let blueprint = Blueprint {
            schema: match self.mode {
                Mode::Append => declared(),
                Mode::Upsert => columns.stored(),
            },
            partitioned_by: Vec::new(),
            clustered_by: None,
            deletion_vectors: self.mode == Mode::Upsert,
            comment: None,
            // In the log's clean-up minutes have to stand for weeks.
            properties: [LOG_RETENTION, FILE_RETENTION].map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        };
        let state = blueprint.open_or_create(&log, self.clock.as_ref()).await?;
        let writer: Box<dyn Writer> = match self.mode {
            Mode::Append => Box::new(AppendWriter::new(folder)),
            Mode::Upsert => {
                let settings = UpsertSettings { snapshot_interval: SNAPSHOT_INTERVAL, ..UpsertSettings::default() };
                Box::new(UpsertWriter::open(folder, columns, &state, settings).await?)
            }
        };
        let ids = AppIds::of_table(&"flow".parse()?, &"topic".parse()?);
        let watch = Watch::new(Arc::new(Metrics::try_new()?));
        let parts = LandingParts { log, state, writer, ids, known_at: self.clock.now() };
        Ok(Landing::new(parts, Arc::clone(&self.clock), LandLimits::default(), watch))
    }

    fn upkeep(&self) -> Result<UpkeepParts> {
        Ok(UpkeepParts {
            stores: self.stores.clone(),
            location: self.location.clone(),
            flow: "flow".parse()?,
            checkpoint_interval: CHECKPOINT_INTERVAL,
            settings: UpkeepSettings::default(),
            clock: Arc::clone(&self.clock),
            metrics: Arc::new(Metrics::try_new()?),
        })
    }

    fn signature(&self) -> Result<Signature> {
        let lineage = Lineage::begin("flow".parse()?, "bench", "bench", self.clock.new_id(), self.clock.new_id());
        Ok(Signature { lineage, operation: self.mode.operation(), definition: None })
    }

    /// Returns the values of a line; `took_ms` has the commits since the last one, and is empty afterwards.
    fn look(&self, landing: &mut Landing, took_ms: &mut Vec<f64>) -> Result<[f64; COLUMNS.len()]> {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        // Before anything else here takes memory.
        let (rss, anonymous) = (rss_bytes()?, rss_anonymous_bytes()?);
        let index = landing.writer().footprint().unwrap_or_default();
        let log = LogSize::of(&self.table.join("_delta_log"))?;
        let files = &landing.state().files;
        let data_bytes: u64 = files.values().map(|add| u64::try_from(add.size).unwrap_or(0)).sum();
        let n_files = files.len();
        let n_with_vectors = files.values().filter(|add| add.deletion_vector.is_some()).count();
        let mut loads_ms = (0..LOADS).map(|_| self.load()).collect::<Result<Vec<f64>>>()?;
        let values = [
            percentile(took_ms, 0.5).unwrap_or(0.0),
            percentile(took_ms, 0.99).unwrap_or(0.0),
            megabytes(rss),
            megabytes(anonymous),
            megabytes(index.bytes),
            index.n_keys as f64,
            log.n_versions as f64,
            log.n_files as f64,
            megabytes(log.bytes),
            n_files as f64,
            n_with_vectors as f64,
            megabytes(data_bytes),
            percentile(&mut loads_ms, 0.5).unwrap_or(0.0),
        ];
        took_ms.clear();
        Ok(values)
    }

    /// Lets a child load the table, and returns the milliseconds that it took.
    fn load(&self) -> Result<f64> {
        let (plan, answer) = (self.folder.join("load.json"), self.folder.join("load.answer"));
        child::write_json(&plan, &Load { table: self.table.clone(), answer: answer.clone() })?;
        Nursery::default().run("load", &plan)?;
        child::read_json(&answer)
    }
}
