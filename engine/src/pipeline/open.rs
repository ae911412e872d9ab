//! Opens a flow: proves the store, finds or creates its tables, makes its index, compiles its SQL, joins its topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use alluvium_catalog::{ErrorKind, Location, Result, Table, TableName};
use alluvium_sql::{Change, Flow, TableReader, Transform, UpsertMode, sequence_text};

use super::back::Back;
use super::front::Front;
use super::split::Splitter;
use super::worker::Worker;
use super::{FlowRun, Tally, identity};
use crate::commit::create::{Blueprint, CHECKPOINT_INTERVAL, check_takes_changes};
use crate::commit::definitions::{check_keeper, check_key, check_sequence};
use crate::commit::land::{LandLimits, Landing, LandingParts};
use crate::commit::positions::{AppIds, NewestPositions};
use crate::commit::probe::prove_conditional_create;
use crate::dead_letter::{self, DeadLetterPlace, DeadLetters};
use crate::decode::Decoder;
use crate::delta::action::Metadata;
use crate::delta::log::DeltaLog;
use crate::invariant::Watch;
use crate::record::{Recorder, register};
use crate::source::kafka::{KafkaSettings, KafkaSource};
use crate::source::{Goal, Outset, Source, SourceIdentity, TablePositions};
use crate::supervise::World;
use crate::transform::TransformStage;
use crate::upkeep::{Upkeep, UpkeepParts};
use crate::write::Writer;
use crate::write::append::AppendWriter;
use crate::write::parquet::DataFolder;
use crate::write::upsert::{SnapshotDisk, UpsertColumns, UpsertSettings, UpsertWriter};

/// What a flow that reads Kafka is opened with.
#[derive(Debug)]
pub struct FlowParts {
    /// The flow.
    pub flow: Arc<Flow>,
    /// Whether to stop at the ends of [`goal`](Self::goal).
    pub once: bool,
    /// The ends that the partitions had when the flow was first opened.
    pub goal: Goal,
    /// Where partitions were begun since the flow was first opened.
    pub outset: Outset,
    /// Whether the table's positions hold for the topic even if cluster or topic are others than before, and the flow
    /// takes an upsert table over from the one that keeps it.
    pub accepts_source: bool,
    /// Asks the source to hand out what it has and stop.
    pub stop: tokio_util::sync::CancellationToken,
}

/// A flow that lacks only its source.
#[derive(Debug)]
pub struct Prepared {
    flow: Arc<Flow>,
    transform: Transform,
    watch: Watch,
    opened: Opened,
    recorder: Recorder,
    dead_letters: Option<(DeadLetters, Recorder)>,
    accepts_source: bool,
}

/// A table that is ready for batches, and who tells where it stands.
#[derive(Debug)]
struct Opened {
    landing: Landing,
    positions: Arc<dyn TablePositions>,
    version: u64,
}

impl FlowRun {
    /// Opens a flow that reads Kafka.
    ///
    /// # Errors
    /// `Invalid` when table, store, topic or credentials are not fit for the flow; `Data` when the topic is not the one
    /// that the table's positions are of; `Unavailable` when a service does not answer.
    pub async fn open(parts: FlowParts, world: &World) -> Result<Self> {
        let flow = Arc::clone(&parts.flow);
        let definition = &flow.definition;
        let (connection, topic) = (definition.connection.clone(), definition.source.topic.clone());
        let mut source_settings = KafkaSettings {
            startup: flow.startup.clone(),
            limits: flow.batch,
            once: parts.once,
            goal: parts.goal,
            outset: parts.outset,
            stop: parts.stop,
            ..KafkaSettings::new(connection, topic, group_id(&flow))
        };
        if parts.once {
            source_settings.connect_limit = source_settings.connect_limit.min(world.settings.once_timeout);
        }
        let prepared = Self::prepare(flow, world).await?;
        let prepared = if parts.accepts_source { prepared.accepting_source() } else { prepared };
        prepared.check_keeper()?;
        let source = KafkaSource::open(source_settings, prepared.positions()).await?;
        prepared.start(Box::new(source), world).await
    }

