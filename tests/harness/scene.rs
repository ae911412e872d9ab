//! A table, and a flow that lands batches in it, made of the engine's own parts over whatever store a test has.
//!
//! What a supervisor would do after an error stands in [`Scene::drive`]: open the table again from nothing and go on
//! from its positions.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use alluvium::commit::Outcome;
use alluvium::commit::create::Blueprint;
use alluvium::commit::land::{LandLimits, Landing, LandingParts, Signature};
use alluvium::commit::positions::AppIds;
use alluvium::delta::action::{Action, StorageType};
use alluvium::delta::log::{DeltaLog, LogEntry};
use alluvium::hop::{ChangeOrder, Changes, Spent};
use alluvium::invariant::Watch;
use alluvium::metrics::Metrics;
use alluvium::write::Writer;
use alluvium::write::append::AppendWriter;
use alluvium::write::parquet::DataFolder;
use alluvium::write::upsert::{UpsertColumns, UpsertSettings, UpsertWriter};
use alluvium::write::vectors::VectorFolder;
use alluvium_catalog::{
    Clock, Fate, Input, Lineage, Location, Offset, OffsetRange, Partition, PartitionRange, Span, SystemClock,
};
use alluvium_sql::{UpsertMode, UpsertOptions};
use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use object_store::ObjectStore;

use super::TestResult;

/// Batches of the scenario, and records in each.
pub(crate) const BATCHES: i64 = 4;
pub(crate) const RECORDS: i64 = 6;

/// Whether rows are added or replace each other, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Append,
    /// By deletion vectors, which stand in the log as small as they are.
    Upsert,
    /// By deletion vectors that stand in files all the same.
    Filed,
    /// By files that are written anew.
    Rewrite,
    /// By deletion vectors, and each batch but the first has a row that is late.
    Late,
}

impl Kind {
    /// Tells whether rows replace each other.
    pub(crate) fn is_upsert(self) -> bool {
        self != Self::Append
    }

    /// Tells whether rows are superseded by deletion vectors.
    fn has_vectors(self) -> bool {
        matches!(self, Self::Upsert | Self::Filed | Self::Late)
    }

    /// Returns how many bytes a vector in the log has at most.
    fn inline_bytes_max(self) -> usize {
        if self == Self::Filed { 0 } else { VectorFolder::INLINE_BYTES_MAX }
    }

    /// Returns the sequence of record `pos`.
    fn sequence(self, pos: i64) -> i64 {
        if self == Self::Late && pos >= RECORDS && pos % RECORDS == 2 { -1 } else { pos }
    }

    /// Tells whether record `pos` is the newest of its key among `records`.
    fn is_newest(self, pos: i64, mut records: Range<i64>) -> bool {
        let order = |pos: i64| (self.sequence(pos), pos);
        !records.any(|other| record(other).0 == record(pos).0 && order(other) > order(pos))
    }
}

/// A table on a store, and how a flow would land batches in it.
#[derive(Clone)]
pub(crate) struct Scene {
    kind: Kind,
    pub(crate) location: Location,
    store: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
}

