//! The stages of one flow, in order: the only place that knows it.
//!
//! ```text
//! source -Fetched-> decode -Decoded-> transform -Changes-> write -Staged-> commit -Landed-> record
//!    ^                 +--Reject--> dead letters (land before the batch)         |
//!    +---------------------------- acknowledge(span) ----------------------------+
//! ```
//! A batch is cancelled only at its edges: a stage that has begun ends, or its error ends the flow.

mod open;

use std::sync::Arc;
use std::time::{Duration, Instant};

use alluvium_catalog::{Clock, Error, Fate, Input, Lineage, PartitionRange, Result, Span, Timestamp};
use alluvium_sql::Flow;
use tracing::Instrument;
use uuid::Uuid;

pub use open::{FlowParts, Prepared, ensure_table};

use crate::commit::create::ENGINE_INFO;
use crate::commit::land::{Landing, Signature};
use crate::commit::{Landed, Outcome};
use crate::dead_letter::DeadLetters;
use crate::decode::Decoder;
use crate::hop::{Changes, Decoded, Fetched, Reject};
use crate::invariant::{Law, Watch};
use crate::maintain::Upkeep;
use crate::metrics::{BatchOutcome, CommitOutcome, FlowState, Metrics, Stage};
use crate::record::Recorder;
use crate::shutdown::Shutdown;
use crate::source::{Fetch, Source};
use crate::transform::TransformStage;

/// One flow at work.
#[derive(Debug)]
pub struct FlowRun {
    flow: Arc<Flow>,
    source: Box<dyn Source>,
    decoder: Option<Decoder>,
    transform: TransformStage,
    landing: Landing,
    dead_letters: Option<(DeadLetters, Recorder)>,
    recorder: Recorder,
    upkeep: Upkeep,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    watch: Watch,
    run: Uuid,
    /// What has landed so far.
    pub tally: Tally,
}

/// What a flow has landed since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Versions.
    pub commits: u64,
    /// Records by fate.
    pub fate: Fate,
}

impl FlowRun {
    /// Lands batches until the source has drained or `shutdown` asks to stop.
    ///
    /// # Errors
    /// What a stage cannot settle by itself; the flow may be opened again when the kind is `Unavailable` or `Conflict`.
    pub async fn run(&mut self, shutdown: &Shutdown) -> Result<()> {
        self.metrics.set_state(self.flow.name(), FlowState::Running);
        loop {
            let fetch = tokio::select! {
                biased;
                () = shutdown.aborting() => return Ok(()),
                fetch = self.source.fetch() => fetch?,
            };
            self.metrics.lag(self.flow.name(), &self.flow.definition.source.topic, &self.source.lag());
            match fetch {
                Fetch::Batch(fetched) => {
                    let span = tracing::info_span!("batch", flow = %self.flow.name(), span = %fetched.span);
                    let landed = self.land_batch(*fetched).instrument(span).await;
                    if landed.is_err() {
                        self.metrics.batch(self.flow.name(), BatchOutcome::Failed);
                    }
                    landed?;
                }
                Fetch::Idle => {}
                Fetch::Drained | Fetch::Stopped => return Ok(()),
            }
        }
    }

    /// Leaves the group and ends the upkeep under way.
    ///
    /// # Errors
    /// As of [`Source::close`].
    pub async fn close(&mut self) -> Result<()> {
        /// A checkpoint of a large table takes seconds; losing one costs nothing but its work.
        const UPKEEP_LIMIT: Duration = Duration::from_secs(10);
        self.upkeep.close(UPKEEP_LIMIT).await;
        self.source.close().await
    }

    async fn land_batch(&mut self, fetched: Fetched) -> Result<()> {
        let bytes = fetched.records.bytes() as u64;
        let newest = fetched.records.iter().filter_map(|record| record.timestamp_ms).max();
        self.time(Stage::Fetch, fetched.took);
        let decoded = self.decode(fetched).await?;
        self.time(Stage::Decode, decoded.spent.decode);
        let mut changes = self.transform.apply(decoded).instrument(tracing::info_span!("transform")).await?;
        self.time(Stage::Transform, changes.spent.transform);
        let (span, rejects) = (changes.span.clone(), std::mem::take(&mut changes.rejects));
        if !self.source.holds(&span) {
            return self.drop_batch("its partitions went to another process").await;
        }
        let signature = self.sign(&span);
        self.land_rejects(&rejects, &span, &signature.lineage).await?;
        let Some(landed) = self.land(changes, &signature).await? else {
            return self.drop_batch("another process landed its records").await;
        };
        self.record(&landed).await;
        self.source.acknowledge(&span);
        self.count(&landed, &rejects, bytes, newest);
        Ok(())
    }

