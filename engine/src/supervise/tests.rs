//! What the supervisor does with a flow that fails: whom it lets go on, how long it waits, and when it gives up.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use alluvium_catalog::store::MemoryStore;
use alluvium_catalog::{Partition, StorageSettings, SystemClock, Topic};
use alluvium_sql::{BatchLimits, Compiler, SourceText, TableReader};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::sync::Notify;

use super::*;
use crate::cli::CatalogNames;
use crate::hooked_store::{Hook, HookedStore};
use crate::source::kafka::embedded::{EmbeddedBroker, Message};
use crate::source::memory::{MemoryBroker, MemoryRecord, MemorySettings, MemorySource};
use crate::write::vectors::VectorFolder;

const SQL: &str = "
    CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = 'localhost:9092');
    CREATE SOURCE events (id BIGINT NOT NULL) WITH ('connection' = 'shop', 'topic' = 'events');
    CREATE STREAMING TABLE lake.events (id BIGINT NOT NULL);
    CREATE FLOW events_append AS INSERT INTO lake.events BY NAME SELECT id FROM STREAM(events);
";

/// A table that one flow at a time keeps by a key.
const UPSERT: &str = "
    CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = '{bootstrap}');
    CREATE SOURCE events (id BIGINT NOT NULL, pos BIGINT NOT NULL METADATA FROM 'offset') WITH (
        'connection' = 'shop', 'topic' = 'events', 'format' = 'json', 'scan.startup.mode' = 'earliest-offset');
    CREATE STREAMING TABLE lake.kept (id BIGINT NOT NULL, pos BIGINT NOT NULL, PRIMARY KEY (id) NOT ENFORCED);
    CREATE FLOW {flow} AS AUTO CDC INTO lake.kept FROM STREAM(events) KEYS (id) SEQUENCE BY pos STORED AS SCD TYPE 1;
";

#[tokio::test]
async fn a_flow_whose_task_panics_is_halted_and_the_others_go_on() -> Result<()> {
    let (metrics, mut tasks) = (Metrics::try_new()?, FlowTasks::default());
    let (bad, good): (Name, Name) = ("bad".parse()?, "good".parse()?);
    let (tell, told) = tokio::sync::oneshot::channel::<usize>();
    let summary = FlowSummary { flow: good.clone(), commits: 3, fate: Fate::default(), halted: None };
    let expected = summary.clone();
    tasks.spawn(bad.clone(), {
        let summary = summary.clone();
        // An index out of bounds.
        async move { [summary][told.await.unwrap_or_default()].clone() }
    });
    tasks.spawn(good, async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        summary
    });
    assert!(tell.send(1).is_ok());
    let ended = tasks.join(&metrics).await;
    let [first, second] = &ended[..] else { return Err(Error::internal("not two flows")) };
    assert_eq!(first.flow, bad);
    let halt = first.halted.as_ref().ok_or_else(|| Error::internal("not halted"))?;
    assert!(halt.kind == ErrorKind::Internal && halt.reason.contains("the task of flow bad stopped"), "{halt:?}");
    assert_eq!(second, &expected);
    assert_eq!(metrics.progress().first().map(|flow| flow.state), Some(FlowState::Halted));
    Ok(())
}

/// Takes nothing. Whoever opens a flow on such a store tries to write, and then clears away what it tried with: that is
/// counted.
#[derive(Debug, Default)]
struct Deaf {
    n_tries: AtomicU32,
}

impl Deaf {
    fn n_tries(&self) -> u32 {
        self.n_tries.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Hook for Deaf {
    async fn before_write(&self, _: &Path) -> object_store::Result<()> {
        let source = format!("no answer to try {}", self.n_tries() + 1).into();
        Err(object_store::Error::Generic { store: "deaf", source })
    }

    fn before_delete(&self) -> BoxFuture<'static, object_store::Result<()>> {
        self.n_tries.fetch_add(1, Ordering::SeqCst);
        futures::future::ready(Ok(())).boxed()
    }
}

/// Returns a world whose tables are in `store`.
fn world_on(store: Arc<dyn ObjectStore>, settings: Limits) -> Result<World> {
    let clock = Arc::new(SystemClock);
    let catalog: Arc<dyn CatalogStore> = Arc::new(MemoryStore::default());
    Ok(World {
        stores: Stores::with_memory(StorageSettings::default(), store),
        warehouse: format!("memory:///{}", clock.new_id()).parse()?,
        catalog,
        registry: None,
        metrics: Arc::new(Metrics::try_new()?),
        index_budget: Arc::default(),
        lookups: Arc::default(),
        run: clock.new_id(),
        clock,
        settings,
        inline_bytes_max: VectorFolder::INLINE_BYTES_MAX,
    })
}

/// Returns the first flow of `sql`, with batches that close by `limits`.
async fn compile(world: &World, sql: &str, limits: BatchLimits) -> Result<Arc<Flow>> {
    let reader = TableReader::new(world.stores.clone(), Arc::clone(&world.catalog));
    let names = CatalogNames::new(Arc::clone(&world.catalog), reader);
    let compiler = Compiler::new(world.warehouse.clone(), Arc::new(names)).with_batch(limits);
    let text = Arc::new(SourceText::new("events.sql".to_owned(), sql.to_owned()));
    let flow = compiler.compile(&[text]).await?.flows.into_iter().next();
    flow.ok_or_else(|| Error::internal("no flow"))
}

/// A flow whose store does not answer.
struct Place {
    store: Arc<HookedStore<Deaf>>,
    world: World,
    flow: Arc<Flow>,
}

impl Place {
    async fn new(settings: Limits) -> Result<Self> {
        let store = Arc::<HookedStore<Deaf>>::default();
        let world = world_on(Arc::clone(&store) as Arc<dyn ObjectStore>, settings)?;
        let flow = compile(&world, SQL, BatchLimits::default()).await?;
        Ok(Self { store, world, flow })
    }

