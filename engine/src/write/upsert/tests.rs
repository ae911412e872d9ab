//! Random histories of an upsert table against a map: late rows, ties, deletes, tombstones, restarts, staged batches that
//! never land, and other writers that add rows or remove files, between batches and in the middle of one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use alluvium_catalog::{
    Clock, Error, ErrorKind, Fate, Lineage, Location, ManualClock, Offset, OffsetRange, Partition, Result, Span,
    StorageSettings, Stores, SystemClock, Timestamp,
};
use alluvium_sql::{
    HIDDEN_OFFSET, HIDDEN_OVER_ROW, HIDDEN_PARTITION, HIDDEN_SEQUENCE, RewriteCap, RewritePolicy, Shaped, UpsertOptions,
};
use arrow::array::{ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataWriter};
use proptest::prelude::*;
use tokio::sync::{Semaphore, watch};

use super::draw::removal;
use super::*;
use crate::commit::create::{Blueprint, encode};
use crate::commit::land::{LandLimits, Landing, LandingParts, Signature};
use crate::commit::positions::AppIds;
use crate::commit::{Landed, Outcome};
use crate::delta::action::{Add, DeletionVectorDescriptor};
use crate::delta::log::{DeltaLog, PutOutcome};
use crate::hooked_store::{Hook, HookedStore};
use crate::hop::{ChangeOrder, Spent};
use crate::invariant::Watch;
use crate::metrics::Metrics;
use crate::order::{Order, OrderRef, Sequence, SequenceRef};
use crate::transform::collapse::Collapse;
use crate::write::index::IndexBudget;
use crate::write::stats::stats_json;
use crate::write::vectors::vector_file;

/// What a record does to its key.
#[derive(Debug, Clone, Copy)]
enum Change {
    Upsert { sequence: i64 },
    Delete { sequence: i64 },
    Tombstone,
}

#[derive(Debug, Clone)]
enum Step {
    /// Records land.
    Batch(Vec<(i64, Change)>),
    /// Records are staged, another writer adds rows of these keys, then the records land on top.
    Contended(Vec<(i64, Change)>, BTreeSet<i64>),
    /// Records are staged and the process dies; they come again.
    Crash(Vec<(i64, Change)>),
    /// The table is opened anew.
    Restart,
    /// Another writer adds rows, which have no positions.
    Append(BTreeSet<i64>),
    /// Another writer removes one of the live files.
    Remove(usize),
}

fn records() -> impl Strategy<Value = Vec<(i64, Change)>> {
    let change = prop_oneof![
        6 => (0..12_i64).prop_map(|sequence| Change::Upsert { sequence }),
        1 => (0..12_i64).prop_map(|sequence| Change::Delete { sequence }),
        1 => Just(Change::Tombstone),
    ];
    prop::collection::vec((0..10_i64, change), 1..12)
}

fn step() -> impl Strategy<Value = Step> {
    let keys = || prop::collection::btree_set(0..14_i64, 1..4);
    prop_oneof![
        8 => records().prop_map(Step::Batch),
        2 => (records(), keys()).prop_map(|(records, keys)| Step::Contended(records, keys)),
        1 => records().prop_map(Step::Crash),
        2 => Just(Step::Restart),
        2 => keys().prop_map(Step::Append),
        1 => (0..8_usize).prop_map(Step::Remove),
    ]
}

fn failed(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::internal("the history cannot go on").with_source(cause)
}

fn declared() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("value", DataType::Int64, true)]))
}

fn columns() -> UpsertColumns {
    UpsertColumns {
        declared: declared(),
        keys: vec!["id".to_owned()],
        sequence: vec![DataType::Int64],
        sequence_by: "rank".to_owned(),
        stored_sequence: None,
    }
}

fn copy_on_write() -> UpsertSettings {
    let options = UpsertOptions { mode: UpsertMode::CopyOnWrite, cap: None };
    UpsertSettings { options, ..UpsertSettings::default() }
}

/// What a key has to be.
#[derive(Debug, Clone)]
struct Standing {
    order: Order,
    /// `None` where it is deleted.
    value: Option<i64>,
}

/// A table, the flow that lands in it, and what it has to hold.
struct History {
    store: Arc<dyn ObjectStore>,
    location: Location,
    clock: Arc<dyn Clock>,
    settings: UpsertSettings,
    landing: Landing,
    next: i64,
    model: BTreeMap<i64, Standing>,
    ever_deleted: BTreeSet<i64>,
    /// Keys to which another writer has added a row since our last commit.
    doubled: BTreeSet<i64>,
    /// Whether the next start has the other mode.
    alternates: bool,
}

async fn open(
    store: &Arc<dyn ObjectStore>,
    location: &Location,
    settings: UpsertSettings,
    clock: &Arc<dyn Clock>,
) -> Result<Landing> {
    let clock = Arc::clone(clock);
    let log = DeltaLog::with_stores(location.clone(), Arc::clone(store), Arc::clone(store));
    let folder = DataFolder {
        store: Arc::clone(store),
        location: location.clone(),
        partitioned_by: Vec::new(),
        clock: Arc::clone(&clock),
    };
    let blueprint = Blueprint {
        schema: columns().stored(),
        partitioned_by: Vec::new(),
        clustered_by: None,
        deletion_vectors: settings.options.mode == UpsertMode::MergeOnRead,
        comment: None,
        properties: BTreeMap::new(),
    };
    let state = blueprint.open_or_create(&log, clock.as_ref()).await?;
    let writer = Box::new(UpsertWriter::open(folder, columns(), &state, settings).await?);
    let ids = AppIds::of_table(&"flow".parse()?, &"topic".parse()?);
    let (wait_min, wait_max) = (Duration::from_millis(1), Duration::from_millis(5));
    let limits = LandLimits { attempts_max: 5, wait_min, wait_max, ..LandLimits::default() };
    let watch = Watch::new(Arc::new(Metrics::try_new()?));
    Ok(Landing::new(LandingParts { log, state, writer, ids, known_at: clock.now() }, clock, limits, watch))
}

impl History {
    async fn begin(settings: UpsertSettings) -> Result<Self> {
        Self::begin_at(Arc::new(SystemClock), settings).await
    }

    async fn begin_at(clock: Arc<dyn Clock>, settings: UpsertSettings) -> Result<Self> {
        Self::begin_in(Arc::new(InMemory::new()), clock, settings).await
    }

    async fn begin_in(store: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>, settings: UpsertSettings) -> Result<Self> {
        let location: Location = "memory:///t".parse()?;
        let landing = open(&store, &location, settings.clone(), &clock).await?;
        Ok(Self {
            store,
            location,
            clock,
            settings,
            landing,
            next: 0,
            model: BTreeMap::new(),
            ever_deleted: BTreeSet::new(),
            doubled: BTreeSet::new(),
            alternates: false,
        })
    }

