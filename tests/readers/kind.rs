//! What a kind of table is, and how one of every kind comes to be: by the real program, from topics of the embedded
//! broker.
//!
//! A kind says what its log must show, so that no kind silently becomes another one. The kinds themselves stand in
//! `kinds`.

use std::collections::HashSet;
use std::fmt::Write;
use std::time::Duration;

use alluvium::delta::log::DeltaLog;
use alluvium::delta::state::TableState;
use alluvium::source::kafka::embedded::{EmbeddedBroker, Message};
use alluvium_catalog::Partition;
use deltalake::kernel::StorageType;
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore};
use serde_json::Value;

use crate::harness::TestResult;
use crate::harness::lake::Lake;
use crate::harness::program::{LIMIT, Program};
use crate::harness::reader::{self, LogVersion};
use crate::harness::shop::embedded_options;

/// Versions between two checkpoints, for kinds that have some.
const CHECKPOINT_INTERVAL: &str = "3";

/// How long tables keep their logs that clean them up.
const LOG_RETENTION: Duration = Duration::from_secs(1);

/// A table to be written and read.
#[derive(Debug)]
pub(super) struct Kind {
    /// The table is `lake.<name>`.
    pub(super) name: &'static str,
    pub(super) made: Made,
    /// What its log has to show.
    pub(super) shows: &'static [Shows],
    /// Predicates, in SQL that all readers share: each is a question of its own, on which statistics and partition
    /// values decide what a reader looks at.
    pub(super) filters: &'static [&'static str],
}

/// Where a table comes from.
#[derive(Debug)]
pub(super) enum Made {
    /// A flow of its own.
    By(Flow),
    /// The dead letters of the flow of the kind that is named.
    FromRejectsOf(&'static str),
}

/// A flow from a topic, with the table's columns, into the table.
#[derive(Debug)]
pub(super) struct Flow {
    /// The columns as SQL.
    pub(super) columns: &'static str,
    /// What follows the columns in `CREATE STREAMING TABLE`.
    pub(super) clauses: &'static str,
    pub(super) effect: Effect,
    /// Whether the table has checkpoints.
    pub(super) has_checkpoints: bool,
    /// How long a commit waits for its records.
    pub(super) interval: &'static str,
    /// Records of a commit.
    pub(super) batch: usize,
    pub(super) records: fn() -> Vec<Produced>,
}

/// What a flow does with a record.
#[derive(Debug)]
pub(super) enum Effect {
    Append,
    /// Replaces the row with the same key, where `seq` is newer; `op = 'delete'` deletes it.
    Upsert {
        keys: &'static str,
    },
}

/// A record for the topic.
#[derive(Debug)]
pub(super) enum Produced {
    Json(Value),
    /// Bytes that are no row.
    Bytes(&'static [u8]),
}

/// What makes a table one of its kind; seen in its log, or in its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shows {
    /// An add with a deletion vector.
    Vectors,
    /// A file that holds the vectors of several data files.
    VectorFile,
    /// A remove without an add of the same file: all of its rows were superseded.
    FilesRemovedWhole,
    /// A checkpoint, which `_last_checkpoint` names.
    Checkpoint,
    /// A checkpoint of version 2, with its files in sidecars.
    Sidecars,
    /// A log that has lost its beginning, so that nobody reads the table without a checkpoint.
    LogCleanedUp,
    /// A file that `alluvium optimize` has made between two processes, with a vector of the second.
    Compacted,
    /// A file that `alluvium optimize` has made, of each partition one, beside files of the second process.
    Merged,
    /// No data file but those of the newest version, as `alluvium vacuum` has removed all others.
    Vacuumed,
    /// At least so many versions.
    Versions(usize),
    /// A partition value that is null.
    NullPartition,
    /// No data file.
    NoFiles,
    /// A feature that writers must know.
    WriterFeature(&'static str),
    /// A protocol without lists of features for readers, as old ones know it.
    ReaderVersion1,
    /// A file that was sorted by the table's clustering columns.
    Clustered,
}

impl Kind {
    fn has(&self, shows: Shows) -> bool {
        self.shows.contains(&shows)
    }

