//! `alluvium catalog show`: everything that the catalog knows of one name.

use alluvium_catalog::store::{CatalogStore, FlowEntry};
use alluvium_catalog::{Connection, Dataset, Result, Source, SourceColumn, Topic, newest_versions};
use serde_json::json;

use super::catalog::{history_text, or_null, with_versions};
use super::console::{Console, Role};
use super::failure::tame;
use super::find::{Found, find};
use super::table::TextTable;

/// Shows what this name stands for.
///
/// # Errors
/// `Invalid` when there is none; otherwise as of the catalog.
pub(super) async fn run(name: &str, as_json: bool, catalog: &dyn CatalogStore, console: &mut Console) -> Result<()> {
    match find(name, catalog).await? {
        Found::Dataset(dataset) => show_dataset(&dataset, as_json, catalog, console).await,
        Found::Flow(versions) => show_flow(&versions, as_json, console),
        Found::Source(source) => {
            let readers = Readers::of(catalog, |known| known.name == source.name).await?;
            show_source(&source, &readers, as_json, console)
        }
        Found::Connection(connection) => {
            let readers = Readers::of(catalog, |source| source.connection == connection.name).await?;
            show_connection(&connection, &readers, as_json, console)
        }
        Found::Topic(topic) => {
            let readers = Readers::of(catalog, |source| source.topic == topic).await?;
            show_topic(&topic, &readers, as_json, console)
        }
    }
}

/// Sources, and the newest versions of the flows that read them.
struct Readers {
    sources: Vec<Source>,
    flows: Vec<FlowEntry>,
}

impl Readers {
    async fn of(catalog: &dyn CatalogStore, is_meant: impl Fn(&Source) -> bool) -> Result<Self> {
        let mut sources = catalog.sources().await?;
        sources.retain(is_meant);
        let flows = catalog.flows().await?;
        let reads = |entry: &&FlowEntry| sources.iter().any(|source| source.name == entry.version.source);
        let flows = newest_versions(&flows).filter(reads).cloned().collect();
        Ok(Self { sources, flows })
    }

    fn show_sources(&self, console: &mut Console) -> Result<()> {
        for source in &self.sources {
            field(console, "source", &format!("{}, topic {} over {}", source.name, source.topic, source.connection))?;
        }
        Ok(())
    }

    fn show_flows(&self, console: &mut Console) -> Result<()> {
        for entry in &self.flows {
            field(console, "read by", &format!("flow {} into {}", entry.version.flow, entry.version.table))?;
        }
        Ok(())
    }
}

async fn show_dataset(
    dataset: &Dataset,
    as_json: bool,
    catalog: &dyn CatalogStore,
    console: &mut Console,
) -> Result<()> {
    let flows = catalog.flows().await?;
    let writers: Vec<&FlowEntry> =
        newest_versions(&flows).filter(|entry| entry.version.table == dataset.name).collect();
    let last = catalog.commits(Some(&dataset.name), 1).await?;
    if as_json {
        return console.json(
            &json!({"dataset": dataset, "flows": writers, "last_commit": or_null(with_versions(&last, &flows).pop())}),
        );
    }
    heading(console, &dataset.kind.to_string(), &dataset.name.to_string())?;
    field(console, "location", &dataset.location.to_string())?;
    for (word, value) in [("owner", dataset.owner.as_deref()), ("holds", dataset.about())] {
        if let Some(value) = value {
            field(console, word, value)?;
        }
    }
    if !dataset.tags.is_empty() {
        field(console, "tags", &dataset.tags.join(", "))?;
    }
    for writer in writers {
        let place = format!("{}:{}", writer.version.file, writer.version.line);
        field(console, "written by", &format!("flow {}, version {} ({place})", writer.version.flow, writer.seq))?;
    }
    if let Some(table) = &dataset.table {
        show_columns(table, console)?;
    }
    if !last.is_empty() {
        console.line("")?;
        let text = history_text(&last, &flows, console);
        console.text(&text)?;
    }
    Ok(())
}