    async fn apply(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Batch(records) => self.land(records, &BTreeSet::new()).await,
            Step::Contended(records, keys) => self.land(records, keys).await,
            Step::Crash(records) => {
                let changes = self.changes(records)?;
                drop(self.landing.writer().stage(changes).await?);
                self.restart(false).await?;
                self.land(records, &BTreeSet::new()).await
            }
            Step::Restart => self.restart(self.next % 2 == 0).await,
            Step::Append(keys) => self.append(keys).await,
            Step::Remove(place) => self.remove(*place).await,
        }
    }

    /// Opens the table anew, after an orderly end or without.
    async fn restart(&mut self, is_orderly: bool) -> Result<()> {
        if is_orderly {
            self.landing.writer().close().await;
        }
        if self.alternates {
            self.settings.options.mode = match self.settings.options.mode {
                UpsertMode::MergeOnRead => UpsertMode::CopyOnWrite,
                UpsertMode::CopyOnWrite => UpsertMode::MergeOnRead,
            };
        }
        self.landing = open(&self.store, &self.location, self.settings.clone(), &self.clock).await?;
        Ok(())
    }

    /// Lands `records`; in between another writer adds rows of `foreign` keys.
    async fn land(&mut self, records: &[(i64, Change)], foreign: &BTreeSet<i64>) -> Result<()> {
        let changes = self.changes(records)?;
        let signature = self.signature()?;
        let staged = self.landing.writer().stage(changes).await?;
        if !foreign.is_empty() {
            self.append(foreign).await?;
        }
        for (offset, (key, change)) in (self.next..).zip(records) {
            self.note(*key, *change, offset);
        }
        self.next += records.len() as i64;
        match self.landing.land(&staged, &signature).await? {
            Outcome::Landed(_) => self.check().await,
            other => Err(Error::internal(format!("{other:?}"))),
        }
    }

    /// Applies a record to the model, by the table in the doc of `order`.
    fn note(&mut self, key: i64, change: Change, offset: i64) {
        let (sequence, value) = match change {
            Change::Upsert { sequence } => (Some(sequence), Some(offset)),
            Change::Delete { sequence } => (Some(sequence), None),
            Change::Tombstone => (None, None),
        };
        let sequence = sequence.map(Sequence::Number);
        let mut order = Order { inherited: sequence.is_none(), sequence, offset, partition: 0 };
        if let Some(standing) = self.model.get(&key) {
            if !order.borrow().supersedes(&standing.order.borrow()) {
                return;
            }
            order = order.borrow().over(&standing.order.borrow()).to_owned();
        }
        if value.is_none() {
            self.ever_deleted.insert(key);
        }
        self.model.insert(key, Standing { order, value });
    }

    /// Returns the changes of records from the next offset on, as the transform hands them on.
    fn changes(&self, records: &[(i64, Change)]) -> Result<Changes> {
        let offsets: Int64Array = (self.next..).zip(records).map(|(offset, _)| Some(offset)).collect();
        let keys: ArrayRef = Arc::new(records.iter().map(|(key, _)| Some(*key)).collect::<Int64Array>());
        let sequence: Int64Array = records
            .iter()
            .map(|(_, change)| match change {
                Change::Upsert { sequence } | Change::Delete { sequence } => Some(*sequence),
                Change::Tombstone => None,
            })
            .collect();
        let deletes = records.iter().map(|(_, change)| Some(!matches!(change, Change::Upsert { .. })));
        let shaped = Shaped {
            rows: RecordBatch::try_new(declared(), vec![keys, Arc::new(offsets.clone())]).map_err(failed)?,
            partitions: Int32Array::from(vec![0; records.len()]),
            offsets,
            sequence: vec![Arc::new(sequence)],
            deletes: Some(deletes.collect::<BooleanArray>()),
        };
        let collapse = Collapse::try_new(&declared(), &["id".to_owned()], vec![DataType::Int64])?;
        let (Shaped { rows, partitions, offsets, sequence, deletes }, standing) = collapse.newest(shaped)?;
        let (n_records, n_rows) = (records.len() as u64, rows.num_rows() as u64);
        let mut span = Span::new();
        let next = Offset(self.next + records.len() as i64);
        let range = OffsetRange { first: Offset(self.next), next, records: n_records };
        span.extend(Partition(0), range).map_err(|misfit| Error::internal(misfit.to_string()))?;
        let (inherited, after_delete) = (Some(standing.inherited), standing.after_delete);
        Ok(Changes {
            rows,
            order: ChangeOrder { partitions, offsets, sequence, inherited, after_delete },
            keyed: Some(standing.keyed),
            deletes,
            rejects: Vec::new(),
            lookups: Vec::new(),
            fate: Fate { records_in: n_records, applied: n_rows, merged: n_records - n_rows, ..Fate::default() },
            span,
            spent: Spent::default(),
        })
    }

    fn signature(&self) -> Result<Signature> {
        let lineage = Lineage::begin("flow".parse()?, "hash", "test", self.clock.new_id(), self.clock.new_id());
        Ok(Signature { lineage, operation: "MERGE", definition: None })
    }

    /// Commits `actions` as another writer would.
    async fn commit(&self, actions: &[Action]) -> Result<()> {
        let state = self.newest().await?;
        let write_id = self.clock.new_id();
        let info = serde_json::json!({"operation": "WRITE", "txnId": write_id});
        match self.landing.log().put(state.version + 1, encode(&info, actions)?, write_id).await {
            PutOutcome::Landed => Ok(()),
            PutOutcome::Taken | PutOutcome::Unknown => Err(Error::internal("the other writer cannot commit")),
        }
    }

    async fn newest(&self) -> Result<TableState> {
        TableState::load(self.landing.log()).await?.ok_or_else(|| Error::internal("the table is gone"))
    }

    /// Adds rows without positions. Keys that have such a row already are left out, since two rows of no order are a tie,
    /// and so are keys that were deleted, of which only the process that saw it knows that they came back in between.
    async fn append(&mut self, keys: &BTreeSet<i64>) -> Result<()> {
        let is_foreign = |key: &i64| {
            self.doubled.contains(key)
                || self.ever_deleted.contains(key)
                || self.model.get(key).is_some_and(|row| row.order.offset < 0)
        };
        let keys: Vec<i64> = keys.iter().copied().filter(|key| !is_foreign(key)).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let values: ArrayRef = Arc::new(keys.iter().map(|key| Some(-1 - key)).collect::<Int64Array>());
        let ids: ArrayRef = Arc::new(Int64Array::from(keys.clone()));
        let rows = RecordBatch::try_new(declared(), vec![ids, values]).map_err(failed)?;
        self.commit_file(&rows).await?;
        for key in keys {
            // The newer of two rows stands, and a row without a position is the oldest there is.
            let order = Order { sequence: None, inherited: true, offset: i64::MIN, partition: -1 };
            self.model.entry(key).or_insert(Standing { order, value: Some(-1 - key) });
            self.doubled.insert(key);
        }
        Ok(())
    }

    /// Adds rows of `(key, sequence)` that have positions, as of records to come: value -1 - key.
    async fn append_with_order(&self, rows: &[(i64, i64)]) -> Result<()> {
        let column = |value: &dyn Fn(&(i64, i64)) -> i64| -> ArrayRef {
            Arc::new(rows.iter().map(|row| Some(value(row))).collect::<Int64Array>())
        };
        let partitions: ArrayRef = Arc::new(Int32Array::from(vec![0; rows.len()]));
        let stored =
            vec![column(&|row| row.0), column(&|row| -1 - row.0), partitions, column(&|_| 1_000), column(&|row| row.1)];
        let rows = RecordBatch::try_new(columns().stored(), stored).map_err(failed)?;
        self.commit_file(&rows).await
    }

    /// Commits a file of `rows` as another writer would.
    async fn commit_file(&self, rows: &RecordBatch) -> Result<()> {
        let (bytes, footer) = crate::write::parquet::encode(rows)?;
        let path = format!("foreign-{}.parquet", self.clock.new_id());
        let (size, stats) = (bytes.len() as i64, stats_json(rows, &footer)?);
        self.store.put(&Path::from(path.as_str()), bytes.into()).await.map_err(failed)?;
        let add = Add { path, size, data_change: true, stats: Some(stats), ..Add::default() };
        self.commit(&[Action::Add(add)]).await
    }

    /// Removes a live file, unless that would leave it open which older change of a key counts. The writer follows at
    /// once: a row that is late when it is staged is never written, so what is removed later does not bring it in.
    async fn remove(&mut self, place: usize) -> Result<()> {
        let state = self.newest().await?;
        let mut files: Vec<&Add> = state.files.values().collect();
        files.sort_by(|one, other| one.path.cmp(&other.path));
        let Some(add) = files.get(place % files.len().max(1)) else { return Ok(()) };
        let rows = self.rows_of(add).await?;
        if !self.doubled.is_empty() || rows.iter().any(|(key, _)| self.ever_deleted.contains(key)) {
            return Ok(());
        }
        self.commit(&[Action::Remove(removal(add, 0))]).await?;
        for (key, _) in rows {
            self.model.remove(&key);
        }
        self.landing.catch_up().await
    }

    /// Returns the live rows of a file, as (id, value).
    async fn rows_of(&self, add: &Add) -> Result<Vec<(i64, i64)>> {
        let bytes = self.store.get(&Path::from(add.path.as_str())).await.map_err(failed)?;
        let bytes = bytes.bytes().await.map_err(failed)?;
        let vectors = VectorFolder {
            store: Arc::clone(&self.store),
            location: self.location.clone(),
            clock: Arc::clone(&self.clock),
            inline_bytes_max: VectorFolder::INLINE_BYTES_MAX,
        };
        let deleted = match &add.deletion_vector {
            Some(descriptor) => vectors.read(descriptor).await?,
            None => RoaringTreemap::new(),
        };
        let mut rows = Vec::new();
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build());
        for batch in reader.map_err(failed)? {
            let batch = batch.map_err(failed)?;
            let column = |at: usize| batch.column(at).as_primitive::<Int64Type>().clone();
            rows.extend(column(0).values().iter().copied().zip(column(1).values().iter().copied()));
        }
        assert!(deleted.max().is_none_or(|last| last < rows.len() as u64), "a vector is beyond its file");
        let live = rows.into_iter().zip(0_u64..).filter(|(_, row)| !deleted.contains(*row));
        Ok(live.map(|(row, _)| row).collect())
    }

    /// Checks the table after one of our commits: no key twice, each with the value that the model has.
    async fn check(&mut self) -> Result<()> {
        let state = self.newest().await?;
        let mut found = BTreeMap::new();
        for add in state.files.values() {
            for (key, value) in self.rows_of(add).await? {
                assert_eq!(found.insert(key, value), None, "key {key} has two live rows");
            }
        }
        let expected: BTreeMap<i64, i64> =
            self.model.iter().filter_map(|(key, standing)| Some((*key, standing.value?))).collect();
        assert_eq!(found, expected);
        assert_eq!(state.n_rows(), Some(found.len() as u64));
        if self.settings.options.mode == UpsertMode::CopyOnWrite && !self.alternates {
            assert_eq!((state.protocol.min_reader_version, state.protocol.min_writer_version), (1, 2));
            for add in state.files.values() {
                assert!(add.deletion_vector.is_none(), "{add:?}");
                assert!(add.stats.as_deref().is_some_and(|stats| stats.contains(r#""tightBounds":true"#)), "{add:?}");
            }
        }
        assert_eq!(self.landing.writer().n_rows(), state.n_rows());
        self.doubled.clear();
        Ok(())
    }
}

async fn live_through(steps: &[Step], settings: UpsertSettings, alternates: bool) -> Result<()> {
    let mut history = History::begin(settings).await?;
    history.alternates = alternates;
    for step in steps {
        history.apply(step).await?;
    }
    history.land(&[(99, Change::Upsert { sequence: 1 })], &BTreeSet::new()).await?;
    history.restart(true).await?;
    history.land(&[(98, Change::Upsert { sequence: 1 })], &BTreeSet::new()).await
}

/// Lives through `steps` in one mode; every restart begins in the other one where `alternates` says so.
fn check(steps: &[Step], settings: UpsertSettings, alternates: bool) -> std::result::Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| TestCaseError::fail(error.to_string()))?;
    let ended = runtime.block_on(live_through(steps, settings, alternates));
    ended.map_err(|error| TestCaseError::fail(format!("{} in {steps:?}", error.chain())))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_history_leaves_the_newest_row_of_each_key(steps in prop::collection::vec(step(), 1..16)) {
        check(&steps, UpsertSettings::default(), false)?;
    }

    /// A start takes a snapshot, of now or of long ago, and what the log has had since.
    #[test]
    fn any_history_ends_the_same_when_starts_take_snapshots(steps in prop::collection::vec(step(), 1..12)) {
        check(&steps, UpsertSettings { snapshot_interval: 2, ..UpsertSettings::default() }, false)?;
    }

    /// Without a cache, every row that bounds do not decide is read from its file.
    #[test]
    fn any_history_ends_the_same_when_orders_are_read_from_files(steps in prop::collection::vec(step(), 1..12)) {
        check(&steps, UpsertSettings { order_cache_bytes: 0, ..UpsertSettings::default() }, false)?;
    }

    #[test]
    fn any_history_ends_the_same_when_files_are_written_anew(steps in prop::collection::vec(step(), 1..16)) {
        check(&steps, copy_on_write(), false)?;
    }

    #[test]
    fn any_history_of_rewritten_files_ends_the_same_out_of_snapshots_and_files(
        steps in prop::collection::vec(step(), 1..12)
    ) {
        check(&steps, UpsertSettings { order_cache_bytes: 0, snapshot_interval: 2, ..copy_on_write() }, false)?;
    }

    /// The table begins with deletion vectors; every other start writes files anew.
    #[test]
    fn any_history_ends_the_same_when_starts_change_the_mode(steps in prop::collection::vec(step(), 1..16)) {
        check(&steps, UpsertSettings { snapshot_interval: 2, ..UpsertSettings::default() }, true)?;
    }
}

/// Returns the snapshots beside the table.
async fn snapshots(store: &dyn ObjectStore) -> Result<Vec<Path>> {
    files(store, "_alluvium/index").await
}

async fn files(store: &dyn ObjectStore, folder: &str) -> Result<Vec<Path>> {
    let folder = Path::from(folder);
    let listed: Vec<_> = store.list(Some(&folder)).try_collect().await.map_err(failed)?;
    Ok(listed.into_iter().map(|file| file.location).collect())
}

/// Returns a writer that starts at what the table is now.
async fn start(history: &History, settings: UpsertSettings) -> Result<UpsertWriter> {
    start_at(history, history.landing.state(), settings).await
}

/// Returns a writer that starts at `state`.
async fn start_at(history: &History, state: &TableState, settings: UpsertSettings) -> Result<UpsertWriter> {
    UpsertWriter::open(folder(history), columns(), state, settings).await
}

/// Returns where the data files of a history lie.
fn folder(history: &History) -> DataFolder {
    DataFolder {
        store: Arc::clone(&history.store),
        location: history.location.clone(),
        partitioned_by: Vec::new(),
        clock: Arc::clone(&history.clock),
    }
}

fn on(folder: &std::path::Path) -> Result<SnapshotDisk> {
    SnapshotDisk::open(&Stores::new(StorageSettings::default()), &folder.display().to_string().parse()?)
}

/// Returns how many keys and deletes a writer knows.
fn known(writer: &UpsertWriter) -> (u64, u64) {
    let footprint = writer.index.footprint();
    (footprint.n_keys, footprint.n_deletes)
}

