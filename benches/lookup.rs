//! Point look-ups by primary key in SQL, through the key index of an engine that lands batches, beside the same by scan.
//!
//! `cargo bench --workspace --bench lookup -- [--rows N] [--lookups N] [--scans N] [--batch N] [--interval-ms N]`
//!
//! The table's keys are spread over all files by chance, so that bounds skip none of them. While queries run, batches of
//! random keys land, one an interval; the session asks the engine over loopback HTTP, as `alluvium sql` does. Each query
//! is timed from its text to its rows. Answers are checked: the row must be the one that was landed last, or the one before
//! it where a batch landed meanwhile.

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use alluvium::commit::Outcome;
use alluvium::commit::create::{Blueprint, ENGINE_INFO};
use alluvium::commit::land::{LandLimits, Landing, LandingParts, Signature};
use alluvium::commit::positions::AppIds;
use alluvium::config::Listen;
use alluvium::delta::log::DeltaLog;
use alluvium::hop::{ChangeOrder, Changes, Spent};
use alluvium::invariant::Watch;
use alluvium::lookup::{Engines, Lookups};
use alluvium::metrics::Metrics;
use alluvium::serve::{Server, Shown};
use alluvium::write::parquet::DataFolder;
use alluvium::write::upsert::{UpsertColumns, UpsertSettings, UpsertWriter};
use alluvium_benches::arguments::Arguments;
use alluvium_benches::report::heading;
use alluvium_catalog::store::{CatalogStore, Run, SqliteStore};
use alluvium_catalog::{
    Clock, Dataset, DatasetKind, Fate, Lineage, Location, Offset, OffsetRange, Partition, Span, StorageSettings,
    Stores, SystemClock, Table,
};
use alluvium_sql::session::SessionSettings;
use alluvium_sql::{Session, TableReader};
use arrow::array::{ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

type Outcomes<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Rows of a batch while the table is filled, so that it has several files.
const FILL_ROWS: usize = 250_000;

/// What is measured.
#[derive(Debug, Clone, Copy)]
struct Plan {
    rows: i64,
    lookups: usize,
    scans: usize,
    batch: usize,
    interval: Duration,
}

/// A table, and the flow that lands in it.
struct Engine {
    landing: Landing,
    lookups: Arc<Lookups>,
    stores: Stores,
    location: Location,
    next: i64,
}

/// The sequence number of each key's newest row, and the one before.
type Newest = Arc<Mutex<HashMap<i64, (i64, i64)>>>;

fn main() -> Outcomes {
    let arguments = Arguments::read(&["rows", "lookups", "scans", "batch", "interval-ms"])?;
    let plan = Plan {
        rows: arguments.get("rows")?.unwrap_or(1_000_000),
        lookups: arguments.get("lookups")?.unwrap_or(1_000),
        scans: arguments.get("scans")?.unwrap_or(50),
        batch: arguments.get("batch")?.unwrap_or(1_000),
        interval: Duration::from_millis(arguments.get("interval-ms")?.unwrap_or(1_000)),
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(plan))
}

async fn run(plan: Plan) -> Outcomes {
    let folder = tempfile::tempdir()?;
    let mut out = std::io::stdout().lock();
    let mut engine = Engine::open(folder.path().join("t").to_str().ok_or("the folder is not UTF-8")?).await?;
    let mut chance = StdRng::seed_from_u64(1);
    let newest = engine.fill(plan.rows, &mut chance).await?;
    let store = SqliteStore::open(&folder.path().join("catalog.db")).await?;
    let catalog: Arc<dyn CatalogStore> = Arc::new(store.clone());
    catalog.put_dataset(&engine.dataset()?).await?;
    let server = serve(&engine, catalog.as_ref()).await?;
    let session = || {
        let reader = Arc::new(TableReader::new(engine.stores.clone(), Arc::clone(&catalog)));
        Session::open(Arc::clone(&catalog), reader, &SessionSettings::default())
    };
    let by_key = session()?.with_locate(Arc::new(Engines::new(Arc::clone(&catalog))));
    let by_scan = session()?;
    let plan_text = text(&by_key, "EXPLAIN SELECT * FROM bench.t WHERE id = 1").await?;
    if !plan_text.contains("KeyLookupExec") {
        return Err(format!("the index does not serve queries:\n{plan_text}").into());
    }
    writeln!(out, "{}{} rows in {} files", heading(), plan.rows, engine.landing.state().files.len())?;
    writeln!(out, "{:<34}{:>9}{:>11}{:>11}{:>11}", "", "queries", "p50", "p99", "most")?;
    for (name, session, n_queries) in
        [("by key, table at rest", &by_key, plan.lookups), ("by scan, table at rest", &by_scan, plan.scans)]
    {
        let times = ask(session, (n_queries, plan.rows), &newest, &mut chance).await?;
        show(&mut out, name, times)?;
    }
    let mut times = [Vec::new(), Vec::new()];
    for _commit in 0..plan.scans {
        for (session, times) in [&by_key, &by_scan].into_iter().zip(&mut times) {
            engine.land(&some_ids(plan, &mut chance), &newest, &mut chance).await?;
            times.extend(ask(session, (1, plan.rows), &newest, &mut chance).await?);
        }
    }
    for (name, times) in ["by key, first after a commit", "by scan, first after a commit"].into_iter().zip(times) {
        show(&mut out, name, times)?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let landing = tokio::spawn(engine.keep_landing(plan, Arc::clone(&newest), Arc::clone(&stop)));
    tokio::time::sleep(plan.interval).await;
    for (name, session, n_queries) in
        [("by key, while batches land", &by_key, plan.lookups), ("by scan, while batches land", &by_scan, plan.scans)]
    {
        let times = ask(session, (n_queries, plan.rows), &newest, &mut chance).await?;
        show(&mut out, name, times)?;
    }
    stop.store(true, Ordering::Relaxed);
    let landed = landing.await??;
    writeln!(out, "{landed} batches of {} keys landed meanwhile, one each {:?}", plan.batch, plan.interval)?;
    server.close().await;
    store.close().await;
    Ok(())
}

/// Serves the engine's index, and records it as a run that listens.
async fn serve(engine: &Engine, catalog: &dyn CatalogStore) -> Outcomes<Server> {
    let run = SystemClock.new_id();
    let shown = Shown {
        metrics: Arc::new(Metrics::try_new()?),
        clock: Arc::new(SystemClock),
        lookups: Arc::clone(&engine.lookups),
        run,
    };
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::open(Listen::At(any), shown).await?.ok_or("nothing is served")?;
    let (started_at, address) = (SystemClock.now(), Some(server.address()));
    catalog.put_run(&Run { id: run, started_at, ended_at: None, error: None, address }).await?;
    Ok(server)
}

/// Asks for random keys and returns how long each took.
async fn ask(
    session: &Session,
    (n_queries, n_rows): (usize, i64),
    newest: &Newest,
    chance: &mut StdRng,
) -> Outcomes<Vec<Duration>> {
    let mut times = Vec::with_capacity(n_queries);
    for _query in 0..n_queries {
        let id = chance.random_range(0..n_rows);
        let known = |newest: &Newest| newest.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied();
        let before = known(newest).unwrap_or_default();
        let begun = Instant::now();
        let rows = session.sql(&format!("SELECT id, seq, note FROM bench.t WHERE id = {id}")).await?.collect().await?;
        times.push(begun.elapsed());
        let after = known(newest).unwrap_or_default();
        let found: Vec<i64> =
            rows.iter().flat_map(|batch| batch.column(1).as_primitive::<Int64Type>().values().to_vec()).collect();
        let fits = |seq: i64| [before.0, before.1, after.0, after.1].contains(&seq);
        if !matches!(found[..], [seq] if fits(seq)) {
            return Err(format!("key {id} has {found:?}, not {before:?} or {after:?}").into());
        }
    }
    Ok(times)
}

fn show(out: &mut impl Write, name: &str, mut times: Vec<Duration>) -> Outcomes {
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    let cell = |time: Option<&Duration>| format!("{:.2} ms", time.copied().unwrap_or_default().as_secs_f64() * 1e3);
    let cells = [at(50), at(99), times.last()].map(cell);
    Ok(writeln!(out, "{name:<34}{:>9}{:>11}{:>11}{:>11}", times.len(), cells[0], cells[1], cells[2])?)
}

async fn text(session: &Session, sql: &str) -> Outcomes<String> {
    let rows = session.sql(sql).await?.collect().await?;
    Ok(arrow::util::pretty::pretty_format_batches(&rows)?.to_string())
}

/// `id BIGINT NOT NULL, seq BIGINT, ref BIGINT, note STRING`
fn declared() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("seq", DataType::Int64, true),
        Field::new("ref", DataType::Int64, true),
        Field::new("note", DataType::Utf8, true),
    ]))
}

