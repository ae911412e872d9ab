//! The stages of one flow, in order: the only place that knows it.
//!
//! ```text
//! source -Fetched-> decode -Decoded-> transform -Changes-> write -Staged-> commit -Landed-> record
//!    ^                 +--Reject--> dead letters (land before the batch)         |
//!    +---------------------------- acknowledge(span) ----------------------------+
//!   |<------------------ front -------------------->|<------------- back ------------->|
//! ```
//! The halves work at the same time: while one batch lands, the next is fetched, decoded and transformed. At most two
//! batches are in memory, beside what the source has fetched ahead. Batches land one at a time and in order. A batch is
//! cancelled only at its edges: a half that has begun ends, or its error ends the flow. An abort is the one exception: it
//! drops both halves wherever they are, since only a commit makes a batch visible and the table says whether it did. A
//! batch that would rewrite more of its table than it may is dropped, and comes again in parts ([`split`]).

mod back;
mod front;
mod identity;
mod open;
mod split;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::{Error, Fate, Result, Span};
use alluvium_sql::Flow;

pub use open::{FlowParts, Prepared, ensure_table};
use tokio::time::MissedTickBehavior;

use crate::metrics::{FlowState, Metrics};
use crate::shutdown::Shutdown;
use crate::source::{Fetch, Source};
use crate::write::Excess;
use back::Back;
use front::{Front, Ready};
use split::{Part, Spending, Splitter};
use worker::Worker;

/// One flow at work.
#[derive(Debug)]
pub struct FlowRun {
    flow: Arc<Flow>,
    source: Box<dyn Source>,
    front: Worker<Front, Result<Ready>>,
    back: Worker<Back, Result<Ended>>,
    splitter: Splitter,
    metrics: Arc<Metrics>,
    tally: Tally,
}

/// How the back half has done with a batch.
#[derive(Debug)]
enum Ended {
    /// It is part of the table.
    Landed(Advance),
    /// It is another process's: reading has to begin again from where the table stands.
    Dropped,
    /// It would rewrite more of the table than one commit may: reading begins again, in smaller batches.
    Exceeded(Excess),
    /// There was none: upkeep had something to commit.
    Tended,
}

/// What a batch that has landed came to.
#[derive(Debug)]
struct Advance {
    span: Span,
    fate: Fate,
    spending: Option<Spending>,
}

/// How often state and lag are shown, whether records come or not.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long leaving the group may take once nobody waits for anything but the end.
const ABORTED_CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// What a flow has landed since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Versions.
    pub commits: u64,
    /// Records by fate.
    pub fate: Fate,
}

/// What the halves have not taken over yet.
#[derive(Debug, Default)]
struct Waiting {
    /// The batch that lands next.
    ready: Option<Ready>,
    /// Why the flow ends once everything before has landed.
    ending: Option<Ending>,
}

/// Why a flow ends. What a source says of its end it may say only once.
#[derive(Debug)]
enum Ending {
    /// `--once`: everything up to the ends at start was delivered.
    Drained,
    /// The process was asked to stop.
    Stopped,
    /// The source cannot go on.
    SourceFailed(Error),
    /// A batch cannot be prepared.
    BatchFailed(Error),
}

impl FlowRun {
    /// Lands batches until the source has drained or `shutdown` asks to stop; what does not land then is left to the
    /// next start. An abort drops the batches under way, at once: a store that does not answer keeps nobody from
    /// stopping.
    ///
    /// # Errors
    /// What a stage cannot settle by itself; the flow may be opened again when the kind is `Unavailable` or `Conflict`.
    pub async fn run(&mut self, shutdown: &Shutdown) -> Result<()> {
        let name = self.flow.name().clone();
        tokio::select! {
            biased;
            () = shutdown.aborting() => {}
            ended = self.work(shutdown) => return ended,
        }
        tracing::warn!(flow = %name, "aborted: batches under way are dropped");
        self.front.abandon();
        self.back.abandon();
        Ok(())
    }

    /// Leaves the group and ends the upkeep under way. After an abort, also one that comes meanwhile, upkeep is dropped,
    /// and a group that cannot be left in time is left to find out.
    ///
    /// # Errors
    /// As of [`Source::close`].
    pub async fn close(&mut self, shutdown: &Shutdown) -> Result<()> {
        if let Some(back) = self.back.resting() {
            tokio::select! {
                biased;
                () = shutdown.aborting() => {}
                () = back.close() => {}
            }
        }
        self.back.abandon();
        let aborted = async {
            shutdown.aborting().await;
            tokio::time::sleep(ABORTED_CLOSE_LIMIT).await;
        };
        tokio::select! {
            biased;
            closed = self.source.close() => closed,
            () = aborted => {
                tracing::warn!(flow = %self.flow.name(), "the group was not left in time; it will notice by itself");
                Ok(())
            }
        }
    }

