//! The second half of a flow: changes to landed, recorded batches.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alluvium_catalog::{Clock, Input, Lineage, PartitionRange, Result, Span, Timestamp};
use alluvium_sql::Flow;
use tracing::Instrument;
use uuid::Uuid;

use super::front::Ready;
use super::split::Spending;
use super::{Advance, Ended};
use crate::commit::create::ENGINE_INFO;
use crate::commit::land::{Landing, Signature};
use crate::commit::{Landed, Outcome};
use crate::dead_letter::DeadLetters;
use crate::hop::{Changes, Reject};
use crate::metrics::{BatchOutcome, Metrics, Stage};
use crate::record::Recorder;
use crate::source::SourceIdentity;
use crate::upkeep::Upkeep;
use crate::write::Excess;

/// Lands the batches of one flow, one at a time and in order.
#[derive(Debug)]
pub(super) struct Back {
    pub(super) flow: Arc<Flow>,
    pub(super) landing: Landing,
    pub(super) dead_letters: Option<(DeadLetters, Recorder)>,
    pub(super) recorder: Recorder,
    pub(super) upkeep: Upkeep,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    /// What the records are read from.
    pub(super) identity: SourceIdentity,
    pub(super) run: Uuid,
}

impl Back {
    /// Lands a batch, if it can.
    pub(super) async fn land(&mut self, ready: Ready) -> Result<Ended> {
        let Ready { mut changes, bytes, newest, trace, .. } = ready;
        let (span, rejects) = (changes.span.clone(), std::mem::take(&mut changes.rejects));
        let signature = self.sign(&span);
        let work = async {
            self.land_rejects(&rejects, &span, &signature.lineage).await?;
            let outcome = self.stage_and_commit(changes, &signature).await?;
            if let Outcome::Landed(landed) = &outcome {
                self.record(landed).await;
            }
            Ok(outcome)
        };
        let landed = match work.instrument(trace).await {
            Ok(Outcome::Landed(landed)) => landed,
            Ok(Outcome::Fenced(_)) => {
                self.drop_batch("another process landed its records").await?;
                return Ok(Ended::Dropped);
            }
            Ok(Outcome::Exceeds(excess)) => {
                self.drop_batch("it would rewrite more than one commit may; it comes again in parts").await?;
                return Ok(Ended::Exceeded(excess));
            }
            Err(error) => {
                self.metrics.batch(self.flow.name(), BatchOutcome::Failed);
                return Err(error);
            }
        };
        self.count(&landed, &rejects, bytes, newest);
        Ok(Ended::Landed(Advance { span, fate: landed.fate, spending: self.spending(&landed) }))
    }

    /// Returns what a commit has rewritten, where there is a cap on it.
    fn spending(&self, landed: &Landed) -> Option<Spending> {
        let bytes_max = self.flow.upsert.cap?.bytes_max;
        let effort = landed.lineage.effort;
        let own = effort.batch_bytes + effort.discarded_bytes;
        Some(Spending { bytes: effort.bytes_written.saturating_sub(own), bytes_max })
    }

    /// Drops the batch in hand, of which nothing is visible, and takes in where the table stands.
    pub(super) async fn drop_batch(&mut self, why: &'static str) -> Result<()> {
        tracing::info!(flow = %self.flow.name(), why, "batch dropped, reading again from the table's positions");
        self.metrics.batch(self.flow.name(), BatchOutcome::Dropped);
        self.landing.catch_up().await
    }

    /// Tells whether upkeep has something to commit that needs no batch.
    pub(super) fn has_upkeep_ended(&self) -> bool {
        self.upkeep.has_ended()
            || self.dead_letters.as_ref().is_some_and(|(dead_letters, _)| dead_letters.has_upkeep_ended())
    }

    /// Commits what upkeep has ready.
    ///
    /// # Errors
    /// As of [`Upkeep::tend`].
    pub(super) async fn tend(&mut self) -> Result<()> {
        self.upkeep.tend(&mut self.landing).await?;
        match &mut self.dead_letters {
            Some((dead_letters, _)) => dead_letters.tend().await,
            None => Ok(()),
        }
    }

