//! The first half of a flow: fetched records to changes. It touches no table but those that the flow's SQL looks up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alluvium_catalog::{Error, Result, Span};
use alluvium_sql::Flow;
use tracing::Instrument;

use super::split::Part;
use crate::decode::Decoder;
use crate::hop::{Changes, Decoded, Fetched};
use crate::invariant::{Law, Watch};
use crate::metrics::{BatchOutcome, Metrics, Stage};
use crate::transform::TransformStage;

/// Prepares the batches of one flow.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) flow: Arc<Flow>,
    pub(super) decoder: Option<Decoder>,
    pub(super) transform: TransformStage,
    pub(super) metrics: Arc<Metrics>,
    pub(super) watch: Watch,
}

/// A batch that is ready to land.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) changes: Changes,
    /// What the source must still hold when it lands.
    pub(super) handed_out: Span,
    /// Bytes of keys and values.
    pub(super) bytes: u64,
    /// The newest timestamp of its records, epoch milliseconds.
    pub(super) newest: Option<i64>,
    /// The batch's span in traces.
    pub(super) trace: tracing::Span,
}

impl Front {
    /// Turns fetched records into changes of the table.
    ///
    /// # Errors
    /// As of [`Decoder::decode`] and [`TransformStage::apply`].
    pub(super) async fn prepare(&mut self, part: Part) -> Result<Ready> {
        let Part { fetched, handed_out } = part;
        let trace = tracing::info_span!("batch", flow = %self.flow.name(), span = %fetched.span);
        let bytes = fetched.records.bytes() as u64;
        let newest = fetched.records.iter().filter_map(|record| record.timestamp_ms).max();
        self.time(Stage::Fetch, fetched.took);
        let prepared = self.shape(fetched).instrument(trace.clone()).await;
        if prepared.is_err() {
            self.metrics.batch(self.flow.name(), BatchOutcome::Failed);
        }
        Ok(Ready { changes: prepared?, handed_out, bytes, newest, trace })
    }

    async fn shape(&mut self, fetched: Fetched) -> Result<Changes> {
        let decoded = self.decode(fetched).await?;
        self.time(Stage::Decode, decoded.spent.decode);
        let changes = self.transform.apply(decoded).instrument(tracing::info_span!("transform")).await?;
        self.time(Stage::Transform, changes.spent.transform);
        Ok(changes)
    }

    async fn decode(&mut self, fetched: Fetched) -> Result<Decoded> {
        let span = tracing::info_span!("decode", records = fetched.records.len());
        let stopped = || Error::internal("the decoder stopped in an earlier batch");
        let mut decoder = self.decoder.take().ok_or_else(stopped)?;
        let work = tokio::task::spawn_blocking(move || {
            let _entered = span.entered();
            let (n_records, begun) = (fetched.records.len(), Instant::now());
            let decoded = decoder.decode(fetched);
            (decoder, n_records, decoded, begun.elapsed())
        });
        let (decoder, n_records, decoded, took) =
            work.await.map_err(|cause| Error::internal("the decoder stopped").with_source(cause))?;
        self.decoder = Some(decoder);
        let mut decoded = decoded?;
        decoded.spent.decode = took;
        let kept = decoded.row_records.len() + decoded.tombstone_records.len() + decoded.rejects.len();
        if !self.watch.check(Law::DecodeKeepsEveryRecord, kept == n_records, || format!("{n_records} in, {kept} out")) {
            return Err(Error::internal(format!("{kept} of {n_records} records of a batch were decoded")));
        }
        Ok(decoded)
    }

    fn time(&self, stage: Stage, took: Duration) {
        self.metrics.stage(self.flow.name(), stage, took);
    }
}
