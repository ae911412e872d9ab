//! `alluvium catalog show`: everything that the catalog knows of one name.

use alluvium_catalog::store::{CatalogStore, FlowEntry};
use alluvium_catalog::{Connection, Dataset, DatasetKind, Input, OptionValue, Origin, Result, Source, TableName};
use serde_json::json;

use super::catalog::{history_text, or_null, unknown_name};
use super::console::{Console, Role};
use super::table::TextTable;

/// Shows the table, flow, source or connection of this name, whichever is found first.
///
/// # Errors
/// `Invalid` when there is none; otherwise as of the catalog.
pub(super) async fn run(name: &str, as_json: bool, catalog: &dyn CatalogStore, console: &mut Console) -> Result<()> {
    if let Ok(table) = name.parse::<TableName>()
        && let Some(dataset) = catalog.dataset(&table).await?
    {
        return show_dataset(&dataset, as_json, catalog, console).await;
    }
    if let Ok(word) = name.parse() {
        let versions = catalog.flow(&word).await?;
        if !versions.is_empty() {
            return show_flow(&versions, as_json, console);
        }
        if let Some(source) = catalog.sources().await?.into_iter().find(|source| source.name == word) {
            return show_source(&source, as_json, console);
        }
        if let Some(connection) = catalog.connections().await?.into_iter().find(|known| known.name == word) {
            return show_connection(&connection, as_json, console);
        }
    }
    Err(unknown_name(name, catalog).await?)
}

async fn show_dataset(
    dataset: &Dataset,
    as_json: bool,
    catalog: &dyn CatalogStore,
    console: &mut Console,
) -> Result<()> {
    let flows = catalog.flows().await?;
    let writers: Vec<&FlowEntry> = newest(&flows).filter(|entry| entry.version.table == dataset.name).collect();
    let last = catalog.commits(Some(&dataset.name), 1).await?;
    if as_json {
        return console.json(&json!({"dataset": dataset, "flows": writers, "last_commit": or_null(last.first())}));
    }
    heading(console, kind_word(dataset.kind), &dataset.name.to_string())?;
    field(console, "location", &dataset.location.to_string())?;
    let comment = dataset.table.as_ref().and_then(|table| table.comment.as_ref());
    for (word, value) in [("owner", dataset.owner.as_ref()), ("holds", dataset.description.as_ref().or(comment))] {
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
        let text = history_text(&last, console);
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
    console.line(&version.sql)
}

fn show_source(source: &Source, as_json: bool, console: &mut Console) -> Result<()> {
    if as_json {
        return console.json(&json!(source));
    }
    heading(console, "source", source.name.as_str())?;
    field(console, "topic", source.topic.as_str())?;
    field(console, "connection", source.connection.as_str())?;
    let shown = ["topic", "connection"];
    for (key, value) in source.options.iter().filter(|(key, _)| !shown.contains(&key.as_str())) {
        field(console, key, value)?;
    }
    let mut columns = TextTable::new(&["column", "type", "", "from"]);
    for column in &source.columns {
        let nullable = if column.column.nullable { "" } else { "NOT NULL" };
        let origin = match &column.origin {
            Origin::Value => "the value".to_owned(),
            Origin::Metadata(key) => format!("{key:?}").to_lowercase(),
            Origin::Computed(expression) => expression.clone(),
        };
        columns.row([column.column.name.clone(), column.column.data_type.clone(), nullable.to_owned(), origin]);
    }
    let text = columns.render("  ", console.style);
    console.line("")?;
    console.text(&text)
}

fn show_connection(connection: &Connection, as_json: bool, console: &mut Console) -> Result<()> {
    if as_json {
        return console.json(&json!(connection));
    }
    heading(console, "connection", connection.name.as_str())?;
    field(console, "kind", &connection.kind)?;
    for (key, value) in &connection.options {
        match value {
            OptionValue::Text(text) => field(console, key, text)?,
            OptionValue::Secret(secret) => field(console, key, &secret.to_string())?,
        }
    }
    Ok(())
}

/// Returns what an input was, with its ranges.
pub(super) fn input_text(input: &Input) -> String {
    match input {
        Input::Kafka { topic, ranges, .. } => {
            let ranges: Vec<String> =
                ranges.iter().map(|range| format!("{}@[{},{})", range.partition, range.first, range.next)).collect();
            format!("{topic} {}", ranges.join(" "))
        }
        Input::Table { table, version } => format!("{table} version {version}"),
        Input::Files { dataset } => format!("{dataset} as it was"),
    }
}

/// Returns the word for a kind of dataset.
pub(super) fn kind_word(kind: DatasetKind) -> &'static str {
    match kind {
        DatasetKind::Delta => "table",
        DatasetKind::DeadLetter => "dead letters",
        DatasetKind::Parquet => "parquet",
        DatasetKind::Csv => "csv",
        DatasetKind::Json => "json",
    }
}

/// Returns the newest version of each flow; `flows` is ordered by flow and place.
fn newest(flows: &[FlowEntry]) -> impl Iterator<Item = &FlowEntry> {
    flows.chunk_by(|left, right| left.version.flow == right.version.flow).filter_map(<[FlowEntry]>::last)
}

fn heading(console: &mut Console, kind: &str, name: &str) -> Result<()> {
    let name = console.style.paint(Role::Strong, name);
    console.line(format!("{kind} {name}"))
}

fn field(console: &mut Console, word: &str, value: &str) -> Result<()> {
    let word = console.style.paint(Role::Faint, &format!("{word:<12}"));
    console.line(format!("  {word} {}", value.replace(char::is_control, " ")))
}