#[tokio::test]
async fn a_start_takes_a_snapshot_and_what_came_after_it_and_does_without_a_damaged_one() -> Result<()> {
    let settings = UpsertSettings { snapshot_interval: 2, ..UpsertSettings::default() };
    let mut history = History::begin(settings.clone()).await?;
    let upsert = |key| (key, Change::Upsert { sequence: key });
    for key in 0..7 {
        history.land(&[upsert(key), upsert(30), (key - 3, Change::Tombstone)], &BTreeSet::new()).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    history.landing.writer().close().await;
    assert_eq!(snapshots(history.store.as_ref()).await?.len(), 2, "two are kept");
    history.land(&[upsert(20)], &BTreeSet::new()).await?;
    let restored = start(&history, settings.clone()).await?;
    assert!(restored.snapshots.saved().is_some(), "the snapshot was taken");
    let scanned = start(&history, UpsertSettings::default()).await?;
    assert_eq!(known(&restored), known(&scanned));
    for path in snapshots(history.store.as_ref()).await? {
        history.store.put(&path, bytes::Bytes::from_static(b"ALVINDEX and nonsense").into()).await.map_err(failed)?;
    }
    let rebuilt = start(&history, settings).await?;
    assert_eq!((rebuilt.snapshots.saved(), known(&rebuilt)), (None, known(&scanned)));
    history.restart(false).await?;
    history.land(&[upsert(21)], &BTreeSet::new()).await
}

#[tokio::test]
async fn a_start_takes_the_newest_snapshot_of_disk_and_table_and_does_without_either() -> Result<()> {
    let disk = tempfile::tempdir().map_err(failed)?;
    let beside = UpsertSettings { snapshot_interval: 1_000, ..UpsertSettings::default() };
    let both = UpsertSettings { snapshot_disk: Some(on(&disk.path().join("index"))?), ..beside.clone() };
    let mut history = History::begin(both.clone()).await?;
    let on_disk = disk.path().join("index").join(&history.landing.state().metadata.id);
    let on_disk = |version: u64| on_disk.join(format!("{version:020}.snapshot"));
    history.land(&upserts(0..40, 1), &BTreeSet::new()).await?;
    history.landing.writer().close().await;
    let version = history.landing.state().version;
    let [path] = snapshots(history.store.as_ref()).await?.try_into().map_err(|_| failed("not one snapshot"))?;
    let bytes = history.store.get(&path).await.map_err(failed)?.bytes().await.map_err(failed)?;
    assert_eq!(std::fs::read(on_disk(version)).map_err(failed)?, bytes, "the same on both");

    history.store.delete(&path).await.map_err(failed)?;
    let writer = start(&history, both.clone()).await?;
    assert_eq!((writer.snapshots.saved(), known(&writer).0), (Some(version), 40), "out of the one on disk");
    assert_eq!(start(&history, beside.clone()).await?.snapshots.saved(), None, "which another machine has not");

    // Another machine goes on, then this one again.
    history.settings = beside.clone();
    history.restart(false).await?;
    history.land(&upserts(20..60, 2), &BTreeSet::new()).await?;
    history.landing.writer().close().await;
    let newer = start(&history, both.clone()).await?;
    assert_eq!(
        (newer.snapshots.saved(), known(&newer).0),
        (Some(version + 1), 60),
        "out of the newer one, beside the table"
    );

    // A damaged one is passed over; one of a version that the table does not have is removed, lest it counts later.
    std::fs::write(on_disk(version + 1), "ALVINDEX and nonsense").map_err(failed)?;
    for (ahead, age) in [(8, Duration::ZERO), (9, Duration::from_secs(3_600))] {
        std::fs::copy(on_disk(version), on_disk(version + ahead)).map_err(failed)?;
        let file = std::fs::File::options().append(true).open(on_disk(version + ahead)).map_err(failed)?;
        let written = std::time::UNIX_EPOCH + Duration::from_millis(history.clock.now().0.unsigned_abs()) - age;
        file.set_modified(written).map_err(failed)?;
    }
    let writer = start(&history, both.clone()).await?;
    assert_eq!((writer.snapshots.saved(), known(&writer)), (Some(version + 1), known(&newer)));
    assert!(on_disk(version + 1).exists() && !on_disk(version + 9).exists());
    assert!(on_disk(version + 8).exists(), "another process may have written it a moment ago");

    // A folder that cannot be made costs the copy on disk, and nothing else.
    let file = disk.path().join("file");
    std::fs::write(&file, "x").map_err(failed)?;
    history.settings = UpsertSettings { snapshot_disk: Some(on(&file.join("index"))?), ..beside };
    history.restart(false).await?;
    history.land(&upserts(60..70, 3), &BTreeSet::new()).await?;
    history.landing.writer().close().await;
    assert_eq!(start(&history, both).await?.snapshots.saved(), Some(version + 2));
    Ok(())
}

/// Refuses snapshots beside the table for a while.
#[derive(Debug, Default)]
struct NoSnapshots {
    refuses: AtomicBool,
}

#[async_trait]
impl Hook for NoSnapshots {
    async fn before_write(&self, location: &Path) -> object_store::Result<()> {
        match self.refuses.load(Ordering::SeqCst) && location.as_ref().contains("_alluvium/index") {
            true => Err(object_store::Error::NotImplemented {
                operation: "snapshots".to_owned(),
                implementer: "test".to_owned(),
            }),
            false => Ok(()),
        }
    }
}

#[tokio::test]
async fn a_snapshot_that_one_place_refuses_is_kept_in_the_other_and_written_again_at_the_end() -> Result<()> {
    let disk = tempfile::tempdir().map_err(failed)?;
    let settings =
        UpsertSettings { snapshot_interval: 1_000, snapshot_disk: Some(on(disk.path())?), ..UpsertSettings::default() };
    let mut history = History::begin(settings.clone()).await?;
    // Where the table's folder would be is a file.
    let place = disk.path().join(&history.landing.state().metadata.id);
    std::fs::write(&place, "x").map_err(failed)?;
    history.land(&upserts(0..40, 1), &BTreeSet::new()).await?;
    history.landing.writer().close().await;
    assert_eq!(snapshots(history.store.as_ref()).await?.len(), 1);
    let version = history.landing.state().version;
    let mut writer = start(&history, settings.clone()).await?;
    assert_eq!(writer.snapshots.saved(), Some(version));
    // With the file gone, a writer that has nothing new catches up on what the disk lacks.
    std::fs::remove_file(&place).map_err(failed)?;
    writer.close().await;
    assert_eq!(std::fs::read_dir(&place).map_err(failed)?.count(), 1);

    let store = Arc::<HookedStore<NoSnapshots>>::default();
    store.hook.refuses.store(true, Ordering::SeqCst);
    let mut history = History::begin_in(Arc::clone(&store) as _, Arc::new(SystemClock), settings.clone()).await?;
    history.land(&upserts(0..40, 1), &BTreeSet::new()).await?;
    history.landing.writer().close().await;
    assert!(snapshots(history.store.as_ref()).await?.is_empty());
    let mut writer = start(&history, settings).await?;
    assert_eq!((writer.snapshots.saved(), known(&writer).0), (Some(history.landing.state().version), 40));
    store.hook.refuses.store(false, Ordering::SeqCst);
    writer.close().await;
    assert_eq!(snapshots(history.store.as_ref()).await?.len(), 1, "and so does the table");
    Ok(())
}

/// Lands one change of key 1, and applies it to the model; `is_new` says whether it must have an effect.
async fn land_one(history: &mut History, change: Change, is_new: bool) -> Result<()> {
    let before = history.model.get(&1).map(|standing| standing.order.offset);
    if !is_new {
        let offset = history.next;
        history.land(&[(1, change)], &BTreeSet::new()).await?;
        assert_eq!(history.model.get(&1).map(|standing| standing.order.offset), before, "{change:?} at {offset}");
        return Ok(());
    }
    history.model.remove(&1);
    history.land(&[(1, change)], &BTreeSet::new()).await
}

/// Lands records of which the model does not hear.
async fn land_untold(history: &mut History, records: &[(i64, Change)]) -> Result<Landed> {
    let (changes, signature) = (history.changes(records)?, history.signature()?);
    history.next += records.len() as i64;
    let staged = history.landing.writer().stage(changes).await?;
    match history.landing.land(&staged, &signature).await? {
        Outcome::Landed(landed) => Ok(*landed),
        other => Err(failed(format!("{other:?}"))),
    }
}

/// Lands one row of key 1, and returns whether it had an effect.
async fn takes(history: &mut History, sequence: i64) -> Result<bool> {
    Ok(land_untold(history, &upserts([1], sequence)).await?.fate.applied == 1)
}

/// Adds a row of key 1 that has no position, as another writer would.
async fn bring_back(history: &History, sequence: i64) -> Result<()> {
    let column = |value: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![value])) };
    let columns = [("id", column(1)), ("value", column(-2)), (HIDDEN_SEQUENCE, column(sequence))];
    history.commit_file(&RecordBatch::try_from_iter(columns).map_err(failed)?).await
}

/// Returns the order of the delete that a writer remembers of a key: the sequence, which is a number, and the offset.
fn remembered(writer: &UpsertWriter, key: i64) -> Result<Option<(Option<Sequence>, i64)>> {
    let key: ArrayRef = Arc::new(Int64Array::from(vec![key]));
    let keys = writer.reader.keys.pack(&[key])?;
    let found = writer.index.deleted(keys.get(0), keys.hashes()[0]);
    Ok(found.map(|delete| (delete.order.sequence.clone(), delete.order.offset)))
}

