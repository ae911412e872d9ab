//! Every operation of the landing protocol fails once, in every way; each batch lands once all the same.
//!
//! The parts of the engine that land batches run in this process over a store with a script. A scenario without faults
//! counts its operations; then each of them fails, alone and with the two that follow. What a supervisor would do
//! stands in [`Scene::drive`]: open the table again from nothing and go on from its positions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use alluvium::commit::Outcome;
use alluvium::commit::create::{Blueprint, arrow_schema};
use alluvium::commit::land::{LandLimits, Landing, LandingParts, Signature};
use alluvium::commit::log::DeltaLog;
use alluvium::commit::positions::AppIds;
use alluvium::commit::state::TableState;
use alluvium::hop::{Changes, Spent};
use alluvium::invariant::Watch;
use alluvium::metrics::Metrics;
use alluvium::write::Writer;
use alluvium::write::append::AppendWriter;
use alluvium::write::parquet::DataFolder;
use alluvium::write::upsert::{UpsertColumns, UpsertWriter};
use alluvium_catalog::{
    Clock, Fate, Input, Lineage, Location, Offset, OffsetRange, Partition, PartitionRange, Span, SystemClock,
};
use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::local::LocalFileSystem;

use crate::harness::TestResult;
use crate::harness::fault::{Careless, Fault, FaultyStore, Script};
use crate::harness::lake::Lake;
use crate::harness::reader;

/// Batches of the scenario, and records in each.
const BATCHES: i64 = 4;
const RECORDS: i64 = 6;

/// Whether rows are added or replace each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Append,
    Upsert,
}

/// A table on a store, and how a flow would land batches in it.
#[derive(Clone)]
struct Scene {
    kind: Kind,
    location: Location,
    store: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
}

/// `id BIGINT NOT NULL, seq BIGINT, pos BIGINT`
fn declared() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("seq", DataType::Int64, true),
        Field::new("pos", DataType::Int64, true),
    ]))
}

/// Returns the span `[first, next)` of partition 0.
fn span(first: i64, next: i64) -> TestResult<Span> {
    let mut span = Span::new();
    let range = OffsetRange { first: Offset(first), next: Offset(next), records: u64::try_from(next - first)? };
    span.extend(Partition(0), range).map_err(|misfit| misfit.to_string())?;
    Ok(span)
}

/// What record `pos` means: its key, and whether it deletes it.
fn record(pos: i64) -> (i64, bool) {
    (pos % 5, pos % 7 == 3)
}

/// Returns the changes of the records from `first` on, one a key for upserts.
fn changes(kind: Kind, first: i64) -> TestResult<Changes> {
    let next = first + RECORDS;
    let mut kept: Vec<i64> = (first..next).collect();
    if kind == Kind::Upsert {
        kept.retain(|pos| !(pos + 1..next).any(|later| record(later).0 == record(*pos).0));
    }
    let column = |value: &dyn Fn(i64) -> i64| Arc::new(kept.iter().map(|pos| Some(value(*pos))).collect::<Int64Array>());
    let columns: Vec<ArrayRef> = vec![column(&|pos| record(pos).0), column(&|pos| pos), column(&|pos| pos)];
    let sequence: Vec<ArrayRef> = if kind == Kind::Upsert { vec![column(&|pos| pos)] } else { Vec::new() };
    let n_rows = kept.len() as u64;
    let n_records = u64::try_from(RECORDS)?;
    Ok(Changes {
        rows: RecordBatch::try_new(declared(), columns)?,
        partitions: Int32Array::from(vec![0; kept.len()]),
        offsets: kept.iter().map(|pos| Some(*pos)).collect(),
        sequence,
        deletes: (kind == Kind::Upsert).then(|| kept.iter().map(|pos| Some(record(*pos).1)).collect::<BooleanArray>()),
        rejects: Vec::new(),
        lookups: Vec::new(),
        fate: Fate { records_in: n_records, applied: n_rows, merged: n_records - n_rows, ..Fate::default() },
        span: span(first, next)?,
        spent: Spent::default(),
    })
}

/// Returns the rows that the table has to show, as (id, pos).
fn expected(kind: Kind) -> BTreeSet<(i64, i64)> {
    let all = 0..BATCHES * RECORDS;
    match kind {
        Kind::Append => all.map(|pos| (record(pos).0, pos)).collect(),
        Kind::Upsert => {
            let newest = all.clone().filter(|pos| !(pos + 1..all.end).any(|later| record(later).0 == record(*pos).0));
            newest.filter(|pos| !record(*pos).1).map(|pos| (record(pos).0, pos)).collect()
        }
    }
}

