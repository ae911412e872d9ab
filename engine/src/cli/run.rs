//! `alluvium run`: compiles SQL files, runs their flows, serves metrics, and stops at a batch edge when asked.

use std::path::PathBuf;
use std::sync::Arc;

use alluvium_catalog::store::CatalogStore;
use alluvium_catalog::{Clock, Dataset, Error, ErrorKind, Name, Result, SystemClock, Table, sized};
use alluvium_sql::{Definitions, Flow, SourceText};
use clap::Args;
use indicatif::MultiProgress;
use serde_json::{Value, json};

use super::check;
use super::console::Console;
use super::failure::{Exit, tame};
use super::progress::Progress;
use super::table::{TextTable, counted, grouped};
use super::workspace::Workspace;
use crate::config::Settings;
use crate::metrics::{Metrics, memory_bytes};
use crate::serve::{Server, Shown};
use crate::shutdown::Shutdown;
use crate::supervise::{self, RunOptions, Summary, World};
use crate::write::index::IndexBudget;
use crate::write::vectors::VectorFolder;

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// SQL files; they see each other's definitions
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Stop when what the topics hold now has landed
    #[arg(long)]
    once: bool,
    /// Go on though topic or the table's flow is another
    #[arg(long, value_name = "FLOW")]
    accept_source: Vec<Name>,
    /// Print the summary at the end as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the flows to their end.
///
/// # Errors
/// `Invalid` when the files do not compile; `Unavailable` when the metrics' address is taken; otherwise
/// as of [`supervise::run`].
pub(super) async fn run(
    arguments: &RunArgs,
    settings: &Settings,
    console: &mut Console,
    bars: MultiProgress,
) -> Result<Exit> {
    let workspace = Workspace::open(settings).await?;
    let ran = run_in(&workspace, arguments, console, bars).await;
    workspace.close().await;
    ran
}

async fn run_in(
    workspace: &Workspace,
    arguments: &RunArgs,
    console: &mut Console,
    bars: MultiProgress,
) -> Result<Exit> {
    let texts = check::read_all(&arguments.files)?;
    let pipeline = check::compile_texts(&texts, workspace).await?;
    let flows = pipeline.flows;
    let mut options = options(arguments, &flows)?;
    let registered = register_rest(&texts, &flows, workspace).await?;
    if flows.is_empty() {
        return tell_registered(&registered, arguments.json, console);
    }
    let world = Arc::new(world(workspace)?);
    for flow in &flows {
        tracing::info!(flow = %flow.name(), table = %flow.definition.table.name, batch = check::batch_text(flow), "flow");
    }
    let shown = Shown {
        metrics: Arc::clone(&world.metrics),
        clock: Arc::clone(&world.clock),
        lookups: Arc::clone(&world.lookups),
        run: world.run,
    };
    let server = Server::open(workspace.settings.listen(), shown).await?;
    options.address = server.as_ref().map(Server::address);
    let shutdown = Shutdown::new();
    let listener = shutdown.listen(workspace.settings.limits().drain_timeout)?;
    let progress = console.err_style.is_terminal.then(|| Progress::start(bars, Arc::clone(&world.metrics)));
    let ran = Box::pin(supervise::run(flows, Arc::clone(&world), options, shutdown.clone())).await;
    if let Some(progress) = progress {
        progress.close().await;
    }
    listener.close().await;
    if let Some(server) = server {
        server.close().await;
    }
    let summary = ran?;
    show(&summary, arguments.json, console)?;
    Ok(match exit_of(&summary) {
        Exit::Done if shutdown.is_aborting() => Exit::Interrupted,
        exit => exit,
    })
}