    /// Returns what has landed so far, but for a batch that is landing now.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    async fn work(&mut self, shutdown: &Shutdown) -> Result<()> {
        let ended = self.pump(shutdown).await;
        let rested = self.rest().await;
        ended.and(rested)
    }

    /// Keeps both halves at work.
    async fn pump(&mut self, shutdown: &Shutdown) -> Result<()> {
        let mut waiting = Waiting::default();
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if shutdown.is_draining() && self.splitter.forget() {
                // They come again; to land them all may take longer than a process has to end. Whatever the source
                // still has lies behind them, and cannot land without them.
                waiting.ending.get_or_insert(Ending::Stopped);
            }
            if self.back.is_resting() {
                if let Some(ready) = waiting.ready.take() {
                    self.begin_landing(ready)?;
                } else if self.front.is_resting()
                    && let Some(ending) = waiting.ending.take()
                {
                    return ending.into_result();
                }
            }
            let may_fetch = self.front.is_resting() && waiting.ready.is_none() && waiting.ending.is_none();
            if may_fetch && let Some(part) = self.splitter.next() {
                self.begin_preparing(part)?;
                continue;
            }
            tokio::select! {
                biased;
                ended = self.back.done() => {
                    let goes_on = self.settle(&ended??);
                    if !goes_on && !self.go_back(std::mem::take(&mut waiting), shutdown).await? {
                        return Ok(());
                    }
                }
                prepared = self.front.done() => match prepared? {
                    Ok(ready) => waiting.ready = Some(ready),
                    Err(error) => waiting.ending = Some(Ending::BatchFailed(error)),
                },
                _ = looks.tick() => {
                    self.show();
                    self.tend()?;
                }
                fetch = self.source.fetch(), if may_fetch => waiting.ending = self.take(fetch)?,
            }
        }
    }

    /// Shows whether records can come, and how many wait.
    fn show(&self) {
        let name = self.flow.name();
        let state = if self.source.is_ready() { FlowState::Running } else { FlowState::Starting };
        self.metrics.set_state(name, state);
        self.metrics.lag(name, &self.flow.definition.source.topic, &self.source.lag());
    }

    /// Has the back half commit what upkeep has ready, while no batch is there for it.
    fn tend(&mut self) -> Result<()> {
        if !self.back.resting().is_some_and(|back| back.has_upkeep_ended()) {
            return Ok(());
        }
        self.back.begin(|mut back| async move {
            let tended = back.tend().await.map(|()| Ended::Tended);
            (back, tended)
        })
    }

    /// Hands what the source has to the front half; returns why the flow ends, when the source is at its end.
    fn take(&mut self, fetch: Result<Fetch>) -> Result<Option<Ending>> {
        self.show();
        match fetch {
            Ok(Fetch::Batch(fetched)) => {
                if let Some(first) = self.splitter.take(*fetched)? {
                    self.begin_preparing(first)?;
                }
            }
            Ok(Fetch::Idle) => {}
            Ok(Fetch::Drained) => return Ok(Some(Ending::Drained)),
            Ok(Fetch::Stopped) => return Ok(Some(Ending::Stopped)),
            // What was fetched before is sound and lands first.
            Err(error) => return Ok(Some(Ending::SourceFailed(error))),
        }
        Ok(None)
    }

    /// Hands a batch to the front half.
    fn begin_preparing(&mut self, part: Part) -> Result<()> {
        self.front.begin(|mut front| async move {
            let prepared = front.prepare(part).await;
            (front, prepared)
        })
    }

    /// Takes in how the back half has done with a batch; tells whether what follows it may land.
    fn settle(&mut self, ended: &Ended) -> bool {
        match ended {
            Ended::Tended => true,
            Ended::Landed(advance) => {
                self.splitter.landed(advance.span.records(), advance.spending);
                self.advance(advance);
                true
            }
            Ended::Dropped => false,
            Ended::Exceeded(excess) => {
                self.splitter.exceeded(excess);
                false
            }
        }
    }

    /// Hands a batch to the back half; one whose partitions are gone is dropped there.
    fn begin_landing(&mut self, ready: Ready) -> Result<()> {
        let holds = self.source.holds(&ready.handed_out);
        self.back.begin(move |mut back| async move {
            let landed = match holds {
                true => back.land(ready).await,
                false => back.drop_batch("its partitions went to another process").await.map(|()| Ended::Dropped),
            };
            (back, landed)
        })
    }

    /// Drops what is ready to follow a batch that did not land, and starts over unless the flow is to end; tells
    /// whether it goes on.
    ///
    /// # Errors
    /// Why the source cannot go on, if it has said so: asked to begin again, it would only say that it is closed.
    /// Otherwise as of [`Source::resync`].
    async fn go_back(&mut self, waiting: Waiting, shutdown: &Shutdown) -> Result<bool> {
        let Waiting { ready, ending } = waiting;
        drop(ready);
        match ending {
            Some(Ending::SourceFailed(error)) => return Err(error),
            Some(Ending::Stopped) => return Ok(false),
            // The source drains again, and a batch that failed follows the one that did not land: it comes again.
            Some(Ending::Drained | Ending::BatchFailed(_)) | None => {}
        }
        if !shutdown.is_draining() {
            self.start_over().await?;
        }
        // Looked at again, as beginning again takes a while: a source that has said meanwhile that it stopped need not
        // say it twice, and nothing is under way that could still land.
        Ok(!shutdown.is_draining())
    }

    /// Drops what was prepared meanwhile, since it follows a batch that did not land, and reads again from where the
    /// table stands.
    async fn start_over(&mut self) -> Result<()> {
        self.splitter.forget();
        if !self.front.is_resting() {
            drop(self.front.done().await?);
        }
        self.source.resync().await
    }

    /// Waits for what is at work. A batch that was prepared and not landed comes again.
    async fn rest(&mut self) -> Result<()> {
        if !self.front.is_resting() {
            drop(self.front.done().await?);
        }
        if !self.back.is_resting() {
            let ended = self.back.done().await??;
            self.settle(&ended);
        }
        Ok(())
    }

    fn advance(&mut self, landed: &Advance) {
        self.tally.add(&landed.fate);
        self.source.acknowledge(&landed.span);
    }
}

impl Ending {
    fn into_result(self) -> Result<()> {
        match self {
            Self::Drained | Self::Stopped => Ok(()),
            Self::SourceFailed(error) | Self::BatchFailed(error) => Err(error),
        }
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

#[cfg(test)]
mod tests;
