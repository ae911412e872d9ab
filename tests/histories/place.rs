//! A flow as a process would run it, from a broker in memory into a table in memory: opened, drained, closed or killed,
//! and opened again after what mends by itself, as the supervisor does.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alluvium::config::{IndexLimits, Limits, UpkeepSettings};
use alluvium::metrics::Metrics;
use alluvium::pipeline::FlowRun;
use alluvium::shutdown::Shutdown;
use alluvium::source::memory::{MemoryBroker, MemoryRecord, MemorySettings, MemorySource};
use alluvium::supervise::World;
use alluvium::write::vectors::VectorFolder;
use alluvium_catalog::store::MemoryStore;
use alluvium_catalog::{Clock, ErrorKind, ManualClock, Partition, StorageSettings, Stores, SystemClock, Topic};
use alluvium_sql::{Compiler, Flow, SourceText};
use object_store::ObjectStore;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::keys::{Keys, Spelling};
use super::model::{Change, Record};
use crate::harness::TestResult;
use crate::harness::fault::FaultyStore;
use crate::harness::names::NoNames;

/// Partitions of the topic.
pub(crate) const PARTITIONS: i32 = 3;

/// Restarts of one life until it counts as stuck.
const RESTARTS_MAX: usize = 12;

/// How long a life may take: settling what became of a commit takes two seconds, and one life has few of those.
const LIFE_LIMIT: Duration = Duration::from_secs(120);

/// How a table is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// With the sequence among its columns.
    Plain,
    /// With the sequence in the hidden column.
    Hidden,
    /// In partitions, between which rows move.
    Partitioned,
    /// Copy-on-write: files are written anew, as many of them as a cap allows, and there are no vectors.
    Rewritten,
    /// With clustering columns, so that compactions sort the rows.
    Clustered,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Plain, Self::Hidden, Self::Partitioned, Self::Rewritten, Self::Clustered];

    /// Tells whether the sequence is a declared column.
    pub(crate) fn stores_sequence(self) -> bool {
        self != Self::Hidden
    }

    fn sql(self, keys: &Keys) -> String {
        let (columns, left_out) = if self.stores_sequence() { ("seq BIGINT, ", "op") } else { ("", "op, seq") };
        let rest = match self {
            Self::Plain | Self::Hidden | Self::Rewritten => String::new(),
            Self::Partitioned => "PARTITIONED BY (day) ".to_owned(),
            Self::Clustered => format!("CLUSTER BY ({}) ", keys.clustering()),
        };
        let policy = if self == Self::Hidden { "v2" } else { "classic" };
        // A cap of about three files, which the larger batches are cut for.
        let upsert = match self {
            Self::Rewritten => ", 'alluvium.upsert' = 'copy-on-write', 'alluvium.upsert.rewrite.max' = '8 KB'",
            _ => "",
        };
        let (declared, names) = (keys.declared(), keys.names());
        format!(
            "CREATE CONNECTION broker TYPE kafka WITH ('bootstrap.servers' = 'nowhere:9092');
CREATE SOURCE events ({declared}, seq BIGINT, op STRING, note STRING, day STRING)
WITH ('connection' = 'broker', 'topic' = 't', 'scan.startup.mode' = 'earliest-offset',
      'error-handling.mode' = 'log', 'error-handling.log.target' = 'lake.rejects');
CREATE STREAMING TABLE lake.t (
  {declared}, {columns}note STRING, day STRING, PRIMARY KEY ({names}) NOT ENFORCED
) {rest}TBLPROPERTIES ('delta.checkpointPolicy' = '{policy}'{upsert});
CREATE FLOW f AS AUTO CDC INTO lake.t FROM STREAM(events) KEYS ({names}) APPLY AS DELETE WHEN op = 'd'
SEQUENCE BY seq COLUMNS * EXCEPT ({left_out}) STORED AS SCD TYPE 1;
"
        )
    }
}

/// A topic, and the flow that reads it.
pub(crate) struct Place {
    pub(crate) kind: Kind,
    pub(crate) keys: Arc<Keys>,
    broker: MemoryBroker,
    topic: Topic,
    flow: Arc<Flow>,
    pub(crate) clock: Arc<ManualClock>,
    /// Versions from one snapshot of the index to the next; 0 for none.
    pub(crate) snapshot_interval: u64,
    /// Deletion vectors of at most this many bytes stand in the log.
    inline_bytes_max: usize,
    /// The disk of one of the machines on which processes live in turn; the others have none. It keeps snapshots of the index.
    disk: Mutex<Option<TempDir>>,
    n_lives: AtomicUsize,
}