/// Returns the bytes that all key indexes may take, by the setting and by what memory `there_is`: without the one, half of the
/// other, which leaves the rest to batches, to the source's queues and to what else runs there.
fn total_bytes_max(setting: Option<u64>, there_is: Option<u64>) -> Option<u64> {
    if let (Some(allowed), Some(there_is)) = (setting, there_is)
        && allowed > there_is
    {
        let (allowed, there_is) = (sized(allowed), sized(there_is));
        tracing::warn!(allowed, there_is, "key indexes may outgrow the memory: lower index.total_memory");
    }
    setting.or(there_is.map(|there_is| there_is / 2))
}

/// Registers what the files define beside flows: connections and sources, so that they can be looked at, and tables, so
/// that they have a name before a flow fills them. Flows register what they use themselves.
async fn register_rest(texts: &[Arc<SourceText>], flows: &[Arc<Flow>], workspace: &Workspace) -> Result<Definitions> {
    let definitions = check::compiler(workspace).definitions(texts)?;
    // The warehouse's files come first: from them the catalog's entries can be made again, not the other way round.
    if let Err(error) = write_down(&definitions, flows, workspace).await {
        // Flows wait for a warehouse that does not answer; what stands beside them is no reason to end.
        if flows.is_empty() || error.kind() != ErrorKind::Unavailable {
            return Err(error);
        }
        tracing::warn!(error = %error.chain(), "definitions that no flow uses are in the catalog alone");
    }
    let catalog = workspace.catalog.as_ref();
    for connection in &definitions.connections {
        catalog.put_connection(connection).await?;
    }
    for source in &definitions.sources {
        catalog.put_source(source).await?;
    }
    for table in &definitions.tables {
        if let Some(dataset) = declared(table, catalog).await? {
            catalog.put_dataset(&dataset).await?;
        }
    }
    Ok(definitions)
}

/// Writes into the warehouse's registry what none of `flows` uses.
async fn write_down(definitions: &Definitions, flows: &[Arc<Flow>], workspace: &Workspace) -> Result<()> {
    let registry = workspace.registry()?;
    for connection in &definitions.connections {
        if flows.iter().all(|flow| flow.definition.connection.name != connection.name) {
            registry.put_connection(connection).await?;
        }
    }
    for source in &definitions.sources {
        if flows.iter().all(|flow| flow.definition.source.name != source.name) {
            registry.put_source(source).await?;
        }
    }
    for table in &definitions.tables {
        if flows.iter().all(|flow| flow.definition.table.name != table.name)
            && let Some(dataset) = declared(table, workspace.catalog.as_ref()).await?
        {
            registry.put(&dataset).await?;
        }
    }
    Ok(())
}

/// Returns the registration of a declared table; none where one that is declared without columns has them from its
/// flow, which has registered them before.
async fn declared(table: &Table, catalog: &dyn CatalogStore) -> Result<Option<Dataset>> {
    let known = catalog.dataset(&table.name).await?;
    if table.columns.is_empty() && known.as_ref().is_some_and(|known| known.table.is_some()) {
        return Ok(None);
    }
    Ok(Some(Dataset::declared(table, known.as_ref())))
}

/// Says what a file without flows was good for.
fn tell_registered(registered: &Definitions, as_json: bool, console: &mut Console) -> Result<Exit> {
    let Definitions { connections, sources, tables } = registered;
    if as_json {
        console.json(&json!({"flows": []}))?;
        return Ok(Exit::Done);
    }
    let counts = [(connections.len(), "connection"), (sources.len(), "source"), (tables.len(), "table")];
    let counts: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, noun)| counted(*n as u64, noun)).collect();
    let registered = if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") };
    console.line(format!("registered {registered}; the files define no flow to run"))?;
    Ok(Exit::Done)
}

/// Returns how a run ends: trying again helps only where nothing but a service failed.
fn exit_of(summary: &Summary) -> Exit {
    let halts: Vec<ErrorKind> = summary.flows.iter().filter_map(|flow| Some(flow.halted.as_ref()?.kind)).collect();
    if halts.is_empty() {
        return Exit::Done;
    }
    let may_mend = halts.iter().all(|kind| *kind == ErrorKind::Unavailable);
    if may_mend { Exit::Unavailable } else { Exit::Failed }
}

