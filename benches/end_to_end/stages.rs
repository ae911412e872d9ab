//! Stages alone: what each of them costs when nothing else runs, on the records that the whole flow reads.
//!
//! Everything that a stage needs is made before its clock starts, and stays in memory: only the source's peak of memory
//! means anything here.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::str::FromStr;
use std::sync::Arc;

use alluvium::decode::Decoder;
use alluvium::hop::{Changes, Decoded, Fetched};
use alluvium::source::kafka::{KafkaSettings, KafkaSource};
use alluvium::source::{Fetch, Source, TablePositions};
use alluvium::transform::TransformStage;
use alluvium::write::parquet::encode;
use alluvium_benches::Workload;
use alluvium_benches::meter::{Meter, Spent};
use alluvium_catalog::store::MemoryStore;
use alluvium_catalog::{Clock, Error, Offset, Partition, Result, StorageSettings, Stores, SystemClock};
use alluvium_sql::{Flow, TableReader, Transform};
use async_trait::async_trait;
use tokio::runtime::Runtime;

use crate::batches::fetched;
use crate::flow::{FlowKind, compile};
use crate::measure::{Measured, Plan};

/// A stage, measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The source: records into our batches.
    Consume,
    /// Bytes to Arrow.
    Decode,
    /// The flow's SQL where every row is added.
    TransformAppend,
    /// The flow's SQL, and the newest row of each key.
    TransformUpsert,
    /// Arrow to parquet.
    Encode,
}

impl Stage {
    pub(crate) const ALL: [Self; 5] =
        [Self::Consume, Self::Decode, Self::TransformAppend, Self::TransformUpsert, Self::Encode];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Consume => "consume",
            Self::Decode => "decode",
            Self::TransformAppend => "transform-append",
            Self::TransformUpsert => "transform-upsert",
            Self::Encode => "encode",
        }
    }

    /// Returns the stages that a whole run of a flow consists of.
    pub(crate) fn of(kind: FlowKind) -> [Self; 4] {
        let transform = if kind == FlowKind::Append { Self::TransformAppend } else { Self::TransformUpsert };
        [Self::Consume, Self::Decode, transform, Self::Encode]
    }

    /// Returns the flow that the stage is measured with.
    pub(crate) fn flow(self) -> FlowKind {
        if self == Self::TransformUpsert { FlowKind::Upsert } else { FlowKind::Append }
    }
}

impl FromStr for Stage {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|stage| stage.as_str() == text);
        found.ok_or_else(|| Error::invalid(format!("there is no stage {text}")))
    }
}

/// Returns a runtime like the engine's.
pub(crate) fn runtime() -> Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(8 << 20).build();
    runtime.map_err(|cause| Error::internal("cannot start a runtime").with_source(cause))
}

/// Measures one stage as `plan` says.
pub(crate) fn measure(stage: Stage, plan: &Plan) -> Result<Measured> {
    let runtime = runtime()?;
    runtime.block_on(async {
        let flow = compile(&plan.sql, &plan.warehouse).await?;
        if stage == Stage::Consume {
            return consume(&flow).await;
        }
        let workload = Workload::open(&plan.workload)?.with_records(plan.records);
        let batches = fetched(&workload, flow.batch.rows_max)?;
        let bytes = batches.iter().map(|batch| batch.records.bytes() as u64).sum();
        let spent = match stage {
            Stage::Consume | Stage::Decode => decode_alone(&flow, batches)?,
            Stage::TransformAppend | Stage::TransformUpsert => {
                let decoded = decode(&flow, batches)?;
                transform_alone(&flow, decoded).await?
            }
            Stage::Encode => {
                let changes = transform(&flow, decode(&flow, batches)?).await?;
                encode_alone(&changes)?
            }
        };
        Ok(Measured { records: plan.records, bytes, spent })
    })
}

/// A table that has no position yet.
#[derive(Debug)]
struct FromTheStart;

#[async_trait]
impl TablePositions for FromTheStart {
    async fn positions(&self) -> Result<BTreeMap<Partition, Offset>> {
        Ok(BTreeMap::new())
    }
}

async fn consume(flow: &Flow) -> Result<Measured> {
    let definition = &flow.definition;
    let group = format!("bench-{}", SystemClock.new_id().simple());
    let settings = KafkaSettings {
        startup: flow.startup.clone(),
        limits: flow.batch,
        once: true,
        ..KafkaSettings::new(definition.connection.clone(), definition.source.topic.clone(), group)
    };
    let mut measured = Measured::default();
    let meter = Meter::start()?;
    let mut source = KafkaSource::open(settings, Arc::new(FromTheStart)).await?;
    loop {
        match source.fetch().await? {
            Fetch::Batch(batch) => {
                measured.records += batch.records.len() as u64;
                measured.bytes += batch.records.bytes() as u64;
            }
            Fetch::Idle => {}
            Fetch::Drained | Fetch::Stopped => break,
        }
    }
    source.close().await?;
    measured.spent = meter.stop()?;
    Ok(measured)
}

fn decode(flow: &Flow, batches: Vec<Fetched>) -> Result<Vec<Decoded>> {
    let mut decoder = Decoder::new(flow)?;
    batches.into_iter().map(|batch| decoder.decode(batch)).collect()
}

fn decode_alone(flow: &Flow, batches: Vec<Fetched>) -> Result<Spent> {
    let mut decoder = Decoder::new(flow)?;
    let meter = Meter::start()?;
    for batch in batches {
        black_box(decoder.decode(batch)?);
    }
    meter.stop()
}

async fn stage(flow: &Arc<Flow>) -> Result<TransformStage> {
    let reader = TableReader::new(Stores::new(StorageSettings::default()), Arc::new(MemoryStore::default()));
    let transform = Transform::compile(flow, Arc::new(reader)).await?;
    TransformStage::try_new(Arc::clone(flow), transform)
}

async fn transform(flow: &Arc<Flow>, decoded: Vec<Decoded>) -> Result<Vec<Changes>> {
    let mut stage = stage(flow).await?;
    let mut changes = Vec::with_capacity(decoded.len());
    for batch in decoded {
        changes.push(stage.apply(batch).await?);
    }
    Ok(changes)
}

async fn transform_alone(flow: &Arc<Flow>, decoded: Vec<Decoded>) -> Result<Spent> {
    let mut stage = stage(flow).await?;
    let meter = Meter::start()?;
    for batch in decoded {
        black_box(stage.apply(batch).await?);
    }
    meter.stop()
}

fn encode_alone(changes: &[Changes]) -> Result<Spent> {
    let meter = Meter::start()?;
    for batch in changes {
        black_box(encode(&batch.rows)?);
    }
    meter.stop()
}
