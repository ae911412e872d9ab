//! The halves of the pipeline on the in-memory broker and table: that they overlap, and what happens at the seams.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use alluvium_catalog::store::{CatalogStore, MemoryStore};
use alluvium_catalog::{Clock, Error, ErrorKind, Partition, Result, Span, StorageSettings, Stores, SystemClock, Topic};
use alluvium_sql::{BatchLimits, Compiler, Flow, SourceText, TableReader};
use async_trait::async_trait;
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::sync::Notify;

use super::*;
use crate::cli::CatalogNames;
use crate::config::Limits;
use crate::hooked_store::{Hook, HookedStore};
use crate::source::memory::{MemoryBroker, MemoryRecord, MemorySettings, MemorySource};
use crate::source::{Lag, SourceIdentity};
use crate::supervise::World;
use crate::write::vectors::VectorFolder;

const SQL: &str = "
    CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = 'localhost:9092');
    CREATE SOURCE events (id BIGINT NOT NULL) WITH (
        'connection' = 'shop', 'topic' = 'events', 'format' = 'json', 'scan.startup.mode' = 'earliest-offset');
    CREATE STREAMING TABLE lake.events (id BIGINT NOT NULL);
    CREATE FLOW events_append AS INSERT INTO lake.events BY NAME SELECT id FROM STREAM(events);
    CREATE FLOW events_again AS INSERT INTO lake.events BY NAME SELECT -id AS id FROM STREAM(events);
";

/// The same table as one that is kept by a key.
const UPSERT: &str = "
    CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = 'localhost:9092');
    CREATE SOURCE events (id BIGINT NOT NULL, pos BIGINT NOT NULL METADATA FROM 'offset') WITH (
        'connection' = 'shop', 'topic' = 'events', 'format' = 'json');
    CREATE STREAMING TABLE lake.kept (id BIGINT NOT NULL, pos BIGINT NOT NULL, PRIMARY KEY ({key}) NOT ENFORCED);
    CREATE FLOW {flow} AS AUTO CDC INTO lake.kept FROM STREAM(events) KEYS ({key}) SEQUENCE BY pos STORED AS SCD TYPE 1;
";

/// What a [`Watched`] source does when it is asked for a batch for the second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Second {
    Fetch,
    /// It waits for more behind the last one, too, where others say that they have drained.
    FetchOnAndOn,
    /// It hands the batch out, then loses all partitions and gets them back.
    LosesPartitions(Then),
    Fails,
    /// It hands the batch out. The process is asked to stop once this span has landed, while more batches wait.
    StopsAfter(&'static str),
}

/// What a source that has lost its partitions does when it is asked for more: the engine drops the batch meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    ReadsOn,
    /// It says once that it has drained, and reads on.
    Drains,
    /// It says why it cannot go on, and that it is closed from then on.
    Fails,
    /// The process is asked to stop; the source says once that it has stopped, and nothing more.
    Stops,
    /// The process is asked to stop, and that the source has stopped does not come through.
    StopsSilently,
    /// The process is asked to stop while the source begins again, and nothing more comes from it.
    StopsWhenItBeginsAgain,
}

/// A source that writes down what is asked of it.
#[derive(Debug)]
struct Watched {
    inner: MemorySource,
    second: Second,
    n_fetches: usize,
    has_told: bool,
    /// What it asks the process to stop by.
    shutdown: Shutdown,
    events: Arc<Mutex<Vec<String>>>,
}

impl Watched {
    /// Returns what the source says after it has lost its partitions, unless that is what the broker has.
    async fn after_loss(&mut self, then: Then) -> Option<Result<Fetch>> {
        let is_first = !std::mem::replace(&mut self.has_told, true);
        match then {
            Then::ReadsOn => return None,
            Then::Drains => return is_first.then_some(Ok(Fetch::Drained)),
            Then::Fails if is_first => return Some(Err(Error::unavailable("no broker answers"))),
            Then::Fails => return Some(Err(Error::closed("the source is closed"))),
            Then::Stops if is_first => {
                self.shutdown.drain();
                return Some(Ok(Fetch::Stopped));
            }
            Then::StopsWhenItBeginsAgain if !self.shutdown.is_draining() => return None,
            Then::Stops | Then::StopsWhenItBeginsAgain => {}
            Then::StopsSilently => self.shutdown.drain(),
        }
        std::future::pending().await
    }