impl Engine {
    /// Makes an empty table in `folder`, and opens it as a flow does.
    async fn open(folder: &str) -> Outcomes<Self> {
        let location: Location = folder.parse()?;
        let stores = Stores::new(StorageSettings::default());
        let log = DeltaLog::open(&stores, &location)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let columns = UpsertColumns {
            declared: declared(),
            keys: vec!["id".to_owned()],
            sequence: vec![DataType::Int64],
            sequence_by: "seq".to_owned(),
            stored_sequence: Some(vec!["seq".to_owned()]),
        };
        let data = DataFolder {
            store: Arc::clone(log.store()),
            location: location.clone(),
            partitioned_by: Vec::new(),
            clock: Arc::clone(&clock),
        };
        let blueprint = Blueprint {
            schema: columns.stored(),
            partitioned_by: Vec::new(),
            clustered_by: None,
            deletion_vectors: true,
            comment: None,
            properties: std::collections::BTreeMap::new(),
        };
        let state = blueprint.open_or_create(&log, clock.as_ref()).await?;
        let writer = UpsertWriter::open(data, columns, &state, UpsertSettings::default()).await?;
        let lookups = Arc::new(Lookups::default());
        lookups.register(&"bench".parse()?, &"bench.t".parse()?, writer.lookup());
        let ids = AppIds::of_table(&"bench".parse()?, &"topic".parse()?);
        let watch = Watch::new(Arc::new(Metrics::try_new()?));
        let parts = LandingParts { log, state, writer: Box::new(writer), ids, known_at: clock.now() };
        let landing = Landing::new(parts, clock, LandLimits::default(), watch);
        Ok(Self { landing, lookups, stores, location, next: 0 })
    }