fn show_columns(table: &alluvium_catalog::Table, console: &mut Console) -> Result<()> {
    if !table.primary_key.is_empty() {
        field(console, "key", &table.primary_key.join(", "))?;
    }
    if !table.partitioned_by.is_empty() {
        field(console, "partitions", &table.partitioned_by.join(", "))?;
    }
    if let Some(columns) = table.clustered_by.as_ref().filter(|columns| !columns.is_empty()) {
        field(console, "clustered", &columns.join(", "))?;
    }
    if table.columns.is_empty() {
        return Ok(());
    }
    let mut columns = TextTable::new(&["column", "type", "", "comment"]);
    for column in &table.columns {
        let nullable = if column.nullable { "" } else { "NOT NULL" };
        let comment = column.comment.clone().unwrap_or_default();
        columns.row([column.name.clone(), column.data_type.clone(), nullable.to_owned(), comment]);
    }
    let text = columns.render("  ", console.style);
    console.line("")?;
    console.text(&text)
}

fn show_flow(versions: &[FlowEntry], as_json: bool, console: &mut Console) -> Result<()> {
    if as_json {
        return console.json(&json!({"versions": versions}));
    }
    let Some(newest) = versions.last() else { return Ok(()) };
    let version = &newest.version;
    heading(console, "flow", version.flow.as_str())?;
    field(console, "version", &format!("{} of {}", newest.seq, versions.len()))?;
    field(console, "reads", &format!("source {}", version.source))?;
    for lookup in &version.lookups {
        field(console, "looks up", &lookup.to_string())?;
    }
    field(console, "writes", &version.table.to_string())?;
    field(console, "from", &format!("{}:{}", version.file, version.line))?;
    field(console, "hash", &version.sql_hash)?;
    console.line("")?;
    console.line(tame(&version.sql))
}

fn show_source(source: &Source, readers: &Readers, as_json: bool, console: &mut Console) -> Result<()> {
    if as_json {
        return console.json(&json!({"source": source, "flows": readers.flows}));
    }
    heading(console, "source", source.name.as_str())?;
    field(console, "topic", source.topic.as_str())?;
    field(console, "connection", source.connection.as_str())?;
    let shown = ["topic", "connection"];
    for (key, value) in source.options.iter().filter(|(key, _)| !shown.contains(&key.as_str())) {
        field(console, key, value)?;
    }
    readers.show_flows(console)?;
    let mut columns = TextTable::new(&["column", "type", "", "from"]);
    for SourceColumn { column, origin } in &source.columns {
        let nullable = if column.nullable { "" } else { "NOT NULL" };
        columns.row([column.name.clone(), column.data_type.clone(), nullable.to_owned(), origin.to_string()]);
    }
    let text = columns.render("  ", console.style);
    console.line("")?;
    console.text(&text)
}

fn show_connection(connection: &Connection, readers: &Readers, as_json: bool, console: &mut Console) -> Result<()> {
    if as_json {
        return console.json(&json!({"connection": connection, "sources": readers.sources}));
    }
    heading(console, "connection", connection.name.as_str())?;
    field(console, "kind", &connection.kind)?;
    for (key, value) in &connection.options {
        field(console, key, &value.to_string())?;
    }
    readers.show_sources(console)
}

fn show_topic(topic: &Topic, readers: &Readers, as_json: bool, console: &mut Console) -> Result<()> {
    if as_json {
        return console.json(&json!({"topic": topic, "sources": readers.sources, "flows": readers.flows}));
    }
    heading(console, "topic", topic.as_str())?;
    readers.show_sources(console)?;
    readers.show_flows(console)
}

fn heading(console: &mut Console, kind: &str, name: &str) -> Result<()> {
    let name = console.style.paint(Role::Strong, name);
    console.line(format!("{kind} {name}"))
}

fn field(console: &mut Console, word: &str, value: &str) -> Result<()> {
    let word = console.style.paint(Role::Faint, &format!("{word:<12}"));
    console.line(format!("  {word} {}", value.replace(char::is_control, " ")))
}