/// `id BIGINT NOT NULL, seq BIGINT, pos BIGINT`
pub(crate) fn declared() -> SchemaRef {
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

/// What record `pos` means: its key, and whether it deletes it. A batch has five of the seven keys, one of them twice, so
/// that files keep rows when others of theirs are superseded; two batches in a row have all.
fn record(pos: i64) -> (i64, bool) {
    ((pos / RECORDS * 5 + pos % RECORDS % 5) % 7, pos % 7 == 3)
}

/// Returns the changes of the records from `first` on, one a key for upserts.
fn changes(kind: Kind, first: i64) -> TestResult<Changes> {
    let next = first + RECORDS;
    let mut kept: Vec<i64> = (first..next).collect();
    if kind.is_upsert() {
        kept.retain(|pos| kind.is_newest(*pos, first..next));
    }
    let column =
        |value: &dyn Fn(i64) -> i64| Arc::new(kept.iter().map(|pos| Some(value(*pos))).collect::<Int64Array>());
    let ordered = column(&|pos| kind.sequence(pos));
    let columns: Vec<ArrayRef> = vec![column(&|pos| record(pos).0), Arc::clone(&ordered) as _, column(&|pos| pos)];
    let sequence: Vec<ArrayRef> = if kind.is_upsert() { vec![ordered] } else { Vec::new() };
    let n_rows = kept.len() as u64;
    let n_records = u64::try_from(RECORDS)?;
    Ok(Changes {
        rows: RecordBatch::try_new(declared(), columns)?,
        order: ChangeOrder {
            partitions: Int32Array::from(vec![0; kept.len()]),
            offsets: kept.iter().map(|pos| Some(*pos)).collect(),
            sequence,
            inherited: None,
            after_delete: None,
        },
        keyed: None,
        deletes: kind.is_upsert().then(|| kept.iter().map(|pos| Some(record(*pos).1)).collect::<BooleanArray>()),
        rejects: Vec::new(),
        lookups: Vec::new(),
        fate: Fate { records_in: n_records, applied: n_rows, merged: n_records - n_rows, ..Fate::default() },
        span: span(first, next)?,
        spent: Spent::default(),
    })
}

/// Returns the rows that the table has to show, as (id, pos).
pub(crate) fn expected(kind: Kind) -> BTreeSet<(i64, i64)> {
    let all = 0..BATCHES * RECORDS;
    match kind {
        Kind::Append => all.map(|pos| (record(pos).0, pos)).collect(),
        Kind::Upsert | Kind::Filed | Kind::Rewrite | Kind::Late => {
            let newest = all.clone().filter(|pos| kind.is_newest(*pos, all.clone()));
            newest.filter(|pos| !record(*pos).1).map(|pos| (record(pos).0, pos)).collect()
        }
    }
}

impl Scene {
    pub(crate) fn new(kind: Kind, store: Arc<dyn ObjectStore>, location: Location) -> Self {
        Self { kind, location, store, clock: Arc::new(SystemClock) }
    }

    pub(crate) fn columns() -> UpsertColumns {
        UpsertColumns {
            declared: declared(),
            keys: vec!["id".to_owned()],
            sequence: vec![DataType::Int64],
            sequence_by: "seq".to_owned(),
            stored_sequence: Some(vec!["seq".to_owned()]),
        }
    }

    /// Opens the table as a flow that starts does.
    pub(crate) async fn open(&self) -> TestResult<Landing> {
        let log = DeltaLog::with_stores(self.location.clone(), Arc::clone(&self.store), Arc::clone(&self.store));
        let folder = DataFolder {
            store: Arc::clone(&self.store),
            location: self.location.clone(),
            partitioned_by: Vec::new(),
            clock: Arc::clone(&self.clock),
        };
        let is_upsert = self.kind.is_upsert();
        let blueprint = Blueprint {
            schema: if is_upsert { Self::columns().stored() } else { declared() },
            partitioned_by: Vec::new(),
            clustered_by: None,
            deletion_vectors: self.kind.has_vectors(),
            comment: None,
            properties: std::collections::BTreeMap::new(),
        };
        let state = blueprint.open_or_create(&log, self.clock.as_ref()).await?;
        let writer: Box<dyn Writer> = if is_upsert {
            let mode = if self.kind == Kind::Rewrite { UpsertMode::CopyOnWrite } else { UpsertMode::MergeOnRead };
            let options = UpsertOptions { mode, cap: None };
            let inline_bytes_max = self.kind.inline_bytes_max();
            let settings = UpsertSettings { options, inline_bytes_max, ..UpsertSettings::default() };
            Box::new(UpsertWriter::open(folder, Self::columns(), &state, settings).await?)
        } else {
            Box::new(AppendWriter::new(folder))
        };
        let ids = AppIds::of_table(&"flow".parse()?, &"topic".parse()?);
        let limits = LandLimits {
            attempts_max: 5,
            wait_min: Duration::from_millis(1),
            wait_max: Duration::from_millis(5),
            inline_bytes_max: self.kind.inline_bytes_max(),
        };
        let watch = Watch::new(Arc::new(Metrics::try_new()?));
        Ok(Landing::new(
            LandingParts { log, state, writer, ids, known_at: self.clock.now() },
            Arc::clone(&self.clock),
            limits,
            watch,
        ))
    }

    fn signature(&self, span: &Span) -> TestResult<Signature> {
        let input =
            Input::Kafka { cluster: None, topic: "topic".parse()?, topic_id: None, ranges: PartitionRange::of(span) };
        let lineage = Lineage {
            inputs: vec![input],
            ..Lineage::begin("flow".parse()?, "hash", "test", self.clock.new_id(), self.clock.new_id())
        };
        Ok(Signature { lineage, operation: "STREAMING UPDATE", definition: None })
    }

    /// Lands the batch at which the table stands; tells whether there was one.
    pub(crate) async fn land_next(&self, landing: &mut Landing) -> TestResult<bool> {
        let first = landing.positions().get(&Partition(0)).map_or(0, |offset| offset.0);
        if first >= BATCHES * RECORDS {
            return Ok(false);
        }
        let changes = changes(self.kind, first)?;
        let signature = self.signature(&changes.span)?;
        let staged = landing.writer().stage(changes).await?;
        match landing.land(&staged, &signature).await? {
            Outcome::Landed(_) => {}
            Outcome::Fenced(_) | Outcome::Exceeds(_) => landing.catch_up().await?,
        }
        Ok(true)
    }

    /// Lands one change of key `id`, a row or a delete, as the next record; tells whether it had an effect.
    pub(crate) async fn land_change(
        &self,
        landing: &mut Landing,
        (id, seq): (i64, i64),
        deletes: bool,
    ) -> TestResult<bool> {
        let first = landing.positions().get(&Partition(0)).map_or(0, |offset| offset.0);
        let one = |value: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![value])) };
        let changes = Changes {
            rows: RecordBatch::try_new(declared(), vec![one(id), one(seq), one(first)])?,
            order: ChangeOrder {
                partitions: Int32Array::from(vec![0]),
                offsets: Int64Array::from(vec![first]),
                sequence: vec![one(seq)],
                inherited: None,
                after_delete: None,
            },
            keyed: None,
            deletes: Some(BooleanArray::from(vec![deletes])),
            rejects: Vec::new(),
            lookups: Vec::new(),
            fate: Fate { records_in: 1, applied: 1, ..Fate::default() },
            span: span(first, first + 1)?,
            spent: Spent::default(),
        };
        let signature = self.signature(&changes.span)?;
        let staged = landing.writer().stage(changes).await?;
        match landing.land(&staged, &signature).await? {
            Outcome::Landed(landed) => Ok(landed.fate.applied == 1),
            other => Err(format!("{other:?}").into()),
        }
    }

    /// Lands all batches; after an error the table is opened again, as a supervisor would.
    pub(crate) async fn drive(&self) -> TestResult {
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

    /// Checks the rows, the log and where vectors stand, on the store without its faults.
    pub(crate) async fn check(&self, store: &Arc<dyn ObjectStore>) -> TestResult {
        self.check_log(store).await?;
        self.check_vectors(store).await?;
        let rows = self.rows(store).await?;
        let found: BTreeSet<(i64, i64)> = rows.iter().copied().collect();
        assert_eq!(found.len(), rows.len(), "a row is there twice: {rows:?}");
        assert_eq!(found, expected(self.kind));
        Ok(())
    }

    async fn entries(&self, store: &Arc<dyn ObjectStore>) -> TestResult<Vec<LogEntry>> {
        let log = DeltaLog::with_stores(self.location.clone(), Arc::clone(store), Arc::clone(store));
        Ok(log.read_tail(0).await?)
    }

    /// Checks that there were vectors where there should be any, all in the log or all in files.
    async fn check_vectors(&self, store: &Arc<dyn ObjectStore>) -> TestResult {
        let mut found = BTreeSet::new();
        for action in self.entries(store).await?.iter().flat_map(|entry| &entry.actions) {
            if let Action::Add(add) = action
                && let Some(vector) = &add.deletion_vector
            {
                found.insert(vector.storage_type == StorageType::UuidRelativePath);
            }
        }
        let wanted = if self.kind.has_vectors() { BTreeSet::from([self.kind == Kind::Filed]) } else { BTreeSet::new() };
        assert_eq!(found, wanted, "whether vectors stand in files");
        Ok(())
    }

    /// Checks that each version has one author, and that the spans touch.
    pub(crate) async fn check_log(&self, store: &Arc<dyn ObjectStore>) -> TestResult {
        let (mut reached, mut authors) = (0, BTreeSet::new());
        for entry in self.entries(store).await? {
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
        Ok(())
    }

    /// Checks that a batch was written ahead in vain where some row is late, and nowhere else.
    pub(crate) async fn check_discards(&self, store: &Arc<dyn ObjectStore>) -> TestResult {
        let mut n_bytes = 0;
        for entry in self.entries(store).await? {
            let Some(lineage) = entry.info.get(Lineage::KEY) else { continue };
            n_bytes += serde_json::from_value::<Lineage>(lineage.clone())?.effort.discarded_bytes;
        }
        assert_eq!(n_bytes > 0, self.kind == Kind::Late, "{n_bytes} bytes were written in vain");
        Ok(())
    }

    /// Returns the rows as (id, pos).
    pub(crate) async fn rows(&self, store: &Arc<dyn ObjectStore>) -> TestResult<Vec<(i64, i64)>> {
        let logs = deltalake::logstore::default_logstore(
            Arc::clone(store),
            Arc::clone(store),
            &self.location.url()?,
            &deltalake::logstore::StorageConfig::default(),
        );
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
