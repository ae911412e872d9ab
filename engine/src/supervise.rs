//! Runs flows, one task each, and restarts what may be tried again.
//!
//! A flow that fails halts alone; the others go on. What a restart can mend (a service that does not answer, a commit
//! that met too many others) is tried again with growing waits; what needs a human halts at once, with the reason.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use alluvium_catalog::store::{CatalogStore, Run};
use alluvium_catalog::{Clock, Error, ErrorKind, Fate, Location, Name, Registry, Result, Stores, TableName};
use alluvium_sql::Flow;
use tokio::task::{self, JoinSet};
use tokio::time::Instant;
use uuid::Uuid;

use crate::config::Limits;
use crate::lookup::Lookups;
use crate::metrics::{FlowState, Metrics};
use crate::pipeline::{FlowParts, FlowRun, Tally, ensure_table};
use crate::shutdown::Shutdown;
use crate::source::{Goal, Outset};
use crate::write::index::IndexBudget;

/// What flows have in common: stores, catalog, time, numbers and limits.
#[derive(Debug)]
pub struct World {
    /// How tables are reached.
    pub stores: Stores,
    /// Where tables without a location lie.
    pub warehouse: Location,
    /// Where commits are recorded.
    pub catalog: Arc<dyn CatalogStore>,
    /// Where the warehouse keeps registrations.
    pub registry: Option<Registry>,
    /// Time and ids.
    pub clock: Arc<dyn Clock>,
    /// The numbers shown.
    pub metrics: Arc<Metrics>,
    /// The memory that the flows' key indexes may take together.
    pub index_budget: Arc<IndexBudget>,
    /// What looks up rows by the flows' key indexes.
    pub lookups: Arc<Lookups>,
    /// This process's run.
    pub run: Uuid,
    /// Attempts, waits and memory.
    pub settings: Limits,
    /// Deletion vectors of at most this many bytes stand in the log.
    pub inline_bytes_max: usize,
}

/// How flows are run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Whether to stop when everything up to the ends at start has landed.
    pub once: bool,
    /// Flows whose positions hold even if cluster or topic are others than before, and which may take an upsert table
    /// over, until they first land a batch.
    pub accepted: BTreeSet<Name>,
    /// Where the process answers over HTTP, if it does: sessions on this machine find it by the catalog.
    pub address: Option<SocketAddr>,
}

/// How all flows ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Each flow, in the order given.
    pub flows: Vec<FlowSummary>,
}

/// How one flow ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowSummary {
    /// The flow.
    pub flow: Name,
    /// Versions that it landed.
    pub commits: u64,
    /// What became of its records.
    pub fate: Fate,
    /// Why it stopped by itself, if it did.
    pub halted: Option<Halt>,
}

/// Why a flow stopped by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halt {
    /// Who has to act.
    pub kind: ErrorKind,
    /// The error with its causes and its hint.
    pub reason: String,
}

/// Restarts of a flow in a row, without a batch landed between them, before it halts over conflicts: another process undoes
/// what it does. A service that does not answer is waited for without end, but under `--once`, where somebody waits for an
/// answer: this many restarts end it there, and [`Limits::once_timeout`].
const RESTARTS_MAX: u32 = 20;

/// Runs `flows` until `shutdown`, or until they are drained.
///
/// # Errors
/// As of the catalog when the run cannot be recorded. A flow that halts is no error here; its summary tells.
pub async fn run(flows: Vec<Arc<Flow>>, world: Arc<World>, options: RunOptions, shutdown: Shutdown) -> Result<Summary> {
    let (id, started_at, address) = (world.run, world.clock.now(), options.address);
    let mut record = Run { id, started_at, ended_at: None, error: None, address };
    world.catalog.put_run(&record).await?;
    tokio::select! {
        biased;
        () = shutdown.draining() => {}
        () = make_looked_up_tables(&flows, &world) => {}
    }
    let options = Arc::new(options);
    let mut tasks = FlowTasks::default();
    for flow in &flows {
        world.metrics.expect(flow.name());
        let (flow, world) = (Arc::clone(flow), Arc::clone(&world));
        let (options, shutdown) = (Arc::clone(&options), shutdown.clone());
        let name = flow.name().clone();
        tasks.spawn(name, async move { Box::pin(keep_running(flow, &world, &options, &shutdown)).await });
    }
    let summary = Summary { flows: tasks.join(&world.metrics).await };
    record.ended_at = Some(world.clock.now());
    record.error = summary.flows.iter().find_map(|flow| flow.halted.as_ref()).map(|halt| halt.reason.clone());
    if let Err(error) = world.catalog.put_run(&record).await {
        tracing::warn!(error = %error.chain(), "the catalog did not take the end of the run");
    }
    Ok(summary)
}

/// The tasks of flows, by the place that each flow was given.
#[derive(Debug, Default)]
struct FlowTasks {
    tasks: JoinSet<FlowSummary>,
    flows: Vec<(task::Id, Name)>,
}

impl FlowTasks {
    fn spawn(&mut self, flow: Name, work: impl Future<Output = FlowSummary> + Send + 'static) {
        let id = self.tasks.spawn(work).id();
        self.flows.push((id, flow));
    }

