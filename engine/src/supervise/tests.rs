//! What the supervisor does with a flow that fails: whom it lets go on, how long it waits, and when it gives up.

use std::sync::atomic::{AtomicU32, Ordering};

use alluvium_catalog::store::MemoryStore;
use alluvium_catalog::{StorageSettings, SystemClock};
use alluvium_sql::{Compiler, SourceText, TableReader};
use async_trait::async_trait;
use object_store::ObjectStore;
use object_store::path::Path;

use super::*;
use crate::cli::CatalogNames;
use crate::hooked_store::{Hook, HookedStore};
use crate::write::vectors::VectorFolder;

const SQL: &str = "
    CREATE CONNECTION shop TYPE kafka WITH ('bootstrap.servers' = 'localhost:9092');
    CREATE SOURCE events (id BIGINT NOT NULL) WITH ('connection' = 'shop', 'topic' = 'events');
    CREATE STREAMING TABLE lake.events (id BIGINT NOT NULL);
    CREATE FLOW events_append AS INSERT INTO lake.events BY NAME SELECT id FROM STREAM(events);
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

    fn before_delete(&self) {
        self.n_tries.fetch_add(1, Ordering::SeqCst);
    }
}

/// A flow whose store does not answer.
struct Place {
    store: Arc<HookedStore<Deaf>>,
    world: World,
    flow: Arc<Flow>,
}

impl Place {
    async fn new(settings: Limits) -> Result<Self> {
        let (store, clock) = (Arc::<HookedStore<Deaf>>::default(), Arc::new(SystemClock));
        let stores = Stores::with_memory(StorageSettings::default(), Arc::clone(&store) as Arc<dyn ObjectStore>);
        let catalog: Arc<dyn CatalogStore> = Arc::new(MemoryStore::default());
        let world = World {
            stores,
            warehouse: format!("memory:///{}", clock.new_id()).parse()?,
            catalog,
            registry: None,
            metrics: Arc::new(Metrics::try_new()?),
            lookups: Arc::default(),
            run: clock.new_id(),
            clock,
            settings,
            inline_bytes_max: VectorFolder::INLINE_BYTES_MAX,
        };
        let reader = TableReader::new(world.stores.clone(), Arc::clone(&world.catalog));
        let names = CatalogNames::new(Arc::clone(&world.catalog), reader);
        let compiler = Compiler::new(world.warehouse.clone(), Arc::new(names));
        let text = Arc::new(SourceText::new("events.sql".to_owned(), SQL.to_owned()));
        let flow = compiler.compile(&[text]).await?.flows.into_iter().next();
        let flow = flow.ok_or_else(|| Error::internal("no flow"))?;
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
