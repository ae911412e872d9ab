//! Batches of distinct random keys, led through decode and transform as a flow would, so that both sides get the same.

use std::sync::Arc;
use std::time::Duration;

use alluvium::decode::Decoder;
use alluvium::hop::{Changes, Decoded, Fetched, Record, Records};
use alluvium::transform::TransformStage;
use alluvium_benches::workload::order;
use alluvium_catalog::store::MemoryStore;
use alluvium_catalog::{Error, Location, Offset, OffsetRange, Partition, Result, Span, StorageSettings, Stores};
use alluvium_sql::{TableReader, Transform};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::Plan;
use crate::flow::{self, Batches, FlowKind};

/// Makes batches, each of them younger than the one before.
#[derive(Debug)]
pub(crate) struct Rows {
    decoder: Decoder,
    transform: TransformStage,
    chance: StdRng,
    n_keys: u64,
    next: u64,
}

impl Rows {
    pub(crate) async fn open(plan: &Plan) -> Result<Self> {
        let file = plan.answer.with_extension("sql");
        std::fs::write(&file, flow::sql(FlowKind::Upsert, "localhost:9092", "orders", Batches::default()))
            .map_err(|cause| Error::unavailable(format!("cannot write {}", file.display())).with_source(cause))?;
        let warehouse: Location = plan.folder.display().to_string().parse()?;
        let flow = flow::compile(&file, &warehouse).await?;
        let reader = TableReader::new(Stores::new(StorageSettings::default()), Arc::new(MemoryStore::default()));
        let transform = Transform::compile(&flow, Arc::new(reader)).await?;
        Ok(Self {
            decoder: Decoder::new(&flow)?,
            transform: TransformStage::try_new(Arc::clone(&flow), transform)?,
            chance: StdRng::seed_from_u64(42),
            n_keys: plan.rows,
            next: 0,
        })
    }

    /// Returns changes of `n_keys` distinct keys of the table, decoded.
    pub(crate) fn draw(&mut self, n_keys: u64) -> Result<Decoded> {
        let too_many = || Error::invalid(format!("{n_keys} distinct keys cannot be drawn from {}", self.n_keys));
        let (wanted, all) = usize::try_from(n_keys).ok().zip(usize::try_from(self.n_keys).ok()).ok_or_else(too_many)?;
        if wanted > all {
            return Err(too_many());
        }
        let first = self.next;
        let note = "x".repeat(50);
        let mut records = Records::default();
        for key in rand::seq::index::sample(&mut self.chance, all, wanted) {
            let value = order(key as u64, self.next, &note, &mut self.chance);
            let (partition, offset) = (Partition(0), offset(self.next));
            let value = Some(value.as_slice());
            records.push(Record { partition, offset, timestamp_ms: None, key: None, value }, Vec::new());
            self.next += 1;
        }
        let mut span = Span::new();
        span.extend(Partition(0), OffsetRange { first: offset(first), next: offset(self.next), records: n_keys })
            .map_err(|misfit| Error::internal(format!("the batch is not in order: {misfit}")))?;
        self.decoder.decode(Fetched { records, span, took: Duration::ZERO })
    }

    /// Leaves the newest row of each key.
    pub(crate) async fn collapse(&mut self, decoded: Decoded) -> Result<Changes> {
        self.transform.apply(decoded).await
    }
}

fn offset(index: u64) -> Offset {
    Offset(i64::try_from(index).unwrap_or(i64::MAX))
}