    /// Opens all of a flow but its source, which wants to know who tells the positions.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub async fn prepare(flow: Arc<Flow>, world: &World) -> Result<Prepared> {
        let reader = Arc::new(TableReader::new(world.stores.clone(), Arc::clone(&world.catalog)));
        let transform = Transform::compile_within(&flow, reader, world.settings.sql_memory_bytes.get()).await?;
        let watch = Watch::new(Arc::clone(&world.metrics));
        let dead_letter_place = dead_letter::location(&flow, &world.warehouse)?;
        register(world.catalog.as_ref(), world.registry.as_ref(), &flow.definition, dead_letter_place.clone()).await?;
        let opened = open_table(&flow, &transform, world, &watch).await?;
        let table = &flow.definition.table;
        let log = opened.landing.log().clone();
        let mut recorder = Recorder::new(Arc::clone(&world.catalog), table.name.clone(), log);
        recorder.repair(opened.version).await;
        let dead_letters = match dead_letter_place {
            Some((name, location)) => {
                let log = DeltaLog::open(&world.stores, &location)?;
                Some(open_dead_letters(&flow, world, &watch, (name, log)).await?)
            }
            None => None,
        };
        Ok(Prepared { flow, transform, watch, opened, recorder, dead_letters, accepts_source: false })
    }
}

impl Prepared {
    /// Returns who tells the positions.
    pub fn positions(&self) -> Arc<dyn TablePositions> {
        Arc::clone(&self.opened.positions)
    }

    /// Lets the flow read another cluster or topic than before, at the positions of the table, and take an upsert table
    /// over from another flow.
    #[must_use]
    pub fn accepting_source(self) -> Self {
        Self { accepts_source: true, ..self }
    }

