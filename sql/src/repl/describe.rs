//! The answers of the commands that show what the catalog knows, as rows, so that every format can show them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alluvium_catalog::store::FlowEntry;
use alluvium_catalog::{
    Branch, Commit, Connection, Dataset, DatasetKind, Direction, Error, ErrorKind, FlowVersion, Graph, Result, Source,
    TableName, newest_versions,
};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, UInt64Array};

use super::backend::{Backend, Opened};
use super::command::Command;
use crate::diagnostic::nearest;

/// Commits listed at once: a few screens.
const COMMITS_MAX: usize = 100;

/// Rows and what stands above them.
#[derive(Debug)]
pub(super) struct Described {
    /// Lines that only people read.
    pub(super) heading: Vec<String>,
    /// The rows.
    pub(super) rows: RecordBatch,
}

impl From<RecordBatch> for Described {
    fn from(rows: RecordBatch) -> Self {
        Self { heading: vec![], rows }
    }
}

/// Returns the rows that a command asks for; none where it asks for no rows.
///
/// # Errors
/// `Invalid` when a name is not known; otherwise as of the catalog and the tables.
pub(super) async fn answer(backend: &dyn Backend, command: &Command) -> Result<Option<Described>> {
    let described = match command {
        Command::Datasets => everything(backend).await,
        Command::Tables => tables(backend).await,
        Command::Describe(name) => describe(backend, name).await,
        Command::Functions(pattern) => functions(backend, pattern.as_deref()).await,
        Command::Schemas => schemas(backend).await,
        Command::Sources => sources(backend).await,
        Command::Flows => flows(backend).await,
        Command::Commits(table) => commits(backend, table.as_ref()).await,
        Command::Lineage(name) => lineage(backend, name).await,
        _ => return Ok(None),
    };
    described.map(Some)
}

/// Lists all that has a name: datasets, tables that were only opened here, sources, connections.
async fn everything(backend: &dyn Backend) -> Result<Described> {
    let catalog = backend.catalog();
    let datasets = catalog.datasets().await?;
    let mut opened = backend.tables().await?;
    opened.retain(|name| datasets.iter().all(|dataset| dataset.name != *name));
    let mut listed: Vec<Listed> = datasets.iter().map(Listed::of_dataset).collect();
    listed.extend(opened.iter().map(|name| Listed::new(name, "opened")));
    listed.extend(catalog.sources().await?.iter().map(|source| Listed {
        location: Some(format!("topic {} over {}", source.topic, source.connection)),
        description: source.comment.clone(),
        ..Listed::new(&source.name, "source")
    }));
    listed.extend(catalog.connections().await?.iter().map(|connection| Listed {
        location: Some(connection.address()),
        ..Listed::new(&connection.name, "connection")
    }));
    list(&listed)
}

/// Lists the catalog's Delta tables, and those that were only opened here.
async fn tables(backend: &dyn Backend) -> Result<Described> {
    let datasets = backend.catalog().datasets().await?;
    let mut opened = backend.tables().await?;
    opened.retain(|name| datasets.iter().all(|dataset| dataset.name != *name));
    let delta = datasets.iter().filter(|dataset| matches!(dataset.kind, DatasetKind::Delta | DatasetKind::DeadLetter));
    let mut listed: Vec<Listed> = delta.map(Listed::of_dataset).collect();
    listed.extend(opened.iter().map(|name| Listed::new(name, "opened")));
    list(&listed)
}

/// A line of a list.
struct Listed {
    name: String,
    kind: String,
    location: Option<String>,
    owner: Option<String>,
    description: Option<String>,
}

impl Listed {
    fn new(name: &impl ToString, kind: &(impl ToString + ?Sized)) -> Self {
        Self { name: name.to_string(), kind: kind.to_string(), location: None, owner: None, description: None }
    }

    fn of_dataset(dataset: &Dataset) -> Self {
        Self {
            location: Some(dataset.location.to_string()),
            owner: dataset.owner.clone(),
            description: dataset.about().map(str::to_owned),
            ..Self::new(&dataset.name, &dataset.kind)
        }
    }
}

fn list(listed: &[Listed]) -> Result<Described> {
    Ok(rows(vec![
        ("name", texts(listed.iter().map(|line| line.name.clone()))),
        ("kind", texts(listed.iter().map(|line| line.kind.clone()))),
        ("location", maybe_texts(listed.iter().map(|line| line.location.clone()))),
        ("owner", maybe_texts(listed.iter().map(|line| line.owner.clone()))),
        ("description", maybe_texts(listed.iter().map(|line| line.description.clone()))),
    ])?
    .into())
}

