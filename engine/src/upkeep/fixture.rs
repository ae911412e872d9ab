//! A table that tests land batches in, with a model of what it has to hold.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use alluvium_catalog::{
    Clock, Error, Fate, Input, Lineage, Location, Offset, OffsetRange, Partition, PartitionRange, Result, Span,
    StorageSettings, Stores, SystemClock,
};
use alluvium_sql::{UpsertMode, UpsertOptions};
use arrow::array::{ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::prelude::SessionContext;
use deltalake::DeltaTable;
use deltalake::logstore::{StorageConfig, default_logstore};

use super::compact::Job;
use super::plan::{Aims, choose};
use super::{Upkeep, UpkeepParts};
use crate::commit::Outcome;
use crate::commit::create::Blueprint;
use crate::commit::land::{LandLimits, Landing, LandingParts, Signature};
use crate::commit::positions::AppIds;
use crate::config::UpkeepSettings;
use crate::delta::log::DeltaLog;
use crate::delta::state::TableState;
use crate::hop::{ChangeOrder, Changes, Spent};
use crate::invariant::Watch;
use crate::lookup::Lookups;
use crate::metrics::Metrics;
use crate::write::Writer;
use crate::write::append::AppendWriter;
use crate::write::compaction::Compaction;
use crate::write::parquet::DataFolder;
use crate::write::upsert::{UpsertColumns, UpsertSettings, UpsertWriter};
use crate::write::vectors::VectorFolder;

/// The files of a log and the days on which the store took them: the clock was behind when version 3 came.
pub(super) const CLOCK_BEHIND: [(&str, i64); 6] = [
    ("00000000000000000000.json", 1),
    ("00000000000000000001.json", 2),
    ("00000000000000000001.checkpoint.parquet", 2),
    ("00000000000000000002.json", 9),
    ("00000000000000000003.json", 1),
    ("00000000000000000003.checkpoint.parquet", 9),
];

/// The rows of a table: note by id and sequence.
pub(crate) type Rows = BTreeMap<(i64, i64), String>;

/// One record: its key, its sequence, and its note; a record without one deletes.
pub(crate) type Record = (i64, i64, Option<&'static str>);

/// What records make of a table: sequence and note by id; no note where the id is deleted.
pub(crate) type Model = BTreeMap<i64, (i64, Option<&'static str>)>;

/// A table of `id BIGINT NOT NULL, day STRING, seq BIGINT, note STRING`.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(crate) stores: Stores,
    pub(crate) location: Location,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) is_upsert: bool,
    pub(crate) partitioned_by: Vec<String>,
    pub(crate) clustered_by: Option<Vec<String>>,
    pub(crate) properties: BTreeMap<String, String>,
    /// What looks rows up while the table is open, as that of flow `flow` and table `silver.t`.
    pub(crate) lookups: Arc<Lookups>,
    pub(crate) options: UpsertOptions,
    /// Deletion vectors of at most this many bytes stand in the log.
    pub(crate) inline_bytes_max: usize,
}

impl Scene {
    /// Returns a table in memory that rows are added to.
    pub(crate) fn appends() -> Result<Self> {
        Ok(Self {
            stores: Stores::new(StorageSettings::default()),
            location: "memory:///t".parse()?,
            clock: Arc::new(SystemClock),
            is_upsert: false,
            partitioned_by: Vec::new(),
            clustered_by: None,
            properties: BTreeMap::new(),
            lookups: Arc::default(),
            options: UpsertOptions::default(),
            inline_bytes_max: VectorFolder::INLINE_BYTES_MAX,
        })
    }

    /// Returns a table in memory whose rows replace each other by id, in order of seq.
    pub(crate) fn upserts() -> Result<Self> {
        Ok(Self { is_upsert: true, ..Self::appends()? })
    }

    /// Returns a table in memory whose files are written anew where rows are replaced.
    pub(crate) fn rewrites() -> Result<Self> {
        let options = UpsertOptions { mode: UpsertMode::CopyOnWrite, cap: None };
        Ok(Self { options, ..Self::upserts()? })
    }

    fn declared() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("day", DataType::Utf8, true),
            Field::new("seq", DataType::Int64, true),
            Field::new("note", DataType::Utf8, true),
        ]))
    }

    fn columns() -> UpsertColumns {
        UpsertColumns {
            declared: Self::declared(),
            keys: vec!["id".to_owned()],
            sequence: vec![DataType::Int64],
            sequence_by: "seq".to_owned(),
            stored_sequence: Some(vec!["seq".to_owned()]),
        }
    }

    /// Returns the table's log.
    pub(crate) fn log(&self) -> Result<DeltaLog> {
        DeltaLog::open(&self.stores, &self.location)
    }

    /// Returns the table as its log tells.
    pub(crate) async fn state(&self) -> Result<TableState> {
        TableState::load(&self.log()?).await?.ok_or_else(|| Error::data("there is no table"))
    }

    /// Opens the table as a flow that starts does.
    pub(crate) async fn open(&self) -> Result<Landing> {
        let log = self.log()?;
        let folder = DataFolder {
            store: Arc::clone(log.store()),
            location: self.location.clone(),
            partitioned_by: self.partitioned_by.clone(),
            clock: Arc::clone(&self.clock),
        };
        let blueprint = Blueprint {
            schema: if self.is_upsert { Self::columns().stored() } else { Self::declared() },
            partitioned_by: self.partitioned_by.clone(),
            clustered_by: self.clustered_by.clone(),
            deletion_vectors: self.is_upsert && self.options.mode == UpsertMode::MergeOnRead,
            comment: None,
            properties: self.properties.clone(),
        };
        let state = blueprint.open_or_create(&log, self.clock.as_ref()).await?;
        let writer: Box<dyn Writer> = if self.is_upsert {
            let Self { options, inline_bytes_max, .. } = *self;
            let settings = UpsertSettings { options, inline_bytes_max, ..UpsertSettings::default() };
            let writer = UpsertWriter::open(folder, Self::columns(), &state, settings).await?;
            self.lookups.register(&"flow".parse()?, &"silver.t".parse()?, writer.lookup());
            Box::new(writer)
        } else {
            Box::new(AppendWriter::new(folder))
        };
        let ids = AppIds::of_table(&"flow".parse()?, &"topic".parse()?);
        let watch = Watch::new(Arc::new(Metrics::try_new()?));
        let inline_bytes_max = self.inline_bytes_max;
        let limits = LandLimits { attempts_max: 5, inline_bytes_max, ..LandLimits::default() };
        Ok(Landing::new(
            LandingParts { log, state, writer, ids, known_at: self.clock.now() },
            Arc::clone(&self.clock),
            limits,
            watch,
        ))
    }

    /// Lands one batch of records, which for upserts have distinct ids.
    pub(crate) async fn land(&self, landing: &mut Landing, records: &[Record]) -> Result<()> {
        landing.catch_up().await?;
        let first = landing.positions().get(&Partition(0)).map_or(0, |offset| offset.0);
        let changes = self.changes(records, first)?;
        let input = Input::Kafka {
            cluster: None,
            topic: "topic".parse()?,
            topic_id: None,
            ranges: PartitionRange::of(&changes.span),
        };
        let lineage = Lineage {
            inputs: vec![input],
            ..Lineage::begin("flow".parse()?, "hash", "test", self.clock.new_id(), self.clock.new_id())
        };
        let operation = if self.is_upsert { "MERGE" } else { "STREAMING UPDATE" };
        let staged = landing.writer().stage(changes).await?;
        match landing.land(&staged, &Signature { lineage, operation, definition: None }).await? {
            Outcome::Landed(_) => Ok(()),
            other => Err(Error::internal(format!("{other:?}"))),
        }
    }

    /// Uploads what a batch of records needs, and lands nothing.
    pub(crate) async fn stage(&self, landing: &mut Landing, records: &[Record]) -> Result<()> {
        landing.catch_up().await?;
        let first = landing.positions().get(&Partition(0)).map_or(0, |offset| offset.0);
        landing.writer().stage(self.changes(records, first)?).await.map(drop)
    }

    fn changes(&self, records: &[Record], first: i64) -> Result<Changes> {
        let n_records = records.len() as i64;
        let integers =
            |value: &dyn Fn(&Record) -> i64| records.iter().map(|row| Some(value(row))).collect::<Int64Array>();
        let seq: ArrayRef = Arc::new(integers(&|record| record.1));
        let days: StringArray =
            records.iter().map(|record| Some(if record.0 % 2 == 0 { "even" } else { "odd" })).collect();
        let notes: StringArray = records.iter().map(|record| record.2).collect();
        let columns: Vec<ArrayRef> =
            vec![Arc::new(integers(&|record| record.0)), Arc::new(days), Arc::clone(&seq), Arc::new(notes)];
        let rows = RecordBatch::try_new(Self::declared(), columns)
            .map_err(|cause| Error::internal("rows").with_source(cause))?;
        let mut span = Span::new();
        let range =
            OffsetRange { first: Offset(first), next: Offset(first + n_records), records: records.len() as u64 };
        span.extend(Partition(0), range).map_err(|misfit| Error::internal(misfit.to_string()))?;
        let deletes: BooleanArray = records.iter().map(|record| Some(record.2.is_none())).collect();
        Ok(Changes {
            rows,
            order: ChangeOrder {
                partitions: Int32Array::from(vec![0; records.len()]),
                offsets: (first..first + n_records).map(Some).collect(),
                sequence: if self.is_upsert { vec![seq] } else { Vec::new() },
                inherited: None,
                after_delete: None,
            },
            keyed: None,
            deletes: self.is_upsert.then_some(deletes),
            rejects: Vec::new(),
            lookups: Vec::new(),
            fate: Fate { records_in: records.len() as u64, applied: records.len() as u64, ..Fate::default() },
            span,
            spent: Spent::default(),
        })
    }

    /// Returns the compaction of all files that are worth one, uploaded and not swapped in.
    pub(crate) async fn compact(&self, landing: &Landing) -> Result<Option<Compaction>> {
        self.compact_to(landing, 1 << 20).await
    }

    /// Returns such a compaction into files of about `target_bytes`.
    pub(crate) async fn compact_to(&self, landing: &Landing, target_bytes: u64) -> Result<Option<Compaction>> {
        let aims = Self::aims();
        let Some(choice) = choose(landing.state(), &aims, &HashSet::new()) else { return Ok(None) };
        let aims = Aims { target_bytes, ..aims };
        let job = Job::new(landing.log(), landing.state(), choice, &aims, &self.clock)?;
        job.run().await.map(Some)
    }

    /// Returns aims that take in whatever is worth it.
    pub(crate) fn aims() -> Aims {
        Aims { target_bytes: 1 << 20, bytes_max: u64::MAX, ..Aims::all(&UpkeepSettings::default()) }
    }

    /// Returns upkeep of the table.
    pub(crate) fn upkeep(&self, settings: UpkeepSettings, checkpoint_interval: u64) -> Result<(Upkeep, Arc<Metrics>)> {
        let parts = self.parts(settings, checkpoint_interval)?;
        let metrics = Arc::clone(&parts.metrics);
        Ok((Upkeep::new(parts, 0), metrics))
    }

    /// Returns what upkeep needs to know of the table.
    pub(crate) fn parts(&self, settings: UpkeepSettings, checkpoint_interval: u64) -> Result<UpkeepParts> {
        Ok(UpkeepParts {
            stores: self.stores.clone(),
            location: self.location.clone(),
            flow: "flow".parse()?,
            checkpoint_interval,
            settings,
            clock: Arc::clone(&self.clock),
            metrics: Arc::new(Metrics::try_new()?),
        })
    }

    /// Returns the rows as deltalake reads them, at the newest version or at another.
    pub(crate) async fn rows_at(&self, version: Option<u64>) -> Result<Rows> {
        let failed = |cause: Box<dyn std::error::Error + Send + Sync>| Error::data("cannot read").with_source(cause);
        let (prefixed, root) = (self.stores.open(&self.location)?, self.stores.root(&self.location)?);
        let logs = default_logstore(prefixed, root, &self.location.url()?, &StorageConfig::default());
        let mut table = DeltaTable::new(logs);
        match version {
            Some(version) => table.load_version(version).await.map_err(|cause| failed(cause.into()))?,
            None => table.load().await.map_err(|cause| failed(cause.into()))?,
        }
        let context = SessionContext::new();
        let provider = table.table_provider().await.map_err(|cause| failed(cause.into()))?;
        context.register_table("t", provider).map_err(|cause| failed(cause.into()))?;
        let asked = context.sql("SELECT id, seq, arrow_cast(note, 'Utf8') AS note FROM t").await;
        let batches = asked.map_err(|cause| failed(cause.into()))?.collect().await;
        let mut rows = Rows::new();
        for batch in batches.map_err(|cause| failed(cause.into()))? {
            let (ids, seqs) =
                (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_primitive::<Int64Type>());
            let notes = batch.column(2).as_string::<i32>();
            for (index, id) in ids.values().iter().enumerate() {
                let before = rows.insert((*id, seqs.value(index)), notes.value(index).to_owned());
                if before.is_some() {
                    return Err(Error::data(format!("row {id} is there twice")));
                }
            }
        }
        Ok(rows)
    }

    /// Returns the rows of the newest version.
    pub(crate) async fn rows(&self) -> Result<Rows> {
        self.rows_at(None).await
    }
}

/// Returns the error of a test that lacks something.
pub(crate) fn missing(what: &str) -> Error {
    Error::internal(format!("there is no {what}"))
}

/// Lands `records` and applies them to `model`.
pub(crate) async fn upsert(scene: &Scene, landing: &mut Landing, model: &mut Model, records: &[Record]) -> Result<()> {
    apply(model, records);
    scene.land(landing, records).await
}

/// Applies records to a model as an upsert table does.
fn apply(model: &mut Model, records: &[Record]) {
    for (id, seq, note) in records {
        let known = model.entry(*id).or_insert((i64::MIN, None));
        if *seq >= known.0 {
            *known = (*seq, *note);
        }
    }
}

/// Returns the rows that a model stands for.
pub(crate) fn rows_of(model: &Model) -> Rows {
    model.iter().filter_map(|(id, (seq, note))| Some(((*id, *seq), (*note)?.to_owned()))).collect()
}