    fn note(&self, event: String) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}

#[async_trait]
impl Source for Watched {
    async fn fetch(&mut self) -> Result<Fetch> {
        if self.n_fetches >= 2
            && let Second::LosesPartitions(then) = self.second
            && let Some(fetch) = self.after_loss(then).await
        {
            return fetch;
        }
        let fetch = self.inner.fetch().await?;
        if let Fetch::Batch(batch) = &fetch {
            self.n_fetches += 1;
            if self.n_fetches == 2 && self.second == Second::Fails {
                return Err(Error::data("offset out of range"));
            }
            self.note(format!("fetch {}", batch.span));
            if self.n_fetches == 2 && matches!(self.second, Second::LosesPartitions(_)) {
                self.inner.member().revoke(&[Partition(0)]);
                self.inner.member().assign(&[Partition(0)]);
            }
        }
        Ok(fetch)
    }

    fn holds(&self, span: &Span) -> bool {
        self.inner.holds(span)
    }

    async fn resync(&mut self) -> Result<()> {
        self.note("resync".to_owned());
        match self.second {
            Second::LosesPartitions(Then::Fails) => return Err(Error::closed("the source is closed")),
            Second::LosesPartitions(Then::StopsWhenItBeginsAgain) => self.shutdown.drain(),
            _ => {}
        }
        self.inner.resync().await
    }

    fn acknowledge(&mut self, span: &Span) {
        self.note(format!("land {span}"));
        if matches!(self.second, Second::StopsAfter(landed) if landed == span.to_string()) {
            self.shutdown.drain();
        }
        self.inner.acknowledge(span);
    }

    fn is_ready(&self) -> bool {
        self.inner.is_ready()
    }

    fn lag(&self) -> Vec<Lag> {
        self.inner.lag()
    }

    fn identity(&self) -> SourceIdentity {
        self.inner.identity()
    }

    async fn close(&mut self) -> Result<()> {
        self.inner.close().await
    }
}

/// Holds version 1 of a log back, which is the first batch's, until it is let go.
#[derive(Debug, Default)]
struct Holding {
    has_held: AtomicBool,
    let_go: Notify,
}

#[async_trait]
impl Hook for Holding {
    async fn before_write(&self, location: &Path) -> object_store::Result<()> {
        let is_first = location.as_ref().ends_with("/_delta_log/00000000000000000001.json");
        if is_first && !self.has_held.swap(true, Ordering::SeqCst) {
            self.let_go.notified().await;
        }
        Ok(())
    }
}

/// Returns the flows of a file.
async fn compile(world: &World, file: &str, sql: &str) -> Result<Vec<Arc<Flow>>> {
    let reader = TableReader::new(world.stores.clone(), Arc::clone(&world.catalog));
    let names = CatalogNames::new(Arc::clone(&world.catalog), reader);
    let compiler = Compiler::new(world.warehouse.clone(), Arc::new(names));
    let text = Arc::new(SourceText::new(file.to_owned(), sql.to_owned()));
    Ok(compiler.compile(&[text]).await?.flows)
}

fn first_flow(flows: Vec<Arc<Flow>>) -> Result<Arc<Flow>> {
    flows.into_iter().next().ok_or_else(|| Error::internal("no flow"))
}