/// Lists the schemas of all datasets.
async fn schemas(backend: &dyn Backend) -> Result<Described> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for dataset in backend.catalog().datasets().await? {
        *counts.entry(dataset.name.schema().to_owned()).or_default() += 1;
    }
    Ok(rows(vec![("schema", texts(counts.keys().cloned())), ("datasets", numbers(counts.values().copied()))])?.into())
}

/// Lists the functions whose names contain `pattern`.
async fn functions(backend: &dyn Backend, pattern: Option<&str>) -> Result<Described> {
    let pattern = pattern.unwrap_or_default().to_lowercase();
    let names: BTreeSet<String> =
        backend.functions().await?.into_iter().filter(|name| name.contains(&pattern)).collect();
    Ok(rows(vec![("function", texts(names))])?.into())
}

/// Lists the sources.
async fn sources(backend: &dyn Backend) -> Result<Described> {
    let sources = backend.catalog().sources().await?;
    Ok(rows(vec![
        ("source", texts(sources.iter().map(|source| source.name.to_string()))),
        ("topic", texts(sources.iter().map(|source| source.topic.to_string()))),
        ("connection", texts(sources.iter().map(|source| source.connection.to_string()))),
        ("columns", numbers(sources.iter().map(|source| source.columns.len() as u64))),
        ("comment", maybe_texts(sources.iter().map(|source| source.comment.clone()))),
    ])?
    .into())
}

/// Lists the flows by their newest versions.
async fn flows(backend: &dyn Backend) -> Result<Described> {
    let flows = backend.catalog().flows().await?;
    let flows: Vec<&FlowEntry> = newest_versions(&flows).collect();
    let version = |get: fn(&FlowVersion) -> String| texts(flows.iter().map(|entry| get(&entry.version)));
    Ok(rows(vec![
        ("flow", version(|version| version.flow.to_string())),
        ("version", numbers(flows.iter().map(|entry| entry.seq))),
        ("kind", version(|version| version.kind.to_string())),
        ("source", version(|version| version.source.to_string())),
        ("table", version(|version| version.table.to_string())),
        ("lookups", version(|version| joined(&version.lookups))),
        ("defined at", version(|version| format!("{}:{}", version.file, version.line))),
    ])?
    .into())
}

/// Lists the newest commits, of `table` or of all.
async fn commits(backend: &dyn Backend, table: Option<&TableName>) -> Result<Described> {
    let commits = backend.catalog().commits(table, COMMITS_MAX).await?;
    let number = |get: fn(&Commit) -> u64| numbers(commits.iter().map(get));
    Ok(rows(vec![
        ("table", texts(commits.iter().map(|commit| commit.table.to_string()))),
        ("version", number(|commit| commit.version)),
        ("committed at", texts(commits.iter().map(|commit| commit.committed_at.to_string()))),
        ("flow", texts(commits.iter().map(|commit| commit.lineage.flow.to_string()))),
        ("records", number(|commit| commit.lineage.fate.records_in)),
        ("inserted", number(|commit| commit.lineage.rows_inserted)),
        ("updated", number(|commit| commit.lineage.rows_updated)),
        ("deleted", number(|commit| commit.lineage.rows_deleted)),
        ("rejected", number(|commit| commit.lineage.fate.dead_lettered + commit.lineage.fate.dropped)),
        ("read", texts(commits.iter().map(|commit| commit.lineage.inputs_text()))),
    ])?
    .into())
}

/// Shows the columns of a dataset or source, or the options of a connection, under what else is known of it.
async fn describe(backend: &dyn Backend, name: &TableName) -> Result<Described> {
    let dataset = backend.catalog().dataset(name).await?;
    if dataset.is_none() && name.schema() == TableName::DEFAULT_SCHEMA {
        let sources = backend.catalog().sources().await?;
        if let Some(source) = sources.into_iter().find(|source| source.name.as_str() == name.table()) {
            return describe_source(&source);
        }
        let connections = backend.catalog().connections().await?;
        if let Some(connection) = connections.into_iter().find(|connection| connection.name.as_str() == name.table()) {
            return describe_connection(&connection);
        }
    }
    let opened = backend.open(name).await;
    match (dataset, opened) {
        (dataset, Ok(opened)) => describe_opened(name, dataset.as_ref(), &opened),
        // A table that no batch has landed in yet is still known by its declaration.
        (Some(dataset), Err(_)) if dataset.table.is_some() => describe_declared(&dataset),
        (None, Err(error)) if error.kind() == ErrorKind::Invalid => Err(unless_unknown(backend, name, error).await?),
        (_, Err(error)) => Err(error),
    }
}