    fn is_compacted(&self) -> bool {
        self.has(Shows::Clustered) || self.has(Shows::Compacted) || self.has(Shows::Merged)
    }

    fn table(&self) -> String {
        format!("lake.{}", self.name)
    }

    /// Returns a version in the middle of the table's life. Nothing where there has been one only, of an empty table, and where
    /// what older ones are made of was cleaned up.
    pub(super) async fn older_version(&self, lake: &Lake) -> TestResult<Option<u64>> {
        if self.has(Shows::LogCleanedUp) || self.has(Shows::Vacuumed) || self.has(Shows::NoFiles) {
            return Ok(None);
        }
        let log = reader::log(lake, &lake.table(&self.table())?).await?;
        let [older @ .., _] = log.as_slice() else { return Err(format!("{} has no version", self.name).into()) };
        let middle = older.get(log.len() / 2).or(older.last());
        let middle = middle.ok_or_else(|| format!("{} has one version only", self.name))?;
        Ok(Some(middle.version))
    }
}

/// Writes a table of each of `kinds` into `lake`, and checks that each shows what it should.
pub(super) async fn write_all(lake: &Lake, kinds: &[Kind]) -> TestResult<Program> {
    let topics: Vec<(&str, i32)> = flows(kinds).map(|(name, _)| (name, 1)).collect();
    let broker = EmbeddedBroker::start(&topics)?;
    let program = Program::on(lake);
    let mut compacted = HashSet::new();
    for half in [Half::First, Half::Second] {
        for (name, flow) in flows(kinds) {
            for (index, record) in half.of(&(flow.records)()).iter().enumerate() {
                produce(&broker, name, index, record).await?;
            }
        }
        broker.flush().await?;
        run(lake, &program, kinds, broker.bootstrap())?;
        match half {
            Half::First => {
                compacted = compact(lake, &program, kinds).await?;
                // So that the second process finds versions that some of the tables need not keep.
                tokio::time::sleep(LOG_RETENTION).await;
            }
            Half::Second => vacuum(&program, kinds)?,
        }
    }
    for kind in kinds {
        check(lake, kind, &compacted).await?;
    }
    Ok(program)
}

/// Compacts what the first process has landed, so that the second lands on top of it: rows beside it, and vectors for it.
/// Returns the files that came of it.
async fn compact(lake: &Lake, program: &Program, kinds: &[Kind]) -> TestResult<HashSet<String>> {
    let mut files = HashSet::new();
    for kind in kinds.iter().filter(|kind| kind.is_compacted()) {
        let done = program.json(&["optimize", &kind.table(), "--json"])?;
        let n_partitions = if kind.has(Shows::Merged) { state(lake, kind).await?.files.len() } else { 1 };
        if done["files_after"] != n_partitions {
            return Err(format!("{} was not compacted: {done}", kind.name).into());
        }
        files.extend(state(lake, kind).await?.files.into_keys());
    }
    Ok(files)
}

fn vacuum(program: &Program, kinds: &[Kind]) -> TestResult {
    for kind in kinds.iter().filter(|kind| kind.has(Shows::Vacuumed)) {
        let done = program.json(&["vacuum", &kind.table(), "--retention", "0s", "--force", "--json"])?;
        if done["removed"].as_u64().is_none_or(|removed| removed == 0) {
            return Err(format!("nothing of {} was vacuumed: {done}", kind.name).into());
        }
    }
    Ok(())
}

/// What a process lands; the next one begins with what it finds in the tables.
#[derive(Debug, Clone, Copy)]
enum Half {
    First,
    Second,
}

impl Half {
    fn of(self, records: &[Produced]) -> &[Produced] {
        let (first, second) = records.split_at(records.len() / 2);
        match self {
            Self::First => first,
            Self::Second => second,
        }
    }
}

/// Lands what the topics hold: the tables with checkpoints by one process, those without by another.
fn run(lake: &Lake, program: &Program, kinds: &[Kind], bootstrap: &str) -> TestResult {
    // What compacts is the command that a kind speaks of: what ends beside the batches is chance.
    program.write("alluvium.toml", "[upkeep]\ncompaction = false\n")?;
    let mut running = Vec::new();
    for (file, has_checkpoints, interval) in
        [("plain.sql", false, "10000"), ("checkpointed.sql", true, CHECKPOINT_INTERVAL)]
    {
        let chosen = flows(kinds).filter(|(_, flow)| flow.has_checkpoints == has_checkpoints);
        program.write(file, &pipeline(bootstrap, kinds, chosen)?)?;
        let program = Program::on(lake).with("ALLUVIUM_CHECKPOINT_INTERVAL", interval);
        running.push(program.start(&["run", "--once", file])?);
    }
    for process in running {
        process.wait(LIMIT)?.check(0)?;
    }
    Ok(())
}

fn flows(kinds: &[Kind]) -> impl Iterator<Item = (&'static str, &Flow)> {
    kinds.iter().filter_map(|kind| match &kind.made {
        Made::By(flow) => Some((kind.name, flow)),
        Made::FromRejectsOf(_) => None,
    })
}

async fn produce(broker: &EmbeddedBroker, topic: &str, index: usize, record: &Produced) -> TestResult {
    let value = match record {
        Produced::Json(value) => value.to_string().into_bytes(),
        Produced::Bytes(bytes) => bytes.to_vec(),
    };
    let key = [b'k', 0xff, u8::try_from(index % 256)?];
    let message = Message {
        partition: Some(Partition(0)),
        key: index.is_multiple_of(2).then_some(&key[..]),
        value: Some(&value),
        headers: (0..index % 3).map(|at| (format!("h{at}"), (at == 0).then(|| vec![0, 0xfe].into()))).collect(),
        timestamp_ms: Some(1_772_000_000_123 + i64::try_from(index)?),
    };
    Ok(broker.produce(topic, message).await?)
}

fn pipeline<'a>(
    bootstrap: &str,
    kinds: &[Kind],
    chosen: impl Iterator<Item = (&'static str, &'a Flow)>,
) -> TestResult<String> {
    let mut sql = format!("CREATE CONNECTION broker TYPE kafka WITH ({});\n", embedded_options(bootstrap));
    for (name, flow) in chosen {
        let Flow { columns, clauses, effect, interval, batch, .. } = flow;
        let rejects = kinds.iter().find(|kind| matches!(kind.made, Made::FromRejectsOf(of) if of == name));
        let rejects = rejects.map_or_else(String::new, |kind| {
            format!(", 'error-handling.mode' = 'log', 'error-handling.log.target' = 'lake.{}'", kind.name)
        });
        let (key, statement) = match effect {
            Effect::Append => {
                (String::new(), format!("INSERT INTO lake.{name} BY NAME SELECT * FROM STREAM({name}_in)"))
            }
            Effect::Upsert { keys } => (
                format!(", PRIMARY KEY ({keys}) NOT ENFORCED"),
                format!(
                    "AUTO CDC INTO lake.{name} FROM STREAM({name}_in) KEYS ({keys}) APPLY AS DELETE WHEN op = 'delete' \
                     SEQUENCE BY seq STORED AS SCD TYPE 1"
                ),
            ),
        };
        write!(
            sql,
            "
CREATE SOURCE {name}_in ({columns}) WITH ('connection' = 'broker', 'topic' = '{name}'{rejects});
CREATE STREAMING TABLE lake.{name} ({columns}{key}) {clauses};
CREATE FLOW {name}_flow WITH ('commit.interval' = '{interval}', 'commit.rows' = '{batch}') AS {statement};
"
        )?;
    }
    Ok(sql)
}

/// What there is of a table.
#[derive(Debug)]
struct Seen<'a> {
    /// The versions that the log still has.
    log: Vec<LogVersion>,
    /// The newest version.
    state: TableState,
    /// The files in its folder.
    stored: Vec<String>,
    /// The files that were made by `alluvium optimize`, of this table and of others.
    compacted: &'a HashSet<String>,
}