    /// Runs the flow until it ends by itself or `shutdown` asks.
    async fn run(&self, once: bool, shutdown: &Shutdown) -> FlowSummary {
        let options = RunOptions { once, ..RunOptions::default() };
        Box::pin(keep_running(Arc::clone(&self.flow), &self.world, &options, shutdown)).await
    }

    fn state(&self) -> Option<FlowState> {
        self.world.metrics.progress().first().map(|flow| flow.state)
    }
}

/// Waits of a millisecond or two, and no end of them within a test.
fn impatient() -> Limits {
    Limits {
        retry_wait_min: Duration::from_millis(1),
        retry_wait_max: Duration::from_millis(2),
        once_timeout: Duration::from_secs(3_600),
        ..Limits::default()
    }
}

#[test]
fn waits_double_from_the_least_to_the_longest_and_stay_there() {
    let limits = Limits::default();
    let waits: Vec<Duration> = (1..=9).map(|restarts| backoff(&limits, restarts)).collect();
    let wanted = [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000];
    assert_eq!(waits, wanted.map(Duration::from_millis));
    assert_eq!(backoff(&limits, u32::MAX), limits.retry_wait_max);
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_waited_for_without_end() -> Result<()> {
    /// More than any count that could end it.
    const N_TRIES: u32 = 2 * RESTARTS_MAX + 5;
    let place = Place::new(impatient()).await?;
    let shutdown = Shutdown::new();
    let stopped = async {
        // Where it does not go on, the minute is over and it has ended with an error.
        for _look in 0..60_000 {
            if place.store.hook.n_tries() >= N_TRIES {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let state = place.state();
        shutdown.drain();
        state
    };
    let (summary, state) = tokio::join!(place.run(false, &shutdown), stopped);
    assert!(place.store.hook.n_tries() >= N_TRIES, "{} tries, then {summary:?}", place.store.hook.n_tries());
    assert_eq!(summary.halted, None, "a stop that was asked for is no failure");
    assert_eq!((state, place.state()), (Some(FlowState::Starting), Some(FlowState::Stopped)));
    Ok(())
}

#[tokio::test]
async fn once_gives_up_after_so_many_tries_with_the_last_error() -> Result<()> {
    let place = Place::new(impatient()).await?;
    let summary = place.run(true, &Shutdown::new()).await;
    assert_eq!(place.store.hook.n_tries(), RESTARTS_MAX + 1);
    let halt = summary.halted.ok_or_else(|| Error::internal("it ended well"))?;
    assert_eq!(halt.kind, ErrorKind::Unavailable);
    let last = format!("no answer to try {}", RESTARTS_MAX + 1);
    assert!(halt.reason.contains("cannot write to memory:///") && halt.reason.contains(&last), "{}", halt.reason);
    assert_eq!(place.state(), Some(FlowState::Halted));
    Ok(())
}

#[tokio::test]
async fn once_gives_up_when_its_time_is_over_with_the_last_error() -> Result<()> {
    let wait = Duration::from_millis(200);
    let once_timeout = 3 * wait;
    let limits = Limits { retry_wait_min: wait, retry_wait_max: wait, once_timeout, ..Limits::default() };
    let place = Place::new(limits).await?;
    let begun = Instant::now();
    let summary = place.run(true, &Shutdown::new()).await;
    assert!(begun.elapsed() >= once_timeout);
    let n_tries = place.store.hook.n_tries();
    // One at the begin and one after each of three waits; fewer where a try takes long.
    assert!((1..=4).contains(&n_tries), "{n_tries} tries");
    let halt = summary.halted.ok_or_else(|| Error::internal("it ended well"))?;
    assert!(halt.reason.contains(&format!("no answer to try {n_tries}")), "{}", halt.reason);
    Ok(())
}

/// Takes nothing while it is deaf, which lasts for one try to open a flow. Holds the first data file back that comes
/// once a table has its first batch, until it is let go, and does not take it then.
#[derive(Debug, Default)]
struct Stumbling {
    is_deaf: AtomicBool,
    has_batch: AtomicBool,
    has_held: AtomicBool,
    held: Notify,
    let_go: Notify,
}

#[async_trait]
impl Hook for Stumbling {
    async fn before_write(&self, location: &Path) -> object_store::Result<()> {
        if self.is_deaf.load(Ordering::SeqCst) {
            return Err(object_store::Error::Generic { store: "stumbling", source: "no answer".into() });
        }
        if location.as_ref().ends_with("/_delta_log/00000000000000000001.json") {
            self.has_batch.store(true, Ordering::SeqCst);
        }
        let is_data = location.filename().is_some_and(|name| name.starts_with("part-"));
        if is_data && self.has_batch.load(Ordering::SeqCst) && !self.has_held.swap(true, Ordering::SeqCst) {
            self.held.notify_one();
            self.let_go.notified().await;
            return Err(object_store::Error::Generic { store: "stumbling", source: "no room".into() });
        }
        Ok(())
    }

    // Whoever has tried to write at the opening of a flow clears away what it tried with.
    fn before_delete(&self) -> BoxFuture<'static, object_store::Result<()>> {
        self.is_deaf.store(false, Ordering::SeqCst);
        futures::future::ready(Ok(())).boxed()
    }
}

/// A table that two flows want to keep, and a topic with two records that make two batches.
struct Contested {
    store: Arc<HookedStore<Stumbling>>,
    world: World,
    keeper: Arc<Flow>,
    successor: Arc<Flow>,
    _broker: EmbeddedBroker,
}

impl Contested {
    async fn new() -> Result<Self> {
        let broker = EmbeddedBroker::start(&[("events", 1)])?;
        for value in [&br#"{"id":0}"#[..], &br#"{"id":1}"#[..]] {
            broker.produce("events", Message { value: Some(value), ..Message::default() }).await?;
        }
        broker.flush().await?;
        let store = Arc::<HookedStore<Stumbling>>::default();
        let world = world_on(Arc::clone(&store) as Arc<dyn ObjectStore>, impatient())?;
        let limits = BatchLimits { rows_max: 1, interval: Duration::from_millis(300), ..BatchLimits::default() };
        let sql = UPSERT.replace("{bootstrap}", broker.bootstrap());
        let keeper = compile(&world, &sql.replace("{flow}", "keeper"), limits).await?;
        let successor = compile(&world, &sql.replace("{flow}", "successor"), limits).await?;
        Ok(Self { store, world, keeper, successor, _broker: broker })
    }

    /// Lets the keeper land a batch from a topic of its own, whoever keeps the table.
    async fn keep(&self) -> Result<()> {
        let (broker, topic): (_, Topic) = (MemoryBroker::default(), "events".parse()?);
        broker.create_topic(&topic, 1);
        broker.append(&topic, Partition(0), MemoryRecord::of(r#"{"id":7}"#))?;
        let prepared = Box::pin(FlowRun::prepare(Arc::clone(&self.keeper), &self.world)).await?.accepting_source();
        let settings = MemorySettings { once: true, ..MemorySettings::new(topic) };
        let source = MemorySource::open(&broker, settings, prepared.positions())?;
        let mut run = Box::pin(prepared.start(Box::new(source), &self.world)).await?;
        let shutdown = Shutdown::new();
        run.run(&shutdown).await?;
        assert_eq!(run.tally().commits, 1);
        run.close(&shutdown).await
    }

    /// Runs the successor to its end, as one that was told to take the table over.
    async fn succeed(&self) -> FlowSummary {
        let accepted = [self.successor.name().clone()].into();
        let options = RunOptions { once: true, accepted, ..RunOptions::default() };
        let shutdown = Shutdown::new();
        Box::pin(keep_running(Arc::clone(&self.successor), &self.world, &options, &shutdown)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_flow_was_let_take_it_does_not_take_again_after_its_first_batch() -> Result<()> {
    let place = Contested::new().await?;
    let hook = &place.store.hook;
    // The successor has landed a batch and is at the next when the table is taken from it, and has to start again.
    let take_back = async {
        let kept = match tokio::time::timeout(Duration::from_secs(60), hook.held.notified()).await {
            Ok(()) => place.keep().await,
            Err(source) => Err(Error::internal("no second batch came").with_source(source)),
        };
        // Whatever was seen: the flow has to end.
        hook.let_go.notify_one();
        kept
    };
    let (summary, taken_back) = tokio::join!(place.succeed(), take_back);
    taken_back?;
    assert_eq!((summary.commits, summary.fate.records_in), (1, 1), "{summary:?}");
    let halt = summary.halted.ok_or_else(|| Error::internal("it took the table again"))?;
    assert_eq!(halt.kind, ErrorKind::Invalid);
    assert!(halt.reason.contains("is kept by flow keeper (AUTO CDC), so flow successor cannot"), "{}", halt.reason);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_failed_before_its_first_batch_may_still_take_what_it_was_let_take() -> Result<()> {
    let place = Contested::new().await?;
    place.keep().await?;
    let hook = &place.store.hook;
    hook.has_held.store(true, Ordering::SeqCst);
    hook.is_deaf.store(true, Ordering::SeqCst);
    let summary = place.succeed().await;
    assert!(!hook.is_deaf.load(Ordering::SeqCst), "it never failed");
    assert_eq!((&summary.halted, summary.commits, summary.fate.records_in), (&None, 2, 2));
    Ok(())
}