    /// Returns the flow, reading `source`, which is closed when the flow cannot read it.
    ///
    /// # Errors
    /// `Data` when the source is not what the table's positions are of; `Invalid` when another flow keeps the table, or
    /// keys or sequence have types that cannot be compared.
    pub async fn start(self, mut source: Box<dyn Source>, world: &World) -> Result<FlowRun> {
        let checked = match self.check_keeper() {
            Ok(()) => self.check_source(&source.identity()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = checked {
            source.close().await?;
            return Err(error);
        }
        let Self { flow, transform, watch, mut opened, recorder, dead_letters, accepts_source } = self;
        if accepts_source {
            opened.landing.take_over();
        }
        let upkeep = upkeep_parts(&flow, flow.definition.table.location.clone(), world);
        let front = Front {
            decoder: Some(Decoder::new(&flow)?),
            transform: TransformStage::try_new(Arc::clone(&flow), transform)?,
            flow: Arc::clone(&flow),
            metrics: Arc::clone(&world.metrics),
            watch,
        };
        let back = Back {
            flow: Arc::clone(&flow),
            landing: opened.landing,
            dead_letters,
            recorder,
            upkeep: Upkeep::new(upkeep, opened.version),
            clock: Arc::clone(&world.clock),
            metrics: Arc::clone(&world.metrics),
            identity: source.identity(),
            run: world.run,
        };
        Ok(FlowRun {
            flow,
            source,
            front: Worker::new("front", front),
            back: Worker::new("back", back),
            splitter: Splitter::default(),
            metrics: Arc::clone(&world.metrics),
            tally: Tally::default(),
        })
    }
}

impl Prepared {
    /// Checks that no other flow keeps the table, unless the flow takes it over.
    fn check_keeper(&self) -> Result<()> {
        let (landing, definition) = (&self.opened.landing, &self.flow.definition);
        let checked = check_keeper(definition, &landing.state().metadata.configuration, landing.log().location());
        match checked {
            Err(error) if self.accepts_source && error.kind() == ErrorKind::Invalid => {
                tracing::warn!(flow = %self.flow.name(), error = %error.message(), "it takes the table over, as was asked for");
                Ok(())
            }
            checked => checked,
        }
    }

    async fn check_source(&self, found: &SourceIdentity) -> Result<()> {
        let (flow, topic) = (self.flow.name(), &self.flow.definition.source.topic);
        let checked = identity::check(&self.opened.landing, found, flow, topic).await;
        match checked {
            Err(error) if self.accepts_source && error.kind() == ErrorKind::Data => {
                tracing::warn!(%flow, %topic, error = %error.message(), "another source is read, as was asked for");
                Ok(())
            }
            checked => checked,
        }
    }
}

/// Registers a flow and makes its table, without reading a record.
///
/// # Errors
/// As of [`FlowRun::prepare`].
pub async fn ensure_table(flow: &Flow, world: &World) -> Result<()> {
    let reader = Arc::new(TableReader::new(world.stores.clone(), Arc::clone(&world.catalog)));
    let transform = Transform::compile_within(flow, reader, world.settings.sql_memory_bytes.get()).await?;
    let dead_letter_place = dead_letter::location(flow, &world.warehouse)?;
    register(world.catalog.as_ref(), world.registry.as_ref(), &flow.definition, dead_letter_place).await?;
    let log = DeltaLog::open(&world.stores, &flow.definition.table.location)?;
    let (mut blueprint, _) = blueprint(flow, &transform);
    set_interval(&mut blueprint.properties, world);
    blueprint.open_or_create(&log, world.clock.as_ref()).await.map(drop)
}

/// Returns what the flow's table has to be like, and for upserts the columns that order its rows.
fn blueprint(flow: &Flow, transform: &Transform) -> (Blueprint, Option<UpsertColumns>) {
    let table = &flow.definition.table;
    match &flow.change {
        Change::Append => (Blueprint::new(table, Arc::clone(&flow.table_schema), false), None),
        Change::Upsert { keys, sequence, stored_sequence, .. } => {
            let columns = UpsertColumns {
                declared: Arc::clone(&flow.table_schema),
                keys: keys.clone(),
                sequence: transform.sequence_types(),
                sequence_by: sequence_text(sequence),
                stored_sequence: stored_sequence.clone(),
            };
            let has_vectors = flow.upsert.mode == UpsertMode::MergeOnRead;
            let mut blueprint = Blueprint::new(table, columns.stored(), has_vectors);
            // As with vectors: each file that was written anew leaves a tombstone in every checkpoint until this has passed.
            let kept = blueprint.properties.entry("delta.deletedFileRetentionDuration".to_owned());
            kept.or_insert_with(|| "interval 1 days".to_owned());
            (blueprint, Some(columns))
        }
    }
}

/// Writes the setting into a table that is created and says nothing else, so that every engine keeps to it.
fn set_interval(properties: &mut BTreeMap<String, String>, world: &World) {
    let interval = world.settings.checkpoint_interval;
    properties.entry(CHECKPOINT_INTERVAL.to_owned()).or_insert_with(|| interval.to_string());
}

/// Returns what the file declares of a table and the table that is there holds otherwise: the name, both values.
fn kept<'a>(table: &'a Table, metadata: &'a Metadata) -> Vec<(&'a str, &'a str, &'a str)> {
    let comment = table.comment.iter().map(|comment| ("COMMENT", comment, metadata.description.as_ref()));
    let held = |key: &String| metadata.configuration.get(key);
    // The program's own properties are read from the file, whatever the table holds.
    let properties = table.properties.iter().filter(|(key, _)| !key.starts_with("alluvium."));
    let properties = properties.map(|(key, value)| (key.as_str(), value, held(key)));
    let differing = comment.chain(properties).filter(|(_, declared, held)| *held != Some(*declared));
    differing.map(|(what, declared, held)| (what, declared.as_str(), held.map_or("", String::as_str))).collect()
}

async fn open_table(flow: &Flow, transform: &Transform, world: &World, watch: &Watch) -> Result<Opened> {
    let table = &flow.definition.table;
    let log = DeltaLog::open(&world.stores, &table.location)?;
    prove_conditional_create(log.store(), &table.location, world.clock.as_ref()).await?;
    let folder = DataFolder {
        store: Arc::clone(log.store()),
        location: table.location.clone(),
        partitioned_by: table.partitioned_by.clone(),
        clock: Arc::clone(&world.clock),
    };
    let (mut blueprint, columns) = blueprint(flow, transform);
    set_interval(&mut blueprint.properties, world);
    let known_at = world.clock.now();
    let state = blueprint.open_or_create(&log, world.clock.as_ref()).await?;
    check_key(&flow.definition, &state.metadata.configuration, &table.location)?;
    if columns.as_ref().is_some_and(|columns| columns.stored_sequence.is_none()) {
        check_sequence(&flow.definition, &state.metadata.configuration, &table.location)?;
    }
    for (what, declared, held) in kept(table, &state.metadata) {
        tracing::warn!(
            flow = %flow.name(), table = %table.name, what, declared, held,
            "the table was there before and stays as it is: change it with ALTER TABLE"
        );
    }
    let writer: Box<dyn Writer> = match columns {
        None => Box::new(AppendWriter::new(folder)),
        Some(columns) => {
            check_takes_changes(&log, &state)?;
            let bounds = &world.settings.index;
            let disk = bounds.snapshot_folder.as_ref().map(|folder| SnapshotDisk::open(&world.stores, folder));
            let settings = UpsertSettings {
                retention: flow.tombstone_retention,
                memory_bytes_max: bounds.memory_bytes_max,
                budget: Arc::clone(&world.index_budget),
                order_cache_bytes: bounds.order_cache_bytes,
                snapshot_interval: bounds.snapshot_interval,
                snapshot_disk: disk.transpose()?,
                options: flow.upsert,
                inline_bytes_max: world.inline_bytes_max,
            };
            let writer = UpsertWriter::open(folder, columns, &state, settings).await?;
            world.lookups.register(flow.name(), &table.name, writer.lookup());
            Box::new(writer)
        }
    };
    let ids = AppIds::of_table(flow.name(), &flow.definition.source.topic);
    let positions = Arc::new(NewestPositions::new(log.clone(), ids.clone(), state.clone()));
    let version = state.version;
    let parts = LandingParts { log, state, writer, ids, known_at };
    let landing = Landing::new(parts, Arc::clone(&world.clock), land_limits(world), watch.clone());
    Ok(Opened { landing, positions, version })
}

async fn open_dead_letters(
    flow: &Arc<Flow>,
    world: &World,
    watch: &Watch,
    (table, log): (TableName, DeltaLog),
) -> Result<(DeadLetters, Recorder)> {
    let place = DeadLetterPlace {
        log: log.clone(),
        table: &table,
        clock: Arc::clone(&world.clock),
        limits: land_limits(world),
        watch: watch.clone(),
        checkpoint_interval: world.settings.checkpoint_interval.get(),
    };
    let upkeep = upkeep_parts(flow, log.location().clone(), world);
    let dead_letters = DeadLetters::open(Arc::clone(flow), place).await?.with_upkeep(upkeep);
    let mut recorder = Recorder::new(Arc::clone(&world.catalog), table, log);
    recorder.repair(dead_letters.version()).await;
    Ok((dead_letters, recorder))
}

fn upkeep_parts(flow: &Flow, location: Location, world: &World) -> UpkeepParts {
    UpkeepParts {
        stores: world.stores.clone(),
        location,
        flow: flow.name().clone(),
        checkpoint_interval: world.settings.checkpoint_interval.get(),
        settings: world.settings.upkeep.clone(),
        clock: Arc::clone(&world.clock),
        metrics: Arc::clone(&world.metrics),
    }
}

fn land_limits(world: &World) -> LandLimits {
    LandLimits {
        attempts_max: world.settings.commit_attempts.get(),
        wait_min: world.settings.retry_wait_min,
        wait_max: world.settings.retry_wait_max,
        inline_bytes_max: world.inline_bytes_max,
    }
}

/// Processes that run the same flow share the topic's partitions.
fn group_id(flow: &Flow) -> String {
    flow.definition.source.options.get("group.id").cloned().unwrap_or_else(|| format!("alluvium-{}", flow.name()))
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::Error;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_existing_table_keeps_is_told() -> Result<()> {
        let table: Table = serde_json::from_value(json!({
            "name": "silver.orders", "location": "memory:///lake/silver/orders", "columns": [], "primary_key": [],
            "partitioned_by": [], "comment": "new words", "properties": {
                "delta.logRetentionDuration": "interval 30 days", "delta.checkpointInterval": "10",
                "delta.randomizeFilePrefixes": "true", "alluvium.tombstone.retention": "1 day"},
        }))
        .map_err(|source| Error::internal("test table").with_source(source))?;
        let mut metadata = Metadata { description: Some("old words".to_owned()), ..Metadata::default() };
        for (key, value) in [("delta.logRetentionDuration", "interval 7 days"), ("delta.checkpointInterval", "10")] {
            metadata.configuration.insert(key.to_owned(), value.to_owned());
        }
        let expected = [
            ("COMMENT", "new words", "old words"),
            ("delta.logRetentionDuration", "interval 30 days", "interval 7 days"),
            ("delta.randomizeFilePrefixes", "true", ""),
        ];
        assert_eq!(kept(&table, &metadata), expected);
        Ok(())
    }
}