impl Scene {
    fn new(kind: Kind, store: Arc<dyn ObjectStore>, location: Location) -> Self {
        Self { kind, location, store, clock: Arc::new(SystemClock) }
    }

    fn columns() -> UpsertColumns {
        UpsertColumns {
            declared: declared(),
            keys: vec!["id".to_owned()],
            sequence: vec![DataType::Int64],
            stored_sequence: Some(vec!["seq".to_owned()]),
        }
    }

    /// Opens the table as a flow that starts does.
    async fn open(&self) -> TestResult<Landing> {
        let log = DeltaLog::with_stores(self.location.clone(), Arc::clone(&self.store), Arc::clone(&self.store));
        let folder = DataFolder {
            store: Arc::clone(&self.store),
            location: self.location.clone(),
            partitioned_by: Vec::new(),
            clock: Arc::clone(&self.clock),
        };
        let is_upsert = self.kind == Kind::Upsert;
        let blueprint = Blueprint {
            schema: if is_upsert { Self::columns().stored() } else { declared() },
            partitioned_by: Vec::new(),
            deletion_vectors: is_upsert,
            comment: None,
            properties: std::collections::BTreeMap::new(),
        };
        let state = blueprint.open_or_create(&log, self.clock.as_ref()).await?;
        let writer: Box<dyn Writer> = if is_upsert {
            Box::new(UpsertWriter::open(folder, Self::columns(), &state, Duration::from_secs(3600)).await?)
        } else {
            Box::new(AppendWriter::new(folder))
        };
        let ids = AppIds::of_table(&"flow".parse()?, &"topic".parse()?);
        let limits = LandLimits { attempts_max: 5, wait_min: Duration::from_millis(1), wait_max: Duration::from_millis(5) };
        let watch = Watch::new(Arc::new(Metrics::try_new()?));
        Ok(Landing::new(LandingParts { log, state, writer, ids }, Arc::clone(&self.clock), limits, watch))
    }

    fn signature(&self, span: &Span) -> TestResult<Signature> {
        let input = Input::Kafka {
            cluster: None,
            topic: "topic".parse()?,
            topic_id: None,
            ranges: PartitionRange::of(span),
        };
        let lineage = Lineage {
            v: 1,
            flow: "flow".parse()?,
            sql_hash: "hash".to_owned(),
            run: self.clock.new_id(),
            write_id: self.clock.new_id(),
            engine: "test".to_owned(),
            inputs: vec![input],
            fate: Fate::default(),
            rows_inserted: 0,
            rows_updated: 0,
            rows_deleted: 0,
            millis: alluvium_catalog::StageMillis::default(),
            definition: None,
        };
        Ok(Signature { lineage, operation: "STREAMING UPDATE", definition: None })
    }

    /// Lands the batch at which the table stands; tells whether there was one.
    async fn land_next(&self, landing: &mut Landing) -> TestResult<bool> {
        let first = landing.positions().get(&Partition(0)).map_or(0, |offset| offset.0);
        if first >= BATCHES * RECORDS {
            return Ok(false);
        }
        let changes = changes(self.kind, first)?;
        let signature = self.signature(&changes.span)?;
        let staged = landing.writer().stage(changes).await?;
        match landing.land(&staged, &signature).await? {
            Outcome::Landed(_) => {}
            Outcome::Fenced(_) => landing.catch_up().await?,
        }
        Ok(true)
    }