async fn check(lake: &Lake, kind: &Kind, compacted: &HashSet<String>) -> TestResult {
    let location = lake.table(&kind.table())?;
    let listed: Vec<ObjectMeta> = lake.stores().open(&location)?.list(None).try_collect().await?;
    let seen = Seen {
        log: reader::log(lake, &location).await?,
        state: state(lake, kind).await?,
        stored: listed.into_iter().map(|file| file.location.to_string()).collect(),
        compacted,
    };
    for shows in kind.shows {
        if !shows.is_in(&seen) {
            let (name, log) = (kind.name, &seen.log);
            let newest = log.last();
            return Err(format!("{name} does not show {shows:?} in {} versions:\n{newest:#?}", log.len()).into());
        }
    }
    if Shows::Checkpoint.is_in(&seen) && !kind.has(Shows::Checkpoint) {
        return Err(format!("{} has a checkpoint, which its kind does not speak of", kind.name).into());
    }
    Ok(())
}

impl Shows {
    fn is_in(self, seen: &Seen<'_>) -> bool {
        let Seen { log, state, stored, compacted } = seen;
        let actions = |kind: &'static str| log.iter().flat_map(move |entry| entry.actions(kind));
        match self {
            Self::Vectors => actions("add").any(|add| !add["deletionVector"].is_null()),
            Self::VectorFile => {
                let vectors = state.files.values().filter_map(|add| add.deletion_vector.as_ref());
                let mut filed = vectors.filter(|vector| vector.storage_type == StorageType::UuidRelativePath);
                let mut files = HashSet::new();
                filed.any(|vector| !files.insert(&vector.path_or_inline_dv))
            }
            Self::FilesRemovedWhole => log.iter().any(|entry| {
                entry.actions("remove").any(|gone| entry.actions("add").all(|add| add["path"] != gone["path"]))
            }),
            Self::Checkpoint => stored.iter().any(|path| path == "_delta_log/_last_checkpoint"),
            Self::Sidecars => stored.iter().any(|path| path.starts_with("_delta_log/_sidecars/")),
            Self::LogCleanedUp => log.first().is_some_and(|oldest| oldest.version > 0),
            Self::Compacted => {
                state.files.values().any(|add| compacted.contains(&add.path) && add.deletion_vector.is_some())
            }
            Self::Merged => {
                let mut merged = state.files.keys().map(|path| compacted.contains(path));
                // Both are there.
                merged.clone().any(|is_merged| is_merged) && merged.any(|is_merged| !is_merged)
            }
            Self::Vacuumed => {
                let mut data = stored.iter().filter(|path| !path.starts_with('_') && path.ends_with(".parquet"));
                data.all(|path| state.files.contains_key(path))
            }
            Self::Versions(least) => log.len() >= least,
            Self::NullPartition => actions("add").any(|add| {
                add["partitionValues"].as_object().is_some_and(|values| values.values().any(Value::is_null))
            }),
            Self::NoFiles => actions("add").next().is_none(),
            Self::WriterFeature(name) => state.protocol.writer_features.iter().flatten().any(|own| own == name),
            Self::Clustered => actions("add").any(|add| add["clusteringProvider"] == "alluvium"),
            Self::ReaderVersion1 => actions("protocol").all(|protocol| protocol["minReaderVersion"] == 1),
        }
    }
}

/// Returns a table at its newest version.
pub(super) async fn state(lake: &Lake, kind: &Kind) -> TestResult<TableState> {
    let log = DeltaLog::open(&lake.stores(), &lake.table(&kind.table())?)?;
    Ok(TableState::load(&log).await?.ok_or_else(|| format!("there is no table {}", kind.name))?)
}