    fn dataset(&self) -> Outcomes<Dataset> {
        let table = Table {
            name: "bench.t".parse()?,
            location: self.location.clone(),
            columns: Vec::new(),
            primary_key: vec!["id".to_owned()],
            partitioned_by: Vec::new(),
            clustered_by: None,
            comment: None,
            properties: Default::default(),
        };
        Ok(Dataset {
            name: table.name.clone(),
            kind: DatasetKind::Delta,
            location: self.location.clone(),
            owner: None,
            description: None,
            tags: Vec::new(),
            table: Some(table),
        })
    }

    /// Lands a row of each key below `n_rows`, in an order by chance.
    async fn fill(&mut self, n_rows: i64, chance: &mut StdRng) -> Outcomes<Newest> {
        let mut ids: Vec<i64> = (0..n_rows).collect();
        ids.shuffle(chance);
        let newest = Newest::default();
        for ids in ids.chunks(FILL_ROWS) {
            self.land(ids, &newest, chance).await?;
        }
        Ok(newest)
    }

    /// Lands batches of random keys, one an interval, until `stop`; returns their number.
    async fn keep_landing(mut self, plan: Plan, newest: Newest, stop: Arc<AtomicBool>) -> Outcomes<usize> {
        let mut chance = StdRng::seed_from_u64(2);
        let mut n_batches = 0;
        let mut clock = tokio::time::interval(plan.interval);
        while !stop.load(Ordering::Relaxed) {
            clock.tick().await;
            self.land(&some_ids(plan, &mut chance), &newest, &mut chance).await?;
            n_batches += 1;
        }
        Ok(n_batches)
    }

    async fn land(&mut self, ids: &[i64], newest: &Newest, chance: &mut StdRng) -> Outcomes {
        let first = self.next;
        self.next += i64::try_from(ids.len())?;
        let changes = changes(ids, first, chance)?;
        // Noted before it can be seen; the row before it may be seen until then.
        for (seq, id) in (first..).zip(ids) {
            let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
            let known = newest.get(id).map_or(seq, |known| known.0);
            newest.insert(*id, (seq, known));
        }
        let signature = Signature { lineage: lineage()?, operation: "MERGE", definition: None };
        let staged = self.landing.writer().stage(changes).await?;
        match self.landing.land(&staged, &signature).await? {
            Outcome::Landed(_) => Ok(()),
            Outcome::Fenced(misfit) => Err(misfit.to_string().into()),
            Outcome::Exceeds(excess) => Err(format!("a cap that nobody set is passed: {excess:?}").into()),
        }
    }
}

/// Returns the keys of a batch.
fn some_ids(plan: Plan, chance: &mut StdRng) -> Vec<i64> {
    let mut ids: Vec<i64> = (0..plan.batch).map(|_| chance.random_range(0..plan.rows)).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Returns a new row for each of `ids`, as the transform hands them on; sequences are the offsets, from `first` on.
fn changes(ids: &[i64], first: i64, chance: &mut StdRng) -> Outcomes<Changes> {
    let (next, n_rows) = (first + i64::try_from(ids.len())?, ids.len() as u64);
    let seq: ArrayRef = Arc::new((first..next).map(Some).collect::<Int64Array>());
    let references: Int64Array = ids.iter().map(|_| Some(chance.random_range(0..10_000_000))).collect();
    let notes: StringArray = ids.iter().map(|_| Some(format!("{:032x}", chance.random::<u128>()))).collect();
    let columns: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from(ids.to_vec())), Arc::clone(&seq), Arc::new(references), Arc::new(notes)];
    let mut span = Span::new();
    span.extend(Partition(0), OffsetRange { first: Offset(first), next: Offset(next), records: n_rows })
        .map_err(|misfit| misfit.to_string())?;
    Ok(Changes {
        rows: RecordBatch::try_new(declared(), columns)?,
        order: ChangeOrder {
            partitions: Int32Array::from(vec![0; ids.len()]),
            offsets: (first..next).map(Some).collect(),
            sequence: vec![seq],
            inherited: None,
            after_delete: None,
        },
        keyed: None,
        deletes: Some(BooleanArray::from(vec![false; ids.len()])),
        rejects: Vec::new(),
        lookups: Vec::new(),
        fate: Fate { records_in: n_rows, applied: n_rows, ..Fate::default() },
        span,
        spent: Spent::default(),
    })
}

fn lineage() -> Outcomes<Lineage> {
    Ok(Lineage::begin("bench".parse()?, "bench", ENGINE_INFO, SystemClock.new_id(), SystemClock.new_id()))
}