/// Returns what is wrong with a name that the catalog does not have: that it does not, or `error` where the session knows
/// the table all the same.
async fn unless_unknown(backend: &dyn Backend, name: &TableName, error: Error) -> Result<Error> {
    let tables = backend.tables().await?;
    if tables.contains(name) {
        return Ok(error);
    }
    let catalog = backend.catalog();
    let mut known: BTreeSet<String> = tables.iter().map(written).collect();
    known.extend(catalog.datasets().await?.iter().map(|dataset| written(&dataset.name)));
    known.extend(catalog.sources().await?.iter().map(|source| source.name.to_string()));
    known.extend(catalog.connections().await?.iter().map(|connection| connection.name.to_string()));
    let name = written(name);
    let unknown = Error::invalid(format!("the catalog has no table {name}"));
    Ok(match nearest(&name, known.iter().map(String::as_str)) {
        Some(hint) => unknown.with_hint(hint),
        None => unknown.with_hint("'\\d' lists what there is"),
    })
}

/// Returns a table's name as people write it: without the schema that goes without saying.
fn written(name: &TableName) -> String {
    if name.schema() == TableName::DEFAULT_SCHEMA { name.table().to_owned() } else { name.to_string() }
}

/// Secrets are references in the catalog, and shown as such.
fn describe_connection(connection: &Connection) -> Result<Described> {
    let options = &connection.options;
    let rows = rows(vec![
        ("option", texts(options.keys().cloned())),
        ("value", texts(options.values().map(ToString::to_string))),
    ])?;
    Ok(Described { heading: vec![format!("connection {} of type {}", connection.name, connection.kind)], rows })
}

fn describe_source(source: &Source) -> Result<Described> {
    let columns = &source.columns;
    let rows = rows(vec![
        ("column", texts(columns.iter().map(|column| column.column.name.clone()))),
        ("type", texts(columns.iter().map(|column| column.column.data_type.clone()))),
        ("nullable", booleans(columns.iter().map(|column| column.column.nullable))),
        ("from", texts(columns.iter().map(|column| column.origin.to_string()))),
        ("tags", maybe_texts(columns.iter().map(|column| tags(&column.column.tags)))),
        ("comment", maybe_texts(columns.iter().map(|column| column.column.comment.clone()))),
    ])?;
    let mut heading = vec![format!("source {}", source.name)];
    heading.push(format!("  topic        {} over connection {}", source.topic, source.connection));
    heading.extend(source.comment.iter().map(|comment| format!("  comment      {comment}")));
    heading.extend(source.options.iter().map(|(key, value)| format!("  '{key}' = '{value}'")));
    Ok(Described { heading, rows })
}

fn describe_opened(name: &TableName, dataset: Option<&Dataset>, opened: &Opened) -> Result<Described> {
    let declared = dataset.and_then(|dataset| dataset.table.as_ref());
    let column = |name: &str| declared.and_then(|table| table.columns.iter().find(|column| column.name == name));
    let fields = opened.schema.fields();
    let rows = rows(vec![
        ("column", texts(fields.iter().map(|field| field.name().clone()))),
        ("type", texts(fields.iter().map(|field| crate::types::sql_type(field.data_type())))),
        ("nullable", booleans(fields.iter().map(|field| field.is_nullable()))),
        ("tags", maybe_texts(fields.iter().map(|field| column(field.name()).and_then(|column| tags(&column.tags))))),
        (
            "comment",
            maybe_texts(fields.iter().map(|field| column(field.name()).and_then(|column| column.comment.clone()))),
        ),
    ])?;
    let mut heading = heading(name, dataset);
    heading.extend(opened.version.map(|version| format!("  version      {version}")));
    Ok(Described { heading, rows })
}

