//! `alluvium catalog`: what is registered, what happened to it, where it came from; and writing the catalog again.

use alluvium_catalog::store::{CatalogStore, FlowEntry, places};
use alluvium_catalog::{Commit, Error, Graph, Location, Name, Result, newest_versions};
use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::console::{Console, Role};
use super::find::{Found, find};
use super::register::{Forget, Register, forget, register};
use super::table::{TextTable, counted, grouped, sized};
use super::workspace::Workspace;
use super::{lineage, show};
use crate::config::Settings;
use crate::rebuild::{Rebuild, Restored};

/// What can be asked of the catalog.
#[derive(Debug, Subcommand)]
pub(crate) enum CatalogCommand {
    /// Registers a Delta table or a folder of files under a name
    Register(Register),
    /// Takes a name out of the catalog; what it stood for stays where it is
    Forget(Forget),
    /// Lists datasets, flows, sources and connections
    List(Format),
    /// Shows a table, flow, source, connection or topic
    Show(Named),
    /// Shows the commits of a table or flow, newest first
    History(History),
    /// Shows what a table comes from and goes into
    Lineage(Traced),
    /// Writes the catalog again from the tables' own logs
    Rebuild(RebuildArgs),
}

#[derive(Debug, Args)]
pub(crate) struct Format {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    /// schema.table, or a flow, source, connection or topic
    name: String,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Traced {
    /// schema.table, a topic, a flow (its table) or a source (its topic)
    name: String,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// The table's or flow's name
    name: String,
    /// How many commits to show
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    limit: usize,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct RebuildArgs {
    /// Tables outside the warehouse
    #[arg(value_name = "LOCATION")]
    locations: Vec<Location>,
    #[command(flatten)]
    format: Format,
}

/// Does what `command` says.
///
/// # Errors
/// As of the catalog and the stores; `Invalid` when a name is not known.
pub(crate) async fn run(command: CatalogCommand, settings: &Settings, console: &mut Console) -> Result<()> {
    if let CatalogCommand::Rebuild(arguments) = command {
        return rebuild(&arguments, settings, console).await;
    }
    let workspace = Workspace::open(settings).await?;
    let catalog = workspace.catalog.as_ref();
    let done = match command {
        CatalogCommand::Register(arguments) => register(arguments, &workspace, console).await,
        CatalogCommand::Forget(arguments) => forget(&arguments, &workspace, console).await,
        CatalogCommand::List(format) => list(&format, catalog, console).await,
        CatalogCommand::Show(named) => show::run(&named.name, named.format.json, catalog, console).await,
        CatalogCommand::History(arguments) => history(&arguments, catalog, console).await,
        CatalogCommand::Lineage(traced) => trace(&traced, catalog, console).await,
        CatalogCommand::Rebuild(_) => Ok(()),
    };
    workspace.close().await;
    done
}

async fn list(format: &Format, catalog: &dyn CatalogStore, console: &mut Console) -> Result<()> {
    let (datasets, flows) = (catalog.datasets().await?, catalog.flows().await?);
    let flows: Vec<&FlowEntry> = newest_versions(&flows).collect();
    let (sources, connections) = (catalog.sources().await?, catalog.connections().await?);
    if format.json {
        return console.json(&json!({
            "datasets": datasets, "flows": flows, "sources": sources, "connections": connections,
        }));
    }
    if datasets.is_empty() && flows.is_empty() && sources.is_empty() && connections.is_empty() {
        return console.line("nothing is registered yet; run a pipeline, or alluvium catalog register NAME LOCATION");
    }
    let mut table = TextTable::new(&["name", "kind", ">version", "owner", "tags", "where"]);
    let none = || "-".to_owned();
    for dataset in &datasets {
        let version = catalog.last_version(&dataset.name).await?;
        table.row([
            dataset.name.to_string(),
            dataset.kind.to_string(),
            version.map_or_else(none, |version| version.to_string()),
            dataset.owner.clone().unwrap_or_else(none),
            if dataset.tags.is_empty() { none() } else { dataset.tags.join(",") },
            dataset.location.to_string(),
        ]);
    }
    let mut other = |name: &Name, kind: &str, version: String, place: String| {
        table.row([name.to_string(), kind.to_owned(), version, none(), none(), place]);
    };
    for FlowEntry { seq, version } in flows {
        other(&version.flow, "flow", seq.to_string(), format!("{} into {}", version.source, version.table));
    }
    for source in &sources {
        other(&source.name, "source", none(), format!("topic {} over {}", source.topic, source.connection));
    }
    for connection in &connections {
        other(&connection.name, "connection", none(), connection.address());
    }
    let text = table.render("", console.style);
    console.text(&text)
}

async fn history(arguments: &History, catalog: &dyn CatalogStore, console: &mut Console) -> Result<()> {
    let commits = commits_of(&arguments.name, arguments.limit, catalog).await?;
    let flows = catalog.flows().await?;
    if arguments.format.json {
        return console.json(&json!(with_versions(&commits, &flows)));
    }
    if commits.is_empty() {
        return console.line(format!("no flow has committed to {} yet", arguments.name));
    }
    let text = history_text(&commits, &flows, console);
    console.text(&text)
}

/// Returns commits as JSON, each with the flow's version that made it.
pub(super) fn with_versions(commits: &[Commit], flows: &[FlowEntry]) -> Vec<Value> {
    let places = places(flows);
    let shown = commits.iter().map(|commit| {
        let mut shown = json!(commit);
        shown["flow_version"] = json!(places.get(&(&commit.lineage.flow, commit.lineage.sql_hash.as_str())));
        shown
    });
    shown.collect()
}

/// Returns commits as two lines each: when, by whom and what became of the records; then what was read.
pub(crate) fn history_text(commits: &[Commit], flows: &[FlowEntry], console: &Console) -> String {
    let places = places(flows);
    let mut text = String::new();
    for commit in commits {
        let (fate, lineage) = (&commit.lineage.fate, &commit.lineage);
        let version = console.style.paint(Role::Strong, &format!("version {}", commit.version));
        let written = format!("{}, {}", counted(commit.files_added, "file"), sized(commit.bytes_added));
        let place = places.get(&(&lineage.flow, lineage.sql_hash.as_str()));
        let place = place.map(|place| format!(" version {place}")).unwrap_or_default();
        text.push_str(&format!("{version}  {}  {}{place}  {written}\n", commit.committed_at, lineage.flow));
        text.push_str(&format!("  {}\n", fate_text(fate)));
        for input in &lineage.inputs {
            text.push_str(&console.style.paint(Role::Faint, &format!("  from {input}")));
            text.push('\n');
        }
    }
    text
}

/// Returns what became of records, without the fates that none had.
pub(crate) fn fate_text(fate: &alluvium_catalog::Fate) -> String {
    let fates = [
        ("applied", fate.applied),
        ("merged", fate.merged),
        ("filtered", fate.filtered),
        ("dropped", fate.dropped),
        ("quarantined", fate.quarantined),
        ("dead-lettered", fate.dead_lettered),
    ];
    let shown: Vec<String> = fates
        .iter()
        .filter(|(_, records)| *records > 0)
        .map(|(word, records)| format!("{} {word}", grouped(*records)))
        .collect();
    let parts = if shown.is_empty() { "nothing to do".to_owned() } else { shown.join(", ") };
    format!("{}: {parts}", counted(fate.records_in, "record"))
}

/// Returns the commits into a table, or by a flow.
async fn commits_of(name: &str, limit: usize, catalog: &dyn CatalogStore) -> Result<Vec<Commit>> {
    let what = match find(name, catalog).await? {
        Found::Dataset(dataset) => return catalog.commits(Some(&dataset.name), limit).await,
        Found::Flow(versions) => {
            return match versions.last() {
                Some(newest) => catalog.flow_commits(&newest.version.flow, limit).await,
                None => Ok(Vec::new()),
            };
        }
        Found::Source(_) => "source",
        Found::Connection(_) => "connection",
        Found::Topic(_) => "topic",
    };
    Err(Error::invalid(format!("{name} is a {what}; commits are made into tables, by flows"))
        .with_hint(format!("'alluvium catalog show {name}' names the flows that read it")))
}

async fn trace(traced: &Traced, catalog: &dyn CatalogStore, console: &mut Console) -> Result<()> {
    let graph = Graph::load(catalog).await?;
    let Some(node) = graph.find(&traced.name, catalog).await? else {
        return Err(match find(&traced.name, catalog).await {
            Ok(_) => Error::invalid(format!("nothing flows into or out of {} itself", traced.name))
                .with_hint(format!("'alluvium catalog show {}' names the sources that use it", traced.name)),
            Err(unknown) => unknown,
        });
    };
    if traced.format.json {
        return console.json(&lineage::to_json(&graph, &node));
    }
    let text = lineage::render(&graph, &node, console.style);
    console.text(&text)
}

async fn rebuild(arguments: &RebuildArgs, settings: &Settings, console: &mut Console) -> Result<()> {
    let stores = alluvium_catalog::Stores::new(settings.storage().clone());
    let rebuild = Rebuild {
        stores: &stores,
        warehouse: settings.warehouse(),
        locations: &arguments.locations,
        catalog: settings.catalog(),
    };
    if let Some(folder) = settings.catalog().parent() {
        let made = tokio::fs::create_dir_all(folder).await;
        made.map_err(|source| Error::invalid(format!("cannot make {}", folder.display())).with_source(source))?;
    }
    let restored = rebuild.run().await?;
    if arguments.format.json {
        return console.json(&json!({"catalog": settings.catalog(), "restored": restored}));
    }
    show_restored(&restored, settings, console)
}

fn show_restored(restored: &Restored, settings: &Settings, console: &mut Console) -> Result<()> {
    let mut table = TextTable::new(&["table", ">commits", ">from version", "location"]);
    for found in &restored.tables {
        let first = found.first_version.map_or_else(|| "-".to_owned(), |version| version.to_string());
        table.row([found.table.to_string(), grouped(found.commits as u64), first, found.location.to_string()]);
    }
    let text = table.render("", console.style);
    console.text(&text)?;
    for skipped in &restored.skipped {
        console.line(format!("left out {}: {}", skipped.location, skipped.reason))?;
    }
    let tables = counted(restored.tables.len() as u64, "table");
    let datasets = counted(restored.n_datasets as u64, "other dataset");
    console.line(format!("{tables} with commits and {datasets} are in {}", settings.catalog().display()))
}

/// Returns a JSON null for none.
pub(crate) fn or_null(value: Option<impl serde::Serialize>) -> Value {
    value.map_or(Value::Null, |value| json!(value))
}
