//! `alluvium check`: compiles SQL files and shows what their flows would do. It reads definitions, never data.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use alluvium_sql::{Change, Compiler, ErrorMode, Flow, Pipeline, SourceText, TableReader, sql_type, unreadable};
use clap::Args;
use serde_json::{Value, json};

use super::CatalogNames;
use super::console::{Console, Role};
use super::failure::{Exit, diagnostics};
use super::table::{TextTable, counted, grouped, sized};
use super::workspace::Workspace;
use crate::config::Settings;

/// The longest SQL file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// SQL files; they see each other's definitions
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Compiles and shows.
///
/// # Errors
/// `Invalid` when a file cannot be read or does not compile; what the catalog says when it cannot be asked.
pub(super) async fn run(arguments: &CheckArgs, settings: &Settings, console: &mut Console) -> Result<Exit> {
    match compile(&arguments.files, settings).await {
        Ok(pipeline) if arguments.json => {
            let flows: Vec<Value> = pipeline.flows.iter().map(|flow| to_json(flow)).collect();
            console.json(&json!({"ok": true, "flows": flows, "diagnostics": []}))?;
        }
        Ok(pipeline) => show(&pipeline, console)?,
        Err(error) if arguments.json => {
            let places = diagnostics(&error).map(|diagnostics| diagnostics.to_json());
            // What is wrong in no place of a file: a file that is not there, a catalog that cannot be opened.
            let elsewhere = places
                .is_none()
                .then(|| json!({"kind": error.kind().to_string(), "message": error.chain(), "hint": error.hint()}));
            let diagnostics = places.unwrap_or_else(|| json!([]));
            console.json(&json!({"ok": false, "flows": [], "diagnostics": diagnostics, "error": elsewhere}))?;
            return Ok(Exit::of(&error));
        }
        Err(error) => return Err(error),
    }
    Ok(Exit::Done)
}

/// Reads and compiles `files` against the catalog of the settings, if there is one.
///
/// # Errors
/// `Invalid` when a file cannot be read, or does not compile, with the diagnostics as its source.
async fn compile(files: &[PathBuf], settings: &Settings) -> Result<Pipeline> {
    let texts = read_all(files)?;
    let workspace = Workspace::open_if_there(settings).await?;
    let compiled = compile_texts(&texts, &workspace).await;
    workspace.close().await;
    compiled
}

/// Reads `files`.
///
/// # Errors
/// `Invalid` when one cannot be read.
pub(crate) fn read_all(files: &[PathBuf]) -> Result<Vec<Arc<SourceText>>> {
    files.iter().map(|file| read(file)).collect()
}

/// Compiles `texts` against the catalog of `workspace`.
///
/// # Errors
/// `Invalid` with the diagnostics as its source.
pub(crate) async fn compile_texts(texts: &[Arc<SourceText>], workspace: &Workspace) -> Result<Pipeline> {
    Ok(compiler(workspace).compile(texts).await?)
}

/// Returns the compiler of the workspace.
pub(crate) fn compiler(workspace: &Workspace) -> Compiler {
    let reader = TableReader::new(workspace.stores.clone(), Arc::clone(&workspace.catalog));
    let names = CatalogNames::new(Arc::clone(&workspace.catalog), reader);
    Compiler::new(workspace.settings.warehouse().clone(), Arc::new(names)).with_batch(workspace.settings.batch())
}

fn read(file: &Path) -> Result<Arc<SourceText>> {
    use std::io::Read;

    let failed = |cause| unreadable(file, cause);
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let error = Error::invalid(format!("{} is longer than {}", file.display(), sized(FILE_BYTES_MAX)));
        return Err(error.with_hint("split it into several files: they see each other's definitions"));
    }
    Ok(Arc::new(SourceText::new(file.display().to_string(), text)))
}

fn show(pipeline: &Pipeline, console: &mut Console) -> Result<()> {
    for flow in &pipeline.flows {
        show_flow(flow, console)?;
    }
    let verdict = match pipeline.flows.len() as u64 {
        0 => "no errors, but no flow either".to_owned(),
        n_flows => format!("{}, no errors", counted(n_flows, "flow")),
    };
    let verdict = console.style.paint(Role::Good, &verdict);
    console.line(verdict)
}

fn show_flow(flow: &Flow, console: &mut Console) -> Result<()> {
    let definition = &flow.definition;
    let place = console.style.paint(Role::Faint, &format!("{}:{}", definition.flow.file, definition.flow.line));
    let name = console.style.paint(Role::Strong, flow.name().as_str());
    console.line(format!("flow {name}  {place}"))?;
    console.line(format!("  reads    topic {} by source {}", definition.source.topic, definition.source.name))?;
    if !flow.lookups.is_empty() {
        let lookups: Vec<String> = flow.lookups.iter().map(ToString::to_string).collect();
        console.line(format!("  looks up {}", lookups.join(", ")))?;
    }
    console.line(format!("  writes   {}, {}", definition.table.name, change_text(&flow.change)))?;
    console.line(format!("  at       {}", definition.table.location))?;
    let rejects = match &flow.errors {
        ErrorMode::Fail => "stop the flow".to_owned(),
        ErrorMode::Ignore => "are dropped and counted".to_owned(),
        ErrorMode::Log(table) => format!("go to {table}"),
    };
    console.line(format!("  rejects  {rejects}"))?;
    let mut columns = TextTable::new(&["column", "type", ""]);
    for field in flow.table_schema.fields() {
        let not_null = if field.is_nullable() { "" } else { "NOT NULL" };
        columns.row([field.name().clone(), sql_type(field.data_type()), not_null.to_owned()]);
    }
    let text = columns.render("  ", console.style);
    console.line("")?;
    console.text(&text)?;
    console.line("")
}

fn change_text(change: &Change) -> String {
    match change {
        Change::Append => "adding every row".to_owned(),
        Change::Upsert { keys, .. } => format!("one row a key ({})", keys.join(", ")),
    }
}

fn to_json(flow: &Flow) -> Value {
    let columns: Vec<Value> = flow
        .table_schema
        .fields()
        .iter()
        .map(
            |field| json!({"name": field.name(), "type": sql_type(field.data_type()), "nullable": field.is_nullable()}),
        )
        .collect();
    let keys = match &flow.change {
        Change::Append => Vec::new(),
        Change::Upsert { keys, .. } => keys.clone(),
    };
    json!({
        "flow": flow.name(),
        "file": flow.definition.flow.file,
        "line": flow.definition.flow.line,
        "kind": flow.definition.flow.kind,
        "sql_hash": flow.definition.flow.sql_hash,
        "topic": flow.definition.source.topic,
        "source": flow.definition.source.name,
        "connection": flow.definition.connection.name,
        "lookups": flow.lookups,
        "table": flow.definition.table.name,
        "location": flow.definition.table.location,
        "keys": keys,
        "columns": columns,
        "batch": {
            "rows": flow.batch.rows_max, "bytes": flow.batch.bytes_max,
            "interval_ms": u64::try_from(flow.batch.interval.as_millis()).unwrap_or(u64::MAX),
        },
    })
}

/// Returns a flow's batch limits as a line for people.
pub(crate) fn batch_text(flow: &Flow) -> String {
    let batch = flow.batch;
    format!("{} records, {} or {:?}", grouped(batch.rows_max as u64), sized(batch.bytes_max as u64), batch.interval)
}