fn describe_declared(dataset: &Dataset) -> Result<Described> {
    let columns = dataset.table.as_ref().map(|table| table.columns.as_slice()).unwrap_or_default();
    let rows = rows(vec![
        ("column", texts(columns.iter().map(|column| column.name.clone()))),
        ("type", texts(columns.iter().map(|column| column.data_type.clone()))),
        ("nullable", booleans(columns.iter().map(|column| column.nullable))),
        ("tags", maybe_texts(columns.iter().map(|column| tags(&column.tags)))),
        ("comment", maybe_texts(columns.iter().map(|column| column.comment.clone()))),
    ])?;
    let mut heading = heading(&dataset.name, Some(dataset));
    heading.push("  version      none: nothing landed yet, or the location cannot be reached".to_owned());
    Ok(Described { heading, rows })
}

fn heading(name: &TableName, dataset: Option<&Dataset>) -> Vec<String> {
    let Some(dataset) = dataset else { return vec![name.to_string()] };
    let mut heading = vec![format!("{} {name}", dataset.kind)];
    heading.push(format!("  location     {}", dataset.location));
    heading.extend(dataset.owner.iter().map(|owner| format!("  owner        {owner}")));
    heading.extend(dataset.about().map(|description| format!("  description  {description}")));
    if !dataset.tags.is_empty() {
        heading.push(format!("  tags         {}", dataset.tags.join(", ")));
    }
    if let Some(table) = dataset.table.as_ref().filter(|table| !table.primary_key.is_empty()) {
        heading.push(format!("  primary key  {}", table.primary_key.join(", ")));
    }
    if let Some(table) = dataset.table.as_ref().filter(|table| !table.partitioned_by.is_empty()) {
        heading.push(format!("  partitioned  by {}", table.partitioned_by.join(", ")));
    }
    if let Some(columns @ [_, ..]) = dataset.table.as_ref().and_then(|table| table.clustered_by.as_deref()) {
        heading.push(format!("  clustered    by {}", columns.join(", ")));
    }
    heading
}

/// Shows what a table, topic, flow or source is made from and what is made from it, all the way.
async fn lineage(backend: &dyn Backend, name: &str) -> Result<Described> {
    let catalog = backend.catalog();
    let graph = Graph::load(catalog).await?;
    let Some(node) = graph.find(name, catalog).await? else {
        let error = Error::invalid(format!("the catalog has no table, topic, flow or source '{name}'"));
        return Err(error.with_hint("'\\d' lists what there is"));
    };
    let mut lines = Vec::new();
    for (direction, word) in [(Direction::Up, "upstream"), (Direction::Down, "downstream")] {
        flatten(&graph.tree(&node, direction), word, 1, &mut lines);
    }
    Ok(rows(vec![
        ("direction", texts(lines.iter().map(|(word, ..)| (*word).to_owned()))),
        ("distance", numbers(lines.iter().map(|(_, distance, _)| *distance))),
        ("what", texts(lines.iter().map(|(.., branch)| branch.node.to_string()))),
        ("as", texts(lines.iter().map(|(.., branch)| branch.edge.role().to_owned()))),
        ("by flow", texts(lines.iter().map(|(.., branch)| branch.edge.flow.to_string()))),
        ("into", texts(lines.iter().map(|(.., branch)| branch.edge.to.to_string()))),
        ("commits", numbers(lines.iter().map(|(.., branch)| branch.seen.commits))),
        ("records", numbers(lines.iter().map(|(.., branch)| branch.seen.records))),
    ])?
    .into())
}

/// Lays a tree out as lines, what is near before what lies behind it.
fn flatten(branches: &[Branch], word: &'static str, distance: u64, lines: &mut Vec<(&'static str, u64, Branch)>) {
    for branch in branches {
        lines.push((word, distance, branch.clone()));
        flatten(&branch.below, word, distance + 1, lines);
    }
}

fn tags(tags: &[String]) -> Option<String> {
    (!tags.is_empty()).then(|| tags.join(", "))
}

fn joined(names: &[TableName]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn texts(values: impl IntoIterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn maybe_texts(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(StringArray::from_iter(values))
}

fn numbers(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(values))
}

fn booleans(values: impl Iterator<Item = bool>) -> ArrayRef {
    Arc::new(BooleanArray::from_iter(values.map(Some)))
}

fn rows(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    RecordBatch::try_from_iter(columns)
        .map_err(|source| Error::internal("cannot lay out the catalog's answer").with_source(source))
}