    /// Lands all batches; after an error the table is opened again, as a supervisor would.
    async fn drive(&self) -> TestResult {
        const OPENED_MAX: usize = 12;
        let mut last = None;
        for _opened in 0..OPENED_MAX {
            match self.drive_once().await {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        Err(format!("opened {OPENED_MAX} times without an end: {last:?}").into())
    }

    async fn drive_once(&self) -> TestResult {
        let mut landing = self.open().await?;
        while self.land_next(&mut landing).await? {}
        Ok(())
    }

    /// Checks the rows, that each version has one author, and that the spans touch, on the store without its faults.
    async fn check(&self, store: &Arc<dyn ObjectStore>) -> TestResult {
        let log = DeltaLog::with_stores(self.location.clone(), Arc::clone(store), Arc::clone(store));
        let (mut reached, mut authors) = (0, BTreeSet::new());
        for entry in log.read_tail(0).await? {
            let Some(lineage) = entry.info.get(Lineage::KEY) else { continue };
            let lineage: Lineage = serde_json::from_value(lineage.clone())?;
            assert!(authors.insert(lineage.write_id), "{} landed twice", lineage.write_id);
            assert!(lineage.fate.is_balanced(), "{:?}", lineage.fate);
            for input in &lineage.inputs {
                let Input::Kafka { ranges, .. } = input else { continue };
                for range in ranges {
                    assert_eq!(range.first, reached, "a gap or an overlap at version {}", entry.version);
                    reached = range.next;
                }
            }
        }
        assert_eq!(reached, BATCHES * RECORDS);
        let rows = self.rows(store, &log).await?;
        let found: BTreeSet<(i64, i64)> = rows.iter().copied().collect();
        assert_eq!(found.len(), rows.len(), "a row is there twice: {rows:?}");
        assert_eq!(found, expected(self.kind));
        Ok(())
    }

    /// Reads the rows file by file: deltalake's provider cannot reach a store in memory that is not its own.
    async fn rows(&self, store: &Arc<dyn ObjectStore>, log: &DeltaLog) -> TestResult<Vec<(i64, i64)>> {
        let url = self.location.url()?;
        let logs = deltalake::logstore::default_logstore(
            Arc::clone(store),
            Arc::clone(store),
            &url,
            &deltalake::logstore::StorageConfig::default(),
        );
        let state = TableState::load(log).await?.ok_or("there is no table")?;
        assert!(arrow_schema(log, &state)?.field_with_name("id").is_ok());
        let mut table = deltalake::DeltaTable::new(logs);
        table.load().await?;
        let context = datafusion::prelude::SessionContext::new();
        context.register_table("t", table.table_provider().await?)?;
        let batches = context.sql("SELECT id, pos FROM t").await?.collect().await?;
        let mut rows = Vec::new();
        for batch in &batches {
            let column = |index: usize| batch.column(index).as_any().downcast_ref::<Int64Array>().ok_or("not BIGINT");
            let (ids, places) = (column(0)?, column(1)?);
            rows.extend(ids.values().iter().copied().zip(places.values().iter().copied()));
        }
        Ok(rows)
    }
}

/// Runs a scenario with a script on a store of its own and returns how many operations it took.
async fn play(kind: Kind, script: Option<Script>) -> TestResult<usize> {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let faulty = Arc::new(FaultyStore::new(Arc::clone(&inner), script));
    let scene = Scene::new(kind, Arc::clone(&faulty) as Arc<dyn ObjectStore>, "memory:///".parse()?);
    let named = |error| format!("{kind:?} under {script:?}: {error}");
    scene.drive().await.map_err(named)?;
    scene.check(&inner).await.map_err(named)?;
    assert!(script.is_none() || faulty.n_fired() > 0, "{script:?} never fired");
    Ok(faulty.n_operations())
}

/// Lets each operation fail in each way.
async fn every_operation_fails(kind: Kind, n_faults: usize) -> TestResult {
    /// Most of the time is spent in the waits between looks at a version that is not there.
    const AT_ONCE: usize = 64;
    let n_operations = play(kind, None).await?;
    assert!(n_operations > 15, "the scenario has {n_operations} operations only");
    let scripts = (0..n_operations).flat_map(|first| Fault::ALL.map(|fault| Script { first, n_faults, fault }));
    let mut played = futures::stream::iter(scripts).map(|script| play(kind, Some(script))).buffer_unordered(AT_ONCE);
    let mut failures = Vec::new();
    while let Some(result) = played.next().await {
        failures.extend(result.err().map(|error| error.to_string()));
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_land_once_whichever_operation_fails() -> TestResult {
    every_operation_fails(Kind::Append, 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upserts_land_once_whichever_operation_fails() -> TestResult {
    every_operation_fails(Kind::Upsert, 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_land_once_whichever_three_operations_fail() -> TestResult {
    every_operation_fails(Kind::Append, 3).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upserts_land_once_whichever_three_operations_fail() -> TestResult {
    every_operation_fails(Kind::Upsert, 3).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_of_one_flow_land_each_batch_once() -> TestResult {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for kind in [Kind::Append, Kind::Upsert] {
        let location: Location = "memory:///".parse()?;
        let store: Arc<dyn ObjectStore> = Arc::new(object_store::prefix::PrefixStore::new(
            Arc::clone(&store),
            format!("{kind:?}"),
        ));
        let scenes = [0; 4].map(|_| Scene::new(kind, Arc::clone(&store), location.clone()));
        futures::future::try_join_all(scenes.iter().map(Scene::drive)).await?;
        scenes[0].check(&store).await?;
    }
    Ok(())
}

/// A table on the local disk that a flow has landed two batches in, with the writer at work.
async fn table_on_disk(lake: &Lake, kind: Kind) -> TestResult<(Scene, Landing)> {
    let location = lake.table("lake.shared")?;
    let folder = location.local_path().ok_or("the lake is not on disk")?;
    std::fs::create_dir_all(&folder)?;
    let scene = Scene::new(kind, Arc::new(LocalFileSystem::new_with_prefix(&folder)?), location);
    let mut landing = scene.open().await?;
    for _ in 0..2 {
        scene.land_next(&mut landing).await?;
    }
    Ok((scene, landing))
}

async fn ids(lake: &Lake, scene: &Scene) -> TestResult<Vec<(i64, i64)>> {
    let rows = reader::rows(lake, &scene.location, "SELECT id, pos FROM t ORDER BY id, pos").await?;
    Ok(rows.iter().filter_map(|row| Some((row["id"].as_i64()?, row["pos"].as_i64()?))).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_append_between_two_commits_is_followed() -> TestResult {
    let lake = Lake::on_disk()?;
    let (scene, mut landing) = table_on_disk(&lake, Kind::Append).await?;
    let table = reader::open(&lake, &scene.location).await?;
    let foreign = |value: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![value])) };
    let batch = RecordBatch::try_new(declared(), vec![foreign(77), foreign(0), foreign(7_700)])?;
    table.write([batch]).await?;
    while scene.land_next(&mut landing).await? {}
    let mut wanted = expected(Kind::Append);
    wanted.insert((77, 7_700));
    assert_eq!(ids(&lake, &scene).await?, wanted.into_iter().collect::<Vec<_>>());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_delete_of_rows_between_two_commits_is_followed() -> TestResult {
    let lake = Lake::on_disk()?;
    let (scene, mut landing) = table_on_disk(&lake, Kind::Append).await?;
    let table = reader::open(&lake, &scene.location).await?;
    table.delete().with_predicate("pos < 3").await?;
    while scene.land_next(&mut landing).await? {}
    let wanted: Vec<_> = expected(Kind::Append).into_iter().filter(|(_, pos)| *pos >= 3).collect();
    assert_eq!(ids(&lake, &scene).await?, wanted);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upsert_over_a_foreign_delete_and_a_foreign_append_keeps_one_row_a_key() -> TestResult {
    let lake = Lake::on_disk()?;
    let (scene, mut landing) = table_on_disk(&lake, Kind::Upsert).await?;
    let table = reader::open(&lake, &scene.location).await?;
    let (table, _) = table.delete().with_predicate("id >= 0").await?;
    // A row of a key that comes again, as another writer adds it: without our hidden columns.
    let column = |value: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![value])) };
    let hidden: [ArrayRef; 2] = [Arc::new(Int32Array::from(vec![None])), Arc::new(Int64Array::from(vec![None]))];
    let [partition, offset] = hidden;
    let batch = RecordBatch::try_new(Scene::columns().stored(), vec![column(2), column(0), column(-1), partition, offset])?;
    table.write([batch]).await?;
    while scene.land_next(&mut landing).await? {}
    // The last two batches bring every key again, so nothing of what the others did is left.
    assert_eq!(ids(&lake, &scene).await?, expected(Kind::Upsert).into_iter().collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn a_store_that_lets_two_creates_win_is_refused() -> TestResult {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let careless: Arc<dyn ObjectStore> = Arc::new(Careless::new(inner));
    let refused = alluvium::commit::probe::prove_conditional_create(&careless, &"memory:///t".parse()?, &SystemClock).await;
    let error = refused.err().ok_or("the store was taken")?;
    assert!(error.message().contains("conditional creates"), "{}", error.chain());
    Ok(())
}