/// How a process lives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    /// Records of a batch at most.
    pub(crate) rows_max: usize,
    /// Whether it ends in order; else it just ends.
    pub(crate) is_orderly: bool,
}

impl Place {
    /// Returns a place whose keys and ids follow from `seed`.
    pub(crate) async fn new(kind: Kind, seed: u64) -> TestResult<Self> {
        let keys = Arc::new(Keys::of_seed(seed)?);
        let compiler = Compiler::new("memory:///".parse()?, Arc::new(NoNames));
        let pipeline = compiler.compile(&[Arc::new(SourceText::new("history.sql", kind.sql(&keys)))]).await;
        let pipeline = pipeline.map_err(|error| format!("{error:?}"))?;
        let mut flow = pipeline.flows.into_iter().next().ok_or("no flow")?;
        // No file may say so: whatever may leave the log leaves it at once.
        let properties = &mut Arc::get_mut(&mut flow).ok_or("the flow is shared")?.definition.table.properties;
        properties.insert("delta.logRetentionDuration".to_owned(), "interval 0 seconds".to_owned());
        let (broker, topic) = (MemoryBroker::default(), "t".parse()?);
        broker.create_topic(&topic, usize::try_from(PARTITIONS)?);
        // Vacuum refuses a clock that is far from the store's.
        let clock = Arc::new(ManualClock::new(seed, SystemClock.now()));
        // The vectors of so few rows would all stand in the log.
        let inline_bytes_max = if (seed / 4).is_multiple_of(2) { 0 } else { VectorFolder::INLINE_BYTES_MAX };
        let disk = Mutex::new((seed / 8).is_multiple_of(2).then(tempfile::tempdir).transpose()?);
        let (snapshot_interval, n_lives) = (seed % 4, AtomicUsize::new(0));
        Ok(Self { kind, keys, broker, topic, flow, clock, snapshot_interval, inline_bytes_max, disk, n_lives })
    }

    /// Returns the disk that keeps snapshots of the index, where there is one.
    pub(crate) fn disk(&self) -> Option<PathBuf> {
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        disk.as_ref().map(|disk| disk.path().to_owned())
    }

    /// Puts an empty disk in the place of the one that is there: what comes now does not go on from what it knows.
    pub(crate) fn change_disk(&self) -> TestResult {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if disk.is_some() {
            *disk = Some(tempfile::tempdir()?);
        }
        Ok(())
    }

    /// Produces a record.
    pub(crate) fn produce(&self, partition: i32, record: &Record, spelling: Spelling) -> TestResult {
        let key = self.keys.members(record.id, spelling);
        let with_key = |rest: &Value| format!("{{{key},{}", rest.to_string().trim_start_matches('{'));
        let value = match &record.change {
            Some(Change::Put { sequence, note, day }) => {
                with_key(&json!({"seq": sequence, "op": "u", "note": note, "day": day}))
            }
            Some(Change::Delete { sequence }) => with_key(&json!({"seq": sequence, "op": "d"})),
            Some(Change::Tombstone) => String::new(),
            None => format!("{{broken {}", record.id),
        };
        let is_tombstone = record.change == Some(Change::Tombstone);
        let value = (!is_tombstone).then(|| value.into_bytes());
        let key = self.keys.record_key(record.id, spelling).into_bytes();
        let record = MemoryRecord { key: Some(key), value, ..MemoryRecord::default() };
        self.broker.append(&self.topic, Partition(partition), record)?;
        Ok(())
    }

    fn world(&self, store: Arc<dyn ObjectStore>) -> TestResult<World> {
        let is_elsewhere = self.n_lives.fetch_add(1, Ordering::Relaxed) % 3 == 2;
        let disk = self.disk().filter(|_| !is_elsewhere);
        let settings = Limits {
            commit_attempts: NonZeroU32::MIN.saturating_add(4),
            retry_wait_min: Duration::from_millis(1),
            retry_wait_max: Duration::from_millis(5),
            checkpoint_interval: NonZeroU64::MIN.saturating_add(3),
            upkeep: UpkeepSettings { files_min: 3, wall_percent: 100, ..UpkeepSettings::default() },
            index: IndexLimits {
                snapshot_interval: self.snapshot_interval,
                snapshot_folder: disk.map(|disk| disk.display().to_string().parse()).transpose()?,
                ..IndexLimits::default()
            },
            ..Limits::default()
        };
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
        Ok(World {
            stores: Stores::with_memory(StorageSettings::default(), store),
            warehouse: "memory:///".parse()?,
            // Lost with every process.
            catalog: Arc::new(MemoryStore::default()),
            registry: None,
            metrics: Arc::new(Metrics::try_new()?),
            index_budget: Arc::default(),
            lookups: Arc::default(),
            run: clock.new_id(),
            clock,
            settings,
            inline_bytes_max: self.inline_bytes_max,
        })
    }