#[tokio::test]
async fn a_delete_of_a_row_that_another_writer_brought_binds_after_a_start_over_an_older_one() -> Result<()> {
    for delete in [Change::Delete { sequence: 6 }, Change::Tombstone] {
        for starts in [false, true] {
            let mut history = History::begin(UpsertSettings::default()).await?;
            assert!(takes(&mut history, 1).await?);
            land_untold(&mut history, &[(1, Change::Delete { sequence: 20 })]).await?;
            bring_back(&history, 5).await?;
            history.landing.catch_up().await?;
            land_untold(&mut history, &[(1, delete)]).await?;
            if starts {
                history.restart(false).await?;
            }
            assert!(!takes(&mut history, 4).await?, "a late row after {delete:?}, starts: {starts}");
            assert!(takes(&mut history, 10).await?, "a newer row after {delete:?}, starts: {starts}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn deletes_are_told_anew_when_a_conflict_brings_a_row_for_one_of_them() -> Result<()> {
    let mut history = History::begin(UpsertSettings::default()).await?;
    let (changes, signature) = (history.changes(&[(1, Change::Delete { sequence: 6 })])?, history.signature()?);
    let staged = history.landing.writer().stage(changes).await?;
    bring_back(&history, 5).await?;
    let Outcome::Landed(landed) = history.landing.land(&staged, &signature).await? else {
        return Err(failed("the batch did not land"));
    };
    let told = sidecars(&history).read_of_commit(&landed.entry.info).await?;
    let over_row = told.iter().filter_map(|told| told.rows.column_by_name(HIDDEN_OVER_ROW));
    let over_row: Vec<bool> = over_row.map(|column| column.as_boolean().value(0)).collect();
    assert_eq!(over_row, [true]);
    assert_eq!(files(history.store.as_ref(), "_alluvium/tombstones").await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_delete_that_has_landed_is_the_last_word_over_one_that_is_over_where_it_was_made() -> Result<()> {
    let clock = Arc::new(ManualClock::new(1, Timestamp(1_800_000_000_000)));
    let retention = Duration::from_secs(3_600);
    let settings = UpsertSettings { retention, ..UpsertSettings::default() };
    let mut history = History::begin_at(Arc::clone(&clock) as Arc<dyn Clock>, settings.clone()).await?;
    let mut other = start(&history, settings).await?;
    land_and_follow(&mut history, &[(1, Change::Delete { sequence: 20 })], &mut other).await?;
    assert_eq!(remembered(&other, 1)?, Some((Some(Sequence::Number(20)), 0)));
    clock.advance(retention + Duration::from_secs(1));
    let mut tail = Vec::new();
    for record in [
        (2, Change::Upsert { sequence: 1 }),
        (1, Change::Upsert { sequence: 10 }),
        (1, Change::Delete { sequence: 11 }),
    ] {
        let landed = land_untold(&mut history, &[record]).await?;
        assert_eq!(landed.fate.applied, 1, "{record:?}");
        tail.push(landed.entry);
    }
    // The row of key 1 has come and gone: whoever follows all three at once does not see its file.
    tail[1].actions.retain(|action| !matches!(action, Action::Add(_)));
    other.follow(&tail).await?;
    assert_eq!(remembered(&other, 1)?, Some((Some(Sequence::Number(11)), 3)));
    Ok(())
}

#[tokio::test]
async fn a_commit_names_the_sidecar_that_was_written_last_though_an_earlier_one_says_the_same() -> Result<()> {
    let mut history = History::begin(UpsertSettings::default()).await?;
    assert!(takes(&mut history, 80).await?);
    let add = only_file(&history).await?;
    let (changes, signature) = (history.changes(&[(1, Change::Tombstone)])?, history.signature()?);
    history.next += 1;
    let staged = history.landing.writer().stage(changes).await?;
    // Another writer takes the row away, a commit is drawn up that does not land, and the row comes back.
    history.commit(&[Action::Remove(removal(&add, 0))]).await?;
    history.landing.catch_up().await?;
    let state = history.landing.state().clone();
    drop(history.landing.writer().draft(&staged, &state).await?);
    history.commit(&[Action::Add(add)]).await?;
    history.landing.catch_up().await?;
    let Outcome::Landed(landed) = history.landing.land(&staged, &signature).await? else {
        return Err(failed("the batch did not land"));
    };
    let mut written = files(history.store.as_ref(), "_alluvium/tombstones").await?;
    written.sort();
    let (named, last) = (landed.entry.info[TombstoneFolder::KEY].as_str(), written.last().map(ToString::to_string));
    assert_eq!((written.len(), named), (3, last.as_deref()));
    history.restart(false).await?;
    assert!(!takes(&mut history, 70).await?, "the tombstone has the sequence of the row that it deleted");
    Ok(())
}

#[tokio::test]
async fn a_data_file_with_more_rows_than_can_be_numbered_is_bad_data() -> Result<()> {
    let history = History::begin(UpsertSettings::default()).await?;
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let rows = RecordBatch::try_new(declared(), vec![Arc::clone(&ids), ids]).map_err(failed)?;
    let (bytes, footer) = crate::write::parquet::encode(&rows)?;
    // Behind the rows comes a footer that tells of more; the last one counts.
    let group = footer.row_group(0).clone().into_builder().set_num_rows(1 << 32).build().map_err(failed)?;
    let footer = ParquetMetaData::new(footer.file_metadata().clone(), vec![group]);
    let mut file = bytes.to_vec();
    ParquetMetaDataWriter::new(&mut file, &footer).finish().map_err(failed)?;
    let (path, size) = ("long.parquet".to_owned(), file.len() as i64);
    history.store.put(&Path::from(path.as_str()), file.into()).await.map_err(failed)?;
    let writer = start(&history, UpsertSettings::default()).await?;
    let read = Arc::clone(&writer.reader).read(&Add { path, size, ..Add::default() }).await;
    let refused = read.map(drop).map_err(|error| (error.kind(), error.to_string()));
    let wanted = "long.parquet of the table at memory:///t has 4294967296 rows, more than the 4294967295";
    assert!(matches!(&refused, Err((ErrorKind::Data, text)) if text.contains(wanted)), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn a_delete_of_a_snapshot_that_is_over_gives_way_to_a_later_one_of_a_lower_sequence() -> Result<()> {
    let clock = Arc::new(ManualClock::new(1, Timestamp(1_800_000_000_000)));
    let retention = Duration::from_secs(3_600);
    // Snapshots at the orderly end only.
    let settings = UpsertSettings { retention, snapshot_interval: 1_000, ..UpsertSettings::default() };
    let mut history = History::begin_at(Arc::clone(&clock) as Arc<dyn Clock>, settings).await?;
    land_one(&mut history, Change::Upsert { sequence: 20 }, true).await?;
    land_one(&mut history, Change::Delete { sequence: 20 }, true).await?;
    history.restart(true).await?;
    clock.advance(retention + Duration::from_secs(1));
    history.restart(false).await?;
    land_one(&mut history, Change::Upsert { sequence: 10 }, true).await?;
    land_one(&mut history, Change::Delete { sequence: 11 }, true).await?;
    // The snapshot is that of the first delete.
    history.restart(false).await?;
    land_one(&mut history, Change::Upsert { sequence: 5 }, false).await
}

#[tokio::test]
async fn an_index_that_outgrows_its_memory_stops_the_flow_and_names_the_setting() -> Result<()> {
    let mut history = History::begin(UpsertSettings { memory_bytes_max: 1, ..UpsertSettings::default() }).await?;
    let refused = history.land(&[(1, Change::Upsert { sequence: 1 })], &BTreeSet::new()).await;
    let refused = refused.map_err(|error| (error.kind(), error.to_string()));
    assert!(matches!(&refused, Err((ErrorKind::Invalid, text)) if text.contains("index.memory")), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn of_two_indexes_the_one_that_outgrows_what_both_may_take_stops_and_makes_room_for_the_other() -> Result<()> {
    let begin = async |budget: &Arc<IndexBudget>| {
        let mut history =
            History::begin(UpsertSettings { budget: Arc::clone(budget), ..UpsertSettings::default() }).await?;
        history.land(&upserts(0..1_000, 1), &BTreeSet::new()).await?;
        Ok::<_, Error>(history)
    };
    let alone = begin(&Arc::default()).await?.landing.writer().footprint().unwrap_or_default().bytes;
    let budget = Arc::new(IndexBudget::new(alone * 5 / 2));
    let (mut one, mut other) = (begin(&budget).await?, begin(&budget).await?);
    // What has landed is there; the next batch is refused.
    one.land(&upserts(1_000..3_000, 1), &BTreeSet::new()).await?;
    let refused = one.land(&upserts(0..10, 2), &BTreeSet::new()).await;
    let refused = refused.map_err(|error| (error.kind(), error.to_string()));
    let wanted = [format!("those of other flows {alone} bytes"), "index.total_memory".to_owned()];
    assert!(
        matches!(&refused, Err((ErrorKind::Invalid, text)) if wanted.iter().all(|part| text.contains(part))),
        "{refused:?}"
    );
    other.land(&upserts(0..1_000, 2), &BTreeSet::new()).await?;
    drop(one);
    other.land(&upserts(1_000..2_000, 1), &BTreeSet::new()).await?;
    other.land(&upserts(0..10, 3), &BTreeSet::new()).await
}

/// Holds snapshots up until it lets them pass.
#[derive(Debug)]
struct HeldSnapshots(Semaphore);

impl Default for HeldSnapshots {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

#[async_trait]
impl Hook for HeldSnapshots {
    async fn before_write(&self, location: &Path) -> object_store::Result<()> {
        if location.as_ref().contains("_alluvium/index") {
            drop(self.0.acquire().await);
        }
        Ok(())
    }
}

/// Lands records, and lets `other` follow.
async fn land_and_follow(history: &mut History, records: &[(i64, Change)], other: &mut UpsertWriter) -> Result<()> {
    let (changes, signature) = (history.changes(records)?, history.signature()?);
    let staged = history.landing.writer().stage(changes).await?;
    let Outcome::Landed(landed) = history.landing.land(&staged, &signature).await? else {
        return Err(failed("the batch did not land"));
    };
    history.next += records.len() as i64;
    other.follow(std::slice::from_ref(&landed.entry)).await
}

/// Returns a table, and a writer that has followed a change of all keys while its snapshot of the version before is held
/// up.
async fn beside_a_held_snapshot() -> Result<(Arc<HookedStore<HeldSnapshots>>, History, UpsertWriter)> {
    let store = Arc::<HookedStore<HeldSnapshots>>::default();
    let mut history =
        History::begin_in(Arc::clone(&store) as _, Arc::new(SystemClock), UpsertSettings::default()).await?;
    let settings = UpsertSettings { snapshot_interval: 1, ..UpsertSettings::default() };
    let mut writer = start(&history, settings).await?;
    land_and_follow(&mut history, &upserts(0..2_000, 1), &mut writer).await?;
    writer.save_when_due();
    land_and_follow(&mut history, &upserts(0..2_000, 2), &mut writer).await?;
    assert!(writer.index.has_layers());
    Ok((store, history, writer))
}

#[tokio::test]
async fn what_an_index_takes_beside_a_snapshot_makes_a_batch_wait_and_halts_no_flow() -> Result<()> {
    let (store, history, mut writer) = beside_a_held_snapshot().await?;
    let (saving, layered) = (writer.version - 1, writer.index.footprint().bytes);
    writer.settings.memory_bytes_max = layered - 1;
    let passing = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        store.hook.0.add_permits(1);
    };
    let changes = history.changes(&upserts(0..10, 3))?;
    let (staged, ()) = tokio::join!(writer.stage(changes), passing);
    drop(staged?);
    assert!(!writer.index.has_layers() && writer.index.footprint().bytes < layered);
    assert_eq!(writer.snapshots.saved(), Some(saving), "it was waited for");
    let lent = writer.lender.borrower().look(0, |_, version| version).await;
    assert_eq!(lent, Some(writer.version), "it is lent as before");
    Ok(())
}

#[test]
fn a_snapshot_that_is_given_up_holds_no_part_of_the_index() -> Result<()> {
    // One thread for all pieces that are encoded, so that a test can keep them waiting.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().max_blocking_threads(1).build();
    runtime.map_err(failed)?.block_on(async {
        let (store, _history, mut writer) = beside_a_held_snapshot().await?;
        let busy = tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(300)));
        store.hook.0.add_permits(1);
        writer.snapshots.wait(Duration::from_millis(50)).await;
        writer.merge_layers();
        assert_eq!((writer.index.has_layers(), writer.snapshots.saved()), (false, None));
        busy.await.map_err(failed)
    })
}

#[tokio::test]
async fn a_snapshot_of_another_sequence_by_is_not_taken() -> Result<()> {
    let settings = UpsertSettings { snapshot_interval: 1_000, ..UpsertSettings::default() };
    let mut history = History::begin(settings.clone()).await?;
    land_untold(&mut history, &[(1, Change::Delete { sequence: 9 })]).await?;
    history.landing.writer().close().await;
    let (state, sequence) = (history.landing.state(), Some(Sequence::Number(9)));
    for (sequence_by, saved, sequence) in [("rank", Some(state.version), sequence), ("-rank", None, None)] {
        let columns = UpsertColumns { sequence_by: sequence_by.to_owned(), ..columns() };
        let writer = UpsertWriter::open(folder(&history), columns, state, settings.clone()).await?;
        assert_eq!(writer.snapshots.saved(), saved, "{sequence_by}");
        assert_eq!(remembered(&writer, 1)?, Some((sequence, 0)), "{sequence_by}");
    }
    Ok(())
}

#[tokio::test]
async fn what_has_gathered_beside_one_snapshot_is_merged_before_the_next_begins() -> Result<()> {
    let mut history = History::begin(UpsertSettings::default()).await?;
    let settings = UpsertSettings { snapshot_interval: 1_000, ..UpsertSettings::default() };
    let mut writer = start(&history, settings).await?;
    land_and_follow(&mut history, &upserts(0..200, 1), &mut writer).await?;
    let shared = KeyIndex::clone(&writer.index);
    land_and_follow(&mut history, &upserts(0..200, 2), &mut writer).await?;
    drop(shared);
    assert!(writer.index.has_layers());
    writer.save_and_wait().await;
    assert_eq!((writer.index.has_layers(), writer.snapshots.saved()), (false, Some(writer.version)));
    Ok(())
}

#[tokio::test]
async fn a_snapshot_larger_than_the_memory_is_refused_before_it_is_read() -> Result<()> {
    let settings = UpsertSettings { snapshot_interval: 1_000, ..UpsertSettings::default() };
    let mut history = History::begin(settings.clone()).await?;
    history.land(&upserts(0..40, 1), &BTreeSet::new()).await?;
    history.landing.writer().close().await;
    let path = snapshots(history.store.as_ref()).await?.into_iter().next().ok_or_else(|| failed("no snapshot"))?;
    let bytes = history.store.get(&path).await.map_err(failed)?.bytes().await.map_err(failed)?;
    let bytes_max = bytes.len() as u64 - 1;
    let small = UpsertSettings { memory_bytes_max: bytes_max, ..settings.clone() };
    let start = |settings| open(&history.store, &history.location, settings, &history.clock);
    let refused = start(small).await.map(drop).map_err(|error| (error.kind(), error.to_string()));
    let wanted = [format!("{} bytes of {path}", bytes.len()), format!("index.memory allows {bytes_max}")];
    assert!(
        matches!(&refused, Err((ErrorKind::Invalid, text)) if wanted.iter().all(|part| text.contains(part))),
        "{refused:?}"
    );
    let beside_others = UpsertSettings { budget: Arc::new(IndexBudget::new(bytes_max)), ..settings.clone() };
    let refused = start(beside_others).await.map(drop).map_err(|error| error.to_string());
    assert!(
        matches!(&refused, Err(text) if text.contains("index.total_memory") && text.contains(&wanted[0])),
        "{refused:?}"
    );
    // Large ones that are of no use for this table are passed over: what they are of is read from their beginning.
    let of_another =
        [&bytes[..8], b"\x01\0\0\0", &[0; 8], br#"{"of":{"table":"t","version":1,"at_ms":1,"layout":"l"},"#];
    for useless in [of_another.concat(), b"ALVINDEX".to_vec(), bytes[..30].to_vec(), Vec::new()] {
        let padded = [useless.as_slice(), &vec![b' '; 1 << 20]].concat();
        history.store.put(&path, padded.into()).await.map_err(failed)?;
        let large = UpsertSettings { memory_bytes_max: 1 << 19, ..settings.clone() };
        start(large).await.map_err(|error| failed(format!("{useless:?}: {}", error.chain())))?;
    }
    Ok(())
}

#[tokio::test]
async fn sidecars_of_deletes_go_when_their_time_is_over() -> Result<()> {
    for (retention, n_left) in [(Duration::from_secs(3_600), 1), (Duration::ZERO, 0)] {
        let mut history = History::begin(UpsertSettings { retention, ..UpsertSettings::default() }).await?;
        history.land(&[(1, Change::Upsert { sequence: 1 })], &BTreeSet::new()).await?;
        history.land(&[(1, Change::Delete { sequence: 2 })], &BTreeSet::new()).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
        history.landing.writer().close().await;
        assert_eq!(files(history.store.as_ref(), "_alluvium/tombstones").await?.len(), n_left, "{retention:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_delete_binds_late_rows_until_its_retention_is_over_and_no_longer() -> Result<()> {
    let retention = Duration::from_secs(3_600);
    // A process that goes on, one that starts from a snapshot, and one that starts from sidecars alone.
    for starts in [None, Some(true), Some(false)] {
        let clock = Arc::new(ManualClock::new(1, Timestamp(1_800_000_000_000)));
        let settings = UpsertSettings { retention, snapshot_interval: 1_000, ..UpsertSettings::default() };
        let mut history = History::begin_at(Arc::clone(&clock) as Arc<dyn Clock>, settings).await?;
        assert!(takes(&mut history, 1).await?);
        land_untold(&mut history, &[(1, Change::Delete { sequence: 20 })]).await?;
        clock.advance(retention - Duration::from_secs(1));
        if let Some(is_orderly) = starts {
            history.restart(is_orderly).await?;
        }
        assert!(!takes(&mut history, 10).await?, "a late row within the retention, starts: {starts:?}");
        clock.advance(Duration::from_secs(62));
        match starts {
            Some(is_orderly) => history.restart(is_orderly).await?,
            // It looks once a minute, behind a batch.
            None => drop(land_untold(&mut history, &upserts([2], 1)).await?),
        }
        assert!(takes(&mut history, 10).await?, "a late row after the retention, starts: {starts:?}");
    }
    Ok(())
}

#[tokio::test]
async fn of_the_deletes_in_many_sidecars_the_last_of_a_key_binds_after_a_start() -> Result<()> {
    const ROUNDS: i64 = 40;
    let mut history = History::begin(UpsertSettings::default()).await?;
    for round in 0..ROUNDS {
        history.land(&[(1, Change::Upsert { sequence: 2 * round })], &BTreeSet::new()).await?;
        history.land(&[(1, Change::Delete { sequence: 2 * round + 1 })], &BTreeSet::new()).await?;
    }
    let n_files = files(history.store.as_ref(), "_alluvium/tombstones").await?.len();
    assert_eq!(n_files, usize::try_from(ROUNDS).unwrap_or_default(), "one for each delete");
    history.restart(false).await?;
    assert_eq!(history.landing.writer().footprint().map(|taken| taken.n_deletes), Some(1));
    land_one(&mut history, Change::Upsert { sequence: 2 * ROUNDS - 2 }, false).await?;
    land_one(&mut history, Change::Upsert { sequence: 2 * ROUNDS }, true).await
}

#[tokio::test]
async fn a_delete_whose_first_commit_never_landed_is_told_to_others_by_the_one_that_lands() -> Result<()> {
    for delete in [Change::Delete { sequence: 9 }, Change::Tombstone] {
        let mut history = History::begin(UpsertSettings::default()).await?;
        let mut other = start(&history, UpsertSettings::default()).await?;
        let changes = history.changes(&[(1, delete)])?;
        drop(history.landing.writer().stage(changes).await?);
        // The start finds the sidecar that was written for the commit that never came.
        history.restart(false).await?;
        assert_eq!(history.landing.writer().footprint().map(|taken| taken.n_deletes), Some(1), "{delete:?}");
        let (changes, signature) = (history.changes(&[(1, delete)])?, history.signature()?);
        let staged = history.landing.writer().stage(changes).await?;
        let Outcome::Landed(landed) = history.landing.land(&staged, &signature).await? else {
            return Err(failed("the batch did not land"));
        };
        assert_eq!((landed.fate.applied, landed.fate.merged), (1, 0), "{delete:?}");
        other.follow(std::slice::from_ref(&landed.entry)).await?;
        assert_eq!(known(&other), (0, 1), "keys and deletes of another process after {delete:?}");
    }
    Ok(())
}

/// Returns where deletes of a history are remembered.
fn sidecars(history: &History) -> TombstoneFolder {
    TombstoneFolder {
        store: Arc::clone(&history.store),
        location: history.location.clone(),
        clock: Arc::clone(&history.clock),
    }
}

#[tokio::test]
async fn deletes_of_another_sequence_by_are_remembered_by_their_positions() -> Result<()> {
    let mut history = History::begin(UpsertSettings::default()).await?;
    history.land(&[(1, Change::Delete { sequence: 9 })], &BTreeSet::new()).await?;
    // A file of a version that did not say of which SEQUENCE BY it is tells of key 2.
    let numbers = |value: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![value])) };
    let partitions: ArrayRef = Arc::new(Int32Array::from(vec![0]));
    let untold = [
        ("id", numbers(2)),
        ("_alluvium_sequence_0", numbers(9)),
        (HIDDEN_PARTITION, partitions),
        (HIDDEN_OFFSET, numbers(0)),
    ];
    sidecars(&history).write(&RecordBatch::try_from_iter(untold).map_err(failed)?).await?;
    let by = |names: &[&str], sequence: &[DataType]| UpsertColumns {
        sequence: sequence.to_vec(),
        sequence_by: names.join(", "),
        stored_sequence: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        ..columns()
    };
    let moment = DataType::Timestamp(TimeUnit::Microsecond, None);
    let cases = [
        (columns(), Some(9), Some(9)),
        (UpsertColumns { sequence_by: "-rank".to_owned(), ..columns() }, None, Some(9)),
        (by(&["rank"], &[DataType::Int32]), Some(9), Some(9)),
        (by(&["value"], &[DataType::Int64]), None, Some(9)),
        (by(&["value"], &[DataType::Int32]), None, Some(9)),
        (by(&["rank"], std::slice::from_ref(&moment)), None, None),
        (by(&["value"], &[moment]), None, None),
        (by(&["id", "value"], &[DataType::Int64, DataType::Int64]), None, None),
    ];
    for (columns, told, untold) in cases {
        let case = format!("{} {:?}", columns.sequence_by, columns.sequence);
        let state = history.landing.state();
        let writer = UpsertWriter::open(folder(&history), columns, state, UpsertSettings::default()).await?;
        for (key, sequence) in [(1, told), (2, untold)] {
            assert_eq!(remembered(&writer, key)?, Some((sequence.map(Sequence::Number), 0)), "{key}: {case}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn deletes_of_keys_that_the_table_does_not_have_stop_no_start_and_what_cannot_be_read_is_named() -> Result<()> {
    let history = History::begin(UpsertSettings::default()).await?;
    let offsets: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let partitions: ArrayRef = Arc::new(Int32Array::from(vec![0]));
    let of_keys = |keys: Vec<(&str, ArrayRef)>| {
        let (partitions, offsets) = (Arc::clone(&partitions), Arc::clone(&offsets));
        let columns = keys.into_iter().chain([(HIDDEN_PARTITION, partitions), (HIDDEN_OFFSET, offsets)]);
        RecordBatch::try_from_iter(columns).map_err(failed)
    };
    let of_table = |rows: RecordBatch, table: &str| {
        let metadata = HashMap::from([(TombstoneFolder::TABLE.to_owned(), table.to_owned())]);
        let schema = rows.schema_ref().as_ref().clone().with_metadata(metadata);
        rows.with_schema(Arc::new(schema)).map_err(failed)
    };
    let number = |value: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![value])) };
    let flag: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
    let narrow: ArrayRef = Arc::new(Int32Array::from(vec![5]));
    let region: ArrayRef = Arc::new(StringArray::from(vec!["north"]));
    let beyond: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX]));
    let id = &history.landing.state().metadata.id;
    let sidecars = sidecars(&history);
    for rows in [
        of_keys(vec![("id", flag)])?,
        of_keys(vec![("order_id", number(1))])?,
        of_keys(vec![("id", narrow)])?,
        of_keys(vec![("id", number(6)), ("region", region)])?,
        of_table(of_keys(vec![("id", number(7))])?, "another")?,
        of_table(of_keys(vec![("id", Arc::clone(&beyond))])?, "another")?,
        of_table(of_keys(vec![("id", number(8))])?, id)?,
    ] {
        sidecars.write(&rows).await?;
    }
    let writer = start(&history, UpsertSettings::default()).await?;
    assert_eq!(known(&writer), (0, 2), "only the deletes of keys of this table");
    for key in [5, 8] {
        assert_eq!(remembered(&writer, key)?, Some((None, 7)), "{key}");
    }
    let damaged = sidecars.write(&of_keys(vec![("id", beyond)])?).await?;
    let refused = start(&history, UpsertSettings::default()).await.map(drop);
    let refused = refused.map_err(|error| (error.kind(), error.to_string()));
    assert!(matches!(&refused, Err((ErrorKind::Data, text)) if text.contains(&damaged)), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn keys_and_sequences_are_read_from_columns_with_dots_in_their_names() -> Result<()> {
    let history = History::begin(UpsertSettings::default()).await?;
    let fields = vec![Field::new("a.b", DataType::Int64, false), Field::new("c.d", DataType::Int64, true)];
    let columns = UpsertColumns {
        declared: Arc::new(Schema::new(fields)),
        keys: vec!["a.b".to_owned()],
        sequence: vec![DataType::Int64],
        sequence_by: "c.d".to_owned(),
        stored_sequence: Some(vec!["c.d".to_owned()]),
    };
    let numbers = |values: [i64; 3]| -> ArrayRef { Arc::new(Int64Array::from(values.to_vec())) };
    let partitions: ArrayRef = Arc::new(Int32Array::from(vec![0; 3]));
    let stored = vec![numbers([1, 2, 3]), numbers([7, 8, 9]), partitions, numbers([0, 1, 2])];
    history.commit_file(&RecordBatch::try_new(columns.stored(), stored).map_err(failed)?).await?;
    let state = history.newest().await?;
    let writer = UpsertWriter::open(folder(&history), columns, &state, UpsertSettings::default()).await?;
    assert_eq!(
        (known(&writer).0, writer.index.doubles().count()),
        (3, 0),
        "keys, and rows that the next commit deletes"
    );
    let (_, file) = writer.index.files().next().ok_or_else(|| failed("no file"))?;
    let orders = writer.reader.read_orders(file, &[2]).await?;
    let sequence = Some(SequenceRef::Number(9));
    assert_eq!(orders.get(0), OrderRef { sequence, inherited: false, offset: 2, partition: 0 });
    Ok(())
}

#[tokio::test]
async fn deletes_that_a_start_remembers_count_as_memory_of_the_index() -> Result<()> {
    let mut history = History::begin(UpsertSettings::default()).await?;
    for batch in 0..20 {
        let keys = batch * 100..(batch + 1) * 100;
        let deletes: Vec<_> = keys.map(|key| (key, Change::Delete { sequence: 1 })).collect();
        history.land(&deletes, &BTreeSet::new()).await?;
    }
    history.restart(false).await?;
    let taken = history.landing.writer().footprint().ok_or_else(|| failed("no index"))?;
    assert_eq!((taken.n_keys, taken.n_deletes), (0, 2_000));
    let start = |memory_bytes_max| {
        let settings = UpsertSettings { memory_bytes_max, ..UpsertSettings::default() };
        open(&history.store, &history.location, settings, &history.clock)
    };
    start(taken.bytes).await?;
    let refused = start(taken.bytes / 2).await.map(drop).map_err(|error| (error.kind(), error.to_string()));
    let wanted = ["0 keys and ", " remembered deletes, and index.memory allows "];
    assert!(
        matches!(&refused, Err((ErrorKind::Invalid, text)) if wanted.iter().all(|part| text.contains(part))),
        "{refused:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_start_refuses_a_vector_with_a_flipped_bit_and_names_its_file() -> Result<()> {
    let mut history = History::begin(UpsertSettings::default()).await?;
    history.land(&upserts(0..200, 1), &BTreeSet::new()).await?;
    // So many scattered rows that their vector does not stand in the log.
    history.land(&upserts((0..200).step_by(2), 2), &BTreeSet::new()).await?;
    let all = files(history.store.as_ref(), "").await?;
    let path = all.iter().find(|path| path.extension() == Some("bin")).ok_or_else(|| failed("no vector"))?;
    let whole = history.store.get(path).await.map_err(failed)?.bytes().await.map_err(failed)?;
    let mut flipped = whole.to_vec();
    flipped[whole.len() / 2] ^= 1;
    history.store.put(path, flipped.into()).await.map_err(failed)?;
    let refused = history.restart(false).await.map_err(|error| (error.kind(), error.to_string()));
    assert!(matches!(&refused, Err((ErrorKind::Data, text)) if text.contains(path.as_ref())), "{refused:?}");
    history.store.put(path, whole.into()).await.map_err(failed)?;
    history.restart(false).await?;
    history.land(&upserts(0..200, 3), &BTreeSet::new()).await
}

fn upserts(keys: impl IntoIterator<Item = i64>, sequence: i64) -> Vec<(i64, Change)> {
    keys.into_iter().map(|key| (key, Change::Upsert { sequence })).collect()
}

/// Returns the data files beside the table, those that no version names included.
async fn data_files(history: &History) -> Result<usize> {
    let files = files(history.store.as_ref(), "").await?;
    Ok(files.iter().filter(|path| path.extension() == Some("parquet") && !path.as_ref().contains('/')).count())
}

/// Returns the files of vectors beside the table, those that no version names included.
async fn vector_files(history: &History) -> Result<usize> {
    let files = files(history.store.as_ref(), "").await?;
    Ok(files.iter().filter(|path| path.extension() == Some("bin")).count())
}

#[tokio::test]
async fn vectors_are_written_with_the_rows_and_anew_only_where_a_conflict_changes_them() -> Result<()> {
    let mut history = History::begin(UpsertSettings::default()).await?;
    for keys in [0..400, 400..800] {
        history.land(&upserts(keys, 1), &BTreeSet::new()).await?;
    }
    let first: BTreeSet<String> = history.newest().await?.files.into_keys().collect();
    let every = |n, from: i64| (from..800).step_by(n);
    // What another writer adds between: nothing, a newer row of a key of one of both files, a row of a new key. Of the two
    // vectors that were written ahead so many are the commit's.
    let batches = [
        (upserts(every(2, 0), 2), &[][..], 2, [200, 200]),
        (upserts(every(4, 1), 3), &[(3, 100)][..], 1, [300, 301]),
        (upserts(every(8, 7), 4), &[(1_000, 100)][..], 2, [350, 351]),
    ];
    let mut n_files = 0;
    for (records, foreign, n_taken, n_gone) in batches {
        let (changes, signature) = (history.changes(&records)?, history.signature()?);
        history.next += records.len() as i64;
        let staged = history.landing.writer().stage(changes).await?;
        n_files += 1;
        assert_eq!(vector_files(&history).await?, n_files, "the vectors were not written beside the rows");
        if !foreign.is_empty() {
            history.append_with_order(foreign).await?;
        }
        assert!(matches!(history.landing.land(&staged, &signature).await?, Outcome::Landed(_)));
        n_files += usize::from(n_taken < 2);
        assert_eq!(vector_files(&history).await?, n_files, "after {foreign:?}");
        let files = history.newest().await?.files.into_values();
        let vectors: Vec<_> =
            files.filter(|add| first.contains(&add.path)).filter_map(|add| add.deletion_vector).collect();
        let mut counts: Vec<i64> = vectors.iter().map(|vector| vector.cardinality).collect();
        counts.sort_unstable();
        assert_eq!(counts, n_gone, "after {foreign:?}");
        let ahead = staged.changes.columns.iter().flat_map(|columns| &columns.marks);
        assert_eq!(ahead.filter(|mark| vectors.contains(&mark.vector)).count(), n_taken, "after {foreign:?}");
    }
    Ok(())
}

#[tokio::test]
async fn files_that_are_rewritten_get_no_vectors_ahead() -> Result<()> {
    let mut history = History::begin(copy_on_write()).await?;
    history.land(&upserts(0..400, 1), &BTreeSet::new()).await?;
    history.land(&upserts((0..400).step_by(2), 2), &BTreeSet::new()).await?;
    assert_eq!(vector_files(&history).await?, 0);
    Ok(())
}

#[tokio::test]
async fn rows_newer_than_all_of_a_file_replace_its_rows_without_reading_it() -> Result<()> {
    let mut history = History::begin(UpsertSettings::default()).await?;
    let both = [upserts(0..25, 10), upserts(25..50, 20)].concat();
    history.land(&both, &BTreeSet::new()).await?;
    // Out of a snapshot, so that no orders are remembered; and what is not there cannot be read.
    history.restart(true).await?;
    for path in files(history.store.as_ref(), "").await? {
        if path.extension() == Some("parquet") && !path.as_ref().contains('/') {
            history.store.delete(&path).await.map_err(failed)?;
        }
    }
    let newer = upserts(0..40, 21);
    let (changes, signature) = (history.changes(&newer)?, history.signature()?);
    let staged = history.landing.writer().stage(changes).await?;
    assert!(matches!(history.landing.land(&staged, &signature).await?, Outcome::Landed(_)));
    assert_eq!(history.landing.writer().n_rows(), Some(50));

    // One that is older than some rows of the file and newer than others cannot be told without.
    history.next += 40;
    let between = history.changes(&upserts([45], 15))?;
    assert!(history.landing.writer().stage(between).await.is_err(), "a file that is gone was read");
    Ok(())
}

#[tokio::test]
async fn a_start_reads_the_rows_of_a_file_in_small_pieces() -> Result<()> {
    let mut history = History::begin(UpsertSettings::default()).await?;
    history.land(&upserts(0..40_000, 1), &BTreeSet::new()).await?;
    let state = history.newest().await?;
    let writer = start_at(&history, &state, UpsertSettings::default()).await?;
    for add in state.files.values() {
        let rows = Arc::clone(&writer.reader).read(add).await?;
        let pieces: Vec<usize> = rows.pieces.map_ok(|piece| piece.keys.len()).try_collect().await?;
        assert_eq!((rows.file.n_rows, pieces), (40_000, vec![16_384, 16_384, 7_232]));
    }
    Ok(())
}

/// Returns the rows of the table as the log and the files that the writer has read tell, and as its index does.
fn told_and_known(landing: &mut Landing) -> (Option<u64>, Option<u64>) {
    let state = landing.state().clone();
    let writer = landing.writer();
    (state.n_rows_with(|path| writer.n_records(path)), writer.n_rows())
}

#[tokio::test]
async fn rows_of_a_file_without_statistics_are_counted_and_told_by_the_log_once_some_are_deleted() -> Result<()> {
    let mut history = History::begin(UpsertSettings::default()).await?;
    history.land(&upserts(0..3, 1), &BTreeSet::new()).await?;
    let ids: ArrayRef = Arc::new((100..104_i64).map(Some).collect::<Int64Array>());
    let values = Arc::clone(&ids);
    let rows = RecordBatch::try_new(declared(), vec![ids, values]).map_err(failed)?;
    let (bytes, _) = crate::write::parquet::encode(&rows)?;
    let size = bytes.len() as i64;
    history.store.put(&Path::from("untold.parquet"), bytes.into()).await.map_err(failed)?;
    let path = "untold.parquet".to_owned();
    history.commit(&[Action::Add(Add { path, size, data_change: true, ..Add::default() })]).await?;
    history.landing.catch_up().await?;
    assert_eq!(history.landing.state().n_rows(), None, "the log tells what this test wants untold");
    assert_eq!(told_and_known(&mut history.landing), (Some(7), Some(7)));

    // A start out of a snapshot and the log is held against the same number.
    history.restart(true).await?;
    assert_eq!(told_and_known(&mut history.landing), (Some(7), Some(7)));

    let changes = history.changes(&[(100, Change::Upsert { sequence: 2 }), (101, Change::Delete { sequence: 2 })])?;
    let signature = history.signature()?;
    let staged = history.landing.writer().stage(changes).await?;
    assert!(matches!(history.landing.land(&staged, &signature).await?, Outcome::Landed(_)));
    let state = history.newest().await?;
    let stats = state.files.get("untold.parquet").and_then(|add| add.stats.as_deref());
    assert_eq!(stats, Some(r#"{"numRecords":4,"tightBounds":false}"#), "a file with a vector has its number of rows");
    assert_eq!((state.n_rows(), history.landing.writer().n_rows()), (Some(6), Some(6)));
    Ok(())
}

#[tokio::test]
async fn a_conflict_that_changes_nothing_of_a_rewritten_file_does_not_write_it_again() -> Result<()> {
    let mut history = History::begin(copy_on_write()).await?;
    history.land(&upserts(0..8, 1), &BTreeSet::new()).await?;
    history.land(&upserts([1, 3], 2), &BTreeSet::from([40])).await?;
    // Ours of before, that of the other writer, the batch's own, and the first one without two rows.
    assert_eq!(data_files(&history).await?, 4);
    let paths: BTreeSet<String> = history.newest().await?.files.into_keys().collect();
    assert_eq!(paths.len(), 3);
    // The other writer's row of key 5 is one more that is gone, of one more file.
    history.land(&upserts([5, 6], 3), &BTreeSet::from([5, 41])).await
}

#[tokio::test]
async fn a_staged_file_that_another_writer_makes_late_is_told_as_discarded() -> Result<()> {
    for settings in [copy_on_write(), UpsertSettings::default()] {
        let mut history = History::begin(settings).await?;
        history.land(&upserts([1, 2], 1), &BTreeSet::new()).await?;
        let records = upserts([3, 4], 5);
        let (changes, signature) = (history.changes(&records)?, history.signature()?);
        let staged = history.landing.writer().stage(changes).await?;
        history.append_with_order(&[(3, 100), (4, 100)]).await?;
        history.next += records.len() as i64;
        let Outcome::Landed(landed) = history.landing.land(&staged, &signature).await? else {
            return Err(Error::internal("the batch did not land"));
        };
        assert_eq!((landed.fate.applied, landed.fate.merged), (0, 2));
        let effort = landed.lineage.effort;
        assert!(staged.bytes() > 0);
        assert_eq!((effort.batch_bytes, effort.discarded_bytes, effort.amplification()), (0, staged.bytes(), None));
        assert_eq!(effort.bytes_written, staged.bytes(), "nothing else is written");
    }
    Ok(())
}

#[tokio::test]
async fn a_row_that_turns_out_late_leaves_its_staged_file() -> Result<()> {
    for settings in [copy_on_write(), UpsertSettings::default()] {
        let mut history = History::begin(settings).await?;
        history.land(&upserts([1, 2], 1), &BTreeSet::new()).await?;
        let records = upserts([1, 3, 4], 5);
        let (changes, signature) = (history.changes(&records)?, history.signature()?);
        let staged = history.landing.writer().stage(changes).await?;
        history.append_with_order(&[(3, 100)]).await?;
        for (offset, (key, change)) in (history.next..).zip(&records) {
            history.note(*key, *change, offset);
        }
        history.next += records.len() as i64;
        let order = Order { sequence: Some(Sequence::Number(100)), inherited: false, offset: 1_000, partition: 0 };
        history.model.insert(3, Standing { order, value: Some(-4) });
        let Outcome::Landed(landed) = history.landing.land(&staged, &signature).await? else {
            return Err(Error::internal("the batch did not land"));
        };
        assert_eq!((landed.fate.applied, landed.fate.merged), (2, 1));
        let effort = landed.lineage.effort;
        assert_eq!((effort.batch_bytes, effort.discarded_bytes), (staged.bytes(), 0), "rows of its file stand");
        assert!(effort.amplification().is_some_and(|times| times > 1.0));
        history.check().await?;
        history.land(&upserts([3, 4], 6), &BTreeSet::new()).await?;
        history.restart(false).await?;
        history.land(&upserts([3, 4, 1], 101), &BTreeSet::new()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn files_that_a_batch_touches_become_one_and_those_without_a_row_go() -> Result<()> {
    let mut history = History::begin(copy_on_write()).await?;
    for batch in 0..6 {
        history.land(&upserts(batch * 3..batch * 3 + 3, 1), &BTreeSet::new()).await?;
    }
    assert_eq!(history.newest().await?.files.len(), 6);
    // Rows of five files, all three of one of them.
    let staged = history.changes(&upserts([0, 3, 6, 9, 12, 13, 14], 2))?;
    let signature = history.signature()?;
    let staged = history.landing.writer().stage(staged).await?;
    let Outcome::Landed(landed) = history.landing.land(&staged, &signature).await? else {
        return Err(Error::internal("the batch did not land"));
    };
    let state = history.newest().await?;
    assert_eq!(state.files.len(), 3, "the untouched one, the one of four, and the batch's own");
    let effort = landed.lineage.effort;
    let added = landed.entry.actions.iter().filter_map(|action| match action {
        Action::Add(add) => u64::try_from(add.size).ok(),
        _ => None,
    });
    assert_eq!((effort.files_touched, effort.bytes_written), (5, added.sum()));
    assert!(effort.bytes_written > effort.batch_bytes);
    assert_eq!(effort.batch_bytes, staged.bytes());
    assert_eq!(landed.lineage.rows_updated, 7);
    assert!(landed.entry.actions.iter().all(|action| match action {
        Action::Add(add) => add.data_change,
        Action::Remove(remove) => remove.data_change,
        _ => true,
    }));
    Ok(())
}

fn capped(mode: UpsertMode, bytes_max: u64, policy: RewritePolicy) -> UpsertSettings {
    let options = UpsertOptions { mode, cap: Some(RewriteCap { bytes_max, policy }) };
    UpsertSettings { options, ..UpsertSettings::default() }
}

#[tokio::test]
async fn a_batch_above_the_cap_writes_nothing_and_halts_or_is_to_be_split() -> Result<()> {
    for mode in [UpsertMode::CopyOnWrite, UpsertMode::MergeOnRead] {
        for policy in [RewritePolicy::Halt, RewritePolicy::Split] {
            let mut history = History::begin(capped(mode, 10, policy)).await?;
            history.land(&upserts(0..8, 1), &BTreeSet::new()).await?;
            let before = files(history.store.as_ref(), "").await?.len();
            let (changes, signature) = (history.changes(&upserts([1, 2], 2))?, history.signature()?);
            let ended = async {
                let staged = history.landing.writer().stage(changes).await?;
                history.landing.land(&staged, &signature).await
            };
            match (ended.await, policy) {
                (Err(error), RewritePolicy::Halt) => {
                    assert_eq!(error.kind(), ErrorKind::Invalid);
                    for part in ["2 records", "1 files", "memory:///t", "'alluvium.upsert.rewrite.max' allows 10"] {
                        assert!(error.message().contains(part), "{}", error.message());
                    }
                    assert!(error.hint().is_some_and(|hint| hint.contains("commit.rows")));
                }
                (Ok(Outcome::Exceeds(excess)), RewritePolicy::Split) => {
                    assert_eq!((excess.bytes_max, excess.records), (10, 2));
                    assert!(excess.bytes > 10);
                }
                (other, _) => return Err(Error::internal(format!("{mode:?} {policy:?}: {other:?}"))),
            }
            assert_eq!(files(history.store.as_ref(), "").await?.len(), before, "{mode:?} {policy:?}");
            // All rows of the file: it goes whole, and nothing is written anew.
            history.land(&upserts(0..8, 3), &BTreeSet::new()).await?;
            if policy == RewritePolicy::Split {
                history.land(&upserts([5], 4), &BTreeSet::new()).await?;
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_conflict_that_makes_a_batch_too_large_is_told_before_the_commit() -> Result<()> {
    let mut history = History::begin(copy_on_write()).await?;
    history.land(&upserts(0..4, 1), &BTreeSet::new()).await?;
    let size = history.newest().await?.files.values().map(|add| add.size as u64).sum();
    history.settings = capped(UpsertMode::CopyOnWrite, size, RewritePolicy::Split);
    history.restart(false).await?;
    let (changes, signature) = (history.changes(&upserts([1, 20], 2))?, history.signature()?);
    let staged = history.landing.writer().stage(changes).await?;
    assert_eq!(staged.excess, None);
    history.append(&BTreeSet::from([20, 21])).await?;
    let outcome = history.landing.land(&staged, &signature).await?;
    assert!(matches!(outcome, Outcome::Exceeds(excess) if excess.bytes > size), "{outcome:?}");
    assert_eq!(history.newest().await?.version, history.landing.state().version);
    Ok(())
}

/// Returns the only live file.
async fn only_file(history: &History) -> Result<Add> {
    let [add] =
        history.newest().await?.files.into_values().collect::<Vec<_>>().try_into().map_err(|_| failed("files"))?;
    Ok(add)
}

/// Writes a deletion vector as another writer would: into the log if it takes at most so many bytes.
async fn vector(
    history: &History,
    deleted: RoaringTreemap,
    inline_bytes_max: usize,
) -> Result<DeletionVectorDescriptor> {
    let vectors = VectorFolder {
        store: Arc::clone(&history.store),
        location: history.location.clone(),
        clock: Arc::clone(&history.clock),
        inline_bytes_max,
    };
    vectors.write(&[deleted]).await?.pop().ok_or_else(|| failed("no vector"))
}

#[tokio::test]
async fn a_vector_that_does_not_fit_its_file_is_bad_data() -> Result<()> {
    for (last, fits) in [(1_000, false), (3, false), (2, true)] {
        let mut history = History::begin(UpsertSettings::default()).await?;
        history.land(&upserts(0..3, 1), &BTreeSet::new()).await?;
        let add = only_file(&history).await?;
        let deletion_vector = vector(&history, RoaringTreemap::from_iter([0, last]), 1_000).await?;
        let marked = Add { deletion_vector: Some(deletion_vector), ..add.clone() };
        history.commit(&[Action::Remove(removal(&add, 0)), Action::Add(marked)]).await?;
        // Whoever follows the log, and whoever starts.
        let followed = history.landing.catch_up().await;
        let started = history.restart(false).await;
        if fits {
            followed.and(started)?;
            assert_eq!(history.landing.writer().n_rows(), Some(1));
            continue;
        }
        let wanted = format!("{} of the table at memory:///t deletes row {last} of a file of 3 rows", add.path);
        for refused in [followed, started] {
            let refused = refused.map_err(|error| (error.kind(), error.to_string()));
            assert!(
                matches!(&refused, Err((ErrorKind::Data, text)) if text.contains(&wanted)),
                "{refused:?} is not {wanted}"
            );
        }
    }
    Ok(())
}

/// Counts reads.
#[derive(Debug, Default)]
struct CountsReads {
    n_reads: AtomicUsize,
}

#[async_trait]
impl Hook for CountsReads {
    async fn before_read(&self) {
        self.n_reads.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn rows_that_another_writer_adds_under_known_keys_cost_a_few_reads_however_many_they_are() -> Result<()> {
    let settings = UpsertSettings { order_cache_bytes: 0, ..UpsertSettings::default() };
    let mut reads = Vec::new();
    for n_keys in [4, 400] {
        let store = Arc::<HookedStore<CountsReads>>::default();
        let mut history = History::begin_in(Arc::clone(&store) as _, Arc::new(SystemClock), settings.clone()).await?;
        history.land(&upserts(0..400, 60), &BTreeSet::new()).await?;
        // Of the rows of a key, the first one of the other writer stands, its second one, ours, or its only one.
        let added: [&[i64]; 4] = [&[100, 50], &[50, 100], &[50, 40], &[70]];
        let mut rows = Vec::new();
        for (key, sequences) in (0..n_keys).zip(added.iter().cycle()) {
            rows.extend(sequences.iter().map(|sequence| (key, *sequence)));
            if let Some(highest) = sequences.iter().copied().max().filter(|highest| *highest > 60) {
                let sequence = Some(Sequence::Number(highest));
                let order = Order { sequence, inherited: false, offset: 1_000, partition: 0 };
                history.model.insert(key, Standing { order, value: Some(-1 - key) });
            }
        }
        history.append_with_order(&rows).await?;
        let n_before = store.hook.n_reads.load(Ordering::SeqCst);
        history.landing.catch_up().await?;
        reads.push(store.hook.n_reads.load(Ordering::SeqCst) - n_before);
        let n_rows = 400 + rows.len();
        assert_eq!(history.landing.writer().n_rows(), Some(n_rows as u64));
        // Whoever starts meets the files in any order, and one row of each key stands all the same.
        let started = start(&history, settings.clone()).await?;
        assert_eq!((known(&started).0, started.index.doubles().count()), (400, rows.len()));
        history.land(&upserts(0..n_keys, 75), &BTreeSet::new()).await?;
    }
    assert_eq!(reads[0], reads[1], "reads of a few keys, and of many");
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_gone_when_it_is_followed_asks_for_a_new_start_and_at_a_start_is_bad_data() -> Result<()> {
    let settings = UpsertSettings { order_cache_bytes: 0, ..UpsertSettings::default() };
    let mut history = History::begin(settings.clone()).await?;
    history.land(&upserts(0..3, 1), &BTreeSet::new()).await?;
    let ours = only_file(&history).await?;
    let gone = Add { path: "gone.parquet".to_owned(), size: 1_000, ..Add::default() };
    let without_file = vector(&history, RoaringTreemap::from_iter([1]), 0).await?;
    let path = vector_file(&without_file, &history.location)?.ok_or_else(|| failed("it stands in the log"))?;
    history.store.delete(&path).await.map_err(failed)?;
    let marked = Add { deletion_vector: Some(without_file), ..ours.clone() };
    let check = |followed: Result<()>, started: Result<()>| {
        let followed = followed.map_err(|error| (error.kind(), error.to_string()));
        assert!(
            matches!(&followed, Err((ErrorKind::Conflict, text)) if text.contains("has to be opened again")),
            "{followed:?}"
        );
        let started = started.map_err(|error| (error.kind(), error.to_string()));
        assert!(matches!(&started, Err((ErrorKind::Data, _))), "{started:?}");
    };
    for add in [gone, marked] {
        let mut state = history.landing.state().clone();
        let (version, actions) = (state.version + 1, vec![Action::Add(add)]);
        state.apply(version, &actions);
        let mut writer = start(&history, settings.clone()).await?;
        let followed = writer.follow(&[LogEntry { version, actions, info: serde_json::Value::Null }]).await;
        check(followed, start_at(&history, &state, settings.clone()).await.map(drop));
    }
    // The row of a key that another writer adds again is compared with ours, whose file is gone.
    history.append_with_order(&[(1, 5)]).await?;
    history.store.delete(&Path::from(ours.path.as_str())).await.map_err(failed)?;
    let followed = history.landing.catch_up().await;
    check(followed, history.restart(false).await);
    Ok(())
}

#[tokio::test]
async fn an_older_row_stands_again_when_a_vector_moves_to_the_newer_one_of_its_key() -> Result<()> {
    let mut history = History::begin(UpsertSettings::default()).await?;
    let landed = [(1, Change::Upsert { sequence: 1 }), (2, Change::Upsert { sequence: 9 })];
    history.land(&landed, &BTreeSet::new()).await?;
    let mut ours = only_file(&history).await?;
    history.append_with_order(&[(2, 3)]).await?;
    // Another writer deletes the row of key 1, then brings it back and deletes the newer row of key 2 in one commit.
    for row in [0, 1] {
        let deletion_vector = Some(vector(&history, RoaringTreemap::from_iter([row]), 1_000).await?);
        let marked = Add { deletion_vector, ..ours.clone() };
        history.commit(&[Action::Remove(removal(&ours, 0)), Action::Add(marked.clone())]).await?;
        history.landing.catch_up().await?;
        ours = marked;
    }
    let order = Order { sequence: Some(Sequence::Number(3)), inherited: false, offset: 1_000, partition: 0 };
    history.model.insert(2, Standing { order, value: Some(-3) });
    // Whatever lands next takes out the rows whose key has a newer one, and that is none.
    history.land(&upserts(5..6, 1), &BTreeSet::new()).await
}

#[tokio::test]
async fn a_start_from_the_snapshot_of_an_idle_process_knows_what_others_have_deleted_meanwhile() -> Result<()> {
    let clock = Arc::new(ManualClock::new(1, Timestamp(1_800_000_000_000)));
    // Snapshots at the orderly end only.
    let settings = UpsertSettings { snapshot_interval: 1_000, ..UpsertSettings::default() };
    let mut history = History::begin_at(Arc::clone(&clock) as Arc<dyn Clock>, settings.clone()).await?;
    land_one(&mut history, Change::Upsert { sequence: 10 }, true).await?;
    let mut idle = start(&history, settings.clone()).await?;
    let version = history.landing.state().version;
    land_one(&mut history, Change::Delete { sequence: 20 }, true).await?;
    clock.advance(Duration::from_secs(3 * 3_600));
    idle.close().await;
    let started = start(&history, settings).await?;
    assert_eq!(started.snapshots.saved(), Some(version), "it began with the snapshot of the idle one");
    assert_eq!(known(&started), (0, 1), "keys, and deletes that are remembered");
    Ok(())
}

/// Counts data files that are written, and lets nobody read a thing before there are as many as it is told.
#[derive(Debug, Default)]
struct WritesFirst {
    n_written: watch::Sender<usize>,
    n_awaited: AtomicUsize,
    refuses: AtomicBool,
    removes_none: AtomicBool,
}

#[async_trait]
impl Hook for WritesFirst {
    async fn before_write(&self, location: &Path) -> object_store::Result<()> {
        if location.as_ref().starts_with("part-") {
            self.n_written.send_modify(|n_written| *n_written += 1);
            if self.refuses.load(Ordering::SeqCst) {
                return Err(object_store::Error::Generic { store: "refusing", source: "no answer".into() });
            }
        }
        Ok(())
    }

    async fn before_read(&self) {
        let n_awaited = self.n_awaited.load(Ordering::SeqCst);
        // The sender is this very hook's, so the wait ends with the count.
        self.n_written.subscribe().wait_for(|n_written| *n_written >= n_awaited).await.ok();
    }

    fn before_delete(&self) -> BoxFuture<'static, object_store::Result<()>> {
        let refusal = object_store::Error::Generic { store: "keeping", source: "read only".into() };
        let answer = if self.removes_none.load(Ordering::SeqCst) { Err(refusal) } else { Ok(()) };
        futures::future::ready(answer).boxed()
    }
}

/// Lands records whose orders are read from files, and returns how many data files that wrote. Where the rows are to be
/// written ahead, nothing is read before they are. All that was written stays, and is counted, but for what held late rows,
/// which is counted only.
async fn written_for(
    store: &HookedStore<WritesFirst>,
    history: &mut History,
    records: &[(i64, Change)],
    is_ahead: bool,
) -> Result<usize> {
    let (changes, signature) = (history.changes(records)?, history.signature()?);
    let (n_before, n_files_before) = (*store.hook.n_written.borrow(), data_files(history).await?);
    store.hook.n_awaited.store(n_before + usize::from(is_ahead), Ordering::SeqCst);
    let staging = tokio::time::timeout(Duration::from_secs(20), history.landing.writer().stage(changes));
    let staged = staging.await.map_err(|_| Error::internal("the look-up waits for rows, and they for it"))??;
    for (offset, (key, change)) in (history.next..).zip(records) {
        history.note(*key, *change, offset);
    }
    history.next += records.len() as i64;
    let Outcome::Landed(landed) = history.landing.land(&staged, &signature).await? else {
        return Err(Error::internal("the batch did not land"));
    };
    history.check().await?;
    let (n_written, effort) = (*store.hook.n_written.borrow() - n_before, landed.lineage.effort);
    let is_discarded = is_ahead && landed.fate.merged > 0;
    let is_removed = is_discarded && !store.hook.removes_none.load(Ordering::SeqCst);
    assert_eq!(data_files(history).await? - n_files_before, n_written - usize::from(is_removed), "{records:?}");
    assert_eq!(effort.discarded_bytes > 0, is_discarded, "{records:?}");
    if landed.fate.merged > 0 {
        // Nothing else is written for a batch that supersedes no row.
        assert_eq!(effort.bytes_written, effort.batch_bytes + effort.discarded_bytes, "{records:?}");
    }
    Ok(n_written)
}

#[tokio::test]
async fn rows_are_written_while_keys_are_looked_up_and_once_more_where_some_are_late() -> Result<()> {
    let upsert = |key, sequence| (key, Change::Upsert { sequence });
    for mode in [UpsertMode::MergeOnRead, UpsertMode::CopyOnWrite] {
        let options = UpsertOptions { mode, cap: None };
        let settings = UpsertSettings { options, order_cache_bytes: 0, ..UpsertSettings::default() };
        let store = Arc::<HookedStore<WritesFirst>>::default();
        let mut history = History::begin_in(Arc::clone(&store) as _, Arc::new(SystemClock), settings).await?;
        // Between the orders of key 1 and key 9, a change's own order decides, and is read.
        history.land(&[upsert(1, 10), upsert(2, 50), upsert(3, 60), upsert(9, 90)], &BTreeSet::new()).await?;
        let is_rewritten = usize::from(mode == UpsertMode::CopyOnWrite);
        let newer = [upsert(2, 51), upsert(20, 10), upsert(21, 90)];
        assert_eq!(written_for(&store, &mut history, &newer, true).await?, 1 + is_rewritten);
        // Deletes store no row, and the rows beside them are written ahead all the same.
        let deletes = [(3, Change::Delete { sequence: 70 }), upsert(22, 10), upsert(23, 90)];
        assert_eq!(written_for(&store, &mut history, &deletes, true).await?, 1 + is_rewritten);
        let late = [upsert(2, 40), upsert(24, 10), upsert(25, 90)];
        assert_eq!(written_for(&store, &mut history, &late, true).await?, 2, "with the late row, and without it");
        assert_eq!(
            written_for(&store, &mut history, &late, false).await?,
            1,
            "looked up first: late rows come together"
        );
        let newer = [upsert(2, 52), upsert(26, 10), upsert(27, 90)];
        assert_eq!(written_for(&store, &mut history, &newer, false).await?, 1 + is_rewritten);
        let newer = [upsert(2, 53), upsert(28, 10), upsert(29, 90)];
        assert_eq!(written_for(&store, &mut history, &newer, true).await?, 1 + is_rewritten);
        // A batch of which some rows are late fails as any other where the store takes no file, and lands when it comes again.
        let late = [upsert(2, 40), upsert(30, 10)];
        store.hook.refuses.store(true, Ordering::SeqCst);
        let changes = history.changes(&late)?;
        let refused = history.landing.writer().stage(changes).await.err();
        assert_eq!(refused.map(|error| error.kind()), Some(ErrorKind::Unavailable));
        store.hook.refuses.store(false, Ordering::SeqCst);
        assert_eq!(written_for(&store, &mut history, &late, false).await?, 1);
        // And where it takes files and removes none, it lands at once, and the first file stays.
        let newer = [upsert(2, 53), upsert(31, 10), upsert(32, 90)];
        assert_eq!(written_for(&store, &mut history, &newer, false).await?, 1 + is_rewritten);
        store.hook.removes_none.store(true, Ordering::SeqCst);
        let late = [upsert(2, 40), upsert(33, 10), upsert(34, 90)];
        assert_eq!(written_for(&store, &mut history, &late, true).await?, 2);
        store.hook.removes_none.store(false, Ordering::SeqCst);
        history.restart(false).await?;
        history.land(&[upsert(2, 54)], &BTreeSet::new()).await?;
    }
    Ok(())
}