    async fn decode(&mut self, fetched: Fetched) -> Result<Decoded> {
        let span = tracing::info_span!("decode", records = fetched.records.len());
        let stopped = || Error::internal("the decoder stopped in an earlier batch");
        let mut decoder = self.decoder.take().ok_or_else(stopped)?;
        let work = tokio::task::spawn_blocking(move || {
            let _entered = span.entered();
            let n_records = fetched.records.len();
            let decoded = decoder.decode(fetched);
            (decoder, n_records, decoded)
        });
        let (decoder, n_records, decoded) =
            work.await.map_err(|cause| Error::internal("the decoder stopped").with_source(cause))?;
        self.decoder = Some(decoder);
        let decoded = decoded?;
        let kept = decoded.row_records.len() + decoded.tombstone_records.len() + decoded.rejects.len();
        self.watch.check(Law::DecodeKeepsEveryRecord, kept == n_records, || format!("{n_records} in, {kept} out"));
        Ok(decoded)
    }

    async fn land_rejects(&mut self, rejects: &[Reject], span: &Span, lineage: &Lineage) -> Result<()> {
        let Some((dead_letters, recorder)) = &mut self.dead_letters else { return Ok(()) };
        if rejects.is_empty() {
            return Ok(());
        }
        let lineage = Lineage { write_id: self.clock.new_id(), ..lineage.clone() };
        let work = dead_letters.land(rejects, span, &lineage).instrument(tracing::info_span!("dead_letters"));
        if let Some(landed) = work.await? {
            recorder.record(&landed.entry).await;
        }
        Ok(())
    }

    /// Stages and commits; `None` when another process was first.
    async fn land(&mut self, changes: Changes, signature: &Signature) -> Result<Option<Landed>> {
        let begun = Instant::now();
        let span = tracing::info_span!("write", rows = changes.rows.num_rows());
        let mut staged = self.landing.writer().stage(changes).instrument(span).await?;
        staged.spent.write = begun.elapsed();
        self.time(Stage::Write, staged.spent.write);
        let begun = Instant::now();
        let outcome = self.landing.land(&staged, signature).instrument(tracing::info_span!("commit")).await?;
        self.time(Stage::Commit, begun.elapsed());
        let name = self.flow.name();
        Ok(match outcome {
            Outcome::Landed(landed) => {
                for _conflict in 0..landed.conflicts {
                    self.metrics.commit(name, CommitOutcome::Conflict);
                }
                self.metrics.commit(name, CommitOutcome::Landed);
                Some(*landed)
            }
            Outcome::Fenced(misfit) => {
                tracing::warn!(flow = %name, %misfit, "the table has moved on without this process");
                self.metrics.commit(name, CommitOutcome::Fenced);
                None
            }
        })
    }

    /// Drops the batch in hand, of which nothing is visible, and goes on from where the table stands.
    async fn drop_batch(&mut self, why: &'static str) -> Result<()> {
        tracing::info!(flow = %self.flow.name(), why, "batch dropped, reading again from the table's positions");
        self.metrics.batch(self.flow.name(), BatchOutcome::Dropped);
        self.landing.catch_up().await?;
        self.source.resync().await
    }

    async fn record(&mut self, landed: &Landed) {
        let begun = Instant::now();
        self.recorder.record(&landed.entry).instrument(tracing::info_span!("record")).await;
        self.upkeep.landed(landed.entry.version);
        self.time(Stage::Record, begun.elapsed());
    }

    fn sign(&self, span: &Span) -> Signature {
        let definition = &self.flow.definition;
        let identity = self.source.identity();
        let input = Input::Kafka {
            cluster: identity.cluster,
            topic: definition.source.topic.clone(),
            topic_id: identity.topic_id,
            ranges: PartitionRange::of(span),
        };
        let lineage = Lineage {
            v: 1,
            flow: self.flow.name().clone(),
            sql_hash: definition.flow.sql_hash.clone(),
            run: self.run,
            write_id: self.clock.new_id(),
            engine: ENGINE_INFO.to_owned(),
            inputs: vec![input],
            fate: Fate::default(),
            rows_inserted: 0,
            rows_updated: 0,
            rows_deleted: 0,
            millis: alluvium_catalog::StageMillis::default(),
            definition: None,
        };
        let operation = if self.flow.is_upsert() { "MERGE" } else { "STREAMING UPDATE" };
        Signature { lineage, operation, definition: Some(Arc::new(definition.clone())) }
    }

    fn count(&mut self, landed: &Landed, rejects: &[Reject], bytes: u64, newest: Option<i64>) {
        let name = self.flow.name();
        self.metrics.batch(name, BatchOutcome::Landed);
        self.metrics.landed(name, landed.entry.version, &landed.fate, bytes);
        for reject in rejects {
            self.metrics.rejects(name, reject.class, 1);
        }
        if let Some(newest) = newest {
            self.metrics.newest(name, Timestamp(newest));
        }
        self.tally.add(&landed.fate);
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

impl Tally {
    fn add(&mut self, fate: &Fate) {
        self.add_all(&Self { commits: 1, fate: *fate });
    }

    /// Adds what another run of the flow has landed.
    pub fn add_all(&mut self, other: &Self) {
        let fate = &other.fate;
        self.commits += other.commits;
        self.fate.records_in += fate.records_in;
        self.fate.applied += fate.applied;
        self.fate.merged += fate.merged;
        self.fate.filtered += fate.filtered;
        self.fate.dropped += fate.dropped;
        self.fate.quarantined += fate.quarantined;
        self.fate.dead_lettered += fate.dead_lettered;
    }
}