    /// Ends the upkeep under way.
    pub(super) async fn close(&mut self) {
        /// A checkpoint or a compaction of a large table takes seconds; losing one costs nothing but its work.
        const UPKEEP_LIMIT: Duration = Duration::from_secs(10);
        self.upkeep.close(&mut self.landing, UPKEEP_LIMIT).await;
        self.landing.writer().close().await;
        if let Some((dead_letters, _)) = &mut self.dead_letters {
            dead_letters.close(UPKEEP_LIMIT).await;
        }
    }

    async fn land_rejects(&mut self, rejects: &[Reject], span: &Span, lineage: &Lineage) -> Result<()> {
        let Some((dead_letters, recorder)) = &mut self.dead_letters else { return Ok(()) };
        if rejects.is_empty() {
            return Ok(());
        }
        let lineage = Lineage { write_id: self.clock.new_id(), ..lineage.clone() };
        let work = dead_letters.land(rejects, span, &lineage).instrument(tracing::info_span!("dead_letters"));
        let landed = work.await;
        self.metrics.attempts(self.flow.name(), &dead_letters.take_attempts());
        if let Some(landed) = landed? {
            recorder.record(&landed.entry).await;
        }
        Ok(())
    }

    async fn stage_and_commit(&mut self, changes: Changes, signature: &Signature) -> Result<Outcome> {
        let begun = Instant::now();
        self.landing.freshen().await?;
        let span = tracing::info_span!("write", rows = changes.rows.num_rows());
        let mut staged = self.landing.writer().stage(changes).instrument(span).await?;
        staged.spent.write = begun.elapsed();
        self.time(Stage::Write, staged.spent.write);
        let begun = Instant::now();
        let outcome = self.landing.land(&staged, signature).instrument(tracing::info_span!("commit")).await;
        self.time(Stage::Commit, begun.elapsed());
        let name = self.flow.name();
        self.metrics.attempts(name, &self.landing.take_attempts());
        let outcome = outcome?;
        match &outcome {
            Outcome::Landed(_) => {}
            Outcome::Fenced(misfit) => {
                tracing::warn!(flow = %name, %misfit, "the table has moved on without this process");
            }
            Outcome::Exceeds(Excess { bytes, bytes_max, records }) => {
                tracing::info!(flow = %name, bytes, bytes_max, records, "batch is above 'alluvium.upsert.rewrite.max'");
            }
        }
        Ok(outcome)
    }

    async fn record(&mut self, landed: &Landed) {
        let begun = Instant::now();
        self.recorder.record(&landed.entry).instrument(tracing::info_span!("record")).await;
        self.time(Stage::Record, begun.elapsed());
        self.upkeep.landed(&mut self.landing).await;
    }

    fn sign(&self, span: &Span) -> Signature {
        let definition = &self.flow.definition;
        let identity = self.identity.clone();
        let input = Input::Kafka {
            cluster: identity.cluster,
            topic: definition.source.topic.clone(),
            topic_id: identity.topic_id,
            ranges: PartitionRange::of(span),
        };
        let lineage = Lineage {
            inputs: vec![input],
            ..Lineage::begin(
                self.flow.name().clone(),
                &definition.flow.sql_hash,
                ENGINE_INFO,
                self.run,
                self.clock.new_id(),
            )
        };
        let operation = if self.flow.is_upsert() { "MERGE" } else { "STREAMING UPDATE" };
        Signature { lineage, operation, definition: Some(Arc::new(definition.clone())) }
    }

    fn count(&mut self, landed: &Landed, rejects: &[Reject], bytes: u64, newest: Option<i64>) {
        let name = self.flow.name();
        self.metrics.batch(name, BatchOutcome::Landed);
        self.metrics.landed(name, landed.entry.version, &landed.fate, bytes);
        if let Some(footprint) = self.landing.writer().footprint() {
            self.metrics.index(name, footprint.n_keys, footprint.bytes);
        }
        for reject in rejects {
            self.metrics.rejects(name, reject.class, 1);
        }
        if let Some(newest) = newest {
            self.metrics.newest(name, Timestamp(newest));
        }
        tracing::info!(
            flow = %name, version = landed.entry.version, records = landed.fate.records_in,
            applied = landed.fate.applied, merged = landed.fate.merged, filtered = landed.fate.filtered,
            dead_lettered = landed.fate.dead_lettered, conflicts = landed.conflicts, "batch landed"
        );
    }

    fn time(&self, stage: Stage, took: Duration) {
        self.metrics.stage(self.flow.name(), stage, took);
    }
}