fn options(arguments: &RunArgs, flows: &[Arc<Flow>]) -> Result<RunOptions> {
    if let Some(name) = arguments.accept_source.iter().find(|name| flows.iter().all(|flow| flow.name() != *name)) {
        let known: Vec<String> = flows.iter().map(|flow| flow.name().to_string()).collect();
        return Err(Error::invalid(format!("--accept-source names flow {name}, which the files do not define"))
            .with_hint(format!("they define {}", known.join(", "))));
    }
    Ok(RunOptions { once: arguments.once, accepted: arguments.accept_source.iter().cloned().collect(), address: None })
}

/// Returns what flows have in common.
///
/// # Errors
/// `Invalid` when the settings do not suffice to reach the warehouse.
pub(crate) fn world(workspace: &Workspace) -> Result<World> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let total = total_bytes_max(workspace.settings.limits().index.total_bytes_max, memory_bytes());
    let budget = total.map(IndexBudget::new).unwrap_or_default();
    Ok(World {
        stores: workspace.stores.clone(),
        warehouse: workspace.settings.warehouse().clone(),
        catalog: Arc::clone(&workspace.catalog),
        registry: Some(workspace.registry()?),
        metrics: Arc::new(Metrics::try_new()?),
        index_budget: Arc::new(budget),
        lookups: Arc::default(),
        run: clock.new_id(),
        clock,
        settings: workspace.settings.limits().clone(),
        inline_bytes_max: VectorFolder::INLINE_BYTES_MAX,
    })
}

fn show(summary: &Summary, as_json: bool, console: &mut Console) -> Result<()> {
    if as_json {
        let flows: Vec<Value> = summary
            .flows
            .iter()
            .map(|flow| {
                let halted = flow.halted.as_ref();
                json!({
                    "flow": flow.flow, "commits": flow.commits, "fate": flow.fate,
                    "halted": halted.map(|halt| &halt.reason), "kind": halted.map(|halt| halt.kind.to_string()),
                })
            })
            .collect();
        return console.json(&json!({"flows": flows}));
    }
    let text = summary_text(summary, "", console);
    console.text(&text)
}

/// Returns the end of a run as a table, indented; why flows halted stands below it.
pub(crate) fn summary_text(summary: &Summary, indent: &str, console: &Console) -> String {
    let headings = ["flow", ">commits", ">records", ">applied", ">merged", ">filtered", ">rejected", "end"];
    let mut table = TextTable::new(&headings);
    let mut reasons = String::new();
    for flow in &summary.flows {
        let fate = &flow.fate;
        table.row([
            flow.flow.to_string(),
            grouped(flow.commits),
            grouped(fate.records_in),
            grouped(fate.applied),
            grouped(fate.merged),
            grouped(fate.filtered),
            grouped(fate.dropped + fate.quarantined + fate.dead_lettered),
            if flow.halted.is_some() { "halted" } else { "ok" }.to_owned(),
        ]);
        if let Some(halt) = &flow.halted {
            reasons.push_str(&format!("{indent}{} halted: {}\n", flow.flow, tame(&halt.reason)));
        }
    }
    format!("{}{reasons}", table.render(indent, console.style))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_indexes_may_take_what_the_setting_says_or_half_of_what_there_is() {
        for (setting, there_is, expected) in [
            (None, Some(8 << 30), Some(4 << 30)),
            (Some(1 << 30), Some(8 << 30), Some(1 << 30)),
            (Some(9 << 30), Some(8 << 30), Some(9 << 30)),
            (Some(1 << 30), None, Some(1 << 30)),
            (None, None, None),
        ] {
            assert_eq!(total_bytes_max(setting, there_is), expected, "{setting:?} of {there_is:?}");
        }
    }
}