    /// Waits for all flows and returns how each ended, in the order given. One whose task panicked is halted; the others
    /// go on.
    async fn join(mut self, metrics: &Metrics) -> Vec<FlowSummary> {
        let mut ended = HashMap::new();
        while let Some(joined) = self.tasks.join_next_with_id().await {
            match joined {
                Ok((id, summary)) => drop(ended.insert(id, summary)),
                Err(cause) => {
                    let id = cause.id();
                    let Some((_, flow)) = self.flows.iter().find(|(known, _)| *known == id) else { continue };
                    let error = Error::internal(format!("the task of flow {flow} stopped")).with_source(cause);
                    metrics.set_state(flow, FlowState::Halted);
                    tracing::error!(%flow, kind = %error.kind(), error = %error.chain(), "flow halted");
                    ended.insert(id, FlowSummary::halted(flow.clone(), &Tally::default(), &error));
                }
            }
        }
        self.flows.into_iter().filter_map(|(id, _)| ended.remove(&id)).collect()
    }
}

impl FlowSummary {
    fn halted(flow: Name, tally: &Tally, error: &Error) -> Self {
        Self { flow, commits: tally.commits, fate: tally.fate, halted: Some(Halt::of(error)) }
    }
}

/// Makes the tables that flows of this run look up in each other, so that none waits for another's first batch. What
/// cannot be made is left to its flow, which meets the same error and reports it.
async fn make_looked_up_tables(flows: &[Arc<Flow>], world: &World) {
    let looked_up: BTreeSet<&TableName> = flows.iter().flat_map(|flow| &flow.lookups).collect();
    let mut pending: Vec<&Arc<Flow>> =
        flows.iter().filter(|flow| looked_up.contains(&flow.definition.table.name)).collect();
    // A looked-up table may look up others itself: each pass makes those that the passes before it have made possible.
    loop {
        let mut left = Vec::new();
        for flow in &pending {
            if let Err(error) = ensure_table(flow, world).await {
                tracing::debug!(flow = %flow.name(), error = %error.chain(), "table not made yet");
                left.push(*flow);
            }
        }
        if left.is_empty() || left.len() == pending.len() {
            return;
        }
        pending = left;
    }
}

/// Runs one flow, again and again where that helps.
async fn keep_running(flow: Arc<Flow>, world: &World, options: &RunOptions, shutdown: &Shutdown) -> FlowSummary {
    let mut total = Tally::default();
    let mut restarts = 0;
    let (goal, outset) = (Goal::default(), Outset::default());
    // Since when no batch has landed, once a service fails.
    let mut troubled_since = None;
    let halted = loop {
        let begun = Instant::now();
        let parts = FlowParts {
            flow: Arc::clone(&flow),
            once: options.once,
            goal: goal.clone(),
            outset: outset.clone(),
            // From its first commit on, the table holds what was accepted. Nobody has seen what differs from it later.
            accepts_source: total.commits == 0 && options.accepted.contains(flow.name()),
            stop: shutdown.drain_token(),
        };
        let (tally, result) = Box::pin(run_once(parts, world, shutdown)).await;
        total.add_all(&tally);
        let Err(error) = result else { break None };
        let has_landed = tally.commits > 0;
        restarts = if has_landed { 1 } else { restarts + 1 };
        let since = if has_landed { Instant::now() } else { troubled_since.unwrap_or(begun) };
        troubled_since = Some(since);
        let may_mend = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Conflict);
        let is_too_often = restarts > RESTARTS_MAX && (options.once || error.kind() == ErrorKind::Conflict);
        let is_spent = is_too_often || (options.once && since.elapsed() >= world.settings.once_timeout);
        if !may_mend || is_spent || shutdown.is_draining() {
            break Some(error);
        }
        world.metrics.set_state(flow.name(), FlowState::Starting);
        let wait = backoff(&world.settings, restarts);
        tracing::warn!(flow = %flow.name(), error = %error.chain(), ?wait, restarts, "flow failed, starting it again");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // Nothing is under way, so the stop that was asked for is all that ends the flow.
            () = shutdown.draining() => break None,
        }
    };
    let state = if halted.is_some() { FlowState::Halted } else { FlowState::Stopped };
    world.metrics.set_state(flow.name(), state);
    // Whoever reads its partitions from now on tells of them. Between two runs the lag stays, which is no less by then.
    world.metrics.unassigned(flow.name());
    if let Some(error) = &halted {
        tracing::error!(
            flow = %flow.name(), kind = %error.kind(), error = %error.chain(), hint = error.hint(), "flow halted"
        );
    }
    match halted {
        Some(error) => FlowSummary::halted(flow.name().clone(), &total, &error),
        None => FlowSummary { flow: flow.name().clone(), commits: total.commits, fate: total.fate, halted: None },
    }
}

impl Halt {
    fn of(error: &Error) -> Self {
        let reason = match error.hint() {
            Some(hint) => format!("{} (hint: {hint})", error.chain()),
            None => error.chain(),
        };
        Self { kind: error.kind(), reason }
    }
}

async fn run_once(parts: FlowParts, world: &World, shutdown: &Shutdown) -> (Tally, Result<()>) {
    let opened = tokio::select! {
        biased;
        () = shutdown.draining() => return (Tally::default(), Ok(())),
        opened = FlowRun::open(parts, world) => opened,
    };
    let mut run = match opened {
        Ok(run) => run,
        Err(error) => return (Tally::default(), Err(error)),
    };
    let result = run.run(shutdown).await;
    let closed = run.close(shutdown).await;
    (run.tally(), result.and(closed))
}

/// Returns the wait before the restart of this number, from 1.
fn backoff(limits: &Limits, restarts: u32) -> Duration {
    let doubled = limits.retry_wait_min.saturating_mul(1 << restarts.saturating_sub(1).min(16));
    doubled.min(limits.retry_wait_max)
}

#[cfg(test)]
mod tests;
