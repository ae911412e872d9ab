//! What a kind of table is, and how one of every kind comes to be: by the real program, from topics of the embedded
//! broker.
//!
//! A kind says what its log must show, so that no kind silently becomes another one. The kinds themselves stand in
//! `kinds`.

use std::collections::BTreeMap;
use std::fmt::Write;

use alluvium::source::kafka::embedded::{EmbeddedBroker, Message};
use alluvium_catalog::Partition;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde_json::Value;

use crate::harness::TestResult;
use crate::harness::lake::Lake;
use crate::harness::program::{LIMIT, Program};
use crate::harness::reader::{self, LogVersion};
use crate::harness::shop::embedded_options;

/// Versions between two checkpoints, for kinds that have some.
const CHECKPOINT_INTERVAL: &str = "3";

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

/// What makes a table one of its kind; seen in its log.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shows {
    /// An add with a deletion vector.
    Vectors,
    /// A remove without an add of the same file: all of its rows were superseded.
    FilesRemovedWhole,
    /// A checkpoint, which `_last_checkpoint` names.
    Checkpoint,
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

/// Writes a table of each of `kinds` into `lake`, and checks that each shows what it should.
pub(super) async fn write_all(lake: &Lake, kinds: &[Kind]) -> TestResult<Program> {
    let topics: Vec<(&str, i32)> = flows(kinds).map(|(name, _)| (name, 1)).collect();
    let broker = EmbeddedBroker::start(&topics)?;
    let program = Program::on(lake);
    for half in [Half::First, Half::Second] {
        for (name, flow) in flows(kinds) {
            for (index, record) in half.of(&(flow.records)()).iter().enumerate() {
                produce(&broker, name, index, record).await?;
            }
        }
        broker.flush().await?;
        run(lake, &program, kinds, broker.bootstrap())?;
        if matches!(half, Half::First) {
            cluster(&program, kinds)?;
        }
    }
    for kind in kinds {
        check(lake, kind).await?;
    }
    Ok(program)
}

/// Sorts what the first process has landed, so that the second lands on top of it: rows beside it, and vectors for it.
fn cluster(program: &Program, kinds: &[Kind]) -> TestResult {
    for kind in kinds.iter().filter(|kind| kind.shows.iter().any(|shows| matches!(shows, Shows::Clustered))) {
        let done = program.json(&["optimize", &format!("lake.{}", kind.name), "--json"])?;
        if done["files_after"] != 1 {
            return Err(format!("{} was not clustered: {done}", kind.name).into());
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
        let Flow { columns, clauses, effect, batch, .. } = flow;
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
CREATE FLOW {name}_flow WITH ('commit.interval' = '200 ms', 'commit.rows' = '{batch}') AS {statement};
"
        )?;
    }
    Ok(sql)
}

async fn check(lake: &Lake, kind: &Kind) -> TestResult {
    let table = lake.table(&format!("lake.{}", kind.name))?;
    let log = reader::log(lake, &table).await?;
    let store = lake.stores().open(&table)?;
    let checkpointed = store.head(&Path::from("_delta_log/_last_checkpoint")).await.is_ok();
    for shows in kind.shows {
        if !shows.is_in(&log, checkpointed) {
            return Err(
                format!("{} does not show {shows:?} in {} versions:\n{:#?}", kind.name, log.len(), log.last()).into()
            );
        }
    }
    let expects_checkpoint = kind.shows.iter().any(|shows| matches!(shows, Shows::Checkpoint));
    if checkpointed && !expects_checkpoint {
        return Err(format!("{} has a checkpoint, which its kind does not speak of", kind.name).into());
    }
    Ok(())
}

impl Shows {
    fn is_in(self, log: &[LogVersion], checkpointed: bool) -> bool {
        let actions = |kind: &'static str| log.iter().flat_map(move |entry| entry.actions(kind));
        match self {
            Self::Vectors => actions("add").any(|add| !add["deletionVector"].is_null()),
            Self::FilesRemovedWhole => log.iter().any(|entry| {
                entry.actions("remove").any(|gone| entry.actions("add").all(|add| add["path"] != gone["path"]))
            }),
            Self::Checkpoint => checkpointed,
            Self::Versions(least) => log.len() >= least,
            Self::NullPartition => actions("add").any(|add| {
                add["partitionValues"].as_object().is_some_and(|values| values.values().any(Value::is_null))
            }),
            Self::NoFiles => actions("add").next().is_none(),
            Self::WriterFeature(name) => actions("protocol").any(|protocol| {
                protocol["writerFeatures"].as_array().is_some_and(|listed| listed.iter().any(|own| own == name))
            }),
            Self::Clustered => actions("add").any(|add| add["clusteringProvider"] == "alluvium"),
            Self::ReaderVersion1 => actions("protocol").all(|protocol| protocol["minReaderVersion"] == 1),
        }
    }
}

/// Returns the schema of each table as its log has it: every column, hidden ones too.
pub(super) async fn schemas(lake: &Lake, kinds: &[Kind]) -> TestResult<BTreeMap<&'static str, Value>> {
    let mut schemas = BTreeMap::new();
    for kind in kinds {
        let log = reader::log(lake, &lake.table(&format!("lake.{}", kind.name))?).await?;
        let newest = log.iter().rev().find_map(|entry| entry.actions("metaData").next());
        let text = newest.and_then(|metadata| metadata["schemaString"].as_str());
        schemas.insert(kind.name, serde_json::from_str(text.ok_or("the log has no schema")?)?);
    }
    Ok(schemas)
}