/// Six records, which make three batches.
fn six() -> impl Iterator<Item = String> {
    (0..6).map(|id| format!(r#"{{"id":{id}}}"#))
}

/// A table in memory, and a topic with six records that make three batches.
struct Place {
    world: World,
    flow: Arc<Flow>,
    broker: MemoryBroker,
    topic: Topic,
    /// What its sources may ask the process to stop by.
    shutdown: Shutdown,
}

impl Place {
    async fn new() -> Result<Self> {
        Self::of(SQL, six()).await
    }

    /// Returns the place of the first flow of `sql`, with `records` in its topic.
    async fn of(sql: &str, records: impl IntoIterator<Item = String>) -> Result<Self> {
        Self::on(Stores::new(StorageSettings::default()), sql, records).await
    }

    /// Returns the same place, with its table in `stores`.
    async fn on(stores: Stores, sql: &str, records: impl IntoIterator<Item = String>) -> Result<Self> {
        let clock = Arc::new(SystemClock);
        let catalog: Arc<dyn CatalogStore> = Arc::new(MemoryStore::default());
        let warehouse = format!("memory:///{}", clock.new_id()).parse()?;
        let world = World {
            stores,
            warehouse,
            catalog,
            registry: None,
            metrics: Arc::new(Metrics::try_new()?),
            index_budget: Arc::default(),
            lookups: Arc::default(),
            run: clock.new_id(),
            clock,
            settings: Limits::default(),
            inline_bytes_max: VectorFolder::INLINE_BYTES_MAX,
        };
        let flow = first_flow(compile(&world, "events.sql", sql).await?)?;
        let (broker, topic) = (MemoryBroker::default(), "events".parse()?);
        broker.create_topic(&topic, 1);
        for record in records {
            broker.append(&topic, Partition(0), MemoryRecord::of(record))?;
        }
        Ok(Self { world, flow, broker, topic, shutdown: Shutdown::new() })
    }

    /// Lets the next process run the flow of `sql`.
    async fn redefine(&mut self, sql: &str) -> Result<()> {
        self.flow = first_flow(compile(&self.world, "events.sql", sql).await?)?;
        Ok(())
    }

    /// Opens the flow on a source that behaves as `second`.
    async fn open(&self, second: Second) -> Result<(FlowRun, Arc<Mutex<Vec<String>>>)> {
        self.open_flow(&self.flow, second).await
    }

    async fn open_flow(&self, flow: &Arc<Flow>, second: Second) -> Result<(FlowRun, Arc<Mutex<Vec<String>>>)> {
        self.open_batches(flow, second, 2).await
    }

    /// Opens the flow on a source whose batches have at most `rows_max` records.
    async fn open_with(&self, second: Second, rows_max: usize) -> Result<(FlowRun, Arc<Mutex<Vec<String>>>)> {
        self.open_batches(&self.flow, second, rows_max).await
    }

    async fn open_batches(
        &self,
        flow: &Arc<Flow>,
        second: Second,
        rows_max: usize,
    ) -> Result<(FlowRun, Arc<Mutex<Vec<String>>>)> {
        let prepared = Box::pin(FlowRun::prepare(Arc::clone(flow), &self.world)).await?;
        let limits = BatchLimits { rows_max, ..BatchLimits::default() };
        let once = second != Second::FetchOnAndOn;
        let settings = MemorySettings { once, limits, ..MemorySettings::new(self.topic.clone()) };
        let inner = MemorySource::open(&self.broker, settings, prepared.positions())?;
        let events = Arc::new(Mutex::new(Vec::new()));
        let source = Watched {
            inner,
            second,
            n_fetches: 0,
            has_told: false,
            shutdown: self.shutdown.clone(),
            events: Arc::clone(&events),
        };
        Ok((Box::pin(prepared.start(Box::new(source), &self.world)).await?, events))
    }
}

impl Place {
    /// Runs `flow` to its end.
    async fn drain(&self, flow: &Arc<Flow>) -> Result<()> {
        let (mut run, _) = self.open_flow(flow, Second::Fetch).await?;
        run.run(&Shutdown::new()).await?;
        run.close(&Shutdown::new()).await
    }

    /// Adds records to the topic.
    fn produce(&self, ids: std::ops::Range<i64>) -> Result<()> {
        for id in ids {
            self.broker.append(&self.topic, Partition(0), MemoryRecord::of(format!(r#"{{"id":{id}}}"#)))?;
        }
        Ok(())
    }
}

/// Runs a flow to its end and returns how it ended, what it landed and what was asked of its source.
async fn run(second: Second) -> Result<(Result<()>, Tally, Vec<String>)> {
    /// Far more than three small batches take.
    const LIMIT: Duration = Duration::from_secs(30);
    let place = Place::new().await?;
    let (mut run, events) = place.open(second).await?;
    let ended = tokio::time::timeout(LIMIT, run.run(&place.shutdown)).await;
    let ended = ended.map_err(|source| Error::internal("the flow does not end").with_source(source))?;
    run.close(&place.shutdown).await?;
    let events = events.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok((ended, run.tally(), events))
}

#[tokio::test]
async fn the_next_batch_is_fetched_while_one_lands() -> Result<()> {
    let (ended, tally, events) = run(Second::Fetch).await?;
    ended?;
    assert_eq!((tally.commits, tally.fate.applied), (3, 6));
    let first_two = ["fetch 0@[0,2)", "fetch 0@[2,4)"];
    assert_eq!(events.get(..2), Some(&first_two.map(str::to_owned)[..]), "{events:?}");
    let landed: Vec<_> = events.iter().filter(|event| event.starts_with("land")).collect();
    assert_eq!(landed, ["land 0@[0,2)", "land 0@[2,4)", "land 0@[4,6)"]);
    Ok(())
}

#[tokio::test]
async fn a_compaction_is_swapped_in_though_no_batch_comes_after_it() -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(30);
    // The files of nine batches: they are looked over after the first, and after eight more.
    let place = Place::of(SQL, (0..18).map(|id| format!(r#"{{"id":{id}}}"#))).await?;
    let (mut run, _) = place.open(Second::FetchOnAndOn).await?;
    let log = crate::delta::log::DeltaLog::open(&place.world.stores, &place.flow.definition.table.location)?;
    let swapped = async {
        loop {
            let state = crate::delta::state::TableState::load(&log).await?;
            if let Some(state) = state.filter(|state| state.version > 9) {
                return Ok(state);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let state = tokio::select! {
        ended = run.run(&place.shutdown) => Err(Error::internal(format!("the flow has ended: {ended:?}"))),
        state = tokio::time::timeout(LIMIT, swapped) => {
            state.map_err(|source| Error::internal("nothing is swapped in").with_source(source))?
        }
    }?;
    run.close(&place.shutdown).await?;
    assert_eq!((run.tally().commits, state.version, state.files.len(), state.n_rows()), (9, 10, 1, Some(18)));
    Ok(())
}

/// Returns how many batches of the first flow have passed through a stage.
fn n_passed(world: &World, stage: &str) -> Result<u64> {
    let series = format!(r#"alluvium_stage_seconds_count{{flow="events_append",stage="{stage}"}} "#);
    let text = world.metrics.render(world.clock.now())?;
    Ok(text.lines().find_map(|line| line.strip_prefix(series.as_str())?.parse().ok()).unwrap_or(0))
}

/// Waits until a second batch is prepared while `store` holds the first back, for ten seconds at most; returns how many
/// batches are decoded, transformed and committed then.
async fn prepared_beside(store: &HookedStore<Holding>, world: &World) -> Result<[u64; 3]> {
    for _look in 0..10_000 {
        if store.hook.has_held.load(Ordering::SeqCst) && n_passed(world, "transform")? > 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok([n_passed(world, "decode")?, n_passed(world, "transform")?, n_passed(world, "commit")?])
}

#[tokio::test]
async fn the_next_batch_is_decoded_and_transformed_while_the_store_holds_one_back() -> Result<()> {
    let store = Arc::<HookedStore<Holding>>::default();
    let stores = Stores::with_memory(StorageSettings::default(), Arc::clone(&store) as Arc<dyn ObjectStore>);
    let place = Place::on(stores, SQL, six()).await?;
    let (mut run, events) = place.open(Second::Fetch).await?;
    let looked = async {
        let passed = prepared_beside(&store, &place.world).await;
        let asked = events.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Whatever was seen: the flow has to end.
        store.hook.let_go.notify_one();
        (passed, asked, store.hook.has_held.load(Ordering::SeqCst))
    };
    let shutdown = Shutdown::new();
    let (ended, (passed, asked, has_held)) = tokio::join!(run.run(&shutdown), looked);
    ended?;
    run.close(&shutdown).await?;
    assert!(has_held, "the first batch was not held back");
    assert_eq!(passed?, [2, 2, 0], "decoded, transformed, committed");
    assert_eq!(asked, ["fetch 0@[0,2)", "fetch 0@[2,4)"]);
    assert_eq!(landed(&events), ["land 0@[0,2)", "land 0@[2,4)", "land 0@[4,6)"]);
    assert_eq!((run.tally().commits, run.tally().fate.applied), (3, 6));
    Ok(())
}

#[tokio::test]
async fn a_batch_whose_partition_left_is_dropped_and_read_again() -> Result<()> {
    let (ended, tally, events) = run(Second::LosesPartitions(Then::ReadsOn)).await?;
    ended?;
    assert_eq!((tally.commits, tally.fate.applied), (3, 6), "{events:?}");
    assert!(events.contains(&"resync".to_owned()), "{events:?}");
    assert!(events.iter().filter(|event| *event == "fetch 0@[2,4)").count() >= 2, "{events:?}");
    assert_eq!(events.iter().filter(|event| *event == "land 0@[2,4)").count(), 1, "{events:?}");
    Ok(())
}

#[tokio::test]
async fn the_error_of_a_source_outlives_a_batch_that_was_dropped() -> Result<()> {
    let (ended, tally, events) = run(Second::LosesPartitions(Then::Fails)).await?;
    let error = ended.err().ok_or_else(|| Error::internal("the flow ended well"))?;
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, "no broker answers"), "{events:?}");
    assert_eq!((tally.commits, tally.fate.applied), (1, 2));
    assert_eq!(events, ["fetch 0@[0,2)", "fetch 0@[2,4)", "land 0@[0,2)"]);
    Ok(())
}

#[tokio::test]
async fn a_flow_that_is_asked_to_stop_ends_when_a_batch_was_dropped() -> Result<()> {
    for then in [Then::Stops, Then::StopsSilently, Then::StopsWhenItBeginsAgain] {
        let (ended, tally, events) = run(Second::LosesPartitions(then)).await?;
        ended?;
        assert_eq!((tally.commits, tally.fate.applied), (1, 2), "{then:?}: {events:?}");
        let is_read_again = events.contains(&"resync".to_owned());
        assert_eq!(is_read_again, then == Then::StopsWhenItBeginsAgain, "{then:?}: {events:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_source_that_drained_before_a_batch_was_dropped_is_read_again() -> Result<()> {
    let (ended, tally, events) = run(Second::LosesPartitions(Then::Drains)).await?;
    ended?;
    assert_eq!((tally.commits, tally.fate.applied), (3, 6), "{events:?}");
    Ok(())
}

#[tokio::test]
async fn what_was_fetched_before_an_error_lands_first() -> Result<()> {
    let (ended, tally, events) = run(Second::Fails).await?;
    assert!(ended.is_err());
    assert_eq!((tally.commits, tally.fate.applied), (1, 2));
    assert_eq!(events, ["fetch 0@[0,2)", "land 0@[0,2)"]);
    Ok(())
}

#[tokio::test]
async fn two_processes_with_the_same_partition_land_each_record_once() -> Result<()> {
    let place = Place::new().await?;
    let ((mut one, _), (mut other, _)) = (place.open(Second::Fetch).await?, place.open(Second::Fetch).await?);
    let shutdown = Shutdown::new();
    let (one_ended, other_ended) = tokio::join!(one.run(&shutdown), other.run(&shutdown));
    one_ended?;
    other_ended?;
    assert_eq!(one.tally().fate.applied + other.tally().fate.applied, 6);
    assert_eq!(one.tally().commits + other.tally().commits, 3);
    Ok(())
}

#[tokio::test]
async fn an_abort_drops_a_landing_that_never_ends_and_a_drain_does_not() -> Result<()> {
    let (mut run, events) = Place::new().await?.open(Second::Fetch).await?;
    run.back.begin(|back| async move {
        std::future::pending::<()>().await;
        (back, Ok(Ended::Dropped))
    })?;
    let shutdown = Shutdown::new();
    shutdown.drain();
    let drained = tokio::time::timeout(Duration::from_millis(200), run.run(&shutdown)).await;
    assert!(drained.is_err(), "a drain lets the open batch land, however long that takes");
    shutdown.abort();
    run.run(&shutdown).await?;
    run.close(&shutdown).await?;
    assert_eq!(run.tally(), Tally::default());
    let events = events.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert!(!events.iter().any(|event| event.starts_with("land")), "{events:?}");
    Ok(())
}

#[tokio::test]
async fn two_append_flows_keep_their_definitions_in_one_table_and_write_them_once() -> Result<()> {
    let place = Place::new().await?;
    let here = compile(&place.world, "events.sql", SQL).await?;
    let elsewhere = compile(&place.world, "/srv/pipelines/events.sql", &format!("\n\n{SQL}")).await?;
    for flows in [&here, &elsewhere, &here] {
        for flow in flows {
            place.drain(flow).await?;
        }
        place.produce(6..10)?;
    }
    let log = crate::delta::log::DeltaLog::open(&place.world.stores, &place.flow.definition.table.location)?;
    let is_metadata =
        |action: &crate::delta::action::Action| matches!(action, crate::delta::action::Action::MetaData(_));
    let entries = log.read_tail(0).await?;
    let with_metadata: Vec<u64> =
        entries.iter().filter(|entry| entry.actions.iter().any(is_metadata)).map(|entry| entry.version).collect();
    assert_eq!(with_metadata, [0, 1, 4], "at creation, and with the first commit of each flow");
    assert!(entries.len() > 10);

    let (stores, warehouse, catalog) = (&place.world.stores, &place.world.warehouse, std::path::Path::new("unused"));
    let rebuilt = MemoryStore::default();
    crate::rebuild::Rebuild { stores, warehouse, locations: &[], catalog }.restore_into(&rebuilt).await?;
    let flows = rebuilt.flows().await?;
    let mut flows: Vec<_> = flows.iter().map(|entry| (entry.version.flow.as_str(), entry.seq)).collect();
    flows.sort_unstable();
    assert_eq!(flows, [("events_again", 1), ("events_append", 1)]);
    Ok(())
}

#[tokio::test]
async fn an_upsert_table_takes_no_other_flow_and_no_other_key() -> Result<()> {
    let place = Place::new().await?;
    let flow = async |flow: &str, key: &str| {
        let sql = UPSERT.replace("{flow}", flow).replace("{key}", key);
        first_flow(compile(&place.world, "kept.sql", &sql).await?)
    };
    let keeper = flow("keeper", "id").await?;
    place.drain(&keeper).await?;
    place.drain(&keeper).await?;
    for (other, said) in [
        (flow("renamed", "id").await?, "is kept by flow keeper (AUTO CDC), so flow renamed cannot write it"),
        (flow("keeper", "id, pos").await?, "a key (id) by flow keeper, and flow keeper says PRIMARY KEY (id, pos)"),
    ] {
        let error = place.drain(&other).await.err().ok_or_else(|| Error::internal("it was written"))?;
        assert!(error.message().ends_with(said) && error.hint().is_some(), "{}", error.chain());
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    place.drain(&keeper).await?;

    // The keeper has stopped for good, and its successor is told to take over.
    let successor = flow("successor", "id").await?;
    let prepared = Box::pin(FlowRun::prepare(Arc::clone(&successor), &place.world)).await?.accepting_source();
    let settings = MemorySettings { once: true, ..MemorySettings::new(place.topic.clone()) };
    let source = MemorySource::open(&place.broker, settings, prepared.positions())?;
    let mut run = Box::pin(prepared.start(Box::new(source), &place.world)).await?;
    run.run(&Shutdown::new()).await?;
    run.close(&Shutdown::new()).await?;
    assert_eq!(run.tally().fate.records_in, 6, "a flow without positions begins with the topic");
    place.drain(&successor).await?;
    let error = place.drain(&keeper).await.err().ok_or_else(|| Error::internal("two flows keep one table"))?;
    assert!(
        error.message().ends_with("is kept by flow successor (AUTO CDC), so flow keeper cannot write it"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn a_table_that_keeps_the_values_of_its_sequence_takes_no_other_sequence() -> Result<()> {
    let place = Place::new().await?;
    let by = async |sequence: &str| {
        let sql = UPSERT.replace("{flow}", "keeper").replace("{key}", "id");
        let sql = sql.replace("SEQUENCE BY pos", &format!("SEQUENCE BY {sequence}"));
        first_flow(compile(&place.world, "kept.sql", &sql).await?)
    };
    let keeper = by("pos + 1").await?;
    place.drain(&keeper).await?;
    place.drain(&keeper).await?;
    let error = place.drain(&by("pos * 2").await?).await.err().ok_or_else(|| Error::internal("it was written"))?;
    let said = "SEQUENCE BY pos + 1 of flow keeper, and flow keeper says SEQUENCE BY pos * 2";
    assert!(error.message().ends_with(said) && error.hint().is_some(), "{}", error.chain());
    assert_eq!(error.kind(), ErrorKind::Invalid);
    // Rows of which the sequence is a stored column are read by another one.
    place.drain(&by("pos").await?).await
}

/// Upserts whose table may rewrite `cap` in one commit.
fn upserts(mode: &str, cap: &str, policy: &str) -> String {
    format!(
        "CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = 'localhost:9092');
        CREATE SOURCE events (id BIGINT NOT NULL, seq BIGINT) WITH ('connection' = 'shop', 'topic' = 'events');
        CREATE STREAMING TABLE lake.events (id BIGINT NOT NULL, seq BIGINT, PRIMARY KEY (id) NOT ENFORCED)
        TBLPROPERTIES ('alluvium.upsert' = '{mode}', 'alluvium.upsert.rewrite.max' = '{cap}',
            'alluvium.upsert.rewrite.policy' = '{policy}');
        CREATE FLOW events_upsert AS AUTO CDC INTO lake.events FROM STREAM(events) KEYS (id) SEQUENCE BY seq
        STORED AS SCD TYPE 1;"
    )
}

/// Four batches of four new keys each, which make four files.
fn news() -> impl Iterator<Item = String> {
    (0..16).map(|id| format!(r#"{{"id":{id},"seq":1}}"#))
}

/// One record for each of these files: a fifth batch.
fn changes() -> impl Iterator<Item = String> {
    (0..4).map(|file| format!(r#"{{"id":{},"seq":2}}"#, file * 4))
}

/// Returns what landed.
fn landed(events: &Mutex<Vec<String>>) -> Vec<String> {
    let events = events.lock().unwrap_or_else(PoisonError::into_inner);
    events.iter().filter(|event| event.starts_with("land")).cloned().collect()
}

#[tokio::test]
async fn a_batch_above_the_cap_lands_in_parts_each_with_its_own_positions_and_fates() -> Result<()> {
    for mode in ["copy-on-write", "merge-on-read"] {
        // Less than a vector, and so less than a file: each record of the last batch lands alone.
        let place = Place::of(&upserts(mode, "10", "split"), news().chain(changes())).await?;
        let (mut run, events) = place.open_with(Second::Fetch, 4).await?;
        run.run(&Shutdown::new()).await?;
        let version = run.back.resting().map(|back| back.landing.state().version);
        let told = run.back.resting().map(|back| (back.landing.state().n_rows(), back.landing.writer().n_rows()));
        let positions = run.back.resting().map(|back| back.landing.positions());
        run.close(&Shutdown::new()).await?;
        let parts = ["land 0@[16,17)", "land 0@[17,18)", "land 0@[18,19)", "land 0@[19,20)"];
        assert_eq!(landed(&events).get(4..), Some(&parts.map(str::to_owned)[..]), "{mode}: {events:?}");
        let tally = run.tally();
        assert_eq!((tally.commits, tally.fate.records_in, tally.fate.applied), (8, 20, 20), "{mode}");
        assert_eq!((version, told), (Some(8), Some((Some(16), Some(16)))), "{mode}");
        assert_eq!(positions, Some([(Partition(0), alluvium_catalog::Offset(20))].into()));
        let commits = place.world.catalog.commits(None, 100).await?;
        assert!(commits.iter().all(|commit| commit.lineage.fate.is_balanced()));
        let parts = commits.iter().filter(|commit| commit.lineage.effort.files_touched == 1);
        assert_eq!(parts.count(), 4, "{mode}");
    }
    Ok(())
}

#[tokio::test]
async fn a_flow_that_is_asked_to_stop_reads_nothing_behind_parts_that_are_left() -> Result<()> {
    let records = news().chain(changes()).chain(changes());
    let place = Place::of(&upserts("copy-on-write", "10", "split"), records).await?;
    let (mut run, events) = place.open_with(Second::StopsAfter("0@[16,17)"), 4).await?;
    run.run(&place.shutdown).await?;
    run.close(&place.shutdown).await?;
    let events = events.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let last: Vec<_> = events.iter().skip_while(|event| *event != "land 0@[16,17)").collect();
    assert_eq!(last, ["land 0@[16,17)", "land 0@[17,18)"], "the second part was prepared already: {events:?}");
    Ok(())
}

/// Lands [`news`] without a cap and returns the place and the bytes of the largest of the four files.
async fn four_files() -> Result<(Place, u64)> {
    let place = Place::of(&upserts("copy-on-write", "1 GB", "split"), news()).await?;
    let (mut run, _) = place.open_with(Second::Fetch, 4).await?;
    run.run(&Shutdown::new()).await?;
    let files = run.back.resting().map(|back| back.landing.state().files.clone()).unwrap_or_default();
    run.close(&Shutdown::new()).await?;
    assert_eq!(files.len(), 4);
    for record in changes() {
        place.broker.append(&place.topic, Partition(0), MemoryRecord::of(record))?;
    }
    Ok((place, files.values().map(|add| add.size as u64).max().unwrap_or(0)))
}

#[tokio::test]
async fn a_batch_is_split_only_as_far_as_it_has_to_be() -> Result<()> {
    let (mut place, size) = four_files().await?;
    place.redefine(&upserts("copy-on-write", &(2 * size).to_string(), "split")).await?;
    let (mut run, events) = place.open_with(Second::Fetch, 4).await?;
    run.run(&Shutdown::new()).await?;
    run.close(&Shutdown::new()).await?;
    assert_eq!(landed(&events), ["land 0@[16,18)", "land 0@[18,20)"], "{events:?}");
    Ok(())
}

#[tokio::test]
async fn a_flow_halts_at_the_cap_where_the_policy_says_so_and_goes_on_once_it_is_raised() -> Result<()> {
    let (mut place, size) = four_files().await?;
    place.redefine(&upserts("copy-on-write", &(2 * size).to_string(), "halt")).await?;
    let (mut run, _) = place.open_with(Second::Fetch, 4).await?;
    let ended = run.run(&Shutdown::new()).await;
    run.close(&Shutdown::new()).await?;
    let error = ended.err().ok_or_else(|| Error::internal("the flow went on"))?;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("4 records") && error.message().contains("4 files"), "{}", error.message());
    assert_eq!(run.tally(), Tally::default());
    place.redefine(&upserts("copy-on-write", &(4 * size).to_string(), "halt")).await?;
    let (mut run, events) = place.open_with(Second::Fetch, 4).await?;
    run.run(&Shutdown::new()).await?;
    run.close(&Shutdown::new()).await?;
    assert_eq!(landed(&events), ["land 0@[16,20)"]);
    Ok(())
}
