//! `alluvium catalog`: what is registered, what happened to it, where it came from; and writing the catalog again.

use alluvium_catalog::store::CatalogStore;
use alluvium_catalog::{Commit, Error, Location, Name, Result, TableName, Topic};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::console::{Console, Role};
use super::lineage::{Graph, Node};
use super::register::{Forget, Register, forget, register};
use super::show;
use super::table::{TextTable, counted, grouped, sized};
use super::workspace::Workspace;
use crate::config::{Settings, nearest};
use crate::rebuild::{Rebuild, Restored};

/// How many commits lineage counts over: all of a year at one a minute.
const COMMITS_MAX: usize = 500_000;

/// What can be asked of the catalog.
#[derive(Debug, Subcommand)]
pub(crate) enum CatalogCommand {
    /// Registers a Delta table or a folder of files under a name
    Register(Register),
    /// Takes a name out of the catalog; what it stood for stays where it is
    Forget(Forget),
    /// Lists tables and other datasets
    List(Format),
    /// Shows a table, flow, source or connection
    Show(Named),
    /// Shows the commits of a table or flow, newest first
    History(History),
    /// Shows what a table or topic comes from and goes into
    Lineage(Named),
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
pub(crate) struct History {
    /// The table's or flow's name
    name: String,
    /// How many commits to show
    #[arg(long, default_value_t = 20, value_name = "N")]
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
        CatalogCommand::Lineage(named) => lineage(&named, catalog, console).await,
        CatalogCommand::Rebuild(_) => Ok(()),
    };
    workspace.close().await;
    done
}

async fn list(format: &Format, catalog: &dyn CatalogStore, console: &mut Console) -> Result<()> {
    let datasets = catalog.datasets().await?;
    if format.json {
        return console.json(&json!(datasets));
    }
    if datasets.is_empty() {
        return console.line("nothing is registered yet; run a pipeline, or alluvium catalog register NAME LOCATION");
    }
    let mut table = TextTable::new(&["name", "kind", ">version", "owner", "tags", "location"]);
    for dataset in &datasets {
        let version = catalog.last_version(&dataset.name).await?;
        table.row([
            dataset.name.to_string(),
            show::kind_word(dataset.kind).to_owned(),
            version.map_or_else(|| "-".to_owned(), |version| version.to_string()),
            dataset.owner.clone().unwrap_or_else(|| "-".to_owned()),
            if dataset.tags.is_empty() { "-".to_owned() } else { dataset.tags.join(",") },
            dataset.location.to_string(),
        ]);
    }
    let text = table.render("", console.style);
    console.text(&text)
}

async fn history(arguments: &History, catalog: &dyn CatalogStore, console: &mut Console) -> Result<()> {
    let commits = commits_of(&arguments.name, arguments.limit, catalog).await?;
    if arguments.format.json {
        return console.json(&json!(commits));
    }
    if commits.is_empty() {
        return console.line(format!("no flow has committed to {} yet", arguments.name));
    }
    let text = history_text(&commits, console);
    console.text(&text)
}

/// Returns commits as two lines each: when and what became of the records; then what was read.
pub(crate) fn history_text(commits: &[Commit], console: &Console) -> String {
    let mut text = String::new();
    for commit in commits {
        let (fate, lineage) = (&commit.lineage.fate, &commit.lineage);
        let version = console.style.paint(Role::Strong, &format!("version {}", commit.version));
        let written = format!("{}, {}", counted(commit.files_added, "file"), sized(commit.bytes_added));
        text.push_str(&format!("{version}  {}  {}  {written}\n", commit.committed_at, lineage.flow));
        text.push_str(&format!("  {}\n", fate_text(fate)));
        for input in &lineage.inputs {
            text.push_str(&console.style.paint(Role::Faint, &format!("  from {}", show::input_text(input))));
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

async fn commits_of(name: &str, limit: usize, catalog: &dyn CatalogStore) -> Result<Vec<Commit>> {
    if let Ok(flow) = name.parse::<Name>()
        && !catalog.flow(&flow).await?.is_empty()
    {
        let all = catalog.commits(None, COMMITS_MAX).await?;
        return Ok(all.into_iter().filter(|commit| commit.lineage.flow == flow).take(limit).collect());
    }
    let table: TableName = name.parse()?;
    if catalog.dataset(&table).await?.is_none() {
        return Err(unknown_name(name, catalog).await?);
    }
    catalog.commits(Some(&table), limit).await
}

async fn lineage(named: &Named, catalog: &dyn CatalogStore, console: &mut Console) -> Result<()> {
    let commits = catalog.commits(None, COMMITS_MAX).await?;
    let graph = Graph::new(&catalog.flows().await?, &catalog.sources().await?, &commits);
    let node = find_node(&named.name, &graph, catalog).await?;
    if named.format.json {
        return console.json(&graph.to_json(&node));
    }
    let text = graph.render(&node, console.style);
    console.text(&text)
}

async fn find_node(name: &str, graph: &Graph, catalog: &dyn CatalogStore) -> Result<Node> {
    if let Ok(table) = name.parse::<TableName>() {
        let node = Node::Table(table.clone());
        if graph.contains(&node) || catalog.dataset(&table).await?.is_some() {
            return Ok(node);
        }
    }
    if let Ok(topic) = name.parse::<Topic>() {
        let node = Node::Topic(topic);
        if graph.contains(&node) {
            return Ok(node);
        }
    }
    Err(unknown_name(name, catalog).await?)
}

/// Returns the error for a name that the catalog does not know, with the nearest one that it does.
pub(crate) async fn unknown_name(name: &str, catalog: &dyn CatalogStore) -> Result<Error> {
    let mut known: Vec<String> = catalog.datasets().await?.iter().map(|dataset| dataset.name.to_string()).collect();
    known.extend(catalog.flows().await?.iter().map(|entry| entry.version.flow.to_string()));
    known.extend(catalog.sources().await?.iter().map(|source| source.name.to_string()));
    let error = Error::invalid(format!("the catalog knows nothing by the name '{name}'"));
    Ok(match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => error.with_hint(format!("did you mean {near}?")),
        None => error.with_hint("alluvium catalog list shows what there is"),
    })
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