    /// Lives until the topic is drained.
    pub(crate) async fn live(&self, store: &Arc<FaultyStore>, life: Life) -> TestResult {
        let mut last = String::new();
        for _restart in 0..RESTARTS_MAX {
            let world = self.world(Arc::clone(store) as Arc<dyn ObjectStore>)?;
            let lived = tokio::time::timeout(LIFE_LIMIT, Box::pin(self.drain(&world, life))).await;
            match lived.map_err(|_| format!("a process did not end within {LIFE_LIMIT:?}"))? {
                Ok(()) => return check_laws(&world),
                Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Conflict) => {
                    check_laws(&world)?;
                    last = error.chain();
                }
                Err(error) => return Err(format!("the flow halted: {}", error.chain()).into()),
            }
        }
        Err(format!("the flow was started {RESTARTS_MAX} times in vain: {last}").into())
    }

    /// Lives until an operation of `store` fails, and is gone at that moment; tells whether that came.
    pub(crate) async fn die(&self, store: &Arc<FaultyStore>, life: Life) -> TestResult<bool> {
        let world = self.world(Arc::clone(store) as Arc<dyn ObjectStore>)?;
        tokio::select! {
            biased;
            () = store.fired() => Ok(true),
            ended = tokio::time::timeout(LIFE_LIMIT, Box::pin(self.drain(&world, life))) => match ended? {
                Ok(()) => Ok(false),
                // The error of the failed operation may come before the news of it.
                Err(_) if store.n_fired() > 0 => Ok(true),
                Err(error) => Err(format!("the flow halted before it was killed: {}", error.chain()).into()),
            },
        }
    }

    /// Lives until `end` comes, and is gone at that moment; tells whether it came.
    pub(crate) async fn die_when(
        &self,
        store: &Arc<FaultyStore>,
        life: Life,
        end: impl Future<Output = ()>,
    ) -> TestResult<bool> {
        let world = self.world(Arc::clone(store) as Arc<dyn ObjectStore>)?;
        tokio::select! {
            biased;
            () = end => Ok(true),
            ended = tokio::time::timeout(LIFE_LIMIT, Box::pin(self.drain(&world, life))) => match ended? {
                Ok(()) => Ok(false),
                Err(error) => Err(format!("the flow halted before it was killed: {}", error.chain()).into()),
            },
        }
    }

    async fn drain(&self, world: &World, life: Life) -> alluvium_catalog::Result<()> {
        let prepared = Box::pin(FlowRun::prepare(Arc::clone(&self.flow), world)).await?;
        let mut settings = MemorySettings { once: true, ..MemorySettings::new(self.topic.clone()) };
        settings.limits.rows_max = life.rows_max;
        settings.limits.interval = Duration::from_millis(20);
        let source = MemorySource::open(&self.broker, settings, prepared.positions())?;
        let mut run = Box::pin(prepared.start(Box::new(source), world)).await?;
        let ended = run.run(&Shutdown::new()).await;
        if life.is_orderly || ended.is_err() {
            let closed = run.close(&Shutdown::new()).await;
            return ended.and(closed);
        }
        ended
    }
}

/// Checks that no law of the engine was broken; debug builds stop at once, and the flow with them.
fn check_laws(world: &World) -> TestResult {
    let text = world.metrics.render(world.clock.now())?;
    let counted = text.lines().filter(|line| line.starts_with("alluvium_invariant_violations_total{"));
    let broken: BTreeMap<&str, &str> = counted.filter_map(|line| line.rsplit_once(' ')).collect();
    match broken.iter().find(|(_, count)| **count != "0") {
        Some((law, count)) => Err(format!("{law} is {count}").into()),
        None => Ok(()),
    }
}
